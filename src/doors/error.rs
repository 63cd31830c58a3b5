//! Why the doors cannot be opened as configured.

use std::fmt;
use std::io;

use super::tls::TlsError;
use super::{KeysError, RevocationsError};
use crate::config::rules::RuleFault;
use crate::login::PasswordFileError;

/// Why there are no doors. Each is one line that says what to do.
#[derive(Debug)]
pub enum DoorsError {
    /// The keys of tokens are not right.
    Keys(KeysError),
    /// TLS cannot be spoken.
    Tls(TlsError),
    /// The password file is not right.
    Passwords(PasswordFileError),
    /// The system refuses the threads that check passwords.
    Desk(io::Error),
    /// A rule's pattern is none.
    Rules(RuleFault),
    /// `jwks_url` is set or not, other than at the start.
    KeysFetched,
    /// The file of revocations is not right.
    Revocations(RevocationsError),
}

impl fmt::Display for DoorsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DoorsError::Keys(error) => error.fmt(formatter),
            DoorsError::Tls(error) => error.fmt(formatter),
            DoorsError::Passwords(error) => error.fmt(formatter),
            DoorsError::Desk(error) => {
                write!(formatter, "login_threads: the system refuses a thread: {error}")
            }
            DoorsError::Rules(fault) => fault.fmt(formatter),
            DoorsError::KeysFetched => formatter.write_str(
                "jwks_url has been set, or is not set any more, since the start: that needs a restart",
            ),
            DoorsError::Revocations(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for DoorsError {}

impl From<PasswordFileError> for DoorsError {
    fn from(error: PasswordFileError) -> DoorsError {
        DoorsError::Passwords(error)
    }
}

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

impl From<TlsError> for DoorsError {
    fn from(error: TlsError) -> DoorsError {
        DoorsError::Tls(error)
    }
}

impl From<RevocationsError> for DoorsError {
    fn from(error: RevocationsError) -> DoorsError {
        DoorsError::Revocations(error)
    }
}
