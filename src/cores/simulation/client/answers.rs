//! Messages to a client: answers to its calls, and publications.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Client;
use super::calls::{Asked, Call};
use super::history::check_since;
use crate::config::SlowConsumer;
use crate::cores::simulation::following::{Following, Recovered};
use crate::cores::simulation::log::{self, PRESENCE, channel_name, number_in};
use crate::cores::simulation::policies::{Memory, Wanted};
use crate::cores::simulation::world::GroundTruth;

impl Client {
    pub(super) fn take_reply(&mut self, truth: &mut GroundTruth, rid: u64, packet: &Value) {
        truth.trace.mix(rid);
        if self.late.remove(&rid) || self.take_service_answer(truth, rid, packet) {
            return;
        }
        let at = self.calls.iter().position(|call| call.cid == rid);
        let is_next = |at: &usize| self.calls.iter().take(*at).all(|call| call.may_be_late(truth));
        let Some(call) = at.filter(is_next).and_then(|at| self.calls.remove(at)) else {
            truth.fail(&format!(
                "client {}: a reply to {rid}, and the next is {:?}",
                self.index,
                self.calls.front()
            ));
        };
        let earliest = call.earliest.unwrap_or_else(|| {
            truth.fail(&format!(
                "client {}: {rid} was answered before it was sent",
                self.index
            ))
        });
        let is_error = !packet["error"].is_null();
        let may = match call.asked {
            Asked::Handshake => {
                self.session = packet["data"]["id"].as_str().map(str::to_owned);
                self.opened_at = Some(truth.time.peek().uptime);
                if packet["data"]["isAuthenticated"] != true {
                    self.user = None;
                }
                self.begin_wills(truth);
                self.session.is_some() && !is_error
            }
            Asked::Subscribe(channel) => self.subscribed(truth, channel, &call, earliest, is_error),
            Asked::Recover(channel, wanted) => {
                self.recovered(truth, channel, wanted, &call, earliest, packet)
            }
            Asked::Unsubscribe(channel) => self.unsubscribed(truth, channel, earliest, is_error),
            Asked::Publish(channel) => {
                self.published(truth, channel, earliest);
                !is_error
            }
            Asked::History(channel, wanted, limit) => {
                self.history_read(truth, (channel, wanted, limit), &call, earliest, packet)
            }
            Asked::Members(channel) => match self.members_told(channel, packet) {
                Ok(may) => may,
                Err(error) => truth.fail(&format!("client {}: {error}: {packet}", self.index)),
            },
            Asked::Info(_) => {
                let error = packet["error"]["name"].as_str();
                let has_room = truth.plan.has_room_for_members();
                self.info_answered(rid, error.or_else(|| is_error.then_some("")), has_room)
            }
            Asked::Will(..) => {
                let now = truth.time.peek().uptime;
                truth.wills.answer(self.index, rid, is_error, now);
                // The will may find no room, here or in the box of the owner of its session.
                !is_error || packet["error"]["name"] == "WillsFullError"
            }
            Asked::TakeWillBack => {
                let now = truth.time.peek().uptime;
                truth.wills.answer(self.index, rid, is_error, now);
                !is_error
            }
            Asked::Forbidden => is_error,
            Asked::Call | Asked::Much(_) | Asked::KickMe(_) | Asked::KickMeOutOfAll | Asked::SendMeAway => {
                !is_error || truth.plan.limits.client_calls_max < 1000
            }
        };
        if !may {
            truth.fail(&format!("client {}: {call:?} was answered {packet}", self.index));
        }
    }

    fn subscribed(
        &mut self,
        truth: &GroundTruth,
        channel: usize,
        call: &Call,
        earliest: u64,
        is_error: bool,
    ) -> bool {
        let is_full = self.is_full(truth, call);
        if is_error {
            return is_full;
        }
        let answered = truth.log.claimed();
        self.watch(channel, true);
        if truth.plan.memory.is_some() && channel < PRESENCE {
            // A subscription that is there already goes on, and one that has not been answered begins with its answer.
            if self.is_subscribing_before(call, channel) {
                return true;
            }
            let following = Following::new(channel, earliest, answered, true);
            let asks_retained = matches!(call.asked, Asked::Recover(_, Wanted::Last(1..)));
            let following = match truth.plan.mqtt && asks_retained {
                true => following.with_retained(),
                false => following,
            };
            self.following.entry(channel).or_insert(following);
            return true;
        }
        self.following
            .entry(channel)
            .or_insert_with(|| Following::new(channel, earliest, answered, false));
        !is_full
    }

