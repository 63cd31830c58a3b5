//! The queue of one session as it is on disk, and the changes since then.
//!
//! Each entry of the queue (`outgoing.rs`) has a number here, which names it on disk. Numbers rise in the
//! order of the queue. An entry that comes and goes between two saves is never written to disk.
//!
//! Invariants
//! 1. `of` has one element for each entry of the queue, in the same order, with rising numbers.
//! 2. If the disk has no entry, or an outdated one, its number is in `changed`; an entry that is on disk and
//!    no longer in the queue is in `gone`.

use std::collections::VecDeque;

/// The entries of one session on disk.
#[derive(Debug, Default)]
pub(super) struct SavedEntries {
    of: VecDeque<SavedEntry>,
    last: u64,
    changed: Vec<u64>,
    gone: Vec<SavedEntry>,
    /// The last save with packet identifiers that were given before their publications are sent. Until it is
    /// committed, none of these publications may be sent.
    pub(super) gate: u64,
}

/// An entry as the disk has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SavedEntry {
    /// Its number.
    pub(super) number: u64,
    /// The number of its publication; 0 if it has none, [`UNSAVED`] if the disk does not have the entry.
    pub(super) publication: u64,
}

/// The disk does not have the entry.
pub(super) const UNSAVED: u64 = u64::MAX;

impl SavedEntries {
    /// For a queue of which nothing is on disk.
    pub(super) fn new(entries: usize) -> SavedEntries {
        let mut saved = SavedEntries::default();
        (0..entries).for_each(|_| saved.push());
        saved
    }

    /// For a queue that is on disk, with entries that are to be removed from the disk.
    pub(super) fn restored(of: VecDeque<SavedEntry>, gone: Vec<SavedEntry>) -> SavedEntries {
        let last = of.back().map_or(0, |entry| entry.number);
        SavedEntries {
            of,
            last,
            gone,
            ..SavedEntries::default()
        }
    }

    /// For a queue that has ended, and of whose entries the disk has these publications.
    pub(super) fn ended(publications: impl Iterator<Item = u64>) -> SavedEntries {
        let entries = publications.map(|publication| SavedEntry {
            number: 0,
            publication,
        });
        SavedEntries {
            gone: entries.collect(),
            ..SavedEntries::default()
        }
    }

    /// The queue has ended: takes one of its entries out.
    pub(super) fn pop(&mut self) -> Option<SavedEntry> {
        self.gone.pop().or_else(|| self.of.pop_front())
    }

    /// The queue has one entry more.
    pub(super) fn push(&mut self) {
        self.last += 1;
        self.of.push_back(SavedEntry {
            number: self.last,
            publication: UNSAVED,
        });
        self.note(self.last);
    }

    /// An entry has changed.
    pub(super) fn change(&mut self, at: usize) {
        let number = self.of[at].number;
        self.note(number);
    }

    /// The queue has lost an entry.
    pub(super) fn remove(&mut self, at: usize) {
        if let Some(entry) = self.of.remove(at)
            && entry.publication != UNSAVED
        {
            self.gone.push(entry);
        }
    }

    fn note(&mut self, number: u64) {
        if self.changed.last() == Some(&number) {
            return;
        }
        if self.changed.len() >= 2 * self.of.len() + CHANGED_MIN {
            // Most of them have changed again, or are gone.
            self.changed.sort_unstable();
            self.changed.dedup();
            let of = &self.of;
            self.changed.retain(|&number| position(of, number).is_some());
        }
        self.changed.push(number);
    }

    /// Whether there are changes for the disk.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// Takes the entries that are to be removed from the disk.
    pub(super) fn take_gone(&mut self) -> Vec<SavedEntry> {
        std::mem::take(&mut self.gone)
    }

    /// The places of the entries that have changed.
    pub(super) fn take_changed(&mut self) -> Vec<usize> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed
            .into_iter()
            .filter_map(|number| position(&self.of, number))
            .collect()
    }

    /// The entry at a place.
    pub(super) fn entry_mut(&mut self, at: usize) -> &mut SavedEntry {
        &mut self.of[at]
    }

    /// The disk has nothing of the queue any more: everything is to be written again. Returns the
    /// publications that it had.
    pub(super) fn begin_again(&mut self) -> Vec<u64> {
        self.changed = self.of.iter().map(|entry| entry.number).collect();
        let gone = std::mem::take(&mut self.gone);
        let all = gone.iter().chain(&self.of).map(|entry| entry.publication);
        let publications = all.filter(|&publication| publication != UNSAVED && publication > 0);
        let publications = publications.collect();
        self.of.iter_mut().for_each(|entry| entry.publication = UNSAVED);
        publications
    }
}

fn position(of: &VecDeque<SavedEntry>, number: u64) -> Option<usize> {
    of.binary_search_by_key(&number, |entry| entry.number).ok()
}

/// Changes of this many entries are noted one by one in any case.
const CHANGED_MIN: usize = 64;
