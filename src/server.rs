//! A server: its parts, the order in which they start, and the order in which they end.
//!
//! Start: what the service manager gives → reserve the address → polls, wakers, hand-over sockets and the ring, which every thread must hold → one
//! thread per core, each with its own descriptor table → its listeners, sent to it → the control plane. Nothing is opened between the
//! first and the last core that a core should not hold.
//! End: the control plane orders a drain, the cores close their clients and stop, the control plane returns.

mod listening;
mod occupied;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::bounded;
use mio::{Poll, Waker};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use tracing::{debug, error, info, warn};

use crate::app::App;
use crate::app::builtin::Builtin;
use crate::audit::Audit;
use crate::auth::CredentialFields;
use crate::broker::broker;
use crate::clock::Clock;
use crate::config::limits::MemoryMax;
use crate::config::tls::OnListen;
use crate::config::{Anonymous, Config, FdTables};
use crate::control::jwks::KeyFetcher;
use crate::control::memory::MemoryWatch;
use crate::control::reload::Reload;
use crate::control::{self, Control, ControlError, ControlHandle, Exit, SignalsFrom};
use crate::cores::arrivals::admission::Admission;
use crate::cores::arrivals::balance::Loads;
use crate::cores::operators::mailbox::{CoreHandle, Order, mailbox};
use crate::cores::{self, CoreId, CoreParts, CoreSettings, Ports, Started, WAKER};
use crate::http::site::Site;
use crate::log::{self, Ending};
use crate::login;
use crate::machine::capacity::KERNEL_BYTES;
use crate::machine::cpus::Cpus;
use crate::machine::{self, Target, reading};
use crate::policy::{KeySource, Policy, PolicyError};
use crate::session::{self, Kind, Logins};
use crate::transport::given::{Given, GivenError};
use crate::transport::hand_over::HandOver;
use crate::transport::listener::Traits;

use listening::Reserved;
pub use occupied::Owner;
use occupied::Starting;

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

/// What a program that embeds the library chooses beyond the configuration.
///
/// Log lines go to the program's own `tracing` subscriber, if it has one. It is called on the cores, so it must not wait:
/// neither for a disk nor for whoever reads standard error. [`log::start`] sets up one that does not.
#[derive(Debug)]
pub struct Embedding {
    /// What the server speaks.
    pub kind: Kind,
    /// Who handles SIGTERM, SIGINT and SIGHUP.
    pub signals: SignalsFrom,
    /// What SIGHUP reloads.
    pub reload: Option<Reload>,
    /// Which of the program's descriptors its cores see.
    pub descriptors: Descriptors,
}

/// Which of the program's descriptors (files, sockets, pipes) the cores see, and with them the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Descriptors {
    /// All of them, at any time, as on every thread of the program. All cores and the program share one limit on open files
    /// (`RLIMIT_NOFILE`), whatever `fd_tables` says.
    #[default]
    OfProgram,
    /// Each core has a descriptor table of its own, where `fd_tables` and the system permit it: the limit on open files
    /// counts for each core, and no lock on descriptors is shared between cores. Right for a program that is only this
    /// server.
    ///
    /// Of what the program has open when the server starts, a core has standard input, output and error, and these
    /// numbers; they stay open until the core ends, whether the program closes them or not. All else is closed there, so
    /// that others see the end of a pipe or a socket when the program closes it.
    ///
    /// **The application must not use any other descriptor on a core**, neither an older one nor one that the program opens
    /// later: on a core its number is nobody's, or that of a client's socket. What the application opens on a core itself is
    /// that core's alone, and is counted among its connections' descriptors. What an application's value holds from before
    /// the start is closed on the core when the core drops the value, and stays open in the program, which has to close it
    /// itself: let it keep an `Arc` of its own. Work on the program's files and sockets belongs on another thread
    /// ([`Peer::defer`](crate::app::Peer::defer)). A log that goes to a file is such a descriptor: list it here, or have it
    /// written by another thread, as [`log::start`] does.
    OfCores {
        /// The numbers of those that stay open on every core.
        kept: Vec<RawFd>,
    },
}

