//! Slots, sequences, cursors, back-pressure: the only lock-free algorithm.
//!
//! Every publication of every core passes through one ring of slots, and every core reads every slot. A core calls
//! [`Ring::next`] until there is no more, then [`Ring::release`]; it publishes with [`Ring::try_publish`]. A core that
//! takes its time over a publication reads it with [`Ring::front`], as often as it likes, until [`Ring::pass`].
//!
//! ```text
//!            sequence  …  41   42   43   44   45   46  …            slot of a sequence: sequence mod slots
//!                        ┌────┬────┬────┬────┬────┬────┐
//!                        │ ok │ ok │ ok │ …  │ ok │free│            …: claimed, not yet published
//!                        └────┴────┴────┴────┴────┴────┘
//!            cursor of core 0 ─┘         └─ cursor of core 1        └─ head: the next to be claimed
//!
//!   slot, 32 bytes   [ sequence 8 | hash 8 | pointer 8 | length 8 ] ──► buffer in the memory of its producer
//! ```
//! Claim: raise the head by one, if the slot there has been passed by every cursor. Publish: fill the slot, then store
//! its sequence. A reader takes the slot at its own place when the stored sequence is the one it waits for. The
//! producer keeps its buffers in `outstanding`, oldest first, and takes back those that every cursor has passed.
//!
//! Invariants
//! 1. Only the core that claimed a sequence writes its slot, between claim and publish, and every cursor has passed
//!    the slot's last use by then. Kept by [`Ring::claim`].
//! 2. From its publish until every cursor has passed it, a slot does not change. Follows from 1.
//! 3. From its publish until every cursor has passed it, a buffer is neither written nor freed: it lies in
//!    `outstanding`, which only [`Ring::reclaim`] and `drop` empty.
//! 4. A cursor never passes what its core still borrows: a [`Delivery`] borrows the [`Ring`], and the cursor is stored
//!    by [`Ring::release`] and `drop` alone, which need it mutably. Nor what its core has not passed: the cursor is
//!    never ahead of `next`.
//! 5. Between claim and publish nothing waits, allocates or can fail.
//!
//! Waiting. Nothing here waits. A slot may be claimed and not yet published: then there is nothing to read, but its core
//! does not sleep, and by 5 the claimer waits for nobody. [`Ring::try_publish`] does not wait either: a core that finds the ring full reads on and tries again later, so no
//! two cores ever wait for each other. Nobody tells it that there is room, so it must not sleep without a time limit
//! while it has something to publish; and it may be its own cursor that is in the way.
//!
//! Sleeping. A core sets its flag, passes a fence, and sleeps if the head then stands at its cursor. A producer raises
//! the head, passes a fence, and then reads the directory and the flags. Of two fences one is first: either the
//! producer sees the flag (and the directory bits set before), or the core sees the head. The head is what counts, not
//! the next slot: an earlier slot may be claimed by a core whose channel is of no interest here, and nobody would wake
//! us for the later one that is. Only one producer wins the flag, by a swap, and its caller does the waking.
//! A core that sleeps because nothing concerns it keeps its old cursor; when half of the ring or of a producer's bytes
//! are in use, or all, the cores that lag and sleep are woken too.
//!
//! Cost of a publication, counted in accesses to memory that other cores write (RMW: one locked instruction)
//! - publish: head, load and RMW (1 line, moves between producers); slot, 3 plain stores and 1 store (half a line); 1
//!   fence; directory, 1 load; per interested other core, 1 load of its flag (moves only when that core sleeps), and 1
//!   RMW if it sleeps. The cursors of all cores, 1 load each (a line that moves if that core has read since), only when
//!   the head is a ring ahead of the last look, once per [`LOOK_EVERY`] publications, once per turn that has as many to
//!   take back, and once per [`PRESSURE_CHECK_EVERY`] publications under pressure. `ring/cost.rs` counts all this.
//! - reading, not interested: slot, 1 load and the hash beside it (half a line). The buffer is not touched.
//! - reading, interested: besides, the buffer, lines as it has. No reference count, no store.
//! - per batch read: 1 store of the own cursor.
#![allow(unsafe_code)] // slots and buffers are read in place by all cores while one owns them: see the invariants

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::buffer_pool::BufferPool;
use super::core_set::CoreSet;
use super::directory::Directory;
use super::hash::ChannelHash;
use super::publication::{self, Publication, Sequence};
use crate::sync::{AtomicBool, AtomicU64, Ordering, UnsafeCell, fence};

