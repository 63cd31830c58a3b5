//! The acceptor of a core: it accepts sockets from the core's listeners, keeps the accept rate and the limits
//! on connections, hands sockets to less loaded cores, and refuses sockets for which there is no room.
//!
//! In: events of listeners, the time, sockets from other cores. Out: newcomers, for each of which a place is taken.
//!
//! Invariants
//! 1. A place is taken before a socket is accepted (`balance.rs`), and given back once: here if the socket is not kept,
//!    or by [`Acceptor::give_place_back`] when its connection ends.
//! 2. A connection counts for its network (`admission.rs`) exactly while its `is_counted` is set.
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

use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::tls::OnListen;
use crate::config::{AcceptExcess, Codec};
use crate::decision::Limit;
use crate::http::Refusal;
use crate::metrics::block::CoreMetrics;
use crate::transport::hand_over::{HandOver, Received};
use crate::transport::port::{HandedOver, MqttOn, Port, Ports, Ticket};

use crate::cores::arrivals::admission::{Admission, Entry};
use crate::cores::arrivals::balance::{Loads, NoRoom};
use crate::cores::arrivals::listeners::Listeners;
use crate::cores::arrivals::pace::Pace;
use crate::cores::arrivals::rejected::Rejected;
use crate::cores::{CoreId, CoreSettings};

/// The acceptor of one core.
#[derive(Debug)]
pub(in crate::cores) struct Acceptor {
    core: CoreId,
    listeners: Listeners,
    accepting: Accepting,
    ports: Ports,
    excess: AcceptExcess,
    /// The limit that keeps new connections out, from the moment at which it was counted until there is room
    /// again.
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

/// Whether the listeners may have sockets to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// They have none until the poll reports one.
    Waiting,
    /// They may have some.
    Ready,
    /// There is no room for a connection. The acceptor tries again at this time.
    Paused(Uptime),
}

/// A socket for which there is a place on this core.
#[derive(Debug)]
pub(in crate::cores) struct AcceptedSocket {
    pub(in crate::cores) stream: TcpStream,
    pub(in crate::cores) client: ClientAddress,
    pub(in crate::cores) port: Port,
}

/// The result of receiving a hand-over.
#[derive(Debug)]
pub(in crate::cores) enum Arrived {
    AcceptedSocket(AcceptedSocket),
    /// A socket that was lost.
    Lost,
    /// The socket of a connection that moves to this core; `None` if it was lost.
    Moved(Ticket, Option<OwnedFd>),
    /// A listener, whose connections this core accepts from now on.
    Listener,
    /// A listener that this core cannot use, and why.
    LostListener(String),
    /// No hand-over waits now.
    Nothing,
}

/// The limit that allows no further connection now.
struct Full {
    limit: Limit,
    /// When the acceptor tries again.
    until: Uptime,
}

impl Acceptor {
    /// An acceptor without listeners: the server hands them over later.
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

    /// Accepts connections of a simulation instead.
    #[cfg(test)]
    pub(in crate::cores) fn listen_to(&mut self, listeners: Listeners) {
        self.listeners = listeners;
    }

    /// Most connections of this core.
    pub(in crate::cores) fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// Notes that the poll has reported sockets at a listener.
    pub(in crate::cores) fn note_ready(&mut self, token: Token) {
        self.listeners.note_ready(token);
        if self.accepting == Accepting::Waiting {
            self.accepting = Accepting::Ready;
        }
    }

    /// Notes that the poll has reported hand-overs from other cores.
    pub(in crate::cores) fn note_hand_overs(&mut self) {
        self.hand_overs_waiting = true;
    }

    /// Whether hand-overs may be waiting.
    pub(in crate::cores) fn has_hand_overs(&self) -> bool {
        self.hand_overs_waiting
    }

    /// Whether the next turn has something to accept even if no event comes.
    pub(in crate::cores) fn has_work(&self) -> bool {
        self.hand_overs_waiting || self.accepting == Accepting::Ready
    }

    /// When the acceptor next has something to do if no event comes.
    pub(in crate::cores) fn next(&self) -> Uptime {
        let pause = match self.accepting {
            Accepting::Paused(until) => until,
            Accepting::Waiting | Accepting::Ready => Uptime::NEVER,
        };
        self.rejected.next().map_or(pause, |due| due.min(pause))
    }

    /// Whether sockets may be accepted now. Ends a pause whose time is over.
    pub(in crate::cores) fn is_ready(&mut self, now: Uptime) -> bool {
        if let Accepting::Paused(until) = self.accepting
            && until <= now
        {
            self.accepting = Accepting::Ready;
        }
        self.accepting == Accepting::Ready
    }

    /// Whether all connections that the kernel had completed for the listeners have been accepted.
    pub(in crate::cores) fn has_accepted_all(&self) -> bool {
        self.accepting != Accepting::Ready
    }

