//! What an operator can set of TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Conflict;

/// TLS: where it is spoken, and with which files.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whether clients may, or must, speak TLS where plain ones connect.
    pub on_listen: OnListen,
    /// One more address for clients, which speaks only TLS; `None` for no such.
    pub listen: Option<SocketAddr>,
    /// PEM files of certificates, each with its chain; the first serves clients that ask for no name, or for one that
    /// none has.
    pub certificate_files: Vec<PathBuf>,
    /// PEM files of their private keys, in the same order.
    pub key_files: Vec<PathBuf>,
    /// Whether clients show certificates of their own.
    pub client_auth: ClientAuth,
    /// A PEM file with the certificates of the authorities that clients' certificates must come from.
    pub client_ca_file: Option<PathBuf>,
    /// Whether the control plane speaks TLS, with the same certificates.
    pub admin: bool,
}

/// Whether the address for clients speaks TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnListen {
    /// It does not.
    #[default]
    Off,
    /// With who begins to; others go on without.
    Shared,
    /// Always; a plain request is told so.
    Only,
}

/// Whether clients show certificates of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked, and may have none; one that is shown must be good.
    Optional,
    /// Nobody comes in without a good one.
    Required,
}

impl Tls {
    /// Whether anything speaks TLS.
    pub fn is_used(&self) -> bool {
        self.on_listen != OnListen::Off || self.listen.is_some() || self.admin
    }

    /// Whether the settings go together.
    pub(super) fn check(&self, listen: SocketAddr, admin: Option<SocketAddr>) -> Result<(), Conflict> {
        if self.certificate_files.len() != self.key_files.len() {
            return Err(Conflict::TlsFilesUnpaired {
                certificates: self.certificate_files.len(),
                keys: self.key_files.len(),
            });
        }
        if self.is_used() && self.certificate_files.is_empty() {
            return Err(Conflict::TlsWithoutCertificate);
        }
        if (self.client_auth != ClientAuth::Off) != self.client_ca_file.is_some() {
            return Err(Conflict::TlsClientAuthUnpaired);
        }
        if let Some(address) = self.listen
            && address.port() != 0
        {
            if address == listen {
                return Err(Conflict::TlsOnSameAddress(address));
            }
            if Some(address) == admin {
                return Err(Conflict::TlsOnAdminAddress(address));
            }
        }
        Ok(())
    }
}
