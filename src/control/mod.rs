//! The control plane: one ordinary thread for operators, signals, and the drain.
//!
//! [`Control::run`] takes the thread that calls it, the main one in the binary, and returns when the server has ended.
//! It reaches a core by its `CoreHandle` alone; nothing on a core waits for it.
//!
//! ```text
//!   Serving ──first SIGTERM or SIGINT, or ControlHandle::drain──► Draining ──all cores stopped──► Exit::Drained
//!      │                                                             ├──second signal──────────► Exit::CutShort
//!      └──a core ends by itself──► Exit::CoreLost                    └──time over──────────────► Exit::Overdue
//!
//!   in either state, when the program drops the server ──► Exit::Stopped
//! ```
//!
//! Invariants
//! 1. Readiness is off before any core is told to drain (`ControlState::draining`, set by `drain` alone).
//! 2. The copies of the cores' listeners are closed before any core is told to drain (`serve`).
//! 3. The operators' listener answers until the end, so that a drain can be watched.
//! 4. Nothing on this thread waits for a core, a file or another process. What may block runs on threads beside it
//!    (`spawn_blocking`), in bounded number: `BLOCKING_THREADS_MAX`.
//!
//! Not here: descriptors of cores. They have tables of their own, so that nothing here may act for a core on one.

mod admin_slots;
mod connections;
mod current_policy;
mod dispatch;
mod guard;
mod health;
pub(crate) mod jwks;
mod left_out;
mod liveness;
pub mod memory;
mod memory_release;
mod notify_socket;
mod operators;
pub mod reload;
mod revocation_file;
mod revoke;
mod routes;
mod service_manager;
mod signals;
mod stats;
mod successor;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use crate::audit::{self, Audit};
use crate::clock::Clock;
use crate::config::Config;
use crate::cores::operators::mailbox::{CoreHandle, Order};
use crate::policy::Policy;
use admin_slots::Places;
use current_policy::CurrentPolicy;
use dispatch::Dispatch;
use jwks::{Counts, KeyFetcher};
use left_out::LeftOut;
use liveness::Liveness;
use memory::MemoryWatch;
use reload::Reload;
use service_manager::ServiceManager;
use signals::{Signal, Signals};
pub(crate) use signals::{hold_back, hold_back_harmless};

/// What the control plane works with.
#[derive(Debug)]
pub struct Settings {
    /// The configuration, shown without its secrets, and the times of the drain.
    pub config: Config,
    /// Where operators connect, bound already; `None` for nowhere.
    pub listener: Option<TcpListener>,
    /// What the cores listen on: copies for the process that comes after this one.
    pub sockets: Vec<TcpListener>,
    /// Who handles signals.
    pub signals: SignalsFrom,
    /// What SIGHUP reloads; without it SIGHUP is only logged.
    pub reload: Option<Reload>,
    /// What decides who may come in, as the cores were given it.
    pub policy: Arc<Policy>,
    /// The rates of the audit trail.
    pub audit: Arc<Audit>,
    /// What looks after the memory in use, if there is a limit to it.
    pub memory: Option<MemoryWatch>,
    /// Fetches keys, if they are to be fetched.
    pub(crate) keys: Option<KeyFetcher>,
    /// The clock of the process.
    pub clock: Clock,
}

/// Who handles the signals of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalsFrom {
    /// The control plane, which unblocks them on its thread: right for a process that is only this server.
    Here,
    /// Whoever embeds the server.
    Elsewhere,
}

impl SignalsFrom {
    /// Who handles the signals also talks to the service manager.
    fn service_manager(self) -> ServiceManager {
        match self {
            SignalsFrom::Here => ServiceManager::OfThisProcess,
            SignalsFrom::Elsewhere => ServiceManager::NotOurs,
        }
    }
}

/// The control plane before it runs.
#[derive(Debug)]
pub struct Control {
    settings: Settings,
    shared: Arc<ControlState>,
    targets: watch::Receiver<Target>,
}

/// Starts a drain from another thread. All copies act on the same server.
#[derive(Clone, Debug)]
pub struct ControlHandle(Arc<watch::Sender<Target>>);

