//! Tokens taken back by an operator: `POST /revoke`, `DELETE /revoke`, `GET /revoked`.
//!
//! A revocation takes effect in three steps, and the answer comes after the third: every core is given doors that refuse
//! such tokens; it is written to its file; every core has ended the connections that came in by one.
//!
//! Limits: `revocations_max`; one that is refused for it is counted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::Shared;
use crate::auth::{NotRevocable, Revocation, Revocations, Revoked};
use crate::cores::mailbox::{Done, Order, Word};
use crate::doors::{Doors, RevocationsFile, Rewritten};

/// An answer: a status and JSON.
type Answer = (StatusCode, Json<Value>);

/// Largest body of a request here, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 4096;

/// Refuses the tokens that the body names, and ends their connections.
pub(super) async fn revoke(State(shared): State<Arc<Shared>>, body: String) -> Answer {
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
pub(super) async fn restore(State(shared): State<Arc<Shared>>, body: String) -> Answer {
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
pub(super) async fn revoked(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let now = shared.clock.now().unix_ms / 1000;
    let doors = shared.doors.now();
    let revocations = doors.tokens.revocations();
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
pub(super) async fn tidy(shared: &Shared) {
    let Some(file) = &shared.config.revocations_file else {
        return;
    };
    let now = shared.clock.now().unix_ms / 1000;
    let _one_at_a_time = shared.revoking.lock().await;
    let mut kept = Revocations::default();
    let Ok(()) = shared
        .change_doors(|doors| {
            kept = doors.tokens.revocations().clone();
            kept.forget_ended(now);
            Ok::<Doors, std::convert::Infallible>(doors.with_revocations(kept.clone()))
        })
        .await;
    info!("{} revocations of tokens in {}", kept.len(), file.display());
    match RevocationsFile::new(file).replace(&kept) {
        Ok(rewritten) => tell(file, &rewritten),
        Err(error) => warn!(
            "{}: cannot be written: {error}; what is revoked from now on will be forgotten at the end of this process",
            file.display()
        ),
    }
}

/// Says what else there is to say about a file that was written anew.
fn tell(file: &Path, rewritten: &Rewritten) {
    for remark in rewritten.remarks() {
        warn!("{}: {remark}", file.display());
    }
}

/// Why something was not revoked.
enum NotDone {
    Full,
    Not(NotRevocable),
}

async fn revoke_now(shared: Arc<Shared>, what: Revoked) -> Answer {
    let now = shared.clock.now().unix_ms / 1000;
    let one_at_a_time = shared.revoking.lock().await;
    let mut made = None;
    let changed = shared
        .change_doors(|doors| {
            // Who signs may be ahead of us by as much.
            let leeway = u64::from(doors.tokens.demands().leeway_seconds);
            let until = now.saturating_add(shared.config.revocation_keep.as_secs()) + leeway;
            let revocation = Revocation::new(what.clone(), now + leeway, until);
            let mut revocations = doors.tokens.revocations().clone();
            add(
                &mut revocations,
                &revocation,
                shared.config.limits.revocations_max as usize,
                now,
            )?;
            made = Some(revocation);
            Ok(doors.with_revocations(revocations))
        })
        .await;
    let revocation = match (changed, made) {
        (Ok(()), Some(revocation)) => revocation,
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
    let written = match &shared.config.revocations_file {
        Some(file) => RevocationsFile::new(file).append(&revocation),
        None => Ok(()),
    };
    drop(one_at_a_time);
    let connections = end_connections(&shared, Arc::new(revocation)).await;
    info!(
        "revoked: tokens by their claim {:?}; {connections} connections ended",
        what.claim()
    );
    let mut answer = json!({"revoked": {what.claim(): value(&what)}, "connections": connections});
    match written {
        Ok(()) => (StatusCode::OK, Json(answer)),
        Err(error) => {
            error!("a revocation could not be written: {error}");
            answer["error"] = json!(format!(
                "revoked for now, but the next start will not know: the file cannot be written: {error}"
            ));
            (StatusCode::INTERNAL_SERVER_ERROR, Json(answer))
        }
    }
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

/// Ends the connections on every core; how many they were.
async fn end_connections(shared: &Shared, revocation: Arc<Revocation>) -> u64 {
    let (done, carried) = Done::new(shared.cores.len());
    for core in &shared.cores {
        let revocation = Arc::clone(&revocation);
        let done = done.clone();
        shared
            .order_surely(core, &Order::Revoke { revocation, done })
            .await;
    }
    // A core that stops drops its order, and with it its way to tell.
    drop(done);
    let mut ended = 0;
    loop {
        match carried.next() {
            Word::Of(connections) => ended += connections,
            Word::NotYet => sleep(LOOK_EVERY).await,
            Word::Last => return ended,
        }
    }
}

/// How often it is looked at whether the cores are done.
const LOOK_EVERY: Duration = Duration::from_millis(5);

async fn restore_now(shared: Arc<Shared>, what: Revoked) -> Answer {
    let _one_at_a_time = shared.revoking.lock().await;
    let mut left = None;
    let Ok(()) = shared
        .change_doors(|doors| {
            let mut revocations = doors.tokens.revocations().clone();
            if !revocations.remove(&what) {
                return Ok::<Doors, std::convert::Infallible>(doors.clone());
            }
            left = Some(revocations.clone());
            Ok(doors.with_revocations(revocations))
        })
        .await;
    let Some(left) = left else {
        return failure(StatusCode::NOT_FOUND, "nothing is revoked by that");
    };
    info!("restored: tokens by their claim {:?}", what.claim());
    if let Some(file) = &shared.config.revocations_file {
        match RevocationsFile::new(file).replace(&left) {
            Ok(rewritten) => tell(file, &rewritten),
            Err(error) => {
                error!("what is revoked could not be written: {error}");
                return failure(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &format!(
                        "restored for now, but the next start will not know: the file cannot be written: {error}"
                    ),
                );
            }
        }
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
