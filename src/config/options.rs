//! Every setting once: its name, documentation, check, and place in [`Config`].
//!
//! A setting's file key is its name, its flag `--name-with-hyphens`, its variable `RINGCAST_NAME`. The help, the
//! loader, `ringcast check`, `/stats` and the table in `docs/configuration.md` all come from [`SETTINGS`]; the default is what
//! [`Config::default`] holds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::jwks;
use super::limits::MemoryMax;
use super::secret::Secret;
use super::tls::{ClientAuth, OnListen};
use super::{
    AUTH_ALGORITHMS, AcceptExcess, Anonymous, Config, FdTables, KeylessProbes, Protocol, SlowConsumer,
    WelcomePage,
};
use crate::log::Format;
use crate::text;

/// One setting.
pub struct Setting {
    /// Its name: the file key, and what flag and variable are made of.
    pub name: &'static str,
    /// The table of the file in which the key stands, if not at the top.
    pub table: Option<&'static str>,
    /// What the file may hold.
    pub kind: Kind,
    /// The values it takes, in words that follow "expected".
    pub expects: &'static str,
    /// What it is for, in one line.
    pub doc: &'static str,
    /// Checks and stores a value; `None` leaves the configuration as it was.
    store: fn(&mut Config, &str) -> Option<()>,
    /// The value as it would be written, secrets too, hence private; empty if there is none.
    text: fn(&Config) -> String,
}

/// What a file may hold for a setting. Flags and variables are text always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A string that is never shown.
    Secret,
    /// An integer.
    Number,
    /// A string or an integer.
    TextOrNumber,
    /// A boolean, or the string `on` or `off`.
    Switch,
}

