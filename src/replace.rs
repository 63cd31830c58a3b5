//! Replaces the contents of a file as a whole: readers see the old text or the new one, also after a crash.
//!
//! All files that this program rewrites go through here: password files (`ringcast passwd`) and revocations.
//!
//! | the file is | then |
//! |---|---|
//! | an ordinary file, or a link to one | the new text goes to a new file beside it, which is synced and renamed over it; a link stays a link |
//! | a file that cannot be replaced by renaming: a mount of its own, or in a directory without write permission | it is written in place, and the caller gets a remark |
//! | a link without target, a device, a pipe | it is refused |
//!
//! Invariants
//! 1. Nothing is written through a name that another user could have created: the temporary name is random
//!    and must be new (`O_EXCL`), and a file that is written in place is the one that was locked.
//! 2. A full disk leaves the old text. In place, the part that makes the file longer is written and synced
//!    first, and if anything fails, the old text is written back.
//! 3. Two processes that change the same file wait for each other (`flock`), so that no change is lost. The
//!    lock is on the file that has the name at that time: after a replacement the next process opens the name
//!    again.
//! 4. A reader that uses [`read`] never sees half of a file that is written in place, since [`read`] takes
//!    the lock as well.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::libc;
use zeroize::Zeroizing;

/// A file that is to be replaced, locked while the value lives.
pub(crate) struct ReplacedFile {
    /// Its path, with links resolved.
    path: PathBuf,
    text: Zeroizing<Vec<u8>>,
    /// The present file, locked; `None` if there is none.
    old: Option<File>,
}

/// Something that the user should know about a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplaceWarning {
    /// The owner could not be kept.
    Owner,
    /// Others could read or write the file before. Contains its former mode.
    Mode(u32),
    /// The file was written in place because of this error (`errno`).
    InPlace(i32),
}

impl ReplacedFile {
    /// Opens the present file.
    pub(crate) fn open(path: &Path, bytes_max: u64) -> io::Result<ReplacedFile> {
        let path = fs::canonicalize(path)?;
        let old = locked(&path)?;
        let text = read_all(&old, bytes_max)?;
        Ok(ReplacedFile {
            path,
            text,
            old: Some(old),
        })
    }

    /// Opens the present file, or an empty one that does not exist yet.
    pub(crate) fn open_or_create(path: &Path, bytes_max: u64) -> io::Result<ReplacedFile> {
        match ReplacedFile::open(path, bytes_max) {
            // A link without target is refused: a new file in its place would not be the one that the link is
            // for.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
                let path = directory(path).canonicalize()?.join(name(path)?);
                Ok(ReplacedFile {
                    path,
                    text: Zeroizing::default(),
                    old: None,
                })
            }
            other => other,
        }
    }

    /// Starts with an empty text, whatever file is there.
    pub(crate) fn create(path: &Path, bytes_max: u64) -> io::Result<ReplacedFile> {
        Ok(ReplacedFile {
            text: Zeroizing::default(),
            ..ReplacedFile::open_or_create(path, bytes_max)?
        })
    }

    /// The present text.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The path, with links resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the text; returns a remark, if there is one.
    pub(crate) fn replace(&self, text: &[u8]) -> io::Result<Option<ReplaceWarning>> {
        match self.replace_by_rename(text) {
            Err(error) if self.old.is_some() && cannot_be_replaced_by_rename(&error) => {
                self.write_in_place(text)?;
                Ok(Some(ReplaceWarning::InPlace(
                    error.raw_os_error().unwrap_or_default(),
                )))
            }
            other => other,
        }
    }

    fn replace_by_rename(&self, text: &[u8]) -> io::Result<Option<ReplaceWarning>> {
        let temporary = self.path.with_file_name(temporary_name(name(&self.path)?)?);
        let mut new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(&temporary)?;
        let written = self.write_and_rename(&mut new, &temporary, text);
        if written.is_err() {
            // The temporary file is useless now; it does no harm if it cannot be removed.
            let _ = fs::remove_file(&temporary);
        }
        let remark = written?;
        // The new name is on the disk once its directory is synced.
        File::open(directory(&self.path))?.sync_all()?;
        Ok(remark)
    }

    fn write_and_rename(
        &self,
        new: &mut File,
        temporary: &Path,
        text: &[u8],
    ) -> io::Result<Option<ReplaceWarning>> {
        let old = self.old.as_ref().map(File::metadata).transpose()?;
        let mut remark = None;
        if let Some(old) = &old {
            remark = keep_owner_and_mode(old, new)?;
        }
        new.write_all(text)?;
        new.sync_all()?;
        fs::rename(temporary, &self.path)?;
        Ok(remark)
    }

    fn write_in_place(&self, text: &[u8]) -> io::Result<()> {
        let Some(old) = &self.old else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.path)?;
        if !same_file(old, &file.metadata()?)? {
            return Err(io::Error::other("it has been replaced meanwhile: try again"));
        }
        // Read again, since `create` starts with an empty text.
        let before = read_all(old, u64::MAX - 1)?;
        overwrite(&file, &before, text)
    }
}

