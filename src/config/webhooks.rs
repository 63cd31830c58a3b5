//! Webhooks in the configuration file: URLs to which the server sends events.
//!
//! ```toml
//! [[webhooks]]
//! name = "shop"                                          # stands in the log, in metrics and in each request
//! url = "https://shop.example/ringcast"
//! events = ["channel_occupied", "channel_vacated", "member_joined", "member_left"]   # or "*" for all
//! channels = ["room.**"]                                 # for events about channels
//! secret_file = "/etc/ringcast/shop.secret"              # signs each request
//! ```
//!
//! `read` checks the shape of webhooks in the file. `webhooks/compiled.rs` compiles patterns and reads secrets.
//!
//! Limits: [`WEBHOOKS_MAX`] webhooks.

pub(super) mod read;

use std::path::PathBuf;
use std::time::Duration;

use super::target_url::TargetUrl;
use crate::labels::labels;

labels! {
    /// A kind of event. The labels are the words of the file and of requests.
    pub enum WebhookEvent {
        /// A channel has got its first subscriber, over all cores.
        ChannelOccupied = "channel_occupied",
        /// A channel has lost its last subscriber, and got no other within `webhook_vacated_delay_ms`.
        ChannelVacated = "channel_vacated",
        /// A user, or a client without a user, has become a member of a channel with presence.
        MemberJoined = "member_joined",
        /// A member has left a channel with presence.
        MemberLeft = "member_left",
        /// A client has connected: its handshake is done.
        Connected = "connected",
        /// The connection of a client that had connected has ended.
        Disconnected = "disconnected",
        /// The will of a client was published.
        WillSent = "will_sent",
        /// A publication was made on one of the channels that the webhook names.
        Publication = "publication",
        /// A client reads too slowly: its connection was closed, or it misses publications.
        SlowConsumer = "slow_consumer",
        /// A limit was reached in the last second.
        LimitHit = "limit_hit",
    }
}

impl WebhookEvent {
    /// The event with this word.
    pub fn named(word: &str) -> Option<WebhookEvent> {
        WebhookEvent::ALL.into_iter().find(|event| event.label() == word)
    }

    /// Whether it is about one channel: then the patterns of a webhook apply to it.
    pub const fn is_about_channel(self) -> bool {
        match self {
            WebhookEvent::ChannelOccupied
            | WebhookEvent::ChannelVacated
            | WebhookEvent::MemberJoined
            | WebhookEvent::MemberLeft
            | WebhookEvent::WillSent
            | WebhookEvent::Publication => true,
            WebhookEvent::Connected
            | WebhookEvent::Disconnected
            | WebhookEvent::SlowConsumer
            | WebhookEvent::LimitHit => false,
        }
    }
}

/// One webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSpec {
    /// Its name; no two webhooks have the same.
    pub name: String,
    /// The URL to which events are posted.
    pub url: TargetUrl,
    /// The events that it gets.
    pub events: Vec<WebhookEvent>,
    /// Patterns of the channels that events about channels must be on, as in rules, but without claims. Empty: all
    /// channels whose names do not begin with `$`.
    pub channels: Vec<String>,
    /// The file with the secrets that sign requests, one on each line.
    pub secret_file: Option<PathBuf>,
    /// The file with the certificate authorities of the URL's server; without it those of this machine.
    pub ca_file: Option<PathBuf>,
    /// Whether the URL may lead to a link-local address, such as the metadata service of a cloud.
    pub link_local: bool,
    /// Most events of one request.
    pub batch_events: u32,
    /// Most bytes of events in one request, unless one event alone has more.
    pub batch_bytes: u32,
    /// How long an event waits for other events of the same request.
    pub interval: Duration,
    /// How long a request may take.
    pub timeout: Duration,
    /// Most events that wait.
    pub queue_events: u32,
    /// Most bytes of events that wait in memory.
    pub queue_bytes: u32,
    /// Most bytes of events that wait on disk, with `data_dir`.
    pub disk_bytes: u64,
    /// How long an event may wait.
    pub keep: Duration,
    /// The file that holds it, if one does.
    pub file: Option<PathBuf>,
    /// Its line in the file, from 1; 0 without a file.
    pub line: usize,
}

