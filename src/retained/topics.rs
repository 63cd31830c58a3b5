//! The retained publications of the topics that a core owns.
//!
//! A walk for a filter is done in pages: each looks at a bounded number of topics, and says where the next one begins.
//! A change between two pages is seen if it lies behind that place, and not if it lies before it. A topic that exists
//! all the time is in exactly one page.
//!
//! Invariant: `bytes` is the sum of [`Entry::memory_bytes`] of all entries. It is at most `bytes_max`, and there are at
//! most `count_max` entries.
//!
//! Limits: `mqtt_retained_bytes_max` and `mqtt_retained_count_max`, in equal shares for each core.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::entry::{Cause, Entry, Facts, LEVEL, write_key, write_topic};
use super::filter::{Filter, Step};
use crate::broker::Sequence;

/// The retained publications of one core.
#[derive(Debug)]
pub struct Retained {
    entries: BTreeSet<Entry>,
    bytes: usize,
    bounds: Bounds,
    /// No entry expires before this time, in Unix milliseconds.
    next_expiry_ms: u64,
    /// During a search for expired entries: the next topic to look at, and the earliest expiry so far.
    sweep: Option<(Vec<u8>, u64)>,
    expired: u64,
    /// The keys of the topics whose publications differ from the disk; `None` without a disk.
    unsaved: Option<BTreeSet<Box<[u8]>>>,
    scratch: Vec<u8>,
}

/// The bounds of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most publications.
    pub count_max: usize,
    /// Most bytes of memory.
    pub bytes_max: usize,
}

/// The outcome of a publication with RETAIN 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// It is the retained publication of its topic.
    Retained,
    /// It has no payload, so its topic has none any more.
    Cleared,
    /// There are `mqtt_retained_count_max` of them. The former one of the topic was dropped.
    TooMany,
    /// They take `mqtt_retained_bytes_max`. The former one of the topic was dropped.
    TooLarge,
}

/// A part of the retained publications that a filter matches.
#[derive(Debug)]
pub struct Page {
    /// The publications, by topic.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<Box<[u8]>>,
}

impl Retained {
    /// None.
    pub fn new(bounds: Bounds) -> Retained {
        Retained {
            entries: BTreeSet::new(),
            bytes: 0,
            bounds,
            next_expiry_ms: u64::MAX,
            sweep: None,
            expired: 0,
            unsaved: None,
            scratch: Vec::new(),
        }
    }

    /// Notes from now on which topics have changed, for [`Retained::save`].
    pub fn begin_saving(&mut self) {
        self.unsaved = Some(BTreeSet::new());
    }

    /// Adds a retained publication of a former process. Without room, it is not retained.
    pub fn restore(&mut self, entry: Entry) -> Set {
        let (key, bytes) = (Box::from(entry.key()), entry.memory_bytes());
        let set = if self.entries.len() >= self.bounds.count_max {
            Set::TooMany
        } else if self.bytes + bytes > self.bounds.bytes_max {
            Set::TooLarge
        } else {
            self.bytes += bytes;
            self.next_expiry_ms = self.next_expiry_ms.min(entry.expires_at_ms().unwrap_or(u64::MAX));
            self.entries.insert(entry);
            return Set::Retained;
        };
        self.note_unsaved(key);
        set
    }

    /// Calls `save` for topics that have changed, with the publication that each has now, as long as it returns true.
    /// Topics of the server itself (`$SYS`) are for one process.
    pub fn save(&mut self, mut save: impl FnMut(&[u8], Option<&Entry>) -> bool) {
        let Some(unsaved) = &mut self.unsaved else { return };
        let mut topic = std::mem::take(&mut self.scratch);
        while let Some(key) = unsaved.pop_first() {
            topic.clear();
            write_topic(&key, &mut topic);
            if !save(&topic, self.entries.get(&*key)) {
                unsaved.insert(key);
                break;
            }
        }
        self.scratch = topic;
    }