/// Reads a file that [`ReplacedFile::replace`] replaces: its text and its mode. Refuses a file of more than
/// `bytes_max`, and anything that is not a regular file.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    // Opening a pipe would wait for its other end, and so would a reload.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    // A process that holds the lock for long can only delay this.
    let _ = wait_for(|| file.try_lock_shared(), READ_LOCK_TRIES_MAX);
    let mode = file.metadata()?.permissions().mode();
    Ok((read_all(&file, bytes_max)?, mode))
}

/// Appends a line, given without its line break. The line is on the disk when this returns. A missing file is
/// created. If the last line has no line break, one is added first. Links are not followed.
pub(crate) fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let file = loop {
        let file = append_to(path)?;
        wait_for(|| file.try_lock(), WRITE_LOCK_TRIES_MAX)?;
        if same_file(&file, &fs::symlink_metadata(path)?)? {
            break file;
        }
    };
    let before = file.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(at) = before.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    let end: &[u8] = if last == [b'\n'] { b"" } else { b"\n" };
    let written = (&file)
        .write_all(&[end, line, b"\n"].concat())
        .and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a line would become the beginning of the next one.
        let _ = file.set_len(before);
    }
    written
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .mode(PRIVATE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = options.create(true).open(path)?;
            File::open(directory(path))?.sync_all()?;
            file
        }
        other => other?,
    };
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Overwrites the text of a file in place, so that a full disk leaves the old text.
fn overwrite(file: &File, before: &[u8], text: &[u8]) -> io::Result<()> {
    let overwritten = extend(file, before, text).and_then(|()| {
        file.write_all_at(&text[..text.len().min(before.len())], 0)?;
        file.set_len(text.len() as u64)?;
        file.sync_all()
    });
    if overwritten.is_err() {
        // The blocks of the old text still exist. If this fails too, the first error is reported.
        let _ = file.write_all_at(before, 0);
        let _ = file.set_len(before.len() as u64);
        let _ = file.sync_all();
    }
    overwritten
}

/// Writes the part of a text that makes its file longer: the only part that may find no room.
fn extend(file: &File, before: &[u8], text: &[u8]) -> io::Result<()> {
    match text.get(before.len()..) {
        Some(more) if !more.is_empty() => {
            file.write_all_at(more, before.len() as u64)?;
            // Some file systems report a full disk only here.
            file.sync_all()
        }
        Some(_) | None => Ok(()),
    }
}

/// True if the error means that the file exists but cannot be replaced by renaming: a mount of its own
/// (EBUSY, EXDEV), or a directory in which no file can be created (EROFS, EACCES, EPERM).
fn cannot_be_replaced_by_rename(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EXDEV | libc::EROFS | libc::EACCES | libc::EPERM)
    )
}

/// An unpredictable name for a temporary file beside the file.
fn temporary_name(name: &std::ffi::OsStr) -> io::Result<OsString> {
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(io::Error::other)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.tmp", u64::from_ne_bytes(suffix)));
    Ok(temporary)
}

/// Gives the new file the owner and the group of the old one. The group keeps its read permission if others
/// had none: that was a decision, while a file that all can read was just made with the usual umask.
fn keep_owner_and_mode(old: &Metadata, new: &File) -> io::Result<Option<ReplaceWarning>> {
    let ours = new.metadata()?;
    let same_owner = (old.uid(), old.gid()) == (ours.uid(), ours.gid());
    if !same_owner && fchown(new, Some(old.uid()), Some(old.gid())).is_err() {
        return Ok(Some(ReplaceWarning::Owner));
    }
    let mode = old.mode() & 0o777;
    if mode & 0o007 == 0 && mode & 0o040 != 0 {
        new.set_permissions(fs::Permissions::from_mode(PRIVATE | 0o040))?;
        return Ok(None);
    }
    Ok((mode & !PRIVATE != 0).then_some(ReplaceWarning::Mode(mode)))
}

