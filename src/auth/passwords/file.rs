//! The text of a password file. Its lines are kept as they are, except for that of the user that is changed.
//!
//! The file is read as Mosquitto reads it: a line that begins with `#` is a comment, white space around name
//! and hash is ignored, and so is the text after a second `:`. Unlike Mosquitto, [`PasswordFile::users`]
//! reports an error for a line that is neither an entry nor a comment nor blank (Mosquitto's broker skips it
//! silently, its `mosquitto_passwd` calls the file corrupt), for a damaged entry, and for a name that occurs
//! twice. Otherwise users would be locked out, or a deleted user could still log in, without any message.
//! [`PasswordFile::parse`] accepts such lines, so that the file can be repaired.
//!
//! A file may hold plain passwords that are still to be hashed: its text is wiped when it is dropped.

use std::collections::HashMap;
use std::fmt;

use zeroize::Zeroizing;

use super::entry::{NameFault, check_name};
use super::hash::{HashFault, PasswordHash};
use super::users::Users;
use crate::text::{self, TextFaultKind};

/// A password file.
#[derive(Clone, Default)]
pub struct PasswordFile {
    lines: Vec<Line>,
}

#[derive(Clone)]
struct Line {
    /// Without its line break.
    text: Zeroizing<String>,
    /// The user whose entry it is.
    name: Option<String>,
}

/// A fault in a password file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// The number of its line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub kind: FileFaultKind,
}

/// The kinds of faults in a password file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFaultKind {
    /// The line is not text.
    Text(TextFaultKind),
    /// The name is invalid.
    Name(NameFault),
    /// The hash is invalid.
    Hash(HashFault),
    /// The line is neither an entry nor a comment nor blank.
    NoEntry,
    /// The user already has an entry.
    Twice {
        /// The line of that entry.
        first: usize,
    },
}

impl PasswordFile {
    /// Reads the text of a file and removes a byte order mark. The hashes are not checked, since an entry
    /// that is to be changed may have a damaged one.
    pub fn parse(bytes: &[u8]) -> Result<PasswordFile, FileFault> {
        let text = text::decode(bytes).map_err(|fault| FileFault {
            line: fault.line,
            kind: FileFaultKind::Text(fault.kind),
        })?;
        let mut file = PasswordFile::default();
        let mut first_lines: HashMap<&str, usize> = HashMap::new();
        for (index, text) in text.split_terminator('\n').enumerate() {
            let fault = |kind| FileFault {
                line: index + 1,
                kind,
            };
            let name = entry(text).map(|(name, _)| name);
            if let Some(name) = name {
                check_name(name).map_err(|name| fault(FileFaultKind::Name(name)))?;
                if let Some(first) = first_lines.insert(name, index + 1) {
                    return Err(fault(FileFaultKind::Twice { first }));
                }
            }
            file.lines.push(Line {
                text: Zeroizing::new(text.to_owned()),
                name: name.map(str::to_owned),
            });
        }
        Ok(file)
    }

    /// All users of the file.
    ///
    /// # Errors
    /// The first line that should be an entry but is not, or whose hash is damaged.
    pub fn users(&self) -> Result<Users, FileFault> {
        let entries = self.lines.iter().enumerate().filter_map(|(index, line)| {
            let fault = |kind| FileFault {
                line: index + 1,
                kind,
            };
            match entry(&line.text) {
                Some((name, hash)) => Some(match PasswordHash::parse(hash) {
                    Ok(hash) => Ok((name.into(), hash)),
                    Err(why) => Err(fault(FileFaultKind::Hash(why))),
                }),
                None if is_comment_or_blank(&line.text) => None,
                None => Some(Err(fault(FileFaultKind::NoEntry))),
            }
        });
        Ok(Users::new(entries.collect::<Result<_, _>>()?))
    }

    /// Sets the password of a user; replaces the old one if there is one.
    pub fn set(&mut self, name: &str, hash: &PasswordHash) -> Result<(), NameFault> {
        check_name(name)?;
        let line = Line {
            text: Zeroizing::new(format!("{name}:{}", hash.text())),
            name: Some(name.to_owned()),
        };
        match self.place(name) {
            Some(place) => self.lines[place] = line,
            None => self.lines.push(line),
        }
        Ok(())
    }

    /// Removes a user. True if there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let place = self.place(name);
        if let Some(place) = place {
            self.lines.remove(place);
        }
        place.is_some()
    }

    /// Hashes all plain passwords in the entries.
    pub fn hash_plain<E>(&mut self, mut hash: impl FnMut(&str) -> Result<PasswordHash, E>) -> Result<(), E> {
        for line in &mut self.lines {
            if let Some((name, password)) = entry(&line.text)
                && PasswordHash::parse(password) == Err(HashFault::Unknown)
            {
                line.text = Zeroizing::new(format!("{name}:{}", hash(password)?.text()));
            }
        }
        Ok(())
    }

    /// The text of the file. It must only be written to the file.
    pub fn text(&self) -> Zeroizing<String> {
        // Allocated once, since a growing buffer would leave copies behind.
        let length = self.lines.iter().map(|line| line.text.len() + 1).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        for line in &self.lines {
            text.push_str(&line.text);
            text.push('\n');
        }
        text
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.lines
            .iter()
            .position(|line| line.name.as_deref() == Some(name))
    }
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PasswordFile")
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: ", self.line)?;
        match self.kind {
            FileFaultKind::Text(fault) => fault.fmt(formatter),
            FileFaultKind::Name(fault) => fault.fmt(formatter),
            FileFaultKind::Hash(fault) => fault.fmt(formatter),
            FileFaultKind::NoEntry => formatter.write_str(
                "it has no ':', so it is not an entry: delete it, begin it with '#', or write it with \
                 `ringcast passwd`",
            ),
            FileFaultKind::Twice { first } => {
                write!(
                    formatter,
                    "the user already has an entry in line {first}: delete one of them"
                )
            }
        }
    }
}

impl std::error::Error for FileFault {}

/// Name and hash, if the line has both.
fn entry(line: &str) -> Option<(&str, &str)> {
    if line.starts_with('#') {
        return None;
    }
    let (name, rest) = line.split_once(':')?;
    let hash = rest.split(':').next().unwrap_or_default();
    Some((name.trim(), hash.trim()))
}

/// True if a line without an entry is a comment, possibly indented, or blank.
fn is_comment_or_blank(line: &str) -> bool {
    let text = line.trim_start();
    text.is_empty() || text.starts_with('#')
}
