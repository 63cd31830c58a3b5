//! Counters as Prometheus reads them: text format 0.0.4.
//!
//! [`METRICS`] names each field of [`CoreMetrics`] once; `/metrics`, `/stats` and the table of `docs/metrics.md` come from it. All
//! is appended to one `String`, which the caller may keep.
//!
//! Invariants
//! 1. `HELP` and `TYPE` stand once per metric, before its samples, which stand together.
//! 2. A series is a name and labels, and occurs once. Labels come from enums and indexes, never from input.
//! 3. Buckets are cumulated, and the last equals the count.

use std::fmt::Write;

use super::block::{CoreMetrics, Counter, Handshake, HeldKind, Histogram};
use super::logins::{LoginMetrics, LoginOutcome};
use super::process::ProcessStatus;
use crate::audit::Event;
use crate::config::rules::Action;
use crate::decision::{CloseReason, Limit};

/// One metric of a core.
#[derive(Debug)]
pub struct Metric {
    /// Its name, with prefix, unit and `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Where its values are.
    pub values: Values,
}

/// Where the values of a metric are in a core's block.
#[derive(Debug)]
pub enum Values {
    /// Goes up only.
    Counter(fn(&CoreMetrics) -> &Counter),
    /// Goes up and down.
    Gauge(fn(&CoreMetrics) -> &Counter),
    /// Goes up only; one for each value of a label.
    Labelled {
        /// The label.
        label: &'static str,
        /// Its values.
        labels: &'static [&'static str],
        /// Their counters, in the same order.
        counters: fn(&CoreMetrics) -> &[Counter],
    },
    /// Go up and down; one for each value of a label.
    LabelledGauges {
        /// The label.
        label: &'static str,
        /// Its values.
        labels: &'static [&'static str],
        /// Their gauges, in the same order.
        gauges: fn(&CoreMetrics) -> &[Counter],
    },
    /// Times.
    Histogram(fn(&CoreMetrics) -> &Histogram),
}

/// What is exposed of the process besides its cores.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// When it began, in milliseconds since 1970.
    pub start_unix_ms: u64,
    /// Whether it is about to end.
    pub draining: bool,
    /// For how long the core that has stood still for longest has done so, in milliseconds.
    pub core_stuck_ms: u64,
    /// Connections that it closes in a thousand seconds, if it is.
    pub drain_closes_per_1000_seconds: u64,
    /// Revocations of tokens in force.
    pub revocations: usize,
    /// Those that were refused, since there were too many.
    pub revocations_refused: u64,
    /// Connections of operators that had to give way to others.
    pub admin_connections_ended: u64,
    /// Log lines that were dropped, since nobody read those before them.
    pub log_lines_dropped: u64,
    /// Keys that are fetched, if any are.
    pub keys: Option<FetchedKeys>,
    /// Keys of all sets that are not used, if there are sets.
    pub keys_left_out: Option<usize>,
    /// When the first certificate of TLS ends, in seconds since 1970, if there is TLS.
    pub tls_not_after_unix_s: Option<i64>,
    /// What the system knows.
    pub status: ProcessStatus,
}

/// What is exposed of keys that are fetched.
#[derive(Clone, Copy, Debug)]
pub struct FetchedKeys {
    /// Fetches begun.
    pub fetches: u64,
    /// Fetches without a good answer.
    pub failures: u64,
    /// Keys that were fetched last.
    pub keys: usize,
}

/// The type of what [`expose`] writes, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Appends everything to `out`.
pub fn expose(cores: &[&CoreMetrics], process: Process, logins: Option<&LoginMetrics>, out: &mut String) {
    expose_process(cores.len(), process, out);
    if let Some(logins) = logins {
        expose_logins(logins, out);
    }
    for metric in METRICS {
        head(out, metric.name, metric.kind(), metric.help);
        for (core, block) in cores.iter().enumerate() {
            metric.samples(core, block, out);
        }
    }
}

