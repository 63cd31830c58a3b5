//! The HTTP API, `/api/v1/…` on the control plane, for programs beside the server, each with a key of its
//! own.
//!
//! ```text
//!   request ─► guard: host, origin ─► key ─► rate ─► route ─► key allows the action ─► body ─► parameters, channels
//!                                                                                                   │
//!   answer ◄─ metrics ◄─ audit trail ◄──────── operation of the handle ◄─ idempotency key ◄─────────┘
//! ```
//!
//! Each step answers the requests that it refuses, as JSON that says what to do (`error.rs`). The operations are those
//! of [`Handle`](crate::handle::Handle), which waits for no core.
//!
//! `openapi.json` describes all requests and answers. It is written by hand: descriptions and examples are prose for
//! people, which a generator would only take from attributes that are harder to read than the document. The tests keep
//! it right: they send each request of the document to a server, compare the routes of both, and validate each answer
//! (`tests/http_api.rs`).
//!
//! Invariants
//! 1. No request is carried out before the checks of the guard, and none without a key that allows its action.
//! 2. The body is read only for a key that allows the action: strangers cannot fill memory.
//! 3. An operation that has begun is carried to its end even if the caller disconnects, so that the audit trail and an
//!    idempotency key tell the truth.
//!
//! Not here: the keys (`auth::api_keys`), the checks of hosts and origins (`guard.rs`).
//!
//! Limits: `api_body_bytes_max`, `api_items_max`, [`BODY_TIME_MAX`], those of `idempotency.rs`, and the rate of each
//! key.

mod calls;
mod channels;
mod connections;
mod error;
mod history;
mod idempotency;
mod operation;
mod parameters;
mod presence;
mod publish;
mod routes;
mod services;
mod tokens;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::admin_slots::ADMIN_SLOTS_MAX;
use super::{ControlState, guard, request_audit};
use crate::audit::{self, Event};
use crate::auth::api_keys::{ApiKey, ApiKeys};
use crate::config::Limits;
use crate::config::api_keys::ApiAction;
use crate::metrics::api::{ApiMetrics, ApiOutcome, ApiRoute};
use crate::policy::channels::Channels;
use crate::session::MqttUse;
pub(super) use calls::TIMEOUT_MAX_MS as CALL_TIME_MAX_MS;
use error::{ApiError, ErrorCode};
use idempotency::{Begin, IdempotencyKeys, InProgress, KeptAnswer};
use operation::Operation;
use parameters::Parameters;

/// The state of the API.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) metrics: ApiMetrics,
    idempotency_keys: Arc<IdempotencyKeys>,
    /// Has a permit for each call to clients that may be under way.
    calls: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(limits: &Limits) -> Api {
        Api {
            metrics: ApiMetrics::default(),
            idempotency_keys: IdempotencyKeys::new(
                limits.api_idempotency_keys_max as usize,
                limits.api_idempotency,
            ),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
        }
    }
}

/// What the answer to a request, the metrics and the audit trail need.
#[derive(Debug)]
struct Seen {
    route: ApiRoute,
    /// The name of the key.
    key: Option<String>,
    /// The channel, user or connection that the request is about.
    subject: Option<String>,
    /// Whether the answer is that to an earlier request.
    is_repetition: bool,
}

/// Answers a request to `/api/…`.
pub(super) async fn serve(State(shared): State<Arc<ControlState>>, request: Request) -> Response {
    let address = request_audit::address(request.extensions());
    let (head, body) = request.into_parts();
    let mut seen = Seen {
        route: ApiRoute::Unknown,
        key: None,
        subject: None,
        is_repetition: false,
    };
    let result = answer(&shared, &head, body, &mut seen).await;
    let outcome = match &result {
        Ok(_) => ApiOutcome::Ok,
        Err(error) => error.outcome(),
    };
    shared.api.metrics.count(seen.route, outcome);
    record(&shared, address, &head, &seen, &result);
    respond(result, seen.is_repetition)
}

