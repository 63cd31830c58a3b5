//! Makes the keys of tokens from the configuration: reads the key files, or makes a random key. (`auth`
//! itself opens no file.)

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tracing::info;

use crate::auth::{Algorithm, Demands, KeyError, KeySet, SetOrigin, Tokens};
use crate::config::Config;
use crate::config::secret::Secret;
use crate::config::text_file;

/// Where the key that signs tokens comes from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Made at the start, lost at the end.
    Random(Secret),
    /// `auth_key`.
    Shared,
    /// Both key files.
    Files,
    /// Only `auth_public_key_file`.
    PublicFile,
    /// Only `jwks_file`, `jwks_url` or both.
    Sets,
}

/// Makes the keys that `config` describes, except those that are fetched. A random key that was made before
/// is kept.
pub(super) fn tokens(config: &Config, before: Option<&KeySource>) -> Result<(Tokens, KeySource), KeysError> {
    let (mut tokens, source) = own(config, before)?;
    let id = config.auth.key_id.as_deref();
    let has_own = !matches!(source, KeySource::Sets);
    if let Some(id) = id
        && has_own
    {
        tokens = tokens.with_key_id(id);
    }
    if let Some(file) = &config.jwks.file {
        let set = set(file)?;
        tokens = tokens
            .with_set(set, id.filter(|_| !has_own))
            .ok_or_else(|| KeysError::NoSigner {
                file: file.clone(),
                id: id.unwrap_or_default().to_owned(),
            })?;
    }
    let demands = Demands {
        issuers: config.auth.issuer.clone(),
        audiences: config.auth.audience.clone(),
        leeway_seconds: config.auth.leeway_seconds,
    };
    Ok((tokens.with_demands(demands), source))
}

/// All errors in the keys that `config` describes.
pub(super) fn faults(config: &Config) -> Vec<KeysError> {
    let parts = [
        own(config, None).err(),
        config.jwks.file.as_deref().and_then(|file| set(file).err()),
    ];
    let mut faults: Vec<KeysError> = parts.into_iter().flatten().collect();
    if faults.is_empty() {
        faults.extend(tokens(config, None).err());
    }
    faults
}

/// The key that is configured on its own, or a random one if no key is configured at all.
fn own(config: &Config, before: Option<&KeySource>) -> Result<(Tokens, KeySource), KeysError> {
    let algorithm = algorithm(config)?;
    if let Some(public_file) = &config.auth.public_key_file {
        let public = read_pem(public_file)?;
        let private = config
            .auth
            .private_key_file
            .as_deref()
            .map(read_pem)
            .transpose()?;
        let source = if private.is_some() {
            KeySource::Files
        } else {
            KeySource::PublicFile
        };
        return Ok((Tokens::from_pem(private.as_deref(), &public, algorithm)?, source));
    }
    if let Some(key) = &config.auth.key {
        return Ok((Tokens::from_secret(key.expose(), algorithm)?, KeySource::Shared));
    }
    if !config.has_random_key() {
        return Ok((Tokens::default(), KeySource::Sets));
    }
    let key = match before {
        Some(KeySource::Random(key)) => key.clone(),
        Some(KeySource::Shared | KeySource::Files | KeySource::PublicFile | KeySource::Sets) | None => {
            let mut key = [0; RANDOM_KEY_BYTES];
            getrandom::fill(&mut key).map_err(|error| KeysError::NoRandom(error.to_string()))?;
            Secret::new(key)
        }
    };
    let tokens = Tokens::from_secret(key.expose(), algorithm)?;
    Ok((tokens, KeySource::Random(key)))
}

/// The set in `jwks_file`. Keys that cannot be used are left out: a key for another purpose is logged here, a
/// broken key becomes a warning of the policy.
fn set(file: &Path) -> Result<KeySet, KeysError> {
    let refuse = |cause: String| KeysError::Set {
        file: file.to_owned(),
        cause,
    };
    let text = text_file::read(file, SET_BYTES_MAX).map_err(|error| unreadable(file, &error))?;
    let set = KeySet::parse(&text, SetOrigin::Own).map_err(|error| refuse(error.to_string()))?;
    for unused_key in set
        .unused_keys()
        .iter()
        .filter(|unused_key| !unused_key.is_fault())
    {
        info!("jwks_file: {}: {unused_key}", file.display());
    }
    Ok(set)
}

