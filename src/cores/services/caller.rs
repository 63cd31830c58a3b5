//! The caller's side: calls begin here, and each ends once.

use std::time::Duration;

use mio::Token;

use crate::app::App;
use crate::broker::Sent;
use crate::decision::Limit;
use crate::metrics::services::{ServiceEnd, ServiceEvent};
use crate::policy::services::Absent;
use crate::services::{
    CallId, Ended, Entry, Failure, GivenUp, Open, Outcome, Pattern, ReplyTo, ServiceCall, TooMany,
};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::post::service_letter::ServiceLetter;

impl<A: App> Core<A> {
    /// Calls a service for a connection.
    pub(super) fn begin_service_call(
        &mut self,
        connection: usize,
        reply: ReplyTo,
        entry: Option<Entry>,
        timeout: Option<Duration>,
        mut call: Box<ServiceCall>,
    ) {
        if self.session(id_of(connection)).is_none() {
            return self.resources.scratch.common.services.recycle(call);
        }
        let Some(entry) = entry else {
            let row = self.resources.policy.services.row_of(Pattern::Name(&call.event));
            self.resources.scratch.common.services.recycle(call);
            return self.tell_end_of_call(connection, reply, row, Ended::Failed(Failure::NoService));
        };
        let row = self.resources.policy.services.row(entry.row);
        let timeout = timeout.unwrap_or(row.terms.timeout);
        let times = (self.time.now().uptime, self.time.clock().elapsed_ns());
        let begun = self
            .services
            .open
            .begin(connection, reply, entry, timeout, call.bytes(), times);
        match begun {
            Ok(id) => {
                self.metrics
                    .service_call_bytes
                    .set(self.services.open.bytes() as u64);
                row.meters.of(self.id.index()).open.add(1);
                (call.id, call.pool, call.owner) = (Some(id), Some(entry.pool), entry.owner);
                call.deadline = times.0 + timeout;
                match self.tell_of_services(entry.owner, ServiceLetter::Call(call)) {
                    Sent::Sent | Sent::Kept => {}
                    Sent::Dropped => self.end_service_call(id, Failure::NoService),
                }
            }
            Err((too_many, reply)) => {
                self.metrics.limit_hit(match too_many {
                    TooMany::Calls => Limit::ServiceCalls,
                    TooMany::Bytes => Limit::ServiceCallBytes,
                });
                self.resources.scratch.common.services.recycle(call);
                self.tell_end_of_call(connection, reply, entry.row, Ended::Failed(Failure::Busy));
            }
        }
    }

    /// Sends an event to a service, if the box of the pattern's owner has room.
    pub(super) fn send_service_event(&mut self, entry: Entry, mut call: Box<ServiceCall>) {
        if entry.owner != self.id.index() && !self.post.has_room(entry.owner) {
            let row = self.resources.policy.services.row(entry.row);
            row.meters.of(self.id.index()).events[ServiceEvent::Dropped.index()].add(1);
            self.metrics.limit_hit(Limit::ServiceQueue);
            return self.resources.scratch.common.services.recycle(call);
        }
        (call.pool, call.owner) = (Some(entry.pool), entry.owner);
        self.tell_of_services(entry.owner, ServiceLetter::Call(call));
    }

    /// The answer to a call, or its failure, has come.
    pub(super) fn take_answer(&mut self, call: Box<ServiceCall>) {
        let Some(call) = self.call_again(call) else {
            return;
        };
        if let (Some(id), Some(ended)) = (call.id, call.ended()) {
            self.end_call(id, ended);
        }
        self.resources.scratch.common.services.recycle(call);
    }

    /// A call whose pool is gone goes on to the next pattern of its name, if there is one. The owner has
    /// announced the end of the pool before the failure, so the directory does not have the pool any more.
    fn call_again(&mut self, mut call: Box<ServiceCall>) -> Option<Box<ServiceCall>> {
        if call.outcome != Outcome::Failed(Failure::NoService) {
            return Some(call);
        }
        let directory = &self.resources.scratch.common.services.directory;
        let (Some(id), Some(next)) = (call.id, directory.find(&call.event)) else {
            return Some(call);
        };
        let place = match self.services.open.place_mut(id) {
            Some(place) if (place.owner, place.pool) != (next.owner, next.pool) => place,
            Some(_) | None => return Some(call),
        };
        let before = std::mem::replace(place, next);
        let rows = &self.resources.policy.services;
        let core = self.id.index();
        rows.row(before.row).meters.of(core).open.add(u64::MAX);
        rows.row(next.row).meters.of(core).open.add(1);
        (call.pool, call.owner, call.outcome) = (Some(next.pool), next.owner, Outcome::Open);
        match self.tell_of_services(next.owner, ServiceLetter::Call(call)) {
            Sent::Sent | Sent::Kept => {}
            Sent::Dropped => self.end_service_call(id, Failure::NoService),
        }
        None
    }

