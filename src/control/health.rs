//! The health checks: whether the process works (`/healthz`), and whether it accepts clients (`/readyz`).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::ControlState;
use crate::cores::operators::mailbox::CoreStatus;

/// The answer to a probe.
type ProbeResponse = (StatusCode, String);

/// Answers 200 while every core turns and none has ended by itself. Also during a drain: a supervisor must
/// not kill a process because it drains.
pub(super) async fn alive(State(shared): State<Arc<ControlState>>) -> ProbeResponse {
    if !shared.draining() && shared.some_core_stopped() {
        return unavailable("a core has ended\n");
    }
    stuck(&shared).unwrap_or_else(|| (StatusCode::OK, "ok\n".to_owned()))
}

/// Answers 200 while every core accepts clients.
pub(super) async fn ready(State(shared): State<Arc<ControlState>>) -> ProbeResponse {
    if shared.draining() {
        return unavailable("draining\n");
    }
    for core in &shared.cores {
        match core.status() {
            CoreStatus::Serving => {}
            CoreStatus::Starting => return unavailable("starting\n"),
            CoreStatus::Draining => return unavailable("draining\n"),
            CoreStatus::Stopped => return unavailable("a core has ended\n"),
        }
    }
    // A stuck core is not ready: the kernel goes on giving it a share of the new connections.
    stuck(&shared).unwrap_or_else(|| (StatusCode::OK, "ready\n".to_owned()))
}

/// A 503 with a line for each core that is stuck; `None` if all cores turn.
fn stuck(shared: &ControlState) -> Option<ProbeResponse> {
    let lines: String = shared
        .stuck_cores()
        .iter()
        .map(|stuck| {
            let time = stuck.time.as_secs_f64();
            format!("core {} has not turned for {time:.1} s\n", stuck.core)
        })
        .collect();
    (!lines.is_empty()).then(|| unavailable(&lines))
}

fn unavailable(why: &str) -> ProbeResponse {
    (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
}
