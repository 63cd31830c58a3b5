//! Balance between the cores of the server: connections, messages and deliveries of each, by the server's own counters.

use super::super::chart::{Axis, Bar, BarChart, Chart, Colour, Group, Rule, Unit};
use super::super::page::Figure;
use super::super::result::{CoreShare, Run};

/// Bars of connections and of messages; none if the server has one core or no counters.
pub(super) fn figures(run: &Run, name: &str) -> Vec<Figure> {
    if run.cores.len() < 2 {
        return Vec::new();
    }
    let connections = |core: &CoreShare| core.connections as f64;
    let messages = |core: &CoreShare| (core.messages_received + core.deliveries) as f64;
    let mut figures = Vec::new();
    figures.extend(figure(
        run,
        "Connections of each core",
        &format!("{name}-cores-connections"),
        connections,
    ));
    figures.extend(figure(
        run,
        "Messages and deliveries of each core",
        &format!("{name}-cores-messages"),
        messages,
    ));
    figures
}

fn figure(run: &Run, title: &str, name: &str, of: impl Fn(&CoreShare) -> f64) -> Option<Figure> {
    let values: Vec<f64> = run.cores.iter().map(of).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    if mean <= 0.0 {
        return None;
    }
    let most = values.iter().copied().fold(0.0, f64::max);
    let bars = run.cores.iter().zip(&values).map(|(core, value)| Bar {
        label: format!("core {}", core.core),
        value: *value,
        interval: None,
        colour: Colour::Hue(0),
        target: None,
    });
    let chart = BarChart {
        axis: Axis::linear("at the end of the run", Unit::Count),
        groups: vec![Group {
            title: String::new(),
            bars: bars.collect(),
        }],
        rule: Some(Rule {
            value: mean,
            label: "mean".to_owned(),
        }),
        most: None,
    };
    Some(Figure {
        name: name.to_owned(),
        title: title.to_owned(),
        caption: format!(
            "The busiest has {} times the mean of {}.",
            Unit::Count.value(most / mean),
            Unit::Count.value(mean)
        ),
        chart: Chart::Bars(chart),
        wide: false,
    })
}
