//! The parts of a core that services are made of.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::clock::Uptime;
use crate::config::limits::Limits;
use crate::cores::post::service_letter::ServiceLetter;
use crate::services::{ByNumber, Offer, OpenCalls, OpenCallsMax, Pattern, Pools, PoolsMax, Token};

/// Services on one core.
#[derive(Debug)]
pub(in crate::cores) struct Services {
    /// The calls of this core's clients.
    pub(in crate::cores) open: OpenCalls,
    /// The pools that this core owns.
    pub(in crate::cores) pools: Pools,
    /// The patterns that clients of this core serve, by connection.
    registered: ByNumber<usize, Vec<Registration>>,
    /// Most patterns of a connection.
    registered_max: usize,
    /// Connections that have ended, and had calls or patterns.
    ended: Vec<usize>,
    /// Connections with patterns whose claims have changed.
    changed: Vec<usize>,
    /// What this core has told itself, in order.
    pub(super) to_self: VecDeque<ServiceLetter>,
    /// Whether it takes these letters now.
    pub(super) takes_letters: bool,
    /// Connections that had no room for a call. The owners of their patterns are told when they have room.
    pub(super) full: BTreeSet<usize>,
}

/// A pattern that a connection serves.
#[derive(Debug)]
pub(in crate::cores) struct Registration {
    pub(in crate::cores) pattern: Box<[u8]>,
    /// The core that owns the pattern.
    pub(in crate::cores) owner: usize,
    pub(in crate::cores) offer: Offer,
    /// The calls of `$serve` that are not answered yet.
    pub(in crate::cores) tokens: Vec<Token>,
}

impl Services {
    /// No services on this core, one of `cores`.
    pub(in crate::cores) fn new(core: usize, cores: usize, limits: &Limits) -> Services {
        Services {
            open: OpenCalls::new(
                core,
                OpenCallsMax {
                    of_core: limits.service_calls_per_core_max,
                    of_connection: limits.service_calls_per_connection_max,
                    bytes_of_core: limits.service_call_bytes_per_core_max,
                },
            ),
            pools: Pools::new(
                core,
                cores,
                PoolsMax {
                    pools: limits.service_patterns_max,
                    members: limits.service_members_max,
                },
            ),
            registered: ByNumber::default(),
            registered_max: limits.services_per_connection_max as usize,
            ended: Vec::new(),
            changed: Vec::new(),
            to_self: VecDeque::new(),
            takes_letters: false,
            full: BTreeSet::new(),
        }
    }

    /// Whether there is something to do, beside what sessions want done.
    #[inline]
    pub(in crate::cores) fn has_work(&self, now: Uptime) -> bool {
        !self.ended.is_empty()
            || !self.changed.is_empty()
            || !self.to_self.is_empty()
            || !self.full.is_empty()
            || (!self.open.is_empty() && self.open.next_deadline() <= now)
    }

    /// Whether something is left to do that no deadline brings.
    #[inline]
    pub(in crate::cores) fn has_work_left(&self) -> bool {
        !self.ended.is_empty() || !self.changed.is_empty() || !self.to_self.is_empty()
    }

    /// When the next turn is due, if no event comes.
    pub(in crate::cores) fn next_due(&self, now: Uptime) -> Uptime {
        let deadline = self.open.next_deadline();
        if self.full.is_empty() {
            deadline
        } else {
            deadline.min(now + ROOM_RETRY)
        }
    }

    /// A connection has ended.
    #[inline]
    pub(in crate::cores) fn note_ended(&mut self, connection: usize) {
        if self.open.has_connection(connection) || self.registered.contains_key(&connection) {
            self.ended.push(connection);
        }
    }

    /// The claims of a client have changed.
    #[inline]
    pub(in crate::cores) fn note_changed(&mut self, connection: usize) {
        if self.registered.contains_key(&connection) {
            self.changed.push(connection);
        }
    }

    /// The rules have changed.
    pub(in crate::cores) fn note_all_changed(&mut self) {
        self.changed.extend(self.registered.keys());
    }

    /// Takes a connection that has ended.
    pub(in crate::cores) fn next_ended(&mut self) -> Option<usize> {
        self.ended.pop()
    }

    /// Takes a connection whose patterns are to be checked again.
    pub(in crate::cores) fn next_changed(&mut self) -> Option<usize> {
        self.changed.pop()
    }

    /// Keeps that a connection serves a pattern; false if it serves as many as it may.
    pub(in crate::cores) fn register(&mut self, connection: usize, registration: Registration) -> bool {
        let registered = self.registered.entry(connection).or_default();
        let mut same = registered.iter_mut();
        if let Some(same) = same.find(|same| same.pattern == registration.pattern) {
            same.offer = registration.offer;
            same.tokens.extend(registration.tokens);
            return true;
        }
        if registered.len() >= self.registered_max {
            if registered.is_empty() {
                self.registered.remove(&connection);
            }
            return false;
        }
        registered.push(registration);
        true
    }

    /// Takes a pattern away from a connection.
    pub(in crate::cores) fn unregister(&mut self, connection: usize, pattern: &[u8]) -> Option<Registration> {
        let registered = self.registered.get_mut(&connection)?;
        let at = registered.iter().position(|one| *one.pattern == *pattern)?;
        let taken = registered.swap_remove(at);
        if registered.is_empty() {
            self.registered.remove(&connection);
        }
        Some(taken)
    }

    /// Takes all patterns of a connection.
    pub(in crate::cores) fn unregister_all(&mut self, connection: usize) -> Vec<Registration> {
        self.registered.remove(&connection).unwrap_or_default()
    }

    /// The patterns that a connection serves.
    pub(in crate::cores) fn registered(&mut self, connection: usize) -> &mut [Registration] {
        self.registered
            .get_mut(&connection)
            .map_or(&mut [], Vec::as_mut_slice)
    }

    /// Whether a connection serves a procedure.
    pub(in crate::cores) fn serves(&self, connection: usize, procedure: &[u8]) -> bool {
        let registered = self.registered.get(&connection);
        let mut patterns = registered
            .into_iter()
            .flatten()
            .filter_map(|one| Pattern::parse(&one.pattern));
        patterns.any(|pattern| pattern.covers(Pattern::Name(procedure)))
    }
}

/// How soon a core looks again whether a full outbox has room, if nothing else gives it work.
const ROOM_RETRY: Duration = Duration::from_millis(10);
