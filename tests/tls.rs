//! TLS on the cores: with real certificates, rustls clients and OpenSSL's.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use aws_lc_rs::aead;
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::signal::Signal;
use rcgen::KeyPair;
use ringcast::app::CloseReason;
use ringcast::app::{App, Call, CallAnswer, Peer};
use ringcast::config::tls::{ClientAuth, OnListen};
use ringcast::config::{Config, Placement};
use ringcast::internals::metrics::block::Handshake;
use ringcast::server::Selection;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};
use support::process::Process;
use support::secure::{ALL, Authority, Files, Pair, ask_clients, client, connect, speak_tls};
use support::{Client, Received, Server, UPGRADE, eventually, frame};

/// A server with a certificate for `localhost`, and a client that trusts it.
struct World {
    server: Server,
    trust: Arc<ClientConfig>,
    authority: Authority,
    _files: Files,
}

fn world(change: impl FnOnce(&mut Config)) -> World {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let pair = authority.server(&["localhost"]);
    let server = Server::start(|config| {
        speak_tls(config, &files, &[pair]);
        change(config);
    });
    World {
        server,
        trust: Arc::new(authority.trust(ALL, None)),
        authority,
        _files: files,
    }
}

impl World {
    fn client(&self) -> Client {
        client(self.server.address, &self.trust)
    }

    fn handshakes(&self, result: Handshake) -> u64 {
        self.server.total(|core| &core.tls_handshakes[result.index()])
    }

    #[track_caller]
    fn handshakes_become(&self, result: Handshake, count: u64) {
        eventually(&format!("{count} handshakes end {result:?}"), || {
            self.handshakes(result) == count
        });
    }
}

/// Tries to complete a handshake. The error if the server refuses it.
fn shake(client: &mut Client) -> Result<(), rustls::Error> {
    let tls = client.tls.as_mut().unwrap();
    // In TLS 1.3 the client's handshake completes before the server has checked its certificate: only the
    // answer to a request shows the result.
    let result = tls.complete_io(&mut client.stream).map(drop).and_then(|()| {
        let mut stream = rustls::Stream::new(&mut **tls, &mut client.stream);
        stream.write_all(UPGRADE.as_bytes())?;
        stream.read_exact(&mut [0; 12])
    });
    result.map_err(
        |error| match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => rustls::Error::clone(error),
            None => rustls::Error::General(error.to_string()),
        },
    )
}

fn is_alert(result: &Result<(), rustls::Error>, alert: rustls::AlertDescription) -> bool {
    matches!(result, Err(rustls::Error::AlertReceived(found)) if *found == alert)
}

#[test]
fn both_ports_support_both_versions_and_the_shared_one_also_plain_text() {
    let world = world(|config| config.tls.listen = Some(([127, 0, 0, 1], 0).into()));
    for (version, wanted) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let trust = Arc::new(world.authority.trust(&[version], None));
        for address in [
            world.server.address,
            world.server.running().tls_address().unwrap(),
        ] {
            for _ in 0..4 {
                let mut client = client(address, &trust);
                assert_eq!(client.tls.as_ref().unwrap().protocol_version(), Some(wanted));
                client.subscribe("news");
                client.publish("news", "1");
                assert_eq!(client.publication("news"), "1");
                client.ping();
            }
        }
    }
    world.server.client().ping();
    eventually("all connections are closed", || world.server.connections() == 0);
    // One for each version; the others resumed with tickets, which are valid on all ports and cores.
    let (full, resumed) = (Handshake::Full, Handshake::Resumed);
    assert_eq!((world.handshakes(full), world.handshakes(resumed)), (2, 14));
    assert_eq!(world.server.closes(CloseReason::TlsFailed), 0);
}

#[test]
fn a_plain_request_on_a_port_for_tls_gets_an_error_that_says_so() {
    let world = world(|config| {
        config.tls.on_listen = OnListen::Only;
        config.tls.listen = Some(([127, 0, 0, 1], 0).into());
    });
    for address in [
        world.server.address,
        world.server.running().tls_address().unwrap(),
    ] {
        let mut client = Client::connect(address);
        client.send_bytes(UPGRADE.as_bytes());
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert_eq!(client.rest(), "The plain HTTP request was sent to HTTPS port");
        support::secure::client(address, &world.trust).ping();
    }
}

