//! The two benchmarks that SocketCluster published about itself, and the maximum beyond them.
//!
//! Throughput: 100 clients, 170,000 JSON messages a second, counted as in that benchmark, in both directions: 85,000
//! pings and as many replies. First in steps up to this rate in an open loop, then in a closed loop as fast as
//! possible. Concurrency: 160 connections a second up to 42,000, each of which pings every 6 seconds.

use std::io;
use std::time::Duration;

use super::super::bench::Bench;
use super::super::crowd::Sizes;
use super::super::plan::{Pings, Plan, Until};
use super::Scenario;
use super::ping::at_rate;

pub(crate) const THROUGHPUT: Scenario = Scenario {
    name: "seed-throughput",
    about: "messages a second, both ways, in steps to --rate [170000], then as many as possible: --clients [100] \
            --in-flight [16] --seconds [5] a step",
    connections: |options| options.connections.unwrap_or(THROUGHPUT_CLIENTS),
    run: throughput,
};

pub(crate) const CONCURRENCY: Scenario = Scenario {
    name: "seed-concurrency",
    about: "a ramp of --rate [160] connections a second to --connections [42000], then --seconds [30]: \
            --ping-every [6]",
    connections: |options| options.connections.unwrap_or(CONCURRENCY_CLIENTS),
    run: concurrency,
};

const THROUGHPUT_CLIENTS: u32 = 100;
const CONCURRENCY_CLIENTS: u32 = 42_000;
const STEPS: u32 = 4;

fn throughput(bench: &mut Bench) -> io::Result<()> {
    let clients = bench.options.connections.unwrap_or(THROUGHPUT_CLIENTS);
    let crew = bench.crew(Sizes {
        plain: clients,
        ..Sizes::default()
    })?;
    bench.open(&crew)?;
    let until = Until::Elapsed(bench.seconds(5.0));
    let most = bench.options.rate.unwrap_or(170_000.0);
    for step in 1..=STEPS {
        let offered = most * f64::from(step) / f64::from(STEPS);
        let plan = Plan {
            pings: at_rate(offered / 2.0, clients),
            until,
            ..Plan::default()
        };
        bench.measure(&format!("{offered:.0} offered"), &crew, &plan, Some(offered))?;
    }
    let plan = Plan {
        pings: Pings::InFlight(bench.options.in_flight.unwrap_or(16)),
        until,
        ..Plan::default()
    };
    bench.measure("the most", &crew, &plan, None)?;
    Ok(())
}

fn concurrency(bench: &mut Bench) -> io::Result<()> {
    let crew = bench.crew(Sizes {
        plain: bench.options.connections.unwrap_or(CONCURRENCY_CLIENTS),
        ..Sizes::default()
    })?;
    let every = Duration::from_secs_f64(bench.options.ping_every.unwrap_or(6.0));
    let ramp = Plan {
        opening: Some(bench.opening(Some(bench.options.rate.unwrap_or(160.0)))),
        pings: Pings::Every(every),
        until: Until::Done,
        ..Plan::default()
    };
    bench.measure("ramp", &crew, &ramp, None)?;
    let hold = Plan {
        opening: None,
        until: Until::Elapsed(bench.seconds(30.0)),
        ..ramp
    };
    bench.measure("hold", &crew, &hold, None)?;
    bench.measure_memory();
    Ok(())
}
