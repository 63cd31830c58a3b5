//! The PROXY protocol, versions 1 and 2: the header by which a load balancer names the client of a relayed
//! connection.
//!
//! ```text
//!   1   PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 CR LF      (or TCP6, or UNKNOWN and any text)
//!   2   12 bytes of signature · version, command · family, transport · length · addresses · TLVs
//! ```
//! Own code: a parser that reads the text of version 1 piece by piece has to distinguish an address that is
//! still incomplete from a wrong one. This one waits for the end of the line instead; and version 2 is a
//! table of offsets. The tests compare it with the crate `ppp`, which differs on purpose in two points: it
//! accepts `+80` as a port, and it requires a known family with `LOCAL`, where the specification does not.
//!
//! Limits: a header of version 1 ends within 107 bytes, as its specification says, and one of version 2
//! within [`HEADER_BYTES_MAX`]. TLVs are skipped.
//!
//! "The PROXY protocol, versions 1 & 2", sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::ClientAddress;

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client that the header names. `None` if the connection's own address is that of the client: for a
    /// health check of the proxy itself (`LOCAL`), or a client without TCP (`UNKNOWN`).
    pub client: Option<ClientAddress>,
    /// The length of the header in bytes.
    pub length: usize,
}

/// The input does not begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoProxyHeader;

/// Most bytes of a header including TLVs; the same as nginx accepts.
pub const HEADER_BYTES_MAX: usize = 4096;

/// Parses a header; `None` while it is not complete.
pub fn parse(input: &[u8]) -> Result<Option<ProxyHeader>, NoProxyHeader> {
    if is_begun(input, TEXT_START) {
        parse_text(input)
    } else if is_begun(input, SIGNATURE) {
        parse_binary(input)
    } else {
        Err(NoProxyHeader)
    }
}

/// True if the input begins with these bytes, or is a beginning of them.
fn is_begun(input: &[u8], start: &[u8]) -> bool {
    let length = input.len().min(start.len());
    input[..length] == start[..length]
}

fn parse_text(input: &[u8]) -> Result<Option<ProxyHeader>, NoProxyHeader> {
    let window = &input[..input.len().min(TEXT_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() < TEXT_BYTES_MAX {
            Ok(None)
        } else {
            Err(NoProxyHeader)
        };
    };
    let length = end + 2;
    let line = window[..end].strip_prefix(TEXT_START).ok_or(NoProxyHeader)?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Some(ProxyHeader { client: None, length }));
    }
    let client = str::from_utf8(line)
        .ok()
        .and_then(text_client)
        .ok_or(NoProxyHeader)?;
    Ok(Some(ProxyHeader {
        client: Some(client),
        length,
    }))
}

fn text_client(line: &str) -> Option<ClientAddress> {
    let mut words = line.split(' ');
    let (family, source, destination) = (words.next()?, words.next()?, words.next()?);
    let (port, destination_port) = (port_number(words.next()?)?, words.next()?);
    port_number(destination_port)?;
    let address = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(source.parse().ok()?)
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            IpAddr::V6(source.parse().ok()?)
        }
        _ => return None,
    };
    words.next().is_none().then(|| ClientAddress::new(address, port))
}

/// Digits without a leading zero.
fn port_number(digits: &str) -> Option<u16> {
    let legal =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| legal)
}

fn parse_binary(input: &[u8]) -> Result<Option<ProxyHeader>, NoProxyHeader> {
    let Some((head, rest)) = input.split_first_chunk::<BINARY_HEAD_BYTES>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *head;
    let block_bytes = usize::from(u16::from_be_bytes([high, low]));
    let length = BINARY_HEAD_BYTES + block_bytes;
    if length > HEADER_BYTES_MAX {
        return Err(NoProxyHeader);
    }
    let is_local = match command {
        VERSION_2_LOCAL => true,
        VERSION_2_PROXY => false,
        _ => return Err(NoProxyHeader),
    };
    let address_bytes = match family {
        _ if is_local => 0,
        _ if family & 0x0f > TRANSPORT_MAX => return Err(NoProxyHeader),
        _ => *ADDRESS_BYTES.get(usize::from(family >> 4)).ok_or(NoProxyHeader)?,
    };
    if block_bytes < address_bytes {
        return Err(NoProxyHeader);
    }
    let Some(block) = rest.get(..block_bytes) else {
        return Ok(None);
    };
    let client = match family {
        _ if is_local => None,
        TCP_OVER_IPV4 => block.first_chunk().map(|block: &[u8; 12]| {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *block;
            let port = u16::from_be_bytes([high, low]);
            ClientAddress::new(Ipv4Addr::new(a, b, c, d).into(), port)
        }),
        TCP_OVER_IPV6 => block.first_chunk().zip(block.get(32..34)).map(|(source, port)| {
            let source: &[u8; 16] = source;
            let port = u16::from_be_bytes([port[0], port[1]]);
            ClientAddress::new(Ipv6Addr::from(*source).into(), port)
        }),
        // Unspecified, UDP, or a Unix socket of the proxy's machine.
        _ => None,
    };
    Ok(Some(ProxyHeader { client, length }))
}

