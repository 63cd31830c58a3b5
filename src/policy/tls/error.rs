//! Why there is no TLS.

use std::fmt;
use std::path::PathBuf;

/// Why TLS cannot be spoken as configured: each is one line that names the file and what to do.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// Its name.
        file: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// A file that is not PEM.
    Pem {
        /// Its name.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// No certificate in the file.
    NoCertificate {
        /// Its name.
        file: PathBuf,
    },
    /// No private key in the file, or one of a kind that is not known.
    Key {
        /// Its name.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A certificate that cannot be read.
    Certificate {
        /// The name of its file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The key is not that of the certificate.
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// An authority for clients that is none.
    Authority {
        /// The name of its file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The server has begun with TLS, and is to go on without.
    StillSpoken,
    /// The cryptography cannot be used.
    System(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::StillSpoken => formatter.write_str(
                "TLS: this server listens with it, and cannot stop that while it runs: restart it, or set listen_tls, tls_listen or admin_tls as before",
            ),
            TlsError::Unreadable { file, cause } => write!(
                formatter,
                "TLS: {}: cannot be read: {cause}; name a file that this process may read",
                file.display()
            ),
            TlsError::Pem { file, cause } => write!(
                formatter,
                "TLS: {}: is no PEM file: {cause}; convert it with openssl",
                file.display()
            ),
            TlsError::NoCertificate { file } => write!(
                formatter,
                "TLS: {}: has no certificate (a section BEGIN CERTIFICATE); name the file of the certificate and its chain",
                file.display()
            ),
            TlsError::Key { file, cause } => write!(
                formatter,
                "TLS: {}: has no private key that can be used: {cause}; name the file of an unencrypted RSA, ECDSA or Ed25519 key",
                file.display()
            ),
            TlsError::Certificate { file, cause } => write!(
                formatter,
                "TLS: {}: the first certificate cannot be used: {cause}; put the server's own first, then its chain",
                file.display()
            ),
            TlsError::Mismatch { certificate, key } => write!(
                formatter,
                "TLS: {} is not the key of {}: name files that belong together, in the same order, in tls_key_files and tls_certificate_files",
                key.display(),
                certificate.display()
            ),
            TlsError::Authority { file, cause } => write!(
                formatter,
                "TLS: {}: no authority for clients' certificates: {cause}; name a PEM file of certificates of authorities",
                file.display()
            ),
            TlsError::System(error) => write!(formatter, "TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
