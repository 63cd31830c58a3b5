//! Charts as SVG: lines and bars, independent of the measures that they show.
//!
//! A caller describes a [`LineChart`] or a [`BarChart`] and gets a [`Drawing`]: the content of an SVG and its size. The
//! drawing takes its colours from the CSS variables of [`style`], so that the same drawing works on a light and a dark
//! page and on paper. [`Drawing::inline`] is for a page that contains this style, [`Drawing::standalone`] for a file.
//!
//! Why not a crate: `plotters` (17 crates with its SVG back end) writes colours as fixed attributes, so a drawing has
//! one theme; it places labels without knowing their width, and has neither an axis of nines nor broken bars.
//! `charming` needs a JavaScript engine. `poloto` supports themes, but neither logarithmic axes nor bars with
//! intervals. The parts that they could replace, ticks and paths, are the smaller half of this module.
//!
//! Invariants
//! 1. All written coordinates are finite: `scale` and the charts leave other values out, and [`svg::Svg`] writes
//!    numbers in one place, which writes 0 for them.
//! 2. Text reaches the drawing by [`svg::Svg::text`] and the attributes' `escape` only.
//! 3. Labels do not overlap: `text::width` estimates their width from above, and `text::spread` and the axes place them
//!    and leave out labels that do not fit.

mod bars;
mod lines;
pub(crate) mod scale;
pub(crate) mod style;
mod svg;
pub(crate) mod text;
pub(crate) mod units;

pub(crate) use bars::{Bar, BarChart, Group, Target};
pub(crate) use lines::{LineChart, Panel, Point, Rule, Series, Stroke};
pub(crate) use scale::Kind;
pub(crate) use svg::{Drawing, escape};
pub(crate) use units::Unit;

/// A chart of either kind.
#[derive(Debug)]
pub(crate) enum Chart {
    Lines(LineChart),
    Bars(BarChart),
}

impl Chart {
    /// The drawing, `width` wide.
    pub(crate) fn draw(&self, width: f64) -> Drawing {
        match self {
            Self::Lines(chart) => chart.draw(width),
            Self::Bars(chart) => chart.draw(width),
        }
    }
}

/// The meaning and the division of an axis.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// The measured quantity, without its unit.
    pub(crate) title: String,
    /// The unit of its values.
    pub(crate) unit: Unit,
    /// How values become lengths.
    pub(crate) kind: Kind,
}

impl Axis {
    /// An axis from zero to the next round number above the values.
    pub(crate) fn linear(title: &str, unit: Unit) -> Self {
        Self {
            title: title.to_owned(),
            unit,
            kind: Kind::Linear,
        }
    }

    /// The same axis with another division.
    pub(crate) fn with(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

/// The meaning of a colour. The theme decides which colour it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// One of several kinds, distinguished by hue and by marker; after [`style::HUES`] the hues repeat.
    Hue(usize),
    /// One of an ordered few, from faint to strong: 0, 1, 2.
    Step(usize),
    /// Grey, for values to compare with.
    Muted,
}

impl Colour {
    /// The form of the marks, different for each hue.
    fn form(self) -> usize {
        match self {
            Self::Hue(index) => index,
            Self::Step(_) | Self::Muted => 0,
        }
    }

    /// The CSS class that sets `--c`, the colour of the elements inside.
    fn class(self) -> String {
        match self {
            Self::Hue(index) => format!("h{}", index % style::HUES),
            Self::Step(index) => format!("s{}", index.min(style::STEPS - 1)),
            Self::Muted => "muted".to_owned(),
        }
    }
}
