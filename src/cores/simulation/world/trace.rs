//! The record of a run: a number for all that has happened, and the latest actions in words, which a failure prints.

use std::collections::VecDeque;
use std::io::Write;

/// Everything that has happened: as a number, and the latest actions in words.
#[derive(Debug)]
pub(in crate::cores::simulation) struct Trace {
    seed: Option<u64>,
    /// Whether the same seed has the same result, whatever other threads do.
    replays: bool,
    step: usize,
    hash: u64,
    last: VecDeque<String>,
}

impl Trace {
    pub(super) fn new(seed: Option<u64>, replays: bool) -> Trace {
        Trace {
            seed,
            replays,
            step: 0,
            hash: 0xCBF2_9CE4_8422_2325,
            last: VecDeque::with_capacity(ACTIONS_KEPT),
        }
    }

    /// Adds a number to the sum of all that has happened.
    pub(in crate::cores::simulation) fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number)
            .wrapping_mul(0x0100_0000_01B3)
            .rotate_left(17);
    }

    pub(in crate::cores::simulation) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn note(&mut self, at_us: u64, what: &str) {
        self.step += 1;
        for &byte in what.as_bytes() {
            self.mix(u64::from(byte));
        }
        if self.last.len() == ACTIONS_KEPT {
            self.last.pop_front();
        }
        self.last
            .push_back(format!("{:>5} {:>12} µs  {what}", self.step, at_us));
    }
}

impl Drop for Trace {
    /// Prints the way to a failure, no matter where it was found.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut text = String::from("the last that was done:\n");
        for line in &self.last {
            text.push_str(line);
            text.push('\n');
        }
        if let Some(seed) = self.seed {
            let end = seed + 1;
            text.push_str(&format!(
                "seed {seed}, step {}: RINGCAST_SEEDS={seed}..{end} cargo test --lib simulation\n",
                self.step
            ));
        }
        if !self.replays {
            text.push_str(
                "This system does not permit unshare(CLONE_FILES): other tests of the process can be seen in the run, \
                 and only with --test-threads=1 does it repeat itself.\n",
            );
        }
        // There is no other use for a failed write.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// The text that describes a failure.
const ACTIONS_KEPT: usize = 50;
