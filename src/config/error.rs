//! The errors in settings. Each error is one line: the place, the fault, and how to correct it.

use std::fmt;
use std::path::PathBuf;

use super::Conflict;

/// All that is wrong with the settings: at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// Each error.
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

/// An error in the settings. Its text is one line: the place, the fault, and how to correct it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// No setting has this name.
    Unknown {
        /// The source.
        place: String,
        /// The name found there.
        name: String,
        /// The known name that is most like it, if one is near.
        nearest: Option<String>,
    },
    /// A flag without its value.
    NoValue {
        /// The flag.
        flag: String,
        /// The accepted values.
        expects: &'static str,
    },
    /// A value that its setting does not accept.
    Value {
        /// The source and the setting's name there.
        place: String,
        /// The value, unless secret.
        value: Option<String>,
        /// The accepted values.
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
    /// A rule or another entry of a list of the wrong shape.
    List(ListFault),
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
                "{place}: {name} is not known; `ringcast --help` lists the known ones"
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
            ConfigError::List(fault) => fault.fmt(formatter),
            ConfigError::Conflict(conflict) => conflict.fmt(formatter),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A fault of an entry in a list of tables: a rule, or a policy of channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFault {
    /// The list that holds the entry.
    pub list: &'static str,
    /// The place of the entry in the list, from 1; 0 if the list itself is wrong.
    pub number: usize,
    /// The file, if the entry is from one.
    pub file: Option<PathBuf>,
    /// The line of the file, from 1; 0 if the entry is from no file.
    pub line: usize,
    /// The fault, and the accepted values.
    pub fault: String,
}

impl fmt::Display for ListFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{}: ", file.display())?;
        }
        if self.line != 0 {
            write!(formatter, "line {}: ", self.line)?;
        }
        if self.number == 0 {
            write!(formatter, "{}: {}", self.list, self.fault)
        } else {
            write!(formatter, "{} number {}: {}", self.list, self.number, self.fault)
        }
    }
}
