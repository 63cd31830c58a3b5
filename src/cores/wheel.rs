//! When each connection wants to be looked at again.
//!
//! A ring of slots, one for each tick of time; a connection sits in the slot of its next deadline. Traffic does not
//! touch the wheel: it only moves deadlines later, and a connection that is looked at too early is put back. So a
//! heartbeat costs one visit per interval, and a message costs nothing.
//!
//! ```text
//!   slots   [ .. | a b | .. | c | .. ]      one slot per TICK_MS, SLOTS of them, used in a circle
//!                  ^ cursor: all before it has been handed out
//!   occupied  one bit for each slot, to find the next visit without touching the slots
//! ```
//!
//! Invariants
//! 1. A visit is handed out at or after its time, never before, unless it is further away than the wheel reaches; then
//!    it is handed out early and the caller arms it again.
//! 2. Nothing is removed: a visit whose connection is gone or was armed for another time is handed out all the same
//!    and recognised by the caller ([`Visit::at`]).

use crate::clock::Uptime;

use super::connection::ConnectionId;

/// A wheel of deadlines.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<ConnectionId>>,
    occupied: [u64; SLOTS / 64],
    /// The first tick whose slot has not been handed out.
    cursor: u64,
}

/// One connection to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) id: ConnectionId,
    /// What `arm` answered.
    pub(super) at: Uptime,
}

impl Wheel {
    /// An empty wheel that begins at `now`.
    pub(super) fn new(now: Uptime) -> Wheel {
        Wheel {
            slots: vec![Vec::new(); SLOTS],
            occupied: [0; SLOTS / 64],
            cursor: tick_at(now),
        }
    }

    /// Asks for a visit of `id` at `deadline`, or as far ahead as the wheel reaches; answers when it will be.
    pub(super) fn arm(&mut self, id: ConnectionId, deadline: Uptime) -> Uptime {
        // Round up: a visit before its deadline would be for nothing.
        let wanted = tick_of(deadline);
        let tick = wanted.clamp(self.cursor, self.cursor + SLOTS as u64 - 1);
        let slot = slot_of(tick);
        self.slots[slot].push(id);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        Uptime::from_ms(tick * TICK_MS)
    }

    /// Moves all visits that are due at `now` to the end of `due`.
    pub(super) fn advance(&mut self, now: Uptime, due: &mut std::collections::VecDeque<Visit>) {
        let last = tick_at(now);
        // After a long pause each slot is still visited once only.
        let mut steps = (last + 1).saturating_sub(self.cursor).min(SLOTS as u64);
        while steps > 0 {
            let slot = slot_of(self.cursor);
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
                let at = Uptime::from_ms(self.cursor * TICK_MS);
                due.extend(self.slots[slot].drain(..).map(|id| Visit { id, at }));
                if self.slots[slot].capacity() > SLOT_KEPT_MAX {
                    self.slots[slot] = Vec::new();
                }
            }
            self.cursor += 1;
            steps -= 1;
        }
        self.cursor = self.cursor.max(last + 1);
    }

    /// When the next visit is due; `None` if there is none.
    pub(super) fn next(&self) -> Option<Uptime> {
        let start = slot_of(self.cursor);
        let words = self.occupied.len();
        // The first word twice: its bits from the cursor on, and at last those before it.
        (0..=words).find_map(|step| {
            let index = (start / 64 + step) % words;
            let mask = match step {
                0 => u64::MAX << (start % 64),
                _ if step == words => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let word = self.occupied[index] & mask;
            (word != 0).then(|| {
                let slot = (index * 64) as u64 + u64::from(word.trailing_zeros());
                let ahead = (slot + SLOTS as u64 - start as u64) % SLOTS as u64;
                Uptime::from_ms((self.cursor + ahead) * TICK_MS)
            })
        })
    }
}

/// Whether a deadline wants a visit before the one that is armed.
pub(super) fn is_sooner(deadline: Uptime, armed: Uptime) -> bool {
    tick_of(deadline) < tick_of(armed)
}

/// The first tick that is not before the deadline.
fn tick_of(deadline: Uptime) -> u64 {
    deadline.as_ms().div_ceil(TICK_MS)
}

