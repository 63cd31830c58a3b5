//! One turn of the loop.
//!
//! wait → suspended work and left-over input → read ready sockets, take orders → accept a bounded batch → take letters
//! of other cores → deliver publications from the ring → send histories to new subscribers → connections that waited
//! for a delivery or for the ring → deadlines that are due → write the outboxes, each with one system call: all
//! outboxes that hold replies, then as many outboxes with publications alone as the time allows.

use std::io;
use std::thread;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest};

use crate::app::App;
use crate::clock::Uptime;
use crate::decision::CloseReason;

use super::InheritedDescriptors;
use super::core::Core;
use crate::cores::arrivals::listeners::{
    HAND_OVERS, LISTENER, MQTT_LISTENER, MQTT_TLS_LISTENER, TLS_LISTENER, WAKER,
};
use crate::cores::lifecycle::connection::{ConnectionId, Lane};
use crate::cores::lifecycle::reading::ReadUntil;
use crate::cores::operators::mailbox::{CoreStatus, Order};
use crate::cores::operators::operations::Revoking;
use crate::cores::post::letter::Letter;

impl<A: App> Core<A> {
    /// Takes turns until an order or the end of a drain stops the core.
    pub(super) fn run(mut self) -> io::Result<InheritedDescriptors> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN_MAX);
        while !self.operations.is_stopping() {
            let timeout = if self.poll_busily(&mut events)? {
                Some(Duration::from_nanos(self.busy_poll_ns))
            } else {
                let timeout = self.timeout();
                self.wait(&mut events, timeout)?;
                timeout
            };
            let took_ns = self.take_turn(&events, timeout);
            if self.yields_after(took_ns) {
                thread::yield_now();
            }
        }
        self.end_remembering_at_once();
        Ok(self.end())
    }

    /// Whether the core lets another core of its CPU run after a turn of this length.
    pub(super) fn yields_after(&mut self, took_ns: u64) -> bool {
        self.shares_cpu && (took_ns > YIELD_AFTER_NS || self.awaits_another_core())
    }

    /// Whether another core is about to fill the next slot of the ring, or to put the next letter into the box.
    fn awaits_another_core(&mut self) -> bool {
        self.delivery.reader().front_is_pending() || self.post.front_is_pending()
    }

    /// Drops the core, except for the descriptors that the joining thread must drop.
    pub(super) fn end(self) -> InheritedDescriptors {
        let id = self.id;
        self.delivery.wake(self.post.stop(|| Letter::Stopped(id)));
        self.mailbox.set_status(CoreStatus::Stopped);
        InheritedDescriptors {
            _poll: self.poll,
            _hand_over: self.acceptor.end(),
        }
    }

    /// Waits for events for `timeout` at most; `None` is for ever.
    pub(super) fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Err(_) => events.clear(),
            Ok(()) => {}
        }
        Ok(())
    }

    /// One turn, after a wait for events of `timeout` at most. Returns how many nanoseconds the turn took.
    pub(super) fn take_turn(&mut self, events: &Events, timeout: Option<Duration>) -> u64 {
        self.delivery.reader().mark_awake();
        self.time.begin_turn(timeout.unwrap_or(Duration::MAX));
        self.turn(events);
        self.metrics.turns.add(1);
        let took_ns = self.time.took_ns();
        self.metrics.turn_seconds.record_ns(took_ns);
        took_ns
    }

    #[inline]
    fn turn(&mut self, events: &Events) {
        self.begin_parts();
        self.take_input(events);
        self.take_orders_and_letters();
        self.deliver_and_resume();
        self.act_on_time();
        self.send_and_report();
    }

    /// Tells the parts of the core that a turn begins.
    #[inline]
    fn begin_parts(&mut self) {
        self.connections.now = self.time.now().uptime;
        self.connections.unix_ms = self.time.now().unix_ms;
        let timers = &mut self.resources.scratch.common.app.timers;
        timers.begin_turn(self.time.now().uptime);
        self.connections.abandoned_bytes = self.abandoned.bytes();
        self.shedding.begin_turn();
        self.begin_unsubscribing();
        self.shed();
        self.delivery.begin_delivering();
    }

    /// Goes on with what earlier turns have left of input, then reads the sockets that the poll has reported. Orders are
    /// taken in between, when their event comes.
    #[inline]
    fn take_input(&mut self, events: &Events) {
        self.resume_walking();
        self.read_left_over_connections();
        for event in events {
            self.handle_event(event);
            self.shed();
        }
    }

    /// Takes what other threads and other cores have for this one: late answers, new sockets, letters. What they ask for
    /// comes before the delivery, so that a question about a place in the ring is there when the place is reached.
    #[inline]
    fn take_orders_and_letters(&mut self) {
        if self.mailbox.has_answers() {
            self.take_late_answers();
            self.take_logins();
        }
        self.revoke_some();
        self.accept_batch();
        if self.acceptor.has_rejected() {
            self.acceptor
                .close_rejected(self.time.now().uptime, self.intake.buffer());
        }
        if self.acceptor.has_hand_overs() {
            self.receive_hand_overs();
        }
        self.metrics.ring_depth.set(self.delivery.depth());
        if self.time.now().uptime >= self.memory_due {
            self.tell_memory();
        }
        if self.tick.is_due(self.time.now().uptime) {
            self.tick();
        }
        if self.post.has_letters() || self.post.kept_count() > 0 {
            self.take_letters();
        }
        if self.keeps_state {
            self.publish_due_wills();
        }
        if self.connections.mqtt.is_some() {
            self.resume_moves();
            self.expire_mqtt_sessions();
        }
    }

    /// Delivers from the ring, then goes on with what waited for that: histories for new subscribers, connections that
    /// waited for a delivery, for room in the ring, or for a commit.
    #[inline]
    fn deliver_and_resume(&mut self) {
        self.deliver();
        if self.keeps_state {
            self.serve_recoveries();
        }
        self.tell_positions();
        self.serve_retained();
        self.resume_awaiting_delivery();
        self.delivery.publisher().reclaim_much();
        self.resume_stalled();
        if self.keeps_state {
            self.resume_awaiting_commit();
            self.maintain_owned_channels();
            self.end_overdue_history_calls();
        }
    }

    /// Does what is due: deadlines of connections, then the parts of long tasks that one turn may do (rules after a reload,
    /// members, a drain, calls, sessions). Pings and other messages of these deadlines leave when there is time; what
    /// follows a task leaves in this turn.
    #[inline]
    fn act_on_time(&mut self) {
        self.connections.lane = Lane::Bulk;
        self.visit_due();
        self.check_some();
        if self.keeps_state {
            self.serve_presence();
            self.resume_awaiting_post();
        }
        self.connections.lane = Lane::Prompt;
        if self.drain_some() && self.end_remembering() {
            self.operations.stop();
        }
        self.serve_services();
        if self.connections.mqtt.is_some() {
            self.serve_mqtt_shares();
        }
        self.wake_receivers();
        if self.connections.mqtt.is_some() {
            self.serve_mqtt_sessions();
        }
        if self.connections.batches.is_some() {
            self.connections.send_batches();
        }
        if self.resources.scratch.common.app.timers.has_unarmed() {
            self.arm_timers();
        }
    }

    /// Writes the outboxes to their sockets, and tells the store, the webhooks and operators what the turn has changed.
    #[inline]
    fn send_and_report(&mut self) {
        self.flush();
        if self.keeps_state && self.delivery.on_disk().is_some() {
            self.tell_store();
        }
        if self.webhooks.is_some() {
            self.tell_webhooks();
        }
        self.tell_drain();
        if self.mailbox.has_questions() {
            self.answer_questions();
        }
        self.wake_receivers();
    }

    /// Reads the connections that earlier turns have left in the queues, before any event of this turn: as
    /// many as the limits on checks of tokens and on transitions allow.
    #[inline]
    fn read_left_over_connections(&mut self) {
        self.shares.token_checks = 0;
        self.shares.decided_checks = 0;
        self.shares.transition_ns = 0;
        if self.waiting.has_unread() {
            self.read_some_left_over();
        }
    }

    #[inline(never)]
    fn read_some_left_over(&mut self) {
        for _ in 0..self.waiting.unfinished_count() {
            if self.shares.token_checks < TOKEN_CHECKS_MAX
                && let Some(id) = self.waiting.next_unfinished()
            {
                self.read_left_over(id);
                self.shares.token_checks += self.resources.scratch.common.verifications();
            }
        }
        while self.shares.transition_ns < TRANSITION_BUDGET_NS
            && let Some(id) = self.waiting.next_transitional()
        {
            self.within_transition_budget(|core| core.read_left_over(id));
        }
    }

    /// Delivers publications, then closes the subscribers that delivery has marked. If all connections together hold
    /// too much, it also closes some that hold most; that makes room, so delivery goes on.
    fn deliver(&mut self) {
        loop {
            self.delivery
                .deliver(&mut self.connections, &mut self.resources.inspector());
            self.close_marked();
            if !self.shed() {
                return;
            }
        }
    }

    /// Handles one event of the poll: a listener, this core's mailbox, sockets that another core hands over, or a
    /// connection.
    #[inline]
    fn handle_event(&mut self, event: &Event) {
        match event.token() {
            token @ (LISTENER | TLS_LISTENER | MQTT_LISTENER | MQTT_TLS_LISTENER) => {
                self.acceptor.note_ready(token)
            }
            WAKER => self.handle_wake_up(),
            HAND_OVERS => self.acceptor.note_hand_overs(),
            token => self.handle_connection_event(ConnectionId::from_token(token), event),
        }
    }

    /// Handles an event of a connection's socket: flushes it at the end of the turn if the socket takes more, and reads
    /// it now or in a later turn if it may hold input.
    #[inline]
    fn handle_connection_event(&mut self, id: ConnectionId, event: &Event) {
        if event.is_writable() {
            self.connections.writable(id);
        }
        // A connection that has used up its share of this turn is read in the next turn, even if the poll reports
        // input.
        let is_unfinished = self
            .connections
            .get(id)
            .is_some_and(|connection| connection.reading.is_queued());
        let has_ended = event.is_read_closed() || event.is_error();
        if is_unfinished && has_ended {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.reading.note_end();
            }
        } else if !is_unfinished && (event.is_readable() || has_ended) {
            if self.is_transitional(id, has_ended) {
                self.read_transitional(id, has_ended);
            } else if self.shares.token_checks < TOKEN_CHECKS_MAX {
                self.read(id, has_ended);
                self.shares.token_checks += self.resources.scratch.common.verifications();
            } else {
                self.metrics.token_checks_deferred.add(1);
                if let Some(connection) = self.connections.get_mut(id) {
                    self.waiting.read_next_turn(connection);
                }
            }
        }
    }

    /// Goes on with a connection that an earlier turn has put into a queue: first with the input that it has kept, then
    /// with its socket.
    fn read_left_over(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let until = connection.reading.leave_queue();
        let has_input = connection.has_input();
        self.begin_share();
        if has_input {
            // The kept input may hold whole messages. Nothing more is read before they are handled.
            self.take_in(id, &mut []);
            if self
                .connections
                .get(id)
                .is_none_or(|connection| connection.reading.is_queued())
            {
                return;
            }
        }
        self.read_on(id, until == ReadUntil::End);
    }

    /// Whether a connection is being opened (upgrade, handshake) or closed, or sends tokens again and again.
    fn is_transitional(&self, id: ConnectionId, has_ended: bool) -> bool {
        let Some(connection) = self.connections.get(id) else {
            return false;
        };
        has_ended || connection.shows_tokens || connection.phase.is_opening()
    }

    /// Reads a connection that is being opened or closed, now or in a later turn. An upgrade, a handshake, an end or a
    /// check of a token costs more than a message; a TLS handshake costs a hundred times as much. In a storm the poll
    /// reports a thousand of them at once. So they get a bounded time in each turn, after which the replies to open
    /// connections leave. Connections that have to wait are served in the order in which they came.
    fn read_transitional(&mut self, id: ConnectionId, has_ended: bool) {
        if self.shares.transition_ns < TRANSITION_BUDGET_NS {
            self.within_transition_budget(|core| core.read(id, has_ended));
        } else if let Some(connection) = self.connections.get_mut(id) {
            self.metrics.transitions_deferred.add(1);
            let until = if has_ended {
                ReadUntil::End
            } else {
                ReadUntil::ShortRead
            };
            self.waiting.read_in_transition(connection, until);
        }
    }

    /// Does `work`, and counts its time against `TRANSITION_BUDGET_NS` of this turn.
    fn within_transition_budget(&mut self, work: impl FnOnce(&mut Self)) {
        let before_ns = self.time.clock().elapsed_ns();
        work(self);
        let took_ns = self.time.clock().elapsed_ns().saturating_sub(before_ns);
        self.shares.transition_ns += took_ns.max(TRANSITION_COST_NS_MIN);
    }

    /// Another thread has woken this core, maybe for an order. Not inlined: turns without one would pay for
    /// its registers.
    #[inline(never)]
    fn handle_wake_up(&mut self) {
        self.mailbox.note_wake();
        self.take_orders();
    }

    /// Carries out the orders that other threads have put into this core's mailbox.
    fn take_orders(&mut self) {
        while let Some(order) = self.mailbox.try_receive() {
            match order {
                Order::Adopt(policy) => self.adopt_policy(policy),
                Order::Revoke { revocation, done } => {
                    self.operations.begin_revoking(Revoking::new(revocation, done));
                }
                Order::Drain { within } => {
                    self.mailbox.set_status(CoreStatus::Draining);
                    self.drain(within);
                }
                Order::Stop => self.operations.stop(),
            }
        }
    }

    /// Once a second: frees buffers that publications no longer need, and sets the metrics of the memory of
    /// publications and of this core's tables.
    fn tell_memory(&mut self) {
        self.memory_due = self.time.now().uptime + MEMORY_TOLD_EVERY;
        self.delivery.publisher().give_back();
        self.connections.give_back();
        if let Some(memory) = self.delivery.memory() {
            memory.tell();
        }
        if let Some(topics) = self.delivery.retained() {
            topics.tell();
        }
        let tables = self.connections.table_bytes()
            + self.delivery.subscriptions().table_bytes()
            + self.presence.table_bytes();
        let publisher = self.delivery.publisher();
        self.metrics.ring_bytes.set(publisher.lent_bytes() as u64);
        self.metrics.ring_kept_bytes.set(publisher.kept_bytes() as u64);
        self.metrics.table_bytes.set(tables as u64);
    }

    /// Writes the outboxes to their sockets: all outboxes with replies, and outboxes with publications alone until the
    /// time for them is used up. After a longer turn that time is longer (`turn_time.rs`), so that calls cannot keep
    /// publications from leaving. A write may end its connection; an outbox that has drained lets its connection be
    /// read again.
    fn flush(&mut self) {
        let mut end_ns = None;
        // A connection that missed a publication is closed first: nothing that was queued after that publication is
        // sent.
        self.close_marked();
        self.connections.flush(|| {
            let now_ns = self.time.clock().elapsed_ns();
            now_ns >= *end_ns.get_or_insert_with(|| self.time.end_of_flush_ns(now_ns))
        });
        self.close_marked();
        while let Some(id) = self.connections.next_resumed() {
            self.read_again(id);
        }
        self.watch_blocked();
        self.delivery
            .record_latencies(&self.connections, self.time.clock());
    }

    /// Registers sockets that were found full, so that the poll reports when they take more, and arms the deadline by
    /// which they must have taken something. Sockets are not registered for this from the start, since a new socket
    /// takes bytes at once: each would cause an event.
    fn watch_blocked(&mut self) {
        while let Some(id) = self.connections.next_blocked() {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            let interests = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            if registry
                .reregister(&mut connection.stream.socket, id.token(), interests)
                .is_err()
            {
                // The system refuses this only for a socket that is not registered; this one is.
                self.close(id, CloseReason::PeerVanished);
                continue;
            }
            self.arm(id);
        }
    }

    /// Whether the next turn has work even if no event comes.
    pub(super) fn has_work_left(&self) -> bool {
        self.waiting.has_work()
            || self.wheel.has_due()
            || self.acceptor.has_work()
            || self.mailbox.has_answers()
            || self.mailbox.has_questions()
            || self.operations.has_work()
            || self.has_drain_work()
            || self.connections.has_unflushed()
            || self.connections.recoveries.has_work()
            || self.retained_asks.has_work
            || self.delivery.has_retained_work()
            || self.connections.is_shedding()
            || self.has_unsubscribing()
            || (self.waiting.awaiting_post_count() > 0 && !self.presence.memberships.is_congested())
            || self.connections.has_mqtt_work()
            || self.services.has_work_left()
            || self.resources.scratch.common.services.has_orders()
    }

    /// How long the poll may wait: not at all while work is left over, else until the next deadline; `None` is for
    /// ever. Tells the other cores that this core sleeps, then looks at the ring and for letters once more.
    pub(super) fn timeout(&mut self) -> Option<Duration> {
        if self.has_work_left() || !self.delivery.reader().prepare_sleep() {
            return Some(Duration::ZERO);
        }
        if self.post.has_letters() {
            self.delivery.reader().mark_awake();
            return Some(Duration::ZERO);
        }
        self.metrics.ring_depth.set(0);
        let mut until = self.wheel.next().unwrap_or(Uptime::NEVER);
        until = until.min(self.acceptor.next()).min(self.tick.next());
        until = until.min(self.next_positions());
        if let Some(sessions) = &self.connections.mqtt {
            until = until.min(sessions.next_due());
            if sessions.shares.has_messages()
                || self.retained_asks.awaits_box
                || self.waiting.awaiting_move_count() > 0
            {
                until = until.min(self.time.now().uptime + RING_RETRY);
            }
        }
        if self.connections.batches.is_some() {
            until = until.min(self.connections.next_batch());
        }
        if self.keeps_state {
            until = until.min(self.next_of_kept());
        }
        if self.waiting.stalled_count() > 0 || !self.abandoned.is_empty() || self.post.kept_count() > 0 {
            until = until.min(self.time.now().uptime + RING_RETRY);
        }
        if let Some(events) = &self.webhooks {
            until = until.min(events.next_turn(self.time.now().uptime));
        }
        if self.draining.is_some() {
            until = until.min(self.time.now().uptime + DRAIN_STEP);
        }
        if self.delivery.publisher().keeps_much() {
            // `tell_memory` frees a part of it.
            until = until.min(self.memory_due);
        }
        (until != Uptime::NEVER).then(|| until.since(self.time.clock().uptime()))
    }

    /// When the next turn is due for the state of channels and sessions on this core, if no event comes.
    #[inline(never)]
    fn next_of_kept(&mut self) -> Uptime {
        let mut until = self.next_expiry();
        until = until.min(self.wills.next_due());
        until = until.min(self.presence.due);
        until = until.min(self.history_calls.next_deadline());
        until = until.min(self.services.next_due(self.time.now().uptime));
        if self
            .delivery
            .on_disk()
            .is_some_and(|on_disk| on_disk.is_waiting())
        {
            until = until.min(self.time.now().uptime + STORE_RETRY);
        }
        if !self.connections.recoveries.is_empty() {
            until = until.min(self.next_recovery());
        }
        until
    }
}

