//! The hot room: event loops, one pinned thread for each core.
//!
//! A core owns a poll, a listener, its connections, their deadlines, the application's value for this core and one
//! handle of the broker ring. It shares the ring, the channel directory, the loads and its counters with the other
//! cores, and nothing else; nothing on it waits for a lock.
//!
//! ```text
//!  turn.rs        the steps of one turn; busy_poll.rs looks for work before a sleep
//!  arrivals/      accepted sockets, up to the WebSocket upgrade
//!  input/         bytes → decisions → carried out
//!  delivery/      the ring → outboxes of subscribers
//!  outgoing/      the connections and what waits to be sent to each
//!  lifecycle/     the phases, deadlines, rates and end of one connection
//!  operators/     orders and questions from other threads, and reports to operators
//!  simulation/    the whole server on one thread, with a clock of its own (tests only)
//! ```

pub(crate) mod arrivals;
mod busy_poll;
mod delivery;
pub(crate) mod fd_table;
mod input;
pub(crate) mod lifecycle;
pub(crate) mod operators;
mod outgoing;
mod parts;
#[cfg(test)]
mod simulation;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Waker};
use nix::sys::resource::{Resource, getrlimit};
use tracing::warn;

use crate::app::{App, Upgrade};
use crate::audit::{Audit, Trail};
use crate::auth::Claims;
use crate::broker::{CoreBroker, Sequence};
use crate::client::ClientAddress;
use crate::clock::{Clock, Now, Uptime};
use crate::config::limits::Limits;
use crate::config::{AcceptExcess, SlowConsumer};
use crate::decision::{Decisions, Limit};
use crate::http::login_pages::LoginPages;
use crate::http::site::Site;
use crate::http::{Refusal, Request, Status};
use crate::machine::descriptors;
use crate::metrics::block::CoreMetrics;
use crate::policy::Policy;
use crate::protocols::{Environment, Scratch, Session, Settings};
use crate::session::{self, SessionIds};
use crate::transport::hand_over::HandOver;
use crate::transport::tls::ROOM_BYTES_MIN;
use crate::websocket::deflate::Inflater;
use crate::websocket::message;

use arrivals::accept::{Accepting, HAND_OVERS, Listeners};
pub(crate) use arrivals::accept::{HandedOver, Port, Ports};
use arrivals::admission::Admission;
use arrivals::balance::Loads;
use arrivals::pace::Pace;
use arrivals::rejected::Rejected;
use delivery::abandoned_publications::AbandonedPublications;
use delivery::fan_out::Progress;
use lifecycle::connection::ConnectionId;
use lifecycle::ending::Draining;
use lifecycle::meter::Measures;
use lifecycle::wheel::Wheel;
use operators::mailbox::{CoreStatus, Mailbox};
use operators::report::{Ends, Survey};
use operators::revoking::Revoking;
use outgoing::connections::{Bounds, Connections};
use outgoing::forms::Forms;
use turn::ReadUntil;

/// Which core of this process; they are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreId(usize);

impl CoreId {
    pub(crate) const fn new(index: usize) -> CoreId {
        CoreId(index)
    }

    /// The number, from 0.
    pub const fn index(self) -> usize {
        self.0
    }
}

/// What all cores are told alike.
#[derive(Clone, Debug)]
pub(crate) struct CoreSettings {
    pub(crate) ports: Ports,
    /// How many cores have listeners.
    pub(crate) acceptors: u64,
    pub(crate) site: Arc<Site>,
    pub(crate) login_path: String,
    pub(crate) login_cookie: String,
    pub(crate) limits: Limits,
    /// Most bytes that the connections of one core may hold.
    pub(crate) held_bytes_max: usize,
    pub(crate) slow_consumer: SlowConsumer,
    pub(crate) accept_excess: AcceptExcess,
    pub(crate) compression: bool,
    pub(crate) compression_bytes_min: u32,
    pub(crate) fan_out_slice: Duration,
    pub(crate) busy_poll: Duration,
    pub(crate) admission: Arc<Admission>,
    pub(crate) audit: Arc<Audit>,
    /// Whether each has a table of its own, and what of the program's descriptors stays open there.
    pub(crate) own_fd_table: Option<Arc<[RawFd]>>,
    pub(crate) session: Settings,
    pub(crate) policy: Arc<Policy>,
    pub(crate) clock: Clock,
}

