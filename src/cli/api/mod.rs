//! The commands that ask a running server by its HTTP API: `publish`, `history`, `presence`, `channels`, `connections`,
//! `disconnect`, `subscribe`, `unsubscribe`, `remove-history`, `call`, `transmit`, `set-claims`, `refresh-token`,
//! `remove-token`.
//!
//! Each is one request (`request.rs` says which) and a text for people, or the answer as it came (`--json`).
//! The server checks permissions and limits, and returns the errors.
//!
//! Exit codes: 0 if the request was carried out; 64 for an invalid command; 65 (`EX_DATAERR`) if the server refuses the
//! arguments; 69 (`EX_UNAVAILABLE`) if it cannot be reached or does not answer as the API does; 75 (`EX_TEMPFAIL`) if
//! the same command may succeed later; 77 (`EX_NOPERM`) if the key does not allow it.

mod print;
mod request;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use lexopt::Arg;
use zeroize::Zeroizing;

use super::CliError;
use crate::config::load::{API_KEY_FILE_VARIABLE, API_KEY_VARIABLE, API_URL_VARIABLE};
use crate::config::text_file::{self, SECRET_BYTES_MAX};
use crate::control::api_client::{ApiAnswer, ApiClient, ApiRequest};
use crate::text;
use request::{Arguments, Name};

/// A command, and the server that it asks.
#[derive(Debug)]
pub(super) struct ApiCommand {
    arguments: Arguments,
    url: String,
    key: KeyFrom,
    json: bool,
}

/// The source of the key.
enum KeyFrom {
    Flag(Zeroizing<String>),
    File(PathBuf),
    Variable(Zeroizing<String>),
    Nowhere,
}

impl std::fmt::Debug for KeyFrom {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("…")
    }
}

/// The names of all commands of the API.
pub(super) fn commands() -> String {
    Name::ALL.map(Name::word).join(", ")
}

/// True if a word is a command of the API.
pub(super) fn is_command(word: &OsString) -> bool {
    word.to_str().and_then(Name::of).is_some()
}

