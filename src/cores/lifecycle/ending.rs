//! Ends connections.
//!
//! [`Core::close`] is the only way to end a connection, whatever the cause: there it is unsubscribed, its
//! session and the application are told, and its end is counted, once. All later steps (a farewell, an
//! answer, FIN) concern the peer alone.

use tracing::{debug, error, warn};

use crate::app::App;
use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::decision::{Blame, CloseReason, Limit};
use crate::metrics::block::Handshake;
use crate::protocols::{Farewell, Wire};
use crate::session::SessionId;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Leftover, Open, Phase, Work};
use crate::cores::lifecycle::reading::Why;
use crate::cores::lifecycle::recent_ends::End;
use crate::cores::lifecycle::timers::next_timer;

/// The last bytes that the server sends to a peer when its connection ends.
enum Leave {
    /// No bytes: the socket is dropped at once.
    Drop,
    /// The queued bytes, if the peer still reads. The peer has ended its direction, or both; or it is an MQTT
    /// client that has sent DISCONNECT and so sends nothing any more (MQTT-3.14.4-2): to wait for its FIN
    /// would cost two system calls and a turn.
    Empty,
    /// The bytes that are queued, then FIN.
    Fin,
    /// A farewell of the wire. The core waits for the peer's farewell, and then sends FIN.
    Farewell,
    /// A farewell of the wire, then FIN. Input is discarded: to look for the peer's farewell in it would take
    /// memory.
    LastWords,
}

