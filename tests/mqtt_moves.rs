//! Connections move to the core that owns their client id: plain, over TLS and in WebSockets.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ringcast::config::{ClientProtocols, Placement};
use ringcast::internals::decision::CloseReason;
use support::mqtt::{PINGREQ, PINGRESP, read_packet as packet};
use support::process::{Held, Process};
use support::secure::{Authority, Files};
use support::{Client, Received, Server, eventually, frame};

/// A CONNECT of MQTT 5.
fn connect(client_id: &str) -> Vec<u8> {
    support::mqtt::connect(5, client_id)
}

const CORES: usize = 4;

fn server(change: impl FnOnce(&mut ringcast::config::Config)) -> Server {
    Server::start(|config| {
        config.cores.placement = Placement::Count(4);
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.mqtt.client_protocols = ClientProtocols::SocketClusterAndMqtt;
        change(config);
    })
}

/// A server with TLS on a port for MQTT, the authority that its clients trust, and the files of its certificate.
fn server_with_tls() -> (Server, Arc<rustls::ClientConfig>, Files) {
    let authority = Authority::new("authority");
    let files = Files::new();
    let server = server(|config| {
        support::secure::speak_tls(config, &files, &[authority.server(&["localhost"])]);
        config.mqtt.tls_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    });
    let trust = Arc::new(authority.trust(&[&rustls::version::TLS13], None));
    (server, trust, files)
}

/// The core that has the one connection there is.
fn core_of_the_only_connection(server: &Server) -> usize {
    let mut found = None;
    eventually("there is one connection, on one core", || {
        let each = server.each(|core| &core.connections);
        found = each.iter().position(|count| *count == 1);
        each.iter().sum::<u64>() == 1
    });
    found.unwrap()
}

#[test]
fn all_connections_of_a_client_id_come_to_the_same_core_by_whatever_way() {
    let (server, trust, _files) = server_with_tls();
    let (own, tls) = (
        server.running().mqtt_address().unwrap(),
        server.running().mqtt_tls_address().unwrap(),
    );
    let mut cores = [0; CORES];
    for id in (0..16).map(|number| format!("client-{number}")) {
        let mut seen = Vec::new();
        // Some ways more than once: the system chooses the core that accepts.
        for way in [0, 1, 2, 3, 0, 3] {
            let mut client = match way {
                0 => Client::connect(own),
                1 => support::secure::connect(tls, &trust, "localhost"),
                _ => server.connect(),
            };
            if way == 3 {
                let request = support::UPGRADE.replace("/socketcluster/", "/mqtt");
                // CONNECT comes together with the request: the answer to that moves, too.
                let both = [request.as_bytes(), &frame(0x82, &connect(&id))].concat();
                client.send_bytes(&both);
                assert!(client.read_head().starts_with("HTTP/1.1 101 "));
                assert!(matches!(client.next(), Received::Binary(bytes) if bytes[0] == 0x20));
                client.send_bytes(&frame(0x82, PINGREQ));
                assert_eq!(client.next(), Received::Binary(PINGRESP.to_vec()));
            } else {
                // The bytes behind CONNECT move with it.
                client.send_bytes(&[&connect(&id), PINGREQ].concat());
                assert_eq!(packet(&mut client)[0], 0x20);
                assert_eq!(packet(&mut client), PINGRESP);
                client.send_bytes(PINGREQ);
                assert_eq!(packet(&mut client), PINGRESP);
            }
            seen.push(core_of_the_only_connection(&server));
            drop(client);
            eventually("it has ended", || server.connections() == 0);
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "{id}: {seen:?}");
        cores[seen[0]] += 1;
    }
    assert!(cores.iter().filter(|count| **count > 0).count() > 1, "{cores:?}");
    assert!(server.total(|core| &core.moves) > 0);
    assert_eq!(server.total(|core| &core.sessions), 0);
}

