//! Reads API keys from a file that has been found to be TOML.

use super::{API_KEYS_MAX, ApiAction, ApiKeySpec, KeyHash, RATE_DEFAULT, RATE_MAX, is_key_name};
use crate::config::error::ListFault;
use crate::config::list::{self, Fault, Key, ListSource};
use crate::config::nearest::nearest;

/// Reads the keys of a file. With a fault there are no keys; the faults are the first one of each key that has one.
pub(in crate::config) fn read(place: ListSource<'_>) -> (Vec<ApiKeySpec>, Vec<ListFault>) {
    let read = list::read(place, "api_keys", API_KEYS_MAX, |keys, line| {
        Ok(ApiKeySpec {
            file: Some(place.file.to_owned()),
            ..api_key(keys, line)?
        })
    });
    match read {
        Ok(api_keys) => (api_keys, Vec::new()),
        Err(faults) => (Vec::new(), faults),
    }
}

fn api_key(keys: &[Key<'_>], line: usize) -> Result<ApiKeySpec, Fault> {
    if let Some(secret) = list::find(keys, "key") {
        let fault = "key does not belong here: a file holds only its hash; `ringcast api-key` makes one";
        return Err((secret.line, fault.to_owned()));
    }
    list::check_names(keys, &KEYS)?;
    let needed = |name: &str| list::find(keys, name).ok_or_else(|| (line, format!("{name} is missing")));
    let name = needed("name")?;
    let name = name
        .value
        .as_str()
        .filter(|text| is_key_name(text))
        .ok_or_else(|| {
            let fault = "name: expected 1 to 64 letters, digits, dots, hyphens or underscores";
            (name.line, fault.to_owned())
        })?;
    let hash = needed("hash")?;
    // The value is not shown: it may be the key itself.
    let hash = hash.value.as_str().and_then(KeyHash::parse).ok_or_else(|| {
        let fault = "hash: expected sha256: and 64 hexadecimal digits, as `ringcast api-key` prints them";
        (hash.line, fault.to_owned())
    })?;
    let actions_key = needed("actions")?;
    let actions = actions(actions_key)?;
    let channels_key = list::find(keys, "channels");
    let channels = channels_key
        .map(|key| key.texts(r#""shop.**", "news""#))
        .transpose()?;
    let on_channels = actions.iter().find(|action| action.is_on_channel());
    let may_be_on_channels = actions.iter().any(|action| action.may_be_on_channel());
    match (on_channels, channels_key) {
        // A forgotten line must not open every channel.
        (Some(action), None) => {
            let fault = format!(
                "channels are missing: {} is an action on channels; say which, or channels = [\"**\"] for all",
                action.label()
            );
            return Err((actions_key.line, fault));
        }
        (None, Some(key)) if !may_be_on_channels => {
            let fault = "channels are named, but no action is one on channels";
            return Err((key.line, fault.to_owned()));
        }
        (Some(_) | None, Some(_)) | (None, None) => {}
    }
    let number = |name: &str, min: u32| {
        let key = list::find(keys, name);
        let number = key.map(|key| key.number(u64::from(min), u64::from(RATE_MAX)));
        number.map(|number| number.map(|number| u32::try_from(number).unwrap_or(RATE_MAX)))
    };
    let rate = number("rate", 0).unwrap_or(Ok(RATE_DEFAULT))?;
    Ok(ApiKeySpec {
        name: name.to_owned(),
        hash,
        actions,
        channels: channels.unwrap_or_default(),
        rate,
        burst: number("burst", 1).unwrap_or_else(|| Ok(rate.max(1)))?,
        file: None,
        line,
    })
}

fn actions(key: &Key<'_>) -> Result<Vec<ApiAction>, Fault> {
    let words = key.texts(r#""publish", "history""#)?;
    if words.iter().any(|word| word == EVERY_ACTION) {
        return Ok(ApiAction::ALL.to_vec());
    }
    if let Some(word) = words.iter().find(|word| ApiAction::named(word).is_none()) {
        let known = ApiAction::LABELS.into_iter().chain([EVERY_ACTION]);
        let nearest = nearest(word, known.map(str::to_owned));
        let fault = format!("actions: {word:?} is not an action; did you mean {nearest}?");
        return Err((key.line, fault));
    }
    let is_named = |action: &ApiAction| words.iter().any(|word| word == action.label());
    Ok(ApiAction::ALL.into_iter().filter(is_named).collect())
}

const KEYS: [&str; 6] = ["name", "hash", "actions", "channels", "rate", "burst"];
const EVERY_ACTION: &str = "*";
