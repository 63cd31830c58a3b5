//! The pools that one core owns: for each pattern the services that have registered it, their calls in flight, and the
//! calls that wait for one of them.
//!
//! Invariants
//! 1. A call waits only if no member has room, and calls that wait are given in their order.
//! 2. A call is in `in_flight`, and counts in the window of its member, from the moment at which it is given to the
//!    member until the core of the member reports that it is done, or that the member has not received it. So a service
//!    that goes on with a call after `$cancel` gets no other call in its place. If a cancelled call comes back, no
//!    other member gets it.
//! 3. A pool has members. It ends with its last member, and its waiting calls are refused.
//!
//! A member with a call that was not answered in time is **slow**: it gets half of its window until it answers. A
//! member whose outbox is full is **full**: it gets nothing until its core says that it has room again.
//!
//! Cost: a choice looks at all members of the pool.
//!
//! Limits: [`Bounds`], and the bounds in the [`Terms`] of each pool.

use std::collections::{HashMap, VecDeque};

use super::by_number::ByNumber;
use super::call::{CallId, MemberKey, PoolId, ServiceCall};
use super::offer::Offer;
use crate::broker::CoreSet;
use crate::clock::Uptime;
use crate::config::services::Terms;

/// The pools of one core.
#[derive(Debug)]
pub struct Pools {
    core: usize,
    bounds: Bounds,
    /// The running cores.
    cores: CoreSet,
    slots: Vec<Slot>,
    by_pattern: HashMap<Box<[u8]>, u32>,
    in_flight: ByNumber<CallId, Flight>,
    /// Counts members that have joined.
    serial: u64,
}

/// How many pools and members there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most pools of the core.
    pub pools: u32,
    /// Most members of a pool.
    pub members: u32,
}

/// A member has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its pool.
    pub pool: PoolId,
    /// Whether the pool is new: then all cores must learn of it.
    pub is_new: bool,
    /// Whether all cores know the pool.
    pub is_known: bool,
}

/// Why a member could not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinFailure {
    /// The core owns as many pools as it may.
    TooManyPatterns,
    /// The pool has as many members as it may.
    TooManyMembers,
    /// The service has ended the registration meanwhile.
    Withdrawn,
    /// The rules or the claims of the service have changed meanwhile: it may not serve the pattern.
    Forbidden,
}

/// The fate of a call at the owner.
#[derive(Debug)]
pub enum Called {
    /// To be given to this member.
    Given(MemberKey, Box<ServiceCall>),
    /// It waits.
    Waits,
    /// There is no such pool.
    NoPool(Box<ServiceCall>),
    /// No member has room, and no more calls may wait.
    Full(Box<ServiceCall>),
}

/// A call that has waited.
#[derive(Debug)]
pub enum Next {
    /// To be given to this member.
    Given(MemberKey, Box<ServiceCall>),
    /// Its caller no longer waits, or its deadline has come.
    Overdue(Box<ServiceCall>),
}

/// Why a member has not received a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDelivered {
    /// Its connection has ended, or does not serve the pattern any more.
    HasLeft,
    /// Its outbox is full.
    IsFull,
}

/// A call has come back from a member.
#[derive(Debug)]
pub struct TakenBack {
    /// Whether another member may get it: its caller still waits.
    pub is_open: bool,
    /// The pool, if it has no members any more.
    pub gone: Option<RemovedPool>,
}

/// The place of a call among calls that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueEnd {
    First,
    Last,
}

/// The state of a call whose caller no longer waits.
#[derive(Debug)]
pub enum Cancelled {
    /// A member has it, and is to get `$cancel`. The call counts in its window until [`Pools::done`].
    Given(MemberKey),
    /// It waited.
    Waited(Box<ServiceCall>),
    /// It has ended, or was cancelled before.
    Unknown,
}

/// A pool, for operators.
#[derive(Debug)]
pub struct PoolView {
    /// The pattern.
    pub pattern: Box<[u8]>,
    /// How many calls wait.
    pub waiting: usize,
    /// The members, in the order in which they joined.
    pub members: Vec<MemberView>,
}

