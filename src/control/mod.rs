//! The control plane: one ordinary thread that serves operators, handles signals and runs the drain.
//!
//! [`Control::run`] runs on the thread that calls it (in the binary: the main thread) and returns when the
//! server has ended. It talks to a core only through that core's `CoreHandle`, and no core ever waits for it.
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
//! 1. Readiness is off before any core gets the order to drain (`ControlState::draining`, set by `drain`
//!    alone).
//! 2. The control plane closes its copies of the cores' listeners before any core gets the order to drain
//!    (`serve`).
//! 3. The operators' listener answers until the end, so that operators can watch a drain.
//! 4. Nothing on this thread waits for a core, a file or another process. Calls that may block run on a
//!    bounded number of other threads (`spawn_blocking`, `BLOCKING_THREADS_MAX`).
//!
//! Not here: the cores' descriptors. Each core has a descriptor table of its own, so that no code here can
//! use one of them.

mod admin_slots;
mod api;
pub(crate) mod api_client;
mod audit_omissions;
mod connections;
mod current_policy;
mod dispatch;
mod exchange;
mod guard;
mod health;
pub(crate) mod jwks;
mod liveness;
pub mod memory;
mod memory_release;
mod notify_socket;
mod reload;
mod request_audit;
mod revocation_file;
mod revoke;
mod routes;
mod service_manager;
mod signals;
mod stats;
mod store_release;
mod successor;
mod sys;
pub(crate) mod webhooks;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::audit::{self, Audit, Event};
use crate::clock::Clock;
use crate::config::Config;
use crate::cores::operators::mailbox::{CoreHandle, Order};
use crate::handle::Handle;
use crate::policy::Policy;
use crate::store::StoreHandle;
use admin_slots::AdminSlots;
use api::Api;
use audit_omissions::AuditOmissions;
use current_policy::CurrentPolicy;
use dispatch::Dispatch;
use jwks::{FetchCounts, KeyFetcher};
use liveness::Liveness;
use memory::MemoryWatch;
pub(crate) use reload::Reload;
pub use reload::{ReloadError, Reloaded};
use reload::{ReloadOutcome, ReloadRequest};
use service_manager::ServiceManager;
use signals::{Signal, Signals};
pub(crate) use signals::{block_handled, block_harmless};
use webhooks::WebhookThread;

/// The parts and settings of a control plane.
#[derive(Debug)]
pub struct ControlSettings {
    /// The configuration of the start: `/stats` shows it without its secrets, and the drain takes its times from it.
    pub config: Config,
    /// The bound listener for operators; `None` if there is none.
    pub listener: Option<TcpListener>,
    /// Copies of the cores' listening sockets, for the process that comes after this one.
    pub sockets: Vec<TcpListener>,
    /// The side that handles signals: the server, or the program that embeds it.
    pub signals: SignalHandling,
    /// The state for reloads; `None` if there is nothing to reload.
    pub(crate) reload: Option<Reload>,
    /// The policy that the cores were started with.
    pub policy: Arc<Policy>,
    /// The rate limits of the audit trail.
    pub audit: Arc<Audit>,
    /// Watches the memory in use, if there is a limit to it.
    pub memory: Option<MemoryWatch>,
    /// Fetches the keys of `jwks_url`, if that is set.
    pub(crate) keys: Option<KeyFetcher>,
    /// Publishes, and counts publications.
    pub handle: Handle,
    /// The store of remembered channels, if `data_dir` is set.
    pub(crate) store: Option<StoreHandle>,
    /// The clock of the process.
    pub clock: Clock,
}

/// The side that handles the signals of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalHandling {
    /// The server: its control plane unblocks them on its thread. Right for a process that is only this
    /// server.
    ByServer,
    /// The program that embeds the server.
    ByProgram,
}

impl SignalHandling {
    /// The side that handles the signals also notifies the service manager.
    fn service_manager(self) -> ServiceManager {
        match self {
            SignalHandling::ByServer => ServiceManager::OfThisProcess,
            SignalHandling::ByProgram => ServiceManager::OfProgram,
        }
    }
}

