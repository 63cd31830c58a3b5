//! Checks every request to the control plane before a page's handler sees it.
//!
//! The control plane usually listens on loopback without a key, and any web page that the operator opens may
//! send requests there. The browser gives such requests away: a page cannot set `Content-Type:
//! application/json` on a request to another origin without a CORS preflight (which no page here allows), and
//! cannot leave out the headers that say where a request comes from. With a host name of its own that
//! resolves to this machine ("DNS rebinding") a page would be of the same origin, hence the check of `Host`.
//!
//! The guard wraps the router (`routes.rs`): added pages are guarded, and so are paths without a page. The
//! only exceptions are [`PROBES`]. The HTTP API (`api/`) has keys of its own and larger bodies; it calls
//! [`check_api`] first.
//!
//! Limits: `BODY_BYTES_MAX` and `BODY_TIME_MAX` for the body of a request to any page.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::ControlState;
use crate::config::Config;
use crate::config::secret::Secret;
use crate::http::is_legal_authority;

/// Pages for the probes of supervisors and load balancers, which usually have no key. `probes_without_key`
/// says whether they need one.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Lets a request pass, with its whole body, if an operator made it or if it is an allowed probe.
pub(super) async fn guard(State(shared): State<Arc<ControlState>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    if let Err(refused) = RequestHead::of(&head).check(&GuardPolicy::of(&shared.config)) {
        return refused.into_response();
    }
    // No handler has to bound the body.
    match whole_body(body, BODY_BYTES_MAX, BODY_TIME_MAX).await {
        Ok(body) => next.run(Request::from_parts(head, Body::from(body))).await,
        Err(refused) => refused.into_response(),
    }
}

/// Checks the host and the sender of a request to the HTTP API, as the guard does for pages. `has_key` says
/// whether it brings an API key, which proves as `admin_key` does that no web page made it.
pub(super) fn check_api(head: &Parts, config: &Config, has_key: bool) -> Result<(), Refused> {
    let head = RequestHead::of(head);
    let host = head.host()?;
    head.check_sender(host, &GuardPolicy::of(config), has_key)
}

/// True if pages are open to everybody who reaches the control plane, or the request carries `admin_key`.
pub(super) fn admits_operator(headers: &HeaderMap, config: &Config) -> bool {
    let key = config.admin.key.as_ref();
    key.is_none_or(|key| bearer_of(headers).is_some_and(|guess| key.matches(guess)))
}

/// The key that a request carries (RFC 6750 section 2.1).
pub(super) fn bearer_of(headers: &HeaderMap) -> Option<&[u8]> {
    let authorization = headers.get(header::AUTHORIZATION)?;
    bearer(authorization.as_bytes())
}

/// The settings that the guard checks requests against.
struct GuardPolicy<'a> {
    key: Option<&'a Secret>,
    /// Names of this machine, in addition to its addresses and `localhost`.
    hosts: &'a [String],
    probes_without_key: bool,
}

impl GuardPolicy<'_> {
    fn of(config: &Config) -> GuardPolicy<'_> {
        GuardPolicy {
            key: config.admin.key.as_ref(),
            hosts: &config.admin.hosts,
            probes_without_key: config.allows_probes_without_key(),
        }
    }

    /// True if the host is an IP address, which no page can make resolve elsewhere, or a known name of this
    /// machine.
    fn is_known_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) | None => host,
        };
        let name = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }
}

/// The head of a request.
struct RequestHead<'a> {
    method: &'a Method,
    path: &'a str,
    /// The host of a request target in absolute form.
    authority: Option<&'a Authority>,
    version: Version,
    headers: &'a HeaderMap,
}

/// Why the guard refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has no header `Host`, several, or one with an invalid or empty value.
    NoHost,
    /// It does not carry the key.
    NoKey,
    /// Its host is not known to be this machine.
    ForeignHost,
    /// A web page of another origin made it.
    ForeignPage,
    /// It may change something, and could be a form of a web page, since it is not JSON.
    NotJson,
    /// The connection ended before the body was complete.
    BrokenBody,
    /// Its body is over the limit.
    LargeBody,
    /// Its body did not come in time.
    SlowBody,
}

