//! Decisions carried out, in order.
//!
//! When a publication finds the ring full, the rest of its message and of the input is kept and the connection is not
//! read until the ring has room. The same holds while a delivery is under way that has to come before the rest
//! (`delivery.rs`), and while a decision about all of a connection's channels is carried out, some in each turn.
//!
//! Limits: `CHANNELS_PER_TURN_MAX` of one connection, gone on with for `WALKS_PER_TURN_MAX` connections.

use crate::app::App;
use crate::broker::{CoreSet, RingFull, Sequence, SubscriptionLimits};
use crate::decision::{CloseReason, Decision, Decisions, Limit, Span, SubscribeOutcome, UnsubscribeOutcome};
use crate::protocols::Session;
use crate::websocket::frame::OpCode;

use crate::cores::Core;
use crate::cores::lifecycle::connection::{Awaited, ConnectionId, Phase, Work};

impl<A: App> Core<A> {
    /// Carries decisions out in order. If the ring is full, or a delivery has to come first, the connection keeps those
    /// that are left, and what is decided meanwhile (by a timer, by a late answer) queues behind them.
    pub(in crate::cores) fn carry_out(&mut self, id: ConnectionId, mut work: Work) {
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(before) = &mut connection.suspended
        {
            let had_room = before.decisions.append(&mut work.decisions);
            before.asked = None;
            before.then = before.then.or(work.then).or_else(|| no_room(had_room));
            self.decisions = work.decisions;
            self.connections.note_input(id);
            return;
        }
        self.publish_ns = None;
        if work.decisions.is_overfull() {
            work = Work::new(Decisions::new(), Err(CloseReason::MessageTooBig));
        }
        loop {
            if let Some(place) = self.awaits(&work)
                && let Some(connection) = self.connections.get_mut(id)
                // Who is gone sees no order.
                && matches!(connection.phase, Phase::Open(_))
            {
                connection.suspended = Some(work.parked());
                self.held.push_back((place, id));
                self.connections.note_input(id);
                return;
            }
            let Some(decision) = work.decisions.decision(work.at) else {
                break;
            };
            match self.carry_out_one(id, decision, &mut work) {
                Ok(Outcome::Next { done }) => {
                    work.at += done;
                    work.from = 0;
                    work.awaited = Awaited::Unknown;
                }
                Ok(Outcome::Published(place)) => {
                    work.at += 1;
                    work.awaited = Awaited::Published(place);
                }
                Ok(Outcome::Asked) => {
                    let place = work.asked.get_or_insert_with(|| self.broker.reader.claimed());
                    work.awaited = Awaited::Asked(*place);
                }
                Ok(Outcome::More { from }) => {
                    work.from = from;
                    if let Some(connection) = self.connections.get_mut(id)
                        && matches!(connection.phase, Phase::Open(_))
                    {
                        connection.suspended = Some(Box::new(work));
                        self.walking.push_back(id);
                        return;
                    }
                    // It has ended: it has no channels any more.
                }
                Ok(Outcome::Closed) => {
                    work.then = None;
                    break;
                }
                Err(RingFull { .. }) => {
                    if !work.waited {
                        work.waited = true;
                        self.metrics.ring_stalls.add(1);
                        self.metrics.limit_hit(Limit::Ring);
                    }
                    if let Some(connection) = self.connections.get_mut(id)
                        && matches!(connection.phase, Phase::Open(_))
                    {
                        connection.suspended = Some(work.parked());
                        self.stalled.push_back(id);
                        self.connections.note_input(id);
                    } else {
                        self.leave_behind(&work);
                    }
                    return;
                }
            }
        }
        if let Some(reason) = work.then {
            self.close(id, reason);
        }
        self.decisions = work.decisions;
    }

