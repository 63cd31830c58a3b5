//! `ringcast serve`: the server, until it has drained.

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

/// Starts the log, says what is doubtful, and serves.
///
/// Without huge pages, which the allocator asks for: a core's connections lie here and there among pages of 2 MiB, and
/// all of each would be resident. With them, 10,000 idle connections took 112 to 747 bytes each, by chance.
pub(super) fn serve(sources: Sources) -> Result<Exit, CliError> {
    control::hold_back_harmless().map_err(|error| CliError::Server(format!("signals: {error}")))?;
    let loaded = sources.load()?;
    let filter = log::start(&loaded.config.log.filter, loaded.config.log.format)
        .map_err(|error| CliError::Server(format!("log: {error}")))?;
    log::report_panics();
    // The first thing that looks at CPUs: later, on a pinned thread, there would be one.
    let cpus = Cpus::of_this_process();
    cpus.missing(&loaded.config.cores.placement)
        .map_err(CliError::Unfit)?;
    if let Some(first) = loaded.ignored.first() {
        info!(
            count = loaded.ignored.len(),
            "environment: variables such as {first} are ignored: Kubernetes or Docker set them for a service of that name"
        );
    }
    for doubt in loaded.config.warnings(cpus.usable()) {
        // That there is no key is told at greater length.
        if doubt != Warning::RandomKey {
            warn!("{doubt}");
        }
    }
    if let Err(error) = prctl::set_thp_disable(true) {
        debug!("huge pages stay on: {error}");
    }
    let config = loaded.config.clone();
    let reload = Reload {
        sources,
        loaded,
        filter,
    };
    let exit = server::run(&config, reload).map_err(|error| match error {
        StartError::Policy(error) => CliError::Policy(error),
        StartError::Given(_) | StartError::AdmitsNobody => CliError::Unfit(error.to_string()),
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
