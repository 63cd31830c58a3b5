//! Signature algorithms and key material.
//!
//! Keys come as a shared secret, as PEM, or as the numbers of a JSON Web Key (`jwks.rs`). Everything that
//! verifying needs is parsed here, once for each algorithm.
//!
//! Invariants
//! 1. An algorithm that is not in [`VerifyingKeys`] verifies nothing, and a token's header can only choose
//!    among those: so a public key is never used as a secret.
//! 2. A private key is used only after a signature of it has been verified with its public key.
//! 3. Keys are never printed: `Debug` shows names of algorithms.
//!
//! Not supported: RSA keys restricted to PSS (`id-RSASSA-PSS`), encrypted private keys, certificates.
//!
//! Limits: RSA from 2048 to 8192 bits, the range that both the library and jsonwebtoken's signing accept.
//!
//! RFC 7518 section 3, RFC 8037 section 3.1.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, ED25519,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, RsaParameters,
    VerificationAlgorithm,
};
use aws_lc_rs::{hmac, rand, rsa};

use super::pem;

/// A signature algorithm, by its name in RFC 7518 and RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the standards")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    /// Ed25519. The reference does not have it.
    EdDSA,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Algorithm; 13] = [
        Algorithm::HS256,
        Algorithm::HS384,
        Algorithm::HS512,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::ES512,
        Algorithm::EdDSA,
    ];

    /// The name, as in the header of a token.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::HS256 => "HS256",
            Algorithm::HS384 => "HS384",
            Algorithm::HS512 => "HS512",
            Algorithm::RS256 => "RS256",
            Algorithm::RS384 => "RS384",
            Algorithm::RS512 => "RS512",
            Algorithm::PS256 => "PS256",
            Algorithm::PS384 => "PS384",
            Algorithm::PS512 => "PS512",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            Algorithm::ES512 => "ES512",
            Algorithm::EdDSA => "EdDSA",
        }
    }

    /// The curve of an ECDSA algorithm, as OpenSSL calls it.
    pub(super) const fn curve(self) -> Option<&'static str> {
        match self.family() {
            Family::P256 => Some("prime256v1"),
            Family::P384 => Some("secp384r1"),
            Family::P521 => Some("secp521r1"),
            Family::Secret | Family::Rsa | Family::Ed25519 => None,
        }
    }

    /// The length of an ECDSA signature, in bytes.
    pub(super) const fn signature_bytes(self) -> Option<usize> {
        match self.family() {
            Family::P256 => Some(64),
            Family::P384 => Some(96),
            Family::P521 => Some(132),
            Family::Secret | Family::Rsa | Family::Ed25519 => None,
        }
    }

    /// The length of an HMAC's hash, in bytes.
    pub(super) const fn hash_bytes(self) -> Option<usize> {
        match self {
            Algorithm::HS256 => Some(32),
            Algorithm::HS384 => Some(48),
            Algorithm::HS512 => Some(64),
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512
            | Algorithm::ES256
            | Algorithm::ES384
            | Algorithm::ES512
            | Algorithm::EdDSA => None,
        }
    }

    /// The kind of key that the algorithm needs.
    pub(super) const fn family(self) -> Family {
        match self.crypto() {
            Crypto::Hmac(_) => Family::Secret,
            Crypto::Rsa(_, _) => Family::Rsa,
            Crypto::Ecdsa(family, _, _) => family,
            Crypto::Ed25519 => Family::Ed25519,
        }
    }

    /// The one table of the library's counterparts.
    const fn crypto(self) -> Crypto {
        match self {
            Algorithm::HS256 => Crypto::Hmac(hmac::HMAC_SHA256),
            Algorithm::HS384 => Crypto::Hmac(hmac::HMAC_SHA384),
            Algorithm::HS512 => Crypto::Hmac(hmac::HMAC_SHA512),
            Algorithm::RS256 => Crypto::Rsa(&RSA_PKCS1_2048_8192_SHA256, &RSA_PKCS1_SHA256),
            Algorithm::RS384 => Crypto::Rsa(&RSA_PKCS1_2048_8192_SHA384, &RSA_PKCS1_SHA384),
            Algorithm::RS512 => Crypto::Rsa(&RSA_PKCS1_2048_8192_SHA512, &RSA_PKCS1_SHA512),
            Algorithm::PS256 => Crypto::Rsa(&RSA_PSS_2048_8192_SHA256, &RSA_PSS_SHA256),
            Algorithm::PS384 => Crypto::Rsa(&RSA_PSS_2048_8192_SHA384, &RSA_PSS_SHA384),
            Algorithm::PS512 => Crypto::Rsa(&RSA_PSS_2048_8192_SHA512, &RSA_PSS_SHA512),
            Algorithm::ES256 => Crypto::Ecdsa(
                Family::P256,
                &ECDSA_P256_SHA256_FIXED,
                &ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            Algorithm::ES384 => Crypto::Ecdsa(
                Family::P384,
                &ECDSA_P384_SHA384_FIXED,
                &ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
            Algorithm::ES512 => Crypto::Ecdsa(
                Family::P521,
                &ECDSA_P521_SHA512_FIXED,
                &ECDSA_P521_SHA512_FIXED_SIGNING,
            ),
            Algorithm::EdDSA => Crypto::Ed25519,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Algorithm, UnknownAlgorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(UnknownAlgorithm)
    }
}

/// The name of no [`Algorithm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm;

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a signature algorithm; known are ")?;
        for (index, algorithm) in Algorithm::ALL.into_iter().enumerate() {
            write!(f, "{}{algorithm}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownAlgorithm {}

/// Why keys cannot be used. The server should not start with such keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The secret is empty.
    EmptySecret,
    /// The secret is the text of a PEM key: with a public key as the secret, everyone who knows that key
    /// could forge tokens.
    SecretIsPem,
    /// The text contains no public key of RSA (2048 to 8192 bits), P-256, P-384, P-521 or Ed25519.
    PublicKey,
    /// The text contains no private key of RSA (2048 to 8192 bits), P-256, P-384, P-521 or Ed25519.
    PrivateKey,
    /// The private key is encrypted.
    EncryptedPrivateKey,
    /// The private key does not belong to the public key.
    NotAPair,
    /// The algorithm needs another kind of key.
    Algorithm(Algorithm),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KINDS: &str = "RSA (2048 to 8192 bits), P-256, P-384, P-521 or Ed25519";
        match self {
            KeyError::EmptySecret => f.write_str("the secret is empty"),
            KeyError::SecretIsPem => {
                f.write_str("the secret is a PEM key; set it as the private or public key file")
            }
            KeyError::PublicKey => write!(f, "no usable public key in PEM: {KINDS}"),
            KeyError::PrivateKey => write!(f, "no usable private key in PEM: {KINDS}"),
            KeyError::EncryptedPrivateKey => f.write_str("the private key is encrypted; decrypt it first"),
            KeyError::NotAPair => f.write_str("the private and the public key do not belong together"),
            KeyError::Algorithm(algorithm) => write!(f, "{algorithm} needs another kind of key"),
        }
    }
}

impl std::error::Error for KeyError {}

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Secret,
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Family {
    /// The algorithms that a key of this kind may verify by default: jsonwebtoken's choice. The first is the
    /// one that it signs with.
    pub(super) const fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Family::Secret => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            Family::Rsa => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            Family::P256 => &[Algorithm::ES256, Algorithm::ES384, Algorithm::ES512],
            Family::P384 => &[Algorithm::ES384, Algorithm::ES256, Algorithm::ES512],
            Family::P521 => &[Algorithm::ES512, Algorithm::ES256, Algorithm::ES384],
            Family::Ed25519 => &[Algorithm::EdDSA],
        }
    }
}

