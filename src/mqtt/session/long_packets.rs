//! Long SUBSCRIBE and UNSUBSCRIBE packets, handled in parts, so that one takes no more of a turn than as many
//! short ones.
//!
//! ```text
//!  packet ──► first filters ──► receive_more … ──► last filters ──► SUBACK with the codes of all
//! ```
//! Each part is handled like a packet with these filters and the same identifier, except for the answer:
//! codes are collected until the last part. The session keeps the rest of the packet, and
//! [`Session::has_more`] says so. The core takes no other input of this connection until
//! [`Session::receive_more`] has handled everything, as for an array of SocketCluster
//! (`socketcluster/session/arrays.rs`). A malformed filter ends the connection when its part comes. If the
//! connection ends before the last part, the rest is dropped.
//!
//! Each filter counts as a message against the rate and the share of the turn, in short packets too.
//!
//! Limits: [`FILTERS_PER_PART_MAX`], [`SHORT_BYTES_MAX`].

use super::{Open, Session, close_saying};
use crate::app::App;
use crate::decision::{CloseReason, Decisions};
use crate::mqtt::environment::Environment;
use crate::mqtt::fault::Fault;
use crate::mqtt::packet::{PacketOrWill, kind};
use crate::mqtt::properties::{Properties, Property, put_variable};
use crate::mqtt::reader::Reader;
use crate::mqtt::{ReasonCode, Version};

/// A long packet of which the last filters have not been handled.
#[derive(Debug)]
pub(super) struct Parts {
    version: Version,
    /// The first byte of the packet.
    first: u8,
    /// The bytes with which each part begins: the packet identifier, and the subscription identifier.
    head: Vec<u8>,
    filters: Box<[u8]>,
    /// The end of the filters that have been handled, or are being handled now.
    at: usize,
    answer: PartialAnswer,
}

/// The part of the answer to a long packet that is known so far.
#[derive(Debug, Default)]
pub(super) struct PartialAnswer {
    pub(super) codes: Vec<ReasonCode>,
    /// Why the first of the refused filters was refused.
    pub(super) text: Option<&'static str>,
    /// The number of the wait for owners of groups; `None` if no owner has to answer.
    pub(super) wait: Option<u64>,
    /// How many owners have to answer.
    pub(super) owners: usize,
}

/// Whether a packet is handled in parts: this depends on the length of its filters alone, not on its
/// properties.
#[inline]
pub(super) fn is_long(version: Version, first: u8, body: &[u8]) -> bool {
    body.len() > SHORT_BYTES_MAX
        && matches!(first >> 4, kind::SUBSCRIBE | kind::UNSUBSCRIBE)
        // Faults are found when the packet is read as a whole.
        && filters_of(version, body).is_ok_and(|filters| filters.len() > SHORT_BYTES_MAX)
}

/// The filters of a SUBSCRIBE or UNSUBSCRIBE, each with its options.
fn filters_of(version: Version, body: &[u8]) -> Result<&[u8], Fault> {
    let mut reader = Reader::new(body);
    reader.packet_id()?;
    if version.has_properties() {
        let bytes = reader.variable()?;
        reader.bytes(bytes as usize)?;
    }
    Ok(reader.rest())
}

impl Parts {
    fn new(version: Version, first: u8, body: &[u8], users_max: u32) -> Result<Parts, CloseReason> {
        let fault = |_: Fault| CloseReason::MalformedMqtt;
        let place = match first >> 4 {
            kind::SUBSCRIBE => PacketOrWill::Subscribe,
            _ => PacketOrWill::Unsubscribe,
        };
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id().map_err(fault)?;
        let properties = Properties::take(version, &mut reader, place).map_err(fault)?;
        if properties.user_count() > users_max {
            return Err(CloseReason::TooManyUserProperties);
        }
        let mut head = packet_id.get().to_be_bytes().to_vec();
        if version.has_properties() {
            let mut kept = Vec::new();
            if let Some(id) = properties.number(Property::SubscriptionIdentifier) {
                kept.push(SUBSCRIPTION_IDENTIFIER);
                put_variable(&mut kept, id as usize);
            }
            put_variable(&mut head, kept.len());
            head.extend(kept);
        }
        Ok(Parts {
            version,
            first,
            head,
            filters: reader.rest().into(),
            at: 0,
            answer: PartialAnswer::default(),
        })
    }

