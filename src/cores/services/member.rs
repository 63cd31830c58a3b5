//! The side of the services: clients of this core that register patterns, get calls and answer them.

use std::sync::Arc;

use crate::app::App;
use crate::decision::Limit;
use crate::metrics::services::ServiceEvent;
use crate::services::{
    CallId, Failure, JoinFailure, MemberKey, NotDelivered, Offer, Outcome, ServiceCall, Token,
};

use super::caller::{OVERDUE_PER_TURN_MAX, id_of};
use super::state::{Registered, Registration, Stage, Unserved};
use crate::cores::core::Core;
use crate::cores::post::service_letter::ServiceLetter;

impl<A: App> Core<A> {
    /// A client registers a pattern.
    pub(super) fn register_service(
        &mut self,
        connection: usize,
        token: Token,
        pattern: Box<[u8]>,
        (offer, meta): (Offer, Option<Box<str>>),
    ) {
        let policy = Arc::clone(&self.resources.policy);
        let Some(session) = self.session(id_of(connection)) else {
            return;
        };
        // The client's claims or the rules may have changed since the call was read: at that time nothing was
        // registered that the change could have checked.
        if !session.may_keep_service(&pattern, &policy) {
            return self.answer_serve(connection, &token, Err(JoinFailure::Forbidden));
        }
        let (owner, _) = self.delivery.owner(&pattern);
        let of = (&*pattern, owner);
        match self
            .services
            .register(connection, of, (offer, meta), token.clone())
        {
            Registered::Ask => self.ask_to_join(connection, owner, pattern, offer),
            Registered::Waits => {}
            Registered::TooMany => {
                self.metrics.limit_hit(Limit::ServicePatterns);
                self.answer_serve(connection, &token, Err(JoinFailure::TooManyPatterns));
            }
        }
    }

    /// Asks the owner of a pattern to have a client of this core as a member, with this offer.
    fn ask_to_join(&mut self, connection: usize, owner: usize, pattern: Box<[u8]>, offer: Offer) {
        let joins = ServiceLetter::Joins {
            pattern,
            member: self.member(connection),
            offer,
        };
        self.tell_of_services(owner, joins);
    }

    /// A client gives a pattern up. It may still answer the calls that it has.
    pub(super) fn unregister_service(&mut self, connection: usize, token: &Token, pattern: &[u8]) {
        self.give_pattern_up(connection, pattern, JoinFailure::Withdrawn);
        self.decide(id_of(connection), |session, _, decisions| {
            session.service_given_up(token.as_bytes(), decisions);
            Ok(())
        });
    }

    /// A client does not serve a pattern any more. False if it was not going to serve it.
    fn give_pattern_up(&mut self, connection: usize, pattern: &[u8], why: JoinFailure) -> bool {
        let Some(taken) = self.services.give_up(connection, pattern) else {
            return false;
        };
        for token in taken.tokens {
            self.answer_serve(connection, &token, Err(why));
        }
        if let Some(registration) = taken.registration {
            self.leave_pool(connection, registration);
        }
        true
    }

    /// Tells the owner that a client is no member any more, and returns the calls that the client has not
    /// got.
    fn leave_pool(&mut self, connection: usize, registration: Registration) {
        let Registration {
            pattern, owner, held, ..
        } = registration;
        let member = self.member(connection);
        self.tell_of_services(owner, ServiceLetter::Leaves { pattern, member });
        for call in held {
            self.give_call_back(connection, NotDelivered::HasLeft, call);
        }
    }

    fn member(&self, connection: usize) -> MemberKey {
        MemberKey {
            core: self.id.index(),
            connection,
        }
    }

