//! Filter → MQTT sessions of this core, and back.
//!
//! ```text
//!   topics  hash, name → number          filters[number]               sessions[index]
//!   trie    level, level, … → number     name, place                   entries, by filter number
//!                                        subscribers [ s7 s3 s9 ] ◄──► { filter number, position, order }
//!                                        each with QoS, flags and subscription identifier
//! ```
//! A filter without wildcards is found by the hash of its text, the others by the trie of their levels. The subscribers
//! of a filter lie side by side, since each publication walks them, and each subscription knows its position there. To
//! remove one, the last subscriber of the list takes its position, and its entry is corrected. The entries are those of
//! the SocketCluster subscriptions (`broker/subscriptions/held.rs`).
//!
//! Memory, beside the text itself: 16 bytes for a session with one subscription; about 50 for a filter
//! without wildcards that has one subscriber. Neither list is allocated for a single entry. A list that has
//! shrunk gives memory back. A level of a filter with wildcards takes about 50 more bytes, and filters share
//! their common first levels.
//!
//! A shared subscription (`$share/GROUP/FILTER`) is here once, on the core that owns the group, under the number of the
//! group (`mqtt/shares.rs`).
//!
//! The directory of the broker has to know which topics interest this core. Sessions cannot reach it, so
//! their changes are collected, and the core passes them on before it may sleep
//! ([`Subscriptions::tell_interest`]).
//!
//! Invariants, kept by `Subscriptions::join` and `Subscriptions::leave` alone
//! 1. `filters[e.channel].subscribers[e.position]` belongs to the session that has the entry `e`, and each subscriber
//!    has such an entry.
//! 2. A filter exists while it has subscribers, and is in `topics` or in the trie while it exists.
//! 3. The directory, with the changes that it has yet to be told, counts each topic of `topics` once.
//!
//! Limits: `channels_per_connection_max` and `channel_names_bytes_max`, as for SocketCluster; `mqtt_levels_max`, which
//! sessions check before they subscribe.

mod matches;
mod trie;

use hashbrown::HashTable;

use matches::order;
pub use matches::{Match, Merged, Subscriber, leave_out_own};
use trie::Trie;

use super::Qos;
use crate::broker::subscriptions::held::{Entry, Held};
use crate::broker::{self, AllChannels, Change, ChannelHash, ChannelHasher, SubscriptionLimits, Watch};
use crate::slab::{Slab, shrink};

/// The subscriptions of the MQTT sessions of one core. A session is named by its index, below 2³¹.
#[derive(Debug)]
pub struct Subscriptions {
    hasher: ChannelHasher,
    topics: HashTable<u32>,
    trie: Trie,
    filters: Slab<Filter>,
    sessions: Slab<Held>,
    groups: Slab<Held>,
    len: u64,
    unreported: Vec<InterestChange>,
    /// Whether the directory has been told that there are filters with wildcards.
    reported_wildcards: bool,
    watch: Watch,
}

/// The options of a filter, which the server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The highest QoS of publications for this filter.
    pub qos: Qos,
    /// The session's own publications are left out.
    pub no_local: bool,
    /// The retain flag stays as the publisher set it.
    pub retain_as_published: bool,
    /// The subscription identifier, below 2²⁸; 0 for none.
    pub id: u32,
}

/// A filter of a session, with its options.
pub type OwnFilter = (Box<[u8]>, Options);

/// How a [`Subscriptions::subscribe`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// The session had no subscription of this filter.
    New,
    /// The session had one; its options are the new ones now.
    Replaced,
    /// The session has as many filters as it may.
    TooMany {
        /// The limit, in filters.
        limit: u32,
    },
    /// The texts of the session's filters take as many bytes as they may.
    TooLong {
        /// The limit, in bytes.
        limit: u32,
    },
}

/// How an [`Subscriptions::unsubscribe`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsubscribeOutcome {
    /// The session was subscribed and is no longer.
    Unsubscribed,
    /// The session was not subscribed.
    NotSubscribed,
}

/// How an [`Subscriptions::end`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOutcome {
    /// The session has no subscriptions any more.
    Ended,
    /// The session has more: the caller goes on later.
    HasMore,
}

/// A change that the directory has not been told.
#[derive(Clone, Copy, Debug)]
enum InterestChange {
    Gained(ChannelHash),
    Lost(ChannelHash),
}

impl Subscriptions {
    /// No subscriptions. `hasher` is the one of all cores.
    pub fn new(hasher: ChannelHasher) -> Subscriptions {
        Subscriptions {
            trie: Trie::new(hasher.clone()),
            hasher,
            topics: HashTable::new(),
            filters: Slab::new(),
            sessions: Slab::new(),
            groups: Slab::new(),
            len: 0,
            unreported: Vec::new(),
            reported_wildcards: false,
            watch: Watch::default(),
        }
    }

