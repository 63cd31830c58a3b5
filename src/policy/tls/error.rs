//! The errors of setting up TLS.

use std::fmt;
use std::path::PathBuf;

/// Why TLS cannot be set up as configured. Each error is one line that names the file and says what to do.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// The file's name.
        file: PathBuf,
        /// The system's error.
        cause: String,
    },
    /// A file is not PEM.
    Pem {
        /// The file's name.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A file contains no certificate.
    NoCertificate {
        /// The file's name.
        file: PathBuf,
    },
    /// A file contains no private key, or one of an unknown kind.
    Key {
        /// The file's name.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A certificate cannot be read.
    Certificate {
        /// The name of its file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The key does not belong to the certificate.
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// A certificate authority for clients cannot be used.
    Authority {
        /// The name of its file.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A reload would turn TLS off on a running server.
    TurnedOff,
    /// The cryptographic library reports an error.
    System(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::TurnedOff => formatter.write_str(
                "TLS: it cannot be turned off while the server runs: restart the server, or set listen_tls, \
                 tls_listen, mqtt_tls_listen or admin_tls as before",
            ),
            TlsError::Unreadable { file, cause } => write!(
                formatter,
                "TLS: {}: cannot be read: {cause}; name a file that this process may read",
                file.display()
            ),
            TlsError::Pem { file, cause } => write!(
                formatter,
                "TLS: {}: is not a PEM file: {cause}; convert it with openssl",
                file.display()
            ),
            TlsError::NoCertificate { file } => write!(
                formatter,
                "TLS: {}: contains no certificate (no section BEGIN CERTIFICATE); name the file of the \
                 certificate and its chain",
                file.display()
            ),
            TlsError::Key { file, cause } => write!(
                formatter,
                "TLS: {}: contains no usable private key: {cause}; name the file of an unencrypted RSA, \
                 ECDSA or Ed25519 key",
                file.display()
            ),
            TlsError::Certificate { file, cause } => write!(
                formatter,
                "TLS: {}: the first certificate cannot be used: {cause}; put the server's certificate first, \
                 then its chain",
                file.display()
            ),
            TlsError::Mismatch { certificate, key } => write!(
                formatter,
                "TLS: {} is not the key of {}: list files that belong together, in the same order, in \
                 tls_key_files and tls_certificate_files",
                key.display(),
                certificate.display()
            ),
            TlsError::Authority { file, cause } => write!(
                formatter,
                "TLS: {}: is not a certificate authority for clients: {cause}; name a PEM file with the \
                 certificates of the authorities",
                file.display()
            ),
            TlsError::System(error) => write!(formatter, "TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
