//! The owner's side: services join and leave patterns, and calls are given to them.

use crate::app::App;
use crate::decision::Limit;
use crate::metrics::services::ServiceEvent;
use crate::policy::services::Services;
use crate::services::{
    CallId, Called, Cancelled, Entry, Failure, GivenUp, JoinFailure, MemberKey, Next, NotDelivered, Offer,
    Pattern, PoolId, RemovedPool, ServiceCall, TakenBack,
};

use crate::cores::core::Core;
use crate::cores::post::service_letter::{PatternChange, ServiceLetter};

impl<A: App> Core<A> {
    /// A service registers a pattern, or changes its offer.
    pub(super) fn let_service_join(&mut self, pattern: &[u8], member: MemberKey, offer: Offer) {
        let rows = &self.resources.policy.services;
        let joined = self.services.pools.join(pattern, member, offer, || {
            let row = row_of(rows, pattern);
            (rows.row(row).terms, row)
        });
        let outcome = match joined {
            Ok(joined) => {
                if joined.is_new {
                    self.announce_pattern(pattern, PatternChange::Served(joined.pool));
                }
                self.give_waiting(joined.pool);
                if !joined.is_known {
                    return self.set_service_gauges();
                }
                Ok(())
            }
            Err(failure) => {
                self.metrics.limit_hit(match failure {
                    JoinFailure::TooManyPatterns | JoinFailure::Withdrawn | JoinFailure::Forbidden => {
                        Limit::ServicePatterns
                    }
                    JoinFailure::TooManyMembers => Limit::ServiceMembers,
                });
                Err(failure)
            }
        };
        self.set_service_gauges();
        self.tell_joined(pattern.into(), member, outcome);
    }

    fn tell_joined(&mut self, pattern: Box<[u8]>, member: MemberKey, outcome: Result<(), JoinFailure>) {
        let joined = ServiceLetter::Joined {
            connection: member.connection,
            pattern,
            outcome,
        };
        self.tell_of_services(member.core, joined);
    }

    /// A core knows a pattern.
    pub(super) fn note_known(&mut self, pool: PoolId, core: usize) {
        for member in self.services.pools.known_by(pool, core) {
            self.tell_known(pool, member);
        }
    }

    fn tell_known(&mut self, pool: PoolId, member: MemberKey) {
        if let Some(pattern) = self.services.pools.pattern(pool).map(Box::from) {
            self.tell_joined(pattern, member, Ok(()));
        }
    }

    /// A service gives a pattern up.
    pub(super) fn let_service_leave(&mut self, pattern: &[u8], member: MemberKey) {
        let gone = self.services.pools.leave(pattern, member);
        self.end_pool(gone);
    }

    /// A pool has no members any more.
    fn end_pool(&mut self, gone: Option<RemovedPool>) {
        if let Some(gone) = gone {
            let core = self.id.index();
            let waiting = &self
                .resources
                .policy
                .services
                .row(gone.row)
                .meters
                .of(core)
                .waiting;
            waiting.add((gone.waiting.len() as u64).wrapping_neg());
            self.announce_pattern(&gone.pattern, PatternChange::Gone(gone.pool));
            for call in gone.waiting {
                self.fail_call(call, Failure::NoService);
            }
        }
        self.set_service_gauges();
    }

    /// Tells all cores that a pattern has members, or has none.
    fn announce_pattern(&mut self, pattern: &[u8], change: PatternChange) {
        let owner = self.id.index();
        for core in 0..self.delivery.core_count() {
            let pattern = pattern.into();
            self.tell_of_services(
                core,
                ServiceLetter::Pattern {
                    pattern,
                    owner,
                    change,
                },
            );
        }
    }

    /// A core's knowledge of a pattern changes.
    pub(super) fn note_pattern(&mut self, pattern: &[u8], owner: usize, change: PatternChange) {
        let directory = &mut self.resources.scratch.common.services.directory;
        match change {
            PatternChange::Served(pool) => {
                let row = row_of(&self.resources.policy.services, pattern);
                directory.insert(pattern, Entry { owner, pool, row });
                if owner != self.id.index() {
                    let core = self.id.index();
                    self.tell_of_services(owner, ServiceLetter::Known { pool, core });
                }
            }
            PatternChange::Gone(pool) => directory.remove(pattern, owner, pool),
        }
        self.note_use_of_services();
    }

    /// Chooses a service for a call or an event.
    pub(super) fn choose_service(&mut self, call: Box<ServiceCall>) {
        let row = call.pool.and_then(|pool| self.services.pools.row(pool));
        let called = self.services.pools.call(call);
        self.carry_on(called, row);
    }