/// Under pressure, a producer looks for sleeping cores once per so many of its publications.
pub const PRESSURE_CHECK_EVERY: usize = 16;

/// A producer reads the cursors of all cores, to take buffers back, when so many more are out than after the last look.
/// More often, cores would pass the lines of their cursors around for each publication; less often, the buffers in use
/// would no longer fit the first-level cache.
const LOOK_EVERY: usize = 64;

/// What may stay out between turns though it could be taken back, besides fewer than [`LOOK_EVERY`] publications.
const LEFT_OUT_BYTES_MAX: usize = 64 * 1024;

/// One core's end of the ring.
#[derive(Debug)]
pub struct Ring {
    shared: Arc<RingMemory>,
    core: usize,
    /// The sequence to read next.
    next: u64,
    /// The value of this core's cursor in `shared`.
    released: u64,
    /// Every cursor had reached this at the last look.
    passed: u64,
    /// Own publications that a core may still read, oldest first. Invariant 3.
    outstanding: VecDeque<Outstanding>,
    /// How many are outstanding when it is time to look which can be taken back.
    look_at: usize,
    pool: BufferPool,
}

/// A publication, as one core takes it from the ring.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The hash of its channel's name.
    pub hash: ChannelHash,
    /// What was published.
    pub publication: Publication<'a>,
}

/// A publish that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Published {
    /// Its place in the order.
    pub sequence: Sequence,
    /// The cores to wake: nobody else will.
    pub wake: CoreSet,
}

/// The ring has no slot, or this core's share of the bytes is used up. Nothing was changed; read on and try later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct RingFull {
    /// The cores to wake, so that there will be room: nobody else will.
    pub wake: CoreSet,
}

impl Ring {
    /// Appends a publication, gathering the parts of its frame, unless the ring is full.
    ///
    /// Hashes nothing; copies the parts once; allocates until the pool has a buffer of that size.
    pub fn try_publish(
        &mut self,
        channel: &[u8],
        hash: ChannelHash,
        frame: &[&[u8]],
        at_ns: u64,
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
        publication::write(&mut buffer, at_ns, channel, frame);
        self.outstanding.reserve(1); // invariant 5
        let Some(sequence) = self.claim() else {
            self.pool.put_back(buffer);
            return Err(self.full());
        };
        self.shared.publish(sequence, hash, &buffer);
        self.outstanding.push_back(Outstanding { sequence, buffer });
        if self.outstanding.len() >= self.look_at {
            self.reclaim();
        }
        // Pairs with the fence of `prepare_sleep`: see "Sleeping".
        fence(Ordering::SeqCst);
        let interested = self.shared.directory.interested(hash).without(self.core);
        let mut wake = self.shared.rouse(interested);
        if self.is_pressed() && self.outstanding.len().is_multiple_of(PRESSURE_CHECK_EVERY) {
            self.reclaim();
            if self.is_pressed() {
                wake = wake.union(self.rouse_laggards());
            }
        }
        Ok(Published {
            sequence: Sequence(sequence),
            wake,
        })
    }

