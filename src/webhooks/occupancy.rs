//! Which channels have subscribers, over all cores.
//!
//! ```text
//!            first subscriber on any core                  last subscriber on all cores
//!   (none) ────────────────────────────────► occupied ────────────────────────────────► vacating ──delay──► (none)
//!                                               ▲                                          │
//!                                               └────────────── a subscriber ──────────────┘
//! ```
//! A core says when a channel has got its first subscriber there, and when it has lost its last. What a core says of a
//! channel is a state and no difference: to say it twice changes nothing.
//!
//! A webhook that was told of a channel as occupied is told of it as vacated later, and the other way round: never twice
//! the same. A client that reconnects leaves its channels for a moment; so a channel counts as vacated only after
//! `webhook_vacated_delay_ms` without a subscriber.
//!
//! Invariants
//! 1. A channel is in the table while a core has subscribers of it, or while it is vacating.
//! 2. `due` is in the order of its times, since the delay never changes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::event::{Holder, Occupied};
use crate::clock::Uptime;

/// The channels that have subscribers and that webhooks watch.
#[derive(Debug)]
pub(super) struct Occupancy {
    channels: HashMap<Box<[u8]>, Channel>,
    /// Channels that may have been vacated: when that is to be looked at, and the vacating that it is about.
    due: VecDeque<(Uptime, Box<[u8]>, u64)>,
    delay: Duration,
    /// The number of the last vacating.
    vacatings: u64,
    /// How many channels got a subscriber while they were vacating, since this was last taken.
    flaps: u64,
}

#[derive(Debug, Default)]
struct Channel {
    /// The cores that have subscribers, as bits, by [`Holder`].
    cores: [u128; 2],
    /// The webhooks that know of it as occupied, as bits.
    told: Hooks,
    /// The number of its vacating; 0 while it has subscribers.
    vacating: u64,
}

/// Webhooks, as bits by their slots.
pub(super) type Hooks = u32;

impl Occupancy {
    /// No channel has subscribers.
    pub(super) fn new(delay: Duration) -> Occupancy {
        Occupancy {
            channels: HashMap::new(),
            due: VecDeque::new(),
            delay,
            vacatings: 0,
            flaps: 0,
        }
    }

    /// A core says whether it has subscribers of a channel that the webhooks `watched_by` watch. Returns the webhooks that
    /// are to be told that the channel is occupied.
    pub(super) fn change(&mut self, core: usize, change: &Occupied, watched_by: Hooks, now: Uptime) -> Hooks {
        let bit = 1_u128 << (core % 128);
        let holder = match change.by {
            Holder::SocketCluster => 0,
            Holder::Mqtt => 1,
        };
        if change.is_occupied {
            if watched_by == 0 {
                return 0;
            }
            if !self.channels.contains_key(&change.channel) {
                self.channels.insert(change.channel.clone(), Channel::default());
            }
            let Some(channel) = self.channels.get_mut(&change.channel) else {
                return 0;
            };
            channel.cores[holder] |= bit;
            if std::mem::take(&mut channel.vacating) != 0 {
                self.flaps += 1;
            }
            let news = watched_by & !channel.told;
            channel.told |= news;
            return news;
        }
        // A core may tell of the end of what it has not told the beginning of: it began before a webhook watched it.
        let Some(channel) = self.channels.get_mut(&change.channel) else {
            return 0;
        };
        channel.cores[holder] &= !bit;
        if channel.cores == [0, 0] && channel.vacating == 0 {
            self.vacatings += 1;
            channel.vacating = self.vacatings;
            self.due
                .push_back((now + self.delay, change.channel.clone(), self.vacatings));
        }
        0
    }

    /// The next channel that has been vacated, and the webhooks that are to be told.
    pub(super) fn next_vacated(&mut self, now: Uptime) -> Option<(Box<[u8]>, Hooks)> {
        while let Some((_, name, vacating)) = self.due.pop_front_if(|(at, ..)| *at <= now) {
            if self
                .channels
                .get(&name)
                .is_some_and(|channel| channel.vacating == vacating)
            {
                let told = self.channels.remove(&name).map_or(0, |channel| channel.told);
                return Some((name, told));
            }
        }
        None
    }

    /// When the next channel may have been vacated.
    pub(super) fn next_due(&self) -> Uptime {
        self.due.front().map_or(Uptime::NEVER, |(at, ..)| *at)
    }

    /// Other webhooks watch channels from now on: `gone` are not there any more, and `watched_by` says which watch this
    /// one. Returns the channels that are occupied, each with the webhooks that are to be told.
    pub(super) fn rewatch(
        &mut self,
        gone: Hooks,
        watched_by: impl Fn(&[u8]) -> Hooks,
    ) -> Vec<(Box<[u8]>, Hooks)> {
        let mut news = Vec::new();
        self.channels.retain(|name, channel| {
            // A webhook that came later may have got the bit of one that has gone.
            channel.told &= !gone;
            let watched_by = watched_by(name);
            let untold = match channel.vacating {
                0 => watched_by & !channel.told,
                _ => 0,
            };
            if untold != 0 {
                news.push((name.clone(), untold));
            }
            channel.told = (channel.told & watched_by) | untold;
            watched_by != 0
        });
        news
    }

    /// The server ends: the channels that webhooks know as occupied, each with these webhooks.
    pub(super) fn end(&mut self) -> Vec<(Box<[u8]>, Hooks)> {
        self.due.clear();
        self.channels
            .drain()
            .map(|(name, channel)| (name, channel.told))
            .collect()
    }

    /// Gives memory back that it has needed for more channels.
    pub(super) fn give_back(&mut self) {
        if self.channels.len() < self.channels.capacity() / 8 {
            self.channels.shrink_to(self.channels.len() * 2);
        }
        if self.due.len() < self.due.capacity() / 8 {
            self.due.shrink_to(self.due.len() * 2);
        }
    }

    /// How many channels it has.
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    /// How many channels got a subscriber while they were vacating, since the last call.
    pub(super) fn take_flaps(&mut self) -> u64 {
        std::mem::take(&mut self.flaps)
    }
}

#[cfg(test)]
mod tests;
