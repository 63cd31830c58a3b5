//! What nodes send each other: frames to one node, and greetings to all.
//!
//! ```text
//!   frame      [ 'R' | version 1 | sender 8 | link 8 | number 8 | publications before 8 | item … ]
//!   item       [ tag 1 | length 4 | body ]        a tag that is not known is skipped
//!   greeting   [ 'H' | version 1 | sender 8 | flags 1 | digests 8 each × 2 | node id, version: length 1, text ]
//!     flags: the node ends 0 | it drains 1
//! ```
//! Numbers are little-endian. The sender is an incarnation: a random number that each process makes at its start. A link is
//! one direction between two incarnations; a later link between the same two has a greater number. Its frames are numbered
//! from 1, and each says how many publications of the link came before it, sent or lost.
//!
//! Whoever may publish at NATS may send anything here: reading never panics, and takes no more memory than the message has.

use crate::broker::Origin;
use crate::cores::Subject;

/// The part of a frame before its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) sender: u64,
    pub(super) link: u64,
    pub(super) number: u64,
    /// Publications of the link before this frame.
    pub(super) published: u64,
}

/// One part of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A publication; `body` is JSON or nothing, or what `mqtt/publication.rs` writes.
    Publication {
        origin: Origin,
        channel: &'a [u8],
        body: &'a [u8],
    },
    /// The sender wants these publications, or does not want them any more.
    Want { subject: Subject, is_wanted: bool },
    /// All that the sender wants follows.
    AllBegins,
    /// That was all: the sender wants nothing else.
    AllEnds,
    /// The sender asks for all that the receiver wants.
    AskAll,
    /// The receiver is to send the number back.
    Ping(u64),
    /// The number of a ping.
    Pong(u64),
}

/// What a node tells all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) sender: u64,
    /// Whether the node ends.
    pub(super) is_farewell: bool,
    /// Whether the node drains: another process may have its id already.
    pub(super) is_draining: bool,
    /// Of the policies of channels, and of the limits on publications.
    pub(super) digests: [u64; 2],
    pub(super) node_id: String,
    pub(super) version: String,
}

/// Why a message was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is of a later version of Ringcast.
    Version(u8),
    /// It is none of these messages.
    Malformed,
}

impl FrameHead {
    /// Appends the head.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[FRAME, VERSION]);
        for number in [self.sender, self.link, self.number, self.published] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// Reads a frame: its head, and its items, which end at the first that cannot be read.
pub(super) fn read_frame(bytes: &[u8]) -> Result<(FrameHead, Items<'_>), Unread> {
    let mut reader = Reader(begin(bytes, FRAME)?);
    let mut number = || reader.u64().ok_or(Unread::Malformed);
    let head = FrameHead {
        sender: number()?,
        link: number()?,
        number: number()?,
        published: number()?,
    };
    Ok((head, Items(reader)))
}

/// The items of a frame.
#[derive(Clone, Debug)]
pub(super) struct Items<'a>(Reader<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.0.0.is_empty() {
                return None;
            }
            match self.take() {
                Some(Some(item)) => return Some(Ok(item)),
                Some(None) => {}
                None => {
                    self.0 = Reader(&[]);
                    return Some(Err(Unread::Malformed));
                }
            }
        }
    }
}

impl<'a> Items<'a> {
    /// The next item; `Some(None)` for one of a tag that is not known.
    fn take(&mut self) -> Option<Option<Item<'a>>> {
        let tag = self.0.u8()?;
        let length = self.0.u32()?;
        let mut body = Reader(self.0.bytes(length as usize)?);
        Some(Some(match tag {
            SOCKETCLUSTER | MQTT => {
                let channel_bytes = body.u32()?;
                Item::Publication {
                    origin: if tag == MQTT {
                        Origin::Mqtt
                    } else {
                        Origin::SocketCluster
                    },
                    channel: body.bytes(channel_bytes as usize)?,
                    body: body.0,
                }
            }
            WANT_CHANNEL | LEAVE_CHANNEL => Item::Want {
                subject: Subject::Channel(body.0.into()),
                is_wanted: tag == WANT_CHANNEL,
            },
            WANT_FILTER | LEAVE_FILTER => Item::Want {
                subject: Subject::Filter(body.0.into()),
                is_wanted: tag == WANT_FILTER,
            },
            ALL_BEGINS => Item::AllBegins,
            ALL_ENDS => Item::AllEnds,
            ASK_ALL => Item::AskAll,
            PING => Item::Ping(body.u64()?),
            PONG => Item::Pong(body.u64()?),
            _ => return Some(None),
        }))
    }
}

