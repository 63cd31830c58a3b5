//! How connections end, one by one and all together.
//!
//! [`Core::close`] is the one way out, whatever the cause: there a connection is unsubscribed, its session and the
//! application are told, and its end is counted, once. What follows (close frame, answer, FIN) is only manners.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tracing::{debug, error, warn};

use crate::app::App;
use crate::broker::Sequence;
use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::decision::{Blame, CloseReason, Limit};
use crate::metrics::block::Handshake;
use crate::websocket::close::CloseFrame;
use crate::websocket::message::Receiver;

use crate::cores::Core;
use crate::cores::arrivals::accept::{ACCEPTS_PER_TURN_MAX, Accepting};
use crate::cores::lifecycle::connection::{ConnectionId, Leftover, Open, Phase};
use crate::cores::operators::report::session_id;
use crate::cores::outgoing::connections::Connections;

/// All clients are being closed.
#[derive(Debug)]
pub(in crate::cores) struct Draining {
    stage: Stage,
    /// Connections whose closes are spread over the time, the oldest first.
    known: BinaryHeap<Came>,
    /// Connections that have not introduced themselves yet, and could only be cut off: they are let in, and closed when the
    /// time is over.
    coming: BinaryHeap<Came>,
    /// Connections that came while the server was draining: closed last.
    late: VecDeque<ConnectionId>,
    /// The generation of the last connection before the list was begun.
    last: u32,
    /// How many were known.
    spread: usize,
    /// How many of them have been taken from the list.
    closed: usize,
    /// The place in the ring up to which has to be delivered before the next are closed.
    after: Option<Sequence>,
    began: Uptime,
    within: Duration,
}

/// How far a drain has come. Each stage takes a bounded part of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What the kernel has completed for the listeners is accepted, so many at most. It is ours: nobody else could serve it.
    Backlog { accepts_left: usize },
    /// The listeners are closed. The connections are being listed, from this place on.
    Listing { next: u32 },
    /// Connections are closed when their moment has come.
    Closing,
}

/// The age and the index of a connection: the oldest is the greatest.
type Came = (u32, u32);

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
    /// A close frame, then FIN: what the peer sends is thrown away, since it would take memory to look for its close frame.
    LastFrame,
}

impl<A: App> Core<A> {
    /// Ends a connection.
    pub(in crate::cores) fn close(&mut self, id: ConnectionId, reason: CloseReason) {
        self.close_saying(id, reason, "");
    }

