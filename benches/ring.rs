//! How much does a publication cost, from the publish until the cursors of all cores have passed it, without sockets?
//!
//! For 1 to 16 cores: first core 0 publishes to all cores, then every core publishes to all. Each core runs as fast as
//! it can. If there are more cores than CPUs, the figures include the system's switching between threads. The bench
//! prints nanoseconds of wall time per publication (median and spread of the rounds), and the number of operations on
//! memory that other cores write. These counts are the same on any machine; the head of `broker/ring/mod.rs` has them,
//! and `cargo test --lib ring::cost` measures them. A last table answers: how much do buffers cost that cannot be used
//! again yet, because a sleeping core has an old cursor?
//!
//! `cargo bench --bench ring` runs for about a second; `cargo bench --bench ring -- 5000000` publishes that many per
//! round.
#![allow(clippy::print_stdout)] // a bench prints

use std::sync::{Arc, Barrier};
use std::thread;

use ringcast::config::limits::Limits;
use ringcast::internals::broker::{CoreBroker, Facts, Kind, Marks, Origin, SubscriptionLimits, broker};
use ringcast::internals::clock::Clock;

const ROUNDS: usize = 5;
const FRAME: [u8; 100] = [b'x'; 100];
/// Number of publications that a core reads before it gives the slots back: those of one turn.
const BATCH: usize = 64;
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
const ONE_CHANNEL: SubscriptionLimits = SubscriptionLimits {
    channels_max: 1,
    names_bytes_max: 100,
};

fn main() {
    let asked = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let publications: u64 = asked.unwrap_or(20_000);
    println!(
        "{publications} publications of {} bytes per round, {ROUNDS} rounds",
        FRAME.len()
    );
    println!(
        "publish: 1 RMW, 1 fence, 1 store, 4 loads, 1 load per other interested core; read: 1 load; batch read: 1 store"
    );
    println!("cores  producers  interested  ns/publication (least, most)  ns/publication and core  full");
    for cores in [1, 2, 4, 8, 16] {
        for all_produce in [false, true] {
            for interested in [false, true] {
                if cores > 1 || !all_produce {
                    report(cores, all_produce, interested, publications);
                }
            }
        }
    }
    report_sleepers(publications);
}

fn report(cores: usize, all_produce: bool, interested: bool, publications: u64) {
    let producers = if all_produce { cores } else { 1 };
    let mut rounds: Vec<Round> = (0..ROUNDS)
        .map(|_| round(cores, producers, interested, publications / producers as u64))
        .collect();
    rounds.sort_by(|one, other| one.ns.total_cmp(&other.ns));
    let median = rounds[ROUNDS / 2].ns;
    println!(
        "{cores:>5}  {producers:>9}  {interested:>10}  {median:>8.0} ({:.0}, {:.0})  {:>8.0}  {}",
        rounds[0].ns,
        rounds[ROUNDS - 1].ns,
        median / cores as f64,
        rounds.iter().map(|round| round.full).sum::<u64>() / ROUNDS as u64,
    );
}

struct Round {
    /// Nanoseconds per publication.
    ns: f64,
    /// Number of publishes that found the ring full.
    full: u64,
}

fn round(cores: usize, producers: usize, interested: bool, each: u64) -> Round {
    let limits = Limits::default();
    let total = each * producers as u64;
    let start = Arc::new(Barrier::new(cores + 1));
    let threads: Vec<_> = broker(cores, limits.ring_slots, limits.ring_bytes_max)
        .into_iter()
        .enumerate()
        .map(|(index, mut core)| {
            let start = Arc::clone(&start);
            let hash = core.hasher.hash(b"channel");
            if interested {
                core.subscriptions.subscribe(0, b"channel", hash, ONE_CHANNEL);
            }
            thread::spawn(move || {
                start.wait();
                run(&mut core, if index < producers { each } else { 0 }, total)
            })
        })
        .collect();
    // Start the clock before the wait: with few CPUs, the other threads may be done before this thread runs again.
    let clock = Clock::begin();
    start.wait();
    let full = threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum();
    Round {
        ns: clock.elapsed_ns() as f64 / total as f64,
        full,
    }
}

/// Measures a core that sleeps. While it keeps its cursor, nothing that was published since can be taken back. Core 0
/// publishes and reads; core 1 is not interested and reads only once in a while. One thread runs both cores, for each
/// distance.
fn report_sleepers(publications: u64) {
    const DISTANCES: [u64; 5] = [64, 1024, 4096, 16_384, 32_000];
    println!("\npublications between two looks of a sleeper, ns/publication (least, most)");
    let publications = publications.max(2 * DISTANCES[DISTANCES.len() - 1]);
    let mut costs = DISTANCES.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (distance, costs) in DISTANCES.iter().zip(&mut costs) {
            costs.push(sleeper_round(*distance, publications));
        }
    }
    for (distance, costs) in DISTANCES.iter().zip(&mut costs) {
        costs.sort_by(f64::total_cmp);
        println!(
            "{distance:>6}  {:>8.0} ({:.0}, {:.0})",
            costs[ROUNDS / 2],
            costs[0],
            costs[ROUNDS - 1]
        );
    }
}

fn sleeper_round(distance: u64, publications: u64) -> f64 {
    let limits = Limits::default();
    let mut cores = broker(2, limits.ring_slots, limits.ring_bytes_max);
    let [publisher, sleeper] = &mut cores[..] else {
        unreachable!("two were asked for");
    };
    let hash = publisher.hasher.hash(b"channel");
    let mut publish_all = |count: u64| {
        for number in 1..=count {
            let published = publisher
                .publisher
                .try_publish(b"channel", hash, &[b"\x81\x64", &FRAME], FACTS);
            assert!(published.is_ok(), "the sleeper looks before half is used");
            while publisher.reader.next().is_some() {}
            publisher.reader.release();
            if number.is_multiple_of(distance) {
                while sleeper.reader.next().is_some() {}
                sleeper.reader.release();
                publisher.publisher.reclaim();
            }
        }
    };
    publish_all(distance * 2); // allocates all buffers
    let clock = Clock::begin();
    publish_all(publications);
    clock.elapsed_ns() as f64 / publications as f64
}

/// Publishes `publish` and reads `read` publications; returns how often the ring was full.
fn run(core: &mut CoreBroker, mut publish: u64, mut read: u64) -> u64 {
    let hash = core.hasher.hash(b"channel");
    let (mut full, mut sum) = (0, 0usize);
    while publish > 0 || read > 0 {
        for _ in 0..BATCH {
            if publish == 0 {
                break;
            }
            match core
                .publisher
                .try_publish(b"channel", hash, &[b"\x81\x64", &FRAME], FACTS)
            {
                Ok(_) => publish -= 1,
                Err(_) => {
                    full += 1;
                    break;
                }
            }
        }
        let before = read;
        for _ in 0..BATCH * 4 {
            let Some(delivery) = core.reader.next() else { break };
            read -= 1;
            core.subscriptions.begin_walk(delivery.hash, || b"channel");
            if !core.subscriptions.walk(usize::MAX).is_empty() {
                // Read the bytes, as a core does that delivers them.
                sum += delivery
                    .publication
                    .frame()
                    .iter()
                    .map(|byte| usize::from(*byte))
                    .sum::<usize>();
            }
        }
        core.reader.release();
        core.publisher.reclaim();
        if before == read && publish == 0 {
            thread::yield_now();
        }
    }
    std::hint::black_box(sum);
    full
}
