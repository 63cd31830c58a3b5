//! The session of a connection, whatever its protocol.
//!
//! A connection gets its session when its upgrade has been answered.

use std::time::Duration;

use super::{Environment, ProtocolSettings};
use crate::app::{App, CallOutcome, LateAnswer, OutsideCall, TimerId};
use crate::auth::{Claims, Revocation};
use crate::broker::Position;
use crate::clock::{Now, Uptime};
use crate::decision::{
    CloseReason, Decisions, HistoryCall, HistoryFailure, Message, PresenceFailure, Recovered, Span, Stored,
    SubscribeOutcome, UnsubscribeOutcome,
};
use crate::history::Reading;
use crate::mqtt::receiver::Receiver;
use crate::mqtt::session::{CheckedFilters, KickedOut, Resumed};
use crate::mqtt::sessions::{SessionRef, Sessions};
use crate::policy::Policy;
use crate::services::{CallId, Ended, JoinFailure, Offer, ServiceCall};
use crate::session::{LoginAnswer, SessionId, SessionIds};
use crate::socketcluster::encode;
use crate::socketcluster::session::HistoryLook;
use crate::wills::WillFault;
use crate::{mqtt, socketcluster};

/// The session of one connection.
#[derive(Debug)]
pub enum Session {
    /// A SocketCluster client's.
    SocketCluster(socketcluster::session::Session),
    /// An MQTT client's.
    Mqtt(Box<MqttClient>),
}

/// The session of an MQTT client, and the received bytes of its next packets.
#[derive(Debug)]
pub struct MqttClient {
    /// Bytes that were received and are not handled yet.
    pub(crate) receiver: Receiver,
    /// The session.
    pub(crate) session: mqtt::session::Session,
}

/// Handles a packet of an MQTT client: its first byte, and the bytes behind its fixed header.
///
/// # Errors
/// The connection is to be closed after the decisions so far were carried out.
#[inline]
pub(crate) fn receive_packet<A: App>(
    session: &mut mqtt::session::Session,
    first: u8,
    body: &[u8],
    env: &mut Environment<'_, A>,
    decisions: &mut Decisions,
) -> Result<(), CloseReason> {
    match env.mqtt() {
        Some(mut env) => session.receive(first, body, &mut env, decisions),
        None => Err(CloseReason::NotMqtt),
    }
}

// Ten thousand idle connections hold one each.
const _: () = assert!(size_of::<Session>() <= 64);
// The allocator has blocks of 80 bytes; the next ones have 96 and 112.
const _: () = assert!(size_of::<MqttClient>() <= 80);

impl Session {
    /// The entry of this session among the MQTT sessions that outlive connections; `None` if it is not an
    /// MQTT session or its client is not connected.
    pub(crate) fn mqtt_session(&self) -> Option<SessionRef> {
        match self {
            Session::SocketCluster(_) => None,
            Session::Mqtt(client) => client.session.session_ref(),
        }
    }

    /// Notes that the connection ends, and that publications on which it has decided are dropped: the
    /// decisions of `unsent` from `at` on were not carried out.
    pub(crate) fn publications_dropped(
        &self,
        unsent: &Decisions,
        at: usize,
        sessions: Option<&mut Sessions>,
    ) {
        if let (Session::Mqtt(client), Some(sessions)) = (self, sessions) {
            client.session.publications_dropped(unsent, at, sessions);
        }
    }

    /// The session of a connection that was just upgraded. `claims` are those of the user that the request
    /// itself has authenticated, if there is one.
    pub(crate) fn begin(
        ids: &mut SessionIds,
        settings: &ProtocolSettings,
        now: Now,
        claims: Option<Box<Claims>>,
    ) -> Session {
        Session::SocketCluster(socketcluster::session::Session::new(
            ids.next_id(),
            &settings.socketcluster,
            now,
            claims,
        ))
    }

    /// The session of a connection that speaks MQTT: its CONNECT has not come yet. `claims` are those of the client's
    /// certificate or of the request of its WebSocket.
    pub(crate) fn begin_mqtt(ids: &mut SessionIds, now: Now, claims: Option<Box<Claims>>) -> Session {
        Session::Mqtt(Box::new(MqttClient {
            receiver: Receiver::default(),
            session: mqtt::session::Session::new(ids.next_id(), now, claims),
        }))
    }

