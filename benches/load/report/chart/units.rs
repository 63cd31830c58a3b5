//! Formats numbers for readers: with a suitable unit and no more digits than necessary.

/// What a number measures. Values are in the base unit: seconds, bytes, parts of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A count of things that the axis names.
    Count,
    /// A count of the named thing per second.
    PerSecond(&'static str),
    /// A duration from nanoseconds to seconds.
    Seconds,
    /// Time since the start, in seconds and minutes.
    Elapsed,
    /// A size, in powers of 1,024.
    Bytes,
    /// A part of one, shown in percent.
    Share,
    /// A number of processors kept busy.
    Cpus,
    /// A factor.
    Times,
}

impl Unit {
    /// A value by itself, with its unit: `1.24 ms`, `262 B`, `170,000`.
    pub(crate) fn value(self, value: f64) -> String {
        let prefix = self.prefix(value.abs());
        let number = number(value / prefix.size);
        match self {
            Self::Times => format!("{number}×"),
            Self::Count if value.fract() == 0.0 => thousands(value),
            _ if prefix.name.is_empty() => number,
            _ => format!("{number}\u{a0}{}", prefix.name),
        }
    }

    /// The unit after an axis title, if the values are divided by that of [`Unit::prefix`].
    pub(super) fn name(self, prefix: &Prefix) -> String {
        match self {
            Self::PerSecond(thing) => format!("{thing}/s"),
            Self::Times | Self::Count | Self::Cpus => String::new(),
            Self::Seconds | Self::Elapsed | Self::Bytes | Self::Share => prefix.name.to_owned(),
        }
    }

    /// The largest prefix that is not larger than `value`.
    pub(super) fn prefix(self, value: f64) -> Prefix {
        let table: &[Prefix] = match self {
            Self::Seconds => &SECONDS,
            Self::Elapsed => &ELAPSED,
            Self::Bytes => &BYTES,
            Self::Share => &SHARE,
            Self::Count | Self::PerSecond(_) | Self::Times | Self::Cpus => &ONE,
        };
        let first = table[0];
        if value == 0.0 {
            return *table.iter().find(|prefix| prefix.size == 1.0).unwrap_or(&first);
        }
        // A little tolerance, so that 0.001 s is 1 ms whatever its last bit is.
        *table
            .iter()
            .rev()
            .find(|prefix| value >= prefix.size * 0.999_999)
            .unwrap_or(&first)
    }

    /// A tick's label on a linear axis that is divided by `prefix`, where ticks lie `step` apart.
    pub(super) fn tick(self, value: f64, step: f64, prefix: &Prefix) -> String {
        let (value, step) = (value / prefix.size, step / prefix.size);
        match self {
            Self::Elapsed if prefix.size == 1.0 => decimals(value, step),
            Self::Times => format!("{}×", decimals(value, step)),
            Self::Count | Self::PerSecond(_) if step >= 1e6 || value >= 1e7 => short(value, step, 1e6, "M"),
            Self::Count | Self::PerSecond(_) if step >= 1e3 || value >= 1e5 => short(value, step, 1e3, "k"),
            _ => decimals(value, step),
        }
    }

    /// The possible distances of ticks of this unit, within one power of ten of the divided value.
    pub(super) fn steps(self) -> &'static [f64] {
        match self {
            Self::Elapsed => &[1.0, 2.0, 5.0],
            Self::Bytes => &[1.0, 2.0, 4.0, 5.0],
            _ => &[1.0, 2.0, 2.5, 5.0],
        }
    }
}

/// A unit's multiple.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub(super) size: f64,
    pub(super) name: &'static str,
}

const fn prefix(size: f64, name: &'static str) -> Prefix {
    Prefix { size, name }
}

/// A number with three significant digits and separated thousands: `0.0042`, `1.24`, `12.4`, `170,000`.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if size < 0.001 {
        format!("{value:.1e}")
    } else if size < 0.01 {
        trimmed(format!("{value:.4}"))
    } else if size < 0.1 {
        trimmed(format!("{value:.3}"))
    } else if size < 9.995 {
        format!("{value:.2}")
    } else if size < 99.95 {
        format!("{value:.1}")
    } else {
        thousands(value)
    }
}

/// A whole number with separated thousands: `1,234,567`.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value <= -0.5 { "−" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The number of digits after the point that `step` needs, at most six.
fn decimals(value: f64, step: f64) -> String {
    let mut places = 0;
    let mut scaled = step;
    while places < 6 && (scaled - scaled.round()).abs() > 1e-6 * scaled.max(1e-3) {
        scaled *= 10.0;
        places += 1;
    }
    if places == 0 {
        return thousands(value);
    }
    let text = format!("{value:.places$}");
    if text
        .trim_start_matches('-')
        .chars()
        .all(|digit| matches!(digit, '0' | '.'))
    {
        "0".to_owned()
    } else {
        text
    }
}

fn short(value: f64, step: f64, size: f64, name: &str) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else {
        format!("{}{name}", decimals(value / size, step / size))
    }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const ONE: [Prefix; 1] = [prefix(1.0, "")];
const SHARE: [Prefix; 1] = [prefix(0.01, "%")];
const SECONDS: [Prefix; 4] = [
    prefix(1e-9, "ns"),
    prefix(1e-6, "µs"),
    prefix(1e-3, "ms"),
    prefix(1.0, "s"),
];
/// Elapsed time is in minutes from one minute on, in seconds before.
const ELAPSED: [Prefix; 2] = [prefix(1.0, "s"), prefix(60.0, "min")];
const BYTES: [Prefix; 5] = [
    prefix(1.0, "B"),
    prefix(1024.0, "KiB"),
    prefix(1_048_576.0, "MiB"),
    prefix(1_073_741_824.0, "GiB"),
    prefix(1_099_511_627_776.0, "TiB"),
];
