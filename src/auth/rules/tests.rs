//! Tests of permissions: patterns, the clients that rules are about, decisions, shadow rules and explanations.

use proptest::prelude::{any, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy};
use proptest::{collection, prop_assert_eq};

use super::*;
use crate::auth::Claims;

/// Allows all actions on these channels to anyone.
fn on(channels: &[&str]) -> RuleSpec {
    RuleSpec {
        effect: Effect::Allow,
        channels: Some(channels.iter().map(|&pattern| pattern.to_owned()).collect()),
        ..RuleSpec::default()
    }
}

fn to(who: Audience) -> RuleSpec {
    RuleSpec {
        effect: Effect::Allow,
        to: vec![who],
        ..RuleSpec::default()
    }
}

fn compile(specs: &[RuleSpec]) -> Arc<Rules> {
    Rules::compile(specs, &[], '.', None).unwrap()
}

fn publish(rules: &Rules, name: impl AsRef<[u8]>, claims: Option<&str>) -> RuleVerdict {
    let mut claims = claims.map(|json| Claims::trusted(json.to_owned(), None));
    let facts = claims.as_mut().map(|claims| &*claims.facts(rules));
    rules.decide(Action::Publish, name.as_ref(), facts).verdict
}

/// True if a pattern matches a name for a client with these claims.
fn matches(pattern: &str, separator: char, claims: &str, name: impl AsRef<[u8]>) -> bool {
    let rules = Rules::compile(&[on(&[pattern])], &[], separator, None).unwrap();
    publish(&rules, name, Some(claims)).allowed
}

#[test]
fn patterns_match_segment_by_segment() {
    for (pattern, yes, no) in [
        (
            "room.lobby",
            &["room.lobby"][..],
            &[
                "room.lobby2",
                "room.lobb",
                "room",
                "",
                "room.lobby.",
                "Room.lobby",
                "xroom.lobby",
            ][..],
        ),
        (
            "room.*",
            &["room.a", "room.*", "room. ", "room.a/b", "room.\u{0}"],
            &[
                "room", "room.", "room.a.b", "room.a.", "rooms.a", "room..", ".room.a",
            ],
        ),
        ("*", &["a", "a/b"], &["", ".", "a.b", "a."]),
        ("*.x", &["a.x"], &[".x", "x", "a.b.x", "a.x."]),
        ("a.*.c", &["a.b.c"], &["a..c", "a.b", "a.b.c.d", "a.b.x"]),
        (
            "user.**",
            &["user", "user.", "user.a", "user.a.b", "user..b", "user.**"],
            &["users", "users.a", "use", "", "xuser.a"],
        ),
        ("**", &["", "a", "a.b", ".", "#x"], &[]),
        ("a.*.**", &["a.b", "a.b.c", "a.b."], &["a", "a.", "a..c"]),
        ("a..b", &["a..b"], &["a.b", "a.x.b"]),
        ("a.", &["a."], &["a", "a.b"]),
        ("käse.*", &["käse.1"], &["ka\u{308}se.1", "kase.1"]),
        ("#x", &["#x"], &["x"]),
    ] {
        for name in yes {
            assert!(matches(pattern, '.', "{}", name), "{pattern} is about {name:?}");
        }
        for name in no {
            assert!(
                !matches(pattern, '.', "{}", name),
                "{pattern} is not about {name:?}"
            );
        }
    }
    assert!(matches("user/*", '/', "{}", "user/b.c"));
    assert!(!matches("user/*", '/', "{}", "user/b/c"));
    assert!(!matches("user/*", '/', "{}", "user.b"));
}

