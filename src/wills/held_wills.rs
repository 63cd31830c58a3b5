//! The wills of the open connections of one core.

use std::mem::size_of;
use std::time::Duration;

use hashbrown::HashMap;

use super::{SessionKey, Will};

/// The wills of the open connections of one core, by the index of the connection.
#[derive(Debug)]
pub struct HeldWills {
    by_connection: HashMap<u32, HeldWill, foldhash::fast::RandomState>,
    bytes: usize,
    bytes_max: usize,
}

/// A connection's will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldWill {
    /// The publication.
    pub will: Will,
    /// The session that it belongs to, if the client has named one.
    pub session: Option<SessionKey>,
}

/// The wills of the core would exceed `wills_bytes_max`: nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl HeldWill {
    /// Bytes of memory that it takes in a table.
    pub fn bytes(&self) -> usize {
        size_of::<u32>()
            + size_of::<Option<SessionKey>>()
            + self.will.bytes()
            + self.session.as_ref().map_or(0, |key| key.as_bytes().len())
    }
}

impl HeldWill {
    /// Appends the will in the form that [`HeldWill::read`] reads: the delay in milliseconds and three fields (channel,
    /// session key, data), each with a 32-bit length before it, [`ABSENT`] for one that is missing; then a byte of
    /// flags, unless it is 0, and behind it, with [`CLAIMS`], one more field. Numbers are big-endian.
    pub fn write(&self, out: &mut Vec<u8>) {
        let delay_ms = u32::try_from(self.will.delay.as_millis()).unwrap_or(u32::MAX);
        out.extend_from_slice(&delay_ms.to_be_bytes());
        let session = self.session.as_ref().map(SessionKey::as_bytes);
        for field in [Some(&*self.will.channel), session, self.will.data.as_deref()] {
            write_field(field, out);
        }
        let claims = self.will.claims.as_ref();
        let flags = (u8::from(self.will.retain) * RETAIN) | (u8::from(claims.is_some()) * CLAIMS);
        if flags != 0 {
            out.push(flags);
        }
        if let Some(claims) = claims {
            write_field(Some(claims.as_bytes()), out);
        }
    }

    /// Reads the bytes that [`HeldWill::write`] has written; `None` for other bytes.
    pub fn read(bytes: &[u8]) -> Option<HeldWill> {
        let (delay_ms, rest) = number(bytes)?;
        let (channel, rest) = field(rest)?;
        let (session, rest) = field(rest)?;
        let (data, rest) = field(rest)?;
        let (flags, rest) = match rest {
            [] => (0, rest),
            [flags @ (RETAIN | CLAIMS | RETAIN_AND_CLAIMS), rest @ ..] => (*flags, rest),
            [..] => return None,
        };
        let (claims, rest) = match flags & CLAIMS {
            0 => (None, rest),
            _ => field(rest)?,
        };
        let claims = claims.map(str::from_utf8).transpose().ok()?;
        let will = Will {
            channel: channel?.into(),
            data: data.map(Box::from),
            delay: Duration::from_millis(delay_ms.into()),
            retain: flags & RETAIN != 0,
            claims: claims.map(Box::from),
        };
        let session = session.map(|bytes| SessionKey(bytes.into()));
        rest.is_empty().then_some(HeldWill { will, session })
    }
}