impl<A: App> Core<A> {
    /// Ends a connection.
    pub(in crate::cores) fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        self.close_saying(id, reason, "");
    }

    /// Ends a connection. The farewell holds as much of `text` as fits.
    pub(in crate::cores) fn close_saying(&mut self, id: ConnectionId, reason: CloseReason, text: &str) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let framing = connection.framing;
        let was_handshaking = connection.stream.is_handshaking();
        let deadline = self.time.now().uptime + self.limits.close_timeout;
        let finishing = Phase::Finishing {
            deadline,
            fin_sent: false,
        };
        let session = connection.phase.session_id();
        let reading = connection.reading;
        let was_paused = [Why::Replies, Why::Rate, Why::Decision]
            .iter()
            .any(|why| reading.is_paused_by(*why));
        let mut last_packet = Vec::new();
        let wire = match std::mem::replace(&mut connection.phase, finishing) {
            Phase::ProxyHeader { .. } | Phase::Request { .. } | Phase::LoggingIn { .. } => None,
            Phase::Open(open) => {
                // From now on the core looks in the input for the peer's farewell alone. The decided
                // publications are still made.
                connection.meter = None;
                connection.reading.resume(Why::Replies);
                connection.reading.resume(Why::Rate);
                connection.reading.resume(Why::Decision);
                let work = connection.take_suspended();
                // No packet comes before CONNACK (MQTT-3.2.0-1), and CONNACK waits behind this work.
                let awaits_connack = work.as_ref().is_some_and(|work| work.resumes_session());
                if let Some(work) = work
                    && self.abandon(&work) > 0
                {
                    let sessions = self.connections.mqtt.as_deref_mut();
                    open.session
                        .publications_dropped(&work.decisions, work.at, sessions);
                }
                if !awaits_connack {
                    let settings = &self.resources.settings;
                    open.session
                        .write_farewell(reason, text, settings, &mut last_packet);
                }
                Some(self.end_session(id, open, reason))
            }
            // Only the socket is left.
            before @ (Phase::Closing { .. } | Phase::Finishing { .. } | Phase::Emptying { .. }) => {
                connection.phase = before;
                match leave(reason) {
                    Leave::Drop => self.drop_socket(id),
                    Leave::Empty => self.empty(id),
                    Leave::Fin | Leave::Farewell | Leave::LastWords => {}
                }
                return;
            }
        };
        self.counts.connection_ends();
        if was_handshaking {
            self.metrics.tls_handshakes[Handshake::Abandoned.index()].add(1);
        }
        self.connections.end_batching(id);
        self.connections.end_conflation(
            id,
            matches!(leave(reason), Leave::Farewell) && !reason.drops_unsent(),
        );
        self.count_end(id, reason);
        // Probes come every few seconds for ever, and would push all other ends out of the list.
        if reason != CloseReason::Probed {
            self.note_end(id, session, reason);
        }
        if self.begin_leaving(id, reason, wire, deadline) {
            self.send_last(id, reason, framing.farewell(reason, text, &last_packet));
            if was_paused {
                // The peer's farewell may be in input that was not read meanwhile, and no event will report
                // it.
                self.read_again(id);
            }
        }
    }

    /// Begins to send the last bytes to the peer of a connection whose session has ended. Returns whether any
    /// are left to send, its farewell or the FIN: then the connection is in the phase for that. Otherwise its
    /// socket is dropped or emptied.
    fn begin_leaving(
        &mut self,
        id: ConnectionId,
        reason: CloseReason,
        wire: Option<Wire>,
        deadline: Uptime,
    ) -> bool {
        let leave = if reason == CloseReason::MqttDisconnected && self.connections.is_plain_mqtt(id) {
            Leave::Empty
        } else {
            leave(reason)
        };
        match (leave, wire) {
            (Leave::Drop, _) | (Leave::Farewell | Leave::LastWords, None) => {
                self.drop_socket(id);
                return false;
            }
            (Leave::Empty, _) => {
                self.empty(id);
                return false;
            }
            (Leave::Fin, _) => {}
            (Leave::LastWords, Some(_)) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.leftover = Leftover::default();
                }
            }
            (Leave::Farewell, Some(wire)) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    if connection.framing.has_farewells() {
                        connection.phase = Phase::Closing { wire, deadline };
                    } else {
                        connection.leftover = Leftover::default();
                    }
                }
            }
        }
        true
    }

    /// Queues the farewell, or sends the FIN if there is none.
    fn send_last(&mut self, id: ConnectionId, reason: CloseReason, farewell: Option<Farewell<'_>>) {
        if reason.drops_unsent() {
            self.connections.discard_unsent(id);
        }
        if let Some(farewell) = farewell {
            self.connections.send_farewell(id, &farewell);
        } else {
            // If no bytes are queued, the FIN is due at once.
            self.connections.finish(id);
        }
        self.arm(id);
        self.connections.note_input(id);
    }

    /// Ends the session of an open connection and its subscriptions: all, or the first of very many. The session tells
    /// the application.
    fn end_session(&mut self, id: ConnectionId, mut open: Open, reason: CloseReason) -> Wire {
        self.connections.end_recoveries(id);
        self.begin_to_unsubscribe(id, open.session.id());
        if open.session.is_open() {
            self.session_ends(id, &open, reason);
        }
        self.leave_will(id, open.session.id(), reason);
        open.session.ended(
            &mut self
                .resources
                .environment(self.time.now(), id, self.connections.mqtt.as_deref_mut()),
            reason,
        );
        self.services.note_ended(id.token().0);
        self.resources.scratch.common.app.contexts.take(id.token().0);
        self.resources.scratch.common.app.timers.forget(id.token().0);
        open.wire
    }

    fn count_end(&self, id: ConnectionId, reason: CloseReason) {
        self.metrics.closes[reason.index()].add(1);
        if let Some(limit) = reason.limit() {
            self.metrics.limit_hit(limit);
        }
        let (core, connection) = (self.id.index(), id.index());
        let client = self
            .connections
            .get(id)
            .map_or(ClientAddress::UNKNOWN, |connection| connection.client);
        match reason.blame() {
            Blame::Bug => error!(
                core,
                connection,
                %client,
                reason = reason.label(),
                "connection closed by a fault of this server"
            ),
            Blame::Nobody | Blame::Peer | Blame::Limit | Blame::Draining | Blame::App | Blame::Operator => {
                debug!(core, connection, %client, reason = reason.label(), "connection closed");
            }
        }
    }

    /// Asks for a visit at the connection's deadline.
    pub(in crate::cores) fn arm(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            let deadline = connection
                .deadline(&self.resources.settings, &self.measures)
                .min(next_timer(connection, &self.resources.scratch.common.app.timers));
            connection.armed = self.wheel.arm(id.index(), deadline);
        }
    }

    /// Notes the end of a connection for operators. `session` is the id of the session that has ended with
    /// it.
    fn note_end(&mut self, id: ConnectionId, session: Option<SessionId>, reason: CloseReason) {
        if let Some(connection) = self.connections.get(id) {
            self.ends.note(End {
                reason,
                at_unix_ms: self.time.now().unix_ms,
                protocol: session.map(|_| connection.framing.protocol()),
                id: session,
                client: connection.client,
                age: connection.opened.age(self.time.now().uptime),
                tally: connection.tally,
            });
        }
    }

    /// Drops the socket as soon as its outbox is empty: a peer that ended only its own direction still reads.
    /// If the peer is gone altogether, the flush fails, which empties the outbox as well.
    fn empty(&mut self, id: ConnectionId) {
        let deadline = self.time.now().uptime + self.limits.close_timeout;
        if let Some(connection) = self.connections.get_mut(id)
            && !matches!(connection.phase, Phase::Emptying { .. })
        {
            connection.phase = Phase::Emptying { deadline };
            connection.reading.pause(Why::Emptying);
            self.arm(id);
        }
        if self.connections.flush_now(id) {
            self.drop_socket(id);
        }
        self.connections.note_input(id);
    }

    /// Closes the socket, and gives the connection's place back: at once, or with its last subscription.
    pub(in crate::cores) fn drop_socket(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if connection.outbox.takes_no_publications() {
            return self.keep_place(id);
        }
        if connection.is_counted {
            self.acceptor.leave(&connection.client);
        }
        self.connections.remove(id);
        self.wheel.disarm(id.index());
        self.acceptor.give_place_back();
        self.metrics.connections.set(self.connections.len() as u64);
    }

    /// Closes the connections that a delivery or a flush has marked (`Why::Ending`). Only the turn calls this, never a
    /// publication.
    #[inline]
    pub(in crate::cores) fn close_marked(&mut self) {
        if self.connections.has_ending() {
            self.close_some_marked();
        }
    }

    #[inline(never)]
    fn close_some_marked(&mut self) {
        while let Some((id, reason)) = self.connections.next_ending() {
            self.close(id, reason);
            if let Some(connection) = self.connections.get_mut(id) {
                connection.reading.resume(Why::Ending);
                self.read_again(id);
            }
        }
    }

    /// Closes connections until all of them together hold no more than they may: each time one of those that
    /// hold most. If there are too many for this turn, the next turn closes the rest, and nothing is
    /// delivered meanwhile. True if any were closed.
    #[inline]
    pub(in crate::cores) fn shed(&mut self) -> bool {
        self.connections.must_shed() && self.shed_some()
    }

    #[cold]
    fn shed_some(&mut self) -> bool {
        if self.connections.holds_most().is_some() && self.shedding.may_tell(self.time.now().uptime) {
            warn!(
                core = self.id.index(),
                bytes_max = self.connections.held.bytes_max,
                "outbox_bytes_total_max is reached: the connections that hold most are closed; GET /slow lists them, \
                 ringcast_held_bytes tells what is held"
            );
        }
        let mut has_closed = false;
        while !self.connections.has_shed()
            && let Some(id) = self.connections.holds_most()
            && self.shedding.take_one()
        {
            has_closed = true;
            let is_over = self.connections.get(id).is_some_and(|one| one.phase.is_over());
            if is_over {
                // The connection has ended already, and its end is counted. Its peer could delay the last
                // bytes for long.
                self.metrics.limit_hit(Limit::OutboxBytesTotal);
                self.drop_socket(id);
            } else {
                self.close(id, CloseReason::HoldsMost);
            }
        }
        has_closed
    }

    /// Keeps the publications of a connection that ends before the ring had room for them.
    fn abandon(&mut self, work: &Work) -> u64 {
        let given_up = self.abandoned.keep(work);
        self.metrics.limit_hits[Limit::AbandonedBytes.index()].add(given_up);
        given_up
    }

    /// Puts a connection that was not read for a while first in the next turn, if its socket may hold input.
    pub(in crate::cores) fn read_again(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.reading.is_paused()
            && (connection.reading.may_hold_more() || connection.has_input())
        {
            self.waiting.read_next_turn(connection);
        }
    }
}

