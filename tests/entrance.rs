//! Who comes in, as whom, and how many: addresses behind proxies, origins, and the limits on connections.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};

use ringcast::app::{App, Upgrade, UpgradeRefused};
use ringcast::config::limits::{AcceptExcess, Limit, MemoryMax};
use ringcast::config::{Config, Cores};
use ringcast::decision::CloseReason;
use support::{Client, PATIENCE, Received, Server, UPGRADE, eventually};

/// Tells where requests are from.
struct Witness(Sender<Option<SocketAddr>>);

impl App for Witness {
    fn upgrade(&mut self, upgrade: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        self.0.send(upgrade.peer).unwrap();
        Ok(())
    }
}

/// A server that believes 127.0.0.2, and what it has been told about its clients.
fn believing(change: impl FnOnce(&mut Config)) -> (Server, Receiver<Option<SocketAddr>>) {
    let (tell, told) = channel();
    let configure = |config: &mut Config| {
        config.proxies.trusted = "127.0.0.2".parse().unwrap();
        change(config);
    };
    (Server::start_with(configure, |_| Witness(tell.clone())), told)
}

const PROXY: &str = "127.0.0.2";
const STRANGER: &str = "127.0.0.3";

/// A connection from this address.
fn from(ip: &str, server: &Server) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let ip: IpAddr = ip.parse().unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.connect(&server.address.into()).unwrap();
    Client::over(socket.into())
}

/// The upgrade with more header lines.
fn upgrade_with(lines: &str) -> String {
    UPGRADE.replace("Host: test\r\n", &format!("Host: test\r\n{lines}"))
}

#[track_caller]
fn address(told: &Receiver<Option<SocketAddr>>) -> String {
    told.recv_timeout(PATIENCE).unwrap().unwrap().to_string()
}

/// A header of version 2 with a TLV behind its addresses.
fn binary_header() -> Vec<u8> {
    let block = [
        192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 1, 0xbb, 0x05, 0, 1, b'x',
    ];
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10"[..], &block].concat()
}

#[test]
fn the_client_that_a_proxy_announces_is_the_one_the_application_sees() {
    let (server, told) = believing(|config| config.proxies.proxy_protocol = true);
    for (header, expected) in [
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(),
            "192.0.2.7:12345",
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n".to_vec(),
            "[2001:db8::7]:12345",
        ),
        (binary_header(), "192.0.2.7:12345"),
    ] {
        // All in one segment, and then byte for byte: the header ends where it ends.
        let mut client = from(PROXY, &server);
        client.send_bytes(&[&header, UPGRADE.as_bytes()].concat());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        assert_eq!(address(&told), expected);
        client.handshake();

        let mut client = from(PROXY, &server);
        for byte in [&header, UPGRADE.as_bytes()].concat() {
            client.send_bytes(&[byte]);
        }
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        assert_eq!(address(&told), expected);
        client.handshake();
    }
    // Its own checks, and clients that it cannot name.
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = from(PROXY, &server);
        client.send_bytes(&[header, UPGRADE.as_bytes()].concat());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        assert!(address(&told).starts_with("127.0.0.2:"));
    }
}

#[test]
fn a_trusted_proxy_that_announces_nobody_is_cut_off() {
    let (server, told) = believing(|config| config.proxies.proxy_protocol = true);
    for (count, bytes) in (1..).zip([
        UPGRADE.as_bytes(),
        b"PROXY TCP4 nobody\r\n",
        b"\x16\x03\x01",
        &[b'P'; 9],
    ]) {
        let mut client = from(PROXY, &server);
        client.send_bytes(bytes);
        assert_eq!(client.next(), Received::End);
        assert_eq!(server.closes(CloseReason::BadProxyHeader), count);
    }
    // One that never finishes has as long as a request.
    let mut client = from(PROXY, &server);
    client.send_bytes(b"PROXY TCP4 192.0.2.7");
    client.send_fin();
    assert_eq!(client.next(), Received::End);
    eventually("it is gone", || server.connections() == 0);
    assert!(told.try_recv().is_err());
}

#[test]
fn a_header_that_does_not_come_is_waited_for_no_longer_than_a_request() {
    let (server, _told) = believing(|config| {
        config.proxies.proxy_protocol = true;
        config.limits.request_timeout = std::time::Duration::from_millis(50);
    });
    let mut client = from(PROXY, &server);
    client.send_bytes(b"PROXY TCP4 192.0.2.7");
    assert_eq!(client.next(), Received::End);
    assert_eq!(server.closes(CloseReason::RequestTimeout), 1);
}

