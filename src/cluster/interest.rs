//! Who wants which publications: what this node wants of the others, and what they want of it.
//!
//! [`OwnInterest`] counts the subscribers that cores tell of, and keeps a subject for a while after the last has left, so that
//! a client that comes back at once costs nothing. [`Interest`] is asked for each publication of this node that somebody may
//! want: names are found by the hash that lies in the ring beside the publication, filters by the trie that MQTT sessions use.
//! It also has the bridge woken for what others want, by the directory of the ring; other publications never wake it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;

use crate::broker::{self, AllChannels, ChannelHash, ChannelHasher, SubscriptionLimits};
use crate::clock::Uptime;
use crate::cores::{InterestChange, Subject};
use crate::mqtt::Qos;
use crate::mqtt::subscriptions::{Match, Options, Subscriber, Subscriptions};
use crate::session;

/// Other nodes that may be alive at the same time: the bits of a [`NodeSet`].
pub(super) const NODES_MAX: usize = 64;

/// A set of other nodes, by their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeSet(u64);

impl NodeSet {
    pub(super) const EMPTY: NodeSet = NodeSet(0);

    pub(super) fn of(place: usize) -> NodeSet {
        NodeSet(1 << place)
    }

    pub(super) fn insert(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    pub(super) fn remove(&mut self, place: usize) {
        self.0 &= !(1 << place);
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains(self, place: usize) -> bool {
        self.0 & 1 << place != 0
    }

    pub(super) fn places(self) -> impl Iterator<Item = usize> {
        (0..NODES_MAX).filter(move |place| self.contains(*place))
    }
}

/// What this node wants of the others.
#[derive(Debug)]
pub(super) struct OwnInterest {
    subjects: HashMap<Subject, Wanted>,
    /// Subjects without subscribers, the one that ends first at the front.
    lingering: VecDeque<(Uptime, Subject)>,
    linger: Duration,
}

#[derive(Debug)]
struct Wanted {
    /// How many tell that they have subscribers.
    count: u32,
    /// When it ends, if there are none.
    until: Option<Uptime>,
}

impl OwnInterest {
    pub(super) fn new(linger: Duration) -> OwnInterest {
        OwnInterest {
            subjects: HashMap::new(),
            lingering: VecDeque::new(),
            linger,
        }
    }

    /// Notes a change of one core. Returns a subject that others are to be told of.
    pub(super) fn change(&mut self, change: InterestChange, now: Uptime) -> Option<Subject> {
        let InterestChange { subject, is_wanted } = change;
        if is_wanted {
            if let Some(wanted) = self.subjects.get_mut(&subject) {
                wanted.count += 1;
                wanted.until = None;
                return None;
            }
            let wanted = Wanted {
                count: 1,
                until: None,
            };
            self.subjects.insert(subject.clone(), wanted);
            return Some(subject);
        }
        if let Some(wanted) = self.subjects.get_mut(&subject) {
            wanted.count = wanted.count.saturating_sub(1);
            if wanted.count == 0 {
                let until = now + self.linger;
                wanted.until = Some(until);
                self.lingering.push_back((until, subject));
            }
        }
        None
    }

    /// The next subject whose time without subscribers is over: others are to be told.
    pub(super) fn next_left(&mut self, now: Uptime) -> Option<Subject> {
        while let Some((until, subject)) = self.lingering.pop_front_if(|(until, _)| *until <= now) {
            if self
                .subjects
                .get(&subject)
                .is_some_and(|wanted| wanted.until == Some(until))
            {
                self.subjects.remove(&subject);
                if self.subjects.len() < self.subjects.capacity() / 8 {
                    self.subjects.shrink_to(self.subjects.len() * 2);
                }
                return Some(subject);
            }
        }
        None
    }

    /// When [`OwnInterest::next_left`] has something next.
    pub(super) fn next_due(&self) -> Uptime {
        self.lingering.front().map_or(Uptime::NEVER, |(until, _)| *until)
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.subjects.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.subjects.len()
    }
}

/// What other nodes want of this one.
#[derive(Debug)]
pub(super) struct Interest {
    hasher: ChannelHasher,
    channels: HashTable<Channel>,
    filters: Subscriptions,
    /// By place: the subjects of a node, and whether it has named them since it began to name all.
    nodes: Vec<HashMap<Arc<Subject>, bool>>,
    /// Places of nodes that are naming all that they want.
    naming: NodeSet,
    /// The directory of the ring, by which the bridge is woken.
    directory: broker::Subscriptions,
    found: Vec<Match>,
    len: usize,
}

#[derive(Debug)]
struct Channel {
    hash: ChannelHash,
    subject: Arc<Subject>,
    nodes: NodeSet,
}

impl Interest {
    /// Nobody wants anything yet. `directory` is that of the bridge.
    pub(super) fn new(hasher: ChannelHasher, directory: broker::Subscriptions) -> Interest {
        Interest {
            channels: HashTable::new(),
            filters: Subscriptions::new(hasher.clone()),
            hasher,
            nodes: (0..NODES_MAX).map(|_| HashMap::new()).collect(),
            naming: NodeSet::EMPTY,
            directory,
            found: Vec::new(),
            len: 0,
        }
    }

    /// The nodes that want a publication on this channel.
    pub(super) fn nodes<'n>(&mut self, hash: ChannelHash, name: impl Fn() -> &'n [u8]) -> NodeSet {
        let is_it = |channel: &Channel| channel.hash == hash && *channel.name() == *name();
        let channel = self.channels.find(hash.as_u64(), is_it);
        let mut nodes = channel.map_or(NodeSet::EMPTY, |channel| channel.nodes);
        if !self.filters.is_empty() && session::is_topic(name()) {
            self.found.clear();
            self.filters.matches(hash, &name, &mut self.found);
            for found in &self.found {
                if let Subscriber::Session(place) = found.subscriber() {
                    nodes.insert(place as usize);
                }
            }
        }
        nodes
    }

    /// A node wants a subject, or wants it no more.
    pub(super) fn change(&mut self, place: usize, subject: Subject, is_wanted: bool) {
        if !is_wanted {
            return self.leave(place, &subject);
        }
        let is_naming = self.naming.contains(place);
        if let Some(is_named) = self.nodes[place].get_mut(&subject) {
            *is_named = is_naming;
            return;
        }
        let subject = Arc::new(subject);
        let is_new = match &*subject {
            Subject::Channel(name) => {
                self.join_channel(place, &subject, self.hasher.hash(name));
                true
            }
            Subject::Filter(filter) => self.join_filter(place, filter),
        };
        if is_new {
            self.nodes[place].insert(subject, is_naming);
            self.len += 1;
        }
    }

    /// A node begins to name all that it wants.
    pub(super) fn all_begins(&mut self, place: usize) {
        self.naming.insert(place);
        self.nodes[place]
            .values_mut()
            .for_each(|is_named| *is_named = false);
    }

    /// A node has named all that it wants.
    pub(super) fn all_ends(&mut self, place: usize) {
        if !self.naming.contains(place) {
            return;
        }
        self.naming.remove(place);
        let unnamed = self.nodes[place].iter().filter(|(_, is_named)| !**is_named);
        let unnamed: Vec<Arc<Subject>> = unnamed.map(|(subject, _)| Arc::clone(subject)).collect();
        unnamed.iter().for_each(|subject| self.leave(place, subject));
    }

    /// A node has gone.
    pub(super) fn forget(&mut self, place: usize) {
        self.naming.remove(place);
        let subjects: Vec<Arc<Subject>> = self.nodes[place].keys().cloned().collect();
        subjects.iter().for_each(|subject| self.leave(place, subject));
        self.nodes[place] = HashMap::new();
    }

    /// How many subjects the nodes want, counted for each node.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many subjects a node wants.
    pub(super) fn len_of(&self, place: usize) -> usize {
        self.nodes[place].len()
    }

    fn join_channel(&mut self, place: usize, subject: &Arc<Subject>, hash: ChannelHash) {
        let same = |channel: &Channel| channel.subject == *subject;
        if let Some(channel) = self.channels.find_mut(hash.as_u64(), same) {
            channel.nodes.insert(place);
            return;
        }
        let channel = Channel {
            hash,
            subject: Arc::clone(subject),
            nodes: NodeSet::of(place),
        };
        self.channels
            .insert_unique(hash.as_u64(), channel, |channel| channel.hash.as_u64());
        self.directory.interest_in(hash);
    }

    /// False for what is no filter with wildcards.
    fn join_filter(&mut self, place: usize, filter: &[u8]) -> bool {
        let Some(filter) = text_of_filter(filter) else {
            return false;
        };
        let session = Subscriber::Session(u32::try_from(place).unwrap_or(0));
        self.filters.subscribe(session, filter, OPTIONS, LIMITS);
        self.tell_directory();
        true
    }

    fn leave(&mut self, place: usize, subject: &Subject) {
        if self.nodes[place].remove(subject).is_none() {
            return;
        }
        self.len -= 1;
        match subject {
            Subject::Channel(name) => {
                let hash = self.hasher.hash(name);
                let same = |channel: &Channel| *channel.subject == *subject;
                let Ok(mut entry) = self.channels.find_entry(hash.as_u64(), same) else {
                    return;
                };
                entry.get_mut().nodes.remove(place);
                if entry.get().nodes.is_empty() {
                    entry.remove();
                    self.directory.no_interest_in(hash);
                    if self.channels.len() < self.channels.capacity() / 8 {
                        let room = self.channels.len() * 2;
                        self.channels.shrink_to(room, |channel| channel.hash.as_u64());
                    }
                }
            }
            Subject::Filter(filter) => {
                if let Some(filter) = text_of_filter(filter) {
                    let session = Subscriber::Session(u32::try_from(place).unwrap_or(0));
                    self.filters.unsubscribe(session, filter);
                    self.tell_directory();
                }
            }
        }
    }

    fn tell_directory(&mut self) {
        let has_filters = !self.filters.is_empty();
        self.directory.wake_for_all(AllChannels::Filters, has_filters);
    }
}

impl Channel {
    fn name(&self) -> &[u8] {
        match &*self.subject {
            Subject::Channel(name) | Subject::Filter(name) => name,
        }
    }
}

/// A filter with wildcards. Another node may send anything.
fn text_of_filter(filter: &[u8]) -> Option<&str> {
    use crate::mqtt::topic::Filter;
    let text = std::str::from_utf8(filter).ok()?;
    let is_plain = matches!(Filter::parse(text), Ok(Filter::Plain(_)));
    let has_levels = filter.iter().filter(|byte| **byte == b'/').count() < LEVELS_MAX;
    (is_plain && has_levels && text.contains(['+', '#'])).then_some(text)
}

/// Levels of a filter that others may ask for: a match visits at most 2ⁿ⁺¹ nodes of the trie, if somebody has made as many.
const LEVELS_MAX: usize = 128;
const OPTIONS: Options = Options {
    qos: Qos::AtMostOnce,
    no_local: false,
    retain_as_published: false,
    id: 0,
};
const LIMITS: SubscriptionLimits = SubscriptionLimits {
    channels_max: u32::MAX,
    names_bytes_max: u32::MAX,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::broker;

    fn channel(name: &str) -> Subject {
        Subject::Channel(name.as_bytes().into())
    }

    fn filter(text: &str) -> Subject {
        Subject::Filter(text.as_bytes().into())
    }

    fn change(subject: Subject, is_wanted: bool) -> InterestChange {
        InterestChange { subject, is_wanted }
    }

    #[test]
    fn others_are_told_of_the_first_subscriber_and_some_time_after_the_last() {
        let mut own = OwnInterest::new(Duration::from_millis(100));
        let at = Uptime::from_ms;
        assert_eq!(own.change(change(channel("a"), true), at(0)), Some(channel("a")));
        assert_eq!(own.change(change(channel("a"), true), at(0)), None);
        assert_eq!(own.change(change(channel("a"), false), at(1)), None);
        assert_eq!((own.next_left(at(1000)), own.next_due()), (None, Uptime::NEVER));
        assert_eq!(own.change(change(channel("a"), false), at(1000)), None);
        assert_eq!(own.next_left(at(1099)), None);
        // It comes back, and leaves again: the first end does not count.
        assert_eq!(own.change(change(channel("a"), true), at(1099)), None);
        assert_eq!(own.next_left(at(1100)), None);
        assert_eq!(own.change(change(channel("a"), false), at(1150)), None);
        assert_eq!((own.next_left(at(1249)), own.next_due()), (None, at(1250)));
        assert_eq!(own.next_left(at(1250)), Some(channel("a")));
        assert_eq!((own.next_left(at(5000)), own.len()), (None, 0));
        // A channel and a filter of the same text are two.
        assert_eq!(
            own.change(change(channel("a/#"), true), at(0)),
            Some(channel("a/#"))
        );
        assert_eq!(
            own.change(change(filter("a/#"), true), at(0)),
            Some(filter("a/#"))
        );
    }

    fn interest() -> (Interest, broker::Publisher) {
        let [mut core, bridge] = broker(2, 8, 1 << 16).try_into().expect("two");
        let _ = &mut core;
        (Interest::new(bridge.hasher, bridge.subscriptions), core.publisher)
    }

    fn nodes(interest: &mut Interest, name: &str) -> Vec<usize> {
        let hash = interest.hasher.hash(name.as_bytes());
        interest.nodes(hash, || name.as_bytes()).places().collect()
    }

    #[test]
    fn a_publication_goes_to_the_nodes_whose_names_and_filters_match_and_wakes_the_bridge_for_these_alone() {
        let (mut interest, publisher) = interest();
        interest.change(1, channel("a/b"), true);
        interest.change(63, filter("a/+"), true);
        interest.change(2, channel("a/+"), true);
        interest.change(3, filter("no wildcard"), true);
        interest.change(3, Subject::Filter(b"\xff/#"[..].into()), true);
        assert_eq!(nodes(&mut interest, "a/b"), [1, 63]);
        // A channel of this name exists for SocketCluster only.
        assert_eq!(nodes(&mut interest, "a/+"), [2]);
        assert_eq!(nodes(&mut interest, "a/c"), [63]);
        assert_eq!(nodes(&mut interest, "a"), [] as [usize; 0]);
        assert_eq!((interest.len(), interest.len_of(3)), (3, 0));
        let awaited =
            |interest: &Interest, name: &str| publisher.is_awaited(interest.hasher.hash(name.as_bytes()));
        assert!(awaited(&interest, "anything"), "a filter may match");
        interest.change(63, filter("a/+"), false);
        assert!(awaited(&interest, "a/b") && !awaited(&interest, "a/c"));
        interest.forget(1);
        interest.forget(2);
        assert!(!awaited(&interest, "a/b") && !awaited(&interest, "a/+"));
        assert_eq!(interest.len(), 0);
    }

    #[test]
    fn what_a_node_does_not_name_again_it_wants_no_more_and_meanwhile_it_still_gets_it() {
        let (mut interest, _) = interest();
        for name in ["a", "b", "c"] {
            interest.change(5, channel(name), true);
        }
        interest.change(5, filter("x/#"), true);
        interest.change(6, channel("a"), true);
        interest.all_begins(5);
        interest.change(5, channel("b"), true);
        assert_eq!(nodes(&mut interest, "a"), [5, 6]);
        interest.change(5, channel("d"), true);
        interest.all_ends(5);
        assert_eq!(nodes(&mut interest, "a"), [6]);
        assert_eq!(
            (nodes(&mut interest, "b"), nodes(&mut interest, "d")),
            (vec![5], vec![5])
        );
        assert!(nodes(&mut interest, "c").is_empty() && nodes(&mut interest, "x/y").is_empty());
        // An end without a beginning, as after a lost frame, ends nothing.
        interest.all_ends(5);
        assert_eq!(nodes(&mut interest, "b"), [5]);
    }
}
