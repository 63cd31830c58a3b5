//! The page `/stats`: counters and settings as JSON, for people and scripts. Prometheus reads `/metrics`.
//!
//! Counters have the names of the metrics, without `ringcast_` and `_total`.

use serde_json::{Map, Value, json};

use super::ControlState;
use crate::config::channels::{ChannelSpec, PolicyPart};
use crate::config::settings::{Setting, TakesEffect};
use crate::config::{Config, SETTINGS};
use crate::cores::operators::mailbox::{CoreHandle, CoreStatus};
use crate::log;
use crate::login::PasswordChecks;
use crate::metrics::block::{METRICS, Values};
use crate::metrics::counter::Counter;
use crate::metrics::logins::LoginOutcome;

/// Everything that `/stats` shows.
pub(super) fn collect(shared: &ControlState) -> Value {
    let now = shared.clock.now();
    let cores: Vec<Value> = shared
        .cores
        .iter()
        .enumerate()
        .map(|(index, core)| core_stats(index, core))
        .collect();
    let reloaded = shared.policy.reloaded();
    let settings = settings_in_force(&shared.config, reloaded.as_deref().unwrap_or(&shared.config));
    let policy = shared.policy.now();
    let logins = policy.login.as_ref().map(login_stats);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": now.uptime.as_ms() / 1000,
        "draining": shared.draining(),
        "connections": shared.connections(),
        "cores": cores,
        "logins": logins,
        "log_lines_dropped": log::lines_dropped(),
        "settings": settings,
        "channels": policy.channels.specs().iter().map(channel_policy).collect::<Vec<Value>>(),
    })
}

/// All settings, without secrets. Those that take effect on reload are as the last reload has read them, the others as at
/// the start.
fn settings_in_force(at_start: &Config, reloaded: &Config) -> Map<String, Value> {
    let shown = |setting: &Setting| {
        let config = match setting.takes_effect {
            TakesEffect::AtStart => at_start,
            TakesEffect::OnReload => reloaded,
        };
        (setting.key(), json!(setting.show(config)))
    };
    SETTINGS.iter().map(shown).collect()
}

/// A policy of channels, with the keys that it has in the file.
fn channel_policy(spec: &ChannelSpec) -> Value {
    let policy = &spec.policy;
    let history = policy.history;
    let mut shown = json!({
        "names": spec.names,
        "history_entries": history.map_or(0, |history| history.entries_max),
        "history_bytes": history.map(|history| history.bytes_max),
        "history_ms": history.map(|history| history.age_ms_max),
        "last_value": policy.last_value,
        "position": policy.position,
        "presence": policy.presence.is_on(),
        "presence_events": policy.presence.has_events(),
    });
    if policy.has(PolicyPart::Mqtt)
        && let Some(keys) = shown.as_object_mut()
    {
        keys.insert("mqtt".to_owned(), json!(policy.mqtt.to_string()));
    }
    shown
}

fn core_stats(index: usize, core: &CoreHandle) -> Value {
    let block = core.metrics();
    let mut stats = Map::new();
    stats.insert("core".to_owned(), json!(index));
    stats.insert("status".to_owned(), json!(status_name(core.status())));
    for metric in METRICS {
        let name = metric
            .name
            .trim_start_matches("ringcast_")
            .trim_end_matches("_total");
        let value = match metric.values {
            Values::Counter(counter) | Values::Gauge(counter) => json!(counter(block).value()),
            Values::Counters(values) | Values::Gauges(values) => {
                labelled(values.labels, (values.counters)(block))
            }
            Values::Histogram(histogram) => {
                let histogram = histogram(block);
                json!({
                    "count": histogram.counts().iter().sum::<u64>(),
                    "sum_ns": histogram.sum_ns(),
                })
            }
        };
        stats.insert(name.to_owned(), value);
    }
    Value::Object(stats)
}

fn login_stats(password_checks: &PasswordChecks) -> Value {
    let metrics = password_checks.metrics();
    let outcomes =
        LoginOutcome::ALL.map(|outcome| (outcome.label().to_owned(), json!(metrics.value(outcome))));
    json!({
        "users": password_checks.user_count(),
        "waiting": password_checks.waiting(),
        "outcomes": Map::from_iter(outcomes),
        "accounts_forgotten": metrics.accounts_forgotten.value(),
    })
}

fn labelled(labels: &[&str], counters: &[Counter]) -> Value {
    let pairs = labels
        .iter()
        .zip(counters)
        .map(|(label, counter)| ((*label).to_owned(), json!(counter.value())));
    Value::Object(pairs.collect())
}

fn status_name(status: CoreStatus) -> &'static str {
    match status {
        CoreStatus::Starting => "starting",
        CoreStatus::Serving => "serving",
        CoreStatus::Draining => "draining",
        CoreStatus::Stopped => "stopped",
    }
}
