//! Going on with connections that had to wait: for room in the ring, for a delivery, or for their next channels.
//!
//! Limits: `WALKS_PER_TURN_MAX`.

use crate::app::App;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{Connection, ConnectionId};
use crate::cores::lifecycle::reading::Why;

impl<A: App> Core<A> {
    /// Goes on with messages whose publication found the ring full, in the order in which they came.
    pub(in crate::cores) fn resume_stalled(&mut self) {
        self.abandoned
            .publish(&mut self.delivery, &mut self.connections, self.time.clock());
        if !self.abandoned.is_empty() {
            return;
        }
        for _ in 0..self.waiting.stalled_count() {
            let Some(id) = self.waiting.next_stalled() else {
                return;
            };
            let left = self.waiting.stalled_count();
            self.carry_out_suspended(id);
            if self.waiting.stalled_count() > left {
                // Still no room: the connections behind it have to wait as well.
                self.waiting.last_stalled_is_first();
                return;
            }
            self.take_in_again(id);
        }
    }

    /// Goes on with connections that had to come after a delivery.
    pub(in crate::cores) fn resume_held(&mut self) {
        for _ in 0..self.waiting.held_count() {
            let delivery = &self.delivery;
            let Some(id) = self.waiting.next_held(|place| delivery.has_passed(place)) else {
                return;
            };
            self.carry_out_suspended(id);
            self.take_in_again(id);
        }
    }

    /// Goes on with the channels of some connections, each in its turn.
    pub(in crate::cores) fn resume_walking(&mut self) {
        for _ in 0..self.waiting.walking_count().min(WALKS_PER_TURN_MAX) {
            if let Some(id) = self.waiting.next_walking() {
                self.carry_out_suspended(id);
                self.take_in_again(id);
            }
        }
    }

    /// Goes on with the input of a connection that was not read for a while, unless something keeps it from that again.
    pub(in crate::cores) fn take_in_again(&mut self, id: ConnectionId) {
        let is_suspended = |connection: &Connection| connection.reading.is_paused_by(Why::Work);
        if self
            .connections
            .get(id)
            .is_some_and(|connection| !is_suspended(connection))
        {
            self.begin_share();
            self.take_in(id, &mut []);
            self.read_again(id);
        }
    }
}

/// Connections whose channels one turn goes on with; the others have their turn later.
const WALKS_PER_TURN_MAX: usize = 8;
