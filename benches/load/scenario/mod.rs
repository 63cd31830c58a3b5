//! The list of scenarios, with their names.

mod beside;
mod churn;
mod fan_out;
mod idle;
mod ping;
mod seed;
mod slow;
mod stored;

use std::io;

use super::bench::Bench;
use super::options::{Options, UsageError};
use super::result::Run;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Its purpose and its options, in one line.
    pub(crate) about: &'static str,
    connections: fn(&Options) -> u32,
    run: fn(&mut Bench) -> io::Result<()>,
}

impl Scenario {
    pub(crate) fn named(name: &str) -> Result<Scenario, UsageError> {
        SCENARIOS
            .iter()
            .find(|scenario| scenario.name == name)
            .copied()
            .ok_or_else(|| UsageError(format!("{name} is not a scenario")))
    }

    /// Runs the scenario, from the start of the server to its end.
    pub(crate) fn run(self, options: Options) -> io::Result<Run> {
        let connections = (self.connections)(&options);
        let mut bench = Bench::start(options, connections)?;
        (self.run)(&mut bench)?;
        Ok(bench.finish(self.name))
    }
}

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] = &[
    seed::THROUGHPUT,
    seed::CONCURRENCY,
    ping::IN_FLIGHT,
    ping::RATE,
    idle::SCENARIO,
    fan_out::SCENARIO,
    churn::SCENARIO,
    beside::STORM,
    beside::FLOOD,
    beside::FAIRNESS,
    slow::SCENARIO,
    stored::RETAINED,
    stored::SESSIONS,
];
