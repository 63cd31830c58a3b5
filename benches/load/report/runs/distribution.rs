//! Latency distributions: how long the slowest of ten, hundred, thousand… take.

use super::super::chart::{Axis, Chart, Colour, Kind, LineChart, Panel, Point, Series, Stroke, Unit};
use super::super::page::Figure;
use super::super::result::{Latency, Phase, Run};

/// One figure for each kind of latency in the run.
pub(super) fn figures(run: &Run, name: &str) -> Vec<Figure> {
    let kinds: [(&str, &str, Of); 3] = [
        ("ping", "Ping to reply", |phase| phase.latency.as_ref()),
        ("delivery", "Publication to delivery", |phase| {
            phase.delivery.as_ref()
        }),
        ("opening", "Connect to open", |phase| phase.opening.as_ref()),
    ];
    let figures = kinds.iter().filter_map(|(kind, title, of)| {
        let phases = run
            .phases
            .iter()
            .filter_map(|phase| Some((phase.name.as_str(), of(phase)?)));
        let phases: Vec<_> = phases.filter(|(_, latency)| latency.curve.len() > 1).collect();
        figure(&format!("{name}-{kind}"), title, &phases)
    });
    figures.collect()
}

/// Gets the distribution of one kind of latency from a phase.
type Of = fn(&Phase) -> Option<&Latency>;

fn figure(name: &str, title: &str, phases: &[(&str, &Latency)]) -> Option<Figure> {
    let slowest = phases
        .iter()
        .max_by(|one, other| one.1.max_us.total_cmp(&other.1.max_us))?;
    // There are only a few colours, so show the first line, the last line and some between.
    let every = (phases.len() - 1).div_ceil(LINES_MAX - 1).max(1);
    let kept = phases
        .iter()
        .enumerate()
        .filter(|(index, _)| (phases.len() - 1 - index).is_multiple_of(every));
    let series = kept.enumerate().map(|(hue, (_, (phase, latency)))| Series {
        label: if phases.len() == 1 {
            String::new()
        } else {
            (*phase).to_owned()
        },
        colour: Colour::Hue(hue),
        stroke: Stroke::Line,
        points: points(latency),
    });
    let chart = LineChart {
        x: Axis::linear("percentile", Unit::Share).with(Kind::Nines),
        panels: vec![Panel {
            height: 250.0,
            y: Axis::linear("latency", Unit::Seconds).with(Kind::Log),
            series: series.collect(),
            rules: Vec::new(),
        }],
        rules: Vec::new(),
    };
    Some(Figure {
        name: name.to_owned(),
        title: format!("{title}: distribution"),
        caption: format!(
            "Each step to the right is ten times rarer; the slowest of {} took {}.",
            Unit::Count.value(phases.iter().map(|(_, latency)| latency.count as f64).sum()),
            Unit::Seconds.value(slowest.1.max_us / 1e6)
        ),
        chart: Chart::Lines(chart),
        wide: false,
    })
}

/// The curve, which ends at the rarest value: one of `count`.
fn points(latency: &Latency) -> Vec<Point> {
    let rarest = 1.0 - 1.0 / latency.count.max(2) as f64;
    latency
        .curve
        .iter()
        .map(|(share, us)| Point::new(share.min(rarest), us / 1e6))
        .collect()
}

const LINES_MAX: usize = 5;
