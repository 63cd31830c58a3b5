//! The end of the ring that publishes.
//!
//! A publisher has no cursor: it reads nothing, and no other publisher waits for it. It owns the buffers of
//! its publications, a share of the ring's bytes, and takes each buffer back once every cursor has passed it.
//! The invariants, named here by their numbers, stand at the head of `ring/mod.rs`.
#![allow(unsafe_code)] // fills slots, and owns what readers read in place

use std::collections::VecDeque;
use std::sync::Arc;

use super::buffer_pool::BufferPool;
use super::memory::{FIRST, Outstanding, RingMemory};
use crate::broker::core_set::CoreSet;
use crate::broker::hash::ChannelHash;
use crate::broker::position::Numbering;
use crate::broker::publication::{self, Facts, Sequence};
use crate::sync::{Ordering, fence};

/// Under pressure, a publisher looks for sleeping cores once per this many of its publications.
pub const PRESSURE_CHECK_EVERY: usize = 16;

/// A publisher reads the cursors of all readers, to take buffers back, when this many more buffers are out
/// than after the last look. With more frequent looks, cores would pass the lines of their cursors around for
/// each publication. With rarer looks, the buffers in use would no longer fit the first-level cache.
pub(super) const LOOK_EVERY: usize = 64;

/// Between turns, fewer than [`LOOK_EVERY`] publications, with at most this many bytes, may stay out though
/// their buffers could be taken back.
const LEFT_OUT_BYTES_MAX: usize = 64 * 1024;

/// An end of the ring that publishes.
#[derive(Debug)]
pub struct Publisher {
    memory: Arc<RingMemory>,
    /// The core on whose thread this publisher runs, if there is one: that core is awake and is not woken.
    own_core: CoreSet,
    /// Every cursor had reached this at the last look.
    passed: u64,
    numbering: Numbering,
    /// Own publications that a reader may still read, oldest first. Invariant 3.
    outstanding: VecDeque<Outstanding>,
    /// The number of outstanding publications at which the publisher next looks for buffers to take back.
    look_at: usize,
    pool: BufferPool,
}

/// A successful publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Published {
    /// Its place in the order.
    pub sequence: Sequence,
    /// The cores that the caller must wake: no other publisher will.
    pub wake: CoreSet,
}

/// The ring has no slot, or the publisher's share of the bytes is used up. Nothing was changed; the caller reads on and
/// tries later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct RingFull {
    /// The cores that the caller must wake, so that there will be room: no other publisher will.
    pub wake: CoreSet,
}

impl Publisher {
    /// A publisher that may have `bytes_max` in use.
    pub(super) fn new(
        memory: Arc<RingMemory>,
        own_core: CoreSet,
        bytes_max: usize,
        numbering: Numbering,
    ) -> Publisher {
        Publisher {
            memory,
            own_core,
            passed: FIRST,
            numbering,
            outstanding: VecDeque::new(),
            look_at: LOOK_EVERY,
            pool: BufferPool::new(bytes_max),
        }
    }

    /// Appends a publication, gathering the parts of its frame, unless the ring is full.
    ///
    /// The channel's owner is woken for a publication that it remembers or retains, as cores with subscribers
    /// are. Hashes nothing; copies the parts once; allocates until the pool has a buffer of that size.
    pub fn try_publish(
        &mut self,
        channel: &[u8],
        hash: ChannelHash,
        frame: &[&[u8]],
        facts: Facts,
    ) -> Result<Published, RingFull> {
        let bytes = publication::encoded_bytes(channel, frame);
        // Before the copy, so that a full ring costs little; `claim` may still find it full.
        if !self.has_room(bytes) {
            self.reclaim();
            if !self.has_room(bytes) {
                return Err(self.full());
            }
        }
        let mut buffer = self.pool.take(bytes);
        publication::write(&mut buffer, facts, channel, frame);
        self.outstanding.reserve(1); // invariant 5
        let Some(sequence) = self.memory.claim(&mut self.passed) else {
            self.pool.put_back(buffer);
            return Err(self.full());
        };
        if facts.marks.positioned {
            publication::write_offset(&mut buffer, &facts, self.numbering.offset(Sequence(sequence)));
        }
        // SAFETY: the sequence has just been claimed and is published here alone; the buffer goes into `outstanding`,
        // as invariant 3 demands, and a `Vec` that moves leaves its bytes where they are.
        unsafe { self.memory.publish(sequence, hash, &buffer) };
        self.outstanding.push_back(Outstanding { sequence, buffer });
        if self.outstanding.len() >= self.look_at {
            self.reclaim();
        }
        // Pairs with the fence of `Reader::prepare_sleep`: see "Sleeping".
        fence(Ordering::SeqCst);
        let concerned = self.concerned(hash, facts.marks.remembered || facts.retain);
        let mut wake = self.memory.take_sleeping(concerned.without(self.own_core));
        if self.is_half_full() && self.outstanding.len().is_multiple_of(PRESSURE_CHECK_EVERY) {
            self.reclaim();
            if self.is_half_full() {
                wake = wake.union(self.take_sleeping_lagging_cores());
            }
        }
        Ok(Published {
            sequence: Sequence(sequence),
            wake,
        })
    }

