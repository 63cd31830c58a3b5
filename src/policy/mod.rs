//! The policy: keys, users, rules and other values that decide which clients may connect and which actions are allowed.
//! All cores share it.
//!
//! One immutable value, read from the configuration and the files that it names. A reload makes a new policy,
//! and each core adopts it between two events of a turn (`Order::Adopt`): no decision is made by both, and nothing
//! waits for the change.
//!
//! Not here: how tokens are checked (`auth`), and when the policy is consulted (the sessions).

pub mod channels;
mod error;
mod keys;
mod revocations;
pub mod services;
pub mod tls;

use std::sync::Arc;

use self::channels::Channels;
pub use self::error::PolicyError;
pub(crate) use self::keys::SET_BYTES_MAX;
pub use self::keys::{KeySource, KeysError};
pub use self::revocations::RevocationsError;
pub(crate) use self::revocations::RevocationsFile;
use self::services::Services;
use crate::auth::api_keys::ApiKeys;
use crate::auth::passwords::Users;
use crate::auth::rules::{Rules, separator_byte};
use crate::auth::{FetchRequest, KeySet, Revocations, Tokens};
use crate::client::origin::AllowedOrigins;
use crate::clock::Clock;
use crate::config::{Config, Proxies};
use crate::hooks::{Hooks, Subject};
use crate::login::backoff::{self, BackoffPolicy};
use crate::login::{self, PasswordChecks};
use crate::webhooks::Webhooks;

/// Decides which clients may connect and which actions they may do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Signs and verifies tokens, and holds the revocations.
    pub tokens: Arc<Tokens>,
    /// Where the key that signs tokens comes from.
    pub keys: KeySource,
    /// The TLS configurations of new connections; `None` if no listener uses TLS.
    pub tls: Option<tls::TlsPolicy>,
    /// The origins that may connect, in the reference server's own format.
    pub origins: String,
    /// The origins that may connect, as an exact list.
    pub allowed_origins: AllowedOrigins,
    /// The proxies that are trusted to name a connection's client.
    pub proxies: Proxies,
    /// The users with passwords; `None` if there is no password file.
    pub users: Option<Arc<Users>>,
    /// Checks passwords at logins; `None` until it [is started](Policy::start_password_checks).
    pub login: Option<PasswordChecks>,
    /// Warnings about the files that were read.
    warnings: Vec<String>,
    /// The permissions of clients.
    pub rules: Arc<Rules>,
    /// The policies of channels.
    pub channels: Arc<Channels>,
    /// The terms of services.
    pub services: Arc<Services>,
    /// The keys of the HTTP API, with the actions that each allows.
    pub api_keys: Arc<ApiKeys>,
    /// The URLs to which the server sends events.
    pub webhooks: Arc<Webhooks>,
    /// Hooks, by which other programs decide about clients; `None` without hooks.
    pub(crate) hooks: Option<Arc<Hooks>>,
}

impl Policy {
    /// Reads everything that `config` names: at the start, and for `ringcast check`.
    ///
    /// # Errors
    /// Names the setting or the file that is wrong.
    pub fn open(config: &Config) -> Result<Policy, PolicyError> {
        Policy::read(config, None)
    }

    /// All errors in the files that `config` names, for `ringcast check`. [`Policy::open`]
    /// stops at the first fault.
    pub fn faults(config: &Config) -> Vec<PolicyError> {
        let mut faults: Vec<PolicyError> = keys::faults(config).into_iter().map(PolicyError::from).collect();
        if let Some(file) = &config.auth.revocations_file {
            faults.extend(RevocationsFile::new(file).read().err().map(PolicyError::from));
        }
        let rules = Rules::faults(
            &config.permissions.rules,
            &config.permissions.shadow_rules,
            config.permissions.rules_separator,
        );
        faults.extend(rules.into_iter().map(PolicyError::List));
        let services = Services::faults(&config.services);
        faults.extend(services.into_iter().map(PolicyError::List));
        if let Ok(separator) = separator_byte(config.permissions.rules_separator) {
            let channels = Channels::faults(&config.channels, separator);
            faults.extend(channels.into_iter().map(PolicyError::List));
            let api_keys = ApiKeys::compile(&config.admin.api_keys, separator, None);
            faults.extend(api_keys.err().map(PolicyError::List));
            let webhooks = Webhooks::faults(config, separator);
            faults.extend(webhooks.into_iter().map(PolicyError::List));
            let hooks = Hooks::faults(&config.hooks, separator);
            faults.extend(hooks.into_iter().map(PolicyError::List));
        }
        if config.speaks_tls() {
            let tls = tls::TlsPolicy::faults(&config.tls).into_iter();
            faults.extend(tls.map(PolicyError::from));
        }
        if let Some(file) = &config.login.password_file {
            faults.extend(login::read(file).err().map(PolicyError::from));
        }
        faults
    }