    /// All cores know the pattern of a service, or it is not registered.
    pub(super) fn service_has_joined(
        &mut self,
        connection: usize,
        pattern: &[u8],
        outcome: Result<(), JoinFailure>,
    ) {
        let mut registered = self.services.registered(connection).iter_mut();
        let Some(registration) = registered.find(|one| *one.pattern == *pattern) else {
            return;
        };
        let (offer, owner, stage) = (registration.offer, registration.owner, registration.stage);
        let tokens = std::mem::take(&mut registration.tokens);
        let mut held = Vec::new();
        let mut again = None;
        if let Some(next) = registration.next.take() {
            // It stays a member, if it is one, with the new offer.
            again = Some(next.offer);
            held = std::mem::take(&mut registration.held);
            (registration.offer, registration.tokens) = (next.offer, next.tokens);
            registration.stage = Stage::Asked;
        } else if stage == Stage::GivenUp || outcome.is_err() {
            let taken = self.services.unregister(connection, pattern);
            taken
                .into_iter()
                .for_each(|registration| self.leave_pool(connection, registration));
        } else {
            registration.stage = Stage::Served;
        }
        for token in tokens {
            self.answer_serve(connection, &token, outcome.map(|()| (pattern, offer)));
        }
        if let Some(offer) = again {
            self.ask_to_join(connection, owner, pattern.into(), offer);
        }
        for call in held {
            self.give_call(connection, call);
        }
    }

    fn answer_serve(
        &mut self,
        connection: usize,
        token: &Token,
        outcome: Result<(&[u8], Offer), JoinFailure>,
    ) {
        self.decide(id_of(connection), |session, environment, decisions| {
            session.service_registered(token.as_bytes(), outcome, environment, decisions)
        });
    }

    /// The connection of a service has ended.
    pub(super) fn end_services_of(&mut self, connection: usize) {
        for registration in self.services.unregister_all(connection) {
            self.leave_pool(connection, registration);
        }
    }

    /// The rules or the claims of a client have changed: removes the patterns that it may not serve any more.
    pub(super) fn check_services_of(&mut self, connection: usize) {
        let id = id_of(connection);
        let registered = self.services.registered(connection);
        let patterns: Vec<Box<[u8]>> = registered.iter().map(|one| one.pattern.clone()).collect();
        for pattern in patterns {
            let policy = Arc::clone(&self.resources.policy);
            let Some(session) = self.session(id) else {
                return;
            };
            if session.may_keep_service(&pattern, &policy) {
                continue;
            }
            if self.give_pattern_up(connection, &pattern, JoinFailure::Forbidden) {
                self.metrics.rules_kick_outs.add(1);
                self.decide(id, |session, _, decisions| {
                    session.service_forbidden(&pattern, decisions);
                    Ok(())
                });
            }
        }
    }

    /// Calls a service, or sends it an event.
    pub(super) fn give_call(&mut self, connection: usize, call: Box<ServiceCall>) {
        let id = id_of(connection);
        if !self.services.serves(connection, &call.event) {
            return match self.services.hold(connection, call) {
                Unserved::Held => {}
                Unserved::Event(event) => {
                    self.count_event(self.row_of_event(&event), ServiceEvent::Dropped);
                    self.resources.scratch.common.services.recycle(event);
                }
                Unserved::NoPattern(call) => self.give_call_back(connection, NotDelivered::HasLeft, call),
            };
        }
        if !self.has_room_for_call(connection) {
            self.services.full.insert(connection);
            return self.give_call_back(connection, NotDelivered::IsFull, call);
        }
        let mut given = None;
        let mut left = Some(call);
        let now = self.time.now().uptime;
        self.decide(id, |session, _, decisions| {
            given = left.take().map(|call| session.give_call(call, now, decisions));
            Ok(())
        });
        self.connections.note_input(id);
        match (given, left) {
            (Some(Ok(None)), _) => {}
            // The protocol of the service cannot carry the call.
            (Some(Ok(Some(call))), _) if call.id.is_some() => self.forward_answer(call),
            (Some(Ok(Some(event))), _) => {
                let fate = if event.outcome == Outcome::Open {
                    ServiceEvent::Sent
                } else {
                    ServiceEvent::Dropped
                };
                self.count_event(self.row_of_event(&event), fate);
                self.resources.scratch.common.services.recycle(event);
            }
            (Some(Err(call)), _) | (None, Some(call)) => {
                self.give_call_back(connection, NotDelivered::HasLeft, call);
            }
            (None, None) => {}
        }
    }

    /// Whether the outbox of a service has room. Otherwise, callers could get a service closed that reads
    /// slowly.
    fn has_room_for_call(&mut self, connection: usize) -> bool {
        let bytes_max = self.limits.outbox_bytes_max as usize / 2;
        if self.waits_for(connection) > bytes_max {
            self.connections.flush_now(id_of(connection));
        }
        self.waits_for(connection) <= bytes_max
    }