impl Default for WebhookSpec {
    fn default() -> WebhookSpec {
        WebhookSpec {
            name: String::new(),
            url: TargetUrl::default(),
            events: Vec::new(),
            channels: Vec::new(),
            secret_file: None,
            ca_file: None,
            link_local: false,
            batch_events: 100,
            batch_bytes: 256 * 1024,
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(10),
            queue_events: 100_000,
            queue_bytes: 16 * 1024 * 1024,
            disk_bytes: 256 * 1024 * 1024,
            keep: Duration::from_secs(24 * 3600),
            file: None,
            line: 0,
        }
    }
}

/// A key of a webhook, as an operator writes it.
struct WebhookKey {
    name: &'static str,
    /// The value if the key is absent, as it is written.
    default: &'static str,
    doc: &'static str,
}

const KEYS: [WebhookKey; 15] = [
    key(
        "name",
        "",
        "1 to 64 letters, digits, dots, hyphens and underscores, for the log, the metrics and the requests. Required.",
    ),
    key(
        "url",
        "",
        "The address to which events are posted, with `https://` or `http://`. Redirects are not followed. Required.",
    ),
    key(
        "events",
        "",
        "The events that the webhook gets, one or a list, or `*` for all: see [webhooks](webhooks.md). Required.",
    ),
    key(
        "channels",
        "all whose names do not begin with `$`",
        "Patterns of the channels whose events the webhook gets, one or a list: as in `[[rules]]`, without `{claim}`. Required for `publication`.",
    ),
    key(
        "secret_file",
        "requests are not signed",
        "A file with the secret that signs requests; while a new secret replaces it, one on each line. A reload reads it again.",
    ),
    key(
        "ca_file",
        "those of this machine",
        "A PEM file with the certificate authorities that are trusted for `url`. A reload reads it again.",
    ),
    key(
        "link_local",
        "false",
        "Whether `url` may lead to a link-local address, or to the metadata service of a cloud.",
    ),
    key("batch_events", "100", "Most events of one request, up to 10000."),
    key(
        "batch_bytes",
        "262144",
        "Most bytes of events in one request, up to 16777216. A larger event goes alone.",
    ),
    key(
        "interval_ms",
        "100",
        "Milliseconds that an event waits for others to go in the same request, up to 60000.",
    ),
    key(
        "timeout_ms",
        "10000",
        "Milliseconds for a request, from the look-up of the name to the last byte of the answer, from 10 to 120000.",
    ),
    key(
        "queue_events",
        "100000",
        "Most events that wait for this webhook, up to 100000000. Further ones are dropped and counted.",
    ),
    key(
        "queue_bytes",
        "16777216",
        "Most bytes of events that wait for this webhook in memory, up to 4294967295. With `data_dir` further ones wait on disk alone; without, they are dropped and counted.",
    ),
    key(
        "disk_bytes",
        "268435456",
        "Most bytes of events that wait for this webhook in `data_dir`, up to 1099511627776. Further ones are dropped and counted.",
    ),
    key(
        "keep_ms",
        "86400000",
        "Milliseconds after which an event that was not delivered is dropped and counted, from 1000 to 2592000000 (30 days).",
    ),
];

const fn key(name: &'static str, default: &'static str, doc: &'static str) -> WebhookKey {
    WebhookKey { name, default, doc }
}

/// The table of keys in Markdown, as `docs/configuration.md` has it.
#[doc(hidden)]
pub fn markdown() -> String {
    let mut table = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    for key in &KEYS {
        table.push_str(&format!("| `{}` | {} | {} |\n", key.name, key.default, key.doc));
    }
    table
}

/// The table of events in Markdown, as `docs/webhooks.md` has it.
#[doc(hidden)]
pub fn events_markdown() -> String {
    let mut table = "| event | when |\n|---|---|\n".to_owned();
    for event in WebhookEvent::ALL {
        let doc = WebhookEvent::DOCS[event.index()];
        table.push_str(&format!("| `{}` | {doc} |\n", event.label()));
    }
    table
}

/// Most webhooks: each event is compared with all of them.
pub const WEBHOOKS_MAX: usize = 32;

#[cfg(test)]
mod tests;
