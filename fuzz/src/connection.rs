//! A whole connection, fed by a script of reads and clock steps: the way from bytes to decisions, without sockets.
//!
//! A script consists of lines. The first line has the settings, a letter each: `1`, `2` for the protocol's version, `a`
//! to serve only authenticated clients, `n` to let no client publish, `r` for rules, `p` for no pings, `h` for a
//! connection that begins with an HTTP request, `x` for one that begins with a PROXY header. Each other line is a step;
//! its first letter is the kind:
//!
//! ```text
//!   t TEXT      a text message in one frame         b BYTES     a binary one
//!   f TEXT      its first fragment                  c, C BYTES  another fragment; the last
//!   w PAYLOAD   a ping                              x PAYLOAD   a close frame
//!   r BYTES     bytes as they are                   l BYTES     the same, and a line end: for heads
//!   + MS        the clock goes on                   ! CLAIMS    `#authenticate` with a token with these claims
//!   ~           the rules change                    k CLAIM     a token is revoked, `{"sub":"bob"}`
//! ```
//! (without the space). Each script runs twice, the second time with each read cut to single bytes: the bytes sent and
//! the decisions must be the same.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::hmac::HMAC_SHA256;

use ringcast::config::rules::{Action, Effect, RuleSpec};
use ringcast::config::secret::Secret;
use ringcast::config::{Config, Protocol};
use ringcast::internals::auth::{Revocation, Revoked};
use ringcast::internals::client::proxy_header;
use ringcast::internals::clock::{Now, Uptime};
use ringcast::internals::decision::{
    CloseReason, Decision, Decisions, Message, Span, Stored, SubscribeOutcome, UnsubscribeOutcome,
};
use ringcast::internals::http::request;
use ringcast::internals::policy::Policy;
use ringcast::internals::protocols::{
    Environment, ProtocolSettings, Scratch, Session, SocketClusterSettings,
};
use ringcast::internals::session::{self, SessionId, SessionIds};
use ringcast::internals::socketcluster;
use ringcast::internals::websocket::{
    CloseFrame, Limits, OpCode, Received, Receiver, Step, frame, handshake,
};
use ringcast::internals::wills::HeldWill;
use serde_json::value::RawValue;

use super::json_model::{self, Value};
use super::probe::{APP_CHANNEL, Probe};
use super::tokens;

/// Most channels of the connection.
const CHANNELS_MAX: u32 = 5;

/// Most bytes of a channel's name.
const CHANNEL_NAME_BYTES_MAX: u32 = 100;

/// Most calls of the server's that wait for an answer.
const CALLS_MAX: u32 = 4;

/// How many packets of an array are handled together.
const PACKETS_MAX: u64 = 3;

const LIMITS: Limits = Limits {
    message_bytes_max: 16 * 1024,
    frame_bytes_max: 16 * 1024,
    fragments_max: 8,
};

/// Runs a script, and once more in small pieces.
pub fn connection(data: &[u8]) {
    let whole = run(data, false);
    let cut = run(data, true);
    assert_eq!(whole, cut, "what comes in pieces is not what comes at once");
}

/// The bytes sent and the decisions, in order.
#[derive(Debug, Default, PartialEq)]
struct Transcript(Vec<Said>);

#[derive(Debug, PartialEq)]
enum Said {
    Http(Vec<u8>),
    Text(String),
    Pong(Vec<u8>),
    Closed(Vec<u8>),
    Published(Vec<u8>, String),
    Ended(CloseReason),
}

