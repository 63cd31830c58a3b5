//! One client's session: packets in, decisions out.
//!
//! ```text
//!  new ──► AwaitingHandshake ──#handshake──► Open ──ended──► Ended
//!               │  anything else: 4009, too late: 4005          ▲
//!               └───────────────────────ended──────────────────┘
//! ```
//!
//! Invariants
//! 1. No ping is sent, and nothing but `#handshake` is taken, before the handshake.
//! 2. Answers come first, then what the application sent besides while it handled the same message. A token that has expired is taken away
//!    before the answer, a bad one after it.
//! 3. The application hears of an end once, and only of sessions whose handshake was completed. Before that it has heard
//!    of the end of every call that it made.
//!
//! ```text
//!  handshake.rs  coming in          tokens.rs   offered, signed, expired
//!  channels.rs   publish, subscribe  timers.rs   pings, silence
//!  orders.rs    what the application asks for      calls.rs    calls of the server's, until answered
//!  permissions.rs  what rules let a client do
//!  login.rs     a password instead of a token      admission.rs  whether others than the authenticated are served
//!  arrays.rs    many packets in one message
//! ```
//!
//! All behaviour is that of the version 20 server, for both protocol versions: wire reference, sections 4, 5, 7, 8, 11
//! and 12. Unlike it, a repeated handshake counts for nothing.

mod admission;
mod arrays;
mod calls;
mod channels;
mod handshake;
mod login;
mod orders;
mod permissions;
mod timers;
mod tokens;

#[cfg(test)]
pub(crate) use arrays::PART_BYTES_MAX;

use std::time::Duration;

use super::decode::{Decoded, decode};
use super::encode;
use super::number::{Number, NumberText};
use super::packet::{Event, Packet, Reserved};
use super::rewrite;
use super::version::Version;
use crate::app::{App, Call, LateAnswer, Name, Peer, RawJson, Refusal, Refused, Scratch};
pub use crate::app::{SessionId, SessionIds};
use crate::auth::{Claims, CredentialFields};
use crate::clock::{Now, Uptime};
use crate::config::Protocol;
use crate::config::rules::Action;
use crate::decision::{CloseReason, Decision, Decisions, Message};
use crate::policy::Policy;
pub use login::LoginAnswer;
use timers::Moment;

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The version to speak.
    pub protocol: Protocol,
    /// Time between pings; `None` turns pings and the pong timer off.
    pub ping_interval: Option<Duration>,
    /// Longest time without a pong. Clients are told it.
    pub ping_timeout: Duration,
    /// Time from the upgrade to the handshake.
    pub handshake_timeout: Duration,
    /// Time for a client to answer a call of the server's.
    pub ack_timeout: Duration,
    /// Most calls of the server's that one client may leave unanswered.
    pub calls_max: u32,
    /// Most calls of one client's that the application may owe an answer.
    pub client_calls_max: u32,
    /// Most bytes of a channel's name that a client subscribes or publishes to.
    pub channel_name_bytes_max: u32,
    /// Whether clients may publish.
    pub allow_client_publish: bool,
    /// How long tokens live for which the application says nothing else.
    pub auth_default_expiry: Duration,
    /// Whether clients that are not authenticated are served.
    pub allow_anonymous: bool,
    /// Where they are not: time to become it. `None` leaves them all they like.
    pub authentication_timeout: Option<Duration>,
    /// What the procedure `login` takes.
    pub logins: Logins,
}

/// What the procedure `login` takes.
#[derive(Clone, Debug)]
pub struct Logins {
    /// How its fields are called.
    pub fields: CredentialFields,
    /// Most bytes of its data.
    pub body_bytes_max: u32,
}

impl Default for Settings {
    /// The reference's values: wire reference, section 6.
    fn default() -> Settings {
        Settings {
            protocol: Protocol::Auto,
            ping_interval: Some(Duration::from_secs(8)),
            ping_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(10),
            calls_max: 1000,
            client_calls_max: 10_000,
            channel_name_bytes_max: 65_536,
            allow_client_publish: true,
            auth_default_expiry: Duration::from_secs(86_400),
            allow_anonymous: true,
            authentication_timeout: None,
            logins: Logins::default(),
        }
    }
}

/// What a core lends its sessions for one call.
#[derive(Debug)]
pub struct Environment<'a, A: App> {
    /// The time of this turn.
    pub now: Now,
    /// Where the core finds this session, for what is answered later.
    pub address: usize,
    /// What an operator can set.
    pub settings: &'a Settings,
    /// Who may come in.
    pub policy: &'a Policy,
    /// The application of this core.
    pub app: &'a mut A,
    /// The buffers of this core.
    pub scratch: &'a mut Scratch,
    /// How many packets of an array are handled together; what is left waits for [`Session::receive_more`].
    pub packets_max: u64,
}

