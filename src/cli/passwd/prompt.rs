//! Asks for a password: twice and without echo at a terminal, or as two lines of standard input.
//!
//! Read byte by byte and without a buffer, which would keep the password after the value here is wiped.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::cli::CliError;

/// Asks for a password twice.
pub(super) fn twice() -> Result<Zeroizing<String>, CliError> {
    let (first, second) = if io::stdin().is_terminal() {
        let terminal = Terminal::open().map_err(|error| CliError::Failed(format!("/dev/tty: {error}")))?;
        let first = terminal.ask("Password: ")?;
        refuse_empty(&first)?;
        (first, terminal.ask("Reenter password: ")?)
    } else {
        // `Stdin` has a buffer, which would keep the password. Nothing else reads standard input, so no byte
        // is lost by not using it.
        let input = io::stdin().as_fd().try_clone_to_owned();
        let input = File::from(input.map_err(|error| unreadable(&error))?);
        let first = line(&input)?;
        refuse_empty(&first)?;
        (first, line(&input)?)
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

/// The terminal of this process. It does not echo typed characters while the value lives.
///
/// Ctrl-C ends the line instead of the process, which would leave the terminal without echo.
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

    fn ask(&self, prompt: &str) -> Result<Zeroizing<String>, CliError> {
        // Without a terminal that can be written to, the line is read all the same.
        let _ = (&self.device).write_all(prompt.as_bytes());
        line(&self.device)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(&self.device, SetArg::TCSAFLUSH, &self.before);
    }
}

/// The next line without its line break; at the end of the input, the rest.
fn line(mut input: &File) -> Result<Zeroizing<String>, CliError> {
    // Allocated at its largest possible size: a growing text would leave copies of itself behind.
    let mut text = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
    let mut byte = Zeroizing::new([0]);
    while text.len() < LINE_BYTES_MAX {
        match input.read(&mut *byte) {
            Ok(0) => break,
            Ok(_) => match *byte {
                [b'\n'] => break,
                [CTRL_C] => return Err(CliError::Interrupted),
                [byte] => text.push(byte),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    if text.ends_with(b"\r") {
        text.pop();
    }
    match str::from_utf8(&text) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(CliError::Failed("the password is not UTF-8".to_owned())),
    }
}

fn unreadable(error: &io::Error) -> CliError {
    CliError::Failed(format!("the password cannot be read: {error}"))
}

const CTRL_C: u8 = 3;
/// Longer than any accepted password.
const LINE_BYTES_MAX: usize = 8192;
