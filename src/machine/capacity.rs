//! Capacity: how many connections the present limits allow, and which limit is the tightest.
//!
//! The costs of a connection are measured: see `tuning/sizing.md`.

use std::fmt;

use serde::Serialize;

use super::{CORE_BYTES, Machine, Target, bytes, descriptors, grouped};

/// The number of connections that each limit allows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Capacity {
    /// How many connections all limits together allow; `None` if no limit could be read.
    pub(crate) connections: Option<u64>,
    /// The limits, the tightest first.
    pub(crate) bounds: Vec<Bound>,
    /// How many connections may have a message in flight at the same time. Idle connections take none of that
    /// memory.
    pub(crate) with_message: Option<u64>,
}

/// One limit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bound {
    pub(crate) limit: &'static str,
    pub(crate) connections: u64,
    /// How the number is computed.
    pub(crate) because: String,
}

/// The resources that a number of connections needs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Needs {
    /// Descriptors of one table.
    pub(crate) open_files: u64,
    /// Memory of this process, in bytes.
    pub(crate) user_bytes: u64,
    /// Memory of the kernel, in bytes: sockets, files, entries of pollers.
    pub(crate) kernel_bytes: u64,
    /// CPU time for heartbeats alone, in thousandths of a CPU.
    pub(crate) heartbeat_cpu_millis: u64,
}

impl Capacity {
    /// The capacity with the present limits and this configuration.
    pub(crate) fn of(machine: &Machine, target: &Target) -> Capacity {
        let mut bounds: Vec<Bound> = [
            configured(target),
            configured_in_all(target),
            open_files(machine, target),
            all_files(machine),
            watches(machine),
            memory(machine, target),
            cgroup_memory(machine, target),
            conntrack(machine),
        ]
        .into_iter()
        .flatten()
        .collect();
        bounds.sort_by_key(|bound| bound.connections);
        Capacity {
            connections: bounds.first().map(|bound| bound.connections),
            bounds,
            with_message: machine.tcp_mem.map(|[_, _, full]| full),
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.bounds.first() else {
            return formatter.write_str("the capacity is unknown, since no limit could be read");
        };
        write!(
            formatter,
            "up to {} connections, bound by {}",
            grouped(first.connections),
            first.limit
        )?;
        match self.bounds.get(1) {
            Some(next) => write!(
                formatter,
                ", then {} by {}",
                grouped(next.connections),
                next.limit
            ),
            None => Ok(()),
        }
    }
}

impl Needs {
    /// The needs of the target.
    pub(crate) fn of(target: &Target) -> Needs {
        Needs {
            open_files: descriptors::needed(
                target.connections_per_core(),
                target.own_fd_tables,
                target.cores(),
            ),
            user_bytes: target
                .connections
                .saturating_mul(USER_BYTES)
                .saturating_add(process_bytes(target)),
            kernel_bytes: target.connections.saturating_mul(KERNEL_BYTES),
            heartbeat_cpu_millis: target.pings_per_second().saturating_mul(HEARTBEAT_CPU_US) / 1000,
        }
    }

    /// The memory of the process and of the kernel together, with a reserve for messages in flight.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let held = self.user_bytes.saturating_add(self.kernel_bytes);
        held.saturating_add(held / (MEMORY_PARTS - 1))
    }
}

fn configured(target: &Target) -> Option<Bound> {
    let most = u64::from(target.connections_per_core_max);
    (most > 0).then(|| Bound {
        limit: "connections_per_core_max",
        connections: most * target.cores(),
        because: format!("{} for each of {} cores", grouped(most), target.cores()),
    })
}

fn configured_in_all(target: &Target) -> Option<Bound> {
    let most = u64::from(target.connections_max);
    (most > 0).then(|| Bound {
        limit: "connections_max",
        connections: most,
        because: format!("{} for the whole server", grouped(most)),
    })
}

fn open_files(machine: &Machine, target: &Target) -> Option<Bound> {
    let hard = machine.open_files_hard?;
    let per_core = descriptors::connections_per_core(hard, target.own_fd_tables, target.cores());
    let tables = if target.own_fd_tables {
        format!("in each of {} tables", target.cores())
    } else {
        "in one table for all cores".to_owned()
    };
    Some(Bound {
        limit: "open files",
        connections: per_core * target.cores(),
        because: format!("{} descriptors {tables}", grouped(hard)),
    })
}

fn all_files(machine: &Machine) -> Option<Bound> {
    let (most, now) = (machine.file_max?, machine.files_open?);
    Some(Bound {
        limit: "fs.file-max",
        connections: most.saturating_sub(now),
        because: format!(
            "{} files of the system, {} of them open",
            grouped(most),
            grouped(now)
        ),
    })
}

fn watches(machine: &Machine) -> Option<Bound> {
    machine.epoll_watches_max.map(|most| Bound {
        limit: "fs.epoll.max_user_watches",
        connections: most,
        because: "descriptors watched for one user".to_owned(),
    })
}

fn memory(machine: &Machine, target: &Target) -> Option<Bound> {
    machine.memory_available.map(|available| Bound {
        limit: "memory",
        connections: connections_in(available, target),
        because: format!("{} available now, {}", bytes(available), per_connection()),
    })
}

fn cgroup_memory(machine: &Machine, target: &Target) -> Option<Bound> {
    machine.cgroup.memory_bytes_max.map(|most| Bound {
        limit: "memory of the control group",
        connections: connections_in(most, target),
        because: format!("{}, {}", bytes(most), per_connection()),
    })
}

/// Only if connections are tracked: without a rule that needs tracking, the loaded module counts none.
fn conntrack(machine: &Machine) -> Option<Bound> {
    let table = machine.conntrack.filter(|table| table.count > 0)?;
    Some(Bound {
        limit: "nf_conntrack_max",
        connections: table.max.saturating_sub(table.count),
        because: format!(
            "{} connections tracked, {} of them now",
            grouped(table.max),
            grouped(table.count)
        ),
    })
}

/// How many connections fit into this memory, with a reserve for messages in flight.
fn connections_in(memory_bytes: u64, target: &Target) -> u64 {
    let for_holding = memory_bytes - memory_bytes / MEMORY_PARTS;
    for_holding.saturating_sub(process_bytes(target)) / (USER_BYTES + KERNEL_BYTES)
}

/// Memory of the process without any connection: a full ring, and the buffers of each core.
fn process_bytes(target: &Target) -> u64 {
    target.ring_bytes_max.saturating_add(target.cores() * CORE_BYTES)
}

fn per_connection() -> String {
    format!("{USER_BYTES} + {KERNEL_BYTES} bytes each, 1/{MEMORY_PARTS} in reserve")
}

/// Memory of this process for an idle connection with one subscription: 160 to 163 bytes of PSS with 200,000
/// and 1,000,000 connections on one channel, up to 420 if each has a channel of its own.
const USER_BYTES: u64 = 400;
/// Memory of the kernel for a socket with its file and its entry in a poller: 4.2 to 4.6 KB.
pub(crate) const KERNEL_BYTES: u64 = 4600;
/// One part in this many of the memory is reserved for messages in flight.
const MEMORY_PARTS: u64 = 8;
/// CPU time for a heartbeat: one write, and one read of the answer, among 200,000 connections whose memory is
/// not in the caches.
const HEARTBEAT_CPU_US: u64 = 16;
