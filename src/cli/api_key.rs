//! `ringcast api-key`: makes a key for the HTTP API, and the entry of the configuration file that admits it.
//!
//! The key is on the first line and the entry below it. If somebody appends all of it to the configuration file, the
//! first line is not TOML, and the server says so instead of keeping the key in the file.

use std::ffi::OsString;
use std::io::Write;

use lexopt::Arg;

use super::CliError;
use crate::auth::api_keys::{ApiKeys, generate, hash};
use crate::config::api_keys::{ApiAction, ApiKeySpec, KeyHash, RATE_DEFAULT, RATE_MAX, is_key_name};

/// The arguments of the command: the entry, with a hash that does not count yet.
#[derive(Debug)]
pub(super) struct ApiKeyArguments {
    spec: ApiKeySpec,
}

impl ApiKeyArguments {
    /// Parses the words behind the command; `None` if they ask for help.
    pub(super) fn parse(words: Vec<OsString>) -> Result<Option<ApiKeyArguments>, CliError> {
        let mut parser = lexopt::Parser::from_args(words);
        let (mut name, mut actions, mut channels) = (None, None, None);
        let (mut rate, mut burst) = (RATE_DEFAULT, None);
        while let Some(word) = parser.next()? {
            match word {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("actions") => actions = Some(super::text(&mut parser)?),
                Arg::Long("channels") => channels = Some(super::text(&mut parser)?),
                Arg::Long("rate") => rate = number("--rate", &super::text(&mut parser)?, 0)?,
                Arg::Long("burst") => burst = Some(number("--burst", &super::text(&mut parser)?, 1)?),
                Arg::Value(word) if name.is_none() => name = Some(word),
                Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(word.unexpected().into()),
            }
        }
        let name = name
            .and_then(|name| name.into_string().ok())
            .filter(|name| is_key_name(name))
            .ok_or_else(|| {
                usage("expected a name of 1 to 64 letters, digits, dots, hyphens or underscores: the log names the key by it")
            })?;
        let actions = actions_named(actions.as_deref())?;
        let channels: Vec<String> = channels
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::to_owned)
            .collect();
        let on_channels = actions.iter().find(|action| action.is_on_channel());
        match on_channels {
            Some(action) if channels.is_empty() => {
                return Err(usage(&format!(
                    "{} is an action on channels: add --channels with patterns, such as 'shop.**', or '**' for all",
                    action.label()
                )));
            }
            None if !channels.is_empty() && !actions.iter().any(|action| action.may_be_on_channel()) => {
                return Err(usage(
                    "none of the actions is one on channels: leave out --channels",
                ));
            }
            Some(_) | None => {}
        }
        Ok(Some(ApiKeyArguments {
            spec: ApiKeySpec {
                name,
                hash: KeyHash::new([0; 32]),
                actions,
                channels,
                rate,
                burst: burst.unwrap_or_else(|| rate.max(1)),
                file: None,
                line: 0,
            },
        }))
    }
}

fn actions_named(list: Option<&str>) -> Result<Vec<ApiAction>, CliError> {
    let known = ApiAction::LABELS.join(", ");
    match list {
        None => Err(usage(&format!(
            "--actions is missing; actions are {known}, or '*' for all"
        ))),
        Some("*") => Ok(ApiAction::ALL.to_vec()),
        Some(list) => list
            .split(',')
            .map(|word| {
                ApiAction::named(word.trim())
                    .ok_or_else(|| usage(&format!("{word:?} is not an action; actions are {known}")))
            })
            .collect(),
    }
}

fn number(flag: &str, text: &str, min: u32) -> Result<u32, CliError> {
    let parsed = text.parse().ok();
    parsed
        .filter(|number| (min..=RATE_MAX).contains(number))
        .ok_or_else(|| {
            usage(&format!(
                "{flag}: found {text:?}, expected a whole number from {min} to {RATE_MAX}"
            ))
        })
}