/// Most events of one wait.
const EVENTS_PER_TURN_MAX: usize = 1024;
/// How long one turn reads connections that are being opened or closed: ten of them at 10 µs each, or one whose TLS
/// handshake needs an RSA signature. They delay open connections by this time.
const TRANSITION_BUDGET_NS: u64 = 100_000;
/// After a turn of this length, a core that shares its CPU with other cores yields to them. It also yields while it
/// waits for another core to fill a slot of the ring. Without that the system switches at its next tick, up to 4 ms
/// later. A shorter turn is not worth the system call.
const YIELD_AFTER_NS: u64 = 100_000;
/// Most tokens that one turn checks for connections that have not shown one lately. Then other connections with input
/// wait for the next turn, so that replies leave first. The checks take as long as 32 upgrades, with RSA.
const TOKEN_CHECKS_MAX: u32 = 16;
/// Each read of a connection that is being opened or closed counts for this long at least.
const TRANSITION_COST_NS_MIN: u64 = 10_000;
/// How often the gauges for memory are set.
const MEMORY_TOLD_EVERY: Duration = Duration::from_secs(1);
/// How soon a full ring, or a full box of letters, is tried again. No core wakes another when there is room again: room
/// is made by cores that are busy.
const RING_RETRY: Duration = Duration::from_millis(1);
/// How soon a core takes another turn if the store has not taken its records, or if it waits for other cores
/// to end.
const STORE_RETRY: Duration = Duration::from_millis(2);
/// How often a draining core closes its next few connections.
const DRAIN_STEP: Duration = Duration::from_millis(10);
