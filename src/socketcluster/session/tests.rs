use std::sync::Arc;
use std::time::Duration;

use super::super::environment;
use super::super::json::DEPTH_MAX;
use super::*;
use crate::app::builtin::Builtin;
use crate::app::{
    AllowedPublish, AnswerError, AnswerFailure, AppError, CallAnswer, CallId, CallRefused, LateAnswerSender,
    Returned, Undelivered,
};
use crate::auth::rules::Rules;
use crate::auth::{Credentials, Demands, Tokens};
use crate::config::Protocol;
use crate::config::rules::{Effect, RuleSpec, Who};
use crate::decision::{
    CloseCode, Epoch, Gap, HistoryCall, Position, Recovered, Span, SubscribeOutcome, UnsubscribeOutcome,
    Wanted,
};
use crate::policy::Policy;
use crate::policy::channels::{ChannelPolicy, ChannelSpec, Channels, HistoryPolicy};
use crate::session::{self, LoginAnswer, SessionIds};
use crate::wills::HeldWill;

/// A session with everything that a core lends it, and a clock that the test moves.
struct Client<A: App> {
    session: Session,
    common: session::Settings,
    settings: Settings,
    policy: Policy,
    app: A,
    scratch: session::Scratch,
    buffers: environment::Scratch,
    now: Now,
    /// Number of packets of an array that are handled in one part.
    packets_max: u64,
}

/// Stands for a core that has no room for late answers.
struct Full;

impl LateAnswerSender for Full {
    fn send(&self, answer: LateAnswer) -> Result<(), Returned> {
        Err(Returned::Full(answer))
    }
}

/// The result of one input as text: one line per decision, and the end of the connection if it ends.
#[derive(Debug, PartialEq)]
struct Outcome(Vec<String>);

impl<A: App> Client<A> {
    fn new(app: A) -> Client<A> {
        Client::with_settings(
            app,
            Settings {
                protocol: Protocol::V2,
                ..Settings::default()
            },
        )
    }

    fn with_settings(app: A, settings: Settings) -> Client<A> {
        let now = Now {
            uptime: Uptime::from_ms(5_000),
            unix_ms: 1_000_000_000,
        };
        Client {
            session: Session::new(SessionIds::new().unwrap().next_id(), &settings, now, None),
            common: session::Settings::default(),
            settings,
            policy: Policy::with_tokens(tokens()),
            app,
            scratch: session::Scratch::with_late_answers(Arc::new(Full)),
            buffers: environment::Scratch::default(),
            now,
            packets_max: 256,
        }
    }

    /// A client that has completed its handshake.
    fn open(app: A) -> Client<A> {
        let mut client = Client::new(app);
        client.shake_hands();
        client
    }

    fn shake_hands(&mut self) {
        let expected = self.handshake_response("1", "");
        assert_eq!(
            self.text(r##"{"event":"#handshake","data":{"authToken":null},"cid":1}"##),
            [expected]
        );
    }

    fn handshake_response(&self, cid: &str, auth_error: &str) -> String {
        format!(
            "{{\"rid\":{cid},\"data\":{{\"id\":\"{}\",\"pingTimeout\":30000,{auth_error}\"isAuthenticated\":false}}}}",
            self.session.id
        )
    }

    fn text(&mut self, text: &str) -> Outcome {
        self.run(|session, env, decisions| session.receive(Message::Text(text), env, decisions))
    }

    /// Handles the next part of an array.
    fn more(&mut self) -> Outcome {
        self.run(|session, env, decisions| session.receive_more(env, decisions))
    }

    fn binary(&mut self, bytes: &[u8]) -> Outcome {
        self.run(|session, env, decisions| session.receive(Message::Binary(bytes), env, decisions))
    }

    fn tick(&mut self) -> Outcome {
        self.run(|session, env, decisions| session.timed_out(env, decisions))
    }

    fn wait_ms(&mut self, ms: u64) -> &mut Client<A> {
        self.now.uptime = self.now.uptime + Duration::from_millis(ms);
        self.now.unix_ms += ms;
        self
    }

    fn deadline_ms(&self) -> u64 {
        self.session.next_deadline(&self.common, &self.settings).as_ms()
    }

    fn run(
        &mut self,
        act: impl FnOnce(&mut Session, &mut Environment<'_, '_, A>, &mut Decisions) -> Result<(), CloseReason>,
    ) -> Outcome {
        let mut decisions = Decisions::new();
        let mut common = session::Environment {
            now: self.now,
            address: 0,
            settings: &self.common,
            policy: &self.policy,
            app: &mut self.app,
            scratch: &mut self.scratch,
            packets_max: self.packets_max,
        };
        let mut env = Environment {
            common: &mut common,
            settings: &self.settings,
            scratch: &mut self.buffers,
        };
        let result = act(&mut self.session, &mut env, &mut decisions);
        let text = |span: Span| String::from_utf8_lossy(decisions.bytes(span)).into_owned();
        let mut lines: Vec<String> = decisions
            .list()
            .iter()
            // Without presence nothing is done about it.
            .filter(|decision| !matches!(decision, Decision::UserChanged))
            .map(|decision| match *decision {
                Decision::UserChanged => unreachable!("filtered out"),
                Decision::AskPresence {
                    channel,
                    token,
                    request,
                } => format!("ask presence {} {} {}", text(channel), text(token), text(request)),
                Decision::Send { message } => text(message),
                Decision::Subscribe { channel, token } => {
                    format!(
                        "subscribe {} {}",
                        text(channel),
                        token.map_or_else(|| "-".into(), text)
                    )
                }
                Decision::SubscribeFrom {
                    channel,
                    token,
                    wanted,
                } => {
                    let wanted = Wanted::read(decisions.bytes(wanted));
                    format!("subscribe {} {} {wanted:?}", text(channel), text(token))
                }
                Decision::ReadHistory { channel, token, call } => {
                    let call = HistoryCall::read(decisions.bytes(call));
                    let (channel, token) = (text(channel), text(token));
                    format!("history {channel} {token} {:?} {}", call.wanted, call.limit)
                }
                Decision::Unsubscribe { channel, token } => {
                    format!(
                        "unsubscribe {} {}",
                        text(channel),
                        token.map_or_else(|| "-".into(), text)
                    )
                }
                Decision::Publish(publish) => {
                    format!("publish {} {}", text(publish.channel), text(publish.message))
                }
                Decision::CheckSubscriptions => "check subscriptions".into(),
                Decision::KickOut { channel, message } => format!("kick {} {}", text(channel), text(message)),
                Decision::KickOutAll { reason } => {
                    format!("kick all {}", reason.map_or_else(|| "-".into(), text))
                }
                Decision::Close { reason, text: said } => {
                    format!(
                        "close {} {}",
                        reason.code().map_or(0, CloseCode::as_u16),
                        text(said)
                    )
                }
                Decision::Acknowledge { token } => format!("acknowledge {}", text(token)),
                Decision::Login => {
                    let Credentials { user, password } = decisions.credentials().unwrap();
                    format!("login {user} {}", str::from_utf8(password.expose()).unwrap())
                }
                Decision::EndOther { connection, reason } => format!("end {connection} {reason:?}"),
                Decision::SendRetained { .. } => panic!("{decision:?}"),
                Decision::SendBinary { message } => {
                    format!("binary {:?}", decisions.bytes(message))
                }
                Decision::SetWill { will, token } => {
                    let held = HeldWill::read(decisions.bytes(will)).unwrap();
                    format!("will {held:?} {}", token.map_or_else(|| "-".into(), text))
                }
                Decision::DropWill { token } => {
                    format!("no will {}", token.map_or_else(|| "-".into(), text))
                }
            })
            .collect();
        let says_why = lines.last().is_some_and(|line| line.starts_with("close "));
        if let Err(reason) = result
            && !says_why
        {
            lines.push(format!("close {}", reason.code().map_or(0, CloseCode::as_u16)));
        }
        Outcome(lines)
    }
}

impl<const COUNT: usize, T: AsRef<str>> PartialEq<[T; COUNT]> for Outcome {
    fn eq(&self, other: &[T; COUNT]) -> bool {
        self.0
            .iter()
            .map(String::as_str)
            .eq(other.iter().map(AsRef::as_ref))
    }
}

const NOTHING: [&str; 0] = [];

/// An application that answers or refuses, depending on the name of the event or channel.
#[derive(Default)]
struct Probe {
    connected: u32,
    disconnected: u32,
    refuse_handshake: Option<Refusal>,
    refuse_token: Option<Refusal>,
    leave_in_handshake: bool,
    /// The results of the application's calls to the client, in order.
    answered: Vec<String>,
}

impl App for Probe {
    fn handshake(&mut self, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        if self.leave_in_handshake {
            peer.disconnect(CloseCode::new(4321).unwrap(), "");
        }
        self.refuse_handshake.clone().map_or(Ok(()), Err)
    }

