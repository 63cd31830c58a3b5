//! Checks everything that holds whenever nothing is on its way.

use std::collections::BTreeSet;
use std::time::Duration;

use super::World;
use crate::clock::Uptime;
use crate::config::SlowConsumer;
use crate::cores::operators::mailbox::CoreHandle;
use crate::cores::simulation::client::Member;
use crate::cores::simulation::leftovers;
use crate::cores::simulation::log::SHARED;
use crate::presence::{DOUBT, RETRY};
use crate::session::SessionId;

impl World {
    /// Checks everything that holds whenever nothing is on its way.
    pub(super) fn check_at_rest(&mut self) {
        let truth = &mut self.truth;
        if let Some(wrong) = &truth.told.borrow().wrong {
            truth.fail(wrong);
        }
        self.rests += 1;
        let mut skipped = 0;
        let is_whole = !self.seats.iter().any(|seat| seat.stands_still);
        for (index, seat) in self.seats.iter().enumerate() {
            let metrics = self.handles[index].metrics();
            skipped += metrics.publications_skipped.value() + metrics.publications_conflated.value();
            // To look through all tables costs more than a turn.
            if self.rests.is_multiple_of(TABLES_EVERY)
                && let Some(core) = &seat.core
            {
                truth.expect_of_core(index, leftovers::at_rest(core, is_whole));
            }
        }
        if truth.plan.slow_consumer == SlowConsumer::Skip && truth.missing as u64 > skipped {
            truth.fail(&format!(
                "{} publications are missing, {skipped} were skipped",
                truth.missing
            ));
        }
        if !is_whole {
            // Members may come and go unnoticed.
            self.subscribed.1 = truth.time.peek().uptime;
            return;
        }
        if self.rests.is_multiple_of(TABLES_EVERY) {
            let cores: Vec<_> = self.seats.iter().filter_map(|seat| seat.core.as_ref()).collect();
            // A core that has ended owned some channels, whose members no core keeps then.
            if cores.len() == self.seats.len() {
                truth.expect_of_core(
                    0,
                    leftovers::of_presence(&cores, truth.plan.has_room_for_members()),
                );
                truth.expect_of_core(0, leftovers::of_groups(&cores));
            }
            let occupied = leftovers::of_occupied(&cores, &truth.events_told.occupied);
            if truth.plan.webhooks {
                truth.expect_of("webhooks", occupied);
            }
        }
        if truth.plan.services {
            let cores: Vec<_> = self.seats.iter().filter_map(|seat| seat.core.as_ref()).collect();
            if cores.len() == self.seats.len() {
                truth.expect_of_core(0, leftovers::of_services(&cores));
            }
        }
        // Answers may wait for the store.
        let is_answered = self.store.is_none() || self.commits;
        for client in self.clients.iter_mut().filter(|_| is_answered) {
            truth.expect(client.index, "at rest", client.check_at_rest(truth));
            truth.expect(client.index, "at rest", client.check_calls_at_rest(truth));
        }
        truth.expect_of("webhooks", truth.check_webhook_events());
        let now = truth.time.peek().uptime;
        if !truth.draining {
            let result = truth.wills.check_at_rest(now);
            truth.expect_of("a will", result);
        }
        if truth.plan.presence && !truth.draining {
            self.check_members_at_rest(now);
        }
        self.check_devices_at_rest();
    }

