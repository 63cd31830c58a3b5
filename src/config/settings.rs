//! One row for each setting: [`settings!`] makes the field, its documentation, its default, its names and its check
//! from it.
//!
//! A row stands in the file of its section (`admin.rs`, `listen.rs`, `limits.rs` and so on):
//!
//! ```text
//! /// Milliseconds between two pings to a connection.
//! ping_interval: Duration = Duration::from_millis(8000), "ping_interval_ms", milliseconds!(1 to 2147483647);
//! ```
//!
//! From left to right: the documentation for operators, the field and its type, the default, the name, and the
//! [`Form`](super::form::Form) of the value with its bounds. A row that ends in `, on reload` takes effect when the
//! file is read again (SIGHUP), since `Policy::read` takes it into the policy; other settings take effect at the next
//! start. The head of a section is `name: Type {`; with `in table "limits"` between them, the keys of the section stand in
//! the table `[limits]` of the file. Flags and variables have the name alone.
//!
//! The name is the key of the configuration file. The flag is `--name-with-hyphens`, the variable `RINGCAST_NAME`. The
//! loader, `ringcast --help`, `ringcast check`, `/stats` and the table in `docs/configuration.md` read [`SETTINGS`].
//!
//! To add a setting, write its row. To add a section, list it in [`Config`] and in `SECTIONS` (`config/mod.rs`). Then
//! `UPDATE=1 cargo test --test docs` renews the table. A form checks a value by itself; combinations of settings are
//! checked in `conflicts.rs` (the server does not start) and `warnings.rs` (it starts and warns).

use super::form::Kind;
use super::secret::Secret;
use super::{Config, SETTINGS};

/// One setting.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Its name: the key in the file, and the base of flag and variable.
    pub name: &'static str,
    /// The table of the file in which the key stands, if not at the top.
    pub table: Option<&'static str>,
    /// What the file may hold.
    pub kind: Kind,
    /// The accepted values, in words that follow "expected".
    pub expects: &'static str,
    /// Its purpose, unit and effect, in one line.
    pub doc: &'static str,
    /// When a changed value takes effect.
    pub takes_effect: TakesEffect,
    /// Checks and stores a value; `None` leaves the configuration as it was.
    pub(super) store: fn(&mut Config, &str) -> Option<()>,
    /// The value as it would be written, secrets too; empty if it is not set.
    pub(super) text: fn(&Config) -> String,
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesEffect {
    /// At the next start.
    AtStart,
    /// At the next reload (SIGHUP), as do changed contents of a file that the setting names.
    OnReload,
}

/// The value is not one that the setting accepts; [`Setting::expects`] says which are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

impl Setting {
    /// The flag of the command line.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// The variable of the environment.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// The key in the file, with its table.
    pub fn key(&self) -> String {
        match self.table {
            Some(table) => format!("{table}.{}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// Whether its value is the name of a file, or of several.
    pub fn names_files(&self) -> bool {
        self.name.ends_with("_file") || self.name.ends_with("_files")
    }

    /// Whether the two configurations have different values for it; the values of secrets are compared too.
    pub fn changed(&self, before: &Config, after: &Config) -> bool {
        (self.text)(before) != (self.text)(after)
    }

    /// Stores a value.
    ///
    /// No value holds a carriage return, a NUL or a byte order mark. Such characters are invisible, come from files
    /// that were written on other systems, and would silently make a different host, path or key.
    ///
    /// # Errors
    /// The setting does not accept the value; the configuration is unchanged.
    pub fn store(&self, config: &mut Config, text: &str) -> Result<(), Unexpected> {
        if text.contains(['\r', '\0', '\u{feff}']) {
            return Err(Unexpected);
        }
        (self.store)(config, text).ok_or(Unexpected)
    }

    /// The value in `config`, as it would be written; `None` if it is not set. Secrets are hidden.
    pub fn show(&self, config: &Config) -> Option<String> {
        let text = (self.text)(config);
        match self.kind {
            _ if text.is_empty() => None,
            Kind::Secret => Some(Secret::HIDDEN.to_owned()),
            Kind::Text | Kind::Number | Kind::TextOrNumber | Kind::Switch => Some(text),
        }
    }
}

/// Declares a section: a struct with a field, a default and a [`Setting`] for each row. The head of this file describes
/// a row. Fields behind `and` are no settings, such as the lists of rules: only their documentation, type and default
/// stand there.
macro_rules! settings {
    (
        $(#[$section_meta:meta])*
        $section:ident: $Section:ident $(in table $table:literal)? {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $default:expr, $name:literal, $form:expr $(, on $when:ident)?;
            )+
        }
        $(and {
            $(
                $(#[doc = $extra_doc:literal])+
                $extra:ident: $extra_type:ty = $extra_default:expr;
            )+
        })?
    ) => {
        $(#[$section_meta])*
        #[derive(Clone, Debug)]
        pub struct $Section {
            $(
                $(#[doc = $doc])+
                pub $field: $type,
            )+
            $($(
                $(#[doc = $extra_doc])+
                pub $extra: $extra_type,
            )+)?
        }

        impl Default for $Section {
            fn default() -> $Section {
                $Section {
                    $($field: $default,)+
                    $($($extra: $extra_default,)+)?
                }
            }
        }

        impl $Section {
            const TABLE: Option<&str> = $crate::config::settings::first(&[$($table)?]);

            /// The settings of this section, in the order of the rows.
            pub(super) const SETTINGS: &[$crate::config::settings::Setting] = &[
                $({
                    const FORM: $crate::config::form::Form<$type> = $form;
                    $crate::config::settings::Setting {
                        name: $name,
                        table: $Section::TABLE,
                        kind: FORM.kind,
                        expects: FORM.expects,
                        doc: concat!($($doc),+).trim_ascii(),
                        takes_effect: $crate::config::settings::settings!(@takes_effect $($when)?),
                        store: |config, text| {
                            config.$section.$field = (FORM.parse)(text)?;
                            Some(())
                        },
                        text: |config| (FORM.show)(&config.$section.$field),
                    }
                },)+
            ];
        }
    };
    (@takes_effect) => {
        $crate::config::settings::TakesEffect::AtStart
    };
    (@takes_effect reload) => {
        $crate::config::settings::TakesEffect::OnReload
    };
}

pub(super) use settings;

/// The table of a section, if it has one.
pub(super) const fn first(tables: &[&'static str]) -> Option<&'static str> {
    match tables {
        [table, ..] => Some(table),
        [] => None,
    }
}

/// The prefix of all variables.
pub const PREFIX: &str = "RINGCAST_";

/// The table of settings in Markdown, as `docs/configuration.md` has it.
pub fn markdown() -> String {
    let defaults = Config::default();
    let mut table = "| variable | file key | default | meaning |\n|---|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let default = setting
            .show(&defaults)
            .map_or_else(String::new, |text| format!("`{text}`"));
        table.push_str(&format!(
            "| `{}` | `{}` | {default} | {} |\n",
            setting.variable(),
            setting.key(),
            setting.doc.replace('|', "\\|")
        ));
    }
    table
}

#[cfg(test)]
mod tests;
