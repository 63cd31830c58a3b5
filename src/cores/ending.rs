//! How connections end, one by one and all together.
//!
//! [`Core::close`] is the one way out, whatever the cause: there a connection is unsubscribed, its session and the
//! application are told, and its end is counted, once. What follows (close frame, answer, FIN) is only manners.

use std::time::Duration;

use tracing::{debug, error};

use crate::app::App;
use crate::broker::Sequence;
use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::decision::{Blame, CloseReason};
use crate::metrics::block::Handshake;
use crate::websocket::close::CloseFrame;
use crate::websocket::message::Receiver;

use super::Core;
use super::connection::{ConnectionId, Open, Phase};
use super::report::session_id;

/// Clients being closed one after the other, those that came first before the others.
#[derive(Debug)]
pub(super) struct Draining {
    /// Those whose closes are spread, and behind them the others: who has not introduced himself yet could only be cut
    /// off. He is let in, and closed when the time is over.
    ids: Vec<ConnectionId>,
    /// How many of `ids` are spread.
    spread: usize,
    closed: usize,
    /// How many of `ids` have not ended yet, by themselves or by the drain.
    left: u64,
    /// The place in the ring up to which has to be delivered before the next are closed.
    after: Option<Sequence>,
    began: Uptime,
    within: Duration,
}

/// How a connection is taken leave of.
enum Leave {
    /// At once: there is nobody to say anything to.
    Drop,
    /// The peer has ended its direction, or both: what is queued, if it still reads.
    Empty,
    /// What is queued, then FIN.
    Fin,
    /// A close frame, then the peer's, then FIN.
    CloseFrame,
}

