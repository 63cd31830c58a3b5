//! Random lives of a session beside a small model of its client.

use super::*;

/// A client as the specification has it, and the network between it and the server.
#[derive(Default)]
struct ModelClient {
    /// Packets that the server has sent and the client has not read.
    to_client: VecDeque<Got>,
    /// QoS 2 publications that the client has and that are not released.
    received: BTreeSet<u16>,
    /// The packets that the client has yet to answer, in any order.
    owed: Vec<(Answer, u16)>,
    /// The client's own publications with QoS 2: identifier, and whether PUBREC has come.
    own: BTreeMap<u16, bool>,
    /// Every publication that its application got, by QoS.
    got: [Vec<u32>; 3],
}

struct Life {
    random: Random,
    sessions: Sessions,
    client: ModelClient,
    session: Option<SessionRef>,
    address: usize,
    expiry_s: u32,
    receive_maximum: u16,
    at_ms: u64,
    ends_at: Option<u64>,
    /// The publications that the session accepted, by QoS.
    accepted: [Vec<u32>; 3],
    next: u32,
}

impl Life {
    fn now(&self) -> Now {
        Now {
            uptime: Uptime::from_ms(self.at_ms),
            unix_ms: UNIX_MS + self.at_ms,
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.cut(),
            1 | 2 => self.connect(),
            3..=9 => self.publish(),
            10..=15 => self.read_and_answer(),
            16 => self.at_ms += self.random.below(3_000),
            17 => self.send_own(),
            18 => self.sessions.end_due(self.now().uptime),
            _ => self.flush(false),
        }
        self.check();
    }

    /// The session has ended on both sides: all exchanges are void.
    fn forget(&mut self) {
        self.client = ModelClient::default();
        self.accepted = Default::default();
        self.session = None;
    }

    fn cut(&mut self) {
        if self.address == 0 {
            return;
        }
        let address = std::mem::take(&mut self.address);
        let end = match self.random.below(3) {
            0 => End::Lost,
            with => End::Orderly {
                with_will: with == 1,
                expiry_s: None,
            },
        };
        let session = self.session.unwrap();
        let now = self.now();
        self.sessions.disconnect(session, address, end, now);
        self.client.to_client.clear();
        self.client.owed.clear();
        if self.expiry_s == 0 {
            self.forget();
        } else {
            self.ends_at = (self.expiry_s != NEVER).then(|| self.at_ms + u64::from(self.expiry_s) * 1000);
        }
    }

    fn connect(&mut self) {
        let clean_start = self.random.one_in(5);
        let expiry_s = [0, 2, 5, NEVER][self.random.below(4) as usize];
        let receive_maximum = [1, 3, 65_535][self.random.below(3) as usize];
        let address = 1 + self.random.below(1 << 40) as usize;
        let is_over =
            self.ends_at.is_some_and(|at| at <= self.at_ms) || (self.address != 0 && self.expiry_s == 0);
        let connect = Connect {
            clean_start,
            expiry_s,
            receive_maximum,
            ..by("c", address)
        };
        let now = self.now();
        let connected = self.sessions.connect(connect, now).unwrap();
        let is_present = self.session.is_some() && !is_over && !clean_start;
        assert_eq!(connected.is_present, is_present);
        assert_eq!(connected.displaced, (self.address != 0).then_some(self.address));
        self.client.to_client.clear();
        self.client.owed.clear();
        if !is_present {
            self.forget();
        }
        (self.session, self.address, self.ends_at) = (Some(connected.session), address, None);
        (self.expiry_s, self.receive_maximum) = (expiry_s, receive_maximum);
        // The client goes on with its own publications.
        for (id, is_received) in self.client.own.clone() {
            if is_received {
                assert!(self.sessions.release_qos2(connected.session, id), "{id}");
                self.client.own.remove(&id);
            } else {
                assert_eq!(
                    self.sessions.receive_qos2(connected.session, id),
                    Incoming::Duplicate
                );
            }
        }
    }

    fn publish(&mut self) {
        let Some(session) = self.session else { return };
        if self.ends_at.is_some_and(|at| at <= self.at_ms) {
            return;
        }
        let level = 1 + self.random.below(2) as u8;
        let number = self.next;
        self.next += 1;
        let bytes = number.to_be_bytes();
        let has_room = !self.random.one_in(4);
        match self
            .sessions
            .offer(session, qos(level), &content(&bytes), &[], has_room)
        {
            Offer::Send { packet_id } => {
                assert!(self.address != 0 && has_room);
                self.client
                    .to_client
                    .push_back(publish(&bytes, level, packet_id, false));
                self.accepted[level as usize].push(number);
            }
            Offer::Waits => self.accepted[level as usize].push(number),
            Offer::Dropped => {
                assert!(self.sessions.outgoing_len(session).1 >= BOUNDS.queue_messages_max.min(20))
            }
        }
        self.sessions.end_publication();
    }

