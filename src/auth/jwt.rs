//! JSON Web Tokens: verifying, decoding and signing.
//!
//! [`Tokens::verify`] checks in the order of jsonwebtoken's `verify.js`, since the first check that fails
//! decides which error the client gets. Its leniency is part of the contract: trailing bits of base64 are
//! ignored (except in an HMAC, which is compared as text), and the payload of a token without `typ: JWT` need
//! not be JSON. Revocation, which the reference does not have, is checked last. Two checks are stricter than
//! the reference's, since the standards demand it: a header with `crit`, or with a `b64` other than true, is
//! refused (no extension is supported here), and times are compared with their fractions (`NumericDate`, RFC
//! 7519 section 2), where jsonwebtoken truncates the current time to seconds.
//!
//! Limits: a token is no longer than a message (`message_bytes_max`); the work is linear in its length.
//!
//! Wire reference, section 8.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};

use super::claims::Claims;
use super::demands::Demands;
use super::error::{SignError, TokenError};
use super::json::{self, Json, Kind, TooDeep};
use super::json_fault;
use super::jwks::KeySet;
use super::key::{Key, Signer};
use super::keyring::{FetchRequest, KEYS_TRIED_MAX, Keyring};
use super::keys::{Algorithm, KeyError, SigningKey, VerifyingKey, VerifyingKeys};
use super::revocation::Revocations;

/// Keys and algorithms for signing and verifying tokens, the demands on tokens, and the revocations.
/// Immutable: all cores share one value. A clone is cheap, since its parts are shared.
#[derive(Clone, Default)]
pub struct Tokens {
    keyring: Keyring,
    demands: Arc<Demands>,
    revocations: Revocations,
}

impl Tokens {
    /// Makes tokens with one shared secret. They sign HS256 and verify HS256, HS384 and HS512, or use only
    /// the given algorithm for both.
    pub fn from_secret(secret: &[u8], algorithm: Option<Algorithm>) -> Result<Tokens, KeyError> {
        let verifying = VerifyingKeys::from_secret(secret, algorithm)?;
        let signs = verifying.preferred();
        let signer = Signer::new(None, signs, SigningKey::from_secret(secret, signs)?);
        Ok(Tokens::with_own(Key::new(None, verifying), Some(signer)))
    }

    /// Makes tokens with keys in PEM. Without an algorithm, an RSA key verifies all RS and PS algorithms and
    /// signs RS256; an elliptic curve has only one algorithm. Without a private key, signing fails with
    /// [`SignError::NoPrivateKey`].
    pub fn from_pem(
        private_pem: Option<&str>,
        public_pem: &str,
        algorithm: Option<Algorithm>,
    ) -> Result<Tokens, KeyError> {
        let verifying = VerifyingKeys::from_public_pem(public_pem, algorithm)?;
        let signs = verifying.preferred();
        let Some(private_pem) = private_pem else {
            return Ok(Tokens::with_own(Key::new(None, verifying), None));
        };
        let signer = Signer::new(None, signs, SigningKey::from_private_pem(private_pem, signs)?);
        let key = Key::new(None, verifying);
        if !signer.is_paired_with(&key) {
            return Err(KeyError::NotAPair);
        }
        Ok(Tokens::with_own(key, Some(signer)))
    }

    fn with_own(key: Key, signer: Option<Signer>) -> Tokens {
        Tokens {
            keyring: Keyring::new(key, signer),
            ..Tokens::default()
        }
    }

    /// Gives the own key an id. Signed tokens carry the id in their header, and tokens that name it are
    /// verified only with this key. Tokens that name no key can still be verified with it.
    #[must_use]
    pub fn with_key_id(mut self, id: &str) -> Tokens {
        self.keyring.name_own(id);
        self
    }

    /// Adds a set of keys of this server. If there is no signing key yet, the key with the id `signs_with`
    /// signs, or without that id the first key that can. `None` if no key with that id can sign.
    #[must_use]
    pub fn with_set(mut self, set: KeySet, signs_with: Option<&str>) -> Option<Tokens> {
        self.keyring.add_file(set, signs_with).then_some(self)
    }

    /// Turns on fetching of keys: a token with an unknown key is then refused only for the moment, and
    /// `fetch_request` asks for a fetch.
    #[must_use]
    pub fn with_fetch_request(mut self, fetch_request: Arc<FetchRequest>) -> Tokens {
        self.keyring.fetch_request = Some(fetch_request);
        self
    }