/// What handlers of requests see.
#[derive(Debug)]
struct ControlState {
    cores: Vec<CoreHandle>,
    config: Config,
    /// What the cores decide by.
    policy: CurrentPolicy,
    /// For those who ask.
    places: Places,
    /// What cores are to get of it, and have no room for yet.
    dispatch: Dispatch,
    /// Who writes revocations to their file.
    revocation_file: revocation_file::Turn,
    /// Revocations that found `revocations_max` in force.
    revocations_refused: AtomicU64,
    /// The rates of the audit trail.
    audit: Arc<Audit>,
    /// Refused requests of operators that it lacks.
    operators_left_out: AtomicU64,
    /// How keys are fetched, if they are.
    keys: Option<Arc<Counts>>,
    clock: Clock,
    /// Whether the cores turn.
    liveness: Liveness,
    start_unix_ms: u64,
    /// Written once, by `drain`; read by handlers on the same thread, so that no order is needed.
    draining: AtomicBool,
    /// Connections that the drain closes in a thousand seconds. Written and read as `draining` is.
    drain_closes_per_1000_seconds: AtomicU64,
}

/// What the server is to do; a later variant overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Serving,
    Draining,
    Stopped,
}

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All cores have closed their connections and stopped.
    Drained,
    /// The time of the drain was over before that; the rest was cut off.
    Overdue,
    /// A second signal cut the drain short.
    CutShort {
        /// Its number.
        signal: u8,
    },
    /// A core ended without being told to, which is a bug.
    CoreLost,
    /// The program that embeds the server has dropped it.
    Stopped,
}

impl Exit {
    /// The exit code of the process: 0 after a drain, 128 and the signal's number after a second one (130, 131, 143), 70
    /// (`EX_SOFTWARE`) after a bug.
    pub fn code(self) -> u8 {
        match self {
            Exit::Drained | Exit::Overdue | Exit::Stopped => 0,
            Exit::CutShort { signal } => signal.saturating_add(128),
            Exit::CoreLost => 70,
        }
    }
}

/// Why the control plane cannot run.
#[derive(Debug)]
pub enum ControlError {
    /// The system refuses what its event loop needs.
    Runtime(io::Error),
    /// The listener cannot be used.
    Listener(io::Error),
    /// Signals cannot be handled.
    Signals(io::Error),
}

impl fmt::Display for ControlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::Runtime(error) => write!(formatter, "the control plane cannot start: {error}"),
            ControlError::Listener(error) => write!(formatter, "the control plane cannot listen: {error}"),
            ControlError::Signals(error) => write!(formatter, "signals cannot be handled: {error}"),
        }
    }
}

impl std::error::Error for ControlError {}

impl ControlHandle {
    /// Starts the drain, if none has begun.
    pub fn drain(&self) {
        // Who has been told to stop drains no more.
        self.0.send_if_modified(|target| {
            let begins = *target == Target::Serving;
            if begins {
                *target = Target::Draining;
            }
            begins
        });
    }

    /// Has the cores and the control plane end at once.
    pub(crate) fn stop(&self) {
        self.0.send_replace(Target::Stopped);
    }
}

impl Control {
    /// A control plane for these cores, and the handle that drains them.
    pub fn new(settings: Settings, cores: Vec<CoreHandle>) -> (Control, ControlHandle) {
        let (target, targets) = watch::channel(Target::Serving);
        let now = settings.clock.now();
        let shared = Arc::new(ControlState {
            liveness: Liveness::new(settings.config.admin.liveness_timeout, cores.len(), now.uptime),
            dispatch: Dispatch::new(cores.len()),
            cores,
            config: settings.config.clone(),
            policy: CurrentPolicy::new(Arc::clone(&settings.policy)),
            places: Places::default(),
            revocation_file: revocation_file::Turn::default(),
            revocations_refused: AtomicU64::new(0),
            audit: Arc::clone(&settings.audit),
            operators_left_out: AtomicU64::new(0),
            keys: settings.keys.as_ref().map(KeyFetcher::counts),
            clock: settings.clock,
            start_unix_ms: now.unix_ms,
            draining: AtomicBool::new(false),
            drain_closes_per_1000_seconds: AtomicU64::new(0),
        });
        (
            Control {
                settings,
                shared,
                targets,
            },
            ControlHandle(Arc::new(target)),
        )
    }

