//! Counts the core of a whole server while clients of this process use it. One client at a time sends and waits for all
//! effects of its messages, so each step is one turn of the core, whichever thread runs first.
//!
//! valgrind counts by thread, so the core itself starts and stops the count, at two calls of an event. These calls add
//! one call to the count, which is not in the reported number of operations.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use ringcast::app::{AllowedPublish, App, Call, CallAnswer, Name, Peer, Refusal};
use ringcast::config::Config;
use ringcast::config::channels::{ChannelPolicy, ChannelSpec, HistoryPolicy};
use ringcast::config::rules::{Effect, RuleSpec};
use ringcast::internals::app::builtin::Builtin;
use ringcast::server::Server;

use super::client::Client;
use super::parts::{PING, PUBLISH, PUBLISH_REMEMBERED};
use super::{Section, counted_begins, counted_ends, counting, mqtt};

pub(crate) fn measure_all() -> io::Result<()> {
    // Heartbeats, deadlines and fan-out slices depend on the clock. Under valgrind the clock runs fast compared with
    // the instructions, on a busy machine even more so; so they are switched off.
    let never = |config: &mut Config| {
        config.socketcluster.pings = false;
        config.cores.fan_out_slice = LONG;
        config.limits.request_timeout = LONG;
        config.limits.handshake_timeout = LONG;
    };
    let server = counting::start(1, never, Marked::new);
    let address = server.address();
    let mut marker = connect(address);
    connect_and_close(&mut marker, &server)?;
    for in_flight in [1, 16] {
        ping(&mut marker, address, in_flight)?;
    }
    for in_flight in [1, 8] {
        fan_out(&mut marker, address, "", in_flight)?;
    }
    publish(&mut marker, address, "", PUBLISH)?;
    server.drain();
    server.wait().map_err(io::Error::other)?;

    let server = counting::start(
        1,
        |config| {
            never(config);
            config.channels = vec![remembered()];
        },
        Marked::new,
    );
    let address = server.address();
    let mut marker = connect(address);
    publish(&mut marker, address, " beside remembered ones", PUBLISH)?;
    publish(&mut marker, address, ", remembered", PUBLISH_REMEMBERED)?;
    server.drain();
    server.wait().map_err(io::Error::other)?;
    let server = counting::start(
        1,
        |config| {
            never(config);
            config.permissions.rules = vec![everything()];
        },
        Marked::new,
    );
    let address = server.address();
    let mut marker = connect(address);
    for in_flight in [1, 16] {
        call_service(&mut marker, address, in_flight)?;
    }
    server.drain();
    server.wait().map_err(io::Error::other)?;
    mqtt::measure_all(never)
}

/// A rule that allows every client everything, `serve` included.
fn everything() -> RuleSpec {
    RuleSpec {
        effect: Effect::Allow,
        ..RuleSpec::default()
    }
}

