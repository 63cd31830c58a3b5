//! Prints the result for a terminal.

use std::io::{self, Write};

use super::result::{Latency, Limit, Phase, Run};

/// Writes the result of a run.
pub(crate) fn write(run: &Run, out: &mut impl Write) -> io::Result<()> {
    let server = &run.server;
    writeln!(
        out,
        "{}: {} {} on {}, {} cores on CPUs {:?}; generator: {} threads on CPUs {:?}",
        run.scenario,
        server.name,
        server.version.as_deref().unwrap_or(""),
        server.address,
        server
            .cores
            .map_or_else(|| "?".to_owned(), |cores| cores.to_string()),
        server.cpus,
        run.generator.threads,
        run.generator.cpus,
    )?;
    for phase in &run.phases {
        write_phase(phase, out)?;
    }
    if run.cores.len() > 1 {
        let connections: Vec<u64> = run.cores.iter().map(|core| core.connections).collect();
        writeln!(out, "connections by core at the end: {connections:?}")?;
    }
    if let Some(bytes) = run.generator.bytes_per_connection {
        writeln!(out, "generator's memory per connection: {bytes:.0} bytes")?;
    }
    for note in &run.notes {
        writeln!(out, "{note}")?;
    }
    for text in &run.faults.first {
        writeln!(out, "FAULT: {text}")?;
    }
    match run.faults.count {
        0 => writeln!(out, "no faults: every reply and delivery was right"),
        count => writeln!(out, "{count} faults: THE RUN HAS FAILED"),
    }
}

fn write_phase(phase: &Phase, out: &mut impl Write) -> io::Result<()> {
    let offered = phase
        .offered_per_second
        .map_or_else(String::new, |offered| format!(" of {offered:.0} offered"));
    writeln!(
        out,
        "\n{} ({:.1} s): {} connections, {:.0} messages/s{offered}",
        phase.name, phase.seconds, phase.connections, phase.messages_per_second
    )?;
    let counts = &phase.counts;
    for (name, count) in [
        ("opened", counts.opened),
        ("closed", counts.closed),
        ("closed by the server", counts.closed_by_server),
        ("pings", counts.pings),
        ("replies", counts.replies),
        ("publications", counts.publications),
        ("deliveries", counts.deliveries),
        ("heartbeats answered", counts.heartbeats),
        ("pings withheld", counts.withheld),
    ] {
        if count > 0 {
            writeln!(out, "  {name:<24}{count:>12}")?;
        }
    }
    for (name, latency) in [
        ("ping to reply", &phase.latency),
        ("publish to delivery", &phase.delivery),
        ("connect to open", &phase.opening),
        ("sent late by", &phase.lateness),
    ] {
        if let Some(latency) = latency {
            write_latency(name, latency, out)?;
        }
    }
    if let Some(ms) = phase.first_to_last_delivery_ms {
        writeln!(out, "  first to last delivery  {ms:>12.1} ms")?;
    }
    write_use(phase, out)
}

fn write_latency(name: &str, latency: &Latency, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "  {name:<24}p50 {:>9.1}  p99 {:>9.1}  p99.9 {:>9.1}  max {:>9.1} µs",
        latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us
    )
}

fn write_use(phase: &Phase, out: &mut impl Write) -> io::Result<()> {
    if let Some(server) = &phase.server {
        write!(out, "  server: {:.2} CPUs", server.cpu)?;
        for (value, unit) in [
            (server.cpu_us_per_ping, "µs per ping"),
            (server.cpu_us_per_delivery, "µs per delivery"),
            (server.cpu_us_per_connection, "µs per connection opened"),
        ] {
            if let Some(value) = value {
                write!(out, ", {value:.3} {unit}")?;
            }
        }
        if let Some(bytes) = server.pss_bytes {
            write!(out, "; {:.1} MiB", bytes as f64 / 1024.0 / 1024.0)?;
        }
        for (value, unit) in [
            (server.user_bytes_per_connection, "in user space"),
            (server.kernel_bytes_per_connection, "of kernel slab, both ends"),
            (server.socket_buffer_bytes_per_connection, "of socket buffers"),
        ] {
            if let Some(value) = value.filter(|_| phase.connections >= WEIGHED_MIN) {
                write!(out, ", {value:.0} bytes per connection {unit}")?;
            }
        }
        writeln!(out)?;
    }
    let busiest = phase
        .generator_cpu_by_thread
        .iter()
        .fold(0.0, |a: f64, b| a.max(*b));
    writeln!(
        out,
        "  generator: {:.0} % of its CPUs, its busiest thread {:.0} % of one{}",
        phase.generator_cpu * 100.0,
        busiest * 100.0,
        match phase.limit {
            Limit::Neither => "",
            Limit::Server => "; the server's CPUs were the limit",
            Limit::Generator => "; THE GENERATOR WAS THE LIMIT (busy, or late), not the server",
        }
    )
}

/// With fewer connections, other changes of pages and slabs make the figures per connection imprecise.
const WEIGHED_MIN: u64 = 1000;
