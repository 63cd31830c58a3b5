//! Takes the letters of other cores, and wakes the cores that this core has sent letters to.
//!
//! Limits: `LETTERS_WAITING_MAX`, counted as `letters` by the sender that finds the box full; `LETTERS_PER_TURN_MAX`.

use crate::app::App;
use crate::decision::Limit;

use super::core::Core;
use crate::cores::post::letter::Letter;

impl<A: App> Core<A> {
    /// Sends letters that found no room before, and takes the letters to this core.
    pub(super) fn take_letters(&mut self) {
        if self.post.kept_count() as u64 > self.metrics.letters_kept.value() {
            self.metrics.limit_hit(Limit::Letters);
        }
        self.post.send_kept();
        for _ in 0..letters_per_turn_max() {
            let Some(letter) = self.post.take() else {
                break;
            };
            self.metrics.letters.add(1);
            self.keeps_state = true;
            match letter {
                Letter::Stopped(core) => {
                    self.post.note_stopped(core.index());
                    self.presence.memberships.note_stopped(core.index());
                    self.end_questions_to(core);
                    self.end_history_calls_to(core.index());
                    self.end_presence_calls_to(core.index());
                    self.end_moves_from(core.index());
                    self.retained_asks.note_stopped(core.index());
                    self.end_services_of_core(core.index());
                    if let Some(sessions) = &mut self.connections.mqtt {
                        sessions.note_stopped(core.index());
                    }
                }
                Letter::Moved(moving) => self.take_moved_letter(moving),
                Letter::Will(letter) => self.take_will_letter(*letter),
                Letter::PoliciesFollowed { core, version, place } => {
                    self.note_policies_followed(core, version, place)
                }
                Letter::HistoryQuestion(asked) => self.take_history_question(asked),
                Letter::HistoryAnswer(answer) => self.take_history_answer(*answer),
                Letter::RetainedQuestion(question) => self.take_retained_question(question),
                Letter::RetainedAnswer(answer) => self.take_retained_answer(*answer),
                Letter::PresenceMessages { from, messages } => self.presence.receive(from, messages),
                Letter::PresenceDone {
                    owner,
                    count,
                    refused,
                } => self.presence_done(owner, count, &refused),
                Letter::PresenceRoom { owner } => self.presence.try_again(owner),
                Letter::MqttShares { from, messages } => {
                    if let Some(sessions) = &mut self.connections.mqtt {
                        sessions.receive(from, messages);
                    }
                }
                Letter::Service(letter) => self.take_service_letter(letter),
                Letter::PresenceAnswered(number, answer) => self.presence_answered(number, *answer),
            }
        }
        self.metrics.letters_kept.set(self.post.kept_count() as u64);
    }

    /// Wakes the sleeping cores to which letters were sent in this turn.
    #[inline]
    pub(super) fn wake_receivers(&mut self) {
        if !self.post.has_sent() {
            return;
        }
        self.delivery.wake(self.post.take_wakes());
    }
}

/// [`LETTERS_PER_TURN_MAX`], or the limit of a simulation.
fn letters_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.letters_per_turn_max;
    }
    LETTERS_PER_TURN_MAX
}

/// Letters that one turn takes, so that other work is not delayed for long.
const LETTERS_PER_TURN_MAX: usize = 256;
