//! TLS for tests: authorities, certificates in files, and clients that use TLS.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use ringcast::config::Config;
use ringcast::config::tls::{ClientAuth, OnListen};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::Client;

/// An authority, which signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    /// For a server with this certificate.
    pub(crate) fn server_config(&self) -> ServerConfig {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap()
    }
}

/// A folder for the files of one test, which is removed when the value is dropped.
pub(crate) struct Files(PathBuf);

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate with an ECDSA key.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.server_with(KeyPair::generate().unwrap(), names, (2020, 2090))
    }

    /// A server's certificate, valid for these years.
    pub(crate) fn server_with(&self, key: KeyPair, names: &[&str], years: (i32, i32)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        self.sign(params, key)
    }

    /// A client's certificate, valid for these years.
    pub(crate) fn client(&self, name: &str, years: (i32, i32)) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
        params.subject_alt_names = vec![SanType::Rfc822Name("a@example.com".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        self.sign(params, KeyPair::generate().unwrap())
    }

    fn sign(&self, params: CertificateParams, key: KeyPair) -> Pair {
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Settings of a client that trusts this authority.
    pub(crate) fn trust(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Pair>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        }
    }
}

impl Files {
    pub(crate) fn new() -> Files {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringcast-tls-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Files(folder)
    }

    /// Writes a file that only its owner may read; returns its name.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    /// Writes a certificate and its key to two files.
    pub(crate) fn write_pair(&self, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
        (
            self.write(&format!("{name}.pem"), &pair.certificate),
            self.write(&format!("{name}.key"), &pair.key),
        )
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A folder that remains does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Configures a server to accept both TLS and plain connections on its port, with these certificates.
pub(crate) fn speak_tls(config: &mut Config, files: &Files, pairs: &[Pair]) {
    config.tls.on_listen = OnListen::Shared;
    for (index, pair) in pairs.iter().enumerate() {
        let (certificate, key) = files.write_pair(&format!("server{index}"), pair);
        config.tls.certificate_files.push(certificate);
        config.tls.key_files.push(key);
    }
}

/// Configures a server to ask clients for certificates of this authority.
pub(crate) fn ask_clients(config: &mut Config, files: &Files, auth: ClientAuth, authority: &Authority) {
    config.tls.client_auth = auth;
    config.tls.client_ca_file = Some(files.write("clients.pem", &authority.pem()));
}

/// A connection that has sent nothing yet.
pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Client {
    let mut client = Client::connect(address);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    client.tls = Some(Box::new(ClientConnection::new(Arc::clone(config), name).unwrap()));
    client
}

/// A client that has completed all handshakes.
pub(crate) fn client(address: SocketAddr, config: &Arc<ClientConfig>) -> Client {
    let mut client = connect(address, config, "localhost");
    client.upgrade();
    client.handshake();
    client
}

/// Both versions of TLS.
pub(crate) const ALL: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
