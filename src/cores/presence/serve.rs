//! The work of presence in a turn: as the owner of channels, and as a core that tells owners about its
//! clients.
//!
//! Limits: [`EFFORT_PER_TURN_MAX`], [`EVENTS_PER_TURN_MAX`], [`CHANGES_PER_TURN_MAX`],
//! [`GRACES_PER_TURN_MAX`]. The rest is done in the next turns.

use std::time::Duration;

use crate::app::App;
use crate::broker::{Marks, RingFull};
use crate::clock::Uptime;
use crate::decision::{Decision, Limit};
use crate::policy::channels::PRESENCE_PREFIX;
use crate::presence::Answered;
use crate::protocols;
use crate::session;

use crate::cores::core::Core;
use crate::cores::post::letter::Letter;
use crate::cores::presence::state::Batch;

/// Whether the ring had room for the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Events {
    Published,
    NoRoom,
}

impl<A: App> Core<A> {
    /// Does the work that is due about presence.
    #[inline]
    pub(in crate::cores) fn serve_presence(&mut self) {
        if self.presence.due <= self.time.now().uptime {
            self.serve_due_presence();
        }
    }

    #[cold]
    fn serve_due_presence(&mut self) {
        let now = self.time.now().uptime;
        if self.presence.memberships.has_work() && !self.presence.memberships.is_congested() {
            self.rename_some_members();
            self.review_presence();
        }
        if self.presence.mqtt.has_work() && !self.presence.memberships.is_congested() {
            self.review_mqtt_rooms();
        }
        self.tell_owners();
        self.handle_room_messages();
        self.end_overdue_calls();
        self.presence.rooms.end_graces(now, GRACES_PER_TURN_MAX);
        self.retry_refused(now);
        let events = self.publish_presence_events();
        self.count_presence();
        self.presence.due = self.next_presence(now, events);
    }

    /// When the core has to look at presence again.
    fn next_presence(&self, now: Uptime, events: Events) -> Uptime {
        let presence = &self.presence;
        let is_congested = presence.memberships.is_congested();
        let has_work = presence.memberships.has_work() || presence.mqtt.has_work();
        if !presence.told.is_empty() || (has_work && !is_congested) {
            return now;
        }
        let retry = now + RETRY;
        let rooms = presence.rooms.next_due();
        let due = match events {
            Events::Published => rooms,
            Events::NoRoom => rooms.max(retry),
        };
        let outgoing = if presence.memberships.has_outgoing() {
            retry
        } else {
            Uptime::NEVER
        };
        due.min(outgoing).min(presence.calls.next_deadline())
    }

    /// Sends each owner its waiting changes, if its box has room.
    fn tell_owners(&mut self) {
        if !self.presence.memberships.has_outgoing() {
            return;
        }
        for owner in 0..self.presence.memberships.owners() {
            let is_own = owner == self.id.index();
            while self.presence.memberships.may_tell(owner) && (is_own || self.post.has_room(owner)) {
                let told = self.presence.memberships.take_outgoing(owner);
                if is_own {
                    self.presence.receive(owner, told);
                } else {
                    let from = self.id.index();
                    self.post
                        .send(owner, Letter::PresenceMessages { from, messages: told });
                }
            }
        }
    }

    /// Applies the changes that cores have told about the rooms of this core, as many as a turn may.
    fn handle_room_messages(&mut self) {
        let mut effort_left = EFFORT_PER_TURN_MAX;
        while let Some(batch) = self.presence.told.front_mut() {
            let Some(told) = batch.left.next() else {
                if let Some(batch) = self.presence.told.pop_front() {
                    self.note_told_done(batch);
                }
                continue;
            };
            let done = self.presence.rooms.receive(told, self.time.now());
            if let Some(refused) = done.refused {
                batch.note_refused(refused);
            }
            if let Some(answered) = done.answered {
                self.send_answer(answered);
            }
            effort_left = effort_left.saturating_sub(done.effort);
            if effort_left == 0 {
                return;
            }
        }
    }

    /// All changes of a letter are handled: its sender may send more.
    fn note_told_done(&mut self, batch: Batch) {
        let (owner, from) = (self.id.index(), batch.from);
        if let Some(least) = batch.refused_least {
            self.presence.rooms.note_refusal_known(from, least);
        }
        let (count, refused) = (batch.count, batch.refused);
        if from == owner {
            self.presence_done(owner, count, &refused);
        } else {
            let letter = Letter::PresenceDone {
                owner,
                count,
                refused,
            };
            self.post.send(from, letter);
        }
    }

