//! How connections end, over TCP: which side closes first, and which messages are still sent. RFC 6455 sections 5.5.1
//! and 7.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::time::Duration;

use ringcast::internals::decision::{CloseReason, Limit};
use support::{BINARY, CLOSE, Client, PING, PONG, Received, Server, TEXT, close_frame, eventually, frame};

#[test]
fn the_peers_close_is_echoed_with_its_reason_and_followed_by_fin() {
    let server = Server::start(|_| {});
    let mut codes = 0;
    for (code, reason) in [(1000, "done"), (1001, ""), (3000, "é"), (4999, "x")] {
        let mut client = server.client();
        client.send_bytes(&close_frame(code, reason));
        assert_eq!(client.next(), Received::Close(Some(code), reason.to_owned()));
        assert_eq!(client.next(), Received::End);
        codes += 1;
    }
    let mut client = server.client();
    client.send_bytes(&frame(CLOSE, b""));
    assert_eq!(client.next(), Received::Close(None, String::new()));
    assert_eq!(client.next(), Received::End);
    assert_eq!(server.closes(CloseReason::PeerClosed), codes + 1);
    drop(client);
    server.settles_at(0, 0);
}

#[test]
fn input_after_the_peers_close_is_ignored() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    let call = frame(TEXT, br#"{"event":"ping","cid":7}"#);
    client.send_bytes(&[close_frame(1000, ""), call, frame(BINARY, b"x")].concat());
    assert_eq!(client.next(), Received::Close(Some(1000), String::new()));
    assert_eq!(client.next(), Received::End);
}

