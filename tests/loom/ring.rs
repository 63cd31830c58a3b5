//! Every interleaving of a small ring, up to a bound on preemptions.
//!
//! ```sh
//! cargo test --package ringcast-loom
//! ```
//!
//! The reader compares buffers after a pause, so a buffer that is reused too early shows as a wrong frame. Slots are
//! loom's cells, so loom reports any access without an order. A lost wake-up is a deadlock, which loom reports too.

use loom::sync::{Arc, Notify};
use loom::thread;
use ringcast_loom::broker::{
    AllChannels, CoreBroker, Facts, Kind, Marks, Origin, SubscriptionLimits, broker,
};

const ROOMY: u64 = 1 << 20;
const FACTS: Facts = Facts {
    at_ns: 0,
    kind: Kind::Json,
    origin: Origin::SocketCluster,
    payload_bytes: 0,
    marks: Marks {
        remembered: false,
        positioned: false,
    },
    retain: false,
};

fn check(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(body);
}

fn cores<const N: usize>(slots: u32) -> [CoreBroker; N] {
    broker(N, slots, ROOMY).try_into().expect("as many as asked for")
}

/// Publishes, and tries again while the ring is full. Meanwhile reads publications, and returns them.
fn publish(core: &mut CoreBroker, numbers: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    for &number in numbers {
        let hash = core.hasher.hash(b"c");
        while core
            .publisher
            .try_publish(b"c", hash, &[&[number], &[number]], FACTS)
            .is_err()
        {
            read_some(core, &mut read);
            thread::yield_now();
        }
    }
    read
}

fn read_some(core: &mut CoreBroker, read: &mut Vec<u8>) {
    while let Some(delivery) = core.reader.next() {
        read.push(frame_of(delivery.publication.frame()));
    }
    core.reader.release();
}

fn read_to(core: &mut CoreBroker, count: usize, read: &mut Vec<u8>) {
    while read.len() < count {
        read_some(core, read);
        if read.len() < count {
            thread::yield_now();
        }
    }
}

fn frame_of(frame: &[u8]) -> u8 {
    let before = frame[0];
    // Gives a producer the chance to reuse the buffer, which it should not do.
    thread::yield_now();
    assert_eq!(frame, [before, before]);
    before
}

/// A publish that finds the ring full is not repeated, because repetitions would only repeat states. When all threads
/// have ended, each core reads the rest, so that it has read everything.
#[test]
fn two_producers_and_a_reader_see_one_order_round_a_ring_of_two() {
    fn attempt(core: &mut CoreBroker, number: u8, published: &mut Vec<u8>) {
        let hash = core.hasher.hash(b"c");
        if core
            .publisher
            .try_publish(b"c", hash, &[&[number], &[number]], FACTS)
            .is_ok()
        {
            published.push(number);
        }
    }
    check(3, || {
        let [mut one, mut two, mut reader] = cores::<3>(2);
        let (mut published, mut read) = (Vec::new(), Vec::new());
        attempt(&mut one, 9, &mut published);
        for core in [&mut one, &mut two, &mut reader] {
            read.clear();
            read_some(core, &mut read);
        }
        let producing = thread::spawn(move || {
            let (mut published, mut read) = (Vec::new(), Vec::new());
            attempt(&mut two, 20, &mut published);
            read_some(&mut two, &mut read);
            (two, published, read)
        });
        let reading = thread::spawn(move || {
            let mut read = Vec::new();
            read_some(&mut reader, &mut read);
            (reader, read)
        });
        let mut read = Vec::new();
        published.clear();
        attempt(&mut one, 10, &mut published);
        read_some(&mut one, &mut read);
        attempt(&mut one, 11, &mut published);
        assert_eq!(published.first(), Some(&10), "there was room for two");
        let (mut two, published_by_two, mut read_by_two) = producing.join().unwrap();
        let (mut reader, mut read_by_reader) = reading.join().unwrap();
        read_some(&mut one, &mut read);
        read_some(&mut two, &mut read_by_two);
        read_some(&mut reader, &mut read_by_reader);
        assert_eq!(read, read_by_two);
        assert_eq!(read, read_by_reader);
        let (by_one, by_two): (Vec<u8>, Vec<u8>) = read.iter().partition(|number| **number < 20);
        assert_eq!((by_one, by_two), (published, published_by_two));
        one.publisher.reclaim();
        assert_eq!(one.publisher.outstanding(), 0);
    });
}

