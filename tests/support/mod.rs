//! Parts that all tests over TCP use: a server in this process on a free port, a client that sends raw frames and a few
//! SocketCluster packets, and functions that wait for a condition.
//!
//! Every wait ends after [`PATIENCE`] with a panic that names the missing condition.
//!
//! Servers in these tests use the descriptor table of the process, unless a test asks for tables of their own. A core's
//! own table is a copy, which would keep the sockets of other tests in this process open.
#![allow(dead_code)] // each test file is a crate that uses a part of this

pub(crate) mod api;
pub(crate) mod backend;
pub(crate) mod folder;
pub(crate) mod frame;
pub(crate) mod mqtt;
pub(crate) mod process;
pub(crate) mod schema;
pub(crate) mod secure;

pub(crate) use frame::frame;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringcast::app::App;
use ringcast::config::{Config, FdTables, Placement};
use ringcast::internals::app::builtin::Builtin;
use ringcast::internals::decision::{CloseReason, Limit};
use ringcast::internals::metrics::block::CoreMetrics;
use ringcast::internals::metrics::counter::Counter;
use ringcast::server::CoreId;
use ringcast::server::Exit;
use ringcast::server::{self, Descriptors, Embedding};

/// Longest time that a single wait may take, however busy the machine is. Only failing tests wait so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The seed of a random test, which it prints: `TEST_SEED` of the environment, or another one each time.
#[allow(clippy::print_stdout)] // the seed of a test that has failed
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let seed = std::env::var("TEST_SEED")
        .map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    println!("TEST_SEED={seed}");
    seed
}

/// The current time.
#[expect(clippy::disallowed_methods, reason = "tests wait with a deadline")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Sends a request of plain HTTP and reads the whole answer.
pub(crate) fn ask(address: SocketAddr, request: &str) -> String {
    let mut client = Client::connect(address);
    client.send_bytes(request.as_bytes());
    client.rest()
}

