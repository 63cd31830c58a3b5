//! Admission of connections over all cores: counts the connections of each address, and knows whether memory is short.
//!
//! Cores call it when a connection begins and when it ends; no message passes through here.
//!
//! Invariants
//! 1. The count of a network is the number of its admitted connections that have not ended. A network without
//!    connections has no entry, so there are never more entries than connections.
//!
//! Limits: `connections_per_address_max`, `memory_bytes_max`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::ClientAddress;
use crate::client::network::{ClientNetwork, Nat64Prefixes, Width};

/// The admission state that all cores share.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Written by the control plane, read by cores for each new connection. Relaxed: it orders nothing, and a
    /// connection that begins a moment after a change may still be treated as before it.
    memory_is_full: AtomicBool,
    per_address_max: u32,
    nat64: Nat64Prefixes,
    /// With one table, cores that accept would wait for each other. With this many, two cores seldom need the
    /// same one.
    shards: Box<[Shard]>,
    hasher: RandomState,
}

/// Connections by network.
#[derive(Debug, Default)]
#[repr(align(128))]
#[expect(
    clippy::disallowed_types,
    reason = "held for one look-up, when a connection begins and when it ends; two cores seldom need the same one of 64 \
              shards at the same moment, and no message passes through here"
)]
struct Shard(std::sync::Mutex<HashMap<ClientNetwork, u32>>);

impl Admission {
    /// An admission without connections. `per_address_max` is 0 for any number of connections.
    pub(crate) fn new(per_address_max: u32, nat64: Nat64Prefixes) -> Admission {
        let shards = if per_address_max == 0 { 0 } else { SHARDS };
        Admission {
            memory_is_full: AtomicBool::new(false),
            per_address_max,
            nat64,
            shards: (0..shards).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Whether new connections are refused because memory is short.
    pub(crate) fn memory_is_full(&self) -> bool {
        self.memory_is_full.load(Ordering::Relaxed)
    }

    /// Sets whether new connections are refused because memory is short.
    pub(crate) fn set_memory_is_full(&self, is_full: bool) {
        self.memory_is_full.store(is_full, Ordering::Relaxed);
    }

    /// Counts a connection from this address.
    pub(in crate::cores) fn enter(&self, client: &ClientAddress) -> Entry {
        let Some((network, shard)) = self.place(client) else {
            return Entry::Uncounted;
        };
        let mut counts = shard.lock();
        let count = counts.entry(network).or_insert(0);
        if *count >= self.per_address_max {
            return Entry::Refused;
        }
        *count += 1;
        Entry::Counted
    }

    /// Counts the end of a connection that was counted.
    pub(in crate::cores) fn leave(&self, client: &ClientAddress) {
        let Some((network, shard)) = self.place(client) else {
            return;
        };
        let mut counts = shard.lock();
        if let Some(count) = counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&network);
                if counts.len() < counts.capacity() / 8 {
                    counts.shrink_to_fit();
                }
            }
        }
    }

    /// How many networks have an entry.
    #[cfg(test)]
    pub(in crate::cores) fn networks(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// The network that counts as the client's address, and its shard; `None` if connections are not counted.
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    fn place(&self, client: &ClientAddress) -> Option<(ClientNetwork, &Shard)> {
        if self.shards.is_empty() {
            return None;
        }
        let network = self.nat64.network(client.ip(), Width::Address);
        let hash = self.hasher.hash_one(network) as usize;
        Some((network, &self.shards[hash % self.shards.len()]))
    }
}

impl Shard {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ClientNetwork, u32>> {
        // No code panics while it holds the lock, and the counts would be correct even then.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The decision about a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Entry {
    /// It is admitted and counted: [`Admission::leave`] must follow at its end.
    Counted,
    /// It is admitted; connections are not counted.
    Uncounted,
    /// Its address has as many connections as it may have.
    Refused,
}

const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(per_address_max: u32) -> Admission {
        Admission::new(per_address_max, Nat64Prefixes::default())
    }

    fn address(ip: &str) -> ClientAddress {
        ClientAddress::new(ip.parse().unwrap(), 1)
    }

    #[test]
    fn one_address_has_so_many_and_another_as_many() {
        let admission = counting(2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(
            [admission.enter(&one), admission.enter(&one)],
            [Entry::Counted; 2]
        );
        assert_eq!(admission.enter(&one), Entry::Refused);
        assert_eq!(admission.enter(&address("::ffff:192.0.2.1")), Entry::Refused);
        assert_eq!(admission.enter(&other), Entry::Counted);
        admission.leave(&one);
        assert_eq!(admission.enter(&one), Entry::Counted);
        assert_eq!(admission.enter(&one), Entry::Refused);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let admission = counting(1);
        assert_eq!(admission.enter(&address("2001:db8::1")), Entry::Counted);
        assert_eq!(
            admission.enter(&address("2001:db8::ffff:ffff:ffff:ffff")),
            Entry::Refused
        );
        assert_eq!(admission.enter(&address("2001:db8:0:1::1")), Entry::Counted);
        // IPv4 addresses lie within one such network, too, and are told apart.
        assert_eq!(admission.enter(&address("192.0.2.1")), Entry::Counted);
        assert_eq!(admission.enter(&address("192.0.2.2")), Entry::Counted);
    }

    #[test]
    fn clients_of_ipv4_that_a_translator_brings_are_told_apart_and_counted_as_one_client_each() {
        let own = "2001:db8:64::/96".parse().unwrap();
        let admission = Admission::new(2, own);
        for ip in [
            "192.0.2.1",
            "64:ff9b::192.0.2.2",
            "2001:db8:64::192.0.2.3",
            "2002:c000:204::1",
        ] {
            assert_eq!(admission.enter(&address(ip)), Entry::Counted, "{ip}");
        }
        // Each client has connected once, by one form of its address.
        for ip in [
            "64:ff9b::192.0.2.1",
            "2001:db8:64::192.0.2.2",
            "192.0.2.3",
            "64:ff9b:1:1::192.0.2.4",
        ] {
            assert_eq!(admission.enter(&address(ip)), Entry::Counted, "{ip}");
            assert_eq!(admission.enter(&address(ip)), Entry::Refused, "{ip}");
        }
        assert_eq!(admission.networks(), 4);
    }

    #[test]
    fn no_entry_is_kept_for_a_network_without_connections() {
        let admission = counting(1);
        let all: Vec<_> = (0..200).map(|last| address(&format!("192.0.2.{last}"))).collect();
        for one in &all {
            assert_eq!(admission.enter(one), Entry::Counted);
            assert_eq!(admission.enter(one), Entry::Refused);
        }
        assert_eq!(admission.networks(), all.len());
        all.iter().for_each(|one| admission.leave(one));
        assert_eq!(admission.networks(), 0);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let admission = counting(0);
        assert_eq!(admission.enter(&address("192.0.2.1")), Entry::Uncounted);
        admission.leave(&address("192.0.2.1"));
        assert!(admission.shards.is_empty());
    }

    #[test]
    fn cores_that_count_at_once_let_exactly_so_many_in() {
        let admission = counting(100);
        let one = address("192.0.2.1");
        let come = || {
            (0..1000)
                .filter(|_| admission.enter(&one) == Entry::Counted)
                .count()
        };
        let counted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(counted, 100);
    }
}
