//! Tokens: who a client is.
//!
//! Pure: key texts, token texts and the time come in; claims, tokens and error objects go out. Reading key files is
//! the caller's work, and so is deciding what an authenticated client may do.
//!
//! The behaviour is that of ag-auth 2.1.1 over jsonwebtoken 9.0.3 on Node 20, to the byte where a client can see it;
//! `tests/data/jwt` holds what those packages did. EdDSA is an addition, and so are several keys (`keyring.rs`), sets of
//! keys (`jwks.rs`) and revocation.
//!
//! Cost, in microseconds, of a token of 200 bytes; a core may verify HS256 in its turn, while ten thousand logins a
//! second with ES512 take four cores. (Our part at opt-level 1, the library's optimised; the ratios are what matters.)
//!
//! |        | HS256 | HS512 | RS, PS (2048 bits) | ES256 | ES384 | ES512 | EdDSA |
//! |--------|-------|-------|--------------------|-------|-------|-------|-------|
//! | verify | 3     | 5     | 30                 | 100   | 280   | 440   | 60    |
//! | sign   | 4     | 6     | 900                | 20    | 150   | 310   | 20    |
//!
//! Wire reference, section 8; RFC 7515 and RFC 7519 for the format.

mod credentials;
mod date;
mod demands;
mod error;
mod json;
mod json_fault;
mod jwks;
mod jwt;
mod keyring;
mod keys;
pub mod passwords;
mod pem;
mod revocation;
pub mod rules;

pub use credentials::{CredentialFields, Credentials, NoCredentials, Password};
pub use demands::Demands;
pub use error::{SignError, TokenError};
pub use jwks::{KeySet, KeySetError, LeftOut, SetOrigin, Unused};
pub use jwt::{Claims, Issued, Tokens, new_token_id};
pub use keyring::WantedKeys;
pub use keys::{Algorithm, KeyError, UnknownAlgorithm};
pub use revocation::{NotRevocable, Revocation, Revocations, Revoked};

#[cfg(test)]
mod tests;
