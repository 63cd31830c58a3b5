//! A core's events for webhooks (`webhooks`). This part of a core exists only while webhooks are configured.
//!
//! An event for which there is no room is counted and dropped. Changes of occupancy wait here instead, since
//! each builds on the earlier ones. While the intake is full, a channel that becomes occupied and then vacant
//! again leaves no change. So the number of waiting changes is bounded by the channels that the core has now,
//! or had when the intake became full ([`compact`]).
//!
//! After a change of the webhooks the core walks along its channels, some in each turn, and reports which are
//! occupied: a webhook must know of them, since it will be told when they become vacant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Uptime;
use crate::config::webhooks::WebhookEvent;
use crate::decision::Limit;
use crate::metrics::block::CoreMetrics;
use crate::webhooks::event::{Occupied, SubscriberKind};
use crate::webhooks::{DatedEvent, Event, Intake, Webhooks};

/// The events of one core for webhooks.
#[derive(Debug)]
pub(in crate::cores) struct WebhookEvents {
    core: usize,
    webhooks: Arc<Webhooks>,
    intake: Arc<Intake>,
    /// Changes of occupancy that were not reported yet, in their order.
    changes: Vec<PendingOccupancy>,
    /// When more changes than this wait, the changes that cancel each other are removed.
    compact_over: usize,
    /// The walk along the channels, until it is over.
    pub(in crate::cores) walk: Option<Walk>,
    metrics: Arc<CoreMetrics>,
}

/// A change of occupancy that was not reported yet.
#[derive(Clone, Debug)]
struct PendingOccupancy {
    change: Occupied,
    /// Whether, before this change, webhooks know the channel as vacant on this core, or do not know it.
    was_vacant: bool,
}

/// How the core noticed that a channel has subscribers, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Source {
    /// It has got its first subscriber now, or has lost its last.
    Change,
    /// The walk has found subscribers: the channel may have had them before, and webhooks may know of them.
    Walk,
}

/// The progress of a walk along channels.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cores) struct Walk {
    /// The next channel of SocketCluster clients.
    pub(in crate::cores) channel: u32,
    /// The next topic of MQTT sessions.
    pub(in crate::cores) topic: u32,
}

impl WebhookEvents {
    /// For these webhooks; `None` without any. Goes on with the changes that `former` has not reported.
    pub(in crate::cores) fn new(
        core: usize,
        webhooks: &Arc<Webhooks>,
        former: Option<Box<WebhookEvents>>,
        metrics: &Arc<CoreMetrics>,
    ) -> Option<Box<WebhookEvents>> {
        let intake = webhooks.intake().filter(|_| !webhooks.is_empty())?;
        Some(Box::new(WebhookEvents {
            core,
            webhooks: Arc::clone(webhooks),
            intake: Arc::clone(intake),
            changes: former.map_or_else(Vec::new, |former| former.changes),
            compact_over: CHANGES_KEPT_MAX,
            walk: webhooks.watches_channels().then(Walk::default),
            metrics: Arc::clone(metrics),
        }))
    }

    /// Whether a webhook asks for such events.
    pub(in crate::cores) fn wants(&self, event: WebhookEvent) -> bool {
        self.webhooks.wants(event)
    }

    /// Whether a webhook asks for such events about this channel.
    pub(in crate::cores) fn wants_on(&self, event: WebhookEvent, channel: &[u8]) -> bool {
        self.webhooks.wants_on(event, channel)
    }

    /// Reports an event of this kind; calls `make` to make it if there is room for it.
    pub(in crate::cores) fn tell(
        &self,
        kind: WebhookEvent,
        bytes: usize,
        unix_ms: u64,
        make: impl FnOnce() -> Event,
    ) {
        let is_told = self.intake.has_room(bytes)
            && self
                .intake
                .put(DatedEvent {
                    unix_ms,
                    core: self.core,
                    event: make(),
                })
                .is_ok();
        if !is_told {
            self.intake.lose(kind);
            self.metrics.limit_hit(Limit::WebhookEventsWaiting);
        }
    }

    /// Notes that a channel has subscribers on this core, or has none any more.
    pub(in crate::cores) fn note(&mut self, source: Source, change: Occupied) {
        if self.webhooks.watches_channel(&change.channel) {
            let was_vacant = change.is_occupied && source == Source::Change;
            self.changes.push(PendingOccupancy { change, was_vacant });
        }
    }

    /// Reports the changes of occupancy, as far as there is room.
    pub(in crate::cores) fn tell_changes(&mut self, unix_ms: u64) {
        let mut told = 0;
        while told < self.changes.len() && self.intake.has_room(0) {
            let end = self.changes.len().min(told + CHANGES_PER_EVENT_MAX);
            let changes = self.changes[told..end].iter().map(|noted| noted.change.clone());
            let put = self.intake.put(DatedEvent {
                unix_ms,
                core: self.core,
                event: Event::Occupancy(changes.collect()),
            });
            if put.is_err() {
                break;
            }
            told = end;
        }
        self.changes.drain(..told);
        if self.changes.len() > self.compact_over {
            self.changes = compact(std::mem::take(&mut self.changes));
            // Many channels have changed. It is worth looking at all of them again when there are twice as
            // many.
            self.compact_over = CHANGES_KEPT_MAX.max(self.changes.len() * 2);
        }
    }

