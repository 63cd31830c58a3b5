//! Memory against connections, with a line through the points, whose slope is the memory of a connection.

use super::super::chart::{Axis, Chart, Colour, LineChart, Panel, Point, Series, Stroke, Unit};
use super::super::page::Figure;
use super::super::result::Run;

/// User space and kernel, for the server of the first run that measured its memory.
pub(super) fn figure(runs: &[Run]) -> Option<Figure> {
    let server = &runs.iter().find(|run| !user_points(run).is_empty())?.server.name;
    let of_server = || runs.iter().filter(|run| run.server.name == *server);
    let user: Vec<Point> = of_server().flat_map(user_points).collect();
    let kernel: Vec<Point> = of_server().flat_map(kernel_points).collect();
    let mut panels = vec![panel("user space of the server, PSS", 0, user)?];
    panels.extend(panel(
        "kernel, growth of slab, both ends of each connection",
        1,
        kernel,
    ));
    Some(Figure {
        name: "connections-memory".to_owned(),
        title: "Connections against memory".to_owned(),
        caption: "The slope of the dashed line is what one more connection costs. The kernel's part is the same for \
                  every server, and where the clients run on the same machine it holds their sockets as well."
            .to_owned(),
        chart: Chart::Lines(LineChart {
            x: Axis::linear("connections", Unit::Count),
            panels,
            rules: Vec::new(),
        }),
        wide: false,
    })
}

/// The points and the line through them; none if all points have the same number of connections.
fn panel(title: &str, hue: usize, points: Vec<Point>) -> Option<Panel> {
    let line = Fit::through(&points)?;
    let ends = [0.0, points.iter().map(|point| point.x).fold(0.0, f64::max)];
    let fitted = Series {
        label: format!("{} each", Unit::Bytes.value(line.slope)),
        colour: Colour::Hue(hue),
        stroke: Stroke::Dashed,
        points: ends
            .iter()
            .map(|x| Point::new(*x, (line.at_zero + line.slope * x).max(0.0)))
            .collect(),
    };
    let measured = Series {
        label: String::new(),
        colour: Colour::Hue(hue),
        stroke: Stroke::Marks,
        points: thinned(points),
    };
    Some(Panel {
        height: 118.0,
        y: Axis::linear(title, Unit::Bytes),
        series: vec![fitted, measured],
        rules: Vec::new(),
    })
}

fn user_points(run: &Run) -> Vec<Point> {
    growing(
        run.series
            .iter()
            .filter_map(|sample| Some((sample.connections, sample.server_pss_bytes?))),
    )
}

fn kernel_points(run: &Run) -> Vec<Point> {
    let samples = || {
        run.series
            .iter()
            .filter_map(|sample| Some((sample.connections, sample.kernel_slab_bytes?)))
    };
    let Some(before) = samples().next() else {
        return Vec::new();
    };
    // The first sample may have connections already; this shifts all points by the same amount.
    let grown = samples().map(|(connections, bytes)| (connections, bytes.saturating_sub(before.1)));
    growing(grown)
}

/// The samples while connections were added. Later samples contain memory that is free but not returned yet.
fn growing(samples: impl Iterator<Item = (u64, u64)>) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for (connections, bytes) in samples {
        let point = Point::new(connections as f64, bytes as f64);
        match points.last_mut() {
            // Of several samples with the same number of connections, keep the last one, after all messages have
            // arrived.
            Some(last) if last.x == point.x => *last = point,
            Some(last) if last.x > point.x => break,
            _ => points.push(point),
        }
    }
    points
}

fn thinned(points: Vec<Point>) -> Vec<Point> {
    let every = points.len().div_ceil(MARKS_MAX).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate();
    kept.filter(|(index, _)| (last - index).is_multiple_of(every))
        .map(|(_, point)| point)
        .collect()
}

/// A straight line by least squares.
struct Fit {
    at_zero: f64,
    slope: f64,
}

impl Fit {
    fn through(points: &[Point]) -> Option<Self> {
        let count = points.len() as f64;
        let mean_x = points.iter().map(|point| point.x).sum::<f64>() / count;
        let mean_y = points.iter().map(|point| point.y).sum::<f64>() / count;
        let spread = points.iter().map(|point| (point.x - mean_x).powi(2)).sum::<f64>();
        let along = points
            .iter()
            .map(|point| (point.x - mean_x) * (point.y - mean_y))
            .sum::<f64>();
        (spread > 0.0).then(|| Self {
            at_zero: mean_y - along / spread * mean_x,
            slope: along / spread,
        })
    }
}

const MARKS_MAX: usize = 40;
