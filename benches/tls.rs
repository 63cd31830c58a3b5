//! How much does TLS cost the server? The memory of an idle connection and the CPU time of connecting and of a ping,
//! each compared with a connection without TLS.
//!
//! `cargo bench --bench tls` starts the built server on one core and reads from the system how much memory (resident,
//! without socket buffers) and CPU time the server has used; the client's share is not included. Connecting means: TCP,
//! TLS, the upgrade and `#handshake`. `--once` makes only a few connections, to check that the bench works.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

#[path = "../tests/support/frame.rs"]
mod frame;

fn main() {
    let once = std::env::args().any(|word| word == "--once");
    let counts = if once {
        Counts {
            idle: 20,
            connects: 5,
            pings: 64,
        }
    } else {
        Counts {
            idle: 5000,
            connects: 400,
            pings: 40_000,
        }
    };
    let folder = std::env::temp_dir().join(format!("ringcast-bench-tls-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder can be made");
    let ecdsa = Identity::new(&folder, "ecdsa", KeyPair::generate().expect("a key can be made"));
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let rsa = Identity::new(&folder, "rsa", rsa.expect("a key can be made"));
    print(&measure(&ecdsa, &rsa, &counts));
    // A folder that remains does no harm.
    let _ = fs::remove_dir_all(&folder);
}

/// How often each step is done.
struct Counts {
    idle: u32,
    connects: u32,
    pings: u32,
}

/// A line of the table: name, value, unit.
type Line = (&'static str, f64, &'static str);

fn measure(ecdsa: &Identity, rsa: &Identity, counts: &Counts) -> Vec<Line> {
    let mut lines = Vec::new();
    let both = &[&rustls::version::TLS13, &rustls::version::TLS12][..];
    for (what, config) in [
        ("idle, subscribed, plain", None),
        ("idle, subscribed, TLS 1.3", Some(ecdsa.trust(both, true))),
        (
            "idle, subscribed, TLS 1.2",
            Some(ecdsa.trust(&[&rustls::version::TLS12], true)),
        ),
    ] {
        let server = Server::start(ecdsa);
        // The first connections also pay for memory that is allocated once.
        let mut kept: Vec<Client> = (0..16).map(|_| server.client(config.as_ref())).collect();
        let before = server.resident_bytes();
        kept.extend((0..counts.idle).map(|_| {
            let mut client = server.client(config.as_ref());
            client.call(r##"{"event":"#subscribe","data":{"channel":"news"},"cid":2}"##);
            client
        }));
        let bytes = server.resident_bytes() - before;
        lines.push((what, bytes / f64::from(counts.idle), "bytes"));
    }
    for (what, identity, config) in [
        ("coming in, plain", ecdsa, None),
        (
            "coming in, TLS 1.3, ECDSA P-256",
            ecdsa,
            Some(ecdsa.trust(both, false)),
        ),
        ("coming in, TLS 1.3, RSA 2048", rsa, Some(rsa.trust(both, false))),
        ("coming in, TLS 1.3, resumed", rsa, Some(rsa.trust(both, true))),
        (
            "coming in, TLS 1.2, ECDSA P-256",
            ecdsa,
            Some(ecdsa.trust(&[&rustls::version::TLS12], false)),
        ),
        (
            "coming in, TLS 1.2, resumed",
            rsa,
            Some(rsa.trust(&[&rustls::version::TLS12], true)),
        ),
    ] {
        let server = Server::start(identity);
        for _ in 0..counts.connects / 10 + 1 {
            server.client(config.as_ref());
        }
        let before = server.cpu_us();
        for _ in 0..counts.connects {
            server.client(config.as_ref());
        }
        let us = server.cpu_us() - before;
        lines.push((what, us / f64::from(counts.connects), "µs"));
    }
    for (what, in_flight, config) in [
        ("ping, 1 in flight, plain", 1, None),
        ("ping, 1 in flight, TLS", 1, Some(ecdsa.trust(both, true))),
        ("ping, 16 in flight, plain", 16, None),
        ("ping, 16 in flight, TLS", 16, Some(ecdsa.trust(both, true))),
    ] {
        let server = Server::start(ecdsa);
        let mut client = server.client(config.as_ref());
        client.pings(counts.pings / 10, in_flight);
        let before = server.cpu_us();
        client.pings(counts.pings, in_flight);
        let us = server.cpu_us() - before;
        lines.push((what, us / f64::from(counts.pings), "µs"));
    }
    lines
}

#[expect(clippy::print_stdout, reason = "the table is for a reader")]
fn print(lines: &[Line]) {
    for (what, amount, unit) in lines {
        println!("{what:<36} {amount:>10.1} {unit}");
    }
}

/// A self-signed certificate, in files.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    der: CertificateDer<'static>,
}

impl Identity {
    fn new(folder: &Path, name: &str, key: KeyPair) -> Identity {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a key signs itself");
        let write = |end: &str, text: &str| {
            let file = folder.join(format!("{name}.{end}"));
            fs::write(&file, text).expect("the folder is ours");
            file
        };
        Identity {
            certificate: write("pem", &certificate.pem()),
            key: write("key", &key.serialize_pem()),
            der: certificate.der().clone(),
        }
    }

    fn trust(&self, versions: &[&'static SupportedProtocolVersion], resumes: bool) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate of ours");
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that are known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        Arc::new(config)
    }
}

/// The built server, on one core. It is killed when the value is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(identity: &Identity) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .env("RINGCAST_LISTEN", "127.0.0.1:0")
            .env("RINGCAST_ADMIN", "off")
            .env("RINGCAST_CORES", "1")
            .env("RINGCAST_PINGS", "off")
            .env("RINGCAST_LISTEN_TLS", "shared")
            .env("RINGCAST_TLS_CERTIFICATE_FILES", &identity.certificate)
            .env("RINGCAST_TLS_KEY_FILES", &identity.key)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server is built");
        let mut log = BufReader::new(child.stderr.take().expect("it was asked for"));
        let address = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).is_ok_and(|count| count > 0),
                "the server did not start"
            );
            if let Some((_, rest)) = line.split_once(" ws://") {
                let address = rest.split('/').next().unwrap_or_default();
                break address.parse().expect("an address");
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Server { child, address }
    }

    fn client(&self, config: Option<&Arc<ClientConfig>>) -> Client {
        let socket = TcpStream::connect(self.address).expect("the server listens");
        socket.set_nodelay(true).expect("a socket takes options");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a socket takes options");
        let link = match config {
            None => Link::Plain(socket),
            Some(config) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let tls = ClientConnection::new(Arc::clone(config), name).expect("settings that are right");
                Link::Tls(Box::new(StreamOwned::new(tls, socket)))
            }
        };
        let mut client = Client {
            link,
            unread: Vec::new(),
        };
        client.send(UPGRADE);
        client.read_until(|bytes| {
            bytes
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .map(|at| at + 4)
        });
        client.call(r##"{"event":"#handshake","data":{"authToken":null},"cid":1}"##);
        client
    }

    fn resident_bytes(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes
            .and_then(|text| text.parse::<f64>().ok())
            .expect("the system says so")
            * 1024.0
    }

    /// CPU time of all its threads.
    fn cpu_us(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it lives");
        let times = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        });
        times.sum::<f64>() / 1000.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum Link {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

struct Client {
    link: Link,
    unread: Vec<u8>,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Plain(socket) => socket.write_all(bytes),
            Link::Tls(stream) => stream.write_all(bytes),
        }
        .expect("the server reads");
    }

    /// Reads until `end` finds the end of a message, and drops the bytes up to it.
    fn read_until(&mut self, end: impl Fn(&[u8]) -> Option<usize>) {
        loop {
            if let Some(end) = end(&self.unread) {
                self.unread.drain(..end);
                return;
            }
            let mut room = [0; 16 * 1024];
            let count = match &mut self.link {
                Link::Plain(socket) => socket.read(&mut room),
                Link::Tls(stream) => stream.read(&mut room),
            }
            .expect("the server answers in time");
            assert!(count > 0, "the server has ended the connection");
            self.unread.extend_from_slice(&room[..count]);
        }
    }

    /// Reads this many short messages.
    fn messages(&mut self, count: u32) {
        self.read_until(|mut bytes| {
            let whole = bytes.len();
            for _ in 0..count {
                let length = usize::from(*bytes.get(1)?);
                bytes = bytes.get(2 + length..)?;
            }
            Some(whole - bytes.len())
        });
    }

    fn call(&mut self, text: &str) {
        self.send(&frame::frame(0x81, text.as_bytes()));
        self.messages(1);
    }

    fn pings(&mut self, count: u32, in_flight: u32) {
        let ping = frame::frame(0x81, br#"{"event":"ping","data":{"param":"hello"},"cid":7}"#);
        let batch = ping.repeat(in_flight as usize);
        for _ in 0..count / in_flight {
            self.send(&batch);
            self.messages(in_flight);
        }
    }
}

const UPGRADE: &[u8] = b"GET /socketcluster/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
