//! Sets of keys in JSON: RFC 7517, RFC 7518 section 6, RFC 8037 section 2.
//!
//! Of each key only the members for verifying and signing are read: `kty`, `crv`, its numbers, `kid`, `alg`,
//! `use` and `key_ops`. Certificates (`x5c`, `x5u`, `x5t`) are ignored: the keeper of the set decides which
//! keys are trusted, not a chain of certificates.
//!
//! Invariants
//! 1. A key that cannot be used does not affect the others (RFC 7517 section 5): it is left out and reported.
//!    The same holds for the parts of a key: one with broken private numbers still verifies.
//! 2. A key verifies only with its own `alg`, or without one with the algorithms of its kind and curve. A
//!    secret verifies only with hashes that are no longer than the secret (RFC 7518 section 3.2).
//! 3. Of a fetched set only public keys are used: nothing in it signs, and secrets in it are left out.
//!
//! Ids need not be unique (RFC 7517 section 4.5): two keys of different kinds may share one, and so may two
//! of the same kind while keys are being exchanged.
//!
//! Limits: `KEYS_MAX` keys, and as many unused keys that are reported; ids of up to `KEY_ID_BYTES_MAX` bytes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{Key, Signer};
use super::keys::{Algorithm, Family, KeyError, SigningKey, VerifyingKeys};

/// The keys of one set.
pub struct KeySet {
    pub(super) keys: Vec<SetKey>,
    unused_keys: Vec<UnusedKey>,
    unused_key_count: usize,
}

/// A key of a set.
pub(super) struct SetKey {
    pub(super) key: Arc<Key>,
    /// Its signing half, if it can sign.
    pub(super) signer: Option<Arc<Signer>>,
}

/// Where a set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOrigin {
    /// A file of this server: secrets and private keys in it are used too.
    Own,
    /// Fetched from another server.
    Fetched,
}

/// A key of a set that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedKey {
    /// Its position in the set, from 1.
    pub position: usize,
    /// Its id, in printable form.
    pub id: Option<String>,
    /// Why it is not used.
    pub reason: Unused,
}

/// Why a key is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unused {
    /// `use` or `key_ops` say that it is for another purpose.
    OtherPurpose,
    /// Its `kty` or `crv` is not RSA, EC (P-256, P-384, P-521), OKP (Ed25519) or oct.
    Kind,
    /// Its `alg` is not known.
    Algorithm,
    /// It is a secret in a fetched set: everyone who can fetch the set could sign with it.
    SecretFetched,
    /// It is invalid, for this reason.
    Broken(&'static str),
    /// It verifies, but its private numbers cannot be used, for this reason.
    SigningBroken(&'static str),
    /// It comes after `KEYS_MAX` other keys.
    TooMany,
}

/// Why a text is not a set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetError {
    /// Not JSON with a list `keys`.
    NotASet(String),
    /// It has no usable key. The reason is that of its first key.
    NoKey(Option<UnusedKey>),
}

impl KeySet {
    /// Reads a set.
    ///
    /// # Errors
    /// The set as a whole cannot be used. Single unusable keys are left out: see [`KeySet::unused_keys`].
    pub fn parse(text: &str, origin: SetOrigin) -> Result<KeySet, KeySetError> {
        let set: Set<'_> =
            serde_json::from_str(text).map_err(|error| KeySetError::NotASet(error.to_string()))?;
        let mut read = KeySet {
            keys: Vec::new(),
            unused_keys: Vec::new(),
            unused_key_count: 0,
        };
        for (index, json) in set.keys.iter().enumerate() {
            let jwk = serde_json::from_str::<Jwk<'_>>(json.get());
            let id = jwk.as_ref().ok().and_then(|jwk| jwk.kid.as_deref());
            let key = match &jwk {
                _ if read.keys.len() >= KEYS_MAX => Err(Unused::TooMany),
                Ok(jwk) => jwk.read(origin),
                Err(_) => Err(Unused::Broken(
                    "it is not a JSON object with a kty and with texts as members, each only once",
                )),
            };
            let reason = match key {
                Ok((key, fault_of_signer)) => {
                    read.keys.push(key);
                    fault_of_signer
                }
                Err(reason) => Some(reason),
            };
            if let Some(reason) = reason {
                read.unused_key_count += 1;
                if read.unused_keys.len() < KEYS_MAX {
                    read.unused_keys.push(UnusedKey {
                        position: index + 1,
                        id: id.map(printable),
                        reason,
                    });
                }
            }
        }
        if read.keys.is_empty() {
            return Err(KeySetError::NoKey(read.unused_keys.into_iter().next()));
        }
        Ok(read)
    }