/// The answer to a request. An error that was kept for an idempotency key comes as `Ok`, with its status.
async fn answer(
    shared: &Arc<ControlState>,
    head: &Parts,
    body: Body,
    seen: &mut Seen,
) -> Result<KeptAnswer, ApiError> {
    let policy = shared.policy.now();
    let keys = &policy.api_keys;
    let key = guard::bearer_of(&head.headers).and_then(|key| keys.find(key));
    seen.key = key.map(|key| key.name().to_owned());
    guard::check_api(head, &shared.config, key.is_some())?;
    let route = routes::find(&head.method, head.uri.path());
    if let Ok(route) = &route {
        seen.route = route.label;
    }
    let Some(key) = key else {
        let is_description = route.is_ok_and(|route| route.action.is_none());
        if is_description && guard::admits_operator(&head.headers, &shared.config) {
            return Ok(description());
        }
        return Err(without_key(keys, &head.headers));
    };
    key.take(shared.clock.now().uptime).map_err(|time| {
        ApiError::new(
            ErrorCode::RateExceeded,
            "the key is over its rate: send requests more slowly, several publications in one request, or raise rate \
             and burst of the key",
        )
        .retry_after(time)
    })?;
    let route = route?;
    let Some(action) = route.action else {
        return Ok(description());
    };
    if !key.may(action) {
        return Err(ApiError::new(
            ErrorCode::ActionNotAllowed,
            format!(
                "the key {} does not allow {}: add it to the actions of the key",
                key.name(),
                action.label()
            ),
        ));
    }
    let body = match route.method {
        Method::POST => read_body(head, body, &shared.config.limits).await?,
        _ => Bytes::new(),
    };
    let caller = Caller {
        key,
        channels: &policy.channels,
        mqtt: MqttUse::of(&shared.config.mqtt),
        items_max: shared.config.limits.api_items_max as usize,
    };
    let operation = Operation::read(route.label, &head.uri, &body, &caller)?;
    seen.subject = Some(operation.subject().into_owned());
    let parts = [
        route.path.as_bytes(),
        head.method.as_str().as_bytes(),
        head.uri.query().unwrap_or_default().as_bytes(),
        &body,
    ];
    let in_progress = match idempotency_key(&head.headers)? {
        Some(text) if route.method != Method::GET => {
            let now = shared.clock.now().uptime;
            match shared.api.idempotency_keys.begin(key.name(), text, &parts, now)? {
                Begin::First(in_progress) => Some(in_progress),
                Begin::Again(answer) => {
                    seen.is_repetition = true;
                    return Ok(answer);
                }
            }
        }
        Some(_) | None => None,
    };
    run(shared, operation, in_progress).await
}

/// The error for a request without a known key.
fn without_key(keys: &ApiKeys, headers: &HeaderMap) -> ApiError {
    if keys.is_empty() {
        return ApiError::new(
            ErrorCode::ApiOff,
            "the HTTP API is off, since no key is configured: make one with `ringcast api-key`, add its entry to the \
             configuration file, and reload (SIGHUP)",
        );
    }
    if headers.contains_key(header::AUTHORIZATION) {
        ApiError::new(
            ErrorCode::KeyUnknown,
            "the key is not one of [[api_keys]]: check it, or whether the server has reloaded its configuration; \
             admin_key does not open the API",
        )
    } else {
        ApiError::new(
            ErrorCode::KeyMissing,
            "this request needs the header Authorization: Bearer KEY, with a key of [[api_keys]]",
        )
    }
}

async fn read_body(head: &Parts, body: Body, limits: &Limits) -> Result<Bytes, ApiError> {
    if !guard::is_json(&head.headers) {
        return Err(guard::Refused::NotJson.into());
    }
    let body = guard::whole_body(body, limits.api_body_bytes_max as usize, BODY_TIME_MAX).await?;
    Ok(body)
}

/// The key that makes the repetition of a request harmless.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let key = value.to_str().ok().filter(|text| {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        is_visible && (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len())
    });
    match (key, second) {
        (Some(key), None) => Ok(Some(key)),
        (Some(_) | None, _) => Err(ApiError::new(
            ErrorCode::InvalidParameter,
            format!(
                "Idempotency-Key: expected one header of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
            ),
        )),
    }
}

/// Carries the operation out, in a task of its own so that it ends even if the caller disconnects.
async fn run(
    shared: &Arc<ControlState>,
    operation: Operation,
    in_progress: Option<InProgress>,
) -> Result<KeptAnswer, ApiError> {
    let handle = shared.handle.clone();
    let permit = operation
        .waits_for_clients()
        .then(|| permit(&shared.api.calls))
        .transpose()?;
    let task = tokio::spawn(async move {
        let _permit = permit;
        let may_be_done_twice = operation.may_be_done_twice();
        let result = operation.run(&handle).await;
        let (had_effect, answer) = match &result {
            Ok(json) => (true, kept(StatusCode::OK, json.clone())),
            Err(error) => (
                error.had_effect() || (!may_be_done_twice && error.code() == ErrorCode::CoresUnanswered),
                kept(error.code().status(), error.body().to_string()),
            ),
        };
        if let Some(in_progress) = in_progress.filter(|_| had_effect) {
            in_progress.finish(&answer);
        }
        result.map(|_| answer)
    });
    task.await.unwrap_or_else(|_| {
        Err(ApiError::new(
            ErrorCode::Failed,
            "a bug ended the request without an answer, and it may have been carried out or not; see the log",
        ))
    })
}

/// The right to call clients, which may take a minute.
fn permit(calls: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(calls).try_acquire_owned().map_err(|_| {
        ApiError::new(
            ErrorCode::Busy,
            format!("{CALLS_MAX} calls to clients are under way: call later, or with a shorter timeout_ms"),
        )
        .retry_after(Duration::from_secs(1))
    })
}

