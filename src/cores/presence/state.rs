//! The state of presence in a core.

use std::collections::VecDeque;

use crate::broker::ChannelHasher;
use crate::clock::Uptime;
use crate::config::limits::Limits;
use crate::policy::channels::Channels;
use crate::presence::{Refused, RoomMessage, RoomSettings, Rooms};

use crate::cores::lifecycle::owner_calls::{OwnerCalls, OwnerCallsMax};
use crate::cores::presence::memberships::Memberships;
use crate::cores::presence::mqtt_rooms::MqttRooms;

/// Presence on one core.
#[derive(Debug)]
pub(in crate::cores) struct Presence {
    /// When the core has work here next (`Core::serve_presence`).
    pub(in crate::cores) due: Uptime,
    pub(in crate::cores) memberships: Memberships,
    /// The same for MQTT clients.
    pub(in crate::cores) mqtt: MqttRooms,
    /// The channels that this core owns.
    pub(in crate::cores) rooms: Rooms,
    /// The changes that other cores have told about these channels, in order, and that this core has not
    /// handled yet.
    pub(in crate::cores) told: VecDeque<Batch>,
    pub(in crate::cores) calls: OwnerCalls,
}

/// The changes of one letter.
#[derive(Debug)]
pub(in crate::cores) struct Batch {
    pub(in crate::cores) from: usize,
    pub(in crate::cores) count: usize,
    pub(in crate::cores) left: std::vec::IntoIter<RoomMessage>,
    /// Channels of subscribers for which there was no room.
    pub(in crate::cores) refused: Vec<Box<[u8]>>,
    /// The smallest room that one of them needs.
    pub(in crate::cores) refused_least: Option<u64>,
}

impl Batch {
    /// Notes that there was no room for a change.
    pub(in crate::cores) fn note_refused(&mut self, refused: Refused) {
        let least = self.refused_least.unwrap_or(u64::MAX);
        self.refused_least = Some(least.min(refused.weight));
        // Subscribers of one channel often come one after the other.
        if self.refused.last() != Some(&refused.channel) {
            self.refused.push(refused.channel);
        }
    }
}

impl Presence {
    /// No members in any channel. There are `cores` cores.
    pub(in crate::cores) fn new(
        cores: usize,
        limits: &Limits,
        channels: &Channels,
        hasher: ChannelHasher,
    ) -> Presence {
        let settings = RoomSettings {
            members_max: limits.presence_members_max,
            grace: limits.presence_grace,
            tick: limits.presence_tick,
            sampled_over: limits.presence_sampled_over,
        };
        Presence {
            due: Uptime::NEVER,
            memberships: Memberships::new(cores, channels.has_presence()),
            mqtt: MqttRooms::default(),
            rooms: Rooms::new(settings, hasher),
            told: VecDeque::new(),
            calls: OwnerCalls::new(
                OwnerCallsMax {
                    of_core: limits.presence_calls_per_core_max,
                    of_connection: limits.presence_calls_per_connection_max,
                },
                cores,
            ),
        }
    }

    /// An MQTT connection that goes on leaves a room.
    pub(in crate::cores) fn leave_mqtt(&mut self, connection: u32, name: &[u8]) {
        if !self.mqtt.is_empty() {
            self.mqtt.leave(connection, name, &mut self.memberships);
            self.due = Uptime::default();
        }
    }

    /// MQTT connections that have ended leave some of their rooms, at most `max`. Returns how many.
    pub(in crate::cores) fn leave_some_mqtt(&mut self, max: usize) -> usize {
        self.due = Uptime::default();
        self.mqtt.leave_some(max, &mut self.memberships)
    }

    /// Another core, or this one, tells changes of channels that this core owns.
    pub(in crate::cores) fn receive(&mut self, from: usize, told: Vec<RoomMessage>) {
        self.told.push_back(Batch {
            from,
            count: told.len(),
            left: told.into_iter(),
            refused: Vec::new(),
            refused_least: None,
        });
        self.due = Uptime::default();
    }

    /// An owner has handled `count` changes of this core.
    pub(in crate::cores) fn note_done(&mut self, owner: usize, count: usize) {
        self.memberships.note_done(owner, count);
        if self.memberships.may_tell(owner) {
            self.due = Uptime::default();
        }
    }

    /// An owner has room for some subscribers that it has refused.
    pub(in crate::cores) fn try_again(&mut self, owner: usize) {
        self.memberships.try_again(owner);
        self.mqtt.try_again();
        self.due = Uptime::default();
    }

    /// Bytes of memory that the tables take.
    pub(in crate::cores) fn table_bytes(&self) -> usize {
        self.rooms.table_bytes() + self.memberships.table_bytes()
    }
}
