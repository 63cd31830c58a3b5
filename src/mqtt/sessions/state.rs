//! One session.

use std::time::Duration;

use super::aliases::Aliases;
use super::incoming::IncomingIds;
use super::outgoing::Outgoing;
use super::saved::SavedEntries;
use super::{Client, Connect, Will};
use crate::clock::Uptime;
use crate::mqtt::Version;

/// The state that a core keeps of one session, besides its subscriptions.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) serial: u64,
    pub(super) phase: Phase,
    /// The packets that are sent and received with QoS 1 and 2; `None` before the first, and for a session that waits
    /// without any.
    pub(super) traffic: Option<Box<Traffic>>,
    /// `None` if the session has none of these.
    extras: Option<Box<Extras>>,
    pub(super) client_id: Box<str>,
    /// For how many seconds it outlives a connection; `u32::MAX` for ever.
    pub(super) expiry_s: u32,
    /// The largest packet that the client takes.
    pub(super) packet_bytes_max: u32,
    /// Most publications with QoS 1 and 2 that the client gets without an acknowledgement.
    pub(super) in_flight_max: u16,
    pub(super) version: Version,
    /// Whether it is in the list of sessions that may have something to send.
    pub(super) is_listed: bool,
    /// Whether the disk has the session.
    pub(super) is_saved: bool,
    /// Whether its next event must be reported ([`Sessions::watch`](super::Sessions::watch)).
    pub(super) is_watched: bool,
}

/// The state that many sessions do not have: one word for all of it.
#[derive(Debug, Default)]
struct Extras {
    will: Option<Box<Will>>,
    /// The topic aliases of its connection, if the client takes some.
    aliases: Option<Box<Aliases>>,
    /// The user to whom the session belongs.
    user: Option<Box<str>>,
}

/// Whether a session has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connected {
        /// Where the core finds the connection.
        address: usize,
    },
    /// A connection has the session, and its CONNACK waits until the session is on disk: nothing may be sent before.
    Connecting {
        /// Where the core finds the connection.
        address: usize,
        /// Whether the session began with it. Then no client has been told of the session.
        is_new: bool,
    },
    /// The session waits for its client.
    Waiting { since: Uptime },
    /// The session has ended, and its groups, publications and subscriptions are being removed.
    Ended,
}

/// The packets that are sent and received with QoS 1 and 2.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) outgoing: Outgoing,
    pub(super) incoming: IncomingIds,
}

// A core may have a million sessions. With its client id, a subscription and the tables, each takes less than
// 512 bytes.
const _: () = assert!(size_of::<Option<SessionState>>() <= 72 && size_of::<Traffic>() <= 80);

impl SessionState {
    /// The session of a client that has none yet; [`SessionState::connect`] follows.
    pub(super) fn new(serial: u64, connect: &Connect<'_>) -> SessionState {
        SessionState {
            serial,
            phase: Phase::Waiting { since: Uptime::NEVER },
            traffic: None,
            extras: connect.user.map(|user| {
                Box::new(Extras {
                    user: Some(user.into()),
                    ..Extras::default()
                })
            }),
            client_id: connect.client_id.into(),
            expiry_s: 0,
            packet_bytes_max: 0,
            in_flight_max: 0,
            version: connect.version,
            is_listed: false,
            is_saved: false,
            is_watched: false,
        }
    }

    /// A session that a former process has left on disk, and that waits since `now`.
    pub(super) fn restored(
        serial: u64,
        client_id: Box<str>,
        user: Option<Box<str>>,
        will: Option<Box<Will>>,
        expiry_s: u32,
        version: Version,
        now: Uptime,
    ) -> SessionState {
        let extras = Extras {
            will,
            aliases: None,
            user,
        };
        let mut state = SessionState {
            serial,
            phase: Phase::Waiting { since: now },
            traffic: None,
            extras: Some(Box::new(extras)),
            client_id,
            expiry_s,
            packet_bytes_max: 0,
            in_flight_max: 0,
            version,
            is_listed: false,
            is_saved: true,
            is_watched: false,
        };
        state.give_back_extras();
        state
    }

    /// The session has a new connection.
    pub(super) fn connect(&mut self, connect: Connect<'_>, in_flight_max: u16) {
        self.phase = Phase::Connected {
            address: connect.address,
        };
        let aliases = Aliases::new(connect.topic_alias_maximum);
        if connect.will.is_some() || aliases.is_some() || self.extras.is_some() {
            let extras = self.extras.get_or_insert_default();
            (extras.will, extras.aliases) = (connect.will, aliases);
            self.give_back_extras();
        }
        self.expiry_s = connect.expiry_s;
        self.packet_bytes_max = connect.packet_bytes_max;
        self.in_flight_max = connect.receive_maximum.min(in_flight_max).max(1);
        self.version = connect.version;
        if let Some(traffic) = &mut self.traffic {
            traffic.outgoing.reconnect();
        }
    }