    /// Subscribes a session or a group, or changes the options of its subscription. The limits are for new filters; a
    /// group has no limit, since it has one filter.
    ///
    /// `filter` is a filter by section 4.7, without `$share/GROUP/`.
    pub fn subscribe(
        &mut self,
        subscriber: Subscriber,
        filter: &str,
        options: Options,
        limits: SubscriptionLimits,
    ) -> SubscribeOutcome {
        let name = filter.as_bytes();
        let known = self.find(name);
        let held = self.held(subscriber);
        if let Some(number) = known
            && let Some(entry) = held.and_then(|held| held.get(number))
        {
            let subscribers = self.filters[number as usize].subscribers.as_mut_slice();
            subscribers[entry.position as usize] = Match::new(subscriber, options);
            return SubscribeOutcome::Replaced;
        }
        if matches!(subscriber, Subscriber::Session(_)) {
            if held.map_or(0, Held::len) >= limits.channels_max as usize {
                let limit = limits.channels_max;
                return SubscribeOutcome::TooMany { limit };
            }
            if self.names_bytes(subscriber) + name.len() > limits.names_bytes_max as usize {
                let limit = limits.names_bytes_max;
                return SubscribeOutcome::TooLong { limit };
            }
        }
        let number = known.unwrap_or_else(|| self.create(name));
        self.join(subscriber, number, options);
        SubscribeOutcome::New
    }

    /// Unsubscribes a session or a group from a filter.
    pub fn unsubscribe(&mut self, subscriber: Subscriber, filter: &str) -> UnsubscribeOutcome {
        match self.find(filter.as_bytes()) {
            Some(number) => self.leave(subscriber, number),
            None => UnsubscribeOutcome::NotSubscribed,
        }
    }

    /// Ends at most `max` subscriptions of a session or a group.
    pub fn end(&mut self, subscriber: Subscriber, max: usize) -> EndOutcome {
        let Some(held) = self.held(subscriber) else {
            return EndOutcome::Ended;
        };
        for entry in held.some(0, max) {
            self.leave(subscriber, entry.channel);
        }
        match self.held(subscriber) {
            Some(_) => EndOutcome::HasMore,
            None => EndOutcome::Ended,
        }
    }

