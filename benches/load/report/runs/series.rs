//! The run over time: connections, messages, latency, CPU and memory below each other, over one time axis.

use super::super::chart::{Axis, Chart, Colour, Kind, LineChart, Panel, Point, Rule, Series, Stroke, Unit};
use super::super::page::Figure;
use super::super::result::{Run, Sample};

/// The time series; none if there are too few samples.
pub(super) fn figure(run: &Run, name: &str) -> Option<Figure> {
    if run.series.len() < SAMPLES_MIN {
        return None;
    }
    let chart = LineChart {
        x: Axis::linear("time", Unit::Elapsed).with(Kind::Tight),
        panels: panels(run),
        rules: boundaries(run),
    };
    Some(Figure {
        name: format!("{name}-time"),
        title: "The run over time".to_owned(),
        caption: "One point a second. Latency is that of the second's answers, from the moment each message was due."
            .to_owned(),
        chart: Chart::Lines(chart),
        wide: true,
    })
}

fn panels(run: &Run) -> Vec<Panel> {
    let line = |label: &str, colour: Colour, stroke: Stroke, of: &dyn Fn(&Sample) -> Option<f64>| Series {
        label: label.to_owned(),
        colour,
        stroke,
        points: run
            .series
            .iter()
            .map(|sample| Point::new(sample.at, of(sample).unwrap_or(f64::NAN)))
            .collect(),
    };
    let panel = |axis: Axis, series: Vec<Series>| Panel {
        height: 84.0,
        y: axis,
        series,
        rules: Vec::new(),
    };
    let seconds = |us: Option<f64>| us.map(|us| us / 1e6);
    let panels = [
        panel(
            Axis::linear("connections", Unit::Count),
            vec![line("", Colour::Hue(0), Stroke::Area, &|sample| {
                Some(sample.connections as f64)
            })],
        ),
        panel(
            Axis::linear("messages, both ways", Unit::PerSecond("messages")),
            vec![line("", Colour::Hue(0), Stroke::Area, &|sample| {
                Some(sample.messages_per_second)
            })],
        ),
        panel(
            Axis::linear("latency", Unit::Seconds).with(Kind::Log),
            vec![
                line("p50", Colour::Step(0), Stroke::Line, &|sample| {
                    seconds(sample.latency_p50_us)
                }),
                line("p99", Colour::Step(1), Stroke::Line, &|sample| {
                    seconds(sample.latency_p99_us)
                }),
            ],
        ),
        panel(
            Axis::linear("CPUs busy", Unit::Cpus),
            vec![
                line("generator", Colour::Muted, Stroke::Line, &|sample| {
                    Some(sample.generator_cpu)
                }),
                line("server", Colour::Hue(1), Stroke::Line, &|sample| {
                    sample.server_cpu
                }),
            ],
        ),
        panel(
            Axis::linear("user space of the server, PSS", Unit::Bytes),
            vec![line("", Colour::Hue(2), Stroke::Area, &|sample| {
                sample.server_pss_bytes.map(|bytes| bytes as f64)
            })],
        ),
    ];
    panels.into_iter().filter_map(shown).collect()
}

/// The panel without empty lines; none if all lines are empty.
fn shown(mut panel: Panel) -> Option<Panel> {
    panel
        .series
        .retain(|series| series.points.iter().any(|point| point.y.is_finite()));
    (!panel.series.is_empty()).then_some(panel)
}

/// The start of each phase except the first.
fn boundaries(run: &Run) -> Vec<Rule> {
    let pairs = run
        .series
        .windows(2)
        .filter(|pair| pair[0].phase != pair[1].phase);
    let rules = pairs.map(|pair| Rule {
        value: f64::midpoint(pair[0].at, pair[1].at),
        label: run
            .phases
            .get(pair[1].phase)
            .map_or_else(String::new, |phase| phase.name.clone()),
    });
    rules.collect()
}

const SAMPLES_MIN: usize = 4;
