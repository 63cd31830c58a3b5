//! The environment of a SocketCluster server that was made with `socketcluster create`: its `server.js` reads variables
//! that begin with `SOCKETCLUSTER_` and `SCC_`. Their values are taken over, so that a container starts with the
//! environment that it has; a log line for each names the setting to write instead.
//!
//! | variable | is read as |
//! |---|---|
//! | `SOCKETCLUSTER_PORT` | `listen`, at all addresses |
//! | `SOCKETCLUSTER_WORKERS` | `cores` |
//! | `SOCKETCLUSTER_LOG_LEVEL` | `log` |
//! | `SOCKETCLUSTER_OPTIONS` | the options of socketcluster-server that have a setting, by [`OPTIONS`] |
//! | the other names of [`NAMES_WITHOUT_SETTING`] | nothing |
//!
//! Nothing here is an error: an option that is not known, has a value that the setting does not take, or does not go
//! with the other settings ([`unsuited`]), is named and left out. Of two names for one setting, the one deeper inside
//! the options counts ([`Inherited::depth`]). Kubernetes makes variables of such names for a Service that is called
//! `socketcluster`; these are left alone.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use serde_json::{Map, Value};

use super::{Config, environment};

/// The meaning of a variable, or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    /// Its name, such as `SOCKETCLUSTER_OPTIONS.pingInterval`.
    pub(super) name: String,
    pub(super) meaning: Meaning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The setting with this key has this value.
    Setting { key: &'static str, text: String },
    /// There is no such setting. The text says why, or what to do.
    None(&'static str),
}

impl Inherited {
    /// How many names lead to it: `wsEngineServerOptions.maxPayload` replaces `maxPayload`, and the options replace
    /// variables.
    pub(super) fn depth(&self) -> usize {
        self.name.split('.').count()
    }
}

/// Why a start with this configuration would fail because of the setting `key`, unless `Config::conflicts` finds it.
pub(super) fn unsuited(config: &Config, key: &str) -> Option<&'static str> {
    let auth = &config.auth;
    let is_for_secrets = auth.algorithm.as_ref().map(|name| name.starts_with("HS"));
    let has_public_keys =
        auth.public_key_file.is_some() || config.jwks.file.is_some() || config.jwks.url.is_some();
    match key {
        "auth_algorithm" if is_for_secrets == Some(false) => {
            Some("it is for a key in a file, whose algorithm the server finds by itself")
        }
        "auth_algorithm" if has_public_keys => {
            Some("it is for a shared key, and RINGCAST_AUTH_PUBLIC_KEY_FILE or a set of keys has others")
        }
        "auth_key" if is_for_secrets == Some(false) => Some("RINGCAST_AUTH_ALGORITHM is for a key in a file"),
        "auth_key" => {
            let key = auth.key.as_ref().map(|key| key.expose().trim_ascii_start());
            key.is_some_and(|key| key.starts_with(b"-----BEGIN "))
                .then_some(PEM)
        }
        "listen" => {
            let port = config.listen.address.port();
            let clients = config.client_addresses();
            let others = clients
                .filter(|(name, _)| *name != "listen")
                .map(|(_, address)| address);
            let is_taken = others
                .chain(config.admin.address)
                .any(|other| other.port() == port);
            (is_taken && port != 0).then_some("another setting of Ringcast has its port")
        }
        _ => None,
    }
}

/// Whether a variable is one of the boilerplate's.
pub(super) fn is_inherited(name: &str, value: &OsStr) -> bool {
    let is_named = name == OPTIONS_VARIABLE
        || VARIABLES.iter().any(|(variable, ..)| *variable == name)
        || NAMES_WITHOUT_SETTING
            .iter()
            .any(|(variable, _)| *variable == name);
    is_named && !environment::is_service_url(value.to_str().unwrap_or_default())
}

/// The settings in a variable of the boilerplate; none if it is empty.
pub(super) fn read(name: &str, value: &OsStr) -> Vec<Inherited> {
    let one = |meaning| {
        vec![Inherited {
            name: name.to_owned(),
            meaning,
        }]
    };
    let Some(text) = value.to_str() else {
        return one(Meaning::None("it is not UTF-8"));
    };
    if text.trim().is_empty() {
        return Vec::new();
    }
    if name == OPTIONS_VARIABLE {
        return match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(options) => options
                .iter()
                .flat_map(|(option, value)| read_option(option, value))
                .collect(),
            Err(_) => one(Meaning::None("it is not a JSON object")),
        };
    }
    let alias = VARIABLES.iter().find(|(variable, ..)| *variable == name);
    if let Some((_, key, convert)) = alias {
        return one(setting(key, convert(&Value::from(text.trim()))));
    }
    let without = NAMES_WITHOUT_SETTING
        .iter()
        .find(|(variable, _)| *variable == name);
    without.map_or_else(Vec::new, |(_, why)| one(Meaning::None(why)))
}

