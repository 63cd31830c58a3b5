//! How much does a message, a delivery and a connection cost, compared with other servers in the same run?
//!
//! All servers run at the same time on one CPU, each with its own connections. This thread, on another CPU, drives them
//! in turn, each for a slice of some 50 ms, in a different order in each round. The cost of a slice is the CPU time of
//! the server's processes, and of the kernel's network thread on their CPU. A machine may change its speed from second
//! to second, but then the slices of one round change alike. So the results are ratios within a round: their median,
//! with an interval.
//!
//! ```text
//!   mod (options, rounds) ─┬─► contender (starts, weighs)     ─► statistics ─► result ─► table, JSON, report
//!                          ├─► drive ─► link ─► wire
//!                          └─► calls (strace)
//! ```

mod calls;
mod contender;
pub(crate) mod drive;
pub(crate) mod fresh;
pub(crate) mod link;
pub(crate) mod measures;
mod options;
pub(crate) mod result;
mod statistics;
mod table;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use contender::{Contender, Kind, RINGCAST, SETTLING};
use drive::{Drive, Length, Slice};
use measures::{Fresh, Measure};
use options::{Asked, Options};
use result::{Comparison, Outcome, Ratio, Target, Unit};
use statistics::{Dice, spread};

use super::clock::{SECOND, now_ns, unix_ms};
use super::machine;
use super::report::Results;
use super::result::Faults;

/// Runs the comparison that the arguments after `compare` ask for. The exit code is not 0 if a server made an error.
pub(crate) fn run(words: impl IntoIterator<Item = OsString>, out: &mut impl Write) -> io::Result<ExitCode> {
    let options = match Options::parse(words) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Help) => {
            out.write_all(options::HELP.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            writeln!(io::stderr(), "compare: {error}")?;
            return Ok(ExitCode::from(EX_USAGE));
        }
    };
    let comparison = compare(&options)?;
    let markdown = table::markdown(&comparison);
    out.write_all(markdown.as_bytes())?;
    if let Some(path) = &options.markdown {
        fs::write(path, &markdown)?;
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&comparison)?)?;
    }
    let failed = !comparison.faults.is_empty();
    Results::from(comparison).write(&options.report)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn compare(options: &Options) -> io::Result<Comparison> {
    let started = now_ns();
    machine::raise_descriptors()?;
    let cpus = machine::allowed_cpus()?;
    let (server_cpu, generator_cpu) = match cpus[..] {
        [first, second, ..] => (first, second),
        [only] => (only, only),
        [] => return Err(io::Error::other("there is no CPU to run on")),
    };
    let described = machine::machine();
    machine::run_on(&[generator_cpu])?;
    let kinds: Vec<Kind> = options
        .protocol
        .kinds()
        .iter()
        .copied()
        .filter(|kind| options.wants_server(kind.name))
        .collect();
    let mut comparison = Comparison {
        command: options.command.clone(),
        started_unix_ms: unix_ms(),
        seconds: 0.0,
        machine: described,
        server_cpu,
        generator_cpu,
        rounds: options.rounds,
        slice_ms: milliseconds(SLICE.whole),
        warm_up_ms: milliseconds(SLICE.warm_up),
        servers: Vec::new(),
        measures: Vec::new(),
        faults: Faults::default(),
        notes: Vec::new(),
    };
    let start = |kind: Kind| Contender::start(kind, &options.peers, server_cpu);
    let servers = kinds
        .iter()
        .map(|kind| start(*kind))
        .collect::<io::Result<Vec<_>>>()?;
    comparison.servers = servers.iter().map(Contender::description).collect();
    let mut dice = Dice::new();
    let (stored, timed): (Vec<&Measure>, Vec<&Measure>) = options
        .protocol
        .measures()
        .iter()
        .filter(|measure| options.wants_measure(measure.name))
        .partition(|measure| measure.fresh.is_some());
    for measure in timed {
        progress(measure.title)?;
        let mut outcomes = time(measure, &servers, options, &mut dice, &mut comparison.faults);
        settle(measure, &mut outcomes, &mut dice, &mut comparison);
    }
    drop(servers);
    for group in stored.chunk_by(|one, other| (one.load, one.speech) == (other.load, other.speech)) {
        progress(group[0].title)?;
        let found = measure_fresh(group, &kinds, options, start, &mut comparison.faults);
        for (measure, mut outcomes) in group.iter().zip(found) {
            settle(measure, &mut outcomes, &mut dice, &mut comparison);
        }
    }
    machine::run_on(&cpus)?;
    notes(&mut comparison);
    comparison.seconds = (now_ns() - started) as f64 / 1e9;
    Ok(comparison)
}

