//! Which key a token is checked with, and which one signs.
//!
//! ```text
//!   kid of the token   keys that are tried
//!   ----------------   -------------------
//!   not looked at      the own key, while no key has an id: as the reference does
//!   a known id         the keys of that id: the own one, the file's, those that were fetched; up to a bound
//!   none               the own key and those without an id; if there is none of these, every key, up to a bound
//!   anything else      none
//! ```
//!
//! Invariants
//! 1. A key that is not chosen by its id is never tried for a token that names one, once any key has an id.
//! 2. What a key verifies is its own list of algorithms: a header only chooses among them. `jwk`, `jku`, `x5u` and `x5c`
//!    of a header are not looked at.
//! 3. A fetched key never takes the place of one of this server's with the same id, which is tried first, and never signs.
//!
//! Keys may share an id (RFC 7517 section 4.5): each whose algorithms include the token's is tried.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::json::{Json, Kind};
use super::jwks::{KEY_ID_BYTES_MAX, KeySet};
use super::keys::{Algorithm, SigningKey, VerifyingKey, VerifyingKeys};

/// A key to verify with.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) verifying: Arc<VerifyingKeys>,
}

/// A key to sign with.
pub(super) struct Signer {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    key: Arc<SigningKey>,
}

/// All keys of a server.
#[derive(Clone, Default)]
pub(super) struct Keyring {
    own: Option<Arc<Key>>,
    file: Option<Arc<KeySet>>,
    fetched: Option<Arc<KeySet>>,
    /// Whom to tell that a key is missing which may be had; `None` where none are fetched.
    pub(super) wanted: Option<Arc<WantedKeys>>,
    pub(super) signer: Option<Arc<Signer>>,
}

/// What a token says about its key.
enum Named {
    /// Nothing.
    No,
    As(String),
    /// Something that is the id of no key.
    Wrongly,
}

/// Tells whoever fetches keys that a token has named one that is not known. They look at it now and then: there is no
/// waking, since that would write to a descriptor, and cores have descriptor tables of their own.
#[derive(Debug, Default)]
pub struct WantedKeys {
    /// Set by those who check tokens, reset by the one who fetches keys. Relaxed: it orders nothing, and a word too
    /// many or too few is made good by the next.
    asked: AtomicBool,
}

impl Key {
    pub(super) fn new(id: Option<String>, verifying: impl Into<Arc<VerifyingKeys>>) -> Key {
        Key {
            id,
            verifying: verifying.into(),
        }
    }
}

impl Signer {
    pub(super) fn new(id: Option<String>, algorithm: Algorithm, key: SigningKey) -> Signer {
        Signer {
            id,
            algorithm,
            key: Arc::new(key),
        }
    }

    /// The signature of a message, or `None` if the library fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.key.sign(message)
    }

    /// The id, for the header of tokens.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether what it signs is verified by that key.
    pub(super) fn is_paired_with(&self, key: &Key) -> bool {
        const PROBE: &[u8] = b"probe";
        let Some(signature) = self.sign(PROBE) else {
            return false;
        };
        match key.verifying.find(self.algorithm.name()) {
            // The one key is both.
            Some((_, VerifyingKey::Secret(_))) => true,
            Some((_, VerifyingKey::Public(public))) => public.verify_sig(PROBE, &signature).is_ok(),
            Some((_, VerifyingKey::OtherCurve)) | None => false,
        }
    }
}

impl Keyring {
    /// A ring with one key that has no id.
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
            self.signer = Some(Arc::new(Signer {
                id: Some(id.to_owned()),
                algorithm: signer.algorithm,
                key: Arc::clone(&signer.key),
            }));
        }
    }

    /// Adds the keys of this server's file. If there is no signer yet, the key of id `signs_with` becomes it, or the
    /// first that can sign. False if `signs_with` is the id of none that can.
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

    /// Takes the place of what was fetched before.
    pub(super) fn put_fetched(&mut self, set: Arc<KeySet>) {
        self.fetched = Some(set);
    }

    /// What was fetched.
    pub(super) fn fetched(&self) -> Option<&Arc<KeySet>> {
        self.fetched.as_ref()
    }

    /// The keys that a token with this header may be checked with, or none. The second tells whether one may yet come.
    pub(super) fn candidates(&self, header: Json<'_>) -> (Vec<&Key>, bool) {
        let own = self.own.as_deref();
        let sets = || {
            let sets = [&self.file, &self.fetched].into_iter().flatten();
            sets.flat_map(|set| &set.keys).map(|key| &*key.key)
        };
        let has_ids = self.file.is_some() || self.wanted.is_some() || own.is_some_and(|own| own.id.is_some());
        if !has_ids {
            return (own.into_iter().collect(), false);
        }
        match Named::in_header(header) {
            Named::As(id) => {
                let all = own.into_iter().chain(sets());
                let found: Vec<&Key> = all.filter(|key| key.id.as_ref() == Some(&id)).collect();
                let may_come = found.is_empty() && self.wanted.is_some();
                (found, may_come)
            }
            Named::No => {
                let unnamed = sets().filter(|key| key.id.is_none());
                let mut found: Vec<&Key> = own.into_iter().chain(unnamed).collect();
                if found.is_empty() {
                    found.extend(sets());
                }
                let may_come = found.is_empty() && self.wanted.is_some();
                (found, may_come)
            }
            Named::Wrongly => (Vec::new(), false),
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

impl Named {
    fn in_header(header: Json<'_>) -> Named {
        match header.member("kid").map(Json::kind) {
            None => Named::No,
            // An id is compared with many: it is decoded once, and not at all where it cannot be one.
            Some(Kind::String(text)) if !text.is_longer_than(KEY_ID_BYTES_MAX) => {
                String::from_utf16(&text.units()).map_or(Named::Wrongly, Named::As)
            }
            Some(
                Kind::String(_) | Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Array | Kind::Object,
            ) => Named::Wrongly,
        }
    }
}

impl WantedKeys {
    /// Asks for keys.
    pub fn ask(&self) {
        // A load first: those who ask in vain do not take the cache line from each other.
        if !self.is_asked() {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether somebody has asked since the last answer.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Lets the next one ask again.
    pub fn answered(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Key {
    /// Its id and the names of its algorithms.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verifies: Vec<Algorithm> = self.verifying.algorithms().collect();
        formatter
            .debug_struct("Key")
            .field("id", &self.id)
            .field("verifies", &verifies)
            .finish_non_exhaustive()
    }
}

/// Most keys that a token which names none, or one that several have, is checked with.
pub(super) const KEYS_TRIED_MAX: usize = 8;

#[cfg(test)]
mod tests;
