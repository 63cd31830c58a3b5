//! Why the policy cannot be opened as configured.

use std::fmt;
use std::io;

use super::tls::TlsError;
use super::{KeysError, RevocationsError};
use crate::config::rules::RuleFault;
use crate::login::PasswordFileError;

/// Why there are no policy. Each is one line that says what to do.
#[derive(Debug)]
pub enum PolicyError {
    /// The keys of tokens are not right.
    Keys(KeysError),
    /// TLS cannot be spoken.
    Tls(TlsError),
    /// The password file is not right.
    Passwords(PasswordFileError),
    /// The system refuses the threads that check passwords.
    PasswordChecks(io::Error),
    /// A rule's pattern is none.
    Rules(RuleFault),
    /// `jwks_url` is set or not, other than at the start.
    KeysFetched,
    /// The file of revocations is not right.
    Revocations(RevocationsError),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::Keys(error) => error.fmt(formatter),
            PolicyError::Tls(error) => error.fmt(formatter),
            PolicyError::Passwords(error) => error.fmt(formatter),
            PolicyError::PasswordChecks(error) => {
                write!(formatter, "login_threads: the system refuses a thread: {error}")
            }
            PolicyError::Rules(fault) => fault.fmt(formatter),
            PolicyError::KeysFetched => formatter.write_str(
                "jwks_url has been set, or is not set any more, since the start: that needs a restart",
            ),
            PolicyError::Revocations(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for PolicyError {}

impl From<PasswordFileError> for PolicyError {
    fn from(error: PasswordFileError) -> PolicyError {
        PolicyError::Passwords(error)
    }
}

impl From<RuleFault> for PolicyError {
    fn from(fault: RuleFault) -> PolicyError {
        PolicyError::Rules(fault)
    }
}

impl From<KeysError> for PolicyError {
    fn from(error: KeysError) -> PolicyError {
        PolicyError::Keys(error)
    }
}

impl From<TlsError> for PolicyError {
    fn from(error: TlsError) -> PolicyError {
        PolicyError::Tls(error)
    }
}

impl From<RevocationsError> for PolicyError {
    fn from(error: RevocationsError) -> PolicyError {
        PolicyError::Revocations(error)
    }
}