    /// Appends all subscriptions whose filters match a topic, each once, those of a session side by side.
    /// With [`Merged::first`] the caller goes through them. `topic` is called only if a filter may match: the
    /// hash alone rules out most publications that do not concern this core, and their memory is not touched.
    ///
    /// Allocates nothing once the lists have grown. Its time depends only on the filters that match, or whose
    /// beginning does: each step in the trie belongs to one of these. Returns how many steps there were.
    pub fn matches<'t>(
        &mut self,
        hash: ChannelHash,
        topic: impl Fn() -> &'t [u8],
        found: &mut Vec<Match>,
    ) -> usize {
        let begin = found.len();
        let mut filters = 0;
        if let Some(number) = self.find_topic(hash, &topic) {
            match &self.filters[number as usize].subscribers {
                Subscribers::One(one) => found.push(*one),
                Subscribers::Many(many) => found.extend_from_slice(many),
            }
            filters = 1;
        }
        let mut steps = 0;
        if !self.trie.is_empty() {
            let all = &self.filters;
            steps = self.trie.matches(topic(), |number| {
                found.extend_from_slice(all[number as usize].subscribers.as_slice());
                filters += 1;
            });
        }
        if filters > 1 {
            order(&mut found[begin..]);
        }
        steps
    }

    /// Tells the directory which topics this core has become interested in, and which it no longer is. To be
    /// called after sessions have subscribed and before the core may sleep.
    #[inline]
    pub fn tell_interest(&mut self, directory: &mut broker::Subscriptions) {
        if !self.unreported.is_empty() || self.reported_wildcards == self.trie.is_empty() {
            self.tell_changed_interest(directory);
        }
    }

    #[inline(never)]
    fn tell_changed_interest(&mut self, directory: &mut broker::Subscriptions) {
        for change in self.unreported.drain(..) {
            match change {
                InterestChange::Gained(hash) => directory.interest_in(hash),
                InterestChange::Lost(hash) => directory.no_interest_in(hash),
            }
        }
        shrink(&mut self.unreported);
        let has_wildcards = !self.trie.is_empty();
        if self.reported_wildcards != has_wildcards {
            self.reported_wildcards = has_wildcards;
            directory.wake_for_all(AllChannels::Filters, has_wildcards);
        }
    }

    /// Begins or stops to note which topics get their first subscription without wildcards, or lose their
    /// last.
    pub fn watch_topics(&mut self, is_on: bool) {
        match is_on {
            true => self.watch.begin(),
            false => self.watch.end(),
        }
    }

    /// The topics that have got their first subscription, or lost their last, since the last call.
    pub fn take_watched(&mut self) -> Vec<Change> {
        self.watch.take()
    }

    /// One more than the highest number that a filter may have now.
    pub fn filter_places(&self) -> u32 {
        u32::try_from(self.filters.places()).unwrap_or(u32::MAX)
    }

    /// The filter that has this number now, if it has no wildcards.
    pub fn topic_at(&self, number: u32) -> Option<&[u8]> {
        let filter = self.filters.get(number as usize)?;
        (!has_wildcard(&filter.name)).then_some(&filter.name)
    }

    /// Whether a session or a group has a filter.
    pub fn has(&self, subscriber: Subscriber, filter: &str) -> bool {
        let number = self.find(filter.as_bytes());
        let held = self.held(subscriber);
        number.is_some_and(|number| held.is_some_and(|held| held.get(number).is_some()))
    }

    /// How many filters a session or a group has.
    pub fn count_of(&self, subscriber: Subscriber) -> usize {
        self.held(subscriber).map_or(0, Held::len)
    }

    /// The options of a session's subscription to a filter, if it has one.
    pub fn options_of(&self, subscriber: Subscriber, filter: &str) -> Option<Options> {
        let number = self.find(filter.as_bytes())?;
        let entry = self.held(subscriber)?.get(number)?;
        let subscribers = self.filters[number as usize].subscribers.as_slice();
        Some(subscribers[entry.position as usize].options())
    }

    /// Copies of at most `max` of a session's filters with their options, and the place at which to continue,
    /// if there are more. A caller begins with 0. Subscriptions that end between two calls do not change
    /// which others are returned.
    pub fn some_filters_of(
        &self,
        subscriber: Subscriber,
        from: u32,
        max: usize,
    ) -> (Vec<OwnFilter>, Option<u32>) {
        let held = self.held(subscriber);
        let entries = held.map_or_else(Vec::new, |held| held.some(from, max));
        let next = match entries.last() {
            Some(last) if entries.len() == max => last.channel.checked_add(1),
            Some(_) | None => None,
        };
        let filters = entries.into_iter().map(|entry| {
            let filter = &self.filters[entry.channel as usize];
            let subscription = filter.subscribers.as_slice()[entry.position as usize];
            (filter.name.clone(), subscription.options())
        });
        (filters.collect(), next)
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that the tables take, without texts and without lists of more than one entry.
    pub fn table_bytes(&self) -> usize {
        self.topics.allocation_size()
            + self.trie.table_bytes()
            + self.filters.memory_bytes()
            + self.sessions.memory_bytes()
            + self.groups.memory_bytes()
    }

    fn find(&self, name: &[u8]) -> Option<u32> {
        if has_wildcard(name) {
            self.trie.find(name)
        } else {
            self.find_topic(self.hasher.hash(name), || name)
        }
    }

    fn find_topic<'t>(&self, hash: ChannelHash, topic: impl Fn() -> &'t [u8]) -> Option<u32> {
        let same = |&number: &u32| {
            let filter = &self.filters[number as usize];
            filter.hash == hash && *filter.name == *topic()
        };
        self.topics.find(hash.as_u64(), same).copied()
    }

    fn held(&self, subscriber: Subscriber) -> Option<&Held> {
        match subscriber {
            Subscriber::Session(index) => self.sessions.get(index as usize),
            Subscriber::Group(index) => self.groups.get(index as usize),
        }
    }

    fn names_bytes(&self, subscriber: Subscriber) -> usize {
        let length = |number: u32| self.filters[number as usize].name.len();
        self.held(subscriber).map_or(0, |held| held.names_bytes(length))
    }

    fn create(&mut self, name: &[u8]) -> u32 {
        let hash = self.hasher.hash(name);
        let number = self.filters.insert(Filter {
            hash,
            name: name.into(),
            subscribers: Subscribers::Many(Box::default()),
        });
        let number = u32::try_from(number).expect("4 billion filters do not fit into memory");
        if has_wildcard(name) {
            self.trie.insert(name, number);
            return number;
        }
        let filters = &self.filters;
        self.topics.insert_unique(hash.as_u64(), number, |&other| {
            filters[other as usize].hash.as_u64()
        });
        self.unreported.push(InterestChange::Gained(hash));
        self.watch.note(name, true);
        number
    }

    fn join(&mut self, subscriber: Subscriber, number: u32, options: Options) {
        let names_bytes = self.names_bytes(subscriber);
        let filter = &mut self.filters[number as usize];
        let position = filter.subscribers.push(Match::new(subscriber, options));
        let names_bytes = names_bytes + filter.name.len();
        let (table, index) = match subscriber {
            Subscriber::Session(index) => (&mut self.sessions, index),
            Subscriber::Group(index) => (&mut self.groups, index),
        };
        match table.get_mut(index as usize) {
            Some(held) => held.insert(number, position, names_bytes),
            None => {
                let mut held = Held::Nothing;
                held.insert(number, position, names_bytes);
                table.insert_at(index as usize, held);
            }
        }
        self.len += 1;
    }

    /// Ends the subscription of a filter, if there is one.
    fn leave(&mut self, subscriber: Subscriber, number: u32) -> UnsubscribeOutcome {
        let name_bytes = self.filters[number as usize].name.len();
        let (table, index) = match subscriber {
            Subscriber::Session(index) => (&mut self.sessions, index),
            Subscriber::Group(index) => (&mut self.groups, index),
        };
        let Some(held) = table.get_mut(index as usize) else {
            return UnsubscribeOutcome::NotSubscribed;
        };
        let Some(entry) = held.remove(number, name_bytes) else {
            return UnsubscribeOutcome::NotSubscribed;
        };
        if held.len() == 0 {
            table.remove(index as usize);
        }
        self.len -= 1;
        self.give_position(entry);
        UnsubscribeOutcome::Unsubscribed
    }

    /// The last subscriber of the list takes the position of the one that has left.
    fn give_position(&mut self, left: Entry) {
        let filter = &mut self.filters[left.channel as usize];
        filter.subscribers.swap_remove(left.position);
        let subscribers = filter.subscribers.as_slice();
        let Some(moved) = subscribers.get(left.position as usize) else {
            if subscribers.is_empty() {
                self.remove(left.channel);
            }
            return;
        };
        match moved.subscriber() {
            Subscriber::Session(index) => self.sessions[index as usize].moved(left),
            Subscriber::Group(index) => self.groups[index as usize].moved(left),
        }
    }

    fn remove(&mut self, number: u32) {
        let filter = self.filters.remove(number as usize).expect("invariant 2");
        if has_wildcard(&filter.name) {
            self.trie.remove(&filter.name);
            return;
        }
        let entry = self
            .topics
            .find_entry(filter.hash.as_u64(), |&other| other == number);
        entry.expect("invariant 2").remove();
        self.unreported.push(InterestChange::Lost(filter.hash));
        self.watch.note(&filter.name, false);
        if self.topics.len() < self.topics.capacity() / 8 {
            let (filters, room) = (&self.filters, self.topics.len() * 2);
            self.topics
                .shrink_to(room, |&other| filters[other as usize].hash.as_u64());
        }
    }
}

