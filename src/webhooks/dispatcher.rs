//! Moves events from the intake to the queues, and handles the outcomes of requests. One thread calls all methods, and
//! passes the time.
//!
//! Each webhook has one request under way at most (`hook.rs`), also after a reload: a new webhook with the name or the
//! URL of a removed one waits until the request of the removed one has ended.
//!
//! With `data_dir` no request is sent before the file is open (`store.rs`): the events in it come first.
//!
//! Not here: HTTP, threads, and the clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use super::compiled::{Webhook, Webhooks};
use super::disk::Found;
use super::event::{Event, Occupied, SubscriberKind};
use super::hook::{Failure, Hook, Request, State};
use super::intake::{DatedEvent, Intake};
use super::occupancy::{Hooks, Occupancy};
use super::queue::Queue;
use super::store::{COMMIT_AGAIN, Store};
use crate::broker::Numbering;
use crate::clock::{Now, Uptime};
use crate::config::webhooks::{WEBHOOKS_MAX, WebhookEvent};
use crate::decision::Limit;
use crate::metrics::webhooks::{HookMetrics, WebhookAnswer, WebhookDrop};

/// The state of all webhooks of a server.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    /// The webhooks in force, which another thread replaces.
    current: Arc<ArcSwap<Webhooks>>,
    /// The configured webhooks that `hooks` were made from.
    webhooks: Arc<Webhooks>,
    intake: Arc<Intake>,
    hooks: Vec<Hook>,
    /// Webhooks that were removed while they had a request under way, by key, until this request has ended.
    leaving: Vec<(u64, Arc<Webhook>)>,
    /// The counters of webhooks that were removed.
    former: Vec<Arc<HookMetrics>>,
    occupancy: Occupancy,
    store: Store,
    /// Names this process in the ids of events.
    process: String,
    /// The number of the last event.
    count: u64,
    /// The number of the last webhook that was made.
    hooks_made: u64,
    /// The number of events that cores had lost, at the last look.
    lost: [u64; WebhookEvent::COUNT],
    /// How often each limit had been reached, at the last look.
    limit_hits: Option<[u64; Limit::COUNT]>,
    next_tidying: Uptime,
    /// When dropped events are logged next.
    next_telling: Uptime,
    /// Events that cores have lost and that are not logged yet.
    untold_lost: u64,
}

impl Dispatcher {
    /// For the webhooks that `current` has at any time. With a directory, events are kept there.
    pub(crate) fn new(
        current: &Arc<ArcSwap<Webhooks>>,
        intake: &Arc<Intake>,
        vacated_delay: Duration,
        directory: Option<PathBuf>,
        now: Now,
    ) -> Dispatcher {
        let mut dispatcher = Dispatcher {
            current: Arc::clone(current),
            webhooks: Arc::default(),
            intake: Arc::clone(intake),
            hooks: Vec::new(),
            leaving: Vec::new(),
            former: Vec::new(),
            occupancy: Occupancy::new(vacated_delay),
            store: match directory {
                None => Store::Off,
                Some(directory) => Store::Opening {
                    directory,
                    again: now.uptime,
                    is_told: false,
                },
            },
            process: Numbering::new().epoch.as_str().to_owned(),
            count: 0,
            hooks_made: 0,
            lost: WebhookEvent::ALL.map(|event| intake.metrics.lost(event)),
            limit_hits: None,
            next_tidying: now.uptime,
            next_telling: now.uptime,
            untold_lost: 0,
        };
        dispatcher.refresh(now);
        dispatcher
    }

    /// Adopts the current webhooks, if they have changed. They are made current before the cores get them, so when an
    /// event of a new webhook comes out of the intake, the webhook is already current here.
    fn refresh(&mut self, now: Now) {
        let current = self.current.load();
        if !Arc::ptr_eq(&current, &self.webhooks) {
            let current = Arc::clone(&current);
            self.adopt(&current, now);
        }
    }

