//! How many missed publications does a core send in a second, and what does a recovery cost beside them?
//!
//! A server in this process has one core, which owns the channel and serves the clients. Its history has 1,000
//! publications with 100 bytes of data. Clients subscribe with `{"last":1000}`, read everything and unsubscribe, again
//! and again: first one client, then 100 at the same time. The bench prints the CPU time of the core, from the system
//! (`/proc/self/task/…/schedstat`), for each publication and each recovery, with the kernel's share for the sockets.
//! The second line of each is for recoveries of nothing (`{"recover":null}`), to compare.
//!
//! The cost of a storm for the others: 10,000 clients ask at once for the 20 publications that they have missed, as
//! after the restart of a proxy. The bench counts the publications that they get, and measures how long calls of other
//! clients take meanwhile, beside the same calls while nothing happens, and while the 10,000 clients make one call
//! each. A call counts from the time at which it is due.
//!
//! `cargo bench --bench recovery` takes half a minute; `cargo bench --bench recovery -- --once` only checks that it
//! works.
#![allow(clippy::print_stdout)] // a bench prints
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringcast::config::channels::{ChannelPolicy, ChannelSpec, HistoryPolicy};
use ringcast::config::{Config, FdTables, Placement};
use ringcast::internals::app::builtin::Builtin;
use ringcast::server::{Embedding, Server};

#[path = "../tests/support/frame.rs"]
mod frame;

use frame::frame;

const PUBLICATIONS: usize = 1000;
/// Publications that each client of a storm has missed.
const MISSED: usize = 20;
/// Clients that call while a storm is served.
const CALLERS: usize = 8;
const CALL_EVERY: Duration = Duration::from_millis(20);
const PING: &str = r#"{"event":"ping","data":null,"cid":7}"#;

fn main() {
    let once = std::env::args().any(|word| word == "--once");
    let rounds = if once { 2 } else { 300 };
    let server = start();
    let mut publisher = Client::connect(server.address());
    let data = "x".repeat(98);
    for cid in 2..PUBLICATIONS + 2 {
        publisher.send(&format!(
            r##"{{"event":"#publish","data":{{"channel":"room","data":"{data}"}},"cid":{cid}}}"##
        ));
        publisher.skip(1);
    }
    println!("CPU time of the core: recoveries of {PUBLICATIONS} publications of 100 bytes, and of none");
    for clients in [1, 100] {
        let mut all: Vec<Client> = (0..clients).map(|_| Client::connect(server.address())).collect();
        let rounds = (rounds / clients).max(2);
        let full = measure(&mut all, rounds, r#"{"last":1000}"#, PUBLICATIONS);
        let empty = measure(&mut all, rounds, r#"{"recover":null}"#, 0);
        let per_publication = (full - empty) / PUBLICATIONS as f64;
        println!(
            "{clients:>4} at a time: {:>7.1} µs a recovery, {:>5.1} µs without a publication; {:>6.0} ns a publication, \
             {:>5.2} million a second and core",
            full * 1e6,
            empty * 1e6,
            per_publication * 1e9,
            1e-6 / per_publication,
        );
    }
    storm(
        server.address(),
        if once { 300 } else { clients_max().min(10_000) },
    );
    server.drain();
    server.wait().expect("the server ends");
}

/// How many clients this process has descriptors for: each has two, since the server is in this process, too.
fn clients_max() -> usize {
    let wanted = 24_000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells its limits");
    if soft < wanted {
        // Without the right to raise the hard limit, there are fewer clients.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard.min(wanted), hard));
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system tells its limits");
    usize::try_from(soft.saturating_sub(200) / 2).unwrap_or(usize::MAX)
}

/// So many clients ask at once for missed publications; and the same clients make one call at once, to compare.
fn storm(address: SocketAddr, count: usize) {
    let mut all: Vec<Client> = (0..count).map(|_| Client::connect(address)).collect();
    let subscribe = format!(
        r##"{{"event":"#subscribe","data":{{"channel":"room","data":{{"last":{MISSED}}}}},"cid":2}}"##
    );
    println!(
        "{count} clients at once, and the calls of {CALLERS} others meanwhile, each every {CALL_EVERY:?}"
    );
    beside("nothing", address, || thread::sleep(Duration::from_secs(2)));
    beside("one call each", address, || at_once(&mut all, PING, 1));
    // The answer, and the publications.
    let what = format!("recoveries of {MISSED} publications each");
    beside(&what, address, || at_once(&mut all, &subscribe, 1 + MISSED));
}

/// All clients send this, and read so many messages.
fn at_once(all: &mut [Client], message: &str, answers: usize) {
    all.iter_mut().for_each(|client| client.send(message));
    all.iter_mut().for_each(|client| client.skip(answers));
}

/// How long calls of other clients take while `act` runs.
fn beside(what: &str, address: SocketAddr, act: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<Client> = (0..CALLERS).map(|_| Client::connect(address)).collect();
        let is_over = &is_over;
        let callers: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(|| call_until(client, is_over)))
            .collect();
        let began = Instant::now();
        act();
        let took = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let times = callers
            .into_iter()
            .map(|caller| caller.join().expect("the calls are answered"));
        let mut times: Vec<Duration> = times.flatten().collect();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!(
            "{what:>38}: {:>5.2} s; {:>4} calls of others, p50 {:>7.2} ms, p99 {:>7.2} ms, longest {:>7.2} ms",
            took.as_secs_f64(),
            times.len(),
            at(50),
            at(99),
            at(100),
        );
    });
}

