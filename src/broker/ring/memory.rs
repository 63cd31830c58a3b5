//! The memory that all ends of a ring share: the head, the slots, and the cursor and flag of each reader.
//!
//! The invariants, named here by their numbers, stand at the head of `ring/mod.rs`.
#![allow(unsafe_code)] // slots and buffers are read in place by all readers while their publisher owns them

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::reader::Delivery;
use crate::broker::core_set::CoreSet;
use crate::broker::directory::Directory;
use crate::broker::hash::ChannelHash;
use crate::broker::publication::{Publication, Sequence};
use crate::sync::{AtomicBool, AtomicU64, Ordering, UnsafeCell};

/// The first sequence: 0 stands in slots that were never used.
pub(super) const FIRST: u64 = 1;

/// The shared memory of one ring.
#[derive(Debug)]
pub(super) struct RingMemory {
    /// The next sequence to be claimed. Raised by every publisher, one at a time; read by all ends. Relaxed:
    /// see `claim`. Where a value must be seen in time, the fences of `try_publish` and `prepare_sleep`
    /// ensure it.
    head: Line<AtomicU64>,
    slots: Box<[Slot]>,
    /// One entry per reader: reader i is that of core i.
    readers: Box<[ReaderLines]>,
    directory: Arc<Directory>,
    /// How many cores share the ownership of channels. The readers from this index on belong to no core.
    owners: usize,
    /// The buffers of publishers that have ended. Written by `keep_buffers`, never read: freed with the ring.
    left_behind: OnceLock<Box<FormerBuffers>>,
}

/// A publication whose buffer readers may still be reading.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) sequence: u64,
    pub(super) buffer: Vec<u8>,
}

/// The buffers of one publisher that has ended, and those of the next one that ends.
#[derive(Debug)]
struct FormerBuffers {
    _buffers: VecDeque<Outstanding>,
    next: OnceLock<Box<FormerBuffers>>,
}

impl RingMemory {
    /// An empty ring with `slots`, rounded up to a power of two, that `readers` readers must pass. The first
    /// `owners` readers are those of cores.
    pub(super) fn new(readers: usize, owners: usize, slots: u32, directory: Arc<Directory>) -> RingMemory {
        RingMemory {
            head: Line(AtomicU64::new(FIRST)),
            slots: (0..slots.max(1).next_power_of_two())
                .map(|_| Slot::new())
                .collect(),
            readers: (0..readers).map(|_| ReaderLines::new()).collect(),
            directory,
            owners,
            left_behind: OnceLock::new(),
        }
    }

    /// The next sequence to be claimed.
    pub(super) fn claimed(&self) -> u64 {
        // Relaxed: everything that happened before this call, on any core, had raised the head before.
        self.head.0.load(Ordering::Relaxed)
    }

