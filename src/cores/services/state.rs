//! The state of services in a core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::clock::Uptime;
use crate::config::limits::Limits;
use crate::cores::post::service_letter::ServiceLetter;
use crate::services::{
    ByNumber, CallId, Offer, OpenCalls, OpenCallsMax, Pattern, Pools, PoolsMax, ServiceCall, Token,
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
    /// This core's letters to itself, in order.
    pub(super) to_self: VecDeque<ServiceLetter>,
    /// Whether it takes these letters now.
    pub(super) takes_letters: bool,
    /// Connections that had no room for a call. The owners of their patterns are told when they have room.
    pub(super) full: BTreeSet<usize>,
    /// The connections that were sent `$cancel` for a call and have not answered it, by the time at which the
    /// call stops counting in their windows. The windows bound their number.
    pub(super) cancelled: BTreeMap<(Uptime, CallId), usize>,
}

/// A pattern that a connection serves.
#[derive(Debug)]
pub(in crate::cores) struct Registration {
    pub(in crate::cores) pattern: Box<[u8]>,
    /// The core that owns the pattern.
    pub(in crate::cores) owner: usize,
    pub(in crate::cores) offer: Offer,
    /// The client's description of itself, as JSON.
    pub(in crate::cores) meta: Option<Box<str>>,
    pub(in crate::cores) stage: Stage,
    /// The calls of `$serve` that the owner's next answer answers.
    pub(in crate::cores) tokens: Vec<Token>,
    /// The last request of the client since the owner was asked.
    pub(in crate::cores) next: Option<Next>,
    /// Calls that came after the client had given the pattern up.
    #[expect(clippy::vec_box, reason = "calls travel from core to core in their boxes")]
    pub(in crate::cores) held: Vec<Box<ServiceCall>>,
}

/// The stage of a registration. The owner is told no change of it before it has answered, which it does when
/// all cores know the pattern. So a client that gives a pattern up and registers it again and again causes
/// few letters, and no answer is mistaken for the answer to another question.
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

/// The next step after `$serve`.
pub(in crate::cores) enum Registered {
    /// The owner is to be asked.
    Ask,
    /// The owner is asked when its answer to the last question has come.
    Waits,
    /// The connection serves as many patterns as it may.
    TooMany,
}

/// The parts of a registration that was given up: its core has to answer them, or to tell the owner.
#[derive(Debug, Default)]
pub(in crate::cores) struct Taken {
    /// The calls of `$serve` that have no answer yet.
    pub(in crate::cores) tokens: Vec<Token>,
    /// The whole registration, if the owner is to be told now.
    pub(in crate::cores) registration: Option<Registration>,
}

/// The fate of a call or an event for a pattern that its client does not serve.
#[derive(Debug)]
pub(super) enum Unserved {
    /// The call is kept until the owner may be told that the client has left.
    Held,
    /// The event is to be dropped.
    Event(Box<ServiceCall>),
    /// The client is no member any more: the owner may be told.
    NoPattern(Box<ServiceCall>),
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
            cancelled: BTreeMap::new(),
        }
    }

    /// Whether there is work, beside the orders of sessions.
    #[inline]
    pub(in crate::cores) fn has_work(&self, now: Uptime) -> bool {
        !self.ended.is_empty()
            || !self.changed.is_empty()
            || !self.to_self.is_empty()
            || !self.full.is_empty()
            || (!self.open.is_empty() && self.open.next_deadline() <= now)
            || self.next_cancel() <= now
    }

    /// Whether there is work that no deadline triggers.
    #[inline]
    pub(in crate::cores) fn has_work_left(&self) -> bool {
        !self.ended.is_empty() || !self.changed.is_empty() || !self.to_self.is_empty()
    }

    /// When the next turn is due, if no event comes.
    pub(in crate::cores) fn next_due(&self, now: Uptime) -> Uptime {
        let deadline = self.open.next_deadline().min(self.next_cancel());
        if self.full.is_empty() {
            deadline
        } else {
            deadline.min(now + ROOM_RETRY)
        }
    }

    /// When the next cancelled call stops counting in the window of its service.
    #[inline]
    fn next_cancel(&self) -> Uptime {
        self.cancelled
            .first_key_value()
            .map_or(Uptime::NEVER, |((until, _), _)| *until)
    }

    /// Takes a cancelled call that no longer counts in the window of its service.
    pub(super) fn take_overdue_cancel(&mut self, now: Uptime) -> Option<(CallId, usize)> {
        let first = self.cancelled.first_entry()?;
        (first.key().0 <= now).then(|| {
            let ((_, id), connection) = first.remove_entry();
            (id, connection)
        })
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

    /// Notes that a connection wants to serve a pattern.
    pub(in crate::cores) fn register(
        &mut self,
        connection: usize,
        (pattern, owner): (&[u8], usize),
        (offer, meta): (Offer, Option<Box<str>>),
        token: Token,
    ) -> Registered {
        let max = self.registered_max;
        let registered = self.registered.entry(connection).or_default();
        let wanted = registered.iter().filter(|one| one.is_wanted()).count();
        let at = registered.iter().position(|one| *one.pattern == *pattern);
        let is_wanted = at.is_some_and(|at| registered[at].is_wanted());
        // Patterns that were given up, and that some cores do not know of yet, are bounded as well.
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
                meta,
                stage: Stage::Asked,
                tokens: vec![token],
                next: None,
                held: Vec::new(),
            });
            return Registered::Ask;
        };
        let same = &mut registered[at];
        same.meta = meta;
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

    /// Removes a pattern from a connection; `None` if the connection was not going to serve it.
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

    /// Keeps a call for a pattern that the client has given up, until its owner may be told. An event is not
    /// kept, since no window bounds events.
    pub(super) fn hold(&mut self, connection: usize, call: Box<ServiceCall>) -> Unserved {
        let mut registered = self.registered(connection).iter_mut();
        let given_up = registered.find(|one| {
            one.stage == Stage::GivenUp && Pattern::checked(&one.pattern).covers(Pattern::Name(&call.event))
        });
        match given_up {
            Some(_) if call.id.is_none() => Unserved::Event(call),
            Some(one) => {
                one.held.push(call);
                Unserved::Held
            }
            None => Unserved::NoPattern(call),
        }
    }

    /// Takes a kept call that its caller has given up.
    pub(super) fn take_held(&mut self, connection: usize, id: CallId) -> Option<Box<ServiceCall>> {
        self.registered(connection).iter_mut().find_map(|one| {
            let at = one.held.iter().position(|call| call.id == Some(id))?;
            Some(one.held.remove(at))
        })
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
        let mut served = registered
            .into_iter()
            .flatten()
            .filter(|one| one.stage != Stage::GivenUp);
        served.any(|one| Pattern::checked(&one.pattern).covers(Pattern::Name(procedure)))
    }
}

