//! What a comparison found, as typed values: printed as a table, written as JSON, drawn by the report.
//!
//! Costs are server CPU (all its processes and the kernel's deferred network work on its CPU) per thing done; memory
//! is proportional set size. Smaller is better throughout, so a ratio below 1 is in favour of Ringcast.

use serde::{Deserialize, Serialize};

use super::super::result::{Faults, Machine};

/// One run of several servers side by side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// To repeat it.
    pub(crate) command: String,
    pub(crate) started_unix_ms: u64,
    pub(crate) seconds: f64,
    pub(crate) machine: Machine,
    /// The CPU of all servers, and that of the generator.
    pub(crate) server_cpu: usize,
    pub(crate) generator_cpu: usize,
    /// How often each server was driven for each measure.
    pub(crate) rounds: usize,
    /// How long each time, and how much of it at the start is not counted.
    pub(crate) slice_ms: u64,
    pub(crate) warm_up_ms: u64,
    /// In the order of the tables; Ringcast is the first.
    pub(crate) servers: Vec<Contender>,
    pub(crate) measures: Vec<Measure>,
    /// What came other than it should have; the run has failed if there are any.
    pub(crate) faults: Faults,
    /// What a reader should know beside the figures.
    pub(crate) notes: Vec<String>,
}

/// A server that was driven.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Contender {
    /// The key in [`Outcome`] and [`Ratio`].
    pub(crate) name: String,
    /// For people: `Bun`.
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) processes: usize,
}

/// One thing measured with all servers that can do it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// The key: `ping-16`.
    pub(crate) name: String,
    /// For people: `100 clients, 16 in flight`.
    pub(crate) title: String,
    pub(crate) unit: Unit,
    /// In the order of [`Comparison::servers`]; a server that cannot do it is absent.
    pub(crate) outcomes: Vec<Outcome>,
    /// Ringcast's cost over that of each other server.
    pub(crate) ratios: Vec<Ratio>,
    /// What Ringcast is meant to reach.
    pub(crate) targets: Vec<Target>,
}

/// What a cost is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    MicrosecondsPerMessage,
    MicrosecondsPerDelivery,
    MicrosecondsPerConnection,
    BytesPerConnection,
}

/// What one server made of one measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) server: String,
    pub(crate) cost: Spread,
    /// The cost of each round, in order; those of the same index are neighbours in time.
    pub(crate) rounds: Vec<f64>,
    /// Messages, deliveries or connections a second while it was driven; `None` for memory.
    pub(crate) per_second: Option<Spread>,
    /// Share of the cost that the kernel did for it in `ksoftirqd`.
    pub(crate) deferred_share: Option<f64>,
    /// Share of the slices in which the generator's CPU was busy with driving: near 1 with a server that is not, the
    /// rate is the generator's limit.
    pub(crate) generator_share: Option<f64>,
    /// The server's share of its CPU.
    pub(crate) server_share: Option<f64>,
    /// System calls per message or delivery by name, most frequent first; empty where they were not counted.
    pub(crate) system_calls: Vec<(String, f64)>,
}

/// A median, and the interval that holds it in 95 of 100 resamplings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Ringcast's cost over another server's, of the same round.
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
    /// Most that Ringcast's cost may be of the other's, or in the measure's unit where there is no other.
    pub(crate) at_most: f64,
    /// For people: `≤ 1.07 × echo`.
    pub(crate) text: String,
    pub(crate) met: bool,
}