    fn authenticate(&mut self, _claims: &Claims, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        self.refuse_token.clone().map_or(Ok(()), Err)
    }

    fn subscribe(
        &mut self,
        channel: Name<'_>,
        data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        if channel == *"denied" {
            return Err(AppError::new("no")
                .named("Denied")
                .with("data", data.map_or("-", RawJson::as_str))
                .into());
        }
        if channel == *"told" {
            peer.transmit("told", "after");
        }
        Ok(())
    }

    fn publish(
        &mut self,
        channel: Name<'_>,
        data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        match channel.as_str() {
            Some("denied") => Err(AppError::new("no").into()),
            Some("silent") => Err(Refusal::silent()),
            Some("changed") => Ok(peer.rewrite(&[data])),
            _ => Ok(AllowedPublish::as_sent()),
        }
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match call.event.as_str() {
            Some("echo") => match call.data {
                Some(data) => peer.reply(&data),
                None => peer.reply_empty(),
            },
            Some("null") => peer.reply(&()),
            Some("empty" | "") => peer.reply_empty(),
            Some("fail") => peer.refuse(&AppError::text("just a string")),
            Some("block") => peer.block(),
            Some("sum") => match call.data.map(|data| data.parse::<Vec<f64>>(peer)) {
                Some(Ok(numbers)) => peer.reply(&numbers.iter().sum::<f64>()),
                Some(Err(_)) | None => peer.refuse(&AppError::new("numbers wanted")),
            },
            Some("who") => match peer.claims() {
                Some(claims) => peer.reply(&RawJson::new(claims.json())),
                None => peer.reply_empty(),
            },
            Some("expired") => peer.reply(&peer.token_expired()),
            Some("order") => {
                peer.transmit("t1", &1);
                peer.publish("p", &2);
                peer.transmit_empty("t2");
                peer.reply("reply")
            }
            Some("login") => {
                peer.set_auth_token(&serde_json::json!({ "user": "alice" }), None);
                peer.reply_empty()
            }
            Some("badLogin") => {
                peer.set_auth_token("a string", None);
                peer.reply_empty()
            }
            Some("oldLogin") => {
                peer.set_auth_token(&serde_json::json!({ "exp": 5 }), None);
                peer.reply_empty()
            }
            Some("logout") => {
                peer.deauthenticate();
                peer.reply_empty()
            }
            Some("kick") => {
                peer.kick_out(Some("a"), Some("m"));
                peer.kick_out(None, None);
                peer.reply_empty()
            }
            Some("leave") => {
                peer.transmit("lost", &1);
                peer.publish("kept", &1);
                peer.disconnect(CloseCode::new(4321).unwrap(), "");
                peer.reply("bye")
            }
            Some("large") => peer.reply(&"x".repeat(1024 * 1024)),
            Some("leaveSaying") => {
                peer.publish("kept", &1);
                peer.disconnect(CloseCode::new(4321).unwrap(), "why not");
                peer.reply_empty()
            }
            Some("call") => {
                let call = peer.invoke("q", &[1]);
                peer.reply(&call.map_or(0, CallId::as_u64))
            }
            Some("callAndLeave") => {
                let _ = peer.invoke_empty("q");
                peer.disconnect(CloseCode::new(4321).unwrap(), "");
                CallAnswer::silent()
            }
            Some("confirmLogin") => {
                let call = peer.set_auth_token_confirmed(&serde_json::json!({ "user": "alice" }), None);
                peer.reply(&call.map_or(0, CallId::as_u64))
            }
            Some("confirmLogout") => {
                let call = peer.deauthenticate_confirmed();
                peer.reply(&call.map_or(0, CallId::as_u64))
            }
            Some("batchMe") => {
                peer.batch();
                peer.transmit("a", &1);
                peer.publish("p", &3);
                peer.transmit("b", &2);
                peer.reply("in batch")
            }
            Some("batchCall") => {
                peer.batch();
                let _ = peer.invoke_empty("q");
                peer.set_auth_token(&serde_json::json!({ "exp": 5 }), None);
                peer.deauthenticate();
                CallAnswer::silent()
            }
            Some("batchNothing") => {
                peer.batch();
                CallAnswer::silent()
            }
            Some("later") => {
                let (answer, deferred) = peer.defer();
                assert!(matches!(deferred.reply("kept"), Err(Undelivered::Full(_))));
                answer
            }
            _ => CallAnswer::silent(),
        }
    }

