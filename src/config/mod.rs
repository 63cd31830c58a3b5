//! The settings of a server: the typed tree, complete with defaults, so that the library runs without any file.
//!
//! Each section is a struct in a file of its own, with a row for each setting; the head of `settings` describes a row.
//! `load` merges flags, environment and file. After the start no code reads the environment: these values are final.

mod admin;
pub mod api_keys;
mod auth;
mod boilerplate;
pub mod channels;
mod conflicts;
mod cores;
mod credentials;
mod delivery;
mod environment;
pub(crate) mod error;
mod form;
pub mod hooks;
mod jwks;
pub mod limits;
mod list;
mod listen;
pub(crate) mod load;
mod log;
mod login;
mod mqtt;
mod nearest;
mod permissions;
mod proxies;
mod restart;
pub mod rules;
pub mod secret;
pub mod services;
pub(crate) mod settings;
mod socketcluster;
mod store;
pub mod target_url;
pub(crate) mod text_file;
pub mod tls;
mod toml_file;
pub(crate) mod unknown;
mod warnings;
pub mod webhooks;

pub use crate::client::network::{Nat64Prefixes, NotNat64Prefixes};
pub use crate::client::networks::{Networks, NotNetworks};
pub use crate::client::origin::{AllowedOrigins, NotOrigins};
pub use crate::log::Format as LogFormat;
pub use admin::{Admin, KeylessProbes};
pub use auth::{AUTH_ALGORITHMS, Auth};
pub use conflicts::Conflict;
pub use cores::{Cores, FdTables, NotPlacement, Placement};
pub use delivery::{Delivery, SlowConsumer};
pub use error::{ConfigError, ConfigErrors, ListFault};
pub(crate) use form::Kind;
pub use jwks::Jwks;
pub use limits::Limits;
pub use listen::{AcceptExcess, Listen, WelcomePage};
pub use load::{ConfigSources, Loaded, Source};
pub use log::Log;
pub use login::Login;
pub use mqtt::{ClientProtocols, Mqtt, QueueFull, ReceiveExcess, TokenIn};
pub use permissions::{Anonymous, Permissions};
pub use proxies::Proxies;
pub use restart::Restart;
pub use socketcluster::{Codec, Protocol, SocketCluster, TlsCodec};
pub use store::{Store, StoreMode};
pub use tls::Tls;
pub use warnings::Warning;

use std::net::SocketAddr;

use settings::Setting;
use tls::ClientAuth;

/// All settings of a server, by section.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Event loops.
    pub cores: Cores,
    /// The address for clients.
    pub listen: Listen,
    /// The proxies in front.
    pub proxies: Proxies,
    /// The control plane.
    pub admin: Admin,
    /// Tokens and the keys that sign and check them.
    pub auth: Auth,
    /// TLS.
    pub tls: Tls,
    /// Logins with a name and a password.
    pub login: Login,
    /// Sets of keys for tokens.
    pub jwks: Jwks,
    /// What clients may do.
    pub permissions: Permissions,
    /// What the server keeps of channels: the first policy that matches a channel's name applies to it.
    pub channels: Vec<channels::ChannelSpec>,
    /// How calls of services are made: of the rows that cover a pattern, the longest applies.
    pub services: Vec<services::ServiceSpec>,
    /// URLs to which the server sends events.
    pub webhooks: Vec<webhooks::WebhookSpec>,
    /// Decisions about clients that other programs make: the first hook that matches an action decides it.
    pub hooks: Vec<hooks::HookSpec>,
    /// The SocketCluster protocol.
    pub socketcluster: SocketCluster,
    /// MQTT.
    pub mqtt: Mqtt,
    /// How publications reach subscribers.
    pub delivery: Delivery,
    /// The store of remembered channels on disk.
    pub store: Store,
    /// The start and the end of the process.
    pub restart: Restart,
    /// The log.
    pub log: Log,
    /// The bounds.
    pub limits: Limits,
}

/// All settings, in the order in which they are shown.
#[doc(hidden)] // for the command line
pub static SETTINGS: &[Setting] = &joined::<{ count(SECTIONS) }>(SECTIONS);

/// The sections, in the order in which they are shown.
const SECTIONS: &[&[Setting]] = &[
    Cores::SETTINGS,
    Listen::SETTINGS,
    Proxies::SETTINGS,
    Admin::SETTINGS,
    Auth::SETTINGS,
    Jwks::SETTINGS,
    Tls::SETTINGS,
    Login::SETTINGS,
    Permissions::SETTINGS,
    SocketCluster::SETTINGS,
    Mqtt::SETTINGS,
    Delivery::SETTINGS,
    Store::SETTINGS,
    Restart::SETTINGS,
    Log::SETTINGS,
    Limits::SETTINGS,
];

const fn count(sections: &[&[Setting]]) -> usize {
    let (mut count, mut section) = (0, 0);
    while section < sections.len() {
        count += sections[section].len();
        section += 1;
    }
    count
}

