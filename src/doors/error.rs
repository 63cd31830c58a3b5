//! Why the doors cannot be opened as configured.

use std::fmt;

use super::KeysError;
use crate::config::rules::RuleFault;

/// Why there are no doors. Each is one line that says what to do.
#[derive(Debug)]
pub enum DoorsError {
    /// The keys of tokens are not right.
    Keys(KeysError),
    /// A rule's pattern is none.
    Rules(RuleFault),
}

impl fmt::Display for DoorsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DoorsError::Keys(error) => error.fmt(formatter),
            DoorsError::Rules(fault) => fault.fmt(formatter),
        }
    }
}

impl std::error::Error for DoorsError {}

impl From<RuleFault> for DoorsError {
    fn from(fault: RuleFault) -> DoorsError {
        DoorsError::Rules(fault)
    }
}

impl From<KeysError> for DoorsError {
    fn from(error: KeysError) -> DoorsError {
        DoorsError::Keys(error)
    }
}
