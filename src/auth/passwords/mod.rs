//! Stored passwords: checks the password of a user who has no token yet.
//!
//! Pure: the text of a password file, names, passwords and salts come in; results and texts go out. The
//! callers read and replace the file, and choose the thread: checking a password takes milliseconds by design
//! and must never run on a core.
//!
//! ```text
//!   # a comment
//!   alice:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH     what `ringcast passwd` writes; the PHC string format
//!   bob:$7$101$SALT$HASH                               Mosquitto 2: PBKDF2-SHA512, iterations, base64
//!   carol:$6$SALT$HASH                                 Mosquitto 1.6: one SHA-512 of password and salt
//! ```

mod entry;
mod file;
mod hash;
mod users;

pub use entry::{NAME_BYTES_MAX, NameFault, check_name};
pub use file::{FileFault, FileFaultKind, PasswordFile};
pub use hash::{
    HashFault, ITERATIONS_DEFAULT, ITERATIONS_MAX, PASSWORD_BYTES_MAX, PasswordHash, SALT_BYTES_ARGON2ID,
    SALT_BYTES_PBKDF2,
};
pub use users::Users;

#[cfg(test)]
mod tests;
