//! A connection on its way from one core to another.
//!
//! Its socket travels by a socket pair (`transport/hand_over.rs`). A letter carries everything else: the
//! state of TLS, the state of its wire and its session, the input that was read and the bytes that were not
//! sent. The two come in either order; a ticket says which belong together ([`Moves`]). A connection moves
//! while its session waits for its first message, so no other part of the old core knows it.
//!
//! Invariants
//! 1. The sender takes a place at the receiver before it sends anything, and gives its own back (`balance.rs`). The
//!    receiver gives the place back once: when the connection ends there, or when one of the two halves is lost.
//! 2. The receiver gets the letter, or learns that its sender has stopped. In the latter case it drops a
//!    socket that waits for its letter.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use crate::app::Context;
use crate::broker::CoreSet;
use crate::client::ClientAddress;
use crate::protocols::{Framing, Session, Wire};
use crate::transport::port::Ticket;
use crate::transport::tls::TlsStream;

use crate::cores::lifecycle::connection::Leftover;
use crate::cores::lifecycle::meter::Meter;
use crate::cores::lifecycle::tally::{Opened, Tally};

/// A connection without its socket.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(in crate::cores) ticket: Ticket,
    pub(in crate::cores) client: ClientAddress,
    pub(in crate::cores) is_counted: bool,
    pub(in crate::cores) opened: Opened,
    pub(in crate::cores) tally: Tally,
    pub(in crate::cores) framing: Framing,
    pub(in crate::cores) wire: Wire,
    pub(in crate::cores) session: Session,
    pub(in crate::cores) tls: Option<Box<TlsStream>>,
    pub(in crate::cores) meter: Option<Box<Meter>>,
    /// The facts that the application keeps about it.
    pub(in crate::cores) context: Option<Context>,
    /// Input that was read and not handled.
    pub(in crate::cores) leftover: Leftover,
    /// The bytes that were queued and not sent: the rest of the answer to the request.
    pub(in crate::cores) unsent: Vec<u8>,
}

/// Both halves of a connection that has come from another core. The socket is `None` if it was lost: then the
/// system has closed it.
pub(in crate::cores) type MovedConnection = (Box<Moving>, Option<OwnedFd>);

/// The connections on their way to this core of which one half has come, and the number of the next
/// connection that leaves.
#[derive(Debug, Default)]
pub(in crate::cores) struct Moves {
    left: u64,
    letters: HashMap<Ticket, Box<Moving>>,
    sockets: HashMap<Ticket, Option<OwnedFd>>,
    stopped: CoreSet,
}

impl Moves {
    /// The ticket of the next connection that leaves this core.
    pub(in crate::cores) fn next_ticket(&mut self, core: usize) -> Ticket {
        self.left += 1;
        Ticket::new(core, self.left)
    }

    /// How many connections wait for their other half.
    #[cfg(test)]
    pub(in crate::cores) fn len(&self) -> usize {
        self.letters.len() + self.sockets.len()
    }

    /// Takes a letter. Returns the connection if its socket has come before.
    pub(in crate::cores) fn letter(&mut self, moving: Box<Moving>) -> Option<MovedConnection> {
        match self.sockets.remove(&moving.ticket) {
            Some(socket) => Some((moving, socket)),
            None => {
                self.letters.insert(moving.ticket, moving);
                None
            }
        }
    }

    /// Takes a socket, or notes that it was lost. Returns the fate of its connection, as far as it is known.
    pub(in crate::cores) fn socket(&mut self, ticket: Ticket, socket: Option<OwnedFd>) -> Socket {
        if let Some(moving) = self.letters.remove(&ticket) {
            return Socket::Complete((moving, socket));
        }
        if self.stopped.contains(ticket.core()) {
            return Socket::NoLetter;
        }
        self.sockets.insert(ticket, socket);
        Socket::First
    }

    /// A core has stopped, so all its letters have come. Closes its sockets that have no letter, and returns
    /// their number.
    pub(in crate::cores) fn note_stopped(&mut self, core: usize) -> usize {
        self.stopped.insert(core);
        let before = self.sockets.len();
        self.sockets.retain(|ticket, _| ticket.core() != core);
        before - self.sockets.len()
    }
}

/// The result of taking a socket that has come from another core.
#[derive(Debug)]
pub(in crate::cores) enum Socket {
    /// It waits for its letter.
    First,
    /// Its letter has come before.
    Complete(MovedConnection),
    /// Its letter will not come, since its sender has stopped. The socket is closed.
    NoLetter,
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::clock::Clock;
    use crate::session::SessionIds;

    fn moving(ticket: Ticket) -> Box<Moving> {
        let mut ids = SessionIds::new().unwrap();
        Box::new(Moving {
            ticket,
            client: ClientAddress::UNKNOWN,
            is_counted: false,
            opened: Opened::at(crate::clock::Uptime::default()),
            tally: Tally::default(),
            framing: Framing::Mqtt,
            wire: Wire::default(),
            session: Session::begin_mqtt(&mut ids, Clock::begin().now(), None),
            tls: None,
            meter: None,
            context: None,
            leftover: Leftover::default(),
            unsent: Vec::new(),
        })
    }

    fn socket() -> Option<OwnedFd> {
        Some(TcpListener::bind("127.0.0.1:0").unwrap().into())
    }

    #[test]
    fn the_halves_of_a_connection_meet_in_any_order_and_a_lost_socket_is_a_half_as_well() {
        let mut sender = Moves::default();
        let mut moves = Moves::default();
        let [a, b, c] = [(); 3].map(|()| sender.next_ticket(3));
        assert_eq!([a, b, c].map(Ticket::core), [3; 3]);
        assert!(moves.letter(moving(a)).is_none());
        assert!(matches!(moves.socket(b, socket()), Socket::First));
        assert!(matches!(moves.socket(c, None), Socket::First));
        assert!(matches!(moves.socket(a, socket()), Socket::Complete((whole, Some(_))) if whole.ticket == a));
        assert!(matches!(moves.letter(moving(b)), Some((whole, Some(_))) if whole.ticket == b));
        assert!(matches!(moves.letter(moving(c)), Some((whole, None)) if whole.ticket == c));
        assert_eq!(moves.len(), 0);
    }

    #[test]
    fn sockets_whose_sender_has_stopped_without_a_letter_are_let_go() {
        let mut moves = Moves::default();
        let [mine, other, late] = [Ticket::new(1, 1), Ticket::new(2, 1), Ticket::new(1, 2)];
        for ticket in [mine, other] {
            assert!(matches!(moves.socket(ticket, socket()), Socket::First));
        }
        assert_eq!(moves.note_stopped(1), 1);
        assert!(matches!(moves.socket(late, socket()), Socket::NoLetter));
        assert!(moves.letter(moving(other)).is_some());
        assert_eq!(moves.len(), 0);
    }
}
