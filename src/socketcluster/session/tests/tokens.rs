//! Tokens: shown, given, expired and taken away.

use super::*;

const REMOVE: &str = r##"{"event":"#removeAuthToken"}"##;

#[test]
fn a_token_can_be_shown_after_the_handshake() {
    let mut client = Client::open(Probe::default());
    let good = authenticate(r#"{"user":"bob"}"#);
    assert_eq!(
        client.text(&good),
        [r#"{"rid":2,"data":{"isAuthenticated":true,"authError":null}}"#]
    );
    assert_eq!(
        client.text(r#"{"event":"who","cid":3}"#),
        [r#"{"rid":3,"data":{"user":"bob","iat":1000000}}"#]
    );
    assert_eq!(client.text(&good.replace(",\"cid\":2", "")), ["close 4008"]);
    assert_eq!(
        client.text(&good.replace("\"cid\":2", "\"cid\":\"2\"")),
        ["close 4008"]
    );
}

#[test]
fn a_bad_token_is_an_error_and_ends_the_former_authentication() {
    let missing = r#"{"message":"jwt must be provided","name":"AuthTokenInvalidError","isBadToken":true}"#;
    let no_string = r#"{"message":"Invalid token format - Token must be a string","name":"AuthTokenError","isBadToken":true}"#;
    for (data, error) in [
        ("", missing),
        (r#""data":null,"#, missing),
        (r#""data":"","#, missing),
        (r#""data":5,"#, no_string),
        (r#""data":false,"#, no_string),
        (r#""data":0,"#, no_string),
        (r#""data":{},"#, no_string),
    ] {
        let mut client = Client::new(Probe::default());
        client.text(&good());
        assert_eq!(
            client.text(&format!(r##"{{"event":"#authenticate",{data}"cid":2}}"##)),
            [format!(r#"{{"rid":2,"error":{error}}}"#), REMOVE.to_owned()]
        );
        assert_eq!(client.text(r#"{"event":"who","cid":3}"#), [r#"{"rid":3}"#]);
    }
}

#[test]
fn a_soft_refusal_is_an_answer_and_ends_the_former_authentication() {
    let mut client = Client::new(Probe::default());
    client.text(&good());
    let inactive = authenticate(r#"{"nbf":2000000}"#);
    assert_eq!(
        client.text(&inactive),
        [concat!(
            r#"{"rid":2,"data":{"isAuthenticated":false,"authError":{"message":"jwt not active","#,
            r#""name":"AuthTokenNotBeforeError","date":"1970-01-24T03:33:20.000Z","isBadToken":false}}}"#
        )]
    );
    assert_eq!(client.text(r#"{"event":"who","cid":3}"#), [r#"{"rid":3}"#]);
    client.app.refuse_token = Some(AppError::new("softly").into());
    let good = authenticate(r#"{"user":"bob"}"#);
    assert_eq!(
        client.text(&good),
        [r#"{"rid":2,"data":{"isAuthenticated":false,"authError":{"message":"softly"}}}"#]
    );
    client.app.refuse_token = Some(AppError::new("hard").bad_token().into());
    assert_eq!(
        client.text(&good),
        [
            r#"{"rid":2,"error":{"message":"hard","isBadToken":true}}"#,
            REMOVE
        ]
    );
}

#[test]
fn a_client_that_logs_itself_out_is_not_answered() {
    let mut client = Client::new(Probe::default());
    client.text(&good());
    assert_eq!(client.text(r##"{"event":"#removeAuthToken","cid":2}"##), NOTHING);
    assert_eq!(client.text(r#"{"event":"who","cid":3}"#), [r#"{"rid":3}"#]);
}

#[test]
fn a_token_from_the_server_follows_the_answer_of_the_login() {
    let mut client = Client::open(Probe::default());
    let outcome = client.text(r#"{"event":"login","cid":2}"#);
    assert_eq!(outcome.0[0], r#"{"rid":2}"#);
    assert!(
        outcome.0[1].starts_with(r##"{"event":"#setAuthToken","data":{"token":""##),
        "{outcome:?}"
    );
    assert!(client.text(r#"{"event":"who","cid":3}"#).0[0].contains(r#""user":"alice""#));
    assert_eq!(
        client.text(r#"{"event":"logout","cid":4}"#),
        [r#"{"rid":4}"#, REMOVE]
    );
    assert_eq!(client.text(r#"{"event":"who","cid":3}"#), [r#"{"rid":3}"#]);
}

#[test]
fn a_token_that_cannot_be_signed_closes_without_an_answer() {
    let mut client = Client::open(Probe::default());
    assert_eq!(client.text(r#"{"event":"badLogin","cid":2}"#), ["close 4002"]);
}

#[test]
fn a_token_that_was_old_when_it_was_signed_goes_with_the_next_packet() {
    let mut client = Client::open(Probe::default());
    assert_eq!(client.text(r#"{"event":"oldLogin","cid":2}"#).0.len(), 2);
    assert_eq!(
        client.text(r#"{"event":"empty","cid":3}"#),
        [REMOVE, r#"{"rid":3}"#]
    );
}

#[test]
fn an_expired_token_is_taken_away_once_before_the_answer_and_the_packet_is_carried_out() {
    for (packet, after) in [
        (r#"{"event":"expired","cid":2}"#, r#"{"rid":2,"data":1000010.0}"#),
        (
            r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##,
            "subscribe a 2",
        ),
        (
            r##"{"event":"#publish","data":{"channel":"a"}}"##,
            r##"publish a {"event":"#publish","data":{"channel":"a"}}"##,
        ),
    ] {
        let mut client = Client::new(Probe::default());
        client.text(&good());
        // Exactly at `exp` the token is still valid, because the comparison is "greater".
        client.wait_ms(10_000);
        assert!(client.text(r#"{"event":"who","cid":9}"#).0[0].contains("bob"));
        client.wait_ms(1);
        assert_eq!(client.text(packet), [REMOVE, after]);
        assert_eq!(client.text(r#"{"event":"empty","cid":3}"#), [r#"{"rid":3}"#]);
    }
}

#[test]
fn a_token_is_good_until_its_leeway_is_over() {
    let mut client = Client::new(Probe::default());
    let demands = Demands {
        leeway_seconds: 30,
        ..Demands::default()
    };
    client.policy = Policy::with_tokens(tokens().with_demands(demands));
    client.text(&good());
    client.wait_ms(40_000);
    assert!(client.text(r#"{"event":"who","cid":9}"#).0[0].contains("bob"));
    client.wait_ms(1);
    assert_eq!(
        client.text(r#"{"event":"empty","cid":3}"#),
        [REMOVE, r#"{"rid":3}"#]
    );
}

#[test]
fn immediate_answers_come_before_the_message_that_a_token_has_expired() {
    for (packet, answer) in [
        (
            r##"{"event":"#unsubscribe","data":"a","cid":2}"##,
            "unsubscribe a 2",
        ),
        (
            r##"{"event":"#publish","data":{},"cid":2}"##,
            r#"{"rid":2,"error":{"message":"Publish channel name was malformatted","name":"InvalidActionError"}}"#,
        ),
    ] {
        let mut client = Client::new(Probe::default());
        client.text(&good());
        client.wait_ms(10_001);
        assert_eq!(client.text(packet), [answer, REMOVE]);
    }
}

#[test]
fn packets_of_the_application_follow_all_answers_of_an_array() {
    let mut client = Client::open(Probe::default());
    let sent = client.text(r#"[{"event":"order","cid":2},{"event":"empty","cid":3}]"#);
    let empty = sent.0.iter().position(|text| text == r#"{"rid":3}"#);
    let event = sent
        .0
        .iter()
        .position(|text| text == r#"{"event":"t1","data":1}"#);
    assert!(empty.is_some() && event > empty, "{sent:?}");
}

#[test]
fn a_pong_finds_an_expired_token_and_other_input_does_not() {
    let mut client = Client::new(Probe::default());
    client.text(&good());
    client.wait_ms(10_001);
    for text in ["garbage", r#"{"rid":1}"#] {
        assert_eq!(client.text(text), NOTHING);
    }
    assert_eq!(client.text(""), [REMOVE]);
    assert_eq!(client.text(""), NOTHING);
}

/// A security property: after its token has expired, a client must not receive anything that needs the token,
/// even if it sends nothing, or nothing but pongs.
#[test]
fn with_rules_a_ping_finds_an_expired_token_although_the_client_sends_nothing() {
    let rule = RuleSpec {
        effect: Effect::Allow,
        to: vec![Audience::Authenticated],
        ..RuleSpec::default()
    };
    for has_rules in [false, true] {
        let mut client = Client::new(Probe::default());
        if has_rules {
            client.policy.rules = Rules::compile(std::slice::from_ref(&rule), &[], '.', None).unwrap();
        }
        client.text(&good());
        client.text(r##"{"event":"#subscribe","data":{"channel":"c"},"cid":2}"##);
        client.wait_ms(10_001);
        let due = client.tick().0;
        let expected: &[&str] = match has_rules {
            true => &["", REMOVE, "check subscriptions"],
            false => &[""],
        };
        assert_eq!(due, expected);
    }
}
