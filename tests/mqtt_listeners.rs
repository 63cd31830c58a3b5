//! The listeners for MQTT: ports of its own, shared ports by the first byte, TLS, and WebSockets, with every way to cut
//! packets and frames.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use ringcast::config::tls::ClientAuth;
use ringcast::config::{Anonymous, ClientProtocols, Config};
use ringcast::internals::app::builtin::Builtin;
use ringcast::internals::decision::{CloseReason, Limit};
use ringcast::server::{ClientProtocol, ConnectionInfo, Embedding, PortSetting, Selection, StartError};
use support::mqtt::{DISCONNECT, PINGREQ, PINGRESP, read_packet as packet};
use support::secure::{Authority, Files};
use support::{BINARY, Client, Received, Server, TEXT, eventually, frame};

/// A CONNECT of MQTT 5.
fn connect(client_id: &str) -> Vec<u8> {
    support::mqtt::connect(5, client_id)
}

fn mqtt_server() -> Server {
    Server::start(|config| {
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.mqtt.client_protocols = ClientProtocols::SocketClusterAndMqtt;
    })
}

/// The reason code of a DISCONNECT.
#[track_caller]
fn reason_of(disconnect: &[u8]) -> u8 {
    assert_eq!(disconnect[0], 0xe0, "{disconnect:?}");
    disconnect[2]
}

/// Connects and exchanges a ping.
#[track_caller]
fn talk(client: &mut Client) {
    client.send_bytes(&connect("a"));
    assert_eq!(packet(client)[0], 0x20);
    client.send_bytes(PINGREQ);
    assert_eq!(packet(client), PINGRESP);
}

#[test]
fn a_port_of_its_own_and_a_shared_port_speak_mqtt_and_the_shared_port_websockets_as_before() {
    let server = mqtt_server();
    let own = server.running().mqtt_address().unwrap();
    for address in [own, server.address] {
        let mut client = Client::connect(address);
        talk(&mut client);
        client.send_bytes(DISCONNECT);
        assert_eq!(client.rest(), "");
    }
    server.client().ping();
    eventually("all have ended", || server.connections() == 0);
    assert_eq!(server.closes(CloseReason::MqttDisconnected), 2);
    assert_eq!(server.total(|core| &core.sessions), 0);
}

#[test]
fn a_port_that_does_not_speak_mqtt_refuses_it_and_a_port_for_mqtt_alone_all_else() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send_bytes(&connect("a"));
    client.send_bytes(b"\r\n\r\n");
    assert!(client.rest().starts_with("HTTP/1.1 400 "));
    let server = mqtt_server();
    for begin in [support::UPGRADE.as_bytes(), PINGREQ, &[0x16, 3, 1, 0, 5]] {
        let mut client = Client::connect(server.running().mqtt_address().unwrap());
        client.send_bytes(begin);
        assert_eq!(client.next(), Received::End);
    }
    assert_eq!(server.closes(CloseReason::NotMqtt), 3);
}

#[test]
fn packets_may_be_cut_anywhere() {
    let server = mqtt_server();
    let stream = [&connect("some-client")[..], PINGREQ, PINGREQ].concat();
    for address in [server.address, server.running().mqtt_address().unwrap()] {
        for cut in 1..stream.len() {
            let mut client = Client::connect(address);
            for part in [&stream[..cut], &stream[cut..]] {
                client.send_bytes(part);
            }
            assert_eq!(packet(&mut client)[0], 0x20);
            assert_eq!(packet(&mut client), PINGRESP);
            assert_eq!(packet(&mut client), PINGRESP);
        }
    }
    let mut client = server.connect();
    for byte in &stream {
        client.send_bytes(&[*byte]);
    }
    assert_eq!(packet(&mut client)[0], 0x20);
}