    fn answered(
        &mut self,
        call: CallId,
        answer: Result<Option<RawJson<'_>>, AnswerError<'_>>,
        peer: &mut Peer<'_>,
    ) {
        self.answered.push(match answer {
            Ok(data) => format!("{call} {}", data.map_or("-", RawJson::as_str)),
            Err(error) => {
                let mut text = Vec::new();
                error.to_error().write_json(&mut text);
                if error.cause() == AnswerFailure::ConnectionEnded {
                    assert_eq!(peer.invoke_empty("too late"), Err(CallRefused::Ended));
                    assert!(matches!(peer.defer().1.reply("too late"), Err(Undelivered::Gone)));
                }
                format!("{call} {}", String::from_utf8(text).unwrap())
            }
        });
        if answer.is_ok_and(|data| data.is_some()) {
            peer.transmit_empty("thanks");
        }
    }

    fn connected(&mut self, peer: &mut Peer<'_>) {
        self.connected += 1;
        if peer.claims().is_some() {
            peer.transmit("welcome", &());
        }
    }

    fn disconnected(&mut self, _id: SessionId, _reason: CloseReason) {
        self.disconnected += 1;
    }
}

// --- The handshake: wire reference, section 5

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

fn tokens() -> Tokens {
    Tokens::from_secret(b"secret", None).expect("a secret of any length will do")
}

fn token(claims: &str) -> String {
    tokens().sign(claims, None, 1_000_000_000).expect("an object")
}

/// A handshake with a token that is valid for ten seconds.
fn good() -> String {
    let token = token(r#"{"user":"bob","exp":1000010}"#);
    format!(r##"{{"event":"#handshake","data":{{"authToken":"{token}"}},"cid":1}}"##)
}

fn authenticate(claims: &str) -> String {
    format!(
        r##"{{"event":"#authenticate","data":"{}","cid":2}}"##,
        token(claims)
    )
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

/// A session that was authenticated as Ann's by its request.
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
fn an_array_is_handled_in_parts_and_its_answers_are_those_of_as_many_messages() {
    let calls: Vec<_> = (1..=20)
        .map(|cid| match cid % 4 {
            0 => format!(r#"{{"event":"order","cid":{cid}}}"#),
            1 => format!(r##"{{"event":"#subscribe","data":{{"channel":"c{cid}"}},"cid":{cid}}}"##),
            _ => format!(r#"{{"event":"empty","cid":{cid}}}"#),
        })
        .collect();
    let array = format!("[{}]", calls.join(","));
    for packets_max in [1, 7, 19, 20, 256] {
        let mut client = Client::open(Probe::default());
        client.packets_max = packets_max;
        let mut lines = Vec::new();
        let mut parts = 0;
        let mut outcome = client.text(&array);
        loop {
            lines.extend(outcome.0);
            parts += 1;
            if !client.session.has_more() {
                break;
            }
            assert!(client.session.kept_bytes() >= array.len());
            outcome = client.more();
        }
        assert_eq!(parts, 20_u64.div_ceil(packets_max));
        assert_eq!(client.session.kept_bytes(), 0);
        let mut single = Client::open(Probe::default());
        let each = usize::try_from(packets_max).unwrap();
        let expected: Vec<_> = calls
            .chunks(each)
            .flat_map(|part| single.text(&format!("[{}]", part.join(","))).0)
            .collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn nothing_of_a_long_array_is_handled_if_its_end_is_malformed() {
    let calls = r#"{"event":"empty","cid":1},"#.repeat(10_000);
    for (end, answers) in [("5]", 10_000), ("5", 0)] {
        let mut client = Client::open(Probe::default());
        let mut lines = client.text(&format!("[{calls}{end}")).0;
        while client.session.has_more() {
            lines.extend(client.more().0);
        }
        assert_eq!(lines.len(), answers);
    }
}

#[test]
fn an_end_in_the_middle_of_an_array_is_its_end() {
    let mut client = Client::open(Probe::default());
    client.packets_max = 2;
    let empty = r#"{"event":"empty","cid":3}"#;
    client.text(&format!(
        r#"[{empty},{empty},{{"event":"leave","cid":2}},{empty}]"#
    ));
    let sent = client.more();
    assert!(sent.0.last().unwrap().starts_with("close"), "{sent:?}");
    assert!(!client.session.has_more());
}

/// Answers are sent, or fill the outbox, before the next part of the array is handled.
#[test]
fn a_part_of_an_array_is_over_when_its_answers_have_grown_large() {
    let calls: Vec<_> = (1..=100)
        .map(|cid| format!(r#"{{"event":"large","cid":{cid}}}"#))
        .collect();
    let mut client = Client::open(Probe::default());
    let mut answers = client.text(&format!("[{}]", calls.join(","))).0.len();
    assert!(client.session.has_more());
    while client.session.has_more() {
        let part = client.more().0;
        let bytes: usize = part.iter().map(String::len).sum();
        assert!(bytes < 6 * 1024 * 1024, "{bytes}");
        answers += part.len();
    }
    assert_eq!(answers, 100);
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

// --- Timers: wire reference, section 4

#[test]
fn without_a_handshake_the_connection_closes_at_the_timeout_and_not_before() {
    let mut client = Client::new(Probe::default());
    assert_eq!(client.deadline_ms(), 15_000);
    assert_eq!(client.wait_ms(9_999).tick(), NOTHING);
    assert_eq!(client.wait_ms(1).tick(), ["close 4005"]);
}

#[test]
fn pings_keep_the_rhythm_that_began_with_the_connection() {
    let mut client = Client::new(Probe::default());
    client.wait_ms(7_999).shake_hands();
    assert_eq!(client.deadline_ms(), 13_000);
    assert_eq!(client.tick(), NOTHING);
    assert_eq!(client.wait_ms(1).tick(), [""]);
    assert_eq!(client.deadline_ms(), 21_000);
    assert_eq!(client.wait_ms(100).tick(), NOTHING);
    // A late turn sends one ping; the next ping is on time.
    assert_eq!(client.wait_ms(17_000).tick(), [""]);
    assert_eq!(client.deadline_ms(), 37_000);
}

#[test]
fn a_handshake_after_a_ping_was_due_waits_for_the_next() {
    let mut client = Client::new(Probe::default());
    assert_eq!(client.wait_ms(8_000).tick(), NOTHING);
    client.shake_hands();
    assert_eq!(client.deadline_ms(), 21_000);
}

#[test]
fn silence_closes_at_the_ping_timeout_and_pongs_prevent_it() {
    let mut client = Client::open(Probe::default());
    client.wait_ms(29_999);
    assert_eq!(client.tick(), [""]);
    assert_eq!(client.text(""), NOTHING);
    assert_eq!(client.wait_ms(29_999).tick(), [""]);
    assert_eq!(client.wait_ms(1).tick(), ["close 4001"]);
}

#[test]
fn other_messages_reset_the_pong_timer_after_a_quarter_of_it() {
    let late = |wait_ms: u64| {
        let mut client = Client::open(Probe::default());
        client.wait_ms(wait_ms).text("anything");
        client.wait_ms(30_000 - wait_ms).tick()
    };
    assert_eq!(late(7_500), ["close 4001"]);
    assert_eq!(late(7_501), [""]);
}

#[test]
fn without_pings_there_is_no_pong_timer() {
    let settings = Settings {
        ping_interval: None,
        protocol: Protocol::V2,
        ..Settings::default()
    };
    let mut client = Client::with_settings(Probe::default(), settings);
    client.shake_hands();
    assert_eq!(
        client.session.next_deadline(&client.common, &client.settings),
        Uptime::NEVER
    );
    assert_eq!(client.wait_ms(1_000_000).tick(), NOTHING);
}

#[test]
fn an_unknown_version_is_found_out_by_its_pong() {
    for (pong, ping) in [("", ""), ("#2", "#1")] {
        let mut client = Client::with_settings(Probe::default(), Settings::default());
        client.shake_hands();
        assert_eq!(client.wait_ms(8_000).tick(), [""]);
        assert_eq!(client.wait_ms(8_000).tick(), ["#1"]);
        assert_eq!(client.text(pong), NOTHING);
        assert_eq!(client.wait_ms(8_000).tick(), [ping]);
        assert_eq!(client.wait_ms(8_000).tick(), [ping]);
    }
}

// --- Reserved events and bad input: wire reference, sections 7 and 11

fn error(cid: &str, message: &str) -> String {
    format!(r#"{{"rid":{cid},"error":{{"message":"{message}","name":"InvalidActionError"}}}}"#)
}

#[test]
fn subscribes_of_the_wrong_shape_are_refused_if_they_are_calls() {
    let mut client = Client::open(Probe::default());
    for data in [
        "null",
        "\"foo\"",
        "{}",
        r#"{"channel":5}"#,
        r#"{"channel":null}"#,
        r#"[{"channel":"a"}]"#,
        "5",
    ] {
        let text = format!(r##"{{"event":"#subscribe","data":{data},"cid":2}}"##);
        assert_eq!(
            client.text(&text),
            [error("2", "Subscribe channel name was malformatted")]
        );
        assert_eq!(client.text(&text.replace(",\"cid\":2", "")), NOTHING);
    }
    let absent = client.text(r##"{"event":"#subscribe","cid":2}"##);
    assert_eq!(absent, [error("2", "Subscribe channel name was malformatted")]);
}

#[test]
fn subscribes_are_decided_with_the_decoded_name() {
    let mut client = Client::open(Probe::default());
    let mut subscribe = |channel: &str| {
        client.text(&format!(
            r##"{{"event":"#subscribe","data":{{"channel":{channel},"waitForAuth":true}},"cid":2}}"##
        ))
    };
    assert_eq!(subscribe("\"\""), ["subscribe  2"]);
    assert_eq!(subscribe("\"__proto__\""), ["subscribe __proto__ 2"]);
    assert_eq!(subscribe("\"\\u0061 b/ü\""), ["subscribe a b/ü 2"]);
    assert_eq!(
        subscribe("\"told\""),
        ["subscribe told 2", r#"{"event":"told","data":"after"}"#]
    );
    assert_eq!(
        client.text(r##"{"event":"#subscribe","data":{"channel":"a"}}"##),
        NOTHING
    );
    assert_eq!(
        client.text(r##"{"event":"#subscribe","data":{"channel":"a"},"cid":"2"}"##),
        NOTHING
    );
}

#[test]
fn a_refused_subscribe_is_answered_if_it_is_a_call() {
    let mut client = Client::open(Probe::default());
    let text = r##"{"event":"#subscribe","data":{"channel":"denied","data":{"a":1}},"cid":2}"##;
    assert_eq!(
        client.text(text),
        [r#"{"rid":2,"error":{"message":"no","name":"Denied","data":"{\"a\":1}"}}"#]
    );
    assert_eq!(client.text(&text.replace(",\"cid\":2", "")), NOTHING);
}

#[test]
fn outcomes_of_subscribes_and_unsubscribes_are_worded_as_by_the_reference() {
    let client = Client::open(Probe::default());
    let id = client.session.id;
    let mut decisions = Decisions::new();
    let channel = decisions.write(|out| out.extend_from_slice(b"a\"b"));
    let cid = Some(decisions.write(|out| out.extend_from_slice(b"1.5")));
    let mut answers = Vec::new();
    for outcome in [
        SubscribeOutcome::Subscribed,
        SubscribeOutcome::TooMany { limit: 3 },
    ] {
        answers.push(client.session.subscribed(channel, cid, outcome, &mut decisions));
        assert_eq!(
            client.session.subscribed(channel, None, outcome, &mut decisions),
            None
        );
    }
    for outcome in [
        UnsubscribeOutcome::Unsubscribed,
        UnsubscribeOutcome::NotSubscribed,
    ] {
        answers.push(client.session.unsubscribed(channel, cid, outcome, &mut decisions));
        assert_eq!(
            client
                .session
                .unsubscribed(channel, None, outcome, &mut decisions),
            None
        );
    }
    let answers: Vec<_> = answers
        .into_iter()
        .map(|span| String::from_utf8_lossy(decisions.bytes(span.unwrap())).into_owned())
        .collect();
    let broker_error =
        |message: &str| format!(r#"{{"rid":1.5,"error":{{"message":"{message}","name":"BrokerError"}}}}"#);
    assert_eq!(
        answers,
        [
            r#"{"rid":1.5}"#.to_owned(),
            broker_error(&format!(
                "Failed to subscribe socket to the a\\\"b channel - InvalidActionError: \
                 Socket {id} tried to exceed the channel subscription limit of 3"
            )),
            r#"{"rid":1.5}"#.to_owned(),
            broker_error(&format!(
                "Failed to unsubscribe socket from the a\\\"b channel - InvalidActionError: \
                 Socket {id} tried to unsubscribe from a channel which it is not subscribed to"
            )),
        ]
    );
}

#[test]
fn unsubscribes_carry_a_bare_string() {
    let mut client = Client::open(Probe::default());
    for data in ["5", "null", r#"{"channel":"a"}"#, "[\"a\"]"] {
        let text = format!(r##"{{"event":"#unsubscribe","data":{data},"cid":3}}"##);
        assert_eq!(
            client.text(&text),
            [error("3", "Unsubscribe channel name was malformatted")]
        );
        assert_eq!(client.text(&text.replace(",\"cid\":3", "")), NOTHING);
    }
    assert_eq!(
        client.text(r##"{"event":"#unsubscribe","cid":2}"##),
        [error("2", "Unsubscribe channel name was malformatted")]
    );
    assert_eq!(
        client.text(r##"{"event":"#unsubscribe","data":"u","cid":7}"##),
        ["unsubscribe u 7"]
    );
    assert_eq!(
        client.text(r##"{"event":"#unsubscribe","data":"u"}"##),
        ["unsubscribe u -"]
    );
}

#[test]
fn publishes_of_the_wrong_shape_are_refused_if_they_are_calls() {
    let mut client = Client::open(Probe::default());
    for data in [
        "null",
        "{}",
        r#"{"channel":5,"data":1}"#,
        "\"x\"",
        r#"{"channel":null}"#,
    ] {
        let text = format!(r##"{{"event":"#publish","data":{data},"cid":4}}"##);
        assert_eq!(
            client.text(&text),
            [error("4", "Publish channel name was malformatted")]
        );
        assert_eq!(client.text(&text.replace(",\"cid\":4", "")), NOTHING);
    }
}

#[test]
fn publishes_go_on_as_they_came_and_are_acknowledged_after() {
    let mut client = Client::open(Probe::default());
    for (data, channel, passed_on) in [
        (
            r#"{"data":{ "a" : 1.0 },"channel":"x","extra":9}"#,
            "x",
            r#"{"channel":"x","data":{ "a" : 1.0 }}"#,
        ),
        (r#"{"channel":""}"#, "", r#"{"channel":""}"#),
        (
            r#"{"channel":"x","data":null}"#,
            "x",
            r#"{"channel":"x","data":null}"#,
        ),
        (
            r#"{"channel":"\u0061\/\n","data":1}"#,
            "a/\n",
            r#"{"channel":"a/\n","data":1}"#,
        ),
        (
            r#"{"channel":"x","data":[1e400,-0,1]}"#,
            "x",
            r#"{"channel":"x","data":[null,0,1]}"#,
        ),
        (
            r#"{"channel":"x","data":{"type":"Buffer","data":[104,105]}}"#,
            "x",
            r#"{"channel":"x","data":{"base64":true,"data":"aGk="}}"#,
        ),
        (
            r#"{"channel":"changed","data":7}"#,
            "changed",
            r#"{"channel":"changed","data":[7]}"#,
        ),
    ] {
        let text = format!(r##"{{"event":"#publish","data":{data},"cid":5}}"##);
        let published = format!(r##"publish {channel} {{"event":"#publish","data":{passed_on}}}"##);
        assert_eq!(client.text(&text), [published.as_str(), r#"{"rid":5}"#]);
        assert_eq!(client.text(&text.replace(",\"cid\":5", "")), [published]);
    }
}

#[test]
fn refused_publishes_are_not_published() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.text(r##"{"event":"#publish","data":{"channel":"denied"},"cid":1}"##),
        [r#"{"rid":1,"error":{"message":"no"}}"#]
    );
    assert_eq!(
        client.text(r##"{"event":"#publish","data":{"channel":"denied"}}"##),
        NOTHING
    );
    assert_eq!(
        client.text(r##"{"event":"#publish","data":{"channel":"silent"},"cid":1}"##),
        [concat!(
            r#"{"rid":1,"error":{"message":"The publishIn AGAction was blocked by inbound middleware","#,
            r#""name":"SilentMiddlewareBlockedError","type":"inbound"}}"#
        )]
    );
    client.common.allow_client_publish = false;
    // The server checks this before the shape of the packet.
    assert_eq!(
        client.text(r##"{"event":"#publish","data":5,"cid":2}"##),
        [error("2", "Client publish feature is disabled")]
    );
    assert_eq!(
        client.text(r##"{"event":"#publish","data":{"channel":"a","data":1}}"##),
        NOTHING
    );
}

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

// --- PeerOrder: wire reference, section 12

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

// --- Authentication: wire reference, section 8

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

/// A security property: after its token has expired, a client must not receive what only the token allowed, even if it
/// sends nothing, or nothing but pongs.
#[test]
fn with_rules_a_ping_finds_an_expired_token_although_the_client_sends_nothing() {
    let rule = RuleSpec {
        effect: Effect::Allow,
        to: vec![Who::Authenticated],
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

// --- The built-in application

#[test]
fn pings_are_counted_over_all_clients_of_a_core() {
    let mut client = Client::open(Builtin::new());
    assert_eq!(
        client.text(r#"{"event":"ping"}"#),
        [r#"{"event":"pong","data":{"count":1}}"#]
    );
    assert_eq!(
        client.text(r#"{"event":"ping","data":{"count":1},"cid":5}"#),
        [r#"{"rid":5,"data":{"count":2}}"#]
    );
    assert_eq!(client.text(r#"{"event":"pong","cid":6}"#), NOTHING);
    let mut other = Client::open(client.app);
    assert_eq!(
        other.text(r#"{"event":"ping","cid":1}"#),
        [r#"{"rid":1,"data":{"count":3}}"#]
    );
}

// --- Calls by the server: wire reference, sections 1, 6 and 8

fn end<A: App>(client: &mut Client<A>) {
    client.run(|session, env, _| {
        session.ended(env, CloseReason::PeerVanished);
        Ok(())
    });
}

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
    let settings = Settings {
        ping_interval: None,
        ..Settings::default()
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

// --- Batches, late answers and close reasons

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
        token: cid.into(),
        owed: None,
        answer: Box::new(|peer| {
            peer.transmit("t", &1);
            peer.reply("late")
        }),
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

// --- Any input

mod hostile {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<f64>()
                .prop_filter("finite", |number| number.is_finite())
                .prop_map(|number| number.to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            prop::sample::select(vec![
                "null",
                "true",
                "false",
                "-0",
                "1e400",
                "-1E-400",
                "\"\"",
                "\"\\ud800\"",
                "\"Buffer\"",
                "[]",
                "{}",
                "{\"type\":\"Buffer\",\"data\":[1,255]}",
                "{\"__proto__\":1}",
                "[1,",
                "{\"a\"",
                "\"",
                "\\",
                "NaN",
            ])
            .prop_map(str::to_owned),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(","))),
                (name(), inner).prop_map(|(key, value)| format!("{{{key}:{value}}}")),
            ]
        })
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => prop::sample::select(vec![
                "#handshake", "#authenticate", "#removeAuthToken", "#publish", "#subscribe", "#unsubscribe", "echo",
                "order", "login", "oldLogin", "logout", "kick", "sum", "who", "expired", "call", "confirmLogin", "confirmLogout",
                "batchMe", "batchCall", "later", "fail", "block", "denied", "changed", "silent", "told", "channel", "data",
                "authToken", "__proto__",
            ])
            .prop_map(|name| format!("\"{name}\"")),
            1 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            1 => Just("\"\\ud800\"".to_owned()),
        ]
    }

    fn packet() -> impl Strategy<Value = String> {
        let channel =
            (name(), json()).prop_map(|(channel, data)| format!("{{\"channel\":{channel},\"data\":{data}}}"));
        prop_oneof![
            4 => (name(), prop_oneof![json(), channel], json())
                .prop_map(|(event, data, cid)| format!("{{\"event\":{event},\"data\":{data},\"cid\":{cid}}}")),
            2 => (name(), json(), 0u32..5)
                .prop_map(|(event, data, cid)| format!("{{\"event\":{event},\"data\":{data},\"cid\":{cid}}}")),
            2 => (0u32..6, json(), json())
                .prop_map(|(rid, data, error)| format!("{{\"rid\":{rid},\"data\":{data},\"error\":{error}}}")),
            1 => json(),
            1 => any::<String>(),
        ]
    }

    fn message() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => packet(),
            1 => prop::collection::vec(packet(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
        ]
    }

    /// Checks that every message to the client is JSON or a ping.
    fn check(outcome: &Outcome) {
        for line in &outcome.0 {
            let text = match line.split_once(' ') {
                Some(("subscribe" | "unsubscribe" | "close", _)) => continue,
                // The line begins with the name of the channel, which may contain any text.
                Some(("publish" | "kick", rest)) => match rest.find(" {\"event\":") {
                    Some(at) => &rest[at + 1..],
                    None => continue,
                },
                _ => line,
            };
            assert!(
                matches!(text, "" | "#1") || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_causes_a_panic_or_a_message_that_is_not_json(
            messages in prop::collection::vec((message(), 0u64..6000), 0..12),
            shakes_hands: bool,
        ) {
            let mut client = Client::new(Probe::default());
            if shakes_hands {
                client.shake_hands();
            }
            for (message, wait) in &messages {
                check(&client.text(message));
                check(&client.binary(message.as_bytes()));
                check(&client.wait_ms(*wait).tick());
            }
            end(&mut client);
        }
    }
}

/// A client with `allow_anonymous` off, which must authenticate within `timeout_ms`.
fn shut_out(timeout_ms: Option<u64>) -> Client<Probe> {
    let mut client = Client::new(Probe::default());
    client.common.allow_anonymous = false;
    client.common.authentication_timeout = timeout_ms.map(Duration::from_millis);
    client.shake_hands();
    client
}

impl<A: App> Client<A> {
    fn authenticate_for(&mut self, seconds: u64) {
        let token = self
            .policy
            .tokens
            .sign("{}", Some(seconds), self.now.unix_ms)
            .unwrap();
        assert_eq!(
            self.text(&format!(
                r##"{{"event":"#authenticate","data":"{token}","cid":9}}"##
            )),
            [r#"{"rid":9,"data":{"isAuthenticated":true,"authError":null}}"#]
        );
    }

    /// Gives the session the answer of the password checks.
    fn answer_login(&mut self, answer: LoginAnswer) -> Outcome {
        self.run(|session, env, decisions| session.login_answered(answer, env, decisions))
    }

    fn accepted_login(&self, expires_in: u64) -> (LoginAnswer, String) {
        let issued = self
            .policy
            .tokens
            .issue(r#"{"sub":"a"}"#, Some(expires_in), self.now.unix_ms)
            .unwrap();
        let token = format!(
            r##"{{"event":"#setAuthToken","data":{{"token":"{}"}}}}"##,
            issued.token
        );
        (LoginAnswer::Accepted(issued), token)
    }

    fn with_password_checks(mut self) -> Client<A> {
        let settings = crate::login::PasswordCheckSettings {
            threads: 1,
            waiting_max: 1,
            nat64_prefixes: crate::client::network::Nat64Prefixes::default(),
            policy: crate::login::backoff::BackoffPolicy {
                failures_max: 1,
                delay_first: Duration::from_secs(1),
                delay_max: Duration::from_secs(1),
                accounts_max: 1,
            },
        };
        let users = crate::auth::passwords::PasswordFile::default().users().unwrap();
        let clock = crate::clock::Clock::begin();
        self.policy.login =
            Some(crate::login::PasswordChecks::open(settings, Arc::new(users), clock).unwrap());
        self
    }
}

const KICKED_OUT: &str = r#"kick all "No longer authenticated""#;
const LOGIN_CALL: &str = r#"{"event":"login","data":{"email":"a","pw":"b"},"cid":2}"#;

#[test]
fn a_client_that_is_not_authenticated_may_authenticate_and_nothing_else() {
    let mut client = shut_out(None);
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
    let mut client = shut_out(None);
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
    let mut client = shut_out(None);
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
    let mut client = shut_out(Some(3000));
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
    let mut client = shut_out(None).with_password_checks();
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
    // A login for which there was no room is over.
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
    let mut client = shut_out(None).with_password_checks();
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
    let mut client = shut_out(None);
    let open = Client::open(Probe::default()).text(LOGIN_CALL);
    assert_eq!(client.text(LOGIN_CALL), open);
    assert_eq!(client.scratch.take_hits().of(Limit::Anonymous), 0);
}

#[test]
fn a_client_that_is_authenticated_for_a_part_of_an_array_keeps_no_subscription() {
    let mut client = Client::with_settings(Probe::default(), Settings::default());
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
    let many = vec![authenticate(r#"{"user":"ann"}"#); super::tokens::VERIFICATIONS_MAX as usize + 1];
    let mut outcome = client.text(&format!("[{}]", many.join(",")));
    let mut parts = 1;
    while client.session.has_more() {
        client.scratch.begin_verifications();
        outcome.0.extend(client.more().0);
        parts += 1;
    }
    assert_eq!(parts, 5, "four at a time");
    let refused = |line: &&String| line.contains(super::tokens::TOO_MANY_TOKENS);
    assert_eq!(outcome.0.iter().filter(refused).count(), 1, "{outcome:?}");
    assert!(refused(&outcome.0.last().unwrap()));
}

/// Handles messages that begin with `raw` itself, and sends them back.
#[derive(Default)]
struct Raw {
    calls: u32,
}

impl App for Raw {
    fn message(&mut self, message: Message<'_>, peer: &mut RawPeer<'_>) -> Inbound {
        match message {
            Message::Text(text) if text.starts_with("raw") => peer.send_text(text),
            Message::Binary(bytes) if bytes.starts_with(b"raw") => peer.send_binary(bytes),
            Message::Text(_) | Message::Binary(_) => return Inbound::Pass,
        }
        Inbound::Drop
    }

    fn transmit(&mut self, _call: &Call<'_>, _peer: &mut Peer<'_>) {
        self.calls += 1;
    }
}

#[test]
fn an_application_may_take_a_message_before_anything_looks_at_it() {
    let mut client = Client::new(Raw::default());
    // This works even before the handshake, when any other message would end the connection.
    assert_eq!(client.text("raw text"), ["raw text"]);
    assert_eq!(client.binary(b"raw\xff"), ["binary [114, 97, 119, 255]"]);
    client.shake_hands();
    assert_eq!(client.text(r#"raw {"event":"e"}"#), [r#"raw {"event":"e"}"#]);
    assert_eq!(client.text(r#"{"event":"e"}"#), NOTHING);
    assert_eq!(client.app.calls, 1);
}

#[test]
fn a_message_that_the_application_has_taken_breaks_the_silence() {
    let mut client = Client::open(Raw::default());
    client.wait_ms(20_000).text("raw");
    assert_eq!(client.wait_ms(20_000).tick(), [""]);
    assert_eq!(client.wait_ms(10_000).tick(), ["close 4001"]);
}

/// A client of a server that keeps the history of `room`, both of `both`, and the last value of `price`.
fn with_channels() -> Client<Probe> {
    let spec = |name: &str, history: bool, last_value: bool| ChannelSpec {
        names: vec![name.to_owned()],
        policy: ChannelPolicy {
            history: history.then_some(HistoryPolicy {
                entries_max: 10,
                bytes_max: 1000,
                age_ms_max: 1000,
            }),
            last_value,
            position: true,
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    };
    let specs = [
        spec("room", true, false),
        spec("both", true, true),
        spec("price", false, true),
        spec("denied", true, false),
    ];
    let mut client = Client::open(Probe::default());
    client.policy.channels = Channels::compile(&specs, b'.', None).unwrap();
    client
}

fn subscribe_with(client: &mut Client<Probe>, channel: &str, data: &str) -> Outcome {
    client.text(&format!(
        r##"{{"event":"#subscribe","data":{{"channel":"{channel}","data":{data}}},"cid":7}}"##
    ))
}

#[test]
fn a_subscriber_gets_of_the_past_what_it_asks_for_and_what_the_policy_says() {
    let mut client = with_channels();
    for (channel, data, expected) in [
        ("room", "null", "subscribe room 7"),
        ("room", r#"{"x":1}"#, "subscribe room 7"),
        ("room", r#"{"recover":null}"#, "subscribe room 7 Position"),
        ("room", r#"{"last":3}"#, "subscribe room 7 Last(3)"),
        ("room", r#"{"since":5}"#, "subscribe room 7 Since(5)"),
        (
            "room",
            r#"{"recover":{"epoch":"k3j9x0ab","offset":12}}"#,
            "subscribe room 7 After(Position { epoch: k3j9x0ab, offset: 12 })",
        ),
        (
            "room",
            r#"{"recover":{"epoch":"","offset":12}}"#,
            "subscribe room 7 OtherEpoch",
        ),
        ("both", "null", "subscribe both 7 LastValue"),
        ("both", r#"{"recover":null}"#, "subscribe both 7 Last(1)"),
        ("both", r#"{"last":3}"#, "subscribe both 7 Last(3)"),
        ("price", "null", "subscribe price 7 LastValue"),
        ("price", r#"{"last":3}"#, "subscribe price 7 LastValue"),
        ("price", r#"{"last":"x"}"#, "subscribe price 7 LastValue"),
        ("other", r#"{"last":"x"}"#, "subscribe other 7"),
        (
            "room",
            r#"{"last":"x"}"#,
            r#"{"rid":7,"error":{"message":"Subscribe option last was malformatted","name":"InvalidActionError"}}"#,
        ),
        (
            "denied",
            r#"{"last":3}"#,
            r#"{"rid":7,"error":{"name":"Denied","message":"no","with":"{\"last\":3}"}}"#,
        ),
    ] {
        let outcome = subscribe_with(&mut client, channel, data);
        if channel == "denied" {
            // The application is asked as ever, and gets the data.
            assert!(
                outcome.0.len() == 1 && outcome.0[0].contains("Denied"),
                "{outcome:?}"
            );
            continue;
        }
        assert_eq!(outcome, [expected], "{channel} {data}");
    }
    // Without a call id nothing is subscribed, as ever.
    assert_eq!(
        client.text(r##"{"event":"#subscribe","data":{"channel":"room","data":{"last":3}}}"##),
        NOTHING
    );
}

#[test]
fn a_client_that_may_not_ask_for_the_history_is_subscribed_all_the_same() {
    let mut client = with_channels();
    client.policy.rules = rules(&[Action::Subscribe]);
    assert_eq!(
        subscribe_with(&mut client, "both", r#"{"last":3}"#),
        ["subscribe both 7 Forbidden"]
    );
    assert_eq!(
        subscribe_with(&mut client, "both", "null"),
        ["subscribe both 7 LastValue"]
    );
    client.policy.rules = rules(&[Action::Subscribe, Action::History]);
    assert_eq!(
        subscribe_with(&mut client, "both", r#"{"last":3}"#),
        ["subscribe both 7 Last(3)"]
    );
}

#[test]
fn a_history_is_read_by_call_if_the_rules_allow_it_and_channels_have_policies() {
    let call = r##"{"event":"$history","data":{"channel":"room","last":3},"cid":7}"##;
    let mut client = with_channels();
    assert_eq!(client.text(call), ["history room 7 Last(3) 100"]);
    assert_eq!(client.text(&call.replace(r#","cid":7"#, "")), NOTHING);
    // A client for each set of rules: decisions of one set are remembered, and all sets here have the same number.
    let with_rules = |actions: &[Action]| {
        let mut client = with_channels();
        client.policy.rules = rules(actions);
        client
    };
    let refused = with_rules(&[Action::Subscribe, Action::Invoke]).text(call);
    assert!(
        refused.0.len() == 1 && refused.0[0].contains(r#"{"rid":7,"error":"#),
        "{refused:?}"
    );
    let mut client = with_rules(&[Action::History]);
    assert_eq!(client.text(call), ["history room 7 Last(3) 100"]);
    let malformed = client.text(&call.replace("last", "first"));
    assert!(malformed.0[0].contains("InvalidActionError"), "{malformed:?}");
    // Without policies the call is the application's, as ever.
    let mut client = with_rules(&[Action::Invoke]);
    client.policy.channels = Arc::default();
    assert!(!client.text(call).0.iter().any(|line| line.starts_with("history")));
}

/// Rules that allow anybody these actions, and nothing else.
fn rules(actions: &[Action]) -> Arc<Rules> {
    let rule = RuleSpec {
        effect: Effect::Allow,
        to: vec![Who::Anyone],
        actions: actions.to_vec(),
        ..RuleSpec::default()
    };
    Rules::compile(&[rule], &[], '.', None).unwrap()
}

#[test]
fn the_answer_about_the_history_says_how_it_went() {
    let client = with_channels();
    let position = Position {
        epoch: Epoch::from_text(b"k3j9x0ab").unwrap(),
        offset: 12,
    };
    let answer = |gap, publications| {
        let told = Recovered {
            gap,
            position,
            publications,
        };
        let mut out = Vec::new();
        client.session.recovered(b"7", Some(&told), &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        answer(None, 3),
        r#"{"rid":7,"data":{"recovered":true,"position":{"epoch":"k3j9x0ab","offset":12},"publications":3}}"#
    );
    assert_eq!(
        answer(Some(Gap::OtherEpoch), 0),
        r#"{"rid":7,"data":{"recovered":false,"reason":"other epoch","position":{"epoch":"k3j9x0ab","offset":12},"publications":0}}"#
    );
    let mut out = Vec::new();
    client.session.recovered(b"7", None, &mut out);
    assert_eq!(out, br#"{"rid":7}"#);
}
