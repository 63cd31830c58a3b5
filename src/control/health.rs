//! Whether the process is well, and whether it takes clients.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::ControlState;
use crate::cores::operators::mailbox::CoreStatus;

/// What a probe is told.
type Answer = (StatusCode, String);

/// 200 while every core turns and none has ended by itself. A drain is no illness: a supervisor must not kill the
/// process for it.
pub(super) async fn alive(State(shared): State<Arc<ControlState>>) -> Answer {
    if !shared.draining() && shared.some_core_stopped() {
        return unavailable("a core has ended\n");
    }
    stuck(&shared).unwrap_or_else(|| (StatusCode::OK, "ok\n".to_owned()))
}

/// 200 while every core accepts clients.
pub(super) async fn ready(State(shared): State<Arc<ControlState>>) -> Answer {
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
    // The kernel goes on giving it a share of the new connections.
    stuck(&shared).unwrap_or_else(|| (StatusCode::OK, "ready\n".to_owned()))
}

/// The cores that stand still, a line for each; `None` if all turn.
fn stuck(shared: &ControlState) -> Option<Answer> {
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

fn unavailable(why: &str) -> Answer {
    (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
}
