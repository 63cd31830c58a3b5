//! What an operator sees at a start: ignored variables, faults, and the log of a start without faults.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fs;
use std::process::{Command, Stdio};

use support::process::Process;

const KEY: &str = "a key for the tests of the start, long";

/// The exit code and the lines of a failed start.
#[track_caller]
fn refused(words: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, Vec<String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringcast"))
        .args(words)
        .env("RINGCAST_ADMIN", "off")
        .env("RINGCAST_LISTEN", "127.0.0.1:0")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "it started: {text}");
    (output.status.code(), text.lines().map(str::to_owned).collect())
}

/// Variables as `enableServiceLinks` of Kubernetes sets them for the services `ringcast` and
/// `ringcast-admin`, and Docker for a link.
const OF_OTHERS: &[(&str, &str)] = &[
    ("RINGCAST_SERVICE_HOST", "10.96.12.7"),
    ("RINGCAST_SERVICE_PORT", "8000"),
    ("RINGCAST_SERVICE_PORT_WS", "8000"),
    ("RINGCAST_PORT", "tcp://10.96.12.7:8000"),
    ("RINGCAST_PORT_8000_TCP", "tcp://10.96.12.7:8000"),
    ("RINGCAST_PORT_8000_TCP_PROTO", "tcp"),
    ("RINGCAST_PORT_8000_TCP_PORT", "8000"),
    ("RINGCAST_PORT_8000_TCP_ADDR", "10.96.12.7"),
    ("RINGCAST_ADMIN_SERVICE_HOST", "fd00::7"),
    ("RINGCAST_ADMIN_PORT", "tcp://[fd00::7]:9464"),
    ("RINGCAST_ADMIN_PORT_9464_TCP_ADDR", "fd00::7"),
    ("RINGCAST_NAME", "/web/ringcast"),
    ("RINGCAST_ENV_RINGCAST_CORES", "64"),
];

#[test]
fn variables_set_by_kubernetes_or_docker_do_not_prevent_a_start_but_a_misspelled_setting_does() {
    let process = Process::start(OF_OTHERS);
    let before = process.logged_until("ringcast serves");
    let lines = before.iter().filter(|line| line.contains("are ignored"));
    assert_eq!(lines.count(), 1, "{before:#?}");
    process.client().ping();
    for (variable, nearest) in [
        (("RINGCAST_CORE", "2"), "RINGCAST_CORES"),
        (("RINGCAST_LISTN", "127.0.0.1:0"), "RINGCAST_LISTEN"),
        (("RINGCAST_PORT", "8000"), "RINGCAST_LISTEN"),
    ] {
        let mut variables = OF_OTHERS.to_vec();
        variables.retain(|(name, _)| *name != variable.0);
        variables.push(variable);
        for words in [
            &[][..],
            &["serve"],
            &["check"],
            &["token"],
            &["tuning"],
            &["rules", "list"],
        ] {
            let (code, lines) = refused(words, &variables);
            assert_eq!(code, Some(78), "{words:?}: {lines:?}");
            let text = format!(
                "ringcast: environment: {} is not known; did you mean {nearest}?",
                variable.0
            );
            assert_eq!(lines, [text]);
        }
    }
}

#[test]
fn a_start_reports_all_faults_of_its_settings_one_line_each() {
    let file = std::env::temp_dir().join(format!("ringcast-start-{}.toml", std::process::id()));
    fs::write(
        &file,
        "\u{feff}listen = \"127.0.0.1:0 \"\r\nlimit = 1\r\n[limits]\r\nring_slots = \"-1\"\r\n[[rules]]\r\nallow = \"x\"\r\n",
    )
    .unwrap();
    let name = file.to_str().unwrap();
    for words in [&["--config", name][..], &["check", "--config", name]] {
        let (code, lines) = refused(
            words,
            &[("RINGCAST_PINGS", "of"), ("RINGCAST_LISTEN", "127.0.0.1:0")],
        );
        assert_eq!(code, Some(78));
        let expected = [
            ": line 1: listen: found \"127.0.0.1:0 \"",
            ": line 2: limit is not known",
            ": line 4: limits.ring_slots: found",
            ": line 6: rules number 1: allow: \"x\" is not an action",
            "RINGCAST_PINGS: found \"of\"",
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, part) in lines.iter().zip(expected) {
            assert!(
                line.starts_with("ringcast: ") && line.contains(part),
                "{part}: {lines:#?}"
            );
        }
    }
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_server_without_any_way_to_log_in_does_not_start() {
    let listen = ("RINGCAST_LISTEN", "0.0.0.0:0");
    for variables in [&[listen][..], &[("RINGCAST_ALLOW_ANONYMOUS", "off")]] {
        let (code, lines) = refused(&[], variables);
        assert_eq!(code, Some(78), "{lines:?}");
        let text = lines.last().unwrap();
        assert!(
            text.contains("no client could log in") && text.contains("RINGCAST_AUTH_KEY="),
            "{text}"
        );
    }
    for other in [("RINGCAST_AUTH_KEY", KEY), ("RINGCAST_ALLOW_ANONYMOUS", "on")] {
        Process::start(&[listen, other]).logged("clients are served");
    }
}

#[test]
fn missing_cpus_are_an_error_and_more_cores_than_cpus_are_warned_of_first() {
    let (code, lines) = refused(&[], &[("RINGCAST_CORES", "0-1,1000-1001")]);
    assert_eq!(code, Some(78), "{lines:?}");
    assert!(
        lines[0].contains("cannot run on CPUs ") && lines[0].contains("1000,1001: it may run on "),
        "{lines:?}"
    );
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus < 128 {
        let process = Process::start(&[("RINGCAST_CORES", &(cpus + 1).to_string())]);
        let before = process.logged_until("ringcast serves");
        assert!(
            before[0].contains(&format!("{} event loops share {cpus} CPUs", cpus + 1)),
            "{before:#?}"
        );
    }
}

#[test]
fn the_log_of_a_start_on_loopback_is_short_and_true() {
    let process = Process::start(&[]);
    process.client().ping();
    let lines = process.logged_until("cores on CPUs");
    // Features that a restricted container lacks are logged too.
    let (warnings, others): (Vec<&String>, Vec<&String>) =
        lines.iter().partition(|line| line.contains("WARN"));
    assert!(others.len() <= 7, "{lines:#?}");
    let text = lines.concat();
    assert!(text.contains("/socketcluster/, protocol auto"), "{text}");
    assert!(
        text.contains("all clients are served: listen is a loopback address"),
        "{text}"
    );
    assert!(
        !text.contains("tls_listen") && !text.contains("that prevent"),
        "{text}"
    );
    let about_the_key = warnings
        .iter()
        .filter(|line| line.contains("auth_key is not set"));
    assert_eq!(about_the_key.count(), 1, "{warnings:#?}");
}
