//! Findings about descriptors, memory and CPU time: the needs of the target, and the limits.

use super::{Finding, Level, rounded_up, sysctl};
use crate::config::{FdTables, Placement};
use crate::machine::capacity::Needs;
use crate::machine::{Machine, Target, bytes, descriptors, grouped};

pub(super) fn open_files(machine: &Machine, target: &Target) -> Option<Finding> {
    let hard = machine.open_files_hard?;
    let needed = Needs::of(target).open_files;
    let limit = rounded_up(needed);
    let unit = format!(
        "mkdir -p /etc/systemd/system/ringcast.service.d && printf '[Service]\\nLimitNOFILE={limit}\\n' \
         > /etc/systemd/system/ringcast.service.d/limits.conf && systemctl daemon-reload"
    );
    let mut commands = vec![unit];
    if machine.may_raise_limits {
        commands.insert(0, format!("ulimit -n {limit}"));
    } else if let Some(cores) = cores_that_hold(hard, target) {
        // More event loops than CPUs take turns; each brings a descriptor table.
        commands.insert(0, format!("export RINGCAST_CORES={cores}"));
    }
    let tables = if target.own_fd_tables {
        "for each core"
    } else {
        "for all cores"
    };
    Some(
        Finding::new(
            "open files",
            format!("hard limit {}", grouped(hard)),
            format!(
                "{} {tables}: one for each connection, and a few more",
                grouped(needed)
            ),
        )
        .if_wrong(hard < needed, Level::Stops, commands),
    )
}

/// How many event loops have room for all connections, each in a table of its own.
fn cores_that_hold(hard: u64, target: &Target) -> Option<u64> {
    let most = u64::from(Placement::COUNT_MAX);
    (target.cores()..=most).find(|cores| {
        target.own_fd_tables
            && descriptors::connections_per_core(hard, true, *cores) * cores >= target.connections
    })
}

pub(super) fn nr_open(machine: &Machine, target: &Target) -> Option<Finding> {
    let most = machine.nr_open?;
    let needed = Needs::of(target).open_files;
    Some(
        Finding::new(
            "fs.nr_open",
            grouped(most),
            format!(
                "{}: the limit on open files cannot be set higher than this",
                grouped(needed)
            ),
        )
        .if_wrong(
            most < needed,
            Level::Stops,
            [sysctl("fs.nr_open", rounded_up(needed))],
        ),
    )
}

pub(super) fn connections_per_core(_: &Machine, target: &Target) -> Option<Finding> {
    let most = u64::from(target.connections_per_core_max);
    if most == 0 {
        return None;
    }
    let needed = target.connections_per_core();
    Some(
        Finding::new("connections_per_core_max", grouped(most), grouped(needed)).if_wrong(
            most < needed,
            Level::Stops,
            [format!("export RINGCAST_CONNECTIONS_PER_CORE_MAX={needed}")],
        ),
    )
}

pub(super) fn descriptor_tables(_: &Machine, target: &Target) -> Option<Finding> {
    let found = if target.own_fd_tables {
        "one for each core"
    } else {
        "one for all cores"
    };
    Some(
        Finding::new(
            "descriptor tables",
            found,
            "one for each core: the limit on open files then counts per core, and cores share no lock",
        )
        .if_wrong(
            !target.own_fd_tables && target.cores() > 1,
            Level::Slows,
            [match target.fd_tables {
                FdTables::Shared => "export RINGCAST_FD_TABLES=auto".to_owned(),
                // A container profile that forbids unshare(CLONE_FILES); a profile that allows it would also
                // do.
                FdTables::Auto => "docker run --security-opt seccomp=unconfined IMAGE".to_owned(),
            }],
        ),
    )
}

pub(super) fn file_max(machine: &Machine, target: &Target) -> Option<Finding> {
    let (most, open) = (machine.file_max?, machine.files_open?);
    let needed = open.saturating_add(target.connections);
    Some(
        Finding::new(
            "fs.file-max",
            format!("{}, {} open", grouped(most), grouped(open)),
            format!(
                "{}: every connection counts as a file of the system",
                grouped(needed)
            ),
        )
        .if_wrong(
            most < needed,
            Level::Stops,
            [sysctl("fs.file-max", rounded_up(needed))],
        ),
    )
}

