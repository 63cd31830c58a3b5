//! The codec `min-bin`: against frames of the reference's own codec, and through a server.
//!
//! `data/min-bin.txt` has frames that `sc-codec-min-bin` 3.0.0 wrote, or that were recorded between a client and a
//! server with this codec: the bytes in hex, and the JSON text of the packet.

#![allow(clippy::unwrap_used)] // a test

mod support;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::{collection, prop_oneof};
use ringcast::config::Codec;
use ringcast::internals::protocols::MinBin;
use serde_json::Value;
use support::{Client, Received, Server, frame};

fn frames() -> Vec<(Vec<u8>, &'static str)> {
    include_str!("data/min-bin.txt")
        .lines()
        .map(|line| {
            let (hex, text) = line.split_once(' ').unwrap();
            (unhex(hex), text)
        })
        .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn encoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    MinBin::default().encode(text, &mut out);
    out
}

fn decoded(message: &[u8]) -> Option<Value> {
    let mut codec = MinBin::default();
    let text = codec.decode(message)?;
    Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// A packet as the reference has it after its codec: an absent value and null are one to it.
fn without_nulls(packet: &Value) -> Value {
    match packet {
        Value::Array(packets) => packets.iter().map(without_nulls).collect(),
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| match (name.as_str(), value) {
                ("data", Value::Object(_)) if packet["event"] == "#publish" => {
                    (name.clone(), without_nulls(value))
                }
                _ => (name.clone(), value.clone()),
            })
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn packets_are_written_as_the_codec_of_the_reference_writes_them() {
    let frames = frames();
    assert!(frames.len() > 300, "{} frames", frames.len());
    for (bytes, text) in frames {
        assert_eq!(encoded(text), bytes, "{text}");
        // The server may write blanks, as for a position, and so may an application.
        let spaced = text.replace(r#"{"event":"#, "{ \"event\" : ");
        assert_eq!(encoded(&spaced), bytes, "{spaced}");
    }
}

#[test]
fn packets_are_read_as_the_codec_of_the_reference_reads_them() {
    for (bytes, text) in frames() {
        let expected: Value = serde_json::from_str(text).unwrap();
        let read = decoded(&bytes).unwrap_or_else(|| panic!("{text} cannot be read"));
        assert_eq!(
            without_nulls(&numbers(read)),
            without_nulls(&numbers(expected)),
            "{text}"
        );
    }
}

/// With all numbers as doubles, as JavaScript has them.
fn numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap()),
        Value::Array(values) => values.into_iter().map(numbers).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, numbers(value)))
            .collect(),
        other => other,
    }
}

#[test]
fn a_message_that_ends_too_early_is_not_read() {
    for (bytes, text) in frames() {
        for length in 0..bytes.len().min(300) {
            assert_eq!(decoded(&bytes[..length]), None, "{length} bytes of {text}");
        }
    }
}