/// The status code of an HTTP answer.
pub(crate) fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or("nothing")
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = now() + PATIENCE;
    while !condition() {
        assert!(now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A running server, which ends when the value is dropped.
pub(crate) struct Server {
    running: Option<server::Server>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a server with the built-in application on two cores; `change` may change the configuration.
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Server {
        Server::start_with(change, |_| Builtin::new())
    }

    /// Starts a server with a password file that has one user, and with a high limit on failed logins.
    pub(crate) fn with_user(
        folder: &folder::Folder,
        (user, password): (&str, &str),
        change: impl FnOnce(&mut Config),
    ) -> Server {
        let file = folder.write_user(user, password, 101);
        Server::start(|config| {
            config.login.password_file = Some(file);
            config.limits.login_failures_max = 10_000;
            change(config);
        })
    }

    /// Starts a server with an application of the test.
    pub(crate) fn start_with<A: App + Send + 'static>(
        change: impl FnOnce(&mut Config),
        app: impl FnMut(CoreId) -> A,
    ) -> Server {
        let mut config = Config::default();
        config.cores.placement = Placement::Count(2);
        config.cores.fd_tables = FdTables::Shared;
        config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
        config.admin.address = None;
        config.restart.drain = Duration::ZERO;
        config.limits.close_timeout = Duration::from_secs(1);
        change(&mut config);
        let embedding = Embedding {
            descriptors: Descriptors::OfCores { kept: Vec::new() },
            ..Embedding::default()
        };
        let running = server::Server::start(&config, embedding, app).unwrap();
        Server {
            address: running.address(),
            running: Some(running),
        }
    }

    pub(crate) fn running(&self) -> &server::Server {
        self.running.as_ref().unwrap()
    }

    /// Waits until the server has ended; the test has asked it to end.
    pub(crate) fn wait(mut self) -> Exit {
        self.running.take().unwrap().wait().unwrap()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A client that has completed both handshakes.
    pub(crate) fn client(&self) -> Client {
        let mut client = self.connect();
        client.upgrade();
        client.handshake();
        client
    }

    /// The value of one counter for each core.
    pub(crate) fn each(&self, counter: impl Fn(&CoreMetrics) -> &Counter) -> Vec<u64> {
        let cores = self.running().cores().iter();
        cores.map(|core| counter(core.metrics()).value()).collect()
    }

    /// The sum of one counter over all cores.
    pub(crate) fn total(&self, counter: impl Fn(&CoreMetrics) -> &Counter) -> u64 {
        self.each(counter).iter().sum()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.total(|core| &core.connections)
    }

    /// Number of connections that have ended for this reason.
    pub(crate) fn closes(&self, reason: CloseReason) -> u64 {
        self.total(|core| &core.closes[reason.index()])
    }

    pub(crate) fn limit_hits(&self, limit: Limit) -> u64 {
        self.total(|core| &core.limit_hits[limit.index()])
    }

    /// Waits until there are exactly this many connections and subscriptions, and all outboxes are empty.
    #[track_caller]
    pub(crate) fn settles_at(&self, connections: u64, subscriptions: u64) {
        eventually("everything is released", || {
            self.connections() == connections
                && self.total(|core| &core.subscriptions) == subscriptions
                && self.total(|core| &core.outbox_bytes) == 0
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.drain();
            let ended = running.wait();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// Something that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    /// The connection has ended, by FIN or reset.
    End,
}

/// A raw connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// The TLS layer between frames and socket, if the connection uses TLS.
    pub(crate) tls: Option<Box<rustls::ClientConnection>>,
    unread: Vec<u8>,
    consumed: usize,
    calls: u64,
    /// Number of compressed messages received.
    pub(crate) compressed: usize,
    /// The socket id in the answer to the handshake.
    pub(crate) id: String,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    /// Connects with a small receive buffer, so that the server's writes soon block.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Client::over(socket.into())
    }

    pub(crate) fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            stream,
            tls: None,
            unread: Vec::new(),
            consumed: 0,
            calls: 0,
            compressed: 0,
            id: String::new(),
        }
    }

    /// Asks for a WebSocket and reads the 101.
    pub(crate) fn upgrade(&mut self) {
        self.send_bytes(UPGRADE.as_bytes());
        assert!(self.read_head().starts_with("HTTP/1.1 101 "));
    }

    /// Completes the SocketCluster handshake.
    pub(crate) fn handshake(&mut self) {
        self.calls += 1;
        let cid = self.calls;
        self.send_text(&format!(
            r##"{{"event":"#handshake","data":{{"authToken":null}},"cid":{cid}}}"##
        ));
        let answer = self.message();
        let start = format!(r#"{{"rid":{cid},"data":{{"id":""#);
        assert!(answer.starts_with(&start), "{answer}");
        self.id = answer[start.len()..].split('"').next().unwrap().to_owned();
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).unwrap();
    }

    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(&mut **tls, &mut self.stream);
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send_bytes(&frame(TEXT, text.as_bytes()));
    }

    /// Makes a call without waiting for the answer; returns its call id.
    pub(crate) fn begin_call(&mut self, event: &str, data: &str) -> u64 {
        self.calls += 1;
        let cid = self.calls;
        self.send_text(&format!(r#"{{"event":"{event}","data":{data},"cid":{cid}}}"#));
        cid
    }

    /// Makes a call and returns the next message, which should be the answer.
    pub(crate) fn call(&mut self, event: &str, data: &str) -> String {
        self.begin_call(event, data);
        self.message()
    }

    #[track_caller]
    pub(crate) fn subscribe(&mut self, channel: &str) {
        let answer = self.call("#subscribe", &format!(r#"{{"channel":"{channel}"}}"#));
        assert_eq!(answer, format!(r#"{{"rid":{}}}"#, self.calls));
    }

    /// Publishes without a call id.
    pub(crate) fn publish(&mut self, channel: &str, data: &str) {
        self.send_text(&format!(
            r##"{{"event":"#publish","data":{{"channel":"{channel}","data":{data}}}}}"##
        ));
    }

    /// Calls the built-in `ping` procedure and waits for its answer.
    #[track_caller]
    pub(crate) fn ping(&mut self) {
        let answer = self.call("ping", "null");
        let start = format!(r#"{{"rid":{},"data":{{"count":"#, self.calls);
        assert!(answer.starts_with(&start), "{answer}");
    }

    /// The next text message that is not a heartbeat. Heartbeats are answered.
    #[track_caller]
    pub(crate) fn message(&mut self) -> String {
        match self.event() {
            Received::Text(text) => text,
            other => panic!("instead of a message came {other:?}"),
        }
    }

    /// The next frame or end that is not a heartbeat. Heartbeats are answered.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Received {
        let deadline = now() + PATIENCE;
        loop {
            assert!(now() < deadline, "nothing but heartbeats within {PATIENCE:?}");
            match self.next() {
                // At first the server pings with both versions; this client answers version 2 only.
                Received::Text(text) if text == "#1" => {}
                // The server may have closed the connection meanwhile.
                Received::Text(text) if text.is_empty() => drop(self.try_send_bytes(&frame(TEXT, b""))),
                received => return received,
            }
        }
    }

    /// Waits for the next publication to this client on `channel`; returns the text of its data.
    #[track_caller]
    pub(crate) fn publication(&mut self, channel: &str) -> String {
        let message = self.message();
        publication(&message, channel)
            .unwrap_or_else(|| panic!("instead of a publication on {channel} came {message}"))
            .to_owned()
    }

    /// Skips messages until the server's close frame; returns its code and reason.
    #[track_caller]
    pub(crate) fn close_frame(&mut self) -> (Option<u16>, String) {
        loop {
            match self.event() {
                Received::Close(code, reason) => return (code, reason),
                Received::End => panic!("the connection ended without a close frame"),
                Received::Text(_) | Received::Binary(_) | Received::Ping(_) | Received::Pong(_) => {}
            }
        }
    }

    /// The next frame, or the end of the connection.
    pub(crate) fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.take_frame() {
                return received;
            }
            if !self.fill() {
                assert_eq!(
                    self.unread.len(),
                    self.consumed,
                    "the end in the middle of a frame"
                );
                return Received::End;
            }
        }
    }

    /// Reads until the connection ends; returns all bytes that were not returned before.
    pub(crate) fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&self.unread[self.consumed..]).into_owned()
    }

    /// Reads so many bytes.
    #[track_caller]
    pub(crate) fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() - self.consumed < count {
            assert!(
                self.fill(),
                "the end behind {:?}, before {count} bytes",
                &self.unread[self.consumed..]
            );
        }
        self.consumed += count;
        self.unread[self.consumed - count..self.consumed].to_vec()
    }

    /// Reads the head of an HTTP answer.
    pub(crate) fn read_head(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.unread[self.consumed..]).into_owned();
            if let Some(end) = text.find("\r\n\r\n") {
                self.consumed += end + 4;
                return text[..end + 4].to_owned();
            }
            assert!(self.fill(), "the end in the middle of a head: {text}");
        }
    }

    /// Closes this client's sending direction.
    pub(crate) fn send_fin(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    fn fill(&mut self) -> bool {
        self.unread.drain(..self.consumed);
        self.consumed = 0;
        let mut buffer = [0; 16 * 1024];
        let read = match &mut self.tls {
            None => self.stream.read(&mut buffer),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(&mut buffer),
        };
        match read {
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            // A read with a timeout does not restart by itself after an interruption, such as a pause of the machine.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.fill(),
            Err(error) => panic!("nothing came from the server: {error}"),
        }
    }

    fn take_frame(&mut self) -> Option<Received> {
        let bytes = &self.unread[self.consumed..];
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (start, length) = match second {
            126 => (
                4,
                u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
            ),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())),
            short => (2, u64::from(short)),
        };
        let end = start + usize::try_from(length).unwrap();
        let mut payload = bytes.get(start..end)?;
        let inflated;
        if first & COMPRESSED != 0 {
            inflated = inflate(payload);
            payload = &inflated;
            self.compressed += 1;
        }
        let received = match first & !COMPRESSED {
            TEXT => Received::Text(str::from_utf8(payload).unwrap().to_owned()),
            BINARY => Received::Binary(payload.to_vec()),
            PING => Received::Ping(payload.to_vec()),
            PONG => Received::Pong(payload.to_vec()),
            CLOSE => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason = str::from_utf8(payload.get(2..).unwrap_or_default()).unwrap();
                Received::Close(code, reason.to_owned())
            }
            other => panic!("the server sent a frame that begins with {other:#x}"),
        };
        self.consumed += end;
        Some(received)
    }
}

/// Inflates a message that permessage-deflate has compressed.
fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut decompress = flate2::Decompress::new(false);
    let (mut rest, mut out) = (&[payload, &[0, 0, 0xff, 0xff]].concat()[..], Vec::new());
    while !rest.is_empty() || out.len() == out.capacity() {
        out.reserve(64 * 1024);
        let before = decompress.total_in();
        decompress
            .decompress_vec(rest, &mut out, flate2::FlushDecompress::Sync)
            .unwrap();
        rest = &rest[usize::try_from(decompress.total_in() - before).unwrap()..];
    }
    out
}

/// The data of a publication on `channel`; `None` if `message` is not one.
pub(crate) fn publication<'a>(message: &'a str, channel: &str) -> Option<&'a str> {
    message
        .strip_prefix(&format!(
            r##"{{"event":"#publish","data":{{"channel":"{channel}","data":"##
        ))?
        .strip_suffix("}}")
}

/// A close frame of a client.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;
const COMPRESSED: u8 = 0x40;

/// A request that the server answers with 101.
pub(crate) const UPGRADE: &str = "GET /socketcluster/ HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