    /// Whether it had as many subscriptions as it may have when this call was handled.
    fn is_full(&self, truth: &GroundTruth, call: &Call) -> bool {
        let mut channels: BTreeSet<usize> = self.following.keys().copied().collect();
        let before = self.calls.iter().filter(|other| other.cid < call.cid);
        channels.extend(before.filter_map(|other| other.subscribes_to()));
        channels.len() >= truth.plan.limits.channels_per_connection_max as usize
    }

    /// Whether a subscription to the channel has not been answered.
    pub(super) fn is_subscribing(&self, channel: usize) -> bool {
        self.calls
            .iter()
            .any(|call| call.subscribes_to() == Some(channel))
    }

    /// Whether an earlier subscription to the channel than this one has not been answered.
    fn is_subscribing_before(&self, call: &Call, channel: usize) -> bool {
        let mut before = self.calls.iter().filter(|other| other.cid < call.cid);
        before.any(|other| other.subscribes_to() == Some(channel))
    }

    /// The subscription to a channel, if all that is published must reach it at once.
    pub(super) fn live(&self, channel: usize, truth: &GroundTruth) -> Option<&Following> {
        let following = self.following.get(&channel)?;
        let is_live = !truth.plan.memory.is_some() || channel >= PRESENCE || following.is_live();
        (is_live && !self.is_subscribing(channel)).then_some(following)
    }

    /// The answer to a subscription that wants something of the past.
    fn recovered(
        &mut self,
        truth: &mut GroundTruth,
        channel: usize,
        wanted: Wanted,
        call: &Call,
        earliest: u64,
        packet: &Value,
    ) -> bool {
        let data = &packet["data"];
        let Some(is_whole) = data["recovered"].as_bool() else {
            // The channel has no history by now, or the subscription is refused.
            let is_error = !packet["error"].is_null();
            return (is_error || truth.plan.memory == Memory::Some)
                && self.subscribed(truth, channel, call, earliest, is_error);
        };
        let told = Recovered {
            up_to: truth.offset_of(&data["position"]),
            publications: data["publications"]
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(0),
        };
        if told.up_to + 1 < earliest || told.up_to >= truth.log.claimed() {
            return false;
        }
        truth.recoveries += u64::from(is_whole && told.publications > 0);
        let reason = data["reason"].as_str();
        if is_whole != reason.is_none() || !truth.may_lack(wanted, told, reason) {
            return false;
        }
        if reason == Some("in progress") {
            // The earlier subscription is answered later, or was answered, and its part of the past is on its
            // way.
            let is_live = self.following.get(&channel).is_none_or(Following::is_live);
            let may_catch_up = truth.plan.slow_consumer != SlowConsumer::Close;
            return self.is_subscribing_before(call, channel) || !is_live || may_catch_up;
        }
        if reason == Some("unsubscribed") {
            self.following.insert(channel, Following::ended(channel));
            return true;
        }
        if let Wanted::Since(unix_ms) = wanted
            && is_whole
        {
            let end = truth.log.places(channel, 0..told.up_to + 1).end;
            let first = end.saturating_sub(told.publications);
            let result = check_since(truth, channel, unix_ms, first, call.clock_sets);
            truth.expect(self.index, "by the answer to its subscription", result);
        }
        let log = &truth.log;
        let following = match wanted {
            Wanted::After(after) if is_whole => Following::recovered(channel, after, told, log),
            Wanted::Last(max) if told.publications > max => return false,
            Wanted::After(_) | Wanted::OtherEpoch if told.publications > 0 => return false,
            Wanted::Position if told.publications > 1 => return false,
            Wanted::After(_) | Wanted::OtherEpoch | Wanted::Position | Wanted::Last(_) | Wanted::Since(_) => {
                Following::with_newest(channel, told, truth.plan.memory == Memory::Everything, log)
            }
        };
        match following {
            Ok(following) => {
                self.following.insert(channel, following);
                true
            }
            Err(error) => truth.fail(&format!("client {}: {call:?}: {error}", self.index)),
        }
    }

