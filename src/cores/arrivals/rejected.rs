//! Rejected sockets: there was no room for the connection, so the core answers before it reads anything.
//!
//! The answer is followed by a FIN, and the socket is kept for a moment. If it were closed with its request unread, the
//! system would send a reset, which overtakes the answer. A rejected socket is in no table and in no poll, and counts
//! for no limit.
//!
//! Limits: at most [`KEPT_MAX`] are kept; one more closes the oldest. Each is closed after [`KEPT_FOR`].

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;

use crate::clock::Uptime;
use crate::http::Refusal;

/// The sockets that were answered and are not closed yet.
#[derive(Debug, Default)]
pub(in crate::cores) struct Rejected(VecDeque<(Uptime, TcpStream)>);

impl Rejected {
    /// Answers a socket and sends our FIN.
    pub(in crate::cores) fn add(&mut self, mut stream: TcpStream, refusal: &Refusal, now: Uptime) {
        let mut answer = Vec::with_capacity(256);
        refusal.write(&mut answer);
        // An empty send buffer takes the whole answer. If the client has closed the connection, it needs no answer.
        let _ = stream.write(&answer);
        let _ = stream.shutdown(Shutdown::Write);
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now + KEPT_FOR, stream));
    }

    /// Closes the sockets whose time is over.
    pub(in crate::cores) fn close_due(&mut self, now: Uptime, buffer: &mut [u8]) {
        while let Some((_, mut stream)) = self.0.pop_front_if(|(until, _)| *until <= now) {
            // If the request is longer than the buffer, the close sends a reset. By now the answer has arrived, or
            // never will.
            let _ = stream.read(buffer);
        }
    }

    /// When the next socket is to be closed.
    pub(in crate::cores) fn next(&self) -> Option<Uptime> {
        self.0.front().map(|(until, _)| *until)
    }
}

/// As many descriptors as a core's table keeps free for rejected sockets.
const KEPT_MAX: usize = 32;
/// Longer than an answer takes halfway around the Earth.
const KEPT_FOR: Duration = Duration::from_secs(1);
