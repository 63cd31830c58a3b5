//! What do other clients notice? A hundred clients ping at a steady rate, first alone, then beside a heavy load: many
//! clients that reconnect at once, one that sends as fast as it can, or a publication to very many subscribers.
//!
//! The steady clients have a thread of their own, which has priority over the generator's other threads if the system
//! allows it: real users would not wait for the generator either. If the server shares their CPU, this thread has
//! priority over the server too, and their latency includes the time for which the server's threads wait for each
//! other. "sent late by" shows how much the generator adds to it.

use std::io;

use super::super::bench::Bench;
use super::super::crew::Crew;
use super::super::crowd::Sizes;
use super::super::options::Options;
use super::super::plan::{Pings, Plan, Publishing, Until};
use super::Scenario;
use super::ping::at_rate;

pub(crate) const STORM: Scenario = Scenario {
    name: "storm",
    about: "--connections [10000] drop and reconnect at once, beside --clients that ping: --rate [1000] --seconds [5] \
            of pings before",
    connections: |options| STEADY + storming(options),
    run: storm,
};

pub(crate) const FLOOD: Scenario = Scenario {
    name: "flood",
    about: "one connection with --in-flight [1000] pings, beside 100 that ping: --rate [1000] --seconds [5] of each",
    connections: |_| STEADY + 1,
    run: flood,
};

pub(crate) const FAIRNESS: Scenario = Scenario {
    name: "fairness",
    about: "publications to --subscribers [10000], beside 100 clients that ping: --rate [1000] --seconds [5] of each",
    connections: |options| STEADY + 1 + subscribers(options),
    run: fairness,
};

const STEADY: u32 = 100;

fn storming(options: &Options) -> u32 {
    options.connections.unwrap_or(10_000)
}

fn subscribers(options: &Options) -> u32 {
    options.subscribers.unwrap_or(10_000)
}

fn storm(bench: &mut Bench) -> io::Result<()> {
    let (steady, plan) = steady(bench)?;
    let storming = bench.crew(Sizes {
        plain: storming(&bench.options),
        ..Sizes::default()
    })?;
    bench.open(&storming)?;
    before(bench, &steady, &plan)?;
    storming.drop_all()?;
    let again = Plan {
        opening: Some(bench.opening(None)),
        ..Plan::default()
    };
    bench.measure_beside("during the storm", (&steady, &plan), (&storming, &again))?;
    bench.note_ratio();
    Ok(())
}

fn flood(bench: &mut Bench) -> io::Result<()> {
    let (steady, plan) = steady(bench)?;
    let flooding = bench.crew(Sizes {
        plain: 1,
        ..Sizes::default()
    })?;
    bench.open(&flooding)?;
    before(bench, &steady, &plan)?;
    let flood = Plan {
        pings: Pings::InFlight(bench.options.in_flight.unwrap_or(1000)),
        until: Until::Elapsed(bench.seconds(5.0)),
        ..Plan::default()
    };
    bench.measure_beside("during the flood", (&steady, &plan), (&flooding, &flood))?;
    bench.note_ratio();
    Ok(())
}

fn fairness(bench: &mut Bench) -> io::Result<()> {
    let (steady, plan) = steady(bench)?;
    let listening = bench.crew(Sizes {
        publishers: 1,
        subscribers: subscribers(&bench.options),
        plain: 0,
        channels: 1,
    })?;
    bench.open(&listening)?;
    before(bench, &steady, &plan)?;
    let publish = Plan {
        publishing: Some(Publishing {
            in_flight: bench.options.in_flight.unwrap_or(1),
            per_second: None,
            count: None,
        }),
        until: Until::Elapsed(bench.seconds(5.0)),
        ..Plan::default()
    };
    bench.measure_beside("during publications", (&steady, &plan), (&listening, &publish))?;
    bench.note_ratio();
    bench.verify(&listening)
}

/// Connects the steady clients; returns them with their plan, which has no end of its own.
fn steady(bench: &mut Bench) -> io::Result<(Crew, Plan)> {
    let sizes = Sizes {
        plain: STEADY,
        ..Sizes::default()
    };
    let crew = bench.crew_of(sizes, 1, None)?;
    bench.open(&crew)?;
    if !crew.run_first()? {
        bench.note(
            "The thread of those that ping may not run before the others (chrt --rr): what it waits for a CPU is in \
             their latency."
                .to_owned(),
        );
    }
    let plan = Plan {
        pings: at_rate(bench.options.rate.unwrap_or(1000.0), STEADY),
        until: Until::Told,
        ..Plan::default()
    };
    Ok((crew, plan))
}

fn before(bench: &mut Bench, steady: &Crew, plan: &Plan) -> io::Result<()> {
    let alone = Plan {
        until: Until::Elapsed(bench.seconds(5.0)),
        ..plan.clone()
    };
    bench.measure("before", steady, &alone, None)?;
    Ok(())
}
