//! Reads data of the system: about this machine, about a process, and about the kernel's memory.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use super::clock::nanoseconds;
use super::result::Machine;

/// Describes this machine.
pub(crate) fn machine() -> Machine {
    let line = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim().to_owned())
    };
    Machine {
        cpu_model: line("/proc/cpuinfo", "model name").unwrap_or_default(),
        cpus: allowed_cpus().map_or(0, |cpus| cpus.len()),
        memory_bytes: kibibytes("/proc/meminfo", "MemTotal:").unwrap_or(0),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        descriptors_max: descriptors_max().unwrap_or(0),
    }
}

/// The CPUs that this thread may run on.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Lets the calling thread, and threads and processes that it starts later, run only on these CPUs.
pub(crate) fn run_on(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Makes the calling thread a real-time thread, if this is allowed: it then runs before all other threads, as if it had
/// a CPU of its own. Returns true if it does. It calls `chrt` of util-linux, because nix has no function for it.
pub(crate) fn run_first() -> bool {
    let thread = nix::unistd::gettid().to_string();
    Command::new("chrt")
        .args(["--rr", "--pid", "1", &thread])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Raises the limit on open files to the maximum; returns the limit.
pub(crate) fn raise_descriptors() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

fn descriptors_max() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

/// CPU time of all threads of a process, including threads that have ended.
pub(crate) fn cpu_ns(pid: Pid) -> Option<u64> {
    let time = nix::time::clock_getcpuclockid(pid).ok()?.now().ok()?;
    Some(nanoseconds(Duration::from(time)))
}

/// Memory of a process; shared pages count in proportion.
pub(crate) fn pss_bytes(pid: Pid) -> Option<u64> {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// The kernel's memory for connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) slab_bytes: Option<u64>,
    pub(crate) socket_buffer_bytes: Option<u64>,
}

impl Kernel {
    pub(crate) fn read() -> Kernel {
        Kernel {
            slab_bytes: kibibytes("/proc/meminfo", "Slab:"),
            socket_buffer_bytes: socket_buffer_bytes(),
        }
    }
}

/// `TCP: inuse 5 abandoned 0 tw 0 alloc 7 mem 1`, the last in pages.
fn socket_buffer_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let pages: u64 = line.split_once("mem ")?.1.split(' ').next()?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

const PAGE_BYTES: u64 = 4096;

fn kibibytes(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Parses a list of CPUs such as `0-3,6`.
pub(crate) fn parse_cpus(text: &str) -> Option<Vec<usize>> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CpuSet::count() {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus.into_iter().collect())
}