    /// The next publication in the order, if it is there. What it borrows stays until the cursor is released.
    #[expect(
        clippy::should_implement_trait,
        reason = "an item borrows the ring, so this is no Iterator"
    )]
    pub fn next(&mut self) -> Option<Delivery<'_>> {
        let delivery = self.shared.published(self.next)?;
        self.next += 1;
        Some(delivery)
    }

    /// What [`Ring::next`] would return; it stays the next.
    pub fn front(&self) -> Option<Delivery<'_>> {
        self.shared.published(self.next)
    }

    /// Whether the next place is claimed by a core that has not published there yet: it will, if the system lets it run.
    pub fn front_is_pending(&self) -> bool {
        self.depth() > 0 && self.front().is_none()
    }

    /// Goes on behind what [`Ring::front`] has returned.
    pub fn pass(&mut self) {
        debug_assert!(self.front().is_some(), "only what was read is passed");
        self.next += 1;
    }

    /// Whether this core has gone on behind all before `place`, such as [`Ring::claimed`] was.
    pub fn has_passed(&self, place: Sequence) -> bool {
        self.next >= place.0
    }

    /// The end of all that has been claimed. A core that is to change who is subscribed passes this place first, so that
    /// a subscription gets nothing that was published before it was asked for.
    pub fn claimed(&self) -> Sequence {
        // Relaxed: what happened before this call, on any core, had raised the head before.
        Sequence(self.shared.head.0.load(Ordering::Relaxed))
    }

    /// Gives back the slots of all that was passed. Once per batch: it costs the producers a miss.
    pub fn release(&mut self) {
        if self.released != self.next {
            self.released = self.next;
            self.shared.cores[self.core]
                .cursor
                .0
                .store(self.next, Ordering::Release);
        }
    }

    /// Takes back the buffers of own publications that every core has passed.
    pub fn reclaim(&mut self) {
        self.passed = self.shared.passed();
        while let Some(oldest) = self
            .outstanding
            .pop_front_if(|oldest| oldest.sequence < self.passed)
        {
            self.pool.put_back(oldest.buffer);
        }
        self.look_at = self.outstanding.len() + LOOK_EVERY;
    }

    /// As [`Ring::reclaim`], if what is out is worth reading every core's cursor. For the end of a turn, so that a core
    /// that falls asleep does not keep much.
    pub fn reclaim_much(&mut self) {
        if self.outstanding.len() >= LOOK_EVERY || self.pool.lent_bytes() > LEFT_OUT_BYTES_MAX {
            self.reclaim();
        }
    }

    /// Publications in the ring that this core has not taken.
    pub fn depth(&self) -> u64 {
        self.claimed().0.saturating_sub(self.next)
    }

    /// Own publications that have not been taken back.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Bytes of own publications that have not been taken back.
    pub(crate) fn lent_bytes(&self) -> usize {
        self.pool.lent_bytes()
    }

    /// Whether [`Ring::give_back`] has something to free.
    pub(crate) fn keeps_much(&self) -> bool {
        self.pool.keeps_much()
    }

    /// Takes back what can be, and frees a part of the buffers that nobody has needed since the last call. To be called now
    /// and then.
    #[cold]
    pub(crate) fn give_back(&mut self) {
        self.reclaim();
        self.pool.give_back();
    }

    /// Bytes of buffers that are kept for own publications to come.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.pool.kept_bytes()
    }

    /// Announces that this core is about to sleep. `false` says that it must not: there is something to read, or soon
    /// will be. After `true`, it sleeps until woken, then says [`Ring::awake`].
    #[must_use]
    pub fn prepare_sleep(&mut self) -> bool {
        self.release();
        let sleeping = &self.shared.cores[self.core].sleeping.0;
        sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence of `try_publish`: see "Sleeping".
        fence(Ordering::SeqCst);
        let quiet = self.depth() == 0;
        if !quiet {
            sleeping.store(false, Ordering::Relaxed);
        }
        quiet
    }

    /// Says that this core is awake and needs no waking.
    pub fn awake(&mut self) {
        self.shared.cores[self.core]
            .sleeping
            .0
            .store(false, Ordering::Relaxed);
    }

    /// Takes the next sequence, if every cursor has passed the last use of its slot. Lock-free: who fails has lost to
    /// another core that did not.
    fn claim(&mut self) -> Option<u64> {
        let mut sequence = self.shared.head.0.load(Ordering::Relaxed);
        loop {
            if !self.has_slot(sequence) {
                self.passed = self.shared.passed();
                if !self.has_slot(sequence) {
                    return None;
                }
            }
            // Relaxed: the head hands out numbers and guards no memory. That a slot may be written follows from the
            // cursors, which this core itself has acquired; that it may be read, from the slot's own sequence.
            match self.shared.head.0.compare_exchange_weak(
                sequence,
                sequence + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(sequence),
                Err(actual) => sequence = actual,
            }
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.pool.has_room(bytes) && self.has_slot(self.claimed().0)
    }

    fn has_slot(&self, sequence: u64) -> bool {
        sequence.saturating_sub(self.passed) < self.shared.slot_count()
    }

    #[cold]
    fn full(&self) -> RingFull {
        RingFull {
            wake: self.rouse_laggards(),
        }
    }

    /// Whether half of the slots, or of this core's bytes, are in use as far as this core knows.
    fn is_pressed(&self) -> bool {
        self.claimed().0.saturating_sub(self.passed) > self.shared.slot_count() / 2
            || self.pool.lent_bytes() > self.pool.bytes_max() / 2
    }

    /// The sleeping cores that keep this core's oldest publication, or the oldest quarter of the ring, from being
    /// taken back.
    #[cold]
    fn rouse_laggards(&self) -> CoreSet {
        let own = self.outstanding.front().map_or(0, |oldest| oldest.sequence);
        let behind = own.max(self.passed + self.shared.slot_count() / 4);
        // One that has read all there is keeps nothing. Two that wait for room would wake each other without end.
        let end = self.claimed().0;
        let mut laggards = CoreSet::EMPTY;
        for (core, lines) in self.shared.cores.iter().enumerate() {
            // Relaxed: a wake-up too many or one retry too late does no harm.
            let cursor = lines.cursor.0.load(Ordering::Relaxed);
            if core != self.core && cursor <= behind && cursor < end {
                laggards.insert(core);
            }
        }
        self.shared.rouse(laggards)
    }
}

