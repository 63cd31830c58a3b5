//! Charts as SVG: lines and bars, with no knowledge of what they show.
//!
//! A caller describes a [`LineChart`] or a [`BarChart`] and gets a [`Drawing`]: the inside of an SVG and its size. The
//! drawing takes its colours from the CSS variables of [`style`], so that one drawing reads in a light and in a dark
//! page and on paper; [`Drawing::inline`] is for a page that has that style already, [`Drawing::standalone`] for a
//! file of its own.
//!
//! Why not a crate: `plotters` (17 crates with its SVG back end) writes colours as fixed attributes, so a drawing has
//! one theme, places labels without knowing their width, and has neither an axis of nines nor a broken bar; `charming`
//! draws by a JavaScript engine that it brings along; `poloto` can be themed, but has neither logarithmic axes nor
//! bars with intervals. What is left of them for our purpose, ticks and paths, is the smaller half of this module.
//!
//! Invariants
//! 1. No coordinate is written that is not finite: values that are not are left out by `scale` and by the charts, and
//!    [`svg::Svg`] writes numbers in one place, which would write 0.
//! 2. Text reaches the drawing by [`svg::Svg::text`] and the attributes' `escape` only.
//! 3. Labels do not overlap: widths are estimated from above (`text::width`), places are given out by `text::spread`
//!    and by the axes, which leave out what does not fit.

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

/// What an axis measures and how it is divided.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// What is measured, without the unit, which is added.
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

/// What a colour says. Which colour that is, the theme decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// One of several kinds, told apart by hue (and by marker); counts round after [`style::HUES`].
    Hue(usize),
    /// One of an ordered few, from faint to strong: 0, 1, 2.
    Step(usize),
    /// What is there to compare with.
    Muted,
}

impl Colour {
    /// The form of its marks: each hue has one of its own.
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
