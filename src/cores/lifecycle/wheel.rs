//! A timer wheel: when each connection must be visited next.
//!
//! The wheel is a ring of slots, one for each tick of time. A connection stands in the slot of its next deadline.
//! Traffic does not touch the wheel: it only moves deadlines later, and a connection that is visited too early is armed
//! again. So a heartbeat costs one visit for each interval, and a message costs nothing.
//!
//! ```text
//!   heads   [ .. | o | .. | o | .. ][ due ]   one slot per TICK_MS, SLOTS of them, used in a circle
//!                  ↕        ↕         ↕       each the head of a circular list
//!   links          7 ↔ 3    9         5 ↔ 2   of the connections that wait there
//!   occupied  one bit for each slot, to find the next visit without touching the slots
//!   words     one bit for each word of `occupied`, to find it without touching all of those
//! ```
//! The lists are linked through an entry of 8 bytes for each connection. Arming a deadline allocates nothing, and
//! moving one leaves nothing behind.
//!
//! Invariants
//! 1. A visit is handed out at or after its time, never before, unless it is further away than the wheel reaches; then
//!    it is handed out early and the caller arms it again.
//! 2. A connection is in one list at most. If it is in none, its links lead to itself.
//! 3. A slot whose list is not empty has its bit set. The bit of an empty slot is cleared when the slot is next
//!    examined.
//! 4. The bit of a word is set exactly while a bit in that word is.

use std::num::NonZeroU32;

use crate::clock::Uptime;
use crate::slab::Slab;

/// A wheel of deadlines. Connections are named by their indexes.
#[derive(Debug)]
pub(in crate::cores) struct Wheel {
    links: Slab<Links>,
    /// The heads of the lists: one for each slot, and behind them the head of the list of due visits.
    heads: Box<[Links]>,
    occupied: [u64; WORDS],
    words: u64,
    /// The first tick whose slot has not been handed out.
    cursor: u64,
}

/// The slot in which a visit is armed. It stands for one tick, until the wheel has passed that tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) struct Slot(u16);

impl Slot {
    /// No visit is armed.
    pub(in crate::cores) const NONE: Slot = Slot(u16::MAX);
}

/// The neighbours in a list.
#[derive(Clone, Copy, Debug)]
struct Links {
    next: NodeIndex,
    before: NodeIndex,
}

/// Names the links of a connection or the head of a list. Counted from 1, so that `Option<Links>` takes no extra room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeIndex(NonZeroU32);

impl NodeIndex {
    /// Heads are numbered above all possible connections, since descriptors have 31 bits.
    const FIRST_HEAD: u32 = 1 << 31;

    fn of_connection(index: u32) -> NodeIndex {
        debug_assert!(index < NodeIndex::FIRST_HEAD);
        NodeIndex(NonZeroU32::MIN.saturating_add(index))
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are SLOTS + 1 heads")]
    fn of_head(slot: usize) -> NodeIndex {
        NodeIndex(NonZeroU32::MIN.saturating_add(NodeIndex::FIRST_HEAD + slot as u32))
    }

    fn number(self) -> u32 {
        self.0.get() - 1
    }
}

impl Wheel {
    /// An empty wheel that begins at `now`.
    pub(in crate::cores) fn new(now: Uptime) -> Wheel {
        let empty = |slot| Links {
            next: NodeIndex::of_head(slot),
            before: NodeIndex::of_head(slot),
        };
        Wheel {
            links: Slab::new(),
            heads: (0..=DUE).map(empty).collect(),
            occupied: [0; WORDS],
            words: 0,
            cursor: tick_at(now),
        }
    }

    /// Arms a visit of a connection at `deadline`, or as far ahead as the wheel reaches. It replaces the visit that was
    /// armed before. Returns the slot.
    pub(in crate::cores) fn arm(&mut self, index: u32, deadline: Uptime) -> Slot {
        let place = NodeIndex::of_connection(index);
        if self.links.get(index as usize).is_some() {
            self.unlink(place);
        }
        // Round up: a visit before the deadline would do nothing.
        let tick = tick_of(deadline).clamp(self.cursor, self.cursor + SLOTS as u64 - 1);
        let slot = slot_of(tick);
        let head = NodeIndex::of_head(slot);
        let before = self.at(head).before;
        self.links.insert_at(index as usize, Links { next: head, before });
        self.at(before).next = place;
        self.at(head).before = place;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.words |= 1 << (slot / 64);
        Slot(u16::try_from(slot).unwrap_or(u16::MAX))
    }

