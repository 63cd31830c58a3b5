//! Tests the library with an application: the chat of `examples/chat`, over real connections.

#![allow(clippy::unwrap_used)] // a test

use std::fs;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use ringcast::config::Placement;
use ringcast::prelude::*;
use ringcast::server::{LoginsFrom, ReloadError, StartError};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

#[path = "../examples/chat/app.rs"]
mod app;

/// Longest wait for a message before a test fails, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

struct Client {
    socket: WebSocket<TcpStream>,
    last_cid: u64,
}

impl Client {
    /// A client that has completed its handshake.
    fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{}/socketcluster/", server.address());
        let (socket, _) = tungstenite::client(url, stream).unwrap();
        let mut client = Client { socket, last_cid: 0 };
        let answer = client.call("#handshake", &json!({}));
        assert_eq!(answer["data"]["isAuthenticated"], json!(false));
        client
    }

    fn logged_in(server: &Server, name: &str) -> Client {
        let mut client = Client::connect(server);
        assert_eq!(client.call("login", &json!({ "name": name })).get("error"), None);
        assert_eq!(client.packet()["event"], "#setAuthToken");
        client
    }

    fn send(&mut self, packet: &Value) {
        self.socket.send(Message::text(packet.to_string())).unwrap();
    }

    /// Sends a call; the next packet must be its answer.
    fn call(&mut self, event: &str, data: &Value) -> Value {
        let cid = self.begin(event, data);
        let answer = self.packet();
        assert_eq!(answer["rid"], json!(cid), "{answer}");
        answer
    }

    fn begin(&mut self, event: &str, data: &Value) -> u64 {
        self.last_cid += 1;
        let cid = self.last_cid;
        self.send(&json!({ "event": event, "data": data, "cid": cid }));
        cid
    }

    /// The next message that is not a ping.
    fn packet(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) if matches!(text.as_str(), "" | "#1") => {}
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A server that is ended when the test ends.
struct Running(Option<Server>);

impl Running {
    fn start(configure: impl FnOnce(&mut Config)) -> Running {
        let mut config = Config::default();
        config.listen.address = "127.0.0.1:0".parse().unwrap();
        config.admin.address = None;
        config.cores.placement = Placement::Count(2);
        config.restart.drain = Duration::ZERO;
        configure(&mut config);
        let archive = app::archive();
        let server = Server::start(&config, Embedding::default(), |_| app::Chat::new(archive.clone()));
        Running(Some(server.unwrap()))
    }

    fn server(&self) -> &Server {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(server) = self.0.take() {
            server.drain();
            let _ = server.wait(); // the test has asserted all it needs before
        }
    }
}

#[test]
fn only_logged_in_clients_may_use_rooms_and_each_line_names_its_author() {
    let running = Running::start(|_| {});
    let mut stranger = Client::connect(running.server());
    let refused = stranger.call("#subscribe", &json!({ "channel": "room/1" }));
    assert_eq!(refused["error"]["name"], "NotLoggedInError");
    let refused = stranger.call("#publish", &json!({ "channel": "room/1", "data": "hi" }));
    assert_eq!(refused["error"]["name"], "NotLoggedInError");

    let mut alice = Client::logged_in(running.server(), "alice");
    let mut bob = Client::logged_in(running.server(), "bob");
    assert_eq!(
        bob.call("#subscribe", &json!({ "channel": "room/1" }))
            .get("error"),
        None
    );
    assert_eq!(
        alice
            .call("#publish", &json!({ "channel": "room/1", "data": "hi" }))
            .get("error"),
        None
    );
    assert_eq!(
        bob.packet(),
        json!({ "event": "#publish", "data": { "channel": "room/1", "data": { "from": "alice", "text": "hi" } } })
    );
}

