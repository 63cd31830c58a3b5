//! The handle of a running server: operations of other threads, and their effects on clients of several cores.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use ringcast::app::{App, Call, CallAnswer, CloseCode, Peer, SessionId};
use ringcast::config::channels::{ChannelPolicy, ChannelSpec, HistoryPolicy, PresencePolicy};
use ringcast::config::rules::{Action, Effect, RuleSpec};
use ringcast::config::{Config, Placement};
use ringcast::internals::decision::Limit;
use ringcast::server::{
    Answers, ClientAnswer, ClientFailure, Handle, HandleError, History, HistoryQuery, Position, Receipt,
    Received, Selection, Subscriber,
};
use serde_json::json;
use support::{Client, PATIENCE, Server, eventually};

fn server() -> Server {
    Server::start(|config| config.cores.placement = Placement::Count(3))
}

fn handle(server: &Server) -> Handle {
    server.running().handle()
}

fn subscribed(server: &Server, channel: &str) -> Client {
    let mut client = server.client();
    client.subscribe(channel);
    client
}

#[test]
fn publications_of_many_threads_reach_all_subscribers_in_one_order() {
    const THREADS: usize = 4;
    const EACH: usize = 500;
    let server = server();
    let mut subscribers: Vec<_> = (0..6).map(|_| subscribed(&server, "news")).collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let handle = handle(&server);
            scope.spawn(move || {
                for number in 0..EACH {
                    handle.publish("news", &[thread, number]).wait().unwrap();
                }
            });
        }
        // A client publishes at the same time.
        let mut client = server.client();
        for number in 0..EACH {
            client.publish("news", &format!("[{THREADS},{number}]"));
        }
        client.ping();
    });
    let seen: Vec<Vec<String>> = subscribers
        .iter_mut()
        .map(|subscriber| {
            let total = (THREADS + 1) * EACH;
            let seen = (0..total).map(|_| subscriber.publication("news")).collect();
            // No publication arrives twice.
            subscriber.ping();
            seen
        })
        .collect();
    assert!(seen.iter().all(|other| *other == seen[0]));
    for publisher in 0..=THREADS {
        let start = format!("[{publisher},");
        let own = seen[0].iter().filter(|data| data.starts_with(&start));
        let expected = (0..EACH).map(|number| format!("[{publisher},{number}]"));
        assert!(own.eq(&expected.collect::<Vec<_>>()));
    }
}

