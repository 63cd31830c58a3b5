//! `ringcast serve`: the server, until it has drained.

use nix::sys::prctl;
use tracing::debug;

use super::CliError;
use crate::app::builtin::Builtin;
use crate::config::ConfigSources;
use crate::log::{self, Ending};
use crate::server::{Embedding, Exit, LoginsFrom, Server, StartError};

/// Serves with the built-in application, as an embedding program that is only a server would.
///
/// Without huge pages, which the allocator asks for: a core's connections lie here and there among pages of 2
/// MiB, and all of each would be resident. With them, 10,000 idle connections took 112 to 747 bytes each, by
/// chance.
pub(super) fn serve(sources: ConfigSources) -> Result<Exit, CliError> {
    let huge_pages_off = prctl::set_thp_disable(true);
    let embedding = Embedding {
        logins: LoginsFrom::Settings,
        ..Embedding::whole_process()
    };
    let server = Server::from_sources(sources, embedding, |_core| Builtin::default()).map_err(refused)?;
    // Only now there is a log.
    if let Err(error) = huge_pages_off {
        debug!("huge pages cannot be turned off: {error}");
    }
    let exit = server
        .wait()
        .map_err(|error| CliError::Server(error.to_string()))?;
    log::flush(match exit {
        Exit::CutShort { .. } => Ending::AtOnce,
        Exit::Drained | Exit::Overdue | Exit::CoreLost | Exit::Stopped => Ending::Orderly,
    });
    Ok(exit)
}

/// Which exit code a start that failed has.
fn refused(error: StartError) -> CliError {
    match error {
        StartError::Config(errors) => errors.into(),
        StartError::Policy(error) => CliError::Policy(error),
        StartError::Cpus(_) | StartError::SocketActivation(_) | StartError::NoWayToLogIn => {
            CliError::Unusable(error.to_string())
        }
        StartError::Log(_)
        | StartError::Served { .. }
        | StartError::Starting { .. }
        | StartError::Listen { .. }
        | StartError::Store(_)
        | StartError::Control(_)
        | StartError::System(_) => CliError::Server(error.to_string()),
    }
}
