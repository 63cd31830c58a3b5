//! The configuration file: TOML, taken apart into values of settings and lists of tables.
//!
//! Comes in: the file's name. Goes out: [`FileContents`], which `load` merges with the other sources. Values are
//! checked there; here only their type is.
//!
//! Invariants
//! 1. An error shows no line of the file, since it may hold a secret.
//! 2. If any line is not TOML, nothing of the file is used: the lines around an error may have been taken for something
//!    else.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::SETTINGS;
use super::api_keys::{self, ApiKeySpec};
use super::channels::{self, ChannelSpec};
use super::error::ConfigError;
use super::form::Kind;
use super::hooks::{self, HookSpec};
use super::list::{LISTS, ListSource};
use super::rules::{self, read::RuleLists};
use super::services::{self, ServiceSpec};
use super::settings::Setting;
use super::text_file::{self, CONFIG_BYTES_MAX};
use super::unknown::unknown_key;
use super::webhooks::{self, WebhookSpec};

/// What the file holds.
#[derive(Default)]
pub(super) struct FileContents {
    /// Values of settings, and errors, in the order of the file.
    pub(super) entries: Vec<Result<FileValue, ConfigError>>,
    /// The lists of rules.
    pub(super) rules: RuleLists,
    /// The policies of channels.
    pub(super) channels: Vec<ChannelSpec>,
    /// The terms of services.
    pub(super) services: Vec<ServiceSpec>,
    /// The keys of the HTTP API.
    pub(super) api_keys: Vec<ApiKeySpec>,
    /// The webhooks.
    pub(super) webhooks: Vec<WebhookSpec>,
    /// Decisions that other programs make.
    pub(super) hooks: Vec<HookSpec>,
    /// Whether all that is in the file is known: false if it cannot be read or is not TOML.
    pub(super) is_whole: bool,
}

/// The value of one setting.
pub(super) struct FileValue {
    /// The place of the setting in [`SETTINGS`].
    pub(super) index: usize,
    /// Where it stands: file, line and key.
    pub(super) place: String,
    /// The value as text; or the kind of the value, if the file may not have such a value for this setting.
    pub(super) text: Result<String, String>,
}

/// Reads the file.
pub(super) fn read(file: &Path) -> FileContents {
    let mut contents = FileContents {
        is_whole: true,
        ..FileContents::default()
    };
    match text_file::read(file, CONFIG_BYTES_MAX) {
        Ok(text) => contents.take_apart(file, &text),
        Err(error) => {
            contents.is_whole = false;
            contents.entries.push(Err(ConfigError::Unreadable {
                file: file.to_owned(),
                cause: error.to_string(),
            }));
        }
    }
    contents
}

impl FileContents {
    fn take_apart(&mut self, file: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut lines_told = Vec::new();
        for error in errors {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            self.is_whole = false;
            // Further errors of the same line follow from the first.
            if !lines_told.contains(&line) {
                lines_told.push(line);
                self.entries.push(Err(ConfigError::Syntax {
                    file: file.to_owned(),
                    line,
                    cause: error.message().replace('\n', ", "),
                }));
            }
        }
        if !self.is_whole {
            return;
        }
        self.read_table(file, text, None, table.get_ref());
        let place = ListSource {
            file,
            text,
            table: table.get_ref(),
        };
        let (rules, of_rules) = rules::read::read(place);
        let (channels, of_channels) = channels::read::read(place);
        let (services, of_services) = services::read::read(place);
        let (api_keys, of_api_keys) = api_keys::read::read(place);
        let (webhooks, of_webhooks) = webhooks::read::read(place);
        (self.rules, self.channels, self.services) = (rules, channels, services);
        (self.api_keys, self.webhooks) = (api_keys, webhooks);
        let (hooks, of_hooks) = hooks::read::read(place);
        self.hooks = hooks;
        let faults = of_rules.into_iter().chain(of_channels).chain(of_services);
        let faults = faults.chain(of_api_keys).chain(of_webhooks).chain(of_hooks);
        self.entries
            .extend(faults.map(|fault| Err(ConfigError::List(fault))));
    }

    fn read_table(&mut self, file: &Path, text: &str, table_name: Option<&str>, table: &DeTable<'_>) {
        let mut members: Vec<_> = table.iter().collect();
        members.sort_by_key(|(name, _)| name.span().start);
        for (spanned, value) in members {
            let name: &str = spanned.get_ref();
            if table_name.is_none() && LISTS.contains(&name) {
                continue;
            }
            if let (None, DeValue::Table(inner)) = (table_name, value.get_ref())
                && SETTINGS.iter().any(|setting| setting.table == Some(name))
            {
                self.read_table(file, text, Some(name), inner);
                continue;
            }
            let place = format!("{}: line {}", file.display(), line_of(text, spanned.span().start));
            let is_named = |setting: &Setting| setting.table == table_name && setting.name == name;
            let Some(index) = SETTINGS.iter().position(is_named) else {
                self.entries.push(Err(unknown_key(place, table_name, name)));
                continue;
            };
            let found = || text.get(value.span()).unwrap_or_default().to_owned();
            self.entries.push(Ok(FileValue {
                index,
                place: format!("{place}: {}", SETTINGS[index].key()),
                text: text_of_value(SETTINGS[index].kind, value).ok_or_else(found),
            }));
        }
    }
}

/// The value as text, if it is of this kind.
fn text_of_value(kind: Kind, value: &Spanned<DeValue<'_>>) -> Option<String> {
    match (kind, value.get_ref()) {
        (Kind::Text | Kind::Secret | Kind::TextOrNumber | Kind::Switch, DeValue::String(text)) => {
            // A string over several lines has the line ends of its file, which are no part of its value.
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

/// The line of a place in the text, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}
