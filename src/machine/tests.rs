//! Machines of several kinds, as files: what is read, what is found, and that each command corrects its
//! finding.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cpus::Cpus;
use super::findings::Finding;
use super::*;
use crate::config::Placement;
use crate::config::load::ConfigSources;

/// The files of a machine in a folder of its own, which is removed with the value.
pub(crate) struct Fixture(PathBuf);

impl Fixture {
    /// Reads a file of `tests/data/machines`: each line has the path of a file and its contents.
    pub(crate) fn new(name: &str) -> Fixture {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("ringcast-machine-{}-{number}", std::process::id()));
        let fixture = Fixture(root);
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/machines");
        let lines = fs::read_to_string(data.join(format!("{name}.txt"))).unwrap();
        for line in lines.lines().filter(|line| !line.starts_with('#')) {
            let (path, text) = line.split_once(" =").unwrap();
            let text = text.trim_start().replace("\\n", "\n").replace("\\t", "\t");
            fixture.write(path, &(text + "\n"));
        }
        fixture
    }

    pub(crate) fn machine(&self) -> Machine {
        reading::machine(&self.0)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Applies a command to these files; returns the settings of the server that it sets.
    fn carry_out(&self, command: &str) -> Vec<(String, String)> {
        let mut words = command.split_whitespace();
        match words.next().unwrap() {
            "sysctl" => {
                let (_, assignments) = command.split_once("-w ").unwrap();
                match assignments.split_once("='") {
                    Some((name, value)) => self.sysctl(name, value.trim_end_matches('\'')),
                    None => assignments.split(' ').for_each(|assignment| {
                        let (name, value) = assignment.split_once('=').unwrap();
                        self.sysctl(name, value);
                    }),
                }
            }
            "ulimit" => {
                let limit = words.nth(1).unwrap();
                self.write(
                    "proc/self/limits",
                    &format!("Max open files  {limit}  {limit}  files\n"),
                );
            }
            "mkdir" => {
                let (_, limit) = command.split_once("LimitNOFILE=").unwrap();
                let limit = limit.split('\\').next().unwrap();
                self.write(
                    "proc/self/limits",
                    &format!("Max open files  {limit}  {limit}  files\n"),
                );
            }
            "export" => {
                let settings = words.filter_map(|word| word.split_once('='));
                return settings
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
            }
            "for" | "systemctl" => {
                let script = command.trim_start_matches("systemctl stop irqbalance; ");
                let root = self.0.display();
                let script = script
                    .replace("/sys/", &format!("{root}/sys/"))
                    .replace("/proc/", &format!("{root}/proc/"))
                    // The kernel derives one from the other.
                    .replace("smp_affinity_list", "effective_affinity_list");
                assert!(
                    Command::new("sh")
                        .args(["-c", &script])
                        .status()
                        .unwrap()
                        .success()
                );
            }
            other => panic!("{other}: what does it do?"),
        }
        Vec::new()
    }

    fn sysctl(&self, name: &str, value: &str) {
        self.write(&format!("proc/sys/{}", name.replace('.', "/")), value);
        if name == "fs.file-max" {
            self.write("proc/sys/fs/file-nr", &format!("100\t0\t{value}\n"));
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A folder that is left behind does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The target of a server with these settings that listens for other machines and uses all CPUs.
pub(crate) fn target(machine: &Machine, connections: u64, settings: &[(&str, &str)]) -> Target {
    let sources = ConfigSources::new(
        vec![("listen".to_owned(), "0.0.0.0:8000".to_owned())],
        settings.iter().map(|(name, value)| (name.into(), value.into())),
    );
    let config = sources.load().unwrap().config;
    let allowed: Vec<usize> = machine.cpus.iter().map(|cpu| cpu.number).collect();
    let cpus = Cpus::new(&allowed, allowed.len(), &machine.cpus);
    Target::new(
        &config,
        Some(connections),
        cpus.placement(&config.cores.placement),
        true,
    )
}

fn of_level(findings: &[Finding], level: Level) -> Vec<&'static str> {
    let found = findings.iter().filter(|finding| finding.level == level);
    found.map(|finding| finding.subject).collect()
}

#[test]
fn a_bare_metal_machine_is_read() {
    let machine = Fixture::new("bare-metal").machine();
    assert_eq!(machine.open_files_hard, Some(524_288));
    assert!(machine.may_raise_limits);
    assert_eq!(machine.files_open, Some(5120));
    assert_eq!(machine.tcp_mem, Some([1_542_000, 2_056_001, 3_084_000]));
    assert_eq!(machine.memory_available, Some(120 << 30));
    assert_eq!(machine.cgroup, Cgroup::default());
    assert_eq!(machine.cpus.len(), 32);
    assert_eq!(machine.cpus[24].siblings, [8, 24]);
    assert_eq!(machine.cpus[24].node, Some(1));
    // eth1 is down, docker0 and lo have no device; the ninth interrupt has never fired.
    assert_eq!(machine.cards.len(), 1);
    let card = &machine.cards[0];
    assert_eq!(
        (card.name.as_str(), card.node, card.receive_queues),
        ("eth0", Some(1), 8)
    );
    assert_eq!(card.interrupts.len(), 8);
}

#[test]
fn limits_of_control_groups_of_both_versions_are_read() {
    let second = Fixture::new("container-v2").machine();
    assert_eq!(second.cgroup.memory_bytes_max, Some(512 << 20));
    assert_eq!(second.cgroup.cpu_millis, Some(1500));
    let first = Fixture::new("container-v1").machine();
    assert_eq!(first.cgroup.memory_bytes_max, Some(1 << 30));
    assert_eq!(first.cgroup.cpu_millis, Some(2000));
}

#[test]
fn a_group_is_bound_by_the_groups_around_it() {
    let fixture = Fixture::new("bare-metal");
    fixture.write("sys/fs/cgroup/user.slice/memory.max", "1073741824\n");
    fixture.write(
        "sys/fs/cgroup/user.slice/session-1.scope/memory.max",
        "4294967296\n",
    );
    assert_eq!(fixture.machine().cgroup.memory_bytes_max, Some(1 << 30));
}

#[test]
fn the_memory_use_is_read_from_the_group_with_the_limit() {
    for (name, folder, used, stat) in [
        ("container-v2", "sys/fs/cgroup", "memory.current", "inactive_file"),
        (
            "container-v1",
            "sys/fs/cgroup/memory",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ] {
        let fixture = Fixture::new(name);
        let group = fixture.machine().memory_group().unwrap();
        assert_eq!(group.used_bytes(&fixture.0), None, "{name}");
        fixture.write(&format!("{folder}/{used}"), "300000000\n");
        assert_eq!(group.used_bytes(&fixture.0), Some(300_000_000), "{name}");
        let stat = format!("anon 7\n{stat} 50000000\nslab 9\n");
        fixture.write(&format!("{folder}/memory.stat"), &stat);
        assert_eq!(group.used_bytes(&fixture.0), Some(250_000_000), "{name}");
    }
    assert!(Fixture::new("bare-metal").machine().memory_group().is_none());
}

#[test]
fn version_1_without_a_limit_gives_no_limit() {
    let fixture = Fixture::new("container-v1");
    fixture.write(
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "9223372036854771712\n",
    );
    fixture.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    assert_eq!(fixture.machine().cgroup, Cgroup::default());
}

#[test]
fn nothing_is_concluded_from_missing_files() {
    let machine = reading::machine(Path::new("/nowhere"));
    let mut target = target(&machine, 1_000_000, &[("RINGCAST_CORES", "128")]);
    target.placement = (0..128).collect();
    let capacity = Capacity::of(&machine, &target);
    assert_eq!(capacity.connections, None);
    assert!(summary(&machine, &target).starts_with("the capacity is unknown, since no limit could be read"));
    assert_eq!(of_level(&findings(&machine, &target), Level::Stops), [""; 0]);
}

#[test]
fn the_tightest_limit_comes_first() {
    let fixture = Fixture::new("bare-metal");
    let machine = fixture.machine();
    let target = target(&machine, 1_000_000, &[]);
    let capacity = Capacity::of(&machine, &target);
    assert_eq!(capacity.bounds[0].limit, "nf_conntrack_max");
    assert_eq!(capacity.connections, Some(262_144 - 1200));
    fixture.sysctl("net.netfilter.nf_conntrack_max", "100000000");
    let next = Capacity::of(&fixture.machine(), &target);
    assert_eq!(next.bounds[0].limit, "fs.epoll.max_user_watches");
    // 32 tables of 524,288 each, less the descriptors that are not for connections.
    let files = next
        .bounds
        .iter()
        .find(|bound| bound.limit == "open files")
        .unwrap();
    assert_eq!(files.connections, 32 * (524_288 - 64 - 4 * 32));
}

#[test]
fn the_configuration_and_a_shared_table_are_limits_too() {
    let machine = Fixture::new("container-v1").machine();
    let own = target(&machine, 1000, &[("RINGCAST_CONNECTIONS_PER_CORE_MAX", "10")]);
    assert_eq!(Capacity::of(&machine, &own).connections, Some(40));
    assert_eq!(
        of_level(&findings(&machine, &own), Level::Stops),
        ["connections_per_core_max"]
    );
    let in_all = target(&machine, 1000, &[("RINGCAST_CONNECTIONS_MAX", "39")]);
    assert_eq!(Capacity::of(&machine, &in_all).connections, Some(39));
    let shared = target(&machine, 1000, &[("RINGCAST_FD_TABLES", "shared")]);
    assert_eq!(
        Capacity::of(&machine, &shared).connections,
        Some(4 * (1024 - 64 - 16))
    );
}

#[test]
fn a_limit_prevents_one_connection_more_than_it_allows_and_not_fewer() {
    let machine = Fixture::new("container-v1").machine();
    let room = Capacity::of(&machine, &target(&machine, 1, &[]))
        .connections
        .unwrap();
    assert_eq!(room, 4 * (4096 - 64 - 16));
    let stops = |connections| {
        of_level(
            &findings(&machine, &target(&machine, connections, &[])),
            Level::Stops,
        )
    };
    assert_eq!(stops(room), [""; 0]);
    assert_eq!(stops(room + 1), ["open files"]);
}

#[test]
fn memory_that_is_reported_as_enough_is_enough() {
    let machine = Fixture::new("container-v2").machine();
    let room = Capacity::of(&machine, &target(&machine, 1, &[]))
        .connections
        .unwrap();
    let stops = |connections| {
        of_level(
            &findings(&machine, &target(&machine, connections, &[])),
            Level::Stops,
        )
    };
    assert_eq!(stops(room), [""; 0]);
    assert_eq!(stops(room + 1), ["memory of the control group"]);
}

#[test]
fn faults_of_a_bare_metal_machine_are_found() {
    let machine = Fixture::new("bare-metal").machine();
    let findings = findings(&machine, &target(&machine, 1_000_000, &[]));
    assert_eq!(
        of_level(&findings, Level::Stops),
        ["net.netfilter.nf_conntrack_max"]
    );
    assert_eq!(
        of_level(&findings, Level::Slows),
        ["frequency governor", "interrupts of a network card"]
    );
    let notes = of_level(&findings, Level::Note);
    assert!(
        notes.contains(&"hyperthreads") && notes.contains(&"memory nodes"),
        "{notes:?}"
    );
    // Event loops on the physical cores of the card's node.
    let near = findings
        .iter()
        .find(|finding| finding.subject == "memory nodes")
        .unwrap();
    assert_eq!(near.commands, ["export RINGCAST_CORES=8-15"]);
}

#[test]
fn a_number_of_cores_uses_physical_cores_first() {
    for (name, count, placement) in [
        ("container-v1", 2, vec![0, 2]),
        ("container-v1", 4, vec![0, 2, 1, 3]),
        ("bare-metal", 16, (0..16).collect()),
    ] {
        let machine = Fixture::new(name).machine();
        let allowed: Vec<usize> = machine.cpus.iter().map(|cpu| cpu.number).collect();
        let cpus = Cpus::new(&allowed, allowed.len(), &machine.cpus);
        assert_eq!(cpus.placement(&Placement::Count(count)), placement, "{name}");
    }
}

#[test]
fn for_clients_on_this_machine_no_card_is_checked() {
    let machine = Fixture::new("bare-metal").machine();
    let mut target = target(&machine, 1000, &[]);
    target.remote = false;
    let findings = findings(&machine, &target);
    assert!(
        findings
            .iter()
            .all(|finding| finding.subject != "interrupts of a network card")
    );
}

/// Applies the first command of every finding to a copy of the machine, and checks again. If several commands
/// correct a finding step by step, it must at least matter less after the first.
#[test]
fn the_first_command_of_a_finding_corrects_it() {
    let without = [
        // No command adds memory to a machine; that of a container is set from outside.
        "memory",
        "memory of the control group",
    ];
    for (name, connections) in [
        ("bare-metal", 30_000_000),
        ("container-v1", 3_000_000),
        // Few enough connections for event loops that take turns.
        ("container-v1", 100_000),
        ("container-v2", 3_000_000),
    ] {
        let fixture = Fixture::new(name);
        let before = fixture.machine();
        // With a number of cores, hyperthreads of both nodes are in use where there are such.
        let settings = [
            ("RINGCAST_CORES", "24"),
            ("RINGCAST_CONNECTIONS_PER_CORE_MAX", "1000"),
        ];
        let all = findings(&before, &target(&before, connections, &settings));
        let wrong: Vec<&Finding> = all
            .iter()
            .filter(|finding| finding.level != Level::Fine)
            .collect();
        assert!(wrong.len() > 4, "{name}: {wrong:?}");
        for finding in wrong
            .into_iter()
            .filter(|finding| !without.contains(&finding.subject))
        {
            let mended = fixture.carry_out(&finding.commands[0]);
            let mut settings: Vec<(&str, &str)> = settings.to_vec();
            settings.retain(|(name, _)| mended.iter().all(|(other, _)| other != name));
            settings.extend(mended.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let after = fixture.machine();
            let now = findings(&after, &target(&after, connections, &settings));
            let same = now.iter().find(|other| other.subject == finding.subject);
            assert!(
                same.is_none_or(|same| same.level > finding.level),
                "{name}: after {:?}: {same:?}",
                finding.commands[0]
            );
        }
    }
}

#[test]
fn the_summary_names_the_tightest_limit_and_the_number_of_findings() {
    let machine = Fixture::new("bare-metal").machine();
    assert_eq!(
        summary(&machine, &target(&machine, 1_000_000, &[])),
        "up to 260,944 connections, bound by nf_conntrack_max, then 3,500,000 by fs.epoll.max_user_watches; \
         for 1,000,000 connections `ringcast tuning` finds 1 that prevent it and 2 to improve"
    );
}

#[test]
fn commands_spread_a_single_queue_and_split_a_shared_table() {
    let machine = Fixture::new("container-v1").machine();
    let mut target = target(&machine, 1000, &[]);
    target.own_fd_tables = false;
    let findings = findings(&machine, &target);
    let command = |subject| {
        let finding = findings.iter().find(|finding| finding.subject == subject);
        finding
            .and_then(|finding| finding.commands.first())
            .map(String::as_str)
    };
    assert_eq!(
        command("interrupts of a network card"),
        Some("for queue in /sys/class/net/eth0/queues/rx-*; do echo 0000000f > $queue/rps_cpus; done")
    );
    let split = command("descriptor tables").unwrap();
    assert!(split.starts_with("docker run --security-opt seccomp="), "{split}");
}

#[test]
fn the_tuning_scripts_change_what_they_announce() {
    let fixture = Fixture::new("bare-metal");
    let script = |words: &[&str]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
        let mut command = Command::new("sh");
        command
            .arg(folder.join(words[0]))
            .args(&words[1..])
            .env("ROOT", &fixture.0);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let read = |path: &str| fs::read_to_string(fixture.0.join(path)).unwrap();

    // `show` changes nothing.
    assert_eq!(script(&["irq.sh", "eth0", "8-11,24", "show"]).lines().count(), 9);
    assert_eq!(read("proc/irq/121/smp_affinity_list"), "0-31\n");
    script(&["irq.sh", "eth0", "8-11,24"]);
    let affinities = (120..129).map(|irq| read(&format!("proc/irq/{irq}/smp_affinity_list")));
    let affinities: String = affinities.collect();
    assert_eq!(affinities, "8\n9\n10\n11\n24\n8\n9\n10\n11\n");

    script(&["rps-xps.sh", "eth0", "0-1,31"]);
    assert_eq!(fixture.machine().cards[0].rps_cpus, [0, 1, 31]);
    let senders = (0..8).map(|queue| read(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus")));
    let senders: Vec<_> = senders.map(|mask| reading::cpu_mask(&mask).unwrap()).collect();
    assert_eq!(senders[..4], [vec![0], vec![1], vec![31], vec![]]);
    script(&["rps-xps.sh", "eth0", "off"]);
    assert_eq!(fixture.machine().cards[0].rps_cpus, [0; 0]);

    for cpu in 8..16 {
        fixture.write(&format!("sys/devices/system/node/node1/cpu{cpu}/online"), "1\n");
        fixture.write(
            &format!("sys/devices/system/node/node1/cpu{}/online", cpu + 16),
            "1\n",
        );
    }
    assert_eq!(
        script(&["numa.sh", "eth0"]),
        "node 1, CPUs 8,9,10,11,12,13,14,15\n"
    );
}