#[test]
fn another_thread_answers_while_the_core_goes_on() {
    let running = Running::start(|_| {});
    let mut alice = Client::logged_in(running.server(), "alice");
    for text in ["one", "two"] {
        alice.call("#publish", &json!({ "channel": "room/1", "data": text }));
    }
    let answer = alice.call("history", &json!({ "room": "room/1" }));
    assert_eq!(answer["data"], json!(["alice: one", "alice: two"]));
    // Many calls at once, by a client that does not wait for the answers.
    let cids: Vec<u64> = (0..200)
        .map(|_| alice.begin("history", &json!({ "room": "empty" })))
        .collect();
    let answers: Vec<u64> = cids
        .iter()
        .map(|_| alice.packet()["rid"].as_u64().unwrap())
        .collect();
    assert_eq!(answers, cids);
    let mut gone = Client::logged_in(running.server(), "gone");
    gone.begin("history", &json!({ "room": "room/1" }));
    drop(gone);
    assert_eq!(
        alice.call("history", &json!({ "room": "none" }))["data"],
        json!([])
    );
}

#[test]
fn a_batch_arrives_as_one_array() {
    let running = Running::start(|_| {});
    let mut client = Client::connect(running.server());
    let cid = client.begin("roll", &json!({ "dice": 2 }));
    assert_eq!(
        client.packet(),
        json!([{ "event": "rolling", "data": 2 }, { "rid": cid, "data": 12 }])
    );
    let refused = client.call("roll", &json!({ "dice": 0 }));
    assert_eq!(refused["error"]["message"], "from 1 to 100 dice are wanted");
}

#[test]
fn the_server_calls_its_client_and_hears_the_answer_or_that_there_is_none() {
    let running = Running::start(|config| {
        config.socketcluster.ack_timeout = Duration::from_millis(50);
        config.limits.calls_per_connection_max = 1;
    });
    let mut client = Client::connect(running.server());
    client.call("#subscribe", &json!({ "channel": "polls" }));
    assert_eq!(client.call("poll", &json!("tea?")).get("error"), None);
    assert_eq!(
        client.packet(),
        json!({ "event": "question", "cid": 1, "data": "\"tea?\"" })
    );
    // This server allows one unanswered call. It fails after its timeout, and the next call is allowed.
    let mut cid = 2;
    while client.call("poll", &json!("coffee?")).get("error").is_some() {
        assert!(cid < 1_000_000);
        cid += 1;
    }
    assert_eq!(client.packet()["cid"], 2);
    client.send(&json!({ "rid": 1, "data": "too late" }));
    client.send(&json!({ "rid": 2, "data": "yes" }));
    assert_eq!(
        client.packet()["data"],
        json!({ "channel": "polls", "data": ["\"coffee?\"", "yes"] })
    );
}

#[test]
fn the_close_frame_says_why() {
    let running = Running::start(|_| {});
    let mut client = Client::connect(running.server());
    client.call("leave", &json!(null));
    let Message::Close(Some(frame)) = client.socket.read().unwrap() else {
        panic!("a close frame follows the answer");
    };
    assert_eq!(
        (u16::from(frame.code), frame.reason.as_str()),
        (4100, "until soon")
    );
}

/// An application that writes the data of each call to a pipe of the program, on its core.
struct WritesToPipe(Arc<PipeWriter>);

impl App for WritesToPipe {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let written = (&*self.0).write(call.event.as_str().unwrap_or_default().as_bytes());
        peer.reply(&written.map_err(|error| error.to_string()))
    }
}

fn server_that_writes(descriptors: Descriptors, pipe: Arc<PipeWriter>) -> Server {
    let mut config = Config::default();
    config.listen.address = "127.0.0.1:0".parse().unwrap();
    config.admin.address = None;
    config.cores.placement = Placement::Count(2);
    config.restart.drain = Duration::ZERO;
    let embedding = Embedding {
        descriptors,
        ..Embedding::default()
    };
    Server::start(&config, embedding, |_| WritesToPipe(pipe.clone())).unwrap()
}