    /// The id of the client's session.
    pub fn id(&self) -> Option<SessionId> {
        match self {
            Session::SocketCluster(session) => Some(session.id()),
            Session::Mqtt(client) => Some(client.session.id()),
        }
    }

    /// Handles a message, or the first part of a long one: then [`Session::has_more`] is true.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub fn receive<A: App>(
        &mut self,
        message: Message<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.receive(message, &mut env.socketcluster(), decisions),
            // Messages of MQTT are packets, which `receive_packet` handles.
            Session::Mqtt(_) => Err(CloseReason::ProtocolError),
        }
    }

    /// Whether a part of the last message is left. [`Session::receive_more`] must handle it before any other
    /// message.
    #[inline]
    pub fn has_more(&self) -> bool {
        match self {
            Session::SocketCluster(session) => session.has_more(),
            Session::Mqtt(client) => client.session.has_more(),
        }
    }

    /// Whether the session waits for the answer to a login, for a decision of the application or for the
    /// disk, and takes no message before it.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        match self {
            Session::SocketCluster(session) => session.is_waiting(),
            Session::Mqtt(client) => client.session.is_waiting(),
        }
    }

    /// How many bytes the session keeps for the rest of a message, and for packets that wait for a decision.
    pub fn kept_bytes(&self) -> usize {
        match self {
            Session::SocketCluster(session) => session.kept_bytes(),
            Session::Mqtt(client) => client.session.kept_bytes(),
        }
    }

    /// Received bytes of packets that are incomplete, or that wait for the connection's share of a turn.
    #[inline]
    pub(crate) fn assembly_bytes(&self) -> usize {
        match self {
            Session::SocketCluster(_) => 0,
            Session::Mqtt(client) => client.receiver.bytes(),
        }
    }

    /// Whether there may be whole packets that were received and are not handled yet.
    #[inline]
    pub(crate) fn has_input(&self) -> bool {
        match self {
            Session::SocketCluster(_) => false,
            Session::Mqtt(client) => client.receiver.has_rest() || client.receiver.has_packet(),
        }
    }

    /// Handles another part of a message.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub fn receive_more<A: App>(
        &mut self,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.receive_more(&mut env.socketcluster(), decisions),
            Session::Mqtt(client) => match env.mqtt() {
                Some(mut env) => client.session.receive_more(&mut env, decisions),
                None => Err(CloseReason::NotMqtt),
            },
        }
    }

    /// When [`Session::timed_out`] is to be called.
    pub fn next_deadline(&self, settings: &ProtocolSettings) -> Uptime {
        match self {
            Session::SocketCluster(session) => {
                session.next_deadline(&settings.common, &settings.socketcluster)
            }
            Session::Mqtt(client) => client.session.next_deadline(&settings.common),
        }
    }

    /// Does the work whose deadline has come.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn timed_out<A: App>(
        &mut self,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.timed_out(&mut env.socketcluster(), decisions),
            Session::Mqtt(client) => match env.mqtt() {
                Some(mut env) => client.session.timed_out(&mut env, decisions),
                None => Err(CloseReason::NotMqtt),
            },
        }
    }

    /// The answer to a [`Decision::Subscribe`](crate::decision::Decision::Subscribe) that was carried out; `None` if
    /// there is none.
    pub fn subscribed(
        &mut self,
        channel: Span,
        token: Option<Span>,
        outcome: SubscribeOutcome,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        match self {
            Session::SocketCluster(session) => session.subscribed(channel, token, outcome, decisions),
            Session::Mqtt(_) => None,
        }
    }

    /// The answer to a [`Decision::Acknowledge`](crate::decision::Decision::Acknowledge).
    ///
    /// # Errors
    /// The connection is to be closed instead, since the protocol has no such answer.
    pub fn stored<A: App>(
        &mut self,
        token: Span,
        outcome: Stored,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<Span, CloseReason> {
        match self {
            Session::SocketCluster(session) => Ok(session.stored(token, outcome, decisions)),
            Session::Mqtt(client) => match env.mqtt() {
                Some(mut env) => client.session.stored(token, outcome, &mut env, decisions),
                None => Ok(decisions.write(|_| {})),
            },
        }
    }

    /// A [`Decision::SaveSession`](crate::decision::Decision::SaveSession) was carried out: the session is on
    /// disk, or could not be written.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub(crate) fn session_saved<A: App>(
        &mut self,
        outcome: Stored,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if let Session::Mqtt(client) = self
            && let Some(mut env) = env.mqtt()
        {
            return client.session.saved(outcome, &mut env, decisions);
        }
        Ok(())
    }

    /// Appends the message that answers a
    /// [`Decision::SubscribeFrom`](crate::decision::Decision::SubscribeFrom), after the connection was
    /// subscribed and the history was read; `told` is `None` if the client has not asked for any history.
    pub fn recovered(&self, token: &[u8], told: Option<&Recovered>, out: &mut Vec<u8>) {
        match self {
            Session::SocketCluster(session) => session.recovered(token, told, out),
            Session::Mqtt(_) => {}
        }
    }

    /// Appends the message that tells a subscriber a position up to which it has all that it is to have.
    pub fn position_told(&self, channel: &[u8], position: Position, out: &mut Vec<u8>) {
        match self {
            Session::SocketCluster(_) => encode::position_told(channel, position, out),
            Session::Mqtt(_) => {}
        }
    }

    /// Appends the message that answers a [`Decision::ReadHistory`](crate::decision::Decision::ReadHistory). `look` says
    /// what the client gets of each publication; without it, it gets all as they were published.
    pub(crate) fn history_read(
        &self,
        token: &[u8],
        call: HistoryCall,
        reading: &Reading,
        look: Option<&mut HistoryLook<'_>>,
        out: &mut Vec<u8>,
    ) {
        match self {
            Session::SocketCluster(session) => session.history_read(token, call, reading, look, out),
            Session::Mqtt(_) => {}
        }
    }

    /// Appends the message that refuses a [`Decision::ReadHistory`](crate::decision::Decision::ReadHistory).
    pub fn history_failed(&self, token: &[u8], failure: HistoryFailure, out: &mut Vec<u8>) {
        match self {
            Session::SocketCluster(session) => session.history_failed(token, failure, out),
            Session::Mqtt(_) => {}
        }
    }

    /// The answer to a [`Decision::Unsubscribe`](crate::decision::Decision::Unsubscribe) that was carried out; `None`
    /// if there is none.
    pub fn unsubscribed(
        &mut self,
        channel: Span,
        token: Option<Span>,
        outcome: UnsubscribeOutcome,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        match self {
            Session::SocketCluster(session) => session.unsubscribed(channel, token, outcome, decisions),
            Session::Mqtt(_) => None,
        }
    }

    /// The answer to a [`Decision::SetWill`](crate::decision::Decision::SetWill) or a
    /// [`Decision::DropWill`](crate::decision::Decision::DropWill) that was carried out; `None` if there is none.
    pub fn will_set(
        &mut self,
        token: Option<Span>,
        outcome: Result<(), WillFault>,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        match self {
            Session::SocketCluster(session) => session.will_set(token, outcome, decisions),
            Session::Mqtt(_) => None,
        }
    }

    /// The message for one channel of a [`Decision::KickOutAll`](crate::decision::Decision::KickOutAll).
    pub fn kicked_out(&mut self, channel: &[u8], reason: Option<Span>, decisions: &mut Decisions) -> Span {
        match self {
            Session::SocketCluster(session) => session.kicked_out(channel, reason, decisions),
            Session::Mqtt(_) => decisions.write(|_| {}),
        }
    }

    /// Whether the client may keep a subscription.
    pub fn may_keep(&mut self, channel: &[u8], policy: &Policy) -> bool {
        match self {
            Session::SocketCluster(session) => session.may_keep(channel, policy),
            Session::Mqtt(_) => true,
        }
    }

    /// Appends the answer to a [`Decision::AskPresence`](crate::decision::Decision::AskPresence): JSON, or
    /// nothing, or the reason why the request failed. `token` is that of the decision.
    pub fn presence_answered(
        &self,
        token: &[u8],
        answer: Result<Option<&[u8]>, PresenceFailure>,
        out: &mut Vec<u8>,
    ) {
        match self {
            Session::SocketCluster(session) => session.presence_answered(token, answer, out),
            Session::Mqtt(_) => {}
        }
    }

    /// The message for a channel that a
    /// [`Decision::CheckSubscriptions`](crate::decision::Decision::CheckSubscriptions) takes away from the
    /// client.
    pub fn forbidden(&mut self, channel: &[u8], decisions: &mut Decisions) -> Span {
        match self {
            Session::SocketCluster(session) => session.forbidden(channel, decisions),
            Session::Mqtt(_) => decisions.write(|_| {}),
        }
    }

    /// The core has new rules. Decides to check the client's subscriptions, if it has any.
    pub fn rules_changed<A: App>(&mut self, env: &mut Environment<'_, A>, decisions: &mut Decisions) {
        match self {
            Session::SocketCluster(session) => session.rules_changed(&env.socketcluster(), decisions),
            Session::Mqtt(client) => client.session.rules_changed(decisions),
        }
    }

    /// Checks some filters of an MQTT session, and drops those that the rules do not allow. `None` for other
    /// protocols: the core itself has their subscriptions.
    pub(crate) fn recheck_filters<A: App>(
        &mut self,
        from: u32,
        max: usize,
        env: &mut Environment<'_, A>,
    ) -> Option<CheckedFilters> {
        match self {
            Session::SocketCluster(_) => None,
            Session::Mqtt(client) => Some(client.session.recheck_filters(from, max, &mut env.mqtt()?)),
        }
    }

    /// Ends some filters of an MQTT client; `None` for other protocols, whose subscriptions the core has.
    pub(crate) fn kick_out_some<A: App>(
        &mut self,
        from: u32,
        max: usize,
        reason: &[u8],
        env: &mut Environment<'_, A>,
    ) -> Option<KickedOut> {
        match self {
            Session::SocketCluster(_) => None,
            Session::Mqtt(client) => Some(client.session.kick_out_some(from, max, reason, &mut env.mqtt()?)),
        }
    }

    /// Goes through some filters of the session that an MQTT client has resumed. Returns the outcome, and the
    /// JSON that identifies this client to other clients; `None` for other protocols.
    pub(crate) fn resume_some<A: App>(
        &mut self,
        from: u32,
        max: usize,
        env: &mut Environment<'_, A>,
    ) -> Option<(Resumed, Vec<u8>)> {
        match self {
            Session::SocketCluster(_) => None,
            Session::Mqtt(client) => {
                let (mut env, mut info) = (env.mqtt()?, Vec::new());
                let resumed = client.session.resume_some(from, max, &mut env);
                if !resumed.rooms.is_empty() {
                    client.session.write_info(&env, &mut info);
                }
                Some((resumed, info))
            }
        }
    }

    /// Passes an answer or a decision that was deferred to the session.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn answer_late<A: App>(
        &mut self,
        late: LateAnswer,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.answer_late(late, &mut env.socketcluster(), decisions),
            Session::Mqtt(client) => match env.mqtt() {
                Some(mut env) => client.session.answer_late(late, &mut env, decisions),
                None => Err(CloseReason::NotMqtt),
            },
        }
    }

    /// A timer of the application has come.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn timer<A: App>(
        &mut self,
        timer: TimerId,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.timer(timer, &mut env.socketcluster(), decisions),
            Session::Mqtt(client) => match env.mqtt() {
                Some(mut env) => client.session.timer(timer, &mut env, decisions),
                None => Err(CloseReason::NotMqtt),
            },
        }
    }

    /// Sends the client an event on behalf of code outside the application of this core. The data is JSON.
    /// False if the protocol has no events.
    pub fn transmit(&mut self, event: &str, data: Option<&str>, decisions: &mut Decisions) -> bool {
        match self {
            Session::SocketCluster(session) => {
                session.transmit(event, data, decisions);
                true
            }
            Session::Mqtt(_) => false,
        }
    }

    /// Calls the client for another thread, which gets the outcome. The data is JSON.
    pub(crate) fn call_from_outside<A: App>(
        &mut self,
        event: &str,
        data: Option<&str>,
        outside: OutsideCall,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) {
        match self {
            Session::SocketCluster(session) => {
                session.call_from_outside(event, data, outside, &mut env.socketcluster(), decisions);
            }
            Session::Mqtt(_) => outside.tell(CallOutcome::NoCalls),
        }
    }

    /// Calls the client as a service, or sends it an event. Returns the call if it is over at once: an event,
    /// or a call that was answered because the protocol of the service cannot carry it.
    ///
    /// # Errors
    /// The call, if the client cannot be called.
    pub(crate) fn give_call(
        &mut self,
        call: Box<ServiceCall>,
        now: Uptime,
        decisions: &mut Decisions,
    ) -> Result<Option<Box<ServiceCall>>, Box<ServiceCall>> {
        match self {
            Session::SocketCluster(session) => session.give_call(call, decisions),
            Session::Mqtt(client) => client.session.give_call(call, now, decisions),
        }
    }

    /// The caller of a call no longer waits for the answer of this client, which was called as a service. The
    /// session keeps the call until the client answers, or until [`Session::take_cancelled`]. False if the
    /// session does not have the call.
    pub(crate) fn cancel_call(&mut self, id: CallId, until: Uptime, decisions: &mut Decisions) -> bool {
        match self {
            Session::SocketCluster(session) => session.cancel_call(id, until, decisions),
            Session::Mqtt(client) => client.session.cancel_call(id, until),
        }
    }

    /// Takes a cancelled call that the client has not answered.
    pub(crate) fn take_cancelled(&mut self, id: CallId) -> Option<Box<ServiceCall>> {
        match self {
            Session::SocketCluster(session) => session.take_cancelled(id),
            Session::Mqtt(client) => client.session.take_cancelled(id),
        }
    }

    /// Tells the client the end of its call of a service. `token` is the data that its session needs for the
    /// answer.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn service_ended<A: App>(
        &mut self,
        token: &[u8],
        ended: Ended<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => {
                session.service_ended(token, ended, decisions);
                Ok(())
            }
            Session::Mqtt(client) => match env.mqtt() {
                Some(mut env) => client.session.service_ended(token, ended, &mut env, decisions),
                None => Err(CloseReason::NotMqtt),
            },
        }
    }

    /// Tells the client whether it serves a pattern now.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn service_registered<A: App>(
        &mut self,
        token: &[u8],
        outcome: Result<(&[u8], Offer), JoinFailure>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => {
                session.service_registered(token, outcome, decisions);
                Ok(())
            }
            Session::Mqtt(client) => match env.mqtt() {
                Some(mut env) => {
                    let outcome = outcome.map(|_| ());
                    client
                        .session
                        .service_registered(token, outcome, &mut env, decisions)
                }
                None => Err(CloseReason::NotMqtt),
            },
        }
    }

    /// Tells the client that it has given a pattern up.
    pub(crate) fn service_given_up(&self, token: &[u8], decisions: &mut Decisions) {
        match self {
            Session::SocketCluster(session) => session.service_given_up(token, decisions),
            // UNSUBACK has told the client.
            Session::Mqtt(_) => {}
        }
    }

    /// Tells the client that the rules do not allow it any more to serve a pattern.
    pub(crate) fn service_forbidden(&self, pattern: &[u8], decisions: &mut Decisions) {
        match self {
            Session::SocketCluster(session) => session.service_forbidden(pattern, decisions),
            // MQTT cannot take away a single filter, so the connection is closed.
            Session::Mqtt(client) => client.session.rules_changed(decisions),
        }
    }

    /// Whether the client may go on serving a pattern.
    pub(crate) fn may_keep_service(&mut self, pattern: &[u8], policy: &Policy) -> bool {
        match self {
            Session::SocketCluster(session) => session.may_keep_service(pattern, policy),
            Session::Mqtt(client) => client.session.may_keep_service(pattern, policy),
        }
    }

    /// Whether the rules allow the client to serve a procedure, no matter whether it serves it now.
    pub(crate) fn may_serve_one(&mut self, procedure: &[u8], policy: &Policy) -> bool {
        match self {
            Session::SocketCluster(session) => session.may_serve_one(procedure, policy),
            // Programs neither call an MQTT client nor send it events.
            Session::Mqtt(_) => false,
        }
    }

    /// Subscribes the client, which has not asked for it, if the rules allow it. The session sends the client
    /// a message about it.
    pub fn subscribe_by_server<A: App>(
        &mut self,
        channel: &str,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> bool {
        match self {
            Session::SocketCluster(session) => {
                session.subscribe_by_server(channel, &env.socketcluster(), decisions)
            }
            Session::Mqtt(_) => false,
        }
    }

    /// A [`Decision::Login`](crate::decision::Decision::Login) has been answered.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn login_answered<A: App>(
        &mut self,
        answer: LoginAnswer,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => {
                session.login_answered(answer, &mut env.socketcluster(), decisions)
            }
            Session::Mqtt(client) => match env.mqtt() {
                Some(mut env) => client.session.login_answered(answer, &mut env, decisions),
                None => Err(CloseReason::NotMqtt),
            },
        }
    }

    /// A [`Decision::Login`](crate::decision::Decision::Login) found no room. Returns the answer, or `None`
    /// if there is none, and whether the connection ends.
    pub fn login_not_taken(
        &mut self,
        settings: &ProtocolSettings,
        decisions: &mut Decisions,
    ) -> (Option<Span>, Result<(), CloseReason>) {
        match self {
            Session::SocketCluster(session) => (session.login_not_taken(decisions), Ok(())),
            Session::Mqtt(client) => (
                client.session.login_not_taken(&settings.mqtt, decisions),
                Err(CloseReason::MqttRefused),
            ),
        }
    }

    /// The server has not read the connection up to now, so silence before this moment is not the client's
    /// fault.
    pub fn reset_silence_timer(&mut self, now: Now, settings: &ProtocolSettings) {
        match self {
            Session::SocketCluster(session) => session.reset_silence_timer(now, &settings.socketcluster),
            Session::Mqtt(client) => client.session.reset_silence_timer(now),
        }
    }

    /// The silence of the client for which it closes the connection.
    pub fn silence_max(&self, settings: &ProtocolSettings) -> Duration {
        match self {
            Session::SocketCluster(_) => settings.socketcluster.ping_timeout,
            Session::Mqtt(client) => client.session.silence_max(),
        }
    }

    /// Whether the client has sent nothing since that moment.
    pub fn last_heard_before(&self, moment: Uptime) -> bool {
        match self {
            Session::SocketCluster(session) => session.last_heard_before(moment),
            Session::Mqtt(client) => client.session.last_heard_before(moment),
        }
    }

    /// Takes the client's token away if `revocation` revokes it. Returns whether it does: then the connection is to be
    /// closed.
    pub fn revoke(&mut self, revocation: &Revocation, decisions: &mut Decisions) -> bool {
        match self {
            Session::SocketCluster(session) => session.revoke(revocation, decisions),
            Session::Mqtt(client) => client.session.revoke(revocation),
        }
    }

    /// The claims of the client's token, if it is authenticated.
    pub fn claims(&self) -> Option<&Claims> {
        match self {
            Session::SocketCluster(session) => session.claims(),
            Session::Mqtt(client) => client.session.claims(),
        }
    }

    /// Whether the protocol's handshake is done and the connection has not ended.
    pub fn is_open(&self) -> bool {
        match self {
            Session::SocketCluster(session) => session.is_open(),
            Session::Mqtt(client) => client.session.is_open(),
        }
    }

    /// Appends the last packet that a client gets in its own protocol, if that protocol has one. Called
    /// before [`Session::ended`].
    pub(crate) fn write_farewell(
        &self,
        reason: CloseReason,
        text: &str,
        settings: &ProtocolSettings,
        out: &mut Vec<u8>,
    ) {
        match self {
            Session::SocketCluster(_) => {}
            Session::Mqtt(client) => client.session.write_farewell(reason, text, &settings.mqtt, out),
        }
    }

    /// The connection has ended, whatever the cause.
    pub fn ended<A: App>(&mut self, env: &mut Environment<'_, A>, reason: CloseReason) {
        match self {
            Session::SocketCluster(session) => session.ended(&mut env.socketcluster(), reason),
            Session::Mqtt(client) => {
                if let Some(mut env) = env.mqtt() {
                    client.session.ended(&mut env, reason);
                }
            }
        }
    }
}
