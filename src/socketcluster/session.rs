//! The session of one client: packets in, decisions out.
//!
//! ```text
//!  new ──► AwaitingHandshake ──#handshake──► Open ──ended──► Ended
//!               │  anything else: 4009, too late: 4005          ▲
//!               └───────────────────────ended──────────────────┘
//! ```
//!
//! Invariants
//! 1. Before the handshake no ping is sent, and every packet but `#handshake` ends the connection.
//! 2. The answers to a message come first, then the other packets that the application has sent while it handled that
//!    message. `#removeAuthToken` comes before the answer if a token has expired, and after it if a token was bad.
//! 3. The application is told of the end of a session once, and only if the handshake was completed. Before
//!    that it is told of the end of every call that it has made.
//!
//! ```text
//!  handshake.rs    the first packet              tokens.rs     tokens: offered, signed, expired
//!  channels.rs     publish, subscribe            timers.rs     pings, silence
//!  orders.rs       orders of the application     calls.rs      calls to the client, until they are answered
//!  permissions.rs  what the rules allow          admission.rs  clients that are not authenticated
//!  login.rs        a password instead of a token arrays.rs     many packets in one message
//!  wills.rs        last wills                recovery.rs   earlier publications for subscribers
//!  presence.rs     questions about members   history.rs    $history: earlier publications
//!  retain.rs       $retain: the retained publication of a channel
//!  undecided.rs    packets whose decision is deferred
//!  services.rs     clients that answer calls of others
//!  hook_decisions.rs  calls that a hook decides
//! ```
//!
//! All behaviour is that of the version 20 server, for both protocol versions: wire reference, sections 4, 5,
//! 7, 8, 11 and 12. There is one difference: a repeated handshake does not admit a client again.

mod admission;
mod arrays;
mod calls;
mod channels;
mod handshake;
mod history;
mod hook_decisions;
mod login;
mod orders;
mod permissions;
mod presence;
mod recovery;
mod retain;
mod services;
mod timers;
mod tokens;
mod undecided;
mod wills;

pub(crate) use self::history::HistoryLook;

#[cfg(test)]
pub(crate) use arrays::PART_BYTES_MAX;
pub(crate) use channels::write_publish;

use super::decode::{Decoded, decode};
use super::encode;
use super::environment::Environment;
use super::number::{Number, NumberText};
use super::packet::{Event, Packet, Reserved};
use super::rewrite;
use super::settings::SocketClusterSettings;
use super::version::Version;
use crate::app::{
    AnswerKind, App, Call, Inbound, Late, LateAnswer, Name, Peer, RawJson, RawPeer, Refusal, Refused,
    SessionId, TimerId,
};
use crate::auth::Claims;
use crate::clock::{Now, Uptime};
use crate::config::rules::Action;
use crate::decision::{CloseReason, Decision, Decisions, Limit, Message};
use presence::PresenceCall;
use timers::CompactDeadline;
use undecided::About;

/// The session of one SocketCluster client.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    version: Version,
    state: State,
    /// When the pong timer was last reset.
    heard: Uptime,
    /// The claims of the client's token, while it is authenticated.
    claims: Option<Box<Claims>>,
    /// Calls of the server; `None` before the first.
    calls: Option<Box<calls::Calls>>,
}

#[derive(Debug)]
enum State {
    /// Only `#handshake` is legal: anything else closes with `HandshakeMissing`.
    AwaitingHandshake {
        /// When the connection was upgraded. Pings keep the rhythm that begins here.
        created: Uptime,
    },
    /// The handshake is done.
    Open {
        next_ping: Uptime,
        /// Whether the client may hold subscriptions.
        subscribed: bool,
        /// Whether the client had claims when its subscriptions were last checked.
        authenticated: bool,
        /// The number of the rules with which they were checked.
        rules: u32,
        /// With `allow_anonymous` off: when the client's token expires, or when the client must have one.
        watch: CompactDeadline,
    },
    /// The connection has ended.
    Ended,
}

impl Session {
    /// The session of a connection that was just upgraded. `claims` are those of the user that the request
    /// itself has authenticated, if there is one: they hold from the handshake on, unless the handshake
    /// brings a token.
    pub fn new(
        id: SessionId,
        settings: &SocketClusterSettings,
        now: Now,
        claims: Option<Box<Claims>>,
    ) -> Session {
        Session {
            id,
            version: Version::new(settings.protocol),
            state: State::AwaitingHandshake { created: now.uptime },
            heard: now.uptime,
            claims,
            calls: None,
        }
    }