/// A client whose ClientHello has come half.
struct HalfHello {
    socket: TcpStream,
    tls: rustls::ClientConnection,
    rest: Vec<u8>,
}

#[test]
fn connections_move_while_tls_handshakes_of_their_cores_stand_still_and_the_halted_ones_move_later() {
    let (server, trust, _files) = server_with_tls();
    let (own, tls) = (
        server.running().mqtt_address().unwrap(),
        server.running().mqtt_tls_address().unwrap(),
    );
    const STANDING: u64 = 16;
    let standing: Vec<HalfHello> = (0..STANDING)
        .map(|_| {
            let name = "localhost".try_into().unwrap();
            let mut client = rustls::ClientConnection::new(Arc::clone(&trust), name).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            let rest = hello.split_off(hello.len() / 2);
            let mut socket = TcpStream::connect(tls).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            socket.write_all(&hello).unwrap();
            HalfHello {
                socket,
                tls: client,
                rest,
            }
        })
        .collect();
    eventually("the cores have all of them", || server.connections() == STANDING);
    let others: Vec<Client> = (0..32)
        .map(|number| {
            let mut client = match number % 2 {
                0 => Client::connect(own),
                _ => support::secure::connect(tls, &trust, "localhost"),
            };
            client.send_bytes(&[&connect(&format!("other-{number}")), PINGREQ].concat());
            assert_eq!(packet(&mut client)[0], 0x20);
            assert_eq!(packet(&mut client), PINGRESP);
            client
        })
        .collect();
    let moves = || server.total(|core| &core.moves);
    let moved = moves();
    assert!(moved > 0);
    for (number, half) in standing.into_iter().enumerate() {
        let HalfHello {
            mut socket,
            mut tls,
            rest,
        } = half;
        socket.write_all(&rest).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut socket);
        stream.write_all(&connect(&format!("standing-{number}"))).unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(first, [0x20]);
    }
    assert!(moves() > moved);
    drop(others);
    eventually("all have ended", || server.connections() == 0);
}

#[test]
fn a_connection_that_has_moved_counts_for_its_address_until_it_ends() {
    let server = server(|config| config.limits.connections_per_address_max = 3);
    let own = server.running().mqtt_address().unwrap();
    let accepted = |id: &str| {
        let mut client = Client::connect(own);
        client.send_bytes(&connect(id));
        let answer = client.read_bytes(1);
        assert_eq!(answer, [0x20], "{id}");
        client
    };
    // Each core accepts some of them, and most move.
    for round in 0..20 {
        let clients: Vec<Client> = (0..3)
            .map(|number| accepted(&format!("{round}-{number}")))
            .collect();
        let mut one_more = Client::connect(own);
        assert_eq!(one_more.next(), Received::End);
        drop(clients);
        eventually("all have ended", || server.connections() == 0);
    }
    assert!(server.total(|core| &core.moves) > 0);
}

#[test]
fn a_client_without_an_id_moves_nowhere() {
    let server = server(|_| {});
    for _ in 0..16 {
        let mut client = server.connect();
        client.send_bytes(&connect(""));
        assert_eq!(packet(&mut client)[0], 0x20);
    }
    assert_eq!(server.total(|core| &core.moves), 0);
}

#[test]
fn a_client_whose_core_is_full_is_told_so() {
    // The core of a client follows from a random key of the server. So the first clients may fill all cores one by one,
    // which takes each to a core with room.
    let refusals = (0..100).map(|_| refusals_until_all_cores_are_full());
    assert!(refusals.take_while(|refusals| *refusals == 0).count() < 100);
}

