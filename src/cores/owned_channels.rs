//! The work of a core as the owner of channels: it answers questions about their histories, and expires what
//! it remembers.
//!
//! Limit: [`ANSWERS_PER_TURN_MAX`]. Further questions wait for the next turn, so that a storm of them does
//! not delay the core's own clients. An answer shares the memory of the history, so its cost does not depend
//! on the size of the history.

use crate::app::App;
use crate::broker::Sequence;
use crate::clock::Uptime;
use crate::history::{Reading, Unknown};

use super::core::Core;
use crate::cores::CoreId;
use crate::cores::post::letter::{HistoryAnswer, HistoryPurpose, HistoryQuestion, Letter};

impl<A: App> Core<A> {
    /// Takes a question of a core, which may be this one.
    pub(super) fn take_history_question(&mut self, asked: Box<HistoryQuestion>) {
        if let Some(memory) = self.delivery.memory() {
            return memory.ask(asked);
        }
        // The asker has adopted policies of channels that this core has not adopted yet.
        let up_to = self.delivery.numbering().position_before(asked.question.before);
        let answer = HistoryAnswer {
            purpose: asked.purpose,
            reading: Reading::unknown(Unknown::PolicyChanged, up_to),
        };
        self.post
            .send(asked.asker.index(), Letter::HistoryAnswer(Box::new(answer)));
    }

    /// Takes the answer to a question of this core.
    pub(super) fn take_history_answer(&mut self, answer: HistoryAnswer) {
        match answer.purpose {
            HistoryPurpose::Recovery(number) => self.history_was_read(number, answer.reading),
            HistoryPurpose::Call {
                number,
                call,
                channel,
            } => self.answer_history_call(number, call, channel.as_deref(), &answer.reading),
        }
    }

    /// Notes from which place on a core follows other policies of channels.
    pub(super) fn note_policies_followed(&mut self, core: CoreId, version: u32, place: Sequence) {
        let now = self.time.now();
        self.begin_memory()
            .note_followed(core.index(), version, place, now);
    }

    /// Answers questions, and forgets publications that have expired: a part in each turn.
    #[inline]
    pub(super) fn maintain_owned_channels(&mut self) {
        let appended = self.delivery.appended();
        if self
            .delivery
            .memory()
            .is_some_and(|memory| memory.has_work(appended))
        {
            self.maintain_some_owned_channels(appended);
        }
    }

    #[cold]
    fn maintain_some_owned_channels(&mut self, appended: Sequence) {
        let now = self.time.now();
        self.tell_policies_followed();
        let Some(memory) = self.delivery.memory() else {
            return;
        };
        memory.maintain(now);
        for _ in 0..ANSWERS_PER_TURN_MAX {
            let Some((asker, answer)) = memory.next_answer(appended, now) else {
                return;
            };
            self.post
                .send(asker.index(), Letter::HistoryAnswer(Box::new(answer)));
        }
    }

    /// When the next turn is due for the memory of this core, if no event comes.
    pub(super) fn next_expiry(&mut self) -> Uptime {
        let expiry = self.delivery.memory().and_then(|memory| memory.next_expiry());
        // Once a second is often enough: expired publications are not read any more.
        expiry.map_or(Uptime::NEVER, |expiry| expiry.max(self.memory_due))
    }
}

/// Questions that one turn answers, at 1 to 3 µs each.
const ANSWERS_PER_TURN_MAX: usize = 64;
