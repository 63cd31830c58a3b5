use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert_eq, proptest};

use super::*;
use crate::broker::ChannelHasher;
use crate::config::QueueFull;
use crate::mqtt::Qos;
use crate::mqtt::sessions::Quotes;

const CORES: usize = 4;
const LIMITS: SubscriptionLimits = SubscriptionLimits {
    channels_max: 3,
    names_bytes_max: 1000,
};

fn options(qos: Qos) -> Options {
    Options {
        qos,
        no_local: false,
        retain_as_published: true,
        id: 7,
    }
}

/// Cores whose letters are carried when the test says so, and sessions that hold the publications they get.
struct World {
    cores: Vec<Shares>,
    /// By core and number: the serial number of the session, and the publications that it holds.
    sessions: BTreeMap<(usize, u32), (u64, Vec<Handed>)>,
    last_serial: u64,
    /// Sessions that have ended and have not left all of their groups; their numbers are not free.
    ending: Vec<(usize, SessionRef)>,
    /// The publications that members have acknowledged, and how often.
    done: BTreeMap<u32, u32>,
    published: u32,
}

const GROUPS: [&str; 3] = ["$share/g/a/+", "$share/g/b", "$share/h/a/+"];

impl World {
    fn new(in_flight_max: u16) -> World {
        let hasher = ChannelHasher::with_key(3);
        let bounds = Bounds {
            sessions_max: 100,
            queue_messages_max: 0,
            queue_bytes_max: 1000,
            queues_bytes_max: 1 << 20,
            in_flight_max,
            wills_bytes_max: 0,
            queue_full: QueueFull::DropNewest,
            queues_qos0: true,
        };
        let place = |core| CoreLocation {
            core,
            cores: CORES,
            hasher: hasher.clone(),
        };
        World {
            cores: (0..CORES).map(|core| Shares::new(&bounds, place(core))).collect(),
            sessions: BTreeMap::new(),
            last_serial: 0,
            ending: Vec::new(),
            done: BTreeMap::new(),
            published: 0,
        }
    }

    /// The session with this number of a core; it begins if there is none.
    fn session(&mut self, core: usize, number: u32) -> SessionRef {
        while self
            .ending
            .iter()
            .any(|&(at, old)| (at, old.number) == (core, number))
        {
            self.go_on();
        }
        let last_serial = &mut self.last_serial;
        let (serial, _) = self.sessions.entry((core, number)).or_insert_with(|| {
            *last_serial += 1;
            (*last_serial, Vec::new())
        });
        SessionRef {
            number,
            serial: *serial,
        }
    }

    fn join(&mut self, core: usize, number: u32, group: usize, qos: Qos) -> JoinOutcome {
        let session = self.session(core, number);
        self.cores[core].join(session, GROUPS[group], options(qos), LIMITS, 0)
    }

    /// The owner of a group gets a publication that matches. Its payload is its number.
    fn publish(&mut self, group: usize) {
        let owner = self.cores[0].owner(GROUPS[group]);
        let shares = &mut self.cores[owner];
        let number = shares.groups.by_text(GROUPS[group]);
        let payload = self.published.to_be_bytes();
        let content = Content {
            topic: b"a/b",
            properties: b"",
            payload: &payload,
            expires_at: None,
            is_utf8: false,
            quotes: Quotes::Kept,
        };
        let published = Outbound {
            qos: 1,
            retain: false,
        };
        if let Some(number) = number {
            shares.dispatch(number, u64::MAX, &content, published);
            self.published += 1;
        }
    }

    /// A turn of all cores, which may go through one group each.
    fn go_on(&mut self) {
        self.cores.iter_mut().for_each(|core| {
            core.tell_presence(1);
        });
        let cores = &mut self.cores;
        self.ending.retain(|&(core, session)| {
            let left = cores[core].end_some(session, 1);
            assert!(left <= 1);
            left == 1
        });
    }

    /// Carries the messages from one core to another, and gives sessions the publications that have come for
    /// them.
    fn carry(&mut self, from: usize, to: usize) {
        self.go_on();
        let messages = self.cores[from].take_messages(to);
        self.cores[to].receive(from, messages);
        for core in 0..CORES {
            while let Some(handed) = self.cores[core].next_handed() {
                let session = handed.tag.session;
                match self.sessions.get_mut(&(core, session.number)) {
                    Some((serial, held)) if *serial == session.serial => held.push(handed),
                    Some(_) | None => self.cores[core].give_back(handed.tag, handed.publication),
                }
            }
        }
    }

