//! The byte stream of one connection: a socket, plain or under TLS.
//!
//! Callers read and write a connection's own bytes and need not know about TLS records. TLS support costs a
//! plain stream one comparison with null in each call, and 8 bytes per connection.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use nix::libc;
use socket2::SockRef;

use super::tls::{Broken, TlsStream};
use super::unacknowledged;

/// A socket, plain or under TLS.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    pub(crate) tls: Option<Box<TlsStream>>,
}

/// Writes the last bytes of a plain socket. [`Stream::finish`] must follow at once: the system holds the bytes back
/// until the FIN leaves with them, in one segment instead of two. That saves the peer a wake-up and an acknowledgement.
#[derive(Debug)]
pub(crate) struct BeforeFin<'s>(pub(crate) &'s TcpStream);

impl Write for BeforeFin<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(self.0).send_with_flags(bytes, libc::MSG_MORE | libc::MSG_NOSIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Bytes at the beginning of the given buffer.
    Bytes(Taken),
    /// The peer has closed its direction: with a FIN, or under TLS with a `close_notify`.
    End,
    /// The received bytes are not valid TLS. An alert about that waits to be written.
    Broken(Broken),
}

/// The bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many; under TLS possibly none.
    pub(crate) count: usize,
    /// How many bytes the socket delivered for them.
    pub(crate) wire: usize,
    /// True if more may be readable although no event will announce it.
    pub(crate) more: bool,
    /// True if TLS needs something else: a handshake has completed, or records must be written.
    pub(crate) has_tls_work: bool,
}

impl Stream {
    /// A newly accepted socket. It speaks TLS from [`Stream::begin_tls`] on.
    pub(crate) fn plain(socket: TcpStream) -> Stream {
        Stream { socket, tls: None }
    }

    /// Continues under TLS.
    pub(crate) fn begin_tls(&mut self, tls: TlsStream) -> &mut TlsStream {
        self.tls.insert(Box::new(tls))
    }

    /// Reads with one system call: up to `wire_max` bytes from the socket, to the beginning of `room`, which
    /// must hold at least [`ROOM_BYTES_MIN`](super::tls::ROOM_BYTES_MIN). `records` is the core's buffer for
    /// bytes that are still encrypted.
    pub(crate) fn read(
        &mut self,
        wire_max: usize,
        room: &mut [u8],
        records: &mut Vec<u8>,
    ) -> io::Result<Arrival> {
        if let Some(tls) = &mut self.tls {
            return tls.read(&mut self.socket, wire_max, room, records);
        }
        let count = self.socket.read(&mut room[..wire_max])?;
        if count == 0 {
            return Ok(Arrival::End);
        }
        Ok(Arrival::Bytes(Taken {
            count,
            wire: count,
            more: count == wire_max,
            has_tls_work: false,
        }))
    }

    /// Closes the sending direction: `close_notify` under TLS, then a FIN. False if the socket does not
    /// accept the `close_notify` yet; then the caller must call again when the socket is writable.
    pub(crate) fn finish(&mut self) -> bool {
        if let Some(tls) = &mut self.tls
            && let Err(error) = tls.send_close_notify(&mut self.socket)
            && error.kind() == io::ErrorKind::WouldBlock
        {
            return false;
        }
        // The peer may already be gone; then the next read reports it.
        let _ = self.socket.shutdown(Shutdown::Write);
        true
    }

    /// Called before the socket is closed: sends `close_notify` under TLS, if the socket accepts it at once.
    pub(crate) fn part(&mut self) {
        if let Some(tls) = &mut self.tls {
            // A peer that does not get it still gets the FIN.
            let _ = tls.send_close_notify(&mut self.socket);
        }
    }

    /// Bytes that were written but not acknowledged by the peer; `None` if the system does not report it.
    pub(crate) fn unacknowledged_bytes(&self) -> Option<u32> {
        unacknowledged::unacknowledged_bytes(&self.socket)
    }

    /// Bytes of records that TLS keeps: incomplete received records, and records that the socket has not
    /// accepted yet.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.kept_bytes())
    }

    /// True while a TLS handshake is in progress.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_last_bytes_arrive_with_the_end_behind_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut stream = Stream::plain(TcpStream::from_std(socket));
        BeforeFin(&stream.socket).write_all(b"last words").unwrap();
        assert!(stream.finish());
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"last words");
    }
}