impl Descriptors {
    /// What stays open in the tables of the cores, if they are to have tables of their own.
    fn kept(self, tables: FdTables) -> Option<Arc<[RawFd]>> {
        match (self, tables) {
            (Descriptors::OfCores { kept }, FdTables::Auto) => Some(kept.into()),
            (Descriptors::OfCores { .. }, FdTables::Shared) | (Descriptors::OfProgram, _) => None,
        }
    }
}

impl Default for Embedding {
    /// SocketCluster, in a process that keeps its signals to itself and whose descriptors are the same on every thread.
    fn default() -> Embedding {
        Embedding {
            kind: Kind::SocketCluster,
            signals: SignalsFrom::Elsewhere,
            reload: None,
            descriptors: Descriptors::OfProgram,
        }
    }
}

/// Runs the binary's server, with the built-in application, until it has drained.
pub fn run(config: &Config, reload: Reload) -> Result<Exit, StartError> {
    let embedding = Embedding {
        signals: SignalsFrom::Here,
        reload: Some(reload),
        descriptors: Descriptors::OfCores { kept: Vec::new() },
        ..Embedding::default()
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
    /// ([`SignalsFrom::Elsewhere`]) no listening sockets pass between the two, so that the system divides new connections
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
        mut app: impl FnMut(CoreId) -> A,
    ) -> Result<Server, StartError> {
        if embedding.signals == SignalsFrom::Here {
            control::hold_back().map_err(StartError::System)?;
        }
        raise_open_files_limit();
        let clock = Clock::begin();
        let mut policy = Policy::open(config).map_err(StartError::Policy)?;
        let mut keys = KeyFetcher::of(config);
        if let Some(keys) = &mut keys {
            policy = keys.first(policy);
        }
        let placement = Cpus::of_this_process().placement(&config.cores.placement);
        for doubt in policy.warnings(clock.now().unix_ms) {
            warn!("{doubt}");
        }
        let mut reserved = Reserved::new(config, given, embedding.signals)?;
        if reserved.takes_over() && matches!(policy.keys, KeySource::Random(_)) {
            warn!(
                "take_over: tokens of the process that serves {} will not be accepted here: this one has made up a key. Set \
                 auth_key to the same key in both",
                config.listen.address
            );
        }
        let ports = reserved.ports().clone();
        let admin = reserved.admin(config)?;
        let admission = Arc::new(Admission::new(
            config.limits.connections_per_address_max,
            config.listen.translator_prefixes.clone(),
        ));
        // Before the cores have their CPUs, so that hashing runs where there is room.
        let policy = Arc::new(
            policy
                .start_password_checks(config, clock)
                .map_err(StartError::Policy)?,
        );
        let count = placement.len();
        let settings = core_settings(
            config,
            embedding.kind,
            Arc::clone(&policy),
            Arc::clone(&admission),
            ports.clone(),
            Counts {
                cores: count,
                acceptors: reserved.acceptors(count),
            },
            clock,
        );
        let settings = CoreSettings {
            own_fd_table: embedding.descriptors.kept(config.cores.fd_tables),
            ..settings
        };

        // All that every thread must hold, before the first of them splits its descriptor table off.
        let polls = (0..count)
            .map(|_| Poll::new())
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::System)?;
        let wakers = polls
            .iter()
            .map(|poll| Waker::new(poll.registry(), WAKER).map(Arc::new))
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::System)?;
        let hand_overs = HandOver::new(count).map_err(StartError::System)?;
        let outlets = hand_overs[0].outlets();
        let brokers = broker(count, config.limits.ring_slots, config.limits.ring_bytes_max);
        // A core that has as many logins under way as the password_checks takes does not refuse another one's before the password_checks.
        let logins_max = login::under_way_max(config.limits.logins_waiting_max, config.login.threads);
        let (handles, mailboxes): (Vec<_>, Vec<_>) = wakers
            .iter()
            .map(|waker| mailbox(Arc::clone(waker), logins_max))
            .unzip();
        let wakers: Arc<[Arc<Waker>]> = wakers.into();

        let parts = polls
            .into_iter()
            .zip(hand_overs)
            .zip(Loads::new(count, config.limits.connections_max))
            .zip(brokers)
            .zip(mailboxes);
        let parts =
            parts.enumerate().map(
                |(index, ((((poll, hand_over), loads), broker), mailbox))| CoreParts {
                    id: CoreId::new(index),
                    cpu: placement.get(index).map(|cpu| core_affinity::CoreId { id: *cpu }),
                    shares_cpu: shares_cpu(&placement, index),
                    poll,
                    wakers: Arc::clone(&wakers),
                    hand_over,
                    loads,
                    broker,
                    mailbox,
                    app: app(CoreId::new(index)),
                },
            );
        let (threads, started) = spawn_cores(parts.collect(), &settings).inspect_err(|_| stop(&handles))?;
        let traits = Traits {
            backlog: config.listen.tcp_backlog,
            write_timeout: config.limits.write_timeout,
        };
        let sockets = reserved
            .listen(count, &traits, &outlets)
            .inspect_err(|_| stop(&handles))?;
        drop(outlets);
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        announce(config, &ports, admin_address, &policy);
        report(config, &started, placement);

        let (control, drain) = Control::new(
            control::Settings {
                config: config.clone(),
                policy,
                audit: Arc::clone(&settings.audit),
                memory: memory_watch(config, admission),
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

/// The thread of a core, and what is to be dropped when it has ended.
type CoreThread = JoinHandle<Option<cores::InheritedDescriptors>>;

/// Tells cores to end without ceremony.
fn stop(cores: &[CoreHandle]) {
    for core in cores {
        // A core that takes no orders has ended.
        let _ = core.send(Order::Stop);
    }
}

/// Why a server did not start: what to do about it is in the text.
#[derive(Debug)]
pub enum StartError {
    /// Sockets of the service manager are not right.
    Given(GivenError),
    /// Keys, or other files that the configuration names, are not right.
    Policy(PolicyError),
    /// Only authenticated clients are served, and none can become authenticated.
    AdmitsNobody,
    /// Another process listens on an address already, and this start was not to take over from it, or cannot.
    Served {
        /// What the address is for.
        setting: PortSetting,
        /// The address.
        address: SocketAddr,
        /// The other process, if it can be seen.
        owner: Option<Owner>,
    },
    /// Another process of the same user is starting on the same port, and takes too long.
    Starting {
        /// The port.
        port: u16,
        /// The other process.
        process: i32,
    },
    /// An address cannot be had.
    Listen {
        /// What it is for.
        setting: PortSetting,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The control plane cannot run.
    Control(ControlError),
    /// The system refused something else: descriptors, memory or threads.
    System(io::Error),
}

/// What an address is for, by the setting that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSetting {
    /// Clients.
    Listen,
    /// Clients that speak TLS.
    TlsListen,
    /// Operators.
    Admin,
}

impl PortSetting {
    fn variable(self) -> &'static str {
        match self {
            PortSetting::Listen => "RINGCAST_LISTEN",
            PortSetting::TlsListen => "RINGCAST_TLS_LISTEN",
            PortSetting::Admin => "RINGCAST_ADMIN",
        }
    }

    /// What there is to do where the address cannot be had.
    fn advice(self) -> String {
        let or_off = match self {
            PortSetting::Listen => "",
            PortSetting::TlsListen | PortSetting::Admin => ", or to off",
        };
        format!(
            "set {} to a free address of this machine{or_off}",
            self.variable()
        )
    }
}

impl StartError {
    fn served(setting: PortSetting, address: SocketAddr) -> StartError {
        StartError::Served {
            setting,
            address,
            owner: Owner::of(address),
        }
    }

    fn listening(setting: PortSetting, address: SocketAddr, cause: io::Error) -> StartError {
        match cause.kind() {
            io::ErrorKind::AddrInUse => StartError::served(setting, address),
            _ => StartError::Listen {
                setting,
                address,
                cause,
            },
        }
    }

    fn starting(Starting { port, process }: Starting) -> StartError {
        StartError::Starting { port, process }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Given(error) => error.fmt(f),
            StartError::Policy(error) => error.fmt(f),
            StartError::AdmitsNobody => f.write_str(
                "no client could log in: only authenticated clients are served (listen or tls_listen is not a loopback \
                 address, or allow_anonymous is off), and nothing is set that authenticates one; set a key \
                 (RINGCAST_AUTH_KEY=$(openssl rand -hex 32), key files, jwks_file or jwks_url), a password_file or \
                 tls_client_auth, or serve everybody with RINGCAST_ALLOW_ANONYMOUS=on",
            ),
            StartError::Served {
                setting,
                address,
                owner,
            } => {
                match owner {
                    Some(owner) => write!(f, "{address} is in use: {owner} listens there. ")?,
                    None => write!(
                        f,
                        "{address} is in use by a process that cannot be seen from here, of another user or another \
                         container. "
                    )?,
                }
                write!(
                    f,
                    "End it, or {}. To take over from a Ringcast server of the same user without refusing a client, start \
                     with --take-over, and end the other afterwards",
                    setting.advice()
                )
            }
            StartError::Starting { port, process } => write!(
                f,
                "process {process} of this user is starting on port {port} and has not come to an end: end it, or wait"
            ),
            StartError::Listen {
                setting,
                address,
                cause,
            } => write!(f, "cannot listen on {address}: {cause}; {}", setting.advice()),
            StartError::Control(error) => error.fmt(f),
            StartError::System(cause) => write!(f, "the system refused what a core needs: {cause}"),
        }
    }
}

