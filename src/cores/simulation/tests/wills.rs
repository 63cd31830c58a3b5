//! Wills whose owners are late.

use super::*;
use crate::wills::SessionKey;

/// Two cores, and wills that clients of the first core have left, of sessions that the second core owns.
/// Turns take one letter each. The connection of `0` has ended, its will waits for 200 ms, and the second
/// core stands still.
fn with_a_will_that_waits() -> (World, [usize; 2], [usize; 2]) {
    let plan = Plan {
        scale: Scale {
            letters_per_turn_max: 1,
            ..Scale::default()
        },
        ..Plan::default()
    };
    let mut world = World::new(Some(1), plan, Random::new(0));
    let hasher = ChannelHasher::with_key(1);
    let is_of_1 = |name: &usize| {
        let key = SessionKey::new(None, name.to_string().as_bytes());
        hasher.hash(key.as_bytes()).owner(2) == 1
    };
    let mut names = (0..100).filter(is_of_1);
    let names = [names.next().unwrap(), names.next().unwrap()];
    let clients = [0; 3].map(|core| world.connect(core, false).unwrap());
    for client in clients {
        world.with(client, |client, truth| client.ask(truth, Asked::Handshake));
    }
    world.settle();
    world.with(clients[0], |client, truth| {
        client.ask(truth, Asked::Will(0, Some(names[0]), 200));
    });
    world.settle();
    world.with(clients[0], |client, _| client.disappear());
    world.settle();
    world.seats[1].stands_still = true;
    (world, [clients[1], clients[2]], names)
}

/// The letters about it wait in the box of its owner, which is late: it takes one in each turn.
#[test]
fn a_session_that_has_come_back_in_time_has_no_will_however_late_its_owner_learns_of_that() {
    let (mut world, clients, names) = with_a_will_that_waits();
    for (client, name) in clients.into_iter().zip([names[1], names[0]]) {
        world.with(client, |client, truth| {
            client.ask(truth, Asked::Will(0, Some(name), 0));
        });
        world.settle();
    }
    world.truth.time.advance(Duration::from_millis(300));
    world.seats[1].stands_still = false;
    world.settle();
    assert_eq!(world.truth.wills.published, 0);
}

#[test]
fn a_will_that_was_due_is_published_although_its_owner_learns_first_that_the_session_has_come_back() {
    let (mut world, clients, names) = with_a_will_that_waits();
    world.truth.time.advance(Duration::from_millis(300));
    world.with(clients[0], |client, truth| {
        client.ask(truth, Asked::Will(0, Some(names[0]), 0));
    });
    world.settle();
    world.seats[1].stands_still = false;
    world.settle();
    assert_eq!(world.truth.wills.published, 1);
}