    /// Ends a connection, with a text in the close frame, cut to what fits.
    pub(in crate::cores) fn close_saying(&mut self, id: ConnectionId, reason: CloseReason, text: &str) {
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
            Phase::ProxyHeader { .. } | Phase::Request { .. } | Phase::LoggingIn { .. } => None,
            Phase::Open(open) => {
                // What it sends now is only looked through for its close frame. What it has published is published.
                (connection.held_back, connection.limited, connection.meter) = (false, false, None);
                if let Some(stalled) = connection.suspended.take() {
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
                    Leave::Fin | Leave::CloseFrame | Leave::LastFrame => {}
                }
                return;
            }
        };
        self.alive -= 1;
        if was_handshaking {
            self.metrics.tls_handshakes[Handshake::Abandoned.index()].add(1);
        }
        self.connections.end_conflation(
            id,
            matches!(leave(reason), Leave::CloseFrame) && !reason.drops_unsent(),
        );
        self.count_end(id, reason);
        // Probes come every few seconds for ever: the last ends would be nothing else.
        if reason != CloseReason::Probed {
            self.note_end(id, session, reason);
        }
        match (leave(reason), receiver) {
            (Leave::Drop, _) | (Leave::CloseFrame | Leave::LastFrame, None) => {
                self.drop_socket(id);
                return;
            }
            (Leave::Empty, _) => {
                self.empty(id);
                return;
            }
            (Leave::Fin, _) => {}
            (Leave::LastFrame, Some(_)) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.leftover = Leftover::default();
                }
            }
            (Leave::CloseFrame, Some(receiver)) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.phase = Phase::Closing { receiver, deadline };
                }
            }
        }
        if reason.drops_unsent() {
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
        self.connections.note_input(id);
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
        self.connections.note_input(id);
    }

    /// Gives the socket and the place back.
    pub(in crate::cores) fn drop_socket(&mut self, id: ConnectionId) {
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
    pub(in crate::cores) fn end_those_found(&mut self) {
        while let Some((id, reason)) = self.connections.ending.pop() {
            self.close(id, reason);
        }
    }

    /// Closes connections until all of them together hold no more than they may: always one of those that hold most. What
    /// would be too many for this turn is left for the next, and nothing is delivered meanwhile.
    #[inline]
    pub(in crate::cores) fn shed(&mut self) {
        if self.connections.must_shed() {
            self.shed_some();
        }
    }

    #[cold]
    fn shed_some(&mut self) {
        if self.now.uptime >= self.shed_told_again && self.connections.holds_most().is_some() {
            self.shed_told_again = self.now.uptime + SHED_TOLD_EVERY;
            warn!(
                core = self.id.index(),
                bytes_max = self.connections.held.bytes_max,
                "outbox_bytes_total_max is reached: the connections that hold most are closed; GET /slow lists them, \
                 ringcast_held_bytes tells what is held"
            );
        }
        while self.shed_left > 0
            && !self.connections.has_shed()
            && let Some(id) = self.connections.holds_most()
        {
            self.shed_left -= 1;
            let is_over = self.connections.get(id).is_some_and(|one| one.phase.is_over());
            if is_over {
                // Its end has been told; what it still holds would take as long as it likes.
                self.metrics.limit_hit(Limit::OutboxBytesTotal);
                self.drop_socket(id);
            } else {
                self.close(id, CloseReason::HoldsMost);
            }
        }
    }

    /// Whether connections are still to be closed for what all of them hold.
    pub(in crate::cores) fn is_shedding(&self) -> bool {
        self.connections.must_shed() && self.connections.holds_most().is_some()
    }

    /// Begins to close all clients.
    pub(in crate::cores) fn drain(&mut self, within: Duration) {
        if self.draining.is_none() {
            // A listener may still be on its way.
            self.receive_hand_overs();
            self.accept_the_last();
            self.draining = Some(Draining::new(self.now.uptime, within));
            self.metrics.drain_left.set(self.alive);
        }
    }

    /// Goes on with a drain, as far as a turn may. True when no connection is left, nor on its way from another core.
    pub(in crate::cores) fn drain_some(&mut self) -> bool {
        let Some(draining) = &mut self.draining else {
            return false;
        };
        if let Stage::Backlog { accepts_left } = draining.stage {
            if self.accepting == Accepting::Ready && accepts_left > 0 {
                let accepts_left = accepts_left.saturating_sub(ACCEPTS_PER_TURN_MAX);
                draining.stage = Stage::Backlog { accepts_left };
                return false;
            }
            self.listeners.close();
            self.loads.close();
            draining.begin_list(&self.connections);
        }
        if !draining.list_some(&self.connections) {
            return false;
        }
        if draining.is_due(self.now.uptime) {
            // What was acknowledged to its publisher reaches those who are closed now; a publication to many may be
            // under way.
            let after = *draining.after.get_or_insert_with(|| self.broker.reader.claimed());
            if self.broker.reader.has_passed(after) {
                draining.after = None;
                self.close_due();
            }
        }
        self.abandoned.is_empty() && self.loads.is_closed_and_empty()
    }

    fn close_due(&mut self) {
        for _ in 0..CLOSES_PER_TURN_MAX.min(places_per_turn_max()) {
            let Some(id) = self
                .draining
                .as_mut()
                .and_then(|draining| draining.next_due(self.now.uptime))
            else {
                return;
            };
            self.close(id, CloseReason::Draining);
        }
    }

    /// Whether a drain has something to do in the next turn, whatever comes.
    pub(in crate::cores) fn has_drain_work(&self) -> bool {
        self.draining
            .as_ref()
            .is_some_and(|draining| match draining.stage {
                Stage::Backlog { .. } | Stage::Listing { .. } => true,
                // Else it waits for a delivery, which keeps the core awake.
                Stage::Closing => draining.after.is_none() && draining.is_due(self.now.uptime),
            })
    }

    /// Tells how many the drain has still to close, after a flush: when the gauge falls, the close frames have been sent.
    pub(in crate::cores) fn tell_drain(&self) {
        if self.draining.is_some() {
            self.metrics.drain_left.set(self.alive);
        }
    }
}

