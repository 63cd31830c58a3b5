//! JSON Web Tokens: what a signed text says, and making one.
//!
//! The checks of [`Tokens::verify`] stand in the order of jsonwebtoken's `verify.js`, since the first that fails
//! names the error. Leniency is part of the contract: trailing bits of base64 are ignored (but in an HMAC, which is
//! compared as text), and a payload without `typ: JWT` need not be JSON. What the reference does not have comes last:
//! whether a token has been revoked. Two checks are stricter than the reference's, since the standards leave no choice: a
//! header that has `crit`, or a `b64` other than true, is refused (no extension is known here), and times count with their
//! fractions (`NumericDate`, RFC 7519 section 2), where jsonwebtoken cuts off the clock's.
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
use serde::Deserialize;

use super::demands::Demands;
use super::error::{SignError, TokenError};
use super::json::{self, Json, Kind, TooDeep};
use super::json_fault;
use super::jwks::KeySet;
use super::keyring::{KEYS_TRIED_MAX, Key, Keyring, Signer, WantedKeys};
use super::keys::{Algorithm, KeyError, SigningKey, VerifyingKey, VerifyingKeys};
use super::revocation::Revocations;
use super::rules::{Facts, Rules};

/// Keys and algorithms for signing and verifying tokens, what is demanded of tokens, and which are revoked. Immutable:
/// one serves all cores. A copy is cheap, for its parts are shared.
#[derive(Clone, Default)]
pub struct Tokens {
    keyring: Keyring,
    demands: Arc<Demands>,
    revocations: Revocations,
}

impl Tokens {
    /// For a secret that all share who sign or verify. Signs HS256 and verifies HS256, HS384 and HS512, or does
    /// both with the one algorithm given.
    pub fn from_secret(secret: &[u8], algorithm: Option<Algorithm>) -> Result<Tokens, KeyError> {
        let verifying = VerifyingKeys::from_secret(secret, algorithm)?;
        let signs = verifying.preferred();
        let signer = Signer::new(None, signs, SigningKey::from_secret(secret, signs)?);
        Ok(Tokens::with_own(Key::new(None, verifying), Some(signer)))
    }

    /// For keys in PEM. Without an algorithm, an RSA key verifies all of RS and PS and signs RS256; an elliptic curve
    /// has one algorithm. Without a private key, signing fails with [`SignError::NoPrivateKey`].
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

    /// Gives the own key an id: it is put into the header of what is signed, and tokens that name it are checked with
    /// it alone. Those that name none still are.
    #[must_use]
    pub fn with_key_id(mut self, id: &str) -> Tokens {
        self.keyring.name_own(id);
        self
    }

    /// Adds the keys of a set of this server's. If nothing signs yet, the key of the id `signs_with` does, or the first
    /// that can. `None` if that id is asked for and none of it can sign.
    #[must_use]
    pub fn with_set(mut self, set: KeySet, signs_with: Option<&str>) -> Option<Tokens> {
        self.keyring.add_file(set, signs_with).then_some(self)
    }

    /// Keys are fetched, too: a token with one that is not known is refused for now, not for good, and `wanted` asked.
    #[must_use]
    pub fn with_wanted(mut self, wanted: Arc<WantedKeys>) -> Tokens {
        self.keyring.wanted = Some(wanted);
        self
    }

    /// The same with fetched keys in the place of those fetched before.
    #[must_use]
    pub fn with_fetched(mut self, set: Arc<KeySet>) -> Tokens {
        self.keyring.put_fetched(set);
        self
    }

    /// The same with these demands.
    #[must_use]
    pub fn with_demands(mut self, demands: Demands) -> Tokens {
        self.demands = Arc::new(demands);
        self
    }

    /// The same with this revoked.
    #[must_use]
    pub fn with_revocations(mut self, revocations: Revocations) -> Tokens {
        self.revocations = revocations;
        self
    }

    /// The keys of this server's set.
    pub fn file(&self) -> Option<&Arc<KeySet>> {
        self.keyring.file()
    }

