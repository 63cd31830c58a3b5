//! Unfinished orders and questions of operators: a core works on them in each turn.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::auth::Revocation;
use crate::clock::Uptime;

use crate::cores::operators::mailbox::Done;
use crate::cores::operators::questions::Question;

/// The operations that are under way in one core.
#[derive(Debug, Default)]
pub(in crate::cores) struct Operations {
    /// The question that is being answered.
    question: Option<Question>,
    /// Revocations for which the sessions are being searched.
    revoking: VecDeque<Revoking>,
    /// The next place in the table whose connection is to be told of new rules; `None` when all have been
    /// told. The new rules already apply to connections that begin meanwhile.
    unchecked: Option<u32>,
    /// When a difference to the shadow rules may be logged again.
    silent_until: Option<Uptime>,
    /// Whether the core ends after this turn.
    stopping: bool,
}

/// A revocation, and the progress of its search through the sessions of a core.
#[derive(Debug)]
pub(in crate::cores) struct Revoking {
    pub(super) revocation: Arc<Revocation>,
    pub(super) done: Done,
    /// The next place to look at.
    pub(super) next: u32,
    pub(super) ended: u64,
}

impl Revoking {
    pub(in crate::cores) fn new(revocation: Arc<Revocation>, done: Done) -> Revoking {
        Revoking {
            revocation,
            done,
            next: 0,
            ended: 0,
        }
    }
}

impl Operations {
    /// Whether the next turn can continue an operation.
    pub(in crate::cores) fn has_work(&self) -> bool {
        !self.revoking.is_empty() || self.unchecked.is_some()
    }

    /// Keeps a question that the next turn goes on to answer.
    pub(in crate::cores) fn keep_question(&mut self, question: Question) {
        self.question = Some(question);
    }

    /// Takes the question that is being answered.
    pub(in crate::cores) fn take_question(&mut self) -> Option<Question> {
        self.question.take()
    }

    pub(in crate::cores) fn begin_revoking(&mut self, revoking: Revoking) {
        self.revoking.push_back(revoking);
    }

    /// Takes the oldest revocation that is under way.
    pub(in crate::cores) fn take_revoking(&mut self) -> Option<Revoking> {
        self.revoking.pop_front()
    }

    /// Gives back a revocation that is not complete. It is the first again.
    pub(in crate::cores) fn go_on_revoking(&mut self, revoking: Revoking) {
        self.revoking.push_front(revoking);
    }

    /// The rules have changed: begins to go through all connections, from the first place on.
    pub(in crate::cores) fn begin_check(&mut self) {
        self.unchecked = Some(0);
    }

    /// The next place, of `places`, whose connection is to be told of new rules. The call after this one returns the
    /// place behind it.
    pub(in crate::cores) fn next_unchecked(&mut self, places: u32) -> Option<u32> {
        let index = self.unchecked?;
        self.unchecked = (index < places).then_some(index + 1);
        Some(index)
    }

    /// Whether a difference to the shadow rules may be logged now. If so, no other is logged before `until`.
    pub(in crate::cores) fn may_log_difference(&mut self, now: Uptime, until: Uptime) -> bool {
        if self.silent_until.is_some_and(|silent_until| now < silent_until) {
            return false;
        }
        self.silent_until = Some(until);
        true
    }

    /// Stops the core after this turn.
    pub(in crate::cores) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(in crate::cores) fn is_stopping(&self) -> bool {
        self.stopping
    }
}
