//! The source of everything that a run leaves to chance.

/// A xorshift generator (Marsaglia): the same numbers for the same seed, for ever.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        // Neighbouring seeds begin far from each other, and none at 0.
        let mixed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Random(mixed ^ (mixed >> 29) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.next() >> 16) % end.max(1) as u64).unwrap_or(0)
    }

    /// Whether an event happens whose probability is `times` in `of`.
    pub(super) fn chance(&mut self, times: usize, of: usize) -> bool {
        self.below(of) < times
    }

    /// One of these.
    pub(super) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}
