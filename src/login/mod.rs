//! The login desk: whether somebody is who he claims to be.
//!
//! ```text
//!   core ──ask──► bounded channel ──► thread "login 0" ──► back-off ──► hash ──► answer (on that thread)
//!        ◄── given back when it is full                       │          │
//!                                                             └── Verdict: TooSoon │ Refused │ Welcome
//! ```
//!
//! Checking a password takes milliseconds and megabytes by design, so it never runs on a core: a core asks without
//! waiting, and the answer is a closure that runs on a thread of the desk. That thread is the whole budget of hashing:
//! who floods the desk waits, and so do other logins, while those who are in notice nothing.
//!
//! Against guessing there is [`backoff`], against learning who has an account there is
//! [`Users::verify`](crate::auth::passwords::Users::verify): a stranger costs what a user costs, in time and in words.
//!
//! Limits: `logins_waiting_max`, `login_failures_max`, `login_backoff_ms_max` and `login_accounts_max` of
//! [`Limits`](crate::config::limits::Limits), shown by `ringcast_logins_total` and
//! `ringcast_login_accounts_forgotten_total`.

pub mod backoff;
mod desk;
mod file;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

pub use desk::{Answer, LoginDesk, Settings};
pub(crate) use file::FILE_BYTES_MAX;
pub use file::{PasswordFileError, Warning, read};

/// What somebody claims to be.
#[derive(Debug)]
pub struct Attempt {
    /// The name, as it was sent. No name is refused out of hand: one that nobody can have is checked like the others.
    pub user: String,
    /// The password, as it was sent.
    pub password: Password,
    /// The real address of the client, behind balancers too.
    pub address: IpAddr,
}

/// A password in memory: never shown, and wiped when it is dropped.
pub struct Password(Zeroizing<Vec<u8>>);

/// What comes of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// He is.
    Welcome {
        /// The claims of the token to sign: a JSON object with the name as `sub`, which JWT knows, and as `username`,
        /// which SocketCluster's applications know.
        claims: String,
    },
    /// There is no such user, or this is not the password. Nobody is told which.
    Refused,
    /// Too many have failed from this address, or as this user: not even tried.
    TooSoon {
        /// When it will be; never zero.
        retry_after: Duration,
    },
}

impl Password {
    /// Takes it over. Copies that were made before are the caller's to wipe.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Password {
        Password(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for checking alone.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(crate::config::secret::Secret::HIDDEN)
    }
}

#[cfg(test)]
mod tests;
