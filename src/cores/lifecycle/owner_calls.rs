//! The clients' calls that wait for the answers of the cores that own the channels: calls about presence, and calls of
//! `$history`, each kind in a [`OwnerCalls`] of its own.
//!
//! Invariant: a call that has begun is taken once: by its answer, by its deadline, or by the end of the owner.
//!
//! Limits: those of [`OwnerCallsMax`], and [`ANSWER_TIME_MAX`].

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clock::Uptime;

use crate::cores::lifecycle::connection::ConnectionId;

/// The calls of one core.
#[derive(Debug)]
pub(in crate::cores) struct OwnerCalls {
    max: OwnerCallsMax,
    /// In the order of their numbers and deadlines. A call that is answered stays as `None` until those before it are.
    waiting: VecDeque<Option<OwnerCall>>,
    /// The number of the first call in `waiting`.
    first: u64,
    /// How many calls each connection has, by its index.
    of_connection: HashMap<u32, u32>,
}

/// How many calls may wait.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct OwnerCallsMax {
    pub(in crate::cores) of_core: u32,
    pub(in crate::cores) of_connection: u32,
}

/// A call that waits.
#[derive(Debug)]
pub(in crate::cores) struct OwnerCall {
    pub(in crate::cores) id: ConnectionId,
    /// The index of the core that is to answer.
    owner: usize,
    /// The session's token for its answer.
    pub(in crate::cores) token: Box<[u8]>,
    pub(in crate::cores) deadline: Uptime,
}

impl OwnerCalls {
    pub(in crate::cores) fn new(max: OwnerCallsMax) -> OwnerCalls {
        OwnerCalls {
            max,
            waiting: VecDeque::new(),
            first: 0,
            of_connection: HashMap::new(),
        }
    }

    /// Keeps a call. Returns its number and its deadline, or nothing if there are too many.
    pub(in crate::cores) fn begin(
        &mut self,
        id: ConnectionId,
        owner: usize,
        token: &[u8],
        now: Uptime,
    ) -> Option<(u64, Uptime)> {
        let count = self.of_connection.get(&id.index()).copied().unwrap_or(0);
        if self.waiting.len() >= self.max.of_core as usize || count >= self.max.of_connection {
            return None;
        }
        self.of_connection.insert(id.index(), count + 1);
        let deadline = now + ANSWER_TIME_MAX;
        self.waiting.push_back(Some(OwnerCall {
            id,
            owner,
            token: token.into(),
            deadline,
        }));
        Some((self.first + self.waiting.len() as u64 - 1, deadline))
    }

    /// Takes the call with this number, if it waits.
    pub(in crate::cores) fn take(&mut self, number: u64) -> Option<OwnerCall> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let call = self.waiting.get_mut(at)?.take()?;
        self.forget(&call);
        Some(call)
    }

    /// Takes the oldest call whose deadline has come.
    pub(in crate::cores) fn take_overdue(&mut self, now: Uptime) -> Option<OwnerCall> {
        let number = self.first;
        let front = self.waiting.front()?.as_ref()?;
        if front.deadline > now {
            return None;
        }
        self.take(number)
    }

    /// Takes a call that an owner has yet to answer. The calls are searched.
    pub(in crate::cores) fn take_of_owner(&mut self, owner: usize) -> Option<OwnerCall> {
        let is_of = |call: &Option<OwnerCall>| call.as_ref().is_some_and(|call| call.owner == owner);
        let at = self.waiting.iter().position(is_of)?;
        self.take(self.first + at as u64)
    }

    /// When the oldest call is overdue.
    pub(in crate::cores) fn next_deadline(&self) -> Uptime {
        match self.waiting.front() {
            Some(Some(call)) => call.deadline,
            Some(None) | None => Uptime::NEVER,
        }
    }

    fn forget(&mut self, call: &OwnerCall) {
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

/// How long an owner may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: OwnerCallsMax = OwnerCallsMax {
        of_core: 50,
        of_connection: 8,
    };

    fn id(index: u32) -> ConnectionId {
        ConnectionId::new(index, 1)
    }

    #[test]
    fn each_call_is_taken_once_by_its_answer_or_its_deadline() {
        let mut calls = OwnerCalls::new(MAX);
        let at = Uptime::from_ms;
        let begin = |calls: &mut OwnerCalls, index, ms| {
            calls.begin(id(index), 0, b"7", at(ms)).map(|(number, _)| number)
        };
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
        let mut calls = OwnerCalls::new(MAX);
        let now = Uptime::default();
        for _ in 0..MAX.of_connection {
            assert!(calls.begin(id(1), 0, b"", now).is_some());
        }
        assert!(calls.begin(id(1), 0, b"", now).is_none());
        let others = (2..100).filter(|&index| calls.begin(id(index), 0, b"", now).is_some());
        assert_eq!(u32::try_from(others.count()), Ok(MAX.of_core - MAX.of_connection));
        assert!(calls.take(0).is_some() && calls.begin(id(1), 0, b"", now).is_some());
    }

    #[test]
    fn the_calls_to_an_owner_that_has_ended_are_taken_and_no_others() {
        let mut calls = OwnerCalls::new(MAX);
        for owner in [0, 1, 0, 1, 2] {
            calls.begin(id(owner), owner as usize, b"", Uptime::default());
        }
        assert_eq!(calls.take_of_owner(1).map(|call| call.id), Some(id(1)));
        assert!(calls.take_of_owner(1).is_some() && calls.take_of_owner(1).is_none());
        assert!(calls.take(3).is_none() && calls.take(0).is_some() && calls.take(2).is_some());
        assert_eq!(calls.take_of_owner(2).map(|call| call.id), Some(id(2)));
        assert_eq!((calls.waiting.len(), calls.of_connection.len()), (0, 0));
    }
}
