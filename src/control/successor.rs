//! Offers the listening sockets to the next process, so that it can take over without a gap
//! (`transport/take_over.rs`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::transport::take_over;

/// Sends the sockets to any process of this user that asks for them, until the task is aborted and its
/// sockets are closed.
pub(super) async fn offer(sockets: Vec<TcpListener>, address: SocketAddr) {
    let listener = match bind_meeting_point(address).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(
                "cannot offer the sockets of {address} to a next process: {error}; an upgrade will have a gap"
            );
            return;
        }
    };
    loop {
        let sent = match listener.accept().await {
            Ok((stream, _)) => timeout(SEND_TIME_MAX, send_sockets(&stream, &sockets))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            Err(error) => Err(error),
        };
        match sent {
            Ok(process) => info!(
                process,
                "another process has taken over the listening sockets; this process can be ended now"
            ),
            Err(error) => {
                debug!("could not send all sockets to a process that asked for them: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Sends all sockets to the process at the other end, and returns its process id. Waits for room in the
/// stream without blocking the thread.
async fn send_sockets(to: &UnixStream, sockets: &[TcpListener]) -> io::Result<i32> {
    let process = take_over::process_of_this_user(to)?;
    for socket in sockets {
        to.async_io(Interest::WRITABLE, || take_over::send_listener(to, socket))
            .await?;
    }
    Ok(process)
}

/// Binds the meeting point of the address, which is free once the process before this one drains.
async fn bind_meeting_point(address: SocketAddr) -> io::Result<UnixListener> {
    loop {
        match take_over::bind_meeting_point(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(RETRY_EVERY).await,
            other => return UnixListener::from_std(other?),
        }
    }
}

/// How often the task checks whether the process before has released the meeting point.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// How long a process may take to receive all sockets; others wait meanwhile.
const SEND_TIME_MAX: Duration = Duration::from_secs(2);
/// The pause after a failure, which may be a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_receives_nothing_does_not_block_this_thread() {
        let sockets = [TcpListener::bind("127.0.0.1:0").unwrap()];
        let (mine, silent) = UnixStream::pair().unwrap();
        mine.writable().await.unwrap();
        while mine.try_write(&[0; 1024]).is_ok() {}
        let sending = send_sockets(&mine, &sockets);
        tokio::pin!(sending);
        // The send waits for room, but this thread goes on.
        assert!(timeout(Duration::from_millis(10), &mut sending).await.is_err());
        drop(silent);
        assert!(sending.await.is_err());
    }
}
