//! Requests that change something, or tell who is known, against pages that make an operator's browser send them.
//!
//! The control plane usually listens on loopback without a key, and any page that the operator looks at may send
//! requests there. What a page cannot do is set the header `Content-Type: application/json` on a request to another
//! origin without asking first (which nobody allows here), nor leave out what a browser says about where a request is
//! from. A name of the page's own that leads to this machine makes it the same origin, hence the look at `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;

/// Lets a request pass that no foreign page has made.
pub(super) async fn guarded(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let has_key = shared.config.admin_key.is_some();
    match check(request.method(), request.headers(), has_key) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check(method: &Method, headers: &HeaderMap, has_key: bool) -> Result<(), (StatusCode, &'static str)> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    // Who has the key is an operator, whatever the name of this machine.
    if !has_key && !is_this_machine(host) {
        return Err((
            StatusCode::FORBIDDEN,
            "without admin_key this is asked for by address or as localhost\n",
        ));
    }
    let from_elsewhere = text(header::HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let foreign = text(header::ORIGIN).is_some_and(|origin| {
        origin
            .split_once("://")
            .is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
    });
    if from_elsewhere || foreign {
        return Err((
            StatusCode::FORBIDDEN,
            "this may not be asked for by a page of another origin\n",
        ));
    }
    if [Method::GET, Method::HEAD].contains(method) {
        return Ok(());
    }
    let is_json = text(header::CONTENT_TYPE)
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if is_json {
        Ok(())
    } else {
        Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "this needs the header Content-Type: application/json\n",
        ))
    }
}

/// Whether the host is an address, or the one name that leads nowhere else.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let name = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(method: &Method, headers: &[(&'static str, &'static str)], has_key: bool) -> u16 {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    header::HeaderName::from_static(name),
                    header::HeaderValue::from_static(value),
                )
            })
            .collect();
        match check(method, &headers, has_key) {
            Ok(()) => 200,
            Err((status, _)) => status.as_u16(),
        }
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const HOST: (&str, &str) = ("host", "127.0.0.1:9464");

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        for (headers, status) in [
            (&[HOST, JSON][..], 200),
            (&[("host", "[::1]:9464"), JSON], 200),
            (&[("host", "localhost:9464"), JSON], 200),
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
            (&[HOST, JSON, ("sec-fetch-site", "cross-site")], 403),
            (&[HOST, JSON, ("sec-fetch-site", "same-site")], 403),
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
            (&[JSON], 403),
        ] {
            assert_eq!(outcome(&Method::POST, headers, false), status, "{headers:?}");
            assert_eq!(outcome(&Method::DELETE, headers, false), status, "{headers:?}");
        }
    }

    #[test]
    fn reading_needs_no_type_and_a_key_makes_the_name_not_matter() {
        assert_eq!(outcome(&Method::GET, &[HOST], false), 200);
        assert_eq!(outcome(&Method::GET, &[("host", "evil.example")], false), 403);
        assert_eq!(
            outcome(&Method::GET, &[HOST, ("sec-fetch-site", "cross-site")], false),
            403
        );
        assert_eq!(
            outcome(&Method::POST, &[("host", "ringcast.example"), JSON], true),
            200
        );
        assert_eq!(
            outcome(
                &Method::POST,
                &[
                    ("host", "ringcast.example"),
                    JSON,
                    ("origin", "https://evil.example")
                ],
                true
            ),
            403
        );
    }
}
