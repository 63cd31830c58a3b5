//! Injects a fault while healthy clients are connected, and prints the results.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::healthy::{self, Crew, Outcome, Window};
use super::support::process::{Admin, Process};
use super::support::{PATIENCE, TEXT, UPGRADE, eventually, frame, now};

/// A server, its healthy clients, and a connection to its control plane.
pub(crate) struct Stage {
    pub(crate) process: Process,
    pub(crate) crew: Crew,
    pub(crate) admin: Admin,
}

/// The size of a fault: `short` by default, `full` with `FAULTS=full`.
pub(crate) fn size<T>(short: T, full: T) -> T {
    match std::env::var("FAULTS") {
        Ok(size) if size == "full" => full,
        Ok(_) | Err(_) => short,
    }
}

/// Injects a fault of this size twice into a server with these settings.
pub(crate) fn beside_healthy_clients(
    fault: &str,
    of: impl fmt::Display,
    settings: &[(&str, &str)],
    make: impl FnMut(&mut Stage),
) {
    on_stage(Process::start(settings), fault, of, make);
}

/// The same with a server that has been started.
pub(crate) fn on_stage(
    process: Process,
    fault: &str,
    of: impl fmt::Display,
    mut make: impl FnMut(&mut Stage),
) {
    raise_open_files_limit();
    let mut stage = Stage {
        crew: Crew::begin(process.address),
        admin: process.admin(),
        process,
    };
    assert_eq!(stage.admin.get("/readyz").0, 200);
    stage.crew.works(Window::Without, size(200, 2000));
    let before = stage.resident_bytes();
    let first = stage.round(&mut make);
    let mut latest = stage.round(&mut make);
    let mut most = first.resident_bytes;
    for _ in 2..ROUNDS_MAX {
        if latest.resident_bytes <= most + most / 10 {
            break;
        }
        // One fault may by chance need more memory at a time than another. Memory that grows each time is a leak.
        most = latest.resident_bytes;
        latest = stage.round(&mut make);
    }
    assert!(
        latest.resident_bytes <= most + most / 10,
        "{} bytes in memory, after {most} the time before, and more each time",
        latest.resident_bytes
    );
    let row = Row {
        fault: fault.to_owned(),
        of: of.to_string(),
        took: latest.took,
        memory: [before, first.resident_bytes, latest.resident_bytes],
        limits: stage.limits(),
        outcome: stage.crew.finish(),
    };
    row.print();
}

/// The result of one fault.
struct Round {
    took: Duration,
    resident_bytes: u64,
}

/// How often a fault is injected, at most.
const ROUNDS_MAX: usize = 8;

impl Stage {
    /// Injects the fault, and waits until the server is as before.
    fn round(&mut self, make: &mut impl FnMut(&mut Stage)) -> Round {
        self.crew.enter(Window::Beside);
        let begin = now();
        make(self);
        let took = now() - begin;
        self.crew.works(Window::Beside, 1);
        self.crew.enter(Window::Between);
        self.settles();
        // Freed pages go back to the system after a second or two. In short tests nobody waits for this, in no round.
        last(now() + size(Duration::ZERO, Duration::from_secs(3)));
        Round {
            took,
            resident_bytes: self.resident_bytes(),
        }
    }

    /// How often this limit has been reached so far.
    pub(crate) fn hits(&mut self, limit: &str) -> u64 {
        self.admin
            .metric(&format!("ringcast_limit_hits_total{{limit=\"{limit}\"}}"))
    }

