//! While a core delivers a publication to many subscribers, it serves its other clients.
//!
//! The tests count instead of measuring time: the core is kept busy until all input has arrived in its sockets, and the
//! publication is so large that one turn cannot queue it for all subscribers.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};
use ringcast::app::Claims;
use ringcast::app::CloseReason;
use ringcast::app::{App, Call, CallAnswer, Peer, Refusal};
use ringcast::config::Placement;
use support::{Client, Server, eventually, publication};

const SUBSCRIBERS: usize = 300;

/// Data so large that a turn can queue it for half of the subscribers.
fn data(number: usize) -> String {
    format!(r#"["{number}","{}"]"#, "x".repeat(30_000))
}

/// An application that keeps its core busy until the test releases it, and answers how many deliveries there have been,
/// or how many subscriptions there are.
struct Busy {
    entered: Sender<()>,
    released: Receiver<()>,
    counts: Arc<OnceLock<Counts>>,
}

/// Returns the number of the turn.
type Turn = Box<dyn Fn() -> u64 + Send + Sync>;

/// Returns the number of deliveries or of subscriptions, by the name of the call.
type Counts = Box<dyn Fn(Option<&str>) -> u64 + Send + Sync>;

impl App for Busy {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match call.event.as_str() {
            Some("busy") => {
                self.entered.send(()).unwrap();
                self.released.recv().unwrap();
                peer.reply_empty()
            }
            name => peer.reply(&self.counts.get().unwrap()(name)),
        }
    }
}

/// A server with one core and subscribers of `news`, in the order in which they subscribed.
struct Crowd {
    server: Server,
    subscribers: Vec<Client>,
    busy: Client,
    entered: Receiver<()>,
    release: Sender<()>,
}

impl Crowd {
    fn gather() -> Crowd {
        let (entered, entering) = bounded(1);
        let (release, released) = bounded(1);
        let counts = Arc::new(OnceLock::<Counts>::new());
        let server = Server::start_with(
            |config| {
                config.cores.placement = Placement::Count(1);
                config.admin.address = Some(([127, 0, 0, 1], 0).into());
            },
            |_| Busy {
                entered: entered.clone(),
                released: released.clone(),
                counts: Arc::clone(&counts),
            },
        );
        let core = server.running().cores()[0].clone();
        let read = move |name: Option<&str>| match name {
            Some("subscribed") => core.metrics().subscriptions.value(),
            _ => core.metrics().deliveries.value(),
        };
        assert!(counts.set(Box::new(read)).is_ok());
        let subscribers = (0..SUBSCRIBERS)
            .map(|_| {
                let mut client = server.client();
                client.subscribe("news");
                client
            })
            .collect();
        Crowd {
            busy: server.client(),
            server,
            subscribers,
            entered: entering,
            release,
        }
    }

    /// Keeps the core busy while `send` fills the sockets, so that the core finds all of it in one turn.
    fn at_once(&mut self, send: impl FnOnce(&mut Vec<Client>)) {
        self.busy.begin_call("busy", "null");
        self.entered.recv().unwrap();
        send(&mut self.subscribers);
        self.release.send(()).unwrap();
        self.busy.message();
    }
}

