//! The server of a run and its surroundings: its cores, their clock, its clients, and the facts that the clients share.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::Events;
use serde_json::Value;

use super::actor::{Actor, AppLog, Turn};
use super::client::{Client, Member};
use super::device::Device;
use super::following::Recovered;
use super::listener::{ListenerAddress, SimulatedListener};
use super::lives::Lives;
use super::log::{Log, SHARED};
use super::plan::{Plan, WILLS_TIGHT};
use super::policies::{Memory, Wanted};
use super::random::Random;
use super::services::Calls;
use super::shares::Shares;
use super::webhooks::Events as WebhookEvents;
use super::wills::Wills;
use super::{SCALE, descriptors, leftovers, webhooks};
use crate::auth::{CredentialFields, Tokens};
use crate::broker::{ChannelHasher, Epoch, Numbering, RingBytes, RingPlan, broker_with_outside};
use crate::clock::Uptime;
use crate::clock::simulated::Time;
use crate::config::limits::MemoryMax;
use crate::config::rules::Audience;
use crate::config::secret::Secret;
use crate::config::tls::OnListen;
use crate::config::{Codec, Config, SlowConsumer};
use crate::cores::arrivals::admission::Admission;
use crate::cores::arrivals::listeners::Listeners;
use crate::cores::core::Core;
use crate::cores::operators::mailbox::{CoreHandle, Order};
use crate::cores::outgoing::recoveries::Next;
use crate::cores::{CoreParts, CoreSettings, InheritedDescriptors, Stored, StoredSessions};
use crate::history::Histories;
use crate::http::site::Site;
use crate::policy::Policy;
use crate::presence::{DOUBT, RETRY};
use crate::protocols;
use crate::session::{self, Logins, SessionId};
use crate::store::simulated::SimulatedStore;
use crate::transport::port::Ports;

/// A server and its clients.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seats: Vec<SimulatedCore>,
    pub(super) clients: Vec<Client>,
    pub(super) devices: Vec<Device>,
    pub(super) handles: Vec<CoreHandle>,
    pub(super) admission: Arc<Admission>,
    pub(super) policy: Arc<Policy>,
    pub(super) config: Config,
    /// The store, if the plan has one, and whether it commits.
    pub(super) store: Option<SimulatedStore>,
    pub(super) commits: bool,
    rests: u64,
    /// The subscribers of channels with presence, the members that webhooks were told of, and the time since
    /// which neither has changed.
    subscribed: ([BTreeSet<(String, Member)>; 2], Uptime),
    /// The infos of all members, and the time since which they have not changed.
    infos: (BTreeMap<(String, Member), Value>, Uptime),
    pub(super) truth: GroundTruth,
}

/// The facts that clients need to judge what they receive.
#[derive(Debug)]
pub(super) struct GroundTruth {
    pub(super) random: Random,
    pub(super) time: &'static Time,
    pub(super) plan: Plan,
    pub(super) log: Log,
    pub(super) told: Rc<RefCell<AppLog>>,
    pub(super) trace: Trace,
    /// Publications that have come to clients.
    pub(super) deliveries: usize,
    /// The first place in the ring that some core has not delivered.
    pub(super) undelivered: u64,
    /// Publications that certainly have not reached a subscriber.
    pub(super) missing: usize,
    pub(super) draining: bool,
    pub(super) revoked: bool,
    /// Publications that came as replays, and recoveries in which some came.
    pub(super) replayed: u64,
    pub(super) recoveries: u64,
    /// Answers to `$history` with publications, and events of presence that have come.
    pub(super) histories: u64,
    pub(super) events: u64,
    /// How often the wall clock was set.
    pub(super) clock_sets: u32,
    /// How long the clock was moved on while a core stood still.
    pub(super) still_for: Duration,
    /// The epoch of positions, once a client knows it.
    pub(super) epoch: Option<String>,
    /// The keys by which MQTT clients are known.
    pub(super) tokens: Tokens,
    pub(super) lives: Lives,
    pub(super) wills: Wills,
    pub(super) calls: Calls,
    /// How many infos clients have given themselves.
    pub(super) infos: u64,
    /// The events that webhooks got.
    pub(super) events_told: WebhookEvents,
    pub(super) shares: Shares,
    /// Publications of MQTT clients that were acknowledged, each with the numbers under which it was sent.
    pub(super) acknowledged: Vec<Vec<usize>>,
    /// Publications that have come to MQTT clients.
    pub(super) device_deliveries: usize,
    /// Answers of MQTT about more than one filter.
    pub(super) long_subacks: u64,
    /// The publications that certainly have not come to a session of MQTT, each with the client; without one, to the
    /// members of a group.
    pub(super) device_missing: Vec<(usize, usize)>,
}

