//! Opens text files for [`crate::text`]: the one place where a file that an operator wrote is read.
//!
//! Limits: each caller names the largest file that it takes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::text;

/// A text file: see [`text::decode`].
///
/// # Errors
/// It cannot be opened, is larger than `bytes_max`, or is not text; then the error names the line.
pub(crate) fn read(file: &Path, bytes_max: u64) -> io::Result<String> {
    let bytes = read_bytes(file, bytes_max)?;
    let text = text::decode(&bytes).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
    Ok(text.to_owned())
}

/// A PEM file: see [`text::decode_pem`].
///
/// # Errors
/// As [`read`].
pub(crate) fn read_pem(file: &Path) -> io::Result<Vec<u8>> {
    let bytes = read_bytes(file, PEM_BYTES_MAX)?;
    text::decode_pem(&bytes).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
}

fn read_bytes(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|count| count > bytes_max) {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {bytes_max} bytes"),
        ));
    }
    Ok(bytes)
}

/// Largest configuration file: a thousand rules have a tenth of this.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Largest secret in a file of its own.
pub(crate) const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Largest file of keys or certificates: all authorities of a system have half a megabyte.
const PEM_BYTES_MAX: u64 = 16 * 1024 * 1024;
