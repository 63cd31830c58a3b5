//! The packet identifiers of QoS 2 publications that a client has sent and not released: a publication that
//! comes with one of them is a repetition (section 4.3.3, method B: a publication is published at once, and
//! its identifier kept).
//!
//! The client chooses these identifiers. They have nothing to do with those that the server gives (`outgoing.rs`).

/// The outcome of a QoS 2 publication that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The publication is to be published.
    New,
    /// The publication was published before: it is only acknowledged again.
    Duplicate,
}

/// The identifiers, ascending.
#[derive(Debug, Default)]
pub(super) struct IncomingIds(Vec<u16>);

impl IncomingIds {
    /// Notes the identifier of a publication.
    pub(super) fn receive(&mut self, packet_id: u16) -> Incoming {
        match self.0.binary_search(&packet_id) {
            Ok(_) => Incoming::Duplicate,
            Err(at) => {
                self.0.insert(at, packet_id);
                Incoming::New
            }
        }
    }

    /// Whether a publication with this identifier has come and is not released.
    pub(super) fn has(&self, packet_id: u16) -> bool {
        self.0.binary_search(&packet_id).is_ok()
    }

    /// PUBREL: the identifier is free again. `false` if it was.
    pub(super) fn release(&mut self, packet_id: u16) -> bool {
        let found = self.0.binary_search(&packet_id);
        if let Ok(at) = found {
            self.0.remove(at);
        }
        if self.0.is_empty() && self.0.capacity() > IDS_KEPT_MAX {
            self.0 = Vec::new();
        }
        found.is_ok()
    }

    /// The identifiers that a session has had before.
    pub(super) fn restored(mut ids: Vec<u16>) -> IncomingIds {
        ids.sort_unstable();
        IncomingIds(ids)
    }

    /// The identifiers, ascending.
    pub(super) fn all(&self) -> &[u16] {
        &self.0
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

const IDS_KEPT_MAX: usize = 16;
