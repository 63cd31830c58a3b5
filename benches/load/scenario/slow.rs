//! Do reading subscribers lose publications, or wait, because other subscribers of their channel do not read?
//!
//! The slow subscribers subscribe and then never read. The server closes them or skips publications for them; the
//! reasons in its control plane show which. The healthy subscribers must receive everything, in order.

use std::io;

use super::super::bench::Bench;
use super::super::crowd::Sizes;
use super::super::options::Options;
use super::super::plan::{Plan, Publishing, Reading, Until};
use super::Scenario;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "slow",
    about: "--slow [10] subscribers that do not read, among --subscribers [100] that do: --in-flight [8] --bytes [1000] \
            --seconds [10]",
    connections: |options| 1 + healthy(options) + slow(options),
    run,
};

fn healthy(options: &Options) -> u32 {
    options.subscribers.unwrap_or(100)
}

fn slow(options: &Options) -> u32 {
    options.slow.unwrap_or(10)
}

fn run(bench: &mut Bench) -> io::Result<()> {
    bench.options.bytes.get_or_insert(1000);
    let healthy = bench.crew(Sizes {
        publishers: 1,
        subscribers: healthy(&bench.options),
        plain: 0,
        channels: 1,
    })?;
    bench.open(&healthy)?;
    let sizes = Sizes {
        subscribers: slow(&bench.options),
        channels: 1,
        ..Sizes::default()
    };
    let slow = bench.crew_of(sizes, 1, Some(RECEIVE_BUFFER_BYTES))?;
    bench.open(&slow)?;
    let deaf = Plan {
        reading: Reading::Never,
        until: Until::Told,
        ..Plan::default()
    };
    let publish = Plan {
        publishing: Some(Publishing {
            in_flight: bench.options.in_flight.unwrap_or(8),
            per_second: bench.options.rate,
            count: None,
        }),
        until: Until::Elapsed(bench.seconds(10.0)),
        ..Plan::default()
    };
    bench.measure_beside("publish", (&slow, &deaf), (&healthy, &publish))?;
    bench.verify(&healthy)?;
    for (reason, count) in bench.server.closes() {
        bench.note(format!("the server closed {count} connections: {reason}"));
    }
    Ok(())
}

/// Small, so that the server's outbox fills soon.
const RECEIVE_BUFFER_BYTES: usize = 4096;
