//! The call `$history`: the question to the owner of the channel, and the answer to the client.

use crate::app::{App, OutboundKind};
use crate::broker::Sent;
use crate::decision::{Decisions, HistoryCall, HistoryFailure, Limit, Span, Wanted};
use crate::history::{Part, Query, Question, Reading, Remembered};
use crate::protocols::Content;

use crate::cores::connections::delivery_inspector::{DeliveryInspector, data_in};
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};
use crate::cores::lifecycle::owner_calls::OwnerCall;
use crate::cores::post::letter::{HistoryPurpose, HistoryQuestion, Letter};

impl<A: App> Core<A> {
    /// Asks the owner of a channel on behalf of a client.
    pub(super) fn begin_history_call(
        &mut self,
        id: ConnectionId,
        channel: Span,
        token: Span,
        call: Span,
        decisions: &Decisions,
    ) {
        let (name, token) = (decisions.bytes(channel), decisions.bytes(token));
        let (owner, hash) = self.delivery.owner(name);
        let now = self.time.now().uptime;
        let Some((number, _)) = self.history_calls.begin(id, owner, token, now) else {
            self.metrics.limit_hit(Limit::HistoryCalls);
            self.refuse_history(id, token, HistoryFailure::Busy);
            return;
        };
        let call = HistoryCall::read(decisions.bytes(call));
        let query = query(call.wanted);
        let question = Question {
            name: name.into(),
            hash,
            query,
            publications_max: self.limits.recovery_publications_max,
            part: match query {
                Query::After(_) => Part::Oldest(CALL_BYTES),
                Query::Last(_) | Query::Since(_) | Query::LastValue | Query::Position => {
                    Part::Newest(CALL_BYTES)
                }
            },
            before: self.delivery.claimed(),
        };
        let asked = HistoryQuestion {
            asker: self.id,
            purpose: HistoryPurpose::Call {
                number,
                call,
                channel: A::LOOKS_AT_DELIVERIES.then(|| name.into()),
            },
            question,
        };
        // From now on the core looks for overdue calls in its turns.
        self.keeps_state = true;
        match self.post.send(owner, Letter::HistoryQuestion(Box::new(asked))) {
            Sent::Sent | Sent::Kept => {}
            Sent::Dropped => self.end_history_calls_to(owner),
        }
    }

    /// Answers a client that has called `$history`, if it is still connected and its call has not timed out.
    /// `channel` is present if the application looks at what clients get.
    pub(in crate::cores) fn answer_history_call(
        &mut self,
        number: u64,
        call: HistoryCall,
        channel: Option<&[u8]>,
        reading: &Reading,
    ) {
        let Some(OwnerCall { id, token, .. }) = self.history_calls.take(number) else {
            return;
        };
        let mut answer = Vec::new();
        if let Some(connection) = self.connections.get(id)
            && let Phase::Open(open) = &connection.phase
        {
            let session = &open.session;
            match channel {
                None => session.history_read(&token, call, reading, None, &mut answer),
                Some(channel) => {
                    let (mut app, withheld) =
                        (self.resources.inspector(), &self.metrics.publications_withheld);
                    let mut look = |publication: &Remembered<'_>| {
                        let looked = app.inspect(connection, channel, data_in(publication.payload));
                        withheld.add(u64::from(looked == OutboundKind::Withhold));
                        looked
                    };
                    session.history_read(&token, call, reading, Some(&mut look), &mut answer);
                }
            }
            self.send(id, Content::Text, &answer);
        }
    }

    /// Answers the calls whose owner has not answered in time.
    #[inline]
    pub(in crate::cores) fn end_overdue_history_calls(&mut self) {
        while let Some(call) = self.history_calls.take_overdue(self.time.now().uptime) {
            self.metrics.limit_hit(Limit::HistoryTime);
            self.refuse_history(call.id, &call.token, HistoryFailure::TimedOut);
        }
    }

    /// Answers the calls that wait for a core that has stopped.
    pub(in crate::cores) fn end_history_calls_to(&mut self, owner: usize) {
        while let Some(call) = self.history_calls.take_of_owner(owner) {
            self.refuse_history(call.id, &call.token, HistoryFailure::TimedOut);
        }
    }

    fn refuse_history(&mut self, id: ConnectionId, token: &[u8], failure: HistoryFailure) {
        let mut answer = Vec::new();
        if let Some(session) = self.session(id) {
            session.history_failed(token, failure, &mut answer);
            self.send(id, Content::Text, &answer);
        }
    }
}

fn query(wanted: Wanted) -> Query {
    match wanted {
        Wanted::After(position) => Query::After(position),
        Wanted::Last(count) => Query::Last(count),
        Wanted::Since(unix_ms) => Query::Since(unix_ms),
        Wanted::LastValue => Query::LastValue,
        // A call never asks for the retained publication.
        Wanted::Retained | Wanted::Position | Wanted::OtherEpoch | Wanted::Forbidden => Query::Position,
    }
}

/// How many bytes of memory the publications for one answer occupy on their way. The session writes no more
/// than 1 MiB of data into an answer, and tells the client if there is more.
const CALL_BYTES: usize = 2 * 1024 * 1024;
