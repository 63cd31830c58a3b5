//! Random lives of sessions on a disk that is full now and then: the next process must have everything that
//! this one had.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::broker::ChannelHasher;
use crate::clock::Uptime;
use crate::config::QueueFull;
use crate::mqtt::sessions::stored::StoredEntry;
use crate::mqtt::sessions::{
    Bounds, Connect, Content, CoreLocation, End, Offer, Outbound, Packet, Quotes, Sent, StoredPublications,
    StoredSession, Will, Written,
};
use crate::mqtt::shares::ServiceOffer;
use crate::mqtt::{Qos, Version};

const IDS: [&str; 3] = ["a", "aa", "b"];
const FILTERS: [&str; 5] = ["t", "t/#", "+", "$share/g/t", "$share/g/$rpc/p*"];
const UNIX_MS: u64 = 1_700_000_000_000;
const NO_LIMITS: SubscriptionLimits = SubscriptionLimits {
    channels_max: u32::MAX,
    names_bytes_max: u32::MAX,
};

/// A disk as a test sees it.
#[derive(Debug, Default)]
struct Model {
    items: BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>,
    publications: BTreeMap<u64, (i64, Vec<u8>)>,
    room: usize,
}

impl Disk for Model {
    fn has_room(&mut self) -> bool {
        self.room > 0
    }

    fn record(&mut self, record: &Record<'_>) {
        self.room = self.room.saturating_sub(1);
        match *record {
            Record::SessionItem {
                client_id,
                item,
                value,
                is_new,
            } => {
                let before = self.items.insert((client_id.into(), item.into()), value.into());
                assert!(!is_new || before.is_none(), "it was there: {item:?}");
            }
            Record::SessionItemGone { client_id, item } => {
                self.items.remove(&(client_id.into(), item.into()));
            }
            Record::SessionGone { client_id } => self.items.retain(|(id, _), _| id != client_id),
            Record::Held { number, content } => {
                let (holders, has) = self.publications.entry(number).or_default();
                *holders += 1;
                if !content.is_empty() {
                    *has = content.into();
                }
            }
            Record::Released { number } => {
                let (holders, _) = self.publications.get_mut(&number).unwrap();
                *holders -= 1;
                if *holders == 0 {
                    self.publications.remove(&number);
                }
            }
            Record::Publication { .. }
            | Record::Forgotten { .. }
            | Record::Removed { .. }
            | Record::UnknownChannels { .. }
            | Record::Will { .. }
            | Record::WillGone { .. }
            | Record::Retained { .. }
            | Record::Unknown { .. } => panic!("{record:?}"),
        }
    }
}

impl Model {
    /// Each publication is there as often as entries name it, and each named publication is there.
    fn check(&self) {
        let mut named = BTreeMap::new();
        for ((_, name), value) in &self.items {
            if let Some(Item::Outgoing(_)) = Item::read(name) {
                let publication = StoredEntry::read(value).unwrap().publication;
                *named.entry(publication).or_insert(0) += 1;
            }
        }
        named.remove(&0);
        let there: BTreeMap<u64, i64> = self
            .publications
            .iter()
            .map(|(number, (holders, _))| (*number, *holders))
            .collect();
        assert_eq!(there, named);
        for (_, content) in self.publications.values() {
            assert!(stored::read_publication(content).is_some());
        }
    }

    /// The next process, which may have other cores: it is one here.
    fn restored(&self, bounds: Bounds, is_strict: bool, at: Now) -> Sessions {
        let mut publications = StoredPublications::default();
        for (number, (_, content)) in &self.publications {
            publications.add(*number, content).unwrap();
        }
        let mut all: Vec<StoredSession> = Vec::new();
        for ((client_id, name), value) in &self.items {
            let client_id = str::from_utf8(client_id).unwrap();
            if all.last().is_none_or(|last| last.client_id() != client_id) {
                all.push(StoredSession::new(client_id));
            }
            all.last_mut().unwrap().add(name, value).unwrap();
            assert!(StoredSession::new("x").add(name, b"").is_err());
            let of_another_version = [&[value[0] + 1], &value[1..]].concat();
            assert!(StoredSession::new("x").add(name, &of_another_version).is_err());
        }
        let mut sessions = sessions(bounds, is_strict, publications.last());
        sessions.restore(all, &publications, false, at);
        sessions
    }
}

fn sessions(bounds: Bounds, is_strict: bool, last_publication: u64) -> Sessions {
    static KEY: AtomicUsize = AtomicUsize::new(1);
    let place = CoreLocation {
        core: 0,
        cores: 1,
        hasher: ChannelHasher::with_key(KEY.fetch_add(1, Ordering::Relaxed) as u64),
    };
    let mut sessions = Sessions::new(bounds, place);
    sessions.begin_saving(is_strict, last_publication);
    sessions
}

