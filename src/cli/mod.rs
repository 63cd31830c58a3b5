//! The command line: parses the words of a command, runs it, and turns its outcome into an exit code.
//!
//! Exit codes: 0 for success; 64 (`EX_USAGE`) for an invalid command; 78 (`EX_CONFIG`) for wrong settings,
//! with one line for each fault; 65 (`EX_DATAERR`) for a token that is not accepted; 70 (`EX_SOFTWARE`) for a
//! bug; 69, 75 and 77 for commands that ask a server (`api`); 1 if this machine cannot reach the target of
//! `tuning`, if rules deny what `rules test` asks about, if no policy applies to the channel that `policies` is
//! asked about, or if `passwd` leaves its file unchanged; 130 and 143 for a drain cut short by a second SIGINT or
//! SIGTERM.

mod api;
mod api_key;
mod check;
mod hooks;
mod passwd;
mod policies;
mod rules;
mod serve;
mod token;
mod tuning;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};

use lexopt::Arg;

use crate::config::load::{self, ConfigSources};
use crate::config::unknown::unknown_flag;
use crate::config::{Config, ConfigError, ConfigErrors, Kind, SETTINGS};
use crate::control::Exit;
use crate::log;
use crate::machine::cpus::Cpus;
use crate::policy::PolicyError;

/// Runs a command, given by its words without the program's name, and returns the exit code of the process.
pub fn run(
    words: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> u8 {
    match command(words, environment).and_then(|command| execute(command, &mut io::stdout())) {
        Ok(code) => code,
        // A reader that has read enough (`ringcast check | head`) is no error.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            let text = error.to_string();
            let lines = text.lines().map(|line| {
                format!(
                    "ringcast: {line}
"
                )
            });
            log::final_message(&lines.collect::<String>());
            error.exit_code()
        }
    }
}

/// A parsed command.
#[derive(Debug)]
enum Command {
    Help,
    Version,
    Api(api::ApiCommand),
    ApiKey(api_key::ApiKeyArguments),
    Serve(ConfigSources),
    Check(ConfigSources),
    Hooks(hooks::HooksArguments),
    Passwd(passwd::PasswdArguments),
    Policies(ConfigSources, policies::PoliciesArguments),
    Rules(ConfigSources, rules::RulesArguments),
    Token(ConfigSources, token::TokenArguments),
    Tuning(ConfigSources, tuning::TuningArguments),
}

fn execute(command: Command, out: &mut impl Write) -> Result<u8, CliError> {
    match command {
        Command::Help => help(out)?,
        Command::Version => writeln!(out, "ringcast {}", env!("CARGO_PKG_VERSION"))?,
        Command::Api(command) => command.run(&mut io::stdin(), out)?,
        Command::ApiKey(arguments) => api_key::api_key(&arguments, out)?,
        Command::Serve(sources) => return serve::serve(sources).map(Exit::code),
        Command::Check(sources) => check::check(&sources, &Cpus::of_this_process(), out)?,
        Command::Hooks(arguments) => hooks::hooks(arguments, out)?,
        Command::Passwd(arguments) => passwd::passwd(arguments)?,
        Command::Policies(sources, arguments) => return policies::policies(&sources, &arguments, out),
        Command::Rules(sources, arguments) => return rules::rules(&sources, &arguments, out),
        Command::Token(sources, arguments) => token::token(&sources, &arguments, out)?,
        Command::Tuning(sources, arguments) => return tuning::tuning(&sources, &arguments, out),
    }
    Ok(0)
}

