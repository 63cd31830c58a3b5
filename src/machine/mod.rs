//! The limits of this machine that matter to a server with many connections: reads them, computes how many
//! connections they allow, and finds the settings that prevent more.
//!
//! [`reading`] turns files of `/proc` and `/sys` into a [`Machine`]; [`capacity`] and [`findings`] compare it
//! with a [`Target`]. Only `reading` reads files, below a root that tests choose, and only [`cpus`] asks the
//! system about the calling process. A value that cannot be read is `None`, and nothing is concluded from it.

pub(crate) mod capacity;
mod cgroup;
pub(crate) mod cpus;
pub(crate) mod descriptors;
pub(crate) mod findings;
pub(crate) mod memory;
pub(crate) mod reading;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use capacity::Capacity;
use cgroup::{Cgroup, MemoryGroup};
use findings::{Level, findings};

use crate::config::{Config, FdTables};

/// The values that were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// Most descriptors of a table; the server raises its soft limit to this.
    pub(crate) open_files_hard: Option<u64>,
    /// True if this process may raise the hard limit (`CAP_SYS_RESOURCE`).
    pub(crate) may_raise_limits: bool,
    /// The highest limit on descriptors that any process can have (`fs.nr_open`).
    nr_open: Option<u64>,
    /// Most open files of the system.
    file_max: Option<u64>,
    /// Open files of the system at present.
    files_open: Option<u64>,
    /// Most descriptors that the pollers of one user may watch together.
    epoll_watches_max: Option<u64>,
    somaxconn: Option<u64>,
    syn_backlog: Option<u64>,
    syncookies: Option<u64>,
    /// Pages for the buffers of all TCP sockets: without pressure, under pressure, at most.
    tcp_mem: Option<[u64; 3]>,
    /// Bytes for the received data of one socket: minimum, initially, maximum.
    tcp_rmem: Option<[u64; 3]>,
    /// Bytes for the data that one socket has to send: minimum, initially, maximum.
    tcp_wmem: Option<[u64; 3]>,
    slow_start_after_idle: Option<u64>,
    time_wait_max: Option<u64>,
    /// First and last port of outgoing connections.
    ports: Option<[u64; 2]>,
    conntrack: Option<Conntrack>,
    /// Memory of the machine in bytes.
    memory_total: Option<u64>,
    /// Memory that is available without swapping, in bytes.
    memory_available: Option<u64>,
    cgroup: Cgroup,
    cpus: Vec<Cpu>,
    cards: Vec<Card>,
}

impl Machine {
    /// The control group whose limit is less than the memory of the machine, if there is one.
    pub(crate) fn memory_group(&self) -> Option<MemoryGroup> {
        let bytes_max = self.cgroup.memory_bytes_max?;
        let binds = self.memory_total.is_none_or(|total| bytes_max < total);
        self.cgroup.memory_group.clone().filter(|_| binds)
    }

    /// The memory that this process may use, in bytes.
    pub(crate) fn memory_bytes_max(&self) -> Option<u64> {
        self.cgroup
            .memory_bytes_max
            .into_iter()
            .chain(self.memory_total)
            .min()
    }
}

/// The firewall's table of tracked connections, if its module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Conntrack {
    max: u64,
    count: u64,
}

/// A CPU as the system counts them: a hyperthread, if there are such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    number: usize,
    /// The CPUs of the same physical core, including this one.
    siblings: Vec<usize>,
    node: Option<usize>,
    governor: Option<String>,
}

/// A network card that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Card {
    name: String,
    node: Option<usize>,
    receive_queues: usize,
    /// The CPUs that received packets are passed on to in software.
    rps_cpus: Vec<usize>,
    /// The interrupts that have fired, or all of them if none has.
    interrupts: Vec<Interrupt>,
}

/// An interrupt, and the CPUs that serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interrupt {
    number: u64,
    cpus: Vec<usize>,
}

/// The requirements that the machine is compared with.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The number of connections.
    pub(crate) connections: u64,
    /// The CPU of each core.
    pub(crate) placement: Vec<usize>,
    /// True if each core has a descriptor table of its own.
    pub(crate) own_fd_tables: bool,
    /// The setting for that.
    pub(crate) fd_tables: FdTables,
    /// True if clients come through a network card.
    pub(crate) remote: bool,
    pub(crate) connections_per_core_max: u32,
    pub(crate) connections_max: u32,
    pub(crate) tcp_backlog: u64,
    /// Bytes of publications, of cores and of others.
    pub(crate) ring_bytes_max: u64,
    /// The time between two pings to a connection; `None` without pings.
    pub(crate) ping_interval: Option<Duration>,
}

impl Target {
    /// The requirements of a configuration. `connections` is the wanted number; without it, as many as
    /// `connections_per_core_max` allows, or 10,000 for each core.
    pub(crate) fn new(
        config: &Config,
        connections: Option<u64>,
        placement: Vec<usize>,
        tables_can_be_split: bool,
    ) -> Target {
        let per_core = match config.limits.connections_per_core_max {
            0 => CONNECTIONS_PER_CORE,
            most => u64::from(most),
        };
        Target {
            connections: connections.unwrap_or_else(|| per_core * count(&placement)),
            placement,
            own_fd_tables: tables_can_be_split && config.cores.fd_tables == FdTables::Auto,
            fd_tables: config.cores.fd_tables,
            remote: !config.listen.address.ip().is_loopback(),
            connections_per_core_max: config.limits.connections_per_core_max,
            connections_max: config.limits.connections_max,
            tcp_backlog: u64::from(config.listen.tcp_backlog),
            ring_bytes_max: config
                .limits
                .ring_bytes_max
                .saturating_add(config.limits.outside_bytes_max),
            ping_interval: config
                .socketcluster
                .pings
                .then_some(config.socketcluster.ping_interval),
        }
    }

    /// The number of event loops.
    pub(crate) fn cores(&self) -> u64 {
        count(&self.placement)
    }

    /// The number of CPUs that they run on.
    fn cpus(&self) -> u64 {
        let mut cpus = self.placement.clone();
        cpus.sort_unstable();
        cpus.dedup();
        count(&cpus)
    }

    fn connections_per_core(&self) -> u64 {
        self.connections.div_ceil(self.cores().max(1))
    }

    fn pings_per_second(&self) -> u64 {
        self.ping_interval.map_or(0, |interval| {
            let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
            self.connections.saturating_mul(1000) / interval_ms
        })
    }
}

/// One line for the log at the start: how many connections, which limit binds, and whether the machine is set
/// up for the target.
pub(crate) fn summary(machine: &Machine, target: &Target) -> String {
    let capacity = Capacity::of(machine, target);
    let findings = findings(machine, target);
    let of_level = |level| findings.iter().filter(|finding| finding.level == level).count();
    let connections = grouped(target.connections);
    let advice = match (of_level(Level::Stops), of_level(Level::Slows)) {
        (0, 0) => return capacity.to_string(),
        (0, slow) => format!("{slow} to improve"),
        (stop, slow) => format!("{stop} that prevent it and {slow} to improve"),
    };
    format!("{capacity}; for {connections} connections `ringcast tuning` finds {advice}")
}

/// A number with commas, for people.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that leaves a digit before the point.
pub(crate) fn bytes(bytes: u64) -> String {
    let (unit, name) = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit)
        .unwrap_or((1, "bytes"));
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// Memory of this process for each core: its buffers.
const CORE_BYTES: u64 = 1024 * 1024;
/// The number of connections if neither the command nor the configuration gives one.
const CONNECTIONS_PER_CORE: u64 = 10_000;
