//! The request of each command, from its words and flags.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::CliError;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Publish,
    History,
    Presence,
    Channels,
    Connections,
    Services,
    Disconnect,
    Subscribe,
    Unsubscribe,
    RemoveHistory,
    Call,
    Transmit,
    SetClaims,
    RefreshToken,
    RemoveToken,
}

/// The words and flags of one command.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) name: Name,
    words: Vec<String>,
    flags: BTreeMap<String, String>,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Text,
    Nothing,
    Unknown,
}

/// The request that a command sends.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    /// The path and the query.
    pub(super) path: String,
    /// JSON.
    pub(super) body: Option<String>,
    pub(super) idempotency_key: Option<String>,
}

/// How a command is written.
struct Form {
    word: &'static str,
    /// Its words, in order.
    words: &'static [&'static str],
    /// How many of them must be there.
    words_min: usize,
    /// Flags with a value: the parameters and members of the API, with hyphens.
    flags: &'static [&'static str],
    switches: &'static [&'static str],
    usage: &'static str,
}

impl Name {
    pub(super) const ALL: [Name; 15] = [
        Name::Publish,
        Name::History,
        Name::Presence,
        Name::Channels,
        Name::Connections,
        Name::Services,
        Name::Disconnect,
        Name::Subscribe,
        Name::Unsubscribe,
        Name::RemoveHistory,
        Name::Call,
        Name::Transmit,
        Name::SetClaims,
        Name::RefreshToken,
        Name::RemoveToken,
    ];

    /// The command with this name.
    pub(super) fn of(word: &str) -> Option<Name> {
        Name::ALL.into_iter().find(|name| name.word() == word)
    }

    pub(super) fn word(self) -> &'static str {
        self.form().word
    }

    fn form(self) -> Form {
        match self {
            Name::Publish => Form {
                word: "publish",
                words: &["CHANNEL", "DATA"],
                words_min: 1,
                flags: &["idempotency-key"],
                switches: &["text", "retain"],
                usage: "publish [--text] [--retain] [--idempotency-key KEY] CHANNEL DATA, or publish --retain CHANNEL",
            },
            Name::History => Form {
                word: "history",
                words: &["CHANNEL"],
                words_min: 1,
                flags: &["last", "since", "epoch", "offset", "limit"],
                switches: &[],
                usage: "history [--last N | --since UNIX_MS | --epoch EPOCH --offset N] [--limit N] CHANNEL",
            },
            Name::Presence => Form {
                word: "presence",
                words: &["CHANNEL"],
                words_min: 1,
                flags: &["limit", "after"],
                switches: &[],
                usage: "presence [--limit N] [--after NEXT] CHANNEL",
            },
            Name::Channels => Form {
                word: "channels",
                words: &["PREFIX"],
                words_min: 0,
                flags: &["limit", "after"],
                switches: &[],
                usage: "channels [--limit N] [--after NEXT] [PREFIX]",
            },
            Name::Connections => Form {
                word: "connections",
                words: &[],
                words_min: 0,
                flags: &["user", "connection", "address", "channel", "limit", "after"],
                switches: &[],
                usage: "connections [--user USER | --connection ID | --address IP | --channel CHANNEL] [--limit N] \
                        [--after NEXT]",
            },
            Name::Services => Form {
                word: "services",
                words: &[],
                words_min: 0,
                flags: &["limit", "after"],
                switches: &[],
                usage: "services [--limit N] [--after NEXT]",
            },
            Name::Disconnect => Form {
                word: "disconnect",
                words: &[],
                words_min: 0,
                flags: &[
                    "user",
                    "connection",
                    "address",
                    "code",
                    "reason",
                    "idempotency-key",
                ],
                switches: &[],
                usage: "disconnect --user USER | --connection ID | --address IP [--code N] [--reason TEXT] \
                        [--idempotency-key KEY]",
            },
            Name::Subscribe => Form {
                word: "subscribe",
                words: &["CHANNEL"],
                words_min: 1,
                flags: &["user", "connection", "address", "idempotency-key"],
                switches: &[],
                usage: "subscribe --user USER | --connection ID | --address IP [--idempotency-key KEY] CHANNEL",
            },
            Name::Unsubscribe => Form {
                word: "unsubscribe",
                words: &["CHANNEL"],
                words_min: 1,
                flags: &["user", "connection", "address", "message", "idempotency-key"],
                switches: &[],
                usage: "unsubscribe --user USER | --connection ID | --address IP [--message TEXT] \
                        [--idempotency-key KEY] CHANNEL",
            },
            Name::RemoveHistory => Form {
                word: "remove-history",
                words: &["CHANNEL"],
                words_min: 1,
                flags: &["idempotency-key"],
                switches: &[],
                usage: "remove-history [--idempotency-key KEY] CHANNEL",
            },
            Name::Call => Form {
                word: "call",
                words: &["PROCEDURE", "DATA"],
                words_min: 1,
                flags: &["user", "connection", "address", "timeout-ms", "idempotency-key"],
                switches: &["text", "first"],
                usage: "call --user USER | --connection ID | --address IP [--first] [--timeout-ms N] [--text] \
                        [--idempotency-key KEY] PROCEDURE [DATA]",
            },
            Name::Transmit => Form {
                word: "transmit",
                words: &["EVENT", "DATA"],
                words_min: 1,
                flags: &["user", "connection", "address", "idempotency-key"],
                switches: &["text"],
                usage: "transmit --user USER | --connection ID | --address IP [--text] [--idempotency-key KEY] EVENT [DATA]",
            },
            Name::SetClaims => Form {
                word: "set-claims",
                words: &["CLAIMS"],
                words_min: 1,
                flags: &["user", "connection", "address", "expires-in", "idempotency-key"],
                switches: &[],
                usage: "set-claims --user USER | --connection ID | --address IP [--expires-in SECONDS] \
                        [--idempotency-key KEY] CLAIMS",
            },
            Name::RefreshToken => Form {
                word: "refresh-token",
                words: &[],
                words_min: 0,
                flags: &["user", "connection", "address", "expires-in", "idempotency-key"],
                switches: &[],
                usage: "refresh-token --user USER | --connection ID | --address IP [--expires-in SECONDS] \
                        [--idempotency-key KEY]",
            },
            Name::RemoveToken => Form {
                word: "remove-token",
                words: &[],
                words_min: 0,
                flags: &["user", "connection", "address", "idempotency-key"],
                switches: &[],
                usage: "remove-token --user USER | --connection ID | --address IP [--idempotency-key KEY]",
            },
        }
    }
}

