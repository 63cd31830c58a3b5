//! Subscribers that get a part of the channel's past: the answers are right, and no publication is lost or comes twice
//! between the history and live publications.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test, which prints its seed

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringcast::config::channels::{ChannelPolicy, ChannelSpec, HistoryPolicy};
use ringcast::config::rules::{Action, Effect, RuleSpec};
use ringcast::config::{Config, Placement, SlowConsumer};
use ringcast::internals::decision::{CloseReason, Limit};
use serde_json::{Value, json};
use support::folder::Folder;
use support::process::{Held, Process};
use support::{Client, Received, Server, eventually};

/// A policy: so many publications of history, and the last value if asked for.
fn remembers(names: &[&str], entries: u32, last_value: bool) -> ChannelSpec {
    ChannelSpec {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        policy: ChannelPolicy {
            history: (entries > 0).then_some(HistoryPolicy {
                entries_max: entries,
                bytes_max: 16 * 1024 * 1024,
                age_ms_max: 600_000,
            }),
            last_value,
            position: true,
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    }
}

/// Three cores: most channels are owned by another core than that of their subscriber.
fn server(change: impl FnOnce(&mut Config)) -> Server {
    Server::start(|config| {
        config.cores.placement = Placement::Count(3);
        config.channels = vec![
            remembers(&["short.**"], 4, false),
            remembers(&["price.**"], 0, true),
            remembers(&["both.**"], 1000, true),
            remembers(&["room.**"], 100_000, false),
        ];
        change(config);
    })
}

/// Subscribes with this data, and returns the answer.
#[track_caller]
fn subscribe_with(client: &mut Client, channel: &str, data: &Value) -> Value {
    let cid = client.begin_call(
        "#subscribe",
        &json!({"channel": channel, "data": data}).to_string(),
    );
    let answer: Value = serde_json::from_str(&client.message()).unwrap();
    assert_eq!(answer["rid"], cid, "{answer}");
    answer
}

/// The next message, which is a publication.
#[track_caller]
fn next_publication(client: &mut Client, channel: &str) -> Value {
    let message: Value = serde_json::from_str(&client.message()).unwrap();
    assert_eq!(message["event"], "#publish", "{message}");
    assert_eq!(message["data"]["channel"], channel, "{message}");
    message["data"].clone()
}

/// Publishes numbers, and waits until the server has published all of them.
fn publish(client: &mut Client, channel: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        client.publish(channel, &number.to_string());
    }
    client.ping();
}

/// Reads replayed publications with these numbers; returns the position of the last.
#[track_caller]
fn assert_replayed(client: &mut Client, channel: &str, numbers: std::ops::Range<u64>) -> Value {
    let mut position = Value::Null;
    for number in numbers {
        let publication = next_publication(client, channel);
        assert_eq!(publication["data"], number, "{publication}");
        assert_eq!(publication["replayed"], true, "{publication}");
        position = publication["position"].clone();
    }
    position
}

#[track_caller]
fn assert_live(client: &mut Client, channel: &str, number: u64) -> Value {
    let publication = next_publication(client, channel);
    assert_eq!(publication["data"], number, "{publication}");
    assert_eq!(publication.get("replayed"), None, "{publication}");
    publication["position"].clone()
}

/// Channels of every owner: a name that ends in each of some numbers.
fn names(start: &str) -> impl Iterator<Item = String> {
    let start = start.to_owned();
    (0..8).map(move |number| format!("{start}.{number}"))
}

#[test]
fn what_was_missed_comes_after_the_answer_and_before_anything_live() {
    let server = server(|_| {});
    let mut publisher = server.client();
    for channel in names("room") {
        let mut reader = server.client();
        let first = subscribe_with(&mut reader, &channel, &json!({"recover": null}));
        assert_eq!(first["data"]["recovered"], true, "{first}");
        assert_eq!(first["data"]["publications"], 0);
        publish(&mut publisher, &channel, 0..3);
        assert_live(&mut reader, &channel, 0);
        let position = assert_live(&mut reader, &channel, 1);
        drop(reader);
        publish(&mut publisher, &channel, 3..8);
        let mut reader = server.client();
        let answer = subscribe_with(&mut reader, &channel, &json!({"recover": position}));
        assert_eq!(answer["data"]["recovered"], true, "{answer}");
        assert_eq!(answer["data"]["publications"], 6);
        let last = assert_replayed(&mut reader, &channel, 2..8);
        publish(&mut publisher, &channel, 8..9);
        let live = assert_live(&mut reader, &channel, 8);
        assert_eq!(last["epoch"], live["epoch"]);
        assert!(last["offset"].as_u64() < live["offset"].as_u64());
        // From the position of the answer nothing is missing.
        let again = subscribe_with(&mut server.client(), &channel, &json!({"recover": live}));
        assert_eq!(again["data"]["publications"], 0, "{again}");
        reader.ping();
    }
}

