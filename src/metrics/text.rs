//! Metrics as Prometheus reads them: text format 0.0.4.
//!
//! `METRICS` (of each core, `block`) and `SERVER_METRICS` (`server`) have a row for each metric; `/metrics`, `/stats`
//! and the table of `docs/metrics.md` come from them. All is appended to one `String`, which the caller may keep.
//!
//! Invariants
//! 1. `HELP` and `TYPE` stand once per metric, before its samples, which stand together.
//! 2. A series is a name and labels, and occurs once. Labels come from enums, indexes and the names of hooks in the
//!    configuration, never from clients.
//! 3. Buckets are cumulated, and the last equals the count.

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use super::api::ApiMetrics;
use super::block::{CoreMetrics, Labelled, METRICS, Metric, Values};
use super::counter::Histogram;
use super::hooks::HookSample;
use super::logins::LoginMetrics;
use super::server::{Process, SERVER_METRICS, Server};
use super::services::ServiceMeters;
use super::store::StoreMetrics;
use super::webhooks::WebhookMetrics;

/// The content type of the text that [`expose`] writes, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters of features that a server may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features<'a> {
    /// `None` without a password file.
    pub logins: Option<&'a LoginMetrics>,
    /// `None` without keys of the HTTP API.
    pub api: Option<&'a ApiMetrics>,
    /// `None` without `data_dir`.
    pub store: Option<&'a StoreMetrics>,
    /// The rows of `[[services]]`, and that of all other patterns.
    pub services: &'a [Arc<ServiceMeters>],
    /// `None` without webhooks.
    pub webhooks: Option<&'a WebhookMetrics>,
    /// Each of `[[hooks]]`.
    pub hooks: &'a [HookSample<'a>],
}

/// Appends everything to `out`.
pub fn expose(cores: &[&CoreMetrics], process: Process, features: Features<'_>, out: &mut String) {
    let Features {
        logins,
        api,
        store,
        services,
        webhooks,
        hooks,
    } = features;
    let server = Server {
        core_count: cores.len(),
        process,
        logins,
        api,
        store,
        services,
        webhooks,
        hooks,
    };
    for metric in SERVER_METRICS {
        (metric.write)(
            &server,
            &mut Samples::new(out, metric.name, metric.kind, metric.help),
        );
    }
    for metric in METRICS {
        let mut samples = Samples::new(out, metric.name, metric.kind(), metric.help);
        for (core, block) in cores.iter().enumerate() {
            samples.core = Some(core);
            metric.write(block, &mut samples);
        }
    }
}

/// The table of metrics in Markdown, as `docs/metrics.md` has it.
pub fn markdown() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    let mut row = |name: &str, kind: &str, labels: &str, help: &str| {
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    };
    for metric in SERVER_METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        row(metric.name, metric.kind, &labels, metric.help);
    }
    for metric in METRICS {
        let labels = match metric.values {
            Values::Counters(Labelled { label, .. }) | Values::Gauges(Labelled { label, .. }) => {
                format!("`core`, `{label}`")
            }
            Values::Counter(_) | Values::Gauge(_) | Values::Histogram(_) => "`core`".to_owned(),
        };
        row(metric.name, metric.kind(), &labels, metric.help);
    }
    table
}

impl Metric {
    /// The type in the sense of the format.
    pub fn kind(&self) -> &'static str {
        match self.values {
            Values::Counter(_) | Values::Counters(_) => "counter",
            Values::Gauge(_) | Values::Gauges(_) => "gauge",
            Values::Histogram(_) => "histogram",
        }
    }

    /// Writes the samples of one core.
    fn write(&self, block: &CoreMetrics, samples: &mut Samples<'_>) {
        match self.values {
            Values::Counter(counter) | Values::Gauge(counter) => samples.value(counter(block).value()),
            Values::Counters(values) | Values::Gauges(values) => {
                for (value, counter) in values.labels.iter().zip((values.counters)(block)) {
                    samples.labelled(values.label, value, counter.value());
                }
            }
            Values::Histogram(histogram) => samples.histogram(histogram(block)),
        }
    }
}

/// Writes the samples of one metric, and its head before the first of them.
pub(super) struct Samples<'a> {
    out: &'a mut String,
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The core of the next samples; `None` for samples of the whole server.
    core: Option<usize>,
    has_head: bool,
}