    fn carry_all(&mut self) {
        while !self.ending.is_empty()
            || self
                .cores
                .iter()
                .any(|core| core.has_messages() || core.has_work() || core.has_unreported())
        {
            for from in 0..CORES {
                for to in 0..CORES {
                    self.carry(from, to);
                }
            }
        }
        self.carry(0, 0);
    }

    fn settle(&mut self, core: usize, number: u32) {
        let Some((_, held)) = self.sessions.get_mut(&(core, number)) else {
            return;
        };
        if held.is_empty() {
            return;
        }
        let handed = held.remove(0);
        let payload = handed.publication.content().payload.try_into().unwrap();
        *self.done.entry(u32::from_be_bytes(payload)).or_default() += 1;
        self.cores[core].settle(handed.tag);
    }

    fn end(&mut self, core: usize, number: u32) {
        let Some((serial, held)) = self.sessions.remove(&(core, number)) else {
            return;
        };
        self.ending.push((core, SessionRef { number, serial }));
        for handed in held {
            self.cores[core].give_back(handed.tag, handed.publication);
        }
    }

    fn held(&self, core: usize, number: u32) -> usize {
        self.sessions[&(core, number)].1.len()
    }
}

#[test]
fn members_take_turns_and_those_with_less_in_flight_come_first() {
    let mut world = World::new(10);
    for core in 0..3 {
        world.join(core, 0, 0, Qos::AtLeastOnce);
    }
    world.carry_all();
    for _ in 0..6 {
        world.publish(0);
    }
    world.carry_all();
    assert_eq!([0, 1, 2].map(|core| world.held(core, 0)), [2, 2, 2]);
    for _ in 0..2 {
        world.settle(1, 0);
    }
    world.carry_all();
    for _ in 0..2 {
        world.publish(0);
    }
    world.carry_all();
    assert_eq!([0, 1, 2].map(|core| world.held(core, 0)), [2, 2, 2]);
}

#[test]
fn members_that_are_quick_take_turns() {
    let mut world = World::new(10);
    for core in 0..3 {
        world.join(core, 0, 0, Qos::AtLeastOnce);
    }
    world.carry_all();
    let mut turns = Vec::new();
    for _ in 0..6 {
        world.publish(0);
        world.carry_all();
        let core = (0..3).find(|&core| world.held(core, 0) == 1).unwrap();
        world.settle(core, 0);
        world.carry_all();
        turns.push(core);
    }
    assert_eq!(turns[..3], turns[3..]);
    assert_eq!(
        turns[..3].iter().collect::<std::collections::BTreeSet<_>>().len(),
        3
    );
}

#[test]
fn members_with_a_connection_come_first_and_the_others_have_what_those_cannot_take() {
    let mut world = World::new(2);
    for core in [1, 2] {
        world.join(core, 0, 0, Qos::AtLeastOnce);
    }
    let away = world.session(1, 0);
    world.cores[1].note_connected(away, false);
    world.carry_all();
    for expected in [(0, 1), (0, 2), (1, 2), (2, 2), (2, 2)] {
        world.publish(0);
        world.carry_all();
        assert_eq!((world.held(1, 0), world.held(2, 0)), expected);
    }
    let dropped: u64 = world.cores.iter_mut().map(|core| core.take_counts().1).sum();
    assert_eq!(dropped, 1);
}

/// Trap 50 of other brokers, and that the publication is the same.
#[test]
fn what_a_session_has_not_got_at_its_end_goes_to_another_member() {
    let mut world = World::new(10);
    world.join(3, 0, 1, Qos::ExactlyOnce);
    world.carry_all();
    for _ in 0..3 {
        world.publish(1);
    }
    world.carry_all();
    world.join(2, 5, 1, Qos::AtMostOnce);
    world.carry_all();
    world.settle(3, 0);
    world.end(3, 0);
    world.carry_all();
    assert_eq!(world.held(2, 5), 2);
    let handed = &world.sessions[&(2, 5)].1[0];
    assert_eq!(
        (
            handed.outbound.qos,
            handed.tag.published.qos,
            handed.publication.id()
        ),
        (0, 1, 7)
    );
    assert_eq!(handed.publication.content().payload, 1_u32.to_be_bytes());
    let redispatched: u64 = world.cores.iter_mut().map(|core| core.take_counts().0).sum();
    assert_eq!(redispatched, 2);
}

