//! Answers that come later, from any thread.
//!
//! An application must not wait on its core. It takes a [`Deferred`] instead, gives it to a thread that will
//! know the answer, and returns. The answer is a closure: it travels to the core and runs there, with the
//! client as its [`Peer`], so that a late answer can do everything that a prompt one can. Sending it never
//! waits.
//!
//! The number of answers that an application owes one client is bounded (`client_calls_max`): each deferred
//! call holds a share of [`Owed`] until it is answered or dropped.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::deferred_decision::{Decide, DecisionNumber};
use super::error::AppError;
use super::peer::{CallAnswer, Peer};

/// The right to answer one call later. If it is dropped unused, the call is not answered.
pub struct Deferred(Option<Return>);

/// The way back to a session.
struct Return {
    address: usize,
    /// As in [`Late::Call`].
    token: Box<[u8]>,
    owed: Option<Owed>,
    sender: Arc<dyn LateAnswerSender>,
}

/// An answer on its way to the core of its session.
pub(crate) struct LateAnswer {
    /// Where the core finds the session.
    pub(crate) address: usize,
    pub(crate) answer: Late,
}

/// An answer or a decision that was deferred.
pub(crate) enum Late {
    /// The answer to a call.
    Call {
        /// Data with which the session answers the call; empty if no call was deferred.
        token: Box<[u8]>,
        /// A share of the count while the answer is on its way; `None` if the deferred answer is not that of
        /// a call.
        owed: Option<Owed>,
        answer: Box<dyn FnOnce(&mut Peer<'_>) -> CallAnswer + Send>,
    },
    /// A decision about a packet or login that the session keeps until then.
    Decision { number: DecisionNumber, decide: Decide },
}

/// The calls of one client that wait for late answers. Their number is that of the shares, without the
/// session's own.
#[derive(Clone, Default)]
pub(crate) struct Owed(Arc<()>);

impl Owed {
    /// How many calls there are. A call that is being answered on another thread may still count.
    pub(crate) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// Takes late answers to one core.
pub(crate) trait LateAnswerSender: Send + Sync {
    /// Sends an answer, or returns it.
    fn send(&self, answer: LateAnswer) -> Result<(), Returned>;
}

/// An answer that could not be taken.
pub(crate) enum Returned {
    Full(LateAnswer),
    Gone,
}

/// An answer that was not sent.
pub enum Undelivered {
    /// Too many answers wait for the core already: try again later, or give up.
    Full(Unsent),
    /// The client has disconnected, or the core has ended with all its clients.
    Gone,
}

/// An answer that can be sent again.
pub struct Unsent {
    answer: LateAnswer,
    sender: Arc<dyn LateAnswerSender>,
}

impl Deferred {
    pub(super) fn new(
        address: usize,
        token: &[u8],
        owed: Option<Owed>,
        sender: Arc<dyn LateAnswerSender>,
    ) -> Deferred {
        Deferred(Some(Return {
            address,
            token: token.into(),
            owed,
            sender,
        }))
    }

    /// An answer that is dropped: the connection has ended, or there is no core.
    pub(super) fn to_nobody() -> Deferred {
        Deferred(None)
    }

    /// Answers with the answer that `answer` returns. The closure runs on the core of the client, so it must not wait.
    /// If the client has disconnected, the closure is dropped.
    ///
    /// # Errors
    /// The answer was not sent.
    pub fn answer(
        self,
        answer: impl FnOnce(&mut Peer<'_>) -> CallAnswer + Send + 'static,
    ) -> Result<(), Undelivered> {
        let Return {
            address,
            token,
            owed,
            sender,
        } = self.0.ok_or(Undelivered::Gone)?;
        let late = LateAnswer {
            address,
            answer: Late::Call {
                token,
                owed,
                answer: Box::new(answer),
            },
        };
        send(late, sender)
    }

    /// Answers with `value`, whose JSON is written on the calling thread. A value without a JSON form is not answered.
    ///
    /// # Errors
    /// The answer was not sent.
    pub fn reply(self, value: &(impl Serialize + ?Sized)) -> Result<(), Undelivered> {
        match serde_json::to_string(value) {
            Ok(json) => {
                self.answer(move |peer| peer.reply_written(|out| out.extend_from_slice(json.as_bytes())))
            }
            Err(_) => Ok(()),
        }
    }

    /// Answers with an error.
    ///
    /// # Errors
    /// The answer was not sent.
    pub fn refuse(self, error: AppError) -> Result<(), Undelivered> {
        self.answer(move |peer| peer.refuse(&error))
    }
}

impl Unsent {
    /// Tries again.
    ///
    /// # Errors
    /// The answer was not sent.
    pub fn retry(self) -> Result<(), Undelivered> {
        send(self.answer, self.sender)
    }
}

impl fmt::Debug for Owed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Owed").field(&self.count()).finish()
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Deferred").finish_non_exhaustive()
    }
}

impl fmt::Debug for Unsent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unsent").finish_non_exhaustive()
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Undelivered::Full(_) => "too many answers wait for the client's core",
            Undelivered::Gone => "the client has gone",
        })
    }
}

impl std::error::Error for Undelivered {}

impl fmt::Debug for Undelivered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Undelivered::Full(_) => "Full",
            Undelivered::Gone => "Gone",
        })
    }
}

/// Sends an answer by the way to its core.
pub(super) fn send(answer: LateAnswer, sender: Arc<dyn LateAnswerSender>) -> Result<(), Undelivered> {
    sender.send(answer).map_err(|returned| match returned {
        Returned::Full(answer) => Undelivered::Full(Unsent { answer, sender }),
        Returned::Gone => Undelivered::Gone,
    })
}
