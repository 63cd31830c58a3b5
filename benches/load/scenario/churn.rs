//! How much does it cost the server if a client connects, completes the handshake, and closes?

use std::io;

use super::super::bench::Bench;
use super::super::crowd::Sizes;
use super::super::options::Options;
use super::super::plan::{Opening, Plan, Then, Until};
use super::Scenario;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "churn",
    about: "connect, handshake, close, by --connections [100] at a time, as fast as possible or --rate a second: \
            --seconds [10]",
    connections,
    run,
};

fn connections(options: &Options) -> u32 {
    options.connections.unwrap_or(100)
}

fn run(bench: &mut Bench) -> io::Result<()> {
    let at_a_time = connections(&bench.options);
    let crew = bench.crew(Sizes {
        plain: at_a_time,
        ..Sizes::default()
    })?;
    let plan = Plan {
        opening: Some(Opening {
            per_second: bench.options.rate,
            pending_max: at_a_time,
            then: Then::Close,
        }),
        until: Until::Elapsed(bench.seconds(10.0)),
        ..Plan::default()
    };
    let phase = bench.measure("churn", &crew, &plan, None)?;
    let text = format!(
        "{:.0} connections a second came and went",
        phase.counts.closed as f64 / phase.seconds
    );
    bench.note(text);
    Ok(())
}