/// The library's counterparts of an algorithm: for verifying, then for signing.
enum Crypto {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn VerificationAlgorithm, &'static dyn RsaEncoding),
    Ecdsa(
        Family,
        &'static dyn VerificationAlgorithm,
        &'static EcdsaSigningAlgorithm,
    ),
    Ed25519,
}

/// The keys that verify, by algorithm. Algorithms that are not listed are not allowed.
pub(super) struct VerifyingKeys {
    keys: Vec<(Algorithm, VerifyingKey)>,
}

pub(super) enum VerifyingKey {
    /// Boxed, since it contains a prepared hash state of a kilobyte.
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
    /// Allowed by name, as jsonwebtoken allows every ECDSA algorithm for such a key, but on another curve.
    OtherCurve,
}

impl VerifyingKeys {
    /// Verifies with a shared secret.
    pub(super) fn from_secret(secret: &[u8], only: Option<Algorithm>) -> Result<VerifyingKeys, KeyError> {
        Self::of_secret(secret, &algorithms(Family::Secret, only)?)
    }

    /// Verifies with a shared secret and these algorithms.
    pub(super) fn of_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<VerifyingKeys, KeyError> {
        Self::new(algorithms, |algorithm| match algorithm.crypto() {
            Crypto::Hmac(hash) => Ok(VerifyingKey::Secret(Box::new(hmac::Key::new(hash, secret)))),
            Crypto::Rsa(_, _) | Crypto::Ecdsa(_, _, _) | Crypto::Ed25519 => {
                Err(KeyError::Algorithm(algorithm))
            }
        })
    }