impl Arguments {
    pub(super) fn new(name: Name) -> Arguments {
        Arguments {
            name,
            words: Vec::new(),
            flags: BTreeMap::new(),
        }
    }

    /// How the command is written.
    pub(super) fn usage(&self) -> &'static str {
        self.name.form().usage
    }

    pub(super) fn takes(&self, flag: &str) -> Takes {
        let form = self.name.form();
        if form.flags.contains(&flag) {
            Takes::Text
        } else if form.switches.contains(&flag) {
            Takes::Nothing
        } else {
            Takes::Unknown
        }
    }

    pub(super) fn set(&mut self, flag: &str, value: String) -> Result<(), CliError> {
        match self.flags.insert(flag.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(CliError::Usage(format!("--{flag} is there twice"))),
        }
    }

    pub(super) fn push(&mut self, word: String) -> Result<(), CliError> {
        if self.words.len() == self.name.form().words.len() {
            return Err(CliError::Usage(format!(
                "unexpected {word:?}; expected {}",
                self.usage()
            )));
        }
        self.words.push(word);
        Ok(())
    }

    /// Checks that no word is missing.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let form = self.name.form();
        // A publication without data takes the retained one away.
        let words_min = match self.name {
            Name::Publish if !self.flags.contains_key("retain") => form.words.len(),
            Name::Publish
            | Name::History
            | Name::Presence
            | Name::Channels
            | Name::Connections
            | Name::Services
            | Name::Disconnect
            | Name::Subscribe
            | Name::Unsubscribe
            | Name::RemoveHistory
            | Name::Call
            | Name::Transmit
            | Name::SetClaims
            | Name::RefreshToken
            | Name::RemoveToken => form.words_min,
        };
        match form.words.get(self.words.len()) {
            Some(missing) if self.words.len() < words_min => Err(CliError::Usage(format!(
                "{missing} is missing; expected {}",
                form.usage
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// The request. Data that stands on standard input is read from `input`.
    pub(super) fn request(&self, input: &mut impl Read) -> Result<Request, CliError> {
        match self.name {
            Name::Publish => {
                let data = self.words.get(1).map(|_| self.data(1, input)).transpose()?;
                let publication = Publication {
                    channel: self.word(0),
                    data: data.as_deref(),
                    retain: self.flags.contains_key("retain"),
                };
                self.post("publish", &publication)
            }
            Name::History => Ok(self.get("history", &["channel"])),
            Name::Presence => Ok(self.get("presence", &["channel"])),
            Name::Channels => Ok(self.get("channels", &["prefix"])),
            Name::Connections => Ok(self.get("connections", &[])),
            Name::Services => Ok(self.get("services", &[])),
            Name::Disconnect => self.post("disconnect", &self.members(&[])?),
            Name::Subscribe => self.post("subscribe", &self.members(&["channel"])?),
            Name::Unsubscribe => self.post("unsubscribe", &self.members(&["channel"])?),
            Name::RemoveHistory => Ok(Request {
                method: "DELETE",
                ..self.get("history", &["channel"])
            }),
            Name::Call => self.post("call", &self.with_data("procedure", input)?),
            Name::Transmit => self.post("transmit", &self.with_data("event", input)?),
            Name::SetClaims => {
                let body = WithData {
                    members: self.members(&[])?,
                    data: None,
                    claims: Some(self.data(0, input)?),
                };
                self.post("set-claims", &body)
            }
            Name::RefreshToken => self.post("refresh-token", &self.members(&[])?),
            Name::RemoveToken => self.post("remove-token", &self.members(&[])?),
        }
    }

    /// A body whose members are the first word, by this name, all flags, and the second word as data.
    fn with_data(&self, name: &str, input: &mut impl Read) -> Result<WithData, CliError> {
        Ok(WithData {
            members: self.members(&[name])?,
            data: self.words.get(1).map(|_| self.data(1, input)).transpose()?,
            claims: None,
        })
    }

    /// A body whose members are these words and all flags.
    fn members(&self, words: &[&str]) -> Result<Map<String, Value>, CliError> {
        let words = words.iter().copied().zip(&self.words);
        let mut body = Map::new();
        for (name, value) in words.chain(self.flags()) {
            let (name, value) = match name {
                "code" | "timeout-ms" | "expires-in" => (name, json!(number(name, value)?)),
                // A switch that is one choice of a member.
                "first" => ("answers", json!("first")),
                _ => (name, json!(value)),
            };
            body.insert(name.replace('-', "_"), value);
        }
        Ok(body)
    }

    /// The flags that are parameters or members. The idempotency key is a header, and `--text` is about the data.
    fn flags(&self) -> impl Iterator<Item = (&str, &String)> {
        let flags = self.flags.iter().map(|(flag, value)| (flag.as_str(), value));
        flags.filter(|(flag, _)| ![IDEMPOTENCY_KEY, "text"].contains(flag))
    }

    /// A request whose parameters are these words and all flags.
    fn get(&self, path: &str, words: &[&str]) -> Request {
        let words = words.iter().copied().zip(&self.words);
        let flags = self.flags();
        let mut path = format!("{PATH}{path}");
        for (index, (name, value)) in words.chain(flags).enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(name);
            path.push('=');
            percent_encode(value, &mut path);
        }
        Request {
            method: "GET",
            path,
            body: None,
            idempotency_key: self.idempotency_key(),
        }
    }

    fn post(&self, path: &str, body: &impl Serialize) -> Result<Request, CliError> {
        let body = serde_json::to_string(body).map_err(|error| CliError::Failed(error.to_string()))?;
        Ok(Request {
            method: "POST",
            path: format!("{PATH}{path}"),
            body: Some(body),
            idempotency_key: self.idempotency_key(),
        })
    }

    fn idempotency_key(&self) -> Option<String> {
        self.flags.get(IDEMPOTENCY_KEY).cloned()
    }

    /// The data that the word at `index` is, exactly as it was written.
    fn data(&self, index: usize, input: &mut impl Read) -> Result<Box<RawValue>, CliError> {
        let word = self.word(index);
        let mut text = word.to_owned();
        if word == STANDARD_INPUT {
            text.clear();
            let mut limited = input.take(INPUT_BYTES_MAX);
            let read = limited.read_to_string(&mut text);
            read.map_err(|error| CliError::Usage(format!("standard input cannot be read: {error}")))?;
        }
        let json = if self.flags.contains_key("text") {
            serde_json::to_string(&text).map_err(|error| CliError::Failed(error.to_string()))?
        } else {
            text
        };
        RawValue::from_string(json).map_err(|error| {
            CliError::Usage(format!(
                "{} is not JSON: {error}; a text needs quotes of its own ('\"hello\"'), or --text",
                self.name.form().words[index]
            ))
        })
    }

    fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }
}

/// The body of `publish`.
#[derive(Serialize)]
struct Publication<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retain: bool,
}

/// A body with JSON of the caller's, exactly as it was written.
#[derive(Serialize)]
struct WithData {
    #[serde(flatten)]
    members: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<Box<RawValue>>,
}

const PATH: &str = "/api/v1/";
/// The word for data that stands on standard input.
const STANDARD_INPUT: &str = "-";
/// The server takes no larger body (`api_body_bytes_max`).
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Appends a text as a part of a URL (RFC 3986 section 2).
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn number(flag: &str, text: &str) -> Result<u64, CliError> {
    text.parse()
        .map_err(|_| CliError::Usage(format!("--{flag}: found {text:?}, expected a whole number")))
}