/// True if all writing ends of the pipe are closed.
fn has_ended(mut reader: &PipeReader) -> bool {
    fcntl(reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    match reader.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

/// Waits for that: when a core of another test starts, it holds a copy of all open descriptors for a moment.
fn ends(reader: &PipeReader) -> bool {
    (0..6000).any(|_| {
        let ended = has_ended(reader);
        if !ended {
            std::thread::sleep(PATIENCE / 6000);
        }
        ended
    })
}

#[test]
fn descriptors_that_the_program_closes_are_closed_while_cores_run() {
    let (_unread, used) = pipe().unwrap();
    let used = Arc::new(used);
    let kept = vec![used.as_raw_fd()];
    for descriptors in [Descriptors::OfProgram, Descriptors::OfCores { kept }] {
        let (reader, writer) = pipe().unwrap();
        let server = server_that_writes(descriptors.clone(), used.clone());
        let mut client = Client::connect(&server);
        assert!(!has_ended(&reader));
        drop(writer);
        assert!(ends(&reader), "with {descriptors:?}");
        assert_eq!(client.call("x", &json!(null))["data"], json!({ "Ok": 1 }));
    }
}

#[test]
fn an_application_uses_the_descriptors_that_were_kept_for_it() {
    let (mut reader, writer) = pipe().unwrap();
    let writer = Arc::new(writer);
    let (unused, kept_only) = pipe().unwrap();
    let kept = vec![writer.as_raw_fd(), kept_only.as_raw_fd()];
    let server = server_that_writes(Descriptors::OfCores { kept }, writer.clone());
    let mut client = Client::connect(&server);
    client.call("written on a core", &json!(null));
    let mut text = [0; 17];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"written on a core");
    // The program has closed its descriptors; the cores keep theirs until they end.
    drop(kept_only);
    assert!(!has_ended(&unused));
    drop(server);
    assert!(ends(&unused));
    // The cores have dropped the last values, but the descriptors in their tables are still open.
    assert!(!has_ended(&reader));
    drop(writer);
    assert!(ends(&reader));
}

#[test]
fn a_server_that_is_dropped_has_ended() {
    for drains in [false, true] {
        let value = Arc::new(pipe().unwrap().1);
        let server = server_that_writes(Descriptors::OfProgram, value.clone());
        let address = server.address();
        let mut clients = [Client::connect(&server), Client::connect(&server)];
        clients[0].call("x", &json!(null));
        if drains {
            server.drain();
        }
        drop(server);
        assert_eq!(
            Arc::strong_count(&value),
            1,
            "the application's values are dropped"
        );
        for client in &mut clients {
            while client.socket.read().is_ok() {}
        }
        // For a moment, cores of another test with tables of their own may hold a copy of this server's listener.
        let is_refused = (0..PATIENCE.as_millis()).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        assert!(is_refused, "somebody listens");
    }
}

/// An application that allows all that the rules allow.
struct Open;
impl App for Open {}

/// A file of settings, in a folder of its own that goes with it.
struct SettingsFile(PathBuf);

impl SettingsFile {
    fn new(name: &str) -> SettingsFile {
        let folder = std::env::temp_dir().join(format!("ringcast-embedding-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        SettingsFile(folder.join("ringcast.toml"))
    }

    /// Allows everybody to subscribe to one channel.
    fn write(&self, channel: &str, settings: &str) {
        let rules = format!("[[rules]]\nallow = \"subscribe\"\nchannels = \"{channel}\"\n");
        fs::write(&self.0, format!("{settings}\n{rules}")).unwrap();
    }

    fn sources(&self) -> ConfigSources {
        ConfigSources::default()
            .file(&self.0)
            .set("listen", "127.0.0.1:0")
            .set("admin", "off")
            .set("cores", "2")
            .set("drain_seconds", "0")
    }
}

impl Drop for SettingsFile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap()); // of no other use
    }
}

