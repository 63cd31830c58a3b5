//! The network of a client: the part of its address that it cannot choose itself. All limits by address count
//! networks.
//!
//! | address | counts as | wider steps |
//! |---|---|---|
//! | IPv4, and IPv6 that embeds one | that IPv4 address | /24, /16 |
//! | any other IPv6 | its first 64 bits, the least that one customer has | /56, /48, /32 |
//!
//! | IPv6 | embeds the IPv4 address | defined in |
//! |---|---|---|
//! | `::ffff:0:0/96` | in its last 32 bits | RFC 4291: a socket of both families |
//! | `::ffff:0:0:0/96` | in its last 32 bits | RFC 2765: an old translator |
//! | `64:ff9b::/96` | in its last 32 bits | RFC 6052: NAT64, SIIT |
//! | `64:ff9b:1::/48` | where the zeros of RFC 6052 section 2.2 show it | RFC 8215: NAT64 of one operator's own |
//! | a prefix of `translator_prefixes` | by its length | RFC 6052: the same with addresses of the operator |
//! | `2002::/16` | in bits 16 to 48 | RFC 3056: 6to4 |
//! | `2001::/32` | in its last 32 bits, inverted | RFC 4380: Teredo |
//!
//! Embedded addresses matter only for counting. Trusted proxies, applications and logs use the address as it
//! is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network of clients as one number: the bits of an IPv6 network, or of an IPv4 network in its mapped form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNetwork(u128);

/// How many bits of an address identify a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A whole IPv4 address, or 64 bits of IPv6: counts as one address.
    Address,
    /// A whole IPv4 address, or 56 bits of IPv6, as providers assign to homes.
    Customer,
    /// 24 bits of IPv4, or 48 bits of IPv6, as providers assign to companies.
    Site,
    /// 16 bits of IPv4, or 32 bits of IPv6, as registries assign to providers.
    Provider,
}

/// Prefixes under which IPv4 clients reach an IPv6 server, in addition to the well-known ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat64Prefixes(Box<[Nat64Prefix]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nat64Prefix {
    first: Ipv6Addr,
    /// 32, 40, 48, 56, 64 or 96.
    bits: u8,
}

/// The text is not a list of NAT64 prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNat64Prefixes;

impl Nat64Prefixes {
    /// The network that an address counts for.
    #[doc(hidden)]
    pub fn network(&self, ip: IpAddr, width: Width) -> ClientNetwork {
        let ipv4 = match ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(ip) => self.embedded(ip),
        };
        match (ipv4, ip) {
            (Some(ip), _) | (None, IpAddr::V4(ip)) => {
                let mapped = ip.to_ipv6_mapped().to_bits();
                ClientNetwork(mapped & u128::MAX << (32 - width.ipv4_bits()))
            }
            (None, IpAddr::V6(ip)) => ClientNetwork(ip.to_bits() & u128::MAX << (128 - width.ipv6_bits())),
        }
    }

    /// The IPv4 address that is embedded in this address, if any.
    fn embedded(&self, ip: Ipv6Addr) -> Option<Ipv4Addr> {
        let in_own = |prefix: &&Nat64Prefix| prefix.contains(ip);
        if let Some(prefix) = self.0.iter().find(in_own) {
            return Some(translated(ip, prefix.bits));
        }
        match ip.segments() {
            [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(translated(ip, 96)),
            [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(translated(ip, 96)),
            [0x64, 0xff9b, 1, ..] => Some(translated(ip, bits_by_zeros(ip))),
            [0x2002, high, low, ..] => Some(of_segments(high, low)),
            [0x2001, 0, .., high, low] => Some(of_segments(!high, !low)),
            _ => None,
        }
    }
}

impl Nat64Prefix {
    /// Parses an IPv6 prefix of one of the lengths of RFC 6052, whose bits after the prefix are zero.
    fn parse(text: &str) -> Option<Nat64Prefix> {
        let (first, digits) = text.split_once('/')?;
        let first: Ipv6Addr = first.parse().ok()?;
        let bits: u8 = match digits {
            "32" | "40" | "48" | "56" | "64" | "96" => digits.parse().ok()?,
            _ => return None,
        };
        (first.to_bits() << bits == 0).then_some(Nat64Prefix { first, bits })
    }

    fn contains(&self, ip: Ipv6Addr) -> bool {
        (ip.to_bits() ^ self.first.to_bits()) >> (128 - u32::from(self.bits)) == 0
    }
}

impl Width {
    const fn ipv4_bits(self) -> u32 {
        match self {
            Width::Address | Width::Customer => 32,
            Width::Site => 24,
            Width::Provider => 16,
        }
    }

    const fn ipv6_bits(self) -> u32 {
        match self {
            Width::Address => 64,
            Width::Customer => 56,
            Width::Site => 48,
            Width::Provider => 32,
        }
    }
}

impl FromStr for Nat64Prefixes {
    type Err = NotNat64Prefixes;

    /// Parses entries separated by commas or spaces. An empty text is an empty list.
    fn from_str(text: &str) -> Result<Nat64Prefixes, NotNat64Prefixes> {
        let entries = text.split([',', ' ']).filter(|entry| !entry.is_empty());
        entries
            .map(Nat64Prefix::parse)
            .collect::<Option<_>>()
            .map(Nat64Prefixes)
            .ok_or(NotNat64Prefixes)
    }
}

impl fmt::Display for Nat64Prefixes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Nat64Prefix { first, bits }) in self.0.iter().enumerate() {
            write!(formatter, "{}{first}/{bits}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The four bytes after a prefix of this many bits. The byte at bits 64 to 72 is never one of them (RFC 6052
/// section 2.2).
fn translated(ip: Ipv6Addr, bits: u8) -> Ipv4Addr {
    let mut bytes = ip.octets().into_iter().enumerate().skip(usize::from(bits / 8));
    let mut next = || {
        bytes
            .find(|&(index, _)| index != RESERVED_BYTE || bits == 96)
            .map_or(0, |(_, byte)| byte)
    };
    Ipv4Addr::new(next(), next(), next(), next())
}

/// The length of the prefix in an address of `64:ff9b:1::/48`, found by the zeros after the IPv4 address. No
/// host's address ends in 24 zeros, so of several possible lengths the longest is right.
fn bits_by_zeros(ip: Ipv6Addr) -> u8 {
    match ip.to_bits().trailing_zeros() {
        _ if ip.octets()[RESERVED_BYTE] != 0 => 96,
        40.. => 48,
        32.. => 56,
        24.. => 64,
        _ => 96,
    }
}

fn of_segments(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// Bits 64 to 72.
const RESERVED_BYTE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ip: &str, width: Width) -> ClientNetwork {
        Nat64Prefixes::default().network(ip.parse().unwrap(), width)
    }

    #[test]
    fn addresses_that_one_owner_can_choose_count_as_one() {
        use Width::{Address, Customer, Provider, Site};
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", &[Address, Customer, Site, Provider][..]),
            ("192.0.2.1", "192.0.2.255", &[Site, Provider]),
            ("192.0.2.1", "192.0.3.1", &[Provider]),
            ("192.0.2.1", "192.1.2.1", &[]),
            (
                "2001:db8::1",
                "2001:db8:0:0:ffff:ffff:ffff:ffff",
                &[Address, Customer, Site, Provider],
            ),
            ("2001:db8::1", "2001:db8:0:ff::1", &[Customer, Site, Provider]),
            ("2001:db8::1", "2001:db8:0:100::1", &[Site, Provider]),
            ("2001:db8::1", "2001:db8:1::1", &[Provider]),
            ("2001:db8::1", "2001:db9::1", &[]),
            ("::1", "127.0.0.1", &[]),
            ("::", "0.0.0.0", &[]),
        ] {
            for width in [Address, Customer, Site, Provider] {
                assert_eq!(
                    network(one, width) == network(other, width),
                    same.contains(&width),
                    "{one} {other} {width:?}"
                );
            }
        }
    }

