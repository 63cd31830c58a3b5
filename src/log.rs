//! Log lines: levels, filters, and what is said at the start.
//!
//! Lines go to standard error. `info` is a handful of lines a day; connections are at `debug`.

use std::fmt;
use std::net::SocketAddr;

use tracing::info;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines, reload};

use crate::config::{Config, FdTables};
use crate::keys::KeySource;

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
    EnvFilter::try_new(text).is_ok()
}

/// Says what has been started: addresses as bound, the CPU of each core, and where keys are from.
pub fn announce(
    config: &Config,
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    placement: &[usize],
    keys: KeySource,
) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        "ringcast serves ws://{listen}{}, protocol {:?}", config.path, config.protocol
    );
    match admin {
        Some(admin) => info!("control plane on http://{admin}/"),
        None => info!("control plane off"),
    }
    match config.fd_tables {
        FdTables::Auto => info!("{} cores on CPUs {placement:?}", placement.len()),
        FdTables::Shared => info!(
            "{} cores on CPUs {placement:?}, one descriptor table",
            placement.len()
        ),
    }
    match keys {
        KeySource::Random => {
            info!("tokens: a random key, so they end with this process")
        }
        KeySource::Shared => info!("tokens: the key auth_key"),
        KeySource::Files => info!("tokens: the keys of auth_private_key_file and auth_public_key_file"),
        KeySource::PublicFile => {
            info!("tokens: the key of auth_public_key_file, which can check but not sign")
        }
    }
    let limits = &config.limits;
    info!(
        message_bytes_max = limits.message_bytes_max,
        outbox_bytes_max = limits.outbox_bytes_max,
        channels_per_connection_max = limits.channels_per_connection_max,
        connections_per_core_max = limits.connections_per_core_max,
        ring_slots = limits.ring_slots,
        ring_bytes_max = limits.ring_bytes_max,
        "limits",
    );
}
