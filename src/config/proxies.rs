//! The proxies in front of the server.

use crate::client::networks::Networks;

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
