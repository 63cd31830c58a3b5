//! `ringcast passwd`: creates, changes and deletes users of a password file, with the options of
//! `mosquitto_passwd`.
//!
//! It differs from `mosquitto_passwd` in these points: new hashes are Argon2id by default, comments and blank
//! lines are kept, the file is replaced as a whole (`replace.rs`, so that no reader sees half of it), names
//! that could not be read back are refused, and so are empty passwords, also with `-b`.

mod prompt;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::CliError;
use crate::auth::passwords::{
    ITERATIONS_DEFAULT, ITERATIONS_MAX, PASSWORD_BYTES_MAX, PasswordFile, PasswordHash, SALT_BYTES_ARGON2ID,
    SALT_BYTES_PBKDF2, check_name,
};
use crate::login::FILE_BYTES_MAX;
use crate::replace::ReplacedFile;

/// The arguments of the command.
#[derive(Debug)]
pub(super) struct PasswdArguments {
    file: PathBuf,
    action: Action,
    hashing: Hashing,
}

#[derive(Debug)]
enum Action {
    /// Adds a user or changes its password.
    Set {
        user: String,
        /// Prompted for if it is absent.
        password: Option<OnCommandLine>,
        /// Creates a new file, even if one exists.
        create: bool,
    },
    Delete {
        user: String,
    },
    /// Hashes plain passwords in the file.
    HashPlain,
}

/// The kind of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hashing {
    Argon2id,
    Pbkdf2 { iterations: u32 },
}

/// A password from the command line.
struct OnCommandLine(Zeroizing<String>);

impl std::fmt::Debug for OnCommandLine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(crate::config::secret::Secret::HIDDEN)
    }
}

impl PasswdArguments {
    /// Parses the words after `passwd`. As in `mosquitto_passwd`, options come first: words after the name of
    /// the file are never options, so a password may begin with a hyphen.
    pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<PasswdArguments, CliError> {
        let mut words = words.into_iter().peekable();
        let mut options = Options::default();
        while let Some(word) = words.next_if(|word| word.as_encoded_bytes().starts_with(b"-")) {
            let word = text(word)?;
            if word == "--" {
                break;
            }
            options.take(&word, || words.next())?;
        }
        let file = words.next().ok_or_else(|| usage("FILE is missing"))?.into();
        let arguments = options.action(file, &mut words)?;
        match words.next() {
            // The superfluous word may be a password, so it is not shown.
            Some(_) => Err(usage(
                "there is one word too many; a password is given with -b, otherwise it is prompted for",
            )),
            None => Ok(arguments),
        }
    }
}

#[derive(Default)]
struct Options {
    create: bool,
    delete: bool,
    batch: bool,
    hash_plain: bool,
    pbkdf2: bool,
    iterations: Option<u32>,
}

impl Options {
    fn take(&mut self, word: &str, next: impl FnOnce() -> Option<OsString>) -> Result<(), CliError> {
        let value =
            |next: Option<OsString>| text(next.ok_or_else(|| usage(&format!("{word} has no value")))?);
        match word {
            "--pbkdf2" => self.pbkdf2 = true,
            "-H" => match value(next())?.as_str() {
                "sha512-pbkdf2" => self.pbkdf2 = true,
                "argon2id" => self.pbkdf2 = false,
                other => return Err(usage(&format!("-H {other}: expected argon2id or sha512-pbkdf2"))),
            },
            "-I" | "--iterations" => {
                let count = value(next())?.parse().ok();
                self.iterations = count.filter(|count| (1..=ITERATIONS_MAX).contains(count));
                if self.iterations.is_none() {
                    return Err(usage(&format!(
                        "{word}: expected a number from 1 to {ITERATIONS_MAX}"
                    )));
                }
            }
            letters if letters.len() > 1 && !letters.starts_with("--") => {
                for letter in letters.chars().skip(1) {
                    match letter {
                        'c' => self.create = true,
                        'D' => self.delete = true,
                        'b' => self.batch = true,
                        'U' => self.hash_plain = true,
                        _ => return Err(usage(&format!("{word} is not an option of passwd"))),
                    }
                }
            }
            _ => return Err(usage(&format!("{word} is not an option of passwd"))),
        }
        Ok(())
    }

