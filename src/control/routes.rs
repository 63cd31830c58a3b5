//! The routes of the control plane: which handler answers which request of an operator.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::admin_slots::AdminSlot;
use super::{ControlState, api, connections, guard, health, memory_release, request_audit, revoke, stats};
use crate::log;
use crate::login::PasswordChecks;
use crate::metrics::block::CoreMetrics;
use crate::metrics::hooks::HookSample;
use crate::metrics::process::ProcessStatus;
use crate::metrics::server::{FetchedKeys, Process};
use crate::metrics::text::{self, Features};
use crate::store::StoreHandle;

/// Answers requests until the runtime ends. The number of connections and the time that one may be silent are
/// bounded, since this port may be open to a network and its descriptors count against the process's limit.
/// When all slots are taken, a new connection replaces a silent one (`admin_slots.rs`).
pub(super) async fn serve(listener: tokio::net::TcpListener, shared: Arc<ControlState>) {
    let router = guarded(pages(), &shared);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let tls = if shared.config.tls.admin {
            shared.policy.now().tls.as_ref().map(|tls| tls.admin_config())
        } else {
            None
        };
        if shared.config.tls.admin && tls.is_none() {
            // Never serve in the clear what was configured to be under TLS.
            continue;
        }
        let slot = Arc::new(shared.admin_slots.take());
        let router = router.clone();
        let slot_of_task = Arc::clone(&slot);
        let task = tokio::spawn(async move {
            let slot_to_watch = Arc::clone(&slot_of_task);
            let serve = async move {
                match tls {
                    None => serve_connection(stream, peer, router, slot_of_task).await,
                    Some(config) => {
                        // A failed handshake ends the connection; an operator sees why on its side.
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            serve_connection(stream, peer, router, slot_of_task).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = serve => {}
                () = first_request_overdue(&slot_to_watch) => {}
            }
        });
        slot.set_task(task.abort_handle());
    }
}

/// Returns when the time for the first request is over and no request has come. Otherwise never returns.
async fn first_request_overdue(slot: &AdminSlot) {
    sleep(FIRST_REQUEST_TIME_MAX).await;
    if slot.has_requested() {
        std::future::pending::<()>().await;
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    peer: SocketAddr,
    router: Router,
    slot: Arc<AdminSlot>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (router, slot) = (router.clone(), Arc::clone(&slot));
        request_audit::identify(request.extensions_mut(), peer);
        async move {
            slot.begin_request();
            let answer = router.call(request).await;
            slot.end_request();
            answer
        }
    });
    // An operator that disconnects in the middle of an answer is not worth a log line.
    let _ = http1::Builder::new()
        // A client may close its sending side after its last request and still gets the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// How long a connection may take until its first request, including the TLS handshake.
const FIRST_REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may then take between two requests, until the next request head is complete: scrapes
/// are 15 s apart.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long the control plane waits after a failed accept, such as one for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All pages.
pub(super) fn pages() -> Router<Arc<ControlState>> {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        // HAProxy probes with OPTIONS where its `option httpchk` names no method.
        .route("/healthz", get(health::alive).options(health::alive))
        .route("/readyz", get(health::ready).options(health::ready))
        .route("/stats", get(statistics))
        .route("/slow", get(connections::slow))
        .route("/closed", get(connections::closed))
        .route("/revoke", post(revoke::revoke).delete(revoke::restore))
        .route("/revoked", get(revoke::revoked))
}

/// Puts the guard in front of the pages, and in front of the answers to unknown paths and wrong methods.
pub(super) fn guarded(pages: Router<Arc<ControlState>>, shared: &Arc<ControlState>) -> Router {
    pages
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(shared), guard::guard))
        .layer(from_fn_with_state(Arc::clone(shared), request_audit::audited))
        // The API has keys, bodies and lines of the audit trail of its own; it asks the guard by itself.
        .route("/api", any(api::serve))
        .route("/api/{*path}", any(api::serve))
        .with_state(Arc::clone(shared))
}

async fn index() -> &'static str {
    INDEX
}

