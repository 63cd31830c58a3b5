//! Checks the invariants of the table. Simulations call it between turns.

use super::{Connections, Lane};
use crate::config::SlowConsumer;
use crate::cores::lifecycle::connection::Phase;
use crate::cores::lifecycle::reading::Why;

impl Connections {
    /// The first broken invariant, in words; `None` if all hold.
    pub(in crate::cores) fn broken_invariant(&self) -> Option<String> {
        let (mut queued, mut unflushed, mut conflated) = (0, 0, 0);
        for (index, connection) in self.slab.iter() {
            let outbox = &connection.outbox;
            queued += outbox.len();
            conflated += outbox.conflated_bytes();
            if !outbox.is_blocked() {
                unflushed += outbox.len();
            }
            let collected = self.recoveries.bytes_of(connection.id.index());
            let (held, known) = (connection.holding(collected), self.held.of(connection.id.index()));
            if held != known {
                return Some(format!("connection {index} holds {held:?}, counted {known:?}"));
            }
            let is_emptying = matches!(connection.phase, Phase::Emptying { .. });
            let waits_for_decision =
                matches!(&connection.phase, Phase::Open(open) if open.session.is_waiting());
            let is_over_rate = connection.meter.as_ref().is_some_and(|meter| meter.is_paused());
            for (why, is_one) in [
                (Why::Emptying, is_emptying),
                (Why::Rate, is_over_rate),
                (Why::Work, connection.suspended.is_some()),
                (Why::Ending, false),
                (Why::Decision, waits_for_decision),
            ] {
                if connection.reading.is_paused_by(why) != is_one {
                    return Some(format!("connection {index}, {why:?}: {:?}", connection.reading));
                }
            }
            if connection.reading.is_paused_by(Why::Replies) && outbox.len() <= self.outbox_bytes_max / 2 {
                return Some(format!("connection {index} has sent its replies and is not read"));
            }
            let listed = match connection.lane {
                Lane::Idle => outbox.is_empty() || outbox.is_blocked(),
                Lane::Batch => self
                    .batches
                    .as_ref()
                    .is_some_and(|batches| batches.has(connection.id)),
                Lane::Bulk => self.bulk.iter().any(|&place| place as usize == index),
                Lane::Prompt => self.prompt.iter().any(|&place| place as usize == index),
            };
            if !listed {
                return Some(format!(
                    "connection {index} waits in no list: {:?}, {outbox:?}",
                    connection.lane
                ));
            }
            if outbox.conflated_bytes() > 0 && self.slow_consumer != SlowConsumer::Conflate {
                return Some(format!("connection {index} conflates by no policy"));
            }
            if outbox.conflated().is_some() && !matches!(connection.phase, Phase::Open(_)) {
                return Some(format!("connection {index} has ended and still conflates"));
            }
        }
        let held: usize = self.slab.iter().map(|(_, one)| one.outbox.spans_held()).sum();
        let held = held + self.under_way.iter().flatten().count();
        let held = held + self.mqtt_walk.as_ref().map_or(0, |walk| walk.spans_held());
        if held != self.pool.shared.held() {
            return Some(format!(
                "{held} hold publications, counted {}",
                self.pool.shared.held()
            ));
        }
        let lent: usize = self.slab.iter().map(|(_, one)| one.outbox.shared_bytes()).sum();
        if lent != self.pool.shared.lent_bytes() {
            return Some(format!(
                "{lent} bytes are shared, counted {}",
                self.pool.shared.lent_bytes()
            ));
        }
        let kept = (self.queued_bytes, self.unflushed_bytes, self.conflated_bytes);
        if kept != (queued, unflushed, conflated) {
            return Some(format!(
                "counted {kept:?}, there are {:?}",
                (queued, unflushed, conflated)
            ));
        }
        if !self.blocked.is_empty() {
            return Some("nobody watches a socket that was found full".to_owned());
        }
        (!self.ending.is_empty())
            .then(|| "a connection was found to have ended, and is still there".to_owned())
    }
}
