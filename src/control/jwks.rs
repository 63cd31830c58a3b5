//! Fetches the keys that another server publishes (`jwks_url`), and gives them to the cores.
//!
//! ```text
//!   start ──► fetch ──► wait ──► fetch ──► …      a token with an unknown kid ends the wait, at the earliest PAUSE
//!               │        │                        after the last fetch
//!               │        └ jwks_refresh, or the answer's max-age if that is less; after a failure PAUSE, doubled
//!               └ after a failure the current keys stay
//! ```
//!
//! Each fetch is one HTTP/1.1 request on a connection of its own: without a pool, without a proxy, and
//! without redirects, since a server that can redirect could otherwise choose the keys. The other server's
//! certificate is checked against this machine's certificate authorities (`SSL_CERT_FILE` names others).
//!
//! Limits: `FETCH_TIME_MAX` for a whole fetch, `START_TIME_MAX` for the fetch before the start,
//! `SET_BYTES_MAX` for the answer.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::ControlState;
use crate::auth::{FetchRequest, KeySet, KeySetError, SetOrigin, UnusedKey};
use crate::config::Config;
use crate::policy::{Policy, SET_BYTES_MAX};
use crate::text::{self, TextFault};

/// Fetches a set of keys again and again.
#[derive(Debug)]
pub(crate) struct KeyFetcher {
    url: String,
    refresh: Duration,
    /// The body of the last good answer.
    text: Option<String>,
    /// Unused keys that have been logged: each is logged once, however often the set is fetched.
    logged: Vec<UnusedKey>,
    /// How long to wait after the last fetch.
    wait: Duration,
    counts: Arc<FetchCounts>,
}

/// FetchCounts for the metrics.
#[derive(Debug, Default)]
pub(super) struct FetchCounts {
    pub(super) fetches: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl KeyFetcher {
    /// A fetcher, if `jwks_url` is set.
    pub(crate) fn of(config: &Config) -> Option<KeyFetcher> {
        Some(KeyFetcher {
            url: config.jwks.url.clone()?,
            refresh: config.jwks.refresh,
            text: None,
            logged: Vec::new(),
            wait: PAUSE,
            counts: Arc::default(),
        })
    }

    pub(super) fn counts(&self) -> Arc<FetchCounts> {
        Arc::clone(&self.counts)
    }

    /// Fetches the keys before the first client connects, and adds them to the policy. If they do not come in
    /// time, the server starts without them.
    pub(crate) fn fetch_before_start(&mut self, policy: Policy) -> Policy {
        // On a thread of its own, since the caller's thread may already have a runtime.
        let fetched = std::thread::scope(|scope| {
            let fetch = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let fetched = runtime.block_on(self.fetch(START_TIME_MAX));
                // A look-up of the host's name may take longer than the fetch may.
                runtime.shutdown_background();
                fetched
            });
            fetch.join().unwrap_or(Err(FetchError::TimeOver))
        });
        match fetched {
            Ok(Some(set)) => policy.with_fetched(set),
            Ok(None) => policy,
            Err(error) => {
                warn!(
                    "jwks_url: {}: {error}; starting without these keys; the fetch is repeated",
                    self.url
                );
                policy
            }
        }
    }

    /// Fetches until the runtime ends.
    pub(super) async fn run(mut self, shared: Arc<ControlState>) {
        let fetch_request = shared.policy.now().tokens.fetch_request().cloned();
        loop {
            sleep(PAUSE.min(self.wait)).await;
            tokio::select! {
                () = sleep(self.wait.saturating_sub(PAUSE)) => {}
                () = unknown_key_named(fetch_request.as_deref()) => {}
            }
            if let Some(fetch_request) = &fetch_request {
                fetch_request.clear();
            }
            match self.fetch(FETCH_TIME_MAX).await {
                Ok(Some(set)) => {
                    info!("jwks_url: {} keys", set.key_count());
                    let Ok(()) = shared
                        .change_policy(|policy| Ok::<_, std::convert::Infallible>(policy.with_fetched(set)));
                }
                Ok(None) => {}
                Err(error) => warn!(
                    "jwks_url: {}: {error}; the current keys stay in use, next fetch in {} s",
                    self.url,
                    self.wait.as_secs()
                ),
            }
        }
    }

    /// Fetches the set; `None` if it has not changed.
    async fn fetch(&mut self, within: Duration) -> Result<Option<Arc<KeySet>>, FetchError> {
        self.counts.fetches.fetch_add(1, Ordering::Relaxed);
        let fetched = timeout(within, get(&self.url))
            .await
            .unwrap_or(Err(FetchError::TimeOver))
            .and_then(|answer| self.accept(answer));
        if fetched.is_err() {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            self.wait = (self.wait * 2).clamp(PAUSE, self.refresh.max(PAUSE));
        }
        fetched
    }

    fn accept(&mut self, answer: KeySetResponse) -> Result<Option<Arc<KeySet>>, FetchError> {
        let set = if self.text.as_ref() == Some(&answer.text) {
            None
        } else {
            let set = KeySet::parse(&answer.text, SetOrigin::Fetched).map_err(FetchError::Set)?;
            self.log_unused_keys(&set);
            self.text = Some(answer.text);
            Some(Arc::new(set))
        };
        self.wait = answer.max_age.map_or(self.refresh, |max_age| {
            max_age.clamp(PAUSE, self.refresh.max(PAUSE))
        });
        Ok(set)
    }
}

