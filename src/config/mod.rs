//! What an operator can set: the typed tree, complete with defaults, so that the library runs without any file.
//!
//! [`options`] names each setting once, [`load`] reads them from flags, environment and file. After the start no code
//! reads the environment: these values are final.

mod credentials;
mod environment;
mod jwks;
pub mod limits;
pub mod load;
pub mod options;
pub mod rules;
pub mod secret;
pub(crate) mod text_file;
pub mod tls;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::client::network::Nat64Prefixes;
use crate::client::networks::Networks;
use crate::client::origin::AllowedOrigins;
use crate::log::Format;
use limits::{AcceptExcess, Limits, SlowConsumer};
use rules::RuleSpec;
use secret::Secret;
use tls::{ClientAuth, OnListen, Tls};

/// All settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many event loops there are, and on which CPUs.
    pub cores: Cores,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Which SocketCluster protocol is spoken.
    pub protocol: Protocol,
    /// Path of the WebSocket endpoint; begins with `/`.
    pub path: String,
    /// Paths at which a plain request is told whether clients are served.
    pub probe_paths: Vec<String>,
    /// Whether the root of the client port is a page to try the server out with.
    pub welcome_page: WelcomePage,
    /// Origins that may connect, in the reference's syntax: `*:*`, or a list of `host:port`, `host:*`, `*:port`.
    pub origins: String,
    /// Origins that may connect, compared exactly; empty for whatever `origins` allows.
    pub allowed_origins: AllowedOrigins,
    /// Who may say whom a connection is from.
    pub proxies: Proxies,
    /// The prefixes by which clients of IPv4 come as clients of IPv6, besides those that everybody knows.
    pub translator_prefixes: Nat64Prefixes,
    /// Where the control plane listens; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// What requests to the control plane must bear; required on an address that is not loopback.
    pub admin_key: Option<Secret>,
    /// Names by which the control plane may be asked without its key, beside addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// Whether `/healthz` and `/readyz` of the control plane are answered without the key.
    pub probes_without_key: KeylessProbes,
    /// The key that signs and checks tokens; a random one without it and without key files.
    pub auth_key: Option<Secret>,
    /// The algorithm of tokens, one of [`AUTH_ALGORITHMS`]; by the key's kind if `None`.
    pub auth_algorithm: Option<String>,
    /// A PEM file with the private key that signs tokens.
    pub auth_private_key_file: Option<PathBuf>,
    /// A PEM file with the public key that checks tokens.
    pub auth_public_key_file: Option<PathBuf>,
    /// Users and their passwords, as `ringcast passwd` and `mosquitto_passwd` write them; nobody logs in without it.
    pub password_file: Option<PathBuf>,
    /// Passwords that are checked at a time.
    pub login_threads: u32,
    /// Path of the page that takes a login; its neighbours are `logout` and `whoami`. Begins with `/`.
    pub login_path: String,
    /// Name of the cookie that holds a token.
    pub login_cookie: String,
    /// How the field of a login with the user's name may be called; of those that are there, the first counts.
    pub login_user_fields: Vec<String>,
    /// The same for the password.
    pub login_password_fields: Vec<String>,
    /// Whether clients that are not authenticated are served.
    pub allow_anonymous: Anonymous,
    /// The id of the key above, in the header `kid` of tokens.
    pub auth_key_id: Option<String>,
    /// A file with a set of keys in JSON (RFC 7517); private keys and secrets in it sign.
    pub jwks_file: Option<PathBuf>,
    /// Where a set of public keys is fetched: `https://`, or `http://` for networks that are trusted.
    pub jwks_url: Option<String>,
    /// How often it is fetched; whole seconds.
    pub jwks_refresh: Duration,
    /// Issuers of which a token must name one; any if there is none.
    pub auth_issuer: Vec<String>,
    /// Audiences of which a token must name one; any if there is none.
    pub auth_audience: Vec<String>,
    /// By how many seconds the clocks of those who sign tokens may differ from ours.
    pub auth_leeway_seconds: u16,
    /// Where revocations are kept for the next start.
    pub revocations_file: Option<PathBuf>,
    /// How long a revocation lasts: as long as the longest life of a token; whole seconds.
    pub revocation_keep: Duration,
    /// How long a token is valid that the application signs without saying so; whole seconds.
    pub auth_default_expiry: Duration,
    /// Whether connections are pinged and must answer; clients need the same setting.
    pub pings: bool,
    /// Time between two pings to a connection; whole milliseconds.
    pub ping_interval: Duration,
    /// How long a connection may be silent; whole milliseconds, at most 2147483647.
    pub ping_timeout: Duration,
    /// How long a client may take to answer a call of the server's; whole milliseconds.
    pub ack_timeout: Duration,
    /// Whether clients may publish.
    pub allow_client_publish: bool,
    /// What clients may do: the first rule that matches decides, and without one it is refused. Without any rules,
    /// everything is allowed.
    pub rules: Vec<RuleSpec>,
    /// Rules that are tried out: what they would decide otherwise is counted, and not done.
    pub shadow_rules: Vec<RuleSpec>,
    /// What parts the segments of names in rules: one character of ASCII.
    pub rules_separator: char,
    /// What happens to a subscriber that does not keep up.
    pub slow_consumer: SlowConsumer,
    /// What happens to connections that come while there is no room, or too fast.
    pub accept_excess: AcceptExcess,
    /// Whether messages may be compressed (permessage-deflate), for clients that offer it.
    pub compression: bool,
    /// The shortest message that is compressed, in bytes.
    pub compression_bytes_min: u32,
    /// How long a turn at least sends publications to many, and heartbeats, before it answers calls again; whole
    /// microseconds. A turn that took longer before sends for as long, so that calls cannot keep publications from
    /// leaving.
    pub fan_out_slice: Duration,
    /// How long a core that has nothing to do looks for more before it sleeps, unless it shares its CPU with another; whole
    /// microseconds.
    pub busy_poll: Duration,
    /// Whether this start may share addresses with a process that listens there already, and take over its sockets.
    pub take_over: bool,
    /// Over how long a drain spreads the ends of its connections; whole seconds.
    pub drain: Duration,
    /// How long a core may stand still before `/healthz` and `/readyz` answer 503; whole milliseconds.
    pub liveness_timeout: Duration,
    /// Whether each core has its own descriptor table.
    pub fd_tables: FdTables,
    /// Connections that may wait to be accepted, per core; the system may allow fewer.
    pub tcp_backlog: i32,
    /// Which log lines are written, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// What a log line looks like.
    pub log_format: Format,
    /// TLS.
    pub tls: Tls,
    /// The bounds.
    pub limits: Limits,
}

