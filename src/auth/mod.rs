//! Tokens and passwords: how the server finds out which user a client is, and what it may do.
//!
//! Pure: the texts of keys and tokens and the time come in; claims, tokens and errors go out. The callers
//! read the key files, and decide what a client may do.
//!
//! Where a client can see it, the behaviour is byte for byte that of ag-auth 2.1.1 over jsonwebtoken 9.0.3 on
//! Node 20; `tests/data/jwt` records what these packages do. Additions: EdDSA, several keys (`keyring.rs`),
//! sets of keys (`jwks.rs`) and revocation.
//!
//! The time for a token of 200 bytes, in microseconds. A core can verify HS256 within its turn, while ten
//! thousand logins a second with ES512 take four cores. (Measured with our code at opt-level 1 and the
//! library optimised; the ratios matter.)
//!
//! |        | HS256 | HS512 | RS, PS (2048 bits) | ES256 | ES384 | ES512 | EdDSA |
//! |--------|-------|-------|--------------------|-------|-------|-------|-------|
//! | verify | 3     | 5     | 30                 | 100   | 280   | 440   | 60    |
//! | sign   | 4     | 6     | 900                | 20    | 150   | 310   | 20    |
//!
//! Wire reference, section 8; RFC 7515 and RFC 7519 for the format.

pub mod api_keys;
mod claims;
mod credentials;
mod date;
mod demands;
mod error;
mod json;
mod json_fault;
mod jwks;
mod jwt;
mod key;
mod keyring;
mod keys;
pub mod passwords;
mod pem;
mod revocation;
pub mod rules;

pub use claims::Claims;
pub use credentials::{CredentialFields, Credentials, NoCredentials, Password};
pub use demands::Demands;
pub use error::{SignError, TokenError};
pub use jwks::{KeySet, KeySetError, SetOrigin, Unused, UnusedKey};
pub use jwt::{Issued, Tokens, new_token_id};
pub use keyring::FetchRequest;
pub use keys::{Algorithm, KeyError, UnknownAlgorithm};
pub use revocation::{NotRevocable, Revocation, Revocations, Revoked};

#[cfg(test)]
mod tests;
