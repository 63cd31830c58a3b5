//! Lists of tables in the configuration file: `[[rules]]`, `[[shadow_rules]]`, `[[channels]]`, `[[services]]`,
//! `[[api_keys]]`, `[[webhooks]]`, `[[hooks]]`.
//!
//! [`read`] takes a list apart into tables and keys with their lines. A module for each list reads the tables.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use super::error::ListFault;
use super::nearest::nearest;
use super::toml_file::line_of;

/// The names of all lists of tables.
pub(super) const LISTS: [&str; 7] = [
    "rules",
    "shadow_rules",
    "channels",
    "services",
    "api_keys",
    "webhooks",
    "hooks",
];

/// A key of a table of a list.
pub(super) struct Key<'a> {
    pub(super) name: &'a str,
    /// Its line in the file, from 1.
    pub(super) line: usize,
    pub(super) value: &'a Value,
}

/// A line, and the fault there.
pub(super) type Fault = (usize, String);

/// Where a list stands.
#[derive(Clone, Copy)]
pub(super) struct ListSource<'a> {
    pub(super) file: &'a Path,
    /// The text of the file.
    pub(super) text: &'a str,
    /// The tables at the top of the file.
    pub(super) table: &'a DeTable<'a>,
}

/// Reads a list of at most `max` tables; `of_table` reads a table from its keys and its line. A list that is not in the
/// file is empty.
///
/// # Errors
/// The first fault of each table that has one, or one fault of the list itself.
pub(super) fn read<T>(
    place: ListSource<'_>,
    list: &'static str,
    max: usize,
    of_table: impl Fn(&[Key<'_>], usize) -> Result<T, Fault>,
) -> Result<Vec<T>, Vec<ListFault>> {
    let Some(value) = place.table.get(list) else {
        return Ok(Vec::new());
    };
    let fault = |number: usize, line: usize, fault: String| ListFault {
        list,
        number,
        file: Some(place.file.to_owned()),
        line,
        fault,
    };
    let of_the_list = |said: String| vec![fault(0, line_of(place.text, value.span().start), said)];
    let is_list = value
        .get_ref()
        .as_array()
        .is_some_and(|tables| tables.iter().all(|table| table.get_ref().is_table()));
    if !is_list {
        return Err(of_the_list(format!(
            "expected a list of tables: begin each entry with [[{list}]]"
        )));
    }
    let tables = tables(value).map_err(|error| of_the_list(error.message().replace('\n', ", ")))?;
    if tables.len() > max {
        return Err(of_the_list(format!(
            "found {} entries, expected at most {max}",
            tables.len()
        )));
    }
    let (mut read, mut faults) = (Vec::with_capacity(tables.len()), Vec::new());
    for (index, table) in tables.iter().enumerate() {
        let keys = keys(table.get_ref(), place.text);
        match of_table(&keys, line_of(place.text, table.span().start)) {
            Ok(entry) => read.push(entry),
            Err((line, said)) => faults.push(fault(index + 1, line, said)),
        }
    }
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}

type Table = Spanned<Keys>;
type Keys = BTreeMap<Spanned<String>, Value>;

fn tables(list: &Spanned<DeValue<'_>>) -> Result<Vec<Table>, toml::de::Error> {
    Vec::deserialize(toml::de::ValueDeserializer::from(list.clone()))
}

/// The keys of a table, in the order of the file: the first fault of the file is named, not that of the first key of
/// the alphabet.
fn keys<'a>(table: &'a Keys, text: &str) -> Vec<Key<'a>> {
    let mut keys: Vec<Key<'_>> = table
        .iter()
        .map(|(key, value)| Key {
            name: key.get_ref(),
            line: line_of(text, key.span().start),
            value,
        })
        .collect();
    keys.sort_by_key(|key| key.line);
    keys
}

/// Checks that all keys are among the known ones.
///
/// # Errors
/// Names the first that is not, and the known one that is most like it.
pub(super) fn check_names(keys: &[Key<'_>], known: &[&str]) -> Result<(), Fault> {
    let Some(unknown) = keys.iter().find(|key| !known.contains(&key.name)) else {
        return Ok(());
    };
    let nearest = nearest(unknown.name, known.iter().map(|key| (*key).to_owned()));
    let fault = format!("{} is not known; did you mean {nearest}?", unknown.name);
    Err((unknown.line, fault))
}

/// The key with this name.
pub(super) fn find<'a, 'b>(keys: &'a [Key<'b>], name: &str) -> Option<&'a Key<'b>> {
    keys.iter().find(|key| key.name == name)
}

impl Key<'_> {
    /// A list of strings that is not empty; one string is a list of one. `example` is shown if it is something else.
    pub(super) fn texts(&self, example: &str) -> Result<Vec<String>, Fault> {
        let list = match self.value {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let texts: Option<Vec<String>> = list
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect();
        match texts {
            Some(texts) if !texts.is_empty() => Ok(texts),
            Some(_) => Err((self.line, format!("{} is empty", self.name))),
            None => Err((
                self.line,
                format!("{}: expected strings, such as [{example}]", self.name),
            )),
        }
    }

    /// A whole number within these bounds.
    pub(super) fn number(&self, min: u64, max: u64) -> Result<u64, Fault> {
        let number = self.value.as_integer();
        number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| self.unlike(&format!("a whole number from {min} to {max}")))
    }

    /// `true` or `false`.
    pub(super) fn switch(&self) -> Result<bool, Fault> {
        self.value.as_bool().ok_or_else(|| self.unlike("true or false"))
    }

    /// One of these words, by its meaning.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)], expects: &str) -> Result<T, Fault> {
        let text = self.value.as_str();
        let found = words.iter().find(|(word, _)| Some(*word) == text);
        found
            .map(|&(_, meaning)| meaning)
            .ok_or_else(|| self.unlike(expects))
    }

    fn unlike(&self, expected: &str) -> Fault {
        let fault = format!("{}: found {}, expected {expected}", self.name, self.value);
        (self.line, fault)
    }
}