#[test]
fn an_answer_waits_for_the_owners_of_other_cores() {
    let mut world = World::new(10);
    let owner = world.cores[0].owner(GROUPS[0]);
    let other = (owner + 1) % CORES;
    let session = world.session(other, 0);
    let wait = world.cores[other].next_wait();
    let outcome = world.cores[other].join(session, GROUPS[0], options(Qos::AtMostOnce), LIMITS, wait);
    assert_eq!(outcome, JoinOutcome::Waits(SubscribeOutcome::New));
    world.cores[other].wait(wait, session, 9, 1, b"suback".to_vec());
    world.carry(other, owner);
    assert!(world.cores[other].next_answer().is_none());
    world.carry(owner, other);
    let answer = world.cores[other].next_answer().unwrap();
    assert_eq!(
        (answer.session, answer.address, &answer.packet[..]),
        (session, 9, &b"suback"[..])
    );
    let outcome = world.join(owner, 0, 0, Qos::AtMostOnce);
    assert_eq!(outcome, JoinOutcome::Is(SubscribeOutcome::New));
    let outcome = world.join(owner, 0, 0, Qos::AtLeastOnce);
    assert_eq!(outcome, JoinOutcome::Is(SubscribeOutcome::Replaced));
}

#[test]
fn the_answer_to_a_long_packet_counts_the_owners_that_have_answered_before_its_last_part() {
    let mut world = World::new(10);
    let owner = world.cores[0].owner(GROUPS[0]);
    let other = (owner + 1) % CORES;
    let session = world.session(other, 0);
    for is_answered in [true, false] {
        let wait = world.cores[other].next_wait();
        world.cores[other].join(session, GROUPS[0], options(Qos::AtMostOnce), LIMITS, wait);
        world.cores[other].begin_wait(wait);
        let carry = |world: &mut World| {
            world.carry(other, owner);
            world.carry(owner, other);
        };
        if is_answered {
            carry(&mut world);
            assert!(world.cores[other].next_answer().is_none());
        }
        world.cores[other].wait(wait, session, 9, 1, b"suback".to_vec());
        assert_eq!(world.cores[other].next_answer().is_some(), is_answered);
        carry(&mut world);
        assert_eq!(world.cores[other].next_answer().is_some(), !is_answered);
    }
    // A packet whose rest does not come leaves no state.
    let wait = world.cores[other].next_wait();
    world.cores[other].begin_wait(wait);
    world.cores[other].forget_wait(wait);
    assert!(world.cores[other].waiting.is_empty());
}

#[test]
fn answers_do_not_wait_for_a_core_that_has_stopped_and_its_members_are_gone() {
    let mut world = World::new(10);
    let owner = world.cores[0].owner(GROUPS[0]);
    let other = (owner + 1) % CORES;
    let session = world.session(other, 0);
    let wait = world.cores[other].next_wait();
    world.cores[other].join(session, GROUPS[0], options(Qos::AtMostOnce), LIMITS, wait);
    world.cores[other].wait(wait, session, 9, 1, Vec::new());
    world.carry(other, owner);
    assert_eq!(world.cores[owner].groups_len(), 1);
    world.cores[owner].note_stopped(other);
    assert_eq!(world.cores[owner].groups_len(), 0);
    world.cores[other].note_stopped(owner);
    assert!(world.cores[other].next_answer().is_some());
}

#[test]
fn a_session_has_as_many_memberships_as_filters() {
    let mut world = World::new(10);
    let session = world.session(0, 0);
    for (text, expected) in [
        ("$share/1/a", SubscribeOutcome::New),
        ("$share/2/a", SubscribeOutcome::New),
        ("$share/3/a", SubscribeOutcome::New),
        ("$share/4/a", SubscribeOutcome::TooMany { limit: 3 }),
        ("$share/2/a", SubscribeOutcome::Replaced),
    ] {
        let outcome = world.cores[0].join(session, text, options(Qos::AtMostOnce), LIMITS, 0);
        let outcome = match outcome {
            JoinOutcome::Is(outcome) | JoinOutcome::Waits(outcome) => outcome,
            JoinOutcome::Busy => unreachable!(),
        };
        assert_eq!(outcome, expected, "{text}");
    }
    let left = ["$share/2/a", "$share/2/a"].map(|text| world.cores[0].leave(session, text));
    assert_eq!(
        left,
        [
            UnsubscribeOutcome::Unsubscribed,
            UnsubscribeOutcome::NotSubscribed
        ]
    );
    assert_eq!(
        world.cores[0].texts_of(session, 0, usize::MAX),
        ["$share/1/a", "$share/3/a"].map(Box::from)
    );
    world.carry_all();
    let groups = |world: &World| world.cores.iter().map(Shares::groups_len).sum::<usize>();
    assert_eq!(groups(&world), 2);
    world.end(0, 0);
    world.carry_all();
    assert_eq!(groups(&world), 0);
}

