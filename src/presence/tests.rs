//! Rooms against a naive model of them, with random changes; and what a large room costs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::event::{CHANGES_PER_EVENT_MAX, ENTRIES_MIN, EVENT_BYTES_MAX};
use super::rooms::PAGE_MEMBERS_MAX;
use super::{Client, Departure, Identity, InfoRefused, Joined, RoomSettings, Rooms};
use crate::app::SessionId;
use crate::broker::{ChannelHash, ChannelHasher};
use crate::clock::{Now, Uptime};

const GRACE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(100);

fn settings() -> RoomSettings {
    RoomSettings {
        members_max: u32::MAX,
        grace: GRACE,
        tick: TICK,
        sampled_over: 1000,
    }
}

fn session(number: u64) -> SessionId {
    let mut bytes = [7; SessionId::BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    SessionId::new(bytes)
}

/// A server with one owner core, and its subscribers' view of each room.
struct Fixture {
    rooms: Rooms,
    hasher: ChannelHasher,
    now_ms: u64,
    /// The members of each room, as the events have told them.
    told: BTreeMap<String, BTreeMap<String, Value>>,
    counts: BTreeMap<String, u64>,
    events: Vec<(String, Value)>,
    event_bytes: usize,
}

impl Fixture {
    fn new(settings: RoomSettings) -> Fixture {
        let hasher = ChannelHasher::with_key(7);
        Fixture {
            rooms: Rooms::new(settings, hasher.clone()),
            hasher,
            now_ms: 1_000_000,
            told: BTreeMap::new(),
            counts: BTreeMap::new(),
            events: Vec::new(),
            event_bytes: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            uptime: Uptime::from_ms(self.now_ms),
            unix_ms: self.now_ms,
        }
    }

    fn hash(&self, room: &str) -> ChannelHash {
        self.hasher.hash(room.as_bytes())
    }

    fn identity(&self, user: Option<&str>, session: SessionId) -> Identity {
        Identity::of(&self.hasher, user, &session)
    }

    fn join(&mut self, room: &str, user: Option<&str>, number: u64) -> Joined {
        let session = session(number);
        let client = Client { session, user };
        self.rooms
            .join(room.as_bytes(), self.hash(room), client, self.now())
    }

    fn leave(&mut self, room: &str, user: Option<&str>, number: u64, departure: Departure) {
        let session = session(number);
        let identity = self.identity(user, session);
        let key = (room.as_bytes(), self.hash(room));
        self.rooms
            .leave(key, session, identity, departure, self.now().uptime);
    }

    fn set_info(
        &mut self,
        room: &str,
        user: Option<&str>,
        number: u64,
        info: Option<&str>,
    ) -> Result<(), InfoRefused> {
        let session = session(number);
        let identity = self.identity(user, session);
        let key = (room.as_bytes(), self.hash(room));
        let info = info.map(str::as_bytes);
        self.rooms
            .set_info(key, session, identity, info, self.now().uptime)
    }

    /// Lets time pass, and takes the events.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.rooms.next_due() <= Uptime::from_ms(end) {
            self.now_ms = self.now_ms.max(self.rooms.next_due().as_ms());
            self.take_turn();
        }
        self.now_ms = end;
    }

    fn take_turn(&mut self) {
        let now = self.now().uptime;
        self.rooms.end_graces(now, usize::MAX);
        while let Some(event) = self.rooms.next_event(now, |_| true) {
            let room = String::from_utf8(event.channel.to_vec()).unwrap();
            if let Some(data) = event.data {
                self.event_bytes += data.len();
                let data: Value = serde_json::from_slice(data).unwrap();
                apply(self.told.entry(room.clone()).or_default(), &data);
                self.counts.insert(room.clone(), data["count"].as_u64().unwrap());
                self.events.push((room, data));
            }
            self.rooms.event_is_told(now);
        }
    }

    /// All members of a room by their keys, page by page, and their number.
    fn members(&mut self, room: &str, limit: usize) -> BTreeMap<String, Value> {
        let (mut members, mut after) = (BTreeMap::new(), 0);
        loop {
            let page = self.rooms.page(room.as_bytes(), self.hash(room), after, limit);
            let mut json = Vec::new();
            page.write_json(&mut json);
            let json: Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(json["count"], page.count);
            assert!(page.members.len() <= limit);
            for member in json["members"].as_array().unwrap() {
                assert!(members.insert(key_of(member), member.clone()).is_none(), "twice");
            }
            match page.next {
                Some(next) => after = next,
                None => {
                    assert_eq!(members.len(), page.count as usize);
                    return members;
                }
            }
        }
    }
}

