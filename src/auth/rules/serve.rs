//! What rules say about the action `serve`: a client asks for one procedure, or for all that begin alike.
//!
//! A prefix is allowed only if all names that begin with it are. That is decided on the safe side: a rule that allows
//! must end in `**` and cover the whole prefix, and a rule that denies counts if it may be about one of the names.

use super::{Clause, Decided, Facts, List, RuleVerdict, Rules};
use crate::config::rules::{Action, Effect};

impl Rules {
    /// Whether a rule is about the action `serve`. Without one, no client can serve anything.
    #[inline]
    pub fn name_serve(&self) -> bool {
        let clauses = self.enforced.as_ref();
        clauses.is_some_and(|list| !list.by_action[Action::Serve.index()].is_empty())
    }

    /// Decides whether a client may serve a pattern: a name, or with a final `*` all names that begin like it.
    pub fn decide_serve(&self, pattern: &[u8], facts: Option<&Facts>) -> Decided {
        match pattern.strip_suffix(b"*") {
            Some(beginning) => self.decide_serve_all(beginning, facts),
            None => self.decide(Action::Serve, pattern, facts),
        }
    }

    /// Decides whether a client may serve all procedures whose names begin with `beginning`.
    pub fn decide_serve_all(&self, beginning: &[u8], facts: Option<&Facts>) -> Decided {
        let facts = facts.unwrap_or(&self.anonymous);
        let decide = |list: &Option<List>| {
            list.as_ref()
                .map(|list| list.decide_beginning(Action::Serve, beginning, self.separator, facts))
        };
        let verdict = decide(&self.enforced).unwrap_or(RuleVerdict {
            allowed: true,
            rule: None,
        });
        Decided {
            verdict,
            shadow: decide(&self.shadow).unwrap_or(verdict),
        }
    }
}

impl List {
    pub(super) fn decide_beginning(
        &self,
        action: Action,
        beginning: &[u8],
        separator: u8,
        facts: &Facts,
    ) -> RuleVerdict {
        let decides = |clause: &&Clause| {
            let Some(patterns) = &clause.names else {
                return true;
            };
            patterns.iter().any(|pattern| match clause.effect {
                Effect::Allow => pattern.covers_beginning(beginning, separator, &facts.claim_values),
                Effect::Deny => pattern.may_begin_with(beginning),
            })
        };
        let mut clauses = self.by_action[action.index()]
            .iter()
            .filter(|clause| facts.concerns(clause.bit));
        match clauses.find(decides) {
            Some(clause) => RuleVerdict {
                allowed: clause.effect == Effect::Allow,
                rule: Some(clause.rule + 1),
            },
            None => RuleVerdict {
                allowed: false,
                rule: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rules::{Audience, RuleSpec};

    fn rules(specs: &[(Effect, &str)]) -> Rules {
        let specs: Vec<_> = specs
            .iter()
            .map(|(effect, pattern)| RuleSpec {
                effect: *effect,
                actions: vec![Action::Serve],
                procedures: Some(vec![(*pattern).to_owned()]),
                to: vec![Audience::Anyone],
                ..RuleSpec::default()
            })
            .collect();
        std::sync::Arc::try_unwrap(Rules::compile(&specs, &[], '.', None).unwrap()).unwrap()
    }

    #[test]
    fn a_prefix_is_allowed_only_if_every_name_with_it_is() {
        use Effect::{Allow, Deny};
        for (specs, beginning, allowed) in [
            (&[(Allow, "math.**")][..], "math.", true),
            (&[(Allow, "math.**")], "math.a", true),
            (&[(Allow, "math.**")], "math.a.", true),
            (&[(Allow, "math.**")], "math", false),
            (&[(Allow, "math.**")], "", false),
            (&[(Allow, "math.*")], "math.", false),
            (&[(Allow, "math.add")], "math.add", false),
            (&[(Allow, "**")], "", true),
            (&[(Allow, "*.**")], "", false),
            (&[(Allow, "*.**")], "a.", true),
            (&[(Allow, "*.**")], "a", false),
            (&[(Allow, "{sub}.**")], "ann.", false),
            (&[(Deny, "math.secret"), (Allow, "**")], "math.", false),
            (&[(Deny, "math.secret"), (Allow, "**")], "mat", false),
            (&[(Deny, "math.secret"), (Allow, "**")], "math.secret.", false),
            (&[(Deny, "math.secret"), (Allow, "**")], "music.", true),
            (&[(Deny, "*.secret"), (Allow, "**")], "music.", false),
            (&[(Allow, "math.**"), (Deny, "**")], "math.", true),
            (&[(Allow, "math.*"), (Allow, "**")], "math.", true),
        ] {
            let rules = rules(specs);
            assert!(rules.name_serve());
            let decided = rules.decide_serve_all(beginning.as_bytes(), None);
            assert_eq!(decided.verdict.allowed, allowed, "{specs:?} {beginning:?}");
            if decided.verdict.allowed {
                // Every name is allowed on its own, too.
                for rest in ["x", "a.b", "secret", ".", "x.secret"] {
                    let name = format!("{beginning}{rest}");
                    let one = rules.decide(Action::Serve, name.as_bytes(), None);
                    assert!(one.verdict.allowed, "{specs:?} {name:?}");
                }
            }
        }
        assert!(!Rules::default().name_serve());
    }

    #[test]
    fn a_claim_lets_a_client_serve_names_of_its_own() {
        let rules = rules(&[(Effect::Allow, "device.{sub}.**")]);
        let facts = rules.facts(r#"{"sub":"ann"}"#);
        for (beginning, allowed) in [
            ("device.ann.", true),
            ("device.ann", false),
            ("device.bob.", false),
        ] {
            let decided = rules.decide_serve_all(beginning.as_bytes(), Some(&facts));
            assert_eq!(decided.verdict.allowed, allowed, "{beginning}");
        }
    }
}