    /// When the core is to report the remaining changes, if no event comes.
    pub(in crate::cores) fn next_turn(&self, now: Uptime) -> Uptime {
        match (&self.walk, self.changes.is_empty()) {
            (Some(_), _) => now,
            (None, false) => now + RETRY,
            (None, true) => Uptime::NEVER,
        }
    }
}

/// The same changes, reduced to the last one of each channel. A channel that had no subscribers before them
/// and has none after them is left out.
fn compact(changes: Vec<PendingOccupancy>) -> Vec<PendingOccupancy> {
    let key = |noted: &PendingOccupancy| {
        (
            noted.change.channel.clone(),
            noted.change.by == SubscriberKind::Mqtt,
        )
    };
    let mut last: HashMap<_, usize> = HashMap::with_capacity(changes.len());
    let mut was_vacant: HashMap<_, bool> = HashMap::with_capacity(changes.len());
    for (index, noted) in changes.iter().enumerate() {
        last.insert(key(noted), index);
        was_vacant.entry(key(noted)).or_insert(noted.was_vacant);
    }
    let mut compacted = Vec::with_capacity(last.len());
    for (index, mut noted) in changes.into_iter().enumerate() {
        let key = key(&noted);
        noted.was_vacant = was_vacant.get(&key) == Some(&true);
        let is_back = noted.was_vacant && !noted.change.is_occupied;
        if last.get(&key) == Some(&index) && !is_back {
            compacted.push(noted);
        }
    }
    compacted
}

/// Changes that one event of the intake holds.
const CHANGES_PER_EVENT_MAX: usize = 256;
/// How soon the core tries again to report changes for which there was no room: the thread that makes room
/// runs as often.
const RETRY: Duration = Duration::from_millis(20);
/// The smallest value of [`WebhookEvents::compact_over`].
const CHANGES_KEPT_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::webhooks::WebhookSpec;

    fn webhooks(events: &[WebhookEvent], waiting_max: u32) -> Arc<Webhooks> {
        let mut config = Config {
            webhooks: vec![WebhookSpec {
                name: "a".to_owned(),
                events: events.to_vec(),
                channels: vec!["**".to_owned()],
                ..WebhookSpec::default()
            }],
            ..Config::default()
        };
        config.limits.webhook_events_waiting_max = waiting_max;
        Webhooks::compile(&config, b'.', None).unwrap()
    }

    fn limit_hit() -> Event {
        Event::LimitHit { limit: "x", hits: 1 }
    }

    #[test]
    fn an_event_without_room_is_not_made_and_is_counted() {
        let webhooks = webhooks(&[WebhookEvent::Connected], 3);
        let metrics = Arc::new(CoreMetrics::default());
        let events = WebhookEvents::new(0, &webhooks, None, &metrics).unwrap();
        let mut made = 0;
        for _ in 0..10 {
            events.tell(WebhookEvent::Connected, 100, 0, || {
                made += 1;
                limit_hit()
            });
        }
        assert_eq!(made, 3);
        let lost = webhooks.intake().unwrap().metrics.lost(WebhookEvent::Connected);
        let hits = metrics.limit_hits[Limit::WebhookEventsWaiting.index()].value();
        assert_eq!((lost, hits), (7, 7));
    }

    /// Whatever happens while nothing can be reported, the later reports lead to the same state.
    #[test]
    fn changes_of_occupancy_are_never_lost_and_stay_few() {
        let webhooks = webhooks(&[WebhookEvent::ChannelOccupied], 1);
        let intake = Arc::clone(webhooks.intake().unwrap());
        let metrics = Arc::new(CoreMetrics::default());
        let mut events = WebhookEvents::new(0, &webhooks, None, &metrics).unwrap();
        assert!(events.walk.is_some());
        let mut told: HashMap<Box<[u8]>, bool> = HashMap::new();
        let mut truth: HashMap<Box<[u8]>, bool> = HashMap::new();
        let mut random = 1_u64;
        for step in 0..200_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let name = format!("{}", (random >> 33) % 500)
                .into_bytes()
                .into_boxed_slice();
            let is_occupied = !truth.get(&name).copied().unwrap_or(false);
            truth.insert(name.clone(), is_occupied);
            if step % 1000 == 7 && is_occupied {
                let change = Occupied {
                    channel: name.clone(),
                    by: SubscriberKind::SocketCluster,
                    is_occupied,
                };
                events.note(Source::Change, change.clone());
                events.note(Source::Walk, change);
                continue;
            }
            let change = Occupied {
                channel: name,
                by: SubscriberKind::SocketCluster,
                is_occupied,
            };
            events.note(Source::Change, change);
            events.tell_changes(0);
            assert!(events.changes.len() <= CHANGES_KEPT_MAX);
            if step.is_multiple_of(50_000) {
                while let Some(next) = intake.take() {
                    apply(next.event, &mut told);
                }
            }
        }
        while !events.changes.is_empty() {
            events.tell_changes(0);
            apply(intake.take().unwrap().event, &mut told);
        }
        while let Some(next) = intake.take() {
            apply(next.event, &mut told);
        }
        told.retain(|_, is_occupied| *is_occupied);
        truth.retain(|_, is_occupied| *is_occupied);
        assert_eq!(told, truth);
    }

    fn apply(event: Event, told: &mut HashMap<Box<[u8]>, bool>) {
        let Event::Occupancy(changes) = event else {
            panic!("{event:?}")
        };
        for change in changes {
            told.insert(change.channel, change.is_occupied);
        }
    }
}
