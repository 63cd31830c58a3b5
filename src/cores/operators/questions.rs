//! The questions that a core answers about its connections, and how an answer gets back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use crate::client::ClientAddress;
use crate::session::SessionId;

use crate::cores::lifecycle::ends::End;
use crate::cores::lifecycle::tally::Tally;

/// A question to a core.
#[derive(Debug)]
pub(crate) enum Question {
    /// Asks for the connections that hold the most bytes, of output and of input: at most `count_max`, the largest
    /// first.
    Slow {
        count_max: usize,
        answer: Answer<Vec<Slow>>,
    },
    /// The connections that ended last, the latest first.
    Closed { answer: Answer<Vec<End>> },
}

/// The way of an answer back. If the question is dropped, its sender learns that there is no answer.
pub(crate) struct Answer<T>(Box<dyn FnOnce(T) + Send>);

/// A connection that holds bytes: output that waits for its socket, or input that is not handled completely.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    /// The socket's id; `None` before the upgrade, and after the end of the session.
    pub(crate) id: Option<SessionId>,
    pub(crate) client: ClientAddress,
    /// Bytes that have not been written, with the conflated publications.
    pub(crate) waiting_bytes: usize,
    /// The other bytes that it holds: input, partial messages, decisions, records of TLS.
    pub(crate) input_bytes: usize,
    /// The number of conflated publications, one for each channel.
    pub(crate) conflated: usize,
    /// For how long the socket has not taken all bytes.
    pub(crate) blocked_for: Option<Duration>,
    pub(crate) subscriptions: usize,
    pub(crate) tally: Tally,
    pub(crate) age: Duration,
}

/// A search for the connections that hold most, which goes through some of the table in each turn.
#[derive(Debug)]
pub(in crate::cores) struct Survey {
    pub(super) count_max: usize,
    pub(super) answer: Answer<Vec<Slow>>,
    /// The next place of the table.
    pub(super) at: u32,
    /// The bytes and places of the connections found so far. The one that holds least is on top.
    pub(super) longest: BinaryHeap<Reverse<(usize, u32)>>,
}

impl<T> Answer<T> {
    /// An answer that is given by calling `give` on the core. The call must be short, since the core waits for it.
    pub(crate) fn new(give: impl FnOnce(T) + Send + 'static) -> Answer<T> {
        Answer(Box::new(give))
    }

    pub(super) fn give(self, value: T) {
        (self.0)(value);
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Slow {
    /// All bytes that the connection holds. Connections that hold most come first.
    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.input_bytes
    }
}

impl Survey {
    pub(super) fn new(count_max: usize, answer: Answer<Vec<Slow>>) -> Survey {
        Survey {
            count_max,
            answer,
            at: 0,
            longest: BinaryHeap::new(),
        }
    }

    pub(super) fn note(&mut self, held_bytes: usize, index: u32) {
        self.longest.push(Reverse((held_bytes, index)));
        if self.longest.len() > self.count_max {
            self.longest.pop();
        }
    }
}