/// A policy that keeps the last 1,000 publications of each room.
fn remembered() -> ChannelSpec {
    ChannelSpec {
        names: vec!["room.*".to_owned()],
        policy: ChannelPolicy {
            history: Some(HistoryPolicy {
                entries_max: 1000,
                bytes_max: 1 << 20,
                age_ms_max: 3_600_000,
            }),
            position: true,
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    }
}

/// Publications that nobody has subscribed to, each acknowledged. When the section begins, the history is full.
pub(crate) fn publish(marker: &mut Client, address: SocketAddr, what: &str, message: &str) -> io::Result<()> {
    let mut publisher = connect(address);
    let messages = [message; 16];
    let mut round = || {
        publisher.send(&messages);
        for _ in &messages {
            publisher.receive();
        }
    };
    (0..FILLING_ROUNDS).for_each(|_| round());
    let name = format!("server: publish{what}, 16 in flight");
    section(marker, &name, (ROUNDS * messages.len()) as u64, || {
        (0..ROUNDS).for_each(|_| round());
        Ok(())
    })
}

/// The application of the binary, which also tells valgrind when a section begins and ends.
pub(crate) struct Marked(Builtin);

impl Marked {
    pub(crate) fn new() -> Marked {
        Marked(Builtin::new())
    }
}

impl App for Marked {
    fn publish_bytes(
        &mut self,
        topic: Name<'_>,
        payload: &[u8],
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        self.0.publish_bytes(topic, payload, peer)
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match call.event.as_str() {
            Some("begins") => counted_begins(),
            Some("ends") => counted_ends(),
            _ => return self.0.invoke(call, peer),
        }
        peer.reply_empty()
    }

    fn transmit(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) {
        self.0.transmit(call, peer);
    }
}

/// Counts the core's work during `work`, which performs `operations` operations.
pub(crate) fn section(
    marker: &mut Client,
    name: &str,
    operations: u64,
    work: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    marker.call(BEGINS);
    let before = counting::asked().allocations;
    work()?;
    let allocations = counting::asked().allocations - before;
    marker.call(ENDS);
    Section::report(name, operations, allocations)
}

pub(crate) fn connect(address: SocketAddr) -> Client {
    Client::connect(Ipv4Addr::LOCALHOST, address)
}

fn connect_and_close(marker: &mut Client, server: &Server) -> io::Result<()> {
    let round = || {
        drop(connect(server.address()));
        // The core must have noticed the close before the next step begins.
        while server.cores()[0].metrics().connections.value() > 1 {
            thread::yield_now();
        }
    };
    (0..WARM_UP_ROUNDS).for_each(|_| round());
    let name = "server: connect, upgrade, handshake, close";
    section(marker, name, CONNECTS, || {
        (0..CONNECTS).for_each(|_| round());
        Ok(())
    })
}

fn ping(marker: &mut Client, address: SocketAddr, in_flight: usize) -> io::Result<()> {
    let mut client = connect(address);
    let messages = vec![PING; in_flight];
    let mut round = || {
        client.send(&messages);
        for _ in 0..in_flight {
            client.receive();
        }
    };
    (0..WARM_UP_ROUNDS).for_each(|_| round());
    let name = format!("server: ping, {in_flight} in flight");
    section(marker, &name, (ROUNDS * in_flight) as u64, || {
        (0..ROUNDS).for_each(|_| round());
        Ok(())
    })
}

/// Calls that a service answers, which is a client of the same core: the count has the caller's side, the owner's and
/// the service's.
fn call_service(marker: &mut Client, address: SocketAddr, in_flight: usize) -> io::Result<()> {
    let (mut caller, mut service) = (connect(address), connect(address));
    service.call(SERVE);
    let messages = vec![CALL; in_flight];
    let mut round = || {
        caller.send(&messages);
        let answers: Vec<String> = (0..in_flight).map(|_| answer_to(&service.receive())).collect();
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        service.send(&answers);
        for _ in 0..in_flight {
            caller.receive();
        }
    };
    (0..WARM_UP_ROUNDS).for_each(|_| round());
    let name = format!("server: call of a service, {in_flight} in flight");
    section(marker, &name, (ROUNDS * in_flight) as u64, || {
        (0..ROUNDS).for_each(|_| round());
        Ok(())
    })
}

/// The service's answer to a call.
fn answer_to(call: &str) -> String {
    let cid = call.split_once(r#""cid":"#).map_or("", |(_, rest)| rest);
    let digits = cid.split(|digit: char| !digit.is_ascii_digit()).next();
    format!(r#"{{"rid":{},"data":{{"count":7}}}}"#, digits.unwrap_or("0"))
}

/// The publisher is not a subscriber: it receives acknowledgements, the other clients receive publications.
pub(crate) fn fan_out(
    marker: &mut Client,
    address: SocketAddr,
    what: &str,
    in_flight: usize,
) -> io::Result<()> {
    let mut publisher = connect(address);
    let mut subscribers: Vec<Client> = (0..SUBSCRIBERS).map(|_| connect(address)).collect();
    for subscriber in &mut subscribers {
        subscriber.call(SUBSCRIBE);
    }
    let messages = vec![PUBLISH; in_flight];
    let mut round = || {
        publisher.send(&messages);
        for client in subscribers.iter_mut().chain([&mut publisher]) {
            for _ in 0..in_flight {
                client.receive();
            }
        }
    };
    (0..WARM_UP_ROUNDS).for_each(|_| round());
    let rounds = FAN_OUT_ROUNDS;
    let deliveries = rounds * in_flight * SUBSCRIBERS;
    let name = format!("server: delivery{what}, 1 to {SUBSCRIBERS}, {in_flight} in flight");
    section(marker, &name, deliveries as u64, || {
        (0..rounds).for_each(|_| round());
        Ok(())
    })
}

const LONG: Duration = Duration::from_secs(3600);
pub(crate) const WARM_UP_ROUNDS: usize = 20;
pub(crate) const ROUNDS: usize = 200;
/// Enough for 1,000 publications.
const FILLING_ROUNDS: usize = 80;
pub(crate) const FAN_OUT_ROUNDS: usize = 10;
pub(crate) const CONNECTS: u64 = 500;
pub(crate) const SUBSCRIBERS: usize = 200;
const BEGINS: &str = r#"{"event":"begins","cid":1}"#;
const ENDS: &str = r#"{"event":"ends","cid":1}"#;
const SERVE: &str = r#"{"event":"$serve","data":{"procedure":"math.*"},"cid":3}"#;
const CALL: &str = r#"{"event":"math.add","data":{"param":"hello"},"cid":2}"#;
const SUBSCRIBE: &str = r##"{"event":"#subscribe","data":{"channel":"all"},"cid":3}"##;
