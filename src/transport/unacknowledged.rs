//! The number of bytes written to a socket that its peer has not acknowledged.
//!
//! A peer that reads nothing can still acknowledge the probes of its closed window for ever. Only this number
//! shows whether it takes any data: the bytes that the system keeps, sent or not, until they are
//! acknowledged.

#![expect(
    unsafe_code,
    reason = "the call has no safe form in the crates that are used here"
)]

use std::os::fd::{AsRawFd, RawFd};

use nix::libc;

/// Bytes that were written and not acknowledged; `None` if the system does not report it. One system call.
pub(crate) fn unacknowledged_bytes(socket: &impl AsRawFd) -> Option<u32> {
    let descriptor: RawFd = socket.as_raw_fd();
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, since the socket is borrowed. SIOCOUTQ, which has the number of
    // TIOCOUTQ, writes one `int` to the given address, which is that of this variable, and keeps no reference
    // to it.
    let result = unsafe { libc::ioctl(descriptor, libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        u32::try_from(bytes).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn data_is_acknowledged_only_when_the_peer_takes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        peer.set_recv_buffer_size(4096).unwrap();
        peer.connect(&listener.local_addr().unwrap().into()).unwrap();
        let mut peer = TcpStream::from(peer);
        let (mut socket, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged_bytes(&socket), Some(0));
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[0; 65_536]).is_ok() {}
        let full = unacknowledged_bytes(&socket).unwrap();
        assert!(full > 0);
        // Each byte that the peer reads makes room for more, sooner or later.
        let mut room = [0; 1024];
        while unacknowledged_bytes(&socket).unwrap() == full {
            assert!(peer.read(&mut room).unwrap() > 0);
        }
        assert!(unacknowledged_bytes(&socket).unwrap() < full);
    }
}