impl std::error::Error for StartError {}

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

/// How many event loops there are, and how many of them have listeners.
struct Counts {
    cores: usize,
    acceptors: usize,
}

fn core_settings(
    config: &Config,
    kind: Kind,
    policy: Arc<Policy>,
    admission: Arc<Admission>,
    ports: Ports,
    counts: Counts,
    clock: Clock,
) -> CoreSettings {
    CoreSettings {
        ports,
        acceptors: u64::try_from(counts.acceptors).unwrap_or(u64::MAX),
        site: Arc::new(Site::new(
            &config.listen.path,
            config.listen.probe_paths.clone(),
            config.shows_welcome_page(),
        )),
        login_path: config.login.path.clone(),
        login_cookie: config.login.cookie.clone(),
        limits: config.limits.clone(),
        held_bytes_max: held_bytes_max(config, counts.cores),
        slow_consumer: config.delivery.slow_consumer,
        accept_excess: config.listen.accept_excess,
        compression: config.delivery.compression,
        compression_bytes_min: config.delivery.compression_bytes_min,
        fan_out_slice: config.cores.fan_out_slice,
        busy_poll: config.cores.busy_poll,
        admission,
        own_fd_table: None,
        audit: Arc::new(Audit::new(config.limits.audit_lines_per_second_max)),
        kind,
        session: session::Settings {
            protocol: config.socketcluster.protocol,
            ping_interval: config
                .socketcluster
                .pings
                .then_some(config.socketcluster.ping_interval),
            ping_timeout: config.socketcluster.ping_timeout,
            handshake_timeout: config.limits.handshake_timeout,
            ack_timeout: config.socketcluster.ack_timeout,
            calls_max: config.limits.calls_per_connection_max,
            client_calls_max: config.limits.client_calls_max,
            channel_name_bytes_max: config.limits.channel_name_bytes_max,
            allow_client_publish: config.permissions.allow_client_publish,
            auth_default_expiry: config.auth.default_expiry,
            allow_anonymous: config.serves_anonymous(),
            authentication_timeout: Some(config.limits.authentication_timeout)
                .filter(|timeout| !timeout.is_zero()),
            logins: Logins {
                fields: CredentialFields::new(
                    config.login.user_fields.clone(),
                    config.login.password_fields.clone(),
                ),
                body_bytes_max: config.limits.login_body_bytes_max,
            },
        },
        policy,
        clock,
    }
}

