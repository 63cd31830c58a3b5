//! One connection: its phases, its deadlines, what is counted of it, and its end.

pub(crate) mod audit_trail;
pub(crate) mod connection;
pub(crate) mod counts;
pub(crate) mod ending;
pub(crate) mod ends;
pub(crate) mod meter;
pub(crate) mod reading;
pub(crate) mod shedding;
pub(crate) mod tally;
pub(crate) mod waiting;
pub(crate) mod wheel;
