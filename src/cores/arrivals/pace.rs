//! How fast a core accepts: so many in a second, spread evenly, with a short burst before that.
//!
//! The generic cell rate algorithm: one number says when the next one would be due if all came evenly, and who comes no
//! more than the burst ahead of that may pass.
//!
//! Limits: `accepts_per_second_max`, in equal shares for each core that has a listener.

use std::time::Duration;

use crate::clock::Uptime;

/// The pace of one core.
#[derive(Debug)]
pub(in crate::cores) struct Pace {
    /// Nanoseconds between two; 0 for no limit.
    interval_ns: u64,
    /// Nanoseconds that may be gone ahead of the even pace.
    burst_ns: u64,
    /// When the next one would be due.
    due_ns: u64,
}

impl Pace {
    /// An equal share for each of `cores` of so many in a second; 0 for no limit.
    pub(in crate::cores) fn new(per_second: u32, cores: u64) -> Pace {
        let interval_ns = (NS_PER_SECOND * cores)
            .checked_div(u64::from(per_second))
            .unwrap_or(0);
        Pace {
            interval_ns,
            burst_ns: BURST_NS.saturating_sub(interval_ns),
            due_ns: 0,
        }
    }

    /// Lets one pass.
    ///
    /// # Errors
    /// When to ask again, if none may pass now.
    pub(in crate::cores) fn pass(&mut self, now: Uptime) -> Result<(), Uptime> {
        let now_ns = now.as_ms() * NS_PER_MS;
        let ahead_ns = self.due_ns.saturating_sub(now_ns);
        if ahead_ns > self.burst_ns {
            let wait_ms = (ahead_ns - self.burst_ns).div_ceil(NS_PER_MS);
            return Err(now + Duration::from_millis(wait_ms));
        }
        self.due_ns = self.due_ns.max(now_ns) + self.interval_ns;
        Ok(())
    }

    /// Takes back what was let pass and did not come.
    pub(in crate::cores) fn take_back(&mut self) {
        self.due_ns = self.due_ns.saturating_sub(self.interval_ns);
    }
}

/// A tenth of a second's worth may come at once.
const BURST_NS: u64 = NS_PER_SECOND / 10;
const NS_PER_SECOND: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many pass when as many as may ask in each millisecond.
    fn passed(pace: &mut Pace, from_ms: u64, to_ms: u64) -> u64 {
        let mut count = 0;
        for ms in from_ms..to_ms {
            while count < 1_000_000 && pace.pass(Uptime::from_ms(ms)).is_ok() {
                count += 1;
            }
        }
        count
    }

    #[test]
    fn so_many_pass_in_a_second_after_a_burst_of_a_tenth_of_them() {
        for (per_second, cores) in [(1000, 1), (1000, 4), (100_000, 2), (10, 1), (1, 1), (3, 4)] {
            let mut pace = Pace::new(per_second, cores);
            let burst = (u64::from(per_second) / 10 / cores).max(1);
            assert_eq!(passed(&mut pace, 5000, 5001), burst, "{per_second} {cores}");
            let share = u64::from(per_second) * 8 / cores;
            let found = passed(&mut pace, 5001, 13_000);
            assert!(
                found.abs_diff(share) <= 1 + share / 1000,
                "{per_second} {cores}: {found}"
            );
        }
    }

    #[test]
    fn who_has_to_wait_may_pass_at_the_time_that_is_named_and_not_before() {
        let mut pace = Pace::new(2, 1);
        let now = Uptime::from_ms(1000);
        assert_eq!(pace.pass(now), Ok(()));
        let Err(then) = pace.pass(now) else { panic!() };
        assert_eq!(then, Uptime::from_ms(1500));
        assert_eq!(pace.pass(Uptime::from_ms(1499)), Err(then));
        assert_eq!(pace.pass(then), Ok(()));
    }

    #[test]
    fn what_did_not_come_is_not_counted() {
        let mut pace = Pace::new(1, 1);
        for _ in 0..3 {
            assert_eq!(pace.pass(Uptime::from_ms(7)), Ok(()));
            pace.take_back();
        }
    }

    #[test]
    fn a_rest_does_not_save_up() {
        let mut pace = Pace::new(1000, 1);
        assert_eq!(passed(&mut pace, 0, 1), 100);
        assert_eq!(passed(&mut pace, 3_600_000, 3_600_001), 100);
    }

    #[test]
    fn without_a_limit_all_pass() {
        let mut pace = Pace::new(0, 2);
        assert_eq!(passed(&mut pace, 1, 2), 1_000_000);
    }
}
