//! The clock of a core, which is read once for each turn, and how much of its time a turn has spent.

use std::time::Duration;

use crate::clock::{Clock, Now, Uptime};

/// The times of one core.
#[derive(Debug)]
pub(in crate::cores) struct TurnTime {
    clock: Clock,
    now: Now,
    began_ns: u64,
    /// When the last stall ended that was longer than [`STALL_MIN`], twice as long, four times as long, and so on.
    stalls_ended: [Uptime; STALL_LENGTHS],
    /// The least time for which a turn sends publications and heartbeats. A ping that arrives meanwhile waits as long.
    fan_out_slice_ns: u64,
}

impl TurnTime {
    /// The times of a core before its first turn.
    pub(super) fn new(clock: Clock, fan_out_slice: Duration) -> TurnTime {
        let now = clock.now();
        TurnTime {
            clock,
            now,
            began_ns: 0,
            stalls_ended: [now.uptime; STALL_LENGTHS],
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

    /// Start of the current period without a stall that counts for clients which have so much time for something: that
    /// they are silent, take nothing, or do not say goodbye before this instant is our fault, not theirs. A stall
    /// counts if it takes a quarter of their time, and does not count if it takes less than an eighth.
    pub(in crate::cores) fn responsive_since(&self, limit: Duration) -> Uptime {
        let quarter = limit / 4;
        let mut longest_first = (0..STALL_LENGTHS).rev();
        let length = longest_first.find(|&length| stall_min(length) <= quarter);
        self.stalls_ended[length.unwrap_or(0)]
    }

    /// Begins a turn after a wait of `slept` at most. If much more than that has passed since the last turn began, this
    /// core stood still: a long turn, or a thread that the system did not run, is not silence of the clients.
    #[inline]
    pub(super) fn begin_turn(&mut self, slept: Duration) {
        let before = self.now.uptime;
        (self.now, self.began_ns) = self.clock.now_and_ns();
        let late = self.now.uptime.since(before).saturating_sub(slept);
        if late > STALL_MIN {
            self.note_stall(late);
        }
    }

    #[cold]
    fn note_stall(&mut self, took: Duration) {
        for (length, ended) in self.stalls_ended.iter_mut().enumerate() {
            if took > stall_min(length) {
                *ended = self.now.uptime;
            }
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

/// The shortest stall of a length.
const fn stall_min(length: usize) -> Duration {
    Duration::from_millis(STALL_MIN_MS << length)
}

/// A busy core has turns that are nearly as long: those are no stalls, however little time a client has.
const STALL_MIN: Duration = stall_min(0);
const STALL_MIN_MS: u64 = 100;
/// The longest of them is more than an eighth of the longest silence that MQTT has.
const STALL_LENGTHS: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::simulated::Time;

    #[test]
    fn a_stall_counts_for_clients_that_have_up_to_four_times_as_long_and_for_no_others() {
        let time = Time::begin(0, 1);
        let mut turns = TurnTime::new(time.clock(), Duration::ZERO);
        let limits = [200, 1500, 8000, 30_000, 98_302_500].map(Duration::from_millis);
        let mut stall = |ms: u64| {
            let slept = Duration::from_secs(1);
            let before = limits.map(|limit| turns.responsive_since(limit));
            time.advance(slept + Duration::from_millis(ms));
            turns.begin_turn(slept);
            let now = turns.now().uptime;
            let after = limits.map(|limit| turns.responsive_since(limit));
            for (before, after) in before.into_iter().zip(after) {
                assert!(after == before || after == now, "{after:?}");
            }
            after.map(|since| since == now)
        };
        assert_eq!(stall(20), [false; 5]);
        assert_eq!(stall(150), [true, false, false, false, false]);
        assert_eq!(stall(400), [true, true, false, false, false]);
        assert_eq!(stall(2_100), [true, true, true, false, false]);
        assert_eq!(stall(7_600), [true, true, true, true, false]);
        assert_eq!(stall(12_000_000), [true, true, true, true, false]);
        assert_eq!(stall(24_600_000), [true; 5]);
    }
}
