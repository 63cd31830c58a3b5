//! The id of a session: 15 bytes, or 20 characters of URL-safe base64, as in the reference (wire reference, section 5).
//!
//! `session/ids.rs` makes them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The id of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; SessionId::BYTES]);

impl SessionId {
    pub(crate) const fn new(bytes: [u8; SessionId::BYTES]) -> SessionId {
        SessionId(bytes)
    }

    /// How many bytes it has.
    pub(crate) const BYTES: usize = 15;

    /// How many characters it prints as.
    pub const TEXT_BYTES: usize = 20;

    /// The characters, in `buffer`.
    pub fn write<'a>(&self, buffer: &'a mut [u8; Self::TEXT_BYTES]) -> &'a str {
        URL_SAFE_NO_PAD
            .encode_slice(self.0, buffer)
            .expect("15 bytes are 20 characters of base64");
        std::str::from_utf8(buffer).expect("base64 is ASCII")
    }
}

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
