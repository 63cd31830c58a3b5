//! Why a request to the HTTP API was not carried out, and the answer to it.

use std::fmt::Display;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::super::guard::Refused;
use super::Position;
use super::publish::positions_shown;
use crate::handle::HandleError;
use crate::metrics::api::ApiOutcome;

/// A request was not carried out, or only in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    code: ErrorCode,
    /// The fault in the request, and how to correct it.
    message: String,
    /// The time after which the request may succeed.
    retry_after: Option<Duration>,
    /// The methods of the path, if the method is wrong.
    allow: Option<String>,
    /// The positions of the publications of a batch that were made before the error; `None` for other requests.
    published: Option<Vec<Option<Position>>>,
    /// Whether a part of the body may still be on its way.
    leaves_body_unread: bool,
    /// Whether the publication was made although the request failed: a repetition would publish it twice.
    is_published: bool,
}

/// The kind of an error: a word for programs, a status, and the label of the metric.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal, $status:ident, $outcome:ident;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum ErrorCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorCode {
            /// All, for the test of the documents.
            #[cfg(test)]
            pub(super) const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),+];

            pub(super) const fn word(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $word,)+
                }
            }

            pub(super) const fn status(self) -> StatusCode {
                match self {
                    $(ErrorCode::$variant => StatusCode::$status,)+
                }
            }

            const fn outcome(self) -> ApiOutcome {
                match self {
                    $(ErrorCode::$variant => ApiOutcome::$outcome,)+
                }
            }
        }
    };
}

