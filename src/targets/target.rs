//! One URL of the configuration, and its open connections.
//!
//! A connection is kept after an answer that has been read to its end, and used again by the next request; the
//! connection that was used last is taken first. The other server may close it at any time, also while a request is
//! being sent. If the head of an answer has not come then, the request is sent a second time, on a new connection:
//! requests carry an id by which a receiver recognises a repetition.
//!
//! Limits: `idle_max` connections are kept without a request, each for [`IDLE_TIME_MAX`]; `answer_bytes_max`; the
//! deadline of each request.

#![expect(
    clippy::disallowed_types,
    reason = "the list of idle connections is locked for a few instructions, by the threads that send requests, which are no cores"
)]

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::connect::{LinkLocal, connect};
use super::error::ExchangeError;
use super::look_ups::LookUps;
use super::signature::{SIGNATURE_HEADER, Signer};

/// The settings of a target.
pub(crate) struct TargetSettings {
    /// The URL, as the configuration has it.
    pub(crate) url: String,
    /// For `https`.
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) link_local: LinkLocal,
    /// Signs each request.
    pub(crate) signer: Option<Signer>,
    /// Most bytes of the body of an answer.
    pub(crate) answer_bytes_max: usize,
    /// Most connections that are kept open without a request.
    pub(crate) idle_max: usize,
}

/// One URL, to which requests are sent.
pub(crate) struct Target {
    address: Address,
    settings: TargetSettings,
    look_ups: LookUps,
    idle: Mutex<Vec<Connection>>,
}

/// The answer to a request, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Or why it was not read to its end: the status is known all the same.
    pub(crate) body: Result<Bytes, TargetError>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum TargetError {
    /// The deadline has passed.
    TimeOver,
    Exchange(ExchangeError),
}

impl Target {
    /// A target without a connection.
    ///
    /// # Errors
    /// No request can be sent to the URL.
    pub(crate) fn new(settings: TargetSettings) -> io::Result<Target> {
        let url: Uri = settings
            .url
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Target {
            address: Address::of(&url)?,
            settings,
            look_ups: LookUps::default(),
            idle: Mutex::default(),
        })
    }

    /// Sends a body of JSON, and returns the answer. `headers` are added to the headers of every request. To drop the
    /// future closes the connection.
    ///
    /// # Errors
    /// The head of an answer has not come `within` this time, or is none.
    pub(crate) async fn post(
        &self,
        body: Bytes,
        headers: &[(HeaderName, HeaderValue)],
        within: Duration,
    ) -> Result<Answer, TargetError> {
        let deadline = Instant::now() + within;
        let (status, answer) = timeout_at(deadline, self.exchange(body, headers))
            .await
            .unwrap_or(Err(TargetError::TimeOver))?;
        let body = timeout_at(deadline, self.read(answer))
            .await
            .unwrap_or(Err(TargetError::TimeOver));
        Ok(Answer { status, body })
    }

    async fn exchange(
        &self,
        body: Bytes,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<(StatusCode, Unread), TargetError> {
        let headers = self.headers(&body, headers).map_err(ExchangeError::from)?;
        // Only once: if a request ends the second connection, too, the receiver does not want it.
        if let Some(connection) = self.take_idle() {
            match self.send(connection, &headers, body.clone()).await {
                Err(Unsent::Closed(_)) => {}
                Err(Unsent::Failed(error)) => return Err(error.into()),
                Ok(answer) => return Ok(answer),
            }
        }
        let connection = self.open().await?;
        self.send(connection, &headers, body)
            .await
            .map_err(|unsent| match unsent {
                Unsent::Closed(error) => ExchangeError::Http(error).into(),
                Unsent::Failed(error) => error.into(),
            })
    }

    fn headers(&self, body: &[u8], headers: &[(HeaderName, HeaderValue)]) -> io::Result<HeaderMap> {
        let mut all = HeaderMap::with_capacity(headers.len() + FIXED_HEADERS);
        all.extend(headers.iter().cloned());
        all.insert(header::HOST, self.address.host_header.clone());
        let agent = concat!("ringcast/", env!("CARGO_PKG_VERSION"));
        all.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let json = HeaderValue::from_static("application/json");
        all.insert(header::ACCEPT, json.clone());
        all.insert(header::CONTENT_TYPE, json);
        if let Some(signer) = &self.settings.signer {
            let signature = signer.sign(unix_seconds(), body);
            let signature = HeaderValue::try_from(signature).map_err(io::Error::other)?;
            all.insert(HeaderName::from_static(SIGNATURE_HEADER), signature);
        }
        Ok(all)
    }

    async fn open(&self) -> Result<Connection, ExchangeError> {
        let stream = connect(
            &self.address,
            &self.look_ups,
            self.settings.tls.as_ref(),
            self.settings.link_local,
        )
        .await?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(ANSWER_HEADERS_MAX)
            .max_buf_size(ANSWER_HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Connection {
            sender,
            // A failure comes to the request that the connection carries.
            driver: tokio::spawn(async { drop(connection.await) }),
            idle_since: Instant::now(),
        })
    }

    async fn send(
        &self,
        mut connection: Connection,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Unread), Unsent> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.address.path.clone();
        *request.headers_mut() = headers.clone();
        let response = connection.sender.send_request(request).await.map_err(|error| {
            if has_ended(&error) {
                Unsent::Closed(error)
            } else {
                Unsent::Failed(error.into())
            }
        })?;
        let (head, body) = response.into_parts();
        Ok((head.status, Unread { connection, body }))
    }

    /// Reads the body of an answer. Its connection is kept if it can be used again.
    async fn read(&self, answer: Unread) -> Result<Bytes, TargetError> {
        let Unread { mut connection, body } = answer;
        let body = Limited::new(body, self.settings.answer_bytes_max).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => ExchangeError::Http(*error),
            Err(_) => ExchangeError::TooLarge,
        })?;
        // At once, unless the other server has answered before it has read the request.
        if let Ok(Ok(())) = timeout(READY_TIME_MAX, connection.sender.ready()).await {
            self.keep(connection);
        }
        Ok(body.to_bytes())
    }

    /// The idle connection that was used last.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest come first.
        idle.retain(Connection::is_usable);
        idle.pop()
    }

    fn keep(&self, mut connection: Connection) {
        connection.idle_since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.settings.idle_max {
            idle.push(connection);
        }
    }
}

