//! Channel → connections of this core, and back.
//!
//! ```text
//!   table  hash, name → id         channels[id]                  connections[index]
//!                                  name, hash                    entries, by channel id
//!                                  subscribers [ c7 c3 c9 ] ◄──►  { channel id, position, order }
//! ```
//! A channel's subscribers lie side by side, since each publication walks them. Each subscription knows its position in
//! that list. To remove one, the last subscriber of the list takes its position, and its entry is corrected.
//!
//! Memory, beside the name itself: 16 bytes for a connection with one subscription and 4 in its channel; about 56 for a
//! channel with one subscriber. Neither list is allocated for a single entry. A list that has shrunk gives memory back.
//!
//! The delivery of a publication to a large channel pauses between turns, and connections subscribe and
//! unsubscribe meanwhile. The walk along the list goes from its end to its beginning. New subscribers are
//! appended behind the walk. When a subscriber leaves before the walk has reached it, another subscriber that
//! the walk has not reached takes its position. So the walk reaches each connection that is subscribed
//! throughout exactly once, and no connection that subscribed after the walk began. One publication is under
//! way at a time, so there is one walk.
//!
//! Invariants, kept by [`Subscriptions::join`] and [`Subscriptions::leave`] alone
//! 1. `channels[e.channel].subscribers[e.position]` is the connection that has the entry `e`, and each subscriber has
//!    such an entry.
//! 2. The entries of a connection are in ascending order of their channel ids, each once.
//! 3. A channel exists while it has subscribers, and is in the table and counted by the directory while it exists.
//! 4. The walk has still to reach `subscribers[..walk.left]` of its channel, and no other subscribers.
//!
//! Limits: `channels_per_connection_max`, `channel_names_bytes_max`.

mod entries;
pub(crate) mod held;

use hashbrown::HashTable;

use held::{Entry, Held};

use super::directory::Interest;
use super::hash::ChannelHash;
use super::watch::{Change, Watch};
use crate::slab::{Slab, shrink};

/// The subscriptions of one core. Connections are named by their index in the core.
#[derive(Debug)]
pub struct Subscriptions {
    table: HashTable<u32>,
    channels: Slab<Channel>,
    connections: Slab<Held>,
    interest: Interest,
    len: u64,
    walk: Walk,
    watch: Watch,
    /// For each reason in [`AllChannels`], whether the core is woken for every publication.
    all_channels: [bool; 2],
}

/// Why a core is interested in all channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllChannels {
    /// MQTT sessions of the core have filters with wildcards.
    Filters,
    /// The core reports publications to webhooks.
    Webhooks,
}

impl Subscriptions {
    /// No subscriptions; `interest` gets each channel's first and last subscriber.
    pub(crate) fn new(interest: Interest) -> Subscriptions {
        Subscriptions {
            table: HashTable::new(),
            channels: Slab::new(),
            connections: Slab::new(),
            interest,
            len: 0,
            walk: Walk::default(),
            watch: Watch::default(),
            all_channels: [false; 2],
        }
    }

    /// Bytes of memory that the tables take, without names and without lists of more than one entry.
    pub(crate) fn table_bytes(&self) -> usize {
        self.table.allocation_size() + self.channels.memory_bytes() + self.connections.memory_bytes()
    }

    /// Subscribes a connection. A connection at the limit is refused even a channel that it is already
    /// subscribed to, as in the reference.
    ///
    /// The caller first passes [`Reader::claimed`](super::Reader::claimed).
    pub fn subscribe(
        &mut self,
        connection: u32,
        name: &[u8],
        hash: ChannelHash,
        limits: SubscriptionLimits,
    ) -> SubscribeOutcome {
        if self.count_of(connection) >= limits.channels_max as usize {
            let limit = limits.channels_max;
            return SubscribeOutcome::TooMany { limit };
        }
        let known = self.find(hash, || name);
        let held = self.connections.get(connection as usize);
        if known.is_some_and(|channel| held.is_some_and(|held| held.has(channel))) {
            return SubscribeOutcome::Subscribed;
        }
        if self.names_bytes(connection) + name.len() > limits.names_bytes_max as usize {
            let limit = limits.names_bytes_max;
            return SubscribeOutcome::TooLong { limit };
        }
        let channel = match known {
            Some(channel) => channel,
            None => self.create(hash, name),
        };
        self.join(connection, channel);
        SubscribeOutcome::Subscribed
    }