/// Connects clients to a server that takes one client on each core.
fn refusals_until_all_cores_are_full() -> usize {
    let server = server(|config| config.limits.connections_per_core_max = 1);
    let mut clients: Vec<Client> = Vec::new();
    let mut refused = 0;
    // When all cores are full, no core accepts the connection of another client.
    while clients.len() < CORES {
        let mut client = Client::connect(server.running().mqtt_address().unwrap());
        client.send_bytes(&connect(&format!("client-{}", clients.len() + refused)));
        let answer = packet(&mut client);
        assert_eq!(answer[0], 0x20);
        match answer[3] {
            0 => clients.push(client),
            0x88 => {
                refused += 1;
                assert_eq!(client.next(), Received::End);
            }
            other => panic!("{other:#x}"),
        }
        assert!(
            server
                .each(|core| &core.connections)
                .iter()
                .all(|count| *count <= 1)
        );
    }
    drop(clients);
    eventually("all have ended", || server.connections() == 0);
    refused
}

/// As for sockets that are handed over before their first byte: `tests/descriptors.rs`.
#[test]
fn places_of_connections_whose_sockets_are_lost_on_their_way_are_released() {
    for tables in ["auto", "shared"] {
        let settings = [
            ("RINGCAST_FD_TABLES", tables),
            ("RINGCAST_DRAIN_SECONDS", "0"),
            ("RINGCAST_CLIENT_PROTOCOLS", "socketcluster,mqtt"),
        ];
        let process = Process::start_with_descriptors(300, &settings);
        let mut admin = process.admin();
        let mut clients: Vec<Client> = (0..40).map(|_| process.connect()).collect();
        eventually("all are accepted", || admin.metric("ringcast_connections") == 40);
        let held = Held::thread(process.pid(), "core 1");
        for (number, client) in clients.iter_mut().enumerate() {
            client.send_bytes(&connect(&format!("client-{number}")));
        }
        eventually("some are on their way to the core that stands still", || {
            admin.metric("ringcast_connections") <= 37
        });
        limit_descriptors(&process, 4);
        drop(held);
        eventually("the sockets are lost", || {
            clients.iter().filter(|client| has_ended(client)).count() >= 3
        });
        limit_descriptors(&process, 300);
        drop(clients);
        eventually("all connections are closed", || {
            admin.metric("ringcast_connections") == 0
        });
        process.client().ping();
        process.signal(nix::sys::signal::Signal::SIGTERM);
        process.logged("drained");
    }
}

/// As if a program filled its tables with descriptors of its own.
fn limit_descriptors(process: &Process, count: u32) {
    let (pid, limit) = (process.pid().to_string(), format!("--nofile={count}:300"));
    let status = std::process::Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(status.unwrap().success());
}

fn has_ended(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let end = client.stream.peek(&mut [0]);
    client.stream.set_nonblocking(false).unwrap();
    end.is_ok_and(|count| count == 0)
}

/// Which core accepts a connection, the system chooses by its port: of many pairs, most come by two cores.
#[test]
fn a_client_id_has_one_connection_and_the_newer_is_told_when_the_older_has_been_let_go() {
    let server = server(|_| {});
    let own = server.running().mqtt_address().unwrap();
    for number in 0..32 {
        let id = format!("client-{number}");
        let [mut older, mut newer] = [(); 2].map(|()| Client::connect(own));
        for client in [&mut older, &mut newer] {
            client.send_bytes(&connect(&id));
            assert_eq!(packet(client)[0], 0x20);
        }
        assert_eq!(server.closes(CloseReason::TakenOver), number + 1);
        let farewell = packet(&mut older);
        assert_eq!((farewell[0], farewell[2]), (0xe0, 0x8e));
        assert_eq!(older.next(), Received::End);
        newer.send_bytes(PINGREQ);
        assert_eq!(packet(&mut newer), PINGRESP);
    }
    assert!(server.total(|core| &core.moves) > 0);
    // All at once: one stays.
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(own)).collect();
    for client in &mut clients {
        client.send_bytes(&connect("all"));
    }
    for client in &mut clients {
        assert_eq!(packet(client)[0], 0x20);
    }
    eventually("one of them stays", || server.connections() == 1);
    assert_eq!(server.total(|core| &core.sessions), 1);
    assert_eq!(server.closes(CloseReason::TakenOver), 32 + 15);
}
