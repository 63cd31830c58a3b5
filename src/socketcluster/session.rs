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
//! 2. Answers come first, then what the application asked for in the same packet. A token that has expired is taken away
//!    before the answer, a bad one after it.
//! 3. The application hears of an end once, and only of sessions whose handshake was completed.
//!
//! All behaviour is that of the version 20 server, for both protocol versions: wire reference, sections 4, 5, 7, 8, 11
//! and 12. Unlike it, a repeated handshake counts for nothing.

use std::borrow::Cow;
use std::time::Duration;

use super::decode::{Decoded, decode};
use super::encode;
use super::json::Scanner;
use super::number::{Number, NumberText};
use super::packet::{Event, Packet, Reserved, Value};
use super::rewrite;
use super::version::{Protocol, Version};
use crate::app::{
    AnswerKind, App, Call, Name, Order, Peer, Piece, PublicationKind, RawJson, Refusal, Refused, Scratch,
};
pub use crate::app::{SessionId, SessionIds};
use crate::auth::{Claims, TokenError, Tokens};
use crate::clock::{Now, Uptime};
use crate::decision::{
    CloseReason, Decision, Decisions, Message, Span, SubscribeOutcome, UnsubscribeOutcome,
};

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
    /// Whether clients may publish.
    pub allow_client_publish: bool,
    /// How long tokens live for which the application says nothing else.
    pub auth_default_expiry: Duration,
}

impl Default for Settings {
    /// The reference's values: wire reference, section 6.
    fn default() -> Settings {
        Settings {
            protocol: Protocol::Auto,
            ping_interval: Some(Duration::from_secs(8)),
            ping_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            allow_client_publish: true,
            auth_default_expiry: Duration::from_secs(86_400),
        }
    }
}

/// What a core lends its sessions for one call.
#[derive(Debug)]
pub struct Environment<'a, A: App> {
    /// The time of this turn.
    pub now: Now,
    /// What an operator can set.
    pub settings: &'a Settings,
    /// Signs and checks tokens.
    pub tokens: &'a Tokens,
    /// The application of this core.
    pub app: &'a mut A,
    /// The buffers of this core.
    pub scratch: &'a mut Scratch,
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
}

#[derive(Debug)]
enum State {
    /// Only `#handshake` is legal: anything else closes with `MessageBeforeHandshake`.
    AwaitingHandshake {
        /// Pings will come in the rhythm that begins here.
        created: Uptime,
    },
    /// The handshake is done.
    Open { next_ping: Uptime },
    /// The connection has ended.
    Ended,
}

impl Session {
    /// The session of a connection that was just upgraded.
    pub fn new(id: SessionId, settings: &Settings, now: Now) -> Session {
        Session {
            id,
            version: Version::new(settings.protocol),
            state: State::AwaitingHandshake { created: now.uptime },
            heard: now.uptime,
            claims: None,
        }
    }

    /// Counts silence up to now as this server's doing: it has not read the connection.
    pub fn excuse(&mut self, now: Now) {
        self.heard = now.uptime;
    }

    /// Whether the handshake is done and the end has not come.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Takes a whole message.
    ///
    /// # Errors
    /// The connection is to be closed, after the decisions so far have been carried out.
    pub fn receive<A: App>(
        &mut self,
        message: Message<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match message {
            Message::Text(text) if self.version.receive_pong(text) => self.receive_pong(env.now, decisions),
            Message::Text(text) => self.receive_text(text, env, decisions),
            // The reference reads bytes as text too, and puts U+FFFD where they are none.
            Message::Binary(bytes) => self.receive_text(&String::from_utf8_lossy(bytes), env, decisions),
        }
    }

    /// When [`Session::timed_out`] is to be called.
    pub fn next_deadline(&self, settings: &Settings) -> Uptime {
        match self.state {
            State::AwaitingHandshake { created } => {
                (created + settings.handshake_timeout).min(self.pong_deadline(settings))
            }
            State::Open { next_ping } => next_ping.min(self.pong_deadline(settings)),
            State::Ended => Uptime::NEVER,
        }
    }

