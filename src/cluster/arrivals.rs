//! The end of the ring for publications of other nodes.
//!
//! They are checked as those of clients are, marked as relayed, so that they go to no other node, and published in the order of
//! their arrival. Whoever publishes in the place of a node may have sent them: nothing in them is taken on trust.
//!
//! A channel that remembers on this node, or whose publications have positions, takes none of them: its history would have
//! holes that nobody could see. Nothing is retained, either.
//!
//! Limits: the bytes of one core in the ring (`ring_bytes_max`), and half of `ring_slots`.

use std::sync::Arc;

use crate::broker::{ChannelHasher, Epoch, Facts, Kind, Marks, Origin, Publisher, RingFull};
use crate::clock::Clock;
use crate::config::limits::Limits;
use crate::cores::operators::mailbox::CoreHandle;
use crate::metrics::cluster::ClusterLoss;
use crate::mqtt::publication::{Head, read_foreign, write_head};
use crate::policy::channels::{Channels, PRESENCE_PREFIX};
use crate::session::{self, MqttUse};
use crate::socketcluster::publication;
use crate::websocket::frame::{self, OpCode};

use super::node::Arrived;

/// The publisher of the bridge.
#[derive(Debug)]
pub(super) struct Arrivals {
    publisher: Publisher,
    hasher: ChannelHasher,
    epoch: Epoch,
    slots_max: usize,
    rules: Rules,
    channel_name_bytes_max: usize,
    message_bytes_max: usize,
    clock: Clock,
    cores: Vec<CoreHandle>,
    head: Vec<u8>,
}

/// Which publications travel between nodes.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) channels: Arc<Channels>,
    pub(super) mqtt: MqttUse,
}

/// Why a publication is not published here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpublished {
    /// The ring has no room: it is to be tried again.
    Full,
    /// It is lost.
    Lost(ClusterLoss),
}

impl Rules {
    /// Whether publications on a channel with these marks travel.
    pub(super) fn travels(&self, channel: &[u8], marks: Marks) -> bool {
        let is_remembered = marks.is_any();
        let is_of_presence = channel.starts_with(PRESENCE_PREFIX.as_bytes());
        let is_of_the_server = self.mqtt.is_on() && session::is_of_the_server(channel);
        !is_remembered && !is_of_presence && !is_of_the_server
    }
}

impl Arrivals {
    pub(super) fn new(
        publisher: Publisher,
        (hasher, epoch): (ChannelHasher, Epoch),
        rules: Rules,
        limits: &Limits,
        clock: Clock,
        cores: Vec<CoreHandle>,
    ) -> Arrivals {
        Arrivals {
            publisher,
            hasher,
            epoch,
            slots_max: (limits.ring_slots.next_power_of_two() / 2).max(1) as usize,
            rules,
            channel_name_bytes_max: limits.channel_name_bytes_max as usize,
            message_bytes_max: limits.message_bytes_max as usize,
            clock,
            cores,
            head: Vec::new(),
        }
    }

    /// Decides by these policies from now on. To be called before the cores get the order to adopt them.
    pub(super) fn adopt(&mut self, channels: &Arc<Channels>) {
        self.rules.channels = Arc::clone(channels);
    }

    /// Publishes what has come from another node.
    pub(super) fn publish(&mut self, arrived: &Arrived<'_>) -> Result<(), Unpublished> {
        let lost = |loss| Err(Unpublished::Lost(loss));
        let Ok(channel) = std::str::from_utf8(arrived.channel) else {
            return lost(ClusterLoss::Malformed);
        };
        let bytes = arrived.channel.len() + arrived.body.len();
        let marks = session::marks_by(self.rules.channels.find(arrived.channel));
        if channel.len() > self.channel_name_bytes_max
            || bytes > self.message_bytes_max
            || !self.rules.travels(arrived.channel, marks)
        {
            return lost(ClusterLoss::Refused);
        }
        match arrived.origin {
            Origin::SocketCluster => {
                let Ok(text) = std::str::from_utf8(arrived.body) else {
                    return lost(ClusterLoss::Malformed);
                };
                let data = (!text.is_empty())
                    .then(|| publication::passed_on(text))
                    .transpose();
                let Ok(data) = data else {
                    return lost(ClusterLoss::Malformed);
                };
                let data = data.as_deref();
                let message = publication::message(channel, Marks::default(), self.epoch, data);
                self.head.clear();
                frame::write_header(&mut self.head, OpCode::Text, message.len());
                self.append(arrived, Kind::Json, data.map_or(0, str::len), &message)
            }
            Origin::Mqtt => {
                let Some(view) = read_foreign(arrived.body).filter(|_| session::is_topic(arrived.channel))
                else {
                    return lost(ClusterLoss::Malformed);
                };
                // Its publisher is on the other node: the number may be that of somebody else here.
                let head = Head {
                    publisher: 0,
                    client_hash: 0,
                    ..view.head
                };
                self.head.clear();
                write_head(&head, view.properties, &mut self.head);
                self.append(arrived, Kind::Opaque, view.payload.len(), view.payload)
            }
        }
    }

    /// Frees buffers that publications no longer need. To be called about once a second.
    pub(super) fn tidy(&mut self) {
        self.publisher.give_back();
    }

    fn append(
        &mut self,
        arrived: &Arrived<'_>,
        kind: Kind,
        payload_bytes: usize,
        rest: &[u8],
    ) -> Result<(), Unpublished> {
        let facts = Facts {
            at_ns: self.clock.elapsed_ns(),
            kind,
            origin: arrived.origin,
            payload_bytes: u32::try_from(payload_bytes).unwrap_or(0),
            marks: Marks::default(),
            retain: false,
        };
        let hash = self.hasher.hash(arrived.channel);
        let parts = [&self.head[..], rest];
        let room = self.publisher.has_fewer_than(self.slots_max);
        let published = room.and_then(|()| self.publisher.try_relay(arrived.channel, hash, &parts, facts));
        let (wake, outcome) = match published {
            Ok(published) => (published.wake, Ok(())),
            Err(RingFull { wake }) => (wake, Err(Unpublished::Full)),
        };
        for core in wake {
            // The bridge is no core. It is not woken for what it has published itself.
            if let Some(core) = self.cores.get(core) {
                core.request_turn();
            }
        }
        outcome
    }
}
