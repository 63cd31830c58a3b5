//! How a server ends: by signals to the real process, or by the program that embeds it.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use ringcast::app::CloseReason;
use ringcast::config::Placement;
use ringcast::internals::metrics::counter::Counter;
use ringcast::server::Exit;
use support::process::{Admin, Process};
use support::{Client, PATIENCE, Received, Server, TEXT, UPGRADE, close_frame, eventually, frame};

/// Waits until the control plane reports that the server accepts no more clients.
fn until_not_ready(process: &Process) {
    let mut admin = process.admin();
    eventually("readiness is off", || {
        admin.get("/readyz") == (503, "draining\n".to_owned())
    });
    assert_eq!(admin.get("/healthz").0, 200, "a drain is no illness");
}

#[test]
fn a_drain_closes_one_client_of_each_core_at_once_and_serves_the_others() {
    // Within an hour, only the first client of each core is due.
    let mut process = Process::start(&[("RINGCAST_DRAIN_SECONDS", "36000")]);
    let mut clients: Vec<Client> = (0..20).map(|_| process.client()).collect();
    process.signal(Signal::SIGTERM);
    until_not_ready(&process);
    let mut admin = process.admin();
    eventually("the first are closed", || {
        admin.metric("ringcast_drain_left") == 18
    });
    let (closed, mut open): (Vec<Client>, Vec<Client>) = clients.drain(..).partition(has_input);
    assert_eq!(
        closed.len(),
        2,
        "a close frame is sent before the metrics tell of it"
    );
    for mut client in closed {
        assert_eq!(client.event(), Received::Close(Some(1001), String::new()));
    }
    for client in &mut open {
        client.ping();
    }
    // The process ends when no connection is left.
    drop(open);
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn a_signal_closes_every_client_within_the_time_of_the_drain_and_the_process_exits_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut process = Process::start(&[("RINGCAST_DRAIN_SECONDS", "2")]);
        assert_eq!(process.admin().get("/readyz").0, 200);
        let mut clients: Vec<Client> = (0..20).map(|_| process.client()).collect();
        let (mut silent, mut half, mut waiting) = (
            Client::connect(process.address),
            Client::connect(process.address),
            Client::connect(process.address),
        );
        half.send_bytes(&UPGRADE.as_bytes()[..30]);
        waiting.upgrade();
        process.signal(signal);
        until_not_ready(&process);
        eventually("no connection is accepted", || {
            TcpStream::connect(process.address).is_err()
        });
        clients.push(waiting);
        for mut client in clients {
            assert_eq!(client.event(), Received::Close(Some(1001), String::new()));
            client.send_bytes(&close_frame(1001, ""));
            assert_eq!(client.next(), Received::End);
        }
        assert_eq!([silent.next(), half.next()], [Received::End, Received::End]);
        assert_eq!(process.exit_code(), Some(0));
    }
}

#[test]
fn a_drain_closes_the_oldest_connections_first_at_the_rate_of_the_metrics() {
    let mut process = Process::start(&[("RINGCAST_DRAIN_SECONDS", "4")]);
    let mut clients: Vec<Client> = (0..60).map(|_| process.client()).collect();
    // New connections, which are now the youngest, take the places of those that leave.
    clients.drain(..20);
    let mut admin = process.admin();
    eventually("their places are free", || {
        admin.metric("ringcast_connections") == 40
    });
    clients.extend((0..40).map(|_| process.client()));
    assert_eq!(admin.metric("ringcast_drain_left"), 0);
    assert_eq!(admin.metric("ringcast_drain_closes_per_second"), 0);
    process.signal(Signal::SIGTERM);
    until_not_ready(&process);
    assert_eq!(admin.metric("ringcast_drain_closes_per_second"), 20);
    eventually("both cores have begun", || {
        // Read in this order: the server counts a close before it lowers the number of connections that are left.
        let left = admin.metric("ringcast_drain_left");
        left + admin.metric("ringcast_closes_total{reason=\"draining\"}") >= 80
    });
    let mut looks = Vec::new();
    loop {
        let left = admin.metric("ringcast_drain_left");
        // Look at the youngest connection first. If it is found open at its look, it was open when all younger ones
        // were looked at.
        let is_closed: Vec<bool> = clients.iter().rev().map(has_input).collect();
        let closed = is_closed.iter().filter(|is_closed| **is_closed).count();
        assert!(
            closed as u64 + left >= 80,
            "{left} are left, and {closed} are closed"
        );
        looks.push(is_closed);
        if closed == 80 {
            break;
        }
    }
    let core_of: HashMap<String, u64> = ends(&mut admin).into_iter().collect();
    for core in [0, 1] {
        let are_of_core: Vec<bool> = clients
            .iter()
            .rev()
            .map(|client| core_of[&client.id] == core)
            .collect();
        for look in &looks {
            let of_core = look
                .iter()
                .zip(&are_of_core)
                .filter(|(_, is_of_core)| **is_of_core);
            let closed: Vec<bool> = of_core.map(|(is_closed, _)| *is_closed).collect();
            assert!(closed.is_sorted(), "from the last to the first: {closed:?}");
        }
    }
    for mut client in clients {
        assert_eq!(client.event(), Received::Close(Some(1001), String::new()));
        client.send_bytes(&close_frame(1001, ""));
    }
    assert_eq!(process.exit_code(), Some(0));
}

