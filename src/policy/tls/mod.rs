//! The TLS part of the policy: reads certificates and keys from their files, and makes the rustls
//! configurations for new connections.
//!
//! TLS 1.2 and 1.3, only suites with forward secrecy, ALPN `http/1.1`, no early data. Each connection gets
//! one ticket for resumption, and the server keeps no other state of a session. The keys that encrypt tickets
//! are made here and change every six hours.
//!
//! A reload keeps these keys, so that returning clients can resume, unless the demands on clients'
//! certificates change: a ticket stands for a certificate that was verified by the demands of its time.

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
use crate::config::tls::{ClientAuth, Tls as TlsSettings};

/// The rustls configurations that cores use for new connections, and their parts.
#[derive(Clone, Debug)]
pub struct TlsPolicy {
    config: Arc<ServerConfig>,
    /// For operators' connections, which ask for no client certificate. Its ticket keys are its own, since a
    /// ticket stands for the client certificate that was demanded when it was issued.
    admin_config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
    demands: ClientAuthDemands,
}

/// The demands on clients' certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ClientAuthDemands {
    auth: ClientAuth,
    authorities: Vec<CertificateDer<'static>>,
}

impl TlsPolicy {
    /// Reads the files that the settings name. Without settings no listener uses TLS.
    pub(super) fn read(
        settings: Option<&TlsSettings>,
        before: Option<&TlsPolicy>,
    ) -> Result<Option<TlsPolicy>, TlsError> {
        let Some(settings) = settings else {
            return match before {
                Some(_) => Err(TlsError::TurnedOff),
                None => Ok(None),
            };
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let files = settings.certificate_files.iter().zip(&settings.key_files);
        let certificates = Arc::new(Certificates::read(files, &provider)?);
        let demands = ClientAuthDemands::read(settings)?;
        let tickets = match before {
            Some(before) if before.demands == demands => Arc::clone(&before.tickets),
            Some(_) | None => aws_lc_rs::Ticketer::new().map_err(TlsError::System)?,
        };
        let verifier = demands.verifier(settings, &provider)?;
        let config = server_config(
            &provider,
            verifier,
            &certificates,
            Arc::clone(&tickets),
            &[HTTP, MQTT],
        )?;
        let admin_tickets = aws_lc_rs::Ticketer::new().map_err(TlsError::System)?;
        let admin_config = server_config(&provider, None, &certificates, admin_tickets, &[HTTP])?;
        Ok(Some(TlsPolicy {
            config: Arc::new(config),
            admin_config: Arc::new(admin_config),
            certificates,
            tickets,
            demands,
        }))
    }

    /// All errors in the files that the settings name.
    pub(super) fn faults(settings: &TlsSettings) -> Vec<TlsError> {
        let provider = aws_lc_rs::default_provider();
        let files = settings.certificate_files.iter().zip(&settings.key_files);
        let pairs = files.map(|pair| Certificates::read(std::iter::once(pair), &provider));
        let mut faults: Vec<TlsError> = pairs.filter_map(Result::err).collect();
        faults.extend(ClientAuthDemands::read(settings).err());
        if faults.is_empty() {
            faults.extend(TlsPolicy::read(Some(settings), None).err());
        }
        faults
    }

    /// The configuration for a client's connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The configuration for an operator's connection.
    pub(crate) fn admin_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.admin_config)
    }

    /// When the first of the certificates expires, in seconds since 1970.
    pub fn not_after_unix_s(&self) -> i64 {
        self.certificates.not_after_unix_s()
    }

    /// Warnings about settings that work but are probably not intended, each with a remedy: certificates that have
    /// expired or are not valid yet, keys that others may read.
    pub fn warnings(&self, unix_ms: u64) -> Vec<String> {
        self.certificates.warnings(unix_ms)
    }
}

impl ClientAuthDemands {
    fn read(settings: &TlsSettings) -> Result<ClientAuthDemands, TlsError> {
        let Some(file) = &settings.client_ca_file else {
            return Ok(ClientAuthDemands::default());
        };
        let authorities = certificates_in(file)?;
        Ok(ClientAuthDemands {
            auth: settings.client_auth,
            authorities,
        })
    }

    fn verifier(
        &self,
        settings: &TlsSettings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let unusable = |cause: String| TlsError::Authority {
            file: settings.client_ca_file.clone().unwrap_or_default(),
            cause,
        };
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots
                .add(authority.clone())
                .map_err(|error| unusable(error.to_string()))?;
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
            .map_err(|error| unusable(error.to_string()))
    }
}

/// The names of protocols that clients may offer (RFC 7301). A client may as well offer none. The first byte after the
/// handshake shows the protocol.
const HTTP: &[u8] = b"http/1.1";
const MQTT: &[u8] = b"mqtt";

fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    certificates: &Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::System)?;
    let mut config = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(Arc::clone(certificates) as Arc<_>);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
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