fn now(ms: u64) -> Now {
    Now {
        uptime: Uptime::from_ms(ms),
        unix_ms: UNIX_MS + ms,
    }
}

/// A publication that a session has to send: payload, packet identifier, QoS, and whether it is released.
type Seen = (Vec<u8>, u16, u8, u8);

/// Everything that the next process must have of a session.
#[derive(Debug, PartialEq, Eq)]
struct View {
    user: Option<String>,
    will: Option<Will>,
    filters: Vec<(String, Membership)>,
    incoming: Vec<u16>,
    outgoing: Vec<Seen>,
}

fn views(sessions: &Sessions) -> BTreeMap<String, View> {
    let states =
        (0..sessions.states.places()).filter_map(|number| Some((number, sessions.states.get(number)?)));
    let lasting = states.filter(|(_, state)| state.phase != Phase::Ended && state.is_lasting());
    let view = |(number, state): (usize, &SessionState)| {
        let number = u32::try_from(number).unwrap();
        let all = all_filters(number, state.serial, &sessions.subscriptions, &sessions.shares);
        let membership = |filter: &str| {
            let subscriber = Subscriber::Session(number);
            let plain = sessions.subscriptions.options_of(subscriber, filter);
            plain
                .map(|options| Membership {
                    options,
                    service: None,
                })
                .or_else(|| sessions.shares.membership_of(number, filter).cloned())
                .unwrap()
        };
        let traffic = state.traffic.as_deref();
        let count = traffic.map_or(0, |traffic| {
            traffic.outgoing.in_flight() as usize + traffic.outgoing.waiting()
        });
        let seen = |at: usize| {
            let (entry, kept) = traffic.unwrap().outgoing.stored(at);
            let payload = kept.map(|kept| sessions.kept.get(kept).0.payload.to_vec());
            (
                payload.unwrap_or_default(),
                entry.packet_id,
                entry.qos,
                entry.facts,
            )
        };
        let view = View {
            user: state.user().map(str::to_owned),
            will: state.will().cloned(),
            filters: all
                .iter()
                .map(|filter| (filter.to_string(), membership(filter)))
                .collect(),
            incoming: traffic.map_or_else(Vec::new, |traffic| traffic.incoming.all().to_vec()),
            outgoing: (0..count).map(seen).collect(),
        };
        (state.client_id.to_string(), view)
    };
    lasting.map(view).collect()
}

/// The next step of a test; numbers choose among the possible ones.
#[derive(Clone, Debug)]
enum Step {
    Connect {
        id: usize,
        clean: bool,
        expiry: usize,
        will: bool,
    },
    Disconnect {
        id: usize,
        expiry: Option<u32>,
    },
    Subscribe {
        id: usize,
        filter: usize,
        qos: u8,
    },
    Unsubscribe {
        id: usize,
        filter: usize,
    },
    UnsubscribeAll {
        id: usize,
    },
    Publish {
        to: Vec<(usize, u8)>,
        bytes: usize,
    },
    Send,
    Acknowledge {
        id: usize,
        packet_id: u16,
        kind: u8,
    },
    Receive {
        id: usize,
        packet_id: u16,
    },
    Release {
        id: usize,
        packet_id: u16,
    },
    Wait {
        ms: u64,
    },
    Save {
        room: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let id = || 0..IDS.len();
    prop_oneof![
        3 => (id(), any::<bool>(), 0..3_usize, any::<bool>())
            .prop_map(|(id, clean, expiry, will)| Step::Connect { id, clean: clean && expiry != 1, expiry, will }),
        2 => (id(), proptest::option::of(0..3_u32)).prop_map(|(id, expiry)| Step::Disconnect { id, expiry }),
        3 => (id(), 0..FILTERS.len(), 0..3_u8).prop_map(|(id, filter, qos)| Step::Subscribe { id, filter, qos }),
        1 => (id(), 0..FILTERS.len()).prop_map(|(id, filter)| Step::Unsubscribe { id, filter }),
        1 => id().prop_map(|id| Step::UnsubscribeAll { id }),
        6 => (proptest::collection::vec((id(), 0..3_u8), 1..4), 0..50_usize)
            .prop_map(|(to, bytes)| Step::Publish { to, bytes }),
        3 => Just(Step::Send),
        6 => (id(), 1..8_u16, 0..4_u8).prop_map(|(id, packet_id, kind)| Step::Acknowledge { id, packet_id, kind }),
        2 => (id(), 1..4_u16).prop_map(|(id, packet_id)| Step::Receive { id, packet_id }),
        2 => (id(), 1..4_u16).prop_map(|(id, packet_id)| Step::Release { id, packet_id }),
        1 => (1..30_000_u64).prop_map(|ms| Step::Wait { ms }),
        4 => prop_oneof![0..10_usize, Just(usize::MAX)].prop_map(|room| Step::Save { room }),
    ]
}

/// Sessions, and the facts that the test knows about them.
struct World {
    sessions: Sessions,
    at_ms: u64,
    address: usize,
    published: u32,
    /// Connections whose CONNACK waits for the disk: the save that it waits for, the session, and the address.
    awaiting: Vec<(u64, SessionRef, usize)>,
}

impl World {
    fn session(&self, id: usize) -> Option<(SessionRef, Option<usize>)> {
        let number = self.sessions.find(IDS[id])?;
        let session = self.sessions.name(number);
        let client = self.sessions.client(session.number, session.serial);
        Some((session, client.map(|client| client.address)))
    }

