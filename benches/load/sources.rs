//! The local addresses of connections.
//!
//! Connections to a loopback server use several addresses of 127.0.0.0/8, because each address has only the ports of
//! `ip_local_port_range`. `IP_BIND_ADDRESS_NO_PORT` lets the connect choose the port, so that a port can be used for
//! several destinations and the kernel searches only once. For other servers the system chooses the address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// The addresses of one thread's connections, used in turn.
#[derive(Debug)]
pub(crate) struct Sources {
    target: SocketAddr,
    first: u32,
    count: u32,
    next: u32,
    receive_buffer_bytes: Option<usize>,
}

impl Sources {
    /// The addresses of the thread with this index, for this many connections at a time.
    pub(crate) fn new(target: SocketAddr, thread: u32, connections: u32) -> Sources {
        let count = connections.div_ceil(CONNECTIONS_PER_ADDRESS).max(ADDRESSES_MIN);
        Sources {
            target,
            first: thread * count,
            count,
            next: 0,
            receive_buffer_bytes: None,
        }
    }

    /// Limits the receive buffers of the sockets. The kernel doubles the number, and has a minimum.
    pub(crate) fn receive_buffer(&mut self, bytes: usize) {
        self.receive_buffer_bytes = Some(bytes);
    }

    /// A socket that is connecting; does not wait for it.
    pub(crate) fn connect(&mut self) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(self.target), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if self.target.ip().is_loopback() && self.target.is_ipv4() {
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(self.address(), 0).into())?;
        }
        match socket.connect(&self.target.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        Ok(TcpStream::from_std(socket.into()))
    }

    fn address(&mut self) -> IpAddr {
        let number = self.first + self.next;
        self.next = (self.next + 1) % self.count;
        IpAddr::V4(Ipv4Addr::from(FIRST_ADDRESS + number))
    }
}

/// 127.1.0.1, above the addresses that tests and people use.
const FIRST_ADDRESS: u32 = 0x7f01_0001;
/// Far below the 28,000 ports that an address has by default, so that the search for a free port is short.
const CONNECTIONS_PER_ADDRESS: u32 = 10_000;
/// Enough addresses for `churn`, although ports remain unusable for a while after a close.
const ADDRESSES_MIN: u32 = 8;