    /// Reads everything again, for a reload. A random key is kept, since clients have tokens that it signed;
    /// so are fetched keys, and the revocations, whose file only this process writes.
    ///
    /// # Errors
    /// The error names the faulty setting or file. The policy in force does not change.
    pub fn reopen(&self, config: &Config) -> Result<Policy, PolicyError> {
        Policy::read(config, Some(self))
    }

    /// This policy, read a moment ago, with the fetched keys and the revocations of `current`, which may have
    /// changed meanwhile.
    #[must_use]
    pub fn with_runtime_state_of(&self, current: &Policy) -> Policy {
        let tokens = self.tokens.as_ref().clone();
        let tokens = tokens.with_revocations(current.tokens.revocations().clone());
        self.with(match current.tokens.fetched() {
            Some(fetched) => tokens.with_fetched(Arc::clone(fetched)),
            None => tokens,
        })
    }

    /// Settings that work but are probably not intended, each with what to do.
    pub fn warnings(&self, unix_ms: u64) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.extend(self.channels.warnings());
        warnings.extend(self.webhooks.warnings());
        if let Some(tls) = &self.tls {
            warnings.extend(tls.warnings(unix_ms));
        }
        warnings
    }

    /// Starts the password checks if there are users and no checks yet. Only a server needs their threads.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start_password_checks(mut self, config: &Config, clock: Clock) -> Result<Policy, PolicyError> {
        if let (Some(users), None) = (&self.users, &self.login) {
            let password_checks =
                PasswordChecks::open(password_check_settings(config), Arc::clone(users), clock);
            self.login = Some(password_checks.map_err(PolicyError::PasswordChecks)?);
        }
        Ok(self)
    }

    /// Whether a hook is asked about clients that connect, and may give them claims.
    pub(crate) fn asks_about_connect(&self) -> bool {
        let hooks = self.hooks.as_ref();
        hooks.is_some_and(|hooks| hooks.find(&Subject::Connect(None)).is_some())
    }

    /// Starts the thread that asks hooks, if there are hooks and no thread yet. Only a server needs it.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start_hooks(mut self) -> Result<Policy, PolicyError> {
        if let Some(hooks) = &self.hooks {
            self.hooks = Some(hooks.started().map_err(PolicyError::Hooks)?);
        }
        Ok(self)
    }

    /// This policy with a newly fetched set of keys instead of the former one.
    #[must_use]
    pub fn with_fetched(&self, set: Arc<KeySet>) -> Policy {
        self.with(self.tokens.as_ref().clone().with_fetched(set))
    }

    /// This policy with other revocations.
    #[must_use]
    pub fn with_revocations(&self, revocations: Revocations) -> Policy {
        self.with(self.tokens.as_ref().clone().with_revocations(revocations))
    }

    fn with(&self, tokens: Tokens) -> Policy {
        Policy {
            tokens: Arc::new(tokens),
            ..self.clone()
        }
    }

    /// A policy with these tokens and nothing else.
    #[cfg(test)]
    pub(crate) fn with_tokens(tokens: Tokens) -> Policy {
        Policy {
            tokens: Arc::new(tokens),
            keys: KeySource::Shared,
            tls: None,
            origins: Config::default().listen.origins,
            allowed_origins: AllowedOrigins::default(),
            proxies: Proxies::default(),
            users: None,
            login: None,
            warnings: Vec::new(),
            rules: Arc::default(),
            channels: Arc::default(),
            services: Arc::default(),
            api_keys: Arc::default(),
            webhooks: Arc::default(),
            hooks: None,
        }
    }

    /// This policy with password checks, which know no user.
    #[cfg(test)]
    pub(crate) fn with_password_checks(mut self) -> Policy {
        let users = crate::auth::passwords::PasswordFile::default().users();
        self.users = Some(Arc::new(users.expect("an empty file is no fault")));
        self.start_password_checks(&Config::default(), Clock::begin())
            .expect("the system gives a thread")
    }

    fn read(config: &Config, before: Option<&Policy>) -> Result<Policy, PolicyError> {
        let mut warnings = Vec::new();
        let (mut tokens, keys) = keys::tokens(config, before.map(|before| &before.keys))?;
        match before {
            Some(before) => {
                // A restart that gets keys from another source than before would lose every client its token,
                // so a reload refuses it.
                if config.jwks.url.is_some() != before.tokens.fetch_request().is_some() {
                    return Err(PolicyError::JwksUrlChanged);
                }
                tokens = tokens.with_revocations(before.tokens.revocations().clone());
                // Whether keys are fetched is decided at the start.
                if let Some(fetch_request) = before.tokens.fetch_request() {
                    tokens = tokens.with_fetch_request(Arc::clone(fetch_request));
                }
                if let Some(fetched) = before.tokens.fetched() {
                    tokens = tokens.with_fetched(Arc::clone(fetched));
                }
            }
            None => {
                if let Some(file) = &config.auth.revocations_file {
                    let (revocations, of_file) = RevocationsFile::new(file).read()?;
                    warnings.extend(of_file.iter().map(ToString::to_string));
                    tokens = tokens.with_revocations(revocations);
                }
                if config.jwks.url.is_some() {
                    tokens = tokens.with_fetch_request(Arc::new(FetchRequest::default()));
                }
            }
        }
        let rules = Rules::compile(
            &config.permissions.rules,
            &config.permissions.shadow_rules,
            config.permissions.rules_separator,
            before.map(|before| &before.rules),
        )?;
        let separator = separator_byte(config.permissions.rules_separator)?;
        let channels = Channels::compile(&config.channels, separator, before.map(|before| &before.channels))?;
        let services = Services::compile(&config.services, before.map(|before| &before.services))?;
        let api_keys = ApiKeys::compile(
            &config.admin.api_keys,
            separator,
            before.map(|before| &*before.api_keys),
        )?;
        let webhooks = Webhooks::compile(config, separator, before.map(|before| &before.webhooks))?;
        let hooks = Hooks::compile(
            &config.hooks,
            separator,
            before.and_then(|before| before.hooks.as_deref()),
        )?;
        let tls = tls::TlsPolicy::read(
            config.speaks_tls().then_some(&config.tls),
            before.and_then(|before| before.tls.as_ref()),
        )?;
        if let (Some(file), Some(set)) = (&config.jwks.file, tokens.file()) {
            let faults = set.unused_keys().iter().filter(|key| key.is_fault());
            warnings.extend(faults.map(|fault| format!("jwks_file: {}: {fault}", file.display())));
        }
        let users = match &config.login.password_file {
            Some(file) => {
                let (users, of_file) = login::read(file)?;
                warnings.extend(of_file.iter().map(ToString::to_string));
                Some(Arc::new(users))
            }
            None => None,
        };
        let checks_before = before.and_then(|before| before.login.as_ref());
        let login = checks_before.zip(users.as_ref());
        Ok(Policy {
            tokens: Arc::new(tokens),
            keys,
            rules,
            channels,
            services,
            api_keys,
            webhooks,
            hooks,
            tls,
            origins: config.listen.origins.clone(),
            allowed_origins: config.listen.allowed_origins.clone(),
            proxies: config.proxies.clone(),
            login: login.map(|(password_checks, users)| password_checks.with_users(Arc::clone(users))),
            users,
            warnings,
        })
    }
}

