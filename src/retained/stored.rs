//! A retained publication as it is stored on disk (`data_dir`), under the name of its topic.
//!
//! ```text
//!   2 | flags 1, those of `entry.rs` | cause 1 | expires at 8 | hash of the publisher 8 | length of properties 4
//!     | properties … | payload …
//! ```
//! Version 1 had neither the cause nor the hash: such a publication counts as retained by a publisher without a client
//! id. Numbers are little-endian, and times are Unix milliseconds. The place in the order is not stored: publications
//! that a former process has retained are older than all publications of this process.

use super::entry::{Cause, Entry, Facts, facts_of, flags_of};

const VERSION: u8 = 2;
const HEAD_BYTES: usize = 23;
const VERSION_1: u8 = 1;

impl Entry {
    /// Appends the value for the disk.
    pub fn write_stored(&self, out: &mut Vec<u8>) {
        let facts = self.facts();
        let properties = self.properties();
        out.reserve(HEAD_BYTES + properties.len() + self.payload().len());
        out.extend_from_slice(&[VERSION, flags_of(&facts), facts.cause.number()]);
        out.extend_from_slice(&facts.expires_at_ms.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&facts.client_hash.to_le_bytes());
        // A packet has fewer than 2^28 bytes (section 2.1.4).
        out.extend_from_slice(&u32::try_from(properties.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(properties);
        out.extend_from_slice(self.payload());
    }

    /// The publication of a topic that [`Entry::write_stored`] has written; `None` if it is in another form. `scratch`
    /// is used.
    pub fn restored(topic: &[u8], value: &[u8], scratch: &mut Vec<u8>) -> Option<Entry> {
        let (&[version, flags], rest) = value.split_first_chunk()?;
        let (cause, rest) = match version {
            VERSION_1 => (Cause::Publisher, rest),
            VERSION => {
                let (&cause, rest) = rest.split_first()?;
                (Cause::of_number(cause), rest)
            }
            _ => return None,
        };
        let (expires_at, rest) = rest.split_first_chunk()?;
        let (client_hash, rest) = match version {
            VERSION_1 => (&[0; 8], rest),
            _ => rest.split_first_chunk()?,
        };
        let (properties_len, rest) = rest.split_first_chunk()?;
        let properties_len = u32::from_le_bytes(*properties_len);
        let (properties, payload) = rest.split_at_checked(properties_len as usize)?;
        let facts = Facts {
            is_restored: true,
            cause,
            client_hash: u64::from_le_bytes(*client_hash),
            ..facts_of(flags, u64::from_le_bytes(*expires_at))
        };
        let is_whole = !topic.is_empty() && u16::try_from(topic.len()).is_ok() && facts.qos <= 2;
        is_whole.then(|| Entry::new(&facts, topic, properties, payload, scratch))
    }
}