const INDEX: &str = "\
Ringcast control plane

/metrics   counters, for Prometheus
/healthz   200 while every core turns; 503 names each core that has not turned for liveness_timeout_ms
/readyz    200 while clients are accepted, 503 while starting or draining, or while a core does not turn
/stats     counters and settings, as JSON
/slow      the connections with the longest outboxes, as JSON; /slow?limit=10 for ten
/closed    the last thousand closed connections, and why they closed; /closed?limit=10 for ten
/revoke    POST {\"sub\":\"ann\"} or another claim as JSON: tokens with it are refused from now on, and their connections
           are closed; the answer names cores that have not done so within 5 s (status 202); DELETE withdraws it
/revoked   the revocations in force, as JSON
/api/v1/openapi.json
           the description of the HTTP API, for programs; its requests need a key of [[api_keys]]
";

async fn metrics(State(shared): State<Arc<ControlState>>) -> impl IntoResponse {
    let cores: Vec<&CoreMetrics> = shared.cores.iter().map(|core| core.metrics()).collect();
    let policy = shared.policy.now();
    let keys = shared.keys.as_ref().map(|counts| FetchedKeys {
        fetches: counts.fetches.load(Ordering::Relaxed),
        failures: counts.failures.load(Ordering::Relaxed),
        keys: policy.tokens.fetched().map_or(0, |set| set.key_count()),
    });
    let process = Process {
        start_unix_ms: shared.start_unix_ms,
        allocator_bytes: memory_release::committed_bytes(),
        draining: shared.draining(),
        core_stuck_ms: u64::try_from(shared.longest_stuck().as_millis()).unwrap_or(u64::MAX),
        drain_closes_per_1000_seconds: shared.drain_closes_per_1000_seconds.load(Ordering::Relaxed),
        revocations: policy.tokens.revocations().len(),
        revocations_refused: shared.revocations_refused.load(Ordering::Relaxed),
        channel_policies: policy.channels.counts(),
        admin_connections_ended: shared.admin_slots.evicted(),
        log_lines_dropped: log::lines_dropped(),
        keys,
        keys_left_out: policy.tokens.unused_key_count(),
        tls_not_after_unix_s: policy.tls.as_ref().map(|tls| tls.not_after_unix_s()),
        outside: shared.handle.counts(),
        status: ProcessStatus::read(),
    };
    let mut out = String::with_capacity(EXPOSITION_BYTES_PER_CORE * (cores.len() + 1));
    let logins = policy.login.as_ref().map(PasswordChecks::metrics);
    let api = (!policy.api_keys.is_empty()).then_some(&shared.api.metrics);
    let store = shared.store.as_ref().map(StoreHandle::metrics);
    let services: Vec<_> = policy
        .services
        .rows()
        .iter()
        .map(|row| Arc::clone(&row.meters))
        .collect();
    let hooks: Vec<HookSample<'_>> = policy
        .hooks
        .iter()
        .flat_map(|hooks| hooks.iter())
        .map(|hook| HookSample {
            name: hook.name(),
            metrics: hook.metrics(),
            open: hook.open(),
        })
        .collect();
    let features = Features {
        logins,
        api,
        store,
        services: &services,
        hooks: &hooks,
        webhooks: policy.webhooks.intake().map(|intake| &intake.metrics),
    };
    text::expose(&cores, process, features, &mut out);
    ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], out)
}

/// A core's samples take about this much.
const EXPOSITION_BYTES_PER_CORE: usize = 8 * 1024;

async fn statistics(State(shared): State<Arc<ControlState>>) -> Json<serde_json::Value> {
    Json(stats::collect(&shared))
}

async fn unknown() -> Result<Infallible, (StatusCode, &'static str)> {
    Err((StatusCode::NOT_FOUND, "not found; GET / lists the pages\n"))
}

async fn wrong_method() -> Result<Infallible, (StatusCode, &'static str)> {
    Err((
        StatusCode::METHOD_NOT_ALLOWED,
        "this page does not support this method; the header Allow lists those that it supports\n",
    ))
}
