//! The events on their way from the cores to the thread of the webhooks: one bounded channel for all cores.
//!
//! A core never waits: an event that finds no room is counted and dropped. The thread looks by itself, every few
//! milliseconds while there are events; a core wakes no thread, so that an event costs it one or two allocations and
//! one operation on the channel.
//!
//! Changes of occupancy are not dropped, since later changes depend on earlier ones: a core keeps them until there is
//! room (`cores/lifecycle/webhook_events.rs`).
//!
//! Invariant: `bytes` is the sum of the bytes of all events in the channel and in the queues. A core or the thread adds
//! the bytes of an event when it puts it in; the thread subtracts them when it takes the event out.
//!
//! Limits: `webhook_events_waiting_max`, `webhook_bytes_max`.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::event::Event;
use crate::config::webhooks::{WEBHOOKS_MAX, WebhookEvent};
use crate::metrics::webhooks::WebhookMetrics;

/// The bounded channel of events.
#[derive(Debug)]
pub struct Intake {
    sender: Sender<DatedEvent>,
    receiver: Receiver<DatedEvent>,
    /// Relaxed: it guards nothing.
    bytes: AtomicUsize,
    bytes_max: usize,
    /// The counters of all webhooks.
    pub metrics: WebhookMetrics,
}

/// An event, when and where it has happened.
#[derive(Debug)]
pub struct DatedEvent {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The index of the core.
    pub core: usize,
    /// The event.
    pub event: Event,
}

impl Intake {
    /// An empty one.
    pub(crate) fn new(events_max: u32, bytes_max: u64) -> Intake {
        let (sender, receiver) = bounded(events_max.max(1) as usize);
        Intake {
            sender,
            receiver,
            bytes: AtomicUsize::new(0),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            metrics: WebhookMetrics::default(),
        }
    }

    /// Whether an event of so many bytes may be made. A core asks before it makes one.
    #[inline]
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        !self.sender.is_full() && self.bytes.load(Ordering::Relaxed).saturating_add(bytes) <= self.bytes_max
    }

    /// Puts an event in.
    ///
    /// # Errors
    /// There is no room: the event comes back.
    pub(crate) fn put(&self, told: DatedEvent) -> Result<(), DatedEvent> {
        let bytes = told.event.bytes();
        // Before it is in the channel, since the thread may take it out at once.
        self.hold(bytes);
        self.sender.try_send(told).map_err(|refused| {
            self.release(bytes);
            refused.into_inner()
        })
    }

    /// Counts an event that is dropped before it was put in.
    pub(crate) fn lose(&self, event: WebhookEvent) {
        self.metrics.lose(event);
    }

    /// Takes the next event out. Its bytes are released.
    pub(crate) fn take(&self) -> Option<DatedEvent> {
        let told = self.receiver.try_recv().ok()?;
        self.release(told.event.bytes());
        Some(told)
    }

    /// Whether no event is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Whether a queue that holds `own` bytes may hold so many more. Queues leave a part of the bytes for events that
    /// are on their way. Each queue also has a small part of its own, so that a webhook whose receiver is away leaves
    /// room for the others.
    pub(crate) fn may_hold(&self, own: usize, bytes: usize) -> bool {
        let all = self.bytes.load(Ordering::Relaxed).saturating_add(bytes);
        all <= self.bytes_max / 4 * 3 || own + bytes <= self.bytes_max / 8 / WEBHOOKS_MAX
    }

    /// Counts bytes that are held from now on.
    pub(crate) fn hold(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are not held any more.
    pub(crate) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_hit(hits: u64) -> DatedEvent {
        DatedEvent {
            unix_ms: 0,
            core: 0,
            event: Event::LimitHit { limit: "x", hits },
        }
    }

    #[test]
    fn a_full_channel_gives_the_event_back_and_holds_no_bytes_for_it() {
        let intake = Intake::new(2, 1 << 20);
        let bytes = limit_hit(1).event.bytes();
        assert!(intake.put(limit_hit(1)).is_ok() && intake.has_room(1));
        assert!(intake.put(limit_hit(2)).is_ok() && !intake.has_room(1));
        assert!(matches!(
            intake.put(limit_hit(3)),
            Err(DatedEvent {
                event: Event::LimitHit { hits: 3, .. },
                ..
            })
        ));
        assert_eq!((intake.held(), intake.is_empty()), (2 * bytes, false));
        assert!(intake.take().is_some() && intake.take().is_some() && intake.take().is_none());
        assert_eq!(intake.held(), 0);
    }

    #[test]
    fn the_bytes_of_all_events_are_bounded() {
        let intake = Intake::new(100, 256_000);
        assert!(intake.has_room(256_000) && !intake.has_room(256_001));
        intake.hold(191_000);
        assert!(
            intake.may_hold(5000, 1000) && !intake.may_hold(5000, 1001),
            "three quarters"
        );
        assert!(
            intake.may_hold(0, 1000) && !intake.may_hold(1, 1001),
            "a part of its own"
        );
        intake.hold(1000 + 32_000);
        assert!(
            intake.has_room(32_000),
            "the way from the cores is free when all queues are full"
        );
    }
}
