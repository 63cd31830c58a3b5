//! Whether rules allow all that a topic filter of MQTT could match: a filter is allowed only then.
//!
//! A filter is a list of levels with `/` between them (MQTT 5.0 section 4.7). `+` matches one level, which may be
//! empty. `#`, which comes last, matches all remaining levels, also none. A filter that begins with one of these
//! matches no name that begins with `$`. A filter without them is a name, and is decided like one.
//!
//! The rules are asked in their order, as for a name:
//!
//! - A rule that denies, and has a pattern that matches a name that the filter matches, refuses the filter.
//! - A rule that allows, and has a pattern that matches all names that the filter matches, allows it.
//! - Otherwise the next rule decides; without one the filter is refused.
//!
//! So a filter is refused as well if only several rules together would allow all its names.
//!
//! If `rules_separator` is not `/`, the levels of a filter are no segments. Then a pattern matches all names of a
//! filter only if it matches everything that begins like the filter: it needs a `**` after whole segments with which
//! the filter begins. A pattern counts as matching some name of the filter if the two begin alike.

use super::pattern::{ClaimValues, Pattern, Segment, first_bytes};
use super::{Clause, Decided, Facts, List, RuleVerdict, Rules};
use crate::config::rules::{Action, Effect};

/// The separator of the levels of a topic filter.
const LEVEL_SEPARATOR: u8 = b'/';

/// A filter with at least one wildcard.
#[derive(Clone, Copy, Debug)]
struct Filter<'a> {
    text: &'a str,
    separator: u8,
}

impl Rules {
    /// Decides whether a client may do this with all names that the filter matches. Without facts, the client has no
    /// claims. The cost grows with the length of the filter times the number of patterns.
    pub fn decide_filter(&self, action: Action, filter: &str, facts: Option<&Facts>) -> Decided {
        if !has_wildcard(filter) {
            return self.decide(action, filter.as_bytes(), facts);
        }
        let facts = facts.unwrap_or(&self.anonymous);
        let filter = Filter {
            text: filter,
            separator: self.separator,
        };
        let verdict = match &self.enforced {
            Some(list) => list.decide_filter(action, filter, facts),
            None => RuleVerdict {
                allowed: true,
                rule: None,
            },
        };
        let shadow = match &self.shadow {
            Some(list) => list.decide_filter(action, filter, facts),
            None => verdict,
        };
        Decided { verdict, shadow }
    }
}

impl List {
    fn decide_filter(&self, action: Action, filter: Filter<'_>, facts: &Facts) -> RuleVerdict {
        let decides = |clause: &&Clause| {
            facts.concerns(clause.bit)
                && clause.names.as_ref().is_none_or(|patterns| {
                    patterns.iter().any(|pattern| match clause.effect {
                        Effect::Allow => filter.is_covered_by(pattern, &facts.claim_values),
                        Effect::Deny => filter.meets(pattern, &facts.claim_values),
                    })
                })
        };
        let clause = self.by_action[action.index()].iter().find(decides);
        RuleVerdict {
            allowed: clause.is_some_and(|clause| clause.effect == Effect::Allow),
            rule: clause.map(|clause| clause.rule + 1),
        }
    }
}

/// Whether a filter, or a name, could match a name that a pattern without claims matches. If that is not sure, it
/// counts as true.
pub(crate) fn filter_meets(filter: &str, pattern: &Pattern, separator: u8) -> bool {
    if !has_wildcard(filter) {
        return pattern.matches(filter.as_bytes(), first_bytes(filter.as_bytes()), separator, &[]);
    }
    let filter = Filter {
        text: filter,
        separator,
    };
    filter.meets(pattern, &[])
}

/// Whether a topic filter has a wildcard.
fn has_wildcard(filter: &str) -> bool {
    filter.split('/').any(|level| matches!(level, "+" | "#"))
}

