//! From this core into the ring, and from the ring into the outboxes of this core's subscribers.
//!
//! Delivery follows each publish at once, so that a publisher that is subscribed gets its own copy before the
//! acknowledgement, as from the reference. Subscribing and unsubscribing come after the delivery of all that has been
//! claimed when they are asked for, so that a subscription begins and ends at an exact place in the one order of
//! publications.
//!
//! A turn delivers no more than [`COPIES_PER_TURN_MAX`], nor more than the outboxes have room for before they are
//! flushed: a publication to many pauses, keeps its place in the ring and at the head of those that follow, and goes
//! on in the next turn. Connections that have to come after a delivery (see above) are held, and not read, meanwhile.
//! That bounds what waits: one publication for each connection.
//!
//! Waits: a held connection waits for this core's own delivery, which waits for a flush of some outbox and for cores
//! that are about to fill a place they have claimed; those wait for nobody (`broker/ring/mod.rs`), so these waits form no
//! cycle.

use std::collections::VecDeque;

use crate::app::App;
use crate::broker::{CoreSet, Facts, Kind, Origin, RingFull, Sequence};
use crate::decision::{Decisions, Publish};
use crate::websocket::frame::{self, OpCode};

use crate::cores::Core;
use crate::cores::lifecycle::connection::{Awaited, Work};

/// How far this core has got with what is in the ring.
#[derive(Debug, Default)]
pub(in crate::cores) struct Progress {
    /// Whether the publication at the front of the ring is under way.
    under_way: bool,
    /// What this turn may still do.
    copies_left: usize,
    /// What waits to be written, for the measure of its latency.
    delivered: VecDeque<Delivered>,
}

/// A publication in the outboxes of some subscribers.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    at_ns: u64,
    subscribers: u64,
    end_of_bulk: u64,
}

impl<A: App> Core<A> {
    /// Publishes to all subscribers of a channel, on all cores; returns the place behind the publication. The frame of the
    /// publisher's own protocol is made here, once.
    pub(in crate::cores) fn publish(
        &mut self,
        decisions: &Decisions,
        publish: Publish,
    ) -> Result<Sequence, RingFull> {
        let (channel, message) = (decisions.bytes(publish.channel), decisions.bytes(publish.message));
        self.frame_head.clear();
        frame::write_header(&mut self.frame_head, OpCode::Text, message.len());
        let hash = self.broker.hasher.hash(channel);
        let parts = [&self.frame_head[..], message];
        let facts = Facts {
            at_ns: *self.publish_ns.get_or_insert_with(|| self.clock.elapsed_ns()),
            kind: Kind::Json,
            origin: Origin::SocketCluster,
            payload_bytes: publish.payload_bytes,
        };
        let mut published = self.broker.publisher.try_publish(channel, hash, &parts, facts);
        if let Err(RingFull { wake }) = published {
            // Those that lag and sleep make room; so does this core. Then once more.
            self.wake(wake);
            self.deliver();
            let parts = [&self.frame_head[..], message];
            published = self.broker.publisher.try_publish(channel, hash, &parts, facts);
        }
        match published {
            Ok(published) => {
                self.metrics.publications.add(1);
                self.wake(published.wake);
                self.deliver();
                Ok(published.sequence.next())
            }
            Err(full) => {
                self.wake(full.wake);
                Err(full)
            }
        }
    }

    /// Lets a new turn deliver.
    pub(in crate::cores) fn begin_delivering(&mut self) {
        self.metrics
            .deliveries_paused
            .add(u64::from(self.progress.under_way));
        self.progress.copies_left = copies_per_turn_max();
    }

    /// Delivers what is published, as far as this turn may; the rest keeps the core from sleeping.
    pub(in crate::cores) fn deliver(&mut self) {
        let mut passed = 0_usize;
        while self.progress.copies_left > 0 && !self.is_shedding() {
            let shed_left = self.shed_left;
            if self.deliver_front() {
                self.broker.reader.pass();
                passed += 1;
                if passed.is_multiple_of(RELEASE_EVERY) {
                    self.broker.reader.release();
                }
            } else if self.shed_left == shed_left {
                break;
            }
        }
        self.broker.reader.release();
    }

