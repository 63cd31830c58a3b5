//! Finds the process that listens on a port already, and lets only one of two starts at the same time have the port.
//!
//! Listeners can share their port with those of other processes of the same user (`SO_REUSEPORT`). Without a check, a
//! second server that is started by mistake would get half of the clients of the first. So a start looks for another
//! listener before it opens its own, and fails if there is one, unless it was asked to take over. Between the check and
//! the first listener it holds a [`Claim`]: an abstract socket name, which one process at a time can have.
//!
//! The check finds listeners of any user and program on the same address, and on addresses that overlap it (`0.0.0.0`
//! and `127.0.0.1`, `[::]` and both). It ignores connections in TIME_WAIT, and connections of a process that drains and
//! no longer listens.
//!
//! Limits: `CLAIM_TIME_MAX`.

use std::convert::Infallible;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use tracing::debug;

/// A process, as far as it can be seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOwner {
    /// Its id.
    pub process: i32,
    /// What it calls itself.
    pub name: String,
}

impl PortOwner {
    /// The process that listens on an address, or on one that overlaps it. `None` for a process of another user or
    /// another container, which is not shown to us.
    pub(super) fn of(address: SocketAddr) -> Option<PortOwner> {
        let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|file| File::open(file).ok())
            .flat_map(|file| listeners(BufReader::new(file)))
            .filter(|(other, _)| other.port() == address.port() && overlap(other.ip(), address.ip()))
            .map(|(_, inode)| format!("socket:[{inode}]"))
            .collect();
        if inodes.is_empty() {
            return None;
        }
        let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
        let mut processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let process = processes.find(|process| holds(*process, &inodes))?;
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        Some(PortOwner {
            process,
            name: name.trim_end().to_owned(),
        })
    }
}

impl fmt::Display for PortOwner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {} ({})", self.process, self.name)
    }
}

/// The listening sockets of a table of the kernel, with their inodes. They stand before all others, which may be a
/// million.
fn listeners(table: impl BufRead) -> Vec<(SocketAddr, u64)> {
    let lines = table.lines().map_while(Result::ok).skip(1);
    let lines = lines.map_while(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTENING, _, _, _, _, _, inode, ..] = fields[..] else {
            return None;
        };
        Some((local.to_owned(), inode.to_owned()))
    });
    lines
        .filter_map(|(local, inode)| Some((address(&local)?, inode.parse().ok()?)))
        .collect()
}

/// The state of a listening socket in these tables.
const LISTENING: &str = "0A";

/// An address as the kernel prints it: words of four bytes as numbers of this machine, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words = ip
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok())
        .collect::<Option<Vec<u32>>>()?;
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// True if a connection to one of the addresses can reach a listener on the other.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    let holds = |one: IpAddr, other: IpAddr| {
        one == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            || (one == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && other.is_ipv4())
    };
    one == other || holds(one, other) || holds(other, one)
}

/// True if a process has one of these sockets, in the table of the process or in that of a core's thread.
fn holds(process: i32, sockets: &[String]) -> bool {
    let process = PathBuf::from(format!("/proc/{process}"));
    let threads = fs::read_dir(process.join("task")).into_iter().flatten();
    let threads = threads.filter_map(Result::ok).map(|thread| thread.path());
    std::iter::once(process)
        .chain(threads)
        .any(|of| table_holds(&of.join("fd"), sockets))
}

fn table_holds(table: &Path, sockets: &[String]) -> bool {
    let descriptors = fs::read_dir(table).into_iter().flatten();
    let mut links = descriptors
        .filter_map(Result::ok)
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
}

/// Keeps the ports of a start until it listens there: another start of the same user on one of them waits.
///
/// The names are descriptors. A core that starts meanwhile would copy them into its own table, and might not be able to
/// close them there. So they belong to a thread with a table of its own, which lives as long as the claim.
#[derive(Debug)]
pub(super) struct Claim {
    /// When it is dropped, the thread ends.
    release: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// Another process of this user is starting on a port, and does not come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Starting {
    pub(super) port: u16,
    pub(super) process: i32,
}

impl Claim {
    /// Waits until no other start has one of the ports.
    pub(super) fn take(addresses: impl Iterator<Item = SocketAddr>) -> Result<Claim, Starting> {
        let mut ports: Vec<u16> = addresses.map(|address| address.port()).collect();
        // All starts claim ports in the same order, so that no two starts wait for each other.
        ports.sort_unstable();
        ports.dedup();
        let mut ports = ports.into_iter().filter(|port| *port != 0);
        let (release, released) = bounded(0);
        let (tell, told) = bounded(1);
        let holder = thread::Builder::new().name("claim".to_owned()).spawn(move || {
            // Where the system refuses this, cores have no tables of their own either.
            let _ = unshare(CloneFlags::CLONE_FILES);
            let claimed = ports.by_ref().filter_map(|port| claim(port).transpose());
            let (names, outcome) = match claimed.collect::<Result<Vec<_>, _>>() {
                Ok(names) => (names, Ok(())),
                Err(starting) => (Vec::new(), Err(starting)),
            };
            // The starting thread waits for the outcome.
            let _ = tell.send(outcome);
            let _ = released.recv();
            drop(names);
        });
        let claim = Claim {
            release: Some(release),
            thread: holder.ok(),
        };
        // Without a thread there is no claim. The start goes on: only a race with another start is not noticed then.
        told.recv().unwrap_or(Ok(())).map(|()| claim)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release = None;
        if let Some(thread) = self.thread.take() {
            // The names are free once the thread has ended, even by a panic.
            let _ = thread.join();
        }
    }
}

