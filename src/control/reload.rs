//! Reloading, at SIGHUP or when the embedding program requests it: reads the configuration file and the
//! files that it names again. The log filter and the policy take effect; changes of other settings are only
//! named.
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

use crossbeam_channel::Sender;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::ControlState;
use crate::clock::Clock;
use crate::config::load::Loaded;
use crate::config::settings::TakesEffect;
use crate::config::{ConfigErrors, ConfigSources, SETTINGS};
use crate::log::Filter;
use crate::policy::{Policy, PolicyError};

/// The state that reloads compare with and change.
#[derive(Debug)]
pub(crate) struct Reload {
    /// The sources of the settings that the server was started with.
    pub(crate) sources: ConfigSources,
    /// The configuration that the server was started with.
    pub(crate) loaded: Loaded,
    /// The log filter, if the server writes the log.
    pub(crate) filter: Option<Filter>,
}

/// A reload that has taken effect: each core has the order to adopt the new policy, or gets it as soon as its mailbox has
/// room. It adopts it between two events of a turn, so that no decision is made by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The settings that differ from those of the start and need a restart: they have not changed.
    pub need_restart: Vec<&'static str>,
}

/// Why a reload failed: the server goes on as before.
#[derive(Debug)]
pub enum ReloadError {
    /// The server was started with a `Config`, so that there is nothing to read again.
    NoSources,
    /// Settings are wrong.
    Config(ConfigErrors),
    /// A file that the settings name is missing or wrong.
    Policy(PolicyError),
    /// Files could not be read within 60 s.
    TimeOver,
    /// Several earlier reloads have not ended yet.
    Busy,
    /// A bug made the reading thread panic; the log has the panic.
    Panicked,
    /// The server is ending, or has ended.
    Ended,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadError::NoSources => formatter.write_str("this process has nothing to reload"),
            ReloadError::Config(error) => error.fmt(formatter),
            ReloadError::Policy(error) => error.fmt(formatter),
            ReloadError::TimeOver => write!(
                formatter,
                "the files could not be read within {} s: is one of them a pipe, or on a disk that does not \
                 answer?",
                READ_TIME_MAX.as_secs()
            ),
            ReloadError::Busy => write!(
                formatter,
                "{READERS_MAX} earlier reloads are still reading their files: make these files readable, or \
                 restart the server"
            ),
            ReloadError::Panicked => {
                formatter.write_str("a bug made the thread that read the files panic; see the log above")
            }
            ReloadError::Ended => formatter.write_str("the server is ending"),
        }
    }
}

impl std::error::Error for ReloadError {}

/// The outcome of a reload.
pub(crate) type ReloadOutcome = Result<Reloaded, ReloadError>;

/// The source of a request for a reload.
#[derive(Debug)]
pub(super) enum ReloadRequest {
    /// SIGHUP. The log has the outcome.
    Signal,
    /// The program, which waits for the outcome.
    Program(Sender<ReloadOutcome>),
}

impl ReloadRequest {
    /// Its name in log lines.
    pub(super) fn name(&self) -> &'static str {
        match self {
            ReloadRequest::Signal => "SIGHUP",
            ReloadRequest::Program(_) => "reload",
        }
    }

    /// Logs the outcome of the reload, and sends it to the program if that waits.
    pub(super) fn finish(self, outcome: ReloadOutcome) {
        let name = self.name();
        match &outcome {
            Err(ReloadError::NoSources) => info!("{name}: ignored, since this process has nothing to reload"),
            Err(ReloadError::Config(errors)) => {
                for error in errors.iter() {
                    warn!("{name}: nothing is reloaded: {error}");
                }
            }
            Err(error) => warn!("{name}: nothing is reloaded: {error}"),
            Ok(Reloaded { need_restart }) if need_restart.is_empty() => {
                info!("{name}: reloaded; no setting that needs a restart has changed");
            }
            Ok(Reloaded { need_restart }) => warn!(
                "{name}: reloaded; these settings have changed and take effect only at the next start: {}",
                need_restart.join(", ")
            ),
        }
        if let ReloadRequest::Program(answer) = self {
            // A program that has given up waiting has the log.
            let _ = answer.send(outcome);
        }
    }
}

impl Reload {
    /// Reads the configuration again and applies the changes that need no restart.
    ///
    /// # Errors
    /// Nothing was changed.
    pub(super) async fn run(
        &self,
        name: &str,
        shared: &ControlState,
        readers: &Arc<Semaphore>,
    ) -> ReloadOutcome {
        let (loaded, policy) = self.read(shared, readers).await?;
        let Ok(()) = shared.change_policy(|current| {
            Ok::<_, std::convert::Infallible>(policy.with_runtime_state_of(current))
        });
        if let Some(fetch_request) = shared.policy.now().tokens.fetch_request() {
            fetch_request.request();
        }
        for warning in shared.policy.now().warnings(shared.clock.now().unix_ms) {
            warn!("{name}: {warning}");
        }
        let need_restart = changes(&self.loaded, &loaded);
        if let Some(filter) = &self.filter
            && let Err(error) = filter.replace(&loaded.config.log.filter)
        {
            warn!("{name}: log: {error}");
        }
        shared.policy.note_reloaded(loaded.config);
        Ok(Reloaded { need_restart })
    }

    /// Reads all files on another thread.
    async fn read(
        &self,
        shared: &ControlState,
        readers: &Arc<Semaphore>,
    ) -> Result<(Loaded, Policy), ReloadError> {
        let reader = Arc::clone(readers)
            .try_acquire_owned()
            .map_err(|_| ReloadError::Busy)?;
        let (sources, before, clock) = (self.sources.clone(), shared.policy.now(), shared.clock);
        let reading = spawn_blocking(move || {
            let read = read(&sources, &before, clock);
            drop(reader);
            read
        });
        match timeout(READ_TIME_MAX, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err(ReloadError::Panicked),
            Err(_) => Err(ReloadError::TimeOver),
        }
    }
}

fn read(sources: &ConfigSources, before: &Policy, clock: Clock) -> Result<(Loaded, Policy), ReloadError> {
    let loaded = sources.load().map_err(ReloadError::Config)?;
    let policy = before
        .reopen(&loaded.config)
        .and_then(|policy| policy.start_password_checks(&loaded.config, clock))
        .and_then(Policy::start_hooks)
        .map_err(ReloadError::Policy)?;
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
            ConfigSources::new(flags, []).load().unwrap()
        };
        let before = load(&[("auth-key", "one")]);
        assert!(changes(&before, &before).is_empty());
        let after = load(&[("auth-key", "two"), ("log", "debug"), ("tcp-backlog", "1")]);
        assert_eq!(changes(&before, &after), ["tcp_backlog"]);
    }
}
