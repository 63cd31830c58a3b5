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

    /// Finds settings that do not go together.
    pub(super) fn conflicts(
        &self,
        listen: SocketAddr,
        admin: Option<SocketAddr>,
        conflicts: &mut Vec<Conflict>,
    ) {
        if self.certificate_files.len() != self.key_files.len() {
            conflicts.push(Conflict::TlsFilesUnpaired {
                certificates: self.certificate_files.len(),
                keys: self.key_files.len(),
            });
        } else if self.is_used() && self.certificate_files.is_empty() {
            conflicts.push(Conflict::TlsWithoutCertificate);
        }
        if (self.client_auth != ClientAuth::Off) != self.client_ca_file.is_some() {
            conflicts.push(Conflict::TlsClientAuthUnpaired);
        }
        if let Some(address) = self.listen
            && address.port() != 0
        {
            if address == listen {
                conflicts.push(Conflict::TlsOnSameAddress(address));
            } else if Some(address) == admin {
                conflicts.push(Conflict::TlsOnAdminAddress(address));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Warning};

    fn used() -> Config {
        let mut config = Config::default();
        config.tls.on_listen = OnListen::Only;
        config.tls.certificate_files = vec!["certificate".into()];
        config.tls.key_files = vec!["key".into()];
        config
    }

    #[test]
    fn settings_that_cannot_go_together_are_refused() {
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(used().check(), Ok(()));
        let refused = |change: fn(&mut Config)| {
            let mut config = used();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert_eq!(
            refused(|config| config.tls.key_files.push("another".into())),
            Conflict::TlsFilesUnpaired {
                certificates: 1,
                keys: 2
            }
        );
        let without_files = |config: &mut Config| {
            config.tls.certificate_files.clear();
            config.tls.key_files.clear();
        };
        assert_eq!(refused(without_files), Conflict::TlsWithoutCertificate);
        for change in [
            |config: &mut Config| config.tls.client_auth = ClientAuth::Optional,
            |config: &mut Config| config.tls.client_ca_file = Some("authorities".into()),
        ] {
            assert_eq!(refused(change), Conflict::TlsClientAuthUnpaired);
        }
        assert!(matches!(
            refused(|config| config.tls.listen = Some(config.listen.address)),
            Conflict::TlsOnSameAddress(_)
        ));
        assert!(matches!(
            refused(|config| config.tls.listen = config.admin.address),
            Conflict::TlsOnAdminAddress(_)
        ));
        // Two ports that the system chooses are two.
        let mut config = used();
        config.listen.address.set_port(0);
        config.tls.listen = Some(config.listen.address);
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn a_back_door_and_certificates_for_nobody_are_doubtful() {
        let mut config = used();
        config.tls.client_auth = ClientAuth::Required;
        config.tls.client_ca_file = Some("authorities".into());
        let warnings = |config: &Config| config.warnings(&[0]);
        assert!(!warnings(&config).contains(&Warning::PlainBesideClientAuth));
        config.tls.on_listen = OnListen::Shared;
        assert!(warnings(&config).contains(&Warning::PlainBesideClientAuth));
        config.tls.client_auth = ClientAuth::Optional;
        assert!(!warnings(&config).contains(&Warning::PlainBesideClientAuth));
        assert!(!warnings(&config).contains(&Warning::TlsUnused));
        config.tls.on_listen = OnListen::Off;
        assert!(warnings(&config).contains(&Warning::TlsUnused));
    }
}
