//! The kinds of letters.
//!
//! Each kind says how many letters of it a core may have to keep while the box of a core is full, and what becomes of
//! it if the receiver has stopped.

use crate::cores::CoreId;

/// A letter from one core to another.
#[derive(Debug)]
pub(crate) enum Letter {
    /// The last letter of this core: it has stopped. The receiver drops what it has kept for that core, and gives up
    /// what waits for an answer of it. Never kept: each box has a slot for it.
    Stopped(CoreId),
}

/// A letter is moved into its slot: what is larger is boxed by its sender.
const _: () = assert!(size_of::<Letter>() <= 64);
