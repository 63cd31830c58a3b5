//! Rules in the configuration file: the permissions of clients, as an operator writes them.
//!
//! ```toml
//! [[rules]]
//! allow = ["subscribe", "publish"]          # or deny = [...]
//! channels = ["room.*", "user.{sub}.**"]
//! to = "authenticated"
//! ```
//!
//! `read` checks the shape of rules in the file: keys, actions, kinds of values. `auth::rules` compiles
//! patterns and makes decisions.
//!
//! Limits: [`RULES_MAX`] rules in each list.

pub(super) mod read;

use std::fmt;
use std::path::PathBuf;

use crate::labels::labels;

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// Whether it allows or denies.
    pub effect: Effect,
    /// The actions that it applies to; a rule without any applies to nothing.
    pub actions: Vec<Action>,
    /// Patterns of the channels that it applies to; `None` for all.
    pub channels: Option<Vec<String>>,
    /// Patterns of the procedures and events that it applies to; `None` for all.
    pub procedures: Option<Vec<String>>,
    /// The clients that it applies to: any of these.
    pub to: Vec<Audience>,
    /// The file that holds it, if one does.
    pub file: Option<PathBuf>,
    /// Its line in the file, from 1; 0 without a file.
    pub line: usize,
}

impl Default for RuleSpec {
    /// A rule that denies all actions to all clients.
    fn default() -> RuleSpec {
        RuleSpec {
            effect: Effect::Deny,
            actions: Action::ALL.to_vec(),
            channels: None,
            procedures: None,
            to: vec![Audience::Anyone],
            file: None,
            line: 0,
        }
    }
}

/// Whether a rule that matches allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The action is carried out.
    Allow,
    /// The action is refused.
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

labels! {
    /// An action of a client. The labels are its words in rules as well.
    pub enum Action {
        /// It subscribes to a channel.
        Subscribe = "subscribe",
        /// It publishes to a channel.
        Publish = "publish",
        /// It calls a procedure.
        Invoke = "invoke",
        /// It sends an event that is not answered. A rule that applies to `invoke` applies to these as well.
        Transmit = "transmit",
        /// It asks for earlier publications of a channel.
        History = "history",
        /// It asks for the members of a channel.
        Presence = "presence",
        /// It serves a procedure: it answers calls of other clients.
        Serve = "serve",
    }
}

impl Action {
    /// Its word in rules.
    pub const fn word(self) -> &'static str {
        self.label()
    }

    /// The action with this word.
    pub fn named(word: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.word() == word)
    }

    /// Whether it applies to a channel; else it applies to a procedure or an event.
    pub const fn is_on_channel(self) -> bool {
        match self {
            Action::Subscribe | Action::Publish | Action::History | Action::Presence => true,
            Action::Invoke | Action::Transmit | Action::Serve => false,
        }
    }
}

/// The clients that a rule applies to.
#[derive(Clone, Debug, PartialEq)]
pub enum Audience {
    /// All clients.
    Anyone,
    /// Clients with a valid token.
    Authenticated,
    /// Clients without one.
    Anonymous,
    /// Clients whose claim of this name is one of these values.
    Is(String, Vec<Scalar>),
    /// Clients whose claim of this name is a list that contains one of these values.
    Contains(String, Vec<Scalar>),
}

/// A value that a claim is compared with: equal values have the same kind.
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

impl fmt::Display for Audience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (claim, verb, values) = match self {
            Audience::Anyone => return formatter.write_str("anyone"),
            Audience::Authenticated => return formatter.write_str("authenticated"),
            Audience::Anonymous => return formatter.write_str("anonymous"),
            Audience::Is(claim, values) => (claim, "is", values),
            Audience::Contains(claim, values) => (claim, "contains", values),
        };
        let values: Vec<String> = values.iter().map(Scalar::to_string).collect();
        write!(formatter, "claim {claim} {verb} {}", values.join(" or "))
    }
}

/// Most rules of a list: in the worst case each decision looks at all of them.
pub const RULES_MAX: usize = 1000;

/// The largest whole number that is a double of its own.
pub const WHOLE_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests;
