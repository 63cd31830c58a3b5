//! The tables against naive models, under random events.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::*;
use crate::clock::Uptime;
use crate::config::services::Terms;

/// Random numbers that a seed replays.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

/// Runs a test with many seeds; a failure names its seed.
fn with_seeds(test: impl Fn(&mut Random) + std::panic::RefUnwindSafe) {
    for seed in 1..=200_u64 {
        let run = std::panic::catch_unwind(|| test(&mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))));
        if let Err(panic) = run {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn place(owner: usize, row: usize) -> Entry {
    let pool = PoolId {
        slot: 0,
        generation: 0,
    };
    Entry { owner, pool, row }
}

fn reply() -> ReplyTo {
    ReplyTo::Client(Token::new(b"7"))
}

/// The model keeps all open calls in a list, in the order in which they began.
#[test]
fn every_open_call_ends_once_by_whatever_comes_first() {
    with_seeds(|random| {
        let bounds = OpenCallsMax {
            of_core: 12,
            of_connection: 4,
            bytes_of_core: 100,
        };
        let mut calls = OpenCalls::new(3, bounds);
        let mut model: Vec<(CallId, usize, usize, Uptime)> = Vec::new();
        let mut bytes_of: HashMap<CallId, usize> = HashMap::new();
        let mut ended: Vec<CallId> = Vec::new();
        let mut now_ms = 0;
        for _ in 0..400 {
            let now = Uptime::from_ms(now_ms);
            match random.below(8) {
                0..4 => {
                    let (connection, owner) = (random.below(5), random.below(3));
                    let timeout = Duration::from_millis([5, 20, 60][random.below(3)]);
                    let bytes = random.below(30);
                    let open: usize = model.iter().map(|(id, ..)| bytes_of[id]).sum();
                    let place = place(owner, 0);
                    let begun = calls.begin(connection, reply(), place, timeout, bytes, (now, 0));
                    let of_connection = model.iter().filter(|(_, of, ..)| *of == connection).count();
                    let has_room =
                        model.len() < 12 && of_connection < 4 && (model.is_empty() || open + bytes <= 100);
                    assert_eq!(begun.is_ok(), has_room);
                    if let Ok(id) = begun {
                        assert_eq!(id.core(), 3);
                        bytes_of.insert(id, bytes);
                        assert!(!ended.contains(&id), "a name is never given twice");
                        model.push((id, connection, owner, now + timeout));
                    }
                }
                4 if !model.is_empty() => {
                    let (id, connection, ..) = model.remove(random.below(model.len()));
                    assert_eq!(calls.take(id).map(|open| open.connection), Some(connection));
                    ended.push(id);
                }
                5 => {
                    now_ms += random.below(15) as u64;
                    let now = Uptime::from_ms(now_ms);
                    while let Some((id, _)) = calls.take_overdue(now) {
                        let at = model.iter().position(|(of, ..)| *of == id).unwrap();
                        assert!(model.remove(at).3 <= now);
                        ended.push(id);
                    }
                    assert!(model.iter().all(|(.., deadline)| *deadline > now));
                }
                6 => {
                    let connection = random.below(5);
                    while let Some((id, open)) = calls.take_of_connection(connection) {
                        assert_eq!(open.connection, connection);
                        model.retain(|(of, ..)| *of != id);
                        ended.push(id);
                    }
                    assert!(!calls.has_connection(connection));
                    assert!(model.iter().all(|(_, of, ..)| *of != connection));
                }
                _ => {
                    let owner = random.below(40);
                    let taken = calls.take_of_owner(owner);
                    assert!(taken.iter().all(|open| open.place.owner == owner));
                    let is_of = |(_, _, of, _): &mut (CallId, usize, usize, Uptime)| *of == owner;
                    let expected: Vec<_> = model.extract_if(.., is_of).map(|(id, ..)| id).collect();
                    assert_eq!(taken.len(), expected.len());
                    ended.extend(expected);
                }
            }
            assert!(ended.iter().all(|id| calls.take(*id).is_none()));
            assert_eq!((calls.len(), calls.is_empty()), (model.len(), model.is_empty()));
            let open: usize = model.iter().map(|(id, ..)| bytes_of[id]).sum();
            assert_eq!(calls.bytes(), open);
            let next = model.iter().map(|(.., deadline)| *deadline).min();
            assert_eq!(calls.next_deadline(), next.unwrap_or(Uptime::NEVER));
        }
    });
}

fn key(number: usize) -> MemberKey {
    MemberKey {
        core: number % 3,
        connection: number,
    }
}

/// A pool as a naive model has it: members in the order in which they have joined, and the calls of each.
#[derive(Default)]
struct Model {
    members: Vec<(MemberKey, Offer, Vec<CallId>, bool)>,
    waiting: VecDeque<CallId>,
    /// Calls of members that have left, which are told done all the same.
    of_left: Vec<CallId>,
    /// For each member when it was chosen last.
    chosen: HashMap<MemberKey, u64>,
    clock: u64,
}

impl Model {
    fn window(offer: Offer, is_slow: bool) -> usize {
        if is_slow {
            (offer.window as usize / 2).max(1)
        } else {
            offer.window as usize
        }
    }

    fn has_room(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|(_, offer, calls, is_slow)| calls.len() < Model::window(*offer, *is_slow))
    }

    /// Checks that the member that was chosen is the best one, and gives it the call.
    fn give(&mut self, chosen: MemberKey, call: CallId) {
        let load = |(_, offer, calls, _): &(MemberKey, Offer, Vec<CallId>, bool)| {
            calls.len() as f64 / f64::from(offer.weight)
        };
        let with_room = self
            .members
            .iter()
            .filter(|(_, offer, calls, is_slow)| calls.len() < Model::window(*offer, *is_slow));
        let best = with_room
            .map(|member| (load(member), self.chosen.get(&member.0).copied().unwrap_or(0)))
            .min_by(|one, other| one.partial_cmp(other).unwrap())
            .unwrap();
        let at = self.members.iter().position(|(key, ..)| *key == chosen).unwrap();
        let member = &mut self.members[at];
        assert!(
            member.2.len() < Model::window(member.1, member.3),
            "within its window"
        );
        let found = (load(member), self.chosen.get(&chosen).copied().unwrap_or(0));
        assert_eq!(found, best, "fewest calls for its weight, then the longest ago");
        member.2.push(call);
        self.clock += 1;
        self.chosen.insert(chosen, self.clock);
    }

    fn end_flight(&mut self, call: CallId) {
        for (_, _, calls, _) in &mut self.members {
            calls.retain(|of| *of != call);
        }
        self.of_left.retain(|of| *of != call);
    }
}

