//! The answers to `$history`, and the publications since a time.

use std::time::Duration;

use serde_json::Value;

use super::Client;
use super::calls::Call;
use crate::cores::simulation::following::Recovered;
use crate::cores::simulation::log::Entry;
use crate::cores::simulation::policies::{Memory, Wanted};
use crate::cores::simulation::world::GroundTruth;

/// An answer to `$history`.
#[derive(Debug)]
struct HistoryReply {
    /// The places in the log of the channel.
    places: Vec<usize>,
    up_to: u64,
    has_more: bool,
}

impl Client {
    /// Checks the answer to `$history`.
    pub(super) fn history_read(
        &self,
        truth: &mut GroundTruth,
        (channel, wanted, limit): (usize, Wanted, usize),
        call: &Call,
        earliest: u64,
        packet: &Value,
    ) -> bool {
        if !packet["error"].is_null() {
            // Too many calls are open, no policy has a history, or the owner stands still.
            let name = packet["error"]["name"].as_str();
            return truth.plan.memory == Memory::Some
                || matches!(name, Some("InvalidActionError" | "TimeoutError"));
        }
        let data = &packet["data"];
        if data.is_null() {
            // The application has answered: no channel has a policy.
            return truth.plan.memory == Memory::Some;
        }
        let up_to = truth.offset_of(&data["position"]);
        if up_to + 1 < earliest || up_to >= truth.log.claimed() {
            return false;
        }
        let reason = data["reason"].as_str();
        let (recovered, is_recovery) = (
            data["recovered"].as_bool(),
            matches!(wanted, Wanted::After(_) | Wanted::OtherEpoch | Wanted::Since(_)),
        );
        let told = Recovered {
            up_to,
            publications: data["publications"].as_array().map_or(0, Vec::len),
        };
        if is_recovery != recovered.is_some()
            || recovered.is_some_and(|is_whole| is_whole != reason.is_none())
            || !truth.may_lack(wanted, told, reason)
        {
            return false;
        }
        truth.histories += u64::from(told.publications > 0);
        let places = match places(truth, channel, data) {
            Ok(places) => places,
            Err(error) => truth.fail(&format!("client {}: {call:?}: {error}", self.index)),
        };
        let told = HistoryReply {
            places,
            up_to,
            has_more: data["more"] == true,
        };
        let result = check(truth, channel, wanted, limit, recovered, &told, call.clock_sets);
        if let Err(error) = result {
            truth.fail(&format!(
                "client {}: {call:?}: {error}: {told:?}, {packet}",
                self.index
            ));
        }
        true
    }
}

/// The places of the publications of an answer: they must be publications of the channel, in order.
fn places(truth: &GroundTruth, channel: usize, data: &Value) -> Result<Vec<usize>, String> {
    let mut places: Vec<usize> = Vec::new();
    for one in data["publications"].as_array().into_iter().flatten() {
        let number = one["data"].as_str().and_then(|data| data.split_once(':'));
        let number = number.and_then(|(number, _)| number.parse().ok());
        let (place, entry) = number
            .and_then(|number| truth.log.entry(number))
            .ok_or_else(|| format!("nobody has published {one}"))?;
        let is_of_channel = truth.log.of_channel(channel).get(place).map(|one| one.number) == number;
        if !is_of_channel || one["offset"] != entry.sequence || !entry.remembered {
            return Err(format!("{one} is not {entry:?}"));
        }
        if places.last().is_some_and(|&before| before >= place) {
            return Err(format!("{one} comes twice, or after a later one"));
        }
        if let Some(unix_ms) = one["time"].as_u64() {
            check_time(truth, &entry, unix_ms)?;
        }
        places.push(place);
    }
    Ok(places)
}

/// Checks that the time of a publication lies between its turn and now.
fn check_time(truth: &GroundTruth, entry: &Entry, unix_ms: u64) -> Result<(), String> {
    if truth.clock_sets > 0 {
        return Ok(());
    }
    let now = truth.time.peek();
    let age = |at_ms: u64| Duration::from_millis(now.unix_ms.saturating_sub(at_ms));
    let latest = now.uptime.since(entry.at);
    if age(unix_ms) > latest + CLOCK_ERROR || unix_ms > now.unix_ms + 10 {
        return Err(format!("the time {unix_ms} of {entry:?}, and it is {now:?}"));
    }
    Ok(())
}

