//! Channel → the cores that have subscribers; shared, rarely written.
//!
//! ```text
//!   shared   bucket = hash mod 2^16   [ bit per core ]        512 KiB for up to 64 cores, twice that above
//!   shared   for all channels         [ bit per core ]        cores with MQTT filters that have wildcards
//!   private  bucket = hash mod 2^16   [ channels of this core ]   256 KiB of address space, touched by need
//! ```
//! A core sets its bit in a bucket when the first of its channels falls there, and clears it with the last. Channels
//! that share a bucket share its bits. Such a collision never costs a wake-up that is needed. It may cause one that is
//! not needed, which is harmless, since the woken core looks up the exact name. With 10,000 channels on each other
//! core, one publication in 7 wakes a core needlessly; with far more than 65,536, every one does, and then cores hardly
//! sleep.
//!
//! A filter with a wildcard may match any channel, so no bucket can stand for it. A core whose MQTT sessions have such
//! filters is woken for every publication. A publisher reads these bits with one load, beside that of the bucket.
//!
//! Invariants
//! 1. A core's bit is set while it has a channel in the bucket. Kept by [`Interest`], its only writer. The same holds
//!    for the bit of wildcards.
//! 2. A core registers a subscription before it next calls `prepare_sleep`. So a publisher that misses the bit has
//!    passed its fence before that core passes the one of `prepare_sleep`, and that core's final look at the head finds
//!    the publication (`ring/mod.rs`, "Sleeping").

use std::sync::Arc;

use super::core_set::{CORES_MAX, CoreSet};
use super::hash::ChannelHash;
use crate::sync::{AtomicU64, Ordering};

/// A power of two. With more buckets, needless wake-ups would be rarer above 10,000 channels, but each
/// publisher's load of a mask would miss the cache: a second-level cache may hold 512 KiB. Loom tracks each
/// atomic, so its build has few.
const BUCKETS: usize = if cfg!(ringcast_loom) { 4 } else { 1 << 16 };

/// The masks of all cores.
#[derive(Debug)]
pub(crate) struct Directory {
    /// One or two words per bucket. Written by [`Interest`] of each core (its own bit), read by publishers after the
    /// fence that follows a publish. Relaxed: the bits guard no other memory, and invariant 2 gives the order.
    masks: Box<[AtomicU64]>,
    /// The cores that are interested in all channels; the second word is used above 64 cores. Written and read as the
    /// masks are. It lies beside their address, which each publisher needs.
    all: [AtomicU64; 2],
    words: usize,
}

impl Directory {
    /// An empty directory for `cores`, at most [`CORES_MAX`].
    pub(crate) fn new(cores: usize) -> Directory {
        assert!(cores <= CORES_MAX, "a core set has {CORES_MAX} bits");
        let words = cores.div_ceil(64).max(1);
        Directory {
            masks: (0..BUCKETS * words).map(|_| AtomicU64::new(0)).collect(),
            all: [AtomicU64::new(0), AtomicU64::new(0)],
            words,
        }
    }

    /// The cores that have subscribers of this channel, and maybe some more.
    pub(crate) fn interested(&self, hash: ChannelHash) -> CoreSet {
        let first = bucket(hash) * self.words;
        let low = self.masks[first].load(Ordering::Relaxed) | self.all[0].load(Ordering::Relaxed);
        let high = match self.words {
            1 => 0,
            _ => self.masks[first + 1].load(Ordering::Relaxed) | self.all[1].load(Ordering::Relaxed),
        };
        CoreSet::from_words(low, high)
    }

    /// How many buckets some core has an interest in, counted for each core.
    #[cfg(test)]
    pub(crate) fn interests(&self) -> u32 {
        let masks = self.masks.iter();
        masks.map(|mask| mask.load(Ordering::Relaxed).count_ones()).sum()
    }

    fn word(&self, bucket: usize, core: usize) -> &AtomicU64 {
        &self.masks[bucket * self.words + core / 64]
    }
}

/// One core's part of the directory: how many of its channels fall into each bucket.
#[derive(Debug)]
pub(crate) struct Interest {
    directory: Arc<Directory>,
    core: usize,
    counts: Box<[u32]>,
}