#[test]
fn many_packets_of_one_read_are_all_answered() {
    let server = mqtt_server();
    let mut client = server.connect();
    client.send_bytes(&connect("a"));
    client.send_bytes(&PINGREQ.repeat(5000));
    packet(&mut client);
    for _ in 0..5000 {
        assert_eq!(packet(&mut client), PINGRESP);
    }
    assert_eq!(server.total(|core| &core.messages_received), 5001);
}

#[test]
fn a_packet_that_is_too_large_is_refused_by_its_header() {
    let server = Server::start(|config| {
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.limits.message_bytes_max = 300;
    });
    let mut client = Client::connect(server.running().mqtt_address().unwrap());
    talk(&mut client);
    // A PUBLISH of 301 bytes with its header: no more than the header is sent.
    client.send_bytes(&[0x30, 0xaa, 0x02]);
    assert_eq!(reason_of(&packet(&mut client)), 0x95);
    assert_eq!(client.next(), Received::End);
    assert_eq!(server.closes(CloseReason::MessageTooBig), 1);
}

#[test]
fn a_client_without_connect_is_closed_in_time() {
    let server = Server::start(|config| {
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.limits.handshake_timeout = std::time::Duration::from_millis(20);
        config.limits.request_timeout = std::time::Duration::from_millis(20);
    });
    for begin in [&[][..], &[0x10], &connect("a")[..9]] {
        let mut client = Client::connect(server.running().mqtt_address().unwrap());
        client.send_bytes(begin);
        assert_eq!(client.next(), Received::End);
    }
    assert_eq!(server.closes(CloseReason::RequestTimeout), 1);
    assert_eq!(server.closes(CloseReason::HandshakeTimeout), 2);
}

#[test]
fn a_server_that_stops_says_so_and_names_another_if_there_is_one() {
    for (reference, expected) in [(None, 0x8b), (Some("b:1"), 0x9c)] {
        let server = Server::start(|config| {
            config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            config.mqtt.server_reference = reference.map(str::to_owned);
        });
        let mut client = Client::connect(server.running().mqtt_address().unwrap());
        talk(&mut client);
        server.running().drain();
        let disconnect = packet(&mut client);
        assert_eq!(reason_of(&disconnect), expected);
        assert_eq!(disconnect.ends_with(b"\x1c\x00\x03b:1"), reference.is_some());
        assert_eq!(client.next(), Received::End);
        server.wait();
    }
}

fn websocket(server: &Server, path: &str, offer: &str) -> (Client, String) {
    let mut client = server.connect();
    let offer = match offer {
        "" => String::new(),
        offer => format!("Sec-WebSocket-Protocol: {offer}\r\n"),
    };
    let request = support::UPGRADE.replace("/socketcluster/", path);
    client.send_bytes(
        request
            .replace("\r\n\r\n", &format!("\r\n{offer}\r\n"))
            .as_bytes(),
    );
    let head = client.read_head();
    (client, head)
}

fn binary(client: &mut Client) -> Vec<u8> {
    match client.next() {
        Received::Binary(bytes) => bytes,
        other => panic!("instead of a binary frame came {other:?}"),
    }
}

