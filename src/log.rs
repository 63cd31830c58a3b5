//! Log lines: levels and filters.
//!
//! Lines go to standard error. `info` is a handful of lines a day; connections are at `debug`.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines, reload};

/// The filter of this process's log, replaceable while it runs.
#[derive(Clone)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// Replaces the filter.
    pub fn replace(&self, filter: &str) -> Result<(), FilterError> {
        let filter = EnvFilter::try_new(filter).map_err(|_| FilterError::Syntax)?;
        self.0.reload(filter).map_err(|_| FilterError::NoLog)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Filter").finish_non_exhaustive()
    }
}

/// Why there is no such filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The text is not a filter.
    Syntax,
    /// This process's log is not ours: somebody else set one up before, or has ended it.
    NoLog,
}

impl fmt::Display for FilterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            FilterError::Syntax => "not a log filter",
            FilterError::NoLog => "the log of this process is not ours",
        })
    }
}

/// Sets up the log of this process, once.
pub fn start(filter: &str) -> Result<Filter, FilterError> {
    let filter = EnvFilter::try_new(filter).map_err(|_| FilterError::Syntax)?;
    let (filter, handle) = reload::Layer::new(filter);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::registry()
        .with(filter)
        .with(
            lines::layer()
                .compact()
                .with_ansi(colours)
                .with_writer(std::io::stderr),
        )
        .try_init()
        .map_err(|_| FilterError::NoLog)?;
    Ok(Filter(handle))
}

/// Whether the text is a log filter.
pub fn is_filter(text: &str) -> bool {
    let mut words = text.split(',').map(str::trim);
    // A bare word that is no level is taken for a module, and shows nothing: a slip such as `inof` would go unseen.
    let is_meant = |word: &str| {
        word.contains(['=', '[', ':']) || word.starts_with("ringcast") || LevelFilter::from_str(word).is_ok()
    };
    words.all(is_meant) && EnvFilter::try_new(text).is_ok()
}