/// What one core is made of before its thread begins: all that other threads must know, too.
#[derive(Debug)]
pub(crate) struct CoreParts<A> {
    pub(crate) id: CoreId,
    /// The CPU to run on; `None` leaves the choice to the system.
    pub(crate) cpu: Option<core_affinity::CoreId>,
    /// Whether another core runs there as well.
    pub(crate) shares_cpu: bool,
    pub(crate) poll: Poll,
    pub(crate) wakers: Arc<[Arc<Waker>]>,
    pub(crate) hand_over: HandOver,
    pub(crate) loads: Loads,
    pub(crate) broker: CoreBroker,
    pub(crate) mailbox: Mailbox,
    pub(crate) app: A,
}

/// What a core found when it started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) pinned: bool,
    pub(crate) own_fd_table: bool,
    pub(crate) connections_max: u32,
}

/// One event loop.
#[derive(Debug)]
pub(crate) struct Core<A: App> {
    id: CoreId,
    /// Whether another core runs on the same CPU.
    shares_cpu: bool,
    clock: Clock,
    now: Now,
    turn_began_ns: u64,
    /// When the publications that are carried out now were published: the clock is read for the first of them.
    publish_ns: Option<u64>,
    /// How long a turn at least sends what is not prompt. A ping that comes meanwhile waits as long.
    fan_out_slice_ns: u64,
    /// How long to look for work before each sleep.
    busy_poll_ns: u64,
    poll: Poll,
    listeners: Listeners,
    accepting: Accepting,
    ports: Ports,
    accept_excess: AcceptExcess,
    /// The limit that holds new connections back, since it was counted.
    full: Option<Limit>,
    pace: Pace,
    admission: Arc<Admission>,
    audit: Trail,
    rejected: Rejected,
    hand_over: HandOver,
    hand_overs_waiting: bool,
    late_answers_waiting: bool,
    questions_waiting: bool,
    /// What is being looked for to answer one.
    survey: Option<Survey>,
    /// The last connections that have ended.
    ends: Ends,
    loads: Loads,
    connections_max: u32,
    connections: Connections,
    /// How many of them have not ended.
    alive: u64,
    sessions_open: u64,
    wheel: Wheel,
    /// Since when it has turned without standing still.
    responsive_since: Uptime,
    /// When the metrics are told next what memory is used for.
    memory_due: Uptime,
    /// Tokens checked in this turn, but for those of connections that are coming or going.
    token_checks: u32,
    /// How long connections that are coming or going have been read in this turn.
    transition_ns: u64,
    /// Connections to read without waiting for an event.
    unfinished: VecDeque<ConnectionId>,
    /// Those that are to be read as well, but are coming or going and have to wait for their turn.
    transitional: VecDeque<(ConnectionId, ReadUntil)>,
    /// Connections whose publication found the ring full.
    stalled: VecDeque<ConnectionId>,
    /// Connections whose channels are being gone through.
    walking: VecDeque<ConnectionId>,
    abandoned: AbandonedPublications,
    /// Revocations whose connections are being looked for.
    revoking: VecDeque<Revoking>,
    draining: Option<Draining>,
    stopping: bool,
    /// How many connections this turn may still close for what all of them hold.
    shed_left: u32,
    /// When it may next be said that there are such.
    shed_told_again: Uptime,
    broker: CoreBroker,
    wakers: Arc<[Arc<Waker>]>,
    /// Connections whose next decision comes after the delivery of all before a place, in the order of those places.
    held: VecDeque<(Sequence, ConnectionId)>,
    progress: Progress,
    read_buffer: Box<[u8]>,
    /// What was read and is being decrypted; nothing without TLS.
    records: Vec<u8>,
    /// Messages, packets of arrays and control frames that the connection that is read now may still have handled in
    /// this turn.
    share_left: u64,
    decisions: Decisions,
    frame_head: Vec<u8>,
    /// Whether offers of compression are accepted.
    compression: bool,
    inflater: Inflater,
    limits: Limits,
    measures: Measures,
    message_limits: message::Limits,
    site: Arc<Site>,
    counter: input::login::Counter,
    lent: Lent<A>,
    rules: operators::rules::Watch,
    mailbox: Mailbox,
    metrics: Arc<CoreMetrics>,
}

