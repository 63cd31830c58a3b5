//! Hostile and broken clients, each beside a healthy client whose calls are answered and whose publications arrive. At
//! the end the server has released everything, and its counters have counted each attack.

#![allow(clippy::unwrap_used)] // a test

#[path = "hostile/documents.rs"]
mod documents;
#[path = "hostile/json.rs"]
mod json;
#[allow(unreachable_pub, dead_code)] // a part of the package for cargo-fuzz
#[path = "../fuzz/src/json_model.rs"]
mod json_model;
mod support;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use ringcast::config::Config;
use ringcast::internals::decision::{CloseReason, Limit};
use support::{BINARY, Client, PING, Received, Server, TEXT, UPGRADE, eventually, frame};

/// A client that uses the server correctly.
struct Healthy {
    client: Client,
    rounds: usize,
}

impl Healthy {
    fn new(server: &Server) -> Healthy {
        let mut client = server.client();
        client.subscribe("health");
        Healthy { client, rounds: 0 }
    }

    /// Checks that a call is answered and a publication arrives.
    #[track_caller]
    fn check(&mut self) {
        self.client.ping();
        self.client.publish("health", &self.rounds.to_string());
        assert_eq!(self.client.publication("health"), self.rounds.to_string());
        self.rounds += 1;
    }

    /// Repeats this check until `condition` holds.
    #[track_caller]
    fn check_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        eventually(what, || {
            self.check();
            condition()
        });
    }
}

/// Runs `attack` beside a healthy client, and expects that afterwards only the healthy client is connected. Returns the
/// healthy client, so that its own end does not count.
fn beside_a_healthy_client(
    change: impl FnOnce(&mut Config),
    attack: impl FnOnce(&Server) + Send,
) -> (Server, Healthy) {
    let server = Server::start(change);
    let mut healthy = Healthy::new(&server);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| attack(&server));
        healthy.check_until("the attack is over", || attacker.is_finished());
    });
    healthy.check_until("the attackers are gone", || server.connections() == 1);
    server.settles_at(1, 1);
    (server, healthy)
}

