//! Decides which web pages may open a connection: by the reference's `origins` option, and by a strict list.
//!
//! The option is one string, which the reference searches instead of parsing it as a list. If it contains `*:*`
//! anywhere, all origins pass. Otherwise the origin is parsed as a URL, and passes if the string contains `host:port`,
//! `host:*` or `*:port`. A configuration that was moved from the reference must have the same effect here, so the
//! oddities of this search are kept: `ample.com:80` is found in `example.com:80`, and a missing origin has the host
//! `null` and port 80. Wire reference, section 2.
//!
//! The origin is parsed as Node's `url.parse` does it, also if it is not a URL at all; the table in the tests was made
//! with `url.parse`. There is one difference: host names beyond ASCII are compared as they are, not in their `xn--`
//! form. Browsers send the `xn--` form themselves.

use std::borrow::Cow;

use crate::client::ambient::Trust;
use crate::client::origin::{AllowedOrigins, Origin};
use crate::http::{Refusal, Request};

/// The origins that may connect: the reference's option, and the strict list. An origin must pass both.
#[derive(Clone, Copy, Debug)]
pub struct Origins<'a> {
    /// The reference's `origins` option.
    pub option: &'a str,
    /// Exact origins. If the list is empty, the option alone decides. A request without an origin header does not come
    /// from a page, and passes.
    pub list: &'a AllowedOrigins,
}

/// The reason why an origin may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request has no origin. It does not come from a browser, which sends one with each upgrade and with each
    /// POST.
    Missing,
    /// The origin is that of the host which the request asks for.
    SameOrigin,
    /// The origin is listed by name: by an entry of the list, or as `host:port` or `host:*` in the option, compared
    /// exactly.
    Listed,
    /// Any origin may connect, because of `*:*`, of `*:port`, or of the way in which the reference searches its option.
    /// So the request may come from any page.
    Anyone,
}

impl Verdict {
    /// Whether a cookie or client certificate, which the browser adds by itself, counts: no if the page may be any
    /// page.
    pub fn trust(self) -> Trust {
        match self {
            Verdict::Missing | Verdict::SameOrigin | Verdict::Listed => Trust::Own,
            Verdict::Anyone => Trust::Foreign,
        }
    }
}

impl Origins<'_> {
    /// Checks an origin as it stands in the header, with several lines joined. `host` is the host that the request asks
    /// for; `is_secure` says that the request came over TLS that ends here.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check(
        &self,
        origin: Option<&str>,
        host: Option<&[u8]>,
        is_secure: bool,
    ) -> Result<Verdict, Refusal> {
        let refused = || Refusal::Origin(origin_or_star(origin).to_owned());
        if !allows(self.option, origin) {
            return Err(refused());
        }
        let Some(text) = origin else {
            return Ok(Verdict::Missing);
        };
        let is_in_list = self.list.contains(text);
        if !self.list.is_empty() && !is_in_list {
            return Err(refused());
        }
        let page = Origin::parse(text);
        Ok(match &page {
            Some(page) if host.is_some_and(|host| page.is_of_host(host, is_secure)) => Verdict::SameOrigin,
            // `null` is no parsed origin and so never `Listed`: any page can open a frame whose origin is `null`.
            Some(_) if is_in_list => Verdict::Listed,
            Some(page) if self.option.split([',', ' ']).any(|entry| page.is_at(entry)) => Verdict::Listed,
            Some(_) | None => Verdict::Anyone,
        })
    }

    /// Whether the page from which a browser sent this request may act for the browser's user. `is_secure` says that
    /// the request came over TLS, wherever the TLS ended.
    ///
    /// Each header that can name the page is checked, whichever of them the request should have used. If one of them
    /// names a foreign page, the page is foreign. If there is none, `Sec-Fetch-Site` decides, because a browser sends
    /// no origin with a GET that it makes itself.
    pub fn trust(&self, request: &Request<'_>, is_secure: bool) -> Trust {
        let mut origins = ORIGIN_HEADERS
            .iter()
            .filter_map(|header| request.joined_header(header))
            .peekable();
        if origins.peek().is_none() {
            return fetch_metadata(request);
        }
        let foreign = |origin: Cow<'_, str>| {
            let verdict = self.check(Some(&origin), request.host(), is_secure);
            verdict.map_or(Trust::Foreign, Verdict::trust) == Trust::Foreign
        };
        if origins.any(foreign) {
            Trust::Foreign
        } else {
            Trust::Own
        }
    }
}

