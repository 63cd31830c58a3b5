//! The measures, and the targets of Ringcast.

use super::contender::{BUN, ECHO, SOCKETCLUSTER};
use super::drive::Load;
use super::result::Unit;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) load: Load,
    pub(crate) bounds: &'static [Bound],
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
            subscribers_each: 1000,
            in_flight: 8,
        },
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
            subscribers_each: 1000,
            in_flight: 1,
        },
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
            subscribers_each: 10,
            in_flight: 1,
        },
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

impl Measure {
    /// True if the server needs channels; the echo has none.
    pub(crate) fn wants_channels(&self) -> bool {
        matches!(self.load, Load::Publish { .. })
    }
}
