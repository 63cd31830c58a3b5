//! Scarce resources: descriptors, memory, and the places that vanished clients occupy.

use std::io::Write;
use std::net::TcpStream;

use super::harness::{
    LOCALHOST, Stage, beside_healthy_clients, connect, has_ended, introduction, on_stage, size,
};
use super::healthy::Window;
use super::support::process::Process;
use super::support::{TEXT, UPGRADE, eventually, frame};

/// Clients that vanish without a FIN: half of them before their first byte, half of them with a session.
#[test]
fn half_open_sockets() {
    let count = size(200, 5_000);
    let settings = [
        ("RINGCAST_REQUEST_TIMEOUT_MS", size("1500", "10000")),
        ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ("RINGCAST_PING_INTERVAL_MS", "500"),
        ("RINGCAST_PING_TIMEOUT_MS", size("2000", "10000")),
    ];
    beside_healthy_clients("half-open sockets", count, &settings, |stage| {
        let (silent, vanished) = (stage.hits("request_time"), stage.hits("pong_time"));
        let starts = [Vec::new(), introduction()];
        let mut streams: Vec<TcpStream> = (0..count)
            .map(|number| connect(LOCALHOST, stage.process.address, &starts[number % 2]))
            .collect();
        for stream in &streams {
            stream.set_nonblocking(true).unwrap();
        }
        let half = count as u64 / 2;
        eventually("each is found", || {
            stage.hits("request_time") == silent + half && stage.hits("pong_time") == vanished + half
        });
        eventually("each is ended", || {
            streams.retain_mut(|stream| !has_ended(stream));
            streams.is_empty()
        });
    });
}

/// More connections than the tables of the cores hold. The others wait, which costs almost nothing, and are served when
/// connections end.
#[test]
fn descriptors() {
    let (limit, count) = size((100, 200), (1000, 3000));
    let process = Process::start_with_descriptors(limit, &[]);
    on_stage(
        process,
        "descriptors exhausted",
        format!("{count} on 2 × {limit}"),
        |stage| {
            let hits = stage.hits("connections_per_core");
            let start = introduction();
            let mut streams: Vec<TcpStream> = (0..count)
                .map(|_| connect(LOCALHOST, stage.process.address, &start))
                .collect();
            eventually("the tables are full", || {
                stage.hits("connections_per_core") > hits
            });
            is_no_busy_loop(stage);
            for stream in &streams {
                stream.set_nonblocking(true).unwrap();
            }
            // Each client that has been served leaves, and another is served.
            eventually("each is served", || {
                streams.retain(|stream| stream.peek(&mut [0]).is_err());
                streams.is_empty()
            });
        },
    );
}

/// While cores wait for free descriptors, they turn only for the healthy clients and to check again.
fn is_no_busy_loop(stage: &mut Stage) {
    let counts = |stage: &mut Stage| {
        [
            "ringcast_turns_total",
            "ringcast_messages_received_total",
            "ringcast_wakes_total",
            "ringcast_limit_hits_total{limit=\"connections_per_core\"}",
        ]
        .map(|name| stage.admin.metric(name))
    };
    let before = counts(stage);
    stage.crew.works(Window::Beside, size(200, 2000));
    let after = counts(stage);
    let [turns, messages, wakes, looks] = std::array::from_fn(|index| after[index] - before[index]);
    assert!(
        turns <= 2 * (messages + wakes) + 10 * looks + 100,
        "{turns} turns for {messages} messages, {wakes} wakes and {looks} looks"
    );
}

/// Incomplete messages fill the allowed memory. The server refuses new connections until these messages are gone.
#[test]
fn memory() {
    let count = size(150, 1_000);
    // Between the memory that the server needs without these messages and the memory that it takes with them.
    let bytes = size("100000000", "512000000");
    let settings = [("RINGCAST_MEMORY_BYTES_MAX", bytes)];
    let whole = frame(TEXT, &[b' '; 1_000_000]);
    let half = &whole[..900_000];
    beside_healthy_clients(
        "memory budget",
        format!("{count} × 0.9 MB, {bytes} allowed"),
        &settings,
        |stage| {
            let hits = stage.hits("memory_bytes");
            let address = stage.process.address;
            let mut streams: Vec<TcpStream> = Vec::new();
            for _ in 0..count {
                let mut stream = connect(LOCALHOST, address, b"");
                // The server may already refuse the last of them.
                let _ = stream.write_all(&[&introduction(), half].concat());
                streams.push(stream);
            }
            eventually("newcomers are refused", || {
                drop(connect(LOCALHOST, address, UPGRADE.as_bytes()));
                stage.hits("memory_bytes") > hits
            });
            drop(streams);
            eventually("newcomers are let in", || {
                let mut client = super::support::Client::connect(address);
                client.send_bytes(UPGRADE.as_bytes());
                client.read_head().starts_with("HTTP/1.1 101 ")
            });
        },
    );
}
