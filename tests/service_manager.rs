//! What a service manager hears from the binary, over the socket that it named.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;

use support::process::{Process, thread_named};
use support::{PATIENCE, eventually};

/// The socket of a service manager, removed with the value.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let path = std::env::temp_dir().join(format!("ringcast-{name}-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path }
    }

    /// The next datagram, a state in each line; `None` if there is none for so long.
    fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut bytes = [0; 1024];
        match self.socket.recv(&mut bytes) {
            Ok(count) => Some(str::from_utf8(&bytes[..count]).unwrap().to_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn hears(&self, states: &str) {
        assert_eq!(self.next(PATIENCE).as_deref(), Some(states));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[test]
fn the_service_manager_hears_of_readiness_reloads_and_the_end() {
    let manager = Manager::new("notify");
    let path = manager.path.to_str().unwrap();
    let mut process = Process::start(&[("NOTIFY_SOCKET", path), ("RINGCAST_DRAIN_SECONDS", "0")]);
    manager.hears("READY=1\n");
    process.signal(Signal::SIGHUP);
    let reloading = manager.next(PATIENCE).unwrap();
    let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(usec.trim_end().parse::<u64>().unwrap() > 0);
    manager.hears("READY=1\n");
    process.signal(Signal::SIGTERM);
    manager.hears("STOPPING=1\n");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn the_watchdog_is_fed_only_while_every_core_turns() {
    let manager = Manager::new("watchdog");
    let path = manager.path.to_str().unwrap();
    let process = Process::start(&[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "400000")]);
    manager.hears("READY=1\n");
    manager.hears("WATCHDOG=1\n");
    let core = thread_named(process.pid(), "core 1");
    ptrace::attach(core).unwrap();
    waitpid(core, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
    // Ten looks long: a watchdog that is fed is never silent for so long.
    eventually("the watchdog starves", || {
        manager.next(Duration::from_secs(1)).is_none()
    });
    ptrace::detach(core, None).unwrap();
    manager.hears("WATCHDOG=1\n");
}
