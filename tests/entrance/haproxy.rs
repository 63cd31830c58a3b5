//! A real HAProxy in front: the server knows the client that HAProxy relays for, and does not trust addresses
//! that the client sends itself.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::support::secure::{self, ALL, Authority, Files, speak_tls};
use super::support::{Client, Server};
use super::{address, connect_from, server_behind_proxy, upgrade_with};

/// A running HAProxy, ended with the value.
struct HaProxy {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl HaProxy {
    /// Relays to the server, with this mode and these options in its `server` line.
    fn start(server: &Server, mode: &str, options: &str) -> HaProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let name = format!("ringcast-haproxy-{}-{}", std::process::id(), address.port());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let file = folder.join("haproxy.cfg");
        let configuration = format!(
            "global\n  maxconn 100\ndefaults\n  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n\
             listen entrance\n  {mode}\n  bind fd@0\n  server ringcast {} {options}\n",
            server.address
        );
        fs::write(&file, configuration).unwrap();
        // It inherits the listener, so that its port is free and clients can connect at once.
        let child = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy is installed, as tests/run does it");
        HaProxy {
            child,
            folder,
            address,
        }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // It may have ended by itself; then the test has already failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Connects through the proxy with additional header lines; returns the address that the server sees.
#[track_caller]
fn through(proxy: &HaProxy, lines: &str) -> (Client, SocketAddr) {
    let mut client = connect_from("127.0.0.9", proxy.address);
    let own = client.stream.local_addr().unwrap();
    client.send_bytes(upgrade_with(lines).as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.handshake();
    (client, own)
}

#[test]
fn haproxy_sends_the_address_of_its_clients_in_both_versions() {
    for options in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c",
    ] {
        let (server, seen) = server_behind_proxy(|config| {
            config.proxies.trusted = "127.0.0.1".parse().unwrap();
            config.proxies.proxy_protocol = true;
        });
        let proxy = HaProxy::start(&server, "mode tcp", options);
        let (_client, own) = through(&proxy, "X-Forwarded-For: 203.0.113.1\r\n");
        assert_eq!(address(&seen), own.to_string(), "{options}");

        // A PROXY header that the client itself sends comes after the proxy's own: no request begins like
        // that.
        let mut forger = connect_from("127.0.0.9", proxy.address);
        forger.send_bytes(b"PROXY TCP4 203.0.113.1 198.51.100.1 1 2\r\n");
        forger.send_bytes(upgrade_with("").as_bytes());
        assert!(forger.rest().starts_with("HTTP/1.1 400 "), "{options}");
    }
}

#[test]
fn haproxy_sends_the_address_of_clients_whose_tls_it_passes_through() {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let pair = authority.server(&["localhost"]);
    let (server, seen) = server_behind_proxy(|config| {
        config.proxies.trusted = "127.0.0.1".parse().unwrap();
        config.proxies.proxy_protocol = true;
        speak_tls(config, &files, &[pair]);
    });
    let trust = Arc::new(authority.trust(ALL, None));
    for options in ["send-proxy", "send-proxy-v2"] {
        let proxy = HaProxy::start(&server, "mode tcp", options);
        let client = secure::client(proxy.address, &trust);
        let own = client.stream.local_addr().unwrap();
        assert_eq!(address(&seen), own.to_string(), "{options}");
    }
}

#[test]
fn addresses_that_clients_of_haproxy_send_themselves_are_ignored() {
    let (server, seen) = server_behind_proxy(|config| {
        config.proxies.trusted = "127.0.0.1".parse().unwrap();
        config.proxies.x_forwarded_for = true;
    });
    let proxy = HaProxy::start(&server, "mode http\n  option forwardfor", "");
    for lines in [
        "",
        "X-Forwarded-For: 203.0.113.1\r\n",
        "X-Forwarded-For: 203.0.113.1, 127.0.0.1\r\n",
    ] {
        let (_client, _) = through(&proxy, lines);
        assert_eq!(address(&seen), "127.0.0.9:0", "{lines}");
    }
}

#[test]
fn an_untrusted_haproxy_counts_as_the_client() {
    let (server, seen) = server_behind_proxy(|config| {
        config.proxies.trusted = "192.0.2.1".parse().unwrap();
        config.proxies.proxy_protocol = true;
        config.proxies.x_forwarded_for = true;
    });
    let proxy = HaProxy::start(&server, "mode http\n  option forwardfor", "");
    let (_client, _) = through(&proxy, "");
    assert!(address(&seen).starts_with("127.0.0.1:"));
}