fn write_field(field: Option<&[u8]>, out: &mut Vec<u8>) {
    // A field comes from a message, which is shorter than 4 GiB.
    let length = field.map_or(ABSENT, |field| u32::try_from(field.len()).unwrap_or(ABSENT));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(field.unwrap_or_default());
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn field(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = number(bytes)?;
    if length == ABSENT {
        return Some((None, rest));
    }
    let (field, rest) = rest.split_at_checked(length as usize)?;
    Some((Some(field), rest))
}

/// The length of a field that is missing.
const ABSENT: u32 = u32::MAX;
/// The flag of a will that is to be retained.
const RETAIN: u8 = 1;
/// The flag of a will with claims.
const CLAIMS: u8 = 2;
const RETAIN_AND_CLAIMS: u8 = RETAIN | CLAIMS;

impl HeldWills {
    /// No wills yet, and room for so many bytes of them.
    pub fn new(bytes_max: usize) -> HeldWills {
        HeldWills {
            by_connection: HashMap::default(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Whether no connection of the core has a will.
    pub fn is_empty(&self) -> bool {
        self.by_connection.is_empty()
    }

    /// How many connections have a will.
    pub fn len(&self) -> usize {
        self.by_connection.len()
    }

    /// The connections that have a will.
    pub fn connections(&self) -> Vec<u32> {
        self.by_connection.keys().copied().collect()
    }

    /// The will of a connection.
    pub fn get(&self, connection: u32) -> Option<&HeldWill> {
        self.by_connection.get(&connection)
    }

    /// Whether there is room for a will of a connection, in place of its former will.
    pub fn has_room(&self, connection: u32, held: &HeldWill) -> bool {
        let before = self.get(connection).map_or(0, HeldWill::bytes);
        self.bytes - before + held.bytes() <= self.bytes_max
    }

    /// Sets the will of a connection, and drops the former one.
    ///
    /// # Errors
    /// There is no room. The connection keeps the will that it has.
    pub fn set(&mut self, connection: u32, held: HeldWill) -> Result<(), NoRoom> {
        if !self.has_room(connection, &held) {
            return Err(NoRoom);
        }
        self.bytes += held.bytes();
        if let Some(former) = self.by_connection.insert(connection, held) {
            self.bytes -= former.bytes();
        }
        Ok(())
    }

    /// Replaces the claims of the will of a connection, if it has one with claims. If the new claims are longer, all
    /// wills together may exceed their bytes by the difference.
    pub fn renew(&mut self, connection: u32, claims: &str) {
        if let Some(held) = self.by_connection.get_mut(&connection)
            && let Some(former) = &mut held.will.claims
        {
            self.bytes = self.bytes - former.len() + claims.len();
            *former = claims.into();
        }
    }

    /// Takes the will of a connection away.
    pub fn take(&mut self, connection: u32) -> Option<HeldWill> {
        let held = self.by_connection.remove(&connection)?;
        self.bytes -= held.bytes();
        if self.by_connection.is_empty() {
            // Frees the memory of a table that once had many connections.
            self.by_connection = HashMap::default();
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(data: &str) -> HeldWill {
        HeldWill {
            will: Will {
                channel: b"c".as_slice().into(),
                data: Some(data.as_bytes().into()),
                delay: Duration::ZERO,
                retain: false,
                claims: None,
            },
            session: None,
        }
    }

    /// The will in these bytes, retained or not.
    fn retained_without(retain: bool, bytes: &[u8]) -> HeldWill {
        let mut held = HeldWill::read(bytes).unwrap();
        held.will.retain = retain;
        held
    }

    #[test]
    fn a_will_is_read_as_it_was_written_and_other_bytes_are_no_will() {
        for (channel, session, data, delay_ms) in [
            ("c", Some(("ann", "k")), Some("{}"), 5),
            ("", None, None, 0),
            ("a longer name", Some(("", "")), Some(""), u32::MAX),
        ] {
            let held = HeldWill {
                will: Will {
                    channel: channel.as_bytes().into(),
                    data: data.map(|data| data.as_bytes().into()),
                    delay: Duration::from_millis(delay_ms.into()),
                    retain: false,
                    claims: None,
                },
                session: session.map(|(user, key)| SessionKey::new(Some(user.as_bytes()), key.as_bytes())),
            };
            let mut bytes = Vec::new();
            held.write(&mut bytes);
            assert_eq!(HeldWill::read(&bytes), Some(held));
            for length in 0..bytes.len() {
                assert_eq!(HeldWill::read(&bytes[..length]), None);
            }
            bytes.push(RETAIN);
            let mut retained = HeldWill::read(&bytes).unwrap();
            assert!(std::mem::take(&mut retained.will.retain));
            bytes.pop();
            assert_eq!(HeldWill::read(&bytes), Some(retained));
            bytes.push(0);
            assert_eq!(HeldWill::read(&bytes), None);
            for retain in [false, true] {
                let mut held = retained_without(retain, &bytes[..bytes.len() - 1]);
                held.will.claims = Some(r#"{"sub":"ann"}"#.into());
                let mut bytes = Vec::new();
                held.write(&mut bytes);
                assert_eq!(HeldWill::read(&bytes), Some(held));
                assert_eq!(HeldWill::read(&bytes[..bytes.len() - 1]), None);
            }
        }
    }

    #[test]
    fn wills_take_no_more_than_their_bytes_and_a_refused_one_leaves_the_former() {
        let one = held("12345").bytes();
        let mut wills = HeldWills::new(2 * one);
        assert_eq!(wills.set(1, held("12345")), Ok(()));
        assert_eq!(wills.set(2, held("1234")), Ok(()));
        assert_eq!(wills.set(3, held("")), Err(NoRoom));
        // One byte more in the place of one that counts already.
        assert_eq!(wills.set(2, held("12345")), Ok(()));
        assert_eq!(wills.set(2, held("123456")), Err(NoRoom));
        assert_eq!(wills.get(2), Some(&held("12345")));
        assert_eq!((wills.len(), wills.bytes), (2, 2 * one));
        assert_eq!(wills.take(1), Some(held("12345")));
        assert_eq!(wills.take(1), None);
        assert_eq!(wills.take(2), Some(held("12345")));
        assert!(wills.is_empty() && wills.bytes == 0);
    }
}
