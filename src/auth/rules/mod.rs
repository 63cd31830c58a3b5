//! Permissions: who may do what on which channel. The first rule that matches decides.
//!
//! [`Rules`] are compiled once from the configuration and shared by all cores. What a token says is read once for each
//! set of rules, into [`Facts`] that stay with the claims; a decision then compares bytes, and parses and allocates
//! nothing. Of rules about other names it costs some 30 instructions each, by the first of 20 it costs 230, by the last, with
//! six before it that begin alike, 1,900; the last decisions are remembered (`recent.rs`; figures: `benches/counts`).
//!
//! ```text
//!   RuleSpec… ──compile──► Rules ──facts(claims)──► Facts ─┐
//!                            └────────decide(action, name, facts)──► Decided
//! ```
//!
//! Where nothing matches, the action is refused; where there are no rules at all, everything is allowed. A second list,
//! the shadow, is evaluated beside the first and decides nothing: see [`Decided::shadow`].
//!
//! Invariants
//! 1. Facts are used with the rules that they were made for: [`Rules::id`] tells, and `Claims` keeps it.
//!
//! Not here: the shape of rules in a file (`config::rules`), and when the rules are asked (the sessions).

mod explain;
mod pattern;
mod recent;

use std::sync::Arc;

use self::pattern::{Filling, Pattern, first_bytes};
use super::json::{Json, Kind};
use crate::config::rules::{Action, Effect, RuleFault, RuleSpec, Scalar, Who};

pub use self::explain::{Explanation, Reason};
pub use self::recent::Recent;

/// What a client may do, compiled.
#[derive(Debug)]
pub struct Rules {
    id: u32,
    separator: u8,
    /// What has been compiled.
    specs: [Vec<RuleSpec>; 2],
    /// The claims that patterns name.
    claims: Vec<Box<str>>,
    /// What decides; without it, everything is allowed.
    enforced: Option<List>,
    /// What is only tried.
    shadow: Option<List>,
    /// What is known of who has no claims.
    anonymous: Facts,
}

/// One list of rules.
#[derive(Debug)]
struct List {
    /// Those that are about an action, by [`Action::index`], in their order.
    by_action: [Box<[Clause]>; Action::COUNT],
}

/// What a rule says about one action.
#[derive(Debug)]
struct Clause {
    /// Its place in the list, from 0.
    rule: u32,
    /// Its place in [`Facts::concerned`].
    bit: u32,
    effect: Effect,
    /// The names that it is about; `None` for all.
    names: Option<Arc<[Pattern]>>,
}

/// What rules need to know of a client: read once from its claims.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The rules that these are for.
    rules: u32,
    /// Whether subscriptions from before these claims have been looked at.
    pub(crate) subscriptions_checked: bool,
    /// For each rule, whether it is about this client; a bit for each of the first list, then of the shadow.
    concerned: Box<[u64]>,
    /// By the order of [`Rules::claims`].
    fillings: Box<[Filling]>,
    /// What has been decided by them lately.
    recent: Recent,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What is done.
    pub verdict: Verdict,
    /// What the shadow would do; the same as `verdict`, if there is none.
    pub shadow: Verdict,
}

/// What one list of rules says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may be done.
    pub allowed: bool,
    /// The rule that decides, from 1; `None` if none matches.
    pub rule: Option<u32>,
}

impl Default for Rules {
    /// Everything is allowed.
    fn default() -> Rules {
        Rules {
            id: 0,
            separator: b'.',
            specs: [Vec::new(), Vec::new()],
            claims: Vec::new(),
            enforced: None,
            shadow: None,
            anonymous: Facts::default(),
        }
    }
}

impl Rules {
    /// Compiles rules and shadow rules. `before` are those that they replace: if these say the same, they stay.
    ///
    /// # Errors
    /// Names the rule whose pattern is none. The separator is none if it is no punctuation of ASCII, or part of a
    /// wildcard.
    pub fn compile(
        enforced: &[RuleSpec],
        shadow: &[RuleSpec],
        separator: char,
        before: Option<&Arc<Rules>>,
    ) -> Result<Arc<Rules>, RuleFault> {
        let separator = u8::try_from(separator)
            .ok()
            .filter(|byte| byte.is_ascii_punctuation() && !b"*{}".contains(byte))
            .ok_or_else(|| RuleFault {
                list: "rules_separator",
                number: 0,
                file: None,
                line: 0,
                fault: format!("found {separator:?}, expected one character such as . / : - or _"),
            })?;
        if let Some(before) = before
            && before.separator == separator
            && before.specs[0] == enforced
            && before.specs[1] == shadow
        {
            return Ok(Arc::clone(before));
        }
        let mut rules = Rules {
            id: before.map_or(0, |before| before.id.wrapping_add(1)),
            separator,
            specs: [enforced.to_vec(), shadow.to_vec()],
            ..Rules::default()
        };
        let mut claims = Vec::new();
        rules.enforced = List::compile("rules", enforced, 0, separator, &mut claims)?;
        rules.shadow = List::compile("shadow_rules", shadow, enforced.len(), separator, &mut claims)?;
        rules.claims = claims;
        rules.anonymous = rules.facts_of(None);
        Ok(Arc::new(rules))
    }

