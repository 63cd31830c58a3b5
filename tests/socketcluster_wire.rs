//! Replays recorded traffic: the built binary gets the bytes that real clients sent to the reference server, and must
//! answer with the bytes that the reference server sent. `data/traces/README.md` lists the scenarios and the packets
//! that they leave out.
//!
//! Socket ids, ping counts and the dates inside token errors differ in each run and are removed on both sides. The
//! messages of each connection are compared in order. The order between publications or events and the answers around
//! them is unspecified (wire reference, section 12), so these two sequences may interleave differently.

mod support {
    pub(crate) mod frame;
}

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use support::frame::frame;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The key with which the recorded tokens are signed; it is used nowhere else.
const AUTH_KEY: &str = "test-secret";
/// How long a message may take before the replay fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Scenarios whose answers differ on purpose. `DEPARTURES` in `interop/lib/compare.mjs` gives the reasons, and other
/// tests check the behaviour instead.
const DEPARTURES: &[&str] = &["http-server20: upgrade without the trailing slash"];
/// Scenarios replayed at the same time.
const PARALLEL: usize = 16;

#[test]
fn recorded_scenarios_are_answered_as_the_reference_answered_them() {
    all_scenarios_are_answered_as_recorded(&[]);
}

fn all_scenarios_are_answered_as_recorded(settings: &[(&str, &str)]) {
    let mut by_environment: BTreeMap<String, Vec<Scenario>> = BTreeMap::new();
    for scenario in scenarios() {
        if DEPARTURES.contains(&scenario.name.as_str()) {
            continue;
        }
        by_environment
            .entry(scenario.environment.to_string())
            .or_default()
            .push(scenario);
    }
    let count: usize = by_environment.values().map(Vec::len).sum();
    assert!(count > 200, "only {count} scenarios were found");

    let failures: Vec<String> = by_environment
        .values()
        .flat_map(|scenarios| {
            let server = Server::start(&scenarios[0].environment, settings);
            let (alone, together): (Vec<_>, Vec<_>) = scenarios
                .iter()
                .partition(|scenario| scenario.uses_the_nameless_channel());
            together
                .chunks(PARALLEL)
                .chain(alone.chunks(1))
                .flat_map(|some| replay_together(some, server.port))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {count} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The same with rules that allow everything and shadow rules that would allow nothing: neither changes a byte.
#[test]
fn rules_that_allow_everything_change_nothing() {
    let file = std::env::temp_dir().join(format!("ringcast-wire-{}.toml", std::process::id()));
    std::fs::write(
        &file,
        "[[rules]]\nallow = \"*\"\n[[shadow_rules]]\ndeny = \"*\"\n",
    )
    .expect("a folder to write to");
    all_scenarios_are_answered_as_recorded(&[("RINGCAST_CONFIG", &file.to_string_lossy())]);
    // A file that remains is among the temporary files.
    let _ = std::fs::remove_file(&file);
}

fn replay_together(scenarios: &[&Scenario], port: u16) -> Vec<String> {
    thread::scope(|scope| {
        let replays: Vec<_> = scenarios
            .iter()
            .map(|&scenario| (scenario, scope.spawn(move || replay(scenario, port))))
            .collect();
        replays
            .into_iter()
            .filter_map(|(scenario, replay)| {
                let difference = replay
                    .join()
                    .expect("a replay reports, it does not panic")
                    .err()?;
                Some(format!("{}: {difference}", scenario.name))
            })
            .collect()
    })
}

/// One recorded scenario: the connections of one or several clients, in the order of the recording.
struct Scenario {
    name: String,
    environment: Value,
    entries: Vec<Value>,
}

impl Scenario {
    /// True if the scenario subscribes or publishes to the channel `""`. Then a publication of one scenario would reach
    /// subscribers of another; all other channels belong to one scenario only.
    fn uses_the_nameless_channel(&self) -> bool {
        self.entries.iter().any(|entry| {
            let text = entry["data"].as_str();
            text.is_some_and(|text| text.contains(r#""channel":"""#))
        })
    }
}

fn scenarios() -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/traces");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the traces are part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for path in files {
        let file = path.file_stem().expect("a file").to_string_lossy().into_owned();
        for line in std::fs::read_to_string(&path).expect("a readable file").lines() {
            let entry: Value = serde_json::from_str(line).expect("one JSON object a line");
            match entry["scenario"].as_str() {
                Some(name) => scenarios.push(Scenario {
                    name: format!("{file}: {name}"),
                    environment: entry["environment"].clone(),
                    entries: Vec::new(),
                }),
                None => scenarios
                    .last_mut()
                    .expect("a scenario begins each file")
                    .entries
                    .push(entry),
            }
        }
    }
    scenarios
}

/// Sends the messages of the recorded client, each after everything has arrived that the server had sent before it.
fn replay(scenario: &Scenario, port: u16) -> Result<(), String> {
    let mut connections: BTreeMap<u64, Connection> = BTreeMap::new();
    for entry in &scenario.entries {
        let number = entry["conn"].as_u64().ok_or("an entry without its connection")?;
        let connection = match connections.entry(number) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Connection::open(port)?),
        };
        if entry["dir"] == "s2c" {
            connection.expect(entry);
        } else {
            connection.receive_expected()?;
            connection.send(entry)?;
        }
    }
    connections.values_mut().try_for_each(Connection::finish)
}

struct Connection {
    stream: TcpStream,
    /// Bytes that have arrived and are not a whole frame yet.
    unread: Vec<u8>,
    received: Vec<String>,
    expected: Vec<String>,
    /// True if the recording shows the end of the connection after a close frame or a refusal.
    expects_end: bool,
    upgraded: bool,
    ended: bool,
}

impl Connection {
    fn open(port: u16) -> Result<Connection, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Connection {
            stream,
            unread: Vec::new(),
            received: Vec::new(),
            expected: Vec::new(),
            expects_end: false,
            upgraded: false,
            ended: false,
        })
    }

    fn expect(&mut self, entry: &Value) {
        let kind = entry["kind"].as_str().unwrap_or_default();
        match kind {
            "tcp_end" | "tcp_error" => self.expects_end = true,
            "close" => self
                .expected
                .push(format!("close {}", hex(&close_payload(&entry["data"])))),
            _ => self
                .expected
                .push(format!("{kind} {}", entry["data"].as_str().unwrap_or_default())),
        }
    }

    fn send(&mut self, entry: &Value) -> Result<(), String> {
        if let Some(wait) = entry["wait_ms"].as_u64() {
            thread::sleep(Duration::from_millis(wait)); // the recorded client waited, for a timer of the server
        }
        let data = entry["data"].as_str().unwrap_or_default();
        let bytes = match entry["kind"].as_str().unwrap_or_default() {
            "http" => format!("{data}\r\n\r\n").into_bytes(),
            "text" => frame(0x81, with_tokens(data, entry).as_bytes()),
            "binary" => frame(0x82, &unhex(data)),
            "close" => frame(0x88, &close_payload(&entry["data"])),
            "ping" => frame(0x89, &unhex(data)),
            "pong" => frame(0x8a, &unhex(data)),
            "tcp_end" => {
                self.expects_end = true;
                let _ = self.stream.shutdown(Shutdown::Write); // fails if the server ended first
                return Ok(());
            }
            other => return Err(format!("the recording has an unknown kind {other}")),
        };
        // A write fails if the client's close crosses the server's close; the received bytes decide.
        let _ = self.stream.write_all(&bytes);
        Ok(())
    }

    /// Reads until everything has arrived that the recording shows up to here.
    fn receive_expected(&mut self) -> Result<(), String> {
        while self.received.len() < self.expected.len() && !self.ended {
            self.read()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        self.receive_expected()?;
        while self.expects_end && !self.ended {
            self.read()?;
        }
        let (expected, received) = (normalised(&self.expected), normalised(&self.received));
        let split = |lines: &[String]| -> (Vec<String>, Vec<String>) {
            lines
                .iter()
                .cloned()
                .partition(|line| line.starts_with("text {\"event\":"))
        };
        if split(&expected) == split(&received) {
            return Ok(());
        }
        Err(format!("\n  recorded {expected:#?}\n  now      {received:#?}"))
    }

    fn read(&mut self) -> Result<(), String> {
        let mut bytes = [0; 65_536];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.ended = true,
            Ok(count) => self.unread.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => self.ended = true,
            // This happens after a pause of the machine.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(format!(
                    "{error} while waiting\n  recorded {:#?}\n  now      {:#?}",
                    self.expected, self.received
                ));
            }
        }
        if !self.upgraded {
            self.take_head();
        }
        while self.upgraded && self.take_frame() {}
        Ok(())
    }

    /// Reads a head: a 101 ends at its empty line, a refusal at the end of the connection.
    fn take_head(&mut self) {
        let text = String::from_utf8_lossy(&self.unread).into_owned();
        let Some(end) = text.find("\r\n\r\n") else { return };
        if text.starts_with("HTTP/1.1 101 ") {
            self.received.push(format!("http {}", &text[..end]));
            self.unread.drain(..end + 4);
            self.upgraded = true;
        } else if self.ended {
            self.received.push(format!("http {text}"));
            self.unread.clear();
        }
    }

    fn take_frame(&mut self) -> bool {
        let bytes = &self.unread;
        let [first, second, ..] = bytes[..] else {
            return false;
        };
        let (head, size) = match second & 0x7f {
            126 if bytes.len() >= 4 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            short @ 0..126 => (2, usize::from(short)),
            _ => return false, // no recorded message is that long
        };
        if bytes.len() < head + size {
            return false;
        }
        let payload = &bytes[head..head + size];
        let kind = match first {
            0x81 => format!("text {}", String::from_utf8_lossy(payload)),
            0x82 => format!("binary {}", hex(payload)),
            0x88 => format!("close {}", hex(payload)),
            0x89 => format!("ping {}", hex(payload)),
            0x8a => format!("pong {}", hex(payload)),
            other => format!("frame beginning with {other:#x}"),
        };
        // The server's pings depend on its clock; the recordings leave pings out.
        if !matches!(kind.as_str(), "text " | "text #1") {
            self.received.push(kind);
        }
        self.unread.drain(..head + size);
        true
    }
}

