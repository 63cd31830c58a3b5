//! The memory of channels: publications that are kept for clients that were away, and for new subscribers.
//!
//! Each core has one [`Histories`] with the channels that it owns ([`ChannelHash::owner`](crate::broker::ChannelHash)).
//! The core appends the publications that it reads from the ring, and asks for a [`Reading`] when a client wants some
//! of them. Nothing here knows a connection, a protocol or another core.
//!
//! ```text
//!   histories.rs   the channels of a core; the bounds of all together
//!   channel.rs     one channel: chunks, and the offset after which they are complete
//!   chunk.rs       some consecutive publications        reading.rs  some chunks, for another core
//!   queue.rs       channels, the next one to lose one   query.rs    questions, and reasons for no answer
//! ```
//! Times are milliseconds of the clock of the process. So a change of the wall clock makes no publication expire. The
//! times of publications of an earlier process are negative.

mod channel;
mod chunk;
mod histories;
mod query;
mod queue;
mod reading;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use histories::{Change, Evicted, Histories, Newest};
pub use query::{Part, Query, Question, Unknown};
pub use reading::{Reading, Remembered};

use crate::broker::{Numbering, Origin, Publication};
use crate::config::channels::ChannelPolicy;

/// How much of a channel is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Most publications of the history; with none, there is no history.
    pub entries: u32,
    /// Most bytes of the frames of the history.
    pub bytes: usize,
    /// How old a publication of the history may become.
    pub age_ms: u64,
    /// Whether the newest publication is kept, whatever the limits of the history are.
    pub last_value: bool,
}

impl Keep {
    /// How much is kept by a policy; `None`: nothing.
    pub fn of(policy: &ChannelPolicy) -> Option<Keep> {
        policy.remembers().then(|| Keep {
            entries: policy.history.map_or(0, |history| history.entries_max),
            bytes: policy.history.map_or(0, |history| history.bytes_max as usize),
            age_ms: policy.history.map_or(0, |history| history.age_ms_max),
            last_value: policy.last_value,
        })
    }
}

/// A publication that a history is to remember.
#[derive(Clone, Debug)]
pub struct NewPublication<'a> {
    offset: u64,
    at_ms: i64,
    origin: Origin,
    frame: &'a [u8],
    /// Where in the frame there is room for the mark of a replay.
    blanks: Option<Range<usize>>,
    payload_bytes: u32,
}

impl<'a> NewPublication<'a> {
    /// A publication of the ring.
    #[inline]
    pub fn of(publication: &Publication<'a>, numbering: Numbering) -> NewPublication<'a> {
        NewPublication {
            offset: numbering.offset(publication.sequence()),
            at_ms: i64::try_from(publication.at_ns() / NS_PER_MS).unwrap_or(i64::MAX),
            origin: publication.origin(),
            frame: publication.frame(),
            blanks: publication.blanks(),
            payload_bytes: publication.payload_bytes(),
        }
    }

    /// A publication of a store, whose frame is marked as replayed. `unix_ms_at_0` is the Unix time at which the clock
    /// of the process began.
    pub fn restored(
        offset: u64,
        unix_ms: u64,
        unix_ms_at_0: u64,
        origin: Origin,
        frame: &'a [u8],
        payload_bytes: u32,
    ) -> NewPublication<'a> {
        NewPublication {
            offset,
            at_ms: i64::try_from(unix_ms)
                .unwrap_or(i64::MAX)
                .saturating_sub_unsigned(unix_ms_at_0),
            origin,
            frame,
            blanks: None,
            payload_bytes,
        }
    }
}

const NS_PER_MS: u64 = 1_000_000;