    /// Serves operators and waits for the end.
    pub fn run(self) -> Result<Exit, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("control files")
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()
            .map_err(ControlError::Runtime)?;
        let exit = runtime.block_on(self.serve());
        // A file, or a look-up of a name for keys that are fetched, may take longer than anybody wants to wait.
        runtime.shutdown_background();
        exit
    }

    async fn serve(mut self) -> Result<Exit, ControlError> {
        let mut signals = match self.settings.signals {
            SignalsFrom::Here => Signals::take().map_err(ControlError::Signals)?,
            SignalsFrom::Elsewhere => Signals::none(),
        };
        // Ends with the runtime.
        tokio::spawn(dispatch::deliver(Arc::clone(&self.shared)));
        revoke::tidy(&self.shared).await;
        if let Some(keys) = self.settings.keys.take() {
            // Ends with the runtime.
            tokio::spawn(keys.run(Arc::clone(&self.shared)));
        }
        if let Some(listener) = self.settings.listener.take() {
            listener.set_nonblocking(true).map_err(ControlError::Listener)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(ControlError::Listener)?;
            // Ends with the runtime.
            tokio::spawn(routes::serve(listener, Arc::clone(&self.shared)));
        }
        let sockets = std::mem::take(&mut self.settings.sockets);
        let offer = match (
            self.settings.signals,
            sockets.first().and_then(|socket| socket.local_addr().ok()),
        ) {
            (SignalsFrom::Here, Some(address)) => Some(tokio::spawn(successor::offer(sockets, address))),
            (SignalsFrom::Here | SignalsFrom::Elsewhere, _) => None,
        };
        let manager = self.settings.signals.service_manager();
        // Ends with the runtime.
        tokio::spawn(liveness::watch(Arc::clone(&self.shared)));
        manager.watch(&self.shared);
        manager.ready();
        if let Some(exit) = self.until_drain(&mut signals).await {
            return Ok(exit);
        }
        if let Some(offer) = offer {
            // The copies are closed before the cores close theirs: then nobody listens, or the heir alone.
            offer.abort();
            // It ends by having been aborted.
            let _ = offer.await;
        }
        Ok(self.drain(&mut signals).await)
    }

    /// Returns at the target for a drain, or with the end if it is worse.
    async fn until_drain(&mut self, signals: &mut Signals) -> Option<Exit> {
        let reloads = self.begin_reloads();
        let mut left_out = LeftOut::default();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::End { name, .. } => {
                        info!("{name}: draining; a second one ends at once");
                        audit::operation("drain", name);
                        return None;
                    }
                    Signal::Reload => {
                        audit::operation("reload", "SIGHUP");
                        reloads.notify_one();
                    }
                    Signal::Nothing { name } => ignored(name),
                },
                target = target_beyond(&mut self.targets, Target::Serving) => {
                    if target == Target::Stopped {
                        return Some(self.stop());
                    }
                    info!("draining, as asked by the process itself");
                    audit::operation("drain", "program");
                    return None;
                }
                // A core may stop at a drain that this loop has not yet heard of: the target is older than the status.
                _ = look.tick() => {
                    if self.shared.some_core_stopped() && *self.targets.borrow() == Target::Serving {
                        error!("a core has ended by itself: this is a bug; ending");
                        self.shared.order(&Order::Stop);
                        return Some(Exit::CoreLost);
                    }
                    left_out.look(&self.shared);
                    self.shared.policy.drop_former();
                    memory_release::give_back();
                    if let Some(memory) = &self.settings.memory {
                        memory.look(self.shared.connections());
                    }
                },
            }
        }
    }

    fn stop(&self) -> Exit {
        info!(
            "ending at once with {} connections: the server was dropped",
            self.shared.connections()
        );
        self.shared.order(&Order::Stop);
        Exit::Stopped
    }

    async fn drain(&self, signals: &mut Signals) -> Exit {
        self.settings.signals.service_manager().stopping();
        let begin = self.shared.clock.now().uptime;
        let within = self.shared.config.restart.drain;
        let connections = self.shared.connections();
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared
            .drain_closes_per_1000_seconds
            .store(closes_per_1000_seconds(connections, within), Ordering::Relaxed);
        self.shared.order(&Order::Drain { within });
        let overdue = sleep(within + self.shared.config.limits.close_timeout.min(DRAIN_GRACE_MAX));
        tokio::pin!(overdue);
        let mut look = interval(LOOK_EVERY_IN_DRAIN);
        let mut targets = self.targets.clone();
        loop {
            tokio::select! {
                _ = target_beyond(&mut targets, Target::Draining) => return self.stop(),
                signal = signals.next() => match signal {
                    Signal::End { name, number } => {
                        warn!("{name} again: ending at once with {} connections", self.shared.connections());
                        self.shared.order(&Order::Stop);
                        return Exit::CutShort { signal: number };
                    }
                    Signal::Reload => info!("SIGHUP: nothing is reloaded while draining"),
                    Signal::Nothing { name } => ignored(name),
                },
                _ = look.tick() => if self.shared.all_cores_stopped() {
                    let took = self.shared.clock.now().uptime.since(begin);
                    info!("drained {connections} connections in {:.1} s", took.as_secs_f64());
                    return Exit::Drained;
                },
                () = &mut overdue => {
                    let rest = self.shared.connections();
                    warn!("the drain is over: {rest} of {connections} connections are cut off");
                    self.shared.order(&Order::Stop);
                    return Exit::Overdue;
                }
            }
        }
    }

    /// Starts a task that reloads at each request and ends with the runtime: a reload waits for files, and signals must be
    /// heard meanwhile. Requests that come during a reload lead to one more.
    fn begin_reloads(&mut self) -> Arc<Notify> {
        let requests = Arc::new(Notify::new());
        let requested = Arc::clone(&requests);
        let (mut reload, shared) = (self.settings.reload.take(), Arc::clone(&self.shared));
        let manager = self.settings.signals.service_manager();
        tokio::spawn(async move {
            let readers = Arc::new(Semaphore::new(reload::READERS_MAX));
            loop {
                requested.notified().await;
                manager.reloading();
                match &mut reload {
                    Some(reload) => reload.run(&shared, &readers).await,
                    None => info!("SIGHUP: there is nothing to reload in this process"),
                }
                if shared.draining() {
                    return;
                }
                manager.ready();
            }
        });
        requests
    }
}

