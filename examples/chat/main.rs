//! A chat server: Ringcast as a library, with an application of its own.
//!
//! ```text
//! cargo run --example chat
//! ```
//!
//! It is configured as the `ringcast` binary is, by variables such as `RINGCAST_LISTEN` and a file that
//! `RINGCAST_CONFIG` names, and by default serves any SocketCluster client at `ws://127.0.0.1:8000/socketcluster/`.
//! Ctrl-C drains it, SIGHUP reloads it. What clients may do is in `app.rs`; `tests/embedding.rs` drives it over real
//! connections.

mod app;

use ringcast::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let archive = app::archive();
    let server = Server::from_environment(Embedding::whole_process(), |_core| {
        app::Chat::new(archive.clone())
    })?;
    announce(&server);
    server.wait()?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program says where it is")]
fn announce(server: &Server) {
    println!("chat on ws://{}/socketcluster/", server.address());
    if let Some(admin) = server.admin_address() {
        println!("metrics on http://{admin}/metrics");
    }
}
