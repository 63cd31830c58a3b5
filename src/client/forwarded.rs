//! The client of a request that came through HTTP proxies, by `X-Forwarded-For`.
//!
//! Each proxy appends the address that its request came from. So only the right end of the list can be
//! trusted, and only as far as trusted proxies wrote it: the client is the first address from the right that
//! is not a trusted proxy. Everything to its left was sent by the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::ClientAddress;
use super::networks::Networks;

/// The client behind `peer`, which must be one of `trusted`. The values of the header's lines, in their
/// order, form one list (RFC 9110 section 5.3). If an entry is not an address, the result is the proxy that
/// passed it on.
pub fn client<'a>(
    peer: ClientAddress,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &Networks,
) -> ClientAddress {
    let mut client = peer;
    let entries = lines.rev().flat_map(|line| line.rsplit(|&byte| byte == b','));
    // An empty entry is ignored (RFC 9110 section 5.6.1).
    for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
        if !trusted.contain(&client) {
            break;
        }
        match str::from_utf8(entry).ok().and_then(address) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// Parses `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`, as proxies write
/// them.
fn address(entry: &str) -> Option<ClientAddress> {
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Some(ClientAddress::new(ip, 0));
    }
    let (ip, rest) = match entry.strip_prefix('[') {
        Some(inner) => {
            let (ip, rest) = inner.split_once(']')?;
            (IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), rest)
        }
        None => {
            let (ip, _) = entry.split_once(':')?;
            (IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?), &entry[ip.len()..])
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        None if rest.is_empty() => 0,
        Some(_) | None => return None,
    };
    Some(ClientAddress::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(peer: &str, lines: &[&str]) -> String {
        let trusted = "10.0.0.0/8, 2001:db8:1::/48".parse().unwrap();
        let peer = ClientAddress::new(peer.parse().unwrap(), 9);
        client(peer, lines.iter().map(|line| line.as_bytes()), &trusted).to_string()
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_a_proxy() {
        for (peer, lines, expected) in [
            ("10.0.0.1", &["192.0.2.1"][..], "192.0.2.1:0"),
            ("10.0.0.1", &["192.0.2.1, 10.0.0.2"], "192.0.2.1:0"),
            ("10.0.0.1", &["192.0.2.1, 10.0.0.2, 10.0.0.3"], "192.0.2.1:0"),
            // With entries that the client itself has sent.
            ("10.0.0.1", &["203.0.113.9, 192.0.2.1"], "192.0.2.1:0"),
            ("10.0.0.1", &["10.0.0.9, 192.0.2.1"], "192.0.2.1:0"),
            ("10.0.0.1", &["203.0.113.9", "192.0.2.1"], "192.0.2.1:0"),
            ("10.0.0.1", &["192.0.2.1", "10.0.0.2"], "192.0.2.1:0"),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1:0"),
            // Only proxies: the client is the farthest of them.
            ("10.0.0.1", &["10.0.0.2"], "10.0.0.2:0"),
            ("10.0.0.1", &[], "10.0.0.1:9"),
            ("10.0.0.1", &["", ",, ,"], "10.0.0.1:9"),
            ("10.0.0.1", &["192.0.2.1,"], "192.0.2.1:0"),
            // A peer that is not a proxy is the client, whatever it sends.
            ("192.0.2.7", &["192.0.2.1"], "192.0.2.7:9"),
            ("::ffff:10.0.0.1", &["192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1:0"),
            ("2001:db8:1::1", &["2001:db8::7"], "[2001:db8::7]:0"),
        ] {
            assert_eq!(behind(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn an_entry_that_is_not_an_address_ends_the_search() {
        for garbage in [
            "unknown",
            "_hidden",
            "localhost",
            "for=192.0.2.1",
            "192.0.2.1 203.0.113.9",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:65536",
            "192.0.2.1:+1",
            "[192.0.2.1]:1",
            "[2001:db8::7",
            "[2001:db8::7]x",
            "2001:db8::7]:1",
            "fe80::1%eth0",
            "\u{e9}",
            "\"192.0.2.1\"",
        ] {
            let line = format!("203.0.113.9, {garbage}");
            assert_eq!(behind("10.0.0.1", &[&line]), "10.0.0.1:9", "{garbage}");
            let line = format!("203.0.113.9, {garbage}, 10.0.0.2");
            assert_eq!(behind("10.0.0.1", &[&line]), "10.0.0.2:0", "{garbage}");
        }
    }

    #[test]
    fn ports_and_brackets_are_read() {
        for (entry, expected) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::7]:80", "[2001:db8::7]:80"),
            ("[2001:db8::7]", "[2001:db8::7]:0"),
            ("2001:db8::7", "[2001:db8::7]:0"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
        ] {
            assert_eq!(behind("10.0.0.1", &[entry]), expected);
        }
    }
}
