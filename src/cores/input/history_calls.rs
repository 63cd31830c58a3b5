//! The call `$history`: the question to the owner of the channel, and the answer to the client.

use mio::Token;

use crate::app::App;
use crate::decision::{Decisions, HistoryCall, Limit, Span, Wanted};
use crate::history::{Query, Question, Reading};
use crate::protocols::Content;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::post::letter::{HistoryPurpose, HistoryQuestion, Letter};

impl<A: App> Core<A> {
    /// Asks the owner of a channel for a client.
    pub(super) fn begin_history_call(
        &mut self,
        id: ConnectionId,
        channel: Span,
        token: Span,
        call: Span,
        decisions: &Decisions,
    ) {
        let (name, token) = (decisions.bytes(channel), decisions.bytes(token));
        if !self.history_calls.begin(id) {
            self.metrics.limit_hit(Limit::HistoryCalls);
            let mut answer = Vec::new();
            if let Some(session) = self.session(id) {
                session.history_busy(token, &mut answer);
                self.send(id, Content::Text, &answer);
            }
            return;
        }
        let call = HistoryCall::read(decisions.bytes(call));
        let (owner, hash) = self.delivery.owner(name);
        let question = Question {
            name: name.into(),
            hash,
            query: query(call.wanted),
            publications_max: self.limits.recovery_publications_max,
            before: self.delivery.claimed(),
        };
        let asked = HistoryQuestion {
            asker: self.id,
            purpose: HistoryPurpose::Call {
                connection: id.token(),
                token: token.into(),
                call,
            },
            question,
        };
        self.post.send(owner, Letter::HistoryQuestion(Box::new(asked)));
    }

    /// Answers a client that has called `$history`, if it is still there.
    pub(in crate::cores) fn answer_history_call(
        &mut self,
        connection: Token,
        token: &[u8],
        call: HistoryCall,
        reading: &Reading,
    ) {
        let id = ConnectionId::from_token(connection);
        self.history_calls.end(id);
        let mut answer = Vec::new();
        if let Some(session) = self.session(id) {
            session.history_read(token, call, reading, &mut answer);
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
        Wanted::Position | Wanted::OtherEpoch | Wanted::Forbidden => Query::Position,
    }
}
