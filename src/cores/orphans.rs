//! What connections have left behind that ended while the ring was full: their publications, which others may wait for.
//!
//! They come before those of whoever is still here. Nobody has been told that they are published, so those for which
//! there is no room are given up, and counted; never a part of what was sent together.
//!
//! Limits: `orphaned_bytes_max`, and on top of it the rest of what had been begun when the ring was full.

use std::collections::VecDeque;
use std::mem::size_of;

use crate::app::App;
use crate::broker::RingFull;
use crate::config::limits::Limit;
use crate::decision::{Decision, Decisions};

use super::Core;
use super::connection::Stalled;

/// Those of one core, in the order in which they came.
#[derive(Debug)]
pub(super) struct Orphans {
    waiting: VecDeque<Orphan>,
    bytes: usize,
    bytes_max: usize,
}

/// The publications of one connection.
#[derive(Debug)]
struct Orphan {
    publications: Decisions,
    /// The one that is next.
    at: usize,
}

impl Orphans {
    /// None so far.
    pub(super) fn new(bytes_max: u32) -> Orphans {
        Orphans {
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max: bytes_max as usize,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of how many connections there are some.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn have_room(&self, orphan: &Orphan) -> bool {
        self.bytes + orphan.bytes() <= self.bytes_max
    }

    fn push(&mut self, orphan: Orphan) {
        self.bytes += orphan.bytes();
        self.waiting.push_back(orphan);
    }
}

impl Orphan {
    fn bytes(&self) -> usize {
        size_of::<Orphan>() + self.publications.bytes_len() + size_of_val(self.publications.list())
    }
}

impl<A: App> Core<A> {
    /// Keeps what a connection that has ended wanted published.
    pub(super) fn leave_behind(&mut self, work: &Stalled) {
        let publications = work.decisions.publications_from(work.at);
        let count = publications.list().len();
        if count == 0 {
            return;
        }
        let orphan = Orphan { publications, at: 0 };
        let is_publication = |decision: &Decision| matches!(decision, Decision::Publish { .. });
        let has_begun = work.decisions.list()[..work.at].iter().any(is_publication);
        if has_begun || self.orphans.have_room(&orphan) {
            self.orphans.push(orphan);
        } else {
            self.metrics.limit_hits[Limit::OrphanedBytes.index()].add(count as u64);
        }
    }

    /// Publishes what has been left behind, as far as the ring has room.
    pub(super) fn publish_orphans(&mut self) {
        self.publish_ns = None;
        while let Some(mut orphan) = self.orphans.waiting.pop_front() {
            while let Some(decision) = orphan.publications.decision(orphan.at) {
                if let Decision::Publish { channel, message } = decision
                    && let Err(RingFull { .. }) = self.publish(
                        orphan.publications.bytes(channel),
                        orphan.publications.bytes(message),
                    )
                {
                    self.orphans.waiting.push_front(orphan);
                    return;
                }
                orphan.at += 1;
            }
            self.orphans.bytes -= orphan.bytes();
        }
    }
}