impl Draining {
    fn new(began: Uptime, within: Duration) -> Draining {
        Draining {
            stage: Stage::Backlog {
                accepts_left: LAST_ACCEPTS_MAX,
            },
            known: BinaryHeap::new(),
            coming: BinaryHeap::new(),
            late: VecDeque::new(),
            last: 0,
            spread: 0,
            closed: 0,
            after: None,
            began,
            within,
        }
    }

    fn begin_list(&mut self, connections: &Connections) {
        self.last = connections.last_generation();
        self.stage = Stage::Listing { next: 0 };
    }

    /// Lists some more connections, without which no turn is late; true when all are listed.
    fn list_some(&mut self, connections: &Connections) -> bool {
        let Stage::Listing { next } = self.stage else {
            return true;
        };
        let mut effort = places_per_turn_max() * EFFORT_OF_A_CONNECTION;
        for index in next..connections.places() {
            if effort == 0 {
                self.stage = Stage::Listing { next: index };
                return false;
            }
            let Some(connection) = connections.at(index) else {
                effort -= 1;
                continue;
            };
            effort = effort.saturating_sub(EFFORT_OF_A_CONNECTION);
            if !connection.phase.is_over() {
                self.list(connection.id, connection.phase.is_opening());
            }
        }
        self.stage = Stage::Closing;
        true
    }

    fn list(&mut self, id: ConnectionId, is_opening: bool) {
        // One that came while the others were listed is younger than the last.
        let age = match id.age(self.last) {
            age if age > u32::MAX / 2 => 0,
            age => age,
        };
        if is_opening {
            self.coming.push((age, id.index()));
        } else {
            self.spread += 1;
            self.known.push((age, id.index()));
        }
    }

    /// One more, that came while draining.
    pub(in crate::cores) fn add(&mut self, id: ConnectionId) {
        let will_be_listed = match self.stage {
            Stage::Backlog { .. } => true,
            Stage::Listing { next } => id.index() >= next,
            Stage::Closing => false,
        };
        if !will_be_listed {
            self.late.push_back(id);
        }
    }

    fn is_due(&self, now: Uptime) -> bool {
        if self.is_over(now) {
            !self.known.is_empty() || !self.coming.is_empty() || !self.late.is_empty()
        } else {
            self.closed < self.due(now)
        }
    }

    /// The next to be closed by now.
    fn next_due(&mut self, now: Uptime) -> Option<ConnectionId> {
        if !self.is_due(now) {
            return None;
        }
        self.closed += 1;
        let listed = match self.known.pop() {
            None => self.coming.pop(),
            known => known,
        };
        match listed {
            Some((age, index)) => Some(ConnectionId::new(index, self.last.wrapping_sub(age))),
            None => self.late.pop_front(),
        }
    }

    fn is_over(&self, now: Uptime) -> bool {
        now.since(self.began) >= self.within
    }

    /// How many of the known should be closed by now: an even share of the time for each, the first at once.
    fn due(&self, now: Uptime) -> usize {
        let elapsed = now.since(self.began).as_millis();
        let within = self.within.as_millis().max(1);
        let share = self.spread as u128 * elapsed / within + 1;
        usize::try_from(share).unwrap_or(usize::MAX).min(self.spread)
    }
}

/// [`PLACES_PER_TURN_MAX`], or what a simulation has in its place.
fn places_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.places_per_turn_max;
    }
    PLACES_PER_TURN_MAX
}

/// As many as a backlog holds.
const LAST_ACCEPTS_MAX: usize = 65_536;
/// Connections that a drain lists in one turn: each is a miss of the cache, 0.2 ms for all.
const PLACES_PER_TURN_MAX: usize = 2048;
/// What it costs to list one, in looks at places that are vacant.
const EFFORT_OF_A_CONNECTION: usize = 4;
/// Connections that a drain closes in one turn, at 5 µs each.
const CLOSES_PER_TURN_MAX: usize = 64;

