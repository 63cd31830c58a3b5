//! Passes on the answers and decisions that an application gives from other threads, long after it was asked.
//!
//! Limits: `LATE_ANSWERS_WAITING_MAX`; `DECIDED_CHECKS_MAX`; `outbox_bytes_max`, which closes the connection:
//! a core can stop reading a client's calls, but it cannot stop the application's answers.

use mio::Token;

use crate::app::{App, Late, LateAnswer};
use crate::decision::{CloseReason, Limit};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::lifecycle::reading::Why;

impl<A: App> Core<A> {
    /// Takes as many answers as the mailbox holds. Answers that arrive meanwhile may have to wait for the next turn.
    pub(in crate::cores) fn take_late_answers(&mut self) {
        self.metrics.limit_hits[Limit::LateAnswers.index()].add(self.mailbox.take_returned());
        for _ in 0..self.mailbox.late_answers_max() {
            if self.shares.decided_checks >= DECIDED_CHECKS_MAX {
                // The mailbox still says that there may be answers.
                return;
            }
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
        // A decision belongs to input: while the outbox is full of replies, no more input is handled.
        if matches!(answer.answer, Late::Decision { .. }) || self.has_room_for_event(id) {
            self.resources.scratch.common.begin_verifications();
            self.decide(id, |session, environment, decisions| {
                session.answer_late(answer, environment, decisions)
            });
            self.shares.decided_checks += self.resources.scratch.common.verifications();
            self.follow_decision(id);
        }
    }

    /// The session of a connection has got an answer or a decision, or no longer waits for one: goes on with
    /// the input of the connection, or stops reading it if the session waits for a decision.
    pub(in crate::cores) fn follow_decision(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        match (
            connection.reading.is_paused_by(Why::Decision),
            connection.awaits_decision(),
        ) {
            (true, false) => {
                connection.reading.resume(Why::Decision);
                self.read_again(id);
            }
            (false, true) => connection.reading.pause(Why::Decision),
            (true, true) | (false, false) => {}
        }
        self.connections.note_input(id);
    }

    /// Whether a connection has room for a message that another thread sends it. If its client does not read,
    /// the connection is closed.
    ///
    /// To stop reading a connection bounds the answers to its calls, but not the messages of other threads.
    /// After a burst within one turn nothing has been written to the socket yet, so the outbox is flushed
    /// before it counts as full.
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

/// After this many checks of tokens, further decisions wait for the next turn: a packet that waits for a
/// decision is handled again when it comes, and a check of a signature may take 0.3 ms.
pub(in crate::cores) const DECIDED_CHECKS_MAX: u32 = 16;
