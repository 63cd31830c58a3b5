//! The session of a connection, whatever its protocol.
//!
//! A connection is given one when its upgrade has been answered.

use super::{Environment, Settings};
use crate::app::{App, LateAnswer, OutsideCall};
use crate::auth::{Claims, Revocation};
use crate::clock::{Now, Uptime};
use crate::decision::{
    CloseReason, Decisions, HistoryCall, Message, PresenceFailure, Recovered, Span, Stored, SubscribeOutcome,
    UnsubscribeOutcome,
};
use crate::history::Reading;
use crate::policy::Policy;
use crate::session::{LoginAnswer, SessionId, SessionIds};
use crate::socketcluster;
use crate::wills::NoRoom;

/// The session of one connection.
#[derive(Debug)]
pub enum Session {
    /// A SocketCluster client's.
    SocketCluster(socketcluster::session::Session),
}

// Ten thousand idle connections hold one each.
const _: () = assert!(size_of::<Session>() <= 64);

impl Session {
    /// The session of a connection that was just upgraded. `claims` are the user's whom the request itself has
    /// authenticated, if it has.
    pub(crate) fn begin(
        ids: &mut SessionIds,
        settings: &Settings,
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

    /// The id that the client was given, if its protocol has such ids.
    pub fn id(&self) -> Option<SessionId> {
        match self {
            Session::SocketCluster(session) => Some(session.id()),
        }
    }

    /// Handles a message, or the first part of a long one: [`Session::has_more`].
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
        }
    }

    /// Whether a part of the last message is left. [`Session::receive_more`] handles it, and comes before any other
    /// message.
    #[inline]
    pub fn has_more(&self) -> bool {
        match self {
            Session::SocketCluster(session) => session.has_more(),
        }
    }

    /// How many bytes the session keeps for the part that is left of a message.
    pub fn kept_bytes(&self) -> usize {
        match self {
            Session::SocketCluster(session) => session.kept_bytes(),
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
        }
    }

    /// When [`Session::timed_out`] is to be called.
    pub fn next_deadline(&self, settings: &Settings) -> Uptime {
        match self {
            Session::SocketCluster(session) => {
                session.next_deadline(&settings.common, &settings.socketcluster)
            }
        }
    }

    /// Does what is due.
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
        }
    }

    /// The answer to a [`Decision::Acknowledge`](crate::decision::Decision::Acknowledge).
    pub fn stored(&self, token: Span, outcome: Stored, decisions: &mut Decisions) -> Span {
        match self {
            Session::SocketCluster(session) => session.stored(token, outcome, decisions),
        }
    }

    /// Appends the message that answers a [`Decision::SubscribeFrom`](crate::decision::Decision::SubscribeFrom), after
    /// the connection was subscribed and the history was read; `told` is `None` if the client has asked for nothing.
    pub fn recovered(&self, token: &[u8], told: Option<&Recovered>, out: &mut Vec<u8>) {
        match self {
            Session::SocketCluster(session) => session.recovered(token, told, out),
        }
    }

    /// Appends the message that answers a [`Decision::ReadHistory`](crate::decision::Decision::ReadHistory).
    pub fn history_read(&self, token: &[u8], call: HistoryCall, reading: &Reading, out: &mut Vec<u8>) {
        match self {
            Session::SocketCluster(session) => session.history_read(token, call, reading, out),
        }
    }

    /// Appends the message that refuses a [`Decision::ReadHistory`](crate::decision::Decision::ReadHistory), since too
    /// many are open.
    pub fn history_busy(&self, token: &[u8], out: &mut Vec<u8>) {
        match self {
            Session::SocketCluster(session) => session.history_busy(token, out),
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
        }
    }

    /// The answer to a [`Decision::SetWill`](crate::decision::Decision::SetWill) or a
    /// [`Decision::DropWill`](crate::decision::Decision::DropWill) that was carried out; `None` if there is none.
    pub fn will_set(
        &mut self,
        token: Option<Span>,
        outcome: Result<(), NoRoom>,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        match self {
            Session::SocketCluster(session) => session.will_set(token, outcome, decisions),
        }
    }

    /// The message for one channel of a [`Decision::KickOutAll`](crate::decision::Decision::KickOutAll).
    pub fn kicked_out(&mut self, channel: &[u8], reason: Option<Span>, decisions: &mut Decisions) -> Span {
        match self {
            Session::SocketCluster(session) => session.kicked_out(channel, reason, decisions),
        }
    }

    /// Whether the client may keep a subscription.
    pub fn may_keep(&mut self, channel: &[u8], policy: &Policy) -> bool {
        match self {
            Session::SocketCluster(session) => session.may_keep(channel, policy),
        }
    }

    /// Appends the answer to a [`Decision::AskPresence`](crate::decision::Decision::AskPresence): JSON, or nothing, or
    /// why it was not done. `token` is that of the decision.
    pub fn presence_answered(
        &self,
        token: &[u8],
        answer: Result<Option<&[u8]>, PresenceFailure>,
        out: &mut Vec<u8>,
    ) {
        match self {
            Session::SocketCluster(session) => session.presence_answered(token, answer, out),
        }
    }

    /// The message for a channel that a
    /// [`Decision::CheckSubscriptions`](crate::decision::Decision::CheckSubscriptions) takes away.
    pub fn forbidden(&mut self, channel: &[u8], decisions: &mut Decisions) -> Span {
        match self {
            Session::SocketCluster(session) => session.forbidden(channel, decisions),
        }
    }

    /// The core has new rules. Decides to check the client's subscriptions, if it has any.
    pub fn rules_changed<A: App>(&mut self, env: &mut Environment<'_, A>, decisions: &mut Decisions) {
        match self {
            Session::SocketCluster(session) => session.rules_changed(&env.socketcluster(), decisions),
        }
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
        match self {
            Session::SocketCluster(session) => session.answer_late(late, &mut env.socketcluster(), decisions),
        }
    }

    /// Sends the client an event that the application on this core has not asked for. The data is JSON.
    pub fn transmit(&mut self, event: &str, data: Option<&str>, decisions: &mut Decisions) {
        match self {
            Session::SocketCluster(session) => session.transmit(event, data, decisions),
        }
    }

    /// Calls the client for another thread, which is told the outcome. The data is JSON.
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
        }
    }

    /// Subscribes the client, which has not asked for it, if the rules allow it. The client is told.
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
        }
    }

    /// There is no room for a [`Decision::Login`](crate::decision::Decision::Login): the answer, or `None` if there is
    /// none.
    pub fn login_not_taken(&mut self, decisions: &mut Decisions) -> Option<Span> {
        match self {
            Session::SocketCluster(session) => session.login_not_taken(decisions),
        }
    }

    /// The server has not read the connection up to now: silence before this moment is not the client's.
    pub fn reset_silence_timer(&mut self, now: Now, settings: &Settings) {
        match self {
            Session::SocketCluster(session) => session.reset_silence_timer(now, &settings.socketcluster),
        }
    }

    /// Whether nothing has been heard from the client since that moment.
    pub fn last_heard_before(&self, moment: Uptime) -> bool {
        match self {
            Session::SocketCluster(session) => session.last_heard_before(moment),
        }
    }

    /// Takes the client's token away if `revocation` revokes it. Returns whether it does: then the connection is to be
    /// closed.
    pub fn revoke(&mut self, revocation: &Revocation, decisions: &mut Decisions) -> bool {
        match self {
            Session::SocketCluster(session) => session.revoke(revocation, decisions),
        }
    }

    /// The claims of the client's token, if it is authenticated.
    pub fn claims(&self) -> Option<&Claims> {
        match self {
            Session::SocketCluster(session) => session.claims(),
        }
    }

    /// Whether the protocol's handshake is done and the connection has not ended.
    pub fn is_open(&self) -> bool {
        match self {
            Session::SocketCluster(session) => session.is_open(),
        }
    }

    /// The connection has ended, whatever the cause.
    pub fn ended<A: App>(&mut self, env: &mut Environment<'_, A>, reason: CloseReason) {
        match self {
            Session::SocketCluster(session) => session.ended(&mut env.socketcluster(), reason),
        }
    }
}
