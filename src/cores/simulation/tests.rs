//! Runs the seeds, and scenarios for the faults that seeds have found.

mod store;
mod wills;

use std::num::NonZero;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Scale;
use super::client::Asked;
use super::log::channel_name;
use super::plan::Plan;
use super::policies::{Memory, Wanted};
use super::random::Random;
use super::schedule::{self, Summary};
use super::world::World;
use crate::broker::{ChannelHasher, Sent};
use crate::config::limits::Limits;
use crate::config::rules::RuleSpec;
use crate::config::{Config, SlowConsumer};
use crate::cores::CoreId;
use crate::cores::arrivals::acceptor::Arrived;
use crate::cores::fd_table;
use crate::cores::operators::mailbox::Order;
use crate::cores::post::letter::Letter;
use crate::decision::Limit;
use crate::transport::port::Port;

/// Each seed is run twice on a machine that is kept busy, by a process that does the same as other tests of
/// it: threads compute on every CPU, and others hold copies of the descriptor table for a moment, as child
/// processes do before their program begins and as cores do with tables of their own. A socket that is closed
/// while such a copy exists stays open.
#[test]
fn a_seed_repeats_itself_exactly_whatever_else_the_process_and_the_machine_do() {
    let is_over = AtomicBool::new(false);
    let until_over = |mut act: Box<dyn FnMut() + Send>| {
        let is_over = &is_over;
        move || {
            while !is_over.load(Ordering::Relaxed) {
                act();
            }
        }
    };
    std::thread::scope(|scope| {
        let _over = StopOnDrop(&is_over);
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(until_over(Box::new(std::hint::spin_loop)));
        }
        scope.spawn(until_over(Box::new(|| {
            let _ = fd_table::can_be_split();
        })));
        scope.spawn(until_over(Box::new(|| {
            // If there is no shell, the other threads are enough.
            let _ = Command::new("true").status();
        })));
        for seed in seeds(0..60) {
            assert_eq!(schedule::run(seed), schedule::run(seed), "seed {seed}");
        }
    });
}

/// Ends the threads that run beside a test, even if the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// With `--show-output` it prints the sum of all that has happened: it is the same in each run of the same
/// seeds and code.
#[test]
fn every_promise_is_kept_whatever_the_seed() {
    let seeds = seeds(0..1000);
    let mut all = Summary::default();
    for seed in seeds.clone() {
        let run = schedule::run(seed);
        all.clients += run.clients;
        all.publications += run.publications;
        all.deliveries += run.deliveries;
        all.replayed += run.replayed;
        all.recoveries += run.recoveries;
        all.histories += run.histories;
        all.events += run.events;
        all.infos += run.infos;
        all.wills += run.wills;
        all.superseded += run.superseded;
        all.calls_answered += run.calls_answered;
        all.calls_failed += run.calls_failed;
        all.calls_cancelled += run.calls_cancelled;
        all.webhook_events += run.webhook_events;
        all.long_subacks += run.long_subacks;
        all.turns += run.turns;
        all.hash = all.hash.rotate_left(1) ^ run.hash;
    }
    println!("seeds {seeds:?}: {all:?}");
    // So that they are known to do something.
    if seeds.end - seeds.start >= 100 {
        assert!(
            all.deliveries > all.publications && all.publications > all.clients,
            "{all:?}"
        );
        assert!(
            all.recoveries > 0 && all.histories > 0 && all.events > 0 && all.wills > 0 && all.superseded > 0,
            "{all:?}"
        );
        assert!(
            all.calls_answered > 0 && all.calls_failed > 0 && all.calls_cancelled > 0,
            "{all:?}"
        );
        assert!(
            all.infos > 0 && all.webhook_events > 0 && all.long_subacks > 0,
            "{all:?}"
        );
    }
}

/// A world in which only the actions of a test happen, with one client on each core: their indexes are the
/// same.
fn with_a_client_on_each_core(cores: usize, limits: Limits) -> World {
    let plan = Plan {
        cores,
        limits,
        ..Plan::default()
    };
    let mut world = World::new(None, plan, Random::new(0));
    // The first goes to core 0, the next to the lightest.
    for _ in 0..cores {
        let client = world.connect(0, false).unwrap();
        world.with(client, |client, truth| {
            client.ask(truth, Asked::Handshake);
        });
        world.settle();
    }
    world
}

