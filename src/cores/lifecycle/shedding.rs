//! Limits how many connections a turn closes while all connections together hold more than `outbox_bytes_total_max`
//! allows, and how often that is logged. `ending.rs` closes them.
//!
//! Limits: [`SHED_PER_TURN_MAX`].

use std::time::Duration;

use crate::clock::Uptime;

/// How many connections a core may still close in this turn, and when it may log that again.
#[derive(Debug)]
pub(in crate::cores) struct Shedding {
    /// How many more connections this turn may close.
    left: u32,
    /// When it may be logged again.
    told_again: Uptime,
}

impl Shedding {
    pub(in crate::cores) fn new(now: Uptime) -> Shedding {
        Shedding {
            left: 0,
            told_again: now,
        }
    }

    /// Whether this turn may close another connection. Counts that connection.
    pub(in crate::cores) fn take_one(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// Whether the closing of connections may be logged now. If so, it may not be logged again for a while.
    pub(in crate::cores) fn may_tell(&mut self, now: Uptime) -> bool {
        let may = now >= self.told_again;
        if may {
            self.told_again = now + SHED_TOLD_EVERY;
        }
        may
    }

    /// Begins a turn, which may close [`SHED_PER_TURN_MAX`] connections.
    pub(in crate::cores) fn begin_turn(&mut self) {
        self.left = SHED_PER_TURN_MAX;
    }
}

/// Connections that one turn closes because all together hold too much. This takes a few milliseconds.
const SHED_PER_TURN_MAX: u32 = 256;
/// How often it is logged.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(60);
