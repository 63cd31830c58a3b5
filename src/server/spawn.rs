//! The second step of a start: the cores are made, and each gets its thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use crossbeam_channel::bounded;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use tracing::error;

use super::prepare::Prepared;
use super::restore;
use super::{StartError, stop};
use crate::app::App;
use crate::broker::{Numbering, OutsidePublisher, RingBytes, RingPlan, broker_with_outside};
use crate::config::Config;
use crate::cores::operators::mailbox::CoreHandle;
use crate::cores::{self, CoreId, CoreParts, CoreSettings, Started};
use crate::history::Histories;
use crate::log::{self, Ending};
use crate::login;
use crate::store::{RunningStore, Store};
use crate::transport::hand_over::Outlets;

/// The thread of a core, and values that are dropped when it has ended.
pub(super) type CoreThread = JoinHandle<Option<cores::InheritedDescriptors>>;

/// The cores, once each accepts connections.
#[derive(Debug)]
pub(super) struct RunningCores {
    /// How other threads reach them.
    pub(super) handles: Vec<CoreHandle>,
    pub(super) threads: Vec<CoreThread>,
    pub(super) started: Vec<Started>,
    /// By these the cores get their listeners.
    pub(super) outlets: Outlets,
    /// By this other threads publish.
    pub(super) outside: OutsidePublisher,
    /// The content of `data_dir`, if it is set.
    pub(super) store: Option<RunningStore>,
}

impl RunningCores {
    /// Makes the parts of all cores, with an application's value for each, and starts their threads.
    ///
    /// # Errors
    /// The system refuses descriptors or threads. No core goes on running then.
    pub(super) fn start<A: App + Send + 'static>(
        config: &Config,
        prepared: &mut Prepared,
        app: impl FnMut(CoreId) -> A,
    ) -> Result<RunningCores, StartError> {
        let limits = &config.limits;
        // The first core splits its descriptor table off: all that every thread must hold comes before that.
        let store = prepared.store.take();
        let beginning = store.as_ref().map(Store::beginning);
        let numbering = beginning.as_ref().map_or_else(Numbering::new, restore::numbering);
        let bytes = RingBytes {
            cores_max: limits.ring_bytes_max,
            outside_max: limits.outside_bytes_max,
        };
        let (brokers, outside) = broker_with_outside(RingPlan {
            cores: prepared.placement.len(),
            observers: 0,
            slots: limits.ring_slots,
            bytes,
            numbering,
        });
        // As many logins of one core may wait as the password checks take: these refuse the next login, not the core.
        let logins_max = login::pending_max(limits.logins_waiting_max, config.login.threads);
        let (mut parts, handles) =
            CoreParts::all(brokers, limits.connections_max, logins_max, app).map_err(StartError::System)?;
        parts.iter_mut().for_each(|core| core.pin(&prepared.placement));
        let store = match store {
            Some(store) => Some(restore_into(&mut parts, store, numbering, prepared)?),
            None => None,
        };
        if let Some(store) = &store {
            let cores = handles.clone();
            store
                .handle()
                .set_wake(Box::new(move |core| cores[core].request_turn()));
        }
        let outlets = parts[0].hand_over.outlets();
        let (threads, started) = spawn_cores(parts, &prepared.cores).inspect_err(|_| stop(&handles))?;
        Ok(RunningCores {
            handles,
            threads,
            started,
            outlets,
            store,
            outside,
        })
    }
}

/// Gives each core its part of the store's content, and its sink of the store.
fn restore_into<A>(
    parts: &mut [CoreParts<A>],
    store: Store,
    numbering: Numbering,
    prepared: &Prepared,
) -> Result<RunningStore, StartError> {
    let hasher = parts[0].broker.hasher.clone();
    let (limits, cores) = (&prepared.cores.limits, parts.len());
    let histories = parts
        .iter()
        .map(|_| Histories::of_one_core(numbering.epoch, limits, cores))
        .collect();
    let restored = restore::restore(
        store,
        histories,
        &hasher,
        &prepared.policy.channels,
        prepared.clock.now(),
        prepared.ports.have_mqtt(),
    )
    .map_err(StartError::Store)?;
    for (part, stored) in parts.iter_mut().zip(restored.parts) {
        part.stored = Some(stored);
    }
    Ok(restored.running)
}

/// Starts the threads of all cores and waits until each accepts connections, or tells why it cannot.
fn spawn_cores<A: App + Send + 'static>(
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
                    // The starting thread waits no more if another core has failed to start.
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

/// A core that cannot go on loses its connections, and its part in the order of publications: the process ends, so that
/// a service manager starts a whole one.
fn abandon(core: &str, cause: &str) -> ! {
    error!("{core} cannot go on: {cause}; the process ends");
    log::flush(Ending::Orderly);
    std::process::exit(EXIT_CORE_FAILED);
}

/// EX_SOFTWARE of sysexits.h.
const EXIT_CORE_FAILED: i32 = 70;
