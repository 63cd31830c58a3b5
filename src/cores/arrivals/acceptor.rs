//! What a core accepts connections with: its listeners, the pace, the places for connections, the sockets that are
//! answered and turned away, and the way from and to other cores.
//!
//! In: what the poll reports, the time, sockets from other cores. Out: newcomers, for each of which a place is taken.
//!
//! Invariants
//! 1. A place is taken before a socket is accepted (`balance.rs`), and given back once: here, if the socket is not kept,
//!    by [`Acceptor::give_place_back`] when the connection ends.
//! 2. A network is counted (`admission.rs`) exactly while a connection of it says so (`is_counted`).
//!
//! Limits: `connections_max`, `connections_per_core_max`, `accepts_per_second_max`, `connections_per_address_max`,
//! `memory_bytes_max`, with `accept_excess`; [`ACCEPTS_PER_TURN_MAX`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Registry, Token};
use nix::errno::Errno;
use tracing::error;

use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::AcceptExcess;
use crate::config::tls::OnListen;
use crate::decision::Limit;
use crate::http::Refusal;
use crate::metrics::block::CoreMetrics;
use crate::transport::hand_over::{HandOver, Received};
use crate::transport::port::{HandedOver, Port, Ports};

use crate::cores::arrivals::admission::{Admission, Entry};
use crate::cores::arrivals::balance::{Loads, NoRoom};
use crate::cores::arrivals::listeners::Listeners;
use crate::cores::arrivals::pace::Pace;
use crate::cores::arrivals::rejected::Rejected;
use crate::cores::{CoreId, CoreSettings};

/// The accepting part of one core.
#[derive(Debug)]
pub(in crate::cores) struct Acceptor {
    core: CoreId,
    listeners: Listeners,
    accepting: Accepting,
    ports: Ports,
    excess: AcceptExcess,
    /// The limit that holds new connections back, since it was counted.
    full: Option<Limit>,
    pace: Pace,
    admission: Arc<Admission>,
    rejected: Rejected,
    hand_over: HandOver,
    hand_overs_waiting: bool,
    loads: Loads,
    /// Most connections of this core.
    connections_max: u32,
    metrics: Arc<CoreMetrics>,
}

/// Whether the listeners may have more to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// Not before the poll says so.
    Waiting,
    /// There may be more.
    Ready,
    /// There is no room; look again then.
    Paused(Uptime),
}

/// A socket for which there is a place on this core.
#[derive(Debug)]
pub(in crate::cores) struct Newcomer {
    pub(in crate::cores) stream: TcpStream,
    pub(in crate::cores) client: ClientAddress,
    pub(in crate::cores) port: Port,
}

/// What a hand-over brought.
#[derive(Debug)]
pub(in crate::cores) enum Arrived {
    Newcomer(Newcomer),
    /// A listener, or something that was lost.
    Other,
    /// There is no more for now.
    Nothing,
}

/// Why no connection may come now.
struct Full {
    limit: Limit,
    /// When to look again.
    until: Uptime,
}

impl Acceptor {
    /// Without listeners: these are handed over.
    pub(in crate::cores) fn new(
        core: CoreId,
        hand_over: HandOver,
        loads: Loads,
        connections_max: u32,
        settings: &CoreSettings,
        metrics: Arc<CoreMetrics>,
    ) -> Acceptor {
        Acceptor {
            core,
            listeners: Listeners::default(),
            accepting: Accepting::Waiting,
            ports: settings.ports.clone(),
            excess: settings.accept_excess,
            full: None,
            pace: Pace::new(settings.limits.accepts_per_second_max, settings.acceptors),
            admission: Arc::clone(&settings.admission),
            rejected: Rejected::default(),
            hand_over,
            hand_overs_waiting: false,
            loads,
            connections_max,
            metrics,
        }
    }

    /// Listens to a simulation instead.
    #[cfg(test)]
    pub(in crate::cores) fn listen_to(&mut self, listeners: Listeners) {
        self.listeners = listeners;
    }

    /// Most connections of this core.
    pub(in crate::cores) fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// The poll says that a listener has something to give.
    pub(in crate::cores) fn note_ready(&mut self, token: Token) {
        self.listeners.note_ready(token);
        if self.accepting == Accepting::Waiting {
            self.accepting = Accepting::Ready;
        }
    }

    /// The poll says that another core has handed something over.
    pub(in crate::cores) fn note_hand_overs(&mut self) {
        self.hand_overs_waiting = true;
    }

    /// Whether something may have been handed over.
    pub(in crate::cores) fn has_hand_overs(&self) -> bool {
        self.hand_overs_waiting
    }

    /// Whether the next turn has something to accept, whatever comes.
    pub(in crate::cores) fn has_work(&self) -> bool {
        self.hand_overs_waiting || self.accepting == Accepting::Ready
    }