/// A member, for operators.
#[derive(Clone, Copy, Debug)]
pub struct MemberView {
    /// Its connection.
    pub key: MemberKey,
    /// What it offers.
    pub offer: Offer,
    /// Its calls in flight.
    pub in_flight: u32,
    /// Whether it has not answered a call in time, and no other since.
    pub is_slow: bool,
    /// Whether its outbox has no room for calls.
    pub is_full: bool,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    pool: Option<Pool>,
}

#[derive(Debug)]
struct Pool {
    pattern: Box<[u8]>,
    terms: Terms,
    row: usize,
    members: Vec<Member>,
    /// Counts the calls that were given.
    given: u64,
    waiting: VecDeque<Box<ServiceCall>>,
    waiting_bytes: usize,
    /// The cores that have not yet confirmed that they know the pool.
    unknown_to: CoreSet,
    /// The members that wait for that.
    unconfirmed: Vec<MemberKey>,
}

#[derive(Debug)]
struct Member {
    key: MemberKey,
    serial: u64,
    offer: Offer,
    in_flight: u32,
    is_slow: bool,
    is_full: bool,
    /// [`Pool::given`] when it was chosen last.
    chosen_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    pool: PoolId,
    member: MemberKey,
    serial: u64,
    is_cancelled: bool,
}

impl Pools {
    /// The pools of this core, one of `cores`.
    pub fn new(core: usize, cores: usize, bounds: Bounds) -> Pools {
        let mut running = CoreSet::EMPTY;
        (0..cores).for_each(|core| running.insert(core));
        Pools {
            core,
            bounds,
            cores: running,
            slots: Vec::new(),
            by_pattern: HashMap::new(),
            in_flight: HashMap::default(),
            serial: 0,
        }
    }

    /// How many pools there are.
    pub fn patterns_len(&self) -> usize {
        self.by_pattern.len()
    }

    /// How many members all pools have together.
    pub fn members_len(&self) -> usize {
        let pools = self.slots.iter().filter_map(|slot| slot.pool.as_ref());
        pools.map(|pool| pool.members.len()).sum()
    }

    /// How many places the table of pools has.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// The pattern of the pool at a place, and how many members it has.
    pub fn at(&self, place: usize) -> Option<(&[u8], usize)> {
        let pool = self.slots.get(place)?.pool.as_ref()?;
        Some((&pool.pattern, pool.members.len()))
    }

    /// The pool at a place, for operators.
    pub fn view(&self, place: usize) -> Option<PoolView> {
        let pool = self.slots.get(place)?.pool.as_ref()?;
        let members = pool.members.iter().map(|member| MemberView {
            key: member.key,
            offer: member.offer,
            in_flight: member.in_flight,
            is_slow: member.is_slow,
            is_full: member.is_full,
        });
        Some(PoolView {
            pattern: pool.pattern.clone(),
            waiting: pool.waiting.len(),
            members: members.collect(),
        })
    }

    /// How many calls members have.
    pub fn in_flight_len(&self) -> usize {
        self.in_flight.len()
    }

    /// A service registers a pattern, or changes its offer.
    ///
    /// # Errors
    /// There are too many pools or members.
    pub fn join(
        &mut self,
        pattern: &[u8],
        key: MemberKey,
        offer: Offer,
        terms_of: impl FnOnce() -> (Terms, usize),
    ) -> Result<Joined, JoinFailure> {
        let known = self.by_pattern.get(pattern).copied();
        let is_new = known.is_none();
        let slot = match known {
            Some(slot) => slot,
            None if self.by_pattern.len() >= self.bounds.pools as usize => {
                return Err(JoinFailure::TooManyPatterns);
            }
            None => self.create(pattern, terms_of()),
        };
        let members_max = self.bounds.members as usize;
        self.serial += 1;
        let serial = self.serial;
        let entry = &mut self.slots[slot as usize];
        let id = PoolId {
            slot,
            generation: entry.generation,
        };
        let pool = entry.pool.as_mut().expect("by_pattern names pools");
        let known = pool.members.iter().position(|member| member.key == key);
        match known {
            Some(at) => pool.members[at].offer = offer,
            None if pool.members.len() >= members_max => return Err(JoinFailure::TooManyMembers),
            None => pool.members.push(Member {
                key,
                serial,
                offer,
                in_flight: 0,
                is_slow: false,
                is_full: false,
                chosen_at: 0,
            }),
        }
        let is_known = pool.unknown_to.is_empty();
        if !is_known {
            pool.unconfirmed.push(key);
        }
        Ok(Joined {
            pool: id,
            is_new,
            is_known,
        })
    }