impl<A: App> Core<A> {
    /// Ends a connection.
    pub(super) fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        self.close_saying(id, reason, "");
    }

    /// Ends a connection, with a text in the close frame, cut to what fits.
    pub(super) fn close_saying(&mut self, id: ConnectionId, reason: CloseReason, text: &str) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let was_handshaking = connection.stream.is_handshaking();
        let deadline = self.now.uptime + self.limits.close_timeout;
        let finishing = Phase::Finishing {
            deadline,
            fin_sent: false,
        };
        let session = session_id(&connection.phase);
        let was_paused = connection.held_back || connection.limited;
        let receiver = match std::mem::replace(&mut connection.phase, finishing) {
            Phase::Preface { .. } | Phase::Request { .. } | Phase::LoggingIn { .. } => None,
            Phase::Open(open) => {
                // What it sends now is only looked through for its close frame. What it has published is published.
                (connection.held_back, connection.limited, connection.meter) = (false, false, None);
                if let Some(stalled) = connection.stalled.take() {
                    self.leave_behind(&stalled);
                }
                Some(self.leave(id, open, reason))
            }
            // All that is left is the socket.
            before @ (Phase::Closing { .. } | Phase::Finishing { .. } | Phase::Emptying { .. }) => {
                connection.phase = before;
                match leave(reason) {
                    Leave::Drop => self.drop_socket(id),
                    Leave::Empty => self.empty(id),
                    Leave::Fin | Leave::CloseFrame => {}
                }
                return;
            }
        };
        if let Some(draining) = &mut self.draining {
            draining.left -= 1;
        }
        if was_handshaking {
            self.metrics.tls_handshakes[Handshake::Abandoned.index()].add(1);
        }
        self.connections.end_conflation(
            id,
            matches!(leave(reason), Leave::CloseFrame) && reason != CloseReason::SlowConsumer,
        );
        self.count_end(id, reason);
        self.note_end(id, session, reason);
        match (leave(reason), receiver) {
            (Leave::Drop, _) | (Leave::CloseFrame, None) => {
                self.drop_socket(id);
                return;
            }
            (Leave::Empty, _) => {
                self.empty(id);
                return;
            }
            (Leave::Fin, _) => {}
            (Leave::CloseFrame, Some(receiver)) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.phase = Phase::Closing { receiver, deadline };
                }
            }
        }
        if reason == CloseReason::SlowConsumer {
            self.connections.discard_unsent(id);
        }
        if let Some(code) = reason.code() {
            self.connections.send_close(
                id,
                &CloseFrame {
                    code: Some(code),
                    reason: text,
                },
            );
        } else {
            // Nothing may be queued: then the FIN is due at once.
            self.connections.finish(id);
        }
        self.arm(id);
        if was_paused {
            // Its close frame may be in what was not read meanwhile, and no event will tell.
            self.take_in_kept(id);
        }
    }

    /// An open connection takes leave of its channels, its session and the application.
    fn leave(&mut self, id: ConnectionId, mut open: Open, reason: CloseReason) -> Receiver {
        self.broker.subscriptions.unsubscribe_all(id.index());
        self.metrics.subscriptions.set(self.broker.subscriptions.len());
        if open.session.is_open() {
            self.sessions_open -= 1;
            self.metrics.sessions.set(self.sessions_open);
        }
        open.session
            .ended(&mut self.lent.environment(self.now, id), reason);
        open.receiver
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

    /// Drops the socket as soon as its outbox is empty: a peer that ended only its own direction still reads. One that
    /// has gone altogether makes the flush fail, which empties the outbox as well.
    fn empty(&mut self, id: ConnectionId) {
        let deadline = self.now.uptime + self.limits.close_timeout;
        if let Some(connection) = self.connections.get_mut(id)
            && !matches!(connection.phase, Phase::Emptying { .. })
        {
            connection.phase = Phase::Emptying { deadline };
            self.arm(id);
        }
        if self.connections.flush_now(id) {
            self.drop_socket(id);
        }
    }

    /// Gives the socket and the place back.
    pub(super) fn drop_socket(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if connection.is_counted {
            self.admission.leave(&connection.client);
        }
        self.connections.remove(id);
        self.wheel.disarm(id.index());
        self.loads.end();
        self.metrics.connections.set(self.connections.len() as u64);
    }

    /// Ends those that were found to have ended while a list was being walked.
    pub(super) fn end_those_found(&mut self) {
        while let Some((id, reason)) = self.connections.ending.pop() {
            self.close(id, reason);
        }
    }

    /// Begins to close all clients.
    pub(super) fn drain(&mut self, within: Duration) {
        if self.draining.is_none() {
            // A listener may still be on its way.
            self.receive_hand_overs();
            // What the kernel has completed for this listener is ours; nobody else could serve it.
            self.accept_the_last();
            self.listeners.close();
            self.loads.close();
            let (known, coming) = self.connections.not_ended();
            let draining = Draining::new(known, coming, self.now.uptime, within);
            self.metrics.drain_left.set(draining.left);
            self.draining = Some(draining);
        }
    }

    /// Closes the clients whose moment has come. True when none is left, nor on its way from another core.
    pub(super) fn drain_some(&mut self) -> bool {
        let Some(draining) = &mut self.draining else {
            return false;
        };
        if draining.is_due(self.now.uptime) {
            // What was acknowledged to its publisher reaches those who are closed now; a publication to many may be
            // under way.
            let after = *draining.after.get_or_insert_with(|| self.broker.ring.claimed());
            if self.broker.ring.has_passed(after) {
                draining.after = None;
                while let Some(id) = self
                    .draining
                    .as_mut()
                    .and_then(|draining| draining.next_due(self.now.uptime))
                {
                    self.close(id, CloseReason::Draining);
                }
            }
        }
        self.orphans.is_empty() && self.loads.is_closed_and_empty()
    }

    /// Tells how many the drain has still to close, after a flush: when the gauge falls, the close frames have been sent.
    pub(super) fn tell_drain(&self) {
        if let Some(draining) = &self.draining {
            self.metrics.drain_left.set(draining.left);
        }
    }
}

