//! The open calls of `$history`: how many each client has, and all of them.
//!
//! Limits: [`OF_A_CLIENT_MAX`], [`OF_ALL_MAX`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::cores::lifecycle::connection::ConnectionId;

/// The open calls of one core.
#[derive(Debug, Default)]
pub(in crate::cores) struct HistoryCalls {
    /// By the token of the connection.
    open: HashMap<usize, u32>,
    count: u32,
}

impl HistoryCalls {
    /// Notes a call of a client. False if there are too many open ones.
    #[must_use]
    pub(in crate::cores) fn begin(&mut self, id: ConnectionId) -> bool {
        let of_client = self.open.get(&id.token().0).copied().unwrap_or(0);
        if of_client >= OF_A_CLIENT_MAX || self.count >= OF_ALL_MAX {
            return false;
        }
        self.open.insert(id.token().0, of_client + 1);
        self.count += 1;
        true
    }

    /// A call was answered, whether its client is still there or not.
    pub(in crate::cores) fn end(&mut self, id: ConnectionId) {
        let Entry::Occupied(mut of_client) = self.open.entry(id.token().0) else {
            return;
        };
        self.count -= 1;
        if *of_client.get() > 1 {
            *of_client.get_mut() -= 1;
        } else {
            of_client.remove();
        }
    }
}

/// Open calls of one client.
const OF_A_CLIENT_MAX: u32 = 16;
/// Open calls of all clients of a core: letters are kept for as many, if the owner's box is full.
const OF_ALL_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_and_all_have_theirs() {
        let mut calls = HistoryCalls::default();
        let id = |index: usize| ConnectionId::from_token(mio::Token(index));
        let begun = (0..100).filter(|_| calls.begin(id(1))).count();
        assert_eq!(begun, OF_A_CLIENT_MAX as usize);
        calls.end(id(1));
        assert!(calls.begin(id(1)) && !calls.begin(id(1)));
        let begun = (2..10_000).filter(|&index| calls.begin(id(index))).count();
        assert_eq!(begun, (OF_ALL_MAX - OF_A_CLIENT_MAX) as usize);
        for index in 1..10_000 {
            for _ in 0..OF_A_CLIENT_MAX {
                calls.end(id(index));
            }
        }
        assert_eq!((calls.count, calls.open.len()), (0, 0));
    }
}