/// The table of metrics in Markdown, as `docs/metrics.md` has it.
pub fn markdown() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for Solo {
        name,
        kind,
        labels,
        help,
        ..
    } in SOLOS
    {
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    for (name, kind, labels, help) in LOGINS {
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    for metric in METRICS {
        let labels = match metric.values {
            Values::Labelled { label, .. } | Values::LabelledGauges { label, .. } => {
                format!("`core`, `{label}`")
            }
            Values::Counter(_) | Values::Gauge(_) | Values::Histogram(_) => "`core`".to_owned(),
        };
        table.push_str(&format!(
            "| `{}` | {} | {labels} | {} |\n",
            metric.name,
            metric.kind(),
            metric.help
        ));
    }
    table
}

impl Metric {
    /// The type in the sense of the format.
    pub fn kind(&self) -> &'static str {
        match self.values {
            Values::Counter(_) | Values::Labelled { .. } => "counter",
            Values::Gauge(_) | Values::LabelledGauges { .. } => "gauge",
            Values::Histogram(_) => "histogram",
        }
    }

    fn samples(&self, core: usize, block: &CoreMetrics, out: &mut String) {
        let name = self.name;
        match self.values {
            Values::Counter(counter) | Values::Gauge(counter) => {
                line(
                    out,
                    format_args!("{name}{{core=\"{core}\"}} {}", counter(block).value()),
                );
            }
            Values::Labelled {
                label,
                labels,
                counters: values,
            }
            | Values::LabelledGauges {
                label,
                labels,
                gauges: values,
            } => {
                for (value, counter) in labels.iter().zip(values(block)) {
                    line(
                        out,
                        format_args!(
                            "{name}{{core=\"{core}\",{label}=\"{value}\"}} {}",
                            counter.value()
                        ),
                    );
                }
            }
            Values::Histogram(histogram) => {
                histogram_samples(name, &format!("core=\"{core}\""), histogram(block), out);
            }
        }
    }
}

fn histogram_samples(name: &str, labels: &str, histogram: &Histogram, out: &mut String) {
    let comma = if labels.is_empty() { "" } else { "," };
    let braced = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    let mut count: u64 = 0;
    for (bucket, added) in histogram.counts().into_iter().enumerate() {
        count = count.wrapping_add(added);
        match Histogram::upper_bound_ns(bucket).map(Seconds) {
            Some(bound) => line(
                out,
                format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"),
            ),
            None => line(
                out,
                format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}"),
            ),
        }
    }
    line(
        out,
        format_args!("{name}_sum{braced} {}", Seconds(histogram.sum_ns())),
    );
    line(out, format_args!("{name}_count{braced} {count}"));
}

/// Nanoseconds, written as seconds without rounding.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, mut rest) = (self.0 / NS_PER_SECOND, self.0 % NS_PER_SECOND);
        write!(formatter, "{whole}")?;
        if rest == 0 {
            return Ok(());
        }
        let mut digits = 9;
        while rest % 10 == 0 {
            rest /= 10;
            digits -= 1;
        }
        write!(formatter, ".{rest:0digits$}")
    }
}

const NS_PER_SECOND: u64 = 1_000_000_000;

/// A metric of the whole process.
struct Solo {
    name: &'static str,
    kind: &'static str,
    labels: &'static str,
    help: &'static str,
    /// Writes what stands after the name; nothing if the system does not say.
    sample: fn(usize, &Process) -> Option<String>,
}

fn expose_process(core_count: usize, process: Process, out: &mut String) {
    for solo in SOLOS {
        if let Some(sample) = (solo.sample)(core_count, &process) {
            head(out, solo.name, solo.kind, solo.help);
            line(out, format_args!("{}{sample}", solo.name));
        }
    }
}