    /// Unsubscribes a connection. The caller first passes the same place as for [`Subscriptions::subscribe`].
    pub fn unsubscribe(&mut self, connection: u32, name: &[u8], hash: ChannelHash) -> UnsubscribeOutcome {
        let Some(channel) = self.find(hash, || name) else {
            return UnsubscribeOutcome::NotSubscribed;
        };
        let name_bytes = self.channel(channel).name.len();
        let Some(held) = self.connections.get_mut(connection as usize) else {
            return UnsubscribeOutcome::NotSubscribed;
        };
        let Some(entry) = held.remove(channel, name_bytes) else {
            return UnsubscribeOutcome::NotSubscribed;
        };
        if held.len() == 0 {
            self.connections.remove(connection as usize);
        }
        self.leave(entry);
        UnsubscribeOutcome::Unsubscribed
    }

    /// Unsubscribes a connection from at most `max` of its channels. Returns how many are left.
    pub fn unsubscribe_some(&mut self, connection: u32, max: usize) -> usize {
        let count = self.count_of(connection);
        if count > max {
            for entry in self.some_of(connection, 0, max) {
                let name_bytes = self.channel(entry.channel).name.len();
                if let Some(held) = self.connections.get_mut(connection as usize) {
                    held.remove(entry.channel, name_bytes);
                }
                self.leave(entry);
            }
            return count - max;
        }
        match self.connections.remove(connection as usize) {
            None | Some(Held::Nothing) => {}
            Some(Held::One(entry)) => self.leave(entry),
            Some(Held::Many(many)) => many.entries().into_iter().for_each(|entry| self.leave(entry)),
        }
        0
    }