impl Draining {
    /// The first in their order, evenly spread, the others at the end.
    fn new(
        mut ids: Vec<ConnectionId>,
        coming: Vec<ConnectionId>,
        began: Uptime,
        within: Duration,
    ) -> Draining {
        let spread = ids.len();
        ids.extend(coming);
        Draining {
            left: ids.len() as u64,
            ids,
            spread,
            closed: 0,
            after: None,
            began,
            within,
        }
    }

    /// One more, that came while draining.
    pub(super) fn add(&mut self, id: ConnectionId) -> u64 {
        self.ids.push(id);
        self.left += 1;
        self.left
    }

    fn is_due(&self, now: Uptime) -> bool {
        self.closed < self.due(now)
    }

    /// The next to be closed by now.
    fn next_due(&mut self, now: Uptime) -> Option<ConnectionId> {
        self.is_due(now).then(|| {
            self.closed += 1;
            self.ids[self.closed - 1]
        })
    }

    /// How many should be closed by now: an even share of the time for each, the first at once.
    fn due(&self, now: Uptime) -> usize {
        let elapsed = now.since(self.began).as_millis();
        let within = self.within.as_millis();
        if elapsed >= within {
            return self.ids.len();
        }
        let share = self.spread as u128 * elapsed / within + 1;
        usize::try_from(share).unwrap_or(usize::MAX).min(self.spread)
    }
}

fn leave(reason: CloseReason) -> Leave {
    match reason {
        CloseReason::RequestTimeout | CloseReason::BadProxyHeader => Leave::Drop,
        CloseReason::PeerVanished => Leave::Empty,
        // The answer has been queued: HTTP, or the echo of the peer's close frame.
        CloseReason::PeerClosed | CloseReason::HttpAnswered => Leave::Fin,
        // What follows a broken frame cannot be read: as the reference's engine does, say so and send FIN.
        CloseReason::TlsFailed
        | CloseReason::ProtocolError
        | CloseReason::InvalidUtf8
        | CloseReason::BadCompression
        | CloseReason::MessageTooBig
        | CloseReason::InflatedTooBig
        | CloseReason::FrameTooBig
        | CloseReason::TooManyFragments => Leave::Fin,
        CloseReason::HandshakeTimeout
        | CloseReason::MessageBeforeHandshake
        | CloseReason::CallIdMissing
        | CloseReason::HandshakeRefused(_)
        | CloseReason::PongTimeout
        | CloseReason::SigningFailed
        | CloseReason::SlowConsumer
        | CloseReason::RateExceeded
        | CloseReason::IdleTimeout
        | CloseReason::Draining
        | CloseReason::Application(_)
        | CloseReason::AuthenticationTimeout
        | CloseReason::Revoked => Leave::CloseFrame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_spreads_the_closes_over_its_time() {
        let ids = |indexes: std::ops::Range<u32>| indexes.map(|index| ConnectionId::new(index, 0)).collect();
        let mut drain = Draining::new(
            ids(0..100),
            ids(100..103),
            Uptime::from_ms(1000),
            Duration::from_secs(10),
        );
        let due = |ms| drain.due(Uptime::from_ms(ms));
        assert_eq!(
            [due(1000), due(1100), due(6000), due(10_999), due(11_000)],
            [1, 2, 51, 100, 103]
        );
        drain.add(ConnectionId::new(103, 0));
        let due = |ms| drain.due(Uptime::from_ms(ms));
        assert_eq!([due(1000), due(10_999), due(11_000)], [1, 100, 104]);
    }

    #[test]
    fn a_drain_without_time_closes_all_at_once() {
        let ids = (0..3).map(|index| ConnectionId::new(index, 0)).collect();
        let drain = Draining::new(ids, Vec::new(), Uptime::from_ms(0), Duration::ZERO);
        assert_eq!(drain.due(Uptime::from_ms(0)), 3);
    }
}