#[test]
fn the_requested_name_selects_the_certificate() {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let pairs = [
        authority.server(&["first.test"]),
        authority.server(&["Second.test", "*.second.test"]),
        authority.server(&["deep.second.test"]),
    ];
    let server = Server::start(|config| speak_tls(config, &files, &pairs));
    let shown = |name: &str| {
        let mut config = authority.trust(ALL, None);
        // The client accepts any certificate; the test checks which one was shown.
        config.dangerous().set_certificate_verifier(Arc::new(Any));
        let mut client = connect(server.address, &Arc::new(config), name);
        shake(&mut client).unwrap();
        let shown = client.tls.as_ref().unwrap().peer_certificates().unwrap()[0].clone();
        pairs
            .iter()
            .position(|pair| pem(&pair.certificate) == shown.as_ref())
    };
    for (name, wanted) in [
        ("first.test", 0),
        ("second.test", 1),
        ("www.second.test", 1),
        ("WWW.SECOND.TEST", 1),
        ("deep.second.test", 2),
        ("a.b.second.test", 0),
        ("elsewhere.test", 0),
        ("127.0.0.1", 0),
    ] {
        assert_eq!(shown(name), Some(wanted), "{name}");
    }
}

#[test]
fn a_client_without_ecdsa_gets_the_rsa_certificate() {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let pairs = [
        authority.server(&["localhost"]),
        authority.server_with(rsa, &["localhost"], (2020, 2090)),
    ];
    let server = Server::start(|config| speak_tls(config, &files, &pairs));
    for (signatures, kind) in [("ECDSA+SHA256", "ECDSA"), ("RSA-PSS+SHA256", "RSA-PSS")] {
        let (code, text) = openssl(&server, &["-tls1_3", "-sigalgs", signatures]);
        assert_eq!(code, 0, "{text}");
        let line = text.lines().find(|line| line.starts_with("Peer signature type"));
        assert!(line.is_some_and(|line| line.ends_with(kind)), "{text}");
    }
}

#[test]
fn http_is_the_only_application_protocol() {
    let world = world(|_| {});
    let mut trust = world.authority.trust(ALL, None);
    trust.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = connect(world.server.address, &Arc::new(trust.clone()), "localhost");
    let refused = shake(&mut client);
    assert!(
        is_alert(&refused, rustls::AlertDescription::NoApplicationProtocol),
        "{refused:?}"
    );
    world.handshakes_become(Handshake::Protocol, 1);
    trust.alpn_protocols.push(b"http/1.1".to_vec());
    let client = support::secure::client(world.server.address, &Arc::new(trust));
    assert_eq!(
        client.tls.as_ref().unwrap().alpn_protocol(),
        Some(&b"http/1.1"[..])
    );
    assert_eq!(world.client().tls.as_ref().unwrap().alpn_protocol(), None);
}

#[test]
fn tickets_are_valid_on_every_core() {
    for version in ALL {
        let world = world(|_| {});
        let trust = Arc::new(world.authority.trust(&[version], None));
        let mut clients = vec![client(world.server.address, &trust)];
        clients[0].ping();
        for _ in 0..7 {
            let mut next = client(world.server.address, &trust);
            assert_eq!(
                next.tls.as_ref().unwrap().handshake_kind(),
                Some(HandshakeKind::Resumed),
                "{version:?}"
            );
            // The ticket for the next connection comes before the answer.
            next.ping();
            clients.push(next);
        }
        assert_eq!(world.server.each(|core| &core.connections), [4, 4]);
        assert_eq!(
            (
                world.handshakes(Handshake::Full),
                world.handshakes(Handshake::Resumed)
            ),
            (1, 7)
        );
    }
}

#[test]
fn a_handshake_may_come_in_pieces_of_any_size() {
    let world = world(|_| {});
    for version in ALL {
        let trust = Arc::new(world.authority.trust(&[version], None));
        for size in [1, 2, 3, 5, 100] {
            let mut client = connect(world.server.address, &trust, "localhost");
            let tls = client.tls.as_mut().unwrap();
            let mut pieces = Pieces(&client.stream, size);
            while tls.is_handshaking() {
                while tls.wants_write() {
                    tls.write_tls(&mut pieces).unwrap();
                }
                if tls.wants_read() {
                    tls.read_tls(&mut pieces).unwrap();
                    tls.process_new_packets().unwrap();
                }
            }
            tls.writer().write_all(UPGRADE.as_bytes()).unwrap();
            while tls.wants_write() {
                tls.write_tls(&mut pieces).unwrap();
            }
            assert!(client.read_head().starts_with("HTTP/1.1 101 "));
            client.handshake();
            client.ping();
        }
    }
}

