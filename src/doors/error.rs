//! Why the doors cannot be opened as configured.

use std::fmt;

use super::{KeysError, RevocationsError};

/// Why there are no doors. Each is one line that says what to do.
#[derive(Debug)]
pub enum DoorsError {
    /// The keys of tokens are not right.
    Keys(KeysError),
    /// The file of revocations is not right.
    Revocations(RevocationsError),
}

impl fmt::Display for DoorsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DoorsError::Keys(error) => error.fmt(formatter),
            DoorsError::Revocations(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for DoorsError {}

impl From<KeysError> for DoorsError {
    fn from(error: KeysError) -> DoorsError {
        DoorsError::Keys(error)
    }
}

impl From<RevocationsError> for DoorsError {
    fn from(error: RevocationsError) -> DoorsError {
        DoorsError::Revocations(error)
    }
}
