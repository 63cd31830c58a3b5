//! The texts and numbers of runs: title, warnings, most important figures, tables, origin.

use super::super::chart::Unit;
use super::super::chart::units::{number, thousands};
use super::super::page::{Notice, Section, Table, Tile};
use super::super::result::{Latency, Limit, Phase, Run, ServerUse};
use super::sweep::servers;

pub(super) fn title(runs: &[Run]) -> String {
    let servers = servers(runs).join(", ");
    let mut scenarios: Vec<&str> = runs.iter().map(|run| run.scenario.as_str()).collect();
    scenarios.dedup();
    match scenarios.as_slice() {
        [] => "No runs".to_owned(),
        [only] => format!("{servers}: {only}"),
        _ => format!("{servers} under load"),
    }
}

pub(super) fn lead(runs: &[Run]) -> String {
    let Some(run) = runs.first() else {
        return "The files hold no runs.".to_owned();
    };
    let machine = &run.machine;
    let mut lead = format!(
        "Measured on {} of {} with {} of memory, Linux {}.",
        plural(machine.cpus as f64, "CPU", "CPUs"),
        machine.cpu_model,
        Unit::Bytes.value(machine.memory_bytes as f64),
        machine.kernel
    );
    if let Some(cores) = run.server.cores {
        lead.push_str(&format!(
            " {} ran {}, the load generator {}.",
            run.server.name,
            plural(cores as f64, "event loop", "event loops"),
            plural(run.generator.threads as f64, "thread", "threads")
        ));
    }
    lead
}

pub(super) fn notices(runs: &[Run]) -> Vec<Notice> {
    let mut notices = Vec::new();
    let faults: u64 = runs.iter().map(|run| run.faults.count).sum();
    let phases = || runs.iter().flat_map(|run| &run.phases);
    let checked: u64 = phases()
        .map(|phase| phase.counts.replies + phase.counts.deliveries)
        .sum();
    if faults == 0 && checked > 0 {
        notices.push(Notice {
            good: true,
            text: format!(
                "All {} replies and deliveries were checked: the right ids, in order, exactly once.",
                thousands(checked as f64)
            ),
        });
    }
    for run in runs.iter().filter(|run| !run.faults.is_empty()) {
        notices.push(Notice {
            good: false,
            text: format!(
                "{} failed: {}, first {}",
                run.scenario,
                plural(run.faults.count as f64, "fault", "faults"),
                run.faults.first.join("; ")
            ),
        });
    }
    let limited = |limit: Limit| -> Vec<&str> {
        phases()
            .filter(|phase| phase.limit == limit)
            .map(|phase| phase.name.as_str())
            .collect()
    };
    let own = limited(Limit::Generator);
    if !own.is_empty() {
        notices.push(Notice {
            good: false,
            text: format!(
                "The load generator was the limit, not the server, in: {}. Read those figures as what the server did \
                 at least.",
                own.join(", ")
            ),
        });
    }
    notices
}

pub(super) fn tiles(runs: &[Run]) -> Vec<Tile> {
    let phases = || runs.iter().flat_map(|run| &run.phases);
    let uses = || phases().filter_map(|phase| Some((phase, phase.server.as_ref()?)));
    let mut tiles = Vec::new();
    let mut tile = |label: &str, value: String, detail: String| {
        tiles.push(Tile {
            value,
            label: label.to_owned(),
            detail,
        });
    };
    if let Some(phase) = phases().max_by_key(|phase| phase.connections)
        && phase.connections > 0
    {
        tile(
            "connections",
            thousands(phase.connections as f64),
            "open at once".to_owned(),
        );
    }
    if let Some(phase) =
        phases().max_by(|one, other| one.messages_per_second.total_cmp(&other.messages_per_second))
        && phase.messages_per_second > 0.0
    {
        let rate = format!("{}/s", Unit::Count.value(phase.messages_per_second));
        tile("messages, both ways", rate, phase.name.clone());
    }
    let timed =
        phases().filter_map(|phase| Some((phase, phase.latency.as_ref().or(phase.delivery.as_ref())?)));
    // The highest load at which neither server nor generator was the limit.
    let held = timed.filter(|(phase, _)| phase.limit == Limit::Neither);
    if let Some((phase, latency)) =
        held.max_by(|one, other| one.0.messages_per_second.total_cmp(&other.0.messages_per_second))
    {
        tile("latency, p99", micros(latency.p99_us), phase.name.clone());
    }
    let least = |of: Cost| {
        uses()
            .filter_map(|(phase, used)| Some((phase, of(used)?)))
            .min_by(|one, other| one.1.total_cmp(&other.1))
    };
    for (label, of) in COSTS {
        if let Some((phase, us)) = least(of) {
            tile(&format!("server CPU per {label}"), micros(us), phase.name.clone());
        }
    }
    let crowd = uses().filter_map(|(phase, used)| Some((phase.connections, used.user_bytes_per_connection?)));
    // With few connections, the pages of the allocator dominate.
    let crowd = crowd.filter(|(connections, _)| *connections >= CROWD_MIN);
    if let Some((connections, bytes)) = crowd.max_by_key(|(connections, _)| *connections) {
        let detail = format!("at {} connections", thousands(connections as f64));
        tile("user space per connection", Unit::Bytes.value(bytes), detail);
    }
    tiles
}

/// The phases of a run in numbers.
pub(super) fn tables(run: &Run) -> Vec<Table> {
    vec![
        table("Load and latency", &run.phases, &LOAD),
        table("What it cost", &run.phases, &COST),
    ]
}

