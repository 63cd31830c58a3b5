//! The process that comes after this one, and what is left to it: the listening sockets (`transport/succession.rs`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
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
            Ok((stream, _)) => timeout(GIVING_TIME_MAX, give(&stream, &sockets))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
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

/// Gives all sockets to who asks for them; answers with its process id. Waits for room in the stream without keeping the
/// thread.
async fn give(to: &UnixStream, sockets: &[TcpListener]) -> io::Result<i32> {
    let process = succession::process_of_this_user(to)?;
    for socket in sockets {
        to.async_io(Interest::WRITABLE, || succession::give(to, socket))
            .await?;
    }
    Ok(process)
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
/// How long one who asks may take to receive all sockets; others wait meanwhile.
const GIVING_TIME_MAX: Duration = Duration::from_secs(2);
/// After a failure: it may be for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_who_asks_and_receives_nothing_keeps_nobody_waiting() {
        let sockets = [TcpListener::bind("127.0.0.1:0").unwrap()];
        let (mine, silent) = UnixStream::pair().unwrap();
        mine.writable().await.unwrap();
        while mine.try_write(&[0; 1024]).is_ok() {}
        let giving = give(&mine, &sockets);
        tokio::pin!(giving);
        // It waits, and this thread goes on.
        assert!(timeout(Duration::from_millis(10), &mut giving).await.is_err());
        drop(silent);
        assert!(giving.await.is_err());
    }
}
