//! What a request must be before any page of the control plane sees it.
//!
//! The control plane usually listens on loopback without a key, and any page that the operator looks at may send
//! requests there. A page cannot set the header `Content-Type: application/json` on a request to another origin without
//! asking first (which nobody allows here), nor leave out what a browser says about where a request is from. A name of the
//! page's own that leads to this machine ("DNS rebinding") makes it the same origin, hence the look at `Host`.
//!
//! The guard stands around the router (`routes.rs`): a page that is added is guarded, and so is a path without a page. The
//! exceptions are named here: [`PROBES`].
//!
//! Limits: `BODY_BYTES_MAX` and `BODY_TIME_MAX` for the body of a request to any page.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
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

/// Pages for probes of supervisors and balancers, which have no key: `probes_without_key` says whether they need one.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Lets a request pass that an operator has made, or a probe that is allowed, with its body whole.
pub(super) async fn guard(State(shared): State<Arc<ControlState>>, request: Request, next: Next) -> Response {
    let asked = Asked {
        method: request.method(),
        path: request.uri().path(),
        authority: request.uri().authority(),
        version: request.version(),
        headers: request.headers(),
    };
    if let Err(refused) = asked.check(&GuardPolicy::of(&shared.config)) {
        return refused.into_response();
    }
    match with_whole_body(request).await {
        Ok(request) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// What the guard asks of the configuration.
struct GuardPolicy<'a> {
    key: Option<&'a Secret>,
    /// Names of this machine, beside its addresses and `localhost`.
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

    /// Whether the host is an address, which no page can make lead elsewhere, or a name that is known to be ours.
    fn is_ours(&self, host: &str) -> bool {
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

/// What a request says before its body.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    /// The host of a target in absolute form.
    authority: Option<&'a Authority>,
    version: Version,
    headers: &'a HeaderMap,
}

/// Why a request is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// It names no host, several, or something that is none.
    NoHost,
    /// It does not bear the key.
    NoKey,
    /// It asks for a host that is not known to be this one.
    ForeignHost,
    /// A page of another origin has made it.
    ForeignPage,
    /// It would change something, and may be a form of a page.
    NotJson,
    /// Its body ended too early.
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
                "this needs one header Host, which names a host\n",
            ),
            Refused::NoKey => (
                StatusCode::UNAUTHORIZED,
                "this needs the header Authorization: Bearer KEY\n",
            ),
            Refused::ForeignHost => (
                StatusCode::FORBIDDEN,
                "ask for this by address, as localhost, by a name in admin_hosts, or with the admin_key\n",
            ),
            Refused::ForeignPage => (
                StatusCode::FORBIDDEN,
                "this may not be asked for by a page of another origin\n",
            ),
            Refused::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this needs the header Content-Type: application/json\n",
            ),
            Refused::BrokenBody => (StatusCode::BAD_REQUEST, "the body is not whole\n"),
            Refused::LargeBody => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "a body may have 4096 bytes at the most\n",
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
            // What is left of the body is not the beginning of another request.
            Refused::BrokenBody | Refused::LargeBody | Refused::SlowBody => {
                let close = header::HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Refused::NoHost | Refused::ForeignHost | Refused::ForeignPage | Refused::NotJson => {}
        }
        response
    }
}

