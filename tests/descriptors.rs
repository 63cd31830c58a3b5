//! More clients than descriptors: clients that fit are served, the others wait, and waiting costs almost no
//! CPU time.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use std::time::Duration;

use ringcast::internals::decision::Limit;
use support::process::{Admin, Held, Process};
use support::{Client, UPGRADE, eventually, now};

fn hits(limit: Limit) -> String {
    format!(
        "ringcast_limit_hits_total{{limit=\"{}\"}}",
        Limit::LABELS[limit.index()]
    )
}

/// Connects clients that request an upgrade at once, and waits until some are left without an answer and the
/// limit's metric shows the reason.
fn crowd(process: &Process, admin: &mut Admin, limit: Limit) -> Vec<Client> {
    let clients: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = Client::connect(process.address);
            client.send_bytes(UPGRADE.as_bytes());
            client
        })
        .collect();
    eventually("the limit is reached", || admin.metric(&hits(limit)) > 0);
    clients
}

/// A core that waits for room checks now and then and otherwise sleeps. A core that checked without a pause
/// would take thousands of turns in this time, or hundreds on a busy machine.
fn assert_no_busy_loop(admin: &mut Admin) {
    let turns = |admin: &mut Admin| admin.metric("ringcast_turns_total");
    let (begin, before) = (now(), turns(admin));
    eventually("the core checks again", || {
        turns(admin) > before + 5 && now() - begin > Duration::from_millis(500)
    });
    let turns = u128::from(turns(admin) - before);
    let within = now() - begin;
    assert!(
        turns < 100 + within.as_millis() / 2,
        "{turns} turns in {within:?}"
    );
}

/// Every client is finally answered: waiting ones as others make room.
fn assert_all_are_answered(mut clients: Vec<Client>) {
    while !clients.is_empty() {
        eventually("another client is answered", || {
            let before = clients.len();
            clients.retain(|client| {
                client.stream.set_nonblocking(true).unwrap();
                let mut start = [0; 12];
                let answer = client.stream.peek(&mut start);
                client.stream.set_nonblocking(false).unwrap();
                match &answer {
                    Ok(count) => assert_eq!(&start[..*count], b"HTTP/1.1 101", "it was turned away"),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "it was refused")
                    }
                }
                answer.is_err()
            });
            clients.len() < before
        });
    }
}

#[test]
fn clients_that_do_not_fit_into_the_descriptor_tables_wait_for_room() {
    // Even if the configuration allows more.
    for configured in ["0", "1000000"] {
        let process =
            Process::start_with_descriptors(100, &[("RINGCAST_CONNECTIONS_PER_CORE_MAX", configured)]);
        let mut admin = process.admin();
        let clients = crowd(&process, &mut admin, Limit::ConnectionsPerCore);
        assert_no_busy_loop(&mut admin);
        assert_all_are_answered(clients);
        eventually("all connections are closed", || {
            admin.metric("ringcast_connections") == 0
        });
        assert_eq!(admin.metric(&hits(Limit::Descriptors)), 0);
        process.client().ping();
    }
}

#[test]
fn accepting_is_retried_until_the_system_has_descriptors() {
    // One table for all cores, filled by descriptors that are not connections.
    let process =
        Process::start_with_descriptors(120, &[("RINGCAST_FD_TABLES", "shared"), ("RINGCAST_CORES", "1")]);
    let mut admin = process.admin();
    let others: Vec<Admin> = (0..60)
        .map(|_| {
            let mut other = process.admin();
            assert_eq!(other.get("/healthz").0, 200);
            other
        })
        .collect();
    let clients = crowd(&process, &mut admin, Limit::Descriptors);
    assert_no_busy_loop(&mut admin);
    drop(others);
    assert_all_are_answered(clients);
    eventually("all connections are closed", || {
        admin.metric("ringcast_connections") == 0
    });
    process.client().ping();
}

/// A server that has announced its address has all that it needs. Each core has its listener: the system gives each
/// listener its share of the new connections, and a core without a descriptor for one would leave them unanswered for
/// ever. The control plane has its descriptors as well, since the process ends without it.
#[test]
fn a_start_with_few_descriptors_serves_with_every_core_or_fails_and_says_why() {
    let (mut served, mut refused) = (0, 0);
    for count in 8..40 {
        let script = format!("ulimit -n {count} && exec \"$0\"");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_ringcast")])
            .envs([
                ("RINGCAST_LISTEN", "127.0.0.1:0"),
                ("RINGCAST_ADMIN", "off"),
                ("RINGCAST_CORES", "3"),
                ("RINGCAST_LOG", "info"),
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = String::new();
        let address: Option<SocketAddr> = loop {
            let start = lines.len();
            if log.read_line(&mut lines).unwrap() == 0 {
                break None;
            }
            if let Some((_, address)) = lines[start..].split_once("ws://") {
                break address.split('/').next().and_then(|address| address.parse().ok());
            }
        };
        match address {
            Some(address) => {
                served += 1;
                // The system spreads them over the listeners by their ports.
                for _ in 0..12 {
                    let answer =
                        support::ask(address, "GET /health-check HTTP/1.0\r\nHost: localhost\r\n\r\n");
                    assert!(answer.starts_with("HTTP/1.1 "), "{count}: {answer}");
                }
            }
            None => {
                refused += 1;
                assert!(
                    lines.contains("Too many open files") || lines.contains("LimitNOFILE"),
                    "{count}: {lines}"
                );
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
}

/// Sockets that are being passed from one core to another have no descriptor meanwhile. If the receiving
/// core's table is full when it receives them, the system closes them. Their places must be released:
/// otherwise the core would accept fewer connections from then on, and a drain would wait for connections
/// that do not exist.
#[test]
fn places_of_sockets_that_a_full_descriptor_table_loses_are_released() {
    for tables in ["auto", "shared"] {
        let settings = [("RINGCAST_FD_TABLES", tables), ("RINGCAST_DRAIN_SECONDS", "0")];
        let process = Process::start_with_descriptors(300, &settings);
        let mut admin = process.admin();
        let held = Held::thread(process.pid(), "core 1");
        let mut clients = Vec::new();
        eventually("sockets are being passed to the core that stands still", || {
            clients.push(process.connect());
            admin.metric("ringcast_hand_overs_sent_total") >= 8
        });
        limit_descriptors(&process, 4);
        drop(held);
        eventually("the sockets are lost", || {
            clients.iter().filter(|client| has_ended(client)).count() >= 8
        });
        limit_descriptors(&process, 300);
        drop(clients);
        eventually("all connections are closed", || {
            admin.metric("ringcast_connections") == 0
        });
        process.client().ping();
        process.signal(Signal::SIGTERM);
        process.logged("drained");
    }
}

/// As if a program filled its tables with descriptors of its own.
fn limit_descriptors(process: &Process, count: u32) {
    let (pid, limit) = (process.pid().to_string(), format!("--nofile={count}:300"));
    let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(status.unwrap().success());
}

fn has_ended(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let end = client.stream.peek(&mut [0]);
    client.stream.set_nonblocking(false).unwrap();
    end.is_ok_and(|count| count == 0)
}
