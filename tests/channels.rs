//! Policies of channels in a running server: the real binary, its file, and its control plane.

#![allow(clippy::unwrap_used)] // a test

mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::folder::Folder;
use support::process::Process;

const ROOMS: &str = "[[channels]]\nnames = [\"room.*\"]\nhistory_entries = 5\npresence = true\n";

fn policies(process: &Process) -> Value {
    let (status, body) = process.admin().get("/stats");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["channels"].take()
}

/// A reload replaces the policies as a whole, and a file with a fault changes nothing.
#[test]
fn policies_are_shown_and_reloaded() {
    let folder = Folder::new();
    let file = folder.write("ringcast.toml", ROOMS);
    let process = Process::start(&[("RINGCAST_CONFIG", file.to_str().unwrap())]);
    let rooms = json!([{
        "names": ["room.*"], "history_entries": 5, "history_bytes": 1_048_576, "history_ms": 600_000,
        "last_value": false, "position": true, "presence": true, "presence_events": false,
    }]);
    assert_eq!(policies(&process), rooms);
    let count = |keeps: &str| {
        process
            .admin()
            .metric(&format!("ringcast_channel_policies{{keeps=\"{keeps}\"}}"))
    };
    let counts = || ["history", "last_value", "position", "presence", "presence_events"].map(count);
    assert_eq!(counts(), [1, 0, 1, 1, 0]);

    folder.write(
        "ringcast.toml",
        &ROOMS.replace("history_entries", "history_entrys"),
    );
    process.signal(Signal::SIGHUP);
    let line = process.logged("history_entrys is not known");
    assert!(
        line.contains("nothing is reloaded")
            && line.contains("line 3: channels number 1")
            && line.contains("did you mean history_entries?"),
        "{line}"
    );
    folder.write("ringcast.toml", &ROOMS.replace("room.*", "room-*"));
    process.signal(Signal::SIGHUP);
    process.logged("\"room-*\": *, ** and {claim} must be whole segments");
    assert_eq!(policies(&process), rooms);

    let two = format!("{ROOMS}\n[[channels]]\nnames = \"room.a\"\nlast_value = true\n");
    folder.write("ringcast.toml", &two);
    process.signal(Signal::SIGHUP);
    process.logged("channels number 2 (line 6): \"room.a\" has no effect");
    process.logged("SIGHUP: reloaded");
    assert_eq!(policies(&process)[1]["names"], json!(["room.a"]));
    assert_eq!(counts(), [1, 1, 2, 1, 0]);

    folder.write("ringcast.toml", "");
    process.signal(Signal::SIGHUP);
    process.logged("SIGHUP: reloaded");
    assert_eq!(policies(&process), json!([]));
}
