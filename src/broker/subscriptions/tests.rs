use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert_eq, proptest};

use super::*;
use crate::broker::core_set::CoreSet;
use crate::broker::directory::Directory;

struct Fixture {
    directory: Arc<Directory>,
    subscriptions: Subscriptions,
    limits: SubscriptionLimits,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = Arc::new(Directory::new(2));
        let interest = Interest::new(Arc::clone(&directory), 1);
        Fixture {
            directory,
            subscriptions: Subscriptions::new(interest),
            limits: SubscriptionLimits {
                channels_max: 10_000,
                names_bytes_max: 1 << 20,
            },
        }
    }

    fn subscribe(&mut self, connection: u32, name: &str) -> SubscribeOutcome {
        self.subscriptions
            .subscribe(connection, name.as_bytes(), hash(name), self.limits)
    }

    fn unsubscribe(&mut self, connection: u32, name: &str) -> UnsubscribeOutcome {
        self.subscriptions
            .unsubscribe(connection, name.as_bytes(), hash(name))
    }

    fn subscribers(&self, name: &str) -> BTreeSet<u32> {
        match self.subscriptions.find(hash(name), || name.as_bytes()) {
            Some(channel) => {
                let subscribers = self.subscriptions.channel(channel).subscribers.as_slice();
                subscribers.iter().copied().collect()
            }
            None => BTreeSet::new(),
        }
    }

    fn channels_of(&self, connection: u32) -> Vec<&[u8]> {
        self.subscriptions.channels_of(connection).collect()
    }

    fn is_interested(&self, name: &str) -> bool {
        self.directory.interested(hash(name)) != CoreSet::EMPTY
    }

    /// Invariants 1 to 3.
    fn check(&self) {
        let Subscriptions {
            table,
            channels,
            connections,
            len,
            walk,
            interest: _,
            watch: _,
            all_channels: _,
        } = &self.subscriptions;
        for (index, held) in connections.iter() {
            let entries = held.some(0, usize::MAX);
            assert!(!entries.is_empty() && entries.len() == held.len());
            assert!(entries.is_sorted_by(|one, next| one.channel < next.channel));
            for entry in entries {
                let subscribers = channels[entry.channel as usize].subscribers.as_slice();
                assert_eq!(subscribers[entry.position as usize] as usize, index);
            }
        }
        let subscribers = channels
            .iter()
            .map(|(_, channel)| channel.subscribers.as_slice().len());
        let entries = connections.iter().map(|(_, held)| held.len());
        assert_eq!(subscribers.clone().sum::<usize>() as u64, *len);
        assert_eq!(entries.sum::<usize>() as u64, *len);
        assert!(subscribers.clone().all(|count| count > 0));
        assert_eq!(table.len(), channels.len());
        if walk.left > 0 {
            assert!(channels[walk.channel as usize].subscribers.len() >= walk.left);
        }
    }
}

/// Few values, so that channels share hashes and buckets.
fn hash(name: &str) -> ChannelHash {
    ChannelHash::from_u64(name.len() as u64 % 2)
}

#[test]
fn a_connections_channels_are_gone_through_in_parts_whatever_ends_meanwhile() {
    for max in [1, 2, 3, 7, 100] {
        let mut fixture = Fixture::new();
        let names: Vec<String> = (0..9).map(|number| format!("c{number}")).collect();
        for name in &names {
            fixture.subscribe(3, name);
        }
        let (mut from, mut parts, mut found) = (Some(0), 0, Vec::new());
        while let Some(at) = from {
            let (some, next) = fixture.subscriptions.some_channels_of(3, at, max);
            assert!(some.len() <= max);
            for name in some {
                let name = String::from_utf8(name.into()).unwrap();
                if name != "c4" {
                    fixture.unsubscribe(3, &name);
                }
                found.push(name);
            }
            (from, parts) = (next, parts + 1);
        }
        assert_eq!(found, names);
        assert!(parts >= 9_usize.div_ceil(max));
        assert_eq!(fixture.channels_of(3), [b"c4"]);
        fixture.check();
    }
}

#[test]
fn at_the_limit_even_a_repeated_subscribe_is_refused() {
    let mut fixture = Fixture::new();
    fixture.limits.channels_max = 2;
    assert_eq!(fixture.subscribe(0, "a"), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.subscribe(0, "a"), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.subscribe(0, "b"), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.subscribe(0, "b"), SubscribeOutcome::TooMany { limit: 2 });
    assert_eq!(fixture.subscribe(0, "c"), SubscribeOutcome::TooMany { limit: 2 });
    assert_eq!(fixture.subscribe(1, "c"), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.unsubscribe(0, "a"), UnsubscribeOutcome::Unsubscribed);
    assert_eq!(fixture.subscribe(0, "c"), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.subscriptions.len(), 3);
}

