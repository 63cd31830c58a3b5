//! Reads rules from a file that has been found to be TOML.

use toml::Value;

use super::{Action, Audience, Effect, RULES_MAX, RuleSpec, Scalar, WHOLE_MAX};
use crate::config::error::ListFault;
use crate::config::list::{self, Fault, Key, ListSource};
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
pub(in crate::config) fn read(place: ListSource<'_>) -> (RuleLists, Vec<ListFault>) {
    let mut faults = Vec::new();
    let mut of_list = |name| {
        let read = list::read(place, name, RULES_MAX, |keys, line| {
            rule(keys, line).map(|rule| RuleSpec {
                file: Some(place.file.to_owned()),
                ..rule
            })
        });
        read.unwrap_or_else(|found| {
            faults.extend(found);
            Vec::new()
        })
    };
    let rules = of_list("rules");
    let shadow_rules = of_list("shadow_rules");
    (RuleLists { rules, shadow_rules }, faults)
}

fn rule(keys: &[Key<'_>], line: usize) -> Result<RuleSpec, Fault> {
    list::check_names(keys, &KEYS)?;
    let find = |name: &str| list::find(keys, name);
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
    let texts = |key: &Key<'_>| key.texts(example(key.name));
    let words = texts(key)?;
    let names = |name: &str| find(name).map(texts).transpose();
    let (channels, procedures) = (names("channels")?, names("procedures")?);
    let named = Named {
        channels: channels.is_some(),
        procedures: procedures.is_some(),
    };
    let actions = actions(key, &words, named)?;
    for (name, is_there, is_on_channel) in [
        ("channels", named.channels, true),
        ("procedures", named.procedures, false),
    ] {
        let is_about = |action: &Action| action.is_on_channel() == is_on_channel;
        if is_there && !actions.iter().any(is_about) {
            let line = find(name).map_or(line, |key| key.line);
            let about: Vec<&str> = Action::ALL
                .iter()
                .filter(|action| is_about(action))
                .map(|action| action.word())
                .collect();
            let fault = format!(
                "{name} are named, but the rule is about none of their actions: {}",
                about.join(", ")
            );
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
        to: find("to").map_or_else(|| Ok(vec![Audience::Anyone]), audiences)?,
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

/// The actions that a rule applies to. `*` means all actions on the channels or procedures that the rule names; if it
/// names none, all actions; `serve` is never among them.
fn actions(key: &Key<'_>, words: &[String], rule: Named) -> Result<Vec<Action>, Fault> {
    let mut named = [false; Action::COUNT];
    for word in words {
        if word == EVERY_ACTION {
            // The right to answer the calls of other clients is never a part of `*`: a rule has to name it.
            for action in Action::ALL.into_iter().filter(|action| *action != Action::Serve) {
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

fn example(key: &str) -> &'static str {
    match key {
        "channels" => r#""room.*", "user.{sub}.**""#,
        "procedures" => r#""ping", "chat.*""#,
        _ => r#""subscribe", "publish""#,
    }
}

/// The clients that a rule applies to: a word, a table about a claim, or a list of these.
fn audiences(key: &Key<'_>) -> Result<Vec<Audience>, Fault> {
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

fn one_of_them(value: &Value) -> Result<Audience, String> {
    const EXPECTED: &str = "to: expected \"anyone\", \"authenticated\", \"anonymous\", { claim = \"role\", is = \"admin\" } \
                            or { claim = \"rooms\", contains = \"lobby\" }";
    let table = match value {
        Value::String(word) => match word.as_str() {
            "anyone" => return Ok(Audience::Anyone),
            "authenticated" => return Ok(Audience::Authenticated),
            "anonymous" => return Ok(Audience::Anonymous),
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
        (Some(values), None) => Ok(Audience::Is(claim.to_owned(), scalars("is", values)?)),
        (None, Some(values)) => Ok(Audience::Contains(claim.to_owned(), scalars("contains", values)?)),
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