/// The proxies in front, and how they name the client that they ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Their addresses. Nobody else is believed.
    pub trusted: Networks,
    /// Whether connections from them begin with a PROXY header; then all of them must.
    pub proxy_protocol: bool,
    /// Whether their `X-Forwarded-For` is heeded.
    pub x_forwarded_for: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cores: Cores::Auto,
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            protocol: Protocol::Auto,
            path: "/socketcluster/".to_owned(),
            probe_paths: ["/health-check", "/healthz"].map(str::to_owned).to_vec(),
            welcome_page: WelcomePage::Auto,
            origins: "*:*".to_owned(),
            allowed_origins: AllowedOrigins::default(),
            proxies: Proxies::default(),
            translator_prefixes: Nat64Prefixes::default(),
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
            admin_key: None,
            admin_hosts: Vec::new(),
            probes_without_key: KeylessProbes::Auto,
            auth_key: None,
            auth_algorithm: None,
            auth_private_key_file: None,
            auth_public_key_file: None,
            password_file: None,
            login_threads: 1,
            login_path: "/login".to_owned(),
            login_cookie: "ringcast".to_owned(),
            login_user_fields: ["email", "user", "username"].map(str::to_owned).to_vec(),
            login_password_fields: ["pw", "password"].map(str::to_owned).to_vec(),
            allow_anonymous: Anonymous::Auto,
            auth_key_id: None,
            jwks_file: None,
            jwks_url: None,
            jwks_refresh: Duration::from_secs(300),
            auth_issuer: Vec::new(),
            auth_audience: Vec::new(),
            auth_leeway_seconds: 0,
            revocations_file: None,
            revocation_keep: Duration::from_secs(30 * 86_400),
            auth_default_expiry: Duration::from_secs(86_400),
            pings: true,
            ping_interval: Duration::from_millis(8000),
            ping_timeout: Duration::from_millis(30_000),
            ack_timeout: Duration::from_millis(10_000),
            allow_client_publish: true,
            rules: Vec::new(),
            shadow_rules: Vec::new(),
            rules_separator: '.',
            slow_consumer: SlowConsumer::Close,
            accept_excess: AcceptExcess::Wait,
            compression: false,
            compression_bytes_min: 1024,
            fan_out_slice: Duration::from_micros(500),
            busy_poll: Duration::ZERO,
            take_over: false,
            drain: Duration::from_secs(10),
            liveness_timeout: Duration::from_secs(5),
            fd_tables: FdTables::Auto,
            tcp_backlog: 4096,
            log: "info".to_owned(),
            log_format: Format::Text,
            tls: Tls::default(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Whether the settings go together; those that cannot are refused before anything starts.
    ///
    /// # Errors
    /// The first that do not; [`Config::conflicts`] has all.
    pub fn check(&self) -> Result<(), Conflict> {
        self.conflicts().into_iter().next().map_or(Ok(()), Err)
    }

    /// All settings that do not go together.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        if let Some(admin) = self.admin {
            if !admin.ip().is_loopback() && self.admin_key.is_none() {
                conflicts.push(Conflict::AdminWithoutKey(admin));
            }
            if admin == self.listen && admin.port() != 0 {
                conflicts.push(Conflict::SameAddress(admin));
            }
        }
        if self.auth_private_key_file.is_some() && self.auth_public_key_file.is_none() {
            conflicts.push(Conflict::PrivateKeyAlone);
        }
        if self.auth_key.is_some() && self.auth_public_key_file.is_some() {
            conflicts.push(Conflict::TwoKeys);
        }
        self.tls.conflicts(self.listen, self.admin, &mut conflicts);
        if self.proxies.trusted.is_empty() {
            let heeded = [
                (self.proxies.proxy_protocol, "proxy_protocol"),
                (self.proxies.x_forwarded_for, "x_forwarded_for"),
            ];
            let heeded = heeded.into_iter().filter(|(is_on, _)| *is_on);
            conflicts.extend(heeded.map(|(_, name)| Conflict::NobodyTrusted(name)));
        }
        if let Some(name) = self
            .login_user_fields
            .iter()
            .find(|name| self.login_password_fields.contains(name))
        {
            conflicts.push(Conflict::SameField(name.clone()));
        }
        if self.password_file.is_some()
            && self.auth_public_key_file.is_some()
            && self.auth_private_key_file.is_none()
        {
            conflicts.push(Conflict::LoginWithoutKey);
        }
        conflicts
    }

    /// Whether clients that are not authenticated are served.
    pub fn serves_anonymous(&self) -> bool {
        match self.allow_anonymous {
            Anonymous::Auto => self.listens_on_loopback_only(),
            Anonymous::On => true,
            Anonymous::Off => false,
        }
    }

    /// Whether only authenticated clients are served and, with the built-in application, none can become authenticated: no
    /// token can be signed elsewhere, nobody has a password, and no certificate is asked for.
    pub fn admits_nobody(&self) -> bool {
        let by_certificate = self.tls.is_used() && self.tls.client_auth != ClientAuth::Off;
        !self.serves_anonymous() && self.has_random_key() && self.password_file.is_none() && !by_certificate
    }

    /// Whether a probe of the control plane needs no key.
    pub fn allows_probes_without_key(&self) -> bool {
        match self.probes_without_key {
            KeylessProbes::Auto => self.admin.is_none_or(|admin| admin.ip().is_loopback()),
            KeylessProbes::On => true,
            KeylessProbes::Off => false,
        }
    }

    /// Whether the root of the client port is the page to try the server out with. By itself only where nobody else can
    /// see it: not where a proxy on this machine brings the requests of others.
    pub fn shows_welcome_page(&self) -> bool {
        match self.welcome_page {
            WelcomePage::Auto => self.listens_on_loopback_only() && self.proxies.trusted.is_empty(),
            WelcomePage::On => true,
            WelcomePage::Off => false,
        }
    }

    fn listens_on_loopback_only(&self) -> bool {
        [Some(self.listen), self.tls.listen]
            .iter()
            .flatten()
            .all(|address| address.ip().is_loopback())
    }

    /// What is legal but hardly meant. `cpus` are those this process may run on.
    pub fn warnings(&self, cpus: &[usize]) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let core_count = self.cores.placement(cpus).len();
        if core_count > cpus.len() {
            warnings.push(Warning::MoreCoresThanCpus {
                cores: core_count,
                cpus: cpus.len(),
            });
        }
        if self.pings && self.ping_interval >= self.ping_timeout {
            warnings.push(Warning::PingsTooRare);
        } else if self.pings && self.protocol != Protocol::V2 && self.ping_interval * 2 >= self.ping_timeout {
            warnings.push(Warning::PingsTooRareForVersion1);
        }
        let share = self.limits.ring_bytes_max / u64::try_from(core_count.max(1)).unwrap_or(u64::MAX);
        if share < u64::from(self.limits.message_bytes_max) {
            warnings.push(Warning::RingShareBelowMessage { share });
        }
        let proxies = &self.proxies;
        if proxies.trusted.are_everybody() {
            warnings.push(Warning::EverybodyTrusted);
        } else if !proxies.trusted.is_empty() && !proxies.proxy_protocol && !proxies.x_forwarded_for {
            warnings.push(Warning::ProxiesUnheard);
        }
        if self.has_random_key() {
            warnings.push(Warning::RandomKey);
        } else if self.auth_key.as_ref().is_some_and(|key| key.expose().len() < 32) {
            warnings.push(Warning::ShortKey);
        }
        if let Some(url) = &self.jwks_url
            && jwks::is_forgeable(url)
        {
            warnings.push(Warning::KeysUnprotected);
        }
        if self.revocation_keep < self.auth_default_expiry {
            warnings.push(Warning::RevocationTooShort);
        }
        if !self.tls.is_used() && !self.tls.certificate_files.is_empty() {
            warnings.push(Warning::TlsUnused);
        }
        if self.tls.client_auth == ClientAuth::Required && self.tls.on_listen != OnListen::Only {
            warnings.push(Warning::PlainBesideClientAuth);
        }
        warnings
    }

    /// Whether no key is configured, so that one has to be made up.
    pub fn has_random_key(&self) -> bool {
        self.auth_key.is_none()
            && self.auth_public_key_file.is_none()
            && self.jwks_file.is_none()
            && self.jwks_url.is_none()
    }
}