/// The rows of all sections, one after the other. The compiler runs this, and loops in constants are written so.
const fn joined<const COUNT: usize>(sections: &[&[Setting]]) -> [Setting; COUNT] {
    let mut all = [sections[0][0]; COUNT];
    let (mut at, mut section) = (0, 0);
    while section < sections.len() {
        let mut row = 0;
        while row < sections[section].len() {
            all[at] = sections[section][row];
            at += 1;
            row += 1;
        }
        section += 1;
    }
    all
}

impl Config {
    /// Whether unauthenticated clients are served.
    pub fn serves_anonymous(&self) -> bool {
        match self.permissions.allow_anonymous {
            Anonymous::Auto => self.listens_on_loopback_only(),
            Anonymous::On => true,
            Anonymous::Off => false,
        }
    }

    /// Whether only authenticated clients are served and, with the built-in application, no client can authenticate: no
    /// other program has a key that signs tokens, there is no password file, and the server asks for no certificate.
    pub fn admits_no_client(&self) -> bool {
        let by_certificate = self.speaks_tls() && self.tls.client_auth != ClientAuth::Off;
        !self.serves_anonymous()
            && self.has_random_key()
            && self.login.password_file.is_none()
            && !by_certificate
    }

    /// Whether a probe of the control plane needs no key.
    pub fn allows_probes_without_key(&self) -> bool {
        match self.admin.probes_without_key {
            KeylessProbes::Auto => self.admin.address.is_none_or(|admin| admin.ip().is_loopback()),
            KeylessProbes::On => true,
            KeylessProbes::Off => false,
        }
    }

    /// Whether `/` on the client port is the page on which the server can be tried out. `auto` shows it only where no
    /// other machine can see it: neither on an address beyond loopback, nor behind a proxy on this machine.
    pub fn shows_welcome_page(&self) -> bool {
        match self.listen.welcome_page {
            WelcomePage::Auto => self.listens_on_loopback_only() && self.proxies.trusted.is_empty(),
            WelcomePage::On => true,
            WelcomePage::Off => false,
        }
    }

    fn listens_on_loopback_only(&self) -> bool {
        self.client_addresses()
            .all(|(_, address)| address.ip().is_loopback())
    }

    /// The addresses for clients, each with its setting.
    pub(crate) fn client_addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let addresses = [
            ("listen", Some(self.listen.address)),
            ("tls_listen", self.tls.listen),
            ("mqtt_listen", self.mqtt.listen),
            ("mqtt_tls_listen", self.mqtt.tls_listen),
        ];
        addresses
            .into_iter()
            .filter_map(|(setting, address)| Some((setting, address?)))
    }

    /// Whether anything speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_used() || self.mqtt.tls_listen.is_some()
    }

    /// Whether no key is configured, so that the server makes a random one.
    pub fn has_random_key(&self) -> bool {
        self.auth.key.is_none()
            && self.auth.public_key_file.is_none()
            && self.jwks.file.is_none()
            && self.jwks.url.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;
    use crate::config::tls::OnListen;

    #[test]
    fn auto_serves_unauthenticated_clients_only_on_loopback_addresses() {
        for (listen, tls_listen, setting, expected) in [
            ("127.0.0.1:0", None, Anonymous::Auto, true),
            ("127.9.9.9:0", None, Anonymous::Auto, true),
            ("[::1]:0", Some("127.0.0.1:1"), Anonymous::Auto, true),
            ("127.0.0.1:0", Some("0.0.0.0:8443"), Anonymous::Auto, false),
            ("0.0.0.0:0", None, Anonymous::Auto, false),
            ("[::]:0", None, Anonymous::Auto, false),
            ("[::ffff:127.0.0.1]:0", None, Anonymous::Auto, false),
            ("192.0.2.1:0", None, Anonymous::Auto, false),
            ("0.0.0.0:0", None, Anonymous::On, true),
            ("127.0.0.1:0", None, Anonymous::Off, false),
        ] {
            let mut config = Config::default();
            config.listen.address = listen.parse().unwrap();
            config.permissions.allow_anonymous = setting;
            config.tls.listen = tls_listen.map(|address| address.parse().unwrap());
            assert_eq!(config.serves_anonymous(), expected, "{listen} {tls_listen:?}");
        }
    }

    #[test]
    fn a_server_admits_no_client_without_a_way_to_authenticate() {
        let mut with_key = Config::default();
        with_key.auth.key = Some(Secret::new([1; 32]));
        with_key.listen.address = "0.0.0.0:8000".parse().unwrap();
        let mut closed = Config::default();
        closed.listen.address = "0.0.0.0:8000".parse().unwrap();
        assert!(
            closed.admits_no_client()
                && !Config::default().admits_no_client()
                && !with_key.admits_no_client()
        );
        closed.login.password_file = Some("passwords".into());
        assert!(!closed.admits_no_client());
        closed.login.password_file = None;
        closed.tls.client_auth = ClientAuth::Optional;
        assert!(closed.admits_no_client(), "certificates without TLS");
        closed.tls.on_listen = OnListen::Only;
        assert!(!closed.admits_no_client());
        closed.tls.client_auth = ClientAuth::Off;
        closed.permissions.allow_anonymous = Anonymous::On;
        assert!(!closed.admits_no_client());
    }
}