pub(super) fn epoll_watches(machine: &Machine, target: &Target) -> Option<Finding> {
    let most = machine.epoll_watches_max?;
    let needed = target.connections;
    Some(
        Finding::new(
            "fs.epoll.max_user_watches",
            grouped(most),
            format!("{}: a poller watches every connection", grouped(needed)),
        )
        .if_wrong(
            most < needed,
            Level::Stops,
            [sysctl("fs.epoll.max_user_watches", rounded_up(needed))],
        ),
    )
}

pub(super) fn memory(machine: &Machine, target: &Target) -> Option<Finding> {
    let available = machine.memory_available?;
    let needed = Needs::of(target).memory_bytes();
    // No command adds memory.
    Some(
        Finding::new(
            "memory",
            format!("{} available", bytes(available)),
            format!(
                "{}: sockets, connections and the ring, and an eighth for messages in flight",
                bytes(needed)
            ),
        )
        .if_wrong(available < needed, Level::Stops, []),
    )
}

pub(super) fn cgroup_memory(machine: &Machine, target: &Target) -> Option<Finding> {
    let most = machine.cgroup.memory_bytes_max?;
    let needed = Needs::of(target).memory_bytes();
    let mebibytes = needed.div_ceil(1024 * 1024);
    Some(
        Finding::new(
            "memory of the control group",
            bytes(most),
            format!(
                "{}: the kernel's memory for sockets counts as well",
                bytes(needed)
            ),
        )
        .if_wrong(
            most < needed,
            Level::Stops,
            [
                format!("systemctl set-property ringcast.service MemoryMax={mebibytes}M"),
                format!("docker update --memory {mebibytes}m --memory-swap {mebibytes}m CONTAINER"),
            ],
        ),
    )
}

pub(super) fn cgroup_cpu(machine: &Machine, target: &Target) -> Option<Finding> {
    let quota_millis = machine.cgroup.cpu_millis?;
    let whole = (quota_millis / 1000).max(1);
    let cores = target.cores();
    Some(
        Finding::new(
            "CPU quota of the control group",
            format!("{} CPUs", decimals(quota_millis)),
            format!("{cores}: when the quota is used up, every core stands still until the next period, for at most 100 ms"),
        )
        .if_wrong(
            quota_millis < cores * 1000,
            Level::Slows,
            [
                format!("export RINGCAST_CORES={whole}"),
                format!(
                    "systemctl set-property ringcast.service CPUQuota={}%",
                    cores * 100
                ),
            ],
        ),
    )
}

pub(super) fn heartbeats(machine: &Machine, target: &Target) -> Option<Finding> {
    let needed_millis = Needs::of(target).heartbeat_cpu_millis;
    let quota_millis = machine.cgroup.cpu_millis.unwrap_or(u64::MAX);
    let have_millis = (target.cpus() * 1000).min(quota_millis);
    let interval_ms = u64::try_from(target.ping_interval?.as_millis()).unwrap_or(u64::MAX);
    // Heartbeats should use at most half of the CPUs.
    let rarer_ms = interval_ms
        .saturating_mul(needed_millis)
        .div_ceil((have_millis / 2).max(1));
    let level = if needed_millis > have_millis {
        Level::Stops
    } else {
        Level::Slows
    };
    Some(
        Finding::new(
            "CPU for heartbeats",
            format!("{} CPUs", decimals(have_millis)),
            format!(
                "about {} for {} pings per second, and the same for messages",
                decimals(needed_millis),
                grouped(target.pings_per_second())
            ),
        )
        .if_wrong(
            needed_millis > have_millis / 2,
            level,
            [format!(
                "export RINGCAST_PING_INTERVAL_MS={rarer_ms} RINGCAST_PING_TIMEOUT_MS={}",
                rarer_ms.saturating_mul(3)
            )],
        ),
    )
}

/// Thousandths, as a number with two decimals.
fn decimals(millis: u64) -> String {
    format!("{}.{:02}", millis / 1000, millis % 1000 / 10)
}
