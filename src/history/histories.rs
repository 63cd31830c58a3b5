//! The histories of all channels that a core owns, and the bounds of all together.
//!
//! If all channels together exceed `history_bytes_max`, the oldest publication of all channels is dropped first. If
//! there are too many channels, the channel that has had no publication for the longest time is dropped.
//!
//! When a channel is dropped, its highest offset stays in `forgotten`. A question for publications after an earlier
//! offset then gets no answer for any channel that is not here, since it may be a dropped one. The time of the
//! publication is kept in the same way, for questions for publications since a moment.
//!
//! Invariants
//! 1. A channel is in `oldest` and in `quietest` while it exists, and in `deadlines` while one of its publications will
//!    expire. Its number in a queue is not higher than the true number.
//! 2. `bytes` is the sum of the sizes of all channels ([`Histories::bytes`]), and at most `bytes_max` after each call.
//! 3. A channel that does not exist has had no publication after `forgotten`, nor after `forgotten_at_ms`.
//!
//! Limits: `history_bytes_max`, `history_channels_max`.

use hashbrown::HashTable;

use super::channel::{Channel, ChannelQuery};
use super::query::{Query, Question, Unknown};
use super::queue::Queue;
use super::reading::Reading;
use super::{Keep, NewPublication};
use crate::broker::{ChannelHash, Epoch, Origin, Position};
use crate::clock::Now;
use crate::config::limits::Limits;
use crate::slab::Slab;

/// The histories of one core.
#[derive(Debug)]
pub struct Histories {
    epoch: Epoch,
    table: HashTable<u32>,
    channels: Slab<Channel>,
    /// By the offset of the oldest publication; of a channel without one, by its highest offset.
    oldest: Queue,
    /// By the highest offset.
    quietest: Queue,
    /// By the time at which the oldest publication expires.
    deadlines: Queue,
    publications: u64,
    bytes: usize,
    bytes_max: usize,
    channels_max: usize,
    forgotten: u64,
    forgotten_at_ms: i64,
    /// Publications up to this offset may be missing from any channel, although the store of a former process has some.
    unknown_through: u64,
    /// The publications up to `unknown_through` were made at this time or earlier.
    unknown_at_ms: i64,
    /// The Unix time at which the clock of this process began.
    unix_ms_at_0: i64,
    evicted: Evicted,
    /// Changes that the store has not got yet; `None` if there is no store.
    journal: Option<Vec<Entry>>,
    /// The value of `forgotten` that the store has got.
    told_forgotten: u64,
    /// When this process read the store.
    begun_at_ms: i64,
}

/// The number of dropped publications, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Their channel had as many publications, or bytes, as its policy allows.
    pub channel_full: u64,
    /// They were older than the policy of their channel allows.
    pub expired: u64,
    /// All channels together had `history_bytes_max`.
    pub bytes_max: u64,
    /// There were `history_channels_max` channels.
    pub channels_max: u64,
}

impl Histories {
    /// Without a channel, with the share of one of so many cores in the limits.
    pub fn of_one_core(epoch: Epoch, limits: &Limits, cores: usize) -> Histories {
        let cores = cores.max(1);
        let bytes_max = usize::try_from(limits.history_bytes_max).unwrap_or(usize::MAX) / cores;
        let channels_max = (limits.history_channels_max as usize / cores).max(1);
        Histories::new(epoch, bytes_max, channels_max)
    }

    /// Without a channel.
    pub fn new(epoch: Epoch, bytes_max: usize, channels_max: usize) -> Histories {
        Histories {
            epoch,
            table: HashTable::new(),
            channels: Slab::new(),
            oldest: Queue::default(),
            quietest: Queue::default(),
            deadlines: Queue::default(),
            publications: 0,
            bytes: 0,
            bytes_max,
            channels_max,
            forgotten: 0,
            forgotten_at_ms: NEVER,
            unknown_through: 0,
            unknown_at_ms: NEVER,
            unix_ms_at_0: 0,
            evicted: Evicted::default(),
            journal: None,
            told_forgotten: 0,
            begun_at_ms: 0,
        }
    }

    /// Begins with the state of a store, and notes changes for the store from now on: [`Histories::take_changes`].
    pub fn begin_with_store(&mut self, unknown_through: u64, forgotten: u64, now: Now) {
        // A former process has published them.
        let before_now = |offset| if offset > 0 { now_ms(now) } else { NEVER };
        self.unknown_at_ms = before_now(unknown_through);
        self.forgotten_at_ms = before_now(forgotten);
        self.begun_at_ms = now_ms(now);
        self.unknown_through = unknown_through;
        self.forgotten = forgotten;
        self.told_forgotten = forgotten;
        self.journal = Some(Vec::new());
    }

