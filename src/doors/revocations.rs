//! Where revocations outlive the process: a file of JSON lines, each added at its end, all written anew when one is
//! taken back or has ended.
//!
//! ```text
//! {"claim":"sub","value":"ann","at":1795359453,"until":1797951453}
//! ```
//!
//! A line that was cut off by a crash is the last one and has no line break: it was never confirmed, and counts for
//! nothing. Any other that cannot be read stops the start, since somebody would come in again.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::auth::{Revocation, Revocations, Revoked};
use crate::config::text_file;

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct RevocationsFile(PathBuf);

/// Why revocations cannot be read.
#[derive(Debug)]
pub enum RevocationsError {
    /// The file cannot be read.
    Unreadable {
        /// Its name.
        file: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// A line is no revocation.
    Line {
        /// The file's name.
        file: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        cause: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    claim: String,
    #[serde(borrow)]
    value: &'a RawValue,
    at: u64,
    until: u64,
}

impl RevocationsFile {
    pub(crate) fn new(file: &Path) -> RevocationsFile {
        RevocationsFile(file.to_owned())
    }

    /// All that is in it; nothing if it is not there.
    pub(super) fn read(&self) -> Result<Revocations, RevocationsError> {
        let mut revocations = Revocations::default();
        let text = match text_file::read(&self.0, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(revocations),
            Err(error) => {
                return Err(RevocationsError::Unreadable {
                    file: self.0.clone(),
                    cause: error.to_string(),
                });
            }
        };
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let Some(line) = line.strip_suffix('\n') else {
                break;
            };
            revocation(line)
                .and_then(|revocation| revocations.insert(&revocation).map_err(|error| error.to_string()))
                .map_err(|cause| RevocationsError::Line {
                    file: self.0.clone(),
                    line: index + 1,
                    cause,
                })?;
        }
        Ok(revocations)
    }

    /// Adds one, so that it is on the disk when this returns.
    pub(crate) fn append(&self, revocation: &Revocation) -> io::Result<()> {
        let mut file = private(OpenOptions::new().append(true).create(true)).open(&self.0)?;
        let mut line = String::new();
        write_line(revocation, &mut line);
        let before = file.metadata()?.len();
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a line would be the beginning of the next. If that fails as well, the next start says so.
            let _ = file.set_len(before);
        }
        written
    }

    /// Replaces all by these: by another file that takes the place of this one, so that a crash leaves one of the two.
    pub(crate) fn replace(&self, revocations: &Revocations) -> io::Result<()> {
        let mut name = self.0.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(&new)?;
        let mut out = BufWriter::new(file);
        let mut line = String::new();
        for revocation in revocations.iter() {
            line.clear();
            write_line(&revocation, &mut line);
            out.write_all(line.as_bytes())?;
        }
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&new, &self.0)?;
        let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

/// Largest file: a million revocations have a fifth of this.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Names of users are nobody else's business.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

fn write_line(revocation: &Revocation, out: &mut String) {
    let what = revocation.what();
    out.push_str("{\"claim\":");
    out.push_str(&serde_json::Value::from(what.claim()).to_string());
    out.push_str(",\"value\":");
    out.push_str(what.value_json());
    out.push_str(&format!(
        ",\"at\":{},\"until\":{}}}\n",
        revocation.at(),
        revocation.until()
    ));
}

fn revocation(line: &str) -> Result<Revocation, String> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let name = serde_json::Value::from(line.claim);
    let what = Revoked::parse(&format!("{{{name}:{}}}", line.value)).map_err(|error| error.to_string())?;
    Ok(Revocation::new(what, line.at, line.until))
}

impl fmt::Display for RevocationsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RevocationsError::Unreadable { file, cause } => {
                write!(formatter, "{}: cannot be read: {cause}", file.display())
            }
            RevocationsError::Line { file, line, cause } => write!(
                formatter,
                "{}: line {line} is no revocation ({cause}): mend it, or remove it if those tokens may come in again",
                file.display()
            ),
        }
    }
}

impl std::error::Error for RevocationsError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation_of(json: &str) -> Revocation {
        Revocation::new(Revoked::parse(json).unwrap(), 5, 10)
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("ringcast-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn file(&self) -> RevocationsFile {
            RevocationsFile::new(&self.0.join("revoked"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // What stays behind harms nothing.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_added_is_read_again_and_nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("added");
        let file = folder.file();
        assert!(file.read().unwrap().is_empty());
        let all = [
            r#"{"sub":"ann"}"#,
            r#"{"jti":"a\"\n\u0000\ud83d\ude00\\"}"#,
            r#"{"a\"b":17}"#,
        ]
        .map(revocation_of);
        for revocation in &all {
            file.append(revocation).unwrap();
        }
        for _ in 0..2 {
            let read = file.read().unwrap();
            assert_eq!(read.len(), 3);
            assert!(all.iter().all(|one| read.iter().any(|other| other == *one)));
            file.replace(&read).unwrap();
            assert_eq!(fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_line_cut_off_counts_for_nothing_and_a_broken_one_stops_the_start() {
        let folder = Folder::new("broken");
        let file = folder.file();
        file.append(&revocation_of(r#"{"sub":"ann"}"#)).unwrap();
        let whole = fs::read_to_string(&file.0).unwrap();
        fs::write(&file.0, format!("{whole}{}", whole.trim_end())).unwrap();
        assert_eq!(file.read().unwrap().len(), 1);
        for line in [
            "",
            "{}",
            r#"{"claim":"sub","value":[],"at":1,"until":2}"#,
            "\u{1}",
        ] {
            fs::write(&file.0, format!("{whole}{line}\n")).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains("line 2 is no revocation"), "{error}");
        }
    }
}