#[test]
fn a_producer_uses_slots_and_buffers_again_only_after_the_reader() {
    check(3, || {
        let [mut one, mut reader] = cores::<2>(2);
        let reading = thread::spawn(move || {
            let mut read = Vec::new();
            read_to(&mut reader, 5, &mut read);
            read
        });
        let mut read = publish(&mut one, &[1, 2, 3, 4, 5]);
        read_to(&mut one, 5, &mut read);
        assert_eq!(reading.join().unwrap(), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn draining_to_the_last_claim_misses_no_earlier_publication() {
    check(3, || {
        let [mut one, mut reader] = cores::<2>(4);
        let publishing = thread::spawn(move || publish(&mut one, &[1, 2]));
        let target = reader.reader.claimed();
        let mut read = Vec::new();
        while !reader.reader.has_passed(target) {
            let Some(delivery) = reader.reader.front() else {
                // The slot is claimed, and about to be published.
                thread::yield_now();
                continue;
            };
            assert!(delivery.publication.sequence() < target);
            read.push(frame_of(delivery.publication.frame()));
            reader.reader.pass();
        }
        assert_eq!(read.len() as u64 + 1, target.as_u64());
        reader.reader.release();
        publishing.join().unwrap();
        read_to(&mut reader, 2, &mut read);
        assert_eq!(read, [1, 2]);
    });
}

/// Two producers. One publishes on a channel in which the sleeping core is not interested. The sleeping core must still
/// be woken for the other, even if an earlier slot is not published yet when it looks.
#[test]
fn no_wake_up_is_lost() {
    check(3, || {
        let [one, two, mut sleeper] = cores::<3>(2);
        let hash = sleeper.hasher.hash(b"wanted");
        let limits = SubscriptionLimits {
            channels_max: 1,
            names_bytes_max: 100,
        };
        sleeper.subscriptions.subscribe(0, b"wanted", hash, limits);
        let is_woken_for_other = sleep_until_wanted([one, two, sleeper]);
        assert!(!is_woken_for_other, "names whose buckets differ");
    });
}

/// The sleeping core is interested in all channels, so that both producers may wake it.
#[test]
fn no_wake_up_of_a_core_that_is_interested_in_all_channels_is_lost() {
    check(3, || {
        let mut cores = cores::<3>(2);
        cores[2].subscriptions.wake_for_all(AllChannels::Filters, true);
        sleep_until_wanted(cores);
    });
}

/// Two cores publish, the second one on `wanted`. The third one sleeps until it has read that. Says whether the first
/// one was to wake it.
fn sleep_until_wanted([mut one, mut two, mut sleeper]: [CoreBroker; 3]) -> bool {
    let hash = sleeper.hasher.hash(b"wanted");
    let bell = Arc::new(Notify::new());
    let ringers = [Arc::clone(&bell), Arc::clone(&bell)];
    let [ringer, other_ringer] = ringers;
    let wanted = thread::spawn(move || {
        let published = two
            .publisher
            .try_publish(b"wanted", hash, &[b"w"], FACTS)
            .expect("room for two");
        if published.wake.contains(2) {
            ringer.notify();
        }
    });
    let sleeping = thread::spawn(move || {
        loop {
            while let Some(delivery) = sleeper.reader.next() {
                if delivery.publication.channel() == b"wanted" {
                    return;
                }
            }
            if sleeper.reader.prepare_sleep() {
                bell.wait();
                sleeper.reader.mark_awake();
            } else {
                thread::yield_now();
            }
        }
    });
    let other = one.hasher.hash(b"other");
    let published = one
        .publisher
        .try_publish(b"other", other, &[b"o"], FACTS)
        .expect("room for two");
    // Whoever is told to wake a core must do so: for all others it counts as awake.
    if published.wake.contains(2) {
        other_ringer.notify();
    }
    wanted.join().unwrap();
    sleeping.join().unwrap();
    !published.wake.is_empty()
}
