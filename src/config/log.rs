//! The log: which lines are written, and in which format.

use super::form::{Form, Kind, non_empty, word, words};
use super::settings::settings;
use crate::log::Format;

settings! {
    /// The log: which lines are written, and in which format.
    log: Log {
        /// Log filter: a level (`error`, `warn`, `info`, `debug`), or levels by module such as `ringcast=debug`.
        filter: String = "info".to_owned(), "log", FILTER, on reload;

        /// Format of log lines: `text` for people, `json` for programs (one object for each line).
        format: Format = Format::Text, "log_format", word();
    }
}

/// A filter in the syntax of `tracing_subscriber::EnvFilter`.
const FILTER: Form<String> = Form {
    kind: Kind::Text,
    expects: "a log filter, such as info or ringcast=debug",
    parse: |text| non_empty(text).filter(|text| crate::log::is_filter(text)),
    show: String::clone,
};

words! { Format, Text, "text or json": "text" => Text, "json" => Json }
