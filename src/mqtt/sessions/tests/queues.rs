//! The queues of sessions: their limits, and the publications that are dropped.

use super::*;

#[test]
fn a_full_queue_drops_by_its_policy() {
    for (queue_full, kept) in [
        (QueueFull::DropNewest, [0, 1, 2]),
        (QueueFull::DropOldest, [7, 8, 9]),
    ] {
        for bounds in [
            Bounds {
                queue_messages_max: 3,
                queue_full,
                ..BOUNDS
            },
            Bounds {
                queue_bytes_max: 3 * 120,
                queue_full,
                ..BOUNDS
            },
            Bounds {
                queues_bytes_max: 3 * 150,
                queue_full,
                ..BOUNDS
            },
        ] {
            let mut sessions = sessions(bounds);
            let session = connected(&mut sessions, by("c", 1), 0);
            sessions.disconnect(session, 1, End::Lost, now(0));
            for number in 0..10 {
                sessions.offer(session, qos(1), &content(&[number; 100]), &[], false);
                sessions.end_publication();
            }
            connected(&mut sessions, by("c", 2), 1);
            let payloads: Vec<u8> = sent(&mut sessions, 0)
                .iter()
                .map(|got| match got {
                    Got::Publish { payload, .. } => payload[0],
                    Got::Release(_) => unreachable!(),
                })
                .collect();
            assert_eq!(payloads, kept, "{bounds:?}");
            let counts = sessions.take_counts();
            assert_eq!(counts.dropped_queue + counts.dropped_total, 7);
        }
    }
}

/// The payloads that wait for a session, or are sent to its client and not acknowledged.
fn all_of(sessions: &Sessions, session: SessionRef) -> Vec<Vec<u8>> {
    let traffic = sessions.states[session.number as usize].traffic.as_deref();
    let kept = traffic.into_iter().flat_map(|traffic| traffic.outgoing.oldest());
    kept.map(|kept| sessions.kept.get(kept).0.payload.to_vec())
        .collect()
}

fn waiting_sessions(sessions: &mut Sessions, count: usize) -> Vec<SessionRef> {
    let ids = (0..count).map(|number| number.to_string());
    ids.enumerate()
        .map(|(number, id)| {
            let session = connected(sessions, by(&id, number), 0);
            sessions.disconnect(session, number, End::Lost, now(0));
            session
        })
        .collect()
}

#[test]
fn at_the_limit_of_all_queues_each_session_gives_its_oldest_for_the_newest() {
    let mut sessions = sessions(Bounds {
        queues_bytes_max: 10 * 150,
        queue_full: QueueFull::DropOldest,
        ..BOUNDS
    });
    let all = waiting_sessions(&mut sessions, 50);
    for number in 0..30_u8 {
        for &session in &all {
            sessions.offer(session, qos(1), &content(&[number; 100]), &[], false);
        }
        sessions.end_publication();
        assert!(sessions.kept_bytes() <= 10 * 150);
    }
    let first = all_of(&sessions, all[0]);
    assert!(first.len() > 5 && first.last().unwrap()[0] == 29, "{first:?}");
    for &session in &all {
        assert_eq!(all_of(&sessions, session), first);
    }
    // A session that shares its publications with others gets what fits, and drops nothing that would free no
    // memory.
    for number in 100..120_u8 {
        let before = all_of(&sessions, all[0]).len();
        sessions.offer(all[0], qos(1), &content(&[number; 100]), &[], false);
        sessions.end_publication();
        assert!(sessions.kept_bytes() <= 10 * 150 + 150);
        assert!(all_of(&sessions, all[0]).len() + 1 >= before.max(first.len()));
    }
}

