//! Calls of the client, and the orders of the application during them.

use super::*;

#[test]
fn malformed_input_is_ignored_after_the_handshake() {
    let mut client = Client::open(Probe::default());
    for text in [
        "{\"event\":",
        "hello",
        "null",
        "true",
        "5",
        "\"str\"",
        "NaN",
        "{}",
        r#"{"data":1,"cid":9}"#,
        "#1",
        "#2",
        r#"{"event":5,"cid":2}"#,
        r#"{"event":{},"cid":3}"#,
        r#"{"event":null,"cid":4}"#,
        r#"{"rid":99,"data":1}"#,
        r#"{"rid":"x"}"#,
        r#"{"rid":1,"error":{"message":"x"}}"#,
        "",
        "[[[]]]",
    ] {
        assert_eq!(client.text(text), NOTHING, "{text}");
    }
    assert_eq!(client.binary(b""), NOTHING);
    assert_eq!(client.binary(&[0, 1, 2, 0xff, 0xfe]), NOTHING);
    assert_eq!(
        client.text(r#"[[{"event":"empty","cid":2}],{"event":"empty","cid":3},null,5,"x"]"#),
        [r#"{"rid":3}"#]
    );
}

#[test]
fn binary_messages_are_read_as_text() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.binary(br#"{"event":"echo","data":"bin","cid":2}"#),
        [r#"{"rid":2,"data":"bin"}"#]
    );
    assert_eq!(
        client.binary(b"{\"event\":\"echo\",\"data\":\"\xff\xc3\",\"cid\":2}"),
        ["{\"rid\":2,\"data\":\"\u{fffd}\u{fffd}\"}"]
    );
}

#[test]
fn text_that_is_nested_too_deeply_is_raw_and_counted() {
    let mut client = Client::open(Probe::default());
    assert_eq!(client.text(&"[".repeat(100_000)), NOTHING);
    assert_eq!(
        (
            client.scratch.take_hits().of(Limit::JsonDepth),
            client.scratch.take_hits().of(Limit::JsonDepth)
        ),
        (1, 0)
    );
}

#[test]
fn data_of_the_deepest_accepted_nesting_passes_all_its_readers() {
    let mut client = Client::open(Probe::default());
    let deep = format!("{}1{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    for data in [
        format!(r#"{{"a":{deep}}}"#),
        format!(r#"{{"a":{deep},"b":-0.5}}"#),
    ] {
        let answer = client.text(&format!(r#"{{"event":"echo","data":{data},"cid":2}}"#));
        assert_eq!(answer, [format!(r#"{{"rid":2,"data":{data}}}"#)]);
    }
    // A buffer with one octet, which is not a number.
    assert_eq!(
        client.text(&format!(
            r#"{{"event":"echo","data":{{"type":"Buffer","data":{deep}}},"cid":2}}"#
        )),
        [r#"{"rid":2,"data":{"base64":true,"data":"AA=="}}"#]
    );
    assert_eq!(
        client.text(&format!(r#"{{"event":"sum","data":{deep},"cid":2}}"#)),
        [r#"{"rid":2,"error":{"message":"numbers wanted"}}"#]
    );
}

#[test]
fn call_ids_are_echoed_as_javascript_prints_them() {
    let mut client = Client::open(Probe::default());
    for (cid, rid) in [
        ("0", "0"),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("9007199254740993", "9007199254740992"),
        ("1e400", "null"),
        ("1e21", "1e+21"),
        ("1e-7", "1e-7"),
        ("-0", "0"),
        ("100000000000000000000", "100000000000000000000"),
    ] {
        let answer = client.text(&format!(r#"{{"event":"echo","data":1,"cid":{cid}}}"#));
        assert_eq!(answer, [format!(r#"{{"rid":{rid},"data":1}}"#)]);
    }
    for cid in ["\"5\"", "null", "true"] {
        assert_eq!(
            client.text(&format!(r#"{{"event":"echo","data":1,"cid":{cid}}}"#)),
            NOTHING
        );
    }
}

#[test]
fn calls_are_answered_by_the_application_or_not_at_all() {
    let mut client = Client::open(Probe::default());
    for (text, answer) in [
        (
            r#"{"event":"echo","data":{"__proto__":{"x":1}},"cid":2}"#,
            r#"{"rid":2,"data":{"__proto__":{"x":1}}}"#,
        ),
        (
            r#"{"event":"echo","data":[-0,1e400],"cid":2}"#,
            r#"{"rid":2,"data":[0,null]}"#,
        ),
        (r#"{"event":"null","cid":2}"#, r#"{"rid":2,"data":null}"#),
        (r#"{"event":"","cid":2}"#, r#"{"rid":2}"#),
        (r#"{"event":"\u0065mpty","cid":2}"#, r#"{"rid":2}"#),
        (
            r#"{"event":"fail","cid":2}"#,
            r#"{"rid":2,"error":"just a string"}"#,
        ),
        (
            r#"{"event":"sum","data":[1,2.5],"cid":2}"#,
            r#"{"rid":2,"data":3.5}"#,
        ),
        (
            r#"{"event":"sum","data":"x","cid":2}"#,
            r#"{"rid":2,"error":{"message":"numbers wanted"}}"#,
        ),
        (
            r#"{"event":"block","cid":2}"#,
            concat!(
                r#"{"rid":2,"error":{"message":"The invoke AGAction was blocked by inbound middleware","#,
                r#""name":"SilentMiddlewareBlockedError","type":"inbound"}}"#
            ),
        ),
    ] {
        assert_eq!(client.text(text), [answer]);
    }
    for event in [
        "nosuch",
        "#nosuch",
        "#ping",
        "#disconnect",
        "#setAuthToken",
        "#kickOut",
        "__proto__",
        "constructor",
        "toString",
    ] {
        assert_eq!(client.text(&format!(r#"{{"event":"{event}","cid":2}}"#)), NOTHING);
    }
}

#[test]
fn an_answer_overtakes_packets_that_were_ordered_before_it() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.text(r#"{"event":"order","cid":2}"#),
        [
            r#"{"rid":2,"data":"reply"}"#,
            r#"{"event":"t1","data":1}"#,
            r##"publish p {"event":"#publish","data":{"channel":"p","data":2}}"##,
            r#"{"event":"t2"}"#,
        ]
    );
}

#[test]
fn a_disconnect_lets_the_answer_and_publications_through_and_nothing_else() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.text(r#"[{"event":"leave","cid":2},{"event":"empty","cid":3}]"#),
        [
            r#"{"rid":2,"data":"bye"}"#,
            r##"publish kept {"event":"#publish","data":{"channel":"kept","data":1}}"##,
            "close 4321",
        ]
    );
}

#[test]
fn kick_outs_name_their_channel_and_reason() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.text(r#"{"event":"kick","cid":2}"#),
        [
            r#"{"rid":2}"#,
            r##"kick a {"event":"#kickOut","data":{"channel":"a","message":"m"}}"##,
            "kick all -",
        ]
    );
    let mut decisions = Decisions::new();
    let reason = Some(decisions.write(|out| out.extend_from_slice(b"\"m\"")));
    for (reason, expected) in [
        (
            reason,
            r##"{"event":"#kickOut","data":{"channel":"c","message":"m"}}"##,
        ),
        (None, r##"{"event":"#kickOut","data":{"channel":"c"}}"##),
    ] {
        let message = client.session.kicked_out(b"c", reason, &mut decisions);
        assert_eq!(decisions.bytes(message), expected.as_bytes());
    }
}
