//! Moves connections to the core that owns the client id of their MQTT session. All connections of a client
//! id meet on that core, which also keeps the session when its connection ends.
//!
//! A connection moves when its CONNECT is complete, before its session sees it. `lifecycle/moving.rs` says how.
//!
//! If the owner has no room in its box or too many sockets wait for it, the core tries again after a moment, within
//! `handshake_timeout`. If the owner has as many connections as it may have, or drains, the client is refused with
//! CONNACK.

use std::os::fd::OwnedFd;

use mio::Interest;
use mio::net::TcpStream;

use crate::app::App;
use crate::decision::{CloseReason, Limit};
use crate::mqtt::Version;
use crate::mqtt::encode::{self, ConnAckProperties, SessionPresent};
use crate::mqtt::reason::{ReasonCode, ReturnCode};
use crate::protocols::Content;
use crate::transport::port::Ticket;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Open, Phase};
use crate::cores::lifecycle::moving::{MovedConnection, Moving, Socket};
use crate::cores::lifecycle::reading::ReadUntil;
use crate::cores::post::letter::Letter;

/// The outcome of an attempt to move a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Moved {
    /// The connection is on its way.
    Yes,
    /// The connection is still here; the core tries again after a moment.
    NotYet,
    /// The connection is closed.
    Refused,
}

impl<A: App> Core<A> {
    /// Moves an open connection to another core. `rest` is the input that follows the bytes its session has
    /// kept.
    pub(in crate::cores) fn move_away(
        &mut self,
        id: ConnectionId,
        owner: usize,
        version: Version,
        rest: &[u8],
    ) -> Moved {
        if !self.post.has_room(owner) {
            return Moved::NotYet;
        }
        // The answer to the request of a WebSocket would not leave before the end of this turn.
        self.connections.flush_now(id);
        let Some(connection) = self.connections.get_mut(id) else {
            return Moved::Refused;
        };
        if connection.is_ending() {
            return Moved::NotYet;
        }
        if !self.acceptor.begin_move(owner) {
            self.metrics.limit_hit(Limit::ConnectionsPerCore);
            self.refuse_connect(id, version);
            return Moved::Refused;
        }
        let ticket = self.moves.next_ticket(self.id.index());
        let socket = &mut connection.stream.socket;
        if !self.acceptor.send_moving(owner, socket, ticket) {
            return Moved::NotYet;
        }
        // Otherwise this poll would go on to report the socket, which the other core keeps open. The socket
        // is registered, so the system does not refuse this.
        let _ = self.poll.registry().deregister(socket);
        if let Some(mut moving) = self.connections.remove_moved(id, ticket, rest) {
            moving.context = self.resources.scratch.common.app.contexts.take(id.token().0);
            self.post.send(owner, Letter::Moved(Box::new(moving)));
        }
        // CONNECT may contain a password, and lies in this core's buffers.
        self.resources.scratch.common.note_credentials();
        self.wheel.disarm(id.index());
        self.counts.connection_ends();
        self.metrics.connections.set(self.connections.len() as u64);
        Moved::Yes
    }

    /// Refuses the client of a connection that has no place on the core that owns its client id.
    fn refuse_connect(&mut self, id: ConnectionId, version: Version) {
        let mut packet = Vec::new();
        match version {
            Version::V3 | Version::V4 => {
                encode::connack(&mut packet, SessionPresent::No, ReturnCode::ServerUnavailable);
            }
            Version::V5 => encode::connack_5(
                &mut packet,
                SessionPresent::No,
                ReasonCode::ServerUnavailable,
                &ConnAckProperties::default(),
            ),
        }
        self.connections.send(id, Content::Binary, &packet);
        self.close(id, CloseReason::MqttRefused);
    }

    /// Takes the socket of a connection that comes from another core, or notes that it was lost.
    pub(in crate::cores) fn take_moved_socket(&mut self, ticket: Ticket, socket: Option<OwnedFd>) {
        match self.moves.socket(ticket, socket) {
            Socket::First => {}
            Socket::Complete(whole) => self.settle(whole),
            Socket::NoLetter => self.acceptor.give_place_back(),
        }
    }

    /// Takes the letter of a connection that comes from another core.
    pub(in crate::cores) fn take_moved_letter(&mut self, moving: Box<Moving>) {
        if let Some(whole) = self.moves.letter(moving) {
            self.settle(whole);
        }
    }

    /// Another core has stopped: no more connections come from it.
    pub(in crate::cores) fn end_moves_from(&mut self, core: usize) {
        for _ in 0..self.moves.note_stopped(core) {
            self.acceptor.give_place_back();
        }
    }

    /// Adds a connection that has come from another core to this core's table.
    fn settle(&mut self, (moving, socket): MovedConnection) {
        let moving = *moving;
        let (client, is_counted) = (moving.client, moving.is_counted);
        let Some(id) = socket.and_then(|socket| {
            let (wire, session) = (moving.wire, moving.session);
            let registry = self.poll.registry();
            let registered = self.connections.insert(
                TcpStream::from_std(socket.into()),
                client,
                Phase::Open(Open { wire, session }),
                |stream, id| registry.register(stream, id.token(), Interest::READABLE),
            );
            registered.ok()
        }) else {
            // The descriptor table is full, or the system has no memory to watch one more socket. The socket is closed.
            self.metrics.limit_hit(Limit::Descriptors);
            self.acceptor.give_place_back();
            if is_counted {
                self.acceptor.leave(&client);
            }
            return;
        };
        if let Some(context) = moving.context {
            self.resources.keep_context(id, context);
        }
        let has_tls = moving.tls.is_some();
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_counted = is_counted;
            connection.stream.tls = moving.tls;
            connection.opened = moving.opened;
            connection.tally = moving.tally;
            connection.framing = moving.framing;
            connection.meter = moving.meter;
            connection.leftover = moving.leftover;
            self.waiting.read_in_transition(connection, ReadUntil::End);
        }
        if !moving.unsent.is_empty() {
            self.connections
                .send_head(id, |bytes| bytes.extend_from_slice(&moving.unsent));
        } else if has_tls {
            self.connections.send_records(id);
        }
        self.metrics.moves.add(1);
        self.counts.connection_begins();
        self.metrics.connections.set(self.connections.len() as u64);
        self.arm(id);
        self.connections.note_input(id);
        if let Some(draining) = &mut self.draining {
            draining.add(id);
            self.metrics.drain_left.set(self.counts.alive());
        }
        if self.has_been_revoked(id) {
            self.close_saying(id, CloseReason::Revoked, "revoked");
        }
    }

    /// Whether an operator has revoked the claims of a connection that has moved. The connection may have
    /// been between two cores while each of them looked for connections with such claims.
    fn has_been_revoked(&self, id: ConnectionId) -> bool {
        let Some(Phase::Open(open)) = self.connections.get(id).map(|connection| &connection.phase) else {
            return false;
        };
        let tokens = &self.resources.policy.tokens;
        open.session
            .claims()
            .is_some_and(|claims| tokens.are_revoked(claims, self.time.now().unix_ms))
    }
}
