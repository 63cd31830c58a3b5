//! Reads the terms of services from a file that has been found to be TOML.

use std::time::Duration;

use super::{Absent, KEYS, SERVICES_MAX, ServiceSpec, Terms};
use crate::config::error::ListFault;
use crate::config::form::Words;
use crate::config::list::{self, Fault, Key, ListSource};

/// Reads the list of a file. A list with a fault is empty; the faults are the first one of each row that has one.
pub(in crate::config) fn read(place: ListSource<'_>) -> (Vec<ServiceSpec>, Vec<ListFault>) {
    let read = list::read(place, "services", SERVICES_MAX, |keys, line| {
        list::check_names(keys, &KEYS.map(|key| key.name))?;
        Ok(ServiceSpec {
            pattern: pattern(keys, line)?,
            terms: terms(keys)?,
            file: Some(place.file.to_owned()),
            line,
        })
    });
    match read {
        Ok(services) => (services, Vec::new()),
        Err(faults) => (Vec::new(), faults),
    }
}

fn pattern(keys: &[Key<'_>], line: usize) -> Result<String, Fault> {
    const EXAMPLE: &str = r#""math.*""#;
    let Some(key) = list::find(keys, "pattern") else {
        let fault = format!("pattern is missing: name the procedures, such as pattern = {EXAMPLE}");
        return Err((line, fault));
    };
    match key.texts(EXAMPLE)?.as_slice() {
        [pattern] => Ok(pattern.clone()),
        _ => Err((key.line, "pattern: expected one pattern for each row".to_owned())),
    }
}

fn terms(keys: &[Key<'_>]) -> Result<Terms, Fault> {
    let default = Terms::default();
    let number =
        |name: &str, min: u64, max: u64| list::find(keys, name).map(|key| key.number(min, max)).transpose();
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let absent = list::find(keys, "absent");
    let sticky = list::find(keys, "sticky");
    Ok(Terms {
        timeout: number("timeout_ms", 1, TIMEOUT_MS_MAX)?.map_or(default.timeout, Duration::from_millis),
        queue_calls: number("queue_calls", 0, 1_000_000)?.map_or(default.queue_calls, small),
        queue_bytes: number("queue_bytes", 0, 1024 * 1024 * 1024)?.map_or(default.queue_bytes, small),
        absent: absent
            .map(|key| key.word(Absent::WORDS, Absent::EXPECTS))
            .transpose()?
            .unwrap_or(default.absent),
        is_sticky: sticky.map(Key::switch).transpose()?.unwrap_or(default.is_sticky),
    })
}

/// An hour.
const TIMEOUT_MS_MAX: u64 = 3_600_000;
