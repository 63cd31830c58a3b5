use std::collections::BTreeSet;

use super::*;
use crate::broker::directory::Interest;
use crate::broker::hash::ChannelHash;
use crate::broker::position::Numbering;
use crate::broker::publication::{self, Facts, Kind, Marks, Origin, Sequence};

const ROOMY: u64 = 1 << 20;
const FACTS: Facts = Facts {
    at_ns: 9 << 8,
    kind: Kind::Json,
    origin: Origin::SocketCluster,
    payload_bytes: 0,
    marks: Marks {
        remembered: false,
        positioned: false,
    },
    retain: false,
};

struct Fixture {
    publishers: Vec<Publisher>,
    readers: Vec<Reader>,
    interests: Vec<Interest>,
}

impl Fixture {
    fn new(cores: usize, slots: u32, bytes_max: u64) -> Fixture {
        let directory = Arc::new(Directory::new(cores));
        let plan = RingPlan {
            cores,
            observers: 0,
            slots,
            bytes: RingBytes {
                cores_max: bytes_max,
                outside_max: 0,
            },
            numbering: Numbering::new(),
        };
        let (publishers, readers) = ends(plan, &directory).cores.into_iter().unzip();
        Fixture {
            publishers,
            readers,
            interests: (0..cores)
                .map(|core| Interest::new(Arc::clone(&directory), core))
                .collect(),
        }
    }

    fn publish(&mut self, core: usize, number: u8) -> Result<Published, RingFull> {
        self.publishers[core].try_publish(b"c", hash(u64::from(number)), &[&[number], b"!"], FACTS)
    }

    fn put(&mut self, core: usize, number: u8) {
        assert!(self.publish(core, number).is_ok());
    }

    fn drain(&mut self, core: usize) -> Vec<u8> {
        let mut numbers = Vec::new();
        while let Some(delivery) = self.readers[core].next() {
            assert_eq!(delivery.publication.channel(), b"c");
            assert_eq!(delivery.publication.at_ns(), FACTS.at_ns);
            let [number, b'!'] = *delivery.publication.frame() else {
                panic!("a frame as it was published");
            };
            assert_eq!(delivery.hash, hash(u64::from(number)));
            numbers.push(number);
        }
        self.readers[core].release();
        numbers
    }
}

fn hash(number: u64) -> ChannelHash {
    ChannelHash::from_u64(number)
}

#[test]
fn all_cores_read_all_publications_in_one_order() {
    let mut fixture = Fixture::new(3, 8, ROOMY);
    for round in 0..10 {
        let mut expected = Vec::new();
        for number in 0..6 {
            let published = fixture.publish(usize::from(number % 3), number).unwrap();
            assert_eq!(published.sequence, Sequence(round * 6 + u64::from(number) + 1));
            expected.push(number);
        }
        for core in 0..3 {
            assert_eq!(fixture.readers[core].depth(), 6);
            assert_eq!(fixture.drain(core), expected);
            assert_eq!(fixture.readers[core].depth(), 0);
        }
    }
}

#[test]
fn a_ring_is_full_until_the_slowest_core_has_released() {
    let mut fixture = Fixture::new(2, 4, ROOMY);
    for number in 0..4 {
        assert!(fixture.publish(0, number).is_ok());
    }
    assert!(fixture.publish(0, 4).is_err());
    assert!(fixture.publish(1, 4).is_err());
    assert_eq!(fixture.drain(0), [0, 1, 2, 3]);
    assert!(fixture.publish(0, 4).is_err());
    assert!(fixture.readers[1].next().is_some());
    assert!(fixture.publish(0, 4).is_err());
    fixture.readers[1].release();
    assert!(fixture.publish(0, 4).is_ok());
    assert!(fixture.publish(0, 5).is_err());
    assert_eq!(fixture.drain(1), [1, 2, 3, 4]);
}

#[test]
fn each_core_may_fill_its_share_of_the_bytes() {
    // A small publication takes a buffer of 128 bytes: two for each core.
    let mut fixture = Fixture::new(2, 64, 512);
    assert!(fixture.publish(0, 0).is_ok() && fixture.publish(0, 1).is_ok());
    assert!(fixture.publish(0, 2).is_err());
    assert!(fixture.publish(1, 2).is_ok());
    assert_eq!(
        (fixture.drain(0), fixture.drain(1)),
        (vec![0, 1, 2], vec![0, 1, 2])
    );
    assert!(fixture.publish(0, 3).is_ok());
}

