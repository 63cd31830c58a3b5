//! Arrays of packets, handled in parts, so that a long one takes no more of a turn than as many messages would.
//!
//! ```text
//!  message ──► decode ──► Long ──► receive_more … ──► Many ──► some packets ──► receive_more … ──► the last packet
//!                          judged in parts                      handled in parts
//! ```
//! The packets of one part are handled as one message is: their answers come first, then what the application sends
//! besides. A part ends with the first packet at which one of its limits is reached; what is left of the array is kept,
//! and [`Session::has_more`] says so. The core takes nothing else from this connection before
//! [`Session::receive_more`] has been called until nothing is left, so the order of all packets is that of their
//! arrival. If the connection ends before that, what is left is dropped, as messages that have not been read are.
//!
//! Limits: `Environment::packets_max`, [`PART_BYTES_MAX`], [`PART_DECIDED_BYTES_MAX`] and `VERIFICATIONS_PER_PART` for a part.

use super::tokens::VERIFICATIONS_PER_PART;
use super::{Environment, Session};
use crate::app::App;
use crate::decision::{CloseReason, Decisions};
use crate::socketcluster::decode::{Decoded, Packets, Place, resume};
use crate::socketcluster::packet::Packet;

/// An array of which something is left.
#[derive(Debug)]
pub(super) struct Array {
    text: Box<str>,
    place: Place,
    /// How many of its tokens have been checked.
    verified: u32,
}

impl Session {
    /// Whether something is left of an array.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.calls.as_ref().is_some_and(|calls| calls.array.is_some())
    }

    /// How many bytes are kept for that.
    pub fn kept_bytes(&self) -> usize {
        let array = self.calls.as_ref().and_then(|calls| calls.array.as_ref());
        array.map_or(0, |array| array.text.len())
    }

    /// Goes on with an array.
    ///
    /// # Errors
    /// The connection is to be closed, after the decisions so far have been carried out.
    pub fn receive_more<A: App>(
        &mut self,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(mut array) = self.calls.as_mut().and_then(|calls| calls.array.take()) else {
            return Ok(());
        };
        let mut was_authenticated = self.claims.is_some();
        env.scratch.set_verified_before(array.verified);
        let decoded = resume(&array.text, array.place);
        let result = match self.receive_decoded(decoded, &mut was_authenticated, env, decisions) {
            Ok(None) => Ok(()),
            Ok(Some(place)) => {
                array.place = place;
                array.verified = env.scratch.verified();
                self.calls.get_or_insert_default().array = Some(array);
                Ok(())
            }
            Err(reason) => Err(reason),
        };
        env.scratch.set_verified_before(0);
        self.end_message(was_authenticated, result, env, decisions)
    }

    /// Begins an array; if something of it is left, its text is copied and kept.
    #[inline(never)]
    pub(super) fn begin_array<A: App>(
        &mut self,
        text: &str,
        decoded: Decoded<'_>,
        was_authenticated: &mut bool,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if let Some(place) = self.receive_decoded(decoded, was_authenticated, env, decisions)? {
            let array = Array {
                text: text.into(),
                place,
                verified: env.scratch.verified(),
            };
            self.calls.get_or_insert_default().array = Some(Box::new(array));
        }
        Ok(())
    }

    /// Handles a packet, or some of an array; returns where to go on.
    ///
    /// `was_authenticated`: whether the client was at any time before the end of this part. It may become somebody,
    /// subscribe, and be nobody again.
    pub(super) fn receive_decoded<A: App>(
        &mut self,
        decoded: Decoded<'_>,
        was_authenticated: &mut bool,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<Option<Place>, CloseReason> {
        match decoded {
            Decoded::One(packet) => self.receive_packet(&packet, env, decisions)?,
            Decoded::Many(packets) => {
                return self.receive_some(packets, was_authenticated, env, decisions);
            }
            Decoded::Long(place) => return Ok(Some(place)),
            Decoded::TooDeep => {
                env.scratch.count_json_depth_hit();
                self.receive_packet(&Packet::Raw, env, decisions)?;
            }
        }
        Ok(None)
    }

    fn receive_some<A: App>(
        &mut self,
        mut packets: Packets<'_>,
        was_authenticated: &mut bool,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<Option<Place>, CloseReason> {
        let end = packets.position().saturating_add(PART_BYTES_MAX);
        let mut left = env.packets_max;
        while let Some(packet) = packets.next() {
            env.scratch.count_packet_of_array();
            self.receive_packet(&packet, env, decisions)?;
            *was_authenticated |= self.claims.is_some();
            left = left.saturating_sub(1);
            if left == 0
                || packets.position() >= end
                || decisions.bytes_len() >= PART_DECIDED_BYTES_MAX
                || env.scratch.verifications() >= VERIFICATIONS_PER_PART
            {
                return Ok(packets.place());
            }
        }
        Ok(None)
    }
}

/// A part is over when its packets have taken so many bytes of the array.
pub(crate) const PART_BYTES_MAX: usize = 64 * 1024;
/// A part is over when so much has been decided about it: a small array of calls may be answered with a lot, and what has
/// been answered leaves, or fills the outbox, before the next part is handled.
const PART_DECIDED_BYTES_MAX: usize = 4 * 1024 * 1024;
