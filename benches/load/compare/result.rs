//! The results of a comparison as typed values, which are printed as a table, written as JSON and drawn in the report.
//!
//! A cost is CPU time of the server (all its processes, and deferred network work of the kernel on its CPU) per
//! message, delivery or connection; memory is proportional set size. Smaller is better, so a ratio below 1 favours
//! Ringcast.

use serde::{Deserialize, Serialize};

use super::super::result::{Faults, Machine};

/// One run of several servers side by side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// The command that repeats the comparison.
    pub(crate) command: String,
    pub(crate) started_unix_ms: u64,
    pub(crate) seconds: f64,
    pub(crate) machine: Machine,
    /// The CPU of all servers.
    pub(crate) server_cpu: usize,
    pub(crate) generator_cpu: usize,
    /// How often each server was driven for each measure.
    pub(crate) rounds: usize,
    /// The length of a slice, and of the part at its start that does not count.
    pub(crate) slice_ms: u64,
    pub(crate) warm_up_ms: u64,
    /// The servers in the order of the tables; Ringcast is the first.
    pub(crate) servers: Vec<Contender>,
    pub(crate) measures: Vec<Measure>,
    /// Errors of servers. If there is one, the run has failed.
    pub(crate) faults: Faults,
    /// Notes that explain the figures.
    pub(crate) notes: Vec<String>,
}

/// A server that was driven.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Contender {
    /// The name in [`Outcome`] and [`Ratio`].
    pub(crate) name: String,
    /// The name for readers: `Bun`.
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) processes: usize,
}

/// One measure, with all servers that support it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// The key: `ping-16`.
    pub(crate) name: String,
    /// The name for readers: `100 clients, 16 in flight`.
    pub(crate) title: String,
    pub(crate) unit: Unit,
    /// In the order of [`Comparison::servers`], without servers that do not support the measure.
    pub(crate) outcomes: Vec<Outcome>,
    /// Ringcast's cost divided by that of each other server.
    pub(crate) ratios: Vec<Ratio>,
    /// The targets of Ringcast.
    pub(crate) targets: Vec<Target>,
}

/// The unit of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    MicrosecondsPerMessage,
    MicrosecondsPerDelivery,
    MicrosecondsPerConnection,
    BytesPerConnection,
}

/// The result of one server in one measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) server: String,
    pub(crate) cost: Spread,
    /// The cost of each round, in order. Costs of the same index were measured in the same round.
    pub(crate) rounds: Vec<f64>,
    /// Messages, deliveries or connections a second while it was driven; `None` for memory.
    pub(crate) per_second: Option<Spread>,
    /// The part of the cost that the kernel's `ksoftirqd` used.
    pub(crate) deferred_share: Option<f64>,
    /// How busy the generator's CPU was during the slices. If this is near 1 and the server is not busy, the rate is
    /// the generator's limit.
    pub(crate) generator_share: Option<f64>,
    /// How busy the server's CPU was.
    pub(crate) server_share: Option<f64>,
    /// System calls per message or delivery by name, most frequent first; empty if they were not counted.
    pub(crate) system_calls: Vec<(String, f64)>,
}

/// A median, and the interval that contains it in 95 of 100 resamplings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Ringcast's cost divided by another server's, within each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// The other server.
    pub(crate) to: String,
    pub(crate) ratio: Spread,
}

/// A bound on a ratio.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The other server.
    pub(crate) to: Option<String>,
    /// The limit: for Ringcast's cost divided by the other server's, or without another server, for the cost itself.
    pub(crate) at_most: f64,
    /// The text for readers: `≤ 1.07 × echo`.
    pub(crate) text: String,
    pub(crate) met: bool,
}
