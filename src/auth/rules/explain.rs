//! Why a rule decides, or does not, for those who write rules.

use super::pattern::first_bytes;
use super::{List, Rules, Verdict, is_about};
use crate::auth::Claims;
use crate::auth::json::Json;
use crate::config::rules::{Action, RuleSpec, Who};

/// What one list of rules makes of an action, rule by rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation<'a> {
    /// The rules up to the one that decides, and what each says.
    pub steps: Vec<(&'a RuleSpec, Reason)>,
    /// What the list says.
    pub verdict: Verdict,
}

/// Why a rule matches or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is about other actions.
    Action,
    /// It is about others.
    Who(Vec<String>),
    /// It is about other names: its patterns, each with what its claims put into it.
    Name(Vec<String>),
    /// It matches, by this pattern or because it is about all names.
    Decides(Option<String>),
}

impl Rules {
    /// What the rules, and then the shadow rules, make of an action of a client with these claims; `None` for a list
    /// without rules.
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
        let verdict = list.decide(action, name.as_bytes(), self.separator, &facts);
        let mut steps = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let clauses = &list.by_action[action.index()];
            let clause = clauses.iter().find(|clause| clause.rule as usize == index);
            let reason = match clause {
                None => Reason::Action,
                Some(_) if !spec.to.iter().any(|who| is_about(who, json)) => {
                    Reason::Who(spec.to.iter().map(Who::to_string).collect())
                }
                Some(clause) => match &clause.names {
                    None => Reason::Decides(None),
                    Some(patterns) => {
                        let found = patterns.iter().find(|pattern| {
                            pattern.matches(
                                name.as_bytes(),
                                first_bytes(name.as_bytes()),
                                self.separator,
                                &facts.fillings,
                            )
                        });
                        match found {
                            Some(pattern) => Reason::Decides(Some(pattern.text().to_owned())),
                            None => Reason::Name(
                                patterns
                                    .iter()
                                    .map(|pattern| self.filled_in(pattern.text(), &facts.fillings))
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

    /// A pattern with what its claims put into it.
    fn filled_in(&self, text: &str, fillings: &[super::Filling]) -> String {
        let mut notes = String::new();
        for (claim, filling) in self.claims.iter().zip(fillings) {
            if !text.split(char::from(self.separator)).any(|segment| {
                segment
                    .strip_prefix('{')
                    .and_then(|inner| inner.strip_suffix('}'))
                    .is_some_and(|name| *name == **claim)
            }) {
                continue;
            }
            let texts = filling.texts();
            notes.push_str(&match texts.len() {
                0 => format!(" ({claim}: no such claim that is one segment)"),
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

/// Of a long list, so many values are shown.
const SHOWN_MAX: usize = 8;
