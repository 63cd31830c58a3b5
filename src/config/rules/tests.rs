use std::path::Path;

use super::read::read;
use super::*;
use crate::config::error::ListFault;
use crate::config::list::ListSource;

fn read_rules(text: &str) -> Result<Vec<RuleSpec>, Vec<ListFault>> {
    let table = toml::de::DeTable::parse(text).unwrap();
    let place = ListSource {
        file: Path::new("f"),
        text,
        table: table.get_ref(),
    };
    let (lists, faults) = read(place);
    if faults.is_empty() {
        Ok(lists.rules)
    } else {
        Err(faults)
    }
}

fn one(text: &str) -> RuleSpec {
    let mut rules = read_rules(&format!("[[rules]]\n{text}")).unwrap();
    rules.pop().unwrap()
}

fn fault(text: &str) -> String {
    let faults = read_rules(text).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].to_string().strip_prefix("f: ").unwrap().to_owned()
}

#[test]
fn a_rule_is_read_as_it_is_written() {
    let text = "# first\nlisten = \"127.0.0.1:1\"\n\n[[rules]]\nallow = [\"subscribe\", \"publish\"]\n\
                channels = [\"room.*\", \"user.{sub}.**\"]\nto = \"authenticated\"\n\n[[rules]]\n\
                deny = \"invoke\"\nto = [\"anonymous\", { claim = \"role\", is = [\"guest\", 7, true] }]\n";
    let rules = read_rules(text).unwrap();
    assert_eq!(
        rules,
        [
            RuleSpec {
                effect: Effect::Allow,
                actions: vec![Action::Subscribe, Action::Publish],
                channels: Some(vec!["room.*".to_owned(), "user.{sub}.**".to_owned()]),
                procedures: None,
                to: vec![Audience::Authenticated],
                file: Some("f".into()),
                line: 4,
            },
            RuleSpec {
                effect: Effect::Deny,
                actions: vec![Action::Invoke, Action::Transmit],
                channels: None,
                procedures: None,
                to: vec![
                    Audience::Anonymous,
                    Audience::Is(
                        "role".to_owned(),
                        vec![
                            Scalar::Text("guest".to_owned()),
                            Scalar::Number(7.0),
                            Scalar::Switch(true)
                        ]
                    ),
                ],
                file: Some("f".into()),
                line: 9,
            },
        ]
    );
}

#[test]
fn a_star_covers_all_actions_on_the_named_channels_or_procedures_except_serve() {
    let mut all = Action::ALL.to_vec();
    all.retain(|action| *action != Action::Serve);
    assert_eq!(one("allow = \"*\"").actions, all);
    assert_eq!(
        one("allow = [\"*\"]\nchannels = \"a\"").actions,
        [
            Action::Subscribe,
            Action::Publish,
            Action::History,
            Action::Presence
        ]
    );
    assert_eq!(
        one("deny = \"*\"\nprocedures = \"a\"").actions,
        [Action::Invoke, Action::Transmit]
    );
    assert_eq!(
        one("deny = \"*\"\nprocedures = \"a\"\nchannels = \"b\"").actions,
        all
    );
}

