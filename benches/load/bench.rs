//! One run: the server, the crews that drive it, and the phases measured so far.

use std::io;
use std::time::Duration;

use super::clock::unix_ms;
use super::crew::Crew;
use super::crowd::{Crowd, Sizes};
use super::driver::Target;
use super::machine;
use super::monitor::Monitor;
use super::mqtt::wire::PAYLOAD_BYTES_MIN;
use super::options::Options;
use super::plan::{Opening, Pings, Plan, Then};
use super::result::{CoreShare, Faults, Generator, Limit, Phase, Run};
use super::server::{Elsewhere, Server};
use super::tally::{Tally, Times};

/// The state of a run.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) server: Server,
    cpus: Vec<usize>,
    monitor: Monitor,
    phases: Vec<Phase>,
    /// The cores of the server at the end of the last phase.
    cores: Vec<CoreShare>,
    faults: Faults,
    notes: Vec<String>,
    started_unix_ms: u64,
    threads: u32,
    pss_before: Option<u64>,
    bytes_per_connection: Option<f64>,
}

impl Bench {
    /// Starts the server, or uses the server that the options name, for at most this many connections.
    pub(crate) fn start(options: Options, connections: u32) -> io::Result<Bench> {
        let descriptors = machine::raise_descriptors()?;
        let (server_cpus, cpus) = placement(&options)?;
        let server = match options.address {
            Some(address) => Server::elsewhere(Elsewhere {
                name: options.name.clone().unwrap_or_else(|| "a server".to_owned()),
                address,
                pids: options.pids.clone(),
                admin: options.admin,
            }),
            None => {
                let cores = options
                    .server_cores
                    .unwrap_or_else(|| server_cpus.len().max(tables(connections, descriptors)));
                Server::start(&server_cpus, cores, &options.settings, options.mqtt())?
            }
        };
        let mut bench = Bench {
            monitor: Monitor::new(cpus.len()),
            server,
            cpus,
            phases: Vec::new(),
            cores: Vec::new(),
            faults: Faults::default(),
            notes: Vec::new(),
            started_unix_ms: unix_ms(),
            threads: 0,
            pss_before: None,
            bytes_per_connection: None,
            options,
        };
        bench.warm_up()?;
        Ok(bench)
    }

    /// Lets server and generator do everything once, so that later growth of their memory is due to connections.
    fn warm_up(&mut self) -> io::Result<()> {
        let sizes = Sizes {
            plain: WARM_UP_CONNECTIONS,
            ..Sizes::default()
        };
        let crew = self.crew_of(sizes, 1, None)?;
        let plan = Plan {
            opening: Some(self.opening(None)),
            pings: Pings::InFlight(1),
            ..Plan::default()
        };
        crew.begin(&plan)?;
        self.faults.merge(&crew.finish(|| ())?.faults);
        drop(crew);
        self.monitor = Monitor::new(self.cpus.len());
        self.threads = 0;
        self.server.measure_empty();
        self.pss_before = machine::pss_bytes(nix::unistd::getpid());
        Ok(())
    }

    /// Starts the threads for clients: one for each CPU, or more if descriptors or `--threads` require it.
    pub(crate) fn crew(&mut self, sizes: Sizes) -> io::Result<Crew> {
        let descriptors = machine::raise_descriptors()?;
        let wanted = self.cpus.len().max(tables(sizes.clients(), descriptors));
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let threads = self.options.threads.unwrap_or(wanted).min(sizes.clients());
        self.crew_of(sizes, threads, None)
    }

    /// Starts this many threads, with sockets whose receive buffers may be limited.
    pub(crate) fn crew_of(
        &mut self,
        sizes: Sizes,
        threads: u32,
        receive_buffer_bytes: Option<usize>,
    ) -> io::Result<Crew> {
        let target = Target {
            address: self.server.address,
            path: self
                .options
                .path
                .clone()
                .unwrap_or_else(|| "/socketcluster/".to_owned()),
            receive_buffer_bytes,
            mqtt: self.options.mqtt(),
        };
        let pad_bytes = if target.mqtt.is_some() { MQTT_PAD_BYTES } else { 0 };
        let crowd = Crowd::new(sizes, self.options.bytes.unwrap_or(pad_bytes));
        let crew = Crew::start(&target, crowd, threads, &self.cpus, self.threads)?;
        self.threads += threads;
        self.monitor.watch(&crew);
        Ok(crew)
    }

