//! The marks of a publication, which follow from the policy of its channel.

use crate::config::channels::{MqttPayload, RetainPolicy};
use crate::decision::Marks;
use crate::policy::channels::{ChannelPolicy, Channels, RecentChannels};

/// The policy of a topic for publications by MQTT clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MqttMarks {
    /// The marks that apply to all publications of the channel.
    pub marks: Marks,
    /// The data that SocketCluster clients get for the payload.
    pub payload: MqttPayload,
    /// Whether publications with RETAIN 1 are retained.
    pub retain: RetainPolicy,
}

/// The marks of the publications of a topic by MQTT clients. `payload` is the rule if no policy has one.
#[inline]
pub fn mqtt_marks(
    channels: &Channels,
    recent: &mut RecentChannels,
    name: &[u8],
    payload: MqttPayload,
) -> MqttMarks {
    let policy = match channels.is_empty() {
        true => None,
        false => channels.find_recent(name, recent),
    };
    MqttMarks {
        marks: marks_by(policy),
        payload: policy.and_then(|policy| policy.mqtt.payload).unwrap_or(payload),
        retain: policy.map_or(RetainPolicy::Kept, |policy| policy.mqtt.retain),
    }
}

/// The marks of the publications of a channel.
#[inline]
pub(crate) fn marks(channels: &Channels, recent: &mut RecentChannels, name: &[u8]) -> Marks {
    if channels.is_empty() {
        return Marks::default();
    }
    marks_by(channels.find_recent(name, recent))
}

/// The marks by this policy of a channel.
pub(crate) fn marks_by(policy: Option<&ChannelPolicy>) -> Marks {
    policy.map_or_else(Marks::default, |policy| Marks {
        remembered: policy.remembers(),
        positioned: policy.position,
    })
}
