//! Memory that a configuration may take: the bounds of all that holds messages, added up.
//!
//! The memory of connections themselves comes on top (`capacity`); this counts only their bytes that wait to be sent.

use std::fmt;

use super::{CORE_BYTES, Machine, bytes};
use crate::config::limits::MemoryMax;
use crate::config::{Config, Limits};

/// What a configuration may take, part by part.
#[derive(Debug)]
pub(crate) struct MemoryPlan {
    parts: Vec<Part>,
    /// From how much memory in use on connections are refused; `None` without such a limit.
    refused_from: Option<u64>,
}

/// One item of the sum.
#[derive(Debug)]
struct Part {
    /// In words, with the setting that bounds it.
    name: String,
    /// Most bytes that it takes; `None` without a bound.
    bytes_max: Option<u64>,
}

impl MemoryPlan {
    /// What `config` may take with so many cores on this machine.
    pub(crate) fn of(config: &Config, cores: usize, machine: &Machine) -> MemoryPlan {
        let limits = &config.limits;
        let cores = cores as u64;
        let part = |name: &str, bytes_max| Part {
            name: name.to_owned(),
            bytes_max,
        };
        let of_each_core = |name: &str, bytes: u64| Part {
            name: format!("{name}, for each of {cores} cores"),
            bytes_max: Some(bytes.saturating_mul(cores)),
        };
        let mut parts = vec![
            part(
                "publications in the ring (limits.ring_bytes_max)",
                Some(limits.ring_bytes_max),
            ),
            part(
                "publications of the HTTP API and of the program (limits.outside_bytes_max)",
                Some(limits.outside_bytes_max),
            ),
            part(
                "messages of connections (limits.outbox_bytes_total_max)",
                outbox_bytes_total(limits, machine),
            ),
            of_each_core(
                "publications of clients that have left (limits.abandoned_bytes_max)",
                u64::from(limits.abandoned_bytes_max),
            ),
            of_each_core(
                "wills, and as many that wait for their delays (limits.wills_bytes_max)",
                2 * u64::from(limits.wills_bytes_max),
            ),
            of_each_core("buffers", CORE_BYTES),
        ];
        if config.channels.iter().any(|spec| spec.policy.remembers()) {
            parts.push(part(
                "remembered publications (limits.history_bytes_max)",
                Some(limits.history_bytes_max),
            ));
            parts.push(part(
                "histories that are being sent to subscribers (limits.recovery_bytes_max)",
                Some(limits.recovery_bytes_max),
            ));
        }
        if config.mqtt.is_used() {
            parts.push(part(
                "retained publications (mqtt_retained_bytes_max)",
                Some(config.mqtt.retained_bytes_max),
            ));
        }
        if config
            .channels
            .iter()
            .any(|channels| channels.policy.presence.is_on())
        {
            parts.push(of_each_core(
                "members of channels (limits.presence_members_max)",
                u64::from(limits.presence_members_max) * MEMBER_BYTES,
            ));
        }
        if config.store.data_dir.is_some() {
            parts.push(part(
                "changes that wait for the disk (limits.store_queue_bytes_max)",
                Some(limits.store_queue_bytes_max),
            ));
        }
        MemoryPlan {
            parts,
            refused_from: memory_bytes(limits, machine),
        }
    }

    /// The sum; `None` if a part has no bound.
    fn total(&self) -> Option<u64> {
        let mut parts = self.parts.iter();
        parts.try_fold(0_u64, |sum, part| Some(sum.saturating_add(part.bytes_max?)))
    }

    /// What is probably a mistake.
    pub(crate) fn warning(&self) -> Option<String> {
        let (total, refused_from) = (self.total()?, self.refused_from?);
        (total > refused_from).then(|| {
            format!(
                "the configuration may take {} for messages alone, and from {} on new connections are refused \
                 (limits.memory_bytes_max): lower what takes most, which ringcast check lists",
                bytes(total),
                bytes(refused_from)
            )
        })
    }
}

impl fmt::Display for MemoryPlan {
    /// Several lines: the sum, then each part.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bytes_max: Option<u64>| bytes_max.map_or_else(|| "no limit".to_owned(), bytes);
        write!(
            formatter,
            "memory: {} at most, beside the connections themselves",
            shown(self.total())
        )?;
        for part in &self.parts {
            write!(formatter, "\n  {:>10}  {}", shown(part.bytes_max), part.name)?;
        }
        Ok(())
    }
}

/// The bytes of one member of a channel: 120, and 256 for its name and info. A longer name or info counts as more
/// members.
const MEMBER_BYTES: u64 = 376;