/// Settings that cannot go together, each with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Anybody could read the control plane.
    AdminWithoutKey(SocketAddr),
    /// Clients and operators cannot share a port.
    SameAddress(SocketAddr),
    /// A private key file without the public one.
    PrivateKeyAlone,
    /// A shared key and key files.
    TwoKeys,
    /// Not as many keys as certificates.
    TlsFilesUnpaired {
        /// How many certificate files.
        certificates: usize,
        /// How many key files.
        keys: usize,
    },
    /// TLS without a certificate.
    TlsWithoutCertificate,
    /// Clients' certificates without an authority, or an authority without clients' certificates.
    TlsClientAuthUnpaired,
    /// The port for TLS is that for all clients.
    TlsOnSameAddress(SocketAddr),
    /// The port for TLS is that for operators.
    TlsOnAdminAddress(SocketAddr),
    /// This setting names clients by the word of proxies, and no proxy is believed.
    NobodyTrusted(&'static str),
    /// One name for a user's name and password.
    SameField(String),
    /// Logins, and no key to sign their tokens.
    LoginWithoutKey,
}

impl Conflict {
    /// The settings that it is about: with one of them of an unknown value, it is not known either.
    pub(super) const fn settings(&self) -> &'static [&'static str] {
        match self {
            Conflict::AdminWithoutKey(_) => &["admin", "admin_key"],
            Conflict::SameAddress(_) => &["admin", "listen"],
            Conflict::PrivateKeyAlone => &["auth_private_key_file", "auth_public_key_file"],
            Conflict::TwoKeys => &["auth_key", "auth_public_key_file"],
            Conflict::TlsFilesUnpaired { .. } => &["tls_certificate_files", "tls_key_files"],
            Conflict::TlsWithoutCertificate => &[
                "listen_tls",
                "tls_listen",
                "admin_tls",
                "tls_certificate_files",
                "tls_key_files",
            ],
            Conflict::TlsClientAuthUnpaired => &["tls_client_auth", "tls_client_ca_file"],
            Conflict::TlsOnSameAddress(_) => &["tls_listen", "listen"],
            Conflict::TlsOnAdminAddress(_) => &["tls_listen", "admin"],
            Conflict::NobodyTrusted(_) => &["trusted_proxies", "proxy_protocol", "x_forwarded_for"],
            Conflict::SameField(_) => &["login_user_fields", "login_password_fields"],
            Conflict::LoginWithoutKey => &[
                "password_file",
                "auth_key",
                "auth_public_key_file",
                "auth_private_key_file",
            ],
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::AdminWithoutKey(address) => write!(
                formatter,
                "admin: {address} can be reached from other machines: set admin_key, or use a loopback address"
            ),
            Conflict::SameAddress(address) => {
                write!(
                    formatter,
                    "admin and listen are both {address}: give each its own port"
                )
            }
            Conflict::PrivateKeyAlone => formatter
                .write_str("auth_private_key_file is set without auth_public_key_file: set both, or neither"),
            Conflict::SameField(name) => write!(
                formatter,
                "login_user_fields and login_password_fields both name {name}: keep it in one of them"
            ),
            Conflict::LoginWithoutKey => formatter.write_str(
                "password_file: no key is set that could sign the tokens of logins: set auth_private_key_file, or auth_key instead",
            ),
            Conflict::TwoKeys => {
                formatter.write_str("auth_key and auth_public_key_file are both set: keep one of them")
            }
            Conflict::TlsFilesUnpaired { certificates, keys } => write!(
                formatter,
                "tls_certificate_files names {certificates} and tls_key_files {keys}: name the key of each certificate, in the same order"
            ),
            Conflict::TlsWithoutCertificate => formatter.write_str(
                "TLS is spoken (listen_tls, tls_listen or admin_tls) without a certificate: set tls_certificate_files and tls_key_files",
            ),
            Conflict::TlsClientAuthUnpaired => formatter.write_str(
                "tls_client_auth and tls_client_ca_file belong together: set both, or neither",
            ),
            Conflict::TlsOnSameAddress(address) => write!(
                formatter,
                "tls_listen and listen are both {address}: leave tls_listen off and set listen_tls to shared or only"
            ),
            Conflict::TlsOnAdminAddress(address) => write!(
                formatter,
                "tls_listen and admin are both {address}: give each its own port"
            ),
            Conflict::NobodyTrusted(setting) => write!(
                formatter,
                "{setting} is on without trusted_proxies: set the addresses of the proxies, which alone are believed"
            ),
        }
    }
}

