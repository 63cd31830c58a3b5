//! The CPUs that the cores are pinned to.
//!
//! Two hyperthreads of a physical core share its execution units and its caches: a second event loop there
//! gains only a fraction of the speed of one on a physical core of its own. So the first siblings of all
//! physical cores are used first, and `cores = 8` on 8 physical cores with 16 hyperthreads gets all eight
//! physical cores.

use std::path::Path;

use super::Cpu;
use super::reading;
use crate::config::Placement;

/// The CPUs that this process may run on.
#[derive(Clone, Debug)]
pub(crate) struct Cpus {
    /// In order of preference: first siblings first.
    allowed: Vec<usize>,
    /// How many of them it may use at a time: the quota of a container may be less.
    usable: usize,
}

impl Cpus {
    /// Asks the system. Must be called before any thread is pinned, since a pinned thread sees only its own
    /// CPU.
    pub(crate) fn of_this_process() -> Cpus {
        let listed = core_affinity::get_core_ids().unwrap_or_default();
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        let mut allowed: Vec<usize> = listed.into_iter().map(|cpu| cpu.id).collect();
        if allowed.is_empty() {
            allowed = (0..usable).collect();
        }
        Cpus::new(&allowed, usable, &reading::cpus(Path::new("/")))
    }

    /// Orders the CPUs: second siblings come last.
    pub(crate) fn new(allowed: &[usize], usable: usize, cpus: &[Cpu]) -> Cpus {
        // The position among the allowed siblings: if a first sibling is not allowed, its second sibling
        // counts as the first.
        let rank = |number: &usize| {
            let siblings = cpus.iter().find(|cpu| cpu.number == *number);
            siblings.map_or(0, |cpu| {
                let before = cpu.siblings.iter().take_while(|sibling| *sibling != number);
                before.filter(|sibling| allowed.contains(sibling)).count()
            })
        };
        let mut ordered = allowed.to_vec();
        ordered.sort_by_key(rank);
        Cpus {
            allowed: ordered,
            usable: usable.clamp(1, allowed.len().max(1)),
        }
    }

    /// The CPU of each core.
    pub(crate) fn placement(&self, wanted: &Placement) -> Vec<usize> {
        match wanted {
            Placement::Auto => wanted.cpus(self.usable()),
            Placement::Count(_) | Placement::Cpus(_) => wanted.cpus(&self.allowed),
        }
    }

    /// Checks that this process may run on the CPUs of the setting. With a number of cores there is nothing
    /// to check, since they share the allowed CPUs.
    ///
    /// # Errors
    /// The message about the CPUs that this process may not run on.
    pub(crate) fn missing(&self, wanted: &Placement) -> Result<(), String> {
        let Placement::Cpus(wanted) = wanted else {
            return Ok(());
        };
        let numbers = |cpus: &[usize]| {
            let mut cpus = cpus.to_vec();
            cpus.sort_unstable();
            let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
            cpus.join(",")
        };
        let missing = wanted.iter().copied().filter(|cpu| !self.allowed.contains(cpu));
        let missing: Vec<usize> = missing.collect();
        match missing.len() {
            0 => Ok(()),
            count => Err(format!(
                "cores: this process cannot run on CPU{} {}: it may run on {}",
                if count == 1 { "" } else { "s" },
                numbers(&missing),
                numbers(&self.allowed)
            )),
        }
    }

    /// As many CPUs as may be used at a time.
    pub(crate) fn usable(&self) -> &[usize] {
        &self.allowed[..self.usable.min(self.allowed.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(numbers: &[[usize; 2]]) -> Vec<Cpu> {
        let all = numbers.iter().flat_map(|pair| {
            pair.iter().map(|number| Cpu {
                number: *number,
                siblings: pair.to_vec(),
                node: None,
                governor: None,
            })
        });
        all.collect()
    }

    #[test]
    fn second_siblings_come_last_with_any_numbering() {
        let halves = pairs(&[[0, 4], [1, 5], [2, 6], [3, 7]]);
        let cpus = Cpus::new(&[0, 1, 2, 3, 4, 5, 6, 7], 8, &halves);
        assert_eq!(cpus.allowed, [0, 1, 2, 3, 4, 5, 6, 7]);
        let neighbours = pairs(&[[0, 1], [2, 3], [4, 5], [6, 7]]);
        let cpus = Cpus::new(&[0, 1, 2, 3, 4, 5, 6, 7], 8, &neighbours);
        assert_eq!(cpus.allowed, [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(cpus.placement(&Placement::Count(4)), [0, 2, 4, 6]);
        assert_eq!(cpus.placement(&Placement::Count(5)), [0, 2, 4, 6, 1]);
        assert_eq!(cpus.placement(&Placement::Auto), [0, 2, 4, 6, 1, 3, 5, 7]);
    }

    #[test]
    fn a_sibling_that_is_not_allowed_is_ignored() {
        let cpus = Cpus::new(&[1, 2, 3], 3, &pairs(&[[0, 1], [2, 3]]));
        assert_eq!(cpus.allowed, [1, 2, 3]);
    }

    #[test]
    fn a_configured_list_of_cpus_is_used_unchanged() {
        let cpus = Cpus::new(&[0, 1, 2, 3], 4, &pairs(&[[0, 1], [2, 3]]));
        assert_eq!(cpus.placement(&Placement::Cpus(vec![0, 1])), [0, 1]);
    }

    #[test]
    fn missing_cpus_of_a_configured_list_are_named() {
        let cpus = Cpus::new(&[3, 0, 2], 3, &[]);
        assert_eq!(cpus.missing(&Placement::Cpus(vec![0, 2])), Ok(()));
        assert_eq!(cpus.missing(&Placement::Count(9)), Ok(()));
        assert_eq!(
            cpus.missing(&Placement::Cpus(vec![0, 1, 4])).unwrap_err(),
            "cores: this process cannot run on CPUs 1,4: it may run on 0,2,3"
        );
    }

    #[test]
    fn auto_respects_the_quota_and_a_configured_number_does_not() {
        let cpus = Cpus::new(&[0, 1, 2, 3], 2, &pairs(&[[0, 1], [2, 3]]));
        assert_eq!(cpus.placement(&Placement::Auto), [0, 2]);
        assert_eq!(cpus.placement(&Placement::Count(3)), [0, 2, 1]);
    }

    #[test]
    fn without_known_siblings_the_order_stays() {
        assert_eq!(Cpus::new(&[3, 1, 2], 3, &[]).allowed, [3, 1, 2]);
    }
}
