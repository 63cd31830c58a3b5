//! Flags, then `RINGCAST_*` variables, then credentials of the service manager, then the TOML file, then defaults.
//!
//! [`Sources`] holds what the process was started with; [`Sources::load`] makes a [`Config`] of it, at the start and
//! again on a reload, when only the file can have changed.
//!
//! Invariants
//! 1. A name that is not known is an error, in each of the sources, and names the nearest known one. Variables that others
//!    set are told apart by their shape (`environment`).
//! 2. An error never shows the value of a secret, nor a line of the file.
//! 3. All errors are found, not only the first; those that would follow from another are left out.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::credentials::{self, Credentials};
use super::environment;
use super::options::{Kind, PREFIX, SETTINGS, Setting};
use super::rules::{self, RuleFault};
use super::text_file::{self, CONFIG_BYTES_MAX};
use super::{Config, Conflict};

/// What the process was started with.
#[derive(Clone, Default)]
pub struct Sources {
    flags: Vec<(String, String)>,
    variables: Vec<(String, OsString)>,
    /// Names of variables that others set.
    ignored: Vec<String>,
    credentials: Credentials,
}

/// A configuration, and where each of its values is from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Variables that begin as ours do and were set by others, such as Kubernetes.
    pub ignored: Vec<String>,
    /// By the order of [`SETTINGS`].
    sources: Vec<Source>,
}

/// What was read, and all that is wrong with it.
#[derive(Debug)]
struct Reading {
    loaded: Loaded,
    errors: Vec<ConfigError>,
    /// Settings whose values were not taken, by the order of [`SETTINGS`].
    failed: Vec<usize>,
    /// Whether all that is in the file is known.
    file_is_read: bool,
}

/// Where a value is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The file.
    File,
    /// The service manager.
    Credential,
    /// The environment.
    Variable,
    /// The command line.
    Flag,
}

impl Sources {
    /// Takes over flags, without their hyphens, and those variables of the environment that concern us.
    pub fn new(
        flags: Vec<(String, String)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Sources {
        let mut sources = Sources {
            flags,
            ..Sources::default()
        };
        for (name, value) in environment {
            if credentials::is_announced_by(&name) {
                sources.credentials = Credentials::new(value);
            } else if let Ok(name) = name.into_string()
                && name.starts_with(PREFIX)
            {
                let is_setting = name == CONFIG_VARIABLE || setting_of_variable(&name).is_some();
                match environment::is_of_others(&name, &value, is_setting) {
                    true => sources.ignored.push(name),
                    false => sources.variables.push((name, value)),
                }
            }
        }
        sources
    }

    /// Reads everything, and checks each value and all together.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let (loaded, errors) = self.read();
        match errors.is_empty() {
            true => Ok(loaded),
            false => Err(ConfigErrors(errors)),
        }
    }

    /// What can be read, and all that is wrong: settings with an error have the value of the next source, or their default.
    pub(crate) fn read(&self) -> (Loaded, Vec<ConfigError>) {
        let mut reading = Reading {
            loaded: Loaded {
                config: Config::default(),
                file: None,
                ignored: self.ignored.clone(),
                sources: vec![Source::Default; SETTINGS.len()],
            },
            errors: self.unknown_names(),
            failed: Vec::new(),
            file_is_read: true,
        };
        match self.file() {
            Ok(Some(file)) => reading.open_file(&file),
            Ok(None) => {}
            Err(error) => {
                reading.file_is_read = false;
                reading.errors.push(error);
            }
        }
        for (index, setting) in SETTINGS.iter().enumerate() {
            match self.credentials.find(setting) {
                Ok(Some((file, text))) => {
                    reading.store(index, &text, Source::Credential, || file.display().to_string());
                }
                Ok(None) => {}
                Err(error) => {
                    reading.failed.push(index);
                    reading.errors.push(error);
                }
            }
            for (name, value) in &self.variables {
                if *name == setting.variable() {
                    match text_of_variable(name, value) {
                        Ok(text) => reading.store(index, text, Source::Variable, || name.clone()),
                        Err(error) => reading.errors.push(error),
                    }
                }
            }
            for (flag, text) in &self.flags {
                if is_flag_of(flag, setting) {
                    reading.store(index, text, Source::Flag, || setting.flag());
                }
            }
        }
        reading.conflicts();
        (reading.loaded, reading.errors)
    }

