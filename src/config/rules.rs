//! Rules in the configuration file: what clients may do, as an operator writes it.
//!
//! ```toml
//! [[rules]]
//! allow = ["subscribe", "publish"]          # or deny = [...]
//! channels = ["room.*", "user.{sub}.**"]
//! to = "authenticated"
//! ```
//!
//! What stands here is checked for its shape: keys, actions, kinds of values. Patterns are compiled, and decisions
//! taken, by `auth::rules`.
//!
//! Limits: [`RULES_MAX`] rules in each list.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::DeValue;
use toml::{Spanned, Value};

use super::load::nearest;

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// What follows if it matches.
    pub effect: Effect,
    /// What it is about; without any, it is about nothing.
    pub actions: Vec<Action>,
    /// Patterns of the channels that it is about; `None` for all.
    pub channels: Option<Vec<String>>,
    /// Patterns of the procedures and events that it is about; `None` for all.
    pub procedures: Option<Vec<String>>,
    /// Whom it is about: any of these.
    pub to: Vec<Who>,
    /// The file that it is from, if it is from one.
    pub file: Option<PathBuf>,
    /// Where it stands in the file, from 1; 0 for a rule that is from no file.
    pub line: usize,
}

impl Default for RuleSpec {
    /// Everything is denied to anyone.
    fn default() -> RuleSpec {
        RuleSpec {
            effect: Effect::Deny,
            actions: Action::ALL.to_vec(),
            channels: None,
            procedures: None,
            to: vec![Who::Anyone],
            file: None,
            line: 0,
        }
    }
}

/// What follows if a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is done.
    Allow,
    /// It is refused.
    Deny,
}

impl Effect {
    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        }
    }
}

/// Something that a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It subscribes to a channel.
    Subscribe,
    /// It publishes to a channel.
    Publish,
    /// It calls a procedure.
    Invoke,
    /// It sends an event that is not answered. A rule about `invoke` is about these as well.
    Transmit,
}

impl Action {
    /// How many there are, for tables.
    pub const COUNT: usize = 4;

    /// All, by [`Action::index`].
    pub const ALL: [Action; Action::COUNT] = [
        Action::Subscribe,
        Action::Publish,
        Action::Invoke,
        Action::Transmit,
    ];

    /// Their words, which are labels of metrics too.
    pub const WORDS: [&'static str; Action::COUNT] = ["subscribe", "publish", "invoke", "transmit"];

    /// Its place in tables.
    pub const fn index(self) -> usize {
        match self {
            Action::Subscribe => 0,
            Action::Publish => 1,
            Action::Invoke => 2,
            Action::Transmit => 3,
        }
    }

    /// Its word.
    pub const fn word(self) -> &'static str {
        Action::WORDS[self.index()]
    }

    /// The action of that word.
    pub fn named(word: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.word() == word)
    }

    /// Whether it concerns a channel; else it concerns a procedure or an event.
    pub const fn is_on_channel(self) -> bool {
        match self {
            Action::Subscribe | Action::Publish => true,
            Action::Invoke | Action::Transmit => false,
        }
    }
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    /// All.
    Anyone,
    /// Who has shown a good token.
    Authenticated,
    /// Who has not.
    Anonymous,
    /// Whose claim of this name is one of these values.
    Is(String, Vec<Scalar>),
    /// Whose claim of this name is a list that contains one of these values.
    Contains(String, Vec<Scalar>),
}

/// A value that a claim is compared with: of the same kind and equal, or it is another.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A number, as JavaScript has it.
    Number(f64),
    /// A boolean.
    Switch(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Text(text) => write!(formatter, "{text:?}"),
            Scalar::Number(number) => write!(formatter, "{number}"),
            Scalar::Switch(switch) => write!(formatter, "{switch}"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (claim, verb, values) = match self {
            Who::Anyone => return formatter.write_str("anyone"),
            Who::Authenticated => return formatter.write_str("authenticated"),
            Who::Anonymous => return formatter.write_str("anonymous"),
            Who::Is(claim, values) => (claim, "is", values),
            Who::Contains(claim, values) => (claim, "contains", values),
        };
        let values: Vec<String> = values.iter().map(Scalar::to_string).collect();
        write!(formatter, "claim {claim} {verb} {}", values.join(" or "))
    }
}

/// The lists of rules that a file may hold, and what each is called there.
pub(super) const LISTS: [&str; 2] = ["rules", "shadow_rules"];

/// More rules than anybody reads, and each decision looks at all of them in the worst case.
pub const RULES_MAX: usize = 1000;

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFault {
    /// The list that it is in.
    pub list: &'static str,
    /// Which of that list, from 1; 0 for the list itself.
    pub number: usize,
    /// The file that it is from, if it is from one.
    pub file: Option<PathBuf>,
    /// The line of the file, from 1; 0 if the rule is from no file.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub fault: String,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{}: ", file.display())?;
        }
        if self.line != 0 {
            write!(formatter, "line {}: ", self.line)?;
        }
        if self.number == 0 {
            write!(formatter, "{}: {}", self.list, self.fault)
        } else {
            write!(formatter, "{} number {}: {}", self.list, self.number, self.fault)
        }
    }
}

