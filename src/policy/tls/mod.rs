//! TLS as the policy have it: certificates and keys read from their files, and what cores hand to each new connection.
//!
//! TLS 1.2 and 1.3, forward-secret suites only, ALPN `http/1.1`, tickets for resumption (one for each connection, the
//! keys made here and changed every six hours), no early data, nothing remembered about a client besides.
//!
//! A reload keeps the keys of tickets, so that clients that come back are still known, unless what clients' certificates
//! are asked changes: a ticket stands for a certificate that was found to be good by the rules of its time.

mod certificates;
mod error;
mod identity;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use self::certificates::Certificates;
pub use self::error::TlsError;
pub(crate) use self::identity::claims_of;
use crate::config::text_file;
use crate::config::tls::{ClientAuth, Tls as Settings};

/// What cores hand to each new connection.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// For operators, who show a key rather than a certificate; with keys of tickets of its own, since a ticket stands for
    /// the certificate that was asked for when it was given.
    admin_config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
    clients: Clients,
}

/// What clients' certificates are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Clients {
    auth: ClientAuth,
    authorities: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Reads the files that the settings name; `None` if nothing speaks TLS.
    pub(super) fn read(settings: &Settings, before: Option<&Tls>) -> Result<Option<Tls>, TlsError> {
        if !settings.is_used() {
            return match before {
                Some(_) => Err(TlsError::StillSpoken),
                None => Ok(None),
            };
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let files = settings.certificate_files.iter().zip(&settings.key_files);
        let certificates = Arc::new(Certificates::read(files, &provider)?);
        let clients = Clients::read(settings)?;
        let tickets = match before {
            Some(before) if before.clients == clients => Arc::clone(&before.tickets),
            Some(_) | None => aws_lc_rs::Ticketer::new().map_err(TlsError::System)?,
        };
        let verifier = clients.verifier(settings, &provider)?;
        let config = server_config(&provider, verifier, &certificates, Arc::clone(&tickets))?;
        let admin_tickets = aws_lc_rs::Ticketer::new().map_err(TlsError::System)?;
        let admin_config = server_config(&provider, None, &certificates, admin_tickets)?;
        Ok(Some(Tls {
            config: Arc::new(config),
            admin_config: Arc::new(admin_config),
            certificates,
            tickets,
            clients,
        }))
    }

    /// All that is wrong with the files that the settings name.
    pub(super) fn faults(settings: &Settings) -> Vec<TlsError> {
        if !settings.is_used() {
            return Vec::new();
        }
        let provider = aws_lc_rs::default_provider();
        let files = settings.certificate_files.iter().zip(&settings.key_files);
        let pairs = files.map(|pair| Certificates::read(std::iter::once(pair), &provider));
        let mut faults: Vec<TlsError> = pairs.filter_map(Result::err).collect();
        faults.extend(Clients::read(settings).err());
        if faults.is_empty() {
            faults.extend(Tls::read(settings, None).err());
        }
        faults
    }

    /// What a connection begins with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// What a connection of an operator begins with.
    pub(crate) fn admin_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.admin_config)
    }

    /// When the first of the certificates ends, in seconds since 1970.
    pub fn not_after_unix_s(&self) -> i64 {
        self.certificates.not_after_unix_s()
    }

    /// What works but is hardly meant, each with what to do: certificates that have ended or have not begun, keys that
    /// others may read.
    pub fn warnings(&self, unix_ms: u64) -> Vec<String> {
        self.certificates.warnings(unix_ms)
    }
}

impl Clients {
    fn read(settings: &Settings) -> Result<Clients, TlsError> {
        let Some(file) = &settings.client_ca_file else {
            return Ok(Clients::default());
        };
        let authorities = certificates_in(file)?;
        Ok(Clients {
            auth: settings.client_auth,
            authorities,
        })
    }

    fn verifier(
        &self,
        settings: &Settings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let unfit = |cause: String| TlsError::Authority {
            file: settings.client_ca_file.clone().unwrap_or_default(),
            cause,
        };
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots
                .add(authority.clone())
                .map_err(|error| unfit(error.to_string()))?;
        }
        let builder = match self.auth {
            ClientAuth::Off => return Ok(None),
            ClientAuth::Optional => {
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .allow_unauthenticated()
            }
            ClientAuth::Required => {
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            }
        };
        builder
            .build()
            .map(Some)
            .map_err(|error| unfit(error.to_string()))
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    certificates: &Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::System)?;
    let mut config = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(Arc::clone(certificates) as Arc<_>);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// The certificates of a PEM file, at least one.
fn certificates_in(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem {
            file: file.to_owned(),
            cause: error.to_string(),
        })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            file: file.to_owned(),
        });
    }
    Ok(certificates)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    text_file::read_pem(file).map_err(|error| TlsError::Unreadable {
        file: file.to_owned(),
        cause: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