#[test]
fn other_forms_of_messagepack_are_read_and_values_without_a_json_form_are_not() {
    for (hex, text) in [
        // The long form, a call id that is a double, and integers of eight bytes.
        (
            "83a56576656e74a46563686fa46461746107a363696402",
            r#"{"event":"echo","data":7,"cid":2}"#,
        ),
        (
            "81a16593a46563686f01cb4000000000000000",
            r#"{"event":"echo","data":1,"cid":2}"#,
        ),
        ("81a172d300000000000000ff", ""),
        (
            "81a17293cf0000000000000005c0d3ffffffffffffffff",
            r#"{"rid":5,"error":null,"data":-1}"#,
        ),
        // A float of four bytes; one that is not finite; more values than the array has places for.
        ("81a16592a165ca3f800000", r#"{"event":"e","data":1}"#),
        ("81a16592a165cb7ff8000000000000", r#"{"event":"e","data":null}"#),
        ("81a16595a165010202ff", r#"{"event":"e","data":1,"cid":2}"#),
        // No data; names that are no text; a letter that is null.
        ("81a16591a165", r#"{"event":"e"}"#),
        (
            "81a16592a165840102c003c304c205",
            r#"{"event":"e","data":{"1":2,"null":3,"true":4,"false":5}}"#,
        ),
        ("82a165c0a17291 03", r#"{"rid":3}"#),
        // Extension types; the byte that is never used; a letter that is no array; bytes as a name; text that is none.
        ("81a16592a165d40001", ""),
        ("81a16592a165c1", ""),
        ("81a165a165", ""),
        ("81a16592a16581c4010001", ""),
        ("81a16592a165a1ff", ""),
        // The beginnings of a half of a surrogate pair, and a whole one.
        ("81a16592a165a1ed", ""),
        ("81a16592a165a2eda0", ""),
        ("81a16592a165a3eda080", ""),
        ("a2eda0", ""),
        ("81a2edbf01", ""),
        ("", ""),
    ] {
        let expected = (!text.is_empty()).then(|| serde_json::from_str(text).unwrap());
        assert_eq!(decoded(&unhex(&hex.replace(' ', ""))), expected, "{hex}");
    }
}

#[test]
fn a_message_of_one_string_is_that_string() {
    assert_eq!(MinBin::default().decode(b"\xa2#2"), Some("#2"));
}

#[test]
fn deep_and_wide_messages_are_read_and_written_in_linear_time_and_memory() {
    // The scanner refuses JSON that is nested too deeply, so such a packet becomes a text.
    let deep = [&b"\x81\xa1e\x92\xa1e"[..], &[0x91; 200_000], &[0x01]].concat();
    let mut codec = MinBin::default();
    let text = codec.decode(&deep).unwrap().to_owned();
    assert_eq!(text.len(), r#"{"event":"e","data":1}"#.len() + 2 * 200_000);
    assert_eq!(encoded(&text)[0], 0xdb);
    // A declared length reserves nothing.
    for first in [0xc6, 0xdb, 0xdd, 0xdf] {
        assert_eq!(codec.decode(&[first, 0xff, 0xff, 0xff, 0xff, 0x01]), None);
    }
    let wide = format!(r#"{{"event":"e","data":[{}1]}}"#, "[],".repeat(100_000));
    assert_eq!(decoded(&encoded(&wide)), serde_json::from_str(&wide).unwrap());
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(|number| Value::from(f64::from(number) * 1024.0)),
        any::<i16>().prop_map(|number| Value::from(f64::from(number))),
        // Numbers that serde_json reads exactly.
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        "\\PC{0,40}".prop_map(Value::from),
        Just(serde_json::json!({"base64": true, "data": "AAEC"})),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            collection::btree_map("\\PC{0,5}", inner, 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(data in json()) {
        let packet = serde_json::json!({"event": "e", "data": data, "cid": 1});
        prop_assert_eq!(numbers(decoded(&encoded(&packet.to_string())).unwrap()), numbers(packet));
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_make_at_most_six_times_as_many(
        bytes in collection::vec(any::<u8>(), 0..200),
    ) {
        let mut codec = MinBin::default();
        if let Some(text) = codec.decode(&bytes) {
            prop_assert!(text.len() <= 6 * bytes.len() + 60, "{} bytes: {text}", bytes.len());
        }
    }
}

/// The next binary message, as JSON.
fn packet(client: &mut Client) -> Value {
    loop {
        match client.event() {
            Received::Binary(bytes) => return decoded(&bytes).unwrap(),
            Received::Text(text) => assert!(text.is_empty() || text == "#1", "a text: {text}"),
            other => panic!("{other:?}"),
        }
    }
}

fn send(client: &mut Client, text: &str) {
    client.send_bytes(&frame(0x82, &encoded(text)));
}

fn upgraded(server: &Server) -> Client {
    let mut client = server.connect();
    client.upgrade();
    client
}

fn min_bin_client(server: &Server) -> Client {
    let mut client = upgraded(server);
    send(&mut client, r##"{"event":"#handshake","data":{},"cid":1}"##);
    let answer = packet(&mut client);
    assert_eq!(
        (&answer["rid"], &answer["data"]["isAuthenticated"]),
        (&1.into(), &false.into())
    );
    client
}

#[test]
fn a_server_with_this_codec_speaks_it_with_all_clients() {
    let server = Server::start(|config| config.socketcluster.codec = Codec::MinBin);
    let mut clients = [
        min_bin_client(&server),
        min_bin_client(&server),
        min_bin_client(&server),
    ];
    for client in &mut clients {
        send(
            client,
            r##"{"event":"#subscribe","data":{"channel":"c"},"cid":2}"##,
        );
        assert_eq!(
            packet(client),
            serde_json::json!({"rid": 2, "error": null, "data": null})
        );
    }
    let data = r#"{"n":[1,-200,1.5,null],"b":{"base64":true,"data":"AAEC/w=="}}"#;
    send(
        &mut clients[0],
        &format!(r##"{{"event":"#publish","data":{{"channel":"c","data":{data}}},"cid":3}}"##),
    );
    let expected: Value = serde_json::from_str(&format!(
        r##"{{"event":"#publish","data":{{"channel":"c","data":{data}}}}}"##
    ))
    .unwrap();
    for client in &mut clients {
        assert_eq!(numbers(packet(client)), numbers(expected.clone()));
    }
    assert_eq!(packet(&mut clients[0])["rid"], 3);
    // Several packets in one message, and an answer with data.
    send(
        &mut clients[0],
        r#"[{"event":"ping","data":[1],"cid":4},{"event":"ping","data":2,"cid":5}]"#,
    );
    for rid in [4, 5] {
        assert_eq!(packet(&mut clients[0])["rid"], rid);
    }
}

#[test]
fn a_message_that_cannot_be_read_is_ignored_and_before_the_handshake_ends_the_connection() {
    let server = Server::start(|config| config.socketcluster.codec = Codec::MinBin);
    for message in [
        frame(0x81, br##"{"event":"#handshake","data":{},"cid":1}"##),
        frame(0x82, b"\x81\xa1e\x92\xa4"),
    ] {
        let mut client = upgraded(&server);
        client.send_bytes(&message);
        assert_eq!(client.close_frame().0, Some(4009));
    }
    let mut client = min_bin_client(&server);
    for message in [
        frame(0x81, br#"{"event":"ping","data":1,"cid":2}"#),
        frame(0x82, b"\x81\xa1e\x92\xa4"),
        frame(0x82, b"\xc0"),
        frame(0x82, b"\x05"),
    ] {
        client.send_bytes(&message);
    }
    send(&mut client, r#"{"event":"ping","data":1,"cid":3}"#);
    assert_eq!(packet(&mut client)["rid"], 3);
}

#[test]
fn publications_with_a_position_keep_it() {
    let server = Server::start(|config| {
        config.socketcluster.codec = Codec::MinBin;
        config.channels.push(ringcast::config::channels::ChannelSpec {
            names: vec!["kept".to_owned()],
            policy: ringcast::config::channels::ChannelPolicy {
                position: true,
                ..Default::default()
            },
            ..Default::default()
        });
    });
    let mut client = min_bin_client(&server);
    send(
        &mut client,
        r##"{"event":"#subscribe","data":{"channel":"kept"},"cid":2}"##,
    );
    assert_eq!(packet(&mut client)["rid"], 2);
    send(
        &mut client,
        r##"{"event":"#publish","data":{"channel":"kept","data":1}}"##,
    );
    let publication = packet(&mut client);
    assert_eq!(
        (&publication["event"], &publication["data"]["data"]),
        (&"#publish".into(), &1.into())
    );
    assert!(
        publication["data"]["position"]["offset"].is_number(),
        "{publication}"
    );
}
