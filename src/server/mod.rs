//! A server in this process: how it starts, reloads and ends.
//!
//! [`Server::from_environment`] and [`Server::from_sources`] start it with settings that are read, [`Server::start`]
//! with a [`Config`] made in code. [`Embedding`] says how much of the process is the server's.

// Start, in this order:
// 1. `prepare`: files, addresses (`listening`), the settings of the cores. What the service manager gives comes first
//    of all.
// 2. `CoreParts::all`: polls, wakers, hand-over sockets and the ring, which every thread must hold.
// 3. `spawn`: one thread for each core, each with its own descriptor table. Nothing is opened between the first and the
//    last core that a core should not hold.
// 4. `listening`: the listeners, sent to the cores.
// 5. `start_control`: the thread of the control plane, with its sockets and signals.
// 6. `announce`: the log describes the running server. Nothing can fail any more.
//
// End: the control plane orders a drain, the cores close their clients and stop, the control plane returns.

mod announce;
mod embedding;
mod error;
mod listening;
mod port_in_use;
mod prepare;
mod restore;
mod spawn;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use announce::{announce, announce_settings, report};
pub use embedding::{Descriptors, Embedding, LogTo, LoginsFrom};
pub use error::{PortSetting, StartError};
pub use port_in_use::PortOwner;
use prepare::{Prepared, memory_watch};
use spawn::{CoreThread, RunningCores};

use crate::app::App;
use crate::config::{Config, ConfigSources, FdTables};
use crate::control::{self, Control, ControlHandle, Reload};
pub use crate::control::{ControlError, Exit, ReloadError, Reloaded, SignalHandling};
pub use crate::cores::CoreId;
use crate::cores::operators::mailbox::{CoreHandle, Order};
use crate::handle::HandleThread;
pub use crate::handle::{
    Answers, ChannelInfo, ClientAnswer, ClientAnswers, ClientFailure, ConnectionInfo, Handle, HandleError,
    History, HistoryEntry, HistoryQuery, MemberInfo, Page, Pending, Position, Receipt, Received, Selection,
    ServiceInfo, ServiceMember, Subscriber,
};
use crate::log;
pub use crate::log::FilterError;
use crate::machine::cpus::Cpus;
pub use crate::policy::PolicyError;
pub use crate::session::ClientProtocol;
use crate::session::MqttUse;
use crate::store::RunningStore;
pub use crate::store::{StoreError, StoreOwner};
use crate::transport::listener::ListenerOptions;
use crate::transport::socket_activation::ActivatedSockets;
pub use crate::transport::socket_activation::ActivationError;

/// A server that is accepting connections.
///
/// [`Server::drain`] and then [`Server::wait`] end it in order. To drop it ends it at once: connections are cut off
/// without a close frame, as a second SIGTERM does, and the drop returns when all threads of the server have ended, the
/// application's values are dropped and the ports are free. It waits for application code that a core is running.
#[derive(Debug)]
#[must_use = "to drop a server ends it at once: keep it, or call `wait`"]
pub struct Server {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    mqtt_address: Option<SocketAddr>,
    mqtt_tls_address: Option<SocketAddr>,
    admin_address: Option<SocketAddr>,
    cores: Vec<CoreHandle>,
    threads: Vec<CoreThread>,
    /// `None` once the thread has been joined.
    control: Option<JoinHandle<Result<Exit, ControlError>>>,
    control_handle: ControlHandle,
    handle: Handle,
    /// Ends with the server, after its cores.
    _handle_thread: HandleThread,
    /// Closed after the cores have ended.
    store: Option<RunningStore>,
}

