//! The right outcomes of the calls of services. Clients register patterns, call procedures that others serve,
//! and answer in any way (`client/services.rs`). For each call, this file knows the service that has got it,
//! the first answer of that service, and the reasons why its caller may be told that it has failed
//! (`docs/services.md`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::world::GroundTruth;
use crate::clock::Uptime;

/// All calls and events of a run, by their numbers, which stand in their data.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    /// The patterns that all cores know, by the client that serves them.
    served: BTreeMap<(usize, &'static str), Served>,
    /// Whether rules have changed: they may forbid to serve.
    pub(super) rules_changed: bool,
    /// Calls that services have answered, that have failed, and that were cancelled.
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
}

#[derive(Debug)]
struct Call {
    /// The session of its caller.
    caller: String,
    name: &'static str,
    kind: Kind,
    asked: Uptime,
    /// The session of the service that has got it.
    given_to: Option<String>,
    /// The first answer of that service, without the id of the call.
    answer: Option<Value>,
    /// Its caller was told that there is no service for it.
    is_refused: bool,
}

/// The service of a pattern.
#[derive(Debug)]
struct Served {
    session: String,
    /// How many calls had begun before all cores knew it.
    begun: usize,
    /// Whether all rules of the run allow it. Otherwise a change of the rules may have taken it away, and the
    /// client is told later.
    is_always_allowed: bool,
}

/// Whether an answer is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Event,
}

/// The procedures that clients call.
pub(super) const PROCEDURES: [&str; 2] = ["p/0", "p/1"];
/// The patterns that services register.
pub(super) const PATTERNS: [&str; 3] = ["p/0", "p/1", "p/*"];

/// Whether a pattern is about a procedure.
pub(super) fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

impl Calls {
    /// A client is about to call a procedure. Returns the number of the call.
    pub(super) fn begin(&mut self, caller: &str, name: &'static str, kind: Kind, now: Uptime) -> usize {
        self.calls.push(Call {
            caller: caller.to_owned(),
            name,
            kind,
            asked: now,
            given_to: None,
            answer: None,
            is_refused: false,
        });
        self.calls.len() - 1
    }

    /// A service has got a call.
    ///
    /// # Errors
    /// It must not: another service has got it, it is another call, or its caller is another one.
    pub(super) fn give(&mut self, number: usize, service: &str, packet: &Value) -> Result<(), String> {
        let call = self.calls.get_mut(number).ok_or("nobody has called")?;
        let kind = match packet["cid"].is_null() {
            true => Kind::Event,
            false => Kind::Call,
        };
        if packet["event"] != call.name || packet["data"]["caller"]["id"] != *call.caller || kind != call.kind
        {
            return Err(format!("{packet} is to be {call:?}"));
        }
        if call.given_to.is_some() || call.is_refused {
            return Err(format!("{service} gets {number}: {call:?}"));
        }
        call.given_to = Some(service.to_owned());
        Ok(())
    }

    /// A service answers a call that it has got.
    pub(super) fn note_answer(&mut self, number: usize, answer: Value) {
        self.calls[number].answer.get_or_insert(answer);
    }

    /// All cores know that a client serves a pattern.
    pub(super) fn note_served(
        &mut self,
        client: usize,
        pattern: &'static str,
        session: &str,
        is_always_allowed: bool,
    ) {
        let begun = self.calls.len();
        let place = self.served.entry((client, pattern));
        place.or_insert_with(|| Served {
            session: session.to_owned(),
            begun,
            is_always_allowed,
        });
    }

    /// Whether some client is known to serve something.
    pub(super) fn has_any_service(&self) -> bool {
        !self.served.is_empty()
    }

    /// A client gives a pattern up, or it is taken away.
    pub(super) fn note_given_up(&mut self, client: usize, pattern: &'static str) {
        self.served.remove(&(client, pattern));
    }
}

impl GroundTruth {
    /// A client is told the end of its call.
    ///
    /// # Errors
    /// It must not end so.
    pub(super) fn call_has_ended(&mut self, number: usize, packet: &Value) -> Result<(), String> {
        let call = &self.calls.calls[number];
        let what = |why: &str| Err(format!("{call:?} ends with {packet}: {why}"));
        let now = self.time.peek().uptime;
        let (mut is_answer, mut is_refused) = (false, false);
        match packet["error"]["name"].as_str() {
            Some("ServiceGoneError") => {
                if !self.draining && !self.may_be_gone(call) {
                    return what("its service has not gone");
                }
            }
            Some("TimeoutError") => {
                if now + TOLERANCE < call.asked + self.plan.call_timeout {
                    return what("it is early");
                }
            }
            Some("NoServiceError") => {
                is_refused = true;
                if !self.draining && self.has_service(number) {
                    return what("there is a service");
                }
            }
            Some("ServiceBusyError") => {
                is_refused = true;
                if !self.plan.services_may_be_busy() {
                    return what("nothing is scarce");
                }
            }
            Some("InvalidActionError") if self.plan.limits.client_calls_max < 1000 => is_refused = true,
            Some(_) | None => {
                is_answer = true;
                let mut answer = packet.clone();
                answer.as_object_mut().map(|members| members.remove("rid"));
                if call.answer.as_ref() != Some(&answer) {
                    return what("that is not the first answer of its service");
                }
            }
        }
        if is_refused && call.given_to.is_some() {
            return what("a service has got it");
        }
        self.calls.calls[number].is_refused = is_refused;
        match is_answer {
            true => self.calls.answered += 1,
            false => self.calls.failed += 1,
        }
        Ok(())
    }

    /// Whether the service of a call may have ended before its answer.
    fn may_be_gone(&self, call: &Call) -> bool {
        let told = self.told.borrow();
        match &call.given_to {
            Some(service) => told.sessions.get(service).is_none_or(|one| one.end.is_some()),
            // The service ended before it had read the call.
            None => told.sessions.values().any(|session| {
                session
                    .end
                    .is_some_and(|end| end.turn.now + TOLERANCE >= call.asked)
            }),
        }
    }

    /// Whether a client has certainly served the procedure since before the call.
    fn has_service(&self, number: usize) -> bool {
        let (call, told) = (&self.calls.calls[number], self.told.borrow());
        let mut served = self.calls.served.iter();
        served.any(|((_, pattern), served)| {
            let session = told.sessions.get(&served.session);
            covers(pattern, call.name)
                && served.begun <= number
                && session.is_some_and(|one| one.end.is_none())
                && (served.is_always_allowed || !self.calls.rules_changed)
        })
    }

    /// A service is told that the caller no longer waits for its answer. Returns the earliest time at which
    /// that can be so.
    ///
    /// # Errors
    /// The caller still waits.
    pub(super) fn call_is_cancelled(&mut self, number: usize) -> Result<Uptime, String> {
        let call = &self.calls.calls[number];
        let told = self.told.borrow();
        let caller = told.sessions.get(&call.caller);
        let gone_at = caller.and_then(|one| one.end).map(|end| end.turn.now);
        let due = call.asked + self.plan.call_timeout;
        let is_due = due <= self.time.peek().uptime + TOLERANCE;
        let since = gone_at.into_iter().chain(is_due.then_some(due)).min();
        let since = since.ok_or_else(|| format!("{call:?} is cancelled, and its caller waits"))?;
        drop(told);
        self.calls.cancelled += 1;
        Ok(since)
    }
}

/// The time of a turn is that of its beginning, which is a little earlier than its actions.
const TOLERANCE: Duration = Duration::from_millis(6);
