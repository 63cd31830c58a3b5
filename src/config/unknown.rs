//! Errors for names that no setting has: each names the nearest known one, if one is near.

use super::error::ConfigError;
use super::nearest::{alike, nearest, similarity};
use super::settings::{PREFIX, Setting};
use super::{SETTINGS, list};

/// The flag, without its hyphens, that names the file.
pub(crate) const CONFIG_FLAG: &str = "config";

/// The error for a flag that is not known; `flag` is without its hyphens.
pub(crate) fn unknown_flag(flag: &str) -> ConfigError {
    let known = SETTINGS.iter().map(|setting| setting.name.replace('_', "-"));
    let known = known.chain([CONFIG_FLAG, "help", "version"].map(str::to_owned));
    ConfigError::Unknown {
        place: "command line".to_owned(),
        nearest: alike(flag, nearest(flag, known)).map(|flag| format!("--{flag}")),
        name: format!("--{flag}"),
    }
}

/// The error for a variable that is not known.
pub(super) fn unknown_variable(variable: &str) -> ConfigError {
    // The common prefix would make all variables alike.
    let word = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let known = SETTINGS.iter().map(|setting| setting.name.to_ascii_uppercase());
    let known = known.chain([CONFIG_FLAG.to_ascii_uppercase()]);
    let named_elsewhere = NAMES_ELSEWHERE.iter().find(|(other, _)| *other == word);
    let nearest = match named_elsewhere {
        Some((_, ours)) => Some((*ours).to_owned()),
        None => alike(word, nearest(word, known)),
    };
    ConfigError::Unknown {
        place: "environment".to_owned(),
        nearest: nearest.map(|word| format!("{PREFIX}{word}")),
        name: variable.to_owned(),
    }
}

/// The error for a key of the file that is not known: `name` in the table of this name, or at the top.
pub(super) fn unknown_key(place: String, table: Option<&str>, name: &str) -> ConfigError {
    let key = table.map_or_else(|| name.to_owned(), |table| format!("{table}.{name}"));
    ConfigError::Unknown {
        place,
        nearest: nearest_key(name, &key),
        name: key,
    }
}

/// The known key nearest to `key`, found by its last part, so that a key in the wrong table leads to the right one.
fn nearest_key(name: &str, key: &str) -> Option<String> {
    let nearness = |setting: &Setting| similarity(name, setting.name).max(similarity(key, &setting.key()));
    let setting = SETTINGS
        .iter()
        .max_by(|one, other| nearness(one).total_cmp(&nearness(other)));
    let tables = SETTINGS.iter().filter_map(|setting| setting.table);
    let nearest_list = nearest(key, list::LISTS.into_iter().chain(tables).map(str::to_owned));
    match setting {
        Some(setting) if nearness(setting) >= similarity(key, &nearest_list) => {
            // A table that both have makes them no more alike.
            alike(name, setting.name.to_owned()).map(|_| setting.key())
        }
        Some(_) | None => alike(name, nearest_list),
    }
}

/// Names of settings in other servers that are unlike our name for the same setting.
pub(super) const NAMES_ELSEWHERE: [(&str, &str); 8] = [
    ("PORT", "LISTEN"),
    ("HOST", "LISTEN"),
    ("ADDRESS", "LISTEN"),
    ("BIND", "LISTEN"),
    ("ADMIN_PORT", "ADMIN"),
    ("WORKERS", "CORES"),
    ("THREADS", "CORES"),
    ("LOG_LEVEL", "LOG"),
];
