//! The subscriptions of one connection, found by their channels.
//!
//! A short list is sorted and searched; a long one is a tree. In a sorted list of ten thousand, each subscribe and
//! unsubscribe moved 60 KB on average: 256 of them, as many as one connection may have in a turn, took a millisecond.

use std::collections::BTreeMap;

use super::held::Entry;
use crate::slab::shrink;

/// Entries in ascending order of their channels, each once.
#[derive(Debug)]
pub(super) enum Entries {
    Few(Vec<Entry>),
    Many(BTreeMap<u32, Entry>),
}

impl Entries {
    pub(super) fn two(mut entries: [Entry; 2]) -> Entries {
        entries.sort_unstable_by_key(|entry| entry.channel);
        Entries::Few(entries.to_vec())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Entries::Few(list) => list.len(),
            Entries::Many(tree) => tree.len(),
        }
    }

    pub(super) fn has(&self, channel: u32) -> bool {
        match self {
            Entries::Few(list) => place(list, channel).is_ok(),
            Entries::Many(tree) => tree.contains_key(&channel),
        }
    }

    pub(super) fn get(&self, channel: u32) -> Option<Entry> {
        match self {
            Entries::Few(list) => place(list, channel).ok().map(|at| list[at]),
            Entries::Many(tree) => tree.get(&channel).copied(),
        }
    }

    pub(super) fn get_mut(&mut self, channel: u32) -> Option<&mut Entry> {
        match self {
            Entries::Few(list) => place(list, channel).ok().map(|at| &mut list[at]),
            Entries::Many(tree) => tree.get_mut(&channel),
        }
    }

    /// Adds the entry of a channel that has none yet.
    pub(super) fn insert(&mut self, entry: Entry) {
        match self {
            Entries::Few(list) if list.len() < FEW_MAX => {
                let at = place(list, entry.channel).unwrap_or_else(|at| at);
                list.insert(at, entry);
            }
            Entries::Few(list) => {
                let all = list.drain(..).chain([entry]);
                *self = Entries::Many(all.map(|entry| (entry.channel, entry)).collect());
            }
            Entries::Many(tree) => {
                tree.insert(entry.channel, entry);
            }
        }
    }

    pub(super) fn remove(&mut self, channel: u32) -> Option<Entry> {
        match self {
            Entries::Few(list) => {
                let at = place(list, channel).ok()?;
                let entry = list.remove(at);
                shrink(list);
                Some(entry)
            }
            Entries::Many(tree) => {
                let entry = tree.remove(&channel)?;
                if tree.len() <= FEW_MAX / 2 {
                    *self = Entries::Few(tree.values().copied().collect());
                }
                Some(entry)
            }
        }
    }

    pub(super) fn to_vec(&self) -> Vec<Entry> {
        self.some(0, usize::MAX)
    }

    /// At most `max` entries, from `from` on.
    pub(super) fn some(&self, from: u32, max: usize) -> Vec<Entry> {
        match self {
            Entries::Few(list) => {
                let at = place(list, from).unwrap_or_else(|at| at);
                list[at..].iter().take(max).copied().collect()
            }
            Entries::Many(tree) => tree.range(from..).take(max).map(|(_, entry)| *entry).collect(),
        }
    }
}

/// The index of a channel's entry, or the index at which it would be inserted.
fn place(entries: &[Entry], channel: u32) -> Result<usize, usize> {
    // Most connections subscribe to new channels, whose ids rise.
    match entries.last() {
        Some(last) if last.channel < channel => Err(entries.len()),
        _ => entries.binary_search_by_key(&channel, |entry| entry.channel),
    }
}

/// As many entries as twelve cache lines hold. Tests use both forms with a handful of entries.
const FEW_MAX: usize = if cfg!(test) { 4 } else { 64 };