#[test]
fn the_newest_and_all_since_a_moment_come_as_far_as_they_are_there() {
    let server = server(|_| {});
    let mut publisher = server.client();
    for channel in names("short") {
        publish(&mut publisher, &channel, 0..6);
        for (wanted, numbers, reason) in [
            (json!({"last": 2}), 4..6, None),
            (json!({"last": 100}), 2..6, None),
            (json!({"last": 0}), 6..6, None),
            (json!({"since": 1}), 2..6, Some("evicted")),
            (json!({"since": 4_000_000_000_000_u64}), 6..6, None),
        ] {
            let mut reader = server.client();
            let answer = subscribe_with(&mut reader, &channel, &wanted);
            assert_eq!(
                answer["data"]["publications"],
                numbers.end - numbers.start,
                "{wanted}: {answer}"
            );
            assert_eq!(answer["data"]["recovered"], reason.is_none(), "{answer}");
            assert_eq!(answer["data"]["reason"].as_str(), reason, "{answer}");
            let mut call = json!({"channel": channel});
            call.as_object_mut()
                .unwrap()
                .extend(wanted.as_object().unwrap().clone());
            let read = server.client().call("$history", &call.to_string());
            let read: Value = serde_json::from_str(&read).unwrap();
            assert_eq!(read["data"]["reason"].as_str(), reason, "{read}");
            assert_replayed(&mut reader, &channel, numbers);
            reader.ping();
        }
    }
}

