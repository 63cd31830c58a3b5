//! The clients' calls about presence that wait for the answers of owners.
//!
//! Limits: [`CALLS_MAX`] of one core, [`CALLS_OF_CONNECTION_MAX`] of one connection, [`ANSWER_TIME_MAX`].

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clock::Uptime;

use crate::cores::lifecycle::connection::ConnectionId;

/// The calls of one core.
#[derive(Debug, Default)]
pub(in crate::cores) struct Calls {
    /// In the order of their numbers and deadlines. A call that is answered stays as `None` until those before it are.
    waiting: VecDeque<Option<Call>>,
    /// The number of the first call in `waiting`.
    first: u64,
    /// How many calls each connection has, by its index.
    of_connection: HashMap<u32, u32>,
}

/// A call that waits.
#[derive(Debug)]
pub(in crate::cores) struct Call {
    pub(in crate::cores) id: ConnectionId,
    /// The session's token for its answer.
    pub(in crate::cores) token: Box<[u8]>,
    pub(in crate::cores) deadline: Uptime,
}

impl Calls {
    /// Keeps a call. Returns its number and its deadline, or nothing if there are too many.
    pub(in crate::cores) fn begin(
        &mut self,
        id: ConnectionId,
        token: &[u8],
        now: Uptime,
    ) -> Option<(u64, Uptime)> {
        let count = self.of_connection.get(&id.index()).copied().unwrap_or(0);
        if self.waiting.len() >= CALLS_MAX || count >= CALLS_OF_CONNECTION_MAX {
            return None;
        }
        self.of_connection.insert(id.index(), count + 1);
        let deadline = now + ANSWER_TIME_MAX;
        self.waiting.push_back(Some(Call {
            id,
            token: token.into(),
            deadline,
        }));
        Some((self.first + self.waiting.len() as u64 - 1, deadline))
    }

    /// Takes the call with this number, if it waits.
    pub(in crate::cores) fn take(&mut self, number: u64) -> Option<Call> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let call = self.waiting.get_mut(at)?.take()?;
        self.forget(&call);
        Some(call)
    }

    /// Takes the oldest call whose deadline has come.
    pub(in crate::cores) fn take_overdue(&mut self, now: Uptime) -> Option<Call> {
        let number = self.first;
        let front = self.waiting.front()?.as_ref()?;
        if front.deadline > now {
            return None;
        }
        self.take(number)
    }

    /// When the oldest call is overdue.
    pub(in crate::cores) fn next_deadline(&self) -> Uptime {
        match self.waiting.front() {
            Some(Some(call)) => call.deadline,
            Some(None) | None => Uptime::NEVER,
        }
    }

    fn forget(&mut self, call: &Call) {
        while self.waiting.pop_front_if(|call| call.is_none()).is_some() {
            self.first += 1;
        }
        let index = call.id.index();
        match self.of_connection.get_mut(&index) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                self.of_connection.remove(&index);
            }
        }
    }
}

/// Calls of all connections of a core that may wait.
const CALLS_MAX: usize = 4096;
/// Calls of one connection that may wait: its next ones are not worth more room than those of others.
const CALLS_OF_CONNECTION_MAX: u32 = 32;
/// How long an owner may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnectionId {
        ConnectionId::new(index, 1)
    }

    #[test]
    fn each_call_is_taken_once_by_its_answer_or_its_deadline() {
        let mut calls = Calls::default();
        let at = Uptime::from_ms;
        let begin =
            |calls: &mut Calls, index, ms| calls.begin(id(index), b"7", at(ms)).map(|(number, _)| number);
        assert_eq!(
            [0, 1, 2].map(|index| begin(&mut calls, 1, index)),
            [Some(0), Some(1), Some(2)]
        );
        assert_eq!(begin(&mut calls, 2, 1000), Some(3));
        assert!(calls.take(1).is_some() && calls.take(1).is_none() && calls.take(9).is_none());
        assert!(calls.take_overdue(at(4999)).is_none());
        assert_eq!(calls.next_deadline(), at(5000));
        assert!(calls.take_overdue(at(5000)).is_some());
        assert!(
            calls.take(0).is_none(),
            "its client has been told that there is no answer"
        );
        assert_eq!(calls.next_deadline(), at(5002));
        assert!(calls.take(3).is_some() && calls.take(2).is_some());
        assert_eq!(calls.next_deadline(), Uptime::NEVER);
        assert_eq!(begin(&mut calls, 2, 1001), Some(4));
        assert!(calls.take(4).is_some() && calls.of_connection.is_empty());
    }

    #[test]
    fn a_connection_and_all_of_them_together_have_a_limit() {
        let mut calls = Calls::default();
        let now = Uptime::default();
        for _ in 0..CALLS_OF_CONNECTION_MAX {
            assert!(calls.begin(id(1), b"", now).is_some());
        }
        assert!(calls.begin(id(1), b"", now).is_none());
        for index in 2.. {
            if calls.begin(id(index), b"", now).is_none() {
                assert_eq!(calls.waiting.len(), CALLS_MAX);
                break;
            }
        }
        assert!(calls.take(0).is_some() && calls.begin(id(1), b"", now).is_some());
    }
}
