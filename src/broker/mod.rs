//! Publications on their way: one ring for all cores, and who wants what.
//!
//! ```text
//!   core 0                           shared                            core 1
//!   try_publish ──► buffer (own) ◄┈┈ RING: slots in one total order ──► next ─► subscriptions ─► connections
//!        │                            ▲                                           │
//!        └── who is to be woken? ──► DIRECTORY: bucket of the hash → cores ◄── first, last subscriber
//! ```
//! A payload is bytes: no protocol, no socket and no event loop is known here. Waking a core is the caller's part.
//!
//! Each core owns one [`CoreBroker`]. Its parts are separate, so that a [`Delivery`] that borrows the ring can be
//! looked up in the subscriptions.

mod buffer_pool;
mod core_set;
mod directory;
mod hash;
mod publication;
mod ring;
mod subscriptions;

use std::sync::Arc;

pub use core_set::{CORES_MAX, CoreSet, Cores};
pub use hash::{ChannelHash, ChannelHasher};
pub use publication::{Publication, Sequence};
pub use ring::{Delivery, PRESSURE_CHECK_EVERY, Published, Ring, RingFull};
pub use subscriptions::{SubscribeOutcome, SubscriptionLimits, Subscriptions, UnsubscribeOutcome};

/// One core's part of the broker.
#[derive(Debug)]
pub struct CoreBroker {
    /// Its end of the ring.
    pub ring: Ring,
    /// Its subscriptions.
    pub subscriptions: Subscriptions,
    /// The hash of channel names, the same on all cores.
    pub hasher: ChannelHasher,
}

/// A broker for each of `cores`, at most [`CORES_MAX`]: one ring of `slots` places, rounded up to a power of two, in
/// which each core's publications may take an equal share of `bytes_max`.
pub fn broker(cores: usize, slots: u32, bytes_max: u64) -> Vec<CoreBroker> {
    let directory = Arc::new(directory::Directory::new(cores));
    let hasher = ChannelHasher::new();
    ring::rings(cores, slots, bytes_max, &directory)
        .into_iter()
        .enumerate()
        .map(|(core, ring)| CoreBroker {
            ring,
            subscriptions: Subscriptions::new(directory::Interest::new(Arc::clone(&directory), core)),
            hasher: hasher.clone(),
        })
        .collect()
}