fn read_option(option: &str, value: &Value) -> Vec<Inherited> {
    if let ("wsEngineServerOptions", Value::Object(members)) = (option, value) {
        let members = members.iter();
        return members
            .flat_map(|(member, value)| read_option(&format!("{option}.{member}"), value))
            .collect();
    }
    let meaning = match OPTIONS.iter().find(|(name, ..)| *name == option) {
        Some((_, key, convert)) => setting(key, convert(value)),
        None => {
            let known = OPTIONS_WITHOUT_SETTING.iter().find(|(name, _)| *name == option);
            Meaning::None(known.map_or(
                "socketcluster-server has no such option, or Ringcast does not know it",
                |(_, why)| why,
            ))
        }
    };
    vec![Inherited {
        name: format!("{OPTIONS_VARIABLE}.{option}"),
        meaning,
    }]
}

fn setting(key: &'static str, text: Option<String>) -> Meaning {
    match text {
        Some(text) => Meaning::Setting { key, text },
        None => Meaning::None(BAD_VALUE),
    }
}

/// The reason for a value that a setting does not take.
pub(super) const BAD_VALUE: &str = "its value is not one that the setting takes";

const OPTIONS_VARIABLE: &str = "SOCKETCLUSTER_OPTIONS";

type Convert = fn(&Value) -> Option<String>;

/// Variables with the keys of their settings.
const VARIABLES: [(&str, &str, Convert); 3] = [
    ("SOCKETCLUSTER_PORT", "listen", port),
    ("SOCKETCLUSTER_WORKERS", "cores", number),
    ("SOCKETCLUSTER_LOG_LEVEL", "log", log_level),
];

/// Options of socketcluster-server with the keys of their settings.
const OPTIONS: [(&str, &str, Convert); 22] = [
    ("workers", "cores", number),
    ("authKey", "auth_key", plain),
    ("authAlgorithm", "auth_algorithm", plain),
    ("authDefaultExpiry", "auth_default_expiry", plain),
    ("path", "path", plain),
    ("origins", "origins", plain),
    ("protocolVersion", "protocol", plain),
    ("pingInterval", "ping_interval_ms", plain),
    ("pingTimeout", "ping_timeout_ms", plain),
    ("pingTimeoutDisabled", "pings", off_if_true),
    ("ackTimeout", "ack_timeout_ms", plain),
    ("handshakeTimeout", "limits.handshake_timeout_ms", plain),
    ("allowClientPublish", "allow_client_publish", on_if_true),
    ("socketChannelLimit", "limits.channels_per_connection_max", plain),
    ("perMessageDeflate", "compression", on_if_true),
    ("maxPayload", "limits.message_bytes_max", plain),
    ("wsEngineServerOptions.path", "path", plain),
    (
        "wsEngineServerOptions.perMessageDeflate",
        "compression",
        on_if_true,
    ),
    (
        "wsEngineServerOptions.maxPayload",
        "limits.message_bytes_max",
        plain,
    ),
    ("batchOnHandshake", "batch_on_handshake", on_if_true),
    (
        "batchOnHandshakeDuration",
        "batch_on_handshake_duration_ms",
        plain,
    ),
    ("batchInterval", "batch_interval_ms", plain),
];

const ONE_MACHINE: &str =
    "Ringcast runs on one machine, on all of its cores: there are no brokers and no state server";
const OWN_CODE: &str =
    "Ringcast runs no JavaScript: rules, services and HTTP hooks stand for code of the server";
const PEM: &str = "write the key to a file, and name that by RINGCAST_AUTH_PRIVATE_KEY_FILE or RINGCAST_AUTH_PUBLIC_KEY_FILE";
const ENGINE: &str = "Ringcast has a WebSocket engine of its own";

