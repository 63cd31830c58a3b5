//! The client as a caller of procedures, and as a service: it registers patterns, gets calls, and answers
//! them at once, late, twice, under ids that it was not given, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::Client;
use crate::clock::Uptime;
use crate::cores::simulation::services::{Kind, PATTERNS, PROCEDURES, covers};
use crate::cores::simulation::world::GroundTruth;

/// A client's calls, and its patterns and calls as a service.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Whether it has called or served something.
    pub(super) is_used: bool,
    /// Its calls that have not ended.
    calls: BTreeMap<u64, OpenCall>,
    /// Its calls of `$serve` and `$unserve` that are not answered.
    asked: BTreeMap<u64, Asked>,
    /// The patterns that it serves.
    patterns: BTreeMap<&'static str, Serving>,
    /// The calls that it has got and not answered, by their ids.
    given: BTreeMap<u64, Given>,
    last_given: u64,
}

#[derive(Debug)]
struct OpenCall {
    number: usize,
    /// By this time the server has read it.
    known_at: Option<Uptime>,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Serve(&'static str, u32),
    Unserve(&'static str),
}

/// A pattern that it serves or has asked to serve.
#[derive(Debug, Default)]
struct Serving {
    /// The window that the server has confirmed.
    confirmed: Option<u32>,
    /// The windows that it has requested since then.
    asked: Vec<u32>,
}

#[derive(Debug)]
struct Given {
    number: usize,
    name: &'static str,
    /// When `$cancel` was sent, at the earliest.
    cancelled: Option<Uptime>,
    /// A registration that has ended has given the call: no window counts it.
    is_of_former: bool,
}

impl Serving {
    /// The most calls that the server may give for the pattern.
    fn window(&self) -> u32 {
        self.confirmed
            .into_iter()
            .chain(self.asked.iter().copied())
            .max()
            .unwrap_or(0)
    }
}

impl Client {
    /// Asks to serve a pattern.
    pub(in crate::cores::simulation) fn serve(&mut self, truth: &mut GroundTruth) {
        let pattern = truth.random.of(&PATTERNS);
        let (weight, window) = (truth.random.of(&[1, 1, 3]), truth.random.of(&[1, 1, 2, 5]));
        let cid = self.next_service_cid();
        self.services.asked.insert(cid, Asked::Serve(pattern, window));
        self.services
            .patterns
            .entry(pattern)
            .or_default()
            .asked
            .push(window);
        let data = json!({"procedure": pattern, "weight": weight, "window": window});
        self.queue_text(
            truth,
            &json!({"event": "$serve", "data": data, "cid": cid}).to_string(),
        );
    }

    /// Gives a pattern up, whether it serves it or not.
    pub(in crate::cores::simulation) fn unserve(&mut self, truth: &mut GroundTruth) {
        let pattern = truth.random.of(&PATTERNS);
        let cid = self.next_service_cid();
        self.services.asked.insert(cid, Asked::Unserve(pattern));
        truth.calls.note_given_up(self.index, pattern);
        let data = json!({"procedure": pattern});
        self.queue_text(
            truth,
            &json!({"event": "$unserve", "data": data, "cid": cid}).to_string(),
        );
    }

    /// Calls procedures, each in a message of its own or all in an array.
    pub(in crate::cores::simulation) fn call_services(&mut self, truth: &mut GroundTruth, count: usize) {
        let Some(session) = self.session.clone() else {
            return;
        };
        let now = truth.time.peek().uptime;
        let packets: Vec<String> = (0..count)
            .map(|_| {
                let (name, cid) = (truth.random.of(&PROCEDURES), self.next_service_cid());
                let number = truth.calls.begin(&session, name, Kind::Call, now);
                let call = OpenCall {
                    number,
                    known_at: None,
                };
                self.services.calls.insert(cid, call);
                let data = data_of(truth, number);
                json!({"event": name, "data": data, "cid": cid}).to_string()
            })
            .collect();
        if truth.random.chance(1, 2) {
            self.queue_text(truth, &format!("[{}]", packets.join(",")));
        } else {
            for packet in packets {
                self.queue_text(truth, &packet);
            }
        }
    }

    /// Sends an event, which a service may get.
    pub(in crate::cores::simulation) fn send_event(&mut self, truth: &mut GroundTruth) {
        let Some(session) = self.session.clone() else {
            return;
        };
        self.services.is_used = true;
        let (name, now) = (truth.random.of(&PROCEDURES), truth.time.peek().uptime);
        let number = truth.calls.begin(&session, name, Kind::Event, now);
        let data = data_of(truth, number);
        self.queue_text(truth, &json!({"event": name, "data": data}).to_string());
    }

    /// Answers one of the calls that it has got, if there is one.
    pub(in crate::cores::simulation) fn answer_one(&mut self, truth: &mut GroundTruth) {
        let all: Vec<u64> = self.services.given.keys().copied().collect();
        if !all.is_empty() {
            let cid = truth.random.of(&all);
            self.answer_call(truth, cid);
        }
    }

    /// Answers a call that it has not got, or has answered already.
    pub(in crate::cores::simulation) fn lie(&mut self, truth: &mut GroundTruth) {
        let old = 1 + truth
            .random
            .below(usize::try_from(self.services.last_given).unwrap_or(0)) as u64;
        let rid = match self.services.given.contains_key(&old) || old > self.services.last_given {
            true => 1_000_000 + old,
            false => old,
        };
        self.queue_text(truth, &json!({"rid": rid, "data": "a lie"}).to_string());
    }

    fn answer_call(&mut self, truth: &mut GroundTruth, cid: u64) {
        let Some(given) = self.services.given.remove(&cid) else {
            return;
        };
        let number = given.number;
        let answer = match truth.random.below(5) {
            0 => json!({}),
            1 => json!({"error": {"name": "OwnError", "message": format!("{number}")}}),
            _ => json!({"data": data_of(truth, number)}),
        };
        truth.calls.note_answer(number, answer.clone());
        let mut packet = answer;
        packet["rid"] = json!(cid);
        self.queue_text(truth, &packet.to_string());
        if truth.random.chance(1, 6) {
            self.queue_text(truth, &json!({"rid": cid, "data": "once more"}).to_string());
        }
    }

    fn next_service_cid(&mut self) -> u64 {
        self.services.is_used = true;
        self.next_cid += 1;
        self.next_cid - 1
    }

    /// Takes an answer to a call of a service, or of `$serve` or `$unserve`; false if it answers another
    /// call.
    pub(super) fn take_service_answer(&mut self, truth: &mut GroundTruth, rid: u64, packet: &Value) -> bool {
        if let Some(call) = self.services.calls.remove(&rid) {
            let result = truth.call_has_ended(call.number, packet);
            truth.expect(self.index, "as a caller", result);
            return true;
        }
        let result = match self.services.asked.remove(&rid) {
            Some(Asked::Serve(pattern, window)) => self.serve_answered(truth, pattern, window, packet),
            Some(Asked::Unserve(pattern)) => self.unserve_answered(pattern, packet),
            None => return false,
        };
        truth.expect(self.index, "as a service", result);
        true
    }

    fn serve_answered(
        &mut self,
        truth: &mut GroundTruth,
        pattern: &'static str,
        window: u32,
        packet: &Value,
    ) -> Result<(), String> {
        let serving = self.services.patterns.entry(pattern).or_default();
        let place = serving.asked.iter().position(|&asked| asked == window);
        let place = place.ok_or("a `$serve` was answered twice")?;
        let is_told = packet["data"]["window"]
            .as_u64()
            .and_then(|told| u32::try_from(told).ok());
        // The answer has the window in force: the one of this request, or of a later one.
        let is_right = is_told.is_some_and(|told| serving.asked[place..].contains(&told));
        serving.asked.remove(place);
        let is_given_up = self
            .services
            .asked
            .values()
            .any(|asked| matches!(asked, Asked::Unserve(other) if *other == pattern));
        if packet["error"].is_null() {
            if !is_right || packet["data"]["procedure"] != pattern {
                return Err(format!("{packet} answers `$serve` of {pattern} with {window}"));
            }
            serving.confirmed = is_told;
            if let (Some(session), false) = (&self.session, is_given_up) {
                truth
                    .calls
                    .note_served(self.index, pattern, session, self.user.is_some());
            }
            return Ok(());
        }
        let is_permitted = match packet["error"]["name"].as_str() {
            Some("LimitError") => is_given_up || truth.plan.services_are_few(),
            Some(_) | None => truth.calls.rules_changed,
        };
        match is_permitted {
            true => Ok(()),
            false => Err(format!("`$serve` of {pattern} was answered {packet}")),
        }
    }

    fn unserve_answered(&mut self, pattern: &'static str, packet: &Value) -> Result<(), String> {
        if !packet["error"].is_null() {
            return Err(format!("`$unserve` of {pattern} was answered {packet}"));
        }
        self.no_longer_serves(pattern);
        Ok(())
    }

    fn no_longer_serves(&mut self, pattern: &'static str) {
        if let Some(serving) = self.services.patterns.get_mut(pattern) {
            serving.confirmed = None;
        }
        for given in self.services.given.values_mut() {
            given.is_of_former |= covers(pattern, given.name);
        }
    }

    /// The rules do not allow it to serve a pattern any more.
    pub(super) fn take_unserved(&mut self, truth: &mut GroundTruth, packet: &Value) {
        let pattern = PATTERNS
            .into_iter()
            .find(|&pattern| packet["data"]["procedure"] == pattern);
        match pattern {
            Some(pattern) if truth.calls.rules_changed => {
                truth.calls.note_given_up(self.index, pattern);
                self.no_longer_serves(pattern);
            }
            Some(_) | None => truth.fail(&format!("client {}: {packet}", self.index)),
        }
    }

    /// The caller no longer waits for its answer to a call.
    pub(super) fn take_cancel(&mut self, truth: &mut GroundTruth, packet: &Value) {
        let cid = packet["data"]["rid"].as_u64().unwrap_or(u64::MAX);
        let result = match self.services.given.get_mut(&cid) {
            Some(given) if given.cancelled.is_none() => truth
                .call_is_cancelled(given.number)
                .map(|since| given.cancelled = Some(since)),
            Some(given) => Err(format!("{given:?} is cancelled twice")),
            // It has answered meanwhile.
            None if cid <= self.services.last_given => Ok(()),
            None => Err(format!("{packet} cancels what was never given")),
        };
        truth.expect(self.index, "as a service", result);
    }

    /// Takes a call or an event that it gets as a service; false if the packet is neither.
    pub(super) fn take_call(&mut self, truth: &mut GroundTruth, packet: &Value) -> bool {
        let name = PROCEDURES.into_iter().find(|&name| packet["event"] == name);
        let (Some(name), Some(session)) = (name, &self.session) else {
            return false;
        };
        let number = packet["data"]["data"]["number"].as_u64();
        let number = number
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(usize::MAX);
        let result = truth.calls.give(number, session, packet);
        truth.expect(self.index, "as a service", result);
        truth.trace.mix(number as u64);
        let now = truth.time.peek().uptime;
        let result = self.check_windows(truth, name, packet["cid"].is_null(), now);
        truth.expect(self.index, "as a service", result);
        if let Some(cid) = packet["cid"].as_u64() {
            self.services.last_given = self.services.last_given.max(cid);
            let given = Given {
                number,
                name,
                cancelled: None,
                is_of_former: false,
            };
            if self.services.given.insert(cid, given).is_some() {
                truth.fail(&format!("client {}: the id of {packet} is taken", self.index));
            }
            if self.may_send() && truth.random.chance(1, 2) {
                self.answer_call(truth, cid);
            }
        }
        true
    }

    /// Whether the windows of the client have room for one more call. A cancelled call counts until the
    /// client answers it, or has had time to answer.
    fn check_windows(
        &self,
        truth: &GroundTruth,
        name: &str,
        is_event: bool,
        now: Uptime,
    ) -> Result<(), String> {
        let cancel_time = truth.plan.limits.service_cancel_time;
        let counts = |given: &&Given| {
            let is_over = given
                .cancelled
                .is_some_and(|since| since + cancel_time <= now + CANCEL_EARLY_MAX);
            !given.is_of_former && !is_over
        };
        let window = |patterns: &dyn Fn(&str) -> bool| -> usize {
            let served = self
                .services
                .patterns
                .iter()
                .filter(|(pattern, _)| patterns(pattern));
            served.map(|(_, serving)| serving.window() as usize).sum()
        };
        let given = || self.services.given.values().filter(counts);
        let count = |name: &str| given().filter(|given| given.name == name).count();
        let window_of = |name: &str| window(&|pattern| covers(pattern, name));
        // A service that registers a pattern again with a smaller window may have more calls than that.
        let names: BTreeSet<&str> = given().map(|given| given.name).collect();
        let of_all: usize = names
            .into_iter()
            .map(|name| count(name).min(window_of(name)))
            .sum();
        let has_room = match is_event {
            true => window_of(name) > 0,
            false => count(name) < window_of(name) && of_all < window(&|_| true),
        };
        match has_room {
            true => Ok(()),
            false => Err(format!(
                "{name} comes, and its windows are full: {:?}",
                self.services
            )),
        }
    }

    /// Nothing is on its way: `$serve` is answered, and a call is answered by now or at its deadline.
    ///
    /// # Errors
    /// An answer is missing.
    pub(in crate::cores::simulation) fn check_calls_at_rest(
        &mut self,
        truth: &GroundTruth,
    ) -> Result<(), String> {
        let limits = &truth.plan.limits;
        let is_limited = limits.messages_per_second_max > 0 || limits.bytes_per_second_max > 0;
        if !self.is_quiet() || is_limited || truth.draining {
            return Ok(());
        }
        if !self.services.asked.is_empty() {
            return Err(format!("{:?} are not answered", self.services.asked));
        }
        let now = truth.time.peek().uptime;
        for call in self.services.calls.values_mut() {
            let known_at = *call.known_at.get_or_insert(now);
            if now > known_at + truth.plan.call_timeout + CALL_LATE_MAX {
                return Err(format!("{call:?} has not ended"));
            }
        }
        Ok(())
    }
}

/// The data of a call or an answer.
fn data_of(truth: &mut GroundTruth, number: usize) -> Value {
    let padding = "s".repeat(truth.random.below(truth.plan.padding_max));
    json!({"number": number, "padding": padding})
}

/// How late the deadline of a call may be noticed at rest.
const CALL_LATE_MAX: Duration = Duration::from_millis(60);
/// The time of a turn is that of its beginning, which is a little earlier than its actions.
const CANCEL_EARLY_MAX: Duration = Duration::from_millis(6);