    /// The faults of all rules; [`Rules::compile`] stops at the first.
    pub fn faults(enforced: &[RuleSpec], shadow: &[RuleSpec], separator: char) -> Vec<RuleFault> {
        if let Err(fault) = Rules::compile(&[], &[], separator, None) {
            return vec![fault];
        }
        let one_by_one = |list: &'static str, rules: &[RuleSpec]| {
            let faults = rules.iter().enumerate().filter_map(|(index, rule)| {
                let fault = Rules::compile(std::slice::from_ref(rule), &[], separator, None).err()?;
                let number = index + 1;
                Some(RuleFault {
                    list,
                    number,
                    ..fault
                })
            });
            faults.collect::<Vec<_>>()
        };
        let mut faults = one_by_one("rules", enforced);
        faults.extend(one_by_one("shadow_rules", shadow));
        if faults.is_empty() {
            // Faults of all rules together, of which none has one by itself.
            faults.extend(Rules::compile(enforced, shadow, separator, None).err());
        }
        faults
    }

    /// Tells these rules from those that they replaced.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether there is anything to decide or to try.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.enforced.is_none() && self.shadow.is_none()
    }

    /// Whether anything can be refused.
    #[inline]
    pub fn enforces(&self) -> bool {
        self.enforced.is_some()
    }

    /// The rules as they were written, and the shadow rules.
    pub fn specs(&self) -> [&[RuleSpec]; 2] {
        [&self.specs[0], &self.specs[1]]
    }

    /// What these rules need to know of a client whose claims are this JSON.
    pub(super) fn facts(&self, claims: &str) -> Facts {
        // The claims are JSON, or nobody would have believed them; if not, they say nothing.
        self.facts_of(Some(Json::parse(claims)))
    }

    /// Whether facts are for these rules.
    #[inline]
    pub(super) fn made(&self, facts: &Facts) -> bool {
        facts.rules == self.id
    }

    /// Whether a client may do this; `name` is the channel's or the procedure's, in WTF-8. Without facts, the client is
    /// one that has no claims.
    pub fn decide(&self, action: Action, name: &[u8], facts: Option<&Facts>) -> Decided {
        let facts = facts.unwrap_or(&self.anonymous);
        let verdict = match &self.enforced {
            Some(list) => list.decide(action, name, self.separator, facts),
            None => Verdict {
                allowed: true,
                rule: None,
            },
        };
        let shadow = match &self.shadow {
            Some(list) => list.decide(action, name, self.separator, facts),
            None => verdict,
        };
        Decided { verdict, shadow }
    }

    /// As [`Rules::decide`] for a client with claims, whose last decisions are remembered with its facts.
    #[inline]
    pub fn decide_for(&self, action: Action, name: &[u8], facts: &mut Facts) -> Decided {
        if let Some(decided) = facts.recent.recall(self.id, action, name) {
            return decided;
        }
        let decided = self.decide(action, name, Some(facts));
        facts.recent.remember(self.id, action, name, decided);
        decided
    }

    /// As [`Rules::decide`] for clients without claims. For all of them the same is decided, so that a core remembers it
    /// once.
    #[inline]
    pub(crate) fn decide_for_anonymous(&self, action: Action, name: &[u8], recent: &mut Recent) -> Decided {
        if let Some(decided) = recent.recall(self.id, action, name) {
            return decided;
        }
        let decided = self.decide(action, name, None);
        recent.remember(self.id, action, name, decided);
        decided
    }

    /// The outer `None` is a client without claims, the inner one a client whose claims say nothing.
    fn facts_of(&self, claims: Option<Option<Json<'_>>>) -> Facts {
        let rules = self.specs.iter().flatten();
        let mut concerned = vec![0_u64; rules.clone().count().div_ceil(64)];
        for (bit, rule) in rules.enumerate() {
            if rule.to.iter().any(|who| is_about(who, claims)) {
                concerned[bit / 64] |= 1 << (bit % 64);
            }
        }
        let filling = |name: &str| {
            let claim = claims.flatten().and_then(|claims| claims.member(name));
            Filling::of(claim, self.separator)
        };
        Facts {
            rules: self.id,
            subscriptions_checked: false,
            concerned: concerned.into(),
            fillings: self.claims.iter().map(|name| filling(name)).collect(),
            recent: Recent::default(),
        }
    }
}