    #[test]
    fn an_embedded_ipv4_address_counts_as_that_address() {
        for ip in [
            "::ffff:198.51.100.7",
            "::ffff:0:198.51.100.7",
            "64:ff9b::198.51.100.7",
            // The examples of RFC 6052 section 2.4 for its own prefixes.
            "64:ff9b:1:c633:64:700::",
            "64:ff9b:1:99c6:33:6407::",
            "64:ff9b:1:abcd:c6:3364:700:0",
            "64:ff9b:1:abcd:ef01:2345:c633:6407",
            "64:ff9b:1:fffe::198.51.100.7",
            "64:ff9b:1::198.51.100.7",
            "2002:c633:6407::1",
            "2002:c633:6407:ffff:1:2:3:4",
            "2001:0:4136:e378:8000:63bf:39cc:9bf8",
        ] {
            let expected = network("198.51.100.7", Width::Address);
            assert_eq!(network(ip, Width::Address), expected, "{ip}");
            assert_ne!(
                network(ip, Width::Address),
                network("198.51.100.8", Width::Address)
            );
        }
        // Addresses beside these prefixes are ordinary addresses.
        for ip in [
            "64:ff9a::198.51.100.7",
            "64:ff9b:2::198.51.100.7",
            "2003:c633:6407::1",
            "2001:1::1",
            "::198.51.100.7",
        ] {
            assert_ne!(
                network(ip, Width::Address),
                network("198.51.100.7", Width::Address),
                "{ip}"
            );
        }
    }

    #[test]
    fn configured_prefixes_embed_addresses_as_in_rfc_6052() {
        // The examples of RFC 6052 section 2.4.
        for (prefix, ip) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ] {
            let prefixes: Nat64Prefixes = format!("2001:db8:ffff::/96, {prefix}").parse().unwrap();
            let ip: IpAddr = ip.parse().unwrap();
            let expected = network("192.0.2.33", Width::Address);
            assert_eq!(prefixes.network(ip, Width::Address), expected, "{prefix}");
            assert_ne!(Nat64Prefixes::default().network(ip, Width::Address), expected);
        }
    }

    #[test]
    fn displayed_prefixes_can_be_parsed_again_and_faulty_ones_are_refused() {
        let text = "2001:db8:64::/96, 2001:db8:65::/48";
        assert_eq!(text.parse::<Nat64Prefixes>().unwrap().to_string(), text);
        assert_eq!("".parse::<Nat64Prefixes>(), Ok(Nat64Prefixes::default()));
        for slip in [
            "2001:db8::",
            "2001:db8::/95",
            "2001:db8::/0",
            "2001:db8::/128",
            "2001:db8::1/96",
            "192.0.2.0/32",
            "x",
        ] {
            assert_eq!(slip.parse::<Nat64Prefixes>(), Err(NotNat64Prefixes), "{slip}");
        }
    }
}
