//! New sockets: from the listener, or from a core that had more luck.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use nix::errno::Errno;

use crate::app::App;
use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::limits::{AcceptExcess, Limit};
use crate::http::Refusal;

use super::admission::Entry;
use super::balance::NoRoom;
use super::connection::Phase;
use super::{Core, preface};

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
        if self.listener.is_none() {
            self.accepting = Accepting::Waiting;
            return;
        }
        let place = self.find_place();
        if let Err(Full { limit, until }) = place
            && self.accept_excess == AcceptExcess::Wait
        {
            self.metrics.limit_hit(limit);
            self.accepting = Accepting::Paused(until);
            return;
        }
        let Some(accepted) = self.listener.as_ref().map(TcpListener::accept) else {
            return;
        };
        match (accepted, place) {
            (Ok((stream, peer)), Ok(core)) => {
                self.metrics.accepts.add(1);
                self.let_in(stream, peer, core);
            }
            (Ok((stream, _)), Err(Full { limit, .. })) => {
                self.metrics.accepts.add(1);
                self.turn_away(stream, limit, &Refusal::Busy);
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
    fn let_in(&mut self, stream: TcpStream, peer: SocketAddr, core: usize) {
        if self.admission.memory_is_full() {
            self.loads.give_back(core);
            self.turn_away(stream, Limit::Memory, &Refusal::Busy);
        } else {
            self.place(stream, peer, core);
        }
    }

    fn accept_failed(&mut self, error: &io::Error) {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN) => self.accepting = Accepting::Waiting,
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

    /// Answers a socket for which there is no room.
    fn turn_away(&mut self, stream: TcpStream, limit: Limit, refusal: &Refusal) {
        self.metrics.limit_hit(limit);
        self.metrics.http_answers.add(1);
        self.turned_away.add(stream, refusal, self.now.uptime);
    }

    /// Keeps the socket, or hands it to the lightest core.
    fn place(&mut self, stream: TcpStream, peer: SocketAddr, core: usize) {
        if core != self.id.index() {
            if self.hand_over.send(core, &stream).is_ok() {
                self.metrics.hand_overs_sent.add(1);
                return;
            }
            if !self.loads.keep(core, self.connections_max) {
                self.turn_away(stream, Limit::ConnectionsPerCore, &Refusal::Busy);
                return;
            }
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
        // One of a trusted proxy is another's, and counted when it is known whose.
        let counted = match self.lent.doors.proxies.trusted.contain(&client) {
            true => Entry::Uncounted,
            false => self.admission.enter(&client),
        };
        if counted == Entry::Refused {
            self.loads.end();
            self.turn_away(stream, Limit::ConnectionsPerAddress, &Refusal::TooManyConnections);
            return;
        }
        let is_counted = counted == Entry::Counted;
        let has_preface = preface::is_expected(&self.lent.doors, &client);
        let phase = Phase::begin(self.now.uptime, has_preface, &self.limits);
        let registry = self.poll.registry();
        let registered = self.connections.insert(stream, client, phase, |stream, id| {
            // Once, for both: an edge costs nothing while there is nothing to write.
            registry.register(stream, id.token(), Interest::READABLE | Interest::WRITABLE)
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
        self.metrics.connections.set(self.connections.len() as u64);
        self.arm(id);
        if let Some(draining) = &mut self.draining {
            draining.add(id);
        }
    }
}

/// Why nobody may come now.
struct Full {
    limit: Limit,
    /// When to look again.
    until: Uptime,
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
