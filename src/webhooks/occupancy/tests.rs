use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const DELAY: Duration = Duration::from_millis(1000);

fn at(ms: u64) -> Uptime {
    Uptime::from_ms(ms)
}

fn said(channel: &str, is_occupied: bool) -> Occupied {
    Occupied {
        channel: channel.as_bytes().into(),
        by: SubscriberKind::SocketCluster,
        is_occupied,
    }
}

#[test]
fn a_channel_is_occupied_with_its_first_subscriber_and_vacated_a_while_after_its_last() {
    let mut occupancy = Occupancy::new(DELAY);
    assert_eq!(occupancy.change(0, &said("a", true), 1, at(0)), 1);
    assert_eq!(occupancy.change(5, &said("a", true), 1, at(1)), 0, "another core");
    occupancy.change(0, &said("a", false), 1, at(2));
    assert_eq!(occupancy.next_due(), Uptime::NEVER);
    occupancy.change(5, &said("a", false), 1, at(3));
    assert_eq!(
        (occupancy.next_due(), occupancy.next_vacated(at(1002))),
        (at(1003), None)
    );
    assert_eq!(occupancy.next_vacated(at(1003)), Some((b"a"[..].into(), 1)));
    assert_eq!((occupancy.len(), occupancy.take_flaps()), (0, 0));
}

#[test]
fn a_channel_that_is_vacated_for_a_moment_is_not_told_of() {
    let mut occupancy = Occupancy::new(DELAY);
    occupancy.change(0, &said("a", true), 1, at(0));
    for round in 1..=100 {
        occupancy.change(0, &said("a", false), 1, at(round * 10));
        assert_eq!(occupancy.change(1, &said("a", true), 1, at(round * 10 + 5)), 0);
        occupancy.change(0, &said("a", true), 1, at(round * 10 + 6));
        occupancy.change(1, &said("a", false), 1, at(round * 10 + 7));
    }
    assert_eq!(occupancy.next_vacated(at(100_000)), None);
    assert_eq!(occupancy.take_flaps(), 100);
}

#[test]
fn subscribers_of_both_protocols_count() {
    let mut occupancy = Occupancy::new(Duration::ZERO);
    let mqtt = |is_occupied| Occupied {
        by: SubscriberKind::Mqtt,
        ..said("a", is_occupied)
    };
    assert_eq!(occupancy.change(0, &said("a", true), 2, at(0)), 2);
    assert_eq!(occupancy.change(0, &mqtt(true), 2, at(0)), 0);
    occupancy.change(0, &said("a", false), 2, at(0));
    assert_eq!(occupancy.next_vacated(at(9)), None);
    occupancy.change(0, &mqtt(false), 2, at(10));
    assert_eq!(occupancy.next_vacated(at(10)), Some((b"a"[..].into(), 2)));
}

#[test]
fn a_later_webhook_gets_the_channels_that_are_occupied_then() {
    let mut occupancy = Occupancy::new(DELAY);
    for name in ["a", "b", "c"] {
        occupancy.change(0, &said(name, true), 1, at(0));
    }
    occupancy.change(0, &said("c", false), 1, at(0));
    let news = occupancy.rewatch(0, |name| if name == b"b" { 0 } else { 3 });
    assert_eq!(news, [(b"a"[..].into(), 2)], "c is on its way out");
    assert_eq!(occupancy.len(), 2, "b is watched no more");
    assert_eq!(occupancy.name_bytes, 3, "a, and c twice");
    assert_eq!(occupancy.next_vacated(at(1000)), Some((b"c"[..].into(), 1)));
    occupancy.change(0, &said("gone", true), 1, at(0));
    occupancy.change(0, &said("gone", false), 1, at(0));
    occupancy.rewatch(0, |name| if name == b"gone" { 0 } else { 3 });
    assert_eq!((occupancy.name_bytes, occupancy.next_due()), (1, Uptime::NEVER));
    let news = occupancy.rewatch(2, |_| 3);
    assert_eq!(news, [(b"a"[..].into(), 2)], "another webhook has its bit now");
    assert_eq!(occupancy.end(), [(b"a"[..].into(), 3)]);
}

proptest! {
    /// Against a naive model: each webhook is told occupied and vacated in turn, and at the end what is true.
    #[test]
    fn what_is_told_alternates_and_ends_with_the_truth(
        steps in prop::collection::vec((0..3_usize, 0..3_usize, any::<bool>(), any::<bool>(), 0..700_u64), 0..200)
    ) {
        let mut occupancy = Occupancy::new(DELAY);
        let mut held: HashMap<(usize, usize, bool), ()> = HashMap::new();
        let mut told: HashMap<Box<[u8]>, bool> = HashMap::new();
        let mut now = 0;
        for (core, channel, is_mqtt, is_occupied, later) in steps {
            now += later;
            while let Some((name, hooks)) = occupancy.next_vacated(at(now)) {
                prop_assert_eq!(hooks, 1);
                prop_assert_eq!(told.insert(name, false), Some(true));
            }
            if is_occupied {
                held.insert((core, channel, is_mqtt), ());
            } else {
                held.remove(&(core, channel, is_mqtt));
            }
            let name: Box<[u8]> = format!("{channel}").into_bytes().into();
            let change = Occupied {
                channel: name.clone(),
                by: if is_mqtt { SubscriberKind::Mqtt } else { SubscriberKind::SocketCluster },
                is_occupied,
            };
            if occupancy.change(core, &change, 1, at(now)) == 1 {
                prop_assert_ne!(told.insert(name, true), Some(true));
            }
        }
        now += 2000;
        while let Some((name, _)) = occupancy.next_vacated(at(now)) {
            prop_assert_eq!(told.insert(name, false), Some(true));
        }
        for channel in 0..3_usize {
            let name = format!("{channel}").into_bytes().into_boxed_slice();
            let is_occupied = held.keys().any(|(_, of, _)| *of == channel);
            prop_assert_eq!(told.get(&name).copied().unwrap_or(false), is_occupied);
        }
        let names = occupancy.channels.keys().chain(occupancy.due.iter().map(|(_, name)| name));
        prop_assert_eq!(occupancy.name_bytes, names.map(|name| name.len()).sum::<usize>());
        prop_assert!(occupancy.bytes() >= occupancy.name_bytes);
        prop_assert_eq!(occupancy.len(), (0..3).filter(|channel| held.keys().any(|(_, of, _)| of == channel)).count());
    }
}
