//! The process that comes after this one, and what is left to it: the listening sockets (`transport/succession.rs`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::transport::succession;

/// Gives the sockets to whoever of this user asks for them, until it is aborted: then they are closed.
pub(super) async fn offer(sockets: Vec<TcpListener>, address: SocketAddr) {
    let listener = match meet(address).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!("the next process on {address} cannot be left any sockets: {error}");
            return;
        }
    };
    loop {
        let given = match listener.accept().await {
            Ok((stream, _)) => stream
                .into_std()
                .and_then(|stream| succession::bequeath(&stream, &sockets)),
            Err(error) => Err(error),
        };
        match given {
            Ok(process) => info!(
                process,
                "another process listens with this one, which can be ended now"
            ),
            Err(error) => {
                debug!("somebody who asked for sockets got none, or not all: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// The place is free when the process before this one drains.
async fn meet(address: SocketAddr) -> io::Result<UnixListener> {
    loop {
        match succession::offer(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(LOOK_EVERY).await,
            other => return UnixListener::from_std(other?),
        }
    }
}

/// How often it is looked whether the process before is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After a failure: it may be for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