fn leave(reason: CloseReason) -> Leave {
    match reason {
        CloseReason::RequestTimeout | CloseReason::BadProxyHeader => Leave::Drop,
        CloseReason::PeerVanished => Leave::Empty,
        // The answer was queued: HTTP, or the answer to the peer's own farewell.
        CloseReason::PeerClosed | CloseReason::HttpAnswered | CloseReason::Probed => Leave::Fin,
        CloseReason::MqttDisconnected
        | CloseReason::MqttRefused
        | CloseReason::NotMqtt
        | CloseReason::NotStored => Leave::Fin,
        // The bytes behind a broken frame cannot be read: as the reference's engine does, say so and send FIN.
        CloseReason::TlsFailed
        | CloseReason::ProtocolError
        | CloseReason::InvalidUtf8
        | CloseReason::BadCompression
        | CloseReason::MessageTooBig
        | CloseReason::InflatedTooBig
        | CloseReason::FrameTooBig
        | CloseReason::TooManyFragments
        | CloseReason::TextFrame
        | CloseReason::MalformedMqtt
        | CloseReason::MqttProtocolError
        | CloseReason::TopicAliasInvalid
        | CloseReason::RetainNotSupported
        | CloseReason::TooManyUserProperties => Leave::Fin,
        CloseReason::HoldsMost => Leave::LastWords,
        CloseReason::HandshakeTimeout
        | CloseReason::HandshakeMissing
        | CloseReason::MalformedPacket
        | CloseReason::HandshakeRefused(_)
        | CloseReason::PongTimeout
        | CloseReason::SigningFailed
        | CloseReason::SlowConsumer
        | CloseReason::WriteTimeout
        | CloseReason::HistoryLost
        | CloseReason::RateExceeded
        | CloseReason::IdleTimeout
        | CloseReason::Draining
        | CloseReason::Application(_)
        | CloseReason::AuthenticationTimeout
        | CloseReason::ReceiveMaximumExceeded
        | CloseReason::TokenExpired
        | CloseReason::NoLongerAllowed
        | CloseReason::KeepAliveTimeout
        | CloseReason::TakenOver
        | CloseReason::Revoked => Leave::Farewell,
    }
}
