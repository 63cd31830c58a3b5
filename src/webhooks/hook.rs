//! One webhook: its queue, its requests, one after the other, and their outcomes.
//!
//! ```text
//!             an event, and the interval has passed      answered 200 to 299
//!   resting ───────────────────────────────────► sending ───────────────────► resting
//!                                                   │  ▲
//!                                             else  ▼  │ back-off has passed
//!                                                 waiting
//! ```
//! A failed request is repeated before any other, so events arrive in their order. An event is done when a request with
//! it was answered with a status from 200 to 299. Any other outcome is a failure, also a redirect. After a failure the
//! webhook waits, twice as long each time, up to [`BACKOFF_MAX`]. Each wait is shortened at random by up to half, so
//! that webhooks that failed together do not try again together.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::compiled::Webhook;
use super::event::Event;
use super::intake::Intake;
use super::occupancy::Hooks;
use super::queue::{Queue, QueueStorage};
use super::store::Store;
use crate::broker::Numbering;
use crate::clock::{Now, Uptime};
use crate::config::webhooks::WebhookEvent;
use crate::metrics::webhooks::{HookMetrics, WebhookAnswer, WebhookDrop};

/// One webhook.
#[derive(Debug)]
pub(super) struct Hook {
    /// Identifies it, even if a reload makes another webhook with its name.
    pub(super) key: u64,
    pub(super) webhook: Arc<Webhook>,
    /// Its bit in sets of webhooks.
    pub(super) bit: Hooks,
    pub(super) queue: Queue,
    pub(super) state: State,
    /// When the first waiting event came.
    pub(super) since: Option<Uptime>,
    /// Failed requests since the last successful one.
    pub(super) failures: u32,
    /// Reads of the file that have failed, one after the other.
    pub(super) failed_reads: u32,
    pub(super) metrics: Arc<HookMetrics>,
    /// Dropped events that are not logged yet, with the last reason.
    pub(super) unreported: u64,
    pub(super) unreported_for: Option<WebhookDrop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
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

impl Hook {
    pub(super) fn new(key: u64, webhook: &Arc<Webhook>) -> Hook {
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
            unreported: 0,
            unreported_for: None,
        }
    }

    pub(super) fn with_storage<T>(
        &mut self,
        intake: &Intake,
        store: &mut Store,
        act: impl FnOnce(&mut Queue, &mut QueueStorage<'_>) -> T,
    ) -> T {
        let spec = &self.webhook.spec;
        let disk = match store {
            Store::Off | Store::Opening { .. } => None,
            Store::Open { disk, .. } => {
                let number = disk.number_of(&spec.name);
                Some((disk, number))
            }
        };
        act(&mut self.queue, &mut QueueStorage { spec, intake, disk })
    }

    pub(super) fn is_due(&self, now: Uptime) -> bool {
        self.next_due() <= now
    }

    /// When a request is to be made.
    pub(super) fn next_due(&self) -> Uptime {
        match (self.state, self.since) {
            (State::Sending { .. } | State::Following { .. }, _) | (State::Resting, None) => Uptime::NEVER,
            (State::Waiting { until }, _) => until,
            (State::Resting, Some(_)) if self.queue.has_full_batch(&self.webhook.spec) => Uptime::default(),
            (State::Resting, Some(since)) => since + self.webhook.spec.interval,
        }
    }

    /// Begins a request with the first events, if there are any.
    pub(super) fn begin_request(&mut self, now: Now) -> Option<Request> {
        let spec = &self.webhook.spec;
        let Some(through) = self.queue.batch(spec).last().map(|waiting| waiting.number) else {
            // The waiting events were too old.
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

    pub(super) fn succeed(&mut self, now: Uptime) {
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

    pub(super) fn fail(&mut self, failure: &Failure, random: u32, now: Uptime) {
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
    pub(super) fn drop_some(&mut self, count: u64, reason: WebhookDrop) {
        if count > 0 {
            self.metrics.dropped[reason.index()].add(count);
            self.unreported += count;
            self.unreported_for = Some(reason);
        }
    }

    /// Logs the number of dropped events.
    pub(super) fn tell_drops(&mut self) {
        let (count, reason) = (std::mem::take(&mut self.unreported), self.unreported_for.take());
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

/// How long a webhook waits after so many failures and one more: between half of the full time and all of it.
pub(super) fn backoff(failures: u32, random: u32) -> Duration {
    let full = BACKOFF_FIRST
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MAX);
    let half = full / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// The full time after the first failure.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest full time.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(60);
