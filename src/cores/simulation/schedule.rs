//! The schedule of a run: the seed chooses each next step.

mod devices;

use std::sync::Arc;
use std::time::Duration;

use super::client::{Asked, Client, Phase};
use super::leftovers;
use super::log::{PRESENCE, SHARED};
use super::plan::{CROWD, Plan};
use super::policies::{Memory, Wanted};
use super::random::Random;
use super::world::{GroundTruth, World};
use crate::auth::{Revocation, Revoked};
use crate::config::rules::{Audience, RuleSpec};
use crate::cores::operators::mailbox::{Done, Order};
use crate::policy::Policy;
use crate::policy::channels::ChannelSpec;

/// One run; returns the sum of all that has happened in it.
pub(super) fn run(seed: u64) -> Summary {
    let mut random = Random::new(seed);
    let plan = Plan::of(&mut random);
    let steps = plan.steps;
    let mut world = World::new(Some(seed), plan, random);
    world.truth.note(format!("{:?}", world.truth.plan));
    if world.truth.plan.clients_max == CROWD {
        world.crowd();
    }
    for _ in 0..steps {
        world.step();
    }
    world.end();
    Summary {
        hash: world.truth.trace.hash(),
        clients: world.clients.len(),
        publications: world.truth.log.len(),
        deliveries: world.truth.deliveries,
        replayed: world.truth.replayed,
        recoveries: world.truth.recoveries,
        histories: world.truth.histories,
        events: world.truth.events,
        infos: world.truth.infos,
        wills: world.truth.wills.published,
        superseded: world.truth.wills.superseded,
        calls_answered: world.truth.calls.answered,
        calls_failed: world.truth.calls.failed,
        calls_cancelled: world.truth.calls.cancelled,
        webhook_events: world.truth.events_told.count,
        long_subacks: world.truth.long_subacks,
        turns: world
            .handles
            .iter()
            .map(|core| core.metrics().turns.value())
            .sum(),
    }
}

/// The result of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) hash: u64,
    pub(super) clients: usize,
    pub(super) publications: usize,
    pub(super) deliveries: usize,
    pub(super) replayed: u64,
    pub(super) recoveries: u64,
    /// Answers to `$history` with publications.
    pub(super) histories: u64,
    /// Events of presence that came.
    pub(super) events: u64,
    /// Infos that members gave themselves.
    pub(super) infos: u64,
    /// Wills of SocketCluster clients that were published, and wills that were void.
    pub(super) wills: u64,
    pub(super) superseded: u64,
    /// Calls of services that were answered, that failed, and that were cancelled at their services.
    pub(super) calls_answered: u64,
    pub(super) calls_failed: u64,
    pub(super) calls_cancelled: u64,
    /// Events that webhooks got.
    pub(super) webhook_events: u64,
    /// Answers to long SUBSCRIBE packets of MQTT clients.
    pub(super) long_subacks: u64,
    pub(super) turns: u64,
}

impl World {
    fn step(&mut self) {
        match self.truth.random.below(100) {
            0..30 => self.turn_some(),
            30..36 => self.add_client(),
            36..80 if !self.devices.is_empty() && self.truth.random.chance(3, 5) => self.device_acts(),
            36..80 => self.somebody_acts(),
            80..85 => self.settle_noted(),
            85..91 => self.time_passes(),
            91..93 => self.set_wall(),
            93..96 => self.core_stands_still(),
            96..98 => self.answer_late(),
            98 if self.truth.random.chance(1, 2) => self.revoke(),
            98 if self.truth.random.chance(2, 3) => self.reload_channels(),
            98 => self.reload_rules(),
            _ => self.request_turn(),
        }
    }

    /// Many clients that follow one channel.
    fn crowd(&mut self) {
        self.truth.note("a crowd comes");
        for _ in 0..CROWD {
            let Some(index) = self.connect(0, false) else {
                return;
            };
            self.with(index, |client, truth| {
                client.ask(truth, Asked::Handshake);
                client.ask(truth, Asked::Subscribe(0));
                client.write(truth, usize::MAX);
            });
        }
        self.settle();
    }