    /// How many keys of all sets are not used; `None` without sets.
    pub fn keys_left_out(&self) -> Option<usize> {
        let sets = [self.keyring.file(), self.keyring.fetched()];
        let counts = sets.into_iter().flatten().map(|set| set.left_out_count());
        counts.reduce(|all, more| all + more)
    }

    /// What was fetched.
    pub fn fetched(&self) -> Option<&Arc<KeySet>> {
        self.keyring.fetched()
    }

    /// Who is asked for keys that are not known.
    pub fn wanted(&self) -> Option<&Arc<WantedKeys>> {
        self.keyring.wanted.as_ref()
    }

    /// What is demanded of tokens.
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// What is revoked.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Whether there is a key to sign with.
    pub fn can_sign(&self) -> bool {
        self.keyring.signer.is_some()
    }

    /// The claims of a token, if it is to be believed at `unix_ms`, in milliseconds since 1970.
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

    /// A token with the given claims, which must be the text of a JSON object; it is printed anew, compactly, as
    /// JavaScript would. `iat` follows the given keys, unless it is one of them. With `expires_in` seconds and no
    /// `exp` among the claims, `exp` comes last.
    pub fn sign(&self, claims: &str, expires_in: Option<u64>, unix_ms: u64) -> Result<String, SignError> {
        Ok(self.issue(claims, expires_in, unix_ms)?.token)
    }

    /// As [`Tokens::sign`], and what a connection that is given this token knows about itself from then on.
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

    /// Whether an operator has revoked what vouches for a client that has shown no token.
    pub(crate) fn are_revoked(&self, claims: &Claims, unix_ms: u64) -> bool {
        Json::parse(claims.json()).is_some_and(|payload| self.revocations.concern(payload, unix_ms / 1000))
    }

    /// The checks that follow the signature's.
    fn claims(&self, json: String, unix_ms: u64) -> Result<Claims, TokenError> {
        let payload = Json::parse(&json).ok_or(TokenError::Invalid)?;
        if payload.kind() == Kind::Null {
            return Err(TokenError::PayloadNull);
        }
        let expires_at = self.demands.check(payload, exact_seconds(unix_ms))?;
        if self.revocations.concern(payload, unix_ms / 1000) {
            return Err(TokenError::Revoked);
        }
        Ok(Claims {
            json,
            expires_at,
            leeway_seconds: self.demands.leeway_seconds,
            facts: None,
        })
    }

