//! Horizontal bars in groups, with intervals and targets.
//!
//! Names are in a column to the left and numbers in a column to the right, so that they do not overlap a bar, an
//! interval or a target. If a bar is much longer than the others, it is broken: it ends in a zigzag at the edge, and
//! its number gives the length.

use super::lines::{LABEL_PX, Rule, TICK_PX};
use super::scale::Scale;
use super::svg::{Anchor, Drawing, Svg};
use super::{Axis, Colour, text};

/// A chart of bars from zero.
#[derive(Debug)]
pub(crate) struct BarChart {
    /// The meaning of the lengths.
    pub(crate) axis: Axis,
    /// From top to bottom.
    pub(crate) groups: Vec<Group>,
    /// A line across all groups.
    pub(crate) rule: Option<Rule>,
    /// Bars beyond this are broken.
    pub(crate) most: Option<f64>,
}

/// Bars that belong together.
#[derive(Debug)]
pub(crate) struct Group {
    /// The text above the bars; may be empty.
    pub(crate) title: String,
    /// From top to bottom.
    pub(crate) bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug)]
pub(crate) struct Bar {
    /// The text to the left of the bar.
    pub(crate) label: String,
    /// The length; if it is not finite, there is no bar.
    pub(crate) value: f64,
    /// The confidence interval.
    pub(crate) interval: Option<(f64, f64)>,
    /// Its colour.
    pub(crate) colour: Colour,
    /// The target.
    pub(crate) target: Option<Target>,
}

/// A target, marked on the bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Target {
    /// The upper limit.
    pub(crate) most: f64,
    /// Whether the target is met; shown by a sign as well as by colour.
    pub(crate) met: bool,
}

impl BarChart {
    /// The drawing, `width` wide.
    pub(crate) fn draw(&self, width: f64) -> Drawing {
        let scale = self.scale();
        let columns = self.columns(&scale, width);
        let mut svg = Svg::default();
        let top = if self.rule.is_some() { 18.0 } else { 2.0 };
        let bottom = top + self.groups.iter().map(Group::height).sum::<f64>();
        for tick in scale.ticks() {
            let Some(x) = columns.x(&scale, tick.value) else {
                continue;
            };
            svg.line("grid", (x, top), (x, bottom));
        }
        let mut y = top;
        for group in &self.groups {
            group.draw(&mut svg, &scale, &columns, &self.axis, y);
            y += group.height();
        }
        if let Some(rule) = &self.rule
            && let Some(x) = columns.x(&scale, rule.value)
        {
            svg.line("rule", (x, top - 4.0), (x, bottom));
            let half = text::width(&rule.label, TICK_PX) / 2.0;
            let middle = x.min(width - half).max(half);
            svg.text("tick", middle, top - 8.0, Anchor::Middle, &rule.label);
        }
        self.draw_axis(&mut svg, &scale, &columns, bottom);
        Drawing {
            width,
            height: bottom + 40.0,
            body: svg.body,
        }
    }

    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.groups.iter().flat_map(|group| &group.bars)
    }

    fn scale(&self) -> Scale {
        let most = self.most.unwrap_or(f64::INFINITY);
        let values = self.bars().flat_map(|bar| {
            let high = bar.interval.map_or(bar.value, |interval| interval.1);
            [bar.value, high, bar.target.map_or(0.0, |target| target.most)]
        });
        let values = values.chain(self.rule.iter().map(|rule| rule.value));
        // A broken bar reaches the edge, no further.
        Scale::new(
            self.axis.kind,
            self.axis.unit,
            values.filter(|value| *value <= most).chain(self.most),
            6.0,
        )
    }

    fn columns(&self, scale: &Scale, width: f64) -> Columns {
        let labels = self.bars().map(|bar| text::width(&bar.label, LABEL_PX));
        let left = (labels.fold(0.0, f64::max) + 10.0).min(width * 0.46);
        let widest = |of: &dyn Fn(&Bar) -> String, size: f64| {
            self.bars()
                .map(|bar| text::width(&of(bar), size))
                .fold(0.0, f64::max)
        };
        let number = widest(&|bar| self.axis.unit.value(bar.value), LABEL_PX * BOLD);
        // A narrow chart shows intervals without their numbers, which would take the room of the bars.
        let with_intervals = width > INTERVALS_FROM;
        let interval = if with_intervals {
            widest(&|bar| bar.interval_text(&self.axis), TICK_PX)
        } else {
            0.0
        };
        let target = widest(&|bar| bar.target_text(&self.axis), TICK_PX * BOLD);
        let gap = |width: f64| if width > 0.0 { width + 12.0 } else { 0.0 };
        let right = 10.0 + number + gap(interval) + gap(target);
        let last = scale
            .ticks()
            .last()
            .map_or(0.0, |tick| text::width(&tick.label, TICK_PX) / 2.0);
        let plot = (width - left - right.max(last)).max(40.0);
        Columns {
            left,
            plot,
            number: left + plot + 10.0 + number,
            interval: left + plot + 10.0 + number + 12.0,
            target: left + plot + 10.0 + number + gap(interval) + 12.0,
            most: self.most.unwrap_or(f64::INFINITY),
            width,
            with_intervals,
        }
    }

    fn draw_axis(&self, svg: &mut Svg, scale: &Scale, columns: &Columns, bottom: f64) {
        let mut free = f64::NEG_INFINITY;
        for tick in scale.ticks() {
            let Some(x) = columns.x(scale, tick.value) else {
                continue;
            };
            let half = text::width(&tick.label, TICK_PX) / 2.0 + 3.0;
            if x - half >= free {
                svg.text("tick", x, bottom + 15.0, Anchor::Middle, &tick.label);
                free = x + half;
            }
        }
        let title = scale.title(&self.axis.title);
        let half = text::width(&title, LABEL_PX) / 2.0;
        let middle = (columns.left + columns.plot / 2.0)
            .min(columns.width - half)
            .max(half);
        svg.text("axis", middle, bottom + 33.0, Anchor::Middle, &title);
    }
}

