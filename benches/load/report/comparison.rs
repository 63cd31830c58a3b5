//! The page of comparisons between Ringcast and other servers.

use super::chart::units::{number, thousands};
use super::chart::{Axis, Bar, BarChart, Chart, Colour, Group, Rule, Target, Unit};
use super::compared::{Comparison, Contender, Measure, Outcome, Spread, Target as Aim, Unit as Counted};
use super::page::{Figure, Notice, Page, Section, Table, Tile};

/// The page of one comparison.
pub(super) fn page(comparison: &Comparison) -> Page {
    Page {
        title: "Comparison".to_owned(),
        lead: lead(comparison),
        notices: notices(comparison),
        tiles: tiles(comparison),
        sections: sections(comparison),
    }
}

/// The figures, tables and origin of one comparison, for a page with several.
pub(super) fn sections(comparison: &Comparison) -> Vec<Section> {
    let costs = comparison
        .measures
        .iter()
        .filter_map(|measure| cost_figure(comparison, measure));
    vec![
        Section {
            title: "Ringcast against each target".to_owned(),
            lead: "Ringcast's cost as a multiple of the other server's: 1 means equal, less means that Ringcast is cheaper."
                .to_owned(),
            figures: ratio_figure(comparison).into_iter().collect(),
            ..Section::default()
        },
        Section {
            title: "What each server costs".to_owned(),
            figures: costs.collect(),
            tables: vec![cost_table(comparison), call_table(comparison)],
            ..Section::default()
        },
        origin(comparison),
    ]
}

pub(super) fn notices(comparison: &Comparison) -> Vec<Notice> {
    let aims = || comparison.measures.iter().flat_map(|measure| &measure.targets);
    let (met, all) = (aims().filter(|aim| aim.met).count(), aims().count());
    let mut notices = Vec::new();
    if all > 0 {
        notices.push(Notice {
            good: met == all,
            text: format!("{met} of {all} targets are met{}.", missed(comparison)),
        });
    }
    if !comparison.faults.is_empty() {
        notices.push(Notice {
            good: false,
            text: format!(
                "The comparison failed: {} faults, first {}",
                comparison.faults.count,
                comparison.faults.first.join("; ")
            ),
        });
    }
    notices
}

/// A text that names the missed targets.
fn missed(comparison: &Comparison) -> String {
    let measures = comparison.measures.iter();
    let missed = measures.flat_map(|measure| {
        let aims = measure.targets.iter().filter(|aim| !aim.met);
        aims.map(|aim| format!("; not {} {}", measure.title, aim.text))
    });
    missed.collect()
}

fn lead(comparison: &Comparison) -> String {
    let machine = &comparison.machine;
    format!(
        "{} servers on CPU {} and one load generator on CPU {} of {} ({} CPUs, {}, Linux {}), driven in turn for {} ms \
         at a time in {} rounds. Medians; intervals hold the median in 95 of 100 resamplings.",
        comparison.servers.len(),
        comparison.server_cpu,
        comparison.generator_cpu,
        machine.cpu_model,
        machine.cpus,
        Unit::Bytes.value(machine.memory_bytes as f64),
        machine.kernel,
        comparison.slice_ms,
        comparison.rounds
    )
}

/// Ringcast's costs, and their ratio to the first other server that a target names.
pub(super) fn tiles(comparison: &Comparison) -> Vec<Tile> {
    let tiles = comparison.measures.iter().filter_map(|measure| {
        let own = outcome(measure, &comparison.servers.first()?.name)?;
        let aim = measure.targets.iter().find(|aim| aim.to.is_some());
        let ratio = aim.and_then(|aim| Some((aim, ratio(measure, aim.to.as_deref()?)?)));
        Some(Tile {
            label: measure.title.clone(),
            value: unit(measure.unit).value(in_base(measure.unit, own.cost.median)),
            detail: ratio.map_or_else(String::new, |(aim, ratio)| {
                let to = title(comparison, aim.to.as_deref().unwrap_or_default());
                if ratio.median > 0.0 && ratio.median < 0.2 {
                    format!("1/{} of {to}", number(1.0 / ratio.median))
                } else {
                    format!("{}× {to}", number(ratio.median))
                }
            }),
        })
    });
    tiles.collect()
}

