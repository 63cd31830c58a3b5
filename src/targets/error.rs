//! Why another server has not answered.

use std::fmt;
use std::io;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The other server cannot be reached.
    Unreachable(io::Error),
    /// Its answer is not valid HTTP/1.1.
    Http(hyper::Error),
    /// The body of the answer is larger than the caller allows.
    TooLarge,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Unreachable(error) => write!(formatter, "cannot be reached: {error}"),
            ExchangeError::Http(error) => write!(formatter, "no HTTP answer: {error}"),
            ExchangeError::TooLarge => formatter.write_str("the answer is too large"),
        }
    }
}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> ExchangeError {
        ExchangeError::Unreachable(error)
    }
}

impl From<hyper::Error> for ExchangeError {
    fn from(error: hyper::Error) -> ExchangeError {
        ExchangeError::Http(error)
    }
}
