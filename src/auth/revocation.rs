//! Tokens that are not to be believed any more, although they are genuine.
//!
//! A [`Revocation`] names a claim and its value: `jti` for one token, `sub` or whatever names a user for all tokens of
//! that user which were issued up to then. A token that is issued later is good: who has to stay out must not be given
//! one. A token that says nothing by which it could be named cannot be revoked.
//!
//! [`Revocations`] is a value that cores share and never change: the control plane makes a new one of it, of which only
//! a part is copied.
//!
//! Limits: `revocations_max`, kept by whoever adds; `CLAIM_NAMES_MAX` names of claims; `VALUE_BYTES_MAX` for a value.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::json::{Json, Kind};
use super::jwt::Claims;

/// All tokens with a certain claim are refused that were issued by a certain time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    what: Revoked,
    /// Tokens issued up to here, in seconds since 1970.
    at: u64,
    /// When it ends, in seconds since 1970: all such tokens have expired by then.
    until: u64,
}

/// A claim with its value, by which tokens are revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revoked {
    claim: Box<str>,
    /// As JavaScript prints it.
    value: Box<str>,
}

/// Why nothing can be revoked by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRevocable {
    /// Not a JSON object with one member.
    Shape,
    /// The value is neither a text that is not empty nor a number.
    Value,
    /// The name or the value is too long.
    TooLong,
    /// Revocations by as many other claims are in force as may be.
    Names,
}

/// All that is revoked.
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

    /// Its value, as JSON.
    pub fn value_json(&self) -> &str {
        &self.value
    }

    fn by(claim: Box<str>, value: Json<'_>) -> Result<Revoked, NotRevocable> {
        match value.kind() {
            Kind::String(text) if text.is_longer_than(VALUE_BYTES_MAX) => return Err(NotRevocable::TooLong),
            Kind::String(_) if !value.is_truthy() => return Err(NotRevocable::Value),
            Kind::String(_) | Kind::Number(_) => {}
            Kind::Null | Kind::Bool(_) | Kind::Array | Kind::Object => return Err(NotRevocable::Value),
        }
        let mut printed = Vec::new();
        value.write(&mut printed).map_err(|_| NotRevocable::Value)?;
        let value = String::from_utf8(printed).map_err(|_| NotRevocable::Value)?;
        Ok(Revoked {
            claim,
            value: value.into(),
        })
    }

    /// Whether a payload has this claim.
    fn is_in(&self, payload: Json<'_>) -> bool {
        payload
            .member(&self.claim)
            .and_then(|value| Revoked::by(self.claim.clone(), value).ok())
            .is_some_and(|other| other.value == self.value)
    }
}

impl Revocation {
    /// Revokes what was issued up to `at`, until `until`; both in seconds since 1970.
    pub fn new(what: Revoked, at: u64, until: u64) -> Revocation {
        Revocation { what, at, until }
    }

    /// What is revoked.
    pub fn what(&self) -> &Revoked {
        &self.what
    }

    /// Tokens issued up to then are refused, in seconds since 1970.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// When it ends, in seconds since 1970.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Whether these claims are of a token that is revoked by this.
    pub fn concerns(&self, claims: &Claims) -> bool {
        Json::parse(claims.json()).is_some_and(|payload| {
            self.what.is_in(payload) && is_old(payload, &self.what.claim, self.at, self.until)
        })
    }
}

impl Revocations {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |parts| parts.len)
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds one, or puts it in the place of the one by the same claim and value.
    ///
    /// # Errors
    /// There are too many different names of claims.
    pub fn insert(&mut self, revocation: &Revocation) -> Result<(), NotRevocable> {
        let parts = Arc::make_mut(self.0.get_or_insert_with(|| Arc::new(Parts::new())));
        let Revocation { what, at, until } = revocation.clone();
        let name = parts.names.iter_mut().find(|(name, _)| *name == what.claim);
        if name.is_none() && parts.names.len() >= CLAIM_NAMES_MAX {
            return Err(NotRevocable::Names);
        }
        let place = parts.place(&what);
        let claim = what.claim.clone();
        let before = Arc::make_mut(&mut parts.parts[place]).insert(what, Term { at, until });
        if before.is_none() {
            parts.len += 1;
            match parts.names.iter_mut().find(|(name, _)| *name == claim) {
                Some((_, count)) => *count += 1,
                None => parts.names.push((claim, 1)),
            }
        }
        Ok(())
    }

    /// Takes one back; whether it was there.
    pub fn remove(&mut self, what: &Revoked) -> bool {
        let Some(parts) = &mut self.0 else { return false };
        let place = parts.place(what);
        if !parts.parts[place].contains_key(what) {
            return false;
        }
        let parts = Arc::make_mut(parts);
        Arc::make_mut(&mut parts.parts[place]).remove(what);
        parts.forget(&what.claim);
        true
    }

    /// Forgets those that have ended; how many they were.
    pub fn forget_ended(&mut self, now: u64) -> usize {
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

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Revocation> + '_ {
        let parts = self.0.iter().flat_map(|parts| &parts.parts);
        parts
            .flat_map(|part| part.iter())
            .map(|(what, term)| Revocation::new(what.clone(), term.at, term.until))
    }

    /// Whether a token with this payload is revoked at `now`, in seconds since 1970.
    pub(super) fn concern(&self, payload: Json<'_>, now: u64) -> bool {
        let Some(parts) = self.0.as_deref().filter(|parts| parts.len > 0) else {
            return false;
        };
        parts.names.iter().any(|(name, _)| {
            payload
                .member(name)
                .and_then(|value| Revoked::by(name.clone(), value).ok())
                .and_then(|what| parts.parts[parts.place(&what)].get(&what))
                .is_some_and(|term| now < term.until && is_old(payload, name, term.at, term.until))
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
    fn place(&self, what: &Revoked) -> usize {
        (self.hasher.hash_one(what) % PARTS as u64) as usize
    }

    fn forget(&mut self, claim: &str) {
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
                formatter.write_str("the claim's value must be a number, or a text that is not empty")
            }
            NotRevocable::TooLong => write!(
                formatter,
                "the claim's name may have {NAME_BYTES_MAX} bytes and its value {VALUE_BYTES_MAX}"
            ),
            NotRevocable::Names => {
                write!(
                    formatter,
                    "tokens are revoked by {CLAIM_NAMES_MAX} different claims already: use one of these"
                )
            }
        }
    }
}

impl std::error::Error for NotRevocable {}

/// Whether a token was issued by `at`. One that does not say when it was may have been; so may one that claims a time
/// after the revocation's end, which no token of today can have: milliseconds, as a rule. And an id is never given twice.
fn is_old(payload: Json<'_>, claim: &str, at: u64, until: u64) -> bool {
    match payload.member("iat").map(Json::kind) {
        #[expect(clippy::cast_precision_loss, reason = "times are far below 2⁵³")]
        Some(Kind::Number(issued_at)) if claim != "jti" => {
            issued_at < (at + 1) as f64 || issued_at > until as f64
        }
        Some(Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::String(_) | Kind::Array | Kind::Object)
        | None => true,
    }
}

/// A change copies one of so many parts: of 100,000 revocations about 1,600.
const PARTS: usize = 64;
/// Each token is looked up by each of these.
const CLAIM_NAMES_MAX: usize = 8;
/// Longest name of a claim, in bytes of UTF-8, however it is written in JSON.
const NAME_BYTES_MAX: usize = 64;
/// Longest value of a claim, measured in the same way.
const VALUE_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests;
