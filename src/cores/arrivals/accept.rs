//! New sockets: from the listeners, or from a core that had more luck.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use nix::errno::Errno;
use tracing::error;

use crate::app::App;
use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::AcceptExcess;
use crate::config::tls::OnListen;
use crate::decision::Limit;
use crate::http::Refusal;
use crate::transport::hand_over::Received;

use crate::cores::Core;
use crate::cores::arrivals::admission::Entry;
use crate::cores::arrivals::balance::NoRoom;
use crate::cores::arrivals::pace::Pace;
use crate::cores::arrivals::proxy_header;
use crate::cores::lifecycle::connection::Phase;

/// Which port a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Port {
    /// That of `listen`.
    Main,
    /// That of `tls_listen`.
    Tls,
}

/// The ports, and what is spoken on them.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    /// The address of `listen`.
    pub(crate) main: SocketAddr,
    /// What is spoken there.
    pub(crate) main_tls: OnListen,
    /// The address of `tls_listen`, where TLS is spoken.
    pub(crate) tls: Option<SocketAddr>,
}

/// The listeners of one core.
#[derive(Debug, Default)]
pub(in crate::cores) struct Listeners {
    open: Vec<Listener>,
    /// The one to ask next, so that a storm at one port does not keep others out.
    next: usize,
}

#[derive(Debug)]
struct Listener {
    socket: Source,
    port: Port,
    /// Whether it may have more to give.
    is_ready: bool,
}

/// Where the sockets of a listener come from.
#[derive(Debug)]
enum Source {
    Tcp(TcpListener),
    #[cfg(test)]
    Simulated(crate::cores::simulation::Door),
}

/// Whether the listeners may have more to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Accepting {
    /// Not before the poll says so.
    Waiting,
    /// There may be more.
    Ready,
    /// There is no room; look again then.
    Paused(Uptime),
}