#[test]
fn a_publication_over_the_share_passes_alone() {
    let mut fixture = Fixture::new(2, 64, 512);
    let large = [7; 10_000];
    assert!(fixture.publish(0, 0).is_ok());
    assert!(
        fixture.publishers[0]
            .try_publish(b"c", hash(0), &[&large], FACTS)
            .is_err()
    );
    fixture.drain(0);
    fixture.drain(1);
    assert!(
        fixture.publishers[0]
            .try_publish(b"c", hash(0), &[&large], FACTS)
            .is_ok()
    );
    assert!(fixture.publish(0, 0).is_err());
    let delivery = fixture.readers[1].next().unwrap();
    assert_eq!(delivery.publication.frame(), large);
}

#[test]
fn a_full_ring_changes_nothing() {
    let mut fixture = Fixture::new(1, 1, ROOMY);
    assert!(fixture.publish(0, 0).is_ok());
    let claimed = fixture.readers[0].claimed();
    assert!(fixture.publish(0, 1).is_err());
    assert_eq!(fixture.readers[0].claimed(), claimed);
    assert_eq!(fixture.publishers[0].outstanding(), 1);
    assert_eq!(fixture.drain(0), [0]);
}

#[test]
fn the_steady_state_uses_the_same_buffers_again() {
    let mut fixture = Fixture::new(2, 8, ROOMY);
    let mut addresses = BTreeSet::new();
    for round in 0..50 {
        for number in 0..4 {
            fixture.put(0, number);
        }
        while let Some(delivery) = fixture.readers[1].next() {
            let address = delivery.publication.frame().as_ptr().addr();
            assert!(
                !addresses.insert(address) || round == 0,
                "a buffer that was not there before"
            );
        }
        fixture.readers[1].release();
        fixture.drain(0);
        fixture.publishers[0].reclaim();
        assert_eq!(fixture.publishers[0].outstanding(), 0);
        assert_eq!(fixture.publishers[0].lent_bytes(), 0);
    }
    assert_eq!(addresses.len(), 4);
}

#[test]
fn what_is_at_the_front_keeps_its_slot_until_it_is_passed() {
    let mut fixture = Fixture::new(2, 2, ROOMY);
    fixture.put(0, 0);
    fixture.put(0, 1);
    let claimed = fixture.readers[1].claimed();
    assert_eq!(fixture.drain(0), [0, 1]);
    for _ in 0..2 {
        let front = fixture.readers[1].front().unwrap();
        assert_eq!(front.publication.frame(), [0, b'!']);
        fixture.readers[1].release();
        assert!(fixture.publish(0, 2).is_err());
        assert!(!fixture.readers[1].prepare_sleep());
    }
    fixture.readers[1].pass();
    assert!(!fixture.readers[1].has_passed(claimed));
    fixture.readers[1].release();
    fixture.put(0, 2);
    fixture.readers[1].pass();
    assert!(fixture.readers[1].has_passed(claimed));
    assert_eq!(fixture.drain(1), [2]);
    assert!(fixture.readers[1].front().is_none());
}

#[test]
fn a_publish_wakes_the_interested_that_sleep_once() {
    let mut fixture = Fixture::new(4, 8, ROOMY);
    // Core 1 sleeps and is interested, core 2 is interested, core 3 sleeps.
    fixture.interests[1].add(hash(5));
    fixture.interests[2].add(hash(5));
    assert!(fixture.readers[1].prepare_sleep() && fixture.readers[3].prepare_sleep());
    let wake = fixture.publish(0, 5).unwrap().wake;
    assert_eq!(wake.into_iter().collect::<Vec<_>>(), [1]);
    assert!(fixture.publish(0, 5).unwrap().wake.is_empty());
    assert_eq!(fixture.drain(1), [5, 5]);
    assert!(fixture.readers[1].prepare_sleep());
    fixture.readers[1].mark_awake();
    assert!(fixture.publish(0, 5).unwrap().wake.is_empty());
}

#[test]
fn a_core_with_something_to_read_may_not_sleep() {
    let mut fixture = Fixture::new(2, 8, ROOMY);
    fixture.put(0, 5);
    assert!(!fixture.readers[1].prepare_sleep());
    fixture.interests[1].add(hash(5));
    assert!(fixture.publish(0, 5).unwrap().wake.is_empty(), "it is awake");
    fixture.drain(1);
    assert!(fixture.readers[1].prepare_sleep());
}

#[test]
fn cores_that_sleep_and_lag_are_woken_when_half_is_used() {
    const SLOTS: u8 = 128;
    let mut fixture = Fixture::new(3, SLOTS.into(), ROOMY);
    assert!(fixture.readers[1].prepare_sleep());
    let mut woken_after = None;
    for number in 0..SLOTS {
        let wake = fixture.publish(0, number).unwrap().wake;
        if wake.contains(1) {
            assert_eq!((wake.len(), woken_after), (1, None));
            woken_after = Some(number + 1);
        }
    }
    let every = u8::try_from(PRESSURE_CHECK_EVERY).unwrap();
    assert_eq!(woken_after, Some(SLOTS / 2 + every));
}

