//! Terms of services in the configuration file: how calls of a pattern of procedures are made.
//!
//! ```toml
//! [[services]]
//! pattern = "math.*"
//! timeout_ms = 5000
//! queue_calls = 200
//! absent = "silent"
//! sticky = true
//! ```
//!
//! A row applies to the patterns of services that it covers: to the same name, or to all that begin with its prefix; of
//! several the longest. Services whose pattern no row covers have the defaults.
//!
//! Limits: [`SERVICES_MAX`] rows.

pub(super) mod read;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::form::{Words, words};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The name of a procedure, or a prefix with a final `*`.
    pub pattern: String,
    /// How its calls are made.
    pub terms: Terms,
    /// The file that holds it, if one does.
    pub file: Option<PathBuf>,
    /// Its line in the file, from 1; 0 without a file.
    pub line: usize,
}

/// How calls of a pattern are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a call may take, the time in the queue included.
    pub timeout: Duration,
    /// Most calls that wait for a service with room.
    pub queue_calls: u32,
    /// Most bytes of such calls.
    pub queue_bytes: u32,
    /// The answer if there is no service.
    pub absent: Absent,
    /// Whether the calls of one client go to the same service while that has room.
    pub is_sticky: bool,
}

/// The answer to a call if there is no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// A `NoServiceError`.
    Error,
    /// None, as for procedures that the server does not know.
    Silent,
}

words! {
    Absent, Text, "error or silent":
    "error" => Error, "silent" => Silent,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            timeout: Duration::from_secs(10),
            queue_calls: 1000,
            queue_bytes: 4 * 1024 * 1024,
            absent: Absent::Error,
            is_sticky: false,
        }
    }
}

impl fmt::Display for Terms {
    /// In words, for people: `answers within 10000 ms; 1000 calls, 4194304 bytes in the queue; absent: error`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "answers within {} ms; {} calls, {} bytes in the queue; absent: {}",
            self.timeout.as_millis(),
            self.queue_calls,
            self.queue_bytes,
            self.absent.word()
        )?;
        if self.is_sticky {
            formatter.write_str("; sticky")?;
        }
        Ok(())
    }
}

/// A key of a row, as an operator writes it.
struct RowKey {
    name: &'static str,
    /// The value if the key is absent, as it is written.
    default: &'static str,
    doc: &'static str,
}

const KEYS: [RowKey; 6] = [
    RowKey {
        name: "pattern",
        default: "",
        doc: "The name of a procedure, or a prefix with a final `*`. Required.",
    },
    RowKey {
        name: "timeout_ms",
        default: "10000",
        doc: "Milliseconds for the answer, the time in the queue included, up to 3600000; then the caller gets a `TimeoutError`.",
    },
    RowKey {
        name: "queue_calls",
        default: "1000",
        doc: "Most calls that wait for a service with room, for each pattern that a service has registered, up to 1000000. A further one is answered with a `ServiceBusyError`.",
    },
    RowKey {
        name: "queue_bytes",
        default: "4194304",
        doc: "Most bytes of such calls, up to 1073741824.",
    },
    RowKey {
        name: "absent",
        default: "error",
        doc: "The answer if there is no service: `error` is a `NoServiceError`, `silent` is none.",
    },
    RowKey {
        name: "sticky",
        default: "false",
        doc: "Whether the calls of one client go to the same service while it has room.",
    },
];

/// The table of keys in Markdown, as `docs/configuration.md` has it.
#[doc(hidden)]
pub fn markdown() -> String {
    let mut table = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    for key in &KEYS {
        table.push_str(&format!("| `{}` | {} | {} |\n", key.name, key.default, key.doc));
    }
    table
}

/// Most rows: each has metrics of its own on each core.
pub const SERVICES_MAX: usize = 64;

#[cfg(test)]
mod tests;
