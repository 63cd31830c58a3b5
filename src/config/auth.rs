//! Tokens: the keys that sign and check them, what they must say, and how they are revoked.

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;

/// Tokens.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The key that signs and checks tokens; a random one without it and without key files.
    pub key: Option<Secret>,
    /// The algorithm of tokens, one of [`AUTH_ALGORITHMS`]; by the key's kind if `None`.
    pub algorithm: Option<String>,
    /// A PEM file with the private key that signs tokens.
    pub private_key_file: Option<PathBuf>,
    /// A PEM file with the public key that checks tokens.
    pub public_key_file: Option<PathBuf>,
    /// The id of the key above, in the header `kid` of tokens.
    pub key_id: Option<String>,
    /// Issuers of which a token must name one; any if there is none.
    pub issuer: Vec<String>,
    /// Audiences of which a token must name one; any if there is none.
    pub audience: Vec<String>,
    /// By how many seconds the clocks of those who sign tokens may differ from ours.
    pub leeway_seconds: u16,
    /// How long a token is valid that the application signs without saying so; whole seconds.
    pub default_expiry: Duration,
    /// Where revocations are kept for the next start.
    pub revocations_file: Option<PathBuf>,
    /// How long a revocation lasts: as long as the longest life of a token; whole seconds.
    pub revocation_keep: Duration,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            key: None,
            algorithm: None,
            private_key_file: None,
            public_key_file: None,
            key_id: None,
            issuer: Vec::new(),
            audience: Vec::new(),
            leeway_seconds: 0,
            default_expiry: Duration::from_secs(86_400),
            revocations_file: None,
            revocation_keep: Duration::from_secs(30 * 86_400),
        }
    }
}

/// The names of the algorithms of tokens (RFC 7518 section 3.1, RFC 8037).
pub const AUTH_ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "ES512", "EdDSA",
];