impl<'a> Samples<'a> {
    fn new(out: &'a mut String, name: &'static str, kind: &'static str, help: &'static str) -> Samples<'a> {
        Samples {
            out,
            name,
            kind,
            help,
            core: None,
            has_head: false,
        }
    }

    /// A sample without a label of its own.
    pub(super) fn value(&mut self, value: impl Display) {
        self.sample("", &[], value);
    }

    /// The same, if there is a value.
    pub(super) fn optional(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.value(value);
        }
    }

    /// A sample with a label.
    pub(super) fn labelled(&mut self, label: &str, label_value: &str, value: impl Display) {
        self.sample("", &[(label, &label_value)], value);
    }

    /// A sample with two labels.
    pub(super) fn labelled_twice(&mut self, labels: [(&str, &str); 2], value: impl Display) {
        let [one, other] = labels;
        self.sample("", &[(one.0, &one.1), (other.0, &other.1)], value);
    }

    /// The samples of a histogram.
    pub(super) fn histogram(&mut self, histogram: &Histogram) {
        self.buckets(None, histogram.counts(), histogram.sum_ns());
    }

    /// The samples of the sum of some histograms, with a label.
    pub(super) fn histogram_of<'h>(
        &mut self,
        label: (&str, &str),
        histograms: impl Iterator<Item = &'h Histogram>,
    ) {
        let (mut counts, mut sum_ns) = ([0_u64; Histogram::BUCKETS], 0_u64);
        for histogram in histograms {
            sum_ns = sum_ns.wrapping_add(histogram.sum_ns());
            for (sum, count) in counts.iter_mut().zip(histogram.counts()) {
                *sum = sum.wrapping_add(count);
            }
        }
        self.buckets(Some(label), counts, sum_ns);
    }

    fn buckets(&mut self, label: Option<(&str, &str)>, counts: [u64; Histogram::BUCKETS], sum_ns: u64) {
        let label = label.as_ref().map(|(name, value)| (*name, value as &dyn Display));
        let labels: Vec<_> = label.into_iter().collect();
        let mut count: u64 = 0;
        for (bucket, added) in counts.into_iter().enumerate() {
            count = count.wrapping_add(added);
            let bound = Histogram::upper_bound_ns(bucket).map(Seconds);
            let bound: &dyn Display = match &bound {
                Some(bound) => bound,
                None => &"+Inf",
            };
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
            self.sample("_bucket", &labels, count);
        }
        self.sample("_sum", &labels, Seconds(sum_ns));
        self.sample("_count", &labels, count);
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let name = self.name;
        if !self.has_head {
            self.has_head = true;
            let (kind, help) = (self.kind, self.help);
            self.line(format_args!("# HELP {name} {help}"));
            self.line(format_args!("# TYPE {name} {kind}"));
        }
        self.part(format_args!("{name}{suffix}"));
        let core = self.core;
        let core: Option<(&str, &dyn Display)> = core.as_ref().map(|core| ("core", core as &dyn Display));
        for (index, (label, of)) in core.iter().chain(labels).enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.part(format_args!("{before}{label}=\"{of}\""));
        }
        let end = if core.is_some() || !labels.is_empty() {
            "}"
        } else {
            ""
        };
        self.line(format_args!("{end} {value}"));
    }

    fn part(&mut self, part: fmt::Arguments<'_>) {
        self.out.write_fmt(part).expect("a String takes any text");
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.part(line);
        self.out.push('\n');
    }
}

/// Nanoseconds, written as seconds without rounding.
pub(super) struct Seconds(pub(super) u64);

impl Seconds {
    pub(super) const fn from_ms(ms: u64) -> Seconds {
        Seconds(ms.saturating_mul(1_000_000))
    }
}

impl Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::channels::PolicyPart;
    use crate::metrics::hooks::HookMetrics;
    use crate::metrics::outside::OutsideCounts;
    use crate::metrics::process::ProcessStatus;
    use crate::metrics::server::FetchedKeys;
    use std::collections::{HashMap, HashSet};

    fn process() -> Process {
        Process {
            start_unix_ms: 1_700_000_000_250,
            allocator_bytes: Some(5_000_000),
            draining: true,
            core_stuck_ms: 1500,
            drain_closes_per_1000_seconds: 12_500,
            revocations: 1,
            revocations_refused: 0,
            channel_policies: [0; PolicyPart::COUNT],
            admin_connections_ended: 0,
            log_lines_dropped: 0,
            keys: Some(FetchedKeys {
                fetches: 3,
                failures: 1,
                keys: 2,
            }),
            keys_left_out: Some(1),
            tls_not_after_unix_s: Some(1_800_000_000),
            outside: OutsideCounts::default(),
            status: ProcessStatus::read(),
        }
    }

    fn text(cores: &[&CoreMetrics]) -> String {
        let mut out = String::new();
        let (logins, api) = (LoginMetrics::default(), ApiMetrics::default());
        let store = StoreMetrics::default();
        expose(
            cores,
            process(),
            Features {
                logins: Some(&logins),
                api: Some(&api),
                store: Some(&store),
                services: &[],
                webhooks: Some(&WebhookMetrics::default()),
                hooks: &[HookSample {
                    name: "rooms",
                    metrics: &HookMetrics::default(),
                    open: 1,
                }],
            },
            &mut out,
        );
        out
    }

    /// Gives each counter of each row a number of its own, and says which comes next.
    fn numbered(block: &CoreMetrics) -> u64 {
        let mut next = FIRST;
        for metric in METRICS {
            match metric.values {
                Values::Counter(counter) | Values::Gauge(counter) => {
                    counter(block).set(next);
                    next += 1;
                }
                Values::Counters(values) | Values::Gauges(values) => {
                    for counter in (values.counters)(block) {
                        counter.set(next);
                        next += 1;
                    }
                }
                Values::Histogram(histogram) => {
                    histogram(block).record_many_ns(3000, next);
                    next += 1;
                }
            }
        }
        next
    }

    const FIRST: u64 = 7_000_001;

    #[test]
    fn every_counter_is_exposed_once() {
        let block = CoreMetrics::default();
        let end = numbered(&block);
        let text = text(&[&block]);
        let mut counts: Vec<u64> = text
            .lines()
            .filter(|line| !line.contains("_bucket"))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .filter(|value| (FIRST..end).contains(value))
            .collect();
        counts.sort_unstable();
        assert_eq!(counts, (FIRST..end).collect::<Vec<_>>());
    }

    #[test]
    fn a_metric_without_a_value_is_left_out() {
        let mut out = String::new();
        let process = Process {
            keys: None,
            ..process()
        };
        expose(&[], process, Features::default(), &mut out);
        assert!(
            !out.contains("jwks_fetches") && !out.contains("ringcast_login"),
            "{out}"
        );
        assert!(out.contains("ringcast_jwks_keys_left_out 1\n"));
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
        assert!(text.contains("ringcast_hook_open{hook=\"rooms\"} 1\n"));
        assert!(text.contains("ringcast_hook_seconds_bucket{hook=\"rooms\",le=\"+Inf\"} 0\n"));
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
