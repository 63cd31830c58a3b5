//! Slowloris: clients that are as slow as possible, in each phase of a connection. The limit of the phase ends each of
//! them.

use std::io::Write;

use super::harness::{
    LOCALHOST, Stage, beside_healthy_clients, connect, drip, has_ended, introduction, size,
};
use super::support::secure::{Authority, Files};
use super::support::{TEXT, UPGRADE, eventually, frame};

/// Settings that make the limits short enough for a test, and still long enough for healthy clients.
fn patience() -> Vec<(&'static str, &'static str)> {
    vec![
        ("RINGCAST_REQUEST_TIMEOUT_MS", size("700", "5000")),
        ("RINGCAST_HANDSHAKE_TIMEOUT_MS", size("700", "5000")),
        ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ("RINGCAST_PING_INTERVAL_MS", "500"),
        ("RINGCAST_PING_TIMEOUT_MS", size("2000", "5000")),
    ]
}

fn count() -> usize {
    size(100, 2000)
}

/// Connects `count` clients from this address, which send `start` at once and then `next` forever; the limit ends each.
fn each_is_ended(stage: &mut Stage, from: [u8; 4], start: &[u8], next: u8, limit: &str) {
    let hits = stage.hits(limit);
    let address = stage.process.address;
    let streams: Vec<_> = (0..count()).map(|_| connect(from, address, start)).collect();
    drip(streams, next);
    eventually("the limit has ended each of them", || {
        stage.hits(limit) == hits + count() as u64
    });
}

#[test]
fn slow_tls_handshakes() {
    let files = Files::new();
    let (certificate, key) = files.write_pair("server", &Authority::new("test").server(&["localhost"]));
    let mut settings = patience();
    settings.extend([
        ("RINGCAST_LISTEN_TLS", "shared"),
        ("RINGCAST_TLS_CERTIFICATE_FILES", certificate.to_str().unwrap()),
        ("RINGCAST_TLS_KEY_FILES", key.to_str().unwrap()),
    ]);
    // The head of a record of 512 bytes, and of a ClientHello in it.
    let start = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    beside_healthy_clients("slowloris: TLS handshake", count(), &settings, |stage| {
        each_is_ended(stage, LOCALHOST, start, 0, "request_time");
    });
}

#[test]
fn slow_proxies() {
    let mut settings = patience();
    settings.extend([
        ("RINGCAST_TRUSTED_PROXIES", "127.0.0.2"),
        ("RINGCAST_PROXY_PROTOCOL", "on"),
    ]);
    // Version 2, with 2,048 bytes after the addresses.
    let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x08\0\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x01";
    beside_healthy_clients("slowloris: PROXY preface", count(), &settings, |stage| {
        each_is_ended(stage, [127, 0, 0, 2], start, 0, "request_time");
    });
}

#[test]
fn slow_request_heads() {
    let start = UPGRADE.strip_suffix("\r\n").unwrap().as_bytes();
    beside_healthy_clients("slowloris: HTTP head", count(), &patience(), |stage| {
        each_is_ended(stage, LOCALHOST, start, b'x', "request_time");
    });
}

#[test]
fn upgraded_and_then_no_handshake() {
    // A frame whose header arrives byte by byte: the zeros are a length of eight bytes and a mask, then a payload.
    let start = [UPGRADE.as_bytes(), b"\x81\xfe\x01\x00"].concat();
    beside_healthy_clients("slowloris: no #handshake", count(), &patience(), |stage| {
        each_is_ended(stage, LOCALHOST, &start, 0, "handshake_time");
    });
}

#[test]
fn half_a_frame() {
    let whole = frame(TEXT, &[b' '; 100_000]);
    let start = [&introduction(), &whole[..50_000]].concat();
    beside_healthy_clients("slowloris: half a frame", count(), &patience(), |stage| {
        each_is_ended(stage, LOCALHOST, &start, b' ', "pong_time");
    });
}

#[test]
fn half_a_message() {
    // Fragments, the last of which never ends.
    let fragment = frame(0x00, &[b' '; 10_000]);
    let mut start = [introduction(), frame(0x01, b" ")].concat();
    for _ in 0..5 {
        start.extend_from_slice(&fragment);
    }
    start.extend_from_slice(&fragment[..5_000]);
    beside_healthy_clients("slowloris: half a message", count(), &patience(), |stage| {
        each_is_ended(stage, LOCALHOST, &start, b' ', "pong_time");
    });
}

#[test]
fn slow_logins() {
    let files = Files::new();
    let users = files.write("users", &format!("ann:$7$1$AAAA${}==\n", "A".repeat(86)));
    let mut settings = patience();
    settings.push(("RINGCAST_PASSWORD_FILE", users.to_str().unwrap()));
    let start = "POST /login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
        Content-Length: 4000\r\n\r\n{\"user\":\"ann\",\"password\":\"";
    beside_healthy_clients("slowloris: login body", count(), &settings, |stage| {
        each_is_ended(stage, LOCALHOST, start.as_bytes(), b'x', "request_time");
    });
}

/// Twice as many connections as the control plane has places; half of them send something. A new operator is served at
/// once, before the silent connections time out.
#[test]
fn silence_on_the_operators_port() {
    beside_healthy_clients("slowloris: admin port", 128, &[], |stage| {
        let mut silent: Vec<_> = (0..128)
            .map(|number| {
                let start: &[u8] = if number % 2 == 0 { b"" } else { b"GET /metrics HT" };
                let mut stream = connect(LOCALHOST, stage.process.admin, b"");
                // The server may have closed earlier ones to make room.
                let _ = stream.write(start);
                stream.set_nonblocking(true).unwrap();
                stream
            })
            .collect();
        let mut operator = stage.process.admin();
        assert_eq!(operator.get("/readyz").0, 200);
        eventually("the oldest give way", || has_ended(&mut silent[0]));
        // The connection of the operator, which has sent a request before, was not closed.
        assert_eq!(stage.admin.get("/healthz").0, 200);
    });
}
