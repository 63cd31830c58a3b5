//! Watches the memory in use, and has the cores refuse new connections before the system kills the process
//! for lack of memory.
//!
//! The watch counts what a control group is charged for: the memory of the process, the buffers of TCP
//! sockets, and the kernel's own memory for each socket, which is ten times as much as this server's. If the
//! limit is that of a control group, as in a container, the group reports the sum. Otherwise the watch adds
//! it up, with the TCP buffers of the whole machine, since the system does not report them by process.
//!
//! Limits: `memory_bytes_max`; checked once a second.

use std::fmt;
use std::sync::Arc;

use tracing::{info, warn};

use crate::cores::arrivals::admission::Admission;
use crate::metrics::process;

/// A limit, and the cores' admission that applies it.
pub struct MemoryWatch {
    max_bytes: u64,
    group_used_bytes: Option<Box<GroupUsedBytes>>,
    connection_bytes: u64,
    admission: Arc<Admission>,
}

/// Reads the memory that the control group with the limit is charged for, if the group reports it.
type GroupUsedBytes = dyn Fn() -> Option<u64> + Send + Sync;

impl fmt::Debug for MemoryWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryWatch")
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

impl MemoryWatch {
    /// A watch for this limit. `connection_bytes` is the kernel's own memory for each connection.
    pub(crate) fn new(max_bytes: u64, connection_bytes: u64, admission: Arc<Admission>) -> MemoryWatch {
        MemoryWatch {
            max_bytes,
            group_used_bytes: None,
            connection_bytes,
            admission,
        }
    }

    /// The same watch, but with the use that a control group reports.
    pub(crate) fn of_group(
        self,
        used_bytes: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> MemoryWatch {
        MemoryWatch {
            group_used_bytes: Some(Box::new(used_bytes)),
            ..self
        }
    }

    /// Checks the memory in use, and tells the cores if the result has changed. A part that the system does
    /// not report counts as unused.
    pub(super) fn check(&self, connections: u64) {
        let by_group = self.group_used_bytes.as_ref().and_then(|used_bytes| used_bytes());
        let used = by_group.unwrap_or_else(|| {
            let buffers = process::tcp_buffer_bytes().unwrap_or(0);
            let held = process::resident_bytes().unwrap_or(0).saturating_add(buffers);
            held.saturating_add(connections.saturating_mul(self.connection_bytes))
        });
        let was_full = self.admission.memory_is_full();
        let is_full = is_full(used, self.max_bytes, was_full);
        if is_full == was_full {
            return;
        }
        self.admission.set_memory_is_full(is_full);
        let max = self.max_bytes;
        if is_full {
            warn!(
                used,
                max,
                connections,
                "memory_bytes_max is reached: new connections get status 503 until less memory is in use"
            );
        } else {
            info!(
                used,
                max, connections, "memory is free again: new connections are accepted"
            );
        }
    }
}

/// True if new connections are to be refused: from the limit on, until the use falls below 95 % of it.
fn is_full(used: u64, max: u64, was_full: bool) -> bool {
    let bound = if was_full { max - max / 20 } else { max };
    used >= bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::network::Nat64Prefixes;

    #[test]
    fn connections_are_refused_from_the_limit_on_until_five_percent_are_free() {
        for (used, was_full, expected) in [
            (999, false, false),
            (1000, false, true),
            (1001, true, true),
            (999, true, true),
            (950, true, true),
            (949, true, false),
        ] {
            assert_eq!(is_full(used, 1000, was_full), expected, "{used} {was_full}");
        }
    }

    #[test]
    fn connections_count_as_memory_in_use() {
        let admission = Arc::new(Admission::new(0, Nat64Prefixes::default()));
        let watch = |max, connection| MemoryWatch::new(max, connection, Arc::clone(&admission));
        watch(1 << 50, 4600).check(1000);
        assert!(!admission.memory_is_full());
        watch(1 << 50, 1 << 40).check(1023);
        assert!(!admission.memory_is_full());
        watch(1 << 50, 1 << 40).check(1024);
        assert!(admission.memory_is_full());
        watch(1 << 50, 1 << 40).check(100);
        assert!(!admission.memory_is_full());
        // The group's number is used where it reports one.
        let group = |used| watch(1 << 20, 1 << 40).of_group(move || used);
        group(Some((1 << 20) - 1)).check(1000);
        assert!(!admission.memory_is_full());
        group(Some(1 << 20)).check(0);
        assert!(admission.memory_is_full());
        group(Some(0)).check(1000);
        assert!(!admission.memory_is_full());
        group(None).check(1000);
        assert!(admission.memory_is_full());
        watch(1 << 50, 0).check(0);
        assert!(!admission.memory_is_full());
        // This process alone uses more.
        watch(1, 0).check(0);
        assert!(admission.memory_is_full());
    }
}
