//! The load generator without its `main`, so that tests can use it too.
//!
//! ```text
//!   options ─► scenario ─► bench ─┬─► server (starts and weighs it)
//!                                 ├─► crew ─► driver, one per thread ─► client, many ─► wire
//!                                 └─► monitor ─► result ─► table, JSON, report
//! ```
//!
//! A `Driver` needs none of the others: it runs N clients of one server on the calling thread.

mod bench;
mod client;
mod clock;
mod compare;
mod crew;
mod crowd;
mod driver;
mod machine;
mod monitor;
pub(crate) mod mqtt;
mod options;
pub(crate) mod order;
mod plan;
mod report;
mod result;
mod scenario;
mod schedule;
mod server;
mod sources;
mod table;
mod tally;
pub(crate) mod wire;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use options::{Asked, Options};
use report::Results;
use scenario::SCENARIOS;

/// Runs the scenario that the arguments ask for. The exit code is not 0 if the server made an error.
pub(crate) fn run(words: impl IntoIterator<Item = OsString>, out: &mut impl Write) -> io::Result<ExitCode> {
    // Ignore the argument that cargo adds for benches of another kind.
    let words: Vec<OsString> = words.into_iter().filter(|word| word != "--bench").collect();
    match words.split_first() {
        Some((first, words)) if first == "compare" => return compare::run(words.iter().cloned(), out),
        Some((first, words)) if first == "report" => return draw(words),
        Some(_) | None => {}
    }
    let options = match Options::parse(words) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Help) => {
            help(out)?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            writeln!(io::stderr(), "load: {error}")?;
            return Ok(ExitCode::from(EX_USAGE));
        }
    };
    let (json, output) = (options.json.clone(), options.report.clone());
    let Some(scenario) = options.scenario else {
        return Ok(ExitCode::from(EX_USAGE));
    };
    let run = scenario.run(*options)?;
    table::write(&run, out)?;
    if let Some(path) = json {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer_pretty(&mut file, &run)?;
        file.flush()?;
    }
    let failed = !run.faults.is_empty();
    Results::from(run).write(&output)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Writes the report of saved results.
fn draw(words: &[OsString]) -> io::Result<ExitCode> {
    if let Err(error) = report::command(words) {
        writeln!(io::stderr(), "load: {error}")?;
        return Ok(ExitCode::from(EX_USAGE));
    }
    Ok(ExitCode::SUCCESS)
}

fn help(out: &mut impl Write) -> io::Result<()> {
    out.write_all(HELP_HEAD.as_bytes())?;
    for scenario in SCENARIOS {
        writeln!(out, "  {:<18}{}", scenario.name, scenario.about)?;
    }
    writeln!(
        out,
        "  {:<18}several servers side by side: compare --help",
        "compare"
    )?;
    out.write_all(HELP_OPTIONS.as_bytes())
}

/// Exit code for a wrong command line (`sysexits.h`).
const EX_USAGE: u8 = 64;

const HELP_HEAD: &str = "\
Drives a server with many clients, checks every reply and delivery, and says what it cost.

Usage: cargo bench --bench load -- SCENARIO [options]
       cargo bench --bench load -- compare [--help]
       cargo bench --bench load -- report FILE.json... [--html FILE] [--svg DIRECTORY]

Scenarios, each with its own options and their defaults
";

const HELP_OPTIONS: &str = "
Options of all
  --threads N          threads of clients [one per CPU, more where descriptors want it]
  --cpus LIST          CPUs of the generator, such as 2-3,6 [the second half of those there are]
  --pending N          connections on their way at a time [500]
  --bytes N            carried by each publication besides its numbers [0; 48 with MQTT, for payloads of 64 bytes]
  --protocol NAME      socketcluster, mqtt (3.1.1) or mqtt5 [socketcluster]
  --qos N              of MQTT publications and subscriptions: 0, 1 or 2 [0]
  --filters KIND       of MQTT subscriptions: exact, or wildcard, which is +/TOPIC/# [exact]
  --keep-alive N       of MQTT clients that ping, in seconds [600]
  --json FILE          the result, for programs; for `report`, which draws several in one page
  --html FILE          the result as a page with plots
  --svg DIRECTORY      each plot as a file

The server is the release binary, started for the run, unless --address names another
  --server-cpus LIST   CPUs it may use [the first half]
  --server-cores N     its event loops [one per CPU, more where descriptors want it]
  --set NAME=VALUE     a setting, such as ping_interval_ms=25000; may be repeated
  --address IP:PORT    a server that runs already
  --path PATH          of its WebSocket [/socketcluster/]
  --pid PID            its process, for its CPU and memory; may be repeated
  --admin IP:PORT      its control plane, for its balance over cores
  --name NAME          in the result
";
