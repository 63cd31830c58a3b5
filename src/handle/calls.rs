//! Calls to clients, from any thread.
//!
//! The handle does not know which cores have the clients, so it asks all cores. Each core calls its own clients, and
//! answers when each of them has answered, or can no longer answer. At the deadline the operation returns the results
//! so far.
//!
//! Limits: `CALLED_MAX` clients and `ANSWER_BYTES_MAX` for each operation (`cores/operators/outcomes.rs`).

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::app::{CallOutcome, SessionId};
use crate::cores::operators::questions::{
    ANSWER_BYTES_MAX, CALLED_MAX, Calling, CallsDone, Outcomes, Question, Until,
};
use crate::cores::operators::selection::{Selecting, Selection};

use super::error::HandleError;
use super::pending::Pending;
use super::{Handle, Shared};

/// The answers for which a call to several clients waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The answers of all clients.
    All,
    /// The first answer that is no error. The other clients are called as well.
    First,
}

/// The end of a call to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientAnswer {
    /// The id of its session.
    pub id: SessionId,
    /// The data of its answer as JSON, if there is any; or why there is no answer.
    pub result: Result<Option<String>, ClientFailure>,
}

/// The ends of the calls to the clients of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientAnswers {
    /// One for each client that was called, in the order of the calls; with [`Answers::First`] the first answer alone,
    /// if there is one.
    pub answers: Vec<ClientAnswer>,
    /// False if the selection may have more clients: it has over 1000, or a core has not looked at all of its
    /// connections in time, and calls the other clients later. True with [`Answers::First`] and an answer.
    pub is_complete: bool,
}

/// Why a client has not answered a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientFailure {
    /// It has answered with this error.
    Refused {
        /// The error, as JSON.
        error: String,
    },
    /// It has not answered in time, or its connection has ended before.
    NoAnswer,
    /// `calls_per_connection_max` calls wait for its answers: it was not called.
    TooManyCalls,
    /// It has answered, and the answers of all clients together are larger than 16 MiB.
    TooLarge,
    /// Its protocol has no calls, as MQTT: it was not called.
    NoCalls,
    /// It was not called: the rules allow it to serve the procedure, so it would take the call for a call of a client,
    /// and trust the claims in the data.
    IsService,
}

impl Handle {
    /// Calls a procedure of a client, and returns the data of its answer: JSON, or nothing. The client has `within` to
    /// answer, and no longer than `ack_timeout_ms`.
    ///
    /// # Errors
    /// [`HandleError::NoSuchConnection`], [`HandleError::ClientRefused`], [`HandleError::NoAnswer`],
    /// [`HandleError::TooManyCalls`], [`HandleError::NotInProtocol`], [`HandleError::IsService`],
    /// [`HandleError::NotJson`], [`HandleError::TooLarge`], or an error of every operation.
    pub fn call(
        &self,
        id: SessionId,
        event: &str,
        data: &(impl Serialize + ?Sized),
        within: Duration,
    ) -> Pending<Option<String>> {
        match serde_json::to_string(data) {
            Ok(json) => self.call_json(id, event, Some(&json), within),
            Err(_) => Pending::new(async { Err(HandleError::NotJson) }),
        }
    }

