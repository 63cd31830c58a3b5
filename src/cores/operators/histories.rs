//! Answers questions of other threads about the history of a channel that this core owns.
//!
//! A question is answered when the core has read everything that was published before the core first looked
//! at the question. So a caller finds its own publications.

use crate::app::App;
use crate::broker::Sequence;
use crate::history::{self, Reading, Unknown};

use crate::cores::core::Core;
use crate::cores::operators::questions::{AskHistory, HistoryAsked};

impl<A: App> Core<A> {
    /// Answers the question, or returns it if the core has not read the ring that far.
    pub(in crate::cores) fn answer_history(&mut self, mut ask: AskHistory) -> Option<AskHistory> {
        let before = *ask.before.get_or_insert_with(|| self.delivery.claimed());
        if self.delivery.appended() < before {
            return Some(ask);
        }
        match ask.asked {
            HistoryAsked::Read {
                query,
                publications_max,
                answer,
            } => {
                let question = history::Question {
                    name: ask.name,
                    hash: ask.hash,
                    query,
                    publications_max,
                    part: history::Part::Whole,
                    before,
                };
                answer.give(self.read_history(&question, before));
            }
            HistoryAsked::Remove { answer } => {
                if let Some(topics) = self.delivery.retained() {
                    topics.forget_last_value(&ask.name);
                }
                let memory = self.delivery.memory();
                answer.give(memory.map_or(0, |memory| memory.remove(&ask.name, ask.hash)));
            }
        }
        None
    }

    fn read_history(&mut self, question: &history::Question, before: Sequence) -> Reading {
        let now = self.time.now();
        match self.delivery.memory() {
            Some(memory) => memory.read(question, now),
            None => Reading::unknown(
                Unknown::NoHistory,
                self.delivery.numbering().position_before(before),
            ),
        }
    }
}
