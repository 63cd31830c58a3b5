//! Clients that do not read: how the server treats them, and that other clients notice nothing.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::Write;
use std::time::Duration;

use ringcast::app::{App, Call, CallAnswer, Deferred, Peer};
use ringcast::config::SlowConsumer;
use ringcast::config::limits::MemoryMax;
use ringcast::config::{Config, Placement};
use ringcast::internals::decision::{CloseReason, Limit};
use ringcast::internals::metrics::block::HeldKind;
use support::{Client, PATIENCE, Received, Server, TEXT, eventually, frame, now, publication};

const OUTBOX_BYTES_MAX: u32 = 64 * 1024;

/// The data of publication `index`: its number, and 4 KiB so that sockets fill up soon.
fn data(index: usize) -> String {
    format!(r#"["{index}","{}"]"#, "x".repeat(4096))
}

fn index_of(data: &str) -> usize {
    data.split('"').nth(1).unwrap().parse().unwrap()
}

/// A subscriber of `news` whose sockets hold few bytes.
fn narrow_subscriber(server: &Server) -> Client {
    let mut client = Client::connect_narrow(server.address);
    client.upgrade();
    client.handshake();
    client.subscribe("news");
    client
}

#[test]
fn a_subscriber_that_never_reads_is_closed_and_delays_no_other() {
    let server = Server::start(|config| {
        config.limits.outbox_bytes_max = OUTBOX_BYTES_MAX;
        config.limits.close_timeout = PATIENCE;
    });
    let mut slow = narrow_subscriber(&server);
    let mut fast: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut fast {
        client.subscribe("news");
    }
    let mut publisher = server.client();
    let mut published = 0;
    let deadline = now() + PATIENCE;
    // The other subscribers receive each publication at once, before, during and after the close of the slow one.
    let mut after = 0;
    while after < 50 {
        publisher.publish("news", &data(published));
        for client in &mut fast {
            assert_eq!(client.publication("news"), data(published));
        }
        published += 1;
        // One reading of the gauge, over both cores: the share of the slow subscriber and one publication for each
        // other subscriber.
        let queued = server.total(|core| &core.outbox_bytes);
        assert!(
            queued <= u64::from(OUTBOX_BYTES_MAX) + fast.len() as u64 * 5000,
            "{queued}"
        );
        after += usize::from(server.closes(CloseReason::SlowConsumer) == 1);
        assert!(now() < deadline, "the slow subscriber is never closed");
    }
    assert_eq!(server.limit_hits(Limit::OutboxBytes), 1);
    assert_eq!(server.total(|core| &core.subscriptions), 3);
    // When the slow subscriber reads, it finds the first publications without a gap, then the close frame.
    let mut read = 0;
    loop {
        match slow.event() {
            Received::Text(message) => {
                assert_eq!(publication(&message, "news"), Some(&*data(read)));
                read += 1;
            }
            end => {
                assert_eq!(end, Received::Close(Some(4010), String::new()));
                break;
            }
        }
    }
    assert!(read < published);
    slow.send_bytes(&support::close_frame(4010, ""));
    assert_eq!(slow.next(), Received::End);
    drop(slow);
    server.settles_at(4, 3);
}

#[test]
fn with_the_policy_skip_publications_are_left_out_and_counted_but_answers_are_not() {
    let server = Server::start(|config| {
        config.limits.outbox_bytes_max = OUTBOX_BYTES_MAX;
        config.delivery.slow_consumer = SlowConsumer::Skip;
    });
    let mut slow = narrow_subscriber(&server);
    let mut publisher = server.client();
    publisher.subscribe("news");
    let skipped = || server.total(|core| &core.publications_skipped);
    let mut published = 0;
    let deadline = now() + PATIENCE;
    while skipped() < 20 {
        publisher.publish("news", &data(published));
        assert_eq!(publisher.publication("news"), data(published));
        published += 1;
        assert!(now() < deadline, "nothing is skipped");
    }
    // The core of the slow subscriber may be late: wait until each publication is delivered or skipped for both.
    eventually("all is delivered or skipped", || {
        server.total(|core| &core.deliveries) + skipped() == 2 * published as u64
    });
    // Its outbox is full; nevertheless its calls are answered.
    for cid in 101..=103 {
        slow.send_text(&format!(r#"{{"event":"ping","cid":{cid}}}"#));
    }
    let skipped = skipped();
    let (mut got, mut answers) = (Vec::new(), Vec::new());
    while got.len() as u64 + skipped < published as u64 || answers.len() < 3 {
        let message = slow.message();
        match publication(&message, "news") {
            Some(data) => got.push(index_of(data)),
            None => answers.push(message),
        }
    }
    let numbered: Vec<_> = (1..=3)
        .map(|n| format!(r#"{{"rid":{},"data":{{"count":{n}}}}}"#, 100 + n))
        .collect();
    assert_eq!(answers, numbered);
    assert!(got.is_sorted(), "what is left keeps its order");
    assert_eq!(got.len() as u64 + skipped, published as u64);
    // It has caught up, and receives every further publication.
    for index in published..published + 10 {
        publisher.publish("news", &data(index));
        assert_eq!(slow.publication("news"), data(index));
    }
    assert_eq!(server.closes(CloseReason::SlowConsumer), 0);
}

const CHANNELS: [&str; 3] = ["news", "sport", "weather"];

/// The channel and the number of a publication.
fn channel_and_index(message: &str) -> (&'static str, usize) {
    let found = CHANNELS
        .iter()
        .find_map(|&channel| Some((channel, index_of(publication(message, channel)?))));
    found.unwrap_or_else(|| panic!("instead of a publication came {message}"))
}

/// Publishes on the channels in turn until the condition holds; another subscriber reads each publication as it
/// arrives. Returns the number of publications.
fn publish_until(server: &Server, mut is_enough: impl FnMut() -> bool) -> usize {
    let (mut publisher, mut fast) = (server.client(), server.client());
    for channel in CHANNELS {
        fast.subscribe(channel);
    }
    let deadline = now() + PATIENCE;
    let mut published = 0;
    while !is_enough() {
        let channel = CHANNELS[published % CHANNELS.len()];
        publisher.publish(channel, &data(published));
        assert_eq!(fast.publication(channel), data(published), "nobody else waits");
        published += 1;
        assert!(
            now() < deadline,
            "nothing comes of it after {published} publications"
        );
    }
    published
}

/// A server that conflates, and a subscriber of all channels that does not read.
fn conflating() -> (Server, Client) {
    let server = Server::start(|config| {
        config.limits.outbox_bytes_max = OUTBOX_BYTES_MAX;
        config.delivery.slow_consumer = SlowConsumer::Conflate;
        config.limits.close_timeout = PATIENCE;
    });
    let mut slow = narrow_subscriber(&server);
    for channel in &CHANNELS[1..] {
        slow.subscribe(channel);
    }
    (server, slow)
}

#[test]
fn with_the_policy_conflate_a_reader_that_goes_on_gets_the_newest_of_each_channel_and_nothing_backward() {
    let (server, mut slow) = conflating();
    let conflated = || server.total(|core| &core.publications_conflated);
    let published = publish_until(&server, || conflated() >= 20);
    eventually("all is delivered, or waits, or has been replaced", || {
        server.total(|core| &core.deliveries) + conflated() + CHANNELS.len() as u64 == 2 * published as u64
    });
    assert!(server.limit_hits(Limit::OutboxBytes) >= 20);
    // The answers to its calls come after the content of the outbox, and none is left out.
    for cid in 101..=103 {
        slow.send_text(&format!(r#"{{"event":"ping","cid":{cid}}}"#));
    }
    let mut newest = [None; CHANNELS.len()];
    let (mut order, mut answers) = (Vec::new(), 0);
    while order.len() as u64 + conflated() < published as u64 || answers < 3 {
        let message = slow.message();
        if message.starts_with(r#"{"rid":1"#) {
            answers += 1;
            continue;
        }
        let (channel, index) = channel_and_index(&message);
        let place = CHANNELS.iter().position(|&other| other == channel).unwrap();
        assert!(newest[place] < Some(index), "{channel} goes backward at {index}");
        newest[place] = Some(index);
        order.push(index);
    }
    let last: Vec<_> = (published - CHANNELS.len()..published).collect();
    assert!(order.ends_with(&last), "in the order of their last update");
    assert!(
        order.is_sorted(),
        "and none of the channels before another's older one"
    );
    // It has caught up, and receives every further publication.
    let mut publisher = server.client();
    for index in published..published + 10 {
        publisher.publish("news", &data(index));
        assert_eq!(slow.publication("news"), data(index));
    }
    assert_eq!(order.len() as u64 + conflated(), published as u64);
    assert_eq!(server.closes(CloseReason::SlowConsumer), 0);
    drop((slow, publisher));
    server.settles_at(0, 0);
}

#[test]
fn conflated_publications_are_dropped_when_the_subscription_ends() {
    let (server, mut slow) = conflating();
    let conflated = || server.total(|core| &core.publications_conflated);
    publish_until(&server, || conflated() >= 20);
    let ended = slow.begin_call("#unsubscribe", "\"sport\"");
    let subscribed = || server.total(|core| &core.subscriptions);
    eventually("it is carried out", || subscribed() == 2);
    // The number of the channel may belong to another channel now.
    let again = slow.begin_call("#subscribe", r#"{"channel":"sport"}"#);
    eventually("it is carried out", || subscribed() == 3);
    let mut after = Vec::new();
    let (ended, again) = (format!(r#"{{"rid":{ended}}}"#), format!(r#"{{"rid":{again}}}"#));
    while after.len() < 4 {
        let message = slow.message();
        if [&ended, &again].contains(&&message) {
            after.push("");
        } else if !after.is_empty() {
            after.push(channel_and_index(&message).0);
        }
    }
    after.sort_unstable();
    assert_eq!(after, ["", "", "news", "weather"]);
    server.client().publish("sport", &data(0));
    assert_eq!(slow.publication("sport"), data(0));
}

#[test]
fn conflated_publications_of_a_subscriber_are_bounded() {
    let (server, mut slow) = conflating();
    for number in 0..40 {
        slow.subscribe(&format!("ticker{number}"));
    }
    let closed = || server.closes(CloseReason::SlowConsumer) == 1;
    let mut publisher = server.client();
    let deadline = now() + PATIENCE;
    let mut published = 0;
    while !closed() {
        publisher.publish(&format!("ticker{}", published % 40), &data(published));
        published += 1;
        publisher.ping();
        // As much in the outbox, and as much in the conflated publications that wait behind it.
        let queued = server.total(|core| &core.outbox_bytes);
        assert!(queued <= u64::from(2 * OUTBOX_BYTES_MAX), "{queued}");
        assert!(now() < deadline, "it is never closed");
    }
    assert_eq!(slow.close_frame().0, Some(4010));
}

#[test]
fn a_drain_sends_conflated_publications_before_its_close_frame() {
    let (server, mut slow) = conflating();
    let conflated = || server.total(|core| &core.publications_conflated);
    let published = publish_until(&server, || conflated() >= 20);
    server.running().drain();
    eventually("it is closed", || server.closes(CloseReason::Draining) >= 1);
    let mut got = Vec::new();
    loop {
        match slow.event() {
            Received::Text(message) => got.push(channel_and_index(&message).1),
            end => {
                assert_eq!(end, Received::Close(Some(1001), String::new()));
                break;
            }
        }
    }
    let last: Vec<_> = (published - CHANNELS.len()..published).collect();
    assert!(got.ends_with(&last) && got.is_sorted());
    slow.send_bytes(&support::close_frame(1001, ""));
}

#[test]
fn a_client_that_calls_and_never_reads_is_first_not_read_and_then_closed() {
    let server = Server::start(|config| {
        config.limits.outbox_bytes_max = OUTBOX_BYTES_MAX;
        config.limits.close_timeout = Duration::from_millis(50);
        config.socketcluster.ping_interval = Duration::from_millis(200);
        config.socketcluster.ping_timeout = Duration::from_secs(6);
    });
    let mut healthy = server.client();
    let mut flood = Client::connect_narrow(server.address);
    flood.upgrade();
    flood.handshake();
    flood.stream.set_nonblocking(true).unwrap();
    let calls = frame(TEXT, br#"{"event":"ping","cid":2}"#).repeat(1000);
    // The client sends as fast as it can until the server closes the connection.
    let mut rest: &[u8] = &[];
    let deadline = now() + PATIENCE;
    while server.closes(CloseReason::PongTimeout) == 0 {
        for _ in 0..100 {
            if rest.is_empty() {
                rest = &calls;
            }
            match flood.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // The server has closed the connection, and the socket is gone.
                Err(_) if server.closes(CloseReason::PongTimeout) > 0 => break,
                Err(error) => panic!("{error}"),
            }
        }
        healthy.ping();
        // The limit, and the answers to one read buffer full of calls.
        let queued = server.total(|core| &core.outbox_bytes);
        assert!(queued <= u64::from(OUTBOX_BYTES_MAX + 128 * 1024), "{queued}");
        assert!(now() < deadline, "it is never given up");
    }
    assert!(server.limit_hits(Limit::OutboxReplies) >= 1);
    // The core counts its end before the limit.
    eventually("the limit is counted", || server.limit_hits(Limit::PongTime) == 1);
    server.settles_at(1, 0);
    healthy.ping();
}

#[test]
fn a_burst_over_the_limit_does_not_close_a_subscriber_that_reads() {
    let server = Server::start(|config| config.limits.outbox_bytes_max = 16 * 1024);
    let mut subscriber = server.client();
    subscriber.subscribe("news");
    let mut publisher = server.client();
    // One message, and so one turn of the publisher's core: 100 publications of 4 KiB.
    let publishes: Vec<String> = (0..100)
        .map(|index| {
            format!(
                r##"{{"event":"#publish","data":{{"channel":"news","data":{}}}}}"##,
                data(index)
            )
        })
        .collect();
    publisher.send_text(&format!("[{}]", publishes.join(",")));
    for index in 0..100 {
        assert_eq!(subscriber.publication("news"), data(index));
    }
    assert_eq!(server.limit_hits(Limit::OutboxBytes), 0);
}

#[test]
fn nothing_follows_the_close_frame_of_a_publisher_that_was_too_slow_for_itself() {
    let server = Server::start(|config| {
        config.limits.outbox_bytes_max = OUTBOX_BYTES_MAX;
        config.limits.close_timeout = PATIENCE;
    });
    let mut client = narrow_subscriber(&server);
    let deadline = now() + PATIENCE;
    let mut sent = 0;
    while server.closes(CloseReason::SlowConsumer) == 0 {
        client.begin_call(
            "#publish",
            &format!(r#"{{"channel":"news","data":{}}}"#, data(sent)),
        );
        sent += 1;
        let taken_in = || server.total(|core| &core.messages_received) >= sent as u64 + 2;
        eventually("it is read", || {
            taken_in() || server.closes(CloseReason::SlowConsumer) == 1
        });
        assert!(now() < deadline, "it is never closed");
    }
    assert_eq!(client.close_frame().0, Some(4010));
    client.send_bytes(&support::close_frame(4010, ""));
    assert_eq!(client.next(), Received::End, "the close frame is the last");
}

/// An application that answers all `later` calls, 10 KiB each, at `now`: the core handles the answers in one turn.
#[derive(Default)]
struct AnswersLate(Vec<Deferred>);

impl App for AnswersLate {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match call.event.as_str() {
            Some("later") => {
                let (answer, deferred) = peer.defer();
                self.0.push(deferred);
                answer
            }
            Some("now") => {
                for deferred in self.0.drain(..) {
                    deferred.reply(&"x".repeat(10 * 1024)).unwrap();
                }
                peer.reply_empty()
            }
            _ => CallAnswer::silent(),
        }
    }
}

/// Lets the application give `count` late answers at once.
fn ask_for_late_answers(client: &mut Client, count: usize) {
    for _ in 0..count {
        client.begin_call("later", "null");
    }
    client.begin_call("now", "null");
}

fn server_that_answers_late() -> Server {
    Server::start_with(
        |config| config.limits.outbox_bytes_max = OUTBOX_BYTES_MAX,
        |_| AnswersLate::default(),
    )
}

#[test]
fn a_burst_of_late_answers_over_the_limit_does_not_close_a_client_that_reads() {
    let server = server_that_answers_late();
    let mut client = server.client();
    // Six times the limit, and less than the kernel buffers for a client: `UNSENT_BYTES_MAX` in transport/listener.rs.
    ask_for_late_answers(&mut client, 40);
    let late = (0..41).filter(|_| client.message().contains("xxx")).count();
    assert_eq!(late, 40, "and one prompt answer");
    assert_eq!(server.closes(CloseReason::SlowConsumer), 0);
}

#[test]
fn late_answers_end_a_client_that_does_not_read() {
    let server = server_that_answers_late();
    let mut client = Client::connect_narrow(server.address);
    client.upgrade();
    client.handshake();
    ask_for_late_answers(&mut client, 1000);
    eventually("it is closed", || server.closes(CloseReason::SlowConsumer) == 1);
    assert_eq!(server.limit_hits(Limit::OutboxBytes), 1);
}

/// Bytes that the connections of a server hold, of all kinds.
fn held(server: &Server) -> u64 {
    let kinds = 0..HeldKind::COUNT;
    kinds
        .map(|kind| server.total(|core| &core.held_bytes[kind]))
        .sum()
}

const TOTAL_MAX: u64 = 2 << 20;
/// Bytes that may be on their way to reading clients, or in a read, when the gauge is set.
const TOTAL_SLACK: u64 = 1 << 20;

fn bounded(change: impl FnOnce(&mut Config)) -> Server {
    Server::start(|config| {
        config.cores.placement = Placement::Count(1);
        config.limits.outbox_bytes_total_max = MemoryMax::Bytes(TOTAL_MAX);
        config.limits.close_timeout = PATIENCE;
        change(config);
    })
}

/// Short publications, of which each subscriber that does not read holds copies, to so many subscribers that together
/// they may hold only a fraction of the sum of their own limits.
#[test]
fn the_bytes_of_all_connections_are_bounded_and_the_largest_holders_are_closed_first() {
    let server = bounded(|_| {});
    let mut little = Client::connect_narrow(server.address);
    little.upgrade();
    little.handshake();
    little.subscribe("rare");
    let slow: Vec<Client> = (0..20).map(|_| narrow_subscriber(&server)).collect();
    let mut fast = server.client();
    fast.subscribe("news");
    let mut publisher = server.client();
    let short = format!("\"{}\"", "x".repeat(2000));
    let closed = || server.closes(CloseReason::HoldsMost);
    let deadline = now() + PATIENCE;
    let mut published = 0;
    while closed() < 5 {
        publisher.publish("news", &short);
        assert_eq!(fast.publication("news"), short, "one that reads gets all of them");
        if published < 100 {
            publisher.publish("rare", &short);
        }
        published += 1;
        let held = held(&server);
        assert!(held <= TOTAL_MAX + TOTAL_SLACK, "{held} bytes are held");
        assert!(now() < deadline, "none is closed after {published} publications");
    }
    assert_eq!(server.limit_hits(Limit::OutboxBytesTotal), closed());
    assert_eq!(server.closes(CloseReason::SlowConsumer), 0);
    // A subscriber that holds little is not closed: it has received everything that was published.
    for _ in 0..100 {
        assert_eq!(little.publication("rare"), short);
    }
    drop(slow);
    publisher.ping();
}

/// Incomplete messages count as well.
#[test]
fn messages_that_never_end_are_bounded_together() {
    let server = bounded(|_| {});
    let mut healthy = server.client();
    let message = frame(TEXT, &[b' '; 1_000_000]);
    let mut clients: Vec<Client> = (0..10).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send_bytes(&message[..900_000]);
        healthy.ping();
        let held = held(&server);
        assert!(held <= TOTAL_MAX + TOTAL_SLACK, "{held} bytes are held");
    }
    eventually("those that are too many are closed", || {
        server.closes(CloseReason::HoldsMost) >= 8
    });
    assert!(server.total(|core| &core.held_bytes[HeldKind::Assemblies.index()]) <= TOTAL_MAX);
    drop(clients);
    server.settles_at(1, 0);
    eventually("nothing is held", || held(&server) == 0);
}

#[test]
fn with_the_policy_skip_publications_are_left_out_before_a_client_is_closed_for_the_total() {
    let server = bounded(|config| config.delivery.slow_consumer = SlowConsumer::Skip);
    let slow: Vec<Client> = (0..20).map(|_| narrow_subscriber(&server)).collect();
    let mut publisher = server.client();
    let short = format!("\"{}\"", "x".repeat(2000));
    let deadline = now() + PATIENCE;
    while server.total(|core| &core.publications_skipped) < 1000 {
        publisher.publish("news", &short);
        publisher.ping();
        let held = held(&server);
        assert!(held <= TOTAL_MAX + TOTAL_SLACK, "{held} bytes are held");
        assert!(now() < deadline, "nothing is skipped");
    }
    assert_eq!(server.closes(CloseReason::HoldsMost), 0);
    assert!(server.limit_hits(Limit::OutboxBytesTotal) >= 1000);
    drop(slow);
}

/// Once, 50 such subscribers held 50 copies of each publication.
#[test]
fn a_long_publication_is_held_once_for_all_who_do_not_read() {
    let server = Server::start(|config| config.cores.placement = Placement::Count(1));
    let slow: Vec<Client> = (0..50).map(|_| narrow_subscriber(&server)).collect();
    let mut publisher = server.client();
    let long = format!("\"{}\"", "x".repeat(16_000));
    let waiting = || server.total(|core| &core.outbox_bytes);
    let deadline = now() + PATIENCE;
    while waiting() < 100_000_000 {
        publisher.publish("news", &long);
        publisher.ping();
        assert!(now() < deadline, "they read");
    }
    let held = held(&server);
    assert!(held < waiting() / 10, "{held} bytes for {}", waiting());
    drop(slow);
    eventually("all is let go", || self::held(&server) == 0);
}

#[test]
fn a_client_that_answers_pings_and_reads_nothing_is_closed_after_the_write_timeout() {
    let server = Server::start(|config| {
        config.limits.write_timeout = Duration::from_secs(1);
        config.limits.close_timeout = PATIENCE;
        config.socketcluster.ping_interval = Duration::from_millis(200);
        config.socketcluster.ping_timeout = Duration::from_secs(10);
    });
    let mut deaf = narrow_subscriber(&server);
    let mut publisher = server.client();
    publisher.subscribe("news");
    let mut published = 0;
    while server.total(|core| &core.outbox_bytes) == 0 {
        publisher.publish("news", &data(published));
        assert_eq!(publisher.publication("news"), data(published));
        published += 1;
    }
    eventually("it is closed", || {
        // This is a pong, whether the client was pinged or not.
        deaf.send_text("");
        publisher.send_text("");
        server.closes(CloseReason::WriteTimeout) == 1
    });
    assert_eq!(server.limit_hits(Limit::WriteTime), 1);
    assert_eq!(server.closes(CloseReason::PongTimeout), 0);
    loop {
        match deaf.event() {
            Received::Text(_) => {}
            end => {
                assert_eq!(end, Received::Close(Some(4033), String::new()));
                break;
            }
        }
    }
    publisher.ping();
}
