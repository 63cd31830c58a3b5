//! Compares the decision of rules about a topic filter with their decisions about each name that the filter matches:
//! all names of up to four levels are tried.

use super::*;
use crate::auth::Claims;

/// All texts of one to `longest` parts.
fn sequences(alphabet: &[&str], longest: usize, separator: &str) -> Vec<String> {
    let mut all: Vec<Vec<&str>> = vec![Vec::new()];
    let mut found = Vec::new();
    for _ in 0..longest {
        all = all
            .iter()
            .flat_map(|begun| alphabet.iter().map(move |one| [&begun[..], &[*one]].concat()))
            .collect();
        found.extend(all.iter().map(|parts| parts.join(separator)));
    }
    found
}

/// MQTT 5.0 section 4.7, word for word.
fn filter_matches(filter: &str, name: &str) -> bool {
    fn levels_match(filter: &[&str], name: &[&str]) -> bool {
        match (filter, name) {
            ([], []) | (["#"], _) => true,
            (["+", filter @ ..], [_, name @ ..]) => levels_match(filter, name),
            ([one, filter @ ..], [other, name @ ..]) => one == other && levels_match(filter, name),
            ([], _) | (_, []) => false,
        }
    }
    let levels: Vec<_> = filter.split('/').collect();
    let name_levels: Vec<_> = name.split('/').collect();
    let is_left_out = name.starts_with('$') && filter.starts_with(['+', '#']);
    !name.is_empty() && !is_left_out && levels_match(&levels, &name_levels)
}

fn rule(effect: Effect, pattern: &str) -> RuleSpec {
    RuleSpec {
        effect,
        channels: Some(vec![pattern.to_owned()]),
        ..RuleSpec::default()
    }
}

fn verdict(rules: &Rules, filter: &str, claims: &mut Claims) -> bool {
    let facts = claims.facts(rules);
    let decided = rules.decide_filter(Action::Subscribe, filter, Some(facts));
    decided.verdict.allowed
}

fn is_filter(filter: &str) -> bool {
    !filter.is_empty() && filter.split('/').rev().skip(1).all(|level| level != "#")
}

/// With one rule that allows, `decide_filter` is exact; with `.` as the separator it may refuse more.
#[test]
fn one_rule_allows_the_filters_of_which_it_allows_each_name() {
    let mut claims = Claims::trusted(r#"{"sub":"b","rooms":["a","c"]}"#.to_owned(), None);
    let filters: Vec<_> = sequences(&["a", "$", "+", "#", ""], 3, "/")
        .into_iter()
        .filter(|filter| is_filter(filter))
        .collect();
    let names = sequences(&["a", "c", "$", ""], 4, "/");
    for pattern in sequences(&["a", "$", "*", "+", "**", "{rooms}"], 3, "/") {
        let Ok(rules) = Rules::compile(&[rule(Effect::Allow, &pattern)], &[], '/', None) else {
            continue;
        };
        let facts = claims.facts(&rules).clone();
        let allowed = |name: &&String| {
            let decided = rules.decide(Action::Subscribe, name.as_bytes(), Some(&facts));
            decided.verdict.allowed
        };
        for filter in &filters {
            let expected = names
                .iter()
                .filter(|name| filter_matches(filter, name))
                .all(|name| allowed(&name));
            assert_eq!(
                verdict(&rules, filter, &mut claims),
                expected,
                "{pattern} {filter}"
            );
        }
    }
}

/// Whatever the rules, the separator and the filter: if the filter is allowed, each of its names is.
#[test]
fn no_name_of_an_allowed_filter_is_refused() {
    let mut claims = Claims::trusted(r#"{"sub":"b","rooms":["a","c"]}"#.to_owned(), None);
    let mut allowed_count = 0;
    for separator in ['/', '.'] {
        let between = separator.to_string();
        let parts = ["a", "*", "+", "**", "{sub}", "{rooms}"];
        let patterns = sequences(&parts, 2, &between);
        let filters: Vec<_> = sequences(&["a", "b", "+", "#", "a.b"], 2, "/")
            .into_iter()
            .filter(|filter| is_filter(filter))
            .collect();
        let names = sequences(&["a", "b", "c", "a.b", "a.", ""], 3, "/");
        for [first, second] in patterns
            .iter()
            .flat_map(|first| patterns.iter().map(move |second| [first, second]))
        {
            let list = [
                rule(Effect::Deny, first),
                rule(Effect::Allow, second),
                rule(Effect::Deny, "a"),
            ];
            let Ok(rules) = Rules::compile(&list, &[], separator, None) else {
                continue;
            };
            let facts = claims.facts(&rules).clone();
            for filter in filters.iter().filter(|filter| {
                let decided = rules.decide_filter(Action::Subscribe, filter, Some(&facts));
                decided.verdict.allowed
            }) {
                allowed_count += 1;
                for name in names.iter().filter(|name| filter_matches(filter, name)) {
                    let decided = rules.decide(Action::Subscribe, name.as_bytes(), Some(&facts));
                    assert!(decided.verdict.allowed, "{first} {second} {filter} {name}");
                }
            }
        }
        assert!(verdict(
            &Rules::compile(&[rule(Effect::Allow, "**")], &[], separator, None).unwrap(),
            "#",
            &mut claims
        ));
    }
    assert!(allowed_count > 100, "{allowed_count} filters were allowed");
}

#[test]
fn a_filter_with_another_separator_is_allowed_by_a_pattern_for_all_that_begins_like_it() {
    let rules = Rules::compile(
        &[
            rule(Effect::Deny, "site.secret.**"),
            rule(Effect::Allow, "site.**"),
        ],
        &[],
        '.',
        None,
    )
    .unwrap();
    let mut claims = Claims::trusted("{}".to_owned(), None);
    for (filter, allowed) in [
        ("site.a/+", true),
        ("site.a/#", true),
        ("site/+", false),
        ("+", false),
        ("site.secret/+", false),
        ("site.secret.x/#", false),
    ] {
        assert_eq!(verdict(&rules, filter, &mut claims), allowed, "{filter}");
    }
}

#[test]
fn a_filter_is_judged_by_the_shadow_rules_too_and_without_rules_it_is_allowed() {
    let rules = Rules::compile(
        &[rule(Effect::Allow, "**")],
        &[rule(Effect::Allow, "a/**")],
        '/',
        None,
    )
    .unwrap();
    let decided = rules.decide_filter(Action::Subscribe, "b/#", None);
    assert_eq!((decided.verdict.rule, decided.shadow.rule), (Some(1), None));
    assert!(decided.verdict.allowed && !decided.shadow.allowed);
    let decided = Rules::default().decide_filter(Action::Subscribe, "#", None);
    assert!(decided.verdict.allowed && decided.shadow.allowed);
}
