//! Puts new sockets into the table of connections: sockets that this core accepted, and sockets that another core
//! handed over.
//!
//! Limits: [`ACCEPTS_PER_TURN_MAX`].

use mio::Interest;

use crate::app::App;
use crate::clock::Uptime;
use crate::decision::Limit;

use crate::cores::arrivals::acceptor::{ACCEPTS_PER_TURN_MAX, AcceptedSocket, Arrived};
use crate::cores::arrivals::admission::Entry;
use crate::cores::arrivals::proxy_header;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::Phase;

impl<A: App> Core<A> {
    /// Accepts a bounded batch.
    #[inline]
    pub(in crate::cores) fn accept_batch(&mut self) {
        let now = self.time.now().uptime;
        if self.acceptor.is_ready(now) {
            self.accept_some(now);
        }
    }

    #[inline(never)]
    fn accept_some(&mut self, now: Uptime) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            if !self.acceptor.is_ready(now) {
                return;
            }
            if let Some(accepted) = self.acceptor.accept_one(now) {
                self.adopt(accepted);
            }
        }
    }

    /// Takes the sockets that other cores have handed over, and at the start of the server the listeners.
    pub(in crate::cores) fn receive_hand_overs(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match self.acceptor.receive_hand_over(self.poll.registry()) {
                Arrived::AcceptedSocket(accepted) => self.adopt(accepted),
                Arrived::Moved(ticket, socket) => self.take_moved_socket(ticket, socket),
                Arrived::Listener => self.mailbox.note_listener(),
                Arrived::LostListener(cause) => self.mailbox.note_lost_listener(cause),
                Arrived::Lost => {}
                Arrived::Nothing => return,
            }
        }
    }

    fn adopt(&mut self, accepted: AcceptedSocket) {
        let now = self.time.now().uptime;
        let client = accepted.client;
        // A trusted proxy connects for a client. The connection is counted when the client's address is known.
        let counted = if self.resources.policy.proxies.trusted.contain(&client) {
            Entry::Uncounted
        } else {
            self.acceptor.enter(&client)
        };
        if counted == Entry::Refused {
            return self.acceptor.refuse(accepted, now);
        }
        let is_counted = counted == Entry::Counted;
        let has_proxy_header = proxy_header::is_expected(&self.resources.policy, &client);
        let phase = Phase::begin(now, accepted.port, has_proxy_header, &self.limits);
        let registry = self.poll.registry();
        let registered = self
            .connections
            .insert(accepted.stream, client, phase, |stream, id| {
                // `watch_blocked` asks for writable events, once the socket has been found full.
                registry.register(stream, id.token(), Interest::READABLE)
            });
        let Ok(id) = registered else {
            // The system has no memory to watch one more socket. `insert` has dropped the socket, which has
            // closed it.
            self.metrics.limit_hit(Limit::Descriptors);
            self.acceptor.give_place_back();
            if is_counted {
                self.acceptor.leave(&client);
            }
            return;
        };
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_counted = is_counted;
        }
        self.counts.connection_begins();
        self.metrics.connections.set(self.connections.len() as u64);
        self.arm(id);
        if let Some(draining) = &mut self.draining {
            draining.add(id);
            self.metrics.drain_left.set(self.counts.alive());
        }
    }
}