    fn create(&mut self, pattern: &[u8], (terms, row): (Terms, usize)) -> u32 {
        let unknown_to = self.cores.without(CoreSet::of(self.core));
        let pool = Pool {
            pattern: pattern.into(),
            terms,
            row,
            members: Vec::new(),
            given: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            unknown_to,
            unconfirmed: Vec::new(),
        };
        let free = self.slots.iter().position(|slot| slot.pool.is_none());
        let slot = free.unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                pool: None,
            });
            self.slots.len() - 1
        });
        self.slots[slot].pool = Some(pool);
        let slot = u32::try_from(slot).expect("as many as Bounds::pools at most");
        self.by_pattern.insert(pattern.into(), slot);
        slot
    }

    /// A core knows a pool. Returns the members that have waited for this, if all cores know it now.
    pub fn known_by(&mut self, id: PoolId, core: usize) -> Vec<MemberKey> {
        let Some(pool) = self.pool(id) else {
            return Vec::new();
        };
        pool.unknown_to = pool.unknown_to.without(CoreSet::of(core));
        pool.take_confirmed()
    }

    /// The pattern of a pool.
    pub fn pattern(&mut self, id: PoolId) -> Option<&[u8]> {
        self.pool(id).map(|pool| &*pool.pattern)
    }

    /// The row of `[[services]]` of a pool.
    pub fn row(&mut self, id: PoolId) -> Option<usize> {
        self.pool(id).map(|pool| pool.row)
    }

    /// A service leaves a pattern. The pool ends with its last member.
    pub fn leave(&mut self, pattern: &[u8], key: MemberKey) -> Option<RemovedPool> {
        let slot = *self.by_pattern.get(pattern)?;
        let generation = self.slots.get(slot as usize)?.generation;
        self.leave_pool(PoolId { slot, generation }, key)
    }

    /// The same, for a pool.
    fn leave_pool(&mut self, id: PoolId, key: MemberKey) -> Option<RemovedPool> {
        let pool = self.pool(id)?;
        pool.members.retain(|member| member.key != key);
        pool.unconfirmed.retain(|member| *member != key);
        if !pool.members.is_empty() {
            return None;
        }
        let entry = self.slots.get_mut(id.slot as usize)?;
        let pool = entry.pool.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.by_pattern.remove(&pool.pattern);
        Some(RemovedPool {
            pool: id,
            pattern: pool.pattern,
            row: pool.row,
            waiting: pool.waiting.into(),
        })
    }

    /// Gives a call to a member, or lets it wait.
    pub fn call(&mut self, call: Box<ServiceCall>) -> Called {
        self.give_or_keep(call, QueueEnd::Last)
    }

    /// The same for a call that a member has not received. It is older than all waiting calls.
    pub fn call_again(&mut self, call: Box<ServiceCall>) -> Called {
        self.give_or_keep(call, QueueEnd::First)
    }

    fn give_or_keep(&mut self, call: Box<ServiceCall>, place: QueueEnd) -> Called {
        let Some(id) = call.pool else {
            return Called::NoPool(call);
        };
        let Some(pool) = self
            .slots
            .get_mut(id.slot as usize)
            .filter(|slot| slot.generation == id.generation)
            .and_then(|slot| slot.pool.as_mut())
        else {
            return Called::NoPool(call);
        };
        if (pool.waiting.is_empty() || place == QueueEnd::First)
            && let Some(member) = pool.choose(call.caller)
        {
            let flight = pool.give(member, id, call.id);
            if let (Some(call), Some(flight)) = (call.id, flight) {
                self.in_flight.insert(call, flight);
            }
            return Called::Given(pool.members[member].key, call);
        }
        let has_room = pool.waiting.len() < pool.terms.queue_calls as usize
            && pool.waiting_bytes + call.bytes() <= pool.terms.queue_bytes as usize;
        if !has_room || call.id.is_none() {
            return Called::Full(call);
        }
        pool.waiting_bytes += call.bytes();
        match place {
            QueueEnd::First => pool.waiting.push_front(call),
            QueueEnd::Last => pool.waiting.push_back(call),
        }
        Called::Waits
    }

    /// Takes the next call that waits, if a member has room for it. A call whose deadline has come is given to none.
    pub fn next(&mut self, id: PoolId, now: Uptime) -> Option<Next> {
        let pool = self
            .slots
            .get_mut(id.slot as usize)
            .filter(|slot| slot.generation == id.generation)?
            .pool
            .as_mut()?;
        let member = pool.choose(pool.waiting.front()?.caller)?;
        let call = pool.waiting.pop_front()?;
        pool.waiting_bytes -= call.bytes();
        if call.deadline <= now {
            return Some(Next::Overdue(call));
        }
        let flight = pool.give(member, id, call.id);
        if let (Some(call), Some(flight)) = (call.id, flight) {
            self.in_flight.insert(call, flight);
        }
        Some(Next::Given(pool.members[member].key, call))
    }

    /// A member has answered a call, or has stopped working on it, or its time after `$cancel` is over. Returns the
    /// pool, which may have room now. The end of a cancelled call is no sign that the member answers in time.
    pub fn done(&mut self, call: CallId) -> Option<PoolId> {
        let flight = self.end_flight(call, |member, flight| member.is_slow &= flight.is_cancelled)?;
        self.pool(flight.pool).is_some().then_some(flight.pool)
    }

    /// A member has not received a call or an event. It gets no more: for good if it has left, else until it has room.
    pub fn take_back(&mut self, call: &ServiceCall, key: MemberKey, why: NotDelivered) -> TakenBack {
        let landed = call.id.and_then(|id| self.end_flight(id, |_, _| {}));
        let gone = call.pool.and_then(|id| match why {
            NotDelivered::HasLeft => self.leave_pool(id, key),
            NotDelivered::IsFull => {
                let pool = self.pool(id)?;
                if let Some(member) = pool.members.iter_mut().find(|member| member.key == key) {
                    member.is_full = true;
                }
                None
            }
        });
        TakenBack {
            is_open: call.id.is_none() || landed.is_some_and(|flight| !flight.is_cancelled),
            gone,
        }
    }

    /// The outbox of a member has room again. Returns the pool, which may have room now.
    pub fn has_room_again(&mut self, pattern: &[u8], key: MemberKey) -> Option<PoolId> {
        let slot = *self.by_pattern.get(pattern)?;
        let entry = self.slots.get_mut(slot as usize)?;
        let generation = entry.generation;
        let mut members = entry.pool.as_mut()?.members.iter_mut();
        let member = members.find(|member| member.key == key)?;
        member.is_full = false;
        Some(PoolId { slot, generation })
    }

    /// The caller of a call has disconnected, or its deadline has come: then the member that has the call is slow.
    pub fn cancel(&mut self, call: CallId, pool: PoolId, why: GivenUp) -> Cancelled {
        if let Some(flight) = self.in_flight.get_mut(&call) {
            if std::mem::replace(&mut flight.is_cancelled, true) {
                return Cancelled::Unknown;
            }
            let flight = *flight;
            if let Some(member) = self.member_of(flight) {
                member.is_slow |= why == GivenUp::TimedOut;
            }
            return Cancelled::Given(flight.member);
        }
        let Some(pool) = self.pool(pool) else {
            return Cancelled::Unknown;
        };
        let mut waiting = pool.waiting.iter();
        let Some(at) = waiting.position(|waiting| waiting.id == Some(call)) else {
            return Cancelled::Unknown;
        };
        let Some(call) = pool.waiting.remove(at) else {
            return Cancelled::Unknown;
        };
        pool.waiting_bytes -= call.bytes();
        Cancelled::Waited(call)
    }

    fn end_flight(&mut self, call: CallId, note: impl FnOnce(&mut Member, Flight)) -> Option<Flight> {
        let flight = self.in_flight.remove(&call)?;
        if let Some(member) = self.member_of(flight) {
            member.in_flight = member.in_flight.saturating_sub(1);
            note(member, flight);
        }
        Some(flight)
    }

    /// The member that has a call, if it has not left the pool since.
    fn member_of(&mut self, flight: Flight) -> Option<&mut Member> {
        let mut members = self.pool(flight.pool)?.members.iter_mut();
        members.find(|member| member.serial == flight.serial)
    }

    /// A core has stopped. Its members leave all pools.
    pub fn note_stopped(&mut self, core: usize) -> Stopped {
        self.cores = self.cores.without(CoreSet::of(core));
        let mut stopped = Stopped::default();
        let of_core = |_: &CallId, flight: &mut Flight| flight.member.core == core;
        let lost = self.in_flight.extract_if(of_core);
        let waited_for = lost.filter(|(_, flight)| !flight.is_cancelled);
        stopped.lost.extend(waited_for.map(|(call, _)| call));
        for slot in 0..self.slots.len() {
            let generation = self.slots[slot].generation;
            let Some(pool) = &mut self.slots[slot].pool else {
                continue;
            };
            pool.unknown_to = pool.unknown_to.without(CoreSet::of(core));
            pool.unconfirmed.retain(|member| member.core != core);
            stopped.confirmed.extend(
                pool.take_confirmed()
                    .into_iter()
                    .map(|key| (slot_id(slot, generation), key)),
            );
            let gone = pool.members.iter().find(|member| member.key.core == core);
            let Some(key) = gone.map(|member| member.key) else {
                continue;
            };
            pool.members
                .retain(|member| member.key.core != core || member.key == key);
            stopped
                .gone
                .extend(self.leave_pool(slot_id(slot, generation), key));
        }
        stopped
    }

    /// The rows of `[[services]]` have changed.
    pub fn assign_terms(&mut self, terms_of: impl Fn(&[u8]) -> (Terms, usize)) {
        for pool in self.slots.iter_mut().filter_map(|slot| slot.pool.as_mut()) {
            (pool.terms, pool.row) = terms_of(&pool.pattern);
        }
    }

    /// For each row of `[[services]]` with calls that wait: the row, and how many there are.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, usize)> {
        let pools = self.slots.iter().filter_map(|slot| slot.pool.as_ref());
        pools.map(|pool| (pool.row, pool.waiting.len()))
    }

    fn pool(&mut self, id: PoolId) -> Option<&mut Pool> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        (slot.generation == id.generation).then_some(slot.pool.as_mut()?)
    }
}

