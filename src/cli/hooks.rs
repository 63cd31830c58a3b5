//! `ringcast hooks test`: sends a URL one event of each kind, as a webhook gets them, and shows the answers.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use lexopt::Arg;

use super::CliError;
use crate::config::Config;
use crate::config::target_url::TargetUrl;
use crate::config::webhooks::{WebhookEvent, WebhookSpec};
use crate::control::webhooks::{Tried, send_samples};
use crate::webhooks::Webhooks;
use crate::webhooks::hook::Failure;

/// The arguments of the command, as a webhook for all events.
#[derive(Debug)]
pub(super) struct HooksArguments {
    spec: WebhookSpec,
}

impl HooksArguments {
    /// Parses the words behind the command; `None` if they ask for help.
    pub(super) fn parse(words: Vec<OsString>) -> Result<Option<HooksArguments>, CliError> {
        let mut parser = lexopt::Parser::from_args(words);
        let mut spec = WebhookSpec {
            name: "test".to_owned(),
            events: WebhookEvent::ALL.to_vec(),
            channels: vec!["**".to_owned()],
            ..WebhookSpec::default()
        };
        let mut is_test = false;
        while let Some(word) = parser.next()? {
            match word {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("secret-file") => spec.secret_file = Some(parser.value()?.into()),
                Arg::Long("ca-file") => spec.ca_file = Some(parser.value()?.into()),
                Arg::Long("link-local") => spec.link_local = true,
                Arg::Long("timeout-ms") => {
                    let text = super::text(&mut parser)?;
                    let parsed = text.parse().ok().filter(|ms| (10..=120_000).contains(ms));
                    spec.timeout = parsed.map(Duration::from_millis).ok_or_else(|| {
                        usage(&format!(
                            "--timeout-ms: found {text:?}, expected a whole number from 10 to 120000"
                        ))
                    })?;
                }
                Arg::Value(word) if !is_test && word == "test" => is_test = true,
                Arg::Value(word) if is_test && spec.url.is_empty() => {
                    let url = word.to_str().and_then(TargetUrl::parse);
                    spec.url =
                        url.ok_or_else(|| usage("expected an address such as https://shop.example/events"))?;
                }
                Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(word.unexpected().into()),
            }
        }
        if spec.url.is_empty() {
            return Err(usage("expected `hooks test URL`"));
        }
        Ok(Some(HooksArguments { spec }))
    }
}

fn usage(text: &str) -> CliError {
    CliError::Usage(format!("hooks: {text}"))
}

/// Sends one event of each kind, and shows the outcome.
///
/// # Errors
/// Some event was not taken.
pub(super) fn hooks(arguments: HooksArguments, out: &mut impl Write) -> Result<(), CliError> {
    let config = Config {
        webhooks: vec![arguments.spec],
        ..Config::default()
    };
    let webhooks = Webhooks::compile(&config, b'.', None).map_err(|fault| usage(&fault.fault))?;
    let Some(webhook) = webhooks.hooks().first() else {
        return Ok(());
    };
    let (mut refused, mut written) = (0, Ok(()));
    let width = WebhookEvent::LABELS
        .iter()
        .map(|label| label.len())
        .max()
        .unwrap_or(0);
    let sent = send_samples(webhook, |Tried { event, outcome, took }| {
        let took = took.as_secs_f64() * 1000.0;
        let line = match &outcome {
            Ok(()) => writeln!(out, "{event:<width$}  delivered in {took:.1} ms"),
            Err(failure) if failure.said.is_empty() => {
                writeln!(out, "{event:<width$}  failed: {}", failure.cause)
            }
            Err(failure) => {
                let Failure { cause, said, .. } = failure;
                writeln!(out, "{event:<width$}  failed: {cause}: {said:?}")
            }
        };
        refused += usize::from(outcome.is_err());
        if written.is_ok() {
            written = line;
        }
    });
    sent.map_err(|error| CliError::Failed(format!("hooks: no request can be sent: {error}")))?;
    written?;
    match refused {
        0 => Ok(()),
        count => Err(CliError::NoAnswer(format!(
            "hooks: {count} of {} events were not taken",
            WebhookEvent::COUNT
        ))),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::answer;

    #[test]
    fn wrong_words_are_named() {
        for (words, expected) in [
            (&["hooks"][..], "expected `hooks test URL`"),
            (&["hooks", "test"], "expected `hooks test URL`"),
            (&["hooks", "test", "ftp://x/"], "expected an address"),
            (
                &["hooks", "test", "http://x/", "--timeout-ms", "1"],
                "found \"1\"",
            ),
            (
                &["hooks", "test", "http://x/", "http://y/"],
                "unexpected argument",
            ),
            (
                &["hooks", "test", "http://x/", "--secret-file", "/nowhere"],
                "secret_file: /nowhere: ",
            ),
        ] {
            let (code, text) = answer(words, &[]);
            assert!(code == 64 && text.contains(expected), "{words:?}: {code} {text}");
        }
    }

    #[test]
    fn a_target_that_takes_nothing_is_a_failure() {
        // Nobody listens on a port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (code, text) = answer(&["hooks", "test", &format!("http://127.0.0.1:{port}/")], &[]);
        assert_eq!(code, 69, "{text}");
        assert!(text.contains("10 of 10 events were not taken"), "{text}");
    }
}
