//! Decides which connections a drain closes next, so that the closes are spread over the time that an operator has
//! given.
//!
//! First the core accepts the connections that the kernel has completed for the listeners. Then it closes the
//! listeners, lists the connections, the oldest first, and closes each when its moment has come. Each step takes a
//! bounded part of a turn.
//!
//! Limits: `drain_seconds` in all; `PLACES_PER_TURN_MAX` and `CLOSES_PER_TURN_MAX` in a turn.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::broker::Sequence;
use crate::clock::Uptime;

use crate::cores::connections::Connections;
use crate::cores::lifecycle::connection::ConnectionId;

/// The state of a drain.
#[derive(Debug)]
pub(in crate::cores) struct Draining {
    stage: Stage,
    /// Connections whose closes are spread over the time, the oldest first.
    known: BinaryHeap<AgeAndIndex>,
    /// Connections whose handshake is not complete. They may complete it, and are closed when the time is over.
    coming: BinaryHeap<AgeAndIndex>,
    /// Connections that came while the server was draining: closed last.
    late: VecDeque<ConnectionId>,
    /// The generation of the last connection before the list was begun.
    last: u32,
    /// How many connections were listed in `known`.
    spread: usize,
    /// How many connections were taken from the lists.
    closed: usize,
    /// The place in the ring up to which all publications must be delivered before more connections are
    /// closed.
    after: Option<Sequence>,
    began: Uptime,
    within: Duration,
}

/// The stage of a drain. Each stage takes a bounded part of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The connections in the kernel's backlogs are accepted, up to a limit. No other server could serve
    /// these sockets.
    Backlog { accepts_left: usize },
    /// The listeners are closed. The core lists its connections, from this place of the table on.
    Listing { next: u32 },
    /// Connections are closed when their moment has come.
    Closing,
}

/// The age and the index of a connection: the oldest is the greatest.
type AgeAndIndex = (u32, u32);

impl Draining {
    pub(super) fn new(began: Uptime, within: Duration) -> Draining {
        Draining {
            stage: Stage::Backlog {
                accepts_left: LAST_ACCEPTS_MAX,
            },
            known: BinaryHeap::new(),
            coming: BinaryHeap::new(),
            late: VecDeque::new(),
            last: 0,
            spread: 0,
            closed: 0,
            after: None,
            began,
            within,
        }
    }

    /// Whether connections of the kernel's backlog are still to be accepted.
    pub(super) fn is_in_backlog(&self) -> bool {
        matches!(self.stage, Stage::Backlog { .. })
    }

    /// Whether another batch may be accepted. Counts that batch.
    pub(super) fn accept_more(&mut self, batch: usize) -> bool {
        let Stage::Backlog { accepts_left } = &mut self.stage else {
            return false;
        };
        let may = *accepts_left > 0;
        *accepts_left = accepts_left.saturating_sub(batch);
        may
    }

    /// The place in the ring up to which all publications must be delivered before more connections are
    /// closed: the end of the ring at the first call.
    pub(super) fn deliver_first(&mut self, claimed: impl FnOnce() -> Sequence) -> Sequence {
        *self.after.get_or_insert_with(claimed)
    }

    /// Notes that these publications have been delivered.
    pub(super) fn has_delivered(&mut self) {
        self.after = None;
    }

    /// Whether the next turn can continue the drain. If not, the drain waits for the time of the next close, or for a
    /// delivery, which keeps the core awake.
    pub(super) fn has_work(&self, now: Uptime) -> bool {
        match self.stage {
            Stage::Backlog { .. } | Stage::Listing { .. } => true,
            Stage::Closing => self.after.is_none() && self.is_due(now),
        }
    }

    pub(super) fn begin_list(&mut self, connections: &Connections) {
        self.last = connections.last_generation();
        self.stage = Stage::Listing { next: 0 };
    }

    /// Lists more connections, as many as one turn may. True when all are listed.
    pub(super) fn list_some(&mut self, connections: &Connections) -> bool {
        let Stage::Listing { next } = self.stage else {
            return true;
        };
        let mut effort = places_per_turn_max() * EFFORT_OF_A_CONNECTION;
        for index in next..connections.places() {
            if effort == 0 {
                self.stage = Stage::Listing { next: index };
                return false;
            }
            let Some(connection) = connections.at(index) else {
                effort -= 1;
                continue;
            };
            effort = effort.saturating_sub(EFFORT_OF_A_CONNECTION);
            if !connection.phase.is_over() {
                self.list(connection.id, connection.phase.is_opening());
            }
        }
        self.stage = Stage::Closing;
        true
    }

