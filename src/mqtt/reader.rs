//! Takes the fields of a packet from its bytes, one after the other. Section 1.5.

use super::fault::Fault;
use super::frame;
use super::packet::PacketId;
use super::topic;

/// The bytes of a packet that have not been read. A field that does not fit makes the packet malformed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// All bytes that are left.
    #[inline]
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that the packet ends here: bytes behind its last field are malformed.
    #[inline]
    pub(super) fn end(self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Fault::Malformed)
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (&bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(Fault::Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Fault::Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// A packet identifier. 0 is none (MQTT-2.2.1-3, MQTT-2.2.1-4).
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, Fault> {
        PacketId::new(self.u16()?).ok_or(Fault::Protocol)
    }

    /// A variable byte integer of the variable header, which MQTT 5 alone has; it has as few bytes as possible
    /// (MQTT-1.5.5-1).
    #[inline]
    pub(super) fn variable(&mut self) -> Result<u32, Fault> {
        let (value, bytes) = frame::variable(self.rest)?.ok_or(Fault::Malformed)?;
        if bytes != frame::variable_bytes(value as usize) {
            return Err(Fault::Malformed);
        }
        self.rest = &self.rest[bytes..];
        Ok(value)
    }

    /// Binary data (section 1.5.6): a length of two bytes, then as many bytes.
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }

    /// A string (section 1.5.4).
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        topic::text(self.binary()?)
    }

    /// A topic name, which may be empty.
    #[inline]
    pub(super) fn topic_name(&mut self) -> Result<&'a str, Fault> {
        topic::name(self.binary()?)
    }

    /// A topic filter. [`topic::Filter::parse`] checks the places of its wildcards.
    #[inline]
    pub(super) fn topic_filter(&mut self) -> Result<&'a str, Fault> {
        let filter = self.text()?;
        if filter.is_empty() {
            return Err(Fault::Malformed); // MQTT-4.7.3-1
        }
        Ok(filter)
    }
}
