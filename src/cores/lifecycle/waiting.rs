//! The queues of connections that wait: to be read, for room in the ring, for a delivery, for their next
//! channels, for a commit of the store, for other cores, or to move to one.
//!
//! Limit: `LOOKS_FOR_FORMER_MAX` in each turn after a reload.
//!
//! A connection that ends stays in its queue until it is taken from there. By then its id names no
//! connection, or a connection that only has bytes to send.
//!
//! Invariants: those of `reading.rs`. Queues are entered here only, and a connection with suspended work stands in
//! exactly one of `stalled`, `awaiting_delivery`, `walking`, `awaiting_commit`, `awaiting_post` and `awaiting_move`.

use std::collections::VecDeque;

use crate::broker::Sequence;

use crate::cores::lifecycle::connection::{Connection, ConnectionId, Work};
use crate::cores::lifecycle::reading::{ReadUntil, Why};

/// The queues of one core.
#[derive(Debug, Default)]
pub(in crate::cores) struct Waiting {
    /// To be read without waiting for an event.
    unfinished: VecDeque<ConnectionId>,
    /// The same for connections that are being opened or closed, which share a limited part of each turn.
    transitional: VecDeque<ConnectionId>,
    /// Connections whose next publication has found the ring full.
    stalled: VecDeque<ConnectionId>,
    /// Connections whose next decision comes after the delivery of all publications before a place, in the order of the
    /// places.
    awaiting_delivery: VecDeque<(Sequence, ConnectionId)>,
    /// Connections with a decision about all of their channels: some channels are done in each turn.
    walking: VecDeque<ConnectionId>,
    /// Connections that wait for a commit of the store.
    awaiting_commit: VecDeque<ConnectionId>,
    /// MQTT connections whose CONNACK waits until their sessions are on disk, each with the save that has its session.
    /// They have no suspended work: their sessions take no packet.
    awaiting_save: VecDeque<(u64, ConnectionId)>,
    /// Whether some of these connections can go on in the next turn.
    has_saved: bool,
    /// Connections whose next decision needs a letter to another core, whose box is full.
    awaiting_post: VecDeque<ConnectionId>,
    /// Connections that are to move to another core, which has no room for them now.
    awaiting_move: VecDeque<ConnectionId>,
    /// Connections whose suspended decisions may have been made by former policies of channels.
    by_former_policies: VecDeque<ConnectionId>,
    /// Whether the next turn is to look at more of them.
    looks_for_former: bool,
}

/// The event that the decisions of a connection wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum WaitsFor {
    /// Room in the ring.
    Ring,
    /// The delivery of all publications before this place.
    Delivery(Sequence),
    /// The next turn, which goes through more of its channels.
    Channels,
    /// A commit of the store.
    Commit,
    /// Room in the boxes of other cores.
    Post,
    /// Room for the connection on another core.
    Move,
}

impl Waiting {
    /// Queues a connection to be read in the next turn without an event. A connection that keeps presenting tokens is
    /// queued with those that are being opened or closed.
    pub(in crate::cores) fn read_next_turn(&mut self, connection: &mut Connection) {
        if connection.reading.enter_queue(ReadUntil::End) {
            if connection.shows_tokens {
                self.transitional.push_back(connection.id);
            } else {
                self.unfinished.push_back(connection.id);
            }
        }
    }

    /// Queues a connection that is being opened or closed, behind the others of its kind.
    pub(in crate::cores) fn read_in_transition(&mut self, connection: &mut Connection, until: ReadUntil) {
        if connection.reading.enter_queue(until) {
            self.transitional.push_back(connection.id);
        }
    }

    /// Whether connections are to be read before any event of a turn.
    pub(in crate::cores) fn has_unread(&self) -> bool {
        !self.unfinished.is_empty() || !self.transitional.is_empty()
    }

    /// How many are to be read first in a turn.
    pub(in crate::cores) fn unfinished_count(&self) -> usize {
        self.unfinished.len()
    }

    /// The next connection to be read.
    pub(in crate::cores) fn next_unfinished(&mut self) -> Option<ConnectionId> {
        self.unfinished.pop_front()
    }

