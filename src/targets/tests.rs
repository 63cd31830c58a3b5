//! Requests to real little servers, which do whatever servers may do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use hyper::header::{HeaderName, HeaderValue};
use tokio::time::Duration;

use super::signature::SIGNATURE_HEADER;
use super::*;

/// A server that does with each connection, in the order in which they come, what a script says.
struct Server {
    address: SocketAddr,
    thread: JoinHandle<()>,
}

type Script = Box<dyn FnOnce(&mut Peer) + Send>;

/// A connection, as a server sees it.
struct Peer(BufReader<TcpStream>);

/// A request: its lines, and its body.
struct Request {
    lines: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.lines.iter().filter_map(|line| line.split_once(": "));
        fields
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

impl Server {
    fn start(scripts: Vec<Script>) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            for script in scripts {
                script(&mut Peer(BufReader::new(listener.accept().unwrap().0)));
            }
        });
        Server { address, thread }
    }

    fn target(&self) -> Target {
        target(&format!("http://{}/hook?x=1", self.address), |_| {})
    }

    /// Waits until the script has run to its end.
    async fn end(self) {
        // On another thread: a connection that was given up is closed by the runtime of the test.
        let ended = tokio::task::spawn_blocking(|| self.thread.join().unwrap());
        ended.await.unwrap();
    }
}

impl Peer {
    fn request(&mut self) -> Request {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the client is gone");
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut request = Request {
            lines,
            body: Vec::new(),
        };
        let length = request.header("content-length").unwrap().parse().unwrap();
        request.body.resize(length, 0);
        self.0.read_exact(&mut request.body).unwrap();
        request
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn answer(&mut self, status: &str, body: &str) {
        let length = body.len();
        self.send(&format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
    }

    /// Waits until the client has closed the connection.
    fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = self.0.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
}

fn target(url: &str, change: impl FnOnce(&mut TargetSettings)) -> Target {
    let mut settings = TargetSettings {
        url: url.to_owned(),
        tls: None,
        link_local: LinkLocal::Refused,
        signer: None,
        answer_bytes_max: 1000,
        idle_max: 2,
    };
    change(&mut settings);
    Target::new(settings).unwrap()
}

async fn post(target: &Target, body: &'static str) -> Result<(u16, String), String> {
    let answer = target.post(body.into(), &[], LONG).await;
    let read = answer.and_then(|answer| Ok((answer.status.as_u16(), answer.body?)));
    read.map(|(status, body)| (status, String::from_utf8(body.to_vec()).unwrap()))
        .map_err(|error| error.to_string())
}

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// A deadline that is to pass.
const SHORT: Duration = Duration::from_millis(100);

fn ok(body: &str) -> Result<(u16, String), String> {
    Ok((200, body.to_owned()))
}

#[tokio::test]
async fn a_request_is_one_of_json_with_the_headers_of_the_caller_and_a_signature() {
    let (tell, told) = mpsc::channel();
    let server = Server::start(vec![Box::new(move |peer| {
        tell.send(peer.request()).unwrap();
        peer.answer("200 OK", "{}");
    })]);
    let signer = Signer::of_lines("0123456789abcdef").unwrap();
    let target = target(&format!("http://{}/hook?x=1", server.address), |settings| {
        settings.signer = Some(signer.clone());
    });
    let headers = [(
        HeaderName::from_static("x-own"),
        HeaderValue::from_static("value"),
    )];
    let answer = target.post("[1]".into(), &headers, LONG).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body.unwrap()[..]),
        (200, &b"{}"[..])
    );
    let request = told.recv().unwrap();
    assert_eq!(request.lines[0], "POST /hook?x=1 HTTP/1.1");
    assert_eq!(request.body, b"[1]");
    assert_eq!(request.header("host"), Some(&*server.address.to_string()));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-own"), Some("value"));
    let signature = request.header(SIGNATURE_HEADER).unwrap();
    let time = signature.split([',', '=']).nth(1).unwrap().parse().unwrap();
    assert_eq!(signature, signer.sign(time, b"[1]"));
    server.end().await;
}

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other() {
    let server = Server::start(vec![Box::new(|peer| {
        for body in ["1", "2", "3"] {
            assert_eq!(peer.request().body, body.as_bytes());
            peer.answer("200 OK", body);
        }
    })]);
    let target = server.target();
    for body in ["1", "2", "3"] {
        assert_eq!(post(&target, body).await, ok(body));
    }
    server.end().await;
}

#[tokio::test]
async fn a_request_on_a_connection_that_has_been_closed_goes_by_a_new_one() {
    let server = Server::start(vec![
        Box::new(|peer| {
            peer.request();
            peer.answer("200 OK", "first");
        }),
        // Read, and not answered: the client cannot know that it was read.
        Box::new(|peer| {
            assert_eq!(peer.request().body, b"b");
            peer.answer("200 OK", "second");
            assert_eq!(peer.request().body, b"c");
        }),
        Box::new(|peer| {
            assert_eq!(peer.request().body, b"c");
            peer.answer("200 OK", "third");
        }),
    ]);
    let target = server.target();
    assert_eq!(post(&target, "a").await, ok("first"));
    assert_eq!(post(&target, "b").await, ok("second"));
    assert_eq!(post(&target, "c").await, ok("third"));
    server.end().await;
}

