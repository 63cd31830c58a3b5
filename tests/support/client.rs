//! A SocketCluster client on a blocking socket, small enough for a test to have twenty thousand of them.

use super::frame::frame;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A connection that has completed its handshake.
pub(crate) struct Client {
    stream: TcpStream,
    /// Bytes that were read: an incomplete frame, or frames that nobody has asked for yet.
    unread: Vec<u8>,
}

impl Client {
    /// Connects from the address `from` of this machine. Each local address has its own ports.
    pub(crate) fn connect(from: Ipv4Addr, to: SocketAddr) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is left");
        socket
            .set_reuse_address(true)
            .expect("a fresh socket takes options");
        socket
            .set_tcp_nodelay(true)
            .expect("a fresh socket takes options");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a fresh socket takes options");
        if from != Ipv4Addr::LOCALHOST {
            // A bind searches the ports in use, which is slow if there are thousands; so only a client that needs it
            // binds.
            socket
                .bind(&SocketAddr::from((from, 0)).into())
                .expect("a port is free");
        }
        socket.connect(&to.into()).expect("the server listens");
        let mut client = Client {
            stream: socket.into(),
            unread: Vec::new(),
        };
        client.upgrade();
        client.call(r##"{"event":"#handshake","data":{"authToken":null},"cid":1}"##);
        client
    }

    /// Sends text messages with one write.
    pub(crate) fn send(&mut self, messages: &[&str]) {
        let frames: Vec<u8> = messages
            .iter()
            .flat_map(|message| frame(0x81, message.as_bytes()))
            .collect();
        self.stream.write_all(&frames).expect("the server reads");
    }

    /// The next message that is not a ping; pings are answered.
    pub(crate) fn receive(&mut self) -> String {
        loop {
            match self.next_message().as_str() {
                "" => self.send(&[""]),
                "#1" => self.send(&["#2"]),
                message => return message.to_owned(),
            }
        }
    }

    /// Sends a call and returns the next message, which must be the answer.
    pub(crate) fn call(&mut self, text: &str) -> String {
        self.send(&[text]);
        self.receive()
    }

    fn upgrade(&mut self) {
        self.stream
            .write_all(
                b"GET /socketcluster/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                  Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .expect("the server reads");
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.read();
        };
        assert!(self.unread.starts_with(b"HTTP/1.1 101 "));
        self.unread.drain(..end);
    }

    fn next_message(&mut self) -> String {
        loop {
            if let [0x81, length @ 0..126, rest @ ..] = &self.unread[..]
                && let Some(payload) = rest.get(..usize::from(*length))
            {
                let message = String::from_utf8(payload.to_vec()).expect("text is UTF-8");
                self.unread.drain(..2 + message.len());
                return message;
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).expect("the server answers in time");
        assert!(
            count > 0,
            "the server closed the connection; left: {:?}",
            self.unread
        );
        self.unread.extend_from_slice(&bytes[..count]);
    }
}

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);
