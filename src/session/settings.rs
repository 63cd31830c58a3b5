//! The settings that hold for sessions of every protocol. Each protocol has a struct of its own for the
//! settings of that protocol alone.

use std::time::Duration;

use crate::auth::CredentialFields;
use crate::config::Mqtt;
use crate::decision::{Epoch, Numbering};

/// What an operator can set for the sessions of every protocol.
#[derive(Clone, Debug)]
pub struct CommonSettings {
    /// Time from the upgrade to the end of the protocol's own handshake.
    pub handshake_timeout: Duration,
    /// Most bytes of the name of a channel that a client subscribes or publishes to.
    pub channel_name_bytes_max: u32,
    /// Whether clients may publish.
    pub allow_client_publish: bool,
    /// How long a token is valid if the application names no other time.
    pub auth_default_expiry: Duration,
    /// Whether clients that are not authenticated are served.
    pub allow_anonymous: bool,
    /// With `allow_anonymous` off: how long a client may be connected without being authenticated. `None` sets no
    /// limit.
    pub authentication_timeout: Option<Duration>,
    /// The fields and the size of the data that the procedure `login` takes.
    pub logins: Logins,
    /// How long the application may take for a decision that it has deferred.
    pub decision_timeout: Duration,
    /// Whether clients may leave wills.
    pub wills: bool,
    /// Most bytes of a will.
    pub will_bytes_max: u32,
    /// The longest time that a will may wait.
    pub will_delay_max: Duration,
    /// The epoch of the positions that clients get.
    pub epoch: Epoch,
    /// Whether remembered publications go to a store, which may make their acknowledgements wait, or refuse them.
    pub has_store: bool,
    /// Most bytes of the info that a client publishes about itself as a member of a channel.
    pub presence_info_bytes_max: u32,
    /// The parts of MQTT that all sessions have to know.
    pub mqtt: MqttUse,
}

/// The parts of MQTT that sessions of other protocols have to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MqttUse {
    /// It does not speak MQTT.
    #[default]
    Off,
    /// It speaks MQTT, and retains nothing.
    WithoutRetained,
    /// It speaks MQTT, and retains publications.
    WithRetained,
}

impl MqttUse {
    /// Whether the server speaks MQTT.
    #[inline]
    pub const fn is_on(self) -> bool {
        match self {
            MqttUse::Off => false,
            MqttUse::WithoutRetained | MqttUse::WithRetained => true,
        }
    }

    /// Whether the server retains publications.
    #[inline]
    pub const fn retains(self) -> bool {
        match self {
            MqttUse::Off | MqttUse::WithoutRetained => false,
            MqttUse::WithRetained => true,
        }
    }

    /// The variant for this configuration.
    pub fn of(config: &Mqtt) -> MqttUse {
        match (config.is_used(), config.retained_count_max) {
            (false, _) => MqttUse::Off,
            (true, 0) => MqttUse::WithoutRetained,
            (true, _) => MqttUse::WithRetained,
        }
    }
}

/// The fields and the size of the data that the procedure `login` takes.
#[derive(Clone, Debug)]
pub struct Logins {
    /// The names of the fields that hold the user name and the password.
    pub fields: CredentialFields,
    /// Most bytes of its data.
    pub body_bytes_max: u32,
}

impl Default for CommonSettings {
    /// The reference's values (wire reference, section 6); for settings that the reference does not have, the
    /// defaults of the configuration.
    fn default() -> CommonSettings {
        CommonSettings {
            handshake_timeout: Duration::from_secs(10),
            channel_name_bytes_max: 65_536,
            allow_client_publish: true,
            auth_default_expiry: Duration::from_secs(86_400),
            allow_anonymous: true,
            authentication_timeout: None,
            logins: Logins::default(),
            decision_timeout: Duration::from_secs(10),
            wills: true,
            will_bytes_max: 64 * 1024,
            will_delay_max: Duration::from_secs(86_400),
            epoch: Numbering::new().epoch,
            has_store: false,
            presence_info_bytes_max: 1024,
            mqtt: MqttUse::Off,
        }
    }
}

impl Default for Logins {
    fn default() -> Logins {
        Logins {
            fields: CredentialFields::default(),
            body_bytes_max: 4096,
        }
    }
}