/// Writes this many bytes at a time, each with a system call of its own.
struct Pieces<'a>(&'a TcpStream, usize);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(self.1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(room)
    }
}

#[test]
fn invalid_tls_ends_only_its_own_connection() {
    let world = world(|_| {});
    let mut witness = world.client();
    let mut cases: Vec<Vec<u8>> = vec![
        // A handshake record without a valid handshake message.
        [&[0x16, 3, 1, 0, 5][..], b"hello"].concat(),
        // An empty record, one longer than allowed, one of an unknown version.
        vec![0x16, 3, 1, 0, 0],
        [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 100]].concat(),
        vec![0x16, 9, 9, 0, 1, 0],
        // A handshake message that claims to be 16 MB long.
        [&[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[7; 0x4000]].concat(),
    ];
    // A valid beginning that becomes invalid at some position.
    let hello = hello(&world);
    for place in (0..hello.len()).step_by(7).skip(1) {
        let mut broken = hello.clone();
        broken[place] ^= 0x55;
        cases.push(broken);
    }
    for (index, bytes) in cases.iter().enumerate() {
        let mut client = world.server.connect();
        client.send_bytes(bytes);
        // Bytes that cannot be TLS, whatever follows, are answered at once.
        if ![0, 2].contains(&index) {
            client.send_fin();
        }
        // An alert, a server hello or nothing; then the end.
        let mut answer = Vec::new();
        client.stream.read_to_end(&mut answer).unwrap();
        assert!(
            answer.is_empty() || (0x15..=0x16).contains(&answer[0]),
            "case {index}: {answer:?}"
        );
        witness.ping();
    }
    world.server.settles_at(1, 0);
    let ends = [
        Handshake::Malformed,
        Handshake::Abandoned,
        Handshake::Incompatible,
        Handshake::Protocol,
    ];
    let ended: u64 = ends.iter().map(|&end| world.handshakes(end)).sum();
    assert_eq!(ended, cases.len() as u64, "each is counted once");
}

/// The first flight of a client.
fn hello(world: &World) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::clone(&world.trust), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn a_slow_handshake_is_ended_by_its_time_limit() {
    let world = world(|config| config.limits.request_timeout = Duration::from_millis(100));
    let mut client = world.server.connect();
    client.send_bytes(&hello(&world)[..50]);
    assert_eq!(client.next(), Received::End);
    assert_eq!(world.server.closes(CloseReason::RequestTimeout), 1);
    assert_eq!(world.handshakes(Handshake::Abandoned), 1);
}

#[test]
fn a_manipulated_record_ends_only_its_own_connection() {
    let world = world(|_| {});
    let (mut witness, mut victim) = (world.client(), world.client());
    victim.subscribe("news");
    victim.stream.write_all(&[0x17, 3, 3, 0, 32]).unwrap();
    victim.stream.write_all(&[0x5a; 32]).unwrap();
    // The alert is the last thing that the server sends.
    let tls = victim.tls.as_mut().unwrap();
    let error = loop {
        tls.read_tls(&mut victim.stream).unwrap();
        if let Err(error) = tls.process_new_packets() {
            break error;
        }
    };
    assert_eq!(
        error,
        rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)
    );
    assert_eq!(victim.stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(world.server.closes(CloseReason::TlsFailed), 1);
    witness.ping();
    drop(victim);
    world.server.settles_at(1, 0);
}

