//! Listening sockets: one per core on the same address, with `SO_REUSEPORT`.
//!
//! A [`Reservation`] is bound before the cores start and never listens: it fixes the port when 0 was asked for, tells
//! early when the address cannot be had, and receives no connection. The listeners follow when the cores have split
//! their descriptor tables off, and each is sent to its core: no other core has a copy, so that closing it really stops
//! the kernel from giving that core connections. The process keeps copies for the one that comes next
//! (`succession.rs`), and closes them first.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Holds an address for the listeners of all cores.
#[derive(Debug)]
pub(crate) struct Reservation {
    address: SocketAddr,
    _socket: Socket,
}

impl Reservation {
    /// Binds `address` without listening.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Reservation> {
        let socket = bound(address)?;
        let address = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Reservation {
            address,
            _socket: socket,
        })
    }

    /// The address, its port never 0.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What an operator chooses of listeners.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// Connections that may wait to be accepted.
    pub(crate) backlog: i32,
    /// Longest time for which a client may take nothing of what waits for it.
    pub(crate) write_timeout: Duration,
}

/// Opens a listener.
pub(crate) fn listen(address: SocketAddr, traits: &Traits) -> io::Result<TcpListener> {
    let socket = bound(address)?.into();
    prepare(&socket, traits)?;
    Ok(socket)
}

/// Makes a socket that is bound a listener as they are here, also one that others have opened. The options set here are
/// inherited by the sockets it accepts, which saves a system call for each per connection.
pub(crate) fn prepare(socket: &TcpListener, traits: &Traits) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // Half-open connections are found by the protocol's pings; these two find them where pings are off.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE))?;
    // What a peer does not take is to wait here, where it is shared, counted and bounded, rather than in the system's copy
    // for each connection, 4 MiB of it: a peer that takes nothing of less than that would go unseen as well.
    // A system that does not know the option keeps more, and all else holds.
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    // Newer systems end by it a peer that takes nothing but still answers their probes, older ones do not: a core
    // decides that itself, by `write_timeout_ms`, and is to be the first.
    let unacknowledged_max = UNACKNOWLEDGED_MAX.max(traits.write_timeout * 2);
    socket.set_tcp_user_timeout(Some(unacknowledged_max))?;
    // Of one that listens already it changes the backlog.
    socket.listen(traits.backlog)
}

/// Whether another socket listens on this address already. It may be meant, an old process that drains; or a slip.
pub(crate) fn is_served(address: SocketAddr) -> bool {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections that linger from before do not count.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    address.port() != 0 && bind().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Opens the control plane's listener. It shares its address like the others, so that a new process can start while an
/// old one of the same user drains; until that has ended, either may answer.
pub(crate) fn listen_for_operators(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address)?;
    socket.listen(OPERATORS_WAITING_MAX)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Operators and scrapers that may wait to be accepted.
const OPERATORS_WAITING_MAX: i32 = 128;
/// Idle time after which the system asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
/// Bytes that the system keeps for a peer beyond those that are on their way: a burst that a peer takes in its own time, and
/// what one at 8 Gbit/s takes in a turn of half a millisecond.
const UNSENT_BYTES_MAX: u32 = 512 * 1024;
/// How long sent bytes may stay unacknowledged at least before the system gives the connection up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn several_listeners_share_a_reserved_port_and_the_reservation_takes_no_connection() {
        let reservation = Reservation::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = reservation.address();
        assert_ne!(address.port(), 0);
        let traits = Traits {
            backlog: 16,
            write_timeout: Duration::from_secs(100),
        };
        let listeners = [
            listen(address, &traits).unwrap(),
            listen(address, &traits).unwrap(),
        ];
        let timeout = SockRef::from(&listeners[0]).tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(Duration::from_secs(200)));
        let clients: Vec<_> = (0..16)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let accepted = listeners
            .iter()
            .map(|l| std::iter::from_fn(|| l.accept().ok()).count())
            .sum::<usize>();
        assert_eq!(accepted, clients.len());
        assert!(is_served(address));
        drop((listeners, reservation));
        assert!(!is_served(address));
    }

    #[test]
    fn the_system_keeps_little_for_a_peer_that_takes_nothing() {
        let traits = Traits {
            backlog: 16,
            write_timeout: Duration::from_secs(100),
        };
        let reservation = Reservation::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listen(reservation.address(), &traits).unwrap();
        let peer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        peer.set_recv_buffer_size(4096).unwrap();
        peer.connect(&reservation.address().into()).unwrap();
        SockRef::from(&listener).set_nonblocking(false).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let mut kept = 0;
        while let Ok(count) = accepted.write(&[0; 16 * 1024]) {
            kept += count;
        }
        // A write may go over the mark, and the peer's own buffer holds some.
        assert!(kept <= 2 * UNSENT_BYTES_MAX as usize, "{kept}");
    }
}