fn tick_at(now: Uptime) -> u64 {
    now.as_ms() / TICK_MS
}

fn slot_of(tick: u64) -> usize {
    // The remainder is below SLOTS.
    usize::try_from(tick % SLOTS as u64).unwrap_or(0)
}

/// Milliseconds of one tick: deadlines are met to this precision, on the late side.
const TICK_MS: u64 = 4;
/// How far the wheel reaches: 16 s, twice the default ping interval.
const SLOTS: usize = 4096;
/// A slot that grew past this many visits gives its memory back.
const SLOT_KEPT_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn id(index: u32) -> ConnectionId {
        ConnectionId::new(index, 0)
    }

    fn ids(due: &mut VecDeque<Visit>) -> Vec<ConnectionId> {
        due.drain(..).map(|visit| visit.id).collect()
    }

    #[test]
    fn a_visit_is_handed_out_at_its_time_and_not_before() {
        let mut wheel = Wheel::new(Uptime::from_ms(1000));
        let mut due = VecDeque::new();
        let at = wheel.arm(id(1), Uptime::from_ms(1500));
        assert_eq!(wheel.next(), Some(Uptime::from_ms(1500)));
        wheel.advance(Uptime::from_ms(1499), &mut due);
        assert_eq!(due.len(), 0);
        wheel.advance(Uptime::from_ms(1500), &mut due);
        assert_eq!(due.pop_front(), Some(Visit { id: id(1), at }));
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_deadline_that_is_armed_already_is_not_sooner() {
        let mut wheel = Wheel::new(Uptime::from_ms(0));
        for ms in 1..40 {
            let deadline = Uptime::from_ms(ms);
            let armed = wheel.arm(id(1), deadline);
            assert!(
                !is_sooner(deadline, armed),
                "{ms} ms would be armed again with each message"
            );
            assert!(is_sooner(Uptime::from_ms(ms.saturating_sub(5)), armed) || ms <= 4);
        }
        assert!(!is_sooner(Uptime::NEVER, Uptime::from_ms(8)));
    }

    #[test]
    fn a_deadline_beyond_the_reach_is_handed_out_early_once() {
        let mut wheel = Wheel::new(Uptime::from_ms(0));
        let mut due = VecDeque::new();
        wheel.arm(id(1), Uptime::NEVER);
        let reach = wheel.next().unwrap();
        assert!(reach.as_ms() >= 16_000);
        wheel.advance(reach, &mut due);
        assert_eq!(ids(&mut due), [id(1)]);
    }

    #[test]
    fn a_deadline_in_the_past_is_handed_out_next() {
        let mut wheel = Wheel::new(Uptime::from_ms(50_000));
        let mut due = VecDeque::new();
        wheel.arm(id(7), Uptime::from_ms(1));
        wheel.advance(Uptime::from_ms(50_000), &mut due);
        assert_eq!(ids(&mut due), [id(7)]);
    }

    #[test]
    fn after_a_long_pause_everything_is_handed_out_once() {
        let mut wheel = Wheel::new(Uptime::from_ms(0));
        let mut due = VecDeque::new();
        for index in 0..1000 {
            wheel.arm(id(index), Uptime::from_ms(u64::from(index) * 16));
        }
        wheel.advance(Uptime::from_ms(10_000_000), &mut due);
        let mut seen = ids(&mut due);
        seen.sort_by_key(|id| id.index());
        assert_eq!(seen, (0..1000).map(id).collect::<Vec<_>>());
        wheel.arm(id(1), Uptime::from_ms(10_000_100));
        assert_eq!(wheel.next(), Some(Uptime::from_ms(10_000_100)));
    }

    #[test]
    fn the_next_visit_is_found_wherever_the_cursor_stands() {
        for start in [0, 252, 256, 16_380, 16_384, 123_456] {
            for ahead in [4, 64, 256, 300, 8000, 16_000] {
                let mut wheel = Wheel::new(Uptime::from_ms(start));
                wheel.arm(id(1), Uptime::from_ms(start + ahead));
                let next = wheel.next().unwrap().as_ms();
                assert!(
                    (start + ahead..start + ahead + 4).contains(&next),
                    "{start} + {ahead}: {next}"
                );
            }
        }
    }
}
