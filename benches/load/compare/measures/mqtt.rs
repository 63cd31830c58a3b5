//! The measures of MQTT, and the targets of Ringcast.

use super::super::super::mqtt::{Filters, Qos, Sessions, Speech};
use super::super::contender::{FLOOR, MOSQUITTO, NATS, RUMQTTD};
use super::super::drive::Load;
use super::super::result::Unit;
use super::{Bound, Fresh, Measure};

const AT_LEAST_ONCE: Speech = Speech {
    qos: Qos::One,
    ..Speech::PLAIN
};
const EXACTLY_ONCE: Speech = Speech {
    qos: Qos::Two,
    ..Speech::PLAIN
};
const KEPT: Speech = Speech {
    sessions: Sessions::Kept,
    ..AT_LEAST_ONCE
};
const RETAINED: Speech = Speech {
    filters: Filters::Prefix,
    retain: true,
    ..Speech::PLAIN
};

const fn filtered(filters: Filters) -> Speech {
    Speech {
        filters,
        ..Speech::PLAIN
    }
}

/// 100 publishers, each with a subscriber of its own.
const fn pairs(in_flight: u32) -> Load {
    Load::Publish {
        channels: 100,
        subscribers: 100,
        in_flight,
    }
}

const fn to_a_thousand(in_flight: u32) -> Load {
    Load::Publish {
        channels: 1,
        subscribers: 1000,
        in_flight,
    }
}

const fn at_most(to: &'static str, at_most: f64, text: &'static str) -> Bound {
    Bound {
        to: Some(to),
        at_most,
        text,
    }
}

const fn bytes(at_most: f64, text: &'static str) -> Bound {
    Bound {
        to: None,
        at_most,
        text,
    }
}

/// A measure of CPU time per delivery.
const fn delivery(
    name: &'static str,
    title: &'static str,
    load: Load,
    speech: Speech,
    bounds: &'static [Bound],
) -> Measure {
    Measure {
        name,
        title,
        unit: Unit::MicrosecondsPerDelivery,
        load,
        speech,
        fresh: None,
        bounds,
    }
}

/// A measure of servers that are started for it.
const fn stored(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    fresh: Fresh,
    bounds: &'static [Bound],
) -> Measure {
    let (load, speech) = match fresh {
        Fresh::Connection => (Load::Idle { clients: 10_000 }, Speech::PLAIN),
        Fresh::Session | Fresh::QueuedMessage | Fresh::Queueing | Fresh::ComingBack => (SESSIONS, KEPT),
        Fresh::RetainedMessage | Fresh::Retaining | Fresh::Reading => (TOPICS, RETAINED),
    };
    Measure {
        name,
        title,
        unit,
        load,
        speech,
        fresh: Some(fresh),
        bounds,
    }
}

/// A session for each topic, and 10 messages for each.
const SESSIONS: Load = Load::Store {
    topics: 10_000,
    each: 10,
    in_flight: 32,
};
const TOPICS: Load = Load::Store {
    topics: 100_000,
    each: 1,
    in_flight: 32,
};