/// A member's user, or the connection of one without a user.
fn key_of(member: &Value) -> String {
    match member["user"].as_str() {
        Some(user) => format!("user {user}"),
        None => format!("connection {}", member["connections"][0].as_str().unwrap()),
    }
}

/// As a client does it.
fn apply(members: &mut BTreeMap<String, Value>, event: &Value) {
    for member in event["joined"].as_array().unwrap() {
        assert!(
            members.insert(key_of(member), member.clone()).is_none(),
            "joined twice"
        );
    }
    for member in event
        .get("changed")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        assert!(
            members.insert(key_of(member), member.clone()).is_some(),
            "changed first"
        );
    }
    for member in event["left"].as_array().unwrap() {
        // If a page has shown the member before an event has, this view does not have it.
        members.remove(&key_of(member));
    }
}

/// A client that has read the members page by page, and merges the events of the meantime and of later.
struct Watcher {
    room: &'static str,
    members: BTreeMap<String, Value>,
    /// The first event that it has got.
    first_event: usize,
}

impl Watcher {
    /// Reads the members, with some time between pages.
    fn read(fixture: &mut Fixture, room: &'static str, random: &mut Random) -> Watcher {
        let first_event = fixture.events.len();
        let (mut members, mut after) = (BTreeMap::new(), Some(0));
        while let Some(place) = after {
            let limit = usize::try_from(1 + random.below(4)).unwrap();
            let page = fixture
                .rooms
                .page(room.as_bytes(), fixture.hash(room), place, limit);
            let mut json = Vec::new();
            page.write_json(&mut json);
            let json: Value = serde_json::from_slice(&json).unwrap();
            for member in json["members"].as_array().unwrap() {
                members.insert(key_of(member), without_connections(member.clone()));
            }
            after = page.next;
            if random.below(4) == 0 {
                fixture.pass(random.below(80));
            }
        }
        Watcher {
            room,
            members,
            first_event,
        }
    }

    /// The members as it shows them in the end.
    fn merged(&self, fixture: &Fixture) -> BTreeMap<String, Value> {
        let mut members = self.members.clone();
        for (_, event) in fixture.events[self.first_event..]
            .iter()
            .filter(|(room, _)| room == self.room)
        {
            for list in ["joined", "changed"] {
                for member in event.get(list).and_then(Value::as_array).into_iter().flatten() {
                    members.insert(key_of(member), member.clone());
                }
            }
            for member in event["left"].as_array().unwrap() {
                members.remove(&key_of(member));
            }
        }
        members
    }
}

/// At rest, each client that watches shows the right members.
fn check(fixture: &mut Fixture, watchers: &[Watcher], at: &str) {
    for watcher in watchers {
        let shown = watcher.merged(fixture);
        let members = as_in_events(fixture.members(watcher.room, 1000));
        assert_eq!(shown, members, "{at}: a client that watches {}", watcher.room);
    }
}

fn as_in_events(members: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let members = members.into_iter();
    members
        .map(|(key, member)| (key, without_connections(member)))
        .collect()
}

/// A member as events have it.
fn without_connections(mut member: Value) -> Value {
    if member["user"].is_string() {
        member.as_object_mut().unwrap().remove("connections");
    }
    member
}

/// A xorshift generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 20) % end
    }
}

/// What the naive model knows about one member of a room.
#[derive(Clone, Debug, Default)]
struct Modelled {
    connections: BTreeSet<u64>,
    info: Option<String>,
    since: u64,
    /// When it leaves.
    until: Option<u64>,
}