impl Server {
    /// Starts a server with the settings that the `ringcast` binary would have: those of the environment, and of the
    /// file that `RINGCAST_CONFIG` names. [`Server::from_sources`] with [`ConfigSources::from_environment`].
    ///
    /// # Errors
    /// As [`Server::from_sources`].
    pub fn from_environment<A: App + Send + 'static>(
        embedding: Embedding,
        app: impl FnMut(CoreId) -> A,
    ) -> Result<Server, StartError> {
        Server::from_sources(ConfigSources::from_environment(), embedding, app)
    }

    /// Reads the settings and starts a server with them, as [`Server::start`] does. [`Server::reload`], or SIGHUP where
    /// the server handles signals, reads them again. The log names settings that have no effect or another effect than
    /// expected.
    ///
    /// # Errors
    /// [`StartError::Config`] has all errors in the settings; the others are the errors of [`Server::start`].
    pub fn from_sources<A: App + Send + 'static>(
        sources: ConfigSources,
        embedding: Embedding,
        app: impl FnMut(CoreId) -> A,
    ) -> Result<Server, StartError> {
        if embedding.signals == SignalHandling::ByServer {
            control::block_harmless().map_err(StartError::System)?;
        }
        let loaded = sources.load().map_err(StartError::Config)?;
        let filter = start_log(&loaded.config, &embedding)?;
        // The first thing that looks at CPUs: later, on a pinned thread, there would be one.
        let cpus = Cpus::of_this_process();
        cpus.missing(&loaded.config.cores.placement)
            .map_err(StartError::Cpus)?;
        announce_settings(&loaded, cpus.usable());
        let config = loaded.config.clone();
        let reload = Reload {
            sources,
            loaded,
            filter,
        };
        Server::start_with(&config, embedding, Some(reload), app)
    }

    /// Starts a server with one application value for each core, made by `app` on the calling thread. Returns when
    /// every core accepts connections.
    ///
    /// # Errors
    /// [`StartError::Served`] if another process, or another server of this one, listens on one of the addresses. With
    /// `config.restart.take_over` the port is shared with it instead; where the program has its signals to itself
    /// ([`SignalHandling::ByProgram`]) no listening sockets pass between the two, so that the system divides new
    /// connections between them until one ends.
    pub fn start<A: App + Send + 'static>(
        config: &Config,
        embedding: Embedding,
        app: impl FnMut(CoreId) -> A,
    ) -> Result<Server, StartError> {
        start_log(config, &embedding)?;
        Server::start_with(config, embedding, None, app)
    }

    fn start_with<A: App + Send + 'static>(
        config: &Config,
        embedding: Embedding,
        reload: Option<Reload>,
        app: impl FnMut(CoreId) -> A,
    ) -> Result<Server, StartError> {
        // Before this step opens anything: nothing else may take the numbers of these descriptors.
        let activated = listening::activated(embedding.signals)?;
        let config = &effective(config, &activated, &embedding)?;
        if embedding.signals == SignalHandling::ByServer {
            control::block_handled().map_err(StartError::System)?;
        }
        let mut prepared = Prepared::new(config, activated, &embedding)?;
        let cores = RunningCores::start(config, &mut prepared, app)?;
        let handles = cores.handles.clone();
        Server::open(config, prepared, cores, embedding.signals, reload).inspect_err(|_| stop(&handles))
    }

    /// The last steps of a start: the cores get their listeners, and the control plane its thread.
    fn open(
        config: &Config,
        prepared: Prepared,
        cores: RunningCores,
        signals: SignalHandling,
        reload: Option<Reload>,
    ) -> Result<Server, StartError> {
        let traits = ListenerOptions {
            backlog: i32::from(config.listen.tcp_backlog),
            write_timeout: config.limits.write_timeout,
        };
        let sockets = prepared
            .reserved
            .listen(&cores.handles, &traits, &cores.outlets)?;
        let (ports, admin) = (prepared.ports, prepared.admin);
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        let policy = Arc::clone(&prepared.policy);

        let (handle, handle_thread) = Handle::start(
            cores.handles.clone(),
            cores.outside,
            Arc::clone(&prepared.policy.channels),
            cores.store.as_ref().map(RunningStore::handle),
            &config.limits,
            MqttUse::of(&config.mqtt),
            prepared.clock,
        )
        .map_err(StartError::System)?;
        let (control, control_handle) = Control::new(
            control::ControlSettings {
                config: config.clone(),
                policy: prepared.policy,
                audit: prepared.cores.audit,
                memory: memory_watch(config, prepared.cores.admission),
                keys: prepared.keys,
                store: cores.store.as_ref().map(RunningStore::handle),
                listener: admin,
                sockets,
                signals,
                reload,
                handle: handle.clone(),
                clock: prepared.clock,
            },
            cores.handles.clone(),
        );
        let control = start_control(control)?;
        announce(config, &ports, admin_address, &policy);
        report(config, &cores.started, prepared.placement);
        Ok(Server {
            address: ports.main,
            tls_address: ports.tls,
            mqtt_address: ports.mqtt,
            mqtt_tls_address: ports.mqtt_tls,
            admin_address,
            cores: cores.handles,
            threads: cores.threads,
            control: Some(control),
            control_handle,
            store: cores.store,
            handle,
            _handle_thread: handle_thread,
        })
    }

    /// The address for clients; its port is never 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of `tls_listen`, if there is one.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// The address of `mqtt_listen`, if there is one.
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.mqtt_address
    }

    /// The address of `mqtt_tls_listen`, if there is one.
    pub fn mqtt_tls_address(&self) -> Option<SocketAddr> {
        self.mqtt_tls_address
    }

    /// The address of the control plane.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The cores, for their counters.
    #[doc(hidden)]
    pub fn cores(&self) -> &[CoreHandle] {
        &self.cores
    }

    /// Subscribes the program to a channel: [`Handle::subscribe`].
    ///
    /// # Errors
    /// As [`Handle::subscribe`].
    pub fn subscribe(&self, channel: &str, capacity: usize) -> Pending<Subscriber> {
        self.handle.subscribe(channel, capacity)
    }

    /// Begins to drain, as SIGTERM does.
    pub fn drain(&self) {
        self.control_handle.drain();
    }

    /// Acts on the server from other threads: publishes without a client, looks clients up, acts on them.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Reads the sources of the settings again, and the files that they name, as SIGHUP does. What can change while the
    /// server runs takes effect on each core with its next turn; connections stay. If anything is wrong nothing
    /// changes.
    ///
    /// Waits until the files have been read: 60 s at most, and the time of reloads that were asked for before. Not for
    /// the methods of an application.
    ///
    /// # Errors
    /// Nothing was reloaded.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.control_handle.reload()
    }

    /// Waits until the server has ended.
    pub fn wait(mut self) -> Result<Exit, ControlError> {
        let exit = self.join_control();
        match exit {
            Ok(Exit::Drained) => {
                self.join_cores();
                self.close_store();
            }
            // If an operator cuts a drain short, the server does not wait for a core that takes no orders.
            Ok(Exit::Overdue | Exit::CutShort { .. } | Exit::CoreLost | Exit::Stopped) | Err(_) => {
                stop(&self.cores);
                self.close_store_soon();
            }
        }
        exit
    }

    /// Ends the store in order, if the cores have ended so.
    fn close_store(&mut self) {
        if let Some(store) = self.store.take() {
            store.close();
        }
    }

    /// The same for cores that have the order to stop at once, after a short wait.
    fn close_store_soon(&mut self) {
        let mut tries = STORE_TRIES_MAX;
        while self.store.is_some() && tries > 0 && !self.cores.iter().all(CoreHandle::has_stopped) {
            thread::sleep(STOP_AGAIN);
            tries -= 1;
        }
        self.close_store();
    }

    fn join_control(&mut self) -> Result<Exit, ControlError> {
        let ended = self.control.take().map(JoinHandle::join);
        ended.and_then(Result::ok).unwrap_or(Ok(Exit::CoreLost))
    }

    fn join_cores(&mut self) {
        for thread in self.threads.drain(..) {
            // A core that panicked has said so, and has ended the process.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.control.is_none() {
            return;
        }
        self.control_handle.stop();
        // The program has dropped the server, and with it the outcome.
        let _ = self.join_control();
        for core in &self.cores {
            // A core whose queue of orders is full gets this order when it has taken some of the others.
            while let Err(error) = core.send(Order::Stop)
                && error.kind() == io::ErrorKind::WouldBlock
            {
                thread::sleep(STOP_AGAIN);
            }
        }
        self.join_cores();
        self.close_store();
    }
}

