//! One retained publication: one piece of memory, which the owner of the topic shares with cores that send it.
//!
//! ```text
//!   [ sequence 8 | expires at 8 | hash of the publisher 8 | length of properties 4 | of topic 2 | flags 1 | cause 1
//!     | topic … | properties … | payload … ]
//!     flags: QoS in bits 0 and 1 | the payload is text 2 | it is JSON of a SocketCluster client 3 | expires 4 | restored 5
//!            | for clients of the other protocol, in bits 6 and 7: of JSON, whether a string loses its quotes; else the rule
//! ```
//! The levels of the topic are separated by U+0000, which no topic contains (MQTT-4.7.3-2), instead of `/`. So topics
//! sort level by level, and all topics below a level lie side by side.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::broker::Sequence;
use crate::config::channels::MqttPayload;

/// The facts of a retained publication besides its topic, its properties and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its place in the order of all publications; 0 if it is restored.
    pub sequence: Sequence,
    /// Whether a former process has published it, so that it is older than all publications of this one.
    pub is_restored: bool,
    /// The QoS with which it was published.
    pub qos: u8,
    /// Whether its publisher says that the payload is UTF-8.
    pub is_text: bool,
    /// Whether the payload is JSON of a SocketCluster client.
    pub is_json: bool,
    /// Whether MQTT clients get a string, and base64, without the JSON around it. False of other payloads than JSON.
    pub is_unquoted: bool,
    /// The data that SocketCluster clients get for the payload; `Json` of JSON.
    pub payload_rule: MqttPayload,
    /// Why it is retained.
    pub cause: Cause,
    /// A hash of the publisher's client id that is the same in all processes; 0: it has none.
    pub client_hash: u64,
    /// When it expires, in Unix milliseconds; `None`: never.
    pub expires_at_ms: Option<u64>,
}

/// Why a publication is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its publisher has asked for it, by RETAIN 1 or `$retain`. It stays until a client clears it.
    Publisher,
    /// The policy of the channel (`last_value`). The publication is dropped with the policy, or with the history.
    Policy,
}

/// A retained publication. Entries are ordered by their topics.
#[derive(Clone, Debug)]
pub struct Entry(Arc<[u8]>);

impl Entry {
    /// An entry. `topic` has at most 65,535 bytes, as topics do, and `scratch` is used.
    pub fn new(
        facts: &Facts,
        topic: &[u8],
        properties: &[u8],
        payload: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Entry {
        scratch.clear();
        scratch.reserve(HEAD_BYTES + topic.len() + properties.len() + payload.len());
        let flags = flags_of(facts);
        scratch.extend_from_slice(&facts.sequence.as_u64().to_le_bytes());
        scratch.extend_from_slice(&facts.expires_at_ms.unwrap_or(0).to_le_bytes());
        scratch.extend_from_slice(&facts.client_hash.to_le_bytes());
        scratch.extend_from_slice(&u32::try_from(properties.len()).unwrap_or(u32::MAX).to_le_bytes());
        scratch.extend_from_slice(&u16::try_from(topic.len()).unwrap_or(u16::MAX).to_le_bytes());
        scratch.extend_from_slice(&[flags, facts.cause.number()]);
        write_key(topic, scratch);
        scratch.extend_from_slice(properties);
        scratch.extend_from_slice(payload);
        Entry(Arc::from(&scratch[..]))
    }

    /// Its facts.
    pub fn facts(&self) -> Facts {
        Facts {
            sequence: self.sequence(),
            cause: self.cause(),
            client_hash: self.number(2),
            ..facts_of(self.0[FLAGS_AT], self.number(1))
        }
    }

    /// Its place in the order.
    pub fn sequence(&self) -> Sequence {
        Sequence(self.number(0))
    }

    /// Whether it was published before a place in the order.
    pub fn is_before(&self, place: Sequence) -> bool {
        self.0[FLAGS_AT] >> RESTORED & 1 != 0 || self.sequence() < place
    }

    /// When it expires.
    pub fn expires_at_ms(&self) -> Option<u64> {
        (self.0[FLAGS_AT] >> EXPIRES & 1 != 0).then(|| self.number(1))
    }

    /// Why it is retained.
    pub fn cause(&self) -> Cause {
        Cause::of_number(self.0[FLAGS_AT + 1])
    }

    /// Appends the topic.
    pub fn write_topic(&self, out: &mut Vec<u8>) {
        write_topic(self.key(), out);
    }

    /// The properties that are passed on, as they came.
    pub fn properties(&self) -> &[u8] {
        let start = HEAD_BYTES + self.topic_len();
        &self.0[start..start + self.properties_len()]
    }

    /// The publication.
    pub fn payload(&self) -> &[u8] {
        &self.0[HEAD_BYTES + self.topic_len() + self.properties_len()..]
    }

    /// The bytes that it counts for: its memory, and its share of the index.
    pub fn memory_bytes(&self) -> usize {
        self.0.len() + INDEX_BYTES
    }

    /// Its place in the order of topics: a page may begin there.
    pub fn place(&self) -> &[u8] {
        self.key()
    }

    /// The topic, with its levels separated by [`LEVEL`].
    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        &self.0[HEAD_BYTES..HEAD_BYTES + self.topic_len()]
    }

