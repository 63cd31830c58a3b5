//! `ringcast policies`: shows the policies of channels, without a server.
//!
//! Without a name it lists them in their order. With the name of a channel it tells which policy applies, and which
//! patterns the policies before it have. The exit code is 0 if a policy applies and 1 if none does.

use std::ffi::OsString;
use std::io::Write;

use super::CliError;
use crate::config::load::ConfigSources;
use crate::policy::Policy;
use crate::policy::channels::{ChannelSpec, Channels};

/// The arguments of the command.
#[derive(Debug, Default)]
pub(super) struct PoliciesArguments {
    /// The channel, if one is named.
    channel: Option<String>,
}

impl PoliciesArguments {
    /// Takes the word that follows the command's name.
    pub(super) fn push(&mut self, word: OsString) -> Result<(), CliError> {
        let word = word
            .into_string()
            .map_err(|word| CliError::Usage(format!("{} is not UTF-8", word.display())))?;
        match self.channel.replace(word) {
            None => Ok(()),
            Some(_) => Err(CliError::Usage(
                "expected policies, or policies CHANNEL".to_owned(),
            )),
        }
    }
}

/// Lists the policies or finds the one of a channel; returns the exit code.
pub(super) fn policies(
    sources: &ConfigSources,
    arguments: &PoliciesArguments,
    out: &mut impl Write,
) -> Result<u8, CliError> {
    let mut config = sources.load()?.config;
    // The password file has no influence on policies, and the user of this command may not be allowed to read it.
    config.login.password_file = None;
    let channels = Policy::open(&config)?.channels;
    match &arguments.channel {
        None => list(&channels, out),
        Some(channel) => explain(&channels, channel, out),
    }
}

fn list(channels: &Channels, out: &mut impl Write) -> Result<u8, CliError> {
    if channels.is_empty() {
        writeln!(out, "none: the server keeps nothing of any channel")?;
    }
    for (index, spec) in channels.specs().iter().enumerate() {
        writeln!(
            out,
            "{}: {}: {}",
            place(index, spec),
            spec.names.join(", "),
            spec.policy
        )?;
    }
    Ok(0)
}

fn explain(channels: &Channels, channel: &str, out: &mut impl Write) -> Result<u8, CliError> {
    for (index, spec) in channels.specs().iter().enumerate() {
        let place = place(index, spec);
        match channels.pattern_of(index, channel.as_bytes()) {
            Some(pattern) => {
                writeln!(out, "{place}: applies: the name matches {pattern}")?;
                writeln!(out, "{channel}: {}", spec.policy)?;
                return Ok(0);
            }
            None => writeln!(
                out,
                "{place}: does not apply: the name matches none of {}",
                spec.names.join(", ")
            )?,
        }
    }
    writeln!(
        out,
        "{channel}: no policy applies, so the server keeps nothing of it"
    )?;
    if channel.starts_with('$') {
        writeln!(
            out,
            "(names that begin with $ are the server's own: only patterns that begin with $ match them)"
        )?;
    }
    Ok(1)
}

/// A policy by its place: `2 (line 17)`
fn place(index: usize, spec: &ChannelSpec) -> String {
    match spec.line {
        0 => (index + 1).to_string(),
        line => format!("{} (line {line})", index + 1),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::answer;

    #[test]
    fn the_policy_of_a_name_is_found_and_earlier_policies_are_shown() {
        let file = std::env::temp_dir().join(format!("ringcast-policies-{}", std::process::id()));
        let text =
            "[[channels]]\nnames = \"room.closed.**\"\n\n[[channels]]\nnames = [\"**\"]\nlast_value = true\n";
        std::fs::write(&file, text).unwrap();
        let ask = |words: &[&str]| {
            let mut all = vec!["policies", "--config", file.to_str().unwrap()];
            all.extend(words);
            answer(&all, &[])
        };
        for (words, expected) in [
            (
                &[][..],
                (
                    0,
                    "1 (line 1): room.closed.**: nothing\n2 (line 4): **: last value; position\n",
                ),
            ),
            (
                &["room.a"],
                (
                    0,
                    "1 (line 1): does not apply: the name matches none of room.closed.**\n\
                     2 (line 4): applies: the name matches **\nroom.a: last value; position\n",
                ),
            ),
            (
                &["room.closed"],
                (
                    0,
                    "1 (line 1): applies: the name matches room.closed.**\nroom.closed: nothing\n",
                ),
            ),
            (
                &["$presence/a"],
                (
                    1,
                    "1 (line 1): does not apply: the name matches none of room.closed.**\n\
                     2 (line 4): does not apply: the name matches none of **\n\
                     $presence/a: no policy applies, so the server keeps nothing of it\n\
                     (names that begin with $ are the server's own: only patterns that begin with $ match them)\n",
                ),
            ),
        ] {
            assert_eq!(ask(words), (expected.0, expected.1.to_owned()), "{words:?}");
        }
        assert_eq!(ask(&["a", "b"]).0, 64);
        std::fs::remove_file(&file).unwrap();
        let none = "none: the server keeps nothing of any channel\n".to_owned();
        assert_eq!(answer(&["policies"], &[]), (0, none));
    }
}
