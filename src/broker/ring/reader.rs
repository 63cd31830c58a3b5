//! The end of the ring that reads.
//!
//! A reader has a cursor, which every publisher looks at before it uses a slot or a buffer again. So a reader
//! that does not read stops all publishers. The invariants, named here by their numbers, stand at the head of
//! `ring/mod.rs`.
#![allow(unsafe_code)] // reads slots and buffers in place while their publisher owns them

use std::sync::Arc;

use super::memory::{FIRST, RingMemory};
use super::sleepers::Sleepers;
use crate::broker::hash::ChannelHash;
use crate::broker::publication::{Publication, Sequence};
use crate::sync::{Ordering, fence};

/// An end of the ring that reads.
#[derive(Debug)]
pub struct Reader {
    pub(super) memory: Arc<RingMemory>,
    /// Which reader this is, and which core wakes up for it.
    core: usize,
    /// The sequence to read next.
    next: u64,
    /// The value of this reader's cursor in `memory`.
    released: u64,
}

/// A publication, as one reader takes it from the ring.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The hash of its channel's name.
    pub hash: ChannelHash,
    /// The publication itself.
    pub publication: Publication<'a>,
}

impl Reader {
    /// The reader of a core. There is one for each cursor.
    pub(super) fn new(memory: Arc<RingMemory>, core: usize) -> Reader {
        Reader {
            memory,
            core,
            next: FIRST,
            released: FIRST,
        }
    }

    /// The next publication in the order, if it is there. Its bytes stay where they are until the cursor is released.
    #[expect(
        clippy::should_implement_trait,
        reason = "an item borrows the reader, so this is no Iterator"
    )]
    pub fn next(&mut self) -> Option<Delivery<'_>> {
        // SAFETY: as in `front`.
        let delivery = unsafe { self.memory.published(self.next) }?;
        self.next += 1;
        Some(delivery)
    }

    /// The publication that [`Reader::next`] would return; it stays the next.
    pub fn front(&self) -> Option<Delivery<'_>> {
        // SAFETY: by invariant 4 this reader's cursor is not ahead of `next`, and is not stored while the delivery
        // borrows this reader.
        unsafe { self.memory.published(self.next) }
    }

    /// Whether the next place is claimed by a publisher that has not published there yet: it will, if the system lets
    /// it run.
    pub fn front_is_pending(&self) -> bool {
        self.depth() > 0 && self.front().is_none()
    }

    /// Claims the next place and does not publish there, like a publisher that the system has suspended. The
    /// place stays empty.
    #[cfg(test)]
    pub(crate) fn claim_a_place(&self) -> bool {
        self.memory.claim(&mut self.memory.passed()).is_some()
    }

    /// Goes on behind the publication that [`Reader::front`] has returned.
    pub fn pass(&mut self) {
        debug_assert!(self.front().is_some(), "only what was read is passed");
        self.next += 1;
    }

    /// The place that is read next.
    pub fn place(&self) -> Sequence {
        Sequence(self.next)
    }

    /// Whether this reader has passed every publication before `place`, such as a place that
    /// [`Reader::claimed`] returned.
    pub fn has_passed(&self, place: Sequence) -> bool {
        self.next >= place.0
    }

    /// The end of all sequences that have been claimed. A core that is about to change subscriptions passes this place
    /// first, so that a subscription gets no publication from before it was asked for.
    pub fn claimed(&self) -> Sequence {
        Sequence(self.memory.claimed())
    }

    /// Moves the cursor behind all publications that were passed. Once per batch: it costs the publishers a miss.
    pub fn release(&mut self) {
        if self.released != self.next {
            self.released = self.next;
            self.memory.set_cursor(self.core, self.next);
        }
    }

    /// Publications in the ring that this reader has not taken.
    pub fn depth(&self) -> u64 {
        self.memory.claimed().saturating_sub(self.next)
    }

    /// Announces that this reader's core is about to sleep. `false` says that it must not: there is something
    /// to read, or soon will be. After `true`, the core sleeps until another thread wakes it, and then calls
    /// [`Reader::mark_awake`].
    #[must_use]
    pub fn prepare_sleep(&mut self) -> bool {
        self.release();
        self.memory.set_sleeping(self.core, true);
        // Pairs with the fence of `Publisher::try_publish`: see "Sleeping".
        fence(Ordering::SeqCst);
        let quiet = self.depth() == 0;
        if !quiet {
            self.memory.set_sleeping(self.core, false);
        }
        quiet
    }

    /// The flags of all cores, for letters from core to core.
    pub fn sleepers(&self) -> Sleepers {
        Sleepers::new(Arc::clone(&self.memory))
    }

    /// Says that this reader's core is awake and needs no waking.
    pub fn mark_awake(&mut self) {
        self.memory.set_sleeping(self.core, false);
    }
}

impl Drop for Reader {
    /// Removes this reader's cursor from the ring: no publisher waits for it any more.
    fn drop(&mut self) {
        self.memory.set_sleeping(self.core, false);
        self.memory.set_cursor(self.core, u64::MAX);
    }
}