    fn turn_some(&mut self) {
        let core = self.truth.random.below(self.seats.len());
        if !self.seats[core].stands_still && self.turn(core) {
            self.truth.note(format!("core {core} turns"));
        }
    }

    fn add_client(&mut self) {
        let alive = self.clients.iter().filter(|client| client.phase != Phase::Gone);
        if alive.count() >= self.truth.plan.clients_max {
            return;
        }
        let core = self.truth.random.below(self.seats.len());
        let version_1 = self.truth.random.chance(1, 3);
        let Some(index) = self.connect(core, version_1) else {
            return;
        };
        let random = &mut self.truth.random;
        let (is_deaf, has_token) = (random.chance(1, 12), random.chance(1, 4));
        let (is_slow, is_rude) = (random.chance(1, 10), random.chance(1, 20));
        if has_token {
            let user = random.below(3);
            let claims = format!(r#"{{"sub":"user {user}"}}"#);
            self.clients[index].user = Some(user);
            let unix_ms = self.truth.time.peek().unix_ms;
            let token = self
                .policy
                .tokens
                .sign(&claims, None, unix_ms)
                .expect("there is a key");
            self.clients[index].token = Some(token);
        }
        self.clients[index].answers_pings = !is_deaf;
        self.truth.note(format!("client {index} connects to core {core}, deaf: {is_deaf}, token: {has_token}, slow: {is_slow}, rude: {is_rude}"));
        self.with(index, |client, truth| {
            if is_rude {
                client.ask(truth, Asked::Call);
            } else if !is_slow {
                client.ask(truth, Asked::Handshake);
            }
            if !is_rude && !is_slow && watches_members(truth) && truth.random.chance(1, 4) {
                let channel = truth.random.below(truth.plan.channels);
                client.ask(truth, Asked::Subscribe(PRESENCE + channel));
                client.ask(truth, Asked::Members(channel));
            }
            if !is_rude && !is_slow && truth.plan.services && truth.random.chance(1, 2) {
                client.serve(truth);
            }
            if !is_rude && !is_slow && truth.random.chance(4, 5) {
                let channel = truth.random.below(truth.plan.channels);
                let asked = subscription(truth, channel);
                client.ask(truth, asked);
            }
            let max = some_bytes(truth, client);
            client.write(truth, max);
        });
    }

    fn somebody_acts(&mut self) {
        let alive: Vec<usize> = self
            .clients
            .iter()
            .filter(|client| client.phase != Phase::Gone)
            .map(|client| client.index)
            .collect();
        if alive.is_empty() {
            return;
        }
        let index = self.truth.random.of(&alive);
        self.with(index, |client, truth| {
            let what = act(client, truth);
            truth.note(format!("client {index} {what}"));
        });
    }

    fn settle_noted(&mut self) {
        self.truth.note("all come to rest");
        self.settle();
    }

    fn time_passes(&mut self) {
        let random = &mut self.truth.random;
        let by = match random.below(8) {
            0..3 => Duration::from_micros(random.below(1000) as u64),
            3..5 => Duration::from_millis(random.below(100) as u64),
            5..7 => Duration::from_millis(random.below(2000) as u64),
            _ => Duration::from_millis(random.below(10_000) as u64),
        };
        let stands_still = self.seats.iter().any(|seat| seat.stands_still);
        let is_short = stands_still && self.truth.random.chance(7, 8);
        let by = if is_short {
            by.min(Duration::from_millis(100))
        } else {
            by
        };
        if stands_still {
            self.truth.still_for += by;
        }
        self.truth.note(format!("{by:?} pass"));
        if by < Duration::from_millis(1) {
            self.truth.time.advance(by);
        } else {
            self.pass(by);
        }
    }

    fn set_wall(&mut self) {
        let by_ms = self.truth.random.of(&[-3_600_000, -1, 1000, 3_600_000]);
        self.truth.note(format!("the wall clock is set by {by_ms} ms"));
        self.truth.time.set_wall(by_ms);
        self.truth.clock_sets += 1;
    }

    fn core_stands_still(&mut self) {
        let core = self.truth.random.below(self.seats.len());
        let seat = &mut self.seats[core];
        seat.stands_still ^= true;
        let word = if seat.stands_still {
            "stands still"
        } else {
            "goes on"
        };
        self.truth.note(format!("core {core} {word}"));
    }

    fn answer_late(&mut self) {
        self.truth.told.borrow_mut().decide_all();
        let owed = std::mem::take(&mut self.truth.told.borrow_mut().owed);
        self.truth.note(format!("{} calls are answered late", owed.len()));
        for deferred in owed {
            let bytes = self.truth.random.of(&[1, 100, 3000]);
            // A client that is gone needs no answer, and the mailbox holds no more answers than it has room
            // for.
            let _ = deferred.answer(move |peer| peer.reply(&"l".repeat(bytes)));
        }
    }

    fn revoke(&mut self) {
        let user = self.truth.random.below(3);
        self.truth.note(format!("user {user} is revoked"));
        self.truth.revoked = true;
        self.truth.wills.revoke(user);
        let what = Revoked::parse(&format!(r#"{{"sub":"user {user}"}}"#)).expect("a claim");
        let now = self.truth.time.peek().unix_ms / 1000;
        let revocation = Revocation::new(what, now, now + 1_000_000);
        let mut revocations = self.policy.tokens.revocations().clone();
        revocations.insert(&revocation).expect("there is room");
        self.policy = Arc::new(self.policy.with_revocations(revocations));
        let done = Done::unobserved();
        for order in [
            Order::Adopt(Arc::clone(&self.policy)),
            Order::Revoke {
                revocation: Arc::new(revocation),
                done,
            },
        ] {
            self.order_if_taken(&order);
        }
    }

    /// Other policies of channels come into force.
    fn reload_channels(&mut self) {
        let plan = &self.truth.plan;
        if plan.memory != Memory::Some {
            return;
        }
        let channels = plan.policies(&mut self.truth.random);
        self.truth.note(format!("policies of channels: {channels:?}"));
        let policy = self.apply_policy(channels);
        self.order_if_taken(&Order::Adopt(policy));
    }

    /// Other rules come into force: clients without a token may serve nothing, or they may again.
    fn reload_rules(&mut self) {
        let plan = &self.truth.plan;
        if !plan.services {
            return;
        }
        let serving = match self.truth.random.chance(1, 2) {
            true => Audience::Anyone,
            false => Audience::Authenticated,
        };
        let rules: Vec<RuleSpec> = plan.rules(serving.clone());
        self.truth.note(format!("{serving:?} may serve"));
        self.truth.calls.rules_changed = true;
        self.config.permissions.rules = rules;
        let policy = self.apply_policy(self.config.channels.clone());
        self.order_if_taken(&Order::Adopt(policy));
    }

    /// Makes a policy with these policies of channels, to be given to the cores. As in the server, the former
    /// policies know that they are superseded before the first core adopts the new ones.
    pub(super) fn apply_policy(&mut self, channels: Vec<ChannelSpec>) -> Arc<Policy> {
        self.config.channels = channels;
        let reopened = self.policy.reopen(&self.config).expect("policies that are right");
        let reopened = reopened.with_runtime_state_of(&self.policy);
        if reopened.channels.version() != self.policy.channels.version() {
            self.policy.channels.supersede();
        }
        self.policy = Arc::new(reopened);
        Arc::clone(&self.policy)
    }

    /// Gives an order to the cores that have room for it. A core that stands still has no room after a while.
    fn order_if_taken(&self, order: &Order) {
        for (seat, handle) in self.seats.iter().zip(&self.handles) {
            if seat.core.is_some() {
                // As in the control plane: a core whose mailbox is full gets the order again later.
                let _ = handle.send(order.clone());
            }
        }
    }

    fn request_turn(&mut self) {
        let core = self.truth.random.below(self.handles.len());
        self.truth.note(format!("core {core} is nudged"));
        self.handles[core].request_turn();
    }

    /// All clients leave or are closed. Nothing may be left.
    fn end(&mut self) {
        for seat in &mut self.seats {
            seat.stands_still = false;
        }
        if !self.devices.is_empty() {
            self.truth.note("the devices come home");
            self.devices_come_home();
        }
        let limits = &self.truth.plan.limits;
        // To read all input of a client above its rate may take minutes, and so may accepting a crowd.
        let is_limited = limits.messages_per_second_max > 0
            || limits.bytes_per_second_max > 0
            || limits.accepts_per_second_max > 0;
        if !is_limited && self.truth.random.chance(1, 2) {
            self.truth.note("all leave");
            self.all_leave();
        } else {
            self.truth.note("nobody leaves");
        }
        self.truth.note("drain");
        self.drain();
        let limits = &self.truth.plan.limits;
        let patience = self.truth.plan.drain + limits.close_timeout + Duration::from_secs(1);
        self.pass_until_stopped(patience);
        self.after_the_end();
    }

    fn pass_until_stopped(&mut self, within: Duration) {
        let end = self.truth.time.peek().uptime + within;
        while self.seats.iter().any(|seat| seat.core.is_some()) {
            self.settle();
            let now = self.truth.time.peek().uptime;
            if now > end {
                return;
            }
            let next = self.next_deadline().unwrap_or(end);
            self.truth
                .time
                .advance(next.since(now).max(Duration::from_millis(1)));
        }
    }

    fn all_leave(&mut self) {
        for index in 0..self.clients.len() {
            self.with(index, |client, truth| {
                if client.phase == Phase::Gone {
                    return;
                }
                client.attentive = true;
                match truth.random.below(4) {
                    0 => client.disappear(),
                    1 => {
                        client.write(truth, usize::MAX);
                        client.send_fin();
                    }
                    _ => {
                        let code = truth.random.of(&[1000, 1000, 1001]);
                        client.queue_close(truth, code);
                    }
                }
            });
        }
        self.devices_leave();
        let limits = &self.truth.plan.limits;
        let longest = limits
            .close_timeout
            .max(limits.request_timeout)
            .max(limits.handshake_timeout);
        self.pass(longest * 2 + Duration::from_secs(1));
        if let Some(client) = self.clients.iter().find(|client| client.phase != Phase::Gone) {
            self.truth.fail(&format!("{client:?} is still here"));
        }
        self.pass(Duration::from_millis(WILL_DELAY_MAX_MS.into()) + Duration::from_secs(1));
        for (index, seat) in self.seats.iter().enumerate() {
            if let Some(core) = &seat.core {
                self.truth.expect_of_core(index, leftovers::of_wills(core));
                self.truth
                    .expect_of_core(index, leftovers::of_service_calls(core));
            }
        }
        if !self.devices.is_empty() {
            let last = self.truth.plan.session_expiry_s_max + 1;
            self.pass(Duration::from_secs(last.into()));
            if let Some(device) = self.devices.iter().find(|device| !device.is_gone()) {
                self.truth.fail(&format!("{device:?} is still here"));
            }
            for (index, seat) in self.seats.iter().enumerate() {
                if let Some(core) = &seat.core {
                    self.truth.expect_of_core(index, leftovers::of_sessions(core));
                }
            }
        }
        self.check_the_ring();
        for (index, seat) in self.seats.iter().enumerate() {
            if let Some(core) = &seat.core
                && core.connections.len() + core.abandoned.len() > 0
            {
                self.truth
                    .fail(&format!("core {index} has connections of nobody"));
            }
        }
    }

    /// Once all cores have taken a turn, no buffer of a publication is kept.
    fn check_the_ring(&mut self) {
        self.settle();
        for handle in &self.handles {
            handle.request_turn();
        }
        self.settle();
        let cores = || self.seats.iter().filter_map(|seat| seat.core.as_ref());
        let subscriptions: u64 = cores().map(|core| core.delivery.subscriptions().len()).sum();
        let interests = cores()
            .next()
            .map_or(0, |core| core.delivery.subscriptions().interests_of_all_cores());
        if (subscriptions == 0) != (interests == 0) {
            self.truth.fail(&format!(
                "{subscriptions} subscriptions, and the directory knows {interests}"
            ));
        }
        for (index, seat) in self.seats.iter_mut().enumerate() {
            if let Some(core) = &mut seat.core {
                self.truth.expect_of_core(index, leftovers::of_the_ring(core));
            }
        }
    }

    fn after_the_end(&mut self) {
        if let Some(core) = self.seats.iter().find_map(|seat| seat.core.as_ref()) {
            let waits = (core.connections.len(), core.counts.alive(), core.abandoned.len());
            self.truth.fail(&format!(
                "the drain is not over in time: {:?}, {waits:?}",
                core.draining
            ));
        }
        if self.admission.networks() > 0 {
            self.truth.fail("addresses are still counted");
        }
        let metrics = || self.handles.iter().map(|handle| handle.metrics());
        let sum = |count: fn(&crate::metrics::block::CoreMetrics) -> u64| metrics().map(count).sum::<u64>();
        let ends = sum(|core| core.closes.iter().map(|close| close.value()).sum());
        let (accepts, answers) = (
            sum(|core| core.accepts.value()),
            sum(|core| core.http_answers.value()),
        );
        if ends > accepts || ends + answers < accepts {
            self.truth
                .fail(&format!("{accepts} accepted, {ends} ended, {answers} answered"));
        }
        let told = self.truth.told.borrow();
        if let Some((id, session)) = told.sessions.iter().find(|(_, session)| session.end.is_none()) {
            self.truth
                .fail(&format!("the application still has {id}: {session:?}"));
        }
        if told.calls_open > 0 {
            self.truth.fail("calls of the server's were never answered");
        }
        drop(told);
        self.truth.take_webhook_events();
        self.truth
            .expect_of("webhooks", self.truth.check_webhook_events());
        self.truth.expect(0, "at last", self.truth.log.check_order());
        self.truth.expect(0, "at last", self.truth.log.check_whole());
    }
}

/// A client acts; returns the name of the action.
fn act(client: &mut Client, truth: &mut GroundTruth) -> &'static str {
    let channel = truth.random.below(truth.plan.channels);
    let may_send = client.may_send();
    let all = if truth.plan.services { 70 } else { 46 };
    match truth.random.below(all) {
        46.. if client.session.is_some() && may_send => about_services(client, truth),
        40..43 if client.session.is_some() && may_send => {
            let asked = about_a_will(truth, channel);
            sent(client, truth, &[asked], "says what it leaves behind")
        }
        43..46 if client.session.is_some() && may_send => {
            let asked = question(truth, channel);
            sent(client, truth, &[asked], "asks about a channel")
        }
        0..6 if may_send => {
            let asked = subscription(truth, channel);
            sent(client, truth, &[asked], "subscribes")
        }
        6..8 if may_send => sent(client, truth, &[Asked::Unsubscribe(channel)], "unsubscribes"),
        8..18 if may_send => {
            let count = truth.random.of(&[1, 1, 2, 5, 20]);
            let all = vec![Asked::Publish(channel); count];
            sent(client, truth, &all, "publishes")
        }
        18..21 if may_send => sent(client, truth, &[Asked::Call], "calls"),
        21..24 if may_send => {
            let some = [
                subscription(truth, channel),
                Asked::Publish(channel),
                Asked::Call,
                Asked::Unsubscribe(channel),
                Asked::Forbidden,
            ];
            let count = 1 + truth.random.below(6);
            let all: Vec<_> = (0..count).map(|_| truth.random.of(&some)).collect();
            sent(client, truth, &all, "asks for several things")
        }
        39 if client.session.is_some() && may_send && truth.random.chance(1, 2) => {
            let all = many(truth);
            client.ask_all(truth, &all);
            let max = some_bytes(truth, client);
            client.write(truth, max);
            "asks for many things in one array"
        }
        24..26 if may_send => {
            called(client, truth, channel);
            "calls a procedure"
        }
        26..31 => {
            let max = some_bytes(truth, client);
            client.write(truth, max);
            "writes on"
        }
        31..33 => {
            let max = truth.random.of(&[1, 10, 100, 8192]);
            client.read(truth, max);
            "reads"
        }
        33 | 34 => {
            client.attentive ^= true;
            client.sent.dozed |= !client.attentive;
            "is attentive, or is not"
        }
        35 if may_send && client.session.is_some() && truth.random.chance(1, 2) => leave(client, truth),
        36 if truth.random.chance(1, 6) => {
            client.disappear();
            "disappears"
        }
        37 if may_send && truth.random.chance(1, 6) => {
            client.queue_garbage(truth);
            "sends garbage"
        }
        38 if truth.random.chance(1, 6) => {
            client.answers_pings = false;
            "answers no ping from now on"
        }
        _ => "waits",
    }
}

fn about_services(client: &mut Client, truth: &mut GroundTruth) -> &'static str {
    let what = match truth.random.below(12) {
        0..3 => {
            client.serve(truth);
            "asks to serve"
        }
        3 => {
            client.unserve(truth);
            "gives a pattern up"
        }
        4..8 if truth.calls.has_any_service() || truth.random.chance(1, 4) => {
            let count = truth.random.of(&[1, 1, 3, 8]);
            client.call_services(truth, count);
            "calls services"
        }
        8 => {
            client.send_event(truth);
            "sends services an event"
        }
        4..11 => {
            client.answer_one(truth);
            "answers a call"
        }
        _ => {
            client.lie(truth);
            "answers what it was not asked"
        }
    };
    let max = some_bytes(truth, client);
    client.write(truth, max);
    what
}

/// A subscription, with or without a part of the channel's past.
fn subscription(truth: &mut GroundTruth, channel: usize) -> Asked {
    if !truth.plan.memory.is_some() || truth.random.chance(1, 3) {
        return Asked::Subscribe(channel);
    }
    let published = truth.log.of_channel(channel);
    let any = truth.random.below(published.len());
    let some_offset = published.get(any).map_or(0, |entry| entry.sequence);
    let recent = published.iter().rev().nth(truth.random.below(4));
    let recent = recent.map_or(0, |entry| entry.sequence);
    let wanted = match truth.random.below(16) {
        0 => Wanted::Position,
        1 => Wanted::OtherEpoch,
        // There are no publications yet.
        2 => Wanted::After(truth.log.claimed() + 1000),
        3 => Wanted::After(0),
        4..6 => Wanted::Last(truth.random.of(&[0, 1, 5, 1000])),
        6..11 => Wanted::After(some_offset),
        11..13 => {
            let back_ms = truth.random.of(&[0, 100, 2000, 10_000]);
            Wanted::Since(truth.time.peek().unix_ms.saturating_sub(back_ms))
        }
        _ => Wanted::After(recent),
    };
    if truth.epoch.is_none() && matches!(wanted, Wanted::After(_)) {
        return Asked::Recover(channel, Wanted::Position);
    }
    Asked::Recover(channel, wanted)
}

/// A will, or the request to have none.
fn about_a_will(truth: &mut GroundTruth, channel: usize) -> Asked {
    if truth.random.chance(1, 8) {
        return Asked::TakeWillBack;
    }
    let name = truth.random.of(&[None, Some(0), Some(0), Some(1)]);
    let delay_ms = truth.random.of(&[0, 0, 200, 1000, WILL_DELAY_MAX_MS]);
    Asked::Will(channel, name, delay_ms)
}

/// Whether events tell of the members of channels.
fn watches_members(truth: &GroundTruth) -> bool {
    truth.plan.presence && truth.plan.presence_events
}

/// A question about the past of a channel or its members.
fn question(truth: &mut GroundTruth, channel: usize) -> Asked {
    let watched = if truth.plan.mqtt && truth.random.chance(1, 4) {
        SHARED
    } else {
        channel
    };
    match truth.random.below(3) {
        0 if truth.plan.memory.is_some() => match subscription(truth, channel) {
            Asked::Recover(channel, wanted) => {
                let limit = truth.random.of(&[1, 3, 100]);
                Asked::History(channel, wanted, limit)
            }
            asked => asked,
        },
        1 if watches_members(truth) => Asked::Subscribe(PRESENCE + watched),
        _ if truth.plan.presence && truth.random.chance(1, 2) => Asked::Info(channel),
        _ if truth.plan.presence => Asked::Members(watched),
        _ => Asked::Call,
    }
}

/// The packets of a long array. Rarely one of them ends the connection in the middle.
fn many(truth: &mut GroundTruth) -> Vec<Asked> {
    let count = truth.random.of(&[10, 30, 100, 300]);
    let is_quiet = truth.random.chance(1, 2);
    let ends = truth.random.chance(1, 8);
    let mut all: Vec<Asked> = (0..count)
        .map(|_| {
            let channel = truth.random.below(truth.plan.channels);
            match truth.random.below(if is_quiet { 6 } else { 16 }) {
                0..5 => Asked::Call,
                5 => Asked::Forbidden,
                6..12 => Asked::Publish(channel),
                12 => Asked::Subscribe(channel),
                13 => Asked::Unsubscribe(channel),
                14 => Asked::Much(truth.random.of(&[10, 1000, 5000])),
                _ if truth.random.chance(1, 2) => Asked::KickMe(channel),
                _ => Asked::KickMeOutOfAll,
            }
        })
        .collect();
    if ends {
        let place = truth.random.below(all.len());
        all[place] = Asked::SendMeAway;
    }
    all
}

/// Sends all these requests, in messages of their own or in one.
fn sent(client: &mut Client, truth: &mut GroundTruth, all: &[Asked], what: &'static str) -> &'static str {
    if truth.random.chance(1, 4) && client.session.is_some() {
        client.ask_all(truth, all);
    } else {
        for &asked in all {
            client.ask(truth, asked);
        }
    }
    let max = some_bytes(truth, client);
    client.write(truth, max);
    what
}

fn called(client: &mut Client, truth: &mut GroundTruth, channel: usize) {
    match truth.random.below(8) {
        0..2 => client.call(truth, "later", "1", true),
        2..4 => {
            let bytes = truth.random.of(&["10", "1000", "5000"]);
            client.call(truth, "much", bytes, false);
        }
        4 => client.call(truth, "ask me", "1", false),
        5 => client.ask(truth, Asked::KickMe(channel)),
        6 => client.ask(truth, Asked::KickMeOutOfAll),
        _ => client.ask(truth, Asked::SendMeAway),
    }
    client.write(truth, usize::MAX);
}

fn leave(client: &mut Client, truth: &mut GroundTruth) -> &'static str {
    if truth.random.chance(1, 3) {
        client.write(truth, usize::MAX);
        client.send_fin();
        return "ends its direction";
    }
    let code = truth.random.of(&[1000, 1000, 1001]);
    client.queue_close(truth, code);
    client.write(truth, usize::MAX);
    "says goodbye"
}

/// How many bytes to write: all, or a part.
fn some_bytes(truth: &mut GroundTruth, client: &Client) -> usize {
    match truth.random.below(4) {
        0 => truth.random.below(client.unwritten() + 1),
        _ => usize::MAX,
    }
}

/// The longest delay of a will.
const WILL_DELAY_MAX_MS: u32 = 3000;