/// The name of a port; `None` if the system has no such names, or a process of another user has taken it.
fn claim(port: u16) -> Result<Option<UnixListener>, Starting> {
    let name = net::SocketAddr::from_abstract_name(format!("ringcast/{}/starting/{port}", geteuid()));
    let bind = || UnixListener::bind_addr(name.as_ref().map_err(|error| io::Error::from(error.kind()))?);
    let mut waited = Duration::ZERO;
    loop {
        match bind() {
            Ok(name) => return Ok(Some(name)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => {
                debug!("whether another process is starting on port {port} cannot be known: {error}");
                return Ok(None);
            }
        }
        if waited >= CLAIM_TIME_MAX || waited.is_zero() {
            match name.as_ref().ok().and_then(holder) {
                Some((process, true)) if waited >= CLAIM_TIME_MAX => return Err(Starting { port, process }),
                // Any user can take the name. The claim of another user does not count.
                Some((_, false)) => return Ok(None),
                // The other start may have ended a moment ago.
                Some((_, true)) | None => {}
            }
        }
        sleep(TRY_EVERY);
        waited += TRY_EVERY;
    }
}

/// The process that has a name, and whether it is of this user.
fn holder(name: &net::SocketAddr) -> Option<(i32, bool)> {
    let stream = UnixStream::connect_addr(name).ok()?;
    let peer = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
    Some((peer.pid(), peer.uid() == geteuid().as_raw()))
}

/// How long a start waits for another on the same port, which takes as long as its files and its first fetch of keys.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_process_that_listens_is_found_by_its_address_and_by_those_that_overlap() {
        let me = PortOwner {
            process: std::process::id().cast_signed(),
            name: fs::read_to_string("/proc/self/comm")
                .unwrap()
                .trim_end()
                .to_owned(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for ip in ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
            let address = SocketAddr::new(ip.parse().unwrap(), address.port());
            assert_eq!(PortOwner::of(address), Some(me.clone()), "{address}");
        }
        assert_eq!(
            PortOwner::of(SocketAddr::new(ip("127.0.0.2"), address.port())),
            None
        );
        drop(listener);
        assert_eq!(PortOwner::of(address), None);
    }

    #[test]
    fn tables_of_the_kernel_are_read_as_far_as_listeners_go() {
        // As a machine of little-endian numbers prints them.
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 00000000000000000000000001000000:1F40 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0
   2: 0100007F:1F41 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
   3: 0100007F:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 0 100 0 0 10 0
";
        if cfg!(target_endian = "big") {
            return;
        }
        assert_eq!(
            listeners(table.as_bytes()),
            [
                ("127.0.0.1:8000".parse().unwrap(), 4711),
                ("[::1]:8000".parse().unwrap(), 4712)
            ]
        );
    }

    #[test]
    fn addresses_overlap_where_a_connection_may_be_to_both() {
        for (one, other, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0", "127.0.0.1", true),
            ("0.0.0.0", "::1", false),
            ("::", "::1", true),
            ("::", "127.0.0.1", true),
            ("::", "0.0.0.0", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(overlap(ip(one), ip(other)), expected, "{one} {other}");
            assert_eq!(overlap(ip(other), ip(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_start_waits_for_another_on_one_of_its_ports_and_for_no_other() {
        let ports: Vec<SocketAddr> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
            .collect();
        let first = Claim::take(ports[..2].iter().copied()).unwrap();
        drop(Claim::take(ports[2..].iter().copied()).unwrap());
        let any = SocketAddr::from(([0, 0, 0, 0], ports[1].port()));
        let (tell, told) = crossbeam_channel::bounded(1);
        let second = thread::spawn(move || {
            let claim = Claim::take([any].into_iter()).unwrap();
            tell.send(()).unwrap();
            drop(claim);
        });
        assert!(told.try_recv().is_err(), "the first has it");
        drop(first);
        told.recv().unwrap();
        second.join().unwrap();
        // Ports that the system chooses are nobody's yet.
        let zero = "127.0.0.1:0".parse().unwrap();
        let _both = [[zero; 2], [zero; 2]].map(|both| Claim::take(both.into_iter()).unwrap());
    }
}
