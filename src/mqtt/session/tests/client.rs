//! A client with everything that a core lends its session, and a clock that the test moves; and packets of
//! clients, byte by byte as in the specification.

use std::time::Duration;

use crate::app::builtin::Builtin;
use crate::app::{App, SessionId};
use crate::auth::rules::Rules;
use crate::auth::{Claims, Tokens};
use crate::broker::ChannelHasher;
use crate::clock::{Now, Uptime};
use crate::config::QueueFull;
use crate::config::rules::{Effect, RuleSpec};
use crate::decision::{CloseReason, Decision, Decisions, Stored};
use crate::mqtt::environment::Environment;
use crate::mqtt::publication;
use crate::mqtt::session::Session;
use crate::mqtt::sessions::{Bounds, CoreLocation, Sessions};
use crate::mqtt::settings::MqttSettings;
use crate::policy::Policy;
use crate::session;

/// The sessions of a core, and the values that it lends them.
pub(super) struct Core<A: App> {
    pub(super) common: session::CommonSettings,
    pub(super) settings: MqttSettings,
    pub(super) policy: Policy,
    pub(super) sessions: Sessions,
    pub(super) app: A,
    pub(super) scratch: session::Scratch,
    pub(super) now: Now,
    /// How much of a session a turn goes through when its client resumes it.
    pub(super) resumed_per_turn: usize,
    /// How many turns the last resuming client took.
    pub(super) resumed_in: usize,
    connections: usize,
}

/// One connection.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) address: usize,
}

/// The next step of a core after one packet.
#[derive(Debug, PartialEq)]
pub(super) enum NextStep {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Publish: topic, QoS, RETAIN, payload.
    Publish(String, u8, bool, Vec<u8>),
    /// Send retained publications: filter, QoS, subscription identifier.
    SendRetained(String, u8, u32),
    /// End another connection.
    EndOther(usize, CloseReason),
    /// Check a password.
    Login(String, Vec<u8>),
    /// Go on when the session is on disk.
    SaveSession,
    /// Acknowledge a stored publication.
    Acknowledge(Vec<u8>),
    /// End this connection.
    Close(CloseReason),
}

pub(super) fn core() -> Core<Builtin> {
    core_with(Builtin::new())
}

pub(super) fn core_with<A: App>(app: A) -> Core<A> {
    let bounds = Bounds {
        sessions_max: 100,
        queue_messages_max: 100,
        queue_bytes_max: 1 << 20,
        queues_bytes_max: 1 << 20,
        in_flight_max: 20,
        wills_bytes_max: 4096,
        queue_full: QueueFull::DropNewest,
        queues_qos0: false,
    };
    let place = CoreLocation {
        core: 0,
        cores: 1,
        hasher: ChannelHasher::new(),
    };
    Core {
        common: session::CommonSettings::default(),
        settings: MqttSettings::default(),
        policy: Policy::with_tokens(tokens()),
        sessions: Sessions::new(bounds, place),
        app,
        scratch: session::Scratch::new(),
        now: Now {
            uptime: Uptime::from_ms(5_000),
            unix_ms: 1_000_000_000,
        },
        resumed_per_turn: 1,
        resumed_in: 0,
        connections: 0,
    }
}

pub(super) fn tokens() -> Tokens {
    Tokens::from_secret(b"secret", None).expect("a secret of any length will do")
}

impl<A: App> Core<A> {
    /// A connection whose CONNECT has not come.
    pub(super) fn client(&mut self) -> Client {
        self.client_with(None)
    }

    pub(super) fn client_with(&mut self, claims: Option<&str>) -> Client {
        self.connections += 1;
        let mut id = [0; SessionId::BYTES];
        id[0] = u8::try_from(self.connections).unwrap();
        let claims = claims.map(|json| Box::new(Claims::trusted(json.to_owned(), None)));
        Client {
            session: Session::new(SessionId::new(id), self.now, claims),
            address: self.connections,
        }
    }

    /// A client that has got CONNACK.
    pub(super) fn open(&mut self, packet: &[u8]) -> Client {
        let mut client = self.client();
        let did = self.receive(&mut client, packet);
        assert!(client.session.is_open(), "{did:?}");
        client
    }

    pub(super) fn receive(&mut self, client: &mut Client, packet: &[u8]) -> Vec<NextStep> {
        let (first, body) = split(packet);
        self.run(client, |session, env, decisions| {
            session.receive(first, body, env, decisions)
        })
    }

