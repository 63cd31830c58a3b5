//! The server under load: starts it, or uses one that runs already, and measures its CPU time and memory.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::machine::{self, Kernel};
use super::mqtt::Speech;
use super::result::{CoreShare, ServerDescription, ServerUse};
use super::tally::Tally;

/// A server, with its memory before the first connection.
pub(crate) struct Server {
    /// The process, if this program has started it; it ends when the value is dropped.
    child: Option<Child>,
    /// All processes of the server.
    pids: Vec<Pid>,
    pub(crate) address: SocketAddr,
    admin: Option<SocketAddr>,
    name: String,
    cpus: Vec<usize>,
    pss_before: Option<u64>,
    kernel_before: Kernel,
}

/// A server that this program has not started.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// The ids of all its processes, if they run on this machine.
    pub(crate) pids: Vec<Pid>,
    pub(crate) admin: Option<SocketAddr>,
}

impl Server {
    /// Starts `ringcast` with this number of cores on these CPUs and on free ports, for clients of this protocol;
    /// `settings` are further variables.
    pub(crate) fn start(
        cpus: &[usize],
        cores: usize,
        settings: &[(String, String)],
        mqtt: Option<Speech>,
    ) -> io::Result<Server> {
        let before = machine::allowed_cpus()?;
        machine::run_on(cpus)?;
        let child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .env("RINGCAST_LISTEN", "127.0.0.1:0")
            .env("RINGCAST_ADMIN", "127.0.0.1:0")
            .env("RINGCAST_CORES", cores.to_string())
            .env("RINGCAST_LOG", "info")
            .envs(mqtt.into_iter().flat_map(|_| MQTT_SETTINGS.iter().copied()))
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        machine::run_on(&before)?;
        let mut child = child?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        end_with_us(pid)?;
        let log = child.stderr.take().ok_or_else(|| io::Error::other("no log"))?;
        let scheme = if mqtt.is_some() { "mqtt://" } else { "ws://" };
        let (address, admin) = match addresses(BufReader::new(log), scheme) {
            Ok(addresses) => addresses,
            Err(error) => {
                // The server has logged why it did not start. Make sure that it has ended.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Server {
            pids: vec![pid],
            child: Some(child),
            address,
            admin: Some(admin),
            name: "ringcast".to_owned(),
            cpus: cpus.to_vec(),
            pss_before: None,
            kernel_before: Kernel::default(),
        })
    }

    /// Uses a server that runs already.
    pub(crate) fn elsewhere(elsewhere: Elsewhere) -> Server {
        Server {
            child: None,
            pids: elsewhere.pids,
            address: elsewhere.address,
            admin: elsewhere.admin,
            name: elsewhere.name,
            cpus: Vec::new(),
            pss_before: None,
            kernel_before: Kernel::default(),
        }
    }

    /// Notes the current memory as the memory without connections.
    pub(crate) fn measure_empty(&mut self) {
        self.pss_before = self.pss_bytes();
        self.kernel_before = Kernel::read();
    }