#[test]
fn cores_that_wait_for_one_that_stands_still_let_each_other_sleep() {
    let mut world = with_a_client_on_each_core(
        3,
        Limits {
            ring_slots: 2,
            ..Limits::default()
        },
    );
    world.seats[2].stands_still = true;
    for client in [0, 1] {
        world.with(client, |client, truth| {
            client.ask_all(truth, &[Asked::Publish(0); 5]);
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
    assert_eq!(world.truth.log.len(), 10);
}

/// A core that stands still keeps a ring of two places full. Clients that are closed meanwhile leave no more
/// behind than the limit, each message whole or not at all, and discarded publications are counted.
#[test]
fn publications_of_clients_that_left_wait_for_the_ring_within_their_limit() {
    let abandoned_bytes_max = 1000;
    let mut world = with_a_client_on_each_core(
        2,
        Limits {
            ring_slots: 2,
            abandoned_bytes_max,
            ..Limits::default()
        },
    );
    let clients: Vec<usize> = (0..40).map(|_| world.connect(0, false).unwrap()).collect();
    for &client in &clients {
        world.with(client, |client, truth| {
            client.ask(truth, Asked::Handshake);
        });
    }
    world.settle();
    world.seats[1].stands_still = true;
    let given_up =
        |world: &World| world.handles[0].metrics().limit_hits[Limit::AbandonedBytes.index()].value();
    for &client in &clients {
        world.with(client, |client, truth| {
            client.ask_all(truth, &[Asked::Publish(0); 5]);
        });
    }
    world.settle();
    world.drain();
    world.pass(Duration::from_secs(1));
    let lost = given_up(&world);
    assert!(lost > 0);
    world.seats[1].stands_still = false;
    world.settle();
    world.truth.log.check_whole().unwrap();
    let published = world.truth.log.len() as u64;
    assert_eq!((published + lost, given_up(&world)), (5 * 40, lost));
}

/// Also if the core stood still for a time that is short for a silent client, and long for a connection that
/// is being closed.
#[test]
fn a_client_that_was_closed_before_its_core_stood_still_is_told_why() {
    let ms = Duration::from_millis;
    let Plan {
        limits, ping_timeout, ..
    } = Plan::default();
    for (close_timeout, stall) in [
        (limits.close_timeout, limits.close_timeout + ping_timeout),
        (ms(500), ms(900)),
    ] {
        a_closed_client_is_told_why(close_timeout, stall);
    }
}

fn a_closed_client_is_told_why(close_timeout: Duration, stall: Duration) {
    let plan = Plan {
        cores: 1,
        limits: Limits {
            close_timeout,
            ..Limits::default()
        },
        send_buffer: 1,
        padding_max: 1000,
        ..Plan::default()
    };
    let mut world = World::new(None, plan, Random::new(0));
    let client = world.connect(0, false).unwrap();
    world.with(client, |client, truth| {
        client.ask(truth, Asked::Handshake);
        client.ask(truth, Asked::Subscribe(0));
    });
    world.settle();
    world.clients[client].attentive = false;
    world.with(client, |client, truth| {
        client.ask_all(truth, &[Asked::Publish(0); 40]);
        client.queue_garbage(truth);
        client.write(truth, usize::MAX);
    });
    world.settle();
    world.seats[0].stands_still = true;
    world.pass(stall);
    world.clients[client].attentive = true;
    world.seats[0].stands_still = false;
    world.settle();
    assert_eq!(world.clients[client].code, Some(1002), "after {stall:?}");
}

/// A client that makes a call while an array of 5,000 calls of another client is handled is answered in the same turn.
/// No turn handles more packets of that array than it would handle single messages.
#[test]
fn an_array_of_many_packets_takes_no_more_of_a_turn_than_as_many_messages() {
    let mut world = with_a_client_on_each_core(1, Limits::default());
    let other = world.connect(0, false).unwrap();
    world.with(other, |client, truth| client.ask(truth, Asked::Handshake));
    world.settle();
    let packets = 5000;
    let per_turn_max = world.truth.plan.scale.frames_per_turn_max;
    world.with(0, |client, truth| {
        client.ask_all(truth, &vec![Asked::Call; packets]);
    });
    let invoked = |world: &World| world.truth.told.borrow().invoked;
    let mut turns_with_packets = 0;
    while world.clients[0].is_owed_an_answer() {
        world.with(0, |client, truth| client.write(truth, usize::MAX));
        world.with(other, |client, truth| {
            client.ask(truth, Asked::Call);
            client.write(truth, usize::MAX);
        });
        let before = invoked(&world);
        assert!(world.turn(0), "there is something to do");
        let of_the_array = invoked(&world) - before - 1;
        assert!(of_the_array <= per_turn_max, "{of_the_array} packets in one turn");
        turns_with_packets += u64::from(of_the_array > 0);
        for client in [0, other] {
            world.with(client, |client, truth| while client.read(truth, usize::MAX) {});
        }
        assert!(
            !world.clients[other].is_owed_an_answer(),
            "it is answered in the same turn"
        );
    }
    assert!(turns_with_packets >= packets as u64 / per_turn_max);
}

/// The end of a connection in the middle of its array is like that in the middle of its messages: packets
/// that were handled have their effect, the others are dropped, and nothing of them is kept.
#[test]
fn what_is_left_of_an_array_goes_with_its_connection() {
    let mut world = with_a_client_on_each_core(1, Limits::default());
    world.with(0, |client, truth| {
        client.ask_all(truth, &[Asked::Publish(0); 1000]);
        client.write(truth, usize::MAX);
    });
    while world.truth.log.len() == 0 {
        world.turn(0);
    }
    world.with(0, |client, _| client.disappear());
    world.drain();
    world.pass(Duration::from_secs(1));
    let published = world.truth.log.len();
    assert!((256..1000).contains(&published), "{published}");
    world.truth.log.check_whole().unwrap();
    world.truth.log.check_order().unwrap();
}

/// A client that is kicked out of a thousand channels keeps no turn longer than 256 of them take, and its
/// later requests are answered behind that.
#[test]
fn all_channels_of_a_connection_are_gone_through_in_parts() {
    let channels = 1000;
    let plan = Plan {
        cores: 1,
        channels,
        ..Plan::default()
    };
    let mut world = World::new(None, plan, Random::new(0));
    let client = world.connect(0, false).unwrap();
    world.with(client, |client, truth| client.ask(truth, Asked::Handshake));
    world.settle();
    let all: Vec<Asked> = (0..channels).map(Asked::Subscribe).collect();
    world.with(client, |client, truth| client.ask_all(truth, &all));
    world.settle();
    let subscriptions = |world: &World| world.handles[0].metrics().subscriptions.value();
    assert_eq!(subscriptions(&world), 1000);
    world.with(client, |client, truth| {
        client.ask(truth, Asked::KickMeOutOfAll);
        client.ask(truth, Asked::Subscribe(0));
        client.write(truth, usize::MAX);
    });
    let mut turns = 0;
    while world.clients[client].is_owed_an_answer() {
        let before = subscriptions(&world);
        assert!(world.turn(0), "it goes on without being asked");
        assert!(before.saturating_sub(subscriptions(&world)) <= 256);
        world.with(client, |client, truth| while client.read(truth, usize::MAX) {});
        turns += 1;
    }
    assert!(turns >= 4);
    assert_eq!(
        (subscriptions(&world), world.clients[client].following.len()),
        (1, 1)
    );
}

/// A listener that a core cannot use keeps the server from starting: otherwise a part of the connections
/// would never be accepted. The file stands for a socket that the system lets no poll watch.
#[test]
fn a_listener_that_a_core_cannot_watch_is_told_with_its_cause() {
    let mut world = with_a_client_on_each_core(2, Limits::default());
    let core = world.seats[1].core.as_mut().unwrap();
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let registry = core.poll.registry();
    let Arrived::LostListener(cause) = core.acceptor.take_listener(file.into(), Port::Tls, registry) else {
        panic!("a file is no listener");
    };
    assert!(
        cause.starts_with("core 1 cannot use its listener of tls_listen: "),
        "{cause}"
    );
    core.mailbox.note_lost_listener(cause.clone());
    assert_eq!(world.handles[1].listeners(), Err(cause.as_str()));
    let hits = &world.handles[1].metrics().limit_hits;
    assert_eq!(hits[Limit::Descriptors.index()].value(), 1);
}

/// On a CPU that cores share, a core lets the others run when it waits for one of them: a publisher has
/// claimed the next place of the ring and not published there yet, or the turn was a long one.
#[test]
fn a_core_that_shares_its_cpu_lets_the_publisher_of_the_next_place_run() {
    let mut world = with_a_client_on_each_core(2, Limits::default());
    let mut yields = |is_shared: bool, took_ns: u64, claims: bool| {
        let core = world.seats[0].core.as_mut().unwrap();
        core.shares_cpu = is_shared;
        if claims {
            assert!(core.delivery.reader().claim_a_place());
        }
        core.yields_after(took_ns)
    };
    assert!(!yields(true, 0, false) && yields(true, 1_000_000_000, false));
    assert!(!yields(false, 1_000_000_000, false));
    assert!(yields(true, 0, true));
    assert!(!yields(false, 0, false));
}

/// A client that has ended leaves a thousand channels. No turn ends more than 256 of these subscriptions,
/// other clients are answered in each turn, and its place is free only when no subscription is left.
#[test]
fn the_subscriptions_of_a_client_that_has_gone_end_in_parts() {
    let channels = 1000;
    let plan = Plan {
        cores: 1,
        channels,
        presence: true,
        ..Plan::default()
    };
    let mut world = World::new(None, plan, Random::new(0));
    let clients: Vec<usize> = (0..2).map(|_| world.connect(0, false).unwrap()).collect();
    for &client in &clients {
        world.with(client, |client, truth| client.ask(truth, Asked::Handshake));
    }
    world.settle();
    let (gone, other) = (clients[0], clients[1]);
    let all: Vec<Asked> = (0..channels).map(Asked::Subscribe).collect();
    world.with(gone, |client, truth| client.ask_all(truth, &all));
    world.settle();
    let gauges = |world: &World| {
        let metrics = world.handles[0].metrics();
        (metrics.subscriptions.value(), metrics.connections.value())
    };
    assert_eq!(gauges(&world), (1000, 2));
    world.with(gone, |client, _| client.disappear());
    let mut turns = 0;
    while gauges(&world).0 > 0 {
        world.with(other, |client, truth| {
            client.ask(truth, Asked::Call);
            client.write(truth, usize::MAX);
        });
        let before = gauges(&world).0;
        assert!(world.turn(0), "it goes on without being asked");
        let after = gauges(&world);
        assert!(before - after.0 <= 256, "{before} {after:?}");
        assert!(after.0 == 0 || after.1 == 2, "the place is taken: {after:?}");
        world.with(other, |client, truth| while client.read(truth, usize::MAX) {});
        assert!(
            !world.clients[other].is_owed_an_answer(),
            "it is answered in each turn"
        );
        turns += 1;
        assert!(turns < 100);
    }
    assert!(turns >= 4);
    world.settle();
    assert_eq!(gauges(&world), (0, 1));
}

/// One core that looks at three connections in a turn, and `count` clients that are subscribed to one
/// channel.
fn with_subscribers(count: usize, drain: Duration) -> World {
    let plan = Plan {
        cores: 1,
        drain,
        scale: Scale {
            places_per_turn_max: 3,
            ..Scale::default()
        },
        ..Plan::default()
    };
    let mut world = World::new(None, plan, Random::new(0));
    for _ in 0..count {
        let client = world.connect(0, false).unwrap();
        world.with(client, |client, truth| {
            client.ask(truth, Asked::Handshake);
            client.ask(truth, Asked::Subscribe(0));
        });
        world.settle();
    }
    world
}

#[test]
fn a_reload_looks_at_a_bounded_number_of_connections_in_a_turn() {
    let mut world = with_subscribers(20, Duration::ZERO);
    let mut config = Config::default();
    config.permissions.rules = vec![RuleSpec::default()];
    let policy = Arc::new(world.policy.reopen(&config).unwrap());
    world.handles[0].send(Order::Adopt(policy)).unwrap();
    let kicked_out = |world: &World| world.handles[0].metrics().rules_kick_outs.value();
    let mut turns = 0;
    while kicked_out(&world) < 20 {
        let before = kicked_out(&world);
        assert!(world.turn(0), "it goes on without being asked");
        assert!(kicked_out(&world) - before <= 3);
        turns += 1;
        // Connections that begin meanwhile follow the new rules.
        if turns == 2 {
            let client = world.connect(0, false).unwrap();
            world.with(client, |client, truth| {
                client.ask(truth, Asked::Handshake);
                client.write(truth, usize::MAX);
            });
        }
    }
    assert!(turns >= 7);
    world.settle();
    assert_eq!(world.handles[0].metrics().subscriptions.value(), 0);
}

#[test]
fn a_drain_lists_and_closes_a_bounded_number_of_connections_in_a_turn_the_oldest_first() {
    let mut world = with_subscribers(20, Duration::ZERO);
    world.clients[7].disappear();
    world.settle();
    // The youngest, in an old place.
    let youngest = world.connect(0, false).unwrap();
    world.with(youngest, |client, truth| client.ask(truth, Asked::Handshake));
    world.settle();
    world.drain();
    let mut turns = 0;
    while world.seats[0].core.is_some() {
        let open = |world: &World| world.clients.iter().filter(|client| client.is_open()).count();
        let before = open(&world);
        if !world.turn(0) {
            world.settle();
        }
        for client in 0..world.clients.len() {
            world.with(client, |client, truth| while client.read(truth, usize::MAX) {});
        }
        assert!(before - open(&world) <= 3);
        let first_open = world.clients.iter().position(|client| client.is_open());
        let closed_behind = world.clients[first_open.unwrap_or(0)..]
            .iter()
            .filter(|client| client.code.is_some());
        assert!(first_open.is_none() || closed_behind.count() == 0);
        turns += 1;
    }
    assert!(turns > 20 / 3 * 2);
}

/// The connections of the kernel's backlog when a drain begins are accepted in batches, and served to their
/// end.
#[test]
fn the_backlog_is_accepted_in_batches_when_a_drain_begins() {
    let mut world = with_a_client_on_each_core(1, Limits::default());
    for _ in 0..100 {
        let client = world.connect(0, false).unwrap();
        world.with(client, |client, truth| client.write(truth, usize::MAX));
    }
    world.drain();
    let accepts = |world: &World| world.handles[0].metrics().accepts.value();
    while accepts(&world) < 101 {
        let before = accepts(&world);
        assert!(world.turn(0), "it goes on without being asked");
        assert!(accepts(&world) - before <= 64);
    }
    world.pass(Duration::from_secs(60));
    assert!(world.clients.iter().all(|client| client.code == Some(1001)));
    assert!(world.seats[0].core.is_none());
}

/// The seeds of `RINGCAST_SEEDS`, such as `0..100000`; without the variable, `usual`.
fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("RINGCAST_SEEDS") else {
        return usual;
    };
    let (start, end) = text
        .split_once("..")
        .expect("RINGCAST_SEEDS is a range such as 0..1000");
    let number = |text: &str| text.trim().parse().expect("seeds are numbers");
    number(start)..number(end)
}

/// The core's drain is over before that of the others. They sleep, and its last letter wakes them.
#[test]
fn a_core_that_has_stopped_gets_no_letters_any_more() {
    let plan = Plan {
        cores: 3,
        ..Plan::default()
    };
    let mut world = World::new(None, plan, Random::new(0));
    world.settle();
    world.handles[1].send(Order::Stop).unwrap();
    world.settle();
    assert!(world.seats[1].core.is_none());
    for (index, other) in [(0, 2), (2, 0)] {
        let core = world.seats[index].core.as_mut().unwrap();
        let letter = || Letter::Stopped(CoreId::new(index));
        assert_eq!(core.post.send(1, letter()), Sent::Dropped);
        assert_eq!(core.post.send(other, letter()), Sent::Sent);
        assert_eq!(core.metrics.letters.value(), 1);
    }
}

/// Two cores that remember everything, a client on the first, and a channel with a last value that the second owns.
fn with_a_channel_of_the_other_core() -> (World, usize, usize) {
    let plan = Plan {
        memory: Memory::Everything,
        channels: 16,
        presence: true,
        ..Plan::default()
    };
    let mut world = World::new(Some(1), plan, Random::new(0));
    let client = world.connect(0, false).unwrap();
    world.with(client, |client, truth| client.ask(truth, Asked::Handshake));
    world.settle();
    let hasher = ChannelHasher::with_key(1);
    let is_of_other = |channel: &usize| hasher.hash(channel_name(*channel).as_bytes()).owner(2) == 1;
    let channel = (0..16).step_by(2).find(is_of_other).unwrap();
    (world, client, channel)
}

/// The owner of the channel stands still meanwhile. A subscription that began anew would miss the
/// publications until the owner is asked.
#[test]
fn a_client_that_subscribes_again_misses_nothing() {
    let (mut world, client, channel) = with_a_channel_of_the_other_core();
    world.with(client, |client, truth| {
        client.ask(truth, Asked::Subscribe(channel))
    });
    world.settle();
    world.seats[1].stands_still = true;
    world.with(client, |client, truth| {
        client.ask(truth, Asked::Subscribe(channel));
        client.ask_all(truth, &[Asked::Publish(channel); 5]);
    });
    world.settle();
    world.seats[1].stands_still = false;
    world.settle();
    assert_eq!(world.truth.deliveries, 5);
}

#[test]
fn a_recovery_whose_owner_has_stopped_is_answered_at_once() {
    let (mut world, client, channel) = with_a_channel_of_the_other_core();
    world.handles[1].send(Order::Stop).unwrap();
    world.settle();
    world.with(client, |client, truth| {
        client.ask(truth, Asked::Recover(channel, Wanted::Last(5)));
    });
    world.settle();
    world.with(client, |client, truth| client.ask(truth, Asked::Publish(channel)));
    world.settle();
    assert!(!world.clients[client].is_owed_an_answer());
    assert_eq!((world.truth.recoveries, world.truth.deliveries), (0, 1));
}

/// Seed 7 of the runs whose clients ask for members when they have connected: they waited for five seconds.
#[test]
fn a_question_about_members_whose_owner_has_stopped_is_answered_at_once() {
    let (mut world, client, channel) = with_a_channel_of_the_other_core();
    world.handles[1].send(Order::Stop).unwrap();
    world.settle();
    world.with(client, |client, truth| {
        client.ask(truth, Asked::Members(channel));
        client.ask(truth, Asked::Info(channel));
        client.write(truth, usize::MAX);
    });
    // The client fails if it gets any other answer than that the owner does not answer.
    world.settle();
    assert!(!world.clients[client].is_owed_an_answer());
}

/// When a connection ends while its core tries to ask an owner, the core has nothing left to try again.
#[test]
fn a_core_sleeps_when_the_last_subscription_that_was_not_live_has_ended() {
    let (mut world, client, channel) = with_a_channel_of_the_other_core();
    world.with(client, |client, truth| {
        client.ask(truth, Asked::Recover(channel, Wanted::Last(5)));
        client.write(truth, usize::MAX);
        client.disappear();
    });
    world.settle();
    world.pass(Duration::from_millis(20));
    let turns = |world: &World| world.handles[0].metrics().turns.value();
    let before = turns(&world);
    world.pass(Duration::from_secs(2));
    assert!(turns(&world) - before < 100, "{} turns", turns(&world) - before);
}

/// An owner that does not know of policies by which another core already publishes does not know which
/// publications it was not told to remember. A client of a third core that follows the former policies asks
/// it.
#[test]
fn an_owner_with_superseded_policies_calls_no_recovery_whole() {
    let plan = Plan {
        cores: 3,
        memory: Memory::Some,
        channels: 16,
        ..Plan::default()
    };
    let mut world = World::new(Some(1), plan, Random::new(0));
    let everything = Memory::Everything.policies(16, &mut world.truth.random);
    let policies = world.apply_policy(everything);
    for handle in &world.handles {
        handle.send(Order::Adopt(Arc::clone(&policies))).unwrap();
    }
    world.settle();
    let (publisher, returning) = (world.connect(0, false).unwrap(), world.connect(2, false).unwrap());
    let hasher = ChannelHasher::with_key(1);
    let is_of_1 = |channel: &usize| hasher.hash(channel_name(*channel).as_bytes()).owner(3) == 1;
    let channel = (0..16).find(is_of_1).unwrap();
    for client in [publisher, returning] {
        world.with(client, |client, truth| client.ask(truth, Asked::Handshake));
    }
    world.with(publisher, |client, truth| {
        // Its answer has the epoch.
        client.ask(truth, Asked::Recover(channel, Wanted::Position));
        client.ask(truth, Asked::Publish(channel));
    });
    world.settle();

    let before = world.truth.recoveries;
    let policies = world.apply_policy(Vec::new());
    world.handles[0].send(Order::Adopt(policies)).unwrap();
    world.settle();
    world.with(publisher, |client, truth| {
        client.ask(truth, Asked::Publish(channel))
    });
    world.settle();
    world.with(returning, |client, truth| {
        client.ask(truth, Asked::Recover(channel, Wanted::After(0)));
    });
    // The client compares the answer with the log of publications.
    world.settle();
    assert!(!world.clients[returning].is_owed_an_answer());
    assert_eq!(world.truth.recoveries, before);
}

/// Seed 10708. A core that does not follow the new policies yet publishes without the mark: the last value is
/// an older publication, and the client's subscription begins behind both.
#[test]
fn the_last_value_is_the_newest_of_those_that_were_published_to_be_remembered() {
    let plan = Plan {
        cores: 3,
        memory: Memory::Some,
        channels: 16,
        ..Plan::default()
    };
    let mut world = World::new(Some(1), plan, Random::new(0));
    let policies = world.apply_policy(Vec::new());
    for handle in &world.handles {
        handle.send(Order::Adopt(Arc::clone(&policies))).unwrap();
    }
    let clients: Vec<usize> = (0..3).map(|core| world.connect(core, false).unwrap()).collect();
    for &client in &clients {
        world.with(client, |client, truth| client.ask(truth, Asked::Handshake));
    }
    world.settle();
    let hasher = ChannelHasher::with_key(1);
    let is_of_1 = |channel: &usize| hasher.hash(channel_name(*channel).as_bytes()).owner(3) == 1;
    let channel = (0..16).step_by(2).find(is_of_1).unwrap();
    let everything = Memory::Everything.policies(16, &mut world.truth.random);
    let policies = world.apply_policy(everything);
    for core in [1, 2] {
        world.handles[core]
            .send(Order::Adopt(Arc::clone(&policies)))
            .unwrap();
    }
    world.settle();
    let publish = |world: &mut World, client: usize| {
        world.with(client, |client, truth| client.ask(truth, Asked::Publish(channel)));
        world.settle();
    };
    publish(&mut world, clients[1]);
    world.with(clients[2], |client, truth| {
        client.ask(truth, Asked::Subscribe(channel));
        client.write(truth, usize::MAX);
    });
    world.seats[2].stands_still = true;
    publish(&mut world, clients[0]);
    world.seats[2].stands_still = false;
    world.settle();
    publish(&mut world, clients[1]);
    let remembered: Vec<bool> = world
        .truth
        .log
        .of_channel(channel)
        .iter()
        .map(|entry| entry.remembered)
        .collect();
    assert_eq!(remembered, [true, false, true]);
    // The client fails if it misses a publication that must come.
    assert_eq!((world.truth.replayed, world.truth.deliveries), (1, 2));
}

/// While the owner of the channel stands still. Otherwise the client would assume that it has everything up
/// to the position.
#[test]
fn a_position_is_not_told_before_what_the_client_has_asked_for_has_come() {
    let (mut world, client, channel) = with_a_channel_of_the_other_core();
    world.with(client, |client, truth| {
        client.ask_all(truth, &[Asked::Publish(channel); 5]);
    });
    world.settle();
    world.seats[1].stands_still = true;
    world.with(client, |client, truth| {
        client.ask(truth, Asked::Recover(channel, Wanted::Last(5)));
        client.ask(truth, Asked::Recover(channel, Wanted::Position));
    });
    world.settle();
    world.seats[1].stands_still = false;
    world.settle();
    // If the second client had been told a position, the replays would be behind it.
    assert_eq!((world.truth.replayed, world.truth.recoveries), (5, 1));
}

/// Seed 1573. The newest publication of a slow client waits behind its outbox when the client asks for the
/// position. A client that is told a position assumes that it has everything up to there, and never asks for
/// it again.
#[test]
fn a_position_is_not_told_before_what_waits_behind_a_full_outbox() {
    let plan = Plan {
        cores: 1,
        limits: Limits {
            outbox_bytes_max: 500,
            ..Limits::default()
        },
        slow_consumer: SlowConsumer::Conflate,
        memory: Memory::Everything,
        send_buffer: 1,
        padding_max: 1000,
        ..Plan::default()
    };
    let mut world = World::new(Some(1), plan, Random::new(0));
    let [reader, publisher] = [0; 2].map(|core| world.connect(core, false).unwrap());
    for client in [reader, publisher] {
        world.with(client, |client, truth| client.ask(truth, Asked::Handshake));
    }
    world.settle();
    // A channel without a last value.
    let ask = |world: &mut World| {
        world.with(reader, |client, truth| {
            client.ask(truth, Asked::Recover(1, Wanted::Position));
            client.write(truth, usize::MAX);
        });
        world.settle();
    };
    ask(&mut world);
    world.clients[reader].attentive = false;
    world.clients[reader].sent.dozed = true;
    for _ in 0..100 {
        world.with(publisher, |client, truth| client.ask(truth, Asked::Publish(1)));
        world.settle();
    }
    // It gets them from the history, and none is left out.
    assert_eq!(world.handles[0].metrics().catch_ups.value(), 1);
    assert_eq!(world.handles[0].metrics().publications_conflated.value(), 0);
    ask(&mut world);
    world.clients[reader].attentive = true;
    // The client fails if a publication comes whose place is not behind the position, or if one does not come.
    world.settle();
    assert!(!world.clients[reader].is_owed_an_answer());
}

/// The ring is full when an MQTT client publishes with QoS 2, and no publication of a connection that ends is
/// kept. When the client sends the publication again on its next connection, it is no duplicate of the one
/// that was dropped.
#[test]
fn what_is_dropped_with_its_connection_can_be_sent_again_with_qos_2() {
    let plan = Plan {
        cores: 2,
        limits: Limits {
            ring_slots: 1,
            abandoned_bytes_max: 0,
            ..Limits::default()
        },
        mqtt: true,
        devices: 1,
        ..Plan::default()
    };
    let mut world = World::new(Some(1), plan, Random::new(0));
    let hasher = ChannelHasher::with_key(1);
    let owner = hasher.hash(b"device 0").owner(2);
    world.device_connects(0, false, 100);
    world.settle();
    assert!(world.devices[0].is_open());
    world.seats[1 - owner].stands_still = true;
    for _ in 0..4 {
        world.devices[0].publish_with(&mut world.truth, 0, 2);
    }
    world.settle();
    let before = world.truth.log.len();
    assert!(before < 4, "the ring is full");
    world.devices[0].cut(false);
    world.settle();
    world.seats[1 - owner].stands_still = false;
    world.settle();
    world.device_connects(0, false, 100);
    world.settle();
    // The client fails if a publication that was acknowledged is not in the ring, and the log if one is there
    // twice.
    assert_eq!(world.truth.log.len(), 4);
}
