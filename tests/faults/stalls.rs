//! What stands still: a core that the system does not run, the whole process, and the ring that fills up meanwhile.

use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::harness::{Stage, beside_healthy_clients, last, size};
use super::support::process::thread_named;
use super::support::{eventually, now};

/// Holds one thread of the server as a debugger does, until the value is dropped.
struct Held(Pid);

impl Held {
    fn core(stage: &Stage, name: &str) -> Held {
        let thread = thread_named(stage.process.pid(), name);
        ptrace::attach(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Held(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended with a test that has failed.
        let _ = ptrace::detach(self.0, None);
    }
}

fn seconds(full: u64) -> Duration {
    size(Duration::from_millis(500), Duration::from_secs(full))
}

#[test]
fn a_core_that_is_not_run() {
    let of = format!("{:?}", seconds(2));
    beside_healthy_clients("a core is descheduled", of, &[], |stage| {
        let held = Held::core(stage, "core 1");
        last(now() + seconds(2));
        drop(held);
    });
}

#[test]
fn a_process_that_is_stopped() {
    let of = format!("{:?}", seconds(2));
    beside_healthy_clients("the process is stopped", of, &[], |stage| {
        stage.process.signal(Signal::SIGSTOP);
        last(now() + seconds(2));
        stage.process.signal(Signal::SIGCONT);
    });
}

/// A core that is not run takes nothing from the ring. What is published meanwhile fills it, then publishers wait.
#[test]
fn a_ring_that_is_full() {
    let settings = [("RINGCAST_RING_SLOTS", "64")];
    let of = format!("64 slots, {:?}", seconds(5));
    beside_healthy_clients("the ring is full", of, &settings, |stage| {
        let hits = stage.hits("ring");
        let held = Held::core(stage, "core 1");
        let mut full: Option<Instant> = None;
        eventually("the ring is full", || {
            full = (stage.hits("ring") > hits).then(now);
            full.is_some()
        });
        last(full.unwrap() + seconds(5));
        drop(held);
    });
}
