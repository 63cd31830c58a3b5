//! `ringcast token`: signs a token, for trying things out and for services without a library for signing.

use std::io::Write;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::CliError;
use crate::clock::Clock;
use crate::config::load::ConfigSources;
use crate::policy::{KeySource, Policy};

/// The arguments of the command.
#[derive(Debug)]
pub(super) struct TokenArguments {
    /// The claims, a JSON object.
    pub(super) claims: String,
    pub(super) expires: Expiry,
}

impl Default for TokenArguments {
    fn default() -> TokenArguments {
        TokenArguments {
            claims: "{}".to_owned(),
            expires: Expiry(None),
        }
    }
}

/// After how many seconds the token expires; `None` for `auth_default_expiry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry(Option<u64>);

impl FromStr for Expiry {
    type Err = CliError;

    /// Parses a whole number with a unit: `90s`, `15m`, `1h`, `30d`.
    fn from_str(text: &str) -> Result<Expiry, CliError> {
        let parsed = UNITS.iter().find_map(|(unit, seconds)| {
            let count: u64 = text.strip_suffix(*unit)?.parse().ok()?;
            count
                .checked_mul(*seconds)
                .filter(|total| (1..=SECONDS_MAX).contains(total))
        });
        match parsed {
            Some(seconds) => Ok(Expiry(Some(seconds))),
            None => Err(CliError::Usage(format!(
                "--expires: found {text:?}, expected for example 90s, 15m, 1h or 30d"
            ))),
        }
    }
}

const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

/// A hundred years; a longer time is probably a typing error.
const SECONDS_MAX: u64 = 36_525 * 86_400;

/// Writes the token on a line of its own, if a server with these settings would accept it, now or later.
pub(super) fn token(
    sources: &ConfigSources,
    arguments: &TokenArguments,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let mut config = sources.load()?.config;
    // The password file is only for logins, and the user of this command may not be allowed to read it.
    config.login.password_file = None;
    let claims: Map<String, Value> = serde_json::from_str(&arguments.claims)
        .map_err(|error| CliError::Usage(format!("--claims is not a JSON object: {error}")))?;
    let policy = Policy::open(&config)?;
    if matches!(policy.keys, KeySource::Random(_)) {
        return Err(CliError::Unusable(
            "no key is configured: a token signed with a random key would be accepted by no server; set auth_key, \
             or auth_private_key_file and auth_public_key_file, to those of the server"
                .to_owned(),
        ));
    }
    if !policy.tokens.can_sign() {
        return Err(CliError::Unusable(
            "the configured keys can only check tokens: set auth_private_key_file, or put a private key into jwks_file, \
             to sign one"
                .to_owned(),
        ));
    }
    // Claims with an `exp` of their own keep it.
    let expires = match arguments.expires.0 {
        None if claims.contains_key("exp") => None,
        None => Some(config.auth.default_expiry.as_secs()),
        Some(_) if claims.contains_key("exp") => {
            return Err(CliError::Usage(
                "--claims already contains exp: leave out --expires".to_owned(),
            ));
        }
        Some(seconds) => Some(seconds),
    };
    let now = Clock::begin().now().unix_ms;
    let token = policy
        .tokens
        .sign(&arguments.claims, expires, now)
        .map_err(|error| CliError::Unusable(format!("the token cannot be signed: {error}")))?;
    // A token that becomes valid later may be signed now.
    if let Err(error) = policy.tokens.verify(&token, now)
        && error.is_bad_token()
    {
        return Err(CliError::Token(error.to_string()));
    }
    writeln!(out, "{token}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::answer;

    const KEY: &[(&str, &str)] = &[("RINGCAST_AUTH_KEY", "an example of a key, 32 bytes long")];

    #[test]
    fn a_token_is_one_line_of_three_parts() {
        for words in [
            &["token", "--claims", r#"{"user":"ann"}"#, "--expires", "1h"][..],
            &["token", "--claims", r#"{"user":"ann"}"#],
            &["token", "--claims", r#"{"exp":4102444800}"#],
            &["token"],
        ] {
            let (code, text) = answer(words, KEY);
            assert_eq!(code, 0, "{text}");
            let token = text.strip_suffix('\n').unwrap();
            assert_eq!(token.split('.').count(), 3, "{token}");
            assert!(!token.contains(['\n', ' ']), "{token}");
        }
    }

    #[test]
    fn a_token_that_the_server_would_refuse_is_not_signed() {
        let issuer = ("RINGCAST_AUTH_ISSUER", "https://id.example/");
        for (claims, code, message) in [
            (r#"{"exp":1}"#, 65, "the token is not accepted: jwt expired"),
            (r#"{"exp":-1.5}"#, 65, "jwt expired"),
            (r#"{"exp":"2100-01-01"}"#, 78, "iat, exp and nbf must be numbers"),
            (r#"{"nbf":null}"#, 78, "iat, exp and nbf must be numbers"),
            (r#"{"exp":1e400}"#, 64, "--claims"),
            (r#"{"iss":"https://other.example/"}"#, 65, "jwt issuer invalid"),
        ] {
            let (found, text) = answer(&["token", "--claims", claims], &[KEY[0], issuer]);
            assert_eq!(found, code, "{claims}: {text}");
            assert!(text.contains(message), "{claims}: {text}");
        }
        for claims in [
            "{}",
            r#"{"nbf":4102444800}"#,
            r#"{"exp":4102444800.5,"nbf":1.5,"iat":1e9}"#,
        ] {
            assert_eq!(
                answer(&["token", "--claims", claims], &[KEY[0], issuer]).0,
                0,
                "{claims}"
            );
        }
    }

    #[test]
    fn a_random_key_signs_nothing() {
        let (code, text) = answer(&["token"], &[]);
        assert_eq!(code, 78);
        assert!(text.contains("no key is configured"), "{text}");
    }

    #[test]
    fn claims_are_an_object_and_expire_once() {
        for claims in ["[]", "1", "{", "null", ""] {
            assert_eq!(answer(&["token", "--claims", claims], KEY).0, 64, "{claims}");
        }
        let words = ["token", "--claims", r#"{"exp":4102444800}"#, "--expires", "1h"];
        assert_eq!(answer(&words, KEY).0, 64);
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [
            ("1s", 1),
            ("90s", 90),
            ("15m", 900),
            ("1h", 3600),
            ("30d", 2_592_000),
            ("36525d", SECONDS_MAX),
        ] {
            assert_eq!(text.parse::<Expiry>().unwrap(), Expiry(Some(seconds)), "{text}");
        }
        for text in [
            "",
            "1",
            "h",
            "0s",
            "-1s",
            "1.5h",
            "1w",
            "36526d",
            "18446744073709551615d",
        ] {
            assert!(text.parse::<Expiry>().is_err(), "{text}");
        }
    }
}