/// One core, and when it turns next.
#[derive(Debug)]
pub(super) struct SimulatedCore {
    /// Gone when it has stopped.
    pub(super) core: Option<Core<Actor>>,
    /// The descriptors that the end of its thread would have left to the process.
    shared: Option<InheritedDescriptors>,
    pub(super) listener_address: ListenerAddress,
    events: Events,
    /// How long its wait may take; `None` if only an event ends it.
    timeout: Option<Duration>,
    /// When this wait is over.
    until: Option<Uptime>,
    /// The system has not given it the processor for a while.
    pub(super) stands_still: bool,
}

/// Everything that has happened: as a number, and the latest actions in words.
#[derive(Debug)]
pub(super) struct Trace {
    seed: Option<u64>,
    /// Whether the same seed has the same result, whatever other threads do.
    replays: bool,
    step: usize,
    hash: u64,
    last: VecDeque<String>,
}

impl World {
    pub(super) fn new(seed: Option<u64>, plan: Plan, mut random: Random) -> World {
        SCALE.set(Some(plan.scale));
        let replays = descriptors::make_own();
        let key = seed.unwrap_or(0);
        let time = Time::begin(key, plan.creep_ns_max);
        let clock = time.clock();
        let told = Rc::new(RefCell::new(AppLog {
            defers: plan.defers,
            ..AppLog::default()
        }));
        let mut config = Config::default();
        config.auth.key = Some(Secret::new("the key of all simulations, which is no secret"));
        config.channels = plan.policies(&mut random);
        config.permissions.rules = plan.rules(Audience::Anyone);
        config.services = plan.service_terms();
        config.limits = plan.limits.clone();
        config.webhooks = plan.webhooks.then(webhooks::spec).into_iter().collect();
        let policy = Arc::new(Policy::open(&config).expect("a key and policies that are right"));
        let admission = Arc::new(Admission::new(
            plan.limits.connections_per_address_max,
            config.listen.translator_prefixes.clone(),
        ));
        // One reader more than there are cores: the log's.
        let share = plan.limits.ring_bytes_max / plan.cores as u64;
        let (mut brokers, _) = broker_with_outside(RingPlan {
            cores: plan.cores,
            observers: 1,
            slots: plan.limits.ring_slots,
            bytes: RingBytes {
                cores_max: share * (plan.cores as u64 + 1),
                outside_max: 0,
            },
            numbering: Numbering::new(),
        });
        let epoch = brokers[0].numbering.epoch;
        let observer = brokers.pop().expect("one more").reader;
        for broker in &mut brokers {
            broker.hasher = ChannelHasher::with_key(key);
        }
        let connections_max = plan.limits.connections_max;
        let is_tight = plan.limits.wills_bytes_max <= WILLS_TIGHT;
        let tokens = policy.tokens.clone();
        let intake = policy.webhooks.intake().cloned();
        let devices = (0..plan.devices)
            .map(|index| Device::new(index, random.chance(1, 2)))
            .collect();
        let (mut parts, handles) = CoreParts::all(brokers, connections_max, 64, |_| Actor(Rc::clone(&told)))
            .expect("polls and socket pairs");
        let settings = settings(&plan, &policy, &admission, clock, epoch);
        let store = plan.store.then(|| with_store(&mut parts, &handles, epoch));
        let seats = parts
            .into_iter()
            .map(|parts| SimulatedCore::new(parts, &settings, &plan))
            .collect();
        let log = Log::new(observer);
        let mut lives = Lives::default();
        lives.connack_waits = plan.store;
        World {
            seats,
            clients: Vec::new(),
            devices,
            handles,
            admission,
            policy,
            config,
            store,
            commits: true,
            rests: 0,
            subscribed: (<[_; 2]>::default(), Uptime::default()),
            infos: (BTreeMap::new(), Uptime::default()),
            truth: GroundTruth {
                random,
                time,
                plan,
                log,
                told,
                trace: Trace::new(seed, replays),
                deliveries: 0,
                undelivered: 0,
                missing: 0,
                draining: false,
                revoked: false,
                replayed: 0,
                recoveries: 0,
                histories: 0,
                events: 0,
                clock_sets: 0,
                still_for: Duration::ZERO,
                epoch: None,
                tokens: Tokens::clone(&tokens),
                lives,
                wills: Wills::new(is_tight),
                calls: Calls::default(),
                infos: 0,
                events_told: WebhookEvents::new(intake),
                shares: Shares::default(),
                acknowledged: Vec::new(),
                device_deliveries: 0,
                long_subacks: 0,
                device_missing: Vec::new(),
            },
        }
    }

