//! Calls that the server makes to its clients, and their outcomes.
//!
//! For every [`CallId`], [`App::answered`](super::App::answered) is called once: with the client's answer, or
//! with the reason why there is none.

use std::fmt;

use super::data::RawJson;
use super::error::AppError;

/// Names one call of the server within its connection. Ids are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    pub(crate) const fn new(number: u64) -> CallId {
        CallId(number)
    }

    /// The number, as it is on the wire.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallRefused {
    /// `calls_per_connection_max` calls already wait for their answers.
    TooMany,
    /// The data has no JSON form.
    NoJson,
    /// The connection has ended.
    Ended,
}

impl fmt::Display for CallRefused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            CallRefused::TooMany => "too many calls wait for the client's answers",
            CallRefused::NoJson => "the data has no JSON form",
            CallRefused::Ended => "the connection has ended",
        })
    }
}

impl std::error::Error for CallRefused {}

/// Why a call was not answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerError<'a> {
    event: &'a str,
    cause: AnswerFailure<'a>,
}

/// The cause of a call without an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnswerFailure<'a> {
    /// The client answered with this error.
    Refused(RawJson<'a>),
    /// No answer within `ack_timeout`.
    TimedOut,
    /// The connection ended before the answer.
    ConnectionEnded,
}

impl<'a> AnswerError<'a> {
    pub(crate) fn new(event: &'a str, cause: AnswerFailure<'a>) -> AnswerError<'a> {
        AnswerError { event, cause }
    }

    /// The event that was called.
    pub fn event(&self) -> &'a str {
        self.event
    }

    /// Why there is no answer.
    pub fn cause(&self) -> AnswerFailure<'a> {
        self.cause
    }

    /// The error in the words of the reference, which the application can pass on (wire reference, section
    /// 10).
    pub fn to_error(&self) -> AppError {
        let event = self.event;
        let error = match self.cause {
            AnswerFailure::Refused(error) => AppError::received(error.as_str()),
            AnswerFailure::TimedOut => {
                AppError::new(format!("Event response for {event} event timed out")).named("TimeoutError")
            }
            AnswerFailure::ConnectionEnded => {
                AppError::new(format!("Event {event} was aborted due to a bad connection"))
                    .named("BadConnectionError")
            }
        };
        if event != SET_AUTH_TOKEN {
            return error;
        }
        let reason = error.message();
        AppError::new(format!("Failed to deliver auth token to client - {reason}")).named("AuthError")
    }
}

/// The event that gives a client its token.
pub(crate) const SET_AUTH_TOKEN: &str = "#setAuthToken";
/// The event that takes it away.
pub(crate) const REMOVE_AUTH_TOKEN: &str = "#removeAuthToken";

#[cfg(test)]
mod tests {
    use super::*;

    fn error(event: &str, cause: AnswerFailure<'_>) -> String {
        let mut out = Vec::new();
        AnswerError::new(event, cause).to_error().write_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn failures_are_worded_as_by_the_reference() {
        let refused = AnswerFailure::Refused(RawJson::new(r#"{"name":"N","message":"m","x":1}"#));
        for (event, cause, expected) in [
            (
                "e",
                AnswerFailure::TimedOut,
                r#"{"message":"Event response for e event timed out","name":"TimeoutError"}"#,
            ),
            (
                "e",
                AnswerFailure::ConnectionEnded,
                r#"{"message":"Event e was aborted due to a bad connection","name":"BadConnectionError"}"#,
            ),
            ("e", refused, r#"{"message":"m","name":"N","x":1}"#),
            ("e", AnswerFailure::Refused(RawJson::new("\"s\"")), "\"s\""),
            (
                "e",
                AnswerFailure::Refused(RawJson::new("{}")),
                r#"{"message":"Invalid error message format"}"#,
            ),
            (
                "#setAuthToken",
                refused,
                r#"{"message":"Failed to deliver auth token to client - m","name":"AuthError"}"#,
            ),
            (
                "#setAuthToken",
                AnswerFailure::TimedOut,
                r#"{"message":"Failed to deliver auth token to client - Event response for #setAuthToken event timed out","name":"AuthError"}"#,
            ),
        ] {
            assert_eq!(error(event, cause), expected);
        }
    }
}
