//! The packet identifiers of one connection with QoS 1 or 2, and the answers that they need.
//!
//! ```text
//!   QoS 1   PUBLISH ─► PUBACK
//!   QoS 2   PUBLISH ─► PUBREC ─► PUBREL ─► PUBCOMP
//! ```
//!
//! Both directions have identifiers of their own. An answer must have the oldest identifier that waits for it: MQTT
//! 3.1.1 section 4.6 requires this order of receivers for PUBACK and PUBREC and of senders for PUBREL; PUBCOMPs
//! follow from it.

use std::collections::VecDeque;

use super::Qos;
use super::wire::{self, Kind};

/// The publications of one connection that are not complete.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// The last identifier of an own publication.
    last: u16,
    /// Own publications without PUBACK or PUBREC.
    sent: VecDeque<u16>,
    /// Own publications with PUBREC and without PUBCOMP.
    released: VecDeque<u16>,
    /// Received publications with QoS 2 without PUBREL.
    held: VecDeque<u16>,
}

impl Flow {
    /// The identifier of a new publication.
    pub(crate) fn begin(&mut self) -> u16 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.sent.push_back(self.last);
        self.last
    }

    /// Answers a publication of the server with this identifier.
    pub(crate) fn delivered(&mut self, qos: Qos, id: u16, out: &mut Vec<u8>) -> Result<(), String> {
        match qos {
            Qos::Zero => {}
            Qos::One => wire::acknowledge(out, Kind::Ack, id),
            Qos::Two => {
                if self.held.contains(&id) {
                    return Err(format!("a second PUBLISH with identifier {id} before its PUBREL"));
                }
                self.held.push_back(id);
                wire::acknowledge(out, Kind::Received, id);
            }
        }
        Ok(())
    }

    /// Handles an answer of the server; true if it completes a publication of this client.
    pub(crate) fn answered(
        &mut self,
        kind: Kind,
        id: u16,
        qos: Qos,
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        let queue = match (kind, qos) {
            (Kind::Ack, Qos::One) | (Kind::Received, Qos::Two) => &mut self.sent,
            (Kind::Complete, Qos::Two) => &mut self.released,
            (Kind::Release, Qos::Two) => &mut self.held,
            _ => return Err(format!("an answer {kind:?} in a run with QoS {}", qos.level())),
        };
        match queue.pop_front() {
            Some(due) if due == id => {}
            due => return Err(format!("an answer {kind:?} for identifier {id}, due was {due:?}")),
        }
        match kind {
            Kind::Ack | Kind::Complete => Ok(true),
            Kind::Received => {
                self.released.push_back(id);
                wire::acknowledge(out, Kind::Release, id);
                Ok(false)
            }
            Kind::Release => {
                wire::acknowledge(out, Kind::Complete, id);
                Ok(false)
            }
        }
    }
}
