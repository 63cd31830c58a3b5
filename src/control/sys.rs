//! The topics under `$SYS/broker/`, by which dashboards watch an MQTT broker: retained publications of the server
//! itself, with the names that Mosquitto has given them.
//!
//! Every `mqtt_sys_interval_seconds` the values that have changed
//! are published. The numbers of clients are for MQTT; messages and bytes include SocketCluster clients, since one
//! message may go to both kinds. Clients may not publish there; the rules say which clients may subscribe.
//!
//! ```text
//!   $SYS/broker/messages/received               total          $SYS/broker/load/messages/received/1min   per minute
//! ```
//! A load is the mean per minute over the last 1, 5 or 15 minutes, in which older values count for less and less.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::ControlState;
use crate::metrics::block::CoreMetrics;
use crate::metrics::counter::Counter;

/// Publishes until the runtime ends.
pub(super) async fn publish(shared: Arc<ControlState>) {
    let seconds = u64::from(shared.config.mqtt.sys_interval_seconds);
    let mut tick = interval(Duration::from_secs(seconds));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut topics = Topics::default();
    let mut before = shared.clock.uptime();
    loop {
        tick.tick().await;
        let now = shared.clock.uptime();
        let values = topics.values(&shared, now.since(before));
        before = now;
        for (topic, payload) in values {
            // Without room in the ring it is published the next time, if it has not changed again.
            if shared.handle.publish_for_mqtt(&topic, &payload).await.is_ok() {
                topics.published.insert(topic, payload);
            }
        }
    }
}

/// The values that were published, and the loads.
#[derive(Debug, Default)]
struct Topics {
    published: HashMap<String, String>,
    loads: [Load; COUNTS.len()],
    connected_max: u64,
}

/// The load of one count.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// The count at the last time.
    total: Option<u64>,
    /// Per minute, over each of [`MINUTES`].
    per_minute: [f64; MINUTES.len()],
}

impl Topics {
    /// The topics whose values have changed, with the values. `passed` is the time since the last call.
    fn values(&mut self, shared: &ControlState, passed: Duration) -> Vec<(String, String)> {
        let sum = |counter: &dyn Fn(&CoreMetrics) -> &Counter| -> u64 {
            let cores = shared.cores.iter();
            cores.map(|core| counter(core.metrics()).value()).sum()
        };
        let mut values = vec![
            (
                "version".to_owned(),
                format!("ringcast version {}", env!("CARGO_PKG_VERSION")),
            ),
            (
                "uptime".to_owned(),
                format!("{} seconds", shared.clock.uptime().as_ms() / 1000),
            ),
        ];
        for (name, counter) in COUNTS {
            values.push((name.to_owned(), sum(&counter).to_string()));
        }
        let (sessions, connected) = (
            sum(&|core| &core.mqtt_sessions),
            sum(&|core| &core.mqtt_sessions_connected),
        );
        self.connected_max = self.connected_max.max(connected);
        let dropped = shared
            .cores
            .iter()
            .flat_map(|core| core.metrics().mqtt_publications_dropped.iter());
        for (name, value) in [
            ("clients/total", sessions),
            ("clients/connected", connected),
            ("clients/active", connected),
            ("clients/disconnected", sessions.saturating_sub(connected)),
            ("clients/inactive", sessions.saturating_sub(connected)),
            ("clients/maximum", self.connected_max),
            ("clients/expired", sum(&|core| &core.mqtt_sessions_expired)),
            ("subscriptions/count", sum(&|core| &core.mqtt_subscriptions)),
            ("retained messages/count", sum(&|core| &core.mqtt_retained)),
            ("store/messages/bytes", sum(&|core| &core.mqtt_kept_bytes)),
            ("publish/messages/dropped", dropped.map(Counter::value).sum()),
        ] {
            values.push((name.to_owned(), value.to_string()));
        }
        for ((name, counter), load) in COUNTS.into_iter().zip(&mut self.loads) {
            load.note(sum(&counter), passed);
            for (minutes, value) in MINUTES.into_iter().zip(load.per_minute) {
                values.push((format!("load/{name}/{minutes}min"), format!("{value:.2}")));
            }
        }
        let values = values
            .into_iter()
            .map(|(name, value)| (format!("$SYS/broker/{name}"), value));
        values
            .filter(|(topic, value)| self.published.get(topic) != Some(value))
            .collect()
    }
}

impl Load {
    /// So much time has passed, and the count is this one now.
    fn note(&mut self, total: u64, passed: Duration) {
        let seconds = passed.as_secs_f64();
        let Some(before) = self.total.replace(total).filter(|_| seconds > 0.0) else {
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        let rate = total.saturating_sub(before) as f64 * 60.0 / seconds;
        for (minutes, value) in MINUTES.into_iter().zip(&mut self.per_minute) {
            let weight = (-seconds / (60.0 * f64::from(minutes))).exp();
            *value = rate * (1.0 - weight) + *value * weight;
        }
    }
}

type Count = (&'static str, fn(&CoreMetrics) -> &Counter);

/// The totals that have loads too.
const COUNTS: [Count; 6] = [
    ("messages/received", |core| &core.messages_received),
    ("messages/sent", |core| &core.messages_sent),
    ("publish/messages/received", |core| &core.publications),
    ("publish/messages/sent", |core| &core.deliveries),
    ("bytes/received", |core| &core.bytes_received),
    ("bytes/sent", |core| &core.bytes_sent),
];
const MINUTES: [u8; 3] = [1, 5, 15];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_goes_towards_the_rate_the_faster_the_shorter_its_time_is() {
        let mut load = Load::default();
        let mut total = 7;
        load.note(total, Duration::from_secs(10));
        assert_eq!(load.per_minute, [0.0; 3]);
        for _ in 0..6 {
            total += 100;
            load.note(total, Duration::from_secs(10));
        }
        let [one, five, fifteen] = load.per_minute;
        // One minute with 600 per minute: all but a fraction of 1/e, e^(-1/5) and e^(-1/15).
        for (value, expected) in [(one, 379.3), (five, 108.8), (fifteen, 38.7)] {
            assert!((value - expected).abs() < 0.1, "{value} {expected}");
        }
        for _ in 0..600 {
            load.note(total, Duration::from_secs(10));
        }
        assert!(load.per_minute.iter().all(|value| *value < 1.0), "{load:?}");
    }
}