impl Filter<'_> {
    /// Whether the pattern matches all names that this filter matches.
    fn is_covered_by(self, pattern: &Pattern, claims: &[ClaimValues]) -> bool {
        if self.separator != LEVEL_SEPARATOR {
            return self.beginning_is_covered_by(pattern, claims);
        }
        // A topic has a character, so `+` alone matches no empty name.
        let is_one_level = self.text == "+";
        // Every name has a first level, and none is empty: the filters of each pair match the same names.
        let text = match self.text {
            "#" => "+/#",
            "/#" => "/+/#",
            text => text,
        };
        let mut levels = text.split('/');
        for segment in &pattern.segments(self.separator) {
            if *segment == Segment::Rest {
                return true;
            }
            let is_covered = match (levels.next(), segment) {
                (None | Some("#"), _) | (_, Segment::Rest) => false,
                (Some("+"), Segment::Any) => true,
                (Some("+"), Segment::One) => is_one_level,
                (Some("+"), Segment::Literal(_) | Segment::Claim(_)) => false,
                (Some(level), segment) => segment.equals(level.as_bytes(), claims),
            };
            if !is_covered {
                return false;
            }
        }
        levels.next().is_none()
    }

    /// Whether the pattern matches some name that this filter matches. If that is not sure, it counts as true.
    fn meets(self, pattern: &Pattern, claims: &[ClaimValues]) -> bool {
        if self.separator != LEVEL_SEPARATOR {
            return self.begins_like(pattern);
        }
        let segments = pattern.segments(self.separator);
        if self.text.starts_with(['+', '#'])
            && let Some(Segment::Literal(first)) = segments.first()
            && first.starts_with(b"$")
        {
            return false;
        }
        let mut levels = self.text.split('/');
        let mut left = segments.iter();
        while let Some(segment) = left.next() {
            if *segment == Segment::Rest {
                return true;
            }
            match levels.next() {
                None => return false,
                // Some levels match the segment and those after it, if any text does.
                Some("#") => {
                    return std::iter::once(segment)
                        .chain(left)
                        .all(|segment| segment.matches_some(claims));
                }
                Some("+") if segment.matches_some(claims) => {}
                Some("+") => return false,
                Some(level) if segment.equals(level.as_bytes(), claims) => {}
                Some(_) => return false,
            }
        }
        matches!(levels.next(), None | Some("#"))
    }

    /// [`Filter::is_covered_by`] where levels are no segments.
    fn beginning_is_covered_by(self, pattern: &Pattern, claims: &[ClaimValues]) -> bool {
        let mut rest = Some(self.beginning().as_bytes());
        for segment in &pattern.segments(self.separator) {
            if *segment == Segment::Rest {
                // What the filter matches after its beginning belongs to the remaining segments.
                return rest.is_some();
            }
            let Some(bytes) = rest else { return false };
            // The last segment of the beginning may go on in the names.
            let Some(end) = bytes.iter().position(|&byte| byte == self.separator) else {
                return false;
            };
            if !segment.equals(&bytes[..end], claims) {
                return false;
            }
            rest = bytes.get(end + 1..);
        }
        false
    }

    /// [`Filter::meets`] where levels are no segments.
    fn begins_like(self, pattern: &Pattern) -> bool {
        let (filter, pattern) = (self.beginning().as_bytes(), pattern.certain_beginning());
        let both = filter.len().min(pattern.len());
        filter[..both] == pattern[..both]
    }

    /// The text with which all names begin that the filter matches.
    fn beginning(&self) -> &str {
        let wildcard = self
            .text
            .split_inclusive('/')
            .scan(0, |at, level| {
                let begin = *at;
                *at += level.len();
                Some((begin, level.trim_end_matches('/')))
            })
            .find(|(_, level)| matches!(*level, "+" | "#"));
        match wildcard {
            // `a/#` matches `a` as well.
            Some((begin, "#")) => {
                let before = &self.text[..begin];
                before.strip_suffix('/').unwrap_or(before)
            }
            Some((begin, _)) => &self.text[..begin],
            None => self.text,
        }
    }
}