/// The built binary in one configuration, ended with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(environment: &Value, settings: &[(&str, &str)]) -> Server {
        // The port is free only for a moment; another process may take it first.
        (0..5)
            .find_map(|_| Server::try_start(environment, settings))
            .expect("the binary listens on one of five free ports")
    }

    fn try_start(environment: &Value, settings: &[(&str, &str)]) -> Option<Server> {
        let port = TcpListener::bind(("127.0.0.1", 0))
            .ok()?
            .local_addr()
            .ok()?
            .port();
        let variables = environment.as_object()?.iter();
        let process = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .env("RINGCAST_LISTEN", format!("127.0.0.1:{port}"))
            .env("RINGCAST_ADMIN", "off")
            .env("RINGCAST_AUTH_KEY", AUTH_KEY)
            .env("RINGCAST_CORES", "2")
            .env("RINGCAST_LOG", "warn")
            .envs(settings.iter().copied())
            .envs(variables.filter_map(|(name, value)| Some((name, value.as_str()?))))
            .stdin(Stdio::null())
            .spawn()
            .expect("the binary was built");
        let mut server = Server { process, port };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            if server.process.try_wait().ok()?.is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}

fn close_payload(data: &Value) -> Vec<u8> {
    let Some(code) = data["code"].as_u64() else {
        return Vec::new();
    };
    let code = u16::try_from(code).expect("a close code has two bytes");
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(data["reason"].as_str().unwrap_or_default().as_bytes());
    payload
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex in the recording"))
        .collect()
}

