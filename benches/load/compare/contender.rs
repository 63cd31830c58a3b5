//! The servers that are compared: starts each on one CPU, and reads its CPU time and memory.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::machine;
use super::super::mqtt::Speech;
use super::super::server::{MQTT_SETTINGS, address_after};
use super::drive::Clocks;
use super::fresh::Weighed;
use super::link::Dialect;
use super::result;

/// A kind of server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) dialect: Dialect,
    /// The program, in the folder of the peers or on the path, and its argument. For Ringcast, the binary just built.
    program: &'static str,
    argument: Option<&'static str>,
}

pub(crate) const RINGCAST: &str = "ringcast";
/// Another build of Ringcast, which can be put among the peers to measure the effect of a change.
pub(crate) const BEFORE: &str = "ringcast-before";
pub(crate) const ECHO: &str = "echo";
pub(crate) const BUN: &str = "bun";
pub(crate) const SOCKETCLUSTER: &str = "socketcluster";
pub(crate) const SOCKETCLUSTER_CLUSTER: &str = "socketcluster-cluster";

/// The MQTT forwarder that checks and keeps nothing.
pub(crate) const FLOOR: &str = "floor";
pub(crate) const MOSQUITTO: &str = "mosquitto";
pub(crate) const RUMQTTD: &str = "rumqttd";
pub(crate) const NATS: &str = "nats";

/// All servers that speak MQTT, in the order of the tables.
pub(crate) const MQTT_KINDS: [Kind; 6] = [
    Kind {
        name: RINGCAST,
        title: "Ringcast",
        dialect: Dialect::Mqtt(Speech::PLAIN),
        program: env!("CARGO_BIN_EXE_ringcast"),
        argument: None,
    },
    Kind {
        name: BEFORE,
        title: "Ringcast before",
        dialect: Dialect::Mqtt(Speech::PLAIN),
        program: "./ringcast-before",
        argument: None,
    },
    Kind {
        name: FLOOR,
        title: "floor",
        dialect: Dialect::Mqtt(Speech::PLAIN),
        program: "./forward",
        argument: None,
    },
    Kind {
        name: MOSQUITTO,
        title: "Mosquitto",
        dialect: Dialect::Mqtt(Speech::PLAIN),
        program: "./broker.sh",
        argument: Some(MOSQUITTO),
    },
    Kind {
        name: RUMQTTD,
        title: "rumqttd",
        dialect: Dialect::Mqtt(Speech::PLAIN),
        program: "./broker.sh",
        argument: Some(RUMQTTD),
    },
    Kind {
        name: NATS,
        title: "NATS",
        dialect: Dialect::Mqtt(Speech::PLAIN),
        program: "./broker.sh",
        argument: Some(NATS),
    },
];

/// All servers that speak SocketCluster, and the echo, in the order of the tables.
pub(crate) const KINDS: [Kind; 6] = [
    Kind {
        name: RINGCAST,
        title: "Ringcast",
        dialect: Dialect::SocketCluster,
        program: env!("CARGO_BIN_EXE_ringcast"),
        argument: None,
    },
    Kind {
        name: BEFORE,
        title: "Ringcast before",
        dialect: Dialect::SocketCluster,
        program: "./ringcast-before",
        argument: None,
    },
    Kind {
        name: ECHO,
        title: "bare epoll echo",
        dialect: Dialect::Echo,
        program: "./echo",
        argument: None,
    },
    Kind {
        name: BUN,
        title: "Bun",
        dialect: Dialect::SocketCluster,
        program: "node_modules/.bin/bun",
        argument: Some("bun.js"),
    },
    Kind {
        name: SOCKETCLUSTER,
        title: "socketcluster-server",
        dialect: Dialect::SocketCluster,
        program: "node",
        argument: Some("socketcluster.js"),
    },
    Kind {
        name: SOCKETCLUSTER_CLUSTER,
        title: "socketcluster-server, multi-process",
        dialect: Dialect::SocketCluster,
        program: "node",
        argument: Some("socketcluster-cluster.js"),
    },
];

/// A running server, which is ended when the value is dropped.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    version: String,
    child: Child,
    /// The process and its descendants, as they were when it began to listen.
    pub(crate) pids: Vec<Pid>,
    /// The kernel's thread for deferred network work on the server's CPU.
    deferred: Option<Pid>,
}

impl Kind {
    /// True if the server prints its address in a log, as Ringcast does.
    fn has_log(&self) -> bool {
        [RINGCAST, BEFORE].contains(&self.name)
    }
}