/// Calls again and again until it is over. Returns how long each call took since it was due.
fn call_until(mut client: Client, is_over: &AtomicBool) -> Vec<Duration> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let due = began + CALL_EVERY * u32::try_from(times.len()).expect("a short while");
        thread::sleep(due.saturating_duration_since(Instant::now()));
        client.send(PING);
        client.skip(1);
        times.push(due.elapsed());
    }
    times
}

fn start() -> Server {
    let mut config = Config::default();
    config.cores.placement = Placement::Count(1);
    config.cores.fd_tables = FdTables::Shared;
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.address = None;
    config.restart.drain = Duration::ZERO;
    config.socketcluster.pings = false;
    config.channels = vec![ChannelSpec {
        names: vec!["room".to_owned()],
        policy: ChannelPolicy {
            history: Some(HistoryPolicy {
                entries_max: 1000,
                bytes_max: 1 << 20,
                age_ms_max: 3_600_000,
            }),
            position: true,
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    }];
    Server::start(&config, Embedding::default(), |_| Builtin::new()).expect("the server starts")
}

/// Seconds of the core's CPU time for one recovery.
fn measure(clients: &mut [Client], rounds: usize, asked: &str, publications: usize) -> f64 {
    let subscribe =
        format!(r##"{{"event":"#subscribe","data":{{"channel":"room","data":{asked}}},"cid":2}}"##);
    let mut round = || {
        clients.iter_mut().for_each(|client| client.send(&subscribe));
        // The answer, and the publications after it.
        clients
            .iter_mut()
            .for_each(|client| client.skip(1 + publications));
        let unsubscribe = r##"{"event":"#unsubscribe","data":"room","cid":3}"##;
        clients.iter_mut().for_each(|client| client.send(unsubscribe));
        clients.iter_mut().for_each(|client| client.skip(1));
    };
    round();
    let before = core_seconds();
    (0..rounds).for_each(|_| round());
    let took = core_seconds() - before;
    took / (rounds * clients.len()) as f64
}

/// The CPU time of the server's only core so far.
fn core_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    for task in tasks.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").starts_with(CORE_THREAD) {
            let on_cpu_ns = read("schedstat")
                .split(' ')
                .next()
                .and_then(|text| text.parse::<f64>().ok());
            return on_cpu_ns.expect("the kernel keeps this statistic") * 1e-9;
        }
    }
    panic!("there is no thread named {CORE_THREAD}…");
}

const CORE_THREAD: &str = "core";

/// A client that counts messages and does not look at them.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    consumed: usize,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a fresh socket takes options");
        let mut client = Client {
            stream,
            unread: Vec::new(),
            consumed: 0,
        };
        let request = "GET /socketcluster/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client
            .stream
            .write_all(request.as_bytes())
            .expect("the server reads");
        while client.unread.windows(4).all(|four| four != b"\r\n\r\n") {
            client.read();
        }
        client.unread.clear();
        client.send(r##"{"event":"#handshake","data":{"authToken":null},"cid":1}"##);
        client.skip(1);
        client
    }

    fn send(&mut self, message: &str) {
        let bytes = frame(0x81, message.as_bytes());
        self.stream.write_all(&bytes).expect("the server reads");
    }

    /// Reads this many messages.
    fn skip(&mut self, mut count: usize) {
        while count > 0 {
            let length = match self.unread[self.consumed..] {
                [_, length @ 0..126, ..] => Some(2 + usize::from(length)),
                [_, 126, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([high, low]))),
                _ => None,
            };
            match length {
                Some(length) if self.unread.len() - self.consumed >= length => {
                    self.consumed += length;
                    count -= 1;
                }
                Some(_) | None => self.read(),
            }
        }
    }

    fn read(&mut self) {
        self.unread.drain(..self.consumed);
        self.consumed = 0;
        let mut bytes = [0; 64 * 1024];
        let count = self.stream.read(&mut bytes).expect("the server answers");
        assert!(count > 0, "the server has closed the connection");
        self.unread.extend_from_slice(&bytes[..count]);
    }
}