impl ApiCommand {
    /// Parses the words of a command, its name first; `None` if they ask for help.
    pub(super) fn parse(
        name: &OsString,
        words: Vec<OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Option<ApiCommand>, CliError> {
        let name = name.to_str().and_then(Name::of);
        let name = name.ok_or_else(|| CliError::Usage("expected a command of the API".to_owned()))?;
        let (mut url, mut key, mut key_file) = of_environment(environment)?;
        let (mut json, mut arguments) = (false, Arguments::new(name));
        let mut parser = lexopt::Parser::from_args(words);
        while let Some(word) = parser.next()? {
            match word {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("json") => json = true,
                Arg::Long("url") => url = Some(super::text(&mut parser)?),
                Arg::Long("key") => {
                    key = Some(KeyFrom::Flag(super::text(&mut parser)?.into()));
                    key_file = None;
                }
                Arg::Long("key-file") => {
                    key_file = Some(super::text(&mut parser)?.into());
                    key = None;
                }
                Arg::Long(flag) => {
                    let flag = flag.to_owned();
                    match arguments.takes(&flag) {
                        request::Takes::Text => arguments.set(&flag, super::text(&mut parser)?)?,
                        request::Takes::Nothing => arguments.set(&flag, String::new())?,
                        request::Takes::Unknown => {
                            return Err(CliError::Usage(format!(
                                "{}: --{flag} is not known; it takes {}",
                                name.word(),
                                arguments.usage()
                            )));
                        }
                    }
                }
                Arg::Value(word) => {
                    let word = word
                        .into_string()
                        .map_err(|word| CliError::Usage(format!("{} is not UTF-8", word.display())))?;
                    arguments.push(word)?;
                }
                Arg::Short(_) => return Err(word.unexpected().into()),
            }
        }
        arguments.check()?;
        Ok(Some(ApiCommand {
            arguments,
            url: url.unwrap_or_else(|| URL_DEFAULT.to_owned()),
            key: key_file.map(KeyFrom::File).or(key).unwrap_or(KeyFrom::Nowhere),
            json,
        }))
    }

    /// Asks the server, and writes the answer.
    pub(super) fn run(self, input: &mut impl Read, out: &mut impl Write) -> Result<(), CliError> {
        let request = self.arguments.request(input)?;
        let client = ApiClient::new(&self.url, read_key(self.key)?).map_err(|error| {
            CliError::Usage(format!(
                "--url {}: {error}; expected such as {URL_DEFAULT}",
                self.url
            ))
        })?;
        let answer = client
            .call(ApiRequest {
                method: request.method,
                path: &request.path,
                body: request.body,
                idempotency_key: request.idempotency_key.as_deref(),
            })
            .map_err(|error| {
                CliError::NoAnswer(format!(
                    "{}: {error}; is the server running, and is this the address of its control plane (admin)? --url or \
                     {API_URL_VARIABLE} names another",
                    self.url
                ))
            })?;
        if answer.status != 200 {
            return Err(refusal(&self.url, &answer));
        }
        if self.json {
            out.write_all(answer.text.as_bytes())?;
            return Ok(());
        }
        print::print(&self.arguments, &answer.json(), out)?;
        Ok(())
    }
}

/// The address and the key in the environment, which the flags override.
type OfEnvironment = (Option<String>, Option<KeyFrom>, Option<PathBuf>);

fn of_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<OfEnvironment, CliError> {
    let (mut url, mut key, mut key_file) = (None, None, None);
    for (name, value) in environment {
        let text = |value: OsString| {
            let name = name.display().to_string();
            value
                .into_string()
                .map_err(|_| CliError::Usage(format!("{name} is not UTF-8")))
        };
        match name.to_str() {
            Some(API_URL_VARIABLE) => url = Some(text(value)?),
            Some(API_KEY_VARIABLE) => key = Some(KeyFrom::Variable(text(value)?.into())),
            Some(API_KEY_FILE_VARIABLE) => key_file = Some(PathBuf::from(value)),
            Some(_) | None => {}
        }
    }
    // The key itself is the more particular of both.
    let key_file = key_file.filter(|_| key.is_none());
    Ok((url, key, key_file))
}

fn read_key(from: KeyFrom) -> Result<Zeroizing<String>, CliError> {
    let (key, place) = match from {
        KeyFrom::Flag(key) => (key, "--key".to_owned()),
        KeyFrom::Variable(key) => (key, API_KEY_VARIABLE.to_owned()),
        KeyFrom::File(file) => (key_of_file(&file)?, file.display().to_string()),
        KeyFrom::Nowhere => {
            return Err(CliError::Usage(format!(
                "no API key: set {API_KEY_VARIABLE}, or name a file that holds it by --key-file or {API_KEY_FILE_VARIABLE}; \
                 `ringcast api-key` makes one"
            )));
        }
    };
    match text::secret(&key) {
        Ok(secret) => Ok(Zeroizing::new(secret.to_owned())),
        Err(fault) => Err(CliError::Usage(format!("{place}: {fault}"))),
    }
}

fn key_of_file(file: &Path) -> Result<Zeroizing<String>, CliError> {
    text_file::read(file, SECRET_BYTES_MAX)
        .map(Zeroizing::new)
        .map_err(|error| CliError::Usage(format!("{}: cannot be read: {error}", file.display())))
}

/// The error for an answer that says that the request was not carried out.
fn refusal(url: &str, answer: &ApiAnswer) -> CliError {
    let json = answer.json();
    let Some(message) = json["error"]["message"].as_str() else {
        return CliError::NoAnswer(format!(
            "{url}: the answer is {} and not one of the HTTP API: is this the address of the control plane (admin)?",
            answer.status
        ));
    };
    let code = json["error"]["code"].as_str().unwrap_or_default();
    let text = match &answer.retry_after {
        Some(seconds) => format!("{code}: {message} (try again after {seconds} s)"),
        None => format!("{code}: {message}"),
    };
    match answer.status {
        401 | 403 => CliError::NotAllowed(text),
        408 | 409 | 429 | 503 => CliError::TryLater(text),
        500..=599 => CliError::NoAnswer(text),
        _ => CliError::Refused(text),
    }
}

const URL_DEFAULT: &str = "http://127.0.0.1:9464";
