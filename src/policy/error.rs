//! The errors of reading the policy that the configuration describes.

use std::fmt;
use std::io;

use super::tls::TlsError;
use super::{KeysError, RevocationsError};
use crate::config::ListFault;
use crate::login::PasswordFileError;

/// Why the policy cannot be read. Each error is one line that says what to do.
#[derive(Debug)]
pub enum PolicyError {
    /// The keys for tokens are missing or wrong.
    #[doc(hidden)]
    Keys(KeysError),
    /// The certificates or keys of TLS are missing or wrong.
    #[doc(hidden)]
    Tls(TlsError),
    /// The password file is wrong.
    #[doc(hidden)]
    Passwords(PasswordFileError),
    /// The system refuses the threads that check passwords.
    #[doc(hidden)]
    PasswordChecks(io::Error),
    /// The system refuses the thread that asks hooks.
    #[doc(hidden)]
    Hooks(io::Error),
    /// A rule, a policy of channels, an API key or a hook is wrong.
    #[doc(hidden)]
    List(ListFault),
    /// A reload would turn fetching keys on or off.
    #[doc(hidden)]
    JwksUrlChanged,
    /// The file of revocations is wrong.
    #[doc(hidden)]
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
            PolicyError::Hooks(error) => write!(formatter, "hooks: the system refuses a thread: {error}"),
            PolicyError::List(fault) => fault.fmt(formatter),
            PolicyError::JwksUrlChanged => formatter
                .write_str("jwks_url was set or removed since the start: restart the server to apply that"),
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

impl From<ListFault> for PolicyError {
    fn from(fault: ListFault) -> PolicyError {
        PolicyError::List(fault)
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