#[test]
fn faults_name_the_line_the_rule_and_the_accepted_values() {
    for (text, expected) in [
        (
            "[[rules]]\nallow = \"*\"\n[[rules]]\nallow = \"*\"\nchanels = \"a\"",
            "line 5: rules number 2: chanels is not known; did you mean channels?",
        ),
        (
            "[[rules]]\nallow = [\"subscribe\", \"publsh\"]",
            "line 2: rules number 1: allow: \"publsh\" is not an action; did you mean publish?",
        ),
        (
            "\n[[rules]]\nto = \"anyone\"",
            "line 2: rules number 1: expected allow = [...] or deny = [...]",
        ),
        (
            "[[rules]]\nallow = \"*\"\ndeny = \"*\"",
            "line 3: rules number 1: allow and deny are both there: make two rules of it",
        ),
        (
            "[[rules]]\nallow = \"publish\"",
            "line 2: rules number 1: channels are missing: say which, or channels = [\"**\"] for all",
        ),
        (
            "[[rules]]\nallow = [\"publish\", \"invoke\"]\nchannels = \"a\"",
            "line 2: rules number 1: procedures are missing: say which, or procedures = [\"**\"] for all",
        ),
        (
            "[[rules]]\ndeny = \"invoke\"\nchannels = \"a\"",
            "line 3: rules number 1: channels are named, but the rule is about none of their actions: subscribe, publish, history, presence",
        ),
        (
            "[[rules]]\ndeny = \"publish\"\nprocedures = \"a\"",
            "line 3: rules number 1: procedures are named, but the rule is about none of their actions: invoke, transmit, serve",
        ),
        ("[[rules]]\nallow = []", "line 2: rules number 1: allow is empty"),
        (
            "[[rules]]\nallow = \"*\"\nchannels = [1]",
            "line 3: rules number 1: channels: expected strings, such as [\"room.*\", \"user.{sub}.**\"]",
        ),
        (
            "[[rules]]\nallow = \"*\"\nto = \"autenticated\"",
            "line 3: rules number 1: to: \"autenticated\" is not known; did you mean authenticated?",
        ),
        (
            "[[rules]]\nallow = \"*\"\nto = []",
            "line 3: rules number 1: to is empty: the rule would concern nobody",
        ),
        (
            "[[rules]]\nallow = \"*\"\nto = { clam = \"a\", is = 1 }",
            "line 3: rules number 1: to.clam is not known; did you mean to.claim?",
        ),
        (
            "[[rules]]\nallow = \"*\"\nto = { claim = \"a\", is = [] }",
            "line 3: rules number 1: to.is is empty: the rule would concern nobody",
        ),
        (
            "[[rules]]\nallow = \"*\"\nto = { claim = \"a\", is = 9007199254740992 }",
            "line 3: rules number 1: to.is: expected a string, a boolean, or a number that a double holds exactly",
        ),
        (
            "rules = 1",
            "line 1: rules: expected a list of tables: begin each entry with [[rules]]",
        ),
        (
            "rules = [1]",
            "line 1: rules: expected a list of tables: begin each entry with [[rules]]",
        ),
        (
            "[rules]\nallow = \"*\"",
            "line 1: rules: expected a list of tables: begin each entry with [[rules]]",
        ),
    ] {
        assert_eq!(fault(text), expected, "{text}");
    }
    for to in [
        "{ claim = \"a\" }",
        "{ is = 1 }",
        "{ claim = 1, is = 1 }",
        "{ claim = \"a\", is = 1, contains = 1 }",
        "1",
        "[[]]",
    ] {
        let text = format!("[[rules]]\nallow = \"*\"\nto = {to}");
        assert!(
            fault(&text).starts_with("line 3: rules number 1: to: expected \"anyone\""),
            "{to}"
        );
    }
}

#[test]
fn each_rule_with_a_fault_is_named() {
    let text = "[[rules]]\nallow = 1\n[[rules]]\nallow = \"*\"\n[[rules]]\nalow = \"*\"\n";
    let faults: Vec<_> = read_rules(text)
        .unwrap_err()
        .iter()
        .map(|fault| (fault.line, fault.number))
        .collect();
    assert_eq!(faults, [(2, 1), (6, 3)]);
}

#[test]
fn the_number_of_rules_is_bounded() {
    let rules = |count: usize| "[[rules]]\nallow = \"*\"\n".repeat(count);
    assert_eq!(read_rules(&rules(RULES_MAX)).unwrap().len(), RULES_MAX);
    assert_eq!(
        fault(&rules(RULES_MAX + 1)),
        "line 1: rules: found 1001 entries, expected at most 1000"
    );
}
