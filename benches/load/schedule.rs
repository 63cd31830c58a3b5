//! The due times of a steady series of events, independent of what happened to earlier events.

use std::time::Duration;

use super::clock::{SECOND, nanoseconds};
use super::driver::Share;

/// A series of times at equal distances, each for one of several members in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Time of the first event, in nanoseconds.
    first: f64,
    /// Nanoseconds between two events; infinite if there are none.
    gap: f64,
    /// Number of events that have been taken.
    passed: u64,
    members: u64,
    stride: u64,
}

impl Schedule {
    /// A schedule without events.
    pub(crate) fn never() -> Schedule {
        Schedule {
            first: f64::INFINITY,
            gap: f64::INFINITY,
            passed: 0,
            members: 1,
            stride: 1,
        }
    }

    /// `rate` events a second from `now` on; without a rate, all events at once.
    pub(crate) fn per_second(now: u64, rate: Option<f64>) -> Schedule {
        Schedule {
            first: now as f64,
            gap: rate.map_or(0.0, |rate| SECOND as f64 / rate),
            ..Schedule::never()
        }
    }

    /// One event for each of `members` in a `period`. Events of other shares lie between them. Members with
    /// neighbouring numbers are far apart in time, so a part of the members is spread as evenly as all of them.
    pub(crate) fn every(now: u64, period: Duration, members: usize, share: Share) -> Schedule {
        if members == 0 {
            return Schedule::never();
        }
        let members = members as u64;
        let gap = nanoseconds(period) as f64 / members as f64;
        Schedule {
            first: now as f64 + gap * f64::from(share.first) / f64::from(share.step),
            gap,
            passed: 0,
            members,
            stride: stride(members),
        }
    }

    pub(crate) fn is_never(&self) -> bool {
        self.gap.is_infinite()
    }

    /// The time of the next event.
    pub(crate) fn due(&self) -> u64 {
        if self.is_never() {
            return u64::MAX;
        }
        whole(self.first + self.gap * self.passed as f64)
    }

    /// Takes the next event; returns its member.
    pub(crate) fn take(&mut self) -> u64 {
        // Both factors of the product fit into 32 bits.
        let member = self.passed % self.members * self.stride % self.members;
        self.passed += 1;
        member
    }
}

/// A step by which all members are visited, neighbours in number far apart: near the golden ratio, coprime to
/// `members`.
fn stride(members: u64) -> u64 {
    let start = whole(members as f64 * GOLDEN);
    (start..=start + members)
        .find(|stride| greatest_common_divisor(*stride, members) == 1)
        .unwrap_or(1)
}

/// Drops the fraction. Times and counts here are far below 2^53.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number as u64
}

const GOLDEN: f64 = 0.618_033_988_749_895;

/// The greatest common divisor, by Euclid's algorithm.
pub(crate) fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}
