use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{prop_assert_eq, proptest};

use super::*;
use crate::broker::{CoreBroker, Facts, Kind, Marks, Origin};

const LIMITS: SubscriptionLimits = SubscriptionLimits {
    channels_max: 10_000,
    names_bytes_max: 1 << 20,
};
const PLAIN: Options = Options {
    qos: Qos::AtMostOnce,
    no_local: false,
    retain_as_published: false,
    id: 0,
};

fn empty() -> Subscriptions {
    Subscriptions::new(ChannelHasher::with_key(7))
}

fn of_filters<'f>(filters: impl IntoIterator<Item = &'f str>) -> Subscriptions {
    let mut subscriptions = empty();
    for (session, filter) in (0..).zip(filters) {
        let outcome = subscriptions.subscribe(Subscriber::Session(session), filter, PLAIN, LIMITS);
        assert_eq!(outcome, SubscribeOutcome::New);
    }
    subscriptions
}

fn found(subscriptions: &mut Subscriptions, topic: &str) -> Vec<Match> {
    let (hash, mut found) = (subscriptions.hasher.hash(topic.as_bytes()), Vec::new());
    subscriptions.matches(hash, || topic.as_bytes(), &mut found);
    found
}

/// The filters that match, one session each.
fn matching<'f>(filters: &[&'f str], topic: &str) -> BTreeSet<&'f str> {
    let mut subscriptions = of_filters(filters.iter().copied());
    let found = found(&mut subscriptions, topic);
    let names = found.iter().map(|one| match one.subscriber() {
        Subscriber::Session(session) => filters[session as usize],
        Subscriber::Group(_) => unreachable!("there are none"),
    });
    let names: BTreeSet<_> = names.collect();
    assert_eq!(names.len(), found.len(), "each once");
    names
}

/// Section 4.7, statement by statement.
fn naive(filter: &[&str], topic: &[&str], is_first: bool) -> bool {
    let hides = is_first && topic.first().is_some_and(|level| level.starts_with('$'));
    match (filter, topic) {
        (["#"], _) => !hides,
        ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => !hides && naive(filter, topic, false),
        ([level, filter @ ..], [same, topic @ ..]) if level == same => naive(filter, topic, false),
        (_, _) => false,
    }
}

fn is_match(filter: &str, topic: &str) -> bool {
    let filter: Vec<_> = filter.split('/').collect();
    let topic: Vec<_> = topic.split('/').collect();
    naive(&filter, &topic, true)
}

/// Traps 47 and 70 to 75 of other brokers, and the examples of sections 4.7.1 and 4.7.2.
#[test]
fn filters_match_as_the_specification_says() {
    let filters = [
        "#", "+", "/+", "+/+", "/#", "+/#", "a/#", "a/+", "a/+/#", "a/+/b/#", "a//b", "a/", "a", "+/+/+",
        "+/b", "$SYS/#", "$SYS/+", "$SYS/a", "$SYS", "+/a", "$SYS/+/#",
    ];
    for (topic, expected) in [
        ("a", &["#", "+", "a", "a/#", "+/#"][..]),
        ("a/", &["#", "+/+", "+/#", "a/#", "a/+", "a/+/#", "a/"]),
        ("/a", &["#", "/+", "+/+", "/#", "+/#", "+/a"]),
        ("/", &["#", "/+", "+/+", "/#", "+/#"]),
        ("a/b", &["#", "+/+", "+/#", "a/#", "a/+", "a/+/#", "+/b"]),
        ("a/x/b", &["#", "+/#", "a/#", "a/+/#", "a/+/b/#", "+/+/+"]),
        ("a//b", &["#", "+/#", "a/#", "a/+/#", "a/+/b/#", "+/+/+", "a//b"]),
        ("a/y/b/c/d", &["#", "+/#", "a/#", "a/+/#", "a/+/b/#"]),
        ("$SYS", &["$SYS", "$SYS/#"]),
        ("$SYS/a", &["$SYS/#", "$SYS/+", "$SYS/a", "$SYS/+/#"]),
        ("b/$SYS", &["#", "+/+", "+/#"]),
        ("$", &[]),
        ("A", &["#", "+", "+/#"]),
    ] {
        assert_eq!(
            matching(&filters, topic),
            expected.iter().copied().collect(),
            "{topic}"
        );
    }
}

