//! TLS: where it is spoken, and with which certificates.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Conflict;
use super::form::{PEM_FILE, PEM_FILES, address_or_off, word, words};
use super::settings::settings;

settings! {
    /// TLS: where it is spoken, and with which certificates.
    tls: Tls {
        /// What `listen` speaks: plain connections (`off`), TLS (`only`), or both on the one port (`shared`).
        on_listen: OnListen = OnListen::Off, "listen_tls", word();

        /// One more address for clients, where only TLS is spoken, or `off`.
        listen: Option<SocketAddr> = None, "tls_listen",
            address_or_off("off, or an address with a port, such as 0.0.0.0:8443");

        /// PEM files of certificates, each with its chain, separated by commas. A client gets the certificate for the
        /// name that it asks for, else the first.
        certificate_files: Vec<PathBuf> = Vec::new(), "tls_certificate_files", PEM_FILES, on reload;

        /// PEM files of the private keys of `tls_certificate_files`, in the same order, separated by commas.
        key_files: Vec<PathBuf> = Vec::new(), "tls_key_files", PEM_FILES, on reload;

        /// Whether clients present certificates of their own, whose subjects become their claims: `off`, `optional` or
        /// `required`.
        client_auth: ClientAuth = ClientAuth::Off, "tls_client_auth", word(), on reload;

        /// PEM file of the authorities that must have issued the clients' certificates.
        client_ca_file: Option<PathBuf> = None, "tls_client_ca_file", PEM_FILE, on reload;

        /// Whether the control plane speaks TLS, with the same certificates.
        admin: bool = false, "admin_tls", word();
    }
}

/// Whether the address for clients speaks TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnListen {
    /// Plain connections only.
    #[default]
    Off,
    /// TLS with clients that begin a TLS handshake, plain connections with others.
    Shared,
    /// TLS only; the answer to a plain request says so.
    Only,
}

words! {
    OnListen, Text, "off, shared or only":
    "off" => Off, "shared" => Shared, "only" => Only,
}

/// Whether clients present certificates of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// The server does not ask for a certificate.
    #[default]
    Off,
    /// The server asks, and a client may have none; one that is presented must be valid.
    Optional,
    /// A client without a valid certificate is refused.
    Required,
}

words! {
    ClientAuth, Text, "off, optional or required":
    "off" => Off, "optional" => Optional, "required" => Required,
}

impl Tls {
    /// Whether anything of this section speaks TLS; [`Config::speaks_tls`](super::Config::speaks_tls) knows the others.
    pub fn is_used(&self) -> bool {
        self.on_listen != OnListen::Off || self.listen.is_some() || self.admin
    }

    /// Finds settings that do not go together.
    pub(super) fn conflicts(
        &self,
        listen: SocketAddr,
        admin: Option<SocketAddr>,
        is_used: bool,
        conflicts: &mut Vec<Conflict>,
    ) {
        if self.certificate_files.len() != self.key_files.len() {
            conflicts.push(Conflict::TlsFilesUnpaired {
                certificates: self.certificate_files.len(),
                keys: self.key_files.len(),
            });
        } else if is_used && self.certificate_files.is_empty() {
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
    fn a_plain_port_beside_client_certificates_and_unused_certificates_are_warned_about() {
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
