//! The questions to a history, and why a question about a position cannot be answered.

use crate::broker::{ChannelHash, Position, Sequence};

/// A query to the owner of a channel, as a core sends it.
///
/// The owner answers when it has read all publications before the place `before`, with those that it has. The
/// subscriber gets or collects the publications from this place on by itself, so it gets each publication once.
#[derive(Clone, Debug)]
pub struct Question {
    /// The channel's name.
    pub name: Box<[u8]>,
    /// The hash of the name.
    pub hash: ChannelHash,
    /// The question.
    pub query: Query,
    /// Most publications in the answer.
    pub publications_max: u32,
    /// How much of the answer is sent at once.
    pub part: Part,
    /// The end of the publications that are considered.
    pub before: Sequence,
}

/// The part of an answer that a [`Reading`](super::Reading) has. A reading keeps the memory of its publications in use
/// even after the history has dropped them, so only a part of a long answer is sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The oldest publications, in so many bytes of memory; at least one.
    Oldest(usize),
    /// The newest publications, in so many bytes of memory; at least one.
    Newest(usize),
}

/// A question to the history of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// All publications after this position, or none.
    After(Position),
    /// The newest publications, at most so many. Fewer are no failure.
    Last(u32),
    /// The publications since this time, in Unix milliseconds: the newest, if not all are there or there are too many.
    Since(u64),
    /// The last value: the newest publication, however old it is.
    LastValue,
    /// No publication; only the position up to which the history has come.
    Position,
}

/// Why the publications after a position, or since a moment, are not known exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// The position is of another numbering: of a former process, say.
    OtherEpoch,
    /// Publications after the position were dropped for newer ones, of the channel or of other channels.
    Evicted,
    /// Publications after the position were older than the channel's policy allows.
    Expired,
    /// There are more publications after the position than one answer may hold.
    TooMany,
    /// The policy of the channel keeps no history.
    NoHistory,
    /// The policy of the channel has changed after the position.
    PolicyChanged,
    /// Nothing has been published at the position yet.
    UnknownPosition,
}

impl Unknown {
    /// All reasons.
    pub const ALL: [Unknown; 7] = [
        Unknown::OtherEpoch,
        Unknown::Evicted,
        Unknown::Expired,
        Unknown::TooMany,
        Unknown::NoHistory,
        Unknown::PolicyChanged,
        Unknown::UnknownPosition,
    ];

    /// The reason as clients get it.
    pub const fn text(self) -> &'static str {
        match self {
            Unknown::OtherEpoch => "other epoch",
            Unknown::Evicted => "evicted",
            Unknown::Expired => "expired",
            Unknown::TooMany => "too many",
            Unknown::NoHistory => "no history",
            Unknown::PolicyChanged => "policy changed",
            Unknown::UnknownPosition => "unknown position",
        }
    }
}