/// Settings that work but are hardly meant. Each is a warning at the start and in `ringcast check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Cores share CPUs.
    MoreCoresThanCpus {
        /// How many cores.
        cores: usize,
        /// How many CPUs.
        cpus: usize,
    },
    /// Every connection times out.
    PingsTooRare,
    /// A version-1 client answers the ping of the second interval first.
    PingsTooRareForVersion1,
    /// The largest message does not fit a core's share of the ring.
    RingShareBelowMessage {
        /// The share in bytes.
        share: u64,
    },
    /// Whoever connects may say whom the connection is from.
    EverybodyTrusted,
    /// Proxies are trusted, but nothing that they say is read.
    ProxiesUnheard,
    /// Tokens end with the process.
    RandomKey,
    /// RFC 7518 section 3.2 asks for a key as long as the hash.
    ShortKey,
    /// Keys are fetched without TLS from another machine.
    KeysUnprotected,
    /// Revocations end before the tokens that they are about.
    RevocationTooShort,
    /// Certificates for nobody.
    TlsUnused,
    /// Who speaks no TLS needs no certificate.
    PlainBesideClientAuth,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::MoreCoresThanCpus { cores, cpus } => {
                write!(
                    formatter,
                    "cores: {cores} event loops share {cpus} CPUs and wait for each other; auto starts one for each CPU"
                )
            }
            Warning::PingsTooRare => formatter.write_str(
                "ping_interval_ms is not below ping_timeout_ms: idle connections will time out before a ping",
            ),
            Warning::PingsTooRareForVersion1 => formatter.write_str(
                "twice ping_interval_ms is not below ping_timeout_ms: a protocol-1 client's first answer comes after two intervals, too late",
            ),
            Warning::RingShareBelowMessage { share } => write!(
                formatter,
                "limits.message_bytes_max exceeds a core's share of limits.ring_bytes_max ({share} bytes)"
            ),
            Warning::RandomKey => formatter.write_str(
                "auth_key is not set: a random key is used, so tokens end with this process; set it: \
                 RINGCAST_AUTH_KEY=$(openssl rand -base64 48)",
            ),
            Warning::KeysUnprotected => formatter.write_str(
                "jwks_url is not https: whoever can answer in the place of that server can sign tokens for anybody",
            ),
            Warning::RevocationTooShort => formatter.write_str(
                "revocation_keep_seconds is below auth_default_expiry: a revoked token is good again before it expires",
            ),
            Warning::EverybodyTrusted => formatter.write_str(
                "trusted_proxies names every address there is: whoever connects can say whom the connection is from",
            ),
            Warning::ProxiesUnheard => formatter.write_str(
                "trusted_proxies is set, but neither proxy_protocol nor x_forwarded_for is on: all clients have the proxies' addresses",
            ),
            Warning::TlsUnused => formatter.write_str(
                "tls_certificate_files is set, but nothing speaks TLS: set listen_tls or tls_listen",
            ),
            Warning::PlainBesideClientAuth => formatter.write_str(
                "tls_client_auth is required, but who connects to listen without TLS needs no certificate: set listen_tls to only",
            ),
            Warning::ShortKey => formatter.write_str("auth_key is shorter than 32 bytes: it can be guessed sooner than HS256 allows"),
        }
    }
}

