//! What SIGHUP reloads: the configuration file and the files that it names are read again. The log filter and the policy
//! take effect, and other changes are named.
//!
//! A file with an error changes nothing.
//!
//! Files are read on a thread beside the control plane's: a large one takes its time, and a pipe that nobody writes to, or
//! a disk that does not answer, takes for ever. Such a reload is given up after `READ_TIME_MAX`, and another may follow.
//!
//! Limits: `READ_TIME_MAX`; `READERS_MAX` threads that read, those given up included.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::ControlState;
use crate::clock::Clock;
use crate::config::load::{ConfigErrors, Loaded, Sources};
use crate::config::options::SETTINGS;
use crate::log::Filter;
use crate::policy::{Policy, PolicyError};

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

/// Why nothing was read.
#[derive(Debug)]
enum NotRead {
    Config(ConfigErrors),
    Policy(PolicyError),
    TimeOver,
    ReadersBusy,
    Panicked,
}

impl fmt::Display for NotRead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRead::Config(error) => error.fmt(formatter),
            NotRead::Policy(error) => error.fmt(formatter),
            NotRead::TimeOver => write!(
                formatter,
                "the files could not be read within {} s: is one a pipe, or on a disk that does not answer?",
                READ_TIME_MAX.as_secs()
            ),
            NotRead::ReadersBusy => write!(
                formatter,
                "{READERS_MAX} earlier reloads still read their files: mend what holds them, or restart"
            ),
            NotRead::Panicked => formatter.write_str("reading the files failed with a bug; see above"),
        }
    }
}

impl Reload {
    /// Reads the configuration again and applies what can be applied.
    pub(super) async fn run(&mut self, shared: &ControlState, readers: &Arc<Semaphore>) {
        let (loaded, policy) = match self.read(shared, readers).await {
            Ok(read) => read,
            Err(NotRead::Config(errors)) => {
                for error in errors.iter() {
                    warn!("SIGHUP: nothing is reloaded: {error}");
                }
                return;
            }
            Err(error) => return warn!("SIGHUP: nothing is reloaded: {error}"),
        };
        let Ok(()) = shared
            .change_policy(|current| Ok::<_, std::convert::Infallible>(policy.in_the_place_of(current)));
        if let Some(wanted) = shared.policy.now().tokens.wanted() {
            wanted.ask();
        }
        for doubt in shared.policy.now().warnings(shared.clock.now().unix_ms) {
            warn!("SIGHUP: {doubt}");
        }
        let others = changes(&self.loaded, &loaded);
        match self.filter.replace(&loaded.config.log.filter) {
            Ok(()) => self
                .loaded
                .config
                .log
                .filter
                .clone_from(&loaded.config.log.filter),
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

impl Reload {
    /// Reads all files beside this thread.
    async fn read(
        &self,
        shared: &ControlState,
        readers: &Arc<Semaphore>,
    ) -> Result<(Loaded, Policy), NotRead> {
        let reader = Arc::clone(readers)
            .try_acquire_owned()
            .map_err(|_| NotRead::ReadersBusy)?;
        let (sources, before, clock) = (self.sources.clone(), shared.policy.now(), shared.clock);
        let reading = spawn_blocking(move || {
            let read = read(&sources, &before, clock);
            drop(reader);
            read
        });
        match timeout(READ_TIME_MAX, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err(NotRead::Panicked),
            Err(_) => Err(NotRead::TimeOver),
        }
    }
}

fn read(sources: &Sources, before: &Policy, clock: Clock) -> Result<(Loaded, Policy), NotRead> {
    let loaded = sources.load().map_err(NotRead::Config)?;
    let policy = before
        .reopen(&loaded.config)
        .and_then(|policy| policy.start_password_checks(&loaded.config, clock))
        .map_err(NotRead::Policy)?;
    Ok((loaded, policy))
}

/// How long reading may take: a million users are read in a few seconds.
const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// Threads that read for a reload, those of reloads that were given up included.
pub(super) const READERS_MAX: usize = 4;

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
