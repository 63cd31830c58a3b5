//! Publications that wait for sessions, or for acknowledgements of their clients: one copy for all sessions of a core.
//!
//! ```text
//!   copy   [ facts 1 | expires at 8, if it does | lengths: ids 2, topic 2, properties 4
//!            | ids … | topic … | properties … | payload … ]
//! ```
//! Numbers are little-endian, since the disk gets the same bytes (`stored.rs`). A copy lasts as long as a
//! session holds it. While a publication is delivered ([`KeptPublications::keep`], until
//! [`KeptPublications::end_publication`]), further sessions share its copy. Subscription identifiers belong to
//! a subscriber, so a session with other identifiers gets another copy.
//!
//! Invariant: `bytes` is the sum of [`Kept::memory_bytes`] of all copies, and a copy has as many holders as
//! there are entries that name it, plus one while it is the newest copy of the delivery under way.

use std::collections::HashMap;

use crate::mqtt::shares::Tag;
use crate::slab::Slab;

/// The content of a publication, apart from the subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// The topic's name.
    pub topic: &'a [u8],
    /// The properties that are passed on to subscribers of version 5, in the order of the publisher.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// When it expires, in milliseconds since 1970.
    pub expires_at: Option<u64>,
    /// Whether the publisher says that the payload is UTF-8 (Payload Format Indicator 1).
    pub is_utf8: bool,
    /// What the payload has lost of the JSON that a SocketCluster client has published.
    pub quotes: Quotes,
}

/// The quotes of a JSON string, or what base64 has in their place, in the payload that MQTT clients get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quotes {
    /// The payload is as it was published.
    #[default]
    Kept,
    /// They would be removed, but the payload is neither a string nor base64.
    Absent,
    /// They are removed.
    Removed,
}

/// The subscription identifiers that a publication is kept with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids<'a>(&'a [u8]);

impl Ids<'_> {
    /// The identifiers.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        let (ids, _) = self.0.as_chunks();
        ids.iter().map(|&id| u32::from_le_bytes(id))
    }
}

/// A copy of a publication, outside the ring, on its way from a group to one of its members. The member's session
/// keeps these bytes as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPublication(Box<[u8]>);

impl SharedPublication {
    /// A copy for a member with this subscription identifier; 0: none.
    pub fn new(content: &Content<'_>, id: u32) -> SharedPublication {
        SharedPublication(match id {
            0 => write(content, &[]),
            id => write(content, &[id]),
        })
    }

    /// The same for another member.
    pub fn with_id(self, id: u32) -> SharedPublication {
        match self.id() == id {
            true => self,
            false => SharedPublication::new(&self.content(), id),
        }
    }

    /// The topic, the properties and the payload, as they were published.
    pub fn content(&self) -> Content<'_> {
        read(&self.0).0
    }

    /// The subscription identifier of the member; 0: none.
    pub fn id(&self) -> u32 {
        read(&self.0).1.iter().next().unwrap_or(0)
    }

    /// Bytes of the copy.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Names a copy. Each holder must give it back by [`KeptPublications::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptRef(u32);

#[derive(Debug)]
pub(super) struct KeptPublications {
    copies: Slab<Kept>,
    bytes: usize,
    /// The newest copy of the publication that is delivered now.
    under_way: Option<KeptRef>,
    /// The copies of publications that a group has given to a session of this core, by their numbers.
    tags: HashMap<u32, Tag>,
    /// The numbers of publications that the disk has, by those of their copies.
    saved: HashMap<u32, u64>,
    /// Publications of groups that no session needs any more.
    settled: Vec<Tag>,
    given_back: Vec<(Tag, SharedPublication)>,
}

#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    holders: u32,
}

impl KeptPublications {
    pub(super) fn new() -> KeptPublications {
        KeptPublications {
            copies: Slab::new(),
            bytes: 0,
            under_way: None,
            tags: HashMap::new(),
            saved: HashMap::new(),
            settled: Vec::new(),
            given_back: Vec::new(),
        }
    }

    /// The next publication to keep is another one.
    #[inline]
    pub(super) fn end_publication(&mut self) {
        if let Some(kept) = self.under_way.take() {
            self.release(kept);
        }
    }