    fn carry_on(&mut self, called: Called, row: Option<usize>) {
        match called {
            // No window bounds events, so they may not wait for a box.
            Called::Given(member, call) if call.id.is_none() && !self.post.has_room(member.core) => {
                self.metrics.limit_hit(Limit::ServiceQueue);
                self.count_event(row, ServiceEvent::Dropped);
                self.resources.scratch.common.services.recycle(call);
            }
            Called::Given(member, call) => self.give(member, call),
            Called::Waits => {
                let row = self.resources.policy.services.row(row.unwrap_or(usize::MAX));
                row.meters.of(self.id.index()).waiting.add(1);
            }
            Called::NoPool(call) => {
                if call.id.is_none() {
                    self.count_event(row, ServiceEvent::Dropped);
                }
                self.fail_call(call, Failure::NoService);
            }
            Called::Full(call) => {
                if call.id.is_none() {
                    self.count_event(row, ServiceEvent::Dropped);
                }
                self.metrics.limit_hit(Limit::ServiceQueue);
                self.fail_call(call, Failure::Busy);
            }
        }
    }

    pub(super) fn count_event(&self, row: Option<usize>, event: ServiceEvent) {
        let row = self.resources.policy.services.row(row.unwrap_or(usize::MAX));
        row.meters.of(self.id.index()).events[event.index()].add(1);
    }

    /// A member has not got a call: another one gets it, unless its caller has given it up meanwhile.
    pub(super) fn choose_another(&mut self, member: MemberKey, why: NotDelivered, call: Box<ServiceCall>) {
        let row = call.pool.and_then(|pool| self.services.pools.row(pool));
        let TakenBack { is_open, gone } = self.services.pools.take_back(&call, member, why);
        self.end_pool(gone);
        if !is_open {
            return self.resources.scratch.common.services.recycle(call);
        }
        let called = self.services.pools.call_again(call);
        self.carry_on(called, row);
    }

    /// A member that was full has room.
    pub(super) fn note_room_again(&mut self, pattern: &[u8], member: MemberKey) {
        if let Some(pool) = self.services.pools.has_room_again(pattern, member) {
            self.give_waiting(pool);
        }
    }

    /// A member is done with a call, and so has room.
    pub(super) fn note_done_call(&mut self, id: CallId) {
        if let Some(pool) = self.services.pools.done(id) {
            self.give_waiting(pool);
        }
    }

    /// The caller no longer waits for the answer to a call.
    pub(super) fn cancel_call(&mut self, id: CallId, pool: PoolId, why: GivenUp) {
        match self.services.pools.cancel(id, pool, why) {
            Cancelled::Given(member) => {
                let connection = member.connection;
                self.tell_of_services(member.core, ServiceLetter::Drop { connection, id });
            }
            Cancelled::Waited(call) => {
                self.count_taken(pool);
                self.resources.scratch.common.services.recycle(call);
            }
            Cancelled::Unknown => {}
        }
    }

    fn give_waiting(&mut self, pool: PoolId) {
        let now = self.time.now().uptime;
        while let Some(next) = self.services.pools.next(pool, now) {
            self.count_taken(pool);
            match next {
                Next::Given(member, call) => self.give(member, call),
                Next::Overdue(call) => self.resources.scratch.common.services.recycle(call),
            }
        }
    }

    /// A call no longer waits.
    fn count_taken(&mut self, pool: PoolId) {
        if let Some(row) = self.services.pools.row(pool) {
            let row = self.resources.policy.services.row(row);
            row.meters.of(self.id.index()).waiting.add(u64::MAX);
        }
    }

    fn give(&mut self, member: MemberKey, call: Box<ServiceCall>) {
        let connection = member.connection;
        self.tell_of_services(member.core, ServiceLetter::Give { connection, call });
    }

    /// Ends a call for which there is no service. An event is dropped.
    fn fail_call(&mut self, mut call: Box<ServiceCall>, failure: Failure) {
        match call.id {
            Some(id) => {
                call.fail(failure);
                self.tell_of_services(id.core(), ServiceLetter::Answer(call));
            }
            None => self.resources.scratch.common.services.recycle(call),
        }
    }

    /// The services of a core that has stopped are gone.
    pub(super) fn end_members_of(&mut self, core: usize) {
        let stopped = self.services.pools.note_stopped(core);
        for id in stopped.lost {
            let failure = Failure::Gone;
            self.tell_of_services(id.core(), ServiceLetter::Lost { id, failure });
        }
        for gone in stopped.gone {
            self.end_pool(Some(gone));
        }
        for (pool, member) in stopped.confirmed {
            self.tell_known(pool, member);
        }
        self.set_service_gauges();
    }

    fn set_service_gauges(&self) {
        let pools = &self.services.pools;
        self.metrics.service_patterns.set(pools.patterns_len() as u64);
        self.metrics.service_members.set(pools.members_len() as u64);
    }
}

/// The row of `[[services]]` for a registered pattern.
pub(super) fn row_of(rows: &Services, pattern: &[u8]) -> usize {
    Pattern::parse(pattern).map_or(usize::MAX, |pattern| rows.row_of(pattern))
}