impl<A: App> Core<A> {
    /// Accepts a bounded batch.
    pub(in crate::cores) fn accept_batch(&mut self) {
        if let Accepting::Paused(until) = self.accepting
            && until <= self.now.uptime
        {
            self.accepting = Accepting::Ready;
        }
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            if self.accepting != Accepting::Ready {
                return;
            }
            self.accept_one();
        }
    }

    /// Has what the kernel has already completed for the listeners accepted, a batch in each turn, before they are closed
    /// for good.
    pub(in crate::cores) fn accept_the_last(&mut self) {
        for listener in &mut self.listeners.open {
            listener.is_ready = true;
        }
        // Nobody can wait any longer: whoever is not answered now is reset when the listener closes.
        self.pace = Pace::new(0, 1);
        self.accept_excess = AcceptExcess::Refuse;
        self.accepting = Accepting::Ready;
    }

    /// The poll says that a listener has something to give.
    pub(in crate::cores) fn listener_ready(&mut self, token: Token) {
        for listener in &mut self.listeners.open {
            listener.is_ready |= listener.port.token() == token;
        }
        if self.accepting == Accepting::Waiting {
            self.accepting = Accepting::Ready;
        }
    }

    fn accept_one(&mut self) {
        if !self.listeners.has_ready() {
            self.accepting = Accepting::Waiting;
            if self.accept_excess == AcceptExcess::Wait {
                // Nobody waits any more.
                self.full = None;
            }
            return;
        }
        let place = self.find_place();
        if let Err(Full { limit, until }) = place
            && self.accept_excess == AcceptExcess::Wait
        {
            self.count_full(limit);
            self.accepting = Accepting::Paused(until);
            return;
        }
        let Some(listener) = self.listeners.next_ready() else {
            return;
        };
        let (port, accepted) = (listener.port, listener.socket.accept());
        if let Err(error) = &accepted {
            listener.is_ready = error.kind() != io::ErrorKind::WouldBlock;
        }
        match (accepted, place) {
            (Ok((stream, peer)), Ok(core)) => {
                self.metrics.accepts.add(1);
                self.let_in(stream, peer, port, core);
            }
            (Ok((stream, _)), Err(Full { limit, .. })) => {
                self.metrics.accepts.add(1);
                self.count_full(limit);
                self.turn_away(stream, port, &Refusal::Busy);
            }
            (Err(error), place) => {
                if let Ok(core) = place {
                    self.loads.give_back(core);
                    self.pace.take_back();
                }
                self.accept_failed(&error);
            }
        }
    }

    /// A place for one more connection, on the core whose number it is.
    fn find_place(&mut self) -> Result<usize, Full> {
        let pause = self.now.uptime + ACCEPT_PAUSE;
        let core = self.loads.assign(self.connections_max).map_err(|room| Full {
            limit: match room {
                NoRoom::Server => Limit::Connections,
                NoRoom::Core => Limit::ConnectionsPerCore,
            },
            until: pause,
        })?;
        self.pace.pass(self.now.uptime).map_err(|until| {
            self.loads.give_back(core);
            Full {
                limit: Limit::AcceptRate,
                until,
            }
        })?;
        Ok(core)
    }

    /// Takes a socket in for which there is a place.
    fn let_in(&mut self, stream: TcpStream, peer: SocketAddr, port: Port, core: usize) {
        if self.admission.memory_is_full() {
            self.loads.give_back(core);
            self.count_full(Limit::Memory);
            self.turn_away(stream, port, &Refusal::Busy);
        } else {
            if self.accept_excess == AcceptExcess::Refuse || self.full == Some(Limit::Memory) {
                self.full = None;
            }
            self.place(stream, peer, port, core);
        }
    }

    /// Counts a limit that begins to hold new connections back.
    fn count_full(&mut self, limit: Limit) {
        if self.full != Some(limit) {
            self.full = Some(limit);
            self.metrics.limit_hit(limit);
        }
    }

    fn accept_failed(&mut self, error: &io::Error) {
        match error.raw_os_error().map(Errno::from_raw) {
            // The other listener may have more.
            Some(Errno::EAGAIN) => {}
            // The client has gone before it was accepted: the next one, please (accept(2), "Error handling").
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
                self.accepting = Accepting::Paused(self.now.uptime + ACCEPT_PAUSE);
            }
        }
    }

    /// Answers a socket for which there is no room; where TLS is spoken there is nobody to read it.
    fn turn_away(&mut self, stream: TcpStream, port: Port, refusal: &Refusal) {
        self.metrics.connections_refused.add(1);
        if self.ports.speak(port) == OnListen::Only {
            return;
        }
        self.metrics.http_answers.add(1);
        self.rejected.add(stream, refusal, self.now.uptime);
    }

    /// Keeps the socket, or hands it to the lightest core.
    fn place(&mut self, stream: TcpStream, peer: SocketAddr, port: Port, core: usize) {
        if core != self.id.index() {
            if self
                .hand_over
                .send(core, &stream, HandedOver::Connection(port).byte())
                .is_ok()
            {
                self.metrics.hand_overs_sent.add(1);
                return;
            }
            if !self.loads.keep(core, self.connections_max) {
                self.count_full(Limit::ConnectionsPerCore);
                self.turn_away(stream, port, &Refusal::Busy);
                return;
            }
        }
        self.adopt(stream, peer.into(), port);
    }

    /// Takes in what was sent: sockets from other cores, and the listeners when all begins.
    pub(in crate::cores) fn receive_hand_overs(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match self.hand_over.receive() {
                Ok(Received { socket, about }) => match (HandedOver::of_byte(about), socket) {
                    (HandedOver::Connection(port), Some(socket)) => self.take_connection(socket, port),
                    (HandedOver::Listener(port), Some(socket)) => self.take_listener(socket, port),
                    (handed_over, None) => self.lose_hand_over(handed_over),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.hand_overs_waiting = false;
                    return;
                }
                // The system lacks memory for a moment, and the message stays where it is: look again in the next turn.
                Err(_) => return,
            }
        }
    }

    /// A socket came, but this core's descriptor table was full, and the system has closed it.
    fn lose_hand_over(&self, handed_over: HandedOver) {
        self.metrics.limit_hit(Limit::Descriptors);
        match handed_over {
            // Its place was taken when it was sent.
            HandedOver::Connection(_) => self.loads.end(),
            HandedOver::Listener(port) => error!(
                core = self.id.index(),
                "no descriptor is free for the listener of {}: other cores accept for this one; raise LimitNOFILE",
                port.setting()
            ),
        }
    }

    fn take_connection(&mut self, socket: OwnedFd, port: Port) {
        self.metrics.hand_overs_received.add(1);
        let stream = TcpStream::from_std(socket.into());
        // Who has gone already has no address any more.
        let peer = stream
            .peer_addr()
            .map_or(ClientAddress::UNKNOWN, ClientAddress::from);
        self.adopt(stream, peer, port);
    }

    fn take_listener(&mut self, socket: OwnedFd, port: Port) {
        let mut socket = TcpListener::from_std(socket.into());
        let registered = self
            .poll
            .registry()
            .register(&mut socket, port.token(), Interest::READABLE);
        if let Err(cause) = registered {
            // Memory, or watches of this user: the others go on.
            error!(core = self.id.index(), "a listener cannot be watched: {cause}");
            return;
        }
        self.listeners.open.push(Listener {
            socket: Source::Tcp(socket),
            port,
            is_ready: false,
        });
    }

    fn adopt(&mut self, stream: TcpStream, client: ClientAddress, port: Port) {
        // One of a trusted proxy is another's, and counted when it is known whose.
        let counted = match self.lent.policy.proxies.trusted.contain(&client) {
            true => Entry::Uncounted,
            false => self.admission.enter(&client),
        };
        if counted == Entry::Refused {
            self.loads.end();
            self.metrics.limit_hit(Limit::ConnectionsPerAddress);
            self.turn_away(stream, port, &Refusal::TooManyConnections);
            return;
        }
        let is_counted = counted == Entry::Counted;
        let has_proxy_header = proxy_header::is_expected(&self.lent.policy, &client);
        let phase = Phase::begin(self.now.uptime, port, has_proxy_header, &self.limits);
        let registry = self.poll.registry();
        let registered = self.connections.insert(stream, client, phase, |stream, id| {
            // That it takes bytes is asked for when it has been found full: `watch_blocked`.
            registry.register(stream, id.token(), Interest::READABLE)
        });
        let Ok(id) = registered else {
            // The system has no memory for one more watch; the socket is closed.
            self.metrics.limit_hit(Limit::Descriptors);
            self.loads.end();
            if is_counted {
                self.admission.leave(&client);
            }
            return;
        };
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_counted = is_counted;
        }
        self.alive += 1;
        self.metrics.connections.set(self.connections.len() as u64);
        self.arm(id);
        if let Some(draining) = &mut self.draining {
            draining.add(id);
            self.metrics.drain_left.set(self.alive);
        }
    }
}

