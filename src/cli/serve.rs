//! `ringcast serve`: runs the server until it has drained.

use nix::sys::prctl;
use tracing::{debug, info, warn};

use super::CliError;
use crate::config::Warning;
use crate::config::load::Sources;
use crate::control::reload::Reload;
use crate::control::{self, Exit};
use crate::log::{self, Ending};
use crate::machine::cpus::Cpus;
use crate::server::{self, StartError};

/// Starts the log, logs warnings about the settings, and runs the server.
///
/// Turns off huge pages, which the allocator asks for: a core's connections are scattered over pages of 2
/// MiB, of which each would be resident as a whole. With huge pages, 10,000 idle connections took 112 to 747
/// bytes each, depending on chance.
pub(super) fn serve(sources: Sources) -> Result<Exit, CliError> {
    control::block_harmless().map_err(|error| CliError::Server(format!("signals: {error}")))?;
    let loaded = sources.load()?;
    let filter = log::start(&loaded.config.log.filter, loaded.config.log.format)
        .map_err(|error| CliError::Server(format!("log: {error}")))?;
    log::report_panics();
    // The CPUs are counted before any thread is pinned, since a pinned thread sees only one.
    let cpus = Cpus::of_this_process();
    cpus.missing(&loaded.config.cores.placement)
        .map_err(CliError::Unusable)?;
    if let Some(first) = loaded.ignored.first() {
        info!(
            count = loaded.ignored.len(),
            "environment: variables such as {first} are ignored: Kubernetes or Docker set them for a service of that name"
        );
    }
    for warning in loaded.config.warnings(cpus.usable()) {
        // A random key has a longer message of its own.
        if warning != Warning::RandomKey {
            warn!("{warning}");
        }
    }
    if let Err(error) = prctl::set_thp_disable(true) {
        debug!("huge pages cannot be turned off: {error}");
    }
    let config = loaded.config.clone();
    let reload = Reload {
        sources,
        loaded,
        filter,
    };
    let exit = server::run(&config, reload).map_err(|error| match error {
        StartError::Policy(error) => CliError::Policy(error),
        StartError::Given(_) | StartError::AdmitsNobody => CliError::Unusable(error.to_string()),
        StartError::Served { .. }
        | StartError::Starting { .. }
        | StartError::Listen { .. }
        | StartError::Control(_)
        | StartError::System(_) => CliError::Server(error.to_string()),
    })?;
    log::flush(match exit {
        Exit::CutShort { .. } => Ending::AtOnce,
        Exit::Drained | Exit::Overdue | Exit::CoreLost | Exit::Stopped => Ending::Orderly,
    });
    Ok(exit)
}
