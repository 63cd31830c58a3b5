//! A chat server: Ringcast as a library, with an application of its own.
//!
//! ```text
//! cargo run --example chat [ADDRESS]
//! ```
//!
//! It listens at ADDRESS, or by default at `ws://127.0.0.1:8000/socketcluster/`. Any SocketCluster client can connect.
//! `app.rs` says what clients can do; `tests/embedding.rs` tests the chat over a real connection.

mod app;

use ringcast::config::Config;
use ringcast::control::SignalHandling;
use ringcast::server::{Embedding, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen.address = address.parse()?;
    }
    let archive = app::archive();
    let embedding = Embedding {
        signals: SignalHandling::ByServer,
        ..Embedding::default()
    };
    let server = Server::start(&config, embedding, |_core| app::Chat::new(archive.clone()))?;
    announce(&server, &config.listen.path);
    server.wait().map_err(|error| error.to_string())?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program says where it is")]
fn announce(server: &Server, path: &str) {
    println!("chat on ws://{}{path}", server.address());
    if let Some(admin) = server.admin_address() {
        println!("metrics on http://{admin}/metrics");
    }
}