#[test]
fn subscribers_get_the_bytes_that_they_get_from_a_client() {
    let server = server();
    let mut subscriber = subscribed(&server, "a b");
    let handle = handle(&server);
    for (json, expected) in [
        (
            Some("{\"x\" :1}"),
            r##"{"event":"#publish","data":{"channel":"a b","data":{"x" :1}}}"##,
        ),
        (
            Some(" -0 "),
            r##"{"event":"#publish","data":{"channel":"a b","data":0}}"##,
        ),
        (None, r##"{"event":"#publish","data":{"channel":"a b"}}"##),
    ] {
        handle.publish_json("a b", json).wait().unwrap();
        assert_eq!(subscriber.message(), expected);
    }
}

#[test]
fn names_and_data_are_checked_as_for_clients() {
    let server = Server::start(|config| {
        config.limits.channel_name_bytes_max = 4;
        config.limits.message_bytes_max = 200;
    });
    let mut subscriber = subscribed(&server, "news");
    let handle = handle(&server);
    let refused = |channel: &str, json: &str| handle.publish_json(channel, Some(json)).wait().unwrap_err();
    assert_eq!(refused("news", "{"), HandleError::NotJson);
    assert_eq!(refused("news", ""), HandleError::NotJson);
    assert_eq!(
        handle
            .publish("news", &std::collections::HashMap::from([((1, 2), 3)]))
            .wait(),
        Err(HandleError::NotJson)
    );
    let (bytes, bytes_max) = (5, 4);
    assert_eq!(
        refused("newss", "1"),
        HandleError::NameTooLong { bytes, bytes_max }
    );
    let text = |length: usize| json!("x".repeat(length)).to_string();
    let around = r##"{"event":"#publish","data":{"channel":"news","data":""}}"##.len();
    let (bytes, bytes_max) = (201, 200);
    assert_eq!(
        refused("news", &text(201 - around)),
        HandleError::TooLarge { bytes, bytes_max }
    );
    let longest = text(200 - around);
    handle.publish_json("news", Some(&longest)).wait().unwrap();
    assert_eq!(subscriber.publication("news"), longest);
}

#[test]
fn an_operation_can_be_awaited_on_any_runtime() {
    let server = server();
    let mut subscriber = subscribed(&server, "news");
    let handle = handle(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let receipts = runtime.block_on(async {
        let publish = |number: u32| handle.publish("news", &number);
        (publish(1).await, publish(2).await)
    });
    assert!(matches!(receipts, (Ok(Receipt { .. }), Ok(Receipt { .. }))));
    assert_eq!(
        [subscriber.publication("news"), subscriber.publication("news")],
        ["1", "2"]
    );
}

/// A client of this core.
fn client_of(server: &Server, core: usize) -> Client {
    loop {
        let before = server.each(|core| &core.connections)[core];
        let client = server.client();
        if server.each(|core| &core.connections)[core] > before {
            return client;
        }
    }
}

/// An application whose core stands still from the call `stop` until the test lets it go on, and which uses the handle
/// on a core when it is called `misuse`.
struct StandsStill {
    stopped: Sender<()>,
    go_on: Receiver<()>,
    handle: Arc<OnceLock<Handle>>,
}

impl App for StandsStill {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match call.event.as_str() {
            Some("stop") => {
                self.stopped.send(()).unwrap();
                self.go_on.recv().unwrap();
                peer.reply_empty()
            }
            Some("ping") => peer.reply(&json!({ "count": 1 })),
            Some("misuse") => {
                let result = self.handle.get().unwrap().publish("news", "x").wait();
                peer.reply(&result.unwrap_err().to_string())
            }
            _ => CallAnswer::silent(),
        }
    }
}

/// A server whose cores stop at the call `stop`. The receiver tells that a core has stopped, and the sender lets it go
/// on.
fn with_stops(set: impl FnOnce(&mut Config)) -> (Server, Receiver<()>, Sender<()>) {
    let (stopped, has_stopped) = bounded(1);
    let (let_go_on, go_on) = bounded(1);
    let server = Server::start_with(set, |_| StandsStill {
        stopped: stopped.clone(),
        go_on: go_on.clone(),
        handle: Arc::default(),
    });
    (server, has_stopped, let_go_on)
}

#[test]
fn a_ring_without_room_refuses_the_program_and_leaves_half_of_it_to_clients() {
    const SLOTS: u32 = 64;
    let (server, has_stopped, let_go_on) = with_stops(|config| config.limits.ring_slots = SLOTS);
    let mut subscriber = subscribed(&server, "news");
    let (mut stopper, mut other) = (client_of(&server, 0), client_of(&server, 1));
    let call = stopper.begin_call("stop", "null");
    has_stopped.recv().unwrap();

    let handle = handle(&server);
    let mut published = 0;
    let full = loop {
        match handle.publish("news", &published).wait() {
            Ok(_) => published += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((full, published), (HandleError::RingFull, SLOTS / 2));
    for number in 0..SLOTS / 4 {
        other.publish("other", &number.to_string());
    }
    // The core has taken all of them before it answers this.
    other.ping();

    let_go_on.send(()).unwrap();
    assert_eq!(stopper.message(), format!("{{\"rid\":{call}}}"));
    let seen: Vec<String> = (0..published).map(|_| subscriber.publication("news")).collect();
    assert!(
        seen.iter().eq(&(0..published)
            .map(|number| number.to_string())
            .collect::<Vec<_>>())
    );
    handle.publish("news", "again").wait().unwrap();
    assert_eq!(subscriber.publication("news"), "\"again\"");
}

#[test]
fn on_a_core_and_after_the_end_an_operation_is_refused() {
    let shared = Arc::new(OnceLock::new());
    let server = Server::start_with(
        |_| {},
        |_| StandsStill {
            stopped: bounded(1).0,
            go_on: bounded(1).1,
            handle: Arc::clone(&shared),
        },
    );
    let handle = handle(&server);
    shared.set(handle.clone()).unwrap();
    let mut client = server.client();
    let answer = client.call("misuse", "null");
    assert!(answer.contains("this is the thread of a core"), "{answer}");
    drop(server);
    assert_eq!(handle.publish("news", "x").wait(), Err(HandleError::Ended));
}

#[test]
fn publications_are_counted_by_outcome() {
    let server = Server::start(|config| config.admin.address = Some("127.0.0.1:0".parse().unwrap()));
    let handle = handle(&server);
    handle.publish("news", "x").wait().unwrap();
    handle.publish_json("news", Some("{")).wait().unwrap_err();
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let text = support::ask(server.running().admin_address().unwrap(), head);
    for line in [
        "ringcast_outside_publications_total 1\n",
        "ringcast_outside_publications_refused_total{reason=\"invalid\"} 1\n",
        "ringcast_outside_publications_refused_total{reason=\"no_room\"} 0\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

/// An application that accepts any login: `login` with the value of `sub`.
struct AcceptsAnyLogin;

impl App for AcceptsAnyLogin {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match (call.event.as_str(), call.data) {
            (Some("login"), Some(sub)) => {
                let sub: serde_json::Value = sub.parse(peer).unwrap();
                peer.set_auth_token(&json!({ "sub": sub }), None);
                peer.reply_empty()
            }
            _ => peer.reply_empty(),
        }
    }
}

fn trusting() -> Server {
    Server::start_with(
        |config| config.cores.placement = Placement::Count(3),
        |_| AcceptsAnyLogin,
    )
}

/// A client that is this user.
fn user(server: &Server, sub: &str) -> Client {
    let mut client = server.client();
    client.call("login", sub);
    assert!(client.message().contains("#setAuthToken"));
    client
}

/// Waits until the server has carried out all that the client has asked for, and the client has got all that was sent
/// to it before; returns these messages.
fn rest(client: &mut Client) -> Vec<String> {
    let cid = client.begin_call("sync", "null");
    let end = format!("{{\"rid\":{cid}}}");
    std::iter::from_fn(|| Some(client.message()).filter(|message| *message != end)).collect()
}

/// The ids of all connections of a selection, by pages of this size.
fn ids(handle: &Handle, selection: &Selection, page: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = handle
            .connections(selection, after.as_deref(), page)
            .wait()
            .unwrap();
        found.extend(page.items.iter().map(|connection| connection.id.to_string()));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

#[test]
fn connections_are_found_by_user_channel_address_and_id() {
    let server = trusting();
    let handle = handle(&server);
    let mut clients: Vec<_> = (0..4).map(|_| user(&server, "\"ann\"")).collect();
    clients.extend((0..3).map(|_| user(&server, "5")));
    clients.extend((0..5).map(|_| server.client()));
    for client in clients.iter_mut().skip(2).step_by(3) {
        client.subscribe("news");
        client.subscribe("more");
    }
    // A connection before its handshake is none.
    let mut upgraded = server.connect();
    upgraded.upgrade();

    let of = |chosen: &dyn Fn(usize) -> bool| {
        let chosen = clients.iter().enumerate().filter(|(index, _)| chosen(*index));
        sorted(chosen.map(|(_, client)| client.id.clone()).collect())
    };
    let found = |selection: Selection| {
        let found = sorted(ids(&handle, &selection, 1000));
        for page in [1, 2, 5] {
            assert_eq!(
                sorted(ids(&handle, &selection, page)),
                found,
                "{selection:?} by {page}"
            );
        }
        found
    };
    assert_eq!(found(Selection::All), of(&|_| true));
    assert_eq!(found(Selection::User("ann".to_owned())), of(&|index| index < 4));
    assert_eq!(
        found(Selection::User("5".to_owned())),
        of(&|index| (4..7).contains(&index))
    );
    assert_eq!(found(Selection::User("an".to_owned())), of(&|_| false));
    assert_eq!(
        found(Selection::Channel("news".to_owned())),
        of(&|index| index % 3 == 2)
    );
    assert_eq!(found(Selection::Channel("new".to_owned())), of(&|_| false));
    assert_eq!(
        found(Selection::Address("127.0.0.1".parse().unwrap())),
        of(&|_| true)
    );
    assert_eq!(
        found(Selection::Address("127.0.0.2".parse().unwrap())),
        of(&|_| false)
    );
    let id: SessionId = clients[2].id.parse().unwrap();
    assert_eq!(found(Selection::Session(id)), of(&|index| index == 2));

    let page = handle
        .connections(&Selection::Session(id), None, 1)
        .wait()
        .unwrap();
    let connection = &page.items[0];
    assert_eq!(connection.address, Some(clients[2].stream.local_addr().unwrap()));
    assert_eq!(
        (connection.user.as_deref(), connection.subscriptions),
        (Some("ann"), 2)
    );
    assert_eq!(connection.waiting_bytes, 0);
    let now_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    assert!(
        u128::from(connection.since_unix_ms) <= now_ms + 20,
        "{connection:?}"
    );
    let names = |after: Option<&str>| handle.connection_channels(id, after, 1).wait().unwrap();
    let first = names(None);
    let second = names(first.next.as_deref());
    assert_eq!(sorted([first.items, second.items].concat()), ["more", "news"]);
    assert!(names(second.next.as_deref()).items.is_empty());

    let nobody: SessionId = "AAAAAAAAAAAAAAAAAAAA".parse().unwrap();
    assert_eq!(
        handle.connection_channels(nobody, None, 1).wait(),
        Err(HandleError::NoSuchConnection)
    );
    for cursor in ["", "1", "a.b", "0.-1"] {
        let page = handle.connections(&Selection::All, Some(cursor), 10).wait();
        assert_eq!(page, Err(HandleError::BadCursor), "{cursor}");
    }
}

#[test]
fn a_connection_that_stays_is_listed_once_whichever_others_come_and_go() {
    let server = trusting();
    let handle = handle(&server);
    let mut passing: Vec<_> = (0..20).map(|_| server.client()).collect();
    let staying: Vec<_> = (0..20).map(|_| server.client()).collect();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = handle
            .connections(&Selection::All, after.as_deref(), 3)
            .wait()
            .unwrap();
        found.extend(page.items.into_iter().map(|connection| connection.id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
        passing.remove(0);
        passing.push(server.client());
    }
    for client in &staying {
        let times = found.iter().filter(|id| **id == client.id).count();
        assert_eq!(times, 1);
    }
}

#[test]
fn channels_are_listed_by_prefix_with_the_subscribers_of_all_cores() {
    let server = server();
    let handle = handle(&server);
    let mut clients: Vec<_> = (0..12).map(|_| server.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.subscribe("room/all");
        client.subscribe(&format!("room/{}", index % 5));
        client.subscribe("other");
    }
    let list = |prefix: &str, page: usize| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = handle.channels(prefix, after.as_deref(), page).wait().unwrap();
            found.extend(
                page.items
                    .into_iter()
                    .map(|channel| (channel.name, channel.subscribers)),
            );
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let rooms = [
        ("room/0", 3),
        ("room/1", 3),
        ("room/2", 2),
        ("room/3", 2),
        ("room/4", 2),
        ("room/all", 12),
    ];
    let rooms: Vec<_> = rooms.map(|(name, count)| (name.to_owned(), count)).into();
    let all: Vec<_> = [("other".to_owned(), 12)]
        .into_iter()
        .chain(rooms.clone())
        .collect();
    for page in [1, 2, 3, 6, 7, 1000] {
        assert_eq!(list("room/", page), rooms, "by {page}");
        assert_eq!(list("", page), all, "by {page}");
    }
    assert_eq!(list("room/x", 10), []);
}

#[test]
fn members_of_a_channel_are_listed_page_by_page() {
    let server = Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(3);
            config.channels = vec![ChannelSpec {
                names: vec!["room.*".to_owned()],
                policy: ChannelPolicy {
                    presence: PresencePolicy::Members,
                    ..ChannelPolicy::default()
                },
                ..ChannelSpec::default()
            }];
        },
        |_| AcceptsAnyLogin,
    );
    let handle = handle(&server);
    let mut clients = ["\"ann\"", "\"bob\"", "\"ann\"", "\"cleo\""].map(|sub| user(&server, sub));
    for client in &mut clients {
        client.subscribe("room.1");
    }
    let info = r#"{"channel":"room.1","info":{"n":1}}"#;
    assert!(clients[1].call("$presence_info", info).starts_with("{\"rid\":"));
    eventually("all cores have told the owner", || {
        handle.presence_count("room.1").wait() == Ok(3)
    });
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = handle.presence("room.1", after.as_deref(), 2).wait().unwrap();
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut users: Vec<&str> = found.iter().filter_map(|member| member.user.as_deref()).collect();
    users.sort_unstable();
    assert_eq!(users, ["ann", "bob", "cleo"]);
    let bob = found
        .iter()
        .find(|member| member.user.as_deref() == Some("bob"))
        .unwrap();
    assert_eq!(bob.info.as_deref(), Some(r#"{"n":1}"#));
    let ids: Vec<String> = bob.connections.iter().map(ToString::to_string).collect();
    assert_eq!(ids, [clients[1].id.as_str()]);
    assert_eq!(handle.presence_count("plain").wait(), Ok(0));
    assert!(
        handle
            .presence("plain", None, 10)
            .wait()
            .unwrap()
            .items
            .is_empty()
    );
    let error = handle.presence("room.1", Some("x"), 10).wait();
    assert_eq!(error, Err(HandleError::BadCursor));
}

#[test]
fn connections_are_closed_with_the_code_and_the_reason() {
    let server = trusting();
    let handle = handle(&server);
    let mut anns: Vec<_> = (0..4).map(|_| user(&server, "\"ann\"")).collect();
    let mut bob = user(&server, "\"bob\"");
    let code = CloseCode::new(4900).unwrap();
    let ann = Selection::User("ann".to_owned());
    assert_eq!(handle.disconnect(&ann, code, "moved").wait(), Ok(4));
    for ann in &mut anns {
        assert_eq!(ann.close_frame(), (Some(4900), "moved".to_owned()));
    }
    assert!(rest(&mut bob).is_empty());
    assert_eq!(handle.disconnect(&ann, code, "moved").wait(), Ok(0));
}

#[test]
fn a_client_that_is_unsubscribed_is_told_and_gets_nothing_more() {
    let server = trusting();
    let handle = handle(&server);
    let mut clients: Vec<_> = (0..6).map(|_| user(&server, "\"ann\"")).collect();
    for client in &mut clients {
        client.subscribe("a");
        client.subscribe("b");
    }
    let mut stranger = subscribed(&server, "a");
    let ann = Selection::User("ann".to_owned());
    let unsubscribe = |channel, message| {
        handle
            .unsubscribe_connections(&ann, channel, message)
            .wait()
            .unwrap()
    };
    assert_eq!(unsubscribe(Some("a"), Some("full \"up\"")), 6);
    assert_eq!(unsubscribe(Some("a"), None), 0);
    handle.publish("a", "x").wait().unwrap();
    for client in &mut clients {
        assert_eq!(
            rest(client),
            [r##"{"event":"#kickOut","data":{"channel":"a","message":"full \"up\""}}"##]
        );
    }
    assert_eq!(stranger.publication("a"), "\"x\"");
    assert_eq!(unsubscribe(None, None), 6);
    for client in &mut clients {
        assert_eq!(rest(client), [r##"{"event":"#kickOut","data":{"channel":"b"}}"##]);
    }
    assert_eq!(unsubscribe(None, None), 0);
}

#[test]
fn a_client_that_is_subscribed_by_the_server_is_told_before_the_first_publication() {
    let server = Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(3);
            config.limits.channels_per_connection_max = 1;
        },
        |_| AcceptsAnyLogin,
    );
    let handle = handle(&server);
    let mut ann = user(&server, "\"ann\"");
    let mut full = user(&server, "\"ann\"");
    full.subscribe("other");
    let selected = Selection::User("ann".to_owned());
    assert_eq!(handle.subscribe_connections(&selected, "news").wait(), Ok(2));
    handle.publish("news", "x").wait().unwrap();
    assert_eq!(
        [ann.message(), ann.message()],
        [
            r#"{"event":"$subscribed","data":{"channel":"news"}}"#,
            r##"{"event":"#publish","data":{"channel":"news","data":"x"}}"##,
        ]
    );
    // A connection with as many channels as it may have is left as it is.
    assert!(rest(&mut full).is_empty());
}

#[test]
fn rules_hold_for_subscriptions_by_the_server() {
    let server = Server::start_with(
        |config| {
            config.permissions.rules = vec![RuleSpec {
                effect: Effect::Allow,
                actions: vec![Action::Subscribe],
                channels: Some(vec!["all".to_owned(), "own.{sub}".to_owned()]),
                ..RuleSpec::default()
            }];
        },
        |_| AcceptsAnyLogin,
    );
    let handle = handle(&server);
    let mut client = server.client();
    let subscribe = |channel| handle.subscribe_connections(&Selection::All, channel).wait();
    assert_eq!(subscribe("all"), Ok(1));
    assert_eq!(subscribe("own.ann"), Ok(0));
    assert_eq!(
        client.message(),
        r#"{"event":"$subscribed","data":{"channel":"all"}}"#
    );
}

#[test]
fn events_reach_the_clients_of_a_selection_and_no_others() {
    let server = trusting();
    let handle = handle(&server);
    let mut anns: Vec<_> = (0..3).map(|_| user(&server, "\"ann\"")).collect();
    let mut bob = user(&server, "\"bob\"");
    let ann = Selection::User("ann".to_owned());
    assert_eq!(handle.transmit(&ann, "hello", &[1, 2]).wait(), Ok(3));
    assert_eq!(handle.transmit_json(&ann, "bye", None).wait(), Ok(3));
    assert_eq!(
        handle.transmit_json(&ann, "bye", Some("{")).wait(),
        Err(HandleError::NotJson)
    );
    for ann in &mut anns {
        assert_eq!(
            rest(ann),
            [r#"{"event":"hello","data":[1,2]}"#, r#"{"event":"bye"}"#]
        );
    }
    assert!(rest(&mut bob).is_empty());
}

#[test]
fn a_core_that_stands_still_is_named_and_the_others_answer() {
    let (server, has_stopped, let_go_on) = with_stops(|_| {});
    let (mut still, mut other) = (client_of(&server, 1), client_of(&server, 0));
    still.begin_call("stop", "null");
    has_stopped.recv().unwrap();
    let handle = handle(&server);
    assert_eq!(
        handle.transmit(&Selection::All, "hello", "x").wait(),
        Err(HandleError::Unanswered { cores: vec![1] })
    );
    assert_eq!(other.message(), r#"{"event":"hello","data":"x"}"#);
    let_go_on.send(()).unwrap();
    assert_eq!(
        handle
            .transmit(&Selection::All, "again", "x")
            .wait()
            .map(|count| count >= 2),
        Ok(true)
    );
}

fn id(client: &Client) -> SessionId {
    client.id.parse().unwrap()
}

/// The call id of a message that must be a call of this event.
#[track_caller]
fn called(message: &str, event: &str) -> u64 {
    let packet: serde_json::Value = serde_json::from_str(message).unwrap();
    assert_eq!(packet["event"], event, "{message}");
    packet["cid"].as_u64().unwrap()
}

#[test]
fn a_client_is_called_and_its_answer_comes_back() {
    let server = trusting();
    let handle = handle(&server);
    let mut clients: Vec<_> = (0..6).map(|_| server.client()).collect();
    thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            let handle = handle.clone();
            let id = id(client);
            let call = scope.spawn(move || handle.call(id, "double", &number, PATIENCE).wait());
            let message = client.message();
            let cid = called(&message, "double");
            assert!(message.ends_with(&format!("\"data\":{number}}}")), "{message}");
            client.send_text(&format!("{{\"rid\":{cid},\"data\":{}}}", 2 * number));
            assert_eq!(call.join().unwrap(), Ok(Some((2 * number).to_string())));
        }
    });
    let client = &mut clients[0];
    let call = |event: &'static str| {
        let (handle, id) = (handle.clone(), id(client));
        thread::spawn(move || handle.call_json(id, event, None, PATIENCE).wait())
    };
    let (nothing, refuse) = (call("nothing"), call("refuse"));
    for _ in 0..2 {
        let message = client.message();
        if message.contains("nothing") {
            let cid = called(&message, "nothing");
            client.send_text(&format!("{{\"rid\":{cid}}}"));
        } else {
            let cid = called(&message, "refuse");
            client.send_text(&format!(r#"{{"rid":{cid},"error":{{"message":"no"}}}}"#));
        }
    }
    assert_eq!(nothing.join().unwrap(), Ok(None));
    let error = r#"{"message":"no"}"#.to_owned();
    assert_eq!(refuse.join().unwrap(), Err(HandleError::ClientRefused { error }));
}

#[test]
fn a_call_without_an_answer_ends_with_the_reason() {
    let server = Server::start_with(
        |config| config.limits.calls_per_connection_max = 1,
        |_| AcceptsAnyLogin,
    );
    let handle = handle(&server);
    let mut client = server.client();
    let id = id(&client);
    let nobody: SessionId = "AAAAAAAAAAAAAAAAAAAA".parse().unwrap();
    let call = |id, within| handle.call(id, "wait", "x", within);
    assert_eq!(call(nobody, PATIENCE).wait(), Err(HandleError::NoSuchConnection));
    assert_eq!(
        call(id, Duration::from_millis(1)).wait(),
        Err(HandleError::NoAnswer)
    );
    called(&client.message(), "wait");
    // The call that is given up still waits for the client.
    assert_eq!(call(id, PATIENCE).wait(), Err(HandleError::TooManyCalls));
    drop(client);

    let mut client = server.client();
    let id = client.id.parse().unwrap();
    let waiting = thread::spawn({
        let handle = handle.clone();
        move || handle.call(id, "wait", "x", PATIENCE).wait()
    });
    called(&client.message(), "wait");
    drop(client);
    assert_eq!(waiting.join().unwrap(), Err(HandleError::NoAnswer));
}

/// Answers a call of this event with the rest of a packet: `"data":…` or `"error":…`.
#[track_caller]
fn answer(client: &mut Client, event: &str, rest: &str) {
    let cid = called(&client.message(), event);
    client.send_text(&format!("{{\"rid\":{cid},{rest}}}"));
}

/// The results of answers, by the ids of these clients.
fn results<'a>(
    answers: &[ClientAnswer],
    clients: impl IntoIterator<Item = &'a Client>,
) -> Vec<Result<Option<String>, ClientFailure>> {
    let of = |client: &Client| {
        answers
            .iter()
            .find(|answer| answer.id == id(client))
            .unwrap()
            .result
            .clone()
    };
    clients.into_iter().map(of).collect()
}

#[test]
fn all_connections_of_a_user_are_called_and_each_answer_or_failure_comes_back() {
    let server = Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(3);
            config.limits.calls_per_connection_max = 1;
        },
        |_| AcceptsAnyLogin,
    );
    let handle = handle(&server);
    let mut anns: Vec<_> = (0..5).map(|_| user(&server, "\"ann\"")).collect();
    let mut bob = user(&server, "\"bob\"");
    let ann = Selection::User("ann".to_owned());
    let call = |within| {
        let (handle, ann) = (handle.clone(), ann.clone());
        thread::spawn(move || {
            handle
                .call_clients(&ann, "where", &1, within, Answers::All)
                .wait()
        })
    };
    // The fifth still owes an answer to an earlier call.
    let owing = Selection::Session(id(&anns[4]));
    let short = Duration::from_millis(300);
    let unanswered = handle
        .call_clients(&owing, "owed", &1, short, Answers::All)
        .wait()
        .unwrap()
        .answers;
    assert_eq!(results(&unanswered, [&anns[4]]), [Err(ClientFailure::NoAnswer)]);
    called(&anns[4].message(), "owed");
    let answers = call(PATIENCE);
    answer(&mut anns[0], "where", "\"data\":\"here\"");
    answer(&mut anns[1], "where", "\"error\":{\"message\":\"no\"}");
    let cid = called(&anns[2].message(), "where");
    anns[2].send_text(&format!("{{\"rid\":{cid}}}"));
    let third = anns.remove(3);
    let third_id = id(&third);
    drop(third);
    let called = answers.join().unwrap().unwrap();
    assert!(called.is_complete);
    let answers = called.answers;
    let error = r#"{"message":"no"}"#.to_owned();
    assert_eq!(
        results(&answers, &anns),
        [
            Ok(Some("\"here\"".to_owned())),
            Err(ClientFailure::Refused { error }),
            Ok(None),
            Err(ClientFailure::TooManyCalls),
        ]
    );
    let of_third = answers.iter().find(|answer| answer.id == third_id);
    assert_eq!(
        of_third.map(|answer| &answer.result),
        Some(&Err(ClientFailure::NoAnswer))
    );
    assert_eq!(answers.len(), 5);
    // What is known when the time is over is returned.
    let answers = call(Duration::from_millis(300));
    answer(&mut anns[0], "where", "\"data\":2");
    let called = answers.join().unwrap().unwrap();
    assert!(called.is_complete, "all clients were called in time");
    let answers = called.answers;
    assert_eq!(
        results(&answers, &anns)[..2],
        [Ok(Some("2".to_owned())), Err(ClientFailure::NoAnswer)]
    );
    assert!(rest(&mut bob).is_empty());
    let nobody = Selection::User("carl".to_owned());
    let answers = handle
        .call_clients(&nobody, "where", &1, PATIENCE, Answers::All)
        .wait()
        .unwrap();
    assert!(answers.answers.is_empty() && answers.is_complete);
}

#[test]
fn clients_of_a_core_that_stands_still_are_no_silent_gap_among_the_answers() {
    for answers in [Answers::All, Answers::First] {
        let (server, has_stopped, let_go_on) = with_stops(|_| {});
        let (mut still, mut other) = (client_of(&server, 1), client_of(&server, 0));
        still.begin_call("stop", "null");
        has_stopped.recv().unwrap();
        let handle = handle(&server);
        let call = thread::spawn(move || {
            let short = Duration::from_millis(500);
            handle
                .call_clients(&Selection::All, "where", &1, short, answers)
                .wait()
        });
        answer(&mut other, "where", "\"error\":1");
        let called = call.join().unwrap().unwrap();
        assert!(!called.is_complete, "{called:?}");
        assert!(called.answers.iter().any(|answer| answer.id == id(&other)));
        let_go_on.send(()).unwrap();
    }
}

#[test]
fn the_first_answer_of_a_user_is_enough_if_asked_for_and_failures_are_none() {
    let server = trusting();
    let handle = handle(&server);
    let mut anns: Vec<_> = (0..4).map(|_| user(&server, "\"ann\"")).collect();
    let call = || {
        let handle = handle.clone();
        let ann = Selection::User("ann".to_owned());
        thread::spawn(move || {
            handle
                .call_clients_json(&ann, "where", None, PATIENCE, Answers::First)
                .wait()
        })
    };
    let first = call();
    answer(&mut anns[0], "where", "\"error\":\"no\"");
    answer(&mut anns[3], "where", "\"data\":3");
    let first = first.join().unwrap().unwrap().answers;
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(results(&first, [&anns[3]]), [Ok(Some("3".to_owned()))]);
    for ann in &mut anns[1..3] {
        answer(ann, "where", "\"data\":1");
    }
    let none = call();
    for ann in &mut anns {
        answer(ann, "where", "\"error\":\"no\"");
    }
    let none = none.join().unwrap().unwrap().answers;
    assert_eq!(none.len(), 4);
    assert!(none.iter().all(|answer| answer.result.is_err()), "{none:?}");
}

/// The claims of the token that a `#setAuthToken` gives.
#[track_caller]
fn given_claims(server: &Server, message: &str) -> serde_json::Value {
    let packet: serde_json::Value = serde_json::from_str(message).unwrap();
    assert_eq!(packet["event"], "#setAuthToken", "{message}");
    let mut other = server.client();
    let status = other.call("#authenticate", &packet["data"]["token"].to_string());
    assert!(status.contains(r#""isAuthenticated":true"#), "{status}");
    let token = packet["data"]["token"].as_str().unwrap();
    let payload = token.split('.').nth(1).unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    serde_json::from_slice(&payload.unwrap()).unwrap()
}

#[test]
fn tokens_are_given_refreshed_and_taken_away_and_the_rules_follow() {
    let server = Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(3);
            let subscribe = RuleSpec {
                effect: Effect::Allow,
                actions: vec![Action::Subscribe],
                channels: Some(vec!["all".to_owned(), "own.{sub}".to_owned()]),
                ..RuleSpec::default()
            };
            let invoke = RuleSpec {
                effect: Effect::Allow,
                actions: vec![Action::Invoke],
                ..RuleSpec::default()
            };
            config.permissions.rules = vec![subscribe, invoke];
        },
        |_| AcceptsAnyLogin,
    );
    let handle = handle(&server);
    let mut client = server.client();
    let it = Selection::Session(id(&client));
    // Without a token there is nothing to refresh or to take away.
    assert_eq!(handle.refresh_token(&it, None).wait(), Ok(0));
    assert_eq!(handle.remove_token(&it).wait(), Ok(0));
    let claims = json!({"sub": "ann", "plan": "gold"});
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(handle.set_claims(&it, &claims, hour).wait(), Ok(1));
    let first = given_claims(&server, &client.message());
    assert_eq!((&first["sub"], &first["plan"]), (&json!("ann"), &json!("gold")));
    assert_eq!(first["exp"].as_u64(), first["iat"].as_u64().map(|at| at + 3600));
    let ann = Selection::User("ann".to_owned());
    let connected = handle.connections(&ann, None, 10).wait().unwrap();
    // `given_claims` has made another connection of the user, which has ended or will.
    assert!(connected.items.iter().any(|one| one.id == id(&client)));
    assert_eq!(
        handle.refresh_token(&it, Some(Duration::from_secs(60))).wait(),
        Ok(1)
    );
    let second = given_claims(&server, &client.message());
    assert_eq!((&second["sub"], &second["plan"]), (&json!("ann"), &json!("gold")));
    assert_eq!(second["exp"].as_u64(), second["iat"].as_u64().map(|at| at + 60));
    client.subscribe("own.ann");
    client.subscribe("all");
    assert_eq!(handle.remove_token(&it).wait(), Ok(1));
    let kicked = client.message();
    assert!(
        kicked.contains("#kickOut") && kicked.contains("own.ann"),
        "{kicked}"
    );
    assert_eq!(client.message(), r##"{"event":"#removeAuthToken"}"##);
    assert_eq!(handle.remove_token(&it).wait(), Ok(0));
    // Claims that cannot be signed close no connection.
    for wrong in [json!([1]), json!("ann"), json!({"exp": "soon"})] {
        assert_eq!(
            handle.set_claims(&it, &wrong, None).wait(),
            Err(HandleError::NotSigned),
            "{wrong}"
        );
    }
    assert!(rest(&mut client).is_empty());
}

/// Receives until `total` publications were received or missed, whose data are their numbers; returns how many were
/// received.
fn follow(subscriber: &mut Subscriber, total: u64) -> u64 {
    let (mut next, mut received) = (0, 0);
    while next < total {
        match subscriber.wait() {
            Received::Publication { data, .. } => {
                assert_eq!(data, Some(next.to_string()));
                next += 1;
                received += 1;
            }
            Received::Missed { count } => {
                assert!(count > 0);
                next += count;
            }
            Received::Ended => panic!("the server has ended"),
        }
    }
    assert_eq!((next, subscriber.try_next()), (total, None));
    received
}

#[test]
fn the_program_receives_what_is_published_from_its_subscription_on() {
    let server = server();
    let handle = handle(&server);
    for channel in ["a", "b", "c", "d", "e", "f"] {
        handle.publish(channel, "before").wait().unwrap();
        let mut subscriber = server.running().subscribe(channel, 1000).wait().unwrap();
        let mut client = server.client();
        for number in 0..50 {
            if number % 2 == 0 {
                handle.publish(channel, &number).wait().unwrap();
            } else {
                client.publish(channel, &number.to_string());
                client.ping();
            }
            handle.publish("other", &number).wait().unwrap();
        }
        assert_eq!(follow(&mut subscriber, 50), 50);
        handle.publish_json(channel, None).wait().unwrap();
        let position = None;
        assert_eq!(subscriber.wait(), Received::Publication { data: None, position });
    }
}

#[test]
fn a_program_that_lags_is_told_how_many_publications_are_missing_and_where() {
    const TOTAL: u64 = 20;
    let server = server();
    let handle = handle(&server);
    let mut subscriber = handle.subscribe("news", 4).wait().unwrap();
    for number in 0..TOTAL {
        handle.publish("news", &number).wait().unwrap();
    }
    eventually("the core has copied all", || {
        server.limit_hits(Limit::SubscriberQueue) == TOTAL - 4
    });
    assert_eq!(follow(&mut subscriber, TOTAL), 4);
    // It goes on where it is.
    handle.publish("news", "more").wait().unwrap();
    let (data, position) = (Some("\"more\"".to_owned()), None);
    assert_eq!(subscriber.wait(), Received::Publication { data, position });
}

#[test]
fn a_program_that_lags_gets_missed_publications_from_the_history() {
    let server = Server::start(|config| {
        config.channels.push(ChannelSpec {
            names: vec!["news".to_owned()],
            policy: ChannelPolicy {
                history: Some(HistoryPolicy {
                    entries_max: 100,
                    bytes_max: 1 << 20,
                    age_ms_max: 3_600_000,
                }),
                position: true,
                ..ChannelPolicy::default()
            },
            ..ChannelSpec::default()
        });
    });
    let handle = handle(&server);
    let mut subscriber = handle.subscribe("news", 3).wait().unwrap();
    for number in 0..10 {
        handle.publish("news", &number).wait().unwrap();
    }
    eventually("the core has copied all", || {
        server.limit_hits(Limit::SubscriberQueue) == 7
    });
    let mut last = None;
    for _ in 0..3 {
        let Received::Publication { position, .. } = subscriber.wait() else {
            panic!("three fit into the queue");
        };
        last = position;
    }
    assert_eq!(subscriber.wait(), Received::Missed { count: 7 });
    let Position { epoch, offset } = last.unwrap();
    let missed = handle.history("news", HistoryQuery::After { epoch, offset }, 1000);
    let missed = missed.wait().unwrap();
    let missed: Vec<_> = missed
        .publications()
        .map(|entry| entry.data.map(str::to_owned))
        .collect();
    let expected: Vec<_> = (3..10).map(|number| Some(number.to_string())).collect();
    assert_eq!(missed, expected);
}

#[test]
fn whatever_a_lagging_program_reads_and_misses_adds_up() {
    const TOTAL: u64 = 5000;
    let server = server();
    let handle = handle(&server);
    for capacity in [1, 2, 7, 64] {
        let mut subscriber = handle.subscribe("news", capacity).wait().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| follow(&mut subscriber, TOTAL));
            for number in 0..TOTAL {
                handle.publish("news", &number).wait().unwrap();
            }
        });
    }
}

#[test]
fn bytes_in_the_queue_of_a_subscriber_are_bounded() {
    let server = Server::start(|config| config.limits.message_bytes_max = 8 * 1024 * 1024);
    let handle = handle(&server);
    let mut subscriber = handle.subscribe("news", 100).wait().unwrap();
    let large = "x".repeat(6 * 1024 * 1024);
    for _ in 0..4 {
        handle.publish("news", &large).wait().unwrap();
    }
    eventually("the core has copied all", || {
        server.limit_hits(Limit::SubscriberQueue) == 2
    });
    for _ in 0..2 {
        assert!(matches!(subscriber.wait(), Received::Publication { .. }));
    }
    assert_eq!(subscriber.wait(), Received::Missed { count: 2 });
    handle.publish("news", &large).wait().unwrap();
    assert!(matches!(subscriber.wait(), Received::Publication { .. }));
}

#[test]
fn a_subscriber_of_the_program_ends_with_the_server_or_when_it_is_dropped() {
    let server = server();
    let handle = handle(&server);
    let subscribe = |channel: &str| handle.subscribe(channel, 1).wait();
    let mut subscribers: Vec<_> = (0..1024)
        .map(|number| subscribe(&format!("c{number}")).unwrap())
        .collect();
    assert!(matches!(subscribe("one more"), Err(HandleError::Busy)));
    subscribers.truncate(3);
    assert!(subscribe("one more").is_ok());

    let waiting: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| thread::spawn(move || subscriber.wait()))
        .collect();
    drop(server);
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), Received::Ended);
    }
    assert!(matches!(subscribe("c"), Err(HandleError::Ended)));
}

