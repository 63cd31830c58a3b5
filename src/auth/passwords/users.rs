//! All users with a password.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use super::hash::PasswordHash;

/// Users and their passwords.
pub struct Users {
    entries: Vec<(Box<str>, PasswordHash)>,
    places: HashMap<Box<str>, usize>,
    /// Chooses the user whose hash is used for the check of an unknown name.
    unknown_names: RandomState,
    unmatched: PasswordHash,
}

impl Users {
    pub(super) fn new(entries: Vec<(Box<str>, PasswordHash)>) -> Users {
        let places = entries
            .iter()
            .enumerate()
            .map(|(place, (name, _))| (name.clone(), place))
            .collect();
        Users {
            entries,
            places,
            unknown_names: RandomState::new(),
            unmatched: PasswordHash::without_password(),
        }
    }

    /// True if this is the password of that user.
    ///
    /// A check of an unknown name costs as much as one of a known name: each unknown name is checked against
    /// the entry of some user, always the same one. So in a file with several kinds of hashes, unknown names
    /// are cheap or expensive as often as known ones. Takes milliseconds: never call it on a core.
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        let place = self.places.get(name).copied();
        let entry = self
            .entries
            .get(place.unwrap_or_else(|| self.entry_for_unknown(name)));
        let hash = entry.map_or(&self.unmatched, |(_, hash)| hash);
        let right = hash.verify(password);
        right && place.is_some()
    }

    /// The number of users.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The entry that an unknown name is checked against.
    fn entry_for_unknown(&self, name: &str) -> usize {
        let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.unknown_names.hash_one(name) % count).unwrap_or(0)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Users")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}