/// How often [`STOP_AGAIN`] passes before a server that ends at once leaves its store as after a crash: one second.
const STORE_TRIES_MAX: u32 = 200;

/// How long to wait before a core whose queue of orders was full is asked again.
const STOP_AGAIN: Duration = Duration::from_millis(5);

/// Sets up the log, if it is the server's.
fn start_log(config: &Config, embedding: &Embedding) -> Result<Option<log::Filter>, StartError> {
    match embedding.log {
        LogTo::Program => Ok(None),
        LogTo::StandardError => {
            let filter = log::start(&config.log.filter, config.log.format).map_err(StartError::Log)?;
            log::report_panics();
            Ok(Some(filter))
        }
    }
}

/// The configuration, with the sockets of the service manager and the choices of the program applied.
fn effective(
    config: &Config,
    activated: &ActivatedSockets,
    embedding: &Embedding,
) -> Result<Config, StartError> {
    let mut config = listening::with_addresses(config, activated);
    if embedding.logins == LoginsFrom::Settings && config.admits_no_client() {
        return Err(StartError::NoWayToLogIn);
    }
    if embedding.descriptors == Descriptors::OfProgram {
        config.cores.fd_tables = FdTables::Shared;
    }
    Ok(config)
}

/// The thread of the control plane, once it has all that it needs of the system. It has the descriptor table of the
/// process, for the files that it opens, and takes its signals.
fn start_control(control: Control) -> Result<JoinHandle<Result<Exit, ControlError>>, StartError> {
    let (tell, told) = crossbeam_channel::bounded(1);
    let thread = thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            control.run(|| {
                // The starting thread waits for it, below.
                let _ = tell.send(());
            })
        })
        .map_err(StartError::System)?;
    if told.recv().is_ok() {
        return Ok(thread);
    }
    Err(match thread.join() {
        Ok(Err(error)) => StartError::Control(error),
        // A panic, which the log has.
        Ok(Ok(_)) | Err(_) => StartError::System(io::Error::other("the thread of the control plane ended")),
    })
}

/// Tells the cores to end at once.
fn stop(cores: &[CoreHandle]) {
    for core in cores {
        // A core that takes no orders has ended.
        let _ = core.send(Order::Stop);
    }
}
