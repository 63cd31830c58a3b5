//! The control plane: the address for operators, and the conditions for their requests.

use std::net::SocketAddr;
use std::time::Duration;

use super::api_keys::ApiKeySpec;
use super::form::{Form, Kind, SECRET, address_or_off, milliseconds, names_in, word, words};
use super::secret::Secret;
use super::settings::settings;

settings! {
        /// The control plane: the address for operators, and the conditions for their requests.
    admin: Admin {
        /// Address of the control plane (metrics, health), or `off`. An address beyond loopback needs `admin_key`.
        address: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 9464))), "admin",
            address_or_off("off, or an address with a port, such as 127.0.0.1:9464");

        /// Key that each request to the control plane must carry, as `Authorization: Bearer KEY`.
        key: Option<Secret> = None, "admin_key", SECRET;

        /// Host names by which the control plane may be asked without its key, separated by commas. IP addresses and
        /// `localhost` always may. Other names are refused, because any web page can make its own name lead to this
        /// address (DNS rebinding).
        hosts: Vec<String> = Vec::new(), "admin_hosts", HOST_NAMES;

        /// Whether `/healthz` and `/readyz` of the control plane are answered without `admin_key`: `on`, `off`, or
        /// `auto` (on if `admin` is a loopback address).
        probes_without_key: KeylessProbes = KeylessProbes::Auto, "probes_without_key", word();

        /// Milliseconds for which a core may stand still before `/healthz` and `/readyz` answer 503 and name it.
        liveness_timeout: Duration = Duration::from_secs(5), "liveness_timeout_ms", milliseconds!(100 to 3600000);
    }
    and {
        /// The keys of the HTTP API. Without any, the API is off.
        api_keys: Vec<ApiKeySpec> = Vec::new();
    }
}

/// Names of hosts separated by commas, as they stand in a header `Host`, without ports.
const HOST_NAMES: Form<Vec<String>> = Form {
    kind: Kind::Text,
    expects: "names such as ringcast.internal, without ports, separated by commas",
    parse: |text| {
        let names = names_in(text)?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        names.iter().all(|name| name.bytes().all(legal)).then_some(names)
    },
    show: |names| names.join(","),
};

/// Whether probes of the control plane are answered without its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeylessProbes {
    /// On if the control plane's address is a loopback address.
    #[default]
    Auto,
    /// Probes need no key.
    On,
    /// Probes need the key, as other requests do.
    Off,
}

words! {
    KeylessProbes, Switch, "auto, on or off":
    "auto" => Auto, "on" => On, "off" => Off, "true" => On, "false" => Off,
}