/// The system of a process that has died resets its connections.
#[tokio::test]
async fn a_request_on_a_connection_that_is_reset_goes_by_a_new_one() {
    let reset = |peer: &mut Peer| {
        let stream = socket2::SockRef::from(peer.0.get_ref());
        stream.set_linger(Some(Duration::ZERO)).unwrap();
    };
    let server = Server::start(vec![
        Box::new(move |peer| {
            peer.request();
            peer.answer("200 OK", "first");
            assert_eq!(peer.request().body, b"b");
            reset(peer);
        }),
        Box::new(move |peer| {
            assert_eq!(peer.request().body, b"b");
            peer.answer("200 OK", "second");
            // The head of an answer has begun: the request was understood.
            assert_eq!(peer.request().body, b"c");
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx");
            reset(peer);
        }),
    ]);
    let target = server.target();
    assert_eq!(post(&target, "a").await, ok("first"));
    assert_eq!(post(&target, "b").await, ok("second"));
    assert!(post(&target, "c").await.is_err(), "not asked a second time");
    server.end().await;
}

#[tokio::test]
async fn a_request_on_a_new_connection_is_not_repeated() {
    let server = Server::start(vec![Box::new(|peer| {
        peer.request();
    })]);
    let error = post(&server.target(), "a").await.unwrap_err();
    assert!(error.starts_with("no HTTP answer: "), "{error}");
    server.end().await;
}

#[tokio::test]
async fn a_connection_that_the_answer_ends_is_not_used_again() {
    let answer = |peer: &mut Peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        peer.wait_for_end();
    };
    let server = Server::start(vec![Box::new(answer), Box::new(answer)]);
    let target = server.target();
    assert_eq!(post(&target, "a").await, ok("ok"));
    assert_eq!(post(&target, "b").await, ok("ok"));
    server.end().await;
}

#[tokio::test]
async fn nothing_answers_on_a_port_without_a_listener() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = post(&target(&url, |_| {}), "a").await.unwrap_err();
    assert!(error.starts_with("cannot be reached: "), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_its_connection_closed() {
    let server = Server::start(vec![Box::new(|peer| {
        peer.request();
        peer.wait_for_end();
    })]);
    let answer = server.target().post("a".into(), &[], SHORT).await;
    assert!(matches!(answer, Err(TargetError::TimeOver)), "{answer:?}");
    server.end().await;
}

#[tokio::test]
async fn a_server_that_trickles_gains_no_time_by_each_byte() {
    let server = Server::start(vec![Box::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n");
        for _ in 0..900 {
            if peer.0.get_mut().write_all(b" ").is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the whole answer was waited for");
    })]);
    let answer = server.target().post("a".into(), &[], SHORT).await.unwrap();
    assert!(matches!(answer.body, Err(TargetError::TimeOver)), "{answer:?}");
    assert_eq!(answer.status, 200, "known all the same");
    server.end().await;
}

#[tokio::test]
async fn a_failure_is_an_answer_like_another() {
    let server = Server::start(vec![Box::new(|peer| {
        peer.request();
        peer.answer("500 Internal Server Error", "oh");
    })]);
    let answer = post(&server.target(), "a").await;
    assert_eq!(answer, Ok((500, "oh".to_owned())));
    server.end().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let location = format!("http://{}/", elsewhere.local_addr().unwrap());
    let server = Server::start(vec![Box::new(move |peer| {
        peer.request();
        peer.send(&format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ));
    })]);
    assert_eq!(post(&server.target(), "a").await, Ok((307, String::new())));
    server.end().await;
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "nobody has come");
}

/// Of 100 MB, no more is read than an answer may have and the buffers of the system take.
#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ] {
        let server = Server::start(vec![Box::new(|peer| {
            peer.request();
            peer.send(head);
            let piece = vec![b' '; 100_000];
            let refused = (0..1000).any(|_| peer.0.get_mut().write_all(&piece).is_err());
            assert!(refused, "all was read");
        })]);
        let error = post(&server.target(), "a").await.unwrap_err();
        assert_eq!(error, "the answer is too large");
        server.end().await;
    }
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_told_from_one_that_is_away() {
    for said in ["SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let server = Server::start(vec![Box::new(|peer| {
            peer.request();
            peer.send(said);
            peer.wait_for_end();
        })]);
        let error = post(&server.target(), "a").await.unwrap_err();
        assert!(error.starts_with("no HTTP answer: "), "{error}");
        server.end().await;
    }
}

#[tokio::test]
async fn an_address_of_the_machine_is_refused_unless_it_is_allowed() {
    let metadata = target("http://169.254.169.254/latest/meta-data", |_| {});
    let error = post(&metadata, "a").await.unwrap_err();
    assert!(error.contains("not allowed"), "{error}");
    let server = Server::start(vec![Box::new(|peer| {
        peer.request();
        peer.answer("200 OK", "here");
    })]);
    // Linux connects to this machine.
    let url = format!("http://0.0.0.0:{}/", server.address.port());
    let error = post(&target(&url, |_| {}), "a").await.unwrap_err();
    assert!(error.contains("not allowed"), "{error}");
    let allowed = target(&url, |settings| settings.link_local = LinkLocal::Allowed);
    assert_eq!(post(&allowed, "a").await, ok("here"));
    server.end().await;
}

#[tokio::test]
async fn the_certificate_of_a_server_is_checked_against_the_authority_of_the_target() {
    let names = vec!["127.0.0.1".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names.clone()).unwrap();
    let other = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut stream);
            let mut request = [0; 1000];
            // The client that does not trust the certificate says so instead.
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
            }
        }
    });
    let by = |pem: String| {
        target(&url, |settings| {
            settings.tls = Some(tls_of_authority(pem.as_bytes()).unwrap());
        })
    };
    let error = post(&by(other.cert.pem()), "a").await.unwrap_err();
    assert!(error.starts_with("cannot be reached: "), "{error}");
    assert_eq!(post(&by(certified.cert.pem()), "a").await, ok("ok"));
    let server = Server {
        address: ([127, 0, 0, 1], 1).into(),
        thread,
    };
    server.end().await;
    assert!(tls_of_authority(b"").is_err());
}
