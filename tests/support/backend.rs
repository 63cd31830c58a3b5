//! A backend of the test: an HTTP server that is asked questions, and answers as the test says.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

/// A request, as the backend has read it.
pub(crate) struct Asked {
    /// The lines of the head.
    pub(crate) head: Vec<String>,
    pub(crate) body: String,
    pub(crate) json: Value,
}

impl Asked {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.iter().filter_map(|line| line.split_once(": "));
        fields
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// A text of the question.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// A running backend. Its threads end with the test.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Backend {
    /// Answers each request with status 200 and the JSON that `answer` returns. Connections have threads of their own.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Value + Send + Sync + 'static) -> Backend {
        Backend::raw(move |asked, stream| {
            let body = answer(asked).to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).is_ok()
        })
    }

    /// Calls `serve` for each request, and closes the connection if it returns false.
    pub(crate) fn raw(serve: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let backend = Backend {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let (counted, serve) = (backend.clone(), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let (counted, serve) = (counted.clone(), Arc::clone(&serve));
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream.unwrap());
                    while let Some(asked) = read(&mut stream) {
                        counted.asked.fetch_add(1, Ordering::SeqCst);
                        if !serve(&asked, stream.get_mut()) {
                            return;
                        }
                    }
                });
            }
        });
        backend
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// How many requests have come.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads a request; `None` at the end of the connection.
pub(crate) fn read(stream: &mut impl BufRead) -> Option<Asked> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().ok())?
    });
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Asked {
        head,
        json: serde_json::from_str(&body).unwrap(),
        body,
    })
}
