//! Whether a connection is read now, and the reasons if it is not. No other place keeps this.
//!
//! ```text
//!                      the poll reports input                     nothing more to read
//!   Socket   Drained ──────────────────────────► MayHoldMore ─────────────────────────► Drained
//!                                                    │   ▲
//!                          Waiting::read_next_turn   ▼   │  its turn has come
//!                                                   Queued
//!   Why      Replies │ Rate │ Work │ Ending │ Emptying │ Decision   any of them at the same time: a set
//! ```
//! The states of the socket exclude each other. The reasons do not: a connection over its rate may have an
//! outbox full of replies as well, and its last message may wait for the ring. The connection is read again
//! when the last reason is gone.
//!
//! Invariants (checked between the turns of a simulation: `simulation/leftovers.rs`, `connections/invariants.rs`)
//! 1. A connection is `Queued` exactly while it stands in one of the two queues of input of `Waiting`, once.
//! 2. Each reason is set exactly while the part that will clear it knows the connection: `Work` while the connection
//!    has suspended work, which a queue of `Waiting` holds; `Rate` while its meter is paused; `Replies` while its
//!    outbox holds more than half of `outbox_bytes_max`; `Ending` while it is in the list of connections to be closed;
//!    `Emptying` in that phase; `Decision` while its session waits for the answer to a login, or for a decision of the
//!    application.
//! 3. While there is a reason, a report of input by the poll is remembered as `MayHoldMore`: no event will report it
//!    again.

/// Whether a connection is read now. Takes two bytes of its first cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cores) struct Reading {
    socket: Socket,
    /// One bit for each [`Why`].
    reasons: u8,
}

/// The known state of the socket's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Socket {
    /// The socket is empty: the poll reports new input.
    #[default]
    Drained,
    /// The socket may hold input that no event will report.
    MayHoldMore,
    /// The same, and the connection is in a queue to be read without waiting for an event.
    Queued(ReadUntil),
}

/// How far a queued connection is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum ReadUntil {
    /// Up to a read that does not fill the buffer: input that arrives later causes an event of its own.
    ShortRead,
    /// Until the socket is empty or at its end: the event for a FIN may have passed already.
    End,
}

/// Why a connection is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::cores) enum Why {
    /// Its outbox is full of replies. It is read again when half of them have been sent.
    Replies = 1,
    /// It exceeds a rate. Its meter says when it is read again.
    Rate = 1 << 1,
    /// Decisions about its last messages wait, for one of the events that `WaitsFor` lists.
    Work = 1 << 2,
    /// A delivery or a flush has marked it. The core closes it before the next flush (`Core::close_marked`).
    Ending = 1 << 3,
    /// The peer has closed its direction: only the bytes in the outbox are still to be sent.
    Emptying = 1 << 4,
    /// Its session waits for the answer to a login, for a decision of the application, or for the disk. Later
    /// messages are handled after that.
    Decision = 1 << 5,
}

impl Reading {
    /// Whether there is any reason not to read it.
    #[inline]
    pub(in crate::cores) const fn is_paused(self) -> bool {
        self.reasons != 0
    }

    /// Whether `why` is one of the reasons.
    #[inline]
    pub(in crate::cores) const fn is_paused_by(self, why: Why) -> bool {
        self.reasons & why as u8 != 0
    }

    /// Adds a reason.
    #[inline]
    pub(in crate::cores) const fn pause(&mut self, why: Why) {
        self.reasons |= why as u8;
    }

    /// Takes a reason away; there may be others.
    #[inline]
    pub(in crate::cores) const fn resume(&mut self, why: Why) {
        self.reasons &= !(why as u8);
    }

    /// Whether it waits for its place in a queue.
    #[inline]
    pub(in crate::cores) const fn is_queued(self) -> bool {
        matches!(self.socket, Socket::Queued(_))
    }

    /// Whether the socket may hold input that no event will report.
    #[inline]
    pub(in crate::cores) const fn may_hold_more(self) -> bool {
        !matches!(self.socket, Socket::Drained)
    }

    /// Notes that the socket may hold more input, or was found empty. For a connection in a queue this changes nothing:
    /// it is read anyway when its turn comes.
    #[inline]
    pub(in crate::cores) const fn note_socket(&mut self, may_hold_more: bool) {
        self.socket = match (self.socket, may_hold_more) {
            (queued @ Socket::Queued(_), _) => queued,
            (Socket::Drained | Socket::MayHoldMore, true) => Socket::MayHoldMore,
            (Socket::Drained | Socket::MayHoldMore, false) => Socket::Drained,
        };
    }

    /// Enters a queue. False if it is in one.
    #[inline]
    pub(super) const fn enter_queue(&mut self, until: ReadUntil) -> bool {
        if self.is_queued() {
            return false;
        }
        self.socket = Socket::Queued(until);
        true
    }

    /// Notes the peer's FIN: a connection in a queue will be read to the end, since no other event will report the FIN.
    pub(in crate::cores) const fn note_end(&mut self) {
        if self.is_queued() {
            self.socket = Socket::Queued(ReadUntil::End);
        }
    }

    /// Leaves the queue, since its turn has come. Returns how far it is to be read.
    #[inline]
    pub(in crate::cores) const fn leave_queue(&mut self) -> ReadUntil {
        let until = match self.socket {
            Socket::Queued(until) => until,
            Socket::Drained | Socket::MayHoldMore => ReadUntil::End,
        };
        self.socket = Socket::MayHoldMore;
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_read_again_when_the_last_reason_is_gone() {
        let all = [Why::Replies, Why::Rate, Why::Work, Why::Ending, Why::Emptying];
        let mut reading = Reading::default();
        for why in all {
            assert!(!reading.is_paused_by(why));
            reading.pause(why);
            assert!(reading.is_paused() && reading.is_paused_by(why));
        }
        for why in all {
            assert!(reading.is_paused());
            reading.resume(why);
            assert!(!reading.is_paused_by(why));
        }
        assert_eq!(reading, Reading::default());
    }

    #[test]
    fn a_connection_enters_a_queue_once_and_what_its_socket_holds_is_unknown_until_it_leaves() {
        let mut reading = Reading::default();
        assert!(reading.enter_queue(ReadUntil::ShortRead));
        assert!(!reading.enter_queue(ReadUntil::ShortRead));
        reading.note_socket(false);
        assert!(reading.is_queued() && reading.may_hold_more());
        reading.note_end();
        assert_eq!(reading.leave_queue(), ReadUntil::End);
        assert!(!reading.is_queued() && reading.may_hold_more());
        reading.note_socket(false);
        assert!(!reading.may_hold_more());
    }
}
