//! rumqttc against a running server, in both versions of the protocol. usage: ringcast-rumqttc HOST PORT
//!
//! The last line is `N passed, N failed`; the exit status is 1 if any failed.

mod cut;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cut::Cut;

/// The longest wait for anything, however busy the machine is. Only failing checks wait so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Publications of a round.
const COUNT: usize = 40;

/// A publication: its topic, payload and QoS.
type Publication = (String, String, u8);

/// A client of one version.
trait Client: Sized {
    const VERSION: &str;

    fn begin(id: &str, address: (&str, u16), is_clean: bool) -> Self;
    /// The next packet that has come; `None` if the connection was lost, and is made anew by the next call.
    fn poll(&mut self) -> Option<Incoming>;
    fn send_subscribe(&mut self, filter: &str, qos: u8);
    fn send_publish(&mut self, topic: &str, qos: u8, payload: String);
    fn send_disconnect(&mut self);
}

/// What has come.
enum Incoming {
    /// Whether the session was present.
    Connected(bool),
    /// The granted QoS.
    Granted(Option<u8>),
    Publication(Publication),
    /// PUBACK, or PUBCOMP.
    Acknowledged,
    Other,
}

/// Implements [`Client`] for the types of one version, whose names are the same.
macro_rules! client {
    ($name:ident, $version:literal, $($module:ident)::*, $suback:pat => $granted:expr, $topic:expr, $clean:ident, $more:expr) => {
        struct $name($($module)::*::Client, $($module)::*::Connection);

        impl Client for $name {
            const VERSION: &str = $version;

            fn begin(id: &str, (host, port): (&str, u16), is_clean: bool) -> $name {
                let mut options = $($module)::*::MqttOptions::new(id, host, port);
                options.set_keep_alive(Duration::from_secs(60)).$clean(is_clean);
                $more(&mut options);
                let (client, connection) = $($module)::*::Client::new(options, 2 * COUNT);
                $name(client, connection)
            }

            fn poll(&mut self) -> Option<Incoming> {
                use $($module)::*::{Event, Incoming as Packet};
                let event = self.1.recv_timeout(PATIENCE).expect("nothing has come");
                let Ok(Event::Incoming(packet)) = event else {
                    return event.is_ok().then_some(Incoming::Other);
                };
                Some(match packet {
                    Packet::ConnAck(answer) => Incoming::Connected(answer.session_present),
                    Packet::SubAck(answer) => Incoming::Granted(match answer.return_codes[0] {
                        $suback => Some($granted),
                        _ => None,
                    }),
                    Packet::Publish(publish) => {
                        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                        Incoming::Publication(($topic(&publish.topic), payload, publish.qos as u8))
                    }
                    Packet::PubAck(_) | Packet::PubComp(_) => Incoming::Acknowledged,
                    _ => Incoming::Other,
                })
            }

            fn send_subscribe(&mut self, filter: &str, qos: u8) {
                let qos = $($module)::*::mqttbytes::qos(qos).expect("0 to 2");
                self.0.subscribe(filter, qos).expect("room for a request");
            }

            fn send_publish(&mut self, topic: &str, qos: u8, payload: String) {
                let qos = $($module)::*::mqttbytes::qos(qos).expect("0 to 2");
                self.0.publish(topic, qos, false, payload).expect("room for a request");
            }

            fn send_disconnect(&mut self) {
                self.0.disconnect().expect("room for a request");
            }
        }
    };
}

client!(
    Old,
    "3.1.1",
    rumqttc,
    rumqttc::SubscribeReasonCode::Success(qos) => qos as u8,
    |topic: &String| topic.clone(),
    set_clean_session,
    |_: &mut rumqttc::MqttOptions| {}
);
client!(
    New,
    "5",
    rumqttc::v5,
    rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success(qos) => qos as u8,
    |topic: &[u8]| String::from_utf8_lossy(topic).into_owned(),
    set_clean_start,
    |options: &mut rumqttc::v5::MqttOptions| _ = options.set_session_expiry_interval(Some(600))
);

/// A connected client, with received publications that no check has taken yet.
struct Session<C> {
    client: C,
    publications: VecDeque<Publication>,
    acknowledged: usize,
    /// The answers to its connections.
    connected: Vec<bool>,
}

impl<C: Client> Session<C> {
    fn begin(id: &str, address: (&str, u16), is_clean: bool) -> Session<C> {
        let mut session = Session {
            client: C::begin(id, address, is_clean),
            publications: VecDeque::new(),
            acknowledged: 0,
            connected: Vec::new(),
        };
        session.until(|session| !session.connected.is_empty());
        session
    }

    /// Takes packets until a condition holds. Returns the QoS that was granted last.
    fn until(&mut self, holds: impl Fn(&Session<C>) -> bool) -> Option<u8> {
        let end = Instant::now() + PATIENCE;
        let mut granted = None;
        while !holds(self) {
            assert!(Instant::now() < end, "it takes too long");
            match self.client.poll() {
                Some(Incoming::Connected(is_present)) => self.connected.push(is_present),
                Some(Incoming::Granted(qos)) => granted = qos,
                Some(Incoming::Publication(publication)) => self.publications.push_back(publication),
                Some(Incoming::Acknowledged) => self.acknowledged += 1,
                Some(Incoming::Other) | None => {}
            }
        }
        granted
    }

