//! The proxies in front of the server, and how they name the client of a connection.

use super::form::{Kind, parsed, word};
use super::settings::settings;
use crate::client::networks::Networks;

settings! {
    /// The proxies in front of the server, and how they name the client of a connection.
    #[derive(PartialEq, Eq)]
    proxies: Proxies {
        /// Addresses and networks of the proxies in front, such as `10.0.0.0/8 192.0.2.1 ::1`. The server believes only
        /// these proxies when they name the client of a connection.
        trusted: Networks = Networks::default(), "trusted_proxies",
            parsed(
                Kind::Text,
                "addresses and networks such as 10.0.0.0/8 192.0.2.1 2001:db8::/32, without bits behind the network's",
            ), on reload;

        /// Whether connections from `trusted_proxies` begin with a PROXY header (version 1 or 2); with `on` all of them
        /// must.
        proxy_protocol: bool = false, "proxy_protocol", word(), on reload;

        /// Whether the client of a request from `trusted_proxies` is taken from `X-Forwarded-For`: the first address
        /// from the right that is not a trusted proxy.
        x_forwarded_for: bool = false, "x_forwarded_for", word(), on reload;
    }
}
