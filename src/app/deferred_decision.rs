//! Decisions that come later, from any thread: may a client complete its handshake, be a user, subscribe, publish?
//!
//! The application takes a [`DeferredDecision`], hands it to a thread that will know, and returns the [`Refusal`] that it
//! got with it: nothing has been decided. The session keeps the packet, and the core does not read the connection, so
//! that its packets keep their order; no other connection waits. When the decision comes, the session handles the packet
//! again, by the rules and the time as of then. Where it would ask the application, it runs the closure that has come
//! ([`Again`]). What the application had asked of its [`Peer`] is kept as well.
//!
//! Limits: `decision_timeout`; one packet of a connection at a time.

use std::fmt;
use std::sync::Arc;

use super::deferred::{Late, LateAnswer, LateAnswerSender, Undelivered, send};
use super::error::{AppError, Refusal};
use super::peer::{AllowedPublish, Peer};
use super::scratch::Kept;

/// The right to decide later. If it is dropped unused, the client is refused.
pub struct DeferredDecision(Option<Way>);

/// The way back to a session.
struct Way {
    address: usize,
    number: u64,
    sender: Arc<dyn LateAnswerSender>,
}

/// A decision that has come. It is run where the application would be asked.
pub(crate) type Decide = Box<dyn FnOnce(&mut Peer<'_>) -> Result<AllowedPublish, Refusal> + Send>;

/// Names a decision that was deferred, among all of its core.
pub(crate) type DecisionNumber = u64;

/// The decisions of the application about a packet that is handled again. It is asked several times about some packets:
/// about a handshake and then about the token in it.
pub(crate) struct Again {
    /// Its decisions so far, in the order in which it was asked.
    pub(crate) decided: Vec<Result<(), Refusal>>,
    /// Its decision since.
    pub(crate) decide: Option<Decide>,
    /// The orders that it has given its peer before.
    pub(crate) kept: Kept,
}

impl DeferredDecision {
    pub(super) fn new(
        address: usize,
        number: DecisionNumber,
        sender: Arc<dyn LateAnswerSender>,
    ) -> DeferredDecision {
        DeferredDecision(Some(Way {
            address,
            number,
            sender,
        }))
    }

    /// A decision about nothing: the connection has ended, or there is no core.
    pub(super) fn about_nothing() -> DeferredDecision {
        DeferredDecision(None)
    }

    /// Allows it. A publication is published as it was sent.
    ///
    /// # Errors
    /// The decision was not sent.
    pub fn allow(self) -> Result<(), Undelivered> {
        self.decide(|_| Ok(AllowedPublish::as_sent()))
    }

    /// Refuses it: with an [`AppError`], or with [`Refusal::silent`].
    ///
    /// # Errors
    /// The decision was not sent.
    pub fn refuse(self, refusal: impl Into<Refusal>) -> Result<(), Undelivered> {
        let refusal = refusal.into();
        self.decide(move |_| Err(refusal))
    }

    /// Decides as `decide` returns, which may change a publication ([`Peer::rewrite`]) and ask more of the peer: the
    /// server does so after the answer to the packet. The closure runs on the core of the client, so it must not wait. If
    /// the client has disconnected, or `decision_timeout_ms` has passed, the closure is dropped.
    ///
    /// # Errors
    /// The decision was not sent.
    pub fn decide(
        mut self,
        decide: impl FnOnce(&mut Peer<'_>) -> Result<AllowedPublish, Refusal> + Send + 'static,
    ) -> Result<(), Undelivered> {
        match self.0.take() {
            Some(way) => way.send(Box::new(decide)),
            None => Err(Undelivered::Gone),
        }
    }
}

impl Way {
    fn send(self, decide: Decide) -> Result<(), Undelivered> {
        let late = LateAnswer {
            address: self.address,
            answer: Late::Decision {
                number: self.number,
                decide,
            },
        };
        send(late, self.sender)
    }
}

impl Drop for DeferredDecision {
    /// The client need not wait for its deadline.
    fn drop(&mut self) {
        if let Some(way) = self.0.take() {
            // If the core has no room for it, the deadline refuses the client.
            let _ = way.send(Box::new(|_| {
                Err(AppError::new("The application has not decided")
                    .named("UndecidedError")
                    .into())
            }));
        }
    }
}

impl fmt::Debug for DeferredDecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DeferredDecision").finish_non_exhaustive()
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Again")
            .field("decided", &self.decided)
            .finish_non_exhaustive()
    }
}
