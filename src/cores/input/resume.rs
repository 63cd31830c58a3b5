//! Resumes connections that had to wait: for room in the ring, for a delivery, for the rest of their
//! channels, for other cores, or to move to one.
//!
//! Limits: `WALKS_PER_TURN_MAX`, `MOVES_PER_TURN_MAX`.

use crate::app::App;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{Connection, ConnectionId};
use crate::cores::lifecycle::reading::Why;

impl<A: App> Core<A> {
    /// Resumes connections whose publication found the ring full, in the order in which they came.
    /// Publications of connections that have closed come before them.
    #[inline]
    pub(in crate::cores) fn resume_stalled(&mut self) {
        if !self.abandoned.is_empty() || self.waiting.stalled_count() > 0 {
            self.resume_some_stalled();
        }
    }

    #[inline(never)]
    fn resume_some_stalled(&mut self) {
        self.abandoned.publish(
            &mut self.delivery,
            &mut self.connections,
            &mut self.resources.inspector(),
            self.time.clock(),
        );
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

    /// Resumes connections whose next decision comes after a delivery that is complete now.
    #[inline]
    pub(in crate::cores) fn resume_awaiting_delivery(&mut self) {
        if self.waiting.awaiting_delivery_count() > 0 {
            self.resume_delivered();
        }
    }

    #[inline(never)]
    fn resume_delivered(&mut self) {
        for _ in 0..self.waiting.awaiting_delivery_count() {
            let delivery = &self.delivery;
            let Some(id) = self
                .waiting
                .next_awaiting_delivery(|place| delivery.has_passed(place))
            else {
                return;
            };
            self.carry_out_suspended(id);
            self.take_in_again(id);
        }
    }

    /// Continues decisions about all channels of a connection, for some connections, in the order in which
    /// they came.
    #[inline]
    pub(in crate::cores) fn resume_walking(&mut self) {
        if self.waiting.walking_count() > 0 {
            self.resume_some_walking();
        }
    }

    #[cold]
    fn resume_some_walking(&mut self) {
        for _ in 0..self.waiting.walking_count().min(WALKS_PER_TURN_MAX) {
            if let Some(id) = self.waiting.next_walking() {
                self.carry_out_suspended(id);
                self.take_in_again(id);
            }
        }
    }

    /// Resumes connections whose next decision needs letters to other cores, while there is room for the
    /// letters.
    #[inline]
    pub(in crate::cores) fn resume_awaiting_post(&mut self) {
        if self.waiting.awaiting_post_count() > 0 {
            self.resume_some_awaiting_post();
        }
    }

    #[cold]
    fn resume_some_awaiting_post(&mut self) {
        for _ in 0..self.waiting.awaiting_post_count() {
            if self.presence.memberships.is_congested() {
                return;
            }
            if let Some(id) = self.waiting.next_awaiting_post() {
                self.carry_out_suspended(id);
                self.take_in_again(id);
            }
        }
    }

    /// Tries again to move connections to other cores, which had no room for them.
    #[inline]
    pub(in crate::cores) fn resume_moves(&mut self) {
        for _ in 0..self.waiting.awaiting_move_count().min(MOVES_PER_TURN_MAX) {
            if let Some(id) = self.waiting.next_awaiting_move() {
                self.carry_out_suspended(id);
                self.take_in_again(id);
            }
        }
    }

    /// Processes the kept input of a connection whose work has been resumed, unless the work was suspended again.
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

/// Connections whose channels one turn goes through. The others wait for a later turn.
const WALKS_PER_TURN_MAX: usize = 8;
/// Connections that one turn tries to move again. Each attempt examines their CONNECT, which takes about a
/// microsecond.
const MOVES_PER_TURN_MAX: usize = 64;
