//! The clients' calls that wait for the answers of the cores that own the channels: calls about presence, and calls of
//! `$history`, each kind in a [`OwnerCalls`] of its own.
//!
//! Invariant: each call is removed exactly once: by its answer, by its deadline, or by the end of the owner.
//!
//! Limits: those in [`OwnerCallsMax`], and [`ANSWER_TIME_MAX`].

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::clock::Uptime;

use crate::cores::lifecycle::connection::ConnectionId;

/// The calls of one core.
#[derive(Debug)]
pub(in crate::cores) struct OwnerCalls {
    max: OwnerCallsMax,
    /// By their numbers, which have the same order as their deadlines.
    waiting: BTreeMap<u64, OwnerCall>,
    next_number: u64,
    /// How many calls each connection has, by its index.
    of_connection: HashMap<u32, u32>,
    /// How many calls each owner has yet to answer.
    of_owner: Vec<u32>,
}

/// How many calls may wait.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct OwnerCallsMax {
    pub(in crate::cores) of_core: u32,
    pub(in crate::cores) of_connection: u32,
}

impl OwnerCallsMax {
    /// How many of them one of `owners` owners may have, so that an owner that stands still leaves some to
    /// the others.
    fn of_owner(self, owners: usize) -> u32 {
        match owners {
            0 | 1 => self.of_core,
            _ => self.of_core - self.of_core / 4,
        }
    }
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
    pub(in crate::cores) fn new(max: OwnerCallsMax, owners: usize) -> OwnerCalls {
        OwnerCalls {
            max,
            waiting: BTreeMap::new(),
            next_number: 0,
            of_connection: HashMap::new(),
            of_owner: vec![0; owners],
        }
    }

    /// Keeps a call. Returns its number and its deadline; `None` if there are too many.
    pub(in crate::cores) fn begin(
        &mut self,
        id: ConnectionId,
        owner: usize,
        token: &[u8],
        now: Uptime,
    ) -> Option<(u64, Uptime)> {
        let count = self.of_connection.get(&id.index()).copied().unwrap_or(0);
        let of_owner_max = self.max.of_owner(self.of_owner.len());
        if self.waiting.len() >= self.max.of_core as usize
            || self.of_owner[owner] >= of_owner_max
            || count >= self.max.of_connection
        {
            return None;
        }
        self.of_connection.insert(id.index(), count + 1);
        self.of_owner[owner] += 1;
        let deadline = now + ANSWER_TIME_MAX;
        let number = self.next_number;
        self.next_number += 1;
        let token = token.into();
        self.waiting.insert(
            number,
            OwnerCall {
                id,
                owner,
                token,
                deadline,
            },
        );
        Some((number, deadline))
    }

    /// Takes the call with this number, if it waits.
    pub(in crate::cores) fn take(&mut self, number: u64) -> Option<OwnerCall> {
        let call = self.waiting.remove(&number)?;
        self.forget(&call);
        Some(call)
    }

    /// Takes the oldest call whose deadline has come.
    pub(in crate::cores) fn take_overdue(&mut self, now: Uptime) -> Option<OwnerCall> {
        let (&number, oldest) = self.waiting.first_key_value()?;
        if oldest.deadline > now {
            return None;
        }
        self.take(number)
    }

    /// Takes a call that an owner has yet to answer. Searches all calls.
    pub(in crate::cores) fn take_of_owner(&mut self, owner: usize) -> Option<OwnerCall> {
        let mut calls = self.waiting.iter();
        let (&number, _) = calls.find(|(_, call)| call.owner == owner)?;
        self.take(number)
    }

    /// When the oldest call is overdue.
    pub(in crate::cores) fn next_deadline(&self) -> Uptime {
        let oldest = self.waiting.first_key_value();
        oldest.map_or(Uptime::NEVER, |(_, call)| call.deadline)
    }

    fn forget(&mut self, call: &OwnerCall) {
        self.of_owner[call.owner] -= 1;
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
        let mut calls = OwnerCalls::new(MAX, 3);
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
        let mut calls = OwnerCalls::new(MAX, 3);
        let now = Uptime::default();
        for _ in 0..MAX.of_connection {
            assert!(calls.begin(id(1), 0, b"", now).is_some());
        }
        assert!(calls.begin(id(1), 0, b"", now).is_none());
        let others = (2..100).filter(|&index| {
            let owner = index as usize % 3;
            calls.begin(id(index), owner, b"", now).is_some()
        });
        assert_eq!(u32::try_from(others.count()), Ok(MAX.of_core - MAX.of_connection));
        assert!(calls.take(0).is_some() && calls.begin(id(1), 0, b"", now).is_some());
    }

    #[test]
    fn an_owner_that_does_not_answer_leaves_room_for_the_calls_of_the_others() {
        let mut calls = OwnerCalls::new(MAX, 3);
        let now = Uptime::default();
        let stuck = (0..100).filter(|&index| calls.begin(id(index), 0, b"", now).is_some());
        assert_eq!(stuck.count(), 38);
        // However many calls are answered behind the first call that is not.
        for index in 0..1000 {
            let (number, _) = calls.begin(id(100 + index), 1, b"", now).unwrap();
            assert!(calls.take(number).is_some());
        }
        // With one owner there are no others.
        let mut calls = OwnerCalls::new(MAX, 1);
        let begun = (0..100).filter(|&index| calls.begin(id(index), 0, b"", now).is_some());
        assert_eq!(u32::try_from(begun.count()), Ok(MAX.of_core));
    }

    #[test]
    fn the_calls_to_an_owner_that_has_ended_are_taken_and_no_others() {
        let mut calls = OwnerCalls::new(MAX, 3);
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