/// A table with the columns that have a value in at least one phase.
fn table(title: &str, phases: &[Phase], columns: &[Column]) -> Table {
    let kept: Vec<&Column> = columns
        .iter()
        .filter(|column| phases.iter().any(|phase| (column.of)(phase).is_some()))
        .collect();
    let head = std::iter::once("phase".to_owned()).chain(kept.iter().map(|column| column.head.to_owned()));
    let rows = phases.iter().map(|phase| {
        let cells = kept
            .iter()
            .map(|column| (column.of)(phase).unwrap_or_else(|| "–".to_owned()));
        std::iter::once(phase.name.clone()).chain(cells).collect()
    });
    Table {
        title: title.to_owned(),
        head: head.collect(),
        rows: rows.collect(),
    }
}

/// A column of a table: its heading, and its value for a phase.
struct Column {
    head: &'static str,
    of: fn(&Phase) -> Option<String>,
}

const fn column(head: &'static str, of: fn(&Phase) -> Option<String>) -> Column {
    Column { head, of }
}

const LOAD: [Column; 11] = [
    column("seconds", |phase| Some(number(phase.seconds))),
    column("connections", |phase| Some(thousands(phase.connections as f64))),
    column("offered, messages/s", |phase| {
        phase.offered_per_second.map(thousands)
    }),
    column("messages/s", |phase| Some(thousands(phase.messages_per_second))),
    column("p50", |phase| time(phase, |latency| latency.p50_us)),
    column("p99", |phase| time(phase, |latency| latency.p99_us)),
    column("p99.9", |phase| time(phase, |latency| latency.p999_us)),
    column("max", |phase| time(phase, |latency| latency.max_us)),
    column("connect to open, p99", |phase| {
        phase.opening.as_ref().map(|latency| micros(latency.p99_us))
    }),
    column("first to last delivery", |phase| {
        phase.first_to_last_delivery_ms.map(|ms| micros(ms * 1e3))
    }),
    column("limited by", |phase| match phase.limit {
        Limit::Neither => None,
        Limit::Server => Some("server".to_owned()),
        Limit::Generator => Some("generator".to_owned()),
    }),
];

const COST: [Column; 9] = [
    column("server, CPUs", |phase| {
        phase.server.as_ref().map(|used| number(used.cpu))
    }),
    column("generator, share of its CPUs", |phase| {
        Some(Unit::Share.value(phase.generator_cpu))
    }),
    column("CPU per ping", |phase| {
        used(phase, |used| used.cpu_us_per_ping).map(micros)
    }),
    column("CPU per delivery", |phase| {
        used(phase, |used| used.cpu_us_per_delivery).map(micros)
    }),
    column("CPU per connection", |phase| {
        used(phase, |used| used.cpu_us_per_connection).map(micros)
    }),
    column("PSS", |phase| {
        used(phase, |used| used.pss_bytes.map(|bytes| bytes as f64)).map(bytes)
    }),
    column("user space per connection", |phase| {
        used(phase, |used| used.user_bytes_per_connection).map(bytes)
    }),
    column("kernel slab per connection", |phase| {
        used(phase, |used| used.kernel_bytes_per_connection).map(bytes)
    }),
    column("socket buffers per connection", |phase| {
        used(phase, |used| used.socket_buffer_bytes_per_connection).map(bytes)
    }),
];

/// Gets a cost, if it was measured.
type Cost = fn(&ServerUse) -> Option<f64>;

/// The units by which CPU time is divided.
const COSTS: [(&str, Cost); 3] = [
    ("ping", |used| used.cpu_us_per_ping),
    ("delivery", |used| used.cpu_us_per_delivery),
    ("connection", |used| used.cpu_us_per_connection),
];

/// The machine and the commands that repeat the runs.
pub(super) fn origin(runs: &[Run]) -> Option<Section> {
    let run = runs.first()?;
    let mut commands: Vec<String> = runs
        .iter()
        .map(|run| format!("cargo bench --bench load -- {}", run.command))
        .collect();
    commands.dedup();
    let servers = runs.iter().map(|run| {
        let version = run.server.version.as_deref().unwrap_or("of unknown version");
        let cpus = if run.server.cpus.is_empty() {
            String::new()
        } else {
            format!(" on CPUs {:?}", run.server.cpus)
        };
        format!(
            "{} {version}{cpus}; load generator on CPUs {:?}.",
            run.server.name, run.generator.cpus
        )
    });
    let mut notes: Vec<String> = servers.collect();
    notes.dedup();
    notes.push(format!(
        "{} open files per descriptor table.",
        thousands(run.machine.descriptors_max as f64)
    ));
    Some(Section {
        title: "To repeat it".to_owned(),
        commands,
        notes,
        ..Section::default()
    })
}

fn time(phase: &Phase, of: fn(&Latency) -> f64) -> Option<String> {
    phase
        .latency
        .as_ref()
        .or(phase.delivery.as_ref())
        .map(|latency| micros(of(latency)))
}

fn used(phase: &Phase, of: Cost) -> Option<f64> {
    phase.server.as_ref().and_then(of)
}

fn micros(us: f64) -> String {
    Unit::Seconds.value(us / 1e6)
}

fn bytes(bytes: f64) -> String {
    Unit::Bytes.value(bytes)
}

fn plural(count: f64, one: &str, more: &str) -> String {
    format!("{} {}", thousands(count), if count == 1.0 { one } else { more })
}

const CROWD_MIN: u64 = 1000;
