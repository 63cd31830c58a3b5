//! Who answers which request of an operator.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tracing::error;

use super::{Shared, health, stats};
use crate::metrics::block::CoreMetrics;
use crate::metrics::process::ProcessStatus;
use crate::metrics::text::{self, Process};

/// Answers requests until the runtime ends.
pub(super) async fn serve(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    if let Err(error) = axum::serve(listener, router(shared)).into_future().await {
        error!("the control plane no longer listens: {error}");
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/stats", get(statistics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&shared), authorized))
        .with_state(shared)
}

/// Lets a request pass that bears the key, or any if there is no key.
async fn authorized(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let Some(key) = &shared.config.admin_key else {
        return next.run(request).await;
    };
    let authorization = request
        .headers()
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes());
    if authorization
        .and_then(bearer)
        .is_some_and(|guess| key.matches(guess))
    {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"ringcast\"")];
    (
        StatusCode::UNAUTHORIZED,
        challenge,
        "this needs the header Authorization: Bearer KEY\n",
    )
        .into_response()
}

/// The key of a header (RFC 6750 section 2.1); the scheme's case does not matter (RFC 9110 section 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = authorization.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| key.trim_ascii())
}

const BEARER: &[u8] = b"Bearer ";

async fn index() -> &'static str {
    INDEX
}

const INDEX: &str = "\
Ringcast control plane

/metrics   counters, for Prometheus
/healthz   200 while the process and all of its cores live
/readyz    200 while clients are accepted, 503 while starting or draining
/stats     counters and settings, as JSON
";

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let cores: Vec<&CoreMetrics> = shared.cores.iter().map(|core| core.metrics()).collect();
    let process = Process {
        start_unix_ms: shared.start_unix_ms,
        draining: shared.draining(),
        status: ProcessStatus::read(),
    };
    let mut out = String::with_capacity(EXPOSITION_BYTES_PER_CORE * (cores.len() + 1));
    text::expose(&cores, process, &mut out);
    ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], out)
}

/// A core's samples take about this much.
const EXPOSITION_BYTES_PER_CORE: usize = 8 * 1024;

async fn statistics(State(shared): State<Arc<Shared>>) -> Json<serde_json::Value> {
    Json(stats::collect(&shared))
}

async fn unknown() -> Result<Infallible, (StatusCode, &'static str)> {
    Err((StatusCode::NOT_FOUND, "not found; / lists what there is\n"))
}

async fn wrong_method() -> Result<Infallible, (StatusCode, &'static str)> {
    Err((
        StatusCode::METHOD_NOT_ALLOWED,
        "only GET and HEAD are served here\n",
    ))
}