    /// Adds a channel of a store, which has all publications after `complete_after`. The publications follow, by
    /// [`Histories::restore`]. Returns the channel's id.
    pub fn restore_channel(
        &mut self,
        name: &[u8],
        hash: ChannelHash,
        keep: Keep,
        version: u32,
        complete_after: u64,
    ) -> u32 {
        let lost_at_ms = if complete_after > 0 {
            self.begun_at_ms
        } else {
            NEVER
        };
        self.insert(Channel::new(
            hash,
            name,
            keep,
            version,
            (complete_after, lost_at_ms),
            Unknown::Evicted,
        ))
    }

    /// Adds the next publication of a channel of a store. The caller calls [`Histories::restored`] after the last one.
    pub fn restore(&mut self, channel: u32, publication: &NewPublication<'_>) {
        // Publications with lower offsets were published before it.
        for (through, at_ms) in [
            (self.unknown_through, &mut self.unknown_at_ms),
            (self.forgotten, &mut self.forgotten_at_ms),
        ] {
            if publication.offset > through {
                *at_ms = publication.at_ms.min(*at_ms);
            }
        }
        // The store knows it.
        let journal = self.journal.take();
        self.change(channel, |channel, _| channel.restore(publication));
        self.journal = journal;
    }

    /// Drops publications of a restored channel beyond its policy, and of all channels beyond the bounds.
    pub fn restored(&mut self, channel: u32) {
        self.change(channel, drop_excess);
        if let Some(deadline) = self.channels[channel as usize].deadline() {
            self.deadlines.set(channel, deadline);
        }
        self.make_room();
    }