#[test]
fn nobody_but_a_trusted_proxy_can_announce_anybody() {
    let (server, told) = believing(|config| config.proxies.proxy_protocol = true);
    for header in [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(),
        binary_header(),
    ] {
        let mut client = from(STRANGER, &server);
        client.send_bytes(&[&header, UPGRADE.as_bytes()].concat());
        assert!(client.rest().starts_with("HTTP/1.1 400 "));
    }
    let mut client = from(STRANGER, &server);
    client.send_bytes(upgrade_with("X-Forwarded-For: 192.0.2.7\r\n").as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    assert!(address(&told).starts_with("127.0.0.3:"));
}

#[test]
fn a_forwarded_request_is_from_the_last_address_that_no_proxy_added() {
    let (server, told) = believing(|config| config.proxies.x_forwarded_for = true);
    for (ip, lines, expected) in [
        (PROXY, "X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7:0"),
        (
            PROXY,
            "x-forwarded-for: 203.0.113.1, 192.0.2.7\r\n",
            "192.0.2.7:0",
        ),
        (
            PROXY,
            "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 192.0.2.7, 127.0.0.2\r\n",
            "192.0.2.7:0",
        ),
        (PROXY, "X-Forwarded-For: 192.0.2.7, garbage\r\n", "127.0.0.2:"),
        (PROXY, "Forwarded: for=192.0.2.7\r\n", "127.0.0.2:"),
        (PROXY, "", "127.0.0.2:"),
        (STRANGER, "X-Forwarded-For: 192.0.2.7\r\n", "127.0.0.3:"),
    ] {
        let mut client = from(ip, &server);
        client.send_bytes(upgrade_with(lines).as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        let found = address(&told);
        assert!(found.starts_with(expected), "{ip} {lines}: {found}");
    }
}

#[test]
fn an_announced_client_is_believed_about_others_only_if_it_is_a_proxy_too() {
    let (server, told) = believing(|config| {
        config.proxies.trusted = "127.0.0.2, 192.0.2.0/24".parse().unwrap();
        config.proxies.proxy_protocol = true;
        config.proxies.x_forwarded_for = true;
    });
    for (header, expected) in [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n", "203.0.113.9:0"),
        (
            "PROXY TCP4 198.51.100.7 198.51.100.1 12345 443\r\n",
            "198.51.100.7:12345",
        ),
    ] {
        let mut client = from(PROXY, &server);
        client.send_bytes(header.as_bytes());
        client.send_bytes(upgrade_with("X-Forwarded-For: 203.0.113.9\r\n").as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        assert_eq!(address(&told), expected);
    }
}

#[test]
fn only_listed_origins_come_in_and_requests_that_are_no_pages() {
    let server = Server::start(|config| config.allowed_origins = "https://*.example.com".parse().unwrap());
    for (lines, status) in [
        ("Origin: https://a.example.com\r\n", "101"),
        ("", "101"),
        ("Origin: https://example.com\r\n", "403"),
        ("Origin: https://a.example.com.evil.com\r\n", "403"),
        ("Origin: http://test\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("Origin:\r\n", "403"),
        (
            "Origin: https://a.example.com\r\nOrigin: https://evil.com\r\n",
            "403",
        ),
        (
            "Origin: https://a.example.com\r\nOrigin: https://a.example.com\r\n",
            "403",
        ),
    ] {
        let mut client = server.connect();
        client.send_bytes(upgrade_with(lines).as_bytes());
        let head = client.read_head();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{lines}: {head}"
        );
    }
}

/// Asks for a WebSocket; the first line of the answer and the whole head.
fn asked(mut client: Client) -> (Client, String) {
    client.send_bytes(UPGRADE.as_bytes());
    let head = client.read_head();
    (client, head)
}

#[track_caller]
fn let_in(client: Client) -> Client {
    let (client, head) = asked(client);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

/// The answer is this, says when to come again, and ends the connection.
#[track_caller]
fn refused(client: Client, status: &str) {
    let (mut client, head) = asked(client);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.contains("\r\nRetry-After: 5\r\n"), "{head}");
    client.rest();
}

#[test]
fn beyond_the_limit_of_the_server_connections_wait_until_one_leaves() {
    let server = Server::start(|config| config.limits.connections_max = 3);
    let mut inside: Vec<Client> = (0..3).map(|_| let_in(server.connect())).collect();
    let mut fourth = server.connect();
    fourth.send_bytes(UPGRADE.as_bytes());
    eventually("it waits", || server.limit_hits(Limit::Connections) > 0);
    assert_eq!(server.connections(), 3);
    inside.pop();
    assert!(fourth.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(server.connections(), 3);
}

#[test]
fn beyond_the_limit_of_the_server_connections_are_answered_503_if_so_configured() {
    let server = Server::start(|config| {
        config.limits.connections_max = 3;
        config.accept_excess = AcceptExcess::Refuse;
    });
    let mut inside: Vec<Client> = (0..3).map(|_| let_in(server.connect())).collect();
    for _ in 0..40 {
        refused(server.connect(), "503");
    }
    assert_eq!(server.limit_hits(Limit::Connections), 40);
    assert_eq!(server.connections(), 3);
    inside.pop();
    eventually("there is room", || server.connections() == 2);
    let_in(server.connect());
}

#[test]
fn no_core_ever_has_more_connections_than_it_may() {
    let server = Server::start(|config| {
        config.limits.connections_per_core_max = 5;
        config.accept_excess = AcceptExcess::Refuse;
    });
    let address = server.address;
    let answers: Vec<(Client, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    (0..10)
                        .map(|_| asked(Client::connect(address)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let inside = answers
        .iter()
        .filter(|(_, head)| head.starts_with("HTTP/1.1 101 "));
    assert_eq!(inside.count(), 10);
    assert_eq!(server.each(|core| &core.connections), [5, 5]);
    assert_eq!(server.limit_hits(Limit::ConnectionsPerCore), 70);
}

#[test]
fn one_address_has_as_many_connections_as_it_may_and_others_theirs() {
    let server = Server::start(|config| config.limits.connections_per_address_max = 2);
    let mut inside = vec![let_in(from(STRANGER, &server)), let_in(from(STRANGER, &server))];
    refused(from(STRANGER, &server), "429");
    refused(from(STRANGER, &server), "429");
    assert_eq!(server.limit_hits(Limit::ConnectionsPerAddress), 2);
    let_in(from("127.0.0.4", &server));
    inside.pop();
    eventually("one has left", || server.connections() == 1);
    inside.push(let_in(from(STRANGER, &server)));
    refused(from(STRANGER, &server), "429");
    drop(inside);
    server.settles_at(0, 0);
}

#[test]
fn connections_that_a_proxy_brings_count_for_the_client_it_names() {
    let (server, _told) = believing(|config| {
        config.proxies.proxy_protocol = true;
        config.limits.connections_per_address_max = 1;
    });
    let brought = |header: &str| {
        let mut client = from(PROXY, &server);
        client.send_bytes(header.as_bytes());
        client
    };
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n";
    let inside = let_in(brought(header));
    // Refused at once, not when it asks.
    assert!(brought(header).rest().starts_with("HTTP/1.1 429 "));
    let_in(brought("PROXY TCP4 192.0.2.8 198.51.100.1 12345 443\r\n"));
    // The proxy's own checks are nobody's.
    let _checks = [
        let_in(brought("PROXY UNKNOWN\r\n")),
        let_in(brought("PROXY UNKNOWN\r\n")),
    ];
    drop(inside);
    eventually("it has left", || server.connections() == 2);
    let_in(brought(header));
}

#[test]
fn requests_that_a_proxy_forwards_count_for_their_client() {
    let (server, _told) = believing(|config| {
        config.proxies.x_forwarded_for = true;
        config.limits.connections_per_address_max = 1;
    });
    let forwarded = |ip: &str| {
        let mut client = from(PROXY, &server);
        client.send_bytes(upgrade_with(&format!("X-Forwarded-For: {ip}\r\n")).as_bytes());
        let head = client.read_head();
        (client, head)
    };
    let (inside, head) = forwarded("192.0.2.7");
    assert!(head.starts_with("HTTP/1.1 101 "));
    assert!(forwarded("192.0.2.7").1.starts_with("HTTP/1.1 429 "));
    assert!(forwarded("203.0.113.1, 192.0.2.7").1.starts_with("HTTP/1.1 429 "));
    assert!(forwarded("192.0.2.8").1.starts_with("HTTP/1.1 101 "));
    drop(inside);
    eventually("it has left", || server.connections() == 0);
    assert!(forwarded("192.0.2.7").1.starts_with("HTTP/1.1 101 "));
}

#[test]
fn who_comes_too_fast_waits_or_is_refused_as_configured() {
    let start = |accepts_per_second_max, accept_excess| {
        Server::start(|config| {
            config.cores = Cores::Count(1);
            config.limits.accepts_per_second_max = accepts_per_second_max;
            config.accept_excess = accept_excess;
        })
    };
    let server = start(1, AcceptExcess::Refuse);
    let_in(server.connect());
    refused(server.connect(), "503");
    assert_eq!(server.limit_hits(Limit::AcceptRate), 1);
    eventually("its turn has come", || {
        asked(server.connect()).1.starts_with("HTTP/1.1 101 ")
    });

    let server = start(20, AcceptExcess::Wait);
    let inside: Vec<Client> = (0..10).map(|_| let_in(server.connect())).collect();
    assert!(server.limit_hits(Limit::AcceptRate) > 0);
    assert_eq!(server.connections(), inside.len() as u64);
}

#[test]
fn when_memory_is_short_nobody_new_comes_in() {
    let server = Server::start(|config| config.limits.memory_bytes_max = MemoryMax::Bytes(1 << 20));
    eventually("the memory in use has been looked at", || {
        asked(server.connect()).1.starts_with("HTTP/1.1 503 ")
    });
    refused(server.connect(), "503");
    assert!(server.limit_hits(Limit::Memory) > 0);

    for enough in [MemoryMax::Bytes(1 << 40), MemoryMax::Auto, MemoryMax::Off] {
        let server = Server::start(|config| config.limits.memory_bytes_max = enough);
        let_in(server.connect()).handshake();
    }
}