#[test]
fn names_are_bytes_and_halves_of_surrogate_pairs_equal_nothing() {
    let half = b"room.\xed\xa0\xbd";
    assert!(matches("room.*", '.', "{}", half));
    assert!(matches("**", '.', "{}", half));
    assert!(!matches("room.\u{fffd}", '.', "{}", half));
    // A claim with half a surrogate pair is not text, even if the name has the same half.
    assert!(!matches("room.{sub}", '.', r#"{"sub":"\ud83d"}"#, half));
    assert!(matches("room.{sub}", '.', r#"{"sub":"\ud83d\ude00"}"#, "room.😀"));
}

#[test]
fn a_claim_is_one_segment_and_never_a_pattern() {
    let all = [
        "user.bob",
        "user.",
        "user",
        "user.x",
        "user.bob.x",
        "user.*",
        "user.**",
        "user.{sub}",
        "user.bob.**",
        "user..",
        "user...",
        "user.null",
        "user.true",
        "user.0",
        "user.1",
        "user.[object Object]",
        "user.undefined",
        "user.NaN",
        "user.1.0",
        "user.1e0",
        "user.-1",
        "user.bob\u{0}",
        "user.b\u{43e}b",
        "user.Bob",
        "user.bob ",
        "user.a,b",
        "user.\\u0062ob",
    ];
    for (claims, mine) in [
        (r#"{"sub":"bob"}"#, Some("user.bob")),
        (r#"{"sub":"b\u006fb"}"#, Some("user.bob")),
        (r#"{"s\u0075b":"bob"}"#, Some("user.bob")),
        (r#"{"sub":"\\u0062ob"}"#, Some("user.\\u0062ob")),
        (r#"{"sub":"bob\u0000"}"#, Some("user.bob\u{0}")),
        (r#"{"sub":"bоb"}"#, Some("user.b\u{43e}b")),
        (r#"{"sub":"Bob"}"#, Some("user.Bob")),
        (r#"{"sub":"bob "}"#, Some("user.bob ")),
        // Wildcards are ordinary characters here.
        (r#"{"sub":"*"}"#, Some("user.*")),
        (r#"{"sub":"**"}"#, Some("user.**")),
        (r#"{"sub":"{sub}"}"#, Some("user.{sub}")),
        // A value that would be two segments, or none, matches nothing.
        (r#"{"sub":"bob.**"}"#, None),
        (r#"{"sub":"bob.x"}"#, None),
        (r#"{"sub":"."}"#, None),
        (r#"{"sub":".."}"#, None),
        (r#"{"sub":"\u002e"}"#, None),
        (r#"{"sub":""}"#, None),
        ("{}", None),
        (r#"{"sub":null}"#, None),
        (r#"{"sub":true}"#, None),
        (r#"{"sub":{"sub":"bob"}}"#, None),
        (r#"{"x":{"sub":"bob"}}"#, None),
        (r#"{"__proto__":{"sub":"bob"}}"#, None),
        (r#"{"sub":["x",{"sub":"bob"}]}"#, Some("user.x")),
        (r#"{"sub":[["bob"]]}"#, None),
        (r#"{"sub":[]}"#, None),
        (r#"{"SUB":"bob"}"#, None),
        (r#"{"sub ":"bob"}"#, None),
        // Numbers as JavaScript has them; only integers that a double represents exactly.
        (r#"{"sub":1}"#, Some("user.1")),
        (r#"{"sub":1.0}"#, Some("user.1")),
        (r#"{"sub":1e0}"#, Some("user.1")),
        (r#"{"sub":0}"#, Some("user.0")),
        (r#"{"sub":-0}"#, Some("user.0")),
        (r#"{"sub":-1}"#, Some("user.-1")),
        (r#"{"sub":1.5}"#, None),
        (r#"{"sub":1e400}"#, None),
        (r#"{"sub":"1.0"}"#, None),
        (r#"{"sub":"1e0"}"#, Some("user.1e0")),
        // Of equal members the last counts, as in JavaScript.
        (r#"{"sub":"x","sub":"bob"}"#, Some("user.bob")),
        (r#"{"sub":"bob","s\u0075b":"x"}"#, Some("user.x")),
        (r#"{"sub":"bob","sub":null}"#, None),
        // Payloads that are not objects have no claims.
        (r#""bob""#, None),
        (r#"["bob"]"#, None),
        ("1", None),
    ] {
        for name in all {
            assert_eq!(
                matches("user.{sub}", '.', claims, name),
                mine == Some(name),
                "{claims} {name}"
            );
            let below = mine.is_some_and(|mine| name == mine || name.starts_with(&format!("{mine}.")));
            assert_eq!(
                matches("user.{sub}.**", '.', claims, name),
                below,
                "{claims} {name}"
            );
        }
    }
}

#[test]
fn two_users_never_match_as_the_same_number() {
    for (number, name) in [
        ("9007199254740991", Some("u.9007199254740991")),
        ("-9007199254740991", Some("u.-9007199254740991")),
        ("9007199254740992", None),
        ("9007199254740993", None),
        ("1e21", None),
    ] {
        let claims = format!("{{\"id\":{number}}}");
        for other in [
            "u.9007199254740991",
            "u.-9007199254740991",
            "u.9007199254740992",
            "u.9007199254740993",
            "u.1e+21",
        ] {
            assert_eq!(
                matches("u.{id}", '.', &claims, other),
                name == Some(other),
                "{number} {other}"
            );
        }
    }
    // With a minus as the separator a negative number is two segments.
    assert!(!matches("u-{id}", '-', r#"{"id":-1}"#, "u--1"));
    assert!(matches("u-{id}", '-', r#"{"id":1}"#, "u-1"));
}

#[test]
fn a_list_in_the_token_matches_as_any_of_its_texts() {
    let claims = r#"{"rooms":["b","a",7,"c.d","","*",null,"a"],"sub":"ann"}"#;
    for (name, is_met) in [
        ("room.a", true),
        ("room.b", true),
        ("room.7", true),
        ("room.*", true),
        ("room.c", false),
        ("room.c.d", false),
        ("room.", false),
        ("room.null", false),
        ("room.a,b", false),
        ("room", false),
    ] {
        assert_eq!(matches("room.{rooms}", '.', claims, name), is_met, "{name}");
    }
    assert!(matches("{rooms}.{sub}", '.', claims, "a.ann"));
    assert!(!matches("{rooms}.{sub}", '.', claims, "ann.a"));
    // Each claim is compared by itself: the same list in two places may match two different items.
    assert!(matches("{rooms}.{rooms}", '.', claims, "a.b"));
}

#[test]
fn a_rule_applies_to_the_clients_that_its_to_describes() {
    let text = |text: &str| Scalar::Text(text.to_owned());
    let is = |value: Scalar| Audience::Is("role".to_owned(), vec![text("owner"), value]);
    let contains = |value: Scalar| Audience::Contains("rooms".to_owned(), vec![text("x"), value]);
    for (who, claims, is_met) in [
        (Audience::Anyone, None, true),
        (Audience::Anyone, Some("{}"), true),
        (Audience::Authenticated, None, false),
        (Audience::Authenticated, Some("{}"), true),
        (Audience::Anonymous, None, true),
        (Audience::Anonymous, Some("{}"), false),
        (is(text("admin")), None, false),
        (is(text("admin")), Some(r#"{"role":"admin"}"#), true),
        (is(text("admin")), Some(r#"{"role":"owner"}"#), true),
        (is(text("admin")), Some(r#"{"role":"\u0061dmin"}"#), true),
        (is(text("admin")), Some(r#"{"role":"Admin"}"#), false),
        (is(text("admin")), Some(r#"{"role":"admin "}"#), false),
        (is(text("admin")), Some(r#"{"role":["admin"]}"#), false),
        (is(text("admin")), Some(r#"{"role":{"admin":"admin"}}"#), false),
        (is(text("admin")), Some(r#"{"x":{"role":"admin"}}"#), false),
        (
            is(text("admin")),
            Some(r#"{"role":"admin","role":"guest"}"#),
            false,
        ),
        (
            is(text("admin")),
            Some(r#"{"role":"guest","role":"admin"}"#),
            true,
        ),
        (
            is(text("admin")),
            Some(r#"{"__proto__":{"role":"admin"}}"#),
            false,
        ),
        (is(text("1")), Some(r#"{"role":1}"#), false),
        (is(Scalar::Number(1.0)), Some(r#"{"role":"1"}"#), false),
        (is(Scalar::Number(1.0)), Some(r#"{"role":1.0}"#), true),
        (is(Scalar::Number(1.0)), Some(r#"{"role":true}"#), false),
        (is(Scalar::Switch(true)), Some(r#"{"role":true}"#), true),
        (is(Scalar::Switch(true)), Some(r#"{"role":"true"}"#), false),
        (is(Scalar::Switch(false)), Some("{}"), false),
        (is(Scalar::Switch(false)), Some(r#"{"role":null}"#), false),
        (contains(text("a")), Some(r#"{"rooms":["b","a"]}"#), true),
        (contains(text("a")), Some(r#"{"rooms":["b"]}"#), false),
        (contains(text("a")), Some(r#"{"rooms":"a"}"#), false),
        (contains(text("a")), Some(r#"{"rooms":{"0":"a"}}"#), false),
        (contains(text("a")), Some(r#"{"rooms":[["a"]]}"#), false),
        (contains(Scalar::Number(2.0)), Some(r#"{"rooms":[1,2]}"#), true),
    ] {
        let rules = compile(&[to(who.clone())]);
        assert_eq!(publish(&rules, "a", claims).allowed, is_met, "{who} {claims:?}");
    }
}

#[test]
fn the_first_matching_rule_decides_and_without_one_the_action_is_denied() {
    let deny = |channel: &str| RuleSpec {
        effect: Effect::Deny,
        ..on(&[channel])
    };
    let rules = compile(&[deny("room.secret.**"), on(&["room.**", "x"]), deny("room.lobby")]);
    for (name, allowed, rule) in [
        ("room.secret", false, Some(1)),
        ("room.secret.a", false, Some(1)),
        ("room.lobby", true, Some(2)),
        ("x", true, Some(2)),
        ("y", false, None),
    ] {
        assert_eq!(
            publish(&rules, name, None),
            RuleVerdict { allowed, rule },
            "{name}"
        );
    }
    let everything = RuleVerdict {
        allowed: true,
        rule: None,
    };
    assert_eq!(publish(&Rules::default(), "y", None), everything);
    assert_eq!(publish(&compile(&[]), "y", None), everything);
}

#[test]
fn each_action_is_decided_on_its_own() {
    let calls = RuleSpec {
        effect: Effect::Allow,
        actions: vec![Action::Invoke, Action::Transmit],
        procedures: Some(vec!["chat.*".to_owned()]),
        ..RuleSpec::default()
    };
    let rules = compile(&[
        calls,
        RuleSpec {
            actions: vec![Action::Subscribe],
            ..on(&["chat.a"])
        },
    ]);
    let allowed = |action, name: &[u8]| rules.decide(action, name, None).verdict.allowed;
    assert!(allowed(Action::Invoke, b"chat.a"));
    assert!(allowed(Action::Transmit, b"chat.a"));
    assert!(!allowed(Action::Invoke, b"chat"));
    assert!(allowed(Action::Subscribe, b"chat.a"));
    assert!(!allowed(Action::Subscribe, b"chat.b"));
    assert!(!allowed(Action::Publish, b"chat.a"));
}

#[test]
fn shadow_rules_have_no_effect() {
    let rules =
        |enforced: &[RuleSpec], shadow: &[RuleSpec]| Rules::compile(enforced, shadow, '.', None).unwrap();
    let decide = |rules: &Rules, name: &[u8]| rules.decide(Action::Publish, name, None);
    let both = rules(&[on(&["a", "b"])], &[on(&["b", "c"])]);
    for (name, now, then) in [
        (&b"a"[..], true, false),
        (b"b", true, true),
        (b"c", false, true),
        (b"d", false, false),
    ] {
        let Decided { verdict, shadow } = decide(&both, name);
        assert_eq!((verdict.allowed, shadow.allowed), (now, then));
    }
    let shadow_alone = rules(&[], &[on(&["b"])]);
    let Decided { verdict, shadow } = decide(&shadow_alone, b"a");
    assert_eq!((verdict.allowed, shadow.allowed), (true, false));
    assert!(!shadow_alone.enforces() && !shadow_alone.is_empty());
    let none = decide(&rules(&[on(&["a"])], &[]), b"x");
    assert_eq!(none.verdict, none.shadow);
}

#[test]
fn more_rules_than_bits_in_a_word_are_distinguished() {
    let mut specs: Vec<RuleSpec> = (0..130)
        .map(|index| RuleSpec {
            to: vec![Audience::Is(
                "n".to_owned(),
                vec![Scalar::Number(f64::from(index))],
            )],
            ..on(&["a"])
        })
        .collect();
    specs.reverse();
    let rules = Rules::compile(&specs[..65], &specs[65..], '.', None).unwrap();
    for index in 0..130_u32 {
        let mut claims = Claims::trusted(format!("{{\"n\":{index}}}"), None);
        let Decided { verdict, shadow } = rules.decide(Action::Publish, b"a", Some(claims.facts(&rules)));
        let place = 129 - index;
        assert_eq!(verdict.rule, (place < 65).then_some(place + 1));
        assert_eq!(shadow.rule, (place >= 65).then(|| place - 65 + 1));
    }
}

#[test]
fn facts_are_read_again_for_other_rules() {
    let first = compile(&[on(&["user.{sub}"])]);
    let second = Rules::compile(&[on(&["room.{room}"])], &[], '.', Some(&first)).unwrap();
    let mut claims = Claims::trusted(r#"{"sub":"ann","room":"r"}"#.to_owned(), None);
    let mut ask = |rules: &Rules, name: &[u8]| {
        let facts = claims.facts(rules);
        rules.decide(Action::Publish, name, Some(facts)).verdict.allowed
    };
    assert!(ask(&first, b"user.ann"));
    assert!(!ask(&second, b"user.ann"));
    assert!(ask(&second, b"room.r"));
    assert!(ask(&first, b"user.ann"));
    assert!(
        !Claims::trusted("{}".to_owned(), None)
            .facts(&first)
            .subscriptions_checked
    );
}

#[test]
fn equal_rules_are_kept() {
    let first = compile(&[on(&["a"])]);
    let same = Rules::compile(&[on(&["a"])], &[], '.', Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    for other in [
        Rules::compile(&[on(&["b"])], &[], '.', Some(&first)).unwrap(),
        Rules::compile(&[on(&["a"])], &[on(&["a"])], '.', Some(&first)).unwrap(),
        Rules::compile(&[on(&["a"])], &[], '/', Some(&first)).unwrap(),
        Rules::compile(&[], &[], '.', Some(&first)).unwrap(),
    ] {
        assert_ne!(other.id(), first.id());
    }
}

#[test]
fn the_error_of_an_invalid_pattern_names_its_rule() {
    for (pattern, separator, fault) in [
        (
            "",
            '.',
            "rules number 1: channels: \"\": a pattern may not be empty",
        ),
        (
            "**.a",
            '.',
            "rules number 1: channels: \"**.a\": ** matches all remaining segments, so it must come last",
        ),
        (
            "room-*",
            '.',
            "rules number 1: channels: \"room-*\": *, ** and {claim} must be whole segments; the separator is '.' here \
             (rules_separator)",
        ),
    ] {
        let error = Rules::compile(&[on(&[pattern])], &[], separator, None).unwrap_err();
        assert_eq!(error.to_string(), fault);
    }
    for wrong in [
        "a*",
        "***",
        "{sub",
        "sub}",
        "{}",
        "{a{b}",
        "{a}b",
        "{a}{b}",
        "a{b}",
        "user/{sub}",
        "{a}.**.b",
        "*a",
    ] {
        assert!(
            Rules::compile(&[on(&[wrong])], &[], '.', None).is_err(),
            "{wrong}"
        );
    }
    for separator in ['*', '{', '}', 'a', ' ', 'é', '😀'] {
        let error = Rules::compile(&[], &[], separator, None).unwrap_err();
        assert!(
            error.to_string().starts_with("rules_separator: found "),
            "{error}"
        );
    }
    let shadow = RuleSpec {
        line: 9,
        ..on(&["a*"])
    };
    let error = Rules::compile(&[], &[on(&["a"]), shadow], '.', None).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("line 9: shadow_rules number 2: channels: "),
        "{error}"
    );
}

#[test]
fn an_explanation_tells_for_each_rule_why_it_does_not_decide() {
    let rules = compile(&[
        RuleSpec {
            actions: vec![Action::Subscribe],
            ..on(&["**"])
        },
        RuleSpec {
            to: vec![Audience::Authenticated],
            ..on(&["**"])
        },
        on(&["user.{sub}", "room.*"]),
        on(&["x", "a"]),
        on(&["**"]),
    ]);
    let [enforced, shadow] = rules.explain(Action::Publish, "a", None);
    let Explanation { steps, verdict } = enforced.unwrap();
    let reasons: Vec<Reason> = steps.into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(
        reasons,
        [
            Reason::Action,
            Reason::Audience(vec!["authenticated".to_owned()]),
            Reason::Name(vec![
                "user.{sub} (sub: no value of this claim is one segment)".to_owned(),
                "room.*".to_owned()
            ]),
            Reason::Decides(Some("a".to_owned())),
        ]
    );
    assert_eq!(verdict.rule, Some(4));
    assert!(shadow.is_none());
    let claims = Claims::trusted(r#"{"sub":"ann"}"#.to_owned(), None);
    let [enforced, _] = rules.explain(Action::Publish, "a", Some(&claims));
    assert_eq!(enforced.unwrap().verdict.rule, Some(2));
}

fn segment_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        collection::vec(
            prop_oneof![
                Just('.'),
                Just('*'),
                Just('{'),
                Just('}'),
                Just('a'),
                Just('\u{0}')
            ],
            0..5
        )
        .prop_map(|characters| characters.into_iter().collect()),
    ]
}

proptest! {
    #[test]
    fn a_pattern_with_a_claim_matches_only_the_name_with_its_value(value in segment_text(), name in segment_text()) {
        let claims = serde_json::json!({ "sub": value }).to_string();
        let is_segment = !value.is_empty() && !value.contains('.');
        let own = format!("user.{value}");
        let name = format!("user.{name}");
        prop_assert_eq!(matches("user.{sub}", '.', &claims, &own), is_segment);
        prop_assert_eq!(matches("user.{sub}", '.', &claims, &name), is_segment && name == own);
        let below = name == own || name.starts_with(&format!("{own}."));
        prop_assert_eq!(matches("user.{sub}.**", '.', &claims, &name), is_segment && below);
    }

    #[test]
    fn a_list_matches_only_its_segments(values in collection::vec(segment_text(), 0..4), name in segment_text()) {
        let claims = serde_json::json!({ "rooms": values }).to_string();
        let is_met = !name.is_empty() && !name.contains('.') && values.contains(&name);
        prop_assert_eq!(matches("{rooms}.x", '.', &claims, format!("{name}.x")), is_met);
    }

    #[test]
    fn patterns_match_as_defined(
        pattern in collection::vec(prop_oneof![Just("a"), Just("b"), Just("*"), Just("{sub}"), Just("")], 1..4),
        has_rest in any::<bool>(),
        name in collection::vec(prop_oneof![Just("a"), Just("b"), Just("me"), Just(""), Just("*")], 0..5),
    ) {
        let mut text = pattern.join(".");
        if has_rest {
            text.push_str(".**");
        }
        if text.is_empty() {
            return Ok(());
        }
        // One empty segment and none are the same name.
        let name = if name.is_empty() { vec![""] } else { name };
        let is_long_enough = if has_rest { name.len() >= pattern.len() } else { name.len() == pattern.len() };
        let expected = is_long_enough && pattern.iter().zip(&name).all(|(pattern, segment)| match *pattern {
            "*" => !segment.is_empty(),
            "{sub}" => *segment == "me",
            literal => *segment == literal,
        });
        prop_assert_eq!(matches(&text, '.', r#"{"sub":"me"}"#, name.join(".")), expected, "{} {}", text, name.join("."));
    }

    #[test]
    fn any_claims_and_names_are_decided(claims in any::<String>(), name in collection::vec(any::<u8>(), 0..20)) {
        let rules = compile(&[on(&["{sub}.*", "a.{b}.**"])]);
        let verdict = publish(&rules, &name, Some(&claims));
        prop_assert_eq!(verdict.allowed, verdict.rule.is_some());
    }
}

#[test]
fn cached_decisions_equal_fresh_ones() {
    let first = compile(&[on(&["a.*", "user.{sub}"])]);
    let second = Rules::compile(&[on(&["b.*"])], &[], '.', Some(&first)).unwrap();
    let mut ann = Claims::trusted(r#"{"sub":"ann"}"#.to_owned(), None);
    let mut recent = RecentDecisions::default();
    let long = format!("a.{}", "x".repeat(80));
    let names = [
        "a.1",
        "b.1",
        "a.2",
        "user.ann",
        "user.bob",
        "",
        "a.1.1",
        "1.a",
        long.as_str(),
        &long[..64],
    ];
    // Each twice, and by other rules in between: the second time it comes from memory if it is remembered.
    for _ in 0..3 {
        for name in names.iter().chain(&names) {
            for rules in [&first, &first, &second] {
                for action in [Action::Publish, Action::Subscribe, Action::Invoke] {
                    let name = name.as_bytes();
                    let facts = ann.facts(rules);
                    assert_eq!(
                        rules.decide_for(action, name, facts),
                        rules.decide(action, name, Some(facts))
                    );
                    assert_eq!(
                        rules.decide_for_anonymous(action, name, &mut recent),
                        rules.decide(action, name, None)
                    );
                }
            }
        }
    }
}

/// Compared with the definition: the pattern matches each name that the other pattern matches. All patterns and names
/// of a few segments are tried.
#[test]
fn a_pattern_covers_another_if_it_matches_all_names_that_the_other_matches() {
    fn sequences(alphabet: &[&str], longest: usize) -> Vec<String> {
        let mut all: Vec<Vec<&str>> = vec![Vec::new()];
        let mut found = Vec::new();
        for _ in 0..longest {
            all = all
                .iter()
                .flat_map(|begun| alphabet.iter().map(move |one| [&begun[..], &[*one]].concat()))
                .collect();
            found.extend(all.iter().map(|segments| segments.join(".")));
        }
        found
    }
    let names = sequences(&["a", "b", ""], 4);
    let patterns: Vec<Pattern> = sequences(&["a", "b", "", "*", "**"], 3)
        .iter()
        .filter_map(|text| Pattern::compile(text, b'.', &mut Vec::new()).ok())
        .collect();
    let matched: Vec<Vec<bool>> = patterns
        .iter()
        .map(|pattern| {
            let matches =
                |name: &String| pattern.matches(name.as_bytes(), first_bytes(name.as_bytes()), b'.', &[]);
            names.iter().map(matches).collect()
        })
        .collect();
    for (one, of_one) in patterns.iter().zip(&matched) {
        for (other, of_other) in patterns.iter().zip(&matched) {
            let expected = of_one.iter().zip(of_other).all(|(one, other)| *one || !*other);
            assert_eq!(
                one.covers(other.text(), b'.'),
                expected,
                "{} {}",
                one.text(),
                other.text()
            );
        }
    }
}
