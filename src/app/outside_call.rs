//! Calls to clients that another thread makes, and not the application on a core.

use std::fmt;

/// Takes the outcome of a call that another thread makes, once. If it is dropped, that thread learns that
/// there is none.
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
    /// The client may serve the procedure, and would mistake the call for that of another client: it was not
    /// called.
    IsService,
}

impl OutsideCall {
    /// A call that reports its outcome by calling `tell` on the core. `tell` must be short, since the core
    /// waits for it.
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
