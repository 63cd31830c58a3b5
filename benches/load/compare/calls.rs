//! Counts system calls per message with `strace -c -f` while a server is driven. This is a pass of its own, because
//! tracing slows a server down many times.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::contender::Contender;
use super::drive::Drive;

/// The calls per reply, delivery or connection by name, most frequent first.
pub(crate) fn count(contender: &Contender, drive: &mut Drive) -> Result<Vec<(String, f64)>, String> {
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-U", "calls,name"]);
    for pid in &contender.pids {
        command.args(["-p", &pid.to_string()]);
    }
    let strace = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut strace = strace.spawn().map_err(|error| format!("strace: {error}"))?;
    let mut output = BufReader::new(strace.stderr.take().ok_or("strace has no output")?);
    let mut attached = 0;
    while attached < contender.pids.len() {
        let mut line = String::new();
        if output.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
            return Err("strace could not attach".to_owned());
        }
        attached += usize::from(line.contains(" attached"));
    }
    let done = drive.count(COUNTED);
    let pid = Pid::from_raw(i32::try_from(strace.id()).map_err(|error| error.to_string())?);
    kill(pid, Signal::SIGINT).map_err(|error| error.to_string())?;
    let mut table = String::new();
    output
        .read_to_string(&mut table)
        .map_err(|error| error.to_string())?;
    strace.wait().map_err(|error| error.to_string())?;
    let done = done?.max(1);
    let rows = table.lines().filter_map(|line| {
        let (calls, name) = line.trim().split_once(' ')?;
        Some((
            name.trim().to_owned(),
            calls.parse::<u64>().ok()? as f64 / done as f64,
        ))
    });
    let mut rows: Vec<(String, f64)> = rows.filter(|(name, _)| name != "total").collect();
    rows.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    Ok(rows)
}

const COUNTED: Duration = Duration::from_millis(300);
