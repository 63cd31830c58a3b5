//! The address for clients and which requests are answered there.

use std::net::SocketAddr;

use crate::client::network::Nat64Prefixes;
use crate::client::origin::AllowedOrigins;

/// The address for clients.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where clients connect.
    pub address: SocketAddr,
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
    /// The prefixes by which clients of IPv4 come as clients of IPv6, besides those that everybody knows.
    pub translator_prefixes: Nat64Prefixes,
    /// What happens to connections that come while there is no room, or too fast.
    pub accept_excess: AcceptExcess,
    /// Connections that may wait to be accepted, per core; the system may allow fewer.
    pub tcp_backlog: i32,
}

impl Default for Listen {
    fn default() -> Listen {
        Listen {
            address: SocketAddr::from(([127, 0, 0, 1], 8000)),
            path: "/socketcluster/".to_owned(),
            probe_paths: ["/health-check", "/healthz"].map(str::to_owned).to_vec(),
            welcome_page: WelcomePage::Auto,
            origins: "*:*".to_owned(),
            allowed_origins: AllowedOrigins::default(),
            translator_prefixes: Nat64Prefixes::default(),
            accept_excess: AcceptExcess::Wait,
            tcp_backlog: 4096,
        }
    }
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

/// What happens to connections that come while there is no room, or too fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptExcess {
    /// They wait in the backlog, as far as that reaches, and are accepted when there is room.
    #[default]
    Wait,
    /// They are answered 503 at once, with a `Retry-After`.
    Refuse,
}