/// What a core lends its sessions.
#[derive(Debug)]
struct Lent<A> {
    settings: Settings,
    /// Replaced by a reload.
    policy: Arc<Policy>,
    app: A,
    scratch: Scratch,
    ids: SessionIds,
}

/// What a core holds descriptors of that were opened before the tables were split. Whoever joins its thread drops it,
/// so that the copies in the process's own table are closed as well.
#[derive(Debug)]
pub(crate) struct InheritedDescriptors {
    _poll: Poll,
    _hand_over: HandOver,
}

/// Runs a core on the calling thread until it is told to stop. `started` learns whether it could begin; `None` if it
/// could not.
pub(crate) fn run<A: App>(
    parts: CoreParts<A>,
    settings: CoreSettings,
    started: impl FnOnce(io::Result<Started>),
) -> io::Result<Option<InheritedDescriptors>> {
    let pinned = parts.cpu.is_some_and(core_affinity::set_for_current);
    let own_fd_table = match &settings.own_fd_table {
        Some(kept) if fd_table::unshare_descriptors().is_ok() => {
            close_others(&parts, kept);
            true
        }
        Some(_) | None => false,
    };
    match Core::new(parts, settings, own_fd_table) {
        Ok(core) => {
            core.mailbox.set_status(CoreStatus::Serving);
            started(Ok(Started {
                pinned,
                own_fd_table,
                connections_max: core.connections_max,
            }));
            core.run().map(Some)
        }
        Err(error) => {
            started(Err(error));
            Ok(None)
        }
    }
}

/// Closes what a core does not need of its copy of the process's descriptors.
fn close_others<A>(parts: &CoreParts<A>, kept: &[RawFd]) {
    let own = std::iter::once(parts.poll.as_raw_fd()).chain(parts.hand_over.descriptors());
    let needed: Vec<RawFd> = own.chain(kept.iter().copied()).collect();
    if let Err(error) = fd_table::close_all_but(&needed) {
        warn!(
            core = parts.id.index(),
            "/proc/thread-self/fd cannot be read ({error}): files and sockets that the program has open now stay open \
             until this core ends, whether the program closes them or not"
        );
    }
}

impl<A: App> Core<A> {
    fn new(parts: CoreParts<A>, settings: CoreSettings, own_fd_table: bool) -> io::Result<Core<A>> {
        let limits = settings.limits;
        let inbox = parts.hand_over.as_fd().as_raw_fd();
        parts
            .poll
            .registry()
            .register(&mut SourceFd(&inbox), HAND_OVERS, Interest::READABLE)?;
        let metrics = parts.mailbox.metrics();
        let now = settings.clock.now();
        let cores = u64::try_from(parts.wakers.len()).unwrap_or(u64::MAX);
        Ok(Core {
            id: parts.id,
            shares_cpu: parts.shares_cpu,
            clock: settings.clock,
            now,
            turn_began_ns: 0,
            publish_ns: None,
            busy_poll_ns: settings.busy_poll.as_nanos().try_into().unwrap_or(u64::MAX),
            fan_out_slice_ns: settings.fan_out_slice.as_nanos().try_into().unwrap_or(u64::MAX),
            poll: parts.poll,
            listeners: Listeners::default(),
            accepting: Accepting::Waiting,
            ports: settings.ports,
            accept_excess: settings.accept_excess,
            full: None,
            pace: Pace::new(limits.accepts_per_second_max, settings.acceptors),
            admission: settings.admission,
            audit: Trail::new(settings.audit),
            rejected: Rejected::default(),
            hand_over: parts.hand_over,
            hand_overs_waiting: false,
            late_answers_waiting: false,
            questions_waiting: false,
            survey: None,
            ends: Ends::new(),
            loads: parts.loads,
            connections_max: connections_max(limits.connections_per_core_max, own_fd_table, cores)?,
            connections: Connections::new(
                &Bounds {
                    outbox_bytes_max: limits.outbox_bytes_max,
                    held_bytes_max: settings.held_bytes_max,
                    write_timeout: limits.write_timeout,
                },
                settings.slow_consumer,
                settings
                    .compression
                    .then(|| Forms::new(settings.compression_bytes_min)),
                Arc::clone(&metrics),
            ),
            alive: 0,
            sessions_open: 0,
            wheel: Wheel::new(now.uptime),
            responsive_since: now.uptime,
            memory_due: now.uptime,
            token_checks: 0,
            transition_ns: 0,
            unfinished: VecDeque::new(),
            transitional: VecDeque::new(),
            stalled: VecDeque::new(),
            walking: VecDeque::new(),
            abandoned: AbandonedPublications::new(limits.abandoned_bytes_max),
            revoking: VecDeque::new(),
            draining: None,
            stopping: false,
            shed_left: 0,
            shed_told_again: now.uptime,
            broker: parts.broker,
            wakers: parts.wakers,
            held: VecDeque::new(),
            progress: Progress::default(),
            read_buffer: vec![0; READ_BUFFER_BYTES].into(),
            records: Vec::new(),
            share_left: 0,
            decisions: Decisions::new(),
            frame_head: Vec::new(),
            compression: settings.compression,
            inflater: Inflater::default(),
            message_limits: message::Limits {
                message_bytes_max: limits.message_bytes_max as usize,
                frame_bytes_max: match limits.frame_bytes_max {
                    0 => limits.message_bytes_max,
                    bytes => bytes.min(limits.message_bytes_max),
                } as usize,
                fragments_max: limits.fragments_max,
            },
            measures: Measures::new(&limits),
            limits,
            site: settings.site,
            counter: input::login::Counter {
                account: LoginPages::new(
                    &settings.login_path,
                    settings.session.common.logins.fields.clone(),
                    settings.session.common.logins.body_bytes_max,
                ),
                cookie: settings.login_cookie,
                expiry: settings.session.common.auth_default_expiry,
            },
            lent: Lent {
                settings: settings.session,
                policy: settings.policy,
                app: parts.app,
                scratch: Scratch::with_post(parts.mailbox.post()),
                ids: SessionIds::new()?,
            },
            rules: operators::rules::Watch::default(),
            mailbox: parts.mailbox,
            metrics,
        })
    }
}

