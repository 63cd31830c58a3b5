//! One turn of the loop.
//!
//! wait → read ready sockets → accept a bounded batch → drain the ring → due visits → flush outboxes with one system
//! call each: all that hold replies, and of those that hold only publications as many as the time allows.

use std::io;
use std::thread;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest, Token};

use crate::app::{App, LateAnswer};
use crate::clock::Uptime;
use crate::decision::{CloseReason, Limit};

use super::{Core, InheritedDescriptors};
use crate::cores::arrivals::accept::{Accepting, HAND_OVERS, LISTENER, TLS_LISTENER, WAKER};
use crate::cores::lifecycle::connection::{ConnectionId, Lane, Phase, Work};
use crate::cores::lifecycle::ending::SHED_PER_TURN_MAX;
use crate::cores::lifecycle::meter::Due;
use crate::cores::operators::mailbox::{CoreStatus, LATE_ANSWERS_WAITING_MAX, Order};
use crate::cores::operators::revoking::Revoking;

/// How far a connection is read that has had to wait for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum ReadUntil {
    /// Up to a read that does not fill the buffer: whatever comes behind it is an event of its own.
    ShortRead,
    /// Until the socket says that it is empty, or its end: the event that told of a FIN may have passed.
    End,
}

impl<A: App> Core<A> {
    /// Turns until told to stop.
    pub(super) fn run(mut self) -> io::Result<InheritedDescriptors> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN_MAX);
        while !self.stopping {
            let timeout = if self.poll_busily(&mut events)? {
                Some(Duration::from_nanos(self.busy_poll_ns))
            } else {
                let timeout = self.timeout();
                self.wait(&mut events, timeout)?;
                timeout
            };
            let took_ns = self.take_turn(&events, timeout);
            if self.shares_cpu && (took_ns > YIELD_AFTER_NS || self.broker.reader.front_is_pending()) {
                thread::yield_now();
            }
        }
        Ok(self.end())
    }

    /// Lets go of everything but what has to be dropped elsewhere.
    pub(super) fn end(self) -> InheritedDescriptors {
        self.mailbox.set_status(CoreStatus::Stopped);
        InheritedDescriptors {
            _poll: self.poll,
            _hand_over: self.hand_over,
        }
    }

    /// Waits for events, so long at most.
    pub(super) fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Err(_) => events.clear(),
            Ok(()) => {}
        }
        Ok(())
    }

    /// One turn after a wait that was to take so long at most, at the time it is then. Returns how long it took.
    pub(super) fn take_turn(&mut self, events: &Events, timeout: Option<Duration>) -> u64 {
        self.broker.reader.awake();
        let before = self.now.uptime;
        (self.now, self.turn_began_ns) = self.clock.now_and_ns();
        // Neither a long turn nor a thread that the system did not run is silence of the clients.
        let slept = timeout.unwrap_or(Duration::MAX);
        if self.now.uptime.since(before) > slept.saturating_add(self.lent.settings.silence_max() / 4) {
            self.responsive_since = self.now.uptime;
        }
        self.turn(events);
        self.metrics.turns.add(1);
        let took_ns = self.clock.elapsed_ns() - self.turn_began_ns;
        self.metrics.turn_seconds.record_ns(took_ns);
        took_ns
    }

    fn turn(&mut self, events: &Events) {
        self.connections.now = self.now.uptime;
        self.connections.abandoned_bytes = self.abandoned.bytes();
        self.shed_left = SHED_PER_TURN_MAX;
        self.shed();
        self.begin_delivering();
        // What an earlier turn left over comes first.
        self.resume_walking();
        self.token_checks = 0;
        for _ in 0..self.unfinished.len() {
            if self.token_checks < TOKEN_CHECKS_MAX
                && let Some(id) = self.unfinished.pop_front()
            {
                self.read_left_over(id, ReadUntil::End);
                self.token_checks += self.lent.scratch.common.verifications();
            }
        }
        self.transition_ns = 0;
        while self.transition_ns < TRANSITION_BUDGET_NS
            && let Some((id, until)) = self.transitional.pop_front()
        {
            self.within_transition_budget(|core| core.read_left_over(id, until));
        }
        for event in events {
            self.take(event);
            self.shed();
        }
        if self.late_answers_waiting {
            self.take_late_answers();
            self.take_logins();
        }
        self.revoke_some();
        self.accept_batch();
        self.rejected.close_due(self.now.uptime, &mut self.read_buffer);
        if self.hand_overs_waiting {
            self.receive_hand_overs();
        }
        self.metrics.ring_depth.set(self.broker.reader.depth());
        if self.now.uptime >= self.memory_due {
            self.tell_memory();
        }
        self.deliver();
        self.resume_held();
        self.broker.publisher.reclaim_much();
        self.resume_stalled();
        self.connections.lane = Lane::Bulk;
        self.visit_due();
        if self.rules.has_unchecked() {
            self.check_some();
        }
        self.connections.lane = Lane::Prompt;
        if self.drain_some() {
            self.stopping = true;
        }
        self.flush();
        self.tell_drain();
        if self.questions_waiting {
            self.answer_questions();
        }
    }

    fn take(&mut self, event: &Event) {
        match event.token() {
            token @ (LISTENER | TLS_LISTENER) => self.listener_ready(token),
            WAKER => {
                self.late_answers_waiting = true;
                self.questions_waiting = true;
                self.take_orders();
            }
            HAND_OVERS => self.hand_overs_waiting = true,
            token => {
                let id = ConnectionId::from_token(token);
                if event.is_writable() {
                    self.connections.writable(id);
                }
                // One that has used up its share of this turn is read in the next, whatever the poll has to say.
                let is_unfinished = self
                    .connections
                    .get(id)
                    .is_some_and(|connection| connection.unfinished);
                let has_ended = event.is_read_closed() || event.is_error();
                if is_unfinished && has_ended {
                    // No other event will tell.
                    self.transitional.push_back((id, ReadUntil::End));
                } else if !is_unfinished && (event.is_readable() || has_ended) {
                    if self.is_transitional(id, has_ended) {
                        self.read_transitional(id, has_ended);
                    } else if self.token_checks < TOKEN_CHECKS_MAX {
                        self.read(id, has_ended);
                        self.token_checks += self.lent.scratch.common.verifications();
                    } else {
                        self.metrics.token_checks_deferred.add(1);
                        self.read_next_turn(id);
                    }
                }
            }
        }
    }

    fn read_left_over(&mut self, id: ConnectionId, until: ReadUntil) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.unfinished = false;
        let has_input = connection.has_input();
        self.begin_share();
        if has_input {
            // Whole messages may be among what was kept; until they are done with, nothing more is read.
            self.take_in(id, &mut []);
            if self
                .connections
                .get(id)
                .is_none_or(|connection| connection.unfinished)
            {
                return;
            }
        }
        self.read_on(id, until == ReadUntil::End);
    }

    /// Whether a connection has not introduced itself, or does it again and again by tokens, or its peer has gone.
    fn is_transitional(&self, id: ConnectionId, has_ended: bool) -> bool {
        let Some(connection) = self.connections.get(id) else {
            return false;
        };
        has_ended || connection.shows_tokens || connection.phase.is_opening()
    }

    /// Reads a connection that is coming or going, now or in a later turn. Upgrades, handshakes and ends cost more than a
    /// message, that of TLS a hundred times as much, as do signatures of tokens, and in a storm of them the poll tells of a
    /// thousand at once: they get a bounded time, then what the connected have waited for leaves. Whoever has to wait is served in the order of
    /// coming.
    fn read_transitional(&mut self, id: ConnectionId, has_ended: bool) {
        if self.transition_ns < TRANSITION_BUDGET_NS {
            self.within_transition_budget(|core| core.read(id, has_ended));
        } else if let Some(connection) = self.connections.get_mut(id) {
            connection.unfinished = true;
            self.metrics.transitions_deferred.add(1);
            let until = match has_ended {
                true => ReadUntil::End,
                false => ReadUntil::ShortRead,
            };
            self.transitional.push_back((id, until));
        }
    }

    fn within_transition_budget(&mut self, work: impl FnOnce(&mut Self)) {
        let before_ns = self.clock.elapsed_ns();
        work(self);
        let took_ns = self.clock.elapsed_ns().saturating_sub(before_ns);
        self.transition_ns += took_ns.max(TRANSITION_COST_NS_MIN);
    }

    fn take_orders(&mut self) {
        while let Some(order) = self.mailbox.try_receive() {
            match order {
                Order::Adopt(policy) => self.adopt_policy(policy),
                Order::Revoke { revocation, done } => {
                    self.revoking.push_back(Revoking::new(revocation, done));
                }
                Order::Drain { within } => {
                    self.mailbox.set_status(CoreStatus::Draining);
                    self.drain(within);
                }
                Order::Stop => self.stopping = true,
            }
        }
    }

    /// Takes as many answers as may wait; those that come meanwhile are first in the next turn.
    fn take_late_answers(&mut self) {
        self.metrics.limit_hits[Limit::LateAnswers.index()].add(self.mailbox.take_returned());
        for _ in 0..LATE_ANSWERS_WAITING_MAX {
            let Some(answer) = self.mailbox.try_receive_late() else {
                self.late_answers_waiting = false;
                return;
            };
            self.answer_late(answer);
        }
    }

    fn answer_late(&mut self, answer: LateAnswer) {
        let id = ConnectionId::from_token(Token(answer.address));
        // The client may have gone, or be going.
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.suspended.as_deref().is_some_and(Work::is_ending) {
            return;
        }
        // Answers to its own calls are bounded by not reading more of them; late ones are the application's to give.
        // After a burst within one turn the socket has not been asked yet.
        let bytes_max = self.limits.outbox_bytes_max as usize;
        if connection.waiting_bytes() > bytes_max {
            self.connections.flush_now(id);
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.waiting_bytes() > bytes_max {
            self.metrics.limit_hit(Limit::OutboxBytes);
            self.close(id, CloseReason::SlowConsumer);
            return;
        }
        let Phase::Open(open) = &mut connection.phase else {
            return;
        };
        let mut decisions = std::mem::take(&mut self.decisions);
        decisions.clear();
        let result =
            open.session
                .answer_late(answer, &mut self.lent.environment(self.now, id), &mut decisions);
        let sooner = self
            .wheel
            .is_sooner(open.session.next_deadline(&self.lent.settings), connection.armed);
        self.count_hits(id);
        self.carry_out(id, Work::new(decisions, result));
        if sooner {
            self.arm(id);
        }
    }

    /// Goes on with messages whose publication found the ring full, in the order in which they came.
    fn resume_stalled(&mut self) {
        self.publish_abandoned();
        if !self.abandoned.is_empty() {
            return;
        }
        for _ in 0..self.stalled.len() {
            let Some(id) = self.stalled.pop_front() else {
                return;
            };
            let left = self.stalled.len();
            self.carry_on(id);
            if self.stalled.len() > left {
                // Still no room: those behind it have to wait as well.
                self.stalled.rotate_right(1);
                return;
            }
            self.take_in_again(id);
        }
    }

    /// Gives back what publications no longer need, and tells the metrics what they and this core's tables take, once a
    /// second.
    fn tell_memory(&mut self) {
        self.memory_due = self.now.uptime + MEMORY_TOLD_EVERY;
        self.broker.publisher.give_back();
        self.connections.give_back();
        let (publisher, tables) = (&self.broker.publisher, self.connections.table_bytes());
        self.metrics.ring_bytes.set(publisher.lent_bytes() as u64);
        self.metrics.ring_kept_bytes.set(publisher.kept_bytes() as u64);
        self.metrics
            .table_bytes
            .set((tables + self.broker.subscriptions.table_bytes()) as u64);
    }

    /// Goes on with the decisions that a connection keeps.
    pub(super) fn carry_on(&mut self, id: ConnectionId) {
        let stalled = self
            .connections
            .get_mut(id)
            .and_then(|connection| connection.suspended.take());
        if let Some(stalled) = stalled {
            self.carry_out(id, *stalled);
            self.connections.note_input(id);
        }
    }

    /// Goes on with the input of a connection that was not read for a while, unless something keeps it from that again.
    pub(super) fn take_in_again(&mut self, id: ConnectionId) {
        self.begin_share();
        self.take_in_kept(id);
    }

    /// The same, in the middle of what another connection's share is for.
    pub(super) fn take_in_kept(&mut self, id: ConnectionId) {
        if self
            .connections
            .get(id)
            .is_some_and(|connection| connection.suspended.is_none())
        {
            self.take_in(id, &mut []);
            self.read_again(id);
        }
    }

    /// Visits the connections whose deadline may have come.
    fn visit_due(&mut self) {
        self.wheel.advance(self.now.uptime);
        let room = self.connections.room(1).max(VISITS_PER_TURN_MIN);
        for _ in 0..VISITS_PER_TURN_MAX.min(room) {
            let Some(index) = self.wheel.take_due() else {
                return;
            };
            if let Some(id) = self.connections.id_at(index) {
                self.visit(id);
                self.arm(id);
            }
        }
    }

    fn visit(&mut self, id: ConnectionId) {
        let now = self.now.uptime;
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.deadline(&self.lent.settings, &self.measures) > now {
            return;
        }
        // The others have their own time.
        let is_open = matches!(connection.phase, Phase::Open(_));
        if is_open && self.connections.takes_nothing(id, self.responsive_since) {
            return self.close(id, CloseReason::WriteTimeout);
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        match &mut connection.phase {
            Phase::ProxyHeader { .. } | Phase::Request { .. } | Phase::LoggingIn { .. } => {
                self.close(id, CloseReason::RequestTimeout);
            }
            Phase::Closing { deadline, .. }
            | Phase::Finishing { deadline, .. }
            | Phase::Emptying { deadline } => {
                // What was queued last could not leave while this core stood still.
                if self.responsive_since == now {
                    *deadline = now + self.limits.close_timeout;
                    return;
                }
                self.metrics.limit_hit(Limit::CloseTime);
                self.drop_socket(id);
            }
            Phase::Open(open) => {
                // A peer that is not read because of the ring, of its rate, or of those before it, is not silent by its own
                // fault; nor is one that was not pinged while this core stood still.
                if connection.suspended.is_some()
                    || connection.limited
                    || connection.unfinished
                    || open.session.last_heard_before(self.responsive_since)
                {
                    open.session.reset_silence_timer(self.now, &self.lent.settings);
                }
                connection.shows_tokens = false;
                if connection.suspended.as_deref().is_some_and(Work::is_ending) {
                    return;
                }
                let due = match &mut connection.meter {
                    None => Due::Nothing,
                    Some(meter) => meter.due(connection.tally.messages(), &self.measures, now),
                };
                if let Due::Close(reason) = due {
                    self.close(id, reason);
                    return;
                }
                connection.limited &= due != Due::Resume;
                let mut decisions = std::mem::take(&mut self.decisions);
                decisions.clear();
                let result = open
                    .session
                    .timed_out(&mut self.lent.environment(self.now, id), &mut decisions);
                self.count_hits(id);
                self.carry_out(id, Work::new(decisions, result));
                if due == Due::Resume {
                    self.take_in_again(id);
                }
            }
        }
    }

    /// Asks for a visit at the connection's deadline.
    pub(super) fn arm(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            let deadline = connection.deadline(&self.lent.settings, &self.measures);
            connection.armed = self.wheel.arm(id.index(), deadline);
        }
    }

    /// Sends what waits, what is not prompt as far as the time reaches. A longer turn sends as long as it took before, so
    /// that calls cannot keep publications from leaving. Sending may end connections and make others readable again.
    fn flush(&mut self) {
        let mut end_ns = None;
        self.connections.flush(|| {
            let now_ns = self.clock.elapsed_ns();
            let turn_ns = now_ns.saturating_sub(self.turn_began_ns);
            now_ns >= *end_ns.get_or_insert_with(|| now_ns + turn_ns.max(self.fan_out_slice_ns))
        });
        self.end_those_found();
        while let Some(id) = self.connections.resumed.pop() {
            self.take_in_again(id);
        }
        self.watch_blocked();
        self.record_latencies();
    }

    /// Has the poll tell when sockets that were found full take more, and visits them when they must have taken some.
    /// Before that it is not asked to: each socket that has just come would be an event, since it takes some.
    fn watch_blocked(&mut self) {
        while let Some(id) = self.connections.blocked.pop() {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            let interests = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            if registry
                .reregister(&mut connection.stream.socket, id.token(), interests)
                .is_err()
            {
                // It is registered, so the system has nothing to refuse.
                self.close(id, CloseReason::PeerVanished);
                continue;
            }
            self.arm(id);
        }
    }

    /// Puts a connection that was not read for a while first in the next turn.
    pub(super) fn read_again(&mut self, id: ConnectionId) {
        if self
            .connections
            .get(id)
            .is_some_and(|connection| connection.unread && !connection.is_paused())
        {
            self.read_next_turn(id);
        }
    }

    /// Whether the next turn has something to do whatever comes.
    pub(super) fn has_work_left(&self) -> bool {
        !self.unfinished.is_empty()
            || !self.transitional.is_empty()
            || self.wheel.has_due()
            || !self.held.is_empty()
            || !self.walking.is_empty()
            || self.hand_overs_waiting
            || self.late_answers_waiting
            || self.questions_waiting
            || !self.revoking.is_empty()
            || self.accepting == Accepting::Ready
            || self.rules.has_unchecked()
            || self.has_drain_work()
            || self.connections.has_unflushed()
            || self.is_shedding()
    }

    /// How long the poll may wait: not at all while work is left over, else until the next visit. Announces the sleep
    /// to the other cores, and looks at the ring a last time after that.
    pub(super) fn timeout(&mut self) -> Option<Duration> {
        if self.has_work_left() || !self.broker.reader.prepare_sleep() {
            return Some(Duration::ZERO);
        }
        self.metrics.ring_depth.set(0);
        let mut until = self.wheel.next().unwrap_or(Uptime::NEVER);
        if let Accepting::Paused(pause) = self.accepting {
            until = until.min(pause);
        }
        if let Some(due) = self.rejected.next() {
            until = until.min(due);
        }
        if !self.stalled.is_empty() || !self.abandoned.is_empty() {
            until = until.min(self.now.uptime + RING_RETRY);
        }
        if self.draining.is_some() {
            until = until.min(self.now.uptime + DRAIN_STEP);
        }
        if self.broker.publisher.keeps_much() {
            // Some of it goes back.
            until = until.min(self.memory_due);
        }
        (until != Uptime::NEVER).then(|| until.since(self.clock.uptime()))
    }
}

