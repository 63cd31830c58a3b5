//! Tokens: the keys that sign and check them, the claims they must have, and how long a revocation lasts.

use std::path::PathBuf;
use std::time::Duration;

use super::form::{Form, Kind, PEM_FILE, SECRET, file, names, number, seconds};
use super::secret::Secret;
use super::settings::settings;

settings! {
    /// Tokens: the keys that sign and check them, the claims they must have, and how long a revocation lasts.
    auth: Auth {
        /// Shared key that signs and checks tokens. Without it and without other keys, the server uses a random key
        /// that ends with the process.
        key: Option<Secret> = None, "auth_key", SECRET, on reload;

        /// Algorithm of tokens, such as `HS256`. Without it, any algorithm that suits the key is accepted.
        algorithm: Option<String> = None, "auth_algorithm", ALGORITHM, on reload;

        /// PEM file of the private key that signs tokens.
        private_key_file: Option<PathBuf> = None, "auth_private_key_file", PEM_FILE, on reload;

        /// PEM file of the public key that checks tokens.
        public_key_file: Option<PathBuf> = None, "auth_public_key_file", PEM_FILE, on reload;

        /// Id of the server's own key (`auth_key` or `auth_private_key_file`), put into the header of tokens as `kid`.
        /// Without a key of its own, the server signs with the key of `jwks_file` that has this id, by default with the
        /// first that can.
        key_id: Option<String> = None, "auth_key_id", KEY_ID, on reload;

        /// Accepted issuers, separated by commas: a token must name one of them (`iss`). The first one is put into
        /// tokens that are signed here. Without it, any issuer is accepted.
        issuer: Vec<String> = Vec::new(), "auth_issuer", names("issuers, separated by commas"), on reload;

        /// Accepted audiences, separated by commas: a token must name one of them (`aud`). The first one is put into
        /// tokens that are signed here. Without it, any audience is accepted.
        audience: Vec<String> = Vec::new(), "auth_audience", names("audiences, separated by commas"), on reload;

        /// Seconds by which the clock of a token's signer may differ: a token is accepted so long before its `nbf` and
        /// after its `exp`.
        leeway_seconds: u16 = 0, "auth_leeway_seconds", number!(0 to 300), on reload;

        /// Seconds for which a token is valid if its signer does not say otherwise.
        default_expiry: Duration = Duration::from_secs(86_400), "auth_default_expiry", seconds!(1 to 4294967295);

        /// File in which the server keeps revocations for its next start. Without it, a restart forgets them.
        revocations_file: Option<PathBuf> = None, "revocations_file", file("the name of a file");

        /// Seconds for which a revocation lasts. A revoked token that lives longer, or for ever, is good again
        /// afterwards.
        revocation_keep: Duration = Duration::from_secs(30 * 86_400), "revocation_keep_seconds",
            seconds!(60 to 4294967295);
    }
}

const ALGORITHM: Form<Option<String>> = Form {
    kind: Kind::Text,
    expects: "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA",
    parse: |text| AUTH_ALGORITHMS.contains(&text).then(|| Some(text.to_owned())),
    show: |algorithm| algorithm.clone().unwrap_or_default(),
};

/// The id of a key, which stands in tokens and logs.
const KEY_ID: Form<Option<String>> = Form {
    kind: Kind::Text,
    expects: "an id of 1 to 256 visible ASCII characters",
    parse: |text| {
        let legal = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        legal.then(|| Some(text.to_owned()))
    },
    show: |id| id.clone().unwrap_or_default(),
};

/// The names of the algorithms of tokens (RFC 7518 section 3.1, RFC 8037).
pub const AUTH_ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "ES512", "EdDSA",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_expected_algorithms_are_known() {
        let words = ALGORITHM.expects.replace(" or ", ", ");
        assert_eq!(words.split(", ").collect::<Vec<_>>(), AUTH_ALGORITHMS);
    }
}
