//! The handshake: when it is due, its answer, and the token in it.

use super::*;

#[test]
fn packets_before_the_handshake_close_with_4009() {
    for text in [
        r#"{"event":"echo","data":1,"cid":1}"#,
        "hello",
        r#"{"event":"#,
        "",
        "#1",
        "#2",
        "null",
        "5",
        "true",
        "{}",
        r#"{"rid":1}"#,
        r##"{"event":"#authenticate","data":"x","cid":1}"##,
        r##"{"event":"#authenticate"}"##,
        r##"[{"event":"echo","cid":2},{"event":"#handshake","data":{},"cid":1}]"##,
        "[null]",
    ] {
        assert_eq!(Client::new(Probe::default()).text(text), ["close 4009"], "{text}");
    }
    assert_eq!(Client::new(Probe::default()).binary(b""), ["close 4009"]);
    assert_eq!(Client::new(Probe::default()).binary(b"\0\xff"), ["close 4009"]);
}

#[test]
fn an_empty_array_is_nothing_and_an_array_may_begin_with_the_handshake() {
    let mut client = Client::new(Probe::default());
    assert_eq!(client.text("[]"), NOTHING);
    assert!(!client.session.is_open());
    let response = client.handshake_response("1", "");
    assert_eq!(
        client.text(r##"[{"event":"#handshake","data":{},"cid":1},{"event":"empty","cid":2}]"##),
        [response.as_str(), r#"{"rid":2}"#]
    );
    assert!(client.session.is_open());
}

#[test]
fn a_handshake_needs_a_number_as_its_call_id() {
    for text in [
        r##"{"event":"#handshake","data":{}}"##,
        r##"{"event":"#handshake","data":{},"cid":"1"}"##,
        r##"{"event":"#handshake","cid":null}"##,
        r##"{"event":"#handshake","cid":true}"##,
    ] {
        assert_eq!(Client::new(Probe::default()).text(text), ["close 4008"], "{text}");
    }
    for (cid, rid) in [
        ("0", "0"),
        ("-1.5", "-1.5"),
        ("1e21", "1e+21"),
        ("12345678901234567890", "12345678901234567000"),
        ("1e400", "null"),
    ] {
        let mut client = Client::new(Probe::default());
        let expected = client.handshake_response(rid, "");
        assert_eq!(
            client.text(&format!(r##"{{"event":"#handshake","cid":{cid}}}"##)),
            [expected]
        );
    }
}

#[test]
fn a_value_that_is_false_in_javascript_is_not_a_token() {
    for data in [
        "null",
        "\"str\"",
        "5",
        "[]",
        "{}",
        r#"{"authToken":null}"#,
        r#"{"authToken":""}"#,
        r#"{"authToken":false}"#,
        r#"{"authToken":0}"#,
        r#"{"authToken":-0}"#,
        r#"{"authToken":1e-400}"#,
    ] {
        let mut client = Client::new(Probe::default());
        let expected = client.handshake_response("1", "");
        let text = format!(r##"{{"event":"#handshake","data":{data},"cid":1}}"##);
        assert_eq!(client.text(&text), [expected], "{data}");
    }
}

#[test]
fn a_bad_token_does_not_fail_the_handshake_and_is_taken_away_after_the_response() {
    let not_a_string = concat!(
        r#""authError":{"message":"Invalid token format - Token must be a string","name":"AuthTokenError","#,
        r#""isBadToken":true},"#
    );
    let invalid =
        r#""authError":{"message":"jwt malformed","name":"AuthTokenInvalidError","isBadToken":true},"#;
    for (token, error) in [
        ("{}", not_a_string),
        ("12345", not_a_string),
        ("true", not_a_string),
        ("[]", not_a_string),
        ("\"garbage\"", invalid),
        ("\"\\ud800\"", invalid),
    ] {
        let mut client = Client::new(Probe::default());
        let response = client.handshake_response("1", error);
        let text = format!(r##"{{"event":"#handshake","data":{{"authToken":{token}}},"cid":1}}"##);
        assert_eq!(
            client.text(&text),
            [response.as_str(), r##"{"event":"#removeAuthToken"}"##],
            "{token}"
        );
        assert!(client.session.is_open());
    }
}

#[test]
fn a_good_token_authenticates_from_the_start() {
    let mut client = Client::new(Probe::default());
    let outcome = client.text(&good());
    assert!(outcome.0[0].ends_with(r#""isAuthenticated":true}}"#));
    assert_eq!(&outcome.0[1..], [r#"{"event":"welcome","data":null}"#]);
    assert_eq!(
        client.text(r#"{"event":"who","cid":2}"#),
        [r#"{"rid":2,"data":{"user":"bob","exp":1000010,"iat":1000000}}"#]
    );
}

/// A session whose request has authenticated Ann.
fn brought() -> Client<Probe> {
    let mut client = Client::new(Probe::default());
    let claims = tokens()
        .verify(&token(r#"{"user":"ann"}"#), 1_000_000_000)
        .unwrap();
    client.session.claims = Some(Box::new(claims));
    client
}

#[test]
fn claims_of_the_request_authenticate_a_handshake_without_a_token() {
    let mut client = brought();
    let outcome = client.text(r##"{"event":"#handshake","data":{},"cid":1}"##);
    assert!(outcome.0[0].ends_with(r#""isAuthenticated":true}}"#));
    let who = client.text(r#"{"event":"who","cid":2}"#);
    assert_eq!(who, [r#"{"rid":2,"data":{"user":"ann","iat":1000000}}"#]);
    client.text(r##"{"event":"#handshake","data":{},"cid":3}"##);
    assert_eq!(client.text(r#"{"event":"who","cid":4}"#), [r#"{"rid":4}"#]);
}

#[test]
fn an_offered_token_replaces_the_claims_of_the_request() {
    let mut client = brought();
    client.text(&good());
    let who = client.text(r#"{"event":"who","cid":2}"#);
    assert_eq!(
        who,
        [r#"{"rid":2,"data":{"user":"bob","exp":1000010,"iat":1000000}}"#]
    );
    let mut client = brought();
    let outcome = client.text(r##"{"event":"#handshake","data":{"authToken":"x.y.z"},"cid":1}"##);
    assert!(
        outcome.0[0].ends_with(r#""isAuthenticated":false}}"#),
        "{outcome:?}"
    );
}

#[test]
fn a_soft_refusal_of_a_token_takes_nothing_away() {
    let mut client = Client::new(Probe {
        refuse_token: Some(AppError::new("softly").named("Blocked").into()),
        ..Probe::default()
    });
    let response = client.handshake_response("1", r#""authError":{"message":"softly","name":"Blocked"},"#);
    assert_eq!(client.text(&good()), [response]);
    client.app.refuse_token = Some(AppError::new("hard").bad_token().into());
    let mut client = Client::new(client.app);
    let response = client.handshake_response("1", r#""authError":{"message":"hard","isBadToken":true},"#);
    assert_eq!(
        client.text(&good()),
        [response.as_str(), r##"{"event":"#removeAuthToken"}"##]
    );
}

#[test]
fn a_second_handshake_is_answered_and_counts_for_nothing() {
    let mut client = Client::open(Probe::default());
    let again = client.handshake_response("2", "");
    assert_eq!(
        client.text(r##"{"event":"#handshake","data":{},"cid":2}"##),
        [again]
    );
    assert_eq!(client.app.connected, 1);
    client.run(|session, env, _| {
        session.ended(env, CloseReason::PeerClosed);
        session.ended(env, CloseReason::PeerClosed);
        Ok(())
    });
    assert_eq!(client.app.disconnected, 1);
    assert!(!client.session.is_open());
}

#[test]
fn the_application_is_not_told_of_a_client_that_it_disconnects_in_the_handshake() {
    let mut client = Client::new(Probe {
        leave_in_handshake: true,
        ..Probe::default()
    });
    let sent = client.text(r##"{"event":"#handshake","data":{},"cid":1}"##);
    assert_eq!(sent.0.last().map(String::as_str), Some("close 4321"));
    client.run(|session, env, _| {
        session.ended(env, CloseReason::PeerClosed);
        Ok(())
    });
    assert_eq!((client.app.connected, client.app.disconnected), (0, 0));
}

#[test]
fn an_end_before_the_handshake_is_not_told() {
    let mut client = Client::new(Probe::default());
    client.run(|session, env, _| {
        session.ended(env, CloseReason::PeerVanished);
        Ok(())
    });
    assert_eq!((client.app.connected, client.app.disconnected), (0, 0));
}

#[test]
fn a_refused_handshake_tells_its_code_in_both_places_and_closes() {
    let handshake = r##"{"event":"#handshake","data":{},"cid":1}"##;
    for (refusal, error, code) in [
        (
            Refusal::from(AppError::new("denied").named("SCDenied")),
            r#"{"message":"denied","name":"SCDenied","statusCode":4008}"#,
            4008,
        ),
        (
            Refusal::from(AppError::new("denied")).with_code(CloseCode::new(4501).unwrap()),
            r#"{"message":"denied","statusCode":4501}"#,
            4501,
        ),
        (
            Refusal::silent(),
            concat!(
                r#"{"message":"The handshakeSC AGAction was blocked by handshake middleware","#,
                r#""name":"SilentMiddlewareBlockedError","type":"handshake","statusCode":4008}"#
            ),
            4008,
        ),
    ] {
        let mut client = Client::new(Probe {
            refuse_handshake: Some(refusal),
            ..Probe::default()
        });
        let answer = format!(r#"{{"rid":1,"error":{error},"data":{{"code":{code}}}}}"#);
        assert_eq!(client.text(handshake), [answer, format!("close {code}")]);
        assert!(!client.session.is_open());
        assert_eq!(client.app.connected, 0);
    }
}
