//! How values are written: for each kind of value, its text is read, checked and shown in one place.
//!
//! A row of [`settings!`](super::settings) names the [`Form`] of its value: `number!(1 to 64)`, `milliseconds!(1 to
//! 60000)`, `word()` for an enum, or one of the constants below. A section whose value is written in a way of its own
//! has the constant in its own file.
//!
//! A form accepts a value or refuses it; the error message comes from [`Form::expects`]. Nothing here opens a file.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::secret::Secret;
use crate::text;

/// How a value of type `T` is written.
pub(super) struct Form<T> {
    /// What the configuration file may hold.
    pub(super) kind: Kind,
    /// The accepted values, in words that follow "expected".
    pub(super) expects: &'static str,
    /// Reads a value; `None` if it is not accepted.
    pub(super) parse: fn(&str) -> Option<T>,
    /// The value as an operator would write it, secrets too; empty if it is not set.
    pub(super) show: fn(&T) -> String,
}

/// What the configuration file may hold for a setting. Flags and variables are always text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A string that is never shown.
    Secret,
    /// An integer.
    Number,
    /// A string or an integer.
    TextOrNumber,
    /// A boolean, or a string such as `on` or `off`. On the command line the flag alone means `on`.
    Switch,
}

/// An enum that is written as one of a few words. [`words!`] implements it.
pub(super) trait Words: Copy + PartialEq + 'static {
    /// What the configuration file may hold.
    const KIND: Kind;
    /// The words, in words that follow "expected".
    const EXPECTS: &'static str;
    /// Each word with its value. A value with several words is shown as the first of them.
    const WORDS: &'static [(&'static str, Self)];

    /// The value as it is written.
    fn word(self) -> &'static str {
        let mut words = Self::WORDS.iter();
        words
            .find(|(_, value)| *value == self)
            .map_or("", |(word, _)| word)
    }
}

/// Lists the words of an enum: `words! { Protocol, TextOrNumber, "auto, 1 or 2": "auto" => Auto, "1" => V1, "2" => V2
/// }`.
macro_rules! words {
    ($type:ident, $kind:ident, $expects:literal: $($word:literal => $variant:ident),+ $(,)?) => {
        impl $crate::config::form::Words for $type {
            const KIND: $crate::config::form::Kind = $crate::config::form::Kind::$kind;
            const EXPECTS: &'static str = $expects;
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $type::$variant)),+];
        }
    };
}

/// A whole number within bounds: `number!(1 to 64)`.
macro_rules! number {
    ($min:literal to $max:literal) => {
        $crate::config::form::Form {
            kind: $crate::config::form::Kind::Number,
            expects: concat!("a whole number from ", $min, " to ", $max),
            parse: |text| $crate::config::form::whole_number(text, $min, $max),
            show: |value| value.to_string(),
        }
    };
}

/// A duration in whole units within bounds; use [`microseconds!`], [`milliseconds!`] or [`seconds!`].
macro_rules! duration {
    ($min:literal to $max:literal, $from:ident, $count:ident) => {
        $crate::config::form::Form {
            kind: $crate::config::form::Kind::Number,
            expects: concat!("a whole number from ", $min, " to ", $max),
            parse: |text| {
                $crate::config::form::whole_number(text, $min, $max).map(std::time::Duration::$from)
            },
            show: |value| value.$count().to_string(),
        }
    };
}

/// A duration in whole microseconds: `microseconds!(0 to 1000)`.
macro_rules! microseconds {
    ($min:literal to $max:literal) => {
        $crate::config::form::duration!($min to $max, from_micros, as_micros)
    };
}

/// A duration in whole milliseconds: `milliseconds!(1 to 60000)`.
macro_rules! milliseconds {
    ($min:literal to $max:literal) => {
        $crate::config::form::duration!($min to $max, from_millis, as_millis)
    };
}

/// A duration in whole seconds: `seconds!(1 to 300)`.
macro_rules! seconds {
    ($min:literal to $max:literal) => {
        $crate::config::form::duration!($min to $max, from_secs, as_secs)
    };
}

