//! The form of a session on disk (`data_dir`): items under the client id, each with a name and a value.
//!
//! ```text
//!   item           name                        value
//!   head           0                           1 | version 1 | expiry in seconds 4 | waits since, Unix ms 8 | user …
//!   subscription   1 | filter …                1 | options 1 | subscription identifier 4 | of a service: weight 4, window 4, meta …
//!   outgoing       2 | number 8, big-endian    1 | packet identifier 2 | QoS 1 | facts 1 | publication 8
//!   incoming       3                           1 | packet identifiers, 2 each
//!   will           4                           1 | QoS 1 | facts 1 | expiry 4 | delay 4 | lengths: topic 4, properties 4
//!                                                | with the fact 8: length of the claims 4 | claims …
//!                                                | topic … | properties … | payload …
//!
//!   publication    its number                  1 | as `kept_publications.rs` has it in memory
//! ```
//! The numbers of outgoing publications rise in the order of the queue. A session with a connection waits
//! since 0. Its user has one byte before it, 1, so that no user is different from an empty one. Numbers are
//! little-endian.
//!
//! Pure.

use super::Will;
use crate::mqtt::shares::{Membership, ServiceOffer};
use crate::mqtt::subscriptions::Options;
use crate::mqtt::{Qos, Version};
use crate::services::Offer;

const VERSION: u8 = 1;
const HEAD: u8 = 0;
const SUBSCRIPTION: u8 = 1;
const OUTGOING: u8 = 2;
const INCOMING: u8 = 3;
const WILL: u8 = 4;

/// The name of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Head,
    Subscription(&'a str),
    Outgoing(u64),
    Incoming,
    Will,
}

/// The facts of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) version: Version,
    pub(super) expiry_s: u32,
    /// The time since which it waits for its client, in Unix milliseconds; `None` while it has a connection.
    pub(super) since_unix_ms: Option<u64>,
    pub(super) user: Option<&'a str>,
}

/// A publication that is to be sent, or that the client has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredEntry {
    /// 0 if it waits.
    pub(super) packet_id: u16,
    pub(super) qos: u8,
    pub(super) facts: u8,
    /// The number of the publication; 0: the client has it.
    pub(super) publication: u64,
}

impl<'a> Item<'a> {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Item::Head => out.push(HEAD),
            Item::Subscription(filter) => {
                out.push(SUBSCRIPTION);
                out.extend_from_slice(filter.as_bytes());
            }
            Item::Outgoing(number) => {
                out.push(OUTGOING);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Item::Incoming => out.push(INCOMING),
            Item::Will => out.push(WILL),
        }
    }

    pub(super) fn read(name: &'a [u8]) -> Option<Item<'a>> {
        let (kind, rest) = name.split_first()?;
        match (*kind, rest) {
            (HEAD, []) => Some(Item::Head),
            (SUBSCRIPTION, filter) => Some(Item::Subscription(str::from_utf8(filter).ok()?)),
            (OUTGOING, number) => Some(Item::Outgoing(u64::from_be_bytes(number.try_into().ok()?))),
            (INCOMING, []) => Some(Item::Incoming),
            (WILL, []) => Some(Item::Will),
            _ => None,
        }
    }
}

impl<'a> Head<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let version = match self.version {
            Version::V3 => 3,
            Version::V4 => 4,
            Version::V5 => 5,
        };
        out.extend_from_slice(&[VERSION, version]);
        out.extend_from_slice(&self.expiry_s.to_le_bytes());
        out.extend_from_slice(&self.since_unix_ms.unwrap_or(0).to_le_bytes());
        if let Some(user) = self.user {
            out.push(1);
            out.extend_from_slice(user.as_bytes());
        }
    }

    pub(super) fn read(value: &'a [u8]) -> Option<Head<'a>> {
        let (&[VERSION, version], rest) = value.split_first_chunk()? else {
            return None;
        };
        let (expiry_s, rest) = rest.split_first_chunk()?;
        let (since, user) = rest.split_first_chunk()?;
        let since = u64::from_le_bytes(*since);
        Some(Head {
            version: match version {
                3 => Version::V3,
                4 => Version::V4,
                5 => Version::V5,
                _ => return None,
            },
            expiry_s: u32::from_le_bytes(*expiry_s),
            since_unix_ms: (since > 0).then_some(since),
            user: match user {
                [] => None,
                [1, user @ ..] => Some(str::from_utf8(user).ok()?),
                _ => return None,
            },
        })
    }
}

const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;

pub(super) fn write_subscription(membership: &Membership, out: &mut Vec<u8>) {
    let Membership { options, service } = membership;
    let flags = options.qos as u8
        | (u8::from(options.no_local) * NO_LOCAL)
        | (u8::from(options.retain_as_published) * RETAIN_AS_PUBLISHED);
    out.extend_from_slice(&[VERSION, flags]);
    out.extend_from_slice(&options.id.to_le_bytes());
    if let Some(ServiceOffer { offer, meta }) = service {
        out.extend_from_slice(&offer.weight.to_le_bytes());
        out.extend_from_slice(&offer.window.to_le_bytes());
        out.extend_from_slice(meta.as_deref().unwrap_or_default().as_bytes());
    }
}

