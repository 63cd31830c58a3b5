//! Which pages may open a connection: the reference's `origins` option, and a strict list beside it.
//!
//! The option is one string that is searched, not a list that is parsed: `*:*` anywhere in it allows all; otherwise
//! the origin is read as a URL and passes if the string contains `host:port`, `host:*` or `*:port`. Its oddities are
//! kept, since a moved configuration must decide as before: `ample.com:80` is found in `example.com:80`, and a missing
//! origin has the host `null` and port 80. Wire reference, section 2.
//!
//! The URL is read as Node's `url.parse` reads it, down to what it makes of no URL at all; the table in the tests was
//! made with it. One difference: host names beyond ASCII are compared as they are, not in their `xn--` form. Browsers
//! send that form themselves.

use std::borrow::Cow;

use crate::client::ambient::Trust;
use crate::client::origin::{AllowedOrigins, Origin};
use crate::http::{Refusal, Request};

/// Which origins may come in: the reference's option, and the strict list. Both must allow an origin.
#[derive(Clone, Copy, Debug)]
pub struct Origins<'a> {
    /// The reference's `origins` option.
    pub option: &'a str,
    /// Exact origins. If it is empty, the option alone decides. A request without the header is not one of a page, and
    /// passes.
    pub list: &'a AllowedOrigins,
}

/// Why an origin may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none: no browser, which sends one with each upgrade and with each POST.
    Missing,
    /// It is that of the host which the request asks for.
    SameOrigin,
    /// It was named: by an entry of the list, or as `host:port` or `host:*` in the option, compared exactly.
    Listed,
    /// Whoever asks may come in: by `*:*`, `*:port`, or the way in which the reference searches its option. Any page on
    /// the net may be the one that asks.
    Anyone,
}

impl Verdict {
    /// Whether credentials that the browser adds by itself count for the page: not if it could be any page.
    pub fn trust(self) -> Trust {
        match self {
            Verdict::Missing | Verdict::SameOrigin | Verdict::Listed => Trust::Own,
            Verdict::Anyone => Trust::Foreign,
        }
    }
}

impl Origins<'_> {
    /// Judges an origin, as the header has it, several lines joined; `host` is the host that is asked, `is_secure` whether
    /// the request came over TLS that ends here.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn judge(
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
            // Any page can open a frame whose origin is `null`.
            Some(_) if is_in_list => Verdict::Listed,
            Some(page) if self.option.split([',', ' ']).any(|entry| page.is_at(entry)) => Verdict::Listed,
            Some(_) | None => Verdict::Anyone,
        })
    }

    /// Whether the page that made a browser send this request may speak for the browser's user. `is_secure` says that the
    /// request came over TLS, wherever that ended.
    ///
    /// Each header that can name the page is judged, whichever the request should have used, and one that is foreign is
    /// enough. Without any of them `Sec-Fetch-Site` is asked: a browser sends no origin with a GET of its own making.
    pub fn trust(&self, request: &Request<'_>, is_secure: bool) -> Trust {
        let mut origins = ORIGIN_HEADERS
            .iter()
            .filter_map(|header| request.joined_header(header))
            .peekable();
        if origins.peek().is_none() {
            return fetch_metadata(request);
        }
        let foreign = |origin: Cow<'_, str>| {
            let verdict = self.judge(Some(&origin), request.host(), is_secure);
            verdict.map_or(Trust::Foreign, Verdict::trust) == Trust::Foreign
        };
        if origins.any(foreign) {
            Trust::Foreign
        } else {
            Trust::Own
        }
    }
}

/// What a browser tells of the page beside its origin (W3C Fetch Metadata): `same-origin`, or `none` for what its user has
/// typed. Programs that are no browsers tell nothing.
fn fetch_metadata(request: &Request<'_>) -> Trust {
    let mut sites = request.header_values("sec-fetch-site");
    match (sites.next(), sites.next()) {
        (None, _) | (Some(b"same-origin" | b"none"), None) => Trust::Own,
        (Some(_), _) => Trust::Foreign,
    }
}

/// The headers that name the page: that of all versions, and that of the drafts of version 8.
pub(super) const ORIGIN_HEADERS: [&str; 2] = ["origin", "sec-websocket-origin"];

/// Whether the `origins` option allows the origin. `None` is a request without the header.
pub fn allows(origins: &str, origin: Option<&str>) -> bool {
    if origins.contains("*:*") {
        return true;
    }
    let Some(location) = Location::parse(origin_or_star(origin)) else {
        return false;
    };
    // A JavaScript null, as it is joined to a string.
    let host = location.host.as_deref().unwrap_or("null");
    let port = &location.port;
    origins.contains(&format!("{host}:{port}"))
        || origins.contains(&format!("{host}:*"))
        || origins.contains(&format!("*:{port}"))
}

