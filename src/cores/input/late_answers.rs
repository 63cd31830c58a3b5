//! Answers that an application gives from other threads, long after the call.
//!
//! Limits: `LATE_ANSWERS_WAITING_MAX`; `outbox_bytes_max`, since an application is not kept from answering as a client is
//! kept from asking.

use mio::Token;

use crate::app::{App, LateAnswer};
use crate::decision::{CloseReason, Limit};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;

impl<A: App> Core<A> {
    /// Takes as many answers as may wait; those that come meanwhile are first in the next turn.
    pub(in crate::cores) fn take_late_answers(&mut self) {
        self.metrics.limit_hits[Limit::LateAnswers.index()].add(self.mailbox.take_returned());
        for _ in 0..self.mailbox.late_answers_max() {
            let Some(answer) = self.mailbox.try_receive_late() else {
                return;
            };
            self.answer_late(answer);
        }
    }

    fn answer_late(&mut self, answer: LateAnswer) {
        let id = ConnectionId::from_token(Token(answer.address));
        // The client may have gone, or be going.
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.is_ending() {
            return;
        }
        // Answers to its own calls are bounded by not reading more of them; late ones are the application's to give.
        // After a burst within one turn the socket has not been asked yet.
        let bytes_max = self.limits.outbox_bytes_max as usize;
        if connection.waiting_bytes() > bytes_max {
            self.connections.flush_now(id);
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.waiting_bytes() > bytes_max {
            self.metrics.limit_hit(Limit::OutboxBytes);
            self.close(id, CloseReason::SlowConsumer);
            return;
        }
        self.decide(id, |session, environment, decisions| {
            session.answer_late(answer, environment, decisions)
        });
    }
}
