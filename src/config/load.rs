//! Merges the sources of settings: flags, then `RINGCAST_*` variables, then credentials of the service manager, then
//! variables of SocketCluster's boilerplate (`boilerplate`), then the TOML file, then defaults.
//!
//! [`ConfigSources`] holds the arguments and variables of the process. [`ConfigSources::load`] makes a [`Config`] of
//! them, at the start and again on a reload, when only files can have changed.
//!
//! Invariants
//! 1. A name that is not known is an error, in each of the sources, and names the nearest known one (`unknown`).
//!    Variables that other programs set are told apart by their shape (`environment`).
//! 2. An error never shows the value of a secret, nor a line of the file.
//! 3. All errors are found, not only the first; errors that would follow from another are left out.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::boilerplate::{self, BAD_VALUE, Inherited, Meaning};
use super::credentials::{self, Credentials};
use super::environment;
use super::error::{ConfigError, ConfigErrors};
use super::form::Kind;
use super::settings::{PREFIX, Setting};
use super::toml_file::{self, FileValue};
use super::unknown::{CONFIG_FLAG, unknown_flag, unknown_variable};
use super::{Config, SETTINGS};

/// What the process was started with.
///
/// A program that embeds the server begins with the environment, or with nothing ([`ConfigSources::default`]), and adds
/// a file and values of its own:
/// ```
/// # use ringcast::config::ConfigSources;
/// let sources = ConfigSources::from_environment()
///     .file("/etc/chat/ringcast.toml")
///     .set("listen", "127.0.0.1:7000");
/// ```
#[derive(Clone, Default)]
pub struct ConfigSources {
    /// The file that the program names.
    file: Option<PathBuf>,
    /// Flags of the command line, without their hyphens, or values that the program sets.
    flags: Vec<(String, String)>,
    variables: Vec<(String, OsString)>,
    /// Names of variables that other programs set.
    ignored: Vec<String>,
    /// Variables of SocketCluster's boilerplate.
    inherited: Vec<(String, OsString)>,
    credentials: Credentials,
}

/// A configuration, and the source of each of its values.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Variables that begin as ours do and were set by other programs, such as Kubernetes.
    pub ignored: Vec<String>,
    /// A line for each variable or option of SocketCluster's boilerplate: which setting it has set and how to write
    /// that instead, or why it is not used.
    pub inherited: Vec<String>,
    /// By the order of [`SETTINGS`].
    sources: Vec<Source>,
}

/// The settings that were read, and all errors in them.
#[derive(Debug)]
struct Reading {
    loaded: Loaded,
    errors: Vec<ConfigError>,
    /// Settings whose values were not accepted, by the order of [`SETTINGS`].
    failed: Vec<usize>,
    /// Whether all that is in the file is known.
    file_is_whole: bool,
}

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// No source sets it.
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

impl ConfigSources {
    /// The environment of this process: the variables `RINGCAST_*`, among them `RINGCAST_CONFIG`, which names the file,
    /// and the credentials of the service manager.
    pub fn from_environment() -> ConfigSources {
        ConfigSources::new(Vec::new(), std::env::vars_os())
    }

    /// Reads this TOML file, whatever the environment says.
    #[must_use]
    pub fn file(mut self, file: impl Into<PathBuf>) -> ConfigSources {
        self.file = Some(file.into());
        self
    }

