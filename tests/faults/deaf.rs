//! Clients that answer pings and read nothing of the channels that they have subscribed to.

use std::io::Write;
use std::net::TcpStream;

use super::harness::{LOCALHOST, Random, Stage, beside_healthy_clients, connect, introduction, size};
use super::healthy::Window;
use super::support::{Client, PATIENCE, TEXT, frame, now};

const TOTAL_MAX: u64 = 16 << 20;
/// Memory that a server of this size may take for other purposes: the ring, the buffers of turns, and the allocator's
/// share.
const BESIDES: u64 = 64 << 20;

/// An upgrade that offers compression, a handshake and a subscription, sent without waiting for answers.
fn subscribing() -> Vec<u8> {
    let introduction = String::from_utf8_lossy(&introduction()).into_owned();
    let (head, _) = introduction.split_once("\r\n\r\n").unwrap();
    let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let bytes = [head.as_bytes(), offer.as_bytes(), &introduction_frames()].concat();
    let subscribe = frame(
        TEXT,
        br##"{"event":"#subscribe","data":{"channel":"noise"},"cid":2}"##,
    );
    [bytes, subscribe].concat()
}

fn introduction_frames() -> Vec<u8> {
    let whole = introduction();
    let end = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    whole[end..].to_vec()
}

/// JSON text of this length that compression cannot make much shorter.
fn noise(random: &mut Random, bytes: usize) -> String {
    let digits = (0..bytes / 16).map(|_| format!("{:016x}", random.next()));
    format!("\"{}\"", digits.collect::<String>())
}

/// Publishes messages of 16 KB and short ones to all of them, again and again. The server must close each of them,
/// because it has taken nothing for too long, or because it held most or, as one of the last, too much for one. Once,
/// 200 such clients took 2.5 GB.
#[test]
fn subscribers_that_read_nothing() {
    let count = size(50, 200);
    let total_max = TOTAL_MAX.to_string();
    let settings = [
        ("RINGCAST_COMPRESSION", "on"),
        ("RINGCAST_OUTBOX_BYTES_TOTAL_MAX", &*total_max),
        ("RINGCAST_WRITE_TIMEOUT_MS", size("2000", "10000")),
        ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ("RINGCAST_PING_INTERVAL_MS", "500"),
        // No shorter than the test: on a busy machine, the pongs below come late.
        ("RINGCAST_PING_TIMEOUT_MS", "120000"),
    ];
    let mut random = Random(7);
    beside_healthy_clients("subscribers that read nothing", count, &settings, |stage| {
        let ended = |stage: &mut Stage| {
            stage.closes("write_timeout") + stage.closes("holds_most") + stage.closes("slow_consumer")
        };
        let (before, resident) = (ended(stage), stage.resident_bytes());
        let start = subscribing();
        let mut deaf: Vec<TcpStream> = (0..count)
            .map(|_| connect(LOCALHOST, stage.process.address, &start))
            .collect();
        stage.holds(count);
        let mut publisher: Client = stage.process.client();
        let deadline = now() + PATIENCE;
        while ended(stage) < before + count as u64 {
            for bytes in [16_000, 1_000, 16_000, 16_000] {
                publisher.publish("noise", &noise(&mut random, bytes));
                publisher.ping();
            }
            // Publish no faster than both cores deliver.
            stage.crew.works(Window::Beside, 8);
            for stream in &mut deaf {
                // A pong; it fails if the server has closed the connection.
                let _ = stream.write(&frame(TEXT, b""));
            }
            let held = stage.admin.metric("ringcast_held_bytes");
            assert!(held <= TOTAL_MAX + (4 << 20), "{held} bytes are held");
            let now_resident = stage.resident_bytes();
            assert!(
                now_resident <= resident + TOTAL_MAX + BESIDES,
                "{now_resident} bytes in memory, {resident} before"
            );
            assert!(now() < deadline, "they are never ended");
        }
        assert_eq!(stage.closes("pong_timeout"), 0);
    });
}
