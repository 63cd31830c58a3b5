//! Takes over the listening sockets of an older process.
//!
//! Closing a listener resets the connections that it has not accepted yet: those in its queue, and those
//! whose TCP handshake it has begun, even though another process listens on the same port. So a new process
//! asks an older one of the same user on the same address for its listeners. From then on both processes have
//! the same listeners, and when the older one closes its copies, no client notices.
//!
//! The two meet at an abstract Unix socket address made of the user and the listening address. For each
//! listener, one byte is sent with one descriptor; then the connection ends.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use super::hand_over::{receive_descriptor, send_descriptor};

/// Binds the meeting point where a next process asks for the sockets that listen on `address`.
///
/// # Errors
/// `AddrInUse` while an older process is there.
pub(crate) fn bind_meeting_point(address: SocketAddr) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&meeting_point(address)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Sends one socket to a process that has asked for all of them.
///
/// # Errors
/// `WouldBlock` if the stream has no room and is non-blocking.
pub(crate) fn send_listener(to: &impl AsRawFd, socket: &TcpListener) -> io::Result<()> {
    send_descriptor(to, socket, [0])
}

/// Receives the sockets of the process that serves `address`, and its process id.
///
/// # Errors
/// `ConnectionRefused` if no process of this user is there.
pub(crate) fn receive_listeners(address: SocketAddr) -> io::Result<(Vec<TcpListener>, i32)> {
    let meeting_point = meeting_point(address)?;
    let mut tries = 1;
    let from = loop {
        match UnixStream::connect_addr(&meeting_point) {
            // The process there may have just taken over itself and not have bound the meeting point yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && tries < TRIES_MAX => {
                tries += 1;
                thread::sleep(TRY_EVERY);
            }
            other => break other?,
        }
    };
    from.set_read_timeout(Some(WAIT_MAX))?;
    let process = process_of_this_user(&from)?;
    let mut sockets = Vec::new();
    loop {
        match receive_descriptor::<1>(&from) {
            Ok(received) => match received.socket {
                Some(socket) => sockets.push(TcpListener::from(socket)),
                None => return Err(io::Error::from_raw_os_error(Errno::EMFILE as i32)),
            },
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok((sockets, process)),
            Err(error) => return Err(error),
        }
    }
}

fn meeting_point(address: SocketAddr) -> io::Result<net::SocketAddr> {
    net::SocketAddr::from_abstract_name(format!("ringcast/{}/{address}", geteuid()))
}

/// The id of the process at the other end. The check is needed since any user may bind an abstract address,
/// or connect to one.
///
/// # Errors
/// `PermissionDenied` if the process belongs to another user.
pub(crate) fn process_of_this_user(stream: &impl AsFd) -> io::Result<i32> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    if peer.uid() == geteuid().as_raw() {
        Ok(peer.pid())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// How long each of the two waits for the other.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Together with `TRY_EVERY` well over the interval at which a serving process tries to bind the meeting
/// point.
const TRIES_MAX: u32 = 10;
const TRY_EVERY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_not_accepted_when_the_old_listener_closed_is_accepted_by_the_new_process() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap();
        let unclaimed = receive_listeners(address).unwrap_err();
        assert_eq!(unclaimed.kind(), io::ErrorKind::ConnectionRefused);
        let offered = bind_meeting_point(address).unwrap();
        assert_eq!(
            bind_meeting_point(address).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let asking = thread::spawn(move || receive_listeners(address).unwrap());
        let to = loop {
            match offered.accept() {
                Ok((to, _)) => break to,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        let clients: Vec<_> = (0..4)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        assert_eq!(
            process_of_this_user(&to).unwrap(),
            std::process::id().cast_signed()
        );
        send_listener(&to, &first).unwrap();
        drop((first, to, offered));
        let (sockets, process) = asking.join().unwrap();
        assert_eq!((sockets.len(), process), (1, std::process::id().cast_signed()));
        for client in &clients {
            let (_, peer) = sockets[0].accept().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }
}
