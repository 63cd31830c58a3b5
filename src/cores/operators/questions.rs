//! What a core may be asked about its connections, and the way of an answer back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use crate::client::ClientAddress;
use crate::session::SessionId;

use crate::cores::lifecycle::ends::End;
use crate::cores::lifecycle::tally::Tally;

/// What a core may be asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// Its connections that hold the most bytes, those that wait for them and those that came of them; at most so many, the
    /// most first.
    Slow {
        count_max: usize,
        answer: Answer<Vec<Slow>>,
    },
    /// Its last ends, the latest first.
    Closed { answer: Answer<Vec<End>> },
}

/// The way of an answer back. If the question is dropped, its sender learns that there is no answer.
pub(crate) struct Answer<T>(Box<dyn FnOnce(T) + Send>);

/// A connection with bytes waiting for it, or of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    /// The socket's id; `None` before the upgrade, and after the end of the session.
    pub(crate) id: Option<SessionId>,
    pub(crate) client: ClientAddress,
    /// What has not been written, with what is conflated.
    pub(crate) waiting_bytes: usize,
    /// What else it holds: input, messages that have come in part, decisions, records of TLS.
    pub(crate) input_bytes: usize,
    /// Of how many channels the newest publication waits until the rest has been written.
    pub(crate) conflated: usize,
    /// How long the socket has not taken all of it.
    pub(crate) blocked_for: Option<Duration>,
    pub(crate) subscriptions: usize,
    pub(crate) tally: Tally,
    pub(crate) age: Duration,
}

/// A look at all connections that is under way.
#[derive(Debug)]
pub(in crate::cores) struct Survey {
    pub(super) count_max: usize,
    pub(super) answer: Answer<Vec<Slow>>,
    /// The place in the table that is next.
    pub(super) at: u32,
    /// The bytes and the places of those found so far; the shortest is on top.
    pub(super) longest: BinaryHeap<Reverse<(usize, u32)>>,
}

impl<T> Answer<T> {
    /// `give` runs on the core, which waits for it.
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
