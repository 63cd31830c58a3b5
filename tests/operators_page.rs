//! Runs the commands of the worked examples in `docs`, and compares their output with the output on the page.
//!
//! Only addresses differ: a test listens on loopback, on ports that the system chose.

#![allow(clippy::unwrap_used)] // a test

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn the_operators_page_does_what_it_says() {
    does_what_it_says("start");
}

#[test]
fn the_page_about_policies_of_channels_does_what_it_says() {
    does_what_it_says("channels");
}

#[test]
fn the_operators_page_of_the_http_api_does_what_it_says() {
    does_what_it_says("http-api");
}

#[test]
fn the_page_about_channels_on_disk_does_what_it_says() {
    does_what_it_says("persistence");
}

/// Blocks of `toml` are the file `ringcast.toml`; blocks of `console` are the commands.
fn does_what_it_says(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join(format!("docs/{name}.md"))).unwrap();
    let (clients, operators) = (free_port(), free_port());
    let page = page
        .replace("0.0.0.0:8443", &format!("127.0.0.1:{clients}"))
        .replace("localhost:8443", &format!("localhost:{clients}"))
        .replace("127.0.0.1:9464", &format!("127.0.0.1:{operators}"));

    let folder = Folder::new(name);
    fs::write(folder.0.join("ringcast.toml"), blocks(&page, "toml").concat()).unwrap();
    let steps: Vec<Step> = blocks(&page, "console")
        .iter()
        .flat_map(|block| steps(block))
        .collect();
    assert!(
        steps.len() > 5,
        "the page has its commands in blocks of `console`"
    );

    let printed = run(&steps, &folder.0, [clients, operators]);
    for (step, printed) in steps.iter().zip(&printed) {
        assert!(
            is_as_said(&step.says, printed),
            "$ {}\nsays:\n{}\nprints:\n{printed}\nthe server's log:\n{}",
            step.command,
            step.says,
            fs::read_to_string(folder.0.join("log")).unwrap_or_default()
        );
    }
    assert_eq!(steps.len(), printed.len());
}

/// A command and its output on the page; `…` stands for any text.
struct Step {
    command: String,
    says: String,
}

/// A folder of its own, removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(page: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("ringcast-page-{page}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// Commands begin with `$ ` and go on in lines that are ended by a backslash.
fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                says: String::new(),
            });
        } else if let Some(step) = steps.last_mut() {
            let part = if goes_on {
                &mut step.command
            } else {
                &mut step.says
            };
            part.push_str(if goes_on { "\n" } else { "" });
            part.push_str(line);
            part.push_str(if goes_on { "" } else { "\n" });
            goes_on = goes_on && line.ends_with('\\');
            continue;
        }
        goes_on = line.ends_with('\\');
    }
    steps
}

/// Runs all commands in one shell, and returns the output of each. A server that they start ends with the shell.
fn run(steps: &[Step], folder: &Path, [clients, operators]: [u16; 2]) -> Vec<String> {
    const BEGIN: &str = "@@ next\n";
    let mut script = "trap 'kill $! 2> /dev/null' EXIT\n".to_owned();
    for step in steps {
        script.push_str(&format!("echo '@@ next'\n{}\n", step.command));
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_ringcast")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = [programs.to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let output = Command::new("timeout")
        .args(["300", "bash", "-c", &script])
        .current_dir(folder)
        .env("PATH", std::env::join_paths(paths).unwrap())
        .env("RINGCAST_CORES", "2")
        .env("RINGCAST_LISTEN", format!("127.0.0.1:{clients}"))
        .env("RINGCAST_ADMIN", format!("127.0.0.1:{operators}"))
        .env("RINGCAST_API_URL", format!("http://127.0.0.1:{operators}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(BEGIN).skip(1).map(str::to_owned).collect()
}

/// Whether a text is the pattern, in which each `…` stands for anything.
fn is_as_said(pattern: &str, text: &str) -> bool {
    let mut rest = text.trim_end();
    let mut parts = pattern.trim_end().split('…');
    let Some(after) = rest.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    rest = after;
    let parts: Vec<&str> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn expected_output_is_compared_exactly_except_for_the_dots() {
    assert!(is_as_said("a\n", "a\n") && is_as_said("a…c", "abbc") && is_as_said("…b…", "abc"));
    assert!(!is_as_said("a\n", "b\n") && !is_as_said("a…c", "ab") && !is_as_said("", "a"));
}
