//! The members that were refused at `presence_members_max`, and when they are tried again.
//!
//! The core of a refused client marks its channel (`cores/presence/memberships.rs`). When there is room, the owner asks
//! all cores with such marks, and each of them reports all subscribers of these channels again. So in the end there are
//! as many members as there is room for.
//!
//! A further connection of a user may have been refused, too. So, while members are refused, a user whose last known
//! connection has ended stays for [`DOUBT`], until the cores have reported the other connections.
//!
//! Limit: [`RETRY`], since each time costs a look at all subscribers of the marked channels.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Uptime;

/// The refusals of one owner.
#[derive(Debug)]
pub(super) struct Refusals {
    /// The cores that have marked channels.
    cores: BTreeSet<usize>,
    /// The least refused weight; [`u64::MAX`] if there is none.
    least: u64,
    /// Whether a user without a known connection stays.
    has_unconnected_user: bool,
    /// When the cores may be asked again.
    next: Uptime,
}

impl Refusals {
    pub(super) fn new() -> Refusals {
        Refusals {
            cores: BTreeSet::new(),
            least: u64::MAX,
            has_unconnected_user: false,
            next: Uptime::default(),
        }
    }

    /// A member, a connection or an info of this weight is refused.
    pub(super) fn note(&mut self, weight: u64) {
        self.least = self.least.min(weight);
    }

    /// A core has reported that members of its clients were refused, of this weight at least.
    pub(super) fn note_known(&mut self, core: usize, weight: u64) {
        self.note(weight);
        self.cores.insert(core);
    }

    /// Whether a refused connection may still be there.
    pub(super) fn are_open(&self, now: Uptime) -> bool {
        self.least != u64::MAX || now < self.next
    }

    /// A user without a known connection stays.
    pub(super) fn note_unconnected_user(&mut self) {
        self.has_unconnected_user = true;
    }

    /// Whether members are still refused, as far as this is known.
    pub(super) fn is_any(&self) -> bool {
        self.least != u64::MAX
    }

    /// When cores are to learn that there is room again, if there is so much room.
    pub(super) fn next_due(&self, room: u64) -> Uptime {
        if !self.cores.is_empty() && (self.has_unconnected_user || self.least <= room) {
            self.next
        } else {
            Uptime::NEVER
        }
    }

    /// The cores that are to learn this now.
    pub(super) fn take_due(&mut self, room: u64, now: Uptime) -> BTreeSet<usize> {
        if self.next_due(room) > now {
            return BTreeSet::new();
        }
        let cores = std::mem::take(&mut self.cores);
        *self = Refusals {
            next: now + RETRY,
            ..Refusals::new()
        };
        cores
    }
}

/// The time between two attempts.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// How long a user without a known connection stays while connections may have been refused: longer than an attempt
/// takes.
pub(crate) const DOUBT: Duration = Duration::from_secs(2);
