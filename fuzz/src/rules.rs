//! Rules: patterns of names, filled in by claims.
//!
//! A script consists of lines. The first line has the separator and the claims, if there are any, in JSON. A line that
//! begins with `+` or `-` is a pattern that is allowed or denied; a line that begins with `?` is a name to decide
//! about.

use ringcast::config::rules::{Action, Effect, RuleSpec};
use ringcast::internals::auth::rules::Rules;

use super::json_model::{self, Value};
use super::tokens;

/// The decision is the same as by a simpler matcher, and no claim lets a pattern match more.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.lines().take(100);
    let first = lines.next().unwrap_or_default();
    let Some(separator) = first.bytes().next().filter(u8::is_ascii_punctuation) else {
        return;
    };
    let claims_text = Some(first[1..].trim()).filter(|text| !text.is_empty());
    let mut claims = None;
    if let Some(text) = claims_text {
        // No token can have these claims.
        let Some(signed) = tokens::claims_of(text) else {
            return;
        };
        claims = Some(signed);
    }
    let model = claims
        .as_ref()
        .map(|claims| match json_model::parse(claims.json()) {
            Ok(value) => value,
            Err(_) => Value::Null,
        });
    let (mut specs, mut wider, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        let Some((kind, rest)) = line.split_at_checked(1) else {
            continue;
        };
        let effect = match kind {
            "+" => Effect::Allow,
            "-" => Effect::Deny,
            "?" => {
                names.push(rest);
                continue;
            }
            _ => continue,
        };
        specs.push(spec(effect, rest));
        if effect == Effect::Allow {
            wider.push(spec(effect, &widened(rest, char::from(separator))));
        }
    }
    let allowing: Vec<RuleSpec> = specs
        .iter()
        .filter(|spec| spec.effect == Effect::Allow)
        .cloned()
        .collect();
    let Ok(rules) = Rules::compile(&specs, &allowing, char::from(separator), None) else {
        return;
    };
    let wider = Rules::compile(&wider, &[], char::from(separator), None).expect("* stands for any segment");
    for name in names {
        let facts = claims.as_mut().map(|claims| claims.facts(&rules));
        let decided = rules.decide(Action::Publish, name.as_bytes(), facts.as_deref());
        let first = specs
            .iter()
            .position(|spec| matches(pattern_of(spec), name.as_bytes(), separator, model.as_ref()));
        let allowed = match first {
            Some(place) => specs[place].effect == Effect::Allow,
            None => specs.is_empty(),
        };
        assert_eq!(decided.verdict.allowed, allowed, "{name:?} {specs:?}");
        if !specs.is_empty() {
            let rule = first.map(|place| u32::try_from(place + 1).expect("few"));
            assert_eq!(decided.verdict.rule, rule, "{name:?} {specs:?}");
        }
        if !allowing.is_empty() && decided.shadow.allowed {
            assert!(
                wider
                    .decide(Action::Publish, name.as_bytes(), None)
                    .verdict
                    .allowed,
                "{name:?} is too wide"
            );
        }
        // A cached decision is the same: decide twice, so that the second one comes from the cache.
        if let Some(facts) = claims.as_mut().map(|claims| claims.facts(&rules)) {
            for _ in 0..2 {
                assert_eq!(rules.decide_for(Action::Publish, name.as_bytes(), facts), decided);
            }
        }
        let _ = rules.explain(Action::Publish, name, claims.as_ref());
    }
}

fn spec(effect: Effect, pattern: &str) -> RuleSpec {
    RuleSpec {
        effect,
        channels: Some(vec![pattern.to_owned()]),
        ..RuleSpec::default()
    }
}

fn pattern_of(spec: &RuleSpec) -> &str {
    spec.channels.as_ref().map_or("", |all| &all[0])
}

/// The pattern with a wildcard in place of each claim.
fn widened(pattern: &str, separator: char) -> String {
    let segments = pattern.split(separator).map(|segment| match claim_in(segment) {
        Some(_) => "*",
        None => segment,
    });
    segments.collect::<Vec<_>>().join(&separator.to_string())
}

fn claim_in(segment: &str) -> Option<&str> {
    segment
        .strip_prefix('{')?
        .strip_suffix('}')
        .filter(|name| !name.is_empty())
}

fn matches(pattern: &str, name: &[u8], separator: u8, claims: Option<&Value>) -> bool {
    let mut segments = name.split(|&byte| byte == separator);
    for part in pattern.split(char::from(separator)) {
        if part == "**" {
            return true;
        }
        let Some(segment) = segments.next() else {
            return false;
        };
        let is_met = match (part, claim_in(part)) {
            ("*", _) => !segment.is_empty(),
            (_, Some(claim)) => claims
                .and_then(|claims| claims.member(claim))
                .is_some_and(|value| is_filled_by(value, segment)),
            (literal, None) => literal.as_bytes() == segment,
        };
        if !is_met {
            return false;
        }
    }
    segments.next().is_none()
}

fn is_filled_by(value: &Value, segment: &[u8]) -> bool {
    match value {
        Value::Array(elements) => elements
            .iter()
            .any(|element| !matches!(element, Value::Array(_)) && is_filled_by(element, segment)),
        Value::Text(units) => {
            String::from_utf16(units).is_ok_and(|text| !text.is_empty() && text.as_bytes() == segment)
        }
        // Whole numbers that a double represents exactly print as integers.
        Value::Number(number) => {
            number.fract() == 0.0
                && number.abs() <= 9_007_199_254_740_991.0
                && format!("{}", number + 0.0).as_bytes() == segment
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => false,
    }
}