    /// The next connection to be read of those that are being opened or closed.
    pub(in crate::cores) fn next_transitional(&mut self) -> Option<ConnectionId> {
        self.transitional.pop_front()
    }

    /// Keeps the rest of a connection's work until it can continue. Until then the connection is not read.
    pub(in crate::cores) fn suspend(&mut self, connection: &mut Connection, work: Work, waits_for: WaitsFor) {
        connection.suspended = Some(work.into_parked());
        connection.reading.pause(Why::Work);
        match waits_for {
            WaitsFor::Ring => self.stalled.push_back(connection.id),
            WaitsFor::Delivery(place) => self.awaiting_delivery.push_back((place, connection.id)),
            WaitsFor::Channels => self.walking.push_back(connection.id),
            WaitsFor::Commit => self.awaiting_commit.push_back(connection.id),
            WaitsFor::Post => self.awaiting_post.push_back(connection.id),
            WaitsFor::Move => self.awaiting_move.push_back(connection.id),
        }
    }

    /// How many connections wait for room in the ring.
    pub(in crate::cores) fn stalled_count(&self) -> usize {
        self.stalled.len()
    }

    /// The connection that has waited longest for room in the ring.
    pub(in crate::cores) fn next_stalled(&mut self) -> Option<ConnectionId> {
        self.stalled.pop_front()
    }

    /// Moves the last connection of the queue to its front: it came from the front, and the ring still had no
    /// room for it.
    pub(in crate::cores) fn last_stalled_is_first(&mut self) {
        self.stalled.rotate_right(1);
    }

    /// How many connections wait for a delivery.
    pub(in crate::cores) fn awaiting_delivery_count(&self) -> usize {
        self.awaiting_delivery.len()
    }

    /// The next connection whose delivery is complete.
    pub(in crate::cores) fn next_awaiting_delivery(
        &mut self,
        has_passed: impl FnOnce(Sequence) -> bool,
    ) -> Option<ConnectionId> {
        let held = self
            .awaiting_delivery
            .pop_front_if(|(place, _)| has_passed(*place));
        held.map(|(_, id)| id)
    }

    /// How many connections wait for a commit.
    pub(in crate::cores) fn awaiting_commit_count(&self) -> usize {
        self.awaiting_commit.len()
    }

    /// The connection that has waited longest for a commit.
    pub(in crate::cores) fn next_awaiting_commit(&mut self) -> Option<ConnectionId> {
        self.awaiting_commit.pop_front()
    }

    /// Queues a connection whose CONNACK waits for a save.
    pub(in crate::cores) fn await_save(&mut self, save: u64, id: ConnectionId) {
        self.awaiting_save.push_back((save, id));
    }

    /// The save for which the CONNACK has waited longest.
    pub(in crate::cores) fn first_save(&self) -> Option<u64> {
        self.awaiting_save.front().map(|&(save, _)| save)
    }

    /// The connection whose CONNACK has waited longest.
    pub(in crate::cores) fn next_awaiting_save(&mut self) -> Option<ConnectionId> {
        self.awaiting_save.pop_front().map(|(_, id)| id)
    }

    /// Notes whether further connections whose sessions are on disk are left for the next turn.
    pub(in crate::cores) fn leave_saved(&mut self, has_saved: bool) {
        self.has_saved = has_saved;
    }

    /// How many connections have more channels to be gone through.
    pub(in crate::cores) fn walking_count(&self) -> usize {
        self.walking.len()
    }

    /// The next connection whose channels are gone through.
    pub(in crate::cores) fn next_walking(&mut self) -> Option<ConnectionId> {
        self.walking.pop_front()
    }

    /// How many connections wait to move to another core.
    pub(in crate::cores) fn awaiting_move_count(&self) -> usize {
        self.awaiting_move.len()
    }

    /// The connection that has waited longest to move.
    pub(in crate::cores) fn next_awaiting_move(&mut self) -> Option<ConnectionId> {
        self.awaiting_move.pop_front()
    }