/// The sessions that have ended, each with its core.
fn ends(admin: &mut Admin) -> Vec<(String, u64)> {
    let closed: serde_json::Value = serde_json::from_str(&admin.get("/closed").1).unwrap();
    let ends = closed["connections"].as_array().unwrap().iter();
    ends.map(|end| {
        (
            end["id"].as_str().unwrap().to_owned(),
            end["core"].as_u64().unwrap(),
        )
    })
    .collect()
}

/// True if the client has received something that it has not read.
fn has_input(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let has_input = client.stream.peek(&mut [0]).is_ok();
    client.stream.set_nonblocking(false).unwrap();
    has_input
}

#[test]
fn a_process_that_starts_beside_another_takes_over_and_no_client_is_refused() {
    const TAKEOVERS: usize = 5;
    /// Number of clients that connect while both processes serve, and again while the first one drains.
    const COME: usize = 20;
    let mut serving = Process::start(&[("RINGCAST_DRAIN_SECONDS", "1")]);
    let address = serving.address;
    let listen = address.to_string();
    let (is_over, connects) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        // These clients reconnect as soon as they have left. A refused or reset connection fails the test.
        let coming: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let mut client = Client::connect(address);
                        client.upgrade();
                        client.handshake();
                        connects.fetch_add(1, Ordering::Relaxed);
                        client.reset();
                    }
                })
            })
            .collect();
        let some_come = || {
            let before = connects.load(Ordering::Relaxed);
            eventually("clients come", || {
                // The thread of a client that was refused has ended.
                coming.iter().any(|thread| thread.is_finished())
                    || connects.load(Ordering::Relaxed) >= before + COME
            });
        };
        for _ in 0..TAKEOVERS {
            let next = Process::start(&[
                ("RINGCAST_DRAIN_SECONDS", "1"),
                ("RINGCAST_LISTEN", &listen),
                ("RINGCAST_TAKE_OVER", "on"),
            ]);
            next.logged("listening with the process that serves already");
            some_come();
            let mut before = std::mem::replace(&mut serving, next);
            before.signal(Signal::SIGTERM);
            some_come();
            assert_eq!(before.exit_code(), Some(0));
        }
        drop(over);
        coming.into_iter().for_each(|thread| thread.join().unwrap());
    });
    serving.signal(Signal::SIGTERM);
    assert_eq!(serving.exit_code(), Some(0));
    assert!(TcpStream::connect(address).is_err(), "the last one leaves nobody");
}

/// Sets the flag when it is dropped, also if the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (first, second, code) in [
        (Signal::SIGTERM, Signal::SIGTERM, 143),
        (Signal::SIGINT, Signal::SIGINT, 130),
        (Signal::SIGTERM, Signal::SIGINT, 130),
    ] {
        let mut process = Process::start(&[("RINGCAST_DRAIN_SECONDS", "3600")]);
        let mut clients: Vec<Client> = (0..10).map(|_| process.client()).collect();
        process.signal(first);
        until_not_ready(&process);
        process.signal(second);
        assert_eq!(process.exit_code(), Some(code));
        for client in &mut clients {
            while client.next() != Received::End {}
        }
    }
}

#[test]
fn a_drain_without_clients_is_over_at_once() {
    let mut process = Process::start(&[("RINGCAST_DRAIN_SECONDS", "3600")]);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn publications_that_were_acknowledged_arrive_before_the_end() {
    let server = Server::start(|config| {
        config.limits.outbox_bytes_max = 64 * 1024 * 1024;
        config.limits.close_timeout = PATIENCE;
    });
    let mut subscribers: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("news");
    }
    let mut publisher = server.client();
    for index in 0..1000 {
        publisher.publish("news", &index.to_string());
    }
    publisher.ping();
    server.running().drain();
    for subscriber in &mut subscribers {
        for index in 0..1000 {
            assert_eq!(subscriber.publication("news"), index.to_string());
        }
        assert_eq!(subscriber.event(), Received::Close(Some(1001), String::new()));
        subscriber.send_bytes(&close_frame(1001, ""));
    }
    assert_eq!(publisher.close_frame().0, Some(1001));
    publisher.send_bytes(&close_frame(1001, ""));
    drop((subscribers, publisher));
    assert_eq!(server.wait(), Exit::Drained);
}