/// A filter with its subscribers on this core.
#[derive(Debug)]
struct Filter {
    /// The hash of the whole text.
    hash: ChannelHash,
    name: Box<[u8]>,
    subscribers: Subscribers,
}

/// The subscriptions of one filter; one needs no allocation.
#[derive(Debug)]
enum Subscribers {
    One(Match),
    #[expect(
        clippy::box_collection,
        reason = "most filters have one subscriber, and need 8 bytes less"
    )]
    Many(Box<Vec<Match>>),
}

impl Subscribers {
    fn as_slice(&self) -> &[Match] {
        match self {
            Subscribers::One(one) => std::slice::from_ref(one),
            Subscribers::Many(many) => many,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Match] {
        match self {
            Subscribers::One(one) => std::slice::from_mut(one),
            Subscribers::Many(many) => many,
        }
    }

    /// Appends a subscription and returns its place.
    fn push(&mut self, subscription: Match) -> u32 {
        let position = u32::try_from(self.as_slice().len()).expect("sessions have 31-bit indexes");
        match self {
            Subscribers::One(first) => *self = Subscribers::Many(Box::new(vec![*first, subscription])),
            Subscribers::Many(none) if none.is_empty() => *self = Subscribers::One(subscription),
            Subscribers::Many(many) => many.push(subscription),
        }
        position
    }

    fn swap_remove(&mut self, position: u32) {
        match self {
            Subscribers::One(_) => *self = Subscribers::Many(Box::default()),
            Subscribers::Many(many) => {
                many.swap_remove(position as usize);
                match &many[..] {
                    &[last] => *self = Subscribers::One(last),
                    _ => shrink(many),
                }
            }
        }
    }
}

/// Whether a filter has wildcards: in a filter, these characters have no other meaning (section 4.7.1).
fn has_wildcard(filter: &[u8]) -> bool {
    memchr::memchr2(b'+', b'#', filter).is_some()
}

const _: () = assert!(size_of::<Option<Filter>>() == 40);

#[cfg(test)]
mod tests;