    fn adopt(&mut self, webhooks: &Arc<Webhooks>, now: Now) {
        self.webhooks = Arc::clone(webhooks);
        let made_before = self.hooks_made;
        let mut former = std::mem::take(&mut self.hooks);
        for webhook in webhooks.hooks() {
            let name = &webhook.spec.name;
            match former.iter().position(|hook| hook.webhook.spec.name == *name) {
                Some(at) => {
                    let mut hook = former.swap_remove(at);
                    hook.webhook = Arc::clone(webhook);
                    self.hooks.push(hook);
                }
                None => {
                    self.hooks_made += 1;
                    self.hooks.push(Hook::new(self.hooks_made, webhook));
                }
            }
        }
        let mut gone = 0;
        for mut hook in former {
            gone |= hook.bit;
            let count = hook.queue.clear(&self.intake);
            if let Store::Open { disk, .. } = &mut self.store {
                disk.forget(&hook.webhook.spec.name);
            }
            hook.drop_some(count, WebhookDrop::Removed);
            hook.tell_drops();
            if let State::Sending { .. } = hook.state {
                self.leaving.push((hook.key, Arc::clone(&hook.webhook)));
            }
            hook.metrics.waiting.set(0);
            hook.metrics.waiting_bytes.set(0);
            hook.metrics.failing.set(0);
            self.former.push(hook.metrics);
        }
        for hook in self.hooks.iter_mut().filter(|hook| hook.key > made_before) {
            hook.state = follow(&self.leaving, &hook.webhook);
        }
        self.give_bits();
        // The counts of a webhook that was removed remain, until there are many or another one has its name.
        let hooks = &self.hooks;
        let is_gone = |metrics: &Arc<HookMetrics>| hooks.iter().all(|hook| hook.metrics.name != metrics.name);
        self.former.retain(is_gone);
        let over = self.former.len().saturating_sub(WEBHOOKS_MAX);
        self.former.drain(..over);
        let metrics = hooks.iter().map(|hook| Arc::clone(&hook.metrics));
        let metrics = metrics.chain(self.former.iter().cloned());
        self.intake.metrics.set_hooks(metrics.collect());
        let hooks = &self.hooks;
        let news = self.occupancy.rewatch(gone, |name| watchers(hooks, name));
        for (channel, told) in news {
            self.tell_channel(channel, told, true, now);
        }
    }

    /// Assigns a free bit to each webhook that has none.
    fn give_bits(&mut self) {
        let mut used = self.hooks.iter().fold(0, |used, hook| used | hook.bit);
        for hook in self.hooks.iter_mut().filter(|hook| hook.bit == 0) {
            hook.bit = 1 << used.trailing_ones();
            used |= hook.bit;
        }
    }

    /// Takes events out of the intake, as many as one pass may. Returns whether there may be more; `None` if there were
    /// none.
    pub(crate) fn take_in(&mut self, now: Now) -> Option<bool> {
        self.note_lost();
        for taken in 0..EVENTS_PER_PASS_MAX {
            let Some(told) = self.intake.take() else {
                return (taken > 0).then_some(false);
            };
            self.refresh(now);
            let DatedEvent { unix_ms, core, event } = told;
            match event {
                Event::Occupancy(changes) => self.change_occupancy(core, changes, unix_ms, now),
                event => self.queue(&event, None, unix_ms, now),
            }
        }
        Some(true)
    }

    fn change_occupancy(&mut self, core: usize, changes: Vec<Occupied>, unix_ms: u64, now: Now) {
        // This thread may be late: the times at which the cores saw the changes decide.
        let late_ms = now.unix_ms.saturating_sub(unix_ms);
        let at = Now {
            uptime: Uptime::from_ms(now.uptime.as_ms().saturating_sub(late_ms)),
            unix_ms,
        };
        for change in changes {
            // Events that were due before this change come before it.
            self.tell_vacated(at);
            let watched_by = watchers(&self.hooks, &change.channel);
            let told = self.occupancy.change(core, &change, watched_by, at.uptime);
            if told != 0 {
                self.tell_channel(change.channel, told, true, at);
            }
        }
    }

    /// Makes events for channels that have had no subscriber for `webhook_vacated_delay_ms`.
    fn tell_vacated(&mut self, now: Now) {
        while let Some((channel, told)) = self.occupancy.next_vacated(now.uptime) {
            self.tell_channel(channel, told, false, now);
        }
    }

