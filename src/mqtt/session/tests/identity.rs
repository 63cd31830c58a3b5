//! The identity of a client: by password, token or certificate, or none.

use super::client::{NextStep, connect, core, sent, tokens};
use crate::auth::{Claims, Issued};
use crate::decision::CloseReason;

use crate::mqtt::settings::TokenIn;
use crate::session::LoginAnswer;

const NOW_MS: u64 = 1_000_000_000;

fn token(claims: &str) -> String {
    tokens().sign(claims, None, NOW_MS).expect("an object")
}

fn code_of(did: &[NextStep]) -> Option<u8> {
    did.iter().find_map(|did| match did {
        NextStep::Send(bytes) => Some(bytes[3]),
        _ => None,
    })
}

#[test]
fn an_anonymous_client_is_refused_where_only_authenticated_clients_are_served() {
    for (level, code) in [(4, 5), (5, 0x87)] {
        let mut core = core();
        core.common.allow_anonymous = false;
        let mut client = core.client();
        let did = core.receive(&mut client, &connect(level, "a").bytes());
        assert_eq!(code_of(&did), Some(code));
        assert_eq!(did[1], NextStep::Close(CloseReason::MqttRefused));
        // A certificate names a user.
        let mut client = core.client_with(Some(r#"{"sub":"ann"}"#));
        let did = core.receive(&mut client, &connect(level, "a").bytes());
        assert_eq!(code_of(&did), Some(0));
        assert!(client.session.claims().is_some());
    }
}

#[test]
fn a_token_is_looked_for_where_the_setting_says() {
    let good = token(r#"{"sub":"ann"}"#);
    let mut bad = good.clone();
    bad.pop();
    // The places for a token; user name, password; user.
    let cases = [
        (TokenIn::Auto, "x", Some(&good), Some("ann")),
        (TokenIn::Auto, &good, None, Some("ann")),
        (TokenIn::Password, "x", Some(&good), Some("ann")),
        (TokenIn::UserName, &good, None, Some("ann")),
        (TokenIn::Off, "x", Some(&good), None),
        (TokenIn::Password, &good, None, None),
    ];
    for (token_in, user, password, expected) in cases {
        let mut core = core();
        core.settings.token_in = token_in;
        let mut packet = connect(4, "a");
        packet.user = Some(user.to_owned());
        packet.password = password.map(|password| password.clone().into_bytes());
        let client = core.open(&packet.bytes());
        let user = client.session.claims().and_then(Claims::user);
        assert_eq!(user.as_deref(), expected, "{token_in:?}");
    }
    for token_in in [TokenIn::Auto, TokenIn::Password] {
        for (level, code) in [(4, 4), (5, 0x86)] {
            let mut core = core();
            core.settings.token_in = token_in;
            let mut client = core.client_with(Some(r#"{"sub":"by certificate"}"#));
            let mut packet = connect(level, "a");
            packet.user = Some("x".to_owned());
            packet.password = Some(bad.clone().into_bytes());
            let did = core.receive(&mut client, &packet.bytes());
            assert_eq!(code_of(&did), Some(code), "{token_in:?} {level}");
        }
    }
}

#[test]
fn packets_wait_for_the_answer_to_a_password_and_the_answer_is_connack() {
    let accepted = || {
        let token = token(r#"{"sub":"ann"}"#);
        let claims = tokens().verify(&token, NOW_MS).unwrap();
        LoginAnswer::Accepted(Issued { token, claims })
    };
    let too_soon = LoginAnswer::TooSoon {
        retry_after_seconds: 1,
    };
    for (answer, old, new) in [
        (accepted(), 0, 0),
        (LoginAnswer::Refused, 4, 0x86),
        (too_soon, 4, 0x86),
        (LoginAnswer::Busy, 3, 0x89),
    ] {
        let again = match &answer {
            LoginAnswer::Accepted(_) => accepted(),
            LoginAnswer::Refused => LoginAnswer::Refused,
            LoginAnswer::TooSoon { .. } => LoginAnswer::TooSoon {
                retry_after_seconds: 1,
            },
            LoginAnswer::Busy => LoginAnswer::Busy,
            LoginAnswer::Unsigned => LoginAnswer::Unsigned,
        };
        for (level, code, answer) in [(4, old, answer), (5, new, again)] {
            let mut core = core();
            core.check_passwords();
            let mut client = core.client();
            let mut packet = connect(level, "a");
            packet.user = Some("ann".to_owned());
            packet.password = Some(b"\xffsecret".to_vec());
            let did = core.receive(&mut client, &packet.bytes());
            assert_eq!(did, [NextStep::Login("ann".to_owned(), b"\xffsecret".to_vec())]);
            assert!(client.session.is_waiting() && !client.session.is_open());
            assert!(core.scratch.take_credentials_note());
            let did = core.run(&mut client, |session, env, decisions| {
                session.login_answered(answer, env, decisions)
            });
            assert_eq!(code_of(&did), Some(code));
            assert_eq!(client.session.is_open(), code == 0);
            assert!(!client.session.is_waiting());
            if code == 0 {
                assert_eq!(client.session.claims().unwrap().user().as_deref(), Some("ann"));
            } else {
                assert_eq!(did[1], NextStep::Close(CloseReason::MqttRefused));
            }
        }
    }
}

#[test]
fn the_connection_ends_when_the_token_expires() {
    let mut core = core();
    let mut packet = connect(5, "a");
    packet.password = Some(token(r#"{"sub":"ann","exp":1000060}"#).into_bytes());
    let mut client = core.open(&packet.bytes());
    core.wait_s(60);
    assert_eq!(core.tick(&mut client), []);
    core.wait_s(1);
    assert_eq!(
        core.tick(&mut client),
        [NextStep::Close(CloseReason::TokenExpired)]
    );
    let did = core.receive(&mut client, &[0xc0, 0]);
    assert_eq!(did, [NextStep::Close(CloseReason::TokenExpired)]);
    assert_eq!(core.farewell(&client, CloseReason::TokenExpired, "")[2], 0x87);
}

#[test]
fn a_user_name_without_a_password_does_not_hide_a_certificate() {
    let mut core = core();
    core.check_passwords();
    let mut client = core.client_with(Some(r#"{"sub":"ann"}"#));
    let mut packet = connect(4, "a");
    packet.user = Some("device".to_owned());
    assert_eq!(
        sent(&core.receive(&mut client, &packet.bytes())),
        [[0x20, 2, 0, 0]]
    );
    assert_eq!(client.session.claims().unwrap().user().as_deref(), Some("ann"));
}
