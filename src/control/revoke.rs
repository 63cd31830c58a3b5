//! Tokens taken back by an operator: `POST /revoke`, `DELETE /revoke`, `GET /revoked`.
//!
//! A revocation takes effect in three steps: every core is given policy that refuse such tokens; it is written to its file;
//! every core ends the connections that came in by one. The answer comes when the file and the cores have said that they
//! are done, or after a bounded time, and then it names the cores that have not said so: such a core has the order, or is
//! given it as soon as it has room for it (`dispatch.rs`).
//!
//! Limits: `revocations_max`; one that is refused for it is counted. `CORES_TIME_MAX` for the cores, and
//! `revocation_file::FILE_TIME_MAX` for the file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::ControlState;
use super::revocation_file::{self, Change};
use crate::audit;
use crate::auth::{NotRevocable, Revocation, Revocations, Revoked};
use crate::cores::operators::mailbox::{Done, Progress};
use crate::policy::Policy;

/// An answer: a status and JSON.
type Answer = (StatusCode, Json<Value>);

/// Refuses the tokens that the body names, and ends their connections.
pub(super) async fn revoke(State(shared): State<Arc<ControlState>>, body: String) -> Answer {
    match Revoked::parse(&body) {
        // In a task of its own: an operator who does not wait for the answer has asked for all of it.
        Ok(what) => tokio::spawn(revoke_now(shared, what)).await.unwrap_or_else(|_| {
            failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "it was not carried out to the end",
            )
        }),
        Err(error) => failure(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// Takes a revocation back: tokens that have not expired are good again.
pub(super) async fn restore(State(shared): State<Arc<ControlState>>, body: String) -> Answer {
    match Revoked::parse(&body) {
        Ok(what) => tokio::spawn(restore_now(shared, what)).await.unwrap_or_else(|_| {
            failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "it was not carried out to the end",
            )
        }),
        Err(error) => failure(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// What is revoked, the latest first.
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
                "claim": one.what().claim(),
                "value": value(one.what()),
                "at": one.at(),
                "until": one.until(),
            })
        })
        .collect();
    Json(json!({"count": count, "revoked": shown}))
}

/// Most revocations that are listed.
const SHOWN_MAX: usize = 1000;

/// Before the first operator: revocations that have ended are forgotten, and the file is what it will be added to.
pub(super) async fn tidy(shared: &Arc<ControlState>) {
    let Some(file) = &shared.config.auth.revocations_file else {
        return;
    };
    let now = shared.clock.now().unix_ms / 1000;
    let mut kept = Revocations::default();
    let Ok(()) = shared.change_policy(|policy| {
        kept = policy.tokens.revocations().clone();
        kept.forget_ended(now);
        Ok::<Policy, std::convert::Infallible>(policy.with_revocations(kept.clone()))
    });
    info!("{} revocations of tokens in {}", kept.len(), file.display());
    if let Err(error) = revocation_file::write(shared, Change::Others).await {
        warn!(
            "{}: {error}; what is revoked from now on will be forgotten at the end of this process",
            file.display()
        );
    }
}

/// Why something was not revoked.
enum NotDone {
    Full,
    Not(NotRevocable),
}

