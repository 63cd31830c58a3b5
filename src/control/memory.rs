//! Watches the memory in use, and has cores refuse newcomers before the system ends the process for it.
//!
//! What counts is what a control group is charged for: what the process holds, the buffers of TCP sockets, and the
//! kernel's own for each socket, which is ten times as much as this server's. Where the limit is that of a control group,
//! as in a container, the group says so itself. Elsewhere it is added up; the buffers are then those of the machine, since
//! no process is told its own.
//!
//! Limits: `memory_bytes_max`; looked at once a second.

use std::fmt;
use std::sync::Arc;

use tracing::{info, warn};

use crate::cores::arrivals::admission::Admission;
use crate::metrics::process;

/// A limit and who is told about it.
pub struct MemoryWatch {
    max_bytes: u64,
    group_used_bytes: Option<Box<GroupUsedBytes>>,
    connection_bytes: u64,
    admission: Arc<Admission>,
}

/// What the control group with the limit is charged for, if it says so.
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
    /// Of so many bytes, of which the kernel takes so many for each connection.
    pub(crate) fn new(max_bytes: u64, connection_bytes: u64, admission: Arc<Admission>) -> MemoryWatch {
        MemoryWatch {
            max_bytes,
            group_used_bytes: None,
            connection_bytes,
            admission,
        }
    }

    /// The same, by what a control group says that it uses.
    pub(crate) fn of_group(
        self,
        used_bytes: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> MemoryWatch {
        MemoryWatch {
            group_used_bytes: Some(Box::new(used_bytes)),
            ..self
        }
    }

    /// Looks, and tells the cores if something has changed. What the system does not say is not in use.
    pub(super) fn look(&self, connections: u64) {
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
                "memory_bytes_max is reached: new connections are answered 503 until less is in use"
            );
        } else {
            info!(
                used,
                max, connections, "memory is free again: new connections are let in"
            );
        }
    }
}

/// Whether newcomers are refused: from the limit on, and then until 95 % of it.
fn is_full(used: u64, max: u64, was_full: bool) -> bool {
    let bound = if was_full { max - max / 20 } else { max };
    used >= bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::network::Nat64Prefixes;

    #[test]
    fn newcomers_are_refused_from_the_limit_on_until_a_part_is_free() {
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
    fn what_is_in_use_decides_and_connections_are_part_of_it() {
        let admission = Arc::new(Admission::new(0, Nat64Prefixes::default()));
        let watch = |max, connection| MemoryWatch::new(max, connection, Arc::clone(&admission));
        watch(1 << 50, 4600).look(1000);
        assert!(!admission.memory_is_full());
        watch(1 << 50, 1 << 40).look(1023);
        assert!(!admission.memory_is_full());
        watch(1 << 50, 1 << 40).look(1024);
        assert!(admission.memory_is_full());
        watch(1 << 50, 1 << 40).look(100);
        assert!(!admission.memory_is_full());
        // What the group says counts, where it says something.
        let group = |used| watch(1 << 20, 1 << 40).of_group(move || used);
        group(Some((1 << 20) - 1)).look(1000);
        assert!(!admission.memory_is_full());
        group(Some(1 << 20)).look(0);
        assert!(admission.memory_is_full());
        group(Some(0)).look(1000);
        assert!(!admission.memory_is_full());
        group(None).look(1000);
        assert!(admission.memory_is_full());
        watch(1 << 50, 0).look(0);
        assert!(!admission.memory_is_full());
        // This process alone has more.
        watch(1, 0).look(0);
        assert!(admission.memory_is_full());
    }
}
