//! From the configuration to the keys of tokens: reads the key files, or makes a random key.
//!
//! `auth` itself opens no file.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::auth::{Algorithm, KeyError, Tokens};
use crate::config::Config;

/// Where the keys of tokens are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Made at the start, gone at the end.
    Random,
    /// `auth_key`.
    Shared,
    /// Both key files.
    Files,
    /// `auth_public_key_file` alone.
    PublicFile,
}

/// Makes the keys that `config` asks for.
pub(super) fn tokens(config: &Config) -> Result<(Tokens, KeySource), KeysError> {
    let algorithm = algorithm(config)?;
    if let Some(public_file) = &config.auth_public_key_file {
        let public = read(public_file)?;
        let private = config.auth_private_key_file.as_deref().map(read).transpose()?;
        let source = if private.is_some() {
            KeySource::Files
        } else {
            KeySource::PublicFile
        };
        return Ok((Tokens::from_pem(private.as_deref(), &public, algorithm)?, source));
    }
    if let Some(key) = &config.auth_key {
        return Ok((Tokens::from_secret(key.expose(), algorithm)?, KeySource::Shared));
    }
    let mut key = [0; RANDOM_KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| KeysError::NoRandom(error.to_string()))?;
    Ok((Tokens::from_secret(&key, algorithm)?, KeySource::Random))
}

fn algorithm(config: &Config) -> Result<Option<Algorithm>, KeysError> {
    let Some(name) = &config.auth_algorithm else {
        return Ok(None);
    };
    name.parse()
        .map(Some)
        .map_err(|_| KeysError::Algorithm(name.clone()))
}

fn read(file: &Path) -> Result<String, KeysError> {
    std::fs::read_to_string(file).map_err(|error| KeysError::Unreadable {
        file: file.to_owned(),
        cause: error.to_string(),
    })
}

/// Why there are no keys.
#[derive(Debug)]
pub enum KeysError {
    /// A key file cannot be read.
    Unreadable {
        /// Its name.
        file: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The algorithm is not known.
    Algorithm(String),
    /// A key is not one, or does not suit the algorithm.
    Key(KeyError),
    /// The system has no random bytes.
    NoRandom(String),
}

impl fmt::Display for KeysError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeysError::Unreadable { file, cause } => {
                write!(formatter, "{}: cannot be read: {cause}", file.display())
            }
            KeysError::Algorithm(name) => write!(formatter, "auth_algorithm: {name} is not known"),
            KeysError::Key(error) => write!(formatter, "keys of tokens: {error}"),
            KeysError::NoRandom(cause) => write!(formatter, "the system gives no random key: {cause}"),
        }
    }
}

impl std::error::Error for KeysError {}

impl From<KeyError> for KeysError {
    fn from(error: KeyError) -> KeysError {
        KeysError::Key(error)
    }
}

/// As long as the longest hash of HMAC tokens (RFC 7518 section 3.2).
const RANDOM_KEY_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AUTH_ALGORITHMS;
    use crate::config::secret::Secret;

    #[test]
    fn every_algorithm_that_can_be_set_is_known() {
        for name in AUTH_ALGORITHMS {
            assert!(name.parse::<Algorithm>().is_ok(), "{name}");
        }
    }

    #[test]
    fn keys_come_from_where_the_configuration_says() {
        assert!(matches!(tokens(&Config::default()), Ok((_, KeySource::Random))));
        let shared = Config {
            auth_key: Some(Secret::new("key")),
            ..Config::default()
        };
        assert!(matches!(tokens(&shared), Ok((_, KeySource::Shared))));
        let missing = Config {
            auth_public_key_file: Some("/nowhere.pem".into()),
            ..Config::default()
        };
        assert!(matches!(tokens(&missing), Err(KeysError::Unreadable { .. })));
    }
}
