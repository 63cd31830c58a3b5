//! Patterns of the names that a rule, or a policy of channels, is about.
//!
//! The separator divides a name into segments. In a pattern, `*` matches one non-empty segment. `**`, which
//! must come last, matches all remaining segments, also none. `{claim}` matches one segment that equals the
//! claim's value, or one of its values if it is a list. If the separator is `/`, `+` matches one segment that may be
//! empty, as in a topic filter of MQTT. Everything else is compared byte by byte. A name that contains `*`, `{` or `}`
//! itself is matched only by a wildcard.
//!
//! Invariants
//! 1. A claim's value is compared with a whole segment and never interpreted as a pattern ([`ClaimValues`]
//!    excludes values that are empty or contain a separator): so no token can extend what a pattern matches.
//!
//! Names come as WTF-8: half of a surrogate pair is a character like any other, but equals nothing in a
//! pattern.

use memchr::memchr;

use super::super::json::{Json, Kind};
use crate::config::rules::WHOLE_MAX;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// As it is written.
    text: Box<str>,
    /// The text before the first segment that is not literal, including the separator; the whole pattern if
    /// `tail` is empty.
    prefix: Box<[u8]>,
    tail: Box<[Segment]>,
    /// The first bytes of all names that the pattern matches.
    beginning: Beginning,
}

/// The first bytes of names. Comparing them rules out most names at once: a decision tries many patterns.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    bytes: u64,
    mask: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<[u8]>),
    /// `*`
    One,
    /// `+`, if the separator is that of topics.
    Any,
    /// `**`
    Rest,
    /// A claim, by its index in the list of all claims in patterns.
    Claim(usize),
}

/// The values of a claim that patterns can match: texts of one segment each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClaimValues {
    /// The claim is absent, or has no value that could be one segment: it matches nothing.
    #[default]
    Nothing,
    One(Box<[u8]>),
    /// Sorted.
    OneOf(Box<[Box<[u8]>]>),
}

impl Pattern {
    /// Compiles a pattern, and adds the claims that it refers to to `claims`.
    ///
    /// # Errors
    /// The text names the fault of the pattern.
    pub(crate) fn compile(text: &str, separator: u8, claims: &mut Vec<Box<str>>) -> Result<Pattern, String> {
        let wrong = |fault: &str| Err(format!("{text:?}: {fault}"));
        if text.is_empty() {
            return wrong("a pattern may not be empty");
        }
        let mut segments = Vec::new();
        for segment in text.split(char::from(separator)) {
            if segments.last() == Some(&Segment::Rest) {
                return wrong("** matches all remaining segments, so it must come last");
            }
            let claim = segment
                .strip_prefix('{')
                .and_then(|inner| inner.strip_suffix('}'))
                .filter(|name| !name.is_empty() && !name.contains(['{', '}']));
            segments.push(match (segment, claim) {
                ("*", _) => Segment::One,
                ("+", _) if separator == b'/' => Segment::Any,
                ("**", _) => Segment::Rest,
                (_, Some(name)) => Segment::Claim(place_of(name, claims)),
                (literal, None) if literal.contains(['*', '{', '}']) => {
                    return wrong(&format!(
                        "*, ** and {{claim}} must be whole segments; the separator is {:?} here \
                         (rules_separator)",
                        char::from(separator)
                    ));
                }
                (literal, None) => Segment::Literal(literal.as_bytes().into()),
            });
        }
        Ok(Pattern::of_segments(text, &segments, separator))
    }

    fn of_segments(text: &str, segments: &[Segment], separator: u8) -> Pattern {
        let mut prefix = Vec::new();
        let mut literals = 0;
        for segment in segments {
            let Segment::Literal(literal) = segment else { break };
            prefix.extend_from_slice(literal);
            literals += 1;
            if literals < segments.len() {
                prefix.push(separator);
            }
        }
        let tail = &segments[literals..];
        // `a.**` also matches `a`.
        let certain = match tail {
            [Segment::Rest] => prefix.len().saturating_sub(1),
            _ => prefix.len(),
        };
        let mut mask = [0; 8];
        mask.iter_mut().take(certain).for_each(|byte| *byte = 0xff);
        let mask = u64::from_le_bytes(mask);
        Pattern {
            text: text.into(),
            beginning: Beginning {
                bytes: first_bytes(&prefix) & mask,
                mask,
            },
            prefix: prefix.into(),
            tail: tail.into(),
        }
    }

