//! New sockets: from the listeners, or from a core that had more luck.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use nix::errno::Errno;

use crate::app::App;
use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::limits::Limit;
use crate::config::tls::OnListen;
use crate::transport::listener;

use super::Core;
use super::connection::Phase;

/// Which port a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Port {
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
#[derive(Debug)]
pub(super) struct Listeners {
    open: Vec<Listener>,
    /// The one to ask next, so that a storm at one port does not keep others out.
    next: usize,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    port: Port,
    /// Whether it may have more to give.
    is_ready: bool,
}

/// Whether the listeners may have more to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepting {
    /// Not before the poll says so.
    Waiting,
    /// There may be more.
    Ready,
    /// There is no room; look again then.
    Paused(Uptime),
}

impl<A: App> Core<A> {
    /// Accepts a bounded batch.
    pub(super) fn accept_batch(&mut self) {
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

    /// Accepts what the kernel has already completed for this listener, before it is closed for good.
    pub(super) fn accept_the_last(&mut self) {
        for listener in &mut self.listeners.open {
            listener.is_ready = true;
        }
        self.accepting = Accepting::Ready;
        for _ in 0..LAST_ACCEPTS_MAX {
            if self.accepting != Accepting::Ready {
                return;
            }
            self.accept_one();
        }
    }

    /// The poll says that a listener has something to give.
    pub(super) fn listener_ready(&mut self, token: Token) {
        for listener in &mut self.listeners.open {
            listener.is_ready |= listener.port.token() == token;
        }
        if self.accepting == Accepting::Waiting {
            self.accepting = Accepting::Ready;
        }
    }

    fn accept_one(&mut self) {
        let Some(listener) = self.listeners.next_ready() else {
            self.accepting = Accepting::Waiting;
            return;
        };
        if self.loads.least() >= self.connections_max {
            self.pause_accepting(Limit::ConnectionsPerCore);
            return;
        }
        match listener.socket.accept() {
            Ok((stream, peer)) => {
                let port = listener.port;
                self.metrics.accepts.add(1);
                self.place(stream, peer, port);
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN) => listener.is_ready = false,
                Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.pause_accepting(Limit::Descriptors);
                }
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
                // Something that the next attempt would meet again.
                _ => self.pause_accepting(Limit::Descriptors),
            },
        }
    }

    fn pause_accepting(&mut self, limit: Limit) {
        self.metrics.limit_hit(limit);
        self.accepting = Accepting::Paused(self.now.uptime + ACCEPT_PAUSE);
    }

    /// Keeps the socket, or hands it to the lightest core.
    fn place(&mut self, stream: TcpStream, peer: SocketAddr, port: Port) {
        let core = self.loads.assign();
        if core != self.id.index() {
            if self.hand_over.send(core, &stream, port as u8).is_ok() {
                self.metrics.hand_overs_sent.add(1);
                return;
            }
            self.loads.keep(core);
        }
        self.adopt(stream, peer.into(), port);
    }

    /// Takes in what other cores have sent.
    pub(super) fn receive_hand_overs(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match self.hand_over.receive() {
                Ok((stream, port)) => {
                    self.metrics.hand_overs_received.add(1);
                    // Who has gone already has no address any more.
                    let peer = stream
                        .peer_addr()
                        .map_or(ClientAddress::UNKNOWN, ClientAddress::from);
                    self.adopt(stream, peer, Port::of_byte(port));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.hand_overs_waiting = false;
                    return;
                }
                // The socket came, but this table had no room for it: the system has closed it.
                Err(_) => {
                    self.metrics.limit_hit(Limit::Descriptors);
                    self.loads.end();
                }
            }
        }
    }

    fn adopt(&mut self, stream: TcpStream, client: ClientAddress, port: Port) {
        let phase = Phase::begin(self.now.uptime, port, &self.limits);
        let registry = self.poll.registry();
        let registered = self.connections.insert(stream, client, phase, |stream, id| {
            // Once, for both: an edge costs nothing while there is nothing to write.
            registry.register(stream, id.token(), Interest::READABLE | Interest::WRITABLE)
        });
        let Ok(id) = registered else {
            // The system has no memory for one more watch; the socket is closed.
            self.metrics.limit_hit(Limit::Descriptors);
            self.loads.end();
            return;
        };
        self.metrics.connections.set(self.connections.len() as u64);
        self.arm(id);
        if let Some(draining) = &mut self.draining {
            draining.add(id);
        }
    }
}

impl Port {
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

impl Ports {
    /// What is spoken on a port.
    pub(super) fn speak(&self, port: Port) -> OnListen {
        match port {
            Port::Main => self.main_tls,
            Port::Tls => OnListen::Only,
        }
    }
}

impl Listeners {
    /// Listens on all ports.
    pub(super) fn open(ports: &Ports, backlog: i32, registry: &Registry) -> io::Result<Listeners> {
        let wanted = [(Some(ports.main), Port::Main), (ports.tls, Port::Tls)];
        let open = wanted.into_iter().filter_map(|(address, port)| {
            address.map(|address| {
                let mut socket = listener::listen(address, backlog)?;
                registry.register(&mut socket, port.token(), Interest::READABLE)?;
                Ok(Listener {
                    socket,
                    port,
                    is_ready: false,
                })
            })
        });
        let open = open.collect::<io::Result<_>>()?;
        Ok(Listeners { open, next: 0 })
    }

    /// Stops listening.
    pub(super) fn close(&mut self) {
        self.open.clear();
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

/// The places of the listeners in the poll.
pub(super) const LISTENER: Token = Token(usize::MAX);
pub(super) const TLS_LISTENER: Token = Token(usize::MAX - 3);
/// The waker's.
pub(crate) const WAKER: Token = Token(usize::MAX - 1);
/// The receiving end of hand-overs.
pub(super) const HAND_OVERS: Token = Token(usize::MAX - 2);

/// New sockets of one turn, so that a storm of them does not delay the connected.
const ACCEPTS_PER_TURN_MAX: usize = 64;
/// As many as a backlog holds.
const LAST_ACCEPTS_MAX: usize = 65_536;
/// How long a core without room waits before it looks again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
