use std::path::Path;

use super::read::read;
use super::*;
use crate::config::error::ListFault;
use crate::config::list::ListSource;

const HASH: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn read_keys(text: &str) -> (Vec<ApiKeySpec>, Vec<ListFault>) {
    let table = toml::de::DeTable::parse(text).unwrap();
    read(ListSource {
        file: Path::new("f"),
        text,
        table: table.get_ref(),
    })
}

fn fault(members: &str) -> String {
    let (keys, faults) = read_keys(&format!("[[api_keys]]\n{members}"));
    assert!(keys.is_empty() && faults.len() == 1, "{faults:?}");
    faults[0].to_string().strip_prefix("f: ").unwrap().to_owned()
}

#[test]
fn a_key_is_read_as_it_is_written() {
    let text = format!(
        "listen = \"127.0.0.1:1\"\n\n[[api_keys]]\nname = \"shop\"\nhash = \"{HASH}\"\n\
         actions = [\"history\", \"publish\"]\nchannels = \"shop.**\"\nrate = 5\n\n[[api_keys]]\nname = \"ops\"\n\
         hash = \"{}\"\nactions = [\"disconnect\"]\nrate = 0\nburst = 7\n",
        HASH.to_uppercase().replace("SHA256", "sha256")
    );
    let (keys, faults) = read_keys(&text);
    assert_eq!(faults, []);
    let expected = |name: &str, line| ApiKeySpec {
        name: name.to_owned(),
        hash: KeyHash::parse(HASH).unwrap(),
        actions: vec![ApiAction::Publish, ApiAction::History],
        channels: vec!["shop.**".to_owned()],
        rate: 5,
        burst: 5,
        file: Some("f".into()),
        line,
    };
    let second = ApiKeySpec {
        actions: vec![ApiAction::Disconnect],
        channels: Vec::new(),
        rate: 0,
        burst: 7,
        ..expected("ops", 10)
    };
    assert_eq!(keys, [expected("shop", 3), second]);
    assert_eq!(keys[0].hash.text(), HASH);
    assert!(!format!("{keys:?}").contains("9f86"), "{keys:?}");
}

#[test]
fn every_action_is_named_by_its_word_and_a_star_names_all() {
    let all = format!("[[api_keys]]\nname = \"a\"\nhash = \"{HASH}\"\nchannels = \"**\"\nactions = \"*\"");
    let (keys, _) = read_keys(&all);
    assert_eq!(keys[0].actions, ApiAction::ALL);
    assert_eq!((keys[0].rate, keys[0].burst), (RATE_DEFAULT, RATE_DEFAULT));
    for action in ApiAction::ALL {
        assert_eq!(ApiAction::named(action.label()), Some(action));
    }
}

#[test]
fn a_fault_names_its_line_and_the_accepted_values() {
    let (name, hash) = ("name = \"a\"\n", format!("hash = \"{HASH}\"\n"));
    let head = format!("{name}{hash}");
    for (members, expected) in [
        (String::new(), "line 1: api_keys number 1: name is missing"),
        (name.to_owned(), "hash is missing"),
        (head.clone(), "actions is missing"),
        (
            "name = \"a b\"".to_owned(),
            "line 2: api_keys number 1: name: expected 1 to 64 letters",
        ),
        (
            format!("{name}hash = \"sha256:12\""),
            "line 3: api_keys number 1: hash: expected sha256: and 64 hexadecimal digits",
        ),
        (format!("{name}hash = \"{HASH}0\""), "hash: expected"),
        (
            format!("{head}actions = \"publsh\""),
            "line 4: api_keys number 1: actions: \"publsh\" is not an action; did you mean publish?",
        ),
        (format!("{head}actions = []"), "actions is empty"),
        (
            format!("{head}actions = \"publish\""),
            "channels are missing: publish is an action on channels",
        ),
        (
            format!("{head}actions = \"disconnect\"\nchannels = \"a\""),
            "line 5: api_keys number 1: channels are named, but no action is one on channels",
        ),
        (
            format!("{head}actions = \"disconnect\"\nrate = -1"),
            "rate: found -1, expected a whole number from 0 to 1000000",
        ),
        (
            format!("{head}actions = \"disconnect\"\nburst = 0"),
            "burst: found 0, expected a whole number from 1 to 1000000",
        ),
        (
            format!("{head}action = \"publish\""),
            "action is not known; did you mean actions?",
        ),
    ] {
        let found = fault(&members);
        assert!(found.contains(expected), "{members}\n{found}");
    }
    let (_, faults) = read_keys("api_keys = 3\n");
    assert!(
        faults[0]
            .to_string()
            .contains("begin each entry with [[api_keys]]")
    );
}

#[test]
fn a_key_in_the_file_is_refused_and_not_shown() {
    let found = fault("name = \"a\"\nkey = \"rc_topsecret\"");
    assert!(
        found.contains("a file holds only its hash") && !found.contains("topsecret"),
        "{found}"
    );
}

#[test]
fn channels_are_needed_where_an_action_is_on_them_and_possible_where_it_may_be() {
    for action in ApiAction::ALL {
        let entry = |channels: &str| {
            let action = action.label();
            let (keys, _) = read_keys(&format!(
                "[[api_keys]]\nname = \"a\"\nhash = \"{HASH}\"\nactions = \"{action}\"\n{channels}"
            ));
            keys.len() == 1
        };
        assert_eq!(entry(""), !action.is_on_channel(), "{action:?}");
        assert_eq!(
            entry("channels = \"a\""),
            action.may_be_on_channel(),
            "{action:?}"
        );
    }
}
