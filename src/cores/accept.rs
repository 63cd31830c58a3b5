//! New sockets: from the listener, or from a core that had more luck.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Token};
use nix::errno::Errno;

use crate::app::App;
use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::limits::Limit;

use super::Core;
use super::connection::Phase;

/// Whether the listener may have more to give.
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
        self.accepting = Accepting::Ready;
        for _ in 0..LAST_ACCEPTS_MAX {
            if self.accepting != Accepting::Ready {
                return;
            }
            self.accept_one();
        }
    }

    fn accept_one(&mut self) {
        let Some(listener) = &self.listener else {
            self.accepting = Accepting::Waiting;
            return;
        };
        if self.loads.least() >= self.connections_max {
            self.pause_accepting(Limit::ConnectionsPerCore);
            return;
        }
        match listener.accept() {
            Ok((stream, peer)) => {
                self.metrics.accepts.add(1);
                self.place(stream, peer);
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN) => self.accepting = Accepting::Waiting,
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
    fn place(&mut self, stream: TcpStream, peer: SocketAddr) {
        let core = self.loads.assign();
        if core != self.id.index() {
            if self.hand_over.send(core, &stream).is_ok() {
                self.metrics.hand_overs_sent.add(1);
                return;
            }
            self.loads.keep(core);
        }
        self.adopt(stream, peer.into());
    }

    /// Takes in what other cores have sent.
    pub(super) fn receive_hand_overs(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match self.hand_over.receive() {
                Ok(stream) => {
                    self.metrics.hand_overs_received.add(1);
                    // Who has gone already has no address any more.
                    let peer = stream
                        .peer_addr()
                        .map_or(ClientAddress::UNKNOWN, ClientAddress::from);
                    self.adopt(stream, peer);
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

    fn adopt(&mut self, stream: TcpStream, client: ClientAddress) {
        let phase = Phase::begin(self.now.uptime, &self.limits);
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

/// The listener's place in the poll.
pub(super) const LISTENER: Token = Token(usize::MAX);
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
