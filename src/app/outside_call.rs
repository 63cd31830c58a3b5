//! A call to a client that no application on a core has made, but another thread.

use std::fmt;

/// Gets the outcome of a call that another thread makes, once. If it is dropped, that thread learns that there is none.
pub(crate) struct OutsideCall(Box<dyn FnOnce(CallOutcome) + Send>);

/// The outcome of a call that another thread makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// The client has answered; the data is JSON.
    Answered(Option<String>),
    /// The client has answered with this error, which is JSON.
    Refused(String),
    /// No answer within `ack_timeout_ms`.
    TimedOut,
    /// The connection ended before the answer.
    ConnectionEnded,
    /// `calls_per_connection_max` calls wait for the client's answers: it was not called.
    TooMany,
    /// The client has answered with more bytes than the answers of all clients may have together.
    TooLarge,
    /// The client's protocol has no calls: it was not called.
    NoCalls,
    /// The client may serve the procedure, and would take the call for one of another client: it was not called.
    IsService,
}

impl OutsideCall {
    /// A call whose outcome is told by calling `tell` on the core. It must be short, since the core waits for it.
    pub(crate) fn new(tell: impl FnOnce(CallOutcome) + Send + 'static) -> OutsideCall {
        OutsideCall(Box::new(tell))
    }

    pub(crate) fn tell(self, outcome: CallOutcome) {
        (self.0)(outcome);
    }
}

impl fmt::Debug for OutsideCall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OutsideCall").finish_non_exhaustive()
    }
}