impl Setting {
    /// The command line's word for it.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// The environment's word for it.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// The file's word for it, with its table.
    pub fn key(&self) -> String {
        match self.table {
            Some(table) => format!("{table}.{}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// Whether its value is the name of a file, or of several.
    pub fn names_files(&self) -> bool {
        self.name.ends_with("_file") || self.name.ends_with("_files")
    }

    /// Whether the values differ; those of secrets are compared too.
    pub fn changed(&self, before: &Config, after: &Config) -> bool {
        (self.text)(before) != (self.text)(after)
    }

    /// Stores a value, or changes nothing and says that it is not one of those expected.
    ///
    /// No value holds a carriage return, a NUL or a byte order mark: they come from files that were written elsewhere, are
    /// seen by nobody, and would make a host, a path or a key another one.
    pub fn store(&self, config: &mut Config, text: &str) -> Result<(), Unexpected> {
        if text.contains(['\r', '\0', '\u{feff}']) {
            return Err(Unexpected);
        }
        (self.store)(config, text).ok_or(Unexpected)
    }

    /// The value in `config`, as it would be written; `None` if unset. Secrets are hidden.
    pub fn show(&self, config: &Config) -> Option<String> {
        let text = (self.text)(config);
        match self.kind {
            _ if text.is_empty() => None,
            Kind::Secret => Some(Secret::HIDDEN.to_owned()),
            Kind::Text | Kind::Number | Kind::TextOrNumber | Kind::Switch => Some(text),
        }
    }
}

/// The value is not one that the setting takes; [`Setting::expects`] says which are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

/// What all variables begin with.
pub const PREFIX: &str = "RINGCAST_";

/// The table of settings in Markdown, as `docs/configuration.md` has it.
pub fn markdown() -> String {
    let defaults = Config::default();
    let mut table = "| variable | file key | default | meaning |\n|---|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let default = setting
            .show(&defaults)
            .map_or_else(String::new, |text| format!("`{text}`"));
        table.push_str(&format!(
            "| `{}` | `{}` | {default} | {} |\n",
            setting.variable(),
            setting.key(),
            setting.doc.replace('|', "\\|")
        ));
    }
    table
}

fn number<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Option<T> {
    let value = text.parse().ok().filter(|value| (min..=max).contains(value))?;
    T::try_from(value).ok()
}

fn memory_max(text: &str) -> Option<MemoryMax> {
    Some(match text {
        "off" => MemoryMax::Off,
        "auto" => MemoryMax::Auto,
        bytes => MemoryMax::Bytes(number(bytes, 1_048_576, 1_099_511_627_776)?),
    })
}

fn memory_max_text(max: MemoryMax) -> String {
    match max {
        MemoryMax::Off => "off".to_owned(),
        MemoryMax::Auto => "auto".to_owned(),
        MemoryMax::Bytes(bytes) => bytes.to_string(),
    }
}

fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
}

fn shown<T: PartialEq>(value: &T, words: &[(&str, T)]) -> String {
    words
        .iter()
        .find(|(_, known)| known == value)
        .map_or_else(String::new, |(word, _)| (*word).to_owned())
}

fn some_text(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn path(text: &str) -> Option<String> {
    let legal = text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    legal.then(|| text.to_owned())
}

/// Paths separated by commas, or none of them.
fn paths_or_off(text: &str) -> Option<Vec<String>> {
    if text == "off" {
        return Some(Vec::new());
    }
    text.split(',').map(|one| path(one.trim())).collect()
}

/// A token of RFC 9110 section 5.6.2, which is what a cookie's name is.
fn token(text: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    some_text(text).filter(|text| text.bytes().all(legal))
}

/// Names separated by commas, each once.
fn names(text: &str) -> Option<Vec<String>> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

/// Names of hosts separated by commas, as they stand in a header `Host`.
fn host_names(text: &str) -> Option<Vec<String>> {
    let names = names(text)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    names.iter().all(|name| name.bytes().all(legal)).then_some(names)
}

fn address_or_off(text: &str) -> Option<Option<SocketAddr>> {
    if text == "off" {
        return Some(None);
    }
    text.parse().ok().map(Some)
}

/// What patterns are made of besides it means something else, or a letter.
fn separator(text: &str) -> Option<char> {
    let mut characters = text.chars();
    let separator = characters
        .next()
        .filter(|found| found.is_ascii_punctuation() && !"*{}".contains(*found))?;
    characters.next().is_none().then_some(separator)
}

/// A secret may not end in a line break or a blank: it came from `$(cat file)` gone wrong, and no client could know.
fn secret(text: &str) -> Option<Secret> {
    let legal = text::secret(text) == Ok(text);
    legal.then(|| Secret::new(text))
}

fn revealed(secret: Option<&Secret>) -> String {
    secret.map_or_else(String::new, |secret| {
        String::from_utf8_lossy(secret.expose()).into_owned()
    })
}

fn file_shown(file: Option<&PathBuf>) -> String {
    file.map_or_else(String::new, |file| file.display().to_string())
}

fn files(text: &str) -> Option<Vec<PathBuf>> {
    text.split(',')
        .map(|name| some_text(name.trim()).map(PathBuf::from))
        .collect()
}

fn files_shown(files: &[PathBuf]) -> String {
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    names.join(",")
}

/// A key's id stands in tokens and logs.
fn key_id(text: &str) -> Option<String> {
    let legal = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    legal.then(|| text.to_owned())
}

const SWITCH: &[(&str, bool)] = &[("on", true), ("off", false), ("true", true), ("false", false)];
const PROTOCOLS: &[(&str, Protocol)] = &[("auto", Protocol::Auto), ("1", Protocol::V1), ("2", Protocol::V2)];
const SLOW_CONSUMERS: &[(&str, SlowConsumer)] = &[
    ("close", SlowConsumer::Close),
    ("skip", SlowConsumer::Skip),
    ("conflate", SlowConsumer::Conflate),
];
const ACCEPT_EXCESSES: &[(&str, AcceptExcess)] =
    &[("wait", AcceptExcess::Wait), ("refuse", AcceptExcess::Refuse)];
const FD_TABLES: &[(&str, FdTables)] = &[("auto", FdTables::Auto), ("shared", FdTables::Shared)];
const LOG_FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

const ON_LISTEN: &[(&str, OnListen)] = &[
    ("off", OnListen::Off),
    ("shared", OnListen::Shared),
    ("only", OnListen::Only),
];
const CLIENT_AUTH: &[(&str, ClientAuth)] = &[
    ("off", ClientAuth::Off),
    ("optional", ClientAuth::Optional),
    ("required", ClientAuth::Required),
];
const ANONYMOUS: &[(&str, Anonymous)] = &[
    ("auto", Anonymous::Auto),
    ("on", Anonymous::On),
    ("off", Anonymous::Off),
    ("true", Anonymous::On),
    ("false", Anonymous::Off),
];

const KEYLESS_PROBES: &[(&str, KeylessProbes)] = &[
    ("auto", KeylessProbes::Auto),
    ("on", KeylessProbes::On),
    ("off", KeylessProbes::Off),
    ("true", KeylessProbes::On),
    ("false", KeylessProbes::Off),
];

const WELCOME_PAGES: &[(&str, WelcomePage)] = &[
    ("auto", WelcomePage::Auto),
    ("on", WelcomePage::On),
    ("off", WelcomePage::Off),
    ("true", WelcomePage::On),
    ("false", WelcomePage::Off),
];

const fn first(names: &[&'static str]) -> Option<&'static str> {
    match names {
        [name, ..] => Some(name),
        [] => None,
    }
}

macro_rules! setting {
    ($name:literal, $kind:ident, $expects:expr, $doc:literal, $store:expr, $show:expr $(,)?) => {
        Setting {
            name: $name,
            table: None,
            kind: Kind::$kind,
            expects: $expects,
            doc: $doc,
            store: $store,
            text: $show,
        }
    };
}

macro_rules! word {
    ($name:literal, $($field:ident).+, $kind:ident, $words:ident, $expects:literal, $doc:literal $(,)?) => {
        setting!(
            $name,
            $kind,
            $expects,
            $doc,
            |config, text| {
                config.$($field).+ = word(text, $words)?;
                Some(())
            },
            |config| shown(&config.$($field).+, $words),
        )
    };
}

macro_rules! file {
    ($name:literal, $($field:ident).+, $doc:literal $(,)?) => {
        file!($name, $($field).+, "the name of a PEM file", $doc)
    };
    ($name:literal, $($field:ident).+, $expects:literal, $doc:literal $(,)?) => {
        setting!(
            $name,
            Text,
            $expects,
            $doc,
            |config, text| {
                config.$($field).+ = Some(some_text(text)?.into());
                Some(())
            },
            |config| file_shown(config.$($field).+.as_ref()),
        )
    };
}

/// Names, separated by commas.
macro_rules! names {
    ($name:literal, $($field:ident).+, $expects:literal, $doc:literal $(,)?) => {
        setting!(
            $name,
            Text,
            $expects,
            $doc,
            |config, text| {
                config.$($field).+ = names(text)?;
                Some(())
            },
            |config| config.$($field).+.join(","),
        )
    };
}

macro_rules! secret {
    ($name:literal, $($field:ident).+, $doc:literal $(,)?) => {
        setting!(
            $name,
            Secret,
            "a key of one line, not empty, without blanks or characters of no width around it",
            $doc,
            |config, text| {
                config.$($field).+ = Some(secret(text)?);
                Some(())
            },
            |config| revealed(config.$($field).+.as_ref()),
        )
    };
}

/// A whole number, or a duration counted in whole units, within bounds.
macro_rules! number {
    ($name:literal, $($table:literal,)? [$($field:ident).+], $min:literal to $max:literal, $doc:literal $(,)?) => {
        number!(@ $name, $($table,)? [$($field).+], $min to $max, $doc,
            |value| value, |config: &Config| config.$($field).+.to_string())
    };
    ($name:literal, $($table:literal,)? [$($field:ident).+] in microseconds, $min:literal to $max:literal, $doc:literal $(,)?) => {
        number!(@ $name, $($table,)? [$($field).+], $min to $max, $doc,
            Duration::from_micros, |config: &Config| config.$($field).+.as_micros().to_string())
    };
    ($name:literal, $($table:literal,)? [$($field:ident).+] in milliseconds, $min:literal to $max:literal, $doc:literal $(,)?) => {
        number!(@ $name, $($table,)? [$($field).+], $min to $max, $doc,
            Duration::from_millis, |config: &Config| config.$($field).+.as_millis().to_string())
    };
    ($name:literal, $($table:literal,)? [$($field:ident).+] in seconds, $min:literal to $max:literal, $doc:literal $(,)?) => {
        number!(@ $name, $($table,)? [$($field).+], $min to $max, $doc,
            Duration::from_secs, |config: &Config| config.$($field).+.as_secs().to_string())
    };
    (@ $name:literal, $($table:literal,)? [$($field:ident).+], $min:literal to $max:literal, $doc:literal,
        $from:expr, $show:expr) => {
        Setting {
            name: $name,
            table: first(&[$($table)?]),
            kind: Kind::Number,
            expects: concat!("a whole number from ", $min, " to ", $max),
            doc: $doc,
            store: |config, text| {
                config.$($field).+ = ($from)(number(text, $min, $max)?);
                Some(())
            },
            text: $show,
        }
    };
}

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    setting!(
        "cores",
        TextOrNumber,
        "auto, a number from 1 to 128, or CPUs such as 0-3,6 (6-6 for one CPU)",
        "Event loops: `auto` (one for each CPU this process may run on, within its quota), how many, or a list of CPUs such as `0-3,6`",
        |config, text| {
            config.cores.placement = text.parse().ok()?;
            Some(())
        },
        |config| config.cores.placement.to_string(),
    ),
    setting!(
        "listen",
        Text,
        "an address with a port, such as 127.0.0.1:8000 or [::]:8000",
        "Address for clients",
        |config, text| {
            config.listen.address = text.parse().ok()?;
            Some(())
        },
        |config| config.listen.address.to_string(),
    ),
    word!(
        "protocol",
        socketcluster.protocol,
        TextOrNumber,
        PROTOCOLS,
        "auto, 1 or 2",
        "SocketCluster protocol: `1`, `2`, or `auto` to find out for each connection",
    ),
    setting!(
        "path",
        Text,
        "a path that begins with / and has no query",
        "Path of the WebSocket endpoint",
        |config, text| {
            config.listen.path = path(text)?;
            Some(())
        },
        |config| config.listen.path.clone(),
    ),
    setting!(
        "probe_paths",
        Text,
        "off, or paths such as /health-check,/healthz",
        "Paths on the client port at which a balancer's `GET`, `HEAD` or `OPTIONS` is answered 200 while clients are served and 503 during a drain, separated by commas, or `off`",
        |config, text| {
            config.listen.probe_paths = paths_or_off(text)?;
            Some(())
        },
        |config| match &config.listen.probe_paths[..] {
            [] => "off".to_owned(),
            paths => paths.join(","),
        },
    ),
    word!(
        "welcome_page",
        listen.welcome_page,
        Switch,
        WELCOME_PAGES,
        "auto, on or off",
        "Whether `/` on the client port is a page to try the server out with: `on`, `off` (a line of text), or `auto`: on if all addresses are loopback addresses and `trusted_proxies` is empty",
    ),
    setting!(
        "origins",
        Text,
        "*:*, or origins such as example.com:443 example.org:*",
        "Origins that may connect: `*:*` for all, else any of `host:port`, `host:*` and `*:port`, separated by spaces",
        |config, text| {
            config.listen.origins = some_text(text)?;
            Some(())
        },
        |config| config.listen.origins.clone(),
    ),
    setting!(
        "allowed_origins",
        Text,
        "origins such as https://example.com https://*.example.com http://localhost:*",
        "Origins that may connect, compared exactly by scheme, host and port, beside what `origins` says: such as `https://example.com`, `https://*.example.com` (one label for each `*`), `http://localhost:*`; requests without an origin are no page's and may",
        |config, text| {
            config.listen.allowed_origins = text.parse().ok()?;
            Some(())
        },
        |config| config.listen.allowed_origins.to_string(),
    ),
    setting!(
        "trusted_proxies",
        Text,
        "addresses and networks such as 10.0.0.0/8 192.0.2.1 2001:db8::/32, without bits behind the network's",
        "Addresses and networks of the proxies in front, which alone are believed when they name the client they ask for: such as `10.0.0.0/8 192.0.2.1 ::1`",
        |config, text| {
            config.proxies.trusted = text.parse().ok()?;
            Some(())
        },
        |config| config.proxies.trusted.to_string(),
    ),
    word!(
        "proxy_protocol",
        proxies.proxy_protocol,
        Switch,
        SWITCH,
        "on or off",
        "Whether connections from `trusted_proxies` begin with a PROXY header (version 1 or 2); then all of them must",
    ),
    word!(
        "x_forwarded_for",
        proxies.x_forwarded_for,
        Switch,
        SWITCH,
        "on or off",
        "Whether the client of a request from `trusted_proxies` is the first address from the right of `X-Forwarded-For` that is none of theirs",
    ),
    setting!(
        "translator_prefixes",
        Text,
        "IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits such as 2001:db8:64::/96, without bits behind the prefix's",
        "IPv6 prefixes of this network's translators (NAT64, SIIT; RFC 6052), so that each IPv4 client that comes by one counts as itself; `64:ff9b::/96` and `64:ff9b:1::/48` always are",
        |config, text| {
            config.listen.translator_prefixes = text.parse().ok()?;
            Some(())
        },
        |config| config.listen.translator_prefixes.to_string(),
    ),
    setting!(
        "admin",
        Text,
        "off, or an address with a port, such as 127.0.0.1:9464",
        "Address of the control plane (metrics, health), or `off`; beyond loopback it needs `admin_key`",
        |config, text| {
            config.admin.address = address_or_off(text)?;
            Some(())
        },
        |config| config
            .admin
            .address
            .map_or_else(|| "off".to_owned(), |address| address.to_string()),
    ),
    secret!(
        "admin_key",
        admin.key,
        "Key that requests to the control plane must bear, as `Authorization: Bearer KEY`",
    ),
    setting!(
        "admin_hosts",
        Text,
        "names such as ringcast.internal, without ports, separated by commas",
        "Names by which the control plane may be asked without its key, separated by commas; addresses and `localhost` always may, others are refused since a page can make its own name lead here",
        |config, text| {
            config.admin.hosts = host_names(text)?;
            Some(())
        },
        |config| config.admin.hosts.join(","),
    ),
    word!(
        "probes_without_key",
        admin.probes_without_key,
        Switch,
        KEYLESS_PROBES,
        "auto, on or off",
        "Whether `/healthz` and `/readyz` of the control plane are answered without `admin_key`: `auto` does so on a loopback address",
    ),
    secret!(
        "auth_key",
        auth.key,
        "Shared key that signs and checks tokens; without it and without other keys, a random one for this run",
    ),
    setting!(
        "auth_algorithm",
        Text,
        "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA",
        "Algorithm of tokens, such as `HS256`; by default any that suits the key is accepted",
        |config, text| {
            config.auth.algorithm = Some((*AUTH_ALGORITHMS.iter().find(|name| **name == text)?).to_owned());
            Some(())
        },
        |config| config.auth.algorithm.clone().unwrap_or_default(),
    ),
    file!(
        "auth_private_key_file",
        auth.private_key_file,
        "PEM file of the private key that signs tokens",
    ),
    file!(
        "auth_public_key_file",
        auth.public_key_file,
        "PEM file of the public key that checks tokens",
    ),
    setting!(
        "listen_tls",
        Text,
        "off, shared or only",
        "What `listen` speaks: plain connections (`off`), TLS (`only`), or both on the one port (`shared`)",
        |config, text| {
            config.tls.on_listen = word(text, ON_LISTEN)?;
            Some(())
        },
        |config| shown(&config.tls.on_listen, ON_LISTEN),
    ),
    setting!(
        "tls_listen",
        Text,
        "off, or an address with a port, such as 0.0.0.0:8443",
        "One more address for clients, where only TLS is spoken, or `off`",
        |config, text| {
            config.tls.listen = address_or_off(text)?;
            Some(())
        },
        |config| config
            .tls
            .listen
            .map_or_else(|| "off".to_owned(), |address| address.to_string()),
    ),
    setting!(
        "tls_certificate_files",
        Text,
        "the names of PEM files, separated by commas",
        "PEM files of certificates, each with its chain, separated by commas: a client gets the one for the name that it asks for, else the first",
        |config, text| {
            config.tls.certificate_files = files(text)?;
            Some(())
        },
        |config| files_shown(&config.tls.certificate_files),
    ),
    setting!(
        "tls_key_files",
        Text,
        "the names of PEM files, separated by commas",
        "PEM files of the private keys of these certificates, in the same order",
        |config, text| {
            config.tls.key_files = files(text)?;
            Some(())
        },
        |config| files_shown(&config.tls.key_files),
    ),
    setting!(
        "tls_client_auth",
        Text,
        "off, optional or required",
        "Whether clients show certificates of their own, whose subjects become their claims: `off`, `optional` or `required`",
        |config, text| {
            config.tls.client_auth = word(text, CLIENT_AUTH)?;
            Some(())
        },
        |config| shown(&config.tls.client_auth, CLIENT_AUTH),
    ),
    setting!(
        "tls_client_ca_file",
        Text,
        "the name of a PEM file",
        "PEM file of the authorities that clients' certificates must come from",
        |config, text| {
            config.tls.client_ca_file = Some(some_text(text)?.into());
            Some(())
        },
        |config| file_shown(config.tls.client_ca_file.as_ref()),
    ),
    setting!(
        "admin_tls",
        Switch,
        "on or off",
        "Whether the control plane speaks TLS, with the same certificates",
        |config, text| {
            config.tls.admin = word(text, SWITCH)?;
            Some(())
        },
        |config| shown(&config.tls.admin, SWITCH),
    ),
    setting!(
        "password_file",
        Text,
        "the name of a file",
        "File of users and passwords that `ringcast passwd` and `mosquitto_passwd` write; nobody logs in without it",
        |config, text| {
            config.login.password_file = Some(some_text(text)?.into());
            Some(())
        },
        |config| file_shown(config.login.password_file.as_ref()),
    ),
    number!(
        "login_threads",
        [login.threads],
        1 to 64,
        "Passwords that are checked at a time, each on a thread beside the cores",
    ),
    setting!(
        "login_path",
        Text,
        "a path that begins with / and has no query",
        "Path on `listen` that takes logins (POST, JSON or a form) where there is a `password_file`; `whoami` and `logout` are its neighbours",
        |config, text| {
            config.login.path = path(text)?;
            Some(())
        },
        |config| config.login.path.clone(),
    ),
    setting!(
        "login_cookie",
        Text,
        "the name of a cookie, such as ringcast",
        "Name of the cookie that holds a token, for logins and upgrades; over HTTPS `__Host-ringcast` keeps other hosts of the site from setting it",
        |config, text| {
            config.login.cookie = token(text)?;
            Some(())
        },
        |config| config.login.cookie.clone(),
    ),
    setting!(
        "login_user_fields",
        Text,
        "names separated by commas",
        "What the user's name may be called in a login; of those that are there, the first in this list counts",
        |config, text| {
            config.login.user_fields = names(text)?;
            Some(())
        },
        |config| config.login.user_fields.join(","),
    ),
    setting!(
        "login_password_fields",
        Text,
        "names separated by commas",
        "What the password may be called in a login; of those that are there, the first in this list counts",
        |config, text| {
            config.login.password_fields = names(text)?;
            Some(())
        },
        |config| config.login.password_fields.join(","),
    ),
    word!(
        "allow_anonymous",
        permissions.allow_anonymous,
        Switch,
        ANONYMOUS,
        "auto, on or off",
        "Whether clients that are not authenticated are served: `auto` serves them if `listen` and, where it is set, `tls_listen` are loopback addresses. `off` leaves them handshake, `#authenticate` and `login`",
    ),
    setting!(
        "auth_key_id",
        Text,
        "an id of 1 to 256 visible ASCII characters",
        "Id of that key, put into the header of tokens as `kid`; without it, of the first key of `jwks_file` that can sign",
        |config, text| {
            config.auth.key_id = Some(key_id(text)?);
            Some(())
        },
        |config| config.auth.key_id.clone().unwrap_or_default(),
    ),
    file!(
        "jwks_file",
        jwks.file,
        "the name of a file with a JSON Web Key Set",
        "JSON Web Key Set with more keys for tokens, each chosen by its `kid`; private keys and secrets in it can sign",
    ),
    setting!(
        "jwks_url",
        Text,
        "an address such as https://id.example/jwks.json, without user and fragment",
        "Address where a JSON Web Key Set with public keys is fetched; bad answers keep the keys there are",
        |config, text| {
            config.jwks.url = Some(jwks::url(text)?);
            Some(())
        },
        |config| config.jwks.url.clone().unwrap_or_default(),
    ),
    number!(
        "jwks_refresh_seconds",
        [jwks.refresh] in seconds,
        10 to 86400,
        "Seconds between two fetches of `jwks_url`; its `max-age` may make them fewer, an unknown `kid` asks at once, 10 s after the last",
    ),
    names!(
        "auth_issuer",
        auth.issuer,
        "issuers, separated by commas",
        "Issuers of which a token must name one (`iss`), separated by commas; the first is put into those signed here",
    ),
    names!(
        "auth_audience",
        auth.audience,
        "audiences, separated by commas",
        "Audiences of which a token must name one (`aud`), separated by commas; the first is put into those signed here",
    ),
    number!(
        "auth_leeway_seconds",
        [auth.leeway_seconds],
        0 to 300,
        "Seconds by which the clock of a token's signer may differ: `exp` and `nbf` are taken so much less strictly",
    ),
    file!(
        "revocations_file",
        auth.revocations_file,
        "the name of a file",
        "File in which the server keeps what has been revoked, for its next start; without it a restart forgets that",
    ),
    number!(
        "revocation_keep_seconds",
        [auth.revocation_keep] in seconds,
        60 to 4294967295,
        "Seconds for which a revocation lasts; a token that lives longer, or for ever, is good again then",
    ),
    number!(
        "auth_default_expiry",
        [auth.default_expiry] in seconds,
        1 to 4294967295,
        "Seconds for which a token is valid if its signer does not say otherwise",
    ),
    word!(
        "pings",
        socketcluster.pings,
        Switch,
        SWITCH,
        "on or off",
        "Whether connections are pinged and must answer; clients need the same setting (`pingTimeoutDisabled`)",
    ),
    number!(
        "ping_interval_ms",
        [socketcluster.ping_interval] in milliseconds,
        1 to 2147483647,
        "Milliseconds between two pings to a connection",
    ),
    number!(
        "ping_timeout_ms",
        [socketcluster.ping_timeout] in milliseconds,
        1 to 2147483647,
        "Milliseconds of silence after which a connection is closed, also by clients, who are told",
    ),
    number!(
        "ack_timeout_ms",
        [socketcluster.ack_timeout] in milliseconds,
        1 to 2147483647,
        "Milliseconds for a client to answer a call of the server's; then the call has failed",
    ),
    word!(
        "allow_client_publish",
        permissions.allow_client_publish,
        Switch,
        SWITCH,
        "on or off",
        "Whether clients may publish",
    ),
    setting!(
        "rules_separator",
        Text,
        "one character such as . / : - or _",
        "What parts the segments of channels and procedures in `[[rules]]`",
        |config, text| {
            config.permissions.rules_separator = separator(text)?;
            Some(())
        },
        |config| config.permissions.rules_separator.to_string(),
    ),
    word!(
        "slow_consumer",
        delivery.slow_consumer,
        Text,
        SLOW_CONSUMERS,
        "close, skip or conflate",
        "What happens to a subscriber whose outbox is full: `close` it, `skip` publications for it, or `conflate` them: the newest of each channel follows",
    ),
    word!(
        "accept_excess",
        listen.accept_excess,
        Text,
        ACCEPT_EXCESSES,
        "wait or refuse",
        "What happens to connections beyond `connections_max`, `connections_per_core_max` or `accepts_per_second_max`: they `wait` in the backlog, or are answered 503 (`refuse`)",
    ),
    word!(
        "compression",
        delivery.compression,
        Switch,
        SWITCH,
        "on or off",
        "Whether clients that offer it may compress messages (permessage-deflate) and get theirs compressed",
    ),
    number!(
        "compression_bytes_min",
        [delivery.compression_bytes_min],
        0 to 1073741824,
        "Shortest message in bytes that is compressed for such clients",
    ),
    number!(
        "fan_out_slice_us",
        [cores.fan_out_slice] in microseconds,
        10 to 1000000,
        "Microseconds for which a turn at least sends publications to many, and heartbeats, before it answers calls again; a turn that took longer before sends for as long",
    ),
    number!(
        "busy_poll_us",
        [cores.busy_poll] in microseconds,
        0 to 1000,
        "Microseconds for which a core that has nothing to do looks for more before it sleeps: lower latency for CPU time; not where cores share a CPU",
    ),
    word!(
        "take_over",
        restart.take_over,
        Switch,
        SWITCH,
        "on or off",
        "Whether to start although another process of the same user serves the same addresses, and to take over its listening sockets; for one start, as the flag `--take-over`",
    ),
    number!(
        "drain_seconds",
        [restart.drain] in seconds,
        0 to 86400,
        "Seconds over which a stopping server spreads the closing of its connections",
    ),
    number!(
        "liveness_timeout_ms",
        [admin.liveness_timeout] in milliseconds,
        100 to 3600000,
        "Milliseconds a core may stand still before `/healthz` and `/readyz` answer 503 and name it",
    ),
    word!(
        "fd_tables",
        cores.fd_tables,
        Text,
        FD_TABLES,
        "auto or shared",
        "Descriptor tables: one for each core where permitted (`auto`), or one `shared` by all",
    ),
    number!(
        "tcp_backlog",
        [listen.tcp_backlog],
        1 to 65535,
        "Connections that may wait to be accepted, for each core; `net.core.somaxconn` may allow fewer",
    ),
    setting!(
        "log",
        Text,
        "a log filter, such as info or ringcast=debug",
        "Log filter: a level (`error`, `warn`, `info`, `debug`), or levels by module such as `ringcast=debug`",
        |config, text| {
            config.log.filter = some_text(text).filter(|text| crate::log::is_filter(text))?;
            Some(())
        },
        |config| config.log.filter.clone(),
    ),
    word!(
        "log_format",
        log.format,
        Text,
        LOG_FORMATS,
        "text or json",
        "`text` for people, `json` for machines: one object for each log line",
    ),
    number!(
        "message_bytes_max",
        "limits",
        [limits.message_bytes_max],
        1 to 1073741824,
        "Largest WebSocket message in bytes; a larger one closes its connection with 1009",
    ),
    number!(
        "frame_bytes_max",
        "limits",
        [limits.frame_bytes_max],
        0 to 1073741824,
        "Largest WebSocket frame in bytes; a larger one closes its connection with 1009. 0 for as large as a message",
    ),
    number!(
        "fragments_max",
        "limits",
        [limits.fragments_max],
        1 to 4294967295,
        "Most fragments of one message; more close the connection with 1008",
    ),
    number!(
        "request_head_bytes_max",
        "limits",
        [limits.request_head_bytes_max],
        256 to 1048576,
        "Largest HTTP request head in bytes; a larger one is answered 431",
    ),
    number!(
        "request_timeout_ms",
        "limits",
        [limits.request_timeout] in milliseconds,
        1 to 2147483647,
        "Milliseconds from the accept to a complete request head; then the TCP connection is closed",
    ),
    number!(
        "handshake_timeout_ms",
        "limits",
        [limits.handshake_timeout] in milliseconds,
        1 to 2147483647,
        "Milliseconds from the upgrade to the SocketCluster handshake; then the connection is closed with 4005",
    ),
    number!(
        "authentication_timeout_ms",
        "limits",
        [limits.authentication_timeout] in milliseconds,
        0 to 2147483647,
        "Milliseconds to be authenticated where others are not served (`allow_anonymous`); then the connection is closed with 4031. 0 sets no time",
    ),
    number!(
        "login_body_bytes_max",
        "limits",
        [limits.login_body_bytes_max],
        64 to 65536,
        "Largest body of a login in bytes; a larger one is answered 413, and a call with an `InvalidArgumentsError`",
    ),
    number!(
        "close_timeout_ms",
        "limits",
        [limits.close_timeout] in milliseconds,
        1 to 2147483647,
        "Milliseconds for a client to answer a close frame; then the TCP connection is closed",
    ),
    number!(
        "connections_max",
        "limits",
        [limits.connections_max],
        0 to 4294967295,
        "Most connections of the whole server; then see `accept_excess`. 0 for no limit beside that of its cores",
    ),
    number!(
        "connections_per_address_max",
        "limits",
        [limits.connections_per_address_max],
        0 to 4294967295,
        "Most connections of one client's address, all of an IPv6 network of 64 bits counted as one, an IPv4 client that comes by NAT64, 6to4 or Teredo as its IPv4 address; more are answered 429. Connections of `trusted_proxies` count for the client they name. 0 for no limit",
    ),
    number!(
        "accepts_per_second_max",
        "limits",
        [limits.accepts_per_second_max],
        0 to 4294967295,
        "Most connections accepted in a second, in equal shares for each core, a tenth of them at once; then see `accept_excess`. 0 for no limit",
    ),
    Setting {
        name: "memory_bytes_max",
        table: Some("limits"),
        kind: Kind::TextOrNumber,
        expects: "off, auto, or a whole number of bytes from 1048576 to 1099511627776",
        doc: "Bytes of memory from which on new connections are answered 503, until 95 % of it are in use: what the process holds, TCP buffers, and 4600 bytes for each socket; with `auto` in a control group that has a limit, as in a container, what the group is charged for. `auto` is 90 % of the control group's limit or of the machine's memory",
        store: |config, text| {
            config.limits.memory_bytes_max = memory_max(text)?;
            Some(())
        },
        text: |config| memory_max_text(config.limits.memory_bytes_max),
    },
    number!(
        "connections_per_core_max",
        "limits",
        [limits.connections_per_core_max],
        0 to 4294967295,
        "Most connections of one core; then see `accept_excess`. 0 takes what the limit on open files allows",
    ),
    number!(
        "channels_per_connection_max",
        "limits",
        [limits.channels_per_connection_max],
        0 to 4294967295,
        "Most channels of one connection; a further subscribe is answered with a `BrokerError`",
    ),
    number!(
        "channel_names_bytes_max",
        "limits",
        [limits.channel_names_bytes_max],
        1 to 4294967295,
        "Most bytes of the names of one connection's channels; a further subscribe is answered with a `BrokerError`",
    ),
    number!(
        "calls_per_connection_max",
        "limits",
        [limits.calls_per_connection_max],
        0 to 4294967295,
        "Most calls of the server's that one connection may leave unanswered; a further one is refused",
    ),
    number!(
        "outbox_bytes_max",
        "limits",
        [limits.outbox_bytes_max],
        1 to 1073741824,
        "Most bytes waiting for one connection; then see `slow_consumer`. An empty outbox takes any one message",
    ),
    Setting {
        name: "outbox_bytes_total_max",
        table: Some("limits"),
        kind: Kind::TextOrNumber,
        expects: "off, auto, or a whole number of bytes from 1048576 to 1099511627776",
        doc: "Most bytes that all connections together may hold, in equal shares for each core: what waits for them, counted once where it is shared, messages that have come in part, input and decisions that wait. Over it those that hold most are closed with 4010; with `slow_consumer` `skip` or `conflate`, publications for clients that do not read are skipped or conflated first. `auto` is a quarter of the control group's limit or of the machine's memory",
        store: |config, text| {
            config.limits.outbox_bytes_total_max = memory_max(text)?;
            Some(())
        },
        text: |config| memory_max_text(config.limits.outbox_bytes_total_max),
    },
    number!(
        "write_timeout_ms",
        "limits",
        [limits.write_timeout] in milliseconds,
        0 to 2147483647,
        "Milliseconds for which a client may take nothing of what waits for it, though it may answer pings; then it is closed with 4033. A client that reads slowly is not. 0 for any time",
    ),
    number!(
        "messages_per_second_max",
        "limits",
        [limits.messages_per_second_max],
        0 to 1000000000,
        "Most messages a second from one connection, counting each packet of an array; over it, it is not read until there is room. 0 for any number",
    ),
    number!(
        "bytes_per_second_max",
        "limits",
        [limits.bytes_per_second_max],
        0 to 1000000000000,
        "Most bytes a second from one connection; over it, it is not read until there is room. 0 for any number",
    ),
    number!(
        "rate_burst_ms",
        "limits",
        [limits.rate_burst] in milliseconds,
        1 to 3600000,
        "A connection may send at once what its rates allow in so many milliseconds",
    ),
    number!(
        "rate_grace_ms",
        "limits",
        [limits.rate_grace] in milliseconds,
        0 to 2147483647,
        "Milliseconds for which a connection may be over its rates before it is closed with 4029; 0 never closes it",
    ),
    number!(
        "idle_timeout_ms",
        "limits",
        [limits.idle_timeout] in milliseconds,
        0 to 2147483647,
        "Milliseconds without a message in either direction, heartbeats aside, after which a connection is closed with 4030; 0 for any time",
    ),
    number!(
        "channel_name_bytes_max",
        "limits",
        [limits.channel_name_bytes_max],
        1 to 4294967295,
        "Longest name of a channel in bytes that a client subscribes or publishes to; a longer one is answered with an error",
    ),
    number!(
        "client_calls_max",
        "limits",
        [limits.client_calls_max],
        1 to 4294967295,
        "Most calls of one client that the application may owe an answer; a further one is answered with an error",
    ),
    number!(
        "logins_waiting_max",
        "limits",
        [limits.logins_waiting_max],
        1 to 4096,
        "Most logins that wait for their password to be checked; when there are more, one of the network with most of them is refused as `busy`, or as `displaced` if it waited already",
    ),
    number!(
        "login_failures_max",
        "limits",
        [limits.login_failures_max],
        1 to 1000000,
        "Failed logins of a user from an address before others are refused as `too_soon`: 1 s, then twice as long each time; 4 times as many for an address",
    ),
    number!(
        "login_backoff_ms_max",
        "limits",
        [limits.login_backoff_max] in milliseconds,
        1 to 86400000,
        "Longest time in milliseconds for which logins are refused as `too_soon`",
    ),
    number!(
        "login_accounts_max",
        "limits",
        [limits.login_accounts_max],
        2 to 16777216,
        "Most addresses, and most users, whose failed logins are remembered; then those of longest ago are forgotten",
    ),
    number!(
        "audit_lines_per_second_max",
        "limits",
        [limits.audit_lines_per_second_max],
        0 to 1000000,
        "Log lines about refusals (`ringcast::audit`) in a second in the long run, half as many of one kind; the rest is counted. 0 for any number",
    ),
    number!(
        "revocations_max",
        "limits",
        [limits.revocations_max],
        1 to 1000000,
        "Most revocations of tokens at a time; a further one is refused, and counted in `ringcast_revocations_refused_total`",
    ),
    number!(
        "ring_slots",
        "limits",
        [limits.ring_slots],
        2 to 16777216,
        "Publications that the ring holds, rounded up to a power of two; a full ring makes publishers wait",
    ),
    number!(
        "ring_bytes_max",
        "limits",
        [limits.ring_bytes_max],
        65536 to 1099511627776,
        "Most bytes of publications in the ring, in equal shares for each core; a full share makes publishers wait",
    ),
    number!(
        "abandoned_bytes_max",
        "limits",
        [limits.abandoned_bytes_max],
        0 to 4294967295,
        "Most bytes, for each core, of publications that wait for a full ring and whose publishers have left without an acknowledgement; more are given up",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str) -> &'static Setting {
        SETTINGS.iter().find(|setting| setting.name == name).unwrap()
    }

    #[test]
    fn every_default_reads_back_as_itself() {
        let defaults = Config::default();
        for setting in SETTINGS {
            let Some(text) = setting.show(&defaults) else {
                continue;
            };
            let mut config = Config::default();
            assert_eq!(setting.store(&mut config, &text), Ok(()), "{}", setting.name);
            assert_eq!(format!("{config:?}"), format!("{defaults:?}"), "{}", setting.name);
        }
    }

    #[test]
    fn every_setting_changes_only_what_it_shows() {
        let defaults = Config::default();
        for setting in SETTINGS {
            let other = [
                "2",
                "/",
                "other",
                "/other",
                "10.0.0.1:1",
                "off",
                "on",
                "skip",
                "shared",
                "json",
                "HS512",
                "debug",
                "optional",
                "on",
                "https://other.example",
                "192.0.2.1",
                "refuse",
                "auto",
                "on",
                "https://id.example/",
                "json",
                "2001:db8:64::/96",
            ]
            .into_iter()
            .chain((setting.kind == Kind::Number).then_some("70000"))
            .chain((setting.kind == Kind::Number).then_some("3000"))
            .find(|text| {
                let mut config = Config::default();
                setting.store(&mut config, text).is_ok() && setting.show(&config) != setting.show(&defaults)
            })
            .unwrap_or_else(|| panic!("no other value of {} is known here", setting.name));
            let mut config = Config::default();
            setting.store(&mut config, other).unwrap();
            for neighbour in SETTINGS {
                let same = neighbour.show(&config) == neighbour.show(&defaults);
                assert_eq!(
                    same,
                    neighbour.name != setting.name,
                    "{} changed {}",
                    setting.name,
                    neighbour.name
                );
            }
        }
    }

    #[test]
    fn names_are_told_apart_by_flag_variable_and_key() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(
                SETTINGS[..index].iter().all(|other| other.name != setting.name),
                "{}",
                setting.name
            );
            assert!(
                setting
                    .name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            );
        }
        let setting = setting("handshake_timeout_ms");
        assert_eq!(setting.flag(), "--handshake-timeout-ms");
        assert_eq!(setting.variable(), "RINGCAST_HANDSHAKE_TIMEOUT_MS");
        assert_eq!(setting.key(), "limits.handshake_timeout_ms");
    }

