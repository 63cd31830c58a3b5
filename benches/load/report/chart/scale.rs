//! Scales: the position of a value on an axis, and the ticks of the axis.

use super::units::{Prefix, Unit};

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Linear, from zero (or from the lowest value, if it is negative) to the next tick above the values.
    Linear,
    /// Linear, from zero to exactly the largest value; for time.
    Tight,
    /// Logarithmic. Zero and negative values are at the lower end.
    Log,
    /// Percentiles, as shares of one, by the number of nines: each step to the right is ten times rarer.
    Nines,
}

/// An axis' range and ticks.
pub(crate) struct Scale {
    kind: Kind,
    /// The ends, as `transform` gives them.
    low: f64,
    high: f64,
    ticks: Vec<Tick>,
    /// The unit after the title; empty if the ticks contain it.
    unit: String,
}

/// A line across the plot, with its label.
#[derive(Clone, Debug)]
pub(crate) struct Tick {
    pub(crate) value: f64,
    pub(crate) label: String,
    /// If there is no room for all labels, those of lower rank remain.
    pub(crate) rank: u32,
}

impl Scale {
    /// An axis for the finite values in `values`, with about `count` ticks.
    pub(crate) fn new(kind: Kind, unit: Unit, values: impl Iterator<Item = f64>, count: f64) -> Self {
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        match kind {
            Kind::Linear | Kind::Tight => Self::linear(kind, unit, &values, count),
            Kind::Log => Self::log(unit, &values, count),
            Kind::Nines => Self::nines(&values),
        }
    }

    /// The position of a value between the ends, from 0 to 1; `None` if it is not a number.
    pub(crate) fn position(&self, value: f64) -> Option<f64> {
        if value.is_nan() {
            return None;
        }
        let place = (transform(self.kind, value) - self.low) / (self.high - self.low);
        Some(place.clamp(0.0, 1.0))
    }

    pub(crate) fn ticks(&self) -> &[Tick] {
        &self.ticks
    }

    /// The title with the unit.
    pub(crate) fn title(&self, title: &str) -> String {
        if self.unit.is_empty() {
            title.to_owned()
        } else {
            format!("{title} ({})", self.unit)
        }
    }

