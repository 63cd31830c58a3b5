//! Reads hooks from a file that has been found to be TOML.

use std::path::PathBuf;
use std::time::Duration;

use super::{CacheBy, HOOKS_MAX, HookAction, HookSpec, KEYS, WhenAway};
use crate::config::api_keys::is_key_name;
use crate::config::error::ListFault;
use crate::config::list::{self, Fault, Key, ListSource};
use crate::config::nearest::nearest;
use crate::config::target_url::TargetUrl;

/// Reads the hooks of a file. With a fault there are no hooks; the faults are the first one of each hook that has one.
pub(in crate::config) fn read(place: ListSource<'_>) -> (Vec<HookSpec>, Vec<ListFault>) {
    let read = list::read(place, "hooks", HOOKS_MAX, |keys, line| {
        Ok(HookSpec {
            file: Some(place.file.to_owned()),
            ..hook(keys, line)?
        })
    });
    let hooks = match read {
        Ok(hooks) => hooks,
        Err(faults) => return (Vec::new(), faults),
    };
    let twice = hooks
        .iter()
        .enumerate()
        .find(|(index, hook)| hooks[..*index].iter().any(|other| other.name == hook.name));
    match twice {
        None => (hooks, Vec::new()),
        Some((index, hook)) => {
            let fault = ListFault {
                list: "hooks",
                number: index + 1,
                file: hook.file.clone(),
                line: hook.line,
                fault: format!("name: another hook above is named {:?}, too", hook.name),
            };
            (Vec::new(), vec![fault])
        }
    }
}

