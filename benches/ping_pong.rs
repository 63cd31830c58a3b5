//! How much CPU time does a message cost the server's thread, compared with a bare echo?
//!
//! 100 clients call `ping` with 1 and with 16 messages in flight, and one publisher reaches 1,000 subscribers with 1
//! and with 8 publications in flight. Server, echo and clients are threads of this process. Server and echo run on CPU
//! 0 and take turns, round by round; the clients run on CPU 1. The bench prints the CPU time per message of server and
//! echo (median of the rounds), and their ratio, which depends less on the machine. The clients send again when all
//! answers have arrived, so a slow thread is not overloaded.
//!
//! `cargo bench --bench ping_pong` takes about ten seconds, with `-- --once` about one. With `-- drive ADDRESS
//! ping|fan-out CLIENTS IN_FLIGHT ROUNDS` it drives another server instead: it connects, prints a line, waits for a
//! line on standard input, and then prints how many messages it received. `benches/syscalls.sh` uses this. for one, and
//! then prints how many messages it received. `benches/syscalls.sh` uses that.
#![allow(clippy::print_stdout)] // a bench prints

#[path = "../tests/support/client.rs"]
mod client;
#[path = "../tests/support/frame.rs"]
mod frame;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use client::Client;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use ringcast::config::{Config, Placement};
use ringcast::internals::app::builtin::Builtin;
use ringcast::server::{Embedding, Server};
use tungstenite::handshake::derive_accept_key;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENTS: usize = 100;
const SUBSCRIBERS: usize = 1000;
const PING: &str = r#"{"event":"ping","data":{"param":"hello"},"cid":2}"#;
const SUBSCRIBE: &str = r##"{"event":"#subscribe","data":{"channel":"all"},"cid":3}"##;
const PUBLISH: &str = r##"{"event":"#publish","data":{"channel":"all","data":{"text":"hello"}}}"##;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["drive", address, what, clients, in_flight, rounds, ..] => {
            let number = |text: &str| text.parse().map_err(io::Error::other);
            let address = address.parse().map_err(io::Error::other)?;
            let (clients, in_flight, rounds) = (number(clients)?, number(in_flight)?, number(rounds)?);
            let mut load = match what {
                "ping" => Load::ping(address, clients, in_flight),
                _ => Load::fan_out(address, clients, in_flight),
            };
            println!("connected");
            io::stdin().read_line(&mut String::new())?;
            println!("{}", (0..rounds).map(|_| load.round()).sum::<usize>());
            Ok(())
        }
        _ => compare(if arguments.contains(&"--once") { 1 } else { 15 }),
    }
}

fn compare(rounds: usize) -> io::Result<()> {
    let mut config = Config::default();
    config.cores.placement = Placement::Count(1);
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.address = None;
    let server =
        Server::start(&config, Embedding::default(), |_| Builtin::new()).map_err(io::Error::other)?;
    let echo = start_echo()?;
    if let Some(cpu) = core_affinity::get_core_ids().unwrap_or_default().get(1) {
        core_affinity::set_for_current(*cpu);
    }
    let (server, echo) = (("core 0", server.address()), ("echo", echo));
    println!("CPU microseconds per message, median of {rounds} rounds");
    println!("                                server    echo   ratio");
    for in_flight in [1, 16] {
        let [ours, bare] = alternate(
            [
                (server.0, Load::ping(server.1, CLIENTS, in_flight)),
                (echo.0, Load::ping(echo.1, CLIENTS, in_flight)),
            ],
            rounds,
        )?;
        println!(
            "ping, {in_flight:>2} in flight          {ours:>8.3} {bare:>7.3} {:>7.2}",
            ours / bare
        );
    }
    for in_flight in [1, 8] {
        let [ours] = alternate(
            [(server.0, Load::fan_out(server.1, SUBSCRIBERS, in_flight))],
            rounds,
        )?;
        println!("1 to {SUBSCRIBERS}, {in_flight:>2} in flight     {ours:>8.3}       -       -");
    }
    Ok(())
}