    /// As it is written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// True if this pattern matches every name that the pattern `other` matches. Neither refers to claims.
    pub(crate) fn covers(&self, other: &str, separator: u8) -> bool {
        let mut others = other.split(char::from(separator));
        for own in self.text.split(char::from(separator)) {
            if own == "**" {
                return true;
            }
            match others.next() {
                None | Some("**") => return false,
                Some("+") if own == "*" && separator == b'/' => return false,
                Some(other) if own == "*" && !other.is_empty() => {}
                Some(_) if own == "+" && separator == b'/' => {}
                Some(other) if own == other => {}
                Some(_) => return false,
            }
        }
        others.next().is_none()
    }

    /// True if this pattern matches all names that begin with `beginning`, for a client with these claims.
    pub(super) fn covers_beginning(&self, beginning: &[u8], separator: u8, claims: &[ClaimValues]) -> bool {
        if self.tail.last() != Some(&Segment::Rest) {
            return false;
        }
        match memchr::memrchr(separator, beginning) {
            // `**` matches the segment that is not complete, and all behind it.
            Some(end) => self.matches_all(&beginning[..end], separator, claims),
            None => self.prefix.is_empty() && self.tail.len() == 1,
        }
    }

    /// False only if this pattern matches no name that begins with `beginning`.
    pub(super) fn may_begin_with(&self, beginning: &[u8]) -> bool {
        let certain = self.certain_beginning();
        certain.starts_with(beginning) || beginning.starts_with(certain)
    }

    /// All segments, in order.
    pub(super) fn segments(&self, separator: u8) -> Vec<Segment> {
        let literals = if self.tail.is_empty() {
            Some(&*self.prefix)
        } else {
            self.prefix.strip_suffix(&[separator])
        };
        let literals = literals.into_iter().flat_map(|prefix| {
            prefix
                .split(move |&byte| byte == separator)
                .map(|literal| Segment::Literal(literal.into()))
        });
        literals.chain(self.tail.iter().cloned()).collect()
    }

    /// The bytes with which all names begin that the pattern matches.
    pub(super) fn certain_beginning(&self) -> &[u8] {
        match &*self.tail {
            // `a.**` also matches `a`.
            [Segment::Rest] => self.prefix.split_last().map_or(&[], |(_, before)| before),
            _ => &self.prefix,
        }
    }

    /// True if the pattern matches a name for a client with these claims. `first` are the name's first bytes.
    #[inline]
    pub(crate) fn matches(&self, name: &[u8], first: u64, separator: u8, claims: &[ClaimValues]) -> bool {
        // Most rules are about other names, and the first bytes show that.
        if first & self.beginning.mask != self.beginning.bytes {
            return false;
        }
        self.matches_all(name, separator, claims)
    }

    #[inline(never)]
    fn matches_all(&self, name: &[u8], separator: u8, claims: &[ClaimValues]) -> bool {
        match name.strip_prefix(&*self.prefix) {
            Some(rest) => self.matches_rest(rest, separator, claims),
            None => self.ends_before_rest(name),
        }
    }

    /// `a.**` also matches `a`.
    fn ends_before_rest(&self, name: &[u8]) -> bool {
        matches!(&*self.tail, [Segment::Rest])
            && self.prefix.split_last().is_some_and(|(_, whole)| whole == name)
    }

    fn matches_rest(&self, rest: &[u8], separator: u8, claims: &[ClaimValues]) -> bool {
        if self.tail.is_empty() {
            return rest.is_empty();
        }
        let mut left = Some(rest);
        for pattern in &self.tail {
            if *pattern == Segment::Rest {
                return true;
            }
            let Some(rest) = left else { return false };
            let length = match pattern {
                Segment::Literal(literal) => begins_with(rest, literal, separator),
                Segment::Claim(place) => claims
                    .get(*place)
                    .and_then(|values_of| values_of.begins(rest, separator)),
                Segment::Any => Some(segment_length(rest, separator)),
                Segment::One | Segment::Rest => {
                    Some(segment_length(rest, separator)).filter(|length| *length > 0)
                }
            };
            let Some(length) = length else { return false };
            left = rest.get(length + 1..);
        }
        left.is_none()
    }
}

/// The first bytes of a name, for [`Pattern::matches`]. Missing bytes of a short name are 0.
#[inline]
pub(crate) fn first_bytes(name: &[u8]) -> u64 {
    if let Some(first) = name.first_chunk() {
        return u64::from_le_bytes(*first);
    }
    name.iter()
        .rev()
        .fold(0, |bytes, &byte| bytes << 8 | u64::from(byte))
}

