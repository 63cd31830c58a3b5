//! The claims of a client.

use std::fmt;

use serde::Deserialize;

use super::json::{Json, Kind, write_string};
use super::revocation::Revoked;
use super::rules::{Facts, Rules};

/// The claims of a client: the payload of a valid token, or claims from another source. `Debug` does not show
/// them.
#[derive(Clone)]
pub struct Claims {
    json: String,
    expires_at: Option<f64>,
    /// The leeway at the time of the check, which also applies to the expiry of the connection.
    leeway_seconds: u16,
    /// Whether the client itself holds a token with these claims, and may be given another with them.
    has_token: bool,
    /// The parts of the claims that rules use, once rules have been evaluated.
    facts: Option<Box<Facts>>,
}

impl PartialEq for Claims {
    /// Compares the claims. Facts are left out, since they follow from the claims.
    fn eq(&self, other: &Claims) -> bool {
        self.json == other.json && self.expires_at == other.expires_at
    }
}

impl Claims {
    /// The claims of a token that has been checked or signed.
    pub(super) fn new(json: String, expires_at: Option<f64>, leeway_seconds: u16) -> Claims {
        Claims {
            json,
            expires_at,
            leeway_seconds,
            has_token: true,
            facts: None,
        }
    }

    /// The same claims for a client that does not hold the token, as of the cookie that a page's script cannot read.
    pub(crate) fn without_token(self) -> Claims {
        Claims {
            has_token: false,
            ..self
        }
    }

    /// Whether the client itself holds a token with these claims.
    pub(crate) fn has_token(&self) -> bool {
        self.has_token
    }

    /// Claims from another source than a token: a JSON object, and its claim `exp` in seconds since 1970.
    pub(crate) fn trusted(json: String, expires_at: Option<f64>) -> Claims {
        Claims::new(json, expires_at, 0).without_token()
    }

    /// Claims that the program or its backend vouches for: a JSON object, with an `exp` in seconds since 1970 or
    /// without. `None` if the text is none.
    pub(crate) fn of_object(json: &str) -> Option<Claims> {
        #[derive(Deserialize)]
        struct Expiry {
            exp: Option<f64>,
        }
        let Expiry { exp } = serde_json::from_str(json).ok()?;
        json.trim_start()
            .starts_with('{')
            .then(|| Claims::trusted(json.to_owned(), exp))
    }

    /// The payload as JSON text, byte for byte as it was signed. Usually an object, but a signer may sign any
    /// JSON value except `null`. The payload of a token without `typ: JWT` is a string if it is neither an
    /// object nor an array.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The claim `exp`, in seconds since 1970; may have a fraction or be infinite. A connection counts it as over when
    /// `unix_ms > expires_at * 1000`, which is slightly later than in [`Tokens::verify`](super::Tokens::verify).
    pub fn expires_at(&self) -> Option<f64> {
        self.expires_at
    }

    /// True if a connection with these claims is to lose its authentication at `unix_ms`. As in the reference, this is
    /// less than a second later than [`Tokens::verify`](super::Tokens::verify) would refuse the token.
    pub fn has_expired(&self, unix_ms: u64) -> bool {
        self.expires_with_leeway_at()
            .is_some_and(|at| unix_ms as f64 > at * 1000.0)
    }

    /// When that happens, in seconds since 1970: `exp` plus the leeway.
    pub(crate) fn expires_with_leeway_at(&self) -> Option<f64> {
        let leeway = f64::from(self.leeway_seconds);
        self.expires_at.map(|expires_at| expires_at + leeway)
    }

    /// True if the payload is truthy in JavaScript; only then does a socket of the reference count as
    /// authenticated. False for `0`, `false` and the empty string.
    pub fn is_truthy(&self) -> bool {
        Json::parse(&self.json).is_some_and(Json::is_truthy)
    }

    /// The parts of the claims that these rules use. They are read at the first call, and again if the rules
    /// change.
    #[doc(hidden)]
    #[inline]
    pub fn facts(&mut self, rules: &Rules) -> &mut Facts {
        if self.facts.as_ref().is_none_or(|facts| !rules.are_facts_of(facts)) {
            self.facts = Some(Box::new(rules.facts(&self.json)));
        }
        self.facts.as_mut().expect("set by the line above")
    }

    /// The user: the claim `sub`, if it is a non-empty text or a number, as a revocation names it.
    pub fn user(&self) -> Option<Box<str>> {
        Claims::user_in(&self.json)
    }

    /// The user in claims, a JSON text.
    pub(crate) fn user_in(json: &str) -> Option<Box<str>> {
        Revoked::user_of(Json::parse(json)?)
    }

    /// Appends the user as a string of JSON. False if there is none.
    pub(crate) fn write_user(&self, out: &mut Vec<u8>) -> bool {
        Json::parse(&self.json).is_some_and(|payload| Revoked::write_user_of(payload, out))
    }

    /// The payload without the times of its token (`iat`, `nbf` and `exp`), so that it can be signed again; `None` if
    /// it is no object.
    pub(crate) fn without_times(&self) -> Option<String> {
        let payload = Json::parse(&self.json).filter(|payload| payload.kind() == Kind::Object)?;
        let mut json = vec![b'{'];
        for (key, value) in payload.members() {
            if ["iat", "nbf", "exp"].into_iter().any(|time| key.is(time)) {
                continue;
            }
            if json.len() > 1 {
                json.push(b',');
            }
            write_string(key.units(), &mut json);
            json.push(b':');
            value.write(&mut json).ok()?;
        }
        json.push(b'}');
        String::from_utf8(json).ok()
    }

    /// The payload as a value of a Rust type.
    pub fn value<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.json)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_written_as_it_is_read() {
        let long = format!(r#"{{"sub":"{}"}}"#, "x".repeat(5_000));
        for json in [
            r#"{"sub":"ann"}"#,
            r#"{"sub":"a\"\u00e9\n\u0001é"}"#,
            r#"{"sub":"\ud83d\ude00"}"#,
            r#"{"sub":"\ud800"}"#,
            r#"{"sub":""}"#,
            r#"{"sub":7,"sub":1.50}"#,
            r#"{"sub":1e400}"#,
            r#"{"sub":true}"#,
            r#"{"sub":null}"#,
            r#"{"sub":["ann"]}"#,
            r#"{"user":"ann"}"#,
            r#""ann""#,
            &long,
        ] {
            let claims = Claims::trusted(json.to_owned(), None);
            let mut written = Vec::new();
            let is_written = claims.write_user(&mut written);
            let read = claims.user().and_then(|user| serde_json::to_string(&user).ok());
            let written = is_written.then(|| String::from_utf8(written).unwrap());
            assert_eq!(written, read, "{json}");
        }
    }

    #[test]
    fn claims_without_times_have_all_other_members_in_their_order() {
        for (json, expected) in [
            (
                r#"{"sub":"ann","iat":1,"z":[1.50,{"exp":2}],"exp":3,"a":"\u00e9\ud800","nbf":4}"#,
                Some(r#"{"sub":"ann","z":[1.5,{"exp":2}],"a":"é\ud800"}"#),
            ),
            (r#"{"exp":3}"#, Some("{}")),
            (r#""ann""#, None),
            ("[1]", None),
        ] {
            let claims = Claims::trusted(json.to_owned(), Some(3.0));
            assert_eq!(claims.without_times().as_deref(), expected, "{json}");
        }
    }
}