fn usage(text: &str) -> CliError {
    CliError::Usage(format!("api-key: {text}"))
}

/// Writes a new key, and its entry.
pub(super) fn api_key(arguments: &ApiKeyArguments, out: &mut impl Write) -> Result<(), CliError> {
    let key =
        generate().map_err(|error| CliError::Failed(format!("the system has no random numbers: {error}")))?;
    let spec = ApiKeySpec {
        hash: hash(key.as_bytes()),
        ..arguments.spec.clone()
    };
    // The server of this entry may have another separator, but a pattern that no separator makes valid fails here.
    ApiKeys::compile(std::slice::from_ref(&spec), b'.', None).map_err(|fault| usage(&fault.fault))?;
    writeln!(out, "{}\n\n[[api_keys]]", *key)?;
    writeln!(out, "name = {:?}\nhash = {:?}", spec.name, spec.hash.text())?;
    let actions: Vec<&str> = spec.actions.iter().map(|action| action.label()).collect();
    writeln!(out, "actions = {}", toml::Value::from(actions))?;
    if !spec.channels.is_empty() {
        writeln!(out, "channels = {}", toml::Value::from(spec.channels.clone()))?;
    }
    writeln!(out, "rate = {}\nburst = {}", spec.rate, spec.burst)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::answer;
    use crate::config::load::ConfigSources;

    #[test]
    fn the_printed_entry_admits_the_printed_key_and_the_key_is_not_in_it() {
        let words = [
            "api-key",
            "shop",
            "--actions",
            "publish,disconnect",
            "--channels",
            "shop.**,say \"hi\"",
            "--rate",
            "7",
        ];
        let (code, text) = answer(&words, &[]);
        assert_eq!(code, 0, "{text}");
        let (key, entry) = text.split_once("\n\n").unwrap();
        assert!(!entry.contains(key) && !entry.contains(&key[3..]), "{text}");
        let file = std::env::temp_dir().join(format!("ringcast-api-key-{}.toml", std::process::id()));
        let load = |contents: &str| {
            std::fs::write(&file, contents).unwrap();
            let loaded = ConfigSources::default().file(&file).load();
            std::fs::remove_file(&file).unwrap();
            loaded
        };
        let spec = load(entry).unwrap().config.admin.api_keys.remove(0);
        assert_eq!(spec.hash, hash(key.as_bytes()));
        assert_eq!(spec.actions, [ApiAction::Publish, ApiAction::Disconnect]);
        assert_eq!(spec.channels, ["shop.**", "say \"hi\""]);
        assert_eq!((spec.name.as_str(), spec.rate, spec.burst), ("shop", 7, 7));
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains("is not TOML") && !error.contains(key), "{error}");
    }

    #[test]
    fn what_the_server_would_refuse_is_not_made() {
        for (words, part) in [
            (&["api-key"][..], "expected a name"),
            (&["api-key", "a b"], "expected a name"),
            (
                &["api-key", "a"],
                "--actions is missing; actions are publish, history",
            ),
            (
                &["api-key", "a", "--actions", "publsh"],
                "\"publsh\" is not an action",
            ),
            (&["api-key", "a", "--actions", "publish"], "add --channels"),
            (
                &["api-key", "a", "--actions", "disconnect", "--channels", "a"],
                "leave out --channels",
            ),
            (
                &["api-key", "a", "--actions", "publish", "--channels", "a.**.b"],
                "must come last",
            ),
            (
                &["api-key", "a", "--actions", "*", "--rate", "x"],
                "--rate: found \"x\"",
            ),
        ] {
            let (code, text) = answer(words, &[]);
            assert_eq!(code, 64, "{text}");
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            answer(&["api-key", "a", "--actions", "*", "--channels", "**"], &[]).0,
            0
        );
        assert!(
            answer(&["api-key", "--help"], &[])
                .1
                .contains("ringcast api-key NAME")
        );
    }
}