    fn unsubscribed(&mut self, truth: &GroundTruth, channel: usize, earliest: u64, is_error: bool) -> bool {
        if truth.plan.slow_consumer == SlowConsumer::Close
            && let Some(following) = self.live(channel, truth)
        {
            let all = following.expect_until(earliest, &truth.log, SlowConsumer::Close);
            truth.expect(self.index, "at the end of a subscription", all);
        }
        self.watch(channel, false);
        self.infos.note_change(channel);
        self.following.remove(&channel).is_some() != is_error
    }

    /// The client's own publication reaches it before the answer, and lies in the ring.
    fn published(&self, truth: &GroundTruth, channel: usize, earliest: u64) {
        if truth.plan.slow_consumer == SlowConsumer::Close
            && let Some(following) = self.live(channel, truth)
        {
            // Its own publication lies at `note_read_at` or behind it; at least everything before must have come.
            let all = following.expect_until(earliest, &truth.log, SlowConsumer::Close);
            truth.expect(self.index, "before it is told that it has published", all);
        }
    }

    pub(super) fn take_publication(&mut self, truth: &mut GroundTruth, text: &str, packet: &Value) {
        if truth.plan.mqtt && packet["data"]["data"].is_null() {
            // An MQTT client has cleared the retained publication.
            return;
        }
        let channel = channel_of(&packet["data"]["channel"]);
        let number = match channel {
            Some(channel) if channel >= PRESENCE => {
                self.event_number(truth, channel, &packet["data"]["data"])
            }
            _ => number_in(text),
        };
        let (Some(channel), Some(number)) = (channel, number) else {
            truth.fail(&format!("client {}: {text}", self.index));
        };
        truth.trace.mix(number as u64);
        truth.deliveries += 1;
        let policy = truth.plan.slow_consumer;
        let Some(following) = self.following.get_mut(&channel) else {
            truth.fail(&format!(
                "client {}: publication {number} of {}, to which it is not subscribed",
                self.index,
                channel_name(channel)
            ));
        };
        if !packet["data"]["position"].is_null() {
            let offset = truth.offset_of(&packet["data"]["position"]);
            if truth
                .log
                .entry(number)
                .is_none_or(|(_, entry)| entry.sequence != offset)
            {
                truth.fail(&format!("client {}: {text} has a wrong position", self.index));
            }
        } else if truth.plan.memory == Memory::Everything && channel < PRESENCE {
            truth.fail(&format!("client {}: {text} has no position", self.index));
        }
        let is_replayed = packet["data"]["replayed"] == true;
        truth.replayed += u64::from(is_replayed);
        let of_channel = truth.slow_consumer_of(channel);
        match following.take(number, is_replayed, &truth.log, policy, of_channel) {
            Ok(missing) => truth.missing += missing,
            Err(error) => truth.fail(&format!("client {}: {error}", self.index)),
        }
        if channel >= PRESENCE {
            truth.events += 1;
            let result = self.take_event(channel, &packet["data"]["data"]);
            truth.expect(self.index, "by an event", result);
        }
        if policy != SlowConsumer::Conflate
            && !truth.plan.memory.is_some()
            && let Some((_, entry)) = truth.log.entry(number)
        {
            if entry.sequence <= self.last_sequence {
                truth.fail(&format!("client {}: {number} overtook another", self.index));
            }
            self.last_sequence = entry.sequence;
        }
    }
}

impl Client {
    /// The event of presence that has come: the first one with such data that may come.
    fn event_number(&self, truth: &GroundTruth, channel: usize, data: &Value) -> Option<usize> {
        let following = self.following.get(&channel)?;
        truth
            .log
            .event(channel, following.first_possible(&truth.log), data)
    }

    fn begin_wills(&self, truth: &mut GroundTruth) {
        if let Some(id) = &self.session {
            let end = truth.told.borrow().sessions.get(id).and_then(|one| one.end);
            truth.wills.begin(self.index, id, end);
        }
    }
}

pub(super) fn channel_of(name: &Value) -> Option<usize> {
    log::channel_of(name.as_str()?)
}