    fn number(&self, at: usize) -> u64 {
        let (numbers, _) = self.0.as_chunks();
        u64::from_le_bytes(numbers[at])
    }

    fn properties_len(&self) -> usize {
        u32::from_le_bytes([self.0[24], self.0[25], self.0[26], self.0[27]]) as usize
    }

    #[inline]
    fn topic_len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[28], self.0[29]]))
    }
}

impl Facts {
    /// Whether the client of this hash has published it; 0 is none.
    pub fn is_by(&self, client_hash: u64) -> bool {
        client_hash != 0 && self.client_hash == client_hash
    }
}

impl Cause {
    /// Its number in memory and on disk.
    pub(super) const fn number(self) -> u8 {
        match self {
            Cause::Publisher => 0,
            Cause::Policy => 1,
        }
    }

    /// The cause with this number.
    pub(super) const fn of_number(number: u8) -> Cause {
        match number {
            1 => Cause::Policy,
            _ => Cause::Publisher,
        }
    }
}

/// The flags of a publication.
pub(super) fn flags_of(facts: &Facts) -> u8 {
    facts.qos & QOS_MASK
        | u8::from(facts.is_text) << TEXT
        | u8::from(facts.is_json) << JSON
        | u8::from(facts.expires_at_ms.is_some()) << EXPIRES
        | u8::from(facts.is_restored) << RESTORED
        | for_the_other_protocol(facts) << OTHER
}

/// The facts in the flags of a publication; `expires_at_ms` has no meaning if it does not expire.
pub(super) fn facts_of(flags: u8, expires_at_ms: u64) -> Facts {
    let has = |bit: u8| flags >> bit & 1 != 0;
    Facts {
        sequence: Sequence(0),
        cause: Cause::Publisher,
        client_hash: 0,
        is_restored: has(RESTORED),
        qos: flags & QOS_MASK,
        is_text: has(TEXT),
        is_json: has(JSON),
        is_unquoted: has(JSON) && has(OTHER),
        payload_rule: match has(JSON) {
            true => MqttPayload::Json,
            false => MqttPayload::of_number(flags >> OTHER),
        },
        expires_at_ms: has(EXPIRES).then_some(expires_at_ms),
    }
}

/// Two bits about the form for clients of the other protocol than the publisher's.
fn for_the_other_protocol(facts: &Facts) -> u8 {
    match facts.is_json {
        true => u8::from(facts.is_unquoted),
        false => facts.payload_rule.number(),
    }
}

/// Appends a topic as entries have it.
pub(super) fn write_key(topic: &[u8], out: &mut Vec<u8>) {
    out.extend(topic.iter().map(|&byte| if byte == b'/' { LEVEL } else { byte }));
}

/// Appends the topic of which this is the key.
pub(super) fn write_topic(key: &[u8], out: &mut Vec<u8>) {
    out.extend(key.iter().map(|&byte| if byte == LEVEL { b'/' } else { byte }));
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Entry {
    #[inline]
    fn cmp(&self, other: &Entry) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

/// The separator between the levels of a topic.
pub(super) const LEVEL: u8 = 0;
const HEAD_BYTES: usize = 32;
const FLAGS_AT: usize = 30;
/// The overhead of an entry beside its bytes: 16 for the counts of the shared memory, up to 16 that the allocator
/// rounds up by, and 16 in a node of the tree, which is half full in the worst case, with the node's own bytes: 40.
const INDEX_BYTES: usize = 72;
const QOS_MASK: u8 = 0b11;
const TEXT: u8 = 2;
const JSON: u8 = 3;
const EXPIRES: u8 = 4;
const RESTORED: u8 = 5;
const OTHER: u8 = 6;