impl Contender {
    /// Starts a server on this CPU, on a free port; `peers` is the folder of the installed servers.
    pub(crate) fn start(kind: Kind, peers: &Path, cpu: usize) -> io::Result<Contender> {
        let allowed = machine::allowed_cpus()?;
        machine::run_on(&[cpu])?;
        let program = peers.join(kind.program);
        let child = Command::new(if program.exists() {
            &program
        } else {
            Path::new(kind.program)
        })
        .args(kind.argument)
        .current_dir(peers)
        .env("PORT", "0")
        .env("NODE_ENV", "production")
        .env("RINGCAST_LISTEN", "127.0.0.1:0")
        .env("RINGCAST_ADMIN", "off")
        .env("RINGCAST_CORES", "1")
        .env("RINGCAST_LOG", "info")
        .envs(
            match kind.dialect {
                Dialect::SocketCluster | Dialect::Echo => &[][..],
                Dialect::Mqtt(_) => MQTT_SETTINGS,
            }
            .iter()
            .copied(),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(if kind.has_log() {
            Stdio::piped()
        } else {
            Stdio::inherit()
        })
        .spawn();
        machine::run_on(&allowed)?;
        let child = child.map_err(|error| {
            io::Error::other(format!(
                "{}: {error}; benches/peers/install.sh installs it",
                kind.title
            ))
        })?;
        let mut contender = Contender {
            kind,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pids: vec![Pid::from_raw(
                i32::try_from(child.id()).map_err(io::Error::other)?,
            )],
            child,
            deferred: named(&format!("ksoftirqd/{cpu}")),
        };
        contender.listening()?;
        contender.pids = with_descendants(contender.pids[0]);
        Ok(contender)
    }

    pub(crate) fn description(&self) -> result::Contender {
        result::Contender {
            name: self.kind.name.to_owned(),
            title: self.kind.title.to_owned(),
            version: self.version.clone(),
            processes: self.pids.len(),
        }
    }

    /// The CPU time that the server has used.
    pub(crate) fn clocks(&self) -> Result<Clocks, String> {
        let sum = self
            .pids
            .iter()
            .map(|pid| machine::cpu_ns(*pid))
            .sum::<Option<u64>>();
        Ok(Clocks {
            processes_ns: sum.ok_or("a process of the server's has ended")?,
            deferred_ns: self.deferred.and_then(on_cpu_ns).unwrap_or(0),
        })
    }

    /// Waits until the server prints its address: Ringcast in its log, the others as `listening PORT VERSION`.
    fn listening(&mut self) -> io::Result<()> {
        let output: Option<Box<dyn Read + Send>> = if self.kind.has_log() {
            self.child.stderr.take().map(|log| Box::new(log) as _)
        } else {
            self.child.stdout.take().map(|output| Box::new(output) as _)
        };
        let mut output = BufReader::new(output.ok_or_else(|| io::Error::other("no output"))?);
        loop {
            let mut line = String::new();
            if output.read_line(&mut line)? == 0 {
                return Err(io::Error::other(format!("{} did not start", self.kind.title)));
            }
            let scheme = match self.kind.dialect {
                Dialect::SocketCluster | Dialect::Echo => "ws://",
                Dialect::Mqtt(_) => "mqtt://",
            };
            if let Some(address) = address_after(&line, scheme) {
                self.address = address;
            } else if let Some(rest) = line.trim_end().strip_prefix("listening ") {
                let (port, version) = rest.split_once(' ').unwrap_or((rest, ""));
                self.address.set_port(port.parse().map_err(io::Error::other)?);
                version.clone_into(&mut self.version);
            } else {
                continue;
            }
            // Read and drop the rest, because a full pipe would stop the server.
            thread::spawn(move || io::copy(&mut output, &mut io::sink()));
            return Ok(());
        }
    }
}

impl Weighed for Contender {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pss_bytes(&self) -> Result<u64, String> {
        let sum = self
            .pids
            .iter()
            .map(|pid| machine::pss_bytes(*pid))
            .sum::<Option<u64>>();
        sum.ok_or_else(|| "a process of the server's has ended".to_owned())
    }

    fn cpu_us(&self) -> Result<f64, String> {
        let clocks = self.clocks()?;
        Ok((clocks.processes_ns + clocks.deferred_ns) as f64 / 1000.0)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // The processes may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in &self.pids[1..] {
            if machine::cpu_ns(*pid).is_some() {
                let _ = kill(*pid, Signal::SIGTERM);
            }
        }
    }
}

/// The process and all its descendants.
fn with_descendants(pid: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> = processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut pids = vec![pid];
    let mut index = 0;
    while index < pids.len() {
        let children = parents
            .iter()
            .filter(|(_, parent)| *parent == pids[index])
            .map(|(pid, _)| *pid);
        let children: Vec<Pid> = children.collect();
        pids.extend(children);
        index += 1;
    }
    pids
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name in parentheses, which may contain any character, come the state and the parent.
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
    Some(Pid::from_raw(parent.parse().ok()?))
}

fn named(name: &str) -> Option<Pid> {
    processes()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name))
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
}

/// The CPU time of a kernel thread.
fn on_cpu_ns(pid: Pid) -> Option<u64> {
    let times = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    times.split(' ').next()?.parse().ok()
}

/// Pause after connections were opened, in which servers finish the work for them.
pub(crate) const SETTLING: Duration = Duration::from_millis(500);
