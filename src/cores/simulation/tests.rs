//! The seeds, and what they have found.

use super::schedule::{self, Summary};

#[test]
fn a_seed_repeats_itself_exactly() {
    for seed in [0, 7, 77] {
        assert_eq!(schedule::run(seed), schedule::run(seed), "seed {seed}");
    }
}

#[test]
fn every_promise_is_kept_whatever_the_seed() {
    let seeds = seeds();
    let mut all = Summary::default();
    for seed in seeds.clone() {
        let run = schedule::run(seed);
        all.clients += run.clients;
        all.publications += run.publications;
        all.deliveries += run.deliveries;
        all.turns += run.turns;
    }
    // So that they are known to do something.
    if seeds.end - seeds.start >= 100 {
        assert!(
            all.deliveries > all.publications && all.publications > all.clients,
            "{all:?}"
        );
    }
}

/// Those of `RINGCAST_SEEDS`, such as `0..100000`; else the first thousand.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("RINGCAST_SEEDS") else {
        return 0..1000;
    };
    let (start, end) = text
        .split_once("..")
        .expect("RINGCAST_SEEDS is a range such as 0..1000");
    let number = |text: &str| text.trim().parse().expect("seeds are numbers");
    number(start)..number(end)
}