    /// Number of CPUs of the server; 0 if this program has not started it.
    pub(crate) fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// CPU time of all its processes, if they are visible.
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        if self.pids.is_empty() {
            return None;
        }
        self.pids.iter().map(|pid| machine::cpu_ns(*pid)).sum()
    }

    /// Memory of all its processes.
    pub(crate) fn pss_bytes(&self) -> Option<u64> {
        if self.pids.is_empty() {
            return None;
        }
        self.pids.iter().map(|pid| machine::pss_bytes(*pid)).sum()
    }

    /// The cost of a phase; `cpu_before` is the CPU time at its start.
    pub(crate) fn used(&self, cpu_before: Option<u64>, tally: &Tally, connections: u64) -> Option<ServerUse> {
        let cpu_us = self.cpu_ns()?.saturating_sub(cpu_before?) as f64 / 1000.0;
        let per = |count: u64| (count > 0).then(|| cpu_us / count as f64);
        let growth = |now: Option<u64>, before: Option<u64>| {
            (connections > 0)
                .then(|| Some((now? as f64 - before? as f64) / connections as f64))
                .flatten()
        };
        let (pss, kernel) = (self.pss_bytes(), Kernel::read());
        Some(ServerUse {
            cpu: cpu_us * 1000.0 / tally.elapsed_ns.max(1) as f64,
            cpu_us_per_ping: per(tally.counts.replies),
            cpu_us_per_delivery: per(tally.counts.deliveries),
            cpu_us_per_connection: per(tally.counts.opened),
            pss_bytes: pss,
            user_bytes_per_connection: growth(pss, self.pss_before),
            kernel_bytes_per_connection: growth(kernel.slab_bytes, self.kernel_before.slab_bytes),
            socket_buffer_bytes_per_connection: growth(
                kernel.socket_buffer_bytes,
                self.kernel_before.socket_buffer_bytes,
            ),
        })
    }

    /// The work of each core so far; empty without a control plane.
    pub(crate) fn cores(&self) -> Vec<CoreShare> {
        let stats = self.stats().unwrap_or_default();
        let cores = stats["cores"].as_array().cloned().unwrap_or_default();
        cores
            .iter()
            .enumerate()
            .map(|(core, stats)| {
                let count = |key: &str| stats[key].as_u64().unwrap_or(0);
                CoreShare {
                    core,
                    connections: count("connections"),
                    accepts: count("accepts"),
                    messages_received: count("messages_received"),
                    deliveries: count("deliveries"),
                }
            })
            .collect()
    }

    /// The description of the server.
    pub(crate) fn description(&self) -> ServerDescription {
        let stats = self.stats().unwrap_or_default();
        ServerDescription {
            name: self.name.clone(),
            version: stats["version"].as_str().map(str::to_owned),
            address: self.address.to_string(),
            cores: stats["cores"].as_array().map(Vec::len),
            cpus: self.cpus.clone(),
        }
    }

    /// Number of connections that have ended, by the reasons of the server's counters.
    pub(crate) fn closes(&self) -> Vec<(String, u64)> {
        let stats = self.stats().unwrap_or_default();
        let mut closes: Vec<(String, u64)> = Vec::new();
        for core in stats["cores"].as_array().into_iter().flatten() {
            for (reason, count) in core["closes"].as_object().into_iter().flatten() {
                let count = count.as_u64().unwrap_or(0);
                match closes.iter_mut().find(|(known, _)| known == reason) {
                    Some((_, sum)) => *sum += count,
                    None => closes.push((reason.clone(), count)),
                }
            }
        }
        closes.retain(|(_, count)| *count > 0);
        closes
    }

    /// `/stats` of the control plane.
    fn stats(&self) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.admin?, ADMIN_PATIENCE).ok()?;
        stream.set_read_timeout(Some(ADMIN_PATIENCE)).ok()?;
        stream
            .write_all(b"GET /stats HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        serde_json::from_slice(&answer[body..]).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The server may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ends the server when a signal ends the generator. Call it after the server has started, which would inherit the
/// signal mask, and before other threads start, which must inherit it.
fn end_with_us(server: Pid) -> io::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            // The server may have ended already.
            let _ = kill(server, Signal::SIGKILL);
            std::process::exit(EXIT_OF_SIGNALS + signal as i32);
        }
    });
    Ok(())
}

/// A shell's exit code for a process that a signal has ended is this number plus the signal.
const EXIT_OF_SIGNALS: i32 = 128;

/// Reads the ports that the system chose from the log: for clients, after the name of their protocol, then for the
/// control plane.
fn addresses(
    mut log: impl BufRead + Send + 'static,
    scheme: &'static str,
) -> io::Result<(SocketAddr, SocketAddr)> {
    let mut said = String::new();
    let mut found = [None, None];
    let addresses = loop {
        if let [Some(clients), Some(admin)] = found {
            break (clients, admin);
        }
        let mut line = String::new();
        if log.read_line(&mut line)? == 0 {
            return Err(io::Error::other(format!("the server did not start: {said}")));
        }
        for (address, start) in found.iter_mut().zip([scheme, "http://"]) {
            *address = address.or_else(|| address_after(&line, start));
        }
        said = line;
    };
    // Read and drop the rest, because a full pipe would make the server drop log lines.
    thread::spawn(move || io::copy(&mut log, &mut io::sink()));
    Ok(addresses)
}

/// The address that follows `start` in a line of the log.
pub(crate) fn address_after(line: &str, start: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(start)?;
    let is_end = |letter: char| letter.is_whitespace() || matches!(letter, '/' | ',' | ';' | ')');
    rest.split(is_end).next()?.parse().ok()
}

/// The settings that Ringcast needs in order to accept the MQTT clients of a run.
pub(crate) const MQTT_SETTINGS: &[(&str, &str)] = &[
    ("RINGCAST_MQTT_LISTEN", "127.0.0.1:0"),
    ("RINGCAST_ALLOW_ANONYMOUS", "true"),
];

const ADMIN_PATIENCE: Duration = Duration::from_secs(5);
