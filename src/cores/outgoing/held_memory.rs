//! Accounts for the memory that the connections of a core hold, and finds the connections that hold most.
//!
//! A connection holds the bytes in its outbox while its socket takes no more, conflated publications, input
//! that is not consumed yet, a partial message, decisions that wait, and records of TLS. A connection that
//! keeps up holds nothing and costs nothing here. `Connections::note_held` reports the bytes of a connection
//! whenever they may have changed. When all connections together are over the limit, `ending.rs` closes the
//! connections that hold most.
//!
//! ```text
//!   entries   index → the bytes that it holds, its class, its place there
//!   classes   [ 1 | 2.. | 4.. | … | 8 MiB.. | … ]   lists of indexes, by the power of two of the bytes
//! ```
//! So the connection to close is found without a search: any connection of the highest class that is not empty holds at
//! least half as much as any other.
//!
//! Invariants
//! 1. `sums` are the sums of all entries.
//! 2. A connection with an entry stands in the list of its class once, at its place.
//!
//! Limits: `outbox_bytes_total_max`, an equal share of it for each core.

use crate::slab::Slab;

/// The bytes that all connections of a core hold together.
#[derive(Debug)]
pub(in crate::cores) struct Held {
    pub(in crate::cores) bytes_max: usize,
    entries: Slab<Entry>,
    classes: [Vec<u32>; CLASSES],
    /// One bit for each class that is not empty.
    occupied: u64,
    sums: HeldBytes,
}

/// The bytes that one connection holds, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cores) struct HeldBytes {
    /// Bytes that wait for a socket that takes no more, and conflated publications. Bytes that several
    /// connections share count in full for each, since each of them keeps these bytes from being freed.
    pub(in crate::cores) outbox: usize,
    /// Input that was read and not consumed.
    pub(in crate::cores) leftover: usize,
    /// An incomplete message.
    pub(in crate::cores) assembly: usize,
    /// The unhandled part of a long array of packets, and decisions that wait.
    pub(in crate::cores) parked: usize,
    /// Records that have arrived in part, or that the socket has not taken.
    pub(in crate::cores) tls: usize,
    /// Publications that follow a history that the connection has not got yet.
    pub(in crate::cores) collected: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    holding: HeldBytes,
    class: usize,
    place: usize,
}

impl HeldBytes {
    /// The sum of all kinds.
    pub(in crate::cores) fn total(&self) -> usize {
        self.outbox + self.leftover + self.assembly + self.parked + self.tls + self.collected
    }

    fn exchange(&mut self, before: &HeldBytes, after: &HeldBytes) {
        self.outbox = self.outbox - before.outbox + after.outbox;
        self.leftover = self.leftover - before.leftover + after.leftover;
        self.assembly = self.assembly - before.assembly + after.assembly;
        self.parked = self.parked - before.parked + after.parked;
        self.tls = self.tls - before.tls + after.tls;
        self.collected = self.collected - before.collected + after.collected;
    }
}

impl Held {
    /// An account without connections. All connections together may hold `bytes_max`.
    pub(in crate::cores) fn new(bytes_max: usize) -> Held {
        Held {
            bytes_max,
            entries: Slab::new(),
            classes: [const { Vec::new() }; CLASSES],
            occupied: 0,
            sums: HeldBytes::default(),
        }
    }

    /// Whether no connection is known to hold anything.
    #[inline]
    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Whether a connection is known to hold anything.
    pub(in crate::cores) fn knows(&self, index: u32) -> bool {
        !self.is_empty() && self.entries.get(index as usize).is_some()
    }

    /// The sums over all connections. A buffer that outboxes share counts once for each of them.
    pub(in crate::cores) fn sums(&self) -> &HeldBytes {
        &self.sums
    }

    /// The bytes that a connection held when they were last counted.
    #[cfg(test)]
    pub(in crate::cores) fn of(&self, index: u32) -> HeldBytes {
        let entry = self.entries.get(index as usize);
        entry.map(|entry| entry.holding).unwrap_or_default()
    }

    /// A connection that holds at least half as much as any other.
    pub(in crate::cores) fn most(&self) -> Option<u32> {
        let class = self.occupied.checked_ilog2()?;
        self.classes[class as usize].last().copied()
    }

