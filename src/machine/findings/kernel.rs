//! Findings about the kernel's settings for TCP.

use super::{Finding, Level, rounded_up, sysctl};
use crate::machine::{Machine, Target, grouped};

pub(super) fn backlog(_: &Machine, target: &Target) -> Option<Finding> {
    let needed = burst(target);
    Some(
        Finding::new(
            "tcp_backlog",
            grouped(target.tcp_backlog),
            format!(
                "{} for each core: a tenth of its connections may reconnect while it is busy for a moment",
                grouped(needed)
            ),
        )
        .if_wrong(
            target.tcp_backlog < needed,
            Level::Slows,
            [format!(
                "export RINGCAST_TCP_BACKLOG={}",
                rounded_up(needed).min(BACKLOG_MAX)
            )],
        ),
    )
}

/// The kernel uses the smaller of the two numbers silently.
pub(super) fn somaxconn(machine: &Machine, target: &Target) -> Option<Finding> {
    let most = machine.somaxconn?;
    let needed = target.tcp_backlog.max(burst(target));
    Some(
        Finding::new(
            "net.core.somaxconn",
            grouped(most),
            format!("{}: a larger tcp_backlog is reduced to this", grouped(needed)),
        )
        .if_wrong(
            most < needed,
            Level::Slows,
            [sysctl("net.core.somaxconn", rounded_up(needed))],
        ),
    )
}

/// With SYN cookies the kernel ignores the limit and answers SYNs beyond the backlog with cookies. Without
/// them it drops SYNs at three quarters of the limit.
pub(super) fn syn_backlog(machine: &Machine, target: &Target) -> Option<Finding> {
    let (most, cookies) = (machine.syn_backlog?, machine.syncookies?);
    let needed = burst(target).saturating_mul(4) / 3;
    let found = match cookies {
        0 => format!("{}, no SYN cookies", grouped(most)),
        _ => format!("{}, ignored with SYN cookies", grouped(most)),
    };
    Some(
        Finding::new(
            "net.ipv4.tcp_max_syn_backlog",
            found,
            format!("{} half-open connections, or SYN cookies", grouped(needed)),
        )
        .if_wrong(
            cookies == 0 && most < needed,
            Level::Slows,
            [
                sysctl("net.ipv4.tcp_syncookies", 1),
                sysctl("net.ipv4.tcp_max_syn_backlog", rounded_up(needed)),
            ],
        ),
    )
}

/// As measured, an idle socket uses no page, and a socket with one message that is not yet read or
/// acknowledged uses one. Under pressure the kernel shrinks windows; once the last number is reached it drops
/// incoming data.
pub(super) fn tcp_mem(machine: &Machine, target: &Target) -> Option<Finding> {
    let [easy, pressure, full] = machine.tcp_mem?;
    let needed = target.connections;
    let enough = rounded_up(needed);
    Some(
        Finding::new(
            "net.ipv4.tcp_mem",
            format!("{} {} {} pages", grouped(easy), grouped(pressure), grouped(full)),
            format!(
                "{} in the second: one page for each connection with a message in flight",
                grouped(needed)
            ),
        )
        .if_wrong(
            pressure < needed,
            Level::Slows,
            [format!(
                "sysctl -w net.ipv4.tcp_mem='{} {enough} {}'",
                enough / 4 * 3,
                enough.saturating_mul(3) / 2
            )],
        ),
    )
}

pub(super) fn tcp_rmem(machine: &Machine, _: &Target) -> Option<Finding> {
    buffers(
        "net.ipv4.tcp_rmem",
        machine.tcp_rmem?,
        "4096 131072 4194304",
        "a distant client that sends much",
    )
}

pub(super) fn tcp_wmem(machine: &Machine, _: &Target) -> Option<Finding> {
    buffers(
        "net.ipv4.tcp_wmem",
        machine.tcp_wmem?,
        "4096 16384 4194304",
        "a distant subscriber of a busy channel",
    )
}

/// An idle socket uses less than it may use, so only the last number matters as a limit.
fn buffers(
    name: &'static str,
    [least, first, most]: [u64; 3],
    better: &'static str,
    who: &str,
) -> Option<Finding> {
    Some(
        Finding::new(
            name,
            format!("{least} {first} {most}"),
            format!(
                "at least {BUFFER_BYTES} in the last: {who} can transfer no more than this in a round trip"
            ),
        )
        .if_wrong(
            most < BUFFER_BYTES,
            Level::Slows,
            [format!("sysctl -w {name}='{better}'")],
        ),
    )
}

