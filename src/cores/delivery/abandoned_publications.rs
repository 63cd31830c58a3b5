//! What connections have left behind that ended while the ring was full: their publications, which others may wait for.
//!
//! They come before those of whoever is still here. Nobody has been told that they are published, so those for which
//! there is no room are given up, and counted; never a part of what was sent together.
//!
//! Limits: `abandoned_bytes_max`, and on top of it the rest of what had been begun when the ring was full.

use std::collections::VecDeque;
use std::mem::size_of;

use crate::app::App;
use crate::broker::RingFull;
use crate::decision::{Decision, Decisions, Limit};

use crate::cores::Core;
use crate::cores::lifecycle::connection::Work;

/// Those of one core, in the order in which they came.
#[derive(Debug)]
pub(in crate::cores) struct AbandonedPublications {
    waiting: VecDeque<AbandonedPublication>,
    bytes: usize,
    bytes_max: usize,
}

/// The publications of one connection.
#[derive(Debug)]
struct AbandonedPublication {
    publications: Decisions,
    /// The one that is next.
    at: usize,
}

impl AbandonedPublications {
    /// None so far.
    pub(in crate::cores) fn new(bytes_max: u32) -> AbandonedPublications {
        AbandonedPublications {
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max: bytes_max as usize,
        }
    }

    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of all of them.
    pub(in crate::cores) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of how many connections there are some.
    #[cfg(test)]
    pub(in crate::cores) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn have_room(&self, abandoned: &AbandonedPublication) -> bool {
        self.bytes + abandoned.bytes() <= self.bytes_max
    }

    fn push(&mut self, abandoned: AbandonedPublication) {
        self.bytes += abandoned.bytes();
        self.waiting.push_back(abandoned);
    }
}

impl AbandonedPublication {
    fn bytes(&self) -> usize {
        size_of::<AbandonedPublication>()
            + self.publications.bytes_len()
            + size_of_val(self.publications.list())
    }
}

impl<A: App> Core<A> {
    /// Keeps what a connection that has ended wanted published.
    pub(in crate::cores) fn leave_behind(&mut self, work: &Work) {
        let publications = work.decisions.publications_from(work.at);
        let count = publications.list().len();
        if count == 0 {
            return;
        }
        let abandoned = AbandonedPublication { publications, at: 0 };
        let is_publication = |decision: &Decision| matches!(decision, Decision::Publish { .. });
        let has_begun = work.decisions.list()[..work.at].iter().any(is_publication);
        if has_begun || self.abandoned.have_room(&abandoned) {
            self.abandoned.push(abandoned);
        } else {
            self.metrics.limit_hits[Limit::AbandonedBytes.index()].add(count as u64);
        }
    }

    /// Publishes what has been left behind, as far as the ring has room.
    pub(in crate::cores) fn publish_abandoned(&mut self) {
        self.publish_ns = None;
        while let Some(mut abandoned) = self.abandoned.waiting.pop_front() {
            while let Some(decision) = abandoned.publications.decision(abandoned.at) {
                if let Decision::Publish(publish) = decision
                    && let Err(RingFull { .. }) = self.publish(&abandoned.publications, publish)
                {
                    self.abandoned.waiting.push_front(abandoned);
                    return;
                }
                abandoned.at += 1;
            }
            self.abandoned.bytes -= abandoned.bytes();
        }
    }
}
