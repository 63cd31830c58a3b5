//! The counters of webhooks (`[[webhooks]]`).
//!
//! The thread of the webhooks writes them; cores count the events that they drop. The label `webhook` is a name of the
//! configuration file, of letters, digits, dots, hyphens and underscores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::counter::{Counter, Counters, Histogram};
use crate::config::webhooks::WebhookEvent;
use crate::labels::labels;

labels! {
    /// Why an event was dropped that was for a webhook.
    pub enum WebhookDrop {
        /// The queue of the webhook was full.
        QueueFull = "queue_full",
        /// All webhooks together had as much in memory as they may.
        Memory = "memory",
        /// The event has waited for as long as it may.
        Expired = "expired",
        /// The webhook was taken out of the configuration.
        Removed = "removed",
        /// The event could not be written to disk, or read again.
        Store = "store",
        /// The server has ended before the event was delivered.
        Stopped = "stopped",
    }
}

labels! {
    /// What became of a request.
    pub enum WebhookAnswer {
        /// It was answered with a status of 200 to 299.
        Delivered = "delivered",
        /// It was answered with another status.
        Status = "status",
        /// It was not answered in time.
        TimeOver = "timeout",
        /// It was not answered: the other server cannot be reached, or does not speak HTTP.
        Unreachable = "unreachable",
    }
}

/// The counters of all webhooks.
#[derive(Debug, Default)]
pub struct WebhookMetrics {
    /// Those of each webhook. The thread of the webhooks replaces the list after a reload.
    hooks: ArcSwap<Vec<Arc<HookMetrics>>>,
    /// Events that cores have dropped, by [`WebhookEvent::index`]. Written by all cores.
    lost: [AtomicU64; WebhookEvent::COUNT],
    /// How long requests took that were answered.
    pub request_seconds: Histogram,
    /// Channels that lost their last subscriber and got another one in time.
    pub flaps: Counter,
    /// Channels with subscribers that webhooks watch.
    pub channels: Counter,
    /// Bytes of the table of these channels.
    pub channel_bytes: Counter,
    /// Bytes of events in memory.
    pub bytes: Counter,
    /// Commits to disk that failed.
    pub store_failures: Counter,
}

/// The counters of one webhook.
#[derive(Debug, Default)]
pub struct HookMetrics {
    /// Its name.
    pub name: Box<str>,
    /// Events that entered its queue; not those that were dropped because the queue was full.
    pub queued: Counter,
    /// Events that were delivered.
    pub delivered: Counter,
    /// Events that were dropped, by [`WebhookDrop::index`].
    pub dropped: Counters<{ WebhookDrop::COUNT }>,
    /// Requests, by [`WebhookAnswer::index`].
    pub requests: Counters<{ WebhookAnswer::COUNT }>,
    /// Events that wait.
    pub waiting: Counter,
    /// Bytes of events that wait, on disk too.
    pub waiting_bytes: Counter,
    /// 1 while the last request has failed.
    pub failing: Counter,
}

impl WebhookMetrics {
    /// Counts an event that a core drops.
    pub(crate) fn lose(&self, event: WebhookEvent) {
        // Relaxed, here and below: a scrape needs no order between counters.
        self.lost[event.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Events of this kind that cores have dropped.
    pub fn lost(&self, event: WebhookEvent) -> u64 {
        self.lost[event.index()].load(Ordering::Relaxed)
    }

    /// The counters of each webhook.
    pub fn hooks(&self) -> Arc<Vec<Arc<HookMetrics>>> {
        self.hooks.load_full()
    }

    /// These are the webhooks from now on.
    pub(crate) fn set_hooks(&self, hooks: Vec<Arc<HookMetrics>>) {
        self.hooks.store(Arc::new(hooks));
    }
}

impl HookMetrics {
    /// The counters of a webhook that has sent nothing.
    pub(crate) fn new(name: &str) -> HookMetrics {
        HookMetrics {
            name: name.into(),
            ..HookMetrics::default()
        }
    }
}
