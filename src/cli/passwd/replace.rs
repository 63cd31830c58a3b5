//! A file that is changed as a whole: who reads it sees the old text or the new one, also after a crash.
//!
//! The new text goes to a new file in the same directory, which is synced and then takes the name. A link stays one:
//! the file that it points to is replaced. Two that change the same file wait for each other, so that neither loses the
//! other's change.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// A file that is to be replaced.
pub(super) struct Target {
    /// Where it really is.
    path: PathBuf,
    text: Vec<u8>,
    /// The file as it is, locked; `None` if there is none.
    old: Option<File>,
}

/// What a replacement changed besides the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The owner, who cannot be kept.
    Owner,
    /// Who may read it.
    Mode(u32),
}

impl Target {
    /// The file that is there.
    pub(super) fn open(path: &Path) -> io::Result<Target> {
        let path = fs::canonicalize(path)?;
        let mut old = locked(&path)?;
        let mut text = Vec::new();
        (&mut old).take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|count| count > FILE_BYTES_MAX) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Target {
            path,
            text,
            old: Some(old),
        })
    }

    /// An empty one in the place of whatever file is there.
    pub(super) fn create(path: &Path) -> io::Result<Target> {
        let text = Vec::new();
        match fs::canonicalize(path) {
            Ok(path) => {
                let old = Some(locked(&path)?);
                Ok(Target { path, text, old })
            }
            // Not a link to nowhere, which would lose its place in the name of somebody else's file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
                let path = directory(path).canonicalize()?.join(name(path)?);
                Ok(Target {
                    path,
                    text,
                    old: None,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The text as it is.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Replaces it; what else changes.
    pub(super) fn replace(&self, text: &[u8]) -> io::Result<Option<Changed>> {
        let mut suffix = [0; 8];
        getrandom::fill(&mut suffix).map_err(io::Error::other)?;
        let mut temporary = OsString::from(".");
        temporary.push(name(&self.path)?);
        temporary.push(format!(".{:016x}.tmp", u64::from_ne_bytes(suffix)));
        let temporary = self.path.with_file_name(temporary);
        let changed = self.write(&temporary, text).inspect_err(|_| {
            // It may not have come into being.
            let _ = fs::remove_file(&temporary);
        })?;
        // The name is on the disk when its directory is.
        File::open(directory(&self.path))?.sync_all()?;
        Ok(changed)
    }

    fn write(&self, temporary: &Path, text: &[u8]) -> io::Result<Option<Changed>> {
        let mut new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(temporary)?;
        let old = self.old.as_ref().map(File::metadata).transpose()?;
        let mut changed = None;
        if let Some(old) = &old {
            changed = keep(old, &new)?;
        }
        new.write_all(text)?;
        new.sync_all()?;
        fs::rename(temporary, &self.path)?;
        Ok(changed)
    }
}

/// Gives the new file the owner and the group of the old one, and lets the group read it if it could and others could
/// not: somebody has thought about that one, while a file that all can read was made with a usual umask.
fn keep(old: &Metadata, new: &File) -> io::Result<Option<Changed>> {
    let ours = new.metadata()?;
    let same_owner = (old.uid(), old.gid()) == (ours.uid(), ours.gid());
    if !same_owner && fchown(new, Some(old.uid()), Some(old.gid())).is_err() {
        return Ok(Some(Changed::Owner));
    }
    let mode = old.mode() & 0o777;
    if mode & 0o007 == 0 && mode & 0o040 != 0 {
        new.set_permissions(fs::Permissions::from_mode(PRIVATE | 0o040))?;
        return Ok(None);
    }
    Ok((mode & !PRIVATE != 0).then_some(Changed::Mode(mode)))
}

/// Opens the file of this name, when nobody else is about to replace it.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        // A pipe would wait for its other end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        file.lock()?;
        let (opened, named) = (file.metadata()?, fs::metadata(path)?);
        if (opened.dev(), opened.ino()) == (named.dev(), named.ino()) {
            return Ok(file);
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn name(path: &Path) -> io::Result<&std::ffi::OsStr> {
    path.file_name().ok_or_else(|| io::ErrorKind::IsADirectory.into())
}

impl std::fmt::Display for Changed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Changed::Owner => formatter.write_str("the owner could not be kept: the file is yours now"),
            Changed::Mode(before) => {
                write!(
                    formatter,
                    "its mode was {before:o} and is {PRIVATE:o} now: only its owner may read it"
                )
            }
        }
    }
}

/// Read and written by the owner alone.
const PRIVATE: u32 = 0o600;
/// As much as a server reads.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
