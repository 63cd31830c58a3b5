//! Tells subscribers the positions of publications that the application has withheld (`outgoing/withheld.rs`), so that
//! they ask for recovery from there.
//!
//! A client that has no room in its outbox, or whose subscription is not live yet, is told in a later round.
//!
//! Limits: [`TOLD_PER_TURN_MAX`].

use crate::app::App;
use crate::broker::Position;
use crate::clock::Uptime;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};
use crate::cores::outgoing::recoveries::SubscriptionKey;

impl<A: App> Core<A> {
    /// Goes on with telling positions, if that is due.
    #[inline]
    pub(in crate::cores) fn tell_positions(&mut self) {
        if A::LOOKS_AT_DELIVERIES && self.connections.withheld.due() <= self.time.now().uptime {
            self.tell_some_positions();
        }
    }

    /// When positions are to be told next.
    #[inline]
    pub(in crate::cores) fn next_positions(&self) -> Uptime {
        match A::LOOKS_AT_DELIVERIES {
            true => self.connections.withheld.due(),
            false => Uptime::NEVER,
        }
    }

    /// The client unsubscribes, or asks for recovery: what was withheld from it before does not matter any more.
    pub(in crate::cores) fn forget_withheld(&mut self, id: ConnectionId, name: &[u8]) {
        if !self.connections.withheld.is_empty()
            && let Some(channel) = self.delivery.number_of(name)
        {
            self.connections.withheld.forget(SubscriptionKey {
                connection: id.index(),
                channel,
            });
        }
    }

    fn tell_some_positions(&mut self) {
        let now = self.time.now().uptime;
        let epoch = self.delivery.numbering().epoch;
        let mut message = Vec::new();
        for (place, offset) in self.connections.withheld.next_of_round(TOLD_PER_TURN_MAX, now) {
            if self.connections.recoveries.has(place) || self.connections.replay_room(place.connection) == 0 {
                continue;
            }
            let name = self.delivery.subscriptions().name_of(place.channel);
            let connection = self.connections.at(place.connection);
            message.clear();
            if let (Some((name, _)), Some(connection)) = (name, connection)
                && let Phase::Open(open) = &connection.phase
            {
                let (id, position) = (connection.id, Position { epoch, offset });
                open.session.position_told(name, position, &mut message);
                self.connections.send_texts(id, std::iter::once(&message[..]));
            }
            self.connections.withheld.pass(place, offset);
        }
    }
}

/// Positions that one turn looks at, and tells.
const TOLD_PER_TURN_MAX: usize = 1024;
