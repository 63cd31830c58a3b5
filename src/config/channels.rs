//! Policies of channels in the configuration file: history, last value, positions and presence of a channel.
//!
//! ```toml
//! [[channels]]
//! names = ["room.*", "user.**"]
//! history_entries = 100
//! history_bytes = 65536
//! history_ms = 600000
//! last_value = true
//! presence = true
//! presence_events = true
//! ```
//!
//! The first policy with a pattern that matches a channel's name applies to the channel; the server keeps nothing of a
//! channel without a policy. Patterns are written as in `[[rules]]`, without `{claim}`. `read` checks the keys and
//! their combination. `policy::channels` compiles the patterns and finds the policy of a name.
//!
//! Limits: [`CHANNELS_MAX`] policies.

pub(super) mod read;

use std::fmt;
use std::path::PathBuf;

use super::form::{Words, words};
use crate::labels::labels;

/// One entry of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelSpec {
    /// Patterns of the channels that it applies to.
    pub names: Vec<String>,
    /// What it says about them.
    pub policy: ChannelPolicy,
    /// The file that holds it, if one does.
    pub file: Option<PathBuf>,
    /// Its line in the file, from 1; 0 without a file.
    pub line: usize,
}

/// What the server keeps and publishes for a channel. The default, for channels without a policy, is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// The bounds of the history; `None` keeps no history.
    pub history: Option<HistoryPolicy>,
    /// Whether the newest publication is kept, and sent first to each new subscriber.
    pub last_value: bool,
    /// Whether publications carry their position.
    pub position: bool,
    /// Whether clients may ask for the members of the channel.
    pub presence: PresencePolicy,
    /// The rules between MQTT and SocketCluster.
    pub mqtt: MqttPolicy,
}

/// The part of a policy that is about MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MqttPolicy {
    /// The data that SocketCluster clients get for payloads; `None`: as the setting `mqtt_payload` says.
    pub payload: Option<MqttPayload>,
    /// Whether publications of MQTT clients are retained.
    pub retain: RetainPolicy,
    /// The payload that MQTT clients get for strings of SocketCluster clients.
    pub strings: StringPolicy,
}

/// The payload that MQTT clients get for a string, or for bytes in base64, of a SocketCluster client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StringPolicy {
    /// The JSON text, as it stands.
    #[default]
    AsJson,
    /// The characters of the string, and the bytes.
    Unquoted,
}

/// Whether publications with RETAIN 1 are retained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainPolicy {
    /// As the publisher asks.
    #[default]
    Kept,
    /// Never: they are delivered, and forgotten.
    NotKept,
}

/// The data that SocketCluster clients get for the payload of an MQTT publication: payloads are bytes, data is JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MqttPayload {
    /// JSON as that value; else UTF-8 as a string; else base64.
    #[default]
    Auto,
    /// UTF-8 as a string, also if it is JSON; else base64.
    Text,
    /// Base64.
    Binary,
    /// JSON as that value; nothing else may be published.
    Json,
}

impl MqttPayload {
    /// Its number in the layout of publications, of two bits.
    pub(crate) const fn number(self) -> u8 {
        match self {
            MqttPayload::Auto => 0,
            MqttPayload::Text => 1,
            MqttPayload::Binary => 2,
            MqttPayload::Json => 3,
        }
    }

    /// The rule with the number in the two lowest bits.
    pub(crate) const fn of_number(number: u8) -> MqttPayload {
        match number & 0b11 {
            1 => MqttPayload::Text,
            2 => MqttPayload::Binary,
            3 => MqttPayload::Json,
            _ => MqttPayload::Auto,
        }
    }
}

words! {
    MqttPayload, Text, "auto, text, binary or json":
    "auto" => Auto, "text" => Text, "binary" => Binary, "json" => Json,
}

/// How much of a channel's publications is kept. The bound that is reached first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// Most publications; at least 1.
    pub entries_max: u32,
    /// Most bytes of publications.
    pub bytes_max: u32,
    /// Milliseconds after which a publication is dropped.
    pub age_ms_max: u64,
}

/// Whether clients may ask for the members of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PresencePolicy {
    /// The server does not know the members.
    #[default]
    Off,
    /// Clients may ask.
    Members,
    /// Clients may ask, and members that join and leave are published.
    MembersAndEvents,
}

labels! {
    /// A property that a policy may have. The labels are the values of the label `keeps` of
    /// `ringcast_channel_policies`.
    pub enum PolicyPart {
        /// Publications are kept.
        History = "history",
        /// The newest publication is kept.
        LastValue = "last_value",
        /// Publications carry their position.
        Position = "position",
        /// Clients may ask for the members.
        Presence = "presence",
        /// Members that join and leave are published.
        PresenceEvents = "presence_events",
        /// It says something about MQTT.
        Mqtt = "mqtt",
    }
}

impl ChannelPolicy {
    /// Whether the policy says this.
    pub const fn has(&self, part: PolicyPart) -> bool {
        match part {
            PolicyPart::History => self.history.is_some(),
            PolicyPart::LastValue => self.last_value,
            PolicyPart::Position => self.position,
            PolicyPart::Presence => self.presence.is_on(),
            PolicyPart::PresenceEvents => self.presence.has_events(),
            PolicyPart::Mqtt => self.mqtt.has_mqtt_fields(),
        }
    }