/// What `Sec-Fetch-Site` says about the page (W3C Fetch Metadata): `same-origin`, or `none` if the user has typed the
/// address. Programs that are not browsers do not send it.
fn fetch_metadata(request: &Request<'_>) -> Trust {
    let mut sites = request.header_values("sec-fetch-site");
    match (sites.next(), sites.next()) {
        (None, _) | (Some(b"same-origin" | b"none"), None) => Trust::Own,
        (Some(_), _) => Trust::Foreign,
    }
}

/// The headers that name the page: that of RFC 6455 and that of version 8.
pub(super) const ORIGIN_HEADERS: [&str; 2] = ["origin", "sec-websocket-origin"];

/// True if the `origins` option allows the origin. `None` stands for a request without the header.
pub fn allows(origins: &str, origin: Option<&str>) -> bool {
    if origins.contains("*:*") {
        return true;
    }
    let Some(location) = Location::parse(origin_or_star(origin)) else {
        return false;
    };
    // JavaScript turns a missing host into the text `null`.
    let host = location.host.as_deref().unwrap_or("null");
    let port = &location.port;
    origins.contains(&format!("{host}:{port}"))
        || origins.contains(&format!("{host}:*"))
        || origins.contains(&format!("*:{port}"))
}

/// The origin as it appears in checks and messages. A page without an origin (a file, a sandboxed frame) sends `null`.
pub fn origin_or_star(origin: Option<&str>) -> &str {
    match origin {
        None | Some("null") => "*",
        Some(origin) => origin,
    }
}

/// The parts of a URL that `origins` compares.
struct Location {
    host: Option<String>,
    port: String,
}

impl Location {
    /// Parses an origin; `None` where `url.parse` throws.
    fn parse(origin: &str) -> Option<Location> {
        let url = slashes_forward(origin.trim_matches(is_space));
        let (protocol, rest) = match protocol_len(&url) {
            Some(length) => {
                let (protocol, rest) = url.split_at(length);
                (Some(protocol), rest)
            }
            None => (None, &url[..]),
        };
        let lower = protocol.map(str::to_ascii_lowercase);
        let lower = lower.as_deref();
        let default_port = if lower == Some("https:") { "443" } else { "80" };
        let hostless = lower == Some("javascript:");
        let authority = match rest.strip_prefix("//") {
            Some(after) if protocol.is_some() || names_a_user(after) => Some(after),
            _ => protocol.filter(|name| !is_slashed(name)).map(|_| rest),
        };
        let Some(authority) = authority.filter(|_| !hostless) else {
            return Some(Location {
                host: None,
                port: default_port.to_owned(),
            });
        };
        let (host, port) = split_port(host_and_port(authority)?.replace(['\t', '\n', '\r'], ""));
        Some(Location {
            host: Some(checked_host(&host)?),
            port: port.unwrap_or_else(|| default_port.to_owned()),
        })
    }
}

/// White space that `url.parse` trims: control characters, space, no-break space, byte order mark.
fn is_space(character: char) -> bool {
    character <= ' ' || matches!(character, '\u{a0}' | '\u{feff}')
}

/// Replaces backslashes before the query or fragment by slashes.
fn slashes_forward(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    url[..end].replace('\\', "/") + &url[end..]
}

/// Length of `scheme:` at the start, by the pattern `^[a-z0-9.+-]+:`.
fn protocol_len(url: &str) -> Option<usize> {
    let colon = url.find(':')?;
    let scheme = &url.as_bytes()[..colon];
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-');
    (!scheme.is_empty() && scheme.iter().all(legal)).then_some(colon + 1)
}

/// True if `user@host` follows: without a scheme, `//` begins an authority only then.
fn names_a_user(after_slashes: &str) -> bool {
    let authority = after_slashes.split('/').next().unwrap_or_default();
    let before_query = authority.split(['?', '#']).next().unwrap_or_default();
    before_query
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.starts_with('@'))
}

/// True for schemes whose authority begins after two slashes, or without any. The scheme is compared as it is written,
/// so `HTTP:host` has a host.
fn is_slashed(protocol: &str) -> bool {
    matches!(
        protocol,
        "http:" | "https:" | "ftp:" | "gopher:" | "file:" | "ws:" | "wss:"
    )
}