fn password_check_settings(config: &Config) -> login::PasswordCheckSettings {
    let limits = &config.limits;
    login::PasswordCheckSettings {
        threads: config.login.threads,
        waiting_max: limits.logins_waiting_max,
        nat64_prefixes: config.listen.translator_prefixes.clone(),
        policy: BackoffPolicy {
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
        let mut config = Config::default();
        config.auth.key = Some(Secret::new(key));
        config
    }

    #[test]
    fn a_reload_reads_the_users_again_and_keeps_the_password_checks() {
        let folder = std::env::temp_dir().join(format!("ringcast-policy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("users");
        let mut with_file = Config::default();
        with_file.login.password_file = Some(file.clone());
        let missing = Policy::open(&with_file).unwrap_err().to_string();
        assert!(
            missing.contains("cannot be read") && missing.contains("ringcast passwd -c"),
            "{missing}"
        );

        std::fs::write(&file, "").unwrap();
        let first = Policy::open(&with_file).unwrap();
        assert!(first.login.is_none(), "reading the policy starts no threads");
        let first = first.start_password_checks(&with_file, Clock::begin()).unwrap();
        assert_eq!(first.users.as_ref().map(|users| users.count()), Some(0));

        let line = format!("$7$1$AAAA${}==", "A".repeat(86));
        std::fs::write(&file, format!("alice:{line}")).unwrap();
        let second = first.reopen(&with_file).unwrap();
        assert_eq!(second.users.as_ref().map(|users| users.count()), Some(1));
        let checks = [&first, &second].map(|policy| policy.login.as_ref().unwrap().metrics());
        assert!(std::ptr::eq(checks[0], checks[1]));

        std::fs::write(&file, format!("alice:{line}\nbob:plain")).unwrap();
        let bad = second.reopen(&with_file).unwrap_err().to_string();
        assert!(
            bad.contains("users: line 2: ") && !bad.contains("plain\n"),
            "{bad}"
        );
        std::fs::write(&file, format!("alice:{}", line.replace("$1$", "$2147483647$"))).unwrap();
        assert!(second.reopen(&with_file).is_err());

        let without = second.reopen(&Config::default()).unwrap();
        assert!(without.login.is_none() && without.users.is_none());
        // A reload that adds a password file to a running server starts the password checks.
        std::fs::write(&file, "").unwrap();
        let again = without.reopen(&with_file).unwrap();
        assert!(
            again
                .start_password_checks(&with_file, Clock::begin())
                .unwrap()
                .login
                .is_some()
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_reload_changes_the_policies_of_channels_and_their_version_only_if_they_say_something_else() {
        let mut config = with_key("one");
        config.channels = vec![channels::ChannelSpec {
            names: vec!["room.*".to_owned()],
            ..channels::ChannelSpec::default()
        }];
        let first = Policy::open(&config).unwrap();
        config.channels[0].line = 3;
        let same = first.reopen(&config).unwrap();
        assert!(Arc::ptr_eq(&first.channels, &same.channels));
        config.channels[0].policy.last_value = true;
        let other = same.reopen(&config).unwrap();
        assert_eq!(other.channels.version(), first.channels.version() + 1);
        assert!(
            other
                .channels
                .find(b"room.a")
                .is_some_and(|policy| policy.last_value)
        );
        config.channels[0].names = vec!["room-*".to_owned()];
        assert!(other.reopen(&config).is_err() && Policy::faults(&config).len() == 1);
        config.permissions.rules_separator = '-';
        let dashes = other.reopen(&config).unwrap();
        assert!(dashes.channels.find(b"room-a").is_some() && dashes.channels.find(b"room.a").is_none());
    }

    #[test]
    fn a_random_key_survives_a_reload_and_a_configured_one_is_read_again() {
        let random = Policy::open(&Config::default()).unwrap();
        let token = random.tokens.sign("{}", None, 0).unwrap();
        let again = random.reopen(&Config::default()).unwrap();
        assert!(again.tokens.verify(&token, 0).is_ok());

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
        assert!(matches!(random.keys, KeySource::Random(_)));
        assert!(random.tokens.verify(&token, 0).is_err());
    }

    #[test]
    fn fetched_keys_and_revocations_survive_a_reload_and_only_a_start_turns_fetching_on() {
        let mut fetching = with_key("one");
        fetching.jwks.url = Some("https://id.example/".to_owned());
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/jwt/jwks.json")).unwrap();
        let pair = &vectors["pairs"][6];
        let set = serde_json::json!({ "keys": [pair["public_jwk"]] }).to_string();
        let set = KeySet::parse(&set, crate::auth::SetOrigin::Fetched).unwrap();
        let mut revocations = Revocations::default();
        let what = crate::auth::Revoked::parse(r#"{"sub":"bob"}"#).unwrap();
        revocations
            .insert(&crate::auth::Revocation::new(what, 5, 10))
            .unwrap();
        let policy = Policy::open(&fetching)
            .unwrap()
            .with_fetched(Arc::new(set))
            .with_revocations(revocations)
            .reopen(&fetching)
            .unwrap();
        assert!(policy.tokens.verify(pair["token"].as_str().unwrap(), 0).is_ok());
        assert_eq!(policy.tokens.revocations().len(), 1);
        assert!(matches!(
            policy.reopen(&with_key("one")),
            Err(PolicyError::JwksUrlChanged)
        ));
        let without = Policy::open(&with_key("one")).unwrap();
        assert!(matches!(
            without.reopen(&fetching),
            Err(PolicyError::JwksUrlChanged)
        ));
    }
}
