//! The connections that have ended and have subscriptions left. `unsubscribe.rs` ends these subscriptions.
//!
//! A client may be subscribed to ten thousand channels. To end these subscriptions takes milliseconds, for which other
//! clients would have to wait. So a turn ends a bounded number of them, and the rest follows in the next turns.
//!
//! Invariants
//! 1. A connection is in [`Unsubscribing`] exactly while it has ended and has subscriptions. Meanwhile its outbox is
//!    sealed, so that it takes no publications, and its place is kept: subscriptions name connections by their places.
//! 2. The queue is first in each turn, so that the remaining subscriptions cannot wait for ever behind new
//!    ends.
//!
//! Limits: `CHANNELS_PER_TURN_MAX`, for all ends of a turn together.

use std::collections::VecDeque;

use crate::session::SessionId;

use crate::cores::lifecycle::connection::ConnectionId;

/// The connections that have ended and have subscriptions left, and how many subscriptions this turn may still end.
#[derive(Debug, Default)]
pub(in crate::cores) struct Unsubscribing {
    queue: VecDeque<(ConnectionId, Option<SessionId>)>,
    left: usize,
}

impl Unsubscribing {
    /// Whether connections that have ended have subscriptions left.
    #[inline]
    pub(in crate::cores) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The session that a connection had. Searches the queue.
    pub(in crate::cores) fn session_of(&self, id: ConnectionId) -> Option<SessionId> {
        let mut all = self.queue.iter();
        all.find(|(other, _)| *other == id)?.1
    }
}

impl Unsubscribing {
    /// Begins a turn.
    #[inline]
    pub(in crate::cores) fn begin_turn(&mut self) {
        self.left = channels_per_turn_max();
    }

    /// Of the connections that have subscriptions left, the one that ended first.
    pub(super) fn first(&self) -> Option<(ConnectionId, Option<SessionId>)> {
        self.queue.front().copied()
    }

    /// Removes the first connection: it has no subscriptions left.
    pub(super) fn finish_first(&mut self) {
        self.queue.pop_front();
    }

    /// Adds a connection that has ended and has subscriptions left.
    pub(super) fn keep(&mut self, id: ConnectionId, session: Option<SessionId>) {
        self.queue.push_back((id, session));
    }

    /// How many subscriptions this turn may still end.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Counts subscriptions that were ended.
    pub(super) fn count(&mut self, ended: usize) {
        self.left -= ended;
    }
}

/// [`CHANNELS_PER_TURN_MAX`], or the limit of a simulation.
pub(in crate::cores) fn channels_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.channels_per_turn_max;
    }
    CHANNELS_PER_TURN_MAX
}

/// Channels that a turn goes through: of one connection, to end its subscriptions or to check them, and of all
/// connections together that end. At 0.3 µs each, they take as long as a flood of messages may.
pub(in crate::cores) const CHANNELS_PER_TURN_MAX: usize = 256;
