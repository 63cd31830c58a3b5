//! Keeps the parts of a client's HTTP request that hooks are told of: the headers, cookies and query that
//! `[[hooks]]` names (`headers`, `cookies`, `query`).
//!
//! A browser adds cookies and the credentials of its user to a request, no matter which page makes it. They
//! are kept only if the server trusts the page's origin with them.

use crate::app::{App, UpgradeRequest};
use crate::client::ambient::{Ambient, Trust};
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::hooks::{COOKIES, Hooks};
use crate::http::{Request, cookie};

impl<A: App> Core<A> {
    /// The part of a request that some hook passes on.
    pub(in crate::cores) fn passed_on(
        &self,
        hooks: &Hooks,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> UpgradeRequest {
        let peer = self
            .connections
            .get(id)
            .and_then(|connection| connection.client.socket_address());
        let is_https = self.is_under_tls(id) || self.proxy_says_https(id, request);
        let trust = self.origins().trust(request, is_https);
        let mut headers = Vec::new();
        for (name, value) in request.headers() {
            let name = name.to_ascii_lowercase();
            if !hooks.headers().contains(&name) {
                continue;
            }
            let value = Ambient::new(value);
            let value = match &*name {
                "authorization" | "proxy-authorization" => value.value_for(trust),
                _ => value.value_for(Trust::Own),
            };
            headers.extend(value.map(|value| (name, value.to_vec())));
        }
        for name in hooks.cookies() {
            let value = cookie::find(request, name).and_then(|cookie| cookie.value_for(trust));
            headers.extend(value.map(|value| (COOKIES.to_owned(), format!("{name}={value}").into_bytes())));
        }
        let query = request
            .query()
            .filter(|_| hooks.passes_query())
            .unwrap_or_default();
        // The path is kept as long as the connection lasts.
        let path = request.path();
        let path = &path[..path.floor_char_boundary(PATH_BYTES_MAX)];
        UpgradeRequest::new(path, query, headers, peer)
    }
}

/// Of a longer path, only the beginning is kept.
const PATH_BYTES_MAX: usize = 1024;