impl Default for Logins {
    fn default() -> Logins {
        Logins {
            fields: CredentialFields::default(),
            body_bytes_max: 4096,
        }
    }
}

/// The session of one SocketCluster client.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    version: Version,
    state: State,
    /// When the pong timer was last reset.
    heard: Uptime,
    /// What the client's token says, while it is authenticated.
    claims: Option<Box<Claims>>,
    /// Calls of the server's; `None` before the first.
    calls: Option<Box<calls::Calls>>,
}

#[derive(Debug)]
enum State {
    /// Only `#handshake` is legal: anything else closes with `MessageBeforeHandshake`.
    AwaitingHandshake {
        /// Pings will come in the rhythm that begins here.
        created: Uptime,
    },
    /// The handshake is done.
    Open {
        next_ping: Uptime,
        /// Whether it may hold subscriptions.
        subscribed: bool,
        /// Whether it had claims when its subscriptions were last looked at, and by which rules that was.
        authenticated: bool,
        rules: u32,
        /// Unless all are served: when the token expires, or when there must be one.
        watch: Moment,
    },
    /// The connection has ended.
    Ended,
}

impl Session {
    /// The session of a connection that was just upgraded. `claims` are those of whoever the request itself has shown
    /// to be somebody: they hold from the handshake on, unless it brings a token.
    pub fn new(id: SessionId, settings: &Settings, now: Now, claims: Option<Box<Claims>>) -> Session {
        Session {
            id,
            version: Version::new(settings.protocol),
            state: State::AwaitingHandshake { created: now.uptime },
            heard: now.uptime,
            claims,
            calls: None,
        }
    }

