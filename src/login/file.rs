//! Reads the password file, for the server at its start and on SIGHUP, and for `ringcast check`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::auth::passwords::{FileFault, PasswordFile, Users};
use crate::replace;

/// Reads all users' passwords, and finds doubtful things about the file.
///
/// # Errors
/// The file cannot be read, or a line of it is wrong; then no password is taken from it.
pub fn read(file: &Path) -> Result<(Users, Vec<PasswordFileWarning>), PasswordFileError> {
    let failed = |cause| PasswordFileError {
        file: file.to_owned(),
        cause,
    };
    let (bytes, mode) =
        replace::read(file, FILE_BYTES_MAX).map_err(|error| failed(Cause::Unreadable(error)))?;
    let parsed = PasswordFile::parse(&bytes).map_err(|fault| failed(Cause::Fault(fault)))?;
    let users = parsed.users().map_err(|fault| failed(Cause::Fault(fault)))?;
    let mut warnings = Vec::new();
    if mode & 0o007 != 0 {
        warnings.push(PasswordFileWarning::OpenToOthers(file.to_owned()));
    }
    Ok((users, warnings))
}

/// Largest password file: half a million users, whose table takes twice this much memory.
pub(crate) const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a password file cannot be used.
#[derive(Debug)]
pub struct PasswordFileError {
    file: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Unreadable(io::Error),
    Fault(FileFault),
}

/// Something about a password file that is legal but probably not intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordFileWarning {
    /// All users of this machine can copy the hashes, or write hashes of their own.
    OpenToOthers(PathBuf),
}

impl fmt::Display for PasswordFileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.cause {
            Cause::Unreadable(error) => write!(
                formatter,
                "password_file: {file} cannot be read: {error}{}",
                match error.kind() {
                    io::ErrorKind::NotFound => "; `ringcast passwd -c FILE USER` creates one",
                    _ => "",
                }
            ),
            Cause::Fault(fault) => write!(formatter, "password_file: {file}: {fault}"),
        }
    }
}

impl std::error::Error for PasswordFileError {}

impl fmt::Display for PasswordFileWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordFileWarning::OpenToOthers(file) => write!(
                formatter,
                "password_file: {0} is open to every user of this machine: chmod 600 {0}",
                file.display()
            ),
        }
    }
}
