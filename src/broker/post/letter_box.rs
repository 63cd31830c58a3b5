//! A bounded queue with many senders and one receiver, none of which ever waits: the box of one core for the
//! letters of the other cores.
//!
//! ```text
//!          place   …   7    8    9   10   …             slot of a place: place mod slots
//!                    ┌────┬────┬────┬────┐
//!                    │ ok │ …  │ ok │free│              …: claimed, not yet filled
//!                    └────┴────┴────┴────┘
//!           taken ────┘              └──── claimed: the next place for a letter
//! ```
//! Put: raise `claimed` by one if there is room, fill the slot of that place, then store the place in it. Take: empty
//! the slot of the next place if that place is stored in it, then raise `taken`.
//!
//! A sender that the system suspends between its claim and its store holds up the letters behind it: until it goes on
//! there is nothing to take. The receiver does not wait for it, since [`Inbox::take`] returns; but the receiver's core
//! does not sleep either, since [`Inbox::has_letters`] counts claimed places. A bounded crossbeam channel spins in that
//! case, and loom cannot run it.
//!
//! Some slots are reserved: [`LetterBox::put_last`] finds room when all others are in use.
//!
//! Invariants
//! 1. The sender that has claimed a place is alone in writing its slot, from the claim to the store of the place. The
//!    receiver has emptied the slot before: `claim` compares with `taken`.
//! 2. From the store of a place to the moment at which `taken` passes the place, the receiver alone touches the slot.
//!    There is one [`Inbox`] for each box, and it takes mutably.
//! 3. The letters of one sender lie in the order in which it put them: it claims the places one after the other.
#![allow(unsafe_code)] // fills and empties slots that the protocol above gives to one thread at a time

use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering, UnsafeCell};

/// The end of a box into which letters are put. Each core has one for each box.
#[derive(Debug)]
pub(super) struct LetterBox<L>(Arc<Shared<L>>);

/// The end of a box from which letters are taken: its core has it.
#[derive(Debug)]
pub(super) struct Inbox<L> {
    shared: Arc<Shared<L>>,
    /// The place of the letter to take next.
    next: u64,
}

#[derive(Debug)]
struct Shared<L> {
    /// The next place to be claimed. Raised by the senders, read by all. Relaxed: it hands out numbers and guards no
    /// memory; where the receiver must see it in time, the fences of `Sleepers::take_sleeping` and of
    /// `Reader::prepare_sleep` give the order.
    claimed: Line<AtomicU64>,
    /// The letters before this place have been taken. Stored with release by the receiver after it has emptied a slot;
    /// loaded with acquire by senders, in `claim`, before they fill it again.
    taken: Line<AtomicU64>,
    slots: Box<[Slot<L>]>,
    /// Slots that are not reserved.
    letters_max: u64,
}

#[derive(Debug)]
struct Slot<L> {
    /// One more than the place whose letter was put here last; 0 if there was none. Stored with release by the sender,
    /// loaded with acquire by the receiver: it orders the letter.
    filled: AtomicU64,
    letter: UnsafeCell<Option<L>>,
}

// SAFETY: by invariants 1 and 2, one thread at a time touches the letter of a slot, and a letter may change threads.
unsafe impl<L: Send> Sync for Slot<L> {}

/// A box for `letters_max` letters, and for `reserved` more that are put by [`LetterBox::put_last`].
pub(super) fn letter_box<L>(letters_max: usize, reserved: usize) -> (LetterBox<L>, Inbox<L>) {
    let slots = (0..letters_max + reserved).map(|_| Slot {
        filled: AtomicU64::new(0),
        letter: UnsafeCell::new(None),
    });
    let shared = Arc::new(Shared {
        claimed: Line(AtomicU64::new(0)),
        taken: Line(AtomicU64::new(0)),
        slots: slots.collect(),
        letters_max: letters_max as u64,
    });
    let inbox = Inbox {
        shared: Arc::clone(&shared),
        next: 0,
    };
    (LetterBox(shared), inbox)
}

impl<L> LetterBox<L> {
    /// Puts a letter into the box, or gives it back if the box is full. The caller then wakes the receiver's core if it
    /// sleeps.
    pub(super) fn put(&self, letter: L) -> Result<(), L> {
        self.put_within(self.0.letters_max, letter)
    }

    /// Whether the box has room, as far as this thread knows.
    pub(super) fn has_room(&self) -> bool {
        let (claimed, taken) = (&self.0.claimed.0, &self.0.taken.0);
        let waiting = claimed
            .load(Ordering::Relaxed)
            .saturating_sub(taken.load(Ordering::Relaxed));
        waiting < self.0.letters_max
    }

    /// As [`LetterBox::put`], and may use a reserved slot: for the last letter of a sender.
    pub(super) fn put_last(&self, letter: L) -> Result<(), L> {
        self.put_within(self.0.slots.len() as u64, letter)
    }

    fn put_within(&self, room: u64, letter: L) -> Result<(), L> {
        let Some(place) = self.claim(room) else {
            return Err(letter);
        };
        let slot = self.0.slot(place);
        // SAFETY: invariant 1: this thread has claimed the place, and `claim` has acquired the emptying of the slot.
        slot.letter.with_mut(|to| unsafe { *to = Some(letter) });
        slot.filled.store(place + 1, Ordering::Release);
        Ok(())
    }

    /// Takes the next place, unless `room` letters already wait. Lock-free: a sender that does not get a place
    /// has lost it to another sender.
    fn claim(&self, room: u64) -> Option<u64> {
        let mut place = self.0.claimed.0.load(Ordering::Relaxed);
        loop {
            // The place may be old, and letters behind it taken: then the exchange fails.
            if place.saturating_sub(self.0.taken.0.load(Ordering::Acquire)) >= room {
                return None;
            }
            match self.0.claimed.0.compare_exchange_weak(
                place,
                place + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(place),
                Err(actual) => place = actual,
            }
        }
    }
}