#[test]
fn a_client_is_told_why_it_cannot_recover_and_is_live_all_the_same() {
    let server = server(|config| {
        config.limits.recovery_publications_max = 3;
        let rule = |actions: &[Action], channel: &str, effect| RuleSpec {
            effect,
            actions: actions.to_vec(),
            channels: Some(vec![channel.to_owned()]),
            ..RuleSpec::default()
        };
        config.permissions.rules = vec![
            rule(&[Action::History], "room.secret", Effect::Deny),
            rule(
                &[Action::Subscribe, Action::Publish, Action::History],
                "**",
                Effect::Allow,
            ),
        ];
    });
    let mut publisher = server.client();
    for channel in ["short.a", "room.a", "room.secret"] {
        publisher.publish(channel, "0");
        let first = subscribe_with(&mut server.client(), channel, &json!({"recover": null}));
        if channel == "room.secret" {
            assert_eq!(first["data"]["reason"], "not allowed", "{first}");
        } else {
            assert_eq!(first["data"]["recovered"], true, "{first}");
        }
        let position = &first["data"]["position"];
        let epoch = position["epoch"].as_str().unwrap();
        for number in 1..7 {
            publisher.publish(channel, &number.to_string());
        }
        let offset = position["offset"].as_u64().unwrap();
        // The server has published all of it: the answers come behind.
        publisher.call("#subscribe", r#"{"channel":"other"}"#);
        for (recover, reason) in [
            (
                json!({"epoch": epoch, "offset": offset}),
                match channel {
                    "short.a" => "evicted",
                    "room.a" => "too many",
                    _ => "not allowed",
                },
            ),
            (json!({"epoch": "00000000", "offset": offset}), "other epoch"),
            (json!({"epoch": "no epoch", "offset": offset}), "other epoch"),
            (
                json!({"epoch": epoch, "offset": offset + 1_000_000}),
                "unknown position",
            ),
        ] {
            let mut reader = server.client();
            let answer = subscribe_with(&mut reader, channel, &json!({"recover": recover}));
            let reason = if channel == "room.secret" {
                "not allowed"
            } else {
                reason
            };
            assert_eq!(answer["data"]["recovered"], false, "{answer}");
            assert_eq!(answer["data"]["reason"], reason, "{channel} {recover}");
            assert_eq!(answer["data"]["publications"], 0);
            publisher.publish(channel, "7");
            let live = assert_live(&mut reader, channel, 7);
            assert!(live["offset"].as_u64() > answer["data"]["position"]["offset"].as_u64());
        }
    }
    assert!(server.limit_hits(Limit::RecoveryPublications) > 0);
}

#[test]
fn the_last_value_comes_first_for_every_subscriber_and_its_answer_is_as_ever() {
    let server = server(|_| {});
    let mut publisher = server.client();
    for start in ["price", "both"] {
        for channel in names(start) {
            // Nothing is published: nothing comes.
            let mut early = server.client();
            early.subscribe(&channel);
            publish(&mut publisher, &channel, 0..3);
            for number in 0..3 {
                assert_live(&mut early, &channel, number);
            }
            let mut reader = server.client();
            reader.subscribe(&channel);
            assert_replayed(&mut reader, &channel, 2..3);
            publish(&mut publisher, &channel, 3..4);
            assert_live(&mut reader, &channel, 3);
            reader.ping();
        }
    }
    let mut reader = server.client();
    let answer = subscribe_with(&mut reader, "both.0", &json!({"recover": null}));
    assert_eq!(answer["data"]["publications"], 1, "{answer}");
    assert_replayed(&mut reader, "both.0", 3..4);
}

#[test]
fn a_wrong_question_is_refused_and_channels_without_history_do_not_look_at_it() {
    let server = server(|_| {});
    let mut client = server.client();
    for wrong in [
        json!({"last": -1}),
        json!({"recover": 5}),
        json!({"last": 1, "since": 1}),
    ] {
        let answer = subscribe_with(&mut client, "room.a", &wrong);
        assert_eq!(answer["error"]["name"], "InvalidActionError", "{answer}");
        for channel in ["price.a", "other"] {
            let answer = subscribe_with(&mut client, channel, &wrong);
            assert_eq!(answer.get("error"), None, "{answer}");
            assert_eq!(answer.get("data"), None, "{answer}");
        }
    }
}

#[test]
fn packets_of_one_message_are_answered_and_other_channels_go_on() {
    let server = server(|_| {});
    let mut publisher = server.client();
    for round in 0..20 {
        let channel = format!("room.{round}");
        publish(&mut publisher, &channel, 0..4);
        let mut client = server.client();
        client.send_text(&format!(
            r##"[{{"event":"#subscribe","data":{{"channel":"{channel}","data":{{"last":3}}}},"cid":10}},
                {{"event":"#subscribe","data":{{"channel":"{channel}","data":{{"last":2}}}},"cid":11}},
                {{"event":"#subscribe","data":{{"channel":"{channel}"}},"cid":12}},
                {{"event":"#subscribe","data":{{"channel":"plain"}},"cid":13}},
                {{"event":"#publish","data":{{"channel":"plain","data":1}}}},
                {{"event":"#unsubscribe","data":"{channel}","cid":14}}]"##
        ));
        let mut answers = Vec::new();
        let mut is_plain_served = false;
        while answers.len() < 5 {
            let message: Value = serde_json::from_str(&client.message()).unwrap();
            match message["rid"].as_u64() {
                Some(rid) => answers.push((rid, message)),
                None if message["data"]["channel"] == "plain" => is_plain_served = true,
                None => {
                    let after: Vec<u64> = answers.iter().map(|(rid, _)| *rid).collect();
                    assert!(
                        after.contains(&10) && !after.contains(&14),
                        "{after:?} before {message}"
                    );
                }
            }
        }
        assert!(is_plain_served);
        let of = |rid| answers.iter().find(|(other, _)| *other == rid).unwrap().1.clone();
        let first = of(10);
        let is_read = first["data"]["recovered"] == true;
        assert!(is_read || first["data"]["reason"] == "unsubscribed", "{first}");
        assert_eq!(of(12), json!({"rid": 12}));
        assert_eq!(of(14), json!({"rid": 14}));
        publish(&mut publisher, &channel, 4..5);
        client.ping();
    }
}