    /// Sets a setting by its key in the file (`limits.ring_slots`), whatever the other sources say.
    /// [`ConfigSources::load`] checks names and values; its errors call the setting by the flag of the binary.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>) -> ConfigSources {
        let setting = SETTINGS.iter().find(|setting| setting.key() == key);
        let flag = setting.map_or_else(|| key.to_owned(), |setting| setting.flag()[2..].to_owned());
        self.flags.push((flag, value.into()));
        self
    }

    /// Takes over flags, without their hyphens, and the variables of the environment that concern this server.
    pub fn new(
        flags: Vec<(String, String)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> ConfigSources {
        let mut sources = ConfigSources {
            flags,
            ..ConfigSources::default()
        };
        for (name, value) in environment {
            if credentials::is_announced_by(&name) {
                sources.credentials = Credentials::new(value);
            } else if let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) {
                if COMMAND_VARIABLES.contains(&name) {
                    continue;
                }
                let name = name.to_owned();
                let is_setting = name == CONFIG_VARIABLE || setting_of_variable(&name).is_some();
                if environment::is_of_others(&name, &value, is_setting) {
                    sources.ignored.push(name);
                } else {
                    sources.variables.push((name, value));
                }
            } else if let Some(name) = name.to_str()
                && boilerplate::is_inherited(name, &value)
            {
                sources.inherited.push((name.to_owned(), value));
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
        if errors.is_empty() {
            Ok(loaded)
        } else {
            Err(ConfigErrors(errors))
        }
    }

    /// What can be read, and all that is wrong. A setting with an error has the value of the next source, or its
    /// default.
    pub(crate) fn read(&self) -> (Loaded, Vec<ConfigError>) {
        let mut reading = Reading {
            loaded: Loaded {
                config: Config::default(),
                file: None,
                ignored: self.ignored.clone(),
                inherited: Vec::new(),
                sources: vec![Source::Default; SETTINGS.len()],
            },
            errors: self.unknown_names(),
            failed: Vec::new(),
            file_is_whole: true,
        };
        match self.file_to_read() {
            Ok(Some(file)) => reading.merge_file(&file),
            Ok(None) => {}
            Err(error) => {
                reading.file_is_whole = false;
                reading.errors.push(error);
            }
        }
        // From the weakest source to the strongest: a later value replaces an earlier one.
        for (index, setting) in SETTINGS.iter().enumerate() {
            self.merge_credential(&mut reading, index, setting);
            self.merge_variable(&mut reading, index, setting);
            self.merge_flag(&mut reading, index, setting);
        }
        self.merge_inherited(&mut reading);
        reading.find_conflicts();
        (reading.loaded, reading.errors)
    }

    /// Takes over the variables of SocketCluster's boilerplate for settings that no stronger source has set. None of
    /// them is an error: a value with which the server would not start is left out.
    fn merge_inherited(&self, reading: &mut Reading) {
        let mut parts: Vec<(usize, Inherited)> = self
            .inherited
            .iter()
            .flat_map(|(variable, value)| boilerplate::read(variable, value))
            .enumerate()
            .collect();
        // Of two names for a setting, the first one counts.
        parts.sort_by_key(|(_, part)| Reverse(part.depth()));
        let mut names: Vec<(&str, String)> = Vec::new();
        let mut lines: Vec<(usize, String)> = Vec::new();
        for (place, Inherited { name, meaning }) in parts {
            let stored = match meaning {
                Meaning::None(why) => Err(why.to_owned()),
                Meaning::Setting { key, text } => match names.iter().find(|(other, _)| *other == key) {
                    Some((_, stronger)) => Err(format!("{stronger} sets the same")),
                    None => reading
                        .store_inherited(key, &text)
                        .inspect(|_| names.push((key, name.clone()))),
                },
            };
            let line = match stored {
                Ok(instead) => format!("{name} is read as {instead}; write that instead"),
                Err(why) => format!("{name} is not used: {why}"),
            };
            lines.push((place, line));
        }
        lines.sort();
        reading.loaded.inherited = lines.into_iter().map(|(_, line)| line).collect();
    }

    fn merge_credential(&self, reading: &mut Reading, index: usize, setting: &Setting) {
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
    }

    fn merge_variable(&self, reading: &mut Reading, index: usize, setting: &Setting) {
        for (name, value) in &self.variables {
            if *name == setting.variable() {
                match text_of_variable(name, value) {
                    Ok(text) => reading.store(index, text, Source::Variable, || name.clone()),
                    Err(error) => reading.errors.push(error),
                }
            }
        }
    }

    fn merge_flag(&self, reading: &mut Reading, index: usize, setting: &Setting) {
        for (flag, text) in &self.flags {
            if is_flag_of(flag, setting) {
                reading.store(index, text, Source::Flag, || setting.flag());
            }
        }
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

    /// The name of the file, from the program, the last flag or the variable.
    fn file_to_read(&self) -> Result<Option<PathBuf>, ConfigError> {
        if self.file.is_some() {
            return Ok(self.file.clone());
        }
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
                expects: FILE_EXPECTS,
            });
        }
        Ok(Some(PathBuf::from(text)))
    }
}

impl fmt::Debug for ConfigSources {
    /// Flags and variables may hold secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConfigSources").finish_non_exhaustive()
    }
}