    /// Begins to accept the connections that the kernel has already completed for the listeners, a batch in each turn.
    /// After that the core closes the listeners.
    pub(in crate::cores) fn accept_backlog(&mut self) {
        self.listeners.mark_all_ready();
        // Clients cannot wait any longer: a connection that is not accepted now is reset when the listener
        // closes.
        self.pace = Pace::new(0, 1);
        self.excess = AcceptExcess::Refuse;
        self.accepting = Accepting::Ready;
    }

    /// Closes the listeners. From now on no core chooses this one for a connection.
    pub(in crate::cores) fn close(&mut self) {
        self.listeners.close();
        self.loads.close();
    }

    /// Whether this core is closed, has no connection left, and none is on its way from another core.
    pub(in crate::cores) fn is_closed_and_empty(&self) -> bool {
        self.loads.is_closed_and_empty()
    }

    /// Accepts a socket. `None` if there is no socket or no room, or if the socket was handed over or refused.
    pub(in crate::cores) fn accept_one(&mut self, now: Uptime) -> Option<AcceptedSocket> {
        if !self.listeners.has_ready() {
            self.accepting = Accepting::Waiting;
            if self.excess == AcceptExcess::Wait {
                // No connection waits in a backlog any more.
                self.full = None;
            }
            return None;
        }
        let place = self.find_place(self.listeners.next_port()?, now);
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
                self.keep_or_hand_over(stream, peer, port, core, now)
            }
            (Ok((stream, _)), Err(Full { limit, .. })) => {
                self.metrics.accepts.add(1);
                self.count_full(limit);
                self.reject(stream, port, &Refusal::Busy, now);
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

    /// Takes a place for one more connection, which comes to `port`. Returns the number of the core that has the place.
    /// A connection that speaks MQTT will move to the core that owns its client id anyway.
    fn find_place(&mut self, port: Port, now: Uptime) -> Result<usize, Full> {
        let placed = match self.ports.mqtt_on(port) {
            MqttOn::Only => self.loads.assign_own(self.connections_max),
            MqttOn::No | MqttOn::Beside => self.loads.assign(self.connections_max),
        };
        let core = placed.map_err(|room| Full {
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

    /// Keeps an accepted socket, if its place is on this core, or hands it to the core that has the place.
    fn keep_or_hand_over(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        port: Port,
        core: usize,
        now: Uptime,
    ) -> Option<AcceptedSocket> {
        if self.admission.memory_is_full() {
            self.loads.give_back(core);
            self.count_full(Limit::Memory);
            self.reject(stream, port, &Refusal::Busy, now);
            return None;
        }
        if self.excess == AcceptExcess::Refuse || self.full == Some(Limit::Memory) {
            self.full = None;
        }
        if core != self.core.index() {
            let what = HandedOver::Connection(port);
            if self.hand_over.send(core, &stream, what.about()).is_ok() {
                self.metrics.hand_overs_sent.add(1);
                return None;
            }
            if !self.loads.keep(core, self.connections_max) {
                self.count_full(Limit::ConnectionsPerCore);
                self.reject(stream, port, &Refusal::Busy, now);
                return None;
            }
        }
        Some(AcceptedSocket {
            stream,
            client: peer.into(),
            port,
        })
    }

    /// Counts a limit that keeps new connections out, once until there is room again.
    fn count_full(&mut self, limit: Limit) {
        if self.full != Some(limit) {
            self.full = Some(limit);
            self.metrics.limit_hit(limit);
        }
    }

    fn accept_failed(&mut self, error: &io::Error, now: Uptime) {
        match error.raw_os_error().map(Errno::from_raw) {
            // The listener has no more sockets; another one may have some.
            Some(Errno::EAGAIN) => {}
            // The connection ended before it was accepted: the acceptor tries the next one (accept(2), "Error
            // handling").
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
            // The system has no room (EMFILE, ENFILE, ENOBUFS, ENOMEM), or the next attempt would fail in the same way.
            _ => {
                self.metrics.limit_hit(Limit::Descriptors);
                self.accepting = Accepting::Paused(now + ACCEPT_PAUSE);
            }
        }
    }

    /// Answers a socket for which there is no room. A port for TLS or MQTT alone gives no answer, since its
    /// clients could not read it.
    fn reject(&mut self, stream: TcpStream, port: Port, refusal: &Refusal, now: Uptime) {
        self.metrics.connections_refused.add(1);
        if self.ports.speak(port) == OnListen::Only || self.ports.mqtt_on(port) == MqttOn::Only {
            return;
        }
        self.metrics.http_answers.add(1);
        self.rejected.add(stream, refusal, now);
    }

    /// Whether rejected sockets are not closed yet.
    pub(in crate::cores) fn has_rejected(&self) -> bool {
        self.rejected.next().is_some()
    }

    /// Closes the rejected sockets whose time is over.
    pub(in crate::cores) fn close_rejected(&mut self, now: Uptime, buffer: &mut [u8]) {
        self.rejected.close_due(now, buffer);
    }

    /// Receives a socket from another core, or a listener from the server.
    pub(in crate::cores) fn receive_hand_over(&mut self, registry: &Registry) -> Arrived {
        match self.hand_over.receive() {
            Ok(Received { socket, about }) => match (HandedOver::of(about), socket) {
                (HandedOver::Moved(ticket), socket) => Arrived::Moved(ticket, socket),
                (HandedOver::Connection(port), Some(socket)) => {
                    Arrived::AcceptedSocket(self.take_connection(socket, port))
                }
                (HandedOver::Listener(port), Some(socket)) => self.take_listener(socket, port, registry),
                (HandedOver::Connection(_), None) => self.lose_connection(),
                (HandedOver::Listener(port), None) => self.lose_listener(
                    port,
                    "its table of descriptors is full; raise LimitNOFILE".to_owned(),
                ),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.hand_overs_waiting = false;
                Arrived::Nothing
            }
            // The system lacks memory for a moment. The message stays in the socket, and the next turn tries again.
            Err(_) => Arrived::Nothing,
        }
    }

    /// Counts a connection that was lost: this core's descriptor table was full, so the system has closed the socket.
    fn lose_connection(&self) -> Arrived {
        self.metrics.limit_hit(Limit::Descriptors);
        // The sender has taken a place for it.
        self.loads.end();
        Arrived::Lost
    }

    fn lose_listener(&self, port: Port, cause: String) -> Arrived {
        self.metrics.limit_hit(Limit::Descriptors);
        Arrived::LostListener(format!(
            "core {} cannot use its listener of {}: {cause}",
            self.core.index(),
            port.setting()
        ))
    }

    fn take_connection(&self, socket: OwnedFd, port: Port) -> AcceptedSocket {
        self.metrics.hand_overs_received.add(1);
        let stream = TcpStream::from_std(socket.into());
        // If the client has already closed the connection, the system no longer knows its address.
        let client = stream
            .peer_addr()
            .map_or(ClientAddress::UNKNOWN, ClientAddress::from);
        AcceptedSocket { stream, client, port }
    }

    pub(in crate::cores) fn take_listener(
        &mut self,
        socket: OwnedFd,
        port: Port,
        registry: &Registry,
    ) -> Arrived {
        match self
            .listeners
            .add(TcpListener::from_std(socket.into()), port, registry)
        {
            Ok(()) => Arrived::Listener,
            // The system has no memory, or this user has too many epoll watches.
            Err(cause) => self.lose_listener(
                port,
                format!("{cause}; raise fs.epoll.max_user_watches or free memory"),
            ),
        }
    }

    /// Counts a connection for its address.
    pub(in crate::cores) fn enter(&self, client: &ClientAddress) -> Entry {
        self.admission.enter(client)
    }

    /// Counts a connection for its address no longer: it has ended, or a proxy has named another address for it.
    pub(in crate::cores) fn leave(&self, client: &ClientAddress) {
        self.admission.leave(client);
    }

    /// Refuses a newcomer whose address has as many connections as it may have.
    pub(in crate::cores) fn refuse(&mut self, accepted: AcceptedSocket, now: Uptime) {
        self.loads.end();
        self.metrics.limit_hit(Limit::ConnectionsPerAddress);
        self.reject(accepted.stream, accepted.port, &Refusal::TooManyConnections, now);
    }

    /// Takes a place on `core` for a connection of this core. False if that core has no room, or drains.
    pub(in crate::cores) fn begin_move(&self, core: usize) -> bool {
        self.loads.begin_move(core, self.connections_max)
    }

    /// Sends the socket of a connection for which [`Acceptor::begin_move`] has taken a place on `core`. From
    /// then on the connection has its place there. If too many sockets wait for that core, returns false, and
    /// the connection has its place here.
    pub(in crate::cores) fn send_moving(&self, core: usize, socket: &TcpStream, ticket: Ticket) -> bool {
        let about = HandedOver::Moved(ticket).about();
        let is_sent = self.hand_over.send(core, socket, about).is_ok();
        if is_sent {
            self.loads.has_moved();
        } else {
            self.loads.has_not_moved(core);
        }
        is_sent
    }

    /// Gives back the place of a connection of this core.
    pub(in crate::cores) fn give_place_back(&self) {
        self.loads.end();
    }

    /// Whether new connections are refused because memory is short.
    pub(in crate::cores) fn memory_is_full(&self) -> bool {
        self.admission.memory_is_full()
    }

    /// Whether a port speaks TLS, plain HTTP, or both.
    pub(in crate::cores) fn speak(&self, port: Port) -> OnListen {
        self.ports.speak(port)
    }

    /// The codec of SocketCluster clients of a port.
    pub(in crate::cores) fn codec_on(&self, port: Port) -> Codec {
        self.ports.codec_on(port)
    }

    /// Whether clients of a port speak MQTT.
    pub(in crate::cores) fn mqtt_on(&self, port: Port) -> MqttOn {
        self.ports.mqtt_on(port)
    }

    /// Drops the acceptor, except for the descriptors that the joining thread must drop.
    pub(in crate::cores) fn end(self) -> HandOver {
        self.hand_over
    }
}

/// Most sockets that one turn accepts, so that a storm of them does not delay open connections.
pub(in crate::cores) const ACCEPTS_PER_TURN_MAX: usize = 64;
/// How long a core without room waits before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
