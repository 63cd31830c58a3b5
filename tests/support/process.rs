//! Runs the built binary, for properties that need a process of its own: signals, exit codes, limits of the system.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, RwLock};
use std::thread;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::{Client, PATIENCE, eventually};

/// A running `ringcast`, which is killed when the value is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The lines of the log so far.
    log: Arc<RwLock<Vec<String>>>,
}

impl Process {
    /// Starts the binary on free ports with these settings.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        command.stdin(Stdio::null());
        Process::spawn(command, settings)
    }

    /// Starts the binary with this limit on descriptors.
    pub(crate) fn start_with_descriptors(count: u32, settings: &[(&str, &str)]) -> Process {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {count} && exec \"$0\"");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_ringcast")])
            .stdin(Stdio::null());
        Process::spawn(command, settings)
    }

    /// Starts the binary by a command of the test, which must end with its path.
    pub(crate) fn spawn(mut command: Command, settings: &[(&str, &str)]) -> Process {
        let mut child = command
            .env("RINGCAST_LISTEN", "127.0.0.1:0")
            .env("RINGCAST_ADMIN", "127.0.0.1:0")
            .env("RINGCAST_CORES", "2")
            .env("RINGCAST_LOG", "info")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(RwLock::new(Vec::new()));
        // Only the log tells which ports the system chose.
        let mut address_after = |start: &str| loop {
            let mut line = String::new();
            assert!(
                stderr.read_line(&mut line).unwrap() > 0,
                "the server did not start"
            );
            log.write().unwrap().push(line.clone());
            if let Some((_, rest)) = line.split_once(start) {
                let rest = rest.trim_start_matches("s://").trim_start_matches("://");
                break rest.split('/').next().unwrap().parse().unwrap();
            }
        };
        let address = address_after("ws://");
        let admin = address_after("control plane on http");
        // Read the log all the time: the tests expect every line, and the server would drop lines if the pipe were
        // full.
        let rest = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines() {
                rest.write().unwrap().push(line.unwrap_or_default());
            }
        });
        Process {
            child,
            address,
            admin,
            log,
        }
    }

    /// Waits for a line of the log that contains `part`, and drops the lines up to it.
    #[track_caller]
    pub(crate) fn logged(&self, part: &str) -> String {
        let mut line = String::new();
        eventually(part, || {
            let mut log = self.log.write().unwrap();
            let found = log.iter().position(|line| line.contains(part));
            if let Some(at) = found {
                line = log.drain(..=at).next_back().unwrap_or_default();
            }
            found.is_some()
        });
        line
    }

    /// Waits for a line of the log that contains `part`; removes and returns the lines up to it.
    #[track_caller]
    pub(crate) fn logged_until(&self, part: &str) -> Vec<String> {
        let mut lines = Vec::new();
        eventually(part, || {
            let mut log = self.log.write().unwrap();
            let found = log.iter().position(|line| line.contains(part));
            if let Some(at) = found {
                lines = log.drain(..=at).collect();
            }
            found.is_some()
        });
        lines
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn client(&self) -> Client {
        let mut client = Client::connect(self.address);
        client.upgrade();
        client.handshake();
        client
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Writes the configuration file, and waits until the server has reloaded it.
    #[track_caller]
    pub(crate) fn reload(&self, file: &Path, config: &str) {
        fs::write(file, config).unwrap();
        self.signal(Signal::SIGHUP);
        self.logged("reloaded");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Waits until the process has ended; returns its exit code.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// Connects to a control plane that requires this key.
    pub(crate) fn admin_with_key(&self, key: &str) -> Admin {
        let mut admin = Admin::connect(self.admin);
        admin.authorization = format!("Authorization: Bearer {key}\r\n");
        admin
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::connect(self.admin)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to the control plane, used for many requests.
pub(crate) struct Admin {
    stream: TcpStream,
    /// A header for each request, if the control plane requires a key.
    authorization: String,
}

impl Admin {
    pub(crate) fn connect(address: SocketAddr) -> Admin {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Admin {
            stream,
            authorization: String::new(),
        }
    }

    /// Gets a page; returns its status and body.
    pub(crate) fn get(&mut self, path: &str) -> (u16, String) {
        self.stream
            .write_all(
                format!(
                    "GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                    self.authorization
                )
                .as_bytes(),
            )
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.split_once("content-length: ").unwrap().1;
        let length = length.split('\r').next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
    }

    /// The sum of all counters or gauges in `/metrics` whose name and labels begin with `name`.
    pub(crate) fn metric(&mut self, name: &str) -> u64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let values = text.lines().filter(|line| !line.starts_with('#'));
        let values = values.filter(|line| line.split(['{', ' ']).next() == name.split('{').next());
        let wanted = name
            .split_once('{')
            .map_or("", |(_, label)| label.trim_end_matches('}'));
        values
            .filter(|line| line.contains(wanted))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

/// A disk of 4 MiB at `directory`, which only the process sees that the command starts; `None` if this system does not
/// let a user mount one.
#[allow(clippy::print_stdout)] // why a test was left out
pub(crate) fn with_small_disk(directory: &Path) -> Option<Command> {
    fs::create_dir_all(directory).unwrap();
    let mount = format!("mount -t tmpfs -o size=4m none {}", directory.display());
    let script = format!("{mount} && exec \"$0\"");
    let arguments = ["-Urm", "sh", "-c"];
    let can_mount = Command::new("unshare")
        .args(arguments)
        .arg(&mount)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can_mount {
        println!("this system does not let a user mount a disk: the test is left out");
        return None;
    }
    let mut command = Command::new("unshare");
    command
        .args(arguments)
        .args([&script, env!("CARGO_BIN_EXE_ringcast")])
        .stdin(Stdio::null());
    Some(command)
}

/// Fills the disk of a process that [`with_small_disk`] started at `directory`. Returns the directory as the process
/// sees it, and the file that fills it.
pub(crate) fn fill_disk(process: &Process, directory: &Path) -> (PathBuf, PathBuf) {
    let root = PathBuf::from(format!("/proc/{}/root", process.pid()));
    let disk = root.join(directory.strip_prefix("/").unwrap());
    let filler = disk.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    (disk, filler)
}

/// A thread of a process, stopped as a debugger would stop it until the value is dropped. Only the thread that stopped
/// it can let it go on.
pub(crate) struct Held(Pid);

impl Held {
    /// Stops the thread with this name.
    pub(crate) fn thread(process: Pid, name: &str) -> Held {
        Held::attached(threads(process, name).next().unwrap()).unwrap()
    }

    /// Stops all threads with this name, once all of them wait for work: a pool of threads starts another one for work
    /// that comes while the last work is being ended.
    pub(crate) fn idle_threads(process: Pid, name: &str) -> Vec<Held> {
        let mut held = Vec::new();
        eventually("the threads wait for work", || {
            held.clear();
            held.extend(threads(process, name).filter_map(Held::attached));
            !held.is_empty() && held.iter().all(Held::waits_for_a_limited_time)
        });
        held
    }

    /// Whether the thread waits for another one, for a limited time. A thread of a pool waits so for work, and without
    /// a limit for a mutex.
    fn waits_for_a_limited_time(&self) -> bool {
        let registers = ptrace::getregs(self.0).unwrap();
        #[cfg(target_arch = "x86_64")]
        let (call, limit) = (registers.orig_rax, registers.r10);
        #[cfg(target_arch = "aarch64")]
        let (call, limit) = (registers.regs[8], registers.regs[3]);
        // Once stopped and let go again, it waits by the other call, with the same registers.
        let waits = [nix::libc::SYS_futex, nix::libc::SYS_restart_syscall].map(|number| number as u64);
        waits.contains(&call) && limit != 0
    }

    /// `None` if the thread has ended.
    fn attached(thread: Pid) -> Option<Held> {
        ptrace::attach(thread).ok()?;
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Some(Held(thread))
    }
}

/// The threads with this name.
fn threads(process: Pid, name: &str) -> impl Iterator<Item = Pid> {
    fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(move |entry| {
            fs::read_to_string(entry.path().join("comm")).is_ok_and(|found| found.trim_end() == name)
        })
        .map(|entry| Pid::from_raw(entry.file_name().to_str().unwrap().parse().unwrap()))
}

impl Drop for Held {
    fn drop(&mut self) {
        // The process may have ended. Nobody can wait for it before this thread has been waited for.
        if ptrace::detach(self.0, None).is_err() {
            let _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
        }
    }
}
