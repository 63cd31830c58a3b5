//! Why the doors cannot be opened as configured.

use std::fmt;
use std::io;

use super::KeysError;
use crate::login::PasswordFileError;

/// Why there are no doors. Each is one line that says what to do.
#[derive(Debug)]
pub enum DoorsError {
    /// The keys of tokens are not right.
    Keys(KeysError),
    /// The password file is not right.
    Passwords(PasswordFileError),
    /// The system refuses the threads that check passwords.
    Desk(io::Error),
}

impl fmt::Display for DoorsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DoorsError::Keys(error) => error.fmt(formatter),
            DoorsError::Passwords(error) => error.fmt(formatter),
            DoorsError::Desk(error) => {
                write!(formatter, "login_threads: the system refuses a thread: {error}")
            }
        }
    }
}

impl std::error::Error for DoorsError {}

impl From<PasswordFileError> for DoorsError {
    fn from(error: PasswordFileError) -> DoorsError {
        DoorsError::Passwords(error)
    }
}

impl From<KeysError> for DoorsError {
    fn from(error: KeysError) -> DoorsError {
        DoorsError::Keys(error)
    }
}