#[test]
fn members_get_calls_by_load_and_weight_within_their_windows_and_none_is_lost() {
    with_seeds(|random| {
        let terms = Terms {
            queue_calls: 6,
            ..Terms::default()
        };
        let bounds = PoolsMax { pools: 2, members: 4 };
        let mut pools = Pools::new(0, 1, bounds);
        let (mut model, mut next) = (Model::default(), 0_u32);
        let (mut pool, now) = (None, Uptime::from_ms(5));
        let mut overdue = Vec::new();
        // A call that was cancelled counts in the window of its member until it is done.
        let mut cancelled: BTreeSet<CallId> = BTreeSet::new();
        for _ in 0..500 {
            match random.below(10) {
                0 | 1 => {
                    let (key, offer) = (
                        key(random.below(6)),
                        Offer {
                            weight: 1 << random.below(3),
                            window: 1 + u32::try_from(random.below(4)).unwrap(),
                        },
                    );
                    let is_known = model.members.iter().any(|(of, ..)| *of == key);
                    let joined = pools.join(b"p", key, offer, || (terms, 5));
                    assert_eq!(joined.is_ok(), is_known || model.members.len() < 4);
                    if let Ok(joined) = joined {
                        assert!(joined.is_known);
                        assert_eq!(joined.is_new, model.members.is_empty());
                        pool = Some(joined.pool);
                        match model.members.iter_mut().find(|(of, ..)| *of == key) {
                            Some(member) => member.1 = offer,
                            None => {
                                model.members.push((key, offer, Vec::new(), false));
                                model.chosen.remove(&key);
                            }
                        }
                    }
                }
                2 => {
                    let key = key(random.below(6));
                    let gone = pools.leave(b"p", key);
                    if let Some(at) = model.members.iter().position(|(of, ..)| *of == key) {
                        model.of_left.extend(model.members.remove(at).2);
                        assert_eq!(gone.is_some(), model.members.is_empty());
                    }
                    if let Some(gone) = gone {
                        let ids: Vec<_> = gone.waiting.iter().filter_map(|call| call.id).collect();
                        assert_eq!(ids, Vec::from(std::mem::take(&mut model.waiting)));
                        assert_eq!((gone.row, Some(gone.pool)), (5, pool));
                    }
                }
                3..6 => {
                    next += 1;
                    let id = CallId::new(1, next, 0);
                    let call = Box::new(ServiceCall {
                        id: Some(id),
                        pool,
                        caller: u64::from(next),
                        deadline: Uptime::from_ms(if random.below(6) == 0 { 5 } else { 6 }),
                        ..ServiceCall::default()
                    });
                    if call.deadline <= now {
                        overdue.push(id);
                    }
                    let (is_empty, had_room) = (model.members.is_empty(), model.has_room());
                    match pools.call(call) {
                        Called::Given(member, _) => {
                            assert!(model.waiting.is_empty());
                            model.give(member, id);
                        }
                        Called::Waits => {
                            assert!(!had_room);
                            model.waiting.push_back(id);
                        }
                        Called::NoPool(_) => assert!(is_empty),
                        Called::Full(_) => assert!(!had_room && model.waiting.len() == 6),
                    }
                }
                6 | 7 => {
                    let all = model.members.iter().flat_map(|(_, _, calls, _)| calls);
                    let open: Vec<CallId> = all.chain(&model.of_left).copied().collect();
                    if let Some(call) = open.get(random.below(open.len().max(1))) {
                        if let Some(member) = model
                            .members
                            .iter_mut()
                            .find(|(_, _, calls, _)| calls.contains(call))
                        {
                            member.3 &= cancelled.contains(call);
                        }
                        pools.done(*call);
                        model.end_flight(*call);
                        assert_eq!(pools.done(*call), None, "it is done once");
                    }
                }
                _ => {
                    let Some(pool) = pool else { continue };
                    let all = model.members.iter().flat_map(|(_, _, calls, _)| calls);
                    let open: Vec<CallId> = all.chain(&model.waiting).copied().collect();
                    let Some(call) = open.get(random.below(open.len().max(1))).copied() else {
                        continue;
                    };
                    let why = [GivenUp::TimedOut, GivenUp::CallerGone][random.below(2)];
                    match pools.cancel(call, pool, why) {
                        Cancelled::Given(member) => {
                            assert!(cancelled.insert(call), "it is cancelled once");
                            let found = model
                                .members
                                .iter_mut()
                                .find(|(_, _, calls, _)| calls.contains(&call));
                            let found = found.unwrap();
                            assert_eq!(found.0, member);
                            found.3 |= why == GivenUp::TimedOut;
                        }
                        Cancelled::Waited(waited) => {
                            assert_eq!(waited.id, Some(call));
                            model.waiting.retain(|of| *of != call);
                        }
                        Cancelled::Unknown => assert!(cancelled.contains(&call), "{call:?} is open"),
                    }
                    assert!(matches!(pools.cancel(call, pool, why), Cancelled::Unknown));
                }
            }
            if let Some(pool) = pool {
                while let Some(next) = pools.next(pool, now) {
                    let (id, member) = match next {
                        Next::Given(member, call) => (call.id.unwrap(), Some(member)),
                        Next::Overdue(call) => (call.id.unwrap(), None),
                    };
                    assert_eq!(model.waiting.pop_front(), Some(id), "in their order");
                    assert_eq!(member.is_none(), overdue.contains(&id));
                    if let Some(member) = member {
                        model.give(member, id);
                    }
                }
            }
            assert!(
                model.waiting.is_empty() || !model.has_room(),
                "nobody waits beside room"
            );
            let loads: BTreeMap<_, _> = pools
                .loads(b"p")
                .into_iter()
                .map(|(key, load)| (key.connection, load as usize))
                .collect();
            let expected: BTreeMap<_, _> = model
                .members
                .iter()
                .map(|(key, _, calls, _)| (key.connection, calls.len()))
                .collect();
            assert_eq!(loads, expected);
            assert_eq!(pools.waiting_for(b"p"), model.waiting.len());
            assert_eq!(pools.members_len(), model.members.len());
        }
    });
}

