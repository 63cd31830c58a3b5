//! The listener of a simulation: a listening socket of the local domain in place of a TCP listener.
//!
//! Such sockets act within one system call, where a network takes its time: bytes that were written can be read at
//! once, a full buffer stays full, and the end of a peer is seen at once. The server uses an accepted socket like any
//! other stream.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as LocalAddress, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};

/// The listener of one core.
#[derive(Debug)]
pub(in crate::cores) struct SimulatedListener {
    listener: UnixListener,
    /// The size to which an accepted socket's send buffer is set: the smaller, the sooner a client is slow.
    send_buffer: usize,
    /// Clients seem to connect from this many addresses, in turn.
    addresses: u16,
    accepted: Cell<u16>,
}

/// The address of a simulated listener, for clients.
#[derive(Clone, Debug)]
pub(super) struct ListenerAddress(LocalAddress);

impl SimulatedListener {
    pub(super) fn open(
        send_buffer: usize,
        addresses: u16,
    ) -> io::Result<(SimulatedListener, ListenerAddress)> {
        static LISTENERS: AtomicU64 = AtomicU64::new(0);
        let number = LISTENERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringcast simulation {} {number}", std::process::id());
        let address = LocalAddress::from_abstract_name(name)?;
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        let simulated = SimulatedListener {
            listener,
            send_buffer,
            addresses,
            accepted: Cell::new(0),
        };
        Ok((simulated, ListenerAddress(address)))
    }

    /// As a TCP listener would.
    pub(in crate::cores) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        setsockopt(&stream, sockopt::SndBuf, &self.send_buffer)?;
        let count = self.accepted.get();
        self.accepted.set(count.wrapping_add(1));
        let [high, low] = (count % self.addresses).to_be_bytes();
        let peer = SocketAddr::from(([10, 0, high, low], count));
        Ok((TcpStream::from_std(OwnedFd::from(stream).into()), peer))
    }
}

impl AsFd for SimulatedListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl mio::event::Source for SimulatedListener {
    fn register(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        mio::unix::SourceFd(&self.listener.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        mio::unix::SourceFd(&self.listener.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        mio::unix::SourceFd(&self.listener.as_raw_fd()).deregister(registry)
    }
}

impl ListenerAddress {
    /// Connects; fails when the listener is closed.
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect_addr(&self.0)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}
