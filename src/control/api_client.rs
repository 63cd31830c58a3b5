//! A client of the HTTP API, for the commands of the command line: one request, answered or not within
//! [`ANSWER_TIME_MAX`].

use std::fmt;
use std::io;
use std::time::Duration;

use axum::http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::api::CALL_TIME_MAX_MS;
use super::exchange::exchange;
use crate::targets::ExchangeError;

/// The address of a control plane, and a key of its API.
#[derive(Debug)]
pub(crate) struct ApiClient {
    /// Without a slash at its end.
    url: String,
    authorization: HeaderValue,
}

/// One request.
#[derive(Debug)]
pub(crate) struct ApiRequest<'a> {
    pub(crate) method: &'a str,
    /// The path and the query.
    pub(crate) path: &'a str,
    /// JSON.
    pub(crate) body: Option<String>,
    pub(crate) idempotency_key: Option<&'a str>,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct ApiAnswer {
    pub(crate) status: u16,
    /// Seconds, if the request may succeed later.
    pub(crate) retry_after: Option<String>,
    pub(crate) text: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ApiClientError {
    /// The address is not the URL of a server.
    NotUrl,
    /// The key or the request cannot be sent in an HTTP request.
    NotSendable,
    Exchange(ExchangeError),
    TimeOver,
    System(io::Error),
}

impl fmt::Display for ApiClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiClientError::NotUrl => formatter.write_str("not the URL of a server, without a path"),
            ApiClientError::NotSendable => {
                formatter.write_str("the key or the request has characters that no HTTP request can carry")
            }
            ApiClientError::Exchange(error) => error.fmt(formatter),
            ApiClientError::TimeOver => {
                write!(formatter, "no answer within {} s", ANSWER_TIME_MAX.as_secs())
            }
            ApiClientError::System(error) => write!(formatter, "the system refuses an event loop: {error}"),
        }
    }
}

impl From<ExchangeError> for ApiClientError {
    fn from(error: ExchangeError) -> ApiClientError {
        ApiClientError::Exchange(error)
    }
}

impl ApiClient {
    /// A client of the control plane at this URL.
    ///
    /// # Errors
    /// The URL or the key is not one.
    pub(crate) fn new(url: &str, key: Zeroizing<String>) -> Result<ApiClient, ApiClientError> {
        let parsed: Uri = url.parse().map_err(|_| ApiClientError::NotUrl)?;
        let has_scheme = matches!(parsed.scheme_str(), Some("http" | "https"));
        if !has_scheme
            || parsed.authority().is_none()
            || !matches!(parsed.path(), "" | "/")
            || parsed.query().is_some()
        {
            return Err(ApiClientError::NotUrl);
        }
        let bearer = Zeroizing::new(format!("Bearer {}", *key));
        let mut authorization = HeaderValue::from_str(&bearer).map_err(|_| ApiClientError::NotSendable)?;
        authorization.set_sensitive(true);
        Ok(ApiClient {
            url: url.trim_end_matches('/').to_owned(),
            authorization,
        })
    }

    /// Sends a request, and blocks until it is answered.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) fn call(&self, request: ApiRequest<'_>) -> Result<ApiAnswer, ApiClientError> {
        let mut builder = Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.url, request.path))
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "application/json");
        if request.body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = request.idempotency_key {
            builder = builder.header("idempotency-key", key);
        }
        let body = request.body.unwrap_or_default();
        let request = builder
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| ApiClientError::NotSendable)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ApiClientError::System)?;
        let answer = runtime.block_on(async {
            let all = |_: &_| Ok::<(), ApiClientError>(());
            timeout(ANSWER_TIME_MAX, exchange(request, ANSWER_BYTES_MAX, all))
                .await
                .unwrap_or(Err(ApiClientError::TimeOver))
        });
        // A look-up of the host's name may take longer than the request may.
        runtime.shutdown_background();
        let (head, body) = answer?;
        let retry_after = head.headers.get(header::RETRY_AFTER);
        Ok(ApiAnswer {
            status: head.status.as_u16(),
            retry_after: retry_after.and_then(|value| Some(value.to_str().ok()?.to_owned())),
            text: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

impl ApiAnswer {
    /// The answer as a value; `null` if it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// How long a request may take: the longest one waits for the answers of clients.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);
const _: () = assert!(
    ANSWER_TIME_MAX.as_secs() >= CALL_TIME_MAX_MS / 1000 + 10,
    "the server's answer comes when the time of its clients is over"
);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
