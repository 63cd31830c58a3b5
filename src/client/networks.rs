//! Networks of addresses: the list of trusted proxies.
//!
//! Own code instead of a crate for CIDR notation: an address is one 128-bit number here, with IPv4 in its
//! mapped form, so that a proxy is recognised whichever kind of socket its connection came through.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::address::ClientAddress;

/// A list of addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[Network]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    /// The number of bits that all addresses of the network share, of 32 or 128.
    prefix: u8,
}

/// The text is not a list of addresses and networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNetworks;

impl Networks {
    /// True if the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if one of the networks contains every IPv4 or every IPv6 address.
    pub fn contain_all_addresses(&self) -> bool {
        self.0.iter().any(|network| network.prefix == 0)
    }

    /// True if the address is in one of the networks. The unknown address is in none.
    #[doc(hidden)]
    pub fn contain(&self, address: &ClientAddress) -> bool {
        // Most servers trust no proxy.
        !self.0.is_empty() && *address != ClientAddress::UNKNOWN && {
            let ip = address.ip();
            self.0.iter().any(|network| network.contains(ip))
        }
    }
}

impl FromStr for Networks {
    type Err = NotNetworks;

    /// Parses entries separated by commas or spaces. An empty text is an empty list.
    fn from_str(text: &str) -> Result<Networks, NotNetworks> {
        let entries = text.split([',', ' ']).filter(|entry| !entry.is_empty());
        entries
            .map(Network::parse)
            .collect::<Option<_>>()
            .map(Networks)
            .ok_or(NotNetworks)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Network { first, prefix }) in self.0.iter().enumerate() {
            write!(formatter, "{}{first}", if index == 0 { "" } else { ", " })?;
            if *prefix < bits(*first) {
                write!(formatter, "/{prefix}")?;
            }
        }
        Ok(())
    }
}

impl Network {
    /// Parses an address, or the first address of a network and the number of shared bits. Bits set after
    /// those are an error: the network would contain more addresses than intended.
    fn parse(text: &str) -> Option<Network> {
        let (first, prefix) = match text.split_once('/') {
            Some((first, digits)) => {
                let legal = digits.bytes().all(|byte| byte.is_ascii_digit());
                (first, Some(digits.parse().ok().filter(|_| legal)?))
            }
            None => (text, None),
        };
        let written: IpAddr = first.parse().ok()?;
        let first = written.to_canonical();
        // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
        let mapping = bits(written) - bits(first);
        let prefix = prefix.unwrap_or_else(|| bits(written)).checked_sub(mapping)?;
        let network = Network { first, prefix };
        (prefix <= bits(first) && number(first) & !network.mask() == 0).then_some(network)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && number(ip) & self.mask() == number(self.first)
    }

    /// The shared bits, at the top of the bits that addresses of this kind have.
    fn mask(&self) -> u128 {
        let free = bits(self.first) - self.prefix;
        let of_kind = u128::MAX >> (128 - bits(self.first));
        of_kind & u128::MAX.checked_shl(u32::from(free)).unwrap_or(0)
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contain(list: &str, ip: &str) -> bool {
        let address = ClientAddress::new(ip.parse().unwrap(), 1);
        list.parse::<Networks>().unwrap().contain(&address)
    }

    #[test]
    fn a_network_has_a_first_and_a_last_address() {
        for (list, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255"][..],
                &["9.255.255.255", "11.0.0.0"][..],
            ),
            (
                "192.0.2.4/30",
                &["192.0.2.4", "192.0.2.7"],
                &["192.0.2.3", "192.0.2.8"],
            ),
            (
                "192.0.2.4",
                &["192.0.2.4", "::ffff:192.0.2.4"],
                &["192.0.2.5", "::192.0.2.4"],
            ),
            ("192.0.2.4/32", &["192.0.2.4"], &["192.0.2.5"]),
            (
                "0.0.0.0/0",
                &["0.0.0.0", "255.255.255.255"],
                &["::1", "2001:db8::1"],
            ),
            // To trust both kinds, both must be listed.
            (
                "::/0",
                &["::1", "2001:db8::1"],
                &["192.0.2.1", "::ffff:192.0.2.1"],
            ),
            (
                "2001:db8::/32",
                &["2001:db8::", "2001:db8:ffff::1"],
                &["2001:db9::", "2001:db7:ffff::"],
            ),
            ("2001:db8::/33", &["2001:db8:7fff::1"], &["2001:db8:8000::"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3"], &["11.0.0.0"]),
            ("::ffff:10.0.0.1", &["10.0.0.1"], &["10.0.0.2"]),
            (
                "10.0.0.1, ::1 127.0.0.1",
                &["10.0.0.1", "::1", "127.0.0.1"],
                &["10.0.0.2"],
            ),
            ("", &[], &["127.0.0.1", "::1"]),
        ] {
            for ip in inside {
                assert!(contain(list, ip), "{list} {ip}");
            }
            for ip in outside {
                assert!(!contain(list, ip), "{list} {ip}");
            }
        }
        assert!(
            !"::/0"
                .parse::<Networks>()
                .unwrap()
                .contain(&ClientAddress::UNKNOWN)
        );
    }

    #[test]
    fn a_network_with_prefix_0_contains_every_address() {
        let contain_all_addresses = |list: &str| list.parse::<Networks>().unwrap().contain_all_addresses();
        assert!(contain_all_addresses("0.0.0.0/0") && contain_all_addresses("::1, ::/0"));
        assert!(
            !contain_all_addresses("0.0.0.0/1, ::/1")
                && !contain_all_addresses("")
                && !contain_all_addresses("0.0.0.0")
        );
    }

    #[test]
    fn displayed_lists_can_be_parsed_again_and_faulty_ones_are_refused() {
        let text = "10.0.0.0/8, 192.0.2.1, 2001:db8::/32, ::1";
        let list: Networks = text.parse().unwrap();
        assert_eq!(list.to_string(), text);
        for slip in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0",
            "10.0.0.0.0",
            "010.0.0.1",
            "2001:db8::1/32",
            "2001:db8::/129",
            "::ffff:10.0.0.0/8",
            "[::1]",
            "127.0.0.1:80",
            "localhost",
            "*",
        ] {
            assert_eq!(slip.parse::<Networks>(), Err(NotNetworks), "{slip}");
        }
    }
}