    /// Opens all connections of a crew, as a phase.
    pub(crate) fn open(&mut self, crew: &Crew) -> io::Result<()> {
        let plan = Plan {
            opening: Some(self.opening(None)),
            ..Plan::default()
        };
        self.measure("connect", crew, &plan, None).map(|_| ())
    }

    /// Opens connections at a rate, or as fast as possible.
    pub(crate) fn opening(&self, per_second: Option<f64>) -> Opening {
        Opening {
            per_second,
            pending_max: self.options.pending.unwrap_or(PENDING),
            then: Then::Stay,
        }
    }

    /// Runs a plan, and keeps its results as a phase.
    pub(crate) fn measure(
        &mut self,
        name: &str,
        crew: &Crew,
        plan: &Plan,
        offered_per_second: Option<f64>,
    ) -> io::Result<&Phase> {
        let cpu_before = self.server.cpu_ns();
        crew.begin(plan)?;
        let tally = self.wait(name, crew)?;
        self.keep(name, cpu_before, &tally, offered_per_second);
        Ok(self.phases.last().expect("one was just kept"))
    }

    /// Runs a plan without an end while another crew runs its own plan, then ends the first. The results of both are
    /// one phase, with the ping latencies of the first crew.
    pub(crate) fn measure_beside(
        &mut self,
        name: &str,
        (steady, plan): (&Crew, &Plan),
        (other, other_plan): (&Crew, &Plan),
    ) -> io::Result<&Phase> {
        let cpu_before = self.server.cpu_ns();
        steady.begin(plan)?;
        other.begin(other_plan)?;
        let mut beside = self.wait(name, other)?;
        steady.enough()?;
        let mut tally = self.wait(name, steady)?;
        beside.latency = Times::new();
        tally.merge(&beside);
        self.keep(name, cpu_before, &tally, None);
        Ok(self.phases.last().expect("one was just kept"))
    }

    /// Waits until a crew has finished its plan.
    pub(crate) fn wait(&mut self, name: &str, crew: &Crew) -> io::Result<Tally> {
        let (phase, server) = (self.phases.len(), &self.server);
        let tally = crew.finish(|| self.monitor.look(phase, name, server))?;
        self.monitor.end_line();
        Ok(tally)
    }

    /// Keeps a tally as a phase; `cpu_before` is the server's CPU time at its start.
    pub(crate) fn keep(
        &mut self,
        name: &str,
        cpu_before: Option<u64>,
        tally: &Tally,
        offered_per_second: Option<f64>,
    ) {
        let connections = self.monitor.connections();
        let elapsed = tally.elapsed_ns.max(1) as f64;
        let shares: Vec<f64> = tally.cpu_ns.iter().map(|ns| *ns as f64 / elapsed).collect();
        let generator_cpu = shares.iter().sum::<f64>() / self.cpus.len() as f64;
        let server = self.server.used(cpu_before, tally, connections);
        let lateness = tally.lateness.latency();
        self.faults.merge(&tally.faults);
        self.cores = self.server.cores();
        self.phases.push(Phase {
            name: name.to_owned(),
            seconds: elapsed / 1e9,
            connections,
            counts: tally.counts.clone(),
            offered_per_second,
            messages_per_second: tally.counts.messages() as f64 * 1e9 / elapsed,
            latency: tally.latency.latency(),
            delivery: tally.delivery.latency(),
            opening: tally.opening.latency(),
            first_to_last_delivery_ms: tally
                .deliveries_from_to
                .map(|(first, last)| (last - first) as f64 / 1e6),
            limit: self.limit(
                generator_cpu,
                &shares,
                server.as_ref().map(|server| server.cpu),
                lateness.as_ref().map(|lateness| lateness.p99_us),
            ),
            lateness,
            server,
            generator_cpu_by_thread: shares,
            generator_cpu,
        });
    }

