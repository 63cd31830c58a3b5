//! `/slow` and `/closed`: single connections, as JSON.
//!
//! All cores are asked at once. One that does not answer within [`PATIENCE`] is named in `unanswered`, and nobody waits
//! for it any longer.
//!
//! Answers come through channels that are looked into now and then: a core must never wake this thread's runtime. It
//! would write to the number of the runtime's descriptor, and in its own table that may be a client.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::ControlState;
use crate::cores::lifecycle::tally::Tally;
use crate::cores::operators::report::{Answer, ENDS_KEPT, End, Question, Slow};

/// What may follow the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// How many connections at most.
    limit: Option<usize>,
}

/// The connections with the longest outboxes.
pub(super) async fn slow(
    State(shared): State<Arc<ControlState>>,
    Query(wanted): Query<Wanted>,
) -> Json<Value> {
    let count_max = wanted.limit.unwrap_or(SLOW_BY_DEFAULT).min(LISTED_MAX);
    let (answers, unanswered) = ask(&shared, |answer| Question::Slow { count_max, answer }).await;
    let mut all = told_by(answers);
    all.sort_by_key(|(_, slow)| std::cmp::Reverse(slow.held_bytes()));
    let list: Vec<Value> = all
        .iter()
        .take(count_max)
        .map(|(core, slow)| slow_shown(*core, slow))
        .collect();
    Json(json!({ "connections": list, "unanswered": unanswered }))
}

/// The last connections to end.
pub(super) async fn closed(
    State(shared): State<Arc<ControlState>>,
    Query(wanted): Query<Wanted>,
) -> Json<Value> {
    let count_max = wanted.limit.unwrap_or(LISTED_MAX).min(LISTED_MAX);
    let (answers, unanswered) = ask(&shared, |answer| Question::Closed { answer }).await;
    let mut all = told_by(answers);
    all.sort_by_key(|(_, end)| std::cmp::Reverse(end.at_unix_ms));
    let list: Vec<Value> = all
        .iter()
        .take(count_max)
        .map(|(core, end)| end_shown(*core, end))
        .collect();
    Json(json!({ "connections": list, "unanswered": unanswered }))
}

/// Asks all cores; answers with what they say, and with the indexes of those that say nothing.
async fn ask<T: Send + 'static>(
    shared: &ControlState,
    question: impl Fn(Answer<T>) -> Question,
) -> (Vec<(usize, T)>, Vec<usize>) {
    let deadline = Instant::now() + PATIENCE;
    let asked: Vec<_> = shared
        .cores
        .iter()
        .map(|core| {
            let (give, answer) = bounded(1);
            let question = question(Answer::new(move |value| {
                // There is room for the one answer; who asked may have lost patience.
                let _ = give.send(value);
            }));
            core.ask(question).is_ok().then_some(answer)
        })
        .collect();
    let (mut answers, mut unanswered) = (Vec::new(), Vec::new());
    for (core, answer) in asked.into_iter().enumerate() {
        let answer = match answer {
            Some(answer) => received(&answer, deadline).await,
            None => None,
        };
        match answer {
            Some(answer) => answers.push((core, answer)),
            None => unanswered.push(core),
        }
    }
    (answers, unanswered)
}

/// What a core says before the deadline.
async fn received<T>(answer: &Receiver<T>, deadline: Instant) -> Option<T> {
    loop {
        match answer.try_recv() {
            Ok(answer) => return Some(answer),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if Instant::now() >= deadline => return None,
            Err(TryRecvError::Empty) => sleep(LOOK_EVERY).await,
        }
    }
}

/// How often an answer is looked for: an operator does not notice it.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The rows of all cores, each with the index of its core.
fn told_by<T>(answers: Vec<(usize, Vec<T>)>) -> Vec<(usize, T)> {
    let rows = |(core, rows): (usize, Vec<T>)| rows.into_iter().map(move |row| (core, row));
    answers.into_iter().flat_map(rows).collect()
}

fn slow_shown(core: usize, slow: &Slow) -> Value {
    json!({
        "core": core,
        "id": slow.id.map(|id| id.to_string()),
        "address": slow.client.to_string(),
        "outbox_bytes": slow.waiting_bytes,
        "input_bytes": slow.input_bytes,
        "conflated_channels": slow.conflated,
        "blocked_seconds": slow.blocked_for.map(|time| time.as_secs_f64()),
        "subscriptions": slow.subscriptions,
        "age_seconds": slow.age.as_secs_f64(),
        "traffic": tally_shown(&slow.tally),
    })
}

fn end_shown(core: usize, end: &End) -> Value {
    json!({
        "core": core,
        "id": end.id.map(|id| id.to_string()),
        "address": end.client.to_string(),
        "reason": end.reason.label(),
        "code": end.reason.code().map(|code| code.as_u16()),
        "at_unix_ms": end.at_unix_ms,
        "open_seconds": end.age.as_secs_f64(),
        "traffic": tally_shown(&end.tally),
    })
}

fn tally_shown(account: &Tally) -> Value {
    json!({
        "messages_received": account.messages_in,
        "messages_sent": account.messages_out,
        "received_bytes": account.bytes_in,
        "sent_bytes": account.bytes_out,
    })
}

/// How long cores have to answer.
const PATIENCE: Duration = Duration::from_secs(1);
const SLOW_BY_DEFAULT: usize = 100;
/// As many as one core remembers: what `/closed` tells is right up to there, however they are spread.
const LISTED_MAX: usize = ENDS_KEPT;
