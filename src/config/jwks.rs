//! Sets of keys for tokens, from a file and from a web address.

use std::path::PathBuf;
use std::time::Duration;

/// Sets of keys.
#[derive(Clone, Debug)]
pub struct Jwks {
    /// A file with a set of keys in JSON (RFC 7517); private keys and secrets in it sign.
    pub file: Option<PathBuf>,
    /// Where a set of public keys is fetched: `https://`, or `http://` for networks that are trusted.
    pub url: Option<String>,
    /// How often it is fetched; whole seconds.
    pub refresh: Duration,
}

impl Default for Jwks {
    fn default() -> Jwks {
        Jwks {
            file: None,
            url: None,
            refresh: Duration::from_secs(300),
        }
    }
}

/// The address of a set of keys: `https://` or `http://`, a host, perhaps a port, and a path. No user, whose password
/// would be shown, and no fragment.
pub(super) fn url(text: &str) -> Option<String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = host_and_port(authority);
    let legal = !host.is_empty()
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && !authority.contains('@')
        && !path.starts_with('?')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte));
    legal.then(|| text.to_owned())
}

/// Whether somebody between this machine and that of the keys could answer in its place.
pub(super) fn is_forgeable(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, _) = host_and_port(authority);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host
        .parse::<std::net::IpAddr>()
        .map_or(host == "localhost", |address| address.is_loopback());
    !is_loopback
}

fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are in its brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_keys_is_a_web_address_without_a_password() {
        for good in [
            "https://id.example/jwks.json",
            "https://id.example",
            "http://127.0.0.1:8080/keys?x=1",
            "http://[::1]:8080/keys",
        ] {
            assert_eq!(url(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            "file",
            "ftp://id.example/",
            "https://",
            "https:///keys",
            "https://user:secret@id.example/",
            "https://id.example:0/",
            "https://id.example:70000/",
            "https://id.example/#keys",
            "https://id.example/a b",
            "https://id.example?x",
            "https://id.example/\r\nHost: other",
        ] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_tls_and_this_machine_are_beyond_forgery() {
        for (address, forgeable) in [
            ("https://id.example/", false),
            ("http://127.0.0.1:1/", false),
            ("http://[::1]/", false),
            ("http://localhost:1/", false),
            ("http://localhost.example/", true),
            ("http://10.0.0.1/", true),
            ("http://id.example/", true),
        ] {
            assert_eq!(is_forgeable(address), forgeable, "{address}");
        }
    }
}