const SOLOS: &[Solo] = &[
    Solo {
        name: "ringcast_info",
        kind: "gauge",
        labels: "`version`",
        help: "Always 1; the label has the version.",
        sample: |_, _| Some(format!("{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))),
    },
    Solo {
        name: "ringcast_cores",
        kind: "gauge",
        labels: "",
        help: "Event loops.",
        sample: |core_count, _| Some(format!(" {core_count}")),
    },
    Solo {
        name: "ringcast_draining",
        kind: "gauge",
        labels: "",
        help: "1 while the server stops and closes its connections, else 0.",
        sample: |_, process| Some(format!(" {}", u8::from(process.draining))),
    },
    Solo {
        name: "ringcast_core_stuck_seconds",
        kind: "gauge",
        labels: "",
        help: "For how long the core that has stood still for longest has done so; 0 while every core turns. From liveness_timeout_ms on, /healthz answers 503.",
        sample: |_, process| {
            let ns = process.core_stuck_ms.saturating_mul(1_000_000);
            Some(format!(" {}", Seconds(ns)))
        },
    },
    Solo {
        name: "ringcast_drain_closes_per_second",
        kind: "gauge",
        labels: "",
        help: "The rate at which the drain closes connections: those left when it began, over drain_seconds; else 0.",
        sample: |_, process| {
            let ns = process.drain_closes_per_1000_seconds.saturating_mul(1_000_000);
            Some(format!(" {}", Seconds(ns)))
        },
    },
    Solo {
        name: "ringcast_revocations",
        kind: "gauge",
        labels: "",
        help: "Revocations of tokens in force, and those that have ended and are not yet forgotten.",
        sample: |_, process| Some(format!(" {}", process.revocations)),
    },
    Solo {
        name: "ringcast_revocations_refused_total",
        kind: "counter",
        labels: "",
        help: "Revocations refused because limits.revocations_max are in force.",
        sample: |_, process| Some(format!(" {}", process.revocations_refused)),
    },
    Solo {
        name: "ringcast_admin_connections_ended_total",
        kind: "counter",
        labels: "",
        help: "Connections to the control plane that had to give way: the most silent of 64 when another comes.",
        sample: |_, process| Some(format!(" {}", process.admin_connections_ended)),
    },
    Solo {
        name: "ringcast_log_lines_dropped_total",
        kind: "counter",
        labels: "",
        help: "Log lines dropped since standard error was not read fast enough: 1 MiB of them may wait.",
        sample: |_, process| Some(format!(" {}", process.log_lines_dropped)),
    },
    Solo {
        name: "ringcast_jwks_fetches_total",
        kind: "counter",
        labels: "",
        help: "Fetches of jwks_url, where it is set.",
        sample: |_, process| process.keys.map(|keys| format!(" {}", keys.fetches)),
    },
    Solo {
        name: "ringcast_jwks_failures_total",
        kind: "counter",
        labels: "",
        help: "Fetches of jwks_url without a good answer: the keys there were have stayed.",
        sample: |_, process| process.keys.map(|keys| format!(" {}", keys.failures)),
    },
    Solo {
        name: "ringcast_jwks_keys",
        kind: "gauge",
        labels: "",
        help: "Keys of the last good answer of jwks_url.",
        sample: |_, process| process.keys.map(|keys| format!(" {}", keys.keys)),
    },
    Solo {
        name: "ringcast_jwks_keys_left_out",
        kind: "gauge",
        labels: "",
        help: "Keys of jwks_file and of the last good answer of jwks_url that are not used, or cannot sign; the log names them.",
        sample: |_, process| process.keys_left_out.map(|count| format!(" {count}")),
    },
    Solo {
        name: "ringcast_tls_certificate_not_after_seconds",
        kind: "gauge",
        labels: "",
        help: "End of the certificate of TLS that ends first, in seconds since 1970.",
        sample: |_, process| process.tls_not_after_unix_s.map(|seconds| format!(" {seconds}")),
    },
    Solo {
        name: "process_start_time_seconds",
        kind: "gauge",
        labels: "",
        help: "Start of the process, in seconds since 1970.",
        sample: |_, process| {
            let ns = process.start_unix_ms.saturating_mul(1_000_000);
            Some(format!(" {}", Seconds(ns)))
        },
    },
    Solo {
        name: "process_cpu_seconds_total",
        kind: "counter",
        labels: "",
        help: "Time that all threads spent on CPUs, in seconds.",
        sample: |_, process| process.status.cpu_ns.map(|ns| format!(" {}", Seconds(ns))),
    },
    Solo {
        name: "process_resident_memory_bytes",
        kind: "gauge",
        labels: "",
        help: "Memory in use, in bytes; socket buffers are the system's and not in it.",
        sample: |_, process| process.status.resident_bytes.map(|bytes| format!(" {bytes}")),
    },
    Solo {
        name: "ringcast_memory_anonymous_bytes",
        kind: "gauge",
        labels: "",
        help: "The part of it that the program has written, in bytes: heap and stacks.",
        sample: |_, process| process.status.anonymous_bytes.map(|bytes| format!(" {bytes}")),
    },
    Solo {
        name: "ringcast_memory_file_bytes",
        kind: "gauge",
        labels: "",
        help: "The part of it that are pages of files, in bytes: the program itself, as far as it was used, and libraries.",
        sample: |_, process| process.status.file_bytes.map(|bytes| format!(" {bytes}")),
    },
    Solo {
        name: "process_open_fds",
        kind: "gauge",
        labels: "",
        help: "Descriptors open in the main thread's table; cores have their own unless fd_tables is shared.",
        sample: |_, process| process.status.open_fds.map(|count| format!(" {count}")),
    },
    Solo {
        name: "process_max_fds",
        kind: "gauge",
        labels: "",
        help: "Descriptors that each table may hold.",
        sample: |_, process| process.status.max_fds.map(|count| format!(" {count}")),
    },
];

/// The metrics of logins: name, type, labels, meaning. There are none without a password file.
const LOGINS: [(&str, &str, &str, &str); 3] = [
    (
        "ringcast_logins_total",
        "counter",
        "`outcome`",
        "Logins with a password: welcome, refused, too_soon after failures; when too many wait, busy if it came last, displaced if it gave way to another.",
    ),
    (
        "ringcast_login_seconds",
        "histogram",
        "",
        "From the question whether a password is right to the answer.",
    ),
    (
        "ringcast_login_accounts_forgotten_total",
        "counter",
        "",
        "Addresses and users whose failed logins were forgotten for want of room (login_accounts_max).",
    ),
];

fn expose_logins(logins: &LoginMetrics, out: &mut String) {
    let [
        (total, total_kind, _, total_help),
        (seconds, seconds_kind, _, seconds_help),
        (forgotten, forgotten_kind, _, forgotten_help),
    ] = LOGINS;
    head(out, total, total_kind, total_help);
    for outcome in LoginOutcome::ALL {
        let (label, value) = (outcome.label(), logins.value(outcome));
        line(out, format_args!("{total}{{outcome=\"{label}\"}} {value}"));
    }
    head(out, seconds, seconds_kind, seconds_help);
    histogram_samples(seconds, "", &logins.seconds, out);
    head(out, forgotten, forgotten_kind, forgotten_help);
    line(
        out,
        format_args!("{forgotten} {}", logins.accounts_forgotten.value()),
    );
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

fn line(out: &mut String, line: std::fmt::Arguments<'_>) {
    out.write_fmt(line).expect("a String takes any text");
    out.push('\n');
}

/// All metrics of a core, in the order in which they are exposed.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "ringcast_connections",
        help: "Connections open now.",
        values: Values::Gauge(|block| &block.connections),
    },
    Metric {
        name: "ringcast_sessions",
        help: "Connections open now that have completed the SocketCluster handshake.",
        values: Values::Gauge(|block| &block.sessions),
    },
    Metric {
        name: "ringcast_drain_left",
        help: "Connections that the drain has still to close; 0 while there is none.",
        values: Values::Gauge(|block| &block.drain_left),
    },
    Metric {
        name: "ringcast_accepts_total",
        help: "Sockets accepted from the listener.",
        values: Values::Counter(|block| &block.accepts),
    },
    Metric {
        name: "ringcast_hand_overs_sent_total",
        help: "Accepted sockets handed to a lighter core before their first byte was read.",
        values: Values::Counter(|block| &block.hand_overs_sent),
    },
    Metric {
        name: "ringcast_hand_overs_received_total",
        help: "Sockets taken from another core.",
        values: Values::Counter(|block| &block.hand_overs_received),
    },
    Metric {
        name: "ringcast_transitions_deferred_total",
        help: "Reads put off to a later turn, of connections that come, go or show tokens again and again, since others of these had used up the time for them in this turn.",
        values: Values::Counter(|block| &block.transitions_deferred),
    },
    Metric {
        name: "ringcast_token_checks_deferred_total",
        help: "Reads put off to a later turn, of any connection, since tokens of others had used up the checks of this turn.",
        values: Values::Counter(|block| &block.token_checks_deferred),
    },
    Metric {
        name: "ringcast_connections_refused_total",
        help: "Connections refused since there was no room, or since they came too fast: answered 503 or 429, or only closed where TLS is spoken.",
        values: Values::Counter(|block| &block.connections_refused),
    },
    Metric {
        name: "ringcast_tls_handshakes_total",
        help: "TLS handshakes that have ended: `full` and `resumed` well, else by what went wrong.",
        values: Values::Labelled {
            label: "result",
            labels: &Handshake::LABELS,
            counters: |block| &block.tls_handshakes,
        },
    },
    Metric {
        name: "ringcast_http_answers_total",
        help: "Requests on the client port answered with plain HTTP.",
        values: Values::Counter(|block| &block.http_answers),
    },
    Metric {
        name: "ringcast_messages_received_total",
        help: "Whole WebSocket messages received.",
        values: Values::Counter(|block| &block.messages_received),
    },
    Metric {
        name: "ringcast_received_bytes_total",
        help: "Bytes read from sockets.",
        values: Values::Counter(|block| &block.bytes_received),
    },
    Metric {
        name: "ringcast_messages_sent_total",
        help: "WebSocket messages queued for sending, publications included.",
        values: Values::Counter(|block| &block.messages_sent),
    },
    Metric {
        name: "ringcast_compression_agreed_total",
        help: "Upgrades that agreed on compression.",
        values: Values::Counter(|block| &block.compression_agreed),
    },
    Metric {
        name: "ringcast_inflated_messages_total",
        help: "Compressed messages received.",
        values: Values::Counter(|block| &block.messages_inflated),
    },
    Metric {
        name: "ringcast_inflate_before_bytes_total",
        help: "Bytes of compressed messages as they were sent.",
        values: Values::Counter(|block| &block.inflate_bytes_before),
    },
    Metric {
        name: "ringcast_inflate_after_bytes_total",
        help: "Bytes of compressed messages as they were meant.",
        values: Values::Counter(|block| &block.inflate_bytes_after),
    },
    Metric {
        name: "ringcast_deflated_messages_total",
        help: "Messages compressed; a publication once for all clients of a core that share a window.",
        values: Values::Counter(|block| &block.messages_deflated),
    },
    Metric {
        name: "ringcast_deflate_before_bytes_total",
        help: "Bytes of messages before they were compressed.",
        values: Values::Counter(|block| &block.deflate_bytes_before),
    },
    Metric {
        name: "ringcast_deflate_after_bytes_total",
        help: "Bytes of messages after they were compressed.",
        values: Values::Counter(|block| &block.deflate_bytes_after),
    },
    Metric {
        name: "ringcast_sent_bytes_total",
        help: "Bytes written to sockets; under TLS before they are encrypted.",
        values: Values::Counter(|block| &block.bytes_sent),
    },
    Metric {
        name: "ringcast_publications_total",
        help: "Publications put into the ring.",
        values: Values::Counter(|block| &block.publications),
    },
    Metric {
        name: "ringcast_deliveries_total",
        help: "Publications queued for a subscriber.",
        values: Values::Counter(|block| &block.deliveries),
    },
    Metric {
        name: "ringcast_deliveries_paused_total",
        help: "Turns that ended with a publication to many under way.",
        values: Values::Counter(|block| &block.deliveries_paused),
    },
    Metric {
        name: "ringcast_publications_skipped_total",
        help: "Publications not delivered to a subscriber whose outbox was full.",
        values: Values::Counter(|block| &block.publications_skipped),
    },
    Metric {
        name: "ringcast_publications_conflated_total",
        help: "Publications that a newer one of their channel replaced while they waited for a subscriber whose outbox was full.",
        values: Values::Counter(|block| &block.publications_conflated),
    },
    Metric {
        name: "ringcast_subscriptions",
        help: "Subscriptions held now.",
        values: Values::Gauge(|block| &block.subscriptions),
    },
    Metric {
        name: "ringcast_ring_depth",
        help: "Publications in the ring that the core has not yet taken.",
        values: Values::Gauge(|block| &block.ring_depth),
    },
    Metric {
        name: "ringcast_ring_bytes",
        help: "Memory of the core's publications that some core has yet to take, in bytes, once a second.",
        values: Values::Gauge(|block| &block.ring_bytes),
    },
    Metric {
        name: "ringcast_ring_kept_bytes",
        help: "Memory kept for the core's next publications, in bytes, once a second: as much as once was in the ring at a time.",
        values: Values::Gauge(|block| &block.ring_kept_bytes),
    },
    Metric {
        name: "ringcast_table_bytes",
        help: "Memory of the tables of connections, channels and subscriptions, in bytes, once a second.",
        values: Values::Gauge(|block| &block.table_bytes),
    },
    Metric {
        name: "ringcast_ring_stalls_total",
        help: "Publishes that found the ring full, or others waiting for room in it, and waited.",
        values: Values::Counter(|block| &block.ring_stalls),
    },
    Metric {
        name: "ringcast_wakes_total",
        help: "Sleeping cores woken by this one.",
        values: Values::Counter(|block| &block.wakes),
    },
    Metric {
        name: "ringcast_outbox_bytes",
        help: "Bytes waiting in outboxes, and behind them.",
        values: Values::Gauge(|block| &block.outbox_bytes),
    },
    Metric {
        name: "ringcast_held_bytes",
        help: "Memory that connections hold, in bytes, by kind; all kinds together are bounded by outbox_bytes_total_max.",
        values: Values::LabelledGauges {
            label: "kind",
            labels: &HeldKind::LABELS,
            gauges: |block| &*block.held_bytes,
        },
    },
    Metric {
        name: "ringcast_turns_total",
        help: "Turns of the event loop.",
        values: Values::Counter(|block| &block.turns),
    },
    Metric {
        name: "ringcast_busy_poll_hits_total",
        help: "Turns that began without a sleep, since busy polling had found something.",
        values: Values::Counter(|block| &block.busy_poll_hits),
    },
    Metric {
        name: "ringcast_turn_seconds",
        help: "How long turns took, without the waiting.",
        values: Values::Histogram(|block| &block.turn_seconds),
    },
    Metric {
        name: "ringcast_publish_to_write_seconds",
        help: "From the publish to the end of the turn that wrote it or found its socket full, per delivery. The messages of one read are published together: for all of them the time is that of the first.",
        values: Values::Histogram(|block| &block.publish_to_write_seconds),
    },
    Metric {
        name: "ringcast_closes_total",
        help: "Ends of connections, by reason.",
        values: Values::Labelled {
            label: "reason",
            labels: &CloseReason::LABELS,
            counters: |block| &block.closes,
        },
    },
    Metric {
        name: "ringcast_rules_denied_total",
        help: "What `[[rules]]` have refused, by action.",
        values: Values::Labelled {
            label: "action",
            labels: &Action::LABELS,
            counters: |block| &block.rules_denied,
        },
    },
    Metric {
        name: "ringcast_rules_would_deny_total",
        help: "What was done and `[[shadow_rules]]` would refuse, by action.",
        values: Values::Labelled {
            label: "action",
            labels: &Action::LABELS,
            counters: |block| &block.rules_would_deny,
        },
    },
    Metric {
        name: "ringcast_rules_would_allow_total",
        help: "What `[[rules]]` have refused and `[[shadow_rules]]` would allow, by action.",
        values: Values::Labelled {
            label: "action",
            labels: &Action::LABELS,
            counters: |block| &block.rules_would_allow,
        },
    },
    Metric {
        name: "ringcast_rules_kick_outs_total",
        help: "Subscriptions ended since `[[rules]]` no longer allow them.",
        values: Values::Counter(|block| &block.rules_kick_outs),
    },
    Metric {
        name: "ringcast_audit_left_out_total",
        help: "Lines left out of the audit trail, since more came than limits.audit_lines_per_second_max, by event.",
        values: Values::Labelled {
            label: "event",
            labels: &Event::LABELS,
            counters: |block| &block.audit_left_out,
        },
    },
    Metric {
        name: "ringcast_limit_hits_total",
        help: "Limits hit, by limit. Those that hold new connections back (connections, connections_per_core, accepts_per_second, memory_bytes) count once each time they begin to, not for each connection.",
        values: Values::Labelled {
            label: "limit",
            labels: &Limit::LABELS,
            counters: |block| &*block.limit_hits,
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn process() -> Process {
        Process {
            start_unix_ms: 1_700_000_000_250,
            draining: true,
            core_stuck_ms: 1500,
            drain_closes_per_1000_seconds: 12_500,
            revocations: 1,
            revocations_refused: 0,
            admin_connections_ended: 0,
            log_lines_dropped: 0,
            keys: Some(FetchedKeys {
                fetches: 3,
                failures: 1,
                keys: 2,
            }),
            keys_left_out: Some(1),
            tls_not_after_unix_s: Some(1_800_000_000),
            status: ProcessStatus::read(),
        }
    }

    fn text(cores: &[&CoreMetrics]) -> String {
        let mut out = String::new();
        expose(cores, process(), Some(&LoginMetrics::default()), &mut out);
        out
    }

    /// Gives each counter a number of its own. The pattern names every field, so a new one does not compile here
    /// until it is counted too.
    fn numbered(block: &CoreMetrics) -> u64 {
        let CoreMetrics {
            connections,
            sessions,
            drain_left,
            accepts,
            hand_overs_sent,
            hand_overs_received,
            transitions_deferred,
            token_checks_deferred,
            connections_refused,
            tls_handshakes,
            http_answers,
            messages_received,
            bytes_received,
            messages_sent,
            compression_agreed,
            messages_inflated,
            inflate_bytes_before,
            inflate_bytes_after,
            messages_deflated,
            deflate_bytes_before,
            deflate_bytes_after,
            bytes_sent,
            publications,
            deliveries,
            deliveries_paused,
            publications_skipped,
            publications_conflated,
            subscriptions,
            ring_depth,
            ring_bytes,
            ring_kept_bytes,
            table_bytes,
            ring_stalls,
            wakes,
            outbox_bytes,
            held_bytes,
            turns,
            busy_poll_hits,
            turn_seconds,
            publish_to_write_seconds,
            closes,
            rules_denied,
            rules_would_deny,
            rules_would_allow,
            rules_kick_outs,
            audit_left_out,
            limit_hits,
        } = block;
        let single = [
            connections,
            sessions,
            drain_left,
            accepts,
            hand_overs_sent,
            hand_overs_received,
            transitions_deferred,
            token_checks_deferred,
            connections_refused,
            http_answers,
            messages_received,
            bytes_received,
            messages_sent,
            compression_agreed,
            messages_inflated,
            inflate_bytes_before,
            inflate_bytes_after,
            messages_deflated,
            deflate_bytes_before,
            deflate_bytes_after,
            bytes_sent,
            publications,
            deliveries,
            deliveries_paused,
            publications_skipped,
            publications_conflated,
            subscriptions,
            ring_depth,
            ring_bytes,
            ring_kept_bytes,
            table_bytes,
            ring_stalls,
            wakes,
            outbox_bytes,
            turns,
            busy_poll_hits,
        ];
        let mut next = FIRST;
        for counter in single
            .into_iter()
            .chain(tls_handshakes)
            .chain([rules_kick_outs])
            .chain(closes)
            .chain(rules_denied)
            .chain(rules_would_deny)
            .chain(rules_would_allow)
            .chain(audit_left_out)
            .chain(limit_hits.iter())
            .chain(held_bytes.iter())
        {
            counter.set(next);
            next += 1;
        }
        for histogram in [turn_seconds, publish_to_write_seconds] {
            histogram.record_many_ns(3000, next);
            next += 1;
        }
        next
    }

    const FIRST: u64 = 7_000_001;

    #[test]
    fn every_field_is_exposed_once() {
        let block = CoreMetrics::default();
        let end = numbered(&block);
        let text = text(&[&block]);
        let counts: Vec<u64> = text
            .lines()
            .filter(|line| !line.contains("_bucket"))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .filter(|value| (FIRST..end).contains(value))
            .collect();
        let mut sorted = counts.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (FIRST..end).collect::<Vec<_>>());
    }

    #[test]
    fn heads_stand_once_and_series_do_not_repeat() {
        let (one, two) = (CoreMetrics::default(), CoreMetrics::default());
        let text = text(&[&one, &two]);
        let mut kinds = HashMap::new();
        let mut series = HashSet::new();
        let mut current = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                current = rest.split(' ').next().unwrap();
                assert!(!kinds.contains_key(current), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, current);
                kinds.insert(name, kind);
            } else {
                let (name_and_labels, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(name_and_labels), "{line}");
                let name = name_and_labels.split('{').next().unwrap();
                let family = match kinds[current] {
                    "histogram" => ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|end| name.strip_suffix(end))
                        .unwrap(),
                    _ => name,
                };
                assert_eq!(family, current, "{line}");
                assert_eq!(name.ends_with("_total"), kinds[current] == "counter", "{line}");
            }
        }
        assert!(text.ends_with('\n'));
        assert!(series.contains("ringcast_connections{core=\"1\"}"));
        assert!(series.contains("ringcast_closes_total{core=\"0\",reason=\"slow_consumer\"}"));
        assert!(text.contains("process_start_time_seconds 1700000000.25\n"));
        assert!(text.contains("ringcast_draining 1\n"));
        assert!(text.contains("ringcast_drain_closes_per_second 12.5\n"));
        assert!(text.contains("ringcast_tls_certificate_not_after_seconds 1800000000\n"));
    }

    #[test]
    fn buckets_are_cumulated_and_end_at_the_count() {
        let block = CoreMetrics::default();
        for ns in [500, 1000, 1001, 9_000_000_000] {
            block.turn_seconds.record_ns(ns);
        }
        let text = text(&[&block]);
        let buckets: Vec<(&str, u64)> = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("ringcast_turn_seconds_bucket{core=\"0\",le=\"")?
                    .split_once("\"} ")
            })
            .map(|(bound, count)| (bound, count.parse().unwrap()))
            .collect();
        assert_eq!(buckets.len(), Histogram::BUCKETS);
        assert_eq!(buckets[..2], [("0.000001", 2), ("0.000002", 3)]);
        assert_eq!(buckets[Histogram::BUCKETS - 2..], [("8.388608", 3), ("+Inf", 4)]);
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        assert!(text.contains("ringcast_turn_seconds_count{core=\"0\"} 4\n"));
        assert!(text.contains("ringcast_turn_seconds_sum{core=\"0\"} 9.000002501\n"));
    }

    #[test]
    fn seconds_are_written_without_rounding() {
        for (ns, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (1000, "0.000001"),
            (1_500_000_000, "1.5"),
            (2_000_000_000, "2"),
            (u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!(Seconds(ns).to_string(), text);
        }
    }
}
