//! Sets of keys for tokens (JSON Web Key Sets, RFC 7517), from a file and from a web address.

use std::path::PathBuf;
use std::time::Duration;

use super::form::{Form, Kind, file, seconds};
use super::settings::settings;

settings! {
    /// Sets of keys for tokens (JSON Web Key Sets, RFC 7517), from a file and from a web address.
    jwks: Jwks {
        /// JSON Web Key Set with more keys for tokens, each chosen by its `kid`. Private keys and secrets in it can
        /// sign.
        file: Option<PathBuf> = None, "jwks_file", file("the name of a file with a JSON Web Key Set"), on reload;

        /// Address from which a JSON Web Key Set with public keys is fetched. After a bad answer the server keeps the
        /// keys that it has.
        url: Option<String> = None, "jwks_url", URL;

        /// Seconds between two fetches of `jwks_url`. A `max-age` in its answer may shorten them. A token with an
        /// unknown `kid` causes a fetch at once, 10 s after the last one at the earliest.
        refresh: Duration = Duration::from_secs(300), "jwks_refresh_seconds", seconds!(10 to 86400);
    }
}

/// The address of a set of keys: `https://` or `http://`, a host, perhaps a port, and a path. No user, because its
/// password would be shown, and no fragment.
const URL: Form<Option<String>> = Form {
    kind: Kind::Text,
    expects: "an address such as https://id.example/jwks.json, without user and fragment",
    parse: |text| url(text).map(Some),
    show: |url| url.clone().unwrap_or_default(),
};

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

/// Whether an attacker between this machine and the server of the keys could answer in its place.
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
