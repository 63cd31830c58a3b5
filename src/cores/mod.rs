//! The event loops of the server, one pinned thread for each core. Code here is on the hot path.
//!
//! A core owns a poll, a listener, its connections, their deadlines, the application's value for this core and one
//! handle of the broker ring. On the way of a message it shares with the other cores the ring, the channel directory, the
//! boxes of letters, and counters. When it accepts a connection, it shares the loads of the cores, and the counts of
//! connections for each address, which are behind locks (`arrivals/admission.rs`) that are held for one look into a
//! table. It waits for nothing else.
//!
//! ```text
//!  turn.rs        the steps of one turn; busy_poll.rs looks for work before a sleep, visits.rs at deadlines, tick.rs
//!                 lets the application do work of its own, letters.rs takes the letters of other cores
//!  operators/     orders and questions from other threads, and reports to operators
//!  input/         bytes → decisions → carried out; services/ (calls that clients answer) and presence/ (members of
//!                 channels) belong to it
//!  arrivals/      accepted sockets, up to the WebSocket upgrade
//!  recovery/      the channel's past for new subscribers; owned_channels.rs answers as the owner of channels
//!  core.rs        the core itself: the parts that it is made of; parts.rs makes those that other threads use too,
//!                 fd_table.rs the descriptor table of a core, turn_time.rs and tick_timer.rs its times
//!  delivery/      the ring → outboxes of subscribers
//!  connections/   the table of connections and the lists of those with something to send
//!  lifecycle/     the phases, deadlines, rates and end of one connection
//!  post/          the letters that cores send each other
//!  outgoing/      the bytes that wait to be sent to one connection
//!  simulation/    the whole server on one thread, with a clock of its own (tests only)
//! ```

pub(crate) mod arrivals;
mod busy_poll;
mod connections;
mod core;
mod delivery;
pub(crate) mod fd_table;
mod input;
mod letters;
pub(crate) mod lifecycle;
pub(crate) mod operators;
mod outgoing;
mod owned_channels;
mod parts;
pub(crate) mod post;
mod presence;
mod recovery;
mod services;
#[cfg(test)]
mod simulation;
mod tick;
mod tick_timer;
mod turn;
mod turn_time;
mod visits;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::{Poll, Waker};
use tracing::warn;

use crate::app::App;
use crate::audit::Audit;
use crate::broker::{CoreBroker, PostEnd};
use crate::clock::Clock;
use crate::config::limits::Limits;
use crate::config::{AcceptExcess, SlowConsumer};
use crate::history::Histories;
use crate::http::site::Site;
use crate::mqtt::sessions::{StoredPublications, StoredSession};
use crate::policy::Policy;
use crate::protocols::{MqttBounds, ProtocolSettings};
use crate::retained;
use crate::store::Sink;
use crate::transport::hand_over::HandOver;
use crate::transport::port::Ports;
use crate::wills::RestoredWill;

use self::arrivals::admission::Admission;
use self::arrivals::balance::Loads;
pub(crate) use self::connections::batches::Pace as BatchPace;
use self::core::Core;
use self::operators::mailbox::{CoreStatus, Mailbox};
use self::post::letter::Letter;

/// The number of a core of this process, from 0.
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

