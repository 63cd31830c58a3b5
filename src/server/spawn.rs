//! The third step of a start: each core gets its thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use crossbeam_channel::bounded;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use tracing::error;

use super::StartError;
use crate::app::App;
use crate::cores::{self, CoreParts, CoreSettings, Started};
use crate::log::{self, Ending};

/// The thread of a core, and what is to be dropped when it has ended.
pub(super) type CoreThread = JoinHandle<Option<cores::InheritedDescriptors>>;

/// Starts the threads of all cores and waits until each accepts connections, or tells why it cannot.
pub(super) fn spawn_cores<A: App + Send + 'static>(
    parts: Vec<CoreParts<A>>,
    settings: &CoreSettings,
) -> Result<(Vec<CoreThread>, Vec<Started>), StartError> {
    let (tell, told) = bounded(parts.len());
    // A signal handler writes to a descriptor by its number. On a core that number may be a client's socket, so no
    // core may ever run one: cores inherit this mask.
    let mut mask_before = SigSet::empty();
    pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut mask_before),
    )
    .map_err(|errno| StartError::System(errno.into()))?;
    let threads = parts
        .into_iter()
        .map(|parts| {
            let (settings, tell) = (settings.clone(), tell.clone());
            let name = format!("core {}", parts.id.index());
            thread::Builder::new().name(name.clone()).spawn(move || {
                let started = |result| {
                    // Nobody waits any more if another core has failed to start.
                    let _ = tell.send(result);
                };
                match catch_unwind(AssertUnwindSafe(|| cores::run(parts, settings, started))) {
                    Ok(Ok(shared)) => shared,
                    Ok(Err(cause)) => abandon(&name, &cause.to_string()),
                    Err(_) => abandon(&name, "it panicked, see above"),
                }
            })
        })
        .collect::<io::Result<Vec<_>>>();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask_before), None)
        .map_err(|errno| StartError::System(errno.into()))?;
    let threads = threads.map_err(StartError::System)?;
    drop(tell);
    let started = told
        .iter()
        .take(threads.len())
        .collect::<io::Result<Vec<_>>>()
        .map_err(StartError::System)?;
    Ok((threads, started))
}

/// A core that cannot go on takes its connections with it, and the order of the channels: the process ends, and
/// whatever supervises it starts a whole one.
fn abandon(core: &str, cause: &str) -> ! {
    error!("{core} cannot go on: {cause}; the process ends");
    log::flush(Ending::Orderly);
    std::process::exit(EXIT_CORE_FAILED);
}

/// EX_SOFTWARE of sysexits.h.
const EXIT_CORE_FAILED: i32 = 70;
