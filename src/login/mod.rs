//! The login password_checks: whether somebody is who he claims to be.
//!
//! ```text
//!   core ──ask──► intake ──► thread "login queue" ──► queue ──► thread "login 0" ──► back-off ──► hash ──► answer
//!        ◄── given back when it is full     │           │                                │         │
//!                                           ├── TooSoon └── Busy, when another           └ TooSoon └ Refused, Welcome
//!                                           └── Busy        has a better claim
//! ```
//!
//! Checking a password takes milliseconds and megabytes by design, so it never runs on a core: a core asks without
//! waiting, and the answer is a closure that runs on a thread of the password_checks. That thread is the whole budget of hashing, and
//! `queue.rs` shares it by network: one customer's flood of logins delays and displaces that customer's own.
//!
//! | what is refused | outcome | the client is told |
//! |---|---|---|
//! | a user, an address or both have failed too often ([`backoff`]) | `too_soon` | 429 or `LoginTooSoonError`, when to try again |
//! | the queue is full, and most of what waits is of the newcomer's own network | `busy` | 503 or `LoginBusyError`, at once |
//! | the queue is full, and a newcomer of another network or a familiar one takes the place | `displaced` | the same, after it has waited |
//! | more have come than the thread of the queue could look at ([`INTAKE_MAX`]) | `busy` | the same, at once |
//!
//! Against guessing there is [`backoff`], against learning who has an account there is
//! [`Users::verify`](crate::auth::passwords::Users::verify): a stranger costs what a user costs, in time and in words.
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
pub use file::{PasswordFileError, Warning, read};
pub(crate) use password_checks::under_way_max;
pub use password_checks::{Answer, INTAKE_MAX, PasswordChecks, Settings};

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
    /// Too many wait, and others of them have a better claim: not tried.
    Busy,
}

#[cfg(test)]
mod tests;
