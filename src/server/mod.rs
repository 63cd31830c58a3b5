//! A server: its parts, the order in which they start, and the order in which they end.
//!
//! Start, in this order:
//! 1. `prepare`: what the service manager gives, files, addresses ([`Reserved`](listening)), settings of the cores.
//! 2. `CoreParts::all`: polls, wakers, hand-over sockets and the ring, which every thread must hold.
//! 3. `spawn`: one thread for each core, each with its own descriptor table. Nothing is opened between the first and the
//!    last core that a core should not hold.
//! 4. `listening`: the listeners, sent to the cores.
//! 5. `announce`: the log says what was started. Then the control plane begins.
//!
//! End: the control plane orders a drain, the cores close their clients and stop, the control plane returns.

mod announce;
mod embedding;
mod error;
mod listening;
mod occupied;
mod prepare;
mod spawn;

use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use announce::{announce, report};
pub use embedding::{Descriptors, Embedding};
pub use error::{PortSetting, StartError};
pub use occupied::Owner;
use prepare::{Prepared, memory_watch};
use spawn::{CoreThread, spawn_cores};

use crate::app::App;
use crate::app::builtin::Builtin;
use crate::broker::broker;
use crate::config::{Config, FdTables};
use crate::control::reload::Reload;
use crate::control::{self, Control, ControlError, ControlHandle, Exit, SignalHandling};
use crate::cores::operators::mailbox::{CoreHandle, Order};
use crate::cores::{CoreId, CoreParts};
use crate::login;
use crate::transport::given::Given;
use crate::transport::listener::Traits;

/// A server that is accepting connections.
///
/// [`Server::drain`] and then [`Server::wait`] end it in order. To drop it ends it at once: connections are cut off without
/// a close frame, as a second SIGTERM does, and the drop returns when all threads of the server have ended, the
/// application's values are dropped and the ports are free. It waits for application code that a core is running.
#[derive(Debug)]
#[must_use = "to drop a server ends it at once: keep it, or call `wait`"]
pub struct Server {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    admin_address: Option<SocketAddr>,
    cores: Vec<CoreHandle>,
    threads: Vec<CoreThread>,
    /// `None` once somebody has waited for it.
    control: Option<JoinHandle<Result<Exit, ControlError>>>,
    drain: ControlHandle,
}

/// Runs the binary's server, with the built-in application, until it has drained.
pub fn run(config: &Config, reload: Reload) -> Result<Exit, StartError> {
    let embedding = Embedding {
        signals: SignalHandling::ByServer,
        reload: Some(reload),
        descriptors: Descriptors::OfCores { kept: Vec::new() },
    };
    let given = listening::given(embedding.signals)?;
    let config = listening::with_addresses(config, &given);
    // An application of an embedding program may have logins of its own; this one has not.
    if config.admits_nobody() {
        return Err(StartError::AdmitsNobody);
    }
    Server::start_with(&config, given, embedding, |_| Builtin::default())?
        .wait()
        .map_err(StartError::Control)
}