impl Item<'_> {
    /// How many bytes [`Item::write`] appends.
    pub(super) fn bytes(&self) -> usize {
        ITEM_HEAD_BYTES
            + match self {
                Item::Publication { channel, body, .. } => 4 + channel.len() + body.len(),
                Item::Want { subject, .. } => match subject {
                    Subject::Channel(name) | Subject::Filter(name) => name.len(),
                },
                Item::AllBegins | Item::AllEnds | Item::AskAll => 0,
                Item::Ping(_) | Item::Pong(_) => 8,
            }
    }

    /// Appends the item.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let tag = match self {
            Item::Publication { origin, .. } => match origin {
                Origin::SocketCluster => SOCKETCLUSTER,
                Origin::Mqtt => MQTT,
            },
            Item::Want { subject, is_wanted } => match (subject, is_wanted) {
                (Subject::Channel(_), true) => WANT_CHANNEL,
                (Subject::Channel(_), false) => LEAVE_CHANNEL,
                (Subject::Filter(_), true) => WANT_FILTER,
                (Subject::Filter(_), false) => LEAVE_FILTER,
            },
            Item::AllBegins => ALL_BEGINS,
            Item::AllEnds => ALL_ENDS,
            Item::AskAll => ASK_ALL,
            Item::Ping(_) => PING,
            Item::Pong(_) => PONG,
        };
        out.push(tag);
        out.extend_from_slice(&length(self.bytes() - ITEM_HEAD_BYTES).to_le_bytes());
        match self {
            Item::Publication { channel, body, .. } => {
                out.extend_from_slice(&length(channel.len()).to_le_bytes());
                out.extend_from_slice(channel);
                out.extend_from_slice(body);
            }
            Item::Want { subject, .. } => match subject {
                Subject::Channel(name) | Subject::Filter(name) => out.extend_from_slice(name),
            },
            Item::AllBegins | Item::AllEnds | Item::AskAll => {}
            Item::Ping(number) | Item::Pong(number) => out.extend_from_slice(&number.to_le_bytes()),
        }
    }
}

/// The length of a message of NATS, or of a part of one.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("NATS takes no message of 4 GiB, and larger items are not written")
}

impl Greeting {
    /// The message.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![GREETING, VERSION];
        out.extend_from_slice(&self.sender.to_le_bytes());
        out.push(u8::from(self.is_farewell) | u8::from(self.is_draining) << 1);
        for digest in self.digests {
            out.extend_from_slice(&digest.to_le_bytes());
        }
        for text in [&self.node_id, &self.version] {
            let text = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
            out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(text);
        }
        out
    }

    /// Reads a greeting. What a later version adds at its end is ignored.
    pub(super) fn read(bytes: &[u8]) -> Result<Greeting, Unread> {
        let mut reader = Reader(begin(bytes, GREETING)?);
        let mut read = || {
            let sender = reader.u64()?;
            let flags = reader.u8()?;
            Some(Greeting {
                sender,
                is_farewell: flags & 1 != 0,
                is_draining: flags & 2 != 0,
                digests: [reader.u64()?, reader.u64()?],
                node_id: reader.text()?,
                version: reader.text()?,
            })
        };
        read().ok_or(Unread::Malformed)
    }
}

/// What follows the kind and the version of a message.
fn begin(bytes: &[u8], kind: u8) -> Result<&[u8], Unread> {
    match bytes {
        [is, VERSION, rest @ ..] if *is == kind => Ok(rest),
        [is, version, ..] if *is == kind && *version > VERSION => Err(Unread::Version(*version)),
        _ => Err(Unread::Malformed),
    }
}

#[derive(Clone, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    /// A text of printable ASCII: it goes into logs.
    fn text(&mut self) -> Option<String> {
        let length = self.u8()?;
        let text = std::str::from_utf8(self.bytes(usize::from(length))?).ok()?;
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        is_printable.then(|| text.to_owned())
    }
}

