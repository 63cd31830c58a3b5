//! Revocation of tokens by operators: `POST /revoke`, `DELETE /revoke`, `GET /revoked`.
//!
//! A revocation takes effect in three steps: every core gets a policy that refuses such tokens; the
//! revocation is written to its file; every core closes the connections that were authenticated by such a
//! token. The handler answers when the file and all cores are done, or after a bounded time. In the latter
//! case the answer names the cores that have not reported: such a core has the order, or gets it as soon as
//! its mailbox has room (`dispatch.rs`).
//!
//! Limits: `revocations_max` (a revocation beyond it is refused and counted), `CORES_TIME_MAX` for the cores,
//! and `revocation_file::FILE_TIME_MAX` for the file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::ControlState;
use super::revocation_file::{self, Change};
use crate::audit;
use crate::auth::{NotRevocable, Revocation, Revocations, Revoked};
use crate::cores::operators::mailbox::Done;
use crate::policy::Policy;

/// An answer: a status and JSON.
type JsonResponse = (StatusCode, Json<Value>);

/// Refuses the tokens that the body names from now on, and closes their connections.
pub(super) async fn revoke(State(shared): State<Arc<ControlState>>, body: String) -> JsonResponse {
    match Revoked::parse(&body) {
        // A task of its own carries the revocation to its end even if the operator disconnects.
        Ok(what) => tokio::spawn(revoke_now(shared, what)).await.unwrap_or_else(|_| {
            failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the revocation was not completed",
            )
        }),
        Err(error) => failure(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// Withdraws a revocation: its tokens are accepted again until they expire.
pub(super) async fn restore(State(shared): State<Arc<ControlState>>, body: String) -> JsonResponse {
    match Revoked::parse(&body) {
        Ok(what) => tokio::spawn(restore_now(shared, what)).await.unwrap_or_else(|_| {
            failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the withdrawal was not completed",
            )
        }),
        Err(error) => failure(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// Lists the revocations in force, the latest first.
pub(super) async fn revoked(State(shared): State<Arc<ControlState>>) -> Json<Value> {
    let now = shared.clock.now().unix_ms / 1000;
    let policy = shared.policy.now();
    let revocations = policy.tokens.revocations();
    let mut list: Vec<Revocation> = revocations.iter().filter(|one| now < one.until()).collect();
    let count = list.len();
    list.sort_by_key(|one| std::cmp::Reverse(one.at()));
    let shown: Vec<Value> = list
        .iter()
        .take(SHOWN_MAX)
        .map(|one| {
            json!({
                "claim": one.revoked().claim(),
                "value": value(one.revoked()),
                "at": one.at(),
                "until": one.until(),
            })
        })
        .collect();
    Json(json!({"count": count, "revoked": shown}))
}

/// Most revocations in one list.
const SHOWN_MAX: usize = 1000;

/// Runs before the first operator is served: discards expired revocations and rewrites the file, to which
/// later revocations are appended.
pub(super) async fn discard_expired(shared: &Arc<ControlState>) {
    let Some(file) = &shared.config.auth.revocations_file else {
        return;
    };
    let now = shared.clock.now().unix_ms / 1000;
    let mut kept = Revocations::default();
    let Ok(()) = shared.change_policy(|policy| {
        kept = policy.tokens.revocations().clone();
        kept.drop_expired(now);
        Ok::<Policy, std::convert::Infallible>(policy.with_revocations(kept.clone()))
    });
    info!("{} revocations of tokens in {}", kept.len(), file.display());
    if let Err(error) = revocation_file::write(shared, Change::Rewrite).await {
        warn!(
            "{}: {error}; revocations from now on will be lost when this process ends",
            file.display()
        );
    }
}

/// Why a revocation was refused.
enum RevokeError {
    LimitReached,
    NotRevocable(NotRevocable),
}

async fn revoke_now(shared: Arc<ControlState>, what: Revoked) -> JsonResponse {
    let now = shared.clock.now().unix_ms / 1000;
    let mut added = None;
    let changed = shared.change_policy(|policy| {
        // The clock of the server that signs tokens may be ahead of ours by the leeway.
        let leeway = u64::from(policy.tokens.demands().leeway_seconds);
        let until = now.saturating_add(shared.config.auth.revocation_keep.as_secs()) + leeway;
        let revocation = Revocation::new(what.clone(), now + leeway, until);
        let mut revocations = policy.tokens.revocations().clone();
        add(
            &mut revocations,
            &revocation,
            shared.config.limits.revocations_max as usize,
            now,
        )?;
        added = Some(revocation);
        Ok(policy.with_revocations(revocations))
    });
    let revocation = match (changed, added) {
        (Ok(()), Some(revocation)) => Arc::new(revocation),
        (Err(RevokeError::LimitReached), _) => {
            shared.revocations_refused.fetch_add(1, Ordering::Relaxed);
            return failure(
                StatusCode::INSUFFICIENT_STORAGE,
                "limits.revocations_max revocations are in force: withdraw some, raise the limit, or change \
                 the signing key",
            );
        }
        (Err(RevokeError::NotRevocable(error)), _) => {
            return failure(StatusCode::BAD_REQUEST, &error.to_string());
        }
        (Ok(()), None) => return failure(StatusCode::INTERNAL_SERVER_ERROR, "the revocation was not added"),
    };
    let (ended, written) = tokio::join!(
        end_connections(&shared, &revocation),
        revocation_file::write(&shared, Change::Append(Arc::clone(&revocation))),
    );
    let connections = ended.connections;
    audit::revocation("revoked", what.claim(), what.value_json(), Some(connections));
    let mut answer = json!({"revoked": {what.claim(): value(&what)}, "connections": connections});
    let mut status = StatusCode::OK;
    if !ended.unanswered.is_empty() {
        warn!(
            "a revocation: cores {:?} have not answered; they close its connections as soon as they turn",
            ended.unanswered
        );
        answer["unanswered"] = json!(ended.unanswered);
        status = StatusCode::ACCEPTED;
    }
    if let Err(error) = written {
        error!("a revocation is in force, but could not be written to its file: {error}");
        answer["error"] = json!(format!("revoked, but it will be lost at the next start: {error}"));
        status = StatusCode::INTERNAL_SERVER_ERROR;
    }
    (status, Json(answer))
}

fn add(revocations: &mut Revocations, one: &Revocation, max: usize, now: u64) -> Result<(), RevokeError> {
    // A revocation of the same claim and value replaces the earlier one.
    revocations.remove(one.revoked());
    if revocations.len() >= max {
        revocations.drop_expired(now);
    }
    if revocations.len() >= max {
        return Err(RevokeError::LimitReached);
    }
    revocations.insert(one).map_err(RevokeError::NotRevocable)
}

/// The result of the order to close connections.
#[derive(Default)]
struct EndedConnections {
    connections: u64,
    /// The cores that have not reported in time.
    unanswered: Vec<usize>,
}

/// Has all cores close the connections at the same time, and waits for their reports.
async fn end_connections(shared: &ControlState, revocation: &Arc<Revocation>) -> EndedConnections {
    let mut reports = Vec::with_capacity(shared.cores.len());
    shared.dispatch.revoke(&shared.cores, revocation, || {
        let (report, done) = match shared.handle.report(CORES_TIME_MAX) {
            Ok((report, answer)) => (Some(report), Done::new(answer)),
            // Too many operations wait. The core carries the order out all the same.
            Err(_) => (None, Done::unobserved()),
        };
        reports.push(report);
        done
    });
    let mut ended = EndedConnections::default();
    for (index, (core, report)) in shared.cores.iter().zip(reports).enumerate() {
        let reported = match report {
            Some(report) => report.await,
            None => None,
        };
        match reported {
            Some(connections) => ended.connections += connections,
            // A core that stops drops its orders and all of its connections.
            None if core.has_stopped() => {}
            None => ended.unanswered.push(index),
        }
    }
    ended
}

/// How long an operator waits for the cores.
const CORES_TIME_MAX: Duration = Duration::from_secs(5);

async fn restore_now(shared: Arc<ControlState>, what: Revoked) -> JsonResponse {
    let mut is_revoked = false;
    let Ok(()) = shared.change_policy(|policy| {
        let mut revocations = policy.tokens.revocations().clone();
        is_revoked = revocations.remove(&what);
        Ok::<Policy, std::convert::Infallible>(policy.with_revocations(revocations))
    });
    if !is_revoked {
        return failure(
            StatusCode::NOT_FOUND,
            "no revocation in force has this claim and value",
        );
    }
    shared.dispatch.forget(&what);
    audit::revocation("restored", what.claim(), what.value_json(), None);
    if let Err(error) = revocation_file::write(&shared, Change::Rewrite).await {
        error!("a revocation is withdrawn, but its file could not be written: {error}");
        return failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("restored, but the revocation will be in force again at the next start: {error}"),
        );
    }
    (
        StatusCode::OK,
        Json(json!({"restored": {what.claim(): value(&what)}})),
    )
}

/// The claim's value as JSON.
fn value(what: &Revoked) -> Value {
    // The text is valid JSON, but serde_json refuses half of a surrogate pair.
    serde_json::from_str(what.value_json()).unwrap_or_else(|_| Value::from(what.value_json()))
}

fn failure(status: StatusCode, why: &str) -> JsonResponse {
    (status, Json(json!({"error": why})))
}