    /// Keeps a publication for one more session, whose subscriptions have these identifiers.
    pub(super) fn keep(&mut self, content: &Content<'_>, ids: &[u32]) -> KeptRef {
        if let Some(newest) = self.under_way
            && self.has_copy(ids)
        {
            self.copies[newest.0 as usize].holders += 1;
            return newest;
        }
        self.end_publication();
        let kept = self.add(Kept {
            bytes: write(content, ids),
            holders: 2,
        });
        self.under_way = Some(kept);
        kept
    }

    /// Whether the publication under way is kept already for a session whose subscriptions have these identifiers.
    pub(super) fn has_copy(&self, ids: &[u32]) -> bool {
        self.under_way.is_some_and(|newest| {
            let copy = &self.copies[newest.0 as usize];
            read(&copy.bytes).1.iter().eq(ids.iter().copied())
        })
    }

    /// The bytes of memory that are freed when this holder releases the publication; 0 if there are other
    /// holders.
    pub(super) fn bytes_of_last_holder(&self, kept: KeptRef) -> usize {
        let copy = &self.copies[kept.0 as usize];
        if copy.holders == 1 { copy.memory_bytes() } else { 0 }
    }

    /// Keeps a publication that a group has given to a session. No other session shares the copy: when the
    /// session is done with it, the group is told.
    pub(super) fn keep_tagged(&mut self, publication: SharedPublication, tag: Tag) -> KeptRef {
        let kept = self.add(Kept {
            bytes: publication.0,
            holders: 1,
        });
        self.tags.insert(kept.0, tag);
        kept
    }

    fn add(&mut self, copy: Kept) -> KeptRef {
        self.bytes += copy.memory_bytes();
        let index = self.copies.insert(copy);
        KeptRef(u32::try_from(index).expect("4 billion publications do not fit into memory"))
    }

    /// Whether a group has given the publication to the session.
    pub(super) fn is_tagged(&self, kept: KeptRef) -> bool {
        !self.tags.is_empty() && self.tags.contains_key(&kept.0)
    }

    /// The session ends, and its client has not got the publication: if it came from a group, another member
    /// is to get it.
    pub(super) fn give_back(&mut self, kept: KeptRef) {
        if let Some(tag) = self.tags.remove(&kept.0) {
            let publication = SharedPublication(self.copies[kept.0 as usize].bytes.clone());
            self.given_back.push((tag, publication));
        }
        self.release(kept);
    }

    /// Whether [`KeptPublications::next_settled`] or [`KeptPublications::take_given_back`] has something.
    #[inline]
    pub(super) fn has_results_for_groups(&self) -> bool {
        !self.settled.is_empty() || !self.given_back.is_empty()
    }

    /// The next publication of a group that sessions are done with.
    pub(super) fn next_settled(&mut self) -> Option<Tag> {
        self.settled.pop()
    }

    /// A publication of a group that is to go to another member.
    pub(super) fn take_given_back(&mut self) -> Vec<(Tag, SharedPublication)> {
        std::mem::take(&mut self.given_back)
    }

    /// The publication, and the subscription identifiers with which it is kept.
    pub(super) fn get(&self, kept: KeptRef) -> (Content<'_>, Ids<'_>) {
        read(&self.copies[kept.0 as usize].bytes)
    }

    /// The size by which the publication counts in the queue of a session.
    pub(super) fn size(&self, kept: KeptRef) -> u32 {
        u32::try_from(self.copies[kept.0 as usize].bytes.len()).unwrap_or(u32::MAX)
    }

    /// One session holds it no longer.
    pub(super) fn release(&mut self, kept: KeptRef) {
        let copy = &mut self.copies[kept.0 as usize];
        copy.holders -= 1;
        if copy.holders == 0 {
            self.bytes -= copy.memory_bytes();
            self.copies.remove(kept.0 as usize);
            if !self.saved.is_empty() {
                self.saved.remove(&kept.0);
            }
            if !self.tags.is_empty()
                && let Some(tag) = self.tags.remove(&kept.0)
            {
                self.settled.push(tag);
            }
        }
    }

