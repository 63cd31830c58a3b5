//! The clock of a core, which is read once for each turn, and how much of its time a turn has spent.

use std::time::Duration;

use crate::clock::{Clock, Now, Uptime};

/// The times of one core.
#[derive(Debug)]
pub(in crate::cores) struct TurnTime {
    clock: Clock,
    now: Now,
    began_ns: u64,
    /// Start of the current period without a stall: silence of clients before this instant is our fault, not theirs.
    responsive_since: Uptime,
    /// The same for connections that are being closed: `close_timeout` may be much shorter than the silence
    /// that ends an open connection, and so are the stalls that count.
    closes_since: Uptime,
    /// Shortest stall that counts for them.
    closing_stall_min: Duration,
    /// The least time for which a turn sends publications and heartbeats. A ping that arrives meanwhile waits as long.
    fan_out_slice_ns: u64,
}

impl TurnTime {
    /// The times of a core before its first turn.
    pub(super) fn new(clock: Clock, fan_out_slice: Duration, close_timeout: Duration) -> TurnTime {
        let now = clock.now();
        TurnTime {
            clock,
            now,
            began_ns: 0,
            responsive_since: now.uptime,
            closes_since: now.uptime,
            closing_stall_min: (close_timeout / 4).max(STALL_MIN),
            fan_out_slice_ns: fan_out_slice.as_nanos().try_into().unwrap_or(u64::MAX),
        }
    }

    /// The time of this turn.
    #[inline]
    pub(in crate::cores) const fn now(&self) -> Now {
        self.now
    }

    #[inline]
    pub(in crate::cores) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Start of the current period without a stall.
    pub(in crate::cores) const fn responsive_since(&self) -> Uptime {
        self.responsive_since
    }

    /// Start of the current period in which this core could send the last bytes of connections that are being closed.
    pub(in crate::cores) const fn closes_since(&self) -> Uptime {
        self.closes_since
    }

    /// Begins a turn after a wait of `slept` at most. If more than `slept` and `tolerance` have passed since the last
    /// turn began, this core stood still: a long turn, or a thread that the system did not run, is not silence of the
    /// clients. For connections that are being closed, a part of `close_timeout` is the tolerance.
    pub(super) fn begin_turn(&mut self, slept: Duration, tolerance: Duration) {
        let before = self.now.uptime;
        (self.now, self.began_ns) = self.clock.now_and_ns();
        let late = self.now.uptime.since(before).saturating_sub(slept);
        if late > tolerance {
            self.responsive_since = self.now.uptime;
        }
        if late > self.closing_stall_min {
            self.closes_since = self.now.uptime;
        }
    }

    /// How long the turn has taken by now.
    pub(super) fn took_ns(&self) -> u64 {
        self.clock.elapsed_ns().saturating_sub(self.began_ns)
    }

    /// The end of the time for publications and heartbeats in a flush that begins at `now_ns`. The time is as long as
    /// the turn has taken so far, so that calls cannot keep publications from leaving, and at least a slice.
    pub(super) fn end_of_flush_ns(&self, now_ns: u64) -> u64 {
        let turn_ns = now_ns.saturating_sub(self.began_ns);
        now_ns + turn_ns.max(self.fan_out_slice_ns)
    }
}

/// The work that a turn has done for connections that cost much.
#[derive(Debug, Default)]
pub(super) struct TurnShares {
    /// Tokens checked in this turn, except those of connections that are being opened or closed.
    pub(super) token_checks: u32,
    /// Tokens checked in this turn, in packets that were handled again since the application has decided about them.
    pub(super) decided_checks: u32,
    /// How long this turn has read connections that are being opened or closed.
    pub(super) transition_ns: u64,
}

/// A busy core has turns that are nearly this long. They are no stalls, however short `close_timeout` is.
const STALL_MIN: Duration = Duration::from_millis(100);