    fn carry_out_one(
        &mut self,
        id: ConnectionId,
        decision: Decision,
        work: &mut Work,
    ) -> Result<Outcome, RingFull> {
        if changes_subscriptions(decision) && !matches!(work.awaited, Awaited::Asked(_)) {
            return Ok(Outcome::Asked);
        }
        let decisions = &mut work.decisions;
        match decision {
            Decision::Send { .. } => {
                let done = self.connections.send_texts(id, decisions.texts_from(work.at));
                return Ok(Outcome::Next { done });
            }
            Decision::SendBinary { message } => self.send(id, OpCode::Binary, decisions.bytes(message)),
            Decision::Subscribe { channel, token } => self.subscribe(id, channel, token, decisions),
            Decision::Unsubscribe { channel, token } => self.unsubscribe(id, channel, token, decisions),
            Decision::KickOut { channel, message } => {
                self.remove_subscription(id, decisions.bytes(channel));
                self.send(id, OpCode::Text, decisions.bytes(message));
            }
            Decision::KickOutAll { reason } => {
                let next = self.kick_out_some(id, reason, work.from, decisions);
                return Ok(Outcome::of_walk(next));
            }
            // By who the client is now: the last look that was asked for does for all.
            Decision::CheckSubscriptions if asks_again(decisions, work.at) => {}
            Decision::CheckSubscriptions => {
                let next = self.check_subscriptions(id, work.from, decisions);
                return Ok(Outcome::of_walk(next));
            }
            Decision::Publish(publish) => {
                if !work.waited && (!self.stalled.is_empty() || !self.abandoned.is_empty()) {
                    // Room is for those that have waited for it.
                    return Err(RingFull { wake: CoreSet::EMPTY });
                }
                let place = self.publish(decisions, publish)?;
                return Ok(Outcome::Published(place));
            }
            Decision::Login => self.log_in_by_call(id, decisions),
            Decision::Close { reason, text } => {
                let text = String::from_utf8_lossy(decisions.bytes(text));
                self.close_saying(id, reason, &text);
                return Ok(Outcome::Closed);
            }
        }
        Ok(Outcome::Next { done: 1 })
    }

    /// Sends a message, unless the connection has ended in the middle of its decisions: its own publication may have
    /// been the one that its outbox did not take, and nothing may follow a close frame (RFC 6455 section 5.5.1).
    pub(in crate::cores) fn send(&mut self, id: ConnectionId, opcode: OpCode, message: &[u8]) {
        if self.session(id).is_some() {
            self.connections.send(id, opcode, message);
        }
    }

    /// A subscription sees exactly the publications after it: those before have been delivered.
    fn subscribe(&mut self, id: ConnectionId, channel: Span, token: Option<Span>, decisions: &mut Decisions) {
        if self.session(id).is_none() {
            return;
        }
        let name = decisions.bytes(channel);
        let hash = self.broker.hasher.hash(name);
        let limits = SubscriptionLimits {
            channels_max: self.limits.channels_per_connection_max,
            names_bytes_max: self.limits.channel_names_bytes_max,
        };
        let outcome = self
            .broker
            .subscriptions
            .subscribe(id.index(), name, hash, limits);
        self.metrics.subscriptions.set(self.broker.subscriptions.len());
        match outcome {
            SubscribeOutcome::Subscribed => {}
            SubscribeOutcome::TooMany { .. } => self.metrics.limit_hit(Limit::ChannelsPerConnection),
            SubscribeOutcome::TooLong { .. } => self.metrics.limit_hit(Limit::ChannelNamesBytes),
        }
        if let Some(session) = self.session(id)
            && let Some(answer) = session.subscribed(channel, token, outcome, decisions)
        {
            self.send(id, OpCode::Text, decisions.bytes(answer));
        }
    }

    fn unsubscribe(
        &mut self,
        id: ConnectionId,
        channel: Span,
        token: Option<Span>,
        decisions: &mut Decisions,
    ) {
        let outcome = self.remove_subscription(id, decisions.bytes(channel));
        if let Some(session) = self.session(id)
            && let Some(answer) = session.unsubscribed(channel, token, outcome, decisions)
        {
            self.send(id, OpCode::Text, decisions.bytes(answer));
        }
    }

