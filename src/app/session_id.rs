//! The ids that clients are given.
//!
//! As in the reference, 15 bytes, 20 characters of URL-safe base64: random ones, then a 32-bit counter (wire reference,
//! section 5). The random ones are a keyed hash of the counter, so that one key from the system serves for all ids of a
//! core and none can be guessed from others. Ids of different cores differ by their keys.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The id of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 15]);

impl SessionId {
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

/// Makes the ids of one core.
#[derive(Debug)]
pub struct SessionIds {
    key: hmac::Key,
    /// Ids made so far. Its low half is the counter in an id.
    count: u64,
}

impl SessionIds {
    /// A generator with a key of its own from the system.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new() -> Result<SessionIds, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(SessionIds {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            count: 0,
        })
    }

    /// An id that was never given before.
    pub fn next_id(&mut self) -> SessionId {
        let count = self.count.to_be_bytes();
        self.count += 1;
        let tag = hmac::sign(&self.key, &count);
        let mut id = [0; 15];
        id.copy_from_slice(&tag.as_ref()[..15]);
        id[11..].copy_from_slice(&count[4..]);
        SessionId(id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_have_the_form_of_the_reference() {
        let mut ids = SessionIds::new().unwrap();
        let first = ids.next_id().to_string();
        assert_eq!(first.len(), 20);
        assert!(
            first
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        // The counter's low bits are its last characters, as in the recordings.
        assert!(first.ends_with("AAAA"));
        assert!(ids.next_id().to_string().ends_with("AAAB"));
    }

    #[test]
    fn ids_differ_within_a_core_and_between_cores() {
        let mut cores = [SessionIds::new().unwrap(), SessionIds::new().unwrap()];
        let ids: HashSet<_> = cores
            .iter_mut()
            .flat_map(|ids| (0..1000).map(|_| ids.next_id()).collect::<Vec<_>>())
            .collect();
        assert_eq!(ids.len(), 2000);
    }
}