    /// When it is to be looked at again, if nothing comes.
    pub(in crate::cores) fn next(&self) -> Uptime {
        let pause = match self.accepting {
            Accepting::Paused(until) => until,
            Accepting::Waiting | Accepting::Ready => Uptime::NEVER,
        };
        self.rejected.next().map_or(pause, |due| due.min(pause))
    }

    /// Whether listeners may be asked now: a pause may be over.
    pub(in crate::cores) fn is_ready(&mut self, now: Uptime) -> bool {
        if let Accepting::Paused(until) = self.accepting
            && until <= now
        {
            self.accepting = Accepting::Ready;
        }
        self.accepting == Accepting::Ready
    }

    /// Whether what the kernel had completed for the listeners has been accepted.
    pub(in crate::cores) fn has_accepted_all(&self) -> bool {
        self.accepting != Accepting::Ready
    }

    /// Has what the kernel has already completed for the listeners accepted, a batch in each turn, before they are closed
    /// for good.
    pub(in crate::cores) fn accept_the_last(&mut self) {
        self.listeners.ask_all();
        // Connections cannot wait any longer: a client that is not answered now is reset when the listener closes.
        self.pace = Pace::new(0, 1);
        self.excess = AcceptExcess::Refuse;
        self.accepting = Accepting::Ready;
    }

    /// Closes the listeners, and has no other core choose this one any more.
    pub(in crate::cores) fn close(&mut self) {
        self.listeners.close();
        self.loads.close();
    }

    /// Whether it is closed, no connection is left, and none is on its way from another core.
    pub(in crate::cores) fn is_closed_and_empty(&self) -> bool {
        self.loads.is_closed_and_empty()
    }

    /// Asks a listener for a socket. `None` if there is none, or no room, or the socket was handed over or turned away.
    pub(in crate::cores) fn accept_one(&mut self, now: Uptime) -> Option<Newcomer> {
        if !self.listeners.has_ready() {
            self.accepting = Accepting::Waiting;
            if self.excess == AcceptExcess::Wait {
                // No connection waits any more.
                self.full = None;
            }
            return None;
        }
        let place = self.find_place(now);
        if let Err(Full { limit, until }) = place
            && self.excess == AcceptExcess::Wait
        {
            self.count_full(limit);
            self.accepting = Accepting::Paused(until);
            return None;
        }
        let (port, accepted) = self.listeners.next_ready()?.accept();
        match (accepted, place) {
            (Ok((stream, peer)), Ok(core)) => {
                self.metrics.accepts.add(1);
                self.let_in(stream, peer, port, core, now)
            }
            (Ok((stream, _)), Err(Full { limit, .. })) => {
                self.metrics.accepts.add(1);
                self.count_full(limit);
                self.turn_away(stream, port, &Refusal::Busy, now);
                None
            }
            (Err(error), place) => {
                if let Ok(core) = place {
                    self.loads.give_back(core);
                    self.pace.take_back();
                }
                self.accept_failed(&error, now);
                None
            }
        }
    }

    /// A place for one more connection, on the core whose number it is.
    fn find_place(&mut self, now: Uptime) -> Result<usize, Full> {
        let core = self.loads.assign(self.connections_max).map_err(|room| Full {
            limit: match room {
                NoRoom::Server => Limit::Connections,
                NoRoom::Core => Limit::ConnectionsPerCore,
            },
            until: now + ACCEPT_PAUSE,
        })?;
        self.pace.pass(now).map_err(|until| {
            self.loads.give_back(core);
            Full {
                limit: Limit::AcceptRate,
                until,
            }
        })?;
        Ok(core)
    }

    /// Takes a socket in for which there is a place: keeps it, or hands it to the lightest core.
    fn let_in(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        port: Port,
        core: usize,
        now: Uptime,
    ) -> Option<Newcomer> {
        if self.admission.memory_is_full() {
            self.loads.give_back(core);
            self.count_full(Limit::Memory);
            self.turn_away(stream, port, &Refusal::Busy, now);
            return None;
        }
        if self.excess == AcceptExcess::Refuse || self.full == Some(Limit::Memory) {
            self.full = None;
        }
        if core != self.core.index() {
            let what = HandedOver::Connection(port);
            if self.hand_over.send(core, &stream, what.byte()).is_ok() {
                self.metrics.hand_overs_sent.add(1);
                return None;
            }
            if !self.loads.keep(core, self.connections_max) {
                self.count_full(Limit::ConnectionsPerCore);
                self.turn_away(stream, port, &Refusal::Busy, now);
                return None;
            }
        }
        Some(Newcomer {
            stream,
            client: peer.into(),
            port,
        })
    }

    /// Counts a limit that begins to hold new connections back.
    fn count_full(&mut self, limit: Limit) {
        if self.full != Some(limit) {
            self.full = Some(limit);
            self.metrics.limit_hit(limit);
        }
    }