const FRAME: u8 = b'R';
const GREETING: u8 = b'H';
/// The version of these messages. A node ignores those of a later one, and says so.
const VERSION: u8 = 1;
/// Bytes before the items of a frame.
pub(super) const FRAME_HEAD_BYTES: usize = 2 + 4 * 8;
const ITEM_HEAD_BYTES: usize = 5;
const SOCKETCLUSTER: u8 = 1;
const MQTT: u8 = 2;
const WANT_CHANNEL: u8 = 3;
const LEAVE_CHANNEL: u8 = 4;
const WANT_FILTER: u8 = 5;
const LEAVE_FILTER: u8 = 6;
const ALL_BEGINS: u8 = 7;
const ALL_ENDS: u8 = 8;
const ASK_ALL: u8 = 9;
const PING: u8 = 10;
const PONG: u8 = 11;

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use proptest::{collection::vec, prop_assert_eq};

    use super::*;

    #[derive(Clone, Debug)]
    enum Owned {
        Publication(bool, Vec<u8>, Vec<u8>),
        Want(bool, Vec<u8>, bool),
        Number(bool, u64),
        Plain(u8),
    }

    fn any_item() -> impl Strategy<Value = Owned> {
        prop_oneof![
            any::<(bool, Vec<u8>, Vec<u8>)>()
                .prop_map(|(mqtt, channel, body)| Owned::Publication(mqtt, channel, body)),
            any::<(bool, Vec<u8>, bool)>()
                .prop_map(|(filter, name, wanted)| Owned::Want(filter, name, wanted)),
            any::<(bool, u64)>().prop_map(|(ping, number)| Owned::Number(ping, number)),
            prop_oneof![Just(0), Just(1), Just(2)].prop_map(Owned::Plain),
        ]
    }

    fn item(owned: &Owned) -> Item<'_> {
        match owned {
            Owned::Publication(mqtt, channel, body) => Item::Publication {
                origin: if *mqtt {
                    Origin::Mqtt
                } else {
                    Origin::SocketCluster
                },
                channel,
                body,
            },
            Owned::Want(filter, name, is_wanted) => Item::Want {
                subject: match filter {
                    true => Subject::Filter(name.as_slice().into()),
                    false => Subject::Channel(name.as_slice().into()),
                },
                is_wanted: *is_wanted,
            },
            Owned::Number(true, number) => Item::Ping(*number),
            Owned::Number(false, number) => Item::Pong(*number),
            Owned::Plain(0) => Item::AllBegins,
            Owned::Plain(1) => Item::AllEnds,
            Owned::Plain(_) => Item::AskAll,
        }
    }

    proptest! {
        /// Every byte of names and payloads comes out as it went in; a frame that is cut has no other items.
        #[test]
        fn what_was_written_is_read(numbers: [u64; 4], items in vec(any_item(), 0..8), cut: u16) {
            let [sender, link, number, published] = numbers;
            let head = FrameHead { sender, link, number, published };
            let mut frame = Vec::new();
            head.write(&mut frame);
            prop_assert_eq!(frame.len(), FRAME_HEAD_BYTES);
            for owned in &items {
                let before = frame.len();
                item(owned).write(&mut frame);
                prop_assert_eq!(frame.len() - before, item(owned).bytes());
            }
            let expected: Vec<_> = items.iter().map(item).collect();
            let (read, rest) = read_frame(&frame).unwrap();
            prop_assert_eq!(read, head);
            prop_assert_eq!(rest.collect::<Result<Vec<_>, _>>(), Ok(expected.clone()));
            let cut = usize::from(cut) % (frame.len() + 1);
            if let Ok((read, rest)) = read_frame(&frame[..cut]) {
                prop_assert_eq!(read, head);
                let whole: Vec<_> = rest.filter_map(Result::ok).collect();
                prop_assert_eq!(&expected[..whole.len()], &whole[..]);
            }
        }

        #[test]
        fn no_bytes_are_more_than_they_are(mut bytes: Vec<u8>, begin in 0..3_u8) {
            if begin < 2 && bytes.len() > 2 {
                bytes[0] = [FRAME, GREETING][usize::from(begin)];
                bytes[1] = VERSION;
            }
            if let Ok((_, items)) = read_frame(&bytes) {
                let total: usize = items.flatten().map(|item| item.bytes()).sum();
                assert!(total <= bytes.len());
            }
            let _ = Greeting::read(&bytes);
        }

        #[test]
        fn a_greeting_is_read_and_may_be_longer(sender: u64, flags: [bool; 2], digests: [u64; 2], more: Vec<u8>) {
            let greeting = Greeting {
                sender, is_farewell: flags[0], is_draining: flags[1], digests, node_id: "a-1".to_owned(), version: "0.1.0".to_owned(),
            };
            let mut bytes = greeting.to_bytes();
            bytes.extend_from_slice(&more);
            prop_assert_eq!(Greeting::read(&bytes), Ok(greeting));
        }
    }

    #[test]
    fn a_later_version_is_told_from_nonsense_and_an_item_of_it_is_skipped() {
        assert_eq!(Greeting::read(b"H\x02anything").unwrap_err(), Unread::Version(2));
        assert_eq!(read_frame(b"R\x02").unwrap_err(), Unread::Version(2));
        assert_eq!(read_frame(b"X\x01").unwrap_err(), Unread::Malformed);
        assert_eq!(read_frame(b"").unwrap_err(), Unread::Malformed);
        let mut frame = Vec::new();
        let head = FrameHead {
            sender: 1,
            link: 2,
            number: 3,
            published: 4,
        };
        head.write(&mut frame);
        frame.extend_from_slice(&[200, 3, 0, 0, 0, 1, 2, 3]);
        Item::Ping(7).write(&mut frame);
        let items: Vec<_> = read_frame(&frame).unwrap().1.collect();
        assert_eq!(items, [Ok(Item::Ping(7))]);
    }
}
