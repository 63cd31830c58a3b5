//! The protocols that clients may speak. A core calls the same methods on the sessions of all of them, and knows none.
//!
//! Each protocol is a module of its own: `socketcluster` and `mqtt`. Here each is a variant of [`Session`]
//! and a field of [`ProtocolSettings`], [`Scratch`] and [`Environment`]. What all protocols have in common is in
//! `session`.

mod batch;
mod environment;
mod payload;
mod publication;
mod session;
mod wire;

pub use crate::socketcluster::min_bin::MinBin;
pub(crate) use batch::Joiner;
pub use environment::{Environment, ProtocolSettings, Scratch};
pub(crate) use payload::{Translator, replayed_frame};
pub(crate) use publication::{mqtt_will, publication};
pub(crate) use session::receive_packet;
pub use session::{MqttClient, Session};
pub(crate) use wire::{Content, Farewell, Framing, Wire};

pub use crate::mqtt::sessions::Bounds as MqttBounds;
pub(crate) use crate::mqtt::sessions::{StoredPublications, StoredSession};
pub use crate::mqtt::settings::MqttSettings;
pub use crate::socketcluster::settings::SocketClusterSettings;

#[cfg(test)]
pub(crate) use crate::socketcluster::session::PART_BYTES_MAX;
