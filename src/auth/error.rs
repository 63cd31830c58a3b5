//! Why a token was refused or not made, in the words that clients of the reference get.
//!
//! Wire reference, section 8: the table of checks.

use std::borrow::Cow;
use std::fmt;

use super::date;
use super::json;
use super::keys::Algorithm;

/// Why a token was refused. The variants stand in the order of the checks.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenError {
    /// The token is neither a string nor `null`. The session finds this, not
    /// [`Tokens::verify`](super::Tokens::verify).
    NotAString,
    /// The token is empty or `null`.
    Missing,
    /// Not three parts.
    Malformed,
    /// Characters outside of base64url, an empty part, or a header that is not JSON or is falsy in
    /// JavaScript.
    Invalid,
    /// The header demands extensions, or says that the payload is not base64.
    Critical,
    /// The header says `typ: JWT`, but the payload is not JSON. The text is the error message of Node's
    /// parser, in UTF-16.
    PayloadNotJson(Box<[u16]>),
    /// The signature is empty.
    SignatureRequired,
    /// The header's `alg` is not allowed, or missing.
    InvalidAlgorithm,
    /// The header names an unknown key, or has an invalid `kid`.
    UnknownKey {
        /// True if the key may become known soon, since keys are fetched.
        may_come: bool,
    },
    /// The key is on another curve than that of this algorithm.
    WrongCurve(Algorithm),
    /// The signature does not have the length of this ECDSA algorithm.
    SignatureLength {
        /// The algorithm of the header, one of ES256, ES384 and ES512.
        algorithm: Algorithm,
        /// The length found, in bytes.
        bytes: usize,
    },
    /// The signature does not belong to this token and key.
    InvalidSignature,
    /// The payload is `null`.
    PayloadNull,
    /// `nbf` is not a number.
    InvalidNbf,
    /// `nbf` lies in the future.
    NotActive {
        /// The claim, in seconds since 1970; may have a fraction or be infinite.
        nbf: f64,
    },
    /// `exp` is not a number.
    InvalidExp,
    /// `exp` is over.
    Expired {
        /// The claim, in seconds since 1970; may have a fraction or be infinite.
        exp: f64,
    },
    /// `aud` has none of the expected values, which are these.
    InvalidAudience(Box<str>),
    /// `iss` has none of the expected values, which are these.
    InvalidIssuer(Box<str>),
    /// The token is valid but has been revoked.
    Revoked,
}