/// The part after the last `@`, up to the first character that cannot be part of a host. `None` if the credentials
/// before it cannot be decoded; browsers send no credentials in an origin, so this code refuses any escape in them.
fn host_and_port(authority: &str) -> Option<&str> {
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let authority = &authority[..end];
    let host = match authority.rsplit_once('@') {
        Some((credentials, _)) if credentials.contains('%') => return None,
        Some((_, host)) => host,
        None => authority,
    };
    const NEVER_IN_A_HOST: [char; 13] = [' ', '"', '%', '\'', ';', '<', '>', '\\', '^', '`', '{', '|', '}'];
    host.split(NEVER_IN_A_HOST).next()
}

/// Splits `:digits` off the end; a lone colon is no port.
fn split_port(mut host: String) -> (String, Option<String>) {
    let digits = host.bytes().rev().take_while(u8::is_ascii_digit).count();
    let start = host.len() - digits;
    if !host[..start].ends_with(':') {
        return (host, None);
    }
    let port = host.split_off(start);
    host.pop();
    (host, (!port.is_empty()).then_some(port))
}

/// The host in lower case, without the brackets of an IPv6 address; `None` if it has characters that are not allowed.
fn checked_host(host: &str) -> Option<String> {
    const HOST_BYTES_MAX: usize = 255;
    let forbidden_in_ipv6 = ['\0', ' ', '#', '%', '/', '<', '>', '?', '@', '\\', '^', '|'];
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return (!address.contains(forbidden_in_ipv6)).then(|| address.to_ascii_lowercase());
    }
    // A colon here belongs to a port that is not a number.
    let host = host.split(':').next().unwrap_or_default();
    if host.chars().count() > HOST_BYTES_MAX {
        return Some(String::new());
    }
    (!host.contains(['[', ']']) && !host.contains(forbidden_in_ipv6)).then(|| host.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINS: [&str; 10] = [
        "example.com:*",
        "example.com:80",
        "example.com:443",
        "localhost:8000",
        "*:80",
        "*:443",
        "*:8000",
        "null:80",
        "::1:8000",
        "b.example.com:* localhost:8000",
    ];

    /// The answers of the reference's `verifyHandshake` on Node 20 for each of [`ORIGINS`]: 1 means allowed.
    const VERDICTS: [(Option<&str>, &str); 85] = [
        (None, "0000101100"),
        (Some("null"), "0000101100"),
        (Some("*"), "0000101100"),
        (Some(""), "0000101100"),
        (Some("http://example.com"), "1100101001"),
        (Some("https://example.com"), "1010010001"),
        (Some("http://example.com:80"), "1100101001"),
        (Some("https://example.com:443"), "1010010001"),
        (Some("http://EXAMPLE.com:8000"), "1000001001"),
        (Some("http://example.com:8000/"), "1000001001"),
        (Some("http://example.com:"), "1100101001"),
        (Some("http://example.com:08"), "1000000001"),
        (Some("http://localhost:8000"), "0001001001"),
        (Some("http://sub.example.com"), "0000101000"),
        (Some("http://ample.com"), "1100101001"),
        (Some("http://evil.com"), "0000101000"),
        (Some("http://evil.com/example.com"), "0000101000"),
        (Some("http://evil.com#example.com"), "0000101000"),
        (Some("http://evil.com?@example.com"), "0000101000"),
        (Some("http://example.com@evil.com"), "0000101000"),
        (Some("http://evil.com@example.com"), "1100101001"),
        (Some("http://a:b@example.com:9"), "1000000001"),
        (Some("http://evil.com\\@example.com"), "0000101000"),
        (Some("http://example.com\\x"), "1100101001"),
        (Some("example.com"), "0000101100"),
        (Some("example.com:8000"), "0000101000"),
        (Some("//example.com"), "0000101100"),
        (Some("//u@example.com"), "1100101001"),
        (Some("//u@example.com:8000"), "1000001001"),
        (Some("/example.com"), "0000101100"),
        (Some("HTTP://example.com"), "1100101001"),
        (Some("HTTP:example.com"), "1100101001"),
        (Some("http:example.com"), "0000101100"),
        (Some("https:/example.com"), "0000010000"),
        (Some("chrome-extension://abcdef"), "0000101000"),
        (Some("file://"), "1101101111"),
        (Some("file:///x"), "1101101111"),
        (Some("moz-extension://example.com"), "1100101001"),
        (Some("javascript://example.com"), "0000101100"),
        (Some("javascript:example.com"), "0000101100"),
        (Some("x:example.com"), "1100101001"),
        (Some("x:/example.com"), "1101101111"),
        (Some("x://example.com:8000"), "1000001001"),
        (Some("http://[::1]"), "0000101010"),
        (Some("http://[::1]:8000"), "0000001010"),
        (Some("http://[fe80::1%25a]:1"), "0000000000"),
        (Some("http://[::1"), "0000000000"),
        (Some("http://exa mple.com"), "0000101000"),
        (Some("http://example.com x"), "1100101001"),
        (Some("http://example.com;x"), "1100101001"),
        (Some("http://example.com\"x"), "1100101001"),
        (Some("http://example.com:8000:9"), "1000000001"),
        (Some("http://example.com:8a"), "1100101001"),
        (Some("http://:80"), "1101101111"),
        (Some("http://:8000"), "1001001011"),
        (Some("http://"), "1101101111"),
        (Some("http:///"), "1101101111"),
        (Some("http://."), "0000101000"),
        (Some("http://example.com."), "0000101000"),
        (Some("http://exa\tmple.com"), "1100101001"),
        (Some("  http://example.com  "), "1100101001"),
        (Some("http://ex<mple"), "0000101000"),
        (Some("http://a|b"), "0000101000"),
        (Some("http://a^b"), "0000101000"),
        (Some("http://a%b"), "0000101000"),
        (Some("http://example.com%00"), "1100101001"),
        (Some("http://a%zz@example.com"), "0000000000"),
        (Some("http://example.com, http://evil.com"), "0000101000"),
        (Some("http://evil.com, http://example.com"), "0000101000"),
        (Some("http://é.com:8000"), "0000001000"),
        (Some("ws://example.com:8000"), "1000001001"),
        (Some("wss://example.com"), "1100101001"),
        (Some("ftp://example.com"), "1100101001"),
        (Some("http//example.com"), "0000101100"),
        (Some("://example.com"), "0000101100"),
        (Some("1http://example.com"), "1100101001"),
        (Some("data:text/html,x"), "0000101000"),
        (Some("about:blank"), "0000101000"),
        (Some("http://?example.com"), "1101101111"),
        (Some("http://a]b:8000"), "0000000000"),
        (Some("http://[a]b:8000"), "0000000000"),
        (Some("http://a[b:8000"), "0000000000"),
        (Some("http://[a@b]:8000"), "0000000000"),
        (Some("HTTPS://example.com"), "1010010001"),
        (Some("blob:http://example.com"), "0000101000"),
    ];

    #[test]
    fn verdicts_are_those_of_the_reference() {
        for (origin, verdicts) in VERDICTS {
            let ours = ORIGINS.map(|origins| if allows(origins, origin) { '1' } else { '0' });
            assert_eq!(String::from_iter(ours), verdicts, "{origin:?}");
        }
    }

    #[test]
    fn a_host_of_255_bytes_is_a_host_and_a_longer_one_is_empty() {
        for (length, verdict) in [(255, false), (256, true)] {
            let origin = format!("http://{}:8000", "a".repeat(length));
            assert_eq!(allows("localhost:8000", Some(&origin)), verdict);
        }
    }

    fn check(option: &str, list: &str, origin: Option<&str>, host: &str) -> Option<Verdict> {
        let list = &list.parse().unwrap();
        let origins = Origins { option, list };
        origins.check(origin, Some(host.as_bytes()), false).ok()
    }

    #[test]
    fn the_option_and_the_list_must_both_allow_an_origin() {
        let (page, evil) = (Some("https://example.com"), Some("https://evil.com"));
        let list = "https://example.com";
        for (option, list, origin, verdict) in [
            ("*:*", list, page, Some(Verdict::Listed)),
            ("*:*", list, evil, None),
            ("*:*", list, Some("null"), None),
            ("*:*", list, Some(""), None),
            ("*:*", list, None, Some(Verdict::Missing)),
            ("*:*", "", evil, Some(Verdict::Anyone)),
            ("*:*", "", Some("null"), Some(Verdict::Anyone)),
            ("*:*", "null", Some("null"), Some(Verdict::Anyone)),
            ("evil.com:443", list, page, None),
            ("evil.com:443", list, evil, None),
            ("evil.com:443 example.com:443", list, page, Some(Verdict::Listed)),
        ] {
            assert_eq!(
                check(option, list, origin, "other"),
                verdict,
                "{option} {list} {origin:?}"
            );
        }
    }

    #[test]
    fn the_option_names_an_origin_only_by_a_whole_entry() {
        for (option, origin, verdict) in [
            ("example.com:443", "https://example.com", Verdict::Listed),
            (
                "a.com:80, example.com:*",
                "https://example.com:8443",
                Verdict::Listed,
            ),
            // The reference's search finds this origin in the option, but the option does not list it by name.
            ("example.com:443", "https://ample.com", Verdict::Anyone),
            ("example.com:4433", "https://example.com", Verdict::Anyone),
            ("*:443", "https://example.com", Verdict::Anyone),
            ("*:*", "https://example.com", Verdict::Anyone),
            ("*:* example.com:443", "https://example.com", Verdict::Listed),
            ("example.com:80", "//user@example.com", Verdict::Anyone),
        ] {
            assert_eq!(
                check(option, "", Some(origin), "other"),
                Some(verdict),
                "{option} {origin}"
            );
        }
    }

    #[test]
    fn a_page_of_the_same_host_is_told_from_any_other() {
        let check = |origin| check("*:*", "", Some(origin), "example.com:8000");
        assert_eq!(check("http://example.com:8000"), Some(Verdict::SameOrigin));
        for other in [
            "http://example.com",
            "http://example.com:8001",
            "http://example.com:8000.evil.com",
        ] {
            assert_eq!(check(other), Some(Verdict::Anyone), "{other}");
        }
        for verdict in [Verdict::SameOrigin, Verdict::Missing, Verdict::Listed] {
            assert_eq!(verdict.trust(), Trust::Own);
        }
        assert_eq!(Verdict::Anyone.trust(), Trust::Foreign);
    }

    #[test]
    fn every_header_that_names_the_page_is_checked_and_one_foreign_header_is_enough() {
        let list = &AllowedOrigins::default();
        let origins = Origins { option: "*:*", list };
        for (lines, trust) in [
            ("", Trust::Own),
            ("Origin: http://h\r\n", Trust::Own),
            ("Sec-WebSocket-Origin: http://h\r\n", Trust::Own),
            (
                "Origin: http://h\r\nSec-WebSocket-Origin: http://h\r\n",
                Trust::Own,
            ),
            ("Origin: http://evil\r\n", Trust::Foreign),
            ("Sec-WebSocket-Origin: http://evil\r\n", Trust::Foreign),
            (
                "Origin: http://h\r\nSec-WebSocket-Origin: http://evil\r\n",
                Trust::Foreign,
            ),
            (
                "Origin: http://evil\r\nSec-WebSocket-Origin: http://h\r\n",
                Trust::Foreign,
            ),
            ("Origin: http://h\r\nOrigin: http://h\r\n", Trust::Foreign),
            ("Origin: null\r\n", Trust::Foreign),
            ("Origin:\r\n", Trust::Foreign),
            ("Sec-Fetch-Site: same-origin\r\n", Trust::Own),
            ("Sec-Fetch-Site: none\r\n", Trust::Own),
            ("Sec-Fetch-Site: same-site\r\n", Trust::Foreign),
            ("Sec-Fetch-Site: cross-site\r\n", Trust::Foreign),
            ("Sec-Fetch-Site:\r\n", Trust::Foreign),
            ("Sec-Fetch-Site: none\r\nSec-Fetch-Site: none\r\n", Trust::Foreign),
            // The origin header decides before Sec-Fetch-Site.
            ("Origin: http://h\r\nSec-Fetch-Site: cross-site\r\n", Trust::Own),
            (
                "Origin: http://evil\r\nSec-Fetch-Site: same-origin\r\n",
                Trust::Foreign,
            ),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let (request, _) = crate::http::request::parse(head.as_bytes(), 1024)
                .unwrap()
                .unwrap();
            assert_eq!(origins.trust(&request, false), trust, "{lines}");
        }
    }

    #[test]
    fn the_two_stars_allow_whatever_there_is() {
        for origin in [None, Some("null"), Some("http://a%zz@b"), Some("http://a[b")] {
            assert!(allows("*:*", origin));
            assert!(allows("example.com:80 *:*", origin));
        }
    }
}
