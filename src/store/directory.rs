//! The directory of a store: its lock, damaged files, and the meeting point with the next process.
//!
//! The lock is a file lock (`flock`) on `lock` in the directory, for as long as the process has the store: the system
//! releases it when the process ends, however it ends. The file names the process. A next process that takes over asks
//! for the store at an abstract Unix address made of the user and the directory; the process that has the store lets go
//! of it and then ends the connection (`control/store_release.rs`).

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;

/// The lock of a directory, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

/// Why a directory cannot be had.
#[derive(Debug)]
pub(super) enum NoLock {
    /// A process has it.
    Held(Option<StoreOwner>),
    /// The system refuses.
    System(io::Error),
}

/// The process that has a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOwner {
    /// Its number.
    pub process: i32,
    /// The name of its program, if it can be seen from here.
    pub name: Option<String>,
}

impl fmt::Display for StoreOwner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {}", self.process)?;
        match &self.name {
            Some(name) => write!(formatter, " ({name})"),
            None => Ok(()),
        }
    }
}

impl Lock {
    /// Takes the lock without waiting. Makes the directory if its parent is there.
    ///
    /// # Errors
    /// See [`NoLock`].
    pub(super) fn take(directory: &Path) -> Result<Lock, NoLock> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(NoLock::System(error)),
            Err(_) | Ok(()) => {}
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("lock"))
            .map_err(NoLock::System)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(NoLock::Held(owner(&mut file))),
            Err(TryLockError::Error(error)) => return Err(NoLock::System(error)),
        }
        // The number is for people. On a full disk it is missing.
        let _ = write_number(&mut file);
        Ok(Lock { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Explicitly, since a descriptor that another thread has inherited would keep the lock.
        let _ = self.file.unlock();
    }
}

fn write_number(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn owner(file: &mut File) -> Option<StoreOwner> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let process = text.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok();
    Some(StoreOwner {
        process,
        name: name.map(|name| name.trim_end().to_owned()),
    })
}

/// Gives a damaged file another name, with the time; returns its new path.
///
/// # Errors
/// The system refuses: the file is where it was.
pub(super) fn set_aside(file: &Path, unix_ms: u64) -> io::Result<PathBuf> {
    let mut count = 0;
    loop {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".damaged-{}", unix_ms / 1000));
        if count > 0 {
            name.push(format!("-{count}"));
        }
        let aside = PathBuf::from(name);
        if !aside.try_exists()? {
            fs::rename(file, &aside)?;
            return Ok(aside);
        }
        count += 1;
    }
}

/// Asks the process that has the store of a directory to release it, and waits until it has, or has said nothing for
/// [`LET_GO_TIME_MAX`]. The lock then tells.
pub(super) fn ask_for(directory: &Path) {
    let asked = meeting_point(directory).and_then(|address| UnixStream::connect_addr(&address));
    let Ok(mut stream) = asked else {
        return;
    };
    // The other process ends the connection. If it does not, the lock is still held.
    let _ = stream.set_read_timeout(Some(LET_GO_TIME_MAX));
    let _ = stream.read(&mut [0]);
}

/// Binds the meeting point where the next process asks for the store of a directory.
///
/// # Errors
/// `AddrInUse` while another process is there.
pub(crate) fn bind_meeting_point(directory: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&meeting_point(directory)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn meeting_point(directory: &Path) -> io::Result<SocketAddr> {
    let directory = fs::metadata(directory)?;
    SocketAddr::from_abstract_name(format!(
        "ringcast/{}/store/{}/{}",
        geteuid(),
        directory.dev(),
        directory.ino()
    ))
}

/// Takes the lock as [`Lock::take`] does; while another process has it, waits for [`LET_GO_TIME_MAX`] at most.
///
/// # Errors
/// See [`NoLock`].
pub(super) fn wait_for_lock(directory: &Path) -> Result<Lock, NoLock> {
    let mut tries = LET_GO_TIME_MAX.as_millis() / TRY_EVERY.as_millis();
    loop {
        match Lock::take(directory) {
            Err(NoLock::Held(_)) if tries > 0 => {
                tries -= 1;
                thread::sleep(TRY_EVERY);
            }
            other => return other,
        }
    }
}

/// How long a process may take to commit the rest and to let go of the store.
const LET_GO_TIME_MAX: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_millis(20);