#[cfg(test)]
impl Services {
    /// The patterns that all connections serve.
    pub(super) fn all_registered(&self) -> impl Iterator<Item = (usize, &Registration)> {
        let registered = self.registered.iter();
        registered.flat_map(|(connection, all)| all.iter().map(|one| (*connection, one)))
    }
}

/// How soon a core checks again whether a full outbox has room, if no event comes.
const ROOM_RETRY: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{Entry, PoolId, ReplyTo};

    /// The id of a new call.
    fn call_id(calls: &mut OpenCalls) -> CallId {
        let (reply, pool) = (ReplyTo::Client(Token::new(b"1")), PoolId::default());
        let place = Entry {
            owner: 0,
            pool,
            row: 0,
        };
        let times = (Uptime::from_ms(0), 0);
        calls
            .begin(1, reply, place, Duration::from_secs(1), 1, times)
            .expect("there is room")
    }

    #[test]
    fn a_pattern_that_is_being_given_up_keeps_calls_until_they_are_cancelled_and_no_events() {
        let limits = Limits::default();
        let mut services = Services::new(0, 1, &limits);
        let mut calls = OpenCalls::new(
            0,
            OpenCallsMax {
                of_core: 9,
                of_connection: 9,
                bytes_of_core: 9,
            },
        );
        let ids = [call_id(&mut calls), call_id(&mut calls)];
        let call = |id, event: &[u8]| {
            Box::new(ServiceCall {
                id,
                event: event.into(),
                ..ServiceCall::default()
            })
        };
        let offer = Offer { weight: 1, window: 1 };
        services.register(7, (b"p*", 0), (offer, None), Token::new(b"1"));
        assert!(
            services
                .give_up(7, b"p*")
                .is_some_and(|taken| taken.registration.is_none())
        );
        for id in ids {
            assert!(matches!(services.hold(7, call(Some(id), b"p1")), Unserved::Held));
        }
        assert!(matches!(services.hold(7, call(None, b"p1")), Unserved::Event(_)));
        assert!(matches!(
            services.hold(7, call(None, b"q")),
            Unserved::NoPattern(_)
        ));
        assert!(matches!(
            services.hold(8, call(None, b"p1")),
            Unserved::NoPattern(_)
        ));
        assert_eq!(
            services.take_held(7, ids[0]).and_then(|call| call.id),
            Some(ids[0])
        );
        assert!(services.take_held(7, ids[0]).is_none() && services.take_held(8, ids[1]).is_none());
        let taken = services.unregister(7, b"p*").expect("it is known");
        assert_eq!(
            taken.held.iter().map(|call| call.id).collect::<Vec<_>>(),
            [Some(ids[1])]
        );
    }
}