impl Interest {
    /// No interest of `core` yet. There is one for each core.
    pub(crate) fn new(directory: Arc<Directory>, core: usize) -> Interest {
        Interest {
            directory,
            core,
            counts: vec![0; BUCKETS].into_boxed_slice(),
        }
    }

    /// A channel got its first subscriber on this core.
    pub(crate) fn add(&mut self, hash: ChannelHash) {
        let bucket = bucket(hash);
        self.counts[bucket] += 1;
        if self.counts[bucket] == 1 {
            self.directory
                .word(bucket, self.core)
                .fetch_or(self.bit(), Ordering::Relaxed);
        }
    }

    /// A channel lost its last subscriber on this core.
    pub(crate) fn remove(&mut self, hash: ChannelHash) {
        let bucket = bucket(hash);
        self.counts[bucket] -= 1;
        if self.counts[bucket] == 0 {
            self.directory
                .word(bucket, self.core)
                .fetch_and(!self.bit(), Ordering::Relaxed);
        }
    }

    /// The core is interested in all channels from now on.
    pub(crate) fn add_all(&self) {
        self.directory.all[self.core / 64].fetch_or(self.bit(), Ordering::Relaxed);
    }

    /// Undoes [`Interest::add_all`].
    pub(crate) fn remove_all(&self) {
        self.directory.all[self.core / 64].fetch_and(!self.bit(), Ordering::Relaxed);
    }

    /// The directory that all cores share.
    #[cfg(test)]
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    fn bit(&self) -> u64 {
        1 << (self.core % 64)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "masked by a usize")]
fn bucket(hash: ChannelHash) -> usize {
    hash.as_u64() as usize & (BUCKETS - 1)
}

#[cfg(all(test, not(ringcast_loom)))]
mod tests {
    use super::*;
    use crate::sync::counted::count;

    fn of(directory: &Directory, hash: u64) -> Vec<usize> {
        directory
            .interested(ChannelHash::from_u64(hash))
            .into_iter()
            .collect()
    }

    #[test]
    fn a_core_is_named_from_its_first_channel_to_its_last() {
        for cores in [2, 64, 65, CORES_MAX] {
            let directory = Arc::new(Directory::new(cores));
            let mut first = Interest::new(Arc::clone(&directory), 0);
            let mut last = Interest::new(Arc::clone(&directory), cores - 1);
            // The second hash falls into the bucket of the first.
            let (hash, other) = (5, 5 + BUCKETS as u64);
            first.add(ChannelHash::from_u64(hash));
            last.add(ChannelHash::from_u64(hash));
            last.add(ChannelHash::from_u64(other));
            assert_eq!(of(&directory, hash), [0, cores - 1]);
            assert!(of(&directory, hash + 1).is_empty());
            last.remove(ChannelHash::from_u64(hash));
            assert_eq!(of(&directory, other), [0, cores - 1]);
            last.remove(ChannelHash::from_u64(other));
            assert_eq!(of(&directory, hash), [0]);
            first.remove(ChannelHash::from_u64(hash));
            assert!(of(&directory, hash).is_empty());
        }
    }

    #[test]
    fn a_publisher_pays_one_load_for_the_cores_that_are_interested_in_all_channels() {
        for (cores, loads) in [(2, 2), (64, 2), (65, 4)] {
            let directory = Directory::new(cores);
            let (accesses, _) = count(0, || directory.interested(ChannelHash::from_u64(5)));
            assert_eq!(accesses.loads, loads, "{cores} cores");
        }
    }

    #[test]
    fn a_core_that_is_interested_in_all_channels_is_named_for_each() {
        for cores in [2, 64, 65, CORES_MAX] {
            let directory = Arc::new(Directory::new(cores));
            let mut last = Interest::new(Arc::clone(&directory), cores - 1);
            last.add_all();
            last.add(ChannelHash::from_u64(5));
            assert!((0..3).all(|hash| of(&directory, hash) == [cores - 1]));
            last.remove(ChannelHash::from_u64(5));
            assert_eq!(of(&directory, 5), [cores - 1]);
            last.remove_all();
            assert!(of(&directory, 5).is_empty());
        }
    }
}
