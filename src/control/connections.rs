//! `/slow` and `/closed`: single connections, as JSON.
//!
//! The handler asks all cores at the same time. If a core does not answer within [`ANSWER_TIME_MAX`], its
//! index is listed in `unanswered`.
//!
//! The handle (`handle/asking.rs`) asks, since a core must never wake this thread's runtime: the thread of the handles
//! wakes it when the answers are there.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ControlState;
use crate::cores::lifecycle::recent_ends::{ENDS_KEPT, End};
use crate::cores::lifecycle::tally::Tally;
use crate::cores::operators::questions::{LargestSearch, Question, Slow};
use crate::session::ClientProtocol;

/// The query of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// How many connections at most.
    limit: Option<usize>,
}

/// Lists the connections with the longest outboxes.
pub(super) async fn slow(
    State(shared): State<Arc<ControlState>>,
    Query(query): Query<ListQuery>,
) -> Json<Value> {
    let count_max = query.limit.unwrap_or(SLOW_BY_DEFAULT).min(LISTED_MAX);
    let (answers, unanswered) = shared
        .handle
        .survey(ANSWER_TIME_MAX, |answer| {
            Question::Slow(LargestSearch::new(count_max, answer))
        })
        .await;
    let mut all = rows_by_core(answers);
    all.sort_by_key(|(_, slow)| std::cmp::Reverse(slow.held_bytes()));
    let list: Vec<Value> = all
        .iter()
        .take(count_max)
        .map(|(core, slow)| slow_shown(*core, slow))
        .collect();
    Json(json!({ "connections": list, "unanswered": unanswered }))
}

/// Lists the connections that closed last.
pub(super) async fn closed(
    State(shared): State<Arc<ControlState>>,
    Query(query): Query<ListQuery>,
) -> Json<Value> {
    let count_max = query.limit.unwrap_or(LISTED_MAX).min(LISTED_MAX);
    let (answers, unanswered) = shared
        .handle
        .survey(ANSWER_TIME_MAX, |answer| Question::Closed { answer })
        .await;
    let mut all = rows_by_core(answers);
    all.sort_by_key(|(_, end)| std::cmp::Reverse(end.at_unix_ms));
    let list: Vec<Value> = all
        .iter()
        .take(count_max)
        .map(|(core, end)| end_shown(*core, end))
        .collect();
    Json(json!({ "connections": list, "unanswered": unanswered }))
}

/// The rows of all cores, each with the index of its core.
fn rows_by_core<T>(answers: Vec<(usize, Vec<T>)>) -> Vec<(usize, T)> {
    let rows = |(core, rows): (usize, Vec<T>)| rows.into_iter().map(move |row| (core, row));
    answers.into_iter().flat_map(rows).collect()
}

fn slow_shown(core: usize, slow: &Slow) -> Value {
    json!({
        "core": core,
        "protocol": slow.protocol.map(ClientProtocol::name),
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
        "protocol": end.protocol.map(ClientProtocol::name),
        "id": end.id.map(|id| id.to_string()),
        "address": end.client.to_string(),
        "reason": end.reason.label(),
        "code": end.reason.code().map(|code| code.as_u16()),
        "at_unix_ms": end.at_unix_ms,
        "open_seconds": end.age.as_secs_f64(),
        "traffic": tally_shown(&end.tally),
    })
}

fn tally_shown(tally: &Tally) -> Value {
    json!({
        "messages_received": tally.messages_in,
        "messages_sent": tally.messages_out,
        "received_bytes": tally.bytes_in,
        "sent_bytes": tally.bytes_out,
    })
}

/// How long cores have to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
const SLOW_BY_DEFAULT: usize = 100;
/// As many as one core remembers: up to that number `/closed` is complete, however the closed connections are
/// spread over the cores.
const LISTED_MAX: usize = ENDS_KEPT;
