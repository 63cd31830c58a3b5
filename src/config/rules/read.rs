//! Reads rules from a file that has been found to be TOML.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use super::{Action, Effect, LISTS, RULES_MAX, RuleSpec, Scalar, WHOLE_MAX, Who};
use crate::config::error::RuleFault;
use crate::config::nearest::nearest;

/// The lists of rules of a file.
#[derive(Debug, Default, PartialEq)]
pub(in crate::config) struct RuleLists {
    /// The rules that are in force.
    pub(in crate::config) rules: Vec<RuleSpec>,
    /// The rules on trial.
    pub(in crate::config) shadow_rules: Vec<RuleSpec>,
}

/// Reads both lists of a file. A list with a fault is empty; the faults are the first one of each rule that has one.
pub(in crate::config) fn read(file: &Path, text: &str, table: &DeTable<'_>) -> (RuleLists, Vec<RuleFault>) {
    let mut faults = Vec::new();
    let mut list = |list| {
        let read = table.get(list).map(|value| read_list(file, text, list, value));
        read.unwrap_or_else(|| Ok(Vec::new())).unwrap_or_else(|found| {
            faults.extend(found);
            Vec::new()
        })
    };
    let [rules, shadow_rules] = LISTS.map(&mut list);
    (RuleLists { rules, shadow_rules }, faults)
}

