//! Post: letters from core to core.
//!
//! ```text
//!   core 0  PostEnd ──┐                  ┌─► box of core 1 ──► PostEnd  core 1
//!                     ├─ by kept, if the │
//!                     │  box is full     └─► box of core 2 ──► PostEnd  core 2
//!                     └─ own letters ──► itself
//! ```
//! Each core has a box of bounded size, into which all other cores put their letters (`letter_box.rs`). A letter to the
//! own core goes into a queue of the core, and is taken like the others.
//!
//! A core sends letters in the course of its turn, and wakes the receivers together ([`PostEnd::take_wakes`]): only
//! those that sleep, by the flags of the ring (`ring/sleepers.rs`). As in the ring, this module says which cores are to
//! be woken, and its caller wakes them.
//!
//! Invariants
//! 1. Letters from one core to another are taken in the order in which they were sent. A box keeps the order of each
//!    sender; while letters to a core are kept here, later ones queue behind them. A letter that was put into a box is
//!    taken before each letter that any core sends there afterwards: a letter of the core to itself comes behind those
//!    that lay in its box.
//! 2. No letter stays in the box of a core that sleeps without a wake-up. The receiver asks
//!    [`PostEnd::has_letters`] after `Reader::prepare_sleep`, and does not sleep if there are letters. The
//!    sender asks [`PostEnd::take_wakes`] before it sleeps.
//! 3. The last letter of a core comes behind all others of that core and never finds the box full: in each box, a slot
//!    is reserved for the last letter of each other core.
//!
//! Waits: none. A letter that finds the box full stays with its sender, which tries again in its next turns.
//! Until then the sender must not sleep without a time limit, since no core tells it that the box has room
//! again. The sender also takes letters meanwhile, so two cores with full boxes never wait for each other.
//!
//! A core that has stopped takes no letters: when its last letter has been noted, letters to it are dropped.
//!
//! Limits: the size of a box is given by the caller. The letters that are kept for a full box are bounded by
//! their kinds (`cores/letters.rs`); a sender that can wait asks [`PostEnd::has_room`] first.

mod letter_box;

use std::collections::VecDeque;
use std::sync::Arc;

use super::core_set::CoreSet;
use super::ring::Sleepers;

use letter_box::{Inbox, LetterBox, letter_box};

/// One core's end of the post.
#[derive(Debug)]
pub struct PostEnd<L> {
    core: usize,
    /// The boxes of all cores.
    boxes: Arc<[LetterBox<L>]>,
    inbox: Inbox<L>,
    sleepers: Sleepers,
    /// The letters of this core to itself, each with the end of the box at the time.
    own: VecDeque<(u64, L)>,
    /// For each core, the letters that its box had no room for.
    kept: Box<[VecDeque<L>]>,
    kept_count: usize,
    /// The cores into whose boxes letters were put since the last [`PostEnd::take_wakes`].
    receivers: CoreSet,
    /// The cores that have stopped.
    stopped: CoreSet,
}

/// The fate of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It will be taken, unless the receiver stops before.
    Sent,
    /// The box is full. The letter is kept until [`PostEnd::send_kept`] finds room.
    Kept,
    /// The receiver has stopped. The letter is dropped.
    Dropped,
}

/// The ends of the post of as many cores as there are `sleepers`, each with a box for `letters_max` letters.
pub fn post<L>(letters_max: usize, sleepers: Vec<Sleepers>) -> Vec<PostEnd<L>> {
    let cores = sleepers.len();
    let others = cores.saturating_sub(1);
    let (boxes, inboxes): (Vec<_>, Vec<_>) = (0..cores).map(|_| letter_box(letters_max, others)).unzip();
    let boxes: Arc<[_]> = boxes.into();
    let ends = inboxes.into_iter().zip(sleepers).enumerate();
    ends.map(|(core, (inbox, sleepers))| PostEnd {
        core,
        boxes: Arc::clone(&boxes),
        inbox,
        sleepers,
        own: VecDeque::new(),
        kept: (0..cores).map(|_| VecDeque::new()).collect(),
        kept_count: 0,
        receivers: CoreSet::EMPTY,
        stopped: CoreSet::EMPTY,
    })
    .collect()
}

