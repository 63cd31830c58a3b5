//! How much does it cost the server to store MQTT messages: retained ones, and messages for clients that have left?
//!
//! All clients run on one thread. What is received is checked as in the comparison, whose code this is: each message
//! exactly once, in order, with the right topic, payload, QoS and retain flag.

use std::io;
use std::net::SocketAddr;

use super::super::bench::Bench;
use super::super::clock::now_ns;
use super::super::compare::drive::Load;
use super::super::compare::fresh::{self, Weighed};
use super::super::compare::link::Dialect;
use super::super::mqtt::{Filters, Qos, Sessions, Speech};
use super::super::options::Options;
use super::super::server::Server;
use super::super::tally::Tally;
use super::Scenario;

pub(crate) const RETAINED: Scenario = Scenario {
    name: "retained",
    about: "MQTT: a retained message is set on each of --channels [10000] topics, and read by one wildcard subscription, \
            six times",
    connections: |_| 2,
    run: retained,
};

pub(crate) const SESSIONS: Scenario = Scenario {
    name: "sessions",
    about: "MQTT: --connections [1000] clients subscribe and leave, --messages [10] with QoS 1 come for each, they come \
            back",
    connections: |options| options.connections.unwrap_or(1000),
    run: sessions,
};

fn retained(bench: &mut Bench) -> io::Result<()> {
    let speech = Speech {
        filters: Filters::Prefix,
        retain: true,
        qos: Qos::Zero,
        ..speech(&bench.options)?
    };
    let topics = bench.options.channels.unwrap_or(10_000).max(1);
    store(bench, "retained", speech, (topics, 1))
}

fn sessions(bench: &mut Bench) -> io::Result<()> {
    let speech = Speech {
        sessions: Sessions::Kept,
        qos: Qos::One,
        ..speech(&bench.options)?
    };
    let clients = bench.options.connections.unwrap_or(1000);
    let each = bench.options.messages.unwrap_or(10);
    let each = u32::try_from(each).map_err(io::Error::other)?;
    store(bench, "sessions", speech, (clients, each))
}

fn speech(options: &Options) -> io::Result<Speech> {
    options
        .mqtt()
        .ok_or_else(|| io::Error::other("this scenario needs --protocol mqtt"))
}

/// Does the work as one phase, and notes the figures.
fn store(bench: &mut Bench, name: &str, speech: Speech, (topics, each): (u32, u32)) -> io::Result<()> {
    let load = Load::Store {
        topics,
        each,
        in_flight: 32,
    };
    let (started, cpu_before) = (now_ns(), bench.server.cpu_ns());
    let figures = fresh::figures(load, Dialect::Mqtt(speech), &bench.server);
    let mut tally = Tally::new();
    tally.elapsed_ns = now_ns() - started;
    tally.counts.publications = u64::from(topics) * u64::from(each);
    match figures {
        Ok(figures) => {
            let reads = if speech.retain { fresh::READS + 1 } else { 1 };
            tally.counts.deliveries = tally.counts.publications * u64::from(reads);
            for (figure, value) in figures {
                bench.note(format!("{value:.1} {}", figure.text()));
            }
        }
        Err(text) => tally.faults.add(|| text),
    }
    bench.keep(name, cpu_before, &tally, None);
    Ok(())
}

impl Weighed for Server {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pss_bytes(&self) -> Result<u64, String> {
        // Without a process to look at, the figures are 0.
        Ok(Server::pss_bytes(self).unwrap_or(0))
    }

    fn cpu_us(&self) -> Result<f64, String> {
        Ok(self.cpu_ns().unwrap_or(0) as f64 / 1000.0)
    }
}
