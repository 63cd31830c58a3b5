//! The work of services in a turn, and their letters.
//!
//! Limits: [`ROUNDS_MAX`], [`LETTERS_TO_SELF_MAX`]. The rest is done in the next turn.

use std::sync::Arc;

use crate::app::App;
use crate::broker::Sent;
use crate::policy::Policy;
use crate::services::Order;

use crate::cores::core::Core;
use crate::cores::post::letter::Letter;
use crate::cores::post::service_letter::ServiceLetter;

impl<A: App> Core<A> {
    /// Does the work that is due about services.
    #[inline]
    pub(in crate::cores) fn serve_services(&mut self) {
        if self.resources.scratch.common.services.has_orders()
            || self.services.has_work(self.time.now().uptime)
        {
            self.serve_due_services();
        }
    }

    #[inline(never)]
    fn serve_due_services(&mut self) {
        // From now on the core looks for overdue calls in its turns.
        self.keeps_state = true;
        self.take_letters_to_self();
        self.tell_of_room();
        self.end_overdue_service_calls();
        self.end_overdue_cancels();
        for _ in 0..ROUNDS_MAX {
            // Services that are gone come first, so that no call is given to them.
            while let Some(connection) = self.services.next_ended() {
                self.end_services_of(connection);
                self.give_up_calls_of(connection);
            }
            while let Some(connection) = self.services.next_changed() {
                self.check_services_of(connection);
            }
            if !self.resources.scratch.common.services.has_orders() {
                return;
            }
            let mut orders = self.resources.scratch.common.services.take_orders();
            for order in orders.drain(..) {
                self.carry_out_order(order);
            }
            self.resources.scratch.common.services.give_back(orders);
        }
    }

    fn carry_out_order(&mut self, order: Order) {
        match order {
            Order::Call {
                connection,
                reply,
                entry,
                timeout,
                call,
            } => self.begin_service_call(connection, reply, entry, timeout, call),
            Order::Event(entry, call) => self.send_service_event(entry, call),
            Order::Answer(call) => self.forward_answer(call),
            Order::Serve {
                connection,
                token,
                pattern,
                offer,
                meta,
            } => self.register_service(connection, token, pattern, (offer, meta)),
            Order::Unserve {
                connection,
                token,
                pattern,
            } => self.unregister_service(connection, &token, &pattern),
        }
    }

    /// Sends a core a letter about services.
    pub(super) fn tell_of_services(&mut self, core: usize, letter: ServiceLetter) -> Sent {
        if core != self.id.index() {
            return self.post.send(core, Letter::Service(letter));
        }
        if self.services.takes_letters || !self.services.to_self.is_empty() {
            self.services.to_self.push_back(letter);
        } else {
            // No other letter comes before it, so it need not stand in the list.
            self.services.takes_letters = true;
            self.take_service_letter(letter);
            self.services.takes_letters = false;
        }
        if !self.services.to_self.is_empty() {
            self.take_letters_to_self();
        }
        Sent::Sent
    }

    /// Takes this core's letters to itself. A letter may cause further ones: they are taken after it, and not
    /// within it, so the stack does not grow with the number of waiting calls.
    fn take_letters_to_self(&mut self) {
        if self.services.takes_letters {
            return;
        }
        self.services.takes_letters = true;
        for _ in 0..LETTERS_TO_SELF_MAX {
            let Some(letter) = self.services.to_self.pop_front() else {
                break;
            };
            self.take_service_letter(letter);
        }
        self.services.takes_letters = false;
    }

    /// Takes a letter about services from a core, which may be this one.
    pub(in crate::cores) fn take_service_letter(&mut self, letter: ServiceLetter) {
        match letter {
            ServiceLetter::Joins {
                pattern,
                member,
                offer,
            } => self.let_service_join(&pattern, member, offer),
            ServiceLetter::Leaves { pattern, member } => self.let_service_leave(&pattern, member),
            ServiceLetter::Joined {
                connection,
                pattern,
                outcome,
            } => self.service_has_joined(connection, &pattern, outcome),
            ServiceLetter::Pattern {
                pattern,
                owner,
                change,
            } => self.note_pattern(&pattern, owner, change),
            ServiceLetter::Known { pool, core } => self.note_known(pool, core),
            ServiceLetter::Call(call) => self.choose_service(call),
            ServiceLetter::Give { connection, call } => self.give_call(connection, call),
            ServiceLetter::NotDelivered { member, why, call } => self.choose_another(member, why, call),
            ServiceLetter::HasRoom { pattern, member } => self.note_room_again(&pattern, member),
            ServiceLetter::Answer(call) => self.take_answer(call),
            ServiceLetter::Lost { id, failure } => self.end_service_call(id, failure),
            ServiceLetter::Done { id } => self.note_done_call(id),
            ServiceLetter::Cancel { id, pool, why } => self.cancel_call(id, pool, why),
            ServiceLetter::Drop { connection, id } => self.drop_call(connection, id),
        }
    }

    /// A core has stopped, and with it its pools and its services.
    pub(in crate::cores) fn end_services_of_core(&mut self, core: usize) {
        self.resources
            .scratch
            .common
            .services
            .directory
            .remove_of_owner(core);
        self.note_use_of_services();
        self.give_up_calls_to(core);
        self.end_members_of(core);
    }

    /// Adopts a policy with other rows or rules. Called before the policy comes into force.
    pub(in crate::cores) fn adopt_services(&mut self, policy: &Policy) {
        let before = Arc::clone(&self.resources.policy.services);
        let after = &policy.services;
        if !Arc::ptr_eq(&before, after) {
            self.services
                .open
                .assign_rows(|row| after.index_after(&before, row));
            self.services.pools.assign_terms(|pattern| {
                let row = super::owner::row_of(after, pattern);
                (after.row(row).terms, row)
            });
            let directory = &mut self.resources.scratch.common.services.directory;
            directory.assign_rows(|pattern| after.row_of(pattern));
            let core = self.id.index();
            for rows in [before.rows(), after.rows()] {
                for row in rows {
                    row.meters.of(core).open.set(0);
                    row.meters.of(core).waiting.set(0);
                }
            }
            for row in self.services.open.rows() {
                after.row(row).meters.of(core).open.add(1);
            }
            for (row, count) in self.services.pools.waiting() {
                after.row(row).meters.of(core).waiting.add(count as u64);
            }
            let services = &mut self.resources.scratch.common.services;
            services.is_used = !services.directory.is_empty() || !after.is_empty();
        }
        if policy.rules.id() != self.resources.policy.rules.id() {
            self.services.note_all_changed();
        }
    }

    /// Notes whether sessions have to look for services at all.
    pub(super) fn note_use_of_services(&mut self) {
        let services = &mut self.resources.scratch.common.services;
        services.is_used = !services.directory.is_empty() || !self.resources.policy.services.is_empty();
    }
}

/// How many rounds of the sessions' orders one turn carries out: an order may end connections, whose calls
/// end with them.
const ROUNDS_MAX: usize = 4;
/// Letters to itself that a core takes at once.
const LETTERS_TO_SELF_MAX: usize = 1024;