impl Refused {
    fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Refused::NoHost => (
                StatusCode::BAD_REQUEST,
                "the request needs one valid Host header\n",
            ),
            Refused::NoKey => (
                StatusCode::UNAUTHORIZED,
                "this page needs the header Authorization: Bearer KEY\n",
            ),
            Refused::ForeignHost => (
                StatusCode::FORBIDDEN,
                "unknown host name: use an IP address, localhost or a name in admin_hosts, or send the admin_key\n",
            ),
            Refused::ForeignPage => (
                StatusCode::FORBIDDEN,
                "web pages of other origins may not send requests here\n",
            ),
            Refused::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this request needs the header Content-Type: application/json\n",
            ),
            Refused::BrokenBody => (StatusCode::BAD_REQUEST, "the body is incomplete\n"),
            Refused::LargeBody => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than 4096 bytes\n",
            ),
            Refused::SlowBody => (
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come within 5 seconds\n",
            ),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.answer().into_response();
        match self {
            Refused::NoKey => {
                let challenge = header::HeaderValue::from_static("Bearer realm=\"ringcast\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            // The rest of the body must not be read as another request.
            Refused::BrokenBody | Refused::LargeBody | Refused::SlowBody => {
                let close = header::HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Refused::NoHost | Refused::ForeignHost | Refused::ForeignPage | Refused::NotJson => {}
        }
        response
    }
}

impl<'a> RequestHead<'a> {
    fn of(head: &'a Parts) -> RequestHead<'a> {
        RequestHead {
            method: &head.method,
            path: head.uri.path(),
            authority: head.uri.authority(),
            version: head.version,
            headers: &head.headers,
        }
    }
}

impl RequestHead<'_> {
    fn check(&self, policy: &GuardPolicy<'_>) -> Result<(), Refused> {
        let host = self.host()?;
        let has_key = policy.key.is_some_and(|key| self.has_key(key));
        if policy.key.is_some() && !has_key && !(policy.probes_without_key && self.is_probe()) {
            return Err(Refused::NoKey);
        }
        self.check_sender(host, policy, has_key)?;
        if self.is_reading() || self.is_probe() || is_json(self.headers) {
            Ok(())
        } else {
            Err(Refused::NotJson)
        }
    }

    /// Checks that the request is meant for this machine, and that no web page of another origin made it.
    fn check_sender(&self, host: &str, policy: &GuardPolicy<'_>, has_key: bool) -> Result<(), Refused> {
        // A request with the key comes from an operator, whatever name the machine has there: no browser adds
        // the key by itself. A request without any host does not come from a browser.
        let target = self.authority.map_or(host, Authority::as_str);
        // Another reader, such as a proxy in front, might take an invalid authority for a different host.
        if ![host, target]
            .iter()
            .all(|host| host.is_empty() || is_legal_authority(host.as_bytes()))
        {
            return Err(Refused::NoHost);
        }
        let is_foreign = |host: &str| !host.is_empty() && !policy.is_known_host(host);
        if !has_key && (is_foreign(host) || is_foreign(target)) {
            return Err(Refused::ForeignHost);
        }
        if self.is_from_foreign_page(target) {
            return Err(Refused::ForeignPage);
        }
        Ok(())
    }

    /// The value of the only `Host` header, which may be empty or missing in an HTTP/1.0 request (RFC 9112 section 3.2;
    /// no URL of this server has an empty authority).
    fn host(&self) -> Result<&str, Refused> {
        let mut hosts = self.headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, None) if self.version == Version::HTTP_10 => Ok(""),
            (Some(host), None) if !host.is_empty() || self.version == Version::HTTP_10 => {
                host.to_str().map_err(|_| Refused::NoHost)
            }
            (None | Some(_), _) => Err(Refused::NoHost),
        }
    }

    fn is_probe(&self) -> bool {
        (self.is_reading() || self.method == Method::OPTIONS) && PROBES.contains(&self.path)
    }

    fn is_reading(&self) -> bool {
        [Method::GET, Method::HEAD].contains(self.method)
    }

    fn has_key(&self, key: &Secret) -> bool {
        bearer_of(self.headers).is_some_and(|guess| key.matches(guess))
    }

    fn is_from_foreign_page(&self, host: &str) -> bool {
        let from_elsewhere = self
            .texts("sec-fetch-site")
            .any(|site| !matches!(site, "same-origin" | "none"));
        // A followed link opens a page here in the browser's window: the operator sees it, but the page with
        // the link cannot read it.
        let is_followed_link = self.is_reading()
            && self.text("sec-fetch-mode") == Some("navigate")
            && self.text("sec-fetch-dest") == Some("document");
        let foreign_origin = self.texts("origin").any(|origin| {
            origin
                .split_once("://")
                .is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
        });
        foreign_origin || (from_elsewhere && !is_followed_link)
    }

    /// All values of a header; a value that is not ASCII text is returned as empty.
    fn texts(&self, name: &'static str) -> impl Iterator<Item = &str> {
        texts(self.headers, name)
    }

    /// The value of a header that occurs exactly once.
    fn text(&self, name: &'static str) -> Option<&str> {
        let mut values = self.texts(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }
}

/// True if the body is declared as JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut kinds = texts(headers, "content-type").peekable();
    let names_json = |kind: &str| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    };
    kinds.peek().is_some() && kinds.all(names_json)
}

fn texts<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(header::HeaderName::from_static(name));
    values.into_iter().map(|value| value.to_str().unwrap_or_default())
}

