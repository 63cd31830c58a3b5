//! A file that is changed as a whole: who reads it sees the old text or the new one, also after a crash.
//!
//! The one routine for all files that this program rewrites: password files (`ringcast passwd`) and revocations.
//!
//! | the file is | then |
//! |---|---|
//! | a usual one, or a link to one | the new text goes to a new file beside it, which is synced and takes the name; a link stays a link |
//! | one whose name no other file can take: a mount of its own, in a directory that may not be written | it is written in place, and the caller is told |
//! | a link to nothing, a device, a pipe | it is refused |
//!
//! Invariants
//! 1. Nothing is written through a name that somebody else could have made: the temporary name is random and must be
//!    new (`O_EXCL`), the file that is written in place is the one that was locked.
//! 2. A full disk leaves the old text. In place, the part that makes the file longer is written and synced first; if
//!    anything fails, the old text is written back.
//! 3. Two that change the same file wait for each other (`flock`), so that neither loses the other's change. The lock is
//!    on the file that has the name: after a replacement the next one looks again.
//! 4. A reader never sees half of a file that is written in place, if it reads by [`read`], which takes the lock as well.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::libc;
use zeroize::Zeroizing;

/// A file that is to be replaced, locked for as long as this lives.
pub(crate) struct Target {
    /// Where it really is.
    path: PathBuf,
    text: Zeroizing<Vec<u8>>,
    /// The file as it is, locked; `None` if there is none.
    old: Option<File>,
}

/// What a replacement changed besides the text, or how it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remark {
    /// The owner could not be kept.
    Owner,
    /// Others could read or write the file before; the mode that it had.
    Mode(u32),
    /// It was written in place, because of this error (`errno`).
    InPlace(i32),
}

impl Target {
    /// The file that is there.
    pub(crate) fn open(path: &Path, bytes_max: u64) -> io::Result<Target> {
        let path = fs::canonicalize(path)?;
        let old = locked(&path)?;
        let text = read_all(&old, bytes_max)?;
        Ok(Target {
            path,
            text,
            old: Some(old),
        })
    }

    /// The file that is there, or an empty one that is not there yet.
    pub(crate) fn open_or_create(path: &Path, bytes_max: u64) -> io::Result<Target> {
        match Target::open(path, bytes_max) {
            // Not a link to nowhere, which would lose its place in the name of somebody else's file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
                let path = directory(path).canonicalize()?.join(name(path)?);
                Ok(Target {
                    path,
                    text: Zeroizing::default(),
                    old: None,
                })
            }
            other => other,
        }
    }

    /// An empty file in the place of whatever file is there.
    pub(crate) fn create(path: &Path, bytes_max: u64) -> io::Result<Target> {
        Ok(Target {
            text: Zeroizing::default(),
            ..Target::open_or_create(path, bytes_max)?
        })
    }

    /// The text as it is.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Where it really is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces it; what else there is to say about that.
    pub(crate) fn replace(&self, text: &[u8]) -> io::Result<Option<Remark>> {
        match self.replace_by_another(text) {
            Err(error) if self.old.is_some() && no_other_can_take_its_name(&error) => {
                self.write_in_place(text)?;
                Ok(Some(Remark::InPlace(error.raw_os_error().unwrap_or_default())))
            }
            other => other,
        }
    }

    fn replace_by_another(&self, text: &[u8]) -> io::Result<Option<Remark>> {
        let temporary = self.path.with_file_name(temporary_name(name(&self.path)?)?);
        let mut new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(&temporary)?;
        let written = self.write_and_rename(&mut new, &temporary, text);
        if written.is_err() {
            // It is of no use to anybody, and harms nothing if it cannot be removed.
            let _ = fs::remove_file(&temporary);
        }
        let remark = written?;
        // The name is on the disk when its directory is.
        File::open(directory(&self.path))?.sync_all()?;
        Ok(remark)
    }

    fn write_and_rename(&self, new: &mut File, temporary: &Path, text: &[u8]) -> io::Result<Option<Remark>> {
        let old = self.old.as_ref().map(File::metadata).transpose()?;
        let mut remark = None;
        if let Some(old) = &old {
            remark = keep(old, new)?;
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
        // Read again: a target that is to be created has forgotten the text.
        let before = read_all(old, u64::MAX - 1)?;
        overwrite(&file, &before, text)
    }
}

/// Reads a file that is replaced by [`Target::replace`]: its text and its mode. A larger one than `bytes_max` is refused,
/// as is what is no file.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    // A pipe would wait for its other end, and a reload with it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    // Somebody who holds the lock for long can delay this, and no more.
    let _ = wait_for(|| file.try_lock_shared(), READ_LOCK_LOOKS_MAX);
    let mode = file.metadata()?.permissions().mode();
    Ok((read_all(&file, bytes_max)?, mode))
}

