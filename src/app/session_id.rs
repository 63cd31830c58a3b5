//! The id of a session: 15 bytes, or 20 characters of URL-safe base64, as in the reference (wire reference, section 5).
//!
//! `session/ids.rs` makes them.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The id of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; SessionId::BYTES]);

/// The text is not the id of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSessionId;

impl SessionId {
    pub(crate) const fn new(bytes: [u8; SessionId::BYTES]) -> SessionId {
        SessionId(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; SessionId::BYTES] {
        &self.0
    }

    /// How many bytes it has.
    pub(crate) const BYTES: usize = 15;

    /// How many characters it prints as.
    pub const TEXT_BYTES: usize = 20;

    /// The characters, in `buffer`.
    pub fn write<'a>(&self, buffer: &'a mut [u8; Self::TEXT_BYTES]) -> &'a str {
        // This takes two thirds of the instructions of the library, which is made for long data: a service
        // gets the id with each call.
        let (threes, _) = self.0.as_chunks::<3>();
        let (fours, _) = buffer.as_chunks_mut::<4>();
        for (&[first, second, third], four) in threes.iter().zip(fours) {
            let bits = u32::from_be_bytes([0, first, second, third]);
            *four = [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize]);
        }
        std::str::from_utf8(buffer).expect("base64 is ASCII")
    }
}

/// The characters of URL-safe base64 (RFC 4648, section 5).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl FromStr for SessionId {
    type Err = NotSessionId;

    /// Reads the text that [`SessionId::write`] writes.
    fn from_str(text: &str) -> Result<SessionId, NotSessionId> {
        let mut bytes = [0; SessionId::BYTES];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(SessionId::BYTES) => Ok(SessionId(bytes)),
            Ok(_) | Err(_) => Err(NotSessionId),
        }
    }
}

impl fmt::Display for NotSessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a session's id has 20 letters, digits, `-` and `_`")
    }
}

impl std::error::Error for NotSessionId {}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.write(&mut [0; Self::TEXT_BYTES]))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
