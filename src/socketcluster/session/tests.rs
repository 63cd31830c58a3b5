use std::sync::Arc;
use std::time::Duration;

use super::super::environment;
use super::super::json::DEPTH_MAX;
use super::*;
use crate::app::builtin::Builtin;
use crate::app::{
    self, AllowedPublish, AnswerError, AnswerFailure, AppError, CallAnswer, CallId, CallRefused,
    LateAnswerSender, Returned, Undelivered,
};
use crate::auth::rules::Rules;
use crate::auth::{Credentials, Demands, Tokens};
use crate::config::Protocol;
use crate::config::rules::{Audience, Effect, RuleSpec};
use crate::decision::{
    CloseCode, Epoch, Gap, HistoryCall, Position, Recovered, Span, SubscribeOutcome, UnsubscribeOutcome,
    Wanted,
};
use crate::policy::Policy;
use crate::policy::channels::{ChannelPolicy, ChannelSpec, Channels, HistoryPolicy};
use crate::session::{self, LoginAnswer, SessionIds};
use crate::wills::HeldWill;

mod admission;
mod arrays;
mod calls;
mod channels;
mod handshake;
mod history;
mod hostile;
mod raw_messages;
mod retained;
mod server_calls;
mod timers;
mod tokens;
mod undecided;

/// A session with everything that a core lends it, and a clock that the test moves.
struct Client<A: App> {
    session: Session,
    common: session::CommonSettings,
    settings: SocketClusterSettings,
    policy: Policy,
    app: A,
    scratch: session::Scratch,
    buffers: environment::Scratch,
    now: Now,
    /// Number of packets of an array that are handled in one part.
    packets_max: u64,
}

/// Behaves like a core that has no room for late answers.
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
            SocketClusterSettings {
                protocol: Protocol::V2,
                ..SocketClusterSettings::default()
            },
        )
    }

    fn with_settings(app: A, settings: SocketClusterSettings) -> Client<A> {
        let now = Now {
            uptime: Uptime::from_ms(5_000),
            unix_ms: 1_000_000_000,
        };
        Client {
            session: Session::new(SessionIds::new().unwrap().next_id(), &settings, now, None),
            common: session::CommonSettings::default(),
            settings,
            policy: Policy::with_tokens(tokens()),
            app,
            scratch: session::Scratch::of_core(Arc::new(Full), 2),
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
            // Without presence, this decision has no effect.
            .filter(|decision| !matches!(decision, Decision::UserChanged))
            .map(|decision| match *decision {
                Decision::UserChanged => unreachable!("filtered out"),
                Decision::ResumeSession | Decision::EnterRoom { .. } | Decision::LeaveRoom { .. } => {
                    panic!("{decision:?}")
                }
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
                    let and_retain = if publish.retain { " and retain" } else { "" };
                    let (channel, message) = (text(publish.channel), text(publish.message));
                    format!("publish{and_retain} {channel} {message}")
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
                Decision::AwaitSaved => "await the disk".to_owned(),
                Decision::SaveSession => "save the session".to_owned(),
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

impl std::ops::Index<usize> for Outcome {
    type Output = str;

    fn index(&self, line: usize) -> &str {
        &self.0[line]
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

    fn disconnected(&mut self, _client: &mut app::Client<'_>, _reason: CloseReason) {
        self.disconnected += 1;
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

fn error(cid: &str, message: &str) -> String {
    format!(r#"{{"rid":{cid},"error":{{"message":"{message}","name":"InvalidActionError"}}}}"#)
}

fn end<A: App>(client: &mut Client<A>) {
    client.run(|session, env, _| {
        session.ended(env, CloseReason::PeerVanished);
        Ok(())
    });
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

/// Rules that allow these actions to all clients, and nothing else.
fn rules(actions: &[Action]) -> Arc<Rules> {
    let rule = RuleSpec {
        effect: Effect::Allow,
        to: vec![Audience::Anyone],
        actions: actions.to_vec(),
        ..RuleSpec::default()
    };
    Rules::compile(&[rule], &[], '.', None).unwrap()
}
