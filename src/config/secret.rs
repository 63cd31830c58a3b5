//! A value that cannot be printed.
//!
//! Not here: wiping memory. A key stays in use for as long as the process lives.

use std::fmt;
use std::sync::Arc;

/// A key. It has no `Display`, and its `Debug` shows `…`.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Keeps `bytes` secret.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into().into())
    }

    /// The bytes, only for signing and checking.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether `guess` is this secret, in a time that does not depend on where they differ.
    pub fn matches(&self, guess: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, guess).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Secret::HIDDEN)
    }
}

impl Secret {
    /// The text that stands for a secret wherever settings are shown.
    pub const HIDDEN: &'static str = "…";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("topsecret")), "…");
        assert_eq!(format!("{:?}", Some(Secret::new("topsecret"))), "Some(…)");
    }

    #[test]
    fn only_the_whole_secret_matches() {
        let secret = Secret::new("topsecret");
        assert!(secret.matches(b"topsecret"));
        for guess in ["", "topsecre", "topsecrets", "topsecreT"] {
            assert!(!secret.matches(guess.as_bytes()), "{guess}");
        }
    }
}
