//! How many connections a turn may close while all of them together hold more than `outbox_bytes_total_max` allows, and
//! how often that is said. `ending.rs` closes them.
//!
//! Limits: [`SHED_PER_TURN_MAX`].

use std::time::Duration;

use crate::clock::Uptime;

/// How far a core has got with that.
#[derive(Debug)]
pub(in crate::cores) struct Shedding {
    /// How many connections this turn may still close.
    left: u32,
    /// When it may next be said that there are such.
    told_again: Uptime,
}

impl Shedding {
    pub(in crate::cores) fn new(now: Uptime) -> Shedding {
        Shedding {
            left: 0,
            told_again: now,
        }
    }

    /// Whether this turn may close another; then there is one less.
    pub(in crate::cores) fn take_one(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// Whether it may be said now that connections are closed; then not again for a while.
    pub(in crate::cores) fn may_tell(&mut self, now: Uptime) -> bool {
        let may = now >= self.told_again;
        if may {
            self.told_again = now + SHED_TOLD_EVERY;
        }
        may
    }

    /// Lets a new turn close some.
    pub(in crate::cores) fn begin_turn(&mut self) {
        self.left = SHED_PER_TURN_MAX;
    }
}

/// Connections that one turn closes for what all of them hold: a few milliseconds of it.
const SHED_PER_TURN_MAX: u32 = 256;
/// How often that is said.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(60);
