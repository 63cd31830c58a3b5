//! Sends the answers that an application gives from other threads, long after the call.
//!
//! Limits: `LATE_ANSWERS_WAITING_MAX`; `outbox_bytes_max`, which closes the connection: a core can stop reading a
//! client's calls, but it cannot stop the application's answers.

use mio::Token;

use crate::app::{App, LateAnswer};
use crate::decision::{CloseReason, Limit};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;

impl<A: App> Core<A> {
    /// Takes as many answers as the mailbox holds. Answers that arrive meanwhile may have to wait for the next turn.
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
        // The connection may have ended, or may be about to.
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.is_ending() {
            return;
        }
        if self.has_room_for_event(id) {
            self.decide(id, |session, environment, decisions| {
                session.answer_late(answer, environment, decisions)
            });
        }
    }

    /// Whether a connection has room for something that another thread sends it. If its client does not read, the
    /// connection is closed.
    ///
    /// Not reading further calls bounds immediate answers; it bounds nothing that other threads send. After a burst
    /// within one turn nothing has been written to the socket yet, so the outbox is flushed before it counts as full.
    pub(in crate::cores) fn has_room_for_event(&mut self, id: ConnectionId) -> bool {
        let bytes_max = self.limits.outbox_bytes_max as usize;
        let is_full = |core: &Self| {
            let connection = core.connections.get(id);
            connection.is_some_and(|connection| connection.waiting_bytes() > bytes_max)
        };
        if is_full(self) {
            self.connections.flush_now(id);
        }
        if is_full(self) {
            self.metrics.limit_hit(Limit::OutboxBytes);
            self.close(id, CloseReason::SlowConsumer);
            return false;
        }
        true
    }
}
