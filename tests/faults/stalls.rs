//! Stalls: a core that the system does not run, the whole process, and the ring, which fills meanwhile.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::harness::{beside_healthy_clients, last, size};
use super::support::process::{Admin, Held, Process};
use super::support::{Client, eventually, now};

fn seconds(full: u64) -> Duration {
    size(Duration::from_millis(500), Duration::from_secs(full))
}

#[test]
fn a_core_that_is_not_run() {
    let of = format!("{:?}", seconds(2));
    beside_healthy_clients("a core is descheduled", of, &[], |stage| {
        let held = Held::thread(stage.process.pid(), "core 1");
        last(now() + seconds(2));
        drop(held);
    });
}

#[test]
fn a_process_that_is_stopped() {
    let of = format!("{:?}", seconds(2));
    beside_healthy_clients("the process is stopped", of, &[], |stage| {
        stage.process.signal(Signal::SIGSTOP);
        last(now() + seconds(2));
        stage.process.signal(Signal::SIGCONT);
    });
}

/// A client that answers every ping is not silent while the server does not ping it: a core that stands still for
/// longer than the ping timeout closes no client for this.
#[test]
fn a_client_that_answers_is_not_closed_as_silent_by_a_core_that_stood_still() {
    let process = Process::start(&[
        ("RINGCAST_CORES", "1"),
        ("RINGCAST_PING_INTERVAL_MS", "500"),
        ("RINGCAST_PING_TIMEOUT_MS", "2000"),
    ]);
    let mut clients: Vec<Client> = (0..20).map(|_| process.client()).collect();
    let mut admin = process.admin();
    let turns = |admin: &mut Admin| admin.metric("ringcast_turns_total{core=\"0\"}");
    let held = Held::thread(process.pid(), "core 0");
    last(now() + Duration::from_secs(3));
    let before = turns(&mut admin);
    drop(held);
    eventually("the core has looked at each", || turns(&mut admin) > before + 2);
    for client in &mut clients {
        client.ping();
    }
    assert_eq!(admin.metric("ringcast_closes_total{reason=\"pong_timeout\"}"), 0);
}

/// More reloads than the mailbox of a core holds while the core stands still: operators are answered, signals are
/// handled, and the drain reaches the core as soon as it turns.
#[test]
fn operators_and_signals_do_not_wait_for_a_core_that_does_not_turn() {
    let mut process = Process::start(&[("RINGCAST_DRAIN_SECONDS", "10")]);
    let mut admin = process.admin();
    let held = Held::thread(process.pid(), "core 1");
    for _ in 0..20 {
        process.signal(Signal::SIGHUP);
        process.logged("SIGHUP: reloaded");
    }
    for path in ["/metrics", "/stats"] {
        assert_eq!(admin.get(path).0, 200, "{path}");
    }
    process.signal(Signal::SIGTERM);
    process.logged("SIGTERM: draining");
    eventually("the drain has begun", || admin.get("/readyz").0 == 503);
    drop(held);
    process.logged("drained 0 connections");
    assert_eq!(process.exit_code(), Some(0));
}

/// A core that does not run reads nothing from the ring. Publications fill the ring, then publishers wait.
#[test]
fn a_ring_that_is_full() {
    let settings = [("RINGCAST_RING_SLOTS", "64")];
    let of = format!("64 slots, {:?}", seconds(5));
    beside_healthy_clients("the ring is full", of, &settings, |stage| {
        let hits = stage.hits("ring");
        // Clients on each core, because all healthy publishers may be on the core that is stopped.
        let mut others: Vec<_> = (0..6).map(|_| stage.process.client()).collect();
        let held = Held::thread(stage.process.pid(), "core 1");
        for client in &mut others {
            for _ in 0..100 {
                client.send_text(r##"{"event":"#publish","data":{"channel":"others","data":0}}"##);
            }
        }
        let mut full: Option<Instant> = None;
        eventually("the ring is full", || {
            full = (stage.hits("ring") > hits).then(now);
            full.is_some()
        });
        last(full.unwrap() + seconds(5));
        drop(held);
    });
}
