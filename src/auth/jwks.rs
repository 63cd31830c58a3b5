//! Sets of keys in JSON: RFC 7517, RFC 7518 section 6, RFC 8037 section 2.
//!
//! Of each key only what is needed to verify and sign is looked at: `kty`, `crv`, its numbers, `kid`, `alg`, `use` and
//! `key_ops`. Certificates (`x5c`, `x5u`, `x5t`) are not: who may sign is said by whoever keeps the set, not by a chain.
//!
//! Invariants
//! 1. One key that cannot be used does not keep the others from being used (RFC 7517 section 5): it is left out, and named.
//!    The same for what a key could do besides: one with broken private numbers still verifies.
//! 2. A key verifies with its own `alg` alone; without one, with those of its kind and curve, and a secret only with
//!    hashes that are no longer than it is (RFC 7518 section 3.2).
//! 3. A set that came from elsewhere holds public keys alone: nothing in it signs, and a secret in it is left out.
//!
//! Ids need not be unique (RFC 7517 section 4.5): two keys of different kinds may share one, and while keys change, two of
//! the same kind do.
//!
//! Limits: `KEYS_MAX` keys, as many that are named as left out; ids of up to `KEY_ID_BYTES_MAX` bytes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::keyring::{Key, Signer};
use super::keys::{Algorithm, Family, KeyError, SigningKey, VerifyingKeys};

/// The keys of one set.
pub struct KeySet {
    pub(super) keys: Vec<SetKey>,
    left_out: Vec<LeftOut>,
    left_out_count: usize,
}

/// One of them.
pub(super) struct SetKey {
    pub(super) key: Arc<Key>,
    /// How it signs, if it can.
    pub(super) signer: Option<Arc<Signer>>,
}

/// Whose set it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOrigin {
    /// A file of this server: secrets and private keys in it are to be used.
    Own,
    /// Fetched from another server.
    Fetched,
}

/// A key of a set that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its place in the set, from 1.
    pub place: usize,
    /// Its id, if it has one that may be printed.
    pub id: Option<String>,
    /// Why.
    pub reason: Unused,
}

/// Why a key is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unused {
    /// It is for something else: `use` or `key_ops` say so.
    OtherPurpose,
    /// Its `kty` or `crv` is none of RSA, EC (P-256, P-384, P-521), OKP (Ed25519) and oct.
    Kind,
    /// Its `alg` is not known.
    Algorithm,
    /// A secret in a set that was fetched: whoever can fetch it could sign.
    SecretFetched,
    /// It is wrong: what about it.
    Broken(&'static str),
    /// It verifies, but its private numbers cannot be used: why.
    SigningBroken(&'static str),
    /// Behind `KEYS_MAX` others.
    TooMany,
}

/// Why a text is no set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetError {
    /// Not JSON with a list `keys`.
    NotASet(String),
    /// No key that could be used; why, of the first.
    NoKey(Option<LeftOut>),
}

impl KeySet {
    /// Reads a set.
    ///
    /// # Errors
    /// The set cannot be used as a whole. A single key that cannot is left out: see [`KeySet::left_out`].
    pub fn parse(text: &str, origin: SetOrigin) -> Result<KeySet, KeySetError> {
        let set: Set<'_> =
            serde_json::from_str(text).map_err(|error| KeySetError::NotASet(error.to_string()))?;
        let mut read = KeySet {
            keys: Vec::new(),
            left_out: Vec::new(),
            left_out_count: 0,
        };
        for (index, json) in set.keys.iter().enumerate() {
            let jwk = serde_json::from_str::<Jwk<'_>>(json.get());
            let id = jwk.as_ref().ok().and_then(|jwk| jwk.kid.as_deref());
            let key = match &jwk {
                _ if read.keys.len() >= KEYS_MAX => Err(Unused::TooMany),
                Ok(jwk) => jwk.read(origin),
                Err(_) => Err(Unused::Broken(
                    "it is not a JSON object with a kty, whose members are texts and stand there once",
                )),
            };
            let reason = match key {
                Ok((key, flaw)) => {
                    read.keys.push(key);
                    flaw
                }
                Err(reason) => Some(reason),
            };
            if let Some(reason) = reason {
                read.left_out_count += 1;
                if read.left_out.len() < KEYS_MAX {
                    read.left_out.push(LeftOut {
                        place: index + 1,
                        id: id.map(printable),
                        reason,
                    });
                }
            }
        }
        if read.keys.is_empty() {
            return Err(KeySetError::NoKey(read.left_out.into_iter().next()));
        }
        Ok(read)
    }

