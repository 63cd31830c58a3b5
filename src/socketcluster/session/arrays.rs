//! Arrays of packets, handled in parts, so that a long array takes no more of a turn than as many messages
//! would.
//!
//! ```text
//!  message ──► decode ──► Long ──► receive_more … ──► Many ──► some packets ──► receive_more … ──► the last packet
//!                          checked in parts                     handled in parts
//! ```
//! The packets of one part are handled like one message: their answers come first, then the other packets
//! that the application sends. A part ends with the first packet at which one of its limits is reached. The
//! session keeps the rest of the array, and [`Session::has_more`] says so. The core takes no other input of
//! this connection until [`Session::receive_more`] has handled everything, so packets are handled in the
//! order of their arrival. If the connection ends before that, the rest is dropped, like messages that were
//! not read.
//!
//! Limits: `session::Environment::packets_max`, [`PART_BYTES_MAX`], [`PART_DECIDED_BYTES_MAX`] and
//! `VERIFICATIONS_PER_PART` for a part.

use super::tokens::VERIFICATIONS_PER_PART;
use super::{Environment, Session};
use crate::app::App;
use crate::decision::{CloseReason, Decisions, Limit};
use crate::socketcluster::decode::{Decoded, Packets, ResumePoint, resume};
use crate::socketcluster::packet::Packet;

/// The rest of an array.
#[derive(Debug)]
pub(super) struct Array {
    text: Box<str>,
    place: ResumePoint,
    /// How many tokens of the array were checked.
    verified: u32,
}

impl Session {
    /// Whether the rest of an array waits for [`Session::receive_more`], or a packet for a decision.
    #[inline]
    pub fn has_more(&self) -> bool {
        let calls = self.calls.as_ref();
        calls.is_some_and(|calls| calls.array.is_some() || !calls.undecided.is_empty())
    }

    /// How many bytes the session keeps for the rest of an array, and for packets that wait for a decision.
    pub fn kept_bytes(&self) -> usize {
        let array = self.calls.as_ref().and_then(|calls| calls.array.as_ref());
        array.map_or(0, |array| array.text.len()) + self.undecided_bytes()
    }

    /// Handles another part of an array.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub fn receive_more<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(mut array) = self.calls.as_mut().and_then(|calls| calls.array.take()) else {
            return Ok(());
        };
        let mut was_authenticated = self.claims.is_some();
        env.common.scratch.set_verified_before(array.verified);
        let decoded = resume(&array.text, array.place);
        let result = match self.receive_decoded(decoded, &mut was_authenticated, env, decisions) {
            Ok(None) => Ok(()),
            Ok(Some(place)) => {
                array.place = place;
                array.verified = env.common.scratch.verified();
                self.calls.get_or_insert_default().array = Some(array);
                Ok(())
            }
            Err(reason) => Err(reason),
        };
        env.common.scratch.set_verified_before(0);
        self.end_message(was_authenticated, result, env, decisions)
    }

    /// Handles the first part of an array. If a rest is left, its text is copied and kept.
    #[inline(never)]
    pub(super) fn begin_array<A: App>(
        &mut self,
        text: &str,
        decoded: Decoded<'_>,
        was_authenticated: &mut bool,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if let Some(place) = self.receive_decoded(decoded, was_authenticated, env, decisions)? {
            let array = Array {
                text: text.into(),
                place,
                verified: env.common.scratch.verified(),
            };
            self.calls.get_or_insert_default().array = Some(Box::new(array));
        }
        Ok(())
    }

    /// Handles a packet, or a part of an array; returns where the next part begins.
    ///
    /// `was_authenticated`: whether the client was authenticated at any time before the end of this part. It may
    /// authenticate itself, subscribe, and drop its token in the same part.
    pub(super) fn receive_decoded<A: App>(
        &mut self,
        decoded: Decoded<'_>,
        was_authenticated: &mut bool,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<Option<ResumePoint>, CloseReason> {
        match decoded {
            Decoded::One(packet) => self.receive_packet(&packet, env, decisions)?,
            Decoded::Many(packets) => {
                return self.receive_some(packets, was_authenticated, env, decisions);
            }
            Decoded::Long(place) => return Ok(Some(place)),
            Decoded::TooDeep => {
                env.common.scratch.hit(Limit::JsonDepth);
                self.receive_packet(&Packet::Raw, env, decisions)?;
            }
        }
        Ok(None)
    }

    fn receive_some<A: App>(
        &mut self,
        mut packets: Packets<'_>,
        was_authenticated: &mut bool,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<Option<ResumePoint>, CloseReason> {
        let end = packets.position().saturating_add(PART_BYTES_MAX);
        let mut left = env.common.packets_max;
        while let Some(packet) = packets.next() {
            env.common.scratch.count_packet_of_array();
            self.receive_packet(&packet, env, decisions)?;
            *was_authenticated |= self.claims.is_some();
            left = left.saturating_sub(1);
            if left == 0
                || self.is_waiting()
                || packets.position() >= end
                || decisions.bytes_len() >= PART_DECIDED_BYTES_MAX
                || env.common.scratch.verifications() >= VERIFICATIONS_PER_PART
            {
                return Ok(packets.place());
            }
        }
        Ok(None)
    }
}

/// A part ends when its packets have taken this many bytes of the array.
pub(crate) const PART_BYTES_MAX: usize = 64 * 1024;
/// A part ends when its decisions name this many bytes: a small array of calls may have long answers. They
/// are sent, or fill the outbox, before the next part is handled.
const PART_DECIDED_BYTES_MAX: usize = 4 * 1024 * 1024;
