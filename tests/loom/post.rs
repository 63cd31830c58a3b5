//! Every interleaving of letters to one core, up to a bound on preemptions.
//!
//! The letters lie in loom's cells, so loom reports any access without an order. A lost wake-up is a deadlock, which
//! loom reports too. The flags of sleepers are the ring's, so each core has its end of a ring as well.

use loom::sync::{Arc, Notify};
use loom::thread;
use ringcast_loom::broker::{PostEnd, Reader, Sent, broker, post};

type Letter = (usize, u8);

fn check(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(body);
}

/// The ends of the post and the readers of cores whose boxes hold `letters_max` letters.
fn cores<const N: usize>(letters_max: usize) -> [(PostEnd<Letter>, Reader); N] {
    let readers: Vec<Reader> = broker(N, 2, 1 << 20)
        .into_iter()
        .map(|broker| broker.reader)
        .collect();
    let ends = post(letters_max, readers.iter().map(Reader::sleepers).collect());
    let cores: Vec<_> = ends.into_iter().zip(readers).collect();
    cores.try_into().expect("as many as asked for")
}

/// Sends the letters in a turn, and rings the bell if the receiver, core 2, is to be woken.
fn send(end: &mut PostEnd<Letter>, letters: &[Letter], bell: &Notify) {
    for &letter in letters {
        assert_eq!(end.send(2, letter), Sent::Sent);
    }
    if end.take_wakes().contains(2) {
        bell.notify();
    }
}

/// Takes letters as a core does, and sleeps when there are none left.
///
/// It sleeps once: after that it looks again and again. Loom does not know that the swap of a sender follows directly
/// upon the store that it has read, so it would let another sender read the flag of an earlier sleep.
fn take(end: &mut PostEnd<Letter>, reader: &mut Reader, count: usize, bell: &Notify) -> Vec<Letter> {
    let mut taken = Vec::new();
    taken.extend(std::iter::from_fn(|| end.take()));
    if taken.len() < count && reader.prepare_sleep() {
        if !end.has_letters() {
            bell.wait();
        }
        reader.mark_awake();
    }
    while taken.len() < count {
        taken.extend(end.take());
        thread::yield_now();
    }
    taken
}

fn numbers_of(taken: &[Letter], sender: usize) -> Vec<u8> {
    let of_sender = taken.iter().filter(|(from, _)| *from == sender);
    of_sender.map(|(_, number)| *number).collect()
}

#[test]
fn a_core_that_goes_to_sleep_gets_the_letters_of_two_others_in_order() {
    check(|| {
        let [
            (mut one, _reader),
            (mut two, _other_reader),
            (mut receiver, mut reader),
        ] = cores(4);
        let bell = Arc::new(Notify::new());
        let (ringer, second_ringer) = (Arc::clone(&bell), Arc::clone(&bell));
        let sending = thread::spawn(move || send(&mut two, &[(1, 1)], &ringer));
        let also_sending = thread::spawn(move || send(&mut one, &[(0, 1), (0, 2)], &second_ringer));
        let taken = take(&mut receiver, &mut reader, 3, &bell);
        assert_eq!(
            (numbers_of(&taken, 0), numbers_of(&taken, 1)),
            (vec![1, 2], vec![1])
        );
        sending.join().unwrap();
        also_sending.join().unwrap();
    });
}

/// In a box for one letter. Of two senders one may find it full: its letter comes when there is room.
#[test]
fn a_full_box_refuses_a_letter_and_takes_it_later() {
    check(|| {
        let [
            (mut one, _reader),
            (mut two, _other_reader),
            (mut receiver, _receiver),
        ] = cores(1);
        let sending = thread::spawn(move || {
            let sent = two.send(2, (1, 1));
            (two, sent)
        });
        let first = one.send(2, (0, 1));
        let second = one.send(2, (0, 2));
        let mut taken: Vec<Letter> = receiver.take().into_iter().collect();
        let (mut two, sent) = sending.join().unwrap();
        assert!(
            first == Sent::Sent || sent == Sent::Sent,
            "one of them was the first"
        );
        assert!(
            second == Sent::Kept || first == Sent::Sent,
            "none overtakes one that is kept"
        );
        while taken.len() < 3 {
            taken.extend(receiver.take());
            one.send_kept();
            two.send_kept();
        }
        assert_eq!(
            (numbers_of(&taken, 0), numbers_of(&taken, 1)),
            (vec![1, 2], vec![1])
        );
        assert_eq!((one.kept_count(), two.kept_count()), (0, 0));
    });
}

/// The last letter of a core has a slot of its own, and comes behind its others.
#[test]
fn the_last_letter_of_a_core_that_stops_wakes_the_others_and_comes_last() {
    check(|| {
        let [
            (mut one, _reader),
            (two, _other_reader),
            (mut receiver, mut reader),
        ] = cores(1);
        let bell = Arc::new(Notify::new());
        let ringer = Arc::clone(&bell);
        let stopping = thread::spawn(move || {
            let sent = one.send(2, (0, 1));
            assert_eq!(sent, Sent::Sent);
            if one.stop(|| (0, 99)).contains(2) {
                ringer.notify();
            }
        });
        drop(two);
        let taken = take(&mut receiver, &mut reader, 2, &bell);
        assert_eq!(taken, [(0, 1), (0, 99)]);
        stopping.join().unwrap();
    });
}

/// A box of two slots, one of them reserved, is filled four times over.
#[test]
fn a_sender_uses_slots_again_only_after_the_receiver_has_emptied_them() {
    check(|| {
        let [(mut one, _reader), (mut receiver, _receiver)] = cores(1);
        let sending = thread::spawn(move || {
            for number in 1..=4 {
                while !one.has_room(1) {
                    thread::yield_now();
                }
                assert_eq!(one.send(1, (0, number)), Sent::Sent);
            }
        });
        let mut taken: Vec<Letter> = Vec::new();
        while taken.len() < 4 {
            taken.extend(receiver.take());
            thread::yield_now();
        }
        assert_eq!(numbers_of(&taken, 0), [1, 2, 3, 4]);
        sending.join().unwrap();
    });
}