/// An open connection. To drop it closes it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    idle_since: Instant,
}

impl Connection {
    fn is_usable(&self) -> bool {
        self.sender.is_ready() && self.idle_since.elapsed() < IDLE_TIME_MAX
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// An answer whose head has come.
struct Unread {
    connection: Connection,
    body: Incoming,
}

/// Why a request on one connection has no answer.
enum Unsent {
    /// The other server has closed the connection before the head of an answer.
    Closed(hyper::Error),
    Failed(ExchangeError),
}

impl From<ExchangeError> for TargetError {
    fn from(error: ExchangeError) -> TargetError {
        TargetError::Exchange(error)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a token in its query.
        formatter
            .debug_struct("Target")
            .field("host", &self.address.host)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::TimeOver => formatter.write_str("no answer in time"),
            TargetError::Exchange(error) => error.fmt(formatter),
        }
    }
}

/// Whether the other server has ended the connection, in order or by a reset: a process that dies leaves both.
fn has_ended(error: &hyper::Error) -> bool {
    let is_reset = |error: &io::Error| {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        matches!(
            error.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
        )
    };
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    error.is_canceled() || error.is_closed() || error.is_incomplete_message() || source.is_some_and(is_reset)
}

/// The time for a signature.
#[expect(
    clippy::disallowed_methods,
    reason = "a request is signed when it is sent, and the caller may have waited"
)]
fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// The headers that every request has.
const FIXED_HEADERS: usize = 5;
/// How long a connection is kept without a request: less than the minute after which servers and proxies commonly close
/// one.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an answer waits for its connection to be ready for another request.
const READY_TIME_MAX: Duration = Duration::from_millis(10);
/// Most headers of an answer.
const ANSWER_HEADERS_MAX: usize = 100;
/// Most bytes of an answer's head.
const ANSWER_HEAD_BYTES_MAX: usize = 64 * 1024;
