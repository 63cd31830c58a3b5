//! The file of revocations (`revocations_file`): JSON lines that outlive the process. A new revocation is
//! appended; the whole file is written anew when a revocation is withdrawn or has expired.
//!
//! ```text
//! {"claim":"sub","value":"ann","at":1795359453,"until":1797951453}
//! ```
//!
//! A complete line counts with or without a line break at its end, and blank lines are ignored. A line that
//! cannot be read stops the start, since ignoring it would accept a revoked token. The one exception is a
//! last line without a line break that does not begin with complete JSON: a crash cut it off before the
//! revocation was confirmed. It is ignored with a warning in the log, and when the file is written anew the
//! line is kept in `FILE.unreadable`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::auth::{Revocation, Revocations, Revoked};
use crate::replace::{self, ReplaceWarning, ReplacedFile};
use crate::text::{self, TextFaultKind};

/// The path of the file.
#[derive(Clone, Debug)]
pub(crate) struct RevocationsFile(PathBuf);

/// Remarks about a file that has been written anew.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    /// The file that keeps the unreadable lines, and their numbers, counted from 1.
    set_aside: Option<(PathBuf, Vec<usize>)>,
    remark: Option<ReplaceWarning>,
}

/// Why the revocations cannot be read.
#[derive(Debug)]
pub enum RevocationsError {
    /// The file cannot be read.
    Unreadable {
        /// The file's name.
        file: PathBuf,
        /// The system's error.
        cause: String,
    },
    /// A line is not a revocation.
    Line {
        /// The file's name.
        file: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The fault.
        cause: String,
    },
}

/// A property of the file that is legal but probably not intended.
#[derive(Debug)]
pub(super) enum RevocationsWarning {
    /// Other users may write the file, and so make the server accept revoked tokens, or read the names in it.
    OpenToOthers(PathBuf),
    /// Its last line was cut off.
    CutOff {
        file: PathBuf,
        line: usize,
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

    /// The revocations in the file and warnings about it. A missing file has no revocations.
    pub(super) fn read(&self) -> Result<(Revocations, Vec<RevocationsWarning>), RevocationsError> {
        let (mut revocations, mut warnings) = (Revocations::default(), Vec::new());
        let (text, mode) = match replace::read(&self.0, BYTES_MAX) {
            Ok(read) => read,
            // A link without a target means more likely a disk that is not mounted than a file that has not
            // been created yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.0.is_symlink() => {
                return Ok((revocations, warnings));
            }
            Err(error) => {
                return Err(RevocationsError::Unreadable {
                    file: self.0.clone(),
                    cause: error.to_string(),
                });
            }
        };
        if let Err(fault) = text::decode(&text)
            && fault.kind == TextFaultKind::Utf16
        {
            return Err(RevocationsError::Unreadable {
                file: self.0.clone(),
                cause: fault.to_string(),
            });
        }
        if mode & OTHERS != 0 {
            warnings.push(RevocationsWarning::OpenToOthers(self.0.clone()));
        }
        for (line, bytes, is_last) in lines(&text) {
            let added = revocation(bytes)
                .and_then(|revocation| revocations.insert(&revocation).map_err(|error| error.to_string()));
            let file = self.0.clone();
            match added {
                Ok(()) => {}
                Err(cause) if is_last && !begins_with_whole_json(bytes) => {
                    warnings.push(RevocationsWarning::CutOff { file, line, cause })
                }
                Err(cause) => return Err(RevocationsError::Line { file, line, cause }),
            }
        }
        Ok((revocations, warnings))
    }

    /// Appends a revocation. It is on the disk when this returns.
    pub(crate) fn append(&self, revocation: &Revocation) -> io::Result<()> {
        let mut line = String::new();
        write_line(revocation, &mut line);
        let file = self.0.canonicalize().or_else(|error| match error.kind() {
            // `append` follows no link, not even one without a target.
            io::ErrorKind::NotFound => Ok(self.0.clone()),
            _ => Err(error),
        })?;
        replace::append(&file, line.as_bytes())
    }

