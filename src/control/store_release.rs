//! Releases the store when the next process asks for it (`store/directory.rs`).
//!
//! ```text
//!   next process                         this process
//!   connects to the meeting point ─────► cores publish nothing more to remembered channels, and send their records
//!                                        the store commits them, closes the file and releases the lock
//!   opens the store ◄──────────────────── the connection ends
//! ```
//! From then on this process refuses publications to remembered channels. Its clients still get publications that are
//! made here to other channels; they recover remembered channels when they have connected to the next process.

use std::io;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use crate::store::StoreHandle;
use crate::store::directory::bind_meeting_point;
use crate::transport::take_over::process_of_this_user;

/// Waits for a process of this user that asks for the store, releases the store, and ends.
pub(super) async fn offer(store: StoreHandle) {
    let directory = store.directory().display().to_string();
    let listener = match bind(&store).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(
                "store {directory}: a next process cannot ask for it: {error}; end this process before the next starts"
            );
            return;
        }
    };
    loop {
        let asked = match listener.accept().await {
            Ok((stream, _)) => process_of_this_user(&stream).map(|process| (stream, process)),
            Err(error) => Err(error),
        };
        let (stream, process) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                debug!("store {directory}: a process that asked for it was not heard: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        info!(
            process,
            "store {directory}: another process takes over: committing the rest"
        );
        let asked_for = store.clone();
        match spawn_blocking(move || asked_for.release()).await {
            Ok(Ok(())) => {
                info!(
                    process,
                    "store {directory}: released for the other process; from now on this process refuses publications \
                     to remembered channels: end it now"
                );
                return;
            }
            Ok(Err(_)) | Err(_) => error!(
                process,
                "store {directory}: not all cores answered, so that the other process does not get it: end this process"
            ),
        }
        drop(stream);
    }
}

/// Binds the meeting point, which is free once the process before this one has ended or released the store.
async fn bind(store: &StoreHandle) -> io::Result<UnixListener> {
    loop {
        match bind_meeting_point(store.directory()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(PAUSE).await,
            other => return UnixListener::from_std(other?),
        }
    }
}

/// How often the meeting point is tried, and how long the task rests after a failure.
const PAUSE: Duration = Duration::from_millis(50);
