//! Origins of web pages, compared exactly by scheme, host and port (RFC 6454).
//!
//! Texts are neither searched for substrings nor corrected: a text that is not an origin as browsers send it
//! (`https://example.com`, `http://[::1]:8080`) equals no origin. Browsers send host names with characters
//! beyond ASCII in their `xn--` form, and lists must contain that form.

use std::fmt;
use std::str::FromStr;

/// An origin as a request contains it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// Parses `scheme://host` or `scheme://host:port`; `None` for anything else, including `null`.
    pub fn parse(text: &'a str) -> Option<Origin<'a>> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(digits) => Some(port_number(digits)?),
            None => default_port(scheme),
        };
        (is_scheme(scheme) && is_host(host)).then_some(Origin { scheme, host, port })
    }

    /// True if a request with this `Host` goes to this origin. `is_secure` tells that the request came over
    /// TLS that ends at this server. Behind a proxy that ends TLS the scheme is not known, and is not
    /// compared.
    pub fn is_of_host(&self, host: &[u8], is_secure: bool) -> bool {
        let Some((host, port)) = str::from_utf8(host).ok().and_then(split_port) else {
            return false;
        };
        let port = match port {
            Some(digits) => port_number(digits),
            None => default_port(self.scheme),
        };
        (!is_secure || self.scheme.eq_ignore_ascii_case("https"))
            && port.is_some()
            && port == self.port
            && host.eq_ignore_ascii_case(self.host)
    }

    /// True if an entry `host:port` or `host:*` matches this host and port.
    pub fn is_at(&self, entry: &str) -> bool {
        let Some((host, port)) = entry.rsplit_once(':') else {
            return false;
        };
        let same_port = port == "*" || (self.port.is_some() && port_number(port) == self.port);
        same_port && host.eq_ignore_ascii_case(self.host)
    }
}

/// The allowed origins: exact ones and patterns.
///
/// | entry | allows |
/// |---|---|
/// | `https://example.com` | that scheme and host, and the scheme's default port |
/// | `https://*.example.com` | one label in the place of each `*`: `a.example.com`, but neither `example.com` nor `a.b.example.com` |
/// | `http://localhost:*` | any port |
/// | `null` | a page without an origin: a file, a sandboxed frame |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Box<[Pattern]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Null,
    Page {
        scheme: String,
        host: String,
        port: PortPattern,
        /// As it is written.
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Any,
    Exactly(Option<u16>),
}

/// The text is not a list of origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOrigins;

impl AllowedOrigins {
    /// True if the list is empty. Then this list is not used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if an entry allows the origin, given as in the header.
    pub fn contains(&self, origin: &str) -> bool {
        if self.is_empty() {
            // The list is empty on most servers, and each upgrade asks it.
            return false;
        }
        let page = Origin::parse(origin);
        self.0.iter().any(|pattern| match (pattern, &page) {
            (Pattern::Null, _) => origin == "null",
            (
                Pattern::Page {
                    scheme, host, port, ..
                },
                Some(page),
            ) => {
                scheme.eq_ignore_ascii_case(page.scheme)
                    && port.matches(page.port)
                    && host_matches(host, page.host)
            }
            (Pattern::Page { .. }, None) => false,
        })
    }
}

impl FromStr for AllowedOrigins {
    type Err = NotOrigins;

    /// Parses entries separated by commas or spaces. An empty text is an empty list.
    fn from_str(text: &str) -> Result<AllowedOrigins, NotOrigins> {
        let entries = text.split([',', ' ']).filter(|entry| !entry.is_empty());
        entries
            .map(Pattern::parse)
            .collect::<Option<_>>()
            .map(AllowedOrigins)
            .ok_or(NotOrigins)
    }
}

impl fmt::Display for AllowedOrigins {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.0.iter().enumerate() {
            let text = match pattern {
                Pattern::Null => "null",
                Pattern::Page { text, .. } => text,
            };
            write!(formatter, "{}{text}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        if text == "null" {
            return Some(Pattern::Null);
        }
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some("*") => PortPattern::Any,
            Some(digits) => PortPattern::Exactly(Some(port_number(digits)?)),
            None => PortPattern::Exactly(default_port(scheme)),
        };
        let is_pattern = is_host(&host.replace('*', "a"))
            && host.split('.').all(|label| label == "*" || !label.contains('*'))
            // A pattern of only wildcards is an error: any registered name would match it.
            && host != "*";
        (is_scheme(scheme) && is_pattern).then(|| Pattern::Page {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port,
            text: text.to_owned(),
        })
    }
}

impl PortPattern {
    fn matches(self, port: Option<u16>) -> bool {
        match self {
            PortPattern::Any => true,
            PortPattern::Exactly(known) => known == port,
        }
    }
}

/// Compares label by label; a `*` matches one label.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('.'), host.split('.'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted.eq_ignore_ascii_case(found) => {}
            (Some(_), Some(_) | None) | (None, Some(_)) => return false,
        }
    }
}

/// Splits `host`, `host:port` or `[address]:port` into host and port. A colon without a port is invalid.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_bytes = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(host_bytes);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        None | Some("") => None,
        Some(port) => Some((host, Some(port))),
    }
}

