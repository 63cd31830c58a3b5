//! Prints the comparison as Markdown that a README can contain unchanged.

use std::fmt::Write as _;

use super::contender::RINGCAST;
use super::result::{Comparison, Measure, Outcome, Spread, Unit};

/// The whole text: the table, the targets, system calls if they were counted, and notes.
pub(crate) fn markdown(comparison: &Comparison) -> String {
    let mut text = String::new();
    costs(comparison, &mut text);
    targets(comparison, &mut text);
    calls(comparison, &mut text);
    circumstances(comparison, &mut text);
    text
}

fn costs(comparison: &Comparison, text: &mut String) {
    text.push_str("| server CPU or memory |");
    for server in &comparison.servers {
        line(text, format_args!(" {} |", server.title));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(comparison.servers.len()));
    text.push('\n');
    for measure in &comparison.measures {
        line(
            text,
            format_args!("| {}, {} |", measure.title, unit(measure.unit)),
        );
        for server in &comparison.servers {
            let outcome = measure
                .outcomes
                .iter()
                .find(|outcome| outcome.server == server.name);
            let ratio = measure.ratios.iter().find(|ratio| ratio.to == server.name);
            match (outcome, ratio) {
                (Some(outcome), Some(ratio)) => line(
                    text,
                    format_args!(
                        " {} ({}) |",
                        cost(measure.unit, outcome),
                        times(ratio.ratio.median)
                    ),
                ),
                (Some(outcome), None) => line(text, format_args!(" {} |", cost(measure.unit, outcome))),
                (None, _) => text.push_str(" - |"),
            }
        }
        text.push('\n');
    }
    text.push_str("\nIn parentheses: Ringcast's cost divided by the other server's; the median of the ratios of all rounds.\n");
}

fn targets(comparison: &Comparison, text: &mut String) {
    text.push_str(
        "\n| measure | target for Ringcast | measured | 95 % interval | |\n|---|---|---|---|---|\n",
    );
    for measure in &comparison.measures {
        for target in &measure.targets {
            let found = match &target.to {
                Some(to) => measure
                    .ratios
                    .iter()
                    .find(|ratio| ratio.to == *to)
                    .map(|ratio| ratio.ratio),
                None => measure
                    .outcomes
                    .iter()
                    .find(|outcome| outcome.server == RINGCAST)
                    .map(|outcome| outcome.cost),
            };
            let Some(Spread { median, low, high }) = found else {
                continue;
            };
            // A target such as "4 × ahead" is printed as a factor.
            let told = |value: f64| {
                if target.at_most < AHEAD {
                    times(1.0 / value)
                } else {
                    plain(value)
                }
            };
            let (low, high) = if target.at_most < AHEAD {
                (high, low)
            } else {
                (low, high)
            };
            let verdict = if target.met { "met" } else { "**missed**" };
            line(
                text,
                format_args!(
                    "| {} | {} | {} | {} to {} | {verdict} |\n",
                    measure.title,
                    target.text,
                    told(median),
                    told(low),
                    told(high)
                ),
            );
        }
    }
}

fn calls(comparison: &Comparison, text: &mut String) {
    let counted: Vec<&Measure> = comparison
        .measures
        .iter()
        .filter(|measure| {
            measure
                .outcomes
                .iter()
                .any(|outcome| !outcome.system_calls.is_empty())
        })
        .collect();
    if counted.is_empty() {
        return;
    }
    text.push_str("\n| system calls each |");
    for server in &comparison.servers {
        line(text, format_args!(" {} |", server.title));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(comparison.servers.len()));
    text.push('\n');
    for measure in counted {
        line(text, format_args!("| {} |", measure.title));
        for server in &comparison.servers {
            let outcome = measure
                .outcomes
                .iter()
                .find(|outcome| outcome.server == server.name);
            match outcome.filter(|outcome| !outcome.system_calls.is_empty()) {
                Some(outcome) => {
                    let all: f64 = outcome.system_calls.iter().map(|(_, count)| count).sum();
                    line(text, format_args!(" {all:.2} |"));
                }
                None => text.push_str(" - |"),
            }
        }
        text.push('\n');
    }
}

fn circumstances(comparison: &Comparison, text: &mut String) {
    let machine = &comparison.machine;
    line(
        text,
        format_args!(
            "\nMachine: {}, {} CPUs, {:.0} GiB, Linux {}. Servers on CPU {}, generator on CPU {}. {} rounds, slices of \
             {} ms, of which the first {} ms do not count.\n\nServers: ",
            machine.cpu_model,
            machine.cpus,
            machine.memory_bytes as f64 / GIB,
            machine.kernel,
            comparison.server_cpu,
            comparison.generator_cpu,
            comparison.rounds,
            comparison.slice_ms,
            comparison.warm_up_ms
        ),
    );
    let servers = comparison.servers.iter().map(|server| match server.processes {
        1 => format!("{} ({})", server.title, server.version),
        count => format!("{} ({}; {count} processes)", server.title, server.version),
    });
    text.push_str(&servers.collect::<Vec<_>>().join(", "));
    line(text, format_args!(".\n\nCommand: `{}`\n", comparison.command));
    for note in &comparison.notes {
        line(text, format_args!("\n{note}\n"));
    }
    for fault in &comparison.faults.first {
        line(text, format_args!("\nFAULT: {fault}\n"));
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::MicrosecondsPerMessage => "µs a message",
        Unit::MicrosecondsPerDelivery => "µs a delivery",
        Unit::MicrosecondsPerConnection => "µs each",
        Unit::BytesPerConnection => "bytes",
    }
}

fn cost(unit: Unit, outcome: &Outcome) -> String {
    match unit {
        Unit::BytesPerConnection => format!("{:.0}", outcome.cost.median),
        Unit::MicrosecondsPerMessage | Unit::MicrosecondsPerDelivery | Unit::MicrosecondsPerConnection => {
            plain(outcome.cost.median)
        }
    }
}

/// Three significant digits.
fn plain(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn times(ratio: f64) -> String {
    format!("{} ×", plain(ratio))
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes everything");
}

/// Targets below this ratio are printed as a factor by which Ringcast is ahead.
const AHEAD: f64 = 0.3;
const GIB: f64 = (1_u64 << 30) as f64;