    /// Verifies with a public key in PEM: `PUBLIC KEY` (RFC 5280) or `RSA PUBLIC KEY` (PKCS#1).
    pub(super) fn from_public_pem(text: &str, only: Option<Algorithm>) -> Result<VerifyingKeys, KeyError> {
        let is_public = |label: &str| matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY");
        let der = pem::find_section(text, is_public).ok_or(KeyError::PublicKey)?.der;
        let family = family_of_public_key(&der).ok_or(KeyError::PublicKey)?;
        Self::of_public(&der, family, &algorithms(family, only)?)
    }

    /// Verifies with these algorithms and a public key in the library's format: DER, or the bytes of a point.
    pub(super) fn of_public(
        key: &[u8],
        family: Family,
        algorithms: &[Algorithm],
    ) -> Result<VerifyingKeys, KeyError> {
        if family_of_public_key(key) != Some(family) {
            return Err(KeyError::PublicKey);
        }
        Self::new(algorithms, |algorithm| {
            let verification = match algorithm.crypto() {
                Crypto::Ecdsa(curve, _, _) if curve != family => return Ok(VerifyingKey::OtherCurve),
                Crypto::Rsa(verification, _) | Crypto::Ecdsa(_, verification, _) => verification,
                Crypto::Ed25519 => &ED25519,
                Crypto::Hmac(_) => return Err(KeyError::Algorithm(algorithm)),
            };
            let key = ParsedPublicKey::new(verification, key).map_err(|_| KeyError::PublicKey)?;
            Ok(VerifyingKey::Public(key))
        })
    }

    /// The key for an algorithm, by the name in a token's header.
    pub(super) fn find(&self, name: &str) -> Option<(Algorithm, &VerifyingKey)> {
        let (algorithm, key) = self.keys.iter().find(|(algorithm, _)| algorithm.name() == name)?;
        Some((*algorithm, key))
    }

    /// The algorithm to sign with: the only one, or the first for this kind of key.
    pub(super) fn preferred(&self) -> Algorithm {
        self.keys[0].0
    }

    /// The algorithms, for `Debug`.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.keys.iter().map(|(algorithm, _)| *algorithm)
    }

    fn new(
        algorithms: &[Algorithm],
        key: impl Fn(Algorithm) -> Result<VerifyingKey, KeyError>,
    ) -> Result<VerifyingKeys, KeyError> {
        let keys = algorithms
            .iter()
            .map(|&algorithm| Ok((algorithm, key(algorithm)?)))
            .collect::<Result<_, KeyError>>()?;
        Ok(VerifyingKeys { keys })
    }
}

/// The algorithms that a key of this kind verifies: only the requested one, if it suits the key, or else all
/// of the kind.
fn algorithms(family: Family, only: Option<Algorithm>) -> Result<Vec<Algorithm>, KeyError> {
    match only {
        Some(algorithm) if algorithm.family() != family => Err(KeyError::Algorithm(algorithm)),
        Some(algorithm) => Ok(vec![algorithm]),
        None => Ok(family.algorithms().to_vec()),
    }
}