#[test]
fn a_publication_to_many_that_was_acknowledged_reaches_all_of_them_although_the_drain_comes_meanwhile() {
    const ACKNOWLEDGED: usize = 100;
    for _ in 0..5 {
        let server = Server::start(|config| {
            config.cores.placement = Placement::Count(2);
            config.restart.drain = Duration::ZERO;
            config.limits.outbox_bytes_max = 64 * 1024 * 1024;
            config.limits.close_timeout = PATIENCE;
        });
        let mut subscribers: Vec<Client> = (0..400).map(|_| server.client()).collect();
        for subscriber in &mut subscribers {
            subscriber.subscribe("news");
        }
        let mut publisher = server.client();
        let publish = |cid: u32| {
            let text =
                format!(r##"{{"event":"#publish","data":{{"channel":"news","data":{cid}}},"cid":{cid}}}"##);
            frame(TEXT, text.as_bytes())
        };
        // The subscribers are more than one turn delivers to.
        publisher.send_bytes(&(1000..1500).map(publish).collect::<Vec<_>>().concat());
        for _ in 0..ACKNOWLEDGED {
            while !publisher.message().contains("rid") {}
        }
        server.running().drain();
        for subscriber in &mut subscribers {
            let mut received = 0;
            while let Received::Text(_) = subscriber.event() {
                received += 1;
            }
            assert!(received >= ACKNOWLEDGED, "{received} arrived");
        }
        drop((subscribers, publisher));
        assert_eq!(server.wait(), Exit::Drained);
    }
}

#[test]
fn a_client_that_does_not_answer_the_close_delays_a_drain_by_at_most_the_close_timeout() {
    let server = Server::start(|config| config.limits.close_timeout = Duration::from_millis(200));
    let mut client = server.client();
    server.running().drain();
    assert_eq!(client.close_frame().0, Some(1001));
    let handles = server.running().cores().to_vec();
    let exit = server.wait();
    // The core's own timeout and the control plane's wait end at the same moment.
    assert!(matches!(exit, Exit::Drained | Exit::Overdue), "{exit:?}");
    let closes = handles
        .iter()
        .map(|core| core.metrics().closes[CloseReason::Draining.index()].value());
    assert_eq!(closes.sum::<u64>(), 1);
    assert_eq!(client.next(), Received::End);
}

#[test]
fn every_accepted_socket_is_answered_or_closed_properly_during_a_drain() {
    for round in 0..10 {
        let server = Server::start(|config| {
            config.cores.placement = Placement::Count(4);
            config.limits.close_timeout = PATIENCE;
        });
        let address = server.address;
        // Each client sends its requests at once, and reads an answer or at least the end, until the listener is
        // closed.
        let connecting: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(move || {
                    while let Ok(stream) = TcpStream::connect(address) {
                        let mut client = Client::over(stream);
                        // A connection that came too late for the listener has been reset.
                        if client
                            .stream
                            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                            .is_ok()
                        {
                            client.rest();
                        }
                    }
                })
            })
            .collect();
        eventually("some have come", || {
            server.total(|core| &core.accepts) > 10 * round
        });
        let cores = server.running().cores().to_vec();
        server.running().drain();
        assert_eq!(server.wait(), Exit::Drained);
        connecting.into_iter().for_each(|thread| thread.join().unwrap());
        let accepts: u64 = cores.iter().map(|core| core.metrics().accepts.value()).sum();
        let closes = cores.iter().flat_map(|core| core.metrics().closes.iter());
        assert_eq!(closes.map(Counter::value).sum::<u64>(), accepts);
    }
}

#[test]
fn connections_that_wait_in_the_backlog_are_answered_when_the_server_drains() {
    let server = Server::start(|config| {
        config.cores.placement = Placement::Count(1);
        config.limits.accepts_per_second_max = 1;
        config.restart.drain = Duration::ZERO;
    });
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send_bytes(UPGRADE.as_bytes());
    }
    eventually("the rate is met", || {
        server.limit_hits(ringcast::internals::decision::Limit::AcceptRate) > 0
    });
    server.running().drain();
    for mut client in clients {
        // Reading from a reset connection gives an error and no bytes.
        client.rest();
    }
}
