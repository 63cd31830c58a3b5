//! Ends the subscriptions of connections that have ended, and removes MQTT connections that have ended from
//! channels with presence: a bounded number in each turn (`unsubscribing.rs`).

use crate::app::App;
use crate::clock::Uptime;
use crate::session::SessionId;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};
use crate::cores::lifecycle::reading::Why;

impl<A: App> Core<A> {
    /// Begins a turn: ends subscriptions of connections that have ended in earlier turns.
    #[inline]
    pub(in crate::cores) fn begin_unsubscribing(&mut self) {
        self.unsubscribing.begin_turn();
        if self.unsubscribing.has_work() {
            self.go_on_unsubscribing();
        }
        if self.presence.mqtt.has_leaving() {
            self.leave_some_mqtt_rooms();
        }
    }

    /// Whether connections that have ended have subscriptions or rooms left.
    pub(in crate::cores) fn has_unsubscribing(&self) -> bool {
        self.unsubscribing.has_work() || self.presence.mqtt.has_leaving()
    }

    #[inline(never)]
    fn leave_some_mqtt_rooms(&mut self) {
        let left = self.presence.leave_some_mqtt(self.unsubscribing.left());
        self.unsubscribing.count(left);
    }

    #[inline(never)]
    fn go_on_unsubscribing(&mut self) {
        while self.unsubscribing.left() > 0
            && let Some((id, session)) = self.unsubscribing.first()
        {
            if self.unsubscribe_some(id, session) > 0 {
                return;
            }
            self.unsubscribing.finish_first();
            self.connections.resume_publications(id);
            let kept = self.connections.get(id).map(|connection| &connection.phase);
            if matches!(kept, Some(Phase::Emptying { deadline }) if *deadline == Uptime::NEVER) {
                self.drop_socket(id);
            }
        }
    }

    /// Ends the subscriptions of a connection that ends now, or as many as this turn may still end.
    pub(super) fn begin_to_unsubscribe(&mut self, id: ConnectionId, session: Option<SessionId>) {
        if self.connections.mqtt.is_some() {
            self.presence.mqtt.end(id.index());
            self.leave_some_mqtt_rooms();
        }
        if !self.server_subscriptions.is_empty() {
            self.server_subscriptions.end(id.index());
        }
        if self.unsubscribe_some(id, session) > 0 {
            self.connections.stop_publications(id);
            self.unsubscribing.keep(id, session);
        }
    }

    /// Returns how many subscriptions are left.
    fn unsubscribe_some(&mut self, id: ConnectionId, session: Option<SessionId>) -> usize {
        let (index, max) = (id.index(), self.unsubscribing.left());
        let subscriptions = self.delivery.subscriptions();
        let before = subscriptions.count_of(index);
        if before == 0 {
            return 0;
        }
        if self
            .presence
            .memberships
            .leave_some(index, session, max, subscriptions)
        {
            self.presence.due = self.time.now().uptime;
        }
        self.connections.end_some_recoveries(index, max);
        let left = self.delivery.unsubscribe_some(index, max);
        self.unsubscribing.count(before - left);
        left
    }

    /// Frees everything that an ended connection has but its place in the table: its remaining subscriptions
    /// name that place.
    #[cold]
    pub(super) fn keep_place(&mut self, id: ConnectionId) {
        self.connections.drop_unsent(id);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.phase = Phase::Emptying {
            deadline: Uptime::NEVER,
        };
        connection.reading.pause(Why::Emptying);
        // The system refuses this only for a socket that is not registered: then no event will come either.
        let _ = self.poll.registry().deregister(&mut connection.stream.socket);
        if std::mem::take(&mut connection.is_counted) {
            self.acceptor.leave(&connection.client);
        }
        self.arm(id);
    }
}
