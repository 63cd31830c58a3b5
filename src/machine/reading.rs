//! Reads a [`Machine`] from files of `/proc` and `/sys`.
//!
//! All paths are below `root`, which is `/` except in tests. If a file is missing, unreadable or in an
//! unknown form, its value is left out: containers hide some files, and kernels lack others.

use std::fs;
use std::path::Path;

use super::cgroup::Cgroup;
use super::{Card, Conntrack, Cpu, Interrupt, Machine};

/// Reads all values.
pub(crate) fn machine(root: &Path) -> Machine {
    let [files_open, _, file_max] = numbers(root, "proc/sys/fs/file-nr").map_or([None; 3], |n| n.map(Some));
    Machine {
        open_files_hard: text(root, "proc/self/limits").and_then(|limits| open_files_hard(&limits)),
        may_raise_limits: text(root, "proc/self/status").is_some_and(|status| may_raise_limits(&status)),
        nr_open: number(root, "proc/sys/fs/nr_open"),
        file_max,
        files_open,
        epoll_watches_max: number(root, "proc/sys/fs/epoll/max_user_watches"),
        somaxconn: number(root, "proc/sys/net/core/somaxconn"),
        syn_backlog: number(root, "proc/sys/net/ipv4/tcp_max_syn_backlog"),
        syncookies: number(root, "proc/sys/net/ipv4/tcp_syncookies"),
        tcp_mem: numbers(root, "proc/sys/net/ipv4/tcp_mem"),
        tcp_rmem: numbers(root, "proc/sys/net/ipv4/tcp_rmem"),
        tcp_wmem: numbers(root, "proc/sys/net/ipv4/tcp_wmem"),
        slow_start_after_idle: number(root, "proc/sys/net/ipv4/tcp_slow_start_after_idle"),
        time_wait_max: number(root, "proc/sys/net/ipv4/tcp_max_tw_buckets"),
        ports: numbers(root, "proc/sys/net/ipv4/ip_local_port_range"),
        conntrack: conntrack(root),
        memory_total: text(root, "proc/meminfo").and_then(|meminfo| memory_bytes(&meminfo, "MemTotal:")),
        memory_available: text(root, "proc/meminfo")
            .and_then(|meminfo| memory_bytes(&meminfo, "MemAvailable:")),
        cgroup: Cgroup::read(root),
        cpus: cpus(root),
        cards: cards(root),
    }
}

/// The CPUs that are online.
pub(crate) fn cpus(root: &Path) -> Vec<Cpu> {
    let nodes: Vec<(usize, Vec<usize>)> = entries(root, "sys/devices/system/node", "node")
        .into_iter()
        .filter_map(|name| {
            let list = text(root, format!("sys/devices/system/node/{name}/cpulist"))?;
            Some((numbered(&name, "node")?, cpu_list(&list)?))
        })
        .collect();
    let mut cpus: Vec<Cpu> = entries(root, "sys/devices/system/cpu", "cpu")
        .into_iter()
        .filter_map(|name| {
            let number = numbered(&name, "cpu")?;
            let folder = format!("sys/devices/system/cpu/{name}");
            // A CPU that is offline has no topology.
            let siblings = text(root, format!("{folder}/topology/thread_siblings_list"))?;
            Some(Cpu {
                number,
                siblings: cpu_list(&siblings)?,
                node: nodes
                    .iter()
                    .find(|node| node.1.contains(&number))
                    .map(|node| node.0),
                governor: text(root, format!("{folder}/cpufreq/scaling_governor")),
            })
        })
        .collect();
    cpus.sort_by_key(|cpu| cpu.number);
    cpus
}

/// The network cards that are up. Interfaces without a device (loopback, bridges, tunnels) have no
/// interrupts.
fn cards(root: &Path) -> Vec<Card> {
    let interrupts = text(root, "proc/interrupts").unwrap_or_default();
    let is_up =
        |name: &String| text(root, format!("sys/class/net/{name}/operstate")).as_deref() == Some("up");
    entries(root, "sys/class/net", "")
        .into_iter()
        .filter(|name| root.join(format!("sys/class/net/{name}/device")).exists())
        .filter(is_up)
        .map(|name| card(root, &name, &interrupts))
        .collect()
}

fn card(root: &Path, name: &str, interrupts: &str) -> Card {
    let folder = format!("sys/class/net/{name}");
    // A virtio device has its interrupts and its node one folder up, at its PCI function.
    let devices = [format!("{folder}/device"), format!("{folder}/device/..")];
    let queues: Vec<String> = entries(root, &format!("{folder}/queues"), "rx-");
    let mut rps_cpus: Vec<usize> = queues
        .iter()
        .filter_map(|queue| text(root, format!("{folder}/queues/{queue}/rps_cpus")))
        .flat_map(|mask| cpu_mask(&mask).unwrap_or_default())
        .collect();
    rps_cpus.sort_unstable();
    rps_cpus.dedup();
    let mut numbers: Vec<u64> = devices
        .iter()
        .map(|device| entries(root, &format!("{device}/msi_irqs"), ""))
        .find(|found| !found.is_empty())
        .unwrap_or_default()
        .iter()
        .filter_map(|number| number.parse().ok())
        .collect();
    numbers.sort_unstable();
    // Cards have interrupts for other purposes than packets too; those hardly ever fire.
    let fired: Vec<u64> = numbers
        .iter()
        .copied()
        .filter(|number| fires(interrupts, *number))
        .collect();
    let numbers = if fired.is_empty() { numbers } else { fired };
    Card {
        name: name.to_owned(),
        // -1 if there are no nodes.
        node: devices.iter().find_map(|device| {
            let node = text(root, format!("{device}/numa_node"))?;
            node.parse().ok()
        }),
        receive_queues: queues.len(),
        rps_cpus,
        interrupts: numbers
            .into_iter()
            .filter_map(|number| {
                let lists = ["effective_affinity_list", "smp_affinity_list"];
                let cpus = lists.iter().find_map(|list| {
                    let cpus = cpu_list(&text(root, format!("proc/irq/{number}/{list}"))?)?;
                    Some(cpus).filter(|cpus| !cpus.is_empty())
                })?;
                Some(Interrupt { number, cpus })
            })
            .collect(),
    }
}