/// A random number generator that a printed seed repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A client that keeps its position in one channel of rising numbers, and finds every gap and every repetition.
struct Follower<'s> {
    server: &'s Server,
    client: Client,
    channel: String,
    position: Value,
    /// The number that must come next, if it is known.
    next: Option<u64>,
    replays_left: u64,
    /// For each question without an answer: the position and number after which publications must follow, if it has
    /// one.
    asked: HashMap<u64, (Value, Option<u64>)>,
    /// How often it was told that it may have missed something.
    gaps: u64,
    recovered: u64,
}

impl<'s> Follower<'s> {
    fn new(server: &'s Server, channel: &str) -> Follower<'s> {
        Follower {
            server,
            client: server.client(),
            channel: channel.to_owned(),
            position: Value::Null,
            next: None,
            replays_left: 0,
            asked: HashMap::new(),
            gaps: 0,
            recovered: 0,
        }
    }

    /// Asks for recovery, or sometimes for the newest ones or all since a moment: then it begins anew.
    fn subscribe(&mut self, random: &mut Random) -> u64 {
        let data = match random.below(8) {
            0 => json!({"last": random.below(20)}),
            1 => json!({"since": 1 + random.below(2) * 4_000_000_000_000}),
            _ => json!({"recover": self.position}),
        };
        let cid = self.client.begin_call(
            "#subscribe",
            &json!({"channel": self.channel, "data": data}).to_string(),
        );
        // Until the answer, an earlier subscription may still be live.
        let from = match data.get("recover") {
            Some(position) => (position.clone(), self.next),
            None => (Value::Null, None),
        };
        self.asked.insert(cid, from);
        cid
    }

    /// Takes a message; returns the call that it answers.
    fn take(&mut self, text: &str) -> Option<u64> {
        let message: Value = serde_json::from_str(text).unwrap();
        if let Some(rid) = message["rid"].as_u64() {
            if let Some(answer) = message.get("data").filter(|data| data.get("recovered").is_some()) {
                self.replays_left = answer["publications"].as_u64().unwrap();
                (self.position, self.next) = self.asked.remove(&rid).unwrap();
                if answer["recovered"] == true {
                    self.recovered += 1;
                } else {
                    self.gaps += 1;
                    self.next = None;
                }
                if self.replays_left == 0 || self.position.is_null() {
                    self.position = answer["position"].clone();
                }
            }
            return Some(rid);
        }
        let data = &message["data"];
        assert_eq!(data["channel"], self.channel.as_str(), "{message}");
        let number = data["data"].as_u64().unwrap();
        assert!(
            self.next.is_none_or(|next| next == number),
            "{:?}, and then {message}",
            self.next
        );
        if self.replays_left > 0 {
            assert_eq!(
                data["replayed"], true,
                "{} more must be replayed: {message}",
                self.replays_left
            );
            self.replays_left -= 1;
        }
        self.next = Some(number + 1);
        self.position = data["position"].clone();
        None
    }

    /// Takes the next message; returns the call that it answers. If the history has lost the rest, the
    /// server closes the connection and says so: `None`.
    fn receive(&mut self) -> Option<Option<u64>> {
        match self.client.event() {
            Received::Text(message) => Some(self.take(&message)),
            Received::Close(Some(4034), _) => {
                self.gaps += 1;
                self.client = self.server.client();
                self.replays_left = 0;
                None
            }
            other => panic!("{other:?}"),
        }
    }

    fn await_answer(&mut self, cid: u64) {
        while let Some(answered) = self.receive() {
            if answered == Some(cid) {
                return;
            }
        }
    }

    /// One step of a random life.
    fn step(&mut self, random: &mut Random) {
        match random.below(6) {
            // Another connection, on whatever core.
            0 => self.client = self.server.client(),
            // The subscription ends, and begins again.
            1 => {
                let cid = self
                    .client
                    .begin_call("#unsubscribe", &json!(self.channel).to_string());
                self.await_answer(cid);
            }
            // It is begun and ended before the answer can be there.
            2 => {
                let first = self.subscribe(random);
                let cid = self
                    .client
                    .begin_call("#unsubscribe", &json!(self.channel).to_string());
                let _ = first;
                self.await_answer(cid);
                // The publications of the replay show how far it came; live publications after the answer do not.
                self.replays_left = 0;
            }
            _ => {}
        }
        let cid = self.subscribe(random);
        self.await_answer(cid);
        for _ in 0..random.below(30) {
            if self.receive().is_none() {
                return;
            }
        }
    }
}

/// Thousands of subscriptions that begin while publications come, over all cores; owners, publishers and subscribers
/// are on different ones.
#[test]
fn every_publication_comes_exactly_once_or_the_client_is_told() {
    let seed = support::seed();
    let server = server(|config| config.limits.outbox_bytes_max = 64 * 1024 * 1024);
    let channels: Vec<String> = names("room").take(3).chain(names("short").take(2)).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let publishers: Vec<_> = channels
            .iter()
            .enumerate()
            .map(|(index, channel)| {
                let (mut publisher, stop) = (server.client(), &stop);
                let mut random = Random(seed.wrapping_add(index as u64) | 1);
                scope.spawn(move || {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        for _ in 0..=random.below(8) {
                            publisher.publish(channel, &number.to_string());
                            number += 1;
                        }
                        publisher.ping();
                    }
                })
            })
            .collect();
        let followers: Vec<_> = (0..10_u64)
            .map(|index| {
                let server = &server;
                let channel = &channels[usize::try_from(index).unwrap() % channels.len()];
                let mut random = Random(seed.wrapping_mul(31).wrapping_add(index) | 1);
                scope.spawn(move || {
                    let mut follower = Follower::new(server, channel);
                    for _ in 0..300 {
                        follower.step(&mut random);
                    }
                    (follower.recovered, follower.gaps)
                })
            })
            .collect();
        let results: Vec<_> = followers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        stop.store(true, Ordering::Relaxed);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let mut totals = (0, 0);
        for result in results {
            let (recovered, gaps) = result.unwrap();
            totals = (totals.0 + recovered, totals.1 + gaps);
        }
        println!("{} recovered, {} told of a gap", totals.0, totals.1);
        assert!(totals.0 > 500, "{totals:?}");
    });
    server.settles_at(0, 0);
    assert_eq!(server.total(|core| &core.recoveries_waiting), 0);
}

