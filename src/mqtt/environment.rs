//! The values that a core lends an MQTT session for one call.

use super::sessions::Sessions;
use super::settings::MqttSettings;
use crate::app::App;
use crate::session;

/// The values that a core lends an MQTT session for one call.
#[derive(Debug)]
pub struct Environment<'e, 'a, A: App> {
    /// The values that a core lends sessions of every protocol.
    pub common: &'e mut session::Environment<'a, A>,
    /// The settings of MQTT alone.
    pub settings: &'e MqttSettings,
    /// The sessions of all client ids that this core owns.
    pub sessions: &'e mut Sessions,
}