    /// What the client is called.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// What the client's token says, if it has shown a good one.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_deref()
    }

    /// Whether the handshake is done and the end has not come.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Takes a whole message. Of a long array only a part may be handled: [`Session::has_more`].
    ///
    /// # Errors
    /// The connection is to be closed, after the decisions so far have been carried out.
    pub fn receive<A: App>(
        &mut self,
        message: Message<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let mut was_authenticated = self.claims.is_some();
        let result = match message {
            Message::Text(text) if self.version.receive_pong(text) => self.receive_pong(env, decisions),
            Message::Text(text) => self.receive_text(text, &mut was_authenticated, env, decisions),
            // The reference reads bytes as text too, and puts U+FFFD where they are none.
            Message::Binary(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                self.receive_text(&text, &mut was_authenticated, env, decisions)
            }
        };
        self.end_message(was_authenticated, result, env, decisions)
    }

    /// Gives an answer that was deferred.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn answer_late<A: App>(
        &mut self,
        late: LateAnswer,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if !self.is_open() {
            return Ok(());
        }
        let was_authenticated = self.claims.is_some();
        self.begin(env);
        env.scratch.answering(&late.cid, late.owed);
        let answer = (late.answer)(&mut Peer::new(self.id, self.claims.as_deref(), None, env.scratch));
        let owed = env.scratch.take_owed();
        self.keep_owed(owed);
        self.settle(env)?;
        let cid = (!late.cid.is_empty()).then(|| NumberText::copied(&late.cid));
        let result = self.carry_out_orders(
            cid.as_ref().map(|cid| (cid, answer.kind(env.scratch))),
            env,
            decisions,
        );
        self.end_message(was_authenticated, result, env, decisions)
    }

    /// The connection has ended; tells the application if it had heard of it.
    pub fn ended<A: App>(&mut self, env: &mut Environment<'_, A>, reason: CloseReason) {
        let state = std::mem::replace(&mut self.state, State::Ended);
        self.abandon_calls(env);
        match state {
            State::Open { .. } => env.app.disconnected(self.id, reason),
            State::AwaitingHandshake { .. } | State::Ended => {}
        }
    }

    fn receive_text<A: App>(
        &mut self,
        text: &str,
        was_authenticated: &mut bool,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        // As in the reference, what is no pong resets the pong timer at most four times per timeout.
        if env.now.uptime.since(self.heard) * 4 > env.settings.ping_timeout {
            self.heard = env.now.uptime;
        }
        match decode(text) {
            // Here, so that it is not copied on its way to a function.
            Decoded::One(packet) => self.receive_packet(&packet, env, decisions),
            other => self.begin_array(text, other, was_authenticated, env, decisions),
        }
    }

    fn receive_packet<A: App>(
        &mut self,
        packet: &Packet<'_>,
        env: &mut Environment<'_, A>,
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
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let reserved = Reserved::named(&event.name);
        if reserved != Some(Reserved::Handshake) {
            self.require_open()?;
        }
        if !env.settings.allow_anonymous && !self.is_served(event, reserved, env, decisions) {
            return Ok(());
        }
        self.begin(env);
        match reserved {
            Some(Reserved::Handshake) => {
                let cid = event.cid.ok_or(CloseReason::CallIdMissing)?.text();
                self.handshake(&cid, event.data.as_ref(), env, decisions)
            }
            Some(Reserved::Authenticate) => {
                let cid = event.cid.ok_or(CloseReason::CallIdMissing)?.text();
                self.authenticate(&cid, event.data.as_ref(), env, decisions)
            }
            // Never answered, even with a call id.
            Some(Reserved::RemoveAuthToken) => {
                self.claims = None;
                Ok(())
            }
            Some(Reserved::Publish) => self.publish(event, env, decisions),
            Some(Reserved::Subscribe) => self.subscribe(event, env, decisions),
            Some(Reserved::Unsubscribe) => {
                self.unsubscribe(event, env.now, decisions);
                Ok(())
            }
            None if env.policy.login.is_some() && event.name.is(login::LOGIN) => {
                self.log_in(event, env, decisions);
                Ok(())
            }
            None => self.call(event, env, decisions),
        }
    }

    /// An ordinary event: the application's.
    fn call<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.expire(env.now, decisions);
        if let Some(cid) = event.cid
            && self
                .owed()
                .is_some_and(|owed| owed.count() >= env.settings.client_calls_max as usize)
        {
            env.scratch.count_client_calls_hit();
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
        // Version 14 clients say goodbye with this one: the protocol's, though it means nothing here.
        let is_goodbye = cid.is_none() && event.name.is("#disconnect");
        if !is_goodbye && !self.may(action, call.event.as_bytes(), env) {
            env.scratch.rewritten = rewritten;
            refuse(cid, &Refusal::silent(), Refused::Invoke, decisions);
            return Ok(());
        }
        if let Some(cid) = &cid {
            env.scratch.answering(cid.as_bytes(), self.owed().cloned());
        }
        let mut peer = Peer::new(self.id, self.claims.as_deref(), expired, env.scratch);
        let answer = match &cid {
            Some(cid) => {
                let answer = env.app.invoke(&call, &mut peer);
                Some((cid, answer.kind(env.scratch)))
            }
            None => {
                env.app.transmit(&call, &mut peer);
                None
            }
        };
        env.scratch.rewritten = rewritten;
        let owed = env.scratch.take_owed();
        self.keep_owed(owed);
        self.settle(env)?;
        self.carry_out_orders(answer, env, decisions)
    }

    /// Looks at who the client is by now, and lets what was held back follow the answers of a message; of a closed
    /// connection, only its publications.
    fn end_message<A: App>(
        &mut self,
        was_authenticated: bool,
        result: Result<(), CloseReason>,
        env: &Environment<'_, A>,
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
        if !env.settings.allow_anonymous && result.is_ok() {
            self.watch(was_authenticated, env, decisions);
        }
        result
    }

    fn require_open(&self) -> Result<(), CloseReason> {
        if self.is_open() {
            Ok(())
        } else {
            Err(CloseReason::MessageBeforeHandshake)
        }
    }
}

/// Data as it goes on: as it came, unless the reference would change it.
fn passed_on<'a>(json: &'a str, rare: bool, rewritten: &'a mut Vec<u8>) -> &'a str {
    if !rare {
        return json;
    }
    rewritten.clear();
    rewrite::write_passed_on(json, rewritten);
    std::str::from_utf8(rewritten).expect("it is made of text")
}

/// Answers a packet of the wrong shape; silence if it has no call id.
fn invalid_action(cid: Option<NumberText>, message: &str, decisions: &mut Decisions) {
    if let Some(cid) = cid {
        send(decisions, |out| {
            let error =
                |out: &mut Vec<u8>| encode::named_error("InvalidActionError", message.as_bytes(), out);
            encode::error(cid.as_bytes(), error, out);
        });
    }
}

/// Answers what the application has refused; silence if it has no call id.
fn refuse(cid: Option<NumberText>, refusal: &Refusal, refused: Refused, decisions: &mut Decisions) {
    if let Some(cid) = cid {
        send(decisions, |out| {
            encode::error(cid.as_bytes(), |out| refusal.write_json(refused, out), out);
        });
    }
}

/// Decides to send what `write` writes.
fn send(decisions: &mut Decisions, write: impl FnOnce(&mut Vec<u8>)) {
    let message = decisions.write(write);
    decisions.push(Decision::Send { message });
}

#[cfg(test)]
mod tests;
