//! A key with its id, which verifies or signs tokens.

use std::sync::Arc;

use super::keys::{Algorithm, SigningKey, VerifyingKey, VerifyingKeys};

/// A key that verifies tokens.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) verifying: Arc<VerifyingKeys>,
}

/// A key that signs tokens.
pub(super) struct Signer {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    key: Arc<SigningKey>,
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

    /// The same key with this id.
    pub(super) fn named(&self, id: &str) -> Signer {
        Signer {
            id: Some(id.to_owned()),
            algorithm: self.algorithm,
            key: Arc::clone(&self.key),
        }
    }

    /// The signature of a message, or `None` if the library fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.key.sign(message)
    }

    /// The key's id, for the header of tokens.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// True if that key verifies the signatures of this one.
    pub(super) fn is_paired_with(&self, key: &Key) -> bool {
        const PROBE: &[u8] = b"probe";
        let Some(signature) = self.sign(PROBE) else {
            return false;
        };
        match key.verifying.find(self.algorithm.name()) {
            // An HMAC key is both.
            Some((_, VerifyingKey::Secret(_))) => true,
            Some((_, VerifyingKey::Public(public))) => public.verify_sig(PROBE, &signature).is_ok(),
            Some((_, VerifyingKey::OtherCurve)) | None => false,
        }
    }
}
