//! Where connections of a simulation come in: a listening socket of the local domain in the place of a TCP listener.
//!
//! Such sockets do in one system call, on one thread, what a network does in its own time: what was written can be
//! read, a full buffer is full, an end is seen. A socket that is accepted here is a stream like another to the server.

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
pub(in crate::cores) struct Door {
    listener: UnixListener,
    /// What an accepted socket's send buffer is set to: the smaller, the sooner a client is slow.
    send_buffer: usize,
    /// So many addresses seem to connect, one after the other.
    addresses: u16,
    accepted: Cell<u16>,
}

/// Where a client finds a door.
#[derive(Clone, Debug)]
pub(super) struct Way(LocalAddress);

impl Door {
    pub(super) fn open(send_buffer: usize, addresses: u16) -> io::Result<(Door, Way)> {
        static DOORS: AtomicU64 = AtomicU64::new(0);
        let number = DOORS.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringcast simulation {} {number}", std::process::id());
        let address = LocalAddress::from_abstract_name(name)?;
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        let door = Door {
            listener,
            send_buffer,
            addresses,
            accepted: Cell::new(0),
        };
        Ok((door, Way(address)))
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

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl mio::event::Source for Door {
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

impl Way {
    /// Connects; fails when nobody listens any more.
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect_addr(&self.0)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}