    /// Does what is due: sends a ping, or ends a connection that is silent.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn timed_out<A: App>(
        &mut self,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let now = env.now.uptime;
        let pong_deadline = self.pong_deadline(env.settings);
        match &mut self.state {
            State::AwaitingHandshake { created } => {
                let deadline = *created + env.settings.handshake_timeout;
                if deadline <= now && deadline <= pong_deadline {
                    return Err(CloseReason::HandshakeTimeout);
                }
            }
            State::Open { next_ping } => {
                if *next_ping <= now && now < pong_deadline {
                    *next_ping = next_tick(*next_ping, env.settings.ping_interval, now);
                    let ping = self.version.ping();
                    send(decisions, |out| out.extend_from_slice(ping.as_bytes()));
                }
            }
            State::Ended => {}
        }
        if pong_deadline <= now {
            Err(CloseReason::PongTimeout)
        } else {
            Ok(())
        }
    }

    /// The answer to a [`Decision::Subscribe`] that has been carried out; `None` for silence.
    pub fn subscribed(
        &self,
        channel: Span,
        cid: Option<Span>,
        outcome: SubscribeOutcome,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        let reason = match outcome {
            SubscribeOutcome::Subscribed => {
                let cid = NumberText::copied(decisions.bytes(cid?));
                return Some(decisions.write(|out| encode::response(cid.as_bytes(), None, out)));
            }
            SubscribeOutcome::TooMany { limit } => {
                format!("tried to exceed the channel subscription limit of {limit}")
            }
            SubscribeOutcome::TooLong { limit } => {
                format!("tried to exceed the limit of {limit} bytes for the names of its channels")
            }
        };
        self.broker_error("subscribe socket to", channel, cid?, &reason, decisions)
    }

    /// The answer to a [`Decision::Unsubscribe`] that has been carried out; `None` for silence.
    pub fn unsubscribed(
        &self,
        channel: Span,
        cid: Option<Span>,
        outcome: UnsubscribeOutcome,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        match outcome {
            UnsubscribeOutcome::Unsubscribed => {
                let cid = NumberText::copied(decisions.bytes(cid?));
                Some(decisions.write(|out| encode::response(cid.as_bytes(), None, out)))
            }
            UnsubscribeOutcome::NotSubscribed => self.broker_error(
                "unsubscribe socket from",
                channel,
                cid?,
                "tried to unsubscribe from a channel which it is not subscribed to",
                decisions,
            ),
        }
    }

    /// The message for one channel of a [`Decision::KickOutAll`].
    pub fn kicked_out(&self, channel: &[u8], reason: Option<Span>, decisions: &mut Decisions) -> Span {
        let reason = reason.map(|reason| String::from_utf8_lossy(decisions.bytes(reason)).into_owned());
        decisions.write(|out| encode::kick_out(channel, reason.as_deref(), out))
    }

    /// The connection has ended; tells the application if it had heard of it.
    pub fn ended<A: App>(&mut self, env: &mut Environment<'_, A>, reason: CloseReason) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Open { .. } => env.app.disconnected(self.id, reason),
            State::AwaitingHandshake { .. } | State::Ended => {}
        }
    }

    fn pong_deadline(&self, settings: &Settings) -> Uptime {
        match settings.ping_interval {
            Some(_) => self.heard + settings.ping_timeout,
            None => Uptime::NEVER,
        }
    }

    fn receive_pong(&mut self, now: Now, decisions: &mut Decisions) -> Result<(), CloseReason> {
        self.heard = now.uptime;
        self.require_open()?;
        self.expire(now, decisions);
        Ok(())
    }

    fn receive_text<A: App>(
        &mut self,
        text: &str,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        // As in the reference, what is no pong resets the pong timer at most four times per timeout.
        if env.now.uptime.since(self.heard) * 4 > env.settings.ping_timeout {
            self.heard = env.now.uptime;
        }
        match decode(text) {
            Decoded::One(packet) => self.receive_packet(&packet, env, decisions),
            Decoded::Many(mut packets) => {
                packets.try_for_each(|packet| self.receive_packet(&packet, env, decisions))
            }
            Decoded::TooDeep => {
                env.scratch.count_json_depth_hit();
                self.receive_packet(&Packet::Raw, env, decisions)
            }
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
            // This server makes no calls, so that every response is unknown.
            Packet::Response(_) | Packet::Raw => self.require_open(),
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
        env.scratch.clear();
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
            None => self.call(event, env, decisions),
        }
    }

    fn handshake<A: App>(
        &mut self,
        cid: &NumberText,
        data: Option<&Value<'_>>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let first = match self.state {
            State::AwaitingHandshake { created } => Some(created),
            State::Open { .. } | State::Ended => None,
        };
        // No token is no error here.
        let verified = handshake_token(data).map(|token| token.verify(env));
        if first.is_some() {
            let claims = verified.as_ref().and_then(|result| result.as_ref().ok());
            let mut peer = Peer::new(self.id, claims, None, env.scratch);
            if let Err(refusal) = env.app.handshake(&mut peer) {
                let code = refusal.handshake_code();
                send(decisions, |out| {
                    let error = |out: &mut Vec<u8>| refusal.write_handshake_json(out);
                    encode::handshake_refused(cid.as_bytes(), error, code.as_u16(), out);
                });
                return Err(CloseReason::HandshakeRefused(code));
            }
        }
        let failure = match verified {
            Some(result) => self.accept(result, env).err(),
            None => {
                self.claims = None;
                None
            }
        };
        if let Some(created) = first {
            let next_ping = next_tick(created, env.settings.ping_interval, env.now.uptime);
            self.state = State::Open { next_ping };
        }
        self.settle_claims(env)?;
        send(decisions, |out| {
            encode::handshake_response(
                cid.as_bytes(),
                self.id.write(&mut [0; SessionId::TEXT_BYTES]),
                u64::try_from(env.settings.ping_timeout.as_millis()).unwrap_or(u64::MAX),
                failure
                    .as_ref()
                    .map(|failure| |out: &mut Vec<u8>| failure.write_json(out)),
                self.claims.is_some(),
                out,
            );
        });
        if failure.is_some_and(|failure| failure.is_bad_token()) {
            send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
        }
        self.carry_out_orders(env, decisions)?;
        if first.is_none() {
            return Ok(());
        }
        env.scratch.clear();
        env.app
            .connected(&mut Peer::new(self.id, self.claims.as_deref(), None, env.scratch));
        self.settle_claims(env)?;
        self.carry_out_orders(env, decisions)
    }

    fn authenticate<A: App>(
        &mut self,
        cid: &NumberText,
        data: Option<&Value<'_>>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let verified = authenticate_token(data).verify(env);
        let failure = self.accept(verified, env).err();
        self.settle_claims(env)?;
        match failure {
            Some(failure) if failure.is_bad_token() => {
                send(decisions, |out| {
                    encode::error(cid.as_bytes(), |out| failure.write_json(out), out);
                });
                send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
            }
            failure => send(decisions, |out| {
                let error = failure
                    .as_ref()
                    .map(|failure| |out: &mut Vec<u8>| failure.write_json(out));
                encode::authenticate_response(cid.as_bytes(), self.claims.is_some(), error, out);
            }),
        }
        self.carry_out_orders(env, decisions)
    }

    /// Authenticates the client by a checked token, or takes its former authentication away.
    fn accept<A: App>(
        &mut self,
        verified: Result<Claims, TokenError>,
        env: &mut Environment<'_, A>,
    ) -> Result<(), AuthFailure> {
        self.claims = None;
        let claims = verified.map_err(AuthFailure::Token)?;
        let mut peer = Peer::new(self.id, Some(&claims), None, env.scratch);
        env.app
            .authenticate(&claims, &mut peer)
            .map_err(AuthFailure::Refused)?;
        // A payload such as `0` is a good token that authenticates nobody.
        self.claims = claims.is_truthy().then(|| Box::new(claims));
        Ok(())
    }

    fn publish<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.expire(env.now, decisions);
        let cid = event.cid.map(Number::text);
        if !env.settings.allow_client_publish {
            invalid_action(cid, "Client publish feature is disabled", decisions);
            return Ok(());
        }
        let Some((value, name)) = event.data.and_then(|value| Some((value, value.members.channel?))) else {
            invalid_action(cid, "Publish channel name was malformatted", decisions);
            return Ok(());
        };
        let channel = decisions.write(|out| name.write_decoded(out));
        let mut rewritten = std::mem::take(&mut env.scratch.rewritten);
        let data = value
            .members
            .data
            .map(|json| passed_on(json, value.rare, &mut rewritten));
        let result = env.app.publish(
            Name::new(decisions.bytes(channel)),
            data.map(RawJson::new),
            &mut Peer::new(self.id, self.claims.as_deref(), expired, env.scratch),
        );
        self.settle_claims(env)?;
        match result {
            Ok(publication) => {
                let data = match publication.kind() {
                    PublicationKind::AsSent => data,
                    PublicationKind::Rewritten(piece) => piece.map(|piece| env.scratch.piece(piece)),
                };
                let message = decisions.write(|out| encode::publish(|out| name.write_json(out), data, out));
                decisions.push(Decision::Publish { channel, message });
                if let Some(cid) = cid {
                    send(decisions, |out| encode::response(cid.as_bytes(), None, out));
                }
            }
            Err(refusal) => refuse(cid, &refusal, Refused::Publish, decisions),
        }
        env.scratch.rewritten = rewritten;
        self.carry_out_orders(env, decisions)
    }

    fn subscribe<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.expire(env.now, decisions);
        let cid = event.cid.map(Number::text);
        let Some((value, name)) = event.data.and_then(|value| Some((value, value.members.channel?))) else {
            invalid_action(cid, "Subscribe channel name was malformatted", decisions);
            return Ok(());
        };
        let channel = decisions.write(|out| name.write_decoded(out));
        let result = env.app.subscribe(
            Name::new(decisions.bytes(channel)),
            value.members.data.map(RawJson::new),
            &mut Peer::new(self.id, self.claims.as_deref(), expired, env.scratch),
        );
        self.settle_claims(env)?;
        match (result, cid) {
            (Ok(()), Some(cid)) => {
                let cid = decisions.write(|out| out.extend_from_slice(cid.as_bytes()));
                decisions.push(Decision::Subscribe {
                    channel,
                    cid: Some(cid),
                });
            }
            // The reference asks its middleware and does not subscribe.
            (Ok(()), None) => {}
            (Err(refusal), cid) => refuse(cid, &refusal, Refused::Subscribe, decisions),
        }
        self.carry_out_orders(env, decisions)
    }

    fn unsubscribe(&mut self, event: &Event<'_>, now: Now, decisions: &mut Decisions) {
        self.expire(now, decisions);
        let cid = event.cid.map(Number::text);
        let Some(name) = event
            .data
            .and_then(|value| Scanner::new(value.json).string().ok())
        else {
            invalid_action(cid, "Unsubscribe channel name was malformatted", decisions);
            return;
        };
        let channel = decisions.write(|out| name.write_decoded(out));
        let cid = cid.map(|cid| decisions.write(|out| out.extend_from_slice(cid.as_bytes())));
        decisions.push(Decision::Unsubscribe { channel, cid });
    }

    /// An ordinary event: the application's.
    fn call<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.expire(env.now, decisions);
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
        let mut peer = Peer::new(self.id, self.claims.as_deref(), expired, env.scratch);
        let answer = match event.cid {
            Some(cid) => Some((env.app.invoke(&call, &mut peer), cid.text())),
            None => {
                env.app.transmit(&call, &mut peer);
                None
            }
        };
        env.scratch.rewritten = rewritten;
        self.settle_claims(env)?;
        if let Some((answer, cid)) = answer {
            let cid = cid.as_bytes();
            match answer.kind() {
                AnswerKind::Silent => {}
                AnswerKind::Empty => send(decisions, |out| encode::response(cid, None, out)),
                AnswerKind::Reply(piece) => {
                    let data = env.scratch.piece(piece);
                    send(decisions, |out| encode::response(cid, Some(data), out));
                }
                AnswerKind::Refuse(piece) => {
                    let error = env.scratch.piece(piece).as_bytes();
                    send(decisions, |out| {
                        encode::error(cid, |out| out.extend_from_slice(error), out)
                    });
                }
            }
        }
        self.carry_out_orders(env, decisions)
    }

    /// Signs the tokens and does the deauthentications that the application has ordered. This comes before the answer:
    /// if signing fails there is none, as in the reference.
    fn settle_claims<A: App>(&mut self, env: &mut Environment<'_, A>) -> Result<(), CloseReason> {
        for at in 0..env.scratch.orders.len() {
            match env.scratch.orders[at] {
                Order::SetAuthToken { claims, expires_in } => {
                    let token = self.sign(claims, expires_in, env)?;
                    let token = env.scratch.keep(&token);
                    env.scratch.orders[at] = Order::GiveToken { token };
                }
                Order::Deauthenticate => self.claims = None,
                Order::Transmit { .. }
                | Order::Publish { .. }
                | Order::GiveToken { .. }
                | Order::KickOut { .. }
                | Order::Disconnect(_) => {}
            }
        }
        Ok(())
    }

    /// A token with these claims, which are the client's from now on.
    fn sign<A: App>(
        &mut self,
        claims: Piece,
        expires_in: Option<u64>,
        env: &Environment<'_, A>,
    ) -> Result<String, CloseReason> {
        let expires_in = expires_in.unwrap_or(env.settings.auth_default_expiry.as_secs());
        let issued = env
            .tokens
            .issue(env.scratch.piece(claims), Some(expires_in), env.now.unix_ms)
            .map_err(|_| CloseReason::SigningFailed)?;
        self.claims = Some(Box::new(issued.claims));
        Ok(issued.token)
    }

    /// Does what the application has asked for besides answering.
    fn carry_out_orders<A: App>(
        &self,
        env: &Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let scratch = &*env.scratch;
        let disconnect = scratch.orders.iter().find_map(|order| match order {
            Order::Disconnect(code) => Some(*code),
            Order::Transmit { .. }
            | Order::Publish { .. }
            | Order::SetAuthToken { .. }
            | Order::GiveToken { .. }
            | Order::Deauthenticate
            | Order::KickOut { .. } => None,
        });
        for &order in &scratch.orders {
            // A client that is being disconnected is sent nothing more: wire reference, section 12.
            if disconnect.is_some() && !matches!(order, Order::Publish { .. }) {
                continue;
            }
            match order {
                Order::Publish { channel, data } => {
                    let name = scratch.piece(channel).as_bytes();
                    let data = data.map(|data| scratch.piece(data));
                    let channel = decisions.write(|out| out.extend_from_slice(name));
                    let message = decisions
                        .write(|out| encode::publish(|out| super::string::write_json(name, out), data, out));
                    decisions.push(Decision::Publish { channel, message });
                }
                Order::Transmit { event, data } => {
                    let data = data.map(|data| scratch.piece(data));
                    send(decisions, |out| {
                        encode::event(scratch.piece(event).as_bytes(), data, out)
                    });
                }
                Order::GiveToken { token } => {
                    send(decisions, |out| encode::set_auth_token(scratch.piece(token), out));
                }
                Order::Deauthenticate => {
                    send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
                }
                Order::KickOut { channel, message } => {
                    kick_out(
                        channel.map(|channel| scratch.piece(channel)),
                        message.map(|message| scratch.piece(message)),
                        decisions,
                    );
                }
                // Signed before, and done below.
                Order::SetAuthToken { .. } | Order::Disconnect(_) => {}
            }
        }
        disconnect.map_or(Ok(()), |code| Err(CloseReason::Application(code)))
    }

    /// Takes the client's token away if it has expired; returns when that was.
    fn expire(&mut self, now: Now, decisions: &mut Decisions) -> Option<f64> {
        let expires_at = self.claims.as_ref()?.expires_at()?;
        if now.unix_ms as f64 <= expires_at * 1000.0 {
            return None;
        }
        self.claims = None;
        send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
        Some(expires_at)
    }

    fn require_open(&self) -> Result<(), CloseReason> {
        if self.is_open() {
            Ok(())
        } else {
            Err(CloseReason::MessageBeforeHandshake)
        }
    }

    /// `{"rid":N,"error":{...}}` with a `BrokerError` about a channel.
    fn broker_error(
        &self,
        failed_to: &str,
        channel: Span,
        cid: Span,
        reason: &str,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        let cid = NumberText::copied(decisions.bytes(cid));
        let mut message = format!("Failed to {failed_to} the ").into_bytes();
        message.extend_from_slice(decisions.bytes(channel));
        message.extend_from_slice(
            format!(" channel - InvalidActionError: Socket {} {reason}", self.id).as_bytes(),
        );
        let error = |out: &mut Vec<u8>| encode::named_error("BrokerError", &message, out);
        Some(decisions.write(|out| encode::error(cid.as_bytes(), error, out)))
    }
}

