//! The parts of a channel's history that a subscriber may ask for, and the answer that it gets.

use crate::broker::{Epoch, Position};
use crate::labels::labels;

/// The part of the channel's past that the client wants when it subscribes. It is written into the bytes of
/// the decisions, so that a decision needs only a span for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Only the position from which the subscription is live.
    Position,
    /// All publications after this position.
    After(Position),
    /// All publications after a position whose epoch does not have the form of this server's epochs.
    OtherEpoch,
    /// The newest publications, at most this many.
    Last(u32),
    /// All publications since a moment, in milliseconds since 1970.
    Since(u64),
    /// The newest publication, for a client that has not asked for history: it gets the usual answer to a
    /// subscription.
    LastValue,
    /// The retained publication of a channel that keeps nothing else. The client gets the usual answer to a
    /// subscription.
    Retained,
    /// The client has asked for a part, but the rules do not allow it.
    Forbidden,
}

/// A call of `$history`. It is written into the bytes of the decisions, as [`Wanted`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCall {
    /// The part of the history that the client wants.
    pub wanted: Wanted,
    /// Most publications in the answer.
    pub limit: u32,
}

/// Why a [`HistoryCall`] was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryFailure {
    /// The client, or all clients of its core, have too many calls without an answer.
    Busy,
    /// The core that owns the channel has not answered in time.
    TimedOut,
}

impl HistoryCall {
    /// Appends the call in the form that [`HistoryCall::read`] reads.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.limit.to_ne_bytes());
        self.wanted.write(out);
    }

    /// Reads a call that [`HistoryCall::write`] has written.
    ///
    /// # Panics
    /// If [`HistoryCall::write`] has not written these bytes.
    pub fn read(bytes: &[u8]) -> HistoryCall {
        let (&limit, rest) = bytes
            .split_first_chunk()
            .expect("written by `HistoryCall::write`");
        HistoryCall {
            wanted: Wanted::read(rest),
            limit: u32::from_ne_bytes(limit),
        }
    }
}

/// The answer to a client that has asked for a part of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Why publications may be missing; `None` if none are.
    pub gap: Option<Gap>,
    /// The position from which the subscription is live.
    pub position: Position,
    /// How many publications follow the answer.
    pub publications: usize,
}

labels! {
    /// Why a client does not get all of the history that it has asked for.
    pub enum Gap {
        /// The position has another epoch.
        OtherEpoch = "other epoch",
        /// The history no longer holds a part: newer publications needed the room.
        Evicted = "evicted",
        /// The history no longer holds a part: it was too old.
        Expired = "expired",
        /// The client asked for more than `recovery_publications_max`.
        TooMany = "too many",
        /// The channel has no history.
        NoHistory = "no history",
        /// The rules do not allow the client to ask.
        NotAllowed = "not allowed",
        /// The policy of the channel has changed, and a part may never have been remembered.
        PolicyChanged = "policy changed",
        /// The position lies in the future.
        UnknownPosition = "unknown position",
        /// The core that keeps the history did not answer in time.
        NoAnswer = "no answer",
        /// The subscription has ended before the history was read.
        Unsubscribed = "unsubscribed",
        /// An earlier request for the same channel has not been answered yet.
        InProgress = "in progress",
    }
}

impl Wanted {
    /// Appends the request in the form that [`Wanted::read`] reads.
    pub fn write(self, out: &mut Vec<u8>) {
        let (kind, number) = match self {
            Wanted::Position => (b'p', 0),
            Wanted::After(position) => (b'a', position.offset),
            Wanted::OtherEpoch => (b'o', 0),
            Wanted::Last(count) => (b'l', u64::from(count)),
            Wanted::Since(unix_ms) => (b's', unix_ms),
            Wanted::LastValue => (b'v', 0),
            Wanted::Retained => (b'r', 0),
            Wanted::Forbidden => (b'f', 0),
        };
        out.push(kind);
        out.extend_from_slice(&number.to_ne_bytes());
        if let Wanted::After(position) = self {
            out.extend_from_slice(position.epoch.as_bytes());
        }
    }

    /// Reads a request that [`Wanted::write`] has written.
    ///
    /// # Panics
    /// If [`Wanted::write`] has not written these bytes.
    pub fn read(bytes: &[u8]) -> Wanted {
        let written = "written by `Wanted::write`";
        let (&kind, rest) = bytes.split_first().expect(written);
        let (&number, rest) = rest.split_first_chunk().expect(written);
        let number = u64::from_ne_bytes(number);
        match kind {
            b'p' => Wanted::Position,
            b'a' => Wanted::After(Position {
                epoch: Epoch::from_text(rest).expect(written),
                offset: number,
            }),
            b'o' => Wanted::OtherEpoch,
            b'l' => Wanted::Last(u32::try_from(number).expect(written)),
            b's' => Wanted::Since(number),
            b'v' => Wanted::LastValue,
            b'r' => Wanted::Retained,
            b'f' => Wanted::Forbidden,
            other => unreachable!("{other}, which `Wanted::write` has never written"),
        }
    }

    /// Whether the client has asked for a part of the history, so that its answer says how the request went.
    pub const fn is_asked(self) -> bool {
        match self {
            Wanted::Position
            | Wanted::After(_)
            | Wanted::OtherEpoch
            | Wanted::Last(_)
            | Wanted::Since(_)
            | Wanted::Forbidden => true,
            Wanted::LastValue | Wanted::Retained => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for wanted in [
            Wanted::Position,
            Wanted::After(Position {
                epoch: Epoch::from_text(b"k3j9x0ab").unwrap(),
                offset: (1 << 53) - 1,
            }),
            Wanted::OtherEpoch,
            Wanted::Last(u32::MAX),
            Wanted::Since(u64::MAX),
            Wanted::LastValue,
            Wanted::Retained,
            Wanted::Forbidden,
        ] {
            let mut bytes = Vec::new();
            wanted.write(&mut bytes);
            assert_eq!(Wanted::read(&bytes), wanted);
        }
    }
}