const NAMES_WITHOUT_SETTING: [(&str, &str); 22] = [
    (
        "SOCKETCLUSTER_SOCKET_CHANNEL_LIMIT",
        "server.js does not use it; write RINGCAST_CHANNELS_PER_CONNECTION_MAX for such a limit",
    ),
    ("SOCKETCLUSTER_WS_ENGINE", ENGINE),
    ("SOCKETCLUSTER_BROKERS", ONE_MACHINE),
    ("SOCKETCLUSTER_APP_NAME", "Ringcast has no name of an application"),
    ("SOCKETCLUSTER_CONTROLLER_BOOT_TIMEOUT", OWN_CODE),
    ("SOCKETCLUSTER_WORKER_CONTROLLER", OWN_CODE),
    ("SOCKETCLUSTER_BROKER_CONTROLLER", OWN_CODE),
    ("SOCKETCLUSTER_WORKERCLUSTER_CONTROLLER", OWN_CODE),
    ("SOCKETCLUSTER_INIT_CONTROLLER", OWN_CODE),
    ("SCC_STATE_SERVER_HOST", ONE_MACHINE),
    ("SCC_STATE_SERVER_PORT", ONE_MACHINE),
    ("SCC_MAPPING_ENGINE", ONE_MACHINE),
    ("SCC_CLIENT_POOL_SIZE", ONE_MACHINE),
    ("SCC_AUTH_KEY", ONE_MACHINE),
    ("SCC_INSTANCE_IP", ONE_MACHINE),
    ("SCC_INSTANCE_IP_FAMILY", ONE_MACHINE),
    ("SCC_STATE_SERVER_CONNECT_TIMEOUT", ONE_MACHINE),
    ("SCC_STATE_SERVER_ACK_TIMEOUT", ONE_MACHINE),
    ("SCC_STATE_SERVER_RECONNECT_RANDOMNESS", ONE_MACHINE),
    ("SCC_PUB_SUB_BATCH_DURATION", ONE_MACHINE),
    ("SCC_BROKER_RETRY_DELAY", ONE_MACHINE),
    ("SCC_BROKER_SERVER_PORT", ONE_MACHINE),
];

const OPTIONS_WITHOUT_SETTING: [(&str, &str); 15] = [
    (
        "port",
        "server.js does not use it; SOCKETCLUSTER_PORT names the port",
    ),
    (
        "authSignAlgorithm",
        "socketcluster-server does not use it; authAlgorithm names the algorithm",
    ),
    ("authPrivateKey", PEM),
    ("authPublicKey", PEM),
    (
        "authVerifyAlgorithms",
        "RINGCAST_AUTH_ALGORITHM names the one algorithm; by default any that fits the key",
    ),
    ("wsEngine", ENGINE),
    ("wsEngineServerOptions", ENGINE),
    ("brokers", ONE_MACHINE),
    ("brokerEngine", ONE_MACHINE),
    ("codecEngine", "RINGCAST_CODEC names the codec: json or min-bin"),
    ("authEngine", OWN_CODE),
    ("middlewareEmitFailures", OWN_CODE),
    ("socketStreamCleanupMode", OWN_CODE),
    ("cloneData", OWN_CODE),
    ("strictHandshake", "a client always begins with its handshake"),
];

/// The value as it is written.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A number, where the setting takes other texts as well.
fn number(value: &Value) -> Option<String> {
    let number: u64 = plain(value)?.parse().ok()?;
    Some(number.to_string())
}

/// The boilerplate listens at all addresses, as Node does by default: at those of IPv6 and IPv4, or of IPv4 if the
/// system has no IPv6.
fn port(value: &Value) -> Option<String> {
    let port: u16 = plain(value)?.parse().ok()?;
    let has_ipv6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let address: SocketAddr = if has_ipv6 {
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    };
    Some(address.to_string())
}

/// The boilerplate's levels: 0 for nothing, 1 for errors, 2 for warnings and the line about the start. The warnings
/// about settings stay at each level: they show how these variables were read.
fn log_level(value: &Value) -> Option<String> {
    let level: u8 = plain(value)?.parse().ok()?;
    Some(
        if level < 2 {
            "error,ringcast::server=warn"
        } else {
            "info"
        }
        .to_owned(),
    )
}

/// Options that are true in JavaScript, such as an object of options of their own.
fn on_if_true(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) | Value::Object(_) => Some("on".to_owned()),
        Value::Bool(false) | Value::Null => Some("off".to_owned()),
        Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}

fn off_if_true(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("off".to_owned()),
        Value::Bool(false) | Value::Null => Some("on".to_owned()),
        Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn each_setting_that_an_option_or_a_variable_is_read_as_exists() {
        let keys = VARIABLES.iter().chain(&OPTIONS).map(|(_, key, _)| *key);
        for key in keys {
            assert!(SETTINGS.iter().any(|setting| setting.key() == key), "{key}");
        }
    }

    #[test]
    fn a_variable_of_a_service_named_socketcluster_is_none_of_the_boilerplate() {
        let is = |name: &str, value: &str| is_inherited(name, value.as_ref());
        assert!(is("SOCKETCLUSTER_PORT", "8000"));
        assert!(!is("SOCKETCLUSTER_PORT", "tcp://10.0.0.11:8000"));
        assert!(!is("SOCKETCLUSTER_SERVICE_HOST", "10.0.0.11"));
        assert!(!is("SOCKETCLUSTER", "1"));
    }
}