/// The settings that all cores share.
#[derive(Clone, Debug)]
pub(crate) struct CoreSettings {
    pub(crate) ports: Ports,
    /// How many cores have listeners.
    pub(crate) acceptors: u64,
    pub(crate) site: Arc<Site>,
    pub(crate) login_path: String,
    pub(crate) login_cookie: String,
    pub(crate) mqtt_path: String,
    /// The bounds of the MQTT sessions of one core.
    pub(crate) mqtt_bounds: MqttBounds,
    /// How much one core retains.
    pub(crate) retained: retained::Bounds,
    /// Most retained publications for one subscription.
    pub(crate) retained_per_subscribe_max: u32,
    pub(crate) limits: Limits,
    /// Most bytes that the connections of one core may hold.
    pub(crate) held_bytes_max: usize,
    pub(crate) slow_consumer: SlowConsumer,
    pub(crate) accept_excess: AcceptExcess,
    pub(crate) compression: bool,
    pub(crate) compression_bytes_min: u32,
    pub(crate) fan_out_slice: Duration,
    pub(crate) busy_poll: Duration,
    /// How long connections collect their messages after the handshake, if they do.
    pub(crate) batches: Option<BatchPace>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) audit: Arc<Audit>,
    /// The descriptors of the program that stay open in a core's own table; `None` if cores use the table of the
    /// process.
    pub(crate) own_fd_table: Option<Arc<[RawFd]>>,
    pub(crate) session: ProtocolSettings,
    pub(crate) policy: Arc<Policy>,
    pub(crate) clock: Clock,
}

/// The parts of one core that exist before its thread begins, because other threads use them, too.
#[derive(Debug)]
pub(crate) struct CoreParts<A> {
    pub(crate) id: CoreId,
    /// The CPU on which the core runs; `None` leaves the choice to the system.
    pub(crate) cpu: Option<core_affinity::CoreId>,
    /// Whether another core runs on the same CPU.
    pub(crate) shares_cpu: bool,
    pub(crate) poll: Poll,
    pub(crate) wakers: Arc<[Arc<Waker>]>,
    pub(crate) hand_over: HandOver,
    pub(crate) loads: Loads,
    pub(crate) broker: CoreBroker,
    pub(crate) post: PostEnd<Letter>,
    pub(crate) mailbox: Mailbox,
    /// The core's part of the store, if there is one.
    pub(crate) stored: Option<Stored>,
    pub(crate) app: A,
}

/// A core's part of a store.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its end of the store.
    pub(crate) sink: Sink,
    /// The channels that it owns.
    pub(crate) histories: Histories,
    /// The wills whose sessions it owns.
    pub(crate) wills: Vec<RestoredWill>,
    /// The retained publications of the topics that it owns; none unless the server speaks MQTT.
    pub(crate) retained: Vec<retained::Entry>,
    /// The MQTT sessions whose client ids it owns; none unless the server speaks MQTT.
    pub(crate) mqtt: StoredSessions,
}

/// A core's part of the MQTT sessions of a store.
#[derive(Debug)]
pub(crate) struct StoredSessions {
    pub(crate) sessions: Vec<StoredSession>,
    /// The publications of all cores.
    pub(crate) publications: Arc<StoredPublications>,
    /// Whether the former process may have done more than the store contains.
    pub(crate) may_miss_some: bool,
}

/// The facts about a core that are known once it has started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) pinned: bool,
    pub(crate) own_fd_table: bool,
    pub(crate) connections_max: u32,
}

/// The owners of descriptors that were opened before a core got a descriptor table of its own. The thread that joins
/// the core's thread drops them, so that the copies in the table of the process are closed as well.
#[derive(Debug)]
pub(crate) struct InheritedDescriptors {
    _poll: Poll,
    _hand_over: HandOver,
}

thread_local! {
    /// Whether this is the thread of a core.
    static IS_CORE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is that of a core, which must never wait.
pub(crate) fn is_core_thread() -> bool {
    IS_CORE_THREAD.get()
}

/// Runs a core on the calling thread until it stops. Calls `started` with the facts about the core, or with the error
/// if it could not start; then `run` returns `None`.
pub(crate) fn run<A: App>(
    parts: CoreParts<A>,
    settings: CoreSettings,
    started: impl FnOnce(io::Result<Started>),
) -> io::Result<Option<InheritedDescriptors>> {
    IS_CORE_THREAD.set(true);
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
                connections_max: core.acceptor.connections_max(),
            }));
            core.run().map(Some)
        }
        Err(error) => {
            started(Err(error));
            Ok(None)
        }
    }
}

/// Closes the descriptors that a core does not need in its copy of the process's table.
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
