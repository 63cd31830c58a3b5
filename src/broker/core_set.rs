//! A set of cores, as one word.

/// Most cores of one process: the bits of a [`CoreSet`].
pub const CORES_MAX: usize = 128;

/// A set of core indexes below [`CORES_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreSet(u128);

impl CoreSet {
    /// No core.
    pub const EMPTY: CoreSet = CoreSet(0);

    /// One core, whose index is below [`CORES_MAX`].
    pub(crate) fn of(core: usize) -> CoreSet {
        CoreSet(1 << core)
    }

    /// Adds a core, whose index is below [`CORES_MAX`].
    pub fn insert(&mut self, core: usize) {
        self.0 |= 1 << core;
    }

    /// Whether the core is in the set.
    pub fn contains(self, core: usize) -> bool {
        core < CORES_MAX && self.0 & (1 << core) != 0
    }

    /// Whether no core is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many cores are in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The cores of both sets.
    #[must_use]
    pub fn union(self, other: CoreSet) -> CoreSet {
        CoreSet(self.0 | other.0)
    }

    /// The cores of this set that are not in the other.
    #[must_use]
    pub(crate) fn without(self, other: CoreSet) -> CoreSet {
        CoreSet(self.0 & !other.0)
    }

    /// The set whose members are the bits of `low` and, from 64 on, of `high`.
    pub(crate) fn from_words(low: u64, high: u64) -> CoreSet {
        CoreSet(u128::from(low) | u128::from(high) << 64)
    }
}

impl IntoIterator for CoreSet {
    type Item = usize;
    type IntoIter = Cores;

    fn into_iter(self) -> Cores {
        Cores(self.0)
    }
}

/// The members of a [`CoreSet`], ascending.
#[derive(Clone, Debug)]
pub struct Cores(u128);

impl Iterator for Cores {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let core = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(core as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_yields_what_was_put_in_ascending() {
        let mut set = CoreSet::EMPTY;
        for core in [127, 0, 64, 63, 64] {
            set.insert(core);
        }
        assert_eq!(set.into_iter().collect::<Vec<_>>(), [0, 63, 64, 127]);
        assert_eq!(set.len(), 4);
        assert!(set.contains(63) && !set.contains(62) && !set.contains(CORES_MAX));
        assert_eq!(
            set.without(CoreSet::of(64))
                .union(CoreSet::from_words(2, 1))
                .into_iter()
                .collect::<Vec<_>>(),
            [0, 1, 63, 64, 127]
        );
    }
}