codes! {
    /// The header `Host` is missing, there twice, or no host.
    InvalidHost = "invalid_host", BAD_REQUEST, Invalid;
    /// A request without a key names a host that is not known to be this machine.
    ForeignHost = "foreign_host", FORBIDDEN, Forbidden;
    /// A web page of another origin sent the request.
    ForeignPage = "foreign_page", FORBIDDEN, Forbidden;
    /// No key is configured.
    ApiOff = "api_off", FORBIDDEN, Forbidden;
    /// The request has no key.
    KeyMissing = "key_missing", UNAUTHORIZED, Key;
    /// The key is not one of the configuration.
    KeyUnknown = "key_unknown", UNAUTHORIZED, Key;
    /// The key does not allow the action.
    ActionNotAllowed = "action_not_allowed", FORBIDDEN, Forbidden;
    /// The key does not allow the action on this channel.
    ChannelNotAllowed = "channel_not_allowed", FORBIDDEN, Forbidden;
    /// The key is over its rate.
    RateExceeded = "rate_exceeded", TOO_MANY_REQUESTS, Rate;
    /// There is no such path.
    UnknownPath = "unknown_path", NOT_FOUND, NotFound;
    /// The path does not support the method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, Invalid;
    /// The body is not `application/json`.
    NotJson = "not_json", UNSUPPORTED_MEDIA_TYPE, Invalid;
    /// The body is larger than `api_body_bytes_max`.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, TooLarge;
    /// The body did not come in time.
    BodyTooSlow = "body_too_slow", REQUEST_TIMEOUT, Invalid;
    /// The connection ended before the body was complete.
    BodyIncomplete = "body_incomplete", BAD_REQUEST, Invalid;
    /// The body does not have the form that the route expects.
    InvalidBody = "invalid_body", BAD_REQUEST, Invalid;
    /// A parameter is missing, unknown or wrong.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, Invalid;
    /// No policy keeps a history of the channel.
    NoHistory = "no_history", NOT_FOUND, NotFound;
    /// No policy gives the channel presence.
    NoPresence = "no_presence", NOT_FOUND, NotFound;
    /// The publications of an answer have too many bytes.
    AnswerTooLarge = "answer_too_large", PAYLOAD_TOO_LARGE, TooLarge;
    /// More than `api_items_max` items.
    TooManyItems = "too_many_items", PAYLOAD_TOO_LARGE, TooLarge;
    /// The data of a publication is not allowed.
    InvalidData = "invalid_data", BAD_REQUEST, Invalid;
    /// The name of a channel is not allowed.
    InvalidChannel = "invalid_channel", BAD_REQUEST, Invalid;
    /// A message is larger than `message_bytes_max`.
    MessageTooLarge = "message_too_large", PAYLOAD_TOO_LARGE, TooLarge;
    /// The idempotency key belongs to a request with another content.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, Conflict;
    /// The connections speak a protocol that has nothing which corresponds to the request.
    NotInProtocol = "not_in_protocol", UNPROCESSABLE_ENTITY, Conflict;
    /// The clients may serve the event, so that they would take it for one of a client.
    IsService = "is_service", UNPROCESSABLE_ENTITY, Conflict;
    /// No token with these claims can be signed.
    NotSigned = "not_signed", UNPROCESSABLE_ENTITY, Conflict;
    /// The first request with this idempotency key is not answered yet.
    IdempotencyKeyInUse = "idempotency_key_in_use", CONFLICT, Conflict;
    /// A repetition: the request was carried out, and its answer was not kept.
    AnswerNotKept = "answer_not_kept", CONFLICT, Conflict;
    /// `api_idempotency_keys_max` keys are remembered.
    IdempotencyKeysFull = "idempotency_keys_full", SERVICE_UNAVAILABLE, Unavailable;
    /// The ring had no room in time.
    RingFull = "ring_full", SERVICE_UNAVAILABLE, Unavailable;
    /// The store of the channel takes nothing now, or another process has it.
    NotStored = "not_stored", SERVICE_UNAVAILABLE, Unavailable;
    /// Too many operations wait.
    Busy = "busy", SERVICE_UNAVAILABLE, Unavailable;
    /// Cores have not answered in time; they may still carry the request out.
    CoresUnanswered = "cores_unanswered", SERVICE_UNAVAILABLE, Unavailable;
    /// The server is ending.
    Ending = "ending", SERVICE_UNAVAILABLE, Unavailable;
    /// A bug: the operation ended without an answer.
    Failed = "failed", INTERNAL_SERVER_ERROR, Unavailable;
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Display) -> ApiError {
        ApiError {
            code,
            message: message.to_string(),
            retry_after: None,
            allow: None,
            published: None,
            leaves_body_unread: false,
            is_published: false,
        }
    }

    /// The same error, before the body of the request has been read to its end.
    pub(super) fn before_body(self) -> ApiError {
        ApiError {
            leaves_body_unread: true,
            ..self
        }
    }

    /// The same error, with the time after which the request may succeed.
    pub(super) fn retry_after(self, time: Duration) -> ApiError {
        ApiError {
            retry_after: Some(time),
            ..self
        }
    }

    /// The same error, with the methods that the path supports.
    pub(super) fn allow(self, methods: String) -> ApiError {
        ApiError {
            allow: Some(methods),
            ..self
        }
    }

    /// The same error, after the first publications of a batch have been made.
    pub(super) fn after_publications(self, positions: Vec<Option<Position>>, of: usize) -> ApiError {
        ApiError {
            message: format!(
                "{}; the first {} of {of} publications were made: send the others again",
                self.message,
                positions.len()
            ),
            published: Some(positions),
            ..self
        }
    }

    /// Whether the request has changed something before it failed.
    pub(super) fn had_effect(&self) -> bool {
        let published = self.published.as_ref();
        self.is_published || published.is_some_and(|positions| !positions.is_empty())
    }

    pub(super) fn code(&self) -> ErrorCode {
        self.code
    }

    pub(super) fn outcome(&self) -> ApiOutcome {
        self.code.outcome()
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".to_owned(), json!(self.code.word()));
        error.insert("message".to_owned(), json!(self.message));
        if let Some(positions) = &self.published {
            error.insert("published".to_owned(), json!(positions.len()));
            if let Some(positions) = positions_shown(positions) {
                error.insert("positions".to_owned(), json!(positions));
            }
        }
        json!({ "error": error })
    }

    /// The headers of the answer besides its type.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(time) = self.retry_after {
            // Rounded up: a request that comes earlier would be refused again.
            let seconds = time.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                headers.insert(header::RETRY_AFTER, value);
            }
        }
        if let Some(value) = self.allow.as_deref().and_then(|allow| allow.parse().ok()) {
            headers.insert(header::ALLOW, value);
        }
        if self.outcome() == ApiOutcome::Key {
            let challenge = HeaderValue::from_static("Bearer realm=\"ringcast api\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.leaves_body_unread {
            // The rest of the body must not be read as another request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        let (code, message) = match refused {
            Refused::NoHost => (ErrorCode::InvalidHost, "the request needs one valid Host header"),
            Refused::NoKey => (
                ErrorCode::KeyMissing,
                "this request needs the header Authorization: Bearer KEY",
            ),
            Refused::ForeignHost => (
                ErrorCode::ForeignHost,
                "unknown host name: use an IP address, localhost or a name in admin_hosts, or send an API key",
            ),
            Refused::ForeignPage => (
                ErrorCode::ForeignPage,
                "web pages of other origins may not send requests here: send them from your own server",
            ),
            Refused::NotJson => (
                ErrorCode::NotJson,
                "the body needs the header Content-Type: application/json",
            ),
            Refused::BrokenBody => (ErrorCode::BodyIncomplete, "the body is incomplete: send it again"),
            Refused::LargeBody => (
                ErrorCode::BodyTooLarge,
                "the body is larger than limits.api_body_bytes_max: send less at a time, or raise the limit",
            ),
            Refused::SlowBody => (
                ErrorCode::BodyTooSlow,
                "the body did not come within 30 seconds: send it again, or send less at a time",
            ),
        };
        let error = ApiError::new(code, message);
        match refused {
            Refused::BrokenBody | Refused::LargeBody | Refused::SlowBody => error.before_body(),
            Refused::NoHost
            | Refused::NoKey
            | Refused::ForeignHost
            | Refused::ForeignPage
            | Refused::NotJson => error,
        }
    }
}

