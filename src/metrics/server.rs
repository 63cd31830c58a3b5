//! The metrics of the whole server: one row for each, with its help text and the source of its value.
//!
//! A row that has no value now, because the feature is off or the system does not say, is left out of `/metrics`.

use std::sync::Arc;

use super::api::{ApiMetrics, ApiOutcome, ApiRoute};
use super::hooks::{HookOutcome, HookSample};
use super::logins::{LoginMetrics, LoginOutcome};
use super::outside::{OutsideCounts, Refusal};
use super::process::ProcessStatus;
use super::services::{ServiceEnd, ServiceEvent, ServiceMeters};
use super::store::StoreMetrics;
use super::text::{Samples, Seconds};
use super::webhooks::{HookMetrics, WebhookAnswer, WebhookDrop, WebhookMetrics};
use crate::config::channels::PolicyPart;
use crate::config::webhooks::WebhookEvent;

/// Values of the server that the control plane passes at a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// When it started, in milliseconds since 1970.
    pub start_unix_ms: u64,
    /// Bytes of memory that the allocator has, if it can tell.
    pub allocator_bytes: Option<u64>,
    /// Whether it is draining.
    pub draining: bool,
    /// How long the core that has stood still for longest has done so, in milliseconds.
    pub core_stuck_ms: u64,
    /// Connections that the drain closes in a thousand seconds; 0 without one.
    pub drain_closes_per_1000_seconds: u64,
    /// Revocations of tokens in force.
    pub revocations: usize,
    /// Revocations that were refused because there were too many.
    pub revocations_refused: u64,
    /// Policies of channels in force, by the properties that they have.
    pub channel_policies: [usize; PolicyPart::COUNT],
    /// Connections of operators that were closed to make room for others.
    pub admin_connections_ended: u64,
    /// Log lines that were dropped because standard error was not read fast enough.
    pub log_lines_dropped: u64,
    /// Keys that are fetched; `None` without `jwks_url`.
    pub keys: Option<FetchedKeys>,
    /// Keys of all sets that are not used; `None` without a set.
    pub keys_left_out: Option<usize>,
    /// When the first certificate of TLS ends, in seconds since 1970; `None` without TLS.
    pub tls_not_after_unix_s: Option<i64>,
    /// Publications from outside the cores.
    pub outside: OutsideCounts,
    /// Values that the operating system reports.
    pub status: ProcessStatus,
}

/// Values about keys that are fetched.
#[derive(Clone, Copy, Debug)]
pub struct FetchedKeys {
    /// Fetches begun.
    pub fetches: u64,
    /// Fetches without a good answer.
    pub failures: u64,
    /// Keys of the last good answer.
    pub keys: usize,
}

/// The sources of the rows' values.
pub(super) struct Server<'a> {
    pub(super) core_count: usize,
    pub(super) process: Process,
    /// `None` without a password file.
    pub(super) logins: Option<&'a LoginMetrics>,
    /// `None` without keys of the HTTP API.
    pub(super) api: Option<&'a ApiMetrics>,
    /// `None` without `data_dir`.
    pub(super) store: Option<&'a StoreMetrics>,
    /// The rows of `[[services]]`, and that of all other patterns.
    pub(super) services: &'a [Arc<ServiceMeters>],
    /// `None` without webhooks.
    pub(super) webhooks: Option<&'a WebhookMetrics>,
    /// Each of `[[hooks]]`.
    pub(super) hooks: &'a [HookSample<'a>],
}

impl Server<'_> {
    fn service_rows(&self) -> impl Iterator<Item = &ServiceMeters> {
        self.services
            .iter()
            .map(|row| &**row)
            .filter(|row| row.is_shown())
    }
}

/// One metric of the whole server.
pub(super) struct ServerMetric {
    pub(super) name: &'static str,
    /// The type in the sense of the format.
    pub(super) kind: &'static str,
    /// The labels of its samples.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
    /// Writes the samples; none if there is no value now.
    pub(super) write: Write,
}

