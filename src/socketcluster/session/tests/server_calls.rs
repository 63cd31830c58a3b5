//! Calls of the server to the client.

use super::*;

#[test]
fn a_call_of_the_server_is_answered_once_by_its_number() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.text(r#"{"event":"call","cid":9}"#),
        [r#"{"rid":9,"data":1}"#, r#"{"event":"q","cid":1,"data":[1]}"#]
    );
    for ignored in [
        r#"{"rid":2,"data":"no such call"}"#,
        r#"{"rid":0}"#,
        r#"{"rid":1.5}"#,
        r#"{"rid":-1}"#,
        r#"{"rid":1e400}"#,
        r#"{"rid":"1","data":"text"}"#,
        r#"{"rid":null}"#,
    ] {
        assert_eq!(client.text(ignored), NOTHING, "{ignored}");
        assert!(client.app.answered.is_empty(), "{ignored}");
    }
    assert_eq!(
        client.text(r#"{"rid":1.0,"data":{"a":-0}}"#),
        [r#"{"event":"thanks"}"#]
    );
    assert_eq!(client.text(r#"{"rid":1,"data":"again"}"#), NOTHING);
    assert_eq!(client.app.answered, [r#"1 {"a":0}"#]);
}

#[test]
fn answers_come_in_any_order_and_errors_are_told_as_they_came() {
    let mut client = Client::open(Probe::default());
    for _ in 0..4 {
        client.text(r#"{"event":"call","cid":1}"#);
    }
    client.text(r#"{"rid":3,"error":{"name":"N","message":"m"}}"#);
    client.text(r#"[{"rid":1},{"rid":2,"error":null,"data":null}]"#);
    client.text(r#"{"rid":4,"error":"just a string","data":1}"#);
    assert_eq!(
        client.app.answered,
        [
            r#"3 {"message":"m","name":"N"}"#,
            "1 -",
            "2 null",
            r#"4 "just a string""#
        ]
    );
}

#[test]
fn a_call_fails_at_the_ack_timeout_and_not_before() {
    let settings = SocketClusterSettings {
        ping_interval: None,
        ..SocketClusterSettings::default()
    };
    let mut client = Client::with_settings(Probe::default(), settings);
    client.shake_hands();
    assert_eq!(client.deadline_ms(), u64::MAX);
    client.text("{\"event\":\"call\",\"cid\":1}");
    client.wait_ms(1000).text("{\"event\":\"call\",\"cid\":1}");
    let first = client.now.uptime.as_ms() + 9000;
    assert_eq!(client.deadline_ms(), first);
    client.wait_ms(8999).tick();
    assert!(client.app.answered.is_empty());
    client.wait_ms(1).tick();
    assert_eq!(
        client.app.answered,
        [r#"1 {"message":"Event response for q event timed out","name":"TimeoutError"}"#]
    );
    assert_eq!(client.deadline_ms(), first + 1000);
    assert_eq!(client.scratch.take_hits().of(Limit::AckTime), 1);
    assert_eq!(client.text(r#"{"rid":1,"data":"late"}"#), NOTHING);
    assert_eq!(
        client.text(r#"{"rid":2,"data":"in time"}"#),
        [r#"{"event":"thanks"}"#]
    );
}

#[test]
fn calls_that_wait_fail_with_their_connection_before_the_application_hears_of_its_end() {
    let mut client = Client::open(Probe::default());
    client.text(r#"{"event":"call","cid":1}"#);
    assert_eq!(client.text(r#"{"event":"callAndLeave","cid":2}"#), ["close 4321"]);
    end(&mut client);
    end(&mut client);
    let failed = |call| {
        format!(
            "{call} {{\"message\":\"Event q was aborted due to a bad connection\",\"name\":\"BadConnectionError\"}}"
        )
    };
    assert_eq!(client.app.answered, [failed(1), failed(2)]);
    assert_eq!(client.app.disconnected, 1);
}

#[test]
fn one_client_leaves_no_more_calls_unanswered_than_it_may() {
    let mut client = Client::open(Probe::default());
    client.settings.calls_max = 2;
    let refused = [r#"{"rid":1,"data":0}"#];
    client.text(r#"{"event":"call","cid":1}"#);
    assert_ne!(client.text(r#"{"event":"call","cid":1}"#), refused);
    assert_eq!(client.text(r#"{"event":"call","cid":1}"#), refused);
    assert_eq!(client.scratch.take_hits().of(Limit::CallsPerConnection), 1);
    client.text(r#"{"rid":1}"#);
    assert_eq!(
        client.text(r#"{"event":"call","cid":1}"#),
        [r#"{"rid":1,"data":3}"#, r#"{"event":"q","cid":3,"data":[1]}"#]
    );
    client.settings.calls_max = 0;
    assert_eq!(client.text(r#"{"event":"call","cid":1}"#), refused);
}

#[test]
fn a_token_may_be_given_and_taken_by_calls() {
    let mut client = Client::open(Probe::default());
    let Outcome(lines) = client.text(r#"{"event":"confirmLogin","cid":1}"#);
    assert_eq!(lines[0], r#"{"rid":1,"data":1}"#);
    assert!(
        lines[1].starts_with(r##"{"event":"#setAuthToken","cid":1,"data":{"token":""##),
        "{lines:?}"
    );
    assert!(client.session.claims.is_some());
    client.text(r#"{"rid":1,"error":{"message":"no room"}}"#);
    assert_eq!(
        client.text(r#"{"event":"confirmLogout","cid":2}"#),
        [
            r#"{"rid":2,"data":2}"#,
            r##"{"event":"#removeAuthToken","cid":2}"##
        ]
    );
    assert!(client.session.claims.is_none());
    client.text(r#"{"rid":2}"#);
    assert_eq!(
        client.app.answered,
        [
            r#"1 {"message":"Failed to deliver auth token to client - no room","name":"AuthError"}"#,
            "2 -"
        ]
    );
}

#[test]
fn an_idle_session_holds_no_calls() {
    let mut client = Client::open(Probe::default());
    client.text(r#"{"event":"echo","cid":1}"#);
    assert!(client.session.calls.is_none());
}

#[test]
fn a_batch_is_one_array_in_the_order_asked_with_the_answer_last() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.text(r#"{"event":"batchMe","cid":12}"#),
        [
            r#"[{"event":"a","data":1},{"event":"b","data":2},{"rid":12,"data":"in batch"}]"#,
            r##"publish p {"event":"#publish","data":{"channel":"p","data":3}}"##,
        ]
    );
    assert_eq!(client.text(r#"{"event":"batchNothing","cid":1}"#), NOTHING);
    let Outcome(lines) = client.text(r#"{"event":"batchCall","cid":1}"#);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let packets: Vec<serde_json::Value> = serde_json::from_str(line).unwrap();
    let events: Vec<_> = packets
        .iter()
        .map(|packet| packet["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["q", "#setAuthToken", "#removeAuthToken"]);
    // A batch ends with its packet.
    assert_eq!(
        client.text(r#"{"event":"order","cid":1}"#).0[0],
        r#"{"rid":1,"data":"reply"}"#
    );
}

#[test]
fn the_close_frame_may_say_why() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.text(r#"[{"event":"leaveSaying","cid":1},{"event":"empty","cid":2}]"#),
        [
            r#"{"rid":1}"#,
            r##"publish kept {"event":"#publish","data":{"channel":"kept","data":1}}"##,
            "close 4321 why not"
        ]
    );
}

#[test]
fn a_late_answer_does_all_that_a_prompt_one_can_and_nothing_after_the_end() {
    let late = |cid: &[u8]| LateAnswer {
        address: 0,
        answer: Late::Call {
            token: cid.into(),
            owed: None,
            answer: Box::new(|peer| {
                peer.transmit("t", &1);
                peer.reply("late")
            }),
        },
    };
    let mut client = Client::open(Probe::default());
    assert_eq!(client.text(r#"{"event":"later","cid":7}"#), NOTHING);
    assert_eq!(
        client.run(|session, env, decisions| session.answer_late(late(b"7"), env, decisions)),
        [r#"{"rid":7,"data":"late"}"#, r#"{"event":"t","data":1}"#]
    );
    assert_eq!(
        client.run(|session, env, decisions| session.answer_late(late(b""), env, decisions)),
        [r#"{"event":"t","data":1}"#]
    );
    end(&mut client);
    assert_eq!(
        client.run(|session, env, decisions| session.answer_late(late(b"7"), env, decisions)),
        NOTHING
    );
}
