//! The counters of the store (`data_dir`). The thread of the store writes them; cores count the publications that they
//! drop.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counter::{Counter, Histogram};

/// The counters of the store.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Records committed. Written by the thread of the store, as all but `dropped`.
    pub records: Counter,
    /// Commits that failed.
    pub failures: Counter,
    /// How long commits took that succeeded.
    pub commit_seconds: Histogram,
    /// Length of the file.
    pub bytes: Counter,
    /// The bytes that keys and values take, if the file is bounded.
    pub content_bytes: Counter,
    /// The bytes that they may take; 0 if the file is not bounded.
    pub content_bytes_max: Counter,
    /// 1 while little of that is left.
    pub full: Counter,
    /// 1 while the last commit has failed.
    pub failing: Counter,
    /// Publications that were not stored, for lack of room. Written by all cores.
    dropped: AtomicU64,
}

impl StoreMetrics {
    /// Counts a commit of so many records.
    pub(crate) fn committed(&self, records: u64, took_ns: u64) {
        self.records.add(records);
        self.commit_seconds.record_ns(took_ns);
        self.failing.set(0);
    }

    /// Counts a commit that failed.
    pub(crate) fn failed(&self) {
        self.failures.add(1);
        self.failing.set(1);
    }

    /// Sets the length of the file.
    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.set(bytes);
    }

    /// Sets how much of a bounded file keys and values take and may take, and whether little of that is left.
    pub(crate) fn set_content(&self, bytes: u64, bytes_max: u64, is_full: bool) {
        self.content_bytes.set(bytes);
        self.content_bytes_max.set(bytes_max);
        self.full.set(u64::from(is_full));
    }

    /// Counts a publication that was not stored, on any core.
    pub(crate) fn count_dropped(&self) {
        // Relaxed: a scrape needs no order between counters.
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Publications that were not stored.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