pub(super) use {duration, microseconds, milliseconds, number, seconds, words};

/// One of the words of an enum.
pub(super) const fn word<T: Words>() -> Form<T> {
    Form {
        kind: T::KIND,
        expects: T::EXPECTS,
        parse: |text| {
            let mut words = T::WORDS.iter();
            words.find(|(word, _)| *word == text).map(|(_, value)| *value)
        },
        show: |value| value.word().to_owned(),
    }
}

/// Text that the type itself reads and shows.
pub(super) const fn parsed<T: FromStr + Display>(kind: Kind, expects: &'static str) -> Form<T> {
    Form {
        kind,
        expects,
        parse: |text| text.parse().ok(),
        show: T::to_string,
    }
}

/// Any text but none.
pub(super) const fn some_text(expects: &'static str) -> Form<String> {
    Form {
        kind: Kind::Text,
        expects,
        parse: non_empty,
        show: String::clone,
    }
}

/// Names separated by commas; none of them may be empty.
pub(super) const fn names(expects: &'static str) -> Form<Vec<String>> {
    Form {
        kind: Kind::Text,
        expects,
        parse: names_in,
        show: |names| names.join(","),
    }
}

/// The name of a file.
pub(super) const fn file(expects: &'static str) -> Form<Option<PathBuf>> {
    Form {
        kind: Kind::Text,
        expects,
        parse: |text| Some(Some(non_empty(text)?.into())),
        show: |file| {
            file.as_ref()
                .map_or_else(String::new, |file| file.display().to_string())
        },
    }
}

impl Words for bool {
    const KIND: Kind = Kind::Switch;
    const EXPECTS: &'static str = "on or off";
    const WORDS: &'static [(&'static str, bool)] =
        &[("on", true), ("off", false), ("true", true), ("false", false)];
}

/// The name of a PEM file.
pub(super) const PEM_FILE: Form<Option<PathBuf>> = file("the name of a PEM file");

/// The names of PEM files, separated by commas.
pub(super) const PEM_FILES: Form<Vec<PathBuf>> = Form {
    kind: Kind::Text,
    expects: "the names of PEM files, separated by commas",
    parse: |text| Some(names_in(text)?.into_iter().map(PathBuf::from).collect()),
    show: |files| {
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        names.join(",")
    },
};

/// A secret. It may not end in a line break or a blank: such a key comes from a mistake in `$(cat file)`, and no client
/// could know it.
pub(super) const SECRET: Form<Option<Secret>> = Form {
    kind: Kind::Secret,
    expects: "a key of one line, not empty, without blanks or characters of no width around it",
    parse: |text| (text::secret(text) == Ok(text)).then(|| Some(Secret::new(text))),
    show: |secret| {
        secret.as_ref().map_or_else(String::new, |secret| {
            String::from_utf8_lossy(secret.expose()).into_owned()
        })
    },
};

/// The path of a request.
pub(super) const PATH: Form<String> = Form {
    kind: Kind::Text,
    expects: "a path that begins with / and has no query",
    parse: path,
    show: String::clone,
};

/// An address with a port, or `off`.
pub(super) const fn address_or_off(expects: &'static str) -> Form<Option<SocketAddr>> {
    Form {
        kind: Kind::Text,
        expects,
        parse: |text| match text {
            "off" => Some(None),
            address => address.parse().ok().map(Some),
        },
        show: |address| address.map_or_else(|| "off".to_owned(), |address| address.to_string()),
    }
}

/// A whole number from `min` to `max`.
pub(super) fn whole_number<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Option<T> {
    let value = text.parse().ok().filter(|value| (min..=max).contains(value))?;
    T::try_from(value).ok()
}

/// Names separated by commas.
pub(super) fn names_in(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|name| non_empty(name.trim())).collect()
}

/// A path of visible ASCII characters, without a query.
pub(super) fn path(text: &str) -> Option<String> {
    let legal = text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    legal.then(|| text.to_owned())
}

/// The text, unless it is empty.
pub(super) fn non_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}