/// Each target as a bar with its interval and its mark.
fn ratio_figure(comparison: &Comparison) -> Option<Figure> {
    let groups: Vec<Group> = comparison
        .measures
        .iter()
        .filter_map(|measure| {
            let bars: Vec<Bar> = measure
                .targets
                .iter()
                .filter_map(|aim| {
                    let to = aim.to.as_deref()?;
                    let ratio = ratio(measure, to)?;
                    Some(Bar {
                        label: format!("to {}", title(comparison, to)),
                        value: ratio.median,
                        interval: Some((ratio.low, ratio.high)),
                        colour: Colour::Hue(0),
                        target: Some(Target {
                            most: aim.at_most,
                            met: aim.met,
                        }),
                    })
                })
                .collect();
            (!bars.is_empty()).then(|| Group {
                title: measure.title.clone(),
                bars,
            })
        })
        .collect();
    if groups.is_empty() {
        return None;
    }
    Some(Figure {
        name: "comparison-targets".to_owned(),
        title: "Ringcast's cost divided by that of others".to_owned(),
        caption: "Server CPU or memory per message, delivery or connection, of the same rounds. Whiskers: interval of \
                  the median. Marks: the most that it was to be."
            .to_owned(),
        chart: Chart::Bars(BarChart {
            axis: Axis::linear("Ringcast's cost / the other's", Unit::Times),
            groups,
            rule: Some(Rule { value: 1.0, label: "level".to_owned() }),
            most: None,
        }),
        wide: true,
    })
}

/// The cost of each server in one measure. Ringcast's bar has a colour, the others are grey.
fn cost_figure(comparison: &Comparison, measure: &Measure) -> Option<Figure> {
    let own = &comparison.servers.first()?.name;
    let convert = |cost: f64| in_base(measure.unit, cost);
    let bars: Vec<Bar> = comparison
        .servers
        .iter()
        .filter_map(|server| {
            let outcome = outcome(measure, &server.name)?;
            let is_own = server.name == *own;
            Some(Bar {
                label: server.title.clone(),
                value: convert(outcome.cost.median),
                interval: Some((convert(outcome.cost.low), convert(outcome.cost.high))),
                colour: if is_own { Colour::Hue(0) } else { Colour::Muted },
                target: is_own.then(|| tightest(measure)).flatten(),
            })
        })
        .collect();
    if bars.len() < 2 {
        return None;
    }
    let most = edge(&bars);
    Some(Figure {
        name: format!("comparison-{}", measure.name),
        title: measure.title.clone(),
        caption: caption(measure, most.is_some()),
        chart: Chart::Bars(BarChart {
            axis: Axis::linear(axis_title(measure.unit), unit(measure.unit)),
            groups: vec![Group {
                title: String::new(),
                bars,
            }],
            rule: None,
            most,
        }),
        wide: false,
    })
}

/// The strictest target, in the unit of the measure: a ratio is multiplied by the cost of the other server.
fn tightest(measure: &Measure) -> Option<Target> {
    let absolute = |aim: &Aim| match &aim.to {
        Some(to) => Some(outcome(measure, to)?.cost.median * aim.at_most),
        None => Some(aim.at_most),
    };
    let aims = measure
        .targets
        .iter()
        .filter_map(|aim| Some((absolute(aim)?, aim.met)));
    aims.min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(most, met)| Target {
            most: in_base(measure.unit, most),
            met,
        })
}

/// The length at which bars are broken, a few times Ringcast's; `None` if no bar is longer.
fn edge(bars: &[Bar]) -> Option<f64> {
    let near = 4.0 * bars.first()?.value;
    let largest = |bars: &mut dyn Iterator<Item = &Bar>| {
        bars.flat_map(|bar| [bar.value, bar.interval.map_or(0.0, |interval| interval.1)])
            .fold(0.0, f64::max)
    };
    let kept = largest(&mut bars.iter().filter(|bar| bar.value <= near));
    let all = largest(&mut bars.iter());
    (all > 1.5 * kept).then_some(kept * 1.3)
}

fn caption(measure: &Measure, broken: bool) -> String {
    let aims: Vec<&str> = measure.targets.iter().map(|aim| aim.text.as_str()).collect();
    let mut caption = String::new();
    if !aims.is_empty() {
        caption.push_str(&format!(
            "Targets: {}; the mark shows the strictest. ",
            aims.join(", ")
        ));
    }
    if broken {
        caption.push_str("Broken bars are longer than drawn: see their numbers.");
    }
    caption.trim_end().to_owned()
}