#[test]
fn a_group_and_a_session_of_the_same_number_are_two_subscribers() {
    let mut subscriptions = empty();
    for filter in ["a", "+"] {
        subscriptions.subscribe(Subscriber::Group(3), filter, PLAIN, LIMITS);
        subscriptions.subscribe(Subscriber::Session(3), filter, PLAIN, LIMITS);
    }
    let all = found(&mut subscriptions, "a");
    let order: Vec<_> = all.iter().map(|one| one.subscriber()).collect();
    let (session, group) = (Subscriber::Session(3), Subscriber::Group(3));
    assert_eq!(order, [session, session, group, group], "groups come last");
    assert_eq!(subscriptions.end(group, 10), EndOutcome::Ended);
    assert_eq!(found(&mut subscriptions, "a").len(), 2);
    assert_eq!(subscriptions.count_of(session), 2);
}

#[test]
fn a_session_gets_one_copy_with_the_highest_qos_and_all_identifiers() {
    let mut subscriptions = empty();
    let session = Subscriber::Session(4);
    for (filter, qos, retain_as_published, id) in [
        ("a/b", Qos::AtLeastOnce, false, 7),
        ("a/+", Qos::ExactlyOnce, false, 0),
        ("a/#", Qos::AtMostOnce, true, (1 << 28) - 1),
        ("#", Qos::AtMostOnce, false, 7),
    ] {
        let options = Options {
            qos,
            no_local: filter == "#",
            retain_as_published,
            id,
        };
        subscriptions.subscribe(session, filter, options, LIMITS);
        subscriptions.subscribe(Subscriber::Session(9), "a/b", PLAIN, LIMITS);
    }
    let mut all = found(&mut subscriptions, "a/b");
    let merged = Merged::first(&all).unwrap();
    assert_eq!((merged.subscriber(), merged.count()), (session, 4));
    assert_eq!(
        (merged.qos(), merged.retain_as_published()),
        (Qos::ExactlyOnce, true)
    );
    let mut ids: Vec<_> = merged.ids().collect();
    ids.sort_unstable();
    assert_eq!(ids, [7, 7, (1 << 28) - 1]);
    let other = Merged::first(&all[merged.count()..]).unwrap();
    assert_eq!((other.subscriber(), other.count()), (Subscriber::Session(9), 1));
    assert_eq!(other.ids().count(), 0);
    assert!(Merged::first(&all[5..]).is_none());
    leave_out_own(&mut all, 9);
    assert_eq!(all.len(), 5);
    leave_out_own(&mut all, 4);
    assert_eq!(
        Merged::first(&all).unwrap().ids().count(),
        2,
        "that of `#` is left out"
    );
}

#[test]
fn limits_are_for_new_filters_only() {
    let mut subscriptions = empty();
    let session = Subscriber::Session(0);
    let limits = SubscriptionLimits {
        channels_max: 2,
        names_bytes_max: 5,
    };
    let mut subscribe = |filter| subscriptions.subscribe(session, filter, PLAIN, limits);
    assert_eq!(subscribe("123456"), SubscribeOutcome::TooLong { limit: 5 });
    assert_eq!(subscribe("1/+"), SubscribeOutcome::New);
    assert_eq!(subscribe("123"), SubscribeOutcome::TooLong { limit: 5 });
    assert_eq!(subscribe("12"), SubscribeOutcome::New);
    assert_eq!(subscribe("1/+"), SubscribeOutcome::Replaced);
    assert_eq!(subscribe("1"), SubscribeOutcome::TooMany { limit: 2 });
    assert_eq!(
        subscriptions.unsubscribe(session, "1/+"),
        UnsubscribeOutcome::Unsubscribed
    );
    assert_eq!(
        subscriptions.unsubscribe(session, "1/+"),
        UnsubscribeOutcome::NotSubscribed
    );
    let outcome = subscriptions.subscribe(session, "#", PLAIN, limits);
    assert_eq!(outcome, SubscribeOutcome::New);
}

#[test]
fn a_session_ends_in_parts() {
    let mut subscriptions = empty();
    let session = Subscriber::Session(2);
    for number in 0..10 {
        subscriptions.subscribe(session, &format!("a/{number}"), PLAIN, LIMITS);
        subscriptions.subscribe(Subscriber::Session(1), &format!("a/{number}"), PLAIN, LIMITS);
        subscriptions.subscribe(session, &format!("+/{number}"), PLAIN, LIMITS);
    }
    assert_eq!(subscriptions.end(session, 7), EndOutcome::HasMore);
    assert_eq!(subscriptions.count_of(session), 13);
    assert_eq!(subscriptions.end(session, 13), EndOutcome::Ended);
    assert_eq!(subscriptions.end(session, 1), EndOutcome::Ended);
    assert_eq!((subscriptions.count_of(session), subscriptions.len()), (0, 10));
    assert!(subscriptions.trie.is_empty());
}