#[test]
fn names_may_take_as_many_bytes_as_the_limit_says() {
    let mut fixture = Fixture::new();
    fixture.limits.names_bytes_max = 6;
    let too_long = SubscribeOutcome::TooLong { limit: 6 };
    assert_eq!(fixture.subscribe(0, "1234567"), too_long);
    assert_eq!(fixture.subscribe(0, "123456"), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.subscribe(0, "1"), too_long);
    assert_eq!(fixture.subscribe(0, ""), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.subscribe(0, "123456"), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.unsubscribe(0, "123456"), UnsubscribeOutcome::Unsubscribed);
    assert_eq!(fixture.subscribe(0, "123"), SubscribeOutcome::Subscribed);
    assert_eq!(fixture.subscribe(0, "1234"), too_long);
    assert_eq!(fixture.subscribe(0, "124"), SubscribeOutcome::Subscribed);
    assert!(!fixture.is_interested("1234567") || fixture.subscribers("1234567").is_empty());
}

#[test]
fn channels_come_in_the_order_of_subscribing() {
    let mut fixture = Fixture::new();
    // A freed id is given out again, so that ids do not ascend.
    for name in ["x", "y", "z"] {
        fixture.subscribe(1, name);
    }
    fixture.subscribe(0, "z");
    fixture.unsubscribe(1, "x");
    for name in ["late", "y", "later"] {
        fixture.subscribe(0, name);
    }
    assert_eq!(fixture.channels_of(0), [&b"z"[..], b"late", b"y", b"later"]);
    fixture.unsubscribe(0, "z");
    fixture.subscribe(0, "z");
    assert_eq!(fixture.channels_of(0), [&b"late"[..], b"y", b"later", b"z"]);
    fixture.check();
}

#[test]
fn a_channel_that_has_lost_its_subscribers_is_gone() {
    let mut fixture = Fixture::new();
    for connection in 0..1000 {
        fixture.subscribe(connection, "all");
        fixture.subscribe(connection, &format!("own {connection:04}"));
    }
    assert!(fixture.is_interested("all"));
    for connection in (0..1000).rev() {
        fixture.subscriptions.unsubscribe_some(connection, usize::MAX);
    }
    fixture.subscriptions.unsubscribe_some(5000, usize::MAX);
    fixture.check();
    let subscriptions = &fixture.subscriptions;
    assert!(subscriptions.is_empty() && subscriptions.channels.len() == 0);
    assert!(subscriptions.table.capacity() < 100);
    assert!(!fixture.is_interested("all"));
}

