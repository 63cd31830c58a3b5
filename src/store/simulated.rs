//! A strict store without a thread and without a file, for simulations: it commits when the simulation says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, bounded};

use super::BATCHES_WAITING_MAX;
use super::records::Record;
use super::shared::{Shared, Wake};
use super::sink::Sink;
use super::writer::Sent;
use crate::config::StoreMode;

/// The store of the cores of a simulation.
#[derive(Debug)]
pub(crate) struct SimulatedStore {
    inbox: Receiver<Sent>,
    shared: Arc<Shared>,
    /// The client ids of the MQTT sessions that are committed.
    sessions: BTreeSet<Vec<u8>>,
}

impl SimulatedStore {
    /// A store, and a sink for each core.
    pub(crate) fn new(cores: usize) -> (SimulatedStore, Vec<Sink>) {
        let shared = Arc::new(Shared::new(cores));
        let (outbox, inbox) = bounded(BATCHES_WAITING_MAX);
        let sink = |core| {
            let (outbox, shared) = (outbox.clone(), Arc::clone(&shared));
            Sink::new(core, StoreMode::Strict, outbox, shared, 1 << 20)
        };
        let sinks = (0..cores).map(sink).collect();
        let store = SimulatedStore {
            inbox,
            shared,
            sessions: BTreeSet::new(),
        };
        (store, sinks)
    }

    /// Sets how cores are woken.
    pub(crate) fn set_wake(&self, wake: Wake) {
        self.shared.set_wake(wake);
    }

    /// Commits the records that have come. Returns whether there were any.
    pub(crate) fn commit(&mut self) -> bool {
        let mut has_come = false;
        while let Ok(sent) = self.inbox.try_recv() {
            has_come = true;
            for record in sent.batch.records() {
                match record {
                    Record::SessionItem { client_id, .. } => {
                        self.sessions.insert(client_id.to_vec());
                    }
                    Record::SessionGone { client_id } => {
                        self.sessions.remove(client_id);
                    }
                    Record::SessionItemGone { .. }
                    | Record::Publication { .. }
                    | Record::Forgotten { .. }
                    | Record::Removed { .. }
                    | Record::UnknownChannels { .. }
                    | Record::Will { .. }
                    | Record::WillGone { .. }
                    | Record::Retained { .. }
                    | Record::Held { .. }
                    | Record::Released { .. }
                    | Record::Unknown { .. } => {}
                }
            }
            self.shared.note_committed(sent.core, sent.batch.through());
            self.shared.note_read(sent.core, sent.read);
            self.shared.cores[sent.core]
                .done_bytes
                .fetch_add(sent.batch.len() as u64, Ordering::Relaxed);
        }
        if has_come {
            self.shared.wake_waiting();
        }
        has_come
    }

    /// Whether the MQTT session of a client is committed.
    pub(crate) fn has_session(&self, client_id: &str) -> bool {
        self.sessions.contains(client_id.as_bytes())
    }
}
