//! A server with API keys, and requests to its HTTP API. Each answer is checked against `openapi.json`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::PATIENCE;
use super::folder::Folder;
use super::process::Process;
use super::schema::difference;

/// A process whose configuration file has API keys.
pub(crate) struct ApiServer {
    pub(crate) process: Process,
    pub(crate) folder: Folder,
    document: Value,
}

/// A key, and its entry in the configuration file.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) key: String,
    pub(crate) entry: String,
}

/// An answer of the API.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Key {
    /// Makes a key by `ringcast api-key`.
    pub(crate) fn new(name: &str, arguments: &[&str]) -> Key {
        let output = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .args(["api-key", name])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (key, entry) = text.split_once("\n\n").unwrap();
        Key {
            key: key.to_owned(),
            entry: entry.to_owned(),
        }
    }

    /// A key that allows everything, as often as it likes.
    pub(crate) fn for_all() -> Key {
        Key::new("all", &["--actions", "*", "--channels", "**", "--rate", "0"])
    }
}

impl ApiServer {
    /// Starts a server with these keys, more lines of its configuration file, and these settings.
    pub(crate) fn start(keys: &[&Key], lines: &str, settings: &[(&str, &str)]) -> ApiServer {
        let folder = Folder::new();
        let file = folder.file("ringcast.toml");
        write_config(&file, keys, lines);
        let mut all = vec![("RINGCAST_CONFIG", file.to_str().unwrap())];
        all.extend(settings);
        let process = Process::start(&all);
        ApiServer {
            process,
            folder,
            document: serde_json::from_str(OPENAPI).unwrap(),
        }
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.file("ringcast.toml")
    }

    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// Sends a request with these headers; checks that the document describes the answer.
    #[track_caller]
    pub(crate) fn ask_with(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let answer = ask(self.process.admin, method, path, headers, body);
        self.check(method, path, &answer);
        answer
    }

    #[track_caller]
    pub(crate) fn post(&self, key: &Key, path: &str, body: &str) -> Answer {
        let authorization = format!("Authorization: Bearer {}", key.key);
        self.ask_with("POST", path, &[&authorization, JSON], body)
    }

    #[track_caller]
    pub(crate) fn get(&self, key: &Key, path: &str) -> Answer {
        let authorization = format!("Authorization: Bearer {}", key.key);
        self.ask_with("GET", path, &[&authorization], "")
    }

    /// Checks that the document describes the answer.
    #[track_caller]
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        assert!(
            answer.head.contains("\r\ncontent-type: application/json"),
            "{}",
            answer.head
        );
        let document = &self.document;
        let Some(operation) = document["paths"]
            .get(path)
            .and_then(|path| path.get(method.to_lowercase()))
        else {
            let error = &document["components"]["schemas"]["Error"];
            assert_eq!(difference(document, error, &answer.json), None, "{}", answer.text);
            assert!(
                matches!(answer.status, 401 | 403 | 404 | 405 | 429),
                "{}",
                answer.status
            );
            return;
        };
        let described = operation["responses"].get(answer.status.to_string());
        let described =
            described.unwrap_or_else(|| panic!("{method} {path} has no answer {}", answer.status));
        let described = match described.get("$ref") {
            Some(path) => document
                .pointer(path.as_str().unwrap().trim_start_matches('#'))
                .unwrap(),
            None => described,
        };
        let schema = &described["content"]["application/json"]["schema"];
        assert_eq!(
            difference(document, schema, &answer.json),
            None,
            "{}",
            answer.text
        );
        let is_repetition = answer.header("idempotency-replayed").is_some();
        if [409, 429, 503].contains(&answer.status) && !is_repetition {
            assert!(answer.header("retry-after").is_some(), "{}", answer.head);
        }
    }
}

impl Answer {
    /// The code of an error.
    pub(crate) fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }

    /// The message of an error.
    pub(crate) fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Writes a configuration file with these keys.
pub(crate) fn write_config(file: &std::path::Path, keys: &[&Key], lines: &str) {
    let entries: String = keys.iter().map(|key| key.entry.as_str()).collect();
    fs::write(file, format!("{lines}\n{entries}")).unwrap();
}

/// Sends a request on a connection of its own.
pub(crate) fn ask(admin: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        request.push_str("Host: localhost\r\n");
    }
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    // The server may refuse the request before it has read the body.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A server that has not read the whole body resets the connection behind its answer.
            Err(error) => {
                assert!(!answer.is_empty(), "{method} {path}: no answer: {error}");
                break;
            }
        }
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, text) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_owned(),
        text: text.to_owned(),
        json: serde_json::from_str(text).unwrap_or_default(),
    }
}

pub(crate) const JSON: &str = "Content-Type: application/json";

/// The document that the server serves.
pub(crate) const OPENAPI: &str = include_str!("../../src/control/api/openapi.json");