    /// Whether [`Retained::save`] has something to do.
    pub fn has_unsaved(&self) -> bool {
        self.unsaved.as_ref().is_some_and(|unsaved| !unsaved.is_empty())
    }

    fn note_unsaved(&mut self, key: Box<[u8]>) {
        if let Some(unsaved) = &mut self.unsaved
            && !key.starts_with(OF_THE_SERVER)
        {
            unsaved.insert(key);
        }
    }

    /// Takes a publication with RETAIN 1, which is newer than all before. `topic` is a legal one. Without room, the
    /// publication is not retained, and the older one of its topic is dropped, because subscribers would take it for
    /// the newest.
    pub fn set(&mut self, facts: &Facts, topic: &[u8], properties: &[u8], payload: &[u8]) -> Set {
        if payload.is_empty() {
            self.clear(topic);
            return Set::Cleared;
        }
        let entry = Entry::new(facts, topic, properties, payload, &mut self.scratch);
        if self.unsaved.is_some() {
            self.note_unsaved(entry.key().into());
        }
        let bytes = entry.memory_bytes();
        let older = self.entries.get(entry.key()).map(Entry::memory_bytes);
        let (count, others) = (
            self.entries.len() - usize::from(older.is_some()),
            self.bytes - older.unwrap_or(0),
        );
        let refused = if count >= self.bounds.count_max {
            Some(Set::TooMany)
        } else if others + bytes > self.bounds.bytes_max {
            Some(Set::TooLarge)
        } else {
            None
        };
        if let Some(refused) = refused {
            if older.is_some() {
                self.remove(&entry);
            }
            return refused;
        }
        if let Some(expires_at_ms) = facts.expires_at_ms {
            self.next_expiry_ms = self.next_expiry_ms.min(expires_at_ms);
        }
        self.bytes = others + bytes;
        self.entries.replace(entry);
        Set::Retained
    }

    /// Forgets the publication of a topic.
    fn clear(&mut self, topic: &[u8]) {
        let mut key = std::mem::take(&mut self.scratch);
        key.clear();
        write_key(topic, &mut key);
        if let Some(gone) = self.entries.take(&key[..]) {
            self.bytes -= gone.memory_bytes();
            self.note_unsaved(key[..].into());
        }
        self.scratch = key;
    }

    fn remove(&mut self, entry: &Entry) {
        if let Some(gone) = self.entries.take(entry.key()) {
            self.bytes -= gone.memory_bytes();
        }
    }

    fn remove_all(&mut self, gone: Vec<Entry>) {
        for entry in gone {
            self.remove(&entry);
            if self.unsaved.is_some() {
                self.note_unsaved(entry.key().into());
            }
        }
    }