type ModelKey = (&'static str, Option<String>, u64);

const ROOMS: [&str; 3] = ["lobby", "room.1", "room.2"];
const USERS: [Option<&str>; 5] = [Some("ann"), Some("bob"), Some("c\"é"), None, None];

/// The key of a member: a user is one member, a client without a user is one for each connection.
fn model_key(room: &'static str, user: Option<&str>, number: u64) -> ModelKey {
    let number = if user.is_some() { 0 } else { number };
    (room, user.map(str::to_owned), number)
}

#[test]
fn members_equal_a_naive_model_and_the_events_lead_to_them() {
    for seed in 1..=25_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut fixture = Fixture::new(settings());
        let mut model: BTreeMap<ModelKey, Modelled> = BTreeMap::new();
        let mut watchers: Vec<Watcher> = Vec::new();
        for step in 0..400 {
            let room = ROOMS[usize::try_from(random.below(3)).unwrap()];
            // A connection has one user throughout.
            let number = random.below(15);
            let user = USERS[usize::try_from(number % 5).unwrap()];
            let key = model_key(room, user, number);
            match random.below(11) {
                0..=3 => {
                    assert_eq!(fixture.join(room, user, number), Joined::Joined);
                    let now_ms = fixture.now_ms;
                    let member = model.entry(key).or_insert_with(|| Modelled {
                        since: now_ms,
                        ..Modelled::default()
                    });
                    member.connections.insert(number);
                    member.until = None;
                }
                4..=6 => {
                    let departure = if random.below(2) == 0 {
                        Departure::Ended
                    } else {
                        Departure::Unsubscribed
                    };
                    fixture.leave(room, user, number, departure);
                    if let Some(member) = model.get_mut(&key)
                        && member.connections.remove(&number)
                        && member.connections.is_empty()
                    {
                        if departure == Departure::Ended && user.is_some() {
                            member.until = Some(fixture.now_ms + 500);
                        } else {
                            model.remove(&key);
                        }
                    }
                }
                7 => {
                    let info = (random.below(3) > 0).then(|| format!("{{\"n\":{}}}", random.below(4)));
                    let is_there = model
                        .get(&key)
                        .is_some_and(|member| member.connections.contains(&number));
                    let result = fixture.set_info(room, user, number, info.as_deref());
                    assert_eq!(result.is_ok(), is_there, "seed {seed}, step {step}");
                    if is_there {
                        model.get_mut(&key).unwrap().info = info;
                    }
                }
                8 => watchers.push(Watcher::read(&mut fixture, room, &mut random)),
                9 if random.below(4) == 0 => {
                    fixture.pass(10_000);
                    check(&mut fixture, &watchers, &format!("seed {seed}, step {step}"));
                }
                _ => fixture.pass(random.below(200)),
            }
            model.retain(|_, member| member.until.is_none_or(|until| until > fixture.now_ms));
            // To read pages has an effect on later events, so that it must not happen after each step.
            if random.below(4) == 0 {
                let limit = usize::try_from(1 + random.below(4)).unwrap();
                compare(&mut fixture, &model, limit, &format!("seed {seed}, step {step}"));
            }
        }
        // At rest, the events have told all members.
        fixture.pass(10_000);
        model.retain(|_, member| member.until.is_none());
        compare(&mut fixture, &model, 1000, &format!("seed {seed}, at rest"));
        check(&mut fixture, &watchers, &format!("seed {seed}, at rest"));
        for room in ROOMS {
            let members = as_in_events(fixture.members(room, 1000));
            let told = fixture.told.get(room).cloned().unwrap_or_default();
            assert_eq!(told, members, "seed {seed}: {room}");
            assert_eq!(
                fixture.counts.get(room).copied().unwrap_or(0),
                members.len() as u64,
                "seed {seed}: {room}"
            );
        }
        end_all(&mut fixture);
    }
}

fn compare(fixture: &mut Fixture, model: &BTreeMap<ModelKey, Modelled>, limit: usize, at: &str) {
    for room in ROOMS {
        let expected: BTreeMap<String, Value> = model
            .iter()
            .filter(|((of, ..), _)| *of == room)
            .map(|((_, user, _), member)| {
                let connections: Vec<String> = member
                    .connections
                    .iter()
                    .map(|number| session(*number).to_string())
                    .collect();
                let mut json =
                    serde_json::json!({"user": user, "since": member.since, "connections": connections});
                if let Some(info) = &member.info {
                    json["info"] = serde_json::from_str(info).unwrap();
                }
                (key_of(&json), json)
            })
            .collect();
        assert_eq!(fixture.members(room, limit), expected, "{at}: {room}");
        let count = fixture.rooms.count(room.as_bytes(), fixture.hash(room));
        assert_eq!(count as usize, expected.len(), "{at}: {room}");
    }
    assert_eq!(fixture.rooms.members(), model.len() as u64, "{at}");
}

