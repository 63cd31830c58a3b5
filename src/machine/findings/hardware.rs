//! Findings about CPUs, memory nodes and network cards.

use std::collections::BTreeSet;

use super::{Finding, Level};
use crate::machine::{Card, Cpu, Interrupt, Machine, Target};

pub(super) fn governor(machine: &Machine, target: &Target) -> Option<Finding> {
    let governors: BTreeSet<&str> = used(machine, target)
        .filter_map(|cpu| cpu.governor.as_deref())
        .collect();
    let names: Vec<&str> = governors.iter().copied().collect();
    if names.is_empty() {
        return None;
    }
    Some(
        Finding::new(
            "frequency governor",
            names.join(", "),
            "performance: with other governors a CPU slows down while it waits, and delays the first \
             messages afterwards",
        )
        .if_wrong(
            names != ["performance"],
            Level::Slows,
            [
                "for file in /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do echo performance > \
                 $file; done"
                    .to_owned(),
            ],
        ),
    )
}

pub(super) fn siblings(machine: &Machine, target: &Target) -> Option<Finding> {
    let used: Vec<&Cpu> = used(machine, target).collect();
    if used.is_empty() {
        return None;
    }
    let physical: BTreeSet<Option<&usize>> = used.iter().map(|cpu| cpu.siblings.first()).collect();
    Some(
        Finding::new(
            "hyperthreads",
            format!("{} CPUs on {} physical cores", used.len(), physical.len()),
            "one event loop for each physical core: a second one gains a fraction and slows the first",
        )
        .if_wrong(
            physical.len() < used.len(),
            Level::Note,
            [format!("export RINGCAST_CORES={}", physical.len())],
        ),
    )
}

pub(super) fn nodes(machine: &Machine, target: &Target) -> Option<Finding> {
    let nodes: BTreeSet<usize> = used(machine, target).filter_map(|cpu| cpu.node).collect();
    if nodes.is_empty() {
        return None;
    }
    let names: Vec<String> = nodes.iter().map(usize::to_string).collect();
    let card = cards_in_use(machine, target).find(|card| card.node.is_some());
    let home = card.and_then(|card| card.node);
    let wanted = match (card, home) {
        (Some(card), Some(node)) => format!("the CPUs of node {node}, where {} is", card.name),
        _ => {
            "one node: access to another node's memory takes half as long again, and all cores read the ring"
                .to_owned()
        }
    };
    // All cores read the ring. Without a network card to be close to, the first node is as good as any other.
    let best = home.or_else(|| nodes.first().copied());
    let cpus = first_siblings(machine, best);
    Some(
        Finding::new("memory nodes", format!("CPUs of {}", names.join(", ")), wanted).if_wrong(
            nodes.len() > 1 || home.is_some_and(|home| !nodes.contains(&home)),
            Level::Note,
            [format!("export RINGCAST_CORES={}", ranges(&cpus))],
        ),
    )
}

/// For each card: whether enough CPUs process its packets. Clients on this machine use no card.
pub(super) fn cards<'a>(machine: &'a Machine, target: &'a Target) -> impl Iterator<Item = Finding> + 'a {
    cards_in_use(machine, target).map(|card| interrupts(card, target))
}

