//! What a run found, as typed values: printed as a table, written as JSON, drawn by the report.
//!
//! A value that could not be had (a server on another machine, a control plane that is off) is `None`, never 0.
//! Latencies are microseconds from the intended send time; `cpu` values are shares of one CPU (1.0 is one CPU busy).

use serde::{Deserialize, Serialize};

/// One run of one scenario against one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) scenario: String,
    /// The words after the name of the bench, to repeat it.
    pub(crate) command: String,
    pub(crate) started_unix_ms: u64,
    pub(crate) machine: Machine,
    pub(crate) server: ServerDescription,
    pub(crate) generator: Generator,
    /// In the order in which they ran.
    pub(crate) phases: Vec<Phase>,
    /// One a second, over all phases.
    pub(crate) series: Vec<Sample>,
    /// At the end of the last phase, by core; empty where the server has no control plane to ask.
    pub(crate) cores: Vec<CoreShare>,
    /// What came other than it should have; the run has failed if there are any.
    pub(crate) faults: Faults,
    /// What a reader should know beside the figures.
    pub(crate) notes: Vec<String>,
}

/// Where it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu_model: String,
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Open files per descriptor table.
    pub(crate) descriptors_max: u64,
}

/// The server that was driven.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerDescription {
    /// `ringcast`, or the name given to another.
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) address: String,
    /// Event loops.
    pub(crate) cores: Option<usize>,
    /// CPUs that it was placed on; empty if it was started by somebody else.
    pub(crate) cpus: Vec<usize>,
}

/// The load generator's own part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) threads: usize,
    pub(crate) cpus: Vec<usize>,
    /// Bytes that the generator took per connection in user space, where connections were counted.
    pub(crate) bytes_per_connection: Option<f64>,
}

/// One stretch of a run under one load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    /// Open at its end.
    pub(crate) connections: u64,
    pub(crate) counts: Counts,
    /// Messages a second that were to be sent and received, where the load was a rate.
    pub(crate) offered_per_second: Option<f64>,
    /// Messages a second, sent and received: pings and their replies, publications and their deliveries.
    pub(crate) messages_per_second: f64,
    /// From the intended send of a ping to its reply.
    pub(crate) latency: Option<Latency>,
    /// From the intended send of a publication to each delivery.
    pub(crate) delivery: Option<Latency>,
    /// From the connect to the end of the handshake, subscription included.
    pub(crate) opening: Option<Latency>,
    /// How late the generator sent, against its own schedule.
    pub(crate) lateness: Option<Latency>,
    /// From the first delivery of the phase to its last.
    pub(crate) first_to_last_delivery_ms: Option<f64>,
    pub(crate) server: Option<ServerUse>,
    /// Each thread's share of a CPU.
    pub(crate) generator_cpu_by_thread: Vec<f64>,
    /// All threads together, over the CPUs they may run on: 1.0 is all of them busy.
    pub(crate) generator_cpu: f64,
    pub(crate) limit: Limit,
}

/// What happened, counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) opened: u64,
    /// By the generator, as planned.
    pub(crate) closed: u64,
    /// By the server, whether the scenario expects that or not.
    pub(crate) closed_by_server: u64,
    pub(crate) pings: u64,
    pub(crate) replies: u64,
    pub(crate) publications: u64,
    pub(crate) deliveries: u64,
    /// Heartbeats of the server's that were answered.
    pub(crate) heartbeats: u64,
    /// Pings not sent at their time since too many before them were unanswered.
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
    /// (share of the values, microseconds that so many do not exceed), for a plot; rising.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// What a phase cost the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ServerUse {
    /// CPUs busy, on average.
    pub(crate) cpu: f64,
    /// Microseconds of CPU per ping answered.
    pub(crate) cpu_us_per_ping: Option<f64>,
    /// Microseconds of CPU per delivery.
    pub(crate) cpu_us_per_delivery: Option<f64>,
    /// Microseconds of CPU per connection opened.
    pub(crate) cpu_us_per_connection: Option<f64>,
    /// Proportional set size at the end of the phase.
    pub(crate) pss_bytes: Option<u64>,
    /// Growth of it since before the first connection, per connection open now.
    pub(crate) user_bytes_per_connection: Option<f64>,
    /// Growth of the kernel's slab since then, per connection: both ends, where both are on this machine.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    /// Growth of socket buffers in use since then (`mem` of sockstat), per connection.
    pub(crate) socket_buffer_bytes_per_connection: Option<f64>,
}

/// Who kept a phase from going faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Limit {
    /// The load was what was asked for.
    #[default]
    Neither,
    /// The server's CPUs were busy, the generator's were not.
    Server,
    /// A thread of the generator was busy, or sent late: the figures are the generator's, not the server's.
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
    /// Connections of each core of the server.
    pub(crate) connections_by_core: Vec<u64>,
}

/// What one core of the server says that it did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CoreShare {
    pub(crate) core: usize,
    pub(crate) connections: u64,
    pub(crate) accepts: u64,
    pub(crate) messages_received: u64,
    pub(crate) deliveries: u64,
}

/// What came other than it should have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    pub(crate) count: u64,
    /// The first few, in words.
    pub(crate) first: Vec<String>,
}

impl Faults {
    /// Notes one; only the first few are kept in words.
    pub(crate) fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < FAULTS_KEPT {
            self.first.push(text());
        }
    }

    /// Takes over those of another thread.
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
