//! `ringcast tuning`: compares this machine with the needs of a number of connections.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::CliError;
use crate::config::load::ConfigSources;
use crate::cores::fd_table;
use crate::machine::capacity::{Capacity, Needs};
use crate::machine::cpus::Cpus;
use crate::machine::findings::{Finding, Level, findings};
use crate::machine::{Machine, Target, bytes, grouped, reading};

/// The arguments of the command.
#[derive(Debug, Default)]
pub(super) struct TuningArguments {
    /// The number of connections; `None` for the number that the configuration allows.
    pub(super) connections: Option<u64>,
    pub(super) json: bool,
}

/// The report.
#[derive(Serialize)]
struct Report {
    connections: u64,
    cores: u64,
    cpus: Vec<usize>,
    own_fd_tables: bool,
    needs: Needs,
    capacity: Capacity,
    findings: Vec<Finding>,
}

/// Writes the report about this machine. The exit code tells whether anything prevents the target.
pub(super) fn tuning(
    sources: &ConfigSources,
    arguments: &TuningArguments,
    out: &mut impl Write,
) -> Result<u8, CliError> {
    let config = sources.load()?.config;
    let placement = Cpus::of_this_process().placement(&config.cores.placement);
    let target = Target::new(
        &config,
        arguments.connections,
        placement,
        fd_table::can_be_split(),
    );
    Ok(answer(
        &reading::machine(Path::new("/")),
        &target,
        arguments.json,
        out,
    )?)
}

/// Parses a number of connections, which is at least one.
pub(super) fn connections(text: &str) -> Result<u64, CliError> {
    let parsed = text.replace(['_', ','], "").parse();
    parsed
        .ok()
        .filter(|count| (1..=CONNECTIONS_MAX).contains(count))
        .ok_or_else(|| {
            CliError::Usage(format!(
                "--connections: found {text:?}, expected a number from 1 to {CONNECTIONS_MAX}"
            ))
        })
}

fn answer(machine: &Machine, target: &Target, json: bool, out: &mut impl Write) -> io::Result<u8> {
    let report = Report {
        connections: target.connections,
        cores: target.cores(),
        cpus: target.placement.clone(),
        own_fd_tables: target.own_fd_tables,
        needs: Needs::of(target),
        capacity: Capacity::of(machine, target),
        findings: findings(machine, target),
    };
    if json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        show(&report, target.remote, out)?;
    }
    let stopped = report
        .findings
        .iter()
        .any(|finding| finding.level == Level::Stops);
    Ok(if stopped { EXIT_STOPPED } else { 0 })
}

fn show(report: &Report, remote: bool, out: &mut impl Write) -> io::Result<()> {
    let needs = &report.needs;
    writeln!(
        out,
        "target    {} connections on {} cores, CPUs {:?}",
        grouped(report.connections),
        report.cores,
        report.cpus
    )?;
    writeln!(
        out,
        "needs     {} descriptors in a table; {} of memory: {} of the process, {} of the kernel, and an eighth; \
         heartbeats {}.{:02} of a CPU",
        grouped(needs.open_files),
        bytes(needs.memory_bytes()),
        bytes(needs.user_bytes),
        bytes(needs.kernel_bytes),
        needs.heartbeat_cpu_millis / 1000,
        needs.heartbeat_cpu_millis % 1000 / 10,
    )?;
    writeln!(out, "capacity  {}", report.capacity)?;
    for bound in &report.capacity.bounds {
        writeln!(
            out,
            "          {:>12}  {}: {}",
            grouped(bound.connections),
            bound.limit,
            bound.because
        )?;
    }
    if let Some(most) = report.capacity.with_message {
        writeln!(
            out,
            "          {:>12}  of them with a message in flight at the same time (net.ipv4.tcp_mem)",
            grouped(most)
        )?;
    }
    for finding in report
        .findings
        .iter()
        .filter(|finding| finding.level != Level::Fine)
    {
        show_finding(finding, out)?;
    }
    writeln!(out)?;
    let fine = report
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Fine);
    let fine: Vec<&str> = fine.map(|finding| finding.subject).collect();
    writeln!(out, "in order  {}", fine.join(", "))?;
    if !remote {
        writeln!(
            out,
            "          listens on loopback: network cards were not checked"
        )?;
    }
    let count = |level| {
        report
            .findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    writeln!(
        out,
        "in all    {} that prevent the target, {} that slow it down, {} to know",
        count(Level::Stops),
        count(Level::Slows),
        count(Level::Note)
    )
}

fn show_finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let level = match finding.level {
        Level::Stops => "STOPS",
        Level::Slows => "slows",
        Level::Note => "note",
        Level::Fine => "fine",
    };
    writeln!(out)?;
    writeln!(out, "{level:<8}  {}: {}", finding.subject, finding.found)?;
    writeln!(out, "          wanted: {}", finding.wanted)?;
    for (index, command) in finding.commands.iter().enumerate() {
        let word = if index == 0 { "fix" } else { "or" };
        writeln!(out, "          {word:>4}  {command}")?;
    }
    Ok(())
}

/// More than any machine can have; a larger number is probably a typing error.
const CONNECTIONS_MAX: u64 = 1_000_000_000;
/// Something prevents the target.
const EXIT_STOPPED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::answer as command;
    use crate::machine::tests::{Fixture, target};

    fn report(connections: u64, json: bool) -> (u8, String) {
        let machine = Fixture::new("bare-metal").machine();
        let mut out = Vec::new();
        let code = answer(&machine, &target(&machine, connections, &[]), json, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_finding_comes_with_its_command_and_the_exit_code_tells_whether_one_prevents_the_target() {
        let (code, text) = report(1_000_000, false);
        assert_eq!(code, EXIT_STOPPED, "{text}");
        for line in [
            "capacity  up to 260,944 connections, bound by nf_conntrack_max, then 3,500,000 by \
             fs.epoll.max_user_watches",
            "STOPS     net.netfilter.nf_conntrack_max: 262,144, 1,200 tracked",
            "           fix  sysctl -w net.netfilter.nf_conntrack_max=1048576 \
             net.netfilter.nf_conntrack_buckets=262144",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let (code, text) = report(260_944, false);
        assert_eq!(code, 0, "{text}");
        assert!(!text.contains("STOPS"), "{text}");
    }

    #[test]
    fn the_report_in_json_has_the_same_findings() {
        let (code, text) = report(1_000_000, true);
        assert_eq!(code, EXIT_STOPPED);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["connections"], 1_000_000);
        assert_eq!(report["capacity"]["connections"], 260_944);
        assert_eq!(report["findings"][0]["level"], "stops");
        assert_eq!(report["findings"][0]["subject"], "net.netfilter.nf_conntrack_max");
    }

    #[test]
    fn this_machine_can_be_checked() {
        let (code, text) = command(&["tuning", "--connections", "1", "--cores", "1", "--json"], &[]);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &report["cores"]), (0, &1.into()), "{text}");
    }

    #[test]
    fn a_number_of_connections_is_at_least_one() {
        for text in ["0", "", "many", "-1", "1000000001"] {
            let (code, answer) = command(&["tuning", "--connections", text], &[]);
            assert_eq!(code, 64, "{answer}");
            assert!(answer.contains("expected a number from 1"), "{answer}");
        }
        assert_eq!(connections("200_000").unwrap(), 200_000);
        assert_eq!(connections("1000000000").unwrap(), CONNECTIONS_MAX);
    }
}