impl Port {
    /// The setting that names its address.
    const fn setting(self) -> &'static str {
        match self {
            Port::Main => "listen",
            Port::Tls => "tls_listen",
        }
    }

    const fn token(self) -> Token {
        match self {
            Port::Main => LISTENER,
            Port::Tls => TLS_LISTENER,
        }
    }

    const fn of_byte(byte: u8) -> Port {
        if byte == Port::Tls as u8 {
            Port::Tls
        } else {
            Port::Main
        }
    }
}

/// What is sent to a core, told in a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandedOver {
    /// That came to this port.
    Connection(Port),
    /// Of this port.
    Listener(Port),
}

impl HandedOver {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            HandedOver::Connection(port) => port as u8,
            HandedOver::Listener(port) => port as u8 | LISTENER_BIT,
        }
    }

    const fn of_byte(byte: u8) -> HandedOver {
        let port = Port::of_byte(byte & !LISTENER_BIT);
        match byte & LISTENER_BIT {
            0 => HandedOver::Connection(port),
            _ => HandedOver::Listener(port),
        }
    }
}

impl Source {
    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Source::Tcp(listener) => listener.accept(),
            #[cfg(test)]
            Source::Simulated(door) => door.accept(),
        }
    }
}

const LISTENER_BIT: u8 = 1 << 7;

impl Ports {
    /// What is spoken on a port.
    pub(in crate::cores) fn speak(&self, port: Port) -> OnListen {
        match port {
            Port::Main => self.main_tls,
            Port::Tls => OnListen::Only,
        }
    }
}

impl Listeners {
    /// Listens to a simulation, and to nobody else.
    #[cfg(test)]
    pub(in crate::cores) fn simulated(
        mut door: crate::cores::simulation::Door,
        registry: &mio::Registry,
    ) -> io::Result<Listeners> {
        registry.register(&mut door, LISTENER, Interest::READABLE)?;
        let open = vec![Listener {
            socket: Source::Simulated(door),
            port: Port::Main,
            is_ready: false,
        }];
        Ok(Listeners { open, next: 0 })
    }

    /// Stops listening.
    pub(in crate::cores) fn close(&mut self) {
        self.open.clear();
    }

    fn has_ready(&self) -> bool {
        self.open.iter().any(|listener| listener.is_ready)
    }

    fn next_ready(&mut self) -> Option<&mut Listener> {
        let count = self.open.len();
        let index = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|&index| self.open[index].is_ready)?;
        self.next = index + 1;
        Some(&mut self.open[index])
    }
}

/// Why nobody may come now.
struct Full {
    limit: Limit,
    /// When to look again.
    until: Uptime,
}

/// The places of the listeners in the poll.
pub(in crate::cores) const LISTENER: Token = Token(usize::MAX);
pub(in crate::cores) const TLS_LISTENER: Token = Token(usize::MAX - 3);
/// The waker's.
pub(crate) const WAKER: Token = Token(usize::MAX - 1);
/// The receiving end of hand-overs.
pub(in crate::cores) const HAND_OVERS: Token = Token(usize::MAX - 2);

/// New sockets of one turn, so that a storm of them does not delay the connected.
pub(in crate::cores) const ACCEPTS_PER_TURN_MAX: usize = 64;
/// How long a core without room waits before it looks again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