    /// Whether publications of the channel are kept at all.
    #[inline]
    pub const fn remembers(&self) -> bool {
        self.history.is_some() || self.last_value
    }
}

impl MqttPolicy {
    /// Whether the policy says something about MQTT.
    const fn has_mqtt_fields(&self) -> bool {
        self.payload.is_some()
            || matches!(self.retain, RetainPolicy::NotKept)
            || matches!(self.strings, StringPolicy::Unquoted)
    }
}

impl fmt::Display for MqttPolicy {
    /// In words: `mqtt payload text, nothing retained`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = self.payload.map(|payload| format!("payload {}", payload.word()));
        let retain = match self.retain {
            RetainPolicy::Kept => None,
            RetainPolicy::NotKept => Some("nothing retained".to_owned()),
        };
        let strings = match self.strings {
            StringPolicy::AsJson => None,
            StringPolicy::Unquoted => Some("strings unquoted".to_owned()),
        };
        let said: Vec<String> = [payload, strings, retain].into_iter().flatten().collect();
        write!(formatter, "mqtt {}", said.join(", "))
    }
}

impl PresencePolicy {
    /// Whether clients may ask for the members.
    #[inline]
    pub const fn is_on(self) -> bool {
        match self {
            PresencePolicy::Off => false,
            PresencePolicy::Members | PresencePolicy::MembersAndEvents => true,
        }
    }

    /// Whether members that join and leave are published.
    #[inline]
    pub const fn has_events(self) -> bool {
        match self {
            PresencePolicy::Off | PresencePolicy::Members => false,
            PresencePolicy::MembersAndEvents => true,
        }
    }
}

impl fmt::Display for ChannelPolicy {
    /// In words, for people: `history of 100 publications, 65536 bytes, 600000 ms; position; presence`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = PolicyPart::ALL.into_iter().filter(|part| self.has(*part));
        let words = parts.map(|part| match (part, self.history) {
            (PolicyPart::History, Some(history)) => format!(
                "history of {} publications, {} bytes, {} ms",
                history.entries_max, history.bytes_max, history.age_ms_max
            ),
            (PolicyPart::Mqtt, _) => self.mqtt.to_string(),
            (part, _) => part.label().replace('_', " "),
        });
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            return formatter.write_str("nothing");
        }
        formatter.write_str(&words.join("; "))
    }
}

/// A key of a policy, as an operator writes it.
struct PolicyKey {
    name: &'static str,
    /// The value if the key is absent, as it is written.
    default: &'static str,
    doc: &'static str,
}

const KEYS: [PolicyKey; 11] = [
    PolicyKey {
        name: "names",
        default: "",
        doc: "Patterns of the channels to which the policy applies, one or a list: as in `[[rules]]`, without `{claim}`. Required.",
    },
    PolicyKey {
        name: "history_entries",
        default: "0",
        doc: "Most publications that are kept of each channel, up to 1000000. 0 keeps no history.",
    },
    PolicyKey {
        name: "history_bytes",
        default: "1048576",
        doc: "Most bytes of publications that are kept of each channel, counted as they are sent, up to 1073741824.",
    },
    PolicyKey {
        name: "history_ms",
        default: "600000",
        doc: "Milliseconds after which a publication is dropped from the history, up to 31536000000 (a year).",
    },
    PolicyKey {
        name: "last_value",
        default: "false",
        doc: "Whether the newest publication is kept, whatever the bounds of the history are, and sent first to each new subscriber.",
    },
    PolicyKey {
        name: "position",
        default: "true with a history or `last_value`, else false",
        doc: "Whether publications carry their position, from which a client can recover the publications that it has missed.",
    },
    PolicyKey {
        name: "presence",
        default: "false",
        doc: "Whether clients may ask for the members of the channel.",
    },
    PolicyKey {
        name: "presence_events",
        default: "false",
        doc: "Whether the server publishes joins and leaves of members, on the channel `$presence/NAME`. Needs `presence`.",
    },
    PolicyKey {
        name: "mqtt_payload",
        default: "the setting `mqtt_payload`",
        doc: "The data that SocketCluster clients get for the payload of an MQTT publication: `auto`, `text`, `binary` or `json`.",
    },
    PolicyKey {
        name: "mqtt_unquote",
        default: "false",
        doc: "Whether MQTT clients get a string of a SocketCluster client without its quotes, and base64 as bytes.",
    },
    PolicyKey {
        name: "mqtt_retain",
        default: "true",
        doc: "Whether publications of MQTT clients with RETAIN 1 are retained. If not, they are delivered all the same.",
    },
];

/// The table of keys in Markdown, as `docs/configuration.md` has it.
#[doc(hidden)]
pub fn markdown() -> String {
    let mut table = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    for key in &KEYS {
        table.push_str(&format!("| `{}` | {} | {} |\n", key.name, key.default, key.doc));
    }
    table
}

/// Most policies: in the worst case each publication looks at all of them.
pub const CHANNELS_MAX: usize = 1000;

/// The beginning of the channels on which members that join and leave are published: the rest is the name of the
/// channel that they joined or left.
pub const PRESENCE_PREFIX: &str = "$presence/";

#[cfg(test)]
mod tests;
