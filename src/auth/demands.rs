//! The demands on a token beyond a valid signature: its issuer, its audience, and its times.
//!
//! The order of the checks and the error messages are jsonwebtoken's: `nbf`, `exp`, `aud`, `iss`.

use super::error::TokenError;
use super::json::{self, Json, Kind};

/// Demands on tokens. The default demands no issuer and no audience and allows no leeway, as the reference
/// does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// `iss` must be one of these issuers; an empty list allows all. The first one is put into tokens that
    /// are signed here.
    pub issuers: Vec<String>,
    /// `aud` must be or contain one of these audiences; an empty list allows all. The first one is put into
    /// tokens that are signed here.
    pub audiences: Vec<String>,
    /// By how many seconds clocks may differ: a token is accepted this much before `nbf` and after `exp`.
    pub leeway_seconds: u16,
}

impl Demands {
    /// Checks a payload at `now`, in seconds since 1970 with their fraction; returns `exp`. For times in
    /// whole seconds, as jsonwebtoken writes them, the fraction of `now` makes no difference.
    pub(super) fn check(&self, payload: Json<'_>, now: f64) -> Result<Option<f64>, TokenError> {
        let number = |name, otherwise| match payload.member(name).map(Json::kind) {
            None => Ok(None),
            Some(Kind::Number(number)) => Ok(Some(number)),
            Some(Kind::Null | Kind::Bool(_) | Kind::String(_) | Kind::Array | Kind::Object) => Err(otherwise),
        };
        let leeway = f64::from(self.leeway_seconds);
        let not_before = number("nbf", TokenError::InvalidNbf)?;
        if let Some(nbf) = not_before.filter(|&nbf| nbf > now + leeway) {
            return Err(TokenError::NotActive { nbf });
        }
        let expires_at = number("exp", TokenError::InvalidExp)?;
        if let Some(exp) = expires_at.filter(|&exp| now >= exp + leeway) {
            return Err(TokenError::Expired { exp });
        }
        if !self.audiences.is_empty() && !self.is_for_us(payload) {
            return Err(TokenError::InvalidAudience(self.audiences.join(" or ").into()));
        }
        if !self.issuers.is_empty()
            && !payload
                .member("iss")
                .is_some_and(|issuer| is_one_of(issuer, &self.issuers))
        {
            return Err(TokenError::InvalidIssuer(self.issuers.join(",").into()));
        }
        Ok(expires_at)
    }

    /// Appends the members that tokens signed here must have, if the claims lack them.
    pub(super) fn write_missing(&self, claims: Json<'_>, payload: &mut Vec<u8>) {
        for (name, values) in [("aud", &self.audiences), ("iss", &self.issuers)] {
            if let Some(value) = values.first()
                && claims.member(name).is_none()
            {
                payload.extend_from_slice(b",\"");
                payload.extend_from_slice(name.as_bytes());
                payload.extend_from_slice(b"\":");
                json::write_string(value.encode_utf16(), payload);
            }
        }
    }

    fn is_for_us(&self, payload: Json<'_>) -> bool {
        let Some(audience) = payload.member("aud") else {
            return false;
        };
        match audience.kind() {
            Kind::Array => {
                let mut is_for_us = false;
                audience.each_element(|one| is_for_us |= is_one_of(one, &self.audiences));
                is_for_us
            }
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::String(_) | Kind::Object => {
                is_one_of(audience, &self.audiences)
            }
        }
    }
}

fn is_one_of(value: Json<'_>, known: &[String]) -> bool {
    match value.kind() {
        Kind::String(text) => known.iter().any(|known| text.is(known)),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Array | Kind::Object => false,
    }
}
