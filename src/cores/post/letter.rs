//! The kinds of letters.
//!
//! Each kind says how many letters of it a core may have to keep while the box of a core is full, and what becomes of
//! it if the receiver has stopped.

use crate::app::SessionId;
use crate::wills::{SessionKey, Will};

use crate::cores::CoreId;

/// A letter from one core to another.
#[derive(Debug)]
pub(crate) enum Letter {
    /// The last letter of this core: it has stopped. The receiver drops what it has kept for that core, and gives up
    /// what waits for an answer of it. Never kept: each box has a slot for it.
    Stopped(CoreId),
    /// News of a session with a will, for the owner of its key. Kept: one for each such will, when it is taken
    /// back or its connection ends; a new will is refused meanwhile (`input/wills.rs`). If the receiver has stopped, its clients go as well, and the will is dropped with it.
    Will(Box<WillLetter>),
}

/// News of a session with a will.
#[derive(Debug)]
pub(crate) struct WillLetter {
    pub(crate) key: SessionKey,
    /// The connection that uses the key.
    pub(crate) generation: SessionId,
    pub(crate) news: WillNews,
}

/// What has become of a connection that uses the key of a session.
#[derive(Debug)]
pub(crate) enum WillNews {
    /// It has begun to use the key, or uses it again.
    Claimed,
    /// It no longer uses the key.
    Released,
    /// It has ended and leaves a will.
    Ended(Will),
}

/// A letter is moved into its slot: what is larger is boxed by its sender.
const _: () = assert!(size_of::<Letter>() <= 64);
