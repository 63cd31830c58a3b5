//! The limits of this process's control groups, of version 1 and 2.
//!
//! A group is bound by its own limits and by those of all around it. Inside a container the path in `/proc/self/cgroup`
//! may be the host's while only the container's own part is mounted: walking up ends at what is mounted either way.

use std::path::{Component, Path, PathBuf};

use super::reading::{number, text};

/// What is bound; `None` where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cgroup {
    /// Bytes, sockets of the kernel's included.
    pub(super) memory_bytes_max: Option<u64>,
    /// Thousandths of a CPU.
    pub(super) cpu_millis: Option<u64>,
}

impl Cgroup {
    /// Reads `/proc/self/cgroup` and the files of the groups that it names.
    pub(super) fn read(root: &Path) -> Cgroup {
        let mut found = Cgroup::default();
        let own = text(root, "proc/self/cgroup").unwrap_or_default();
        for (controllers, path) in own.lines().filter_map(hierarchy) {
            if controllers.is_empty() {
                for folder in ["", "unified"].iter().flat_map(|mount| folders(mount, path)) {
                    found.limit(
                        number(root, folder.join("memory.max")),
                        cpu_max(root, &folder.join("cpu.max")),
                    );
                }
            } else if controllers.split(',').any(|name| name == "memory") {
                for folder in folders(controllers, path) {
                    let limit = number(root, folder.join("memory.limit_in_bytes"));
                    found.limit(limit.filter(|bytes| *bytes < UNLIMITED), None);
                }
            } else if controllers.split(',').any(|name| name == "cpu") {
                for folder in ["cpu", controllers].iter().flat_map(|mount| folders(mount, path)) {
                    let quota = number(root, folder.join("cpu.cfs_quota_us"));
                    let period = number(root, folder.join("cpu.cfs_period_us"));
                    found.limit(None, quota.zip(period).and_then(millis));
                }
            }
        }
        found
    }

    fn limit(&mut self, memory_bytes: Option<u64>, cpu_millis: Option<u64>) {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        self.memory_bytes_max = least(self.memory_bytes_max, memory_bytes);
        self.cpu_millis = least(self.cpu_millis, cpu_millis);
    }
}

/// The controllers and the path of a line `ID:CONTROLLERS:PATH`; version 2 has no controllers.
fn hierarchy(line: &str) -> Option<(&str, &str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    Some((parts.next()?, parts.next()?))
}

/// The folder of a group and those of the groups around it, the mount's own last.
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

/// Version 1 writes a number near 2^63 where there is no limit.
const UNLIMITED: u64 = 1 << 62;