#[test]
fn a_full_ring_wakes_the_core_that_keeps_it_full() {
    for (slots, bytes_max) in [(2, ROOMY), (64, 2 * 128 * 2)] {
        let mut fixture = Fixture::new(2, slots, bytes_max);
        assert!(fixture.readers[1].prepare_sleep());
        assert!(fixture.publish(0, 0).unwrap().wake.is_empty());
        assert!(fixture.publish(0, 1).unwrap().wake.is_empty());
        fixture.drain(0);
        let full = fixture.publish(0, 2).unwrap_err();
        assert_eq!(full.wake.into_iter().collect::<Vec<_>>(), [1]);
        assert_eq!(fixture.drain(1), [0, 1]);
        assert!(fixture.publish(0, 2).is_ok());
    }
}

#[test]
fn a_core_that_has_read_everything_is_not_woken_by_a_full_ring() {
    // Core 2 does not read. Of the sleeping cores, only one that lags can make room. If the others were woken
    // as well, two cores that wait for room would wake each other until there is some.
    let mut fixture = Fixture::new(4, 2, ROOMY);
    fixture.put(0, 0);
    fixture.put(1, 1);
    assert_eq!((fixture.drain(0).len(), fixture.drain(1).len()), (2, 2));
    for core in [0, 1] {
        assert!(fixture.readers[core].prepare_sleep());
    }
    let full = fixture.publish(3, 2).unwrap_err();
    assert!(full.wake.is_empty(), "{full:?}");
    let full = fixture.publish(0, 2).unwrap_err();
    assert!(full.wake.is_empty(), "{full:?}");
}

#[test]
fn a_core_that_has_ended_holds_nobody_up_and_its_publications_stay() {
    let mut fixture = Fixture::new(3, 2, ROOMY);
    fixture.put(0, 1);
    drop((fixture.publishers.remove(0), fixture.readers.remove(0)));
    // The ends that belonged to cores 1 and 2.
    fixture.put(0, 2);
    assert!(fixture.publish(0, 3).is_err());
    assert_eq!(fixture.drain(0), [1, 2]);
    assert_eq!(fixture.drain(1), [1, 2]);
    assert!(fixture.publish(0, 3).is_ok());
}

#[test]
fn a_place_that_is_claimed_and_not_published_is_told_from_an_empty_ring() {
    let mut fixture = Fixture::new(2, 8, ROOMY);
    assert!(!fixture.readers[0].front_is_pending());
    let memory = Arc::clone(&fixture.readers[1].memory);
    let sequence = memory.claim(&mut memory.passed()).unwrap();
    assert!(fixture.readers[0].front_is_pending());
    let mut buffer = Vec::new();
    publication::write(&mut buffer, FACTS, b"c", &[&[7], b"!"]);
    // SAFETY: it has been claimed, and the buffer lives as long as this test.
    #[expect(unsafe_code, reason = "what a publisher does in two steps")]
    unsafe {
        memory.publish(sequence, hash(7), &buffer);
    }
    assert!(!fixture.readers[0].front_is_pending());
    assert_eq!(fixture.drain(0), [7]);
    assert!(!fixture.readers[0].front_is_pending());
    fixture.drain(1);
}

/// As for the control plane, or a bridge to other machines.
#[test]
fn a_publisher_without_a_reader_holds_nobody_up_and_has_its_own_share_of_the_bytes() {
    let mut fixture = Fixture::new(2, 8, 512);
    fixture.interests[0].add(hash(5));
    let memory = Arc::clone(&fixture.readers[0].memory);
    let mut publisher = Publisher::new(memory, CoreSet::EMPTY, 256, Numbering::new());
    let mut publish = |number: u8| {
        let hash = hash(u64::from(number));
        publisher.try_publish(b"c", hash, &[&[number], b"!"], FACTS)
    };
    assert!(fixture.readers[0].prepare_sleep());
    // It is on no core's thread: each core that sleeps and is interested is woken.
    let wake = publish(5).unwrap().wake;
    assert_eq!(wake.into_iter().collect::<Vec<_>>(), [0]);
    fixture.put(0, 6);
    assert!(publish(7).is_ok());
    assert!(publish(8).is_err(), "its two buffers are in use");
    fixture.put(0, 9);
    for core in 0..2 {
        assert_eq!(fixture.drain(core), [5, 6, 7, 9]);
    }
    for round in 0..20 {
        assert!(publish(round).is_ok(), "no cursor of its own is in the way");
        assert_eq!((fixture.drain(0), fixture.drain(1)), (vec![round], vec![round]));
    }
    assert!(publish(1).is_ok());
    drop(publisher);
    assert_eq!((fixture.drain(0), fixture.drain(1)), (vec![1], vec![1]));
}