    /// How many bytes wait for a service that has not read them.
    fn waits_for(&self, connection: usize) -> usize {
        let connection = self.connections.get(id_of(connection));
        connection.map_or(0, |connection| connection.waiting_bytes())
    }

    /// Tells owners which services have room again. Half of the room for calls is free then, so that a
    /// service does not become full again with each call.
    pub(super) fn tell_of_room(&mut self) {
        let bytes_max = self.limits.outbox_bytes_max as usize / 4;
        let mut full = std::mem::take(&mut self.services.full);
        let mut with_room = Vec::new();
        full.retain(|connection| {
            let is_full = self.waits_for(*connection) > bytes_max;
            if !is_full {
                with_room.push(*connection);
            }
            is_full
        });
        self.services.full = full;
        for connection in with_room {
            let member = self.member(connection);
            let registered = self.services.registered(connection).iter();
            let patterns: Vec<_> = registered.map(|one| (one.owner, one.pattern.clone())).collect();
            for (owner, pattern) in patterns {
                self.tell_of_services(owner, ServiceLetter::HasRoom { pattern, member });
            }
        }
    }

    /// The row of `[[services]]` for an event, which its owner would use.
    fn row_of_event(&self, event: &ServiceCall) -> Option<usize> {
        let directory = &self.resources.scratch.common.services.directory;
        directory.find(&event.event).map(|entry| entry.row)
    }

    fn give_call_back(&mut self, connection: usize, why: NotDelivered, call: Box<ServiceCall>) {
        // No window bounds events, so they may not wait for a box.
        if call.id.is_none() && !self.post.has_room(call.owner) {
            self.metrics.limit_hit(Limit::ServiceQueue);
            self.count_event(self.row_of_event(&call), ServiceEvent::Dropped);
            return self.resources.scratch.common.services.recycle(call);
        }
        let member = self.member(connection);
        self.tell_of_services(call.owner, ServiceLetter::NotDelivered { member, why, call });
    }

    /// A service has answered, or has ended: tells the owner and the caller, unless the caller has given the call up.
    pub(super) fn forward_answer(&mut self, call: Box<ServiceCall>) {
        let Some(id) = call.id else { return };
        self.tell_of_services(call.owner, ServiceLetter::Done { id });
        if !call.is_cancelled {
            self.tell_of_services(id.core(), ServiceLetter::Answer(call));
            return;
        }
        self.services.cancelled.remove(&(call.deadline, id));
        if call.outcome != Outcome::Failed(Failure::Gone) {
            self.metrics.service_answers_late.add(1);
        }
        self.resources.scratch.common.services.recycle(call);
    }

    /// The caller no longer waits for a service's answer. The call counts in the window of the service until
    /// the service answers, which it need not do, or has had time to end its work.
    pub(super) fn drop_call(&mut self, connection: usize, id: CallId) {
        if let Some(call) = self.services.take_held(connection, id) {
            self.tell_of_services(call.owner, ServiceLetter::Done { id });
            return self.resources.scratch.common.services.recycle(call);
        }
        let until = self.time.now().uptime + self.limits.service_cancel_time;
        let mut had_it = false;
        self.decide(id_of(connection), |session, _, decisions| {
            had_it = session.cancel_call(id, until, decisions);
            Ok(())
        });
        self.connections.note_input(id_of(connection));
        if had_it {
            self.services.cancelled.insert((until, id), connection);
        }
    }

    /// Takes cancelled calls out of the windows of services that have had time enough to answer them, as many as a turn may.
    pub(super) fn end_overdue_cancels(&mut self) {
        for _ in 0..OVERDUE_PER_TURN_MAX {
            let now = self.time.now().uptime;
            let Some((id, connection)) = self.services.take_overdue_cancel(now) else {
                return;
            };
            let session = self.session(id_of(connection));
            if let Some(call) = session.and_then(|session| session.take_cancelled(id)) {
                self.metrics.limit_hit(Limit::ServiceCancelTime);
                self.tell_of_services(call.owner, ServiceLetter::Done { id });
                self.resources.scratch.common.services.recycle(call);
            }
        }
    }
}