/// Drives several loads in turn; returns the CPU microseconds per message of each thread.
fn alternate<const N: usize>(mut loads: [(&str, Load); N], rounds: usize) -> io::Result<[f64; N]> {
    let mut costs: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..=rounds {
        for ((thread, load), costs) in loads.iter_mut().zip(&mut costs) {
            let before = cpu_ns(thread)?;
            let mut messages = 0;
            while messages < MESSAGES_PER_ROUND {
                messages += load.round();
            }
            costs.push((cpu_ns(thread)? - before) as f64 / messages as f64 / 1000.0);
        }
    }
    Ok(costs.map(|mut costs| {
        costs.remove(0); // the first round ran with cold caches
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    }))
}

/// Some clients, and the messages that they send in a round.
struct Load {
    clients: Vec<Client>,
    senders: usize,
    messages: Vec<&'static str>,
}

impl Load {
    fn ping(address: SocketAddr, clients: usize, in_flight: usize) -> Load {
        Load {
            clients: (0..clients)
                .map(|_| Client::connect(Ipv4Addr::LOCALHOST, address))
                .collect(),
            senders: clients,
            messages: vec![PING; in_flight],
        }
    }

    fn fan_out(address: SocketAddr, clients: usize, in_flight: usize) -> Load {
        let mut load = Load {
            senders: 1,
            messages: vec![PUBLISH; in_flight],
            ..Load::ping(address, clients, in_flight)
        };
        for client in &mut load.clients {
            client.call(SUBSCRIBE);
        }
        load
    }

    /// Sends, and receives all answers; returns the number of messages.
    fn round(&mut self) -> usize {
        for client in &mut self.clients[..self.senders] {
            client.send(&self.messages);
        }
        for client in &mut self.clients {
            for _ in &self.messages {
                client.receive();
            }
        }
        self.clients.len() * self.messages.len()
    }
}

/// CPU time of the thread with this name in this process.
fn cpu_ns(name: &str) -> io::Result<u64> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim_end() == name {
            let times = std::fs::read_to_string(task.join("schedstat"))?;
            let on_cpu = times.split(' ').next().unwrap_or_default();
            return on_cpu.parse().map_err(io::Error::other);
        }
    }
    Err(io::Error::other(format!("no thread is named {name}")))
}

/// Starts a thread that reads, unmasks and writes back: one read and one write for each readable socket.
fn start_echo() -> io::Result<SocketAddr> {
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || echo(poll, listener))?;
    Ok(address)
}

fn echo(mut poll: Poll, listener: TcpListener) -> io::Result<()> {
    if let Some(cpu) = core_affinity::get_core_ids().unwrap_or_default().first() {
        core_affinity::set_for_current(*cpu);
    }
    let mut events = Events::with_capacity(1024);
    let mut streams = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let token = Token(streams.len());
                    poll.registry().register(&mut stream, token, Interest::READABLE)?;
                    streams.push(stream);
                }
                continue;
            }
            let stream: &mut TcpStream = &mut streams[event.token().0];
            if let Ok(count) = stream.read(&mut buffer) {
                if buffer.starts_with(b"GET ") {
                    upgrade(stream, &buffer[..count])?;
                    buffer[0] = 0;
                } else {
                    let count = unmask(&mut buffer[..count]);
                    // If the client has disconnected, it needs no answer.
                    let _ = stream.write(&buffer[..count]);
                }
            }
        }
    }
}

fn upgrade(stream: &mut TcpStream, head: &[u8]) -> io::Result<()> {
    let head = String::from_utf8_lossy(head);
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap_or_default();
    let accept = derive_accept_key(key.as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// Turns short frames of a client into frames of the server, in place; returns their length in bytes.
fn unmask(frames: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    while from + 6 <= frames.len() {
        let length = usize::from(frames[from + 1] & 0x7f);
        let mask: [u8; 4] = std::array::from_fn(|at| frames[from + 2 + at]);
        (frames[to], frames[to + 1]) = (frames[from], frames[from + 1] & 0x7f);
        for at in 0..length {
            frames[to + 2 + at] = frames[from + 6 + at] ^ mask[at % 4];
        }
        from += 6 + length;
        to += 2 + length;
    }
    to
}

const LISTENER: Token = Token(usize::MAX);
const MESSAGES_PER_ROUND: usize = 20_000;