fn wakes(publisher: &mut CoreBroker, topic: &str) -> bool {
    let hash = publisher.hasher.hash(topic.as_bytes());
    let facts = Facts {
        at_ns: 0,
        kind: Kind::Json,
        origin: Origin::SocketCluster,
        payload_bytes: 0,
        retain: false,
        marks: Marks {
            remembered: false,
            positioned: false,
        },
    };
    let published = publisher
        .publisher
        .try_publish(topic.as_bytes(), hash, &[b"1"], facts);
    published.expect("there is room").wake.contains(1)
}

#[test]
fn a_core_is_woken_for_the_topics_of_its_filters_and_for_all_while_it_has_wildcards() {
    let [mut one, mut two] = broker::broker(2, 64, 1 << 20).try_into().expect("two cores");
    let mut subscriptions = Subscriptions::new(two.hasher.clone());
    let mut woken = |subscriptions: &mut Subscriptions| {
        subscriptions.tell_interest(&mut two.subscriptions);
        ["topic", "other"].map(|topic| {
            while two.reader.next().is_some() {}
            two.reader.release();
            assert!(two.reader.prepare_sleep());
            let is_woken = wakes(&mut one, topic);
            two.reader.mark_awake();
            is_woken
        })
    };
    assert_eq!(woken(&mut subscriptions), [false, false]);
    for session in [1, 2].map(Subscriber::Session) {
        subscriptions.subscribe(session, "topic", PLAIN, LIMITS);
    }
    assert_eq!(woken(&mut subscriptions), [true, false]);
    for filter in ["x/+", "y/#"] {
        subscriptions.subscribe(Subscriber::Session(1), filter, PLAIN, LIMITS);
    }
    assert_eq!(woken(&mut subscriptions), [true, true]);
    subscriptions.unsubscribe(Subscriber::Session(1), "x/+");
    subscriptions.unsubscribe(Subscriber::Session(2), "topic");
    assert_eq!(woken(&mut subscriptions), [true, true]);
    subscriptions.unsubscribe(Subscriber::Session(1), "y/#");
    assert_eq!(woken(&mut subscriptions), [true, false]);
    subscriptions.end(Subscriber::Session(1), 10);
    assert_eq!(woken(&mut subscriptions), [false, false]);
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(Subscriber, String, Options),
    Unsubscribe(Subscriber, String),
    End(Subscriber, usize),
    Match(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (subscriber(), filter(), options()).prop_map(|(who, filter, options)| Step::Subscribe(who, filter, options)),
        3 => (subscriber(), filter()).prop_map(|(who, filter)| Step::Unsubscribe(who, filter)),
        1 => (subscriber(), 0_usize..9).prop_map(|(who, max)| Step::End(who, max)),
        6 => topic().prop_map(Step::Match),
    ]
}

fn subscriber() -> impl Strategy<Value = Subscriber> {
    prop_oneof![
        4 => (0_u32..5).prop_map(Subscriber::Session),
        1 => (0_u32..2).prop_map(Subscriber::Group),
    ]
}

/// Few levels, so that filters share their beginnings and overlap.
fn topic() -> impl Strategy<Value = String> {
    let first = prop_oneof![3 => Just("a"), 2 => Just("b"), 1 => Just(""), 1 => Just("$"), 1 => Just("$a")];
    let later = prop_oneof![3 => Just("a"), 2 => Just("b"), 1 => Just(""), 1 => Just("$a")];
    (first, vec(later, 0..4)).prop_map(|(first, later)| {
        let levels: Vec<_> = std::iter::once(first).chain(later).collect();
        levels.join("/")
    })
}

fn filter() -> impl Strategy<Value = String> {
    (topic(), any::<u8>(), any::<bool>(), any::<bool>()).prop_map(|(topic, plus, is_plus, is_below)| {
        let mut levels: Vec<_> = topic.split('/').collect();
        for (at, level) in levels.iter_mut().enumerate() {
            if is_plus && plus >> at & 1 == 1 {
                *level = "+";
            }
        }
        if is_below {
            levels.push("#");
            if plus >= 128 {
                levels.drain(..levels.len() - 1);
            }
        }
        levels.join("/")
    })
}

fn options() -> impl Strategy<Value = Options> {
    (0_usize..3, any::<bool>(), any::<bool>(), 0_u32..1 << 28).prop_map(
        |(qos, no_local, retain_as_published, id)| Options {
            qos: [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][qos],
            no_local,
            retain_as_published,
            id,
        },
    )
}

type Model = BTreeMap<(String, String), Options>;

fn name(subscriber: Subscriber) -> String {
    format!("{subscriber:?}")
}