    /// Passes the changes since the last call to the store. Called after each [`Histories::append`]; there are none
    /// without [`Histories::begin_with_store`].
    pub fn take_changes(&mut self, now: Now, mut tell: impl FnMut(Change<'_>)) {
        self.note_wall_clock(now);
        let Some(journal) = &mut self.journal else {
            return;
        };
        for entry in journal.drain(..) {
            match entry {
                Entry::Appended(id) | Entry::Forgotten(id) => {
                    // A channel that was dropped meanwhile is passed as dropped.
                    let Some(channel) = self.channels.get(id as usize) else {
                        continue;
                    };
                    let is_new = matches!(entry, Entry::Appended(_));
                    let newest = channel.newest(self.unix_ms_at_0).filter(|_| is_new);
                    tell(Change::Kept {
                        channel: &channel.name,
                        after: channel
                            .oldest_offset()
                            .map_or_else(|| channel.newest_offset(), |oldest| oldest - 1),
                        complete_after: channel.complete_after(),
                        newest,
                    });
                }
                Entry::Removed(name, through) => tell(Change::Removed {
                    channel: &name,
                    through,
                }),
            }
        }
        if self.forgotten > self.told_forgotten {
            self.told_forgotten = self.forgotten;
            tell(Change::Unknown {
                through: self.forgotten,
            });
        }
    }

    fn note(&mut self, entry: impl FnOnce() -> Entry) {
        if let Some(journal) = &mut self.journal {
            journal.push(entry());
        }
    }

    /// Remembers a publication, which is newer than all before. `keep` returns the bounds of the channel's history if
    /// they are not known for this version of the policies; `None`: nothing is kept.
    pub fn append(
        &mut self,
        name: &[u8],
        hash: ChannelHash,
        publication: &NewPublication<'_>,
        version: u32,
        keep: impl FnOnce() -> Option<Keep>,
    ) {
        let Some(id) = self.channel_to_append(name, hash, version, keep) else {
            return;
        };
        let publication = &NewPublication {
            // The times of publications by two cores need not be in the order of the offsets.
            at_ms: self.channels[id as usize]
                .newest_at_ms()
                .map_or(publication.at_ms, |newest| newest.max(publication.at_ms)),
            ..publication.clone()
        };
        self.change(id, |channel, evicted| {
            channel.push(publication);
            drop_excess(channel, evicted);
        });
        self.note(|| Entry::Appended(id));
        let channel = &self.channels[id as usize];
        if !self.deadlines.contains(id)
            && let Some(deadline) = channel.deadline()
        {
            self.deadlines.set(id, deadline);
        }
        self.make_room();
    }

    /// The channel of a publication. Adds the channel if it is not here, unless its policy keeps nothing.
    fn channel_to_append(
        &mut self,
        name: &[u8],
        hash: ChannelHash,
        version: u32,
        keep: impl FnOnce() -> Option<Keep>,
    ) -> Option<u32> {
        match self.find(name, hash) {
            Some(id) if self.channels[id as usize].version == version => Some(id),
            Some(id) => {
                self.apply(id, version, keep());
                self.channels.get(id as usize).is_some().then_some(id)
            }
            None => Some(self.insert(Channel::new(
                hash,
                name,
                keep()?,
                version,
                (self.forgotten, self.forgotten_at_ms),
                Unknown::Evicted,
            ))),
        }
    }

    /// Applies a new policy to a channel.
    fn apply(&mut self, id: u32, version: u32, keep: Option<Keep>) {
        let Some(keep) = keep else {
            return self.remove_channel(id);
        };
        self.change(id, |channel, evicted| {
            (channel.keep, channel.version) = (keep, version);
            drop_excess(channel, evicted);
            if !keep.last_value && channel.len() > channel.history_len() {
                channel.remove_oldest(Unknown::Evicted);
            }
        });
        match self.channels[id as usize].deadline() {
            Some(deadline) => self.deadlines.set(id, deadline),
            None => self.deadlines.remove(id),
        }
    }

    /// Applies the policies of this version to some channels: to those with an id from `from` on, at most so many.
    /// Returns where to go on, if there are more.
    pub fn apply_policies(
        &mut self,
        from: u32,
        channels_max: u32,
        version: u32,
        mut keep: impl FnMut(&[u8]) -> Option<Keep>,
    ) -> Option<u32> {
        let places = u32::try_from(self.channels.places()).unwrap_or(u32::MAX);
        let end = from.saturating_add(channels_max).min(places);
        for id in from..end {
            if let Some(channel) = self.channels.get(id as usize)
                && channel.version != version
            {
                let keep = keep(&channel.name);
                self.apply(id, version, keep);
            }
        }
        (end < places).then_some(end)
    }

    /// Answers a question about a channel. All publications up to the offset `up_to` have been appended, and later ones
    /// are not considered.
    pub fn read(&mut self, question: &Question, up_to: u64, now: Now) -> Reading {
        self.note_wall_clock(now);
        let id = self.find(&question.name, question.hash);
        if let Some(id) = id {
            self.expire(id, now_ms(now), u32::MAX);
        }
        let up_to = Position {
            epoch: self.epoch,
            offset: up_to,
        };
        let query = match question.query {
            Query::After(position) if position.epoch != self.epoch => {
                return Reading::unknown(Unknown::OtherEpoch, up_to);
            }
            Query::After(position) if position.offset < self.unknown_through => {
                return Reading::unknown(Unknown::Evicted, up_to);
            }
            Query::After(position) if position.offset > up_to.offset => {
                return Reading::unknown(Unknown::UnknownPosition, up_to);
            }
            Query::After(position) => ChannelQuery::After(position.offset),
            Query::Last(count) => ChannelQuery::Last(count as usize),
            Query::Since(unix_ms) => ChannelQuery::Since(self.at_ms(unix_ms, now)),
            Query::LastValue => ChannelQuery::LastValue,
            Query::Position => return Reading::empty(up_to),
        };
        let Some(channel) = id.map(|id| &self.channels[id as usize]) else {
            return match query {
                ChannelQuery::After(offset) if offset < self.forgotten => {
                    Reading::unknown(Unknown::Evicted, up_to)
                }
                ChannelQuery::Since(at_ms) if at_ms <= self.forgotten_at_ms.max(self.unknown_at_ms) => {
                    Reading::unknown(Unknown::Evicted, up_to)
                }
                ChannelQuery::After(_)
                | ChannelQuery::Last(_)
                | ChannelQuery::Since(_)
                | ChannelQuery::LastValue => Reading::empty(up_to),
            };
        };
        let (pieces, unknown) = channel.read(query, question.publications_max as usize, up_to.offset);
        let unknown = match query {
            ChannelQuery::Since(at_ms) if at_ms <= self.unknown_at_ms => Some(Unknown::Evicted),
            ChannelQuery::After(_)
            | ChannelQuery::Last(_)
            | ChannelQuery::Since(_)
            | ChannelQuery::LastValue => unknown,
        };
        Reading::of((pieces, unknown), question.part, up_to, self.unix_ms_at_0)
    }

    /// Forgets all publications of a channel. Returns how many there were.
    pub fn remove(&mut self, name: &[u8], hash: ChannelHash) -> usize {
        let Some(id) = self.find(name, hash) else {
            return 0;
        };
        let removed = self.channels[id as usize].len();
        self.change(id, |channel, _| channel.clear(Unknown::Evicted));
        self.deadlines.remove(id);
        removed
    }

    /// Drops publications that have expired, at most about so many. Returns whether there are more.
    pub fn sweep(&mut self, now: Now, publications_max: u32) -> bool {
        let now_ms = now_ms(now);
        let mut left = publications_max;
        while let Some((deadline, id)) = self.deadlines.first()
            && deadline <= now_ms
        {
            if left == 0 {
                return true;
            }
            left = left.saturating_sub(1 + self.expire(id, now_ms, left));
        }
        false
    }

    /// When [`Histories::sweep`] has something to do next, in milliseconds of the clock.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        Some(self.deadlines.first()?.0)
    }

