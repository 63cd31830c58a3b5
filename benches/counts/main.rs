//! How many instructions and allocations does each step of a message cost, and has one of these counts grown?
//!
//! The bench runs itself under callgrind, which counts instructions exactly. An allocator that counts, around the
//! binary's own, counts allocations. `parts.rs` measures single steps on one thread, `server.rs` and `mqtt.rs` the core
//! of a whole server while clients use it. Only user space counts; the kernel's work is not included.
//! `benches/budget.toml` has the counts that were last agreed upon.
//!
//! ```sh
//! cargo bench --bench counts              # prints the table
//! cargo bench --bench counts -- --check   # fails if a count has grown by over 5 %
//! cargo bench --bench counts -- --update  # makes this run the budget
//! ```
//! Needs valgrind (Debian: `valgrind`).
//!
//! How: when [`counted_begins`] is entered, valgrind resets the counts of the calling thread; when [`counted_ends`] is
//! entered, it writes them to a file. So the counts exclude the warm-up, and nothing needs to be subtracted.
#![allow(clippy::print_stdout)] // a bench prints

#[path = "../../tests/support/client.rs"]
mod client;
#[path = "../../tests/support/counting.rs"]
mod counting;
#[path = "../../tests/support/frame.rs"]
mod frame;

mod budget;
mod mqtt;
mod parts;
mod server;

use std::hint::black_box;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use budget::{Budget, Counts, Verdict};

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has(MEASURE) {
        parts::measure_all()?;
        server::measure_all()?;
        return Ok(ExitCode::SUCCESS);
    }
    let measured = measure_under_callgrind()?;
    if has("--update") {
        Budget::of(measured)?.write()?;
        println!("written: {}", budget::path().display());
        return Ok(ExitCode::SUCCESS);
    }
    let agreed = Budget::read()?;
    let verdicts: Vec<Verdict> = measured
        .iter()
        .map(|counts| counts.judge(agreed.counts(&counts.name)))
        .collect();
    print_table(&measured, &agreed, &verdicts);
    if !has("--check") {
        return Ok(ExitCode::SUCCESS);
    }
    let missing = agreed.names_not_in(&measured);
    conclude(&agreed, &verdicts, &missing)
}

/// A section of the program that was counted, as the child process reports it.
struct Section {
    /// Number of operations in the section.
    operations: u64,
    allocations: u64,
    name: String,
}

/// Counts the work of the calling thread during `work`, which performs `operations` operations.
fn section(name: &str, operations: u64, work: impl FnOnce()) -> io::Result<()> {
    counting::count_this_thread(true);
    let before = counting::asked().allocations;
    counted_begins();
    work();
    counted_ends();
    let allocations = counting::asked().allocations - before;
    counting::count_this_thread(false);
    Section::report(name, operations, allocations)
}

/// valgrind looks for this function and the next one by name. Their bodies only keep them different.
#[inline(never)]
fn counted_begins() {
    black_box("begins");
}

#[inline(never)]
fn counted_ends() {
    black_box("ends");
}

impl Section {
    fn report(name: &str, operations: u64, allocations: u64) -> io::Result<()> {
        writeln!(io::stdout(), "{operations}\t{allocations}\t{name}")
    }

    fn parse(line: &str) -> Option<Section> {
        let mut fields = line.splitn(3, '\t');
        Some(Section {
            operations: fields.next()?.parse().ok()?,
            allocations: fields.next()?.parse().ok()?,
            name: fields.next()?.to_owned(),
        })
    }
}

fn measure_under_callgrind() -> io::Result<Vec<Counts>> {
    let folder = Scratch::new()?;
    let file = format!("--callgrind-out-file={}", folder.0.join("counts").display());
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--separate-threads=yes"])
        // Under valgrind one thread runs at a time. Fair scheduling lets the others answer while one is busy.
        .args(["--fair-sched=try", &file])
        .args([
            "--zero-before=counts::counted_begins",
            "--dump-before=counts::counted_ends",
        ])
        .args([
            "--zero-before=*counted_section*",
            "--dump-after=*counted_section*",
        ])
        .arg(std::env::current_exe()?)
        .arg(MEASURE)
        .output()
        .map_err(|error| io::Error::other(format!("valgrind (Debian: valgrind) does not run: {error}")))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "under valgrind: {}\n{errors}",
            output.status
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let sections = text.lines().filter_map(Section::parse);
    sections
        .enumerate()
        .map(|(index, section)| {
            let instructions = instructions(&folder.0, index + 1)?;
            Ok(Counts {
                instructions: instructions as f64 / section.operations as f64,
                allocations: section.allocations as f64 / section.operations as f64,
                name: section.name,
            })
        })
        .collect()
}

/// The instructions of one section. callgrind calls it a part and writes it to the file `counts.PART-THREAD`.
fn instructions(folder: &Path, part: usize) -> io::Result<u64> {
    let start = format!("counts.{part}-");
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&start) {
            let profile = std::fs::read_to_string(entry.path())?;
            let totals = profile.lines().find_map(|line| line.strip_prefix("totals: "));
            let totals = totals.and_then(|count| count.trim().parse().ok());
            return totals.ok_or_else(|| io::Error::other("callgrind has written no totals"));
        }
    }
    Err(io::Error::other(format!(
        "callgrind has written nothing for part {part}: does it know `counted_ends` by another name?"
    )))
}

fn print_table(measured: &[Counts], agreed: &Budget, verdicts: &[Verdict]) {
    println!("user-space instructions and allocations for each");
    println!("instructions    budget  allocations    budget");
    for (counts, verdict) in measured.iter().zip(verdicts) {
        let budget = agreed.counts(&counts.name).map(|agreed| {
            (
                format!("{:.1}", agreed.instructions),
                format!("{:.2}", agreed.allocations),
            )
        });
        let (instructions, allocations) = budget.unwrap_or_default();
        println!(
            "{:>12.1}  {instructions:>8}  {:>11.2}  {allocations:>8}  {}{}",
            counts.instructions,
            counts.allocations,
            counts.name,
            verdict.note()
        );
    }
}

fn conclude(agreed: &Budget, verdicts: &[Verdict], missing: &[&str]) -> io::Result<ExitCode> {
    let update = "`cargo bench --bench counts -- --update`";
    if verdicts.contains(&Verdict::Fell) {
        println!("A count fell: write it down with {update}, so that it stays there.");
    }
    for name in missing {
        println!("In the budget but not measured: {name}");
    }
    let is_over =
        verdicts.contains(&Verdict::Grew) || verdicts.contains(&Verdict::New) || !missing.is_empty();
    if !is_over {
        return Ok(ExitCode::SUCCESS);
    }
    println!("Not within the budget. If the cost is worth it, {update} agrees to it; say why in the commit.");
    let here = budget::made_with()?;
    if here != agreed.made_with {
        println!("Compilers and processors differ in their counts. The budget was made with");
        println!("  {}\nand this run with\n  {here}", agreed.made_with);
    }
    Ok(ExitCode::FAILURE)
}

/// A folder that is removed when the value is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        let folder = std::env::temp_dir().join(format!("ringcast-counts-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that remains is among the temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The argument that tells the program that it runs under callgrind.
const MEASURE: &str = "measure-under-callgrind";