fn conntrack(root: &Path) -> Option<Conntrack> {
    Some(Conntrack {
        max: number(root, "proc/sys/net/netfilter/nf_conntrack_max")?,
        count: number(root, "proc/sys/net/netfilter/nf_conntrack_count")?,
    })
}

/// The text of a file without its last line break.
pub(super) fn text(root: &Path, path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    Some(text.trim_end().to_owned())
}

/// A file with one number.
pub(super) fn number(root: &Path, path: impl AsRef<Path>) -> Option<u64> {
    text(root, path)?.parse().ok()
}

/// A file with this many numbers in a line.
fn numbers<const COUNT: usize>(root: &Path, path: &str) -> Option<[u64; COUNT]> {
    let text = text(root, path)?;
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// The names in a folder that begin with `start`, sorted.
fn entries(root: &Path, folder: &str, start: &str) -> Vec<String> {
    let names = fs::read_dir(root.join(folder)).into_iter().flatten();
    let mut names: Vec<String> = names
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(start))
        .collect();
    names.sort_unstable();
    names
}

/// The number in `cpu12`; `None` for `cpufreq`.
fn numbered(name: &str, start: &str) -> Option<usize> {
    name.strip_prefix(start)?.parse().ok()
}

/// Parses `0-3,8`.
pub(super) fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= CPU_NUMBERS {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Parses `00000000,0000000f`: hexadecimal words of 32 bits, the highest first.
pub(super) fn cpu_mask(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for (word_index, word) in text.trim().rsplit(',').enumerate() {
        let word = u32::from_str_radix(word, 16).ok()?;
        cpus.extend(
            (0..32)
                .filter(|bit| word >> bit & 1 == 1)
                .map(|bit| 32 * word_index + bit),
        );
    }
    Some(cpus)
}

/// Parses the line `Max open files SOFT HARD files`.
fn open_files_hard(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn may_raise_limits(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|capabilities| capabilities >> CAP_SYS_RESOURCE & 1 == 1)
}

fn memory_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// True if the line of an interrupt in `/proc/interrupts` (`24: COUNT COUNT … NAME`) has a count that is not
/// 0.
fn fires(interrupts: &str, number: u64) -> bool {
    let line = interrupts
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(&format!("{number}:")));
    let counts = line.unwrap_or_default().split_whitespace();
    counts
        .map_while(|word| word.parse::<u64>().ok())
        .any(|count| count > 0)
}

/// `linux/capability.h`.
const CAP_SYS_RESOURCE: u32 = 24;
/// More CPUs than any kernel supports: a list with a larger number is not a list of CPUs.
const CPU_NUMBERS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_of_cpus() {
        assert_eq!(cpu_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list(""), Some(vec![]));
        for text in ["a", "0-", "0-99999999"] {
            assert_eq!(cpu_list(text), None, "{text}");
        }
        assert_eq!(cpu_mask("3"), Some(vec![0, 1]));
        assert_eq!(cpu_mask("00000001,80000000\n"), Some(vec![31, 32]));
        assert_eq!(cpu_mask("0"), Some(vec![]));
        assert_eq!(cpu_mask("x"), None);
    }

    #[test]
    fn the_capability_is_one_bit() {
        assert!(may_raise_limits("Name:\tx\nCapEff:\t0000000001000000\n"));
        assert!(!may_raise_limits("CapEff:\t000001fffeffffff\n"));
        assert!(!may_raise_limits("Name:\tx\n"));
    }

    #[test]
    fn a_line_in_an_unknown_form_gives_no_value() {
        assert_eq!(open_files_hard("Max open files  1024  4096  files"), Some(4096));
        assert_eq!(open_files_hard("Max open files  1024  unlimited  files"), None);
        assert_eq!(open_files_hard("Max processes  1  2  processes"), None);
        let meminfo = "MemTotal:   20 kB\nMemAvailable:   12 kB";
        assert_eq!(memory_bytes(meminfo, "MemAvailable:"), Some(12 * 1024));
        assert_eq!(memory_bytes(meminfo, "MemTotal:"), Some(20 * 1024));
        assert_eq!(memory_bytes("MemAvailable:   12 MB", "MemAvailable:"), None);
    }

    #[test]
    fn an_interrupt_counts_as_firing_if_any_cpu_has_counted_it() {
        let table = "      CPU0  CPU1\n 24:  0  7  PCI-MSIX 1-edge eth0-TxRx-0\n124:  0  0  PCI-MSIX eth0\n";
        assert!(fires(table, 24));
        assert!(!fires(table, 124));
        assert!(!fires(table, 4));
    }
}