/// The results of one server, round by round.
struct Found {
    server: &'static str,
    slices: Vec<Slice>,
    /// The cost of each round.
    costs: Vec<f64>,
    system_calls: Vec<(String, f64)>,
}

impl Found {
    fn new(server: &'static str) -> Found {
        Found {
            server,
            slices: Vec::new(),
            costs: Vec::new(),
            system_calls: Vec::new(),
        }
    }
}

/// A server under one measure's load.
struct Driven<'a> {
    contender: &'a Contender,
    drive: Drive,
    found: Found,
}

impl Driven<'_> {
    fn slice(&mut self, length: Length) -> Result<(), String> {
        let slice = self.drive.slice(length, || self.contender.clocks())?;
        self.found
            .costs
            .push(slice.cpu_ns as f64 / slice.done.max(1) as f64 / 1000.0);
        self.found.slices.push(slice);
        Ok(())
    }
}

/// Drives all servers in turn. A server that makes an error is left out of this measure.
fn time(
    measure: &Measure,
    servers: &[Contender],
    options: &Options,
    dice: &mut Dice,
    faults: &mut Faults,
) -> Vec<Found> {
    let mut driven = Vec::new();
    for contender in servers.iter().filter(|server| measure.suits(server.kind)) {
        match Drive::open(measure.load, contender.address, measure.dialect(contender.kind)) {
            Ok(drive) => driven.push(Driven {
                contender,
                drive,
                found: Found::new(contender.kind.name),
            }),
            Err(text) => faults.add(|| format!("{}, {}: {text}", contender.kind.title, measure.title)),
        }
    }
    let mut out_of_it = |server: &Driven<'_>, text: String| {
        faults.add(|| format!("{}, {}: {text}", server.contender.kind.title, measure.title));
    };
    driven.retain_mut(|server| match server.drive.rest(SETTLING) {
        Ok(()) => true,
        Err(text) => {
            out_of_it(server, text);
            false
        }
    });
    let mut order: Vec<usize> = (0..driven.len()).collect();
    let mut failed = vec![false; driven.len()];
    let enough = now_ns() + MEASURE_NS_MAX;
    for round in 0..options.rounds {
        if round >= ROUNDS_MIN && now_ns() > enough {
            break;
        }
        dice.shuffle(&mut order);
        for &index in &order {
            if !failed[index]
                && let Err(text) = driven[index].slice(SLICE)
            {
                out_of_it(&driven[index], text);
                failed[index] = true;
            }
        }
    }
    if options.system_calls {
        for (server, failed) in driven.iter_mut().zip(&mut failed).filter(|(_, failed)| !**failed) {
            match calls::count(server.contender, &mut server.drive) {
                Ok(calls) => server.found.system_calls = calls,
                Err(text) => {
                    out_of_it(server, text);
                    *failed = true;
                }
            }
        }
    }
    let kept = driven.into_iter().zip(failed).filter(|(_, failed)| !failed);
    kept.map(|(server, _)| server.found).collect()
}

/// Measures fresh processes, for all measures that need the same work; returns the results of each measure.
fn measure_fresh(
    measures: &[&Measure],
    kinds: &[Kind],
    options: &Options,
    start: impl Fn(Kind) -> io::Result<Contender>,
    faults: &mut Faults,
) -> Vec<Vec<Found>> {
    let work = measures[0];
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| work.suits(*kind)).collect();
    let none = || kinds.iter().map(|kind| Found::new(kind.name)).collect();
    let mut found: Vec<Vec<Found>> = measures.iter().map(|_| none()).collect();
    for _ in 0..options.memory_runs {
        for (index, kind) in kinds.iter().enumerate() {
            let figures = start(*kind)
                .map_err(|error| error.to_string())
                .and_then(|server| fresh::figures(work.load, work.dialect(*kind), &server));
            match figures {
                Ok(figures) => {
                    for (measure, found) in measures.iter().zip(&mut found) {
                        let is_asked = |(fresh, _): &&(Fresh, f64)| Some(*fresh) == measure.fresh;
                        found[index]
                            .costs
                            .extend(figures.iter().find(is_asked).map(|(_, cost)| cost));
                    }
                }
                Err(text) => faults.add(|| format!("{}, {}: {text}", kind.title, work.title)),
            }
        }
    }
    for found in &mut found {
        found.retain(|found| found.costs.len() == options.memory_runs);
    }
    found
}