    /// Takes the next sequence, if every cursor has passed the last use of its slot. `passed` is the last
    /// result of [`RingMemory::passed`] that the caller has; it is renewed if it is too old. Lock-free: a
    /// caller that fails to raise the head has lost to another caller that raised it.
    pub(super) fn claim(&self, passed: &mut u64) -> Option<u64> {
        let mut sequence = self.claimed();
        loop {
            if !self.has_slot(sequence, *passed) {
                *passed = self.passed();
                if !self.has_slot(sequence, *passed) {
                    return None;
                }
            }
            // Relaxed: the head hands out numbers and guards no memory. That a slot may be written follows from the
            // cursors, which the caller itself has acquired; that it may be read, from the slot's own sequence.
            match self.head.0.compare_exchange_weak(
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

    /// Whether the slot of a sequence is free, if every cursor has reached `passed`.
    pub(super) fn has_slot(&self, sequence: u64, passed: u64) -> bool {
        sequence.saturating_sub(passed) < self.slot_count()
    }

    pub(super) fn slot_count(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The index of the core that owns a channel.
    pub(super) fn owner(&self, hash: ChannelHash) -> usize {
        hash.owner(self.owners)
    }

    /// Fills and publishes the slot of a sequence.
    ///
    /// # Safety
    /// The caller has got the sequence from [`RingMemory::claim`], publishes it once, and keeps the buffer as it is
    /// until every cursor has passed the sequence (invariant 3).
    pub(super) unsafe fn publish(&self, sequence: u64, hash: ChannelHash, buffer: &[u8]) {
        let slot = self.slot(sequence);
        let entry = Entry { hash, buffer };
        // SAFETY: invariant 1: the caller has claimed it, and `claim` has acquired every cursor's passing of its last
        // use.
        slot.entry.with_mut(|place| unsafe { *place = entry });
        slot.sequence.store(sequence, Ordering::Release);
    }

    /// The publication of a sequence, if it has been published.
    ///
    /// # Safety
    /// The cursor of a reader has not passed the sequence, and does not pass it while the delivery lives (invariant 4).
    pub(super) unsafe fn published(&self, sequence: u64) -> Option<Delivery<'_>> {
        let slot = self.slot(sequence);
        if slot.sequence.load(Ordering::Acquire) != sequence {
            return None;
        }
        // SAFETY: invariant 2: it was published, as the acquire load has seen, and the caller's cursor has not passed
        // it.
        let entry = slot.entry.with(|entry| unsafe { *entry });
        // SAFETY: invariants 3 and 4: the buffer stays while that cursor has not passed it, and the cursor stays while
        // the delivery lives.
        let buffer = unsafe { &*entry.buffer };
        Some(Delivery {
            hash: entry.hash,
            publication: Publication::new(Sequence(sequence), buffer),
        })
    }

    /// The sequence that every cursor has reached.
    pub(super) fn passed(&self) -> u64 {
        // Acquire: a reader has read its publications before its cursor passed them. Pairs with `set_cursor`.
        let cursors = self
            .readers
            .iter()
            .map(|lines| lines.cursor.0.load(Ordering::Acquire));
        cursors.min().unwrap_or(FIRST)
    }

    /// Moves the cursor of a reader. By invariant 4, the cursor only goes forward, and never passes a
    /// publication that the reader borrows.
    pub(super) fn set_cursor(&self, reader: usize, next: u64) {
        self.readers[reader].cursor.0.store(next, Ordering::Release);
    }

    /// The cores that lag: the cursors of their readers stand at `behind` or before it, and not at `end`.
    pub(super) fn lagging_cores(&self, behind: u64, end: u64) -> CoreSet {
        let mut lagging_cores = CoreSet::EMPTY;
        for (core, lines) in self.readers.iter().enumerate() {
            // Relaxed: an extra wake-up, or a retry that comes later, does no harm.
            let cursor = lines.cursor.0.load(Ordering::Relaxed);
            if cursor <= behind && cursor < end {
                lagging_cores.insert(core);
            }
        }
        lagging_cores
    }

    /// The cores that have subscribers of this channel, and maybe some more.
    pub(super) fn interested(&self, hash: ChannelHash) -> CoreSet {
        self.directory.interested(hash)
    }

    /// Sets or clears the flag that the core of a reader sleeps.
    pub(super) fn set_sleeping(&self, reader: usize, is_sleeping: bool) {
        // Relaxed: the fence of `prepare_sleep` orders the flag before the head; the flag guards nothing.
        self.readers[reader]
            .sleeping
            .0
            .store(is_sleeping, Ordering::Relaxed);
    }

    /// Clears the flags of the cores in `cores` that sleep. Returns these cores: the caller wakes them.
    pub(super) fn take_sleeping(&self, cores: CoreSet) -> CoreSet {
        let mut wake = CoreSet::EMPTY;
        for core in cores {
            let sleeping = &self.readers[core].sleeping.0;
            // Relaxed: the caller's fence orders the flags after the head; the flags guard nothing.
            // No store of `false` where the flag is `false` already: loom would place it behind a later `true` of the
            // sleeper, which the standard forbids.
            let clears = || sleeping.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed);
            if sleeping.load(Ordering::Relaxed) && clears().is_ok() {
                wake.insert(core);
            }
        }
        wake
    }

    /// Keeps the buffers of a publisher that ends, until the ring goes.
    pub(super) fn keep_buffers(&self, buffers: VecDeque<Outstanding>) {
        let mut left = Box::new(FormerBuffers {
            _buffers: buffers,
            next: OnceLock::new(),
        });
        let mut place = &self.left_behind;
        // A filled place stays filled: the list only grows.
        while let Err(refused) = place.set(left) {
            left = refused;
            match place.get() {
                Some(taken) => place = &taken.next,
                None => unreachable!("`set` has found a value there"),
            }
        }
    }

    fn slot(&self, sequence: u64) -> &Slot {
        #[expect(clippy::cast_possible_truncation, reason = "masked by a usize")]
        let index = sequence as usize & (self.slots.len() - 1);
        &self.slots[index]
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

/// The content of a slot: where its publication lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: ChannelHash,
    buffer: *const [u8],
}

// SAFETY: the entry's pointer is to bytes that any thread may read while invariant 3 holds; nobody frees through it.
unsafe impl Send for Slot {}
// SAFETY: invariants 1 and 2: an entry is never written while another thread reads or writes it.
unsafe impl Sync for Slot {}

/// The state of one reader that publishers look at.
#[derive(Debug)]
struct ReaderLines {
    /// The sequence that the reader reads next. Stored with release by the reader, once per batch; loaded with acquire
    /// by publishers, in `passed`, so that what they overwrite has been read. `u64::MAX` once the reader has ended.
    cursor: Line<AtomicU64>,
    /// Whether the reader's core sleeps, or is about to. Set by the reader, cleared by it and by the one publisher that
    /// will wake its core, read by publishers. Not beside the cursor, which changes with every batch.
    sleeping: Line<AtomicBool>,
}

impl ReaderLines {
    fn new() -> ReaderLines {
        ReaderLines {
            cursor: Line(AtomicU64::new(FIRST)),
            sleeping: Line(AtomicBool::new(false)),
        }
    }
}

/// A value on cache lines of its own: two of 64 bytes, since they are fetched in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

const _: () = assert!(align_of::<Line<AtomicU64>>() == 128 && align_of::<Line<AtomicBool>>() == 128);
#[cfg(not(ringcast_loom))] // loom's atomics are larger
const _: () = assert!(size_of::<Line<AtomicU64>>() == 128 && size_of::<Slot>() == 32);
#[cfg(not(ringcast_loom))]
const _: () = assert!(size_of::<ReaderLines>() == 256);