#[test]
fn a_call_that_a_member_has_not_got_goes_to_another_one() {
    let mut pools = Pools::new(0, 1, PoolsMax { pools: 1, members: 9 });
    let offer = Offer { weight: 1, window: 2 };
    let mut pool = None;
    for number in [1, 2] {
        let joined = pools
            .join(b"p", key(number), offer, || (Terms::default(), 0))
            .unwrap();
        pool = Some(joined.pool);
    }
    let id = CallId::new(0, 1, 1);
    let call = Box::new(ServiceCall {
        id: Some(id),
        pool,
        ..ServiceCall::default()
    });
    let Called::Given(first, call) = pools.call(call) else {
        panic!("there is room")
    };
    let back = pools.take_back(&call, first, NotDelivered::HasLeft);
    assert!(back.is_open && back.gone.is_none());
    let Called::Given(second, call) = pools.call_again(call) else {
        panic!("there is room")
    };
    assert_ne!(first, second);
    assert_eq!(pools.loads(b"p"), [(second, 1)]);
    let back = pools.take_back(&call, second, NotDelivered::HasLeft);
    assert!(back.is_open && back.gone.is_some(), "it was the last one");
    assert!(matches!(pools.call_again(call), Called::NoPool(_)));
    assert_eq!((pools.patterns_len(), pools.in_flight_len()), (0, 0));
}

