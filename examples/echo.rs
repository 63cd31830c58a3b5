//! A WebSocket server that sends every message back, for conformance suites such as Autobahn. It is Ringcast with an
//! application that takes every message itself: the same event loops, frames and outboxes.
//!
//! ```text
//! cargo run --release --example echo -- 127.0.0.1:9001
//! ```
//! The path is `/`. Clients need no SocketCluster handshake: the time for it is a day, and without it no client is
//! pinged. The limits allow the messages of Autobahn's group 9: 16 MiB and 65,536 fragments. If a client offers
//! compression, the server compresses every message to it, as groups 12 and 13 require.

use std::process::ExitCode;
use std::time::Duration;

use ringcast::app::{App, Inbound, Message, RawPeer};
use ringcast::config::Config;
use ringcast::server::SignalHandling;
use ringcast::server::{Descriptors, Embedding, Server};

/// Sends every message back.
struct Echo;

impl App for Echo {
    fn message(&mut self, message: Message<'_>, peer: &mut RawPeer<'_>) -> Inbound {
        match message {
            Message::Text(text) => peer.send_text(text),
            Message::Binary(bytes) => peer.send_binary(bytes),
        }
        Inbound::Drop
    }
}

fn main() -> ExitCode {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let Ok(listen) = address.parse() else {
        return fail(&format!("`{address}` is not an address such as 127.0.0.1:9001"));
    };
    let mut config = Config::default();
    config.listen.address = listen;
    config.listen.path = "/".to_owned();
    config.admin.address = None;
    config.delivery.compression = true;
    config.delivery.compression_bytes_min = 0;
    config.socketcluster.pings = false;
    config.limits.handshake_timeout = Duration::from_secs(86_400);
    config.limits.message_bytes_max = 16 * 1024 * 1024 + 16;
    config.limits.outbox_bytes_max = 64 * 1024 * 1024;
    config.limits.fragments_max = 65_536 + 1;
    let embedding = Embedding {
        signals: SignalHandling::ByServer,
        // The whole program is this server, so cores may close all other descriptors.
        descriptors: Descriptors::OfCores { kept: Vec::new() },
        ..Embedding::default()
    };
    let server = match Server::start(&config, embedding, |_| Echo) {
        Ok(server) => server,
        Err(error) => return fail(&error.to_string()),
    };
    match server.wait() {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => fail(&error.to_string()),
    }
}

#[expect(clippy::print_stderr, reason = "a program's last words")]
fn fail(error: &str) -> ExitCode {
    eprintln!("echo: {error}");
    ExitCode::FAILURE
}