#[test]
fn a_subscriber_can_be_awaited_on_any_runtime() {
    let server = server();
    let handle = handle(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut subscriber = handle.subscribe("news", 10).await.unwrap();
        for number in 0..100 {
            let publish = handle.publish("news", &number);
            let (received, published) = tokio::join!(subscriber.next(), publish);
            published.unwrap();
            let (data, position) = (Some(number.to_string()), None);
            assert_eq!(received, Received::Publication { data, position });
        }
    });
}

#[test]
fn what_a_channel_remembers_is_read_from_any_thread_and_removed() {
    const KEPT: u32 = 10;
    let server = Server::start(|config| {
        config.cores.placement = Placement::Count(3);
        config.channels.push(ChannelSpec {
            names: vec!["kept.*".to_owned()],
            policy: ChannelPolicy {
                history: Some(HistoryPolicy {
                    entries_max: KEPT,
                    bytes_max: 1 << 20,
                    age_ms_max: 3_600_000,
                }),
                position: true,
                ..ChannelPolicy::default()
            },
            ..ChannelSpec::default()
        });
    });
    let handle = handle(&server);
    let mut client = server.client();
    let numbers = |history: &History| -> Vec<u32> {
        let data = history.publications().map(|publication| publication.data);
        data.map(|data| data.unwrap().parse().unwrap()).collect()
    };
    for channel in ["kept.a", "kept.b", "kept.c", "kept.d"] {
        let read = |query, limit| handle.history(channel, query, limit).wait().unwrap();
        let after = |position: &Position| {
            let Position { epoch, offset } = position.clone();
            read(HistoryQuery::After { epoch, offset }, 1000)
        };
        let known = |history: History| (numbers(&history), history.unknown());
        assert_eq!(known(read(HistoryQuery::Last, 5)), (vec![], None));

        let mut positions = Vec::new();
        for number in 0..15 {
            // What a client publishes is remembered with it.
            if number == 7 {
                client.publish(channel, "7");
                client.ping();
                continue;
            }
            let receipt = handle.publish(channel, &number).wait().unwrap();
            let position = receipt.position.unwrap();
            // What the program has published before is there.
            let newest = read(HistoryQuery::Last, 1);
            assert_eq!(numbers(&newest), [number]);
            assert_eq!(newest.publications().next().unwrap().offset, position.offset);
            assert_eq!(newest.epoch(), position.epoch);
            positions.push((number, position));
        }
        let all: Vec<_> = (15 - KEPT..15).collect();
        assert_eq!(known(read(HistoryQuery::Last, 100)), (all.clone(), None));
        assert_eq!(known(read(HistoryQuery::Since(0), 100)), (all, Some("evicted")));
        let newest_at = read(HistoryQuery::Last, 1).publications().next().unwrap().unix_ms;
        let since = known(read(HistoryQuery::Since(newest_at + 1), 100));
        assert_eq!(since, (vec![], None));
        assert_eq!(known(read(HistoryQuery::Last, 3)), (vec![12, 13, 14], None));
        for (number, position) in &positions {
            let expected = if number + 1 < 15 - KEPT {
                (vec![], Some("evicted"))
            } else {
                ((number + 1..15).collect(), None)
            };
            assert_eq!(known(after(position)), expected, "{number}");
        }
        for epoch in ["zzzzzzzz", "", "no epoch"] {
            let (epoch, offset) = (epoch.to_owned(), positions[13].1.offset);
            let other = known(after(&Position { epoch, offset }));
            assert_eq!(other, (vec![], Some("other epoch")));
        }

        assert_eq!(handle.remove_history(channel).wait(), Ok(u64::from(KEPT)));
        assert_eq!(known(read(HistoryQuery::Last, 100)), (vec![], None));
        assert_eq!(known(after(&positions[13].1)), (vec![], None));
        assert_eq!(known(after(&positions[12].1)), (vec![], Some("evicted")));
        assert_eq!(handle.remove_history(channel).wait(), Ok(0));
        handle.publish(channel, &99).wait().unwrap();
        assert_eq!(known(read(HistoryQuery::Last, 100)), (vec![99], None));
    }
    assert_eq!(handle.publish("plain", "x").wait().unwrap().position, None);
    let plain = handle.history("plain", HistoryQuery::Last, 1).wait().unwrap();
    assert_eq!((numbers(&plain), plain.unknown()), (vec![], Some("no history")));
    assert!(plain.is_off());
}

/// An application that needs time for each change of a client's claims, as an RSA key needs for each token.
struct Slow;

impl App for Slow {
    fn invoke(&mut self, _call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        peer.reply_empty()
    }

    fn user_changed(&mut self, _client: &mut ringcast::app::Client<'_>) {
        thread::sleep(TIME_OF_ONE);
    }
}

const TIME_OF_ONE: Duration = Duration::from_millis(15);

/// The core needs more time for all of them than it has to answer one question.
#[test]
fn an_operation_on_many_connections_lasts_as_long_as_they_need_and_each_has_it_once() {
    const CLIENTS: usize = 400;
    let server = Server::start_with(|config| config.cores.placement = Placement::Count(1), |_| Slow);
    let handle = handle(&server);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
    let claims = json!({ "sub": "ann" });
    let set = handle.set_claims(&Selection::All, &claims, None).wait();
    assert_eq!(set, Ok(CLIENTS as u64));
    for client in &mut clients {
        let messages = rest(client);
        assert!(
            matches!(&messages[..], [given] if given.contains("#setAuthToken")),
            "{messages:?}"
        );
    }
}