/// The control plane before it runs.
#[derive(Debug)]
pub struct Control {
    settings: ControlSettings,
    shared: Arc<ControlState>,
    targets: watch::Receiver<Target>,
    reloads: mpsc::Receiver<ReloadRequest>,
}

/// Starts a drain or a reload from another thread. All copies act on the same server.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    target: Arc<watch::Sender<Target>>,
    reloads: mpsc::Sender<ReloadRequest>,
}

/// The state that the tasks of the control plane share: request handlers, reloads, the delivery of orders.
#[derive(Debug)]
struct ControlState {
    cores: Vec<CoreHandle>,
    config: Config,
    /// The policy that the cores decide by.
    policy: CurrentPolicy,
    /// The slots of operators' connections.
    admin_slots: AdminSlots,
    /// Orders that wait until a core's mailbox has room for them.
    dispatch: Dispatch,
    /// Serialises the writes of the file of revocations.
    revocation_file: revocation_file::WriteState,
    /// Revocations that were refused because `revocations_max` are in force.
    revocations_refused: AtomicU64,
    /// The rate limits of the audit trail.
    audit: Arc<Audit>,
    /// For each event, by its index: lines about requests that the audit trail left out.
    audit_left_out: [AtomicU64; Event::COUNT],
    /// The HTTP API.
    api: Api,
    /// The counts of key fetches, if keys are fetched.
    keys: Option<Arc<FetchCounts>>,
    handle: Handle,
    /// The store, for its counters.
    store: Option<StoreHandle>,
    /// Passes events to webhooks.
    webhooks: WebhookThread,
    clock: Clock,
    /// Tells whether every core still turns.
    liveness: Liveness,
    start_unix_ms: u64,
    /// Written once, by `drain`, and read by handlers on the same thread: relaxed order is enough.
    draining: AtomicBool,
    /// How many connections the drain closes in 1000 seconds. Written and read as `draining` is.
    drain_closes_per_1000_seconds: AtomicU64,
}

/// What the server is to do. A later variant overrides an earlier one.
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
    /// The time of the drain ran out; the connections that were left were cut off.
    Overdue,
    /// A second signal cut the drain short.
    CutShort {
        /// The signal's number.
        signal: u8,
    },
    /// A core ended without an order to do so, which is a bug.
    CoreLost,
    /// The program that embeds the server has dropped it.
    Stopped,
}

impl Exit {
    /// The exit code of the process: 0 after a drain; 128 plus the signal's number after a second signal
    /// (130, 131, 143); 70 (`EX_SOFTWARE`) after a bug.
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
    /// The system refuses a resource that the event loop needs.
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
        // A server that is to stop at once does not go back to draining.
        self.target.send_if_modified(|target| {
            let begins = *target == Target::Serving;
            if begins {
                *target = Target::Draining;
            }
            begins
        });
    }

    /// Ends the cores and the control plane at once.
    pub(crate) fn stop(&self) {
        self.target.send_replace(Target::Stopped);
    }

    /// Has the files read again, and waits for the outcome.
    pub(crate) fn reload(&self) -> ReloadOutcome {
        let (answer, outcome) = crossbeam_channel::bounded(1);
        self.reloads
            .try_send(ReloadRequest::Program(answer))
            .map_err(|refused| match refused {
                TrySendError::Full(_) => ReloadError::Busy,
                TrySendError::Closed(_) => ReloadError::Ended,
            })?;
        // A control plane that ends drops the requests that wait.
        outcome.recv().unwrap_or(Err(ReloadError::Ended))
    }
}