impl TokenError {
    /// The error's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            TokenError::NotAString
            | TokenError::PayloadNotJson(_)
            | TokenError::WrongCurve(_)
            | TokenError::SignatureLength { .. }
            | TokenError::PayloadNull => "AuthTokenError",
            TokenError::Missing
            | TokenError::Malformed
            | TokenError::Invalid
            | TokenError::Critical
            | TokenError::SignatureRequired
            | TokenError::InvalidAlgorithm
            | TokenError::InvalidSignature
            | TokenError::InvalidNbf
            | TokenError::InvalidExp
            | TokenError::UnknownKey { .. }
            | TokenError::InvalidAudience(_)
            | TokenError::InvalidIssuer(_) => "AuthTokenInvalidError",
            TokenError::NotActive { .. } => "AuthTokenNotBeforeError",
            TokenError::Expired { .. } => "AuthTokenExpiredError",
            TokenError::Revoked => "AuthTokenRevokedError",
        }
    }

    /// The reason in one word, for the log.
    pub fn label(&self) -> &'static str {
        match self {
            TokenError::NotAString => "not_a_string",
            TokenError::Missing => "missing",
            TokenError::Malformed => "malformed",
            TokenError::Invalid => "invalid",
            TokenError::Critical => "critical",
            TokenError::PayloadNotJson(_) | TokenError::PayloadNull => "payload",
            TokenError::SignatureRequired => "signature_missing",
            TokenError::InvalidAlgorithm => "algorithm",
            TokenError::UnknownKey { .. } => "unknown_key",
            TokenError::WrongCurve(_) => "curve",
            TokenError::SignatureLength { .. } => "signature_length",
            TokenError::InvalidSignature => "signature",
            TokenError::InvalidNbf => "nbf",
            TokenError::NotActive { .. } => "not_active",
            TokenError::InvalidExp => "exp",
            TokenError::Expired { .. } => "expired",
            TokenError::InvalidAudience(_) => "audience",
            TokenError::InvalidIssuer(_) => "issuer",
            TokenError::Revoked => "revoked",
        }
    }

    /// The error's message on the wire. Halves of surrogate pairs are replaced here, but not by
    /// [`TokenError::write_json`].
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            TokenError::NotAString => "Invalid token format - Token must be a string",
            TokenError::Missing => "jwt must be provided",
            TokenError::Malformed => "jwt malformed",
            TokenError::Invalid => "invalid token",
            TokenError::Critical => "crit and b64 in the jwt header are not supported",
            TokenError::PayloadNotJson(message) => return Cow::Owned(String::from_utf16_lossy(message)),
            TokenError::SignatureRequired => "jwt signature is required",
            TokenError::InvalidAlgorithm => "invalid algorithm",
            TokenError::WrongCurve(algorithm) => {
                let curve = algorithm.curve().unwrap_or_default();
                return Cow::Owned(format!(
                    "\"alg\" parameter \"{algorithm}\" requires curve \"{curve}\"."
                ));
            }
            TokenError::SignatureLength { algorithm, bytes } => {
                let due = algorithm.signature_bytes().unwrap_or_default();
                return Cow::Owned(format!(
                    "\"{algorithm}\" signatures must be \"{due}\" bytes, saw \"{bytes}\""
                ));
            }
            // The same message as for a wrong signature.
            TokenError::InvalidSignature | TokenError::UnknownKey { .. } => "invalid signature",
            TokenError::PayloadNull => "Cannot read properties of null (reading 'nbf')",
            TokenError::InvalidNbf => "invalid nbf value",
            TokenError::NotActive { .. } => "jwt not active",
            TokenError::InvalidExp => "invalid exp value",
            TokenError::Expired { .. } => "jwt expired",
            TokenError::InvalidAudience(expected) => {
                return Cow::Owned(format!("jwt audience invalid. expected: {expected}"));
            }
            TokenError::InvalidIssuer(expected) => {
                return Cow::Owned(format!("jwt issuer invalid. expected: {expected}"));
            }
            TokenError::Revoked => "jwt revoked",
        })
    }

    /// True if the client must drop the token. False for a token that may become valid later, or with an
    /// extension that another server may support.
    pub fn is_bad_token(&self) -> bool {
        !matches!(
            self,
            TokenError::NotActive { .. } | TokenError::UnknownKey { may_come: true } | TokenError::Critical
        )
    }

    /// Appends the error object as the reference sends it.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"message\":");
        match self {
            TokenError::PayloadNotJson(message) => json::write_string(message.iter().copied(), out),
            TokenError::NotAString
            | TokenError::Missing
            | TokenError::Malformed
            | TokenError::Invalid
            | TokenError::Critical
            | TokenError::SignatureRequired
            | TokenError::InvalidAlgorithm
            | TokenError::WrongCurve(_)
            | TokenError::SignatureLength { .. }
            | TokenError::InvalidSignature
            | TokenError::PayloadNull
            | TokenError::InvalidNbf
            | TokenError::NotActive { .. }
            | TokenError::InvalidExp
            | TokenError::Expired { .. }
            | TokenError::UnknownKey { .. }
            | TokenError::InvalidAudience(_)
            | TokenError::InvalidIssuer(_)
            | TokenError::Revoked => json::write_string(self.message().encode_utf16(), out),
        }
        out.extend_from_slice(b",\"name\":\"");
        out.extend_from_slice(self.name().as_bytes());
        out.push(b'"');
        if let Some((key, seconds)) = self.moment() {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            match date::iso_string(seconds * 1000.0) {
                Some(date) => json::write_string(date.encode_utf16(), out),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b",\"isBadToken\":");
        out.extend_from_slice(if self.is_bad_token() { b"true" } else { b"false" });
        out.push(b'}');
    }

    /// The time in the error object, with its key, in seconds since 1970.
    fn moment(&self) -> Option<(&'static str, f64)> {
        match *self {
            TokenError::NotActive { nbf } => Some(("date", nbf)),
            TokenError::Expired { exp } => Some(("expiry", exp)),
            TokenError::NotAString
            | TokenError::Missing
            | TokenError::Malformed
            | TokenError::Invalid
            | TokenError::Critical
            | TokenError::PayloadNotJson(_)
            | TokenError::SignatureRequired
            | TokenError::InvalidAlgorithm
            | TokenError::WrongCurve(_)
            | TokenError::SignatureLength { .. }
            | TokenError::InvalidSignature
            | TokenError::PayloadNull
            | TokenError::InvalidNbf
            | TokenError::InvalidExp
            | TokenError::UnknownKey { .. }
            | TokenError::InvalidAudience(_)
            | TokenError::InvalidIssuer(_)
            | TokenError::Revoked => None,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for TokenError {}

/// Why a token was not made. The reference closes the connection with 4002 in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// There is only a public key.
    NoPrivateKey,
    /// The claims are not JSON.
    NotJson,
    /// The claims are JSON, but not an object.
    NotAnObject,
    /// `iat`, `exp` or `nbf` is present and not a number.
    NotANumber,
    /// The claims are nested too deeply.
    TooDeep,
    /// The cryptographic library failed.
    Failed,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SignError::NoPrivateKey => "there is no private key for signing",
            SignError::NotJson => "the claims are not JSON",
            SignError::NotAnObject => "the claims are not a JSON object",
            SignError::NotANumber => "iat, exp and nbf must be numbers of seconds",
            SignError::TooDeep => "the claims are nested too deeply",
            SignError::Failed => "the cryptographic library could not sign",
        })
    }
}

impl std::error::Error for SignError {}
