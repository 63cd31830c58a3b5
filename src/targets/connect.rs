//! Opens a connection to another server: the look-up of its name, the check of its addresses, TCP and TLS.
//!
//! The certificate of the other server is checked against the certificate authorities of this machine (`SSL_CERT_FILE`
//! names others), or of one file.
//!
//! A name may lead to any address, also to one that its owner has set a moment ago. Addresses that serve the machine
//! itself, as the metadata services of clouds (169.254.169.254), are refused unless the operator allows them
//! ([`LinkLocal`]); the connection goes to exactly the address that was checked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::look_ups::LookUps;

/// A connection, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Whether a name may lead to a link-local address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LinkLocal {
    #[default]
    Refused,
    Allowed,
}

/// Opens a connection to an address; by TLS if the address says so.
///
/// # Errors
/// The other server cannot be reached, or its certificate does not name it.
pub(crate) async fn connect(
    address: &Address,
    look_ups: &LookUps,
    tls: Option<&TlsConnector>,
    link_local: LinkLocal,
) -> io::Result<Box<dyn Stream>> {
    let stream = connect_tcp(address, look_ups, link_local).await?;
    // A request is written at once, and another one follows only after the answer.
    stream.set_nodelay(true)?;
    if !address.is_secure {
        return Ok(Box::new(stream));
    }
    let tls = tls.ok_or_else(|| io::Error::other("there are no certificate authorities for it"))?;
    let name = ServerName::try_from(address.host.clone()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "its host cannot be the name of a certificate",
        )
    })?;
    Ok(Box::new(tls.connect(name, stream).await?))
}

async fn connect_tcp(address: &Address, look_ups: &LookUps, link_local: LinkLocal) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    let mut left = look_ups.addresses(address).await?.into_iter().peekable();
    while let Some(found) = left.next() {
        if link_local == LinkLocal::Refused && is_of_the_machine(found.ip()) {
            last = io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "its address {} is link-local or reserved, and not allowed",
                    found.ip()
                ),
            );
            continue;
        }
        let connecting = TcpStream::connect(found);
        // An address that drops packets must not use up the time of the others.
        let connected = match left.peek() {
            Some(_) => timeout(ADDRESS_TIME_MAX, connecting).await,
            None => Ok(connecting.await),
        };
        match connected {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => {
                last = io::Error::new(io::ErrorKind::TimedOut, format!("{} does not answer", found.ip()))
            }
        }
    }
    Err(last)
}

/// Whether an address serves this machine or its link only, as metadata services of clouds do, or cannot be a server's.
/// False for loopback and private addresses, where backends usually are.
fn is_of_the_machine(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_multicast()
                || METADATA_V4.contains(&address)
        }
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address == METADATA_V6
                || carried_v4(address).is_some_and(|address| is_of_the_machine(address.into()))
        }
    }
}

/// The IPv4 address in one of NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

/// TLS that trusts the certificate authorities of this machine. Reading them takes time: they are files, often more
/// than a hundred.
///
/// # Errors
/// The machine has no usable certificate authorities.
pub(crate) fn tls_of_system() -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(io::Error::other(
            "this machine trusts no certificate authority: install ca-certificates, or set SSL_CERT_FILE",
        ));
    }
    tls(roots)
}

/// TLS that trusts the certificate authorities of a PEM text, and no others.
///
/// # Errors
/// The text has no certificate.
pub(crate) fn tls_of_authority(pem: &[u8]) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| io::Error::other(error.to_string()))?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other("it holds no certificate"));
    }
    tls(roots)
}

fn tls(roots: RootCertStore) -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// How long an address is tried that is not the last one of its name.
const ADDRESS_TIME_MAX: Duration = Duration::from_millis(500);
/// Metadata services beyond the link-local block: Alibaba Cloud, and Azure's platform address.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// The metadata service of Amazon EC2.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_machine_are_distinguished_from_addresses_of_servers() {
        for (address, expected) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("2002:a9fe:a9fe::", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("100.100.100.200", true),
            ("0.0.0.0", true),
            ("::", true),
            ("255.255.255.255", true),
            ("224.0.0.1", true),
            ("ff02::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("fd00::1", false),
            ("64:ff9b::0a00:0001", false),
            ("93.184.216.34", false),
            ("2606:2800:220:1::1", false),
        ] {
            assert_eq!(is_of_the_machine(address.parse().unwrap()), expected, "{address}");
        }
    }
}