fn command(
    words: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Command, CliError> {
    let mut parser = lexopt::Parser::from_args(words);
    let mut name = None;
    let mut flags = Vec::new();
    let mut policies = policies::PoliciesArguments::default();
    let mut rules = rules::RulesArguments::default();
    let mut token = token::TokenArguments::default();
    let mut tuning = tuning::TuningArguments::default();
    while let Some(word) = parser.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Long("token") if name == Some(CommandName::Rules) => rules.token = Some(text(&mut parser)?),
            Arg::Long("claims") if name == Some(CommandName::Rules) => {
                rules.claims = Some(text(&mut parser)?)
            }
            Arg::Long("claims") if name == Some(CommandName::Token) => token.claims = text(&mut parser)?,
            Arg::Long("expires") if name == Some(CommandName::Token) => {
                token.expires = text(&mut parser)?.parse()?
            }
            Arg::Long("connections") if name == Some(CommandName::Tuning) => {
                tuning.connections = Some(tuning::connections(&text(&mut parser)?)?);
            }
            Arg::Long("json") if name == Some(CommandName::Tuning) => tuning.json = true,
            Arg::Long(flag) => {
                let flag = flag.to_owned();
                let Some(expects) = load::flag_expects(&flag) else {
                    return Err(unknown_flag(&flag).into());
                };
                let value = if is_switch(&flag) {
                    switch(&mut parser)?
                } else {
                    text(&mut parser).map_err(|_| ConfigError::NoValue {
                        flag: format!("--{flag}"),
                        expects,
                    })?
                };
                flags.push((flag, value));
            }
            // `passwd` has the options of `mosquitto_passwd`, so it parses them itself.
            Arg::Value(word) if name.is_none() && word == "passwd" => {
                let words: Vec<_> = parser.raw_args()?.collect();
                if words.first().is_some_and(|word| word == "-h" || word == "--help") {
                    return Ok(Command::Help);
                }
                return passwd::PasswdArguments::parse(words).map(Command::Passwd);
            }
            // These need no settings, so none of their flags is one.
            Arg::Value(word) if name.is_none() && api::is_command(&word) => {
                let words: Vec<_> = parser.raw_args()?.collect();
                let parsed = api::ApiCommand::parse(&word, words, environment)?;
                return Ok(parsed.map_or(Command::Help, Command::Api));
            }
            Arg::Value(word) if name.is_none() && word == "api-key" => {
                let words: Vec<_> = parser.raw_args()?.collect();
                let parsed = api_key::ApiKeyArguments::parse(words)?;
                return Ok(parsed.map_or(Command::Help, Command::ApiKey));
            }
            Arg::Value(word) if name.is_none() && word == "hooks" => {
                let words: Vec<_> = parser.raw_args()?.collect();
                let parsed = hooks::HooksArguments::parse(words)?;
                return Ok(parsed.map_or(Command::Help, Command::Hooks));
            }
            Arg::Value(word) if name.is_none() => name = Some(CommandName::of(&word)?),
            Arg::Value(word) if name == Some(CommandName::Policies) => policies.push(word)?,
            Arg::Value(word) if name == Some(CommandName::Rules) => rules.push(word)?,
            Arg::Short(_) | Arg::Value(_) => return Err(word.unexpected().into()),
        }
    }
    let sources = ConfigSources::new(flags, environment);
    Ok(match name {
        None | Some(CommandName::Serve) => Command::Serve(sources),
        Some(CommandName::Check) => Command::Check(sources),
        Some(CommandName::Policies) => Command::Policies(sources, policies),
        Some(CommandName::Rules) => Command::Rules(sources, rules),
        Some(CommandName::Token) => Command::Token(sources, token),
        Some(CommandName::Tuning) => Command::Tuning(sources, tuning),
    })
}

fn is_switch(flag: &str) -> bool {
    let mut switches = SETTINGS.iter().filter(|setting| setting.kind == Kind::Switch);
    switches.any(|setting| setting.flag().strip_prefix("--") == Some(flag))
}

/// The value of a switch: `on` if no value follows.
fn switch(parser: &mut lexopt::Parser) -> Result<String, CliError> {
    if let Some(value) = parser.optional_value() {
        return value
            .into_string()
            .map_err(|word| CliError::Usage(format!("{} is not UTF-8", word.display())));
    }
    let is_value = |word: &std::ffi::OsStr| {
        ["on", "off", "true", "false", "auto"]
            .iter()
            .any(|value| word == *value)
    };
    let value = parser
        .try_raw_args()
        .and_then(|mut words| words.next_if(is_value));
    Ok(value.map_or_else(|| "on".to_owned(), |value| value.to_string_lossy().into_owned()))
}

