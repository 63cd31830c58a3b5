//! Gives a core a descriptor table of its own.
//!
//! `unshare(CLONE_FILES)` gives the calling thread a copy of the process's table: no lock or reference count on
//! descriptors is shared between cores from then on, and the limit on open files counts per core. The descriptors that
//! all cores need (polls, wakers, the ends of `transport/hand_over.rs`) are opened before.
//!
//! The copy also has every other descriptor that the process had open at that moment. As long as one stays open in the
//! copy, the file or socket itself stays open: a pipe gives no end of file, a socket sends no FIN, a file stays locked.
//! So a core closes the descriptors that it does not need.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::close;

/// Gives the calling thread a descriptor table of its own. Fails if a container profile forbids the call; then the
/// table stays shared, and all cores share one limit on open files.
pub(super) fn unshare_descriptors() -> Result<(), nix::errno::Errno> {
    unshare(CloneFlags::CLONE_FILES)
}

/// Closes the descriptors of the calling thread's own table, except the standard streams, `kept` and
/// eventfds. An eventfd may be a waker: mio does not reveal a waker's number. To keep a foreign eventfd open
/// does no harm: no process gets an event when an eventfd closes.
///
/// # Errors
/// `/proc` cannot be read. Then all descriptors stay open.
pub(super) fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let numbers: Vec<RawFd> = fs::read_dir(OWN_TABLE)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers {
        if number > STANDARD_ERROR && !kept.contains(&number) && !is_eventfd(number) {
            // One of the numbers is the descriptor with which the directory was read, and is closed by now.
            let _ = close(number);
        }
    }
    Ok(())
}

fn is_eventfd(number: RawFd) -> bool {
    fs::read_link(format!("{OWN_TABLE}/{number}"))
        .is_ok_and(|target| target.as_os_str() == "anon_inode:[eventfd]")
}

const OWN_TABLE: &str = "/proc/thread-self/fd";
const STANDARD_ERROR: RawFd = 2;

/// Whether the system permits a table of its own for a thread. Tries the call on a thread that then ends.
pub(crate) fn can_be_split() -> bool {
    std::thread::spawn(|| unshare_descriptors().is_ok())
        .join()
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_a_core_opens_after_the_split_is_in_its_own_table_only() {
        let main = std::process::id();
        let (tell, told) = crossbeam_channel::bounded(0);
        let (done, wait) = crossbeam_channel::bounded::<()>(0);
        let core = std::thread::spawn(move || {
            unshare_descriptors().expect("this machine permits the call");
            // A name that no other test opens.
            let file = std::fs::File::open("/proc/self/timerslack_ns").expect("every process has it");
            tell.send((nix::unistd::gettid(), file.as_raw_fd())).unwrap();
            wait.recv().unwrap_err();
        });
        let (tid, number) = told.recv().unwrap();
        let link = |table: String| {
            std::fs::read_link(table)
                .ok()
                .map(|path| path.display().to_string())
        };
        let in_core = link(format!("/proc/{main}/task/{tid}/fd/{number}"));
        let in_main = link(format!("/proc/{main}/fd/{number}"));
        assert!(in_core.is_some_and(|path| path.ends_with("timerslack_ns")));
        assert!(in_main.is_none_or(|path| !path.ends_with("timerslack_ns")));
        drop(done);
        core.join().unwrap();
    }
}
