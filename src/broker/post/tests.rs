use std::collections::VecDeque;

use super::*;
use crate::broker::{CoreBroker, broker};

type Letter = (usize, u32);

/// Cores that the test puts to sleep, and that no thread wakes.
struct Fixture {
    brokers: Vec<CoreBroker>,
    ends: Vec<PostEnd<Letter>>,
}

impl Fixture {
    fn new(cores: usize, letters_max: usize) -> Fixture {
        let brokers = broker(cores, 8, 1 << 20);
        let sleepers = brokers.iter().map(|broker| broker.reader.sleepers()).collect();
        Fixture {
            brokers,
            ends: post(letters_max, sleepers),
        }
    }

    fn send(&mut self, from: usize, to: usize, number: u32) -> Sent {
        self.ends[from].send(to, (from, number))
    }

    fn wakes(&mut self, core: usize) -> Vec<usize> {
        self.ends[core].take_wakes().into_iter().collect()
    }

    fn taken(&mut self, core: usize) -> Vec<Letter> {
        std::iter::from_fn(|| self.ends[core].take()).collect()
    }
}

#[test]
fn letters_of_a_core_come_in_order_however_full_the_box_is() {
    let mut fixture = Fixture::new(3, 2);
    assert_eq!(fixture.send(0, 1, 1), Sent::Sent);
    assert_eq!(fixture.send(2, 1, 1), Sent::Sent);
    assert!(!fixture.ends[0].has_room(1) && fixture.ends[0].has_room(2));
    assert_eq!(fixture.ends[0].try_send(1, (0, 99)), Err((0, 99)));
    assert_eq!(fixture.send(0, 1, 2), Sent::Kept);
    assert_eq!(fixture.ends[1].take(), Some((0, 1)));
    // There is room again, but not before the letter that is kept.
    assert!(!fixture.ends[0].has_room(1) && fixture.ends[2].has_room(1));
    assert_eq!(fixture.send(0, 1, 3), Sent::Kept);
    assert_eq!(fixture.ends[0].kept_count(), 2);
    fixture.ends[0].send_kept();
    assert_eq!(fixture.ends[0].kept_count(), 1);
    assert_eq!(fixture.taken(1), [(2, 1), (0, 2)]);
    fixture.ends[0].send_kept();
    assert_eq!(fixture.taken(1), [(0, 3)]);
    assert_eq!(fixture.ends[0].kept_count(), 0);
}

/// A naive model: a queue for each pair of cores. Boxes of all sizes, cores that stop, letters that are taken late.
#[test]
fn each_letter_to_a_core_that_runs_is_taken_once_and_in_order() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % n as u64).unwrap()
    };
    for round in 0..200 {
        let cores = 1 + below(4);
        let mut fixture = Fixture::new(cores, 1 + below(5));
        let mut queues = vec![VecDeque::new(); cores * cores];
        let mut number = 0;
        let take = |fixture: &mut Fixture, core: usize, queues: &mut [VecDeque<u32>]| {
            while let Some((from, number)) = fixture.ends[core].take() {
                assert_eq!(
                    queues[from * cores + core].pop_front(),
                    Some(number),
                    "round {round}"
                );
            }
        };
        for _ in 0..200 {
            let (from, to) = (below(cores), below(cores));
            match below(8) {
                0..5 => {
                    let had_room = fixture.ends[from].has_room(to);
                    number += 1;
                    let sent = fixture.send(from, to, number);
                    assert_eq!(sent == Sent::Sent, had_room);
                    queues[from * cores + to].push_back(number);
                }
                5 | 6 => take(&mut fixture, to, &mut queues),
                _ => fixture.ends[from].send_kept(),
            }
        }
        while queues.iter().any(|queue| !queue.is_empty()) {
            for core in 0..cores {
                take(&mut fixture, core, &mut queues);
                fixture.ends[core].send_kept();
            }
        }
        assert!(
            fixture
                .ends
                .iter()
                .all(|end| !end.has_letters() && end.kept_count() == 0)
        );
    }
}

#[test]
fn a_core_that_sleeps_is_woken_by_one_sender_and_does_not_sleep_with_a_letter() {
    let mut fixture = Fixture::new(3, 8);
    assert!(fixture.brokers[1].reader.prepare_sleep() && !fixture.ends[1].has_letters());
    for (from, number, wakes) in [(0, 1, &[1][..]), (0, 2, &[]), (2, 1, &[])] {
        assert_eq!(fixture.send(from, 1, number), Sent::Sent);
        assert_eq!(fixture.wakes(from), wakes);
    }
    assert!(fixture.brokers[1].reader.prepare_sleep() && fixture.ends[1].has_letters());
    fixture.brokers[1].reader.mark_awake();
    assert_eq!(fixture.taken(1).len(), 3);
    for number in 0..9 {
        let _ = fixture.send(0, 1, number);
    }
    assert!(fixture.wakes(0).is_empty(), "it is awake");
    assert_eq!(fixture.taken(1).len(), 8);
    // A letter that was kept wakes as well.
    assert!(fixture.brokers[1].reader.prepare_sleep());
    fixture.ends[0].send_kept();
    assert_eq!((fixture.wakes(0), fixture.taken(1).len()), (vec![1], 1));
}

#[test]
fn a_letter_is_taken_before_all_that_were_sent_after_it_own_ones_included() {
    let mut fixture = Fixture::new(2, 8);
    for number in 0..3 {
        assert_eq!(
            (fixture.send(0, 0, number), fixture.send(1, 0, number)),
            (Sent::Sent, Sent::Sent)
        );
    }
    assert!(fixture.ends[0].has_letters());
    let taken = fixture.taken(0);
    assert_eq!(taken, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]);
    assert!(!fixture.ends[0].has_letters());
    for number in 3..6 {
        assert_eq!(fixture.send(1, 0, number), Sent::Sent);
    }
    assert_eq!(fixture.send(0, 0, 3), Sent::Sent);
    assert_eq!(fixture.send(1, 0, 6), Sent::Sent);
    assert_eq!(fixture.taken(0), [(1, 3), (1, 4), (1, 5), (0, 3), (1, 6)]);
}

/// As a core that has finished its drain while other cores still close their clients.
#[test]
fn a_core_that_stops_says_so_behind_its_letters_and_letters_to_it_are_dropped() {
    let mut fixture = Fixture::new(3, 1);
    assert_eq!(
        (fixture.send(1, 0, 1), fixture.send(1, 0, 2)),
        (Sent::Sent, Sent::Kept)
    );
    assert_eq!(
        (fixture.send(0, 1, 1), fixture.send(0, 1, 2)),
        (Sent::Sent, Sent::Kept)
    );
    assert!(fixture.brokers[2].reader.prepare_sleep());
    let wake = fixture.ends.remove(1).stop(|| (1, 99));
    assert_eq!(wake.into_iter().collect::<Vec<_>>(), [2]);
    // The letters that the stopped core had kept are gone: it is known to answer nothing any more.
    assert_eq!(fixture.taken(0), [(1, 1), (1, 99)]);
    assert_eq!(fixture.ends[1].take(), Some((1, 99)));
    assert_eq!(fixture.send(0, 1, 3), Sent::Kept, "the letter was not noted");
    fixture.ends[0].note_stopped(1);
    assert_eq!(
        (fixture.ends[0].kept_count(), fixture.send(0, 1, 4)),
        (0, Sent::Dropped)
    );
    assert!(fixture.ends[0].has_room(1), "nobody waits for it");
    assert_eq!(fixture.ends[0].send(2, (0, 5)), Sent::Sent);
}
