//! The name of a user, as a password file can hold it.

use std::fmt;

use crate::text;

/// Why a text is no name of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// There is none.
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong,
    /// A `:`, which ends the name in the file.
    Colon,
    /// A `#` at its beginning, which makes the line a comment.
    Hash,
    /// White space at an end, which readers of the file cut off, or a character without width, which nobody types.
    Blank,
    /// A control character.
    Control,
}

/// Whether a password file can hold this name and give it back as it is.
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
    // A byte order mark is no control character, and is as invisible.
    if name.contains('\u{feff}') || name.chars().any(char::is_control) {
        return Err(NameFault::Control);
    }
    if text::has_unseen_ends(name) {
        return Err(NameFault::Blank);
    }
    Ok(())
}

/// Longest name of a user, in bytes. An address for mail has at most 254.
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
                formatter.write_str("the name of the user must not begin with '#': that is a comment")
            }
            NameFault::Blank => formatter.write_str(
                "the name of the user must not begin or end with white space or characters of no width",
            ),
            NameFault::Control => {
                formatter.write_str("the name of the user must not contain control characters")
            }
        }
    }
}

impl std::error::Error for NameFault {}