    /// A page of the publications that a filter matches and that were published before a place: from the topic `from`
    /// on, or from the first. It looks at `visits_max` topics at most, and has at most `entries_max` entries and about
    /// `bytes_max` bytes, but may have any one.
    pub fn page(
        &self,
        filter: &Filter,
        from: Option<&[u8]>,
        before: Sequence,
        now_ms: u64,
        limits: PageLimits,
    ) -> Page {
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        let is_wanted = |entry: &Entry| {
            entry.is_before(before) && entry.expires_at_ms().is_none_or(|expires| now_ms < expires)
        };
        if let Some(topic) = filter.exact() {
            let found = self.entries.get(topic).filter(|entry| is_wanted(entry));
            page.entries.extend(found.cloned());
            return page;
        }
        let mut from = from.map_or_else(|| filter.first(), <[u8]>::to_vec);
        let (mut visits, mut bytes) = (0, 0);
        'seek: loop {
            let range = (Bound::Included(&from[..]), Bound::Unbounded);
            for entry in self.entries.range::<[u8], _>(range) {
                if visits == limits.visits_max
                    || page.entries.len() == limits.entries_max
                    || bytes >= limits.bytes_max
                {
                    page.next = Some(entry.key().into());
                    return page;
                }
                visits += 1;
                match filter.step(entry.key()) {
                    Step::Take if is_wanted(entry) => {
                        bytes += entry.memory_bytes();
                        page.entries.push(entry.clone());
                    }
                    Step::Take => {}
                    Step::Seek(next) => {
                        from = next;
                        continue 'seek;
                    }
                    Step::End => return page,
                }
            }
            return page;
        }
    }

    /// The publication of a topic.
    pub fn get(&self, topic: &[u8], now_ms: u64) -> Option<Entry> {
        let mut key = Vec::with_capacity(topic.len());
        write_key(topic, &mut key);
        let found = self.entries.get(&key[..]);
        found
            .filter(|entry| entry.expires_at_ms().is_none_or(|expires| now_ms < expires))
            .cloned()
    }

    /// Forgets the publication of a topic if only the policy of the channel has retained it.
    pub fn forget_last_value(&mut self, topic: &[u8]) {
        let mut key = Vec::with_capacity(topic.len());
        write_key(topic, &mut key);
        if self
            .entries
            .get(&key[..])
            .is_some_and(|entry| entry.cause() == Cause::Policy)
        {
            self.clear(topic);
        }
    }

    /// Looks at so many topics at most, from this one of [`Entry::place`] on, and forgets the publications that `keeps`
    /// does not want. Topics of the server itself stay. Returns where to go on.
    pub fn review(
        &mut self,
        from: &[u8],
        visits_max: usize,
        mut keeps: impl FnMut(&[u8], Cause) -> bool,
    ) -> Option<Box<[u8]>> {
        let mut topic = std::mem::take(&mut self.scratch);
        let (mut gone, mut next) = (Vec::new(), None);
        let range = (Bound::Included(from), Bound::Unbounded);
        for (visited, entry) in self.entries.range::<[u8], _>(range).enumerate() {
            if visited == visits_max {
                next = Some(entry.key().into());
                break;
            }
            topic.clear();
            entry.write_topic(&mut topic);
            if !entry.key().starts_with(OF_THE_SERVER) && !keeps(&topic, entry.cause()) {
                gone.push(entry.clone());
            }
        }
        self.scratch = topic;
        self.remove_all(gone);
        next
    }

    /// Forgets publications that have expired, looking at so many topics at most. Returns whether it has to go on.
    pub fn sweep(&mut self, now_ms: u64, visits_max: usize) -> bool {
        let (from, mut earliest) = match self.sweep.take() {
            Some(under_way) => under_way,
            None if self.next_expiry_ms <= now_ms => {
                // From now on this is the earliest expiry of entries that are set during the search.
                self.next_expiry_ms = u64::MAX;
                (Vec::new(), u64::MAX)
            }
            None => return false,
        };
        let mut gone = Vec::new();
        let mut next = None;
        let range = (Bound::Included(&from[..]), Bound::Unbounded);
        for (visited, entry) in self.entries.range::<[u8], _>(range).enumerate() {
            if visited == visits_max {
                next = Some(entry.key().to_vec());
                break;
            }
            match entry.expires_at_ms() {
                Some(expires) if expires <= now_ms => gone.push(entry.clone()),
                Some(expires) => earliest = earliest.min(expires),
                None => {}
            }
        }
        self.expired += gone.len() as u64;
        self.remove_all(gone);
        match next {
            Some(next) => self.sweep = Some((next, earliest)),
            None => self.next_expiry_ms = self.next_expiry_ms.min(earliest),
        }
        self.sweep.is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory of all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many have expired since the last call.
    pub fn take_expired(&mut self) -> u64 {
        std::mem::take(&mut self.expired)
    }
}

/// The bounds of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Most topics that are looked at.
    pub visits_max: usize,
    /// Most entries.
    pub entries_max: usize,
    /// About most bytes.
    pub bytes_max: usize,
}

/// How the keys of topics begin that the server publishes itself.
const OF_THE_SERVER: &[u8] = b"$SYS\0";

const _: () = assert!(LEVEL == 0, "nothing in a topic sorts before the end of a level");