/// A list of rules out of a file that has been found to be TOML; `value` is the list there.
///
/// # Errors
/// The first fault of each rule that has one.
pub(super) fn read(
    file: &Path,
    text: &str,
    list: &'static str,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<RuleSpec>, Vec<RuleFault>> {
    let line_of = |at: usize| 1 + text[..at].matches('\n').count();
    let of_the_list = |fault: String| {
        vec![RuleFault {
            list,
            number: 0,
            file: Some(file.to_owned()),
            line: line_of(value.span().start),
            fault,
        }]
    };
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
        let mut keys = Vec::with_capacity(table.get_ref().len());
        for (key, value) in table.get_ref() {
            keys.push(Key {
                name: key.get_ref(),
                line: line_of(key.span().start),
                value,
            });
        }
        // The first fault of the file is named, not that of the first key of the alphabet.
        keys.sort_by_key(|key| key.line);
        match rule(&keys, line) {
            Ok(rule) => rules.push(RuleSpec {
                file: Some(file.to_owned()),
                ..rule
            }),
            Err((line, fault)) => faults.push(RuleFault {
                list,
                number: index + 1,
                file: Some(file.to_owned()),
                line,
                fault,
            }),
        }
    }
    match faults.is_empty() {
        true => Ok(rules),
        false => Err(faults),
    }
}

/// The file, but for what is not rules.
#[derive(Deserialize)]
struct Lists {
    #[serde(default)]
    rules: Vec<Table>,
    #[serde(default)]
    shadow_rules: Vec<Table>,
}

type Table = Spanned<BTreeMap<Spanned<String>, Value>>;

struct Key<'a> {
    name: &'a str,
    line: usize,
    value: &'a Value,
}

/// A line, and what is wrong there.
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
    let actions = actions(key, &words, channels.is_some(), procedures.is_some())?;
    for (name, is_there, is_on_channel, which) in [
        ("channels", channels.is_some(), true, "subscribe nor publish"),
        ("procedures", procedures.is_some(), false, "invoke nor transmit"),
    ] {
        let is_about = |action: &Action| action.is_on_channel() == is_on_channel;
        if is_there && !actions.iter().any(is_about) {
            let line = find(name).map_or(line, |key| key.line);
            let fault = format!("{name} are named, but the rule is about neither {which}");
            return Err((line, fault));
        }
        // A forgotten line must not open every channel; to forbid too much is seen at once.
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

/// What the words say that a rule is about. `*` is all that can be done with what the rule names, or all there is.
fn actions(
    key: &Key<'_>,
    words: &[String],
    has_channels: bool,
    has_procedures: bool,
) -> Result<Vec<Action>, Fault> {
    let mut named = [false; Action::COUNT];
    for word in words {
        if word == EVERY_ACTION {
            for action in Action::ALL {
                let is_named = if action.is_on_channel() {
                    has_channels
                } else {
                    has_procedures
                };
                named[action.index()] |= is_named || !(has_channels || has_procedures);
            }
        } else if let Some(action) = Action::named(word) {
            named[action.index()] = true;
            named[Action::Transmit.index()] |= action == Action::Invoke;
        } else {
            let known = Action::WORDS.into_iter().chain([EVERY_ACTION]);
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

/// Whom a rule is about: a word, a table about a claim, or a list of these.
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

/// The values of which a claim has to be one.
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
/// Beyond it, two whole numbers are the same double.
pub const WHOLE_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_rules(text: &str) -> Result<Vec<RuleSpec>, Vec<RuleFault>> {
        let table = toml::de::DeTable::parse(text).unwrap();
        read(Path::new("f"), text, "rules", &table.get_ref()["rules"])
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
                    to: vec![Who::Authenticated],
                    file: Some("f".into()),
                    line: 4,
                },
                RuleSpec {
                    effect: Effect::Deny,
                    actions: vec![Action::Invoke, Action::Transmit],
                    channels: None,
                    procedures: None,
                    to: vec![
                        Who::Anonymous,
                        Who::Is(
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
    fn a_star_is_all_that_can_be_done_with_what_is_named() {
        assert_eq!(one("allow = \"*\"").actions, Action::ALL);
        assert_eq!(
            one("allow = [\"*\"]\nchannels = \"a\"").actions,
            [Action::Subscribe, Action::Publish]
        );
        assert_eq!(
            one("deny = \"*\"\nprocedures = \"a\"").actions,
            [Action::Invoke, Action::Transmit]
        );
        assert_eq!(
            one("deny = \"*\"\nprocedures = \"a\"\nchannels = \"b\"").actions,
            Action::ALL
        );
    }

    #[test]
    fn faults_name_the_line_the_rule_and_what_would_be_right() {
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
                "line 3: rules number 1: channels are named, but the rule is about neither subscribe nor publish",
            ),
            (
                "[[rules]]\ndeny = \"publish\"\nprocedures = \"a\"",
                "line 3: rules number 1: procedures are named, but the rule is about neither invoke nor transmit",
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
                "line 1: rules: expected a list of tables: begin each rule with [[rules]]",
            ),
            (
                "rules = [1]",
                "line 1: rules: expected a list of tables: begin each rule with [[rules]]",
            ),
            (
                "[rules]\nallow = \"*\"",
                "line 1: rules: expected a list of tables: begin each rule with [[rules]]",
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
            "line 1: rules: found 1001 rules, expected at most 1000"
        );
    }
}