fn text(parser: &mut lexopt::Parser) -> Result<String, CliError> {
    let word = parser.value()?;
    word.into_string()
        .map_err(|word| CliError::Usage(format!("{} is not UTF-8", word.display())))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandName {
    Serve,
    Check,
    Policies,
    Rules,
    Token,
    Tuning,
}

impl CommandName {
    fn of(word: &OsString) -> Result<CommandName, CliError> {
        match word.to_str() {
            Some("serve") => Ok(CommandName::Serve),
            Some("check") => Ok(CommandName::Check),
            Some("policies") => Ok(CommandName::Policies),
            Some("rules") => Ok(CommandName::Rules),
            Some("token") => Ok(CommandName::Token),
            Some("tuning") => Ok(CommandName::Tuning),
            _ => Err(CliError::Usage(format!(
                "{} is not a command; commands are serve, check, rules, policies, tuning, token, passwd, api-key, hooks, {}",
                word.display(),
                api::commands()
            ))),
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
enum CliError {
    /// The words are not a valid command.
    Usage(String),
    /// The settings are wrong.
    Config(ConfigErrors),
    /// The faults that `check` has found, one line each.
    Faults(Vec<String>),
    /// Keys or other files that the settings name are wrong.
    Policy(PolicyError),
    /// A token that is not accepted, with the error that a client would get.
    Token(String),
    /// The settings are valid, but not on this machine or not for this command.
    Unusable(String),
    /// The command failed for the reason in the text.
    Failed(String),
    /// The server that a command asked refuses its arguments.
    Refused(String),
    /// The server that a command asked cannot be reached, or gave no answer that the command understands.
    NoAnswer(String),
    /// The server that a command asked could not do it now.
    TryLater(String),
    /// The API key does not allow the request of the command.
    NotAllowed(String),
    /// The user at the terminal pressed Ctrl-C.
    Interrupted,
    /// Standard output is closed.
    Output(io::Error),
    /// The server ended with an error of the system.
    Server(String),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => EX_USAGE,
            CliError::Config(_) | CliError::Faults(_) | CliError::Policy(_) | CliError::Unusable(_) => {
                EX_CONFIG
            }
            CliError::Output(_) | CliError::Server(_) | CliError::Failed(_) => 1,
            CliError::Interrupted => 130,
            CliError::Token(_) | CliError::Refused(_) => EX_DATAERR,
            CliError::NoAnswer(_) => EX_UNAVAILABLE,
            CliError::TryLater(_) => EX_TEMPFAIL,
            CliError::NotAllowed(_) => EX_NOPERM,
        }
    }
}

/// The command was used wrongly (`sysexits.h`).
const EX_USAGE: u8 = 64;
/// The input is wrong (`sysexits.h`).
const EX_DATAERR: u8 = 65;
/// A server is not there (`sysexits.h`).
const EX_UNAVAILABLE: u8 = 69;
/// The same command may succeed later (`sysexits.h`).
const EX_TEMPFAIL: u8 = 75;
/// The user may not do this (`sysexits.h`).
const EX_NOPERM: u8 = 77;
/// The configuration is wrong (`sysexits.h`).
const EX_CONFIG: u8 = 78;

impl fmt::Display for CliError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(text) => write!(formatter, "{text} (see ringcast --help)"),
            CliError::Config(error) => error.fmt(formatter),
            CliError::Faults(faults) => formatter.write_str(&faults.join("\n")),
            CliError::Policy(error) => error.fmt(formatter),
            CliError::Interrupted => formatter.write_str("interrupted; nothing was changed"),
            CliError::Unusable(text)
            | CliError::Server(text)
            | CliError::Failed(text)
            | CliError::Refused(text)
            | CliError::NoAnswer(text)
            | CliError::TryLater(text)
            | CliError::NotAllowed(text) => formatter.write_str(text),
            CliError::Token(error) => write!(formatter, "the token is not accepted: {error}"),
            CliError::Output(error) => write!(formatter, "cannot write the output: {error}"),
        }
    }
}