#[test]
fn the_servers_close_waits_for_the_peers_and_ends_with_fin() {
    let server = Server::start(|config| config.limits.close_timeout = support::PATIENCE);
    let mut client = server.connect();
    client.upgrade();
    client.send_text(r#"{"event":"ping","cid":1}"#);
    assert_eq!(client.close_frame().0, Some(4009), "a call before the handshake");
    assert_eq!(server.connections(), 1, "it waits");
    // Messages that the client sends meanwhile are discarded.
    client.send_text(r#"{"event":"ping","cid":2}"#);
    client.send_bytes(&close_frame(4009, ""));
    assert_eq!(client.next(), Received::End);
    drop(client);
    server.settles_at(0, 0);
    assert_eq!(server.limit_hits(Limit::CloseTime), 0);
    assert_eq!(server.closes(CloseReason::HandshakeMissing), 1);
}

#[test]
fn a_close_that_is_never_answered_ends_after_the_close_timeout() {
    let server = Server::start(|config| config.limits.close_timeout = Duration::from_millis(50));
    let mut client = server.connect();
    client.upgrade();
    client.send_text("[]");
    client.send_text(r#"{"event":"ping","cid":1}"#);
    assert_eq!(client.close_frame().0, Some(4009));
    assert_eq!(client.next(), Received::End);
    assert_eq!(server.limit_hits(Limit::CloseTime), 1);
    assert_eq!(server.closes(CloseReason::HandshakeMissing), 1);
    server.settles_at(0, 0);
}

#[test]
fn a_peer_that_has_been_sent_fin_and_never_ends_is_dropped_after_the_close_timeout() {
    let server = Server::start(|config| config.limits.close_timeout = Duration::from_millis(50));
    let mut client = server.client();
    client.send_bytes(&close_frame(1000, ""));
    assert_eq!(client.close_frame().0, Some(1000));
    assert_eq!(client.next(), Received::End);
    eventually("the close timeout", || server.limit_hits(Limit::CloseTime) == 1);
    server.settles_at(0, 0);
}

#[test]
fn a_broken_frame_is_answered_with_its_code_and_fin() {
    let server = Server::start(|config| {
        config.limits.message_bytes_max = 1000;
        config.limits.fragments_max = 3;
    });
    let mut unmasked = frame(TEXT, b"");
    unmasked[1] = 0;
    let announced = [&[BINARY, 0xff][..], &(1_u64 << 62).to_be_bytes()].concat();
    let fragment = |first| frame(first, b"x");
    let too_many = [fragment(0x01), fragment(0), fragment(0), fragment(0)].concat();
    for (what, bytes, code, reason) in [
        ("no mask", unmasked, 1002, CloseReason::ProtocolError),
        (
            "a reserved bit",
            frame(0xc1, b""),
            1002,
            CloseReason::ProtocolError,
        ),
        (
            "a reserved opcode",
            frame(0x83, b""),
            1002,
            CloseReason::ProtocolError,
        ),
        (
            "a fragmented ping",
            frame(0x09, b""),
            1002,
            CloseReason::ProtocolError,
        ),
        (
            "a long ping",
            frame(PING, &[0; 126]),
            1002,
            CloseReason::ProtocolError,
        ),
        (
            "nothing to continue",
            frame(0x80, b""),
            1002,
            CloseReason::ProtocolError,
        ),
        (
            "half a close code",
            frame(CLOSE, b"x"),
            1002,
            CloseReason::ProtocolError,
        ),
        (
            "a close code of nobody",
            close_frame(1005, ""),
            1002,
            CloseReason::ProtocolError,
        ),
        ("no UTF-8", frame(TEXT, b"\xff"), 1007, CloseReason::InvalidUtf8),
        (
            "a byte too many",
            frame(TEXT, &[b'x'; 1001]),
            1009,
            CloseReason::MessageTooBig,
        ),
        ("half of all memory", announced, 1009, CloseReason::MessageTooBig),
        (
            "a fragment too many",
            too_many,
            1008,
            CloseReason::TooManyFragments,
        ),
    ] {
        let mut client = server.client();
        let before = server.closes(reason);
        // Messages after the broken frame are discarded.
        client.send_bytes(&[bytes, frame(TEXT, br#"{"event":"ping","cid":9}"#)].concat());
        assert_eq!(
            client.event(),
            Received::Close(Some(code), String::new()),
            "{what}"
        );
        assert_eq!(client.next(), Received::End, "{what}");
        assert_eq!(server.closes(reason), before + 1, "{what}");
    }
    assert_eq!(server.limit_hits(Limit::MessageBytes), 2);
    assert_eq!(server.limit_hits(Limit::Fragments), 1);
    server.settles_at(0, 0);
}

#[test]
fn a_ping_is_answered_between_the_fragments_of_a_message() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    client.send_bytes(&frame(0x01, br#"{"event":"ping","#));
    client.send_bytes(&frame(PING, b"still there?"));
    assert_eq!(client.event(), Received::Pong(b"still there?".to_vec()));
    client.send_bytes(&frame(PONG, b"nobody asked"));
    client.send_bytes(&frame(0x80, br#""cid":9}"#));
    assert_eq!(client.message(), r#"{"rid":9,"data":{"count":1}}"#);
}

#[test]
fn calls_that_came_before_a_fin_are_answered() {
    let server = Server::start(|_| {});
    let mut client = server.client();
    let call = frame(TEXT, br#"{"event":"ping","cid":2}"#);
    client.send_bytes(&call.repeat(1000));
    client.send_fin();
    for count in 1..=1000 {
        assert_eq!(
            client.message(),
            format!(r#"{{"rid":2,"data":{{"count":{count}}}}}"#)
        );
    }
    assert_eq!(client.next(), Received::End);
    assert_eq!(server.closes(CloseReason::PeerVanished), 1);
    server.settles_at(0, 0);
}

/// One message, an array of calls, whose answers take more than the sockets hold: the error of each answer has a long
/// echo. Returns the message and the number of answers.
fn calls_with_long_answers() -> (Vec<u8>, usize) {
    let channel = "c".repeat(20_000);
    let calls: Vec<String> = (0..40)
        .map(|cid| format!(r##"{{"event":"#unsubscribe","data":"{channel}","cid":{cid}}}"##))
        .collect();
    (
        frame(TEXT, format!("[{}]", calls.join(",")).as_bytes()),
        calls.len(),
    )
}

#[test]
fn answers_in_the_outbox_are_sent_after_the_clients_fin() {
    let server = Server::start(|config| {
        config.limits.outbox_bytes_max = 64 * 1024 * 1024;
        config.limits.close_timeout = support::PATIENCE;
    });
    let (message, answers) = calls_with_long_answers();
    let mut client = Client::connect_narrow(server.address);
    client.upgrade();
    client.handshake();
    // Send until the sockets are full.
    let mut sent = 0;
    while server.total(|core| &core.outbox_bytes) == 0 {
        client.send_bytes(&message);
        sent += answers;
        let received = sent as u64 / answers as u64 + 1;
        eventually("the message is taken in", || {
            server.total(|core| &core.messages_received) >= received
                && server.total(|core| &core.messages_sent) >= sent as u64
        });
    }
    client.send_fin();
    eventually("the end is seen", || {
        server.closes(CloseReason::PeerVanished) == 1
    });
    let got = std::iter::from_fn(|| match client.event() {
        Received::End => None,
        received => Some(received),
    })
    .count();
    assert_eq!(got, sent);
    server.settles_at(0, 0);
    assert_eq!(server.limit_hits(Limit::CloseTime), 0);
}

#[test]
fn a_fin_of_a_client_that_does_not_read_its_full_outbox_ends_after_the_close_timeout() {
    let server = Server::start(|config| {
        config.limits.outbox_bytes_max = 64 * 1024 * 1024;
        config.limits.close_timeout = Duration::from_millis(50);
    });
    let (message, _) = calls_with_long_answers();
    let mut client = Client::connect_narrow(server.address);
    client.upgrade();
    client.handshake();
    for _ in 0..10 {
        client.send_bytes(&message);
    }
    client.send_fin();
    eventually("the close timeout", || server.limit_hits(Limit::CloseTime) == 1);
    server.settles_at(0, 0);
    assert_eq!(server.closes(CloseReason::PeerVanished), 1);
}
