//! Fetches the keys that another server publishes (`jwks_url`), and gives them to the cores.
//!
//! ```text
//!   start ──► fetch ──► wait ──► fetch ──► …      a token with an unknown kid ends the wait, at the earliest PAUSE
//!               │        │                        after the last fetch
//!               │        └ jwks_refresh, or the answer's max-age if that is less; after a failure PAUSE, doubled
//!               └ after a failure the current keys stay
//! ```
//!
//! Each fetch is one HTTP/1.1 request on a connection of its own (`exchange.rs`).
//!
//! Limits: `FETCH_TIME_MAX` for a whole fetch, `START_TIME_MAX` for the fetch before the start,
//! `SET_BYTES_MAX` for the answer.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::response::Parts;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Full;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::ControlState;
use super::exchange::exchange;
use crate::auth::{FetchRequest, KeySet, KeySetError, SetOrigin, UnusedKey};
use crate::config::Config;
use crate::policy::{Policy, SET_BYTES_MAX};
use crate::targets::ExchangeError;
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
    Exchange(ExchangeError),
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
            FetchError::Exchange(error) => error.fmt(formatter),
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
        FetchError::Exchange(ExchangeError::Unreachable(error))
    }
}

impl From<ExchangeError> for FetchError {
    fn from(error: ExchangeError) -> FetchError {
        match error {
            ExchangeError::TooLarge => FetchError::TooLarge,
            ExchangeError::Unreachable(_) | ExchangeError::Http(_) => FetchError::Exchange(error),
        }
    }
}

async fn get(url: &str) -> Result<KeySetResponse, FetchError> {
    let request = Request::get(url)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Full::default())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a URL"))?;
    let bytes_max = usize::try_from(SET_BYTES_MAX).unwrap_or(usize::MAX);
    let check = |head: &Parts| {
        if head.status != StatusCode::OK {
            return Err(FetchError::Status(head.status));
        }
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(FetchError::Encoded);
        }
        Ok(())
    };
    let (head, body) = exchange(request, bytes_max, check).await?;
    let text = text::decode(&body).map_err(FetchError::NotText)?.to_owned();
    let max_age = max_age(&head.headers);
    Ok(KeySetResponse { text, max_age })
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