fn segment_length(rest: &[u8], separator: u8) -> usize {
    memchr(separator, rest).unwrap_or(rest.len())
}

/// The length of the first segment of `rest`, if it equals `segment`, which contains no separator.
fn begins_with(rest: &[u8], segment: &[u8], separator: u8) -> Option<usize> {
    let after = rest.strip_prefix(segment)?;
    after
        .first()
        .is_none_or(|&byte| byte == separator)
        .then_some(segment.len())
}

fn place_of(name: &str, claims: &mut Vec<Box<str>>) -> usize {
    if let Some(place) = claims.iter().position(|known| **known == *name) {
        return place;
    }
    claims.push(name.into());
    claims.len() - 1
}

impl Segment {
    /// Whether this segment of a pattern matches this segment of a name.
    pub(super) fn equals(&self, segment: &[u8], claims: &[ClaimValues]) -> bool {
        match self {
            Segment::Literal(literal) => **literal == *segment,
            Segment::One => !segment.is_empty(),
            Segment::Any | Segment::Rest => true,
            Segment::Claim(place) => claims.get(*place).is_some_and(|values| values.contain(segment)),
        }
    }

    /// Whether there is a segment of a name that this segment of a pattern matches.
    pub(super) fn matches_some(&self, claims: &[ClaimValues]) -> bool {
        match self {
            Segment::Literal(_) | Segment::One | Segment::Any | Segment::Rest => true,
            Segment::Claim(place) => claims
                .get(*place)
                .is_some_and(|values| *values != ClaimValues::Nothing),
        }
    }
}

impl ClaimValues {
    fn contain(&self, segment: &[u8]) -> bool {
        match self {
            ClaimValues::Nothing => false,
            ClaimValues::One(value) => **value == *segment,
            ClaimValues::OneOf(values) => values.binary_search_by(|value| (**value).cmp(segment)).is_ok(),
        }
    }

    /// The values of a claim that patterns can match.
    pub(super) fn of(claim: Option<Json<'_>>, separator: u8) -> ClaimValues {
        let Some(claim) = claim else {
            return ClaimValues::Nothing;
        };
        if claim.kind() != Kind::Array {
            return segment(claim, separator).map_or(ClaimValues::Nothing, ClaimValues::One);
        }
        let mut all = Vec::new();
        claim.each_element(|element| all.extend(segment(element, separator)));
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            ClaimValues::Nothing
        } else {
            ClaimValues::OneOf(all.into())
        }
    }

    /// The length of the first segment of `rest`, if it is one of these values.
    fn begins(&self, rest: &[u8], separator: u8) -> Option<usize> {
        match self {
            ClaimValues::Nothing => None,
            ClaimValues::One(value) => begins_with(rest, value, separator),
            ClaimValues::OneOf(values) => {
                let length = segment_length(rest, separator);
                let segment = &rest[..length];
                values
                    .binary_search_by(|value| (**value).cmp(segment))
                    .ok()
                    .map(|_| length)
            }
        }
    }

    /// The texts, for people.
    pub(super) fn texts(&self) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            ClaimValues::Nothing => Vec::new(),
            ClaimValues::One(value) => vec![text(value)],
            ClaimValues::OneOf(values) => values.iter().map(|value| text(value)).collect(),
        }
    }
}

/// The value as one segment. Strings count if they are valid text, non-empty and without a separator. Numbers
/// count if they are integers that a double represents exactly: otherwise two users could have the same
/// number. Other values do not count.
fn segment(value: Json<'_>, separator: u8) -> Option<Box<[u8]>> {
    let text = match value.kind() {
        Kind::String(string) => String::from_utf16(&string.units()).ok()?,
        #[expect(clippy::cast_precision_loss, reason = "a double holds it exactly")]
        Kind::Number(number) if number.fract() == 0.0 && number.abs() <= WHOLE_MAX as f64 => {
            // Adding 0 turns -0 into 0, as JavaScript prints it.
            ryu_js::Buffer::new().format_finite(number + 0.0).to_owned()
        }
        Kind::Number(_) | Kind::Null | Kind::Bool(_) | Kind::Array | Kind::Object => return None,
    };
    let is_one_segment = !text.is_empty() && !text.as_bytes().contains(&separator);
    is_one_segment.then(|| text.into_bytes().into())
}