#[test]
fn a_publication_that_finds_no_room_leaves_the_queue_as_it_was_and_another_drops_as_little_as_it_can() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let bounds = Bounds {
            queue_messages_max: 1 + random.below(12) as usize,
            queue_bytes_max: 300 + random.below(1500) as u32,
            queues_bytes_max: 500 + random.below(4000) as usize,
            queue_full: QueueFull::DropOldest,
            in_flight_max: 4,
            ..BOUNDS
        };
        let mut sessions = sessions(bounds);
        let all = waiting_sessions(&mut sessions, 1 + random.below(5) as usize);
        let bytes_max = 400;
        for step in 0..200_u64 {
            let payload = vec![step as u8; random.below(bytes_max) as usize];
            let content = content(&payload);
            for (number, &session) in all.iter().enumerate() {
                match random.below(8) {
                    0 => {
                        connected(&mut sessions, by(&number.to_string(), number), 0);
                        sent(&mut sessions, 0);
                    }
                    1 => sessions.disconnect(session, number, End::Lost, now(0)),
                    2 => drop(sessions.puback(session, random.below(200) as u16)),
                    3 => {}
                    _ => {
                        let before = all_of(&sessions, session);
                        let offer = sessions.offer(session, qos(1), &content, &[], false);
                        let mut after = all_of(&sessions, session);
                        if offer == Offer::Dropped {
                            assert_eq!(after, before, "seed {seed}, step {step}");
                            continue;
                        }
                        assert_eq!(after.pop(), Some(payload.clone()), "seed {seed}, step {step}");
                        assert!(before.ends_with(&after), "seed {seed}, step {step}");
                        let dropped = &before[..before.len() - after.len()];
                        let room = bounds.queue_bytes_max as usize;
                        let is_full = before.len() == bounds.queue_messages_max;
                        let sum = |some: &[Vec<u8>]| some.iter().map(Vec::len).sum::<usize>();
                        if let [but_one @ .., _] = dropped
                            && !is_full
                            && sum(&before) + payload.len() + 40 * before.len() < room
                        {
                            assert!(sum(but_one) <= payload.len(), "seed {seed}, step {step}");
                        }
                    }
                }
            }
            sessions.end_publication();
            let most = bounds.queues_bytes_max + bytes_max as usize + 100;
            assert!(sessions.kept_bytes() <= most, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn what_is_in_flight_does_not_have_the_waiting_ones_dropped_for_nothing() {
    let mut sessions = sessions(Bounds {
        queue_bytes_max: 1000,
        in_flight_max: 2,
        queue_full: QueueFull::DropOldest,
        ..BOUNDS
    });
    let session = connected(&mut sessions, by("c", 1), 0);
    for number in 0..2_u8 {
        let offer = sessions.offer(session, qos(1), &content(&[number; 350]), &[], true);
        assert!(matches!(offer, Offer::Send { .. }));
        sessions.end_publication();
    }
    sessions.offer(session, qos(1), &content(&[2; 100]), &[], true);
    sessions.end_publication();
    let offer = sessions.offer(session, qos(1), &content(&[3; 400]), &[], true);
    assert_eq!((offer, all_of(&sessions, session).len()), (Offer::Dropped, 1));
    let offer = sessions.offer(session, qos(1), &content(&[4; 200]), &[], true);
    assert_eq!(
        (offer, all_of(&sessions, session)),
        (Offer::Waits, vec![vec![4; 200]])
    );
}

#[test]
fn sessions_share_the_publications_that_wait_for_them() {
    let mut sessions = sessions(Bounds {
        sessions_max: usize::MAX,
        ..BOUNDS
    });
    let all: Vec<_> = (0..100)
        .map(|number| {
            let session = connected(&mut sessions, by(&number.to_string(), number), 0);
            sessions.disconnect(session, number, End::Lost, now(0));
            session
        })
        .collect();
    for _ in 0..10 {
        for &session in &all {
            sessions.offer(session, qos(1), &content(&[b'x'; 64]), &[], false);
        }
        sessions.end_publication();
    }
    assert_eq!(sessions.kept.len(), 10);
    assert!(sessions.kept_bytes() < 10 * 160);
    sessions.end_due(now(1000).uptime);
    assert_eq!((sessions.len(), sessions.kept_bytes()), (0, 0));
}

/// MQTT-4.6.0-6: with the same QoS, the publications of a topic come in their order.
#[test]
fn what_comes_with_qos_0_queues_behind_what_has_waited_with_qos_0() {
    let bounds = Bounds {
        queues_qos0: true,
        in_flight_max: 1,
        ..BOUNDS
    };
    let mut sessions = sessions(bounds);
    let session = connected(&mut sessions, by("c", 1), 0);
    sessions.disconnect(session, 1, End::Lost, now(0));
    for (number, level) in [(0, 1), (1, 1), (2, 0)] {
        sessions.offer(session, qos(level), &content(&[number]), &[], false);
        sessions.end_publication();
    }
    let session = connected(&mut sessions, by("c", 2), 1);
    let payloads = |got: Vec<Got>| -> Vec<u8> {
        got.iter()
            .map(|got| match got {
                Got::Publish { payload, .. } => payload[0],
                Got::Release(_) => unreachable!(),
            })
            .collect()
    };
    assert_eq!(payloads(sent(&mut sessions, 0)), [0]);
    assert!(sessions.queues_qos0(session));
    assert_eq!(
        sessions.offer(session, qos(0), &content(&[3]), &[], true),
        Offer::Waits
    );
    sessions.end_publication();
    sessions.puback(session, 1);
    assert_eq!(payloads(sent(&mut sessions, 0)), [1, 2, 3]);
    assert!(!sessions.queues_qos0(session));
    assert_eq!(
        sessions.offer(session, qos(0), &content(&[4]), &[], true),
        Offer::Dropped
    );
}
