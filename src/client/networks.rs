//! Networks of addresses: which proxies are believed.
//!
//! Own code rather than a crate for CIDR notation: an address is one 128-bit number here, IPv4 in its mapped form, so
//! that a proxy is the same whichever kind of socket its connection came through.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::address::ClientAddress;

/// Addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[Network]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    /// Bits that all addresses share, of 32 or 128.
    prefix: u8,
}

/// The text is not a list of addresses and networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNetworks;

impl Networks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is every address there is, of either kind.
    pub fn are_everybody(&self) -> bool {
        self.0.iter().any(|network| network.prefix == 0)
    }

    /// Whether the address lies in one of them. The unknown address lies in none.
    pub fn contain(&self, address: &ClientAddress) -> bool {
        // Most servers trust nobody.
        !self.0.is_empty() && *address != ClientAddress::UNKNOWN && {
            let ip = address.ip();
            self.0.iter().any(|network| network.contains(ip))
        }
    }
}

impl FromStr for Networks {
    type Err = NotNetworks;

    /// Reads entries separated by commas or spaces; none is none.
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
    /// An address, or the first of a network with the bits that its addresses share. Bits behind those are a slip, and
    /// one that would trust more than was meant.
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

    /// The bits that all addresses share, at the top of those that addresses of this kind have.
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
    fn a_network_ends_at_both_sides() {
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
            // Who means both kinds writes both.
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
    fn a_network_without_a_prefix_is_everybody() {
        let are_everybody = |list: &str| list.parse::<Networks>().unwrap().are_everybody();
        assert!(are_everybody("0.0.0.0/0") && are_everybody("::1, ::/0"));
        assert!(!are_everybody("0.0.0.0/1, ::/1") && !are_everybody("") && !are_everybody("0.0.0.0"));
    }

    #[test]
    fn lists_read_back_as_they_are_shown_and_slips_are_refused() {
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
