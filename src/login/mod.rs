//! Password checks for logins: decides whether a client has the password of the user that it names.
//!
//! ```text
//!   core ──submit──► intake ──► thread "login queue" ──► queue ──► thread "login 0" ──► back-off ──► hash ──► answer
//!        ◄── Err, if it is full     │           │                                  │           │
//!                                   ├─ TooSoon  └─ Busy, if another attempt        └ TooSoon   └ Refused, Accepted
//!                                   └─ Busy        displaces this one
//! ```
//!
//! Checking a password takes milliseconds and megabytes by design, so it never runs on a core. A core submits
//! an attempt without waiting; the answer is a closure that runs on a thread of the password checks. These
//! threads are all the CPU time that hashing gets, and `queue.rs` shares it by network: a flood of logins
//! from one customer delays and displaces only that customer's own attempts.
//!
//! | why an attempt is not checked | outcome | answer to the client |
//! |---|---|---|
//! | the user, the address or both have failed too often ([`backoff`]) | `too_soon` | 429 or `LoginTooSoonError`, with the time to wait |
//! | the queue is full, and most attempts in it are from this attempt's own network | `busy` | 503 or `LoginBusyError`, at once |
//! | the queue is full, and an attempt from another network, or a familiar one, displaces this one | `displaced` | the same, after some time in the queue |
//! | the intake is full, since more attempts came than the queue's thread could take ([`INTAKE_MAX`]) | `busy` | the same, at once |
//!
//! [`backoff`] protects against guessing of passwords.
//! [`Users::verify`](crate::auth::passwords::Users::verify) keeps clients from finding out which users exist:
//! a check of an unknown user takes the same time and gets the same answer as one with a wrong password.
//!
//! Limits: `logins_waiting_max`, `login_failures_max`, `login_backoff_ms_max` and `login_accounts_max` of
//! [`Limits`](crate::config::limits::Limits), shown by `ringcast_logins_total` and
//! `ringcast_login_accounts_forgotten_total`.

pub mod backoff;
mod file;
mod password_checks;
mod queue;

use std::net::IpAddr;
use std::time::Duration;

pub use crate::auth::Password;
pub(crate) use file::FILE_BYTES_MAX;
pub use file::{PasswordFileError, PasswordFileWarning, read};
pub(crate) use password_checks::pending_max;
pub use password_checks::{INTAKE_MAX, LoginCallback, PasswordCheckSettings, PasswordChecks};

/// An attempt to log in.
#[derive(Debug)]
pub struct Attempt {
    /// The name as the client sent it. A name that no user can have is checked like any other, so that it
    /// takes as long.
    pub user: String,
    /// The password as the client sent it.
    pub password: Password,
    /// The real address of the client, also behind load balancers.
    pub address: IpAddr,
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginVerdict {
    /// The password is right.
    Accepted {
        /// The claims of the token to sign: a JSON object with the name as `sub`, which JWT defines, and as
        /// `username`, which SocketCluster applications use.
        claims: String,
    },
    /// There is no such user, or the password is wrong. The client does not learn which.
    Refused,
    /// There were too many failures from this address or of this user: the password was not checked.
    TooSoon {
        /// How long to wait; never zero.
        retry_after: Duration,
    },
    /// Too many attempts wait, and others take precedence: the password was not checked.
    Busy,
}

#[cfg(test)]
mod tests;