    /// Number of connections that have ended for this reason so far.
    pub(crate) fn closes(&mut self, reason: &str) -> u64 {
        self.admin
            .metric(&format!("ringcast_closes_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until this many connections are open besides the healthy ones.
    #[track_caller]
    pub(crate) fn holds(&mut self, others: usize) {
        let expected = (healthy::COUNT + others) as u64;
        eventually("the others are here", || {
            self.admin.metric("ringcast_connections") == expected
        });
    }

    /// Waits until only the connections and subscriptions of the healthy clients are left.
    #[track_caller]
    fn settles(&mut self) {
        let healthy = healthy::COUNT as u64;
        eventually("everything is released", || {
            self.admin.metric("ringcast_connections") == healthy
                && self.admin.metric("ringcast_subscriptions") == healthy
                && self.admin.metric("ringcast_outbox_bytes") == 0
        });
        self.crew.works(Window::Between, 20);
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The limits that have been reached, and how often.
    fn limits(&mut self) -> BTreeMap<String, u64> {
        let (_, text) = self.admin.get("/metrics");
        let mut limits = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| line.starts_with("ringcast_limit_hits_total"))
        {
            let label = line.split("limit=\"").nth(1).unwrap().split('"').next().unwrap();
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            *limits.entry(label.to_owned()).or_default() += count;
        }
        limits.retain(|_, count| *count > 0);
        limits
    }
}

/// A line of the table.
struct Row {
    fault: String,
    of: String,
    took: Duration,
    /// Memory before the first fault, after it, and after the last one.
    memory: [u64; 3],
    limits: BTreeMap<String, u64>,
    outcome: Outcome,
}

impl Row {
    #[expect(clippy::print_stdout, reason = "the figures are for readers as well")]
    fn print(&self) {
        let Outcome {
            answered,
            received,
            calls,
            deliveries,
        } = &self.outcome;
        let both = |all: &[[Histogram<u64>; 3]]| {
            let [without, beside] = [Window::Without, Window::Beside].map(|window| quantiles(all, window));
            format!("{without} | {beside}")
        };
        let memory = self
            .memory
            .map(|bytes| format!("{:.1}", bytes as f64 / 1e6))
            .join(" → ");
        let limits: Vec<String> = self
            .limits
            .iter()
            .map(|(limit, count)| format!("{limit} {count}"))
            .collect();
        println!(
            "| {} | {} | {:.1} s | {answered} + {received} | 0 | {} | {} | {memory} | {} |",
            self.fault,
            self.of,
            self.took.as_secs_f64(),
            both(calls),
            both(deliveries),
            limits.join(", ")
        );
    }
}

/// The median and the 99th percentile over all clients, in milliseconds.
fn quantiles(all: &[[Histogram<u64>; 3]], window: Window) -> String {
    let mut sum = healthy::histograms().into_iter().next().unwrap();
    for histograms in all {
        sum.add(&histograms[window as usize]).unwrap();
    }
    let ms = |quantile| sum.value_at_quantile(quantile) as f64 / 1000.0;
    format!("{:.2} / {:.1}", ms(0.5), ms(0.99))
}

/// The full sizes need more descriptors than a shell usually allows.
fn raise_open_files_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// Connects from this address and sends `start` at once.
pub(crate) fn connect(from: [u8; 4], to: SocketAddr, start: &[u8]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if from != LOCALHOST {
        socket
            .bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::from(from)), 0).into())
            .unwrap();
    }
    socket.connect(&to.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(start).unwrap();
    stream
}

pub(crate) const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// The bytes that take a connection to an open session, without waiting for answers.
pub(crate) fn introduction() -> Vec<u8> {
    let handshake = br##"{"event":"#handshake","data":{"authToken":null},"cid":1}"##;
    [UPGRADE.as_bytes(), &frame(TEXT, handshake)].concat()
}

/// Sends the byte `next` on each connection, again and again, as slowly as possible, until the server has ended all of
/// them. Reads the bytes of the server and does not answer.
pub(crate) fn drip(mut streams: Vec<TcpStream>, next: u8) {
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    let deadline = now() + PATIENCE;
    while !streams.is_empty() {
        assert!(now() < deadline, "{} are never ended", streams.len());
        streams.retain_mut(|stream| {
            // The server may have ended the connection meanwhile.
            let written = stream.write(&[next]);
            !has_ended(stream) && written.is_ok()
        });
        thread::sleep(DRIP_EVERY);
    }
}

const DRIP_EVERY: Duration = Duration::from_millis(50);

/// True if the server has ended its direction of a non-blocking connection; reads all bytes before the end.
pub(crate) fn has_ended(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Waits until this moment: the duration is part of the fault.
pub(crate) fn last(until: Instant) {
    thread::sleep(until.saturating_duration_since(now()));
}

/// Random numbers that are the same in every run: xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
