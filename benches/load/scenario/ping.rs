//! Latency and throughput of pings: in a closed loop, where each answer causes the next call, and at a given rate.

use std::io;
use std::time::Duration;

use super::super::bench::Bench;
use super::super::crowd::Sizes;
use super::super::options::Options;
use super::super::plan::{Pings, Plan, Until};
use super::Scenario;

pub(crate) const IN_FLIGHT: Scenario = Scenario {
    name: "ping",
    about: "each client keeps pings in flight: --clients [100] --in-flight [1] --seconds [10] or --messages N",
    connections,
    run: in_flight,
};

pub(crate) const RATE: Scenario = Scenario {
    name: "rate",
    about: "pings are sent when they are due, even if earlier ones are not answered: --clients [100] --rate [10000] a second \
            --seconds [10]",
    connections,
    run: rate,
};

fn connections(options: &Options) -> u32 {
    options.connections.unwrap_or(100)
}

fn in_flight(bench: &mut Bench) -> io::Result<()> {
    let crew = bench.crew(Sizes {
        plain: connections(&bench.options),
        ..Sizes::default()
    })?;
    bench.open(&crew)?;
    let depth = bench.options.in_flight.unwrap_or(1);
    let plan = Plan {
        pings: Pings::InFlight(depth),
        until: match bench.options.messages {
            Some(count) => Until::Messages(count),
            None => Until::Elapsed(bench.seconds(10.0)),
        },
        ..Plan::default()
    };
    bench.measure(&format!("{depth} in flight"), &crew, &plan, None)?;
    Ok(())
}

fn rate(bench: &mut Bench) -> io::Result<()> {
    let clients = connections(&bench.options);
    let crew = bench.crew(Sizes {
        plain: clients,
        ..Sizes::default()
    })?;
    bench.open(&crew)?;
    let rate = bench.options.rate.unwrap_or(10_000.0);
    let plan = Plan {
        pings: at_rate(rate, clients),
        until: Until::Elapsed(bench.seconds(10.0)),
        ..Plan::default()
    };
    bench.measure(&format!("{rate} pings a second"), &crew, &plan, Some(2.0 * rate))?;
    Ok(())
}

/// Pings by this many clients, at this total rate.
pub(super) fn at_rate(per_second: f64, clients: u32) -> Pings {
    Pings::Every(Duration::from_secs_f64(f64::from(clients) / per_second))
}
