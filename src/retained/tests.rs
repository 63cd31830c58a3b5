//! Retained publications against a plain map and the definition of a match.

use std::collections::BTreeMap;

use proptest::prelude::{Strategy, any, proptest};
use proptest::{collection, option, prop_assert, prop_assert_eq, prop_oneof, sample};

use super::*;
use crate::broker::Sequence;
use crate::config::channels::MqttPayload;

const UNBOUNDED: Bounds = Bounds {
    count_max: usize::MAX,
    bytes_max: usize::MAX,
};
const WHOLE: PageLimits = PageLimits {
    visits_max: usize::MAX,
    entries_max: usize::MAX,
    bytes_max: usize::MAX,
};
const END: Sequence = Sequence(u64::MAX);

fn facts(sequence: u64, expires_at_ms: Option<u64>) -> Facts {
    Facts {
        sequence: Sequence(sequence),
        is_restored: false,
        qos: 1,
        is_text: false,
        is_json: false,
        is_unquoted: false,
        payload_rule: MqttPayload::Auto,
        cause: Cause::Publisher,
        client_hash: 0,
        expires_at_ms,
    }
}

fn topic_of(entry: &Entry) -> String {
    let mut topic = Vec::new();
    entry.write_topic(&mut topic);
    String::from_utf8(topic).unwrap()
}

/// Section 4.7, word for word.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    match filter.iter().position(|level| *level == "#") {
        Some(rest) => topic.len() >= rest && like(&filter[..rest], &topic[..rest]),
        None => filter.len() == topic.len() && like(&filter, &topic),
    }
}

fn like(filter: &[&str], topic: &[&str]) -> bool {
    filter
        .iter()
        .zip(topic)
        .all(|(wanted, level)| *wanted == "+" || wanted == level)
}

/// The topics of all pages with so many visits each, and how many topics were in the largest.
fn walk(retained: &Retained, filter: &str, limits: PageLimits, now_ms: u64) -> Vec<String> {
    let filter = Filter::new(filter);
    let (mut topics, mut from) = (Vec::new(), None);
    loop {
        let page = retained.page(&filter, from.as_deref(), END, now_ms, limits);
        assert!(page.entries.len() <= limits.entries_max.min(limits.visits_max));
        topics.extend(page.entries.iter().map(topic_of));
        match page.next {
            Some(next) => from = Some(next),
            None => return topics,
        }
    }
}

fn any_level() -> impl Strategy<Value = &'static str> {
    // Characters around the separator, a level that is another's beginning, an empty one, and the server's own.
    sample::select(vec!["", "a", "a-", "aa", "b", "b!", "c", "$SYS", "\u{1}", "ü"])
}

