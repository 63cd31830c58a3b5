//! Revocation: valid tokens that are refused because an operator has revoked them.
//!
//! A [`Revocation`] names a claim and its value: `jti` for a single token, `sub` or another claim with the
//! user's name for all tokens of that user that were issued up to that time. Tokens that are issued later are
//! accepted: to keep a user out, the issuer must give it no new token. A token without any such claim cannot
//! be revoked.
//!
//! [`Revocations`] is an immutable value that the cores share. To change it, the control plane makes a new
//! value, for which only a part is copied.
//!
//! Limits: `revocations_max`, which the caller of `insert` checks; `CLAIM_NAMES_MAX` names of claims;
//! `VALUE_BYTES_MAX` for a value.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::claims::Claims;
use super::json::{Json, Kind, write_number};

/// Refuses all tokens with a certain claim that were issued up to a certain time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    what: Revoked,
    /// Tokens issued up to this time are refused, in seconds since 1970.
    at: u64,
    /// When the revocation expires, in seconds since 1970: all such tokens have expired by then.
    until: u64,
}

/// A claim with its value that revoked tokens have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revoked {
    claim: Box<str>,
    /// As JavaScript prints it.
    value: Box<str>,
}

/// Why a text does not name a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRevocable {
    /// It is not a JSON object with exactly one member.
    Shape,
    /// The value is neither a non-empty text nor a number.
    Value,
    /// The name or the value is too long.
    TooLong,
    /// The revocations in force already use the largest number of different claims.
    Names,
}

/// All revocations.
#[derive(Clone, Default)]
pub struct Revocations(Option<Arc<Parts>>);

#[derive(Clone)]
struct Parts {
    hasher: RandomState,
    parts: Vec<Arc<HashMap<Revoked, Term>>>,
    /// The names of claims, each with the number of its revocations.
    names: Vec<(Box<str>, usize)>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Term {
    at: u64,
    until: u64,
}

impl Revoked {
    /// Reads `{"sub":"ann"}`: one claim with a text or a number.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse(text: &str) -> Result<Revoked, NotRevocable> {
        let json = Json::parse(text).ok_or(NotRevocable::Shape)?;
        let members = json.members();
        let [(name, value)] = &members[..] else {
            return Err(NotRevocable::Shape);
        };
        if name.is_longer_than(NAME_BYTES_MAX) {
            return Err(NotRevocable::TooLong);
        }
        let claim = String::from_utf16(&name.units()).map_err(|_| NotRevocable::Shape)?;
        Revoked::by(claim.into(), *value)
    }

    /// The claim's name.
    pub fn claim(&self) -> &str {
        &self.claim
    }

    /// The value as JSON.
    pub fn value_json(&self) -> &str {
        &self.value
    }

    /// The text of the claim `sub` of a payload, if tokens can be revoked by it; of a number its digits.
    pub(super) fn user_of(payload: Json<'_>) -> Option<Box<str>> {
        let value = payload.member("sub")?;
        let printed = Revoked::by("sub".into(), value).ok()?.value;
        match value.kind() {
            Kind::String(text) => String::from_utf16(&text.units()).ok().map(Box::from),
            Kind::Number(_) | Kind::Null | Kind::Bool(_) | Kind::Array | Kind::Object => Some(printed),
        }
    }

    /// Appends the result of [`Revoked::user_of`] as a JSON string, without an allocation: a service gets it with each
    /// call. False if there is none.
    pub(super) fn write_user_of(payload: Json<'_>, out: &mut Vec<u8>) -> bool {
        let Some(value) = payload.member("sub").filter(|value| check_value(*value).is_ok()) else {
            return false;
        };
        match value.kind() {
            Kind::String(text) => text.write(out),
            Kind::Number(number) => {
                out.push(b'"');
                write_number(number, out);
                out.push(b'"');
                true
            }
            Kind::Null | Kind::Bool(_) | Kind::Array | Kind::Object => false,
        }
    }

    fn by(claim: Box<str>, value: Json<'_>) -> Result<Revoked, NotRevocable> {
        check_value(value)?;
        let mut printed = Vec::new();
        value.write(&mut printed).map_err(|_| NotRevocable::Value)?;
        let value = String::from_utf8(printed).map_err(|_| NotRevocable::Value)?;
        Ok(Revoked {
            claim,
            value: value.into(),
        })
    }

    /// True if a payload has this claim.
    fn is_in(&self, payload: Json<'_>) -> bool {
        payload
            .member(&self.claim)
            .and_then(|value| Revoked::by(self.claim.clone(), value).ok())
            .is_some_and(|other| other.value == self.value)
    }
}

/// Whether a claim with this value can name tokens.
fn check_value(value: Json<'_>) -> Result<(), NotRevocable> {
    match value.kind() {
        Kind::String(text) if text.is_longer_than(VALUE_BYTES_MAX) => Err(NotRevocable::TooLong),
        Kind::String(_) if !value.is_truthy() => Err(NotRevocable::Value),
        Kind::String(_) | Kind::Number(_) => Ok(()),
        Kind::Null | Kind::Bool(_) | Kind::Array | Kind::Object => Err(NotRevocable::Value),
    }
}

impl Revocation {
    /// Revokes tokens that were issued up to `at`. Expires at `until`; both in seconds since 1970.
    pub fn new(what: Revoked, at: u64, until: u64) -> Revocation {
        Revocation { what, at, until }
    }

    /// The claim of the revoked tokens.
    pub fn revoked(&self) -> &Revoked {
        &self.what
    }

