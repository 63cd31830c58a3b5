//! The byte stream of one connection: a socket, alone or under TLS.
//!
//! What is read and written here are a connection's own bytes; whether they travel in TLS records nobody above needs to
//! know. A plain stream adds one comparison with null to each call, and 8 bytes to each connection.

use std::io::{self, Read};
use std::net::Shutdown;

use mio::net::TcpStream;

use super::tls::{Broken, Tls};
use super::unacknowledged;

/// A socket, alone or under TLS.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    pub(crate) tls: Option<Box<Tls>>,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Bytes at the beginning of the room that was given.
    Bytes(Taken),
    /// The peer has ended its direction: with a FIN, or in TLS with a `close_notify`.
    End,
    /// What came is no TLS that can be understood; an alert that says so waits to be written.
    Broken(Broken),
}

/// Bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many; under TLS there may be none.
    pub(crate) count: usize,
    /// How many the socket gave for them.
    pub(crate) wire: usize,
    /// Whether there may be more to read that no event will tell about.
    pub(crate) more: bool,
    /// Whether TLS has something to say besides: a handshake that is over, records that want to be written.
    pub(crate) attend: bool,
}

impl Stream {
    /// A socket that has just come. It speaks TLS from [`Stream::begin_tls`] on.
    pub(crate) fn plain(socket: TcpStream) -> Stream {
        Stream { socket, tls: None }
    }

    /// Goes on under TLS.
    pub(crate) fn begin_tls(&mut self, tls: Tls) -> &mut Tls {
        self.tls.insert(Box::new(tls))
    }

    /// Reads with one system call: up to `wire_max` bytes from the socket, to the beginning of `room`, which must hold
    /// [`ROOM_BYTES_MIN`](super::tls::ROOM_BYTES_MIN). `records` is the core's buffer for what came and is still encrypted.
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
            attend: false,
        }))
    }

    /// Ends our direction: `close_notify` under TLS, then FIN. False if the socket does not take the former yet; then
    /// this is to be called again when it does.
    pub(crate) fn finish(&mut self) -> bool {
        if let Some(tls) = &mut self.tls
            && let Err(error) = tls.say_goodbye(&mut self.socket)
            && error.kind() == io::ErrorKind::WouldBlock
        {
            return false;
        }
        // The peer may have gone already; then its end is what the next read tells.
        let _ = self.socket.shutdown(Shutdown::Write);
        true
    }

    /// The socket is about to be closed: says so under TLS, if the socket takes it.
    pub(crate) fn part(&mut self) {
        if let Some(tls) = &mut self.tls {
            // Whoever does not hear it finds the FIN.
            let _ = tls.say_goodbye(&mut self.socket);
        }
    }

    /// Bytes that were written and that the peer has not acknowledged; `None` where the system does not tell.
    pub(crate) fn unacknowledged_bytes(&self) -> Option<u32> {
        unacknowledged::unacknowledged_bytes(&self.socket)
    }

    /// Bytes of records that TLS keeps: those that have come in part, and those that the socket has not taken.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.kept_bytes())
    }

    /// Whether a TLS handshake is under way.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }
}