impl Drop for Ring {
    /// Leaves the others to it: the cursor stands in nobody's way, and the buffers stay until the ring goes.
    fn drop(&mut self) {
        let lines = &self.shared.cores[self.core];
        lines.sleeping.0.store(false, Ordering::Relaxed);
        lines.cursor.0.store(u64::MAX, Ordering::Release);
        // There is one `Ring` for each core, so the place is empty; and were it not, `set` would drop the buffers.
        let left = lines.left_behind.set(std::mem::take(&mut self.outstanding));
        assert!(left.is_ok(), "one ring for each core");
    }
}

/// A ring for each of `cores`, with `slots` rounded up to a power of two, where each core's publications may take an
/// equal share of `bytes_max`.
pub(crate) fn rings(cores: usize, slots: u32, bytes_max: u64, directory: &Arc<Directory>) -> Vec<Ring> {
    let shared = Arc::new(RingMemory {
        head: Line(AtomicU64::new(FIRST)),
        slots: (0..slots.max(1).next_power_of_two())
            .map(|_| Slot::new())
            .collect(),
        cores: (0..cores).map(|_| CoreLines::new()).collect(),
        directory: Arc::clone(directory),
    });
    let share = usize::try_from(bytes_max / (cores.max(1) as u64)).unwrap_or(usize::MAX);
    (0..cores)
        .map(|core| Ring {
            shared: Arc::clone(&shared),
            core,
            next: FIRST,
            released: FIRST,
            passed: FIRST,
            outstanding: VecDeque::new(),
            look_at: LOOK_EVERY,
            pool: BufferPool::new(share),
        })
        .collect()
}

/// The first sequence: 0 stands in slots that were never used.
const FIRST: u64 = 1;

/// A publication of this core that others may be reading.
#[derive(Debug)]
struct Outstanding {
    sequence: u64,
    buffer: Vec<u8>,
}

/// What all cores see.
#[derive(Debug)]
struct RingMemory {
    /// The next sequence to be claimed. Raised by every producer, one at a time; read by all. Relaxed: see `claim`;
    /// where it must be seen in time, the fences of `try_publish` and `prepare_sleep` do it.
    head: Line<AtomicU64>,
    slots: Box<[Slot]>,
    cores: Box<[CoreLines]>,
    directory: Arc<Directory>,
}

impl RingMemory {
    fn slot(&self, sequence: u64) -> &Slot {
        #[expect(clippy::cast_possible_truncation, reason = "masked by a usize")]
        let index = sequence as usize & (self.slots.len() - 1);
        &self.slots[index]
    }

    fn slot_count(&self) -> u64 {
        self.slots.len() as u64
    }

