//! Acknowledgements: with a reason in words if the client wants reasons (MQTT-3.1.2-29) and takes a packet of that size
//! (MQTT-3.4.2-2, MQTT-3.9.2-1 and the like).

use super::{Open, Refused, Session, State};
use crate::decision::{Decision, Decisions, Span};
use crate::mqtt::encode::{self, AckKind};
use crate::mqtt::packet::PacketId;
use crate::mqtt::publication::client_hash;
use crate::mqtt::{ReasonCode, Sessions, Version};

impl Session {
    /// Decides to send an acknowledgement, unless the client takes no packet of its size.
    pub(super) fn answer(
        &self,
        kind: AckKind,
        id: PacketId,
        refusal: Option<Refused>,
        decisions: &mut Decisions,
    ) {
        let message = self.write_answer(kind, id, refusal, decisions);
        if !message.is_empty() {
            decisions.push(Decision::Send { message });
        }
    }

    /// Writes an acknowledgement; nothing if the client takes no packet of its size.
    #[inline]
    pub(super) fn write_answer(
        &self,
        kind: AckKind,
        id: PacketId,
        refusal: Option<Refused>,
        decisions: &mut Decisions,
    ) -> Span {
        let State::Open(open) = &self.state else {
            return decisions.write(|_| {});
        };
        let code = refusal.map_or(ReasonCode::Success, |refusal| refusal.code);
        decisions.write(|out| {
            open.write_explained(refusal.map(|refusal| refusal.text), out, |text, out| {
                encode::ack(out, open.version, kind, id, code, text);
            });
        })
    }
}

impl Open {
    /// The hash of the client id, by which retained publications identify their publisher.
    pub(super) fn client_hash(&mut self, sessions: &Sessions) -> u64 {
        let known = self.extras().map_or(0, |extras| extras.client_hash);
        if known == 0
            && let Some(client_id) = sessions.client_id(self.session)
        {
            let hash = client_hash(client_id);
            self.extras_mut().client_hash = hash;
            return hash;
        }
        known
    }

    /// Calls `write` to write a packet with a reason in words, or without it if the client does not want it
    /// or the packet would be too large for the client. If even that packet is too large, as an answer to
    /// many filters may be, writes nothing (MQTT-3.1.2-24): such a packet is not sent.
    pub(super) fn write_explained(
        &self,
        text: Option<&str>,
        out: &mut Vec<u8>,
        write: impl Fn(Option<&str>, &mut Vec<u8>),
    ) {
        let text = text.filter(|_| self.explains && self.version == Version::V5);
        let start = out.len();
        write(text, out);
        let is_too_large = |out: &[u8]| out.len() - start > self.packet_bytes_max as usize;
        if text.is_some() && is_too_large(out) {
            out.truncate(start);
            write(None, out);
        }
        if is_too_large(out) {
            out.truncate(start);
        }
    }
}