    /// Sends CONNACK to clients whose sessions are on disk. Checks that they are, or that they are not if
    /// they do not outlive their connections.
    fn accept(&mut self, committed: u64, disk: &Model) {
        for (save, session, address) in std::mem::take(&mut self.awaiting) {
            if save > committed {
                self.awaiting.push((save, session, address));
            } else if self.sessions.is_of(session, address) {
                let client_id = self.sessions.client_id(session).unwrap().as_bytes();
                let is_lasting = self.sessions.expiry_s(session).unwrap() > 0;
                let head = disk.items.get(&(client_id.to_vec(), vec![0]));
                let is_connected = head.map(|head| Head::read(head).unwrap().since_unix_ms.is_none());
                assert_eq!(is_connected, is_lasting.then_some(true));
                assert!(self.sessions.client(session.number, session.serial).is_none());
                self.sessions.accept(session, address);
                assert!(self.sessions.client(session.number, session.serial).is_some());
            }
        }
    }

    fn step(&mut self, step: Step, disk: &mut Model) {
        let at = now(self.at_ms);
        match step {
            Step::Connect {
                id,
                clean,
                expiry,
                will,
            } => {
                self.address += 1;
                let connect = Connect {
                    client_id: IDS[id],
                    user: (id > 0).then_some(if id == 1 { "" } else { "u" }),
                    version: Version::V5,
                    address: self.address,
                    clean_start: clean,
                    expiry_s: [0, 20, u32::MAX][expiry],
                    receive_maximum: 4,
                    packet_bytes_max: u32::MAX,
                    topic_alias_maximum: 0,
                    will: will.then(|| {
                        Box::new(Will {
                            topic: (*b"will").into(),
                            payload: self.address.to_le_bytes().into(),
                            properties: (*b"&").into(),
                            qos: 1,
                            retain: clean,
                            is_utf8: !clean,
                            expiry_s: clean.then_some(9),
                            delay_s: u32::MAX,
                            claims: (id > 0).then(|| r#"{"sub":"u"}"#.into()),
                        })
                    }),
                };
                let connected = self.sessions.connect(connect, at).unwrap();
                if connected.awaits_disk {
                    let save = self.sessions.next_save();
                    self.awaiting.push((save, connected.session, self.address));
                }
            }
            Step::Disconnect { id, expiry } => {
                let Some((session, _)) = self.session(id) else {
                    return;
                };
                if let Some(address) = self.sessions.state(session).unwrap().address() {
                    let end = match expiry {
                        Some(seconds) => End::Orderly {
                            with_will: false,
                            expiry_s: Some(seconds * 10),
                        },
                        None => End::Lost,
                    };
                    self.sessions.disconnect(session, address, end, at);
                }
            }
            Step::Subscribe { id, filter, qos } => {
                if let Some((session, Some(_))) = self.session(id) {
                    let options = Options {
                        qos: Qos::from_bits(qos).unwrap(),
                        no_local: qos == 1,
                        retain_as_published: qos == 2,
                        id: u32::from(qos) << 20,
                    };
                    let filter = FILTERS[filter];
                    if filter.contains("$rpc/") {
                        let offer = crate::services::Offer {
                            weight: 1 << qos,
                            window: 1 << 20,
                        };
                        let meta = (qos == 1).then(|| "{\"v\":1}".into());
                        let service = Some(ServiceOffer { offer, meta });
                        let membership = Membership { options, service };
                        self.sessions.serve(session, filter, membership, NO_LIMITS);
                    } else if filter.starts_with(SHARE) {
                        self.sessions.join_group(session, filter, options, NO_LIMITS, 1);
                    } else {
                        self.sessions.subscribe(session, filter, options, NO_LIMITS);
                    }
                }
            }
            Step::Unsubscribe { id, filter } => {
                if let Some((session, Some(_))) = self.session(id) {
                    let filter = FILTERS[filter];
                    if filter.starts_with(SHARE) {
                        self.sessions.leave_group(session, filter);
                    } else {
                        self.sessions.unsubscribe(session, filter);
                    }
                }
            }
            Step::UnsubscribeAll { id } => {
                if let Some((session, Some(_))) = self.session(id) {
                    let subscriber = Subscriber::Session(session.number);
                    let subscriptions = &self.sessions.subscriptions;
                    let (filters, _) = subscriptions.some_filters_of(subscriber, 0, usize::MAX);
                    for (filter, _) in filters {
                        let filter = String::from_utf8(filter.into()).unwrap();
                        self.sessions.unsubscribe(session, &filter);
                    }
                }
            }
            Step::Publish { to, bytes } => {
                self.published += 1;
                let payload = [&self.published.to_le_bytes()[..], &vec![b'x'; bytes]].concat();
                let content = Content {
                    topic: b"t",
                    properties: b"pp",
                    payload: &payload,
                    expires_at: None,
                    is_utf8: bytes > 7,
                    quotes: Quotes::Kept,
                };
                for (id, qos) in to {
                    if let Some((session, address)) = self.session(id) {
                        let outbound = Outbound {
                            qos,
                            retain: qos == 1,
                        };
                        let ids = &[u32::from(qos)][..usize::from(qos == 2)];
                        let offer = self
                            .sessions
                            .offer(session, outbound, &content, ids, address.is_some());
                        assert!(offer != Offer::Dropped || qos == 0 && address.is_some());
                    }
                }
                self.sessions.end_publication();
            }
            Step::Send => {
                while let Some(session) = self.sessions.next_ready() {
                    while self
                        .sessions
                        .send_next(session, at.unix_ms, |_, _| Written::Queued)
                        == Sent::One
                    {}
                }
            }
            Step::Acknowledge { id, packet_id, kind } => {
                if let Some((session, Some(_))) = self.session(id) {
                    match kind {
                        0 => self.sessions.puback(session, packet_id),
                        1 => self.sessions.pubrec(session, packet_id, false),
                        2 => self.sessions.pubrec(session, packet_id, true),
                        _ => self.sessions.pubcomp(session, packet_id),
                    };
                }
            }
            Step::Receive { id, packet_id } => {
                if let Some((session, Some(_))) = self.session(id) {
                    self.sessions.receive_qos2(session, packet_id);
                    self.sessions.confirm_qos2(session);
                }
            }
            Step::Release { id, packet_id } => {
                if let Some((session, Some(_))) = self.session(id) {
                    self.sessions.release_qos2(session, packet_id);
                }
            }
            Step::Wait { ms } => {
                self.at_ms += ms;
                let at = now(self.at_ms);
                while self.sessions.next_due() <= at.uptime {
                    self.sessions.end_due(at.uptime);
                }
                while self.sessions.take_will().is_some() {}
            }
            Step::Save { room } => {
                disk.room = room;
                if let Some(save) = self.sessions.save(at, disk) {
                    disk.check();
                    self.sessions.note_committed(save);
                    self.accept(save, disk);
                }
            }
        }
    }

    /// Saves the rest.
    fn save_all(&mut self, disk: &mut Model) {
        disk.room = usize::MAX;
        while self.sessions.save(now(self.at_ms), disk).is_none() {
            assert!(self.sessions.has_more_to_save());
        }
        assert!(!self.sessions.has_unsaved() && !self.sessions.has_more_to_save());
        disk.check();
    }
}

proptest! {
    #[test]
    fn the_next_process_has_the_sessions_that_last_with_everything_that_they_had(
        lives in proptest::collection::vec(proptest::collection::vec(any_step(), 1..60), 1..4),
        is_strict: bool,
    ) {
        let bounds = Bounds {
            sessions_max: 100,
            queue_messages_max: 1000,
            queue_bytes_max: 1 << 20,
            queues_bytes_max: 1 << 24,
            in_flight_max: 100,
            wills_bytes_max: 1 << 20,
            queue_full: QueueFull::DropNewest,
            queues_qos0: true,
        };
        let mut disk = Model::default();
        let mut world = World {
            sessions: sessions(bounds, is_strict, 0),
            at_ms: 0,
            address: 0,
            published: 0,
            awaiting: Vec::new(),
        };
        for steps in lives {
            for step in steps {
                world.step(step, &mut disk);
            }
            world.save_all(&mut disk);
            let before = views(&world.sessions);
            let stored: BTreeSet<String> = disk.items.keys().map(|(id, _)| String::from_utf8(id.clone()).unwrap()).collect();
            prop_assert_eq!(&stored, &before.keys().cloned().collect::<BTreeSet<_>>());
            world.sessions = disk.restored(bounds, is_strict, now(world.at_ms));
            world.awaiting.clear();
            prop_assert_eq!(&views(&world.sessions), &before);
            // The next process begins by writing its changes, and loses nothing by that.
            world.save_all(&mut disk);
            prop_assert_eq!(views(&disk.restored(bounds, is_strict, now(world.at_ms))), before);
        }
    }
}

fn connect(client_id: &str, expiry_s: u32, delay_s: Option<u32>) -> Connect<'_> {
    Connect {
        client_id,
        user: None,
        version: Version::V5,
        address: 1,
        clean_start: false,
        expiry_s,
        receive_maximum: 10,
        packet_bytes_max: u32::MAX,
        topic_alias_maximum: 0,
        will: delay_s.map(|delay_s| {
            Box::new(Will {
                topic: (*b"will").into(),
                payload: Box::default(),
                properties: Box::default(),
                qos: 0,
                retain: false,
                is_utf8: false,
                expiry_s: None,
                delay_s,
                claims: None,
            })
        }),
    }
}

const BOUNDS: Bounds = Bounds {
    sessions_max: 100,
    queue_messages_max: 1000,
    queue_bytes_max: 1 << 20,
    queues_bytes_max: 1 << 24,
    in_flight_max: 100,
    wills_bytes_max: 1 << 20,
    queue_full: QueueFull::DropNewest,
    queues_qos0: false,
};

fn saved(sessions: &mut Sessions, at: Now) -> Model {
    let mut disk = Model {
        room: usize::MAX,
        ..Model::default()
    };
    assert!(sessions.save(at, &mut disk).is_some());
    disk
}

#[test]
fn the_publications_of_a_session_that_has_ended_leave_the_disk_a_bounded_number_in_each_save() {
    let mut sessions = sessions(BOUNDS, true, 0);
    let queue = 3 * RELEASES_PER_SAVE_MAX + 1;
    for address in [1, 2] {
        let id = ["a", "b"][address - 1];
        let connect = Connect {
            address,
            ..connect(id, 100, None)
        };
        let session = sessions.connect(connect, now(0)).unwrap().session;
        sessions.accept(session, address);
        sessions.disconnect(session, address, End::Lost, now(0));
        for number in 0..queue {
            let content = Content {
                topic: b"t",
                properties: b"",
                payload: &number.to_le_bytes(),
                expires_at: None,
                is_utf8: false,
                quotes: Quotes::Kept,
            };
            let outbound = Outbound {
                qos: 1,
                retain: false,
            };
            let offer = sessions.offer(session, outbound, &content, &[], false);
            assert_eq!(offer, Offer::Waits);
            sessions.end_publication();
        }
    }
    let mut disk = saved(&mut sessions, now(1));
    assert_eq!(disk.publications.len(), 2 * queue);
    let session = sessions.name(sessions.find("a").unwrap());
    sessions.expire(session.number);
    // Others are saved meanwhile, and no client is told that what it has changed is saved before all of it is.
    let connect = Connect {
        address: 3,
        ..connect("b", 100, None)
    };
    sessions.connect(connect, now(2)).unwrap();
    let mut left = vec![disk.publications.len()];
    while sessions.save(now(2), &mut disk).is_none() {
        let head = disk.items.get(&(b"b".to_vec(), vec![0])).unwrap();
        assert_eq!(Head::read(head).unwrap().since_unix_ms, None);
        assert!(sessions.has_more_to_save());
        left.push(disk.publications.len());
    }
    assert!(
        left.len() > 3
            && left
                .windows(2)
                .all(|two| two[0] - two[1] <= RELEASES_PER_SAVE_MAX)
    );
    disk.check();
    assert_eq!(disk.publications.len(), queue);
    // A full disk is told when it takes more.
    let session = sessions.name(sessions.find("b").unwrap());
    sessions.disconnect(session, 3, End::Lost, now(3));
    sessions.expire(session.number);
    disk.room = 2;
    assert!(sessions.save(now(3), &mut disk).is_none() && !sessions.has_more_to_save());
    assert_eq!(disk.publications.len(), queue - 1);
    disk.room = usize::MAX;
    while sessions.save(now(4), &mut disk).is_none() {}
    assert!(disk.items.is_empty() && disk.publications.is_empty());
}

#[test]
fn the_time_without_a_process_counts_for_sessions_and_wills() {
    // Expiry, delay of the will, time until the next process, and the state that it finds: the session, and
    // the will at its start.
    for (expiry_s, delay_s, away_s, is_there, is_due) in [
        (100, 50, 49, true, false),
        (100, 50, 51, true, true),
        (100, 500, 99, true, false),
        (100, 500, 100, false, true),
        (u32::MAX, 50, 1_000_000, true, true),
        (u32::MAX, u32::MAX, 1_000_000, true, false),
    ] {
        let mut before = sessions(BOUNDS, false, 0);
        let session = before
            .connect(connect("c", expiry_s, Some(delay_s)), now(0))
            .unwrap();
        before.disconnect(session.session, 1, End::Lost, now(5_000));
        let disk = saved(&mut before, now(7_000));
        let at = Now {
            uptime: Uptime::from_ms(3),
            unix_ms: UNIX_MS + 5_000 + away_s * 1000,
        };
        let mut after = disk.restored(BOUNDS, false, at);
        after.end_due(at.uptime);
        let seen = (after.len() == 1, after.take_will().is_some());
        assert_eq!(seen, (is_there, is_due), "{expiry_s} {delay_s} {away_s}");
        if is_there && expiry_s < u32::MAX {
            let left_ms = (u64::from(expiry_s) - away_s) * 1000;
            after.end_due(Uptime::from_ms(3 + left_ms - 1000));
            assert_eq!(after.len(), 1);
            after.end_due(Uptime::from_ms(3 + left_ms));
            assert_eq!(after.len(), 0);
        }
    }
}

#[test]
fn a_session_whose_connection_ended_with_the_process_waits_from_the_start_of_the_next_one() {
    let mut before = sessions(BOUNDS, false, 0);
    before.connect(connect("c", 100, Some(50)), now(0)).unwrap();
    let disk = saved(&mut before, now(1));
    let at = now(1_000_000);
    let mut next = disk.restored(BOUNDS, false, at);
    assert!(next.len() == 1 && !next.has_due_wills());
    // A second crash does not begin it again.
    let disk = {
        let mut disk = disk;
        disk.room = usize::MAX;
        next.save(at, &mut disk);
        disk
    };
    let mut third = disk.restored(BOUNDS, false, now(1_000_000 + 60_000));
    third.end_due(now(1_000_000 + 60_000).uptime);
    assert!(third.len() == 1 && third.has_due_wills());
    assert_eq!(disk.restored(BOUNDS, false, now(1_000_000 + 101_000)).len(), 0);
}

#[test]
fn a_process_that_stops_leaves_wills_and_sessions_to_the_next_one() {
    let mut before = sessions(BOUNDS, false, 0);
    let session = before.connect(connect("c", 100, Some(0)), now(0)).unwrap();
    before.freeze();
    before.disconnect(session.session, 1, End::Lost, now(1));
    assert_eq!(before.next_due(), Uptime::NEVER);
    before.end_due(now(1_000_000).uptime);
    assert!(before.take_will().is_none() && before.len() == 1);
    assert!(before.connect(connect("d", 0, None), now(2)).is_err());
    let disk = saved(&mut before, now(2));
    let mut after = disk.restored(BOUNDS, false, now(3));
    after.end_due(now(3).uptime);
    assert!(after.len() == 1 && after.take_will().is_some());
}

#[test]
fn in_strict_mode_a_publication_with_qos_2_is_sent_when_its_packet_identifier_is_on_disk() {
    let mut sessions = sessions(BOUNDS, true, 0);
    let session = sessions.connect(connect("c", 100, None), now(0)).unwrap().session;
    sessions.accept(session, 1);
    let offer = |sessions: &mut Sessions, qos: u8, payload: &[u8]| {
        let content = Content {
            topic: b"t",
            properties: b"",
            payload,
            expires_at: None,
            is_utf8: false,
            quotes: Quotes::Kept,
        };
        let outbound = Outbound { qos, retain: false };
        let offer = sessions.offer(session, outbound, &content, &[], true);
        sessions.end_publication();
        offer
    };
    let send = |sessions: &mut Sessions| {
        let mut sent = Vec::new();
        while let Some(session) = sessions.next_ready() {
            while sessions.send_next(session, UNIX_MS, |_, packet| {
                if let Packet::Publish {
                    content,
                    packet_id,
                    dup,
                    ..
                } = packet
                {
                    assert!(!dup);
                    sent.push((content.payload.to_vec(), packet_id.unwrap()));
                }
                Written::Queued
            }) == Sent::One
            {}
        }
        sent
    };
    assert!(matches!(
        offer(&mut sessions, 1, b"1"),
        Offer::Send { packet_id: 1 }
    ));
    assert_eq!(offer(&mut sessions, 2, b"2"), Offer::Waits);
    // It does not overtake.
    assert_eq!(offer(&mut sessions, 1, b"3"), Offer::Waits);
    assert_eq!(send(&mut sessions), []);
    let disk = saved(&mut sessions, now(1));
    // A later publication is in a later save, and does not hold this one up.
    assert_eq!(offer(&mut sessions, 2, b"4"), Offer::Waits);
    assert_eq!(send(&mut sessions), []);
    sessions.note_committed(1);
    assert_eq!(send(&mut sessions), [(b"2".to_vec(), 2), (b"3".to_vec(), 3)]);
    let mut disk = disk;
    disk.room = usize::MAX;
    assert_eq!(sessions.save(now(2), &mut disk), Some(2));
    sessions.note_committed(2);
    assert_eq!(send(&mut sessions), [(b"4".to_vec(), 4)]);
    let after = disk.restored(BOUNDS, true, now(3));
    let ids: Vec<u16> = views(&after)["c"].outgoing.iter().map(|seen| seen.1).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn in_strict_mode_the_identifier_of_a_publication_is_on_disk_when_the_publication_is() {
    let mut sessions = sessions(BOUNDS, true, 0);
    let session = sessions.connect(connect("c", 100, None), now(0)).unwrap().session;
    sessions.accept(session, 1);
    let on_disk = |sessions: &mut Sessions, disk: &mut Model| -> Vec<u16> {
        disk.room = usize::MAX;
        sessions.save(now(1), disk);
        views(&disk.restored(BOUNDS, true, now(1)))["c"].incoming.clone()
    };
    let mut disk = Model::default();
    sessions.receive_qos2(session, 7);
    assert!(on_disk(&mut sessions, &mut disk).is_empty());
    sessions.confirm_qos2(session);
    assert_eq!(on_disk(&mut sessions, &mut disk), [7]);
    sessions.receive_qos2(session, 8);
    sessions.release_qos2(session, 7);
    assert!(on_disk(&mut sessions, &mut disk).is_empty());
    // The client sends it once more in the same process, which knows it.
    assert!(sessions.is_repeated(session, 8, true));
    assert_eq!(on_disk(&mut sessions, &mut disk), [8]);
}

#[test]
fn after_a_crash_of_a_relaxed_server_a_new_publication_is_not_taken_for_an_old_one() {
    let mut before = sessions(BOUNDS, false, 0);
    let session = before.connect(connect("c", 100, None), now(0)).unwrap().session;
    before.receive_qos2(session, 7);
    before.receive_qos2(session, 8);
    let disk = saved(&mut before, now(1));
    // The client has released 7 meanwhile, which is not on disk.
    for may_miss_some in [false, true] {
        let mut all = StoredSession::new("c");
        for ((_, name), value) in &disk.items {
            all.add(name, value).unwrap();
        }
        let mut after = sessions(BOUNDS, false, 0);
        after.restore(vec![all], &StoredPublications::default(), may_miss_some, now(2));
        let session = after.connect(connect("c", 100, None), now(3)).unwrap().session;
        assert_eq!(after.is_repeated(session, 7, false), !may_miss_some);
        assert!(after.is_repeated(session, 8, true) && after.is_repeated(session, 8, false));
    }
}

/// A session of a client that waits for CONNACK, in strict mode. With `is_known`, the client has had it before.
fn awaiting(is_known: bool) -> (Sessions, SessionRef) {
    let mut sessions = sessions(BOUNDS, true, 0);
    if is_known {
        let session = sessions.connect(connect("c", 100, None), now(0)).unwrap().session;
        saved(&mut sessions, now(1));
        sessions.accept(session, 1);
        sessions.disconnect(session, 1, End::Lost, now(2));
    }
    let connected = Connect {
        address: 2,
        ..connect("c", 100, Some(0))
    };
    let connected = sessions.connect(connected, now(3)).unwrap();
    assert_eq!((connected.is_present, connected.awaits_disk), (is_known, true));
    (sessions, connected.session)
}

#[test]
fn in_strict_mode_a_client_gets_nothing_before_its_session_is_on_disk() {
    for is_known in [false, true] {
        let (mut sessions, session) = awaiting(is_known);
        let content = Content {
            topic: b"t",
            properties: b"",
            payload: b"1",
            expires_at: None,
            is_utf8: false,
            quotes: Quotes::Kept,
        };
        let outbound = Outbound {
            qos: 1,
            retain: false,
        };
        assert_eq!(
            sessions.offer(session, outbound, &content, &[], true),
            Offer::Waits
        );
        assert!(sessions.client(session.number, session.serial).is_none());
        let written = |sessions: &mut Sessions| {
            let mut count = 0;
            while let Some(session) = sessions.next_ready() {
                sessions.send_next(session, UNIX_MS, |_, _| Written::Queued);
                count += 1;
            }
            count
        };
        assert_eq!(written(&mut sessions), 0);
        // The address is that of another connection.
        sessions.accept(session, 1);
        assert_eq!(written(&mut sessions), 0);
        sessions.accept(session, 2);
        assert_eq!(written(&mut sessions), 1);
        assert!(sessions.is_of(session, 2));
    }
}

#[test]
fn a_connection_that_ends_before_connack_leaves_its_will_and_no_session_that_has_begun_with_it() {
    for is_known in [false, true] {
        let (mut sessions, session) = awaiting(is_known);
        sessions.disconnect(session, 2, End::Lost, now(4));
        assert_eq!(
            (sessions.len(), sessions.connected_len()),
            (usize::from(is_known), 0)
        );
        assert!(sessions.take_will().is_some() && sessions.wills_bytes == 0);
        let disk = saved(&mut sessions, now(5));
        assert_eq!(disk.restored(BOUNDS, true, now(6)).len(), usize::from(is_known));

        // The next connection has a session of its own, if it comes before the end.
        let (mut sessions, session) = awaiting(is_known);
        let next = Connect {
            address: 3,
            ..connect("c", 100, None)
        };
        let next = sessions.connect(next, now(4)).unwrap();
        assert_eq!((next.is_present, next.displaced), (is_known, Some(2)));
        assert_eq!(next.session == session, is_known);
        assert!(sessions.take_will().is_some() && sessions.wills_bytes == 0);
        sessions.disconnect(session, 2, End::Lost, now(5));
        sessions.accept(next.session, 3);
        assert!(sessions.is_of(next.session, 3) && sessions.connected_len() == 1);
    }
}

#[test]
fn connack_waits_for_the_disk_where_it_says_something_about_a_session_on_disk() {
    // Whether the store is strict, whether the client has a session there, clean start, expiry; whether CONNACK waits.
    for (is_strict, is_known, clean_start, expiry_s, waits) in [
        (true, false, false, 0, false),
        (true, false, true, 100, true),
        (true, true, false, 0, true),
        (true, true, true, 0, true),
        (true, true, false, 100, true),
        (false, true, true, 100, false),
        (false, false, false, 100, false),
    ] {
        let mut sessions = sessions(BOUNDS, is_strict, 0);
        if is_known {
            let session = sessions.connect(connect("c", 100, None), now(0)).unwrap().session;
            saved(&mut sessions, now(1));
            sessions.accept(session, 1);
        }
        let next = Connect {
            clean_start,
            address: 2,
            ..connect("c", expiry_s, None)
        };
        let next = sessions.connect(next, now(2)).unwrap();
        assert_eq!(
            next.awaits_disk, waits,
            "{is_strict} {is_known} {clean_start} {expiry_s}"
        );
        let client = sessions.client(next.session.number, next.session.serial);
        assert_eq!(client.is_none(), waits);
    }
}

#[test]
fn a_process_that_stops_disconnects_clients_that_wait_for_connack() {
    let (mut sessions, session) = awaiting(true);
    sessions.freeze();
    assert_eq!(sessions.next_connected(10, 1000), Some(vec![2]));
    assert_eq!(sessions.next_connected(10, 1000), None);
    sessions.disconnect(session, 2, End::Lost, now(4));
    assert_eq!(
        saved(&mut sessions, now(5)).restored(BOUNDS, true, now(6)).len(),
        1
    );
}

#[test]
fn a_process_that_stops_looks_for_clients_to_disconnect_in_steps_and_at_each_session_once() {
    let mut sessions = sessions(BOUNDS, false, 0);
    let ids: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for (number, id) in ids.iter().enumerate() {
        let address = number + 1;
        let connect = Connect {
            address,
            ..connect(id, 100, None)
        };
        let session = sessions.connect(connect, now(0)).unwrap().session;
        // Every third client is connected.
        if number % 3 != 0 {
            sessions.disconnect(session, address, End::Lost, now(0));
        }
    }
    sessions.freeze();
    let mut steps = Vec::new();
    while let Some(found) = sessions.next_connected(2, 5) {
        assert!(found.len() <= 2);
        steps.push(found);
    }
    assert!(steps.len() >= 4, "{steps:?}");
    assert_eq!(steps.concat(), [1, 4, 7, 10, 13, 16, 19]);
}

#[test]
fn a_connection_that_connack_refuses_leaves_neither_a_will_nor_a_session() {
    let (mut sessions, session) = awaiting(false);
    // The address is that of another connection.
    sessions.refuse(session, 1);
    assert!(sessions.is_of(session, 2));
    sessions.refuse(session, 2);
    assert!(sessions.is_empty() && sessions.connected_len() == 0);
    assert!(sessions.take_will().is_none() && sessions.wills_bytes == 0);
    assert_eq!(
        saved(&mut sessions, now(5)).restored(BOUNDS, true, now(6)).len(),
        0
    );
}