/// How many event loops there are, and on which CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// One for each CPU that this process may run on.
    #[default]
    Auto,
    /// So many, on the CPUs that this process may run on, in turn.
    Count(u16),
    /// One for each of these CPUs.
    Cpus(Vec<usize>),
}

impl Cores {
    /// Most event loops of a process: what a set of cores in the broker holds.
    pub const COUNT_MAX: u16 = 128;
    /// One more than the largest CPU number that a thread can be pinned to.
    const CPU_NUMBERS: u16 = 1024;

    /// The CPU of each core, given those that this process may run on, which must not be empty.
    pub fn placement(&self, cpus: &[usize]) -> Vec<usize> {
        match self {
            Cores::Auto => cpus.iter().copied().take(usize::from(Cores::COUNT_MAX)).collect(),
            Cores::Count(count) => cpus.iter().copied().cycle().take(usize::from(*count)).collect(),
            Cores::Cpus(list) => list.clone(),
        }
    }
}

impl FromStr for Cores {
    type Err = NotCores;

    fn from_str(text: &str) -> Result<Cores, NotCores> {
        if text == "auto" {
            return Ok(Cores::Auto);
        }
        if let Ok(count) = text.parse() {
            return if (1..=Cores::COUNT_MAX).contains(&count) {
                Ok(Cores::Count(count))
            } else {
                Err(NotCores)
            };
        }
        let mut cpus = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (
                first.trim().parse().map_err(|_| NotCores)?,
                last.trim().parse().map_err(|_| NotCores)?,
            );
            if first > last || last >= Cores::CPU_NUMBERS {
                return Err(NotCores);
            }
            for cpu in first..=last {
                // A CPU named twice is a slip: two loops on one CPU are asked for by a number.
                if !cpus.insert(usize::from(cpu)) {
                    return Err(NotCores);
                }
            }
        }
        if cpus.len() > usize::from(Cores::COUNT_MAX) {
            return Err(NotCores);
        }
        Ok(Cores::Cpus(cpus.into_iter().collect()))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::Auto => formatter.write_str("auto"),
            Cores::Count(count) => write!(formatter, "{count}"),
            // A lone CPU is written as a range, since a lone number is a count.
            Cores::Cpus(cpus) if cpus.len() == 1 => write!(formatter, "{0}-{0}", cpus[0]),
            Cores::Cpus(cpus) => {
                for (index, cpu) in cpus.iter().enumerate() {
                    write!(formatter, "{}{cpu}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// The text is neither `auto`, nor a count, nor a list of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCores;

/// Which SocketCluster protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Found out for each connection.
    #[default]
    Auto,
    /// Version 1: `#1` and `#2` as ping and pong.
    V1,
    /// Version 2: empty messages as ping and pong.
    V2,
}

impl fmt::Display for Protocol {
    /// As it is set.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Protocol::Auto => "auto",
            Protocol::V1 => "1",
            Protocol::V2 => "2",
        })
    }
}