/// Random numbers that are the same in every run: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Writes as many bytes as possible; the server may close the connection at any moment.
fn push(mut stream: &TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

#[test]
fn clients_killed_by_a_reset_leave_nothing() {
    let (server, _healthy) = beside_a_healthy_client(
        |_| {},
        |server| {
            for subscribed in [false, true] {
                let clients: Vec<Client> = (0..50)
                    .map(|_| {
                        let mut client = server.client();
                        if subscribed {
                            client.subscribe("health");
                        }
                        client
                    })
                    .collect();
                clients.into_iter().for_each(Client::reset);
            }
        },
    );
    assert_eq!(server.closes(CloseReason::PeerVanished), 100);
}

#[test]
fn half_open_clients_are_closed_by_the_pong_timeout() {
    let (server, _healthy) = beside_a_healthy_client(
        |config| {
            config.socketcluster.ping_interval = Duration::from_millis(250);
            config.socketcluster.ping_timeout = Duration::from_secs(6);
            config.limits.close_timeout = Duration::from_millis(50);
        },
        |server| {
            let mut gone: Vec<Client> = (0..20).map(|_| server.client()).collect();
            for client in &mut gone {
                // The client reads, but answers nothing, like one that has vanished.
                loop {
                    match client.next() {
                        Received::Text(ping) => assert!(ping.is_empty() || ping == "#1", "{ping}"),
                        end => {
                            assert_eq!(end, Received::Close(Some(4001), String::new()));
                            break;
                        }
                    }
                }
                assert_eq!(client.next(), Received::End);
            }
        },
    );
    assert_eq!(server.closes(CloseReason::PongTimeout), 20);
    assert_eq!(server.limit_hits(Limit::PongTime), 20);
    assert_eq!(server.limit_hits(Limit::CloseTime), 20);
}

#[test]
fn floods_of_small_frames_are_taken_in_turns() {
    let (server, _healthy) = beside_a_healthy_client(
        |_| {},
        |server| {
            thread::scope(|scope| {
                for flood in [
                    frame(TEXT, b"x"),
                    frame(TEXT, b""),
                    frame(BINARY, b""),
                    [frame(0x01, b""), frame(0x80, b"")].concat(),
                    frame(PING, b""),
                    frame(PING, &[b'p'; 125]),
                ] {
                    scope.spawn(move || {
                        let client = server.client();
                        // The client does not read the answers to its pings; after a while they fill the sockets, and
                        // the server stops reading.
                        client
                            .stream
                            .set_write_timeout(Some(Duration::from_millis(300)))
                            .unwrap();
                        let many = flood.repeat(10_000);
                        for _ in 0..20 {
                            if !push(&client.stream, &many) {
                                break;
                            }
                        }
                    });
                }
            });
        },
    );
    assert_eq!(server.closes(CloseReason::ProtocolError), 0);
    assert_eq!(server.closes(CloseReason::SigningFailed), 0);
}

#[test]
fn garbage_instead_of_frames_is_refused() {
    const CLIENTS: usize = 200;
    let (server, _healthy) = beside_a_healthy_client(
        |_| {},
        |server| {
            let mut random = Random(7);
            for number in 0..CLIENTS {
                let mut client = if number % 2 == 0 {
                    server.client()
                } else {
                    server.connect()
                };
                let garbage: Vec<u8> = (0..2000).map(|_| random.next().to_le_bytes()[5]).collect();
                push(&client.stream, &garbage);
                // Input that was incomplete until now becomes an error when it ends.
                let _ = client.stream.shutdown(std::net::Shutdown::Write);
                if number % 2 == 0 {
                    while client.event() != Received::End {}
                } else {
                    client.rest();
                }
            }
        },
    );
    let ends: u64 = [
        CloseReason::ProtocolError,
        CloseReason::InvalidUtf8,
        CloseReason::MessageTooBig,
        CloseReason::PeerClosed,
        CloseReason::PeerVanished,
        CloseReason::HttpAnswered,
    ]
    .into_iter()
    .map(|reason| server.closes(reason))
    .sum();
    assert_eq!(ends, CLIENTS as u64);
}

#[test]
fn garbage_instead_of_packets_is_ignored() {
    const PARTS: [&str; 16] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"event\"",
        "\"#publish\"",
        "\"data\"",
        "\"cid\"",
        "1e999",
        "null",
        "\"\\ud800\"",
        "\"#subscribe\"",
        "\"x",
        "é",
    ];
    let (server, _healthy) = beside_a_healthy_client(
        |_| {},
        |server| {
            let mut random = Random(11);
            let mut client = server.client();
            for _ in 0..3000 {
                let length = random.below(12);
                let text: String = (0..length).map(|_| PARTS[random.below(PARTS.len())]).collect();
                // The text must not be empty: that would be a pong.
                client.send_text(&format!("{{{text}"));
            }
            client.send_text(&"[".repeat(100_000));
            client.send_text(&format!(r#"{{"data":{}"#, r#"{"a":"#.repeat(100_000)));
            let cid = client.begin_call("ping", "null");
            let last = format!(r#"{{"rid":{cid},"data":{{"count":"#);
            while !client.message().starts_with(&last) {}
        },
    );
    assert!(server.limit_hits(Limit::JsonDepth) > 0);
    assert_eq!(server.closes(CloseReason::PeerVanished), 1);
}

#[test]
fn messages_may_be_as_large_as_the_limit_and_no_larger() {
    const BYTES_MAX: usize = 256 * 1024;
    let (server, _healthy) = beside_a_healthy_client(
        |config| config.limits.message_bytes_max = 256 * 1024,
        |server| {
            for bytes in [BYTES_MAX - 1, BYTES_MAX] {
                let mut client = server.client();
                for _ in 0..20 {
                    client.send_text(&"x".repeat(bytes));
                }
                client.ping();
                let half = vec![b'x'; bytes / 2];
                client.send_bytes(&frame(0x01, &half));
                client.send_bytes(&frame(0x80, &half));
                client.ping();
            }
            let whole = frame(TEXT, &[b'x'; BYTES_MAX + 1]);
            let half = vec![b'x'; BYTES_MAX / 2 + 1];
            let fragments = [frame(0x01, &half), frame(0x80, &half)].concat();
            for too_large in [whole, fragments] {
                let mut client = server.client();
                push(&client.stream, &too_large);
                assert_eq!(client.event(), Received::Close(Some(1009), String::new()));
                assert_eq!(client.next(), Received::End);
            }
        },
    );
    assert_eq!(server.closes(CloseReason::MessageTooBig), 2);
    assert_eq!(server.limit_hits(Limit::MessageBytes), 2);
}

/// The answer to a subscribe beyond a limit.
fn refused(client: &Client, cid: u64, channel: &str, limit: &str) -> String {
    let id = &client.id;
    format!(
        r#"{{"rid":{cid},"error":{{"message":"Failed to subscribe socket to the {channel} channel - InvalidActionError: Socket {id} tried to exceed {limit}","name":"BrokerError"}}}}"#
    )
}

#[test]
fn subscribing_to_anything_ends_at_the_limit_of_channels() {
    let (server, _healthy) = beside_a_healthy_client(
        |config| config.limits.channels_per_connection_max = 100,
        |server| {
            let (mut client, mut random) = (server.client(), Random(13));
            let names: Vec<String> = (0..100).map(|_| format!("{:x}", random.next())).collect();
            for name in &names {
                client.subscribe(name);
            }
            for number in 0..500 {
                let name = format!("more{number}");
                let cid = client.begin_call("#subscribe", &format!(r#"{{"channel":"{name}"}}"#));
                let limit = "the channel subscription limit of 100";
                assert_eq!(client.message(), refused(&client, cid, &name, limit));
            }
            // When the client unsubscribes, one more subscription is allowed.
            client.call("#unsubscribe", &format!(r#""{}""#, names[7]));
            client.subscribe("another");
        },
    );
    assert_eq!(server.limit_hits(Limit::ChannelsPerConnection), 500);
}

#[test]
fn subscribing_to_long_names_ends_at_their_limit_in_bytes() {
    let (server, _healthy) = beside_a_healthy_client(
        |config| config.limits.channel_names_bytes_max = 1000,
        |server| {
            let mut client = server.client();
            client.subscribe(&"a".repeat(600));
            for (bytes, fits) in [(401, false), (400, true), (1, false)] {
                let name = "b".repeat(bytes);
                let cid = client.begin_call("#subscribe", &format!(r#"{{"channel":"{name}"}}"#));
                let limit = "the limit of 1000 bytes for the names of its channels";
                let expected = if fits {
                    format!(r#"{{"rid":{cid}}}"#)
                } else {
                    refused(&client, cid, &name, limit)
                };
                assert_eq!(client.message(), expected);
            }
        },
    );
    assert_eq!(server.limit_hits(Limit::ChannelNamesBytes), 2);
}

#[test]
fn each_phase_of_a_slow_connection_ends_by_its_own_timeout() {
    let (server, _healthy) = beside_a_healthy_client(
        |config| {
            // Connections that are not slow on purpose complete within these times on a busy machine too.
            config.limits.request_timeout = Duration::from_secs(3);
            config.limits.handshake_timeout = Duration::from_secs(3);
            config.limits.close_timeout = Duration::from_millis(50);
            config.socketcluster.ping_interval = Duration::from_millis(500);
            config.socketcluster.ping_timeout = Duration::from_secs(6);
        },
        |server| {
            let large = frame(TEXT, &[b' '; 70_000]);
            thread::scope(|scope| {
                scope.spawn(|| drip(server.connect(), UPGRADE.as_bytes(), 0));
                scope.spawn(|| {
                    let mut client = server.connect();
                    client.upgrade();
                    let handshake = frame(TEXT, br##"{"event":"#handshake","cid":1}"##);
                    drip(client, &handshake, 0);
                });
                // The first bytes are half of the header, the others the payload: an incomplete message is not a sign
                // of life.
                scope.spawn(|| drip(server.client(), &large[..7], 0));
                scope.spawn(|| drip(server.client(), &large, 14));
            });
        },
    );
    assert_eq!(server.closes(CloseReason::RequestTimeout), 1);
    assert_eq!(server.closes(CloseReason::HandshakeTimeout), 1);
    assert_eq!(server.closes(CloseReason::PongTimeout), 2);
    assert_eq!(server.limit_hits(Limit::RequestTime), 1);
    assert_eq!(server.limit_hits(Limit::HandshakeTime), 1);
    assert_eq!(server.limit_hits(Limit::PongTime), 2);
}

/// Sends `start` bytes at once and the others one by one, so slowly that the message is never complete before the
/// server ends the connection.
fn drip(client: Client, bytes: &[u8], start: usize) {
    let mut stream = &client.stream;
    let half = bytes.len() / 2;
    push(stream, &bytes[..start]);
    // Never send the whole message: on a slow machine it could be complete in time.
    for byte in bytes[start..half.max(start + 1)].iter() {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
        if stream.peek_end() {
            return;
        }
    }
    eventually("the server ends it", || stream.peek_end());
}

/// Tells whether the server has closed its direction.
trait PeekEnd {
    fn peek_end(&mut self) -> bool;
}

impl PeekEnd for &TcpStream {
    fn peek_end(&mut self) -> bool {
        use std::io::Read;
        self.set_nonblocking(true).unwrap();
        let ended = match self.read(&mut [0; 4096]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        self.set_nonblocking(false).unwrap();
        ended
    }
}

#[test]
fn a_flood_of_connections_passes() {
    let (server, mut healthy) = beside_a_healthy_client(
        |_| {},
        |server| {
            thread::scope(|scope| {
                for thread in 0..4 {
                    scope.spawn(move || {
                        for number in 0..300 {
                            let client = server.connect();
                            match (thread + number) % 3 {
                                0 => drop(client),
                                1 => client.reset(),
                                _ => {
                                    push(&client.stream, UPGRADE.as_bytes());
                                }
                            }
                        }
                    });
                }
            });
        },
    );
    // Some may still wait to be accepted. The server may never see a connection that was reset before.
    let seen = || server.closes(CloseReason::PeerVanished);
    healthy.check_until("all that were not reset are seen", || seen() >= 800);
    assert!(seen() <= 1200, "{}", seen());
}
