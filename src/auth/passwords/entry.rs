//! The names of users that a password file can hold.

use std::fmt;

use crate::text;

/// Why a text cannot be the name of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// It is empty.
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong,
    /// It contains a `:`, which ends the name in the file.
    Colon,
    /// It begins with a `#`, which makes the line a comment.
    Hash,
    /// It begins or ends with white space, which readers of the file remove, or has a character without
    /// width, which cannot be typed.
    Blank,
    /// It contains a control character.
    Control,
}

/// Checks that a password file can hold this name unchanged.
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameFault::TooLong);
    }
    if name.contains(':') {
        return Err(NameFault::Colon);
    }
    if name.starts_with('#') {
        return Err(NameFault::Hash);
    }
    // A byte order mark does not count as a control character but is just as invisible.
    if name.contains('\u{feff}') || name.chars().any(char::is_control) {
        return Err(NameFault::Control);
    }
    if text::has_unseen_ends(name) {
        return Err(NameFault::Blank);
    }
    Ok(())
}

/// Longest name of a user, in bytes. An e-mail address has at most 254.
pub const NAME_BYTES_MAX: usize = 1024;

impl fmt::Display for NameFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameFault::Empty => formatter.write_str("the name of the user is empty"),
            NameFault::TooLong => {
                write!(
                    formatter,
                    "the name of the user has more than {NAME_BYTES_MAX} bytes"
                )
            }
            NameFault::Colon => {
                formatter.write_str("the name of the user must not contain the ':' character")
            }
            NameFault::Hash => {
                formatter.write_str("the name of the user must not begin with '#', which begins a comment")
            }
            NameFault::Blank => formatter.write_str(
                "the name of the user must not begin or end with white space or contain characters without \
                 width",
            ),
            NameFault::Control => {
                formatter.write_str("the name of the user must not contain control characters")
            }
        }
    }
}

impl std::error::Error for NameFault {}
