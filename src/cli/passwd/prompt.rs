//! A password from somebody at a terminal, twice and unseen, or from standard input, two lines of it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::cli::CliError;

/// Asks for a password and asks again.
pub(super) fn twice() -> Result<Zeroizing<String>, CliError> {
    let (first, second) = if io::stdin().is_terminal() {
        let terminal = Terminal::open().map_err(|error| CliError::Failed(format!("/dev/tty: {error}")))?;
        let mut lines = BufReader::new(&terminal.device);
        let first = terminal.ask("Password: ", &mut lines)?;
        refuse_empty(&first)?;
        (first, terminal.ask("Reenter password: ", &mut lines)?)
    } else {
        let mut lines = io::stdin().lock();
        let first = line(&mut lines)?;
        refuse_empty(&first)?;
        (first, line(&mut lines)?)
    };
    if *first != *second {
        return Err(CliError::Failed("the passwords do not match".to_owned()));
    }
    Ok(first)
}

fn refuse_empty(password: &str) -> Result<(), CliError> {
    match password {
        "" => Err(CliError::Failed("the password is empty".to_owned())),
        _ => Ok(()),
    }
}

/// The terminal of this process, which shows nothing that is typed for as long as this lives.
///
/// Ctrl-C ends the line instead of the process, which would leave the terminal silent.
struct Terminal {
    device: File,
    before: Termios,
}

impl Terminal {
    fn open() -> io::Result<Terminal> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&device)?;
        let mut silent = before.clone();
        silent.local_flags -= LocalFlags::ECHO | LocalFlags::ISIG;
        silent.local_flags |= LocalFlags::ECHONL | LocalFlags::ICANON;
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = CTRL_C;
        tcsetattr(&device, SetArg::TCSAFLUSH, &silent)?;
        Ok(Terminal { device, before })
    }

    fn ask(&self, prompt: &str, lines: &mut impl BufRead) -> Result<Zeroizing<String>, CliError> {
        // Without a terminal that can be written to, the line is read all the same.
        let _ = (&self.device).write_all(prompt.as_bytes());
        line(lines)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(&self.device, SetArg::TCSAFLUSH, &self.before);
    }
}

/// The next line without its break; at the end, what there is.
fn line(lines: &mut impl BufRead) -> Result<Zeroizing<String>, CliError> {
    let mut bytes = Zeroizing::new(Vec::new());
    for byte in lines.take(LINE_BYTES_MAX).bytes() {
        match byte.map_err(|error| CliError::Failed(format!("the password cannot be read: {error}")))? {
            b'\n' => break,
            CTRL_C => return Err(CliError::Interrupted),
            byte => bytes.push(byte),
        }
    }
    if bytes.ends_with(b"\r") {
        bytes.pop();
    }
    match str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(CliError::Failed("the password is not UTF-8".to_owned())),
    }
}

const CTRL_C: u8 = 3;
/// More than any password has.
const LINE_BYTES_MAX: u64 = 8192;
