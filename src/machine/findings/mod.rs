//! What on this machine stops a target, slows it down, or is worth knowing: each with the command that mends it.
//!
//! A check that could not read its files finds nothing; one that finds everything in order says so, so that an
//! operator sees what has been looked at.

mod hardware;
mod kernel;
mod limits;

use serde::Serialize;

use super::{Machine, Target};

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) subject: &'static str,
    pub(crate) level: Level,
    /// What there is.
    pub(crate) found: String,
    /// What the target wants, and why.
    pub(crate) wanted: String,
    /// Commands for a root shell, any one of which mends it; the most likely to be permitted first.
    pub(crate) commands: Vec<String>,
}

/// How much it matters to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// The target cannot be reached.
    Stops,
    /// It can, but not as well as this machine could.
    Slows,
    /// It matters to some.
    Note,
    /// As it should be.
    Fine,
}

/// Everything that was looked at, what matters most first.
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

    /// Of this level, with the commands that mend it, where it is wrong.
    fn if_wrong(self, wrong: bool, level: Level, commands: impl IntoIterator<Item = String>) -> Finding {
        match wrong {
            true => Finding {
                level,
                commands: commands.into_iter().collect(),
                ..self
            },
            false => self,
        }
    }
}

fn sysctl(name: &str, value: impl std::fmt::Display) -> String {
    format!("sysctl -w {name}={value}")
}

/// A round number of at least so much, so that the same command serves a target that grows a little.
fn rounded_up(number: u64) -> u64 {
    number.checked_next_power_of_two().unwrap_or(number)
}
