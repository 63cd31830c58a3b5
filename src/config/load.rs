//! Flags, then `RINGCAST_*` variables, then credentials of the service manager, then the TOML file, then defaults.
//!
//! [`Sources`] holds what the process was started with; [`Sources::load`] makes a [`Config`] of it, at the start and
//! again on a reload, when only the file can have changed.
//!
//! Invariants
//! 1. A name that is not known is an error, in each of the sources, and names the nearest known one.
//! 2. An error never shows the value of a secret, nor a line of the file.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::credentials::{self, Credentials};
use super::options::{Kind, PREFIX, SETTINGS, Setting};
use super::rules::{self, RuleFault};
use super::text_file::{self, CONFIG_BYTES_MAX};
use super::{Config, Conflict};

/// What the process was started with.
#[derive(Clone, Default)]
pub struct Sources {
    flags: Vec<(String, String)>,
    variables: Vec<(String, OsString)>,
    credentials: Credentials,
}

/// A configuration, and where each of its values is from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// By the order of [`SETTINGS`].
    sources: Vec<Source>,
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
        let (mut variables, mut credentials) = (Vec::new(), Credentials::default());
        for (name, value) in environment {
            if credentials::is_announced_by(&name) {
                credentials = Credentials::new(value);
            } else if let Ok(name) = name.into_string()
                && name.starts_with(PREFIX)
            {
                variables.push((name, value));
            }
        }
        Sources {
            flags,
            variables,
            credentials,
        }
    }

    /// Reads everything, and checks each value and all together.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        self.check_names()?;
        let mut loaded = Loaded {
            config: Config::default(),
            file: self.file()?,
            sources: vec![Source::Default; SETTINGS.len()],
        };
        if let Some(file) = loaded.file.clone() {
            let text = text_file::read(&file, CONFIG_BYTES_MAX).map_err(|error| ConfigError::Unreadable {
                file: file.clone(),
                cause: error.to_string(),
            })?;
            loaded.read_file(&file, &text)?;
        }
        for (index, setting) in SETTINGS.iter().enumerate() {
            if let Some((file, text)) = self.credentials.find(setting)? {
                loaded.store(index, &text, Source::Credential, || file.display().to_string())?;
            }
            for (name, value) in &self.variables {
                if *name == setting.variable() {
                    let text = text_of_variable(name, value)?;
                    loaded.store(index, text, Source::Variable, || name.clone())?;
                }
            }
            for (flag, text) in &self.flags {
                if is_flag_of(flag, setting) {
                    loaded.store(index, text, Source::Flag, || setting.flag())?;
                }
            }
        }
        loaded.config.check()?;
        Ok(loaded)
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        for (flag, _) in &self.flags {
            if flag != CONFIG_FLAG && !SETTINGS.iter().any(|setting| is_flag_of(flag, setting)) {
                return Err(unknown_flag(flag));
            }
        }
        for (variable, _) in &self.variables {
            if variable != CONFIG_VARIABLE && !SETTINGS.iter().any(|setting| *variable == setting.variable())
            {
                let known = SETTINGS.iter().map(Setting::variable);
                return Err(ConfigError::Unknown {
                    place: "environment".to_owned(),
                    nearest: nearest(variable, known.chain([CONFIG_VARIABLE.to_owned()])),
                    name: variable.clone(),
                });
            }
        }
        Ok(())
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

    fn read_file(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        // The error's own text would quote the line, which may be a secret.
        let table: Table = toml::from_str(text).map_err(|error: toml::de::Error| ConfigError::Syntax {
            file: file.to_owned(),
            line: error
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count()),
            cause: error.message().replace('\n', ", "),
        })?;
        self.read_table(file, None, &table)?;
        for list in rules::LISTS {
            if let Some(value) = table.get(list) {
                let read = rules::read(file, text, list, value).map_err(ConfigError::Rule)?;
                match list {
                    "rules" => self.config.rules = read,
                    _ => self.config.shadow_rules = read,
                }
            }
        }
        Ok(())
    }

    fn read_table(
        &mut self,
        file: &Path,
        table_name: Option<&str>,
        table: &Table,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            if table_name.is_none() && rules::LISTS.contains(&name.as_str()) {
                continue;
            }
            if let (None, Value::Table(inner)) = (table_name, value)
                && SETTINGS.iter().any(|setting| setting.table == Some(name))
            {
                self.read_table(file, Some(name), inner)?;
                continue;
            }
            let key = table_name.map_or_else(|| name.clone(), |table| format!("{table}.{name}"));
            let Some(index) = SETTINGS.iter().position(|setting| setting.key() == key) else {
                return Err(ConfigError::Unknown {
                    place: file.display().to_string(),
                    nearest: nearest_key(name, &key),
                    name: key,
                });
            };
            let place = || format!("{}: {key}", file.display());
            let text = text_of_value(&SETTINGS[index], value)
                .ok_or_else(|| unexpected(&SETTINGS[index], place(), &value.to_string()))?;
            self.store(index, &text, Source::File, place)?;
        }
        Ok(())
    }

    fn store(
        &mut self,
        index: usize,
        text: &str,
        source: Source,
        place: impl Fn() -> String,
    ) -> Result<(), ConfigError> {
        let setting = &SETTINGS[index];
        setting
            .store(&mut self.config, text)
            .map_err(|_| unexpected(setting, place(), text))?;
        self.sources[index] = source;
        Ok(())
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

/// Why there is no configuration. Each is one line that says where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// No setting has this name.
    Unknown {
        /// The source.
        place: String,
        /// The name found there.
        name: String,
        /// The known name most like it.
        nearest: String,
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
            ConfigError::Unknown { place, name, nearest } => {
                write!(
                    formatter,
                    "{place}: {name} is not known; the nearest that is: {nearest}"
                )
            }
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

impl From<Conflict> for ConfigError {
    fn from(conflict: Conflict) -> ConfigError {
        ConfigError::Conflict(conflict)
    }
}

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
    let known = SETTINGS.iter().map(Setting::flag);
    let name = format!("--{flag}");
    ConfigError::Unknown {
        place: "command line".to_owned(),
        nearest: nearest(
            &name,
            known.chain(["config", "help", "version"].map(|word| format!("--{word}"))),
        ),
        name,
    }
}

fn is_flag_of(flag: &str, setting: &Setting) -> bool {
    setting.flag().strip_prefix("--") == Some(flag)
}

pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known
        .max_by(|one, other| strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other)))
        .unwrap_or_default()
}

