//! What a server keeps on disk.

use std::path::PathBuf;
use std::time::Duration;

use super::form::{file, milliseconds, word, words};
use super::settings::settings;

settings! {
    /// What a server keeps on disk.
    store: Store {
        /// A directory of this server alone, in which remembered channels, retained publications and MQTT sessions
        /// survive a restart and a crash. Without it they are in memory only.
        data_dir: Option<PathBuf> = None, "data_dir", file("the name of a directory");

        /// When a publication is acknowledged that is kept on disk: `relaxed` at once, so that a crash may cost the
        /// last `store_flush_ms`; `strict` when it is on disk. Without effect without `data_dir`.
        mode: StoreMode = StoreMode::Relaxed, "store_mode", word();

        /// Milliseconds after which a publication is committed to disk in the mode `relaxed`.
        flush: Duration = Duration::from_millis(100), "store_flush_ms", milliseconds!(1 to 60000);
    }
}

/// When a publication is acknowledged that is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// At once.
    Relaxed,
    /// When it is on disk.
    Strict,
}

words! { StoreMode, Text, "relaxed or strict": "relaxed" => Relaxed, "strict" => Strict }