    /// A client connects to this core's listener; `None` if the listener is closed.
    pub(super) fn connect(&mut self, core: usize, version_1: bool) -> Option<usize> {
        let socket = self.seats[core].listener_address.connect().ok()?;
        let index = self.clients.len();
        let now = self.truth.time.peek().uptime;
        self.clients.push(Client::new(index, socket, version_1, now));
        Some(index)
    }

    /// Lets a client act.
    pub(super) fn with<R>(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut Client, &mut GroundTruth) -> R,
    ) -> R {
        act(&mut self.clients[client], &mut self.truth)
    }

    /// Lets a core take a turn, if it would; false if it sleeps on.
    pub(super) fn turn(&mut self, index: usize) -> bool {
        let (seat, truth) = (&mut self.seats[index], &mut self.truth);
        let Some(core) = &mut seat.core else {
            return false;
        };
        core.wait(&mut seat.events, Some(Duration::ZERO))
            .expect("a poll that works");
        let is_due = seat.until.is_some_and(|until| truth.time.peek().uptime >= until);
        if seat.events.is_empty() && !is_due {
            return false;
        }
        truth.told.borrow_mut().turn = Turn {
            undelivered: core.delivery.claimed().as_u64() - core.delivery.depth(),
            now: truth.time.peek().uptime,
        };
        core.take_turn(&seat.events, seat.timeout);
        truth
            .trace
            .mix(index as u64 * 1000 + seat.events.iter().count() as u64);
        truth.trace.mix(truth.time.peek_ns());
        if core.operations.is_stopping() {
            let stopped = seat.core.take();
            if let Some(core) = stopped {
                truth.expect_of_core(index, leftovers::after_end(&core));
                seat.shared = Some(core.end());
            }
        } else {
            let timeout = core.timeout();
            seat.timeout = timeout;
            let now = truth.time.peek().uptime;
            seat.until = timeout.map(|timeout| match timeout {
                Duration::ZERO => Uptime::default(),
                later => now + later,
            });
        }
        truth.take_app_log();
        if truth.plan.webhooks && truth.random.chance(3, 4) {
            truth.take_webhook_events();
        }
        if !self.devices.is_empty() {
            let cores = self.seats.iter().filter_map(|seat| seat.core.as_ref());
            let undelivered = cores.map(|core| core.delivery.claimed().as_u64() - core.delivery.depth());
            truth.undelivered = undelivered.min().unwrap_or(0);
        }
        true
    }

    /// Lets all cores and all attentive clients do their work, until none has any left.
    pub(super) fn settle(&mut self) {
        let began = self.truth.time.peek().uptime;
        let stands_still = self.seats.iter().any(|seat| seat.stands_still);
        let mut was_busy = true;
        for _ in 0..ROUNDS_MAX {
            let mut is_busy = self.truth.told.borrow_mut().decide_all();
            is_busy |= self.truth.plan.webhooks && self.truth.take_webhook_events();
            for index in 0..self.seats.len() {
                is_busy |= !self.seats[index].stands_still && self.turn(index);
            }
            if self.commits
                && let Some(store) = &mut self.store
            {
                is_busy |= store.commit();
            }
            // If none of them has acted, there is nothing new to read.
            let all = if is_busy || was_busy {
                self.clients.len()
            } else {
                0
            };
            for client in &mut self.clients[..all] {
                if client.attentive {
                    is_busy |= client.write(&self.truth, usize::MAX);
                    is_busy |= client.read(&mut self.truth, usize::MAX);
                }
            }
            for device in &mut self.devices {
                is_busy |= device.poll_all(&mut self.truth);
            }
            was_busy = is_busy;
            let took = self.truth.time.peek().uptime.since(began);
            if stands_still {
                if took >= BESIDE_ONE_MAX {
                    return;
                }
                self.truth.time.advance(BESIDE_ONE_MAX / 1000);
            }
            if !is_busy && !self.wait_for_room() {
                self.check_at_rest();
                return;
            }
        }
        let cores = self.seats.iter().filter_map(|seat| seat.core.as_ref());
        let counts: Vec<_> = cores
            .map(|core| {
                (
                    core.waiting.lengths(),
                    core.abandoned.len(),
                    core.delivery.depth(),
                    format!("{:?}", core.connections.recoveries),
                    core.connections.has_mqtt_work(),
                    format!("{:?}", core.retained_asks),
                    core.connections
                        .mqtt
                        .as_ref()
                        .map(|sessions| sessions.ready_len()),
                )
            })
            .collect();
        self.truth.fail(&format!("there is no rest: {counts:?}"));
    }

    /// Cores that wait for room in the ring, or in a box of letters, try again after a moment. Returns
    /// whether the clock was moved to that moment.
    fn wait_for_room(&self) -> bool {
        let waits = |core: &Core<Actor>| {
            core.waiting.stalled_count() > 0
                || !core.abandoned.is_empty()
                || core.post.kept_count() > 0
                || core.connections.recoveries.next == Next::Soon
                || core.presence.memberships.has_outgoing()
                || core.waiting.awaiting_move_count() > 0
                || core.retained_asks.awaits_box
                || core.has_unreported_for_webhooks()
                || core
                    .connections
                    .mqtt
                    .as_ref()
                    .is_some_and(|sessions| sessions.shares.has_messages())
        };
        let waits = |seat: &SimulatedCore| !seat.stands_still && seat.core.as_ref().is_some_and(waits);
        // While another core keeps the ring full, this would not end.
        let is_waiting = self.seats.iter().any(waits) && !self.seats.iter().any(|seat| seat.stands_still);
        if is_waiting {
            self.truth.time.advance(Duration::from_millis(1));
        }
        is_waiting
    }

    /// When the next core's wait is over.
    pub(super) fn next_deadline(&self) -> Option<Uptime> {
        self.seats
            .iter()
            .filter(|seat| seat.core.is_some() && !seat.stands_still)
            .filter_map(|seat| seat.until)
            .min()
    }

    /// Moves the clock on by this time, from deadline to deadline.
    pub(super) fn pass(&mut self, by: Duration) {
        let end = self.truth.time.peek().uptime + by;
        loop {
            self.settle();
            let now = self.truth.time.peek().uptime;
            if now >= end {
                return;
            }
            let next = self.next_deadline().map_or(end, |next| next.min(end));
            // A moment more, since a deadline is met when it is over.
            let step = next.since(now).max(Duration::from_millis(1));
            self.truth.time.advance(step);
        }
    }

    /// Checks everything that holds whenever nothing is on its way.
    fn check_at_rest(&mut self) {
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
        // Answers may wait for a store.
        let is_answered = self.store.is_none();
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

    /// Tells all cores to drain; a core that has not taken earlier orders takes a turn first.
    pub(super) fn drain(&mut self) {
        self.truth.draining = true;
        let within = self.truth.plan.drain;
        for index in 0..self.seats.len() {
            while self.seats[index].core.is_some()
                && let Err(error) = self.handles[index].send(Order::Drain { within })
            {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "orders are taken");
                assert!(self.turn(index), "an order wakes its core");
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        SCALE.set(None);
    }
}

impl SimulatedCore {
    fn new(parts: CoreParts<Actor>, settings: &CoreSettings, plan: &Plan) -> SimulatedCore {
        let (simulated, listener_address) =
            SimulatedListener::open(plan.send_buffer, plan.addresses).expect("a local socket");
        let mut core = Core::new(parts, settings.clone(), false).expect("a core begins");
        let listeners = Listeners::simulated(simulated, core.poll.registry()).expect("a watch");
        core.acceptor.listen_to(listeners);
        SimulatedCore {
            core: Some(core),
            shared: None,
            listener_address,
            events: Events::with_capacity(plan.events_max),
            timeout: Some(Duration::ZERO),
            until: Some(Uptime::default()),
            stands_still: false,
        }
    }
}

impl GroundTruth {
    pub(super) fn note(&mut self, what: impl Into<String>) {
        let at = self.time.peek_ns() / 1000;
        self.trace.note(at, &what.into());
    }

    /// The offset of a position. All positions of a run have the same epoch.
    pub(super) fn offset_of(&mut self, position: &Value) -> u64 {
        let (Some(epoch), Some(offset)) = (position["epoch"].as_str(), position["offset"].as_u64()) else {
            self.fail(&format!("no position: {position}"));
        };
        if self.epoch.get_or_insert_with(|| epoch.to_owned()) != epoch {
            self.fail(&format!("another epoch: {position}"));
        }
        offset
    }

    /// Whether each question to the owner of a channel has certainly been answered: an owner that stands
    /// still for long or has stopped answers none, and a client that has asked for nothing is not told.
    pub(super) fn owners_answer(&self) -> bool {
        !self.draining && self.still_for < Duration::from_secs(4)
    }

    /// Whether a client may be told, for this reason, that it does not get everything that it wants.
    pub(super) fn may_lack(&self, wanted: Wanted, told: Recovered, reason: Option<&str>) -> bool {
        let is_future = matches!(wanted, Wanted::After(after) if after > told.up_to);
        match reason {
            None => !is_future && wanted != Wanted::OtherEpoch,
            Some("unknown position") => is_future,
            Some("other epoch") => wanted == Wanted::OtherEpoch,
            Some("too many" | "unsubscribed" | "in progress") => true,
            // A core stood still.
            Some("no answer") => true,
            Some("evicted" | "expired" | "no history" | "policy changed") => self.plan.memory == Memory::Some,
            Some(_) => false,
        }
    }

    /// The fate of publications of a channel for a client that does not read. With a history, none is left
    /// out: the client gets them later, or its connection is closed.
    pub(super) fn slow_consumer_of(&self, channel: usize) -> SlowConsumer {
        match self.plan.memory {
            Memory::Everything if channel < SHARED => SlowConsumer::Close,
            Memory::Everything | Memory::Some | Memory::Nothing => self.plan.slow_consumer,
        }
    }

    /// Ends the run: a check has failed.
    pub(super) fn fail(&self, what: &str) -> ! {
        panic!("{what}\nin a run with {:?}", self.plan);
    }

    pub(super) fn expect(&self, client: usize, when: &str, result: Result<(), String>) {
        if let Err(error) = result {
            self.fail(&format!("client {client}, {when}: {error}"));
        }
    }

    /// Takes the events that the application was told in a turn, and the new publications.
    fn take_app_log(&mut self) {
        let lives = std::mem::take(&mut self.told.borrow_mut().lives);
        for event in lives {
            self.trace.mix(event.connection as u64);
            let result = self.lives.take(event);
            self.expect_of("an MQTT connection", result);
        }
        let ends = std::mem::take(&mut self.told.borrow_mut().ends);
        for (id, end) in ends {
            self.wills.end(&id, end);
        }
        let at = self.told.borrow().turn.now;
        match self.log.read(at) {
            Ok(wills) => {
                let now = self.time.peek().uptime;
                for will in wills {
                    let is_retained = self.log.entry(will).is_some_and(|(_, entry)| entry.retain);
                    let result = match self.wills.has(will) {
                        true => self.wills.note_published(will, is_retained, now),
                        false => self.lives.note_will(will, now),
                    };
                    self.expect_of("a will", result);
                }
            }
            Err(error) => self.fail(&format!("{error}, {:?}", self.lives)),
        }
    }

    pub(super) fn expect_of(&self, what: &str, result: Result<(), String>) {
        if let Err(error) = result {
            self.fail(&format!("{what}: {error}"));
        }
    }

    pub(super) fn expect_of_core(&self, core: usize, result: Result<(), String>) {
        if let Err(error) = result {
            self.fail(&format!("core {core}: {error}"));
        }
    }
}

impl Trace {
    fn new(seed: Option<u64>, replays: bool) -> Trace {
        Trace {
            seed,
            replays,
            step: 0,
            hash: 0xCBF2_9CE4_8422_2325,
            last: VecDeque::with_capacity(ACTIONS_KEPT),
        }
    }

    /// Adds a number to the sum of all that has happened.
    pub(super) fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number)
            .wrapping_mul(0x0100_0000_01B3)
            .rotate_left(17);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    fn note(&mut self, at_us: u64, what: &str) {
        self.step += 1;
        for &byte in what.as_bytes() {
            self.mix(u64::from(byte));
        }
        if self.last.len() == ACTIONS_KEPT {
            self.last.pop_front();
        }
        self.last
            .push_back(format!("{:>5} {:>12} µs  {what}", self.step, at_us));
    }
}

