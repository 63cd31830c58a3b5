//! The handle of a running server: what other threads do with it, seen by clients on several cores.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use ringcast::app::{App, Call, CallAnswer, Peer};
use ringcast::config::Placement;
use ringcast::server::{Handle, HandleError, Receipt};
use serde_json::json;
use support::{Client, Server};

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
fn names_and_data_are_checked_as_those_of_clients() {
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
struct Still {
    stopped: Sender<()>,
    go_on: Receiver<()>,
    handle: Arc<OnceLock<Handle>>,
}

impl App for Still {
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

#[test]
fn a_ring_without_room_refuses_the_program_and_leaves_half_of_it_to_clients() {
    const SLOTS: u32 = 64;
    let (stopped, has_stopped) = bounded(1);
    let (let_go_on, go_on) = bounded(1);
    let server = Server::start_with(
        |config| config.limits.ring_slots = SLOTS,
        |_| Still {
            stopped: stopped.clone(),
            go_on: go_on.clone(),
            handle: Arc::default(),
        },
    );
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
        |_| Still {
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
fn publications_are_counted_by_what_became_of_them() {
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
