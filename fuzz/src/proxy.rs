//! The address of a client behind a proxy: the PROXY header and `X-Forwarded-For`.

use std::net::IpAddr;

use ppp::{HeaderResult, PartialResult, v1, v2};
use ringcast::internals::client::ClientAddress;
use ringcast::internals::client::forwarded;
use ringcast::internals::client::networks::Networks;
use ringcast::internals::client::proxy_header::{HEADER_BYTES_MAX, NoProxyHeader, ProxyHeader, parse};

/// A header reads as in another implementation, and the same wherever it is cut.
pub fn header(data: &[u8]) {
    let ours = parse(data);
    for cut in (0..data.len()).step_by(1 + data.len() / 300) {
        let part = parse(&data[..cut]);
        assert!(part == Ok(None) || part == ours, "{part:?} of {ours:?} at {cut}");
    }
    if let Ok(Some(header)) = ours {
        assert!(header.length <= data.len().min(HEADER_BYTES_MAX));
    }
    if !may_differ(data) {
        let theirs = oracle(data);
        // The crate asks for more bytes after a wrong first word, and after a complete line with missing words.
        let waits_in_vain = theirs == Ok(None) && ours == Err(NoProxyHeader) && data.first() == Some(&b'P');
        assert!(ours == theirs || waits_in_vain, "{ours:?} {theirs:?}");
    }
}

/// The result of the crate for the same bytes, where the two should agree.
fn oracle(input: &[u8]) -> Result<Option<ProxyHeader>, NoProxyHeader> {
    let client = |ip: IpAddr, port| Some(ClientAddress::new(ip, port));
    match HeaderResult::parse(input) {
        HeaderResult::V1(Ok(header)) => {
            let client = match header.addresses {
                v1::Addresses::Tcp4(a) => client(a.source_address.into(), a.source_port),
                v1::Addresses::Tcp6(a) => client(a.source_address.into(), a.source_port),
                v1::Addresses::Unknown => None,
            };
            let length = header.header.len();
            Ok(Some(ProxyHeader { client, length }))
        }
        HeaderResult::V2(Ok(header)) => {
            let is_tcp = header.command == v2::Command::Proxy && header.protocol == v2::Protocol::Stream;
            let client = match header.addresses {
                v2::Addresses::IPv4(a) if is_tcp => client(a.source_address.into(), a.source_port),
                v2::Addresses::IPv6(a) if is_tcp => client(a.source_address.into(), a.source_port),
                _ => None,
            };
            let length = header.as_bytes().len();
            Ok(Some(ProxyHeader { client, length }))
        }
        unfinished if unfinished.is_incomplete() => Ok(None),
        _ => Err(NoProxyHeader),
    }
}

/// Whether the two are known to differ here.
fn may_differ(input: &[u8]) -> bool {
    let start = b"PROXY ";
    let is_text = input.iter().zip(start).all(|(byte, expected)| byte == expected);
    let end = input.windows(2).position(|pair| pair == b"\r\n");
    // A carriage return alone ends a line for the crate, and it reads addresses before it has the end.
    let is_whole = !is_text || end.is_some_and(|end| !input[..end].contains(&b'\r'));
    let is_local = !is_text && input.get(12).is_some_and(|command| command & 0x0f == 0);
    let is_large = !is_text && input.get(14).is_some_and(|high| *high >= 0x0f);
    !is_whole || is_local || is_large || input.contains(&b'+') || input.starts_with(b"PROXY UNKNOWN")
}

/// The client is the first address from the right that is no proxy, as in a simpler search.
pub fn forwarded(data: &[u8]) {
    let trusted: Networks = "10.0.0.0/8, 2001:db8:1::/48".parse().expect("networks");
    for peer in ["10.0.0.1", "192.0.2.7", "2001:db8:1::1"] {
        let peer = ClientAddress::new(peer.parse().expect("an address"), 9);
        let lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
        let found = forwarded::client(peer, lines.iter().copied(), &trusted);
        let list = lines.join(&b","[..]);
        let mut expected = peer;
        for entry in list.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if entry.is_empty() {
                continue;
            }
            if !trusted.contain(&expected) {
                break;
            }
            // A part of the header is an address if it is one by itself.
            let by = |port| {
                let peer = ClientAddress::new(IpAddr::from([10, 0, 0, 1]), port);
                forwarded::client(peer, std::iter::once(entry), &trusted)
            };
            let alone = by(1);
            if alone != by(2) {
                break;
            }
            expected = alone;
        }
        assert_eq!(found, expected);
        if !trusted.contain(&peer) {
            assert_eq!(found, peer);
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(networks) = text.parse::<Networks>()
    {
        assert_eq!(networks.to_string().parse(), Ok(networks));
    }
}
