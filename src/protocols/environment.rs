//! The values that a core keeps for the sessions of all protocols, and lends to one session at a time.

use std::sync::Arc;

use crate::app::{App, LateAnswerSender};
use crate::mqtt::sessions::Sessions;
use crate::{mqtt, session, socketcluster};

/// The settings of all protocols.
#[derive(Clone, Debug, Default)]
pub struct ProtocolSettings {
    /// The settings of sessions of every protocol.
    pub common: session::CommonSettings,
    /// The settings of SocketCluster sessions.
    pub socketcluster: socketcluster::settings::SocketClusterSettings,
    /// The settings of MQTT sessions.
    pub mqtt: mqtt::settings::MqttSettings,
}

/// The buffers of one core for its sessions.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The buffers and counts of sessions of every protocol.
    pub common: session::Scratch,
    /// The buffers of SocketCluster sessions.
    pub socketcluster: socketcluster::environment::Scratch,
}

impl Scratch {
    /// Empty buffers of a core that gets late answers through `sender` and lets each connection have
    /// `timers_per_connection_max` timers.
    pub(crate) fn of_core(sender: Arc<dyn LateAnswerSender>, timers_per_connection_max: u32) -> Scratch {
        Scratch {
            common: session::Scratch::of_core(sender, timers_per_connection_max),
            ..Scratch::default()
        }
    }
}

/// The values that a core lends a session for one call.
#[derive(Debug)]
pub struct Environment<'a, A: App> {
    /// The values for sessions of every protocol.
    pub common: session::Environment<'a, A>,
    /// The settings of all protocols.
    pub settings: &'a ProtocolSettings,
    /// The buffers of SocketCluster alone.
    pub socketcluster: &'a mut socketcluster::environment::Scratch,
    /// The MQTT sessions of the core, if the server speaks MQTT.
    pub mqtt: Option<&'a mut Sessions>,
}

impl<'a, A: App> Environment<'a, A> {
    /// The values for a SocketCluster session.
    #[inline]
    pub(super) fn socketcluster(&mut self) -> socketcluster::environment::Environment<'_, 'a, A> {
        socketcluster::environment::Environment {
            common: &mut self.common,
            settings: &self.settings.socketcluster,
            scratch: self.socketcluster,
        }
    }

    /// The values for an MQTT session. `None` if the server does not speak MQTT: then there is no such session.
    #[inline]
    pub(super) fn mqtt(&mut self) -> Option<mqtt::environment::Environment<'_, 'a, A>> {
        Some(mqtt::environment::Environment {
            common: &mut self.common,
            settings: &self.settings.mqtt,
            sessions: self.mqtt.as_deref_mut()?,
        })
    }
}
