//! From the first byte to the 101, or to a refusal, over TCP. Tests in `src/http/response.rs` check the bytes
//! of each answer; these check that the answers are sent and that the connection then ends.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::time::Duration;

use ringcast::app::{App, Upgrade, UpgradeRefused};
use ringcast::internals::decision::{CloseReason, Limit};
use support::{Received, Server, TEXT, UPGRADE, frame};

/// Sends a request and reads to the end; returns the status line and the body.
fn refusal(server: &Server, request: &str) -> (String, String) {
    let mut client = server.connect();
    client.send_bytes(request.as_bytes());
    let answer = client.rest();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nConnection: close"), "{head}");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn each_fault_of_a_request_has_its_answer_and_ends_the_connection() {
    let server = Server::start(|config| config.listen.origins = "good.example:*".to_owned());
    let origin = |origin: &str| UPGRADE.replace("\r\n\r\n", &format!("\r\nOrigin: {origin}\r\n\r\n"));
    let good = origin("http://good.example");
    let key = "Missing or invalid Sec-WebSocket-Key header";
    let version = "Missing or invalid Sec-WebSocket-Version header";
    let cases = [
        (
            good.replace("/socketcluster/", "/socketcluster//"),
            "400 Bad Request",
            "Bad Request",
        ),
        (
            good.replace("/socketcluster/", "/"),
            "400 Bad Request",
            "Bad Request",
        ),
        (
            good.replace("GET", "POST"),
            "405 Method Not Allowed",
            "Invalid HTTP method",
        ),
        (
            good.replace("websocket", "h2c"),
            "400 Bad Request",
            "Invalid Upgrade header",
        ),
        (good.replace("ZQ==\r\n", "\r\n"), "400 Bad Request", key),
        (good.replace("Sec-WebSocket-Key", "X-Key"), "400 Bad Request", key),
        (good.replace("13\r\n", "12\r\n"), "400 Bad Request", version),
        (
            good.replace("Sec-WebSocket-Version", "X-Version"),
            "400 Bad Request",
            version,
        ),
        (
            origin("http://evil.example"),
            "403 Forbidden",
            "Failed to authorize socket handshake - Invalid origin: http://evil.example",
        ),
        (
            UPGRADE.to_owned(),
            "403 Forbidden",
            "Failed to authorize socket handshake - Invalid origin: *",
        ),
        (
            "GET /socketcluster/ HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
            "501 Not Implemented",
            "Not Implemented",
        ),
        ("no HTTP at all\r\n\r\n".to_owned(), "400 Bad Request", ""),
    ];
    for (request, status, body) in &cases {
        let answer = refusal(&server, request);
        assert_eq!(
            answer,
            (format!("HTTP/1.1 {status}"), (*body).to_owned()),
            "{request}"
        );
    }
    assert_eq!(server.closes(CloseReason::HttpAnswered), cases.len() as u64);
    assert_eq!(server.total(|core| &core.http_answers), cases.len() as u64);
    server.settles_at(0, 0);
}

struct RefusesUpgrades;

impl App for RefusesUpgrades {
    fn upgrade(&mut self, request: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        match request.query {
            "let=me+in" => Ok(()),
            _ => Err(UpgradeRefused {
                message: "not you".to_owned(),
            }),
        }
    }
}

#[test]
fn the_application_refuses_with_401_and_its_own_message() {
    let server = Server::start_with(|_| {}, |_| RefusesUpgrades);
    let answer = refusal(&server, UPGRADE);
    assert_eq!(
        answer,
        ("HTTP/1.1 401 Unauthorized".to_owned(), "not you".to_owned())
    );
    let mut client = server.connect();
    let request = UPGRADE.replace("/socketcluster/", "/socketcluster/?let=me+in");
    client.send_bytes(request.as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_head_may_be_as_large_as_the_limit_and_no_larger() {
    const BYTES_MAX: usize = 1000;
    let server = Server::start(|config| config.limits.request_head_bytes_max = 1000);
    let request = |bytes: usize| {
        let filler = "x".repeat(bytes - UPGRADE.len() - "X: \r\n".len());
        UPGRADE.replace("\r\n\r\n", &format!("\r\nX: {filler}\r\n\r\n"))
    };
    for bytes in [BYTES_MAX - 1, BYTES_MAX] {
        let mut client = server.connect();
        client.send_bytes(request(bytes).as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "), "{bytes}");
    }
    let too_large = "HTTP/1.1 431 Request Header Fields Too Large";
    assert_eq!(refusal(&server, &request(BYTES_MAX + 1)).0, too_large);
    // An endless head is answered as soon as it is too large, and the bytes after that do no harm.
    let endless = &request(100 * BYTES_MAX)[..99 * BYTES_MAX];
    assert_eq!(refusal(&server, endless).0, too_large);
    assert_eq!(server.limit_hits(Limit::RequestHeadBytes), 2);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    for byte in UPGRADE.as_bytes() {
        client.send_bytes(&[*byte]);
    }
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client.handshake();
    client.ping();
}

#[test]
fn frames_right_behind_the_head_are_answered() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    let handshake = frame(TEXT, br##"{"event":"#handshake","cid":1}"##);
    let ping = frame(TEXT, br#"{"event":"ping","cid":2}"#);
    client.send_bytes(&[UPGRADE.as_bytes(), &handshake, &ping].concat());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    assert!(client.message().starts_with(r#"{"rid":1,"data":{"id":"#));
    assert_eq!(client.message(), r#"{"rid":2,"data":{"count":1}}"#);
}

#[test]
fn a_head_that_does_not_end_in_time_ends_the_connection() {
    let server = Server::start(|config| config.limits.request_timeout = Duration::from_millis(50));
    let (mut silent, mut slow) = (server.connect(), server.connect());
    slow.send_bytes(&UPGRADE.as_bytes()[..40]);
    assert_eq!([silent.next(), slow.next()], [Received::End, Received::End]);
    assert_eq!(server.closes(CloseReason::RequestTimeout), 2);
    assert_eq!(server.limit_hits(Limit::RequestTime), 2);
    server.settles_at(0, 0);
}

#[test]
fn half_a_head_and_a_fin_are_answered_with_400() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send_bytes(&UPGRADE.as_bytes()[..40]);
    client.send_fin();
    assert_eq!(
        client.rest(),
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(server.closes(CloseReason::PeerVanished), 1);
    server.settles_at(0, 0);
}
