//! Permissions: the actions that a client may do on each channel. The first rule that matches decides.
//!
//! [`Rules`] are compiled once from the configuration and shared by all cores. The claims of a client are
//! read once for each set of rules, into [`Facts`] that are kept with the claims. A decision then only
//! compares bytes, without parsing and allocation. A rule about other names costs about 30 instructions. With
//! 20 rules a decision by the first costs 230 instructions, one by the last, after six that begin like it,
//! 1,900. The last decisions are remembered (`recent.rs`; figures: `benches/counts`).
//!
//! ```text
//!   RuleSpec… ──compile──► Rules ──facts(claims)──► Facts ─┐
//!                            └────────decide(action, name, facts)──► Decided
//! ```
//!
//! If no rule matches, the action is refused; without any rules everything is allowed. A second list, the
//! shadow rules, is evaluated beside the first without any effect: see [`Decided::shadow`].
//!
//! Invariants
//! 1. Facts are used only with the rules that they were made for: [`Rules::id`] identifies these, and
//!    `Claims` checks it.
//!
//! Not here: the form of rules in a file (`config::rules`), and when rules are evaluated (the sessions).

mod explain;
mod filter;
mod pattern;
mod recent;
mod serve;

use std::sync::Arc;

pub(crate) use self::filter::filter_meets;
use self::pattern::ClaimValues;
pub(crate) use self::pattern::{Pattern, first_bytes};
use self::recent::question;
use super::json::{Json, Kind};
use crate::config::ListFault;
use crate::config::rules::{Action, Audience, Effect, RuleSpec, Scalar};

pub use self::explain::{Explanation, Reason};
pub use self::recent::{RecentDecisions, RecentNames};

/// The compiled rules.
#[derive(Debug)]
pub struct Rules {
    id: u32,
    separator: u8,
    /// The rules as written, and the shadow rules.
    specs: [Vec<RuleSpec>; 2],
    /// The claims that patterns refer to.
    claims: Vec<Box<str>>,
    /// The rules that decide; `None` allows everything.
    enforced: Option<List>,
    /// The shadow rules.
    shadow: Option<List>,
    /// The facts of clients without claims.
    anonymous: Facts,
}

/// One list of rules.
#[derive(Debug)]
struct List {
    /// For each action, by [`Action::index`]: the rules about it, in their order.
    by_action: [Box<[Clause]>; Action::COUNT],
}

/// A rule as it applies to one action.
#[derive(Debug)]
struct Clause {
    /// Its index in the list, from 0.
    rule: u32,
    /// Its index in [`Facts::concerned`].
    bit: u32,
    effect: Effect,
    /// The patterns of the names that it is about; `None` for all names.
    names: Option<Arc<[Pattern]>>,
}

/// The facts about a client that rules use, read once from its claims.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The id of the rules that these facts are for.
    rules: u32,
    /// True if the subscriptions that are older than these claims have been checked.
    pub(crate) subscriptions_checked: bool,
    /// One bit for each rule that is about this client: first for the enforced rules, then for the shadow
    /// rules.
    concerned: Box<[u64]>,
    /// The values of claims in patterns, in the order of [`Rules::claims`].
    claim_values: Box<[ClaimValues]>,
    /// The last decisions about this client.
    recent: RecentDecisions,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The verdict of the enforced rules.
    pub verdict: RuleVerdict,
    /// The verdict of the shadow rules; the same as `verdict` if there are none.
    pub shadow: RuleVerdict,
}