fn cost_table(comparison: &Comparison) -> Table {
    let head = comparison
        .measures
        .iter()
        .map(|measure| format!("{}, {}", measure.title, per(measure.unit)));
    let rows = comparison.servers.iter().map(|server| {
        let cells = comparison
            .measures
            .iter()
            .map(|measure| cost_cell(comparison, measure, server));
        std::iter::once(server.title.clone()).chain(cells).collect()
    });
    Table {
        title: "Cost, and its multiple of Ringcast's cost".to_owned(),
        head: std::iter::once("server".to_owned()).chain(head).collect(),
        rows: rows.collect(),
    }
}

fn cost_cell(comparison: &Comparison, measure: &Measure, server: &Contender) -> String {
    let Some(outcome) = outcome(measure, &server.name) else {
        return "–".to_owned();
    };
    let cost = number(outcome.cost.median);
    match comparison.servers.first() {
        Some(own) if own.name != server.name => match ratio(measure, &server.name) {
            Some(ratio) if ratio.median > 0.0 => format!("{cost} ({}×)", number(1.0 / ratio.median)),
            _ => cost,
        },
        _ => cost,
    }
}

/// The rates of the servers, and their system calls.
fn call_table(comparison: &Comparison) -> Table {
    let mut rows = Vec::new();
    for measure in &comparison.measures {
        for server in &comparison.servers {
            let Some(outcome) = outcome(measure, &server.name) else {
                continue;
            };
            let share =
                |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| Unit::Share.value(share));
            let calls = outcome.system_calls.iter().take(4);
            let calls: Vec<String> = calls
                .map(|(name, count)| format!("{name} {}", number(*count)))
                .collect();
            rows.push(vec![
                format!("{}: {}", measure.title, server.title),
                outcome
                    .per_second
                    .map_or_else(|| "–".to_owned(), |rate| thousands(rate.median)),
                share(outcome.server_share),
                share(outcome.generator_share),
                share(outcome.deferred_share),
                if calls.is_empty() {
                    "–".to_owned()
                } else {
                    calls.join(", ")
                },
            ]);
        }
    }
    Table {
        title: "Rates under load, and system calls per message, delivery or connection".to_owned(),
        head: [
            "",
            "a second",
            "server's share of its CPU",
            "generator's share",
            "cost that ksoftirqd did",
            "calls",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    }
}

fn origin(comparison: &Comparison) -> Section {
    let servers = comparison.servers.iter().map(|server| {
        let processes = if server.processes > 1 {
            format!(", {} processes", server.processes)
        } else {
            String::new()
        };
        format!("{} {}{processes}", server.title, server.version)
    });
    Section {
        title: "To repeat it".to_owned(),
        commands: vec![comparison.command.clone()],
        notes: servers.chain(comparison.notes.iter().cloned()).collect(),
        ..Section::default()
    }
}

fn outcome<'a>(measure: &'a Measure, server: &str) -> Option<&'a Outcome> {
    measure.outcomes.iter().find(|outcome| outcome.server == server)
}

fn ratio(measure: &Measure, to: &str) -> Option<Spread> {
    measure
        .ratios
        .iter()
        .find(|ratio| ratio.to == to)
        .map(|ratio| ratio.ratio)
}

fn title<'a>(comparison: &'a Comparison, name: &'a str) -> &'a str {
    comparison
        .servers
        .iter()
        .find(|server| server.name == name)
        .map_or(name, |server| &server.title)
}

fn unit(counted: Counted) -> Unit {
    match counted {
        Counted::MicrosecondsPerMessage
        | Counted::MicrosecondsPerDelivery
        | Counted::MicrosecondsPerConnection => Unit::Seconds,
        Counted::BytesPerConnection => Unit::Bytes,
    }
}

/// The cost in seconds or bytes.
fn in_base(counted: Counted, cost: f64) -> f64 {
    match counted {
        Counted::MicrosecondsPerMessage
        | Counted::MicrosecondsPerDelivery
        | Counted::MicrosecondsPerConnection => cost / 1e6,
        Counted::BytesPerConnection => cost,
    }
}

fn axis_title(counted: Counted) -> &'static str {
    match counted {
        Counted::MicrosecondsPerMessage => "server CPU per message",
        Counted::MicrosecondsPerDelivery => "server CPU per delivery",
        Counted::MicrosecondsPerConnection => "server CPU per connection",
        Counted::BytesPerConnection => "user space per connection",
    }
}

fn per(counted: Counted) -> &'static str {
    match counted {
        Counted::MicrosecondsPerMessage => "µs per message",
        Counted::MicrosecondsPerDelivery => "µs per delivery",
        Counted::MicrosecondsPerConnection => "µs per connection",
        Counted::BytesPerConnection => "bytes per connection",
    }
}