impl Control {
    /// Creates the control plane for these cores, and the handle that starts their drain.
    pub fn new(settings: ControlSettings, cores: Vec<CoreHandle>) -> (Control, ControlHandle) {
        let (target, targets) = watch::channel(Target::Serving);
        let (reload_requests, reloads) = mpsc::channel(RELOADS_WAITING_MAX);
        let now = settings.clock.now();
        let shared = Arc::new(ControlState {
            liveness: Liveness::new(settings.config.admin.liveness_timeout, cores.len(), now.uptime),
            dispatch: Dispatch::new(cores.len()),
            cores,
            config: settings.config.clone(),
            policy: CurrentPolicy::new(Arc::clone(&settings.policy)),
            admin_slots: AdminSlots::default(),
            revocation_file: revocation_file::WriteState::default(),
            revocations_refused: AtomicU64::new(0),
            audit: Arc::clone(&settings.audit),
            audit_left_out: Default::default(),
            api: Api::new(&settings.config.limits),
            keys: settings.keys.as_ref().map(KeyFetcher::counts),
            handle: settings.handle.clone(),
            store: settings.store.clone(),
            webhooks: WebhookThread::new(&settings.config, settings.clock),
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
                reloads,
            },
            ControlHandle {
                target: Arc::new(target),
                reloads: reload_requests,
            },
        )
    }