/// All connections end: nothing is left of any room.
fn end_all(fixture: &mut Fixture) {
    for number in 0..15 {
        let user = USERS[usize::try_from(number % 5).unwrap()];
        for room in ROOMS {
            fixture.leave(room, user, number, Departure::Ended);
        }
    }
    fixture.pass(10_000);
    assert!(fixture.rooms.is_empty() && fixture.rooms.members() == 0);
    assert_eq!(fixture.rooms.next_due(), Uptime::NEVER);
    assert!(fixture.told.values().all(BTreeMap::is_empty));
    assert_eq!(fixture.rooms.weight_left(), 0);
}

#[test]
fn a_reconnect_within_the_grace_is_neither_told_nor_seen_and_a_later_one_is() {
    let mut fixture = Fixture::new(settings());
    fixture.join("lobby", Some("ann"), 1);
    fixture
        .set_info("lobby", Some("ann"), 1, Some("\"here\""))
        .unwrap();
    fixture.pass(1000);
    let before = fixture.members("lobby", 10);
    assert_eq!(fixture.events.len(), 1);
    for (number, away_ms) in [(2, 0), (3, 499), (4, 100)] {
        fixture.leave("lobby", Some("ann"), number - 1, Departure::Ended);
        fixture.pass(away_ms);
        assert_eq!(fixture.rooms.count(b"lobby", fixture.hash("lobby")), 1);
        fixture.join("lobby", Some("ann"), number);
        fixture.pass(2000);
    }
    assert_eq!(fixture.events.len(), 1, "no event for any of them");
    let after = fixture.members("lobby", 10);
    assert_eq!(after["user ann"]["since"], before["user ann"]["since"]);
    assert_eq!(after["user ann"]["info"], "here");

    fixture.leave("lobby", Some("ann"), 4, Departure::Ended);
    fixture.pass(601);
    fixture.join("lobby", Some("ann"), 5);
    fixture.pass(1000);
    assert_eq!(fixture.events.len(), 3, "left and joined: {:?}", fixture.events);
    // Clients without a user cannot come back, and an unsubscribe is no accident.
    fixture.leave("lobby", Some("ann"), 5, Departure::Unsubscribed);
    fixture.join("lobby", None, 6);
    fixture.leave("lobby", None, 6, Departure::Ended);
    assert_eq!(fixture.rooms.count(b"lobby", fixture.hash("lobby")), 0);
}