    /// How many keys there are.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Keys that are not used, or used for less than they say: the first hundred of them.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// How many they are in all.
    pub fn left_out_count(&self) -> usize {
        self.left_out_count
    }
}

impl fmt::Debug for KeySet {
    /// Ids and algorithms, no keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.keys.iter().map(|key| &key.key))
            .finish()
    }
}

impl LeftOut {
    /// Whether somebody has to look at it; else it is for another purpose or of a kind that nobody here needs.
    pub fn is_fault(&self) -> bool {
        match self.reason {
            Unused::Broken(_) | Unused::SigningBroken(_) | Unused::TooMany => true,
            Unused::OtherPurpose | Unused::Kind | Unused::Algorithm | Unused::SecretFetched => false,
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "key {}", self.place)?;
        if let Some(id) = &self.id {
            write!(formatter, " (kid {id:?})")?;
        }
        let why = match self.reason {
            Unused::OtherPurpose => "its use or key_ops say that it is not for signatures",
            Unused::Kind => "its kty or crv is none of RSA, EC (P-256, P-384, P-521), OKP (Ed25519) and oct",
            Unused::Algorithm => "its alg is not known",
            Unused::SecretFetched => "a secret (oct) in a set that was fetched is not trusted",
            Unused::Broken(why) => why,
            Unused::SigningBroken(why) => return write!(formatter, " verifies and cannot sign: {why}"),
            Unused::TooMany => return write!(formatter, " is not used: {KEYS_MAX} before it are"),
        };
        write!(formatter, " is not used: {why}")
    }
}

impl fmt::Display for KeySetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySetError::NotASet(cause) => {
                write!(formatter, "not a set of keys, {{\"keys\":[…]}}: {cause}")
            }
            KeySetError::NoKey(None) => formatter.write_str("there is no key in it"),
            KeySetError::NoKey(Some(first)) => write!(formatter, "there is no key in it to use; {first}"),
        }
    }
}

impl std::error::Error for KeySetError {}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// A key as it is written.
#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    kid: Option<Cow<'a, str>>,
    alg: Option<Cow<'a, str>>,
    #[serde(rename = "use")]
    purpose: Option<Cow<'a, str>>,
    key_ops: Option<Vec<Cow<'a, str>>>,
    crv: Option<Cow<'a, str>>,
    x: Option<Cow<'a, str>>,
    y: Option<Cow<'a, str>>,
    n: Option<Cow<'a, str>>,
    e: Option<Cow<'a, str>>,
    d: Option<Cow<'a, str>>,
    p: Option<Cow<'a, str>>,
    q: Option<Cow<'a, str>>,
    dp: Option<Cow<'a, str>>,
    dq: Option<Cow<'a, str>>,
    qi: Option<Cow<'a, str>>,
    oth: Option<&'a RawValue>,
    k: Option<Cow<'a, str>>,
}

