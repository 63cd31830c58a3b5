//! The server of a run and its surroundings: its cores, their clock, its clients, and the facts that the clients share.
//!
//! ```text
//!  world.rs          turns of cores, rest, the clock      world/trace.rs    what has happened, for a failure
//!  world/setup.rs    makes a run                          world/truth.rs    the facts by which clients judge
//!  world/at_rest.rs  checks when nothing is on its way
//! ```

mod at_rest;
mod setup;
mod trace;
mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use mio::Events;
use serde_json::Value;

use super::actor::{Actor, Turn};
use super::client::{Client, Member};
use super::device::Device;
use super::listener::{ListenerAddress, SimulatedListener};
use super::plan::Plan;
use super::{SCALE, leftovers};
use crate::clock::Uptime;
use crate::config::Config;
use crate::cores::arrivals::admission::Admission;
use crate::cores::arrivals::listeners::Listeners;
use crate::cores::core::Core;
use crate::cores::operators::mailbox::{CoreHandle, Order};
use crate::cores::outgoing::recoveries::Next;
use crate::cores::{CoreParts, CoreSettings, InheritedDescriptors};
use crate::policy::Policy;
use crate::store::simulated::SimulatedStore;

pub(super) use truth::GroundTruth;

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

impl World {
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

/// Turns of each core until there must be rest.
const ROUNDS_MAX: u64 = 50_000;
/// While a core stands still, the cores that wait for room try again every millisecond, and never come to
/// rest; check no more often.
const BESIDE_ONE_MAX: Duration = Duration::from_millis(20);
