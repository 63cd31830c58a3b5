//! What SIGHUP reloads: the file is read again; the log filter takes effect, and other changes are named.
//!
//! A file with an error changes nothing.

use tracing::{info, warn};

use crate::config::load::{Loaded, Sources};
use crate::config::options::SETTINGS;
use crate::log::Filter;

/// What a reload compares and changes.
#[derive(Debug)]
pub struct Reload {
    /// What the process was started with.
    pub sources: Sources,
    /// What the last load found.
    pub loaded: Loaded,
    /// The log filter.
    pub filter: Filter,
}

impl Reload {
    /// Reads the configuration again and applies what can be applied.
    pub fn run(&mut self) {
        let loaded = match self.sources.load() {
            Ok(loaded) => loaded,
            Err(error) => return warn!("SIGHUP: nothing is reloaded: {error}"),
        };
        let (log, others) = changes(&self.loaded, &loaded);
        if log {
            match self.filter.replace(&loaded.config.log) {
                Ok(()) => self.loaded.config.log.clone_from(&loaded.config.log),
                Err(error) => warn!("SIGHUP: log: {error}"),
            }
        }
        if others.is_empty() {
            info!(
                "SIGHUP: reloaded, log is {}; keys and all other settings are as at the start",
                self.loaded.config.log
            );
        } else {
            warn!(
                "SIGHUP: only log is reloaded; these take effect at the next start: {}",
                others.join(", ")
            );
        }
    }
}

/// Whether the log filter has changed, and what else has.
fn changes(before: &Loaded, after: &Loaded) -> (bool, Vec<&'static str>) {
    let changed = SETTINGS
        .iter()
        .filter(|setting| setting.changed(&before.config, &after.config));
    let (log, others): (Vec<_>, Vec<_>) = changed
        .map(|setting| setting.name)
        .partition(|name| *name == "log");
    (!log.is_empty(), others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_tells_the_log_filter_from_what_needs_a_restart() {
        let load = |flags: &[(&str, &str)]| {
            let flags = flags
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            Sources::new(flags, []).load().unwrap()
        };
        let before = load(&[("auth-key", "one")]);
        assert_eq!(changes(&before, &before), (false, vec![]));
        let after = load(&[("auth-key", "one"), ("log", "debug")]);
        assert_eq!(changes(&before, &after), (true, vec![]));
        let after = load(&[("auth-key", "two"), ("tcp-backlog", "1")]);
        assert_eq!(changes(&before, &after), (false, vec!["auth_key", "tcp_backlog"]));
    }
}
