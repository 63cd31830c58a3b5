//! Keys that another server publishes: fetched, and given to the cores.
//!
//! ```text
//!   start ──► fetch ──► wait ──► fetch ──► …      an unknown kid cuts the wait short, PAUSE after the last fetch
//!               │        └ the refresh time, or the answer's max-age if that is less; after a failure PAUSE, doubled
//!               └ bad answers change nothing: the keys there are stay
//! ```
//!
//! One request on one connection, as HTTP/1.1: no pool, no redirects (whoever can redirect could otherwise choose the
//! keys), no proxy. The certificates of this machine vouch for the other (`SSL_CERT_FILE` names others).
//!
//! Limits: `FETCH_TIME_MAX` for all of a fetch, `START_TIME_MAX` for that of the start, `SET_BYTES_MAX` for the answer.

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
use crate::auth::{KeySet, KeySetError, LeftOut, SetOrigin, WantedKeys};
use crate::config::Config;
use crate::policy::{Policy, SET_BYTES_MAX};
use crate::text::{self, TextFault};

/// Fetches a set of keys, again and again.
#[derive(Debug)]
pub(crate) struct KeyFetcher {
    url: String,
    refresh: Duration,
    /// What the last good answer said.
    text: Option<String>,
    /// Keys that were named as left out: each is named once, however often it is fetched.
    told: Vec<LeftOut>,
    /// When to fetch again, after the last one.
    wait: Duration,
    counts: Arc<Counts>,
}

/// How often, for a scrape.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) fetches: AtomicU64,
    pub(super) failures: AtomicU64,
}

impl KeyFetcher {
    /// A fetcher, if keys are to be fetched.
    pub(crate) fn of(config: &Config) -> Option<KeyFetcher> {
        Some(KeyFetcher {
            url: config.jwks.url.clone()?,
            refresh: config.jwks.refresh,
            text: None,
            told: Vec::new(),
            wait: PAUSE,
            counts: Arc::default(),
        })
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// The policy with the keys of a first fetch, before the first client comes. A start goes on without them if they
    /// are not there soon.
    pub(crate) fn first(&mut self, policy: Policy) -> Policy {
        // On a thread of its own: the caller's may have a runtime already.
        let fetched = std::thread::scope(|scope| {
            let fetch = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let fetched = runtime.block_on(self.fetch(START_TIME_MAX));
                // A look-up of a name may take longer than we wait for it.
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
                    "jwks_url: {}: {error}; starting without these keys, and trying again",
                    self.url
                );
                policy
            }
        }
    }

    /// Fetches until the runtime ends.
    pub(super) async fn run(mut self, shared: Arc<ControlState>) {
        let wanted = shared.policy.now().tokens.wanted().cloned();
        loop {
            sleep(PAUSE.min(self.wait)).await;
            tokio::select! {
                () = sleep(self.wait.saturating_sub(PAUSE)) => {}
                () = asked(wanted.as_deref()) => {}
            }
            if let Some(wanted) = &wanted {
                wanted.answered();
            }
            match self.fetch(FETCH_TIME_MAX).await {
                Ok(Some(set)) => {
                    info!("jwks_url: {} keys", set.key_count());
                    let Ok(()) = shared
                        .change_policy(|policy| Ok::<_, std::convert::Infallible>(policy.with_fetched(set)));
                }
                Ok(None) => {}
                Err(error) => warn!(
                    "jwks_url: {}: {error}; the keys there are stay, next try in {} s",
                    self.url,
                    self.wait.as_secs()
                ),
            }
        }
    }

    /// Fetches the set; `None` if it is the same as before.
    async fn fetch(&mut self, within: Duration) -> Result<Option<Arc<KeySet>>, FetchError> {
        self.counts.fetches.fetch_add(1, Ordering::Relaxed);
        let fetched = timeout(within, get(&self.url))
            .await
            .unwrap_or(Err(FetchError::TimeOver))
            .and_then(|answer| self.take(answer));
        if fetched.is_err() {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            self.wait = (self.wait * 2).clamp(PAUSE, self.refresh.max(PAUSE));
        }
        fetched
    }

    fn take(&mut self, answer: Answer) -> Result<Option<Arc<KeySet>>, FetchError> {
        let set = if self.text.as_ref() == Some(&answer.text) {
            None
        } else {
            let set = KeySet::parse(&answer.text, SetOrigin::Fetched).map_err(FetchError::Set)?;
            self.tell_left_out(&set);
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
    /// Names the keys that are not used and have not been named yet. A set that changes at every fetch has a bounded share of
    /// the log.
    fn tell_left_out(&mut self, set: &KeySet) {
        for left_out in set.left_out() {
            if self.told.contains(left_out) || self.told.len() >= TOLD_MAX {
                continue;
            }
            match left_out.is_fault() {
                true => warn!("jwks_url: {left_out}"),
                false => info!("jwks_url: {left_out}"),
            }
            self.told.push(left_out.clone());
            if self.told.len() == TOLD_MAX {
                warn!(
                    "jwks_url: no more keys are named that are not used; ringcast_jwks_keys_left_out counts them"
                );
            }
        }
    }
}

/// Returns once a token has named a key that is not known.
async fn asked(wanted: Option<&WantedKeys>) {
    while !wanted.is_some_and(WantedKeys::is_asked) {
        sleep(LOOK_EVERY).await;
    }
}

/// A good answer.
struct Answer {
    text: String,
    max_age: Option<Duration>,
}

/// Why there is no good answer.
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
                    "the answer is {status}: name the address it leads to; redirects are not followed"
                )
            }
            FetchError::Status(status) => write!(formatter, "the answer is {status}"),
            FetchError::TooLarge => write!(formatter, "the answer is larger than {SET_BYTES_MAX} bytes"),
            FetchError::Encoded => {
                formatter.write_str("the answer is encoded (Content-Encoding), which nothing asked for")
            }
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

async fn get(url: &str) -> Result<Answer, FetchError> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong("not a web address"))?;
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
        return ask(stream, &uri).await;
    }
    let name = ServerName::try_from(host).map_err(|_| wrong("its host is no name for a certificate"))?;
    // The certificates of this machine are files, often more than a hundred.
    let connector = spawn_blocking(connector).await.map_err(io::Error::other)??;
    ask(connector.connect(name, stream).await?, &uri).await
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

async fn ask<S>(stream: S, uri: &Uri) -> Result<Answer, FetchError>
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
        Ok(Answer { text, max_age })
    };
    tokio::select! {
        answer = answer => answer,
        // It ends before the answer does only if the answer cannot come any more; what was read is still there.
        error = ended_badly(connection) => Err(error.into()),
    }
}

/// The error with which a connection ends; never, if it ends without one.
async fn ended_badly(connection: impl Future<Output = hyper::Result<()>>) -> hyper::Error {
    match connection.await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

/// For how long an answer may be kept (RFC 9111 section 5.2.2.1).
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

/// Most keys that are named as left out.
const TOLD_MAX: usize = 200;
/// Between two fetches, whoever asks.
const PAUSE: Duration = Duration::from_secs(10);
/// How often it is looked at whether a key is missing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// For all of a fetch.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// For the fetch that a start waits for.
const START_TIME_MAX: Duration = Duration::from_secs(5);
