//! The values that a core lends a SocketCluster session for one call.

use super::settings::SocketClusterSettings;
use crate::app::App;
use crate::session;

/// The values that a core lends a SocketCluster session for one call.
#[derive(Debug)]
pub struct Environment<'e, 'a, A: App> {
    /// The values that a core lends sessions of every protocol.
    pub common: &'e mut session::Environment<'a, A>,
    /// The settings of SocketCluster alone.
    pub settings: &'e SocketClusterSettings,
    /// The buffers of SocketCluster alone.
    pub scratch: &'e mut Scratch,
}

/// The buffers that a core keeps for its SocketCluster sessions.
#[derive(Default)]
pub struct Scratch {
    /// Data that had to be changed in passing.
    pub(super) rewritten: Vec<u8>,
}

impl Scratch {
    /// Before a packet is handled: gives back the memory that the largest one took.
    #[inline]
    pub(super) fn begin(&mut self) {
        if self.rewritten.capacity() > BYTES_KEPT_MAX {
            self.rewritten = Vec::new();
        }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its contents are clients' data.
        formatter.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// A buffer that grew past this gives its memory back.
const BYTES_KEPT_MAX: usize = 256 * 1024;