impl Jwk<'_> {
    /// The key, and what is not right with it although it is used.
    fn read(&self, origin: SetOrigin) -> Result<(SetKey, Option<Unused>), Unused> {
        let signs = self.purposes()?;
        let family = self.family()?;
        if self.kid.as_ref().is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return Err(Unused::Broken("its kid is longer than 256 bytes"));
        }
        let only = match &self.alg {
            None => None,
            Some(name) => Some(name.parse::<Algorithm>().map_err(|_| Unused::Algorithm)?),
        };
        if only.is_some_and(|only| only.family() != family) {
            return Err(Unused::Broken("its alg needs another kind of key"));
        }
        let signs = signs && origin == SetOrigin::Own;
        let (verifying, signing) = match family {
            Family::Secret if origin == SetOrigin::Fetched => return Err(Unused::SecretFetched),
            Family::Secret => self.secret(only, signs)?,
            Family::Rsa => self.rsa(only, signs)?,
            Family::P256 | Family::P384 | Family::P521 | Family::Ed25519 => self.curve(family, signs)?,
        };
        let (signing, mut flaw) = match signing {
            Ok(signing) => (signing, None),
            Err(Unused::Broken(why)) => (None, Some(Unused::SigningBroken(why))),
            Err(other) => return Err(other),
        };
        let id = self.kid.as_deref().map(str::to_owned);
        let algorithm = verifying.preferred();
        let key = Arc::new(Key::new(id.clone(), verifying));
        let mut signer = signing.map(|signing| Arc::new(Signer::new(id, algorithm, signing)));
        if signer.as_ref().is_some_and(|signer| !signer.is_paired_with(&key)) {
            signer = None;
            flaw = Some(Unused::SigningBroken(
                "its private and its public numbers do not belong together",
            ));
        }
        Ok((SetKey { key, signer }, flaw))
    }

    /// Whether it may sign, if it can; an error if it is not for signatures at all.
    fn purposes(&self) -> Result<bool, Unused> {
        if self.purpose.as_ref().is_some_and(|purpose| purpose != "sig") {
            return Err(Unused::OtherPurpose);
        }
        let Some(operations) = &self.key_ops else {
            return Ok(true);
        };
        let may = |operation: &str| operations.iter().any(|allowed| allowed == operation);
        // One that may sign verifies what it has signed.
        if !may("sign") && !may("verify") {
            return Err(Unused::OtherPurpose);
        }
        Ok(may("sign"))
    }

    fn family(&self) -> Result<Family, Unused> {
        match (&*self.kty, self.crv.as_deref()) {
            ("oct", _) => Ok(Family::Secret),
            ("RSA", _) => Ok(Family::Rsa),
            ("EC", Some("P-256")) => Ok(Family::P256),
            ("EC", Some("P-384")) => Ok(Family::P384),
            ("EC", Some("P-521")) => Ok(Family::P521),
            ("OKP", Some("Ed25519")) => Ok(Family::Ed25519),
            _ => Err(Unused::Kind),
        }
    }

    fn secret(&self, only: Option<Algorithm>, signs: bool) -> Result<Halves, Unused> {
        let secret = bytes(self.k.as_ref(), "its k is not base64url")?;
        let asked = only.map_or_else(|| Family::Secret.algorithms().to_vec(), |only| vec![only]);
        let algorithms: Vec<Algorithm> = asked
            .into_iter()
            .filter(|algorithm| {
                algorithm
                    .hash_bytes()
                    .is_some_and(|needed| secret.len() >= needed)
            })
            .collect();
        let Some(&preferred) = algorithms.first() else {
            return Err(Unused::Broken(
                "its k is shorter than the hash of its algorithm, 32 bytes for HS256 (RFC 7518 section 3.2)",
            ));
        };
        let verifying = VerifyingKeys::of_secret(&secret, &algorithms).map_err(broken)?;
        let signing = signs.then(|| SigningKey::from_secret(&secret, preferred));
        Ok((verifying, Ok(signing.transpose().map_err(broken)?)))
    }

    fn rsa(&self, only: Option<Algorithm>, signs: bool) -> Result<Halves, Unused> {
        let algorithms = only.map_or_else(|| Family::Rsa.algorithms().to_vec(), |only| vec![only]);
        let number = |text: &Option<Cow<'_, str>>, fault| Ok(without_zeros(bytes(text.as_ref(), fault)?));
        let public_key = PublicKeyComponents {
            n: number(&self.n, "its n is not base64url")?,
            e: number(&self.e, "its e is not base64url")?,
        };
        let der: Result<PublicKeyX509Der<'_>, _> = public_key.as_der();
        let der = der.map_err(|_| broken(KeyError::PublicKey))?;
        let verifying = VerifyingKeys::of_public(der.as_ref(), Family::Rsa, &algorithms).map_err(broken)?;
        if !signs || self.d.is_none() {
            return Ok((verifying, Ok(None)));
        }
        let signing = || {
            if self.oth.is_some() {
                return Err(Unused::Broken("RSA keys of more than two primes cannot be used"));
            }
            let fault = "its p, q, dp, dq and qi are needed to sign, in base64url";
            let components = KeyPairComponents {
                public_key,
                d: number(&self.d, fault)?,
                p: number(&self.p, fault)?,
                q: number(&self.q, fault)?,
                dP: number(&self.dp, fault)?,
                dQ: number(&self.dq, fault)?,
                qInv: number(&self.qi, fault)?,
            };
            SigningKey::from_rsa(&components, verifying.preferred())
                .map(Some)
                .map_err(broken)
        };
        let signing = signing();
        Ok((verifying, signing))
    }

    fn curve(&self, family: Family, signs: bool) -> Result<Halves, Unused> {
        // On a curve there is one algorithm, and an `alg` that is there has been found to be that one.
        let algorithms = &family.algorithms()[..1];
        let fault = "its x or y is not base64url of the length of its curve";
        let x = bytes(self.x.as_ref(), fault)?;
        let mut public = Vec::new();
        if family == Family::Ed25519 {
            public.extend_from_slice(&x);
        } else {
            let y = bytes(self.y.as_ref(), fault)?;
            public.push(UNCOMPRESSED);
            public.extend_from_slice(&x);
            public.extend_from_slice(&y);
            let due = algorithms[0].signature_bytes().unwrap_or_default() / 2;
            if x.len() != due || y.len() != due {
                return Err(Unused::Broken(fault));
            }
        }
        let verifying = VerifyingKeys::of_public(&public, family, algorithms).map_err(broken)?;
        if !signs || self.d.is_none() {
            return Ok((verifying, Ok(None)));
        }
        let private = bytes(self.d.as_ref(), "its d is not base64url");
        let signing = private.and_then(|private| {
            SigningKey::from_curve(&private, &public, algorithms[0])
                .map(Some)
                .map_err(broken)
        });
        Ok((verifying, signing))
    }
}

