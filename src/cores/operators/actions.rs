//! Carries out the operations of other threads on selected connections: closes them, sends them events, calls
//! them, begins and ends their subscriptions, gives them tokens and takes tokens away. Some connections in
//! each turn.
//!
//! An operation is done in steps, each of which is a question of its own: the asking thread learns the core's
//! progress, and gives each step its own time limit. So an operation on any number of connections has an end.
//!
//! Limits: `EFFORT_PER_TURN_MAX` and `EFFORT_PER_STEP_MAX` (`questions.rs`); `CALLED_MAX` (`outcomes.rs`).

use std::sync::Arc;

use crate::app::{App, CallAnswer, CallOutcome, Late, LateAnswer, Peer};
use crate::decision::{CloseReason, Decision};
use crate::mqtt::subscriptions::Subscriber;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{Connection, ConnectionId};
use crate::cores::operators::questions::{Act, Acting, Calling, NewClaims};
use crate::cores::operators::selection::{Selected, Selection};

/// How an operation on one connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acted {
    Done,
    /// There was nothing to do, or it was not allowed.
    NotDone,
    /// The protocol has no such operation.
    NotInProtocol,
    /// The client may serve the event.
    IsService,
    /// No token can be signed.
    NotSigned,
}

impl From<bool> for Acted {
    fn from(is_done: bool) -> Acted {
        if is_done { Acted::Done } else { Acted::NotDone }
    }
}

impl<A: App> Core<A> {
    /// Goes on with a step of an operation on connections. True when the step is done.
    pub(in crate::cores) fn act_some(&mut self, acting: &mut Acting, effort: &mut u32) -> bool {
        let effort_of_one = match &acting.act {
            Act::SetToken { .. } => EFFORT_OF_A_TOKEN,
            Act::Disconnect { .. }
            | Act::Transmit { .. }
            | Act::Subscribe { .. }
            | Act::Unsubscribe { .. }
            | Act::RemoveToken => EFFORT_OF_AN_ACT,
        };
        let given = acting.effort_left.min(*effort);
        let mut left = given;
        acting.is_at_end = loop {
            match self.next_selected(&mut acting.selecting, &mut left) {
                Selected::Found(id) => {
                    left = left.saturating_sub(effort_of_one);
                    match self.act(id, &acting.act) {
                        Acted::Done => acting.counts.done += 1,
                        Acted::NotDone => acting.counts.not_done += 1,
                        Acted::NotInProtocol => acting.counts.not_in_protocol += 1,
                        Acted::IsService => acting.counts.services += 1,
                        Acted::NotSigned => acting.counts.not_signed += 1,
                    }
                }
                Selected::Later => break false,
                Selected::End => break true,
            }
        };
        *effort -= given - left;
        acting.effort_left -= given - left;
        acting.is_at_end || acting.effort_left == 0
    }

    /// Goes on to look for clients and to call them. True when all are called.
    pub(in crate::cores) fn call_some(&mut self, calling: &mut Calling, effort: &mut u32) -> bool {
        loop {
            match self.next_selected(&mut calling.selecting, effort) {
                Selected::Found(id) => {
                    *effort = effort.saturating_sub(EFFORT_OF_AN_ACT);
                    self.call_client(id, calling);
                    let is_only_one = matches!(calling.selecting.selection, Selection::Session(_));
                    if is_only_one && calling.calls.called() > 0 {
                        return true;
                    }
                }
                Selected::Later => return false,
                Selected::End => {
                    calling.calls.note_through();
                    return true;
                }
            }
        }
    }

    fn call_client(&mut self, id: ConnectionId, calling: &Calling) {
        let Some(session) = self
            .connections
            .get(id)
            .filter(|connection| !connection.is_ending())
            .and_then(Connection::generation)
        else {
            return;
        };
        let Some(outside) = calling.calls.begin(session) else {
            return;
        };
        if !self.has_room_for_event(id) {
            return outside.tell(CallOutcome::ConnectionEnded);
        }
        let (event, data) = (&calling.event, calling.data.as_deref());
        if self.is_service_for(id, event) {
            return outside.tell(CallOutcome::IsService);
        }
        self.decide(id, |session, environment, decisions| {
            session.call_from_outside(event, data, outside, environment, decisions);
            Ok(())
        });
    }

    /// Whether the client may serve this procedure. A service gets the calls of other clients in the same
    /// packets as those of the server, with the claims of the caller in the data, which a program could
    /// forge. It is not enough to look at registered procedures: a client has its procedures before it
    /// registers them.
    fn is_service_for(&mut self, id: ConnectionId, procedure: &str) -> bool {
        let policy = Arc::clone(&self.resources.policy);
        let procedure = procedure.as_bytes();
        self.services.serves(id.token().0, procedure)
            || self
                .session(id)
                .is_some_and(|session| session.may_serve_one(procedure, &policy))
    }

