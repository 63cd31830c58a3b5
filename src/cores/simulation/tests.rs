//! The seeds, and what they have found.

use super::client::Asked;
use super::plan::Plan;
use super::random::Random;
use super::schedule::{self, Summary};
use super::world::World;
use crate::config::limits::Limits;

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

/// A world in which nothing happens but what a test says, with one client on each core: their indexes are the same.
fn with_a_client_on_each_core(cores: usize, ring_slots: u32) -> World {
    let plan = Plan {
        cores,
        limits: Limits {
            ring_slots,
            ..Limits::default()
        },
        ..Plan::default()
    };
    let mut world = World::new(None, plan, Random::new(0));
    // The first goes to core 0, the next to the lightest.
    for _ in 0..cores {
        let client = world.connect(0, false).unwrap();
        world.with(client, |client, ground| {
            client.ask(ground, Asked::Handshake);
        });
        world.settle();
    }
    world
}

#[test]
fn those_who_wait_for_a_core_that_stands_still_let_each_other_sleep() {
    let mut world = with_a_client_on_each_core(3, 2);
    world.seats[2].stands_still = true;
    for client in [0, 1] {
        world.with(client, |client, ground| {
            client.ask_all(ground, &[Asked::Publish(0); 5]);
        });
    }
    let turns = |world: &World| -> u64 {
        world
            .handles
            .iter()
            .map(|core| core.metrics().turns.value())
            .sum()
    };
    let before = turns(&world);
    world.settle();
    // Each of both looks for room once a millisecond.
    let looks = turns(&world) - before;
    assert!(looks < 100, "{looks} turns in 20 ms");
    world.seats[2].stands_still = false;
    world.settle();
    assert_eq!(world.ground.log.len(), 10);
}

#[test]
fn who_was_closed_before_his_core_stood_still_is_told_why() {
    let plan = Plan {
        cores: 1,
        send_buffer: 1,
        padding_max: 1000,
        ..Plan::default()
    };
    let patience = plan.limits.close_timeout + plan.ping_timeout;
    let mut world = World::new(None, plan, Random::new(0));
    let client = world.connect(0, false).unwrap();
    world.with(client, |client, ground| {
        client.ask(ground, Asked::Handshake);
        client.ask(ground, Asked::Subscribe(0));
    });
    world.settle();
    world.clients[client].attentive = false;
    world.with(client, |client, ground| {
        client.ask_all(ground, &[Asked::Publish(0); 40]);
        client.queue_garbage(ground);
        client.write(ground, usize::MAX);
    });
    world.settle();
    world.seats[0].stands_still = true;
    world.pass(patience);
    world.clients[client].attentive = true;
    world.seats[0].stands_still = false;
    // A client that is dropped without a word ends the run.
    world.settle();
    assert!(!world.clients[client].is_open());
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