    fn unknown_names(&self) -> Vec<ConfigError> {
        let flags = self.flags.iter().map(|(flag, _)| flag);
        let flags = flags
            .filter(|flag| *flag != CONFIG_FLAG && !SETTINGS.iter().any(|setting| is_flag_of(flag, setting)))
            .map(|flag| unknown_flag(flag));
        let variables = self.variables.iter().map(|(variable, _)| variable);
        let variables = variables
            .filter(|variable| *variable != CONFIG_VARIABLE && setting_of_variable(variable).is_none())
            .map(|variable| unknown_variable(variable));
        flags.chain(variables).collect()
    }

    fn file(&self) -> Result<Option<PathBuf>, ConfigError> {
        let flag = self.flags.iter().rev().find(|(flag, _)| flag == CONFIG_FLAG);
        let (place, text) = if let Some((_, text)) = flag {
            ("--config", text.as_str())
        } else if let Some((name, value)) = self.variables.iter().find(|(name, _)| name == CONFIG_VARIABLE) {
            (CONFIG_VARIABLE, text_of_variable(name, value)?)
        } else {
            return Ok(None);
        };
        if text.is_empty() {
            return Err(ConfigError::Value {
                place: place.to_owned(),
                value: Some(String::new()),
                expects: "the name of a TOML file",
            });
        }
        Ok(Some(PathBuf::from(text)))
    }
}

impl fmt::Debug for Sources {
    /// Flags and variables may hold secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Loaded {
    /// Each setting with its value, hidden if secret, and where it is from.
    pub fn settings(&self) -> impl Iterator<Item = (&'static Setting, Option<String>, Source)> + '_ {
        let sources = self.sources.iter().copied();
        SETTINGS
            .iter()
            .zip(sources)
            .map(|(setting, source)| (setting, setting.show(&self.config), source))
    }
}

impl Reading {
    fn open_file(&mut self, file: &Path) {
        self.loaded.file = Some(file.to_owned());
        match text_file::read(file, CONFIG_BYTES_MAX) {
            Ok(text) => self.read_file(file, &text),
            Err(error) => {
                self.file_is_read = false;
                self.errors.push(ConfigError::Unreadable {
                    file: file.to_owned(),
                    cause: error.to_string(),
                });
            }
        }
    }

    fn read_file(&mut self, file: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        // What stands around an error may have been taken for something else: nothing of the file is used. The error's own
        // text would quote the line, which may be a secret.
        let mut lines_told = Vec::new();
        for error in errors {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            self.file_is_read = false;
            // What follows in the same line follows from it.
            if !lines_told.contains(&line) {
                lines_told.push(line);
                self.errors.push(ConfigError::Syntax {
                    file: file.to_owned(),
                    line,
                    cause: error.message().replace('\n', ", "),
                });
            }
        }
        if !self.file_is_read {
            return;
        }
        self.read_table(file, text, None, table.get_ref());
        for list in rules::LISTS {
            if let Some(value) = table.get_ref().get(list) {
                match rules::read(file, text, list, value) {
                    Ok(read) if list == rules::LISTS[0] => self.loaded.config.permissions.rules = read,
                    Ok(read) => self.loaded.config.permissions.shadow_rules = read,
                    Err(faults) => self.errors.extend(faults.into_iter().map(ConfigError::Rule)),
                }
            }
        }
    }

