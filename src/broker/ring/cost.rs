//! The cost of a publication as cores are added, in counted accesses to shared memory and cache lines that move.
//!
//! `cargo test --lib ring::cost -- --nocapture` prints the table of benches/README.md.

use super::publisher::LOOK_EVERY;
use super::*;
use crate::broker::directory::Interest;
use crate::broker::hash::ChannelHash;
use crate::broker::position::Numbering;
use crate::broker::publication::{Facts, Kind, Marks, Origin};
use crate::sync::counted::{Accesses, count, forget_lines};

/// The state of the other cores while core 0 publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    AwakeUninvolved,
    AwakeInterested,
    AsleepUninvolved,
    AsleepInterested,
}

/// The cost per publication, without the wake-ups.
#[derive(Debug)]
struct Cost {
    publisher: PerPublication,
    /// The cost for one other core; zero if the other cores sleep.
    reader: PerPublication,
    wakes_per_burst: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct PerPublication {
    loads: f64,
    stores: f64,
    rmws: f64,
    fences: f64,
    lines_moved: f64,
}

impl PerPublication {
    fn of(total: Accesses, publications: u64) -> PerPublication {
        let each = |count: u64| count as f64 / publications as f64;
        PerPublication {
            loads: each(total.loads),
            stores: each(total.stores),
            rmws: each(total.rmws),
            fences: each(total.fences),
            lines_moved: each(total.lines_moved),
        }
    }
}

/// Bursts of core 0, as turns make them: core 0 reads each of its publications at once, and takes back its buffers at
/// the end of the burst. The other cores read after each [`READ_EVERY`] publications. Cores that sleep read once they
/// are woken, and sleep again after the burst.
fn cost(cores: usize, others: Others) -> Cost {
    forget_lines();
    let directory = Arc::new(Directory::new(cores));
    let bytes = RingBytes {
        cores_max: 1 << 24,
        outside_max: 0,
    };
    let plan = RingPlan {
        cores,
        observers: 0,
        slots: SLOTS,
        bytes,
        numbering: Numbering::new(),
    };
    let mut ends = ends(plan, &directory).cores;
    let are_interested = matches!(others, Others::AwakeInterested | Others::AsleepInterested);
    for core in 0..if are_interested { cores } else { 1 } {
        Interest::new(Arc::clone(&directory), core).add(HASH);
    }
    let mut total = Total::default();
    let mut asleep = CoreSet::EMPTY;
    for burst in 0..2 * BURSTS {
        if burst == BURSTS {
            total = Total::default(); // each slot has been used, each buffer been allocated
        }
        if matches!(others, Others::AsleepInterested | Others::AsleepUninvolved) {
            for core in (1..cores)
                .filter(|core| !asleep.contains(*core))
                .collect::<Vec<_>>()
            {
                assert!(count(core, || ends[core].1.prepare_sleep()).1, "it has read all");
                asleep.insert(core);
            }
        }
        asleep = total.add_burst(&mut ends, asleep);
    }
    let publications = BURSTS * BURST;
    Cost {
        publisher: PerPublication::of(total.publisher, publications),
        reader: PerPublication::of(total.reader, publications),
        wakes_per_burst: total.wakes as f64 / BURSTS as f64,
    }
}

#[derive(Default)]
struct Total {
    publisher: Accesses,
    /// The accesses of core 1.
    reader: Accesses,
    wakes: usize,
}

impl Total {
    /// Returns the cores that still sleep.
    fn add_burst(&mut self, ends: &mut [(Publisher, Reader)], mut asleep: CoreSet) -> CoreSet {
        for number in 1..=BURST {
            let (accesses, woken) = count(0, || publish(&mut ends[0]));
            add(&mut self.publisher, accesses);
            self.wakes += woken.len();
            asleep = asleep.without(woken);
            if number.is_multiple_of(READ_EVERY) {
                self.read_where_awake(ends, asleep);
            }
        }
        let (accesses, ()) = count(0, || ends[0].0.reclaim_much());
        add(&mut self.publisher, accesses);
        asleep
    }