fn kept(status: StatusCode, mut body: String) -> KeptAnswer {
    // So that a shell shows its prompt on a line of its own.
    body.push('\n');
    KeptAnswer {
        status,
        body: body.into(),
    }
}

/// Most calls to clients at a time. Each holds a connection of the control plane: others are left for other requests.
const CALLS_MAX: usize = ADMIN_SLOTS_MAX / 2;

/// The description of the API.
fn description() -> KeptAnswer {
    KeptAnswer {
        status: StatusCode::OK,
        body: Bytes::from_static(OPENAPI.as_bytes()),
    }
}

const OPENAPI: &str = include_str!("openapi.json");

fn respond(result: Result<KeptAnswer, ApiError>, is_repetition: bool) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if is_repetition {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    let answer = result.unwrap_or_else(|error| {
        error.add_headers(&mut headers);
        kept(error.code().status(), error.body().to_string())
    });
    (answer.status, headers, answer.body).into_response()
}

/// Writes the line of the audit trail: for refusals, and for requests that may have changed something.
fn record(
    shared: &ControlState,
    address: Option<IpAddr>,
    head: &Parts,
    seen: &Seen,
    result: &Result<KeptAnswer, ApiError>,
) {
    let status = match result {
        Ok(answer) => answer.status,
        Err(error) => error.code().status(),
    };
    let line = audit::ApiLine {
        address,
        key: seen.key.as_deref(),
        status: status.as_u16(),
        method: head.method.as_str(),
        path: head.uri.path(),
        subject: seen.subject.as_deref(),
    };
    let event = match (result, seen.route) {
        (Err(error), _) if status.is_client_error() => {
            if shared.allows_audit_line(Event::ApiRefused) {
                audit::api_refused(&line, error.code().word());
            }
            return;
        }
        _ if [Method::GET, Method::HEAD].contains(&head.method) => return,
        (_, ApiRoute::Publish | ApiRoute::Publications | ApiRoute::Broadcast) => Event::ApiPublish,
        _ => Event::ApiRequest,
    };
    if shared.allows_audit_line(event) {
        audit::api_request(event, &line);
    }
}

/// The sender of a request, and its permissions.
struct Caller<'a> {
    key: &'a Arc<ApiKey>,
    /// The policies of channels.
    channels: &'a Channels,
    mqtt: MqttUse,
    items_max: usize,
}

impl Caller<'_> {
    /// Checks the number of publications or channels of a request.
    fn check_items(&self, count: usize) -> Result<(), ApiError> {
        if count == 0 {
            return Err(ApiError::new(
                ErrorCode::InvalidBody,
                "the list is empty: send at least one",
            ));
        }
        if count > self.items_max {
            return Err(ApiError::new(
                ErrorCode::TooManyItems,
                format!(
                    "{count} items are more than limits.api_items_max, which is {}: send fewer in one request",
                    self.items_max
                ),
            ));
        }
        Ok(())
    }

    /// How many items a page is to have.
    fn page_size(&self, parameters: &Parameters) -> Result<usize, ApiError> {
        let most = self.items_max.min(PAGE_ITEMS_MAX);
        let limit = parameters.number("limit", 1, most as u64)?;
        Ok(limit.map_or(most, |limit| usize::try_from(limit).unwrap_or(most)))
    }

    /// Checks that the key allows an action on this channel.
    fn check_channel(&self, action: ApiAction, channel: &str) -> Result<(), ApiError> {
        if self.key.names_channel(channel) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::ChannelNotAllowed,
            format!(
                "the key {} does not allow {} on the channel {channel:?}: add a pattern of its name to the channels of \
                 the key",
                self.key.name(),
                action.label()
            ),
        ))
    }
}

/// A position, as answers have it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Position {
    epoch: String,
    offset: u64,
}

impl From<crate::handle::Position> for Position {
    fn from(position: crate::handle::Position) -> Position {
        let crate::handle::Position { epoch, offset } = position;
        Position { epoch, offset }
    }
}

/// An answer as JSON.
fn answer_of(answer: &impl serde::Serialize) -> Result<String, ApiError> {
    serde_json::to_string(answer).map_err(|error| {
        ApiError::new(
            ErrorCode::Failed,
            format!("a bug: the answer has no form in JSON: {error}"),
        )
    })
}

/// A page of an answer.
fn page(name: &str, items: Vec<serde_json::Value>, next: Option<String>) -> String {
    let mut page = serde_json::Map::new();
    page.insert(name.to_owned(), items.into());
    if let Some(next) = next {
        page.insert("next".to_owned(), next.into());
    }
    serde_json::Value::from(page).to_string()
}

/// The body as a value.
fn from_body<'a, T: serde::Deserialize<'a>>(body: &'a Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidBody,
            format!(
                "the body is wrong: {error}; GET {} describes it",
                routes::OPENAPI_PATH
            ),
        )
    })
}

/// How long a body may take to arrive after its head.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Most items of a page: the handle gives no more.
const PAGE_ITEMS_MAX: usize = 1000;