/// Digits without a leading zero, which no browser sends.
fn port_number(digits: &str) -> Option<u16> {
    let legal = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| legal)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Some(80),
        _ if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

/// RFC 3986 section 3.1.
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// True for a name of letters, digits, hyphens and underscores in labels separated by single dots, or an IPv6
/// address in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, origin: &str) -> bool {
        list.parse::<AllowedOrigins>().unwrap().contains(origin)
    }

    #[test]
    fn scheme_host_and_port_must_be_the_same() {
        let list =
            "https://example.com, http://localhost:* https://*.example.org https://[::1]:8443,app://main";
        for origin in [
            "https://example.com",
            "https://example.com:443",
            "HTTPS://Example.COM",
            "http://localhost",
            "http://localhost:3000",
            "https://a.example.org",
            "https://xn--bcher-kva.example.org",
            "https://[::1]:8443",
            "app://main",
        ] {
            assert!(allows(list, origin), "{origin}");
        }
        for origin in [
            "http://example.com",
            "https://example.com:80",
            "https://example.com:444",
            "https://example.com:0443",
            "https://example.com:",
            "https://example.com.",
            "https://.example.com",
            "https://example.com.evil.com",
            "https://evil.com/https://example.com",
            "https://example.com/",
            "https://example.com/path",
            "https://example.com?q",
            "https://example.com#f",
            "https://evilexample.com",
            "https://ample.com",
            "https://user@example.com",
            "https://example.com@evil.com",
            "https://example.com:443@evil.com",
            "https://evil.com:443\\@example.com",
            "https:example.com",
            "https:/example.com",
            "//example.com",
            "example.com",
            "https://example.com, https://evil.com",
            "https://evil.com, https://example.com",
            "https://example.com https://evil.com",
            " https://example.com",
            "https://example.com ",
            "https://example.com\t",
            "https://example.com\0",
            "https://ex%61mple.com",
            "https://EXAMPLE\u{212a}.com",
            "https://example.org",
            "https://a.b.example.org",
            "https://.example.org",
            "https://*.example.org.evil.com",
            "https://a.example.org.evil.com",
            "https://b\u{fc}cher.example.org",
            "https://[::1]",
            "https://[0::1]:8443",
            "https://::1:8443",
            "http://localhost:evil",
            "http://localhost:*",
            "app://main:80",
            "null",
            "*",
            "",
        ] {
            assert!(!allows(list, origin), "{origin}");
        }
    }

    #[test]
    fn a_page_without_an_origin_is_allowed_only_by_its_own_entry() {
        assert!(allows("null", "null"));
        assert!(!allows("null", "NULL") && !allows("null", "") && !allows("null", "https://null"));
        assert!(!allows("https://null", "null"));
    }

    #[test]
    fn an_empty_list_allows_nothing_and_is_empty() {
        let list: AllowedOrigins = " , ".parse().unwrap();
        assert!(list.is_empty() && !list.contains("https://example.com") && !list.contains("null"));
    }

    #[test]
    fn displayed_lists_can_be_parsed_again_and_faulty_ones_are_refused() {
        let text = "https://example.com, http://localhost:*, https://*.*.example.com:8443, null";
        let list: AllowedOrigins = text.parse().unwrap();
        assert_eq!(list.to_string(), text);
        for slip in [
            "*",
            "*:*",
            "example.com",
            "example.com:443",
            "https://",
            "https://*",
            "https://*:*",
            "https://example.com/",
            "https://example.com/path",
            "https://ex*mple.com",
            "https://*example.com",
            "https://example.com.",
            "https://user@example.com",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:",
            "https://b\u{fc}cher.de",
            "https://::1",
            "*://example.com",
            "https://example.com, oops",
        ] {
            assert_eq!(slip.parse::<AllowedOrigins>(), Err(NotOrigins), "{slip}");
        }
    }

    #[test]
    fn an_origin_matches_a_host_only_with_the_same_port() {
        let is_of = |origin: &str, host: &str, is_secure| {
            Origin::parse(origin).is_some_and(|origin| origin.is_of_host(host.as_bytes(), is_secure))
        };
        for (origin, host, plain, secure) in [
            ("http://example.com", "example.com", true, false),
            ("http://example.com", "example.com:80", true, false),
            ("https://example.com", "example.com", true, true),
            ("https://example.com", "Example.com:443", true, true),
            ("https://example.com:8443", "example.com:8443", true, true),
            ("https://[::1]:8443", "[::1]:8443", true, true),
            ("https://example.com:8443", "example.com", false, false),
            ("https://example.com", "example.com:80", false, false),
            ("https://example.com", "example.com.evil.com", false, false),
            ("https://example.com.evil.com", "example.com", false, false),
            ("https://example.com", "", false, false),
            ("https://example.com", "example.com, evil.com", false, false),
            ("app://example.com", "example.com", false, false),
            ("null", "null", false, false),
        ] {
            assert_eq!(is_of(origin, host, false), plain, "{origin} {host}");
            assert_eq!(is_of(origin, host, true), secure, "{origin} {host} secure");
        }
    }
}