/// The known key nearest to `key`, found by its last part, so that one in the wrong table leads to the right one.
fn nearest_key(name: &str, key: &str) -> String {
    let nearness = |setting: &Setting| {
        strsim::jaro_winkler(name, setting.name).max(strsim::jaro_winkler(key, &setting.key()))
    };
    let setting = SETTINGS
        .iter()
        .max_by(|one, other| nearness(one).total_cmp(&nearness(other)));
    let list = nearest(key, rules::LISTS.iter().map(|list| (*list).to_owned()));
    match setting {
        Some(setting) if nearness(setting) >= strsim::jaro_winkler(key, &list) => setting.key(),
        Some(_) | None => list,
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
fn text_of_value(setting: &Setting, value: &Value) -> Option<String> {
    match (setting.kind, value) {
        (Kind::Text | Kind::Secret | Kind::TextOrNumber | Kind::Switch, Value::String(text)) => {
            Some(text.clone())
        }
        (Kind::Number | Kind::TextOrNumber, Value::Integer(number)) => Some(number.to_string()),
        (Kind::Switch, Value::Boolean(switch)) => Some(switch.to_string()),
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
    ) -> Result<Loaded, ConfigError> {
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
            assert_eq!(loaded.config.tcp_backlog, backlog);
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
                        assert!(matches!(error, ConfigError::Conflict(_)), "{line}: {error}")
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
            "command line: --ping-intervall-ms is not known; the nearest that is: --ping-interval-ms"
        );
        let text = message(&[], &[("RINGCAST_CORE", "1")], None);
        assert_eq!(
            text,
            "environment: RINGCAST_CORE is not known; the nearest that is: RINGCAST_CORES"
        );
        let text = message(&[], &[], Some("lissten = \"127.0.0.1:1\""));
        assert!(
            text.ends_with(".toml: lissten is not known; the nearest that is: listen"),
            "{text}"
        );
        let text = message(&[], &[], Some("message_bytes_max = 1"));
        assert!(
            text.ends_with("the nearest that is: limits.message_bytes_max"),
            "{text}"
        );
        let text = message(&[], &[], Some("[limits]\nmesage_bytes_max = 1"));
        assert!(
            text.ends_with(
                "limits.mesage_bytes_max is not known; the nearest that is: limits.message_bytes_max"
            ),
            "{text}"
        );
        let text = message(&[], &[], Some("[limitz]\nring_slots = 2"));
        assert!(text.contains("limitz is not known"), "{text}");
    }

    #[test]
    fn variables_of_others_are_ignored() {
        assert!(load(&[], &[("PATH", "/bin"), ("RINGCASTER", "1")], None).is_ok());
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
                "listen = 8000",
                ": listen: found \"8000\", expected an address with a port, such as 127.0.0.1:8000 or [::]:8000",
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
