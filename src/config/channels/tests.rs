use std::path::Path;

use super::read::read;
use super::*;
use crate::config::error::ListFault;
use crate::config::list::ListSource;

fn read_channels(text: &str) -> Result<Vec<ChannelSpec>, Vec<ListFault>> {
    let table = toml::de::DeTable::parse(text).unwrap();
    let place = ListSource {
        file: Path::new("f"),
        text,
        table: table.get_ref(),
    };
    let (channels, faults) = read(place);
    if faults.is_empty() {
        Ok(channels)
    } else {
        Err(faults)
    }
}

fn policy(text: &str) -> ChannelPolicy {
    let mut channels = read_channels(&format!("[[channels]]\nnames = \"a\"\n{text}")).unwrap();
    channels.pop().unwrap().policy
}

fn fault(text: &str) -> String {
    let faults = read_channels(&format!("[[channels]]\n{text}")).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].to_string().strip_prefix("f: ").unwrap().to_owned()
}

#[test]
fn a_policy_is_read_as_it_is_written() {
    let text = "listen = \"127.0.0.1:1\"\n\n[[channels]]\nnames = [\"room.*\", \"user.**\"]\nhistory_entries = 100\n\
                history_bytes = 65536\nhistory_ms = 60000\nlast_value = true\nposition = false\npresence = true\n\
                presence_events = true\n[[channels]]\nnames = \"price.*\"\n";
    assert_eq!(
        read_channels(text).unwrap(),
        [
            ChannelSpec {
                names: vec!["room.*".to_owned(), "user.**".to_owned()],
                policy: ChannelPolicy {
                    history: Some(HistoryPolicy {
                        entries_max: 100,
                        bytes_max: 65536,
                        age_ms_max: 60_000,
                    }),
                    last_value: true,
                    position: false,
                    presence: PresencePolicy::MembersAndEvents,
                    mqtt: MqttPolicy::default(),
                },
                file: Some("f".into()),
                line: 3,
            },
            ChannelSpec {
                names: vec!["price.*".to_owned()],
                policy: ChannelPolicy::default(),
                file: Some("f".into()),
                line: 12,
            },
        ]
    );
}

#[test]
fn publications_that_are_kept_carry_their_position_unless_the_policy_says_otherwise() {
    for (text, remembers, position) in [
        ("", false, false),
        ("history_entries = 0", false, false),
        ("history_entries = 1", true, true),
        ("last_value = true", true, true),
        ("last_value = true\nposition = false", true, false),
        ("position = true", false, true),
        ("presence = true", false, false),
    ] {
        let policy = policy(text);
        assert_eq!(
            (policy.remembers(), policy.position),
            (remembers, position),
            "{text}"
        );
    }
}

#[test]
fn a_history_is_bounded_in_bytes_and_time_even_if_the_file_names_no_bound() {
    let history = policy("history_entries = 1000000").history.unwrap();
    assert_eq!(
        (history.entries_max, history.bytes_max, history.age_ms_max),
        (1_000_000, 1_048_576, 600_000)
    );
}