fn call_of(pool: PoolId, number: u32) -> Box<ServiceCall> {
    Box::new(ServiceCall {
        id: Some(CallId::new(0, number, 1)),
        pool: Some(pool),
        deadline: Uptime::NEVER,
        ..ServiceCall::default()
    })
}

#[test]
fn a_call_that_was_cancelled_on_its_way_is_given_to_no_member() {
    for why in [NotDelivered::HasLeft, NotDelivered::IsFull] {
        let mut pools = Pools::new(0, 1, PoolsMax { pools: 1, members: 9 });
        let offer = Offer { weight: 1, window: 2 };
        let mut join = |number| pools.join(b"p", key(number), offer, || (Terms::default(), 0));
        let pool = join(1).unwrap().pool;
        join(2).unwrap();
        let Called::Given(member, call) = pools.call(call_of(pool, 1)) else {
            panic!("there is room")
        };
        let cancelled = pools.cancel(call.id.unwrap(), pool, GivenUp::CallerGone);
        assert!(matches!(cancelled, Cancelled::Given(..)));
        let back = pools.take_back(&call, member, why);
        assert!(!back.is_open && back.gone.is_none(), "{why:?}");
        assert_eq!(pools.in_flight_len(), 0);
    }
}

#[test]
fn a_full_member_is_left_out_until_it_has_room_and_stays_slow() {
    let mut pools = Pools::new(0, 1, PoolsMax { pools: 1, members: 9 });
    let offer = Offer { weight: 1, window: 2 };
    let pool = pools
        .join(b"p", key(1), offer, || (Terms::default(), 0))
        .unwrap()
        .pool;
    // A call that is not answered in time makes it slow, so its window is one.
    let Called::Given(..) = pools.call(call_of(pool, 1)) else {
        panic!("there is room")
    };
    let slow = CallId::new(0, 1, 1);
    pools.cancel(slow, pool, GivenUp::TimedOut);
    assert_eq!(pools.loads(b"p"), [(key(1), 1)], "it may be at work on the call");
    pools.done(slow);
    let Called::Given(member, call) = pools.call(call_of(pool, 2)) else {
        panic!("there is room")
    };
    assert!(matches!(pools.call(call_of(pool, 3)), Called::Waits));
    assert!(pools.take_back(&call, member, NotDelivered::IsFull).is_open);
    assert!(matches!(pools.call_again(call), Called::Waits));
    let now = Uptime::from_ms(1);
    assert!(pools.next(pool, now).is_none(), "it is full");
    // Another member gets what comes, the oldest call first.
    pools.join(b"p", key(2), offer, || (Terms::default(), 0)).unwrap();
    for number in [2, 3] {
        let Some(Next::Given(member, call)) = pools.next(pool, now) else {
            panic!("another one has room")
        };
        assert_eq!((member, call.id), (key(2), Some(CallId::new(0, number, 1))));
    }
    assert!(matches!(pools.call(call_of(pool, 4)), Called::Waits));
    assert!(matches!(pools.call(call_of(pool, 5)), Called::Waits));
    assert_eq!(pools.has_room_again(b"p", key(1)), Some(pool));
    assert!(matches!(pools.next(pool, now), Some(Next::Given(..))));
    assert!(pools.next(pool, now).is_none(), "it is still slow");
}

#[test]
fn a_service_is_told_when_every_core_knows_its_pattern() {
    let mut pools = Pools::new(1, 3, PoolsMax { pools: 2, members: 9 });
    let offer = Offer { weight: 1, window: 2 };
    let join = |pools: &mut Pools, number| {
        pools
            .join(b"p", key(number), offer, || (Terms::default(), 0))
            .unwrap()
    };
    let first = join(&mut pools, 3);
    assert!(first.is_new && !first.is_known);
    assert!(!join(&mut pools, 4).is_new);
    assert!(pools.known_by(first.pool, 0).is_empty());
    assert_eq!(pools.known_by(first.pool, 2), [key(3), key(4)]);
    assert!(join(&mut pools, 5).is_known);
    // A core that stops needs to know nothing; its members are gone.
    let other = pools.join(b"q", key(3), offer, || (Terms::default(), 0)).unwrap();
    assert!(pools.known_by(other.pool, 0).is_empty());
    let stopped = pools.note_stopped(2);
    assert_eq!(stopped.confirmed, [(other.pool, key(3))]);
    assert_eq!(pools.loads(b"p"), [(key(3), 0), (key(4), 0)]);
    let stopped = pools.note_stopped(0);
    assert_eq!(
        stopped.gone.iter().map(|gone| &*gone.pattern).collect::<Vec<_>>(),
        [b"q"]
    );
    assert_eq!(pools.loads(b"p"), [(key(4), 0)]);
}

