//! The steps of a drain: each turn accepts, lists or closes some connections. `draining.rs` chooses the next
//! ones.

use std::time::Duration;

use crate::app::App;
use crate::decision::CloseReason;

use crate::cores::arrivals::acceptor::ACCEPTS_PER_TURN_MAX;
use crate::cores::core::Core;
use crate::cores::operators::draining::{CLOSES_PER_TURN_MAX, Draining, places_per_turn_max};

impl<A: App> Core<A> {
    /// Begins to close all clients.
    pub(in crate::cores) fn drain(&mut self, within: Duration) {
        if self.draining.is_none() {
            // A listener may still be on its way.
            self.receive_hand_overs();
            self.acceptor.accept_backlog();
            self.draining = Some(Draining::new(self.time.now().uptime, within));
            self.metrics.drain_left.set(self.counts.alive());
            if let Some(sessions) = &mut self.connections.mqtt {
                sessions.freeze();
            }
        }
    }

    /// Continues a drain, as far as a turn may. True when no connection is left or on its way from another
    /// core, and all work of ended connections is done.
    pub(in crate::cores) fn drain_some(&mut self) -> bool {
        let Some(draining) = &mut self.draining else {
            return false;
        };
        if draining.is_in_backlog() {
            if !self.acceptor.has_accepted_all() && draining.accept_more(ACCEPTS_PER_TURN_MAX) {
                return false;
            }
            self.acceptor.close();
            draining.begin_list(&self.connections);
        }
        if !draining.list_some(&self.connections) {
            return false;
        }
        if draining.is_due(self.time.now().uptime) {
            // Every publication that was acknowledged reaches its subscribers before they are closed. The delivery of a
            // publication to many may not be complete yet.
            let after = draining.deliver_first(|| self.delivery.claimed());
            if self.delivery.has_passed(after) {
                draining.has_delivered();
                self.close_due();
            }
        }
        let mqtt = self.connections.mqtt.as_deref();
        self.abandoned.is_empty()
            && self.acceptor.is_closed_and_empty()
            && !self.has_unsubscribing()
            && !mqtt.is_some_and(|sessions| sessions.has_ending())
    }

    fn close_due(&mut self) {
        for _ in 0..CLOSES_PER_TURN_MAX.min(places_per_turn_max()) {
            let Some(id) = self
                .draining
                .as_mut()
                .and_then(|draining| draining.next_due(self.time.now().uptime))
            else {
                return;
            };
            self.close(id, CloseReason::Draining);
        }
    }

    /// Whether a drain has something to do in the next turn even if no event comes.
    pub(in crate::cores) fn has_drain_work(&self) -> bool {
        let now = self.time.now().uptime;
        self.draining
            .as_ref()
            .is_some_and(|draining| draining.has_work(now))
    }

    /// Sets the gauge of connections that the drain has still to close. Called after a flush: when the gauge falls, the
    /// close frames have been sent.
    pub(in crate::cores) fn tell_drain(&self) {
        if self.draining.is_some() {
            self.metrics.drain_left.set(self.counts.alive());
        }
    }
}