impl From<lexopt::Error> for CliError {
    fn from(error: lexopt::Error) -> CliError {
        CliError::Usage(error.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        CliError::Config(error.into())
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> CliError {
        CliError::Config(errors)
    }
}

impl From<PolicyError> for CliError {
    fn from(error: PolicyError) -> CliError {
        CliError::Policy(error)
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        CliError::Output(error)
    }
}

fn help(out: &mut impl Write) -> io::Result<()> {
    out.write_all(HELP_HEAD.as_bytes())?;
    let defaults = Config::default();
    for setting in SETTINGS {
        let default = setting
            .show(&defaults)
            .map_or_else(String::new, |text| format!(" [{text}]"));
        writeln!(out, "  {}{default}\n      {}", setting.flag(), setting.doc)?;
    }
    Ok(())
}

const HELP_HEAD: &str = "\
Ringcast: a realtime server for clients of SocketCluster and MQTT.

Usage: ringcast [serve]                 run the server until SIGTERM or SIGINT
       ringcast check                   check the settings, and show where each comes from
       ringcast tuning [--connections N] [--json]
                                        check whether this machine can hold N connections; each finding has a command
                                        that corrects it; exit code 1 if it cannot hold them
       ringcast rules list              show the rules
       ringcast rules test [--token T | --claims JSON] ACTION NAME
                                        show which rule decides, and why; exit code 0 if it allows, 1 if it denies
                                        (ACTION: subscribe, publish, history, presence, invoke, transmit, serve)
       ringcast policies [CHANNEL]      show the policies of channels, or which one applies to this channel;
                                        exit code 1 if none applies
       ringcast token --claims JSON [--expires 1h]
                                        sign a token with the configured key (units: s, m, h, d)
       ringcast passwd [-c | -D] [-b] [--pbkdf2 [--iterations N]] FILE USER [PASSWORD]
       ringcast passwd -U [--pbkdf2 [--iterations N]] FILE
                                        add a user to a password file, or change its password; asks for the password
                                        twice, unless -b gives it (other users of this machine can then see it);
                                        -c creates a new file, -D deletes the user, -U hashes a file of plain passwords;
                                        hashes are Argon2id, or with --pbkdf2 of a kind that Mosquitto 2 can read (210000
                                        iterations, a tenth of a second per login for Mosquitto, which itself uses 101)
       ringcast api-key NAME --actions publish,history [--channels 'shop.**,news'] [--rate N] [--burst N]
                                        make a key for the HTTP API of the control plane: prints the key, which is
                                        stored nowhere, and the entry for the configuration file, which has its hash
       ringcast hooks test URL [--secret-file FILE] [--ca-file FILE] [--link-local] [--timeout-ms N]
                                        send a URL one event of each kind, as a webhook gets them, and show the answers;
                                        exit code 69 if an event was not accepted
       ringcast publish [--text] [--retain] [--idempotency-key KEY] CHANNEL DATA
                                        publish to all subscribers of a channel; DATA is JSON, or with --text any text;
                                        - reads it from standard input; --retain makes it the channel's retained
                                        publication (without DATA, the channel has none any more)
       ringcast history [--last N | --since UNIX_MS | --epoch EPOCH --offset N] [--limit N] CHANNEL
                                        show the history of a channel: offset, time and data of each publication
       ringcast presence [--limit N] [--after NEXT] CHANNEL
                                        list the members of a channel
       ringcast channels [--limit N] [--after NEXT] [PREFIX]
                                        list channels with subscribers
       ringcast connections [--user USER | --connection ID | --address IP | --channel CHANNEL]
                            [--limit N] [--after NEXT]
                                        list connections
       ringcast services [--limit N] [--after NEXT]
                                        list the services of each pattern, with user and open calls
       ringcast disconnect --user USER | --connection ID | --address IP [--code N] [--reason TEXT]
                                        close connections
       ringcast subscribe --user USER | --connection ID | --address IP CHANNEL
                                        subscribe connections to a channel, as far as the rules allow it
       ringcast unsubscribe --user USER | --connection ID | --address IP [--message TEXT] CHANNEL
                                        end subscriptions of connections; the clients get the message
       ringcast remove-history [--idempotency-key KEY] CHANNEL
                                        remove the history of a channel
       ringcast call --user USER | --connection ID | --address IP [--first] [--timeout-ms N] [--text] PROCEDURE [DATA]
                                        call a procedure of clients, and show each answer, or the first
       ringcast transmit --user USER | --connection ID | --address IP [--text] EVENT [DATA]
                                        send clients an event
       ringcast set-claims --user USER | --connection ID | --address IP [--expires-in SECONDS] CLAIMS
                                        give clients a token with these claims, a JSON object
       ringcast refresh-token --user USER | --connection ID | --address IP [--expires-in SECONDS]
                                        give clients a new token with the same claims
       ringcast remove-token --user USER | --connection ID | --address IP
                                        take the tokens of clients away, as if they had expired
                                        These commands ask a running server by its HTTP API, with [--url URL] (variable
                                        RINGCAST_API_URL, default http://127.0.0.1:9464) and a key from RINGCAST_API_KEY,
                                        [--key-file FILE] (RINGCAST_API_KEY_FILE) or [--key KEY]; [--json] shows the answer
       ringcast --help | --version

Each setting is a flag (--ping-timeout-ms 30000; a switch needs no value: --take-over), else a variable
(RINGCAST_PING_TIMEOUT_MS), else a key of a TOML file (ping_timeout_ms; limits are in its table [limits]), else its
default, shown in brackets. Put secrets into a variable or the file: other users of this machine can see flags.

  --config FILE
      The TOML file (RINGCAST_CONFIG)
";

#[cfg(test)]
mod tests {
    use super::*;

    /// The exit code, and everything that was written to standard output and standard error.
    pub(super) fn answer(words: &[&str], variables: &[(&str, &str)]) -> (u8, String) {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let mut out = Vec::new();
        let outcome = command(words.iter().map(Into::into), environment).and_then(|command| match command {
            Command::Serve(_) => panic!("no test serves"),
            Command::Check(sources) => {
                check::check(&sources, &Cpus::new(&[0, 1], 2, &[]), &mut out).map(|()| 0)
            }
            command @ (Command::Help
            | Command::Version
            | Command::ApiKey(_)
            | Command::Policies(..)
            | Command::Rules(..)
            | Command::Token(..)
            | Command::Tuning(..)) => execute(command, &mut out),
            Command::Hooks(arguments) => hooks::hooks(arguments, &mut out).map(|()| 0),
            Command::Passwd(_) => panic!("no test here changes files"),
            Command::Api(_) => panic!("no test here asks a server"),
        });
        match outcome {
            Ok(code) => (code, String::from_utf8(out).unwrap()),
            Err(error) => (error.exit_code(), error.to_string()),
        }
    }

    #[test]
    fn help_names_every_setting_and_its_default() {
        let (code, text) = answer(&["--help"], &[]);
        assert_eq!(code, 0);
        for setting in SETTINGS {
            assert!(
                text.contains(&setting.flag()) && text.contains(setting.doc),
                "{}",
                setting.name
            );
        }
        assert!(text.contains("--ping-timeout-ms [30000]"));
    }

    #[test]
    fn the_version_is_that_of_the_package() {
        assert_eq!(
            answer(&["--version"], &[]),
            (0, format!("ringcast {}\n", env!("CARGO_PKG_VERSION")))
        );
    }

    #[test]
    fn without_a_command_the_server_serves() {
        for words in [&[][..], &["serve"], &["--cores", "1"], &["serve", "--cores=1"]] {
            let command = command(words.iter().map(Into::into), []).unwrap();
            assert!(matches!(command, Command::Serve(_)), "{words:?}");
        }
    }

    #[test]
    fn flags_may_come_before_or_after_the_command_with_or_without_equals_sign() {
        for words in [
            ["check", "--cores", "2", "--admin=off"],
            ["--cores", "2", "check", "--admin=off"],
            ["--admin=off", "--cores", "2", "check"],
        ] {
            let (code, text) = answer(&words, &[]);
            assert_eq!(code, 0, "{text}");
            assert!(text.contains("flag"), "{text}");
        }
    }

    #[test]
    fn a_switch_accepts_a_value_but_needs_none() {
        for (words, shown) in [
            (&["check", "--take-over"][..], "on"),
            (&["--take-over", "check"], "on"),
            (&["--take-over", "--cores=2", "check"], "on"),
            (&["--take-over=off", "check"], "off"),
            (&["--take-over", "off", "check"], "off"),
            (&["check", "--take-over", "on"], "on"),
        ] {
            let (code, text) = answer(words, &[]);
            assert_eq!(code, 0, "{text}");
            let line = text.lines().find(|line| line.contains("take_over")).unwrap();
            assert!(line.contains(shown) && line.contains("flag"), "{words:?} {line}");
        }
        assert_eq!(answer(&["check", "--take-over", "maybe"], &[]).0, 64);
    }

    #[test]
    fn a_wrong_setting_exits_78_and_a_wrong_command_64() {
        for (words, code, part) in [
            (&["check", "--portt", "1"][..], 78, "--portt is not known"),
            (
                &["check", "--cores", "0"],
                78,
                "--cores: found \"0\", expected auto, a number",
            ),
            (
                &["check", "--cores"],
                78,
                "--cores has no value: expected auto, a number",
            ),
            (&["check", "--claims", "{}"], 78, "--claims is not known"),
            (&["chek"], 64, "chek is not a command"),
            (&["check", "more"], 64, "more"),
            (&["check", "-x"], 64, "-x"),
        ] {
            let (found, text) = answer(words, &[]);
            assert_eq!(found, code, "{text}");
            assert!(text.contains(part) && !text.contains('\n'), "{text}");
        }
        assert_eq!(answer(&["check"], &[("RINGCAST_POTR", "1")]).0, 78);
    }
}