    /// How many publications there are.
    pub fn publications(&self) -> u64 {
        self.publications
    }

    /// How many channels there are.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The size of all channels: their frames, [`PUBLICATION_BYTES`] more for each publication, and the bytes of each
    /// channel itself. The memory in use is not larger, except by a percent for publications of 64 KiB and more. Chunks
    /// that only readings hold do not count here: [`Part`](super::Part) bounds each reading.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All channels.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter().map(|(_, channel)| channel)
    }

    /// The number of publications dropped since the last call, by reason.
    pub fn take_evicted(&mut self) -> Evicted {
        std::mem::take(&mut self.evicted)
    }

    /// Follows the wall clock if it was changed. The two clocks are read one after the other and rounded, so a small
    /// difference is ignored: the time of a publication is then the same in each answer.
    fn note_wall_clock(&mut self, now: Now) {
        let unix_ms = i64::try_from(now.unix_ms).unwrap_or(i64::MAX);
        let unix_ms_at_0 = unix_ms.saturating_sub(now_ms(now));
        if unix_ms_at_0.abs_diff(self.unix_ms_at_0) > WALL_CLOCK_ERROR_MS {
            self.unix_ms_at_0 = unix_ms_at_0;
        }
    }

    /// A Unix time by the clock of this process.
    pub fn at_ms(&mut self, unix_ms: u64, now: Now) -> i64 {
        self.note_wall_clock(now);
        i64::try_from(unix_ms)
            .unwrap_or(i64::MAX)
            .saturating_sub(self.unix_ms_at_0)
    }

    fn find(&self, name: &[u8], hash: ChannelHash) -> Option<u32> {
        let same = |&id: &u32| {
            let channel = &self.channels[id as usize];
            channel.hash == hash && *channel.name == *name
        };
        self.table.find(hash.as_u64(), same).copied()
    }

    fn insert(&mut self, channel: Channel) -> u32 {
        let (hash, newest) = (channel.hash, queue_number(channel.newest_offset()));
        self.bytes += counted_bytes(&channel);
        let id = u32::try_from(self.channels.insert(channel)).expect("there are fewer channels");
        let channels = &self.channels;
        self.table
            .insert_unique(hash.as_u64(), id, |&other| channels[other as usize].hash.as_u64());
        self.oldest.set(id, newest);
        self.quietest.set(id, newest);
        id
    }

    fn remove_channel(&mut self, id: u32) {
        let Some(channel) = self.channels.remove(id as usize) else {
            return;
        };
        self.forgotten = self.forgotten.max(channel.newest_offset());
        self.forgotten_at_ms = self.forgotten_at_ms.max(channel.known_at_ms());
        self.note(|| Entry::Removed(channel.name.clone(), channel.newest_offset()));
        self.bytes -= counted_bytes(&channel);
        self.publications -= channel.len() as u64;
        self.oldest.remove(id);
        self.quietest.remove(id);
        self.deadlines.remove(id);
        let entry = self.table.find_entry(channel.hash.as_u64(), |&other| other == id);
        entry.expect("each channel is in the table").remove();
        if self.table.len() < self.table.capacity() / 8 {
            let channels = &self.channels;
            let room = self.table.len() * 2;
            self.table
                .shrink_to(room, |&other| channels[other as usize].hash.as_u64());
        }
    }

    /// Changes a channel, and updates the size of all channels.
    fn change(&mut self, id: u32, change: impl FnOnce(&mut Channel, &mut Evicted)) {
        let channel = &mut self.channels[id as usize];
        let kept_of = |channel: &Channel| (channel.oldest_offset(), channel.complete_after());
        let kept = self.journal.is_some().then(|| kept_of(channel));
        self.bytes -= counted_bytes(channel);
        self.publications -= channel.len() as u64;
        change(channel, &mut self.evicted);
        self.bytes += counted_bytes(channel);
        self.publications += channel.len() as u64;
        if let Some(journal) = &mut self.journal
            && kept != Some(kept_of(channel))
        {
            journal.push(Entry::Forgotten(id));
        }
    }

    /// Drops publications of a channel that have expired, at most so many; returns how many. Corrects the deadline.
    fn expire(&mut self, id: u32, now_ms: i64, publications_max: u32) -> u32 {
        let mut dropped = 0;
        self.change(id, |channel, evicted| {
            while dropped < publications_max && channel.deadline().is_some_and(|deadline| deadline <= now_ms)
            {
                channel.drop_oldest(Unknown::Expired);
                evicted.expired += 1;
                dropped += 1;
            }
        });
        match self.channels[id as usize].deadline() {
            Some(deadline) => self.deadlines.set(id, deadline),
            None => self.deadlines.remove(id),
        }
        dropped
    }

    /// Drops the oldest publications of all channels, and channels, until both bounds hold.
    fn make_room(&mut self) {
        while self.channels.len() > self.channels_max
            && let Some((number, id)) = self.quietest.first()
        {
            let channel = &self.channels[id as usize];
            let newest = queue_number(channel.newest_offset());
            if number < newest {
                self.quietest.set(id, newest);
                continue;
            }
            self.evicted.channels_max += channel.len() as u64;
            self.remove_channel(id);
        }
        while self.bytes > self.bytes_max
            && let Some((number, id)) = self.oldest.first()
        {
            let channel = &self.channels[id as usize];
            let oldest = channel.oldest_offset();
            let true_number = queue_number(oldest.unwrap_or_else(|| channel.newest_offset()));
            if number < true_number {
                self.oldest.set(id, true_number);
            } else if oldest.is_none() {
                self.remove_channel(id);
            } else {
                self.evicted.bytes_max += 1;
                self.change(id, |channel, _| channel.remove_oldest(Unknown::Evicted));
            }
        }
    }
}

