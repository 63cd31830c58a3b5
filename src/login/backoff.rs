//! Back-off of logins: how long a user must wait for the next attempt after failed ones.
//!
//! Failures are counted in three kinds of records, each with a rule of its own: the first failures are free,
//! then each failure doubles the wait until the next attempt, up to a bound. With `login_failures_max` = 5
//! and `login_backoff_ms_max` = 900,000:
//!
//! | record | free | longest wait | against |
//! |---|---|---|---|
//! | a user from an address | 5 | 15 min | guessing one password |
//! | an address | 20 | 15 min | trying one password with every user; more failures are free, since many users may share an address |
//! | a user, from anywhere | 100 | 8 s | guessing from many addresses |
//!
//! One user cannot lock another out:
//! - Where a user has logged in within 30 days, only the first record counts. Failures of others, behind the
//!   same load balancer or anywhere else, do not make this user wait.
//! - At other addresses, failures of others can make a user wait 8 s at most, except for failures from the
//!   user's own address.
//! - An attempt that comes too soon is not checked and does not count, so waiting always helps.
//! - One failure is forgiven every five minutes.
//!
//! The price: a client that makes its shared address wait can find out which users have logged in from that
//! address.
//!
//! A success clears the failures of that user, but not those of the address: otherwise an attacker with an
//! account could log in between two guesses at another user's password. A success does not count against the
//! address either.
//!
//! An attempt is counted as a failure when it is admitted, and the count is taken back if it succeeds: so
//! attempts that are checked at the same time count each other.
//!
//! An address here is a [`ClientNetwork`]: the upper 64 bits of an IPv6 address, since one client usually has
//! all addresses below them. An IPv6 address that embeds an IPv4 address counts as the latter.
//!
//! For each user at most `FAMILIAR_ADDRESSES_MAX` addresses with a login are remembered. So a user with a
//! large network cannot displace the addresses of all others.
//!
//! Memory is bounded (`login_accounts_max` for each kind of record). Records are found by a keyed 64-bit hash
//! and kept in two generations: when the younger generation has filled its half, the older one is dropped. To
//! have its records dropped, an attacker has to fail from as many other addresses as half of the bound, and
//! each failure costs a password hash.
//!
//! Pure: the time is an argument.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use crate::client::network::ClientNetwork;
use crate::clock::Uptime;

/// The settings of the back-off.
#[derive(Clone, Copy, Debug)]
pub struct BackoffPolicy {
    /// Free failures of one user from one address; 0 for none.
    pub failures_max: u32,
    /// The wait after the first failure that is not free.
    pub delay_first: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// Most records of each kind.
    pub accounts_max: u32,
}

/// All records.
#[derive(Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    hasher: RandomState,
    pairs: RecentTable<FailureRecord>,
    addresses: RecentTable<FailureRecord>,
    users: RecentTable<FailureRecord>,
    /// The last logins of users from addresses. The key is made of the user and of the address's hash modulo
    /// [`FAMILIAR_ADDRESSES_MAX`].
    familiar: RecentTable<LastLogin>,
}

/// An attempt that may be checked. It counts as failed until it is returned to [`Backoff::succeeded`].
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    keys: Keys,
    address_before: Option<FailureRecord>,
}

#[derive(Clone, Copy, Debug)]
struct Keys {
    pair: u64,
    address: u64,
    user: u64,
    familiar: u64,
}

/// The last login of a user from an address.
#[derive(Clone, Copy, Debug)]
struct LastLogin {
    /// The key of the user and the address.
    pair: u64,
    at: Uptime,
}

/// What is known of a user at an address before an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// True if the user has logged in from there within 30 days.
    pub is_familiar: bool,
    /// How long the user has to wait for the next attempt; zero if an attempt is allowed now.
    pub wait: Duration,
}

/// Failures that are not forgiven yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FailureRecord {
    failures: u32,
    /// The time from which the next forgiveness is counted.
    forgiven_at: Uptime,
    last: Uptime,
}

/// The rule of one kind of record.
#[derive(Clone, Copy, Debug)]
struct Rule {
    free: u32,
    delay_first: Duration,
    delay_max: Duration,
}

impl Backoff {
    /// Without any failures.
    pub fn new(policy: BackoffPolicy) -> Backoff {
        Backoff {
            policy,
            hasher: RandomState::new(),
            pairs: RecentTable::new(policy.accounts_max),
            addresses: RecentTable::new(policy.accounts_max),
            users: RecentTable::new(policy.accounts_max),
            familiar: RecentTable::new(policy.accounts_max),
        }
    }

    /// What is known of this user at this address.
    pub fn standing(&self, user: &str, address: ClientNetwork, now: Uptime) -> Standing {
        self.standing_of(&self.keys(user, address), now)
    }

