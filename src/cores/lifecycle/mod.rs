//! One connection: its phases, its deadlines, what is counted of it, and its end.

pub(crate) mod connection;
pub(crate) mod ending;
pub(crate) mod meter;
pub(crate) mod tally;
pub(crate) mod wheel;