    /// An owner has handled `count` changes of this core, and had no room for some subscribers of these
    /// channels.
    pub(in crate::cores) fn presence_done(&mut self, owner: usize, count: usize, refused: &[Box<[u8]>]) {
        for name in refused {
            if let Some(channel) = self.delivery.number_of(name) {
                self.presence.memberships.note_refused(owner, channel);
            }
        }
        self.presence.mqtt.note_refused(refused);
        self.presence.note_done(owner, count);
    }

    /// Tells cores that there is room for some of the refused subscribers.
    fn retry_refused(&mut self, now: Uptime) {
        let owner = self.id.index();
        for core in self.presence.rooms.take_retries(now) {
            if core == owner {
                self.presence.try_again(owner);
            } else {
                self.post.send(core, Letter::PresenceRoom { owner });
            }
        }
    }

    fn send_answer(&mut self, answered: Answered) {
        let Answered {
            asker,
            number,
            answer,
        } = answered;
        if asker == self.id.index() {
            self.presence_answered(number, answer);
        } else {
            self.post
                .send(asker, Letter::PresenceAnswered(number, Box::new(answer)));
        }
    }

    /// Publishes events whose time has come, on channels with subscribers. (A client that asks for the
    /// members after it has subscribed misses nothing: the answer covers the changes that were not published,
    /// and this core knows of the subscription when it looks for subscribers later.) If the ring has no room,
    /// the rooms keep their events, and later changes are added to them.
    fn publish_presence_events(&mut self) -> Events {
        let now = self.time.now().uptime;
        self.delivery.begin_publishing();
        let mut changes_left = CHANGES_PER_TURN_MAX;
        for _ in 0..EVENTS_PER_TURN_MAX {
            if changes_left == 0 {
                break;
            }
            let channels = &self.resources.policy.channels;
            let recent = &mut self.resources.scratch.common.channels;
            let (mut name, mut marks) = (Vec::new(), Marks::default());
            let delivery = &self.delivery;
            let event = self.presence.rooms.next_event(now, |channel| {
                if !channels
                    .find(channel)
                    .is_some_and(|policy| policy.presence.has_events())
                {
                    return false;
                }
                name = [PRESENCE_PREFIX.as_bytes(), channel].concat();
                marks = session::marks(channels, recent, &name);
                marks.is_any() || delivery.has_subscribers(&name)
            });
            let Some(event) = event else {
                break;
            };
            if let Some(data) = event.data {
                let epoch = self.resources.settings.common.epoch;
                let decisions = protocols::publication(&name, Some(data), marks, epoch, false);
                let Some(Decision::Publish(publish)) = decisions.decision(0) else {
                    continue;
                };
                if let Err(RingFull { .. }) = self.delivery.publish(
                    &mut self.connections,
                    &mut self.resources.inspector(),
                    self.time.clock(),
                    &decisions,
                    publish,
                ) {
                    return Events::NoRoom;
                }
                self.metrics.presence_events.add(1);
            }
            changes_left = changes_left.saturating_sub(self.presence.rooms.event_is_told(now));
        }
        Events::Published
    }

    fn count_presence(&mut self) {
        let tally = self.presence.rooms.take_tally();
        self.metrics.presence_joins.add(tally.joined);
        self.metrics.presence_leaves.add(tally.left);
        self.metrics.presence_coalesced.add(tally.coalesced);
        self.metrics.limit_hits[Limit::PresenceMembers.index()].add(tally.refused);
        self.metrics.presence_members.set(self.presence.rooms.members());
        self.metrics
            .presence_channels
            .set(self.presence.rooms.len() as u64);
    }
}

/// Members that one turn changes or lists, at 0.2 µs each.
const EFFORT_PER_TURN_MAX: usize = 4096;
/// Members without connections that one turn lets leave.
const GRACES_PER_TURN_MAX: usize = 4096;
/// Members whose joining or leaving one turn publishes, or drops because there are no subscribers; the last
/// event may exceed it.
const CHANGES_PER_TURN_MAX: usize = 4096;
/// Events that one turn publishes.
const EVENTS_PER_TURN_MAX: usize = 64;
/// How soon a full ring, or a full box of an owner, is tried again.
const RETRY: Duration = Duration::from_millis(1);
