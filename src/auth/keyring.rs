//! The keys that verify and sign tokens, and the choice of the key for a token.
//!
//! ```text
//!   kid of the token   keys that are tried
//!   ----------------   -------------------
//!   not read           this server's own key, while no key has an id: as the reference server does
//!   a known id         the keys with that id: the own key, those of the file, fetched keys; at most KEYS_TRIED_MAX
//!   absent             the own key and all keys without an id; if there are none, every key, at most KEYS_TRIED_MAX
//!   anything else      none
//! ```
//!
//! Invariants
//! 1. Once any key has an id, a token that names a key is tried only with keys of that id.
//! 2. Each key has its own list of algorithms, and the token's header can only choose among them. `jwk`,
//!    `jku`, `x5u` and `x5c` in a header are ignored.
//! 3. A fetched key never replaces a key of this server with the same id (that key is tried first), and never
//!    signs.
//!
//! Several keys may have the same id (RFC 7517 section 4.5): each whose algorithms include the token's is
//! tried.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::json::{Json, Kind};
use super::jwks::{KEY_ID_BYTES_MAX, KeySet};
use super::key::{Key, Signer};
use super::keys::Algorithm;

/// All keys of a server.
#[derive(Clone, Default)]
pub(super) struct Keyring {
    own: Option<Arc<Key>>,
    file: Option<Arc<KeySet>>,
    fetched: Option<Arc<KeySet>>,
    /// Asks for a fetch of missing keys; `None` if this server fetches none.
    pub(super) fetch_request: Option<Arc<FetchRequest>>,
    pub(super) signer: Option<Arc<Signer>>,
}

/// The `kid` in a token's header.
enum KeyName {
    /// Absent.
    Absent,
    Id(String),
    /// Present, but not the id of any key.
    Invalid,
}

/// The request of a core to fetch keys, because a token has named an unknown one. The fetcher polls this flag
/// instead of being woken: waking would write to a descriptor, and cores have descriptor tables of their own.
#[derive(Debug, Default)]
pub struct FetchRequest {
    /// Set by the cores, which check tokens; cleared by the fetcher. Relaxed order is enough: a lost or an
    /// extra request is made good by the next one.
    requested: AtomicBool,
}

impl Keyring {
    /// A keyring with one key that has no id.
    pub(super) fn new(key: Key, signer: Option<Signer>) -> Keyring {
        Keyring {
            own: Some(Arc::new(key)),
            signer: signer.map(Arc::new),
            ..Keyring::default()
        }
    }

    /// Gives the own key an id.
    pub(super) fn name_own(&mut self, id: &str) {
        let Some(own) = &self.own else { return };
        self.own = Some(Arc::new(Key::new(
            Some(id.to_owned()),
            Arc::clone(&own.verifying),
        )));
        if let Some(signer) = &self.signer {
            self.signer = Some(Arc::new(signer.named(id)));
        }
    }

    /// Adds the keys of this server's file. If there is no signing key yet, the key with the id `signs_with`
    /// becomes it, or without that id the first key that can sign. False if no key with that id can sign.
    pub(super) fn add_file(&mut self, set: KeySet, signs_with: Option<&str>) -> bool {
        if self.signer.is_none() {
            self.signer = set
                .keys
                .iter()
                .filter_map(|key| key.signer.as_ref())
                .find(|signer| signs_with.is_none() || signer.id() == signs_with)
                .cloned();
        }
        self.file = Some(Arc::new(set));
        signs_with.is_none_or(|id| self.signer.as_ref().is_some_and(|signer| signer.id() == Some(id)))
    }

    /// The keys of this server's file.
    pub(super) fn file(&self) -> Option<&Arc<KeySet>> {
        self.file.as_ref()
    }

    /// Replaces the fetched keys.
    pub(super) fn set_fetched(&mut self, set: Arc<KeySet>) {
        self.fetched = Some(set);
    }

    /// The fetched keys.
    pub(super) fn fetched(&self) -> Option<&Arc<KeySet>> {
        self.fetched.as_ref()
    }

    /// The keys that a token with this header may be verified with, possibly none. The second value tells
    /// whether a fetch may still bring one.
    pub(super) fn candidates(&self, header: Json<'_>) -> (Vec<&Key>, bool) {
        let own = self.own.as_deref();
        let sets = || {
            let sets = [&self.file, &self.fetched].into_iter().flatten();
            sets.flat_map(|set| &set.keys).map(|key| &*key.key)
        };
        let has_ids =
            self.file.is_some() || self.fetch_request.is_some() || own.is_some_and(|own| own.id.is_some());
        if !has_ids {
            return (own.into_iter().collect(), false);
        }
        match KeyName::in_header(header) {
            KeyName::Id(id) => {
                let all = own.into_iter().chain(sets());
                let found: Vec<&Key> = all.filter(|key| key.id.as_ref() == Some(&id)).collect();
                let may_come = found.is_empty() && self.fetch_request.is_some();
                (found, may_come)
            }
            KeyName::Absent => {
                let unnamed = sets().filter(|key| key.id.is_none());
                let mut found: Vec<&Key> = own.into_iter().chain(unnamed).collect();
                if found.is_empty() {
                    found.extend(sets());
                }
                let may_come = found.is_empty() && self.fetch_request.is_some();
                (found, may_come)
            }
            KeyName::Invalid => (Vec::new(), false),
        }
    }

    /// All algorithms that some key verifies, for `Debug`.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let sets = [&self.file, &self.fetched].into_iter().flatten();
        let keys = sets.flat_map(|set| &set.keys).map(|key| &key.key);
        let mut found = Vec::new();
        for algorithm in self
            .own
            .iter()
            .chain(keys)
            .flat_map(|key| key.verifying.algorithms())
        {
            if !found.contains(&algorithm) {
                found.push(algorithm);
            }
        }
        found
    }
}

impl KeyName {
    fn in_header(header: Json<'_>) -> KeyName {
        match header.member("kid").map(Json::kind) {
            None => KeyName::Absent,
            // The id is compared with many, so it is decoded only once, and not at all if it is too long for
            // any.
            Some(Kind::String(text)) if !text.is_longer_than(KEY_ID_BYTES_MAX) => {
                String::from_utf16(&text.units()).map_or(KeyName::Invalid, KeyName::Id)
            }
            Some(
                Kind::String(_) | Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Array | Kind::Object,
            ) => KeyName::Invalid,
        }
    }
}

impl FetchRequest {
    /// Asks for a fetch.
    pub fn request(&self) {
        // Load first: repeated requests then do not invalidate the cache line on other cores.
        if !self.is_requested() {
            self.requested.store(true, Ordering::Relaxed);
        }
    }

    /// True if a fetch has been requested since the last `clear`.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Clears the request, since a fetch begins.
    pub fn clear(&self) {
        self.requested.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Key {
    /// The id and the names of the algorithms.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verifies: Vec<Algorithm> = self.verifying.algorithms().collect();
        formatter
            .debug_struct("Key")
            .field("id", &self.id)
            .field("verifies", &verifies)
            .finish_non_exhaustive()
    }
}

/// Most keys that are tried for one token that names no key, or whose id several keys have.
pub(super) const KEYS_TRIED_MAX: usize = 8;

#[cfg(test)]
mod tests;