    /// What was published under a sequence that the caller's cursor has not passed, if it is there.
    fn published(&self, sequence: u64) -> Option<Delivery<'_>> {
        let slot = self.slot(sequence);
        if slot.sequence.load(Ordering::Acquire) != sequence {
            return None;
        }
        // SAFETY: invariant 2: it was published, as the acquire load has seen, and the caller's cursor has not passed it.
        let entry = slot.entry.with(|entry| unsafe { *entry });
        // SAFETY: invariants 3 and 4: the buffer stays while that cursor has not passed it, and the cursor stays while the
        // caller's borrow of its ring lives.
        let buffer = unsafe { &*entry.buffer };
        Some(Delivery {
            hash: entry.hash,
            publication: Publication::new(Sequence(sequence), buffer),
        })
    }

    /// Fills and publishes the slot of a sequence that the caller has claimed, with a buffer that it will keep.
    fn publish(&self, sequence: u64, hash: ChannelHash, buffer: &[u8]) {
        let slot = self.slot(sequence);
        let entry = Entry { hash, buffer };
        // SAFETY: invariant 1: we have claimed it, and have acquired every cursor's passing of its last use.
        slot.entry.with_mut(|place| unsafe { *place = entry });
        slot.sequence.store(sequence, Ordering::Release);
    }

    /// What every cursor has reached.
    fn passed(&self) -> u64 {
        // Acquire: what a core has read, it has read before its cursor passed. Pairs with `release` and `drop`.
        let cursors = self
            .cores
            .iter()
            .map(|lines| lines.cursor.0.load(Ordering::Acquire));
        cursors.min().unwrap_or(FIRST)
    }

    /// Clears the flags of those that sleep, and says which they were.
    fn rouse(&self, cores: CoreSet) -> CoreSet {
        let mut wake = CoreSet::EMPTY;
        for core in cores {
            let sleeping = &self.cores[core].sleeping.0;
            // Relaxed: the caller's fence orders the flags after the head; the flags guard nothing.
            if sleeping.load(Ordering::Relaxed) && sleeping.swap(false, Ordering::Relaxed) {
                wake.insert(core);
            }
        }
        wake
    }
}

/// The place of one publication.
#[derive(Debug)]
#[repr(C, align(32))]
struct Slot {
    /// The sequence that was published here last. Stored with release by its claimer, which orders the entry and the
    /// buffer before it; loaded with acquire by every reader, in `published`.
    sequence: AtomicU64,
    entry: UnsafeCell<Entry>,
}

impl Slot {
    fn new() -> Slot {
        Slot {
            sequence: AtomicU64::new(0),
            entry: UnsafeCell::new(Entry {
                hash: ChannelHash::from_u64(0),
                buffer: &[],
            }),
        }
    }
}

/// What a slot says of its publication.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: ChannelHash,
    buffer: *const [u8],
}

// SAFETY: the entry's pointer is to bytes that any thread may read while invariant 3 holds; nobody frees through it.
unsafe impl Send for Slot {}
// SAFETY: invariants 1 and 2: an entry is never written while another thread reads or writes it.
unsafe impl Sync for Slot {}

/// What one core shows to the others.
#[derive(Debug)]
struct CoreLines {
    /// The sequence this core reads next. Stored with release by its core, once per batch; loaded with acquire by
    /// producers, in `passed`, so that what they overwrite has been read.
    cursor: Line<AtomicU64>,
    /// Whether this core sleeps, or is about to. Set by its core, cleared by it and by the one producer that will wake
    /// it, read by producers. Not beside the cursor, which changes with every batch.
    sleeping: Line<AtomicBool>,
    /// The publications of a core that has ended. Set once, by `drop`, and never read: freed with the ring.
    left_behind: OnceLock<VecDeque<Outstanding>>,
}

impl CoreLines {
    fn new() -> CoreLines {
        CoreLines {
            cursor: Line(AtomicU64::new(FIRST)),
            sleeping: Line(AtomicBool::new(false)),
            left_behind: OnceLock::new(),
        }
    }
}

/// A value on cache lines of its own: two of 64 bytes, since they are fetched in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

const _: () = assert!(align_of::<Line<AtomicU64>>() == 128 && align_of::<Line<AtomicBool>>() == 128);
const _: () = assert!(size_of::<CoreLines>().is_multiple_of(128));
#[cfg(not(ringcast_loom))] // loom's atomics are larger
const _: () = assert!(size_of::<Line<AtomicU64>>() == 128 && size_of::<Slot>() == 32);

#[cfg(all(test, not(ringcast_loom)))]
mod cost;
#[cfg(all(test, not(ringcast_loom)))]
mod tests;