    /// The session outlives its connection, which has ended. Returns when the session has work: its will, or
    /// its end.
    pub(super) fn begin_waiting(&mut self, now: Uptime) -> Uptime {
        self.phase = Phase::Waiting { since: now };
        if let Some(extras) = &mut self.extras {
            extras.aliases = None;
            self.give_back_extras();
        }
        self.drop_empty_traffic();
        self.deadline()
    }

    /// Frees the memory of a session that waits without a packet, unless the disk has yet to get its last
    /// change.
    pub(super) fn drop_empty_traffic(&mut self) {
        self.traffic = self.traffic.take_if(|traffic| {
            let saved = traffic.outgoing.saved();
            !traffic.outgoing.is_empty()
                || traffic.incoming.len() > 0
                || saved.is_some_and(SavedEntries::has_changed)
        });
    }

    /// Its connection, if it has one.
    #[inline]
    pub(super) fn client(&self) -> Option<Client> {
        match self.phase {
            Phase::Connected { address } => Some(Client {
                address,
                version: self.version,
                packet_bytes_max: self.packet_bytes_max,
                takes_aliases: self
                    .extras
                    .as_ref()
                    .is_some_and(|extras| extras.aliases.is_some()),
            }),
            Phase::Connecting { .. } | Phase::Waiting { .. } | Phase::Ended => None,
        }
    }

    /// Where the core finds its connection, if it has one, whether its CONNACK has been sent or not.
    pub(super) fn address(&self) -> Option<usize> {
        match self.phase {
            Phase::Connected { address } | Phase::Connecting { address, .. } => Some(address),
            Phase::Waiting { .. } | Phase::Ended => None,
        }
    }

    /// Whether no client was told of the session: it began with a connection whose CONNACK has not been sent.
    pub(super) fn is_connack_pending(&self) -> bool {
        matches!(self.phase, Phase::Connecting { is_new: true, .. })
    }

    /// Ends the session: nothing refers to it any more. Its unsent publications are removed with its last
    /// subscriptions.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.serial = 0;
    }

    /// When the session ends if its client does not resume it; `NEVER` while it has a connection.
    pub(super) fn expires_at(&self) -> Uptime {
        match self.phase {
            Phase::Connected { .. } | Phase::Connecting { .. } | Phase::Ended => Uptime::NEVER,
            Phase::Waiting { .. } if self.expiry_s == u32::MAX => Uptime::NEVER,
            Phase::Waiting { since } => since + Duration::from_secs(self.expiry_s.into()),
        }
    }

    /// When the session has work if its client does not resume it: the will is due, or the session ends.
    pub(super) fn deadline(&self) -> Uptime {
        match (self.phase, self.will()) {
            (Phase::Waiting { since }, Some(will)) => {
                let due = since + Duration::from_secs(will.delay_s.into());
                due.min(self.expires_at())
            }
            (
                Phase::Waiting { .. } | Phase::Connected { .. } | Phase::Connecting { .. } | Phase::Ended,
                _,
            ) => self.expires_at(),
        }
    }

    /// The user to whom it belongs, if its client has authenticated.
    pub(super) fn user(&self) -> Option<&str> {
        self.extras.as_ref()?.user.as_deref()
    }

    /// Its will, if it has one.
    pub(super) fn will(&self) -> Option<&Will> {
        self.extras.as_ref()?.will.as_deref()
    }

    /// Takes its will away.
    pub(super) fn take_will(&mut self) -> Option<Box<Will>> {
        let will = self.extras.as_mut()?.will.take();
        self.give_back_extras();
        will
    }

    /// Gives it a will.
    pub(super) fn set_will(&mut self, will: Box<Will>) {
        self.extras.get_or_insert_default().will = Some(will);
    }

    /// Bytes of its will.
    pub(super) fn will_bytes(&self) -> usize {
        self.will().map_or(0, Will::bytes)
    }

    /// The topic aliases of its connection, if the client takes some.
    pub(super) fn aliases_mut(&mut self) -> Option<&mut Aliases> {
        self.extras.as_mut()?.aliases.as_deref_mut()
    }

    fn give_back_extras(&mut self) {
        let is_empty = |extras: &mut Box<Extras>| {
            extras.will.is_none() && extras.aliases.is_none() && extras.user.is_none()
        };
        self.extras.take_if(is_empty);
    }

    /// The packets that it sends and receives with QoS 1 and 2.
    pub(super) fn traffic_mut(&mut self) -> &mut Traffic {
        self.traffic.get_or_insert_default()
    }

    /// Whether publications wait in it.
    pub(super) fn has_waiting(&self) -> bool {
        let traffic = self.traffic.as_ref();
        traffic.is_some_and(|traffic| traffic.outgoing.has_more())
    }

    /// Whether it outlives its connection, so that publications must be kept for the next.
    pub(super) fn is_lasting(&self) -> bool {
        self.expiry_s > 0
    }
}