    /// Whether a deadline is before the visit that is armed. A visit that is due or was handed out counts as
    /// later than all others.
    pub(in crate::cores) fn is_sooner(&self, deadline: Uptime, armed: Slot) -> bool {
        if armed == Slot::NONE {
            return deadline != Uptime::NEVER;
        }
        let ahead = (usize::from(armed.0) + SLOTS - slot_of(self.cursor)) % SLOTS;
        tick_of(deadline).max(self.cursor) < self.cursor + ahead as u64
    }

    /// Forgets a connection.
    pub(in crate::cores) fn disarm(&mut self, index: u32) {
        if self.links.get(index as usize).is_some() {
            self.unlink(NodeIndex::of_connection(index));
            self.links.remove(index as usize);
        }
    }

    /// Makes all visits due whose time has come at `now`.
    pub(in crate::cores) fn advance(&mut self, now: Uptime) {
        let last = tick_at(now);
        // Even after a long pause each slot is examined only once.
        let steps = (last + 1).saturating_sub(self.cursor).min(SLOTS as u64);
        for tick in self.cursor..self.cursor + steps {
            let slot = slot_of(tick);
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.clear(slot);
                self.make_due(slot);
            }
        }
        self.cursor = self.cursor.max(last + 1);
    }

    /// The next connection whose visit is due. It has no visit until it is armed again.
    pub(in crate::cores) fn take_due(&mut self) -> Option<u32> {
        if !self.has_due() {
            return None;
        }
        let place = self.heads[DUE].next;
        self.unlink(place);
        *self.at(place) = Links {
            next: place,
            before: place,
        };
        Some(place.number())
    }

    /// How many connections are in its lists.
    #[cfg(test)]
    pub(in crate::cores) fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether visits are due and not handed out yet.
    pub(in crate::cores) fn has_due(&self) -> bool {
        !self.is_empty(DUE)
    }

    /// When the next visit will be due; `None` if there is none.
    pub(in crate::cores) fn next(&mut self) -> Option<Uptime> {
        loop {
            let ahead = self.next_occupied()?;
            let tick = self.cursor + ahead;
            let slot = slot_of(tick);
            if !self.is_empty(slot) {
                return Some(Uptime::from_ms(tick * TICK_MS));
            }
            self.clear(slot);
        }
    }

    /// Clears the bit of a slot.
    fn clear(&mut self, slot: usize) {
        let word = &mut self.occupied[slot / 64];
        *word &= !(1 << (slot % 64));
        if *word == 0 {
            self.words &= !(1 << (slot / 64));
        }
    }

    /// The number of ticks from the cursor to the first slot whose bit is set.
    fn next_occupied(&self) -> Option<u64> {
        let start = slot_of(self.cursor);
        let first = start / 64;
        let ahead = self.occupied[first] & (u64::MAX << (start % 64));
        if ahead != 0 {
            return Some(u64::from(ahead.trailing_zeros()) - (start % 64) as u64);
        }
        // Then the words behind the first one, in a circle, and last the first word again, for its bits before the
        // cursor.
        let after = (first + 1) % WORDS;
        let rest = self.words.rotate_right(u32::try_from(after).unwrap_or(0));
        if rest == 0 {
            return None;
        }
        let word = (after + rest.trailing_zeros() as usize) % WORDS;
        let slot = word * 64 + self.occupied[word].trailing_zeros() as usize;
        Some(((slot + SLOTS - start) % SLOTS) as u64)
    }

    /// Appends the list of a slot to the list of due visits.
    fn make_due(&mut self, slot: usize) {
        if self.is_empty(slot) {
            return;
        }
        let (head, due) = (NodeIndex::of_head(slot), NodeIndex::of_head(DUE));
        let Links {
            next: first,
            before: last,
        } = self.heads[slot];
        self.heads[slot] = Links {
            next: head,
            before: head,
        };
        let end = self.heads[DUE].before;
        self.at(end).next = first;
        self.at(first).before = end;
        self.at(last).next = due;
        self.at(due).before = last;
    }

    /// Takes a connection out of its list. Its own links stay as they are.
    fn unlink(&mut self, place: NodeIndex) {
        let Links { next, before } = *self.at(place);
        self.at(before).next = next;
        self.at(next).before = before;
    }