    /// Begins to walk the connections that are subscribed to a channel, in no particular order. `name` is
    /// called only if a channel with this hash is known. The hash alone rules out most publications that do
    /// not concern this core, and their memory is not touched.
    pub fn begin_walk<'n>(&mut self, hash: ChannelHash, name: impl Fn() -> &'n [u8]) {
        self.walk = match self.find(hash, name) {
            Some(channel) => {
                let left = self.channel(channel).subscribers.len();
                Walk { channel, left }
            }
            None => Walk::default(),
        };
    }

    /// The next connections of the walk, at most `max`; none when it is over.
    pub fn walk(&mut self, max: usize) -> &[u32] {
        let Walk { channel, left: end } = self.walk;
        if end == 0 {
            return &[];
        }
        self.walk.left = end.saturating_sub(u32::try_from(max).unwrap_or(u32::MAX));
        &self.channel(channel).subscribers.as_slice()[self.walk.left as usize..end as usize]
    }

    /// The number of the channel that is walked. The channel keeps it while it has subscribers.
    pub fn walked(&self) -> u32 {
        self.walk.channel
    }

    /// The number of a channel, if it has subscribers.
    pub fn number_of(&self, name: &[u8], hash: ChannelHash) -> Option<u32> {
        self.find(hash, || name)
    }

    /// The name of a channel that has subscribers, by its number.
    pub fn name_of(&self, channel: u32) -> Option<(&[u8], ChannelHash)> {
        let channel = self.channels.get(channel as usize)?;
        Some((&channel.name, channel.hash))
    }

    /// The numbers of at most `max` of a connection's channels, ascending, from `from` on. With `from` 0,
    /// these are the channels that [`Subscriptions::unsubscribe_some`] ends first. Allocates.
    pub fn some_numbers_of(
        &self,
        connection: u32,
        from: u32,
        max: usize,
    ) -> impl ExactSizeIterator<Item = u32> + use<> {
        let entries = self.some_of(connection, from, max).into_iter();
        entries.map(|entry| entry.channel)
    }

    /// Whether a connection is subscribed to the channel with this number.
    pub fn has(&self, connection: u32, channel: u32) -> bool {
        let held = self.connections.get(connection as usize);
        held.is_some_and(|held| held.has(channel))
    }

    /// How many connections are subscribed to the channel with this number.
    pub fn subscriber_count(&self, channel: u32) -> u32 {
        let channel = self.channels.get(channel as usize);
        channel.map_or(0, |channel| channel.subscribers.len())
    }

    /// At most `max` subscribers of a channel that stand before the place `end`, and the place at which to go
    /// on. A caller that begins with [`Subscriptions::subscriber_count`] and goes on to the place 0 sees each
    /// connection that is subscribed throughout, and some connections more than once.
    pub fn some_subscribers(&self, channel: u32, end: u32, max: usize) -> (&[u32], u32) {
        let Some(channel) = self.channels.get(channel as usize) else {
            return (&[], 0);
        };
        let end = end.min(channel.subscribers.len());
        let begin = end.saturating_sub(u32::try_from(max).unwrap_or(u32::MAX));
        (
            &channel.subscribers.as_slice()[begin as usize..end as usize],
            begin,
        )
    }

    /// One more than the highest number that a channel may have.
    pub fn places(&self) -> u32 {
        u32::try_from(self.channels.places()).unwrap_or(u32::MAX)
    }

    /// How many channels a connection is subscribed to.
    pub fn count_of(&self, connection: u32) -> usize {
        self.connections.get(connection as usize).map_or(0, Held::len)
    }

    /// Makes publishers wake the core for publications on this channel, even if none of its connections is
    /// subscribed. [`Subscriptions::no_interest_in`] undoes it.
    pub(crate) fn interest_in(&mut self, hash: ChannelHash) {
        self.interest.add(hash);
    }

    /// Undoes one [`Subscriptions::interest_in`].
    pub(crate) fn no_interest_in(&mut self, hash: ChannelHash) {
        self.interest.remove(hash);
    }

    /// Whether a connection is subscribed to the channel that has this number.
    pub fn is_subscribed(&self, connection: u32, channel: u32) -> bool {
        let held = self.connections.get(connection as usize);
        held.is_some_and(|held| held.has(channel))
    }

    /// One more than the highest number that a channel may have now.
    pub fn channel_places(&self) -> u32 {
        u32::try_from(self.channels.places()).unwrap_or(u32::MAX)
    }

    /// The name of the channel that has this number now, and how many subscribers it has.
    pub fn channel_at(&self, number: u32) -> Option<(&[u8], u32)> {
        let channel = self.channels.get(number as usize)?;
        Some((&channel.name, channel.subscribers.len()))
    }

    /// Makes publishers wake the core for every publication, or no longer does, for this reason.
    pub fn wake_for_all(&mut self, reason: AllChannels, is_on: bool) {
        let before = self.all_channels;
        self.all_channels[reason as usize] = is_on;
        match (before != [false; 2], self.all_channels != [false; 2]) {
            (false, true) => self.interest.add_all(),
            (true, false) => self.interest.remove_all(),
            (false, false) | (true, true) => {}
        }
    }

    /// Begins or ends to note which channels get their first subscriber or lose their last.
    pub fn watch(&mut self, is_on: bool) {
        match is_on {
            true => self.watch.begin(),
            false => self.watch.end(),
        }
    }

    /// The channels that have got their first subscriber, or lost their last, since the last call.
    pub fn take_watched(&mut self) -> Vec<Change> {
        self.watch.take()
    }

    /// Whether the walk has still to reach a subscriber of this channel.
    pub fn walk_will_reach(&self, connection: u32, channel: u32) -> bool {
        let held = self.connections.get(connection as usize);
        let entry = held.and_then(|held| held.some(channel, 1).first().copied());
        let is_ahead = |entry: Entry| entry.channel == channel && entry.position < self.walk.left;
        channel == self.walk.channel && entry.is_some_and(is_ahead)
    }

    /// Whether the walk has reached all subscribers that it had to reach.
    pub fn is_walk_over(&self) -> bool {
        self.walk.left == 0
    }

    /// The names of a connection's channels, in the order in which it subscribed. Allocates, to sort them.
    pub fn channels_of(&self, connection: u32) -> impl Iterator<Item = &[u8]> {
        self.names(self.some_of(connection, 0, usize::MAX))
    }

    /// Copies of the names of at most `max` of a connection's channels, in the order in which it subscribed
    /// to them, and the place at which to go on, if there are more. A caller begins with 0. Subscriptions
    /// that end between two calls do not change which others are returned.
    pub fn some_channels_of(&self, connection: u32, from: u32, max: usize) -> (Vec<Box<[u8]>>, Option<u32>) {
        let entries = self.some_of(connection, from, max);
        let next = match entries.last() {
            Some(last) if entries.len() == max => last.channel.checked_add(1),
            Some(_) | None => None,
        };
        (self.names(entries).map(Box::from).collect(), next)
    }

    fn names(&self, mut entries: Vec<Entry>) -> impl Iterator<Item = &[u8]> {
        entries.sort_unstable_by_key(|entry| entry.order);
        entries
            .into_iter()
            .map(|entry| &*self.channel(entry.channel).name)
    }

    fn some_of(&self, connection: u32, from: u32, max: usize) -> Vec<Entry> {
        let held = self.connections.get(connection as usize);
        held.map_or_else(Vec::new, |held| held.some(from, max))
    }

    /// How many buckets of the directory some core has an interest in.
    #[cfg(test)]
    pub(crate) fn interests_of_all_cores(&self) -> u32 {
        self.interest.directory().interests()
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn find<'n>(&self, hash: ChannelHash, name: impl Fn() -> &'n [u8]) -> Option<u32> {
        let same = |&channel: &u32| {
            let channel = self.channel(channel);
            channel.hash == hash && *channel.name == *name()
        };
        self.table.find(hash.as_u64(), same).copied()
    }

    fn channel(&self, channel: u32) -> &Channel {
        &self.channels[channel as usize]
    }

    fn names_bytes(&self, connection: u32) -> usize {
        let held = self.connections.get(connection as usize);
        held.map_or(0, |held| {
            held.names_bytes(|channel| self.channel(channel).name.len())
        })
    }

    fn create(&mut self, hash: ChannelHash, name: &[u8]) -> u32 {
        let channel = self.channels.insert(Channel {
            hash,
            name: name.into(),
            subscribers: Subscribers::Many(Vec::new()),
        });
        let channel = u32::try_from(channel).expect("4 billion channels do not fit into memory");
        let channels = &self.channels;
        self.table.insert_unique(hash.as_u64(), channel, |&other| {
            channels[other as usize].hash.as_u64()
        });
        self.interest.add(hash);
        self.watch.note(name, true);
        channel
    }

    fn join(&mut self, connection: u32, channel: u32) {
        let names_bytes = self.names_bytes(connection);
        let joined = &mut self.channels[channel as usize];
        let position = joined.subscribers.push(connection);
        let names_bytes = names_bytes + joined.name.len();
        match self.connections.get_mut(connection as usize) {
            Some(held) => held.insert(channel, position, names_bytes),
            None => {
                let mut held = Held::Nothing;
                held.insert(channel, position, names_bytes);
                self.connections.insert_at(connection as usize, held);
            }
        }
        self.len += 1;
    }

    /// Ends a subscription whose entry has been taken from its connection.
    fn leave(&mut self, mut entry: Entry) {
        self.len -= 1;
        let channel = &mut self.channels[entry.channel as usize];
        if entry.channel == self.walk.channel && entry.position < self.walk.left {
            // The walk may have reached the last subscriber of the list. So the leaving subscriber first
            // changes places with the last one that the walk has not reached.
            self.walk.left -= 1;
            if entry.position < self.walk.left {
                let subscribers = channel.subscribers.as_mut_slice();
                subscribers.swap(entry.position as usize, self.walk.left as usize);
                self.connections[subscribers[entry.position as usize] as usize].moved(entry);
                entry.position = self.walk.left;
            }
        }
        channel.subscribers.swap_remove(entry.position);
        let subscribers = channel.subscribers.as_slice();
        if subscribers.is_empty() {
            self.remove(entry.channel);
        } else if let Some(&moved) = subscribers.get(entry.position as usize) {
            self.connections[moved as usize].moved(entry);
        }
    }

    fn remove(&mut self, channel: u32) {
        let removed = self.channels.remove(channel as usize).expect("invariant 3");
        self.interest.remove(removed.hash);
        self.watch.note(&removed.name, false);
        let entry = self
            .table
            .find_entry(removed.hash.as_u64(), |&other| other == channel);
        entry.expect("invariant 3").remove();
        if self.table.len() < self.table.capacity() / 8 {
            let channels = &self.channels;
            let room = self.table.len() * 2;
            self.table
                .shrink_to(room, |&other| channels[other as usize].hash.as_u64());
        }
    }
}