impl<A: App> Lent<A> {
    fn environment(&mut self, now: Now, id: ConnectionId) -> Environment<'_, A> {
        Environment {
            common: session::Environment {
                now,
                address: id.token().0,
                settings: &self.settings.common,
                policy: &self.policy,
                app: &mut self.app,
                scratch: &mut self.scratch.common,
                packets_max: input::receive::frames_per_turn_max(),
            },
            settings: &self.settings,
            socketcluster: &mut self.scratch.socketcluster,
        }
    }

    fn new_session(&mut self, now: Now, claims: Option<Box<Claims>>) -> Session {
        Session::begin(&mut self.ids, &self.settings, now, claims)
    }

    /// Asks the application about an upgrade.
    fn allow_upgrade(&mut self, request: &Request<'_>, client: ClientAddress) -> Result<(), Refusal> {
        let mut few = [("", &[][..]); HEADERS_ON_STACK];
        let mut many: Vec<_>;
        let count = request.header_count();
        let headers = if count <= few.len() {
            for (place, header) in few.iter_mut().zip(request.headers()) {
                *place = header;
            }
            &mut few[..count]
        } else {
            many = request.headers().collect();
            &mut many
        };
        // A target in absolute form names the host in the place of the header (RFC 9112 section 3.2.2).
        for (name, value) in headers.iter_mut() {
            if name.eq_ignore_ascii_case("host")
                && let Some(host) = request.host()
            {
                *value = host;
            }
        }
        let upgrade = Upgrade {
            path: request.path(),
            query: request.query().unwrap_or(""),
            headers,
            peer: client.socket_address(),
        };
        self.app
            .upgrade(&upgrade)
            .map_err(|refused| Refusal::Application {
                status: Status::UNAUTHORIZED,
                body: refused.message,
            })
    }
}

/// How many connections a core takes: as many as its descriptor table holds, or fewer if so configured. Never more: a
/// core without a descriptor to spare loses the sockets that others hand to it.
fn connections_max(configured: u32, own_fd_table: bool, cores: u64) -> io::Result<u32> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let room = descriptors::connections_per_core(soft, own_fd_table, cores);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    Ok(match configured {
        0 => room,
        fewer => fewer.min(room),
    })
}

/// What browsers send, with room to spare: an application is shown so many headers without an allocation.
const HEADERS_ON_STACK: usize = 24;
/// One shared read buffer per core. A read that fills it is followed by another.
const READ_BUFFER_BYTES: usize = 64 * 1024;
const _: () = assert!(READ_BUFFER_BYTES >= ROOM_BYTES_MIN);
