//! The work for MQTT sessions of a core (`mqtt/sessions.rs`) in each turn: ends sessions whose time is over,
//! publishes wills that are due, and sends waiting packets to clients.
//!
//! A will queues behind the publications of connections that have ended before the ring had room
//! (`delivery/abandoned_publications.rs`), so this file never waits for the ring.
//!
//! Limits: `WILLS_PER_TURN_MAX`; `CHANNELS_PER_TURN_MAX` (`unsubscribing.rs`) for sessions that end.

use crate::app::App;
use crate::decision::Limit;
use crate::metrics::block::MqttDrop;
use crate::mqtt::sessions::DueWill;
use crate::session::MqttUse;
use crate::{protocols, session};

use crate::cores::core::Core;
use crate::cores::lifecycle::unsubscribing::channels_per_turn_max;

impl<A: App> Core<A> {
    /// Ends sessions whose time is over, and publishes wills that are due, as many as one turn may.
    pub(in crate::cores) fn expire_mqtt_sessions(&mut self) {
        let now = self.time.now().uptime;
        if let Some(sessions) = &mut self.connections.mqtt {
            sessions.begin_turn(channels_per_turn_max());
            if sessions.next_due() <= now {
                sessions.end_due(now);
            }
        }
        for _ in 0..WILLS_PER_TURN_MAX {
            let sessions = self.connections.mqtt.as_mut();
            let Some(due) = sessions.and_then(|sessions| sessions.take_will()) else {
                return;
            };
            self.publish_mqtt_will(&due);
        }
    }

    /// Sends the packets that wait for clients, and tells the metrics and other cores about changes. This
    /// happens before the answers of this turn leave, so that a client that has got SUBACK gets everything
    /// that is published from then on.
    pub(in crate::cores) fn serve_mqtt_sessions(&mut self) {
        if let Some(sessions) = &mut self.connections.mqtt
            && let Some(on_disk) = self.delivery.on_disk()
        {
            sessions.note_committed(on_disk.committed_save());
        }
        self.connections
            .send_waiting_mqtt(&mut self.resources.inspector());
        let Some(sessions) = &mut self.connections.mqtt else {
            return;
        };
        self.delivery.tell_mqtt_interest(sessions);
        let counts = sessions.take_counts();
        let metrics = &self.metrics;
        for (cause, limit, count) in [
            (MqttDrop::QueueFull, Some(Limit::MqttQueue), counts.dropped_queue),
            (
                MqttDrop::QueuesFull,
                Some(Limit::MqttQueues),
                counts.dropped_total,
            ),
            (MqttDrop::Expired, None, counts.dropped_expired),
            (MqttDrop::TooLarge, None, counts.dropped_too_large),
            (MqttDrop::Forbidden, None, counts.dropped_forbidden),
        ] {
            if count > 0 {
                metrics.mqtt_publications_dropped[cause.index()].add(count);
                if let Some(limit) = limit {
                    metrics.limit_hits[limit.index()].add(count);
                }
            }
        }
        metrics.mqtt_sessions_expired.add(counts.expired);
        metrics.mqtt_sessions_resumed.add(counts.resumed);
        metrics.mqtt_take_overs.add(counts.taken_over);
        metrics.mqtt_sessions.set(sessions.len() as u64);
        metrics.mqtt_subscriptions.set(sessions.subscriptions.len());
        metrics
            .mqtt_sessions_connected
            .set(sessions.connected_len() as u64);
        metrics.mqtt_kept_bytes.set(sessions.kept_bytes() as u64);
    }

    fn publish_mqtt_will(&mut self, due: &DueWill) {
        if self.is_will_revoked(due.will.claims.as_deref()) {
            self.metrics.wills_cancelled.add(1);
            return;
        }
        let topic = &due.will.topic;
        let channels = &self.resources.policy.channels;
        if session::reserved(topic, channels, MqttUse::WithoutRetained).is_some() {
            // A reload has given the channel to the server since the will was set.
            return;
        }
        let payload = self.resources.settings.mqtt.payload;
        let marks = session::mqtt_marks(
            channels,
            &mut self.resources.scratch.common.channels,
            topic,
            payload,
        );
        let publication = protocols::mqtt_will(due, marks, self.time.now().unix_ms);
        self.abandoned.add(publication);
        self.metrics.wills_published.add(1);
    }
}

/// Wills that one turn publishes. If a network switch fails, a thousand clients may end at once, and their
/// wills must not delay other clients.
const WILLS_PER_TURN_MAX: usize = 64;