/// Whether clients that are not authenticated are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// On a loopback address.
    #[default]
    Auto,
    /// They are.
    On,
    /// They may log in, and nothing else.
    Off,
}

/// Whether probes of the control plane are answered without its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeylessProbes {
    /// On a loopback address.
    #[default]
    Auto,
    /// They are.
    On,
    /// They need it, too.
    Off,
}

/// Whether the root of the client port is a page to try the server out with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WelcomePage {
    /// Where all addresses are loopback addresses and no proxy is trusted.
    #[default]
    Auto,
    /// It is.
    On,
    /// It is a line of text.
    Off,
}

/// Whether each core has its own descriptor table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FdTables {
    /// Its own where the system permits it.
    #[default]
    Auto,
    /// One for the process, which tools that read `/proc/PID/fd` understand.
    Shared,
}

/// The names of the algorithms of tokens (RFC 7518 section 3.1, RFC 8037).
pub const AUTH_ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "ES512", "EdDSA",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_auto_a_count_or_cpus() {
        for (text, cores) in [
            ("auto", Cores::Auto),
            ("1", Cores::Count(1)),
            ("128", Cores::Count(128)),
            ("0-3,6", Cores::Cpus(vec![0, 1, 2, 3, 6])),
            ("6-6", Cores::Cpus(vec![6])),
            ("6, 2", Cores::Cpus(vec![2, 6])),
            ("1023-1023", Cores::Cpus(vec![1023])),
        ] {
            assert_eq!(text.parse(), Ok(cores), "{text}");
        }
        for text in [
            "",
            "0",
            "1025",
            "-1",
            "many",
            "3-1",
            "0,0",
            "0-2,1",
            "1,",
            "1024-1024",
            "0-65536",
            "AUTO",
        ] {
            assert_eq!(text.parse::<Cores>(), Err(NotCores), "{text}");
        }
    }

    #[test]
    fn cores_read_back_as_they_are_shown() {
        for cores in [
            Cores::Auto,
            Cores::Count(7),
            Cores::Cpus(vec![6]),
            Cores::Cpus(vec![0, 1, 5]),
        ] {
            assert_eq!(cores.to_string().parse(), Ok(cores));
        }
    }

    #[test]
    fn more_cores_than_cpus_wrap_round() {
        assert_eq!(Cores::Auto.placement(&[2, 3]), [2, 3]);
        assert_eq!(Cores::Count(1).placement(&[2, 3]), [2]);
        assert_eq!(Cores::Count(5).placement(&[2, 3]), [2, 3, 2, 3, 2]);
        assert_eq!(Cores::Cpus(vec![7]).placement(&[2, 3]), [7]);
    }

    #[test]
    fn a_control_plane_beyond_loopback_needs_a_key() {
        let mut config = Config::default();
        for (admin, needs_key) in [
            ("127.0.0.2:1", false),
            ("[::1]:1", false),
            ("0.0.0.0:1", true),
            ("10.0.0.1:1", true),
        ] {
            config.admin = Some(admin.parse().unwrap());
            config.admin_key = None;
            assert_eq!(config.check().is_err(), needs_key, "{admin}");
            config.admin_key = Some(Secret::new("key"));
            assert_eq!(config.check(), Ok(()), "{admin}");
        }
    }

    #[test]
    fn clients_and_operators_need_two_addresses() {
        let mut config = Config {
            admin: Some(Config::default().listen),
            ..Config::default()
        };
        assert!(matches!(config.check(), Err(Conflict::SameAddress(_))));
        config.listen.set_port(0);
        config.admin = Some(config.listen);
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn keys_come_from_one_place() {
        let mut config = Config {
            auth_private_key_file: Some("private.pem".into()),
            ..Config::default()
        };
        assert_eq!(config.check(), Err(Conflict::PrivateKeyAlone));
        config.auth_public_key_file = Some("public.pem".into());
        assert_eq!(config.check(), Ok(()));
        config.auth_key = Some(Secret::new("key"));
        assert_eq!(config.check(), Err(Conflict::TwoKeys));
    }

    #[test]
    fn proxies_are_heeded_only_if_some_are_trusted() {
        for (proxy_protocol, x_forwarded_for) in [(true, false), (false, true), (true, true)] {
            let mut config = Config::default();
            config.proxies.proxy_protocol = proxy_protocol;
            config.proxies.x_forwarded_for = x_forwarded_for;
            assert!(matches!(config.check(), Err(Conflict::NobodyTrusted(_))));
            config.proxies.trusted = "10.0.0.0/8".parse().unwrap();
            assert_eq!(config.check(), Ok(()));
        }
    }

    #[test]
    fn trust_in_everybody_and_trust_without_effect_are_doubted() {
        let warnings = |trusted: &str, x_forwarded_for| {
            let mut config = Config {
                auth_key: Some(Secret::new([1; 32])),
                ..Config::default()
            };
            config.proxies.trusted = trusted.parse().unwrap();
            config.proxies.x_forwarded_for = x_forwarded_for;
            config.warnings(&[0, 1])
        };
        assert_eq!(warnings("10.0.0.0/8", true), []);
        assert_eq!(warnings("10.0.0.0/8", false), [Warning::ProxiesUnheard]);
        assert_eq!(
            warnings("10.0.0.0/8, 0.0.0.0/0", true),
            [Warning::EverybodyTrusted]
        );
        assert_eq!(warnings("", false), []);
    }

    #[test]
    fn logins_need_a_key_that_signs_and_fields_of_their_own() {
        let mut config = Config {
            auth_public_key_file: Some("public.pem".into()),
            ..Config::default()
        };
        assert_eq!(config.check(), Ok(()));
        config.password_file = Some("passwords".into());
        assert_eq!(config.check(), Err(Conflict::LoginWithoutKey));
        config.auth_private_key_file = Some("private.pem".into());
        assert_eq!(config.check(), Ok(()));
        config.login_password_fields.push("user".to_owned());
        assert_eq!(config.check(), Err(Conflict::SameField("user".to_owned())));
    }

    #[test]
    fn all_are_served_by_themselves_only_where_nobody_can_come_from_outside() {
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
            let mut config = Config {
                listen: listen.parse().unwrap(),
                allow_anonymous: setting,
                ..Config::default()
            };
            config.tls.listen = tls_listen.map(|address| address.parse().unwrap());
            assert_eq!(config.serves_anonymous(), expected, "{listen} {tls_listen:?}");
        }
    }

    #[test]
    fn a_doubt_begins_where_clients_would_suffer() {
        let quiet = Config {
            auth_key: Some(Secret::new([1; 32])),
            ..Config::default()
        };
        assert_eq!(quiet.warnings(&[0, 1]), []);

        let milliseconds = |interval, timeout, protocol| Config {
            ping_interval: Duration::from_millis(interval),
            ping_timeout: Duration::from_millis(timeout),
            protocol,
            ..quiet.clone()
        };
        for (interval, timeout, protocol, warnings) in [
            (4999, 10_000, Protocol::Auto, vec![]),
            (
                5000,
                10_000,
                Protocol::Auto,
                vec![Warning::PingsTooRareForVersion1],
            ),
            (5000, 10_000, Protocol::V1, vec![Warning::PingsTooRareForVersion1]),
            (5000, 10_000, Protocol::V2, vec![]),
            (9999, 10_000, Protocol::V2, vec![]),
            (10_000, 10_000, Protocol::V2, vec![Warning::PingsTooRare]),
        ] {
            assert_eq!(
                milliseconds(interval, timeout, protocol).warnings(&[0]),
                warnings,
                "{interval} {timeout}"
            );
        }

        let crowded = Config {
            cores: Cores::Count(3),
            ..quiet.clone()
        };
        assert_eq!(
            crowded.warnings(&[0, 1]),
            [Warning::MoreCoresThanCpus { cores: 3, cpus: 2 }]
        );
        assert_eq!(crowded.warnings(&[0, 1, 2]), []);

        let mut tight = Config {
            cores: Cores::Count(2),
            ..quiet.clone()
        };
        tight.limits.ring_bytes_max = 2 * u64::from(tight.limits.message_bytes_max);
        assert_eq!(tight.warnings(&[0, 1]), []);
        tight.limits.ring_bytes_max -= 1;
        assert!(matches!(
            tight.warnings(&[0, 1])[..],
            [Warning::RingShareBelowMessage { .. }]
        ));

        assert_eq!(Config::default().warnings(&[0]), [Warning::RandomKey]);
        let mut closed = Config {
            listen: "0.0.0.0:8000".parse().unwrap(),
            ..Config::default()
        };
        assert!(closed.admits_nobody() && !Config::default().admits_nobody() && !quiet.admits_nobody());
        closed.password_file = Some("passwords".into());
        assert!(!closed.admits_nobody());
        closed.password_file = None;
        closed.tls.client_auth = ClientAuth::Optional;
        assert!(closed.admits_nobody(), "certificates without TLS");
        closed.tls.on_listen = OnListen::Only;
        assert!(!closed.admits_nobody());
        closed.tls.client_auth = ClientAuth::Off;
        closed.allow_anonymous = Anonymous::On;
        assert!(!closed.admits_nobody());
        let short = Config {
            auth_key: Some(Secret::new([1; 31])),
            ..Config::default()
        };
        assert_eq!(short.warnings(&[0]), [Warning::ShortKey]);
    }
}
