//! The measures, and the targets of Ringcast.

mod mqtt;

use super::super::mqtt::{Qos, Speech};
use super::contender::{BEFORE, BUN, ECHO, FLOOR, Kind, MOSQUITTO, NATS, RINGCAST, SOCKETCLUSTER};
use super::drive::Load;
use super::link::Dialect;
use super::result::Unit;

pub(crate) use mqtt::MQTT_MEASURES;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) load: Load,
    /// How the clients speak, if the servers speak MQTT.
    pub(crate) speech: Speech,
    /// Of a server that is started anew for this measure; `None` if the measure is CPU time of a running server.
    pub(crate) fresh: Option<Fresh>,
    pub(crate) bounds: &'static [Bound],
}

/// A figure of a server that is started for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fresh {
    /// Bytes of an idle connection.
    Connection,
    /// Bytes of a session whose client has left.
    Session,
    /// Bytes of a message that waits in such a session.
    QueuedMessage,
    /// CPU time of queueing it.
    Queueing,
    /// CPU time of a message when its client comes back, with the connection.
    ComingBack,
    /// Bytes of a retained message.
    RetainedMessage,
    /// CPU time of setting it.
    Retaining,
    /// CPU time of sending it to a new subscription.
    Reading,
}

/// A limit on Ringcast's cost divided by the cost of the server `to`, or on the cost itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) to: Option<&'static str>,
    pub(crate) at_most: f64,
    pub(crate) text: &'static str,
}

pub(crate) const MEASURES: [Measure; 7] = [
    Measure {
        name: "ping-1",
        title: "100 clients, 1 ping in flight",
        unit: Unit::MicrosecondsPerMessage,
        load: Load::Ping {
            clients: 100,
            in_flight: 1,
        },
        speech: Speech::PLAIN,
        fresh: None,
        bounds: &[
            Bound {
                to: Some(ECHO),
                at_most: 1.07,
                text: "≤ 1.07 × the echo",
            },
            Bound {
                to: Some(SOCKETCLUSTER),
                at_most: 1.0 / 4.0,
                text: "≥ 4 × ahead of socketcluster-server",
            },
        ],
    },
    Measure {
        name: "ping-16",
        title: "100 clients, 16 pings in flight",
        unit: Unit::MicrosecondsPerMessage,
        load: Load::Ping {
            clients: 100,
            in_flight: 16,
        },
        speech: Speech::PLAIN,
        fresh: None,
        bounds: &[
            Bound {
                to: Some(ECHO),
                at_most: 1.4,
                text: "≤ 1.4 × the echo",
            },
            Bound {
                to: Some(BUN),
                at_most: 0.5,
                text: "≤ 0.5 × Bun",
            },
            Bound {
                to: Some(SOCKETCLUSTER),
                at_most: 1.0 / 30.0,
                text: "≥ 30 × ahead of socketcluster-server",
            },
        ],
    },
    Measure {
        name: "fan-out-8",
        title: "1 publisher to 1,000 subscribers, 8 in flight",
        unit: Unit::MicrosecondsPerDelivery,
        load: Load::Publish {
            channels: 1,
            subscribers: 1000,
            in_flight: 8,
        },
        speech: Speech::PLAIN,
        fresh: None,
        bounds: &[
            Bound {
                to: Some(BUN),
                at_most: 0.9,
                text: "≤ 0.9 × Bun",
            },
            Bound {
                to: Some(SOCKETCLUSTER),
                at_most: 1.0 / 25.0,
                text: "≥ 25 × ahead of socketcluster-server",
            },
        ],
    },
    Measure {
        name: "fan-out-1",
        title: "1 publisher to 1,000 subscribers, one at a time",
        unit: Unit::MicrosecondsPerDelivery,
        load: Load::Publish {
            channels: 1,
            subscribers: 1000,
            in_flight: 1,
        },
        speech: Speech::PLAIN,
        fresh: None,
        bounds: &[Bound {
            to: Some(BUN),
            at_most: 0.87,
            text: "≤ 0.87 × Bun",
        }],
    },
    Measure {
        name: "channels",
        title: "100 publishers, 100 channels, 10 subscribers each",
        unit: Unit::MicrosecondsPerDelivery,
        load: Load::Publish {
            channels: 100,
            subscribers: 1000,
            in_flight: 1,
        },
        speech: Speech::PLAIN,
        fresh: None,
        bounds: &[Bound {
            to: Some(BUN),
            at_most: 0.95,
            text: "≤ 0.95 × Bun",
        }],
    },
    Measure {
        name: "connect",
        title: "connect, handshake, close",
        unit: Unit::MicrosecondsPerConnection,
        load: Load::Churn { at_a_time: 50 },
        speech: Speech::PLAIN,
        fresh: None,
        bounds: &[Bound {
            to: Some(ECHO),
            at_most: 1.4,
            text: "≤ 1.4 × the echo",
        }],
    },
    Measure {
        name: "memory",
        title: "an idle connection after its handshake",
        unit: Unit::BytesPerConnection,
        load: Load::Idle { clients: 10_000 },
        speech: Speech::PLAIN,
        fresh: Some(Fresh::Connection),
        bounds: &[
            Bound {
                to: None,
                at_most: 264.0,
                text: "≤ 264 bytes",
            },
            Bound {
                to: Some(SOCKETCLUSTER),
                at_most: 1.0 / 70.0,
                text: "≥ 70 × less than socketcluster-server",
            },
        ],
    },
];

impl Fresh {
    /// The figure in words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Fresh::Connection => "bytes of an idle connection",
            Fresh::Session => "bytes of a session whose client has left",
            Fresh::QueuedMessage => "bytes of a message queued in such a session",
            Fresh::Queueing => "µs of CPU to queue a message",
            Fresh::ComingBack => {
                "µs of CPU for a queued message when its client comes back, connecting included"
            }
            Fresh::RetainedMessage => "bytes of a retained message",
            Fresh::Retaining => "µs of CPU to set a retained message",
            Fresh::Reading => "µs of CPU to send a retained message to a new subscription",
        }
    }
}

impl Measure {
    /// True if the server needs channels.
    fn wants_channels(&self) -> bool {
        matches!(self.load, Load::Publish { .. })
    }

    /// How to speak to a server for this measure.
    pub(crate) fn dialect(&self, kind: Kind) -> Dialect {
        match kind.dialect {
            Dialect::Mqtt(_) => Dialect::Mqtt(self.speech),
            Dialect::SocketCluster | Dialect::Echo => kind.dialect,
        }
    }

    /// True if this kind of server can do the work.
    pub(crate) fn suits(&self, kind: Kind) -> bool {
        let is_stored = self.fresh.is_some_and(|fresh| fresh != Fresh::Connection);
        match kind.name {
            ECHO => !self.wants_channels(),
            FLOOR => !is_stored && self.speech.qos != Qos::Two,
            // With QoS 1 and 2 NATS writes to a disk for most of the time, so that little is left for the others.
            NATS => !is_stored && self.speech.qos == Qos::Zero,
            // The others stop after some retained messages, or refuse this many sessions.
            name if is_stored => [RINGCAST, BEFORE, MOSQUITTO].contains(&name),
            _ => true,
        }
    }
}
