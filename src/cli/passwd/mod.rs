//! `ringcast passwd`: creates, changes and deletes users of a password file, with the words of `mosquitto_passwd`.
//!
//! What differs from there, on purpose: new hashes are Argon2id unless asked otherwise, comments and blank lines stay,
//! the file is replaced as a whole (`replace.rs`; nobody sees half of it), names are refused that could not be read back,
//! and empty passwords also with `-b`.

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
use crate::replace::Target;

/// What is to be done, and to which file.
#[derive(Debug)]
pub(super) struct Wanted {
    file: PathBuf,
    action: Action,
    hashing: Hashing,
}

#[derive(Debug)]
enum Action {
    /// Adds a user or changes his password.
    Set {
        user: String,
        /// Prompted for if it is absent.
        password: Option<OnCommandLine>,
        /// In a new file, whatever is there.
        create: bool,
    },
    Delete {
        user: String,
    },
    /// Hashes plain passwords.
    HashPlain,
}

/// How a password is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hashing {
    Argon2id,
    Pbkdf2 { iterations: u32 },
}

/// A password that stood among the words.
struct OnCommandLine(Zeroizing<String>);

impl std::fmt::Debug for OnCommandLine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(crate::config::secret::Secret::HIDDEN)
    }
}

impl Wanted {
    /// Reads the words after `passwd`. As in `mosquitto_passwd`, options come first: what follows the name of the file
    /// is never one, so that a password may begin with a hyphen.
    pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Wanted, CliError> {
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
        let wanted = options.action(file, &mut words)?;
        match words.next() {
            // It may be a password: it is not shown.
            Some(_) => Err(usage(
                "there is a word too many; a password is given with -b, or else prompted for",
            )),
            None => Ok(wanted),
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

    fn action(self, file: PathBuf, words: &mut impl Iterator<Item = OsString>) -> Result<Wanted, CliError> {
        for (both, names) in [
            (self.batch && self.delete, "-b and -D"),
            (self.create && self.delete, "-c and -D"),
            (self.hash_plain && self.create, "-U and -c"),
            (self.hash_plain && self.delete, "-U and -D"),
            (self.hash_plain && self.batch, "-U and -b"),
        ] {
            if both {
                return Err(usage(&format!("{names} do not go together")));
            }
        }
        if self.iterations.is_some() && !self.pbkdf2 {
            return Err(usage("--iterations goes with --pbkdf2 only"));
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
            return Ok(Wanted {
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
            let password = match self.batch {
                true => {
                    let word = words.next().ok_or_else(|| usage("PASSWORD is missing"))?;
                    // Not `text`, whose error shows the word.
                    let word = word
                        .into_string()
                        .map_err(|_| usage("the password is not UTF-8"))?;
                    Some(OnCommandLine(Zeroizing::new(word)))
                }
                false => None,
            };
            Action::Set {
                user,
                password,
                create: self.create,
            }
        };
        Ok(Wanted {
            file,
            action,
            hashing,
        })
    }
}

/// Does it. What is said goes to standard error: a password file is no answer.
pub(super) fn passwd(wanted: Wanted) -> Result<(), CliError> {
    let Wanted {
        file,
        action,
        hashing,
    } = wanted;
    match action {
        Action::Set {
            user,
            password,
            create,
        } => {
            let password = match password {
                Some(OnCommandLine(password)) => password,
                None => {
                    // What cannot be changed is told before anybody types; others may change it while he does.
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

/// Changes a file, which nobody else does meanwhile.
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
    // Whoever has made one change is told now what a server would tell at night.
    let fault = passwords
        .users()
        .err()
        .map(|fault| format!("{fault}: a server takes nothing from this file until that is mended"));
    for text in remark.map(|remark| remark.to_string()).into_iter().chain(fault) {
        // Without standard error there is nobody to tell.
        let _ = writeln!(io::stderr(), "ringcast: {}: {text}", file.display());
    }
    Ok(())
}

fn target(file: &Path, create: bool) -> Result<Target, CliError> {
    if create {
        return Target::create(file, FILE_BYTES_MAX).map_err(|error| failed(file, &error));
    }
    Target::open(file, FILE_BYTES_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            CliError::Failed(format!("{}: {error}; -c makes a new file", file.display()))
        }
        _ => failed(file, &error),
    })
}

fn failed(file: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("{}: {error}", file.display()))
}

fn parse(file: &Path, target: &Target) -> Result<PasswordFile, CliError> {
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
                    .expect("the iterations were checked when the words were read")
            }
        })
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], CliError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::Failed(format!("the system gives no random salt: {error}")))?;
    Ok(bytes)
}

fn text(word: OsString) -> Result<String, CliError> {
    word.into_string()
        .map_err(|word| usage(&format!("{} is not UTF-8", word.display())))
}

fn usage(text: &str) -> CliError {
    CliError::Usage(format!("passwd: {text}"))
}