impl From<HandleError> for ApiError {
    fn from(error: HandleError) -> ApiError {
        let code = match error {
            HandleError::NotJson => ErrorCode::InvalidData,
            HandleError::NameTooLong { .. }
            | HandleError::Reserved { .. }
            | HandleError::NotRetained { .. } => ErrorCode::InvalidChannel,
            HandleError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            HandleError::RingFull => ErrorCode::RingFull,
            HandleError::NotStored | HandleError::Elsewhere | HandleError::PublishedNotStored => {
                ErrorCode::NotStored
            }
            HandleError::Busy | HandleError::NoAnswer | HandleError::TooManyCalls => ErrorCode::Busy,
            HandleError::Unanswered { .. } => ErrorCode::CoresUnanswered,
            HandleError::NoSuchConnection | HandleError::BadCursor | HandleError::ClientRefused { .. } => {
                ErrorCode::InvalidParameter
            }
            HandleError::NotInProtocol => ErrorCode::NotInProtocol,
            HandleError::IsService => ErrorCode::IsService,
            HandleError::NotSigned => ErrorCode::NotSigned,
            HandleError::Ended => ErrorCode::Ending,
            HandleError::OnCore => ErrorCode::Failed,
        };
        let mut answer = ApiError::new(code, &error);
        answer.is_published = error == HandleError::PublishedNotStored;
        if code.status() == StatusCode::SERVICE_UNAVAILABLE {
            answer.retry_after(Duration::from_secs(1))
        } else {
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So that its answer is kept for the idempotency key: a repetition does not publish it again.
    #[test]
    fn a_publication_that_was_made_and_not_stored_has_had_an_effect() {
        for (error, had_effect) in [
            (HandleError::PublishedNotStored, true),
            (HandleError::NotStored, false),
            (HandleError::RingFull, false),
        ] {
            assert_eq!(
                ApiError::from(error.clone()).had_effect(),
                had_effect,
                "{error:?}"
            );
        }
    }
}