fn read_list(
    file: &Path,
    text: &str,
    list: &'static str,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<RuleSpec>, Vec<RuleFault>> {
    let line_of = |at: usize| 1 + text[..at].matches('\n').count();
    let fault = |number: usize, line: usize, fault: String| RuleFault {
        list,
        number,
        file: Some(file.to_owned()),
        line,
        fault,
    };
    let of_the_list = |said: String| vec![fault(0, line_of(value.span().start), said)];
    let is_list = value
        .get_ref()
        .as_array()
        .is_some_and(|rules| rules.iter().all(|rule| rule.get_ref().is_table()));
    if !is_list {
        return Err(of_the_list(format!(
            "expected a list of tables: begin each rule with [[{list}]]"
        )));
    }
    let lists: Lists =
        toml::from_str(text).map_err(|error| of_the_list(error.message().replace('\n', ", ")))?;
    let tables = if list == LISTS[0] {
        lists.rules
    } else {
        lists.shadow_rules
    };
    if tables.len() > RULES_MAX {
        return Err(of_the_list(format!(
            "found {} rules, expected at most {RULES_MAX}",
            tables.len()
        )));
    }
    let (mut rules, mut faults) = (Vec::with_capacity(tables.len()), Vec::new());
    for (index, table) in tables.iter().enumerate() {
        let line = line_of(table.span().start);
        match rule(&keys(table.get_ref(), line_of), line) {
            Ok(rule) => rules.push(RuleSpec {
                file: Some(file.to_owned()),
                ..rule
            }),
            Err((line, said)) => faults.push(fault(index + 1, line, said)),
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// The keys of a rule, in the order of the file: the first fault of the file is named, not that of the first key of the
/// alphabet.
fn keys(table: &Keys, line_of: impl Fn(usize) -> usize) -> Vec<Key<'_>> {
    let mut keys: Vec<Key<'_>> = table
        .iter()
        .map(|(key, value)| Key {
            name: key.get_ref(),
            line: line_of(key.span().start),
            value,
        })
        .collect();
    keys.sort_by_key(|key| key.line);
    keys
}

/// The rules of the file; other keys are skipped.
#[derive(Deserialize)]
struct Lists {
    #[serde(default)]
    rules: Vec<Table>,
    #[serde(default)]
    shadow_rules: Vec<Table>,
}

type Table = Spanned<Keys>;
type Keys = BTreeMap<Spanned<String>, Value>;

struct Key<'a> {
    name: &'a str,
    line: usize,
    value: &'a Value,
}

/// A line, and the fault there.
type Fault = (usize, String);

fn rule(keys: &[Key<'_>], line: usize) -> Result<RuleSpec, Fault> {
    if let Some(unknown) = keys.iter().find(|key| !KEYS.contains(&key.name)) {
        let nearest = nearest(unknown.name, KEYS.iter().map(|key| (*key).to_owned()));
        let fault = format!("{} is not known; did you mean {nearest}?", unknown.name);
        return Err((unknown.line, fault));
    }
    let find = |name: &str| keys.iter().find(|key| key.name == name);
    let (effect, key) = match (find("allow"), find("deny")) {
        (Some(key), None) => (Effect::Allow, key),
        (None, Some(key)) => (Effect::Deny, key),
        (Some(_), Some(deny)) => {
            return Err((
                deny.line,
                "allow and deny are both there: make two rules of it".to_owned(),
            ));
        }
        (None, None) => return Err((line, "expected allow = [...] or deny = [...]".to_owned())),
    };
    let words = texts(key)?;
    let names = |name: &str| find(name).map(texts).transpose();
    let (channels, procedures) = (names("channels")?, names("procedures")?);
    let named = Named {
        channels: channels.is_some(),
        procedures: procedures.is_some(),
    };
    let actions = actions(key, &words, named)?;
    for (name, is_there, is_on_channel, which) in [
        ("channels", named.channels, true, "subscribe nor publish"),
        ("procedures", named.procedures, false, "invoke nor transmit"),
    ] {
        let is_about = |action: &Action| action.is_on_channel() == is_on_channel;
        if is_there && !actions.iter().any(is_about) {
            let line = find(name).map_or(line, |key| key.line);
            let fault = format!("{name} are named, but the rule is about neither {which}");
            return Err((line, fault));
        }
        // A forgotten line must not open every channel. A rule that forbids too much is noticed at once.
        let is_asked_for = effect == Effect::Allow && !words.iter().any(|word| word == EVERY_ACTION);
        if is_asked_for && !is_there && actions.iter().any(is_about) {
            let fault = format!("{name} are missing: say which, or {name} = [\"**\"] for all");
            return Err((key.line, fault));
        }
    }
    Ok(RuleSpec {
        effect,
        actions,
        channels,
        procedures,
        to: find("to").map_or_else(|| Ok(vec![Who::Anyone]), who)?,
        file: None,
        line,
    })
}

/// What a rule names.
#[derive(Clone, Copy)]
struct Named {
    channels: bool,
    procedures: bool,
}

/// The actions that a rule applies to. `*` means all actions on what the rule names; if it names nothing, all actions.
fn actions(key: &Key<'_>, words: &[String], rule: Named) -> Result<Vec<Action>, Fault> {
    let mut named = [false; Action::COUNT];
    for word in words {
        if word == EVERY_ACTION {
            for action in Action::ALL {
                let is_named = if action.is_on_channel() {
                    rule.channels
                } else {
                    rule.procedures
                };
                named[action.index()] |= is_named || !(rule.channels || rule.procedures);
            }
        } else if let Some(action) = Action::named(word) {
            named[action.index()] = true;
            named[Action::Transmit.index()] |= action == Action::Invoke;
        } else {
            let known = Action::LABELS.into_iter().chain([EVERY_ACTION]);
            let nearest = nearest(word, known.map(str::to_owned));
            let fault = format!("{}: {word:?} is not an action; did you mean {nearest}?", key.name);
            return Err((key.line, fault));
        }
    }
    Ok(Action::ALL
        .into_iter()
        .filter(|action| named[action.index()])
        .collect())
}

/// A list of strings that is not empty; one string is a list of one.
fn texts(key: &Key<'_>) -> Result<Vec<String>, Fault> {
    let list = match key.value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let texts: Option<Vec<String>> = list
        .iter()
        .map(|value| value.as_str().map(str::to_owned))
        .collect();
    match texts {
        Some(texts) if !texts.is_empty() => Ok(texts),
        Some(_) => Err((key.line, format!("{} is empty", key.name))),
        None => Err((
            key.line,
            format!("{}: expected strings, such as [{}]", key.name, example(key.name)),
        )),
    }
}

fn example(key: &str) -> &'static str {
    match key {
        "channels" => r#""room.*", "user.{sub}.**""#,
        "procedures" => r#""ping", "chat.*""#,
        _ => r#""subscribe", "publish""#,
    }
}

/// The clients that a rule applies to: a word, a table about a claim, or a list of these.
fn who(key: &Key<'_>) -> Result<Vec<Who>, Fault> {
    let list = match key.value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    if list.is_empty() {
        return Err((key.line, "to is empty: the rule would concern nobody".to_owned()));
    }
    list.iter()
        .map(|value| one_of_them(value).map_err(|fault| (key.line, fault)))
        .collect()
}

fn one_of_them(value: &Value) -> Result<Who, String> {
    const EXPECTED: &str = "to: expected \"anyone\", \"authenticated\", \"anonymous\", { claim = \"role\", is = \"admin\" } \
                            or { claim = \"rooms\", contains = \"lobby\" }";
    let table = match value {
        Value::String(word) => match word.as_str() {
            "anyone" => return Ok(Who::Anyone),
            "authenticated" => return Ok(Who::Authenticated),
            "anonymous" => return Ok(Who::Anonymous),
            word => {
                let words = ["anyone", "authenticated", "anonymous"].map(str::to_owned);
                let nearest = nearest(word, words.into_iter());
                return Err(format!("to: {word:?} is not known; did you mean {nearest}?"));
            }
        },
        Value::Table(table) => table,
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) => {
            return Err(EXPECTED.to_owned());
        }
    };
    let known = ["claim", "is", "contains"];
    if let Some(name) = table.keys().find(|name| !known.contains(&name.as_str())) {
        let nearest = nearest(name, known.map(str::to_owned).into_iter());
        return Err(format!("to.{name} is not known; did you mean to.{nearest}?"));
    }
    let Some(claim) = table.get("claim").and_then(Value::as_str) else {
        return Err(EXPECTED.to_owned());
    };
    match (table.get("is"), table.get("contains")) {
        (Some(values), None) => Ok(Who::Is(claim.to_owned(), scalars("is", values)?)),
        (None, Some(values)) => Ok(Who::Contains(claim.to_owned(), scalars("contains", values)?)),
        (None, None) | (Some(_), Some(_)) => Err(EXPECTED.to_owned()),
    }
}

/// The values that a claim is compared with.
fn scalars(name: &str, value: &Value) -> Result<Vec<Scalar>, String> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    if list.is_empty() {
        return Err(format!("to.{name} is empty: the rule would concern nobody"));
    }
    list.iter()
        .map(|value| match value {
            Value::String(text) => Ok(Scalar::Text(text.clone())),
            Value::Boolean(switch) => Ok(Scalar::Switch(*switch)),
            Value::Integer(number) if number.unsigned_abs() <= WHOLE_MAX =>
            {
                #[expect(clippy::cast_precision_loss, reason = "a double holds it exactly")]
                Ok(Scalar::Number(*number as f64))
            }
            Value::Float(number) if number.is_finite() => Ok(Scalar::Number(*number)),
            Value::Integer(_) | Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                Err(format!(
                    "to.{name}: expected a string, a boolean, or a number that a double holds exactly"
                ))
            }
        })
        .collect()
}

const KEYS: [&str; 5] = ["allow", "deny", "channels", "procedures", "to"];
const EVERY_ACTION: &str = "*";