    fn action(
        self,
        file: PathBuf,
        words: &mut impl Iterator<Item = OsString>,
    ) -> Result<PasswdArguments, CliError> {
        for (both, names) in [
            (self.batch && self.delete, "-b and -D"),
            (self.create && self.delete, "-c and -D"),
            (self.hash_plain && self.create, "-U and -c"),
            (self.hash_plain && self.delete, "-U and -D"),
            (self.hash_plain && self.batch, "-U and -b"),
        ] {
            if both {
                return Err(usage(&format!("{names} exclude each other")));
            }
        }
        if self.iterations.is_some() && !self.pbkdf2 {
            return Err(usage("--iterations needs --pbkdf2"));
        }
        let hashing = if self.pbkdf2 {
            Hashing::Pbkdf2 {
                iterations: self.iterations.unwrap_or(ITERATIONS_DEFAULT),
            }
        } else {
            Hashing::Argon2id
        };
        if self.hash_plain {
            let action = Action::HashPlain;
            return Ok(PasswdArguments {
                file,
                action,
                hashing,
            });
        }
        let user = text(words.next().ok_or_else(|| usage("USER is missing"))?)?;
        let action = if self.delete {
            Action::Delete { user }
        } else {
            check_name(&user).map_err(|fault| usage(&fault.to_string()))?;
            let password = if self.batch {
                let word = words.next().ok_or_else(|| usage("PASSWORD is missing"))?;
                // Not with `text`, whose error would show the word.
                let word = word
                    .into_string()
                    .map_err(|_| usage("the password is not UTF-8"))?;
                Some(OnCommandLine(Zeroizing::new(word)))
            } else {
                None
            };
            Action::Set {
                user,
                password,
                create: self.create,
            }
        };
        Ok(PasswdArguments {
            file,
            action,
            hashing,
        })
    }
}

/// Runs the command. Messages go to standard error, since the command has no output.
pub(super) fn passwd(arguments: PasswdArguments) -> Result<(), CliError> {
    let PasswdArguments {
        file,
        action,
        hashing,
    } = arguments;
    match action {
        Action::Set {
            user,
            password,
            create,
        } => {
            let password = match password {
                Some(OnCommandLine(password)) => password,
                None => {
                    // Faults of the file are reported before the user types a password. Others may change the
                    // file meanwhile.
                    parse(&file, &target(&file, create)?)?;
                    prompt::twice()?
                }
            };
            let hash = hashing.hash(&password)?;
            change(&file, create, |passwords| {
                passwords
                    .set(&user, &hash)
                    .map_err(|fault| usage(&fault.to_string()))
            })
        }
        Action::Delete { user } => change(&file, false, |passwords| {
            if passwords.remove(&user) {
                return Ok(());
            }
            let file = file.display();
            Err(CliError::Failed(format!("{file}: there is no user {user:?}")))
        }),
        Action::HashPlain => change(&file, false, |passwords| {
            passwords.hash_plain(|password| hashing.hash(password))
        }),
    }
}

/// Changes a file under a lock.
fn change(
    file: &Path,
    create: bool,
    change: impl FnOnce(&mut PasswordFile) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let target = target(file, create)?;
    let mut passwords = parse(file, &target)?;
    change(&mut passwords)?;
    let text = passwords.text();
    let remark = target
        .replace(text.as_bytes())
        .map_err(|error| failed(file, &error))?;
    // Warn now, while the user is present, about faults that would otherwise only show when a server reads
    // the file.
    let fault = passwords
        .users()
        .err()
        .map(|fault| format!("{fault}: no server can use this file until that is corrected"));
    for text in remark.map(|remark| remark.to_string()).into_iter().chain(fault) {
        // If standard error is closed, the warning is dropped.
        let _ = writeln!(io::stderr(), "ringcast: {}: {text}", file.display());
    }
    Ok(())
}

fn target(file: &Path, create: bool) -> Result<ReplacedFile, CliError> {
    if create {
        return ReplacedFile::create(file, FILE_BYTES_MAX).map_err(|error| failed(file, &error));
    }
    ReplacedFile::open(file, FILE_BYTES_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            CliError::Failed(format!("{}: {error}; -c creates a new file", file.display()))
        }
        _ => failed(file, &error),
    })
}

fn failed(file: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("{}: {error}", file.display()))
}

fn parse(file: &Path, target: &ReplacedFile) -> Result<PasswordFile, CliError> {
    PasswordFile::parse(target.text())
        .map_err(|fault| CliError::Failed(format!("{}: {fault}", file.display())))
}

impl Hashing {
    fn hash(self, password: &str) -> Result<PasswordHash, CliError> {
        let refused = |why: &str| Err(CliError::Failed(format!("the password {why}")));
        if password.is_empty() {
            return refused("is empty");
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return refused(&format!("has more than {PASSWORD_BYTES_MAX} bytes"));
        }
        if password.contains(['\0', '\r', '\n']) {
            return refused("contains a line break or a NUL");
        }
        Ok(match self {
            Hashing::Argon2id => {
                PasswordHash::argon2id(password.as_bytes(), random::<SALT_BYTES_ARGON2ID>()?)
            }
            Hashing::Pbkdf2 { iterations } => {
                PasswordHash::pbkdf2(password.as_bytes(), random::<SALT_BYTES_PBKDF2>()?, iterations)
                    .expect("the iterations were checked when the arguments were parsed")
            }
        })
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], CliError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        CliError::Failed(format!(
            "the system provides no random bytes for the salt: {error}"
        ))
    })?;
    Ok(bytes)
}

fn text(word: OsString) -> Result<String, CliError> {
    word.into_string()
        .map_err(|word| usage(&format!("{} is not UTF-8", word.display())))
}

fn usage(text: &str) -> CliError {
    CliError::Usage(format!("passwd: {text}"))
}
