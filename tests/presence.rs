//! Presence over the wire: the real binary on several cores, clients with and without users, events and calls.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use ringcast::internals::auth::Tokens;
use serde_json::{Value, json};
use support::folder::Folder;
use support::mqtt::{Mqtt, unsubscribe};
use support::process::{Held, Process};
use support::{Client, eventually};

const KEY: &str = "a key for the tests of presence";

const POLICIES: &str = r#"
[[channels]]
names = ["room.**"]
presence = true
presence_events = true

[[channels]]
names = ["quiet.*"]
presence = true
"#;

/// A server with a configuration file, which may be changed.
struct Scene {
    process: Process,
    folder: Folder,
}

impl Scene {
    fn new(config: &str, settings: &[(&str, &str)]) -> Scene {
        let folder = Folder::new();
        let file = folder.write("ringcast.toml", config);
        let file = file.to_str().unwrap();
        let mut all = vec![
            ("RINGCAST_CONFIG", file),
            ("RINGCAST_AUTH_KEY", KEY),
            ("RINGCAST_CORES", "3"),
            ("RINGCAST_PRESENCE_TICK_MS", "20"),
            ("RINGCAST_PRESENCE_GRACE_MS", "0"),
        ];
        all.extend(settings);
        Scene {
            process: Process::start(&all),
            folder,
        }
    }

    fn reload(&self, config: &str) {
        self.process.reload(&self.folder.file("ringcast.toml"), config);
    }

    /// A client without a user.
    fn client(&self) -> Member {
        let mut client = self.process.connect();
        client.upgrade();
        client.handshake();
        Member {
            client,
            events: Vec::new(),
            calls: 100,
        }
    }

    /// A client with this user.
    fn user(&self, user: &str) -> Member {
        let mut member = self.client();
        member.authenticate(user);
        member
    }
}

/// A client that keeps the publications that come while it waits for an answer.
struct Member {
    client: Client,
    /// Channels and data of publications.
    events: Vec<(String, Value)>,
    calls: u64,
}

impl Member {
    fn id(&self) -> &str {
        &self.client.id
    }

