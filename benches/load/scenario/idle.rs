//! How much do idle connections cost, and does a publication reach each of them?
//!
//! All connections answer heartbeats, and ping now and then. With channels, each connection subscribes to one of them;
//! in the middle of the run there is one publication on each channel, so every connection must receive exactly one.

use std::io;
use std::time::Duration;

use super::super::bench::Bench;
use super::super::crowd::Sizes;
use super::super::options::Options;
use super::super::plan::{Pings, Plan, Publishing, Until};
use super::Scenario;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "idle",
    about: "idle connections, one publication to all: --connections [10000] --channels [1] --ping-every [6] \
            --seconds [30]",
    connections,
    run,
};

fn connections(options: &Options) -> u32 {
    options.connections.unwrap_or(10_000) + 1
}

fn run(bench: &mut Bench) -> io::Result<()> {
    let count = bench.options.connections.unwrap_or(10_000);
    let channels = bench.options.channels.unwrap_or(1);
    let crew = bench.crew(if channels == 0 {
        Sizes {
            plain: count,
            ..Sizes::default()
        }
    } else {
        Sizes {
            publishers: 1,
            subscribers: count,
            plain: 0,
            channels,
        }
    })?;
    bench.open(&crew)?;
    let every = Duration::from_secs_f64(bench.options.ping_every.unwrap_or(6.0));
    let hold = Plan {
        pings: Pings::Every(every),
        until: Until::Elapsed(bench.seconds(30.0) / 2),
        ..Plan::default()
    };
    bench.measure("hold", &crew, &hold, None)?;
    bench.measure_memory();
    if channels > 0 {
        let publish = Plan {
            publishing: Some(Publishing {
                in_flight: 1,
                per_second: None,
                count: Some(channels.into()),
            }),
            until: Until::Done,
            ..hold.clone()
        };
        bench.measure("publish", &crew, &publish, None)?;
        // Check the counts of the subscribers themselves: a thread without publishers may have ended the phase before
        // its deliveries arrived, and counts them in the next phase.
        bench.verify(&crew)?;
    }
    bench.measure("hold on", &crew, &hold, None)?;
    Ok(())
}
