//! Patterns: which names a rule is about.
//!
//! A name is cut into segments by the separator. In a pattern, `*` is one segment that is not empty, `**`, which comes
//! last, is what is left, be it nothing; `{claim}` is one segment and is that claim's value, or, of a list, one of its
//! values; all else is compared byte for byte. A name that itself holds `*`, `{` or `}` is met by `*` or `**` alone.
//!
//! Invariants
//! 1. What a claim holds is compared with a whole segment and never read as a pattern ([`Filling`] keeps out what could
//!    span two segments or none), so that no token widens what a pattern matches.
//!
//! Names come as WTF-8: a half of a surrogate pair is like any other character, but equal to nothing in a pattern.

use memchr::memchr;

use super::super::json::{Json, Kind};
use crate::config::rules::WHOLE_MAX;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    /// As it was written.
    text: Box<str>,
    /// What comes before the first segment that is not literal, separator included; all of it, if `tail` is empty.
    prefix: Box<[u8]>,
    tail: Box<[Segment]>,
    /// How every name begins that it is about.
    beginning: Beginning,
}

/// The first bytes of names, to tell most that do not match at once: a decision looks at many patterns.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    bytes: u64,
    mask: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<[u8]>),
    /// `*`
    One,
    /// `**`
    Rest,
    /// The claim of this place in the list of all that patterns name.
    Claim(usize),
}

/// What a claim puts into patterns: texts that are one segment each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Filling {
    /// The claim is absent, or nothing that could be one segment: matches nothing.
    #[default]
    Nothing,
    One(Box<[u8]>),
    /// Sorted.
    OneOf(Box<[Box<[u8]>]>),
}

impl Pattern {
    /// Compiles a pattern; adds the claims that it names to `claims`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn compile(text: &str, separator: u8, claims: &mut Vec<Box<str>>) -> Result<Pattern, String> {
        let wrong = |fault: &str| Err(format!("{text:?}: {fault}"));
        if text.is_empty() {
            return wrong("a pattern may not be empty");
        }
        let mut segments = Vec::new();
        for segment in text.split(char::from(separator)) {
            if segments.last() == Some(&Segment::Rest) {
                return wrong("** is what is left and comes last");
            }
            let claim = segment
                .strip_prefix('{')
                .and_then(|inner| inner.strip_suffix('}'))
                .filter(|name| !name.is_empty() && !name.contains(['{', '}']));
            segments.push(match (segment, claim) {
                ("*", _) => Segment::One,
                ("**", _) => Segment::Rest,
                (_, Some(name)) => Segment::Claim(place_of(name, claims)),
                (literal, None) if literal.contains(['*', '{', '}']) => {
                    return wrong(&format!(
                        "*, ** and {{claim}} stand for whole segments, which {:?} parts here (rules_separator)",
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
        // `a.**` is about `a`, too.
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

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a name, which begins with `first`, is one that the pattern is about, for who has these claims.
    #[inline]
    pub(super) fn matches(&self, name: &[u8], first: u64, separator: u8, claims: &[Filling]) -> bool {
        // Most rules are about other names, which their beginning tells.
        if first & self.beginning.mask != self.beginning.bytes {
            return false;
        }
        self.matches_all(name, separator, claims)
    }

    #[inline(never)]
    fn matches_all(&self, name: &[u8], separator: u8, claims: &[Filling]) -> bool {
        match name.strip_prefix(&*self.prefix) {
            Some(rest) => self.matches_rest(rest, separator, claims),
            None => self.ends_before_rest(name),
        }
    }

    /// `a.**` is about `a` as well.
    fn ends_before_rest(&self, name: &[u8]) -> bool {
        matches!(&*self.tail, [Segment::Rest])
            && self.prefix.split_last().is_some_and(|(_, whole)| whole == name)
    }

    fn matches_rest(&self, rest: &[u8], separator: u8, claims: &[Filling]) -> bool {
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
                    .and_then(|filling| filling.begins(rest, separator)),
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

/// The first bytes of a name, for [`Pattern::matches`]; what a short one lacks is 0.
#[inline]
pub(super) fn first_bytes(name: &[u8]) -> u64 {
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

/// The length of the first segment, if it is this one, which holds no separator.
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

impl Filling {
    /// What a claim puts into patterns.
    pub(super) fn of(claim: Option<Json<'_>>, separator: u8) -> Filling {
        let Some(claim) = claim else {
            return Filling::Nothing;
        };
        if claim.kind() != Kind::Array {
            return segment(claim, separator).map_or(Filling::Nothing, Filling::One);
        }
        let mut all = Vec::new();
        claim.each_element(|element| all.extend(segment(element, separator)));
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            Filling::Nothing
        } else {
            Filling::OneOf(all.into())
        }
    }

    /// The length of the first segment of `rest`, if it is one of these.
    fn begins(&self, rest: &[u8], separator: u8) -> Option<usize> {
        match self {
            Filling::Nothing => None,
            Filling::One(value) => begins_with(rest, value, separator),
            Filling::OneOf(values) => {
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
            Filling::Nothing => Vec::new(),
            Filling::One(value) => vec![text(value)],
            Filling::OneOf(values) => values.iter().map(|value| text(value)).collect(),
        }
    }
}

/// The value as one segment. Of strings, those that are text, not empty, and without a separator. Of numbers, those
/// that are whole and told apart by a double: two users must not have one number. Of all else, none.
fn segment(value: Json<'_>, separator: u8) -> Option<Box<[u8]>> {
    let text = match value.kind() {
        Kind::String(string) => String::from_utf16(&string.units()).ok()?,
        #[expect(clippy::cast_precision_loss, reason = "a double holds it exactly")]
        Kind::Number(number) if number.fract() == 0.0 && number.abs() <= WHOLE_MAX as f64 => {
            // 0 is added for the sake of -0, which JavaScript prints as 0.
            ryu_js::Buffer::new().format_finite(number + 0.0).to_owned()
        }
        Kind::Number(_) | Kind::Null | Kind::Bool(_) | Kind::Array | Kind::Object => return None,
    };
    let is_one_segment = !text.is_empty() && !text.as_bytes().contains(&separator);
    is_one_segment.then(|| text.into_bytes().into())
}
