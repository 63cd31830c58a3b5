//! Connections are spread evenly over the cores, whatever the kernel's hash decides, and lose no bytes during a
//! hand-over.
//!
//! Each core of these servers has a descriptor table of its own (the default of the binary). Only one server runs at a
//! time.

#![allow(clippy::unwrap_used)] // a test
#![expect(
    clippy::disallowed_types,
    reason = "tests that wait for one another, not cores"
)]

mod support;

use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use ringcast::app::{App, Call, CallAnswer, Peer};
use ringcast::config::{Config, FdTables, Placement};
use ringcast::server::CoreId;
use support::{Client, Server, TEXT, UPGRADE, eventually, frame};

/// Tells a client which core it is on.
struct Where(usize);

impl App for Where {
    fn invoke(&mut self, _call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        peer.reply(&self.0)
    }
}

static ALONE: Mutex<()> = Mutex::new(());

/// A server of `cores` cores, and the lock that lets only one such server run.
fn server(cores: u16, change: impl FnOnce(&mut Config)) -> (Server, MutexGuard<'static, ()>) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(cores);
            config.cores.fd_tables = FdTables::Auto;
            change(config);
        },
        |core: CoreId| Where(core.index()),
    );
    (server, alone)
}

/// Waits until `count` connections are open; returns the number on each core.
#[track_caller]
fn spread(server: &Server, count: u64) -> Vec<u64> {
    eventually("all have arrived", || server.connections() == count);
    server.each(|core| &core.connections)
}

#[test]
fn a_hundred_connections_on_four_cores_are_twenty_five_each_but_for_two() {
    let (server, _alone) = server(4, |_| {});
    let one_by_one: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let counts = spread(&server, 100);
    assert!(counts.iter().all(|count| (23..=27).contains(count)), "{counts:?}");
    drop(one_by_one);
    eventually("all have gone", || server.connections() == 0);
    // The same when they connect at the same time, to all cores.
    let at_once: Vec<Client> = thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| (0..10).map(|_| server.connect()).collect::<Vec<_>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let counts = spread(&server, 100);
    assert!(counts.iter().all(|count| (23..=27).contains(count)), "{counts:?}");
    assert_eq!(
        server.total(|core| &core.hand_overs_sent),
        server.total(|core| &core.hand_overs_received)
    );
    drop(at_once);
}

#[test]
fn ten_thousand_connections_on_eight_cores_are_even_within_one_percent() {
    const CONNECTIONS: u64 = 10_000;
    let (server, _alone) = server(8, |_| {});
    let clients: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    let counts = spread(&server, CONNECTIONS);
    assert!(
        counts.iter().all(|count| (1238..=1262).contains(count)),
        "{counts:?}"
    );
    drop(clients);
    eventually("all have gone", || server.connections() == 0);
}

#[test]
fn a_core_that_has_lost_its_connections_is_filled_up_again() {
    let (server, _alone) = server(4, |_| {});
    let mut clients: Vec<Client> = (0..80).map(|_| server.client()).collect();
    assert_eq!(spread(&server, 80), [20; 4]);
    clients.retain_mut(|client| !client.call("where", "null").ends_with(r#""data":2}"#));
    eventually("they have gone", || {
        server.each(|core| &core.connections) == [20, 20, 0, 20]
    });
    let new: Vec<Client> = (0..20).map(|_| server.client()).collect();
    assert_eq!(
        spread(&server, 80),
        [20; 4],
        "the place that was free is filled first"
    );
    drop((clients, new));
}

#[test]
fn a_socket_that_is_handed_over_loses_no_byte() {
    let (server, _alone) = server(4, |_| {});
    let handshake = frame(TEXT, br##"{"event":"#handshake","cid":1}"##);
    let call = frame(TEXT, br#"{"event":"where","cid":2}"#);
    let everything = [UPGRADE.as_bytes(), &handshake, &call].concat();
    // The client sends everything at once, right after it has connected.
    let mut clients: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = server.connect();
            client.send_bytes(&everything);
            client
        })
        .collect();
    let mut per_core = [0; 4];
    for client in &mut clients {
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        assert!(client.message().starts_with(r#"{"rid":1,"#));
        let answer = client.message();
        let core = answer
            .trim_start_matches(r#"{"rid":2,"data":"#)
            .trim_end_matches('}');
        per_core[core.parse::<usize>().unwrap()] += 1;
    }
    assert!(
        per_core.iter().all(|count| (48..=52).contains(count)),
        "{per_core:?}"
    );
    assert!(
        server.total(|core| &core.hand_overs_received) > 0,
        "none was handed over"
    );
}

#[test]
fn connections_beyond_the_limit_of_all_cores_wait_until_others_end() {
    let (server, _alone) = server(2, |config| config.limits.connections_per_core_max = 5);
    let mut clients: Vec<Client> = (0..15)
        .map(|_| {
            let mut client = server.connect();
            client.send_bytes(UPGRADE.as_bytes());
            client
        })
        .collect();
    // Two cores that accept at the same moment may both take the last place.
    let arrived = || server.connections();
    eventually("there is no place left", || arrived() >= 10);
    let limit = ringcast::internals::decision::Limit::ConnectionsPerCore;
    eventually("the limit is counted", || server.limit_hits(limit) > 0);
    assert!((10..=11).contains(&arrived()), "{}", arrived());
    // Waiting connections are accepted later. Which ones wait depends on their listeners.
    let mut answered = 0;
    while answered < 15 {
        eventually("another is answered", || {
            let before = clients.len();
            clients.retain(|client| {
                client.stream.set_nonblocking(true).unwrap();
                let is_answered = client.stream.peek(&mut [0]).is_ok_and(|count| count == 1);
                client.stream.set_nonblocking(false).unwrap();
                !is_answered
            });
            answered += before - clients.len();
            before > clients.len()
        });
    }
    eventually("all have gone", || server.connections() == 0);
}