fn algorithm(config: &Config) -> Result<Option<Algorithm>, KeysError> {
    let Some(name) = &config.auth.algorithm else {
        return Ok(None);
    };
    name.parse()
        .map(Some)
        .map_err(|_| KeysError::Algorithm(name.clone()))
}

fn read_pem(file: &Path) -> Result<String, KeysError> {
    let text = text_file::read_pem(file).map_err(|error| unreadable(file, &error))?;
    // Only text between the PEM sections can have another encoding, and it is ignored.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn unreadable(file: &Path, error: &io::Error) -> KeysError {
    KeysError::Unreadable {
        file: file.to_owned(),
        cause: error.to_string(),
    }
}

/// Why there are no keys.
#[derive(Debug)]
pub enum KeysError {
    /// A key file cannot be read.
    Unreadable {
        /// The file's name.
        file: PathBuf,
        /// The system's error.
        cause: String,
    },
    /// A set of keys is invalid.
    Set {
        /// The set's file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The key that is to sign is not in the set, or cannot sign.
    NoSigner {
        /// The set's file.
        file: PathBuf,
        /// The key's id.
        id: String,
    },
    /// The algorithm is not known.
    Algorithm(String),
    /// A key is invalid, or does not suit the algorithm.
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
            KeysError::Set { file, cause } => write!(formatter, "{}: {cause}", file.display()),
            KeysError::NoSigner { file, id } => write!(
                formatter,
                "{}: no key that can sign has the kid {id:?} of auth_key_id",
                file.display()
            ),
            KeysError::Algorithm(name) => write!(formatter, "auth_algorithm: {name} is not known"),
            KeysError::Key(error) => write!(formatter, "keys of tokens: {error}"),
            KeysError::NoRandom(cause) => write!(
                formatter,
                "the system provides no random bytes for a key: {cause}"
            ),
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

/// Largest set of keys, in a file or fetched.
pub(crate) const SET_BYTES_MAX: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AUTH_ALGORITHMS;
    use crate::config::secret::Secret;

    #[test]
    fn every_algorithm_that_can_be_configured_is_known() {
        for name in AUTH_ALGORITHMS {
            assert!(name.parse::<Algorithm>().is_ok(), "{name}");
        }
    }

    #[test]
    fn byte_order_marks_and_line_ends_of_editors_do_not_change_a_key() {
        let folder = std::env::temp_dir().join(format!("ringcast-keys-text-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/jwt/vectors.json")).unwrap();
        let pem = &vectors["keys"]["p256"]["public"][0].as_str().unwrap();
        let jwks: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/jwt/jwks.json")).unwrap();
        let set = serde_json::json!({ "keys": [jwks["pairs"][6]["public_jwk"]] });
        let set = serde_json::to_string_pretty(&set).unwrap();
        let (pem_file, set_file) = (folder.join("key.pem"), folder.join("keys.json"));
        let mut config = Config::default();
        config.auth.public_key_file = Some(pem_file.clone());
        config.jwks.file = Some(set_file.clone());
        for end in ["\n", "\r\n", " \r\n"] {
            for mark in ["", "\u{feff}"] {
                std::fs::write(&pem_file, format!("{mark}{}", pem.replace('\n', end))).unwrap();
                std::fs::write(&set_file, format!("{mark}{}", set.replace('\n', end))).unwrap();
                tokens(&config, None).unwrap();
            }
        }
        for file in [&pem_file, &set_file] {
            let text = std::fs::read_to_string(file).unwrap();
            let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            std::fs::write(file, utf_16).unwrap();
            let error = tokens(&config, None).unwrap_err().to_string();
            assert!(error.contains("line 1: "), "{error}");
            std::fs::write(file, text).unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn keys_come_from_the_configured_source() {
        assert!(matches!(
            tokens(&Config::default(), None),
            Ok((_, KeySource::Random(_)))
        ));
        let mut shared = Config::default();
        shared.auth.key = Some(Secret::new("key"));
        assert!(matches!(tokens(&shared, None), Ok((_, KeySource::Shared))));
        let mut missing = Config::default();
        missing.auth.public_key_file = Some("/nowhere.pem".into());
        assert!(matches!(
            tokens(&missing, None),
            Err(KeysError::Unreadable { .. })
        ));
    }
}