impl Group {
    fn height(&self) -> f64 {
        self.title_height() + ROW * self.bars.len() as f64 + 8.0
    }

    fn title_height(&self) -> f64 {
        if self.title.is_empty() { 4.0 } else { 26.0 }
    }

    fn draw(&self, svg: &mut Svg, scale: &Scale, columns: &Columns, axis: &Axis, top: f64) {
        if !self.title.is_empty() {
            // The grid leaves room around the text.
            let width = text::width(&self.title, LABEL_PX) * BOLD + 6.0;
            svg.rect("ground", 0.0, top + 3.0, width.max(columns.left - 1.0), 20.0, 0.0);
            svg.text("label strong", 0.0, top + 18.0, Anchor::Start, &self.title);
        }
        let first = top + self.title_height();
        let last = first + ROW * self.bars.len() as f64;
        svg.line("base", (columns.left, first), (columns.left, last));
        for (index, bar) in self.bars.iter().enumerate() {
            let y = top + self.title_height() + ROW * index as f64;
            svg.group(&bar.colour.class(), |svg| bar.draw(svg, scale, columns, axis, y));
        }
    }
}

impl Bar {
    fn draw(&self, svg: &mut Svg, scale: &Scale, columns: &Columns, axis: &Axis, top: f64) {
        let middle = top + ROW / 2.0;
        svg.about(&self.about(axis));
        let label = text::cut(&self.label, columns.left - 10.0, LABEL_PX);
        let class = if self.colour == Colour::Muted {
            "label soft"
        } else {
            "label"
        };
        svg.text(class, columns.left - 8.0, middle + 4.0, Anchor::End, &label);
        if let Some(end) = columns.x(scale, self.value) {
            svg.rect(
                "bar",
                columns.left,
                middle - THICK / 2.0,
                end - columns.left,
                THICK,
                1.5,
            );
            if self.value > columns.most {
                zigzag(svg, end - 16.0, middle);
            }
        }
        if let Some((low, high)) = self.interval
            && let (Some(low), Some(high)) = (columns.x(scale, low), columns.x(scale, high))
            && self.value <= columns.most
        {
            // With a light border, so that it is visible on the bar and beside it.
            for class in ["halo", "whisker"] {
                svg.line(class, (low, middle), (high, middle));
                svg.line(class, (low, middle - 3.0), (low, middle + 3.0));
                svg.line(class, (high, middle - 3.0), (high, middle + 3.0));
            }
        }
        if let Some(target) = self.target
            && let Some(x) = columns.x(scale, target.most)
        {
            let (above, below) = (middle - ROW / 2.0 + 1.0, middle + ROW / 2.0 - 1.0);
            svg.line("target", (x, above), (x, below));
            svg.shape(
                "targettip",
                &[(x - 4.0, above - 1.0), (x + 4.0, above - 1.0), (x, above + 5.0)],
            );
        }
        self.draw_numbers(svg, columns, axis, middle + 4.0);
    }

