//! Latency against throughput, from the phases of all runs that had a given rate.

use super::super::chart::{Axis, Chart, Colour, Kind, LineChart, Panel, Point, Rule, Series, Stroke, Unit};
use super::super::page::Figure;
use super::super::result::{Latency, Limit, Phase, Run};

/// Percentiles against the rate, and the server's CPU use. With one server, each percentile is a line. With several
/// servers, each percentile has a panel with a line for each server.
pub(super) fn figures(runs: &[Run]) -> Vec<Figure> {
    let servers = servers(runs);
    let steps: Vec<Vec<Step<'_>>> = servers.iter().map(|server| steps(runs, server)).collect();
    if steps.iter().all(|steps| steps.len() < 2) {
        return Vec::new();
    }
    let mut figures = vec![Figure {
        name: "throughput-latency".to_owned(),
        title: "Throughput against latency".to_owned(),
        caption: "Time from the moment a message was due to be sent to its answer, so that a server that stalls is \
                  charged for all who wait. Hollow marks: the rate was not held, or the \
                  load generator was the limit."
            .to_owned(),
        chart: Chart::Lines(LineChart {
            x: rate_axis(),
            panels: latency_panels(&servers, &steps),
            rules: most(runs, &servers),
        }),
        wide: false,
    }];
    figures.extend(cpu_figure(&servers, &steps));
    figures
}

/// Gets one percentile of a distribution.
type Percentile = fn(&Latency) -> f64;

/// A phase with its given rate.
struct Step<'a> {
    rate: f64,
    phase: &'a Phase,
    latency: &'a Latency,
}

impl Step<'_> {
    /// True if the rate was not reached, so that the figures belong to another load.
    fn is_open(&self) -> bool {
        self.phase.limit != Limit::Neither || self.phase.messages_per_second < 0.97 * self.rate
    }
}

/// The names of the servers, each once, in the order of their runs.
pub(super) fn servers(runs: &[Run]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        if !names.contains(&run.server.name.as_str()) {
            names.push(&run.server.name);
        }
    }
    names
}

fn steps<'a>(runs: &'a [Run], server: &str) -> Vec<Step<'a>> {
    let phases = runs
        .iter()
        .filter(|run| run.server.name == server)
        .flat_map(|run| &run.phases);
    let mut steps: Vec<Step<'a>> = phases
        .filter_map(|phase| {
            Some(Step {
                rate: phase.offered_per_second?,
                phase,
                latency: phase.latency.as_ref().or(phase.delivery.as_ref())?,
            })
        })
        .collect();
    steps.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    steps
}

fn rate_axis() -> Axis {
    Axis::linear("offered", Unit::PerSecond("messages"))
}

fn latency_panels(servers: &[&str], steps: &[Vec<Step<'_>>]) -> Vec<Panel> {
    let percentiles: [(&str, Percentile); 3] = [
        ("p50", |latency| latency.p50_us),
        ("p99", |latency| latency.p99_us),
        ("p99.9", |latency| latency.p999_us),
    ];
    let series = |label: &str, colour: Colour, steps: &[Step<'_>], of: Percentile| Series {
        label: label.to_owned(),
        colour,
        stroke: Stroke::Marked,
        points: steps
            .iter()
            .map(|step| Point {
                x: step.rate,
                y: of(step.latency) / 1e6,
                open: step.is_open(),
            })
            .collect(),
    };
    let panel = |title: String, height: f64, series: Vec<Series>| Panel {
        height,
        y: Axis::linear(&title, Unit::Seconds).with(Kind::Log),
        series,
        rules: Vec::new(),
    };
    if let [steps] = steps {
        let lines = percentiles.iter().enumerate();
        let lines = lines.map(|(index, (label, of))| series(label, Colour::Step(index), steps, *of));
        return vec![panel("latency".to_owned(), 260.0, lines.collect())];
    }
    let panels = percentiles.iter().map(|(label, of)| {
        let lines = servers.iter().zip(steps).enumerate();
        let lines = lines.map(|(index, (server, steps))| series(server, Colour::Hue(index), steps, *of));
        panel(format!("latency, {label}"), 130.0, lines.collect())
    });
    panels.collect()
}

/// The maximum that a server reached without a given rate, if there is only one server.
fn most(runs: &[Run], servers: &[&str]) -> Vec<Rule> {
    let swept = |run: &&Run| run.phases.iter().any(|phase| phase.offered_per_second.is_some());
    let phases = runs.iter().filter(swept).flat_map(|run| &run.phases);
    let free = phases.filter(|phase| phase.offered_per_second.is_none() && phase.counts.replies > 0);
    let most = free.map(|phase| phase.messages_per_second).fold(0.0, f64::max);
    if most > 0.0 && servers.len() == 1 {
        vec![Rule {
            value: most,
            label: format!("the most: {}/s", Unit::Count.value(most)),
        }]
    } else {
        Vec::new()
    }
}

fn cpu_figure(servers: &[&str], steps: &[Vec<Step<'_>>]) -> Option<Figure> {
    let mut series = Vec::new();
    for (index, (server, steps)) in servers.iter().zip(steps).enumerate() {
        let points: Vec<Point> = steps
            .iter()
            .filter_map(|step| {
                Some(Point {
                    x: step.rate,
                    y: step.phase.server.as_ref()?.cpu,
                    open: step.is_open(),
                })
            })
            .collect();
        if points.len() > 1 {
            series.push(Series {
                label: (*server).to_owned(),
                colour: Colour::Hue(index),
                stroke: Stroke::Marked,
                points,
            });
        }
    }
    if series.is_empty() {
        return None;
    }
    let panels = vec![Panel {
        height: if servers.len() == 1 { 260.0 } else { 464.0 }, // as high as the figure beside it
        y: Axis::linear("CPUs of the server that are busy", Unit::Cpus),
        series,
        rules: Vec::new(),
    }];
    Some(Figure {
        name: "throughput-cpu".to_owned(),
        title: "Throughput against CPU".to_owned(),
        caption:
            "User and system time of the server's process. Where the line bends down, messages that arrive \
                  together are read and answered together."
                .to_owned(),
        chart: Chart::Lines(LineChart {
            x: rate_axis(),
            panels,
            rules: Vec::new(),
        }),
        wide: false,
    })
}
