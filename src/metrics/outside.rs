//! The counts of publications that come from no client, by the program that embeds the server or by the HTTP API, and
//! of the program's subscribers.
//!
//! Threads outside the cores count them, and they are few compared with the publications of clients, so that an atomic
//! addition is cheap enough.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::labels::labels;

/// The counts of publications from outside the cores.
#[derive(Debug, Default)]
pub struct OutsideMetrics {
    published: AtomicU64,
    refused: [AtomicU64; Refusal::COUNT],
    subscribers_refused: AtomicU64,
}

labels! {
    /// Why a publication from outside the cores was not made.
    pub enum Refusal {
        /// The name or the data was not allowed.
        Invalid = "invalid",
        /// `outside_bytes_max`, or half of `ring_slots`: there was no room within a second.
        NoRoom = "no_room",
    }
}

impl OutsideMetrics {
    /// Counts a publication that was made, on any thread.
    pub fn published(&self) {
        // Relaxed, here and below: a scrape needs no order between counters.
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a publication that was not made, on any thread.
    pub fn refused(&self, refusal: Refusal) {
        self.refused[refusal.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a subscriber of the program that was refused (`program_subscribers_max`), on any thread.
    pub fn subscriber_refused(&self) {
        self.subscribers_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now. `ring_bytes` are the bytes of these publications in the ring, `subscribers` are the program's.
    pub fn counts(&self, ring_bytes: u64, subscribers: u64) -> OutsideCounts {
        OutsideCounts {
            subscribers,
            subscribers_refused: self.subscribers_refused.load(Ordering::Relaxed),
            published: self.published.load(Ordering::Relaxed),
            refused: self.refused.each_ref().map(|count| count.load(Ordering::Relaxed)),
            ring_bytes,
        }
    }
}

/// Publications from outside the cores, as a scrape finds them.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutsideCounts {
    /// How many were made.
    pub published: u64,
    /// How many were not made, by [`Refusal::index`].
    pub refused: [u64; Refusal::COUNT],
    /// The bytes of the ring that they take.
    pub ring_bytes: u64,
    /// The subscribers that the program has.
    pub subscribers: u64,
    /// The subscribers that the program was refused.
    pub subscribers_refused: u64,
}
