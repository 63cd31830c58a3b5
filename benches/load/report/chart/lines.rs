//! Line charts with a common x axis, in one panel or several below each other.
//!
//! The name of a line is in the right margin, at the height of the line's end or as near to it as other names allow. If
//! it is at another height, a thin dotted line connects the two. So a chart needs no legend.

use super::scale::{Scale, Tick};
use super::svg::{Anchor, Drawing, Svg};
use super::{Axis, Colour, Unit, text};

/// A chart of lines.
#[derive(Debug)]
pub(crate) struct LineChart {
    /// The x axis of all panels.
    pub(crate) x: Axis,
    /// From top to bottom.
    pub(crate) panels: Vec<Panel>,
    /// Lines across all panels.
    pub(crate) rules: Vec<Rule>,
}

/// One plot.
#[derive(Debug)]
pub(crate) struct Panel {
    /// The height of the plot itself.
    pub(crate) height: f64,
    /// The y axis.
    pub(crate) y: Axis,
    /// Its lines; later ones lie above earlier ones.
    pub(crate) series: Vec<Series>,
    /// Lines across it.
    pub(crate) rules: Vec<Rule>,
}

/// One line.
#[derive(Debug)]
pub(crate) struct Series {
    /// The text at its end; may be empty.
    pub(crate) label: String,
    /// Its colour, and the form of its marks.
    pub(crate) colour: Colour,
    /// How it is drawn.
    pub(crate) stroke: Stroke,
    /// In the order of x. A point that is not finite interrupts the line.
    pub(crate) points: Vec<Point>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// A line.
    Line,
    /// A line over a tinted area.
    Area,
    /// A line with a mark at each point.
    Marked,
    /// Marks alone.
    Marks,
    /// A dashed line, for computed values.
    Dashed,
}

/// A point of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Along the shared axis.
    pub(crate) x: f64,
    /// Along the panel's axis.
    pub(crate) y: f64,
    /// Drawn hollow, for a value with a reservation that the caller explains.
    pub(crate) open: bool,
}

impl Point {
    /// A point without reservation.
    pub(crate) fn new(x: f64, y: f64) -> Self {
        Self { x, y, open: false }
    }
}

/// A line across the plot at one value, with a few words.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The value at which the line is.
    pub(crate) value: f64,
    /// The text at the line.
    pub(crate) label: String,
}

impl LineChart {
    /// The drawing, `width` wide.
    pub(crate) fn draw(&self, width: f64) -> Drawing {
        let scales: Vec<Scale> = self.panels.iter().map(Panel::scale).collect();
        let left = scales
            .iter()
            .flat_map(Scale::ticks)
            .map(|tick| text::width(&tick.label, TICK_PX))
            .fold(0.0, f64::max)
            + 10.0;
        let right = self.right_margin(width);
        let plot = (width - left - right).max(60.0);
        let x = Scale::new(self.x.kind, self.x.unit, self.x_values(), plot / 76.0);
        let shared = Shared {
            x,
            unit: self.x.unit,
            left,
            plot,
            right,
        };

        let mut svg = Svg::default();
        let mut top = 0.0;
        for (index, (panel, scale)) in self.panels.iter().zip(&scales).enumerate() {
            top += 23.0 + if index == 0 { self.rules_height() } else { 14.0 };
            panel.draw(&mut svg, scale, &shared, top);
            self.draw_rules(&mut svg, &shared, top, panel.height, index == 0);
            top += panel.height;
        }
        shared.draw_axis(&mut svg, &self.x.title, top);
        Drawing {
            width,
            height: top + 40.0,
            body: svg.body,
        }
    }

    fn x_values(&self) -> impl Iterator<Item = f64> {
        let points = self
            .panels
            .iter()
            .flat_map(|panel| &panel.series)
            .flat_map(|series| &series.points);
        points
            .map(|point| point.x)
            .chain(self.rules.iter().map(|rule| rule.value))
    }