/// What stands for the origin in checks and messages: a page without one (a file, a sandboxed frame) says `null`.
pub fn origin_or_star(origin: Option<&str>) -> &str {
    match origin {
        None | Some("null") => "*",
        Some(origin) => origin,
    }
}

/// The part of a URL that `origins` looks at.
struct Location {
    host: Option<String>,
    port: String,
}

impl Location {
    /// `None` where `url.parse` throws.
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

/// White space as `url.parse` trims it: controls, space, no-break space, byte order mark.
fn is_space(character: char) -> bool {
    character <= ' ' || matches!(character, '\u{a0}' | '\u{feff}')
}

/// Backslashes before the query or fragment count as slashes.
fn slashes_forward(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    url[..end].replace('\\', "/") + &url[end..]
}

/// Bytes of `scheme:` at the start, by the pattern `^[a-z0-9.+-]+:`.
fn protocol_len(url: &str) -> Option<usize> {
    let colon = url.find(':')?;
    let scheme = &url.as_bytes()[..colon];
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-');
    (!scheme.is_empty() && scheme.iter().all(legal)).then_some(colon + 1)
}

/// Without a scheme, `//` begins an authority only if `user@host` follows.
fn names_a_user(after_slashes: &str) -> bool {
    let authority = after_slashes.split('/').next().unwrap_or_default();
    let before_query = authority.split(['?', '#']).next().unwrap_or_default();
    before_query
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.starts_with('@'))
}

/// Schemes whose authority begins with two slashes or not at all. Compared with the scheme as written: `HTTP:host`
/// has a host.
fn is_slashed(protocol: &str) -> bool {
    matches!(
        protocol,
        "http:" | "https:" | "ftp:" | "gopher:" | "file:" | "ws:" | "wss:"
    )
}

/// What follows the last `@`, up to the first character that no host holds; `None` for credentials that cannot be
/// decoded. Browsers send no credentials in an origin, so that any escape in them is refused.
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

/// The host in lower case, without the brackets of an IPv6 address; `None` for characters that are not allowed.
fn checked_host(host: &str) -> Option<String> {
    const HOST_BYTES_MAX: usize = 255;
    let forbidden_in_ipv6 = ['\0', ' ', '#', '%', '/', '<', '>', '?', '@', '\\', '^', '|'];
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return (!address.contains(forbidden_in_ipv6)).then(|| address.to_ascii_lowercase());
    }
    // A colon here is part of a port that is none.
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

    /// What the reference's `verifyHandshake` said on Node 20 for each of [`ORIGINS`], 1 for allowed.
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

    fn judge(option: &str, list: &str, origin: Option<&str>, host: &str) -> Option<Verdict> {
        let list = &list.parse().unwrap();
        let origins = Origins { option, list };
        origins.judge(origin, Some(host.as_bytes()), false).ok()
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
                judge(option, list, origin, "other"),
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
            // Found in the option, as the reference searches it; not named by it.
            ("example.com:443", "https://ample.com", Verdict::Anyone),
            ("example.com:4433", "https://example.com", Verdict::Anyone),
            ("*:443", "https://example.com", Verdict::Anyone),
            ("*:*", "https://example.com", Verdict::Anyone),
            ("*:* example.com:443", "https://example.com", Verdict::Listed),
            ("example.com:80", "//user@example.com", Verdict::Anyone),
        ] {
            assert_eq!(
                judge(option, "", Some(origin), "other"),
                Some(verdict),
                "{option} {origin}"
            );
        }
    }

    #[test]
    fn a_page_of_the_same_host_is_told_from_any_other() {
        let judge = |origin| judge("*:*", "", Some(origin), "example.com:8000");
        assert_eq!(judge("http://example.com:8000"), Some(Verdict::SameOrigin));
        for other in [
            "http://example.com",
            "http://example.com:8001",
            "http://example.com:8000.evil.com",
        ] {
            assert_eq!(judge(other), Some(Verdict::Anyone), "{other}");
        }
        for verdict in [Verdict::SameOrigin, Verdict::Missing, Verdict::Listed] {
            assert_eq!(verdict.trust(), Trust::Own);
        }
        assert_eq!(Verdict::Anyone.trust(), Trust::Foreign);
    }

    #[test]
    fn every_header_that_names_the_page_is_judged_and_one_that_is_foreign_is_enough() {
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
            // The origin says more.
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