pub(super) fn read_subscription(value: &[u8]) -> Option<Membership> {
    let (&[VERSION, flags], rest) = value.split_first_chunk()? else {
        return None;
    };
    let (id, rest) = rest.split_first_chunk()?;
    Some(Membership {
        options: Options {
            qos: Qos::from_bits(flags & 3)?,
            no_local: flags & NO_LOCAL != 0,
            retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
            id: u32::from_le_bytes(*id),
        },
        service: match rest {
            [] => None,
            rest => Some(read_offer(rest)?),
        },
    })
}

fn read_offer(bytes: &[u8]) -> Option<ServiceOffer> {
    let (weight, rest) = bytes.split_first_chunk()?;
    let (window, meta) = rest.split_first_chunk()?;
    let meta = str::from_utf8(meta).ok()?;
    Some(ServiceOffer {
        offer: Offer {
            weight: u32::from_le_bytes(*weight),
            window: u32::from_le_bytes(*window),
        },
        meta: (!meta.is_empty()).then(|| meta.into()),
    })
}

impl StoredEntry {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.packet_id.to_le_bytes());
        out.extend_from_slice(&[self.qos, self.facts]);
        out.extend_from_slice(&self.publication.to_le_bytes());
    }

    pub(super) fn read(value: &[u8]) -> Option<StoredEntry> {
        let (&[VERSION, low, high, qos @ 0..=2, facts], publication) = value.split_first_chunk()? else {
            return None;
        };
        Some(StoredEntry {
            packet_id: u16::from_le_bytes([low, high]),
            qos,
            facts,
            publication: u64::from_le_bytes(publication.try_into().ok()?),
        })
    }
}

pub(super) fn write_ids(ids: &[u16], out: &mut Vec<u8>) {
    out.push(VERSION);
    ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
}

pub(super) fn read_ids(value: &[u8]) -> Option<Vec<u16>> {
    let (&VERSION, ids) = value.split_first()? else {
        return None;
    };
    let (ids, []) = ids.as_chunks() else { return None };
    Some(ids.iter().map(|id| u16::from_le_bytes(*id)).collect())
}

const RETAIN: u8 = 1;
const IS_UTF8: u8 = 2;
const EXPIRES: u8 = 4;
const HAS_CLAIMS: u8 = 8;

pub(super) fn write_will(will: &Will, out: &mut Vec<u8>) {
    let facts = (u8::from(will.retain) * RETAIN)
        | (u8::from(will.is_utf8) * IS_UTF8)
        | (u8::from(will.expiry_s.is_some()) * EXPIRES)
        | (u8::from(will.claims.is_some()) * HAS_CLAIMS);
    out.extend_from_slice(&[VERSION, will.qos, facts]);
    out.extend_from_slice(&will.expiry_s.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&will.delay_s.to_le_bytes());
    for part in [&will.topic, &will.properties] {
        // It was a part of a packet, which has fewer than 2^28 bytes.
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    }
    if let Some(claims) = &will.claims {
        out.extend_from_slice(&u32::try_from(claims.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(claims.as_bytes());
    }
    for part in [&will.topic, &will.properties, &will.payload] {
        out.extend_from_slice(part);
    }
}

pub(super) fn read_will(value: &[u8]) -> Option<Will> {
    let (&[VERSION, qos @ 0..=2, facts], rest) = value.split_first_chunk()? else {
        return None;
    };
    let (numbers, rest) = rest.split_first_chunk::<16>()?;
    let (numbers, _) = numbers.as_chunks();
    let number = |at: usize| u32::from_le_bytes(numbers[at]);
    let (claims, rest) = match facts & HAS_CLAIMS {
        0 => (None, rest),
        _ => {
            let (length, rest) = rest.split_first_chunk()?;
            let (claims, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            (Some(str::from_utf8(claims).ok()?.into()), rest)
        }
    };
    let (topic, rest) = rest.split_at_checked(number(2) as usize)?;
    let (properties, payload) = rest.split_at_checked(number(3) as usize)?;
    Some(Will {
        topic: topic.into(),
        payload: payload.into(),
        properties: properties.into(),
        qos,
        retain: facts & RETAIN != 0,
        is_utf8: facts & IS_UTF8 != 0,
        expiry_s: (facts & EXPIRES != 0).then(|| number(0)),
        delay_s: number(1),
        claims,
    })
}

/// The value for a publication, from its bytes in memory.
pub(super) fn write_publication(kept: &[u8], out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(kept);
}

/// The bytes in memory of a publication, if they are whole.
pub(super) fn read_publication(value: &[u8]) -> Option<&[u8]> {
    match value {
        [VERSION, kept @ ..] if super::kept_publications::is_whole(kept) => Some(kept),
        _ => None,
    }
}