    /// Goes on with the publication at the front of the ring; true if all subscribers have it.
    fn deliver_front(&mut self) -> bool {
        let Some(delivery) = self.broker.reader.front() else {
            return false;
        };
        let (publication, progress) = (delivery.publication, &mut self.progress);
        let subscriptions = &mut self.broker.subscriptions;
        if !progress.under_way {
            progress.under_way = true;
            subscriptions.begin_walk(delivery.hash, || publication.channel());
            self.connections.begin_publication();
            // One of no interest here costs something, too.
            progress.copies_left -= 1;
        }
        let mut taken = 0;
        while !subscriptions.is_walk_over() {
            let frame_bytes = publication.frame().len();
            let room = self.connections.room(frame_bytes).min(progress.copies_left);
            if room == 0 || (taken > 0 && self.connections.must_shed()) {
                break;
            }
            let channel = subscriptions.walked();
            let subscribers = subscriptions.walk(room);
            progress.copies_left -= subscribers.len();
            taken += self.connections.deliver(subscribers, channel, publication);
            let copies = self.connections.take_encoded_bytes() / ENCODED_BYTES_PER_COPY;
            progress.copies_left = progress.copies_left.saturating_sub(copies);
        }
        let is_over = subscriptions.is_walk_over();
        if taken > 0 {
            progress.note(Delivered {
                at_ns: publication.at_ns(),
                subscribers: taken,
                end_of_bulk: self.connections.end_of_bulk(),
            });
        }
        progress.under_way = !is_over;
        if is_over {
            self.connections.end_publication();
        }
        // May change who is subscribed.
        self.end_those_found();
        self.shed();
        is_over
    }

    /// The place up to which has still to be delivered before work is gone on with, if there is one.
    pub(in crate::cores) fn awaits(&mut self, work: &Work) -> Option<Sequence> {
        let (Awaited::Published(place) | Awaited::Asked(place)) = work.awaited else {
            return None;
        };
        if !self.broker.reader.has_passed(place) {
            self.deliver();
        }
        (!self.broker.reader.has_passed(place)).then_some(place)
    }

    /// Goes on with connections that had to come after a delivery.
    pub(in crate::cores) fn resume_held(&mut self) {
        for _ in 0..self.held.len() {
            let reader = &self.broker.reader;
            let Some((_, id)) = self.held.pop_front_if(|(place, _)| reader.has_passed(*place)) else {
                return;
            };
            self.carry_on(id);
            self.take_in_again(id);
        }
    }

    fn wake(&self, cores: CoreSet) {
        for core in cores {
            self.metrics.wakes.add(1);
            // An eventfd write fails only when its counter is full: then the core is being woken anyway.
            let _ = self.wakers[core].wake();
        }
    }

    /// Records how long publications took from the publish to the write.
    pub(in crate::cores) fn record_latencies(&mut self) {
        let delivered = &mut self.progress.delivered;
        if delivered.is_empty() {
            return;
        }
        let now_ns = self.clock.elapsed_ns();
        while let Some(written) =
            delivered.pop_front_if(|delivered| self.connections.has_flushed(delivered.end_of_bulk))
        {
            self.metrics
                .publish_to_write_seconds
                .record_many_ns(now_ns.saturating_sub(written.at_ns), written.subscribers);
        }
    }
}

impl Progress {
    fn note(&mut self, delivered: Delivered) {
        match self.delivered.back_mut() {
            Some(last) if (last.at_ns, last.end_of_bulk) == (delivered.at_ns, delivered.end_of_bulk) => {
                last.subscribers += delivered.subscribers;
            }
            Some(_) | None => self.delivered.push_back(delivered),
        }
    }
}

/// [`COPIES_PER_TURN_MAX`], or what a simulation has in its place.
fn copies_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.copies_per_turn_max;
    }
    COPIES_PER_TURN_MAX
}

/// Copies of publications that one turn makes, at 20 to 100 ns each: well over what merges into one flush of some
/// thousand connections, and soon done all the same.
const COPIES_PER_TURN_MAX: usize = 16_384;
/// To make another form of so many bytes costs what a copy does: measured for compression.
const ENCODED_BYTES_PER_COPY: usize = 16;
/// A core that has fallen behind gives places back in steps, so that publishers need not wait for all of its backlog.
const RELEASE_EVERY: usize = 256;
