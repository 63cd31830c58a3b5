//! Whether the process lives, and whether it takes clients.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::Shared;
use crate::cores::mailbox::CoreStatus;

/// 200 while no core has ended by itself. A drain is no illness: a supervisor must not kill the process for it.
pub(super) async fn alive(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if !shared.draining() && shared.some_core_stopped() {
        return (StatusCode::SERVICE_UNAVAILABLE, "a core has ended\n");
    }
    (StatusCode::OK, "ok\n")
}

/// 200 while every core accepts clients.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    for core in &shared.cores {
        match core.status() {
            CoreStatus::Serving => {}
            CoreStatus::Starting => return (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            CoreStatus::Draining => return (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            CoreStatus::Stopped => return (StatusCode::SERVICE_UNAVAILABLE, "a core has ended\n"),
        }
    }
    (StatusCode::OK, "ready\n")
}
