//! `/slow` and `/closed`: reports to operators about single connections.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ringcast::app::CloseReason;
use ringcast::config::Placement;
use ringcast::config::secret::Secret;
use serde_json::Value;
use support::{Client, Server, eventually};

/// A server with a control plane.
fn server() -> Server {
    Server::start(|config| config.admin.address = Some(SocketAddr::from(([127, 0, 0, 1], 0))))
}

/// The status and the body of an answer of the control plane.
fn get(server: &Server, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.running().admin_address().unwrap()).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// The listed connections; all cores have answered.
fn list(server: &Server, path: &str) -> Vec<Value> {
    let (status, body) = get(server, path);
    assert_eq!(status, 200, "{body}");
    let mut answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["unanswered"].as_array().map(Vec::len), Some(0), "{answer}");
    match answer["connections"].take() {
        Value::Array(list) => list,
        other => panic!("{other}"),
    }
}

/// A subscriber that reads nothing, of `channel` and of this many other channels.
fn stuck(server: &Server, channel: &str, others: usize) -> Client {
    let mut client = Client::connect_narrow(server.address);
    client.upgrade();
    client.handshake();
    client.subscribe(channel);
    for number in 0..others {
        client.subscribe(&format!("other{number}"));
    }
    client
}

#[test]
fn the_connections_with_the_longest_outboxes_are_listed_and_the_longest_comes_first() {
    let server = server();
    assert!(list(&server, "/slow").is_empty());
    let mut fast = server.client();
    fast.subscribe("both");
    let (longest, shorter) = (stuck(&server, "both", 0), stuck(&server, "few", 2));
    let mut publisher = server.client();
    let data = format!("\"{}\"", "secret".repeat(2000));
    let ids = || -> Vec<String> {
        let slow = list(&server, "/slow");
        slow.iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    };
    // The buffers of the sockets take some data first.
    eventually("both are listed", || {
        for channel in ["both", "both", "few"].repeat(10) {
            publisher.publish(channel, &data);
            if channel == "both" {
                assert_eq!(fast.publication("both"), data);
            }
        }
        publisher.ping();
        ids() == [longest.id.clone(), shorter.id.clone()]
    });

    let slow = list(&server, "/slow?limit=1");
    assert_eq!(slow.len(), 1);
    let row = &slow[0];
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
    assert_eq!(row["address"], longest.stream.local_addr().unwrap().to_string());
    assert!(number(row, "age_seconds") >= number(row, "blocked_seconds"));
    assert_eq!(
        (&row["subscriptions"], &row["conflated_channels"]),
        (&1.into(), &0.into())
    );
    assert_eq!(number(&list(&server, "/slow")[1], "subscriptions"), 3.0);
    let traffic = &row["traffic"];
    // The handshake and the subscription, and their answers; there may be heartbeats too.
    assert_eq!(number(traffic, "messages_received"), 2.0);
    let known = number(traffic, "sent_bytes") + number(row, "outbox_bytes");
    let publications = number(traffic, "messages_sent") - 2.0;
    assert!(publications >= 20.0 && known > publications * 12_000.0, "{row}");
    assert!(!get(&server, "/slow").1.contains("secret"), "numbers only");
    assert_eq!(get(&server, "/slow?limit=many").0, 400);
    assert_eq!(get(&server, "/slow?most=1").0, 400);

    drop((longest, shorter));
    eventually("a closed connection is not listed as slow", || {
        list(&server, "/slow").is_empty()
    });
}

#[test]
fn the_last_closed_connections_are_listed_with_their_reasons_the_latest_first() {
    // Each core takes its times at the beginning of a turn.
    let server = Server::start(|config| {
        config.admin.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.cores.placement = Placement::Count(1);
    });
    assert!(list(&server, "/closed").is_empty());
    let mut client = server.client();
    client.ping();
    let address = client.stream.local_addr().unwrap();
    client.send_bytes(&support::close_frame(1000, ""));
    eventually("it is closed", || server.closes(CloseReason::PeerClosed) == 1);
    let ends = list(&server, "/closed");
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["id"], client.id.as_str());
    assert_eq!(ends[0]["address"], address.to_string());
    assert_eq!(
        (&ends[0]["reason"], &ends[0]["code"]),
        (&"peer_closed".into(), &Value::Null)
    );
    assert_eq!(ends[0]["traffic"]["messages_received"], 2);
    assert_eq!(ends[0]["traffic"]["messages_sent"], 2);
    assert!(ends[0]["traffic"]["received_bytes"].as_u64().unwrap() > 100);
    assert!(ends[0]["open_seconds"].as_f64().unwrap() >= 0.0);
    assert!(ends[0]["at_unix_ms"].as_u64().unwrap() > 1_700_000_000_000);

    let mut rude = server.connect();
    rude.upgrade();
    rude.send_text(r#"{"event":"ping","cid":1}"#);
    assert_eq!(rude.close_frame().0, Some(4009));
    let mut lost = server.connect();
    lost.send_bytes(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n");
    lost.rest();
    let ends = list(&server, "/closed");
    let reasons: Vec<_> = ends.iter().map(|end| (&end["reason"], &end["code"])).collect();
    let null = Value::Null;
    assert_eq!(
        reasons,
        [
            (&"http_answered".into(), &null),
            (&"message_before_handshake".into(), &4009.into()),
            (&"peer_closed".into(), &null)
        ]
    );
    assert_eq!(ends[0]["id"], null);
    assert_eq!(list(&server, "/closed?limit=2"), ends[..2]);
    assert_eq!(
        server.connections(),
        3,
        "it is counted once, though their sockets are not closed yet"
    );
}

#[test]
fn the_lists_need_the_key_as_all_pages_do() {
    let server = Server::start(|config| {
        config.admin.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.admin.key = Some(Secret::new("key"));
    });
    for path in ["/slow", "/closed", "/slow?limit=1"] {
        assert_eq!(get(&server, path).0, 401, "{path}");
    }
}