    /// The core sends the waiting packets: all, or as many as the outbox takes.
    fn flush(&mut self, all: bool) {
        let unix_ms = self.now().unix_ms;
        while let Some(session) = self.sessions.next_ready() {
            let mut room = if all { u64::MAX } else { self.random.below(4) };
            loop {
                if room == 0 {
                    self.sessions.put_back(session);
                    return;
                }
                room -= 1;
                let to_client = &mut self.client.to_client;
                let write = |client: Client, packet: &Packet<'_>| {
                    assert_eq!(client.address, self.address);
                    to_client.push_back(read(packet));
                    Written::Queued
                };
                if self.sessions.send_next(session, unix_ms, write) == Sent::Nothing {
                    break;
                }
            }
        }
    }

    fn read_and_answer(&mut self) {
        let Some(session) = self.session.filter(|_| self.address != 0) else {
            return;
        };
        let client = &mut self.client;
        for _ in 0..self.random.below(4) {
            match client.to_client.pop_front() {
                None => break,
                Some(Got::Publish { payload, qos, id, .. }) => {
                    let number = u32::from_be_bytes(payload.try_into().unwrap());
                    if qos == 1 || client.received.insert(id) {
                        client.got[qos as usize].push(number);
                    }
                    client.owed.push(match qos {
                        1 => (Answer::Acknowledged, id),
                        _ => (Answer::Received, id),
                    });
                }
                Some(Got::Release(id)) => {
                    client.received.remove(&id);
                    client.owed.push((Answer::Complete, id));
                }
            }
        }
        for _ in 0..self.random.below(4) {
            if client.owed.is_empty() {
                break;
            }
            // MQTT-4.6.0-2 and -3: a client acknowledges in order; one that does not must not break the session.
            let at = if self.random.one_in(4) {
                self.random.below(client.owed.len() as u64) as usize
            } else {
                0
            };
            match client.owed.remove(at) {
                (Answer::Acknowledged, id) => {
                    self.sessions.puback(session, id);
                }
                (Answer::Received, id) => {
                    if self.sessions.pubrec(session, id, false) == Acknowledged::Known {
                        client.to_client.push_back(Got::Release(id));
                    }
                }
                (_, id) => {
                    self.sessions.pubcomp(session, id);
                }
            }
        }
    }

    fn send_own(&mut self) {
        let Some(session) = self.session.filter(|_| self.address != 0) else {
            return;
        };
        let id = 1 + self.random.below(5) as u16;
        match self.client.own.get(&id) {
            None => {
                assert_eq!(self.sessions.receive_qos2(session, id), Incoming::New);
                self.client.own.insert(id, false);
            }
            Some(false) => {
                assert_eq!(self.sessions.receive_qos2(session, id), Incoming::Duplicate);
                self.client.own.insert(id, true);
            }
            Some(true) => {
                assert!(self.sessions.release_qos2(session, id));
                self.client.own.remove(&id);
            }
        }
        assert_eq!(self.sessions.incoming_len(session), self.client.own.len());
    }

    fn check(&self) {
        let is_over = self.ends_at.is_some_and(|at| at <= self.at_ms);
        if let Some(session) = self.session
            && !is_over
        {
            assert!(self.sessions.exists(session));
            let (in_flight, _) = self.sessions.outgoing_len(session);
            assert!(in_flight <= 3 * usize::from(BOUNDS.in_flight_max));
        }
        let client = &self.client;
        // With QoS 2 exactly once, and in order. With QoS 1, the first copies come in order.
        assert!(
            client.got[2]
                .iter()
                .eq(self.accepted[2].iter().take(client.got[2].len()))
        );
        let mut first = BTreeSet::new();
        let firsts = client.got[1].iter().filter(|&&number| first.insert(number));
        let firsts: Vec<u32> = firsts.copied().collect();
        assert!(firsts.iter().eq(self.accepted[1].iter().take(firsts.len())));
    }

    /// In the end a client that stays connected gets everything.
    fn settle(&mut self) {
        while self.address == 0 {
            self.connect();
        }
        for _ in 0..10_000 {
            self.flush(true);
            self.read_and_answer();
        }
        self.check();
        let session = self.session.unwrap();
        assert_eq!(self.sessions.outgoing_len(session), (0, 0));
        assert_eq!(self.client.got[2], self.accepted[2]);
        let got: BTreeSet<_> = self.client.got[1].iter().collect();
        assert!(got.into_iter().eq(&self.accepted[1]));
        assert_eq!((self.sessions.kept.len(), self.sessions.kept_bytes()), (0, 0));
        assert!(self.sessions.deadlines.is_empty());
    }
}

#[test]
fn random_lives_of_a_session_agree_with_the_client() {
    let seeds = match std::env::var("RINGCAST_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 1..=300_u64,
    };
    for seed in seeds {
        println!("RINGCAST_SEED={seed}");
        let mut random = Random(seed);
        let bounds = Bounds {
            queue_messages_max: [20, 1000][random.below(2) as usize],
            in_flight_max: [1, 7, 100][random.below(3) as usize],
            ..BOUNDS
        };
        let mut life = Life {
            random,
            sessions: sessions(bounds),
            client: ModelClient::default(),
            session: None,
            address: 0,
            expiry_s: 0,
            receive_maximum: 0,
            at_ms: 0,
            ends_at: None,
            accepted: Default::default(),
            next: 0,
        };
        for _ in 0..1000 {
            life.step();
        }
        life.settle();
    }
}