/// How much one connection may subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionLimits {
    /// Most channels.
    pub channels_max: u32,
    /// Most bytes of the names of these channels, together.
    pub names_bytes_max: u32,
}

/// How a [`Subscriptions::subscribe`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// The connection is subscribed, now or since an earlier call.
    Subscribed,
    /// The connection holds as many channels as it may.
    TooMany {
        /// The limit, in channels.
        limit: u32,
    },
    /// The names of the connection's channels take as many bytes as they may.
    TooLong {
        /// The limit, in bytes.
        limit: u32,
    },
}

/// How an [`Subscriptions::unsubscribe`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsubscribeOutcome {
    /// The connection was subscribed and is no longer.
    Unsubscribed,
    /// The connection was not subscribed.
    NotSubscribed,
}

/// A channel with its subscribers on this core.
#[derive(Debug)]
struct Channel {
    hash: ChannelHash,
    name: Box<[u8]>,
    subscribers: Subscribers,
}

/// A walk along the subscribers of a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    channel: u32,
    /// How many subscribers the walk has still to reach. If there are none, the channel may be gone.
    left: u32,
}

/// The connections subscribed to one channel; one needs no allocation.
#[derive(Debug)]
enum Subscribers {
    One(u32),
    Many(Vec<u32>),
}