#[test]
fn a_list_that_has_shrunk_gives_its_memory_back() {
    let mut fixture = Fixture::new();
    for connection in 0..1000 {
        fixture.subscribe(connection, "all");
    }
    for connection in 1..1000 {
        fixture.unsubscribe(connection, "all");
    }
    assert_eq!(fixture.subscribers("all"), BTreeSet::from([0]));
    match &fixture.subscriptions.channels[0].subscribers {
        Subscribers::Many(connections) => assert!(connections.capacity() < 16),
        Subscribers::One(_) => panic!("a list that has grown stays one until its channel goes"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u32, String),
    Unsubscribe(u32, String),
    /// Unsubscribes a connection from at most this many channels.
    UnsubscribeSome(u32, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || "[abc]{0,2}";
    prop_oneof![
        6 => (0..6u32, name()).prop_map(|(connection, name)| Step::Subscribe(connection, name)),
        3 => (0..7u32, name()).prop_map(|(connection, name)| Step::Unsubscribe(connection, name)),
        1 => (0..7u32, 0..4usize).prop_map(|(connection, max)| Step::UnsubscribeSome(connection, max)),
    ]
}

proptest! {
    #[test]
    fn subscriptions_behave_as_a_plain_set_of_pairs(steps in vec(step(), 0..200), few in any::<bool>()) {
        let mut fixture = Fixture::new();
        fixture.limits.channels_max = if few { 3 } else { 100 };
        fixture.limits.names_bytes_max = if few { 4 } else { 1000 };
        let mut model: Vec<(u32, String)> = Vec::new();
        for step in steps {
            match step {
                Step::Subscribe(connection, name) => {
                    let held = || model.iter().filter(|(other, _)| *other == connection);
                    let bytes: usize = held().map(|(_, name)| name.len()).sum();
                    let limits = &fixture.limits;
                    let expected = if held().count() >= limits.channels_max as usize {
                        SubscribeOutcome::TooMany { limit: limits.channels_max }
                    } else if held().any(|(_, other)| *other == name) {
                        SubscribeOutcome::Subscribed
                    } else if bytes + name.len() > limits.names_bytes_max as usize {
                        SubscribeOutcome::TooLong { limit: limits.names_bytes_max }
                    } else {
                        model.push((connection, name.clone()));
                        SubscribeOutcome::Subscribed
                    };
                    prop_assert_eq!(fixture.subscribe(connection, &name), expected);
                }
                Step::Unsubscribe(connection, name) => {
                    let before = model.len();
                    model.retain(|pair| *pair != (connection, name.clone()));
                    let expected = if model.len() < before {
                        UnsubscribeOutcome::Unsubscribed
                    } else {
                        UnsubscribeOutcome::NotSubscribed
                    };
                    prop_assert_eq!(fixture.unsubscribe(connection, &name), expected);
                }
                Step::UnsubscribeSome(connection, max) => {
                    let subscriptions = &mut fixture.subscriptions;
                    let numbers: Vec<u32> = subscriptions.some_numbers_of(connection, 0, max).collect();
                    let names: Vec<&[u8]> =
                        numbers.iter().filter_map(|&number| Some(subscriptions.name_of(number)?.0)).collect();
                    let before = model.len();
                    model.retain(|(other, name)| *other != connection || !names.contains(&name.as_bytes()));
                    let held = model.iter().filter(|(other, _)| *other == connection).count();
                    prop_assert_eq!(before - model.len(), numbers.len());
                    assert!(held == 0 || numbers.len() == max, "{numbers:?} of {max}");
                    prop_assert_eq!(subscriptions.unsubscribe_some(connection, max), held);
                }
            }
            fixture.check();
            for (_, name) in &model {
                let expected = model.iter().filter(|(_, other)| other == name);
                let expected: BTreeSet<u32> = expected.map(|(connection, _)| *connection).collect();
                prop_assert_eq!(fixture.subscribers(name), expected);
                assert!(fixture.is_interested(name));
            }
            for connection in 0..7 {
                let expected = model.iter().filter(|(other, _)| *other == connection);
                let expected: Vec<&[u8]> = expected.map(|(_, name)| name.as_bytes()).collect();
                prop_assert_eq!(fixture.channels_of(connection), expected);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum WalkStep {
    Change(Step),
    /// Begins a walk, whether or not the walk before is over.
    Begin(String),
    Walk(usize),
}

fn walk_step() -> impl Strategy<Value = WalkStep> {
    let name = || "[ab]{0,1}";
    let change = prop_oneof![
        4 => (0..12u32, name()).prop_map(|(connection, name)| Step::Subscribe(connection, name)),
        3 => (0..12u32, name()).prop_map(|(connection, name)| Step::Unsubscribe(connection, name)),
        1 => (0..12u32).prop_map(|connection| Step::UnsubscribeSome(connection, usize::MAX)),
    ];
    prop_oneof![
        6 => change.prop_map(WalkStep::Change),
        1 => name().prop_map(WalkStep::Begin),
        2 => (1..5usize).prop_map(WalkStep::Walk),
    ]
}

proptest! {
    /// The model is the set of subscribers that the walk has still to reach. A connection that subscribes is
    /// not added to it; a connection that unsubscribes is removed.
    #[test]
    fn a_walk_reaches_each_connection_that_is_subscribed_throughout_once(
        crowd in 0..12u32,
        steps in vec(walk_step(), 0..200),
    ) {
        let mut fixture = Fixture::new();
        for connection in 0..crowd {
            fixture.subscribe(connection, "a");
        }
        let (mut walked, mut left) = (String::new(), BTreeSet::new());
        for step in steps {
            match step {
                WalkStep::Change(Step::Subscribe(connection, name)) => {
                    fixture.subscribe(connection, &name);
                }
                WalkStep::Change(Step::Unsubscribe(connection, name)) => {
                    fixture.unsubscribe(connection, &name);
                    if name == walked {
                        left.remove(&connection);
                    }
                }
                WalkStep::Change(Step::UnsubscribeSome(connection, _)) => {
                    fixture.subscriptions.unsubscribe_some(connection, usize::MAX);
                    left.remove(&connection);
                }
                WalkStep::Begin(name) => {
                    fixture.subscriptions.begin_walk(hash(&name), || name.as_bytes());
                    left = fixture.subscribers(&name);
                    walked = name;
                }
                WalkStep::Walk(max) => {
                    let reached = fixture.subscriptions.walk(max).to_vec();
                    prop_assert_eq!(reached.len(), max.min(left.len()));
                    for connection in reached {
                        assert!(left.remove(&connection), "{connection} is not among {left:?}");
                    }
                }
            }
            fixture.check();
            prop_assert_eq!(fixture.subscriptions.walk.left as usize, left.len());
            if let Some(channel) = fixture.subscriptions.number_of(walked.as_bytes(), hash(&walked)) {
                let will_reach = |&connection: &u32| fixture.subscriptions.walk_will_reach(connection, channel);
                let to_reach: BTreeSet<u32> = (0..12).filter(will_reach).collect();
                prop_assert_eq!(&to_reach, &left);
            }
        }
        for connection in fixture.subscriptions.walk(usize::MAX).to_vec() {
            assert!(left.remove(&connection));
        }
        prop_assert_eq!(left, BTreeSet::new());
    }
}