    fn is_empty(&self, head: usize) -> bool {
        self.heads[head].next == NodeIndex::of_head(head)
    }

    fn at(&mut self, place: NodeIndex) -> &mut Links {
        match place.number().checked_sub(NodeIndex::FIRST_HEAD) {
            Some(head) => &mut self.heads[head as usize],
            None => &mut self.links[place.number() as usize],
        }
    }
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

/// Milliseconds of one tick. A visit is late by at most this much. Connections whose pings fall into one tick share a
/// wake-up: 10,000 idle connections wake a core at most 125 times a second.
const TICK_MS: u64 = 8;
/// The number of slots: the wheel reaches 32 s ahead, more than the 25 s between pings.
const SLOTS: usize = 4096;
/// The number of words that hold the bits of the slots.
const WORDS: usize = SLOTS / 64;
/// The index of the head of the list of due visits.
const DUE: usize = SLOTS;

const _: () = assert!(size_of::<Option<Links>>() == 8);
const _: () = assert!(WORDS == 64, "`words` has one bit for each word of `occupied`");
const _: () = assert!(
    SLOTS < u16::MAX as usize,
    "a slot number has 16 bits, and u16::MAX stands for no slot"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        wheel.advance(Uptime::from_ms(now_ms));
        std::iter::from_fn(|| wheel.take_due()).collect()
    }