pub(super) fn conntrack(machine: &Machine, target: &Target) -> Option<Finding> {
    let table = machine.conntrack?;
    let needed = table.count.saturating_add(target.connections);
    let enough = rounded_up(needed);
    let (found, level) = match table.count {
        0 => (
            format!("{}, none tracked, since no rule needs it", grouped(table.max)),
            Level::Note,
        ),
        count => (
            format!("{}, {} tracked", grouped(table.max), grouped(count)),
            Level::Stops,
        ),
    };
    Some(
        Finding::new(
            "net.netfilter.nf_conntrack_max",
            found,
            format!(
                "{}: packets of connections that do not fit into the table are dropped",
                grouped(needed)
            ),
        )
        .if_wrong(
            table.max < needed,
            level,
            [
                format!(
                    "sysctl -w net.netfilter.nf_conntrack_max={enough} net.netfilter.nf_conntrack_buckets={}",
                    enough / 4
                ),
                "nft add table inet ringcast; \
                 nft 'add chain inet ringcast in { type filter hook prerouting priority raw; }'; \
                 nft 'add chain inet ringcast out { type filter hook output priority raw; }'; \
                 nft add rule inet ringcast in tcp dport 8000 notrack; \
                 nft add rule inet ringcast out tcp sport 8000 notrack"
                    .to_owned(),
            ],
        ),
    )
}

/// Only outgoing connections of this machine use these ports, such as those of a proxy or a load generator on
/// it, for each pair of addresses. Clients elsewhere have ports of their own.
pub(super) fn ports(machine: &Machine, target: &Target) -> Option<Finding> {
    let [first, last] = machine.ports?;
    let count = (last + 1).saturating_sub(first);
    Some(
        Finding::new(
            "net.ipv4.ip_local_port_range",
            format!("{first} to {last}: {} ports", grouped(count)),
            format!(
                "{} if clients come through a proxy on this machine: more connections than ports also need \
                 more addresses",
                grouped(target.connections)
            ),
        )
        .if_wrong(
            count < target.connections.min(PORTS_WIDE),
            Level::Note,
            [format!(
                "sysctl -w net.ipv4.ip_local_port_range='{PORT_FIRST} 65535'"
            )],
        ),
    )
}

/// The side that closes first keeps a connection in TIME_WAIT for a minute. In a drain this is the server.
pub(super) fn time_wait(machine: &Machine, target: &Target) -> Option<Finding> {
    let most = machine.time_wait_max?;
    Some(
        Finding::new(
            "net.ipv4.tcp_max_tw_buckets",
            grouped(most),
            format!(
                "{}: a drain closes all connections, and those beyond this number skip TIME_WAIT",
                grouped(target.connections)
            ),
        )
        .if_wrong(
            most < target.connections,
            Level::Note,
            [sysctl(
                "net.ipv4.tcp_max_tw_buckets",
                rounded_up(target.connections),
            )],
        ),
    )
}

pub(super) fn slow_start(machine: &Machine, _: &Target) -> Option<Finding> {
    let is_on = machine.slow_start_after_idle? != 0;
    Some(
        Finding::new(
            "net.ipv4.tcp_slow_start_after_idle",
            if is_on { "1" } else { "0" },
            "0: otherwise a message of over 14 KB takes additional round trips after an idle second",
        )
        .if_wrong(
            is_on,
            Level::Note,
            [sysctl("net.ipv4.tcp_slow_start_after_idle", 0)],
        ),
    )
}

/// How many connections of one core may arrive at once.
fn burst(target: &Target) -> u64 {
    (target.connections_per_core() / 10).min(BACKLOG_MAX)
}

/// The largest backlog that the kernel supports.
const BACKLOG_MAX: u64 = 65_535;

/// Enough for 100 ms at 20 Mbit/s.
const BUFFER_BYTES: u64 = 256 * 1024;
const PORT_FIRST: u64 = 1024;
/// The number of ports from [`PORT_FIRST`] on.
const PORTS_WIDE: u64 = 65_536 - PORT_FIRST;
