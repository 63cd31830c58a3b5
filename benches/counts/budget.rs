//! `benches/budget.toml`: the counts that were last agreed upon, and the comparison with the counts of this run.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde::Deserialize;

/// The cost of one operation.
pub(crate) struct Counts {
    pub(crate) name: String,
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// The counts agreed upon, by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// The compiler, the valgrind and the processor with which the counts were made.
    pub(crate) made_with: String,
    counts: BTreeMap<String, Agreed>,
}

/// The budget of one operation.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agreed {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// The result of comparing a count with its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The count is within its budget.
    Within,
    /// The count is above its budget: the check fails.
    Grew,
    /// The count is so far below its budget that the budget no longer guards it.
    Fell,
    /// The count has no budget yet: the check fails.
    New,
}

impl Verdict {
    pub(crate) fn note(self) -> &'static str {
        match self {
            Verdict::Within => "",
            Verdict::Grew => "  <-- GREW",
            Verdict::Fell => "  <-- fell",
            Verdict::New => "  <-- not in the budget",
        }
    }
}

impl Counts {
    pub(crate) fn judge(&self, agreed: Option<Agreed>) -> Verdict {
        let Some(agreed) = agreed else {
            return Verdict::New;
        };
        let allocations_least = if agreed.allocations < ALLOCATIONS_STEADY_MAX {
            ALLOCATIONS_LEAST_STEADY
        } else {
            ALLOCATIONS_LEAST
        };
        let instructions = change(self.instructions, agreed.instructions, INSTRUCTIONS_LEAST);
        let allocations = change(self.allocations, agreed.allocations, allocations_least);
        match (instructions, allocations) {
            (Verdict::Grew, _) | (_, Verdict::Grew) => Verdict::Grew,
            (Verdict::Fell, _) | (_, Verdict::Fell) => Verdict::Fell,
            _ => Verdict::Within,
        }
    }
}

/// Compares a count with its budget. A change counts if it is above the tolerance and above `least`.
fn change(now: f64, agreed: f64, least: f64) -> Verdict {
    let tolerated = (agreed * TOLERANCE).max(least);
    if now - agreed > tolerated {
        Verdict::Grew
    } else if agreed - now > tolerated {
        Verdict::Fell
    } else {
        Verdict::Within
    }
}

impl Budget {
    pub(crate) fn of(measured: Vec<Counts>) -> io::Result<Budget> {
        let counts = measured.into_iter().map(|counts| {
            let agreed = Agreed {
                instructions: counts.instructions,
                allocations: counts.allocations,
            };
            (counts.name, agreed)
        });
        Ok(Budget {
            made_with: made_with()?,
            counts: counts.collect(),
        })
    }

    pub(crate) fn read() -> io::Result<Budget> {
        toml::from_str(&fs::read_to_string(path())?).map_err(io::Error::other)
    }

    pub(crate) fn write(&self) -> io::Result<()> {
        let mut text = String::from(HEAD);
        // Writing to a string does not fail, and the quoted text has neither quotes nor backslashes.
        let _ = write!(text, "\nmade_with = \"{}\"\n\n[counts]\n", self.made_with);
        for (name, counts) in &self.counts {
            let (instructions, allocations) = (counts.instructions, counts.allocations);
            let _ = writeln!(
                text,
                "\"{name}\" = {{ instructions = {instructions:.1}, allocations = {allocations:.2} }}"
            );
        }
        fs::write(path(), text)
    }

    pub(crate) fn counts(&self, name: &str) -> Option<Agreed> {
        self.counts.get(name).copied()
    }

    pub(crate) fn names_not_in(&self, measured: &[Counts]) -> Vec<&str> {
        let names = self.counts.keys().map(String::as_str);
        names
            .filter(|name| measured.iter().all(|counts| counts.name != *name))
            .collect()
    }
}

/// The path of the budget.
pub(crate) fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/budget.toml")
}

/// The things besides the sources on which the counts depend. Libraries choose their code by the features of the
/// processor, and valgrind emulates one.
pub(crate) fn made_with() -> io::Result<String> {
    let rustc = first_line("rustc")?;
    let valgrind = first_line("valgrind")?;
    let vectors = if has_avx2() { "with" } else { "without" };
    Ok(format!(
        "{rustc}, {valgrind}, {} {vectors} AVX2",
        std::env::consts::ARCH
    ))
}

fn first_line(program: &str) -> io::Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

/// A count may grow by this share. Its variation from run to run is far smaller.
const TOLERANCE: f64 = 0.05;
/// Growth by less than this number of instructions per operation does not count.
const INSTRUCTIONS_LEAST: f64 = 2.0;
/// The same for allocations of operations that allocate, such as a connect: one allocation more counts.
const ALLOCATIONS_LEAST: f64 = 0.9;
/// The same for operations that do not allocate: a list that grows once in a hundred operations does not count.
const ALLOCATIONS_LEAST_STEADY: f64 = 0.01;
const ALLOCATIONS_STEADY_MAX: f64 = 0.5;

const HEAD: &str = "\
# What each step of a message may cost: user-space instructions and allocations for one operation, as callgrind and a
# counting allocator see them in the release build. `cargo bench --bench counts -- --check` fails when one has grown by
# over 5 %; `-- --update` writes this file anew. Other compilers and processors count differently.
";
