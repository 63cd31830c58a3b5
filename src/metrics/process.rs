//! Figures of the system about this process, read at each scrape.
//!
//! A value that the system does not give is left out rather than guessed.
//!
//! Descriptors: cores have tables of their own, so this counts only the descriptors of the main thread, which the
//! control plane shares; `/proc/PID/task/TID/fd` lists the descriptors of a core.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

/// One reading.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessStatus {
    /// Memory in use, in bytes.
    pub resident_bytes: Option<u64>,
    /// The part of it that the program has written, in bytes: heap and stacks.
    pub anonymous_bytes: Option<u64>,
    /// The part of it that is read from files, in bytes: the program and its libraries.
    pub file_bytes: Option<u64>,
    /// Descriptors open in the main table.
    pub open_fds: Option<u64>,
    /// Descriptors that each table may hold.
    pub max_fds: Option<u64>,
    /// Time on CPUs, in nanoseconds.
    pub cpu_ns: Option<u64>,
}

impl ProcessStatus {
    /// Asks the system.
    pub fn read() -> ProcessStatus {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let memory = fs::read_to_string("/proc/self/status").unwrap_or_default();
        ProcessStatus {
            resident_bytes: status_bytes(&memory, "VmRSS:"),
            anonymous_bytes: status_bytes(&memory, "RssAnon:"),
            file_bytes: status_bytes(&memory, "RssFile:"),
            // Since Linux 6.2 the size of this folder is the count of its entries; before, it is 0.
            open_fds: fs::metadata("/proc/self/fd")
                .ok()
                .map(|folder| folder.len())
                .filter(|count| *count > 0),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            cpu_ns: usage
                .map(|usage| usage.user_time().num_nanoseconds() + usage.system_time().num_nanoseconds())
                .and_then(|ns| u64::try_from(ns).ok()),
        }
    }
}

/// Memory in use by this process, in bytes.
pub fn resident_bytes() -> Option<u64> {
    status_bytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// A line of `/proc/PID/status` that is a size.
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes in the buffers of all TCP sockets of the machine.
pub fn tcp_buffer_bytes() -> Option<u64> {
    buffer_bytes(&fs::read_to_string("/proc/net/sockstat").ok()?)
}

/// `TCP: inuse 27 orphan 0 tw 1 alloc 31 mem 5`, in pages.
fn buffer_bytes(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem").skip(1);
    words.next()?.parse::<u64>().ok()?.checked_mul(PAGE_BYTES)
}

/// The unit in which the kernel counts buffers, on all machines that this server is built for.
const PAGE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_this_process() {
        let status = ProcessStatus::read();
        assert!(status.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        let parts = status.anonymous_bytes.unwrap() + status.file_bytes.unwrap();
        assert!(parts <= status.resident_bytes.unwrap());
        assert!(status.max_fds.is_some_and(|count| count > 3));
        assert!(status.cpu_ns.is_some());
    }

    #[test]
    fn pages_of_tcp_buffers_are_found() {
        let sockstat = "sockets: used 9\nTCP: inuse 27 orphan 0 tw 1 alloc 31 mem 5\nUDP: inuse 2 mem 7\n";
        assert_eq!(buffer_bytes(sockstat), Some(5 * PAGE_BYTES));
        assert_eq!(buffer_bytes("UDP: inuse 2 mem 7"), None);
    }
}