impl Subscribers {
    fn as_slice(&self) -> &[u32] {
        match self {
            Subscribers::One(connection) => std::slice::from_ref(connection),
            Subscribers::Many(connections) => connections,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u32] {
        match self {
            Subscribers::One(connection) => std::slice::from_mut(connection),
            Subscribers::Many(connections) => connections,
        }
    }

    fn len(&self) -> u32 {
        u32::try_from(self.as_slice().len()).expect("connections have 32-bit indexes")
    }

    /// Appends a connection and returns its place.
    fn push(&mut self, connection: u32) -> u32 {
        let position = self.len();
        match self {
            Subscribers::One(first) => *self = Subscribers::Many(vec![*first, connection]),
            Subscribers::Many(none) if none.capacity() == 0 => *self = Subscribers::One(connection),
            Subscribers::Many(connections) => connections.push(connection),
        }
        position
    }

    fn swap_remove(&mut self, position: u32) {
        match self {
            Subscribers::One(_) => *self = Subscribers::Many(Vec::new()),
            Subscribers::Many(connections) => {
                connections.swap_remove(position as usize);
                shrink(connections);
            }
        }
    }
}

const _: () = assert!(size_of::<Option<Channel>>() == 48);

#[cfg(all(test, not(ringcast_loom)))]
mod tests;