impl Asked<'_> {
    fn check(&self, policy: &GuardPolicy<'_>) -> Result<(), Refused> {
        let host = self.host()?;
        let has_key = policy.key.is_some_and(|key| self.bears(key));
        if policy.key.is_some() && !has_key && !(policy.probes_without_key && self.is_probe()) {
            return Err(Refused::NoKey);
        }
        // Who has the key is an operator, whatever the name of this machine; no browser adds it by itself. Who names no
        // host is no browser.
        let target = self.authority.map_or(host, Authority::as_str);
        // What another reader might take for another host, such as a proxy in front.
        if ![host, target]
            .iter()
            .all(|host| host.is_empty() || is_legal_authority(host.as_bytes()))
        {
            return Err(Refused::NoHost);
        }
        let is_foreign = |host: &str| !host.is_empty() && !policy.is_ours(host);
        if !has_key && (is_foreign(host) || is_foreign(target)) {
            return Err(Refused::ForeignHost);
        }
        if self.is_from_foreign_page(target) {
            return Err(Refused::ForeignPage);
        }
        if self.is_reading() || self.is_probe() || self.is_json() {
            Ok(())
        } else {
            Err(Refused::NotJson)
        }
    }

    /// The one header `Host`, or nothing in HTTP/1.0 (RFC 9112 section 3.2).
    fn host(&self) -> Result<&str, Refused> {
        let mut hosts = self.headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().map_err(|_| Refused::NoHost),
            (None, None) if self.version == Version::HTTP_10 => Ok(""),
            (None | Some(_), _) => Err(Refused::NoHost),
        }
    }

    fn is_probe(&self) -> bool {
        (self.is_reading() || self.method == Method::OPTIONS) && PROBES.contains(&self.path)
    }

    fn is_reading(&self) -> bool {
        [Method::GET, Method::HEAD].contains(self.method)
    }

    fn bears(&self, key: &Secret) -> bool {
        self.headers
            .get(header::AUTHORIZATION)
            .and_then(|value| bearer(value.as_bytes()))
            .is_some_and(|guess| key.matches(guess))
    }

    fn is_from_foreign_page(&self, host: &str) -> bool {
        let from_elsewhere = self
            .texts("sec-fetch-site")
            .any(|site| !matches!(site, "same-origin" | "none"));
        // A link to a page here opens it: who has followed it sees it, and the page with the link does not.
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

    fn is_json(&self) -> bool {
        let mut kinds = self.texts("content-type").peekable();
        let names_json = |kind: &str| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/json")
        };
        kinds.peek().is_some() && kinds.all(names_json)
    }

    /// All values of a header; empty for each that is no text.
    fn texts(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let values = self.headers.get_all(header::HeaderName::from_static(name));
        values.into_iter().map(|value| value.to_str().unwrap_or_default())
    }

    /// A header that is there once; empty if it is no text.
    fn text(&self, name: &'static str) -> Option<&str> {
        let mut values = self.texts(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }
}

/// The key of a header (RFC 6750 section 2.1); the scheme's case does not matter (RFC 9110 section 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = authorization.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| key.trim_ascii())
}

const BEARER: &[u8] = b"Bearer ";

/// Waits for the whole body, so that no page has to bound it.
async fn with_whole_body(request: Request) -> Result<Request, Refused> {
    let (head, body) = request.into_parts();
    let body = timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect())
        .await
        .map_err(|_| Refused::SlowBody)?
        .map_err(|error| match error.is::<LengthLimitError>() {
            true => Refused::LargeBody,
            false => Refused::BrokenBody,
        })?;
    Ok(Request::from_parts(head, Body::from(body.to_bytes())))
}

/// Largest body of a request, in bytes: what is asked for here is a claim and its value.
const BODY_BYTES_MAX: usize = 4096;
/// How long a body may take to come after its head.
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
        let asked = Asked {
            method,
            path,
            authority: authority.as_ref(),
            version,
            headers: &map,
        };
        asked
            .check(policy)
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
            // A link that is followed changes nothing: it cannot be a POST.
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
            // A name of the page's own that leads here.
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
            (&[HOST, HOST, JSON], 400),
            (&[HOST, ("host", "evil.example"), JSON], 400),
        ] {
            assert_eq!(outcome(&Method::POST, headers, None), status, "{headers:?}");
            assert_eq!(outcome(&Method::DELETE, headers, None), status, "{headers:?}");
        }
    }

    #[test]
    fn reading_needs_no_type_and_a_page_elsewhere_may_link_here_but_not_fetch() {
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
    fn with_a_key_the_name_does_not_matter_and_without_it_nothing_is_answered() {
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
    fn probes_need_no_key_where_that_is_allowed_but_a_host_that_is_ours() {
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
            // What HAProxy sends if it is not told of a host.
            assert_eq!(probe(path, Version::HTTP_10, &[], true), 200);
        }
        for path in ["/metrics", "/healthz/", "/healthz/../metrics", "/"] {
            assert_eq!(probe(path, Version::HTTP_11, &[HOST], true), 401, "{path}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_is_judged_by_its_host_too() {
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
    fn what_is_no_host_is_malformed_whoever_asks() {
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
    fn a_probe_may_ask_with_options_and_nobody_else_may() {
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
