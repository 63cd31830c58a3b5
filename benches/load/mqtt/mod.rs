//! MQTT for the load generator: packets (`wire`) and packet identifiers (`flow`) of one client.
//!
//! The connections themselves are those of the other protocol: `client` for the scenarios, `compare/link` for the
//! comparison.

pub(crate) mod flow;
pub(crate) mod wire;

/// How the clients of a run speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speech {
    pub(crate) version: Version,
    /// Of publications and of subscriptions.
    pub(crate) qos: Qos,
    pub(crate) filters: Filters,
    pub(crate) keep_alive_s: u16,
    pub(crate) sessions: Sessions,
    /// Publications are retained, and deliveries answer a subscription.
    pub(crate) retain: bool,
}

impl Speech {
    /// MQTT 3.1.1 with QoS 0 on exact topics. The keep alive is longer than a run in which subscribers send nothing.
    pub(crate) const PLAIN: Speech = Speech {
        version: Version::V4,
        qos: Qos::Zero,
        filters: Filters::Exact,
        keep_alive_s: 600,
        sessions: Sessions::Clean,
        retain: false,
    };
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1
    V4,
    /// 5.0
    V5,
}

/// The quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Zero,
    One,
    Two,
}

impl Qos {
    pub(crate) fn level(self) -> u8 {
        match self {
            Qos::Zero => 0,
            Qos::One => 1,
            Qos::Two => 2,
        }
    }

    pub(crate) fn of(level: u8) -> Option<Qos> {
        [Qos::Zero, Qos::One, Qos::Two]
            .into_iter()
            .find(|qos| qos.level() == level)
    }
}

/// The filters of subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filters {
    /// `load/c00007`: the topic of the channel.
    Exact,
    /// `+/c00007/#`, which matches only the topic `load/c00007`.
    Wildcard,
    /// `load/+/a/#`: each subscriber receives the publications of all publishers, whose topics are `load/c00007/a/x`.
    Everything,
    /// `load/#`, by which one subscriber reads all retained publications on `load/c00007` and so on.
    Prefix,
}

/// Whether the server keeps the session of a client that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// The session ends with the connection.
    Clean,
    /// The server keeps it.
    Kept,
}