fn any_topic() -> impl Strategy<Value = String> {
    collection::vec(any_level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn any_filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => any_level(), 2 => sample::select(vec!["+"])];
    (collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(levels, rest)| {
            let rest = rest.then_some("#");
            levels.into_iter().chain(rest).collect::<Vec<_>>().join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

/// Saves as much as the disk takes now.
fn save(retained: &mut Retained, disk: &mut BTreeMap<String, Vec<u8>>, room: usize) {
    let mut left = room;
    retained.save(|topic, entry| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let topic = String::from_utf8(topic.to_vec()).unwrap();
        match entry {
            Some(entry) => {
                let mut value = Vec::new();
                entry.write_stored(&mut value);
                disk.insert(topic, value);
            }
            None => {
                disk.remove(&topic);
            }
        }
        true
    });
}

proptest! {
    #[test]
    fn a_later_process_has_the_retained_publications_except_topics_of_the_server(
        steps in collection::vec((any_topic(), 0..3_usize, option::of(1..90_u64), 0..4_usize), 0..80),
        count_max in 1..20_usize,
    ) {
        let bounds = Bounds { count_max, bytes_max: usize::MAX };
        let mut retained = Retained::new(bounds);
        retained.begin_saving();
        let mut disk = BTreeMap::new();
        let end_ms = steps.len() as u64;
        for (now_ms, (topic, length, expires_at_ms, room)) in steps.into_iter().enumerate() {
            let payload = vec![b'p'; length];
            retained.set(&facts(now_ms as u64, expires_at_ms), topic.as_bytes(), b"props", &payload);
            while retained.sweep(now_ms as u64, 3) {}
            save(&mut retained, &mut disk, room);
        }
        save(&mut retained, &mut disk, usize::MAX);
        prop_assert!(!retained.has_unsaved());
        let mut next = Retained::new(bounds);
        let mut scratch = Vec::new();
        for (topic, value) in &disk {
            prop_assert!(!topic.starts_with("$SYS/"));
            for cut in 0..23 {
                prop_assert!(Entry::restored(topic.as_bytes(), &value[..cut], &mut scratch).is_none());
            }
            let entry = Entry::restored(topic.as_bytes(), value, &mut scratch).unwrap();
            prop_assert_eq!(next.restore(entry), Set::Retained);
        }
        let all = |retained: &Retained, filter| {
            let page = retained.page(&Filter::new(filter), None, END, end_ms, WHOLE);
            page.entries.iter().map(|entry| (
                topic_of(entry),
                Facts { sequence: Sequence(0), is_restored: true, ..entry.facts() },
                entry.properties().to_vec(),
                entry.payload().to_vec(),
            )).collect::<Vec<_>>()
        };
        prop_assert_eq!(all(&next, "#"), all(&retained, "#"));
        // The first publication of the process has the place 0, and these are older.
        prop_assert_eq!(next.page(&Filter::new("#"), None, Sequence(0), end_ms, WHOLE).entries.len(), all(&next, "#").len());
        let smaller = Bounds { count_max: next.len() / 2, bytes_max: usize::MAX };
        let (mut smaller, mut left_out) = (Retained::new(smaller), 0);
        smaller.begin_saving();
        for (topic, value) in &disk.clone() {
            let entry = Entry::restored(topic.as_bytes(), value, &mut scratch).unwrap();
            left_out += usize::from(smaller.restore(entry) == Set::TooMany);
        }
        save(&mut smaller, &mut disk, usize::MAX);
        prop_assert_eq!((smaller.len() + left_out, disk.len()), (next.len(), smaller.len()));
    }

    #[test]
    fn a_walk_in_pages_of_any_size_finds_the_matching_topics(
        topics in collection::vec(any_topic(), 0..60),
        filters in collection::vec(any_filter(), 1..8),
        visits_max in 1..20_usize,
        entries_max in 1..20_usize,
    ) {
        let mut retained = Retained::new(UNBOUNDED);
        let mut model = BTreeMap::new();
        for (number, topic) in topics.iter().enumerate() {
            retained.set(&facts(number as u64, None), topic.as_bytes(), b"", b"x");
            model.insert(topic.clone(), number);
        }
        for filter in filters {
            let limits = PageLimits { visits_max, entries_max, bytes_max: usize::MAX };
            let mut found = walk(&retained, &filter, limits, 0);
            found.sort();
            let expected: Vec<_> = model.keys().filter(|topic| matches(&filter, topic)).cloned().collect();
            prop_assert_eq!(found, expected, "{}", filter);
        }
    }

    #[test]
    fn it_is_a_map_within_bounds_whatever_is_set_cleared_and_expires(
        steps in collection::vec((any_topic(), 0..40_usize, option::of(1..30_u64), any::<bool>()), 0..80),
        count_max in 1..20_usize,
        bytes_max in 100..3000_usize,
    ) {
        let mut retained = Retained::new(Bounds { count_max, bytes_max });
        let mut model: BTreeMap<String, (Vec<u8>, Option<u64>)> = BTreeMap::new();
        for (now_ms, (topic, length, expires_at_ms, sweeps)) in steps.into_iter().enumerate() {
            let now_ms = now_ms as u64;
            let payload = vec![b'p'; length];
            let older = model.remove(&topic);
            let count = model.len();
            let set = retained.set(&facts(now_ms, expires_at_ms), topic.as_bytes(), b"props", &payload);
            match set {
                Set::Cleared => prop_assert!(payload.is_empty()),
                Set::Retained => { prop_assert!(!payload.is_empty()); model.insert(topic.clone(), (payload, expires_at_ms)); }
                Set::TooMany => prop_assert_eq!(count, count_max),
                Set::TooLarge => {
                    let mut alone = Retained::new(UNBOUNDED);
                    alone.set(&facts(now_ms, expires_at_ms), topic.as_bytes(), b"props", &payload);
                    prop_assert!(older.is_some() || retained.bytes() + alone.bytes() > bytes_max);
                }
            }
            if sweeps {
                while retained.sweep(now_ms, 3) {}
                model.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now_ms));
            }
            prop_assert_eq!(retained.len(), model.len());
            prop_assert!(retained.len() <= count_max && retained.bytes() <= bytes_max);
            let page = retained.page(&Filter::new("#"), None, END, 0, WHOLE);
            prop_assert_eq!(retained.bytes(), {
                let reserved = retained.page(&Filter::new("$SYS/#"), None, END, 0, WHOLE);
                page.entries.iter().chain(&reserved.entries).map(Entry::memory_bytes).sum::<usize>()
            });
            for (topic, (payload, expires)) in &model {
                let found = retained.get(topic.as_bytes(), now_ms);
                let is_alive = expires.is_none_or(|expires| now_ms < expires);
                prop_assert_eq!(found.as_ref().map(|entry| entry.payload().to_vec()), is_alive.then(|| payload.clone()));
                if let Some(entry) = found {
                    prop_assert_eq!(topic_of(&entry), topic.clone());
                    prop_assert_eq!(entry.properties(), b"props");
                    prop_assert_eq!(entry.expires_at_ms(), *expires);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_review_in_steps_of_any_size_keeps_wanted_topics_and_the_topics_of_the_server(
        topics in collection::vec((any_topic(), any::<bool>()), 0..60),
        visits_max in 1..20_usize,
        kept in any::<[bool; 2]>(),
    ) {
        let mut retained = Retained::new(UNBOUNDED);
        retained.begin_saving();
        let (mut disk, mut model) = (BTreeMap::new(), BTreeMap::new());
        for (topic, is_by_policy) in topics {
            let cause = if is_by_policy { Cause::Policy } else { Cause::Publisher };
            retained.set(&Facts { cause, ..facts(1, None) }, topic.as_bytes(), b"", b"x");
            model.insert(topic, cause);
        }
        save(&mut retained, &mut disk, usize::MAX);
        let keeps = |topic: &str, cause| {
            kept[usize::from(cause == Cause::Policy)] || topic.contains('a')
        };
        let mut from: Option<Box<[u8]>> = Some(Box::default());
        while let Some(place) = from {
            from = retained.review(&place, visits_max, |topic, cause| {
                keeps(std::str::from_utf8(topic).unwrap(), cause)
            });
        }
        model.retain(|topic, cause| topic.starts_with("$SYS/") || keeps(topic, *cause));
        prop_assert_eq!(retained.len(), model.len());
        prop_assert!(model.keys().all(|topic| retained.get(topic.as_bytes(), 0).is_some()));
        save(&mut retained, &mut disk, usize::MAX);
        model.retain(|topic, _| !topic.starts_with("$SYS/"));
        prop_assert!(disk.keys().eq(model.keys()));
        // The last values alone.
        for (topic, cause) in &model {
            retained.forget_last_value(topic.as_bytes());
            prop_assert_eq!(retained.get(topic.as_bytes(), 0).is_some(), *cause == Cause::Publisher);
        }
    }
}

#[test]
fn a_value_of_the_first_version_is_read() {
    // Version, flags: QoS 2, text, expires.
    let mut value = vec![1, 0b1_0110];
    value.extend_from_slice(&77_u64.to_le_bytes());
    value.extend_from_slice(&2_u32.to_le_bytes());
    value.extend_from_slice(b"pppayload");
    let entry = Entry::restored(b"a/b", &value, &mut Vec::new()).unwrap();
    let facts = entry.facts();
    assert_eq!(
        (
            facts.qos,
            facts.is_text,
            facts.expires_at_ms,
            facts.cause,
            facts.client_hash
        ),
        (2, true, Some(77), Cause::Publisher, 0)
    );
    assert_eq!(
        (entry.properties(), entry.payload()),
        (&b"pp"[..], &b"payload"[..])
    );
    value[0] = 3;
    assert!(Entry::restored(b"a/b", &value, &mut Vec::new()).is_none());
}

#[test]
fn a_walk_skips_topics_that_its_filter_cannot_match() {
    let mut retained = Retained::new(UNBOUNDED);
    for device in 0..100 {
        for sensor in 0..100 {
            let topic = format!("site/{device}/sensor/{sensor}");
            retained.set(&facts(1, None), topic.as_bytes(), b"", b"x");
        }
    }
    let pages = |filter: &str| {
        let filter = Filter::new(filter);
        let limits = PageLimits {
            visits_max: 50,
            ..WHOLE
        };
        let (mut from, mut pages, mut found) = (None, 0, 0);
        loop {
            let page = retained.page(&filter, from.as_deref(), END, 0, limits);
            pages += 1;
            found += page.entries.len();
            match page.next {
                Some(next) => from = Some(next),
                None => return (found, pages * 50),
            }
        }
    };
    for (filter, expected, visits_max) in [
        ("site/7/sensor/+", 100, 200),
        ("site/7/#", 100, 200),
        ("site/+/sensor/5", 100, 400),
        ("other/#", 0, 50),
        ("site/+/other/+", 0, 250),
        ("+/+/+/+", 10_000, 10_050),
    ] {
        let (found, visits) = pages(filter);
        assert_eq!(found, expected, "{filter}");
        assert!(visits <= visits_max, "{filter}: {visits}");
    }
}

#[test]
fn what_was_published_at_the_place_or_later_is_left_out() {
    let mut retained = Retained::new(UNBOUNDED);
    retained.set(&facts(4, None), b"a", b"", b"old");
    retained.set(&facts(5, None), b"b", b"", b"new");
    for filter in ["+", "#"] {
        let page = retained.page(&Filter::new(filter), None, Sequence(5), 0, WHOLE);
        assert_eq!(page.entries.iter().map(topic_of).collect::<Vec<_>>(), ["a"]);
    }
    let exact = |name| {
        retained
            .page(&Filter::new(name), None, Sequence(5), 0, WHOLE)
            .entries
            .len()
    };
    assert_eq!((exact("a"), exact("b")), (1, 0));
}

#[test]
fn a_publication_of_64_bytes_takes_at_most_300() {
    let mut retained = Retained::new(UNBOUNDED);
    for number in 0..1000 {
        let topic = format!("site/{number:04}/temperature");
        retained.set(&facts(1, None), topic.as_bytes(), b"", &[b'x'; 64]);
    }
    assert!(retained.bytes() <= 300 * 1000, "{}", retained.bytes());
}

#[test]
fn facts_are_read_as_they_were_written() {
    let mut scratch = Vec::new();
    for bits in 0..64_u8 {
        let facts = Facts {
            sequence: Sequence(u64::from(bits) << 40),
            is_restored: bits & 3 == 3,
            qos: bits % 3,
            is_text: bits & 1 != 0,
            is_json: bits & 2 != 0,
            is_unquoted: bits & 10 == 10,
            payload_rule: match bits & 2 {
                0 => MqttPayload::of_number(bits >> 4),
                _ => MqttPayload::Json,
            },
            cause: match bits & 8 {
                0 => Cause::Publisher,
                _ => Cause::Policy,
            },
            client_hash: u64::from(bits) << 56,
            expires_at_ms: (bits & 4 != 0).then_some(u64::MAX - 1),
        };
        let entry = Entry::new(&facts, b"a//b", b"pp", b"payload", &mut scratch);
        assert_eq!(entry.facts(), facts);
        assert_eq!(
            (topic_of(&entry).as_str(), entry.properties(), entry.payload()),
            ("a//b", &b"pp"[..], &b"payload"[..])
        );
    }
}
