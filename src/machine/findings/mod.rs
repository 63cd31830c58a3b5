//! Findings: properties of this machine that prevent a target, slow the server down, or are worth knowing, each with
//! the command that corrects it.
//!
//! A check whose files cannot be read returns nothing. A check that finds everything in order also returns a
//! finding, so that an operator sees all checks.

mod hardware;
mod kernel;
mod limits;

use serde::Serialize;

use super::{Machine, Target};

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) subject: &'static str,
    pub(crate) level: Level,
    /// The present state.
    pub(crate) found: String,
    /// What the target needs, and why.
    pub(crate) wanted: String,
    /// Commands for a root shell, each of which corrects it; the command that is most likely to be permitted
    /// comes first.
    pub(crate) commands: Vec<String>,
}

/// How much a finding matters to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// The target cannot be reached.
    Stops,
    /// The target can be reached, but this machine could perform better.
    Slows,
    /// It matters to some uses.
    Note,
    /// In order.
    Fine,
}

/// All findings, the most important first.
pub(crate) fn findings(machine: &Machine, target: &Target) -> Vec<Finding> {
    let checks: &[fn(&Machine, &Target) -> Option<Finding>] = &[
        limits::open_files,
        limits::nr_open,
        limits::connections_per_core,
        limits::descriptor_tables,
        limits::file_max,
        limits::epoll_watches,
        limits::memory,
        limits::cgroup_memory,
        limits::cgroup_cpu,
        limits::heartbeats,
        kernel::backlog,
        kernel::somaxconn,
        kernel::syn_backlog,
        kernel::tcp_mem,
        kernel::tcp_rmem,
        kernel::tcp_wmem,
        kernel::conntrack,
        kernel::ports,
        kernel::time_wait,
        kernel::slow_start,
        hardware::governor,
        hardware::siblings,
        hardware::nodes,
    ];
    let mut found: Vec<Finding> = checks.iter().filter_map(|check| check(machine, target)).collect();
    found.extend(hardware::cards(machine, target));
    found.sort_by_key(|finding| finding.level);
    found
}

impl Finding {
    fn new(subject: &'static str, found: impl Into<String>, wanted: impl Into<String>) -> Finding {
        Finding {
            subject,
            level: Level::Fine,
            found: found.into(),
            wanted: wanted.into(),
            commands: Vec::new(),
        }
    }

    /// Sets this level and the commands that correct the finding, if it is wrong.
    fn if_wrong(self, wrong: bool, level: Level, commands: impl IntoIterator<Item = String>) -> Finding {
        if wrong {
            Finding {
                level,
                commands: commands.into_iter().collect(),
                ..self
            }
        } else {
            self
        }
    }
}

fn sysctl(name: &str, value: impl std::fmt::Display) -> String {
    format!("sysctl -w {name}={value}")
}

/// A round number of at least this size, so that the command also serves a target that grows a little.
fn rounded_up(number: u64) -> u64 {
    number.checked_next_power_of_two().unwrap_or(number)
}