    fn read_table(&mut self, file: &Path, text: &str, table_name: Option<&str>, table: &DeTable<'_>) {
        let mut members: Vec<_> = table.iter().collect();
        members.sort_by_key(|(name, _)| name.span().start);
        for (spanned, value) in members {
            let name: &str = spanned.get_ref();
            if table_name.is_none() && rules::LISTS.contains(&name) {
                continue;
            }
            if let (None, DeValue::Table(inner)) = (table_name, value.get_ref())
                && SETTINGS.iter().any(|setting| setting.table == Some(name))
            {
                self.read_table(file, text, Some(name), inner);
                continue;
            }
            let key = table_name.map_or_else(|| name.to_owned(), |table| format!("{table}.{name}"));
            let place = format!("{}: line {}", file.display(), line_of(text, spanned.span().start));
            let Some(index) = SETTINGS.iter().position(|setting| setting.key() == key) else {
                self.errors.push(ConfigError::Unknown {
                    place,
                    nearest: nearest_key(name, &key),
                    name: key,
                });
                continue;
            };
            let place = || format!("{place}: {key}");
            match text_of_value(&SETTINGS[index], value) {
                Some(text) => self.store(index, &text, Source::File, place),
                None => {
                    self.failed.push(index);
                    let found = text.get(value.span()).unwrap_or_default();
                    self.errors.push(unexpected(&SETTINGS[index], place(), found));
                }
            }
        }
    }

    fn store(&mut self, index: usize, text: &str, source: Source, place: impl Fn() -> String) {
        let setting = &SETTINGS[index];
        match setting.store(&mut self.loaded.config, text) {
            Ok(()) => self.loaded.sources[index] = source,
            Err(_) => {
                self.failed.push(index);
                self.errors.push(unexpected(setting, place(), text));
            }
        }
    }

    /// Finds what does not go together, but not with a value that was not taken.
    fn conflicts(&mut self) {
        if !self.file_is_read {
            return;
        }
        let failed: Vec<&str> = self.failed.iter().map(|index| SETTINGS[*index].name).collect();
        let conflicts = self.loaded.config.conflicts();
        let conflicts = conflicts
            .into_iter()
            .filter(|conflict| !conflict.settings().iter().any(|name| failed.contains(name)));
        self.errors.extend(conflicts.map(ConfigError::Conflict));
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Source::Default => "default",
            Source::File => "file",
            Source::Credential => "credential",
            Source::Variable => "variable",
            Source::Flag => "flag",
        })
    }
}

/// All that is wrong with the settings: at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    /// Each in a line of its own.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(formatter, "{}{error}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> ConfigErrors {
        ConfigErrors(vec![error])
    }
}

/// Why there is no configuration. Each is one line that says where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// No setting has this name.
    Unknown {
        /// The source.
        place: String,
        /// The name found there.
        name: String,
        /// The known name most like it, if one is.
        nearest: Option<String>,
    },
    /// A flag without its value.
    NoValue {
        /// The flag.
        flag: String,
        /// What could follow it.
        expects: &'static str,
    },
    /// A value that its setting does not take.
    Value {
        /// The source and the setting's name there.
        place: String,
        /// The value, unless secret.
        value: Option<String>,
        /// What would be taken.
        expects: &'static str,
    },
    /// A file that cannot be read.
    Unreadable {
        /// Its name.
        file: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// A file that is not TOML.
    Syntax {
        /// Its name.
        file: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What the parser says.
        cause: String,
    },
    /// A rule of the wrong shape.
    Rule(RuleFault),
    /// Values that cannot go together.
    Conflict(Conflict),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unknown {
                place,
                name,
                nearest: Some(nearest),
            } => write!(formatter, "{place}: {name} is not known; did you mean {nearest}?"),
            ConfigError::Unknown {
                place,
                name,
                nearest: None,
            } => write!(
                formatter,
                "{place}: {name} is not known; `ringcast --help` lists what is"
            ),
            ConfigError::NoValue { flag, expects } => {
                write!(formatter, "{flag} has no value: expected {expects}")
            }
            ConfigError::Value {
                place,
                value: Some(value),
                expects,
            } => {
                write!(formatter, "{place}: found {value:?}, expected {expects}")
            }
            ConfigError::Value {
                place,
                value: None,
                expects,
            } => {
                write!(
                    formatter,
                    "{place}: expected {expects} (the value found is not shown)"
                )
            }
            ConfigError::Unreadable { file, cause } => {
                write!(formatter, "{}: cannot be read: {cause}", file.display())
            }
            ConfigError::Syntax { file, line, cause } => {
                write!(formatter, "{}: line {line} is not TOML: {cause}", file.display())
            }
            ConfigError::Rule(fault) => fault.fmt(formatter),
            ConfigError::Conflict(conflict) => conflict.fmt(formatter),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The flag, without its hyphens, that names the file.
pub const CONFIG_FLAG: &str = "config";

/// The variable that names the file.
pub const CONFIG_VARIABLE: &str = "RINGCAST_CONFIG";

/// What a flag takes; `None` if it is not known.
pub fn flag_expects(flag: &str) -> Option<&'static str> {
    if flag == CONFIG_FLAG {
        return Some("the name of a TOML file");
    }
    SETTINGS
        .iter()
        .find(|setting| is_flag_of(flag, setting))
        .map(|setting| setting.expects)
}