impl<L> Clone for LetterBox<L> {
    fn clone(&self) -> LetterBox<L> {
        LetterBox(Arc::clone(&self.0))
    }
}

impl<L> Inbox<L> {
    /// The next letter, if it is there.
    pub(super) fn take(&mut self) -> Option<L> {
        let slot = self.shared.slot(self.next);
        if slot.filled.load(Ordering::Acquire) != self.next + 1 {
            return None;
        }
        // SAFETY: invariant 2: the acquire load has seen that the place is filled, and `taken` has not passed it.
        let letter = slot.letter.with_mut(|from| unsafe { (*from).take() });
        self.next += 1;
        self.shared.taken.0.store(self.next, Ordering::Release);
        letter
    }

    /// Whether there are letters that have not been taken, or soon will be. One load. A core asks this once more after
    /// [`Reader::prepare_sleep`](crate::broker::Reader::prepare_sleep) before it sleeps.
    #[inline]
    pub(super) fn has_letters(&self) -> bool {
        self.shared.claimed.0.load(Ordering::Relaxed) != self.next
    }

    /// The place behind all letters that were put so far.
    pub(super) fn end(&self) -> u64 {
        self.shared.claimed.0.load(Ordering::Relaxed)
    }

    /// Whether all letters before a place have been taken.
    pub(super) fn has_reached(&self, place: u64) -> bool {
        self.next >= place
    }

    /// Whether the next place is claimed by a sender that has not put its letter there yet.
    pub(super) fn front_is_pending(&self) -> bool {
        self.has_letters() && self.shared.slot(self.next).filled.load(Ordering::Acquire) != self.next + 1
    }
}

impl<L> Shared<L> {
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is an index")]
    fn slot(&self, place: u64) -> &Slot<L> {
        &self.slots[(place % self.slots.len() as u64) as usize]
    }
}

/// A value on cache lines of its own: two of 64 bytes, since they are fetched in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

#[cfg(all(test, not(ringcast_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_full_box_gives_letters_back_and_takes_them_when_there_is_room() {
        let (letters, mut inbox) = letter_box(2, 0);
        assert!(!inbox.has_letters() && inbox.take().is_none());
        for round in 0..10 {
            assert_eq!((letters.put(round), letters.put(round + 100)), (Ok(()), Ok(())));
            assert_eq!(letters.put(round + 200), Err(round + 200));
            assert_eq!(inbox.take(), Some(round));
            assert_eq!(letters.put(round + 200), Ok(()));
            assert!(inbox.has_letters() && !inbox.front_is_pending());
            assert_eq!(
                (inbox.take(), inbox.take()),
                (Some(round + 100), Some(round + 200))
            );
            assert!(!inbox.has_letters() && inbox.take().is_none());
        }
    }

    #[test]
    fn a_last_letter_has_room_in_a_full_box_and_comes_last() {
        let (letters, mut inbox) = letter_box(1, 2);
        let other = letters.clone();
        assert_eq!((letters.put(1), other.put(2)), (Ok(()), Err(2)));
        assert_eq!((letters.put_last(10), other.put_last(20)), (Ok(()), Ok(())));
        assert_eq!(other.put_last(30), Err(30), "one for each sender");
        assert_eq!((inbox.take(), inbox.take()), (Some(1), Some(10)));
        assert_eq!(other.put(40), Err(40), "a reserved slot is in use");
        assert_eq!((inbox.take(), inbox.take()), (Some(20), None));
        assert_eq!(letters.put(50), Ok(()));
    }

    #[test]
    fn letters_that_nobody_takes_are_dropped_with_the_box() {
        let letter = Arc::new(());
        let (letters, mut inbox) = letter_box(3, 0);
        for _ in 0..3 {
            letters.put(Arc::clone(&letter)).unwrap();
        }
        drop(inbox.take());
        assert_eq!(Arc::strong_count(&letter), 3);
        drop(inbox);
        assert_eq!(Arc::strong_count(&letter), 3, "senders may still have the box");
        drop(letters);
        assert_eq!(Arc::strong_count(&letter), 1);
    }

    #[test]
    fn a_place_that_is_claimed_and_not_filled_is_told_from_an_empty_box() {
        let (letters, mut inbox) = letter_box(4, 0);
        let place = letters.claim(4).unwrap();
        letters.put('b').unwrap();
        assert!(inbox.has_letters() && inbox.front_is_pending() && inbox.take().is_none());
        let slot = letters.0.slot(place);
        // SAFETY: the place was claimed just now.
        slot.letter.with_mut(|to| unsafe { *to = Some('a') });
        slot.filled.store(place + 1, Ordering::Release);
        assert_eq!((inbox.take(), inbox.take()), (Some('a'), Some('b')));
    }

    #[test]
    fn threads_that_put_at_the_same_time_lose_nothing_and_keep_their_order() {
        const EACH: u64 = 20_000;
        let (letters, mut inbox) = letter_box(7, 0);
        std::thread::scope(|scope| {
            for sender in 0..3_u64 {
                let letters = letters.clone();
                scope.spawn(move || {
                    for number in 0..EACH {
                        while letters.put((sender, number)).is_err() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0; 3];
            while next.iter().sum::<u64>() < 3 * EACH {
                let Some((sender, number)) = inbox.take() else {
                    std::thread::yield_now();
                    continue;
                };
                let expected = &mut next[usize::try_from(sender).unwrap()];
                assert_eq!(number, *expected);
                *expected += 1;
            }
        });
        assert!(!inbox.has_letters());
    }
}
