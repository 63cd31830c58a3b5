//! `ringcast passwd` compared with the real `mosquitto_passwd`; its files with the real broker, and
//! Mosquitto's files with our password checks.
//!
//! Needs Debian's `mosquitto` and `mosquitto-clients`. Prompts are tested on a terminal that `script` makes.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test, which says what it has left out

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use ringcast::internals::client::network::Nat64Prefixes;
use ringcast::internals::clock::Clock;
use ringcast::internals::login::backoff::{BackoffPolicy, DELAY_FIRST};
use ringcast::internals::login::{
    self, Attempt, LoginVerdict, Password, PasswordCheckSettings, PasswordChecks,
};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::eventually;
use support::folder::Folder;

const RINGCAST: &str = env!("CARGO_BIN_EXE_ringcast");

fn run(program: &str, words: &[&OsStr], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; please install mosquitto and mosquitto-clients"));
    // A program that reads no input has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Runs `ringcast passwd` with these words; `FILE` stands for the file.
fn passwd(file: &Path, words: &[&str], input: &str) -> Output {
    let words: Vec<&OsStr> = [OsStr::new("passwd")]
        .into_iter()
        .chain(placed(file, words))
        .collect();
    run(RINGCAST, &words, input)
}

fn mosquitto_passwd(file: &Path, words: &[&str], input: &str) -> Output {
    let words: Vec<&OsStr> = placed(file, words).collect();
    run("mosquitto_passwd", &words, input)
}

fn placed<'a>(file: &'a Path, words: &'a [&str]) -> impl Iterator<Item = &'a OsStr> {
    words.iter().map(move |word| match *word {
        "FILE" => file.as_os_str(),
        word => OsStr::new(word),
    })
}

#[track_caller]
fn done(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The names of the users in a file.
fn users(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let entries = text.lines().filter(|line| !line.starts_with('#'));
    entries
        .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
        .collect()
}

/// True if a server with this file would accept the login.
fn may_log_in(file: &Path, user: &str, password: &str) -> bool {
    let (users, _) = login::read(file).unwrap_or_else(|error| panic!("{error}"));
    let settings = PasswordCheckSettings {
        threads: 1,
        waiting_max: 1,
        nat64_prefixes: Nat64Prefixes::default(),
        policy: BackoffPolicy {
            failures_max: 5,
            delay_first: DELAY_FIRST,
            delay_max: DELAY_FIRST,
            accounts_max: 10,
        },
    };
    let password_checks = PasswordChecks::open(settings, Arc::new(users), Clock::begin()).unwrap();
    let (sender, messages) = bounded(1);
    let attempt = Attempt {
        user: user.to_owned(),
        password: Password::new(password),
        address: [127, 0, 0, 1].into(),
    };
    password_checks
        .submit(attempt, Box::new(move |verdict| sender.send(verdict).unwrap()))
        .unwrap();
    matches!(
        messages.recv_timeout(Duration::from_secs(60)).unwrap(),
        LoginVerdict::Accepted { .. }
    )
}

#[test]
fn users_of_a_file_of_mosquitto_passwd_can_log_in() {
    let folder = Folder::new();
    let file = folder.file("users");
    done(&mosquitto_passwd(
        &file,
        &["-c", "-b", "FILE", "alice", "secret"],
        "",
    ));
    done(&mosquitto_passwd(
        &file,
        &["-H", "sha512", "-b", "FILE", "bob", "öl"],
        "",
    ));
    done(&mosquitto_passwd(&file, &["FILE", "carol"], "c c\nc c\n"));
    assert_eq!(users(&file), ["alice", "bob", "carol"]);
    for (user, password, expected) in [
        ("alice", "secret", true),
        ("alice", "secre", false),
        ("alice", "öl", false),
        ("bob", "öl", true),
        ("bob", "ol", false),
        ("carol", "c c", true),
        ("carol", "c", false),
        ("dave", "secret", false),
    ] {
        assert_eq!(may_log_in(&file, user, password), expected, "{user} {password}");
    }
    // Entries of both programs work together in one file.
    done(&passwd(&file, &["-b", "FILE", "dave", "d"], ""));
    done(&passwd(&file, &["-b", "FILE", "alice", "changed"], ""));
    assert_eq!(users(&file), ["alice", "bob", "carol", "dave"]);
    for (user, password, expected) in [
        ("alice", "secret", false),
        ("alice", "changed", true),
        ("bob", "öl", true),
        ("dave", "d", true),
    ] {
        assert_eq!(may_log_in(&file, user, password), expected, "{user} {password}");
    }
}

#[test]
fn options_do_the_same_as_with_mosquitto_passwd() {
    // Each case runs on a file with the users alice and bob, or on none: the arguments, the input, and how
    // both programs end. The head of src/cli/passwd lists the differences.
    struct Case(bool, &'static [&'static str], &'static str);
    for Case(exists, words, input) in [
        Case(true, &["-b", "FILE", "carol", "c"], ""),
        Case(true, &["-b", "FILE", "alice", "changed"], ""),
        Case(true, &["FILE", "carol"], "c\nc\n"),
        Case(true, &["FILE", "carol"], "c\nc"),
        Case(true, &["FILE", "carol"], "c\r\nc\r\n"),
        Case(true, &["FILE", "carol"], "c\nd\n"),
        Case(true, &["FILE", "carol"], "c\n"),
        Case(true, &["FILE", "carol"], "\n\n"),
        Case(true, &["FILE", "carol"], ""),
        Case(true, &["-D", "FILE", "alice"], ""),
        Case(true, &["-D", "FILE", "nobody"], ""),
        Case(true, &["-c", "FILE", "carol"], "c\nc\n"),
        Case(true, &["-c", "FILE", "carol"], "\n"),
        Case(true, &["-c", "-b", "FILE", "carol", "c"], ""),
        Case(true, &["-b", "-c", "FILE", "carol", "c"], ""),
        Case(true, &["-b", "FILE", "a:b", "c"], ""),
        Case(true, &["-b", "FILE", "carol", "-c"], ""),
        Case(true, &["-b", "FILE", "carol"], ""),
        Case(true, &["-b", "-D", "FILE", "alice", "c"], ""),
        Case(true, &["-c", "-D", "FILE", "alice"], ""),
        Case(true, &["-D", "FILE"], ""),
        Case(true, &["FILE"], ""),
        Case(true, &[], ""),
        Case(true, &["-H", "sha512-pbkdf2", "-b", "FILE", "carol", "c"], ""),
        Case(true, &["-H", "md5", "-b", "FILE", "carol", "c"], ""),
        Case(true, &["-x", "FILE", "carol"], ""),
        Case(false, &["-c", "-b", "FILE", "carol", "c"], ""),
        Case(false, &["-b", "FILE", "carol", "c"], ""),
        Case(false, &["-D", "FILE", "alice"], ""),
        Case(false, &["FILE", "carol"], "c\nc\n"),
        Case(false, &["-c", "FILE", "carol"], "c\nd\n"),
    ] {
        let folder = Folder::new();
        let [theirs, ours] = ["theirs", "ours"].map(|name| folder.file(name));
        for file in [&theirs, &ours] {
            if exists {
                done(&mosquitto_passwd(
                    file,
                    &["-c", "-b", "FILE", "alice", "secret"],
                    "",
                ));
                done(&mosquitto_passwd(file, &["-b", "FILE", "bob", "b"], ""));
            }
        }
        let they = mosquitto_passwd(&theirs, words, input);
        let we = passwd(&ours, words, input);
        assert_eq!(
            we.status.success(),
            they.status.success(),
            "{words:?} {input:?}: {}",
            stderr(&we)
        );
        assert_eq!(ours.exists(), theirs.exists(), "{words:?} {input:?}");
        assert_eq!(users(&ours), users(&theirs), "{words:?} {input:?}");
        for (user, password) in [
            ("alice", "secret"),
            ("alice", "changed"),
            ("carol", "c"),
            ("carol", "-c"),
        ] {
            if ours.exists() {
                assert_eq!(
                    may_log_in(&ours, user, password),
                    may_log_in(&theirs, user, password),
                    "{words:?} {input:?} {user} {password}"
                );
            }
        }
        // One line tells the reason, without the password.
        if !we.status.success() {
            let text = stderr(&we);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.starts_with("ringcast: "), "{text}");
        }
    }
}

#[test]
fn a_file_of_plain_passwords_is_hashed_as_by_mosquitto_passwd() {
    let folder = Folder::new();
    let [theirs, ours] = ["theirs", "ours"].map(|name| folder.file(name));
    for file in [&theirs, &ours] {
        fs::write(file, "alice:secret\nbob:b b\n").unwrap();
    }
    done(&mosquitto_passwd(&theirs, &["-U", "FILE"], ""));
    done(&passwd(&ours, &["-U", "FILE"], ""));
    assert!(!fs::read_to_string(&ours).unwrap().contains("secret"));
    let once = fs::read_to_string(&ours).unwrap();
    done(&passwd(&ours, &["-U", "FILE"], ""));
    assert_eq!(
        fs::read_to_string(&ours).unwrap(),
        once,
        "what is hashed is not hashed again"
    );
    for (user, password, expected) in [
        ("alice", "secret", true),
        ("bob", "b b", true),
        ("bob", "b", false),
    ] {
        for file in [&ours, &theirs] {
            assert_eq!(may_log_in(file, user, password), expected, "{file:?} {user}");
        }
    }
}

#[test]
fn comments_and_blank_lines_are_kept() {
    let folder = Folder::new();
    let file = folder.file("users");
    fs::write(&file, "# the team\n\nalice:$7$1$AAAA$AAAA\n# end").unwrap();
    done(&passwd(&file, &["-b", "FILE", "alice", "secret"], ""));
    done(&passwd(&file, &["-b", "FILE", "bob", "b"], ""));
    done(&passwd(&file, &["-D", "FILE", "alice"], ""));
    let text = fs::read_to_string(&file).unwrap();
    let (before, entry) = text.rsplit_once("bob:").unwrap();
    assert_eq!(before, "# the team\n\n# end\n");
    assert!(entry.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{entry}");
}

#[test]
fn impossible_names_and_files_are_refused_and_nothing_changes() {
    let folder = Folder::new();
    let file = folder.file("users");
    done(&passwd(&file, &["-c", "-b", "FILE", "alice", "secret"], ""));
    let before = fs::read(&file).unwrap();
    let long = "n".repeat(1025);
    for (words, code) in [
        (&["-b", "FILE", "", "topsecret"][..], 64),
        (&["-b", "FILE", "#a", "topsecret"], 64),
        (&["-b", "FILE", " a", "topsecret"], 64),
        (&["-b", "FILE", "a\nb:c", "topsecret"], 64),
        (&["-b", "FILE", &long, "topsecret"], 64),
        (&["-b", "FILE", "a", "topsecret", "topsecret"], 64),
        (&["FILE", "a", "topsecret"], 64),
        (&["-b", "FILE", "a", ""], 1),
        (&["-b", "FILE", "a", "topsecret\n"], 1),
        (&["-b", "FILE", "a", &long], 1),
        (
            &["--pbkdf2", "--iterations", "0", "-b", "FILE", "a", "topsecret"],
            64,
        ),
        (&["--pbkdf2", "-I", "2000001", "-b", "FILE", "a", "topsecret"], 64),
        (&["-I", "1000", "-b", "FILE", "a", "topsecret"], 64),
        (&["-b", "/dev/null", "a", "topsecret"], 1),
        (&["-b", "/", "a", "topsecret"], 1),
        (&["-c", "-b", "/", "a", "topsecret"], 1),
        (&["-c", "-b", "/nowhere/users", "a", "topsecret"], 1),
    ] {
        let output = passwd(&file, words, "");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("topsecret"), "{}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
    assert_eq!(fs::read(&file).unwrap(), before);

    // A file with a fault elsewhere does not get worse.
    for text in ["alice:x\nalice:y\n", ":x\n"] {
        fs::write(&file, text).unwrap();
        let output = passwd(&file, &["-b", "FILE", "bob", "b"], "");
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(": line "), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    assert_eq!(folder.names(), ["users"]);
}

#[test]
fn only_the_owner_may_read_the_file() {
    let folder = Folder::new();
    let file = folder.file("users");
    let mode = || fs::metadata(&file).unwrap().mode() & 0o7777;
    done(&passwd(&file, &["-c", "-b", "FILE", "alice", "secret"], ""));
    assert_eq!(mode(), 0o600);
    for (before, after) in [
        (0o600, 0o600),
        (0o400, 0o600),
        (0o644, 0o600),
        (0o666, 0o600),
        // A group that somebody has chosen, perhaps that of a server.
        (0o640, 0o640),
        (0o660, 0o640),
        (0o664, 0o600),
    ] {
        for words in [&["-b", "FILE", "bob", "b"][..], &["-c", "-b", "FILE", "bob", "b"]] {
            fs::set_permissions(&file, fs::Permissions::from_mode(before)).unwrap();
            done(&passwd(&file, words, ""));
            assert_eq!(mode(), after, "{before:o}");
        }
    }
}

#[test]
fn the_owner_is_kept() {
    let folder = Folder::new();
    let file = folder.file("users");
    done(&passwd(&file, &["-c", "-b", "FILE", "alice", "secret"], ""));
    // Only root can give a file away; for other users it is theirs before and after.
    let _ = std::os::unix::fs::chown(&file, Some(65_534), Some(65_534));
    let before = fs::metadata(&file).unwrap();
    if fs::File::open(&file).is_ok() {
        done(&passwd(&file, &["-b", "FILE", "bob", "b"], ""));
    }
    let after = fs::metadata(&file).unwrap();
    assert_eq!((before.uid(), before.gid()), (after.uid(), after.gid()));
}

#[test]
fn a_link_stays_a_link() {
    let folder = Folder::new();
    fs::create_dir(folder.file("real")).unwrap();
    let (link, file) = (folder.file("link"), folder.file("real/users"));
    symlink("real/users", &link).unwrap();
    let to_nowhere = passwd(&link, &["-c", "-b", "FILE", "alice", "secret"], "");
    assert_eq!(to_nowhere.status.code(), Some(1));
    fs::write(&file, "").unwrap();
    for words in [
        &["-b", "FILE", "alice", "secret"][..],
        &["-b", "FILE", "bob", "b"],
        &["-c", "-b", "FILE", "bob", "b"],
        &["-D", "FILE", "bob"],
    ] {
        done(&passwd(&link, words, ""));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
    assert_eq!(users(&file), [""; 0]);
    assert_eq!(folder.names(), ["link", "real"]);
}

#[test]
fn a_reader_sees_the_old_file_or_the_new_one_and_no_change_is_lost() {
    let folder = Folder::new();
    let file = folder.file("users");
    done(&passwd(&file, &["-c", "-b", "FILE", "first", "f"], ""));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !ended.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&file).unwrap();
                assert!(text.starts_with("first:$") && text.ends_with('\n'), "{text}");
                for line in text.lines() {
                    assert_eq!(
                        line.split('$').count(),
                        if line.contains("$7$") { 5 } else { 6 },
                        "{line}"
                    );
                }
                reads += 1;
            }
            reads
        });
        let writers = [0, 1, 2].map(|writer| {
            let file = &file;
            scope.spawn(move || {
                for index in 0..8 {
                    let name = format!("user{writer}-{index}");
                    let words = ["--pbkdf2", "-I", "1", "-b", "FILE", name.as_str(), "x"];
                    done(&passwd(file, &words, ""));
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(users(&file).len(), 25);
    assert_eq!(folder.names(), ["users"]);
}

/// Runs a script in mounts of its own, in which `$DIR` is the folder. False if this machine does not permit
/// that.
fn in_own_mounts(folder: &Folder, script: &str) -> bool {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-euc", script])
        .env("DIR", folder.path())
        .env("RINGCAST", RINGCAST)
        .output()
        .unwrap();
    let text = stderr(&output);
    if text.contains("unshare") || text.contains("permission denied") {
        // In a container that does not allow mounts; root of the machine can run this.
        println!("skipped: this system does not let a user mount a file");
        return false;
    }
    assert!(output.status.success(), "{text}");
    true
}

#[test]
fn a_file_that_is_a_mount_is_written_in_place_with_a_remark() {
    let folder = Folder::new();
    let (file, host) = (folder.file("users"), folder.file("host"));
    done(&passwd(&file, &["-c", "-b", "FILE", "ann", "pw"], ""));
    done(&passwd(&file, &["-b", "FILE", "zoe", "pw"], ""));
    fs::copy(&file, &host).unwrap();
    fs::set_permissions(&host, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&host).unwrap();
    let tried = in_own_mounts(
        &folder,
        r#"
        mount --bind "$DIR/host" "$DIR/users"
        "$RINGCAST" passwd -b "$DIR/users" bob pw 2> "$DIR/messages"
        ln -s users "$DIR/link"
        "$RINGCAST" passwd -b "$DIR/link" carol pw
        "$RINGCAST" passwd -D "$DIR/users" ann
        pids=""
        for number in 1 2 3 4 5 6; do
            "$RINGCAST" passwd --pbkdf2 -I 1 -b "$DIR/users" "user$number" pw & pids="$pids $!"
        done
        for pid in $pids; do wait "$pid"; done
        "#,
    );
    if !tried {
        return;
    }
    let mut found = users(&host);
    found.sort();
    let expected = [
        "bob", "carol", "user1", "user2", "user3", "user4", "user5", "user6", "zoe",
    ];
    assert_eq!(found, expected);
    let after = fs::metadata(&host).unwrap();
    assert_eq!(
        (after.mode(), after.uid(), after.ino()),
        (before.mode(), before.uid(), before.ino())
    );
    let messages = fs::read_to_string(folder.file("messages")).unwrap();
    assert!(
        messages.contains("written in place") && messages.lines().count() == 1,
        "{messages}"
    );
    assert_eq!(folder.names(), ["host", "link", "messages", "users"]);
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let folder = Folder::new();
    fs::create_dir(folder.file("small")).unwrap();
    // As an ordinary file and as a mount, both without a free byte for the addition.
    let tried = in_own_mounts(
        &folder,
        r##"
        mount -t tmpfs -o size=64k tmpfs "$DIR/small"
        "$RINGCAST" passwd -c -b "$DIR/small/users" ann pw
        # Its last page is full: one more line needs another.
        printf '# %0*d\n' "$((4096 - $(stat -c %s "$DIR/small/users") - 3))" 0 >> "$DIR/small/users"
        cp "$DIR/small/users" "$DIR/before"
        ! cat /dev/zero > "$DIR/small/filler" 2> /dev/null
        ! "$RINGCAST" passwd -b "$DIR/small/users" bob pw 2> "$DIR/messages"
        grep -q "No space left" "$DIR/messages"
        cmp "$DIR/small/users" "$DIR/before"
        touch "$DIR/mounted"
        mount --bind "$DIR/small/users" "$DIR/mounted"
        ! "$RINGCAST" passwd -b "$DIR/mounted" bob pw 2> "$DIR/messages"
        grep -q "No space left" "$DIR/messages"
        cmp "$DIR/small/users" "$DIR/before"
        rm "$DIR/small/filler"
        "$RINGCAST" passwd -b "$DIR/mounted" bob pw
        grep -q "^bob:" "$DIR/small/users"
        grep -q "^ann:" "$DIR/small/users"
        test "$(ls -A "$DIR/small")" = users
        "##,
    );
    if tried {
        assert_eq!(folder.names(), ["before", "messages", "mounted", "small"]);
    }
}

/// `ringcast passwd` on a terminal of its own.
struct Typed {
    script: Child,
    shown: String,
}

impl Typed {
    fn begin(words: &str) -> Typed {
        let script = Command::new("script")
            .args(["-qec", &format!("'{RINGCAST}' passwd {words}"), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Typed {
            script,
            shown: String::new(),
        }
    }

    /// Types a line when the terminal shows the prompt.
    fn answer(&mut self, prompt: &str, line: &str) {
        let output = self.script.stdout.as_mut().unwrap();
        while !self.shown.ends_with(prompt) {
            let mut byte = [0];
            assert_eq!(
                output.read(&mut byte).unwrap(),
                1,
                "instead of {prompt:?}: {:?}",
                self.shown
            );
            self.shown.push(char::from(byte[0]));
        }
        let input = self.script.stdin.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// The exit code, and everything that the terminal has shown.
    fn end(mut self) -> (Option<i32>, String) {
        self.script
            .stdout
            .as_mut()
            .unwrap()
            .read_to_string(&mut self.shown)
            .unwrap();
        (self.script.wait().unwrap().code(), self.shown)
    }
}

#[test]
fn at_a_terminal_a_password_is_asked_for_twice_and_not_shown() {
    let folder = Folder::new();
    let file = folder.file("users");
    let words = format!("-c '{}' alice", file.display());

    let mut typed = Typed::begin(&words);
    typed.answer("Password: ", "topsecrex\x7ft\n");
    typed.answer("Reenter password: ", "topsecret\n");
    let (code, shown) = typed.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("sec"), "{shown}");
    assert!(may_log_in(&file, "alice", "topsecret"));

    let before = fs::read(&file).unwrap();
    let mut typed = Typed::begin(&words);
    typed.answer("Password: ", "topsecret\n");
    typed.answer("Reenter password: ", "topsecrex\n");
    let (code, shown) = typed.end();
    assert_eq!(code, Some(1), "{shown}");
    assert!(
        shown.contains("the passwords do not match") && !shown.contains("sec"),
        "{shown}"
    );

    // Ctrl-C and the end of the input; neither leaves a terminal without echo or half a file.
    for (typed_first, code) in [("tops\x03", 130), ("\x04", 1), ("\n", 1)] {
        let mut typed = Typed::begin(&format!("{words}; code=$?; stty -a; exit $code"));
        typed.answer("Password: ", typed_first);
        let (found, shown) = typed.end();
        assert_eq!(found, Some(code), "{shown}");
        let modes: Vec<&str> = shown.split_whitespace().collect();
        assert!(modes.contains(&"echo") && modes.contains(&"isig"), "{shown}");
    }
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(folder.names(), ["users"]);
}

/// A server and its log; the process is killed with the value.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn start(folder: &Folder, settings: &Path) -> Server {
        let log = folder.file("log");
        let child = Command::new(RINGCAST)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--cores",
                "1",
            ])
            .arg("--config")
            .arg(settings)
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let server = Server { child, log };
        server.until_logged("control plane on http://");
        server
    }

    fn until_logged(&self, text: &str) {
        eventually(text, || fs::read_to_string(&self.log).unwrap().contains(text));
    }

    fn reload(&self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
    }

    /// How many users can log in; `None` without a password file.
    fn users(&self) -> Option<u64> {
        let log = fs::read_to_string(&self.log).unwrap();
        let (_, rest) = log.split_once("control plane on http://").unwrap();
        let mut stream = TcpStream::connect(rest.split('/').next().unwrap()).unwrap();
        stream
            .write_all(b"GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let stats: serde_json::Value = serde_json::from_str(body).unwrap();
        stats["logins"]["users"].as_u64()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_reads_the_file_again_on_sighup_and_keeps_its_users_if_it_is_bad() {
    let folder = Folder::new();
    let (file, settings) = (folder.file("users"), folder.file("ringcast.toml"));
    let with_file = |file: &Path| format!("password_file = {:?}\n", file.to_str().unwrap());
    done(&passwd(&file, &["-c", "-b", "FILE", "alice", "secret"], ""));
    fs::write(&settings, "").unwrap();
    let server = Server::start(&folder, &settings);
    assert_eq!(server.users(), None);
    // A file that a reload adds while the server runs.
    fs::write(&settings, with_file(&file)).unwrap();
    server.reload();
    eventually("the file is read", || server.users() == Some(1));
    done(&passwd(&file, &["-b", "FILE", "bob", "b"], ""));
    server.reload();
    eventually("the file is read again", || server.users() == Some(2));

    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.clone() + "carol:topsecret\n").unwrap();
    server.reload();
    server.until_logged("SIGHUP: nothing is reloaded: password_file: ");
    server.until_logged("users: line 3: ");
    assert_eq!(server.users(), Some(2));
    assert!(!fs::read_to_string(&server.log).unwrap().contains("topsecret"));
    // A server would not start with it either.
    let output = run(RINGCAST, &["--config".as_ref(), settings.as_os_str()], "");
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("users: line 3: "), "{}", stderr(&output));

    // Nor with a line that is not an entry.
    fs::write(&file, text.clone() + "carol\n").unwrap();
    server.reload();
    server.until_logged("users: line 3: it has no ':', so it is not an entry");
    assert_eq!(server.users(), Some(2));
    let output = run(RINGCAST, &["--config".as_ref(), settings.as_os_str()], "");
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("users: line 3: it has no ':'"),
        "{}",
        stderr(&output)
    );
    // The program that changes the file warns about it, and nothing is lost.
    let output = passwd(&file, &["-b", "FILE", "bob", "b"], "");
    done(&output);
    assert!(
        stderr(&output).contains("line 3: it has no ':'"),
        "{}",
        stderr(&output)
    );
    assert!(fs::read_to_string(&file).unwrap().ends_with("carol\n"));

    fs::write(&file, text).unwrap();
    done(&passwd(&file, &["-D", "FILE", "bob"], ""));
    server.reload();
    eventually("the file is good again", || server.users() == Some(1));
}

/// A real broker on a loopback port, ended with the value.
struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    fn start(folder: &Folder, passwords: &Path) -> Broker {
        // The port may be taken between its choice and its use: then another is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let settings = folder.file("mosquitto.conf");
            // As root the broker would become a user that may not read the file.
            let text = format!(
                "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nuser root\n",
                passwords.display()
            );
            fs::write(&settings, text).unwrap();
            let mut child = Command::new("mosquitto")
                .arg("-c")
                .arg(&settings)
                .env("PATH", path_with_sbin())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("mosquitto: {error}; please install mosquitto"));
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Broker { child, port };
                }
                thread::yield_now();
            }
        }
        panic!("mosquitto does not start");
    }

    fn accepts(&self, user: &str, password: &str) -> bool {
        let port = self.port.to_string();
        let words = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-u",
            user,
            "-P",
            password,
            "-t",
            "t",
            "-m",
            "m",
        ];
        let output = run("mosquitto_pub", &words.map(OsStr::new), "");
        let text = stderr(&output);
        assert!(
            output.status.success() || text.contains("not authorised"),
            "{user}: {text}"
        );
        output.status.success()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path_with_sbin() -> String {
    format!(
        "{}:/usr/sbin:/usr/local/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

#[test]
fn the_real_broker_accepts_pbkdf2_entries() {
    let folder = Folder::new();
    let file = folder.file("users");
    done(&passwd(
        &file,
        &["-c", "--pbkdf2", "-b", "FILE", "alice", "secret"],
        "",
    ));
    done(&passwd(
        &file,
        &["--pbkdf2", "-I", "101", "-b", "FILE", "bob", "öl"],
        "",
    ));
    done(&passwd(
        &file,
        &["-H", "sha512-pbkdf2", "FILE", "carol"],
        "c c\nc c\n",
    ));
    fs::write(folder.file("plain"), "dave:d\n").unwrap();
    done(&passwd(&folder.file("plain"), &["--pbkdf2", "-U", "FILE"], ""));
    let all = fs::read_to_string(&file).unwrap() + &fs::read_to_string(folder.file("plain")).unwrap();
    fs::write(&file, all).unwrap();
    done(&passwd(&file, &["-b", "FILE", "erin", "e"], ""));
    done(&passwd(&file, &["-D", "FILE", "carol"], ""));
    let broker = Broker::start(&folder, &file);
    for (user, password, accepted) in [
        ("alice", "secret", true),
        ("alice", "secrets", false),
        ("bob", "öl", true),
        ("bob", "secret", false),
        ("carol", "c c", false),
        ("dave", "d", true),
        // Argon2id: Mosquitto 2.0 does not support it and ignores this user.
        ("erin", "e", false),
    ] {
        assert_eq!(broker.accepts(user, password), accepted, "{user}");
    }
    assert!(may_log_in(&file, "erin", "e") && may_log_in(&file, "dave", "d"));
}