    fn linear(kind: Kind, unit: Unit, values: &[f64], count: f64) -> Self {
        let least = values.iter().copied().fold(0.0, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let span = if most > least {
            most - least
        } else {
            fallback(unit)
        };
        let most = least + span;
        let prefix = tick_prefix(unit, most.max(-least));
        let step = step(unit, span / count, &prefix);
        let low = (least / step + 1e-9).floor() * step;
        let high = match kind {
            Kind::Tight => most,
            Kind::Linear | Kind::Log | Kind::Nines => ((most / step - 1e-9).ceil() * step).max(low + step),
        };
        let mut ticks = Vec::new();
        let mut index = 0.0;
        while low + index * step <= high + step * 1e-6 {
            let value = low + index * step;
            ticks.push(Tick {
                value,
                label: unit.tick(value, step, &prefix),
                rank: 0,
            });
            index += 1.0;
        }
        Self {
            kind,
            low,
            high,
            ticks,
            unit: unit.name(&prefix),
        }
    }

    fn log(unit: Unit, values: &[f64], count: f64) -> Self {
        let positive = || values.iter().copied().filter(|value| *value > 0.0);
        let least = positive().fold(f64::INFINITY, f64::min);
        let most = positive().fold(0.0, f64::max);
        let (least, most) = if most > 0.0 {
            (least, most)
        } else {
            (fallback(unit) / 10.0, fallback(unit))
        };
        // The ends are 1, 2 or 5 times a power of ten, and a decade apart at least.
        let (low, mut high) = (below(least), above(most));
        if high < low * 9.0 {
            high = above(low * 10.0);
        }
        let decades = (high / low).log10();
        let every = (decades / count).ceil().max(1.0);
        let mut ticks = Vec::new();
        let mut exponent = low.log10().floor();
        while exponent <= high.log10() {
            for (digit, rank) in [(1.0, 0), (5.0, 2), (2.0, 1)] {
                let value = digit * 10f64.powf(exponent);
                let first = digit == 1.0 && exponent.rem_euclid(every) < 0.5;
                if value < low * 0.999 || value > high * 1.001 || (decades > 3.0 && !first) {
                    continue;
                }
                ticks.push(Tick {
                    value,
                    label: log_label(unit, value),
                    rank,
                });
            }
            exponent += 1.0;
        }
        for rank in [2, 1] {
            if ticks.len() as f64 > 2.0 * count {
                ticks.retain(|tick: &Tick| tick.rank < rank);
            }
        }
        ticks.sort_by(|one, other| one.value.total_cmp(&other.value));
        Self {
            kind: Kind::Log,
            low: low.log10(),
            high: high.log10(),
            ticks,
            unit: match unit {
                Unit::PerSecond(_) => unit.name(&unit.prefix(1.0)),
                Unit::Count
                | Unit::Seconds
                | Unit::Elapsed
                | Unit::Bytes
                | Unit::Share
                | Unit::Cpus
                | Unit::Times => String::new(),
            },
        }
    }

    /// From the smallest to the rarest percentile below 1, which the maximum shares.
    fn nines(values: &[f64]) -> Self {
        let rarest = values
            .iter()
            .copied()
            .filter(|value| *value < 1.0)
            .fold(0.9, f64::max);
        let high = transform(Kind::Nines, rarest);
        let mut ticks: Vec<Tick> = [(0.0, "0", 0), (0.5, "50", 2), (0.75, "75", 3)]
            .map(|(value, label, rank)| Tick {
                value,
                label: label.to_owned(),
                rank,
            })
            .to_vec();
        let mut nines = 1.0;
        let mut label = String::from("90");
        while nines <= high + 1e-9 {
            ticks.push(Tick {
                value: 1.0 - 10f64.powf(-nines),
                label: label.clone(),
                rank: 1,
            });
            label = match label.as_str() {
                "90" => "99".to_owned(),
                "99" => "99.9".to_owned(),
                more => format!("{more}9"),
            };
            nines += 1.0;
        }
        Self {
            kind: Kind::Nines,
            low: 0.0,
            high,
            ticks,
            unit: "%".to_owned(),
        }
    }
}

fn transform(kind: Kind, value: f64) -> f64 {
    match kind {
        Kind::Linear | Kind::Tight => value,
        Kind::Log => value.max(f64::MIN_POSITIVE).log10(),
        Kind::Nines => -(1.0 - value.clamp(0.0, 1.0)).max(1e-12).log10(),
    }
}

/// A range for an axis without values: one unit.
fn fallback(unit: Unit) -> f64 {
    match unit {
        Unit::Seconds => 0.001,
        Unit::Bytes => 1024.0,
        Unit::Count | Unit::PerSecond(_) | Unit::Elapsed | Unit::Share | Unit::Cpus | Unit::Times => 1.0,
    }
}

/// The prefix of an axis that reaches to `most`: minutes only from three on, else the one that fits.
fn tick_prefix(unit: Unit, most: f64) -> Prefix {
    match unit {
        Unit::Elapsed if most < 180.0 => unit.prefix(1.0),
        Unit::Bytes | Unit::Seconds => unit.prefix(most / 1.5),
        Unit::Count | Unit::PerSecond(_) | Unit::Elapsed | Unit::Share | Unit::Cpus | Unit::Times => {
            unit.prefix(most)
        }
    }
}

/// The smallest round step that is at least `least`.
fn step(unit: Unit, least: f64, prefix: &Prefix) -> f64 {
    let least = (least / prefix.size).max(1e-12);
    if unit == Unit::Elapsed && prefix.size == 1.0 {
        for step in [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0] {
            if step >= least * 0.999_999 && least > 0.5 {
                return step;
            }
        }
    }
    let power = 10f64.powf(least.log10().floor());
    let step = unit
        .steps()
        .iter()
        .map(|step| step * power)
        .find(|step| *step >= least * 0.999_999)
        .unwrap_or(10.0 * power);
    // Counts have no fractions.
    let step = match unit {
        Unit::Count => step.max(1.0),
        Unit::PerSecond(_)
        | Unit::Seconds
        | Unit::Elapsed
        | Unit::Bytes
        | Unit::Share
        | Unit::Cpus
        | Unit::Times => step,
    };
    step * prefix.size
}

fn below(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|end| *end <= value * 1.000_001)
        .unwrap_or(power)
}

fn above(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|end| *end >= value * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// The label of a tick on a logarithmic axis, with its unit, because the axis has several units.
fn log_label(unit: Unit, value: f64) -> String {
    let prefix = unit.prefix(value);
    let number = unit.tick(value, value, &prefix);
    match unit {
        Unit::Seconds | Unit::Elapsed | Unit::Bytes => format!("{number}\u{a0}{}", prefix.name),
        Unit::Share => format!("{number}%"),
        Unit::Count | Unit::PerSecond(_) | Unit::Cpus | Unit::Times => number,
    }
}