/// Traps 118, 119 and 120 of public reports: both names are accepted, the one chosen is echoed, and at the path for
/// MQTT none need be offered.
#[test]
fn the_subprotocol_that_is_chosen_is_echoed() {
    let server = mqtt_server();
    for (path, offer, echoed) in [
        ("/mqtt", "mqtt", Some("mqtt")),
        ("/mqtt", "mqttv3.1", Some("mqttv3.1")),
        ("/", "other, mqttv3.1, mqtt", Some("mqttv3.1")),
        ("/socketcluster/", "mqtt", Some("mqtt")),
        ("/mqtt/", "", None),
    ] {
        let (mut client, head) = websocket(&server, path, offer);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let line = echoed.map(|name| format!("\r\nSec-WebSocket-Protocol: {name}\r\n"));
        assert_eq!(head.contains("Sec-WebSocket-Protocol"), line.is_some(), "{head}");
        assert!(line.is_none_or(|line| head.contains(&line)), "{head}");
        client.send_bytes(&frame(BINARY, &connect("a")));
        assert_eq!(binary(&mut client)[0], 0x20);
    }
    let (_, head) = websocket(&server, "/mqtt", "other");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

/// Traps 113 to 117: several packets in a frame, a first byte alone in a frame, empty frames, frames that are cut, and
/// whole packets in the frames of the server.
#[test]
fn frames_and_packets_have_nothing_to_do_with_each_other() {
    let server = mqtt_server();
    let stream = [&connect("some-client")[..], PINGREQ, PINGREQ].concat();
    for size in [1, 2, 3, 7, stream.len()] {
        let (mut client, _) = websocket(&server, "/mqtt", "mqtt");
        let mut bytes = frame(BINARY, b"");
        for part in stream.chunks(size) {
            bytes.extend(frame(BINARY, part));
            bytes.extend(frame(BINARY, b""));
        }
        for part in bytes.chunks(5) {
            client.send_bytes(part);
        }
        assert_eq!(binary(&mut client)[0], 0x20);
        assert_eq!(binary(&mut client), PINGRESP);
        assert_eq!(binary(&mut client), PINGRESP);
    }
    // A message in fragments, with a ping between them.
    let (mut client, _) = websocket(&server, "/mqtt", "mqtt");
    client.send_bytes(&frame(0x02, &stream[..4]));
    client.send_bytes(&frame(0x89, b"hello"));
    assert_eq!(client.next(), Received::Pong(b"hello".to_vec()));
    client.send_bytes(&frame(0x80, &stream[4..]));
    assert_eq!(binary(&mut client)[0], 0x20);
    // More packets in one frame than a turn takes of a connection.
    client.send_bytes(&frame(BINARY, &PINGREQ.repeat(5000)));
    for _ in 0..5002 {
        assert_eq!(binary(&mut client), PINGRESP);
    }
}

#[test]
fn a_text_frame_closes_with_1003_alone_and_a_farewell_with_a_packet_and_a_close_frame() {
    let server = mqtt_server();
    let (mut client, _) = websocket(&server, "/mqtt", "mqtt");
    client.send_bytes(&frame(BINARY, &connect("a")));
    binary(&mut client);
    // MQTT-6.0.0-1: nothing comes before the end.
    client.send_bytes(&frame(TEXT, b"text"));
    assert!(matches!(client.next(), Received::Close(Some(1003), _)));
    let (mut client, _) = websocket(&server, "/mqtt", "mqtt");
    client.send_bytes(&frame(BINARY, &connect("a")));
    binary(&mut client);
    server.running().drain();
    assert_eq!(reason_of(&binary(&mut client)), 0x8b);
    assert!(matches!(client.next(), Received::Close(Some(1001), _)));
}

#[test]
fn mqtt_over_tls_has_a_port_of_its_own_and_the_shared_ones() {
    let authority = Authority::new("authority");
    let files = Files::new();
    let server = Server::start(|config| {
        support::secure::speak_tls(config, &files, &[authority.server(&["localhost"])]);
        config.mqtt.tls_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.mqtt.client_protocols = ClientProtocols::SocketClusterAndMqtt;
    });
    let mut trust = authority.trust(&[&rustls::version::TLS13], None);
    // As some libraries do; others offer nothing.
    trust.alpn_protocols = vec![b"mqtt".to_vec()];
    let trust = Arc::new(trust);
    let own = server.running().mqtt_tls_address().unwrap();
    for address in [own, server.address] {
        let mut client = support::secure::connect(address, &trust, "localhost");
        client.send_bytes(&connect("a"));
        client.send_bytes(PINGREQ);
        let connack = client.read_bytes(2);
        assert_eq!(connack[0], 0x20);
        client.read_bytes(usize::from(connack[1]));
        assert_eq!(client.read_bytes(2), PINGRESP);
    }
    let mut plain = Client::connect(own);
    plain.send_bytes(&connect("a"));
    assert_eq!(plain.next(), Received::End);
    let mut plain = server.connect();
    talk(&mut plain);
}

/// The rows of the connections that the server has.
fn rows(server: &Server) -> Vec<ConnectionInfo> {
    let page = server.running().handle().connections(&Selection::All, None, 10);
    page.wait().unwrap().items
}

#[test]
fn a_proxy_names_the_clients_of_ports_for_mqtt_and_their_limit_is_that_of_their_address() {
    let server = Server::start(|config| {
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.proxies.trusted = "127.0.0.1".parse().unwrap();
        config.proxies.proxy_protocol = true;
        config.limits.connections_per_address_max = 1;
    });
    let through_proxy = || {
        let mut client = Client::connect(server.running().mqtt_address().unwrap());
        client.send_bytes(b"PROXY TCP4 203.0.113.9 198.51.100.1 12345 1883\r\n");
        client.send_bytes(&connect("a"));
        client
    };
    let mut client = through_proxy();
    assert_eq!(packet(&mut client)[0], 0x20);
    let [row] = &rows(&server)[..] else {
        panic!("one connection")
    };
    assert_eq!(row.protocol, ClientProtocol::Mqtt);
    assert_eq!(row.address, Some("203.0.113.9:12345".parse().unwrap()));
    // A second one is closed, before it takes over anything. It gets no HTTP.
    assert_eq!(through_proxy().rest(), "");
    assert_eq!(server.limit_hits(Limit::ConnectionsPerAddress), 1);
    client.send_bytes(PINGREQ);
    assert_eq!(packet(&mut client), PINGRESP);
}

#[test]
fn the_certificate_of_a_client_names_its_user_also_after_its_connection_has_moved() {
    let authority = Authority::new("authority");
    let files = Files::new();
    let server = Server::start(|config| {
        support::secure::speak_tls(config, &files, &[authority.server(&["localhost"])]);
        support::secure::ask_clients(config, &files, ClientAuth::Required, &authority);
        config.mqtt.tls_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.permissions.allow_anonymous = Anonymous::Off;
    });
    let alice = authority.client("alice", (2020, 2090));
    let trust = Arc::new(authority.trust(&[&rustls::version::TLS13], Some(&alice)));
    for id in ["a", "b", "c", "d", "e", "f"] {
        let address = server.running().mqtt_tls_address().unwrap();
        let mut client = support::secure::connect(address, &trust, "localhost");
        client.send_bytes(&connect(id));
        let answer = packet(&mut client);
        assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:x?}");
        let users: Vec<_> = rows(&server).into_iter().map(|row| row.user).collect();
        assert_eq!(users, [Some("alice".to_owned())]);
        drop(client);
        eventually("it has ended", || server.connections() == 0);
    }
}

#[test]
fn a_client_over_its_rate_is_read_more_slowly_and_not_closed() {
    let server = Server::start(|config| {
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.limits.messages_per_second_max = 500;
        config.limits.rate_burst = std::time::Duration::from_millis(20);
        config.limits.rate_grace = std::time::Duration::ZERO;
    });
    let mut client = Client::connect(server.running().mqtt_address().unwrap());
    talk(&mut client);
    client.send_bytes(&PINGREQ.repeat(200));
    for _ in 0..200 {
        assert_eq!(packet(&mut client), PINGRESP);
    }
    assert!(server.limit_hits(Limit::MessagesPerSecond) > 0);
}

#[test]
fn a_start_names_the_setting_whose_address_another_process_serves() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::default();
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.address = None;
    config.mqtt.listen = Some(taken.local_addr().unwrap());
    let refused = ringcast::server::Server::start(&config, Embedding::default(), |_| Builtin::new());
    let error = refused.map(drop).unwrap_err();
    assert!(
        matches!(
            &error,
            StartError::Served {
                setting: PortSetting::MqttListen,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("RINGCAST_MQTT_LISTEN"), "{error}");
}