fn interrupts(card: &Card, target: &Target) -> Finding {
    let hard: BTreeSet<usize> = card
        .interrupts
        .iter()
        .flat_map(|irq| &irq.cpus)
        .copied()
        .collect();
    // Sending has interrupts too, but there are never more receiving CPUs than queues.
    let receiving = hard.len().min(card.receive_queues).max(card.rps_cpus.len());
    let loops = target.cpus();
    let receiving = u64::try_from(receiving).unwrap_or(u64::MAX);
    let queues = u64::try_from(card.receive_queues).unwrap_or(u64::MAX);
    let pass_on = format!(
        "for queue in /sys/class/net/{}/queues/rx-*; do echo {} > $queue/rps_cpus; done",
        card.name,
        mask(&target.placement)
    );
    let (level, commands) = match () {
        // There are enough queues, but few CPUs serve their interrupts.
        () if receiving < loops.min(queues) => {
            (Level::Slows, vec![spread(&card.interrupts, &target.placement)])
        }
        // Usual in virtual machines.
        () if queues <= 1 => (Level::Slows, vec![pass_on]),
        () => (
            Level::Note,
            vec![format!("ethtool -L {} combined {loops}", card.name), pass_on],
        ),
    };
    let passed_on = match card.rps_cpus.as_slice() {
        [] => String::new(),
        cpus => format!(", passed on to CPUs {}", ranges(cpus)),
    };
    let hard: Vec<usize> = hard.into_iter().collect();
    Finding::new(
        "interrupts of a network card",
        format!(
            "{}: receive queues: {}, interrupts on CPUs {}{passed_on}, CPUs that receive: {receiving}",
            card.name,
            card.receive_queues,
            ranges(&hard),
        ),
        format!(
            "{loops} CPUs: as many as run event loops, so that none of them processes the packets of the others"
        ),
    )
    .if_wrong(receiving < loops, level, commands)
}

/// One CPU for each interrupt, in turn.
fn spread(interrupts: &[Interrupt], placement: &[usize]) -> String {
    let cpus = placement.iter().cycle().take(interrupts.len());
    let cpus: Vec<String> = cpus.map(usize::to_string).collect();
    let numbers: Vec<String> = interrupts.iter().map(|irq| irq.number.to_string()).collect();
    format!(
        "systemctl stop irqbalance; set -- {}; for irq in {}; do echo $1 > /proc/irq/$irq/smp_affinity_list; \
         shift; done",
        cpus.join(" "),
        numbers.join(" ")
    )
}

fn cards_in_use<'a>(machine: &'a Machine, target: &'a Target) -> impl Iterator<Item = &'a Card> {
    machine.cards.iter().filter(|_| target.remote)
}

/// The CPUs on which cores run.
fn used<'a>(machine: &'a Machine, target: &'a Target) -> impl Iterator<Item = &'a Cpu> {
    let cpus = machine.cpus.iter();
    cpus.filter(|cpu| target.placement.contains(&cpu.number))
}

fn first_siblings(machine: &Machine, node: Option<usize>) -> Vec<usize> {
    let cpus = machine.cpus.iter().filter(|cpu| cpu.node == node);
    cpus.filter(|cpu| cpu.siblings.first() == Some(&cpu.number))
        .map(|cpu| cpu.number)
        .collect()
}

/// `0-3,8`. A single CPU is written as `8-8`, since a single number would mean a count. The order of the CPUs
/// is kept.
fn ranges(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            Some(_) | None => runs.push((*cpu, *cpu)),
        }
    }
    let lone = runs.len() == 1;
    let runs: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| {
            if first == last && !lone {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    runs.join(",")
}

/// The CPUs as hexadecimal words of 32 bits, the highest first, in the format of `rps_cpus`.
fn mask(cpus: &[usize]) -> String {
    let highest = cpus.iter().max().map_or(0, |cpu| cpu / 32);
    let words = (0..=highest).rev().map(|word| {
        let bits = cpus.iter().filter(|cpu| **cpu / 32 == word);
        let word = bits.fold(0_u32, |word, cpu| word | 1 << (cpu % 32));
        format!("{word:08x}")
    });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::reading::{cpu_list, cpu_mask};

    #[test]
    fn written_ranges_and_masks_can_be_parsed_again() {
        for cpus in [vec![0], vec![0, 1, 2, 5], vec![3, 31, 32, 63, 64], vec![100]] {
            assert_eq!(cpu_list(&ranges(&cpus)), Some(cpus.clone()));
            assert_eq!(cpu_mask(&mask(&cpus)), Some(cpus.clone()));
        }
        assert_eq!(ranges(&[4]), "4-4");
        assert_eq!(ranges(&[0, 2, 3]), "0,2-3");
    }
}
