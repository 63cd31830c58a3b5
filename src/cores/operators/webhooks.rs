//! Webhooks on a core: what it does when the configured webhooks change, and its reports at the end of each
//! turn (`lifecycle/webhook_events.rs`).
//!
//! Limits: `PLACES_PER_TURN_MAX`.

use std::sync::Arc;

use crate::app::App;
use crate::broker::Change;
#[cfg(test)]
use crate::clock::Uptime;
use crate::config::webhooks::WebhookEvent;
use crate::presence::MemberChange;
use crate::webhooks::event::{MembershipEvent, Occupied, SubscriberKind};
use crate::webhooks::{Event, Webhooks};

use crate::cores::connections::slow_consumers::SlowConsumers;
use crate::cores::core::Core;
use crate::cores::delivery::webhook_publications::WebhookPublications;
use crate::cores::lifecycle::connection::Phase;
use crate::cores::lifecycle::webhook_events::{Source, WebhookEvents};

impl<A: App> Core<A> {
    /// Adopts these webhooks.
    pub(in crate::cores) fn adopt_webhooks(&mut self, webhooks: &Arc<Webhooks>) {
        let core = self.id.index();
        self.webhooks = WebhookEvents::new(core, webhooks, self.webhooks.take(), &self.metrics);
        let watches = webhooks.watches_channels();
        self.delivery.watch_channels(watches);
        if let Some(sessions) = self.connections.mqtt.as_deref_mut() {
            sessions.subscriptions.watch_topics(watches);
        }
        let wants_members =
            webhooks.wants(WebhookEvent::MemberJoined) || webhooks.wants(WebhookEvent::MemberLeft);
        self.presence.rooms.watch_members(wants_members);
        self.connections.slow_consumers = webhooks
            .wants(WebhookEvent::SlowConsumer)
            .then(|| Box::new(SlowConsumers::default()));
        if core == 0 {
            let told = WebhookPublications::new(core, webhooks, &self.metrics);
            self.delivery.tell_publications(told);
        }
    }

    /// Reports the events of this turn to webhooks.
    #[inline(never)]
    pub(in crate::cores) fn tell_webhooks(&mut self) {
        let Some(mut events) = self.webhooks.take() else {
            return;
        };
        self.tell_members(&events);
        self.tell_slow_consumers(&events);
        self.note_occupancy(&mut events);
        self.walk_channels(&mut events);
        events.tell_changes(self.time.now().unix_ms);
        self.webhooks = Some(events);
    }

    /// Whether changes of occupancy wait for room, or the walk along channels is not over.
    #[cfg(test)]
    pub(in crate::cores) fn has_unreported_for_webhooks(&self) -> bool {
        let events = self.webhooks.as_deref();
        events.is_some_and(|events| events.next_turn(self.time.now().uptime) != Uptime::NEVER)
    }

    fn tell_members(&mut self, events: &WebhookEvents) {
        let unix_ms = self.time.now().unix_ms;
        for change in self.presence.rooms.take_changes() {
            let MemberChange {
                channel,
                user,
                session,
                is_there,
                count,
            } = change;
            let kind = match is_there {
                true => WebhookEvent::MemberJoined,
                false => WebhookEvent::MemberLeft,
            };
            if events.wants_on(kind, &channel) {
                let bytes = channel.len() + user.as_ref().map_or(0, |user| user.len());
                events.tell(kind, bytes, unix_ms, || {
                    Event::Member(MembershipEvent {
                        channel,
                        connection: session.filter(|_| user.is_none()),
                        user,
                        is_there,
                        count,
                    })
                });
            }
        }
    }

    fn tell_slow_consumers(&mut self, events: &WebhookEvents) {
        let Some(slow_consumers) = self.connections.slow_consumers.as_deref_mut() else {
            return;
        };
        let unix_ms = self.time.now().unix_ms;
        for (id, slow) in slow_consumers.take_unreported() {
            if let Some(Phase::Open(open)) = self.connections.get(id).map(|connection| &connection.phase)
                && let Some(client) = self.client_for_webhooks(id, open)
            {
                let bytes = client.user.as_ref().map_or(0, |user| user.len());
                events.tell(WebhookEvent::SlowConsumer, bytes, unix_ms, || {
                    Event::SlowConsumer(client, slow)
                });
            }
        }
    }

    fn note_occupancy(&mut self, events: &mut WebhookEvents) {
        for change in self.delivery.take_watched() {
            events.note(Source::Change, occupied(change, SubscriberKind::SocketCluster));
        }
        if let Some(sessions) = self.connections.mqtt.as_deref_mut() {
            for change in sessions.subscriptions.take_watched() {
                events.note(Source::Change, occupied(change, SubscriberKind::Mqtt));
            }
        }
    }

    /// After a change of the webhooks: looks at some more channels, and notes those that have subscribers.
    /// Changes meanwhile are noted as usual.
    fn walk_channels(&self, events: &mut WebhookEvents) {
        let Some(mut walk) = events.walk.take() else {
            return;
        };
        let subscriptions = self.delivery.subscriptions();
        let end = subscriptions
            .channel_places()
            .min(walk.channel.saturating_add(PLACES_PER_TURN_MAX));
        for number in walk.channel..end {
            if let Some((name, _)) = subscriptions.channel_at(number) {
                events.note(Source::Walk, found(name, SubscriberKind::SocketCluster));
            }
        }
        walk.channel = end;
        let mut is_over = end == subscriptions.channel_places();
        if let Some(sessions) = self.connections.mqtt.as_deref() {
            let topics = &sessions.subscriptions;
            let end = topics
                .filter_places()
                .min(walk.topic.saturating_add(PLACES_PER_TURN_MAX));
            for number in walk.topic..end {
                if let Some(topic) = topics.topic_at(number) {
                    events.note(Source::Walk, found(topic, SubscriberKind::Mqtt));
                }
            }
            walk.topic = end;
            is_over &= end == topics.filter_places();
        }
        if !is_over {
            events.walk = Some(walk);
        }
    }
}

fn occupied(change: Change, by: SubscriberKind) -> Occupied {
    Occupied {
        channel: change.channel,
        by,
        is_occupied: change.is_occupied,
    }
}

fn found(channel: &[u8], by: SubscriberKind) -> Occupied {
    Occupied {
        channel: channel.into(),
        by,
        is_occupied: true,
    }
}

/// Channels that one turn looks at after a change of the webhooks: 100 µs.
const PLACES_PER_TURN_MAX: u32 = 512;