/// Whether the CPU of a core is that of another, too: there may be more of them than CPUs.
fn shares_cpu(placement: &[usize], core: usize) -> bool {
    placement.get(core).is_some_and(|cpu| {
        let on_it = placement.iter().filter(|other| *other == cpu);
        on_it.count() > 1
    })
}

/// The share of each of so many cores in `outbox_bytes_total_max`.
fn held_bytes_max(config: &Config, cores: usize) -> usize {
    let total = match config.limits.outbox_bytes_total_max {
        MemoryMax::Off => return usize::MAX,
        MemoryMax::Bytes(bytes) => bytes,
        MemoryMax::Auto => match reading::machine(Path::new("/")).memory_bytes_max() {
            Some(bytes) => bytes / 4,
            None => HELD_BYTES_MAX_UNKNOWN,
        },
    };
    info!(
        bytes = total,
        "connections that hold most are closed when all of them hold so much (outbox_bytes_total_max)"
    );
    usize::try_from(total).unwrap_or(usize::MAX) / cores.max(1)
}

/// What looks after `memory_bytes_max`, if there is such a limit.
fn memory_watch(config: &Config, admission: Arc<Admission>) -> Option<MemoryWatch> {
    let mut group = None;
    let max_bytes = match config.limits.memory_bytes_max {
        MemoryMax::Off => return None,
        MemoryMax::Bytes(bytes) => bytes,
        MemoryMax::Auto => {
            let machine = reading::machine(Path::new("/"));
            let Some(bytes) = machine.memory_bytes_max() else {
                warn!("memory_bytes_max: how much memory there is cannot be read here; there is no limit");
                return None;
            };
            group = machine.memory_group();
            bytes - bytes / 10
        }
    };
    info!(
        max_bytes,
        "new connections are refused when so much memory is in use"
    );
    let watch = MemoryWatch::new(max_bytes, KERNEL_BYTES, admission);
    Some(match group {
        Some(group) => watch.of_group(move || group.used_bytes(Path::new("/"))),
        None => watch,
    })
}

