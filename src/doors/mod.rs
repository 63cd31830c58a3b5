//! The doors: what decides who may come in and what they may do, as all cores hold it.
//!
//! One value, read from the configuration and the files that it names, immutable and shared. A reload makes a new one,
//! and each core is given it between two turns (`Order::Adopt`): what follows is decided by the new, and nothing waits.
//!
//! Not here: how tokens are checked (`auth`), and when the doors are asked (the sessions).

mod error;
mod keys;
pub mod tls;

use std::sync::Arc;

pub use self::error::DoorsError;
pub use self::keys::{KeySource, KeysError};
use crate::auth::Tokens;
use crate::client::origin::AllowedOrigins;
use crate::config::{Config, Proxies};

/// What decides who may come in.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Signs and checks tokens.
    pub tokens: Arc<Tokens>,
    /// Where the keys of tokens are from.
    pub keys: KeySource,
    /// What TLS connections begin with; `None` where nothing speaks TLS.
    pub tls: Option<tls::Tls>,
    /// The reference's option: which origins may come in.
    pub origins: String,
    /// Which may come in, exactly.
    pub allowed_origins: AllowedOrigins,
    /// Who may say whom a connection is from.
    pub proxies: Proxies,
}

impl Doors {
    /// Reads all that `config` names: at the start, and for `ringcast check`.
    ///
    /// # Errors
    /// Names the setting or the file that is not right.
    pub fn open(config: &Config) -> Result<Doors, DoorsError> {
        Doors::read(config, None)
    }

    /// Reads all of it again. A random key is kept, since tokens signed with it are out there.
    ///
    /// # Errors
    /// Names the setting or the file that is not right; the doors stay as they are.
    pub fn reopen(&self, config: &Config) -> Result<Doors, DoorsError> {
        Doors::read(config, Some(self))
    }

    /// What works but is hardly meant, each with what to do.
    pub fn doubts(&self, unix_ms: u64) -> Vec<String> {
        self.tls.as_ref().map_or_else(Vec::new, |tls| tls.doubts(unix_ms))
    }

    /// Doors that know these tokens and nothing else.
    #[cfg(test)]
    pub(crate) fn with_tokens(tokens: Tokens) -> Doors {
        Doors {
            tokens: Arc::new(tokens),
            keys: KeySource::Shared,
            tls: None,
            origins: Config::default().origins,
            allowed_origins: AllowedOrigins::default(),
            proxies: Proxies::default(),
        }
    }

    fn read(config: &Config, before: Option<&Doors>) -> Result<Doors, DoorsError> {
        let (tokens, keys) = match (keys::tokens(config)?, before) {
            ((_, KeySource::Random), Some(before)) if before.keys == KeySource::Random => {
                (Arc::clone(&before.tokens), KeySource::Random)
            }
            ((tokens, source), _) => (Arc::new(tokens), source),
        };
        let tls = tls::Tls::read(&config.tls, before.and_then(|before| before.tls.as_ref()))?;
        Ok(Doors {
            tokens,
            keys,
            tls,
            origins: config.origins.clone(),
            allowed_origins: config.allowed_origins.clone(),
            proxies: config.proxies.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn with_key(key: &str) -> Config {
        Config {
            auth_key: Some(Secret::new(key)),
            ..Config::default()
        }
    }

    #[test]
    fn a_random_key_survives_a_reload_and_a_configured_one_is_read_again() {
        let random = Doors::open(&Config::default()).unwrap();
        let again = random.reopen(&Config::default()).unwrap();
        assert!(Arc::ptr_eq(&random.tokens, &again.tokens));

        let first = random.reopen(&with_key("one")).unwrap();
        let token = first.tokens.sign("{}", None, 0).unwrap();
        assert!(
            first
                .reopen(&with_key("one"))
                .unwrap()
                .tokens
                .verify(&token, 0)
                .is_ok()
        );
        let second = first.reopen(&with_key("two")).unwrap();
        assert!(second.tokens.verify(&token, 0).is_err());
        let random = second.reopen(&Config::default()).unwrap();
        assert_eq!(random.keys, KeySource::Random);
        assert!(random.tokens.verify(&token, 0).is_err());
    }
}
