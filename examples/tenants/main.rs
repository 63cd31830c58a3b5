//! A server for several customers: the data and the events of a connection in an application.
//!
//! ```text
//! cargo run --example tenants
//! ```
//!
//! The file `app.rs` decides for clients; `tests/hooks.rs` drives it over real connections.

mod app;

use std::sync::mpsc;
use std::thread;

use ringcast::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (audit, lines) = mpsc::sync_channel::<String>(1024);
    thread::spawn(move || lines.iter().for_each(|line| write(&line)));
    let directory = app::directory();
    let server = Server::from_environment(Embedding::whole_process(), |_core| {
        app::Tenants::new(audit.clone(), directory.clone())
    })?;
    write(&format!(
        "serving ws://{}/socketcluster/?tenant=NAME",
        server.address()
    ));
    server.wait()?;
    Ok(())
}

/// Waits for standard output, which a core must not.
#[expect(clippy::print_stdout, reason = "the audit trail of an example")]
fn write(line: &str) {
    println!("{line}");
}
