//! Reloading at SIGHUP: reads the configuration file and the files that it names again. The log filter and
//! the policy take effect; changes of other settings are only named in the log.
//!
//! A file with an error changes nothing.
//!
//! Another thread than the control plane's reads the files: a large file takes its time, and a pipe without a
//! writer, or a disk that does not answer, takes for ever. A reload is given up after `READ_TIME_MAX`, and
//! another may follow.
//!
//! Limits: `READ_TIME_MAX`; `READERS_MAX` reading threads, including those of reloads that were given up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::ControlState;
use crate::clock::Clock;
use crate::config::load::{Loaded, Sources};
use crate::config::settings::TakesEffect;
use crate::config::{ConfigErrors, SETTINGS};
use crate::log::Filter;
use crate::policy::{Policy, PolicyError};

/// The state that reloads compare with and change.
#[derive(Debug)]
pub struct Reload {
    /// The arguments and the environment that the process was started with.
    pub sources: Sources,
    /// The configuration of the last load.
    pub loaded: Loaded,
    /// The log filter.
    pub filter: Filter,
}

/// Why a reload failed.
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
                "the files could not be read within {} s: is one of them a pipe, or on a disk that does not answer?",
                READ_TIME_MAX.as_secs()
            ),
            NotRead::ReadersBusy => write!(
                formatter,
                "{READERS_MAX} earlier reloads are still reading their files: make these files readable, or restart the server"
            ),
            NotRead::Panicked => {
                formatter.write_str("a bug made the thread that read the files panic; see the log above")
            }
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
        let Ok(()) = shared.change_policy(|current| {
            Ok::<_, std::convert::Infallible>(policy.with_runtime_state_of(current))
        });
        if let Some(fetch_request) = shared.policy.now().tokens.fetch_request() {
            fetch_request.request();
        }
        for warning in shared.policy.now().warnings(shared.clock.now().unix_ms) {
            warn!("SIGHUP: {warning}");
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
            info!("SIGHUP: reloaded; no setting that needs a restart has changed");
        } else {
            warn!(
                "SIGHUP: reloaded; these settings have changed and take effect only at the next start: {}",
                others.join(", ")
            );
        }
    }
}

impl Reload {
    /// Reads all files on another thread.
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

/// How long reading the files may take. Reading a million users takes a few seconds.
const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// Threads that read files for reloads, including those of reloads that were given up.
pub(super) const READERS_MAX: usize = 4;

/// The settings that have changed and need a restart.
fn changes(before: &Loaded, after: &Loaded) -> Vec<&'static str> {
    SETTINGS
        .iter()
        .filter(|setting| setting.takes_effect == TakesEffect::AtStart)
        .filter(|setting| setting.changed(&before.config, &after.config))
        .map(|setting| setting.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_names_changed_settings_that_need_a_restart() {
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
}