    /// As [`Handle::call`], with data that is JSON text already, or without data.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub fn call_json(
        &self,
        id: SessionId,
        event: &str,
        json: Option<&str>,
        within: Duration,
    ) -> Pending<Option<String>> {
        let shared = Arc::clone(&self.0);
        let call = shared.call_of(event, json);
        Pending::new(async move {
            let selection = Selection::Session(id);
            let answers = shared.call(selection, call?, within, Answers::All).await;
            let answer = match answers {
                Ok(called) => called.answers.into_iter().next(),
                // The time may be over before the core has called the client.
                Err(HandleError::Unanswered { .. }) => return Err(HandleError::NoAnswer),
                Err(error) => return Err(error),
            };
            match answer.ok_or(HandleError::NoSuchConnection)?.result {
                Ok(data) => Ok(data),
                Err(ClientFailure::Refused { error }) => Err(HandleError::ClientRefused { error }),
                // One answer may be as large as a message.
                Err(ClientFailure::NoAnswer | ClientFailure::TooLarge) => Err(HandleError::NoAnswer),
                Err(ClientFailure::TooManyCalls) => Err(HandleError::TooManyCalls),
                Err(ClientFailure::NoCalls) => Err(HandleError::NotInProtocol),
                Err(ClientFailure::IsService) => Err(HandleError::IsService),
            }
        })
    }

    /// Calls a procedure of all clients of a selection at the same time, of at most 1000. With [`Answers::All`],
    /// returns the result of each call; with [`Answers::First`], the first answer alone, or all failures if no client
    /// has answered. [`ClientAnswers::is_complete`] tells whether these are all clients. The clients have `within` to
    /// answer, and no longer than `ack_timeout_ms`.
    ///
    /// # Errors
    /// [`HandleError::NotJson`], [`HandleError::TooLarge`], or an error of every operation.
    /// [`HandleError::Unanswered`]: these cores have called no client, or its answer is not known.
    pub fn call_clients(
        &self,
        selection: &Selection,
        event: &str,
        data: &(impl Serialize + ?Sized),
        within: Duration,
        answers: Answers,
    ) -> Pending<ClientAnswers> {
        match serde_json::to_string(data) {
            Ok(json) => self.call_clients_json(selection, event, Some(&json), within, answers),
            Err(_) => Pending::new(async { Err(HandleError::NotJson) }),
        }
    }

    /// As [`Handle::call_clients`], with data that is JSON text already, or without data.
    ///
    /// # Errors
    /// As [`Handle::call_clients`].
    pub fn call_clients_json(
        &self,
        selection: &Selection,
        event: &str,
        json: Option<&str>,
        within: Duration,
        answers: Answers,
    ) -> Pending<ClientAnswers> {
        let shared = Arc::clone(&self.0);
        let call = shared.call_of(event, json);
        let selection = selection.clone();
        Pending::new(async move { shared.call(selection, call?, within, answers).await })
    }
}

/// The event and the data of a call.
type Call = (Arc<str>, Option<Arc<str>>);

impl Shared {
    fn call_of(&self, event: &str, json: Option<&str>) -> Result<Call, HandleError> {
        let data = self.publishing.check_data(event, json)?;
        Ok((event.into(), data.map(|data| Arc::from(&*data))))
    }

    async fn call(
        &self,
        selection: Selection,
        call: Call,
        within: Duration,
        answers: Answers,
    ) -> Result<ClientAnswers, HandleError> {
        let deadline = self.clock.uptime() + within;
        let is_of_one = matches!(selection, Selection::Session(_));
        let outcomes = match is_of_one {
            true => Outcomes::new(1, usize::MAX),
            false => Outcomes::new(CALLED_MAX, ANSWER_BYTES_MAX),
        };
        let until = match answers {
            Answers::All => Until::All,
            Answers::First => Until::FirstAnswer,
        };
        let question = |answer| {
            let selecting = Selecting::new(selection.clone(), 0);
            let outcomes = Arc::clone(&outcomes);
            Question::Call(Calling::new(selecting, call.clone(), outcomes, until, answer))
        };
        let is_enough = |done: &CallsDone| {
            (is_of_one && done.called > 0) || (until == Until::FirstAnswer && done.has_answer)
        };
        let told = self.ask_until(deadline, question, is_enough).await?;
        let mut ended: Vec<ClientAnswer> = outcomes.take().into_iter().map(client_answer).collect();
        // A core that has called clients may answer late because they do. A core that has called none stands still.
        if ended.is_empty() && !told.unanswered.is_empty() {
            return Err(HandleError::Unanswered {
                cores: told.unanswered,
            });
        }
        if answers == Answers::First
            && let Some(first) = ended.iter().position(|answer| answer.result.is_ok())
        {
            return Ok(ClientAnswers {
                answers: vec![ended.swap_remove(first)],
                is_complete: true,
            });
        }
        let all_looked = told.unanswered.is_empty() || outcomes.are_through(self.cores.len());
        Ok(ClientAnswers {
            // A session is on one core.
            is_complete: is_of_one || (all_looked && !outcomes.left_clients_out()),
            answers: ended,
        })
    }
}

fn client_answer((id, outcome): (SessionId, Option<CallOutcome>)) -> ClientAnswer {
    let result = match outcome {
        Some(CallOutcome::Answered(data)) => Ok(data),
        Some(CallOutcome::Refused(error)) => Err(ClientFailure::Refused { error }),
        Some(CallOutcome::TimedOut | CallOutcome::ConnectionEnded) | None => Err(ClientFailure::NoAnswer),
        Some(CallOutcome::TooMany) => Err(ClientFailure::TooManyCalls),
        Some(CallOutcome::TooLarge) => Err(ClientFailure::TooLarge),
        Some(CallOutcome::NoCalls) => Err(ClientFailure::NoCalls),
        Some(CallOutcome::IsService) => Err(ClientFailure::IsService),
    };
    ClientAnswer { id, result }
}