    /// The body of the next part.
    fn next(&mut self) -> Vec<u8> {
        let options_bytes = usize::from(self.first >> 4 == kind::SUBSCRIBE);
        let (begin, end) = (self.at, self.filters.len());
        for _ in 0..FILTERS_PER_PART_MAX {
            let length = self.filters[self.at..].first_chunk();
            let filter_bytes = length.map_or(0, |length| u16::from_be_bytes(*length).into());
            self.at = end.min(self.at + size_of::<u16>() + filter_bytes + options_bytes);
            if self.at == end || self.at - begin >= PART_BYTES_MAX {
                break;
            }
        }
        [&self.head, &self.filters[begin..self.at]].concat()
    }

    fn is_last(&self) -> bool {
        self.at == self.filters.len()
    }
}

impl Session {
    /// Whether the rest of a long packet waits for [`Session::receive_more`].
    #[inline]
    pub fn has_more(&self) -> bool {
        self.open().is_some_and(|open| {
            open.parts().is_some_and(|parts| !parts.is_last()) && open.undecided().is_none()
        })
    }

    /// Whether the packet that is handled now is a part of a long one.
    pub(super) fn has_parts(&self) -> bool {
        self.open().is_some_and(|open| open.parts().is_some())
    }

    /// Handles another part of a long packet.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub fn receive_more<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(open) = self.open_mut().filter(|open| open.undecided().is_none()) else {
            return Ok(());
        };
        let Some(parts) = open.parts_mut().filter(|parts| !parts.is_last()) else {
            return Ok(());
        };
        let (version, first, part) = (parts.version, parts.first, parts.next());
        let result = self.handle(version, first, &part, env, decisions);
        if result.is_err()
            && let Some(parts) = self.open_mut().and_then(Open::parts_mut)
        {
            // The connection ends: the rest is dropped.
            parts.at = parts.filters.len();
        }
        result
    }

    /// Begins to handle a long packet.
    #[cold]
    pub(super) fn begin_parts<A: App>(
        &mut self,
        version: Version,
        first: u8,
        body: &[u8],
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match Parts::new(version, first, body, env.settings.user_properties_max) {
            Ok(parts) => {
                if let Some(open) = self.open_mut() {
                    open.extras_mut().parts = Some(Box::new(parts));
                }
                self.receive_more(env, decisions)
            }
            Err(reason) => close_saying(
                decisions,
                reason,
                "SUBSCRIBE or UNSUBSCRIBE: the packet identifier or the properties",
            ),
        }
    }

    /// The number of the wait for owners of groups, if a part of a long packet is handled that is not the first.
    pub(super) fn wait_of_parts(&self) -> Option<u64> {
        self.open()?.parts()?.answer.wait
    }

    /// How many filters of the packet that is handled now come before this part of it.
    pub(super) fn filters_before(&self) -> usize {
        let parts = self.open().and_then(Open::parts);
        parts.map_or(0, |parts| parts.answer.codes.len())
    }

    /// Adds the results of a packet, or of a part of a long one, to the answer. Returns the answer when it is
    /// complete.
    pub(super) fn complete(&mut self, part: PartialAnswer) -> Option<PartialAnswer> {
        let open = self.open_mut()?;
        let Some(parts) = open.parts_mut() else {
            return Some(part);
        };
        let answer = &mut parts.answer;
        answer.codes.extend(part.codes);
        answer.text = answer.text.or(part.text);
        answer.wait = answer.wait.or(part.wait);
        answer.owners += part.owners;
        if !parts.is_last() {
            return None;
        }
        let parts = open.extras_mut().parts.take();
        parts.map(|parts| parts.answer)
    }

    /// How many bytes the session keeps of a long packet.
    pub(super) fn parts_bytes(&self) -> usize {
        let parts = self.open().and_then(Open::parts);
        parts.map_or(0, |parts| parts.filters.len() + parts.answer.codes.capacity())
    }
}

/// A packet with longer filters is handled in parts. A shorter one has no more than as many filters as two parts.
const SHORT_BYTES_MAX: usize = 512;
/// Filters of one part: each takes up to 5 µs.
const FILTERS_PER_PART_MAX: usize = 64;
/// A part ends when its filters have this many bytes.
const PART_BYTES_MAX: usize = 16 * 1024;
/// The identifier of this property (section 2.2.2.2).
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
