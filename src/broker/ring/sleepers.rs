//! The flags of cores that sleep, for work that reaches a core by other ways than the ring: the letters of
//! other cores.
//!
//! It is the handshake of `ring/mod.rs`, "Sleeping", with a letter in the place of a publication. The sender puts the
//! letter, passes a fence, and looks at the flag. The receiver sets its flag, passes a fence (both in
//! [`Reader::prepare_sleep`](super::Reader::prepare_sleep)), and looks for letters. One of the two fences is first:
//! either the sender sees the flag, or the receiver sees the letter.

use std::sync::Arc;

use super::memory::RingMemory;
use crate::broker::core_set::CoreSet;
use crate::sync::{Ordering, fence};

/// The flags of the cores that sleep.
#[derive(Clone, Debug)]
pub struct Sleepers {
    memory: Arc<RingMemory>,
}

impl Sleepers {
    pub(super) fn new(memory: Arc<RingMemory>) -> Sleepers {
        Sleepers { memory }
    }

    /// The cores, out of `cores`, that the caller must wake: they sleep, or are about to, and no other thread
    /// wakes them. The caller has put work where these cores look for it after
    /// [`Reader::prepare_sleep`](super::Reader::prepare_sleep).
    #[must_use]
    pub fn take_sleeping(&self, cores: CoreSet) -> CoreSet {
        // Pairs with the fence of `Reader::prepare_sleep`.
        fence(Ordering::SeqCst);
        self.memory.take_sleeping(cores)
    }
}
