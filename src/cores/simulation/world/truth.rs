//! The facts about a run by which clients judge what they receive.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::trace::Trace;
use crate::auth::Tokens;
use crate::clock::simulated::Time;
use crate::config::SlowConsumer;
use crate::cores::simulation::actor::AppLog;
use crate::cores::simulation::following::Recovered;
use crate::cores::simulation::lives::Lives;
use crate::cores::simulation::log::{Log, SHARED};
use crate::cores::simulation::plan::Plan;
use crate::cores::simulation::policies::{Memory, Wanted};
use crate::cores::simulation::random::Random;
use crate::cores::simulation::services::Calls;
use crate::cores::simulation::shares::Shares;
use crate::cores::simulation::webhooks::Events as WebhookEvents;
use crate::cores::simulation::wills::Wills;

/// The facts that clients need to judge what they receive.
#[derive(Debug)]
pub(in crate::cores::simulation) struct GroundTruth {
    pub(in crate::cores::simulation) random: Random,
    pub(in crate::cores::simulation) time: &'static Time,
    pub(in crate::cores::simulation) plan: Plan,
    pub(in crate::cores::simulation) log: Log,
    pub(in crate::cores::simulation) told: Rc<RefCell<AppLog>>,
    pub(in crate::cores::simulation) trace: Trace,
    /// Publications that have come to clients.
    pub(in crate::cores::simulation) deliveries: usize,
    /// The first place in the ring that some core has not delivered.
    pub(in crate::cores::simulation) undelivered: u64,
    /// Publications that certainly have not reached a subscriber.
    pub(in crate::cores::simulation) missing: usize,
    pub(in crate::cores::simulation) draining: bool,
    pub(in crate::cores::simulation) revoked: bool,
    /// Publications that came as replays, and recoveries in which some came.
    pub(in crate::cores::simulation) replayed: u64,
    pub(in crate::cores::simulation) recoveries: u64,
    /// Answers to `$history` with publications, and events of presence that have come.
    pub(in crate::cores::simulation) histories: u64,
    pub(in crate::cores::simulation) events: u64,
    /// How often the wall clock was set.
    pub(in crate::cores::simulation) clock_sets: u32,
    /// How long the clock was moved on while a core stood still.
    pub(in crate::cores::simulation) still_for: Duration,
    /// The epoch of positions, once a client knows it.
    pub(in crate::cores::simulation) epoch: Option<String>,
    /// The keys by which MQTT clients are known.
    pub(in crate::cores::simulation) tokens: Tokens,
    pub(in crate::cores::simulation) lives: Lives,
    pub(in crate::cores::simulation) wills: Wills,
    pub(in crate::cores::simulation) calls: Calls,
    /// How many infos clients have given themselves.
    pub(in crate::cores::simulation) infos: u64,
    /// The events that webhooks got.
    pub(in crate::cores::simulation) events_told: WebhookEvents,
    pub(in crate::cores::simulation) shares: Shares,
    /// Publications of MQTT clients that were acknowledged, each with the numbers under which it was sent.
    pub(in crate::cores::simulation) acknowledged: Vec<Vec<usize>>,
    /// Publications that have come to MQTT clients.
    pub(in crate::cores::simulation) device_deliveries: usize,
    /// Answers of MQTT about more than one filter.
    pub(in crate::cores::simulation) long_subacks: u64,
    /// The publications that certainly have not come to a session of MQTT, each with the client; without one, to the
    /// members of a group.
    pub(in crate::cores::simulation) device_missing: Vec<(usize, usize)>,
}

impl GroundTruth {
    pub(in crate::cores::simulation) fn note(&mut self, what: impl Into<String>) {
        let at = self.time.peek_ns() / 1000;
        self.trace.note(at, &what.into());
    }

    /// The offset of a position. All positions of a run have the same epoch.
    pub(in crate::cores::simulation) fn offset_of(&mut self, position: &Value) -> u64 {
        let (Some(epoch), Some(offset)) = (position["epoch"].as_str(), position["offset"].as_u64()) else {
            self.fail(&format!("no position: {position}"));
        };
        if self.epoch.get_or_insert_with(|| epoch.to_owned()) != epoch {
            self.fail(&format!("another epoch: {position}"));
        }
        offset
    }

    /// Whether each question to the owner of a channel has certainly been answered: an owner that stands
    /// still for long or has stopped answers none, and a client that has asked for nothing is not told.
    pub(in crate::cores::simulation) fn owners_answer(&self) -> bool {
        !self.draining && self.still_for < Duration::from_secs(4)
    }

    /// Whether a client may be told, for this reason, that it does not get everything that it wants.
    pub(in crate::cores::simulation) fn may_lack(
        &self,
        wanted: Wanted,
        told: Recovered,
        reason: Option<&str>,
    ) -> bool {
        let is_future = matches!(wanted, Wanted::After(after) if after > told.up_to);
        match reason {
            None => !is_future && wanted != Wanted::OtherEpoch,
            Some("unknown position") => is_future,
            Some("other epoch") => wanted == Wanted::OtherEpoch,
            Some("too many" | "unsubscribed" | "in progress") => true,
            // A core stood still.
            Some("no answer") => true,
            Some("evicted" | "expired" | "no history" | "policy changed") => self.plan.memory == Memory::Some,
            Some(_) => false,
        }
    }

    /// The fate of publications of a channel for a client that does not read. With a history, none is left
    /// out: the client gets them later, or its connection is closed.
    pub(in crate::cores::simulation) fn slow_consumer_of(&self, channel: usize) -> SlowConsumer {
        match self.plan.memory {
            Memory::Everything if channel < SHARED => SlowConsumer::Close,
            Memory::Everything | Memory::Some | Memory::Nothing => self.plan.slow_consumer,
        }
    }

    /// Ends the run: a check has failed.
    pub(in crate::cores::simulation) fn fail(&self, what: &str) -> ! {
        panic!("{what}\nin a run with {:?}", self.plan);
    }

    pub(in crate::cores::simulation) fn expect(&self, client: usize, when: &str, result: Result<(), String>) {
        if let Err(error) = result {
            self.fail(&format!("client {client}, {when}: {error}"));
        }
    }

    /// Takes the events that the application was told in a turn, and the new publications.
    pub(super) fn take_app_log(&mut self) {
        let lives = std::mem::take(&mut self.told.borrow_mut().lives);
        for event in lives {
            self.trace.mix(event.connection as u64);
            let result = self.lives.take(event);
            self.expect_of("an MQTT connection", result);
        }
        let ends = std::mem::take(&mut self.told.borrow_mut().ends);
        for (id, end) in ends {
            self.wills.end(&id, end);
        }
        let at = self.told.borrow().turn.now;
        match self.log.read(at) {
            Ok(wills) => {
                let now = self.time.peek().uptime;
                for will in wills {
                    let is_retained = self.log.entry(will).is_some_and(|(_, entry)| entry.retain);
                    let result = match self.wills.has(will) {
                        true => self.wills.note_published(will, is_retained, now),
                        false => self.lives.note_will(will, now),
                    };
                    self.expect_of("a will", result);
                }
            }
            Err(error) => self.fail(&format!("{error}, {:?}", self.lives)),
        }
    }

    pub(in crate::cores::simulation) fn expect_of(&self, what: &str, result: Result<(), String>) {
        if let Err(error) = result {
            self.fail(&format!("{what}: {error}"));
        }
    }

    pub(in crate::cores::simulation) fn expect_of_core(&self, core: usize, result: Result<(), String>) {
        if let Err(error) = result {
            self.fail(&format!("core {core}: {error}"));
        }
    }
}