    /// The core is about to follow other policies of channels: what is suspended now was decided by the former ones. A
    /// connection that waits to move has no decisions yet.
    pub(in crate::cores) fn note_other_policies(&mut self) {
        let deliveries = self.awaiting_delivery.iter().map(|(_, id)| id);
        let queues = [
            &self.stalled,
            &self.walking,
            &self.awaiting_commit,
            &self.awaiting_post,
        ];
        let suspended = queues.into_iter().flatten().chain(deliveries);
        self.by_former_policies.extend(suspended);
    }

    /// Whether decisions that were made by former policies are still suspended. `is_former` tells whether those of a
    /// connection are. One call looks at a part of the connections, and counts the others as such.
    pub(in crate::cores) fn has_former(&mut self, mut is_former: impl FnMut(ConnectionId) -> bool) -> bool {
        self.looks_for_former = false;
        for _ in 0..LOOKS_FOR_FORMER_MAX {
            let Some(&id) = self.by_former_policies.front() else {
                return false;
            };
            if is_former(id) {
                return true;
            }
            self.by_former_policies.pop_front();
        }
        self.looks_for_former = true;
        true
    }

    /// How many connections wait for room in the boxes of other cores.
    pub(in crate::cores) fn awaiting_post_count(&self) -> usize {
        self.awaiting_post.len()
    }

    /// The connection that has waited longest for such room.
    pub(in crate::cores) fn next_awaiting_post(&mut self) -> Option<ConnectionId> {
        self.awaiting_post.pop_front()
    }

    /// Whether the next turn can continue with some connection even if no event comes. Connections that wait
    /// for the ring or for other cores do not count: they are tried again after a moment (`turn.rs`).
    /// Connections that wait for a commit do not count either: the store wakes the core.
    pub(in crate::cores) fn has_work(&self) -> bool {
        !self.unfinished.is_empty()
            || !self.transitional.is_empty()
            || !self.awaiting_delivery.is_empty()
            || !self.walking.is_empty()
            || self.has_saved
            || self.looks_for_former
    }

    /// How long each queue is, by name.
    #[cfg(test)]
    pub(in crate::cores) fn lengths(&self) -> [(&'static str, usize); 10] {
        [
            ("unfinished", self.unfinished.len()),
            ("transitional", self.transitional.len()),
            ("stalled", self.stalled.len()),
            ("awaiting_delivery", self.awaiting_delivery.len()),
            ("walking", self.walking.len()),
            ("awaiting_commit", self.awaiting_commit.len()),
            ("awaiting_save", self.awaiting_save.len()),
            ("awaiting_post", self.awaiting_post.len()),
            ("awaiting_move", self.awaiting_move.len()),
            ("by_former_policies", self.by_former_policies.len()),
        ]
    }

    /// Checks the invariants of `reading.rs` for the places of one connection in the queues. Returns the
    /// broken one in words.
    #[cfg(test)]
    pub(in crate::cores) fn broken_invariant(&self, connection: &Connection) -> Option<String> {
        let id = connection.id;
        let times = |queue: &VecDeque<ConnectionId>| queue.iter().filter(|&&other| other == id).count();
        let reads = times(&self.unfinished) + times(&self.transitional);
        if reads != usize::from(connection.reading.is_queued()) {
            return Some(format!(
                "{id:?} is queued {reads} times: {:?}",
                connection.reading
            ));
        }
        let held = self
            .awaiting_delivery
            .iter()
            .filter(|(_, other)| *other == id)
            .count();
        let waits = times(&self.stalled)
            + held
            + times(&self.walking)
            + times(&self.awaiting_commit)
            + times(&self.awaiting_post)
            + times(&self.awaiting_move);
        let is_suspended = connection.suspended.is_some();
        if is_suspended != connection.reading.is_paused_by(Why::Work) || (is_suspended && waits != 1) {
            return Some(format!("{id:?} waits {waits} times: {:?}", connection.reading));
        }
        None
    }
}

/// Connections at which one turn looks for decisions of former policies, at 0.1 µs each.
const LOOKS_FOR_FORMER_MAX: usize = 1024;
