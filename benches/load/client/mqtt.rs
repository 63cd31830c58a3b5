//! A client that speaks MQTT.
//!
//! A publisher's publications with QoS 1 or 2 are calls, which their PUBACK or PUBCOMP answers; all others call only
//! PINGREQ. So `in_flight` counts the answers that the run must wait for, as with the other protocol.

use super::super::crowd::Role;
use super::super::mqtt::wire::{self, Kind, Packet};
use super::super::mqtt::{Qos, Speech};
use super::super::wire::Publication;
use super::{Client, Ended, Shared, Stage};

pub(super) fn connect(out: &mut Vec<u8>, number: u32, role: Role, group: u32, speech: &Speech) {
    // Publishers do not ping, so they have no keep alive.
    let keep_alive_s = match role {
        Role::Publisher => 0,
        Role::Subscriber(_) | Role::Plain => speech.keep_alive_s,
    };
    wire::connect(out, group, number, keep_alive_s, speech);
}

pub(super) fn ping(out: &mut Vec<u8>) {
    wire::ping(out);
}

pub(super) fn disconnect(out: &mut Vec<u8>) {
    wire::disconnect(out);
}

impl Client {
    pub(super) fn publish_packet(
        &mut self,
        publication: &Publication,
        speech: &Speech,
        shared: &mut Shared<'_>,
    ) {
        let id = (speech.qos != Qos::Zero).then(|| {
            self.take_cid();
            let rest = self.rest.get_or_insert_default();
            rest.flow.get_or_insert_default().begin()
        });
        wire::publish(shared.outbox, publication, id, &shared.crowd.pad, speech);
    }

    /// Handles whole packets; returns their length in bytes.
    pub(super) fn take_packets(
        &mut self,
        bytes: &[u8],
        speech: &Speech,
        shared: &mut Shared<'_>,
    ) -> Result<usize, Ended> {
        let mut taken = 0;
        loop {
            let packet = wire::packet(&bytes[taken..], &shared.crowd.pad, speech);
            let Some((packet, length)) = packet.map_err(|text| self.fault(&text))? else {
                return Ok(taken);
            };
            taken += length;
            self.take_packet(packet, speech, shared)?;
        }
    }

    fn take_packet(&mut self, packet: Packet, speech: &Speech, shared: &mut Shared<'_>) -> Result<(), Ended> {
        match (packet, self.stage) {
            (
                Packet::ConnAck {
                    session_present: false,
                },
                Stage::Handshaking,
            ) => {
                if let Role::Subscriber(channel) = self.role {
                    self.stage = Stage::Subscribing;
                    wire::subscribe(shared.outbox, channel, speech);
                } else {
                    self.opened(shared);
                }
                Ok(())
            }
            (Packet::SubAck, Stage::Subscribing) => {
                self.opened(shared);
                Ok(())
            }
            (Packet::Pong, Stage::Open | Stage::Closing) if self.in_flight() > 0 => {
                self.awaited += 1;
                self.note_pong(shared);
                Ok(())
            }
            (Packet::Publish { id, publication }, Stage::Open | Stage::Subscribing | Stage::Closing) => {
                self.take_publication(&publication, shared)?;
                if id != 0 {
                    let rest = self.rest.get_or_insert_default();
                    let flow = rest.flow.get_or_insert_default();
                    let answered = flow.delivered(speech.qos, id, shared.outbox);
                    answered.map_err(|text| self.fault(&text))?;
                }
                Ok(())
            }
            (Packet::Answer { kind, id }, Stage::Open | Stage::Closing) => {
                self.take_answer(kind, id, speech, shared)
            }
            (Packet::Disconnect(reason), _) => Err(self.ended(Some(reason.into()))),
            (packet, _) => Err(self.fault(&format!("{packet:?}"))),
        }
    }

    fn take_answer(
        &mut self,
        kind: Kind,
        id: u16,
        speech: &Speech,
        shared: &mut Shared<'_>,
    ) -> Result<(), Ended> {
        let rest = self.rest.get_or_insert_default();
        let flow = rest.flow.get_or_insert_default();
        let completed = flow.answered(kind, id, speech.qos, shared.outbox);
        if completed.map_err(|text| self.fault(&text))? {
            self.awaited += 1;
        }
        Ok(())
    }

    fn fault(&self, text: &str) -> Ended {
        Ended::Fault(format!("client {} while {:?}: {text}", self.number, self.stage))
    }
}
