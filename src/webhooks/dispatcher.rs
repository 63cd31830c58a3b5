//! From the intake to the queues, and what becomes of requests. One thread calls all of this, and tells the time.
//!
//! ```text
//!             an event, and the interval has passed      answered 200 to 299
//!   resting ───────────────────────────────────► sending ───────────────────► resting
//!                                                   │  ▲
//!                                             else  ▼  │ back-off has passed
//!                                                 waiting
//! ```
//! Each webhook has one request under way at most, also after a reload has removed it and another one has made it anew, and a request that has failed is made again before any other: so its
//! events arrive in their order. An event is done when a request with it was answered with a status from 200 to 299. Any
//! other outcome is a failure, a redirect as well; after it the webhook waits, twice as long each time, up to
//! [`BACKOFF_MAX`], and less by up to half by chance, so that servers that failed together do not come back together.
//!
//! With `data_dir` nothing is sent before the file is open: what waits there comes first.
//!
//! Not here: HTTP, threads, and the clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use super::compiled::{Webhook, Webhooks};
use super::disk::{COMMIT_EVERY, Disk, Found, NotOpened};
use super::event::{Event, Holder, Occupied};
use super::intake::{Intake, Told};
use super::occupancy::{Hooks, Occupancy};
use super::queue::{Keeper, Queue};
use crate::broker::Numbering;
use crate::clock::{Now, Uptime};
use crate::config::webhooks::{WEBHOOKS_MAX, WebhookEvent};
use crate::decision::Limit;
use crate::metrics::webhooks::{HookMetrics, WebhookAnswer, WebhookDrop};

/// What all webhooks of a server wait for and have told.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    /// The webhooks in force, which another thread replaces.
    current: Arc<ArcSwap<Webhooks>>,
    /// The webhooks that `hooks` are for.
    webhooks: Arc<Webhooks>,
    intake: Arc<Intake>,
    hooks: Vec<Hook>,
    /// Webhooks that were removed while a request of theirs was under way, each with its name, until that has ended.
    leaving: Vec<(u64, String)>,
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
    /// The events that cores had lost when that was last looked at.
    lost: [u64; WebhookEvent::COUNT],
    /// How often limits had been reached when that was last looked at.
    limit_hits: Option<[u64; Limit::COUNT]>,
    next_tidying: Uptime,
    /// When the log is told next of events that were dropped.
    next_telling: Uptime,
    /// Events that cores have lost and that the log was not told of.
    untold_lost: u64,
}

/// Whether events are kept on disk.
#[derive(Debug)]
enum Store {
    /// They are not: `data_dir` is not set, or its file cannot be had.
    Off,
    /// The file is not open yet.
    Opening {
        directory: PathBuf,
        again: Uptime,
        is_told: bool,
    },
    /// They are.
    Open {
        disk: Disk,
        next_commit: Uptime,
        has_failed: bool,
    },
}

#[derive(Debug)]
struct Hook {
    /// Names it, also after a reload has made another one with its name.
    key: u64,
    webhook: Arc<Webhook>,
    /// Its bit in sets of webhooks.
    bit: Hooks,
    queue: Queue,
    state: State,
    /// When the first event that waits has come.
    since: Option<Uptime>,
    /// Requests that have failed since the last that did not.
    failures: u32,
    /// Reads of the file that have failed, one after the other.
    failed_reads: u32,
    metrics: Arc<HookMetrics>,
    /// Events that were dropped and that no line of the log has told of, with the last reason.
    untold: u64,
    untold_for: Option<WebhookDrop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting,
    /// A request with the events up to this number is under way.
    Sending {
        through: u64,
    },
    /// A request of a former webhook with the same name is under way.
    Following {
        /// The key of that webhook.
        key: u64,
    },
    /// A request has failed.
    Waiting {
        until: Uptime,
    },
}

/// A request to be made.
#[derive(Debug)]
pub(crate) struct Request {
    /// For [`Dispatcher::done`].
    pub(crate) key: u64,
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) body: Vec<u8>,
}