fn run(script: &[u8], in_pieces: bool) -> Transcript {
    let mut lines = script.split(|&byte| byte == b'\n');
    let mut run = Run::new(lines.next().unwrap_or_default());
    let mut unread = Vec::new();
    for line in lines.take(200) {
        let Some((kind, rest)) = line.split_first() else {
            continue;
        };
        match kind {
            b't' => client_frame(0x81, rest, &mut unread),
            b'b' => client_frame(0x82, rest, &mut unread),
            b'f' => client_frame(0x01, rest, &mut unread),
            b'c' => client_frame(0x00, rest, &mut unread),
            b'C' => client_frame(0x80, rest, &mut unread),
            b'w' => client_frame(0x89, &rest[..rest.len().min(125)], &mut unread),
            b'x' => client_frame(0x88, &rest[..rest.len().min(125)], &mut unread),
            b'r' => unread.extend_from_slice(rest),
            b'l' => unread.extend_from_slice(&[rest, b"\r\n"].concat()),
            b'!' => {
                let token = tokens::signed(br#"{"alg":"HS256","typ":"JWT"}"#, rest, HMAC_SHA256);
                let text = format!(r##"{{"event":"#authenticate","data":"{token}","cid":77}}"##);
                client_frame(0x81, text.as_bytes(), &mut unread);
                run.was_shown_a_token = true;
            }
            b'+' | b'~' | b'k' => {
                run.read(&std::mem::take(&mut unread), in_pieces);
                run.act(*kind, rest);
            }
            _ => {}
        }
    }
    run.read(&unread, in_pieces);
    run.end(CloseReason::PeerVanished);
    run.transcript
}

/// A frame as a client sends it, its mask made of its length.
fn client_frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(0xffff)];
    let length = u16::try_from(payload.len()).expect("cut to that");
    out.push(first);
    match u8::try_from(length) {
        Ok(short) if short <= 125 => out.push(0x80 | short),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    let mask = [1, length.to_le_bytes()[0], 3, first];
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    frame::unmask(&mut out[start..], frame::Mask::new(mask));
}

struct Run {
    phase: Phase,
    input: Vec<u8>,
    policy: Policy,
    settings: ProtocolSettings,
    app: Probe,
    scratch: Scratch,
    now: Now,
    channels: BTreeSet<Vec<u8>>,
    has_rules: bool,
    was_shown_a_token: bool,
    transcript: Transcript,
}

enum Phase {
    ProxyHeader { then_request: bool },
    Request,
    Open(Box<Open>),
    Over,
}

struct Open {
    receiver: Receiver,
    session: Session,
}

/// All sessions have the same id, so that their bytes can be compared.
static ID: LazyLock<SessionId> = LazyLock::new(|| SessionIds::new().expect("random bytes").next_id());

static POLICIES: LazyLock<[Policy; 3]> = LazyLock::new(|| {
    let rule = |actions: &[Action], channels: Option<&[&str]>| RuleSpec {
        effect: Effect::Allow,
        actions: actions.to_vec(),
        channels: channels.map(|all| all.iter().map(|&text| text.to_owned()).collect()),
        ..RuleSpec::default()
    };
    let events = [Action::Invoke, Action::Transmit];
    let channels = [Action::Subscribe, Action::Publish];
    let strict = vec![rule(&events, None), rule(&channels, Some(&["open"]))];
    let usual = vec![
        rule(&events, None),
        rule(&channels, Some(&["open/**", "of/{sub}/*"])),
    ];
    [Vec::new(), usual, strict].map(|rules| {
        let mut config = Config::default();
        config.auth.key = Some(Secret::new(tokens::SECRET));
        config.permissions.rules = rules;
        config.permissions.rules_separator = '/';
        Policy::open(&config).expect("a configuration without files")
    })
});

impl Run {
    fn new(letters: &[u8]) -> Run {
        let has = |letter| letters.contains(&letter);
        let settings = ProtocolSettings {
            common: session::CommonSettings {
                allow_anonymous: !has(b'a'),
                authentication_timeout: has(b'a').then_some(Duration::from_secs(15)),
                allow_client_publish: !has(b'n'),
                channel_name_bytes_max: CHANNEL_NAME_BYTES_MAX,
                ..session::CommonSettings::default()
            },
            socketcluster: SocketClusterSettings {
                protocol: match (has(b'1'), has(b'2')) {
                    (true, _) => Protocol::V1,
                    (_, true) => Protocol::V2,
                    _ => Protocol::Auto,
                },
                ping_interval: (!has(b'p')).then_some(Duration::from_secs(8)),
                calls_max: CALLS_MAX,
                client_calls_max: CALLS_MAX,
                ..SocketClusterSettings::default()
            },
            ..ProtocolSettings::default()
        };
        let mut run = Run {
            phase: Phase::Request,
            input: Vec::new(),
            policy: POLICIES[usize::from(has(b'r'))].clone(),
            settings,
            app: Probe {
                gives_tokens: !has(b'a'),
                is_connected: false,
            },
            scratch: Scratch::default(),
            now: Now {
                uptime: Uptime::from_ms(5_000),
                unix_ms: tokens::UNIX_MS,
            },
            channels: BTreeSet::new(),
            has_rules: has(b'r'),
            was_shown_a_token: false,
            transcript: Transcript::default(),
        };
        if has(b'x') {
            run.phase = Phase::ProxyHeader {
                then_request: has(b'h'),
            };
        } else if !has(b'h') {
            run.open();
        }
        run
    }

    fn open(&mut self) {
        let session = socketcluster::session::Session::new(*ID, &self.settings.socketcluster, self.now, None);
        self.phase = Phase::Open(Box::new(Open {
            receiver: Receiver::new(),
            session: Session::SocketCluster(session),
        }));
    }

    fn read(&mut self, bytes: &[u8], in_pieces: bool) {
        let size = if in_pieces { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(size) {
            self.input.extend_from_slice(piece);
            while self.step() {}
        }
    }

    /// Handles one step of the input; returns whether there may be more.
    fn step(&mut self) -> bool {
        let mut input = std::mem::take(&mut self.input);
        let consumed = match &self.phase {
            Phase::ProxyHeader { then_request } => match proxy_header::parse(&input) {
                Ok(None) => None,
                Ok(Some(header)) => {
                    if *then_request {
                        self.phase = Phase::Request;
                    } else {
                        self.open();
                    }
                    Some(header.length)
                }
                Err(_) => {
                    self.phase = Phase::Over;
                    None
                }
            },
            Phase::Request => self.receive_request(&input),
            Phase::Open(_) => self.receive_message(&mut input),
            Phase::Over => None,
        };
        if matches!(self.phase, Phase::Over) {
            return false;
        }
        input.drain(..consumed.unwrap_or(0));
        self.input.append(&mut input);
        // `receive_message` reports "nothing more" for bytes that are consumed and not yet a whole message.
        consumed.is_some()
    }

    fn receive_request(&mut self, input: &[u8]) -> Option<usize> {
        let mut out = Vec::new();
        let accepted = request::parse(input, 2048).and_then(|found| {
            let Some((request, length)) = found else {
                return Ok(None);
            };
            handshake::upgrade(&request, "/socketcluster/")?.write(&mut out);
            Ok(Some(length))
        });
        match accepted {
            Ok(None) => None,
            Ok(Some(length)) => {
                self.transcript.0.push(Said::Http(out));
                self.open();
                Some(length)
            }
            Err(refusal) => {
                refusal.write(&mut out);
                self.transcript.0.push(Said::Http(out));
                self.phase = Phase::Over;
                None
            }
        }
    }

    fn receive_message(&mut self, input: &mut Vec<u8>) -> Option<usize> {
        let Phase::Open(mut open) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return None;
        };
        let Open { receiver, session } = &mut *open;
        let mut decisions = Decisions::new();
        let mut answer = Vec::new();
        let (consumed, result) = match receiver.receive(input, &LIMITS) {
            Err(reason) => (None, Err(reason)),
            Ok(Step::Incomplete { consumed }) => {
                input.drain(..consumed);
                self.phase = Phase::Open(open);
                return None;
            }
            Ok(Step::Message { received, consumed }) => {
                let message = match received {
                    Received::Text(text) => Some(Message::Text(text)),
                    Received::Binary(bytes) => Some(Message::Binary(bytes)),
                    Received::Pong => None,
                    Received::Ping(payload) => {
                        self.transcript.0.push(Said::Pong(payload.to_vec()));
                        None
                    }
                    Received::Close(close) => {
                        close.write(&mut answer);
                        None
                    }
                };
                let length = match message {
                    Some(Message::Text(text)) => text.len(),
                    Some(Message::Binary(bytes)) => bytes.len(),
                    None => 0,
                };
                let mut result = match message {
                    Some(message) => session.receive(message, &mut self.environment(), &mut decisions),
                    None => Ok(()),
                };
                while result.is_ok() && session.has_more() {
                    result = session.receive_more(&mut self.environment(), &mut decisions);
                }
                // A packet has a few bytes, its decisions a few hundred, and its answers six times as many.
                assert!(
                    decisions.bytes_len() <= 2000 + 400 * length,
                    "{} bytes",
                    decisions.bytes_len()
                );
                (Some(consumed), result)
            }
        };
        self.phase = Phase::Open(open);
        self.carry_out(decisions, result);
        if !answer.is_empty() {
            self.transcript.0.push(Said::Closed(answer));
            self.end(CloseReason::PeerClosed);
        }
        consumed
    }

    fn environment(&mut self) -> Environment<'_, Probe> {
        Environment {
            common: session::Environment {
                now: self.now,
                address: 0,
                settings: &self.settings.common,
                policy: &self.policy,
                app: &mut self.app,
                scratch: &mut self.scratch.common,
                packets_max: PACKETS_MAX,
            },
            settings: &self.settings,
            socketcluster: &mut self.scratch.socketcluster,
            mqtt: None,
        }
    }

    /// The steps that are not reads.
    fn act(&mut self, kind: u8, rest: &[u8]) {
        let text = String::from_utf8_lossy(rest);
        if kind == b'+' {
            let ms = text.parse().unwrap_or(1_u64).min(10_000_000);
            self.now.uptime = self.now.uptime + Duration::from_millis(ms);
            self.now.unix_ms += ms;
        }
        let Phase::Open(mut open) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        let session = &mut open.session;
        let mut decisions = Decisions::new();
        let mut result = Ok(());
        match kind {
            b'+' if session.next_deadline(&self.settings) <= self.now.uptime => {
                result = session.timed_out(&mut self.environment(), &mut decisions);
                let next = session.next_deadline(&self.settings);
                assert!(
                    result.is_err() || next > self.now.uptime,
                    "what was due has been done"
                );
            }
            b'+' => {}
            b'~' => {
                // From no rules to some and from some to others, but never back to none: so allowed actions can be
                // checked.
                self.policy = POLICIES[2].clone();
                self.has_rules = true;
                session.rules_changed(&mut self.environment(), &mut decisions);
            }
            _ => {
                if let Ok(what) = Revoked::parse(&text) {
                    let revocation = Revocation::new(what, self.now.unix_ms / 1000, u64::MAX);
                    if session.revoke(&revocation, &mut decisions) {
                        result = Err(CloseReason::Revoked);
                    }
                }
            }
        }
        self.phase = Phase::Open(open);
        self.carry_out(decisions, result);
    }

    /// As a core does.
    fn carry_out(&mut self, mut decisions: Decisions, result: Result<(), CloseReason>) {
        let mut at = 0;
        while let Some(decision) = decisions.decision(at) {
            at += 1;
            if let Decision::Close { reason, text } = decision {
                let said = String::from_utf8_lossy(decisions.bytes(text)).into_owned();
                self.close(reason, &said);
                return;
            }
            self.carry_out_one(decision, &mut decisions);
        }
        if let Err(reason) = result {
            self.close(reason, "");
        }
    }

    fn carry_out_one(&mut self, decision: Decision, decisions: &mut Decisions) {
        let Phase::Open(mut open) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        let session = &mut open.session;
        let said = &mut self.transcript;
        match decision {
            Decision::Send { message } => said.send(decisions, message),
            Decision::Subscribe { channel, token } => {
                let name = decisions.bytes(channel).to_vec();
                assert!(session.is_open() && name.len() <= CHANNEL_NAME_BYTES_MAX as usize);
                assert!(self.was_shown_a_token || self.settings.common.allow_anonymous);
                let is_room = self.channels.len() < CHANNELS_MAX as usize;
                let outcome = if is_room {
                    self.channels.insert(name);
                    SubscribeOutcome::Subscribed
                } else {
                    SubscribeOutcome::TooMany { limit: CHANNELS_MAX }
                };
                if let Some(answer) = session.subscribed(channel, token, outcome, decisions) {
                    said.send(decisions, answer);
                }
            }
            Decision::Unsubscribe { channel, token } => {
                let outcome = match self.channels.remove(decisions.bytes(channel)) {
                    true => UnsubscribeOutcome::Unsubscribed,
                    false => UnsubscribeOutcome::NotSubscribed,
                };
                if let Some(answer) = session.unsubscribed(channel, token, outcome, decisions) {
                    said.send(decisions, answer);
                }
            }
            Decision::KickOut { channel, message } => {
                self.channels.remove(decisions.bytes(channel));
                said.send(decisions, message);
            }
            Decision::KickOutAll { reason } => {
                for channel in std::mem::take(&mut self.channels) {
                    let message = session.kicked_out(&channel, reason, decisions);
                    said.send(decisions, message);
                }
            }
            Decision::CheckSubscriptions => {
                for channel in std::mem::take(&mut self.channels) {
                    if session.may_keep(&channel, &self.policy) {
                        self.channels.insert(channel);
                    } else {
                        let message = session.forbidden(&channel, decisions);
                        said.send(decisions, message);
                    }
                }
            }
            Decision::Publish(publish) => {
                let name = decisions.bytes(publish.channel).to_vec();
                let text = text_of(decisions, publish.message);
                check_publication(&name, &text);
                if name != APP_CHANNEL.as_bytes() {
                    assert!(session.is_open() && self.settings.common.allow_client_publish);
                    assert!(self.was_shown_a_token || self.settings.common.allow_anonymous);
                    let is_open_to_all = name == b"open" || name.starts_with(b"open/");
                    assert!(
                        is_open_to_all || !self.has_rules || self.was_shown_a_token || self.app.gives_tokens
                    );
                }
                said.0.push(Said::Published(name, text));
            }
            Decision::SetWill { will, token } => {
                let held = HeldWill::read(decisions.bytes(will)).expect("the session has written it");
                let name = &*held.will.channel;
                assert!(session.is_open() && self.settings.common.allow_client_publish);
                assert!(self.was_shown_a_token || self.settings.common.allow_anonymous);
                let is_open_to_all = name == b"open" || name.starts_with(b"open/");
                assert!(is_open_to_all || !self.has_rules || self.was_shown_a_token || self.app.gives_tokens);
                if let Some(answer) = session.will_set(token, Ok(()), decisions) {
                    said.send(decisions, answer);
                }
            }
            Decision::DropWill { token } => {
                if let Some(answer) = session.will_set(token, Ok(()), decisions) {
                    said.send(decisions, answer);
                }
            }
            Decision::Acknowledge { token } => {
                match session.stored(token, Stored::Yes, &mut self.environment(), decisions) {
                    Ok(answer) => self.transcript.send(decisions, answer),
                    Err(reason) => panic!("{reason:?}: a client can be told that its publication is stored"),
                }
            }
            // No channel has presence, so nothing depends on the user.
            Decision::UserChanged | Decision::EnterRoom { .. } | Decision::LeaveRoom { .. } => {}
            Decision::SubscribeFrom { .. }
            | Decision::ReadHistory { .. }
            | Decision::SendRetained { .. }
            | Decision::SendBinary { .. }
            | Decision::AskPresence { .. }
            | Decision::AwaitSaved
            | Decision::SaveSession
            | Decision::ResumeSession
            | Decision::Login
            | Decision::EndOther { .. }
            | Decision::Close { .. } => {
                panic!("nothing here asks for {decision:?}")
            }
        }
        self.phase = Phase::Open(open);
    }

    fn close(&mut self, reason: CloseReason, said: &str) {
        if let Some(code) = reason.code() {
            let mut frame = Vec::new();
            CloseFrame {
                code: Some(code),
                reason: said,
            }
            .write(&mut frame);
            self.transcript.0.push(Said::Closed(frame));
        }
        self.end(reason);
    }

    fn end(&mut self, reason: CloseReason) {
        if let Phase::Open(mut open) = std::mem::replace(&mut self.phase, Phase::Over) {
            open.session.ended(&mut self.environment(), reason);
            assert!(!self.app.is_connected, "the application has heard of the end");
            assert!(!open.session.is_open());
            self.transcript.0.push(Said::Ended(reason));
        }
    }
}

impl Transcript {
    /// A message is a ping or JSON, and makes one frame.
    fn send(&mut self, decisions: &Decisions, message: Span) {
        let text = text_of(decisions, message);
        assert!(text.is_empty() || text == "#1" || is_json(&text), "{text:?}");
        let mut frame = Vec::new();
        frame::write(&mut frame, OpCode::Text, text.as_bytes());
        assert_eq!(frame::next_frame_len(&frame), Some(frame.len()));
        self.0.push(Said::Text(text));
    }
}

fn text_of(decisions: &Decisions, span: Span) -> String {
    let bytes = decisions.bytes(span).to_vec();
    String::from_utf8(bytes).expect("what is sent is text")
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// A publication is JSON, and names its channel.
fn check_publication(channel: &[u8], text: &str) {
    assert!(is_json(text), "{text:?}");
    if let Ok(value) = json_model::parse(text) {
        assert!(
            value
                .member("event")
                .is_some_and(|event| event.is_text("#publish"))
        );
        let name = value.member("data").and_then(|data| data.member("channel"));
        assert_eq!(name, Some(&Value::Text(json_model::units_of_wtf8(channel))));
    }
}