#[test]
fn keys_that_cannot_go_together_are_faults_with_their_line() {
    for (text, expected) in [
        (
            "last_value = true",
            "line 1: channels number 1: names are missing: name the channels that the policy is about, such as names = \
             [\"room.*\", \"user.**\"]",
        ),
        ("names = []", "line 2: channels number 1: names is empty"),
        (
            "names = [1]",
            "line 2: channels number 1: names: expected strings, such as [\"room.*\", \"user.**\"]",
        ),
        (
            "names = \"a\"\nhistory_entrys = 1",
            "line 3: channels number 1: history_entrys is not known; did you mean history_entries?",
        ),
        (
            "names = \"a\"\nhistory_entries = -1",
            "line 3: channels number 1: history_entries: found -1, expected a whole number from 0 to 1000000",
        ),
        (
            "names = \"a\"\nhistory_entries = 1000001",
            "line 3: channels number 1: history_entries: found 1000001, expected a whole number from 0 to 1000000",
        ),
        (
            "names = \"a\"\nlast_value = \"yes\"",
            "line 3: channels number 1: last_value: found \"yes\", expected true or false",
        ),
        (
            "names = \"a\"\nhistory_bytes = 1",
            "line 3: channels number 1: history_bytes has no effect without history_entries: set how many publications \
             are kept",
        ),
        (
            "names = \"a\"\nhistory_entries = 0\nhistory_ms = 1",
            "line 4: channels number 1: history_ms has no effect without history_entries: set how many publications \
             are kept",
        ),
        (
            "names = \"a\"\npresence_events = true",
            "line 3: channels number 1: presence_events has no effect without presence: set presence = true",
        ),
        (
            "names = \"a\"\npresence = false\npresence_events = true",
            "line 4: channels number 1: presence_events has no effect without presence: set presence = true",
        ),
        (
            "names = \"$presence/**\"\npresence = true",
            "line 3: channels number 1: presence: \"$presence/**\" names channels on which the server publishes who \
             joined and left; the subscribers of such a channel have no presence of their own",
        ),
    ] {
        assert_eq!(fault(text), expected, "{text}");
    }
    for text in ["channels = 1", "channels = [1]", "[channels]\nnames = \"a\""] {
        let faults = read_channels(text).unwrap_err();
        assert_eq!(
            faults[0].to_string(),
            "f: line 1: channels: expected a list of tables: begin each entry with [[channels]]",
            "{text}"
        );
    }
}

#[test]
fn each_policy_with_a_fault_is_named_and_their_number_is_bounded() {
    let text = "[[channels]]\nnames = 1\n[[channels]]\nnames = \"a\"\n[[channels]]\nname = \"a\"\n";
    let faults: Vec<_> = read_channels(text)
        .unwrap_err()
        .iter()
        .map(|fault| (fault.line, fault.number))
        .collect();
    assert_eq!(faults, [(2, 1), (6, 3)]);

    let policies = |count: usize| "[[channels]]\nnames = \"a\"\n".repeat(count);
    assert_eq!(
        read_channels(&policies(CHANNELS_MAX)).unwrap().len(),
        CHANNELS_MAX
    );
    assert_eq!(
        read_channels(&policies(CHANNELS_MAX + 1)).unwrap_err()[0].to_string(),
        "f: line 1: channels: found 1001 entries, expected at most 1000"
    );
}

#[test]
fn a_policy_is_shown_in_words() {
    assert_eq!(policy("").to_string(), "nothing");
    assert_eq!(
        policy("history_entries = 5\nhistory_bytes = 100\nhistory_ms = 1000\npresence = true").to_string(),
        "history of 5 publications, 100 bytes, 1000 ms; position; presence"
    );
    assert_eq!(
        policy("last_value = true\nposition = false\npresence = true\npresence_events = true").to_string(),
        "last value; presence; presence events"
    );
}

#[test]
fn what_a_policy_says_about_mqtt_is_read_and_told_in_words() {
    for (text, expected, words) in [
        ("", MqttPolicy::default(), "nothing"),
        (
            "mqtt_payload = \"text\"",
            MqttPolicy {
                payload: Some(MqttPayload::Text),
                ..MqttPolicy::default()
            },
            "mqtt payload text",
        ),
        (
            "mqtt_payload = \"auto\"\nmqtt_retain = false",
            MqttPolicy {
                payload: Some(MqttPayload::Auto),
                retain: RetainPolicy::NotKept,
                ..MqttPolicy::default()
            },
            "mqtt payload auto, nothing retained",
        ),
        (
            "mqtt_payload = \"text\"\nmqtt_unquote = true",
            MqttPolicy {
                payload: Some(MqttPayload::Text),
                strings: StringPolicy::Unquoted,
                ..MqttPolicy::default()
            },
            "mqtt payload text, strings unquoted",
        ),
        ("mqtt_unquote = false", MqttPolicy::default(), "nothing"),
        ("mqtt_retain = true", MqttPolicy::default(), "nothing"),
    ] {
        let policy = policy(text);
        assert_eq!(policy.mqtt, expected);
        assert_eq!(policy.to_string(), words);
        assert!(!policy.remembers());
    }
    assert_eq!(
        fault("names = \"a\"\nmqtt_payload = \"hex\""),
        "line 3: channels number 1: mqtt_payload: found \"hex\", expected auto, text, binary or json"
    );
}