pub(crate) const MQTT_MEASURES: [Measure; 22] = [
    delivery(
        "p1",
        "QoS 0, 100 pairs, 1 in flight",
        pairs(1),
        Speech::PLAIN,
        &[
            at_most(FLOOR, 1.15, "≤ 1.15 × the floor"),
            at_most(MOSQUITTO, 0.8, "≤ 0.8 × Mosquitto"),
        ],
    ),
    delivery(
        "p16",
        "QoS 0, 100 pairs, 16 in flight",
        pairs(16),
        Speech::PLAIN,
        &[
            at_most(FLOOR, 1.7, "≤ 1.7 × the floor"),
            at_most(NATS, 0.2, "≥ 5 × ahead of NATS"),
        ],
    ),
    delivery(
        "q1p1",
        "QoS 1, 100 pairs, 1 in flight",
        pairs(1),
        AT_LEAST_ONCE,
        &[
            at_most(FLOOR, 1.2, "≤ 1.2 × the floor"),
            at_most(MOSQUITTO, 0.7, "≤ 0.7 × Mosquitto"),
        ],
    ),
    delivery(
        "q1p16",
        "QoS 1, 100 pairs, 16 in flight",
        pairs(16),
        AT_LEAST_ONCE,
        &[
            at_most(FLOOR, 1.5, "≤ 1.5 × the floor"),
            at_most(RUMQTTD, 0.2, "≥ 5 × ahead of rumqttd"),
        ],
    ),
    delivery(
        "q2p1",
        "QoS 2, 100 pairs, 1 in flight",
        pairs(1),
        EXACTLY_ONCE,
        &[at_most(MOSQUITTO, 0.7, "≤ 0.7 × Mosquitto")],
    ),
    delivery(
        "q2p16",
        "QoS 2, 100 pairs, 16 in flight",
        pairs(16),
        EXACTLY_ONCE,
        &[at_most(RUMQTTD, 0.25, "≥ 4 × ahead of rumqttd")],
    ),
    delivery(
        "fan1000",
        "QoS 0, 1 to 1,000, 8 in flight",
        to_a_thousand(8),
        Speech::PLAIN,
        &[
            at_most(FLOOR, 1.3, "≤ 1.3 × the floor"),
            at_most(RUMQTTD, 0.4, "≤ 0.4 × rumqttd"),
        ],
    ),
    delivery(
        "fan1000-1",
        "QoS 0, 1 to 1,000, one at a time",
        to_a_thousand(1),
        Speech::PLAIN,
        &[
            at_most(FLOOR, 1.25, "≤ 1.25 × the floor"),
            at_most(MOSQUITTO, 0.55, "≤ 0.55 × Mosquitto"),
        ],
    ),
    delivery(
        "q1fan1000",
        "QoS 1, 1 to 1,000, 8 in flight",
        to_a_thousand(8),
        AT_LEAST_ONCE,
        &[
            at_most(FLOOR, 1.4, "≤ 1.4 × the floor"),
            at_most(RUMQTTD, 0.25, "≥ 4 × ahead of rumqttd"),
        ],
    ),
    delivery(
        "fan100",
        "100 publishers, 100 topics, 10 subscribers each",
        Load::Publish {
            channels: 100,
            subscribers: 1000,
            in_flight: 8,
        },
        Speech::PLAIN,
        &[
            at_most(FLOOR, 1.3, "≤ 1.3 × the floor"),
            at_most(NATS, 0.3, "≤ 0.3 × NATS"),
        ],
    ),
    delivery(
        "wild100",
        "100 publishers, 100 topics, 10 subscribers each, filters `+/TOPIC/#`",
        Load::Publish {
            channels: 100,
            subscribers: 1000,
            in_flight: 8,
        },
        filtered(Filters::Wildcard),
        &[
            at_most(FLOOR, 1.4, "≤ 1.4 × the floor"),
            at_most(NATS, 0.3, "≤ 0.3 × NATS"),
        ],
    ),
    delivery(
        "wildall",
        "100 publishers, 100 subscribers of `load/+/a/#`",
        pairs(1),
        filtered(Filters::Everything),
        &[],
    ),
    delivery(
        "fanin",
        "100 publishers, 1 subscriber of `load/+/a/#`",
        Load::Publish {
            channels: 100,
            subscribers: 1,
            in_flight: 8,
        },
        filtered(Filters::Everything),
        &[],
    ),
    Measure {
        name: "churn",
        title: "connect, CONNACK, disconnect",
        unit: Unit::MicrosecondsPerConnection,
        load: Load::Churn { at_a_time: 50 },
        speech: Speech::PLAIN,
        fresh: None,
        bounds: &[
            at_most(FLOOR, 1.15, "≤ 1.15 × the floor"),
            at_most(MOSQUITTO, 0.8, "≤ 0.8 × Mosquitto"),
        ],
    },
    stored(
        "idle",
        "an idle connection with a subscription",
        Unit::BytesPerConnection,
        Fresh::Connection,
        &[bytes(512.0, "≤ 512 bytes")],
    ),
    stored(
        "session",
        "a session whose client has left",
        Unit::BytesPerConnection,
        Fresh::Session,
        &[bytes(512.0, "≤ 512 bytes")],
    ),
    stored(
        "queued",
        "a message queued in such a session",
        Unit::BytesPerConnection,
        Fresh::QueuedMessage,
        &[bytes(160.0, "≤ 160 bytes")],
    ),
    stored(
        "queueing",
        "queueing a message in such a session",
        Unit::MicrosecondsPerMessage,
        Fresh::Queueing,
        &[],
    ),
    stored(
        "coming-back",
        "sending a queued message when the client comes back, connecting included",
        Unit::MicrosecondsPerDelivery,
        Fresh::ComingBack,
        &[],
    ),
    stored(
        "retained",
        "a retained message of 64 bytes",
        Unit::BytesPerConnection,
        Fresh::RetainedMessage,
        &[bytes(300.0, "≤ 300 bytes")],
    ),
    stored(
        "retaining",
        "setting a retained message, QoS 1",
        Unit::MicrosecondsPerMessage,
        Fresh::Retaining,
        &[at_most(MOSQUITTO, 0.5, "≤ 0.5 × Mosquitto")],
    ),
    stored(
        "reading",
        "sending a retained message to a `#` subscriber",
        Unit::MicrosecondsPerDelivery,
        Fresh::Reading,
        &[at_most(MOSQUITTO, 0.2, "≥ 5 × ahead of Mosquitto")],
    ),
];