    #[test]
    fn values_end_at_their_bounds() {
        for (name, legal, illegal) in [
            (
                "ping_timeout_ms",
                &["1", "2147483647"][..],
                &["0", "2147483648", "-1", "1.5", "1s", ""][..],
            ),
            ("drain_seconds", &["0", "86400"], &["86401", "x"]),
            ("liveness_timeout_ms", &["100", "3600000"], &["99", "3600001"]),
            ("busy_poll_us", &["0", "1000"], &["1001", "-1"]),
            ("fan_out_slice_us", &["10", "1000000"], &["9", "1000001"]),
            ("fragments_max", &["4294967295"], &["4294967296", "0"]),
            (
                "listen",
                &["0.0.0.0:0", "[::1]:8000"],
                &["8000", "localhost:8000", "127.0.0.1", "127.0.0.1:65536"],
            ),
            ("admin", &["off", "127.0.0.1:1"], &["on", ""]),
            (
                "path",
                &["/", "/socketcluster/"],
                &["", "socketcluster", "/a b", "/a?b", "/a#b"],
            ),
            (
                "probe_paths",
                &["off", "/", "/a, /b", "/health-check,/healthz"],
                &["", "/a,", "a", "/a b", "/a?b", "on"],
            ),
            ("welcome_page", &["auto", "on", "off"], &["", "yes"]),
            ("pings", &["on", "off", "true", "false"], &["", "1", "yes", "ON"]),
            ("protocol", &["auto", "1", "2"], &["0", "3", "v1"]),
            ("auth_algorithm", &["HS256", "EdDSA"], &["none", "hs256", ""]),
            (
                "auth_key",
                &["k", "two words"],
                &["", "key\n", "key ", "\tkey", "key\r", "\u{feff}key"],
            ),
            ("password_file", &["users"], &["", "users\r", "us\0ers"]),
            ("login_threads", &["1"], &["1\r", " 1"]),
            (
                "log",
                &["info", "ringcast=debug,warn", "off"],
                &["", "loud=very", "=info="],
            ),
            ("origins", &["*:*", "example.com:*"], &[""]),
            (
                "allowed_origins",
                &["https://example.com", "http://localhost:* null", ""],
                &["example.com", "*:*", "https://*"],
            ),
            (
                "trusted_proxies",
                &["10.0.0.0/8, ::1", ""],
                &["10.0.0.1/8", "localhost", "*"],
            ),
            (
                "translator_prefixes",
                &["2001:db8:64::/96, 2001:db8:65::/64", ""],
                &[
                    "2001:db8:64::",
                    "2001:db8:64::/95",
                    "2001:db8::1/96",
                    "192.0.2.0/24",
                ],
            ),
            ("cores", &["auto", "0-1"], &["0"]),
            ("login_path", &["/login", "/a/b"], &["", "login", "/a?b"]),
            (
                "login_cookie",
                &["ringcast", "__Host-a.b"],
                &["", "a b", "a=b", "a;b", "é"],
            ),
            ("login_user_fields", &["a", "a, b"], &["", "a,", ",a"]),
            ("allow_anonymous", &["auto", "on", "off"], &["", "yes"]),
            ("probes_without_key", &["auto", "on", "off"], &["", "yes"]),
            (
                "admin_hosts",
                &["a", "a.example, b_c"],
                &["", "a,", "a:1", "http://a", "a b"],
            ),
            ("authentication_timeout_ms", &["0"], &["-1"]),
        ] {
            for text in legal {
                assert_eq!(
                    setting(name).store(&mut Config::default(), text),
                    Ok(()),
                    "{name} {text}"
                );
            }
            for text in illegal {
                assert_eq!(
                    setting(name).store(&mut Config::default(), text),
                    Err(Unexpected),
                    "{name} {text}"
                );
            }
        }
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        for setting in SETTINGS.iter().filter(|setting| setting.kind == Kind::Secret) {
            let mut config = Config::default();
            setting.store(&mut config, "topsecret").unwrap();
            assert_eq!(setting.show(&config).as_deref(), Some("…"));
            assert!(!format!("{config:?}").contains("topsecret"));
        }
    }

    #[test]
    fn the_algorithms_expected_are_those_known() {
        let words = setting("auth_algorithm").expects.replace(" or ", ", ");
        assert_eq!(words.split(", ").collect::<Vec<_>>(), AUTH_ALGORITHMS);
    }
}