impl<L> PostEnd<L> {
    /// Sends a letter to a core, which may be this one. If the box of `to` is full, the letter is kept.
    pub fn send(&mut self, to: usize, letter: L) -> Sent {
        if to == self.core {
            self.own.push_back((self.inbox.end(), letter));
            return Sent::Sent;
        }
        if self.stopped.contains(to) {
            return Sent::Dropped;
        }
        let refused = if self.kept[to].is_empty() {
            self.boxes[to].put(letter).err()
        } else {
            Some(letter)
        };
        if let Some(letter) = refused {
            self.kept[to].push_back(letter);
            self.kept_count += 1;
            return Sent::Kept;
        }
        self.receivers.insert(to);
        Sent::Sent
    }

    /// Sends a letter to a core, which may be this one, or gives it back if the box is full or other letters wait for
    /// room in it. A core that has stopped drops it.
    ///
    /// # Errors
    /// The letter, which was not sent.
    pub fn try_send(&mut self, to: usize, letter: L) -> Result<(), L> {
        if to == self.core || self.stopped.contains(to) {
            self.send(to, letter);
            return Ok(());
        }
        if !self.kept[to].is_empty() {
            return Err(letter);
        }
        self.boxes[to].put(letter)?;
        self.receivers.insert(to);
        Ok(())
    }

    /// Whether a letter to this core would find room now, as far as this core knows; if not, a caller that can wait
    /// tries again in a later turn. A letter to a core that has stopped needs no room.
    pub fn has_room(&self, to: usize) -> bool {
        to == self.core
            || self.stopped.contains(to)
            || (self.kept[to].is_empty() && self.boxes[to].has_room())
    }

    /// Sends letters that were kept, as far as there is room.
    pub fn send_kept(&mut self) {
        for (to, kept) in self.kept.iter_mut().enumerate() {
            while let Some(letter) = kept.pop_front() {
                if let Err(letter) = self.boxes[to].put(letter) {
                    kept.push_front(letter);
                    break;
                }
                self.kept_count -= 1;
                self.receivers.insert(to);
            }
        }
    }

    /// Whether letters were put into boxes since the last [`PostEnd::take_wakes`].
    #[inline]
    pub fn has_sent(&self) -> bool {
        !self.receivers.is_empty()
    }

    /// The cores that the caller must wake, out of the cores that letters were sent to since the last call.
    #[must_use]
    pub fn take_wakes(&mut self) -> CoreSet {
        self.sleepers.take_sleeping(std::mem::take(&mut self.receivers))
    }

    /// The next letter to this core, if there is one.
    pub fn take(&mut self) -> Option<L> {
        let inbox = &self.inbox;
        self.own
            .pop_front_if(|(end, _)| inbox.has_reached(*end))
            .map(|(_, letter)| letter)
            .or_else(|| self.inbox.take())
    }

    /// Sends every other core the last letter of this core. Letters that are kept are dropped. Returns the cores that
    /// the caller must wake.
    #[must_use]
    pub fn stop(mut self, last_letter: impl Fn() -> L) -> CoreSet {
        for to in (0..self.boxes.len()).filter(|to| *to != self.core) {
            let has_slot = self.boxes[to].put_last(last_letter()).is_ok();
            debug_assert!(has_slot, "a slot is reserved for each core");
            self.receivers.insert(to);
        }
        self.take_wakes()
    }

    /// Notes that a core has stopped, and drops the letters that are kept for it.
    pub fn note_stopped(&mut self, core: usize) {
        self.stopped.insert(core);
        self.kept_count -= std::mem::take(&mut self.kept[core]).len();
    }

    /// Whether there are letters to this core, or soon will be: it must not sleep then.
    #[inline]
    pub fn has_letters(&self) -> bool {
        self.inbox.has_letters() || !self.own.is_empty()
    }

    /// Whether the next letter of another core has a place in the box and is not there yet: it will be, if the system
    /// lets its sender run.
    pub fn front_is_pending(&self) -> bool {
        self.inbox.front_is_pending()
    }

    /// How many letters are kept because their boxes had no room.
    #[inline]
    pub fn kept_count(&self) -> usize {
        self.kept_count
    }
}

#[cfg(all(test, not(ringcast_loom)))]
mod tests;