/// The error for a flag that is not known.
pub fn unknown_flag(flag: &str) -> ConfigError {
    let known = SETTINGS.iter().map(|setting| setting.name.replace('_', "-"));
    let known = known.chain([CONFIG_FLAG, "help", "version"].map(str::to_owned));
    ConfigError::Unknown {
        place: "command line".to_owned(),
        nearest: alike(flag, nearest(flag, known)).map(|flag| format!("--{flag}")),
        name: format!("--{flag}"),
    }
}

fn unknown_variable(variable: &str) -> ConfigError {
    // What all have in common makes none more alike.
    let word = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let known = SETTINGS.iter().map(|setting| setting.name.to_ascii_uppercase());
    let known = known.chain([CONFIG_FLAG.to_ascii_uppercase()]);
    let named_elsewhere = NAMES_ELSEWHERE.iter().find(|(other, _)| *other == word);
    let nearest = match named_elsewhere {
        Some((_, ours)) => Some((*ours).to_owned()),
        None => alike(word, nearest(word, known)),
    };
    ConfigError::Unknown {
        place: "environment".to_owned(),
        nearest: nearest.map(|word| format!("{PREFIX}{word}")),
        name: variable.to_owned(),
    }
}

/// What other servers call a setting whose name here is not like it.
const NAMES_ELSEWHERE: [(&str, &str); 8] = [
    ("PORT", "LISTEN"),
    ("HOST", "LISTEN"),
    ("ADDRESS", "LISTEN"),
    ("BIND", "LISTEN"),
    ("ADMIN_PORT", "ADMIN"),
    ("WORKERS", "CORES"),
    ("THREADS", "CORES"),
    ("LOG_LEVEL", "LOG"),
];

fn setting_of_variable(variable: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.variable() == variable)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

fn is_flag_of(flag: &str, setting: &Setting) -> bool {
    setting.flag().strip_prefix("--") == Some(flag)
}

pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known
        .max_by(|one, other| strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other)))
        .unwrap_or_default()
}

/// The nearest name, unless it is so far from what was written that it would only lead astray.
fn alike(written: &str, nearest: String) -> Option<String> {
    Some(nearest).filter(|nearest| strsim::jaro_winkler(written, nearest) >= ALIKE_MIN)
}

/// `port` and `path` are less alike, `listn` and `listen` more.
const ALIKE_MIN: f64 = 0.75;

/// The known key nearest to `key`, found by its last part, so that one in the wrong table leads to the right one.
fn nearest_key(name: &str, key: &str) -> Option<String> {
    let nearness = |setting: &Setting| {
        strsim::jaro_winkler(name, setting.name).max(strsim::jaro_winkler(key, &setting.key()))
    };
    let setting = SETTINGS
        .iter()
        .max_by(|one, other| nearness(one).total_cmp(&nearness(other)));
    let tables = SETTINGS.iter().filter_map(|setting| setting.table);
    let list = nearest(key, rules::LISTS.into_iter().chain(tables).map(str::to_owned));
    match setting {
        Some(setting) if nearness(setting) >= strsim::jaro_winkler(key, &list) => {
            // A table that both have makes them no more alike.
            alike(name, setting.name.to_owned()).map(|_| setting.key())
        }
        Some(_) | None => alike(name, list),
    }
}

