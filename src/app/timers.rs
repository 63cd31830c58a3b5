//! Timers that an application sets for its clients.
//!
//! Each belongs to one connection and ends with it. The core has no separate timers for them: the visit of a
//! connection in its wheel (`cores/lifecycle/wheel.rs`) comes at its first timer, if nothing else is due
//! before. So a timer is as exact as the wheel.
//!
//! An application that sets no timers pays a comparison in each turn.
//!
//! Limits: `timers_per_connection_max`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use crate::clock::Uptime;

/// The id of one timer of a client. No other timer of its core has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(u64);

impl TimerId {
    /// Its number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Why a timer was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerRefused {
    /// `timers_per_connection_max` timers of the client are set.
    TooMany,
    /// The connection has ended.
    Ended,
}

impl fmt::Display for TimerRefused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            TimerRefused::TooMany => "too many timers of the client are set",
            TimerRefused::Ended => "the connection has ended",
        })
    }
}

impl std::error::Error for TimerRefused {}

/// The timers of the connections of one core, by the addresses of the connections.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// A connection without timers has no entry.
    by_connection: HashMap<usize, ConnectionTimers>,
    /// The number of the last timer.
    last: u64,
    /// The time of this turn.
    now: Uptime,
    per_connection_max: usize,
    /// Connections whose first timer the wheel may not know.
    unarmed: Vec<usize>,
}

/// The timers of one connection. The cost of setting, cancelling and taking a timer is nearly independent of
/// their number.
#[derive(Debug, Default)]
struct ConnectionTimers {
    /// In the order of their times; of two with the same time, the one that was set first is first.
    order: BTreeSet<(Uptime, TimerId)>,
    /// The time of each timer.
    times: HashMap<TimerId, Uptime>,
}

impl ConnectionTimers {
    fn remove(&mut self, id: TimerId) -> bool {
        let Some(at) = self.times.remove(&id) else {
            return false;
        };
        self.order.remove(&(at, id))
    }
}

impl Timers {
    /// No timers, and a limit of `per_connection_max` for each connection.
    pub(crate) fn new(per_connection_max: u32) -> Timers {
        Timers {
            per_connection_max: per_connection_max as usize,
            ..Timers::default()
        }
    }

    /// Timers that are set from now on count from `now`.
    #[inline]
    pub(crate) fn begin_turn(&mut self, now: Uptime) {
        self.now = now;
    }

    /// Sets a timer of the connection at `address`.
    pub(super) fn set(&mut self, address: usize, after: Duration) -> Result<TimerId, TimerRefused> {
        let at = self.now + after.max(SHORTEST);
        let timers = self.by_connection.entry(address).or_default();
        if timers.order.len() >= self.per_connection_max {
            if timers.order.is_empty() {
                self.by_connection.remove(&address);
            }
            return Err(TimerRefused::TooMany);
        }
        self.last += 1;
        let id = TimerId(self.last);
        timers.order.insert((at, id));
        timers.times.insert(id, at);
        if timers.order.first() == Some(&(at, id)) {
            self.unarmed.push(address);
        }
        Ok(id)
    }

    /// Forgets a timer of the connection at `address`. False if it has come already, or is another connection's.
    pub(super) fn cancel(&mut self, address: usize, id: TimerId) -> bool {
        let Some(timers) = self.by_connection.get_mut(&address) else {
            return false;
        };
        let was_set = timers.remove(id);
        if timers.order.is_empty() {
            self.by_connection.remove(&address);
        }
        was_set
    }

    /// Whether no timer is set.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_connection.is_empty()
    }

    /// When the first timer of the connection at `address` comes.
    #[inline]
    pub(crate) fn next_of(&self, address: usize) -> Uptime {
        if self.is_empty() {
            return Uptime::NEVER;
        }
        let timers = self.by_connection.get(&address);
        timers
            .and_then(|timers| timers.order.first())
            .map_or(Uptime::NEVER, |(at, _)| *at)
    }

    /// The number of the last timer that was set: timers that are set later do not come in this turn.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Takes the first timer of the connection at `address` that has come at `now` and is not newer than `last`.
    pub(crate) fn take_due(&mut self, address: usize, now: Uptime, last: u64) -> Option<TimerId> {
        let timers = self.by_connection.get_mut(&address)?;
        let mut due = timers.order.iter().take_while(|(at, _)| *at <= now);
        let (_, id) = *due.find(|(_, id)| id.0 <= last)?;
        timers.remove(id);
        if timers.order.is_empty() {
            self.by_connection.remove(&address);
        }
        Some(id)
    }

    /// Forgets the timers of a connection that has ended.
    #[inline]
    pub(crate) fn forget(&mut self, address: usize) {
        if !self.is_empty() {
            self.by_connection.remove(&address);
        }
    }

    /// The wheel may not know the timers of the connection at `address`, if it has some.
    #[inline]
    pub(crate) fn rearm(&mut self, address: usize) {
        if !self.is_empty() && self.by_connection.contains_key(&address) {
            self.unarmed.push(address);
        }
    }

    /// Whether there are connections whose first timer the wheel may not know.
    #[inline]
    pub(crate) fn has_unarmed(&self) -> bool {
        !self.unarmed.is_empty()
    }

    /// The next of these connections.
    pub(crate) fn take_unarmed(&mut self) -> Option<usize> {
        self.unarmed.pop()
    }

    /// How many connections have timers.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.by_connection.len()
    }
}