    fn act(&mut self, id: ConnectionId, act: &Act) -> Acted {
        if self
            .connections
            .get(id)
            .is_none_or(|connection| connection.is_ending())
        {
            return Acted::NotDone;
        }
        match act {
            Act::Disconnect { code, reason } => {
                self.close_saying(id, CloseReason::Application(*code), reason);
                Acted::Done
            }
            Act::Transmit { event, data } => {
                if self.is_service_for(id, event) {
                    return Acted::IsService;
                }
                if !self.has_room_for_event(id) {
                    return Acted::NotDone;
                }
                let mut has_events = false;
                self.decide(id, |session, _, decisions| {
                    has_events = session.transmit(event, data.as_deref(), decisions);
                    Ok(())
                });
                match has_events {
                    true => Acted::Done,
                    false => Acted::NotInProtocol,
                }
            }
            // A client of MQTT gets no publications for which it has not asked.
            Act::Subscribe { .. } if self.connections.speaks_mqtt(id) => Acted::NotInProtocol,
            Act::Subscribe { channel } => self.subscribe_by_server(id, channel).into(),
            Act::Unsubscribe { channel, .. } if self.connections.speaks_mqtt(id) => {
                self.kick_out_mqtt(id, channel.clone()).into()
            }
            Act::Unsubscribe { channel, message } => {
                self.kick_out(id, channel.as_deref(), message.as_deref()).into()
            }
            Act::SetToken { claims, expires_in } => self.set_token(id, claims, *expires_in),
            Act::RemoveToken => {
                let has_token = self.session(id).is_some_and(|session| session.claims().is_some());
                let is_done = has_token && self.order(id, |peer| peer.deauthenticate());
                is_done.into()
            }
        }
    }

    /// Signs a token for a client, and sends it to the client.
    fn set_token(&mut self, id: ConnectionId, claims: &NewClaims, expires_in: Option<u64>) -> Acted {
        let claims: Box<str> = match claims {
            NewClaims::Given(claims) => (**claims).into(),
            NewClaims::AsBefore => {
                // A certificate or a cookie must not become a token, which others can use, and which outlives it.
                let before = self.session(id).and_then(|session| session.claims());
                let before = before.filter(|claims| claims.has_token());
                let Some(claims) = before.and_then(|claims| claims.without_times()) else {
                    return Acted::NotDone;
                };
                claims.into()
            }
        };
        // A token that cannot be signed is no reason to close the connection.
        let tokens = &self.resources.policy.tokens;
        let expiry = expires_in.unwrap_or(self.resources.settings.common.auth_default_expiry.as_secs());
        if tokens
            .check_claims(&claims, Some(expiry), self.time.now().unix_ms)
            .is_err()
        {
            return Acted::NotSigned;
        }
        self.order(id, move |peer| peer.set_claims(&claims, expires_in))
            .into()
    }

    /// Makes the session of a connection carry out the orders that `order` gives to its peer. False if that
    /// closes the connection.
    fn order(&mut self, id: ConnectionId, order: impl FnOnce(&mut Peer<'_>) + Send + 'static) -> bool {
        if !self.has_room_for_event(id) {
            return false;
        }
        let order = LateAnswer {
            address: id.token().0,
            answer: Late::Call {
                token: Box::default(),
                owed: None,
                answer: Box::new(|peer| {
                    order(peer);
                    CallAnswer::silent()
                }),
            },
        };
        self.decide(id, |session, environment, decisions| {
            session.answer_late(order, environment, decisions)
        });
        true
    }

    fn subscribe_by_server(&mut self, id: ConnectionId, channel: &str) -> bool {
        let mut is_allowed = false;
        self.decide(id, |session, environment, decisions| {
            is_allowed = session.subscribe_by_server(channel, environment, decisions);
            Ok(())
        });
        is_allowed
    }

    /// Ends the subscription of an MQTT client with this filter, or all. MQTT has no packet that tells the client.
    fn kick_out_mqtt(&mut self, id: ConnectionId, filter: Option<Arc<str>>) -> bool {
        let session = self.session(id).and_then(|session| session.mqtt_session());
        let (Some(session), Some(sessions)) = (session, self.connections.mqtt.as_deref()) else {
            return false;
        };
        let subscriber = Subscriber::Session(session.number);
        let is_subscribed = match &filter {
            Some(filter) => sessions.subscriptions.has(subscriber, filter),
            None => sessions.subscriptions.count_of(subscriber) > 0,
        };
        is_subscribed && self.order(id, move |peer| peer.kick_out(filter.as_deref(), None))
    }

    /// Ends a subscription of a connection, or all.
    fn kick_out(&mut self, id: ConnectionId, channel: Option<&str>, message: Option<&str>) -> bool {
        let is_subscribed = match channel {
            Some(name) => {
                let number = self.delivery.number_of(name.as_bytes());
                number.is_some_and(|number| self.delivery.subscriptions().is_subscribed(id.index(), number))
            }
            None => self.delivery.subscriptions().count_of(id.index()) > 0,
        };
        if !is_subscribed {
            return false;
        }
        self.decide(id, |session, _, decisions| {
            let reason = message.map(|json| decisions.write(|out| out.extend_from_slice(json.as_bytes())));
            let kick_out = match channel {
                Some(name) => {
                    let message = session.kicked_out(name.as_bytes(), reason, decisions);
                    let channel = decisions.write(|out| out.extend_from_slice(name.as_bytes()));
                    Decision::KickOut { channel, message }
                }
                None => Decision::KickOutAll { reason },
            };
            decisions.push(kick_out);
            Ok(())
        });
        true
    }
}

/// To act on a connection costs as much as to look at this many places.
const EFFORT_OF_AN_ACT: u32 = 32;
/// To sign a token costs as much as to look at this many places: 0.1 ms with ECDSA; with RSA it is a millisecond.
const EFFORT_OF_A_TOKEN: u32 = 1024;