    fn read_where_awake(&mut self, ends: &mut [(Publisher, Reader)], asleep: CoreSet) {
        for (core, (_, reader)) in ends.iter_mut().enumerate().skip(1) {
            if !asleep.contains(core) {
                let (accesses, ()) = count(core, || read(reader));
                if core == 1 {
                    add(&mut self.reader, accesses);
                }
            }
        }
    }
}

fn publish((publisher, reader): &mut (Publisher, Reader)) -> CoreSet {
    let published = publisher.try_publish(b"c", HASH, &[b"frame"], FACTS);
    read(reader);
    published.expect("a burst is a small part of the ring").wake
}

fn read(reader: &mut Reader) {
    while reader.next().is_some() {}
    reader.release();
}

fn add(sum: &mut Accesses, more: Accesses) {
    sum.loads += more.loads;
    sum.stores += more.stores;
    sum.rmws += more.rmws;
    sum.fences += more.fences;
    sum.lines_moved += more.lines_moved;
}

const HASH: ChannelHash = ChannelHash::from_u64(7);
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
/// The default has 16 times as many slots, so a publisher wakes uninterested cores 16 times more rarely.
const SLOTS: u32 = 4096;
const BURST: u64 = 64;
/// The publications go once round the ring.
const BURSTS: u64 = SLOTS as u64 / BURST;
const READ_EVERY: u64 = 8;
/// How often a publisher may look at a cursor, for each of its publications. It looks after [`LOOK_EVERY`]
/// publications, at the end of the turn, and when half of the ring is used.
const LOOKS: f64 = 3.0 / LOOK_EVERY as f64;
/// Two slots share a line. The address of the first slot, which the allocator chooses, decides whether a
/// batch begins within a line.
const LINES_BY_CHANCE: f64 = 1.0 / READ_EVERY as f64;

#[test]
fn a_publication_that_interests_no_other_core_costs_the_same_however_many_there_are() {
    for others in [Others::AwakeUninvolved, Others::AsleepUninvolved] {
        let few = cost(2, others).publisher;
        for cores in [4, 16] {
            let many = cost(cores, others);
            let (publisher, more) = (many.publisher, (cores - 2) as f64);
            let context = format!("{others:?}, {cores} cores: {few:?}, {many:?}");
            assert_eq!(
                (publisher.stores, publisher.fences),
                (few.stores, few.fences),
                "{context}"
            );
            assert!(publisher.loads <= few.loads + more * LOOKS, "{context}");
            assert!(
                publisher.lines_moved <= few.lines_moved + more * LOOKS + LINES_BY_CHANCE,
                "{context}"
            );
            // Sleepers are woken when half of the ring is used, and no more often.
            let wakes_max = 2.0 * more / SLOTS as f64;
            assert!(publisher.rmws <= few.rmws + wakes_max, "{context}");
        }
    }
}

#[test]
fn an_interested_core_that_is_awake_costs_the_publisher_one_load_and_no_line() {
    let few = cost(2, Others::AwakeInterested).publisher;
    let many = cost(16, Others::AwakeInterested).publisher;
    let context = format!("{few:?}, {many:?}");
    assert!(many.loads <= few.loads + 14.0 * (1.0 + LOOKS), "{context}");
    assert_eq!(
        (many.rmws, many.fences, many.stores),
        (few.rmws, few.fences, few.stores),
        "{context}"
    );
    assert!(
        many.lines_moved <= few.lines_moved + 14.0 * LOOKS + LINES_BY_CHANCE,
        "{context}"
    );
}

#[test]
fn a_burst_wakes_each_sleeper_that_is_interested_once() {
    for cores in [2, 16] {
        let cost = cost(cores, Others::AsleepInterested);
        let sleepers = (cores - 1) as f64;
        assert_eq!(cost.wakes_per_burst, sleepers);
        assert_eq!(cost.publisher.rmws, 1.0 + sleepers / BURST as f64);
    }
}

#[test]
fn what_a_core_pays_for_reading_does_not_depend_on_how_many_read() {
    for others in [Others::AwakeUninvolved, Others::AwakeInterested] {
        let (few, many) = (cost(2, others).reader, cost(16, others).reader);
        assert_eq!(
            (many.loads, many.stores, many.rmws),
            (few.loads, few.stores, few.rmws),
            "{others:?}"
        );
        let lines = many.lines_moved - few.lines_moved;
        assert!(lines.abs() <= LINES_BY_CHANCE, "{others:?}: {few:?}, {many:?}");
    }
}

#[test]
fn the_table_is_printed() {
    println!(
        "                                   publisher: loads stores   RMW fences lines  reader: loads lines  wakes per burst"
    );
    for others in [
        Others::AwakeUninvolved,
        Others::AwakeInterested,
        Others::AsleepUninvolved,
        Others::AsleepInterested,
    ] {
        for cores in [1, 2, 4, 8, 16] {
            let cost = cost(cores, others);
            let (publisher, reader) = (cost.publisher, cost.reader);
            println!(
                "{:<20} {cores:>3} cores                {:>6.2} {:>6.2} {:>5.2} {:>6.2} {:>5.2}         {:>5.2} {:>5.2} {:>6.2}",
                format!("{others:?}"),
                publisher.loads,
                publisher.stores,
                publisher.rmws,
                publisher.fences,
                publisher.lines_moved,
                reader.loads,
                reader.lines_moved,
                cost.wakes_per_burst,
            );
        }
    }
}