/// Why a request has failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) answer: WebhookAnswer,
    /// In words, without the URL.
    pub(crate) cause: String,
    /// The beginning of the answer, for people who try a receiver out. It is not for the log.
    pub(crate) said: String,
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

    /// Goes on with other webhooks, if there are others now. A core tells events by the webhooks that it has, and they were
    /// made current before it got them: so whoever has taken an event out of the intake finds them here.
    fn refresh(&mut self, now: Now) {
        let current = self.current.load();
        if !Arc::ptr_eq(&current, &self.webhooks) {
            let current = Arc::clone(&current);
            self.adopt(&current, now);
        }
    }

    fn adopt(&mut self, webhooks: &Arc<Webhooks>, now: Now) {
        self.webhooks = Arc::clone(webhooks);
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
                    let mut hook = Hook::new(self.hooks_made, webhook);
                    // Its receiver gets one request at a time, whichever webhook has made it.
                    if let Some((key, _)) = self.leaving.iter().find(|(_, leaving)| leaving == name) {
                        hook.state = State::Following { key: *key };
                    }
                    self.hooks.push(hook);
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
                self.leaving.push((hook.key, hook.webhook.spec.name.clone()));
            }
            hook.metrics.waiting.set(0);
            hook.metrics.waiting_bytes.set(0);
            hook.metrics.failing.set(0);
            self.former.push(hook.metrics);
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

    /// Gives each webhook that has none a bit that no other has.
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
            let Told { unix_ms, core, event } = told;
            match event {
                Event::Occupancy(changes) => self.change_occupancy(core, changes, unix_ms, now),
                event => self.queue(&event, None, unix_ms, now),
            }
        }
        Some(true)
    }

    fn change_occupancy(&mut self, core: usize, changes: Vec<Occupied>, unix_ms: u64, now: Now) {
        // This thread may be late: whether a channel had a subscriber in time is a question of when the cores saw it.
        let late_ms = now.unix_ms.saturating_sub(unix_ms);
        let at = Now {
            uptime: Uptime::from_ms(now.uptime.as_ms().saturating_sub(late_ms)),
            unix_ms,
        };
        for change in changes {
            // What was to be told before this change is told before it.
            self.tell_vacated(at);
            let watched_by = watchers(&self.hooks, &change.channel);
            let told = self.occupancy.change(core, &change, watched_by, at.uptime);
            if told != 0 {
                self.tell_channel(change.channel, told, true, at);
            }
        }
    }

    /// Tells webhooks of the channels that have had no subscriber for long enough.
    fn tell_vacated(&mut self, now: Now) {
        while let Some((channel, told)) = self.occupancy.next_vacated(now.uptime) {
            self.tell_channel(channel, told, false, now);
        }
    }

    fn tell_channel(&mut self, channel: Box<[u8]>, told: Hooks, is_occupied: bool, now: Now) {
        let event = Event::Channel(Occupied {
            channel,
            by: Holder::SocketCluster,
            is_occupied,
        });
        self.queue(&event, Some(told), now.unix_ms, now);
    }

    /// Puts an event into the queues of the webhooks that are told such events, of these if only some are meant.
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
            let pushed = hook.with_keeper(&self.intake, &mut self.store, |queue, keeper| {
                queue.push(unix_ms, json, keeper)
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

    /// Tells the queues of events that cores have dropped.
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

    /// Does what is due at this time.
    pub(crate) fn tick(&mut self, now: Now) {
        self.refresh(now);
        if self.intake.is_empty() {
            self.tell_vacated(now);
        }
        self.open_store(now);
        self.commit_if_due(now);
        if self.next_tidying <= now.uptime {
            self.next_tidying = now.uptime + TIDY_EVERY;
            self.tidy(now);
        }
    }

    /// Once a second: drops what is too old, tells the log of what was dropped, and sets the metrics.
    fn tidy(&mut self, now: Now) {
        for hook in &mut self.hooks {
            if !matches!(hook.state, State::Sending { .. }) {
                let keep_ms = u64::try_from(hook.webhook.spec.keep.as_millis()).unwrap_or(u64::MAX);
                let before = now.unix_ms.saturating_sub(keep_ms);
                let count = hook.with_keeper(&self.intake, &mut self.store, |queue, keeper| {
                    queue.expire(before, keeper)
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

    /// Tells the log of events that were dropped.
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

    /// Tells webhooks of the limits that were reached since the last call. `hits` has how often each was reached since
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
            let refilled = hook.with_keeper(&self.intake, &mut self.store, Queue::refill);
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
                // What is on disk alone cannot be committed or read now.
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
            let mut hooks = self.hooks.iter_mut();
            if let Some(hook) = hooks.find(|hook| hook.state == following) {
                hook.state = State::Resting;
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
                let count = hook.with_keeper(&self.intake, &mut self.store, |queue, keeper| {
                    queue.pop_through(through, keeper)
                });
                hook.metrics.delivered.add(count);
                hook.succeed(now.uptime);
            }
            Err(failure) => hook.fail(&failure, random, now.uptime),
        }
    }

    /// When something is due next, if no event comes.
    pub(crate) fn next_due(&self) -> Uptime {
        let store = match &self.store {
            Store::Off => Uptime::NEVER,
            Store::Opening { again, .. } => *again,
            Store::Open {
                disk, next_commit, ..
            } if disk.has_unsaved() => *next_commit,
            Store::Open { .. } => Uptime::NEVER,
        };
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
        store.min(hooks).min(tidying).min(self.occupancy.next_due())
    }

    /// The server ends: no core tells anything any more. All channels count as vacated.
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

    /// Commits what waits, or drops it and says so: nothing is sent any more.
    pub(crate) fn close(&mut self, now: Now) {
        self.tidy(now);
        self.tell_drops();
        let is_kept = match &mut self.store {
            Store::Open { disk, .. } => match disk.commit() {
                Ok(()) => true,
                Err(cause) => {
                    self.intake.metrics.store_failures.add(1);
                    error!("webhooks: events that wait cannot be kept on disk: {cause}");
                    false
                }
            },
            Store::Off | Store::Opening { .. } => false,
        };
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

    /// Opens the file, if that is due.
    fn open_store(&mut self, now: Now) {
        let Store::Opening {
            directory,
            again,
            is_told,
        } = &mut self.store
        else {
            return;
        };
        if *again > now.uptime {
            return;
        }
        match Disk::open(directory) {
            Ok((mut disk, found)) => {
                let names: Vec<&str> = self.hooks.iter().map(|hook| &*hook.webhook.spec.name).collect();
                for (name, found) in found.iter().filter(|(name, _)| !names.contains(&&**name)) {
                    if found.count > 0 {
                        warn!(
                            "webhook {name}: {} events wait for it on disk, and it is not configured: they are dropped",
                            found.count
                        );
                    }
                    disk.forget(name);
                }
                self.store = Store::Open {
                    disk,
                    next_commit: now.uptime + COMMIT_EVERY,
                    has_failed: false,
                };
                self.begin_with(&found, now);
            }
            Err(NotOpened::Held) => {
                if !std::mem::replace(is_told, true) {
                    info!(
                        "webhooks: another process has the file in data_dir: waiting for its end; events wait in memory"
                    );
                }
                *again = now.uptime + OPEN_AGAIN;
            }
            Err(NotOpened::System(cause)) => {
                error!(
                    "webhooks: events are kept in memory only: {cause}; put that right and start the server again"
                );
                self.intake.metrics.store_failures.add(1);
                self.store = Store::Off;
            }
        }
    }

    /// What a file has comes before what came since the start.
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
            let refused = hook.with_keeper(&self.intake, &mut self.store, |queue, keeper| {
                queue.begin_with(found, keeper)
            });
            hook.drop_some(refused, WebhookDrop::QueueFull);
        }
    }

    fn commit_if_due(&mut self, now: Now) {
        let Store::Open {
            disk,
            next_commit,
            has_failed,
        } = &mut self.store
        else {
            return;
        };
        if *next_commit > now.uptime {
            return;
        }
        match disk.commit() {
            Ok(()) => {
                if std::mem::take(has_failed) {
                    info!("webhooks: events are kept on disk again");
                }
                *next_commit = now.uptime + COMMIT_EVERY;
            }
            Err(cause) => {
                if !std::mem::replace(has_failed, true) {
                    error!("webhooks: events cannot be kept on disk: {cause}; trying again every second");
                }
                self.intake.metrics.store_failures.add(1);
                *next_commit = now.uptime + COMMIT_AGAIN;
            }
        }
    }
}

impl Hook {
    fn new(key: u64, webhook: &Arc<Webhook>) -> Hook {
        Hook {
            key,
            webhook: Arc::clone(webhook),
            bit: 0,
            queue: Queue::default(),
            state: State::Resting,
            since: None,
            failures: 0,
            failed_reads: 0,
            metrics: Arc::new(HookMetrics::new(&webhook.spec.name)),
            untold: 0,
            untold_for: None,
        }
    }

    fn with_keeper<T>(
        &mut self,
        intake: &Intake,
        store: &mut Store,
        act: impl FnOnce(&mut Queue, &mut Keeper<'_>) -> T,
    ) -> T {
        let spec = &self.webhook.spec;
        let disk = match store {
            Store::Off | Store::Opening { .. } => None,
            Store::Open { disk, .. } => {
                let number = disk.number_of(&spec.name);
                Some((disk, number))
            }
        };
        act(&mut self.queue, &mut Keeper { spec, intake, disk })
    }

    fn is_due(&self, now: Uptime) -> bool {
        self.next_due() <= now
    }

    /// When a request is to be made.
    fn next_due(&self) -> Uptime {
        match (self.state, self.since) {
            (State::Sending { .. } | State::Following { .. }, _) | (State::Resting, None) => Uptime::NEVER,
            (State::Waiting { until }, _) => until,
            (State::Resting, Some(_)) if self.queue.has_full_batch(&self.webhook.spec) => Uptime::default(),
            (State::Resting, Some(since)) => since + self.webhook.spec.interval,
        }
    }

    /// Begins a request with the first events, if there are any.
    fn begin_request(&mut self, now: Now) -> Option<Request> {
        let spec = &self.webhook.spec;
        let Some(through) = self.queue.batch(spec).last().map(|waiting| waiting.number) else {
            // What waited was too old.
            (self.state, self.since) = (State::Resting, None);
            return None;
        };
        let attempt = self.failures.saturating_add(1);
        let events = self.queue.batch(spec).map(|waiting| &*waiting.json);
        let body = body(&spec.name, now.unix_ms, attempt, events);
        self.state = State::Sending { through };
        Some(Request {
            key: self.key,
            webhook: Arc::clone(&self.webhook),
            body,
        })
    }

    fn succeed(&mut self, now: Uptime) {
        self.state = State::Resting;
        self.since = (self.queue.len() > 0).then_some(now);
        self.metrics.failing.set(0);
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            info!(
                "webhook {}: requests succeed again, after {failures} failures; {} events wait",
                self.webhook.spec.name,
                self.queue.len()
            );
        }
    }

    fn fail(&mut self, failure: &Failure, random: u32, now: Uptime) {
        let delay = backoff(self.failures, random);
        self.state = State::Waiting { until: now + delay };
        self.metrics.failing.set(1);
        if self.failures == 0 {
            warn!(
                "webhook {}: a request has failed: {}; {} events wait, and it is tried again until keep_ms has passed",
                self.webhook.spec.name,
                failure.cause,
                self.queue.len()
            );
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// Counts events that were dropped.
    fn drop_some(&mut self, count: u64, reason: WebhookDrop) {
        if count > 0 {
            self.metrics.dropped[reason.index()].add(count);
            self.untold += count;
            self.untold_for = Some(reason);
        }
    }

    /// Tells the log of events that were dropped.
    fn tell_drops(&mut self) {
        let (count, reason) = (std::mem::take(&mut self.untold), self.untold_for.take());
        if let Some(reason) = reason {
            warn!(
                "webhook {}: {count} events were dropped: {}",
                self.webhook.spec.name,
                reason.label()
            );
        }
    }
}

/// The body of a request.
fn body<'a>(name: &str, unix_ms: u64, attempt: u32, events: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    // A name has no character that JSON would escape.
    let mut body =
        format!(r#"{{"webhook":"{name}","sent":{unix_ms},"attempt":{attempt},"events":["#).into_bytes();
    for (index, event) in events.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
    body.extend_from_slice(b"]}");
    body
}

/// Requests with one event each, of every kind, for `ringcast hooks test`.
pub(crate) fn samples(name: &str, unix_ms: u64) -> Vec<(WebhookEvent, Vec<u8>)> {
    let process = Numbering::new().epoch;
    let samples = Event::samples().into_iter().zip(1..);
    let requests = samples.filter_map(|(event, number)| {
        let mut json = Vec::new();
        event.write(&format!("{}-{number}", process.as_str()), unix_ms, &mut json);
        let body = body(name, unix_ms, 1, std::iter::once(&json[..]));
        Some((event.kind()?, body))
    });
    requests.collect()
}

/// The webhooks that are told whether a channel is occupied.
fn watchers(hooks: &[Hook], name: &[u8]) -> Hooks {
    let watching = hooks.iter().filter(|hook| hook.webhook.watches_channel(name));
    watching.fold(0, |bits, hook| bits | hook.bit)
}

/// How long a webhook waits after so many failures and one more: between half of the full time and all of it.
fn backoff(failures: u32, random: u32) -> Duration {
    let full = BACKOFF_FIRST
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MAX);
    let half = full / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

const _: () = assert!(WEBHOOKS_MAX <= Hooks::BITS as usize, "each webhook has a bit");

/// The full time after the first failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest full time.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Events that one pass takes out of the intake.
const EVENTS_PER_PASS_MAX: usize = 4096;
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// After so many reads of the file that have failed one after the other, a webhook gives up what is on disk.
const READS_MAX: u32 = 60;
/// How often the log is told of events that were dropped.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How soon a file that another process has is tried again.
const OPEN_AGAIN: Duration = Duration::from_millis(50);
/// How soon a commit that has failed is tried again.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