/// Takes as many descriptors as the system allows: one is needed for each connection.
fn raise_open_files_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(errno) = raised {
        warn!("the limit on open files stays as it is: {errno}");
    }
}

/// Says what has been started: addresses as bound, the CPU of each core, and where keys are from.
fn announce(config: &Config, ports: &Ports, admin: Option<SocketAddr>, policy: &Policy) {
    let (listen, path) = (ports.main, &config.listen.path);
    let served = match ports.main_tls {
        OnListen::Off => format!("ws://{listen}{path}"),
        OnListen::Shared => format!("ws://{listen}{path} and wss://{listen}{path}"),
        OnListen::Only => format!("wss://{listen}{path}"),
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        "ringcast serves {served}, protocol {}", config.socketcluster.protocol
    );
    if let Some(tls) = ports.tls {
        info!("and wss://{tls}{path}");
    }
    match admin {
        Some(admin) if config.tls.admin => info!("control plane on https://{admin}/"),
        Some(admin) => info!("control plane on http://{admin}/"),
        None => info!("control plane off"),
    }
    if config.shows_welcome_page() {
        info!("to try it out, open {} in a browser", page_url(ports));
    }
    match &policy.keys {
        // A server without a key works, and everything about it looks right until the first restart.
        KeySource::Random(_)
            if config.serves_anonymous() && config.permissions.allow_anonymous == Anonymous::Auto =>
        {
            warn!(
                "auth_key is not set: tokens are signed with a random key that ends with this process; fine for a trial, else set \
             RINGCAST_AUTH_KEY"
            )
        }
        KeySource::Random(_) => warn!(
            "auth_key is not set: tokens are signed with a random key. After a restart every user has to log in again, and no \
             other server or service can check or issue tokens. Start each server with the same key, kept secret: \
             RINGCAST_AUTH_KEY=$(openssl rand -hex 32)"
        ),
        KeySource::Shared => info!("tokens: the key auth_key"),
        KeySource::Files => info!("tokens: the keys of auth_private_key_file and auth_public_key_file"),
        KeySource::PublicFile => {
            info!("tokens: the key of auth_public_key_file, which can check but not sign")
        }
        KeySource::Sets => info!("tokens: the keys of jwks_file and jwks_url"),
    }
    let loopback = |address: SocketAddr| address.ip().is_loopback();
    match (config.serves_anonymous(), config.permissions.allow_anonymous) {
        (true, Anonymous::Auto) if ports.tls.is_some() => {
            info!(
                "all clients are served: listen and tls_listen are loopback addresses (allow_anonymous = auto)"
            );
        }
        (true, Anonymous::Auto) => {
            info!("all clients are served: listen is a loopback address (allow_anonymous = auto)");
        }
        (true, Anonymous::On | Anonymous::Off) => info!("all clients are served: allow_anonymous = on"),
        (false, Anonymous::Auto) => info!(
            "only authenticated clients are served: {} is not a loopback address (allow_anonymous = auto)",
            if loopback(listen) { "tls_listen" } else { "listen" }
        ),
        (false, Anonymous::On | Anonymous::Off) => {
            info!("only authenticated clients are served: allow_anonymous = off");
        }
    }
    if let (Some(file), Some(users)) = (&config.login.password_file, &policy.users) {
        info!(
            "logins: the users of {}, {} in all",
            file.display(),
            users.count()
        );
    }
    let limits = &config.limits;
    debug!(
        message_bytes_max = limits.message_bytes_max,
        outbox_bytes_max = limits.outbox_bytes_max,
        channels_per_connection_max = limits.channels_per_connection_max,
        connections_per_core_max = limits.connections_per_core_max,
        ring_slots = limits.ring_slots,
        ring_bytes_max = limits.ring_bytes_max,
        "limits",
    );
}

