//! Explains why each rule decides or does not, for people who write rules.

use super::pattern::first_bytes;
use super::{List, RuleVerdict, Rules, is_about};
use crate::auth::Claims;
use crate::auth::json::Json;
use crate::config::rules::{Action, Audience, Effect, RuleSpec};

/// The evaluation of one list of rules for an action, rule by rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation<'a> {
    /// The rules up to the one that decides, each with its reason.
    pub steps: Vec<(&'a RuleSpec, Reason)>,
    /// The verdict of the list.
    pub verdict: RuleVerdict,
}

/// Why a rule decides or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The rule is about other actions.
    Action,
    /// The rule is about other clients.
    Audience(Vec<String>),
    /// The rule is about other names. These are its patterns, with the values of claims in them.
    Name(Vec<String>),
    /// The rule decides, through this pattern or because it is about all names.
    Decides(Option<String>),
}

impl Rules {
    /// Explains the verdicts of the rules and of the shadow rules on an action of a client with these claims;
    /// `None` for a list without rules.
    pub fn explain(
        &self,
        action: Action,
        name: &str,
        claims: Option<&Claims>,
    ) -> [Option<Explanation<'_>>; 2] {
        let [enforced, shadow] = self.specs();
        [
            self.explain_list(self.enforced.as_ref(), enforced, (action, name), claims),
            self.explain_list(self.shadow.as_ref(), shadow, (action, name), claims),
        ]
    }

    fn explain_list<'a>(
        &'a self,
        list: Option<&'a List>,
        specs: &'a [RuleSpec],
        (action, name): (Action, &str),
        claims: Option<&Claims>,
    ) -> Option<Explanation<'a>> {
        let list = list?;
        let json = claims.map(|claims| Json::parse(claims.json()));
        let facts = self.facts_of(json);
        // A client that asks to serve a prefix asks for all names that begin like it.
        let beginning = match action {
            Action::Serve => name.strip_suffix('*').map(str::as_bytes),
            Action::Publish
            | Action::Subscribe
            | Action::Invoke
            | Action::Transmit
            | Action::History
            | Action::Presence => None,
        };
        let verdict = match beginning {
            Some(beginning) => list.decide_beginning(action, beginning, self.separator, &facts),
            None => list.decide(action, name.as_bytes(), self.separator, &facts),
        };
        let mut steps = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let clauses = &list.by_action[action.index()];
            let clause = clauses.iter().find(|clause| clause.rule as usize == index);
            let reason = match clause {
                None => Reason::Action,
                Some(_) if !spec.to.iter().any(|who| is_about(who, json)) => {
                    Reason::Audience(spec.to.iter().map(Audience::to_string).collect())
                }
                Some(clause) => match &clause.names {
                    None => Reason::Decides(None),
                    Some(patterns) => {
                        let found = patterns.iter().find(|pattern| match (beginning, clause.effect) {
                            (None, _) => pattern.matches(
                                name.as_bytes(),
                                first_bytes(name.as_bytes()),
                                self.separator,
                                &facts.claim_values,
                            ),
                            (Some(beginning), Effect::Allow) => {
                                pattern.covers_beginning(beginning, self.separator, &facts.claim_values)
                            }
                            (Some(beginning), Effect::Deny) => pattern.may_begin_with(beginning),
                        });
                        match found {
                            Some(pattern) => Reason::Decides(Some(pattern.text().to_owned())),
                            None => Reason::Name(
                                patterns
                                    .iter()
                                    .map(|pattern| self.with_values(pattern.text(), &facts.claim_values))
                                    .collect(),
                            ),
                        }
                    }
                },
            };
            let is_decided = matches!(reason, Reason::Decides(_));
            steps.push((spec, reason));
            if is_decided {
                break;
            }
        }
        Some(Explanation { steps, verdict })
    }

    /// A pattern with the values of the claims in it.
    fn with_values(&self, text: &str, claim_values: &[super::ClaimValues]) -> String {
        let mut notes = String::new();
        for (claim, values_of) in self.claims.iter().zip(claim_values) {
            if !text.split(char::from(self.separator)).any(|segment| {
                segment
                    .strip_prefix('{')
                    .and_then(|inner| inner.strip_suffix('}'))
                    .is_some_and(|name| *name == **claim)
            }) {
                continue;
            }
            let texts = values_of.texts();
            notes.push_str(&match texts.len() {
                0 => format!(" ({claim}: no value of this claim is one segment)"),
                1..=SHOWN_MAX => format!(" ({claim}: {texts:?})"),
                count => format!(
                    " ({claim}: {:?} and {} more)",
                    &texts[..SHOWN_MAX],
                    count - SHOWN_MAX
                ),
            });
        }
        format!("{text}{notes}")
    }
}

/// Of a long list, this many values are shown.
const SHOWN_MAX: usize = 8;