impl Server {
    /// Starts a server with one application value per core, made by `app` on the calling thread. Returns when every
    /// core accepts connections.
    ///
    /// # Errors
    /// [`StartError::Served`] if another process, or another server of this one, listens on one of the addresses. With
    /// `config.restart.take_over` the port is shared with it instead; where the program has its signals to itself
    /// ([`SignalHandling::ByProgram`]) no listening sockets pass between the two, so that the system divides new connections
    /// between them until one ends.
    pub fn start<A: App + Send + 'static>(
        config: &Config,
        embedding: Embedding,
        app: impl FnMut(CoreId) -> A,
    ) -> Result<Server, StartError> {
        // First of all: nothing else may take the numbers of these descriptors.
        let given = listening::given(embedding.signals)?;
        let mut config = listening::with_addresses(config, &given);
        if embedding.descriptors == Descriptors::OfProgram {
            config.cores.fd_tables = FdTables::Shared;
        }
        Server::start_with(&config, given, embedding, app)
    }

    fn start_with<A: App + Send + 'static>(
        config: &Config,
        given: Given,
        embedding: Embedding,
        app: impl FnMut(CoreId) -> A,
    ) -> Result<Server, StartError> {
        if embedding.signals == SignalHandling::ByServer {
            control::block_handled().map_err(StartError::System)?;
        }
        let Prepared {
            clock,
            placement,
            policy,
            keys,
            ports,
            reserved,
            admin,
            cores: settings,
        } = Prepared::new(config, given, &embedding)?;
        let limits = &config.limits;
        let count = placement.len();

        // All that every thread must hold, before the first of them splits its descriptor table off.
        let brokers = broker(count, limits.ring_slots, limits.ring_bytes_max);
        // A core that has as many logins under way as the password checks take does not refuse one more before they do.
        let logins_max = login::pending_max(limits.logins_waiting_max, config.login.threads);
        let (mut parts, handles) =
            CoreParts::all(brokers, limits.connections_max, logins_max, app).map_err(StartError::System)?;
        parts.iter_mut().for_each(|core| core.pin(&placement));
        let outlets = parts[0].hand_over.outlets();
        let (threads, started) = spawn_cores(parts, &settings).inspect_err(|_| stop(&handles))?;
        let traits = Traits {
            backlog: i32::from(config.listen.tcp_backlog),
            write_timeout: limits.write_timeout,
        };
        let sockets = reserved
            .listen(count, &traits, &outlets)
            .inspect_err(|_| stop(&handles))?;
        drop(outlets);
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        announce(config, &ports, admin_address, &policy);
        report(config, &started, placement);

        let (control, drain) = Control::new(
            control::ControlSettings {
                config: config.clone(),
                policy,
                audit: settings.audit,
                memory: memory_watch(config, settings.admission),
                keys,
                listener: admin,
                sockets,
                signals: embedding.signals,
                reload: embedding.reload,
                clock,
            },
            handles.clone(),
        );
        // Not a core: it takes signals, and what it opens is in the table of the process.
        let control = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || control.run())
            .map_err(StartError::System)
            .inspect_err(|_| stop(&handles))?;
        Ok(Server {
            address: ports.main,
            tls_address: ports.tls,
            admin_address,
            cores: handles,
            threads,
            control: Some(control),
            drain,
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

    /// The address of the control plane.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The cores, for their counters.
    pub fn cores(&self) -> &[CoreHandle] {
        &self.cores
    }

    /// Begins to drain, as SIGTERM does.
    pub fn drain(&self) {
        self.drain.drain();
    }

    /// Waits until the server has ended.
    pub fn wait(mut self) -> Result<Exit, ControlError> {
        let exit = self.join_control();
        match exit {
            Ok(Exit::Drained) => self.join_cores(),
            // Who cuts a drain short does not wait for a core that does not listen.
            Ok(Exit::Overdue | Exit::CutShort { .. } | Exit::CoreLost | Exit::Stopped) | Err(_) => {
                stop(&self.cores);
            }
        }
        exit
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
        self.drain.stop();
        // Nobody asks any more how it ended.
        let _ = self.join_control();
        for core in &self.cores {
            // One that has orders waiting takes this one when it has taken some of them.
            while let Err(error) = core.send(Order::Stop)
                && error.kind() == io::ErrorKind::WouldBlock
            {
                thread::sleep(STOP_AGAIN);
            }
        }
        self.join_cores();
    }
}

/// How long a core that has no room for another order is left alone.
const STOP_AGAIN: Duration = Duration::from_millis(5);

/// Tells cores to end without ceremony.
fn stop(cores: &[CoreHandle]) {
    for core in cores {
        // A core that takes no orders has ended.
        let _ = core.send(Order::Stop);
    }
}
