//! Reads webhooks from a file that has been found to be TOML.

use std::path::PathBuf;
use std::time::Duration;

use super::{KEYS, WEBHOOKS_MAX, WebhookEvent, WebhookSpec};
use crate::config::api_keys::is_key_name;
use crate::config::error::ListFault;
use crate::config::list::{self, Fault, Key, ListSource};
use crate::config::nearest::nearest;
use crate::config::target_url::TargetUrl;

/// Reads the list of a file. A list with a fault is empty; the faults are the first one of each webhook that has one.
pub(in crate::config) fn read(place: ListSource<'_>) -> (Vec<WebhookSpec>, Vec<ListFault>) {
    let read = list::read(place, "webhooks", WEBHOOKS_MAX, |keys, line| {
        Ok(WebhookSpec {
            file: Some(place.file.to_owned()),
            ..webhook(keys, line)?
        })
    });
    match read {
        Ok(webhooks) => (webhooks, Vec::new()),
        Err(faults) => (Vec::new(), faults),
    }
}

fn webhook(keys: &[Key<'_>], line: usize) -> Result<WebhookSpec, Fault> {
    if let Some(secret) = list::find(keys, "secret") {
        let fault = "secret does not belong here: write it into a file, and name that as secret_file";
        return Err((secret.line, fault.to_owned()));
    }
    list::check_names(keys, &KEYS.map(|key| key.name))?;
    let needed = |name: &str| list::find(keys, name).ok_or_else(|| (line, format!("{name} is missing")));
    let name = needed("name")?;
    let name_text = name
        .value
        .as_str()
        .filter(|text| is_key_name(text))
        .ok_or_else(|| {
            let fault = "name: expected 1 to 64 letters, digits, dots, hyphens or underscores";
            (name.line, fault.to_owned())
        })?;
    let events_key = needed("events")?;
    let events = events(events_key)?;
    let channels_key = list::find(keys, "channels");
    let channels = channels_key
        .map(|key| key.texts(r#""room.*", "news""#))
        .transpose()?;
    let is_about_channels = events.iter().any(|event| event.is_about_channel());
    match channels_key {
        // A forgotten line must not send every publication.
        None if events.contains(&WebhookEvent::Publication) => {
            let fault = "channels are missing: publications are sent only of channels that the webhook names; say which, \
                         or channels = [\"**\"] for all";
            return Err((events_key.line, fault.to_owned()));
        }
        Some(key) if !is_about_channels => {
            let fault = "channels are named, but no event of this webhook is about a channel";
            return Err((key.line, fault.to_owned()));
        }
        Some(_) | None => {}
    }
    let defaults = WebhookSpec::default();
    let small = |name: &str, min: u64, max: u64, default: u32| {
        let number = number(keys, name, min, max)?;
        Ok::<_, Fault>(number.map_or(default, |number| u32::try_from(number).unwrap_or(u32::MAX)))
    };
    let duration = |name: &str, min: u64, max: u64, default: Duration| {
        Ok::<_, Fault>(number(keys, name, min, max)?.map_or(default, Duration::from_millis))
    };
    Ok(WebhookSpec {
        name: name_text.to_owned(),
        url: url(needed("url")?)?,
        events,
        channels: channels.unwrap_or_default(),
        secret_file: path(keys, "secret_file")?,
        ca_file: path(keys, "ca_file")?,
        link_local: list::find(keys, "link_local").map_or(Ok(defaults.link_local), Key::switch)?,
        batch_events: small("batch_events", 1, 10_000, defaults.batch_events)?,
        batch_bytes: small("batch_bytes", 1024, 16 * 1024 * 1024, defaults.batch_bytes)?,
        interval: duration("interval_ms", 0, 60_000, defaults.interval)?,
        timeout: duration("timeout_ms", 10, 120_000, defaults.timeout)?,
        queue_events: small("queue_events", 1, 100_000_000, defaults.queue_events)?,
        queue_bytes: small("queue_bytes", 1024, u64::from(u32::MAX), defaults.queue_bytes)?,
        disk_bytes: number(keys, "disk_bytes", 1024, 1 << 40)?.unwrap_or(defaults.disk_bytes),
        keep: duration("keep_ms", 1000, 30 * 24 * 3_600_000, defaults.keep)?,
        file: None,
        line,
    })
}

fn number(keys: &[Key<'_>], name: &str, min: u64, max: u64) -> Result<Option<u64>, Fault> {
    list::find(keys, name).map(|key| key.number(min, max)).transpose()
}

fn path(keys: &[Key<'_>], name: &str) -> Result<Option<PathBuf>, Fault> {
    let Some(key) = list::find(keys, name) else {
        return Ok(None);
    };
    let text = key.value.as_str().filter(|text| !text.is_empty());
    let path = text.ok_or_else(|| (key.line, format!("{name}: expected the name of a file")))?;
    Ok(Some(PathBuf::from(path)))
}

/// The value is not shown if it is wrong: it may hold a password.
fn url(key: &Key<'_>) -> Result<TargetUrl, Fault> {
    let url = key.value.as_str().and_then(TargetUrl::parse);
    url.ok_or_else(|| {
        let fault = "url: expected an address such as https://shop.example/events, without user and fragment (the value \
                     found is not shown)";
        (key.line, fault.to_owned())
    })
}

fn events(key: &Key<'_>) -> Result<Vec<WebhookEvent>, Fault> {
    let words = key.texts(r#""channel_occupied", "channel_vacated""#)?;
    if words.iter().any(|word| word == EVERY_EVENT) {
        return Ok(WebhookEvent::ALL.to_vec());
    }
    if let Some(word) = words.iter().find(|word| WebhookEvent::named(word).is_none()) {
        let known = WebhookEvent::LABELS.into_iter().chain([EVERY_EVENT]);
        let nearest = nearest(word, known.map(str::to_owned));
        let fault = format!("events: {word:?} is not an event; did you mean {nearest}?");
        return Err((key.line, fault));
    }
    let is_named = |event: &WebhookEvent| words.iter().any(|word| word == event.label());
    Ok(WebhookEvent::ALL.into_iter().filter(is_named).collect())
}

const EVERY_EVENT: &str = "*";
