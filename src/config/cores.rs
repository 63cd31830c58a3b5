//! Event loops: how many, on which CPUs, and how each divides its time.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::form::{Kind, microseconds, parsed, word, words};
use super::settings::settings;

settings! {
    /// Event loops: how many, on which CPUs, and how each divides its time.
    cores: Cores {
        /// Event loops: `auto` (one for each CPU this process may run on, within its quota), how many, or a list of
        /// CPUs such as `0-3,6`.
        placement: Placement = Placement::Auto, "cores",
            parsed(Kind::TextOrNumber, "auto, a number from 1 to 128, or CPUs such as 0-3,6 (6-6 for one CPU)");

        /// Least time in microseconds for which a turn of an event loop sends publications to many subscribers, and
        /// heartbeats, before it reads calls again. If the turn before spent longer on other work, it sends for as
        /// long, so that calls cannot hold publications back.
        fan_out_slice: Duration = Duration::from_micros(500), "fan_out_slice_us", microseconds!(10 to 1000000);

        /// Microseconds for which an idle event loop looks for new work before it sleeps: latency goes down, CPU time
        /// goes up. An event loop that shares its CPU with another never does this. 0 sleeps at once.
        busy_poll: Duration = Duration::ZERO, "busy_poll_us", microseconds!(0 to 1000);

        /// Descriptor tables: `auto` gives each core its own where the system permits it, `shared` uses one for the
        /// process.
        fd_tables: FdTables = FdTables::Auto, "fd_tables", word();
    }
}

/// How many event loops there are, and on which CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// One for each CPU that this process may run on.
    #[default]
    Auto,
    /// This number, on the CPUs that this process may run on, in turn.
    Count(u16),
    /// One on each of these CPUs.
    Cpus(Vec<usize>),
}

impl Placement {
    /// Most event loops of a process: a set of cores in the broker has room for so many.
    pub const COUNT_MAX: u16 = 128;
    /// One more than the largest CPU number that a thread can be pinned to.
    const CPU_NUMBERS: u16 = 1024;

    /// The CPU of each core. `cpus` are the CPUs that this process may run on, and must not be empty.
    pub fn cpus(&self, cpus: &[usize]) -> Vec<usize> {
        match self {
            Placement::Auto => cpus
                .iter()
                .copied()
                .take(usize::from(Placement::COUNT_MAX))
                .collect(),
            Placement::Count(count) => cpus.iter().copied().cycle().take(usize::from(*count)).collect(),
            Placement::Cpus(list) => list.clone(),
        }
    }
}

impl FromStr for Placement {
    type Err = NotPlacement;

    fn from_str(text: &str) -> Result<Placement, NotPlacement> {
        if text == "auto" {
            return Ok(Placement::Auto);
        }
        if let Ok(count) = text.parse() {
            return if (1..=Placement::COUNT_MAX).contains(&count) {
                Ok(Placement::Count(count))
            } else {
                Err(NotPlacement)
            };
        }
        let mut cpus = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (
                first.trim().parse().map_err(|_| NotPlacement)?,
                last.trim().parse().map_err(|_| NotPlacement)?,
            );
            if first > last || last >= Placement::CPU_NUMBERS {
                return Err(NotPlacement);
            }
            for cpu in first..=last {
                // A CPU named twice is a mistake: a count can put two event loops on one CPU.
                if !cpus.insert(usize::from(cpu)) {
                    return Err(NotPlacement);
                }
            }
        }
        if cpus.len() > usize::from(Placement::COUNT_MAX) {
            return Err(NotPlacement);
        }
        Ok(Placement::Cpus(cpus.into_iter().collect()))
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Auto => formatter.write_str("auto"),
            Placement::Count(count) => write!(formatter, "{count}"),
            // A lone CPU is written as a range, since a lone number is a count.
            Placement::Cpus(cpus) if cpus.len() == 1 => write!(formatter, "{0}-{0}", cpus[0]),
            Placement::Cpus(cpus) => {
                for (index, cpu) in cpus.iter().enumerate() {
                    write!(formatter, "{}{cpu}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// The text is neither `auto`, nor a count, nor a list of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPlacement;

/// Whether each core has its own descriptor table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FdTables {
    /// Each core has its own where the system permits it.
    #[default]
    Auto,
    /// The process has one, which tools that read `/proc/PID/fd` understand.
    Shared,
}

words! { FdTables, Text, "auto or shared": "auto" => Auto, "shared" => Shared }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_auto_a_count_or_cpus() {
        for (text, cores) in [
            ("auto", Placement::Auto),
            ("1", Placement::Count(1)),
            ("128", Placement::Count(128)),
            ("0-3,6", Placement::Cpus(vec![0, 1, 2, 3, 6])),
            ("6-6", Placement::Cpus(vec![6])),
            ("6, 2", Placement::Cpus(vec![2, 6])),
            ("1023-1023", Placement::Cpus(vec![1023])),
        ] {
            assert_eq!(text.parse(), Ok(cores), "{text}");
        }
        for text in [
            "",
            "0",
            "1025",
            "-1",
            "many",
            "3-1",
            "0,0",
            "0-2,1",
            "1,",
            "1024-1024",
            "0-65536",
            "AUTO",
        ] {
            assert_eq!(text.parse::<Placement>(), Err(NotPlacement), "{text}");
        }
    }

    #[test]
    fn cores_read_back_as_they_are_shown() {
        for cores in [
            Placement::Auto,
            Placement::Count(7),
            Placement::Cpus(vec![6]),
            Placement::Cpus(vec![0, 1, 5]),
        ] {
            assert_eq!(cores.to_string().parse(), Ok(cores));
        }
    }

    #[test]
    fn more_cores_than_cpus_wrap_round() {
        assert_eq!(Placement::Auto.cpus(&[2, 3]), [2, 3]);
        assert_eq!(Placement::Count(1).cpus(&[2, 3]), [2]);
        assert_eq!(Placement::Count(5).cpus(&[2, 3]), [2, 3, 2, 3, 2]);
        assert_eq!(Placement::Cpus(vec![7]).cpus(&[2, 3]), [7]);
    }
}