    /// Room for the longest name at the end of a line, and at least for half of the last tick's label.
    fn right_margin(&self, width: f64) -> f64 {
        let longest = self
            .panels
            .iter()
            .flat_map(Panel::end_labels)
            .map(|label| text::width(label, LABEL_PX));
        let longest = longest.fold(0.0, f64::max);
        if longest > 0.0 {
            (longest + LEADER + 4.0).min(width * 0.42)
        } else {
            26.0
        }
    }

    fn rules_height(&self) -> f64 {
        if self.rules.is_empty() { 0.0 } else { 18.0 }
    }

    fn draw_rules(&self, svg: &mut Svg, shared: &Shared, top: f64, height: f64, named: bool) {
        let mut free = f64::NEG_INFINITY;
        for rule in &self.rules {
            let Some(x) = shared.x(rule.value) else { continue };
            svg.line(
                "rule",
                (x, if named { top - 23.0 } else { top }),
                (x, top + height),
            );
            if named {
                let half = text::width(&rule.label, TICK_PX) / 2.0;
                let middle = x.min(shared.width() - half).max(half);
                if middle - half < free {
                    continue;
                }
                free = middle + half + 6.0;
                svg.text("tick", middle, top - 27.0, Anchor::Middle, &rule.label);
            }
        }
    }
}

impl Panel {
    fn scale(&self) -> Scale {
        let values = self
            .series
            .iter()
            .flat_map(|series| &series.points)
            .map(|point| point.y);
        let values = values.chain(self.rules.iter().map(|rule| rule.value));
        Scale::new(self.y.kind, self.y.unit, values, (self.height / 38.0).max(2.0))
    }

    fn end_labels(&self) -> impl Iterator<Item = &str> {
        let series = self.series.iter().map(|series| series.label.as_str());
        series.chain(self.rules.iter().map(|rule| rule.label.as_str()))
    }

    fn draw(&self, svg: &mut Svg, scale: &Scale, shared: &Shared, top: f64) {
        let y = |value: f64| {
            scale
                .position(value)
                .map(|place| top + self.height * (1.0 - place))
        };
        svg.text(
            "axis",
            0.0,
            top - 11.0,
            Anchor::Start,
            &scale.title(&self.y.title),
        );
        let mut labelled = f64::INFINITY;
        for tick in scale.ticks() {
            let Some(y) = y(tick.value) else { continue };
            svg.line("grid", (shared.left, y), (shared.left + shared.plot, y));
            if labelled - y >= TICK_PX * 1.25 {
                svg.text("tick", shared.left - 6.0, y + 4.0, Anchor::End, &tick.label);
                labelled = y;
            }
        }
        let bottom = top + self.height;
        svg.line("base", (shared.left, bottom), (shared.left + shared.plot, bottom));

        let mut ends = Vec::new();
        for series in &self.series {
            svg.group(&series.colour.class(), |svg| {
                series.draw(svg, self, shared, &y, bottom)
            });
            if let Some(end) = series.end(shared, &y) {
                ends.push(End {
                    at: end,
                    label: &series.label,
                    class: series.colour.class(),
                });
            }
        }
        for rule in &self.rules {
            let Some(y) = y(rule.value) else { continue };
            svg.line("rule", (shared.left, y), (shared.left + shared.plot, y));
            ends.push(End {
                at: (shared.left + shared.plot, y),
                label: &rule.label,
                class: Colour::Muted.class(),
            });
        }
        self.draw_ends(svg, shared, top, &ends);
    }