    fn tell_channel(&mut self, channel: Box<[u8]>, told: Hooks, is_occupied: bool, now: Now) {
        let event = Event::Channel(Occupied {
            channel,
            by: SubscriberKind::SocketCluster,
            is_occupied,
        });
        self.queue(&event, Some(told), now.unix_ms, now);
    }

    /// Puts an event into the queues of the webhooks that want it, or of those among them that the caller names.
    fn queue(&mut self, event: &Event, only: Option<Hooks>, unix_ms: u64, now: Now) {
        let Some(kind) = event.kind() else { return };
        let mut json = None;
        for hook in &mut self.hooks {
            let is_meant = match (only, event.channel()) {
                (Some(only), _) => only & hook.bit != 0 && hook.webhook.wants(kind),
                (None, Some(channel)) => hook.webhook.wants_on(kind, channel),
                (None, None) => hook.webhook.wants(kind),
            };
            if !is_meant {
                continue;
            }
            let (process, count) = (&self.process, &mut self.count);
            let json = json.get_or_insert_with(|| {
                *count += 1;
                let mut json = Vec::with_capacity(256);
                event.write(&format!("{process}-{count}"), unix_ms, &mut json);
                Arc::from(json)
            });
            let pushed = hook.with_storage(&self.intake, &mut self.store, |queue, storage| {
                queue.push(unix_ms, json, storage)
            });
            match pushed {
                Ok(()) => {
                    hook.metrics.queued.add(1);
                    hook.since.get_or_insert(now.uptime);
                }
                Err(reason) => hook.drop_some(1, reason),
            }
        }
    }

    /// Notes in the queues how many events cores have dropped.
    fn note_lost(&mut self) {
        for event in WebhookEvent::ALL {
            let lost = self.intake.metrics.lost(event);
            let more = lost - std::mem::replace(&mut self.lost[event.index()], lost);
            if more > 0 {
                let told = self.hooks.iter_mut().filter(|hook| hook.webhook.wants(event));
                told.for_each(|hook| hook.queue.note_lost(more));
                self.untold_lost += more;
            }
        }
    }

    /// Handles everything that is due at this time.
    pub(crate) fn tick(&mut self, now: Now) {
        self.refresh(now);
        if self.intake.is_empty() {
            self.tell_vacated(now);
        }
        let names: Vec<&str> = self.hooks.iter().map(|hook| &*hook.webhook.spec.name).collect();
        let failures = &self.intake.metrics.store_failures;
        if let Some(found) = self.store.open(&names, failures, now.uptime) {
            self.begin_with(&found, now);
        }
        self.store
            .commit_if_due(&self.intake.metrics.store_failures, now.uptime);
        if self.next_tidying <= now.uptime {
            self.next_tidying = now.uptime + TIDY_EVERY;
            self.once_a_second(now);
        }
    }

    /// Once a second: drops events that are too old, logs dropped events, and sets the metrics.
    fn once_a_second(&mut self, now: Now) {
        for hook in &mut self.hooks {
            if !matches!(hook.state, State::Sending { .. }) {
                let keep_ms = u64::try_from(hook.webhook.spec.keep.as_millis()).unwrap_or(u64::MAX);
                let before = now.unix_ms.saturating_sub(keep_ms);
                let count = hook.with_storage(&self.intake, &mut self.store, |queue, storage| {
                    queue.expire(before, storage)
                });
                hook.drop_some(count, WebhookDrop::Expired);
            }
            hook.metrics.waiting.set(hook.queue.len());
            hook.metrics.waiting_bytes.set(hook.queue.bytes());
        }
        if self.next_telling <= now.uptime {
            self.next_telling = now.uptime + TELL_EVERY;
            self.tell_drops();
        }
        let metrics = &self.intake.metrics;
        metrics.bytes.set(self.intake.held() as u64);
        metrics.channels.set(self.occupancy.len() as u64);
        metrics.channel_bytes.set(self.occupancy.bytes() as u64);
        metrics.flaps.add(self.occupancy.take_flaps());
        self.occupancy.give_back();
    }

    /// Logs the number of dropped events.
    fn tell_drops(&mut self) {
        self.hooks.iter_mut().for_each(Hook::tell_drops);
        let lost = std::mem::take(&mut self.untold_lost);
        if lost > 0 {
            warn!(
                "webhooks: {lost} events were dropped on the cores, since too many waited: raise \
                 limits.webhook_events_waiting_max or limits.webhook_bytes_max"
            );
        }
    }

