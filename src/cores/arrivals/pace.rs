//! The accept rate of a core: a number of connections per second, spread evenly, after a short burst.
//!
//! This is the generic cell rate algorithm. One number is the time at which the next connection would be due if all
//! came evenly. A connection passes if it comes no earlier than that time less the burst.
//!
//! Limits: `accepts_per_second_max`, in equal shares for each core that has a listener.

use std::time::Duration;

use crate::clock::Uptime;

/// The pace of one core.
#[derive(Debug)]
pub(in crate::cores) struct Pace {
    /// Nanoseconds between two connections; 0 for no limit.
    interval_ns: u64,
    /// By how many nanoseconds a connection may be early.
    burst_ns: u64,
    /// When the next connection would be due.
    due_ns: u64,
}

impl Pace {
    /// The pace of one of `cores`, each of which has an equal share of `per_second`. 0 is no limit.
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

    /// Lets a connection pass.
    ///
    /// # Errors
    /// No connection may pass before the time that is returned.
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

    /// Takes back the last pass: there was no connection.
    pub(in crate::cores) fn take_back(&mut self) {
        self.due_ns = self.due_ns.saturating_sub(self.interval_ns);
    }
}

/// The connections of a tenth of a second may come at once.
const BURST_NS: u64 = NS_PER_SECOND / 10;
const NS_PER_SECOND: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// How many connections pass if more connections ask in each millisecond than may pass.
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
    fn a_connection_that_has_to_wait_passes_at_the_time_that_was_named_and_not_before() {
        let mut pace = Pace::new(2, 1);
        let now = Uptime::from_ms(1000);
        assert_eq!(pace.pass(now), Ok(()));
        let Err(then) = pace.pass(now) else { panic!() };
        assert_eq!(then, Uptime::from_ms(1500));
        assert_eq!(pace.pass(Uptime::from_ms(1499)), Err(then));
        assert_eq!(pace.pass(then), Ok(()));
    }

    #[test]
    fn a_pass_that_is_taken_back_is_not_counted() {
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