    /// Tokens issued up to this time are refused, in seconds since 1970.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// When the revocation expires, in seconds since 1970.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// True if this revokes a token with these claims.
    pub fn applies_to(&self, claims: &Claims) -> bool {
        Json::parse(claims.json()).is_some_and(|payload| {
            self.what.is_in(payload) && may_be_issued_by(payload, &self.what.claim, self.at, self.until)
        })
    }
}

impl Revocations {
    /// The number of revocations.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |parts| parts.len)
    }

    /// True if nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a revocation. It replaces one with the same claim and value.
    ///
    /// # Errors
    /// There would be too many different names of claims.
    pub fn insert(&mut self, revocation: &Revocation) -> Result<(), NotRevocable> {
        let parts = Arc::make_mut(self.0.get_or_insert_with(|| Arc::new(Parts::new())));
        let Revocation { what, at, until } = revocation.clone();
        let name = parts.names.iter_mut().find(|(name, _)| *name == what.claim);
        if name.is_none() && parts.names.len() >= CLAIM_NAMES_MAX {
            return Err(NotRevocable::Names);
        }
        let part_of = parts.part_of(&what);
        let claim = what.claim.clone();
        let before = Arc::make_mut(&mut parts.parts[part_of]).insert(what, Term { at, until });
        if before.is_none() {
            parts.len += 1;
            match parts.names.iter_mut().find(|(name, _)| *name == claim) {
                Some((_, count)) => *count += 1,
                None => parts.names.push((claim, 1)),
            }
        }
        Ok(())
    }

    /// Withdraws a revocation. True if there was one.
    pub fn remove(&mut self, what: &Revoked) -> bool {
        let Some(parts) = &mut self.0 else { return false };
        let part_of = parts.part_of(what);
        if !parts.parts[part_of].contains_key(what) {
            return false;
        }
        let parts = Arc::make_mut(parts);
        Arc::make_mut(&mut parts.parts[part_of]).remove(what);
        parts.drop_claim(&what.claim);
        true
    }

    /// Drops expired revocations; returns their number.
    pub fn drop_expired(&mut self, now: u64) -> usize {
        let ended: Vec<Revoked> = self
            .iter()
            .filter(|revocation| revocation.until <= now)
            .map(|revocation| revocation.what)
            .collect();
        for what in &ended {
            self.remove(what);
        }
        ended.len()
    }

    /// All revocations, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Revocation> + '_ {
        let parts = self.0.iter().flat_map(|parts| &parts.parts);
        parts
            .flat_map(|part| part.iter())
            .map(|(what, term)| Revocation::new(what.clone(), term.at, term.until))
    }

    /// True if a token with this payload is revoked at `now`, in seconds since 1970.
    pub(super) fn apply_to(&self, payload: Json<'_>, now: u64) -> bool {
        let Some(parts) = self.0.as_deref().filter(|parts| parts.len > 0) else {
            return false;
        };
        parts.names.iter().any(|(name, _)| {
            payload
                .member(name)
                .and_then(|value| Revoked::by(name.clone(), value).ok())
                .and_then(|what| parts.parts[parts.part_of(&what)].get(&what))
                .is_some_and(|term| now < term.until && may_be_issued_by(payload, name, term.at, term.until))
        })
    }
}

impl Parts {
    fn new() -> Parts {
        Parts {
            hasher: RandomState::new(),
            parts: vec![Arc::default(); PARTS],
            names: Vec::new(),
            len: 0,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder is below `PARTS`")]
    fn part_of(&self, what: &Revoked) -> usize {
        (self.hasher.hash_one(what) % PARTS as u64) as usize
    }

    fn drop_claim(&mut self, claim: &str) {
        self.len -= 1;
        if let Some(at) = self.names.iter().position(|(name, _)| &**name == claim) {
            self.names[at].1 -= 1;
            if self.names[at].1 == 0 {
                self.names.swap_remove(at);
            }
        }
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Revocations")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for NotRevocable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRevocable::Shape => formatter.write_str(
                "expected a JSON object with one claim, such as {\"sub\":\"ann\"} or {\"jti\":\"…\"}",
            ),
            NotRevocable::Value => {
                formatter.write_str("the claim's value must be a number or a non-empty text")
            }
            NotRevocable::TooLong => write!(
                formatter,
                "the claim's name may have at most {NAME_BYTES_MAX} bytes and its value at most \
                 {VALUE_BYTES_MAX}"
            ),
            NotRevocable::Names => {
                write!(
                    formatter,
                    "the revocations in force use {CLAIM_NAMES_MAX} different claims already: use one of these"
                )
            }
        }
    }
}

impl std::error::Error for NotRevocable {}

/// True if a token may have been issued by `at`. Without a valid `iat` it may have been. It may also have
/// been if `iat` is after the end of the revocation: no token of today can have such a time, which is usually
/// one in milliseconds. A `jti` is never used twice, so its token is old in any case.
fn may_be_issued_by(payload: Json<'_>, claim: &str, at: u64, until: u64) -> bool {
    match payload.member("iat").map(Json::kind) {
        #[expect(clippy::cast_precision_loss, reason = "times are far below 2⁵³")]
        Some(Kind::Number(issued_at)) if claim != "jti" => {
            issued_at < (at + 1) as f64 || issued_at > until as f64
        }
        Some(Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::String(_) | Kind::Array | Kind::Object)
        | None => true,
    }
}

/// A change copies one of this many parts: of 100,000 revocations about 1,600.
const PARTS: usize = 64;
/// Each token is looked up by each of these names.
const CLAIM_NAMES_MAX: usize = 8;
/// Longest name of a claim, in bytes of its decoded form in UTF-8.
const NAME_BYTES_MAX: usize = 64;
/// Longest value of a claim, measured in the same way.
const VALUE_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests;
