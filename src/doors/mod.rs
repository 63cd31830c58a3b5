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
use crate::auth::passwords::Users;
use crate::auth::rules::Rules;
use crate::client::origin::AllowedOrigins;
use crate::clock::Clock;
use crate::config::{Config, Proxies};
use crate::login::backoff::{self, Policy};
use crate::login::{self, LoginDesk};

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
    /// Those who have a password; `None` if nobody can log in with one.
    pub users: Option<Arc<Users>>,
    /// Where passwords are checked, once it [is open](Doors::open_desk).
    pub login: Option<LoginDesk>,
    /// What is doubtful about the files that were read.
    warnings: Vec<login::Warning>,
    /// What clients may do.
    pub rules: Arc<Rules>,
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
        let mut doubts: Vec<_> = self.warnings.iter().map(ToString::to_string).collect();
        if let Some(tls) = &self.tls {
            doubts.extend(tls.doubts(unix_ms));
        }
        doubts
    }

    /// Opens the login desk if there are users and it is not open yet: for a server, which alone needs its threads.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn open_desk(mut self, config: &Config, clock: Clock) -> Result<Doors, DoorsError> {
        if let (Some(users), None) = (&self.users, &self.login) {
            let desk = LoginDesk::open(desk_settings(config), Arc::clone(users), clock);
            self.login = Some(desk.map_err(DoorsError::Desk)?);
        }
        Ok(self)
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
            users: None,
            login: None,
            warnings: Vec::new(),
            rules: Arc::default(),
        }
    }

    fn read(config: &Config, before: Option<&Doors>) -> Result<Doors, DoorsError> {
        let (tokens, keys) = match (keys::tokens(config)?, before) {
            ((_, KeySource::Random), Some(before)) if before.keys == KeySource::Random => {
                (Arc::clone(&before.tokens), KeySource::Random)
            }
            ((tokens, source), _) => (Arc::new(tokens), source),
        };
        let rules = Rules::compile(
            &config.rules,
            &config.shadow_rules,
            config.rules_separator,
            before.map(|before| &before.rules),
        )?;
        let tls = tls::Tls::read(&config.tls, before.and_then(|before| before.tls.as_ref()))?;
        let (users, warnings) = match &config.password_file {
            Some(file) => {
                let (users, warnings) = login::read(file)?;
                (Some(Arc::new(users)), warnings)
            }
            None => (None, Vec::new()),
        };
        let desk_before = before.and_then(|before| before.login.as_ref());
        let login = desk_before.zip(users.as_ref());
        Ok(Doors {
            tokens,
            keys,
            rules,
            tls,
            origins: config.origins.clone(),
            allowed_origins: config.allowed_origins.clone(),
            proxies: config.proxies.clone(),
            login: login.map(|(desk, users)| desk.with_users(Arc::clone(users))),
            users,
            warnings,
        })
    }
}

fn desk_settings(config: &Config) -> login::Settings {
    let limits = &config.limits;
    login::Settings {
        threads: config.login_threads,
        waiting_max: limits.logins_waiting_max,
        policy: Policy {
            failures_max: limits.login_failures_max,
            delay_first: backoff::DELAY_FIRST,
            delay_max: limits.login_backoff_max,
            accounts_max: limits.login_accounts_max,
        },
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