async fn revoke_now(shared: Arc<ControlState>, what: Revoked) -> Answer {
    let now = shared.clock.now().unix_ms / 1000;
    let mut made = None;
    let changed = shared.change_policy(|policy| {
        // Who signs may be ahead of us by as much.
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
        made = Some(revocation);
        Ok(policy.with_revocations(revocations))
    });
    let revocation = match (changed, made) {
        (Ok(()), Some(revocation)) => Arc::new(revocation),
        (Err(NotDone::Full), _) => {
            shared.revocations_refused.fetch_add(1, Ordering::Relaxed);
            return failure(
                StatusCode::INSUFFICIENT_STORAGE,
                "limits.revocations_max revocations are in force: take some back, raise it, or change the key that signs",
            );
        }
        (Err(NotDone::Not(error)), _) => return failure(StatusCode::BAD_REQUEST, &error.to_string()),
        (Ok(()), None) => return failure(StatusCode::INTERNAL_SERVER_ERROR, "nothing was revoked"),
    };
    let (ended, written) = tokio::join!(
        end_connections(&shared, &revocation),
        revocation_file::write(&shared, Change::Added(Arc::clone(&revocation))),
    );
    let connections = ended.connections;
    audit::revocation("revoked", what.claim(), what.value_json(), Some(connections));
    let mut answer = json!({"revoked": {what.claim(): value(&what)}, "connections": connections});
    let mut status = StatusCode::OK;
    if !ended.unanswered.is_empty() {
        warn!(
            "a revocation: cores {:?} have not answered; they end its connections as soon as they turn",
            ended.unanswered
        );
        answer["unanswered"] = json!(ended.unanswered);
        status = StatusCode::ACCEPTED;
    }
    if let Err(error) = written {
        error!("a revocation could not be written: {error}");
        answer["error"] = json!(format!(
            "revoked for now, but the next start will not know: {error}"
        ));
        status = StatusCode::INTERNAL_SERVER_ERROR;
    }
    (status, Json(answer))
}

fn add(revocations: &mut Revocations, one: &Revocation, max: usize, now: u64) -> Result<(), NotDone> {
    // The same again takes the place of the one before.
    revocations.remove(one.what());
    if revocations.len() >= max {
        revocations.forget_ended(now);
    }
    if revocations.len() >= max {
        return Err(NotDone::Full);
    }
    revocations.insert(one).map_err(NotDone::Not)
}

/// What has come of the order to end connections.
#[derive(Default)]
struct Ended {
    connections: u64,
    /// The cores that have not said in time that they are done.
    unanswered: Vec<usize>,
}

/// Has every core end the connections, all at once, and waits for their answers.
async fn end_connections(shared: &ControlState, revocation: &Arc<Revocation>) -> Ended {
    let deadline = Instant::now() + CORES_TIME_MAX;
    let mut answers = Vec::with_capacity(shared.cores.len());
    shared.dispatch.revoke(&shared.cores, revocation, || {
        let (done, carried) = Done::new(1);
        answers.push(carried);
        done
    });
    let mut ended = Ended::default();
    for (index, (core, answer)) in shared.cores.iter().zip(&answers).enumerate() {
        loop {
            match answer.next() {
                Progress::Done(connections) => {
                    ended.connections += connections;
                    break;
                }
                Progress::Pending if Instant::now() < deadline => sleep(LOOK_EVERY).await,
                // A core that stops drops its order, and all of its connections.
                Progress::Finished if core.has_stopped() => break,
                Progress::Pending | Progress::Finished => {
                    ended.unanswered.push(index);
                    break;
                }
            }
        }
    }
    ended
}

/// How long an operator waits for the cores.
const CORES_TIME_MAX: Duration = Duration::from_secs(5);

/// How often it is looked at whether the cores are done.
const LOOK_EVERY: Duration = Duration::from_millis(5);

async fn restore_now(shared: Arc<ControlState>, what: Revoked) -> Answer {
    let mut is_revoked = false;
    let Ok(()) = shared.change_policy(|policy| {
        let mut revocations = policy.tokens.revocations().clone();
        is_revoked = revocations.remove(&what);
        Ok::<Policy, std::convert::Infallible>(policy.with_revocations(revocations))
    });
    if !is_revoked {
        return failure(StatusCode::NOT_FOUND, "nothing is revoked by that");
    }
    shared.dispatch.forget(&what);
    audit::revocation("restored", what.claim(), what.value_json(), None);
    if let Err(error) = revocation_file::write(&shared, Change::Others).await {
        error!("what is revoked could not be written: {error}");
        return failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("restored for now, but the next start will not know: {error}"),
        );
    }
    (
        StatusCode::OK,
        Json(json!({"restored": {what.claim(): value(&what)}})),
    )
}

/// The claim's value as JSON.
fn value(what: &Revoked) -> Value {
    // It was printed as JSON, and only half a surrogate pair keeps it from being read.
    serde_json::from_str(what.value_json()).unwrap_or_else(|_| Value::from(what.value_json()))
}

fn failure(status: StatusCode, why: &str) -> Answer {
    (status, Json(json!({"error": why})))
}