/// Waits until clients may subscribe to a channel, or may not: several, so that each core has some. A core decides by
/// new rules from its next turn on.
fn may_subscribe(server: &Server, channel: &str, expected: bool) {
    for _ in 0..4 {
        let is_so = (0..PATIENCE.as_millis()).any(|_| {
            let mut client = Client::connect(server);
            let answer = client.call("#subscribe", &json!({ "channel": channel }));
            let is_so = answer.get("error").is_none() == expected;
            if !is_so {
                std::thread::sleep(Duration::from_millis(1));
            }
            is_so
        });
        assert!(is_so, "{channel}: expected {expected}");
    }
}

#[test]
fn settings_of_a_file_are_read_again_while_clients_stay() {
    let file = SettingsFile::new("reload");
    file.write("news", "");
    let server = Server::from_sources(file.sources(), Embedding::default(), |_| Open).unwrap();
    let mut client = Client::connect(&server);
    may_subscribe(&server, "news", true);
    may_subscribe(&server, "sports", false);

    file.write("sports", "ack_timeout_ms = 4321");
    let reloaded = server.reload().unwrap();
    assert_eq!(reloaded.need_restart, ["ack_timeout_ms"]);
    may_subscribe(&server, "sports", true);
    may_subscribe(&server, "news", false);
    let answer = client.call("#subscribe", &json!({ "channel": "sports" }));
    assert_eq!(answer.get("error"), None, "the connection is that of the start");

    file.write("weather", "no_such_setting = 1");
    match server.reload() {
        Err(ReloadError::Config(errors)) => assert!(errors.to_string().contains("no_such_setting")),
        other => panic!("{other:?}"),
    }
    may_subscribe(&server, "sports", true);
    may_subscribe(&server, "weather", false);
}

#[test]
fn what_the_program_sets_wins_over_the_file_and_all_errors_come_at_once() {
    let file = SettingsFile::new("errors");
    file.write("news", "listen = \"192.0.2.1:1\"");
    let server = Server::from_sources(file.sources(), Embedding::default(), |_| Open).unwrap();
    assert!(server.address().ip().is_loopback());
    drop(server);
    let wrong = file
        .sources()
        .set("ping_timeout_ms", "soon")
        .set("limits.no_such_limit", "1");
    match Server::from_sources(wrong, Embedding::default(), |_| Open) {
        Err(StartError::Config(errors)) => {
            assert_eq!(errors.iter().count(), 2, "{errors}");
            let text = errors.to_string();
            assert!(
                text.contains("ping-timeout-ms") && text.contains("limits.no_such_limit"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_without_sources_or_that_has_ended_reloads_nothing() {
    let running = Running::start(|_| {});
    assert!(matches!(running.server().reload(), Err(ReloadError::NoSources)));
    let file = SettingsFile::new("ended");
    file.write("news", "");
    let server = Server::from_sources(file.sources(), Embedding::default(), |_| Open).unwrap();
    server.drain();
    // A reload that was asked for before the drain is heard of may still be done.
    let ended = (0..PATIENCE.as_millis()).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        matches!(server.reload(), Err(ReloadError::Ended))
    });
    assert!(ended);
    server.wait().unwrap();
}

#[test]
fn a_server_that_admits_no_client_starts_only_if_its_application_has_logins() {
    let sources = || {
        ConfigSources::default()
            .set("listen", "127.0.0.1:0")
            .set("admin", "off")
            .set("cores", "1")
            .set("allow_anonymous", "off")
    };
    let embedding = Embedding {
        logins: LoginsFrom::Settings,
        ..Embedding::default()
    };
    match Server::from_sources(sources(), embedding, |_| Open) {
        Err(StartError::NoWayToLogIn) => {}
        other => panic!("{other:?}"),
    }
    drop(Server::from_sources(sources(), Embedding::default(), |_| Open).unwrap());
}