    fn verify_signature(&self, header: Json<'_>, parts: &Parts<'_>) -> Result<(), TokenError> {
        let Some(Kind::String(name)) = header.member("alg").map(Json::kind) else {
            return Err(TokenError::InvalidAlgorithm);
        };
        let name = String::from_utf16_lossy(&name.units());
        let (keys, may_come) = self.keyring.candidates(header);
        if keys.is_empty() {
            if may_come && let Some(wanted) = &self.keyring.wanted {
                wanted.ask();
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

/// A header that says that extensions must be understood, of which none is here (RFC 7515 section 4.1.11), or that the
/// payload is signed as it is, without base64 (RFC 7797 section 3).
fn check_critical(header: Json<'_>) -> Result<(), TokenError> {
    let encodes = header
        .member("b64")
        .is_none_or(|encodes| encodes.kind() == Kind::Bool(true));
    match header.member("crit").is_none() && encodes {
        true => Ok(()),
        false => Err(TokenError::Critical),
    }
}

fn verify_with(algorithm: Algorithm, key: &VerifyingKey, parts: &Parts<'_>) -> Result<(), TokenError> {
    let genuine = match key {
        VerifyingKey::Secret(key) => {
            // As texts, so that only the one canonical text of a tag is accepted; in constant time.
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
    /// Names of algorithms, no keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signs = self.keyring.signer.as_ref().map(|signer| signer.algorithm);
        f.debug_struct("Tokens")
            .field("signs", &signs)
            .field("verifies", &self.keyring.algorithms())
            .finish_non_exhaustive()
    }
}

/// What a genuine token says, or who else vouches for a client. `Debug` does not show it.
#[derive(Clone)]
pub struct Claims {
    json: String,
    expires_at: Option<f64>,
    /// What was forgiven when they were checked is forgiven later.
    leeway_seconds: u16,
    /// What rules need to know of them, once they have been asked.
    facts: Option<Box<Facts>>,
}

impl PartialEq for Claims {
    /// Whether they say the same. What has been read out of them follows from that.
    fn eq(&self, other: &Claims) -> bool {
        self.json == other.json && self.expires_at == other.expires_at
    }
}

impl Claims {
    /// What somebody else than a token vouches for: a JSON object, and its claim `exp` in seconds since 1970.
    pub(crate) fn vouched(json: String, expires_at: Option<f64>) -> Claims {
        Claims {
            json,
            expires_at,
            leeway_seconds: 0,
            facts: None,
        }
    }

    /// The payload, as JSON text: as it was signed, byte for byte. Usually an object, but a signer may sign any JSON
    /// value but `null`. What was signed without `typ: JWT` and is neither an object nor an array is a string.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The claim `exp`, in seconds since 1970; may have a fraction or be infinite. It has come when
    /// `unix_ms > expires_at * 1000`, which is a little later than [`Tokens::verify`] has it.
    pub fn expires_at(&self) -> Option<f64> {
        self.expires_at
    }

    /// Whether who is connected by this token is to lose it at `unix_ms`: the moment is later than that at which
    /// [`Tokens::verify`] refuses it by less than a second, as in the reference.
    pub fn has_expired(&self, unix_ms: u64) -> bool {
        self.lost_at()
            .is_some_and(|lost_at| unix_ms as f64 > lost_at * 1000.0)
    }

    /// When that is, in seconds since 1970: `exp` and the leeway.
    pub(crate) fn lost_at(&self) -> Option<f64> {
        let leeway = f64::from(self.leeway_seconds);
        self.expires_at.map(|expires_at| expires_at + leeway)
    }

    /// Whether JavaScript takes the payload for true; only then is a socket of the reference authenticated by it.
    /// False for `0`, `false` and the empty string.
    pub fn is_truthy(&self) -> bool {
        Json::parse(&self.json).is_some_and(Json::is_truthy)
    }

    /// What these rules need to know of them: read at the first call, and again for other rules.
    #[inline]
    pub fn facts(&mut self, rules: &Rules) -> &mut Facts {
        if self.facts.as_ref().is_none_or(|facts| !rules.made(facts)) {
            self.facts = Some(Box::new(rules.facts(&self.json)));
        }
        self.facts.as_mut().expect("the line above has seen to it")
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

/// A new token.
pub struct Issued {
    /// Its text.
    pub token: String,
    /// What it says, `iat` and `exp` included.
    pub claims: Claims,
}

/// An id for a token, the claim `jti`, by which this one alone can be revoked: 128 random bits. `None` if the system has
/// no random bytes.
pub fn new_token_id() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The parts of a token that has the right shape: three of base64url, the last of which may be empty.
struct Parts<'a> {
    /// Header and payload with the point between them.
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

/// A payload before its signature is known to be good.
enum Payload {
    Json(String),
    /// Not JSON, or at least not declared as such.
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
                let said = json_fault::message(&text).unwrap_or_default();
                Err(TokenError::PayloadNotJson(said.into_boxed_slice()))
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

/// The claims of a new token: jsonwebtoken's `sign.js` as the reference's `setAuthToken` calls it.
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
    // A given `iat` of 0 counts as none, but keeps its place.
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
    Ok(Claims {
        json: String::from_utf8(payload).expect("made of what was text, at the boundaries of characters"),
        expires_at: given_exp.or(added_exp),
        leeway_seconds: demands.leeway_seconds,
        facts: None,
    })
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

/// Decodes as Node's `Buffer` does what is in the alphabet already: trailing bits do not matter, and neither does a
/// lone last character, which holds no whole byte.
fn decode(encoded: &str) -> Vec<u8> {
    let whole = match encoded.len() % 4 {
        1 => &encoded[..encoded.len() - 1],
        _ => encoded,
    };
    // The alphabet was checked and the length is right: this cannot fail.
    LENIENT.decode(whole).unwrap_or_default()
}

/// Each byte one character, as Node's `binary` encoding has it.
fn decode_latin1(encoded: &str) -> String {
    decode(encoded).into_iter().map(char::from).collect()
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
);