/// What verifies, and what signs, if anything is to and can.
type Halves = (VerifyingKeys, Result<Option<SigningKey>, Unused>);

fn bytes(text: Option<&Cow<'_, str>>, fault: &'static str) -> Result<Vec<u8>, Unused> {
    let text = text.ok_or(Unused::Broken(fault))?;
    URL_SAFE_NO_PAD
        .decode(&**text)
        .ok()
        .filter(|bytes| !bytes.is_empty())
        .ok_or(Unused::Broken(fault))
}

/// Some write a number with the zero in front that DER wants.
fn without_zeros(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.drain(..zeros);
    bytes
}

fn broken(error: KeyError) -> Unused {
    Unused::Broken(match error {
        KeyError::EmptySecret => "its k is empty",
        KeyError::SecretIsPem => "its k is the text of a PEM key",
        KeyError::PublicKey => {
            "its public numbers are no key of RSA (2048 to 8192 bits), P-256, P-384, P-521 or Ed25519"
        }
        KeyError::PrivateKey | KeyError::EncryptedPrivateKey => "its private numbers are no key",
        KeyError::NotAPair => "its private and its public numbers do not belong together",
        KeyError::Algorithm(_) => "its alg needs another kind of key",
    })
}

/// An id for logs: others choose ids.
fn printable(id: &str) -> String {
    id.chars().take(64).collect()
}

/// What an uncompressed point begins with (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Most keys of a set.
const KEYS_MAX: usize = 100;
/// Longest id of a key.
pub(super) const KEY_ID_BYTES_MAX: usize = 256;
