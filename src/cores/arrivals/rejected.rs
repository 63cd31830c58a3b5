//! Sockets that are answered before anything is read from them: there is no room for what they would become.
//!
//! The answer is followed by a FIN, and the socket is kept for a moment: one that is closed with its request unread is
//! reset, and a reset overtakes the answer. It is in no table, no poll, and counts nowhere.
//!
//! Limits: so many are kept at most ([`KEPT_MAX`]); then the oldest is closed, as all are after [`KEPT_FOR`].

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;

use crate::clock::Uptime;
use crate::http::Refusal;

/// The sockets that have been answered and not closed.
#[derive(Debug, Default)]
pub(in crate::cores) struct Rejected(VecDeque<(Uptime, TcpStream)>);

impl Rejected {
    /// Answers a socket and ends its direction.
    pub(in crate::cores) fn add(&mut self, mut stream: TcpStream, refusal: &Refusal, now: Uptime) {
        let mut answer = Vec::with_capacity(256);
        refusal.write(&mut answer);
        // An empty send buffer takes it whole; a client that has gone needs none.
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
            // What is still unread then makes it a reset; by now the answer has arrived, or will not.
            let _ = stream.read(buffer);
        }
    }

    /// When the next is to be closed.
    pub(in crate::cores) fn next(&self) -> Option<Uptime> {
        self.0.front().map(|(until, _)| *until)
    }
}

/// As many descriptors as a table has to spare for such as these.
const KEPT_MAX: usize = 32;
/// Longer than an answer takes around the earth.
const KEPT_FOR: Duration = Duration::from_secs(1);