/// The key in an `Authorization` header (RFC 6750 section 2.1). The scheme is compared without case (RFC 9110
/// section 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = authorization.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| key.trim_ascii())
}

const BEARER: &[u8] = b"Bearer ";

/// Waits for the whole body. If its announced length is over the limit, it is refused before any of it is asked for: a
/// client that expects `100 Continue` sends none of it.
pub(super) async fn whole_body(body: Body, bytes_max: usize, time_max: Duration) -> Result<Bytes, Refused> {
    if HttpBody::size_hint(&body).lower() > bytes_max as u64 {
        return Err(Refused::LargeBody);
    }
    let body = timeout(time_max, Limited::new(body, bytes_max).collect())
        .await
        .map_err(|_| Refused::SlowBody)?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                Refused::LargeBody
            } else {
                Refused::BrokenBody
            }
        })?;
    Ok(body.to_bytes())
}

/// Largest body of a request to a page, in bytes. The only bodies are a claim and its value.
const BODY_BYTES_MAX: usize = 4096;
/// How long a body may take to arrive after its head.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'static str, &'static str)];

    fn outcome_of(
        method: &Method,
        path: &str,
        authority: Option<&str>,
        version: Version,
        headers: Headers<'_>,
        policy: &GuardPolicy<'_>,
    ) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, header::HeaderValue::from_static(value));
        }
        let authority: Option<Authority> = authority.map(|authority| authority.parse().unwrap());
        let head = RequestHead {
            method,
            path,
            authority: authority.as_ref(),
            version,
            headers: &map,
        };
        head.check(policy)
            .map_or_else(|refused| refused.answer().0.as_u16(), |()| 200)
    }

    fn outcome(method: &Method, headers: Headers<'_>, key: Option<&Secret>) -> u16 {
        let policy = GuardPolicy {
            key,
            hosts: &[],
            probes_without_key: true,
        };
        outcome_of(method, "/revoke", None, Version::HTTP_11, headers, &policy)
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const HOST: (&str, &str) = ("host", "127.0.0.1:9464");
    const KEY: (&str, &str) = ("authorization", "Bearer open sesame");

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        for (headers, status) in [
            (&[HOST, JSON][..], 200),
            (&[("host", "[::1]:9464"), JSON], 200),
            (&[("host", "[::1]"), JSON], 200),
            (&[("host", "localhost:9464"), JSON], 200),
            (&[("host", "LOCALHOST"), JSON], 200),
            (&[HOST, ("content-type", "Application/JSON; charset=utf-8")], 200),
            (&[HOST, JSON, ("origin", "http://127.0.0.1:9464")], 200),
            (&[HOST, JSON, ("sec-fetch-site", "same-origin")], 200),
            (&[HOST, JSON, ("sec-fetch-site", "none")], 200),
            (&[HOST], 415),
            (&[HOST, ("content-type", "text/plain")], 415),
            (&[HOST, ("content-type", "application/jsonp")], 415),
            (&[HOST, ("content-type", "text/plain; application/json")], 415),
            (&[HOST, JSON, ("origin", "http://evil.example")], 403),
            (&[HOST, JSON, ("origin", "http://127.0.0.1:9465")], 403),
            (&[HOST, JSON, ("origin", "null")], 403),
            (&[HOST, JSON, ("origin", "")], 403),
            (
                &[
                    HOST,
                    JSON,
                    ("origin", "http://127.0.0.1:9464"),
                    ("origin", "http://evil.example"),
                ],
                403,
            ),
            (
                &[
                    HOST,
                    JSON,
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-site", "cross-site"),
                ],
                403,
            ),
            (&[HOST, JSON, ("content-type", "text/plain")], 415),
            (&[HOST, JSON, ("sec-fetch-site", "cross-site")], 403),
            (&[HOST, JSON, ("sec-fetch-site", "same-site")], 403),
            // A followed link changes nothing, since it cannot be a POST.
            (
                &[
                    HOST,
                    JSON,
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                403,
            ),
            // A host name of the page's own that resolves to this machine.
            (
                &[
                    ("host", "evil.example:9464"),
                    JSON,
                    ("origin", "http://evil.example:9464"),
                ],
                403,
            ),
            (&[("host", "localhost.evil.example"), JSON], 403),
            (&[("host", "127.0.0.1.evil.example"), JSON], 403),
            (&[("host", "127.0.0.1@evil.example"), JSON], 400),
            (&[JSON], 400),
            (&[("host", ""), JSON], 400),
            (&[HOST, HOST, JSON], 400),
            (&[HOST, ("host", "evil.example"), JSON], 400),
        ] {
            assert_eq!(outcome(&Method::POST, headers, None), status, "{headers:?}");
            assert_eq!(outcome(&Method::DELETE, headers, None), status, "{headers:?}");
        }
    }

    #[test]
    fn a_get_needs_no_content_type_and_a_page_of_another_origin_may_link_here_but_not_fetch() {
        let site = ("sec-fetch-site", "cross-site");
        let (navigate, document) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
        for (headers, status) in [
            (&[HOST][..], 200),
            (&[("host", "evil.example")], 403),
            (&[HOST, site], 403),
            (&[HOST, site, navigate, document], 200),
            (&[HOST, site, navigate, ("sec-fetch-dest", "iframe")], 403),
            (
                &[
                    HOST,
                    site,
                    ("sec-fetch-mode", "no-cors"),
                    ("sec-fetch-dest", "script"),
                ],
                403,
            ),
            (&[HOST, site, navigate, document, ("origin", "null")], 403),
            (&[("host", "evil.example"), site, navigate, document], 403),
        ] {
            assert_eq!(outcome(&Method::GET, headers, None), status, "{headers:?}");
        }
    }

    #[test]
    fn with_the_key_any_host_name_is_accepted_and_without_it_every_request_is_refused() {
        let key = Secret::new("open sesame");
        let named = ("host", "ringcast.example");
        for (headers, status) in [
            (&[named, JSON, KEY][..], 200),
            (&[named, JSON, ("authorization", "bearer open sesame")], 200),
            (&[named, JSON, KEY, ("origin", "https://evil.example")], 403),
            (&[HOST, JSON], 401),
            (&[HOST, JSON, ("authorization", "Bearer open sesam")], 401),
            (&[HOST, JSON, ("authorization", "Basic open sesame")], 401),
        ] {
            assert_eq!(outcome(&Method::POST, headers, Some(&key)), status, "{headers:?}");
        }
    }

    #[test]
    fn probes_need_no_key_where_that_is_allowed_but_a_known_host() {
        let key = Secret::new("open sesame");
        let hosts = ["ringcast.internal".to_owned()];
        let probe = |path: &str, version, headers: Headers<'_>, probes_without_key| {
            let policy = GuardPolicy {
                key: Some(&key),
                hosts: &hosts,
                probes_without_key,
            };
            outcome_of(&Method::GET, path, None, version, headers, &policy)
        };
        for path in PROBES {
            assert_eq!(probe(path, Version::HTTP_11, &[HOST], true), 200);
            assert_eq!(probe(path, Version::HTTP_11, &[HOST], false), 401);
            assert_eq!(
                probe(path, Version::HTTP_11, &[("host", "Ringcast.internal:80")], true),
                200
            );
            assert_eq!(
                probe(path, Version::HTTP_11, &[("host", "evil.example")], true),
                403
            );
            assert_eq!(probe(path, Version::HTTP_11, &[], true), 400);
            // HAProxy sends this if no host is configured.
            assert_eq!(probe(path, Version::HTTP_10, &[], true), 200);
        }
        for path in ["/metrics", "/healthz/", "/healthz/../metrics", "/"] {
            assert_eq!(probe(path, Version::HTTP_11, &[HOST], true), 401, "{path}");
        }
    }

    #[test]
    fn the_host_of_a_target_in_absolute_form_is_checked_too() {
        let policy = GuardPolicy {
            key: None,
            hosts: &[],
            probes_without_key: true,
        };
        for (authority, host, status) in [
            ("127.0.0.1:9464", HOST, 200),
            ("evil.example:9464", HOST, 403),
            ("127.0.0.1:9464", ("host", "evil.example"), 403),
        ] {
            let found = outcome_of(
                &Method::GET,
                "/metrics",
                Some(authority),
                Version::HTTP_11,
                &[host],
                &policy,
            );
            assert_eq!(found, status, "{authority} {host:?}");
        }
    }

    #[test]
    fn an_invalid_host_is_refused_with_and_without_the_key() {
        let key = Secret::new("open sesame");
        for host in [
            "a b",
            "a,b",
            "::1",
            "[::1",
            "127.0.0.1:9464:1",
            "127.0.0.1:99999",
            "user@127.0.0.1",
            "http://127.0.0.1",
            "127.0.0.1/x",
        ] {
            let headers = [("host", host), JSON, KEY];
            for key in [None, Some(&key)] {
                assert_eq!(outcome(&Method::POST, &headers, key), 400, "{host}");
                assert_eq!(outcome(&Method::GET, &headers, key), 400, "{host}");
            }
        }
    }

    #[test]
    fn only_probes_may_use_options() {
        for (path, status) in [
            ("/healthz", 200),
            ("/readyz", 200),
            ("/metrics", 415),
            ("/revoke", 415),
        ] {
            let policy = GuardPolicy {
                key: None,
                hosts: &[],
                probes_without_key: true,
            };
            let found = outcome_of(&Method::OPTIONS, path, None, Version::HTTP_10, &[], &policy);
            assert_eq!(found, status, "{path}");
        }
    }
}
