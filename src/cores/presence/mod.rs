//! Presence on a core: this core's subscribers as members of their channels, and the channels that this core owns.
//!
//! ```text
//!   core of a subscriber                          owner of the channel
//!   subscribe, end, user changed ─► Memberships ──post──► Rooms ─► events into the ring, at ticks
//!   MQTT filters, end ────────────► MqttRooms ────post──► Rooms
//!   $presence, $presence_info ────► OwnerCalls ───post──► Rooms
//!        answer to the client ◄──── OwnerCalls ◄──post────┘
//! ```
//! The core of a subscriber decides by its policy whether a channel has presence, and marks the channel in
//! [`memberships`]. The owner keeps every member that it is told, whatever its own policy. So nothing is lost
//! during a reload, while some cores have the new policy and others have not.
//!
//! The changes for another core go into one letter a turn, in the order in which they happened. So an answer
//! to `$presence` includes the subscriptions that the same client has made before.
//!
//! A server without presence looks at one number in each turn: [`state::Presence::due`].

pub(in crate::cores) mod memberships;
pub(in crate::cores) mod mqtt_rooms;
pub(in crate::cores) mod state;

mod ask;
mod join;
mod serve;
