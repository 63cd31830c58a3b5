//! The server's certificates, and the choice of the certificate for a client (RFC 6066 section 3).
//!
//! The server shows the first certificate that has the requested name, or a wildcard for it, and whose key
//! type the client supports. So an RSA certificate may follow an ECDSA one for the same name. If no
//! certificate has the name, the first with a supported key type is shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{TlsError, certificates_in, read};

/// All certificates of the server, at least one.
#[derive(Debug)]
pub(super) struct Certificates(Vec<Certificate>);

#[derive(Debug)]
struct Certificate {
    file: PathBuf,
    key_file: PathBuf,
    /// In lower case; some begin with `*.`.
    names: Vec<String>,
    not_before_unix_s: i64,
    not_after_unix_s: i64,
    key_is_open: bool,
    certified: Arc<CertifiedKey>,
}

impl Certificates {
    /// Reads pairs of a certificate file and its key file.
    pub(super) fn read<'f>(
        files: impl Iterator<Item = (&'f PathBuf, &'f PathBuf)>,
        provider: &CryptoProvider,
    ) -> Result<Certificates, TlsError> {
        files
            .map(|(file, key_file)| Certificate::read(file, key_file, provider))
            .collect::<Result<_, _>>()
            .map(Certificates)
    }

    /// When the first of them expires.
    pub(super) fn not_after_unix_s(&self) -> i64 {
        let ends = self.0.iter().map(|certificate| certificate.not_after_unix_s);
        ends.min().unwrap_or(i64::MAX)
    }

    pub(super) fn warnings(&self, unix_ms: u64) -> Vec<String> {
        let now = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
        self.0
            .iter()
            .flat_map(|certificate| certificate.warnings(now))
            .collect()
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Certificate> {
        let suits = |certificate: &&Certificate| certificate.certified.key.choose_scheme(schemes).is_some();
        let name = name.map(str::to_ascii_lowercase);
        let named = name.as_deref().and_then(|name| {
            let exact = self.0.iter().filter(|certificate| certificate.has_name(name));
            let by_wildcard = self.0.iter().filter(|certificate| certificate.has_wildcard(name));
            exact.chain(by_wildcard).find(suits)
        });
        named
            .or_else(|| self.0.iter().find(suits))
            .or_else(|| self.0.first())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(hello.server_name(), hello.signature_schemes())?;
        Some(Arc::clone(&chosen.certified))
    }
}

impl Certificate {
    fn read(file: &Path, key_file: &Path, provider: &CryptoProvider) -> Result<Certificate, TlsError> {
        let chain = certificates_in(file)?;
        let unusable = |cause: String| TlsError::Certificate {
            file: file.to_owned(),
            cause,
        };
        let own = chain[0].clone();
        let (_, own) = X509Certificate::from_der(&own).map_err(|error| unusable(error.to_string()))?;
        let names = own
            .subject_alternative_name()
            .map_err(|error| unusable(error.to_string()))?
            .map_or_else(Vec::new, |extension| dns_names(&extension.value.general_names));
        let key = PrivateKeyDer::from_pem_slice(&read(key_file)?).map_err(|error| TlsError::Key {
            file: key_file.to_owned(),
            cause: error.to_string(),
        })?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| TlsError::Key {
                file: key_file.to_owned(),
                cause: error.to_string(),
            })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                return Err(TlsError::Mismatch {
                    certificate: file.to_owned(),
                    key: key_file.to_owned(),
                });
            }
            Err(error) => return Err(unusable(error.to_string())),
        }
        Ok(Certificate {
            file: file.to_owned(),
            key_file: key_file.to_owned(),
            names,
            not_before_unix_s: own.validity().not_before.timestamp(),
            not_after_unix_s: own.validity().not_after.timestamp(),
            key_is_open: fs::metadata(key_file)
                .is_ok_and(|file| file.permissions().mode() & OPEN_TO_OTHERS != 0),
            certified: Arc::new(certified),
        })
    }

    fn has_name(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// A wildcard stands for one label (RFC 6125 section 6.4.3).
    fn has_wildcard(&self, name: &str) -> bool {
        let Some((_, parent)) = name.split_once('.') else {
            return false;
        };
        self.names
            .iter()
            .any(|own| own.strip_prefix("*.") == Some(parent))
    }

    fn warnings(&self, now_unix_s: i64) -> Vec<String> {
        let mut warnings = Vec::new();
        let file = self.file.display();
        if self.not_after_unix_s < now_unix_s {
            warnings.push(format!(
                "tls_certificate_files: {file} has expired, {}: clients will refuse it; replace it and send \
                 SIGHUP",
                ago(now_unix_s - self.not_after_unix_s)
            ));
        } else if self.not_before_unix_s > now_unix_s {
            warnings.push(format!(
                "tls_certificate_files: {file} is not valid yet: clients will refuse it; check this \
                 machine's clock"
            ));
        } else if self.not_after_unix_s - now_unix_s < ENDS_SOON_S {
            warnings.push(format!(
                "tls_certificate_files: {file} expires in {} days: replace it and send SIGHUP",
                (self.not_after_unix_s - now_unix_s) / DAY_S
            ));
        }
        if self.key_is_open {
            let file = self.key_file.display();
            warnings.push(format!(
                "tls_key_files: {file} can be read by others than its owner: chmod 600 {file}"
            ));
        }
        warnings
    }
}

fn dns_names(names: &[GeneralName<'_>]) -> Vec<String> {
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        // A client can only request DNS names (RFC 6066 section 3).
        _ => None,
    });
    dns.collect()
}

fn ago(seconds: i64) -> String {
    match seconds / DAY_S {
        0 => "today".to_owned(),
        days => format!("{days} days ago"),
    }
}

/// Any right of the group or of others.
const OPEN_TO_OTHERS: u32 = 0o077;
const DAY_S: i64 = 86_400;
/// Programs that renew certificates do so some weeks before the end. If a certificate has not been renewed by
/// then, the renewal has failed.
const ENDS_SOON_S: i64 = 7 * DAY_S;
