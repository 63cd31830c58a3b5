//! The bytes that connections hold, each of them and all together: invariant 3 of [`Connections`].

use crate::config::SlowConsumer;
use crate::metrics::block::HeldKind;

use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::outgoing::held_memory::HeldBytes;

use super::Connections;

impl Connections {
    /// Counts again the bytes that a connection holds.
    pub(in crate::cores) fn note_held(&mut self, index: u32) {
        if let Some(connection) = self.slab.get(index as usize) {
            let collected = self.recoveries.bytes_of(index);
            self.held.note(index, connection.holding(collected));
        }
    }

    /// Counts the bytes of a connection again after some of its input was stored or carried out. Does nothing
    /// for a connection that held no input before and holds none now.
    #[inline]
    pub(in crate::cores) fn note_input(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id)
            && (connection.holds_input() || self.held.knows(id.index()))
        {
            self.note_held(id.index());
        }
    }

    /// Sets the metrics of held bytes. Does nothing if no bytes are held and the metrics already say so.
    #[inline]
    pub(super) fn tell_held(&mut self) {
        let is_nothing = self.held.is_empty() && self.queued_bytes == 0 && self.abandoned_bytes == 0;
        if is_nothing && self.nothing_is_told {
            return;
        }
        self.nothing_is_told = is_nothing;
        for (gauge, (_, bytes)) in self.metrics.held_bytes.iter().zip(self.held_by_kind()) {
            gauge.set(bytes as u64);
        }
    }

    /// The bytes that all connections hold together, by kind.
    pub(super) fn held_by_kind(&self) -> [(HeldKind, usize); HeldKind::COUNT] {
        let sums: &HeldBytes = self.held.sums();
        let shared = &self.pool.shared;
        [
            (
                HeldKind::Outboxes,
                self.queued_bytes.saturating_sub(shared.lent_bytes()),
            ),
            (HeldKind::Shared, shared.alone_bytes()),
            (HeldKind::Conflated, self.conflated_bytes),
            (HeldKind::Assemblies, sums.assembly),
            (HeldKind::Leftovers, sums.leftover),
            (HeldKind::Parked, sums.parked),
            (HeldKind::Tls, sums.tls),
            (HeldKind::Collected, sums.collected),
            (HeldKind::Abandoned, self.abandoned_bytes),
        ]
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_by_kind().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Whether all connections together hold more than they may.
    #[inline]
    pub(in crate::cores) fn hold_too_much(&self) -> bool {
        self.held_bytes() > self.held.bytes_max
    }

    /// Whether connections have to be closed because all together hold too much. With the policies `skip` and
    /// `conflate`, closing begins an eighth above the limit, since publications are left out first. If no
    /// connection waits, there is none to close.
    #[inline]
    pub(in crate::cores) fn must_shed(&self) -> bool {
        !self.held.is_empty() && self.holds_too_much_to_leave_out()
    }

    pub(super) fn holds_too_much_to_leave_out(&self) -> bool {
        let held_bytes = self.held_bytes();
        let max = self.held.bytes_max;
        held_bytes > max
            && match self.slow_consumer {
                SlowConsumer::Close => true,
                SlowConsumer::Skip | SlowConsumer::Conflate => held_bytes - max > max / 8,
            }
    }

    /// Whether connections still have to be closed because all together hold too much.
    pub(in crate::cores) fn is_shedding(&self) -> bool {
        self.must_shed() && self.holds_most().is_some()
    }

    /// Whether enough connections have been closed: the bytes held are a sixteenth below the limit.
    pub(in crate::cores) fn has_shed(&self) -> bool {
        let max = self.held.bytes_max;
        self.held_bytes() <= max - max / 16
    }

    /// A connection that holds most.
    pub(in crate::cores) fn holds_most(&self) -> Option<ConnectionId> {
        self.held.most().and_then(|index| self.id_at(index))
    }
}