    fn draw_numbers(&self, svg: &mut Svg, columns: &Columns, axis: &Axis, y: f64) {
        let number = axis.unit.value(self.value);
        let class = if self.colour == Colour::Muted {
            "label soft"
        } else {
            "label strong"
        };
        svg.text(class, columns.number, y, Anchor::End, &number);
        let interval = self.interval_text(axis);
        if columns.with_intervals && !interval.is_empty() {
            svg.text("tick", columns.interval, y, Anchor::Start, &interval);
        }
        if let Some(target) = self.target {
            let class = if target.met {
                "tick good strong"
            } else {
                "tick bad strong"
            };
            svg.text(class, columns.target, y, Anchor::Start, &self.target_text(axis));
        }
    }

    fn interval_text(&self, axis: &Axis) -> String {
        self.interval.map_or_else(String::new, |(low, high)| {
            format!("{}–{}", axis.unit.value(low), axis.unit.value(high))
        })
    }

    fn target_text(&self, axis: &Axis) -> String {
        self.target.map_or_else(String::new, |target| {
            let sign = if target.met { '✓' } else { '✗' };
            format!("{sign} ≤ {}", axis.unit.value(target.most))
        })
    }

    fn about(&self, axis: &Axis) -> String {
        let mut about = format!("{}: {}", self.label, axis.unit.value(self.value));
        if let Some((low, high)) = self.interval {
            about.push_str(&format!(
                ", interval {} to {}",
                axis.unit.value(low),
                axis.unit.value(high)
            ));
        }
        if let Some(target) = self.target {
            let said = if target.met { "met" } else { "missed" };
            about.push_str(&format!(", target {} {said}", axis.unit.value(target.most)));
        }
        about
    }
}

/// Where the columns begin, or for numbers end.
struct Columns {
    left: f64,
    plot: f64,
    number: f64,
    interval: f64,
    target: f64,
    /// Bars beyond are broken.
    most: f64,
    /// All columns together.
    width: f64,
    /// Whether there is a column with intervals.
    with_intervals: bool,
}

impl Columns {
    fn x(&self, scale: &Scale, value: f64) -> Option<f64> {
        scale.position(value).map(|place| self.left + self.plot * place)
    }
}

fn zigzag(svg: &mut Svg, x: f64, middle: f64) {
    let half = THICK / 2.0 + 1.0;
    for shift in [0.0, 6.0] {
        let run = vec![
            (x + shift + 3.0, middle - half),
            (x + shift - 2.0, middle - half / 3.0),
            (x + shift + 3.0, middle + half / 3.0),
            (x + shift - 2.0, middle + half),
        ];
        svg.path("break", &[run]);
    }
}

/// How much wider bold text is.
const BOLD: f64 = 1.14;
/// The width of a chart from which on intervals are written out.
const INTERVALS_FROM: f64 = 640.0;
const ROW: f64 = 22.0;
const THICK: f64 = 13.0;