    fn draw_ends(&self, svg: &mut Svg, shared: &Shared, top: f64, ends: &[End<'_>]) {
        let named: Vec<&End<'_>> = ends.iter().filter(|end| !end.label.is_empty()).collect();
        let wanted: Vec<f64> = named.iter().map(|end| end.at.1).collect();
        let places = text::spread(&wanted, LABEL_PX * 1.25, top + 4.0, top + self.height - 2.0);
        let x = shared.left + shared.plot;
        for (end, place) in named.iter().zip(places) {
            if (place - end.at.1).abs() > 3.0 || x - end.at.0 > 6.0 {
                svg.group(&end.class, |svg| {
                    svg.line("leader", (end.at.0 + 5.0, end.at.1), (x + LEADER - 4.0, place))
                });
            }
            let label = text::cut(end.label, shared.right - LEADER, LABEL_PX);
            svg.text("label", x + LEADER, place + 4.0, Anchor::Start, &label);
        }
    }
}

impl Series {
    fn draw(
        &self,
        svg: &mut Svg,
        panel: &Panel,
        shared: &Shared,
        y: &impl Fn(f64) -> Option<f64>,
        bottom: f64,
    ) {
        let runs = self.runs(shared, y);
        if self.stroke == Stroke::Area {
            for run in &runs {
                let mut corners = run.clone();
                corners.extend(run.last().map(|last| (last.0, bottom)));
                corners.extend(run.first().map(|first| (first.0, bottom)));
                svg.shape("area", &corners);
            }
        }
        match self.stroke {
            Stroke::Line | Stroke::Area | Stroke::Marked => svg.path("line", &runs),
            Stroke::Dashed => svg.path("line dashed", &runs),
            Stroke::Marks => {}
        }
        if matches!(self.stroke, Stroke::Marked | Stroke::Marks) {
            for point in &self.points {
                let (Some(px), Some(py)) = (shared.x(point.x), y(point.y)) else {
                    continue;
                };
                let about = format!(
                    "{} {} at {}",
                    self.label,
                    panel.y.unit.value(point.y),
                    shared.unit.value(point.x)
                );
                svg.marker(self.colour.form(), point.open, (px, py), about.trim());
            }
        }
    }

    /// The positions of the points, divided at gaps.
    fn runs(&self, shared: &Shared, y: &impl Fn(f64) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
        let mut runs = vec![Vec::new()];
        for point in &self.points {
            let place = shared
                .x(point.x)
                .zip(y(point.y))
                .filter(|_| point.x.is_finite() && point.y.is_finite());
            match (place, runs.last_mut()) {
                (Some(place), Some(run)) => run.push(place),
                _ => runs.push(Vec::new()),
            }
        }
        runs.retain(|run| !run.is_empty());
        runs
    }

    fn end(&self, shared: &Shared, y: &impl Fn(f64) -> Option<f64>) -> Option<(f64, f64)> {
        self.runs(shared, y).last().and_then(|run| run.last().copied())
    }
}

/// Sizes that the panels share.
struct Shared {
    x: Scale,
    unit: Unit,
    /// The widths of the left margin, the plot and the right margin.
    left: f64,
    plot: f64,
    right: f64,
}

impl Shared {
    fn width(&self) -> f64 {
        self.left + self.plot + self.right
    }

    fn x(&self, value: f64) -> Option<f64> {
        self.x.position(value).map(|place| self.left + self.plot * place)
    }

    fn draw_axis(&self, svg: &mut Svg, title: &str, top: f64) {
        let mut ticks: Vec<&Tick> = self.x.ticks().iter().collect();
        ticks.sort_by_key(|tick| tick.rank);
        let mut taken: Vec<(f64, f64)> = Vec::new();
        for tick in ticks {
            let Some(x) = self.x(tick.value) else { continue };
            svg.line("base", (x, top), (x, top + 4.0));
            let half = text::width(&tick.label, TICK_PX) / 2.0 + 3.0;
            if taken
                .iter()
                .all(|(low, high)| x + half < *low || x - half > *high)
            {
                svg.text("tick", x, top + 17.0, Anchor::Middle, &tick.label);
                taken.push((x - half, x + half));
            }
        }
        let title = self.x.title(title);
        svg.text("axis", self.left + self.plot, top + 34.0, Anchor::End, &title);
    }
}

/// The end of a line, with its name.
struct End<'a> {
    at: (f64, f64),
    label: &'a str,
    class: String,
}

pub(super) const TICK_PX: f64 = 11.0;
pub(super) const LABEL_PX: f64 = 12.0;
/// From the plot's edge to the names of lines.
const LEADER: f64 = 16.0;