    /// Notes the bytes that a connection holds now.
    pub(in crate::cores) fn note(&mut self, index: u32, holding: HeldBytes) {
        let total = holding.total();
        if total == 0 {
            self.forget(index);
            return;
        }
        let class = (total.ilog2() as usize).min(CLASSES - 1);
        match self.entries.get_mut(index as usize) {
            Some(entry) => {
                self.sums.exchange(&entry.holding, &holding);
                entry.holding = holding;
                if entry.class != class {
                    let before = *entry;
                    self.take_from_class(before);
                    let place = self.put_into_class(class, index);
                    self.entries[index as usize] = Entry {
                        holding,
                        class,
                        place,
                    };
                }
            }
            None => {
                self.sums.exchange(&HeldBytes::default(), &holding);
                let place = self.put_into_class(class, index);
                let entry = Entry {
                    holding,
                    class,
                    place,
                };
                self.entries.insert_at(index as usize, entry);
            }
        }
    }

    /// A connection no longer holds any bytes, or has ended.
    pub(in crate::cores) fn forget(&mut self, index: u32) {
        if let Some(entry) = self.entries.remove(index as usize) {
            self.sums.exchange(&entry.holding, &HeldBytes::default());
            self.take_from_class(entry);
        }
    }

    fn put_into_class(&mut self, class: usize, index: u32) -> usize {
        let list = &mut self.classes[class];
        list.push(index);
        self.occupied |= 1 << class;
        list.len() - 1
    }

    fn take_from_class(&mut self, entry: Entry) {
        let list = &mut self.classes[entry.class];
        list.swap_remove(entry.place);
        if let Some(&moved) = list.get(entry.place)
            && let Some(moved) = self.entries.get_mut(moved as usize)
        {
            moved.place = entry.place;
        }
        if list.is_empty() {
            *list = Vec::new();
            self.occupied &= !(1 << entry.class);
        }
    }
}

/// The last class also has the connections that hold more.
const CLASSES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(outbox: usize, assembly: usize) -> HeldBytes {
        HeldBytes {
            outbox,
            assembly,
            ..HeldBytes::default()
        }
    }

    /// After any sequence of changes, the account is the same as a count over all connections.
    #[test]
    fn the_sums_and_the_one_that_holds_most_are_those_of_a_walk_over_all() {
        for seed in 1..200_u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let mut held = Held::new(0);
            let mut real = [HeldBytes::default(); 20];
            for _ in 0..300 {
                let index = usize::try_from(random(20)).unwrap();
                let bits = random(30);
                let some = [0, random(1 << bits), 1 << bits][usize::try_from(random(3)).unwrap()];
                let some = usize::try_from(some).unwrap();
                let other = usize::try_from(random(3)).unwrap();
                real[index] = holding(some, other * some / 2);
                held.note(u32::try_from(index).unwrap(), real[index]);
                if random(10) == 0 {
                    real[index] = HeldBytes::default();
                    held.forget(u32::try_from(index).unwrap());
                }
                let most = real.iter().map(HeldBytes::total).max().unwrap();
                match held.most() {
                    None => assert_eq!(most, 0, "seed {seed}"),
                    Some(found) => {
                        let found = real[found as usize].total();
                        assert!(found > 0 && found * 2 >= most, "{found} of {most}, seed {seed}");
                    }
                }
                let sum = |part: fn(&HeldBytes) -> usize| real.iter().map(part).sum::<usize>();
                assert_eq!(held.sums().outbox, sum(|one| one.outbox), "seed {seed}");
                assert_eq!(held.sums().total(), sum(HeldBytes::total), "seed {seed}");
                for (index, one) in real.iter().enumerate() {
                    let index = u32::try_from(index).unwrap();
                    assert_eq!(
                        (held.of(index), held.knows(index)),
                        (*one, one.total() > 0),
                        "seed {seed}"
                    );
                }
            }
            for index in 0..20 {
                held.forget(index);
            }
            assert_eq!((held.most(), held.sums().total()), (None, 0));
        }
    }
}
