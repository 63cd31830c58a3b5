//! Decisions that come later, from any thread: may a client complete its handshake, be a user, subscribe, publish?
//!
//! The application takes a [`DeferredDecision`], gives it to a thread that will decide, and returns the
//! [`Refusal`] that it got with it: nothing is decided yet. The session keeps the packet, and the core does
//! not read the connection, so that its packets keep their order; no other connection waits. When the
//! decision comes, the session handles the packet again, by the rules and the time at that moment. At the
//! point where it would ask the application, it runs the closure of the decision ([`Again`]). Orders that the
//! application had given its [`Peer`] are kept as well.
//!
//! Limits: `decision_timeout`; one packet of a connection at a time.

use std::fmt;
use std::sync::Arc;

use super::deferred::{Late, LateAnswer, LateAnswerSender, Undelivered, send};
use super::error::{AppError, Refusal};
use super::peer::{AllowedPublish, Peer};
use super::scratch::DeferredOrders;

/// The right to decide later. If it is dropped unused, the client is refused.
pub struct DeferredDecision(Option<Way>);

/// The way back to a session.
struct Way {
    address: usize,
    number: u64,
    sender: Arc<dyn LateAnswerSender>,
}

/// A decision that has come. The session runs it where it would ask the application.
pub(crate) type Decide = Box<dyn FnOnce(&mut Peer<'_>) -> Result<AllowedPublish, Refusal> + Send>;

/// The number of a deferred decision, unique within its core.
pub(crate) type DecisionNumber = u64;

/// The decisions of the application about a packet that is handled again. Some packets need several: a
/// handshake, and then the token in it.
pub(crate) struct Again {
    /// Its decisions so far, in the order in which it was asked.
    pub(crate) decided: Vec<Result<(), Refusal>>,
    /// The decision that has come now.
    pub(crate) decide: Option<Decide>,
    /// The orders that it gave its peer before.
    pub(crate) kept: DeferredOrders,
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

    /// A decision without effect: the connection has ended, or there is no core.
    pub(super) fn about_nothing() -> DeferredDecision {
        DeferredDecision(None)
    }

    /// Allows the action. A publication is published as it was sent.
    ///
    /// # Errors
    /// The decision was not sent.
    pub fn allow(self) -> Result<(), Undelivered> {
        self.decide(|_| Ok(AllowedPublish::as_sent()))
    }

    /// Refuses the action: with an [`AppError`], or with [`Refusal::silent`].
    ///
    /// # Errors
    /// The decision was not sent.
    pub fn refuse(self, refusal: impl Into<Refusal>) -> Result<(), Undelivered> {
        let refusal = refusal.into();
        self.decide(move |_| Err(refusal))
    }

    /// Decides as `decide` returns. It may change a publication ([`Peer::rewrite`]) and give the peer further
    /// orders, which the server carries out after the answer to the packet. The closure runs on the core of
    /// the client, so it must not wait. If the client has disconnected, or `decision_timeout_ms` has passed,
    /// the closure is dropped.
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
    /// Refuses at once, so that the client need not wait for the deadline.
    fn drop(&mut self) {
        if let Some(way) = self.0.take() {
            // If the core has no room for it, the client is refused at the deadline.
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