    /// Replaces the contents by these revocations. Unreadable lines are moved to another file.
    pub(crate) fn replace(&self, revocations: &Revocations) -> io::Result<Rewritten> {
        let target = ReplacedFile::open_or_create(&self.0, BYTES_MAX)?;
        let (numbers, unreadable): (Vec<usize>, Vec<&[u8]>) = lines(target.text())
            .filter(|(_, bytes, _)| revocation(bytes).is_err())
            .map(|(line, bytes, _)| (line, bytes))
            .unzip();
        let mut rewritten = Rewritten::default();
        if !unreadable.is_empty() {
            let kept_in = path_of_unreadable(target.path());
            replace::append(&kept_in, &unreadable.join(&b'\n')).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!(
                        "line {} cannot be read, and {} cannot be written to keep it: {error}",
                        numbers[0],
                        kept_in.display()
                    ),
                )
            })?;
            rewritten.set_aside = Some((kept_in, numbers));
        }
        let mut text = String::new();
        for revocation in revocations.iter() {
            write_line(&revocation, &mut text);
            text.push('\n');
        }
        rewritten.remark = target.replace(text.as_bytes())?;
        Ok(rewritten)
    }
}

impl Rewritten {
    /// All remarks, as one line each.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = String> {
        let set_aside = self.set_aside.as_ref().map(|(file, lines)| {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            format!(
                "line {} could not be read and is kept in {}: revoke its token again",
                lines.join(", "),
                file.display()
            )
        });
        set_aside
            .into_iter()
            .chain(self.remark.map(|remark| remark.to_string()))
    }
}

/// The lines that are not blank: each with its number, counted from 1, and whether it is the last line and
/// has no line break. A byte order mark is skipped.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8], bool)> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    text.split_inclusive(|&byte| byte == b'\n')
        .enumerate()
        .map(|(index, line)| match line.strip_suffix(b"\n") {
            Some(line) => (index + 1, line, false),
            None => (index + 1, line, true),
        })
        .filter(|(_, line, _)| !line.trim_ascii().is_empty())
}

/// The file beside this one that keeps its unreadable lines.
fn path_of_unreadable(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".unreadable");
    name.into()
}

fn write_line(revocation: &Revocation, out: &mut String) {
    let what = revocation.revoked();
    out.push_str("{\"claim\":");
    out.push_str(&serde_json::Value::from(what.claim()).to_string());
    out.push_str(",\"value\":");
    out.push_str(what.value_json());
    out.push_str(&format!(
        ",\"at\":{},\"until\":{}}}",
        revocation.at(),
        revocation.until()
    ));
}

/// True if the line begins with complete JSON and so was not cut off: for example two revocations without a
/// line break between them, or one with a typing error.
fn begins_with_whole_json(line: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(line).into_iter::<&RawValue>();
    matches!(values.next(), Some(Ok(_)))
}

fn revocation(line: &[u8]) -> Result<Revocation, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
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
                "{}: line {line} is not a revocation ({cause}): correct it, or remove it to accept these \
                 tokens again",
                file.display()
            ),
        }
    }
}

impl fmt::Display for RevocationsWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RevocationsWarning::OpenToOthers(file) => write!(
                formatter,
                "revocations_file: {0} can be read or written by others than its owner, who could make the server \
                 accept revoked tokens: chmod 600 {0}",
                file.display()
            ),
            RevocationsWarning::CutOff { file, line, cause } => write!(
                formatter,
                "revocations_file: {}: line {line}, the last one, was cut off ({cause}) and is ignored: repeat the \
                 revocation that it was for; the next start moves the line to {}",
                file.display(),
                path_of_unreadable(file).display()
            ),
        }
    }
}

impl std::error::Error for RevocationsError {}

