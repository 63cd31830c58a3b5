//! Reads the policies of channels from a file that has been found to be TOML.

use super::{
    CHANNELS_MAX, ChannelPolicy, ChannelSpec, HistoryPolicy, KEYS, MqttPayload, MqttPolicy, PRESENCE_PREFIX,
    PresencePolicy, RetainPolicy, StringPolicy,
};
use crate::config::error::ListFault;
use crate::config::form::Words;
use crate::config::list::{self, Fault, Key, ListSource};

/// Reads the list of a file. A list with a fault is empty; the faults are the first one of each policy that has one.
pub(in crate::config) fn read(place: ListSource<'_>) -> (Vec<ChannelSpec>, Vec<ListFault>) {
    let read = list::read(place, "channels", CHANNELS_MAX, |keys, line| {
        list::check_names(keys, &KEYS.map(|key| key.name))?;
        let names = names(keys, line)?;
        Ok(ChannelSpec {
            policy: policy(keys, &names)?,
            names,
            file: Some(place.file.to_owned()),
            line,
        })
    });
    match read {
        Ok(channels) => (channels, Vec::new()),
        Err(faults) => (Vec::new(), faults),
    }
}

fn names(keys: &[Key<'_>], line: usize) -> Result<Vec<String>, Fault> {
    const EXAMPLE: &str = r#""room.*", "user.**""#;
    match list::find(keys, "names") {
        Some(key) => key.texts(EXAMPLE),
        None => Err((
            line,
            format!(
                "names are missing: name the channels that the policy is about, such as names = [{EXAMPLE}]"
            ),
        )),
    }
}

fn policy(keys: &[Key<'_>], names: &[String]) -> Result<ChannelPolicy, Fault> {
    let switch = |name: &str| list::find(keys, name).map(Key::switch).transpose();
    let history = history(keys)?;
    let last_value = switch("last_value")?.unwrap_or(false);
    let is_kept = history.is_some() || last_value;
    Ok(ChannelPolicy {
        history,
        last_value,
        position: switch("position")?.unwrap_or(is_kept),
        presence: presence(keys, names)?,
        mqtt: mqtt(keys)?,
    })
}

fn mqtt(keys: &[Key<'_>]) -> Result<MqttPolicy, Fault> {
    let switch = |name: &str| list::find(keys, name).map(Key::switch).transpose();
    let payload = list::find(keys, "mqtt_payload");
    Ok(MqttPolicy {
        payload: payload
            .map(|key| key.word(MqttPayload::WORDS, MqttPayload::EXPECTS))
            .transpose()?,
        retain: match switch("mqtt_retain")? {
            Some(true) | None => RetainPolicy::Kept,
            Some(false) => RetainPolicy::NotKept,
        },
        strings: match switch("mqtt_unquote")? {
            Some(true) => StringPolicy::Unquoted,
            Some(false) | None => StringPolicy::AsJson,
        },
    })
}

fn history(keys: &[Key<'_>]) -> Result<Option<HistoryPolicy>, Fault> {
    let number = |name: &str, min: u64, max: u64| {
        let key = list::find(keys, name);
        key.map(|key| key.number(min, max).map(|number| (key, number)))
            .transpose()
    };
    let entries = number("history_entries", 0, ENTRIES_MAX)?.map_or(0, |(_, entries)| entries);
    let bytes = number("history_bytes", 1, BYTES_MAX)?;
    let age_ms = number("history_ms", 1, AGE_MS_MAX)?;
    if entries == 0 {
        return match [&bytes, &age_ms].into_iter().flatten().next() {
            Some((key, _)) => Err((
                key.line,
                format!(
                    "{} has no effect without history_entries: set how many publications are kept",
                    key.name
                ),
            )),
            None => Ok(None),
        };
    }
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Some(HistoryPolicy {
        entries_max: small(entries),
        bytes_max: bytes.map_or(BYTES_DEFAULT, |(_, bytes)| small(bytes)),
        age_ms_max: age_ms.map_or(AGE_MS_DEFAULT, |(_, age_ms)| age_ms),
    }))
}

fn presence(keys: &[Key<'_>], names: &[String]) -> Result<PresencePolicy, Fault> {
    let switch = |name: &str| {
        let key = list::find(keys, name);
        key.map(|key| key.switch().map(|is_on| (key.line, is_on)))
            .transpose()
    };
    let (presence, events) = (switch("presence")?, switch("presence_events")?);
    match (presence, events) {
        (Some((line, true)), events) => {
            if let Some(name) = names.iter().find(|name| name.starts_with(PRESENCE_PREFIX)) {
                let fault = format!(
                    "presence: {name:?} names channels on which the server publishes who joined and left; the \
                     subscribers of such a channel have no presence of their own"
                );
                return Err((line, fault));
            }
            Ok(match events {
                Some((_, true)) => PresencePolicy::MembersAndEvents,
                Some((_, false)) | None => PresencePolicy::Members,
            })
        }
        (None | Some((_, false)), Some((line, true))) => Err((
            line,
            "presence_events has no effect without presence: set presence = true".to_owned(),
        )),
        (None | Some((_, false)), None | Some((_, false))) => Ok(PresencePolicy::Off),
    }
}

const ENTRIES_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// A year.
const AGE_MS_MAX: u64 = 365 * 24 * 3600 * 1000;
/// One message of the largest size, by the defaults.
const BYTES_DEFAULT: u32 = 1024 * 1024;
/// Ten minutes: longer than a client takes to come back from a tunnel, a sleep or a deploy.
const AGE_MS_DEFAULT: u64 = 600_000;