    /// Makes events for limits that were reached since the last call. `hits` has how often each limit was reached since
    /// the start, over all cores.
    pub(crate) fn note_limits(&mut self, hits: [u64; Limit::COUNT], now: Now) {
        let before = self.limit_hits.replace(hits);
        let Some(before) = before.filter(|_| self.webhooks.wants(WebhookEvent::LimitHit)) else {
            return;
        };
        for limit in Limit::ALL {
            let more = hits[limit.index()].saturating_sub(before[limit.index()]);
            if more > 0 {
                let limit = limit.label();
                self.queue(&Event::LimitHit { limit, hits: more }, None, now.unix_ms, now);
            }
        }
    }

    /// The requests that are to be made now. Each is to be followed by a [`Dispatcher::done`].
    pub(crate) fn requests(&mut self, now: Now) -> Vec<Request> {
        self.requests_if(now, |hook| hook.is_due(now.uptime))
    }

    /// The requests that are to be made before the server ends: webhooks do not wait for more events.
    pub(crate) fn last_requests(&mut self, now: Now) -> Vec<Request> {
        self.requests_if(now, |hook| hook.state == State::Resting)
    }

    fn requests_if(&mut self, now: Now, is_due: impl Fn(&Hook) -> bool) -> Vec<Request> {
        if matches!(self.store, Store::Opening { .. }) {
            return Vec::new();
        }
        let mut requests = Vec::new();
        for hook in &mut self.hooks {
            if !is_due(hook) {
                continue;
            }
            let refilled = hook.with_storage(&self.intake, &mut self.store, Queue::refill);
            hook.failed_reads = match refilled {
                Ok(()) => 0,
                Err(_) => hook.failed_reads + 1,
            };
            if let Err(cause) = refilled
                && hook.failed_reads >= READS_MAX
            {
                let count = hook.queue.give_up_spilled();
                error!(
                    "webhook {}: {count} events on disk cannot be read, and are not sent: {cause}",
                    hook.webhook.spec.name
                );
                hook.drop_some(count, WebhookDrop::Store);
            }
            if hook.queue.len() > 0 && !hook.queue.is_sendable() {
                // Events that are on disk alone cannot be read now.
                hook.state = State::Waiting {
                    until: now.uptime + COMMIT_AGAIN,
                };
            } else if let Some(request) = hook.begin_request(now) {
                requests.push(request);
            }
        }
        requests
    }

    /// A request has ended, after so many nanoseconds. `random` decides how long a webhook waits after a failure.
    pub(crate) fn done(
        &mut self,
        key: u64,
        outcome: Result<(), Failure>,
        took_ns: u64,
        random: u32,
        now: Now,
    ) {
        if !matches!(&outcome, Err(Failure { answer, .. }) if *answer != WebhookAnswer::Status) {
            self.intake.metrics.request_seconds.record_ns(took_ns);
        }
        if let Some(at) = self.leaving.iter().position(|(leaving, _)| *leaving == key) {
            self.leaving.swap_remove(at);
            let following = State::Following { key };
            for hook in self.hooks.iter_mut().filter(|hook| hook.state == following) {
                hook.state = follow(&self.leaving, &hook.webhook);
            }
        }
        // A reload may have removed the webhook.
        let Some(hook) = self.hooks.iter_mut().find(|hook| hook.key == key) else {
            return;
        };
        let State::Sending { through } = hook.state else {
            return;
        };
        let answer = outcome
            .as_ref()
            .map_or_else(|failure| failure.answer, |()| WebhookAnswer::Delivered);
        hook.metrics.requests[answer.index()].add(1);
        match outcome {
            Ok(()) => {
                let count = hook.with_storage(&self.intake, &mut self.store, |queue, storage| {
                    queue.pop_through(through, storage)
                });
                hook.metrics.delivered.add(count);
                hook.succeed(now.uptime);
            }
            Err(failure) => hook.fail(&failure, random, now.uptime),
        }
    }

