//! Which clients are accepted, with which addresses, and how many: addresses behind proxies, origins, and the
//! limits on connections.

#![allow(clippy::unwrap_used)] // a test

mod haproxy;
mod limits;
#[path = "../support/mod.rs"]
mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};

use ringcast::app::CloseReason;
use ringcast::app::{App, Upgrade, UpgradeRefused};
use ringcast::config::Config;
use support::{Client, PATIENCE, Received, Server, UPGRADE, eventually};

/// Reports the addresses that requests come from.
struct ReportsAddresses(Sender<Option<SocketAddr>>);

impl App for ReportsAddresses {
    fn upgrade(&mut self, upgrade: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        self.0.send(upgrade.peer).unwrap();
        Ok(())
    }
}

/// A server that trusts 127.0.0.2 as a proxy, and the client addresses that its application sees.
fn server_behind_proxy(change: impl FnOnce(&mut Config)) -> (Server, Receiver<Option<SocketAddr>>) {
    let (sender, seen) = channel();
    let configure = |config: &mut Config| {
        config.proxies.trusted = "127.0.0.2".parse().unwrap();
        change(config);
    };
    (
        Server::start_with(configure, |_| ReportsAddresses(sender.clone())),
        seen,
    )
}

const PROXY: &str = "127.0.0.2";
const NOT_A_PROXY: &str = "127.0.0.3";

/// A connection from this address.
fn from(ip: &str, server: &Server) -> Client {
    connect_from(ip, server.address)
}

fn connect_from(ip: &str, to: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let ip: IpAddr = ip.parse().unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Client::over(socket.into())
}

/// An upgrade request with additional header lines.
fn upgrade_with(lines: &str) -> String {
    UPGRADE.replace("Host: test\r\n", &format!("Host: test\r\n{lines}"))
}

#[track_caller]
fn address(seen: &Receiver<Option<SocketAddr>>) -> String {
    seen.recv_timeout(PATIENCE).unwrap().unwrap().to_string()
}

/// A header of version 2 with a TLV after its addresses.
fn binary_header() -> Vec<u8> {
    let block = [
        192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 1, 0xbb, 0x05, 0, 1, b'x',
    ];
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10"[..], &block].concat()
}

#[test]
fn the_application_sees_the_client_that_a_proxy_names() {
    let (server, seen) = server_behind_proxy(|config| config.proxies.proxy_protocol = true);
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
        // In one segment, and then byte by byte: the position of the header's end is found in both cases.
        let mut client = from(PROXY, &server);
        client.send_bytes(&[&header, UPGRADE.as_bytes()].concat());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        assert_eq!(address(&seen), expected);
        client.handshake();

        let mut client = from(PROXY, &server);
        for byte in [&header, UPGRADE.as_bytes()].concat() {
            client.send_bytes(&[byte]);
        }
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        assert_eq!(address(&seen), expected);
        client.handshake();
    }
    // Health checks of the proxy itself, and clients that it cannot name.
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = from(PROXY, &server);
        client.send_bytes(&[header, UPGRADE.as_bytes()].concat());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        assert!(address(&seen).starts_with("127.0.0.2:"));
    }
}

#[test]
fn a_trusted_proxy_without_a_proxy_header_is_closed() {
    let (server, seen) = server_behind_proxy(|config| config.proxies.proxy_protocol = true);
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
    // An incomplete header has as much time as a request.
    let mut client = from(PROXY, &server);
    client.send_bytes(b"PROXY TCP4 192.0.2.7");
    client.send_fin();
    assert_eq!(client.next(), Received::End);
    eventually("it is closed", || server.connections() == 0);
    assert!(seen.try_recv().is_err());
}

#[test]
fn a_missing_header_has_the_time_limit_of_a_request() {
    let (server, _told) = server_behind_proxy(|config| {
        config.proxies.proxy_protocol = true;
        config.limits.request_timeout = std::time::Duration::from_millis(50);
    });
    let mut client = from(PROXY, &server);
    client.send_bytes(b"PROXY TCP4 192.0.2.7");
    assert_eq!(client.next(), Received::End);
    assert_eq!(server.closes(CloseReason::RequestTimeout), 1);
}

#[test]
fn only_a_trusted_proxy_can_name_another_client() {
    let (server, seen) = server_behind_proxy(|config| config.proxies.proxy_protocol = true);
    for header in [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(),
        binary_header(),
    ] {
        let mut client = from(NOT_A_PROXY, &server);
        client.send_bytes(&[&header, UPGRADE.as_bytes()].concat());
        assert!(client.rest().starts_with("HTTP/1.1 400 "));
    }
    let mut client = from(NOT_A_PROXY, &server);
    client.send_bytes(upgrade_with("X-Forwarded-For: 192.0.2.7\r\n").as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    assert!(address(&seen).starts_with("127.0.0.3:"));
}

#[test]
fn a_forwarded_request_is_from_the_last_address_that_is_not_a_proxy() {
    let (server, seen) = server_behind_proxy(|config| config.proxies.x_forwarded_for = true);
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
        (NOT_A_PROXY, "X-Forwarded-For: 192.0.2.7\r\n", "127.0.0.3:"),
    ] {
        let mut client = from(ip, &server);
        client.send_bytes(upgrade_with(lines).as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        let found = address(&seen);
        assert!(found.starts_with(expected), "{ip} {lines}: {found}");
    }
}

#[test]
fn a_client_named_by_a_proxy_can_name_another_only_if_it_is_a_trusted_proxy_too() {
    let (server, seen) = server_behind_proxy(|config| {
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
        assert_eq!(address(&seen), expected);
    }
}

#[test]
fn only_listed_origins_and_requests_without_an_origin_are_accepted() {
    let server =
        Server::start(|config| config.listen.allowed_origins = "https://*.example.com".parse().unwrap());
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
