//! The look-ups of one host's name. The system cannot end a look-up early: when a caller stops waiting, the thread of
//! the look-up remains. So each target may have few look-ups at a time, and a name server that does not answer takes no
//! threads of other targets.
//!
//! Limits: [`LOOK_UPS_MAX`] look-ups at a time; a further one waits, as long as its request may.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::address::Address;

/// The look-ups of a host's name that are under way.
#[derive(Debug)]
pub(crate) struct LookUps(Arc<Semaphore>);

impl Default for LookUps {
    fn default() -> LookUps {
        LookUps(Arc::new(Semaphore::new(LOOK_UPS_MAX)))
    }
}

impl LookUps {
    /// The addresses of a host.
    pub(super) async fn addresses(&self, address: &Address) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = (address.host.clone(), address.port);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        self.run(move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
            .await
    }

    /// Runs a look-up on a thread of its own, which counts until the look-up has ended, even if its caller waits no
    /// more.
    async fn run(
        &self,
        look_up: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let place = Arc::clone(&self.0)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        spawn_blocking(move || {
            let found = look_up();
            drop(place);
            found
        })
        .await
        .map_err(io::Error::other)?
    }
}

/// Most look-ups of one host's name at a time.
pub(crate) const LOOK_UPS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn look_ups_that_hang_hold_no_more_threads_than_one_host_may() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOK_UPS_MAX + 1)
            .build()
            .unwrap();
        let (hanging, other) = (LookUps::default(), LookUps::default());
        let (end, ended) = bounded::<()>(0);
        runtime.block_on(async {
            for _ in 0..10 {
                let ended = ended.clone();
                let hangs = hanging.run(move || {
                    let _ = ended.recv();
                    Ok(Vec::new())
                });
                assert!(timeout(Duration::from_millis(10), hangs).await.is_err());
            }
            // Another host has a thread.
            assert_eq!(other.run(|| Ok(Vec::new())).await.unwrap(), []);
            drop(end);
            assert_eq!(hanging.run(|| Ok(Vec::new())).await.unwrap(), []);
        });
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let look_ups = LookUps(Arc::new(Semaphore::new(0)));
        let url = "http://[::1]:7/".parse().unwrap();
        let found = look_ups.addresses(&Address::of(&url).unwrap()).await.unwrap();
        assert_eq!(found, ["[::1]:7".parse().unwrap()]);
    }
}