    /// The number of usable keys.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Keys that are not used, or only partly: the first hundred.
    pub fn unused_keys(&self) -> &[UnusedKey] {
        &self.unused_keys
    }

    /// The number of all such keys.
    pub fn unused_key_count(&self) -> usize {
        self.unused_key_count
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

impl UnusedKey {
    /// True if an operator should look at the key. False if it is for another purpose, or of a kind that is
    /// not needed here.
    pub fn is_fault(&self) -> bool {
        match self.reason {
            Unused::Broken(_) | Unused::SigningBroken(_) | Unused::TooMany => true,
            Unused::OtherPurpose | Unused::Kind | Unused::Algorithm | Unused::SecretFetched => false,
        }
    }
}

impl fmt::Display for UnusedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "key {}", self.position)?;
        if let Some(id) = &self.id {
            write!(formatter, " (kid {id:?})")?;
        }
        let why = match self.reason {
            Unused::OtherPurpose => "its use or key_ops say that it is not for signatures",
            Unused::Kind => {
                "its kty or crv is not one of RSA, EC (P-256, P-384, P-521), OKP (Ed25519) and oct"
            }
            Unused::Algorithm => "its alg is unknown",
            Unused::SecretFetched => "a secret (oct) in a fetched set is not trusted",
            Unused::Broken(why) => why,
            Unused::SigningBroken(why) => return write!(formatter, " verifies but cannot sign: {why}"),
            Unused::TooMany => {
                return write!(
                    formatter,
                    " is not used, since the set has {KEYS_MAX} keys before it"
                );
            }
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
            KeySetError::NoKey(None) => formatter.write_str("it contains no key"),
            KeySetError::NoKey(Some(first)) => write!(formatter, "it contains no usable key; {first}"),
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
    /// The key, and a fault in it that does not keep it from being used.
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
        let (signing, mut fault_of_signer) = match signing {
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
            fault_of_signer = Some(Unused::SigningBroken(
                "its private and its public numbers do not belong together",
            ));
        }
        Ok((SetKey { key, signer }, fault_of_signer))
    }

    /// True if the key may sign. An error if it is not for signatures at all.
    fn purposes(&self) -> Result<bool, Unused> {
        if self.purpose.as_ref().is_some_and(|purpose| purpose != "sig") {
            return Err(Unused::OtherPurpose);
        }
        let Some(operations) = &self.key_ops else {
            return Ok(true);
        };
        let may = |operation: &str| operations.iter().any(|allowed| allowed == operation);
        // A key that may sign also verifies its own signatures.
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

    fn secret(&self, only: Option<Algorithm>, signs: bool) -> Result<KeyHalves, Unused> {
        let secret = bytes(self.k.as_ref(), "its k is not base64url")?;
        let candidates = only.map_or_else(|| Family::Secret.algorithms().to_vec(), |only| vec![only]);
        let algorithms: Vec<Algorithm> = candidates
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

    fn rsa(&self, only: Option<Algorithm>, signs: bool) -> Result<KeyHalves, Unused> {
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
            let fault = "signing needs its p, q, dp, dq and qi, in base64url";
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

    fn curve(&self, family: Family, signs: bool) -> Result<KeyHalves, Unused> {
        // A curve has only one algorithm, and an `alg` in the key has been checked to be that one.
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

/// The verifying half of a key, and the signing half if there is one and it may sign.
type KeyHalves = (VerifyingKeys, Result<Option<SigningKey>, Unused>);

fn bytes(text: Option<&Cow<'_, str>>, fault: &'static str) -> Result<Vec<u8>, Unused> {
    let text = text.ok_or(Unused::Broken(fault))?;
    URL_SAFE_NO_PAD
        .decode(&**text)
        .ok()
        .filter(|bytes| !bytes.is_empty())
        .ok_or(Unused::Broken(fault))
}

/// Some programs write a number with a leading zero, as DER requires.
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
            "its public numbers are not a key of RSA (2048 to 8192 bits), P-256, P-384, P-521 or Ed25519"
        }
        KeyError::PrivateKey | KeyError::EncryptedPrivateKey => "its private numbers are not a key",
        KeyError::NotAPair => "its private and its public numbers do not belong together",
        KeyError::Algorithm(_) => "its alg needs another kind of key",
    })
}

/// An id in printable form: others choose the ids.
fn printable(id: &str) -> String {
    id.chars().take(64).collect()
}

/// The first byte of an uncompressed point (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Most keys of a set.
const KEYS_MAX: usize = 100;
/// Longest id of a key.
pub(super) const KEY_ID_BYTES_MAX: usize = 256;