/// Computes the result of a measure.
fn settle(measure: &Measure, found: &mut Vec<Found>, dice: &mut Dice, comparison: &mut Comparison) {
    found.retain(|found| !found.costs.is_empty());
    let ringcast = found.iter().find(|found| found.server == RINGCAST);
    let ratios = ringcast.into_iter().flat_map(|ringcast| {
        let others = found.iter().filter(|found| found.server != RINGCAST);
        others.map(|other| {
            // The echo keeps no memory for a connection, so there is no ratio to it.
            let pairs = ringcast
                .costs
                .iter()
                .zip(&other.costs)
                .filter(|(_, other)| **other > 0.0);
            (
                other.server,
                pairs.map(|(own, other)| own / other).collect::<Vec<f64>>(),
            )
        })
    });
    let ratios: Vec<Ratio> = ratios
        .filter_map(|(to, values)| {
            Some(Ratio {
                to: to.to_owned(),
                ratio: spread(&values, dice)?,
            })
        })
        .collect();
    let outcomes: Vec<Outcome> = found.iter().filter_map(|found| outcome(found, dice)).collect();
    let own = outcomes.iter().find(|outcome| outcome.server == RINGCAST);
    let targets = measure.bounds.iter().filter_map(|bound| {
        let found = match bound.to {
            Some(to) => ratios.iter().find(|ratio| ratio.to == to)?.ratio,
            None => own?.cost,
        };
        Some(Target {
            to: bound.to.map(str::to_owned),
            at_most: bound.at_most,
            text: bound.text.to_owned(),
            met: found.median <= bound.at_most,
        })
    });
    comparison.measures.push(result::Measure {
        name: measure.name.to_owned(),
        title: measure.title.to_owned(),
        unit: measure.unit,
        targets: targets.collect(),
        outcomes,
        ratios,
    });
}

fn outcome(found: &Found, dice: &mut Dice) -> Option<Outcome> {
    let timed = !found.slices.is_empty();
    let rates: Vec<f64> = found
        .slices
        .iter()
        .map(|slice| slice.done as f64 * 1e9 / slice.elapsed_ns as f64)
        .collect();
    let share = |part: fn(&Slice) -> u64, whole: fn(&Slice) -> u64| {
        let sum = |what: fn(&Slice) -> u64| found.slices.iter().map(what).sum::<u64>() as f64;
        timed.then(|| sum(part) / sum(whole).max(1.0))
    };
    Some(Outcome {
        server: found.server.to_owned(),
        cost: spread(&found.costs, dice)?,
        rounds: found.costs.clone(),
        per_second: spread(&rates, dice),
        deferred_share: share(|slice| slice.deferred_ns, |slice| slice.cpu_ns),
        generator_share: share(|slice| slice.generator_ns, |slice| slice.elapsed_ns),
        server_share: share(|slice| slice.cpu_ns, |slice| slice.elapsed_ns),
        system_calls: found.system_calls.clone(),
    })
}

/// Adds notes that explain the figures.
fn notes(comparison: &mut Comparison) {
    if comparison.server_cpu == comparison.generator_cpu {
        comparison
            .notes
            .push("The machine has one CPU, which servers and generator share.".to_owned());
    }
    for measure in &comparison.measures {
        let rounds = measure.outcomes.iter().map(|outcome| outcome.rounds.len()).min();
        let rounds = rounds.filter(|_| {
            measure
                .outcomes
                .iter()
                .any(|outcome| outcome.per_second.is_some())
        });
        if let Some(rounds) = rounds.filter(|rounds| *rounds < comparison.rounds) {
            comparison.notes.push(format!(
                "{}: {rounds} rounds, because its time was over.",
                measure.title
            ));
        }
    }
    if comparison
        .measures
        .iter()
        .any(|measure| measure.unit == Unit::BytesPerConnection)
    {
        comparison.notes.push(HUGE_PAGES.to_owned());
    }
    let outcomes = comparison.measures.iter().flat_map(|measure| &measure.outcomes);
    let deferred = outcomes
        .filter_map(|outcome| outcome.deferred_share)
        .fold(0.0, f64::max);
    comparison.notes.push(format!(
        "The CPU time of the kernel's network thread (ksoftirqd) on the servers' CPU counts as theirs: at most {:.1} % of a \
         server's cost in a measure.",
        deferred * 100.0
    ));
}

fn progress(title: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{title}")
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const SLICE: Length = Length {
    whole: Duration::from_millis(60),
    warm_up: Duration::from_millis(15),
};
const HUGE_PAGES: &str = "If the kernel gives a server huge pages, its memory grows in steps of 2 MiB, which is 210 \
                          bytes a connection: compare the repeated measurements in the JSON.";
/// Longest time of a measure; it has at least `ROUNDS_MIN` rounds even if they take longer.
const MEASURE_NS_MAX: u64 = 50 * SECOND;
const ROUNDS_MIN: usize = 5;
/// Exit code for a wrong command line (`sysexits.h`).
const EX_USAGE: u8 = 64;