    fn list(&mut self, id: ConnectionId, is_opening: bool) {
        // A connection that began while others were listed is younger than `last`.
        let age = match id.age(self.last) {
            age if age > u32::MAX / 2 => 0,
            age => age,
        };
        if is_opening {
            self.coming.push((age, id.index()));
        } else {
            self.spread += 1;
            self.known.push((age, id.index()));
        }
    }

    /// Adds a connection that began during the drain.
    pub(in crate::cores) fn add(&mut self, id: ConnectionId) {
        let will_be_listed = match self.stage {
            Stage::Backlog { .. } => true,
            Stage::Listing { next } => id.index() >= next,
            Stage::Closing => false,
        };
        if !will_be_listed {
            self.late.push_back(id);
        }
    }

    pub(super) fn is_due(&self, now: Uptime) -> bool {
        if self.is_over(now) {
            !self.known.is_empty() || !self.coming.is_empty() || !self.late.is_empty()
        } else {
            self.closed < self.due(now)
        }
    }

    /// The next connection that is to be closed by now.
    pub(super) fn next_due(&mut self, now: Uptime) -> Option<ConnectionId> {
        if !self.is_due(now) {
            return None;
        }
        self.closed += 1;
        let listed = match self.known.pop() {
            None => self.coming.pop(),
            known => known,
        };
        match listed {
            Some((age, index)) => Some(ConnectionId::new(index, self.last.wrapping_sub(age))),
            None => self.late.pop_front(),
        }
    }

    fn is_over(&self, now: Uptime) -> bool {
        now.since(self.began) >= self.within
    }

    /// How many connections should be closed by now: each takes an equal share of the time, and the first is closed at
    /// once.
    fn due(&self, now: Uptime) -> usize {
        let elapsed = now.since(self.began).as_millis();
        let within = self.within.as_millis().max(1);
        let share = self.spread as u128 * elapsed / within + 1;
        usize::try_from(share).unwrap_or(usize::MAX).min(self.spread)
    }
}

/// [`PLACES_PER_TURN_MAX`], or the limit of a simulation.
pub(super) fn places_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.places_per_turn_max;
    }
    PLACES_PER_TURN_MAX
}

/// As many connections as a listener's backlog may hold.
const LAST_ACCEPTS_MAX: usize = 65_536;
/// Connections that a drain lists in one turn. Each costs a cache miss, 0.2 ms for all.
const PLACES_PER_TURN_MAX: usize = 2048;
/// The cost of listing a connection, in units of examining a vacant place.
const EFFORT_OF_A_CONNECTION: usize = 4;
/// Connections that a drain closes in one turn, at 5 µs each.
pub(super) const CLOSES_PER_TURN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A drain of connections with these generations; those from `coming` on have not completed their
    /// handshakes.
    fn drain(generations: &[u32], coming: usize, last: u32, within: Duration) -> Draining {
        let mut drain = Draining::new(Uptime::from_ms(1000), within);
        drain.last = last;
        drain.stage = Stage::Listing { next: 0 };
        for (index, &generation) in generations.iter().enumerate() {
            let id = ConnectionId::new(index.try_into().unwrap(), generation);
            drain.list(id, index >= coming);
        }
        drain.stage = Stage::Closing;
        drain
    }

    /// The generations of the connections that are closed at this time.
    fn closed(drain: &mut Draining, ms: u64) -> Vec<u32> {
        let due = std::iter::from_fn(|| drain.next_due(Uptime::from_ms(ms)));
        let last = u32::MAX;
        due.map(|id| last - id.age(last)).collect()
    }

    #[test]
    fn a_drain_spreads_the_closes_over_its_time() {
        let generations: Vec<u32> = (0..103).collect();
        let mut drain = drain(&generations, 100, 102, Duration::from_secs(10));
        let mut count = |ms| closed(&mut drain, ms).len();
        assert_eq!(
            [
                count(1000),
                count(1100),
                count(6000),
                count(10_999),
                count(11_000)
            ],
            [1, 1, 49, 49, 3]
        );
    }

    #[test]
    fn those_that_came_first_are_closed_first_and_those_that_come_meanwhile_last() {
        // The generations have wrapped.
        let last = 3;
        let generations = [2, u32::MAX, 0, 3, u32::MAX - 1, 1];
        let mut drain = drain(&generations, 4, last, Duration::from_secs(10));
        drain.add(ConnectionId::new(9, 5));
        drain.add(ConnectionId::new(8, 4));
        assert_eq!(closed(&mut drain, 10_999), [u32::MAX, 0, 2, 3]);
        assert_eq!(closed(&mut drain, 11_000), [u32::MAX - 1, 1, 5, 4]);
    }

    #[test]
    fn a_drain_without_time_closes_all_at_once() {
        let mut drain = drain(&[0, 1, 2], 3, 2, Duration::ZERO);
        assert_eq!(closed(&mut drain, 1000), [0, 1, 2]);
    }
}