fn hook(keys: &[Key<'_>], line: usize) -> Result<HookSpec, Fault> {
    list::check_names(keys, &KEYS.each_ref().map(|key| key.name))?;
    let needed = |name: &str| list::find(keys, name).ok_or_else(|| (line, format!("{name} is missing")));
    let name = needed("name")?;
    let name = text_if(
        name,
        is_key_name,
        "1 to 64 letters, digits, dots, hyphens or underscores",
    )?;
    let actions_key = needed("actions")?;
    let actions = actions(actions_key)?;
    let patterns = |name: &str, of: &str, is_about: fn(HookAction) -> bool| {
        let about = actions.iter().find(|action| is_about(**action));
        match (about, list::find(keys, name)) {
            (Some(_), Some(key)) => key.texts(r#""room.**", "news""#),
            // A forgotten line must not ask about everything.
            (Some(action), None) => Err((
                actions_key.line,
                format!(
                    "{name} are missing: {} is an action on {of}; say which, or {name} = [\"**\"] for all",
                    action.label()
                ),
            )),
            (None, Some(key)) => Err((
                key.line,
                format!("{name} are named, but no action is one on {of}"),
            )),
            (None, None) => Ok(Vec::new()),
        }
    };
    let channels = patterns("channels", "channels", HookAction::is_on_channel)?;
    let procedures = patterns("procedures", "procedures", HookAction::is_on_procedure)?;
    let service = service(keys, &actions)?;
    let address = match service {
        Some(_) => String::new(),
        None => text_if(
            needed("url")?,
            |text| TargetUrl::parse(text).is_some(),
            "an address such as https://backend.example/hook, without user and fragment",
        )?,
    };
    let default = HookSpec::new(&name, &address);
    let number = |name: &str, default: u32, min: u32, max: u32| match list::find(keys, name) {
        None => Ok(default),
        Some(key) => {
            let number = key.number(u64::from(min), u64::from(max))?;
            Ok(u32::try_from(number).unwrap_or(max))
        }
    };
    let milliseconds = |name: &str, default: Duration, min: u64, max: u64| match list::find(keys, name) {
        None => Ok(default),
        Some(key) => key.number(min, max).map(Duration::from_millis),
    };
    let switch = |name: &str, default: bool| list::find(keys, name).map_or(Ok(default), Key::switch);
    let file = |name: &str| match list::find(keys, name) {
        None => Ok(None),
        Some(key) => {
            text_if(key, |text| !text.is_empty(), "the name of a file").map(|text| Some(PathBuf::from(text)))
        }
    };
    let when_away = list::find(keys, "when_away").map_or(Ok(default.when_away), |key| {
        key.word(
            &[("refuse", WhenAway::Refuse), ("allow", WhenAway::Allow)],
            "refuse or allow",
        )
    })?;
    let cache = milliseconds("cache_ms", default.cache, 0, DAY_MS)?;
    let spec = HookSpec {
        service,
        actions,
        channels,
        procedures,
        timeout: milliseconds("timeout_ms", default.timeout, 10, 60_000)?,
        when_away,
        concurrency: number("concurrency", default.concurrency, 1, 10_000)?,
        waiting_max: number("waiting_max", default.waiting_max, 0, 1_000_000)?,
        waiting_bytes_max: number("waiting_bytes_max", default.waiting_bytes_max, 0, 1 << 30)?,
        batch_max: number("batch_max", default.batch_max, 1, 1000)?,
        batch_wait: milliseconds("batch_wait_ms", default.batch_wait, 0, 30_000)?,
        failures_max: number("failures_max", default.failures_max, 0, 1_000_000)?,
        cache,
        cache_by: cache_by(keys, cache)?,
        cache_max: number("cache_max", default.cache_max, 1, 1_000_000)?,
        headers: headers(keys)?,
        cookies: names(keys, "cookies", is_token, "names of cookies")?,
        query: switch("query", default.query)?,
        data: switch("data", default.data)?,
        mqtt_password: switch("mqtt_password", default.mqtt_password)?,
        secret_file: file("secret_file")?,
        ca_file: file("ca_file")?,
        link_local: switch("link_local", default.link_local)?,
        line,
        ..default
    };
    check_batch(keys, &spec)?;
    match list::find(keys, "cache_by").zip(shared_login(&spec)) {
        Some((key, fault)) => Err((key.line, fault)),
        None => Ok(spec),
    }
}

/// Checks that the keys of batches mean something.
fn check_batch(keys: &[Key<'_>], spec: &HookSpec) -> Result<(), Fault> {
    let max = list::find(keys, "batch_max").filter(|_| spec.batch_max > 1);
    let fault = match (max, list::find(keys, "batch_wait_ms")) {
        (Some(max), _) if !spec.actions.contains(&HookAction::Publish) => (
            max.line,
            "batch_max: only publish is asked about in batches, and it is not among the actions",
        ),
        (None, Some(wait)) => (
            wait.line,
            "batch_wait_ms is said, but each question has a request of its own: set batch_max, or remove batch_wait_ms",
        ),
        // Beside the wait there must be time for the answer.
        (Some(max), wait) if spec.batch_wait > spec.timeout / 2 => (
            wait.unwrap_or(max).line,
            "batch_wait_ms is more than half of timeout_ms, which includes it",
        ),
        (_, _) => return Ok(()),
    };
    Err((fault.0, fault.1.to_owned()))
}

/// Why clients that connect would get answers that are meant for others.
fn shared_login(spec: &HookSpec) -> Option<String> {
    let by = |word: CacheBy| spec.cache_by.contains(&word);
    if spec.cache.is_zero() || by(CacheBy::Connection) || !spec.actions.contains(&HookAction::Connect) {
        return None;
    }
    let tells_request = !spec.headers.is_empty() || !spec.cookies.is_empty() || spec.query;
    let missing = match (tells_request, spec.mqtt_password) {
        (true, _) if !by(CacheBy::Request) => "request",
        (_, true) if !by(CacheBy::Mqtt) => "mqtt",
        (_, _) => return None,
    };
    Some(format!(
        "cache_by: {missing} is missing: connect passes it on, and a client would get the answer that was meant for another"
    ))
}

fn text_if(key: &Key<'_>, is_right: impl Fn(&str) -> bool, expects: &str) -> Result<String, Fault> {
    let text = key.value.as_str().filter(|text| is_right(text));
    text.map(str::to_owned)
        .ok_or_else(|| (key.line, format!("{}: expected {expects}", key.name)))
}

/// The service that is asked, if one is.
fn service(keys: &[Key<'_>], actions: &[HookAction]) -> Result<Option<String>, Fault> {
    let Some(key) = list::find(keys, "service") else {
        return Ok(None);
    };
    let is_name =
        |text: &str| (1..=256).contains(&text.len()) && !text.starts_with(['#', '$']) && !text.contains('*');
    let name = text_if(
        key,
        is_name,
        "the name of a procedure, without # or $ at its beginning and without *",
    )?;
    if let Some(other) = keys.iter().find(|key| OF_URLS.contains(&key.name)) {
        let fault = format!("{} belongs to a URL, and a service is asked here", other.name);
        return Err((other.line, fault));
    }
    if actions.contains(&HookAction::Disconnect) {
        let fault =
            "a service cannot have the action disconnect: the calls of a connection end with it; use a url";
        return Err((key.line, fault.to_owned()));
    }
    Ok(Some(name))
}

/// Keys that mean nothing to a service.
const OF_URLS: [&str; 11] = [
    "url",
    "batch_max",
    "batch_wait_ms",
    "failures_max",
    "cache_ms",
    "cache_by",
    "cache_max",
    "secret_file",
    "ca_file",
    "link_local",
    "mqtt_password",
];

fn actions(key: &Key<'_>) -> Result<Vec<HookAction>, Fault> {
    let words = key.texts(r#""subscribe", "publish""#)?;
    let named = |word: &str| HookAction::ALL.into_iter().find(|action| action.label() == word);
    if let Some(word) = words.iter().find(|word| named(word).is_none()) {
        let nearest = nearest(word, HookAction::LABELS.map(str::to_owned).into_iter());
        let fault = format!("actions: {word:?} is not an action; did you mean {nearest}?");
        return Err((key.line, fault));
    }
    let is_named = |action: &HookAction| words.iter().any(|word| word == action.label());
    Ok(HookAction::ALL.into_iter().filter(is_named).collect())
}

fn cache_by(keys: &[Key<'_>], cache: Duration) -> Result<Vec<CacheBy>, Fault> {
    let key = match (list::find(keys, "cache_by"), list::find(keys, "cache_ms")) {
        (Some(key), _) if !cache.is_zero() => key,
        (Some(key), _) => {
            let fault = "cache_by is said, but no answer is kept: set cache_ms, or remove cache_by";
            return Err((key.line, fault.to_owned()));
        }
        // Nobody is to get the answer that was meant for another by accident.
        (None, Some(key)) if !cache.is_zero() => {
            let fault = format!("cache_by is missing: say what answers depend on: {CACHE_WORDS}");
            return Err((key.line, fault));
        }
        (None, _) => return Ok(Vec::new()),
    };
    let words = key.texts(r#""claims""#)?;
    let mut by = Vec::new();
    for word in &words {
        by.push(match word.as_str() {
            "everybody" => CacheBy::Everybody,
            "connection" => CacheBy::Connection,
            "claims" => CacheBy::Claims,
            "request" => CacheBy::Request,
            "data" => CacheBy::Data,
            "mqtt" => CacheBy::Mqtt,
            _ => return Err((key.line, format!("cache_by: {word:?} is none of {CACHE_WORDS}"))),
        });
    }
    if by.contains(&CacheBy::Everybody) && by.len() > 1 {
        let fault = "cache_by: everybody cannot stand beside others";
        return Err((key.line, fault.to_owned()));
    }
    Ok(by)
}

fn headers(keys: &[Key<'_>]) -> Result<Vec<String>, Fault> {
    let names = names(keys, "headers", is_token, "names of headers")?;
    if let Some(key) = list::find(keys, "headers")
        && names.iter().any(|name| name.eq_ignore_ascii_case("cookie"))
    {
        let fault = "headers: name the cookies in the key cookies: the header has all of them";
        return Err((key.line, fault.to_owned()));
    }
    Ok(names.iter().map(|name| name.to_ascii_lowercase()).collect())
}

fn names(
    keys: &[Key<'_>],
    name: &str,
    is_right: fn(&str) -> bool,
    expects: &str,
) -> Result<Vec<String>, Fault> {
    let Some(key) = list::find(keys, name) else {
        return Ok(Vec::new());
    };
    let names = key.texts(r#""session""#)?;
    match names.iter().find(|name| !is_right(name)) {
        None => Ok(names),
        Some(wrong) => Err((key.line, format!("{name}: {wrong:?} is none of {expects}"))),
    }
}

/// A token of HTTP (RFC 9110 section 5.6.2), which names of headers and of cookies are.
fn is_token(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(legal)
}

const CACHE_WORDS: &str = "everybody, connection, claims, request, data, mqtt";
const DAY_MS: u64 = 86_400_000;