/// A pool without members.
#[derive(Debug)]
pub struct RemovedPool {
    /// Its token, which is no longer valid.
    pub pool: PoolId,
    /// The pattern.
    pub pattern: Box<[u8]>,
    /// The row of `[[services]]`.
    pub row: usize,
    /// The calls that have waited.
    pub waiting: Vec<Box<ServiceCall>>,
}

/// Why the caller no longer waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// The caller has disconnected.
    CallerGone,
    /// It has not come in time.
    TimedOut,
}

/// The calls and pools that end with a core.
#[derive(Debug, Default)]
pub struct Stopped {
    /// The calls that its members had, and that were not cancelled.
    pub lost: Vec<CallId>,
    /// The pools that have no members any more.
    pub gone: Vec<RemovedPool>,
    /// The members whose pool all cores know now.
    pub confirmed: Vec<(PoolId, MemberKey)>,
}

fn slot_id(slot: usize, generation: u32) -> PoolId {
    PoolId {
        slot: u32::try_from(slot).expect("as many as Bounds::pools at most"),
        generation,
    }
}

impl Pool {
    /// The member for the next call: the member with the fewest calls in flight for its weight; of several, the member
    /// that was chosen the longest time ago. In a sticky pool, the member to which the caller's number gives the
    /// highest rank.
    fn choose(&self, caller: u64) -> Option<usize> {
        let with_room = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.has_room());
        let chosen = if self.terms.is_sticky {
            with_room.max_by_key(|(_, member)| rank(caller, member.serial))
        } else {
            with_room.min_by(|(_, one), (_, other)| {
                let load = |of: &Member, by: &Member| u64::from(of.in_flight) * u64::from(by.offer.weight);
                load(one, other)
                    .cmp(&load(other, one))
                    .then(one.chosen_at.cmp(&other.chosen_at))
            })
        };
        chosen.map(|(at, _)| at)
    }

    /// Gives a member a call, which is in flight from now on, or an event.
    fn give(&mut self, member: usize, pool: PoolId, call: Option<CallId>) -> Option<Flight> {
        self.given += 1;
        let member = &mut self.members[member];
        member.chosen_at = self.given;
        call?;
        member.in_flight += 1;
        Some(Flight {
            pool,
            member: member.key,
            serial: member.serial,
            is_cancelled: false,
        })
    }

    fn take_confirmed(&mut self) -> Vec<MemberKey> {
        if self.unknown_to.is_empty() {
            std::mem::take(&mut self.unconfirmed)
        } else {
            Vec::new()
        }
    }
}

