//! Slots, sequences, cursors, back-pressure: the only lock-free algorithm.
//!
//! Every publication passes through one ring of slots, and every reader reads every slot. The ring has two kinds of
//! ends. A [`Publisher`] appends with [`Publisher::try_publish`], owns the buffers of its publications and has its own
//! share of the ring's bytes. A [`Reader`] has a cursor: it calls [`Reader::next`] until there is no more, then
//! [`Reader::release`]. A reader that takes several turns over a publication reads it with [`Reader::front`], as often
//! as it likes, until [`Reader::pass`]. A core has both ends; neither needs the other.
//!
//! ```text
//!            sequence  …  41   42   43   44   45   46  …            slot of a sequence: sequence mod slots
//!                        ┌────┬────┬────┬────┬────┬────┐
//!                        │ ok │ ok │ ok │ …  │ ok │free│            …: claimed, not yet published
//!                        └────┴────┴────┴────┴────┴────┘
//!              cursor of reader 0 ─┘    └─ cursor of reader 1       └─ head: the next to be claimed
//!
//!   slot, 32 bytes   [ sequence 8 | hash 8 | pointer 8 | length 8 ] ──► buffer in the memory of its publisher
//! ```
//! Claim: raise the head by one, if the slot there has been passed by every cursor. Publish: fill the slot, then store
//! its sequence. A reader takes the slot at its own place when the stored sequence is the one it waits for. The
//! publisher keeps its buffers in `outstanding`, oldest first, and takes back those that every cursor has passed.
//!
//! Files: `memory.rs` is the memory that all ends share, `publisher.rs` and `reader.rs` are the ends,
//! `buffer_pool.rs` the buffers of one publisher.
//!
//! Invariants
//! 1. Only the publisher that claimed a sequence writes its slot, between claim and publish, and every cursor has
//!    passed the slot's last use by then. Kept by `RingMemory::claim`.
//! 2. From its publish until every cursor has passed it, a slot does not change. Follows from 1.
//! 3. From its publish until every cursor has passed it, a buffer is neither written nor freed: it lies in the
//!    publisher's `outstanding`, from which only [`Publisher::reclaim`] and `drop` take it; `drop` gives it to the
//!    shared memory, which keeps it to its own end.
//! 4. A cursor never passes a publication that its reader still borrows: a [`Delivery`] borrows the
//!    [`Reader`], and the cursor is stored by [`Reader::release`] and `drop` alone, which need the reader
//!    mutably. A cursor is never ahead of its reader's `next`, and never goes back.
//! 5. Between claim and publish the publisher neither waits nor allocates, and nothing can fail. In between,
//!    it writes the offset into the buffer, which no other thread knows yet.
//!
//! Waiting. No function of the ring waits. A slot may be claimed and not yet published: then there is nothing
//! to read, but the reader's core does not sleep, and by 5 the claimer does not wait for anything.
//! [`Publisher::try_publish`] does not wait either: a core that finds the ring full reads on and tries again
//! later, so no two cores ever wait for each other. No reader tells a publisher that there is room. So the
//! publisher's thread must not sleep without a time limit while it has something to publish. The cursor in
//! the way may be that of its own core.
//!
//! Sleeping. Before a core sleeps, its reader sets a flag, passes a fence, and permits the sleep if the head
//! then stands at its cursor. A publisher raises the head, passes a fence, and then reads the directory and
//! the flags. One of the two fences is first: either the publisher sees the flag (and the directory bits set
//! before), or the reader sees the head. The reader looks at the head, not at the next slot. Otherwise it
//! could sleep behind a slot that is claimed for a channel of no interest to its core, and no publisher would
//! wake the core for a later slot that is of interest. Only one publisher clears a set flag, by a swap, and
//! its caller wakes the core. A publisher does not look at its home, the core on whose thread it runs: that
//! core is awake while it publishes. A core that sleeps because no publication concerns it keeps its old
//! cursor. When half of the ring or of a publisher's bytes are in use, or all, that publisher also wakes the
//! sleeping cores whose cursors lag. Letters of other cores use the same flags (`sleepers.rs`).
//!
//! Cost of a publication, counted in accesses to memory that other cores write (RMW: one locked instruction)
//! - publish: head, load and RMW (1 line, moves between publishers); slot, 3 plain stores and 1 store (half a line); 1
//!   fence; directory, 1 load; per interested other core, 1 load of its flag (moves only when that core sleeps), and 1
//!   RMW if it sleeps. The cursors of all readers, 1 load each (a line that moves if that reader has read since), only
//!   when the head is a ring ahead of the last look, once per `LOOK_EVERY` publications, once per turn that has as many
//!   to take back, and once per [`PRESSURE_CHECK_EVERY`] publications under pressure. `ring/cost.rs` counts all this.
//! - reading, not interested: slot, 1 load and the hash beside it (half a line). The buffer is not touched.
//! - reading, interested: besides, the lines of the buffer. No reference count, no store.
//! - per batch read: 1 store of the own cursor.

mod buffer_pool;
mod memory;
mod publisher;
mod reader;
mod sleepers;

use std::sync::Arc;

pub use publisher::{PRESSURE_CHECK_EVERY, Published, Publisher, RingFull};
pub use reader::{Delivery, Reader};
pub use sleepers::Sleepers;

use super::core_set::CoreSet;
use super::directory::Directory;
use super::position::Numbering;
use memory::RingMemory;

/// All ends of one ring.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Both ends for each core. Each publisher may have an equal share of `bytes_max` in use.
    pub(crate) cores: Vec<(Publisher, Reader)>,
    /// A publisher on no core's thread, which may have `outside_bytes_max` in use.
    pub(crate) outside: Publisher,
}

/// The ends of one ring.
pub(crate) fn ends(plan: RingPlan, directory: &Arc<Directory>) -> Ends {
    let readers = plan.cores + plan.observers;
    let memory = RingMemory::new(readers, plan.cores, plan.slots, Arc::clone(directory));
    let memory = Arc::new(memory);
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let share = size(plan.bytes.cores_max / (readers.max(1) as u64));
    let publisher =
        |own_core, bytes_max| Publisher::new(Arc::clone(&memory), own_core, bytes_max, plan.numbering);
    let ends_of = |core| {
        let publisher = publisher(CoreSet::of(core), share);
        (publisher, Reader::new(Arc::clone(&memory), core))
    };
    Ends {
        cores: (0..readers).map(ends_of).collect(),
        outside: publisher(CoreSet::EMPTY, size(plan.bytes.outside_max)),
    }
}

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub struct RingPlan {
    /// How many cores share the ownership of channels.
    pub cores: usize,
    /// How many observers come behind the cores: they have both ends as cores do, and own no channel.
    pub observers: usize,
    /// How many slots there are: rounded up to a power of two.
    pub slots: u32,
    /// How many bytes publications may have.
    pub bytes: RingBytes,
    /// The numbering of positions.
    pub numbering: Numbering,
}

/// How many bytes of publications a ring may hold.
#[derive(Clone, Copy, Debug)]
pub struct RingBytes {
    /// Of all cores and observers together, in equal shares.
    pub cores_max: u64,
    /// Of threads outside the cores.
    pub outside_max: u64,
}

#[cfg(all(test, not(ringcast_loom)))]
mod cost;
#[cfg(all(test, not(ringcast_loom)))]
mod tests;
