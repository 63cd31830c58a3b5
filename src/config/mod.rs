//! What an operator can set.

pub mod limits;