    /// Serves operators until the server ends. Calls `opened` when it has all that it needs of the system: from then on
    /// it does not fail.
    ///
    /// # Errors
    /// The system refuses a resource that the control plane needs. `opened` was not called, and no operator was served.
    pub fn run(self, opened: impl FnOnce()) -> Result<Exit, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("control files")
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()
            .map_err(ControlError::Runtime)?;
        let shared = Arc::clone(&self.shared);
        let exit = runtime.block_on(self.serve(opened));
        if matches!(exit, Ok(Exit::Overdue)) && shared.webhooks.is_running() {
            // Events that cores make until they stop are sent to webhooks, too.
            runtime.block_on(shared.cores_stop(CORES_STOP_TIME_MAX));
        }
        shared.webhooks.end(match exit {
            Ok(Exit::Drained | Exit::Overdue) => WEBHOOK_END_TIME_MAX,
            Ok(Exit::CutShort { .. } | Exit::CoreLost | Exit::Stopped) | Err(_) => Duration::ZERO,
        });
        // A blocked read of a file or look-up of a host name must not hold up the end of the process.
        runtime.shutdown_background();
        exit
    }

    async fn serve(mut self, opened: impl FnOnce()) -> Result<Exit, ControlError> {
        let mut signals = match self.settings.signals {
            SignalHandling::ByServer => Signals::install().map_err(ControlError::Signals)?,
            SignalHandling::ByProgram => Signals::none(),
        };
        let listener = self.settings.listener.take().map(asynchronous).transpose()?;
        opened();
        let policy = self.shared.policy.now();
        self.shared.webhooks.adopt(&policy.webhooks, &self.shared.cores);
        // Ends with the runtime.
        tokio::spawn(dispatch::deliver(Arc::clone(&self.shared)));
        revoke::discard_expired(&self.shared).await;
        if let Some(keys) = self.settings.keys.take() {
            // Ends with the runtime.
            tokio::spawn(keys.run(Arc::clone(&self.shared)));
        }
        if let Some(store) = self.settings.store.take() {
            // Ends with the runtime.
            tokio::spawn(store_release::offer(store));
        }
        if let Some(listener) = listener {
            // Ends with the runtime.
            tokio::spawn(routes::serve(listener, Arc::clone(&self.shared)));
        }
        let sockets = std::mem::take(&mut self.settings.sockets);
        let offer = match (
            self.settings.signals,
            sockets.first().and_then(|socket| socket.local_addr().ok()),
        ) {
            (SignalHandling::ByServer, Some(address)) => {
                Some(tokio::spawn(successor::offer(sockets, address)))
            }
            (SignalHandling::ByServer | SignalHandling::ByProgram, _) => None,
        };
        if self.shared.config.mqtt.is_used() && self.shared.config.mqtt.sys_interval_seconds > 0 {
            // Ends with the runtime.
            tokio::spawn(sys::publish(Arc::clone(&self.shared)));
        }
        let manager = self.settings.signals.service_manager();
        // Ends with the runtime.
        tokio::spawn(liveness::watch(Arc::clone(&self.shared)));
        manager.watch(&self.shared);
        manager.ready();
        if let Some(exit) = self.wait_for_drain(&mut signals).await {
            return Ok(exit);
        }
        if let Some(offer) = offer {
            // The copies are closed before the cores close their listeners. From then on only the next
            // process listens, if there is one.
            offer.abort();
            // The only result is that the task was aborted.
            let _ = offer.await;
        }
        Ok(self.drain(&mut signals).await)
    }

    /// Waits for the order to drain: returns `None` when it comes, or the exit if the server ends without a
    /// drain.
    async fn wait_for_drain(&mut self, signals: &mut Signals) -> Option<Exit> {
        let reloads = self.start_reload_task();
        let mut omissions = AuditOmissions::default();
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::End { name, .. } => {
                        info!("{name}: draining; a second signal ends the process at once");
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
                    info!("draining: the program that embeds the server has asked for it");
                    audit::operation("drain", "program");
                    return None;
                }
                _ = check.tick() => {
                    if self.has_lost_core() {
                        error!("a core has ended by itself, which is a bug; ending the process");
                        self.shared.order(&Order::Stop);
                        return Some(Exit::CoreLost);
                    }
                    omissions.check(&self.shared);
                    self.each_second();
                },
            }
        }
    }

    /// Whether a core has ended without an order to do so. A core may have stopped because of a drain that
    /// `wait_for_drain` has not seen yet: the target changes before the core's status does.
    fn has_lost_core(&self) -> bool {
        self.shared.some_core_stopped() && *self.targets.borrow() == Target::Serving
    }

    /// Frees memory that is no longer needed, and checks the memory in use against its limit. Called once a
    /// second.
    fn each_second(&self) {
        self.shared.policy.drop_former();
        self.shared.handle.free_memory();
        memory_release::return_freed_memory();
        if let Some(memory) = &self.settings.memory {
            memory.check(self.shared.connections());
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
        let mut check = interval(CHECK_EVERY_IN_DRAIN);
        let mut targets = self.targets.clone();
        loop {
            tokio::select! {
                _ = target_beyond(&mut targets, Target::Draining) => return self.stop(),
                signal = signals.next() => match signal {
                    Signal::End { name, number } => {
                        warn!("{name} during the drain: ending at once with {} connections", self.shared.connections());
                        self.shared.order(&Order::Stop);
                        return Exit::CutShort { signal: number };
                    }
                    Signal::Reload => info!("SIGHUP: ignored, since the server is draining"),
                    Signal::Nothing { name } => ignored(name),
                },
                _ = check.tick() => if self.shared.all_cores_stopped() {
                    let took = self.shared.clock.now().uptime.since(begin);
                    info!("drained {connections} connections in {:.1} s", took.as_secs_f64());
                    return Exit::Drained;
                },
                () = &mut overdue => {
                    let rest = self.shared.connections();
                    warn!("the drain took longer than drain_seconds: cutting off {rest} of {connections} connections");
                    self.shared.order(&Order::Stop);
                    return Exit::Overdue;
                }
            }
        }
    }

    /// Starts the task that reloads at each request and ends with the runtime. It is a task of its own
    /// because a reload waits for files, and signals must be handled meanwhile. Signals during a reload lead
    /// to one more reload.
    fn start_reload_task(&mut self) -> Arc<Notify> {
        let signalled = Arc::new(Notify::new());
        let signals = Arc::clone(&signalled);
        let (reload, shared) = (self.settings.reload.take(), Arc::clone(&self.shared));
        // In its place is one without senders.
        let mut requests = std::mem::replace(&mut self.reloads, mpsc::channel(1).1);
        let manager = self.settings.signals.service_manager();
        tokio::spawn(async move {
            let readers = Arc::new(Semaphore::new(reload::READERS_MAX));
            loop {
                let request = tokio::select! {
                    () = signals.notified() => ReloadRequest::Signal,
                    Some(request) = requests.recv() => {
                        audit::operation("reload", "program");
                        request
                    }
                };
                manager.reloading();
                let outcome = match &reload {
                    Some(reload) => reload.run(request.name(), &shared, &readers).await,
                    None => Err(ReloadError::NoSources),
                };
                request.finish(outcome);
                if shared.draining() {
                    return;
                }
                manager.ready();
            }
        });
        signalled
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

    /// True if the audit trail may have a line about this event now; otherwise the line is counted as left out.
    fn allows_audit_line(&self, event: Event) -> bool {
        let is_allowed = self.audit.allows(event, self.clock.now().uptime).is_ok();
        if !is_allowed {
            self.audit_left_out[event.index()].fetch_add(1, Ordering::Relaxed);
        }
        is_allowed
    }

    /// Gives an order to all cores: at once, or as soon as a core's mailbox has room for it.
    fn order(self: &Arc<Self>, order: &Order) {
        for (index, core) in self.cores.iter().enumerate() {
            // Any other error means that the core has stopped, which its status says.
            if let Err(error) = core.send(order.clone())
                && error.kind() == io::ErrorKind::WouldBlock
            {
                let (shared, order) = (Arc::clone(self), order.clone());
                tokio::spawn(async move { shared.order_when_room(&shared.cores[index], &order).await });
            }
        }
    }

    /// Changes the policy of all cores. Each gets the new policy at once, or as soon as its mailbox has room.
    fn change_policy<E>(&self, change: impl FnOnce(&Policy) -> Result<Policy, E>) -> Result<(), E> {
        self.policy.change(change, |policy| {
            self.handle.adopt(&policy.channels);
            self.webhooks.adopt(&policy.webhooks, &self.cores);
            self.dispatch.adopt(&self.cores, policy);
        })
    }

    /// Waits until all cores have stopped, but no longer than this.
    async fn cores_stop(&self, within: Duration) {
        let stopped = async {
            while !self.all_cores_stopped() {
                sleep(CHECK_EVERY_IN_DRAIN).await;
            }
        };
        // A core that hangs does not hold up the end of the process.
        let _ = timeout(within, stopped).await;
    }

    /// Repeats an order until the core's full mailbox has taken it.
    async fn order_when_room(&self, core: &CoreHandle, order: &Order) {
        while let Err(error) = core.send(order.clone())
            && error.kind() == io::ErrorKind::WouldBlock
        {
            sleep(CHECK_EVERY_IN_DRAIN).await;
        }
    }
}

/// The listener for the event loop of the control plane.
fn asynchronous(listener: TcpListener) -> Result<tokio::net::TcpListener, ControlError> {
    listener.set_nonblocking(true).map_err(ControlError::Listener)?;
    tokio::net::TcpListener::from_std(listener).map_err(ControlError::Listener)
}

/// How many connections the drain closes in 1000 seconds if it closes them evenly over `within`. Without a
/// time it closes all of them within one second.
fn closes_per_1000_seconds(connections: u64, within: Duration) -> u64 {
    let within_ms = if within.is_zero() {
        1000
    } else {
        within.as_millis()
    };
    u64::try_from(u128::from(connections) * 1_000_000 / within_ms).unwrap_or(u64::MAX)
}

/// Warns that a signal does nothing, and names the signals that do something.
fn ignored(signal: &str) {
    warn!("{signal} is ignored: this server does not use it. SIGHUP reloads, SIGTERM drains");
}

/// Waits until the target is beyond `done`, and returns it. Never returns if all senders are gone.
async fn target_beyond(targets: &mut watch::Receiver<Target>, done: Target) -> Target {
    match targets.wait_for(|target| *target > done).await {
        Ok(target) => *target,
        Err(_) => std::future::pending().await,
    }
}

/// How often the control plane checks the cores while it serves: rarely, since each check wakes an idle
/// machine.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often it checks them during a drain.
const CHECK_EVERY_IN_DRAIN: Duration = Duration::from_millis(20);

/// Threads for calls that may block: reloads, the file of revocations, look-ups of host names. A call that
/// never returns, such as a read of a pipe without a writer, holds one of these threads until the process
/// ends.
const BLOCKING_THREADS_MAX: usize = 16;

/// How long cores may take to stop after a drain has cut their connections, and to pass on their last events.
const CORES_STOP_TIME_MAX: Duration = Duration::from_secs(1);
/// How long the last events are sent to webhooks after the cores have stopped.
const WEBHOOK_END_TIME_MAX: Duration = Duration::from_secs(5);

/// Reloads that a program has asked for and that wait for the one before them.
const RELOADS_WAITING_MAX: usize = 16;

/// How much longer than the drain's own time the cores may take, at most, until their close frames are
/// answered.
const DRAIN_GRACE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
