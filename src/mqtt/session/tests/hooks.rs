//! The questions to an application about MQTT clients, and the orders that it may give.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::client::{self, Connect, Core, NextStep, connect, core_with, publish, sent, subscribe};
use crate::app::{
    AllowedPublish, App, AppError, Claims, Client, CloseCode, DeferredDecision, Late, LateAnswer,
    LateAnswerSender, Name, Peer, RawJson, Refusal, Returned, Undelivered,
};
use crate::decision::{CloseReason, Stored};
use crate::mqtt::subscriptions::Subscriber;
use crate::session;

#[derive(Default)]
struct Probe {
    events: Vec<String>,
    refuses_handshake: bool,
}

fn refusal() -> Refusal {
    AppError::new("no").into()
}

impl App for Probe {
    fn handshake(&mut self, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        self.events.push("handshake".to_owned());
        if self.refuses_handshake {
            Err(refusal())
        } else {
            Ok(())
        }
    }

    fn authenticate(&mut self, claims: &Claims, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        self.events.push(format!("authenticate {}", claims.json()));
        if claims.json().contains("banned") {
            Err(refusal())
        } else {
            Ok(())
        }
    }

    fn subscribe(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        match channel.as_str() {
            Some("denied/#") => Err(refusal()),
            Some("leave") => {
                peer.disconnect(CloseCode::new(4321).unwrap(), "by the application");
                Ok(())
            }
            Some("free me") => {
                peer.kick_out(Some("old"), None);
                Ok(())
            }
            Some("free me of all") => {
                peer.subscribe("before");
                peer.kick_out(None, None);
                peer.subscribe("behind");
                peer.subscribe("$share/g/behind");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn publish(
        &mut self,
        channel: Name<'_>,
        data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        self.events
            .push(format!("publish {}", data.map_or("-", RawJson::as_str)));
        match channel.as_str() {
            Some("denied") => Err(refusal()),
            Some("changed") => Ok(peer.rewrite(&[data])),
            Some("echoed") => {
                peer.publish("copy", &1);
                Ok(AllowedPublish::as_sent())
            }
            _ => Ok(AllowedPublish::as_sent()),
        }
    }

    fn connected(&mut self, _peer: &mut Peer<'_>) {
        self.events.push("connected".to_owned());
    }

    fn disconnected(&mut self, _client: &mut Client<'_>, reason: CloseReason) {
        self.events.push(format!("disconnected {}", reason.label()));
    }
}

#[test]
fn the_application_is_told_of_a_client_from_connack_on() {
    let mut core = core_with(Probe::default());
    let mut client = core.client_with(Some(r#"{"sub":"ann"}"#));
    core.receive(&mut client, &connect(4, "a").bytes());
    core.end(&mut client, CloseReason::PeerVanished);
    let expected = [
        "handshake",
        r#"authenticate {"sub":"ann"}"#,
        "connected",
        "disconnected peer_vanished",
    ];
    assert_eq!(core.app.events, expected);

    for (refuses_handshake, claims) in [(true, None), (false, Some(r#"{"sub":"banned"}"#))] {
        let mut core = core_with(Probe {
            refuses_handshake,
            ..Probe::default()
        });
        let mut client = core.client_with(claims);
        let did = core.receive(&mut client, &connect(5, "a").bytes());
        assert!(matches!(&did[0], NextStep::Send(bytes) if bytes[3] == 0x87));
        assert_eq!(did[1], NextStep::Close(CloseReason::MqttRefused));
        core.end(&mut client, CloseReason::MqttRefused);
        assert!(!core.app.events.iter().any(|event| event.contains("connected")));
    }
}

#[test]
fn the_application_sees_json_and_may_refuse_or_change_a_publication() {
    let mut core = core_with(Probe::default());
    let mut client = core.open(&connect(5, "a").bytes());
    let mut send = |topic: &str, payload: &[u8]| {
        let did = core.receive(&mut client, &publish(2, topic, 1, Some(b""), payload));
        (did, core.app.events.pop().unwrap())
    };
    let (did, event) = send("a", b" {\"t\": 1} ");
    assert_eq!(event, "publish {\"t\": 1}");
    assert_eq!(
        did[0],
        NextStep::Publish("a".to_owned(), 1, false, b" {\"t\": 1} ".to_vec())
    );
    assert_eq!(send("a", b"\xff\x00").1, "publish -");
    assert_eq!(
        send("changed", b"1").0[0],
        NextStep::Publish("changed".to_owned(), 1, false, b"[1]".to_vec())
    );
    let (did, _) = send("denied", b"1");
    assert_eq!(sent(&did)[0][4], 0x87);
    let (did, _) = send("echoed", b"1");
    assert_eq!(
        did[2],
        NextStep::Publish("copy".to_owned(), 0, false, b"1".to_vec())
    );
}

#[test]
fn the_application_decides_about_filters_and_may_end_subscriptions_and_connections() {
    let mut core = core_with(Probe::default());
    let mut client = core.open(&connect(5, "a").bytes());
    let filters = [("denied/#", 0), ("old", 0), ("free me", 0)];
    let did = core.receive(&mut client, &subscribe(5, 1, &[], &filters));
    let bytes = sent(&did)[0];
    assert_eq!(bytes[bytes.len() - 3..], [0x87, 0, 0]);
    let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
    assert_eq!(core.sessions.subscriptions.count_of(subscriber), 1);
    // Of all filters, some in each turn: those that the application adds behind that stay.
    for resumed_per_turn in [1, 2, 100] {
        core.resumed_per_turn = resumed_per_turn;
        let filters = [
            ("a", 0),
            ("b/#", 0),
            ("behind/b", 0),
            ("free me of all", 0),
            ("c", 0),
        ];
        core.receive(&mut client, &subscribe(5, 1, &[], &filters));
        let (left, _) = core.sessions.subscriptions.some_filters_of(subscriber, 0, 9);
        let left: Vec<_> = left.into_iter().map(|(filter, _)| filter).collect();
        assert_eq!(left, [Box::from(*b"behind")], "{resumed_per_turn}");
    }
    let did = core.receive(&mut client, &subscribe(5, 2, &[], &[("leave", 0)]));
    let reason = CloseReason::Application(CloseCode::new(4321).unwrap());
    let suback = NextStep::Send(vec![0x90, 4, 0, 2, 0, 0]);
    assert_eq!((&did[1], did.last()), (&suback, Some(&NextStep::Close(reason))));
    assert_eq!(core.farewell(&client, reason, "x")[2], 0x98);
}

/// Defers every decision.
#[derive(Default)]
struct DeferringApp {
    asked: Vec<(String, DeferredDecision)>,
}

impl DeferringApp {
    fn later<T>(&mut self, what: String, peer: &mut Peer<'_>) -> Result<T, Refusal> {
        let (refusal, decision) = peer.defer_decision();
        self.asked.push((what, decision));
        Err(refusal)
    }
}

impl App for DeferringApp {
    fn handshake(&mut self, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        self.later("handshake".to_owned(), peer)
    }

    fn authenticate(&mut self, _claims: &Claims, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        self.later("authenticate".to_owned(), peer)
    }

    fn subscribe(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        self.later(format!("subscribe {}", channel.as_str().unwrap()), peer)
    }

    fn publish(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        peer.publish("asked", channel.as_str().unwrap());
        self.later(format!("publish {}", channel.as_str().unwrap()), peer)
    }
}

/// Keeps decisions for the test, which takes the place of the core.
struct Way(SyncSender<LateAnswer>);

impl LateAnswerSender for Way {
    fn send(&self, answer: LateAnswer) -> Result<(), Returned> {
        self.0.send(answer).map_err(|_| Returned::Gone)
    }
}

/// A core whose application defers every decision.
struct DeferringCore {
    core: Core<DeferringApp>,
    late: Receiver<LateAnswer>,
}

impl DeferringCore {
    fn new() -> DeferringCore {
        let (sender, late) = sync_channel(16);
        let mut core = core_with(DeferringApp::default());
        core.scratch = session::Scratch::of_core(Arc::new(Way(sender)), 2);
        DeferringCore { core, late }
    }

    /// The application makes its oldest pending decision, which reaches the session.
    fn decide(
        &mut self,
        client: &mut client::Client,
        what: &str,
        decide: impl FnOnce(DeferredDecision) -> Result<(), Undelivered>,
    ) -> Vec<NextStep> {
        assert!(client.session.is_waiting() && client.session.kept_bytes() > 0);
        let (asked, decision) = self.core.app.asked.remove(0);
        assert_eq!(asked, what);
        decide(decision).unwrap();
        let Late::Decision { number, decide } = self.late.try_recv().unwrap().answer else {
            panic!("no decision");
        };
        self.core.run(client, |session, env, decisions| {
            session.decided(number, decide, env, decisions)
        })
    }
}

#[test]
fn connack_waits_until_the_application_has_decided_about_the_client_its_user_and_its_will() {
    let mut server = DeferringCore::new();
    let mut client = server.core.client_with(Some(r#"{"sub":"ann"}"#));
    let connect = Connect {
        will: Some((0, Vec::new(), "gone", b"1")),
        ..connect(5, "a")
    }
    .bytes();
    assert_eq!(server.core.receive(&mut client, &connect), []);
    let allow = DeferredDecision::allow;
    assert_eq!(server.decide(&mut client, "handshake", allow), []);
    assert_eq!(server.decide(&mut client, "authenticate", allow), []);
    assert!(client.session.claims().is_some() && !client.session.is_open());
    let did = server.decide(&mut client, "publish gone", allow);
    assert_eq!(first(&did)[..4], [0x20, first(&did)[1], 0, 0]);
    assert_eq!(
        did[1],
        NextStep::Publish("asked".to_owned(), 0, false, b"\"gone\"".to_vec())
    );
    assert!(client.session.is_open() && !client.session.is_waiting());
    assert_eq!(client.session.kept_bytes(), 0);

    let mut client = server.core.client();
    server.core.receive(&mut client, &connect);
    let did = server.decide(&mut client, "handshake", |decision| decision.refuse(refusal()));
    assert_eq!(
        (first(&did)[3], &did[1]),
        (0x87, &NextStep::Close(CloseReason::MqttRefused))
    );
}

#[test]
fn what_the_application_has_asked_for_waits_with_connack_for_the_disk() {
    let mut server = DeferringCore::new();
    server.core.sessions.begin_saving(true, 0);
    let mut client = server.core.client();
    let connect = Connect {
        properties: vec![0x11, 0, 0, 0, 100],
        will: Some((0, Vec::new(), "gone", b"1")),
        ..connect(5, "a")
    };
    server.core.receive(&mut client, &connect.bytes());
    server.decide(&mut client, "handshake", DeferredDecision::allow);
    let did = server.decide(&mut client, "publish gone", DeferredDecision::allow);
    assert_eq!(did, [NextStep::SaveSession]);
    assert!(client.session.is_waiting() && client.session.kept_bytes() > 0);
    let did = server.core.saved(&mut client, Stored::Yes);
    assert_eq!(first(&did)[..4], [0x20, first(&did)[1], 0, 0]);
    let asked = NextStep::Publish("asked".to_owned(), 0, false, b"\"gone\"".to_vec());
    assert_eq!(did[1], asked);
    assert!(client.session.is_open() && !client.session.is_waiting());
}

/// The packet that is sent first.
fn first(did: &[NextStep]) -> &[u8] {
    let mut packets = did.iter().filter_map(|did| match did {
        NextStep::Send(packet) => Some(packet),
        NextStep::Publish(..)
        | NextStep::SendRetained(..)
        | NextStep::EndOther(..)
        | NextStep::Login(..)
        | NextStep::Acknowledge(_)
        | NextStep::SaveSession
        | NextStep::Close(_) => None,
    });
    packets.next().unwrap()
}

/// A client that the application has admitted.
fn admitted_client(server: &mut DeferringCore, version: u8) -> client::Client {
    let mut client = server.core.client();
    server.core.receive(&mut client, &connect(version, "a").bytes());
    server.decide(&mut client, "handshake", DeferredDecision::allow);
    assert!(client.session.is_open());
    client
}

#[test]
fn no_filter_is_granted_before_the_application_has_decided_about_all() {
    let mut server = DeferringCore::new();
    let mut client = admitted_client(&mut server, 5);
    let filters = [("a/#", 1), ("bad/+/#/x", 0), ("b", 0), ("$share/g/c", 0)];
    let packet = subscribe(5, 7, &[], &filters);
    assert_eq!(server.core.receive(&mut client, &packet), []);
    let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
    let allow = DeferredDecision::allow;
    assert_eq!(server.decide(&mut client, "subscribe a/#", allow), []);
    let did = server.decide(&mut client, "subscribe b", |decision| decision.refuse(refusal()));
    assert_eq!(did, []);
    assert_eq!(server.core.sessions.subscriptions.count_of(subscriber), 0);
    let did = server.decide(&mut client, "subscribe c", allow);
    assert_eq!(did[0], NextStep::SendRetained("a/#".to_owned(), 1, 0));
    let suback = first(&did[1..]);
    assert_eq!(suback[suback.len() - 4..], [1, 0x8f, 0x87, 0]);
    assert!(server.core.app.asked.is_empty());
}

#[test]
fn a_publication_is_published_and_acknowledged_when_it_is_decided_or_refused_in_time() {
    let mut server = DeferringCore::new();
    let mut client = admitted_client(&mut server, 5);
    let packet = publish(1 << 1, "a", 9, Some(b""), b"1");
    assert_eq!(server.core.receive(&mut client, &packet), []);
    let did = server.decide(&mut client, "publish a", |decision| {
        decision.decide(|peer| Ok(peer.rewrite(&2)))
    });
    assert_eq!(did[0], NextStep::Publish("a".to_owned(), 1, false, b"2".to_vec()));
    assert_eq!(first(&did)[..4], [0x40, 2, 0, 9]);
    // Its earlier orders to the client are carried out after the acknowledgement.
    assert_eq!(
        did[2],
        NextStep::Publish("asked".to_owned(), 0, false, b"\"a\"".to_vec())
    );

    assert_eq!(server.core.receive(&mut client, &packet), []);
    server.core.wait_s(9);
    assert_eq!(server.core.tick(&mut client), []);
    server.core.wait_s(1);
    let did = server.core.tick(&mut client);
    assert_eq!(first(&did)[..5], [0x40, first(&did)[1], 0, 9, 0x80]);
    assert!(!client.session.is_waiting());
    // The decision comes too late.
    let (_, decision) = server.core.app.asked.pop().unwrap();
    decision.allow().unwrap();
    let Late::Decision { number, decide } = server.late.try_recv().unwrap().answer else {
        panic!("no decision");
    };
    let did = server.core.run(&mut client, |session, env, decisions| {
        session.decided(number, decide, env, decisions)
    });
    assert_eq!(did, []);
}
