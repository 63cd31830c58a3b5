//! The parts of a core that services are made of.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::clock::Uptime;
use crate::config::limits::Limits;
use crate::cores::post::service_letter::ServiceLetter;
use crate::services::{
    ByNumber, Offer, OpenCalls, OpenCallsMax, Pattern, Pools, PoolsMax, ServiceCall, Token,
};

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
    pub(in crate::cores) stage: Stage,
    /// The calls of `$serve` that the owner's next answer answers.
    pub(in crate::cores) tokens: Vec<Token>,
    /// What the client has asked for since the owner was asked.
    pub(in crate::cores) next: Option<Next>,
    /// Calls that came although the client has given the pattern up.
    #[expect(clippy::vec_box, reason = "calls travel from core to core in their boxes")]
    pub(in crate::cores) held: Vec<Box<ServiceCall>>,
}

/// How far a registration is. The owner is told nothing new about it before it has answered, which it does when all cores
/// know the pattern: so a client that gives a pattern up and registers it again and again sends few letters, and no answer
/// is taken for that to another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Stage {
    /// The owner was asked.
    Asked,
    /// All cores know the pattern.
    Served,
    /// The owner was asked, and the client has given the pattern up since.
    GivenUp,
}

/// A `$serve` that waits for the answer to the one before.
#[derive(Debug)]
pub(in crate::cores) struct Next {
    pub(in crate::cores) offer: Offer,
    pub(in crate::cores) tokens: Vec<Token>,
}

/// What is to be done after `$serve`.
pub(in crate::cores) enum Registered {
    /// The owner is to be asked.
    Ask,
    /// It is asked when its answer to the last question has come.
    Waits,
    /// The connection serves as many patterns as it may.
    TooMany,
}

/// What was taken from a registration that was given up.
#[derive(Debug, Default)]
pub(in crate::cores) struct Taken {
    /// The calls of `$serve` that have no answer yet.
    pub(in crate::cores) tokens: Vec<Token>,
    /// The whole registration, if the owner is to be told now.
    pub(in crate::cores) registration: Option<Registration>,
}

impl Registration {
    fn is_wanted(&self) -> bool {
        self.stage != Stage::GivenUp || self.next.is_some()
    }
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

    /// Keeps that a connection wants to serve a pattern.
    pub(in crate::cores) fn register(
        &mut self,
        connection: usize,
        (pattern, owner): (&[u8], usize),
        offer: Offer,
        token: Token,
    ) -> Registered {
        let max = self.registered_max;
        let registered = self.registered.entry(connection).or_default();
        let wanted = registered.iter().filter(|one| one.is_wanted()).count();
        let at = registered.iter().position(|one| *one.pattern == *pattern);
        let is_wanted = at.is_some_and(|at| registered[at].is_wanted());
        // Those that were given up, and that some cores do not know yet, are bounded as well.
        if (!is_wanted && wanted >= max) || (at.is_none() && registered.len() >= max.saturating_mul(2)) {
            if registered.is_empty() {
                self.registered.remove(&connection);
            }
            return Registered::TooMany;
        }
        let Some(at) = at else {
            registered.push(Registration {
                pattern: pattern.into(),
                owner,
                offer,
                stage: Stage::Asked,
                tokens: vec![token],
                next: None,
                held: Vec::new(),
            });
            return Registered::Ask;
        };
        let same = &mut registered[at];
        match same.stage {
            Stage::Served => {
                same.offer = offer;
                same.tokens.push(token);
                same.stage = Stage::Asked;
                Registered::Ask
            }
            Stage::Asked | Stage::GivenUp => {
                let tokens = Vec::new();
                let next = same.next.get_or_insert(Next { offer, tokens });
                next.offer = offer;
                next.tokens.push(token);
                Registered::Waits
            }
        }
    }

    /// Takes a pattern away from a connection; `None` if it does not want to serve it.
    pub(in crate::cores) fn give_up(&mut self, connection: usize, pattern: &[u8]) -> Option<Taken> {
        let mut registered = self.registered(connection).iter_mut();
        let one = registered.find(|one| *one.pattern == *pattern && one.is_wanted())?;
        let mut tokens = std::mem::take(&mut one.tokens);
        tokens.extend(one.next.take().into_iter().flat_map(|next| next.tokens));
        let registration = match one.stage {
            Stage::Served => self.unregister(connection, pattern),
            Stage::Asked | Stage::GivenUp => {
                one.stage = Stage::GivenUp;
                None
            }
        };
        Some(Taken { tokens, registration })
    }

    /// Takes the entry of a pattern of a connection.
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

    /// Keeps a call for a pattern that the client has given up until its owner may be told; gives it back if there is no
    /// such pattern.
    pub(in crate::cores) fn hold(
        &mut self,
        connection: usize,
        call: Box<ServiceCall>,
    ) -> Option<Box<ServiceCall>> {
        let mut registered = self.registered(connection).iter_mut();
        let given_up = registered.find(|one| {
            let pattern = Pattern::parse(&one.pattern);
            one.stage == Stage::GivenUp
                && pattern.is_some_and(|pattern| pattern.covers(Pattern::Name(&call.event)))
        });
        match given_up {
            Some(one) => {
                one.held.push(call);
                None
            }
            None => Some(call),
        }
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
            .filter(|one| one.stage != Stage::GivenUp)
            .filter_map(|one| Pattern::parse(&one.pattern));
        patterns.any(|pattern| pattern.covers(Pattern::Name(procedure)))
    }
}

/// How soon a core looks again whether a full outbox has room, if nothing else gives it work.
const ROOM_RETRY: Duration = Duration::from_millis(10);