    /// Makes a call and returns its answer, or its error.
    #[track_caller]
    fn call(&mut self, event: &str, data: &Value) -> Result<Value, Value> {
        self.calls += 1;
        let cid = self.calls;
        self.client
            .send_text(&json!({"event": event, "data": data, "cid": cid}).to_string());
        loop {
            let message: Value = serde_json::from_str(&self.client.message()).unwrap();
            if message["rid"] == cid {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["data"].clone()),
                };
            }
            self.keep(&message);
        }
    }

    fn keep(&mut self, message: &Value) {
        if message["event"] == "#publish" {
            let data = &message["data"];
            let channel = data["channel"].as_str().unwrap().to_owned();
            self.events.push((channel, data["data"].clone()));
        }
    }

    #[track_caller]
    fn authenticate(&mut self, user: &str) {
        let answer = self.call("#authenticate", &json!(token(&json!({"sub": user}))));
        assert_eq!(answer.unwrap()["isAuthenticated"], true);
    }

    #[track_caller]
    fn subscribe(&mut self, channel: &str) {
        self.call("#subscribe", &json!({"channel": channel})).unwrap();
    }

    #[track_caller]
    fn unsubscribe(&mut self, channel: &str) {
        self.call("#unsubscribe", &json!(channel)).unwrap();
    }

    /// All members of a channel, page by page.
    #[track_caller]
    fn members(&mut self, channel: &str) -> Vec<Value> {
        let (mut members, mut after) = (Vec::new(), json!(0));
        loop {
            let page = json!({"channel": channel, "after": after, "limit": 2});
            let answer = self.call("$presence", &page).unwrap();
            members.extend(answer["members"].as_array().unwrap().iter().cloned());
            match answer.get("next") {
                Some(next) => after = next.clone(),
                None => return members,
            }
        }
    }

    /// The keys of the members.
    #[track_caller]
    fn keys(&mut self, channel: &str) -> BTreeSet<String> {
        self.members(channel).iter().map(key_of).collect()
    }

    /// Waits until the members are these.
    #[track_caller]
    fn sees(&mut self, channel: &str, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|key| (*key).to_owned()).collect();
        let mut found = BTreeSet::new();
        eventually(&format!("{channel} has {expected:?}"), || {
            found = self.keys(channel);
            found == expected
        });
    }

    /// The next event of a channel.
    #[track_caller]
    fn event(&mut self, channel: &str) -> Value {
        let name = format!("$presence/{channel}");
        loop {
            if let Some(at) = self.events.iter().position(|(channel, _)| *channel == name) {
                return self.events.remove(at).1;
            }
            let message = serde_json::from_str(&self.client.message()).unwrap();
            self.keep(&message);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a token says when it was signed")]
fn token(claims: &Value) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let unix_ms = u64::try_from(since.as_millis()).unwrap();
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    tokens.sign(&claims.to_string(), Some(3600), unix_ms).unwrap()
}

/// A member's user, or the connection of one without a user.
fn key_of(member: &Value) -> String {
    let user = member["user"].as_str();
    user.unwrap_or_else(|| member["connections"][0].as_str().unwrap())
        .to_owned()
}

#[test]
fn clients_learn_who_is_in_a_channel_whichever_core_they_are_on() {
    let scene = Scene::new(POLICIES, &[]);
    let mut anns = [scene.user("ann"), scene.user("ann"), scene.user("ann")];
    let (mut bob, mut nobody) = (scene.user("bob"), scene.client());
    for channel in ["room.1", "room.2", "room.3", "quiet.1"] {
        for member in anns.iter_mut().chain([&mut bob, &mut nobody]) {
            member.subscribe(channel);
        }
        let info = json!({"channel": channel, "info": {"status": "busy", "n": 1}});
        assert_eq!(bob.call("$presence_info", &info), Ok(Value::Null));
        let id = nobody.id().to_owned();
        // A client knows its own subscription at once; other cores have told theirs soon.
        assert!(nobody.keys(channel).contains(&id));
        nobody.sees(channel, &["ann", "bob", &id]);
        eventually("all connections of ann are known", || {
            let members = nobody.members(channel);
            let ann = members.iter().find(|member| member["user"] == "ann").unwrap();
            let found: BTreeSet<&str> = ann["connections"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap())
                .collect();
            found == anns.iter().map(Member::id).collect()
        });
        let members = bob.members(channel);
        let bobs = members.iter().find(|member| member["user"] == "bob").unwrap();
        assert_eq!(bobs["info"], json!({"status": "busy", "n": 1}));
        assert!(bobs["since"].as_u64().unwrap() > 1_700_000_000_000);
        assert_eq!(bobs["connections"], json!([bob.id()]));
    }
    // A user is a member until its last connection has left.
    anns[0].unsubscribe("room.1");
    let [_, second, mut third] = anns;
    drop(second);
    let id = nobody.id().to_owned();
    nobody.sees("room.1", &["ann", "bob", &id]);
    third.unsubscribe("room.1");
    nobody.sees("room.1", &["bob", &id]);
    drop(bob);
    nobody.sees("room.1", &[&id]);
    nobody.unsubscribe("room.1");
    assert_eq!(
        nobody.call("$presence", &json!({"channel": "room.1"})),
        Ok(json!({"count": 0, "members": []}))
    );
}

#[test]
fn events_tell_who_has_joined_changed_and_left() {
    let scene = Scene::new(POLICIES, &[]);
    let mut watcher = scene.client();
    watcher.subscribe("$presence/room.1");
    watcher.subscribe("$presence/quiet.1");
    let (mut ann, mut nobody) = (scene.user("ann"), scene.client());
    ann.subscribe("quiet.1");
    ann.subscribe("room.1");
    let event = watcher.event("room.1");
    assert_eq!((&event["count"], &event["left"]), (&json!(1), &json!([])));
    let joined = &event["joined"][0];
    assert_eq!(joined["user"], "ann");
    assert!(joined["since"].is_u64() && joined.get("connections").is_none());

    ann.call("$presence_info", &json!({"channel": "room.1", "info": "away"}))
        .unwrap();
    let event = watcher.event("room.1");
    assert_eq!((&event["joined"], &event["left"]), (&json!([]), &json!([])));
    assert_eq!(event["changed"][0]["info"], "away");

    nobody.subscribe("room.1");
    let event = watcher.event("room.1");
    assert_eq!(event["joined"][0]["user"], Value::Null);
    assert_eq!(event["joined"][0]["connections"], json!([nobody.id()]));
    assert_eq!(event["count"], 2);

    let id = nobody.id().to_owned();
    drop(nobody);
    let event = watcher.event("room.1");
    assert_eq!(event["left"], json!([{"user": null, "connections": [id]}]));
    ann.client.reset();
    let event = watcher.event("room.1");
    assert_eq!(
        event,
        json!({"joined": [], "left": [{"user": "ann"}], "count": 0})
    );
    // The policy of the other channel has no events.
    assert!(watcher.events.is_empty(), "{:?}", watcher.events);
    watcher.sees("quiet.1", &[]);
}

#[test]
fn a_user_that_reconnects_within_the_grace_has_neither_left_nor_joined() {
    let scene = Scene::new(POLICIES, &[("RINGCAST_PRESENCE_GRACE_MS", "600000")]);
    let mut watcher = scene.client();
    watcher.subscribe("$presence/room.1");
    let mut ann = scene.user("ann");
    ann.subscribe("room.1");
    assert_eq!(watcher.event("room.1")["joined"][0]["user"], "ann");
    let since = watcher.members("room.1")[0]["since"].clone();
    for round in 0..3 {
        ann.client.reset();
        eventually("the connection is known to have ended", || {
            watcher.members("room.1")[0]["connections"] == json!([])
        });
        ann = scene.user("ann");
        ann.subscribe("room.1");
        eventually("the new connection is known", || {
            watcher.members("room.1")[0]["connections"] == json!([ann.id()])
        });
        assert_eq!(watcher.members("room.1")[0]["since"], since, "round {round}");
    }
    let mut bob = scene.user("bob");
    bob.subscribe("room.1");
    let event = watcher.event("room.1");
    assert_eq!(
        (&event["joined"][0]["user"], &event["count"]),
        (&json!("bob"), &json!(2))
    );
    // To unsubscribe is no accident.
    bob.unsubscribe("room.1");
    assert_eq!(watcher.event("room.1")["left"], json!([{"user": "bob"}]));
}

#[test]
fn a_client_that_vanishes_leaves_when_its_pings_say_so() {
    let pings = [
        ("RINGCAST_PING_INTERVAL_MS", "200"),
        ("RINGCAST_PING_TIMEOUT_MS", "1000"),
    ];
    let scene = Scene::new(POLICIES, &pings);
    let mut watcher = scene.client();
    let mut silent = scene.user("silent");
    silent.subscribe("room.1");
    // The watcher answers pings while it asks; the other client reads nothing from now on.
    watcher.sees("room.1", &["silent"]);
    watcher.sees("room.1", &[]);
    drop(silent);
}

#[test]
fn another_user_of_a_connection_is_another_member() {
    let scene = Scene::new(POLICIES, &[("RINGCAST_PRESENCE_GRACE_MS", "600000")]);
    let (mut watcher, mut member) = (scene.client(), scene.client());
    let id = member.id().to_owned();
    for channel in ["room.1", "room.2", "other"] {
        member.subscribe(channel);
    }
    watcher.sees("room.1", &[&id]);
    member.authenticate("ann");
    watcher.sees("room.1", &["ann"]);
    // A fresh token of the same user changes nothing.
    let since = watcher.members("room.1")[0]["since"].clone();
    member.authenticate("ann");
    member.authenticate("bob");
    for channel in ["room.1", "room.2"] {
        watcher.sees(channel, &["bob"]);
    }
    assert!(since.is_u64());
    member.client.send_text(r##"{"event":"#removeAuthToken"}"##);
    watcher.sees("room.2", &[&id]);
    drop(member);
    watcher.sees("room.2", &[]);
}

#[test]
fn rules_say_who_may_ask_and_nobody_publishes_in_the_place_of_the_server() {
    let rules = r#"
[[rules]]
allow = ["subscribe", "publish"]
channels = ["room.*", "$presence/other", "plain"]

[[rules]]
allow = "presence"
channels = "room.*"
to = "authenticated"
"#;
    let scene = Scene::new(&format!("{POLICIES}{rules}"), &[]);
    let (mut nobody, mut ann) = (scene.client(), scene.user("ann"));
    ann.subscribe("room.1");
    ann.subscribe("$presence/room.1");
    assert_eq!(ann.event("room.1")["count"], 1);
    ann.sees("room.1", &["ann"]);
    nobody.subscribe("room.1");
    for (event, data) in [
        ("$presence", json!({"channel": "room.1"})),
        ("$presence_info", json!({"channel": "room.1", "info": 1})),
        ("#subscribe", json!({"channel": "$presence/room.1"})),
    ] {
        let error = nobody.call(event, &data).unwrap_err();
        assert_eq!(error["name"], "SilentMiddlewareBlockedError", "{event}: {error}");
    }
    let publication = json!({"channel": "$presence/room.1", "data": {"count": 1000}});
    let error = ann.call("#publish", &publication).unwrap_err();
    assert_eq!(error["name"], "InvalidActionError", "{error}");
    // Without presence these names are ordinary ones.
    ann.subscribe("$presence/other");
    ann.call("#publish", &json!({"channel": "$presence/other", "data": 7}))
        .unwrap();
    assert_eq!(ann.event("other"), json!(7));

    // A client that loses its user loses the subscriptions that only authenticated clients may have.
    ann.client.send_text(r##"{"event":"#removeAuthToken"}"##);
    let message = ann.client.message();
    assert!(
        message.contains("#kickOut") && message.contains("$presence/room.1"),
        "{message}"
    );
}

#[test]
fn a_will_from_before_presence_was_on_is_not_published_in_the_place_of_the_server() {
    let scene = Scene::new("", &[]);
    let (mut watcher, mut ann) = (scene.client(), scene.user("ann"));
    watcher.subscribe("$presence/room.1");
    ann.subscribe("room.1");
    ann.call("$will", &json!({"channel": "$presence/room.1", "data": "forged"}))
        .unwrap();
    scene.reload(POLICIES);
    eventually("ann is a member", || {
        watcher
            .call("$presence", &json!({"channel": "room.1"}))
            .is_ok_and(|answer| answer["count"] == 1)
    });
    // The reload reaches each core by itself.
    eventually("no will is taken for the events", || {
        ann.call("$will", &json!({"channel": "$presence/room.1"}))
            .is_err()
    });
    assert_eq!(watcher.event("room.1")["joined"][0]["user"], "ann");
    ann.client.reset();
    let event = watcher.event("room.1");
    assert_eq!(event["left"], json!([{"user": "ann"}]), "{event}");
}

#[test]
fn wrong_calls_are_told_what_is_wrong() {
    let scene = Scene::new(POLICIES, &[("RINGCAST_PRESENCE_INFO_BYTES_MAX", "20")]);
    let mut ann = scene.user("ann");
    ann.subscribe("room.1");
    let long = "x".repeat(30);
    for (event, data, name) in [
        ("$presence", Value::Null, "InvalidArgumentsError"),
        ("$presence", json!({"channel": 7}), "InvalidArgumentsError"),
        (
            "$presence",
            json!({"channel": "room.1", "limit": 0}),
            "InvalidArgumentsError",
        ),
        (
            "$presence",
            json!({"channel": "room.1", "after": "x"}),
            "InvalidArgumentsError",
        ),
        (
            "$presence",
            json!({"channel": "room.1", "after": -1}),
            "InvalidArgumentsError",
        ),
        ("$presence", json!({"channel": "plain"}), "InvalidActionError"),
        (
            "$presence_info",
            json!({"channel": "room.1"}),
            "InvalidArgumentsError",
        ),
        (
            "$presence_info",
            json!({"channel": "room.1", "info": long}),
            "InvalidArgumentsError",
        ),
        (
            "$presence_info",
            json!({"channel": "room.2", "info": 1}),
            "InvalidActionError",
        ),
        (
            "$presence_info",
            json!({"channel": "plain", "info": 1}),
            "InvalidActionError",
        ),
    ] {
        let error = ann.call(event, &data).unwrap_err();
        assert_eq!(error["name"], name, "{event} {data}: {error}");
    }
    let mut nobody = scene.client();
    let error = nobody
        .call("$presence_info", &json!({"channel": "room.1", "info": 1}))
        .unwrap_err();
    assert_eq!(error["name"], "InvalidActionError");
    ann.call("$presence_info", &json!({"channel": "room.1", "info": null}))
        .unwrap();
    ann.sees("room.1", &["ann"]);
}

#[test]
fn without_presence_the_calls_are_the_applications() {
    let scene = Scene::new("[[channels]]\nnames = [\"room.*\"]\nlast_value = true\n", &[]);
    let mut ann = scene.user("ann");
    ann.subscribe("room.1");
    ann.subscribe("$presence/room.1");
    ann.call("#publish", &json!({"channel": "$presence/room.1", "data": 7}))
        .unwrap();
    assert_eq!(ann.event("room.1"), json!(7));
    // The built-in application knows no such procedure, and answers nothing.
    ann.client
        .send_text(r#"{"event":"$presence","data":{"channel":"room.1"},"cid":7}"#);
    assert!(ann.call("ping", &Value::Null).is_ok());
    assert!(ann.events.is_empty());
}

#[test]
fn a_reload_turns_presence_on_and_off_for_clients_that_are_there() {
    let scene = Scene::new("", &[]);
    let mut members: Vec<Member> = (0..6)
        .map(|number| scene.user(&format!("user{number}")))
        .collect();
    for member in &mut members {
        member.subscribe("room.1");
        member.subscribe("room.2");
    }
    let all: Vec<String> = (0..6).map(|number| format!("user{number}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for _ in 0..3 {
        scene.reload(POLICIES);
        eventually("presence is on", || {
            members[0]
                .call("$presence", &json!({"channel": "room.1"}))
                .is_ok()
        });
        for channel in ["room.1", "room.2"] {
            members[0].sees(channel, &all);
        }
        // Presence of the one channel ends, that of the other goes on.
        scene.reload("[[channels]]\nnames = [\"room.2\"]\npresence = true\n");
        eventually("presence is off", || {
            members[0]
                .call("$presence", &json!({"channel": "room.1"}))
                .is_err()
        });
        members[0].sees("room.2", &all);
        members[5].unsubscribe("room.1");
        scene.reload(POLICIES);
        eventually("presence is on again", || {
            members[0]
                .call("$presence", &json!({"channel": "room.1"}))
                .is_ok()
        });
        members[0].sees("room.1", &all[..5]);
        members[5].subscribe("room.1");
        members[0].sees("room.1", &all);
        scene.reload("");
        eventually("no member is left", || {
            scene.process.admin().metric("ringcast_presence_members") == 0
        });
    }
}

/// A xorshift generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % end
    }
}

/// A client, its user, and the channels that it is subscribed to.
type Placed = (Member, Option<String>, BTreeSet<String>);

#[test]
fn at_rest_the_members_are_the_connections_and_the_events_have_told_them() {
    let mut random = Random(support::seed().wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let scene = Scene::new(POLICIES, &[("RINGCAST_PRESENCE_GRACE_MS", "30")]);
    let channels: Vec<String> = (0..6).map(|number| format!("room.{number}")).collect();
    let mut watcher = scene.client();
    for channel in &channels {
        watcher.subscribe(&format!("$presence/{channel}"));
    }
    // A place has a client with a user and channels, or none.
    let mut places: Vec<Option<Placed>> = (0..16).map(|_| None).collect();
    for _ in 0..600 {
        let place = random.below(places.len());
        let channel = channels[random.below(channels.len())].clone();
        let user = format!("user{}", random.below(5));
        match (&mut places[place], random.below(12)) {
            (empty @ None, choice) => {
                let is_user = choice < 8;
                let member = if is_user {
                    scene.user(&user)
                } else {
                    scene.client()
                };
                *empty = Some((member, is_user.then_some(user), BTreeSet::new()));
            }
            (Some((member, _, subscribed)), 0..=5) => {
                member.subscribe(&channel);
                subscribed.insert(channel);
            }
            (Some((member, _, subscribed)), 6..=7) => {
                if subscribed.remove(&channel) {
                    member.unsubscribe(&channel);
                }
            }
            (Some((member, has_user, _)), 8) => {
                member.authenticate(&user);
                *has_user = Some(user);
            }
            (place @ Some(_), choice) => {
                let (mut member, ..) = place.take().unwrap();
                match choice {
                    9 => member.client.reset(),
                    10 => {
                        member.client.send_bytes(&support::close_frame(1000, ""));
                        member.client.rest();
                    }
                    _ => drop(member),
                }
            }
        }
    }
    for channel in &channels {
        let expected: BTreeSet<String> = places
            .iter()
            .flatten()
            .filter(|(_, _, subscribed)| subscribed.contains(channel))
            .map(|(member, user, _)| user.clone().unwrap_or_else(|| member.id().to_owned()))
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        watcher.sees(channel, &expected);
        // Each connection is one of its member's.
        let mut connections: Vec<String> = Vec::new();
        eventually("the connections are those that there are", || {
            let listed = watcher.members(channel);
            let listed = listed
                .iter()
                .flat_map(|member| member["connections"].as_array().unwrap().clone());
            connections = listed.map(|id| id.as_str().unwrap().to_owned()).collect();
            connections.sort_unstable();
            let subscribed = places
                .iter()
                .flatten()
                .filter(|(_, _, subscribed)| subscribed.contains(channel));
            let mut expected: Vec<String> = subscribed.map(|(member, ..)| member.id().to_owned()).collect();
            expected.sort_unstable();
            connections == expected
        });
        let mut told = BTreeMap::new();
        let name = format!("$presence/{channel}");
        eventually("the events have told the members", || {
            let answer = watcher.call("$presence", &json!({"channel": channel}));
            assert!(answer.is_ok());
            for (_, event) in watcher.events.extract_if(.., |(channel, _)| *channel == name) {
                apply(&mut told, &event);
            }
            told.keys().map(String::as_str).eq(expected.iter().copied())
        });
    }
    drop(places);
    eventually("nobody is left", || {
        scene.process.admin().metric("ringcast_presence_members") == 0
    });
    eventually("no channel is left", || {
        scene.process.admin().metric("ringcast_presence_channels") == 0
    });
}

fn apply(told: &mut BTreeMap<String, Value>, event: &Value) {
    for member in event["joined"].as_array().unwrap() {
        assert!(
            told.insert(key_of(member), member.clone()).is_none(),
            "joined twice: {event}"
        );
    }
    for member in event["left"].as_array().unwrap() {
        assert!(told.remove(&key_of(member)).is_some(), "left twice: {event}");
    }
    assert_eq!(event["count"], told.len(), "{event}");
}

/// The packets in `docs/presence.md`, in their order, of one client: lines with `>` are sent, lines with `<` must come.
#[test]
fn the_packets_of_the_documentation_match_the_server() {
    let page = include_str!("../docs/presence.md");
    let policies = page
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let scene = Scene::new(policies, &[]);
    let mut watcher = scene.client();
    watcher.subscribe("$presence/room.1");
    let mut ann = scene.user("ann").client;
    let mut count = 0;
    for block in page.split("```packets\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            count += 1;
            if let Some(packet) = line.strip_prefix("> ") {
                if packet.contains("#subscribe") && packet.contains("$presence/") {
                    // What has changed before is told, so that it is not part of the next event.
                    while !watcher.event("room.1").to_string().contains("away") {}
                }
                ann.send_text(packet);
                continue;
            }
            let expected = line.strip_prefix("< ").unwrap();
            let mut message = ann.message();
            // The event about the client's own subscribe may still come.
            while message.contains("$presence/") && !expected.contains("$presence/") {
                message = ann.message();
            }
            while expected.contains("$presence/") && !is_like(&message, expected) {
                message = ann.message();
            }
            assert!(is_like(&message, expected), "{message} instead of {expected}");
        }
    }
    assert!(count > 15, "the page has its packets in blocks of `packets`");
}

/// Whether a text is the expected one, in which `…` stands for any text.
fn is_like(text: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap()) else {
        return false;
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

#[test]
fn a_call_whose_owner_stands_still_is_answered_with_an_error() {
    let scene = Scene::new(POLICIES, &[("RINGCAST_CORES", "2")]);
    let mut ann = scene.user("ann");
    let is_on_first = scene.process.admin().metric(r#"ringcast_connections{core="0"}"#) == 1;
    let other = if is_on_first { "core 1" } else { "core 0" };
    let held = Held::thread(scene.process.pid(), other);
    for number in 0..16 {
        let data = json!({"channel": format!("room.{number}")});
        ann.client
            .send_text(&json!({"event": "$presence", "data": data, "cid": number + 1000}).to_string());
    }
    let (mut answered, mut too_late) = (0, 0);
    while answered + too_late < 16 {
        let message: Value = serde_json::from_str(&ann.client.message()).unwrap();
        match message["error"]["name"].as_str() {
            None => answered += u32::from(message["data"]["count"] == 0),
            Some(name) => {
                assert_eq!(name, "TimeoutError", "{message}");
                too_late += 1;
            }
        }
    }
    // Each core owns some of the channels.
    assert!(answered > 0 && too_late > 0, "{answered} {too_late}");
    // Subscriptions do not wait for the owner, nor does their end.
    for number in 0..16 {
        ann.subscribe(&format!("room.{number}"));
    }
    ann.unsubscribe("room.0");
    drop(held);
    for number in 1..16 {
        ann.sees(&format!("room.{number}"), &["ann"]);
    }
    ann.sees("room.0", &[]);
    assert_eq!(
        scene
            .process
            .admin()
            .metric(r#"ringcast_limit_hits_total{limit="presence_time"}"#),
        u64::from(too_late)
    );
}

/// A core that stands still is told no more than there is room for, about 16,000 joins. Clients that subscribe to its
/// channels wait then, and are served when it goes on; other clients are served all the time.
#[test]
fn clients_that_subscribe_wait_while_an_owner_has_too_much_to_be_told() {
    const EACH: usize = 9000;
    let scene = Scene::new(POLICIES, &[("RINGCAST_CORES", "2")]);
    let mut admin = scene.process.admin();
    // Clients on core 0, by the gauge of its connections.
    let (mut clients, mut others, mut count) = (Vec::new(), Vec::new(), 0);
    while clients.len() < 6 {
        let client = scene.client();
        let now = admin.metric(r#"ringcast_connections{core="0"}"#);
        if now > count { &mut clients } else { &mut others }.push(client);
        count = now;
    }
    let mut control = clients.pop().unwrap();
    let held = Held::thread(scene.process.pid(), "core 1");
    for (index, member) in clients.iter_mut().enumerate() {
        let packets: Vec<Value> = (0..EACH)
            .map(|number| {
                let data = json!({"channel": format!("quiet.{index}-{number}")});
                json!({"event": "#subscribe", "data": data, "cid": number})
            })
            .collect();
        member.client.send_text(&Value::from(packets).to_string());
    }
    let mut subscriptions = || admin.metric(r#"ringcast_subscriptions{core="0"}"#);
    // They wait if nothing changes although the core takes turn after turn.
    let mut before = 0;
    loop {
        for _ in 0..200 {
            control.client.ping();
        }
        let now = subscriptions();
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    let all = (clients.len() * EACH) as u64;
    assert!((16_000..all).contains(&before), "{before} of {all}");
    control.client.ping();
    drop(held);
    eventually("all are subscribed", || subscriptions() == all);
    for (index, member) in clients.iter_mut().enumerate() {
        let mut answered = 0;
        while answered < EACH {
            assert!(member.client.message().starts_with(r#"{"rid":"#));
            answered += 1;
        }
        let id = member.id().to_owned();
        member.sees(&format!("quiet.{index}-{}", EACH - 1), &[&id]);
    }
}

#[test]
fn at_the_limit_clients_are_served_and_are_no_members() {
    let scene = Scene::new(
        POLICIES,
        &[("RINGCAST_PRESENCE_MEMBERS_MAX", "2"), ("RINGCAST_CORES", "1")],
    );
    let mut members: Vec<Member> = (0..4)
        .map(|number| scene.user(&format!("user{number}")))
        .collect();
    for member in &mut members {
        member.subscribe("room.1");
    }
    members[3].sees("room.1", &["user0", "user1"]);
    let mut admin = scene.process.admin();
    assert_eq!(
        admin.metric(r#"ringcast_limit_hits_total{limit="presence_members"}"#),
        2
    );
    members[0]
        .call("#publish", &json!({"channel": "room.1", "data": 1}))
        .unwrap();
    assert_eq!(members[3].client.publication("room.1"), "1");
}

#[test]
fn clients_that_were_refused_are_members_when_others_have_left() {
    let scene = Scene::new(
        POLICIES,
        &[("RINGCAST_PRESENCE_MEMBERS_MAX", "10"), ("RINGCAST_CORES", "2")],
    );
    let mut watcher = scene.client();
    let clients = || (0..8).map(|_| scene.client()).collect::<Vec<Member>>();
    let (mut before, mut after) = (clients(), clients());
    for member in before.iter_mut().chain(&mut after) {
        member.subscribe("quiet.1");
    }
    eventually("as many as there is room for", || {
        watcher.keys("quiet.1").len() == 10
    });
    drop(before);
    let ids: Vec<String> = after.iter().map(|member| member.id().to_owned()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    watcher.sees("quiet.1", &ids);
}

#[test]
fn a_user_of_which_a_connection_was_refused_does_not_leave_with_the_other_one() {
    let scene = Scene::new(
        POLICIES,
        &[("RINGCAST_PRESENCE_MEMBERS_MAX", "2"), ("RINGCAST_CORES", "2")],
    );
    let mut watcher = scene.client();
    watcher.subscribe("$presence/room.1");
    let (mut first, mut bob, mut second) = (scene.user("ann"), scene.user("bob"), scene.user("ann"));
    for member in [&mut first, &mut bob, &mut second] {
        member.subscribe("room.1");
    }
    watcher.sees("room.1", &["ann", "bob"]);
    first.unsubscribe("room.1");
    eventually("ann has the other connection", || {
        let members = watcher.members("room.1");
        let ann = members.iter().find(|member| member["user"] == "ann");
        ann.is_some_and(|ann| ann["connections"] == json!([second.id()]))
    });
    bob.unsubscribe("room.1");
    loop {
        let event = watcher.event("room.1");
        assert!(!event["left"].to_string().contains("ann"), "{event}");
        if event["left"] == json!([{"user": "bob"}]) {
            break;
        }
    }
    watcher.sees("room.1", &["ann"]);
    second.unsubscribe("room.1");
    watcher.sees("room.1", &[]);
}

/// Whether the members of a channel are these MQTT clients.
fn are_devices(watcher: &mut Member, channel: &str, client_ids: &[&str]) -> bool {
    let Ok(answer) = watcher.call("$presence", &json!({"channel": channel})) else {
        return false;
    };
    let members = answer["members"].as_array().unwrap().iter();
    let found: Vec<Value> = members
        .map(|member| member["info"]["client_id"].clone())
        .collect();
    json!(found) == json!(client_ids)
}

#[test]
fn a_reload_turns_presence_on_and_off_for_mqtt_clients_that_are_there() {
    let scene = Scene::new("", &[("RINGCAST_CLIENT_PROTOCOLS", "socketcluster,mqtt")]);
    let mut watcher = scene.client();
    let mut lamp = Mqtt::at(scene.process.address, 5, "lamp");
    lamp.subscribe("room.1", 0);
    lamp.subscribe("room.2", 0);
    for _ in 0..2 {
        scene.reload(POLICIES);
        for channel in ["room.1", "room.2"] {
            eventually("presence is on", || are_devices(&mut watcher, channel, &["lamp"]));
        }
        scene.reload("");
        lamp.send(&unsubscribe(5, 9, &["room.1"]));
        assert_eq!(lamp.packet()[0], 0xB0);
        scene.reload(POLICIES);
        eventually("presence is on again", || {
            are_devices(&mut watcher, "room.2", &["lamp"])
        });
        eventually("it has left", || are_devices(&mut watcher, "room.1", &[]));
        lamp.subscribe("room.1", 0);
        eventually("it joins", || are_devices(&mut watcher, "room.1", &["lamp"]));
        scene.reload("[[channels]]\nnames = [\"room.2\"]\npresence = true\n");
        eventually("presence of the one ends", || {
            scene.process.admin().metric("ringcast_presence_members") == 1
        });
    }
}

#[test]
fn an_mqtt_client_that_was_refused_is_a_member_when_another_has_left() {
    let scene = Scene::new(
        POLICIES,
        &[
            ("RINGCAST_CLIENT_PROTOCOLS", "socketcluster,mqtt"),
            ("RINGCAST_PRESENCE_MEMBERS_MAX", "1"),
            ("RINGCAST_CORES", "2"),
        ],
    );
    let (mut watcher, mut ann) = (scene.client(), scene.user("ann"));
    ann.subscribe("quiet.1");
    let mut lamp = Mqtt::at(scene.process.address, 5, "lamp");
    lamp.subscribe("quiet.1", 0);
    eventually("it is refused", || {
        let refused = r#"ringcast_limit_hits_total{limit="presence_members"}"#;
        scene.process.admin().metric(refused) > 0
    });
    watcher.sees("quiet.1", &["ann"]);
    ann.unsubscribe("quiet.1");
    eventually("it is a member", || {
        are_devices(&mut watcher, "quiet.1", &["lamp"])
    });
}