/// Mode bits that let others than the owner write, or all others read.
const OTHERS: u32 = 0o027;
/// Largest file: a million revocations of the longest values.
const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn revocation_of(json: &str) -> Revocation {
        Revocation::new(Revoked::parse(json).unwrap(), 5, 10)
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder =
                std::env::temp_dir().join(format!("ringcast-revocations-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn file(&self) -> RevocationsFile {
            RevocationsFile::new(&self.0.join("revoked"))
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap();
            names
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // A folder that is left behind does no harm.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn appended_revocations_are_read_again_and_only_the_owner_may_read_the_file() {
        let folder = Folder::new("added");
        let file = folder.file();
        assert!(file.read().unwrap().0.is_empty());
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
            let (read, _) = file.read().unwrap();
            assert_eq!(read.len(), 3);
            assert!(all.iter().all(|one| read.iter().any(|other| other == *one)));
            file.replace(&read).unwrap();
            assert_eq!(fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_complete_last_line_counts_without_a_line_break_and_blank_lines_are_ignored() {
        let folder = Folder::new("whole");
        let file = folder.file();
        let line = |name: &str| format!("{{\"claim\":\"sub\",\"value\":\"{name}\",\"at\":5,\"until\":10}}");
        for (text, count) in [
            (line("ann"), 1),
            (line("ann") + "\n" + &line("bob"), 2),
            ("\u{feff}".to_owned() + &line("ann"), 1),
            (line("ann") + "\r\n\r\n \t\n" + &line("bob") + "\r", 2),
            ("\n".to_owned(), 0),
            (String::new(), 0),
        ] {
            fs::write(&file.0, &text).unwrap();
            fs::set_permissions(&file.0, fs::Permissions::from_mode(0o600)).unwrap();
            let (read, warnings) = file.read().unwrap();
            assert_eq!((read.len(), warnings.len()), (count, 0), "{text:?}");
            // An appended revocation does not become part of the line before it.
            file.append(&revocation_of(r#"{"sub":"cleo"}"#)).unwrap();
            assert_eq!(file.read().unwrap().0.len(), count + 1, "{text:?}");
            assert_eq!(file.replace(&read).unwrap().remarks().count(), 0);
            assert_eq!(file.read().unwrap().0.len(), count, "{text:?}");
        }
        assert_eq!(folder.names(), ["revoked"]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_ignored_with_a_warning_and_kept() {
        let folder = Folder::new("cut-off");
        let file = folder.file();
        let whole = "{\"claim\":\"sub\",\"value\":\"\u{e9}\",\"at\":5,\"until\":10}";
        // Cut at every position, also inside a character, or filled with zeros by a crash of the system.
        let cuts = (1..whole.len()).map(|end| whole.as_bytes()[..end].to_vec());
        let mut kept = Vec::new();
        for torn in cuts.chain([vec![0; 40], b"garbage".to_vec()]) {
            fs::write(&file.0, [whole.as_bytes(), b"\n", &torn].concat()).unwrap();
            fs::set_permissions(&file.0, fs::Permissions::from_mode(0o600)).unwrap();
            let (read, warnings) = file.read().unwrap();
            assert_eq!(read.len(), 1, "{torn:?}");
            let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            assert!(
                texts.len() == 1 && texts[0].contains("line 2, the last one, was cut off"),
                "{texts:?}"
            );
            let remarks: Vec<String> = file.replace(&read).unwrap().remarks().collect();
            assert!(
                remarks.len() == 1 && remarks[0].contains("line 2 could not be read and is kept in"),
                "{remarks:?}"
            );
            kept.extend([&torn[..], b"\n"].concat());
            assert_eq!(fs::read(path_of_unreadable(&file.0)).unwrap(), kept);
            assert_eq!(file.read().unwrap().1.len(), 0);
        }
    }

    #[test]
    fn an_unreadable_line_stops_the_start_and_the_error_names_it() {
        let folder = Folder::new("broken");
        let file = folder.file();
        file.append(&revocation_of(r#"{"sub":"ann"}"#)).unwrap();
        let whole = fs::read(&file.0).unwrap();
        for line in [
            &b"{}"[..],
            b"{\"claim\":\"sub\",\"value\":[],\"at\":1,\"until\":2}",
            b"\0",
            b"\xff",
        ] {
            fs::write(&file.0, [&whole, line, b"\n"].concat()).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains("line 2 is not a revocation"), "{error}");
            // If such a line is added while the server runs, rewriting the file keeps it.
            file.replace(&Revocations::default()).unwrap();
            let kept = fs::read(path_of_unreadable(&file.0)).unwrap();
            assert!(kept.ends_with(&[line, b"\n"].concat()), "{kept:?}");
        }
    }

    #[test]
    fn a_line_that_begins_with_complete_json_does_not_count_as_cut_off() {
        let folder = Folder::new("whole-but-wrong");
        let file = folder.file();
        let line = |name: &str| format!("{{\"claim\":\"sub\",\"value\":\"{name}\",\"at\":5,\"until\":10}}");
        let (ann, bob) = (line("ann"), line("bob"));
        for text in [
            // `printf` twice, an editor of another system, an upload in the wrong mode.
            format!("{ann}{bob}"),
            format!("{ann}\r{bob}\r"),
            format!("{ann}, {bob}"),
            format!("[{ann}]"),
            format!("{ann}\u{a0}"),
            // Cut off after a complete revocation: that one was confirmed.
            format!("{ann}{{\"claim\":"),
            format!("{ann}\n{}", bob.replace("10}", "10,\"why\":\"left\"}")),
            format!("{ann}\n{}", bob.replace("\"bob\"", "[\"bob\"]")),
        ] {
            fs::write(&file.0, &text).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains("is not a revocation"), "{text:?}: {error}");
            assert_eq!(fs::read_to_string(&file.0).unwrap(), text);
        }
    }

    #[test]
    fn a_utf_16_file_does_not_count_as_a_line_that_was_cut_off() {
        let folder = Folder::new("utf-16");
        let text: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(&folder.file().0, text).unwrap();
        let error = folder.file().read().unwrap_err().to_string();
        assert!(error.contains("UTF-16"), "{error}");
    }

    #[test]
    fn nothing_is_written_through_a_link_that_others_could_have_made() {
        let folder = Folder::new("links");
        let (file, victim) = (folder.file(), folder.0.join("victim"));
        fs::write(&victim, "precious").unwrap();
        let cut_off = || fs::write(&file.0, "garbage").unwrap();
        for suffix in ["new", "tmp", "bak", "unreadable"] {
            symlink(&victim, format!("{}.{suffix}", file.0.display())).unwrap();
        }
        cut_off();
        // An unreadable line that cannot be kept elsewhere is not overwritten.
        let error = file.replace(&Revocations::default()).unwrap_err().to_string();
        assert!(
            error.contains("line 1 cannot be read") && error.contains(".unreadable"),
            "{error}"
        );
        assert_eq!(fs::read(&file.0).unwrap(), b"garbage");
        fs::remove_file(path_of_unreadable(&file.0)).unwrap();
        cut_off();
        file.replace(&Revocations::default()).unwrap();
        file.append(&revocation_of(r#"{"sub":"ann"}"#)).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(file.read().unwrap().0.len(), 1);
    }

    #[test]
    fn a_symbolic_link_at_the_files_path_is_followed_and_one_without_target_is_refused() {
        let folder = Folder::new("own-link");
        let link = RevocationsFile::new(&folder.0.join("link"));
        symlink(&folder.file().0, &link.0).unwrap();
        let error = link.read().unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
        assert!(link.append(&revocation_of(r#"{"sub":"ann"}"#)).is_err());
        assert!(link.replace(&Revocations::default()).is_err());
        assert_eq!(folder.names(), ["link"]);
        fs::write(&folder.file().0, "").unwrap();
        link.append(&revocation_of(r#"{"sub":"ann"}"#)).unwrap();
        let (read, _) = link.read().unwrap();
        link.replace(&read).unwrap();
        assert!(link.0.is_symlink());
        assert_eq!(folder.file().read().unwrap().0.len(), 1);
    }

    #[test]
    fn a_file_open_to_others_than_its_owner_gives_a_warning() {
        let folder = Folder::new("mode");
        let file = folder.file();
        fs::write(&file.0, "").unwrap();
        for (mode, warned) in [
            (0o600, false),
            (0o640, false),
            (0o644, true),
            (0o602, true),
            (0o620, true),
        ] {
            fs::set_permissions(&file.0, fs::Permissions::from_mode(mode)).unwrap();
            let (_, warnings) = file.read().unwrap();
            assert_eq!(warnings.len(), usize::from(warned), "{mode:o}");
            if let [warning] = &warnings[..] {
                assert!(warning.to_string().contains("chmod 600"), "{warning}");
            }
        }
        // The next start corrects the mode, and says so.
        let remarks: Vec<String> = file.replace(&Revocations::default()).unwrap().remarks().collect();
        assert!(
            remarks.len() == 1 && remarks[0].contains("its mode was 620 and is 600 now"),
            "{remarks:?}"
        );
    }
}