    /// The number of a publication on disk, and its bytes if the disk does not have it: then it has got the
    /// number `next`.
    pub(super) fn saved_number(
        &mut self,
        kept: KeptRef,
        next: u64,
        is_on_disk: impl FnOnce(u64) -> bool,
    ) -> (u64, Option<&[u8]>) {
        if let Some(&number) = self.saved.get(&kept.0)
            && is_on_disk(number)
        {
            return (number, None);
        }
        self.saved.insert(kept.0, next);
        (next, Some(&self.copies[kept.0 as usize].bytes))
    }

    /// Keeps a publication that the disk has, for one holder.
    pub(super) fn restore(&mut self, bytes: &[u8], number: u64) -> KeptRef {
        let copy = Kept {
            bytes: bytes.into(),
            holders: 1,
        };
        let kept = self.add(copy);
        self.saved.insert(kept.0, number);
        kept
    }

    /// One session more holds it.
    pub(super) fn hold(&mut self, kept: KeptRef) {
        self.copies[kept.0 as usize].holders += 1;
    }

    /// Bytes of memory of all copies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many copies there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }
}

impl KeptRef {
    /// Its number, for the compact entry of a queue.
    pub(super) const fn number(self) -> u32 {
        self.0
    }

    pub(super) const fn from_number(number: u32) -> KeptRef {
        KeptRef(number)
    }
}

impl Kept {
    fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of::<Option<Kept>>()
    }
}

#[cfg(test)]
impl KeptPublications {
    /// The first broken invariant, if `holders` says how often each copy is held.
    pub(super) fn broken_invariant(&self, holders: &std::collections::BTreeMap<u32, u32>) -> Option<String> {
        let mut bytes = 0;
        for (number, copy) in self.copies.iter() {
            bytes += copy.memory_bytes();
            let held = holders.get(&u32::try_from(number).unwrap_or(u32::MAX)).copied();
            if held != Some(copy.holders) {
                return Some(format!(
                    "copy {number} has {} holders, not {held:?}",
                    copy.holders
                ));
            }
        }
        let (counted, copies) = (self.bytes, self.copies.len());
        if counted != bytes || copies != holders.len() {
            return Some(format!(
                "{counted} bytes of {copies} copies, not {bytes} of {}",
                holders.len()
            ));
        }
        if !self.settled.is_empty() || !self.given_back.is_empty() || self.under_way.is_some() {
            return Some("groups are to be told something, or a publication is under way".to_owned());
        }
        None
    }

    /// The publications that groups have given.
    pub(super) fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tags.values()
    }
}

/// Bytes of memory that the copy of a publication takes.
#[inline]
pub(super) fn memory_bytes_of(content: &Content<'_>, ids: &[u32]) -> usize {
    let facts_bytes = 1 + if content.expires_at.is_some() { 8 } else { 0 };
    facts_bytes
        + LENGTHS_BYTES
        + size_of_val(ids)
        + content.topic.len()
        + content.properties.len()
        + content.payload.len()
        + size_of::<Option<Kept>>()
}