    /// The same tokens with newly fetched keys instead of the former ones.
    #[must_use]
    pub fn with_fetched(mut self, set: Arc<KeySet>) -> Tokens {
        self.keyring.set_fetched(set);
        self
    }

    /// The same tokens with these demands.
    #[must_use]
    pub fn with_demands(mut self, demands: Demands) -> Tokens {
        self.demands = Arc::new(demands);
        self
    }

    /// The same tokens with these revocations.
    #[must_use]
    pub fn with_revocations(mut self, revocations: Revocations) -> Tokens {
        self.revocations = revocations;
        self
    }

    /// The keys of this server's file.
    pub fn file(&self) -> Option<&Arc<KeySet>> {
        self.keyring.file()
    }

    /// How many keys of all sets are unused; `None` without sets.
    pub fn unused_key_count(&self) -> Option<usize> {
        let sets = [self.keyring.file(), self.keyring.fetched()];
        let counts = sets.into_iter().flatten().map(|set| set.unused_key_count());
        counts.reduce(|all, more| all + more)
    }

    /// The fetched keys.
    pub fn fetched(&self) -> Option<&Arc<KeySet>> {
        self.keyring.fetched()
    }

    /// The flag that asks for a fetch of unknown keys.
    pub fn fetch_request(&self) -> Option<&Arc<FetchRequest>> {
        self.keyring.fetch_request.as_ref()
    }

    /// The demands on tokens.
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// The revocations in force.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// True if there is a signing key.
    pub fn can_sign(&self) -> bool {
        self.keyring.signer.is_some()
    }

    /// The claims of a token, if it is valid at `unix_ms`, in milliseconds since 1970.
    pub fn verify(&self, token: &str, unix_ms: u64) -> Result<Claims, TokenError> {
        let parts = Parts::split(token)?;
        let header = decode_latin1(parts.header);
        let header = Json::parse(&header)
            .filter(|header| header.is_truthy())
            .ok_or(TokenError::Invalid)?;
        check_critical(header)?;
        let payload = Payload::decode(header, parts.payload)?;
        if parts.signature.is_empty() {
            return Err(TokenError::SignatureRequired);
        }
        self.verify_signature(header, &parts)?;
        self.claims(payload.into_json(), unix_ms)
    }

    /// Signs a token with the given claims, the text of a JSON object. The claims are printed anew,
    /// compactly, as JavaScript would do. `iat` follows the given members, unless it is among them. With
    /// `expires_in` seconds and no `exp` among the claims, `exp` comes last.
    pub fn sign(&self, claims: &str, expires_in: Option<u64>, unix_ms: u64) -> Result<String, SignError> {
        Ok(self.issue(claims, expires_in, unix_ms)?.token)
    }

    /// As [`Tokens::sign`], but also returns the claims, which the connection that gets the token keeps.
    pub fn issue(&self, claims: &str, expires_in: Option<u64>, unix_ms: u64) -> Result<Issued, SignError> {
        let signer = self.keyring.signer.as_ref().ok_or(SignError::NoPrivateKey)?;
        let claims = claims_to_sign(claims, expires_in, unix_ms, &self.demands)?;
        let mut header = format!("{{\"alg\":\"{}\",\"typ\":\"JWT\"", signer.algorithm).into_bytes();
        if let Some(id) = signer.id() {
            header.extend_from_slice(b",\"kid\":");
            json::write_string(id.encode_utf16(), &mut header);
        }
        header.push(b'}');
        let mut token = String::new();
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.json(), &mut token);
        let signature = signer.sign(token.as_bytes()).ok_or(SignError::Failed)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(Issued { token, claims })
    }

    /// Whether a token with these claims can be signed.
    ///
    /// # Errors
    /// As [`Tokens::issue`], except for a signing key that fails.
    pub(crate) fn check_claims(
        &self,
        claims: &str,
        expires_in: Option<u64>,
        unix_ms: u64,
    ) -> Result<(), SignError> {
        if !self.can_sign() {
            return Err(SignError::NoPrivateKey);
        }
        claims_to_sign(claims, expires_in, unix_ms, &self.demands).map(|_| ())
    }

    /// True if a revocation applies to a client that was authenticated without a token, such as by its
    /// certificate.
    pub(crate) fn are_revoked(&self, claims: &Claims, unix_ms: u64) -> bool {
        self.is_revoked(claims.json(), unix_ms)
    }

    /// True if a revocation applies to a client that had these claims, a JSON text.
    pub(crate) fn is_revoked(&self, claims: &str, unix_ms: u64) -> bool {
        !self.revocations.is_empty()
            && Json::parse(claims).is_some_and(|payload| self.revocations.apply_to(payload, unix_ms / 1000))
    }

    /// The checks that follow the check of the signature.
    fn claims(&self, json: String, unix_ms: u64) -> Result<Claims, TokenError> {
        let payload = Json::parse(&json).ok_or(TokenError::Invalid)?;
        if payload.kind() == Kind::Null {
            return Err(TokenError::PayloadNull);
        }
        let expires_at = self.demands.check(payload, exact_seconds(unix_ms))?;
        if self.revocations.apply_to(payload, unix_ms / 1000) {
            return Err(TokenError::Revoked);
        }
        Ok(Claims::new(json, expires_at, self.demands.leeway_seconds))
    }

    fn verify_signature(&self, header: Json<'_>, parts: &Parts<'_>) -> Result<(), TokenError> {
        let Some(Kind::String(name)) = header.member("alg").map(Json::kind) else {
            return Err(TokenError::InvalidAlgorithm);
        };
        let name = String::from_utf16_lossy(&name.units());
        let (keys, may_come) = self.keyring.candidates(header);
        if keys.is_empty() {
            if may_come && let Some(fetch_request) = &self.keyring.fetch_request {
                fetch_request.request();
            }
            return Err(TokenError::UnknownKey { may_come });
        }
        let suitable = keys.into_iter().filter_map(|key| key.verifying.find(&name));
        let mut error = TokenError::InvalidAlgorithm;
        for (algorithm, key) in suitable.take(KEYS_TRIED_MAX) {
            match verify_with(algorithm, key, parts) {
                Ok(()) => return Ok(()),
                Err(why) => error = why,
            }
        }
        Err(error)
    }
}

