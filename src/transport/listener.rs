//! Listening sockets: one for each core on the same address, with `SO_REUSEPORT`.
//!
//! A [`Reservation`] is bound before the cores start, and never listens: it fixes the port if the configured
//! port is 0, reports early that an address cannot be used, and receives no connection. The listeners are
//! opened after the cores have split their descriptor tables, and each is sent to its core. No other core has
//! a copy, so when a core closes its listener, the kernel stops giving it connections. The process keeps
//! copies for a next process (`take_over.rs`), and closes these first.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Reserves an address for the listeners of all cores.
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

    /// The address; its port is never 0.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The configurable options of listeners.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListenerOptions {
    /// Most connections that may wait to be accepted.
    pub(crate) backlog: i32,
    /// The longest time for which a client may take none of the data that waits for it.
    pub(crate) write_timeout: Duration,
}

/// Opens a listener.
pub(crate) fn listen(address: SocketAddr, traits: &ListenerOptions) -> io::Result<TcpListener> {
    let socket = bound(address)?.into();
    prepare(&socket, traits)?;
    Ok(socket)
}

/// Makes a bound socket a listener with the options of this server, also a socket that another process has
/// opened. Accepted sockets inherit the options set here, which saves a system call for each of them per
/// connection.
pub(crate) fn prepare(socket: &TcpListener, traits: &ListenerOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // The pings of the protocol detect half-open connections; these two options detect them if pings are off.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE))?;
    // Data that a peer does not take should wait in this process, where it is shared, counted and bounded,
    // and not in the system's send buffer of each connection, which may hold 4 MiB: a peer that takes nothing
    // would also go unnoticed until that is full. A system without this option buffers more, and everything
    // else still works.
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    // With this option newer systems close the connection of a peer that takes no data but still answers
    // probes, while older ones do not. A core decides that itself (`write_timeout_ms`), and should do so
    // first.
    let unacknowledged_max = UNACKNOWLEDGED_MAX.max(traits.write_timeout * 2);
    socket.set_tcp_user_timeout(Some(unacknowledged_max))?;
    // On a socket that already listens, this changes the backlog.
    socket.listen(traits.backlog)
}

/// True if another socket already listens on this address: an older process that drains, or a mistake.
pub(crate) fn is_served(address: SocketAddr) -> bool {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections that linger from before do not count.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    address.port() != 0 && bind().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Opens the control plane's listener. It shares its address as the others do, so that a new process can
/// start while an old one of the same user drains. Until the old one has ended, either may answer.
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

/// Most connections of operators that may wait to be accepted.
const OPERATORS_WAITING_MAX: i32 = 128;
/// After this idle time the system probes whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
/// How many bytes the system buffers for a peer in addition to those in flight: enough for a burst, and for a
/// peer with 8 Gbit/s during a turn of half a millisecond.
const UNSENT_BYTES_MAX: u32 = 512 * 1024;
/// Sent data may stay unacknowledged for at least this long before the system closes the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn several_listeners_share_a_reserved_port_and_the_reservation_gets_no_connection() {
        let reservation = Reservation::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = reservation.address();
        assert_ne!(address.port(), 0);
        let traits = ListenerOptions {
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
    fn the_system_buffers_little_for_a_peer_that_takes_nothing() {
        let traits = ListenerOptions {
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
        // A write may exceed the limit, and the peer's own buffer holds some.
        assert!(kept <= 2 * UNSENT_BYTES_MAX as usize, "{kept}");
    }
}
