//! One total order of publications, whichever cores publish and subscribe, and the exact place in it where
//! subscriptions begin and end.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringcast::app::{App, Call, CallAnswer, Peer};
use ringcast::config::Placement;
use ringcast::internals::app::builtin::Builtin;
use ringcast::internals::decision::Limit;
use support::{Client, Server, eventually, publication};

/// A server of four cores.
fn server(slots: u32, bytes_max: u64) -> Server {
    Server::start(|config| {
        config.cores.placement = Placement::Count(4);
        config.limits.ring_slots = slots;
        config.limits.ring_bytes_max = bytes_max;
        config.limits.outbox_bytes_max = 64 * 1024 * 1024;
    })
}

fn subscriber(server: &Server) -> Client {
    let mut client = server.client();
    client.subscribe("news");
    client
}

/// Lets each publisher publish `each` numbered publications at the same time, and every subscriber read all of them;
/// returns the publications of each subscriber.
fn traffic(
    publishers: Vec<Client>,
    subscribers: Vec<Client>,
    each: usize,
    padding: &str,
) -> Vec<Vec<String>> {
    let total = publishers.len() * each;
    thread::scope(|scope| {
        for (number, mut publisher) in publishers.into_iter().enumerate() {
            scope.spawn(move || {
                for index in 0..each {
                    publisher.publish("news", &format!(r#""{number} {index} {padding}""#));
                }
                // The server has received everything before this ping.
                publisher.ping();
            });
        }
        let readers: Vec<_> = subscribers
            .into_iter()
            .map(|mut subscriber| {
                scope.spawn(move || {
                    let seen: Vec<String> = (0..total).map(|_| subscriber.publication("news")).collect();
                    // No publication arrives twice.
                    subscriber.ping();
                    seen
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    })
}

/// All subscribers received the same publications: all of them, those of each publisher in the order in which it
/// published.
#[track_caller]
fn assert_one_order(seen: &[Vec<String>], publishers: usize, each: usize) {
    for other in &seen[1..] {
        assert!(*other == seen[0], "two subscribers saw different orders");
    }
    for number in 0..publishers {
        let own: Vec<usize> = seen[0]
            .iter()
            .filter_map(|data| data.strip_prefix(&format!("\"{number} ")))
            .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(own.iter().copied().eq(0..each), "publisher {number}: {own:?}");
    }
}

#[test]
fn all_subscribers_on_all_cores_see_one_order_and_everything_once() {
    let server = server(65_536, 64 * 1024 * 1024);
    let publishers: Vec<_> = (0..6).map(|_| server.client()).collect();
    let subscribers: Vec<_> = (0..10).map(|_| subscriber(&server)).collect();
    assert_eq!(server.each(|core| &core.connections), [4; 4]);
    assert_one_order(&traffic(publishers, subscribers, 300, ""), 6, 300);
    assert_eq!(server.total(|core| &core.publications), 1800);
    assert_eq!(server.total(|core| &core.deliveries), 18_000);
}

#[test]
fn a_ring_of_four_slots_loses_nothing_and_never_stands_still() {
    let server = server(4, 64 * 1024 * 1024);
    let publishers: Vec<_> = (0..8).map(|_| server.client()).collect();
    let subscribers: Vec<_> = (0..8).map(|_| subscriber(&server)).collect();
    assert_one_order(&traffic(publishers, subscribers, 200, ""), 8, 200);
    let stalls = server.total(|core| &core.ring_stalls);
    assert!(stalls > 0, "the ring was never full");
    assert_eq!(server.limit_hits(Limit::Ring), stalls);
    server.settles_at(0, 0);
}

#[test]
fn a_ring_of_few_bytes_loses_nothing_and_takes_one_publication_of_any_size() {
    // 16 KiB for each core. Most publications have 6 KiB, so two of them fit.
    let server = server(65_536, 65_536);
    let publishers: Vec<_> = (0..8).map(|_| server.client()).collect();
    let subscribers: Vec<_> = (0..4).map(|_| subscriber(&server)).collect();
    let padding = "x".repeat(6 * 1024);
    assert_one_order(&traffic(publishers, subscribers, 40, &padding), 8, 40);
    let large = format!(r#""{}""#, "x".repeat(100_000));
    let mut subscriber = subscriber(&server);
    server.client().publish("news", &large);
    assert_eq!(subscriber.publication("news"), large);
}

#[test]
fn a_subscription_gets_exactly_the_publications_between_its_two_answers() {
    let server = server(64, 64 * 1024 * 1024);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic: Vec<_> = (0..3)
            .map(|number| {
                let (mut publisher, stop) = (server.client(), &stop);
                scope.spawn(move || {
                    let mut index = 0;
                    while !stop.load(Ordering::Relaxed) {
                        publisher.publish("news", &format!(r#""{number} {index}""#));
                        index += 1;
                        publisher.ping();
                    }
                })
            })
            .collect();
        let guests: Vec<_> = (0..4)
            .map(|_| {
                let mut guest = server.client();
                scope.spawn(move || {
                    for _ in 0..30 {
                        visit(&mut guest);
                    }
                })
            })
            .collect();
        let results: Vec<_> = guests.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        for result in results
            .into_iter()
            .chain(traffic.into_iter().map(thread::ScopedJoinHandle::join))
        {
            result.unwrap();
        }
    });
}

/// Subscribes, reads ten publications, unsubscribes, and checks that nothing follows.
fn visit(guest: &mut Client) {
    // A publication before the answer would fail here.
    guest.subscribe("news");
    let mut next = [None; 3];
    let mut check = |data: &str| {
        let (number, index) = data.trim_matches('"').split_once(' ').unwrap();
        let (number, index): (usize, usize) = (number.parse().unwrap(), index.parse().unwrap());
        assert!(
            next[number].is_none_or(|next| next == index),
            "a gap before {data}"
        );
        next[number] = Some(index + 1);
    };
    for _ in 0..10 {
        check(&guest.publication("news"));
    }
    let answer = format!(r#"{{"rid":{}}}"#, guest.begin_call("#unsubscribe", r#""news""#));
    loop {
        let message = guest.message();
        if message == answer {
            break;
        }
        check(publication(&message, "news").unwrap());
    }
    for _ in 0..3 {
        guest.ping();
    }
}

#[test]
fn a_publishers_own_copy_comes_before_the_answer() {
    let server = server(64, 64 * 1024 * 1024);
    let mut client = subscriber(&server);
    for index in 0..100 {
        let cid = client.begin_call("#publish", &format!(r#"{{"channel":"news","data":{index}}}"#));
        assert_eq!(client.publication("news"), index.to_string());
        assert_eq!(client.message(), format!(r#"{{"rid":{cid}}}"#));
    }
}

/// The built-in application, with an event by which a client is kicked out of a channel.
struct KicksOut(Builtin);

impl App for KicksOut {
    fn transmit(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) {
        match call.event.as_str() {
            Some("kick me") => peer.kick_out(Some("news"), Some("as you wish")),
            Some("kick me out of all") => peer.kick_out(None, None),
            _ => self.0.transmit(call, peer),
        }
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> ringcast::app::CallAnswer {
        self.0.invoke(call, peer)
    }
}

#[test]
fn a_subscriber_that_is_kicked_out_or_gone_leaves_nothing_behind() {
    let server = Server::start_with(|_| {}, |_| KicksOut(Builtin::new()));
    let mut publisher = server.client();
    let (mut kicked, mut cleared, gone) = (subscriber(&server), subscriber(&server), subscriber(&server));
    cleared.subscribe("weather");
    server.settles_at(4, 4);
    kicked.send_text(r#"{"event":"kick me"}"#);
    assert_eq!(
        kicked.message(),
        r##"{"event":"#kickOut","data":{"channel":"news","message":"as you wish"}}"##
    );
    cleared.send_text(r#"{"event":"kick me out of all"}"#);
    for _ in 0..2 {
        assert!(
            cleared
                .message()
                .starts_with(r##"{"event":"#kickOut","data":{"channel":""##)
        );
    }
    drop(gone);
    server.settles_at(3, 0);
    let before = server.total(|core| &core.deliveries);
    publisher.publish("news", "1");
    publisher.publish("weather", "2");
    publisher.ping();
    kicked.ping();
    cleared.ping();
    assert_eq!(server.total(|core| &core.deliveries), before);
    // The client may subscribe again.
    kicked.subscribe("news");
    publisher.publish("news", "3");
    assert_eq!(kicked.publication("news"), "3");
}

/// An application that tells a client its core, and keeps the core busy until the test releases it.
struct Busy {
    core: usize,
    release: crossbeam_channel::Receiver<()>,
}

impl App for Busy {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match call.event.as_str() {
            Some("core") => peer.reply(&self.core),
            Some("busy") => {
                // Returns when the test drops the sender.
                let _ = self.release.recv();
                peer.reply_empty()
            }
            _ => CallAnswer::silent(),
        }
    }
}

#[test]
fn publications_that_wait_for_a_full_ring_arrive_although_their_publisher_is_closed() {
    const PUBLICATIONS: u64 = 50;
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let server = Server::start_with(
        |config| {
            config.limits.ring_slots = 4;
            // The publisher is closed at once, the subscriber after half of this time.
            config.restart.drain = Duration::from_secs(20);
        },
        |core| Busy {
            core: core.index(),
            release: released.clone(),
        },
    );
    let mut publisher = server.client();
    let home = publisher.call("core", "null");
    let mut others: Vec<_> = (0..8).map(|_| server.client()).collect();
    let is_home = |client: &mut Client| client.call("core", "null") == home;
    let near = others.iter_mut().position(is_home).unwrap();
    let mut subscriber = others.remove(near);
    let far = others.iter_mut().position(|client| !is_home(client)).unwrap();
    let mut busy = others.remove(far);
    drop(others);
    eventually("three are left", || server.connections() == 3);
    subscriber.subscribe("news");

    // A core that does not turn does not move its cursor, so the ring fills.
    busy.begin_call("busy", "null");
    let publish = |number| format!(r##"{{"event":"#publish","data":{{"channel":"news","data":{number}}}}}"##);
    let all: Vec<_> = (0..PUBLICATIONS).map(publish).collect();
    publisher.send_text(&format!("[{}]", all.join(",")));
    eventually("the ring is full", || server.total(|core| &core.ring_stalls) == 1);
    server.running().drain();
    assert_eq!(publisher.close_frame().0, Some(1001));
    drop(release);
    for number in 0..PUBLICATIONS {
        assert_eq!(subscriber.publication("news"), number.to_string());
    }
}
