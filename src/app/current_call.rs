//! The question that an application is being asked: a call of a client, or something else that a session has
//! received.

use std::sync::Arc;

use super::calls::{CallId, CallRefused};
use super::deferred::{Deferred, LateAnswerSender, Owed};
use super::deferred_decision::{DecisionNumber, DeferredDecision};
use super::error::Refusal;

/// The question that the application is being asked, and the calls that it may make meanwhile.
#[derive(Default)]
pub(crate) struct CurrentCall {
    /// The data with which the session answers the call later; empty if the client expects no answer. Only
    /// that session understands it.
    token: Vec<u8>,
    /// The client's calls that wait for a late answer; `None` while there has been none.
    owed: Option<Owed>,
    /// Where the core finds the session.
    address: usize,
    calls: CallsLeft,
    /// Whether the application handles the call or the event: it has said so
    /// ([`Peer::handled`](super::Peer::handled)), or has taken the right to answer later.
    is_handled: bool,
    /// The number of the last decision that was deferred on this core.
    last_decision: DecisionNumber,
}

/// How many calls the application may still make to the client.
#[derive(Clone, Copy, Default)]
enum CallsLeft {
    /// None, since the connection has ended.
    #[default]
    Ended,
    Some {
        last: u64,
        count: u32,
    },
}

impl CurrentCall {
    /// Forgets the last question. The connection at `address` has ended: the application can make no calls
    /// and defer nothing.
    pub(super) fn clear(&mut self, address: usize) {
        self.token.clear();
        self.owed = None;
        self.is_handled = false;
        self.address = address;
        self.calls = CallsLeft::Ended;
    }

    /// Whether the connection has ended.
    pub(super) fn has_ended(&self) -> bool {
        match self.calls {
            CallsLeft::Ended => true,
            CallsLeft::Some { .. } => false,
        }
    }

    /// Where the core finds the session.
    pub(super) fn address(&self) -> usize {
        self.address
    }

    /// The session at `address` asks the application. It has made `last_call` calls and may make `calls_left` more.
    pub(super) fn begin(&mut self, address: usize, last_call: u64, calls_left: u32) {
        self.address = address;
        self.calls = CallsLeft::Some {
            last: last_call,
            count: calls_left,
        };
    }

    /// The application is about to answer a call of a client; `owed` counts the answers that this client
    /// already waits for.
    pub(crate) fn answering(&mut self, token: &[u8], owed: Option<Owed>) {
        self.token.extend_from_slice(token);
        self.owed = owed;
    }

    /// Whether the application handles the call or the event that the session asks it about.
    pub(crate) fn is_handled(&self) -> bool {
        self.is_handled
    }

    /// The application handles the call or the event.
    pub(super) fn note_handled(&mut self) {
        self.is_handled = true;
    }

    /// The answers that the client waits for, after the application was asked.
    pub(crate) fn take_owed(&mut self) -> Option<Owed> {
        self.owed.take()
    }

    /// The id of another call to the client.
    pub(super) fn next_call(&mut self) -> Result<CallId, CallRefused> {
        match &mut self.calls {
            CallsLeft::Ended => Err(CallRefused::Ended),
            CallsLeft::Some { count: 0, .. } => Err(CallRefused::TooMany),
            CallsLeft::Some { last, count } => {
                *last += 1;
                *count -= 1;
                Ok(CallId::new(*last))
            }
        }
    }

    /// The right to decide later, with `sender`, and the refusal that stands for it until then.
    pub(super) fn defer_decision(
        &mut self,
        sender: Option<&Arc<dyn LateAnswerSender>>,
    ) -> (Refusal, DeferredDecision) {
        match (self.calls, sender) {
            (CallsLeft::Some { .. }, Some(sender)) => {
                self.last_decision += 1;
                let number = self.last_decision;
                let deferred = DeferredDecision::new(self.address, number, Arc::clone(sender));
                (Refusal::deferred(number), deferred)
            }
            (CallsLeft::Some { .. } | CallsLeft::Ended, Some(_) | None) => {
                (Refusal::silent(), DeferredDecision::about_nothing())
            }
        }
    }

    /// The right to answer the call later, with `sender`.
    pub(super) fn defer(&mut self, sender: Option<&Arc<dyn LateAnswerSender>>) -> Deferred {
        match (self.calls, sender) {
            (CallsLeft::Some { .. }, Some(sender)) => {
                self.note_handled();
                let owed = (!self.token.is_empty()).then(|| self.owed.get_or_insert_default().clone());
                Deferred::new(self.address, &self.token, owed, Arc::clone(sender))
            }
            (CallsLeft::Some { .. } | CallsLeft::Ended, Some(_) | None) => Deferred::to_nobody(),
        }
    }
}