/// Why a client is not authenticated.
enum AuthFailure {
    Token(TokenError),
    Refused(Refusal),
}

impl AuthFailure {
    fn is_bad_token(&self) -> bool {
        match self {
            AuthFailure::Token(error) => error.is_bad_token(),
            AuthFailure::Refused(refusal) => refusal.is_bad_token(),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            AuthFailure::Token(error) => error.write_json(out),
            AuthFailure::Refused(refusal) => refusal.write_json(Refused::Authenticate, out),
        }
    }
}

/// What a client offers as its token.
enum OfferedToken<'a> {
    Text(Cow<'a, str>),
    NotAString,
}

impl<'a> OfferedToken<'a> {
    fn verify<A: App>(&self, env: &Environment<'_, A>) -> Result<Claims, TokenError> {
        match self {
            OfferedToken::Text(token) => env.tokens.verify(token, env.now.unix_ms),
            OfferedToken::NotAString => Err(TokenError::NotAString),
        }
    }

    fn in_value(json: &'a str) -> OfferedToken<'a> {
        let Ok(string) = Scanner::new(json).string() else {
            return OfferedToken::NotAString;
        };
        OfferedToken::Text(string.plain().map_or_else(
            || {
                let mut decoded = Vec::new();
                string.write_decoded(&mut decoded);
                // Half a surrogate pair is in no good token, and neither is what stands for it here.
                Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
            },
            Cow::Borrowed,
        ))
    }
}

/// The token in a handshake. What is false in JavaScript counts as none.
fn handshake_token<'a>(data: Option<&Value<'a>>) -> Option<OfferedToken<'a>> {
    let json = data?.members.auth_token?;
    let is_zero = Number::in_value(json).is_some_and(|number| number.as_f64() == 0.0);
    if is_zero || matches!(json, "null" | "false" | "\"\"") {
        return None;
    }
    Some(OfferedToken::in_value(json))
}