    #[test]
    fn a_visit_is_handed_out_at_its_time_and_not_before() {
        let mut wheel = Wheel::new(Uptime::from_ms(1000));
        let at = Uptime::from_ms(1504);
        wheel.arm(1, Uptime::from_ms(1497));
        assert_eq!(wheel.next(), Some(at));
        assert!(due(&mut wheel, 1503).is_empty());
        assert_eq!(due(&mut wheel, 1504), [1]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_deadline_that_is_armed_already_is_not_sooner() {
        for start in [0, 7, 4095, 4096, 10_000] {
            let start = start * TICK_MS;
            let mut wheel = Wheel::new(Uptime::from_ms(start));
            for ms in start + 1..start + 40 {
                let deadline = Uptime::from_ms(ms);
                let armed = wheel.arm(1, deadline);
                assert!(
                    !wheel.is_sooner(deadline, armed),
                    "{ms} ms would be armed again with each message"
                );
                let before = Uptime::from_ms(ms.saturating_sub(TICK_MS + 1));
                assert!(wheel.is_sooner(before, armed) || ms <= start + TICK_MS);
                assert!(!wheel.is_sooner(Uptime::NEVER, armed));
            }
        }
    }

    #[test]
    fn a_deadline_beyond_the_reach_of_the_wheel_is_not_sooner_than_the_visit_at_its_end() {
        let mut wheel = Wheel::new(Uptime::from_ms(0));
        let reach_ms = SLOTS as u64 * TICK_MS;
        let deadline = Uptime::from_ms(3 * reach_ms);
        let armed = wheel.arm(1, deadline);
        for now_ms in (0..reach_ms - TICK_MS).step_by(1000) {
            wheel.advance(Uptime::from_ms(now_ms));
            assert!(!wheel.is_sooner(deadline, armed), "{now_ms} ms");
            assert!(
                wheel.is_sooner(Uptime::from_ms(now_ms + TICK_MS), armed) || now_ms + 3 * TICK_MS > reach_ms
            );
        }
    }

    #[test]
    fn any_deadline_is_sooner_than_no_visit() {
        let wheel = Wheel::new(Uptime::from_ms(1000));
        assert!(wheel.is_sooner(Uptime::from_ms(1_000_000_000), Slot::NONE));
        assert!(!wheel.is_sooner(Uptime::NEVER, Slot::NONE));
    }

    #[test]
    fn a_connection_waits_for_the_visit_it_asked_for_last() {
        let mut wheel = Wheel::new(Uptime::from_ms(0));
        for (index, ms) in [(1, 800), (2, 800), (3, 800), (2, 400), (3, 1600)] {
            wheel.arm(index, Uptime::from_ms(ms));
        }
        assert_eq!(due(&mut wheel, 400), [2]);
        assert_eq!(due(&mut wheel, 800), [1]);
        assert_eq!(wheel.next(), Some(Uptime::from_ms(1600)));
        // Even if the visit is due already.
        wheel.advance(Uptime::from_ms(1600));
        wheel.arm(3, Uptime::from_ms(2400));
        assert!(!wheel.has_due());
        assert_eq!(due(&mut wheel, 2400), [3]);
    }

    #[test]
    fn nothing_is_left_of_a_connection_that_was_forgotten() {
        let mut wheel = Wheel::new(Uptime::from_ms(0));
        for index in 0..5 {
            wheel.arm(index, Uptime::from_ms(800));
        }
        for index in [0, 2, 4, 4, 7] {
            wheel.disarm(index);
        }
        assert_eq!(wheel.links.len(), 2);
        wheel.advance(Uptime::from_ms(800));
        wheel.disarm(1);
        assert_eq!(wheel.take_due(), Some(3));
        wheel.disarm(3);
        assert_eq!((wheel.take_due(), wheel.links.len()), (None, 0));
        wheel.arm(9, Uptime::from_ms(1600));
        wheel.disarm(9);
        assert_eq!(wheel.next(), None, "nobody is to be woken for it");
    }

    #[test]
    fn a_deadline_beyond_the_reach_is_handed_out_early_once() {
        let mut wheel = Wheel::new(Uptime::from_ms(0));
        wheel.arm(1, Uptime::NEVER);
        let reach = wheel.next().unwrap();
        assert!(reach.as_ms() >= 32_000);
        assert_eq!(due(&mut wheel, reach.as_ms()), [1]);
    }

    #[test]
    fn a_deadline_in_the_past_is_handed_out_next() {
        let mut wheel = Wheel::new(Uptime::from_ms(50_000));
        wheel.arm(7, Uptime::from_ms(1));
        assert_eq!(due(&mut wheel, 50_000), [7]);
        // Not in the same turn again, or the turn would never end.
        wheel.arm(7, Uptime::from_ms(1));
        assert!(due(&mut wheel, 50_000).is_empty());
        assert_eq!(due(&mut wheel, 50_000 + TICK_MS), [7]);
    }

    #[test]
    fn after_a_long_pause_everything_is_handed_out_once_and_in_order() {
        let mut wheel = Wheel::new(Uptime::from_ms(0));
        for index in 0..1000 {
            wheel.arm(index, Uptime::from_ms(u64::from(index) * 16));
        }
        let all: Vec<u32> = (0..1000).collect();
        assert_eq!(due(&mut wheel, 10_000_000), all);
        wheel.arm(1, Uptime::from_ms(10_000_104));
        assert_eq!(wheel.next(), Some(Uptime::from_ms(10_000_104)));
    }

    #[test]
    fn the_next_visit_is_found_wherever_the_cursor_stands() {
        for start in [0, 504, 512, 32_760, 32_768, 123_456] {
            for ahead in [8, 64, 512, 600, 8000, 32_000] {
                let mut wheel = Wheel::new(Uptime::from_ms(start));
                wheel.arm(1, Uptime::from_ms(start + ahead));
                let next = wheel.next().unwrap().as_ms();
                assert!(
                    (start + ahead..start + ahead + TICK_MS).contains(&next),
                    "{start} + {ahead}: {next}"
                );
            }
        }
    }

    #[test]
    fn the_next_visit_is_the_first_of_all_that_wait() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |max: u32| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            u32::try_from(random % u64::from(max)).unwrap()
        };
        for _ in 0..200 {
            let mut now_ms = u64::from(below(100_000));
            let mut wheel = Wheel::new(Uptime::from_ms(now_ms));
            let mut waiting = std::collections::BTreeMap::new();
            for _ in 0..50 {
                let (index, reach_ms) = (below(8), [100, 1000, 30_000][below(3) as usize]);
                let tick = (now_ms + 1 + u64::from(below(reach_ms))).div_ceil(TICK_MS);
                let tick = tick.max(now_ms / TICK_MS + 1);
                wheel.arm(index, Uptime::from_ms(tick * TICK_MS));
                waiting.insert(index, tick);
                if below(3) == 0 {
                    let index = below(8);
                    wheel.disarm(index);
                    waiting.remove(&index);
                }
                if below(4) == 0 {
                    now_ms += u64::from(below(20_000));
                    due(&mut wheel, now_ms);
                    waiting.retain(|_, tick| *tick * TICK_MS > now_ms);
                }
                let first = waiting.values().min().map(|tick| Uptime::from_ms(tick * TICK_MS));
                assert_eq!(wheel.next(), first);
            }
        }
    }
}
