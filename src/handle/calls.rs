//! Calls to clients, from any thread.
//!
//! Which core has the client is not known, so that all are asked. The one that has it calls the client and answers later:
//! with the client's answer, or with the reason why there is none.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::app::{CallOutcome, SessionId};
use crate::cores::operators::questions::{Calling, Question};
use crate::cores::operators::selection::{Selecting, Selection};

use super::error::HandleError;
use super::pending::Pending;
use super::{Handle, Shared};

impl Handle {
    /// Calls a procedure of a client, and returns the data of its answer: JSON, or nothing. The client has `within` to
    /// answer, and no longer than `ack_timeout_ms`.
    ///
    /// # Errors
    /// [`HandleError::NoSuchConnection`], [`HandleError::ClientRefused`], [`HandleError::NoAnswer`],
    /// [`HandleError::TooManyCalls`], [`HandleError::NotJson`], [`HandleError::TooLarge`], or an error of every operation.
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
        let event = Arc::from(event);
        let data = shared.publishing.check_data(&event, json);
        let data = data.map(|data| data.map(|data| Arc::from(&*data)));
        Pending::new(async move { shared.call(id, event, data?, within).await })
    }
}

impl Shared {
    async fn call(
        &self,
        id: SessionId,
        event: Arc<str>,
        data: Option<Arc<str>>,
        within: Duration,
    ) -> Result<Option<String>, HandleError> {
        let deadline = self.clock.uptime() + within;
        let question = |answer| {
            let selecting = Selecting::new(Selection::Session(id), 0);
            Question::Call(Calling::new(selecting, Arc::clone(&event), data.clone(), answer))
        };
        let has_client = |outcome: &CallOutcome| *outcome != CallOutcome::NoConnection;
        let answers = self.ask_until(deadline, question, has_client).await?;
        match answers.given.into_iter().find(has_client) {
            Some(CallOutcome::Answered(data)) => Ok(data),
            Some(CallOutcome::Refused(error)) => Err(HandleError::ClientRefused { error }),
            Some(CallOutcome::TimedOut | CallOutcome::ConnectionEnded) => Err(HandleError::NoAnswer),
            Some(CallOutcome::TooMany) => Err(HandleError::TooManyCalls),
            Some(CallOutcome::NoConnection) | None if answers.unanswered.is_empty() => {
                Err(HandleError::NoSuchConnection)
            }
            Some(CallOutcome::NoConnection) | None => Err(HandleError::NoAnswer),
        }
    }
}