/// Refuses a header that demands extensions, since none is supported (RFC 7515 section 4.1.11), or that says
/// that the payload is signed without base64 (RFC 7797 section 3).
fn check_critical(header: Json<'_>) -> Result<(), TokenError> {
    let encodes = header
        .member("b64")
        .is_none_or(|encodes| encodes.kind() == Kind::Bool(true));
    if header.member("crit").is_none() && encodes {
        Ok(())
    } else {
        Err(TokenError::Critical)
    }
}

fn verify_with(algorithm: Algorithm, key: &VerifyingKey, parts: &Parts<'_>) -> Result<(), TokenError> {
    let genuine = match key {
        VerifyingKey::Secret(key) => {
            // Compared as texts, so that only the canonical text of a tag is accepted, and in constant time.
            let tag = hmac::sign(key, parts.signed.as_bytes());
            let tag = URL_SAFE_NO_PAD.encode(tag);
            verify_slices_are_equal(tag.as_bytes(), parts.signature.as_bytes())
        }
        VerifyingKey::Public(key) => {
            let signature = decode(parts.signature);
            if algorithm
                .signature_bytes()
                .is_some_and(|due| due != signature.len())
            {
                let bytes = signature.len();
                return Err(TokenError::SignatureLength { algorithm, bytes });
            }
            key.verify_sig(parts.signed.as_bytes(), &signature)
        }
        VerifyingKey::OtherCurve => return Err(TokenError::WrongCurve(algorithm)),
    };
    genuine.map_err(|_| TokenError::InvalidSignature)
}

impl fmt::Debug for Tokens {
    /// Only names of algorithms, no keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signs = self.keyring.signer.as_ref().map(|signer| signer.algorithm);
        f.debug_struct("Tokens")
            .field("signs", &signs)
            .field("verifies", &self.keyring.algorithms())
            .finish_non_exhaustive()
    }
}

/// A newly signed token.
pub struct Issued {
    /// The token's text.
    pub token: String,
    /// Its claims, including `iat` and `exp`.
    pub claims: Claims,
}

/// A random id for a token: the claim `jti`, by which a single token can be revoked. 128 bits; `None` if the
/// system has no random bytes.
pub fn new_token_id() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The parts of a token of the right form: three texts in base64url, the last of which may be empty.
struct Parts<'a> {
    /// Header and payload with the dot between them.
    signed: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Parts<'a>, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if header.is_empty() || payload.is_empty() || !token.bytes().all(in_alphabet) {
            return Err(TokenError::Invalid);
        }
        Ok(Parts {
            signed,
            header,
            payload,
            signature,
        })
    }
}

/// A payload whose signature has not been checked yet.
enum Payload {
    Json(String),
    /// Not JSON, or not declared as JSON.
    Text(String),
}

