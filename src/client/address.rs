//! A client's address, in the form in which every connection stores it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An IP address and a port in 18 bytes instead of the 32 of a `SocketAddr`, since each connection has one.
///
/// The bytes are an IPv6 address; an IPv4 address is stored in its mapped form (RFC 4291 section 2.5.5.2). So
/// a client has the same address whether its connection came through an IPv4 socket or as `::ffff:192.0.2.1`
/// through a socket of both families. Scope and flow label are not stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress {
    ip: [u8; 16],
    port: u16,
}

impl ClientAddress {
    /// The address of a connection whose peer address the system no longer reports.
    pub const UNKNOWN: ClientAddress = ClientAddress { ip: [0; 16], port: 0 };

    /// The address with this port.
    pub fn new(ip: IpAddr, port: u16) -> ClientAddress {
        let mapped = match ip {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        ClientAddress {
            ip: mapped.octets(),
            port,
        }
    }

    /// The IP address; IPv4 for a mapped one.
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.ip).to_canonical()
    }

    /// The port; 0 if it is not known, as behind a proxy that sends only the address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// IP address and port; `None` if the address is not known.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        (*self != ClientAddress::UNKNOWN).then(|| SocketAddr::new(self.ip(), self.port))
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> ClientAddress {
        ClientAddress::new(address.ip(), address.port())
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_address() {
            Some(address) => address.fmt(formatter),
            None => formatter.write_str("unknown"),
        }
    }
}

impl fmt::Debug for ClientAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

// Each connection stores one.
const _: () = assert!(size_of::<ClientAddress>() == 18);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ClientAddress {
        ClientAddress::from(text.parse::<SocketAddr>().unwrap())
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        assert_eq!(address("[::ffff:192.0.2.1]:80"), address("192.0.2.1:80"));
        assert_eq!(address("[::ffff:192.0.2.1]:80").to_string(), "192.0.2.1:80");
        assert_ne!(address("[::192.0.2.1]:80"), address("192.0.2.1:80"));
    }

    #[test]
    fn displayed_addresses_can_be_parsed_again() {
        for text in [
            "192.0.2.1:80",
            "0.0.0.0:0",
            "[2001:db8::1]:65535",
            "[::1]:1",
            "[::]:1",
        ] {
            assert_eq!(address(text).to_string(), text);
            assert_eq!(address(text).socket_address(), text.parse().ok());
        }
        assert_eq!(ClientAddress::UNKNOWN.to_string(), "unknown");
        assert_eq!(ClientAddress::UNKNOWN.socket_address(), None);
    }
}
