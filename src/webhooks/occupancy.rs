//! Which channels have subscribers, over all cores.
//!
//! ```text
//!            first subscriber on any core                  last subscriber on all cores
//!   (none) ────────────────────────────────► occupied ────────────────────────────────► vacating ──delay──► (none)
//!                                               ▲                                          │
//!                                               └────────────── a subscriber ──────────────┘
//! ```
//! A core reports when a channel has got its first subscriber on this core, and when it has lost its last. A report is
//! a state and not a difference: to repeat it changes nothing.
//!
//! For each channel, a webhook gets the events `occupied` and `vacated` alternately. A client that reconnects leaves
//! its channels for a moment; so a channel counts as vacated only after `webhook_vacated_delay_ms` without a
//! subscriber.
//!
//! Invariants
//! 1. A channel is in the table while a core has subscribers of it, or while it is vacating.
//! 2. A channel is in `due` while it is vacating, once, with its `vacated_at`.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::event::{Occupied, SubscriberKind};
use crate::clock::Uptime;

/// The channels that have subscribers and that webhooks watch.
#[derive(Debug)]
pub(super) struct Occupancy {
    channels: HashMap<Box<[u8]>, Channel>,
    /// The channels that are vacating, by the time at which they count as vacated.
    due: BTreeSet<(Uptime, Box<[u8]>)>,
    delay: Duration,
    /// The bytes of the names in `channels` and in `due`.
    name_bytes: usize,
    /// How many channels got a subscriber while they were vacating, since this was last taken.
    flaps: u64,
}

#[derive(Debug, Default)]
struct Channel {
    /// The cores that have subscribers, as bits, by [`SubscriberKind`].
    cores: [u128; 2],
    /// The webhooks that know of it as occupied, as bits.
    told: Hooks,
    /// When it counts as vacated, while it has no subscribers.
    vacated_at: Option<Uptime>,
}

/// Webhooks, as bits by their slots.
pub(super) type Hooks = u32;

impl Occupancy {
    /// No channel has subscribers.
    pub(super) fn new(delay: Duration) -> Occupancy {
        Occupancy {
            channels: HashMap::new(),
            due: BTreeSet::new(),
            delay,
            name_bytes: 0,
            flaps: 0,
        }
    }

    /// A core reports whether it has subscribers of a channel that the webhooks `watched_by` watch. Returns the
    /// webhooks that get the event `occupied`.
    pub(super) fn change(&mut self, core: usize, change: &Occupied, watched_by: Hooks, now: Uptime) -> Hooks {
        let bit = 1_u128 << (core % 128);
        let holder = match change.by {
            SubscriberKind::SocketCluster => 0,
            SubscriberKind::Mqtt => 1,
        };
        if change.is_occupied {
            if watched_by == 0 {
                return 0;
            }
            if !self.channels.contains_key(&change.channel) {
                self.channels.insert(change.channel.clone(), Channel::default());
                self.name_bytes += change.channel.len();
            }
            let Some(channel) = self.channels.get_mut(&change.channel) else {
                return 0;
            };
            channel.cores[holder] |= bit;
            if let Some(at) = channel.vacated_at.take() {
                self.due.remove(&(at, change.channel.clone()));
                self.name_bytes -= change.channel.len();
                self.flaps += 1;
            }
            let news = watched_by & !channel.told;
            channel.told |= news;
            return news;
        }
        // A core may report an end without a beginning, if the subscription began before a webhook watched the channel.
        let Some(channel) = self.channels.get_mut(&change.channel) else {
            return 0;
        };
        channel.cores[holder] &= !bit;
        if channel.cores == [0, 0] && channel.vacated_at.is_none() {
            let at = now + self.delay;
            channel.vacated_at = Some(at);
            self.due.insert((at, change.channel.clone()));
            self.name_bytes += change.channel.len();
        }
        0
    }

    /// The next channel that has been vacated, and the webhooks that get the event.
    pub(super) fn next_vacated(&mut self, now: Uptime) -> Option<(Box<[u8]>, Hooks)> {
        if self.due.first()?.0 <= now {
            let (_, name) = self.due.pop_first()?;
            self.name_bytes -= 2 * name.len();
            let told = self.channels.remove(&name).map_or(0, |channel| channel.told);
            return Some((name, told));
        }
        None
    }

    /// When the next channel may have been vacated.
    pub(super) fn next_due(&self) -> Uptime {
        self.due.first().map_or(Uptime::NEVER, |(at, _)| *at)
    }

    /// Adopts changed webhooks: `gone` were removed, and `watched_by` returns the webhooks that watch a channel.
    /// Returns the occupied channels, each with the webhooks that get the event `occupied`.
    pub(super) fn rewatch(
        &mut self,
        gone: Hooks,
        watched_by: impl Fn(&[u8]) -> Hooks,
    ) -> Vec<(Box<[u8]>, Hooks)> {
        let mut news = Vec::new();
        let (due, name_bytes) = (&mut self.due, &mut self.name_bytes);
        self.channels.retain(|name, channel| {
            // A webhook that came later may have got the bit of one that has gone.
            channel.told &= !gone;
            let watched_by = watched_by(name);
            let unreported = match channel.vacated_at {
                None => watched_by & !channel.told,
                Some(_) => 0,
            };
            if unreported != 0 {
                news.push((name.clone(), unreported));
            }
            channel.told = (channel.told & watched_by) | unreported;
            if watched_by == 0 {
                *name_bytes -= name.len();
                if let Some(at) = channel.vacated_at {
                    due.remove(&(at, name.clone()));
                    *name_bytes -= name.len();
                }
            }
            watched_by != 0
        });
        news
    }

    /// The server ends: the channels that webhooks know as occupied, each with these webhooks.
    pub(super) fn end(&mut self) -> Vec<(Box<[u8]>, Hooks)> {
        self.due.clear();
        self.name_bytes = 0;
        self.channels
            .drain()
            .map(|(name, channel)| (name, channel.told))
            .collect()
    }

    /// Frees memory that is no longer needed.
    pub(super) fn give_back(&mut self) {
        if self.channels.len() < self.channels.capacity() / 8 {
            self.channels.shrink_to(self.channels.len() * 2);
        }
    }

    /// How many channels it has.
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    /// How many bytes of memory the table needs.
    pub(super) fn bytes(&self) -> usize {
        let channel = size_of::<(Box<[u8]>, Channel)>();
        let due = size_of::<(Uptime, Box<[u8]>)>();
        self.channels.capacity() * channel + self.due.len() * due + self.name_bytes
    }

    /// How many channels got a subscriber while they were vacating, since the last call.
    pub(super) fn take_flaps(&mut self) -> u64 {
        std::mem::take(&mut self.flaps)
    }
}

#[cfg(test)]
mod tests;