    /// The members that clients know are the actual members, when nothing has changed for a while.
    fn check_members_at_rest(&mut self, now: Uptime) {
        let truth = &self.truth;
        let cores: Vec<_> = self.seats.iter().filter_map(|seat| seat.core.as_ref()).collect();
        let told = truth.told.borrow();
        let member = |(name, session): (&[u8], SessionId)| {
            let id = session.to_string();
            let user = told.sessions.get(&id).and_then(|session| session.user.clone());
            let name = String::from_utf8_lossy(name).into_owned();
            (name, user.map_or(Member::Connection(id), Member::User))
        };
        let subscribed = leftovers::subscribed(&cores).into_iter().map(member).collect();
        // A member that joined and left since the last rest changes only the events for webhooks.
        let seen = [subscribed, truth.events_told.members.clone()];
        if seen != self.subscribed.0 {
            self.subscribed = (seen, now);
        }
        let ([subscribed, _], since) = &self.subscribed;
        let infos = leftovers::infos(&cores);
        if infos != self.infos.0 {
            self.infos = (infos, now);
        }
        let limits = &truth.plan.limits;
        let known_after = limits.presence_grace + 2 * limits.presence_tick + MEMBERS_LATE_MAX;
        let has_room = truth.plan.has_room_for_members();
        let is_settled = match has_room {
            true => now.since(*since) > known_after,
            // Members that were refused join when others have left and their owners have been told.
            false => now.since(*since) > 2 * known_after + DOUBT + 2 * RETRY,
        };
        if !is_settled {
            return;
        }
        let members: BTreeSet<_> = match leftovers::members(&cores) {
            Ok(members) if !has_room => members.into_iter().map(member).collect(),
            Ok(_) | Err(_) => subscribed.clone(),
        };
        drop(told);
        if !has_room && cores.len() == self.seats.len() {
            let result = leftovers::of_presence_limit(&cores, limits.presence_members_max);
            truth.expect_of_core(0, result);
        }
        truth.expect_of("webhooks", truth.check_webhook_members(&members));
        let (infos, since) = &self.infos;
        if now.since(*since) > known_after && truth.plan.slow_consumer == SlowConsumer::Close {
            for client in &self.clients {
                truth.expect(client.index, "at rest", client.check_views(truth, infos));
            }
        }
    }

    /// Checks everything that holds for MQTT clients whenever nothing is on its way and no core stands still.
    fn check_devices_at_rest(&mut self) {
        let truth = &mut self.truth;
        let now = truth.time.peek().uptime;
        if !truth.draining {
            truth.expect_of("a will", truth.lives.check_at_rest(now));
        }
        for numbers in std::mem::take(&mut truth.acknowledged) {
            if numbers.iter().all(|&number| truth.log.entry(number).is_none()) {
                truth.fail(&format!("{numbers:?} were acknowledged, and are not in the ring"));
            }
        }
        for device in &mut self.devices {
            match device.check_at_rest(truth) {
                Ok(missing) => truth
                    .device_missing
                    .extend(missing.into_iter().map(|one| (device.index, one))),
                Err(error) => truth.fail(&format!("device {} at rest: {error}", device.index)),
            }
        }
        if !self
            .devices
            .iter()
            .any(|device| device.may_share_in_secret(truth))
            && !truth.draining
        {
            let from = std::mem::replace(&mut truth.shares.checked, truth.log.claimed());
            let places = truth.log.places(SHARED, from..u64::MAX);
            for entry in &truth.log.of_channel(SHARED)[places] {
                let is_certain = self
                    .devices
                    .iter()
                    .any(|device| device.must_share(truth, entry.sequence));
                if is_certain && entry.qos > 0 && !entry.expires && !truth.shares.has(entry.number) {
                    truth.device_missing.push((usize::MAX, entry.number));
                }
            }
        }
        let dropped = |core: &CoreHandle| -> u64 {
            let drops = &core.metrics().mqtt_publications_dropped;
            drops.iter().map(|drop| drop.value()).sum()
        };
        let dropped: u64 = self.handles.iter().map(dropped).sum();
        if truth.device_missing.len() as u64 > dropped {
            let devices = &self.devices;
            truth.fail(&format!(
                "{:?} are missing in sessions of MQTT, {dropped} were dropped: {devices:?}",
                truth.device_missing
            ));
        }
    }
}

/// After this many times of rest, the tables of all cores are checked.
const TABLES_EVERY: u64 = 8;
/// How late an event of presence may be at rest.
const MEMBERS_LATE_MAX: Duration = Duration::from_millis(100);
