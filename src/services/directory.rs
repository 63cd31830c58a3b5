//! The patterns of all services, as each core knows them: finds the pattern of a name, and the core that owns it.

use std::collections::HashMap;

use super::call::PoolId;
use super::pattern::{Pattern, belongs_to_server};

/// The patterns that have members.
#[derive(Debug, Default)]
pub struct Directory {
    names: ByName,
    prefixes: ByName,
    /// The lengths of the prefixes, the longest first, with how many there are.
    lengths: Vec<(usize, usize)>,
}

/// Clients choose the names, so the hash has a key.
type ByName = HashMap<Box<[u8]>, Entry, foldhash::fast::RandomState>;

/// The owner and the pool of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The core that owns it.
    pub owner: usize,
    /// Its pool there.
    pub pool: PoolId,
    /// The index of its row of `[[services]]`.
    pub row: usize,
}

impl Directory {
    /// Whether no service has registered anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.prefixes.is_empty()
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.names.len() + self.prefixes.len()
    }

    /// A pattern has members.
    pub fn insert(&mut self, pattern: &[u8], entry: Entry) {
        match Pattern::parse(pattern) {
            Some(Pattern::Name(name)) => {
                self.names.insert(name.into(), entry);
            }
            Some(Pattern::Prefix(prefix)) => {
                let before = self.prefixes.insert(prefix.into(), entry);
                if before.is_none() {
                    self.count_length(prefix.len());
                }
            }
            None => {}
        }
    }

    /// A pool has no members any more.
    pub fn remove(&mut self, pattern: &[u8], owner: usize, pool: PoolId) {
        let is_it = |entry: &Entry| entry.owner == owner && entry.pool == pool;
        match Pattern::parse(pattern) {
            Some(Pattern::Name(name)) if self.names.get(name).is_some_and(is_it) => {
                self.names.remove(name);
            }
            Some(Pattern::Prefix(prefix)) if self.prefixes.get(prefix).is_some_and(is_it) => {
                self.prefixes.remove(prefix);
                self.discount_length(prefix.len());
            }
            Some(Pattern::Name(_) | Pattern::Prefix(_)) | None => {}
        }
    }

    /// A core has stopped: removes its pools.
    pub fn remove_of_owner(&mut self, owner: usize) {
        self.names.retain(|_, entry| entry.owner != owner);
        let gone = self.prefixes.extract_if(|_, entry| entry.owner == owner);
        let lengths: Vec<_> = gone.map(|(prefix, _)| prefix.len()).collect();
        lengths
            .into_iter()
            .for_each(|length| self.discount_length(length));
    }

    /// The rows of `[[services]]` have changed: `row_of` returns the new row of a pattern.
    pub fn assign_rows(&mut self, row_of: impl Fn(Pattern<'_>) -> usize) {
        for (name, entry) in &mut self.names {
            entry.row = row_of(Pattern::Name(name));
        }
        for (prefix, entry) in &mut self.prefixes {
            entry.row = row_of(Pattern::Prefix(prefix));
        }
    }

    /// The pattern that matches a name: the name itself, or the longest prefix of it.
    pub fn find(&self, name: &[u8]) -> Option<Entry> {
        if belongs_to_server(name) {
            return None;
        }
        if let Some(entry) = self.names.get(name) {
            return Some(*entry);
        }
        let mut lengths = self.lengths.iter();
        lengths.find_map(|&(length, _)| self.prefixes.get(name.get(..length)?).copied())
    }

    fn count_length(&mut self, length: usize) {
        match self.lengths.binary_search_by(|(other, _)| length.cmp(other)) {
            Ok(at) => self.lengths[at].1 += 1,
            Err(at) => self.lengths.insert(at, (length, 1)),
        }
    }

    fn discount_length(&mut self, length: usize) {
        if let Ok(at) = self.lengths.binary_search_by(|(other, _)| length.cmp(other)) {
            self.lengths[at].1 -= 1;
            if self.lengths[at].1 == 0 {
                self.lengths.remove(at);
            }
        }
    }
}