/// A library that has received half a message remembers its position in bytes that are kept elsewhere, and
/// looks at them again with the next write.
/// Under TLS, bytes are counted as they are on the wire: records, handshakes and alerts, as those of a connection
/// without TLS. A proxy that passes them on counts them, too.
#[test]
fn bytes_are_counted_as_they_are_on_the_wire() {
    let world = world(|config| config.cores.placement = Placement::Count(1));
    let upstream = world.server.address;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts: Arc<[AtomicU64; 2]> = Arc::default();
    let of_proxy = Arc::clone(&counts);
    let proxy = thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(upstream).unwrap();
        thread::scope(|scope| {
            for (index, mut from, mut to) in [(0, &client, &server), (1, &server, &client)] {
                let counts = &of_proxy;
                scope.spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        counts[index].fetch_add(count as u64, Ordering::Relaxed);
                        to.write_all(&buffer[..count]).unwrap();
                    }
                    // The other end may have gone.
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        });
    });
    let mut client = client(address, &world.trust);
    client.subscribe("news");
    for number in 0..100 {
        client.publish("news", &format!("[{number},\"{}\"]", "x".repeat(number * 40)));
        client.message();
    }
    client.ping();
    let passed = |index: usize| counts[index].load(Ordering::Relaxed);
    let server = &world.server;
    eventually("the counters of the server are those of the proxy", || {
        (
            server.total(|core| &core.bytes_received),
            server.total(|core| &core.bytes_sent),
        ) == (passed(0), passed(1))
    });
    assert!(passed(0) > 200_000 && passed(1) > 200_000);
    drop(client);
    proxy.join().unwrap();
}

#[test]
fn half_a_handshake_message_after_the_handshake_does_no_harm() {
    let world = world(|_| {});
    let (mut witness, mut victim) = (world.client(), {
        let mut trust = world.authority.trust(&[&rustls::version::TLS13], None);
        trust.enable_secret_extraction = true;
        client(world.server.address, &Arc::new(trust))
    });
    victim.subscribe("news");
    let secrets = victim.tls.take().unwrap().dangerous_extract_secrets().unwrap();
    let (number, rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
        panic!("a suite other than the first");
    };
    // A `key_update` has 5 bytes: this sends the first of them, and then the second.
    for (step, byte) in [0x18, 0].into_iter().enumerate() {
        let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
        for (place, byte) in nonce[4..].iter_mut().zip((number + step as u64).to_be_bytes()) {
            *place ^= byte;
        }
        let mut record = vec![byte, 22];
        let head = [0x17, 3, 3, 0, 18];
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.as_ref()).unwrap();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        aead::LessSafeKey::new(key)
            .seal_in_place_append_tag(nonce, aead::Aad::from(head), &mut record)
            .unwrap();
        victim.stream.write_all(&head).unwrap();
        victim.stream.write_all(&record).unwrap();
        // The core has read it once it has answered others; now it writes to the victim.
        for _ in 0..4 {
            witness.ping();
        }
        witness.publish("news", "1");
        witness.ping();
        assert!(victim.stream.read(&mut [0; 1000]).unwrap() > 0);
    }
    drop(victim);
    witness.ping();
    world.server.settles_at(1, 0);
}

#[test]
fn both_ends_send_close_notify_and_a_truncation_is_distinguished_from_an_end() {
    let world = world(|_| {});
    // The server's close_notify, after its close frame: without it the client's library would report a
    // truncation.
    let mut client = world.client();
    client.send_bytes(&support::close_frame(1000, ""));
    assert_eq!(client.next(), Received::Close(Some(1000), String::new()));
    assert_eq!(client.next(), Received::End);
    assert_eq!(world.server.closes(CloseReason::PeerClosed), 1);
    // The client's close_notify, without a FIN.
    let mut client = world.client();
    client.tls.as_mut().unwrap().send_close_notify();
    client
        .tls
        .as_mut()
        .unwrap()
        .complete_io(&mut client.stream)
        .unwrap();
    assert_eq!(client.next(), Received::End);
    // A FIN in the middle.
    let client = world.client();
    client.send_fin();
    eventually("both connections are closed", || {
        world.server.closes(CloseReason::PeerVanished) == 2
    });
    world.server.settles_at(0, 0);
}

/// A client that has sent close_notify still reads.
#[test]
fn a_plain_request_is_answered_after_the_clients_close_notify() {
    let world = world(|_| {});
    for (target, part) in [("/health-check", "\r\n\r\nOK"), ("/", "</html>")] {
        let mut client = connect(world.server.address, &world.trust, "localhost");
        client.send_bytes(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        client.tls.as_mut().unwrap().send_close_notify();
        client
            .tls
            .as_mut()
            .unwrap()
            .complete_io(&mut client.stream)
            .unwrap();
        let answer = client.rest();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.trim_end().ends_with(part), "{answer}");
    }
}

