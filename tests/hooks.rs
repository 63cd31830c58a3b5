//! The hooks of an application, over real connections of both protocols: what it keeps about a connection, what it is
//! told, and the work that it does at times of its own. Tests the example `examples/tenants`.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, sync_channel};

use serde_json::{Value, json};
use support::{Client, PATIENCE, Server, UPGRADE, mqtt};

#[path = "../examples/tenants/app.rs"]
mod app;

/// The example, and its audit trail.
fn tenants() -> (Server, Receiver<String>) {
    let (audit, lines) = sync_channel(1024);
    let server = Server::start_with(
        |config| config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        |_| app::Tenants::new(audit.clone()),
    );
    (server, lines)
}

#[track_caller]
fn expect(lines: &Receiver<String>, line: &str) {
    assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), line);
}

fn request(query: &str) -> String {
    let headers = "HTTP/1.1\r\nUser-Agent: test\r\n";
    UPGRADE
        .replacen("/socketcluster/ ", &format!("/socketcluster/{query} "), 1)
        .replacen("HTTP/1.1\r\n", headers, 1)
}

/// A client of a tenant.
fn client_of(server: &Server, tenant: &str) -> Client {
    let mut client = server.connect();
    client.send_bytes(request(&format!("?a=b&tenant={tenant}")).as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client.handshake();
    client
}

#[test]
fn what_the_application_keeps_about_a_connection_is_there_until_its_end() {
    let (server, lines) = tenants();
    let mut stranger = server.connect();
    stranger.send_bytes(request("?tenant=").as_bytes());
    assert!(stranger.read_head().starts_with("HTTP/1.1 401 "));
    let mut clients = ["blue", "green"].map(|tenant| (tenant, client_of(&server, tenant)));
    for calls in 1..=3 {
        for (tenant, client) in &mut clients {
            let answer: Value = serde_json::from_str(&client.call("me", "null")).unwrap();
            let expected =
                json!({"tenant": *tenant, "calls": calls, "address": "127.0.0.1", "agent": "test"});
            assert_eq!(answer["data"], expected);
        }
    }
    let [(_, mut blue), (_, green)] = clients;
    blue.subscribe("blue/1");
    assert!(
        blue.call("#subscribe", r#"{"channel":"green/1"}"#)
            .contains("another tenant")
    );
    drop(blue);
    expect(&lines, "blue: gone, peer_vanished");
    drop(green);
    expect(&lines, "green: gone, peer_vanished");
}

#[test]
fn the_application_is_told_of_each_subscription_that_ends_while_its_client_is_connected() {
    let (server, lines) = tenants();
    let mut client = client_of(&server, "blue");
    for channel in ["blue/room", "blue/hall", "blue/attic"] {
        client.subscribe(channel);
    }
    client.call("#unsubscribe", "\"blue/hall\"");
    expect(&lines, "blue: unsubscribed from blue/hall");
    // It is subscribed no more: that is an error, and ends nothing.
    assert!(
        client
            .call("#unsubscribe", "\"blue/hall\"")
            .contains("BrokerError")
    );
    client.call("leave", "\"blue/room\"");
    expect(&lines, "blue: unsubscribed from blue/room");
    drop(client);
    expect(&lines, "blue: gone, peer_vanished");
}

#[test]
fn the_application_is_told_when_a_client_becomes_another_user() {
    let (server, lines) = tenants();
    let mut client = client_of(&server, "blue");
    client.call("log in", "null");
    expect(&lines, "blue: is ann now");
    assert!(client.message().contains("#setAuthToken"));
    client.send_text(r##"{"event":"#removeAuthToken"}"##);
    expect(&lines, "blue: is nobody now");
    client.call("log in", "null");
    expect(&lines, "blue: is ann now");
    assert!(client.message().contains("#setAuthToken"));
    client.call("log out", "null");
    expect(&lines, "blue: is nobody now");
    client.call("#authenticate", "\"no token\"");
    expect(&lines, "blue: is nobody now");
}

#[test]
fn an_mqtt_client_has_a_context_on_whichever_core_its_session_is() {
    let (server, lines) = tenants();
    // Each id has an owner among the two cores, to which the connection moves.
    for number in 0..8 {
        let mut client = Client::connect(server.running().mqtt_address().unwrap());
        client.send_bytes(&mqtt::connect(4, &format!("device {number}")));
        assert_eq!(client.read_bytes(4), [0x20, 2, 0, 0]);
        client.send_bytes(&mqtt::subscribe(4, 1, &[], &[("devices/+", 0), ("blue/1", 0)]));
        assert_eq!(client.read_bytes(6), [0x90, 4, 0, 1, 0, 0x80]);
        client.send_bytes(&mqtt::unsubscribe(4, 2, &["devices/+", "none"]));
        assert_eq!(client.read_bytes(4), [0xb0, 2, 0, 2]);
        expect(&lines, "devices: unsubscribed from devices/+");
        client.send_bytes(&[0xe0, 0]);
        expect(&lines, "devices: gone, mqtt_disconnected");
    }
    assert!(server.total(|core| &core.moves) > 0, "no connection has moved");
}

#[test]
fn each_core_ticks_again_and_again_although_no_client_does_anything() {
    let (server, _lines) = tenants();
    let mut client = client_of(&server, "blue");
    client.subscribe("blue/online");
    for _ in 0..3 {
        let (_core, online): (usize, u32) = serde_json::from_str(&client.publication("blue/online")).unwrap();
        assert_eq!(online, 1);
    }
}