impl KeyFetcher {
    /// Logs each unused key of the set that has not been logged yet. Their number is bounded, so that a set
    /// that changes at every fetch cannot fill the log.
    fn log_unused_keys(&mut self, set: &KeySet) {
        for unused_key in set.unused_keys() {
            if self.logged.contains(unused_key) || self.logged.len() >= LOGGED_KEYS_MAX {
                continue;
            }
            if unused_key.is_fault() {
                warn!("jwks_url: {unused_key}");
            } else {
                info!("jwks_url: {unused_key}");
            }
            self.logged.push(unused_key.clone());
            if self.logged.len() == LOGGED_KEYS_MAX {
                warn!("jwks_url: no more unused keys are logged; ringcast_jwks_keys_left_out counts them");
            }
        }
    }
}

/// Returns once a token has named an unknown key.
async fn unknown_key_named(fetch_request: Option<&FetchRequest>) {
    while !fetch_request.is_some_and(FetchRequest::is_requested) {
        sleep(CHECK_EVERY).await;
    }
}

/// A successful response.
struct KeySetResponse {
    text: String,
    max_age: Option<Duration>,
}

/// Why a fetch failed.
#[derive(Debug)]
enum FetchError {
    TimeOver,
    Unreachable(io::Error),
    Http(hyper::Error),
    Status(StatusCode),
    TooLarge,
    Encoded,
    NotText(TextFault),
    Set(KeySetError),
}

impl fmt::Display for FetchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::TimeOver => formatter.write_str("no answer in time"),
            FetchError::Unreachable(error) => write!(formatter, "cannot be reached: {error}"),
            FetchError::Http(error) => write!(formatter, "no HTTP answer: {error}"),
            FetchError::Status(status) if status.is_redirection() => {
                write!(
                    formatter,
                    "the answer is {status}: set jwks_url to the address that it redirects to; redirects are \
                     not followed"
                )
            }
            FetchError::Status(status) => write!(formatter, "the answer is {status}"),
            FetchError::TooLarge => write!(formatter, "the answer is larger than {SET_BYTES_MAX} bytes"),
            FetchError::Encoded => formatter
                .write_str("the answer has a Content-Encoding, although the request did not accept one"),
            FetchError::NotText(fault) => write!(formatter, "the answer is no text: {fault}"),
            FetchError::Set(error) => error.fmt(formatter),
        }
    }
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> FetchError {
        FetchError::Unreachable(error)
    }
}

impl From<hyper::Error> for FetchError {
    fn from(error: hyper::Error) -> FetchError {
        FetchError::Http(error)
    }
}

async fn get(url: &str) -> Result<KeySetResponse, FetchError> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?.clone();
    // The brackets of an IPv6 address belong to the URL.
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    if !secure {
        return request(stream, &uri).await;
    }
    let name =
        ServerName::try_from(host).map_err(|_| wrong("its host cannot be the name of a certificate"))?;
    // Reading this machine's certificates takes time: they are files, often more than a hundred.
    let connector = spawn_blocking(connector).await.map_err(io::Error::other)??;
    request(connector.connect(name, stream).await?, &uri).await
}

fn connector() -> Result<TlsConnector, io::Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(io::Error::other(
            "this machine trusts no certificate authority: install ca-certificates, or set SSL_CERT_FILE",
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn request<S>(stream: S, uri: &Uri) -> Result<KeySetResponse, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(
            header::USER_AGENT,
            concat!("ringcast/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(FetchError::Status(head.status));
        }
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(FetchError::Encoded);
        }
        let limit = usize::try_from(SET_BYTES_MAX).unwrap_or(usize::MAX);
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            match error.downcast::<hyper::Error>() {
                Ok(error) => FetchError::Http(*error),
                Err(_) => FetchError::TooLarge,
            }
        })?;
        let text = text::decode(&body.to_bytes())
            .map_err(FetchError::NotText)?
            .to_owned();
        let max_age = max_age(&head.headers);
        Ok(KeySetResponse { text, max_age })
    };
    tokio::select! {
        answer = answer => answer,
        // The connection ends before the answer only if the answer can no longer come complete; data that was
        // read before is still processed.
        error = connection_error(connection) => Err(error.into()),
    }
}

/// The error with which a connection ends. Never returns if it ends without one.
async fn connection_error(connection: impl Future<Output = hyper::Result<()>>) -> hyper::Error {
    match connection.await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

/// How long an answer may be cached (RFC 9111 section 5.2.2.1).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).into_iter();
    let directives = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    directives
        .filter_map(|directive| directive.trim().split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))
        .find_map(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
        .map(Duration::from_secs)
}

/// Most unused keys that are logged.
const LOGGED_KEYS_MAX: usize = 200;
/// The shortest time between two fetches, however often tokens ask for one.
const PAUSE: Duration = Duration::from_secs(10);
/// How often the fetcher checks whether a token has named an unknown key.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// For a whole fetch.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// For the fetch before the start.
const START_TIME_MAX: Duration = Duration::from_secs(5);