/// The shortest time of a timer.
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 4;

    #[derive(Clone, Debug)]
    enum Step {
        Set { address: usize, ms: u64 },
        Cancel { address: usize, which: usize },
        Turn { ms: u64 },
        Forget { address: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let address = 0..3_usize;
        prop_oneof![
            4 => (address.clone(), 0..50_u64).prop_map(|(address, ms)| Step::Set { address, ms }),
            2 => (address.clone(), 0..8_usize).prop_map(|(address, which)| Step::Cancel { address, which }),
            2 => (0..30_u64).prop_map(|ms| Step::Turn { ms }),
            1 => address.prop_map(|address| Step::Forget { address }),
        ]
    }

    proptest! {
        /// The model: a list of all timers that are set, each with its time and its connection.
        #[test]
        fn each_timer_comes_once_in_its_turn_unless_it_is_cancelled(steps in prop::collection::vec(step(), 1..120)) {
            let mut timers = Timers::new(u32::try_from(MAX).unwrap());
            let mut model: Vec<(u64, TimerId, usize)> = Vec::new();
            let mut all: Vec<TimerId> = Vec::new();
            let mut now = 0_u64;
            for step in steps {
                match step {
                    Step::Set { address, ms } => {
                        let set = timers.set(address, Duration::from_millis(ms));
                        let count = model.iter().filter(|(_, _, of)| *of == address).count();
                        prop_assert_eq!(set.is_err(), count == MAX);
                        if let Ok(id) = set {
                            let at = now + ms.max(1);
                            let is_first = model.iter().all(|(other, _, of)| *of != address || at < *other);
                            prop_assert_eq!(timers.take_unarmed().is_some(), is_first);
                            model.push((at, id, address));
                            all.push(id);
                        }
                    }
                    Step::Cancel { address, which } => {
                        let Some(&id) = all.get(which) else { continue };
                        let place = model.iter().position(|(_, other, of)| *other == id && *of == address);
                        prop_assert_eq!(timers.cancel(address, id), place.is_some());
                        place.map(|place| model.remove(place));
                    }
                    Step::Turn { ms } => {
                        now += ms;
                        let uptime = Uptime::from_ms(now);
                        timers.begin_turn(uptime);
                        for address in 0..3 {
                            let mut due: Vec<_> = model.iter().filter(|(at, _, of)| *of == address && *at <= now).copied().collect();
                            due.sort();
                            let last = timers.last();
                            for (_, id, _) in due {
                                prop_assert_eq!(timers.take_due(address, uptime, last), Some(id));
                                model.retain(|(_, other, _)| *other != id);
                            }
                            prop_assert_eq!(timers.take_due(address, uptime, last), None);
                        }
                    }
                    Step::Forget { address } => {
                        timers.forget(address);
                        model.retain(|(_, _, of)| *of != address);
                    }
                }
                for address in 0..3 {
                    let first = model.iter().filter(|(_, _, of)| *of == address).map(|(at, _, _)| *at).min();
                    prop_assert_eq!(timers.next_of(address), first.map_or(Uptime::NEVER, Uptime::from_ms));
                }
            }
        }
    }

    #[test]
    fn a_timer_that_is_set_by_a_timer_comes_in_a_later_turn() {
        let mut timers = Timers::new(10);
        timers.set(1, Duration::ZERO).unwrap();
        let (now, last) = (Uptime::from_ms(5), timers.last());
        assert!(timers.take_due(1, now, last).is_some());
        timers.set(1, Duration::ZERO).unwrap();
        assert_eq!(timers.take_due(1, now, last), None);
        assert!(timers.take_due(1, now, timers.last()).is_some());
        assert_eq!(timers.connections(), 0);
    }
}