/// Events of one wait.
const EVENTS_PER_TURN_MAX: usize = 1024;
/// How long one turn reads connections that have not introduced themselves, or whose peers have gone: ten of them, at
/// 10 µs each, or one whose TLS handshake asks for an RSA signature. By so much they delay the others.
const TRANSITION_BUDGET_NS: u64 = 100_000;
/// A turn after which a core that shares its CPU with others lets them run, as it does when it waits for one of them to fill
/// a place of the ring. By itself the system takes the CPU from it at
/// its next tick only, which is 4 ms for each of them. A shorter turn is not worth the system call.
const YIELD_AFTER_NS: u64 = 100_000;
/// Tokens that one turn checks for those who have not shown one lately: then whoever else has sent something waits for the
/// next turn, so that what has been answered leaves. As long as 32 upgrades take, with RSA.
const TOKEN_CHECKS_MAX: u32 = 16;
/// What each of them counts for at least.
const TRANSITION_COST_NS_MIN: u64 = 10_000;
/// Visits of one turn, so that a heartbeat of a hundred thousand connections does not delay the rest.
const VISITS_PER_TURN_MAX: usize = 4096;
/// Visits of a turn that has more to deliver than it can: a core that is late with publications still pings its clients,
/// or it would take all of them for silent.
const VISITS_PER_TURN_MIN: usize = 256;
/// How often the metrics are told what memory is used for.
const MEMORY_TOLD_EVERY: Duration = Duration::from_secs(1);
/// How soon a full ring is tried again. Nobody wakes a core when room has come: room is made by cores that are busy.
const RING_RETRY: Duration = Duration::from_millis(1);
/// How often a draining core closes the next few.
const DRAIN_STEP: Duration = Duration::from_millis(10);
