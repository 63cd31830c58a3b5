//! Publications on their way to other cores, and the subscriptions that they are for.
//!
//! ```text
//!   core 0                           shared                            core 1
//!   PUBLISHER ──► buffer (own) ◄┈┈ RING: slots in one total order ──► READER ──► subscriptions ──► connections
//!        │                            ▲                                               │
//!        └─ which cores to wake? ──► DIRECTORY: bucket of the hash → cores ◄── first, last subscriber
//! ```
//! The broker moves bytes: it reads no packet, owns no socket and no event loop. It says which cores are to be woken,
//! and its caller wakes them.
//!
//! Each core owns one [`CoreBroker`]. Its parts are separate, so that the subscriptions can be walked while a
//! [`Delivery`] borrows the reader. The ring itself needs no core: a publisher has no cursor, and a reader publishes
//! nothing.
//!
//! Beside the ring, cores send each other letters (`post`): messages from one core to one other core.

mod core_set;
mod directory;
mod hash;
mod position;
mod post;
pub(crate) mod publication;
mod ring;
pub(crate) mod subscriptions;
mod watch;

use std::sync::Arc;

pub use core_set::{CORES_MAX, CoreSet, Cores};
pub use hash::{ChannelHash, ChannelHasher};
pub use position::{Epoch, Numbering, Position};
pub use post::{PostEnd, Sent, post};
pub use publication::{BLANKS, Facts, Kind, Marks, OFFSET_BYTES, Origin, Publication, Sequence};
pub use ring::{
    Delivery, PRESSURE_CHECK_EVERY, Published, Publisher, Reader, RingBytes, RingFull, RingPlan, Sleepers,
};
pub use subscriptions::{
    AllChannels, SubscribeOutcome, SubscriptionLimits, Subscriptions, UnsubscribeOutcome,
};
pub use watch::{Change, Watch};

/// One core's part of the broker.
#[derive(Debug)]
pub struct CoreBroker {
    /// The end of the ring into which the core publishes.
    pub publisher: Publisher,
    /// The end of the ring from which the core reads.
    pub reader: Reader,
    /// The subscriptions of the core's connections.
    pub subscriptions: Subscriptions,
    /// The hash of channel names, the same on all cores.
    pub hasher: ChannelHasher,
    /// The numbering of positions: its epoch, and the base of its offsets.
    pub numbering: Numbering,
}

/// The broker's part for threads that are not cores: they publish, and read nothing.
#[derive(Debug)]
pub struct OutsidePublisher {
    /// The end of the ring.
    pub publisher: Publisher,
    /// The hash of channel names, the same as on all cores.
    pub hasher: ChannelHasher,
    /// The numbering of positions: its epoch, and the base of its offsets.
    pub numbering: Numbering,
}

/// A broker for each of `cores`, at most [`CORES_MAX`], with one ring of `slots` places (rounded up to a power of two).
/// The publications of each core may take an equal share of `bytes_max`.
pub fn broker(cores: usize, slots: u32, bytes_max: u64) -> Vec<CoreBroker> {
    let plan = RingPlan {
        cores,
        observers: 0,
        slots,
        bytes: RingBytes {
            cores_max: bytes_max,
            outside_max: 0,
        },
        numbering: Numbering::new(),
    };
    broker_with_outside(plan).0
}

/// As [`broker`], with observers behind the cores, and a publisher for the threads outside.
pub fn broker_with_outside(plan: RingPlan) -> (Vec<CoreBroker>, OutsidePublisher) {
    let directory = Arc::new(directory::Directory::new(plan.cores + plan.observers));
    let hasher = ChannelHasher::new();
    let ends = ring::ends(plan, &directory);
    let core_brokers = ends
        .cores
        .into_iter()
        .enumerate()
        .map(|(core, (publisher, reader))| CoreBroker {
            publisher,
            reader,
            subscriptions: Subscriptions::new(directory::Interest::new(Arc::clone(&directory), core)),
            hasher: hasher.clone(),
            numbering: plan.numbering,
        })
        .collect();
    let outside = OutsidePublisher {
        publisher: ends.outside,
        hasher,
        numbering: plan.numbering,
    };
    (core_brokers, outside)
}
