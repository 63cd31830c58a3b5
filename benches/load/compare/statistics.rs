//! Medians with a confidence interval, and the random order of the rounds.

use super::result::Spread;

/// Random numbers from a fixed seed (xorshift64), so that a repeated run has the same order.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Dice {
        Dice(0x9e37_79b9_7f4a_7c15)
    }

    /// A random number below `bound`, which must be small compared with 2^64.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or(0)
    }

    /// Shuffles the values.
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

/// The median, and the interval that contains it in 95 of 100 resamplings of the values (bootstrap); `None` without
/// values.
pub(crate) fn spread(values: &[f64], dice: &mut Dice) -> Option<Spread> {
    let mut sorted = values.to_vec();
    let median = median(&mut sorted)?;
    let mut medians: Vec<f64> = (0..RESAMPLINGS)
        .filter_map(|_| {
            let mut drawn: Vec<f64> = values.iter().map(|_| values[dice.below(values.len())]).collect();
            self::median(&mut drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |per_mille: usize| medians[RESAMPLINGS * per_mille / 1000];
    Some(Spread {
        median,
        low: at(25),
        high: at(975),
    })
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

const RESAMPLINGS: usize = 1000;