    pub(in crate::cores) fn remove_subscription(
        &mut self,
        id: ConnectionId,
        name: &[u8],
    ) -> UnsubscribeOutcome {
        if self.session(id).is_none() {
            return UnsubscribeOutcome::NotSubscribed;
        }
        let hash = self.broker.hasher.hash(name);
        if self.connections.is_conflating(id)
            && let Some(channel) = self.broker.subscriptions.number_of(name, hash)
        {
            self.connections.forget_conflated(id, channel);
        }
        let outcome = self.broker.subscriptions.unsubscribe(id.index(), name, hash);
        self.metrics.subscriptions.set(self.broker.subscriptions.len());
        outcome
    }

    /// Kicks a connection out of some of its channels; returns where to go on, if there are more.
    fn kick_out_some(
        &mut self,
        id: ConnectionId,
        reason: Option<Span>,
        from: u32,
        decisions: &mut Decisions,
    ) -> Option<u32> {
        self.session(id)?;
        let (names, next) = self.some_channels_of(id, from);
        for name in names {
            self.remove_subscription(id, &name);
            if let Some(session) = self.session(id) {
                let message = session.kicked_out(&name, reason, decisions);
                self.send(id, OpCode::Text, decisions.bytes(message));
            }
        }
        next
    }

    /// The names of as many of a connection's channels as one turn may go through, and where to go on.
    pub(in crate::cores) fn some_channels_of(
        &self,
        id: ConnectionId,
        from: u32,
    ) -> (Vec<Box<[u8]>>, Option<u32>) {
        self.broker
            .subscriptions
            .some_channels_of(id.index(), from, channels_per_turn_max())
    }

    /// Goes on with the channels of some connections, each in its turn.
    pub(in crate::cores) fn resume_walking(&mut self) {
        for _ in 0..self.walking.len().min(WALKS_PER_TURN_MAX) {
            if let Some(id) = self.walking.pop_front() {
                self.carry_on(id);
                self.take_in_again(id);
            }
        }
    }

    /// The session of an open connection.
    pub(in crate::cores) fn session(&mut self, id: ConnectionId) -> Option<&mut Session> {
        match &mut self.connections.get_mut(id)?.phase {
            Phase::Open(open) => Some(&mut open.session),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => None,
        }
    }
}

/// What became of a decision.
enum Outcome {
    /// So many decisions are done with.
    Next {
        done: usize,
    },
    /// What follows comes after the delivery of all before this place.
    Published(Sequence),
    /// It comes after the delivery of all that is published by now.
    Asked,
    /// It goes on in the next turn with the channels from there on.
    More {
        from: u32,
    },
    Closed,
}

impl Outcome {
    fn of_walk(next: Option<u32>) -> Outcome {
        match next {
            Some(from) => Outcome::More { from },
            None => Outcome::Next { done: 1 },
        }
    }
}

/// [`CHANNELS_PER_TURN_MAX`], or what a simulation has in its place.
fn channels_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.channels_per_turn_max;
    }
    CHANNELS_PER_TURN_MAX
}

/// Channels of one connection that a turn goes through, to end subscriptions or to look whether they may stay: at 0.3 µs
/// each, as long as a flood of messages may take.
pub(in crate::cores) const CHANNELS_PER_TURN_MAX: usize = 256;
/// Connections for which that is gone on with in one turn; the others have theirs later.
const WALKS_PER_TURN_MAX: usize = 8;

/// The end of a connection for which so much waits that no more can.
fn no_room(had_room: bool) -> Option<CloseReason> {
    (!had_room).then_some(CloseReason::SlowConsumer)
}

/// Whether the subscriptions are looked at again later in the same decisions.
fn asks_again(decisions: &Decisions, at: usize) -> bool {
    let later = decisions.list().iter().skip(at + 1);
    later
        .rev()
        .any(|decision| matches!(decision, Decision::CheckSubscriptions))
}

/// Whether a decision has its place in the order of publications.
fn changes_subscriptions(decision: Decision) -> bool {
    match decision {
        Decision::Subscribe { .. }
        | Decision::Unsubscribe { .. }
        | Decision::KickOut { .. }
        | Decision::KickOutAll { .. }
        | Decision::CheckSubscriptions => true,
        Decision::Send { .. }
        | Decision::SendBinary { .. }
        | Decision::Publish { .. }
        | Decision::Close { .. }
        | Decision::Login => false,
    }
}
