//! Clients that send as much and as fast as they can.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use super::harness::{LOCALHOST, Random, Stage, beside_healthy_clients, connect, introduction, size};
use super::support::{BINARY, Client, PING, Received, TEXT, UPGRADE, eventually, frame};

/// Writes as many bytes as possible; the server may close the connection at any moment.
fn push(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

#[test]
fn of_connects() {
    let each: usize = size(300, 10_000);
    beside_healthy_clients("flood of connects", 4 * each, &[], |stage| {
        let address = stage.process.address;
        thread::scope(|scope| {
            for thread in 0..4_u8 {
                scope.spawn(move || {
                    for number in 0..each {
                        // Each thread has an address of its own, because an address has only some twenty thousand
                        // ports.
                        let from = [127, 0, 1, thread];
                        match number % 3 {
                            0 => drop(connect(from, address, b"")),
                            1 => {
                                let stream = connect(from, address, UPGRADE.as_bytes());
                                let socket = socket2::SockRef::from(&stream);
                                socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
                            }
                            _ => drop(connect(from, address, &introduction())),
                        }
                    }
                });
            }
        });
        stage.holds(0);
    });
}

/// Floods the server with each kind of message. The client is answered at the end, so the server has handled
/// everything.
fn flood_with(stage: &Stage, kinds: &[Vec<u8>], times: usize) {
    let address = stage.process.address;
    thread::scope(|scope| {
        for kind in kinds {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                client.upgrade();
                client.handshake();
                for _ in 0..times {
                    client.send_bytes(kind);
                }
                client.begin_call("ping", "null");
                // The answers to pings come before.
                while !matches!(client.event(), Received::Text(_)) {}
            });
        }
    });
}

#[test]
fn of_tiny_frames() {
    let kinds = [
        frame(TEXT, b"x"),
        frame(TEXT, b""),
        frame(BINARY, b""),
        [frame(0x01, b""), frame(0x80, b"")].concat(),
        frame(0x8a, b""),
    ]
    .map(|kind| kind.repeat(10_000));
    let times = size(20, 500);
    let of = format!("5 × {} frames", times * 10_000);
    beside_healthy_clients("flood of tiny frames", of, &[], |stage| {
        flood_with(stage, &kinds, times);
    });
}

/// The client reads the answers only at the end; before that they fill the sockets, and the server stops reading.
#[test]
fn of_pings() {
    let pings = frame(PING, &[b'p'; 125]).repeat(100);
    // The answers that wait for this client fit into its outbox, so the outbox does not stop the flood.
    let times = size(100, 1000);
    beside_healthy_clients("flood of pings", format!("{} pings", times * 100), &[], |stage| {
        flood_with(stage, std::slice::from_ref(&pings), times);
    });
}

#[test]
fn of_huge_frames() {
    // A message of the largest size: an array that is not a packet.
    let whole = frame(
        TEXT,
        format!("[{}]", "1,".repeat(524_287).trim_end_matches(',')).as_bytes(),
    );
    let too_large = frame(TEXT, &[b' '; 1_048_577]);
    let times = size(10, 300);
    let of = format!("4 × {times} of 1 MiB");
    beside_healthy_clients("flood of huge frames", of, &[], |stage| {
        let kinds = vec![whole.clone(); 4];
        flood_with(stage, &kinds, times);
        let hits = stage.hits("message_bytes");
        for _ in 0..times {
            let mut stream = connect(LOCALHOST, stage.process.address, &introduction());
            push(&mut stream, &too_large);
        }
        eventually("each is refused", || {
            stage.hits("message_bytes") == hits + times as u64
        });
    });
}

#[test]
fn of_subscribes_to_random_names() {
    let each: usize = size(3_000, 100_000);
    let settings = [("RINGCAST_CHANNELS_PER_CONNECTION_MAX", size("1000", "10000"))];
    let of = format!("4 × {each} subscribes");
    beside_healthy_clients("flood of subscribes to random names", of, &settings, |stage| {
        let hits = stage.hits("channels_per_connection");
        let address = stage.process.address;
        thread::scope(|scope| {
            for seed in 1..=4 {
                scope.spawn(move || {
                    let (mut client, mut random) = (Client::connect(address), Random(seed));
                    client.upgrade();
                    client.handshake();
                    for _ in 0..each / 100 {
                        for _ in 0..100 {
                            let name = format!(r#"{{"channel":"{:016x}"}}"#, random.next());
                            client.begin_call("#subscribe", &name);
                        }
                        for _ in 0..100 {
                            assert!(client.message().starts_with(r#"{"rid":"#));
                        }
                    }
                });
            }
        });
        let kept: u64 = settings[0].1.parse().unwrap();
        let refused = 4 * (each as u64 - kept);
        assert_eq!(stage.hits("channels_per_connection"), hits + refused);
    });
}

/// Subscribers that never read, of the flood's channel and of the healthy clients' channel. A subscriber that reads
/// receives everything.
#[test]
fn of_publishes_to_a_channel_with_stuck_subscribers() {
    let count = size(1_000, 50_000);
    let settings = [
        ("RINGCAST_OUTBOX_BYTES_MAX", "262144"),
        ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
    ];
    let of = format!("{count} of 4 KiB to 8 stuck");
    beside_healthy_clients(
        "flood of publishes to stuck subscribers",
        of,
        &settings,
        |stage| {
            let closes = stage.closes("slow_consumer");
            let address = stage.process.address;
            let client = |mut client: Client| {
                client.upgrade();
                client.handshake();
                client
            };
            let stuck: Vec<Client> = (0..8)
                .map(|_| {
                    let mut stuck = client(Client::connect_narrow(address));
                    stuck.subscribe("stuck");
                    stuck.subscribe(super::healthy::CHANNEL);
                    stuck
                })
                .collect();
            let (mut publisher, mut reader) =
                (client(Client::connect(address)), client(Client::connect(address)));
            reader.subscribe("stuck");
            let filler = "x".repeat(4096);
            for number in 0..count {
                let data = format!(r#"["{number}","{filler}"]"#);
                publisher.publish("stuck", &data);
                // The reading subscriber keeps up.
                assert_eq!(reader.publication("stuck"), data);
            }
            eventually("the stuck are closed", || {
                stage.closes("slow_consumer") == closes + 8
            });
            drop(stuck);
        },
    );
}