    /// Takes back the buffers of own publications that every cursor has passed.
    pub fn reclaim(&mut self) {
        self.passed = self.memory.passed();
        while let Some(oldest) = self
            .outstanding
            .pop_front_if(|oldest| oldest.sequence < self.passed)
        {
            self.pool.put_back(oldest.buffer);
        }
        self.look_at = self.outstanding.len() + LOOK_EVERY;
    }

    /// As [`Publisher::reclaim`], if enough is out to be worth reading every reader's cursor. For the end of
    /// a turn, so that a core that falls asleep does not keep much.
    pub fn reclaim_much(&mut self) {
        if self.outstanding.len() >= LOOK_EVERY || self.pool.lent_bytes() > LEFT_OUT_BYTES_MAX {
            self.reclaim();
        }
    }

    /// Whether fewer than this many own publications are in the ring; for a publisher that leaves room for
    /// others.
    ///
    /// # Errors
    /// There are as many or more; the error is the same as that of [`Publisher::try_publish`] when the ring
    /// is full.
    pub(crate) fn has_fewer_than(&mut self, outstanding_max: usize) -> Result<(), RingFull> {
        if self.outstanding.len() < outstanding_max {
            return Ok(());
        }
        self.reclaim();
        if self.outstanding.len() < outstanding_max {
            return Ok(());
        }
        Err(self.full())
    }

    /// Whether any core has subscribers of a channel, or maybe has.
    pub(crate) fn is_awaited(&self, hash: ChannelHash) -> bool {
        !self.memory.interested(hash).is_empty()
    }

    /// The cores that a publication concerns: the cores that have subscribers, or may have some, and the
    /// channel's owner if it keeps the publication.
    pub(crate) fn concerned(&self, hash: ChannelHash, is_kept: bool) -> CoreSet {
        let mut concerned = self.memory.interested(hash);
        if is_kept {
            concerned.insert(self.memory.owner(hash));
        }
        concerned
    }

    /// The core that publishes, as a set; empty if the publisher is on no core's thread.
    pub(crate) fn own_core(&self) -> CoreSet {
        self.own_core
    }

    /// Own publications that have not been taken back.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Bytes of own publications that have not been taken back.
    pub(crate) fn lent_bytes(&self) -> usize {
        self.pool.lent_bytes()
    }

    /// Whether [`Publisher::give_back`] has something to free.
    pub(crate) fn keeps_much(&self) -> bool {
        self.pool.keeps_much()
    }

    /// Takes back the buffers that every cursor has passed, and frees a part of the buffers that have not
    /// been needed since the last call. To be called now and then.
    #[cold]
    pub(crate) fn give_back(&mut self) {
        self.reclaim();
        self.pool.give_back();
    }

    /// Bytes of buffers that are kept for own publications to come.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.pool.kept_bytes()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.pool.has_room(bytes) && self.memory.has_slot(self.memory.claimed(), self.passed)
    }

    #[cold]
    fn full(&self) -> RingFull {
        RingFull {
            wake: self.take_sleeping_lagging_cores(),
        }
    }

    /// Whether half of the slots, or of this publisher's bytes, are in use as far as it knows.
    fn is_half_full(&self) -> bool {
        self.memory.claimed().saturating_sub(self.passed) > self.memory.slot_count() / 2
            || self.pool.lent_bytes() > self.pool.bytes_max() / 2
    }

    /// The sleeping cores that keep this publisher's oldest publication, or the oldest quarter of the ring, from being
    /// taken back.
    #[cold]
    fn take_sleeping_lagging_cores(&self) -> CoreSet {
        let own = self.outstanding.front().map_or(0, |oldest| oldest.sequence);
        let behind = own.max(self.passed + self.memory.slot_count() / 4);
        // A core that has read everything keeps nothing. Two such cores that wait for room would wake each
        // other without end.
        let lagging_cores = self.memory.lagging_cores(behind, self.memory.claimed());
        self.memory.take_sleeping(lagging_cores.without(self.own_core))
    }
}

impl Drop for Publisher {
    /// The buffers stay until the ring goes: readers may still read them.
    fn drop(&mut self) {
        self.memory.keep_buffers(std::mem::take(&mut self.outstanding));
    }
}