const TEXT_START: &[u8] = b"PROXY ";
const TEXT_BYTES_MAX: usize = 107;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const BINARY_HEAD_BYTES: usize = 16;
const VERSION_2_LOCAL: u8 = 0x20;
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// The size of the two addresses by family: unspecified, IPv4, IPv6, Unix socket.
const ADDRESS_BYTES: [usize; 4] = [0, 12, 36, 216];
/// Unspecified, stream, datagram.
const TRANSPORT_MAX: u8 = 2;

#[cfg(test)]
mod tests {
    use ppp::{HeaderResult, PartialResult, v1, v2};
    use proptest::prelude::*;

    use super::*;

    fn client(address: &str) -> Option<ClientAddress> {
        Some(ClientAddress::from(
            address.parse::<std::net::SocketAddr>().unwrap(),
        ))
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    const IPV4_BLOCK: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 0xbb];

    fn ipv6_block() -> Vec<u8> {
        let (source, destination): (Ipv6Addr, Ipv6Addr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        [
            &source.octets()[..],
            &destination.octets(),
            &[0xdc, 0x04, 1, 0xbb],
        ]
        .concat()
    }

    fn whole_headers() -> Vec<(Vec<u8>, Option<ClientAddress>)> {
        let text = |line: &str| format!("{line}\r\n").into_bytes();
        let with_tlvs = [&IPV4_BLOCK[..], &[0x05, 0, 3, b'a', b'b', b'c'], &[0x04; 40]].concat();
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535";
        assert_eq!(longest.len() + 2, TEXT_BYTES_MAX);
        vec![
            (
                text("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443"),
                client("192.0.2.1:56324"),
            ),
            (
                text("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535"),
                client("255.255.255.255:65535"),
            ),
            (text("PROXY TCP4 0.0.0.0 0.0.0.0 0 0"), client("0.0.0.0:0")),
            (
                text("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443"),
                client("[2001:db8::1]:56324"),
            ),
            (text("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2"), client("192.0.2.1:1")),
            (text("PROXY UNKNOWN"), None),
            (text("PROXY UNKNOWN what ever it says\n\0 a b c d e f"), None),
            (text(longest), None),
            (
                binary(VERSION_2_PROXY, TCP_OVER_IPV4, &IPV4_BLOCK),
                client("192.0.2.1:56324"),
            ),
            (
                binary(VERSION_2_PROXY, TCP_OVER_IPV4, &with_tlvs),
                client("192.0.2.1:56324"),
            ),
            (
                binary(VERSION_2_PROXY, TCP_OVER_IPV6, &ipv6_block()),
                client("[2001:db8::1]:56324"),
            ),
            (binary(VERSION_2_PROXY, 0x00, &[]), None),
            (binary(VERSION_2_PROXY, 0x12, &IPV4_BLOCK), None),
            (binary(VERSION_2_PROXY, 0x31, &[b'/'; 216]), None),
            (binary(VERSION_2_LOCAL, 0x00, &[]), None),
            (binary(VERSION_2_LOCAL, TCP_OVER_IPV4, &IPV4_BLOCK), None),
            (binary(VERSION_2_LOCAL, 0xff, &[1, 2, 3]), None),
            (
                binary(VERSION_2_LOCAL, 0x00, &[0; HEADER_BYTES_MAX - BINARY_HEAD_BYTES]),
                None,
            ),
        ]
    }

    #[test]
    fn a_header_is_parsed_when_it_is_complete_and_the_bytes_after_it_are_left() {
        for (header, client) in whole_headers() {
            let length = header.len();
            for cut in 0..length {
                assert_eq!(parse(&header[..cut]), Ok(None), "{header:?} cut at {cut}");
            }
            let whole = Ok(Some(ProxyHeader { client, length }));
            assert_eq!(parse(&header), whole, "{header:?}");
            for next in [&b"GET / HTTP/1.1\r\n\r\n"[..], &header, b"\r\n", b"\x16\x03\x01"] {
                assert_eq!(parse(&[&header, next].concat()), whole);
            }
        }
    }

    #[test]
    fn invalid_headers_are_refused() {
        for line in [
            "PROXY",
            "PROXY ",
            "PROXY TCP4",
            "PROXY TCP4 192.0.2.1",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 ",
            "PROXY  TCP4 192.0.2.1 198.51.100.1 1 2",
            "PROXY TCP4  192.0.2.1 198.51.100.1 1 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1\t2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 01 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 -1 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1  2",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 2",
            "PROXY TCP4 192.000.2.1 198.51.100.1 1 2",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2",
            "PROXY TCP4 192.0.2.1 2001:db8::2 1 2",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2",
            "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2",
            "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2",
            "PROXY UNKNOWNS",
            "PROXY unknown",
            "PROXY tcp4 192.0.2.1 198.51.100.1 1 2",
            "proxy TCP4 192.0.2.1 198.51.100.1 1 2",
            " PROXY UNKNOWN",
            "PROXY TCP4 192.0.2.1\r198.51.100.1 1 2",
            "GET / HTTP/1.1",
            "\u{feff}PROXY UNKNOWN",
        ] {
            assert_eq!(
                parse(format!("{line}\r\n").as_bytes()),
                Err(NoProxyHeader),
                "{line:?}"
            );
        }
        for bytes in [
            binary(0x11, TCP_OVER_IPV4, &IPV4_BLOCK),
            binary(0x22, TCP_OVER_IPV4, &IPV4_BLOCK),
            binary(0x31, TCP_OVER_IPV4, &IPV4_BLOCK),
            binary(VERSION_2_PROXY, TCP_OVER_IPV4, &IPV4_BLOCK[..11]),
            binary(VERSION_2_PROXY, TCP_OVER_IPV6, &ipv6_block()[..35]),
            binary(VERSION_2_PROXY, 0x12, &IPV4_BLOCK[..11]),
            binary(VERSION_2_PROXY, 0x31, &[b'/'; 215]),
            binary(VERSION_2_PROXY, 0x13, &IPV4_BLOCK),
            // An incomplete header can already be wrong.
            binary(VERSION_2_PROXY, 0x03, &IPV4_BLOCK)[..BINARY_HEAD_BYTES].to_vec(),
            binary(VERSION_2_PROXY, 0x41, &IPV4_BLOCK),
            binary(VERSION_2_LOCAL, 0, &[0; HEADER_BYTES_MAX - BINARY_HEAD_BYTES + 1]),
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
            b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec(),
            vec![0],
        ] {
            assert_eq!(parse(&bytes), Err(NoProxyHeader), "{bytes:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_the_longest_length() {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(TEXT_BYTES_MAX - 1, b'x');
        assert_eq!(parse(&line), Ok(None));
        line.push(b'\r');
        assert_eq!(parse(&line), Err(NoProxyHeader));
        line.push(b'\n');
        assert_eq!(parse(&line), Err(NoProxyHeader));
    }

    /// The result of the crate for the same bytes, in the points in which the two must agree.
    fn oracle(input: &[u8]) -> Result<Option<ProxyHeader>, NoProxyHeader> {
        match HeaderResult::parse(input) {
            HeaderResult::V1(Ok(header)) => {
                let client = match header.addresses {
                    v1::Addresses::Tcp4(a) => {
                        Some(ClientAddress::new(a.source_address.into(), a.source_port))
                    }
                    v1::Addresses::Tcp6(a) => {
                        Some(ClientAddress::new(a.source_address.into(), a.source_port))
                    }
                    v1::Addresses::Unknown => None,
                };
                let length = header.header.len();
                Ok(Some(ProxyHeader { client, length }))
            }
            HeaderResult::V2(Ok(header)) => {
                let is_tcp = header.command == v2::Command::Proxy && header.protocol == v2::Protocol::Stream;
                let client = match header.addresses {
                    v2::Addresses::IPv4(a) if is_tcp => {
                        Some(ClientAddress::new(a.source_address.into(), a.source_port))
                    }
                    v2::Addresses::IPv6(a) if is_tcp => {
                        Some(ClientAddress::new(a.source_address.into(), a.source_port))
                    }
                    _ => None,
                };
                let length = header.as_bytes().len();
                Ok(Some(ProxyHeader { client, length }))
            }
            unfinished if unfinished.is_incomplete() => Ok(None),
            _ => Err(NoProxyHeader),
        }
    }

    /// True where the two are known to differ.
    fn may_differ(input: &[u8]) -> bool {
        let is_text = is_begun(input, TEXT_START);
        let end = input.windows(2).position(|pair| pair == b"\r\n");
        // The crate ends a line at a lone carriage return.
        let is_whole = !is_text || end.is_some_and(|end| !input[..end].contains(&b'\r'));
        let is_local = !is_text && input.get(12).is_some_and(|command| command & 0x0f == 0);
        let is_large = !is_text && input.get(14).is_some_and(|high| *high >= 0x0f);
        // The crate parses a text header's addresses before the line is complete, and `UNKNOWN` with up to
        // six words.
        !is_whole
            || is_local
            || is_large
            || input.contains(&b'+')
            || input.starts_with(b"PROXY UNKNOWN")
            || input.first() == Some(&b'P') && !is_text
    }

    proptest! {
        #[test]
        fn a_header_in_random_bytes_is_never_longer_than_the_input(input in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(header)) = parse(&input) {
                prop_assert!(header.length <= input.len());
            }
        }

        #[test]
        fn a_damaged_header_is_parsed_as_by_another_implementation(
            which in 0..18_usize,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut input = whole_headers()[which].0.clone();
            for (at, byte) in damage {
                let at = at.index(input.len());
                input[at] = byte;
            }
            input.truncate(cut.index(input.len() + 1));
            let ours = parse(&input);
            if let Ok(Some(header)) = ours {
                prop_assert!(header.length <= input.len());
            }
            if !may_differ(&input) {
                prop_assert_eq!(ours, oracle(&input), "{:?}", input);
            }
        }
    }
}
