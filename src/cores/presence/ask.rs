//! Calls of clients about presence: the questions to the owner of the channel, and its answers to the
//! clients.

use crate::app::App;
use crate::decision::{CloseReason, Decisions, Limit, PresenceFailure, PresenceRequest, Span};
use crate::presence::{Answer, Ask, InfoRefused, Message, Request};
use crate::protocols::Content;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::lifecycle::owner_calls::OwnerCall;

impl<A: App> Core<A> {
    /// Carries out a [`Decision::AskPresence`](crate::decision::Decision::AskPresence).
    pub(in crate::cores) fn ask_presence(
        &mut self,
        id: ConnectionId,
        channel: Span,
        token: Span,
        request: Span,
        decisions: &Decisions,
    ) {
        let Some(session) = self.session(id).and_then(|session| session.id()) else {
            return;
        };
        let (name, token) = (decisions.bytes(channel), decisions.bytes(token));
        let now = self.time.now().uptime;
        let request = match PresenceRequest::read(decisions.bytes(request)) {
            PresenceRequest::Members { after, limit } => Request::Page {
                after,
                limit: limit as usize,
            },
            PresenceRequest::SetInfo(info) => match self.presence.memberships.identity(id.index()) {
                Some(identity) => Request::SetInfo(identity, info.map(Box::from)),
                None => {
                    self.send_presence_answer(id, token, Err(PresenceFailure::NoMember));
                    return;
                }
            },
        };
        let hash = self.delivery.hasher().hash(name);
        let owner = hash.owner(self.delivery.core_count());
        if self.presence.memberships.has_stopped(owner) {
            // A drain is under way: the owner does not answer any more.
            self.send_presence_answer(id, token, Err(PresenceFailure::TimedOut));
            return;
        }
        let begun = if self.presence.memberships.is_congested() {
            None
        } else {
            self.presence.calls.begin(id, owner, token, now)
        };
        let Some((number, deadline)) = begun else {
            self.metrics.limit_hit(Limit::PresenceCalls);
            self.send_presence_answer(id, token, Err(PresenceFailure::Busy));
            return;
        };
        let ask = Ask {
            asker: self.id.index(),
            number,
            deadline,
            request,
        };
        self.presence
            .memberships
            .tell(name, hash, session, Message::Asks(ask));
        self.presence.due = now;
    }

    /// The owner of a channel has answered the call with this number.
    pub(in crate::cores) fn presence_answered(&mut self, number: u64, answer: Answer) {
        let Some(call) = self.presence.calls.take(number) else {
            return;
        };
        match answer {
            Answer::Page(page) => {
                let mut json = Vec::new();
                page.write_json(&mut json);
                self.answer_call(&call, Ok(Some(&json)));
            }
            Answer::Info(Ok(())) => self.answer_call(&call, Ok(None)),
            Answer::Info(Err(InfoRefused::NotThere)) => {
                self.answer_call(&call, Err(PresenceFailure::NoMember));
            }
            Answer::Info(Err(InfoRefused::Full)) => self.answer_call(&call, Err(PresenceFailure::Full)),
        }
    }

    /// Answers the calls that a core which has stopped was to answer.
    pub(in crate::cores) fn end_presence_calls_to(&mut self, owner: usize) {
        while let Some(call) = self.presence.calls.take_of_owner(owner) {
            self.answer_call(&call, Err(PresenceFailure::TimedOut));
        }
    }

    /// Answers the calls that have waited too long.
    pub(super) fn end_overdue_calls(&mut self) {
        while let Some(call) = self.presence.calls.take_overdue(self.time.now().uptime) {
            self.metrics.limit_hit(Limit::PresenceTime);
            self.answer_call(&call, Err(PresenceFailure::TimedOut));
        }
    }

    /// Sends an answer that comes in a later turn than its call. As for late answers of the application, it
    /// does not help to stop reading the connection: if the outbox is full, the connection ends.
    fn answer_call(&mut self, call: &OwnerCall, answer: Result<Option<&[u8]>, PresenceFailure>) {
        let id = call.id;
        if self
            .connections
            .get(id)
            .is_none_or(|connection| connection.is_ending())
        {
            return;
        }
        let bytes_max = self.limits.outbox_bytes_max as usize;
        let is_full = |core: &Core<A>| {
            let connection = core.connections.get(id);
            connection.is_some_and(|connection| connection.waiting_bytes() > bytes_max)
        };
        if is_full(self) {
            self.connections.flush_now(id);
        }
        if is_full(self) {
            self.metrics.limit_hit(Limit::OutboxBytes);
            self.close(id, CloseReason::SlowConsumer);
            return;
        }
        self.send_presence_answer(id, &call.token, answer);
    }

    fn send_presence_answer(
        &mut self,
        id: ConnectionId,
        token: &[u8],
        answer: Result<Option<&[u8]>, PresenceFailure>,
    ) {
        let mut text = Vec::new();
        if let Some(session) = self.session(id) {
            session.presence_answered(token, answer, &mut text);
            self.send(id, Content::Text, &text);
        }
    }
}