impl List {
    /// `None` for a list without rules. `first_bit` is the place of its first rule in [`Facts::concerned`].
    fn compile(
        list: &'static str,
        specs: &[RuleSpec],
        first_bit: usize,
        separator: u8,
        claims: &mut Vec<Box<str>>,
    ) -> Result<Option<List>, RuleFault> {
        if specs.is_empty() {
            return Ok(None);
        }
        let mut by_action: [Vec<Clause>; Action::COUNT] = Default::default();
        for (index, spec) in specs.iter().enumerate() {
            let mut compile = |key: &str, patterns: Option<&Vec<String>>| {
                compile_all(key, patterns, separator, claims).map_err(|fault| RuleFault {
                    list,
                    number: index + 1,
                    file: spec.file.clone(),
                    line: spec.line,
                    fault,
                })
            };
            let channels = compile("channels", spec.channels.as_ref())?;
            let procedures = compile("procedures", spec.procedures.as_ref())?;
            for action in &spec.actions {
                let names = if action.is_on_channel() {
                    &channels
                } else {
                    &procedures
                };
                by_action[action.index()].push(Clause {
                    rule: number(index),
                    bit: number(first_bit + index),
                    effect: spec.effect,
                    names: names.clone(),
                });
            }
        }
        Ok(Some(List {
            by_action: by_action.map(Vec::into_boxed_slice),
        }))
    }

    fn decide(&self, action: Action, name: &[u8], separator: u8, facts: &Facts) -> Verdict {
        let first = first_bytes(name);
        for clause in &self.by_action[action.index()] {
            if facts.concerns(clause.bit) && clause.is_about(name, first, separator, facts) {
                return Verdict {
                    allowed: clause.effect == Effect::Allow,
                    rule: Some(clause.rule + 1),
                };
            }
        }
        Verdict {
            allowed: false,
            rule: None,
        }
    }
}

fn compile_all(
    key: &str,
    patterns: Option<&Vec<String>>,
    separator: u8,
    claims: &mut Vec<Box<str>>,
) -> Result<Option<Arc<[Pattern]>>, String> {
    let Some(patterns) = patterns else { return Ok(None) };
    let compiled = patterns
        .iter()
        .map(|text| Pattern::compile(text, separator, claims))
        .collect::<Result<Arc<[Pattern]>, String>>();
    compiled.map(Some).map_err(|fault| format!("{key}: {fault}"))
}

/// The place of a rule; files hold two thousand at most.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Clause {
    #[inline]
    fn is_about(&self, name: &[u8], first: u64, separator: u8, facts: &Facts) -> bool {
        self.names.as_ref().is_none_or(|patterns| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(name, first, separator, &facts.fillings))
        })
    }
}

impl Facts {
    fn concerns(&self, bit: u32) -> bool {
        let word = self.concerned.get(bit as usize / 64).copied().unwrap_or(0);
        word >> (bit % 64) & 1 == 1
    }
}

/// Whether a client with these claims is one of those.
fn is_about(who: &Who, claims: Option<Option<Json<'_>>>) -> bool {
    let claim = |name: &str| claims.flatten().and_then(|claims| claims.member(name));
    match who {
        Who::Anyone => true,
        Who::Authenticated => claims.is_some(),
        Who::Anonymous => claims.is_none(),
        Who::Is(name, values) => claim(name).is_some_and(|claim| is_one_of(claim, values)),
        Who::Contains(name, values) => claim(name).is_some_and(|claim| {
            let mut found = false;
            if claim.kind() == Kind::Array {
                claim.each_element(|element| found |= is_one_of(element, values));
            }
            found
        }),
    }
}

fn is_one_of(claim: Json<'_>, values: &[Scalar]) -> bool {
    values.iter().any(|value| match (claim.kind(), value) {
        (Kind::String(claim), Scalar::Text(value)) => claim.is(value),
        (Kind::Number(claim), Scalar::Number(value)) => claim == *value,
        (Kind::Bool(claim), Scalar::Switch(value)) => claim == *value,
        (Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::String(_) | Kind::Array | Kind::Object, _) => {
            false
        }
    })
}

#[cfg(test)]
mod tests;
