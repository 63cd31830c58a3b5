//! Calls procedures of clients, and sends clients events.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::connections::{one, subject};
use super::error::{ApiError, ErrorCode};
use super::publish::present;
use super::{answer_of, from_body};
use crate::handle::{Answers, ClientAnswer, ClientFailure, Handle, Selection};

/// A call to the clients of some connections.
#[derive(Debug)]
pub(super) struct CallClients {
    selection: Selection,
    procedure: String,
    data: Option<Box<RawValue>>,
    within: Duration,
    answers: Answers,
}

/// An event for the clients of some connections.
#[derive(Debug)]
pub(super) struct Transmit {
    selection: Selection,
    event: String,
    data: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallBody {
    user: Option<String>,
    connection: Option<String>,
    address: Option<String>,
    procedure: String,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    timeout_ms: Option<u64>,
    answers: Option<Wanted>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    All,
    First,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TransmitBody {
    user: Option<String>,
    connection: Option<String>,
    address: Option<String>,
    event: String,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
}

/// The answer to a request: the outcome of each call.
#[derive(Serialize)]
struct CallAnswer {
    answers: Vec<AnswerShown>,
    /// Whether there may be more clients, which are not among the answers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
}

#[derive(Serialize)]
struct AnswerShown {
    connection: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<RawValue>>,
}

impl CallClients {
    pub(super) fn read(body: &Bytes) -> Result<CallClients, ApiError> {
        let body: CallBody = from_body(body)?;
        let selection = one(&body.user, &body.connection, &body.address)?;
        check_name("procedure", &body.procedure)?;
        let timeout_ms = body.timeout_ms.unwrap_or(TIMEOUT_DEFAULT_MS);
        if !(1..=TIMEOUT_MAX_MS).contains(&timeout_ms) {
            return Err(ApiError::new(
                ErrorCode::InvalidBody,
                format!("timeout_ms: found {timeout_ms}, expected 1 to {TIMEOUT_MAX_MS}"),
            ));
        }
        Ok(CallClients {
            selection,
            procedure: body.procedure,
            data: body.data,
            within: Duration::from_millis(timeout_ms),
            answers: match body.answers {
                Some(Wanted::All) | None => Answers::All,
                Some(Wanted::First) => Answers::First,
            },
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        Cow::Owned(format!(
            "{} for {}",
            subject(&self.selection),
            self.procedure.escape_debug()
        ))
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let data = self.data.as_deref().map(RawValue::get);
        let called = handle
            .call_clients_json(&self.selection, &self.procedure, data, self.within, self.answers)
            .await?;
        let answers = called.answers.iter().map(shown).collect::<Result<_, _>>()?;
        answer_of(&CallAnswer {
            answers,
            incomplete: !called.is_complete,
        })
    }
}

impl Transmit {
    pub(super) fn read(body: &Bytes) -> Result<Transmit, ApiError> {
        let body: TransmitBody = from_body(body)?;
        let selection = one(&body.user, &body.connection, &body.address)?;
        check_name("event", &body.event)?;
        Ok(Transmit {
            selection,
            event: body.event,
            data: body.data,
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        Cow::Owned(format!(
            "{} with {}",
            subject(&self.selection),
            self.event.escape_debug()
        ))
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let data = self.data.as_deref().map(RawValue::get);
        let count = handle.transmit_json(&self.selection, &self.event, data).await?;
        Ok(json!({ "connections": count }).to_string())
    }
}

/// The clients' libraries handle events whose names begin with `#` or `$` themselves, as the server's: by these, keys
/// without the actions for tokens and subscriptions could change both, and could cancel calls that services carry out.
fn check_name(member: &str, name: &str) -> Result<(), ApiError> {
    if name.starts_with(['#', '$']) {
        return Err(ApiError::new(
            ErrorCode::InvalidBody,
            format!(
                "{member}: {name:?} begins with # or $, as the server's own events do; for tokens and subscriptions there \
                 are requests of their own"
            ),
        ));
    }
    Ok(())
}

fn shown(answer: &ClientAnswer) -> Result<AnswerShown, ApiError> {
    let (data, error, failure) = match &answer.result {
        Ok(data) => (data.as_deref(), None, None),
        Err(ClientFailure::Refused { error }) => (None, Some(&**error), Some("refused")),
        Err(ClientFailure::NoAnswer) => (None, None, Some("no_answer")),
        Err(ClientFailure::TooManyCalls) => (None, None, Some("too_many_calls")),
        Err(ClientFailure::NoCalls) => (None, None, Some("no_calls")),
        Err(ClientFailure::IsService) => (None, None, Some("is_service")),
        Err(ClientFailure::TooLarge) => (None, None, Some("too_large")),
    };
    let received = |json: Option<&str>| {
        let json = json
            .map(|json| RawValue::from_string(json.to_owned()))
            .transpose();
        json.map_err(|_| ApiError::new(ErrorCode::Failed, "a bug: the answer of a client is not JSON"))
    };
    Ok(AnswerShown {
        connection: answer.id.to_string(),
        data: received(data)?,
        failure,
        error: received(error)?,
    })
}

/// How long clients have to answer if the request does not say it.
const TIMEOUT_DEFAULT_MS: u64 = 10_000;
/// How long a request may be open at most.
pub(in crate::control) const TIMEOUT_MAX_MS: u64 = 60_000;
