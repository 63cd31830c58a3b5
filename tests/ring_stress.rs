//! The ring under real threads: a small ring that is full most of the time, fast and slow cores, sleeping cores.

use std::sync::{Arc, Barrier};
use std::thread::{self, Thread};
use std::time::Duration;

use ringcast::internals::broker::{
    CoreBroker, CoreSet, Facts, Kind, Marks, Origin, SubscriptionLimits, broker,
};

const CORES: usize = 4;
const PUBLICATIONS: u32 = 10_000;
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
/// Longer than any test takes: a sleep that lasts so long has lost its wake-up.
const LOST: Duration = Duration::from_secs(60);

/// What one core has read: (producer, number), in order.
type Log = Vec<(u8, u32)>;

fn log(core: &mut CoreBroker, log: &mut Log, most: usize) {
    for _ in 0..most {
        let Some(delivery) = core.reader.next() else { break };
        let channel = delivery.publication.channel();
        assert_eq!(delivery.hash, core.hasher.hash(channel));
        assert_eq!(delivery.publication.sequence().as_u64(), log.len() as u64 + 1);
        let (number, filling) = delivery
            .publication
            .frame()
            .split_first_chunk()
            .expect("four bytes and more");
        assert!(filling.iter().all(|byte| *byte == channel[0]));
        log.push((channel[0], u32::from_ne_bytes(*number)));
    }
    core.reader.release();
}

/// Publishes `PUBLICATIONS` of varying length while reading `most` at a time; `wake` wakes.
fn publish_all(core: &mut CoreBroker, index: u8, most: usize, wake: impl Fn(CoreSet)) -> Log {
    let mut read = Log::new();
    let hash = core.hasher.hash(&[index]);
    let filling = [index; 300];
    for number in 0..PUBLICATIONS {
        let rest = &filling[..number as usize % filling.len()];
        loop {
            match core
                .publisher
                .try_publish(&[index], hash, &[&number.to_ne_bytes(), rest], FACTS)
            {
                Ok(published) => break wake(published.wake),
                Err(full) => {
                    wake(full.wake);
                    log(core, &mut read, most);
                    thread::yield_now();
                }
            }
        }
    }
    read
}

/// Each publication was read exactly once, and each producer's in its order.
fn check(read: &Log, producers: u8) {
    let mut next = vec![0; producers.into()];
    for (producer, number) in read {
        let expected = &mut next[usize::from(*producer)];
        assert_eq!(number, expected);
        *expected += 1;
    }
    assert_eq!(next, vec![PUBLICATIONS; producers.into()]);
}

#[test]
fn all_cores_read_everything_once_in_one_order_and_all_is_reclaimed() {
    // Once short of slots, once of bytes.
    for (slots, bytes_max) in [(16, 1 << 20), (1024, 8 * 1024)] {
        let barrier = Arc::new(Barrier::new(CORES));
        let total = CORES * PUBLICATIONS as usize;
        let threads: Vec<_> = broker(CORES, slots, bytes_max)
            .into_iter()
            .zip(0u8..)
            .map(|(mut core, index)| {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    // The last core takes one at a time, the first all there is.
                    let most = [usize::MAX, 64, 7, 1][usize::from(index)];
                    let mut read = publish_all(&mut core, index, most, |_| ());
                    while read.len() < total {
                        log(&mut core, &mut read, most);
                        thread::yield_now();
                    }
                    barrier.wait();
                    core.publisher.reclaim();
                    assert_eq!((core.publisher.outstanding(), core.reader.depth()), (0, 0));
                    read
                })
            })
            .collect();
        let logs: Vec<Log> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        check(&logs[0], u8::try_from(CORES).unwrap());
        assert!(logs.iter().all(|log| *log == logs[0]), "one order for all");
    }
}

#[test]
fn cores_that_sleep_are_woken_for_all_that_they_want() {
    const PRODUCERS: u8 = 2;
    let mut cores = broker(CORES, 64, 1 << 20);
    let sleepers = cores.split_off(PRODUCERS.into());
    let sleepers: Vec<_> = sleepers
        .into_iter()
        .zip(0u8..)
        .map(|(mut core, wanted)| {
            // Each wants the channel of one producer; for the rest it is woken only to make room.
            let hash = core.hasher.hash(&[wanted]);
            let limits = SubscriptionLimits {
                channels_max: 1,
                names_bytes_max: 1,
            };
            core.subscriptions.subscribe(0, &[wanted], hash, limits);
            thread::spawn(move || {
                let mut read = Log::new();
                let last = (wanted, PUBLICATIONS - 1);
                while read.last() != Some(&last) && !read.contains(&last) {
                    log(&mut core, &mut read, usize::MAX);
                    if !read.ends_with(&[last]) && core.reader.prepare_sleep() {
                        thread::park_timeout(LOST);
                        core.reader.mark_awake();
                    }
                }
                read
            })
        })
        .collect();
    let wakers: Vec<Thread> = sleepers.iter().map(|sleeper| sleeper.thread().clone()).collect();
    let producers: Vec<_> = cores
        .into_iter()
        .zip(0u8..)
        .map(|(mut core, index)| {
            let wakers = wakers.clone();
            thread::spawn(move || {
                let wake = |cores: CoreSet| {
                    for core in cores.into_iter().filter(|core| *core >= PRODUCERS.into()) {
                        wakers[core - usize::from(PRODUCERS)].unpark();
                    }
                };
                let mut read = publish_all(&mut core, index, usize::MAX, wake);
                log(&mut core, &mut read, usize::MAX);
            })
        })
        .collect();
    let clock = ringcast::internals::clock::Clock::begin();
    for producer in producers {
        producer.join().unwrap();
    }
    for (sleeper, wanted) in sleepers.into_iter().zip(0u8..) {
        let read = sleeper.join().unwrap();
        let own: Vec<u32> = read
            .iter()
            .filter(|(producer, _)| *producer == wanted)
            .map(|(_, number)| *number)
            .collect();
        assert!(own.iter().copied().eq(0..PUBLICATIONS));
    }
    assert!(
        u128::from(clock.elapsed_ns()) < LOST.as_nanos(),
        "a wake-up was lost"
    );
}
