//! Everybody who has a password.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use super::hash::PasswordHash;

/// Users and their passwords.
pub struct Users {
    entries: Vec<(Box<str>, PasswordHash)>,
    places: HashMap<Box<str>, usize>,
    /// Chooses whose cost a stranger pays.
    stranger: RandomState,
    nobody: PasswordHash,
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
            stranger: RandomState::new(),
            nobody: PasswordHash::of_nobody(),
        }
    }

    /// Whether this is the password of that user.
    ///
    /// A name that nobody has costs as much as one of the file's: each such name is checked against the entry of some
    /// user, always the same, so that in a file of hashes of several kinds strangers are as often cheap or dear as
    /// users are. Takes milliseconds: never on a core.
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        let place = self.places.get(name).copied();
        let entry = self.entries.get(place.unwrap_or_else(|| self.of_stranger(name)));
        let hash = entry.map_or(&self.nobody, |(_, hash)| hash);
        let right = hash.verify(password);
        right && place.is_some()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whose entry somebody is checked against who has none.
    fn of_stranger(&self, name: &str) -> usize {
        let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.stranger.hash_one(name) % count).unwrap_or(0)
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
