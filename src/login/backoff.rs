//! How long somebody must wait who has failed before.
//!
//! Failures are counted in three accounts, and each has a rule: so many failures are free, then each one doubles the
//! time to the next attempt, up to a bound. With `login_failures_max` = 5 and `login_backoff_ms_max` = 900,000:
//!
//! | account | free | longest wait | against |
//! |---|---|---|---|
//! | a user from an address | 5 | 15 min | guessing one password |
//! | an address | 20 | 15 min | trying one password with every user; more are free since offices share an address |
//! | a user, from anywhere | 100 | 8 s | guessing from many addresses |
//!
//! Nobody may be locked out by somebody else:
//! - where a user has logged in before (within 30 days), only the first account counts: neither the strangers behind
//!   the same balancer nor those all over the world keep him out;
//! - elsewhere strangers can make him wait 8 s at most, but for those at his own address;
//! - an attempt that comes too soon is not tried and does not count, so that waiting always helps;
//! - one failure is forgiven every five minutes.
//!
//! What that costs: who shares an address with others, and has it held back, can tell who of them has logged in there.
//!
//! A success clears what was counted for that user, but not the address: else somebody with an account of his own could
//! log in between two guesses at another's. It does not count against the address either.
//!
//! An attempt is counted as a failure when it is admitted, and taken back if it succeeds: attempts that are checked at
//! the same time count one another.
//!
//! An address here is a [`ClientNetwork`]: 64 bits of IPv6, since a client has all the rest; one that embeds an IPv4
//! address counts as that.
//!
//! Of each user so many places are remembered where it has logged in (`PLACES_MAX`), so that somebody with an account
//! and a large network cannot have those of all others forgotten.
//!
//! Memory is bounded (`login_accounts_max` for each kind of account): accounts are kept by a keyed 64-bit hash in two
//! generations, and the older is forgotten when the younger has filled its half. To be forgotten, somebody has to fail
//! as often from other addresses as half of the bound says, each time at the cost of a hash.
//!
//! Time is an argument.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use crate::client::network::ClientNetwork;
use crate::clock::Uptime;

/// How much patience there is.
#[derive(Clone, Copy, Debug)]
pub struct BackoffPolicy {
    /// Failures of one user from one address that cost nothing; 0 for none.
    pub failures_max: u32,
    /// The wait after the first failure that is not free.
    pub delay_first: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// Accounts of each kind that are kept.
    pub accounts_max: u32,
}

/// All accounts.
#[derive(Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    hasher: RandomState,
    pairs: Ledger<FailureRecord>,
    addresses: Ledger<FailureRecord>,
    users: Ledger<FailureRecord>,
    /// Where a user has logged in, by the user and a number below [`PLACES_MAX`] that the address gives.
    familiar: Ledger<Visit>,
}

/// An attempt that may be tried: it is counted as failed until [`Backoff::succeeded`] gets it back.
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
    place: u64,
}

/// The last login of a user from an address.
#[derive(Clone, Copy, Debug)]
struct Visit {
    /// The user and the address.
    pair: u64,
    at: Uptime,
}

/// What is known of a user at an address before an attempt is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the user has logged in from there within 30 days.
    pub is_familiar: bool,
    /// How long it has to wait for the next attempt; zero if it need not.
    pub wait: Duration,
}

/// Failures that are not forgiven yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FailureRecord {
    failures: u32,
    /// From when on the time counts towards the next forgiveness.
    forgiven: Uptime,
    last: Uptime,
}

/// How one kind of account is judged.
#[derive(Clone, Copy, Debug)]
struct Rule {
    free: u32,
    delay_first: Duration,
    delay_max: Duration,
}

impl Backoff {
    /// Nobody has failed yet.
    pub fn new(policy: BackoffPolicy) -> Backoff {
        Backoff {
            policy,
            hasher: RandomState::new(),
            pairs: Ledger::new(policy.accounts_max),
            addresses: Ledger::new(policy.accounts_max),
            users: Ledger::new(policy.accounts_max),
            familiar: Ledger::new(policy.accounts_max),
        }
    }

    /// How this user stands at this address.
    pub fn standing(&self, user: &str, address: ClientNetwork, now: Uptime) -> Standing {
        self.standing_of(&self.keys(user, address), now)
    }