    fn accept_failed(&mut self, error: &io::Error, now: Uptime) {
        match error.raw_os_error().map(Errno::from_raw) {
            // The other listener may have more.
            Some(Errno::EAGAIN) => {}
            // The client has gone before it was accepted: the next one is asked for (accept(2), "Error handling").
            Some(
                Errno::ECONNABORTED
                | Errno::EINTR
                | Errno::EPROTO
                | Errno::ENETDOWN
                | Errno::ENOPROTOOPT
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::ETIMEDOUT,
            ) => {}
            // No room (EMFILE, ENFILE, ENOBUFS, ENOMEM), or something else that the next attempt would meet again.
            _ => {
                self.metrics.limit_hit(Limit::Descriptors);
                self.accepting = Accepting::Paused(now + ACCEPT_PAUSE);
            }
        }
    }

    /// Answers a socket for which there is no room; where TLS is spoken no client could read the answer.
    fn turn_away(&mut self, stream: TcpStream, port: Port, refusal: &Refusal, now: Uptime) {
        self.metrics.connections_refused.add(1);
        if self.ports.speak(port) == OnListen::Only {
            return;
        }
        self.metrics.http_answers.add(1);
        self.rejected.add(stream, refusal, now);
    }

    /// Closes the sockets that have been turned away long enough ago.
    pub(in crate::cores) fn close_rejected(&mut self, now: Uptime, buffer: &mut [u8]) {
        self.rejected.close_due(now, buffer);
    }

    /// Takes what another core has sent, or the server: a socket, or a listener.
    pub(in crate::cores) fn receive_hand_over(&mut self, registry: &Registry) -> Arrived {
        match self.hand_over.receive() {
            Ok(Received { socket, about }) => match (HandedOver::of_byte(about), socket) {
                (HandedOver::Connection(port), Some(socket)) => {
                    return Arrived::Newcomer(self.take_connection(socket, port));
                }
                (HandedOver::Listener(port), Some(socket)) => self.take_listener(socket, port, registry),
                (handed_over, None) => self.lose_hand_over(handed_over),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.hand_overs_waiting = false;
                return Arrived::Nothing;
            }
            // The system lacks memory for a moment, and the message stays where it is: look again in the next turn.
            Err(_) => return Arrived::Nothing,
        }
        Arrived::Other
    }

    /// A socket came, but this core's descriptor table was full, and the system has closed it.
    fn lose_hand_over(&self, handed_over: HandedOver) {
        self.metrics.limit_hit(Limit::Descriptors);
        match handed_over {
            // Its place was taken when it was sent.
            HandedOver::Connection(_) => self.loads.end(),
            HandedOver::Listener(port) => error!(
                core = self.core.index(),
                "no descriptor is free for the listener of {}: other cores accept for this one; raise LimitNOFILE",
                port.setting()
            ),
        }
    }

    fn take_connection(&self, socket: OwnedFd, port: Port) -> Newcomer {
        self.metrics.hand_overs_received.add(1);
        let stream = TcpStream::from_std(socket.into());
        // A client that has gone already has no address any more.
        let client = stream
            .peer_addr()
            .map_or(ClientAddress::UNKNOWN, ClientAddress::from);
        Newcomer { stream, client, port }
    }

    fn take_listener(&mut self, socket: OwnedFd, port: Port, registry: &Registry) {
        if let Err(cause) = self
            .listeners
            .add(TcpListener::from_std(socket.into()), port, registry)
        {
            // Memory, or watches of this user: the others go on.
            error!(core = self.core.index(), "a listener cannot be watched: {cause}");
        }
    }

    /// Counts a connection for its address.
    pub(in crate::cores) fn enter(&self, client: &ClientAddress) -> Entry {
        self.admission.enter(client)
    }

    /// Counts the end of one that was counted, or that it was another's.
    pub(in crate::cores) fn leave(&self, client: &ClientAddress) {
        self.admission.leave(client);
    }

    /// Turns a newcomer away whose address has as many connections as it may.
    pub(in crate::cores) fn refuse(&mut self, newcomer: Newcomer, now: Uptime) {
        self.loads.end();
        self.metrics.limit_hit(Limit::ConnectionsPerAddress);
        self.turn_away(newcomer.stream, newcomer.port, &Refusal::TooManyConnections, now);
    }

    /// The place of a connection of this core is free again.
    pub(in crate::cores) fn give_place_back(&self) {
        self.loads.end();
    }

    /// Whether newcomers are refused for want of memory.
    pub(in crate::cores) fn memory_is_full(&self) -> bool {
        self.admission.memory_is_full()
    }

    /// What is spoken on a port.
    pub(in crate::cores) fn speak(&self, port: Port) -> OnListen {
        self.ports.speak(port)
    }

    /// Lets go of everything but what has to be dropped elsewhere.
    pub(in crate::cores) fn end(self) -> HandOver {
        self.hand_over
    }
}

/// New sockets of one turn, so that a storm of them does not delay the connected.
pub(in crate::cores) const ACCEPTS_PER_TURN_MAX: usize = 64;
/// How long a core without room waits before it looks again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