    /// Admits an attempt of this user from this address, if none of the records demands a wait.
    ///
    /// # Errors
    /// How long to wait; never zero.
    pub fn admit(&mut self, user: &str, address: ClientNetwork, now: Uptime) -> Result<Admitted, Duration> {
        let keys = self.keys(user, address);
        let Standing { wait, .. } = self.standing_of(&keys, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        let address_before = self.addresses.get(keys.address);
        let (pair, user) = (self.pairs.get(keys.pair), self.users.get(keys.user));
        self.pairs.put(keys.pair, FailureRecord::with_one_more(pair, now));
        self.addresses
            .put(keys.address, FailureRecord::with_one_more(address_before, now));
        self.users.put(keys.user, FailureRecord::with_one_more(user, now));
        Ok(Admitted { keys, address_before })
    }

    fn standing_of(&self, keys: &Keys, now: Uptime) -> Standing {
        let is_familiar = self
            .familiar
            .get(keys.familiar)
            .is_some_and(|login| login.pair == keys.pair && now.since(login.at) < FAMILIAR_FOR);
        let pair = self.pairs.get(keys.pair);
        let mut wait = self.rule(1, self.policy.delay_max).wait(pair, now);
        if !is_familiar {
            let address = self.addresses.get(keys.address);
            let address_wait = self
                .rule(FREE_PER_ADDRESS, self.policy.delay_max)
                .wait(address, now);
            let user = self.users.get(keys.user);
            let user_wait = self.rule(FREE_PER_USER, USER_DELAY_MAX).wait(user, now);
            wait = wait.max(address_wait).max(user_wait);
        }
        Standing { is_familiar, wait }
    }

    /// Takes back the failure that was counted for an attempt, since it succeeded.
    pub fn succeeded(&mut self, admitted: Admitted, now: Uptime) {
        let Admitted { keys, address_before } = admitted;
        self.pairs.remove(keys.pair);
        self.users.remove(keys.user);
        let login = LastLogin {
            pair: keys.pair,
            at: now,
        };
        self.familiar.put(keys.familiar, login);
        // Others at this address may have failed meanwhile, so the earlier record is not simply restored.
        match (self.addresses.get(keys.address), address_before) {
            (Some(record), _) if record.failures <= 1 => self.addresses.remove(keys.address),
            (Some(record), before) => self.addresses.put(
                keys.address,
                FailureRecord {
                    failures: record.failures - 1,
                    last: before.map_or(record.last, |before| before.last),
                    ..record
                },
            ),
            (None, _) => {}
        }
    }

    /// Records with failures that were dropped for lack of room.
    pub fn forgotten(&self) -> u64 {
        self.pairs.forgotten + self.addresses.forgotten + self.users.forgotten
    }

    fn rule(&self, times_free: u32, delay_max: Duration) -> Rule {
        Rule {
            free: self.policy.failures_max.saturating_mul(times_free),
            delay_first: self.policy.delay_first,
            delay_max: delay_max.min(self.policy.delay_max),
        }
    }

    fn keys(&self, user: &str, network: ClientNetwork) -> Keys {
        let address = self.hasher.hash_one(network);
        Keys {
            pair: self.hasher.hash_one((user, network)),
            address,
            user: self.hasher.hash_one(user),
            familiar: self.hasher.hash_one((user, address % FAMILIAR_ADDRESSES_MAX)),
        }
    }
}

impl Rule {
    fn wait(self, record: Option<FailureRecord>, now: Uptime) -> Duration {
        let Some(record) = record.map(|record| record.at(now)) else {
            return Duration::ZERO;
        };
        if record.failures == 0 || record.failures < self.free {
            return Duration::ZERO;
        }
        let doublings = (record.failures - self.free.max(1)).min(31);
        let delay = self
            .delay_first
            .saturating_mul(1 << doublings)
            .min(self.delay_max);
        (record.last + delay).since(now)
    }
}

impl FailureRecord {
    fn with_one_more(record: Option<FailureRecord>, now: Uptime) -> FailureRecord {
        let fresh = FailureRecord {
            failures: 0,
            forgiven_at: now,
            last: now,
        };
        let record = record
            .map(|record| record.at(now))
            .filter(|record| record.failures > 0);
        let record = record.unwrap_or(fresh);
        FailureRecord {
            failures: record.failures.saturating_add(1),
            last: now,
            ..record
        }
    }

    /// The record without the failures that have been forgiven until `now`.
    fn at(self, now: Uptime) -> FailureRecord {
        let times = now.since(self.forgiven_at).as_millis() / FORGIVE_EVERY.as_millis();
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        FailureRecord {
            failures: self.failures.saturating_sub(times),
            forgiven_at: self.forgiven_at + FORGIVE_EVERY.saturating_mul(times),
            ..self
        }
    }
}

/// A bounded table that drops, roughly, the entries that have not been written for longest.
#[derive(Debug)]
struct RecentTable<T> {
    young: HashMap<u64, T>,
    old: HashMap<u64, T>,
    /// Of each generation.
    capacity: usize,
    forgotten: u64,
}

impl<T: Copy> RecentTable<T> {
    fn new(accounts_max: u32) -> RecentTable<T> {
        RecentTable {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity: usize::try_from(accounts_max / 2).unwrap_or(usize::MAX).max(1),
            forgotten: 0,
        }
    }

    fn get(&self, key: u64) -> Option<T> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn put(&mut self, key: u64, value: T) {
        self.old.remove(&key);
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            self.forgotten = self
                .forgotten
                .saturating_add(u64::try_from(self.old.len()).unwrap_or(u64::MAX));
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, value);
    }

    fn remove(&mut self, key: u64) {
        self.young.remove(&key);
        self.old.remove(&key);
    }
}

/// Free failures of an address, as a multiple of those of one user there.
const FREE_PER_ADDRESS: u32 = 4;
/// Free failures of a user from anywhere, as a multiple of those from one address.
const FREE_PER_USER: u32 = 20;
/// The longest wait that failures from other addresses can cause for a user.
const USER_DELAY_MAX: Duration = Duration::from_secs(8);
/// Most addresses with a login that are remembered for a user.
const FAMILIAR_ADDRESSES_MAX: u64 = 64;
const FORGIVE_EVERY: Duration = Duration::from_secs(300);
const FAMILIAR_FOR: Duration = Duration::from_secs(30 * 86_400);
/// The wait after the first failure that is not free.
pub const DELAY_FIRST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