fn unexpected(setting: &Setting, place: String, value: &str) -> ConfigError {
    ConfigError::Value {
        place,
        value: (setting.kind != Kind::Secret).then(|| value.to_owned()),
        expects: setting.expects,
    }
}

fn text_of_variable<'a>(name: &str, value: &'a OsString) -> Result<&'a str, ConfigError> {
    value.to_str().ok_or_else(|| ConfigError::Value {
        place: name.to_owned(),
        value: None,
        expects: "UTF-8",
    })
}

/// The value as text, if it is of the kind that the setting takes.
fn text_of_value(setting: &Setting, value: &Spanned<DeValue<'_>>) -> Option<String> {
    match (setting.kind, value.get_ref()) {
        (Kind::Text | Kind::Secret | Kind::TextOrNumber | Kind::Switch, DeValue::String(text)) => {
            // A text over several lines has the line ends of its file, which are no part of it.
            Some(text.replace("\r\n", "\n"))
        }
        (Kind::Number | Kind::TextOrNumber, DeValue::Integer(number)) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(number.to_string())
        }
        (Kind::Switch, DeValue::Boolean(switch)) => Some(switch.to_string()),
        (Kind::Text | Kind::Secret | Kind::Number | Kind::TextOrNumber | Kind::Switch, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs<'a, T: From<&'a str>>(list: &[(&'a str, &'a str)]) -> Vec<(T, T)> {
        list.iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    fn load(
        flags: &[(&str, &str)],
        variables: &[(&str, &str)],
        file: Option<&str>,
    ) -> Result<Loaded, ConfigErrors> {
        let mut environment: Vec<(OsString, OsString)> = Vec::new();
        for (name, value) in variables {
            environment.push((name.into(), value.into()));
        }
        let folder = TestFile::new(file.unwrap_or_default());
        if file.is_some() {
            environment.push((CONFIG_VARIABLE.into(), folder.0.clone().into()));
        }
        Sources::new(pairs(flags), environment).load()
    }

    fn message(flags: &[(&str, &str)], variables: &[(&str, &str)], file: Option<&str>) -> String {
        let text = load(flags, variables, file).unwrap_err().to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    }

    /// A file of its own for each test, removed at its end.
    struct TestFile(PathBuf);

    impl TestFile {
        fn new(text: &str) -> TestFile {
            use std::sync::atomic::{AtomicU32, Ordering};
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "ringcast-{}-{}.toml",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            );
            let file = std::env::temp_dir().join(name);
            std::fs::write(&file, text).unwrap();
            TestFile(file)
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            // A file that stays behind harms nothing.
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let flag = [("tcp-backlog", "1")];
        let variable = [("RINGCAST_TCP_BACKLOG", "2")];
        let file = Some("tcp_backlog = 3");
        for (loaded, backlog, source) in [
            (load(&flag, &variable, file), 1, Source::Flag),
            (load(&[], &variable, file), 2, Source::Variable),
            (load(&[], &[], file), 3, Source::File),
            (load(&[], &[], None), 4096, Source::Default),
        ] {
            let loaded = loaded.unwrap();
            assert_eq!(loaded.config.listen.tcp_backlog, backlog);
            let found = loaded
                .settings()
                .find(|(setting, ..)| setting.name == "tcp_backlog")
                .unwrap();
            assert_eq!((found.1.unwrap(), found.2), (backlog.to_string(), source));
        }
    }

    #[test]
    fn every_setting_can_be_set_from_every_source() {
        for setting in SETTINGS {
            let text = match setting.kind {
                Kind::Secret => "topsecret".to_owned(),
                Kind::Text | Kind::Number | Kind::TextOrNumber | Kind::Switch => setting
                    .show(&Config::default())
                    .unwrap_or_else(|| match setting.name {
                        "auth_algorithm" => "HS256".into(),
                        "allowed_origins" => "https://example.com".into(),
                        "jwks_url" => "https://id.example/".into(),
                        "trusted_proxies" => "192.0.2.1".into(),
                        "translator_prefixes" => "2001:db8:64::/96".into(),
                        _ => "file".into(),
                    }),
            };
            let quoted = if setting.kind == Kind::Number {
                text.clone()
            } else {
                format!("\"{text}\"")
            };
            let line = match setting.table {
                Some(table) => format!("[{table}]\n{} = {quoted}", setting.name),
                None => format!("{} = {quoted}", setting.name),
            };
            let flag = setting.flag();
            for (outcome, source) in [
                (load(&[(&flag[2..], &text)], &[], None), Source::Flag),
                (load(&[], &[(&setting.variable(), &text)], None), Source::Variable),
                (load(&[], &[], Some(&line)), Source::File),
            ] {
                match outcome {
                    Ok(loaded) => {
                        let found = loaded
                            .settings()
                            .find(|(other, ..)| other.name == setting.name)
                            .unwrap();
                        assert_eq!(found.2, source, "{}", setting.name);
                    }
                    Err(error) => {
                        // Some settings ask for another.
                        let conflicts = error
                            .iter()
                            .all(|error| matches!(error, ConfigError::Conflict(_)));
                        assert!(conflicts, "{line}: {error}")
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_names_lead_to_the_nearest_known_one() {
        let text = message(&[("ping-intervall-ms", "1")], &[], None);
        assert_eq!(
            text,
            "command line: --ping-intervall-ms is not known; did you mean --ping-interval-ms?"
        );
        let text = message(&[], &[("RINGCAST_CORE", "1")], None);
        assert_eq!(
            text,
            "environment: RINGCAST_CORE is not known; did you mean RINGCAST_CORES?"
        );
        let text = message(&[], &[], Some("lissten = \"127.0.0.1:1\""));
        assert!(
            text.ends_with(".toml: line 1: lissten is not known; did you mean listen?"),
            "{text}"
        );
        let text = message(&[], &[], Some("message_bytes_max = 1"));
        assert!(
            text.ends_with("line 1: message_bytes_max is not known; did you mean limits.message_bytes_max?"),
            "{text}"
        );
        let text = message(&[], &[], Some("[limits]\nmesage_bytes_max = 1"));
        assert!(
            text.ends_with(
                ".toml: line 2: limits.mesage_bytes_max is not known; did you mean limits.message_bytes_max?"
            ),
            "{text}"
        );
        let text = message(&[], &[], Some("[limitz]\nring_slots = 2"));
        assert!(
            text.contains("line 1: limitz is not known; did you mean limits?"),
            "{text}"
        );
    }

    #[test]
    fn variables_of_others_are_ignored() {
        assert!(load(&[], &[("PATH", "/bin"), ("RINGCASTER", "1")], None).is_ok());
        let service = [
            ("RINGCAST_PORT", "tcp://10.0.0.11:8000"),
            ("RINGCAST_SERVICE_HOST", "10.0.0.11"),
            ("RINGCAST_ADMIN_PORT_9464_TCP_ADDR", "10.0.0.12"),
            ("RINGCAST_TCP_BACKLOG", "7"),
        ];
        let loaded = load(&[], &service, None).unwrap();
        assert_eq!(loaded.config.listen.tcp_backlog, 7);
        assert_eq!(loaded.ignored.len(), 3);
        let text = message(&[], &[service[0], service[1], ("RINGCAST_CORE", "1")], None);
        assert_eq!(
            text,
            "environment: RINGCAST_CORE is not known; did you mean RINGCAST_CORES?"
        );
    }

    #[test]
    fn a_file_of_another_system_says_the_same() {
        let text = "\u{feff}tcp_backlog = 7\nauth_issuer = \"\"\"\nhttps://a.example,\n  https://b.example\n\"\"\"\n\
                    [[rules]]\nallow = \"publish\"\nchannels = [\n  \"a\",\n  \"b\"\n]\n";
        for text in [
            text.to_owned(),
            text.replace('\n', "\r\n"),
            text.replace(",\n", ", \t\r\n"),
        ] {
            let config = load(&[], &[], Some(&text)).unwrap().config;
            assert_eq!(config.listen.tcp_backlog, 7);
            assert_eq!(config.auth.issuer, ["https://a.example", "https://b.example"]);
            assert_eq!(config.permissions.rules.len(), 1);
        }
        let utf_16: Vec<u16> = text.encode_utf16().collect();
        let file = TestFile::new("");
        std::fs::write(
            &file.0,
            utf_16
                .iter()
                .flat_map(|unit| unit.to_le_bytes())
                .collect::<Vec<_>>(),
        )
        .unwrap();
        let flags = vec![("config".to_owned(), file.0.display().to_string())];
        let error = Sources::new(flags, []).load().unwrap_err().to_string();
        assert!(
            error.contains("cannot be read: line 1: the file is UTF-16"),
            "{error}"
        );
    }

    #[test]
    fn a_name_that_is_like_none_leads_nowhere() {
        for (flags, variables, file) in [
            (&[("foo", "1")][..], &[][..], None),
            (&[], &[("RINGCAST_FOO", "1")], None),
            (&[], &[], Some("foo = 1")),
            (&[], &[], Some("[limits]\nfoo = 1")),
        ] {
            let text = message(flags, variables, file);
            assert!(
                text.ends_with(" is not known; `ringcast --help` lists what is"),
                "{text}"
            );
        }
    }

    #[test]
    fn names_of_other_servers_lead_to_ours() {
        let text = message(&[], &[("RINGCAST_PORT", "8000")], None);
        assert_eq!(
            text,
            "environment: RINGCAST_PORT is not known; did you mean RINGCAST_LISTEN?"
        );
        for (_, ours) in NAMES_ELSEWHERE {
            assert!(
                setting_of_variable(&format!("{PREFIX}{ours}")).is_some(),
                "{ours}"
            );
        }
    }

    #[test]
    fn errors_name_place_value_and_remedy() {
        assert_eq!(
            message(&[("ping-timeout-ms", "2147483648")], &[], None),
            "--ping-timeout-ms: found \"2147483648\", expected a whole number from 1 to 2147483647"
        );
        assert_eq!(
            message(&[], &[("RINGCAST_PINGS", "yes")], None),
            "RINGCAST_PINGS: found \"yes\", expected on or off"
        );
        for (file, end) in [
            (
                "\n\nlisten = 8000",
                ": line 3: listen: found \"8000\", expected an address with a port, such as 127.0.0.1:8000 or [::]:8000",
            ),
            ("tcp_backlog = \"1\"", "expected a whole number from 1 to 65535"),
        ] {
            let text = message(&[], &[], Some(file));
            assert!(text.ends_with(end), "{text}");
        }
        assert!(message(&[], &[], Some("limits = 1")).contains("limits is not known"));
        let text = message(&[("config", "/nowhere/ringcast.toml")], &[], None);
        assert!(
            text.starts_with("/nowhere/ringcast.toml: cannot be read: "),
            "{text}"
        );
        let text = message(&[], &[("RINGCAST_CONFIG", "")], None);
        assert_eq!(
            text,
            "RINGCAST_CONFIG: found \"\", expected the name of a TOML file"
        );
    }

    #[test]
    fn all_errors_are_found_each_with_its_line() {
        let text = "listen = 8000\nfoo = 1\n[limits]\nmessage_bytes_max = \"-1\"\noutbox_bytes_max = -1\n\n\
                    [[rules]]\nalow = \"publish\"\n[[shadow_rules]]\nallow = \"publsh\"\n";
        let flags = [("cores", "0"), ("foo", "1")];
        let variables = [("RINGCAST_LISTN", "127.0.0.1:1"), ("RINGCAST_PINGS", "yes")];
        let errors = load(&flags, &variables, Some(text)).unwrap_err();
        let said: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
        let expected = [
            "command line: --foo is not known",
            "environment: RINGCAST_LISTN is not known; did you mean RINGCAST_LISTEN?",
            "line 1: listen: found \"8000\"",
            "line 2: foo is not known",
            "line 4: limits.message_bytes_max: found \"\\\"-1\\\"\"",
            "line 5: limits.outbox_bytes_max: found \"-1\", expected a whole number",
            "line 8: rules number 1: alow is not known",
            "line 10: shadow_rules number 1: allow: \"publsh\" is not an action; did you mean publish?",
            "--cores: found \"0\"",
            "RINGCAST_PINGS: found \"yes\"",
        ];
        for part in expected {
            assert_eq!(
                said.iter().filter(|line| line.contains(part)).count(),
                1,
                "{part}: {said:#?}"
            );
        }
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        assert_eq!(errors.to_string().lines().count(), said.len());
    }

    #[test]
    fn each_line_that_is_no_toml_is_named_and_nothing_else_of_the_file() {
        let text = "listen = \nauth_key = topsecret\nfoo = 1\n[limits\n";
        let errors = load(&[("cores", "0")], &[], Some(text)).unwrap_err().to_string();
        for part in [
            "line 1 is not TOML",
            "line 2 is not TOML",
            "line 4 is not TOML",
            "--cores: found \"0\"",
        ] {
            assert!(errors.contains(part), "{part}: {errors}");
        }
        assert!(
            !errors.contains("topsecret") && !errors.contains("foo"),
            "{errors}"
        );
    }

    #[test]
    fn a_value_that_is_not_taken_conflicts_with_nothing() {
        let admin = ("RINGCAST_ADMIN", "0.0.0.0:9464");
        let errors = load(&[], &[admin, ("RINGCAST_ADMIN_KEY", "a key ")], None).unwrap_err();
        assert_eq!(errors.iter().count(), 1, "{errors}");
        let errors = load(
            &[],
            &[
                admin,
                ("RINGCAST_PROXY_PROTOCOL", "on"),
                ("RINGCAST_X_FORWARDED_FOR", "on"),
            ],
            None,
        );
        assert_eq!(errors.unwrap_err().iter().count(), 3);
    }

    #[test]
    fn errors_show_no_secret() {
        let text = message(&[], &[("RINGCAST_AUTH_KEY", "topsecret\n")], None);
        assert!(text.starts_with("RINGCAST_AUTH_KEY: expected a key"), "{text}");
        for file in [
            "auth_key = \"topsecret\\n\"",
            "auth_key = [\"topsecret\"]",
            "a = 1\nauth_key = topsecret\n",
        ] {
            let text = message(&[], &[], Some(file));
            assert!(!text.contains("topsecret"), "{text}");
        }
        let text = message(
            &[],
            &[],
            Some("listen = \"127.0.0.1:1\"\nauth_key = 'topsecret\n"),
        );
        assert!(
            text.contains("line 2 is not TOML") && !text.contains("topsecret"),
            "{text}"
        );
        let sources = Sources::new(pairs(&[("auth-key", "topsecret")]), []);
        assert!(!format!("{sources:?} {:?}", sources.load()).contains("topsecret"));
    }

    #[test]
    fn the_file_of_the_flag_beats_that_of_the_variable() {
        let file = TestFile::new("tcp_backlog = 7");
        let flags = vec![("config".to_owned(), file.0.display().to_string())];
        let environment = [(CONFIG_VARIABLE.into(), "/nowhere".into())];
        assert_eq!(
            Sources::new(flags, environment)
                .load()
                .unwrap()
                .config
                .listen
                .tcp_backlog,
            7
        );
    }

    #[test]
    fn an_empty_variable_is_an_error_rather_than_unset() {
        assert_eq!(
            message(&[], &[("RINGCAST_CORES", "")], None),
            "RINGCAST_CORES: found \"\", expected auto, a number from 1 to 128, or CPUs such as 0-3,6 (6-6 for one CPU)"
        );
    }
}