#[test]
fn changes_within_a_tick_are_one_event_and_cancelled_changes_are_none() {
    let mut fixture = Fixture::new(settings());
    for number in 0..10 {
        fixture.join("lobby", None, number);
    }
    fixture.leave("lobby", None, 3, Departure::Ended);
    fixture.pass(99);
    assert!(fixture.events.is_empty());
    fixture.pass(1);
    assert_eq!(fixture.events.len(), 1);
    assert_eq!(fixture.events[0].1["joined"].as_array().unwrap().len(), 9);
    assert_eq!(fixture.events[0].1["count"], 9);
    assert!(fixture.events[0].1.get("sampled").is_none());
    fixture.join("lobby", None, 30);
    fixture.leave("lobby", None, 30, Departure::Ended);
    fixture.pass(1000);
    assert_eq!(fixture.events.len(), 1);
    let tally = fixture.rooms.take_tally();
    assert_eq!((tally.joined, tally.left, tally.coalesced), (11, 2, 2));
    // A client that subscribes again at once has only a new time.
    fixture.leave("lobby", None, 4, Departure::Unsubscribed);
    fixture.join("lobby", None, 4);
    fixture.pass(1000);
    let event = &fixture.events[1].1;
    assert_eq!(
        (&event["joined"], &event["left"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    assert_eq!(event["changed"].as_array().unwrap().len(), 1);
}

#[test]
fn a_member_that_a_page_has_shown_before_its_event_leaves_by_an_event() {
    let mut fixture = Fixture::new(settings());
    fixture.join("lobby", None, 1);
    assert_eq!(fixture.members("lobby", 10).len(), 1);
    fixture.leave("lobby", None, 1, Departure::Ended);
    fixture.pass(1000);
    let left = &fixture.events[0].1["left"];
    assert_eq!(left[0]["connections"][0], session(1).to_string());
    // One that a page has left out, since it was away for a moment, comes back by an event.
    fixture.join("lobby", Some("ann"), 2);
    fixture.pass(1000);
    fixture.leave("lobby", Some("ann"), 2, Departure::Unsubscribed);
    assert!(fixture.members("lobby", 10).is_empty());
    fixture.join("lobby", Some("ann"), 2);
    fixture.pass(1000);
    assert_eq!(fixture.events[2].1["changed"][0]["user"], "ann");
    assert!(fixture.rooms.len() == 1 && fixture.events.len() == 3);
}

#[test]
fn nothing_is_written_for_a_room_without_subscribers() {
    let mut fixture = Fixture::new(settings());
    fixture.join("lobby", None, 1);
    fixture.now_ms += 200;
    let now = fixture.now().uptime;
    let event = fixture.rooms.next_event(now, |name| name != b"lobby").unwrap();
    assert!(event.data.is_none());
    fixture.rooms.event_is_told(now);
    fixture.leave("lobby", None, 1, Departure::Ended);
    fixture.pass(1000);
    assert_eq!(fixture.events.len(), 1, "it leaves: {:?}", fixture.events);
    assert!(fixture.rooms.is_empty());
}

#[test]
fn an_event_that_was_not_published_is_written_again_with_later_changes() {
    let mut fixture = Fixture::new(settings());
    fixture.join("lobby", Some("ann"), 1);
    fixture.now_ms += 200;
    let now = fixture.now().uptime;
    assert!(fixture.rooms.next_event(now, |_| true).is_some());
    fixture.join("lobby", Some("bob"), 2);
    fixture.pass(0);
    assert_eq!(fixture.events.len(), 1);
    assert_eq!(fixture.events[0].1["joined"].as_array().unwrap().len(), 2);
}

#[test]
fn at_the_limit_joins_and_infos_are_refused_and_present_members_stay() {
    let mut fixture = Fixture::new(RoomSettings {
        members_max: 3,
        ..settings()
    });
    assert_eq!(fixture.join("a", Some("ann"), 1), Joined::Joined);
    assert_eq!(fixture.join("a", Some("ann"), 2), Joined::Joined);
    assert_eq!(fixture.join("b", Some("ann"), 2), Joined::Joined);
    assert_eq!(fixture.join("b", Some("ann"), 2), Joined::Joined, "again");
    assert_eq!(fixture.join("b", Some("ann"), 3), Joined::Refused);
    assert_eq!(fixture.join("c", None, 4), Joined::Refused);
    let long = "1".repeat(300);
    assert_eq!(
        fixture.set_info("a", Some("ann"), 1, Some(&long)),
        Err(InfoRefused::Full)
    );
    assert_eq!(
        fixture.set_info("c", None, 4, Some("1")),
        Err(InfoRefused::NotThere)
    );
    assert_eq!(fixture.set_info("a", Some("ann"), 1, Some("1")), Ok(()));
    fixture.leave("a", Some("ann"), 2, Departure::Ended);
    assert_eq!(fixture.set_info("a", Some("ann"), 1, Some(&long)), Ok(()));
    assert_eq!(fixture.join("c", None, 4), Joined::Refused);
    fixture.leave("a", Some("ann"), 1, Departure::Unsubscribed);
    fixture.pass(1000);
    assert_eq!(fixture.join("c", None, 4), Joined::Joined);
    assert_eq!(fixture.rooms.take_tally().refused, 4);
    assert_eq!((fixture.rooms.len(), fixture.rooms.members()), (2, 2));
}

#[test]
fn a_member_takes_at_most_120_bytes_in_a_room_of_100_000() {
    // Tables and lists double, so the number of members just behind a step is the worst.
    for count in [65_537, 100_000, 114_689, 131_073] {
        let mut fixture = Fixture::new(settings());
        for number in 0..count {
            let user = format!("user-{number}");
            fixture.join("hall", Some(&user), number);
        }
        fixture.pass(60_000);
        assert_eq!(fixture.rooms.members(), count);
        let each = fixture.rooms.counted_bytes() as f64 / count as f64;
        // An allocator rounds the name up to 16 bytes. A core keeps 8 more for the connection (`cores/presence`).
        let each = each + 6.0 + 8.0;
        assert!(each <= 120.0, "{count}: {each:.1} bytes for each member");
    }
}

#[test]
fn a_room_of_100_000_costs_work_and_bytes_in_proportion_to_its_members() {
    const COUNT: u64 = 100_000;
    let mut fixture = Fixture::new(settings());
    // 100 join in each millisecond.
    for number in 0..COUNT {
        fixture.join("hall", Some(&format!("user-{number}")), number);
        if number % 100 == 99 {
            fixture.now_ms += 1;
            fixture.told.clear();
            fixture.take_turn_without_telling();
        }
    }
    fixture.drain_events();
    assert_eq!(fixture.counts["hall"], COUNT);
    let (events, bytes) = (fixture.events.len() as u64, fixture.event_bytes as u64);
    // Each event goes to all members. An event of a large room is small, so the bytes that are sent grow with the
    // members and the time, and not with the square of the members.
    assert!(
        events <= 1000 / 100 + COUNT / CHANGES_PER_EVENT_MAX as u64 + 2,
        "{events}"
    );
    assert!(bytes <= COUNT * 10, "{bytes} bytes for {COUNT} members");
    let last = fixture.events.last().unwrap();
    assert!(last.1.to_string().len() < 2000, "{}", last.1);
    let largest = fixture
        .events
        .iter()
        .map(|(_, event)| event["joined"].as_array().unwrap().len());
    assert!(largest.max().unwrap() <= 2000);

    // They leave all at once, as when a network fails.
    for number in 0..COUNT {
        fixture.leave("hall", Some(&format!("user-{number}")), number, Departure::Ended);
    }
    fixture.now_ms += 500;
    fixture.events.clear();
    fixture.drain_events();
    assert_eq!((fixture.rooms.members(), fixture.counts["hall"]), (0, 0));
    assert!(fixture.rooms.is_empty());
    let tally = fixture.rooms.take_tally();
    assert_eq!((tally.joined, tally.left), (COUNT, COUNT));
}

impl Fixture {
    /// As [`Fixture::take_turn`], for events that leave members out.
    fn take_turn_without_telling(&mut self) {
        let now = self.now().uptime;
        self.rooms.end_graces(now, usize::MAX);
        while let Some(event) = self.rooms.next_event(now, |_| true) {
            if let Some(data) = event.data {
                self.event_bytes += data.len();
                assert!(data.len() < 2 * EVENT_BYTES_MAX);
                let room = String::from_utf8(event.channel.to_vec()).unwrap();
                let data: Value = serde_json::from_slice(data).unwrap();
                let entries =
                    data["joined"].as_array().unwrap().len() + data["left"].as_array().unwrap().len();
                let count = data["count"].as_u64().unwrap();
                let entries_max = (1_000_000 / count.max(1)).max(ENTRIES_MIN as u64);
                assert!(count <= 1000 || entries as u64 <= entries_max);
                self.counts.insert(room.clone(), count);
                self.events.push((room, data));
            }
            self.rooms.event_is_told(now);
        }
    }

    fn drain_events(&mut self) {
        while self.rooms.next_due() != Uptime::NEVER {
            self.now_ms = self.now_ms.max(self.rooms.next_due().as_ms());
            self.take_turn_without_telling();
        }
    }
}

#[test]
fn pages_have_each_member_that_stays_once_while_others_come_and_go() {
    let mut fixture = Fixture::new(settings());
    for number in 0..5000 {
        fixture.join("hall", None, number);
    }
    let (mut seen, mut after, mut number) = (BTreeSet::new(), 0, 5000);
    loop {
        let page = fixture.rooms.page(b"hall", fixture.hash("hall"), after, 10_000);
        assert!(page.members.len() <= PAGE_MEMBERS_MAX);
        for member in &page.members {
            assert!(seen.insert(member.connections[0]), "twice");
        }
        // Odd ones leave, others come.
        for _ in 0..500 {
            fixture.leave("hall", None, (number % 5000) | 1, Departure::Ended);
            fixture.join("hall", None, number + 100_000);
            number += 7;
        }
        fixture.now_ms += 100;
        fixture.take_turn_without_telling();
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    for stayed in (0..5000).step_by(2) {
        assert!(seen.contains(&session(stayed)), "{stayed}");
    }
}
