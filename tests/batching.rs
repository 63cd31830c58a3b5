//! `batch_on_handshake`: for a while after the handshake, the messages of an interval leave as one array.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::time::Duration;

use ringcast::config::{Codec, Config};
use ringcast::internals::protocols::MinBin;
use support::mqtt::{MqttServer, Over};
use support::{Client, Received, Server, frame};

/// Messages are collected for so long that every test ends before.
fn collects(config: &mut Config) {
    config.socketcluster.batch_on_handshake = true;
    config.socketcluster.batch_duration = Duration::from_secs(60);
    config.socketcluster.batch_interval = Duration::from_millis(200);
}

/// A client whose handshake is answered.
fn opened(server: &Server) -> Client {
    let mut client = server.connect();
    client.upgrade();
    client.send_text(r##"{"event":"#handshake","data":{},"cid":1}"##);
    next(&mut client);
    client
}

/// The next message that is no ping.
fn next(client: &mut Client) -> String {
    match client.event() {
        Received::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_and_publications_of_one_interval_leave_in_order_as_one_array() {
    let server = Server::start(collects);
    let mut client = server.connect();
    client.upgrade();
    client.send_text(r##"{"event":"#handshake","data":{},"cid":1}"##);
    // The answer to the handshake itself is no array: no client would take it.
    assert!(next(&mut client).starts_with(r#"{"rid":1,"#));
    let calls = [
        r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##,
        r##"{"event":"#publish","data":{"channel":"a","data":1}}"##,
        r##"{"event":"#publish","data":{"channel":"a","data":2},"cid":3}"##,
        r#"{"event":"ping","data":4,"cid":4}"#,
    ];
    let frames: Vec<u8> = calls
        .iter()
        .flat_map(|call| frame(0x81, call.as_bytes()))
        .collect();
    client.send_bytes(&frames);
    let ping = format!(r#"{{"rid":4,"data":{}}}"#, pong(&server));
    assert_eq!(
        next(&mut client),
        format!(
            r##"[{{"rid":2}},{{"event":"#publish","data":{{"channel":"a","data":1}}}},{{"event":"#publish","data":{{"channel":"a","data":2}}}},{{"rid":3}},{ping}]"##
        )
    );
    // One packet alone is an array as well.
    client.send_text(r##"{"event":"#unsubscribe","data":"a","cid":5}"##);
    assert_eq!(next(&mut client), r#"[{"rid":5}]"#);
}

/// The answer to `ping` with this data, on a connection of its own.
fn pong(server: &Server) -> String {
    let mut other = opened(server);
    other.send_text(r#"{"event":"ping","data":4,"cid":2}"#);
    let array = next(&mut other);
    let answer: serde_json::Value = serde_json::from_str(&array).unwrap();
    answer[0]["data"].to_string()
}

#[test]
fn after_its_time_a_connection_gets_single_packets() {
    let server = Server::start(|config| {
        collects(config);
        config.socketcluster.batch_duration = Duration::from_millis(1);
        config.socketcluster.batch_interval = Duration::from_millis(1);
    });
    let mut client = server.client();
    support::eventually("an answer that is no array", || {
        client.send_text(r##"{"event":"#unsubscribe","data":"a","cid":9}"##);
        next(&mut client).starts_with('{')
    });
}

#[test]
fn what_a_connection_has_collected_leaves_before_its_close_frame() {
    let server = Server::start(|config| {
        collects(config);
        config.socketcluster.batch_interval = Duration::from_secs(60);
    });
    let mut client = opened(&server);
    client.send_text(r#"{"event":"ping","data":1,"cid":2}"#);
    client.send_text(r#"{"event":"ping","data":1,"cid":3}"#);
    client.send_bytes(&support::close_frame(1000, ""));
    let array: serde_json::Value = serde_json::from_str(&next(&mut client)).unwrap();
    assert_eq!((&array[0]["rid"], &array[1]["rid"]), (&2.into(), &3.into()));
    assert_eq!(client.close_frame().0, Some(1000));
}

#[test]
fn a_server_that_stops_sends_collected_messages() {
    let server = Server::start(|config| {
        collects(config);
        config.socketcluster.batch_interval = Duration::from_secs(60);
    });
    let mut client = opened(&server);
    client.send_text(r#"{"event":"ping","data":1,"cid":2}"#);
    support::eventually("the call has been received", || {
        server.total(|metrics| &metrics.messages_received) == 2
    });
    server.running().drain();
    assert!(next(&mut client).starts_with(r#"[{"rid":2,"#));
}

#[test]
fn a_long_publication_leaves_by_itself_and_in_its_place() {
    let server = Server::start(collects);
    let mut client = server.client();
    client.send_text(r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##);
    assert_eq!(next(&mut client), r#"[{"rid":2}]"#);
    let long = "x".repeat(100_000);
    for data in [format!("\"{long}\""), "1".to_owned()] {
        client.send_text(&format!(
            r##"{{"event":"#publish","data":{{"channel":"a","data":{data}}}}}"##
        ));
    }
    let mut received = String::new();
    support::eventually("both publications", || {
        received.push_str(&next(&mut client));
        received.contains(r#""data":1}"#)
    });
    assert!(received.find(&long) < received.find(r#""data":1}"#), "in order");
}

#[test]
fn packets_in_the_codec_min_bin_are_joined_as_well() {
    let server = Server::start(|config| {
        collects(config);
        config.socketcluster.codec = Codec::MinBin;
    });
    let mut codec = MinBin::default();
    let mut packed = |text: &str| {
        let mut message = Vec::new();
        codec.encode(text, &mut message);
        frame(0x82, &message)
    };
    let mut client = server.connect();
    client.upgrade();
    client.send_bytes(&packed(r##"{"event":"#handshake","data":{},"cid":1}"##));
    assert!(matches!(client.event(), Received::Binary(_)));
    let calls = [2, 3].map(|cid| {
        packed(&format!(
            r##"{{"event":"#subscribe","data":{{"channel":"b{cid}"}},"cid":{cid}}}"##
        ))
    });
    client.send_bytes(&calls.concat());
    let Received::Binary(message) = client.event() else {
        panic!("a text");
    };
    // As in the recording of the reference.
    assert_eq!(message, b"\x92\x81\xa1r\x93\x02\xc0\xc0\x81\xa1r\x93\x03\xc0\xc0");
}

#[test]
fn packets_of_mqtt_leave_at_once() {
    let server = MqttServer::start(|config| {
        collects(config);
        config.socketcluster.batch_interval = Duration::from_secs(60);
    });
    for over in [Over::Tcp, Over::WebSocket] {
        // Each of these waits for an answer.
        let mut client = server.connect_over(over, 5, &format!("{over:?}"));
        client.subscribe("a", 1);
        client.ping();
    }
}