impl ControlState {
    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn some_core_stopped(&self) -> bool {
        self.cores.iter().any(CoreHandle::has_stopped)
    }

    fn all_cores_stopped(&self) -> bool {
        self.cores.iter().all(CoreHandle::has_stopped)
    }

    fn connections(&self) -> u64 {
        self.cores
            .iter()
            .map(|core| core.metrics().connections.value())
            .sum()
    }

    /// Gives an order to all cores, at once or as soon as they have room for it.
    fn order(self: &Arc<Self>, order: &Order) {
        for (index, core) in self.cores.iter().enumerate() {
            // A core that takes no orders for another reason has stopped, which its status says.
            if let Err(error) = core.send(order.clone())
                && error.kind() == io::ErrorKind::WouldBlock
            {
                let (shared, order) = (Arc::clone(self), order.clone());
                tokio::spawn(async move { shared.order_surely(&shared.cores[index], &order).await });
            }
        }
    }

    /// Changes what all cores decide by. Each is told at once, or as soon as it has room for another order.
    fn change_policy<E>(&self, change: impl FnOnce(&Policy) -> Result<Policy, E>) -> Result<(), E> {
        self.policy
            .change(change, |policy| self.dispatch.adopt(&self.cores, policy))
    }

    /// Gives an order that may not be lost: one that is busy has orders waiting.
    async fn order_surely(&self, core: &CoreHandle, order: &Order) {
        while let Err(error) = core.send(order.clone())
            && error.kind() == io::ErrorKind::WouldBlock
        {
            sleep(LOOK_EVERY_IN_DRAIN).await;
        }
    }
}

/// So many, evenly spread; without a time for it all within a second.
fn closes_per_1000_seconds(connections: u64, within: Duration) -> u64 {
    let within_ms = if within.is_zero() {
        1000
    } else {
        within.as_millis()
    };
    u64::try_from(u128::from(connections) * 1_000_000 / within_ms).unwrap_or(u64::MAX)
}

/// Says that a signal does nothing, and which do something.
fn ignored(signal: &str) {
    warn!("{signal} is ignored: it has no meaning here. SIGHUP reloads, SIGTERM drains");
}

/// Returns the target once it is beyond `done`; never, if all senders are gone.
async fn target_beyond(targets: &mut watch::Receiver<Target>, done: Target) -> Target {
    match targets.wait_for(|target| *target > done).await {
        Ok(target) => *target,
        Err(_) => std::future::pending().await,
    }
}

/// How often the cores' states are looked at while all is well: rarely, since each look wakes an idle machine.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often while the end is awaited.
const LOOK_EVERY_IN_DRAIN: Duration = Duration::from_millis(20);

/// Threads for what may block: reloads, the file of revocations, look-ups of names. One that is held for ever, by a file
/// that never ends, is one of them until the process ends.
const BLOCKING_THREADS_MAX: usize = 16;

/// After the drain's own time cores get this much, at most, for close frames to be answered.
const DRAIN_GRACE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
