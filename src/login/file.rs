//! The password file on disk, for those who read it: the server at its start and on SIGHUP, and `ringcast check`.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::auth::passwords::{FileFault, PasswordFile, Users};

/// Reads everybody's passwords, and what is doubtful about the file.
///
/// # Errors
/// The file cannot be read, or an entry is damaged; then nobody's password is taken from it.
pub fn read(file: &Path) -> Result<(Users, Vec<Warning>), PasswordFileError> {
    let failed = |cause| PasswordFileError {
        file: file.to_owned(),
        cause,
    };
    let (bytes, mode) = read_bytes(file).map_err(|error| failed(Cause::Unreadable(error)))?;
    let parsed = PasswordFile::parse(&bytes).map_err(|fault| failed(Cause::Fault(fault)))?;
    let users = parsed.users().map_err(|fault| failed(Cause::Fault(fault)))?;
    let mut warnings = Vec::new();
    if mode & 0o007 != 0 {
        warnings.push(Warning::OpenToOthers(file.to_owned()));
    }
    let mut ignored = parsed.ignored_lines();
    if let Some(first) = ignored.next() {
        warnings.push(Warning::Ignored {
            file: file.to_owned(),
            first,
            more: ignored.count(),
        });
    }
    Ok((users, warnings))
}

fn read_bytes(file: &Path) -> io::Result<(Vec<u8>, u32)> {
    // A pipe would wait for its other end, and a reload with it.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(file)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|count| count > FILE_BYTES_MAX) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((bytes, metadata.permissions().mode()))
}

/// Largest password file: half a million users, whose table takes twice this.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a password file is not used.
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

/// What is legal about a password file but hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// All users of this machine can copy the hashes, or write their own.
    OpenToOthers(PathBuf),
    /// Lines that are no entries, no comments and not blank.
    Ignored {
        /// The file.
        file: PathBuf,
        /// The first of them, counted from 1.
        first: usize,
        /// How many follow.
        more: usize,
    },
}

impl fmt::Display for PasswordFileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.cause {
            Cause::Unreadable(error) => write!(
                formatter,
                "password_file: {file} cannot be read: {error}{}",
                match error.kind() {
                    io::ErrorKind::NotFound => "; `ringcast passwd -c FILE USER` makes one",
                    _ => "",
                }
            ),
            Cause::Fault(fault) => write!(formatter, "password_file: {file}: {fault}"),
        }
    }
}

impl std::error::Error for PasswordFileError {}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::OpenToOthers(file) => write!(
                formatter,
                "password_file: {0} is open to every user of this machine: chmod 600 {0}",
                file.display()
            ),
            Warning::Ignored { file, first, more } => write!(
                formatter,
                "password_file: {}: line {first} is ignored, and {more} more: no ':' and no comment",
                file.display()
            ),
        }
    }
}
