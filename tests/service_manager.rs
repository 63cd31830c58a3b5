//! The messages of the binary to a service manager, over the socket that it names.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use support::process::{Held, Process};
use support::{Client, PATIENCE, UPGRADE, eventually};

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

    /// The next datagram, one state per line; `None` if none comes in this time.
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
fn the_service_manager_is_notified_of_readiness_reloads_and_the_end() {
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
fn a_service_manager_may_listen_at_an_abstract_name() {
    let name = format!("ringcast-abstract-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let manager = Manager {
        socket,
        path: PathBuf::from(format!("@{name}")),
    };
    let process = Process::start(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
    manager.hears("READY=1\n");
    drop(process);
}

#[test]
fn a_service_manager_that_cannot_be_reached_is_logged_once_and_ends_nothing() {
    for (socket, text) in [
        (
            "/nowhere/notify",
            "cannot send READY=1 to the service manager: No such file",
        ),
        (
            "vsock:2:1234",
            "vsock:2:1234 is neither a path nor an abstract name",
        ),
        (
            "@ringcast-nobody-listens-here",
            "cannot send READY=1 to the service manager: Connection refused",
        ),
    ] {
        let process = Process::start(&[("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "40000")]);
        process.logged(text);
        process.client().ping();
        process.signal(Signal::SIGHUP);
        let before = process.logged_until("SIGHUP: reloaded");
        assert!(
            !before.iter().any(|line| line.contains("cannot send")),
            "{before:#?}"
        );
    }
}

#[test]
fn sockets_for_another_process_are_logged_and_not_used() {
    for (variables, text) in [
        (
            &[("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "x")][..],
            "LISTEN_PID is 1, not this process",
        ),
        (
            &[
                ("LISTEN_PID", "many"),
                ("LISTEN_FDS", "all"),
                ("LISTEN_FDNAMES", "::"),
            ],
            "LISTEN_PID is many, not this process",
        ),
        (&[("LISTEN_FDS", "3")], "LISTEN_PID is not set"),
        (
            &[("WATCHDOG_PID", "1"), ("WATCHDOG_USEC", "400000")],
            "WATCHDOG_PID is 1, not this process",
        ),
        (&[("WATCHDOG_USEC", "soon")], "WATCHDOG_USEC is \"soon\""),
    ] {
        let process = Process::start(variables);
        process.logged(text);
        process.client().ping();
    }
}

#[test]
fn the_watchdog_is_fed_only_while_every_core_turns() {
    let manager = Manager::new("watchdog");
    let path = manager.path.to_str().unwrap();
    let process = Process::start(&[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "400000")]);
    manager.hears("READY=1\n");
    manager.hears("WATCHDOG=1\n");
    let core = Held::thread(process.pid(), "core 1");
    // The time of ten checks: a watchdog that is being fed is never silent for this long.
    eventually("the watchdog starves", || {
        manager.next(Duration::from_secs(1)).is_none()
    });
    drop(core);
    manager.hears("WATCHDOG=1\n");
}

#[test]
fn a_socket_of_the_service_manager_is_served_by_all_cores_and_a_restart_refuses_no_connection() {
    // Kept open here, as systemd does.
    let (listen, admin) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let settings = [
        ("RINGCAST_DRAIN_SECONDS", "0"),
        ("RINGCAST_LISTEN", "127.0.0.1:1"),
    ];
    let mut process = Process::spawn(activated(&listen, &admin, "listen:admin", BINARY), &settings);
    assert_eq!(process.address, listen.local_addr().unwrap());
    assert_eq!(process.admin, admin.local_addr().unwrap());
    let clients: Vec<Client> = (0..8).map(|_| process.client()).collect();
    for core in ["0", "1"] {
        let connections = process
            .admin()
            .metric(&format!("ringcast_connections{{core=\"{core}\"}}"));
        assert_eq!(connections, 4, "on core {core}");
    }
    process.signal(Signal::SIGTERM);
    drop(clients);
    assert_eq!(process.exit_code(), Some(0));
    let mut waiting = Client::connect(listen.local_addr().unwrap());
    waiting.send_bytes(UPGRADE.as_bytes());
    let _next = Process::spawn(activated(&listen, &admin, "listen:admin", BINARY), &settings);
    assert!(waiting.read_head().starts_with("HTTP/1.1 101 "));
    waiting.handshake();
}

#[test]
fn a_socket_without_a_use_is_a_configuration_error() {
    let (listen, admin) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    for (names, text) in [
        ("listen:wss", "must be listen, tls, mqtt, mqtt-tls or admin"),
        ("admin:admin", "several sockets named admin"),
    ] {
        let output = activated(&listen, &admin, names, BINARY).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(text), "{log}");
        assert_eq!(output.status.code(), Some(78));
    }
}

/// A wrapper that closes its sockets leaves the variables, and the numbers go to other descriptors of this
/// process.
#[test]
fn a_socket_that_a_wrapper_has_closed_is_reported() {
    for (count, names) in [("1", ""), ("1", "admin"), ("2", "listen:admin")] {
        let output = Command::new("sh")
            .args(["-c", &format!("exec 3<&- 4<&-; LISTEN_PID=$$ exec {BINARY}")])
            .env("LISTEN_FDS", count)
            .env("LISTEN_FDNAMES", names)
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(
            log.contains("is not a listening TCP socket") || log.contains("LISTEN_FDS"),
            "{count} {names}: {log:?}"
        );
        assert_eq!(output.status.code(), Some(78));
    }
}

/// As in the unit file: a user that does not exist on this machine, no privileges, no way to get any, and a
/// privileged port.
#[test]
fn a_user_without_privileges_serves_a_privileged_port() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can open such a port");
        return;
    }
    let mut ports = (600..1024).rev();
    let listen = ports
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    // In a folder that every user may enter.
    let binary = std::env::temp_dir().join(format!("ringcast-unprivileged-{}", std::process::id()));
    fs::copy(BINARY, &binary).unwrap();
    let script = format!(
        "setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all {}",
        binary.display()
    );
    let mut process = Process::spawn(
        activated(&listen, &admin, "ringcast.socket:admin", &script),
        &[("RINGCAST_DRAIN_SECONDS", "0")],
    );
    let removed = fs::remove_file(&binary);
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{status}");
    }
    process.client().ping();
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code(), Some(0));
    removed.unwrap();
}

/// A command that gets two sockets as from systemd, and then becomes the program in `exec`.
fn activated(first: &TcpListener, second: &TcpListener, names: &str, exec: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ exec {exec}");
    command
        .args(["-c", &script])
        .stdin(OwnedFd::from(first.try_clone().unwrap()))
        .stdout(OwnedFd::from(second.try_clone().unwrap()))
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", names);
    command
}

const BINARY: &str = env!("CARGO_BIN_EXE_ringcast");

/// systemd's own check of the unit files, where systemd is installed: nothing unknown, and a small attack
/// surface.
#[test]
fn systemd_reports_nothing_about_the_units() {
    let tuning = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    let folder = std::env::temp_dir().join(format!("ringcast-units-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let service = fs::read_to_string(tuning.join("ringcast.service")).unwrap();
    // The binary is not installed at this path here.
    let service = service.replace("/usr/local/bin/ringcast", "/bin/true");
    let service_file = folder.join("ringcast.service");
    fs::write(&service_file, service).unwrap();
    fs::copy(tuning.join("ringcast.socket"), folder.join("ringcast.socket")).unwrap();
    let analyze = |words: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(words).current_dir(&folder).output();
        output.map(|output| {
            (
                output.status.success(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        })
    };
    let verified = analyze(&["verify", "--man=no", "./ringcast.service", "./ringcast.socket"]);
    let exposed = analyze(&[
        "security",
        "--offline=true",
        "--threshold=15",
        "./ringcast.service",
    ]);
    fs::remove_dir_all(&folder).unwrap();
    let (Ok((_, text)), Ok((is_closed, _))) = (verified, exposed) else {
        println!("skipped: systemd-analyze is not installed");
        return;
    };
    // The type is known since systemd 253.
    let faults = text.lines().filter(|line| !line.contains("notify-reload"));
    let faults: Vec<&str> = faults.filter(|line| line.contains("ringcast.s")).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(
        is_closed,
        "systemd-analyze security --offline=true tuning/ringcast.service: over 1.5"
    );
}