/// An application that answers with the claims of the caller.
struct AnswersWithClaims;

impl App for AnswersWithClaims {
    fn invoke(&mut self, _call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let claims = peer.claims().map(|claims| claims.json().to_owned());
        peer.reply(&claims.unwrap_or_default())
    }
}

#[test]
fn a_clients_certificate_is_its_identity() {
    let (authority, clients, files) = (Authority::new("servers"), Authority::new("clients"), Files::new());
    let pair = authority.server(&["localhost"]);
    for auth in [ClientAuth::Optional, ClientAuth::Required] {
        let server = Server::start_with(
            |config| {
                speak_tls(config, &files, std::slice::from_ref(&pair));
                ask_clients(config, &files, auth, &clients);
            },
            |_| AnswersWithClaims,
        );
        for version in ALL {
            let connect = |own: Option<&Pair>| {
                let trust = Arc::new(authority.trust(&[version], own));
                connect(server.address, &trust, "localhost")
            };
            let trust = Arc::new(authority.trust(&[version], Some(&clients.client("alice", (2020, 2090)))));
            // The second connection resumes with a ticket, which stands for the certificate.
            for _ in 0..2 {
                let mut alice = client(server.address, &trust);
                let answer = alice.call("who", "null").replace('\\', "");
                for part in [
                    r#"{"sub":"alice","exp":3786912000,"tls":{"subject":""#,
                    "CN=alice",
                    "O=Example",
                    r#""san":["a@example.com"]"#,
                    r#""serial":""#,
                ] {
                    assert!(answer.contains(part), "{answer}");
                }
            }
            let mut without_certificate = connect(None);
            let without = shake(&mut without_certificate);
            assert_eq!(without.is_ok(), auth == ClientAuth::Optional, "{without:?}");
            for (pair, what) in [
                (
                    Authority::new("clients").client("alice", (2020, 2090)),
                    "of a foreign authority",
                ),
                (clients.client("alice", (2010, 2020)), "that has ended"),
                (clients.client("alice", (2080, 2090)), "that has not begun"),
                (clients.server(&["alice"]), "for servers"),
            ] {
                let refused = shake(&mut connect(Some(&pair)));
                // The certificate for servers is accepted, since it does not restrict its purpose.
                assert_eq!(refused.is_ok(), what == "for servers", "{what}: {refused:?}");
            }
        }
        // A client without TLS has no identity.
        let mut plain = server.client();
        assert!(plain.call("who", "null").ends_with(r#""data":""}"#));
        let failed = server.total(|core| &core.tls_handshakes[Handshake::Certificate.index()]);
        assert_eq!(failed, if auth == ClientAuth::Required { 8 } else { 6 });
    }
}

/// A server with [`AnswersWithClaims`] that demands client certificates, and the configuration of a client with
/// Alice's.
fn mirror_for_alice(change: impl FnOnce(&mut Config)) -> (Server, Arc<rustls::ClientConfig>) {
    let (authority, clients, files) = (Authority::new("servers"), Authority::new("clients"), Files::new());
    let pair = authority.server(&["localhost"]);
    let server = Server::start_with(
        |config| {
            speak_tls(config, &files, &[pair]);
            ask_clients(config, &files, ClientAuth::Required, &clients);
            change(config);
        },
        |_| AnswersWithClaims,
    );
    let trust = authority.trust(ALL, Some(&clients.client("alice", (2020, 2090))));
    (server, Arc::new(trust))
}

/// A token could be used without the certificate, and after its end.
#[test]
fn no_token_is_made_of_a_certificate() {
    let (server, trust) = mirror_for_alice(|_| {});
    let mut alice = client(server.address, &trust);
    assert!(alice.call("who", "null").contains("alice"));
    let refreshed = server
        .running()
        .handle()
        .refresh_token(&Selection::All, None)
        .wait();
    assert_eq!(refreshed, Ok(0));
    assert!(alice.call("who", "null").contains("alice"));
}

/// A browser sends the certificate for any page that opens the socket, as it does with a cookie.
#[test]
fn a_certificate_counts_only_for_trusted_pages() {
    let (server, trust) = mirror_for_alice(|config| {
        config.listen.origins = "*:* listed.example:443".to_owned();
    });
    for (version, lines, counts) in [
        (13, "", true),
        (13, "Origin: https://test\r\n", true),
        (13, "Origin: https://listed.example\r\n", true),
        (13, "Origin: https://evil.example\r\n", false),
        (13, "Origin: http://test\r\n", false),
        (13, "Origin: https://test:8443\r\n", false),
        (13, "Origin: null\r\n", false),
        (13, "Origin: https://test\r\nOrigin: https://test\r\n", false),
        (13, "Sec-Fetch-Site: cross-site\r\n", false),
        (8, "Sec-WebSocket-Origin: https://test\r\n", true),
        (8, "Sec-WebSocket-Origin: https://evil.example\r\n", false),
        (8, "Origin: https://evil.example\r\n", false),
        (
            8,
            "Origin: https://evil.example\r\nSec-WebSocket-Origin: https://test\r\n",
            false,
        ),
    ] {
        let mut alice = connect(server.address, &trust, "localhost");
        let request = UPGRADE
            .replace("Version: 13", &format!("Version: {version}"))
            .replace("Host: test\r\n", &format!("Host: test\r\n{lines}"));
        alice.send_bytes(request.as_bytes());
        assert!(alice.read_head().starts_with("HTTP/1.1 101 "), "{lines}");
        alice.handshake();
        let answer = alice.call("who", "null");
        assert_eq!(
            answer.contains("alice"),
            counts,
            "version {version}, {lines}: {answer}"
        );
    }
}

#[test]
fn a_token_replaces_the_identity_of_the_certificate() {
    let (server, trust) = mirror_for_alice(|_| {});
    let mut alice = client(server.address, &trust);
    assert!(alice.call("who", "null").contains("alice"));
    // A bad token does too: a client that sends it does not have the identity of its certificate.
    alice.call("#authenticate", r#""a.b.c""#);
    assert_eq!(alice.message(), r##"{"event":"#removeAuthToken"}"##);
    assert!(!alice.call("who", "null").contains("alice"));
}

#[test]
fn large_messages_pass_both_ways_and_a_slow_reader_costs_no_more_than_its_outbox() {
    let world = world(|config| {
        config.limits.message_bytes_max = 1 << 20;
        config.limits.outbox_bytes_max = 2 << 20;
    });
    let mut fast = world.client();
    let mut slow = Client::connect_narrow(world.server.address);
    slow.tls = connect(world.server.address, &world.trust, "localhost").tls;
    slow.upgrade();
    slow.handshake();
    for client in [&mut fast, &mut slow] {
        client.subscribe("large");
    }
    let large = format!(r#""{}""#, "x".repeat(900_000));
    for _ in 0..2 {
        fast.publish("large", &large);
        assert_eq!(fast.publication("large"), large);
    }
    assert!(world.server.total(|core| &core.outbox_bytes) <= 2 << 20);
    for _ in 0..2 {
        assert_eq!(slow.publication("large"), large);
    }
    slow.ping();
    // When its outbox reaches the limit the connection is closed, after the data that had begun to leave.
    for _ in 0..8 {
        fast.publish("large", &large);
        assert_eq!(fast.publication("large"), large);
    }
    let mut whole = 0;
    let end = loop {
        match slow.next() {
            Received::Text(text) if text.is_empty() => {}
            Received::Text(text) => {
                assert_eq!(support::publication(&text, "large"), Some(&large[..]));
                whole += 1;
            }
            Received::Close(code, _) => break code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, Some(4010));
    assert!(whole < 8, "{whole}");
    fast.ping();
}

#[test]
fn a_publication_reaches_a_thousand_subscribers_once() {
    let world = world(|_| {});
    let mut clients: Vec<_> = (0..1000)
        .map(|_| {
            let mut client = world.client();
            client.subscribe("news");
            client
        })
        .collect();
    for (number, client) in clients.iter_mut().take(3).enumerate() {
        client.publish("news", &number.to_string());
    }
    for client in &mut clients {
        let mut got: Vec<_> = (0..3).map(|_| client.publication("news")).collect();
        got.sort();
        assert_eq!(got, ["0", "1", "2"]);
    }
    for client in &mut clients {
        client.ping();
    }
}

#[test]
fn openssl_gets_the_expected_versions_suites_and_groups() {
    let world = world(|_| {});
    for (words, works) in [
        (&["-tls1_2"][..], true),
        (&["-tls1_3"], true),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], false),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false),
        // Without forward secrecy, without authentication.
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256:AES256-SHA"], false),
        (&["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], true),
        (&["-tls1_3", "-groups", "P-256"], true),
        // A group that needs a second hello.
        (&["-tls1_3", "-groups", "P-521:P-384"], true),
        (&["-tls1_3", "-alpn", "h2"], false),
        (&["-tls1_3", "-alpn", "h2,http/1.1"], true),
    ] {
        let (code, text) = openssl(&world.server, words);
        assert_eq!(
            code == 0 && text.contains("Cipher is TLS") || text.contains("Cipher is ECDHE"),
            works,
            "{words:?}: {text}"
        );
        if works {
            assert!(text.contains("HTTP/1.1 101 "), "{words:?}: {text}");
            assert!(text.contains("Compression: NONE"), "{text}");
            assert!(!text.contains("Max Early Data: 1"), "{text}");
        }
    }
}

/// The output of `openssl s_client` for a WebSocket request.
fn openssl(server: &Server, words: &[&str]) -> (i32, String) {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &server.address.to_string()])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // The server closes the connection after a close frame; a refused client has already ended.
    let _ = input.write_all(UPGRADE.as_bytes());
    let _ = input.write_all(&frame(support::CLOSE, &1000_u16.to_be_bytes()));
    // It ends when the server does, as long as its input stays open.
    let output = child.wait_with_output().unwrap();
    drop(input);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// The first section of a PEM text.
fn pem(text: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(text.as_bytes())
        .unwrap()
        .to_vec()
}

/// Accepts every certificate.
#[derive(Debug)]
struct Any;

impl rustls::client::danger::ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Keeps its core busy until the test releases it, and reports how much the core has read.
struct Busy {
    entered: Sender<()>,
    released: Receiver<()>,
    bytes_received: Arc<OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>>,
}

impl App for Busy {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        if call.event.as_str() == Some("busy") {
            self.entered.send(()).unwrap();
            self.released.recv().unwrap();
            return peer.reply_empty();
        }
        peer.reply(&self.bytes_received.get().unwrap()())
    }
}

#[test]
fn many_handshakes_do_not_delay_connected_clients() {
    const HANDSHAKES: usize = 100;
    let (authority, files) = (Authority::new("servers"), Files::new());
    let pair = authority.server(&["localhost"]);
    let ((entered, entering), (release, released)) = (bounded(1), bounded(1));
    let bytes_received = Arc::new(OnceLock::new());
    let server = Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(1);
            speak_tls(config, &files, &[pair]);
        },
        |_| Busy {
            entered: entered.clone(),
            released: released.clone(),
            bytes_received: Arc::clone(&bytes_received),
        },
    );
    let core = server.running().cores()[0].clone();
    let read: Box<dyn Fn() -> u64 + Send + Sync> = Box::new(move || core.metrics().bytes_received.value());
    assert!(bytes_received.set(read).is_ok());
    let trust = Arc::new(authority.trust(ALL, None));
    let (mut busy, mut connected) = (server.client(), client(server.address, &trust));
    let mut handshaking: Vec<_> = (0..HANDSHAKES)
        .map(|_| connect(server.address, &trust, "localhost"))
        .collect();
    eventually("all are accepted", || {
        server.connections() == HANDSHAKES as u64 + 2
    });
    busy.begin_call("busy", "null");
    entering.recv().unwrap();
    let before = server.total(|core| &core.bytes_received);
    let mut hello_bytes = 0;
    for client in &mut handshaking {
        hello_bytes += client
            .tls
            .as_mut()
            .unwrap()
            .write_tls(&mut client.stream)
            .unwrap();
    }
    connected.begin_call("look", "null");
    release.send(()).unwrap();
    let answer = connected.message();
    let (_, at_answer) = answer.trim_end_matches('}').rsplit_once(':').unwrap();
    let read_before = at_answer.parse::<u64>().unwrap() - before;
    assert!(
        read_before < hello_bytes as u64 / 2,
        "{read_before} of {hello_bytes}"
    );
    assert!(server.total(|core| &core.transitions_deferred) > HANDSHAKES as u64 / 2);
    for client in &mut handshaking {
        client.upgrade();
        client.handshake();
        client.call("look", "null");
    }
}

/// The certificate that a new connection gets.
fn shown(address: SocketAddr, authority: &Authority) -> Vec<u8> {
    let mut client = connect(address, &Arc::new(authority.trust(ALL, None)), "localhost");
    shake(&mut client).unwrap();
    client.tls.as_ref().unwrap().peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn certificates_change_under_a_thousand_connections() {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let (first, second) = (authority.server(&["localhost"]), authority.server(&["localhost"]));
    let (certificate, key) = files.write_pair("server", &first);
    let process = Process::start(&[
        ("RINGCAST_LISTEN_TLS", "shared"),
        ("RINGCAST_TLS_CERTIFICATE_FILES", certificate.to_str().unwrap()),
        ("RINGCAST_TLS_KEY_FILES", key.to_str().unwrap()),
        ("RINGCAST_ADMIN_TLS", "on"),
    ]);
    let trust = Arc::new(authority.trust(ALL, None));
    let mut clients: Vec<_> = (0..1000).map(|_| client(process.address, &trust)).collect();
    for address in [process.address, process.admin] {
        assert_eq!(shown(address, &authority), pem(&first.certificate));
    }

    // Half of a change: the key does not match, and everything stays as it was.
    files.write_pair(
        "server",
        &Pair {
            key: first.key.clone(),
            ..second.clone()
        },
    );
    process.signal(Signal::SIGHUP);
    let line = process.logged("SIGHUP: ");
    assert!(
        line.contains("nothing is reloaded") && line.contains("is not the key of"),
        "{line}"
    );
    assert_eq!(shown(process.address, &authority), pem(&first.certificate));

    files.write_pair("server", &second);
    process.signal(Signal::SIGHUP);
    process.logged("SIGHUP: reloaded");
    for address in [process.address, process.admin] {
        eventually("new connections get the new certificate", || {
            shown(address, &authority) == pem(&second.certificate)
        });
    }
    for client in &mut clients {
        client.ping();
    }
    // Earlier tickets are still valid.
    let mut old_friend = connect(process.address, &trust, "localhost");
    shake(&mut old_friend).unwrap();
    assert_eq!(
        old_friend.tls.as_ref().unwrap().handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
    let mut operator = connect(process.admin, &trust, "localhost");
    operator.send_bytes(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let metrics = operator.rest();
    assert!(
        metrics.contains("\nringcast_tls_certificate_not_after_seconds 3786912000\n"),
        "{metrics}"
    );
}

#[test]
fn a_reload_without_tls_settings_is_refused_and_operators_keep_tls() {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let (certificate, key) = files.write_pair("server", &authority.server(&["localhost"]));
    let settings = |text: &str| files.write("ringcast.toml", text);
    let tls = format!(
        "listen_tls = \"shared\"\nadmin_tls = true\ntls_certificate_files = {certificate:?}\ntls_key_files = {key:?}\n"
    );
    let config = settings(&tls);
    let process = Process::start(&[("RINGCAST_CONFIG", config.to_str().unwrap())]);
    settings("");
    process.signal(Signal::SIGHUP);
    let line = process.logged("SIGHUP: ");
    assert!(line.contains("nothing is reloaded"), "{line}");
    let trust = Arc::new(authority.trust(ALL, None));
    client(process.address, &trust).ping();
    let mut operator = connect(process.admin, &trust, "localhost");
    operator.send_bytes(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(operator.rest().starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_operator_that_has_closed_its_sending_side_is_answered_with_and_without_close_notify() {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let (certificate, key) = files.write_pair("server", &authority.server(&["localhost"]));
    let process = Process::start(&[
        ("RINGCAST_LISTEN_TLS", "shared"),
        ("RINGCAST_ADMIN_TLS", "on"),
        ("RINGCAST_TLS_CERTIFICATE_FILES", certificate.to_str().unwrap()),
        ("RINGCAST_TLS_KEY_FILES", key.to_str().unwrap()),
    ]);
    let trust = Arc::new(authority.trust(ALL, None));
    for notifies in [true, false] {
        let mut operator = connect(process.admin, &trust, "localhost");
        // This answer waits for the cores.
        operator.send_bytes(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if notifies {
            operator.tls.as_mut().unwrap().send_close_notify();
            operator.send_bytes(b"");
        }
        operator.send_fin();
        assert!(operator.rest().starts_with("HTTP/1.1 200 "), "{notifies}");
    }
}