/// Most bytes that all connections together may hold; `None` without a limit.
pub(crate) fn outbox_bytes_total(limits: &Limits, machine: &Machine) -> Option<u64> {
    match limits.outbox_bytes_total_max {
        MemoryMax::Off => None,
        MemoryMax::Bytes(bytes) => Some(bytes),
        MemoryMax::Auto => Some(match machine.memory_bytes_max() {
            Some(bytes) => bytes / 4,
            None => OUTBOX_BYTES_TOTAL_UNKNOWN,
        }),
    }
}

/// From how many bytes in use on connections are refused; `None` without a limit, or if the size of the memory cannot
/// be read.
pub(crate) fn memory_bytes(limits: &Limits, machine: &Machine) -> Option<u64> {
    match limits.memory_bytes_max {
        MemoryMax::Off => None,
        MemoryMax::Bytes(bytes) => Some(bytes),
        MemoryMax::Auto => machine.memory_bytes_max().map(|bytes| bytes - bytes / 10),
    }
}

/// `outbox_bytes_total_max = "auto"` where the size of the memory cannot be read.
const OUTBOX_BYTES_TOTAL_UNKNOWN: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::channels::{ChannelPolicy, ChannelSpec};

    fn machine(memory: u64) -> Machine {
        Machine {
            memory_total: Some(memory),
            ..Machine::default()
        }
    }

    #[test]
    fn the_parts_of_a_configuration_are_added_up() {
        let plan = MemoryPlan::of(&Config::default(), 2, &machine(4 << 30));
        assert_eq!(
            plan.to_string(),
            "memory: 1.1 GiB at most, beside the connections themselves\n    \
             64.0 MiB  publications in the ring (limits.ring_bytes_max)\n    \
             16.0 MiB  publications of the HTTP API and of the program (limits.outside_bytes_max)\n     \
             1.0 GiB  messages of connections (limits.outbox_bytes_total_max)\n    \
             32.0 MiB  publications of clients that have left (limits.abandoned_bytes_max), for each of 2 cores\n    \
             64.0 MiB  wills, and as many that wait for their delays (limits.wills_bytes_max), for each of 2 cores\n     \
             2.0 MiB  buffers, for each of 2 cores"
        );
        assert_eq!(plan.warning(), None);
    }

    #[test]
    fn what_policies_of_channels_may_take_counts_if_there_are_some() {
        let mut config = Config::default();
        let mut parts = |policy: ChannelPolicy| {
            config.channels = vec![ChannelSpec {
                names: vec!["**".to_owned()],
                policy,
                ..ChannelSpec::default()
            }];
            let plan = MemoryPlan::of(&config, 2, &machine(4 << 30)).to_string();
            ["history_bytes_max", "recovery_bytes_max"].map(|setting| plan.contains(setting))
        };
        let mut policy = ChannelPolicy::default();
        assert_eq!(parts(policy), [false; 2]);
        policy.last_value = true;
        assert_eq!(parts(policy), [true; 2]);
        config.store.data_dir = Some("data".into());
        let plan = MemoryPlan::of(&config, 2, &machine(4 << 30)).to_string();
        assert!(plan.contains("limits.store_queue_bytes_max"), "{plan}");
    }

    #[test]
    fn a_configuration_that_may_take_more_than_there_is_gets_a_warning() {
        let mut config = Config::default();
        config.limits.memory_bytes_max = MemoryMax::Bytes(1 << 30);
        config.limits.outbox_bytes_total_max = MemoryMax::Bytes((1 << 30) - (178 << 20));
        let warning = |config: &Config| MemoryPlan::of(config, 2, &machine(4 << 30)).warning();
        assert_eq!(warning(&config), None);
        config.limits.ring_bytes_max += 1;
        let text = warning(&config).unwrap();
        assert!(
            text.contains("may take 1.0 GiB") && text.contains("from 1.0 GiB on"),
            "{text}"
        );
        config.limits.outbox_bytes_total_max = MemoryMax::Off;
        assert_eq!(warning(&config), None, "the operator has chosen to have no limit");
        config.limits.outbox_bytes_total_max = MemoryMax::Bytes(1 << 40);
        config.limits.memory_bytes_max = MemoryMax::Off;
        assert_eq!(warning(&config), None);
    }

    #[test]
    fn auto_is_a_part_of_the_memory_that_there_is() {
        let limits = Limits::default();
        assert_eq!(outbox_bytes_total(&limits, &machine(4000)), Some(1000));
        assert_eq!(memory_bytes(&limits, &machine(4000)), Some(3600));
        let unknown = Machine::default();
        assert_eq!(
            outbox_bytes_total(&limits, &unknown),
            Some(OUTBOX_BYTES_TOTAL_UNKNOWN)
        );
        assert_eq!(memory_bytes(&limits, &unknown), None);
    }
}
