//! Names that belong to the server, and names that both protocols can have.

use super::settings::MqttUse;
use crate::config::channels::RetainPolicy;
use crate::policy::channels::Channels;
use crate::unicode;

/// Why only the server may publish to a channel; `None` if clients may.
#[inline]
pub fn reserved(name: &[u8], channels: &Channels, mqtt: MqttUse) -> Option<&'static str> {
    if name.first() != Some(&b'$') {
        return None;
    }
    reserved_with_dollar(name, channels, mqtt)
}

#[cold]
fn reserved_with_dollar(name: &[u8], channels: &Channels, mqtt: MqttUse) -> Option<&'static str> {
    if channels.announced_on(name).is_some() {
        return Some("Only the server publishes who joins and leaves a channel");
    }
    (mqtt.is_on() && is_of_the_server(name)).then_some(SYS)
}

/// Why no publication of a channel can be retained; `None` if one can.
pub fn why_not_retained(name: &[u8], channels: &Channels, mqtt: MqttUse) -> Option<&'static str> {
    if !mqtt.retains() {
        return Some(
            "The server retains no publications: it does not speak MQTT, or mqtt_retained_count_max is 0",
        );
    }
    if !is_topic(name) {
        return Some(
            "The channel cannot have a retained publication, since its name is not that of an MQTT topic",
        );
    }
    let policy = channels.find(name);
    let is_kept = policy.is_none_or(|policy| policy.mqtt.retain == RetainPolicy::Kept);
    (!is_kept).then_some("The policy of the channel has nothing retained (mqtt_retain)")
}

/// Whether the server publishes reports about itself to this channel.
pub fn is_of_the_server(name: &[u8]) -> bool {
    name == b"$SYS" || name.starts_with(b"$SYS/")
}

/// Whether the name of a channel is that of an MQTT topic, so that its publications can be retained. Section 4.7.3.
pub fn is_topic(name: &[u8]) -> bool {
    let has_length = !name.is_empty() && name.len() <= usize::from(u16::MAX);
    has_length && unicode::text_without(name, [0, b'+', b'#']).is_some()
}

/// The refusal of a publication to `$SYS`.
pub const SYS: &str = "Only the server publishes to $SYS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_belongs_to_the_server_where_mqtt_is_spoken() {
        let channels = Channels::default();
        for (name, is_reserved) in [
            ("$SYS", true),
            ("$SYS/", true),
            ("$SYS/broker/uptime", true),
            ("$SYSTEM", false),
            ("$sys/x", false),
            ("SYS/x", false),
            ("$", false),
            ("", false),
        ] {
            assert_eq!(
                reserved(name.as_bytes(), &channels, MqttUse::WithoutRetained).is_some(),
                is_reserved,
                "{name}"
            );
            assert_eq!(reserved(name.as_bytes(), &channels, MqttUse::Off), None, "{name}");
        }
    }

    #[test]
    fn names_with_wildcards_are_no_topics() {
        let longest = "x".repeat(65_535);
        for (name, expected) in [
            (&b"a/b"[..], true),
            (b" ", true),
            (longest.as_bytes(), true),
            (b"", false),
            (b"a/+", false),
            (b"a#", false),
            (b"a\0", false),
            // Half of a surrogate pair.
            (b"\xed\xa0\x80", false),
            ([longest.as_bytes(), b"x"].concat().as_slice(), false),
        ] {
            assert_eq!(is_topic(name), expected, "{name:?}");
        }
    }
}
