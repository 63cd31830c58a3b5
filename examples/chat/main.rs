//! A chat server: Ringcast as a library, with an application of its own.
//!
//! ```text
//! cargo run --example chat [ADDRESS]
//! ```
//!
//! It listens at ADDRESS, or where the default configuration says, `ws://127.0.0.1:8000/socketcluster/`, for any
//! SocketCluster client.
//! What clients may do is in `app.rs`; a real connection drives it in `tests/embedding.rs`.

mod app;

use ringcast::config::Config;
use ringcast::server::{Embedding, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen = address.parse()?;
    }
    let archive = app::archive();
    let server = Server::start(&config, Embedding::default(), |_core| {
        app::Chat::new(archive.clone())
    })?;
    server.wait().map_err(|error| error.to_string())?;
    Ok(())
}
