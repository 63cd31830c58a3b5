//! The receiver of the end of a call.

use std::fmt;

use super::call::{Ended, Failure, Token};

/// The receiver of the end of a call.
#[derive(Debug)]
pub enum ReplyTo {
    /// The client has called; its session needs this for the answer.
    Client(Token),
    /// A question of the server's own.
    Server(ServiceReply),
}

/// Gets the answer of a service to a question of the server's own, once. It runs on the core of the connection that the
/// question is about, between two messages, so it must not wait. If that connection ends before, it is dropped.
pub struct ServiceReply(Box<Tell>);

type Tell = dyn FnOnce(Result<Option<&str>, ServiceFailure<'_>>) + Send;

/// Why a service has not answered a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceFailure<'a> {
    /// It has answered with this error, which is JSON.
    Refused(&'a str),
    /// It was not answered.
    Failed(Failure),
}

impl ServiceReply {
    /// Calls `tell` with the answer.
    pub fn new(tell: impl FnOnce(Result<Option<&str>, ServiceFailure<'_>>) + Send + 'static) -> ServiceReply {
        ServiceReply(Box::new(tell))
    }

    /// Passes the end of the call to the receiver.
    pub fn tell(self, ended: Ended<'_>) {
        let text = |bytes| std::str::from_utf8(bytes).expect("sessions write text");
        (self.0)(match ended {
            Ended::Answered(data) => Ok(data.map(text)),
            Ended::Refused(error) => Err(ServiceFailure::Refused(text(error))),
            Ended::Failed(failure) => Err(ServiceFailure::Failed(failure)),
        });
    }
}

impl fmt::Debug for ServiceReply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServiceReply").finish_non_exhaustive()
    }
}