impl Payload {
    fn decode(header: Json<'_>, encoded: &str) -> Result<Payload, TokenError> {
        let bytes = decode(encoded);
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        let is_jwt = matches!(header.member("typ").map(Json::kind), Some(Kind::String(typ)) if typ.is("JWT"));
        match (is_jwt, Json::parse(&text).map(Json::kind)) {
            (true, Some(_)) | (false, Some(Kind::Object | Kind::Array)) => Ok(Payload::Json(text)),
            (true, None) => {
                let message = json_fault::message(&text).unwrap_or_default();
                Err(TokenError::PayloadNotJson(message.into_boxed_slice()))
            }
            (false, Some(Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::String(_)) | None) => {
                Ok(Payload::Text(text))
            }
        }
    }

    fn into_json(self) -> String {
        match self {
            Payload::Json(json) => json,
            Payload::Text(text) => {
                let mut json = Vec::with_capacity(text.len() + 2);
                json::write_string(text.encode_utf16(), &mut json);
                String::from_utf8_lossy(&json).into_owned()
            }
        }
    }
}

/// The claims of a new token, made as jsonwebtoken's `sign.js` makes them when the reference's `setAuthToken`
/// calls it.
fn claims_to_sign(
    claims: &str,
    expires_in: Option<u64>,
    unix_ms: u64,
    demands: &Demands,
) -> Result<Claims, SignError> {
    let claims = Json::parse(claims).ok_or(SignError::NotJson)?;
    if claims.kind() != Kind::Object {
        return Err(SignError::NotAnObject);
    }
    let number = |name| match claims.member(name).map(Json::kind) {
        None => Ok(None),
        Some(Kind::Number(number)) => Ok(Some(number)),
        Some(Kind::Null | Kind::Bool(_) | Kind::String(_) | Kind::Array | Kind::Object) => {
            Err(SignError::NotANumber)
        }
    };
    let (given_iat, given_exp) = (number("iat")?, number("exp")?);
    number("nbf")?;
    // A given `iat` of 0 counts as missing, but keeps its position.
    let issued_at = given_iat
        .filter(|&iat| iat != 0.0)
        .unwrap_or_else(|| seconds(unix_ms));

    let mut payload = vec![b'{'];
    let begin_member = |payload: &mut Vec<u8>| {
        if payload.len() > 1 {
            payload.push(b',');
        }
    };
    for (key, value) in claims.members() {
        begin_member(&mut payload);
        json::write_string(key.units(), &mut payload);
        payload.push(b':');
        if key.is("iat") {
            json::write_number(issued_at, &mut payload);
        } else {
            value.write(&mut payload).map_err(|TooDeep| SignError::TooDeep)?;
        }
    }
    if given_iat.is_none() {
        begin_member(&mut payload);
        payload.extend_from_slice(b"\"iat\":");
        json::write_number(issued_at, &mut payload);
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "JavaScript's numbers have that precision"
    )]
    let added_exp = expires_in
        .filter(|_| given_exp.is_none())
        .map(|expires_in| issued_at + expires_in as f64);
    if let Some(exp) = added_exp {
        payload.extend_from_slice(b",\"exp\":");
        json::write_number(exp, &mut payload);
    }
    demands.write_missing(claims, &mut payload);
    payload.push(b'}');
    let json = String::from_utf8(payload).expect("put together from valid texts");
    Ok(Claims::new(json, given_exp.or(added_exp), demands.leeway_seconds))
}

/// Seconds with their fraction.
#[expect(clippy::cast_precision_loss, reason = "times are far below 2⁵³")]
fn exact_seconds(unix_ms: u64) -> f64 {
    unix_ms as f64 / 1000.0
}

/// Whole seconds, as JavaScript's number.
#[expect(clippy::cast_precision_loss, reason = "times are far below 2⁵³")]
fn seconds(unix_ms: u64) -> f64 {
    (unix_ms / 1000) as f64
}

/// Decodes text of the base64url alphabet as Node's `Buffer` does: trailing bits are ignored, and so is a
/// lone last character, which does not make a whole byte.
fn decode(encoded: &str) -> Vec<u8> {
    let whole = match encoded.len() % 4 {
        1 => &encoded[..encoded.len() - 1],
        _ => encoded,
    };
    // Cannot fail: the alphabet has been checked, and the length is right.
    LENIENT.decode(whole).unwrap_or_default()
}

/// Makes one character of each byte, as Node's `binary` encoding does.
fn decode_latin1(encoded: &str) -> String {
    decode(encoded).into_iter().map(char::from).collect()
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
);
