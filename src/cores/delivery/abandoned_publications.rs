//! Publications whose connection closed while they were waiting for space in the ring. They are still published, in
//! order, as soon as there is space, and before those of open connections.
//!
//! Their publishers have received no acknowledgement. So publications for which there is no room here are
//! discarded and counted. The publications of one batch of messages are kept or discarded together.
//!
//! Limits: `abandoned_bytes_max`. If some publications of a batch are in the ring already, the rest is kept
//! even above that limit.

use std::collections::VecDeque;
use std::mem::size_of;

use crate::broker::RingFull;
use crate::clock::Clock;
use crate::decision::{Decision, Decisions};

use crate::cores::connections::Connections;
use crate::cores::connections::delivery_inspector::DeliveryInspector;
use crate::cores::delivery::fan_out::Delivery;
use crate::cores::lifecycle::connection::Work;

/// The abandoned publications of one core, in the order in which they came.
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
    /// The index of the publication that is next.
    at: usize,
}

impl AbandonedPublications {
    /// No abandoned publications.
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

    /// Bytes of all abandoned publications.
    pub(in crate::cores) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many connections have abandoned publications here.
    #[cfg(test)]
    pub(in crate::cores) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps the publications of a connection that has ended. Returns how many are discarded because there is no room.
    pub(in crate::cores) fn keep(&mut self, work: &Work) -> u64 {
        let publications = work.decisions.publications_from(work.at);
        let count = publications.list().len();
        if count == 0 {
            return 0;
        }
        let abandoned = AbandonedPublication { publications, at: 0 };
        let is_publication = |decision: &Decision| matches!(decision, Decision::Publish { .. });
        let has_begun = work.decisions.list()[..work.at].iter().any(is_publication);
        if has_begun || self.have_room(&abandoned) {
            self.add(abandoned.publications);
            return 0;
        }
        count as u64
    }

    /// Adds publications that must be published whatever the limit.
    pub(in crate::cores) fn add(&mut self, publications: Decisions) {
        let abandoned = AbandonedPublication { publications, at: 0 };
        self.bytes += abandoned.bytes();
        self.waiting.push_back(abandoned);
    }

    /// Publishes the abandoned publications, as far as the ring has room.
    pub(in crate::cores) fn publish(
        &mut self,
        delivery: &mut Delivery,
        connections: &mut Connections,
        inspector: &mut impl DeliveryInspector,
        clock: &Clock,
    ) {
        delivery.begin_publishing();
        while let Some(mut abandoned) = self.waiting.pop_front() {
            while let Some(decision) = abandoned.publications.decision(abandoned.at) {
                if let Decision::Publish(publish) = decision
                    && delivery.stores(publish)
                    && let Err(RingFull { .. }) =
                        delivery.publish(connections, inspector, clock, &abandoned.publications, publish)
                {
                    self.waiting.push_front(abandoned);
                    return;
                }
                abandoned.at += 1;
            }
            self.bytes -= abandoned.bytes();
        }
    }

    fn have_room(&self, abandoned: &AbandonedPublication) -> bool {
        self.bytes + abandoned.bytes() <= self.bytes_max
    }
}

impl AbandonedPublication {
    fn bytes(&self) -> usize {
        size_of::<AbandonedPublication>()
            + self.publications.bytes_len()
            + size_of_val(self.publications.list())
    }
}