fn check(
    truth: &GroundTruth,
    channel: usize,
    wanted: Wanted,
    limit: usize,
    recovered: Option<bool>,
    told: &HistoryReply,
    clock_sets: u32,
) -> Result<(), String> {
    let all = truth.log.places(channel, 0..told.up_to + 1);
    let is_steady = truth.plan.memory == Memory::Everything;
    let count = told.places.len();
    let is_without_gaps = told.places.windows(2).all(|two| two[0] + 1 == two[1]);
    if count > limit || (!is_without_gaps && (is_steady || recovered == Some(true))) {
        return Err("too many, or some are missing between others".to_owned());
    }
    // The answer has the newest publications and leaves older ones out: it has `wanted` of them, or all there
    // are.
    let newest = |wanted: usize| {
        let expected = all.end - wanted.min(limit)..all.end;
        if is_steady && (told.places != expected.clone().collect::<Vec<_>>()) {
            return Err(format!("not the newest: {expected:?}"));
        }
        if is_steady && told.has_more != (wanted > limit) {
            return Err(format!("{wanted} are wanted"));
        }
        Ok(())
    };
    match wanted {
        Wanted::After(after) if recovered == Some(true) => {
            let missed = truth.log.places(channel, after + 1..told.up_to + 1);
            let is_first = told.places.first().is_none_or(|&first| first == missed.start);
            let is_all = count == missed.len();
            if !is_first || is_all == told.has_more || (!is_all && count < limit) {
                return Err(format!("not {missed:?}"));
            }
            Ok(())
        }
        Wanted::After(_) | Wanted::OtherEpoch | Wanted::Position => match count {
            0 => Ok(()),
            _ => Err("nothing was to be told".to_owned()),
        },
        Wanted::Last(max) => newest(
            max.min(all.end)
                .min(truth.plan.limits.recovery_publications_max as usize),
        ),
        Wanted::Since(unix_ms) if is_steady || recovered == Some(true) => {
            let expected = all.end - count..all.end;
            if told.places != expected.clone().collect::<Vec<_>>() {
                return Err(format!("not the newest: {expected:?}"));
            }
            match told.has_more || recovered == Some(false) {
                true => Ok(()),
                false => check_since(truth, channel, unix_ms, expected.start, clock_sets),
            }
        }
        Wanted::Since(_) => Ok(()),
    }
}

/// Checks that the publications of a channel from a place on can be those since a time, and that those before
/// it cannot.
///
/// # Errors
/// They cannot be.
pub(super) fn check_since(
    truth: &GroundTruth,
    channel: usize,
    unix_ms: u64,
    first: usize,
    clock_sets: u32,
) -> Result<(), String> {
    if clock_sets != truth.clock_sets {
        return Ok(());
    }
    let now = truth.time.peek();
    let age = Duration::from_millis(now.unix_ms.saturating_sub(unix_ms));
    let age_of = |entry: &Entry| now.uptime.since(entry.at);
    let (before, behind) = truth.log.of_channel(channel).split_at(first);
    if let Some(entry) = before.last()
        && age_of(entry) + CLOCK_ERROR < age
    {
        return Err(format!("{entry:?} is since {unix_ms}, now it is {now:?}"));
    }
    // The owner notes a publication when it reads it.
    if let Some(entry) = behind.first()
        && truth.still_for.is_zero()
        && age_of(entry) > age + LATE_MAX
        && unix_ms <= now.unix_ms
    {
        return Err(format!("{entry:?} is before {unix_ms}, now it is {now:?}"));
    }
    Ok(())
}

/// By how much the wall clock may differ from the times of a history, plus a reading of the clock in a turn.
const CLOCK_ERROR: Duration = Duration::from_millis(50);
/// After this time the owner of a channel has read a publication, unless it stands still.
const LATE_MAX: Duration = Duration::from_secs(1);