/// The end of a client with 5,000 subscriptions once took a millisecond in one turn, for which all others waited.
#[test]
fn others_are_answered_before_the_many_subscriptions_of_a_client_that_has_gone_are_ended() {
    const CHANNELS: usize = 5000;
    let mut crowd = Crowd::gather();
    let (mut gone, mut other) = (crowd.server.client(), crowd.server.client());
    gone.subscribe("news");
    for number in 1..CHANNELS {
        gone.subscribe(&format!("channel {number}"));
    }
    crowd.at_once(|_| {
        drop(gone);
        other.begin_call("subscribed", "null");
    });
    let left = count_of(&other.message());
    assert!(left > SUBSCRIBERS + CHANNELS / 2, "{left}");
    // A client that comes meanwhile gets nothing of the channels, whichever place it takes.
    let (mut next, mut publisher) = (crowd.server.client(), crowd.server.client());
    publisher.publish("channel 4999", &data(1));
    publisher.publish("news", &data(2));
    for client in &mut crowd.subscribers {
        assert_eq!(client.publication("news"), data(2));
    }
    eventually("no subscription of the client is left", || {
        count_of(&other.call("subscribed", "null")) == SUBSCRIBERS
    });
    assert!(next.call("delivered", "null").starts_with(r#"{"rid":"#));
    let metrics = crowd.server.running().cores()[0].metrics();
    eventually("its place is free", || {
        metrics.connections.value() == SUBSCRIBERS as u64 + 4
    });
}

fn count_of(answer: &str) -> usize {
    let (_, count) = answer.rsplit_once(':').unwrap();
    count.trim_end_matches('}').parse().unwrap()
}

#[test]
fn others_are_answered_before_a_publication_to_many_is_delivered() {
    let mut crowd = Crowd::gather();
    let (mut publisher, mut other) = (crowd.server.client(), crowd.server.client());
    crowd.at_once(|_| {
        publisher.publish("news", &data(1));
        other.begin_call("delivered", "null");
    });
    let delivered = count_of(&other.message());
    assert!(delivered < SUBSCRIBERS, "{delivered}");
    for client in &mut crowd.subscribers {
        assert_eq!(client.publication("news"), data(1));
    }
    assert!(crowd.server.total(|core| &core.deliveries_paused) > 0);
    assert_eq!(crowd.server.total(|core| &core.deliveries), SUBSCRIBERS as u64);
}

#[test]
fn answers_to_a_publisher_come_after_its_own_copy() {
    let mut crowd = Crowd::gather();
    // The publisher is the first or the last subscriber: one of the two is reached last.
    for at in [0, SUBSCRIBERS - 1] {
        let mut cids = Vec::new();
        crowd.at_once(|subscribers| {
            let publish = format!(r#"{{"channel":"news","data":{}}}"#, data(at));
            cids.push(subscribers[at].begin_call("#publish", &publish));
            cids.push(subscribers[at].begin_call("delivered", "null"));
        });
        let publisher = &mut crowd.subscribers[at];
        assert_eq!(publisher.publication("news"), data(at));
        assert_eq!(publisher.message(), format!(r#"{{"rid":{}}}"#, cids[0]));
        publisher.message();
        for (number, client) in crowd.subscribers.iter_mut().enumerate() {
            if number != at {
                assert_eq!(client.publication("news"), data(at));
            }
        }
    }
}

#[test]
fn subscribing_and_leaving_during_a_publication_disturbs_no_subscriber() {
    let mut crowd = Crowd::gather();
    let (mut publisher, mut guest) = (crowd.server.client(), crowd.server.client());
    let leaves = |number: usize| number % 10 == 3;
    let vanishes = |number: usize| number % 10 == 6;
    let (mut answer_to_guest, mut answers) = (0, vec![0; SUBSCRIBERS]);
    crowd.at_once(|subscribers| {
        publisher.publish("news", &data(1));
        answer_to_guest = guest.begin_call("#subscribe", r#"{"channel":"news"}"#);
        for (number, client) in subscribers.iter_mut().enumerate() {
            if leaves(number) {
                answers[number] = client.begin_call("#unsubscribe", r#""news""#);
            } else if vanishes(number) {
                client.send_fin();
            }
        }
    });
    // The new subscriber gets nothing that was published before, neither before the answer nor after it.
    assert_eq!(guest.message(), format!(r#"{{"rid":{answer_to_guest}}}"#));
    let gone = (0..SUBSCRIBERS).filter(|&number| vanishes(number)).count() as u64;
    eventually("who has vanished is gone", || {
        crowd.server.closes(CloseReason::PeerVanished) == gone
    });
    let left = (0..SUBSCRIBERS).filter(|&number| leaves(number)).count() as u64;
    eventually("who has left has left", || {
        crowd.server.total(|core| &core.subscriptions) == SUBSCRIBERS as u64 + 1 - gone - left
    });
    publisher.publish("news", &data(2));
    assert_eq!(guest.publication("news"), data(2));
    for (number, client) in crowd.subscribers.iter_mut().enumerate() {
        if vanishes(number) {
            continue;
        }
        assert_eq!(client.publication("news"), data(1));
        if leaves(number) {
            assert_eq!(client.message(), format!(r#"{{"rid":{}}}"#, answers[number]));
        } else {
            assert_eq!(client.publication("news"), data(2));
        }
        // No further message arrives: no second copy, and nothing after the answer.
        let last = client.call("delivered", "null");
        assert!(publication(&last, "news").is_none());
    }
}

#[test]
fn a_drain_sends_all_publications_before_it_closes_a_subscriber() {
    let mut crowd = Crowd::gather();
    let mut publisher = crowd.server.client();
    let server = &crowd.server;
    crowd.busy.begin_call("busy", "null");
    crowd.entered.recv().unwrap();
    publisher.publish("news", &data(1));
    server.running().drain();
    // The order to drain is in the core's mailbox now, and is carried out in the turn that publishes.
    eventually("readiness is off", || {
        let mut operator = TcpStream::connect(server.running().admin_address().unwrap()).unwrap();
        operator
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        operator.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 503 ")
    });
    crowd.release.send(()).unwrap();
    for client in &mut crowd.subscribers {
        assert_eq!(client.publication("news"), data(1));
        assert_eq!(client.close_frame().0, Some(1001));
        client.send_bytes(&support::close_frame(1001, ""));
    }
    assert!(crowd.server.total(|core| &core.deliveries_paused) > 0);
    for mut client in [crowd.busy, publisher] {
        assert_eq!(client.close_frame().0, Some(1001));
        client.send_bytes(&support::close_frame(1001, ""));
    }
}

/// An application that counts good tokens, and how many there are in a turn of its core.
struct TokenCounter {
    turn: Arc<OnceLock<Turn>>,
    shown: u64,
    /// The turn that is being counted, and its number of tokens.
    in_turn: (u64, u64),
    most_in_a_turn: u64,
    entered: Sender<()>,
    released: Receiver<()>,
}

impl App for TokenCounter {
    fn authenticate(&mut self, _claims: &Claims, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        let turn = self.turn.get().unwrap()();
        if self.in_turn.0 != turn {
            self.in_turn = (turn, 0);
        }
        self.in_turn.1 += 1;
        self.most_in_a_turn = self.most_in_a_turn.max(self.in_turn.1);
        self.shown += 1;
        Ok(())
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match call.event.as_str() {
            Some("busy") => {
                self.entered.send(()).unwrap();
                self.released.recv().unwrap();
                self.most_in_a_turn = 0;
                peer.reply_empty()
            }
            Some("most") => peer.reply(&self.most_in_a_turn),
            _ => peer.reply(&self.shown),
        }
    }
}

/// A hundred connections present tokens with RSA signatures, as fast as they can.
#[test]
fn clients_that_present_tokens_repeatedly_delay_no_other() {
    const PRESENTERS: usize = 100;
    const EACH: usize = 8;
    let (entered, entering) = bounded(1);
    let (release, released) = bounded(1);
    let turn = Arc::new(OnceLock::<Turn>::new());
    let vectors: serde_json::Value = serde_json::from_str(include_str!("data/jwt/jwks.json")).unwrap();
    let pair = vectors["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|pair| pair["alg"] == "RS256")
        .unwrap();
    let keys = std::env::temp_dir().join(format!("ringcast-fairness-{}.json", std::process::id()));
    std::fs::write(
        &keys,
        serde_json::json!({ "keys": [pair["public_jwk"]] }).to_string(),
    )
    .unwrap();
    let server = Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(1);
            config.jwks.file = Some(keys.clone());
        },
        |_| TokenCounter {
            turn: Arc::clone(&turn),
            shown: 0,
            in_turn: (0, 0),
            most_in_a_turn: 0,
            entered: entered.clone(),
            released: released.clone(),
        },
    );
    std::fs::remove_file(&keys).unwrap();
    let core = server.running().cores()[0].clone();
    assert!(turn.set(Box::new(move || core.metrics().turns.value())).is_ok());
    let token = pair["token"].to_string();
    let mut presenters: Vec<Client> = (0..PRESENTERS).map(|_| server.client()).collect();
    let (mut busy, mut healthy) = (server.client(), server.client());
    // In the first round the core does not know these connections yet, and a turn ends after a few token checks: other
    // clients wait for some turns. In the second round it knows them, and other clients wait for at most their share of
    // one turn.
    for (round, waited_max) in [(0, PRESENTERS * EACH), (1, 32 * 4)] {
        busy.begin_call("busy", "null");
        entering.recv().unwrap();
        for shower in &mut presenters {
            for _ in 0..EACH {
                shower.begin_call("#authenticate", &token);
            }
        }
        healthy.begin_call("shown", "null");
        release.send(()).unwrap();
        let shown = count_of(&healthy.message());
        let before = round * PRESENTERS * EACH;
        assert!(
            shown - before <= waited_max,
            "{} before the healthy one",
            shown - before
        );
        busy.message();
        for shower in &mut presenters {
            for _ in 0..EACH {
                let answer = shower.message();
                assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
            }
        }
        // Before the core knew these connections, and afterwards.
        let most = count_of(&healthy.call("most", "null"));
        assert!(most <= 16 + 32 * 4, "{most} in a turn");
        assert_eq!(
            count_of(&healthy.call("shown", "null")),
            before + PRESENTERS * EACH
        );
    }
}
