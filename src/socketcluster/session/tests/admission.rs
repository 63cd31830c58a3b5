//! Clients that must authenticate first, and logins.

use super::*;

/// A client with `allow_anonymous` off, which must authenticate within `timeout_ms`.
fn without_anonymous(timeout_ms: Option<u64>) -> Client<Probe> {
    let mut client = Client::new(Probe::default());
    client.common.allow_anonymous = false;
    client.common.authentication_timeout = timeout_ms.map(Duration::from_millis);
    client.shake_hands();
    client
}

const KICKED_OUT: &str = r#"kick all "No longer authenticated""#;
const LOGIN_CALL: &str = r#"{"event":"login","data":{"email":"a","pw":"b"},"cid":2}"#;

#[test]
fn a_client_that_is_not_authenticated_may_authenticate_and_nothing_else() {
    let mut client = without_anonymous(None);
    let refused =
        r#"{"rid":5,"error":{"message":"Only authenticated clients are served","name":"AuthError"}}"#;
    let packets = [
        r##"{"event":"#subscribe","data":{"channel":"c"},"cid":5}"##,
        r##"{"event":"#publish","data":{"channel":"c","data":1},"cid":5}"##,
        r##"{"event":"#unsubscribe","data":"c","cid":5}"##,
        r#"{"event":"echo","data":1,"cid":5}"#,
        r#"{"event":"Login","data":1,"cid":5}"#,
    ];
    for packet in packets {
        assert_eq!(client.text(packet), [refused], "{packet}");
        assert_eq!(
            client.text(&packet.replace(r#","cid":5"#, "")),
            NOTHING,
            "{packet}"
        );
    }
    assert_eq!(client.scratch.take_hits().of(Limit::Anonymous), 10);
    let array = format!("[{}]", packets.join(","));
    assert_eq!(client.text(&array), [refused; 5]);
    assert_eq!(client.text(""), NOTHING, "a pong");
    assert_eq!(client.text(r##"{"event":"#removeAuthToken"}"##), NOTHING);

    client.authenticate_for(60);
    for packet in packets {
        assert_ne!(client.text(packet), [refused], "{packet}");
    }
    assert_eq!(client.scratch.take_hits().of(Limit::Anonymous), 5);
}

#[test]
fn one_array_may_contain_the_token_and_the_packets_that_need_it() {
    let mut client = without_anonymous(None);
    let token = client
        .policy
        .tokens
        .sign("{}", Some(60), client.now.unix_ms)
        .unwrap();
    let subscribe = r##"{"event":"#subscribe","data":{"channel":"c"},"cid":2}"##;
    let array =
        format!(r##"[{subscribe},{{"event":"#authenticate","data":"{token}","cid":1}},{subscribe}]"##);
    let Outcome(lines) = client.text(&array);
    assert!(lines[0].contains("AuthError"), "{lines:?}");
    assert_eq!(lines[2], "subscribe c 2");
}

#[test]
fn a_client_that_is_no_longer_authenticated_is_kicked_out_of_all_channels() {
    let mut client = without_anonymous(None);
    client.authenticate_for(60);
    assert_eq!(client.text(r##"{"event":"#removeAuthToken"}"##), [KICKED_OUT]);

    client.authenticate_for(60);
    let Outcome(lines) = client.text(r##"{"event":"#authenticate","data":"x.y.z","cid":3}"##);
    assert_eq!(lines.last().map(String::as_str), Some(KICKED_OUT), "{lines:?}");

    // When its token expires, even if the client sends nothing, and not earlier.
    client.authenticate_for(2);
    let expires_ms = client.now.uptime.as_ms() + 2000;
    let deadline_ms = client.deadline_ms();
    assert!(
        deadline_ms > expires_ms && deadline_ms <= expires_ms + 101,
        "{deadline_ms}"
    );
    let wait_ms = deadline_ms - client.now.uptime.as_ms();
    assert_eq!(
        client.wait_ms(wait_ms).tick(),
        [r##"{"event":"#removeAuthToken"}"##, KICKED_OUT]
    );
    assert_eq!(client.wait_ms(1).tick(), NOTHING);
}

#[test]
fn a_server_for_everybody_kicks_no_client_out() {
    let mut client = Client::open(Probe::default());
    client.authenticate_for(60);
    assert_eq!(client.text(r##"{"event":"#removeAuthToken"}"##), NOTHING);
}

#[test]
fn a_client_that_does_not_authenticate_in_time_is_closed() {
    let mut client = without_anonymous(Some(3000));
    let begin_ms = client.now.uptime.as_ms();
    assert_eq!(client.deadline_ms(), begin_ms + 3000);
    assert_eq!(client.wait_ms(2999).tick(), NOTHING);
    client.authenticate_for(1);
    // After the token has expired, the client has this time again.
    let wait_ms = client.deadline_ms() - client.now.uptime.as_ms();
    assert_eq!(client.wait_ms(wait_ms).tick().0.len(), 2);
    assert_eq!(client.wait_ms(2900).tick(), NOTHING);
    assert_eq!(client.wait_ms(200).tick(), ["close 4031"]);
}

#[test]
fn a_login_is_answered_and_then_the_client_has_its_token() {
    let mut client = without_anonymous(None).with_password_checks();
    assert_eq!(client.text(LOGIN_CALL), ["login a b"]);
    let (accepted, token) = client.accepted_login(60);
    assert_eq!(client.answer_login(accepted), [r#"{"rid":2}"#, token.as_str()]);
    assert_eq!(
        client.text(r##"{"event":"#subscribe","data":{"channel":"c"},"cid":3}"##),
        ["subscribe c 3"]
    );
    // Another user, with a one-way event.
    assert_eq!(
        client.text(r#"{"event":"login","data":{"user":"c","password":""}}"#),
        ["login c "]
    );
    let (accepted, token) = client.accepted_login(60);
    assert_eq!(client.answer_login(accepted), [token.as_str()]);
    let (accepted, _) = client.accepted_login(60);
    assert_eq!(client.answer_login(accepted), NOTHING, "nobody has asked");
}

#[test]
fn a_login_is_recognised_however_its_json_is_escaped() {
    let mut client = Client::open(Probe::default()).with_password_checks();
    let call = r#"{"event":"\u006cogin","data":{"\u0065mail":"\u0061","p\u0077":"\u0062"},"cid":2}"#;
    assert_eq!(client.text(call), ["login a b"]);
}

#[test]
fn a_login_that_fails_says_why_and_changes_nothing() {
    let mut client = Client::open(Probe::default()).with_password_checks();
    client.authenticate_for(60);
    let mut ask = |answer| {
        assert_eq!(client.text(LOGIN_CALL), ["login a b"]);
        client.answer_login(answer)
    };
    assert_eq!(
        ask(LoginAnswer::Refused),
        [r#"{"rid":2,"error":{"message":"Invalid user name or password","name":"InvalidCredentialsError"}}"#]
    );
    let too_soon = LoginAnswer::TooSoon {
        retry_after_seconds: 7,
    };
    assert_eq!(
        ask(too_soon),
        [
            r#"{"rid":2,"error":{"message":"Too many logins have failed: try again in 7 s","name":"LoginTooSoonError","retryAfter":7}}"#
        ]
    );
    assert_eq!(ask(LoginAnswer::Unsigned), ["close 4002"]);
    assert!(client.session.claims.is_some());

    for data in [r#"{"user":"a"}"#, "null", r#""a""#, r#"[{"user":"a","pw":"b"}]"#] {
        let Outcome(lines) = client.text(&format!(r#"{{"event":"login","data":{data},"cid":2}}"#));
        assert!(lines[0].contains("InvalidArgumentsError"), "{lines:?}");
    }
    let Outcome(lines) = client.text(r#"{"event":"login","cid":2}"#);
    assert!(lines[0].contains("InvalidArgumentsError"), "{lines:?}");
    let data = |bytes: usize| {
        let frame = r#"{"user":"a","pw":""}"#;
        let password = "x".repeat(bytes - frame.len());
        format!(r#"{{"event":"login","data":{{"user":"a","pw":"{password}"}},"cid":2}}"#)
    };
    assert!(client.text(&data(4097)).0[0].contains("4096 bytes"));
    assert_eq!(client.scratch.take_hits().of(Limit::LoginBodyBytes), 1);
    assert!(client.text(&data(4096)).0[0].starts_with("login a x"));
}

#[test]
fn one_login_at_a_time() {
    let mut client = Client::open(Probe::default()).with_password_checks();
    assert_eq!(client.text(LOGIN_CALL), ["login a b"]);
    let under_way = r#"{"rid":2,"error":{"message":"Another login of this connection has not been answered yet","name":"InvalidActionError"}}"#;
    assert_eq!(client.text(LOGIN_CALL), [under_way]);
    assert_eq!(client.scratch.take_hits().of(Limit::LoginsPerConnection), 1);
    // A login for which there was no room has ended.
    let mut decisions = Decisions::new();
    let answer = client.session.login_not_taken(&mut decisions).unwrap();
    let answer = String::from_utf8_lossy(decisions.bytes(answer));
    assert!(
        answer.starts_with(r#"{"rid":2,"error":{"#) && answer.contains("LoginBusyError"),
        "{answer}"
    );
    assert_eq!(client.text(LOGIN_CALL), ["login a b"]);
}

#[test]
fn the_application_may_refuse_a_user_with_the_right_password() {
    let mut client = without_anonymous(None).with_password_checks();
    client.app.refuse_token = Some(Refusal::from(AppError::new("banned")));
    assert_eq!(client.text(LOGIN_CALL), ["login a b"]);
    let (accepted, _) = client.accepted_login(60);
    assert_eq!(
        client.answer_login(accepted),
        [r#"{"rid":2,"error":{"message":"banned"}}"#]
    );
    assert!(client.session.claims.is_none());
}

#[test]
fn without_password_checks_login_belongs_to_the_application() {
    let mut client = without_anonymous(None);
    let open = Client::open(Probe::default()).text(LOGIN_CALL);
    assert_eq!(client.text(LOGIN_CALL), open);
    assert_eq!(client.scratch.take_hits().of(Limit::Anonymous), 0);
}

#[test]
fn a_client_that_is_authenticated_for_a_part_of_an_array_keeps_no_subscription() {
    let mut client = Client::with_settings(Probe::default(), SocketClusterSettings::default());
    client.common.allow_anonymous = false;
    client.text(r##"{"event":"#handshake","data":{},"cid":1}"##);
    let subscribe = r##"{"event":"#subscribe","data":{"channel":"c"},"cid":3}"##;
    let forget = r##"{"event":"#removeAuthToken","data":null}"##;
    let who = authenticate(r#"{"user":"ann"}"#);
    let outcome = client.text(&format!("[{who},{subscribe},{forget}]"));
    let last = outcome.0.last().map(String::as_str).unwrap_or_default();
    assert!(last.contains("No longer authenticated"), "{outcome:?}");
}

#[test]
fn one_array_has_no_more_tokens_checked_than_its_share() {
    let mut client = Client::new(Probe::default());
    client.text(r##"{"event":"#handshake","data":{},"cid":1}"##);
    let many = vec![authenticate(r#"{"user":"ann"}"#); super::super::tokens::VERIFICATIONS_MAX as usize + 1];
    let mut outcome = client.text(&format!("[{}]", many.join(",")));
    let mut parts = 1;
    while client.session.has_more() {
        client.scratch.begin_verifications();
        outcome.0.extend(client.more().0);
        parts += 1;
    }
    assert_eq!(parts, 5, "four at a time");
    let refused = |line: &&String| line.contains(super::super::tokens::TOO_MANY_TOKENS);
    assert_eq!(outcome.0.iter().filter(refused).count(), 1, "{outcome:?}");
    assert!(refused(&outcome.0.last().unwrap()));
}
