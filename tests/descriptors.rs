//! More clients than descriptors: the others are served, those in excess wait, and waiting costs next to nothing.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::process::Command;

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

/// Connects clients that ask for their upgrade at once, and waits until some of them are left without an answer and
/// the limit says why.
fn crowd(process: &Process, admin: &mut Admin, limit: Limit) -> Vec<Client> {
    let clients: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = Client::connect(process.address);
            client.send_bytes(UPGRADE.as_bytes());
            client
        })
        .collect();
    eventually("the limit is met", || admin.metric(&hits(limit)) > 0);
    clients
}

/// While a core waits for room it looks again now and then, and does nothing else. A core that looks without a pause takes
/// thousands of turns in the time, and on a busy machine hundreds.
fn assert_no_busy_loop(admin: &mut Admin) {
    let turns = |admin: &mut Admin| admin.metric("ringcast_turns_total");
    let (begin, before) = (now(), turns(admin));
    eventually("it looks again", || {
        turns(admin) > before + 5 && now() - begin > Duration::from_millis(500)
    });
    let turns = u128::from(turns(admin) - before);
    let within = now() - begin;
    assert!(
        turns < 100 + within.as_millis() / 2,
        "{turns} turns in {within:?}"
    );
}

/// Every client is answered in the end, those that wait as others make room.
fn assert_all_are_answered(mut clients: Vec<Client>) {
    while !clients.is_empty() {
        eventually("another is answered", || {
            let before = clients.len();
            clients.retain(|client| {
                client.stream.set_nonblocking(true).unwrap();
                let mut start = [0; 12];
                let answer = client.stream.peek(&mut start);
                client.stream.set_nonblocking(false).unwrap();
                match &answer {
                    Ok(count) => assert_eq!(&start[..*count], b"HTTP/1.1 101", "it was turned away"),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "it was turned away")
                    }
                }
                answer.is_err()
            });
            clients.len() < before
        });
    }
}

#[test]
fn more_clients_than_the_tables_of_the_cores_hold_wait_for_room() {
    // Whatever is configured beyond it.
    for configured in ["0", "1000000"] {
        let process =
            Process::start_with_descriptors(100, &[("RINGCAST_CONNECTIONS_PER_CORE_MAX", configured)]);
        let mut admin = process.admin();
        let clients = crowd(&process, &mut admin, Limit::ConnectionsPerCore);
        assert_no_busy_loop(&mut admin);
        assert_all_are_answered(clients);
        eventually("all have gone", || admin.metric("ringcast_connections") == 0);
        assert_eq!(admin.metric(&hits(Limit::Descriptors)), 0);
        process.client().ping();
    }
}

#[test]
fn a_system_that_refuses_descriptors_is_asked_again_until_it_has_some() {
    // One table for all, filled up by others than clients.
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
    eventually("all have gone", || admin.metric("ringcast_connections") == 0);
    process.client().ping();
}

/// Sockets on their way from one core to another hold no descriptor. If the table of the receiving core is full when it
/// asks for them, the system closes them. Their places must not be lost: the core would take fewer connections from then
/// on, and a drain would wait for connections that nobody has.
#[test]
fn sockets_that_find_the_table_of_their_core_full_give_their_places_back() {
    for tables in ["auto", "shared"] {
        let settings = [("RINGCAST_FD_TABLES", tables), ("RINGCAST_DRAIN_SECONDS", "0")];
        let process = Process::start_with_descriptors(300, &settings);
        let mut admin = process.admin();
        let held = Held::thread(process.pid(), "core 1");
        let mut clients = Vec::new();
        eventually("sockets are on their way to the core that stands still", || {
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
        eventually("all have gone", || admin.metric("ringcast_connections") == 0);
        process.client().ping();
        process.signal(Signal::SIGTERM);
        process.logged("drained");
    }
}

/// As a program would that fills its tables with descriptors of its own.
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
