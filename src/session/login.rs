//! The answer to a login.

use crate::auth::Issued;

/// The answer to a [`Decision::Login`](crate::decision::Decision::Login).
pub enum LoginAnswer {
    /// The user name and the password were right. Here is a token for that user.
    Accepted(Issued),
    /// The user name or the password was wrong.
    Refused,
    /// Too many earlier logins have failed: these credentials were not checked.
    TooSoon {
        /// Whole seconds until a login will be checked again.
        retry_after_seconds: u64,
    },
    /// The user name and the password were right, but no token could be signed.
    Unsigned,
    /// Too many logins wait to be checked: these credentials were not checked.
    Busy,
}