/// The recorded tokens have expired, so each is signed again, with times as far from now as they were in the recording.
fn with_tokens(data: &str, entry: &Value) -> String {
    let tokens = entry["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let numbered = tokens.iter().enumerate();
    numbered.fold(data.to_owned(), |text, (at, token)| {
        text.replace(&format!("$TOKEN{at}"), &signed(token))
    })
}

fn signed(token: &Value) -> String {
    let algorithm = token["algorithm"].as_str().unwrap_or_default();
    let hash = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        other => panic!("a recorded token is signed with {other}"),
    };
    let mut claims = token["claims"].clone();
    for (name, seconds) in token["relative"].as_object().into_iter().flatten() {
        claims[name] = Value::from(unix_seconds() + seconds.as_i64().unwrap_or_default());
    }
    let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = hmac::sign(&hmac::Key::new(hash, AUTH_KEY.as_bytes()), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test that signs tokens needs the time of day"
)]
fn unix_seconds() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the end of time")
}

/// Removes socket ids, counts and dates.
fn normalised(lines: &[String]) -> Vec<String> {
    let id = lines
        .iter()
        .find_map(|line| between(line, "\"data\":{\"id\":\"", '"'));
    lines
        .iter()
        .map(|line| {
            let mut text = id.map_or_else(|| line.clone(), |id| line.replace(id, "ID"));
            for (start, end) in [("\"count\":", '}'), ("\"expiry\":\"", '"'), ("\"date\":\"", '"')] {
                if let Some(value) = between(&text, start, end).map(str::to_owned) {
                    text = text.replace(&format!("{start}{value}"), &format!("{start}X"));
                }
            }
            text
        })
        .collect()
}

fn between<'a>(text: &'a str, start: &str, end: char) -> Option<&'a str> {
    let from = text.find(start)? + start.len();
    let value = &text[from..];
    Some(&value[..value.find(end)?])
}