    /// The side that limited the speed of a phase. If both were busy, the server counts as the limit.
    fn limit(&self, generator: f64, threads: &[f64], server: Option<f64>, lateness_us: Option<f64>) -> Limit {
        let server_cpus = self.server.cpus().max(1) as f64;
        if server.is_some_and(|server| server / server_cpus > BUSY) {
            Limit::Server
        } else if generator > BUSY
            || threads.iter().any(|share| *share > BUSY)
            || lateness_us.is_some_and(|us| us > LATE_US)
        {
            Limit::Generator
        } else {
            Limit::Neither
        }
    }

    /// Notes the generator's memory per open connection.
    pub(crate) fn measure_memory(&mut self) {
        let now = machine::pss_bytes(nix::unistd::getpid());
        let connections = self.monitor.connections();
        if let (Some(now), Some(before), 1..) = (now, self.pss_before, connections) {
            self.bytes_per_connection = Some((now as f64 - before as f64) / connections as f64);
        }
    }

    /// Checks that the subscribers of a crew have received everything that was published.
    pub(crate) fn verify(&mut self, crew: &Crew) -> io::Result<()> {
        self.faults.merge(&crew.verify()?);
        Ok(())
    }

    /// Adds a note that compares the p99 of pings in the last phase with that of the phase before.
    pub(crate) fn note_ratio(&mut self) {
        if let [.., before, during] = &self.phases[..]
            && let (Some(before), Some(during)) = (&before.latency, &during.latency)
        {
            let (before, during) = (before.p99_us, during.p99_us);
            self.notes.push(format!(
                "p99 of pings: {before:.0} µs before, {during:.0} µs during: {:.2} times",
                during / before
            ));
        }
    }

    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    pub(crate) fn seconds(&self, otherwise: f64) -> Duration {
        Duration::from_secs_f64(self.options.seconds.unwrap_or(otherwise))
    }

    /// The results; the server is still running.
    pub(crate) fn finish(self, scenario: &str) -> Run {
        Run {
            scenario: scenario.to_owned(),
            command: self.options.words,
            started_unix_ms: self.started_unix_ms,
            machine: machine::machine(),
            server: self.server.description(),
            generator: Generator {
                threads: self.threads as usize,
                cpus: self.cpus,
                bytes_per_connection: self.bytes_per_connection,
            },
            phases: self.phases,
            series: self.monitor.series,
            cores: self.cores,
            faults: self.faults,
            notes: self.notes,
        }
    }
}

/// CPUs of the server and of the generator: half of the CPUs for each, unless the options say otherwise.
fn placement(options: &Options) -> io::Result<(Vec<usize>, Vec<usize>)> {
    let all = machine::allowed_cpus()?;
    let half = all.len() / 2;
    let (first, second) = if half == 0 {
        (all.clone(), all)
    } else {
        (all[..half].to_vec(), all[half..].to_vec())
    };
    Ok((
        options.server_cpus.clone().unwrap_or(first),
        options.cpus.clone().unwrap_or(second),
    ))
}

/// Number of descriptor tables that this many connections need.
fn tables(connections: u32, descriptors: u64) -> usize {
    let usable = descriptors.saturating_sub(DESCRIPTORS_BESIDES).max(1) * 9 / 10;
    usize::try_from(u64::from(connections).div_ceil(usable)).unwrap_or(usize::MAX)
}

/// Descriptors in every table besides connections: the polls, wakers and timers of all threads, and those of the
/// process.
const DESCRIPTORS_BESIDES: u64 = 500;
/// With the numbers in it, a payload has 64 bytes.
const MQTT_PAD_BYTES: usize = 64 - PAYLOAD_BYTES_MIN;
const WARM_UP_CONNECTIONS: u32 = 64;
/// Number of connections that are being opened at a time: far below the backlog of a listener.
const PENDING: u32 = 500;
/// A CPU that is busy for more than this share counts as full.
const BUSY: f64 = 0.9;
/// If the generator sends later than this at p99, the latencies are those of the generator.
const LATE_US: f64 = 1000.0;