type Write = fn(&Server<'_>, &mut Samples<'_>);

impl ServerMetric {
    const fn labelled(self, labels: &'static [&'static str]) -> ServerMetric {
        ServerMetric { labels, ..self }
    }
}

/// A metric that goes up only.
const fn counter(name: &'static str, help: &'static str, write: Write) -> ServerMetric {
    metric(name, "counter", help, write)
}

/// A metric that goes up and down.
const fn gauge(name: &'static str, help: &'static str, write: Write) -> ServerMetric {
    metric(name, "gauge", help, write)
}

const fn metric(name: &'static str, kind: &'static str, help: &'static str, write: Write) -> ServerMetric {
    ServerMetric {
        name,
        kind,
        labels: &[],
        help,
        write,
    }
}

/// All metrics of the server, in the order in which they are exposed.
pub(super) const SERVER_METRICS: &[ServerMetric] = &[
    gauge(
        "ringcast_info",
        "Always 1; the label has the version.",
        |_, out| out.labelled("version", env!("CARGO_PKG_VERSION"), 1),
    )
    .labelled(&["version"]),
    gauge("ringcast_cores", "Event loops.", |server, out| out.value(server.core_count)),
    gauge(
        "ringcast_draining",
        "1 while the server stops and closes its connections, else 0.",
        |server, out| out.value(u8::from(server.process.draining)),
    ),
    gauge(
        "ringcast_core_stuck_seconds",
        "Seconds since the last turn of the core that has stood still for longest; 0 while every core turns. From liveness_timeout_ms on, /healthz answers 503.",
        |server, out| out.value(Seconds::from_ms(server.process.core_stuck_ms)),
    ),
    gauge(
        "ringcast_drain_closes_per_second",
        "Rate at which the drain closes connections: the connections that were open when it began, over drain_seconds; 0 without a drain.",
        |server, out| out.value(Seconds::from_ms(server.process.drain_closes_per_1000_seconds)),
    ),
    gauge(
        "ringcast_revocations",
        "Revocations of tokens in force, and revocations that have ended and are not yet forgotten.",
        |server, out| out.value(server.process.revocations),
    ),
    counter(
        "ringcast_revocations_refused_total",
        "Revocations refused because limits.revocations_max are in force.",
        |server, out| out.value(server.process.revocations_refused),
    ),
    gauge(
        "ringcast_channel_policies",
        "Entries of `[[channels]]` in force, by the properties that they have; one entry may count in several.",
        |server, out| {
            for (part, count) in PolicyPart::ALL.into_iter().zip(server.process.channel_policies) {
                out.labelled("keeps", part.label(), count);
            }
        },
    )
    .labelled(&["keeps"]),
    counter(
        "ringcast_service_calls_total",
        "Calls of services that have ended, by the pattern of `[[services]]` and by their end; patterns that no entry covers are counted together, with an empty `pattern`.",
        |server, out| {
            for row in server.service_rows() {
                for end in ServiceEnd::ALL {
                    let count = row.sum(|core| core.ends[end.index()].value());
                    out.labelled_twice([("pattern", &row.label), ("end", end.label())], count);
                }
            }
        },
    )
    .labelled(&["pattern", "end"]),
    counter(
        "ringcast_service_events_total",
        "One-way events for services, by the pattern of `[[services]]` and by their outcome.",
        |server, out| {
            for row in server.service_rows() {
                for event in ServiceEvent::ALL {
                    let count = row.sum(|core| core.events[event.index()].value());
                    out.labelled_twice([("pattern", &row.label), ("result", event.label())], count);
                }
            }
        },
    )
    .labelled(&["pattern", "result"]),
    metric(
        "ringcast_service_seconds",
        "histogram",
        "Seconds from a call to the answer of a service, the time in the queue included, by the pattern of `[[services]]`.",
        |server, out| {
            for row in server.service_rows() {
                let histograms = row.cores().map(|core| &core.seconds);
                out.histogram_of(("pattern", &row.label), histograms);
            }
        },
    )
    .labelled(&["pattern"]),
    gauge(
        "ringcast_service_calls_open",
        "Open calls of services, by the pattern of `[[services]]`: given to a service, waiting for one, or on their way.",
        |server, out| {
            for row in server.service_rows() {
                out.labelled("pattern", &row.label, row.sum(|core| core.open.value()));
            }
        },
    )
    .labelled(&["pattern"]),
    gauge(
        "ringcast_service_calls_waiting",
        "Calls that wait for a service with room, by the pattern of `[[services]]`.",
        |server, out| {
            for row in server.service_rows() {
                out.labelled("pattern", &row.label, row.sum(|core| core.waiting.value()));
            }
        },
    )
    .labelled(&["pattern"]),
    counter(
        "ringcast_admin_connections_ended_total",
        "Connections to the control plane closed to make room: when all 64 places are taken and another connection arrives, the most silent one is closed.",
        |server, out| out.value(server.process.admin_connections_ended),
    ),
    counter(
        "ringcast_log_lines_dropped_total",
        "Log lines dropped because standard error was not read fast enough: 1 MiB of them may wait.",
        |server, out| out.value(server.process.log_lines_dropped),
    ),
    counter(
        "ringcast_jwks_fetches_total",
        "Fetches of jwks_url, where it is set.",
        |server, out| out.optional(server.process.keys.map(|keys| keys.fetches)),
    ),
    counter(
        "ringcast_jwks_failures_total",
        "Fetches of jwks_url without a good answer: the server kept the keys that it had.",
        |server, out| out.optional(server.process.keys.map(|keys| keys.failures)),
    ),
    gauge(
        "ringcast_jwks_keys",
        "Keys of the last good answer of jwks_url.",
        |server, out| out.optional(server.process.keys.map(|keys| keys.keys)),
    ),
    gauge(
        "ringcast_jwks_keys_left_out",
        "Keys of jwks_file and of the last good answer of jwks_url that are not used, or cannot sign; the log names them.",
        |server, out| out.optional(server.process.keys_left_out),
    ),
    gauge(
        "ringcast_tls_certificate_not_after_seconds",
        "End of the TLS certificate that ends first, in seconds since 1970.",
        |server, out| out.optional(server.process.tls_not_after_unix_s),
    ),
    counter(
        "ringcast_outside_publications_total",
        "Publications by the HTTP API and by the program that embeds the server, through its handle; ringcast_publications_total does not count them.",
        |server, out| out.value(server.process.outside.published),
    ),
    counter(
        "ringcast_outside_publications_refused_total",
        "Publications by the HTTP API and by the program that were not made: invalid if the name or the data was not allowed, no_room if the ring had no room within a second (outside_bytes_max).",
        |server, out| {
            for refusal in Refusal::ALL {
                out.labelled("reason", refusal.label(), server.process.outside.refused[refusal.index()]);
            }
        },
    )
    .labelled(&["reason"]),
    gauge(
        "ringcast_outside_ring_bytes",
        "Bytes of the ring that publications by the HTTP API and by the program take (outside_bytes_max).",
        |server, out| out.value(server.process.outside.ring_bytes),
    ),
    gauge(
        "ringcast_program_subscribers",
        "Subscribers of the program that embeds the server (program_subscribers_max).",
        |server, out| out.value(server.process.outside.subscribers),
    ),
    counter(
        "ringcast_program_subscribers_refused_total",
        "Subscribers of the program that were refused at program_subscribers_max.",
        |server, out| out.value(server.process.outside.subscribers_refused),
    ),
    counter(
        "ringcast_api_requests_total",
        "Requests to the HTTP API by route and outcome, where [[api_keys]] are configured; docs/http-api.md explains the outcomes.",
        |server, out| {
            let Some(api) = server.api else { return };
            for route in ApiRoute::ALL {
                for outcome in ApiOutcome::ALL {
                    let labels = [("route", route.label()), ("outcome", outcome.label())];
                    out.labelled_twice(labels, api.value(route, outcome));
                }
            }
        },
    )
    .labelled(&["route", "outcome"]),
    gauge(
        "process_start_time_seconds",
        "Start of the process, in seconds since 1970.",
        |server, out| out.value(Seconds::from_ms(server.process.start_unix_ms)),
    ),
    counter(
        "process_cpu_seconds_total",
        "Time that all threads spent on CPUs, in seconds.",
        |server, out| out.optional(server.process.status.cpu_ns.map(Seconds)),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Memory in use, in bytes. Socket buffers belong to the system and are not included.",
        |server, out| out.optional(server.process.status.resident_bytes),
    ),
    gauge(
        "ringcast_memory_anonymous_bytes",
        "Part of process_resident_memory_bytes that the program has written, in bytes: heap and stacks.",
        |server, out| out.optional(server.process.status.anonymous_bytes),
    ),
    gauge(
        "ringcast_memory_file_bytes",
        "Part of process_resident_memory_bytes that is read from files, in bytes: the program itself, as far as it was used, and libraries.",
        |server, out| out.optional(server.process.status.file_bytes),
    ),
    gauge(
        "ringcast_memory_allocator_bytes",
        "Memory that the allocator has of the system, in bytes: what is in use, and free memory that it has not given back yet. Pages that were never written count here, and not in process_resident_memory_bytes.",
        |server, out| out.optional(server.process.allocator_bytes),
    ),
    gauge(
        "process_open_fds",
        "Descriptors open in the main thread's table; cores have their own unless fd_tables is shared.",
        |server, out| out.optional(server.process.status.open_fds),
    ),
    gauge(
        "process_max_fds",
        "Descriptors that each table may hold.",
        |server, out| out.optional(server.process.status.max_fds),
    ),
    counter(
        "ringcast_logins_total",
        "Logins with a password, by outcome: accepted, refused, too_soon after failures; when too many wait, busy if the login was the last to arrive, displaced if it made room for another.",
        |server, out| {
            let Some(logins) = server.logins else { return };
            for outcome in LoginOutcome::ALL {
                out.labelled("outcome", outcome.label(), logins.value(outcome));
            }
        },
    )
    .labelled(&["outcome"]),
    metric(
        "ringcast_login_seconds",
        "histogram",
        "Seconds that checks of passwords took, from the request to the answer, the time in the queue included.",
        |server, out| {
            if let Some(logins) = server.logins {
                out.histogram(&logins.seconds);
            }
        },
    ),
    counter(
        "ringcast_login_accounts_forgotten_total",
        "Addresses and users whose failed logins were forgotten because there was no room for more (login_accounts_max).",
        |server, out| out.optional(server.logins.map(|logins| logins.accounts_forgotten.value())),
    ),
    counter(
        "ringcast_store_records_total",
        "Changes that were committed to data_dir.",
        |server, out| out.optional(server.store.map(|store| store.records.value())),
    ),
    metric(
        "ringcast_store_commit_seconds",
        "histogram",
        "Seconds that successful commits to data_dir took.",
        |server, out| {
            if let Some(store) = server.store {
                out.histogram(&store.commit_seconds);
            }
        },
    ),
    counter(
        "ringcast_store_failures_total",
        "Commits to data_dir that failed; each is tried again after a second.",
        |server, out| out.optional(server.store.map(|store| store.failures.value())),
    ),
    gauge(
        "ringcast_store_failing",
        "1 while the last commit to data_dir has failed: the mode relaxed keeps changes in memory only, and strict refuses publications that it would have to keep; else 0.",
        |server, out| out.optional(server.store.map(|store| store.failing.value())),
    ),
    counter(
        "ringcast_store_dropped_total",
        "Publications to remembered channels that are not in data_dir because limits.store_queue_bytes_max was reached: after a restart, recoveries from before them fail.",
        |server, out| out.optional(server.store.map(StoreMetrics::dropped)),
    ),
    gauge(
        "ringcast_store_bytes",
        "Length of the file in data_dir, in bytes.",
        |server, out| out.optional(server.store.map(|store| store.bytes.value())),
    ),
    gauge(
        "ringcast_store_content_bytes",
        "Bytes that the content of data_dir takes, where limits.store_bytes_max bounds it.",
        |server, out| out.optional(bounded(server, |store| store.content_bytes.value())),
    ),
    gauge(
        "ringcast_store_content_bytes_max",
        "Bytes that the content of data_dir may take, where limits.store_bytes_max bounds it: two fifths of that limit. A commit that would exceed it fails, unless it removes as much as it adds.",
        |server, out| out.optional(bounded(server, |store| store.content_bytes_max.value())),
    ),
    gauge(
        "ringcast_store_full",
        "1 while the content of data_dir takes 15 sixteenths of what it may, or more: the mode strict refuses publications that it would have to store; else 0.",
        |server, out| out.optional(server.store.map(|store| store.full.value())),
    ),
    counter(
        "ringcast_webhook_lost_total",
        "Events for webhooks that cores dropped, since too many waited (webhook_events_waiting_max, webhook_bytes_max), where [[webhooks]] are configured.",
        |server, out| {
            let Some(webhooks) = server.webhooks else { return };
            for event in WebhookEvent::ALL {
                out.labelled("event", event.label(), webhooks.lost(event));
            }
        },
    )
    .labelled(&["event"]),
    counter(
        "ringcast_webhook_queued_total",
        "Events that were put into the queues of webhooks.",
        |server, out| each_webhook(server, out, |hook| hook.queued.value()),
    )
    .labelled(&["webhook"]),
    counter(
        "ringcast_webhook_delivered_total",
        "Events that webhooks have accepted: answered with a status of 200 to 299.",
        |server, out| each_webhook(server, out, |hook| hook.delivered.value()),
    )
    .labelled(&["webhook"]),
    counter(
        "ringcast_webhook_dropped_total",
        "Events that were not delivered to webhooks, by reason: queue_full by queue_events, queue_bytes or disk_bytes, memory by webhook_bytes_max, expired by keep_ms, removed with the webhook, store if data_dir failed, stopped with the server.",
        |server, out| {
            for hook in server.webhooks.iter().flat_map(|webhooks| webhooks.hooks().to_vec()) {
                for reason in WebhookDrop::ALL {
                    let labels = [("webhook", &*hook.name), ("reason", reason.label())];
                    out.labelled_twice(labels, hook.dropped[reason.index()].value());
                }
            }
        },
    )
    .labelled(&["webhook", "reason"]),
    counter(
        "ringcast_webhook_requests_total",
        "Requests to webhooks by outcome: delivered, status for an answer that is not 200 to 299, timeout, unreachable.",
        |server, out| {
            for hook in server.webhooks.iter().flat_map(|webhooks| webhooks.hooks().to_vec()) {
                for answer in WebhookAnswer::ALL {
                    let labels = [("webhook", &*hook.name), ("outcome", answer.label())];
                    out.labelled_twice(labels, hook.requests[answer.index()].value());
                }
            }
        },
    )
    .labelled(&["webhook", "outcome"]),
    gauge(
        "ringcast_webhook_waiting_events",
        "Events that wait for webhooks.",
        |server, out| each_webhook(server, out, |hook| hook.waiting.value()),
    )
    .labelled(&["webhook"]),
    gauge(
        "ringcast_webhook_waiting_bytes",
        "Bytes of the events that wait for webhooks, in memory and on disk.",
        |server, out| each_webhook(server, out, |hook| hook.waiting_bytes.value()),
    )
    .labelled(&["webhook"]),
    gauge(
        "ringcast_webhook_failing",
        "1 while the last request to the webhook has failed, else 0.",
        |server, out| each_webhook(server, out, |hook| hook.failing.value()),
    )
    .labelled(&["webhook"]),
    metric(
        "ringcast_webhook_request_seconds",
        "histogram",
        "Seconds that answered requests to webhooks took.",
        |server, out| {
            if let Some(webhooks) = server.webhooks {
                out.histogram(&webhooks.request_seconds);
            }
        },
    ),
    gauge(
        "ringcast_webhook_bytes",
        "Bytes of events for webhooks in memory (webhook_bytes_max).",
        |server, out| out.optional(server.webhooks.map(|webhooks| webhooks.bytes.value())),
    ),
    gauge(
        "ringcast_webhook_channels",
        "Channels with subscribers that webhooks watch (channel_occupied, channel_vacated).",
        |server, out| out.optional(server.webhooks.map(|webhooks| webhooks.channels.value())),
    ),
    gauge(
        "ringcast_webhook_channel_bytes",
        "Bytes of memory for the table of these channels, which webhook_bytes_max does not count.",
        |server, out| out.optional(server.webhooks.map(|webhooks| webhooks.channel_bytes.value())),
    ),
    counter(
        "ringcast_webhook_flaps_total",
        "Channels that lost their last subscriber and got another one within webhook_vacated_delay_ms, so that no event was sent.",
        |server, out| out.optional(server.webhooks.map(|webhooks| webhooks.flaps.value())),
    ),
    counter(
        "ringcast_webhook_store_failures_total",
        "Times that events for webhooks could not be kept in data_dir.",
        |server, out| out.optional(server.webhooks.map(|webhooks| webhooks.store_failures.value())),
    ),
    counter(
        "ringcast_hook_questions_total",
        "Questions to [[hooks]] by hook and outcome: allowed and refused were answered; when_away decided the others, since the target was unreachable, the time was over (timeout), the status was not 200, the answer was invalid, the target was not asked after failures (circuit_open), or too many questions were open (busy).",
        |server, out| {
            for hook in server.hooks {
                for outcome in HookOutcome::ALL {
                    let labels = [("hook", hook.name), ("outcome", outcome.label())];
                    out.labelled_twice(labels, hook.metrics.value(outcome));
                }
            }
        },
    )
    .labelled(&["hook", "outcome"]),
    counter(
        "ringcast_hook_cached_total",
        "Questions to [[hooks]] that a cached answer has decided (cache_ms).",
        |server, out| {
            for hook in server.hooks {
                out.labelled("hook", hook.name, hook.metrics.cached());
            }
        },
    )
    .labelled(&["hook"]),
    counter(
        "ringcast_hook_requests_total",
        "Requests to [[hooks]] with a URL; fewer than questions where a request asks about several publications (batch_max).",
        |server, out| {
            for hook in server.hooks {
                out.labelled("hook", hook.name, hook.metrics.requests());
            }
        },
    )
    .labelled(&["hook"]),
    gauge(
        "ringcast_hook_open",
        "Questions to [[hooks]] that wait for their turn or for their answer.",
        |server, out| {
            for hook in server.hooks {
                out.labelled("hook", hook.name, hook.open);
            }
        },
    )
    .labelled(&["hook"]),
    metric(
        "ringcast_hook_seconds",
        "histogram",
        "Seconds from a question to one of [[hooks]] with a URL to its answer, or to the end of its time, without answers that were kept.",
        |server, out| {
            for hook in server.hooks {
                out.histogram_of(("hook", hook.name), std::iter::once(&hook.metrics.seconds));
            }
        },
    )
    .labelled(&["hook"]),
];

/// A value of a store whose file is bounded.
fn bounded(server: &Server<'_>, value: fn(&StoreMetrics) -> u64) -> Option<u64> {
    let store = server.store.filter(|store| store.content_bytes_max.value() > 0);
    store.map(value)
}

/// A sample for each webhook.
fn each_webhook(server: &Server<'_>, out: &mut Samples<'_>, value: fn(&HookMetrics) -> u64) {
    for hook in server
        .webhooks
        .iter()
        .flat_map(|webhooks| webhooks.hooks().to_vec())
    {
        out.labelled("webhook", &hook.name, value(&hook));
    }
}