/// The token in an `#authenticate`. None is as bad as an empty one.
fn authenticate_token<'a>(data: Option<&Value<'a>>) -> OfferedToken<'a> {
    match data.map(|value| value.json) {
        None | Some("null") => OfferedToken::Text(Cow::Borrowed("")),
        Some(json) => OfferedToken::in_value(json),
    }
}

/// The first time after `now` in a rhythm that began at `from`; never, without an interval.
fn next_tick(from: Uptime, interval: Option<Duration>, now: Uptime) -> Uptime {
    let Some(interval) = interval else {
        return Uptime::NEVER;
    };
    let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let passed = now.as_ms().saturating_sub(from.as_ms()) / interval;
    Uptime::from_ms(from.as_ms().saturating_add((passed + 1).saturating_mul(interval)))
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

fn kick_out(channel: Option<&str>, message: Option<&str>, decisions: &mut Decisions) {
    let Some(channel) = channel.map(str::as_bytes) else {
        let reason = message.map(|message| decisions.write(|out| out.extend_from_slice(message.as_bytes())));
        decisions.push(Decision::KickOutAll { reason });
        return;
    };
    let message = decisions.write(|out| encode::kick_out(channel, message, out));
    let channel = decisions.write(|out| out.extend_from_slice(channel));
    decisions.push(Decision::KickOut { channel, message });
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