fn write(content: &Content<'_>, ids: &[u32]) -> Box<[u8]> {
    let Content {
        topic,
        properties,
        payload,
        expires_at,
        is_utf8,
        quotes,
    } = *content;
    let size = LENGTHS_BYTES + 9 + size_of_val(ids) + topic.len() + properties.len() + payload.len();
    let mut bytes = Vec::with_capacity(size);
    let quotes = match quotes {
        Quotes::Kept => 0,
        Quotes::Absent => QUOTES_ABSENT,
        Quotes::Removed => QUOTES_REMOVED,
    };
    bytes.push((u8::from(is_utf8) * IS_UTF8) | (u8::from(expires_at.is_some()) * EXPIRES) | quotes);
    if let Some(expires_at) = expires_at {
        bytes.extend_from_slice(&expires_at.to_le_bytes());
    }
    // More identifiers than that do not fit: some are left out rather than the publication.
    let ids = &ids[..ids.len().min(usize::from(u16::MAX))];
    for length in [ids.len(), topic.len()] {
        let length = u16::try_from(length).expect("MQTT bounds the length of topics");
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    let properties_bytes = u32::try_from(properties.len()).expect("a packet has less than 256 MiB");
    bytes.extend_from_slice(&properties_bytes.to_le_bytes());
    ids.iter()
        .for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
    for part in [topic, properties, payload] {
        bytes.extend_from_slice(part);
    }
    bytes.into_boxed_slice()
}

fn read(bytes: &[u8]) -> (Content<'_>, Ids<'_>) {
    let facts = bytes[0];
    let (expires_at, rest) = if facts & EXPIRES == 0 {
        (None, &bytes[1..])
    } else {
        let (at, rest) = bytes[1..].split_at(8);
        (Some(u64::from_le_bytes(number(at))), rest)
    };
    let (lengths, rest) = rest.split_at(LENGTHS_BYTES);
    let ids = u16::from_le_bytes(number(&lengths[..2])) as usize;
    let topic = u16::from_le_bytes(number(&lengths[2..4])) as usize;
    let properties = u32::from_le_bytes(number(&lengths[4..])) as usize;
    let (ids, rest) = rest.split_at(ids * size_of::<u32>());
    let (topic, rest) = rest.split_at(topic);
    let (properties, payload) = rest.split_at(properties);
    let content = Content {
        topic,
        properties,
        payload,
        expires_at,
        is_utf8: facts & IS_UTF8 != 0,
        quotes: match facts & (QUOTES_ABSENT | QUOTES_REMOVED) {
            0 => Quotes::Kept,
            QUOTES_ABSENT => Quotes::Absent,
            _ => Quotes::Removed,
        },
    };
    (content, Ids(ids))
}

/// Whether these are the bytes of a copy.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let is_whole = || {
        let (&facts, rest) = bytes.split_first()?;
        let expiry = if facts & EXPIRES == 0 { 0 } else { 8 };
        let (_, rest) = rest.split_at_checked(expiry)?;
        let (lengths, rest) = rest.split_at_checked(LENGTHS_BYTES)?;
        let ids = u16::from_le_bytes(number(&lengths[..2])) as usize;
        let topic = u16::from_le_bytes(number(&lengths[2..4])) as usize;
        let properties = u32::from_le_bytes(number(&lengths[4..])) as usize;
        (rest.len() >= ids * size_of::<u32>() + topic + properties).then_some(())
    };
    is_whole().is_some()
}

fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes
        .try_into()
        .expect("the caller takes as many bytes as the number has")
}

const IS_UTF8: u8 = 1;
const EXPIRES: u8 = 2;
const QUOTES_ABSENT: u8 = 4;
const QUOTES_REMOVED: u8 = 8;
const LENGTHS_BYTES: usize = 2 + 2 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_what_the_publication_said() {
        let mut kept = KeptPublications::new();
        for expires_at in [None, Some(u64::MAX), Some(7)] {
            for (properties, payload, is_utf8, quotes, ids) in [
                (&b""[..], &b""[..], false, Quotes::Kept, &[][..]),
                (b"", b"21", true, Quotes::Absent, &[]),
                (
                    b"\x26\x00\x01a\x00\x01b",
                    b"21",
                    true,
                    Quotes::Removed,
                    &[7, (1 << 28) - 1],
                ),
            ] {
                let content = Content {
                    topic: b"a/b",
                    properties,
                    payload,
                    expires_at,
                    is_utf8,
                    quotes,
                };
                let copy = kept.keep(&content, ids);
                assert_eq!(kept.get(copy).0, content);
                assert!(kept.get(copy).1.iter().eq(ids.iter().copied()));
                assert_eq!(kept.bytes(), memory_bytes_of(&content, ids));
                kept.end_publication();
                kept.release(copy);
            }
        }
        assert_eq!((kept.len(), kept.bytes()), (0, 0));
    }

    #[test]
    fn sessions_share_a_copy_unless_their_identifiers_differ() {
        let mut kept = KeptPublications::new();
        let content = Content {
            topic: b"t",
            properties: b"",
            payload: &[b'x'; 1000],
            expires_at: None,
            is_utf8: false,
            quotes: Quotes::Kept,
        };
        let copies: Vec<_> = (0..100).map(|_| kept.keep(&content, &[])).collect();
        assert_eq!(kept.len(), 1);
        let other = kept.keep(&content, &[1]);
        assert_eq!(kept.len(), 2);
        kept.end_publication();
        let next = kept.keep(&content, &[1]);
        assert_eq!(kept.len(), 3, "the next publication is another one");
        kept.end_publication();
        copies
            .into_iter()
            .chain([other, next])
            .for_each(|copy| kept.release(copy));
        assert_eq!((kept.len(), kept.bytes()), (0, 0));
    }
}