#[test]
fn a_turn_tells_a_bounded_number_of_groups_of_connections_that_come_and_go_and_in_the_end_all_know_the_last()
{
    let mut world = World::new(10);
    let limits = SubscriptionLimits {
        channels_max: 100,
        ..LIMITS
    };
    let session = world.session(0, 0);
    for group in 0..10 {
        let text = format!("$share/{group}/a");
        world.cores[0].join(session, &text, options(Qos::AtMostOnce), limits, 0);
    }
    world.carry_all();
    world.cores[0].note_connected(session, false);
    assert_eq!(world.cores[0].tell_presence(4), 4);
    // The client resumes its session, and joins another group meanwhile, which comes before the others.
    world.cores[0].note_connected(session, true);
    world.cores[0].join(session, "$share/5+/a", options(Qos::AtMostOnce), limits, 0);
    let told = std::iter::from_fn(|| Some(world.cores[0].tell_presence(4)).filter(|&told| told > 0));
    assert_eq!(told.collect::<Vec<_>>(), [4, 4, 3]);
    assert!(!world.cores[0].has_unreported());
    world.carry_all();
    let known: Vec<bool> = world
        .cores
        .iter()
        .flat_map(|core| core.groups.connected_members())
        .collect();
    assert_eq!(known, [true; 11]);
}

#[test]
fn the_filter_of_a_group_is_subscribed_while_it_has_members() {
    let mut world = World::new(10);
    let owner = world.cores[0].owner(GROUPS[0]);
    world.join(owner, 0, 0, Qos::AtMostOnce);
    world.join(owner, 1, 0, Qos::AtMostOnce);
    let shares = &mut world.cores[owner];
    assert_eq!(
        shares.next_change(),
        Some(FilterChange::Added(0, GROUPS[0].into()))
    );
    assert_eq!(shares.next_change(), None);
    world.end(owner, 0);
    world.carry_all();
    assert_eq!(world.cores[owner].next_change(), None);
    world.end(owner, 1);
    world.carry_all();
    assert_eq!(world.cores[owner].next_change(), Some(FilterChange::Removed(0)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(usize, u32, usize),
    Leave(usize, u32, usize),
    End(usize, u32),
    Connect(usize, u32, bool),
    Publish(usize),
    Settle(usize, u32),
    Carry(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let session = || (0..CORES, 0_u32..2);
    prop_oneof![
        2 => (session(), 0_usize..3).prop_map(|((core, number), group)| Step::Join(core, number, group)),
        1 => (session(), 0_usize..3).prop_map(|((core, number), group)| Step::Leave(core, number, group)),
        1 => session().prop_map(|(core, number)| Step::End(core, number)),
        1 => (session(), any::<bool>()).prop_map(|((core, number), is)| Step::Connect(core, number, is)),
        4 => (0_usize..3).prop_map(Step::Publish),
        3 => session().prop_map(|(core, number)| Step::Settle(core, number)),
        8 => (0..CORES, 0..CORES).prop_map(|(from, to)| Step::Carry(from, to)),
    ]
}

proptest! {
    /// One session of each group stays throughout, so that no publication is without a member.
    #[test]
    fn each_publication_is_got_once_while_members_come_and_go_on_all_cores(steps in vec(step(), 1..300)) {
        let mut world = World::new(1000);
        for group in 0..GROUPS.len() {
            world.join(0, 9, group, Qos::AtLeastOnce);
        }
        world.carry_all();
        for step in steps {
            match step {
                Step::Join(core, number, group) => { world.join(core, number, group, Qos::ExactlyOnce); }
                Step::Leave(core, number, group) => {
                    let session = world.session(core, number);
                    world.cores[core].leave(session, GROUPS[group]);
                }
                Step::End(core, number) => world.end(core, number),
                Step::Connect(core, number, is_connected) => {
                    let session = world.session(core, number);
                    world.cores[core].note_connected(session, is_connected);
                }
                Step::Publish(group) => world.publish(group),
                Step::Settle(core, number) => world.settle(core, number),
                Step::Carry(from, to) => world.carry(from, to),
            }
        }
        world.carry_all();
        let all: Vec<_> = world.sessions.keys().copied().collect();
        for (core, number) in all {
            while world.held(core, number) > 0 {
                world.settle(core, number);
            }
        }
        world.carry_all();
        prop_assert_eq!(world.done.len(), world.published as usize);
        prop_assert_eq!(world.done.values().max().copied().unwrap_or(1), 1);
        for core in &mut world.cores {
            prop_assert_eq!(core.take_counts().1, 0);
            prop_assert_eq!(core.groups.in_flight(), 0);
            prop_assert_eq!(core.message_bytes, 0);
        }
    }
}