    fn subscribe(&mut self, filter: &str, qos: u8) -> Option<u8> {
        self.client.send_subscribe(filter, qos);
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "no SUBACK");
            match self.client.poll() {
                Some(Incoming::Granted(qos)) => return qos,
                Some(Incoming::Publication(publication)) => self.publications.push_back(publication),
                Some(_) | None => {}
            }
        }
    }

    /// Publishes so many and waits until all are acknowledged.
    fn publish(&mut self, topic: &str, qos: u8, payloads: impl Iterator<Item = usize>) {
        let before = self.acknowledged;
        let mut count = 0;
        for payload in payloads {
            self.client.send_publish(topic, qos, payload.to_string());
            count += usize::from(qos > 0);
        }
        self.until(|session| session.acknowledged >= before + count);
    }

    /// Takes so many publications.
    fn take(&mut self, count: usize) -> Vec<Publication> {
        self.until(|session| session.publications.len() >= count);
        self.publications.drain(..).collect()
    }

    fn leave(mut self) {
        self.client.send_disconnect();
        while self.client.poll().is_some() {}
    }
}

/// The checks of a run.
#[derive(Default)]
struct Checks {
    passed: usize,
    failed: usize,
}

impl Checks {
    fn check<T: Debug + PartialEq>(&mut self, name: &str, found: T, expected: T) {
        if found == expected {
            self.passed += 1;
            println!("PASS {name}");
        } else {
            self.failed += 1;
            println!("FAIL {name}\n  found    {found:?}\n  expected {expected:?}");
        }
    }
}

fn expected(topic: &str, qos: u8, payloads: impl Iterator<Item = usize>) -> Vec<Publication> {
    payloads
        .map(|payload| (topic.to_owned(), payload.to_string(), qos))
        .collect()
}

fn run<C: Client>(address: (&str, u16), checks: &mut Checks) {
    let version = C::VERSION;
    let fresh = |what: &str| format!("rumqttc/{version}/{}/{what}", std::process::id());
    for qos in 0..3 {
        let topic = fresh(&format!("qos{qos}"));
        let mut subscriber = Session::<C>::begin(&fresh("subscriber"), address, true);
        let mut publisher = Session::<C>::begin(&fresh("publisher"), address, true);
        let name = format!("{version}, QoS {qos}");
        checks.check(
            &format!("{name}: granted"),
            subscriber.subscribe(&topic, qos),
            Some(qos),
        );
        publisher.publish(&topic, qos, 0..COUNT);
        // rumqttc sends waiting publications without an acknowledgement when it is polled for received packets.
        publisher.publish(&topic, 1, COUNT..COUNT + 1);
        let mut all = expected(&topic, qos, 0..COUNT);
        all.extend(expected(&topic, qos.min(1), COUNT..COUNT + 1));
        let found = subscriber.take(COUNT + 1);
        checks.check(&format!("{name}: each one once, in order"), found, all);
        publisher.leave();
        subscriber.leave();
    }

    let topic = fresh("kept");
    let id = fresh("keeps its session");
    let mut publisher = Session::<C>::begin(&fresh("publisher"), address, true);
    let mut keeper = Session::<C>::begin(&id, address, false);
    checks.check(&format!("{version}: a new session"), keeper.connected[0], false);
    keeper.subscribe(&topic, 2);
    // Without DISCONNECT.
    drop(keeper);
    publisher.publish(&topic, 1, 0..COUNT);
    publisher.publish(&topic, 2, COUNT..2 * COUNT);
    let mut keeper = Session::<C>::begin(&id, address, false);
    checks.check(
        &format!("{version}: the session is kept"),
        keeper.connected[0],
        true,
    );
    let mut all = expected(&topic, 1, 0..COUNT);
    all.extend(expected(&topic, 2, COUNT..2 * COUNT));
    checks.check(
        &format!("{version}: what was published meanwhile"),
        keeper.take(2 * COUNT),
        all,
    );

    // The publisher's connection is cut in the middle, and rumqttc connects again by itself.
    let cut = Cut::between(address);
    let mut cut_off = Session::<C>::begin(&fresh("is cut off"), ("127.0.0.1", cut.port()), false);
    for payload in 0..COUNT {
        cut_off.client.send_publish(&topic, 2, payload.to_string());
    }
    cut_off.until(|session| session.acknowledged >= COUNT / 4);
    cut.cut();
    cut_off.until(|session| session.connected.len() >= 2 && session.acknowledged >= COUNT);
    checks.check(
        &format!("{version}: its session is kept over a cut"),
        cut_off.connected,
        vec![false, true],
    );
    // Behind the last of them comes this one.
    publisher.publish(&topic, 2, COUNT..COUNT + 1);
    let last = COUNT.to_string();
    keeper.until(|session| {
        session
            .publications
            .back()
            .is_some_and(|(_, payload, _)| *payload == last)
    });
    let payloads = keeper
        .publications
        .drain(..)
        .map(|(_, payload, _)| payload.parse());
    let mut numbers: Vec<usize> = payloads.map(|number| number.expect("a number")).collect();
    numbers.sort_unstable();
    checks.check(
        &format!("{version}: each one with QoS 2 comes once, whatever was cut"),
        numbers,
        (0..=COUNT).collect(),
    );
    keeper.leave();
    publisher.leave();
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(host), Some(port)) = (words.next(), words.next().and_then(|port| port.parse().ok())) else {
        eprintln!("usage: ringcast-rumqttc HOST PORT");
        return ExitCode::from(2);
    };
    let mut checks = Checks::default();
    run::<Old>((&host, port), &mut checks);
    run::<New>((&host, port), &mut checks);
    println!("{} passed, {} failed", checks.passed, checks.failed);
    ExitCode::from(u8::from(checks.failed > 0))
}