    /// The id that the client is given.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The claims of the client's token, if it is authenticated.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_deref()
    }

    /// Whether the handshake is done and the end has not come.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Handles a message, or the first part of a long array: [`Session::has_more`].
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub fn receive<A: App>(
        &mut self,
        message: Message<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if env
            .common
            .app
            .message(message, &mut RawPeer::new(self.id, decisions))
            == Inbound::Drop
        {
            self.note_heard(env);
            return Ok(());
        }
        let mut was_authenticated = self.claims.is_some();
        let result = match message {
            Message::Text(text) if self.version.receive_pong(text) => self.receive_pong(env, decisions),
            Message::Text(text) => self.receive_text(text, &mut was_authenticated, env, decisions),
            // The reference reads bytes as text too, with U+FFFD in the place of bytes that are not UTF-8.
            Message::Binary(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                self.receive_text(&text, &mut was_authenticated, env, decisions)
            }
        };
        self.end_message(was_authenticated, result, env, decisions)
    }

    /// Passes on an answer or a decision that was deferred.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn answer_late<A: App>(
        &mut self,
        late: LateAnswer,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let was_authenticated = self.claims.is_some();
        let (token, owed, answer) = match late.answer {
            Late::Call { token, owed, answer } => (token, owed, answer),
            Late::Decision { number, decide } => {
                let result = self.decided(number, decide, env, decisions);
                return self.end_message(was_authenticated, result, env, decisions);
            }
        };
        if !self.is_open() {
            return Ok(());
        }
        self.begin(env);
        env.common.scratch.app.call.answering(&token, owed);
        let answer = answer(&mut Peer::new(
            self.id,
            self.claims.as_deref(),
            None,
            &mut env.common.scratch.app,
        ));
        let owed = env.common.scratch.app.call.take_owed();
        self.keep_owed(owed);
        self.settle(env)?;
        let cid = (!token.is_empty()).then(|| NumberText::copied(&token));
        let result = self.carry_out_orders(
            cid.as_ref()
                .map(|cid| (cid, answer.kind(&env.common.scratch.app))),
            env,
            decisions,
        );
        self.end_message(was_authenticated, result, env, decisions)
    }

    /// A timer of the application has come.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn timer<A: App>(
        &mut self,
        timer: TimerId,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let was_authenticated = self.claims.is_some();
        self.begin(env);
        let scratch = &mut env.common.scratch.app;
        let mut peer = Peer::new(self.id, self.claims.as_deref(), None, scratch);
        env.common.app.timer(timer, &mut peer);
        self.settle(env)?;
        let result = self.carry_out_orders(None, env, decisions);
        self.end_message(was_authenticated, result, env, decisions)
    }

    /// Sends the client an event on behalf of code outside the application of this core.
    pub fn transmit(&mut self, event: &str, data: Option<&str>, decisions: &mut Decisions) {
        if self.is_open() {
            send(decisions, |out| {
                encode::event(event.as_bytes(), data.map(str::as_bytes), out);
            });
        }
    }

    /// The connection has ended. Tells the application, if it was told of the client.
    pub fn ended<A: App>(&mut self, env: &mut Environment<'_, '_, A>, reason: CloseReason) {
        let state = std::mem::replace(&mut self.state, State::Ended);
        self.abandon_calls(env);
        match state {
            State::Open { .. } => {
                let (claims, address) = (self.claims.as_deref(), env.common.address);
                let mut client = env.common.scratch.app.client(self.id, claims, address);
                env.common.app.disconnected(&mut client, reason);
                env.common.tell_disconnected(self.id, claims, reason);
            }
            State::AwaitingHandshake { .. } | State::Ended => {}
        }
    }

    fn receive_text<A: App>(
        &mut self,
        text: &str,
        was_authenticated: &mut bool,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.note_heard(env);
        match decode(text) {
            // Handled here: to pass the packet to another function would copy it.
            Decoded::One(packet) => self.receive_packet(&packet, env, decisions),
            other => self.begin_array(text, other, was_authenticated, env, decisions),
        }
    }

    /// The client has sent something other than a pong. As in the reference, that resets the pong timer at most four
    /// times per timeout.
    fn note_heard<A: App>(&mut self, env: &Environment<'_, '_, A>) {
        if env.common.now.uptime.since(self.heard) * 4 > env.settings.ping_timeout {
            self.heard = env.common.now.uptime;
        }
    }

    fn receive_packet<A: App>(
        &mut self,
        packet: &Packet<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match packet {
            Packet::Event(event) => self.receive_event(event, env, decisions),
            Packet::Response(response) => self.receive_response(response, env, decisions),
            Packet::Raw => self.require_open(),
        }
    }

    fn receive_event<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let reserved = Reserved::named(&event.name);
        if reserved != Some(Reserved::Handshake) {
            self.require_open()?;
        }
        if !env.common.settings.allow_anonymous && !self.is_served(event, reserved, env, decisions) {
            return Ok(());
        }
        self.begin(env);
        match reserved {
            Some(Reserved::Handshake) => {
                let cid = event.cid.ok_or(CloseReason::MalformedPacket)?.text();
                self.handshake(&cid, event, env, decisions)
            }
            Some(Reserved::Authenticate) => {
                let cid = event.cid.ok_or(CloseReason::MalformedPacket)?.text();
                self.authenticate(&cid, event, env, decisions)
            }
            // Never answered, even with a call id.
            Some(Reserved::RemoveAuthToken) => {
                self.claims = None;
                decisions.push(Decision::UserChanged);
                Ok(())
            }
            Some(Reserved::Publish) => self.publish(event, env, decisions),
            Some(Reserved::Subscribe) => self.subscribe(event, env, decisions),
            Some(Reserved::Unsubscribe) => {
                self.unsubscribe(event, env.common.now, decisions);
                Ok(())
            }
            Some(Reserved::Presence) if env.common.policy.channels.has_presence() => {
                self.ask_presence(PresenceCall::Members, event, env, decisions);
                Ok(())
            }
            Some(Reserved::PresenceInfo) if env.common.policy.channels.has_presence() => {
                self.ask_presence(PresenceCall::Info, event, env, decisions);
                Ok(())
            }
            None if env.common.policy.login.is_some() && event.name.is(login::LOGIN) => {
                self.log_in(event, env, decisions);
                Ok(())
            }
            None if env.common.settings.wills && event.name.is(wills::WILL) => {
                self.will(event, env, decisions)
            }
            None if env.common.settings.mqtt.retains() && event.name.is(retain::RETAIN) => {
                self.retain(event, env, decisions)
            }
            None if env.common.policy.rules.name_serve() && self.serve_or_unserve(event, env, decisions) => {
                Ok(())
            }
            None if !env.common.policy.channels.is_empty() && event.name.is(history::HISTORY) => {
                self.read_history(event, env, decisions);
                Ok(())
            }
            Some(Reserved::Presence | Reserved::PresenceInfo) | None => self.call(event, env, decisions),
        }
    }

    /// An event that is not reserved: the application handles it.
    fn call<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.expire(env.common.now, decisions);
        if let Some(cid) = event.cid
            && self
                .owed()
                .is_some_and(|owed| owed.count() >= env.settings.client_calls_max as usize)
        {
            env.common.scratch.hit(Limit::ClientCalls);
            let (id, limit) = (self.id, env.settings.client_calls_max);
            let message = format!("Socket {id} tried to exceed the limit of {limit} calls without an answer");
            invalid_action(Some(cid.text()), &message, decisions);
            return Ok(());
        }
        let mut rewritten = std::mem::take(&mut env.scratch.rewritten);
        let mut decoded = Vec::new();
        let call = Call {
            event: Name::new(match event.name.plain() {
                Some(plain) => plain.as_bytes(),
                None => {
                    event.name.write_decoded(&mut decoded);
                    &decoded
                }
            }),
            data: event
                .data
                .map(|value| RawJson::new(passed_on(value.json, value.rare, &mut rewritten))),
        };
        let cid = event.cid.map(Number::text);
        let action = if cid.is_some() {
            Action::Invoke
        } else {
            Action::Transmit
        };
        // Clients of version 14 send this when they disconnect. It belongs to the protocol, so rules cannot
        // forbid it.
        let is_goodbye = cid.is_none() && event.name.is("#disconnect");
        if !is_goodbye && !self.may(action, call.event.as_bytes(), env) {
            env.scratch.rewritten = rewritten;
            refuse(cid, &Refusal::silent(), Refused::Invoke, decisions);
            return Ok(());
        }
        let decided = if is_goodbye {
            None
        } else {
            env.common
                .decided_elsewhere(0, self.asked(expired), hook_decisions::subject(&call, action))
        };
        let result = match decided {
            None => self.hand_on(&call, cid.as_ref(), expired, env, decisions),
            Some(decided) => self.follow_hook(decided, event, call, expired, env, decisions),
        };
        env.scratch.rewritten = rewritten;
        result
    }

    /// Passes a call or a one-way event to the application, and answers. Always inlined: its second caller is
    /// cold, and a call costs 1 % of a ping.
    #[inline(always)]
    fn hand_on<A: App>(
        &mut self,
        call: &Call<'_>,
        cid: Option<&NumberText>,
        expired: Option<f64>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if let Some(cid) = cid {
            env.common
                .scratch
                .app
                .call
                .answering(cid.as_bytes(), self.owed().cloned());
        }
        let mut peer = Peer::new(
            self.id,
            self.claims.as_deref(),
            expired,
            &mut env.common.scratch.app,
        );
        let answer = match cid {
            Some(cid) => {
                let answer = env.common.app.invoke(call, &mut peer);
                Some((cid, answer.kind(&env.common.scratch.app)))
            }
            None => {
                env.common.app.transmit(call, &mut peer);
                None
            }
        };
        if env.common.scratch.services.is_used {
            let is_answered = match answer {
                Some((_, AnswerKind::Silent)) | None => env.common.scratch.app.call.is_handled(),
                Some(_) => true,
            };
            if !is_answered {
                self.call_service(call, cid, env);
            }
        }
        let owed = env.common.scratch.app.call.take_owed();
        self.keep_owed(owed);
        self.settle(env)?;
        self.carry_out_orders(answer, env, decisions)
    }

    /// The last step of a message: checks subscriptions if the client's claims have changed, and appends the
    /// decisions that were held back behind the answers. If the connection is to be closed, only publications
    /// follow.
    fn end_message<A: App>(
        &mut self,
        was_authenticated: bool,
        result: Result<(), CloseReason>,
        env: &Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if result.is_ok() {
            if was_authenticated && let State::Open { authenticated, .. } = &mut self.state {
                *authenticated = true;
            }
            self.keep_to_rules(env, decisions);
        }
        match result {
            Ok(()) => decisions.push_held(),
            Err(_) => decisions.push_held_publications(),
        }
        if !env.common.settings.allow_anonymous && result.is_ok() {
            self.watch(was_authenticated, env, decisions);
        }
        result
    }

    fn require_open(&self) -> Result<(), CloseReason> {
        if self.is_open() {
            Ok(())
        } else {
            Err(CloseReason::HandshakeMissing)
        }
    }
}