/// Invariants 1 and 2, and those of the trie.
fn check(subscriptions: &Subscriptions) {
    let tables = [
        (
            &subscriptions.sessions,
            Subscriber::Session as fn(u32) -> Subscriber,
        ),
        (&subscriptions.groups, Subscriber::Group),
    ];
    let mut count = 0;
    for (table, subscriber) in tables {
        for (index, held) in table.iter() {
            assert!(held.len() > 0);
            for entry in held.some(0, usize::MAX) {
                let subscribers = subscriptions.filters[entry.channel as usize]
                    .subscribers
                    .as_slice();
                let expected = subscriber(u32::try_from(index).unwrap());
                assert_eq!(subscribers[entry.position as usize].subscriber(), expected);
                count += 1;
            }
        }
    }
    let subscribers = subscriptions
        .filters
        .iter()
        .map(|(_, filter)| filter.subscribers.as_slice().len());
    assert!(subscribers.clone().all(|count| count > 0));
    assert_eq!(subscribers.sum::<usize>(), count);
    assert_eq!(subscriptions.len(), count as u64);
    for (number, filter) in subscriptions.filters.iter() {
        assert_eq!(
            subscriptions.find(&filter.name),
            Some(u32::try_from(number).unwrap())
        );
    }
    subscriptions.trie.check();
}

proptest! {
    #[test]
    fn every_topic_finds_what_a_naive_matcher_finds(steps in vec(step(), 1..120)) {
        let (mut subscriptions, mut model) = (empty(), Model::new());
        for step in steps {
            match step {
                Step::Subscribe(who, filter, options) => {
                    let outcome = subscriptions.subscribe(who, &filter, options, LIMITS);
                    let expected = match model.insert((name(who), filter), options) {
                        Some(_) => SubscribeOutcome::Replaced,
                        None => SubscribeOutcome::New,
                    };
                    prop_assert_eq!(outcome, expected);
                }
                Step::Unsubscribe(who, filter) => {
                    let outcome = subscriptions.unsubscribe(who, &filter);
                    let expected = match model.remove(&(name(who), filter)) {
                        Some(_) => UnsubscribeOutcome::Unsubscribed,
                        None => UnsubscribeOutcome::NotSubscribed,
                    };
                    prop_assert_eq!(outcome, expected);
                }
                Step::End(who, max) => end(&mut subscriptions, &mut model, who, max),
                Step::Match(topic) => {
                    let matches = found(&mut subscriptions, &topic);
                    let is_side_by_side = matches.is_sorted_by_key(|one| match one.subscriber() {
                        Subscriber::Session(index) => (0, index),
                        Subscriber::Group(index) => (1, index),
                    });
                    let shown = |who: &str, options: &Options| format!("{who} {options:?}");
                    let mut all: Vec<_> = matches.iter().map(|one| shown(&name(one.subscriber()), &one.options())).collect();
                    let hits = model.iter().filter(|((_, filter), _)| is_match(filter, &topic));
                    let mut expected: Vec<_> = hits.map(|((who, _), options)| shown(who, options)).collect();
                    all.sort();
                    expected.sort();
                    prop_assert_eq!(all, expected, "{}", topic);
                    prop_assert_eq!(matches.len() < 2 || is_side_by_side || one_filter(&model, &topic), true);
                }
            }
            check(&subscriptions);
        }
        subscriptions.tell_interest(&mut broker::broker(1, 2, 1 << 10).remove(0).subscriptions);
    }
}

/// Whether only one filter matches: then its subscribers come in the order of the list, each once.
fn one_filter(model: &Model, topic: &str) -> bool {
    let filters: BTreeSet<_> = model.keys().map(|(_, filter)| filter).collect();
    filters
        .into_iter()
        .filter(|filter| is_match(filter, topic))
        .count()
        == 1
}

/// Ends a part of a session's subscriptions, and removes the ended ones from the model.
fn end(subscriptions: &mut Subscriptions, model: &mut Model, who: Subscriber, max: usize) {
    let before = subscriptions.count_of(who);
    let outcome = subscriptions.end(who, max);
    let mut left = BTreeSet::new();
    let mut from = Some(0);
    while let Some(at) = from {
        let (some, next) = subscriptions.some_filters_of(who, at, 2);
        for (filter, options) in some {
            let filter = String::from_utf8(filter.into()).unwrap();
            assert_eq!(model[&(name(who), filter.clone())], options);
            left.insert(filter);
        }
        from = next;
    }
    assert_eq!(left.len(), before.saturating_sub(max));
    assert_eq!(outcome == EndOutcome::Ended, left.is_empty());
    model.retain(|(session, filter), _| *session != name(who) || left.contains(filter));
}