/// Opens and locks the file with this name; repeats that if another process has replaced it meanwhile.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        // Opening a pipe would wait for its other end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        wait_for(|| file.try_lock(), WRITE_LOCK_TRIES_MAX)?;
        if same_file(&file, &fs::metadata(path)?)? {
            return Ok(file);
        }
    }
}

/// Waits for a lock. It is normally held only while a file is written; a hostile process may hold it for
/// longer.
fn wait_for(mut lock: impl FnMut() -> Result<(), TryLockError>, tries_max: u32) -> io::Result<()> {
    for _ in 0..tries_max {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY_EVERY),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::WouldBlock,
        "another process holds its lock (flock): try again when that process has ended",
    ))
}

fn same_file(file: &File, other: &Metadata) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()) == (other.dev(), other.ino()))
}

/// Reads a whole file into one allocation: a growing buffer would leave copies behind.
fn read_all(mut file: &File, bytes_max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = file.metadata()?.len();
    if length > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let capacity = usize::try_from(length).unwrap_or(0) + READ_SPARE_BYTES;
    let mut text = Zeroizing::new(Vec::with_capacity(capacity));
    io::Seek::rewind(&mut file)?;
    file.take(bytes_max + 1).read_to_end(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// The directory of a path, also of a path that is only a name.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn name(path: &Path) -> io::Result<&std::ffi::OsStr> {
    path.file_name().ok_or_else(|| io::ErrorKind::IsADirectory.into())
}

impl std::fmt::Display for ReplaceWarning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReplaceWarning::Owner => {
                formatter.write_str("the owner could not be kept: the file now belongs to you")
            }
            ReplaceWarning::Mode(before) => {
                write!(
                    formatter,
                    "its mode was {before:o} and is {PRIVATE:o} now: only its owner may read it"
                )
            }
            ReplaceWarning::InPlace(errno) => write!(
                formatter,
                "written in place, since no other file can take its name ({}): a crash meanwhile could have \
                 damaged it; its owner and mode are unchanged",
                io::Error::from_raw_os_error(*errno)
            ),
        }
    }
}

/// Readable and writable only by the owner.
const PRIVATE: u32 = 0o600;
/// Spare room, so that the end of the file is found without another allocation.
const READ_SPARE_BYTES: usize = 64;
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(5);
/// Five seconds: a file is written in milliseconds.
const WRITE_LOCK_TRIES_MAX: u32 = 1000;
/// Half a second: a reader can go on without the lock.
const READ_LOCK_TRIES_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(name: &str, text: &[u8]) -> (PathBuf, File) {
        let path = std::env::temp_dir().join(format!("ringcast-replace-{name}-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        (path, file)
    }

    #[test]
    fn a_text_is_written_over_a_longer_and_a_shorter_one() {
        for (before, text) in [
            (&b"long text"[..], &b"short"[..]),
            (b"short", b"long text"),
            (b"same", b"size"),
            (b"", b"new"),
            (b"old", b""),
        ] {
            let (path, file) = file_with("over", before);
            overwrite(&file, before, text).unwrap();
            assert_eq!(fs::read(&path).unwrap(), text);
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_reader_waits_for_a_lock_and_not_for_ever() {
        let (path, file) = file_with("locked", b"text");
        file.lock().unwrap();
        // Any process can hold the lock, not only writers.
        assert_eq!(&**read(&path, 4).unwrap().0, b"text");
        let other = File::open(&path).unwrap();
        let error = wait_for(|| other.try_lock(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(file);
        assert!(wait_for(|| other.try_lock(), 1000).is_ok());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_line_is_appended_after_complete_lines_and_not_through_a_link() {
        let (path, _) = file_with("append", b"one\ntwo");
        append(&path, b"three").unwrap();
        append(&path, b"four").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthree\nfour\n");
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(append(&link, b"five").is_err());
        fs::remove_file(&link).unwrap();
        append(&link, b"first").unwrap();
        assert_eq!(fs::metadata(&link).unwrap().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read(&link).unwrap(), b"first\n");
        for path in [path, link] {
            fs::remove_file(path).unwrap();
        }
        assert!(append(Path::new("/dev/null"), b"x").is_err());
    }

    #[test]
    fn a_file_that_cannot_be_renamed_is_distinguished_from_a_full_disk() {
        for (errno, in_place) in [
            (libc::EBUSY, true),
            (libc::EXDEV, true),
            (libc::EROFS, true),
            (libc::EACCES, true),
            (libc::ENOSPC, false),
            (libc::EDQUOT, false),
            (libc::EIO, false),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(cannot_be_replaced_by_rename(&error), in_place, "{error}");
        }
    }
}
