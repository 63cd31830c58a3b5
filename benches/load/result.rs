//! The results of a run as typed values, which are printed as a table, written as JSON and drawn in the report.
//!
//! A value that is not available (a server on another machine, a control plane that is off) is `None`, never 0.
//! Latencies are microseconds from the intended send time; `cpu` values are shares of one CPU (1.0 is one CPU busy).

use serde::{Deserialize, Serialize};

/// One run of one scenario against one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) scenario: String,
    /// The arguments that repeat the run.
    pub(crate) command: String,
    pub(crate) started_unix_ms: u64,
    pub(crate) machine: Machine,
    pub(crate) server: ServerDescription,
    pub(crate) generator: Generator,
    /// The phases, in the order in which they ran.
    pub(crate) phases: Vec<Phase>,
    /// One sample a second, over all phases.
    pub(crate) series: Vec<Sample>,
    /// The cores of the server at the end of the last phase; empty if the server has no control plane.
    pub(crate) cores: Vec<CoreShare>,
    /// Errors of the server. If there is one, the run has failed.
    pub(crate) faults: Faults,
    /// Notes that explain the figures.
    pub(crate) notes: Vec<String>,
}

/// The machine of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu_model: String,
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Limit on open files per descriptor table.
    pub(crate) descriptors_max: u64,
}

/// The server that was driven.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerDescription {
    /// `ringcast`, or the name given for another server.
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) address: String,
    /// Number of event loops.
    pub(crate) cores: Option<usize>,
    /// The CPUs of the server; empty if the generator has not started it.
    pub(crate) cpus: Vec<usize>,
}

/// The load generator's own figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) threads: usize,
    pub(crate) cpus: Vec<usize>,
    /// Memory of the generator in user space per connection, if it was measured.
    pub(crate) bytes_per_connection: Option<f64>,
}

/// A part of a run with one kind of load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    /// Connections that are open at its end.
    pub(crate) connections: u64,
    pub(crate) counts: Counts,
    /// Messages a second that were planned, sent and received, if the load was a rate.
    pub(crate) offered_per_second: Option<f64>,
    /// Messages a second, sent and received: pings and their replies, publications and their deliveries.
    pub(crate) messages_per_second: f64,
    /// From the due time of a ping to its reply.
    pub(crate) latency: Option<Latency>,
    /// From the due time of a publication to each delivery.
    pub(crate) delivery: Option<Latency>,
    /// From the connect to the end of the handshake, subscription included.
    pub(crate) opening: Option<Latency>,
    /// How late the generator sent, compared with its own schedule.
    pub(crate) lateness: Option<Latency>,
    /// From the first delivery of the phase to its last.
    pub(crate) first_to_last_delivery_ms: Option<f64>,
    pub(crate) server: Option<ServerUse>,
    /// Each thread's share of a CPU.
    pub(crate) generator_cpu_by_thread: Vec<f64>,
    /// CPU time of all threads divided by the time of the CPUs that they may use: 1.0 means that all are busy.
    pub(crate) generator_cpu: f64,
    pub(crate) limit: Limit,
}

/// Counts of events in a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) opened: u64,
    /// Connections that the generator closed, as planned.
    pub(crate) closed: u64,
    /// Connections that the server closed, whether the scenario expects this or not.
    pub(crate) closed_by_server: u64,
    pub(crate) pings: u64,
    pub(crate) replies: u64,
    pub(crate) publications: u64,
    pub(crate) deliveries: u64,
    /// Heartbeats of the server that the generator answered.
    pub(crate) heartbeats: u64,
    /// Pings that were not sent when they were due, because too many earlier ones were unanswered.
    pub(crate) withheld: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// A distribution of times, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// The curve for a plot: (share of the values, microseconds that this share does not exceed), rising.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// The cost of a phase for the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ServerUse {
    /// Average number of busy CPUs.
    pub(crate) cpu: f64,
    /// Microseconds of CPU per ping answered.
    pub(crate) cpu_us_per_ping: Option<f64>,
    /// Microseconds of CPU per delivery.
    pub(crate) cpu_us_per_delivery: Option<f64>,
    /// Microseconds of CPU per connection opened.
    pub(crate) cpu_us_per_connection: Option<f64>,
    /// Proportional set size at the end of the phase.
    pub(crate) pss_bytes: Option<u64>,
    /// Growth of the proportional set size since before the first connection, per open connection.
    pub(crate) user_bytes_per_connection: Option<f64>,
    /// Growth of the kernel's slab since then, per connection; for both ends, if both are on this machine.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    /// Growth of socket buffers in use since then (`mem` of sockstat), per connection.
    pub(crate) socket_buffer_bytes_per_connection: Option<f64>,
}

/// The side that limited the speed of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Limit {
    /// Neither: the load was as planned.
    #[default]
    Neither,
    /// The server: its CPUs were full, the generator's were not.
    Server,
    /// The generator: one of its threads was full, or sent late. The figures do not describe the server.
    Generator,
}

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the run began.
    pub(crate) at: f64,
    /// The index of the phase.
    pub(crate) phase: usize,
    pub(crate) connections: u64,
    pub(crate) messages_per_second: f64,
    pub(crate) latency_p50_us: Option<f64>,
    pub(crate) latency_p99_us: Option<f64>,
    pub(crate) server_cpu: Option<f64>,
    pub(crate) server_pss_bytes: Option<u64>,
    pub(crate) kernel_slab_bytes: Option<u64>,
    pub(crate) generator_cpu: f64,
    /// Number of connections of each core of the server.
    pub(crate) connections_by_core: Vec<u64>,
}

/// What one core of the server has done, by its `/stats`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CoreShare {
    pub(crate) core: usize,
    pub(crate) connections: u64,
    pub(crate) accepts: u64,
    pub(crate) messages_received: u64,
    pub(crate) deliveries: u64,
}

/// Errors of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    pub(crate) count: u64,
    /// Texts of the first few.
    pub(crate) first: Vec<String>,
}

impl Faults {
    /// Adds an error; only the texts of the first few are kept.
    pub(crate) fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < FAULTS_KEPT {
            self.first.push(text());
        }
    }

    /// Adds the errors of another thread.
    pub(crate) fn merge(&mut self, other: &Faults) {
        self.count += other.count;
        let room = FAULTS_KEPT - self.first.len();
        self.first.extend(other.first.iter().take(room).cloned());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

const FAULTS_KEPT: usize = 10;