    /// The session of a client is on disk, or cannot be.
    pub(super) fn saved(&mut self, client: &mut Client, outcome: Stored) -> Vec<NextStep> {
        self.run(client, |session, env, decisions| {
            session.saved(outcome, env, decisions)
        })
    }

    /// Handles a packet in as many parts as it takes. Returns the decisions of each part.
    pub(super) fn receive_parts(&mut self, client: &mut Client, packet: &[u8]) -> Vec<Vec<NextStep>> {
        let mut parts = vec![self.receive(client, packet)];
        while client.session.has_more() {
            parts.push(self.run(client, |session, env, decisions| {
                session.receive_more(env, decisions)
            }));
        }
        parts
    }

    pub(super) fn tick(&mut self, client: &mut Client) -> Vec<NextStep> {
        self.run(client, |session, env, decisions| {
            session.timed_out(env, decisions)
        })
    }

    pub(super) fn wait_s(&mut self, seconds: u64) {
        self.now.uptime = self.now.uptime + Duration::from_secs(seconds);
        self.now.unix_ms += seconds * 1000;
    }

    /// The connection ends.
    pub(super) fn end(&mut self, client: &mut Client, reason: CloseReason) {
        self.run(client, |session, env, _| {
            session.ended(env, reason);
            Ok(())
        });
    }

    /// Users are checked by passwords; the test gives the answers of the password checks.
    pub(super) fn check_passwords(&mut self) {
        self.policy = self.policy.clone().with_password_checks();
    }

    pub(super) fn allow(&mut self, rules: &[RuleSpec]) {
        self.policy.rules = Rules::compile(rules, &[], '/', Some(&self.policy.rules)).unwrap();
    }

    pub(super) fn run(
        &mut self,
        client: &mut Client,
        act: impl FnOnce(&mut Session, &mut Environment<'_, '_, A>, &mut Decisions) -> Result<(), CloseReason>,
    ) -> Vec<NextStep> {
        let mut decisions = Decisions::new();
        let mut common = session::Environment {
            now: self.now,
            address: client.address,
            settings: &self.common,
            policy: &self.policy,
            app: &mut self.app,
            scratch: &mut self.scratch,
            packets_max: 256,
        };
        let mut env = Environment {
            common: &mut common,
            settings: &self.settings,
            sessions: &mut self.sessions,
        };
        let result = act(&mut client.session, &mut env, &mut decisions);
        let mut did = Vec::new();
        for decision in decisions.list() {
            let mut from = matches!(decision, Decision::ResumeSession).then_some(0);
            if let Decision::KickOutAll { reason } = decision {
                let (max, reason) = (self.resumed_per_turn, reason.map(|span| decisions.bytes(span)));
                let mut from = Some(0);
                while let Some(at) = from {
                    let kicked_out = client
                        .session
                        .kick_out_some(at, max, reason.unwrap_or(b""), &mut env);
                    assert!(kicked_out.filters.len() <= max);
                    from = kicked_out.next;
                }
            } else if from.is_none() {
                did.push(shown(*decision, &decisions));
            }
            while let Some(at) = from {
                self.resumed_in = if at == 0 { 1 } else { self.resumed_in + 1 };
                let max = self.resumed_per_turn;
                from = client.session.resume_some(at, max, &mut env).next;
            }
        }
        if let Err(reason) = result
            && did.last() != Some(&NextStep::Close(reason))
        {
            did.push(NextStep::Close(reason));
        }
        did
    }

    /// The last packet of a connection that ends for this reason.
    pub(super) fn farewell(&self, client: &Client, reason: CloseReason, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        client
            .session
            .write_farewell(reason, text, &self.settings, &mut out);
        out
    }
}

fn shown(decision: Decision, decisions: &Decisions) -> NextStep {
    match decision {
        Decision::Send { message } => NextStep::Send(decisions.bytes(message).to_vec()),
        Decision::Publish(publish) => {
            let view = publication::read(decisions.bytes(publish.message)).unwrap();
            // A server that retains nothing still passes the flag on.
            assert!(view.head.retain || !publish.retain);
            assert_eq!(view.payload.len(), publish.payload_bytes as usize);
            let topic = String::from_utf8(decisions.bytes(publish.channel).to_vec()).unwrap();
            NextStep::Publish(topic, view.head.qos, view.head.retain, view.payload.to_vec())
        }
        Decision::EndOther { connection, reason } => NextStep::EndOther(connection, reason),
        Decision::Login => {
            let credentials = decisions.credentials().unwrap();
            NextStep::Login(credentials.user.clone(), credentials.password.expose().to_vec())
        }
        Decision::Acknowledge { token } => NextStep::Acknowledge(decisions.bytes(token).to_vec()),
        Decision::SaveSession => NextStep::SaveSession,
        Decision::Close { reason, .. } => NextStep::Close(reason),
        Decision::SendRetained { filter, qos, id, .. } => {
            let filter = String::from_utf8(decisions.bytes(filter).to_vec()).unwrap();
            NextStep::SendRetained(filter, qos, id)
        }
        other => panic!("{other:?}"),
    }
}

