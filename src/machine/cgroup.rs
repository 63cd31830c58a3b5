//! The limits of this process's control groups, versions 1 and 2.
//!
//! A group is bound by its own limits and by those of all groups around it. Inside a container the path in
//! `/proc/self/cgroup` may be the host's, although only the container's own part is mounted. Walking up the
//! path ends at the mount in either case.

use std::path::{Component, Path, PathBuf};

use super::reading::{number, text};

/// The limits; `None` for a resource without a limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cgroup {
    /// Memory in bytes, including the kernel's memory for sockets.
    pub(super) memory_bytes_max: Option<u64>,
    /// The group with this limit.
    pub(super) memory_group: Option<MemoryGroup>,
    /// CPU time in thousandths of a CPU.
    pub(super) cpu_millis: Option<u64>,
}

/// A group with limited memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MemoryGroup {
    /// Relative to the root.
    folder: PathBuf,
    /// The names of its files.
    files: &'static MemoryFiles,
}

/// The names of the files with a group's memory use.
#[derive(Debug, PartialEq)]
struct MemoryFiles {
    used: &'static str,
    /// The line of `memory.stat` with pages of files that have not been used lately.
    reclaimable: &'static str,
}

const VERSION_1: MemoryFiles = MemoryFiles {
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};
const VERSION_2: MemoryFiles = MemoryFiles {
    used: "memory.current",
    reclaimable: "inactive_file",
};

impl MemoryGroup {
    /// The memory that the group is charged for, in bytes: its processes, the buffers of their sockets, and
    /// the kernel's own memory for them. Pages of files that the kernel reclaims first are not counted.
    /// `None` if it cannot be read.
    pub(crate) fn used_bytes(&self, root: &Path) -> Option<u64> {
        let used = number(root, self.folder.join(self.files.used))?;
        let stat = text(root, self.folder.join("memory.stat")).unwrap_or_default();
        let reclaimable = stat.lines().find_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            (name == self.files.reclaimable).then(|| bytes.trim().parse::<u64>().ok())?
        });
        Some(used.saturating_sub(reclaimable.unwrap_or(0)))
    }
}

impl Cgroup {
    /// Reads `/proc/self/cgroup` and the files of the groups in it.
    pub(super) fn read(root: &Path) -> Cgroup {
        let mut found = Cgroup::default();
        let own = text(root, "proc/self/cgroup").unwrap_or_default();
        for (controllers, path) in own.lines().filter_map(hierarchy) {
            if controllers.is_empty() {
                for folder in ["", "unified"].iter().flat_map(|mount| folders(mount, path)) {
                    found.limit_memory(number(root, folder.join("memory.max")), &folder, &VERSION_2);
                    found.limit_cpu(cpu_max(root, &folder.join("cpu.max")));
                }
            } else if controllers.split(',').any(|name| name == "memory") {
                for folder in folders(controllers, path) {
                    let limit = number(root, folder.join("memory.limit_in_bytes"));
                    found.limit_memory(limit.filter(|bytes| *bytes < UNLIMITED), &folder, &VERSION_1);
                }
            } else if controllers.split(',').any(|name| name == "cpu") {
                for folder in ["cpu", controllers].iter().flat_map(|mount| folders(mount, path)) {
                    let quota = number(root, folder.join("cpu.cfs_quota_us"));
                    let period = number(root, folder.join("cpu.cfs_period_us"));
                    found.limit_cpu(quota.zip(period).and_then(millis));
                }
            }
        }
        found
    }

    fn limit_memory(&mut self, bytes_max: Option<u64>, folder: &Path, files: &'static MemoryFiles) {
        if let Some(bytes_max) = bytes_max
            && self.memory_bytes_max.is_none_or(|before| bytes_max < before)
        {
            self.memory_bytes_max = Some(bytes_max);
            self.memory_group = Some(MemoryGroup {
                folder: folder.to_path_buf(),
                files,
            });
        }
    }

    fn limit_cpu(&mut self, millis: Option<u64>) {
        self.cpu_millis = self.cpu_millis.into_iter().chain(millis).min();
    }
}

/// The controllers and the path of a line `ID:CONTROLLERS:PATH`. Version 2 has no controllers.
fn hierarchy(line: &str) -> Option<(&str, &str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    Some((parts.next()?, parts.next()?))
}

/// The folder of a group and those of the groups around it; the mount's own comes last.
fn folders(mount: &str, path: &str) -> Vec<PathBuf> {
    let mount = Path::new("sys/fs/cgroup").join(mount);
    // A group outside of the container's part is shown as `/../name`.
    let inner: PathBuf = Path::new(path)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    let folder = mount.join(inner);
    folder
        .ancestors()
        .take_while(|around| around.starts_with(&mount))
        .map(Path::to_path_buf)
        .collect()
}

/// `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn cpu_max(root: &Path, path: &Path) -> Option<u64> {
    let line = text(root, path)?;
    let (quota, period) = line.split_once(' ')?;
    millis((quota.parse().ok()?, period.trim().parse().ok()?))
}

fn millis((quota_us, period_us): (u64, u64)) -> Option<u64> {
    quota_us.checked_mul(1000)?.checked_div(period_us)
}

/// Version 1 writes a number near 2^63 if there is no limit.
const UNLIMITED: u64 = 1 << 62;