/// The verdict of one list of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleVerdict {
    /// True if the action is allowed.
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
    /// Compiles rules and shadow rules. If they are the same as `before`, `before` is returned.
    ///
    /// # Errors
    /// A rule has an invalid pattern, which the error names; or the separator is not ASCII punctuation, or is
    /// a character of a wildcard.
    pub fn compile(
        enforced: &[RuleSpec],
        shadow: &[RuleSpec],
        separator: char,
        before: Option<&Arc<Rules>>,
    ) -> Result<Arc<Rules>, ListFault> {
        let separator = separator_byte(separator)?;
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

    /// The faults of all rules; [`Rules::compile`] stops at the first one.
    pub fn faults(enforced: &[RuleSpec], shadow: &[RuleSpec], separator: char) -> Vec<ListFault> {
        if let Err(fault) = Rules::compile(&[], &[], separator, None) {
            return vec![fault];
        }
        let one_by_one = |list: &'static str, rules: &[RuleSpec]| {
            let faults = rules.iter().enumerate().filter_map(|(index, rule)| {
                let fault = Rules::compile(std::slice::from_ref(rule), &[], separator, None).err()?;
                let number = index + 1;
                Some(ListFault {
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
            // Faults that only the rules together have.
            faults.extend(Rules::compile(enforced, shadow, separator, None).err());
        }
        faults
    }

    /// Differs from the id of the rules that these have replaced.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// True if there are neither rules nor shadow rules.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.enforced.is_none() && self.shadow.is_none()
    }

    /// True if any action can be refused.
    #[inline]
    pub fn enforces(&self) -> bool {
        self.enforced.is_some()
    }

    /// The rules as written, and the shadow rules as written.
    pub fn specs(&self) -> [&[RuleSpec]; 2] {
        [&self.specs[0], &self.specs[1]]
    }

    /// The facts about a client with these claims, which are JSON.
    pub(super) fn facts(&self, claims: &str) -> Facts {
        // Accepted claims are JSON. If they were not, they would count as empty.
        self.facts_of(Some(Json::parse(claims)))
    }

    /// True if the facts were made for these rules.
    #[inline]
    pub(super) fn are_facts_of(&self, facts: &Facts) -> bool {
        facts.rules == self.id
    }

    /// Decides whether a client may do this. `name` is the channel or the procedure, in WTF-8. Without facts,
    /// the client has no claims.
    pub fn decide(&self, action: Action, name: &[u8], facts: Option<&Facts>) -> Decided {
        let facts = facts.unwrap_or(&self.anonymous);
        let verdict = match &self.enforced {
            Some(list) => list.decide(action, name, self.separator, facts),
            None => RuleVerdict {
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

    /// As [`Rules::decide`] for a client with claims, whose facts also remember the last decisions.
    #[inline]
    pub fn decide_for(&self, action: Action, name: &[u8], facts: &mut Facts) -> Decided {
        if let Some(decided) = facts.recent.recall(question(self.id, action), name) {
            return decided;
        }
        let decided = self.decide(action, name, Some(facts));
        facts.recent.remember(question(self.id, action), name, decided);
        decided
    }

    /// As [`Rules::decide`] for clients without claims. They all get the same decisions, so a core remembers
    /// these once for all of them.
    #[inline]
    pub(crate) fn decide_for_anonymous(
        &self,
        action: Action,
        name: &[u8],
        recent: &mut RecentDecisions,
    ) -> Decided {
        if let Some(decided) = recent.recall(question(self.id, action), name) {
            return decided;
        }
        let decided = self.decide(action, name, None);
        recent.remember(question(self.id, action), name, decided);
        decided
    }

    /// The outer `None` is a client without claims, the inner one a client with invalid claims.
    fn facts_of(&self, claims: Option<Option<Json<'_>>>) -> Facts {
        let rules = self.specs.iter().flatten();
        let mut concerned = vec![0_u64; rules.clone().count().div_ceil(64)];
        for (bit, rule) in rules.enumerate() {
            if rule.to.iter().any(|who| is_about(who, claims)) {
                concerned[bit / 64] |= 1 << (bit % 64);
            }
        }
        let values_of = |name: &str| {
            let claim = claims.flatten().and_then(|claims| claims.member(name));
            ClaimValues::of(claim, self.separator)
        };
        Facts {
            rules: self.id,
            subscriptions_checked: false,
            concerned: concerned.into(),
            claim_values: self.claims.iter().map(|name| values_of(name)).collect(),
            recent: RecentDecisions::default(),
        }
    }
}

impl List {
    /// `None` for a list without rules. `first_bit` is the index of its first rule in [`Facts::concerned`].
    fn compile(
        list: &'static str,
        specs: &[RuleSpec],
        first_bit: usize,
        separator: u8,
        claims: &mut Vec<Box<str>>,
    ) -> Result<Option<List>, ListFault> {
        if specs.is_empty() {
            return Ok(None);
        }
        let mut by_action: [Vec<Clause>; Action::COUNT] = Default::default();
        for (index, spec) in specs.iter().enumerate() {
            let mut compile = |key: &str, patterns: Option<&Vec<String>>| {
                compile_all(key, patterns, separator, claims).map_err(|fault| ListFault {
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

    fn decide(&self, action: Action, name: &[u8], separator: u8, facts: &Facts) -> RuleVerdict {
        let first = first_bytes(name);
        for clause in &self.by_action[action.index()] {
            if facts.concerns(clause.bit) && clause.is_about(name, first, separator, facts) {
                return RuleVerdict {
                    allowed: clause.effect == Effect::Allow,
                    rule: Some(clause.rule + 1),
                };
            }
        }
        RuleVerdict {
            allowed: false,
            rule: None,
        }
    }
}

/// The character that separates segments, as a byte.
///
/// # Errors
/// It is not ASCII punctuation, or is a character of a wildcard.
pub fn separator_byte(separator: char) -> Result<u8, ListFault> {
    u8::try_from(separator)
        .ok()
        .filter(|byte| byte.is_ascii_punctuation() && !b"*{}".contains(byte))
        .ok_or_else(|| ListFault {
            list: "rules_separator",
            number: 0,
            file: None,
            line: 0,
            fault: format!("found {separator:?}, expected one character such as . / : - or _"),
        })
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

/// The index of a rule; files hold at most two thousand.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Clause {
    #[inline]
    fn is_about(&self, name: &[u8], first: u64, separator: u8, facts: &Facts) -> bool {
        self.names.as_ref().is_none_or(|patterns| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(name, first, separator, &facts.claim_values))
        })
    }
}

impl Facts {
    fn concerns(&self, bit: u32) -> bool {
        let word = self.concerned.get(bit as usize / 64).copied().unwrap_or(0);
        word >> (bit % 64) & 1 == 1
    }
}

/// True if the rule applies to a client with these claims.
fn is_about(who: &Audience, claims: Option<Option<Json<'_>>>) -> bool {
    let claim = |name: &str| claims.flatten().and_then(|claims| claims.member(name));
    match who {
        Audience::Anyone => true,
        Audience::Authenticated => claims.is_some(),
        Audience::Anonymous => claims.is_none(),
        Audience::Is(name, values) => claim(name).is_some_and(|claim| is_one_of(claim, values)),
        Audience::Contains(name, values) => claim(name).is_some_and(|claim| {
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
mod filter_tests;
#[cfg(test)]
mod tests;