/// A change that the store has not got yet.
#[derive(Debug)]
enum Entry {
    /// A channel has another newest publication.
    Appended(u32),
    /// A channel has lost publications.
    Forgotten(u32),
    /// A channel is gone, with its highest offset.
    Removed(Box<[u8]>, u64),
}

/// A change of the histories, for the store.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A channel has a new publication, or has lost some.
    Kept {
        /// The channel's name.
        channel: &'a [u8],
        /// Its publications have higher offsets.
        after: u64,
        /// It has all publications after this offset.
        complete_after: u64,
        /// The new publication, if there is one and it is kept.
        newest: Option<Newest<'a>>,
    },
    /// A channel is gone.
    Removed {
        /// The channel's name.
        channel: &'a [u8],
        /// Its highest offset.
        through: u64,
    },
    /// A channel that is not known may have had publications up to this offset.
    Unknown {
        /// The offset.
        through: u64,
    },
}

/// The newest publication of a channel, as a store keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Newest<'a> {
    /// Its place in the order.
    pub offset: u64,
    /// When it was published, in Unix milliseconds.
    pub unix_ms: u64,
    /// The protocol of its publisher.
    pub origin: Origin,
    /// The frame, marked as replayed.
    pub frame: &'a [u8],
    /// How long its payload is.
    pub payload_bytes: u32,
}

/// Drops publications of a channel beyond its policy.
fn drop_excess(channel: &mut Channel, evicted: &mut Evicted) {
    let keep = channel.keep;
    while channel.history_len() > keep.entries as usize
        || (channel.history_len() > 0 && channel.frame_bytes() > keep.bytes)
    {
        channel.drop_oldest(Unknown::Evicted);
        // A channel without a history has lost nothing.
        evicted.channel_full += u64::from(keep.entries > 0);
    }
}

/// The size of a channel.
fn counted_bytes(channel: &Channel) -> usize {
    CHANNEL_BYTES + channel.name.len() + channel.frame_bytes() + channel.len() * PUBLICATION_BYTES
}

/// An offset as a number of a [`Queue`]: offsets have fewer than 54 bits.
fn queue_number(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn now_ms(now: Now) -> i64 {
    i64::try_from(now.uptime.as_ms()).unwrap_or(i64::MAX)
}

/// Before every moment.
const NEVER: i64 = i64::MIN;
/// By how much the difference of the two clocks may change before it is corrected.
const WALL_CLOCK_ERROR_MS: u64 = 10;
/// The bytes of a remembered publication beside its frame, at most, in a channel with some publications: 16 bytes for
/// its entry, and its share of its chunk and of reserved memory.
pub(super) const PUBLICATION_BYTES: usize = 48;
/// The bytes of a channel beside its name and its publications: its places in the table and the queues, and its first
/// chunk.
pub(super) const CHANNEL_BYTES: usize = 512;
