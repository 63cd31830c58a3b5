//! The host of a request, as given in `Host` or in an absolute target: `host` or `host:port`.
//!
//! A value that cannot occur in a URL is malformed (RFC 9112 section 3.2): another reader, such as a proxy in
//! front, might take a different part of it as the host. RFC 9110 section 7.2, RFC 3986 section 3.2.2.

use std::net::Ipv6Addr;

/// True if the text is a non-empty host, with or without a port. A user before the host is refused, as RFC
/// 9110 section 4.2.4 advises, and so are commas: a name may contain them, but they also join several hosts.
pub(crate) fn is_legal(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let (host_is_legal, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, rest)) = rest.split_once(']') else {
                return false;
            };
            (is_address(address), rest)
        }
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(name), rest)
        }
    };
    host_is_legal && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// An IPv6 address, with or without a zone (RFC 6874).
fn is_address(text: &str) -> bool {
    let (address, zone) = match text.split_once("%25") {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_name)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().enumerate().all(|(at, byte)| match byte {
            b'%' => {
                let digits = text.as_bytes().get(at + 1..at + 3);
                digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            }
            other => other.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&other),
        })
}

/// Digits, or none: `host:` is legal.
fn is_port(digits: &str) -> bool {
    digits.is_empty() || (digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for legal in [
            "h",
            "localhost:8000",
            "Example.COM",
            "example.com.",
            "a_b-c.example",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8000",
            "[::ffff:127.0.0.1]:1",
            "[fe80::1%25eth0]",
            "h:",
            "h:65535",
            "h:00080",
            "ex%41mple",
        ] {
            assert!(is_legal(legal.as_bytes()), "{legal}");
        }
        for illegal in [
            "",
            ":80",
            "a b",
            "a,b",
            "a, b",
            "a\tb",
            "user@h",
            "user:password@h",
            "h:65536",
            "h:-1",
            "h:+1",
            "h:8a",
            "h:80:80",
            "h:80, h:80",
            "http://h",
            "h/",
            "h/path",
            "h?q",
            "h#f",
            "a\\b",
            "\"h\"",
            "<h>",
            "a|b",
            "a%b",
            "a%4",
            "a%zz",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[h]",
            "[127.0.0.1]",
            "[::1]8000",
            "[::1]:x",
            "[::1%25]",
            "b\u{fc}cher",
        ] {
            assert!(!is_legal(illegal.as_bytes()), "{illegal}");
        }
        assert!(!is_legal(b"\xe9") && !is_legal(b"a\0"));
    }
}
