//! Connections that misbehave and end in every way leave no memory behind: however many have come and gone, the live
//! bytes of a core are the same. The resident memory of a process does not show this, since an allocator keeps pages.
//! Only allocations of cores count.

#![allow(clippy::unwrap_used)] // a test

mod support {
    pub(crate) mod client;
    pub(crate) mod counting;
    pub(crate) mod frame;
}

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use ringcast::internals::app::builtin::Builtin;
use ringcast::server::Server;
use support::client::Client;
use support::counting::{asked, start};
use support::frame::frame;

/// Connections of one round: each way to misbehave with each way to leave, several times.
const CONNECTIONS_PER_ROUND: usize = 8 * MISBEHAVIOURS * DEPARTURES;
const MISBEHAVIOURS: usize = 7;
const DEPARTURES: usize = 3;
/// Rounds after which the core has allocated whatever it keeps for later connections.
const WARM_UP_ROUNDS: usize = 3;
const STRETCHES: usize = 4;
const ROUNDS_PER_STRETCH: usize = 20;
/// By how much the live bytes of one stretch may exceed the live bytes of the stretch before. A leak of 16 bytes in one
/// way to misbehave and one way to leave adds 16 bytes × 8 connections × 20 rounds = 2,560 bytes to each stretch.
const BYTES_MORE_MAX: i64 = 1280;

#[test]
fn connections_that_misbehave_leave_no_memory_behind() {
    let server = start(
        1,
        |config| config.limits.message_bytes_max = 64 * 1024,
        Builtin::new,
    );
    let mut steady = Client::connect(Ipv4Addr::LOCALHOST, server.address());
    let mut live = Vec::new();
    for _ in 0..WARM_UP_ROUNDS + STRETCHES * ROUNDS_PER_STRETCH {
        round(server.address());
        wait_for_one_connection(&server);
        steady.call(r#"{"event":"ping","data":1,"cid":2}"#); // answered in a later turn than the last close
        live.push(asked().live_bytes);
    }
    println!("live bytes after each round: {live:?}");
    // A table or list that grows to a new level, since more connections were open at once than ever before, is a step
    // in one stretch or two. A leak adds to all of them.
    let levels: Vec<i64> = live[WARM_UP_ROUNDS..]
        .chunks(ROUNDS_PER_STRETCH)
        .map(|stretch| *stretch.iter().min().unwrap())
        .collect();
    let least = levels.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(
        least <= BYTES_MORE_MAX,
        "each stretch of {ROUNDS_PER_STRETCH} rounds has {least} bytes more: {levels:?}"
    );
}

/// Opens the connections of one round ten at a time, and ends each.
fn round(address: SocketAddr) {
    let all: Vec<usize> = (0..CONNECTIONS_PER_ROUND).collect();
    for some in all.chunks(10) {
        let streams: Vec<TcpStream> = some.iter().map(|&number| misbehaving(address, number)).collect();
        for (stream, number) in streams.into_iter().zip(some) {
            leave(stream, number / MISBEHAVIOURS % DEPARTURES);
        }
    }
}

fn misbehaving(address: SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let text = |packet: &str| frame(0x81, packet.as_bytes());
    let mut sent = UPGRADE.as_bytes().to_vec();
    sent.extend(text(
        r##"{"event":"#handshake","data":{"authToken":null},"cid":1}"##,
    ));
    match number % MISBEHAVIOURS {
        0 => {
            for cid in 2..40 {
                let packet = format!(
                    r##"{{"event":"#subscribe","data":{{"channel":"{number}-{cid}"}},"cid":{cid}}}"##
                );
                sent.extend(text(&packet));
            }
            let data = "x".repeat(5000);
            let packet = format!(r##"{{"event":"#publish","data":{{"channel":"{number}-2","data":"{data}"}}}}"##);
            sent.extend(text(&packet));
        }
        1 => sent = b"no HTTP at all\r\n\r\n".to_vec(),
        2 => sent.truncate(40 + number % 60),
        3 => {
            sent.extend(frame(0x01, b"\""));
            for _ in 0..200 {
                sent.extend(frame(0x00, &[b'x'; 100]));
            }
        }
        4 => sent.extend(text(
            r##"{"event":"#authenticate","data":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.Zm9yZ2Vk","cid":2}"##,
        )),
        5 => sent.extend(text(r##"{"event":"#publish","data":{"channel":"a","data":nul}}"##)),
        _ => sent.extend([0xff; 300]),
    }
    // The server may have closed the connection already.
    let _ = stream.write_all(&sent);
    stream
}

fn leave(mut stream: TcpStream, departure: usize) {
    match departure {
        0 => drop(stream),
        1 => {
            // Further bytes are sent by the server until it closes.
            let _ = stream.write_all(&frame(0x88, &1000_u16.to_be_bytes()));
            let _ = stream.shutdown(Shutdown::Write);
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
        _ => {
            // Without lingering, the system resets the connection.
            let socket = socket2::Socket::from(stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

fn wait_for_one_connection(server: &Server) {
    let connections = || server.cores()[0].metrics().connections.value();
    for _ in 0..6000 {
        if connections() == 1 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{} connections are left", connections());
}

const UPGRADE: &str = "GET /socketcluster/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