/// A private key or secret, with its way of signing.
pub(super) enum SigningKey {
    /// Boxed, since it contains a prepared hash state of a kilobyte.
    Secret(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Signs with a shared secret.
    pub(super) fn from_secret(secret: &[u8], algorithm: Algorithm) -> Result<SigningKey, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::EmptySecret);
        }
        if secret.trim_ascii_start().starts_with(b"-----BEGIN ") {
            return Err(KeyError::SecretIsPem);
        }
        match algorithm.crypto() {
            Crypto::Hmac(hash) => Ok(SigningKey::Secret(Box::new(hmac::Key::new(hash, secret)))),
            Crypto::Rsa(_, _) | Crypto::Ecdsa(_, _, _) | Crypto::Ed25519 => {
                Err(KeyError::Algorithm(algorithm))
            }
        }
    }

    /// Signs with a private key in PEM: `PRIVATE KEY` (PKCS#8), `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE
    /// KEY` (SEC 1).
    pub(super) fn from_private_pem(text: &str, algorithm: Algorithm) -> Result<SigningKey, KeyError> {
        let is_private = |label: &str| matches!(label, "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY");
        let Some(section) = pem::find_section(text, is_private) else {
            return Err(if text.contains("ENCRYPTED") {
                KeyError::EncryptedPrivateKey
            } else {
                KeyError::PrivateKey
            });
        };
        let der = section.der.as_slice();
        let key = match (algorithm.crypto(), section.label) {
            (Crypto::Rsa(_, encoding), "PRIVATE KEY") => {
                RsaKeyPair::from_pkcs8(der).map(|key| SigningKey::Rsa(key, encoding))
            }
            (Crypto::Rsa(_, encoding), _) => {
                RsaKeyPair::from_der(der).map(|key| SigningKey::Rsa(key, encoding))
            }
            (Crypto::Ecdsa(_, _, signing), _) => {
                EcdsaKeyPair::from_private_key_der(signing, der).map(SigningKey::Ecdsa)
            }
            // Both versions of PKCS#8. The caller compares the pair with the public key.
            (Crypto::Ed25519, _) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(SigningKey::Ed25519),
            (Crypto::Hmac(_), _) => return Err(KeyError::Algorithm(algorithm)),
        };
        key.map_err(|_| KeyError::PrivateKey)
    }

    /// Signs with the components of an RSA key (RFC 7518 section 6.3.2), which are checked against each
    /// other.
    pub(super) fn from_rsa(
        components: &rsa::KeyPairComponents<Vec<u8>>,
        algorithm: Algorithm,
    ) -> Result<SigningKey, KeyError> {
        match algorithm.crypto() {
            Crypto::Rsa(_, encoding) => RsaKeyPair::from_components(components)
                .map(|key| SigningKey::Rsa(key, encoding))
                .map_err(|_| KeyError::PrivateKey),
            Crypto::Hmac(_) | Crypto::Ecdsa(_, _, _) | Crypto::Ed25519 => Err(KeyError::Algorithm(algorithm)),
        }
    }

    /// Signs with the private number of an elliptic curve's key; the bytes of its public point are needed
    /// too.
    pub(super) fn from_curve(
        private: &[u8],
        public: &[u8],
        algorithm: Algorithm,
    ) -> Result<SigningKey, KeyError> {
        let key = match algorithm.crypto() {
            Crypto::Ecdsa(_, _, signing) => {
                EcdsaKeyPair::from_private_key_and_public_key(signing, private, public).map(SigningKey::Ecdsa)
            }
            Crypto::Ed25519 => {
                Ed25519KeyPair::from_seed_and_public_key(private, public).map(SigningKey::Ed25519)
            }
            Crypto::Hmac(_) | Crypto::Rsa(_, _) => return Err(KeyError::Algorithm(algorithm)),
        };
        key.map_err(|_| KeyError::PrivateKey)
    }

    /// The signature of a message, or `None` if the library fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = rand::SystemRandom::new();
        match self {
            SigningKey::Secret(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            SigningKey::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            SigningKey::Ecdsa(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            SigningKey::Ed25519(key) => Some(key.try_sign(message).ok()?.as_ref().to_vec()),
        }
    }
}

/// The kind of a public key, found by trying the library with each kind.
fn family_of_public_key(der: &[u8]) -> Option<Family> {
    if let Ok(key) = rsa::PublicKey::from_der(der) {
        let bits = RsaParameters::public_modulus_len(key.as_ref()).ok()?;
        return RSA_BITS.contains(&bits).then_some(Family::Rsa);
    }
    let families: [(Family, &'static dyn VerificationAlgorithm); 4] = [
        (Family::P256, &ECDSA_P256_SHA256_FIXED),
        (Family::P384, &ECDSA_P384_SHA384_FIXED),
        (Family::P521, &ECDSA_P521_SHA512_FIXED),
        (Family::Ed25519, &ED25519),
    ];
    families
        .into_iter()
        .find(|(_, algorithm)| ParsedPublicKey::new(*algorithm, der).is_ok())
        .map(|(family, _)| family)
}

const RSA_BITS: RangeInclusive<u32> = 2048..=8192;
