//! A retained publication as it lies on disk (`data_dir`), under the name of its topic.
//!
//! ```text
//!   1 | flags 1, those of `entry.rs` | expires at 8 | length of properties 4 | properties … | payload …
//! ```
//! Numbers are little-endian, and times are Unix milliseconds. The place in the order is not kept: what a former process
//! has retained is older than everything that this one publishes.

use super::entry::{Entry, Facts, facts_of, flags_of};
use crate::broker::Sequence;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 14;

impl Entry {
    /// Appends the value for the disk.
    pub fn write_stored(&self, out: &mut Vec<u8>) {
        let facts = self.facts();
        let properties = self.properties();
        out.reserve(HEAD_BYTES + properties.len() + self.payload().len());
        out.extend_from_slice(&[VERSION, flags_of(&facts)]);
        out.extend_from_slice(&facts.expires_at_ms.unwrap_or(0).to_le_bytes());
        // A packet has fewer than 2^28 bytes (section 2.1.4).
        out.extend_from_slice(&u32::try_from(properties.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(properties);
        out.extend_from_slice(self.payload());
    }

    /// The publication of a topic that [`Entry::write_stored`] has written; `None` if it is in another form. `scratch` is
    /// used.
    pub fn restored(topic: &[u8], value: &[u8], scratch: &mut Vec<u8>) -> Option<Entry> {
        let (head, rest) = value.split_first_chunk::<HEAD_BYTES>()?;
        let (&[VERSION, flags], head) = head.split_first_chunk()? else {
            return None;
        };
        let (expires_at, properties_len) = head.split_first_chunk()?;
        let properties_len = u32::from_le_bytes(properties_len.try_into().ok()?);
        let (properties, payload) = rest.split_at_checked(properties_len as usize)?;
        let facts = Facts {
            is_restored: true,
            ..facts_of(flags, Sequence(0), u64::from_le_bytes(*expires_at))
        };
        let is_whole = !topic.is_empty() && u16::try_from(topic.len()).is_ok() && facts.qos <= 2;
        is_whole.then(|| Entry::new(&facts, topic, properties, payload, scratch))
    }
}