/// Adds a line, without its line break, at the end of a file; it is on the disk when this returns. A file that is not
/// there is made. One whose last line has no line break is given it first. A link is not followed.
pub(crate) fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let file = loop {
        let file = append_to(path)?;
        wait_for(|| file.try_lock(), WRITE_LOCK_LOOKS_MAX)?;
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
        // Half a line would be the beginning of the next.
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
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Writes a text over another in the same file, so that a disk which is full leaves the other.
fn overwrite(file: &File, before: &[u8], text: &[u8]) -> io::Result<()> {
    let overwritten = grow(file, before, text).and_then(|()| {
        file.write_all_at(&text[..text.len().min(before.len())], 0)?;
        file.set_len(text.len() as u64)?;
        file.sync_all()
    });
    if overwritten.is_err() {
        // Its blocks are still there. What fails here as well is told by the error before.
        let _ = file.write_all_at(before, 0);
        let _ = file.set_len(before.len() as u64);
        let _ = file.sync_all();
    }
    overwritten
}

/// Writes the part of a text that makes its file longer: the only one for which there may be no room.
fn grow(file: &File, before: &[u8], text: &[u8]) -> io::Result<()> {
    match text.get(before.len()..) {
        Some(more) if !more.is_empty() => {
            file.write_all_at(more, before.len() as u64)?;
            // Some file systems find out only now.
            file.sync_all()
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether an error says that the file may be there, but no other can take its name: a mount of its own (EBUSY, EXDEV),
/// a directory in which no file may be made (EROFS, EACCES, EPERM).
fn no_other_can_take_its_name(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EXDEV | libc::EROFS | libc::EACCES | libc::EPERM)
    )
}

/// A name that nobody can know, for a file beside the one of this name.
fn temporary_name(name: &std::ffi::OsStr) -> io::Result<OsString> {
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(io::Error::other)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.tmp", u64::from_ne_bytes(suffix)));
    Ok(temporary)
}

/// Gives the new file the owner and the group of the old one, and lets the group read it if it could and others could
/// not: somebody has thought about that one, while a file that all can read was made with a usual umask.
fn keep(old: &Metadata, new: &File) -> io::Result<Option<Remark>> {
    let ours = new.metadata()?;
    let same_owner = (old.uid(), old.gid()) == (ours.uid(), ours.gid());
    if !same_owner && fchown(new, Some(old.uid()), Some(old.gid())).is_err() {
        return Ok(Some(Remark::Owner));
    }
    let mode = old.mode() & 0o777;
    if mode & 0o007 == 0 && mode & 0o040 != 0 {
        new.set_permissions(fs::Permissions::from_mode(PRIVATE | 0o040))?;
        return Ok(None);
    }
    Ok((mode & !PRIVATE != 0).then_some(Remark::Mode(mode)))
}

/// Opens the file of this name, when nobody else is about to replace it.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        // A pipe would wait for its other end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        wait_for(|| file.try_lock(), WRITE_LOCK_LOOKS_MAX)?;
        if same_file(&file, &fs::metadata(path)?)? {
            return Ok(file);
        }
    }
}

/// Waits for a lock, which is held for as long as a file takes to be written; for longer by somebody who means harm.
fn wait_for(mut lock: impl FnMut() -> Result<(), TryLockError>, looks_max: u32) -> io::Result<()> {
    for _ in 0..looks_max {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_LOOK_EVERY),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::WouldBlock,
        "another process holds its lock (flock): try again when that has ended",
    ))
}

fn same_file(file: &File, other: &Metadata) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()) == (other.dev(), other.ino()))
}

/// All that is in a file, read in one piece: a buffer that grows would leave copies behind.
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

/// The directory of a path, also of one that is a name alone.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn name(path: &Path) -> io::Result<&std::ffi::OsStr> {
    path.file_name().ok_or_else(|| io::ErrorKind::IsADirectory.into())
}

impl std::fmt::Display for Remark {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Remark::Owner => formatter.write_str("the owner could not be kept: the file is yours now"),
            Remark::Mode(before) => {
                write!(
                    formatter,
                    "its mode was {before:o} and is {PRIVATE:o} now: only its owner may read it"
                )
            }
            Remark::InPlace(errno) => write!(
                formatter,
                "written in place, since no other file can take its name ({}): a crash meanwhile could have \
                 damaged it; its owner and mode are unchanged",
                io::Error::from_raw_os_error(*errno)
            ),
        }
    }
}

/// Read and written by the owner alone.
const PRIVATE: u32 = 0o600;
/// So that the end of the file is found without another allocation.
const READ_SPARE_BYTES: usize = 64;
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(5);
/// Five seconds: a file is written in milliseconds.
const WRITE_LOCK_LOOKS_MAX: u32 = 1000;
/// Half a second: who reads can also do without the lock.
const READ_LOCK_LOOKS_MAX: u32 = 100;

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
        // Whoever holds it may be no writer at all.
        assert_eq!(&**read(&path, 4).unwrap().0, b"text");
        let other = File::open(&path).unwrap();
        let error = wait_for(|| other.try_lock(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(file);
        assert!(wait_for(|| other.try_lock(), 1000).is_ok());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_line_is_added_behind_whole_ones_and_through_no_link() {
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
    fn what_keeps_another_file_from_the_name_is_told_from_a_full_disk() {
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
            assert_eq!(no_other_can_take_its_name(&error), in_place, "{error}");
        }
    }
}