    /// A call has failed.
    pub(super) fn end_service_call(&mut self, id: CallId, failure: Failure) {
        self.end_call(id, Ended::Failed(failure));
    }

    fn end_call(&mut self, id: CallId, ended: Ended<'_>) {
        match self.services.open.take(id) {
            Some(open) => self.end_open_call(open, ended),
            // Its caller is gone, or was told that the call has timed out.
            None => self.metrics.service_answers_late.add(1),
        }
    }

    fn end_open_call(&mut self, open: Open, ended: Ended<'_>) {
        self.metrics
            .service_call_bytes
            .set(self.services.open.bytes() as u64);
        let meters = self
            .resources
            .policy
            .services
            .row(open.place.row)
            .meters
            .of(self.id.index());
        meters.open.add(u64::MAX);
        if let Ended::Answered(_) | Ended::Refused(_) = ended {
            let took_ns = self.time.clock().elapsed_ns().saturating_sub(open.began_ns);
            meters.seconds.record_ns(took_ns);
        }
        self.tell_end_of_call(open.connection, open.reply, open.place.row, ended);
    }

    fn tell_end_of_call(&mut self, connection: usize, reply: ReplyTo, row: usize, ended: Ended<'_>) {
        let row = self.resources.policy.services.row(row);
        row.meters.of(self.id.index()).ends[end_of(ended).index()].add(1);
        let token = match reply {
            ReplyTo::Server(reply) => return reply.tell(ended),
            ReplyTo::Client(token) => token,
        };
        if ended == Ended::Failed(Failure::NoService) && row.terms.absent == Absent::Silent {
            return;
        }
        let id = id_of(connection);
        if self.has_room_for_event(id) {
            self.decide(id, |session, environment, decisions| {
                session.service_ended(token.as_bytes(), ended, environment, decisions)
            });
            self.connections.note_input(id);
        }
    }

    /// Ends the calls whose deadline has come, as many as a turn may. The deadline of the next one brings the next turn.
    pub(super) fn end_overdue_service_calls(&mut self) {
        for _ in 0..OVERDUE_PER_TURN_MAX {
            let Some((id, open)) = self.services.open.take_overdue(self.time.now().uptime) else {
                return;
            };
            self.metrics.limit_hit(Limit::ServiceTime);
            self.cancel_at_owner(id, &open, GivenUp::TimedOut);
            self.end_open_call(open, Ended::Failed(Failure::TimedOut));
        }
    }

    /// The client of a connection is gone: its calls need no answers any more.
    pub(super) fn give_up_calls_of(&mut self, connection: usize) {
        while let Some((id, open)) = self.services.open.take_of_connection(connection) {
            self.cancel_at_owner(id, &open, GivenUp::CallerGone);
            let meters = self
                .resources
                .policy
                .services
                .row(open.place.row)
                .meters
                .of(self.id.index());
            meters.open.add(u64::MAX);
            meters.ends[ServiceEnd::CallerGone.index()].add(1);
        }
        self.metrics
            .service_call_bytes
            .set(self.services.open.bytes() as u64);
    }

    /// The owner of the pools of some calls has stopped. A service may have got them before, on this core or
    /// a third one.
    pub(super) fn give_up_calls_to(&mut self, owner: usize) {
        for open in self.services.open.take_of_owner(owner) {
            self.end_open_call(open, Ended::Failed(Failure::Gone));
        }
    }

    fn cancel_at_owner(&mut self, id: CallId, open: &Open, why: GivenUp) {
        let cancel = ServiceLetter::Cancel {
            id,
            pool: open.place.pool,
            why,
        };
        self.tell_of_services(open.place.owner, cancel);
    }
}

/// Calls whose deadlines have come that one turn ends, at some 0.5 µs.
pub(super) const OVERDUE_PER_TURN_MAX: usize = 256;

/// The connection with this name.
pub(super) fn id_of(connection: usize) -> ConnectionId {
    ConnectionId::from_token(Token(connection))
}

fn end_of(ended: Ended<'_>) -> ServiceEnd {
    match ended {
        Ended::Answered(_) => ServiceEnd::Answered,
        Ended::Refused(_) => ServiceEnd::Refused,
        Ended::Failed(Failure::Gone) => ServiceEnd::Gone,
        Ended::Failed(Failure::TimedOut) => ServiceEnd::TimedOut,
        Ended::Failed(Failure::NoService) => ServiceEnd::NoService,
        Ended::Failed(Failure::Busy) => ServiceEnd::Busy,
    }
}
