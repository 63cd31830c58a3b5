//! The address for clients: where it is, who may connect, and which requests are answered there.

use std::net::SocketAddr;

use super::form::{Form, Kind, PATH, names_in, number, parsed, path, some_text, word, words};
use super::settings::settings;
use crate::client::network::Nat64Prefixes;
use crate::client::origin::AllowedOrigins;

settings! {
    /// The address for clients: where it is, who may connect, and which requests are answered there.
    listen: Listen {
        /// Address and port for clients.
        address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8000)), "listen",
            parsed(Kind::Text, "an address with a port, such as 127.0.0.1:8000 or [::]:8000");

        /// Path of the WebSocket endpoint.
        path: String = "/socketcluster/".to_owned(), "path", PATH;

        /// Paths on the client port at which a load balancer's `GET`, `HEAD` or `OPTIONS` is answered 200 while clients
        /// are served and 503 during a drain, separated by commas, or `off`.
        probe_paths: Vec<String> = ["/health-check", "/healthz"].map(str::to_owned).to_vec(), "probe_paths",
            PATHS_OR_OFF;

        /// Whether `/` on the client port is a page on which the server can be tried out: `on`, `off` (a line of text),
        /// or `auto` (on if all addresses are loopback addresses and `trusted_proxies` is empty).
        welcome_page: WelcomePage = WelcomePage::Auto, "welcome_page", word();

        /// Origins that may connect: `*:*` for all, else any of `host:port`, `host:*` and `*:port`, separated by
        /// spaces.
        origins: String = "*:*".to_owned(), "origins",
            some_text("*:*, or origins such as example.com:443 example.org:*"), on reload;

        /// Origins that may connect, compared exactly by scheme, host and port, in addition to the check of `origins`:
        /// such as `https://example.com`, `https://*.example.com` (one label for each `*`), `http://localhost:*`.
        /// Requests without an origin come from no web page and may connect. Empty for no such check.
        allowed_origins: AllowedOrigins = AllowedOrigins::default(), "allowed_origins",
            parsed(Kind::Text, "origins such as https://example.com https://*.example.com http://localhost:*"), on reload;

        /// IPv6 prefixes of this network's translators (NAT64, SIIT; RFC 6052). An IPv4 client that comes through one
        /// of them is counted by its IPv4 address. `64:ff9b::/96` and `64:ff9b:1::/48` are always known.
        translator_prefixes: Nat64Prefixes = Nat64Prefixes::default(), "translator_prefixes",
            parsed(
                Kind::Text,
                "IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits such as 2001:db8:64::/96, without bits behind the prefix's",
            );

        /// Action on connections beyond `connections_max`, `connections_per_core_max` or `accepts_per_second_max`:
        /// `wait` leaves them in the backlog, `refuse` answers 503.
        accept_excess: AcceptExcess = AcceptExcess::Wait, "accept_excess", word();

        /// Most connections that may wait to be accepted, for each core. `net.core.somaxconn` of the system may allow
        /// fewer.
        tcp_backlog: u16 = 4096, "tcp_backlog", number!(1 to 65535);
    }
}

/// Paths separated by commas, or none.
const PATHS_OR_OFF: Form<Vec<String>> = Form {
    kind: Kind::Text,
    expects: "off, or paths such as /health-check,/healthz",
    parse: |text| match text {
        "off" => Some(Vec::new()),
        paths => names_in(paths)?.iter().map(|one| path(one)).collect(),
    },
    show: |paths| match &paths[..] {
        [] => "off".to_owned(),
        paths => paths.join(","),
    },
};

/// Whether `/` on the client port is a page on which the server can be tried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WelcomePage {
    /// On if all addresses are loopback addresses and no proxy is trusted.
    #[default]
    Auto,
    /// A page.
    On,
    /// A line of text.
    Off,
}

words! {
    WelcomePage, Switch, "auto, on or off":
    "auto" => Auto, "on" => On, "off" => Off, "true" => On, "false" => Off,
}

/// What the server does with connections that arrive while there is no room, or too fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptExcess {
    /// It leaves them in the backlog, as far as that reaches, and accepts them when there is room.
    #[default]
    Wait,
    /// It answers 503 at once, with a `Retry-After`.
    Refuse,
}

words! { AcceptExcess, Text, "wait or refuse": "wait" => Wait, "refuse" => Refuse }
