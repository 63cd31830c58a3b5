//! Takes one sample a second during a run, for the time series and for the line of progress.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;

use super::clock::{SECOND, now_ns};
use super::crew::Crew;
use super::driver::Gauges;
use super::machine::Kernel;
use super::result::Sample;
use super::server::Server;
use super::tally::Times;

/// Takes samples of crews and of the server.
pub(crate) struct Monitor {
    started: u64,
    last: Reading,
    gauges: Vec<Arc<Gauges>>,
    seconds: Vec<Receiver<Times>>,
    generator_cpus: usize,
    shown: Shown,
    pub(crate) series: Vec<Sample>,
}

/// Whether a line on the terminal shows the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// One line, which is overwritten.
    Live,
    Not,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    at: u64,
    messages: u64,
    generator_cpu_ns: u64,
    server_cpu_ns: Option<u64>,
}

impl Monitor {
    /// A monitor for threads that may use this many CPUs.
    pub(crate) fn new(generator_cpus: usize) -> Monitor {
        let now = now_ns();
        Monitor {
            started: now,
            last: Reading {
                at: now,
                ..Reading::default()
            },
            gauges: Vec::new(),
            seconds: Vec::new(),
            generator_cpus,
            shown: if io::stderr().is_terminal() {
                Shown::Live
            } else {
                Shown::Not
            },
            series: Vec::new(),
        }
    }

    /// Watches the threads of a crew as well.
    pub(crate) fn watch(&mut self, crew: &Crew) {
        self.gauges.extend(crew.gauges().cloned());
        self.seconds.push(crew.seconds().clone());
    }

    /// Number of open connections.
    pub(crate) fn connections(&self) -> u64 {
        let open = |gauges: &Arc<Gauges>| gauges.connections.load(Ordering::Relaxed);
        self.gauges.iter().map(open).sum()
    }

    /// Takes a sample if a second has passed since the last.
    pub(crate) fn look(&mut self, phase: usize, name: &str, server: &Server) {
        let now = now_ns();
        if now < self.last.at + SECOND {
            return;
        }
        let sum = |value: fn(&Gauges) -> u64| self.gauges.iter().map(|gauges| value(gauges)).sum::<u64>();
        let reading = Reading {
            at: now,
            messages: sum(|gauges| gauges.messages.load(Ordering::Relaxed)),
            generator_cpu_ns: sum(|gauges| gauges.cpu_ns.load(Ordering::Relaxed)),
            server_cpu_ns: server.cpu_ns(),
        };
        let mut latency = Times::new();
        for seconds in &self.seconds {
            while let Ok(times) = seconds.try_recv() {
                latency.merge(&times);
            }
        }
        let elapsed = (now - self.last.at) as f64;
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / elapsed;
        let sample = Sample {
            at: (now - self.started) as f64 / SECOND as f64,
            phase,
            connections: self.connections(),
            messages_per_second: share(reading.messages, self.last.messages) * SECOND as f64,
            latency_p50_us: latency.quantile_us(0.5),
            latency_p99_us: latency.quantile_us(0.99),
            server_cpu: reading
                .server_cpu_ns
                .zip(self.last.server_cpu_ns)
                .map(|(now, before)| share(now, before)),
            server_pss_bytes: server.pss_bytes(),
            kernel_slab_bytes: Kernel::read().slab_bytes,
            generator_cpu: share(reading.generator_cpu_ns, self.last.generator_cpu_ns)
                / self.generator_cpus as f64,
            connections_by_core: server.cores().iter().map(|core| core.connections).collect(),
        };
        if self.shown == Shown::Live {
            show(name, &sample);
        }
        self.last = reading;
        self.series.push(sample);
    }

    /// Clears the line of progress.
    pub(crate) fn end_line(&self) {
        if self.shown == Shown::Live {
            // Progress is not important, so an error is ignored.
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn show(name: &str, sample: &Sample) {
    let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let p99 = sample
        .latency_p99_us
        .map_or_else(|| "-".to_owned(), |us| format!("{:.2} ms", us / 1000.0));
    // Progress is not important, so an error is ignored.
    let _ = write!(
        io::stderr(),
        "\r\x1b[K{:>5.0} s  {name}: {} connections, {:.0} messages/s, p99 {p99}, CPUs: server {}, generator {:.2}",
        sample.at,
        sample.connections,
        sample.messages_per_second,
        share(sample.server_cpu),
        sample.generator_cpu,
    );
}
