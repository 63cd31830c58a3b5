//! The questions to an application about MQTT clients, and the orders that it may give.

use super::client::{Did, connect, core_with, publish, sent, subscribe};
use crate::app::{AllowedPublish, App, AppError, Claims, Client, CloseCode, Name, Peer, RawJson, Refusal};
use crate::decision::CloseReason;
use crate::mqtt::subscriptions::Subscriber;

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
        assert!(matches!(&did[0], Did::Send(bytes) if bytes[3] == 0x87));
        assert_eq!(did[1], Did::Close(CloseReason::MqttRefused));
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
        Did::Publish("a".to_owned(), 1, false, b" {\"t\": 1} ".to_vec())
    );
    assert_eq!(send("a", b"\xff\x00").1, "publish -");
    assert_eq!(
        send("changed", b"1").0[0],
        Did::Publish("changed".to_owned(), 1, false, b"[1]".to_vec())
    );
    let (did, _) = send("denied", b"1");
    assert_eq!(sent(&did)[0][4], 0x87);
    let (did, _) = send("echoed", b"1");
    assert_eq!(did[2], Did::Publish("copy".to_owned(), 0, false, b"1".to_vec()));
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
    let did = core.receive(&mut client, &subscribe(5, 2, &[], &[("leave", 0)]));
    let reason = CloseReason::Application(CloseCode::new(4321).unwrap());
    assert_eq!(did, [Did::Close(reason)]);
    assert_eq!(core.farewell(&client, reason, "x")[2], 0x98);
}