    /// When something is due next, if no event comes.
    pub(crate) fn next_due(&self) -> Uptime {
        let hooks = match &self.store {
            // Nothing is sent before the file is open.
            Store::Opening { .. } => Uptime::NEVER,
            Store::Off | Store::Open { .. } => {
                let due = self.hooks.iter().map(Hook::next_due);
                due.min().unwrap_or(Uptime::NEVER)
            }
        };
        let tidying = match self.hooks.is_empty() {
            true => Uptime::NEVER,
            false => self.next_tidying,
        };
        self.store
            .next_due()
            .min(hooks)
            .min(tidying)
            .min(self.occupancy.next_due())
    }

    /// The server ends: no core sends events any more. All channels count as vacated.
    pub(crate) fn end(&mut self, now: Now) {
        while self.take_in(now).is_some() {}
        for (channel, told) in self.occupancy.end() {
            self.tell_channel(channel, told, false, now);
        }
        for hook in &mut self.hooks {
            if let State::Waiting { .. } = hook.state {
                hook.state = State::Resting;
            }
        }
    }

    /// Whether every webhook has been sent everything, or its last request has failed.
    pub(crate) fn has_ended(&self) -> bool {
        self.hooks.iter().all(|hook| match hook.state {
            State::Resting => hook.queue.len() == 0 || matches!(self.store, Store::Opening { .. }),
            State::Waiting { .. } => true,
            State::Sending { .. } | State::Following { .. } => false,
        })
    }

    /// Commits waiting events, or drops and logs them: no request is sent any more.
    pub(crate) fn close(&mut self, now: Now) {
        self.once_a_second(now);
        self.tell_drops();
        let is_kept = self.store.commit_last(&self.intake.metrics.store_failures);
        for hook in &mut self.hooks {
            let (name, count) = (&hook.webhook.spec.name, hook.queue.len());
            if count > 0 && is_kept {
                info!("webhook {name}: {count} events wait on disk for the next start");
            } else if count > 0 {
                hook.metrics.dropped[WebhookDrop::Stopped.index()].add(count);
                warn!(
                    "webhook {name}: {count} events were not delivered before the end of the server, and are lost; with \
                     data_dir they would wait for the next start"
                );
            }
        }
    }

    /// The events of the file come before events since the start.
    fn begin_with(&mut self, found: &[(String, Found)], now: Now) {
        let nothing = Found::default();
        for hook in &mut self.hooks {
            let name = &hook.webhook.spec.name;
            let of_hook = found.iter().find(|(found, _)| found == name);
            let found = of_hook.map_or(&nothing, |(_, found)| found);
            if found.count > 0 {
                info!("webhook {name}: {} events wait on disk", found.count);
                hook.since.get_or_insert(now.uptime);
            }
            let refused = hook.with_storage(&self.intake, &mut self.store, |queue, storage| {
                queue.begin_with(found, storage)
            });
            hook.drop_some(refused, WebhookDrop::QueueFull);
        }
    }
}

/// The state in which a new webhook begins. Its receiver gets one request at a time. Therefore it waits for the request
/// of a removed webhook with its name or its URL.
fn follow(leaving: &[(u64, Arc<Webhook>)], webhook: &Webhook) -> State {
    let (name, url) = (&webhook.spec.name, &webhook.spec.url);
    let before = leaving
        .iter()
        .find(|(_, other)| other.spec.name == *name || other.spec.url == *url);
    before.map_or(State::Resting, |(key, _)| State::Following { key: *key })
}

/// The webhooks that want to know whether a channel is occupied.
fn watchers(hooks: &[Hook], name: &[u8]) -> Hooks {
    let watching = hooks.iter().filter(|hook| hook.webhook.watches_channel(name));
    watching.fold(0, |bits, hook| bits | hook.bit)
}

const _: () = assert!(WEBHOOKS_MAX <= Hooks::BITS as usize, "each webhook has a bit");

/// Events that one pass takes out of the intake.
const EVENTS_PER_PASS_MAX: usize = 4096;
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// After so many failed reads of the file in a row, a webhook drops its events on disk.
const READS_MAX: u32 = 60;
/// How often dropped events are logged.
const TELL_EVERY: Duration = Duration::from_secs(10);
#[cfg(test)]
mod tests;