/// Where a browser of this machine finds the root.
fn page_url(ports: &Ports) -> String {
    let scheme = match ports.main_tls {
        OnListen::Off | OnListen::Shared => "http",
        OnListen::Only => "https",
    };
    let mut address = ports.main;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{address}/")
}

/// Says what differs from what was asked for.
fn report(config: &Config, started: &[Started], placement: Vec<usize>) {
    let connections_max: u64 = started.iter().map(|core| u64::from(core.connections_max)).sum();
    let own_fd_tables = started.iter().all(|core| core.own_fd_table);
    let target = Target::new(config, None, placement, own_fd_tables);
    let cpus: Vec<String> = target.placement.iter().map(ToString::to_string).collect();
    info!(
        connections_max,
        "{} cores on CPUs {}: {}",
        started.len(),
        cpus.join(", "),
        machine::summary(&reading::machine(Path::new("/")), &target)
    );
    if started.iter().any(|core| !core.pinned) {
        warn!("not every core could be pinned to its CPU");
    }
    if config.cores.fd_tables == FdTables::Auto && started.iter().any(|core| !core.own_fd_table) {
        warn!("descriptor tables cannot be split here: the limit on open files holds for all cores together");
    }
}

/// What all connections may hold where it cannot be read how much memory there is.
const HELD_BYTES_MAX_UNKNOWN: u64 = 1 << 30;
/// EX_SOFTWARE of sysexits.h.
const EXIT_CORE_FAILED: i32 = 70;