    /// Whether this user may try from this address.
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
        self.pairs.put(keys.pair, FailureRecord::one_more(pair, now));
        self.addresses
            .put(keys.address, FailureRecord::one_more(address_before, now));
        self.users.put(keys.user, FailureRecord::one_more(user, now));
        Ok(Admitted { keys, address_before })
    }

    fn standing_of(&self, keys: &Keys, now: Uptime) -> Standing {
        let is_familiar = self
            .familiar
            .get(keys.place)
            .is_some_and(|visit| visit.pair == keys.pair && now.since(visit.at) < FAMILIAR_FOR);
        let of_pair = self.pairs.get(keys.pair);
        let mut wait = self.rule(1, self.policy.delay_max).wait(of_pair, now);
        if !is_familiar {
            let of_address = self.addresses.get(keys.address);
            let at_address = self
                .rule(FREE_PER_ADDRESS, self.policy.delay_max)
                .wait(of_address, now);
            let of_user = self.users.get(keys.user);
            let of_user = self.rule(FREE_PER_USER, USER_DELAY_MAX).wait(of_user, now);
            wait = wait.max(at_address).max(of_user);
        }
        Standing { is_familiar, wait }
    }

    /// The attempt was no failure.
    pub fn succeeded(&mut self, admitted: Admitted, now: Uptime) {
        let Admitted { keys, address_before } = admitted;
        self.pairs.remove(keys.pair);
        self.users.remove(keys.user);
        let visit = Visit {
            pair: keys.pair,
            at: now,
        };
        self.familiar.put(keys.place, visit);
        // Others at this address may have failed meanwhile, so that it is not put back as it was.
        match (self.addresses.get(keys.address), address_before) {
            (Some(account), _) if account.failures <= 1 => self.addresses.remove(keys.address),
            (Some(account), before) => self.addresses.put(
                keys.address,
                FailureRecord {
                    failures: account.failures - 1,
                    last: before.map_or(account.last, |before| before.last),
                    ..account
                },
            ),
            (None, _) => {}
        }
    }

    /// Accounts with failures that were forgotten for want of room.
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
            place: self.hasher.hash_one((user, address % PLACES_MAX)),
        }
    }
}

impl Rule {
    fn wait(self, account: Option<FailureRecord>, now: Uptime) -> Duration {
        let Some(account) = account.map(|account| account.at(now)) else {
            return Duration::ZERO;
        };
        if account.failures == 0 || account.failures < self.free {
            return Duration::ZERO;
        }
        let doublings = (account.failures - self.free.max(1)).min(31);
        let delay = self
            .delay_first
            .saturating_mul(1 << doublings)
            .min(self.delay_max);
        (account.last + delay).since(now)
    }
}

impl FailureRecord {
    fn one_more(account: Option<FailureRecord>, now: Uptime) -> FailureRecord {
        let fresh = FailureRecord {
            failures: 0,
            forgiven: now,
            last: now,
        };
        let account = account
            .map(|account| account.at(now))
            .filter(|account| account.failures > 0);
        let account = account.unwrap_or(fresh);
        FailureRecord {
            failures: account.failures.saturating_add(1),
            last: now,
            ..account
        }
    }

    /// Without the failures that were forgiven until `now`.
    fn at(self, now: Uptime) -> FailureRecord {
        let times = now.since(self.forgiven).as_millis() / FORGIVE_EVERY.as_millis();
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        FailureRecord {
            failures: self.failures.saturating_sub(times),
            forgiven: self.forgiven + FORGIVE_EVERY.saturating_mul(times),
            ..self
        }
    }
}

/// A bounded table that forgets what has not been written for longest, roughly.
#[derive(Debug)]
struct Ledger<T> {
    young: HashMap<u64, T>,
    old: HashMap<u64, T>,
    /// Of each generation.
    capacity: usize,
    forgotten: u64,
}

impl<T: Copy> Ledger<T> {
    fn new(accounts_max: u32) -> Ledger<T> {
        Ledger {
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

/// Free failures of an address, for each one of a user there.
const FREE_PER_ADDRESS: u32 = 4;
/// Free failures of a user, for each one from one address.
const FREE_PER_USER: u32 = 20;
/// What strangers elsewhere can make a user wait.
const USER_DELAY_MAX: Duration = Duration::from_secs(8);
/// Addresses at which a user is remembered.
const PLACES_MAX: u64 = 64;
const FORGIVE_EVERY: Duration = Duration::from_secs(300);
const FAMILIAR_FOR: Duration = Duration::from_secs(30 * 86_400);
/// The wait after the first failure that is not free.
pub const DELAY_FIRST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