impl Member {
    fn has_room(&self) -> bool {
        let window = if self.is_slow {
            (self.offer.window / 2).max(1)
        } else {
            self.offer.window
        };
        !self.is_full && self.in_flight < window
    }
}

/// How well a member suits a caller: a number that looks random, and is the same each time. So each caller has an order
/// of the members of its own, and a member that comes or goes changes the choice for its own callers only.
fn rank(caller: u64, member: u64) -> u64 {
    let mixed = (caller ^ member.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ mixed >> 31).wrapping_mul(0x94D0_49BB_1331_11EB) ^ mixed >> 29
}

#[cfg(test)]
impl Pools {
    /// The calls in flight of each member of a pattern.
    pub(super) fn loads(&self, pattern: &[u8]) -> Vec<(MemberKey, u32)> {
        let pool = self
            .by_pattern
            .get(pattern)
            .and_then(|slot| self.slots[*slot as usize].pool.as_ref());
        let members = pool.iter().flat_map(|pool| pool.members.iter());
        members.map(|member| (member.key, member.in_flight)).collect()
    }

    /// The first invariant that does not hold, if there is one.
    pub(crate) fn broken_invariant(&self) -> Option<String> {
        for (slot, entry) in self.slots.iter().enumerate() {
            let Some(pool) = &entry.pool else { continue };
            let id = slot_id(slot, entry.generation);
            if !pool.waiting.is_empty() && pool.members.iter().any(Member::has_room) {
                return Some(format!("calls wait, and a member has room: {pool:?}"));
            }
            for member in &pool.members {
                let of_member = |flight: &&Flight| flight.pool == id && flight.serial == member.serial;
                let real = self.in_flight.values().filter(of_member).count();
                if member.in_flight as usize != real {
                    return Some(format!("{real} calls are in flight of {member:?}"));
                }
            }
        }
        None
    }

    /// How many calls wait for members of a pattern.
    pub(super) fn waiting_for(&self, pattern: &[u8]) -> usize {
        let pool = self
            .by_pattern
            .get(pattern)
            .and_then(|slot| self.slots[*slot as usize].pool.as_ref());
        pool.map_or(0, |pool| pool.waiting.len())
    }
}