impl Loaded {
    /// Each setting with its value, hidden if secret, and its source.
    #[doc(hidden)] // `Setting` is a row of the table
    pub fn settings(&self) -> impl Iterator<Item = (&'static Setting, Option<String>, Source)> + '_ {
        let sources = self.sources.iter().copied();
        SETTINGS
            .iter()
            .zip(sources)
            .map(|(setting, source)| (setting, setting.show(&self.config), source))
    }
}

impl Reading {
    fn merge_file(&mut self, file: &Path) {
        self.loaded.file = Some(file.to_owned());
        let contents = toml_file::read(file);
        self.file_is_whole = contents.is_whole;
        for entry in contents.entries {
            match entry {
                Ok(FileValue { index, place, text }) => match text {
                    Ok(text) => self.store(index, &text, Source::File, || place.clone()),
                    Err(found) => self.refuse(index, place, &found),
                },
                Err(error) => self.errors.push(error),
            }
        }
        self.loaded.config.admin.api_keys = contents.api_keys;
        self.loaded.config.permissions.rules = contents.rules.rules;
        self.loaded.config.permissions.shadow_rules = contents.rules.shadow_rules;
        self.loaded.config.channels = contents.channels;
        self.loaded.config.services = contents.services;
        self.loaded.config.webhooks = contents.webhooks;
        self.loaded.config.hooks = contents.hooks;
    }

    /// Returns how the variable of the setting is written, or why the value is not used.
    fn store_inherited(&mut self, key: &str, text: &str) -> Result<String, String> {
        let mut settings = SETTINGS.iter().enumerate();
        let found = settings.find(|(_, setting)| setting.key() == key);
        let (index, setting) = found.ok_or("there is no such setting")?;
        match self.loaded.sources[index] {
            Source::Default | Source::File => {}
            Source::Credential | Source::Variable | Source::Flag => {
                return Err(
                    "its setting is set by a credential, a variable of Ringcast or a flag; remove it"
                        .to_owned(),
                );
            }
        }
        let mut config = self.loaded.config.clone();
        setting.store(&mut config, text).map_err(|_| BAD_VALUE)?;
        if let Some(why) = boilerplate::unsuited(&config, key) {
            return Err(why.to_owned());
        }
        let before = self.loaded.config.conflicts();
        let conflicts = config.conflicts();
        if let Some(conflict) = conflicts.iter().find(|conflict| !before.contains(conflict)) {
            return Err(format!("with it, {conflict}"));
        }
        self.loaded.config = config;
        self.loaded.sources[index] = Source::Variable;
        let shown = if setting.kind == Kind::Secret { "…" } else { text };
        Ok(format!("{}={shown}", setting.variable()))
    }

    fn store(&mut self, index: usize, text: &str, source: Source, place: impl Fn() -> String) {
        match SETTINGS[index].store(&mut self.loaded.config, text) {
            Ok(()) => self.loaded.sources[index] = source,
            Err(_) => self.refuse(index, place(), text),
        }
    }

    /// Notes that a setting does not accept the value found at `place`.
    fn refuse(&mut self, index: usize, place: String, found: &str) {
        let setting = &SETTINGS[index];
        self.failed.push(index);
        self.errors.push(ConfigError::Value {
            place,
            value: (setting.kind != Kind::Secret).then(|| found.to_owned()),
            expects: setting.expects,
        });
    }

    /// Finds settings that cannot go together; settings whose values were not accepted are left out.
    fn find_conflicts(&mut self) {
        if !self.file_is_whole {
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

/// The variable that names the file.
pub(crate) const CONFIG_VARIABLE: &str = "RINGCAST_CONFIG";

/// The variables of commands that ask a running server (`cli::api`). They are no settings.
const COMMAND_VARIABLES: [&str; 3] = [API_URL_VARIABLE, API_KEY_VARIABLE, API_KEY_FILE_VARIABLE];

/// The address of the control plane for such commands.
pub(crate) const API_URL_VARIABLE: &str = "RINGCAST_API_URL";
/// Their API key.
pub(crate) const API_KEY_VARIABLE: &str = "RINGCAST_API_KEY";
/// The file that holds their API key.
pub(crate) const API_KEY_FILE_VARIABLE: &str = "RINGCAST_API_KEY_FILE";

const FILE_EXPECTS: &str = "the name of a TOML file";

/// What a flag takes; `None` if it is not known.
pub(crate) fn flag_expects(flag: &str) -> Option<&'static str> {
    if flag == CONFIG_FLAG {
        return Some(FILE_EXPECTS);
    }
    SETTINGS
        .iter()
        .find(|setting| is_flag_of(flag, setting))
        .map(|setting| setting.expects)
}

fn setting_of_variable(variable: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.variable() == variable)
}

fn is_flag_of(flag: &str, setting: &Setting) -> bool {
    setting.flag().strip_prefix("--") == Some(flag)
}

fn text_of_variable<'a>(name: &str, value: &'a OsString) -> Result<&'a str, ConfigError> {
    value.to_str().ok_or_else(|| ConfigError::Value {
        place: name.to_owned(),
        value: None,
        expects: "UTF-8",
    })
}

#[cfg(test)]
mod tests;
