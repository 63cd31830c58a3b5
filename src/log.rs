//! The log: levels and filters, lines as text or JSON, and their way to standard error.
//!
//! `info` is for a handful of lines a day, and connections are logged at `debug`. The target
//! `ringcast::audit` is the audit trail.
//!
//! Threads that log never wait. The filter decides without a lock whether a line is wanted, and is replaced
//! as a whole. The line is formatted on the thread that logs it, and queued for a thread that writes
//! (`log/lines.rs`). If the reader of standard error stops reading, lines are dropped and counted
//! (`ringcast_log_lines_dropped_total`), and the log reports that once there is room again.
//!
//! At the end of the process [`flush`] waits for the reader, for a bounded time.

mod lines;

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber, callsite, error, warn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt as formats};

use lines::{Importance, Lines};

/// The filter of this process's log, which can be replaced at any time.
#[derive(Clone)]
pub struct Filter(Arc<ArcSwap<EnvFilter>>);

impl Filter {
    /// Replaces the filter.
    pub fn replace(&self, filter: &str) -> Result<(), FilterError> {
        self.0.store(Arc::new(parse(filter)?));
        // Makes all log statements ask the new filter.
        callsite::rebuild_interest_cache();
        Ok(())
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Filter").finish_non_exhaustive()
    }
}

/// Why a filter cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// The text is not a filter.
    Syntax,
    /// Another part of the process has already set up a log, or the system refuses a thread.
    NoLog,
}

impl fmt::Display for FilterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            FilterError::Syntax => "not a log filter",
            FilterError::NoLog => {
                "the log cannot be set up: this process already has another, or the system refuses a thread"
            }
        })
    }
}

impl std::error::Error for FilterError {}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// For machines: one object with `timestamp`, `level`, `target`, `message` and the fields.
    Json,
}

/// Sets up the log of this process, once.
pub fn start(filter: &str, format: Format) -> Result<Filter, FilterError> {
    let filter = Filter(Arc::new(ArcSwap::from_pointee(parse(filter)?)));
    let to = LineQueue(lines().ok_or(FilterError::NoLog)?);
    let registry = tracing_subscriber::registry().with(CurrentFilter(filter.clone()));
    let started = match format {
        Format::Text => {
            let lines = formats::layer().compact().with_ansi(io::stderr().is_terminal());
            registry.with(lines.with_writer(to)).try_init()
        }
        Format::Json => {
            let lines = formats::layer().json().flatten_event(true);
            let lines = lines.with_current_span(false).with_span_list(false);
            registry.with(lines.with_writer(to)).try_init()
        }
    };
    started.map_err(|_| FilterError::NoLog)?;
    Ok(filter)
}

/// Logs panics, instead of Rust's default output to standard error, which could block. With `RUST_BACKTRACE`
/// the line contains the backtrace.
pub fn report_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let thread = thread.name().unwrap_or("without a name");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        let backtrace = std::backtrace::Backtrace::capture();
        match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => {
                error!("thread {thread:?} panicked at {place}: {message}\n{backtrace}");
            }
            _ => error!("thread {thread:?} panicked at {place}: {message}"),
        }
    }));
}

/// How many lines have been dropped because nothing read the lines before them.
pub fn lines_dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

/// Waits until all lines are written, but for at most a second without any progress, or a tenth of a second
/// if the process is to end at once.
pub fn flush(ending: Ending) {
    if let Some(lines) = LINES.get() {
        lines.flush(ending.without_progress(), FLUSH_MAX);
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order.
    Orderly,
    /// At once, such as at a second signal.
    AtOnce,
}

impl Ending {
    fn without_progress(self) -> Duration {
        match self {
            Ending::Orderly => Duration::from_secs(1),
            Ending::AtOnce => Duration::from_millis(100),
        }
    }
}

/// Writes the last message of a process to standard error, after all lines of the log. It waits for a
/// terminal without limit, as every program does, and for other readers only as long as [`flush`] does.
pub fn final_message(text: &str) {
    match lines() {
        Some(lines) if !io::stderr().is_terminal() => {
            lines.push(text.as_bytes(), Importance::Notice);
            flush(Ending::Orderly);
        }
        Some(_) | None => {
            flush(Ending::Orderly);
            // If standard error is closed, the message is lost.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}

/// True if the text is a log filter.
pub fn is_filter(text: &str) -> bool {
    let mut words = text.split(',').map(str::trim);
    // A single word that is not a level would be taken as a module and show nothing, so a typing error such
    // as `inof` is refused.
    let is_meant = |word: &str| {
        word.contains(['=', '[', ':']) || word.starts_with("ringcast") || LevelFilter::from_str(word).is_ok()
    };
    words.all(is_meant) && EnvFilter::try_new(text).is_ok()
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(filter).map_err(|_| FilterError::Syntax)
}

/// The lines of this process; `None` if the system refuses a thread to write them.
fn lines() -> Option<&'static Lines> {
    if LINES.get().is_none() {
        // Uses a descriptor of its own: `io::stderr` has a lock, and other threads that use it would wait for
        // the reader too.
        let out: Box<dyn Write + Send> = match io::stderr().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Box::new(File::from(descriptor)),
            Err(_) => Box::new(io::sink()),
        };
        // If two threads start at the same time, the second uses the first one's writer and drops its own.
        let _ = LINES.set(Lines::start(out, log_dropped).ok()?);
    }
    LINES.get()
}

/// The writer of this process; there is only one standard error.
static LINES: OnceLock<Lines> = OnceLock::new();

fn log_dropped(count: u64) {
    warn!(
        target: NOTICE,
        count,
        "log lines were dropped, since standard error was not read fast enough"
    );
}

const NOTICE: &str = "ringcast::log::dropped";

/// The layer that asks the current filter, without taking a lock.
struct CurrentFilter(Filter);

impl<S: Subscriber> Layer<S> for CurrentFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        Layer::<S>::register_callsite(&**self.0.0.load(), metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Layer::<S>::max_level_hint(&**self.0.0.load())
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.0.0.load().enabled(metadata, context)
    }

    // The remaining methods are for filters by spans, which applications may use.
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.0.load().on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.0.load().on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.0.0.load().on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.0.0.load().on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.0.0.load().on_close(id, context);
    }
}

/// Passes finished lines to the queue.
#[derive(Clone, Copy)]
struct LineQueue(&'static Lines);

/// The destination of one line.
struct QueuedLine {
    lines: &'static Lines,
    importance: Importance,
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = QueuedLine;

    fn make_writer(&'a self) -> QueuedLine {
        QueuedLine {
            lines: self.0,
            importance: Importance::Ordinary,
        }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> QueuedLine {
        let importance = if line.target() == NOTICE {
            Importance::Notice
        } else if *line.level() > Level::INFO {
            Importance::Detail
        } else {
            Importance::Ordinary
        };
        QueuedLine {
            lines: self.0,
            importance,
        }
    }
}

impl Write for QueuedLine {
    /// A whole line: the formatter writes it with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.push(line, self.importance);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The longest time that the end of the process waits, even if the reader makes steady progress.
const FLUSH_MAX: Duration = Duration::from_secs(5);
