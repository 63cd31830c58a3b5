//! From this core into the ring, and from the ring into the outboxes of this core's subscribers.
//!
//! Delivery follows each publish at once, so that a publisher that is subscribed gets its own copy before the
//! acknowledgement, as from the reference. Subscribing and unsubscribing deliver first all that has been claimed, so
//! that a subscription begins and ends at an exact place in the one order of publications.
//!
//! Waits: a claimed place that is not published yet belongs to a core between two instructions; it waits for nobody
//! (`broker/ring.rs`), so these waits form no cycle.

use crate::app::App;
use crate::broker::{CoreSet, Delivery, RingFull, Subscriptions};
use crate::websocket::frame::{self, OpCode};

use super::Core;
use super::connections::Connections;

/// What a turn has delivered, for the measure of its latency.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered {
    at_ns: u64,
    subscribers: u64,
}

impl<A: App> Core<A> {
    /// Publishes a message to all subscribers of a channel, on all cores.
    pub(super) fn publish(&mut self, channel: &[u8], message: &[u8]) -> Result<(), RingFull> {
        self.frame_head.clear();
        frame::write_header(&mut self.frame_head, OpCode::Text, message.len());
        let hash = self.broker.hasher.hash(channel);
        let parts = [&self.frame_head[..], message];
        let mut published = self
            .broker
            .ring
            .try_publish(channel, hash, &parts, self.turn_began_ns);
        if let Err(RingFull { wake }) = published {
            // Those that lag and sleep make room; so does this core. Then once more.
            self.wake(wake);
            self.deliver();
            let parts = [&self.frame_head[..], message];
            published = self
                .broker
                .ring
                .try_publish(channel, hash, &parts, self.turn_began_ns);
        }
        match published {
            Ok(published) => {
                self.metrics.publications.add(1);
                self.wake(published.wake);
                self.deliver();
                Ok(())
            }
            Err(full) => {
                self.wake(full.wake);
                Err(full)
            }
        }
    }

    /// Delivers what is published, up to a bounded batch; the rest keeps the core from sleeping.
    pub(super) fn deliver(&mut self) {
        for count in 1..=DELIVERIES_AT_ONCE_MAX {
            let Some(delivery) = self.broker.ring.next() else {
                break;
            };
            fan_out(
                &delivery,
                &self.broker.subscriptions,
                &mut self.connections,
                &mut self.delivered,
            );
            self.after_one(count);
        }
        self.after_delivery();
    }

    /// Delivers all that any core has begun to publish before this call.
    pub(super) fn deliver_all_claimed(&mut self) {
        let target = self.broker.ring.claimed();
        let mut count = 0;
        while let Some(delivery) = self.broker.ring.next_until(target) {
            fan_out(
                &delivery,
                &self.broker.subscriptions,
                &mut self.connections,
                &mut self.delivered,
            );
            count += 1;
            self.after_one(count);
        }
        self.after_delivery();
    }

    fn after_one(&mut self, count: usize) {
        self.end_those_found();
        if count.is_multiple_of(RELEASE_EVERY) {
            self.broker.ring.release();
        }
    }

    fn after_delivery(&mut self) {
        self.broker.ring.release();
        self.broker.ring.reclaim();
    }

    fn wake(&self, cores: CoreSet) {
        for core in cores {
            self.metrics.wakes.add(1);
            // An eventfd write fails only when its counter is full: then the core is being woken anyway.
            let _ = self.wakers[core].wake();
        }
    }

    /// Records how long the publications of this turn took from the publish to the write.
    pub(super) fn record_latencies(&mut self) {
        if self.delivered.is_empty() {
            return;
        }
        let now_ns = self.clock.elapsed_ns();
        for Delivered { at_ns, subscribers } in self.delivered.drain(..) {
            self.metrics
                .publish_to_write_seconds
                .record_many_ns(now_ns.saturating_sub(at_ns), subscribers);
        }
    }
}

/// Queues a publication for those of this core's connections that are subscribed to its channel.
fn fan_out(
    delivery: &Delivery<'_>,
    subscriptions: &Subscriptions,
    connections: &mut Connections,
    delivered: &mut Vec<Delivered>,
) {
    let publication = &delivery.publication;
    let subscribers = subscriptions.subscribers(delivery.hash, || publication.channel());
    if !subscribers.is_empty() {
        let taken = connections.deliver(subscribers, publication.frame());
        delivered.push(Delivered {
            at_ns: publication.at_ns(),
            subscribers: taken,
        });
    }
}

/// Publications that are delivered before the core turns to its sockets again.
const DELIVERIES_AT_ONCE_MAX: usize = 4096;
/// A core that has fallen behind gives places back in steps, so that publishers need not wait for all of its backlog.
const RELEASE_EVERY: usize = 256;