#[test]
fn a_caller_of_a_sticky_pool_keeps_its_member_while_others_come_and_go() {
    let mut pools = Pools::new(
        0,
        1,
        PoolsMax {
            pools: 1,
            members: 99,
        },
    );
    let offer = Offer {
        weight: 1,
        window: 1000,
    };
    let terms = Terms {
        is_sticky: true,
        ..Terms::default()
    };
    let mut pool = None;
    let mut join = |pools: &mut Pools, number| {
        pool = Some(pools.join(b"p", key(number), offer, || (terms, 0)).unwrap().pool);
        pool
    };
    for number in 0..8 {
        join(&mut pools, number);
    }
    let mut slot = 0;
    let mut chosen = |pools: &mut Pools, caller: u64| {
        slot += 1;
        let call = Box::new(ServiceCall {
            id: Some(CallId::new(0, slot, 0)),
            pool,
            caller: caller.wrapping_mul(0x2545_F491_4F6C_DD1D),
            ..ServiceCall::default()
        });
        match pools.call(call) {
            Called::Given(member, _) => member,
            other => panic!("{other:?}"),
        }
    };
    let before: Vec<_> = (0..200).map(|caller| chosen(&mut pools, caller)).collect();
    assert_eq!(
        before,
        (0..200)
            .map(|caller| chosen(&mut pools, caller))
            .collect::<Vec<_>>()
    );
    for number in 0..8 {
        let callers = before.iter().filter(|member| **member == key(number)).count();
        assert!((5..80).contains(&callers), "{callers} callers of member {number}");
    }
    pools.leave(b"p", key(3));
    for (caller, before) in before.iter().enumerate() {
        let after = chosen(&mut pools, caller as u64);
        assert!(
            after == *before || *before == key(3),
            "caller {caller} need not move"
        );
    }
}

#[test]
fn the_longest_pattern_of_a_name_is_found_as_a_naive_search_finds_it() {
    with_seeds(|random| {
        let mut directory = Directory::default();
        let mut model: BTreeMap<String, usize> = BTreeMap::new();
        let entry = |row| Entry {
            owner: row % 3,
            pool: PoolId {
                slot: u32::try_from(row).unwrap(),
                generation: 0,
            },
            row,
        };
        let text = |random: &mut Random| -> String {
            (0..1 + random.below(4))
                .map(|_| ["a", "b", "."][random.below(3)])
                .collect()
        };
        for row in 0..120 {
            let mut pattern = text(random);
            if random.below(2) == 0 {
                pattern.push('*');
            }
            match random.below(5) {
                0..3 => {
                    model.insert(pattern.clone(), row);
                    directory.insert(pattern.as_bytes(), entry(row));
                }
                3 => {
                    if let Some(row) = model.remove(&pattern) {
                        directory.remove(pattern.as_bytes(), row % 3, entry(row).pool);
                    }
                    // Of a pool that was there before, nothing is left to remove.
                    directory.remove(pattern.as_bytes(), 0, entry(9999).pool);
                }
                _ if random.below(8) == 0 => {
                    directory.remove_of_owner(1);
                    model.retain(|_, row| *row % 3 != 1);
                }
                _ => {}
            }
            let name = text(random);
            let expected = model.get(&name).or_else(|| {
                let covering = model.iter().filter_map(|(pattern, row)| {
                    let prefix = pattern.strip_suffix('*')?;
                    name.starts_with(prefix).then_some((prefix.len(), row))
                });
                covering.max_by_key(|(length, _)| *length).map(|(_, row)| row)
            });
            assert_eq!(
                directory.find(name.as_bytes()).map(|entry| entry.row),
                expected.copied(),
                "{name}"
            );
            assert_eq!(
                (directory.len(), directory.is_empty()),
                (model.len(), model.is_empty())
            );
        }
    });
    let mut directory = Directory::default();
    directory.insert(b"*", place(0, 0));
    assert!(directory.find(b"x").is_some());
    for name in ["#disconnect", "$history", "#", "$"] {
        assert!(
            directory.find(name.as_bytes()).is_none(),
            "{name} belongs to the server"
        );
    }
}
