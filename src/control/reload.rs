//! What SIGHUP reloads: the configuration file and the files that it names are read again. The log filter and the doors
//! take effect, and other changes are named.
//!
//! A file with an error changes nothing.

use tracing::{info, warn};

use super::Shared;
use crate::config::load::{Loaded, Sources};
use crate::config::options::SETTINGS;
use crate::doors::Doors;
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
    pub(super) async fn run(&mut self, shared: &Shared) {
        let loaded = match self.sources.load() {
            Ok(loaded) => loaded,
            Err(errors) => {
                for error in errors.iter() {
                    warn!("SIGHUP: nothing is reloaded: {error}");
                }
                return;
            }
        };
        let reopen = |doors: &Doors| {
            doors
                .reopen(&loaded.config)?
                .open_desk(&loaded.config, shared.clock)
        };
        if let Err(error) = shared.change_doors(reopen).await {
            return warn!("SIGHUP: nothing is reloaded: {error}");
        }
        if let Some(wanted) = shared.doors.now().tokens.wanted() {
            wanted.ask();
        }
        for doubt in shared.doors.now().doubts(shared.clock.now().unix_ms) {
            warn!("SIGHUP: {doubt}");
        }
        let others = changes(&self.loaded, &loaded);
        match self.filter.replace(&loaded.config.log) {
            Ok(()) => self.loaded.config.log.clone_from(&loaded.config.log),
            Err(error) => warn!("SIGHUP: log: {error}"),
        }
        if others.is_empty() {
            info!("SIGHUP: reloaded; all settings that need a restart are as at the start");
        } else {
            warn!(
                "SIGHUP: reloaded, but these take effect at the next start: {}",
                others.join(", ")
            );
        }
    }
}

/// Settings that take effect without a restart, as do the contents of the files that they name.
const RELOADED: &[&str] = &[
    "log",
    "auth_key",
    "auth_algorithm",
    "auth_private_key_file",
    "auth_public_key_file",
    "tls_certificate_files",
    "tls_key_files",
    "tls_client_auth",
    "tls_client_ca_file",
    "origins",
    "allowed_origins",
    "trusted_proxies",
    "proxy_protocol",
    "x_forwarded_for",
    "password_file",
    "rules_separator",
    "auth_key_id",
    "auth_issuer",
    "auth_audience",
    "auth_leeway_seconds",
    "jwks_file",
];

/// The settings that differ and need a restart.
fn changes(before: &Loaded, after: &Loaded) -> Vec<&'static str> {
    SETTINGS
        .iter()
        .filter(|setting| setting.changed(&before.config, &after.config))
        .map(|setting| setting.name)
        .filter(|name| !RELOADED.contains(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_names_what_needs_a_restart() {
        let load = |flags: &[(&str, &str)]| {
            let flags = flags
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            Sources::new(flags, []).load().unwrap()
        };
        let before = load(&[("auth-key", "one")]);
        assert!(changes(&before, &before).is_empty());
        let after = load(&[("auth-key", "two"), ("log", "debug"), ("tcp-backlog", "1")]);
        assert_eq!(changes(&before, &after), ["tcp_backlog"]);
    }

    #[test]
    fn what_takes_effect_without_a_restart_is_a_setting() {
        for name in RELOADED {
            assert!(SETTINGS.iter().any(|setting| setting.name == *name), "{name}");
        }
    }
}