#[test]
fn a_long_history_closes_no_client_however_slowly_it_is_read() {
    for policy in [SlowConsumer::Close, SlowConsumer::Skip, SlowConsumer::Conflate] {
        let server = server(|config| {
            config.limits.outbox_bytes_max = 32 * 1024;
            config.delivery.slow_consumer = policy;
        });
        let mut publisher = server.client();
        let padding = "x".repeat(1000);
        for number in 0..2000 {
            publisher.publish("room.a", &format!(r#"[{number},"{padding}"]"#));
        }
        publisher.ping();
        let mut reader = Client::connect_narrow(server.address);
        reader.upgrade();
        reader.handshake();
        let answer = subscribe_with(&mut reader, "room.a", &json!({"since": 1}));
        assert_eq!(answer["data"]["publications"], 2000, "{answer}");
        eventually("the outbox is full", || {
            server.total(|core| &core.publications_replayed) > 0
        });
        // What is published meanwhile comes behind, exactly once, though it is more than an outbox holds.
        for number in 2000..2300 {
            publisher.publish("room.a", &format!(r#"[{number},"{padding}"]"#));
        }
        publisher.ping();
        for number in 0..2300 {
            let publication = next_publication(&mut reader, "room.a");
            assert_eq!(publication["data"][0], number, "{policy:?}");
        }
        reader.ping();
        assert_eq!(server.closes(CloseReason::SlowConsumer), 0);
        assert_eq!(server.total(|core| &core.publications_skipped), 0);
    }
}

/// With `skip` and `conflate`, a client that reads late gets all of a channel with a history. If the history has lost
/// some of it, the client is told so by the close of its connection. There is no gap that a later recovery calls whole.
#[test]
fn nothing_is_left_out_of_a_channel_with_a_history() {
    for policy in [SlowConsumer::Skip, SlowConsumer::Conflate] {
        let server = server(|config| {
            config.limits.outbox_bytes_max = 32 * 1024;
            config.delivery.slow_consumer = policy;
        });
        let mut publisher = server.client();
        let padding = "x".repeat(1000);
        let mut publish = |channel: &str, numbers: std::ops::Range<u64>| {
            for number in numbers {
                publisher.publish(channel, &format!(r#"[{number},"{padding}"]"#));
            }
            publisher.ping();
        };
        for channel in ["room.a", "short.a"] {
            let mut reader = Client::connect_narrow(server.address);
            reader.upgrade();
            reader.handshake();
            let before = server.total(|core| &core.catch_ups);
            subscribe_with(&mut reader, channel, &json!({"recover": null}));
            publish(channel, 0..3000);
            eventually("it does not take some", || {
                server.total(|core| &core.catch_ups) > before
            });
            if channel == "short.a" {
                loop {
                    match reader.event() {
                        Received::Text(_) => {}
                        Received::Close(code, _) => break assert_eq!(code, Some(4034)),
                        other => panic!("{other:?}"),
                    }
                }
                continue;
            }
            for number in 0..3000 {
                let publication = next_publication(&mut reader, channel);
                assert_eq!(publication["data"][0], number, "{policy:?}");
            }
            publish(channel, 3000..3001);
            let publication = next_publication(&mut reader, channel);
            assert_eq!(publication["data"][0], 3000);
        }
        assert_eq!(server.total(|core| &core.publications_skipped), 0);
        assert_eq!(server.total(|core| &core.publications_conflated), 0);
        // Where nothing is kept, the policy is as ever.
        let mut reader = Client::connect_narrow(server.address);
        reader.upgrade();
        reader.handshake();
        reader.subscribe("news");
        publish("news", 0..3000);
        eventually("some are left out", || {
            server.total(|core| &core.publications_skipped)
                + server.total(|core| &core.publications_conflated)
                > 0
        });
    }
}

/// What a channel has lost stays in memory while it is sent. Clients that take it slowly do not keep all of it there. A
/// client that goes on in time gets everything.
#[test]
fn what_slow_clients_keep_of_a_history_is_bounded() {
    // A share is a quarter of a megabyte: more than an outbox takes of a history, and an eighth of this one.
    const BYTES_MAX: u64 = 16 * 1024 * 1024;
    let server = server(|config| {
        config.cores.placement = Placement::Count(1);
        config.limits.recovery_bytes_max = BYTES_MAX;
        config.channels = vec![remembers(&["room.**"], 2000, false)];
    });
    let mut publisher = server.client();
    let padding = "x".repeat(1000);
    let mut numbers = 0..;
    let mut publish_all = |count: usize| {
        for number in numbers.by_ref().take(count) {
            publisher.publish("room.a", &format!(r#"[{number},"{padding}"]"#));
        }
        publisher.ping();
    };
    let mut readers = Vec::new();
    publish_all(1500);
    for _ in 0..20 {
        // The history becomes another one.
        publish_all(500);
        let mut reader = Client::connect_narrow(server.address);
        reader.upgrade();
        reader.handshake();
        let answer = subscribe_with(&mut reader, "room.a", &json!({"last": 2000}));
        assert_eq!(answer["data"]["publications"], 2000, "{answer}");
        readers.push(reader);
    }
    let held = server.total(|core| &core.recovery_bytes);
    assert!(held > 0 && held <= BYTES_MAX, "{held} bytes");
    assert!(server.limit_hits(Limit::RecoveryBytes) >= 20);
    // The channel still has all publications for the last client.
    let mut last = readers.pop().unwrap();
    for number in 9500..11_500 {
        let publication = next_publication(&mut last, "room.a");
        assert_eq!(publication["data"][0], number);
    }
    last.ping();
    // It has lost all publications for the first client.
    let mut first = readers.remove(0);
    loop {
        match first.event() {
            Received::Text(_) => {}
            Received::Close(code, _) => break assert_eq!(code, Some(4034)),
            other => panic!("{other:?}"),
        }
    }
    drop(readers);
    drop(last);
    eventually("nothing is kept", || {
        server.total(|core| &core.recovery_bytes) == 0
    });
}

#[test]
fn a_storm_of_recoveries_is_served_in_steps_and_all_are_exact() {
    let server = server(|config| config.cores.placement = Placement::Count(1));
    let mut publisher = server.client();
    publisher.publish("room.a", "-1");
    let first = subscribe_with(&mut publisher, "room.a", &json!({"recover": null}));
    let recover = json!({"recover": first["data"]["position"]});
    let padding = "x".repeat(200);
    for number in 0..500 {
        publisher.publish("room.a", &format!(r#"[{number},"{padding}"]"#));
        publisher.message();
    }
    let mut readers: Vec<Client> = (0..200).map(|_| server.client()).collect();
    let mut bystander = server.client();
    let turns = server.total(|core| &core.turns);
    for reader in &mut readers {
        reader.begin_call(
            "#subscribe",
            &json!({"channel": "room.a", "data": recover}).to_string(),
        );
    }
    let mut pings = 0;
    while server.total(|core| &core.publications_replayed) < 200 * 500 {
        bystander.ping();
        pings += 1;
    }
    for reader in &mut readers {
        let answer: Value = serde_json::from_str(&reader.message()).unwrap();
        assert_eq!(answer["data"]["publications"], 500, "{answer}");
        for number in 0..500 {
            assert_eq!(next_publication(reader, "room.a")["data"][0], number);
        }
    }
    // One turn replays at most 256 KiB, and a frame more for each of 64 clients.
    let replayed = 200 * 500 * (padding.len() as u64 + 100);
    let turns = server.total(|core| &core.turns) - turns;
    assert!(turns > replayed / (512 * 1024), "{turns} turns");
    assert!(pings > 0);
}

#[test]
fn a_connection_that_ends_meanwhile_leaves_nothing() {
    let server = server(|_| {});
    let mut publisher = server.client();
    publish(&mut publisher, "both.a", 0..50);
    for round in 0..300 {
        let mut client = server.client();
        client.begin_call("#subscribe", r#"{"channel":"both.a","data":{"last":50}}"#);
        match round % 3 {
            0 => client.reset(),
            1 => client.send_fin(),
            _ => match client.event() {
                Received::Text(_) => drop(client),
                other => panic!("{other:?}"),
            },
        }
    }
    server.settles_at(1, 0);
    eventually("nothing is left", || {
        server.total(|core| &core.recoveries_waiting) == 0
    });
}

/// The packets in the pages, in their order, of one client: lines with `>` are sent, lines with `<` must come. Each
/// epoch, offset and time of a page stands for one of the server.
#[test]
fn the_packets_of_the_documentation_match_the_server() {
    for page in [
        include_str!("../docs/history.md"),
        include_str!("../docs/recovery.md"),
    ] {
        let server = server(|_| {});
        let mut client = server.client();
        let mut meanings = Meanings::new();
        let blocks = page.split("```packets\n").skip(1);
        let lines: Vec<&str> = blocks
            .flat_map(|block| block.split("```").next().unwrap().lines())
            .collect();
        assert!(lines.len() > 9, "the page has its packets in blocks of `packets`");
        for line in lines {
            let packet: Value = serde_json::from_str(&line[2..]).unwrap();
            if line.starts_with("> ") {
                client.send_text(&translated("", &packet, &meanings).to_string());
                continue;
            }
            let message = client.message();
            let found = serde_json::from_str(&message).unwrap();
            assert!(
                is_as_said("", &packet, &found, &mut meanings),
                "{message} instead of {line}"
            );
        }
    }
}

/// The replacements: the name and the text of a member on a page, and its value on the server.
type Meanings = HashMap<(String, String), Value>;

/// Whether a member of a packet is as the page says. Learns the server's values for epochs, offsets and times of the
/// page.
fn is_as_said(name: &str, said: &Value, found: &Value, meanings: &mut Meanings) -> bool {
    match (said, found) {
        (Value::Object(said), Value::Object(found)) => {
            let mut members = said.iter();
            said.len() == found.len()
                && members.all(|(name, said)| is_as_said(name, said, &found[name], meanings))
        }
        (Value::Array(said), Value::Array(found)) => {
            let mut items = said.iter().zip(found);
            said.len() == found.len() && items.all(|(said, found)| is_as_said(name, said, found, meanings))
        }
        _ if ["epoch", "offset", "time"].contains(&name) => {
            let meaning = meanings.entry((name.to_owned(), said.to_string()));
            meaning.or_insert_with(|| found.clone()) == found
        }
        _ => said == found,
    }
}

/// A packet of a page, with the server's values in place of the page's.
fn translated(name: &str, said: &Value, meanings: &Meanings) -> Value {
    match said {
        Value::Object(members) => {
            let members = members.iter();
            members
                .map(|(name, said)| (name.clone(), translated(name, said, meanings)))
                .collect()
        }
        other => {
            let meaning = meanings.get(&(name.to_owned(), other.to_string()));
            meaning.unwrap_or(other).clone()
        }
    }
}

/// The calls of `$history` and the recoveries of a client whose channels belong to a core that stands still end with an
/// error after 5 s. The answers that come later change nothing.
#[test]
fn a_history_whose_owner_stands_still_is_answered_with_an_error() {
    let folder = Folder::new();
    let lines = "[[channels]]\nnames = [\"room.**\"]\nhistory_entries = 10\nposition = true\n";
    let file = folder.write("ringcast.toml", lines);
    let process = Process::start(&[
        ("RINGCAST_CONFIG", file.to_str().unwrap()),
        ("RINGCAST_CORES", "2"),
    ]);
    let mut client = process.client();
    let is_on_first = process.admin().metric(r#"ringcast_connections{core="0"}"#) == 1;
    let next_answer = |client: &mut Client| loop {
        let message: Value = serde_json::from_str(&client.message()).unwrap();
        if message.get("rid").is_some() {
            return message;
        }
    };
    let ask = |client: &mut Client, number: u64| {
        let data = json!({"channel": format!("room.{number}"), "last": 5});
        client.send_text(&json!({"event": "$history", "data": data, "cid": 1000 + number}).to_string());
    };
    for number in 0..16 {
        client.publish(&format!("room.{number}"), "1");
    }
    client.ping();
    let held = Held::thread(process.pid(), if is_on_first { "core 1" } else { "core 0" });
    for number in 0..16 {
        ask(&mut client, number);
        let data = json!({"channel": format!("room.{number}"), "data": {"last": 1}});
        client.send_text(&json!({"event": "#subscribe", "data": data, "cid": 2000 + number}).to_string());
    }
    let (mut read, mut unread, mut unrecovered) = (0, 0, 0);
    for _ in 0..32 {
        let answer = next_answer(&mut client);
        let is_history = answer["rid"].as_u64().unwrap() < 2000;
        match answer["error"]["name"].as_str() {
            Some(name) => {
                assert!(is_history && name == "TimeoutError", "{answer}");
                unread += 1;
            }
            None if is_history => {
                assert_eq!(answer["data"]["publications"][0]["data"], 1, "{answer}");
                read += 1;
            }
            None if answer["data"]["recovered"] == false => {
                assert_eq!(answer["data"]["reason"], "no answer", "{answer}");
                unrecovered += 1;
            }
            None => assert_eq!(answer["data"]["recovered"], true, "{answer}"),
        }
    }
    // Calls about channels of the other core are answered at once, however many wait for the core that stands still.
    for number in 0..300 {
        let data = json!({"channel": format!("room.of.many.{number}"), "data": {"last": 1}});
        client.send_text(&json!({"event": "#subscribe", "data": data, "cid": 3000 + number}).to_string());
    }
    let reasons: Vec<Option<String>> = (0..300)
        .map(|_| {
            next_answer(&mut client)["data"]["reason"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    let (answered, unanswered) = reasons.split_at(reasons.iter().filter(|reason| reason.is_none()).count());
    assert!(answered.iter().all(Option::is_none), "{reasons:?}");
    assert!(answered.len() > 64 && unanswered.len() > 64, "{reasons:?}");
    assert!(
        unanswered
            .iter()
            .all(|reason| reason.as_deref() == Some("no answer"))
    );
    // Each core owns some of the channels.
    assert!(
        read > 0 && unread > 0 && unread == unrecovered,
        "{read} {unread} {unrecovered}"
    );
    drop(held);
    for number in 0..16 {
        ask(&mut client, number);
        let answer = next_answer(&mut client);
        assert_eq!(answer["rid"], 1000 + number, "{answer}");
        assert_eq!(answer["data"]["publications"][0]["data"], 1, "{answer}");
    }
    let timeouts = r#"ringcast_limit_hits_total{limit="history_time"}"#;
    assert_eq!(process.admin().metric(timeouts), unread);
}