impl Drop for Trace {
    /// Prints the way to a failure, no matter where it was found.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut text = String::from("the last that was done:\n");
        for line in &self.last {
            text.push_str(line);
            text.push('\n');
        }
        if let Some(seed) = self.seed {
            let end = seed + 1;
            text.push_str(&format!(
                "seed {seed}, step {}: RINGCAST_SEEDS={seed}..{end} cargo test --lib simulation\n",
                self.step
            ));
        }
        if !self.replays {
            text.push_str(
                "This system does not permit unshare(CLONE_FILES): other tests of the process can be seen in the run, \
                 and only with --test-threads=1 does it repeat itself.\n",
            );
        }
        // There is no other use for a failed write.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// A store for cores that have not begun.
fn with_store(parts: &mut [CoreParts<Actor>], handles: &[CoreHandle], epoch: Epoch) -> SimulatedStore {
    let (store, sinks) = SimulatedStore::new(parts.len());
    for (part, sink) in parts.iter_mut().zip(sinks) {
        part.stored = Some(Stored {
            sink,
            histories: Histories::new(epoch, 1 << 20, 100),
            wills: Vec::new(),
            retained: Vec::new(),
            mqtt: StoredSessions {
                sessions: Vec::new(),
                publications: Arc::default(),
                may_miss_some: false,
            },
        });
    }
    let handles = handles.to_vec();
    store.set_wake(Box::new(move |core| handles[core].request_turn()));
    store
}

fn settings(
    plan: &Plan,
    policy: &Arc<Policy>,
    admission: &Arc<Admission>,
    clock: crate::clock::Clock,
    epoch: Epoch,
) -> CoreSettings {
    CoreSettings {
        ports: Ports {
            main: ([127, 0, 0, 1], 0).into(),
            main_tls: OnListen::Off,
            tls: None,
            mqtt: None,
            mqtt_tls: None,
            codecs: [Codec::Json; 2],
            mqtt_beside: plan.mqtt,
        },
        acceptors: u64::try_from(plan.cores).expect("few cores"),
        compression: false,
        compression_bytes_min: 1024,
        fan_out_slice: Duration::from_micros(500),
        busy_poll: Duration::ZERO,
        batches: None,
        site: Arc::new(Site::new("/socketcluster/", Vec::new(), false)),
        login_path: "/login".to_owned(),
        login_cookie: "ringcast".to_owned(),
        mqtt_path: "/mqtt".to_owned(),
        retained: crate::retained::Bounds {
            count_max: 1000,
            bytes_max: 1024 * 1024,
        },
        retained_per_subscribe_max: 1000,
        mqtt_bounds: plan.mqtt_bounds,
        limits: plan.limits.clone(),
        held_bytes_max: match plan.limits.outbox_bytes_total_max {
            MemoryMax::Off | MemoryMax::Auto => usize::MAX,
            MemoryMax::Bytes(bytes) => usize::try_from(bytes).expect("few"),
        },
        slow_consumer: plan.slow_consumer,
        accept_excess: plan.accept_excess,
        admission: Arc::clone(admission),
        own_fd_table: None,
        audit: Arc::new(crate::audit::Audit::new(0)),
        session: protocols::ProtocolSettings {
            common: session::CommonSettings {
                epoch,
                handshake_timeout: plan.limits.handshake_timeout,
                // Longer than a run: clients of a simulation know of no refusal.
                decision_timeout: Duration::from_secs(86_400),
                channel_name_bytes_max: plan.limits.channel_name_bytes_max,
                allow_client_publish: true,
                auth_default_expiry: Duration::from_secs(86_400),
                allow_anonymous: true,
                authentication_timeout: None,
                logins: Logins {
                    fields: CredentialFields::default(),
                    body_bytes_max: 4096,
                },
                wills: plan.limits.wills_bytes_max > 0,
                will_bytes_max: plan.limits.will_bytes_max,
                will_delay_max: plan.limits.will_delay_max,
                has_store: plan.store,
                presence_info_bytes_max: plan.limits.presence_info_bytes_max,
                mqtt: match plan.mqtt {
                    true => session::MqttUse::WithRetained,
                    false => session::MqttUse::Off,
                },
            },
            socketcluster: protocols::SocketClusterSettings {
                protocol: plan.protocol,
                ping_interval: plan.ping_interval,
                ping_timeout: plan.ping_timeout,
                ack_timeout: Duration::from_secs(3),
                calls_max: plan.limits.calls_per_connection_max,
                client_calls_max: plan.limits.client_calls_max,
                service_window_max: 1024,
            },
            mqtt: protocols::MqttSettings {
                session_expiry_s_max: plan.session_expiry_s_max,
                receive_maximum: plan.receive_max,
                is_durable: plan.store,
                ..protocols::MqttSettings::default()
            },
        },
        policy: Arc::clone(policy),
        clock,
    }
}

/// Turns of each core until there must be rest.
const ROUNDS_MAX: u64 = 50_000;
/// While a core stands still, the cores that wait for room try again every millisecond, and never come to
/// rest; check no more often.
const BESIDE_ONE_MAX: Duration = Duration::from_millis(20);
/// After this many times of rest, the tables of all cores are checked.
const TABLES_EVERY: u64 = 8;
/// How late an event of presence may be at rest.
const MEMBERS_LATE_MAX: Duration = Duration::from_millis(100);
/// The text that describes a failure.
const ACTIONS_KEPT: usize = 50;