fn leave(reason: CloseReason) -> Leave {
    match reason {
        CloseReason::RequestTimeout | CloseReason::BadProxyHeader => Leave::Drop,
        CloseReason::PeerVanished => Leave::Empty,
        // The answer has been queued: HTTP, or the echo of the peer's close frame.
        CloseReason::PeerClosed | CloseReason::HttpAnswered | CloseReason::Probed => Leave::Fin,
        // What follows a broken frame cannot be read: as the reference's engine does, say so and send FIN.
        CloseReason::TlsFailed
        | CloseReason::ProtocolError
        | CloseReason::InvalidUtf8
        | CloseReason::BadCompression
        | CloseReason::MessageTooBig
        | CloseReason::InflatedTooBig
        | CloseReason::FrameTooBig
        | CloseReason::TooManyFragments => Leave::Fin,
        CloseReason::HoldsMost => Leave::LastFrame,
        CloseReason::HandshakeTimeout
        | CloseReason::MessageBeforeHandshake
        | CloseReason::CallIdMissing
        | CloseReason::HandshakeRefused(_)
        | CloseReason::PongTimeout
        | CloseReason::SigningFailed
        | CloseReason::SlowConsumer
        | CloseReason::WriteTimeout
        | CloseReason::RateExceeded
        | CloseReason::IdleTimeout
        | CloseReason::Draining
        | CloseReason::Application(_)
        | CloseReason::AuthenticationTimeout
        | CloseReason::Revoked => Leave::CloseFrame,
    }
}

/// Connections that one turn closes for what all of them hold: a few milliseconds of it.
pub(in crate::cores) const SHED_PER_TURN_MAX: u32 = 256;
/// How often that is said.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// A drain of connections with these generations, of which those from `coming` on have not introduced themselves.
    fn drain(generations: &[u32], coming: usize, last: u32, within: Duration) -> Draining {
        let mut drain = Draining::new(Uptime::from_ms(1000), within);
        drain.last = last;
        drain.stage = Stage::Listing { next: 0 };
        for (index, &generation) in generations.iter().enumerate() {
            let id = ConnectionId::new(index.try_into().unwrap(), generation);
            drain.list(id, index >= coming);
        }
        drain.stage = Stage::Closing;
        drain
    }

    /// The generations of those that are closed at this time.
    fn closed(drain: &mut Draining, ms: u64) -> Vec<u32> {
        let due = std::iter::from_fn(|| drain.next_due(Uptime::from_ms(ms)));
        let last = u32::MAX;
        due.map(|id| last - id.age(last)).collect()
    }

    #[test]
    fn a_drain_spreads_the_closes_over_its_time() {
        let generations: Vec<u32> = (0..103).collect();
        let mut drain = drain(&generations, 100, 102, Duration::from_secs(10));
        let mut count = |ms| closed(&mut drain, ms).len();
        assert_eq!(
            [
                count(1000),
                count(1100),
                count(6000),
                count(10_999),
                count(11_000)
            ],
            [1, 1, 49, 49, 3]
        );
    }

    #[test]
    fn those_that_came_first_are_closed_first_and_those_that_come_meanwhile_last() {
        // The generations have begun anew.
        let last = 3;
        let generations = [2, u32::MAX, 0, 3, u32::MAX - 1, 1];
        let mut drain = drain(&generations, 4, last, Duration::from_secs(10));
        drain.add(ConnectionId::new(9, 5));
        drain.add(ConnectionId::new(8, 4));
        assert_eq!(closed(&mut drain, 10_999), [u32::MAX, 0, 2, 3]);
        assert_eq!(closed(&mut drain, 11_000), [u32::MAX - 1, 1, 5, 4]);
    }

    #[test]
    fn a_drain_without_time_closes_all_at_once() {
        let mut drain = drain(&[0, 1, 2], 3, 2, Duration::ZERO);
        assert_eq!(closed(&mut drain, 1000), [0, 1, 2]);
    }
}