/// The first byte of a packet, and the bytes behind its fixed header.
pub(super) fn split(packet: &[u8]) -> (u8, &[u8]) {
    let behind = packet[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 2;
    (packet[0], &packet[behind..])
}

/// A packet with this body.
pub(super) fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut out = vec![first];
    out.extend(variable(body.len()));
    out.extend(body);
    out
}

pub(super) fn variable(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        out.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return out;
        }
    }
}

/// Bytes with their number in front.
pub(super) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend(text);
    out
}

/// Properties with their length in front.
pub(super) fn properties(all: &[&[u8]]) -> Vec<u8> {
    let all = all.concat();
    let mut out = variable(all.len());
    out.extend(all);
    out
}

/// CONNECT, to be changed by a test.
#[derive(Clone)]
pub(super) struct Connect {
    pub(super) level: u8,
    pub(super) clean: bool,
    pub(super) keep_alive: u16,
    pub(super) id: &'static str,
    pub(super) properties: Vec<u8>,
    /// Flags, properties (of MQTT 5), topic and payload.
    pub(super) will: Option<(u8, Vec<u8>, &'static str, &'static [u8])>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Vec<u8>>,
}

/// CONNECT of this level, with Clean Start and without a keep alive.
pub(super) fn connect(level: u8, id: &'static str) -> Connect {
    Connect {
        level,
        clean: true,
        keep_alive: 0,
        id,
        properties: Vec::new(),
        will: None,
        user: None,
        password: None,
    }
}

impl Connect {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let name = if self.level == 3 { "MQIsdp" } else { "MQTT" };
        let mut flags = u8::from(self.clean) << 1;
        flags |= self.will.as_ref().map_or(0, |(flags, ..)| flags | 4);
        flags |= u8::from(self.user.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        let mut body = string(name);
        body.extend([self.level, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.level == 5 {
            body.extend(properties(&[&self.properties]));
        }
        body.extend(string(self.id));
        if let Some((_, of_will, topic, payload)) = &self.will {
            if self.level == 5 {
                body.extend(properties(&[of_will]));
            }
            body.extend(string(topic));
            body.extend(string(payload));
        }
        body.extend(self.user.iter().flat_map(string));
        body.extend(self.password.iter().flat_map(string));
        packet(0x10, &[&body])
    }
}

/// PUBLISH. `properties` is absent before MQTT 5.
pub(super) fn publish(flags: u8, topic: &str, id: u16, of_it: Option<&[u8]>, payload: &[u8]) -> Vec<u8> {
    let id = if flags & 6 == 0 {
        Vec::new()
    } else {
        id.to_be_bytes().to_vec()
    };
    let of_it = of_it.map_or_else(Vec::new, |of_it| properties(&[of_it]));
    packet(0x30 | flags, &[&string(topic), &id, &of_it, payload])
}

/// SUBSCRIBE with these filters and options.
pub(super) fn subscribe(level: u8, id: u16, of_it: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level == 5 {
        body.extend(properties(&[of_it]));
    }
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &[&body])
}

/// A rule that allows these actions on these topics to all clients.
pub(super) fn allow(channels: &[&str]) -> RuleSpec {
    RuleSpec {
        effect: Effect::Allow,
        channels: Some(channels.iter().map(|&name| name.to_owned()).collect()),
        ..RuleSpec::default()
    }
}

/// The packets that are sent, if there are no other decisions but to ask for retained publications.
pub(super) fn sent(did: &[NextStep]) -> Vec<&[u8]> {
    did.iter()
        .filter(|did| !matches!(did, NextStep::SendRetained(..)))
        .map(|did| match did {
            NextStep::Send(bytes) => &bytes[..],
            other => panic!("{other:?}"),
        })
        .collect()
}