/// The data in the form in which it is passed on: as it came, or with the changes that the reference makes
/// (`rare`).
fn passed_on<'a>(json: &'a str, rare: bool, rewritten: &'a mut Vec<u8>) -> &'a str {
    if !rare {
        return json;
    }
    rewritten.clear();
    rewrite::write_passed_on(json, rewritten);
    std::str::from_utf8(rewritten).expect("it is made of text")
}

/// Answers a packet of the wrong shape, if it has a call id.
fn invalid_action(cid: Option<NumberText>, message: &str, decisions: &mut Decisions) {
    if let Some(cid) = cid {
        send(decisions, |out| {
            let error =
                |out: &mut Vec<u8>| encode::named_error("InvalidActionError", message.as_bytes(), out);
            encode::error(cid.as_bytes(), error, out);
        });
    }
}

/// Answers a packet that the application has refused, if it has a call id.
fn refuse(cid: Option<NumberText>, refusal: &Refusal, refused: Refused, decisions: &mut Decisions) {
    if let Some(cid) = cid {
        send(decisions, |out| {
            encode::error(cid.as_bytes(), |out| refusal.write_json(refused, out), out);
        });
    }
}

/// Decides to send the message that `write` writes.
fn send(decisions: &mut Decisions, write: impl FnOnce(&mut Vec<u8>)) {
    let message = decisions.write(write);
    decisions.push(Decision::Send { message });
}

#[cfg(test)]
mod tests;
