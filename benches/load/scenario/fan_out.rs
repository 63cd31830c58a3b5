//! How much does a delivery cost, and how long does it take: one publisher, many publishers, many channels?

use std::io;

use super::super::bench::Bench;
use super::super::crowd::Sizes;
use super::super::options::Options;
use super::super::plan::{Plan, Publishing, Until};
use super::Scenario;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "fan-out",
    about: "each publisher keeps publications in flight, or publishes --rate a second: --publishers [1] --subscribers [1000] \
            --channels [1] --in-flight [1] --seconds [10]",
    connections: |options| sizes(options).clients(),
    run,
};

fn sizes(options: &Options) -> Sizes {
    Sizes {
        publishers: options.publishers.unwrap_or(1),
        subscribers: options.subscribers.unwrap_or(1000),
        plain: 0,
        channels: options.channels.unwrap_or(1).max(1),
    }
}

fn run(bench: &mut Bench) -> io::Result<()> {
    let sizes = sizes(&bench.options);
    if sizes.subscribers < sizes.channels {
        return Err(io::Error::other(
            "every channel needs a subscriber: --subscribers is below --channels",
        ));
    }
    let crew = bench.crew(sizes)?;
    bench.open(&crew)?;
    let in_flight = bench.options.in_flight.unwrap_or(1);
    let plan = Plan {
        publishing: Some(Publishing {
            in_flight: bench.options.rate.map_or(in_flight, |_| IN_FLIGHT_AT_RATE),
            per_second: bench.options.rate,
            count: None,
        }),
        until: match bench.options.messages {
            Some(count) => Until::Messages(count),
            None => Until::Elapsed(bench.seconds(10.0)),
        },
        ..Plan::default()
    };
    let name = format!(
        "{} to {} on {} channels, {in_flight} in flight",
        sizes.publishers, sizes.subscribers, sizes.channels
    );
    bench.measure(&name, &crew, &plan, None)?;
    bench.verify(&crew)
}

/// In an open loop, publishers do not wait for deliveries until this many publications are on their way; then the
/// server determines the rate.
const IN_FLIGHT_AT_RATE: u32 = 10_000;
